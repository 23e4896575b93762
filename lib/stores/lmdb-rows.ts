/**
 * The four databases of a table and what one transaction does to them: `values`; `entries`, what is known of each value; `recency`, the keys
 * by when they were last used, counted in ticks and not in time, so that no clock matters; `totals`.
 */
import { type DigestName, nativeHashProvider } from '../crypto/index.ts';
import type { Database, RootDatabase } from './lmdb-environment.ts';
import type { BlockHash } from './types.ts';

/** What is known of a value: tick and second of its last use, bytes, what it hashes to, labels. */
export type Row = [
  tick: number,
  usedAt: number,
  size: number,
  digest: DigestName,
  hash: Uint8Array,
  ...labels: string[],
];

export interface Databases {
  readonly values: Database<Buffer, string>;
  readonly entries: Database<Row, string>;
  readonly recency: Database<string, number>;
  readonly totals: Database<number, string>;
}

/** What is to become of a key. */
export interface Change<F> {
  readonly value: Uint8Array | undefined;
  readonly hash: BlockHash | undefined;
  readonly facts: F | undefined;
  /** What lay under the key before goes first, with its labels. */
  readonly isForgotten: boolean;
  /** Other processes are to hear that it is gone. */
  readonly isAnnounced: boolean;
  /** Labels, each once. */
  readonly add: readonly string[];
  readonly drop: readonly string[];
}

/** What whoever owns the table does in the transaction that changes it. */
export interface TableCompanion<F> {
  readonly kept: (key: string, facts: F) => void;
  readonly gone: (key: string) => void;
  /** The transaction is about to be committed. */
  readonly finish: () => void;
}

export interface Applied {
  /** Keys under which there was something. */
  readonly had: ReadonlySet<string>;
  /** Bytes of each entry that made room. */
  readonly evicted: readonly number[];
  /** False when more has to leave. */
  readonly isWithinLimit: boolean;
}

/** Of an entry beside its value: rows of three databases. Measured, rounded up. */
const ENTRY_BYTES = 512;
const PAGE_BYTES = 4096;
/** LMDB keeps longer values in pages of their own, each run with a header. */
const MAX_INLINE_BYTES = 2000;
const PAGE_HEADER_BYTES = 16;
/** Entries one transaction makes room of, if it does not add more itself, and how many are looked at together. Policy, not protocol. */
const MAX_EVICTIONS = 256;
const EVICTED_TOGETHER = 16;
/** Labels one entry can carry; the oldest gives way. Policy, not protocol. */
const MAX_LABELS = 64;

/** Bytes an entry takes of the limit. */
export function costOf(size: number): number {
  const pages = size > MAX_INLINE_BYTES ? Math.ceil((size + PAGE_HEADER_BYTES) / PAGE_BYTES) * PAGE_BYTES : size;
  return pages + ENTRY_BYTES;
}

export function openDatabases(root: RootDatabase): Databases {
  return {
    values: root.openDB('values', { encoding: 'binary', cache: false }),
    entries: root.openDB('entries', { encoding: 'msgpack', cache: false }),
    recency: root.openDB('recency', { encoding: 'string', cache: false }),
    totals: root.openDB('totals', { encoding: 'msgpack', cache: false }),
  };
}

/**
 * To be called inside a transaction in which the values have been put. It must not throw: that would undo nothing.
 *
 * @param touched keys that were used
 * @param limits bytes above which room is made, and how far
 * @param usedAt seconds since 1970
 */
export function applyChanges<F>(
  { values, entries, recency, totals }: Databases,
  batch: ReadonlyMap<string, Change<F>>,
  touched: ReadonlySet<string>,
  limits: { readonly high: number; readonly low: number },
  usedAt: number,
  companion: TableCompanion<F> | undefined,
): Applied {
  const had = new Set<string>();
  const evicted: number[] = [];
  const now = {
    tick: newestTick(recency),
    bytes: totals.get('bytes') ?? 0,
    version: totals.get('version') ?? 0,
  };
  const keep = (key: string, row: Row): void => {
    void entries.put(key, row);
    void recency.put(row[0], key);
    now.bytes += costOf(row[2]);
  };
  /** The row gives way to another one of the same key. */
  const replace = (row: Row): void => {
    void recency.remove(row[0]);
    now.bytes -= costOf(row[2]);
  };
  const remove = (key: string, row: Row): void => {
    replace(row);
    void entries.remove(key);
    void values.remove(key);
    companion?.gone(key);
  };
  const use = (key: string): void => {
    const row = entries.get(key);
    if (row === undefined || batch.get(key)?.value !== undefined) return;
    replace(row);
    keep(key, [(now.tick += 1), usedAt, ...(row.slice(2) as [number, DigestName, Uint8Array, ...string[]])]);
  };
  const change = (key: string, { value, hash, facts, isForgotten, isAnnounced, add, drop }: Change<F>): void => {
    const old = entries.get(key);
    if (old !== undefined) had.add(key);
    const labels = old === undefined || isForgotten ? add : withLabels(old.slice(5) as string[], add, drop);
    const isHere = value !== undefined || (old !== undefined && !isForgotten);
    if (old !== undefined && isAnnounced) now.version += 1;
    if (!isHere || labels.length === 0) {
      if (old !== undefined) remove(key, old);
      return;
    }
    if (old !== undefined) {
      replace(old);
      if (isForgotten) companion?.gone(key);
    }
    if (value !== undefined) {
      const { digest, value: sum } = hash ?? checksum(value);
      keep(key, [(now.tick += 1), usedAt, value.byteLength, digest, sum, ...labels]);
    } else if (old !== undefined) keep(key, [old[0], old[1], old[2], old[3], old[4], ...labels]);
    if (facts !== undefined) companion?.kept(key, facts);
  };
  for (const key of touched) use(key);
  for (const [key, each] of batch) change(key, each);
  const target = now.bytes > limits.high ? limits.low : Infinity;
  while (now.bytes > target && evicted.length < Math.max(MAX_EVICTIONS, 2 * batch.size)) {
    const oldest = [...recency.getRange({ limit: EVICTED_TOGETHER })];
    if (oldest.length === 0) break;
    for (const { key: at, value: key } of oldest) {
      if (now.bytes <= target) break;
      const row = entries.get(key);
      if (row?.[0] === at) {
        remove(key, row);
        evicted.push(row[2]);
      } else void recency.remove(at);
    }
  }
  companion?.finish();
  void totals.put('bytes', now.bytes);
  void totals.put('version', now.version);
  return { had, evicted, isWithinLimit: now.bytes <= target };
}

function withLabels(before: readonly string[], add: readonly string[], drop: readonly string[]): readonly string[] {
  return [...before.filter((label) => !drop.includes(label) && !add.includes(label)), ...add].slice(-MAX_LABELS);
}

function newestTick(recency: Databases['recency']): number {
  for (const tick of recency.getKeys({ reverse: true, limit: 1 })) return tick;
  return 0;
}

function checksum(value: Uint8Array): BlockHash {
  return { digest: 'sha256', value: nativeHashProvider.digest('sha256', value) };
}

/** Walks everything but the values themselves, whose hashes are checked when they are used. */
export function isTableSound(root: RootDatabase): boolean {
  const { values, entries, recency, totals } = openDatabases(root);
  let count = 0;
  let bytes = 0;
  for (const { key, value } of entries.getRange()) {
    count += 1;
    bytes += costOf(value[2]);
    if (recency.get(value[0]) !== key) return false;
  }
  for (const key of values.getKeys()) {
    count -= 1;
    if (!entries.doesExist(key)) return false;
  }
  return count === 0 && bytes === (totals.get('bytes') ?? 0);
}
