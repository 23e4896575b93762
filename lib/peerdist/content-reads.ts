/** The explicit reads: what is at hand or can be had in time, else the hole. Holes and the end are results, not errors. */
import { type ByteRange, clip, covers, intersect, rangeEnd } from '../bytes/index.ts';
import type { Clock } from '../clock.ts';
import { isPeerDistError, PeerDistError, PeerDistMissingDataError } from '../errors.ts';
import { type BlockBroker, type BlockSource, type DescribedContent, LOCAL_DEADLINE_MS } from '../services/index.ts';
import type { Abortable, Operation } from './operations.ts';

/** Read timeout when none is given. */
export const READ_TIMEOUT_DEFAULT_MS = 5_000;
/** Read timeout that means: own cache only, nothing is sent. */
export const READ_TIMEOUT_LOCAL_CACHE_ONLY = 0;

const DEFAULT_READ_BYTES = 64 * 1024;
/** Win32 keeps 0xFFFFFFFE and 0xFFFFFFFF for itself. */
const MAX_TIMEOUT_MS = 0xffff_fffd;
/** Blocks looked at on either side of a hole: a gigabyte in version 1. Policy, not protocol. */
const MAX_HOLE_BLOCKS = 16_384;

export interface ReadOptions extends Abortable {
  /** Upper bound, bytes, at least 1. Shorter results are normal. @default the length of `into`, else 65536 */
  readonly maxBytes?: number | undefined;
  /** Destination; `data` in the result is a view of it. Do not touch until settled. */
  readonly into?: Uint8Array | undefined;
  /** Milliseconds; 0 = own cache only, nothing is sent. @default 5000 */
  readonly timeoutMs?: number | undefined;
}

export type ReadResult =
  /** At least one byte, from `offset` bytes into the content on. Without `into`, a view that must not be written to. */
  | { readonly kind: 'data'; readonly offset: number; readonly data: Uint8Array }
  /**
   * Hole: get `missing` elsewhere. From `readAt` it is widened to block edges; from `read` it starts at the cursor and ends with the range.
   * 'timeout' = time ran out first (ERROR_TIMEOUT); 'missing' = nobody has it (MISSING_DATA).
   */
  | { readonly kind: 'missing'; readonly reason: 'missing' | 'timeout'; readonly missing: ByteRange }
  /** Outside the content or the described range (NO_MORE). */
  | { readonly kind: 'end'; readonly offset: number };

/** Checked {@link ReadOptions}. */
export interface ReadRequest {
  readonly maxBytes: number;
  readonly into: Uint8Array | undefined;
  readonly timeoutMs: number;
}

/** @throws {@link PeerDistError} `INVALID_PARAMETER` */
export function readRequest({ maxBytes, into, timeoutMs = READ_TIMEOUT_DEFAULT_MS }: ReadOptions): ReadRequest {
  const bytes = Math.min(maxBytes ?? into?.byteLength ?? DEFAULT_READ_BYTES, into?.byteLength ?? Infinity);
  if (!Number.isSafeInteger(bytes) || bytes < 1)
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'maxBytes is a whole number, at least 1', {
      actual: maxBytes,
    });
  assertTimeout(timeoutMs);
  return { maxBytes: bytes, into, timeoutMs };
}

/** @throws {@link PeerDistError} `INVALID_PARAMETER`: no forever, no fractions (G22) */
export function assertTimeout(timeoutMs: number): void {
  if (!Number.isSafeInteger(timeoutMs) || timeoutMs < 0 || timeoutMs > MAX_TIMEOUT_MS)
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a timeout is a whole number of milliseconds', {
      actual: timeoutMs,
    });
}

export interface ContentReadsComponents {
  readonly broker: BlockBroker;
  readonly sources: readonly BlockSource[];
  readonly clock: Clock;
  readonly label: string;
}

/**
 * Reads up to `maxBytes` at `offset`: as many bytes as follow each other in the own cache, else one block from a source.
 *
 * @param operation ends the read when it is cancelled; nothing is written to `into` from then on
 */
export async function readContent(
  content: DescribedContent,
  offset: number,
  { maxBytes, into, timeoutMs }: ReadRequest,
  { broker, sources, clock, label }: ContentReadsComponents,
  operation: Operation,
): Promise<ReadResult> {
  const { range } = content.information;
  if (offset < range.offset || offset >= rangeEnd(range)) return { kind: 'end', offset };
  const wanted = intersect(range, { offset, length: maxBytes });
  const started = clock.now();
  const pieces = await heldPieces(content, wanted, broker);
  // A store that takes too long over one block is not asked about thousands.
  const isStuck = clock.now() - started >= LOCAL_DEADLINE_MS;
  operation.assertWanted();
  if (pieces.length > 0) return { kind: 'data', offset, data: join(pieces, into) };
  const ordinal = content.information.ordinalAt(offset);
  let reason: 'missing' | 'timeout' = 'missing';
  if (timeoutMs > 0 && sources.length > 0 && !content.isPrivate) {
    const deadline = new AbortController();
    const cancel = clock.after(timeoutMs, () =>
      deadline.abort(new PeerDistError('ERR_PEERDIST_TIMEOUT', 'the read took too long')),
    );
    try {
      const request = { content, ordinal, lastOrdinal: ordinal, label, timeoutMs, persist: true };
      const { bytes } = await broker.retrieve(request, sources, AbortSignal.any([operation.signal, deadline.signal]));
      operation.assertWanted();
      return { kind: 'data', offset, data: join([clip(content.block(ordinal), bytes, wanted)], into) };
    } catch (error) {
      operation.assertWanted();
      if (deadline.signal.aborted || isPeerDistError(error, 'ERR_PEERDIST_TIMEOUT')) reason = 'timeout';
      else if (!(error instanceof PeerDistMissingDataError)) throw error;
    } finally {
      cancel();
    }
  }
  const missing = isStuck
    ? content.extent({ first: ordinal, last: ordinal })
    : await holeAround(content, ordinal, broker, clock);
  return { kind: 'missing', reason, missing };
}

/** Contiguous bytes of the own cache from `offset` to the end of the range (the zero-length query). */
export async function availableBytes(content: DescribedContent, offset: number, broker: BlockBroker): Promise<number> {
  const { range } = content.information;
  if (offset < range.offset || offset >= rangeEnd(range))
    throw new PeerDistError('ERR_PEERDIST_NO_MORE', 'the position is not described', { actual: offset });
  const last = content.information.ordinalAt(rangeEnd(range) - 1);
  let ordinal = content.information.ordinalAt(offset);
  while (ordinal <= last && (await broker.holds(content, ordinal))) ordinal += 1;
  const end = ordinal > last ? rangeEnd(range) : content.block(ordinal).offset;
  return Math.max(0, end - offset);
}

/** All bytes of a range, if the own cache has them and answers at once. */
export function peekContent(
  content: DescribedContent,
  range: ByteRange,
  broker: BlockBroker,
): Uint8Array[] | undefined {
  if (!covers(content.information.range, range)) return undefined;
  const pieces: Uint8Array[] = [];
  if (range.length === 0) return pieces;
  const { first, last } = content.ordinals(range);
  for (let ordinal = first; ordinal <= last; ordinal += 1) {
    const piece = broker.peek(content, content.block(ordinal), range);
    if (piece === undefined) return undefined;
    pieces.push(piece);
  }
  return pieces;
}

/** What of the range follows each other in the own cache from its start. */
async function heldPieces(content: DescribedContent, wanted: ByteRange, broker: BlockBroker): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  const { first, last } = content.ordinals(wanted);
  for (let ordinal = first; ordinal <= last; ordinal += 1) {
    const block = content.block(ordinal);
    const bytes = await broker.held(content, block);
    if (bytes === undefined) break;
    pieces.push(clip(block, bytes, wanted));
  }
  return pieces;
}

/**
 * The longest run of blocks that the own cache lacks, around one of them. Not clipped to the described range, as G14 has it: a block that the
 * range cuts can be verified whole only, so a clipped hole could be filled for ever and would stay one.
 */
async function holeAround(
  content: DescribedContent,
  ordinal: number,
  broker: BlockBroker,
  clock: Clock,
): Promise<ByteRange> {
  const bounds = content.ordinals(content.information.range);
  const lowest = Math.max(bounds.first, ordinal - MAX_HOLE_BLOCKS);
  const highest = Math.min(bounds.last, ordinal + MAX_HOLE_BLOCKS);
  let first = ordinal;
  let last = ordinal;
  const until = clock.now() + LOCAL_DEADLINE_MS;
  const isOver = (): boolean => clock.now() >= until;
  while (first > lowest && !isOver() && !(await broker.holds(content, first - 1))) first -= 1;
  while (last < highest && !isOver() && !(await broker.holds(content, last + 1))) last += 1;
  return content.extent({ first, last });
}

function join(pieces: readonly Uint8Array[], into: Uint8Array | undefined): Uint8Array {
  const [only] = pieces;
  if (into === undefined) return pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces);
  let at = 0;
  for (const piece of pieces) {
    into.set(piece, at);
    at += piece.byteLength;
  }
  return into.subarray(0, at);
}
