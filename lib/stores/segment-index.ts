import type { Clock } from '../clock.ts';
import type { HeldSegment, SegmentFacts } from './types.ts';

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
  add(key: string, { secret, blockCount }: SegmentFacts): void {
    const [segmentId, blockIndex] = parse(key);
    const segment = this.#segments.get(segmentId);
    if (segment === undefined) {
      // The secret is a view on content information that need not stay in memory.
      const entry = { secret: Uint8Array.from(secret), blockCount, blocks: [blockIndex], since: this.#clock.now() };
      this.#segments.set(segmentId, entry);
      return;
    }
    const at = placeOf(segment.blocks, blockIndex);
    if (segment.blocks[at] !== blockIndex) segment.blocks.splice(at, 0, blockIndex);
  }

  remove(key: string): void {
    const [segmentId, blockIndex] = parse(key);
    const blocks = this.#segments.get(segmentId)?.blocks;
    if (blocks === undefined) return;
    const at = placeOf(blocks, blockIndex);
    if (blocks[at] === blockIndex) blocks.splice(at, 1);
    if (blocks.length === 0) this.#segments.delete(segmentId);
  }
}

function parse(key: string): [segmentId: string, blockIndex: number] {
  const colon = key.lastIndexOf(':');
  return [key.slice(0, colon), Number(key.slice(colon + 1))];
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
