import type { Clock } from '../../lib/clock.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';

/** Resources with a query that one origin may add in a window, before each has to be asked for twice. Policy, not protocol. */
const MAX_NEW_QUERIES = 1_000;
const WINDOW_MS = 10 * 60_000;
/** Origins counted; the one that has been quiet for longest is forgotten. */
const MAX_ORIGINS = 1_024;
/** Targets remembered for one origin that is over its limit. */
const MAX_ASKED = 4_096;

interface Count {
  readonly since: number;
  added: number;
  /** Targets that were asked for once while the origin was over its limit. */
  readonly asked: Set<string>;
}

/**
 * Keeps a flood of queries that differ each time (`?1`, `?2`, …) from washing everybody's content out of the store: past its limit an origin's
 * resources are kept only when somebody asks for them again.
 */
export class QueryGuard {
  readonly #clock: Clock;
  readonly #origins = new Map<string, Count>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether the answer may be kept. Call once for each answer that is new. */
  admits({ scheme, authority, target }: ProxyRequest): boolean {
    if (!target.includes('?')) return true;
    const count = this.#countOf(`${scheme}://${authority}`);
    if (count.added < MAX_NEW_QUERIES) {
      count.added += 1;
      return true;
    }
    if (count.asked.delete(target)) return true;
    count.asked.add(target);
    if (count.asked.size > MAX_ASKED) count.asked.delete(count.asked.values().next().value as string);
    return false;
  }

  #countOf(origin: string): Count {
    const now = this.#clock.now();
    const known = this.#origins.get(origin);
    this.#origins.delete(origin);
    const count =
      known !== undefined && now - known.since < WINDOW_MS ? known : { since: now, added: 0, asked: new Set<string>() };
    this.#origins.set(origin, count);
    if (this.#origins.size > MAX_ORIGINS) this.#origins.delete(this.#origins.keys().next().value as string);
    return count;
  }
}
