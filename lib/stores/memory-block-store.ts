import { LRUCache } from 'lru-cache';
import { ignoreObservations, type Observer } from '../observer.ts';
import { assertMaxBytes } from './limit.ts';
import type { BlockStore } from './types.ts';

/** What an entry costs beyond its block: key, map slot, buffer object. Measured, rounded up. */
const ENTRY_OVERHEAD_BYTES = 512;

/** Blocks in memory, the least recently used leave first. */
export class MemoryBlockStore implements BlockStore {
  readonly #cache: LRUCache<string, Uint8Array>;
  readonly #observer: Observer;

  /** @param options.maxBytes limit, bookkeeping included; a block that does not fit alone is not kept */
  constructor({
    maxBytes,
    observer = ignoreObservations,
  }: {
    readonly maxBytes: number;
    readonly observer?: Observer | undefined;
  }) {
    this.#observer = observer;
    assertMaxBytes(maxBytes);
    this.#cache = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: (block) => block.byteLength + ENTRY_OVERHEAD_BYTES,
      dispose: (block, _key, reason) => {
        if (reason === 'evict') observer({ type: 'eviction', store: 'block', bytes: block.byteLength });
      },
    });
  }

  get bytes(): number {
    return this.#cache.calculatedSize;
  }

  get(key: string): Uint8Array | undefined {
    return this.#cache.get(key);
  }

  has(key: string): boolean {
    return this.#cache.has(key);
  }

  set(key: string, block: Uint8Array): void {
    // A small view would pin the large buffer it was cut from.
    this.#cache.set(
      key,
      block.buffer.byteLength > block.byteLength + ENTRY_OVERHEAD_BYTES ? Uint8Array.from(block) : block,
    );
    this.#observer({ type: 'stored', store: 'block', bytes: this.bytes });
  }

  delete(key: string): void {
    this.#cache.delete(key);
  }
}
