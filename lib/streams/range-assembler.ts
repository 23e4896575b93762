import { setMaxListeners } from 'node:events';
import { Readable } from 'node:stream';
import { PeerDistError } from '../errors.ts';

/** One piece of the output: its length is known, its bytes are fetched when their turn comes near. */
export interface AssemblerPart {
  /** Bytes the part has; `fetch` must deliver exactly these. */
  readonly length: number;
  /** Called once. An answer at hand is returned as such, so that a warm range costs no promise. */
  fetch(signal: AbortSignal): Uint8Array | Promise<Uint8Array>;
}

export interface RangeAssemblerOptions {
  /** Bytes fetched ahead of what the consumer has taken; at least one part. @default 4 MiB. Policy, not protocol */
  readonly lookAheadBytes?: number | undefined;
  /** Bytes that may wait for the consumer. @default 256 KiB */
  readonly highWaterMark?: number | undefined;
  /** Told of bytes that have gone downstream, in order. */
  readonly onPush?: ((bytes: number) => void) | undefined;
}

const DEFAULT_LOOK_AHEAD_BYTES = 4 * 1024 * 1024;

interface Slot {
  readonly length: number;
  data: Uint8Array | undefined;
}

/**
 * An ordered Readable over parts that arrive in any order.
 *
 * One queue of slots: `#fill` starts fetches until `lookAheadBytes` are under way, `#drain` pushes the finished ones at the head.
 * Destroying the stream aborts what is under way; a failed part destroys the stream, and no later byte is pushed.
 */
export class RangeAssembler extends Readable {
  readonly #parts: Iterator<AssemblerPart>;
  readonly #lookAheadBytes: number;
  readonly #onPush: (bytes: number) => void;
  readonly #controller = new AbortController();
  readonly #slots: Slot[] = [];
  #queuedBytes = 0;
  #exhausted = false;
  #wanted = false;

  constructor(
    parts: Iterable<AssemblerPart>,
    {
      lookAheadBytes = DEFAULT_LOOK_AHEAD_BYTES,
      highWaterMark = 256 * 1024,
      onPush = () => {},
    }: RangeAssemblerOptions = {},
  ) {
    super({ highWaterMark });
    this.#onPush = onPush;
    this.#parts = parts[Symbol.iterator]();
    this.#lookAheadBytes = lookAheadBytes;
    // One listener for each part under way, of which the look-ahead bounds the number.
    setMaxListeners(0, this.#controller.signal);
  }

  override _read(): void {
    this.#wanted = true;
    this.#drain();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#slots.length = 0;
    this.#controller.abort(error ?? undefined);
    callback(error);
  }

  #fill(): void {
    while (
      !this.destroyed &&
      !this.#exhausted &&
      (this.#slots.length === 0 || this.#queuedBytes + this.readableLength < this.#lookAheadBytes)
    ) {
      const next = this.#parts.next();
      if (next.done === true) {
        this.#exhausted = true;
        return;
      }
      this.#start(next.value);
    }
  }

  #start(part: AssemblerPart): void {
    const slot: Slot = { length: part.length, data: undefined };
    this.#slots.push(slot);
    this.#queuedBytes += part.length;
    const fetched = part.fetch(this.#controller.signal);
    if (fetched instanceof Uint8Array) slot.data = fetched;
    else {
      fetched
        .then((data) => {
          slot.data = data;
          if (this.#slots[0] === slot) this.#drain();
        })
        .catch((error: unknown) => this.destroy(error as Error));
    }
  }

  #drain(): void {
    try {
      this.#fill();
      while (this.#wanted && this.#slots[0]?.data !== undefined) {
        const { data, length } = this.#slots.shift() as Slot & { data: Uint8Array };
        if (data.byteLength !== length) {
          throw new PeerDistError('ERR_PEERDIST_LENGTH_MISMATCH', 'a part has the wrong length', {
            expected: length,
            actual: data.byteLength,
          });
        }
        this.#queuedBytes -= length;
        this.#wanted = this.push(data);
        this.#onPush(length);
        this.#fill();
      }
      if (this.#exhausted && this.#slots.length === 0) this.push(null);
    } catch (error) {
      this.destroy(error as Error);
    }
  }
}
