import { type Clock, systemClock } from '../clock.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { BLOCK_FIELDS, blockArgs, blockOf, factArgs, NO_FACTS, segmentOf } from './redis-block-codec.ts';
import { isWrongType, type RedisArgument, type RedisReply, unavailable } from './redis-client.ts';
import type { RedisConnection } from './redis-connection.ts';
import {
  assertPrefix,
  type BlockPlace,
  DEFAULT_PREFIX,
  patternOfBlocks,
  placeOfBlock,
  placeOfRedisKey,
  rowOfSegment,
} from './redis-names.ts';
import { DELETE_BLOCK, FLUSH_BLOCK, LABEL_BLOCK, READ_SEGMENT, SET_BLOCK } from './redis-scripts.ts';
import { MAX_VALUE_BYTES } from './redis-connection.ts';
import type { BlockCheck, BlockHash, DurableBlockStore, HeldSegment, SegmentFacts } from './types.ts';
import { within } from './within.ts';
import type { WriteQueue } from './write-queue.ts';

export interface RedisBlockStoreOptions {
  readonly connection: RedisConnection;
  /** Before every key. @default `peerdist:` */
  readonly prefix?: string | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

const MAX_SEGMENT_ID_LENGTH = 256;
/** Keys noted as used before Redis is told, and milliseconds they wait. Policy, not protocol. */
const MAX_TOUCHED = 4096;
const TOUCH_DELAY_MS = 10_000;
/** Blocks a label is taken off together. Policy, not protocol. */
const FLUSHED_TOGETHER = 128;
/** Milliseconds for what waits when the store is closed. Policy, not protocol. */
const CLOSE_TIMEOUT_MS = 2_000;

/**
 * Blocks in Redis, for all that use it. Redis decides what it has room for (`maxmemory-policy allkeys-lru`); what comes from it is believed only when it
 * matches its hash. While it is away, nothing is found and nothing kept.
 */
export class RedisBlockStore implements DurableBlockStore {
  readonly #connection: RedisConnection;
  readonly #prefix: string;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #writes: WriteQueue;
  #touched = new Set<string>();
  #cancelTouching: (() => void) | undefined;
  #reportedBytes = 0;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a prefix that cannot be one */
  constructor({ connection, prefix = DEFAULT_PREFIX, observer, clock }: RedisBlockStoreOptions) {
    this.#connection = connection;
    this.#prefix = assertPrefix(prefix);
    this.#observer = observer ?? ignoreObservations;
    this.#clock = clock ?? systemClock;
    this.#writes = connection.queue();
  }

  /** Memory that Redis uses, for whatever: as of some seconds ago, 0 when unknown. */
  get bytes(): number {
    return this.#connection.usedMemory;
  }

  async get(key: string, check?: BlockCheck): Promise<Uint8Array | undefined> {
    const place = this.#place(key);
    if (place === undefined) return undefined;
    try {
      const reply = await this.#connection.send(place.block, ['HMGET', place.block, ...BLOCK_FIELDS]);
      const block = blockOf(reply, key, check);
      if (block === 'absent') return undefined;
      if (block === 'damaged') return await this.#damaged(place);
      // Reading a block is no use of what is known of its segment.
      this.#note(place.row);
      return block;
    } catch (error) {
      return isWrongType(error) ? this.#damaged(place) : this.#fault('failed');
    }
  }

  async has(key: string): Promise<boolean> {
    const place = this.#place(key);
    if (place === undefined) return false;
    try {
      return (await this.#connection.send(place.block, ['EXISTS', place.block])) === 1;
    } catch {
      this.#fault('failed');
      return false;
    }
  }

  /** Resolves when the block is kept, or is not going to be. Never rejects. */
  async set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts, hash?: BlockHash): Promise<void> {
    const place = this.#place(key);
    if (place === undefined) return;
    if (block.byteLength > MAX_VALUE_BYTES) return this.delete(key).catch(() => {});
    const facts = segment === undefined || place.index === undefined ? NO_FACTS : factArgs(segment, this.#clock.now());
    const args = [...placeArgs(place), label, ...blockArgs(key, block, hash), ...facts];
    const write = (): Promise<RedisReply> => this.#connection.run(SET_BLOCK, [place.block, place.row], args);
    try {
      const written = this.#writes.add(block.byteLength, write);
      if (written === undefined) return this.#fault('overloaded');
      await written;
    } catch {
      return this.#fault('failed');
    }
    this.#report();
  }

  async segment(segmentId: string): Promise<HeldSegment | undefined> {
    if (segmentId === '' || segmentId.length > MAX_SEGMENT_ID_LENGTH) return undefined;
    const row = rowOfSegment(this.#prefix, segmentId);
    try {
      const reply = await this.#connection.run(READ_SEGMENT, [row], [`${this.#prefix}{${segmentId}}:`]);
      if (reply === null) return undefined;
      const held = segmentOf(reply);
      if (held !== undefined) return held;
      this.#fault('damaged');
      await this.#connection.send(row, ['DEL', row]);
    } catch {
      this.#fault('failed');
    }
    return undefined;
  }

  async label(key: string, label: string): Promise<void> {
    const place = this.#place(key);
    if (place === undefined) return;
    await this.#write(() => this.#connection.run(LABEL_BLOCK, [place.block], [label])).catch(() =>
      this.#fault('failed'),
    );
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` */
  async delete(key: string): Promise<void> {
    const place = this.#place(key);
    if (place === undefined) return;
    const args = placeArgs(place);
    await this.#write(() => this.#connection.run(DELETE_BLOCK, [place.block, place.row], args));
  }

  /** Looks at every block in Redis. @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` */
  async flush(label: string): Promise<void> {
    // What waits has its label only when it is written.
    await this.#write(async () => null);
    for await (const keys of this.#connection.scan(patternOfBlocks(this.#prefix))) {
      const places = keys.map((key) => placeOfRedisKey(this.#prefix, key)).filter((place) => place !== undefined);
      for (let at = 0; at < places.length; at += FLUSHED_TOGETHER)
        await Promise.all(
          places
            .slice(at, at + FLUSHED_TOGETHER)
            .map((place) => this.#connection.run(FLUSH_BLOCK, [place.block, place.row], [...placeArgs(place), label])),
        );
    }
  }

  touch(key: string): void {
    const place = this.#place(key);
    if (place === undefined) return;
    this.#note(place.block);
    this.#note(place.row);
  }

  room(): Promise<void> | undefined {
    return this.#writes.room();
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  written(): Promise<void> {
    return this.#writes.idle();
  }

  /** Writes what waits, as long as that may take; the connection stays open. Never rejects. */
  async close(): Promise<void> {
    await within(
      this.#clock,
      CLOSE_TIMEOUT_MS,
      this.#writes.idle().then(() => this.#tell()),
    );
    this.#cancelTouching?.();
  }

  #place(key: string): BlockPlace | undefined {
    return placeOfBlock(this.#prefix, key);
  }

  /** After what was to be written before. */
  async #write(write: () => Promise<RedisReply>): Promise<void> {
    const written = this.#writes.add(0, write);
    if (written === undefined) throw unavailable('too much waits to be written to Redis');
    await written;
  }

  #note(redisKey: string): void {
    if (this.#touched.size >= MAX_TOUCHED) return;
    this.#touched.add(redisKey);
    this.#cancelTouching ??= this.#clock.after(TOUCH_DELAY_MS, () => void this.#tell());
  }

  /** Tells Redis what was used. Never rejects. */
  async #tell(): Promise<void> {
    const touched = this.#touched;
    this.#touched = new Set();
    this.#cancelTouching?.();
    this.#cancelTouching = undefined;
    await this.#connection.touch(touched).catch(() => {});
  }

  async #damaged(place: BlockPlace): Promise<undefined> {
    this.#fault('damaged');
    const drop = this.#connection.run(DELETE_BLOCK, [place.block, place.row], placeArgs(place));
    await drop.catch(() => this.#fault('failed'));
  }

  #fault(fault: 'damaged' | 'failed' | 'overloaded'): undefined {
    this.#observer({ type: 'store_fault', store: 'block', fault });
  }

  #report(): void {
    const { bytes } = this;
    if (bytes === this.#reportedBytes) return;
    this.#reportedBytes = bytes;
    this.#observer({ type: 'stored', store: 'block', bytes });
  }
}

/** Start of the keys of the blocks beside this one, and its index among them. */
function placeArgs({ block, index }: BlockPlace): RedisArgument[] {
  return index === undefined ? ['', ''] : [block.slice(0, -String(index).length), String(index)];
}
