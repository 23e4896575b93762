import type { Clock } from '../../lib/clock.ts';

/**
 * What those who waited for a fetch should do when they find nothing they may share:
 * `alone` when the origin's answer is one that nobody can share, so that they do not queue up one behind the other;
 * `never` when that is going to stay so, because the origin knows nothing of us: nobody waits for this resource for a while;
 * `again` when it was only this client's request that made it so, or when the client left: one of them fetches, the rest wait once more.
 */
export type Landing = 'alone' | 'again' | 'never';

/** A fetch whose answer is not classified yet. Others for the same resource may wait for that, and for no longer. */
export interface Flight {
  /** Says that the head has come and whatever can be shared can now be found. The first call counts. */
  land(landing: Landing): void;
}

/** Milliseconds for which nobody waits for a resource that cannot be shared. Policy, not protocol. */
const LONELY_MS = 60_000;
/** Such resources remembered. */
const MAX_LONELY = 4096;

/** Fetches under way, one for each resource. Bounded by the exchanges under way. */
export class Flights {
  readonly #flights = new Map<string, Promise<Landing>>();
  /** Resources nobody waits for, and until when. */
  readonly #lonely = new Map<string, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** True for a resource whose answers cannot be shared: a second request for it must not wait for the head of a long poll, say. */
  isLonely(key: string): boolean {
    return this.#clock.now() < (this.#lonely.get(key) ?? 0);
  }

  /** Announces a fetch; undefined when there is one already. */
  start(key: string): Flight | undefined {
    if (this.#flights.has(key)) return undefined;
    let settle: ((landing: Landing) => void) | undefined;
    const landing = new Promise<Landing>((resolve) => {
      settle = resolve;
    });
    this.#flights.set(key, landing);
    return {
      land: (how) => {
        if (this.#flights.get(key) === landing) this.#flights.delete(key);
        if (how === 'never') this.#remember(key);
        settle?.(how);
      },
    };
  }

  /** Waits until the fetch of that resource has landed. `alone` when there is none, or when it takes longer than `waitMs`. */
  async wait(key: string, waitMs: number, signal: AbortSignal): Promise<Landing> {
    const flight = this.#flights.get(key);
    if (flight === undefined || signal.aborted) return 'alone';
    return new Promise((resolve) => {
      const leave = (): void => resolve('alone');
      const cancel = this.#clock.after(waitMs, leave);
      signal.addEventListener('abort', leave, { once: true });
      void flight
        .then((landing) => resolve(landing === 'never' ? 'alone' : landing))
        .finally(() => {
          cancel();
          signal.removeEventListener('abort', leave);
        });
    });
  }

  #remember(key: string): void {
    this.#lonely.delete(key);
    this.#lonely.set(key, this.#clock.now() + LONELY_MS);
    if (this.#lonely.size > MAX_LONELY) this.#lonely.delete(this.#lonely.keys().next().value as string);
  }
}

/** A signal that follows the client's until somebody takes the transfer over. */
export class Leash {
  readonly #controller = new AbortController();
  readonly #client: AbortSignal;
  readonly #follow = (): void => this.#controller.abort(this.#client.reason);

  constructor(client: AbortSignal) {
    this.#client = client;
    if (client.aborted) this.#follow();
    else client.addEventListener('abort', this.#follow, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on the client may leave without ending the transfer. */
  release(): AbortController {
    this.#client.removeEventListener('abort', this.#follow);
    return this.#controller;
  }
}
