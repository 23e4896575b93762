/** Sizes for which the saving is known: from 1 MiB to 16 TiB, each a quarter of a power of two above the one before. */
const FIRST_POWER = 20;
const LAST_POWER = 44;
const SIZES_PER_POWER = 4;
const SIZES = (LAST_POWER - FIRST_POWER) * SIZES_PER_POWER + 1;

export interface CurvePoint {
  /** Size of the cache. */
  readonly sizeBytes: number;
  /** What a cache of that size would have saved. */
  readonly savedBytes: number;
}

/** Saved bytes over the size of the cache. */
export class Curve {
  /** Bytes saved by caches of each size and not by the next smaller one; made with the first hit, since most of many sites may be small. */
  #saved: Float64Array | undefined;
  #cost = 0;

  /**
   * A use that every cache of at least a certain size answers.
   *
   * @param distance that size, bytes
   * @param bytes that it saves
   */
  hit(distance: number, bytes: number): void {
    this.#saved ??= new Float64Array(SIZES);
    const at = Math.max(0, Math.ceil((Math.log2(distance) - FIRST_POWER) * SIZES_PER_POWER));
    if (at < SIZES) this.#saved[at] = (this.#saved[at] as number) + bytes;
  }

  /** Bytes that are spent whatever the size. */
  spend(bytes: number): void {
    this.#cost += bytes;
  }

  add(other: Curve): void {
    this.#cost += other.#cost;
    if (other.#saved === undefined) return;
    this.#saved ??= new Float64Array(SIZES);
    for (let at = 0; at < SIZES; at += 1) this.#saved[at] = (this.#saved[at] as number) + (other.#saved[at] as number);
  }

  /** From the smallest size to the first one that saves all there is to save. */
  get points(): readonly CurvePoint[] {
    const saved = this.#saved ?? new Float64Array(1);
    const last = saved.findLastIndex((bytes) => bytes > 0);
    let sum = -this.#cost;
    return Array.from(saved.subarray(0, last + 1), (bytes, at) => {
      sum += bytes;
      return { sizeBytes: sizeAt(at), savedBytes: sum };
    });
  }

  /** The smallest size that saves this share of what the largest does; undefined where nothing can be saved. */
  sizeFor(share: number): number | undefined {
    const { points } = this;
    const possible = points.at(-1)?.savedBytes ?? 0;
    if (possible <= 0) return undefined;
    return points.find(({ savedBytes }) => savedBytes >= share * possible)?.sizeBytes;
  }
}

/** Whole bytes; the same for the same place in every curve. */
function sizeAt(at: number): number {
  return Math.round(2 ** (FIRST_POWER + at / SIZES_PER_POWER));
}
