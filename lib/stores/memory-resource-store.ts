import { LRUCache } from 'lru-cache';
import { type HeaderFields, selectingValues } from '../http/index.ts';
import { assertMaxBytes } from './limit.ts';

interface Resource<T> {
  /** Request fields that select among the variants. */
  readonly names: readonly string[];
  readonly variants: Map<string, { readonly value: T; readonly bytes: number }>;
}

export interface MemoryResourceStoreOptions<T> {
  /** Bytes of all entries, as their owners count them. */
  readonly maxBytes: number;
  /** Variants kept of one resource; the oldest leaves. @default 16. Policy, not protocol */
  readonly maxVariants?: number;
  /** Called with a value that left, for whatever reason. */
  readonly onRemove?: (value: T) => void;
}

const ENTRY_OVERHEAD_BYTES = 512;

/**
 * What a proxy remembers of resources: by primary key (scheme, authority, target), then by the request fields its answers vary by
 * (RFC 9111 4.1). Both plug-ins keep their knowledge of answers in one of these.
 */
export class MemoryResourceStore<T> {
  readonly #cache: LRUCache<string, Resource<T>>;
  readonly #maxVariants: number;
  readonly #onRemove: (value: T) => void;

  constructor({ maxBytes, maxVariants = 16, onRemove = () => {} }: MemoryResourceStoreOptions<T>) {
    this.#maxVariants = maxVariants;
    this.#onRemove = onRemove;
    assertMaxBytes(maxBytes);
    this.#cache = new LRUCache({
      maxSize: maxBytes,
      noDisposeOnSet: true,
      sizeCalculation: (resource, key) =>
        [...resource.variants.values()].reduce((sum, { bytes }) => sum + bytes, 2 * key.length + ENTRY_OVERHEAD_BYTES),
      dispose: (resource) => {
        for (const { value } of resource.variants.values()) this.#onRemove(value);
      },
    });
  }

  get bytes(): number {
    return this.#cache.calculatedSize;
  }

  /** What is known of the answer this request selects. */
  find(key: string, request: HeaderFields): T | undefined {
    const resource = this.#cache.get(key);
    if (resource === undefined) return undefined;
    return resource.variants.get(resource.names.length === 0 ? '' : selectingValues(resource.names, request))?.value;
  }

  /**
   * Remembers a value for requests like this one. Variants that were kept under other selecting fields leave: which answer they
   * would select is no longer known.
   */
  put(key: string, names: readonly string[], request: HeaderFields, value: T, bytes: number): void {
    const known = this.#cache.peek(key);
    const same = known !== undefined && known.names.join() === names.join();
    // A copy: when the whole is too large to be kept, what was kept until now is removed, and the new value is no part of that.
    const variants = new Map<string, { readonly value: T; readonly bytes: number }>(same ? known.variants : []);
    if (!same) this.#cache.delete(key);
    const selecting = names.length === 0 ? '' : selectingValues(names, request);
    const leaving: T[] = [];
    const replaced = variants.get(selecting);
    variants.delete(selecting);
    variants.set(selecting, { value, bytes });
    if (replaced !== undefined && replaced.value !== value) leaving.push(replaced.value);
    if (variants.size > this.#maxVariants) {
      const [oldest, { value: gone }] = variants.entries().next().value as [string, { value: T }];
      variants.delete(oldest);
      leaving.push(gone);
    }
    const resource = { names, variants };
    this.#cache.set(key, resource);
    // Refused as too large: then all that was kept before has been removed already.
    const isKept = this.#cache.peek(key) === resource;
    for (const gone of isKept ? leaving : [value]) this.#onRemove(gone);
  }

  /** Forgets a resource with all its variants. */
  delete(key: string): boolean {
    return this.#cache.delete(key);
  }

  clear(): void {
    this.#cache.clear();
  }
}
