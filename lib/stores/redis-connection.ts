/**
 * A Redis, Valkey or what speaks like them: one server, or a cluster whose servers each have some of the keys. It is a convenience: it may be away at any
 * time, and then everything fails at once.
 */
import { type Clock, systemClock } from '../clock.ts';
import {
  loadRedis,
  membersOf,
  type RedisArgument,
  type RedisReply,
  RedisReplyError,
  type RedisTls,
  unavailable,
} from './redis-client.ts';
import { CONNECT_TIMEOUT_MS } from './redis-node.ts';
import { RedisServers } from './redis-servers.ts';
import { slotOf } from './redis-slots.ts';
import { parseRedisUrl } from './redis-url.ts';
import { within } from './within.ts';
import { WriteQueue } from './write-queue.ts';

export interface RedisOptions {
  /** How a `rediss:` URL is verified. */
  readonly tls?: RedisTls | undefined;
  /** Told in a line when a server goes away and when it answers again. */
  readonly warn?: ((line: string) => void) | undefined;
  readonly clock?: Clock | undefined;
}

/** Milliseconds between two questions how much memory is used. Policy, not protocol. */
const MEMORY_PAUSE_MS = 5_000;
/** Milliseconds for what is on its way when the connection is closed. Policy, not protocol. */
const CLOSE_TIMEOUT_MS = 2_000;
/** Keys one command names. Policy, not protocol. */
const MAX_KEYS = 512;
/** Questions for the keys of one server: more than any has. Policy, not protocol. */
const MAX_SCANS = 10_000_000;
const SCAN_COUNT = '1000';

/**
 * Opens a connection, which never fails because Redis is away: it connects when it can, again and again.
 *
 * @param url `redis[s]://[user:password@]host[:port][,host[:port]…][/database]`; several hosts are a cluster, and so is one that says it is
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a URL that is none; `ERR_PEERDIST_STORE_UNAVAILABLE` when the package
 * `@redis/client` is not installed
 */
export async function openRedis(url: string, options: RedisOptions = {}): Promise<RedisConnection> {
  const { clock = systemClock, warn = () => {}, tls } = options;
  const target = parseRedisUrl(url);
  const makeClient = await loadRedis(target, tls, CONNECT_TIMEOUT_MS);
  const servers = new RedisServers({ servers: target.servers, makeClient, clock, warn });
  await within(clock, CONNECT_TIMEOUT_MS, servers.attempted());
  return new RedisConnection(servers, clock);
}

/** Made by {@link openRedis}; any number of stores may have the same one. */
export class RedisConnection {
  readonly #servers: RedisServers;
  readonly #clock: Clock;
  readonly #queues: WriteQueue[] = [];
  #inFlight = 0;
  #onSettled: () => void = () => {};
  #usedMemory = 0;
  #memoryAskedAt = -Infinity;
  #closing: Promise<void> | undefined;

  constructor(servers: RedisServers, clock: Clock) {
    this.#servers = servers;
    this.#clock = clock;
  }

  /** `away`: something that is asked now may fail, because a server does not answer. */
  state(): 'ready' | 'away' {
    const masters = this.#servers.masters();
    return masters.length > 0 && masters.every(({ isReady }) => isReady) ? 'ready' : 'away';
  }

  /** Bytes of memory that all servers use, for whatever: as of some seconds ago, 0 when unknown. */
  get usedMemory(): number {
    if (this.#clock.now() - this.#memoryAskedAt >= MEMORY_PAUSE_MS) {
      this.#memoryAskedAt = this.#clock.now();
      void this.#askMemory();
    }
    return this.#usedMemory;
  }

  /**
   * Sends a command to the server that has `key`; all its keys must be in one slot.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`; its cause is a {@link RedisReplyError} when the server refused
   */
  async send(key: string, args: readonly RedisArgument[]): Promise<RedisReply> {
    this.#inFlight += 1;
    try {
      return await this.#servers.send(key, args);
    } catch (error) {
      throw error instanceof RedisReplyError ? unavailable('Redis refused a command', error) : error;
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) this.#onSettled();
    }
  }

  /** Runs a Lua script. @throws as {@link send} */
  run(script: string, keys: readonly [string, ...string[]], args: readonly RedisArgument[] = []): Promise<RedisReply> {
    return this.send(keys[0], ['EVAL', script, String(keys.length), ...keys, ...args]);
  }

  /** Counts as a use of every key. @throws as {@link send} */
  async touch(keys: Iterable<string>): Promise<void> {
    const groups = new Map<number, string[]>();
    for (const key of keys) {
      const slot = this.#servers.isCluster ? slotOf(key) : 0;
      const group = groups.get(slot);
      if (group === undefined) groups.set(slot, [key]);
      else group.push(key);
    }
    for (const group of groups.values())
      for (let at = 0; at < group.length; at += MAX_KEYS) {
        const some = group.slice(at, at + MAX_KEYS);
        await this.send(some[0] as string, ['TOUCH', ...some]);
      }
  }

  /** Every key that matches, of all servers; one may come twice. @throws as {@link send} */
  async *scan(pattern: string): AsyncGenerator<readonly string[]> {
    const masters = this.#servers.masters();
    if (masters.length === 0) throw unavailable('Redis is away');
    for (const node of masters) {
      let cursor = '0';
      for (let scans = 0; scans < MAX_SCANS; scans += 1) {
        const reply = await node
          .send(['SCAN', cursor, 'MATCH', pattern, 'COUNT', SCAN_COUNT])
          .catch((error: unknown) => {
            throw unavailable('the keys in Redis could not be listed', error);
          });
        const [next, keys] = membersOf(reply);
        if (!Buffer.isBuffer(next)) throw unavailable('Redis replied what it should not');
        yield membersOf(keys).map(String);
        cursor = next.toString('latin1').slice(0, 20);
        if (cursor === '0') break;
      }
    }
  }

  /** A queue for writes, which {@link close} waits for. */
  queue(): WriteQueue {
    const queue = new WriteQueue();
    this.#queues.push(queue);
    return queue;
  }

  /** Waits for what is on its way, as long as that may take. Never rejects. */
  close(): Promise<void> {
    this.#closing ??= within(this.#clock, CLOSE_TIMEOUT_MS, this.#settled()).then(() => this.#servers.close());
    return this.#closing;
  }

  async #settled(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.idle()));
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve) => {
      this.#onSettled = resolve;
    });
  }

  async #askMemory(): Promise<void> {
    try {
      const replies = await Promise.all(this.#servers.masters().map((node) => node.send(['INFO', 'memory'])));
      const used = replies.map((reply) => Number(/^used_memory:(\d{1,15})\r$/m.exec(String(reply))?.[1] ?? 0));
      this.#usedMemory = used.reduce((sum, each) => sum + each, 0);
    } catch {
      this.#usedMemory = 0;
    }
  }
}
