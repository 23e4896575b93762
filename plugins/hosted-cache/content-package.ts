/**
 * Content on its way into a hosted cache without a client: a file with the hashes of a content and the content itself. The format is our own;
 * Windows' `Export-BCCachePackage` writes another one, which is not published.
 *
 *     "PEERDIST-PACKAGE 1\n" · u32 length, big-endian, of the content information · content information · content
 *
 * It holds the content in the clear and the key that peers encrypt it under: whoever may read it may read the content.
 */
import { PeerDistError } from '../../lib/errors.ts';
import { type ContentInformation, decodeContentInformation } from '../../lib/protocol/pccrc/index.ts';

const MAGIC = Buffer.from('PEERDIST-PACKAGE 1\n', 'latin1');
const HEAD_BYTES = MAGIC.byteLength + 4;
/** Bytes of content information a package can have: 70 GB of content in version 2. Policy. */
const MAX_CONTENT_INFORMATION_BYTES = 64 * 1024 * 1024;

/** What comes before the content. */
export function packageHead(information: Uint8Array): Uint8Array {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(information.byteLength);
  return Buffer.concat([MAGIC, length, information]);
}

/** A block of a package, still to be verified. */
export interface PackagedBlock {
  readonly information: ContentInformation;
  readonly ordinal: number;
  readonly bytes: Uint8Array;
}

/**
 * Reads a package as it comes, block by block.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE` for what is no package or ends too early; as `decodeContentInformation`
 */
export async function* readPackage(input: AsyncIterable<Uint8Array>): AsyncGenerator<PackagedBlock, void> {
  const source = new Pieces(input);
  try {
    yield* readFrom(source);
  } finally {
    await source.close();
  }
}

async function* readFrom(source: Pieces): AsyncGenerator<PackagedBlock, undefined> {
  const head = await source.take(HEAD_BYTES);
  if (Buffer.compare(head.subarray(0, MAGIC.byteLength), MAGIC) !== 0) throw malformed('this is no content package');
  const length = new DataView(head.buffer, head.byteOffset).getUint32(MAGIC.byteLength);
  if (length > MAX_CONTENT_INFORMATION_BYTES) throw malformed('the content information is too large');
  const information = decodeContentInformation(await source.take(length));
  if (!information.isWhole) throw malformed('the content information is that of a range');
  for (let ordinal = 0; ordinal < information.blockCount; ordinal += 1) {
    yield { information, ordinal, bytes: await source.take(information.block(ordinal).length) };
  }
  if (await source.hasMore()) throw malformed('bytes after the content');
  return undefined;
}

function malformed(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_MALFORMED_MESSAGE', message);
}

/** Bytes of a stream, so many at a time. */
class Pieces {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  constructor(input: AsyncIterable<Uint8Array>) {
    this.#iterator = input[Symbol.asyncIterator]();
  }

  async take(length: number): Promise<Uint8Array> {
    while (this.#bytes < length) if (!(await this.#more())) throw malformed('the package ends too early');
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all.subarray(length)];
    this.#bytes = all.byteLength - length;
    return all.subarray(0, length);
  }

  async hasMore(): Promise<boolean> {
    while (this.#bytes === 0) if (!(await this.#more())) return false;
    return true;
  }

  /** Gives the stream back, wherever it is. */
  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#iterator.next();
    if (done === true) return false;
    this.#chunks.push(value);
    this.#bytes += value.byteLength;
    return true;
  }
}
