import type { Clock } from '../clock.ts';
import { type HeldSegment, parseBlockKey, type SegmentFacts } from './types.ts';

interface Entry extends HeldSegment {
  readonly blocks: number[];
}

/** Which blocks of which segments a store in memory holds. */
export class SegmentIndex {
  readonly #segments = new Map<string, Entry>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(segmentId: string): HeldSegment | undefined {
    return this.#segments.get(segmentId);
  }

  /** @param key a `blockKey` */
  add(key: string, { secret, blockCount, from }: SegmentFacts): void {
    const { segmentId, blockIndex } = parseBlockKey(key);
    const segment = this.#segments.get(segmentId);
    if (segment === undefined) {
      // The secret is a view on content information that need not stay in memory.
      const own = secret && Uint8Array.from(secret);
      this.#segments.set(segmentId, { secret: own, blockCount, from, blocks: [blockIndex], since: this.#clock.now() });
      return;
    }
    const at = placeOf(segment.blocks, blockIndex);
    if (segment.blocks[at] !== blockIndex) segment.blocks.splice(at, 0, blockIndex);
  }

  remove(key: string): void {
    const { segmentId, blockIndex } = parseBlockKey(key);
    const blocks = this.#segments.get(segmentId)?.blocks;
    if (blocks === undefined) return;
    const at = placeOf(blocks, blockIndex);
    if (blocks[at] === blockIndex) blocks.splice(at, 1);
    if (blocks.length === 0) this.#segments.delete(segmentId);
  }
}

/** Where in an ascending list an index is, or would be. */
export function placeOf(blocks: readonly number[], blockIndex: number): number {
  let low = 0;
  let high = blocks.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((blocks[middle] as number) < blockIndex) low = middle + 1;
    else high = middle;
  }
  return low;
}
