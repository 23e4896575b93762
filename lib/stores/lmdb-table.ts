/**
 * Values of any size by key in an LMDB environment, limited in bytes; the least recently used leave first, also after a restart. A value is hashed
 * when this process first reads it. Nothing is kept in memory for each entry. Changes go through {@link LmdbWriter}.
 */
import type { ByteRange } from '../bytes/index.ts';
import { nativeHashProvider } from '../crypto/index.ts';
import { type Databases, openDatabases, type Row } from './lmdb-rows.ts';
import { LmdbWriter, type LmdbWriterOptions } from './lmdb-writer.ts';
import { SeenKeys } from './seen-keys.ts';
import type { BlockCheck, BlockHash, MaybePromise } from './types.ts';

/** An entry as administrators see it. */
export interface TableEntry {
  readonly key: string;
  readonly size: number;
  /** Seconds since 1970. */
  readonly usedAt: number;
  readonly hash: BlockHash;
}

/** Rows read in one turn of the event loop where all are walked. */
const WALK_ROWS = 500;

export class LmdbTable<F = never> {
  readonly #databases: Databases;
  readonly #writer: LmdbWriter<F>;
  /** Keys whose values were checked, or written, by this process. */
  readonly #seen = new SeenKeys();

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a limit that is none */
  constructor(options: LmdbWriterOptions<F>) {
    this.#databases = openDatabases(options.environment.root);
    this.#writer = new LmdbWriter(options, this.#databases, (key) => this.#seen.add(key));
  }

  get bytes(): number {
    return this.#writer.bytes;
  }

  get count(): number {
    return this.isClosed ? 0 : (this.#databases.entries.getStats() as { entryCount: number }).entryCount;
  }

  /** Changes whenever an entry was deleted that others must hear of, by whatever process. */
  get version(): number {
    return this.isClosed ? 0 : (this.#databases.totals.get('version') ?? 0);
  }

  /** What is asked then finds nothing. */
  get isClosed(): boolean {
    return this.#writer.isClosed;
  }

  /**
   * The value; at once when this process has checked it before. One that does not match is deleted.
   *
   * @param check @default by the hash it was kept with
   */
  get(key: string, check?: BlockCheck): MaybePromise<Buffer | undefined> {
    if (!this.#writer.mayHave(key)) return undefined;
    if (this.#seen.has(key)) return this.#used(key, this.#databases.values.get(key));
    if (!this.#databases.values.doesExist(key)) return undefined;
    return this.#getChecked(key, check);
  }

  /** Part of a value of that length, if this process has checked it before. */
  peek(key: string, length: number, { offset, length: wanted }: ByteRange): Buffer | undefined {
    if (!this.#writer.mayHave(key) || !this.#seen.has(key)) return undefined;
    // A view that the next read overwrites: a copy of the part costs less than one of the whole.
    const value = this.#databases.values.getBinaryFast(key);
    if (value?.length !== length) return undefined;
    this.touch(key);
    const part = Buffer.allocUnsafeSlow(wanted);
    part.set(new Uint8Array(value.buffer, value.byteOffset + offset, wanted));
    return part;
  }

  has(key: string): boolean {
    return this.#writer.mayHave(key) && this.#databases.values.doesExist(key);
  }

  /** As {@link LmdbWriter.set}. */
  set(key: string, value: Uint8Array, label: string, hash?: BlockHash, facts?: F): Promise<void> {
    return this.#writer.set(key, value, label, hash, facts);
  }

  label(key: string, label: string): Promise<void> {
    return this.#writer.label(key, label);
  }

  /** As {@link LmdbWriter.delete}. @param isAnnounced changes {@link version} */
  delete(key: string, isAnnounced = false): Promise<boolean> {
    return this.#writer.delete(key, isAnnounced);
  }

  /** Takes a label off every entry; those without another go. @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` */
  async flush(label: string): Promise<void> {
    // What waits has its label only when it is written.
    await this.#writer.written();
    for await (const rows of this.#rows()) {
      const labelled = rows.filter(({ value: [, , , , , ...labels] }) => labels.includes(label));
      await Promise.all(labelled.map(({ key }) => this.#writer.unlabel(key, label)));
    }
  }

  /** As {@link LmdbWriter.room}. */
  room(): Promise<void> | undefined {
    return this.#writer.room();
  }

  touch(key: string): void {
    this.#writer.touch(key);
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  written(): Promise<void> {
    return this.#writer.written();
  }

  /** Writes what waits and closes the environment. Never rejects. */
  close(): Promise<void> {
    return this.#writer.close();
  }

  /** Every entry, while others change the table. */
  async *all(): AsyncGenerator<TableEntry> {
    for await (const rows of this.#rows()) for (const { key, value } of rows) yield entryOf(key, value);
  }

  /** Every entry with its value, which is undefined where it is not what it was when it was kept. No use of any. */
  async *allValues(): AsyncGenerator<TableEntry & { readonly value: Buffer | undefined }> {
    const { values } = this.#databases;
    for await (const rows of this.#rows()) {
      await values.prefetch(rows.map(({ key }) => key));
      for (const { key, value: row } of rows) {
        const value = this.isClosed ? undefined : values.get(key);
        const isWhole = value !== undefined && this.#matches(key, value);
        yield { ...entryOf(key, row), value: isWhole ? value : undefined };
      }
    }
  }

  /** When an entry was last used: seconds since 1970 of the one longest ago, and of the latest. Undefined when there is none. */
  get uses(): readonly [oldest: number, newest: number] | undefined {
    if (this.isClosed) return undefined;
    const { entries, recency } = this.#databases;
    const first = (reverse: boolean): number | undefined => {
      for (const { key: tick, value: key } of recency.getRange({ reverse })) {
        const row = entries.get(key);
        if (row?.[0] === tick) return row[1];
      }
      return undefined;
    };
    const [oldest, newest] = [first(false), first(true)];
    return oldest === undefined || newest === undefined ? undefined : [oldest, newest];
  }

  /** Whether the value still is what it was when it was kept. No use of it. */
  async verify(key: string): Promise<boolean> {
    if (this.isClosed) return true;
    await this.#databases.values.prefetch([key]);
    const value = this.isClosed ? undefined : this.#databases.values.get(key);
    return value === undefined || this.#matches(key, value);
  }

  #used(key: string, value: Buffer | undefined): Buffer | undefined {
    if (value !== undefined) this.touch(key);
    return value;
  }

  async #getChecked(key: string, check: BlockCheck | undefined): Promise<Buffer | undefined> {
    // Read by another thread: it may have to come from the disk.
    await this.#databases.values.prefetch([key]);
    const value = this.isClosed ? undefined : this.#databases.values.get(key);
    if (value === undefined) return undefined;
    if (check === undefined ? this.#matches(key, value) : check(value)) {
      this.#seen.add(key);
      return this.#used(key, value);
    }
    this.#writer.fault('damaged');
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

  async *#rows(): AsyncGenerator<{ readonly key: string; readonly value: Row }[]> {
    let start: string | undefined;
    while (!this.isClosed) {
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

function entryOf(key: string, [, usedAt, size, digest, hash]: Row): TableEntry {
  return { key, size, usedAt, hash: { digest, value: hash } };
}
