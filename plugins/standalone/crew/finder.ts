/** One process of a crew is on the LAN; the others ask it who has what. */
import type { DiscoveryVersion } from '../../../lib/protocol/pccrd/index.ts';
import type { Holder, PeerFinder } from '../../../lib/services/index.ts';
import type { Channel } from './channel.ts';

/** Segments remembered; the one asked about longest ago is forgotten. Policy, not protocol. */
const MAX_SEGMENTS = 8_192;
/** Milliseconds an answer is believed, and after which a segment is asked about again. Policy, not protocol. */
const AGE_MS = 15_000;

/** What a worker asks of its leader, by the names of its handlers. */
export class RemoteFinder implements PeerFinder {
  readonly #channel: Channel;
  readonly #segments = new Map<string, { readonly askedAt: number; holders: readonly Holder[]; news: News }>();

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  holders(segmentId: string): readonly Holder[] {
    const known = this.#segments.get(segmentId);
    return known === undefined || performance.now() - known.askedAt > 4 * AGE_MS ? [] : known.holders;
  }

  seek(segmentIds: readonly string[], version: DiscoveryVersion): void {
    const now = performance.now();
    const due = segmentIds.filter((id) => now - (this.#segments.get(id)?.askedAt ?? -Infinity) > AGE_MS);
    if (due.length === 0) return;
    for (const id of due) {
      this.#segments.delete(id);
      this.#segments.set(id, { askedAt: now, holders: [], news: new News() });
      if (this.#segments.size > MAX_SEGMENTS) this.#segments.delete(this.#segments.keys().next().value as string);
    }
    void this.#channel
      .call('seek', due, version)
      .catch(() => {})
      .then(() => {
        for (const id of due) this.#segments.get(id)?.news.end();
      });
  }

  awaited(segmentId: string): Promise<void> | undefined {
    return this.#segments.get(segmentId)?.news.next;
  }

  /** The leader has heard of somebody. */
  heard(segmentId: string, holders: readonly Holder[]): void {
    const known = this.#segments.get(segmentId);
    if (known === undefined) return;
    known.holders = holders;
    known.news.tell();
  }
}

/** Comes again and again, until it ends. */
class News {
  next: Promise<void> | undefined;
  #settle = (): void => {};

  constructor() {
    this.#renew();
  }

  tell(): void {
    const settle = this.#settle;
    this.#renew();
    settle();
  }

  end(): void {
    this.next = undefined;
    this.#settle();
  }

  #renew(): void {
    this.next = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }
}

/** Asks for a worker and tells it each answer; resolves when there is nothing more to wait for. */
export async function seekFor(
  finder: PeerFinder,
  segmentIds: readonly string[],
  version: DiscoveryVersion,
  tell: (segmentId: string, holders: readonly Holder[]) => void,
): Promise<void> {
  finder.seek(segmentIds, version);
  await Promise.all(
    segmentIds.map(async (id) => {
      const known = finder.holders(id);
      if (known.length > 0) tell(id, known);
      for (let answer = finder.awaited(id); answer !== undefined; answer = finder.awaited(id)) {
        await answer;
        tell(id, finder.holders(id));
      }
    }),
  );
}
