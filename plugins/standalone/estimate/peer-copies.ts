import type { Clients } from './clients.ts';

export interface PeerCopiesOptions {
  readonly clients: Clients;
  /** Sets of copies there may be. */
  readonly maxSets: number;
  /** What a client keeps. */
  readonly clientCacheBytes: number;
  /** Seconds after a request in which its client counts as on. */
  readonly onForSeconds: number;
}

/** Copies remembered of one content at one site: of those clients that were heard of last. Policy: more are hardly ever asked. */
const COPIES = 3;
/** What a client has taken in is noted in units of so many bytes: 32 bits of them are more than any client downloads. */
const MARK_BYTES = 64 * 1024;

/**
 * Which clients of a site have a content. A set is for one content at one site.
 *
 * A copy is gone when its client has taken in as many bytes of other contents as its cache holds since it last used it: least recently used leaves first, but for
 * contents that were used again meanwhile, which do not count as taken in.
 */
export class PeerCopies {
  readonly #options: PeerCopiesOptions;
  /** Client + 1; 0 where there is no copy. */
  readonly #holders: Uint32Array;
  /** What the client had taken in when it last used its copy; of a free set the next free one. */
  readonly #marks: Uint32Array;
  #used = 0;
  /** Set + 1 of the first that was given back. */
  #free = 0;

  constructor(options: PeerCopiesOptions) {
    this.#options = options;
    this.#holders = new Uint32Array(options.maxSets * COPIES);
    this.#marks = new Uint32Array(options.maxSets * COPIES);
  }

  /** An empty set. */
  allocate(): number {
    if (this.#free === 0) {
      this.#used += 1;
      return this.#used - 1;
    }
    const set = this.#free - 1;
    this.#free = this.#marks[set * COPIES] as number;
    this.clear(set);
    return set;
  }

  release(set: number): void {
    this.#marks[set * COPIES] = this.#free;
    this.#free = set + 1;
  }

  /** Nobody has it any more. */
  clear(set: number): void {
    this.#holders.fill(0, set * COPIES, (set + 1) * COPIES);
    this.#marks.fill(0, set * COPIES, (set + 1) * COPIES);
  }

  /** Whether somebody who is on has it. @param client who asks: it is on */
  isNear(set: number, client: number, bytes: number, second: number): boolean {
    for (let at = set * COPIES; at < (set + 1) * COPIES; at += 1) {
      const holder = (this.#holders[at] as number) - 1;
      if (holder < 0 || !this.#isThere(at, holder, bytes)) continue;
      if (holder === client || this.#isOn(holder, second)) return true;
    }
    return false;
  }

  /**
   * The client has it now: after a download, or because it had it.
   *
   * @param weight contents that this one stands for
   */
  keep(set: number, client: number, bytes: number, weight: number): void {
    const { clients, clientCacheBytes } = this.#options;
    if (client < 0 || bytes > clientCacheBytes) return;
    const place = this.#placeOf(set, client);
    const isHere = this.#holders[place] === client + 1 && this.#isThere(place, client, bytes);
    if (!isHere) clients.takenIn[client] = (clients.takenIn[client] as number) + bytes * weight;
    this.#holders[place] = client + 1;
    this.#marks[place] = Math.floor((clients.takenIn[client] as number) / MARK_BYTES);
  }

  /** Where the client's copy is, else a free place, else that of the client not heard of for the longest time. */
  #placeOf(set: number, client: number): number {
    const { seenAt } = this.#options.clients;
    let place = set * COPIES;
    let oldest = Infinity;
    for (let at = set * COPIES; at < (set + 1) * COPIES; at += 1) {
      const holder = (this.#holders[at] as number) - 1;
      if (holder === client) return at;
      const seen = holder < 0 ? -1 : (seenAt[holder] as number);
      if (seen >= oldest) continue;
      place = at;
      oldest = seen;
    }
    return place;
  }

  #isThere(at: number, holder: number, bytes: number): boolean {
    const { clients, clientCacheBytes } = this.#options;
    const since = (clients.takenIn[holder] as number) - (this.#marks[at] as number) * MARK_BYTES;
    return since <= clientCacheBytes - bytes + MARK_BYTES;
  }

  #isOn(holder: number, second: number): boolean {
    const { clients, onForSeconds } = this.#options;
    return second - (clients.seenAt[holder] as number) <= onForSeconds;
  }
}
