import { Readable } from 'node:stream';
import type { Transfer } from './transfer.ts';

/** One reader of a {@link Transfer}: takes what is there, and is woken when more has come. */
export class TransferReader extends Readable {
  readonly #transfer: Transfer;
  readonly #end: number;
  readonly #onClose: () => void;
  #wanted = false;
  position: number;

  constructor(offset: number, end: number | undefined, transfer: Transfer, onClose: () => void) {
    super({ highWaterMark: 256 * 1024 });
    this.#transfer = transfer;
    this.position = offset;
    this.#end = end ?? Infinity;
    this.#onClose = onClose;
  }

  wake(): void {
    if (this.#wanted) this._read();
  }

  override _read(): void {
    this.#wanted = true;
    try {
      while (this.#wanted) {
        const piece = this.position < this.#end ? this.#transfer.pieceAt(this.position) : undefined;
        if (piece === 'later') break;
        if (piece === undefined) {
          this.#wanted = false;
          this.push(null);
          return;
        }
        const part = piece.subarray(0, this.#end - this.position);
        this.position += part.byteLength;
        this.#wanted = this.push(part);
      }
      this.#transfer.resume();
    } catch (error) {
      this.destroy(error as Error);
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#onClose();
    callback(error);
  }
}
