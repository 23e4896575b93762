import type { Clock } from '../../clock.ts';

/** Milliseconds it is remembered. Policy, not protocol. */
const MEMORY_MS = 3_600_000;
const MOMENT_MS = 2_000;
/** Entries; the oldest is forgotten. About 25 MB. Policy, not protocol. */
const MAX_ENTRIES = 131_072;

/** Who has been given which unverified segment in the last hour: whoever offers it after that found something wrong with it. */
export class FetchLog {
  readonly #clock: Clock;
  readonly #fetches = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @returns false when the same was noted a moment ago */
  note(segmentId: string, address: string): boolean {
    const key = `${segmentId} ${address}`;
    const now = this.#clock.now();
    const isNews = now - (this.#fetches.get(key) ?? -Infinity) > MOMENT_MS;
    this.#fetches.delete(key);
    this.#fetches.set(key, now);
    if (this.#fetches.size > MAX_ENTRIES) this.#fetches.delete(this.#fetches.keys().next().value as string);
    return isNews;
  }

  has(segmentId: string, address: string): boolean {
    const at = this.#fetches.get(`${segmentId} ${address}`);
    return at !== undefined && this.#clock.now() - at <= MEMORY_MS;
  }

  /** The copy it was given is no longer the one that is served. */
  forget(segmentId: string, address: string): void {
    this.#fetches.delete(`${segmentId} ${address}`);
  }
}
