import type { ByteRange } from '../../lib/bytes/index.ts';
import type { FetchMissing } from '../../lib/services/index.ts';

export interface ScriptedOriginOptions {
  /** Bytes of a chunk; needs not fit blocks. */
  readonly chunkBytes?: number;
  /** Sends nothing until {@link Transfer.give} says so. */
  readonly manual?: boolean;
  /** Bytes sent more (or, below 0, fewer) than asked for. */
  readonly surplus?: number;
}

/** One range request as the origin saw it. */
export class Transfer {
  readonly range: ByteRange;
  readonly signal: AbortSignal;
  /** Bytes sent so far. */
  sent = 0;
  /** True once the iterator has ended, whichever way. */
  closed = false;
  #allowed: number;
  #failure: unknown;
  #wake: (() => void) | undefined;

  constructor(range: ByteRange, signal: AbortSignal, allowed: number) {
    this.range = range;
    this.signal = signal;
    this.#allowed = allowed;
    signal.addEventListener('abort', () => this.fail(signal.reason));
  }

  /** Lets so many more bytes go. */
  give(bytes = Infinity): void {
    this.#allowed += bytes;
    this.#wake?.();
  }

  /** Breaks the transfer where it stands. */
  fail(error: unknown): void {
    this.#failure = error;
    this.#wake?.();
  }

  /** Bytes that may go now; waits until there are some. */
  async next(): Promise<number> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure as Error;
      if (this.#allowed > this.sent) return this.#allowed - this.sent;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** An origin that records what it is asked for and sends when the test says so. The chunks of a transfer share one buffer, as a socket's may. */
export class ScriptedOrigin {
  readonly transfers: Transfer[] = [];
  readonly fetch: FetchMissing;

  constructor(content: Uint8Array, { chunkBytes = 30_000, manual = false, surplus = 0 }: ScriptedOriginOptions = {}) {
    this.fetch = async (range, { signal }) => {
      const transfer = new Transfer(range, signal, manual ? 0 : Infinity);
      this.transfers.push(transfer);
      return stream(transfer);
    };
    async function* stream(transfer: Transfer): AsyncGenerator<Uint8Array> {
      const { range } = transfer;
      const scratch = new Uint8Array(chunkBytes);
      const total = range.length + surplus;
      try {
        while (transfer.sent < total) {
          const size = Math.min(chunkBytes, await transfer.next(), total - transfer.sent);
          const at = range.offset + transfer.sent;
          scratch.fill(0xee);
          scratch.set(content.subarray(at, at + size));
          transfer.sent += size;
          yield scratch.subarray(0, size);
          scratch.fill(0xdd);
        }
      } finally {
        transfer.closed = true;
      }
    }
  }

  /** Ranges asked for as `offset+length`. */
  get asked(): string[] {
    return this.transfers.map(({ range }) => `${range.offset}+${range.length}`);
  }
}
