import type { ByteRange } from '../bytes/index.ts';
import { PeerDistError } from '../errors.ts';
import type { ContentInformationVersion } from '../protocol/pccrc/index.ts';

const DEFAULT_READ_BYTES = 64 * 1024;

/** Sequential reader of encoded content information, with its own cursor. */
export class ContentInformationReader implements AsyncDisposable, AsyncIterable<Uint8Array> {
  readonly contentId: Uint8Array;
  readonly version: ContentInformationVersion;
  /** Part of the content described. */
  readonly range: ByteRange;
  /** Bytes of the encoded content information. */
  readonly byteLength: number;
  readonly #encoded: Uint8Array;
  #position = 0;
  #closed = false;

  constructor(contentId: Uint8Array, version: ContentInformationVersion, range: ByteRange, encoded: Uint8Array) {
    this.contentId = contentId;
    this.version = version;
    this.range = range;
    this.byteLength = encoded.byteLength;
    this.#encoded = encoded;
  }

  /** Next piece and its position within the content information; null at the end (Win32: NO_MORE). The piece is a view. */
  async read({ maxBytes = DEFAULT_READ_BYTES }: { readonly maxBytes?: number } = {}): Promise<{
    offset: number;
    data: Uint8Array;
  } | null> {
    if (this.#closed) throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the reader is closed');
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 1)
      throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'maxBytes is at least 1');
    if (this.#position >= this.byteLength) return null;
    const offset = this.#position;
    const data = this.#encoded.subarray(offset, offset + maxBytes);
    this.#position += data.byteLength;
    return { offset, data };
  }

  /** Everything from the cursor to the end. */
  async readAll(): Promise<Uint8Array> {
    return (await this.read({ maxBytes: Math.max(1, this.byteLength) }))?.data ?? new Uint8Array(0);
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array> {
    for (let piece = await this.read(); piece !== null; piece = await this.read()) yield piece.data;
  }

  /** Releases the handle. Idempotent, never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
