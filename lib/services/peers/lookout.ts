import type { Clock } from '../../clock.ts';
import type { DescribedContent } from '../described-content.ts';
import type { PeerFinder } from './peer-finder.ts';

/** Segments asked about at once: one probe. 4 GB in version 2 are 500 of them. Policy, not protocol. */
const SEGMENTS_AHEAD: Readonly<Record<1 | 2, number>> = { 1: 16, 2: 128 };
/** Milliseconds after which the neighbours are asked again. Policy, not protocol. */
const REPEAT_MS = 20_000;

interface Window {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

/** Asks for segments before they are wanted, many at a time, so that a reader waits for the first answers only. */
export class Lookout {
  readonly #finder: PeerFinder;
  readonly #clock: Clock;
  readonly #windows = new WeakMap<DescribedContent, Window>();

  constructor(finder: PeerFinder, clock: Clock) {
    this.#finder = finder;
    this.#clock = clock;
  }

  /** A reader has come to one segment and is going to read on to another. */
  reach(content: DescribedContent, segment: number, lastSegment: number): void {
    const { version } = content.information;
    const ahead = SEGMENTS_AHEAD[version];
    const window = this.#windows.get(content);
    const now = this.#clock.now();
    const isInside =
      window !== undefined && now - window.at < REPEAT_MS && segment >= window.from && segment <= window.to;
    // The next segments are asked about when half of the known ones are used up.
    if (isInside && Math.min(lastSegment, segment + ahead / 2) <= window.to) return;
    const first = isInside ? window.to + 1 : segment;
    const last = Math.min(lastSegment, first + ahead - 1);
    this.#windows.set(content, { from: isInside ? window.from : segment, to: last, at: now });
    const ids: string[] = [];
    for (let each = first; each <= last; each += 1) ids.push(content.segmentId(each));
    this.#finder.seek(ids, version);
  }
}
