/** Least time the neighbours get for a block, milliseconds. Policy, not protocol. */
const MIN_DEADLINE_MS = 250;
/** Most time, whatever a slow reader could wait. Policy, not protocol. */
const MAX_DEADLINE_MS = 5_000;
/** A block is never overdue before, milliseconds. Policy, not protocol. */
const MIN_OVERDUE_MS = 75;
/** A block is overdue when it takes so many times as long as blocks have taken lately. Policy, not protocol. */
const OVERDUE_FACTOR = 3;
/** Weight of the newest block. Policy, not protocol. */
const WEIGHT = 0.1;

/**
 * How long to wait for the neighbours. Blocks from a slow LAN or out of a long queue take long and are still better than the WAN, so everything
 * is measured against what blocks have taken lately, from being wanted to being here.
 */
export class Patience {
  #typicalMs = 20;

  /** A block came after that time. */
  note(ms: number): void {
    this.#typicalMs += WEIGHT * (ms - this.#typicalMs);
  }

  /** Milliseconds after which a second peer is asked for the same block. */
  get overdueMs(): number {
    return Math.max(MIN_OVERDUE_MS, OVERDUE_FACTOR * this.#typicalMs);
  }

  /**
   * Milliseconds after which the origin is asked: so early that its block still comes before the reader has to wait, but not before a second
   * peer has had its chance.
   *
   * @param neededInMs until the reader gets to the block
   * @param originMs what the origin takes for a block
   */
  deadlineMs(neededInMs: number, originMs: number): number {
    const least = Math.max(MIN_DEADLINE_MS, 2 * this.overdueMs);
    return Math.min(MAX_DEADLINE_MS, Math.max(least, neededInMs - originMs));
  }
}
