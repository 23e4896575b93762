/** The client role of discovery: asks, waits, remembers who has what (MS-PCCRD 3.1). */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import type { Observer } from '../../observer.ts';
import {
  type DiscoveryVersion,
  encodeProbe,
  type PeerAddress,
  type ProbeMatch,
  type ProbeMatches,
  REQUEST_TIMER_MS,
} from '../../protocol/pccrd/index.ts';
import type { Holder, PeerFinder } from '../peers/index.ts';
import { PeerCache } from './peer-cache.ts';
import { RateLimiter } from './rate-limiter.ts';

export interface ProberOptions {
  readonly send: (datagram: Uint8Array) => void;
  /** Names no segment: whether somebody answers to it says nothing of how long to wait for those who have segments. */
  readonly beacon?: string | undefined;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** Segments in one probe: six packets of an Ethernet. Policy, not protocol. */
const MAX_PROBE_SEGMENTS = 128;
/** Milliseconds questions are collected before they go out together. Policy, not protocol. */
const COLLECT_MS = 5;
/** Probes a second; what is more is not asked. Policy, not protocol. */
const MAX_PROBES_PER_SECOND = 50;
/** Milliseconds answers are taken after a probe; late ones are still good. Policy, not protocol. */
const OUTSTANDING_MS = 5_000;

interface Outstanding {
  readonly messageId: string;
  readonly version: DiscoveryVersion;
  readonly segmentIds: string[];
  /** Comes with the next answer, or when there is no further one to wait for. */
  news: News;
  wasAnswered: boolean;
}

interface News {
  readonly promise: Promise<void>;
  readonly settle: () => void;
}

function news(): News {
  let settle = (): void => {};
  const promise = new Promise<void>((resolve) => (settle = resolve));
  return { promise, settle };
}

/**
 * One probe asks about many segments. A reader waits until somebody has what it wants, at most until the request timer ends, and not at all
 * where nobody has answered lately: the wait halves with each probe that stays without an answer, and is restored by the first that comes.
 */
export class Prober implements PeerFinder {
  readonly #options: ProberOptions;
  readonly #cache: PeerCache;
  readonly #rate: RateLimiter;
  readonly #outstanding = new Map<string, Outstanding>();
  /** By segment: the probe whose answers are waited for. */
  readonly #awaited = new Map<string, Outstanding>();
  /** By version: the probe that still takes segments. */
  readonly #collecting = new Map<DiscoveryVersion, Outstanding>();
  #patienceMs = REQUEST_TIMER_MS;
  #isClosed = false;

  constructor(options: ProberOptions) {
    this.#options = options;
    this.#cache = new PeerCache(options.clock);
    this.#rate = new RateLimiter(MAX_PROBES_PER_SECOND, options.clock);
  }

  holders(segmentId: string): readonly Holder[] {
    return this.#cache.holders(segmentId);
  }

  awaited(segmentId: string): Promise<void> | undefined {
    return this.#patienceMs < 1 ? undefined : this.#awaited.get(segmentId)?.news.promise;
  }

  seek(segmentIds: readonly string[], version: DiscoveryVersion): void {
    for (const segmentId of segmentIds) {
      if (this.#isClosed || !this.#cache.isDue(segmentId)) continue;
      const isBeacon = segmentId === this.#options.beacon;
      const probe = isBeacon ? this.#open(version) : (this.#collecting.get(version) ?? this.#begin(version));
      if (probe === undefined) return;
      this.#cache.beginAsking(segmentId);
      probe.segmentIds.push(segmentId);
      this.#awaited.set(segmentId, probe);
      if (isBeacon || probe.segmentIds.length >= MAX_PROBE_SEGMENTS) this.#send(probe);
    }
  }

  /** Answers there were when this segment was last asked about; what the responder's quorum counts. */
  quorum(segmentId: string, blockCount: number): { readonly answers: number; readonly full: number } {
    return this.#cache.quorum(segmentId, blockCount);
  }

  /** True for a probe of ours that has come back to us. */
  isOwn(messageId: string): boolean {
    return this.#outstanding.has(messageId);
  }

  /**
   * Takes an answer.
   *
   * @param source who sent it; addresses that are not the source's are not believed
   * @returns false when it answers no question of ours, or says nothing that could be believed
   */
  take({ relatesTo, matches }: ProbeMatches, source: PeerAddress): boolean {
    const probe = this.#outstanding.get(relatesTo);
    if (probe === undefined) return false;
    const isUseful = matches.map((match) => this.#takeMatch(probe, match, source)).includes(true);
    if (!isUseful) return false;
    if (!this.#isBeacon(probe)) this.#patienceMs = REQUEST_TIMER_MS;
    probe.wasAnswered = true;
    // Who answers first may have little of it: who is not helped by this answer waits for the next.
    const { settle } = probe.news;
    probe.news = news();
    settle();
    return true;
  }

  close(): void {
    this.#isClosed = true;
    for (const probe of this.#outstanding.values()) this.#settle(probe);
    this.#outstanding.clear();
    this.#collecting.clear();
  }

  #takeMatch({ segmentIds }: Outstanding, { addresses, holdings }: ProbeMatch, source: PeerAddress): boolean {
    const plain = (address: string): string => address.replace(/%.*$/, '').toLowerCase();
    const place = addresses.find(({ address }) => plain(address) === plain(source.address));
    if (place === undefined) return false;
    // With the zone that a link-local address needs and an answer cannot know.
    const peer = { address: source.address, port: place.port };
    let isUseful = false;
    segmentIds.forEach((segmentId, index) => {
      const blocks =
        holdings.version === 1
          ? (holdings.blockCounts.get(segmentId) ?? 0)
          : { all: 'all' as const, some: 1, none: 0 }[holdings.availability[index] ?? 'none'];
      if (blocks === 0) return;
      this.#cache.add(segmentId, { peer, blocks });
      isUseful = true;
    });
    return isUseful;
  }

  #settle(probe: Outstanding): void {
    for (const segmentId of probe.segmentIds)
      if (this.#awaited.get(segmentId) === probe) this.#awaited.delete(segmentId);
    probe.news.settle();
  }

  /** A probe that takes segments for a while. */
  #begin(version: DiscoveryVersion): Outstanding | undefined {
    const probe = this.#open(version);
    if (probe === undefined) return undefined;
    this.#collecting.set(version, probe);
    this.#options.clock.after(COLLECT_MS, () => {
      if (this.#collecting.get(version) === probe) this.#send(probe);
    });
    return probe;
  }

  #open(version: DiscoveryVersion): Outstanding | undefined {
    if (!this.#rate.allows('')) return undefined;
    const messageId = `urn:uuid:${randomUUID()}`;
    const probe: Outstanding = { messageId, version, segmentIds: [], news: news(), wasAnswered: false };
    this.#outstanding.set(messageId, probe);
    return probe;
  }

  #isBeacon({ segmentIds }: Outstanding): boolean {
    return segmentIds[0] !== undefined && segmentIds[0] === this.#options.beacon;
  }

  #send(probe: Outstanding): void {
    const { send, observer, clock } = this.#options;
    if (this.#collecting.get(probe.version) === probe) this.#collecting.delete(probe.version);
    send(encodeProbe(probe));
    observer({ type: 'discovery', message: 'probe_sent' });
    clock.after(Math.ceil(this.#patienceMs), () => {
      if (!probe.wasAnswered && !this.#isBeacon(probe)) this.#patienceMs /= 2;
      this.#settle(probe);
    });
    clock.after(OUTSTANDING_MS, () => this.#outstanding.delete(probe.messageId));
  }
}
