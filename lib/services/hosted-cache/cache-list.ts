import type { Clock } from '../../clock.ts';
import type { PeerAddress } from '../../protocol/pccrd/index.ts';

/** Milliseconds a hosted cache that failed is left alone, doubled each time. Policy, not protocol. */
const FAILED_MS = 10_000;
const MAX_FAILED_MS = 300_000;

interface Entry {
  readonly address: PeerAddress;
  failures: number;
  leftAloneUntil: number;
}

/** The hosted caches of a branch in the order they are to be tried. */
export class CacheList {
  readonly #entries: readonly Entry[];
  readonly #clock: Clock;

  constructor(caches: readonly PeerAddress[], clock: Clock) {
    this.#entries = caches.map((address) => ({ address, failures: 0, leftAloneUntil: 0 }));
    this.#clock = clock;
  }

  /** Those that have not failed just now. */
  get usable(): readonly PeerAddress[] {
    const now = this.#clock.now();
    return this.#entries.filter(({ leftAloneUntil }) => leftAloneUntil <= now).map(({ address }) => address);
  }

  answered(address: PeerAddress): void {
    const entry = this.#of(address);
    if (entry !== undefined) entry.failures = 0;
  }

  failed(address: PeerAddress): void {
    const entry = this.#of(address);
    // Questions that were open together fail together.
    if (entry === undefined || entry.leftAloneUntil > this.#clock.now()) return;
    entry.leftAloneUntil = this.#clock.now() + Math.min(FAILED_MS * 2 ** entry.failures, MAX_FAILED_MS);
    entry.failures += 1;
  }

  #of(address: PeerAddress): Entry | undefined {
    return this.#entries.find((entry) => entry.address === address);
  }
}
