import type { ByteRange } from '../bytes/index.ts';
import type { BlockOrigin } from '../observer.ts';
import type { MaybePromise } from '../stores/index.ts';
import type { DescribedContent } from './described-content.ts';

/**
 * Brings bytes of the content from its origin. The iterable yields exactly `missing.length` bytes from `missing.offset` on, in chunks
 * cut anywhere; returning early from it ends the transfer.
 */
export type FetchMissing = (
  missing: ByteRange,
  /** Why the sources before did not deliver, and whether somebody still waits. */
  context: { readonly reason: 'missing' | 'timeout'; readonly signal: AbortSignal },
) => Promise<AsyncIterable<Uint8Array>>;

/** One block that somebody wants. */
export interface BlockRequest {
  readonly content: DescribedContent;
  readonly ordinal: number;
  /** Last unit the same reader is going to want: lets a source ask for many at once. */
  readonly lastOrdinal: number;
  /** Label for what is stored on the way. */
  readonly label: string;
  /** Milliseconds the sources before the origin get, all together. @default their own deadlines */
  readonly timeoutMs?: number | undefined;
  /** Milliseconds until the reader gets to this block at its present pace. @default 0 */
  readonly neededInMs?: number | undefined;
  /** False for content that must not be stored (no-store): nothing of it is kept or shared. */
  readonly persist: boolean;
  /** How to reach the origin on behalf of this reader; without it the origin is not asked. */
  readonly fetchMissing?: FetchMissing | undefined;
}

/** One place that blocks come from. Local store, peers, origin, and later hosted caches are small rooms behind this. */
export interface BlockSource {
  readonly name: BlockOrigin;
  /** True when what it returns was verified before; everything else is hashed by the broker. */
  readonly trusted: boolean;
  /** Milliseconds after which the next source is asked; may depend on the block and on what the origin takes for one. */
  readonly deadlineMs: number | ((request: BlockRequest, originMs: number) => number);
  /**
   * Brings the block, or undefined where it has none. It may throw: the broker moves on to the next source.
   * An answer at hand is returned as such, not as a promise.
   */
  retrieve(
    request: BlockRequest,
    options: {
      readonly signal: AbortSignal;
      /** True when a source before this one ran out of time. */
      readonly timedOut?: boolean | undefined;
    },
  ): MaybePromise<Uint8Array | undefined>;
}
