import type { Readable } from 'node:stream';
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import type { Clock } from '../../lib/clock.ts';
import { PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';
import type { ContentRecorder } from '../../lib/peerdist/index.ts';
import { ChunkQueue } from './chunk-queue.ts';
import { TransferReader } from './transfer-reader.ts';

export interface TransferOptions {
  /** Where in the content its first byte belongs. */
  readonly start: number;
  /** Bytes it must have; undefined where only its end tells. */
  readonly length: number | undefined;
  /** Describes and stores the bytes; without one all of them are held until {@link Transfer.release}. */
  readonly recorder: ContentRecorder | undefined;
  /** Bytes that may wait for being described: a body up to this is described after its clients have it. */
  readonly deferredBytes: number;
  /** Bytes past which a body without a length is no longer kept, but passed on. */
  readonly maxBytes: number;
  /** Milliseconds it goes on after its last reader has left, or without a first one. */
  readonly lingerMs: number;
  readonly clock: Clock;
  readonly onBytes: (bytes: number) => void;
  /** Called when all has come, with where it ends in the content. */
  readonly onWhole?: ((end: number) => void) | undefined;
  /** Called when it is only passed on from now on, and not kept. */
  readonly onGiveUp?: (() => void) | undefined;
}

/** Bytes the origin may be ahead of the fastest reader: a body nobody comes to the end of is not fetched for nothing. Policy, not protocol. */
const MAX_AHEAD_BYTES = 32 * 1024 * 1024;
/** Bytes described before others get their turn on the thread. */
const SLICE_BYTES = 512 * 1024;
/** Milliseconds for which slow readers put off the describing of what has come. Policy, not protocol. */
const DEFER_MS = 1_000;

/**
 * Bytes on their way from the origin, given to every client that wants some of them, from its first byte to its end. The fastest client sets the
 * pace. What has been described is in the store and no longer here: a reader that falls so far behind goes on from there.
 *
 * Queue: `#chunks` holds what has come and is not described; `#describe` drains it into the recorder, whose last segment waits there.
 */
export class Transfer {
  readonly start: number;
  readonly recorder: ContentRecorder | undefined;
  /** When all has come that will come, and is described: true when that is all there should be. Never rejects. */
  readonly done: Promise<boolean>;
  /** When it has let go of its bytes. */
  readonly released: Promise<void>;
  #onRelease!: () => void;
  readonly #source: Readable;
  readonly #options: TransferOptions;
  readonly #chunks = new ChunkQueue();
  readonly #readers = new Set<TransferReader>();
  /** Bytes it is to have, as far as that is known; a smaller number ends it early. */
  #length: number | undefined;
  #received = 0;
  #error: Error | undefined;
  #hasEnded = false;
  #describing = false;
  /** Describing has failed: the readers get their bytes, and nobody else will. */
  #gaveUp = false;
  #cancelTimer: (() => void) | undefined;
  #onIdle: (() => void) | undefined;
  #wakeDescriber: (() => void) | undefined;

  constructor(source: Readable, options: TransferOptions) {
    this.#source = source;
    this.released = new Promise((resolve) => (this.#onRelease = resolve));
    this.#options = options;
    this.start = options.start;
    this.recorder = options.recorder;
    this.#length = options.length;
    source.on('data', (chunk: Uint8Array) => this.#take(chunk));
    source.once('error', (error) => this.#fail(error));
    const ended = new Promise<void>((resolve) => source.once('close', resolve)).then(() => this.#end());
    this.#linger();
    this.done = ended.then(() => this.#describeRest()).then(() => this.#error === undefined && !this.#gaveUp);
  }

  /** Where its last byte ends in the content, as far as that is known. */
  get end(): number | undefined {
    if (this.#isOver) return this.receivedEnd;
    return this.#length === undefined ? undefined : this.start + this.#length;
  }

  /** Up to where bytes have come. */
  get receivedEnd(): number {
    return this.start + this.#received;
  }

  /** True when nothing more will come; a source that was destroyed takes a while to close. */
  get #isOver(): boolean {
    return this.#hasEnded || this.#error !== undefined;
  }

  /** Why it ended too early. */
  get error(): Error | undefined {
    return this.#error;
  }

  /** True when the byte there has come or is going to. */
  covers(offset: number): boolean {
    if (offset < this.start) return false;
    return this.end === undefined || offset < this.end;
  }

  /** True when the byte there is in the store and not here. */
  isKept(offset: number): boolean {
    return this.recorder !== undefined && offset >= this.start && offset < this.start + this.recorder.keptBytes;
  }

  /** Ends it there: somebody else brings what follows. */
  endAt(offset: number): void {
    this.#length = Math.max(this.#received, Math.min(offset - this.start, this.#length ?? Infinity));
    this.#checkEnd();
    for (const reader of this.#readers) reader.wake();
  }

  /** Bytes from one position up to another, as they come; ends early where they go on in the store or elsewhere. */
  createReader(offset: number, end: number | undefined): Readable {
    const reader = new TransferReader(offset, end, this, () => {
      this.#readers.delete(reader);
      this.#readerLeft();
    });
    if (!this.#hasEnded) this.#cancelTimer?.();
    this.#readers.add(reader);
    return reader;
  }

  /** For readers: the piece at a position, `later` while it has not come, undefined when it is not here and will not be. */
  pieceAt(offset: number): Uint8Array | 'later' | undefined {
    const at = offset - this.start;
    if (at < this.#received) return this.#chunks.pieceAt(at) ?? this.recorder?.peek(at);
    if (this.#error !== undefined) throw this.#error;
    return this.#hasEnded || at >= (this.#length ?? Infinity) ? undefined : 'later';
  }

  /** A reader has moved on: the origin may be asked for more. */
  resume(): void {
    if (this.#gaveUp) this.#dropRead();
    if (this.#source.isPaused() && !this.#isFarAhead() && !this.#isBehind()) this.#source.resume();
  }

  /** Resolves when nobody reads from it. */
  async idle(): Promise<void> {
    if (this.#readers.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  /** Lets go of what is held: it is to be had elsewhere now, or not at all. */
  release(): void {
    this.#chunks.clear();
    this.#onRelease();
  }

  #take(chunk: Uint8Array): void {
    this.#options.onBytes(chunk.byteLength);
    const room = this.#length === undefined ? Infinity : this.#length - this.#received;
    if (chunk.byteLength > room && this.#length === this.#options.length) {
      this.#fail(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin sent more than it announced'));
      return;
    }
    const piece = chunk.byteLength > room ? chunk.subarray(0, room) : chunk;
    this.#chunks.push(piece);
    this.#received += piece.byteLength;
    this.#checkEnd();
    for (const reader of this.#readers) reader.wake();
    if (this.recorder !== undefined && this.#received > this.#options.maxBytes) this.#giveUp();
    if (this.recorder !== undefined && this.#chunks.bytes > this.#options.deferredBytes)
      void this.#describe(this.#options.deferredBytes);
    if (this.#isFarAhead() || this.#isBehind()) this.#source.pause();
  }

  /** Stops the origin where somebody else goes on. */
  #checkEnd(): void {
    if (this.#length !== undefined && this.#received >= this.#length && this.#length !== this.#options.length)
      this.#source.destroy();
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.#source.destroy();
  }

  #end(): void {
    this.#hasEnded = true;
    this.#cancelTimer?.();
    const isCut = this.#length === undefined ? !this.#source.readableEnded : this.#received !== this.#length;
    if (isCut) this.#fail(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin cut the body short'));
    else if (this.#error === undefined) {
      this.#length = this.#received;
      this.#options.onWhole?.(this.receivedEnd);
    }
    for (const reader of this.#readers) reader.wake();
  }

  /** True when nobody needs so much so soon. */
  #isFarAhead(): boolean {
    if (this.#readers.size === 0) return false;
    let fastest = 0;
    for (const reader of this.#readers) fastest = Math.max(fastest, reader.position);
    return this.receivedEnd - fastest > MAX_AHEAD_BYTES;
  }

  /** True when describing does not keep up. */
  #isBehind(): boolean {
    return this.recorder !== undefined && this.#chunks.bytes > 2 * this.#options.deferredBytes;
  }

  /** Describes until no more than `leave` bytes wait. */
  async #describe(leave: number): Promise<void> {
    const { recorder } = this;
    if (recorder === undefined || this.#describing || this.#gaveUp) return;
    this.#describing = true;
    try {
      for (let slice = 0; this.#chunks.bytes > leave;) {
        const chunk = this.#chunks.first as Uint8Array;
        await recorder.push(chunk);
        this.#chunks.shift();
        slice += chunk.byteLength;
        if (slice < SLICE_BYTES) continue;
        slice = 0;
        await yieldToOthers();
      }
    } catch {
      this.#giveUp();
    } finally {
      this.#describing = false;
      this.#wakeDescriber?.();
      this.resume();
    }
  }

  /** After the last byte: readers first. */
  async #describeRest(): Promise<void> {
    if (this.recorder === undefined) return;
    if (this.#describing) await new Promise<void>((resolve) => (this.#wakeDescriber = resolve));
    if (this.#readers.size > 0) {
      await new Promise<void>((resolve) => {
        this.#wakeDescriber = resolve;
        this.#cancelTimer = this.#options.clock.after(DEFER_MS, resolve);
      });
      this.#cancelTimer?.();
    }
    await this.#describe(0);
  }

  #giveUp(): void {
    if (this.#gaveUp) return;
    this.#gaveUp = true;
    this.#options.onGiveUp?.();
  }

  /** What every reader has had, once nobody can come after them. */
  #dropRead(): void {
    let slowest = this.#received;
    for (const { position } of this.#readers) slowest = Math.min(slowest, position - this.start);
    for (let first = this.#chunks.first; first !== undefined; first = this.#chunks.first) {
      if (this.#chunks.start + first.byteLength > slowest) return;
      this.#chunks.shift();
    }
  }

  #readerLeft(): void {
    if (this.#readers.size > 0) return;
    this.#onIdle?.();
    if (this.#hasEnded) {
      this.#wakeDescriber?.();
      return;
    }
    this.#source.resume();
    this.#linger();
  }

  #linger(): void {
    this.#cancelTimer = this.#options.clock.after(this.#options.lingerMs, () =>
      this.#fail(new PeerDistAbortError('close')),
    );
  }
}
