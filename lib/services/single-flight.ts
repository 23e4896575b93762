import { PeerDistAbortError } from '../errors.ts';

interface Flight<T> {
  readonly promise: Promise<T>;
  readonly controller: AbortController;
  waiters: number;
}

/**
 * One run at a time for a key, however many ask. Each asker can leave by its own signal; the run is aborted when the last one leaves.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** True when a call for `key` would join a run. */
  has(key: string): boolean {
    return this.#flights.has(key);
  }

  /**
   * @param run started only when nobody runs for `key`; gets a signal that fires when nobody waits any more
   * @throws {@link PeerDistAbortError} when `signal` fires first; else whatever `run` throws
   */
  do(key: string, signal: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (signal.aborted) return Promise.reject(new PeerDistAbortError('signal', signal.reason));
    const flight = this.#flights.get(key) ?? this.#start(key, run);
    flight.waiters += 1;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        flight.waiters -= 1;
        reject(new PeerDistAbortError('signal', signal.reason));
        if (flight.waiters > 0 || this.#flights.get(key) !== flight) return;
        // Nobody may join a run that is being aborted.
        this.#flights.delete(key);
        flight.controller.abort();
      };
      const stay = (): void => signal.removeEventListener('abort', leave);
      signal.addEventListener('abort', leave, { once: true });
      flight.promise.then(
        (value) => {
          stay();
          resolve(value);
        },
        (error: unknown) => {
          stay();
          reject(error);
        },
      );
    });
  }

  #start(key: string, run: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const controller = new AbortController();
    const promise = new Promise<T>((resolve) => {
      resolve(run(controller.signal));
    }).finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    // Every waiter gets the failure, and one that left must not make it unhandled; what the run has begun ends with it.
    promise.catch((error: unknown) => controller.abort(error));
    const flight: Flight<T> = { promise, controller, waiters: 0 };
    this.#flights.set(key, flight);
    return flight;
  }
}
