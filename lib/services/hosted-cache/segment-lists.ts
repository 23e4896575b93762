import { type Clock, systemClock } from '../../clock.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import type { DiscoveryVersion, PeerAddress } from '../../protocol/pccrd/index.ts';
import { PeerConnections, PeerError } from '../peers/exchange.ts';
import type { Holder, PeerFinder } from '../peers/peer-finder.ts';
import { segmentListQuestion } from '../peers/questions.ts';
import { CacheList } from './cache-list.ts';

/** Segments one question names: as many as a reader looks ahead. Policy, not protocol. */
const MAX_SEGMENTS_ASKED = 128;
/** Segments remembered; the one asked about longest ago is forgotten. Policy, not protocol. */
const MAX_SEGMENTS = 8_192;
/** Milliseconds an answer is believed; blocks that have gone meanwhile cost a question each. Policy, not protocol. */
const AGE_MS = 60_000;
/** Milliseconds after which a segment nobody had may be asked about again. Policy, not protocol. */
const ASK_AGAIN_MS = 15_000;
/** Milliseconds a hosted cache gets for a list (MS-PCCRR 3.1.2). */
const REQUEST_TIMEOUT_MS = 2_000;

export interface SegmentListsOptions {
  /** In the order they are asked: the second one about what the first one has not. */
  readonly caches: readonly PeerAddress[];
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

interface Entry {
  readonly at: number;
  readonly news: Promise<void>;
  holder: Holder | undefined;
  /** When that was said. */
  heldAt: number;
  isAnswered: boolean;
}

/** Finds out by lists of segments (MSG_GETSEGLIST) which hosted cache has what. */
export class SegmentLists implements PeerFinder {
  readonly #caches: CacheList;
  readonly #connections = new PeerConnections();
  readonly #segments = new Map<string, Entry>();
  readonly #observer: Observer;
  readonly #clock: Clock;

  constructor({ caches, observer = ignoreObservations, clock = systemClock }: SegmentListsOptions) {
    this.#caches = new CacheList(caches, clock);
    this.#observer = observer;
    this.#clock = clock;
  }

  holders(segmentId: string): readonly Holder[] {
    const entry = this.#segments.get(segmentId);
    return entry?.holder === undefined || this.#clock.now() - entry.heldAt > AGE_MS ? [] : [entry.holder];
  }

  awaited(segmentId: string): Promise<void> | undefined {
    const entry = this.#segments.get(segmentId);
    return entry === undefined || entry.isAnswered ? undefined : entry.news;
  }

  seek(segmentIds: readonly string[], version: DiscoveryVersion): void {
    if (this.#caches.usable.length === 0) return;
    const due = segmentIds.filter((id) => {
      const entry = this.#segments.get(id);
      return entry === undefined || (entry.isAnswered && this.#ageOf(entry) >= ASK_AGAIN_MS);
    });
    for (let at = 0; at < due.length; at += MAX_SEGMENTS_ASKED)
      this.#ask(due.slice(at, at + MAX_SEGMENTS_ASKED), version);
  }

  close(): void {
    this.#connections.close();
  }

  #ask(segmentIds: readonly string[], version: DiscoveryVersion): void {
    const entries = new Map<string, Entry>();
    const news = Promise.resolve().then(async () => {
      await this.#askEach(entries, version);
      for (const entry of entries.values()) entry.isAnswered = true;
    });
    for (const id of segmentIds) {
      // What was known stays good until the answer is here.
      const { holder, heldAt = 0 } = this.#segments.get(id) ?? {};
      const entry: Entry = { at: this.#clock.now(), news, holder, heldAt, isAnswered: false };
      entries.set(id, entry);
      this.#segments.delete(id);
      this.#segments.set(id, entry);
      if (this.#segments.size > MAX_SEGMENTS) this.#segments.delete(this.#segments.keys().next().value as string);
    }
  }

  /** One hosted cache after the other, each about what is still missing. Never rejects. */
  async #askEach(entries: ReadonlyMap<string, Entry>, version: DiscoveryVersion): Promise<void> {
    let missing = [...entries.keys()];
    for (const cache of this.#caches.usable) {
      const listed = await this.#list(cache, missing);
      if (listed === undefined) continue;
      missing.forEach((id, index) => {
        // A version 2 segment is one block; of a version 1 segment the list of blocks tells.
        const holder: Holder | undefined =
          listed[index] === true ? { peer: cache, blocks: version === 2 ? 'all' : 0 } : undefined;
        const entry = entries.get(id) as Entry;
        entry.holder = holder;
        entry.heldAt = this.#clock.now();
      });
      missing = missing.filter((_, index) => listed[index] !== true);
      if (missing.length === 0) return;
    }
  }

  async #list(cache: PeerAddress, segmentIds: readonly string[]): Promise<readonly boolean[] | undefined> {
    const question = segmentListQuestion(segmentIds);
    const exchange = this.#connections.post(cache, question.message, question.maxBytes);
    const cancel = this.#clock.after(REQUEST_TIMEOUT_MS, () => exchange.cancel('timeout'));
    try {
      const answer = await exchange.answer;
      const listed = question.read(answer);
      this.#connections.release(answer);
      this.#caches.answered(cache);
      this.#observer({ type: 'peer_request', source: 'hosted_cache', result: 'list' });
      return listed;
    } catch (error) {
      this.#caches.failed(cache);
      const result = error instanceof PeerError ? error.failure : 'failed';
      this.#observer({ type: 'peer_request', source: 'hosted_cache', result });
      return undefined;
    } finally {
      cancel();
    }
  }

  #ageOf({ at }: Entry): number {
    return this.#clock.now() - at;
  }
}
