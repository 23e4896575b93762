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
const PURGE_CHECK_MS = 1_000;
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
  /** Blocks that are being written. */
  #underWay = 0;

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

  has(key: string): MaybePromise<boolean> {
    if (this.#memory.has(key)) return true;
    const has = this.#durable.has(key);
    return has instanceof Promise ? has.catch(() => false) : has;
  }

  async set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts, hash?: BlockHash): Promise<void> {
    this.#memory.set(key, block, label, segment);
    this.#underWay += 1;
    void this.#durable
      .set(key, block, label, segment, hash)
      .catch(() => this.#fail())
      .finally(() => {
        this.#underWay -= 1;
      });
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
    if (held !== undefined && this.#underWay === 0) return held;
    const near = this.#memory.segment(segmentId);
    if (held === undefined || near === undefined) return held ?? near;
    return { ...held, blocks: [...new Set([...held.blocks, ...near.blocks])].toSorted((a, b) => a - b) };
  }

  async label(key: string, label: string): Promise<void> {
    this.#memory.label(key, label);
    await this.#durable.label(key, label);
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
