import { type ByteRange, rangeEnd } from '../bytes/index.ts';
import type { Clock } from '../clock.ts';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import type { BlockRequest } from './block-source.ts';
import type { DescribedContent } from './described-content.ts';

/** Starts the transfer. */
type Fetch = (missing: ByteRange, signal: AbortSignal) => Promise<AsyncIterable<Uint8Array>>;

interface OriginRunHooks {
  readonly onFirstBlock: () => void;
  readonly onEnd: () => void;
}

interface Waiter {
  readonly resolve: (block: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** A run with nobody waiting is ended after this long: a reader that was only slow comes back sooner. Policy, not protocol. */
const LINGER_MS = 2_000;

/**
 * One range transfer from the origin, cut into blocks as it arrives. It reads on only while somebody waits for a block of it, so the
 * readers' look-ahead is the only buffer there is. Unverified bytes go to nobody but the broker, which hashes them.
 */
export class OriginRun {
  readonly firstOrdinal: number;
  readonly #content: DescribedContent;
  readonly #clock: Clock;
  readonly #controller = new AbortController();
  readonly #waiters = new Map<number, Waiter>();
  readonly #hooks: OriginRunHooks;
  #ordinal: number;
  #lastOrdinal: number;
  #isCut = false;
  #wake: (() => void) | undefined;
  #cancelLinger: (() => void) | undefined;
  #ended = false;
  #failure: unknown;

  constructor(
    content: DescribedContent,
    ordinals: { first: number; last: number },
    fetch: Fetch,
    clock: Clock,
    hooks: OriginRunHooks,
  ) {
    this.#content = content;
    this.#clock = clock;
    this.#hooks = hooks;
    this.firstOrdinal = ordinals.first;
    this.#lastOrdinal = ordinals.last;
    this.#ordinal = ordinals.first;
    this.#transfer(fetch).then(
      () => this.#end(undefined),
      (error: unknown) => this.#end(error),
    );
  }

  /** True while the run is going to pass the block within `ahead` further ones and nobody has claimed it. */
  willPass(ordinal: number, ahead: number): boolean {
    return (
      !this.#ended &&
      ordinal >= this.#ordinal &&
      ordinal <= Math.min(this.#lastOrdinal, this.#ordinal + ahead) &&
      !this.#waiters.has(ordinal)
    );
  }

  /** Another transfer begins there: this one goes no further, unless somebody waits for what follows. */
  endBefore(ordinal: number): void {
    if (this.#ended || ordinal <= this.#ordinal || ordinal > this.#lastOrdinal) return;
    this.#lastOrdinal = Math.max(ordinal - 1, ...this.#waiters.keys());
    this.#isCut = true;
  }

  /** The block's bytes as they came, unverified. */
  take({ ordinal }: BlockRequest, signal: AbortSignal): Promise<Uint8Array> {
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#ended) return Promise.reject(this.#failure);
    if (ordinal < this.#ordinal || this.#waiters.has(ordinal))
      return Promise.reject(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the transfer has passed the block'));
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiters.delete(ordinal);
        this.#lingerIfIdle();
        reject(new PeerDistAbortError('signal', signal.reason));
      };
      signal.addEventListener('abort', leave, { once: true });
      const settle =
        <T>(action: (value: T) => void) =>
        (value: T): void => {
          signal.removeEventListener('abort', leave);
          action(value);
        };
      this.#waiters.set(ordinal, { resolve: settle(resolve), reject: settle(reject) });
      this.#cancelLinger?.();
      this.#cancelLinger = undefined;
      this.#wake?.();
    });
  }

  async #transfer(fetch: Fetch): Promise<void> {
    const start = this.#content.block(this.firstOrdinal).offset;
    const end = rangeEnd(this.#content.block(this.#lastOrdinal));
    const chunks = await fetch({ offset: start, length: end - start }, this.#controller.signal);
    let block = this.#nextBlock();
    let fill = 0;
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.byteLength;) {
        if (block === undefined && this.#isCut) return;
        if (block === undefined)
          throw new PeerDistError('ERR_PEERDIST_LENGTH_MISMATCH', 'the origin sent more than was asked for');
        const piece = chunk.subarray(at, at + block.byteLength - fill);
        block.set(piece, fill);
        fill += piece.byteLength;
        at += piece.byteLength;
        if (fill === block.byteLength) {
          this.#deliver(block);
          block = this.#nextBlock();
          fill = 0;
          // One chunk may hold several blocks, and those nobody has asked for yet would be lost.
          if (block !== undefined) await this.#demand();
        }
      }
      // What the line goes on to carry is lost.
      if (block === undefined && this.#isCut) return;
      // An origin that sends everything and does not end its answer must not keep the transfer open.
      if (block === undefined) this.#lingerIfIdle();
    }
    if (block !== undefined)
      throw new PeerDistError('ERR_PEERDIST_LENGTH_MISMATCH', 'the origin sent less than was asked for');
  }

  #nextBlock(): Uint8Array | undefined {
    // Its own memory, not the pool's: the store is going to keep it.
    return this.#ordinal > this.#lastOrdinal
      ? undefined
      : Buffer.allocUnsafeSlow(this.#content.block(this.#ordinal).length);
  }

  #deliver(block: Uint8Array): void {
    const waiter = this.#waiters.get(this.#ordinal);
    this.#waiters.delete(this.#ordinal);
    if (this.#ordinal === this.firstOrdinal) this.#hooks.onFirstBlock();
    this.#ordinal += 1;
    waiter?.resolve(block);
  }

  /** Waits until somebody wants a block that is still to come. */
  async #demand(): Promise<void> {
    while (this.#waiters.size === 0) {
      this.#lingerIfIdle();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      if (this.#controller.signal.aborted) throw this.#controller.signal.reason;
    }
  }

  #lingerIfIdle(): void {
    if (this.#ended || this.#waiters.size > 0 || this.#cancelLinger !== undefined) return;
    this.#cancelLinger = this.#clock.after(LINGER_MS, () => {
      this.#controller.abort(new PeerDistAbortError('close'));
      this.#wake?.();
    });
  }

  #end(error: unknown): void {
    this.#ended = true;
    this.#cancelLinger?.();
    this.#failure = error ?? new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the transfer ended before the block');
    for (const waiter of this.#waiters.values()) waiter.reject(this.#failure);
    this.#waiters.clear();
    this.#controller.abort();
    this.#hooks.onEnd();
  }
}
