/**
 * The one range type of the package: half-open runs of bytes counted from the start of the whole content.
 * Inclusive ranges exist in HTTP header fields only (`http/range-header.ts`).
 */
import { PeerDistError } from '../errors.ts';

/** Half-open run `[offset, offset + length)`, bytes, safe integers. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** First byte after the range. */
export function rangeEnd(range: ByteRange): number {
  return range.offset + range.length;
}

/** True for two safe, non-negative integers whose sum is safe too. */
export function isByteRange(value: ByteRange): boolean {
  const { offset, length } = value;
  return (
    Number.isSafeInteger(offset) &&
    offset >= 0 &&
    Number.isSafeInteger(length) &&
    length >= 0 &&
    Number.isSafeInteger(offset + length)
  );
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` unless {@link isByteRange} */
export function assertByteRange(value: ByteRange): void {
  if (!isByteRange(value)) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a byte range needs two non-negative safe integers', {
      actual: value,
    });
  }
}

/** For callers without a compiler. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` for anything but bytes */
export function assertBytes(value: unknown): asserts value is Uint8Array {
  if (!(value instanceof Uint8Array)) throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'bytes are wanted');
}

/** The overlap of two ranges; length 0 where they do not meet. */
export function intersect(a: ByteRange, b: ByteRange): ByteRange {
  const offset = Math.max(a.offset, b.offset);
  return { offset, length: Math.max(0, Math.min(rangeEnd(a), rangeEnd(b)) - offset) };
}

/** True when `inner` lies wholly inside `outer`. */
export function covers(outer: ByteRange, inner: ByteRange): boolean {
  return inner.offset >= outer.offset && rangeEnd(inner) <= rangeEnd(outer);
}

/** The bytes of `part` out of those of `whole`, as far as they overlap; a view. */
export function clip(whole: ByteRange, bytes: Uint8Array, part: ByteRange): Uint8Array {
  const overlap = intersect(whole, part);
  // Another view of everything is still another object.
  return overlap.length === whole.length
    ? bytes
    : bytes.subarray(overlap.offset - whole.offset, rangeEnd(overlap) - whole.offset);
}
