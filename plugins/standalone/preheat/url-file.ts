/** A file, or standard input, of lines `URL [sha256]`, as `peerdist load --urls` reads them. */
import { createReadStream } from 'node:fs';
import { PeerDistError } from '../../../lib/errors.ts';
import { type Item, MAX_URLS, webUrl } from './collection.ts';

const MAX_LIST_BYTES = 32 * 1024 * 1024;

/**
 * @param file `-` for standard input
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` with the number of the line that is wrong
 */
export async function readUrlFile(file: string, input: AsyncIterable<Uint8Array | string>): Promise<Item[]> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of file === '-' ? input : (createReadStream(file) as AsyncIterable<Uint8Array>)) {
      const piece = Buffer.from(chunk as Uint8Array);
      bytes += piece.byteLength;
      if (bytes > MAX_LIST_BYTES) throw invalid(`larger than ${MAX_LIST_BYTES} bytes`);
      chunks.push(piece);
    }
  } catch (error) {
    if (error instanceof PeerDistError) throw error;
    throw invalid(`cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
  const items: Item[] = [];
  for (const [index, line] of Buffer.concat(chunks).toString().split('\n').entries()) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    if (items.length === MAX_URLS) throw invalid(`more than ${MAX_URLS} URLs`);
    items.push(parseLine(text, index + 1));
  }
  return items;
}

function parseLine(line: string, number: number): Item {
  const [text = '', sha256, ...rest] = line.split(/\s+/);
  const url = webUrl(text);
  if (url === undefined) throw invalid(`line ${number} does not begin with an http or https URL without a password`);
  if (rest.length > 0 || (sha256 !== undefined && !/^[0-9a-f]{64}$/i.test(sha256)))
    throw invalid(`line ${number} has something else than a SHA-256 in hex behind its URL`);
  return { url, ...(sha256 === undefined ? {} : { sha256: sha256.toLowerCase() }) };
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `--urls: ${message}`);
}
