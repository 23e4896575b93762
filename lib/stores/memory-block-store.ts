import { LRUCache } from 'lru-cache';
import { type Clock, systemClock } from '../clock.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { assertMaxBytes } from './limit.ts';
import { SegmentIndex } from './segment-index.ts';
import type { BlockStore, HeldSegment, SegmentFacts } from './types.ts';

/** What an entry costs beyond its block: key, map slot, buffer object, place in the index. Measured, rounded up. */
const ENTRY_OVERHEAD_BYTES = 1024;

interface Entry {
  readonly block: Uint8Array;
  /** One or two as a rule. */
  readonly labels: readonly string[];
}

/** Blocks in memory, the least recently used leave first. */
export class MemoryBlockStore implements BlockStore {
  readonly #cache: LRUCache<string, Entry>;
  readonly #segments: SegmentIndex;
  readonly #observer: Observer;

  /** @param options.maxBytes limit, bookkeeping included; a block that does not fit alone is not kept */
  constructor({
    maxBytes,
    observer = ignoreObservations,
    clock = systemClock,
  }: {
    readonly maxBytes: number;
    readonly observer?: Observer | undefined;
    readonly clock?: Clock | undefined;
  }) {
    this.#observer = observer;
    this.#segments = new SegmentIndex(clock);
    assertMaxBytes(maxBytes);
    this.#cache = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: ({ block }) => block.byteLength + ENTRY_OVERHEAD_BYTES,
      dispose: ({ block }, key, reason) => {
        if (reason !== 'set') this.#segments.remove(key);
        if (reason === 'evict') observer({ type: 'eviction', store: 'block', bytes: block.byteLength });
      },
    });
    observer({ type: 'store_limit', store: 'block', bytes: maxBytes });
  }

  get bytes(): number {
    return this.#cache.calculatedSize;
  }

  get(key: string): Uint8Array | undefined {
    return this.#cache.get(key)?.block;
  }

  has(key: string): boolean {
    return this.#cache.has(key);
  }

  set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts): void {
    const labels = this.#cache.peek(key)?.labels ?? [];
    // A small view would pin the large buffer it was cut from.
    const own = block.buffer.byteLength > block.byteLength + ENTRY_OVERHEAD_BYTES ? Uint8Array.from(block) : block;
    this.#cache.set(key, { block: own, labels: withLabel(labels, label) });
    // A block too large for the store has not been kept, and the one it was to replace is gone.
    if (!this.#cache.has(key)) this.#segments.remove(key);
    else if (segment !== undefined) this.#segments.add(key, segment);
    this.#observer({ type: 'stored', store: 'block', bytes: this.bytes });
  }

  segment(segmentId: string): HeldSegment | undefined {
    return this.#segments.get(segmentId);
  }

  label(key: string, label: string): void {
    const entry = this.#cache.peek(key);
    if (entry === undefined || entry.labels.includes(label)) return;
    this.#cache.set(key, { ...entry, labels: withLabel(entry.labels, label) });
  }

  delete(key: string): void {
    this.#cache.delete(key);
  }

  clear(): void {
    this.#cache.clear();
  }

  flush(label: string): void {
    const labelled = [...this.#cache.entries()].filter(([, { labels }]) => labels.includes(label));
    for (const [key, { block, labels }] of labelled) {
      const rest = labels.filter((each) => each !== label);
      if (rest.length === 0) this.#cache.delete(key);
      else this.#cache.set(key, { block, labels: rest });
    }
    this.#observer({ type: 'stored', store: 'block', bytes: this.bytes });
  }
}

/** Labels one block can carry; the oldest gives way. Policy, not protocol. */
const MAX_LABELS = 64;

function withLabel(labels: readonly string[], label: string): readonly string[] {
  return labels.includes(label) ? labels : [...labels, label].slice(-MAX_LABELS);
}
