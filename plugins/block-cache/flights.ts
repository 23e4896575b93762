import type { Clock } from '../../lib/clock.ts';

/**
 * What those who waited for a fetch should do when they find nothing they may share:
 * `alone` when the origin's answer is one that nobody can share, so that they do not queue up one behind the other;
 * `again` when it was only this client's request that made it so, or when the client left: one of them fetches, the rest wait once more.
 */
export type Landing = 'alone' | 'again';

/** A fetch whose answer is not classified yet. Others for the same resource may wait for that, and for no longer. */
export interface Flight {
  /** Says that the head has come and whatever can be shared can now be found. The first call counts. */
  land(landing: Landing): void;
}

/** Fetches under way, one for each resource. Bounded by the exchanges under way. */
export class Flights {
  readonly #flights = new Map<string, Promise<Landing>>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
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
      void flight.then(resolve).finally(() => {
        cancel();
        signal.removeEventListener('abort', leave);
      });
    });
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
