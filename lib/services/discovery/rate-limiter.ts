import type { Clock } from '../../clock.ts';

/** Keys remembered; the one not seen for the longest time is forgotten. Policy, not protocol. */
const MAX_KEYS = 1024;

/** So many a second for each key, with a burst of as many saved up. */
export class RateLimiter {
  readonly #perSecond: number;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, { tokens: number; at: number }>();

  constructor(perSecond: number, clock: Clock) {
    this.#perSecond = perSecond;
    this.#clock = clock;
  }

  /** True, and counted, while the key keeps to its rate. */
  allows(key: string, cost = 1): boolean {
    const now = this.#clock.now();
    const bucket = this.#buckets.get(key) ?? { tokens: this.#perSecond, at: now };
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > MAX_KEYS) this.#buckets.delete(this.#buckets.keys().next().value as string);
    bucket.tokens = Math.min(this.#perSecond, bucket.tokens + (Math.max(0, now - bucket.at) * this.#perSecond) / 1_000);
    bucket.at = now;
    if (bucket.tokens < cost) return false;
    bucket.tokens -= cost;
    return true;
  }
}
