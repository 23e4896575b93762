import type { Clock } from '../clock.ts';

/** Readers of one content at the same time from which it counts as a crowd. Policy, not protocol. */
const CROWD = 4;
/** Milliseconds a reader that has read stays counted: between two reads of a walk it is still there. Policy, not protocol. */
const LINGER_MS = 5_000;

/**
 * Who is reading what right now. A content that many want at once may soon be on a neighbour, so a short wait beats the WAN. Contents are
 * known by the ID of the first segment their content information describes.
 */
export class FlashCrowd {
  readonly #clock: Clock;
  /** Until when each reader counts, by content. */
  readonly #readers = new Map<string, Map<object, number>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A read has begun or ended; the reader counts for a while longer. */
  touch(content: string, reader: object): void {
    this.#readersOf(content).set(reader, this.#clock.now() + LINGER_MS);
  }

  /** A stream reads until {@link leave}. */
  enter(content: string, reader: object): void {
    this.#readersOf(content).set(reader, Infinity);
  }

  leave(content: string, reader: object): void {
    const readers = this.#readers.get(content);
    readers?.delete(reader);
    if (readers?.size === 0) this.#readers.delete(content);
  }

  isCrowd(content: string): boolean {
    const readers = this.#readers.get(content);
    if (readers === undefined) return false;
    const now = this.#clock.now();
    for (const [reader, until] of readers) if (until <= now) readers.delete(reader);
    if (readers.size === 0) this.#readers.delete(content);
    return readers.size >= CROWD;
  }

  #readersOf(content: string): Map<object, number> {
    let readers = this.#readers.get(content);
    if (readers === undefined) this.#readers.set(content, (readers = new Map()));
    return readers;
  }
}
