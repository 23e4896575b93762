import { type HeaderFields, selectingValues } from '../http/index.ts';
import { MemoryResourceStore, type MemoryResourceStoreOptions } from './memory-resource-store.ts';
import type { MaybePromise, RecordStore } from './types.ts';

/** How a value is kept where it outlives the process. */
export interface ResourceCodec<T> {
  readonly encode: (value: T) => Uint8Array;
  /** Undefined when nothing can be made of it any more. */
  readonly decode: (bytes: Uint8Array) => MaybePromise<T | undefined>;
  /** Names of other records that the value cannot be decoded without. */
  readonly leansOn?: ((value: T) => readonly string[]) | undefined;
}

export interface ResourceStoreOptions<T> extends MemoryResourceStoreOptions<T> {
  /** Undefined keeps everything in memory alone. */
  readonly durable?: (ResourceCodec<T> & { readonly records: RecordStore }) | undefined;
  /** Bytes a value costs to keep in memory. */
  readonly bytesOf: (value: T) => number;
}

/** All variants of a resource as they are kept: the fields that select, and what they select. */
interface Kept {
  readonly names: readonly string[];
  /** Values in base64 by selecting fields, oldest first. */
  readonly variants: Readonly<Record<string, string>>;
}

const PREFIX = 'resource\n';
const MAX_VARIANTS = 16;
/** Keys whose deletion is remembered, so that what was read before it is not believed. Policy. */
const MAX_DELETED = 1_024;
/** Milliseconds in which further uses of a value are not told to its records. Policy. */
const TOUCH_MS = 60_000;

/** What a proxy remembers of resources, see {@link MemoryResourceStore}; with records behind, also across restarts and between processes. */
export class ResourceStore<T extends object> {
  readonly #memory: MemoryResourceStore<T>;
  readonly #durable: ResourceStoreOptions<T>['durable'];
  readonly #bytesOf: (value: T) => number;
  readonly #onRemove: (value: T) => void;
  readonly #touchedAt = new WeakMap<T, number>();
  /** Deletions so far; when each key was deleted last, counted in them; up to where that has been forgotten. */
  #deletions = 0;
  readonly #deletedAt = new Map<string, number>();
  #forgottenUpTo = 0;
  /** Keys whose records are being deleted, and those being put. */
  readonly #leaving = new Map<string, number>();
  readonly #putting = new Map<string, Promise<void>>();
  #version: number | undefined;

  constructor({ durable, bytesOf, ...memory }: ResourceStoreOptions<T>) {
    this.#memory = new MemoryResourceStore(memory);
    this.#durable = durable;
    this.#bytesOf = bytesOf;
    this.#onRemove = memory.onRemove ?? (() => {});
    this.#version = durable?.records.version;
  }

  get bytes(): number {
    return this.#memory.bytes;
  }

  /** What is known of the answer this request selects; at once when it is in memory. Never throws or rejects. */
  find(key: string, request: HeaderFields): MaybePromise<T | undefined> {
    if (this.#durable !== undefined && this.#durable.records.version !== this.#version) {
      // Another process has deleted something.
      this.#version = this.#durable.records.version;
      this.#memory.clear();
    }
    const near = this.#memory.find(key, request);
    if (this.#durable === undefined) return near;
    if (near === undefined) return this.#leaving.has(key) ? undefined : this.#load(key, request);
    this.#touch(key, near);
    return near;
  }

  /** Whether this very value is in memory for such requests. */
  isInMemory(key: string, request: HeaderFields, value: T): boolean {
    return this.#memory.find(key, request) === value;
  }

  /** {@link put} for a value that is of use to this process alone, so far. */
  putNear(key: string, names: readonly string[], request: HeaderFields, value: T): void {
    this.#memory.put(key, names, request, value, this.#bytesOf(value));
  }

  /** Remembers a value for requests like this one. Never rejects: records that fail only forget. */
  async put(key: string, names: readonly string[], request: HeaderFields, value: T): Promise<void> {
    this.#memory.put(key, names, request, value, this.#bytesOf(value));
    if (this.#durable === undefined) return;
    const deletions = this.#deletions;
    // One after the other, or each would put back what the other has replaced.
    const before = this.#putting.get(key) ?? Promise.resolve();
    const put = before.then(() => this.#keep(key, names, request, value, deletions));
    this.#putting.set(key, put);
    await put;
    if (this.#putting.get(key) === put) this.#putting.delete(key);
  }

  /** Forgets a resource with all its variants. Never rejects. */
  async delete(key: string): Promise<void> {
    this.#memory.delete(key);
    if (this.#durable === undefined) return;
    const { records } = this.#durable;
    this.#deletions += 1;
    this.#deletedAt.delete(key);
    this.#deletedAt.set(key, this.#deletions);
    if (this.#deletedAt.size > MAX_DELETED) {
      const [oldest, at] = this.#deletedAt.entries().next().value as [string, number];
      this.#deletedAt.delete(oldest);
      this.#forgottenUpTo = at;
    }
    this.#leaving.set(key, (this.#leaving.get(key) ?? 0) + 1);
    const { version } = records;
    try {
      await records.delete(PREFIX + key);
      // Our own deletion is no news to us.
      if (version !== undefined && version === this.#version && records.version === version + 1)
        this.#version = version + 1;
    } catch {
      // as said
    } finally {
      const left = (this.#leaving.get(key) ?? 1) - 1;
      if (left === 0) this.#leaving.delete(key);
      else this.#leaving.set(key, left);
    }
  }

  /** Forgets what is in memory. */
  clear(): void {
    this.#memory.clear();
  }

  /** Adds a variant to the record. Never rejects. @param deletions as there were when the value was learned */
  async #keep(
    key: string,
    names: readonly string[],
    request: HeaderFields,
    value: T,
    deletions: number,
  ): Promise<void> {
    const { records, encode } = this.#durable as NonNullable<ResourceStoreOptions<T>['durable']>;
    try {
      const kept = this.#leaving.has(key) ? undefined : parse(await records.get(PREFIX + key));
      if (this.#wasDeletedSince(key, deletions)) return;
      const isSame = kept !== undefined && kept.names.join() === names.join();
      const variants = isSame ? { ...kept.variants } : {};
      const selecting = selectingValues(names, request);
      delete variants[selecting];
      variants[selecting] = Buffer.from(encode(value)).toString('base64');
      for (const oldest of Object.keys(variants).slice(0, -MAX_VARIANTS)) delete variants[oldest];
      await records.set(PREFIX + key, Buffer.from(JSON.stringify({ names, variants })));
    } catch {
      // as said
    }
  }

  /** Whether what was read after so many deletions may be what has been deleted since. */
  #wasDeletedSince(key: string, deletions: number): boolean {
    return (this.#deletedAt.get(key) ?? 0) > deletions || this.#forgottenUpTo > deletions;
  }

  /** What memory answers is told to the records now and then. */
  #touch(key: string, value: T): void {
    const now = performance.now();
    if (now - (this.#touchedAt.get(value) ?? -Infinity) < TOUCH_MS) return;
    this.#touchedAt.set(value, now);
    const { records, leansOn = () => [] } = this.#durable as NonNullable<ResourceStoreOptions<T>['durable']>;
    for (const name of [PREFIX + key, ...leansOn(value)]) records.touch?.(name);
  }

  async #load(key: string, request: HeaderFields): Promise<T | undefined> {
    const { records, decode } = this.#durable as NonNullable<ResourceStoreOptions<T>['durable']>;
    try {
      const deletions = this.#deletions;
      const { version } = records;
      const kept = parse(await records.get(PREFIX + key));
      const encoded = kept?.variants[selectingValues(kept.names, request)];
      const value = encoded === undefined ? undefined : await decode(Buffer.from(encoded, 'base64'));
      if (kept === undefined || value === undefined) return undefined;
      if (this.#wasDeletedSince(key, deletions) || records.version !== version) {
        this.#onRemove(value);
        return undefined;
      }
      // Somebody else may have been quicker.
      const near = this.#memory.find(key, request);
      if (near !== undefined) {
        this.#onRemove(value);
        return near;
      }
      this.#memory.put(key, kept.names, request, value, this.#bytesOf(value));
      return value;
    } catch {
      return undefined;
    }
  }
}

/** Name of the record of a resource, for administrators. */
export function resourceName(key: string): string {
  return PREFIX + key;
}

/** What {@link resourceName} was made of. @returns undefined for other records */
export function resourceKeyOf(recordName: string): string | undefined {
  return recordName.startsWith(PREFIX) ? recordName.slice(PREFIX.length) : undefined;
}

/** The encoded values of all variants in a record. */
export function resourceVariants(value: Uint8Array): readonly Uint8Array[] {
  return Object.values(parse(value)?.variants ?? {}).map((encoded) => Buffer.from(encoded, 'base64'));
}

function parse(value: Uint8Array | undefined): Kept | undefined {
  if (value === undefined) return undefined;
  try {
    const { names, variants } = JSON.parse(Buffer.from(value).toString()) as Kept;
    if (!Array.isArray(names) || typeof variants !== 'object' || variants === null) return undefined;
    return { names, variants: Object.assign(Object.create(null) as object, variants) };
  } catch {
    return undefined;
  }
}
