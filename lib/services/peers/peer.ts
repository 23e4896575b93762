import type { Clock } from '../../clock.ts';
import type { PeerAddress } from '../../protocol/pccrd/index.ts';
import type { PeerFailure } from './exchange.ts';

/** Questions a peer nobody knows yet gets at once; more as it answers. Policy, not protocol. */
const FIRST_WINDOW = 4;
/** A peer is not given more than it can answer in half the request timer (2 s). Policy, not protocol. */
const MAX_QUEUE_MS = 1_000;
/** Weight of the newest answer in the measured speed. Policy, not protocol. */
const WEIGHT = 0.2;
/** Failures in a row before a peer is left alone. Policy, not protocol. */
const MAX_STRIKES = 3;
/** Milliseconds a peer that failed is left alone, doubled each time. Policy, not protocol. */
const FAILED_BAN_MS = 10_000;
/** Milliseconds a peer that lied is left alone, doubled each time. Policy, not protocol. */
const LIED_BAN_MS = 60_000;
const MAX_BAN_MS = 600_000;

export type PeerState = 'answers' | 'new' | 'doubtful' | 'avoided';

/** One neighbour: how fast it is, how far it is trusted, how much it may be asked at a time. */
export class Peer {
  readonly address: PeerAddress;
  inFlight = 0;
  /** Of them, those that should have been answered by now. */
  overdue = 0;
  readonly #clock: Clock;
  #serviceMs: number | undefined;
  #window = FIRST_WINDOW;
  #strikes = 0;
  #bans = 0;
  #bannedUntil = 0;
  #failedAt = -Infinity;

  constructor(address: PeerAddress, clock: Clock) {
    this.address = address;
    this.#clock = clock;
  }

  get isBanned(): boolean {
    return this.#bannedUntil > this.#clock.now();
  }

  /** True while nobody knows how quick it is. */
  get isStranger(): boolean {
    return this.#serviceMs === undefined;
  }

  /** True while it has not answered since it failed: it is asked now and then, but nobody waits for it. */
  get isDoubtful(): boolean {
    return this.#strikes > 0;
  }

  /** How it stands with us: `avoided` is left alone for a while, `doubtful` has failed since it last answered. */
  get state(): PeerState {
    if (this.isBanned) return 'avoided';
    if (this.isDoubtful) return 'doubtful';
    return this.isStranger ? 'new' : 'answers';
  }

  /** Milliseconds of its time one block takes, many at once counted; undefined before the first. */
  get serviceMs(): number | undefined {
    return this.#serviceMs;
  }

  /** True when it may be asked for one more thing. */
  get isFree(): boolean {
    return (
      this.overdue === 0 &&
      this.inFlight < this.#window &&
      !this.isBanned &&
      (this.inFlight === 0 || this.expectedMs <= MAX_QUEUE_MS)
    );
  }

  /** Milliseconds the next block would take; a stranger's by its questions alone. */
  get expectedMs(): number {
    return (this.inFlight + 1) * (this.#serviceMs ?? 1);
  }

  /**
   * @param ms what the answer took
   * @param concurrency questions it shared the peer with, itself included
   */
  answered(ms: number, concurrency: number, maxWindow: number): void {
    const serviceMs = ms / concurrency;
    this.#serviceMs =
      this.#serviceMs === undefined ? serviceMs : this.#serviceMs + WEIGHT * (serviceMs - this.#serviceMs);
    this.#window = Math.min(maxWindow, this.#window + 1);
    this.#strikes = 0;
    if (this.#clock.now() - this.#bannedUntil > MAX_BAN_MS) this.#bans = 0;
  }

  /**
   * Demotes the peer, or leaves it alone for a while.
   *
   * @param askedAt when it was put the question it failed
   * @returns true in the latter case
   */
  failed(failure: PeerFailure, askedAt: number): boolean {
    if (failure === 'cancelled' || this.isBanned) return false;
    // Questions that were open together stay unanswered together: one moment of silence is one failure. The next one goes alone.
    if (failure !== 'lied' && askedAt < this.#failedAt) return false;
    this.#failedAt = this.#clock.now();
    this.#window = 1;
    if (this.#serviceMs !== undefined) this.#serviceMs *= 2;
    this.#strikes += 1;
    if (failure !== 'lied' && this.#strikes < MAX_STRIKES) return false;
    const firstMs = failure === 'lied' ? LIED_BAN_MS : FAILED_BAN_MS;
    this.#bannedUntil = this.#clock.now() + Math.min(firstMs * 2 ** this.#bans, MAX_BAN_MS);
    this.#bans += 1;
    this.#strikes = 0;
    this.#window = FIRST_WINDOW;
    this.#serviceMs = undefined;
    return true;
  }
}
