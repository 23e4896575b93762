import { ignoreObservations, type Observer } from '../observer.ts';
import { isWrongType, type RedisReply, unavailable } from './redis-client.ts';
import type { RedisConnection } from './redis-connection.ts';
import { assertPrefix, DEFAULT_PREFIX } from './redis-names.ts';
import { MAX_VALUE_BYTES } from './redis-connection.ts';
import type { Sealer } from './sealing.ts';
import type { RecordStore } from './types.ts';
import type { WriteQueue } from './write-queue.ts';

export interface RedisRecordStoreOptions {
  readonly connection: RedisConnection;
  readonly sealer: Sealer;
  /** Before every key. @default `peerdist:` */
  readonly prefix?: string | undefined;
  readonly observer?: Observer | undefined;
}

/** Bytes of one record; longer ones are not kept. What content information has for 16 GiB of content. Policy, not protocol. */
const MAX_RECORD_BYTES = MAX_VALUE_BYTES;

/** Records in Redis for all that share a server secret. Neither names nor values can be read there. */
export class RedisRecordStore implements RecordStore {
  readonly #connection: RedisConnection;
  readonly #sealer: Sealer;
  readonly #prefix: string;
  readonly #observer: Observer;
  readonly #writes: WriteQueue;
  #reportedBytes = 0;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a prefix that cannot be one */
  constructor({ connection, sealer, prefix = DEFAULT_PREFIX, observer }: RedisRecordStoreOptions) {
    this.#connection = connection;
    this.#sealer = sealer;
    this.#prefix = assertPrefix(prefix);
    this.#observer = observer ?? ignoreObservations;
    this.#writes = connection.queue();
  }

  /** Memory that Redis uses, for whatever: as of some seconds ago, 0 when unknown. */
  get bytes(): number {
    return this.#connection.usedMemory;
  }

  async get(name: string): Promise<Uint8Array | undefined> {
    try {
      for (const key of this.#keys(name)) {
        const value = await this.#read(key);
        if (value !== undefined) return value;
      }
    } catch {
      this.#fault('failed');
    }
    return undefined;
  }

  /** Resolves when the record is kept, or is not going to be. Never rejects. */
  async set(name: string, value: Uint8Array): Promise<void> {
    const [key, ...others] = this.#keys(name);
    try {
      if (value.byteLength > MAX_RECORD_BYTES) return void (await this.delete(name));
      const written = this.#writes.add(value.byteLength, async () => {
        const sealed = this.#sealer.seal(key, value);
        // An older value under an older name must not be found when this one has been evicted.
        await Promise.all([
          this.#connection.send(key, ['SET', key, sealed]),
          ...others.map((other) => this.#drop(other)),
        ]);
      });
      if (written === undefined) return this.#fault('overloaded');
      await written;
    } catch {
      return this.#fault('failed');
    }
    this.#report();
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` */
  async delete(name: string): Promise<boolean> {
    const drop = (): Promise<RedisReply[]> => Promise.all(this.#keys(name).map((key) => this.#drop(key)));
    const dropped = this.#writes.add(0, drop);
    if (dropped === undefined) throw unavailable('too much waits to be written to Redis');
    return (await dropped).includes(1);
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  written(): Promise<void> {
    return this.#writes.idle();
  }

  #keys(name: string): [string, ...string[]] {
    return this.#sealer.names(name).map((hidden) => `${this.#prefix}r:${hidden}`) as [string, ...string[]];
  }

  #drop(key: string): Promise<RedisReply> {
    return this.#connection.send(key, ['DEL', key]);
  }

  async #read(key: string): Promise<Uint8Array | undefined> {
    const sealed = await this.#connection.send(key, ['GET', key]).catch((error: unknown) => {
      if (isWrongType(error)) return '';
      throw error;
    });
    if (sealed === null) return undefined;
    if (!Buffer.isBuffer(sealed)) this.#fault('damaged');
    else {
      const value = this.#sealer.open(key, sealed);
      if (value !== undefined) return value;
      this.#fault('unsealed');
    }
    await this.#drop(key);
    return undefined;
  }

  #fault(fault: 'damaged' | 'unsealed' | 'failed' | 'overloaded'): undefined {
    this.#observer({ type: 'store_fault', store: 'content_information', fault });
  }

  #report(): void {
    const { bytes } = this;
    if (bytes === this.#reportedBytes) return;
    this.#reportedBytes = bytes;
    this.#observer({ type: 'stored', store: 'content_information', bytes });
  }
}
