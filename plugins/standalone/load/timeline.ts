import { type Clock, systemClock } from '../../../lib/clock.ts';

/** {@link systemClock} with fractions of a millisecond, never set back. */
export const fineClock: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  after: (ms, callback) => systemClock.after(ms, callback),
};

/** How long a run has been going on, for the origin, which has to know what version it is at, and for the clients. */
export class Timeline {
  readonly clock: Clock;
  #startedAt: number | undefined;

  constructor(clock: Clock = fineClock) {
    this.clock = clock;
  }

  start(): void {
    this.#startedAt = this.clock.now();
  }

  /** 0 before the start. */
  elapsedMs(): number {
    return this.#startedAt === undefined ? 0 : this.clock.now() - this.#startedAt;
  }
}
