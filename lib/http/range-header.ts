/**
 * Range, Content-Range and If-Range arithmetic (RFC 9110 14): the only place where inclusive ranges exist.
 */
import { type ByteRange, rangeEnd } from '../bytes/index.ts';

/**
 * `undefined` fields stand for an open end (`500-`) or a suffix (`-500`: first undefined). What is too large to be counted is the largest number that
 * can be: it lies behind the end of every content.
 */
export interface RangeSpec {
  readonly first: number | undefined;
  readonly last: number | undefined;
}

/** Ranges in one request past which the field is ignored, as nginx does. Policy, not protocol. */
export const MAX_RANGES = 100;

/**
 * Parses a Range field.
 *
 * @returns undefined for another unit, a syntax error or more than `maxRanges` ranges: the field is then ignored (RFC 9110 14.2)
 */
export function parseRange(value: string | undefined, maxRanges = MAX_RANGES): readonly RangeSpec[] | undefined {
  const single = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(value ?? '');
  if (single !== null && Number(single[1]) <= Number(single[2]))
    return [{ first: Number(single[1]), last: Number(single[2]) }];
  const match = /^bytes=(.*)$/i.exec(value?.trim() ?? '');
  if (match === null) return undefined;
  const specs: RangeSpec[] = [];
  // RFC 9110 5.6.1: empty list members are legal and mean nothing.
  for (const part of (match[1] as string)
    .split(',')
    .map((text) => text.trim())
    .filter((text) => text !== '')) {
    const [, from, to] = /^(\d*)-(\d*)$/.exec(part) ?? [];
    if (from === undefined || to === undefined || specs.length === maxRanges) return undefined;
    if ((from === '' && to === '') || (from !== '' && to !== '' && isLess(to, from))) return undefined;
    specs.push({ first: position(from), last: position(to) });
  }
  return specs.length === 0 ? undefined : specs;
}

function position(digits: string): number | undefined {
  return digits === '' ? undefined : Math.min(Number(digits), Number.MAX_SAFE_INTEGER);
}

/** Compares numbers of any length. */
function isLess(a: string, b: string): boolean {
  const [left, right] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')];
  return left.length === right.length ? left < right : left.length < right.length;
}

/**
 * Turns parsed ranges into byte ranges of a content of `length` bytes. Unsatisfiable ones are left out; overlapping ones are
 * merged, so that a request cannot ask for the same bytes a hundred times.
 *
 * @returns an empty array when none can be satisfied (416)
 */
export function resolveRanges(specs: readonly RangeSpec[], length: number): readonly ByteRange[] {
  const [only] = specs;
  if (only !== undefined && specs.length === 1) {
    const range = resolveRange(only, length);
    return range.length > 0 ? [range] : [];
  }
  const ranges = specs.map((spec) => resolveRange(spec, length)).filter((range) => range.length > 0);
  const sorted = ranges.toSorted((a, b) => a.offset - b.offset);
  const overlap = sorted.some((range, index) => index > 0 && range.offset < rangeEnd(sorted[index - 1] as ByteRange));
  return overlap ? merge(sorted) : ranges;
}

function resolveRange({ first, last }: RangeSpec, length: number): ByteRange {
  if (first === undefined) {
    const suffix = Math.min(last as number, length);
    return { offset: length - suffix, length: suffix };
  }
  return { offset: first, length: Math.max(0, Math.min(last ?? length - 1, length - 1) - first + 1) };
}

function merge(sorted: readonly ByteRange[]): ByteRange[] {
  const merged: ByteRange[] = [];
  for (const range of sorted) {
    const previous = merged.at(-1);
    if (previous !== undefined && range.offset <= rangeEnd(previous)) {
      merged[merged.length - 1] = {
        offset: previous.offset,
        length: Math.max(rangeEnd(previous), rangeEnd(range)) - previous.offset,
      };
    } else merged.push(range);
  }
  return merged;
}

/** A range as a request writes it, `bytes=0-499`. */
export function formatRange(range: ByteRange): string {
  return `bytes=${range.offset}-${rangeEnd(range) - 1}`;
}

/** A range as a request writes it, open ends and suffixes included. */
export function formatSpec({ first, last }: RangeSpec): string {
  return `bytes=${first ?? ''}-${last ?? ''}`;
}

/** A range as an answer writes it, `bytes 0-499/1234`; without a range, the form of a 416: `bytes *\/1234`. */
export function formatContentRange(range: ByteRange | undefined, length: number): string {
  return range === undefined ? `bytes */${length}` : `bytes ${range.offset}-${rangeEnd(range) - 1}/${length}`;
}

/** Parses a Content-Range field of a 206. `total` is undefined where the sender wrote `*`. Undefined when malformed. */
export function parseContentRange(
  value: string | undefined,
): { range: ByteRange; total: number | undefined } | undefined {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(value?.trim() ?? '');
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2]);
  const total = match[3] === '*' ? undefined : Number(match[3]);
  if (last < first || (total !== undefined && last >= total)) return undefined;
  return { range: { offset: first, length: last - first + 1 }, total };
}
