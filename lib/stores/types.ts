/**
 * Contracts of the stores. A store may answer at once or with a promise: callers that must be fast look at what they got.
 * A store is a convenience: it may forget anything at any time, and it never makes a caller fail because it is full.
 */

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

/**
 * Blocks by {@link blockKey}, verified unless their segment says otherwise. Each block carries the labels of those who put it there; when its last label goes,
 * it goes too.
 */
export interface BlockStore {
  /** The block, which must not be written to; counts as a use. */
  get(key: string): MaybePromise<Uint8Array | undefined>;
  /** Whether the block is here; not a use. */
  has(key: string): MaybePromise<boolean>;
  /**
   * Keeps a block, or does not; evicts others as needed. The store may keep `block` itself, which must not change any more.
   *
   * @param label joins the labels of a block that is there already
   * @param segment makes the block known to {@link segment}; without it, it is for this store's owner alone
   */
  set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts): MaybePromise<void>;
  /** What can be given to peers of a segment, by segment ID; not a use. */
  segment(segmentId: string): MaybePromise<HeldSegment | undefined>;
  /** One more label for a block that is here; nothing where it is not. */
  label(key: string, label: string): MaybePromise<void>;
  delete(key: string): MaybePromise<void>;
  /** Takes a label off every block; those without any other are gone. */
  flush(label: string): MaybePromise<void>;
  /** Bytes held, bookkeeping included. */
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
