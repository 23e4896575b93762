/**
 * Values of any size by key in an LMDB environment, limited in bytes; the least recently used leave first, also after a restart.
 *
 * Callers queue changes by key. `#write` takes what waits, hands the values to LMDB's own thread, and has `applyChanges` do the rest in the same
 * transaction. Uses are noted in memory and written with the next change, or from time to time. Nothing is kept in memory for
 * each entry.
 */
import { type Clock, systemClock } from '../clock.ts';
import { nativeHashProvider } from '../crypto/index.ts';
import { PeerDistError } from '../errors.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { assertMaxBytes } from './limit.ts';
import type { Environment } from './lmdb-environment.ts';
import {
  type Applied,
  applyChanges,
  type Change,
  costOf,
  type Databases,
  openDatabases,
  type Row,
  type TableCompanion,
} from './lmdb-rows.ts';
import { SeenKeys } from './seen-keys.ts';
import type { BlockCheck, BlockHash, MaybePromise } from './types.ts';

export interface LmdbTableOptions<F> {
  readonly environment: Environment;
  /** Limit of the file. Values and bookkeeping are kept below nine tenths of it; LMDB needs the rest to find room. */
  readonly maxBytes: number;
  /** For observations. */
  readonly store: 'block' | 'content_information';
  readonly companion?: TableCompanion<F> | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** An entry as administrators see it. */
export interface TableEntry {
  readonly key: string;
  readonly size: number;
  /** Seconds since 1970. */
  readonly usedAt: number;
  readonly hash: BlockHash;
}

interface QueuedChange<F> extends Change<F> {
  value: Uint8Array | undefined;
  hash: BlockHash | undefined;
  facts: F | undefined;
  isForgotten: boolean;
  isAnnounced: boolean;
  readonly add: Set<string>;
  readonly drop: Set<string>;
  readonly waiters: { readonly resolve: (had: boolean) => void; readonly reject: (error: unknown) => void }[];
}

/** Share of the limit that values and bookkeeping may take: freed runs of pages do not always fit what comes. Measured: an eighth. */
const HIGH_WATERMARK = 0.88;
/** Share that is left when room is made. Policy, not protocol. */
const LOW_WATERMARK = 0.86;
/** Bytes that may wait to be written; what comes then is not kept. Policy, not protocol. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
/** Bytes and changes of one transaction. Policy, not protocol. */
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
const MAX_BATCH_CHANGES = 1024;
/** Uses noted before they are written, and milliseconds they wait. Policy, not protocol. */
const MAX_TOUCHED = 16_384;
const TOUCH_DELAY_MS = 10_000;
/** Milliseconds nothing is kept after a transaction failed, doubled each time up to the second. Policy, not protocol. */
const MIN_PAUSE_MS = 5_000;
const MAX_PAUSE_MS = 300_000;
/** Keys that are denied one by one; past that all are, until the next start. Policy, not protocol. */
const MAX_DENIED = 65_536;
/** Rows read in one turn of the event loop where all are walked. */
const WALK_ROWS = 500;

export class LmdbTable<F = never> {
  readonly #databases: Databases;
  readonly #environment: Environment;
  readonly #options: LmdbTableOptions<F>;
  readonly #observer: Observer;
  readonly #clock: Clock;
  /** Keys whose values were checked, or written, by this process. */
  readonly #seen = new SeenKeys();
  #queue = new Map<string, QueuedChange<F>>();
  #queuedBytes = 0;
  /** Who waits for {@link room}. */
  #onRoom: (() => void)[] = [];
  #touched = new Set<string>();
  #cancelTouching: (() => void) | undefined;
  #writing: Promise<void> | undefined;
  /** Bytes above which room is made; less than the options say once the disk was full. */
  #highBytes: number;
  #pauseMs = 0;
  #pausedUntil = 0;
  /** Keys whose last change could not be written: what lies there is no longer true. */
  readonly #denied = new Set<string>();
  #isBlind = false;
  /** What is asked from then on finds an empty store: LMDB would end the process. */
  #isClosed = false;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a limit that is none */
  constructor(options: LmdbTableOptions<F>) {
    assertMaxBytes(options.maxBytes);
    this.#databases = openDatabases(options.environment.root);
    this.#environment = options.environment;
    this.#options = options;
    this.#observer = options.observer ?? ignoreObservations;
    this.#clock = options.clock ?? systemClock;
    this.#highBytes = Math.floor(options.maxBytes * HIGH_WATERMARK);
  }

  get bytes(): number {
    return this.#isClosed ? 0 : (this.#databases.totals.get('bytes') ?? 0);
  }

  get count(): number {
    return this.#isClosed ? 0 : (this.#databases.entries.getStats() as { entryCount: number }).entryCount;
  }

  /** Changes whenever an entry was deleted that others must hear of, by whatever process. */
  get version(): number {
    return this.#isClosed ? 0 : (this.#databases.totals.get('version') ?? 0);
  }

  /**
   * The value; at once when this process has checked it before. One that does not match is deleted.
   *
   * @param check @default by the hash it was kept with
   */
  get(key: string, check?: BlockCheck): MaybePromise<Buffer | undefined> {
    if (!this.#mayHave(key)) return undefined;
    if (this.#seen.has(key)) return this.#used(key, this.#databases.values.get(key));
    if (!this.#databases.values.doesExist(key)) return undefined;
    return this.#getChecked(key, check);
  }

  has(key: string): boolean {
    return this.#mayHave(key) && this.#databases.values.doesExist(key);
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
      return this.#fault(isPaused ? 'failed' : 'overloaded');
    }
    await this.#change(key, (change) => {
      this.#queuedBytes += value.byteLength - (change.value?.byteLength ?? 0);
      change.value = value;
      change.hash = hash;
      change.facts = facts ?? change.facts;
      change.add.add(label);
      change.drop.delete(label);
    }).catch(() => false);
  }

  async label(key: string, label: string): Promise<void> {
    if (isKey(key)) await this.#change(key, ({ add }) => void add.add(label)).catch(() => false);
  }

  /**
   * @param isAnnounced changes {@link version}: other processes must not use their copies any more
   * @returns whether there was something
   * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`
   */
  async delete(key: string, isAnnounced = false): Promise<boolean> {
    if (!isKey(key)) return false;
    return this.#change(key, (change) => {
      change.isAnnounced ||= isAnnounced;
      this.#queuedBytes -= change.value?.byteLength ?? 0;
      change.value = undefined;
      change.facts = undefined;
      change.isForgotten = true;
      change.add.clear();
    });
  }

  /** Takes a label off every entry; those without another go. @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` */
  async flush(label: string): Promise<void> {
    // What waits has its label only when it is written.
    await this.written();
    const drop = (change: QueuedChange<F>): void => {
      change.isAnnounced = true;
      change.drop.add(label);
    };
    for await (const rows of this.#rows()) {
      const labelled = rows.filter(({ value: [, , , , , ...labels] }) => labels.includes(label));
      await Promise.all(labelled.map(({ key }) => this.#change(key, drop)));
    }
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
    this.#touched.add(key);
    if (this.#touched.size >= MAX_TOUCHED) this.#schedule();
    else this.#cancelTouching ??= this.#clock.after(TOUCH_DELAY_MS, () => this.#schedule());
  }

  /** Every entry, while others change the table. */
  async *all(): AsyncGenerator<TableEntry> {
    for await (const rows of this.#rows())
      for (const { key, value } of rows) {
        const [, usedAt, size, digest, hash] = value;
        yield { key, size, usedAt, hash: { digest, value: hash } };
      }
  }

  /** Whether the value still is what it was when it was kept. */
  async verify(key: string): Promise<boolean> {
    await this.#databases.values.prefetch([key]);
    const value = this.#databases.values.get(key);
    return value === undefined || this.#matches(key, value);
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

  #mayHave(key: string): boolean {
    return isKey(key) && !this.#isBlind && !this.#isClosed && (this.#denied.size === 0 || !this.#denied.has(key));
  }

  #deny(key: string): void {
    if (this.#denied.size < MAX_DENIED) this.#denied.add(key);
    else this.#isBlind = true;
  }

  #used(key: string, value: Buffer | undefined): Buffer | undefined {
    if (value !== undefined) this.touch(key);
    return value;
  }

  async #getChecked(key: string, check: BlockCheck | undefined): Promise<Buffer | undefined> {
    // Read by another thread: it may have to come from the disk.
    await this.#databases.values.prefetch([key]);
    const value = this.#isClosed ? undefined : this.#databases.values.get(key);
    if (value === undefined) return undefined;
    if (check === undefined ? this.#matches(key, value) : check(value)) {
      this.#seen.add(key);
      return this.#used(key, value);
    }
    this.#fault('damaged');
    await this.delete(key).catch(() => false);
    return undefined;
  }

  #matches(key: string, value: Uint8Array): boolean {
    const row = this.#databases.entries.get(key);
    if (row === undefined) return false;
    const [, , size, digest, hash] = row;
    const made = nativeHashProvider.digest(digest, value).subarray(0, hash.byteLength);
    return size === value.byteLength && hash.byteLength > 0 && Buffer.compare(made, hash) === 0;
  }

  #fault(fault: 'damaged' | 'failed' | 'overloaded'): void {
    this.#observer({ type: 'store_fault', store: this.#options.store, fault });
  }

  #change(key: string, edit: (change: QueuedChange<F>) => void): Promise<boolean> {
    if (this.#isClosed) return Promise.resolve(false);
    let change = this.#queue.get(key);
    if (change === undefined) {
      const nothing = { value: undefined, hash: undefined, facts: undefined, isForgotten: false, isAnnounced: false };
      change = { ...nothing, add: new Set(), drop: new Set(), waiters: [] };
      this.#queue.set(key, change);
    }
    const { waiters } = change;
    edit(change);
    this.#schedule();
    return new Promise((resolve, reject) => {
      waiters.push({ resolve, reject });
    });
  }

  #schedule(): void {
    this.#writing ??= new Promise<void>((resolve) => {
      setImmediate(resolve);
    })
      .then(() => this.#write())
      .finally(() => {
        this.#writing = undefined;
        if (this.#queue.size > 0) this.#schedule();
      });
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  async written(): Promise<void> {
    while (this.#queue.size > 0 || this.#touched.size > 0 || this.#writing !== undefined) {
      this.#schedule();
      await this.#writing;
    }
  }

  /** Writes until nothing waits. Never rejects. */
  async #write(): Promise<void> {
    let isWithinLimit = true;
    while (this.#queue.size > 0 || this.#touched.size > 0 || !isWithinLimit) {
      const batch = this.#takeBatch();
      if (this.#queuedBytes < MAX_QUEUED_BYTES / 4) for (const resolve of this.#onRoom.splice(0)) resolve();
      const touched = this.#touched;
      this.#touched = new Set();
      this.#cancelTouching?.();
      this.#cancelTouching = undefined;
      try {
        const applied = await this.#commit(batch, touched);
        isWithinLimit = applied.isWithinLimit;
        this.#pauseMs = 0;
        for (const [key, { value, waiters }] of batch) {
          this.#denied.delete(key);
          if (value !== undefined) this.#seen.add(key);
          for (const { resolve } of waiters) resolve(applied.had.has(key));
        }
        for (const bytes of applied.evicted) this.#observer({ type: 'eviction', store: this.#options.store, bytes });
        this.#observer({ type: 'stored', store: this.#options.store, bytes: this.bytes });
      } catch (cause) {
        isWithinLimit = true;
        for (const key of batch.keys()) this.#deny(key);
        this.#pause();
        const error = new PeerDistError('ERR_PEERDIST_STORE_UNAVAILABLE', 'the store could not be written', { cause });
        for (const { waiters } of batch.values()) for (const { reject } of waiters) reject(error);
      }
    }
  }

  #takeBatch(): Map<string, QueuedChange<F>> {
    const batch = new Map<string, QueuedChange<F>>();
    let bytes = 0;
    for (const [key, change] of this.#queue) {
      if (batch.size >= MAX_BATCH_CHANGES || (bytes > 0 && bytes >= MAX_BATCH_BYTES)) break;
      this.#queue.delete(key);
      batch.set(key, change);
      bytes += change.value?.byteLength ?? 0;
    }
    this.#queuedBytes -= bytes;
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
    const applied = this.#environment.root.transaction(() =>
      applyChanges(this.#databases, batch, touched, limits, now, companion),
    );
    for (const result of await Promise.allSettled([...done, applied])) {
      if (result.status === 'fulfilled') continue;
      const error = result.reason as { commitError?: Promise<unknown> };
      // The reason comes as a promise of its own that nobody else looks at.
      error.commitError?.catch(() => {});
      throw error;
    }
    return applied;
  }

  /** A disk that is full, or gone. What is held may shrink, so that the next attempt finds room in the file. */
  #pause(): void {
    this.#fault('failed');
    this.#pauseMs = Math.min(Math.max(MIN_PAUSE_MS, 2 * this.#pauseMs), MAX_PAUSE_MS);
    this.#pausedUntil = this.#clock.now() + this.#pauseMs;
    this.#highBytes = Math.min(this.#highBytes, Math.floor(this.bytes * 0.9));
  }

  async *#rows(): AsyncGenerator<{ readonly key: string; readonly value: Row }[]> {
    let start: string | undefined;
    while (!this.#isClosed) {
      const range = start === undefined ? {} : { start, exclusiveStart: true };
      const rows = [...this.#databases.entries.getRange({ ...range, limit: WALK_ROWS })];
      if (rows.length === 0) return;
      yield rows;
      start = (rows.at(-1) as { key: string }).key;
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
  }
}

/** LMDB takes keys up to 1978 bytes; those of stores are far shorter. */
const MAX_KEY_LENGTH = 512;

function isKey(key: string): boolean {
  return key.length > 0 && key.length <= MAX_KEY_LENGTH;
}
