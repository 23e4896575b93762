import { LRUCache } from 'lru-cache';
import { ignoreObservations, type Observer } from '../observer.ts';
import { assertMaxBytes } from './limit.ts';
import type { ContentInformationRecord, ContentInformationStore } from './types.ts';

const ENTRY_OVERHEAD_BYTES = 1024;

/** Content information in memory, the least recently used leaves first. */
export class MemoryContentInformationStore implements ContentInformationStore {
  readonly #cache: LRUCache<string, ContentInformationRecord>;
  readonly #observer: Observer;

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
      sizeCalculation: (record, key) => recordBytes(record) + 2 * key.length,
      dispose: (record, _key, reason) => {
        if (reason === 'evict')
          observer({ type: 'eviction', store: 'content_information', bytes: recordBytes(record) });
      },
    });
    observer({ type: 'store_limit', store: 'content_information', bytes: maxBytes });
  }

  get bytes(): number {
    return this.#cache.calculatedSize;
  }

  get(key: string): ContentInformationRecord | undefined {
    return this.#cache.get(key);
  }

  set(key: string, record: ContentInformationRecord): void {
    this.#cache.set(key, record);
    this.#observer({ type: 'stored', store: 'content_information', bytes: this.bytes });
  }

  delete(key: string): boolean {
    return this.#cache.delete(key);
  }

  clear(): void {
    this.#cache.clear();
  }
}

function recordBytes({ encoded }: ContentInformationRecord): number {
  return (encoded[1]?.byteLength ?? 0) + (encoded[2]?.byteLength ?? 0) + ENTRY_OVERHEAD_BYTES;
}
