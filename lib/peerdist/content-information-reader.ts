import { Readable } from 'node:stream';
import type { ByteRange } from '../bytes/index.ts';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import type { ContentInformationVersion } from '../protocol/pccrc/index.ts';
import type { Abortable } from './operations.ts';
import { HandleState, type Session } from './session.ts';

const DEFAULT_READ_BYTES = 64 * 1024;

export interface ContentInformationPiece {
  /** Position within the content information, bytes. */
  readonly offset: number;
  /** A view; it must not be written to. */
  readonly data: Uint8Array;
}

export interface ContentInformationReaderParts {
  readonly contentId: Uint8Array;
  readonly version: ContentInformationVersion;
  readonly range: ByteRange;
  readonly encoded: Uint8Array;
  readonly session: Session;
  /** Told when the handle ends. */
  readonly onEnd: () => void;
}

/** Sequential reader of encoded content information, with its own cursor. Reads are served in call order (G23). */
export class ContentInformationReader implements AsyncDisposable, AsyncIterable<Uint8Array> {
  readonly contentId: Uint8Array;
  readonly version: ContentInformationVersion;
  /** Part of the content described. */
  readonly range: ByteRange;
  /** Bytes of the encoded content information. Extension. */
  readonly byteLength: number;
  readonly #encoded: Uint8Array;
  readonly #state: HandleState;
  #position = 0;
  #withdrawn = false;

  constructor({ contentId, version, range, encoded, session, onEnd }: ContentInformationReaderParts) {
    this.contentId = contentId;
    this.version = version;
    this.range = range;
    this.byteLength = encoded.byteLength;
    this.#encoded = encoded;
    this.#state = new HandleState(session, onEnd);
  }

  /**
   * Next piece; null at the end (Win32: NO_MORE).
   *
   * @param options.maxBytes at least 1. @default 65536
   * @throws {@link PeerDistError} common set; `OPERATION_ABORTED` once the publication is withdrawn (G26)
   */
  async read(
    options: Abortable & { readonly maxBytes?: number | undefined } = {},
  ): Promise<ContentInformationPiece | null> {
    const { maxBytes = DEFAULT_READ_BYTES } = options;
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 1)
      throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'maxBytes is at least 1');
    return this.#state.run(options, async (operation) => {
      // A read that is cancelled right away takes nothing from the next one.
      await Promise.resolve();
      operation.assertWanted();
      if (this.#withdrawn) throw new PeerDistAbortError('unpublish');
      if (this.#position >= this.byteLength) return null;
      const offset = this.#position;
      const data = this.#encoded.subarray(offset, offset + maxBytes);
      this.#position += data.byteLength;
      return { offset, data };
    });
  }

  /** Everything from the cursor to the end. */
  async readAll(options: Abortable = {}): Promise<Uint8Array> {
    return (await this.read({ ...options, maxBytes: Math.max(1, this.byteLength) }))?.data ?? new Uint8Array(0);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, undefined> {
    for (let piece = await this.read(); piece !== null; piece = await this.read()) yield piece.data;
    return undefined;
  }

  /** From the cursor to the end as a stream. Destroying it does not close the handle. Convenience. */
  toReadable(options: Abortable & { readonly highWaterMark?: number | undefined } = {}): Readable {
    const { highWaterMark = DEFAULT_READ_BYTES } = options;
    return this.#state.adopt(Readable.from(this, { objectMode: false, highWaterMark }), options);
  }

  /** Aborts pending reads. For the publisher: the handle stays open, and every read fails (G26) or goes on. */
  cancel(error: PeerDistAbortError): Promise<number> {
    if (error.trigger === 'unpublish') this.#withdrawn = true;
    return this.#state.operations.cancel(error);
  }

  /** Aborts pending reads and releases the handle. Idempotent, never rejects. */
  close(): Promise<void> {
    return this.#state.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
