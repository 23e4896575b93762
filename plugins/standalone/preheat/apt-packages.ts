/** An index of packages, read as it comes: of each paragraph only the file's name, length and hash are kept. */
import { PeerDistError } from '../../../lib/errors.ts';
import { type Item, MAX_URLS, TooManyUrls } from './collection.ts';

/** Characters of a line; descriptions and lists of dependencies have thousands. Policy. */
const MAX_LINE_CHARACTERS = 1024 * 1024;
/** Names that cannot be asked for, kept with the reason. Policy. */
const MAX_REFUSED = 100;

export interface Packages {
  readonly items: readonly Item[];
  /** Names that lead elsewhere, and why. */
  readonly refused: ReadonlyMap<string, string>;
}

/**
 * @param root URL of the repository, ending in a slash
 * @param isWanted whether a URL is to be kept
 * @throws {@link PeerDistError} `ERR_PEERDIST_LIMIT`, `ERR_PEERDIST_ORIGIN_PROTOCOL`
 */
export async function parsePackages(
  body: AsyncIterable<Uint8Array>,
  root: string,
  isWanted: (url: string) => boolean,
): Promise<Packages> {
  const items: Item[] = [];
  const refused = new Map<string, string>();
  let paragraph: { filename?: string; size?: string; sha256?: string } = {};
  const end = (): void => {
    const { filename, size = '', sha256 = '' } = paragraph;
    paragraph = {};
    if (filename === undefined) return;
    if (!isBeneath(filename)) {
      if (refused.size < MAX_REFUSED) refused.set(filename.slice(0, 200), 'a name that leads out of the repository');
      return;
    }
    const url = new URL(`${root}${aptEncode(filename)}`).href;
    if (!isWanted(url)) return;
    if (items.length === MAX_URLS) throw new TooManyUrls();
    items.push({
      url,
      ...(/^\d{1,15}$/.test(size) ? { bytes: Number(size) } : {}),
      ...(/^[0-9a-f]{64}$/i.test(sha256) ? { sha256: sha256.toLowerCase() } : {}),
    });
  };
  for await (const line of linesOf(body)) {
    if (line.trim() === '') end();
    const [, name, value = ''] = /^(Filename|Size|SHA256):[ \t]*(.*)$/i.exec(line) ?? [];
    if (name !== undefined) paragraph[name.toLowerCase() as keyof typeof paragraph] = value.trim();
  }
  end();
  return { items, refused };
}

/** Whether a name stays where the repository is. */
function isBeneath(name: string): boolean {
  return (
    name !== '' &&
    !name.startsWith('/') &&
    !/[\\\p{Cc}]/u.test(name) &&
    !name.split('/').some((part) => part === '.' || part === '..')
  );
}

/** As apt writes names into URLs (`QuoteString` with its `Acquire::URIEncode`, "+~ "): caches know what it asks for by that very text. */
function aptEncode(name: string): string {
  return name.replaceAll(/[^\x21-\x24\x26-\x2a\x2c-\x7d]|[#?]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join(''),
  );
}

async function* linesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() as string;
    if (rest.length > MAX_LINE_CHARACTERS)
      throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'not an index of packages: a line without an end');
    yield* lines;
  }
  yield rest + decoder.decode();
}
