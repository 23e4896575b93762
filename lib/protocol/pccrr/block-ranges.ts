/** Lists of blocks as runs (MS-PCCRR 2.2.1.1): sorted, merged and without overlap when sent, in any form when received. */
import { MAX_SEGMENT_BLOCKS } from './constants.ts';

/** Consecutive blocks of a segment, or segments of a request. */
export interface BlockRange {
  readonly index: number;
  readonly count: number;
}

/** Runs of ascending indexes. */
export function rangesOf(indexes: Iterable<number>): BlockRange[] {
  const ranges: { index: number; count: number }[] = [];
  for (const index of indexes) {
    const last = ranges.at(-1);
    if (last !== undefined && last.index + last.count === index) last.count += 1;
    else ranges.push({ index, count: 1 });
  }
  return ranges;
}

/**
 * Which of the blocks a segment can have are named by ranges of any order, overlap and size; what lies past the 512th block is nobody's.
 *
 * @returns one flag for each block; work is linear in the ranges
 */
export function namedBlocks(ranges: readonly BlockRange[]): readonly boolean[] {
  // Where runs begin and end, summed up once: a request may name all blocks thousands of times.
  const changes = new Int32Array(MAX_SEGMENT_BLOCKS + 1);
  for (const { index, count } of ranges) {
    if (count === 0 || index >= MAX_SEGMENT_BLOCKS) continue;
    const end = Math.min(index + count, MAX_SEGMENT_BLOCKS);
    changes[index] = (changes[index] as number) + 1;
    changes[end] = (changes[end] as number) - 1;
  }
  let depth = 0;
  return Array.from({ length: MAX_SEGMENT_BLOCKS }, (_, index) => {
    depth += changes[index] as number;
    return depth > 0;
  });
}
