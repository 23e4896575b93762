/**
 * Repositories of Debian and its kin (Debian wiki, "DebianRepository/Format"): a Release file lists indexes with their hashes, an index of
 * packages lists files with theirs. The signature is the clients' to check: here it is said what they will ask for.
 */
import { createHash } from 'node:crypto';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { type Packages, parsePackages } from './apt-packages.ts';
import type { Collection } from './collection.ts';
import { openDocument, type Reading, textOf, unpacked } from './document.ts';

/** Debian's have a fifth of a MiB. Policy. */
const MAX_RELEASE_BYTES = 16 * 1024 * 1024;
/** An index of packages, unpacked; Debian's largest has 60 MiB. Policy. */
const MAX_INDEX_BYTES = 1024 * 1024 * 1024;
/** Debian's names of what Node calls otherwise. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  ia32: 'i386',
  arm: 'armhf',
  ppc64: 'ppc64el',
  mipsel: 'mipsel',
};

interface Listed {
  readonly bytes: number;
  readonly sha256: string;
}

export interface Release {
  /** Words of a field of one line. */
  readonly words: (field: string) => readonly string[];
  /** By path beneath the Release file. */
  readonly files: ReadonlyMap<string, Listed>;
}

export interface AptChoice {
  readonly components: readonly string[];
  /** Undefined: of this machine, and those that are of all. */
  readonly architectures: readonly string[] | undefined;
}

/** Where a Release file lies: `…/dists/SUITE/Release` or `InRelease`. */
export function isReleaseUrl(url: string): boolean {
  return /\/dists\/.+\/(?:In)?Release$/.test(new URL(url).pathname);
}

/**
 * Puts the packages of a repository into a collection. An index that cannot be read, or is not what the Release file says, counts as a
 * failure, and the others are read.
 *
 * @throws {@link PeerDistError} when nothing else can be read either
 */
export async function readAptRelease(
  url: string,
  choice: AptChoice,
  collection: Collection,
  reading: Reading,
): Promise<void> {
  let release: Release;
  let indexes: readonly string[];
  try {
    const { body } = await openDocument(url, MAX_RELEASE_BYTES, reading);
    release = parseRelease(await textOf(body, MAX_RELEASE_BYTES));
    indexes = indexesOf(release, choice);
  } catch (error) {
    return collection.fail(url, error, reading.signal);
  }
  const root = url.slice(0, url.lastIndexOf('/dists/') + 1);
  for (const path of indexes) {
    const index = new URL(path, url).href;
    try {
      const found = await readIndex(index, release.files.get(path) as Listed, root, collection, reading);
      for (const item of found.items) collection.add(item);
      for (const [name, reason] of found.refused)
        collection.fail(`${index}: ${name}`, new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', reason), reading.signal);
    } catch (error) {
      collection.fail(index, error, reading.signal);
    }
  }
  return undefined;
}

async function readIndex(
  url: string,
  { bytes, sha256 }: Listed,
  root: string,
  collection: Collection,
  reading: Reading,
): Promise<Packages> {
  const hash = createHash('sha256');
  let received = 0;
  const other = (cause?: unknown): PeerDistError =>
    new PeerDistError(
      'ERR_PEERDIST_HASH_MISMATCH',
      'not the index that the Release file lists: the mirror may be changing',
      { cause },
    );
  const { body } = await openDocument(url, MAX_INDEX_BYTES, reading);
  const hashed = async function* (): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of body) {
      received += chunk.byteLength;
      if (received > bytes) throw other();
      hash.update(chunk);
      yield chunk;
    }
  };
  const isListed = (): boolean => received === bytes && hash.digest('hex') === sha256;
  let found: Packages;
  try {
    found = await parsePackages(unpacked(hashed(), MAX_INDEX_BYTES), root, (each) => collection.isWanted(each));
  } catch (error) {
    // What is wrong with other bytes than those that are listed is that they are others.
    if (isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_PROTOCOL') && received === bytes && !isListed()) throw other(error);
    throw error;
  }
  if (isListed()) return found;
  throw other();
}

/**
 * @param text of a Release file, or of an InRelease file, whose signature is left alone
 * @throws {@link PeerDistError} `ERR_PEERDIST_ORIGIN_PROTOCOL`
 */
export function parseRelease(text: string): Release {
  const fields = new Map<string, string>();
  const files = new Map<string, Listed>();
  let field = '';
  for (const line of unsigned(text.replaceAll('\r\n', '\n')).split('\n')) {
    const [, name, value] = /^([A-Za-z0-9-]+):[ \t]*(.*)$/.exec(line) ?? [];
    if (name !== undefined) {
      field = name.toLowerCase();
      fields.set(field, value as string);
    } else if (field === 'sha256') {
      const [, sha256, bytes, path] = /^[ \t]+([0-9a-f]{64})[ \t]+(\d{1,15})[ \t]+(\S+)[ \t]*$/i.exec(line) ?? [];
      if (path !== undefined) files.set(path, { sha256: (sha256 as string).toLowerCase(), bytes: Number(bytes) });
    }
  }
  if (files.size === 0) throw invalid('not a Release file: it lists no SHA256');
  return { files, words: (name) => (fields.get(name) ?? '').split(/\s+/).filter((word) => word !== '') };
}

/** What is inside a clear-signed message (RFC 9580 7). */
function unsigned(text: string): string {
  if (!text.startsWith('-----BEGIN PGP SIGNED MESSAGE-----')) return text;
  const start = text.indexOf('\n\n');
  const end = text.indexOf('\n-----BEGIN PGP SIGNATURE-----');
  if (start < 0 || end < start) throw invalid('an InRelease file that is cut short');
  return text.slice(start + 2, end).replaceAll(/^- /gm, '');
}

/** Paths of the indexes to read. @throws {@link PeerDistError} when one that was asked for is not there */
function indexesOf(release: Release, { components, architectures }: AptChoice): string[] {
  const own = ARCHITECTURES[process.arch] ?? process.arch;
  // The indexes of the other architectures may have those of all too.
  const hasAll = !release.words('no-support-for-architecture-all').includes('Packages');
  return components.flatMap((component) => {
    const has = (path: string): boolean => release.files.has(path);
    if (![...release.files.keys()].some((path) => path.startsWith(`${component}/`)))
      throw invalid(`no component ${component}: there are ${release.words('components').join(', ') || 'none'}`);
    const found = (architectures ?? [own, ...(hasAll ? ['all'] : [])]).map((architecture) => {
      const plain = `${component}/binary-${architecture}/Packages`;
      const path = [`${plain}.gz`, plain].find(has);
      // Nobody asked for it.
      if (path !== undefined || (architectures === undefined && architecture === 'all')) return path;
      if (has(`${plain}.xz`)) throw invalid(`${plain} is there as .xz only, which cannot be read here`);
      throw invalid(
        `no architecture ${architecture} in ${component}: there are ${release.words('architectures').join(', ') || 'none'}`,
      );
    });
    return found.filter((path) => path !== undefined);
  });
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', message);
}
