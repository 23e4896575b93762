/**
 * Contracts of the stores. A store may answer at once or with a promise: callers that must be fast look at what they got.
 * A store is a convenience: it may forget anything at any time, and it never makes a caller fail because it is full.
 */

import type { ByteRange } from '../bytes/index.ts';
import type { DigestName } from '../crypto/index.ts';

export type MaybePromise<T> = T | Promise<T>;

/** Name of a block everywhere: the same bytes under the same secret have the same key, whatever content they belong to. */
export function blockKey(segmentId: string, blockIndex: number): string {
  return `${segmentId}:${blockIndex}`;
}

/** What a {@link blockKey} names. */
export function parseBlockKey(key: string): { readonly segmentId: string; readonly blockIndex: number } {
  const colon = key.lastIndexOf(':');
  return { segmentId: key.slice(0, colon), blockIndex: Number(key.slice(colon + 1)) };
}

/** What must be known of a block's segment before peers can be given it. */
export interface SegmentFacts {
  /** Kp, the key peers encrypt under; copied. Absent where it is not known: the blocks are kept encrypted, as they were received. */
  readonly secret?: Uint8Array | undefined;
  /** Blocks the segment has. */
  readonly blockCount: number;
  /** Address that the first block came from, where nobody could check it. */
  readonly from?: string | undefined;
}

/** What is held of a segment. */
export interface HeldSegment extends SegmentFacts {
  /** Indexes of the blocks held, ascending, at least one. A view that changes with the store. */
  readonly blocks: readonly number[];
  /** When its first block came, milliseconds since 1970. */
  readonly since: number;
}

/** What a block must hash to. */
export interface BlockHash {
  readonly digest: DigestName;
  /** The digest, or its first bytes. */
  readonly value: Uint8Array;
}

/** Whether bytes are the block that a caller has the hash of. */
export type BlockCheck = (block: Uint8Array) => boolean;

/**
 * Blocks by {@link blockKey}, verified unless their segment says otherwise. Each block carries the labels of those who put it there; when its last label goes,
 * it goes too.
 */
export interface BlockStore {
  /**
   * The block, which must not be written to; counts as a use.
   *
   * @param check asked when the block comes from where others could have written since it was verified; one that fails is gone
   */
  get(key: string, check?: BlockCheck): MaybePromise<Uint8Array | undefined>;
  /**
   * Part of a block, where that is quicker than the whole: if it is at hand, and was checked before. Counts as a use.
   *
   * @param length of the block; one of another length is none
   * @param part half-open, inside the block
   */
  peek?(key: string, length: number, part: ByteRange): Uint8Array | undefined;
  /** Whether the block is here; not a use. */
  has(key: string): MaybePromise<boolean>;
  /**
   * Keeps a block, or does not; evicts others as needed. The store may keep `block` itself, which must not change any more.
   *
   * @param label joins the labels of a block that is there already
   * @param segment makes the block known to {@link segment}; without it, it is for this store's owner alone
   * @param hash of the block, for stores that outlive the process. @default they make a checksum of their own
   */
  set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts, hash?: BlockHash): MaybePromise<void>;
  /** What can be given to peers of a segment, by segment ID; not a use. */
  segment(segmentId: string): MaybePromise<HeldSegment | undefined>;
  /** One more label for a block that is here; nothing where it is not. */
  label(key: string, label: string): MaybePromise<void>;
  delete(key: string): MaybePromise<void>;
  /** Resolves when a block that is being kept can be read by other processes that use the store; undefined: now. Never rejects. */
  committed?(key: string): Promise<void> | undefined;
  /** Takes a label off every block; those without any other are gone. */
  flush(label: string): MaybePromise<void>;
  /** Bytes held, bookkeeping included. */
  readonly bytes: number;
}

/** A store that outlives the process, to have a store in memory before it ({@link TieredBlockStore}). */
export interface DurableBlockStore extends BlockStore {
  set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts, hash?: BlockHash): Promise<void>;
  /** Counts as a use: the block was read from the memory before this store. */
  touch(key: string): void;
  /** Resolves when a block more can be taken without one being turned away; undefined: now. */
  room(): Promise<void> | undefined;
  /** Changes when blocks have gone that must not be used any more, by whatever process; undefined where nobody can tell. */
  readonly version?: number | undefined;
  /** Writes what waits to be written. Never rejects. */
  close(): Promise<void>;
}

/**
 * Small values by name that outlive the process: what a proxy has learned of resources, content information. Names and values are
 * nobody else's business: implementations never log or list them.
 */
export interface RecordStore {
  /** The value, which must not be written to; counts as a use. */
  get(name: string): MaybePromise<Uint8Array | undefined>;
  set(name: string, value: Uint8Array): MaybePromise<void>;
  /** @returns whether there was one */
  delete(name: string): MaybePromise<boolean>;
  /** Counts as a use: the record was read from a memory before this store. */
  touch?(name: string): void;
  /** Changes when a record was deleted, by whatever process; undefined where nobody can tell. */
  readonly version?: number | undefined;
  readonly bytes: number;
}

/** Content information of one publication, encoded, whole. */
export interface ContentInformationRecord {
  /** Bytes of the content. */
  readonly contentLength: number;
  /** Encoded structures by version. */
  readonly encoded: Readonly<Partial<Record<1 | 2, Uint8Array>>>;
}

/** Content information by publication key. It is a capability: implementations never log or list it. */
export interface ContentInformationStore {
  get(key: string): MaybePromise<ContentInformationRecord | undefined>;
  set(key: string, record: ContentInformationRecord): MaybePromise<void>;
  delete(key: string): MaybePromise<boolean>;
  readonly bytes: number;
}
