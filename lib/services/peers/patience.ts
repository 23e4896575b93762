/** Least time the neighbours get for a block, milliseconds. Policy, not protocol. */
const MIN_DEADLINE_MS = 400;
/** Most time, whatever a slow reader could wait. Policy, not protocol. */
const MAX_DEADLINE_MS = 5_000;
/** A block is never overdue before, milliseconds. Policy, not protocol. */
const MIN_OVERDUE_MS = 75;
/** Believed of neighbours nobody has read from yet, milliseconds: connections have to be made first. Policy, not protocol. */
const FIRST_GUESS_MS = 100;

/**
 * How long to wait for the neighbours. Blocks from a slow LAN or out of a long queue take long and are still better than the WAN, so everything
 * is measured against what blocks have taken lately, from being wanted to being here: mean and deviation, as TCP does it (RFC 6298).
 */
export class Patience {
  #meanMs = FIRST_GUESS_MS;
  #deviationMs = FIRST_GUESS_MS / 2;

  /** A block came after that time. */
  note(ms: number): void {
    const error = ms - this.#meanMs;
    this.#deviationMs += (Math.abs(error) - this.#deviationMs) / 4;
    this.#meanMs += error / 8;
  }

  /** Milliseconds after which a second peer is asked for the same block. */
  get overdueMs(): number {
    return Math.max(MIN_OVERDUE_MS, this.#meanMs + 4 * this.#deviationMs);
  }

  /**
   * Milliseconds after which the origin is asked: so early that its block still comes before the reader has to wait, but not before a second
   * peer has had its chance.
   *
   * @param neededInMs until the reader gets to the block
   * @param originMs what the origin takes for a block
   * @param queueMs until it has its turn; a reader that has just begun wants many blocks at once, of peers that have to be found first
   */
  deadlineMs(neededInMs: number, originMs: number, queueMs: number): number {
    const least = Math.max(MIN_DEADLINE_MS, 2 * this.overdueMs) + queueMs;
    return Math.min(MAX_DEADLINE_MS, Math.max(least, neededInMs - originMs));
  }
}
