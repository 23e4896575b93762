import type { Clock } from '../../lib/clock.ts';

/** A fetch whose answer is not classified yet. Others for the same resource may wait for that, and for no longer. */
export interface Flight {
  /** Says that the head has come and whatever can be shared can now be found. May be called more than once. */
  land(): void;
}

/** Fetches under way, one for each resource. Bounded by the exchanges under way. */
export class Flights {
  readonly #flights = new Map<string, Promise<void>>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Announces a fetch; undefined when there is one already. */
  start(key: string): Flight | undefined {
    if (this.#flights.has(key)) return undefined;
    let settle: (() => void) | undefined;
    const landing = new Promise<void>((resolve) => {
      settle = resolve;
    });
    this.#flights.set(key, landing);
    return {
      land: () => {
        if (this.#flights.get(key) === landing) this.#flights.delete(key);
        settle?.();
      },
    };
  }

  /** Waits until the fetch of that resource has landed, or for `waitMs`. False when there is none. */
  async wait(key: string, waitMs: number, signal: AbortSignal): Promise<boolean> {
    const flight = this.#flights.get(key);
    if (flight === undefined) return false;
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.after(waitMs, resolve);
      const leave = (): void => resolve();
      signal.addEventListener('abort', leave, { once: true });
      void flight.then(resolve).finally(() => {
        cancel();
        signal.removeEventListener('abort', leave);
      });
    });
    return true;
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
