import type { Clock } from '../../clock.ts';

const HOUR_MS = 3_600_000;
/** Addresses remembered; the one that took least recently is forgotten. Policy, not protocol. */
const MAX_ADDRESSES = 4_096;

interface Account {
  used: number;
  at: number;
}

/** What each address may bring into the cache, in bytes an hour: so that no single one turns all of it over. What is used comes back evenly. */
export class Allowance {
  readonly #bytesPerHour: number;
  readonly #clock: Clock;
  readonly #accounts = new Map<string, Account>();

  constructor(bytesPerHour: number, clock: Clock) {
    this.#bytesPerHour = bytesPerHour;
    this.#clock = clock;
  }

  isUsedUp(address: string): boolean {
    const account = this.#accounts.get(address);
    return account !== undefined && this.#left(account) <= 0;
  }

  use(address: string, bytes: number): void {
    if (this.#bytesPerHour === Infinity) return;
    const account = this.#accounts.get(address) ?? { used: 0, at: 0 };
    account.used = this.#bytesPerHour - this.#left(account) + bytes;
    account.at = this.#clock.now();
    this.#accounts.delete(address);
    this.#accounts.set(address, account);
    if (this.#accounts.size > MAX_ADDRESSES) this.#accounts.delete(this.#accounts.keys().next().value as string);
  }

  #left({ used, at }: Account): number {
    const returned = ((this.#clock.now() - at) / HOUR_MS) * this.#bytesPerHour;
    return this.#bytesPerHour - Math.max(0, used - returned);
  }
}
