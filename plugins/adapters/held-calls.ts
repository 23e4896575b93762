import { Readable } from 'node:stream';

/** A call of an application that waits until it is known what becomes of its answer. */
export interface HeldCall {
  readonly kind: 'write' | 'end' | 'flush';
  readonly chunk?: Uint8Array | undefined;
  readonly callback?: (() => void) | undefined;
}

/** Bytes an application may write ahead. Policy, not protocol: that of a file stream. */
const MAX_HELD_BYTES = 64 * 1024;

export interface HeldCallsOptions {
  /** Called when there is room again for an application that had to wait. */
  readonly onDrain: () => void;
  /** Called with what wants to know that the answer has been sent. */
  readonly onFinish: (callback: () => void) => void;
}

/**
 * What an application has written and nobody has taken yet. An application that goes on writing when it is told to wait makes it longer, as it
 * makes Node's own buffer longer.
 */
export class HeldCalls {
  /** True when the application has been told to wait. */
  wantsDrain = false;
  readonly #options: HeldCallsOptions;
  #calls: HeldCall[] = [];
  #bytes = 0;
  #left = Infinity;
  #body: HeldBody | undefined;

  constructor(options: HeldCallsOptions) {
    this.#options = options;
  }

  /** Bytes of body that wait. */
  get bytes(): number {
    return this.#bytes;
  }

  get hasFlush(): boolean {
    return this.#calls.some(({ kind }) => kind === 'flush');
  }

  add(call: HeldCall): void {
    this.#calls.push(call);
    this.#bytes += call.chunk?.byteLength ?? 0;
    this.wantsDrain = this.#bytes >= MAX_HELD_BYTES;
    this.#feed();
  }

  /** All of them, which are then somebody else's. */
  take(): readonly HeldCall[] {
    this.#bytes = 0;
    this.wantsDrain = false;
    return this.#calls.splice(0);
  }

  /**
   * The body as a stream. What nobody has read of it can still be taken.
   *
   * @param length bytes it has, where that is known. It ends with the last of them, and not when the application says so: a client that has
   * got them all may leave at once, and whoever hashes the body must not take that for its breaking off
   */
  body(length: number | undefined): Readable {
    this.#left = length ?? Infinity;
    this.#body = new HeldBody(() => this.#feed());
    return this.#body;
  }

  /** Ends the stream of the body before its time. */
  break(error: Error): void {
    this.#body?.destroy(error);
  }

  /** Gives the stream what it wants. A drain of the connection may let the application write before its time, but only as much as has left. */
  #feed(): void {
    const body = this.#body;
    if (body !== undefined) this.#giveTo(body);
    if (!this.wantsDrain || this.#bytes >= MAX_HELD_BYTES) return;
    this.wantsDrain = false;
    process.nextTick(this.#options.onDrain);
  }

  #giveTo(body: HeldBody): void {
    while (body.isWanting || body.isOver) {
      const call = this.#calls.shift();
      if (call === undefined) return;
      const { kind, chunk, callback } = call;
      const length = chunk?.byteLength ?? 0;
      this.#bytes -= length;
      this.#left -= length;
      if (chunk !== undefined && !body.isOver) body.give(chunk);
      if (!body.isOver && (kind === 'end' || this.#left === 0)) body.give(null);
      if (callback === undefined) continue;
      if (kind === 'end') this.#options.onFinish(callback);
      else process.nextTick(callback);
    }
  }
}

class HeldBody extends Readable {
  isWanting = false;
  isOver = false;
  readonly #feed: () => void;

  constructor(feed: () => void) {
    super({ highWaterMark: MAX_HELD_BYTES });
    this.#feed = feed;
    // Whoever reads it sees the error; nobody has to.
    this.on('error', () => {});
  }

  give(chunk: Uint8Array | null): void {
    // Whoever takes the chunk at once may want the next one before this is over.
    this.isWanting = false;
    if (chunk === null) this.isOver = true;
    if (this.push(chunk)) this.isWanting = true;
  }

  override _read(): void {
    this.isWanting = true;
    this.#feed();
  }
}
