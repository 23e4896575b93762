import { type ByteRange, intersect, rangeEnd } from '../bytes/index.ts';
import type { Clock } from '../clock.ts';

/** Bytes that wait for content information. */
export interface Candidate {
  /** From the start of the whole content. */
  readonly offset: number;
  readonly data: Uint8Array;
  /** When it came, where it has waited before; trying it does not make it younger. */
  readonly since?: number | undefined;
}

interface Held extends Candidate {
  readonly tag: string;
  readonly since: number;
}

/** Bytes of all quarantined data of an instance; the oldest leaves past this. Policy, not protocol. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Pieces, so that many tiny ones cost no more than their bytes say. Policy, not protocol. */
const MAX_PIECES = 16_384;
/** Milliseconds a piece waits for its content information. Policy, not protocol. */
const MAX_AGE_MS = 10 * 60_000;

/**
 * Data added outside of what its handle describes (G15). It is known by tag and offset alone, so it is never readable and never served: it
 * waits for content information of the same tag that covers it, and for the hash to say that it is right. Several candidates for the same
 * bytes may wait.
 */
export class Quarantine {
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #held = new Set<Held>();
  /** What open handles of a tag do when it is flushed. With the last handle of a tag, its data goes. */
  readonly #handles = new Map<string, Set<() => void>>();
  #bytes = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A handle of that tag is open; `onFlush` drops what it holds itself. */
  enter(tag: string, onFlush: () => void): void {
    const handles = this.#handles.get(tag) ?? new Set();
    this.#handles.set(tag, handles.add(onFlush));
  }

  /** A handle of that tag is closed. */
  leave(tag: string, onFlush: () => void): void {
    const handles = this.#handles.get(tag);
    handles?.delete(onFlush);
    if (handles?.size !== 0) return;
    this.#handles.delete(tag);
    this.flush(tag);
  }

  add(tag: string, { offset, data, since = this.#clock.now() }: Candidate): void {
    if (data.byteLength === 0 || data.byteLength > MAX_BYTES) return;
    const held: Held = { tag, offset, data: Uint8Array.from(data), since };
    this.#held.add(held);
    this.#bytes += data.byteLength;
    for (const oldest of this.#held) {
      const expired = this.#clock.now() - oldest.since > MAX_AGE_MS;
      if (!expired && this.#bytes <= MAX_BYTES && this.#held.size <= MAX_PIECES) break;
      this.#drop(oldest);
    }
  }

  /** Takes out what waits under the tag for bytes of the range; a piece that reaches beyond it leaves the rest behind. */
  take(tag: string, range: ByteRange): Candidate[] {
    const taken: Candidate[] = [];
    for (const held of this.#held) {
      if (held.tag !== tag) continue;
      const part = intersect(range, { offset: held.offset, length: held.data.byteLength });
      if (part.length === 0) continue;
      this.#drop(held);
      if (this.#clock.now() - held.since > MAX_AGE_MS) continue;
      const from = part.offset - held.offset;
      const to = rangeEnd(part) - held.offset;
      const { since } = held;
      taken.push({ offset: part.offset, data: held.data.subarray(from, to), since });
      if (from > 0) this.add(tag, { offset: held.offset, data: held.data.subarray(0, from), since });
      if (to < held.data.byteLength) this.add(tag, { offset: rangeEnd(part), data: held.data.subarray(to), since });
    }
    return taken;
  }

  flush(tag: string): void {
    for (const onFlush of this.#handles.get(tag) ?? []) onFlush();
    for (const held of this.#held) if (held.tag === tag) this.#drop(held);
  }

  #drop(held: Held): void {
    if (this.#held.delete(held)) this.#bytes -= held.data.byteLength;
  }
}
