import type { ByteRange } from '../bytes/index.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Observer } from '../observer.ts';
import { type Database, type EnvironmentOptions, openOn } from './lmdb-environment.ts';
import type { TableCompanion } from './lmdb-rows.ts';
import { LmdbTable, type TableEntry } from './lmdb-table.ts';
import {
  type BlockCheck,
  type BlockHash,
  type DurableBlockStore,
  type HeldSegment,
  type MaybePromise,
  parseBlockKey,
  type SegmentFacts,
} from './types.ts';

/** A segment as it is kept: which blocks are here, a bit each, then what never changes. */
type SegmentRow = [
  blocks: Uint8Array,
  since: number,
  blockCount: number,
  secret: Uint8Array | null,
  from: string | null,
];

export interface LmdbBlockStoreOptions extends EnvironmentOptions {
  readonly maxBytes: number;
  /** Milliseconds that blocks may wait for more, so that one transaction writes many. @default 0 */
  readonly commitDelayMs?: number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** Blocks a segment may have: version 1 has 512 of them (MS-PCCRC 2.3); a bit each is kept. Policy, not protocol. */
const MAX_BLOCK_INDEX = 65_535;

/** Blocks on disk; several processes may have the same directory open. */
export class LmdbBlockStore implements DurableBlockStore {
  readonly #table: LmdbTable<SegmentFacts>;
  readonly #segments: Database<SegmentRow, string>;

  /** @throws {@link PeerDistError} as {@link openEnvironment} */
  static async open(options: LmdbBlockStoreOptions): Promise<LmdbBlockStore> {
    return openOn(options, (environment) => {
      const segments = environment.root.openDB<SegmentRow, string>('segments', { encoding: 'msgpack', cache: false });
      const companion = new Segments(segments, options.clock ?? systemClock);
      return new LmdbBlockStore(new LmdbTable({ ...options, environment, store: 'block', companion }), segments);
    });
  }

  private constructor(table: LmdbTable<SegmentFacts>, segments: Database<SegmentRow, string>) {
    this.#table = table;
    this.#segments = segments;
  }

  get bytes(): number {
    return this.#table.bytes;
  }

  /** Blocks held. */
  get count(): number {
    return this.#table.count;
  }

  /** Changes when blocks are flushed or purged, by whatever process. */
  get version(): number {
    return this.#table.version;
  }

  get(key: string, check?: BlockCheck): MaybePromise<Uint8Array | undefined> {
    return this.#table.get(key, check);
  }

  peek(key: string, length: number, part: ByteRange): Uint8Array | undefined {
    return this.#table.peek(key, length, part);
  }

  has(key: string): boolean {
    return this.#table.has(key);
  }

  set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts, hash?: BlockHash): Promise<void> {
    const { blockIndex } = parseBlockKey(key);
    // Not every key of an owner's own is a block's.
    const facts = segment !== undefined && blockIndex <= MAX_BLOCK_INDEX ? segment : undefined;
    return this.#table.set(key, block, label, hash, facts);
  }

  segment(segmentId: string): HeldSegment | undefined {
    if (this.#table.isClosed || segmentId === '' || segmentId.length > MAX_SEGMENT_ID_LENGTH) return undefined;
    let row: SegmentRow | undefined;
    try {
      row = this.#segments.get(segmentId);
    } catch {
      // A page that is not what it was; the walk of the next start finds it.
    }
    if (row === undefined) return undefined;
    const [bits, since, blockCount, secret, from] = row;
    return { blocks: indexesOf(bits), since, blockCount, secret: secret ?? undefined, from: from ?? undefined };
  }

  label(key: string, label: string): Promise<void> {
    return this.#table.label(key, label);
  }

  async delete(key: string): Promise<void> {
    await this.#table.delete(key);
  }

  /** Deletes a block for every process that uses this store, wherever it is remembered. @returns whether it was here */
  purge(key: string): Promise<boolean> {
    return this.#table.delete(key, true);
  }

  flush(label: string): Promise<void> {
    return this.#table.flush(label);
  }

  room(): Promise<void> | undefined {
    return this.#table.room();
  }

  touch(key: string): void {
    this.#table.touch(key);
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  written(): Promise<void> {
    return this.#table.written();
  }

  /** Writes what waits. Never rejects. */
  close(): Promise<void> {
    return this.#table.close();
  }

  /** Every block, for administrators. */
  all(): AsyncGenerator<TableEntry> {
    return this.#table.all();
  }

  /** Seconds since 1970 of the use longest ago, and of the latest; undefined when nothing is here. */
  get uses(): readonly [oldest: number, newest: number] | undefined {
    return this.#table.uses;
  }

  /** Reads a block against its hash; no use of it. */
  verify(key: string): Promise<boolean> {
    return this.#table.verify(key);
  }
}

const MAX_SEGMENT_ID_LENGTH = 256;

/** Keeps the rows of segments in step with the blocks, inside each transaction. */
class Segments implements TableCompanion<SegmentFacts> {
  readonly #segments: Database<SegmentRow, string>;
  readonly #clock: Clock;
  /** Rows that this transaction has read or made. */
  readonly #rows = new Map<string, SegmentRow | undefined>();

  constructor(segments: Database<SegmentRow, string>, clock: Clock) {
    this.#segments = segments;
    this.#clock = clock;
  }

  readonly kept = (key: string, { blockCount, secret, from }: SegmentFacts): void => {
    const { segmentId, blockIndex } = parseBlockKey(key);
    const row: SegmentRow = this.#row(segmentId) ?? [
      new Uint8Array(0),
      this.#clock.now(),
      blockCount,
      secret ?? null,
      from ?? null,
    ];
    const at = blockIndex >>> 3;
    const bits = new Uint8Array(Math.max(row[0].byteLength, at + 1));
    bits.set(row[0]);
    bits[at] = (bits[at] as number) | (1 << (blockIndex & 7));
    row[0] = bits;
    this.#rows.set(segmentId, row);
  };

  readonly gone = (key: string): void => {
    const { segmentId, blockIndex } = parseBlockKey(key);
    const row = this.#row(segmentId);
    const at = blockIndex >>> 3;
    if (row === undefined || !(at < row[0].byteLength)) return;
    const bits = Uint8Array.from(row[0]);
    bits[at] = (bits[at] as number) & ~(1 << (blockIndex & 7));
    row[0] = bits;
    this.#rows.set(segmentId, bits.some((byte) => byte !== 0) ? row : undefined);
  };

  readonly finish = (): void => {
    for (const [segmentId, row] of this.#rows) {
      if (row === undefined) void this.#segments.remove(segmentId);
      else void this.#segments.put(segmentId, row);
    }
    this.#rows.clear();
  };

  #row(segmentId: string): SegmentRow | undefined {
    if (this.#rows.has(segmentId)) return this.#rows.get(segmentId);
    return segmentId === '' ? undefined : this.#segments.get(segmentId);
  }
}

function indexesOf(bits: Uint8Array): number[] {
  const indexes: number[] = [];
  for (const [at, byte] of bits.entries())
    for (let bit = 0; bit < 8; bit += 1) if ((byte & (1 << bit)) !== 0) indexes.push(8 * at + bit);
  return indexes;
}
