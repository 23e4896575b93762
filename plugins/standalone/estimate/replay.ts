import { Clients } from './clients.ts';
import { contentInformationBytes } from './content-information-size.ts';
import { fingerprint, type Fingerprint, mixed } from './fingerprint.ts';
import type { LogRecord } from './log-record.ts';
import { PeerCopies } from './peer-copies.ts';
import { addTo, type DaySums, emptySums, type SiteSums } from './sums.ts';
import { FIRST_FOR_HOSTED, FIRST_FOR_PEERS, Tracked } from './tracked.ts';

/** What the caches that are tried out are like. */
export interface ReplayRules {
  /** Of a one-sided cache, and of a hosted cache. */
  readonly cacheBytes: number;
  /** What each client keeps for others. */
  readonly clientCacheBytes: number;
  /** How long a one-sided cache answers without asking the origin. */
  readonly freshForMs: number;
  /** How long after a request a client counts as on. */
  readonly onForMs: number;
  /** Smaller bodies have no content information. */
  readonly minSizeBytes: number;
  /** Of a new version, the share that the version before has too: 0 to 1. */
  readonly similarity: number;
  /** Contents watched, each at each site; of more a sample is watched. */
  readonly maxEntries: number;
}

/** A request that asks whether a content has changed and the answer that it has not. Policy: heads of usual length. */
export const REVALIDATION_BYTES = 800;
/** Where the log counts heads, by how many bytes two answers with the same body may differ. Policy. */
export const HEAD_SLACK_BYTES = 512;
/** Days told apart; what is later is added to the last one. Policy: ten years. */
const MAX_DAYS = 3660;
const SECONDS_PER_DAY = 86_400;

/**
 * Replays requests against caches that are not there. README.md of this folder says what is assumed.
 *
 * Memory is bounded by `maxEntries` and the number of sites, whatever comes.
 */
export class Replay {
  readonly #rules: ReplayRules;
  readonly #clients: Clients;
  readonly #copies: PeerCopies;
  readonly #tracked: Tracked;
  readonly #print: Fingerprint = { high: 0, low: 0 };
  readonly #sites: SiteSums[] = [];
  readonly #days = new Map<number, DaySums>();
  #today: DaySums | undefined;

  /** @param siteOf number of the site a client belongs to, from 0 */
  constructor(rules: ReplayRules, siteOf: (client: string) => number) {
    this.#rules = rules;
    this.#clients = new Clients(siteOf);
    this.#copies = new PeerCopies({
      clients: this.#clients,
      maxSets: rules.maxEntries,
      clientCacheBytes: rules.clientCacheBytes,
      onForSeconds: rules.onForMs / 1000,
    });
    this.#tracked = new Tracked(rules.maxEntries, { maxBytes: rules.cacheBytes, minLargeBytes: rules.minSizeBytes });
  }

  /** By the number of the site; nothing where nobody has asked. */
  get sites(): readonly (SiteSums | undefined)[] {
    return this.#sites;
  }

  get days(): readonly DaySums[] {
    return [...this.#days.values()].toSorted((a, b) => a.day - b.day);
  }

  /** Clients told from each other. */
  get clients(): number {
    return this.#clients.count;
  }

  /** Requests of clients for which there was no room. */
  get untrackedRequests(): number {
    return this.#clients.untracked;
  }

  /** Of the contents that matter little, one in 2^level was watched at the end; 0: all of them were. */
  get level(): number {
    return this.#tracked.level;
  }

  take(record: LogRecord): void {
    const { method, status, bytes } = record;
    const second = Math.floor(record.timeMs / 1000);
    const client = this.#clients.see(record.client, second);
    const { site } = this.#clients;
    const sums = (this.#sites[site] ??= emptySums());
    const today = this.#dayOf(second);
    sums.requests += 1;
    sums.wanBytes += bytes;
    today.wanBytes += bytes;
    if (record.isCacheHit) sums.loggedHitBytes += bytes;
    if (method === 'CONNECT') sums.tunnelBytes += bytes;
    else if (method !== 'GET' || bytes === 0 || (status !== 200 && status !== 206)) sums.otherBytes += bytes;
    else {
      const before = { oneSided: sums.oneSided, peers: sums.peers, hosted: sums.hosted };
      this.#get(record, site, client, second);
      addTo(today, sums, before);
    }
  }

  #get({ url, status, bytes, hasHead }: LogRecord, site: number, client: number, second: number): void {
    const tracked = this.#tracked;
    if (!tracked.hasRoom) tracked.thin(this.#copies);
    const slack = hasHead ? HEAD_SLACK_BYTES : 0;
    const print = this.#print;
    fingerprint(url, print);
    if (status === 206) {
      const content = tracked.findContent(print.high, print.low);
      const whole = content < 0 ? -1 : tracked.findPair(content, site);
      if (whole >= 0 && bytes <= (tracked.sizes[whole] as number) + slack)
        return this.#use({ ...HELD_PART, content, pair: whole, bytes, site, client, second });
    }
    let content = status === 206 ? this.#findPart(url, bytes, slack) : tracked.findContent(print.high, print.low);
    const isUnknown = content < 0;
    if (isUnknown) content = tracked.addContent(print.high, print.low);
    // What others save stands for it; what it costs is known.
    if (content < 0) return this.#spend(bytes, bytes, this.#sites[site] as SiteSums);
    const isFirst = isUnknown || Math.abs((tracked.contentSizes[content] as number) - bytes) > slack;
    if (isFirst) tracked.contentSizes[content] = bytes;
    let pair = tracked.findPair(content, site);
    const isNew = pair < 0;
    if (isNew) pair = tracked.addPair(content, site);
    const isHeld = !isNew && Math.abs((tracked.sizes[pair] as number) - bytes) <= slack;
    this.#use({ content, pair, isNew, isHeld, isFirst, isPart: false, bytes, site, client, second });
    return undefined;
  }

  /** No log says which part it was: parts of a URL that have the same length are the same. @returns its row, or -1; its fingerprint is left behind */
  #findPart(url: string, bytes: number, slack: number): number {
    const tracked = this.#tracked;
    const print = this.#print;
    const step = 2 * slack || 1;
    const length = Math.floor(bytes / step);
    // Where heads are counted, the same part may have been a little shorter or longer before.
    const other = bytes - length * step < slack ? length - 1 : length + 1;
    if (slack > 0) {
      fingerprint(url, print, seedOf(other));
      const content = tracked.findContent(print.high, print.low);
      if (content >= 0 && Math.abs((tracked.contentSizes[content] as number) - bytes) <= slack) return content;
    }
    fingerprint(url, print, seedOf(length));
    return tracked.findContent(print.high, print.low);
  }

  /** @param wholeBytes of the content that the bytes are of */
  #spend(bytes: number, wholeBytes: number, sums: SiteSums): void {
    if (wholeBytes < this.#rules.minSizeBytes) return;
    const cost = contentInformationBytes(2, bytes);
    sums.contentInformationBytes += cost;
    sums.hostedCurve.spend(cost);
    sums.hosted -= cost;
    sums.peers -= cost;
  }

  #use(use: Use): void {
    const { content, pair, isNew, isHeld, isFirst, isPart, bytes, site, client, second } = use;
    const { minSizeBytes, cacheBytes, similarity } = this.#rules;
    const tracked = this.#tracked;
    const weight = 2 ** (tracked.contentLevels[content] as number);
    const sums = this.#sites[site] as SiteSums;
    const stack = tracked.stack(site);
    const heldBytes = isNew ? 0 : (tracked.sizes[pair] as number);
    const wholeBytes = isPart ? heldBytes : bytes;
    const isKept = !isNew && heldBytes <= cacheBytes;
    if (isKept) stack.measure(pair);
    if (isKept && isHeld) this.#oneSided(use, stack.distance, weight, sums);
    this.#spend(bytes, wholeBytes, sums);
    if (wholeBytes >= minSizeBytes) {
      // Of a new version nothing can be told before head office has hashed it.
      const gain = weight * bytes * (isHeld ? 1 : isFirst ? 0 : similarity);
      if (isKept && heldBytes >= minSizeBytes) this.#hosted(pair, stack.largeDistance, gain, sums);
      this.#peers(use, heldBytes, gain, sums);
      if (!isPart) this.#keepCopy(pair, client, bytes, weight, isHeld);
    }
    if (!isNew) stack.remove(pair);
    if (!isHeld) {
      tracked.sizes[pair] = bytes;
      tracked.validatedAt[pair] = second;
      tracked.flags[pair] = isFirst ? FIRST_FOR_PEERS | FIRST_FOR_HOSTED : 0;
    }
    stack.push(pair);
    tracked.ask(content, bytes);
  }

  #oneSided({ pair, bytes, second }: Use, distance: number, weight: number, sums: SiteSums): void {
    const { validatedAt } = this.#tracked;
    const { cacheBytes, freshForMs } = this.#rules;
    const isStale = second - (validatedAt[pair] as number) > freshForMs / 1000;
    const saved = weight * Math.max(0, bytes - (isStale ? REVALIDATION_BYTES : 0));
    sums.curve.hit(distance, saved);
    const isHit = distance <= cacheBytes;
    if (isHit) {
      sums.oneSided += saved;
      if (isStale) sums.revalidations += weight;
    }
    if (!isHit || isStale) validatedAt[pair] = second;
  }

  #hosted(pair: number, distance: number, gain: number, sums: SiteSums): void {
    const isFirstCopy = this.#takeFlag(pair, FIRST_FOR_HOSTED);
    if (gain === 0) return;
    sums.hostedCurve.hit(distance, gain);
    if (distance > this.#rules.cacheBytes) return;
    sums.hosted += gain;
    if (isFirstCopy) sums.hostedAtFirst += gain;
  }

  #peers({ pair, client, second }: Use, heldBytes: number, gain: number, sums: SiteSums): void {
    const isFirstCopy = this.#takeFlag(pair, FIRST_FOR_PEERS);
    const set = this.#tracked.copySets[pair] as number;
    if (gain === 0 || set === 0 || !this.#copies.isNear(set - 1, client, heldBytes, second)) return;
    sums.peers += gain;
    if (isFirstCopy) sums.peersAtFirst += gain;
  }

  #keepCopy(pair: number, client: number, bytes: number, weight: number, isHeld: boolean): void {
    const { copySets } = this.#tracked;
    if (copySets[pair] === 0) copySets[pair] = this.#copies.allocate() + 1;
    const set = (copySets[pair] as number) - 1;
    if (!isHeld) this.#copies.clear(set);
    this.#copies.keep(set, client, bytes, weight);
  }

  #takeFlag(pair: number, flag: number): boolean {
    const { flags } = this.#tracked;
    const isSet = ((flags[pair] as number) & flag) !== 0;
    flags[pair] = (flags[pair] as number) & ~flag;
    return isSet;
  }

  #dayOf(second: number): DaySums {
    const day = Math.floor(second / SECONDS_PER_DAY);
    if (this.#today?.day === day) return this.#today;
    const known = this.#days.get(day);
    if (known !== undefined) return (this.#today = known);
    const fresh = { day, wanBytes: 0, oneSided: 0, peers: 0, hosted: 0 };
    if (this.#days.size === MAX_DAYS) return this.#today ?? fresh;
    this.#days.set(day, fresh);
    return (this.#today = fresh);
  }
}

/** A use of a content at a site, or of a part of it. */
interface Use {
  /** Row of the content. */
  readonly content: number;
  /** Row of the content at the site. */
  readonly pair: number;
  /** The site never got it in any version: it is in no stack. */
  readonly isNew: boolean;
  /** The site got this very version before. */
  readonly isHeld: boolean;
  /** Nobody at all has got this version before. */
  readonly isFirst: boolean;
  /** Part of a content that the site has got whole. */
  readonly isPart: boolean;
  readonly bytes: number;
  readonly site: number;
  readonly client: number;
  readonly second: number;
}

const HELD_PART = { isNew: false, isHeld: true, isFirst: false, isPart: true } as const;

/** Never 0: that is the whole. */
function seedOf(bytes: number): number {
  return mixed((bytes >>> 0) ^ Math.imul(Math.floor(bytes / 2 ** 32), 0x9e3779b1)) || 1;
}
