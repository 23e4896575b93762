import { type TransformCallback, Writable } from 'node:stream';
import { assertBytes } from '../bytes/index.ts';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import type { ContentInformation } from '../protocol/pccrc/index.ts';
import { ContentHasher, type ContentHasherOptions } from '../streams/index.ts';
import type { Abortable } from './operations.ts';
import { HandleState, type Session } from './session.ts';

export interface PublicationInfo {
  readonly contentId: Uint8Array;
  /** Bytes published. */
  readonly length: number;
}

export interface PublicationParts {
  readonly contentId: Uint8Array;
  readonly hashing: ContentHasherOptions;
  /** Makes the publication known. */
  readonly commit: (information: readonly ContentInformation[]) => Promise<PublicationInfo>;
  /** Takes that back: it was given up in the meantime. */
  readonly discard: () => Promise<void>;
  /** Told when the publication has completed or failed. */
  readonly onEnd: (published: boolean) => void;
}

/** A pass-through that publishes what flows through it. Bytes, chunks and order are untouched; 'finish' waits for the publication. */
export class PublishTransform extends ContentHasher {
  readonly contentId: Uint8Array;
  /** Settles when the publication completes. Ignoring it is safe. Also emitted as 'published'. */
  readonly published: Promise<PublicationInfo>;
  /** True: a publication that fails leaves the bytes flowing. False: it destroys the stream. @default true */
  failOpen = true;
  #onEnd: ((published: boolean) => void) | undefined;
  #withdrawn: Error | undefined;
  #committing = false;

  constructor({ contentId, hashing, commit, discard, onEnd }: PublicationParts) {
    super(hashing);
    this.contentId = contentId;
    this.published = this.contentInformation.then(async (information) => {
      if (this.#withdrawn !== undefined) throw this.#withdrawn;
      if (information === undefined) throw this.failure ?? new PeerDistAbortError('close');
      this.#committing = true;
      const info = await commit(information);
      if (this.#withdrawn === undefined) return info;
      await discard();
      throw this.#withdrawn;
    });
    this.#onEnd = onEnd;
    this.published.then(
      (info) => {
        this.#end(true);
        this.emit('published', info);
      },
      (error: Error) => {
        this.#end(false);
        if (!this.failOpen) this.destroy(error);
      },
    );
  }

  /** Gives the publication up: nothing is published, the bytes flow on. Too late once it is complete. */
  abandon(error: Error): void {
    this.#withdrawn ??= error;
    this.stopHashing();
    // The identifier is free at once, unless a store is just about to learn it.
    if (!this.#committing) this.#end(false);
  }

  #end(published: boolean): void {
    this.#onEnd?.(published);
    this.#onEnd = undefined;
  }

  override _flush(callback: TransformCallback): void {
    super._flush(() => {
      const done = (): void => callback();
      this.published.then(done, done);
    });
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (error !== null || !this.writableFinished) this.abandon(error ?? new PeerDistAbortError('close'));
    super._destroy(error, callback);
  }
}

/**
 * Publication sink, as a Writable (`pipeline(origin, publication)`) or through the promise members, not both. Ending it completes the
 * publication; destroying it before 'finish' drops it. Closing never withdraws what has been completed.
 */
export class PublicationStream extends Writable implements AsyncDisposable {
  readonly contentId: Uint8Array;
  /** Bytes declared, if any were. */
  readonly expectedLength: number | undefined;
  readonly #transform: PublishTransform;
  readonly #state: HandleState;
  #publishedBytes = 0;
  #failure: unknown;
  #info: PublicationInfo | undefined;

  constructor(transform: PublishTransform, session: Session, expectedLength: number | undefined) {
    super({ highWaterMark: transform.writableHighWaterMark });
    this.contentId = transform.contentId;
    this.expectedLength = expectedLength;
    this.#transform = transform;
    this.#state = new HandleState(session, (error) => this.destroy(error));
    transform.resume();
    // The promise members report failures to whoever called them; an unheard 'error' must not end the process.
    this.on('error', () => {});
    transform.on('error', () => {});
  }

  /** Bytes taken so far. */
  get publishedBytes(): number {
    return this.#publishedBytes;
  }

  get phase(): 'open' | 'completed' | 'failed' | 'invalidated' | 'closed' {
    if (this.#state.end !== undefined) return this.#state.end;
    if (this.#failure !== undefined) return 'failed';
    return this.#info === undefined ? 'open' : 'completed';
  }

  /**
   * Appends. Calls queue in order (G3); do not modify `data` until settled.
   *
   * @throws {@link PeerDistError} common set; `ALREADY_COMPLETED`; `LENGTH_MISMATCH` at the overrunning add. An aborted add makes the
   * publication 'failed': how many of its bytes were taken is unknowable (G24)
   */
  async addData(data: Uint8Array, options: Abortable = {}): Promise<void> {
    assertBytes(data);
    return this.#step(options, (done) => void super.write(data, done));
  }

  /**
   * Seals: content information can be opened once this resolves. Does not close.
   *
   * @throws {@link PeerDistError} as {@link addData}; `LENGTH_MISMATCH` when less came than was declared
   */
  async complete(options: Abortable = {}): Promise<PublicationInfo> {
    await this.#step(options, (done) => void super.end(done));
    return this.#info as PublicationInfo;
  }

  override _write(chunk: Uint8Array, encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#transform.write(chunk, encoding, () => {
      this.#publishedBytes += chunk.byteLength;
      callback(this.#transform.failure);
    });
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#transform.end();
    this.#transform.published.then(
      (info) => {
        this.#info = info;
        callback();
      },
      (error: Error) => callback(error),
    );
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (this.#info === undefined) {
      const reason = error ?? new PeerDistAbortError('close');
      this.#failure ??= reason;
      this.#transform.abandon(reason);
      this.#transform.destroy();
    }
    // Used as a stream, nobody thinks of closing it.
    this.#state.detach();
    callback(error);
  }

  /** Aborts what is pending; a publication that was being written fails by it. For the publisher. */
  async cancel(error: PeerDistError): Promise<number> {
    const writing = this.writableLength > 0 && this.phase === 'open';
    const cancelled = await this.#state.operations.cancel(error);
    if (cancelled > 0 || !writing) return cancelled;
    this.destroy(error);
    return 1;
  }

  /** Drops an unfinished publication, whether or not something is pending. For the publisher. */
  abandon(error: PeerDistError): Promise<number> {
    const cancelled = this.cancel(error);
    if (this.#info === undefined) this.destroy(error);
    return cancelled;
  }

  /** Releases the handle, aborting pending work; before `complete` that drops the publication. Idempotent, never rejects. */
  close(): Promise<void> {
    return this.#state.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #step(options: Abortable, act: (done: (error?: Error | null) => void) => void): Promise<void> {
    if (options.signal?.aborted === true)
      return Promise.reject(new PeerDistAbortError('signal', options.signal.reason));
    const step = this.#state.run(options, () => {
      if (this.#failure !== undefined) throw this.#failure;
      if (this.writableEnded) throw new PeerDistError('ERR_PEERDIST_ALREADY_COMPLETED', 'the publication is complete');
      return new Promise<void>((resolve, reject) => {
        act((error) => (error ? reject(error) : resolve()));
      });
    });
    // Aborted half-way: what has been taken is unknowable.
    return step.catch((error: unknown) => {
      const begun = !(error instanceof PeerDistError) || error.code !== 'ERR_PEERDIST_ALREADY_COMPLETED';
      if (begun && this.#state.end === undefined) this.destroy(error as Error);
      throw error;
    });
  }
}
