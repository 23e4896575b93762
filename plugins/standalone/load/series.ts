/** What happened when, in slices of time. However long a run, there are at most so many: they get longer. */
import { build, type Histogram } from 'hdr-histogram-js';

/** Slices past which each two become one. */
export const MAX_SLICES = 240;

export interface Slice {
  bytes: number;
  /** Requests whose time came. */
  requests: number;
  /** Those of them that failed. */
  errors: number;
  /** Last bytes of those requests, microseconds after their time. */
  readonly latency: Histogram;
}

export class Series {
  sliceMs = 1_000;
  readonly slices: Slice[] = [];

  /** The slice of a time after the start. */
  at(elapsedMs: number): Slice {
    while (elapsedMs >= this.sliceMs * MAX_SLICES) this.#merge();
    const index = Math.floor(Math.max(0, elapsedMs) / this.sliceMs);
    while (this.slices.length <= index) this.slices.push(emptySlice());
    return this.slices[index] as Slice;
  }

  #merge(): void {
    this.sliceMs *= 2;
    const old = this.slices.splice(0);
    for (let index = 0; index < old.length; index += 2) {
      const slice = old[index] as Slice;
      const next = old[index + 1];
      if (next !== undefined) {
        slice.bytes += next.bytes;
        slice.requests += next.requests;
        slice.errors += next.errors;
        slice.latency.add(next.latency);
      }
      this.slices.push(slice);
    }
  }
}

/** Two digits are enough for a line on a plot. */
function emptySlice(): Slice {
  return { bytes: 0, requests: 0, errors: 0, latency: latencyHistogram(2) };
}

/** Microseconds. */
export function latencyHistogram(digits: 2 | 3): Histogram {
  return build({ bitBucketSize: 32, autoResize: true, numberOfSignificantValueDigits: digits });
}
