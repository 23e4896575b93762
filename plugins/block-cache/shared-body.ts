import { Readable } from 'node:stream';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';

export interface SharedBodyOptions {
  /** Bytes the body must have. */
  readonly length: number;
  /** Milliseconds the transfer goes on after its last reader has left. */
  readonly lingerMs: number;
  readonly clock: Clock;
  readonly onBytes: (bytes: number) => void;
}

/**
 * One plain body on its way, kept from its first byte until its content information has come, so that every client that asks for the
 * content meanwhile, whole or in ranges, is served from this one transfer. The owner bounds how many bytes there may be in all.
 *
 * It reads as fast as the origin sends: all of it is going to be kept anyway, and no client's pace must hold another's back.
 */
export class SharedBody {
  readonly length: number;
  /** True when the body came whole, false when it did not. Never rejects. */
  readonly done: Promise<boolean>;
  readonly #source: Readable;
  readonly #options: SharedBodyOptions;
  readonly #chunks: Uint8Array[] = [];
  readonly #starts: number[] = [];
  readonly #readers = new Set<BodyReader>();
  #received = 0;
  #error: Error | undefined;
  #cancelLinger: (() => void) | undefined;

  constructor(source: Readable, options: SharedBodyOptions) {
    this.#source = source;
    this.#options = options;
    this.length = options.length;
    this.done = new Promise((resolve) => {
      source.on('data', (chunk: Uint8Array) => this.#take(chunk));
      source.once('error', (error) => this.#fail(error));
      source.once('close', () => {
        if (this.#received !== this.length)
          this.#fail(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin cut the body short'));
        this.#cancelLinger?.();
        resolve(this.#error === undefined);
      });
    });
  }

  /** The bytes of a range as they come. Several may be open. */
  createReadStream(range: ByteRange): Readable {
    const reader = new BodyReader(range, this, () => {
      this.#readers.delete(reader);
      this.#lingerIfUnread();
    });
    this.#cancelLinger?.();
    this.#readers.add(reader);
    if (this.#error !== undefined) reader.destroy(this.#error);
    return reader;
  }

  /** The piece that holds the byte at `offset`, from there on; undefined while it has not come. */
  pieceAt(offset: number): Uint8Array | undefined {
    if (offset >= this.#received) return undefined;
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#starts[middle] as number) <= offset) low = middle;
      else high = middle - 1;
    }
    return (this.#chunks[low] as Uint8Array).subarray(offset - (this.#starts[low] as number));
  }

  #take(chunk: Uint8Array): void {
    this.#options.onBytes(chunk.byteLength);
    if (this.#received + chunk.byteLength > this.length) {
      this.#fail(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin sent more than it announced'));
      return;
    }
    this.#starts.push(this.#received);
    this.#chunks.push(chunk);
    this.#received += chunk.byteLength;
    for (const reader of this.#readers) reader.wake();
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.#source.destroy();
    for (const reader of this.#readers) reader.destroy(this.#error);
  }

  #lingerIfUnread(): void {
    if (this.#readers.size > 0 || this.#received === this.length || this.#error !== undefined) return;
    this.#cancelLinger = this.#options.clock.after(this.#options.lingerMs, () =>
      this.#fail(new PeerDistAbortError('close')),
    );
  }
}

class BodyReader extends Readable {
  readonly #body: SharedBody;
  readonly #end: number;
  readonly #onClose: () => void;
  #position: number;
  #wanted = false;

  constructor(range: ByteRange, body: SharedBody, onClose: () => void) {
    super();
    this.#body = body;
    this.#position = range.offset;
    this.#end = rangeEnd(range);
    this.#onClose = onClose;
  }

  wake(): void {
    if (this.#wanted) this._read();
  }

  override _read(): void {
    this.#wanted = true;
    while (this.#wanted && this.#position < this.#end) {
      const piece = this.#body.pieceAt(this.#position)?.subarray(0, this.#end - this.#position);
      if (piece === undefined) return;
      this.#position += piece.byteLength;
      this.#wanted = this.push(piece);
    }
    if (this.#position === this.#end) {
      this.#wanted = false;
      this.#position += 1;
      this.push(null);
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#onClose();
    callback(error);
  }
}
