import type { ByteRange } from '../bytes/index.ts';
import { type Clock, systemClock } from '../clock.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { MemoryBlockStore } from './memory-block-store.ts';
import type {
  BlockCheck,
  BlockHash,
  BlockStore,
  DurableBlockStore,
  HeldSegment,
  MaybePromise,
  SegmentFacts,
} from './types.ts';

export interface TieredBlockStoreOptions {
  readonly durable: DurableBlockStore;
  /** Bytes of the memory in front. */
  readonly memoryBytes: number;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** Milliseconds until blocks that another process has purged leave the memory. Policy, not protocol. */
export const PURGE_CHECK_MS = 1_000;
/** One of so many quick reads goes into the memory. Policy, not protocol. */
const REMEMBERED_EVERY = 8;
/** Label of what was read into the memory: whose labels it has, only the store behind knows. */
const READ_LABEL = 'read';

/**
 * Memory before a store that outlives the process. What is in memory was checked when it came there, and is answered at once. When the durable
 * store fails, the memory goes on alone.
 */
export class TieredBlockStore implements BlockStore {
  readonly #durable: DurableBlockStore;
  readonly #memory: MemoryBlockStore;
  readonly #observer: Observer;
  readonly #cancel: () => void;
  #version: number | undefined;
  #peeks = 0;
  /** Blocks that are being written. */
  readonly #underWay = new Map<string, Promise<void>>();

  constructor({ durable, memoryBytes, observer = ignoreObservations, clock = systemClock }: TieredBlockStoreOptions) {
    this.#durable = durable;
    this.#observer = observer;
    this.#memory = new MemoryBlockStore({ maxBytes: memoryBytes, clock });
    this.#version = durable.version;
    let cancel = (): void => {};
    const watch = (): void => {
      this.#dropPurged();
      cancel = clock.after(PURGE_CHECK_MS, watch);
    };
    cancel = clock.after(PURGE_CHECK_MS, watch);
    this.#cancel = () => cancel();
  }

  get bytes(): number {
    return this.#durable.bytes;
  }

  get(key: string, check?: BlockCheck): MaybePromise<Uint8Array | undefined> {
    const near = this.#memory.get(key);
    if (near !== undefined) {
      this.#durable.touch(key);
      return near;
    }
    const far = this.#durable.get(key, check);
    return far instanceof Promise
      ? far.then(
          (block) => this.#remember(key, block),
          () => this.#fail(),
        )
      : this.#remember(key, far);
  }

  peek(key: string, length: number, part: ByteRange): Uint8Array | undefined {
    const near = this.#memory.get(key);
    if (near !== undefined) {
      this.#durable.touch(key);
      return near.byteLength === length ? near.subarray(part.offset, part.offset + part.length) : undefined;
    }
    this.#peeks += 1;
    // What the durable store has at hand is read quickly: only what is read often is worth a place in memory, and comes there by `get`.
    return this.#peeks % REMEMBERED_EVERY === 0 ? undefined : this.#durable.peek?.(key, length, part);
  }

  has(key: string): MaybePromise<boolean> {
    if (this.#memory.has(key)) return true;
    const has = this.#durable.has(key);
    return has instanceof Promise ? has.catch(() => false) : has;
  }

  async set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts, hash?: BlockHash): Promise<void> {
    this.#memory.set(key, block, label, segment);
    const done = (): void => {
      if (this.#underWay.get(key) === written) this.#underWay.delete(key);
    };
    const written = this.#durable.set(key, block, label, segment, hash).then(done, () => {
      this.#fail();
      done();
    });
    this.#underWay.set(key, written);
    // Nobody waits for the disk, but whoever can wait does so before it is too much.
    await this.#durable.room();
  }

  segment(segmentId: string): MaybePromise<HeldSegment | undefined> {
    const far = this.#durable.segment(segmentId);
    const merged = (held?: HeldSegment): HeldSegment | undefined => this.#withMemory(segmentId, held);
    return far instanceof Promise ? far.then(merged, () => merged()) : merged(far);
  }

  /** What is on its way to the durable store is here too. */
  #withMemory(segmentId: string, held: HeldSegment | undefined): HeldSegment | undefined {
    if (held !== undefined && this.#underWay.size === 0) return held;
    const near = this.#memory.segment(segmentId);
    if (held === undefined || near === undefined) return held ?? near;
    return { ...held, blocks: [...new Set([...held.blocks, ...near.blocks])].toSorted((a, b) => a - b) };
  }

  async label(key: string, label: string): Promise<void> {
    this.#memory.label(key, label);
    await this.#durable.label(key, label);
  }

  committed(key: string): Promise<void> | undefined {
    return this.#underWay.get(key);
  }

  async delete(key: string): Promise<void> {
    this.#memory.delete(key);
    await this.#durable.delete(key);
  }

  async flush(label: string): Promise<void> {
    this.#memory.flush(label);
    this.#memory.flush(READ_LABEL);
    await this.#durable.flush(label);
  }

  /** Writes what waits. Never rejects. */
  async close(): Promise<void> {
    this.#cancel();
    await this.#durable.close();
  }

  #remember(key: string, block: Uint8Array | undefined): Uint8Array | undefined {
    if (block !== undefined) this.#memory.set(key, block, READ_LABEL);
    return block;
  }

  #fail(): undefined {
    this.#observer({ type: 'store_fault', store: 'block', fault: 'failed' });
  }

  #dropPurged(): void {
    const { version } = this.#durable;
    if (version === this.#version) return;
    this.#version = version;
    this.#memory.clear();
  }
}
