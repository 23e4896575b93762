import { fingerprint } from './fingerprint.ts';
import { KeyTable } from './key-table.ts';

/** Clients told from each other; what others do is counted at their sites, and they are nobody's peers. Policy: 28 MB. */
export const MAX_CLIENTS = 2 ** 20;

/** Who asked, since when nothing was heard of them, and how much they have taken in. */
export class Clients {
  readonly #table = new KeyTable(MAX_CLIENTS);
  readonly #siteOf: (client: string) => number;
  readonly #print = { high: 0, low: 0 };
  readonly #sites = new Uint32Array(MAX_CLIENTS);
  /** Seconds since 1970 of the last request. */
  readonly seenAt = new Uint32Array(MAX_CLIENTS);
  /** Bytes of large contents that a client has put into its cache so far. */
  readonly takenIn = new Float64Array(MAX_CLIENTS);
  /** Set by {@link see}: where the client is. */
  site = 0;
  /** Requests of clients that came when there was no room for another. */
  untracked = 0;

  /** @param siteOf asked once for each client there is room for */
  constructor(siteOf: (client: string) => number) {
    this.#siteOf = siteOf;
  }

  get count(): number {
    return this.#table.count;
  }

  /**
   * A request of a client.
   *
   * @param client its name in the log
   * @param second since 1970
   * @returns its row, or -1 when there are too many clients
   */
  see(client: string, second: number): number {
    fingerprint(client, this.#print);
    const { high, low } = this.#print;
    let row = this.#table.find(high, low);
    if (row >= 0) this.site = this.#sites[row] as number;
    else {
      this.site = this.#siteOf(client);
      if (this.#table.isFull) {
        this.untracked += 1;
        return -1;
      }
      row = this.#table.add(high, low);
      this.#sites[row] = this.site;
    }
    this.seenAt[row] = second;
    return row;
  }
}
