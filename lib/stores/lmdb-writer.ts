/**
 * Changes on their way into the databases of a table.
 *
 * Callers queue them by key. `#write` takes what waits, hands the values to LMDB's own thread, and has `applyChanges` do the rest in the same
 * transaction. Uses are noted in memory and written with the next change, or from time to time. A change that cannot be written makes its
 * key a miss: what lies there is no longer true.
 */
import { type Clock, systemClock } from '../clock.ts';
import { PeerDistError } from '../errors.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { assertMaxBytes } from './limit.ts';
import type { Environment } from './lmdb-environment.ts';
import { type Applied, applyChanges, type Change, costOf, type Databases, type TableCompanion } from './lmdb-rows.ts';
import type { BlockHash } from './types.ts';

export interface LmdbWriterOptions<F> {
  readonly environment: Environment;
  /** Limit of the file. Values and bookkeeping are kept below 85 % of it; LMDB needs the rest to find room. */
  readonly maxBytes: number;
  /** Milliseconds that what is set may wait for more, so that one transaction writes many. @default 0 */
  readonly commitDelayMs?: number | undefined;
  /** For observations. */
  readonly store: 'block' | 'content_information';
  readonly companion?: TableCompanion<F> | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** Called when the change is written, or cannot be: then with an error. @param had whether there was something before */
type Waiter = (error: PeerDistError | undefined, had: boolean) => void;

class QueuedChange<F> implements Change<F> {
  value: Uint8Array | undefined = undefined;
  hash: BlockHash | undefined = undefined;
  facts: F | undefined = undefined;
  isForgotten = false;
  isAnnounced = false;
  add: string[] = [];
  drop: string[] = [];
  readonly waiters: Waiter[] = [];

  label(label: string): void {
    if (!this.add.includes(label)) this.add.push(label);
    if (this.drop.length > 0) this.drop = this.drop.filter((each) => each !== label);
  }
}

/** Share of the limit that values and bookkeeping may take: freed runs of pages do not always fit what comes. Measured: an eighth. */
const HIGH_WATERMARK = 0.85;
/** Share that is left when room is made. Policy, not protocol. */
const LOW_WATERMARK = 0.84;
/** Bytes that may wait to be written; what comes then is not kept. Policy, not protocol. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
/** Bytes and changes of one transaction. What it frees can be used by the second after it, so it must be small against the limit. Policy. */
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
const MIN_BATCH_BYTES = 128 * 1024;
const BATCH_SHARE = 64;
const MAX_BATCH_CHANGES = 1024;
/** Uses of one transaction: each takes some ten microseconds of this thread. */
const MAX_BATCH_TOUCHES = 1024;
/** Uses noted before they are written, and milliseconds they wait. Policy, not protocol. */
const MAX_TOUCHED = 16_384;
const TOUCH_DELAY_MS = 10_000;
/** Milliseconds nothing is kept after a transaction failed, doubled each time up to the second. Policy, not protocol. */
const MIN_PAUSE_MS = 5_000;
const MAX_PAUSE_MS = 300_000;
/** Keys that are denied one by one; past that all are, until the next start. Policy, not protocol. */
const MAX_DENIED = 65_536;
export class LmdbWriter<F = never> {
  readonly #databases: Databases;
  readonly #environment: Environment;
  readonly #options: LmdbWriterOptions<F>;
  readonly #onWritten: (key: string) => void;
  readonly #observer: Observer;
  readonly #clock: Clock;
  #queue = new Map<string, QueuedChange<F>>();
  #queuedBytes = 0;
  /** Who waits for {@link room}. */
  #onRoom: (() => void)[] = [];
  readonly #touched = new Set<string>();
  #cancelTouching: (() => void) | undefined;
  #writing: Promise<void> | undefined;
  #patience: NodeJS.Timeout | undefined;
  /** Somebody waits for what is queued. */
  #isUrgent = false;
  #mustMakeRoom = false;
  /** Bytes above which room is made; less than the options say once the disk was full. */
  #highBytes: number;
  readonly #batchBytes: number;
  #pauseMs = 0;
  #pausedUntil = 0;
  /** Keys whose last change could not be written: what lies there is no longer true. */
  readonly #denied = new Map<string, number>();
  /** Transactions begun. */
  #batches = 0;
  #isBlind = false;
  /** What is asked from then on finds an empty store: LMDB would end the process. */
  #isClosed = false;

  /**
   * @param onWritten told of each key whose value has been written by this process
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a limit that is none
   */
  constructor(options: LmdbWriterOptions<F>, databases: Databases, onWritten: (key: string) => void) {
    assertMaxBytes(options.maxBytes);
    this.#databases = databases;
    this.#environment = options.environment;
    this.#options = options;
    this.#onWritten = onWritten;
    this.#observer = options.observer ?? ignoreObservations;
    this.#clock = options.clock ?? systemClock;
    this.#highBytes = Math.floor(options.maxBytes * HIGH_WATERMARK);
    this.#batchBytes = Math.min(Math.max(MIN_BATCH_BYTES, options.maxBytes / BATCH_SHARE), MAX_BATCH_BYTES);
    this.#observer({ type: 'store_limit', store: options.store, bytes: options.maxBytes });
    this.#observer({ type: 'stored', store: options.store, bytes: this.bytes });
  }

  get bytes(): number {
    return this.#isClosed ? 0 : (this.#databases.totals.get('bytes') ?? 0);
  }

  /** What is asked then finds nothing. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether what lies under the key, if anything, is true. */
  mayHave(key: string): boolean {
    return isKey(key) && !this.#isBlind && !this.#isClosed && (this.#denied.size === 0 || !this.#denied.has(key));
  }

  /**
   * @returns resolves when the value is kept, or is not going to be
   * @param hash @default a checksum made here
   */
  async set(key: string, value: Uint8Array, label: string, hash?: BlockHash, facts?: F): Promise<void> {
    if (!isKey(key)) return;
    if (costOf(value.byteLength) > this.#highBytes) return void (await this.delete(key));
    if (this.#isClosed) return;
    const isPaused = this.#clock.now() < this.#pausedUntil;
    if (isPaused || this.#queuedBytes + value.byteLength > MAX_QUEUED_BYTES) {
      this.#deny(key);
      return this.fault(isPaused ? 'failed' : 'overloaded');
    }
    const isPatient = this.#queuedBytes + value.byteLength < this.#batchBytes;
    const change = this.#changeOf(key);
    this.#queuedBytes += value.byteLength - (change.value?.byteLength ?? 0);
    change.value = value;
    change.hash = hash;
    if (facts !== undefined) change.facts = facts;
    change.label(label);
    this.#arrange(isPatient);
    return new Promise((resolve) => {
      change.waiters.push(() => resolve());
    });
  }

  async label(key: string, label: string): Promise<void> {
    if (!isKey(key) || this.#isClosed) return;
    const change = this.#changeOf(key);
    change.label(label);
    await this.#written(change, true).catch(() => false);
  }

  /**
   * @param isAnnounced other processes hear of it: other processes must not use their copies any more
   * @returns whether there was something
   * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`
   */
  async delete(key: string, isAnnounced = false): Promise<boolean> {
    if (!isKey(key) || this.#isClosed) return false;
    // Nothing is there, nothing is on its way.
    if (
      this.#writing === undefined &&
      !this.#queue.has(key) &&
      !(this.mayHave(key) && this.#databases.values.doesExist(key)) &&
      !this.#denied.has(key)
    )
      return false;
    const change = this.#changeOf(key);
    this.#forget(change);
    change.isAnnounced ||= isAnnounced;
    return this.#written(change, false);
  }

  /** Takes a label off an entry that was written; without another it goes. @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` */
  unlabel(key: string, label: string): Promise<boolean> {
    const change = this.#changeOf(key);
    change.isAnnounced = true;
    change.add = change.add.filter((each) => each !== label);
    change.drop.push(label);
    return this.#written(change, false);
  }

  /** Resolves when not so much is waiting any more; undefined when it is not. Never rejects. */
  room(): Promise<void> | undefined {
    if (this.#queuedBytes < MAX_QUEUED_BYTES / 4) return undefined;
    return new Promise((resolve) => {
      this.#onRoom.push(resolve);
    });
  }

  touch(key: string): void {
    if (this.#isClosed) return;
    // Past that, what is used often is noted all the same, sooner or later.
    if (this.#touched.size < MAX_TOUCHED) this.#touched.add(key);
    if (this.#touched.size >= MAX_TOUCHED) this.#start();
    else this.#cancelTouching ??= this.#clock.after(TOUCH_DELAY_MS, () => this.#start());
  }

  fault(fault: 'damaged' | 'failed' | 'overloaded'): void {
    this.#observer({ type: 'store_fault', store: this.#options.store, fault });
  }

  /** Writes what waits and closes the environment. Never rejects. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    try {
      await this.written();
      this.#isClosed = true;
      this.#cancelTouching?.();
      await this.#environment.close();
    } catch {
      // Then the next one finds an unclean stop.
    }
  }

  #deny(key: string): void {
    // What waits for the key is older than what could not be kept.
    const waiting = this.#queue.get(key);
    if (waiting?.value !== undefined) this.#forget(waiting);
    if (this.#denied.size < MAX_DENIED) this.#denied.set(key, this.#batches);
    else this.#isBlind = true;
  }

  #forget(change: QueuedChange<F>): void {
    this.#queuedBytes -= change.value?.byteLength ?? 0;
    change.value = undefined;
    change.facts = undefined;
    change.isForgotten = true;
    change.add = [];
  }

  #changeOf(key: string): QueuedChange<F> {
    let change = this.#queue.get(key);
    if (change === undefined) {
      change = new QueuedChange<F>();
      this.#queue.set(key, change);
    }
    return change;
  }

  /** @param isPatient more may come before it is written. @returns whether there was something */
  #written(change: QueuedChange<F>, isPatient: boolean): Promise<boolean> {
    this.#arrange(isPatient);
    return new Promise((resolve, reject) => {
      change.waiters.push((error, had) => (error === undefined ? resolve(had) : reject(error)));
    });
  }

  /** Sees to it that what waits is written, now or soon. */
  #arrange(isPatient: boolean): void {
    if (!isPatient) this.#isUrgent = true;
    if (this.#writing !== undefined) return;
    const { commitDelayMs = 0 } = this.#options;
    if (this.#isUrgent || commitDelayMs === 0 || this.#queuedBytes >= this.#batchBytes) this.#start();
    else this.#patience ??= setTimeout(() => this.#start(), commitDelayMs);
  }

  #start(): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    this.#writing ??= new Promise<void>((resolve) => {
      setImmediate(resolve);
    })
      .then(() => this.#write())
      .finally(() => {
        this.#writing = undefined;
        if (this.#queue.size > 0 || this.#mustMakeRoom) this.#arrange(!this.#mustMakeRoom);
      });
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  async written(): Promise<void> {
    while (this.#queue.size > 0 || this.#touched.size > 0 || this.#writing !== undefined) {
      this.#isUrgent = true;
      this.#start();
      await this.#writing;
    }
  }

  /** One transaction. Never rejects. */
  async #write(): Promise<void> {
    const number = (this.#batches += 1);
    const batch = this.#takeBatch();
    if (this.#queuedBytes < MAX_QUEUED_BYTES / 4) for (const resolve of this.#onRoom.splice(0)) resolve();
    const touched = new Set<string>();
    for (const key of this.#touched) {
      if (touched.size >= MAX_BATCH_TOUCHES) break;
      this.#touched.delete(key);
      touched.add(key);
    }
    this.#cancelTouching?.();
    this.#cancelTouching = this.#touched.size === 0 ? undefined : this.#clock.after(0, () => this.#start());
    if (batch.size === 0 && this.#clock.now() < this.#pausedUntil) return;
    try {
      const applied = await this.#commit(batch, touched);
      this.#mustMakeRoom = !applied.isWithinLimit;
      this.#pauseMs = 0;
      // After a disk was full, more is tried step by step.
      const most = Math.floor(this.#options.maxBytes * HIGH_WATERMARK);
      if (this.#highBytes < most) this.#highBytes = Math.min(most, this.#highBytes + this.#batchBytes);
      for (const [key, { value, waiters }] of batch) {
        // Unless something newer was refused meanwhile.
        if ((this.#denied.get(key) ?? number) < number) this.#denied.delete(key);
        if (value !== undefined) this.#onWritten(key);
        for (const settle of waiters) settle(undefined, applied.had.has(key));
      }
      for (const bytes of applied.evicted) this.#observer({ type: 'eviction', store: this.#options.store, bytes });
      this.#observer({ type: 'stored', store: this.#options.store, bytes: this.bytes });
    } catch (cause) {
      this.#mustMakeRoom = false;
      for (const key of batch.keys()) this.#deny(key);
      this.#pause();
      const error = new PeerDistError('ERR_PEERDIST_STORE_UNAVAILABLE', 'the store could not be written', { cause });
      for (const { waiters } of batch.values()) for (const settle of waiters) settle(error, false);
    }
  }

  #takeBatch(): Map<string, QueuedChange<F>> {
    const batch = new Map<string, QueuedChange<F>>();
    let bytes = 0;
    for (const [key, change] of this.#queue) {
      if (batch.size >= MAX_BATCH_CHANGES || (bytes > 0 && bytes >= this.#batchBytes)) break;
      this.#queue.delete(key);
      batch.set(key, change);
      bytes += change.value?.byteLength ?? 0;
    }
    this.#queuedBytes -= bytes;
    if (this.#queue.size === 0) this.#isUrgent = false;
    return batch;
  }

  /** One transaction: what is queued in one turn of the event loop ends up in the same. */
  async #commit(batch: ReadonlyMap<string, QueuedChange<F>>, touched: ReadonlySet<string>): Promise<Applied> {
    const done: Promise<unknown>[] = [];
    for (const [key, { value }] of batch)
      if (value !== undefined) done.push(this.#databases.values.put(key, value as Buffer));
    const limits = { high: this.#highBytes, low: (this.#highBytes / HIGH_WATERMARK) * LOW_WATERMARK };
    const now = Math.floor(this.#clock.now() / 1000);
    const { companion } = this.#options;
    const applied = this.#environment.transact(() =>
      applyChanges(this.#databases, batch, touched, limits, now, companion),
    );
    const results = await Promise.allSettled([...done, applied]);
    const failures = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as unknown);
    // The reason comes as a promise of its own that nobody else looks at.
    for (const failure of failures) (failure as { commitError?: Promise<unknown> }).commitError?.catch(() => {});
    if (failures.length > 0) throw failures[0];
    return applied;
  }

  /** A disk that is full, or gone. What is held may shrink, so that the next attempt finds room in the file. */
  #pause(): void {
    this.fault('failed');
    // Nor is what waits kept: each attempt costs a line on the terminal, which LMDB writes there.
    for (const [key, change] of this.#queue) {
      if (change.value === undefined) continue;
      this.#queue.delete(key);
      this.#deny(key);
      this.#queuedBytes -= change.value.byteLength;
      for (const settle of change.waiters) settle(undefined, false);
    }
    this.#pauseMs = Math.min(Math.max(MIN_PAUSE_MS, 2 * this.#pauseMs), MAX_PAUSE_MS);
    this.#pausedUntil = this.#clock.now() + this.#pauseMs;
    this.#highBytes = Math.min(this.#highBytes, Math.max(2 * this.#batchBytes, Math.floor(this.bytes * 0.9)));
  }
}

/** LMDB takes keys up to 1978 bytes; those of stores are far shorter. */
const MAX_KEY_LENGTH = 512;

function isKey(key: string): boolean {
  return key.length > 0 && key.length <= MAX_KEY_LENGTH;
}
