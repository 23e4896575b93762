/** Believed of an origin nobody has read from yet, milliseconds. Policy, not protocol. */
const FIRST_GUESS_MS = 200;
/** Weight of the newest transfer. Policy, not protocol. */
const WEIGHT = 0.25;

/** How long it takes from asking the origin for a block until it is here, over the transfers so far. */
export class OriginPace {
  #blockMs = FIRST_GUESS_MS;

  get blockMs(): number {
    return this.#blockMs;
  }

  /** A transfer has brought its first block. */
  note(ms: number): void {
    this.#blockMs += WEIGHT * (ms - this.#blockMs);
  }
}
