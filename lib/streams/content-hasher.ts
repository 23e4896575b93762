import { Transform, type TransformCallback } from 'node:stream';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import { ignoreObservations, type Observation, type Observer } from '../observer.ts';
import type { ContentInformation } from '../protocol/pccrc/index.ts';
import { type HashingEngine, type HashingOptions, InlineHashing } from './hashing.ts';

type Outcome = Extract<Observation, { type: 'publication' }>['result'];

export interface ContentHasherOptions extends HashingOptions {
  /** Bytes past which hashing is given up, silently. @default Infinity */
  readonly maxBytes?: number | undefined;
  /** Bytes the whole body must have, where known; another number yields nothing. */
  readonly expectedBytes?: number | undefined;
  /** Where to hash. @default on the calling thread */
  readonly engine?: HashingEngine | undefined;
  readonly observer?: Observer | undefined;
}

/**
 * Passes bytes through, unchanged and in the same chunks, and makes content information of them.
 *
 * Every chunk goes downstream before it is hashed. Hashing may give up at any time (limit, failure); the stream does not notice.
 * A body that ends early, by error or by `destroy`, yields nothing.
 */
export class ContentHasher extends Transform {
  /**
   * Settles when the body has ended: one entry for each version, or undefined when hashing was given up or the body was cut.
   * Never rejects.
   */
  readonly contentInformation: Promise<readonly ContentInformation[] | undefined>;

  readonly #options: ContentHasherOptions;
  readonly #observer: Observer;
  #settle!: (result: readonly ContentInformation[] | undefined) => void;
  #engine: HashingEngine | undefined;
  #bytes = 0;
  #failure: Error | undefined;

  constructor(options: ContentHasherOptions) {
    // Room for a few network chunks: with Node's 16 KiB every single one would wait for a drain.
    super({ writableHighWaterMark: 768 * 1024, readableHighWaterMark: 128 * 1024 });
    this.#options = options;
    this.#observer = options.observer ?? ignoreObservations;
    this.#engine = options.engine ?? new InlineHashing(options);
    this.contentInformation = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /** Why there is no content information, once that is certain. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Gives hashing up; the bytes flow on. */
  stopHashing(): void {
    this.#giveUp('aborted', new PeerDistAbortError('cancel'));
  }

  override _transform(chunk: Uint8Array, _encoding: BufferEncoding, callback: TransformCallback): void {
    this.push(chunk);
    this.#bytes += chunk.byteLength;
    if (this.#engine === undefined) return callback();
    const { maxBytes = Infinity, expectedBytes = Infinity } = this.#options;
    if (this.#bytes > Math.min(maxBytes, expectedBytes)) {
      if (this.#bytes > expectedBytes) this.#giveUp('aborted', wrongLength(expectedBytes, this.#bytes));
      else this.#giveUp('too_large', new PeerDistError('ERR_PEERDIST_LIMIT', `larger than ${maxBytes} bytes`));
      return callback();
    }
    // An HTTP response holds what it is given until the next tick: hashed before that, it would leave later and be read from a cold cache.
    process.nextTick(() => this.#hash(chunk, callback));
  }

  override _flush(callback: TransformCallback): void {
    // The readable side ends at once, a client never waits for the last hash; only 'finish' does.
    this.push(null);
    const engine = this.#engine;
    if (engine === undefined) return callback();
    const { expectedBytes } = this.#options;
    if (expectedBytes !== undefined && expectedBytes !== this.#bytes) {
      this.#giveUp('aborted', wrongLength(expectedBytes, this.#bytes));
      return callback();
    }
    this.#engine = undefined;
    Promise.resolve()
      .then(() => engine.finish())
      .then(
        (result) => this.#finish('completed', result),
        (error: Error) => {
          this.#failure = error;
          this.#finish('failed');
        },
      )
      .finally(() => {
        engine.abort();
        callback();
      });
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#giveUp('aborted', error ?? new PeerDistAbortError('close'));
    callback(error);
  }

  /** Hashing may have been given up since the chunk came. */
  #hash(chunk: Uint8Array, callback: TransformCallback): void {
    try {
      const wait = this.#engine?.push(chunk);
      if (wait === undefined) return callback();
      wait.catch((error: Error) => this.#giveUp('failed', error)).finally(() => callback());
    } catch (error) {
      this.#giveUp('failed', error as Error);
      callback();
    }
  }

  #giveUp(outcome: Outcome, failure: Error): void {
    if (this.#engine === undefined) return;
    this.#failure = failure;
    this.#engine.abort();
    this.#engine = undefined;
    this.#finish(outcome);
  }

  #finish(outcome: Outcome, result?: readonly ContentInformation[]): void {
    if (result !== undefined) this.#observer({ type: 'hashed', bytes: this.#bytes });
    this.#observer({ type: 'publication', result: outcome });
    this.#settle(result);
  }
}

function wrongLength(expected: number, actual: number): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_LENGTH_MISMATCH', 'not the length that was declared', { expected, actual });
}
