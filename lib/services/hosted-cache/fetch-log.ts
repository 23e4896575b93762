import type { Clock } from '../../clock.ts';

/** Milliseconds it is remembered. Policy, not protocol. */
const MEMORY_MS = 3_600_000;
/** Entries; the oldest is forgotten. About 25 MB. Policy, not protocol. */
const MAX_ENTRIES = 131_072;

/** Who has been given which unverified segment in the last hour: whoever offers it after that found something wrong with it. */
export class FetchLog {
  readonly #clock: Clock;
  readonly #fetches = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(segmentId: string, address: string): void {
    const key = `${segmentId} ${address}`;
    this.#fetches.delete(key);
    this.#fetches.set(key, this.#clock.now());
    if (this.#fetches.size > MAX_ENTRIES) this.#fetches.delete(this.#fetches.keys().next().value as string);
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
