/**
 * A Redis, Valkey or what speaks like them: one server, or a cluster. It is a convenience: it may be away at any time, and then everything fails at
 * once. Connecting again, and finding who has which key, is the business of the clients.
 */
import { type Clock, systemClock } from '../clock.ts';
import { PeerDistError } from '../errors.ts';
import {
  type Client,
  type ClusterClient,
  CONNECT_TIMEOUT_MS,
  destroy,
  isRefusal,
  MAX_IN_FLIGHT,
  membersOf,
  reasonOf,
  type RedisArgument,
  redisClients,
  type RedisClients,
  type RedisReply,
  type RedisTls,
  type SingleClient,
  unavailable,
} from './redis-client.ts';
import { within } from './within.ts';
import { WriteQueue } from './write-queue.ts';

export interface RedisOptions {
  /** How a `rediss:` URL is verified. */
  readonly tls?: RedisTls | undefined;
  /** Told in a line when Redis goes away and when it answers again. */
  readonly warn?: ((line: string) => void) | undefined;
  readonly clock?: Clock | undefined;
}

/** Milliseconds for one command. Policy, not protocol. */
const COMMAND_TIMEOUT_MS = 500;
/** Commands in a row without an answer in time, until Redis is taken for away; milliseconds until it is tried again. Policy, not protocol. */
const MAX_TIMEOUTS = 3;
const TRY_AGAIN_MS = 1_000;
/** Milliseconds without an answer or an error until a connection is given up for another: the system may take a quarter of an hour. Policy. */
const SILENCE_MS = 6_000;
/** Milliseconds between two questions how much memory is used, and for what is on its way at the end. Policy, not protocol. */
const MEMORY_PAUSE_MS = 5_000;
const CLOSE_TIMEOUT_MS = 2_000;
/** Keys one command names, and that one step of a scan looks at. Policy, not protocol. */
const MAX_KEYS = 512;
const SCAN_COUNT = '1000';
/** Steps of a scan of one server: more than any has. Policy, not protocol. */
const MAX_SCANS = 10_000_000;
/** Bytes of the largest value. Policy, not protocol. */
export const MAX_VALUE_BYTES = 16 * 1024 * 1024;
/**
 * Opens a connection, which never fails because Redis is away: it connects when it can, again and again.
 *
 * @param url `redis[s]://[user:password@]host[:port][,host[:port]…][/database]`; several hosts are a cluster, and so is one that says it is
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a URL that is none; `ERR_PEERDIST_STORE_UNAVAILABLE` when the package
 * `@redis/client` is not installed
 */
export async function openRedis(
  url: string,
  { tls, warn = () => {}, clock = systemClock }: RedisOptions = {},
): Promise<RedisConnection> {
  const clients = await redisClients(url, tls);
  const connection = new RedisConnection(clients, { warn, clock });
  await within(clock, CONNECT_TIMEOUT_MS, connection.attempted);
  return connection;
}

/** Made by {@link openRedis}; any number of stores may have the same one. */
export class RedisConnection {
  /** Resolves when the first attempt to connect is over. */
  readonly attempted: Promise<void>;
  readonly #makeSingle: (() => SingleClient) | undefined;
  readonly #makeCluster: () => ClusterClient;
  readonly #warn: (line: string) => void;
  readonly #clock: Clock;
  readonly #queues: WriteQueue[] = [];
  #single: SingleClient | undefined;
  #cluster: ClusterClient | undefined;
  #inFlight = 0;
  #timeouts = 0;
  #isAway = true;
  #hasWarned = false;
  #lastError: Error | undefined;
  #heardAt: number;
  #usedMemory = 0;
  #memoryAskedAt = -Infinity;
  #trying: Promise<void> | undefined;
  #cancelTrying: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(
    { makeSingle, makeCluster }: RedisClients,
    { warn, clock }: { readonly warn: (line: string) => void; readonly clock: Clock },
  ) {
    this.#makeSingle = makeSingle;
    this.#makeCluster = makeCluster;
    this.#warn = warn;
    this.#clock = clock;
    this.#heardAt = clock.now();
    this.attempted = this.#begin();
  }

  /** `away`: something that is asked now fails at once. */
  state(): 'ready' | 'away' {
    return this.#isAway ? 'away' : 'ready';
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
   * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`, at once while Redis is away; its cause is the error it replied
   */
  async send(key: string, args: readonly RedisArgument[]): Promise<RedisReply> {
    if (this.#isAway) throw unavailable('Redis is away');
    return this.#ask(() => this.#cluster?.sendCommand(key, false, args) ?? this.#single?.sendCommand(args));
  }

  /** Runs a Lua script. @throws as {@link send} */
  run(script: string, keys: readonly [string, ...string[]], args: readonly RedisArgument[] = []): Promise<RedisReply> {
    return this.send(keys[0], ['EVAL', script, String(keys.length), ...keys, ...args]);
  }

  /** Counts as a use of every key. @throws as {@link send} */
  async touch(keys: Iterable<string>): Promise<void> {
    // In a cluster, keys of one command must be in one slot: those with the same `{…}` are.
    const groups = new Map<string, string[]>();
    for (const key of keys) {
      const place = this.#cluster === undefined ? '' : (/\{(.+?)\}/.exec(key)?.[1] ?? key);
      const group = groups.get(place);
      if (group === undefined) groups.set(place, [key]);
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
    for (const client of await this.#servers()) {
      let cursor = '0';
      for (let scans = 0; scans < MAX_SCANS; scans += 1) {
        const from = cursor;
        const reply = await this.#ask(() => client.sendCommand(['SCAN', from, 'MATCH', pattern, 'COUNT', SCAN_COUNT]));
        const [next, keys] = membersOf(reply);
        yield membersOf(keys).map(String);
        cursor = String(next);
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
    this.#closing ??= within(
      this.#clock,
      CLOSE_TIMEOUT_MS,
      Promise.all(this.#queues.map((queue) => queue.idle())),
    ).then(() => {
      this.#isAway = true;
      this.#cancelTrying?.();
      for (const client of [this.#single, this.#cluster]) destroy(client);
    });
    return this.#closing;
  }

  /** Resolves when one attempt is over. Never rejects. */
  #begin(): Promise<void> {
    this.#heardAt = this.#clock.now();
    if (this.#makeSingle === undefined) return this.#try();
    const single = this.#hear(this.#makeSingle());
    this.#single = single;
    // Its own attempts go on for ever; each time one succeeds, we look what it is worth.
    const attempted = new Promise<void>((resolve) => {
      single.on('error', () => {
        if (this.#single === single) this.#leave();
        resolve();
      });
      single.on('ready', () => void this.#try().then(resolve));
    });
    single.connect().catch(() => {});
    // It may neither succeed nor fail.
    this.#cancelTrying ??= this.#clock.after(CONNECT_TIMEOUT_MS, () => void this.#try());
    return attempted;
  }

  /** Looks whether Redis answers, and does so again and again until it does. Never rejects. */
  #try(): Promise<void> {
    this.#cancelTrying?.();
    this.#cancelTrying = undefined;
    this.#trying ??= this.#look().finally(() => {
      this.#trying = undefined;
    });
    return this.#trying;
  }

  async #look(): Promise<void> {
    try {
      if (this.#single === undefined) await this.#joinCluster();
      else if (await this.#isClustered()) await this.#joinCluster();
      for (const client of await this.#servers()) await this.#ask(() => client.sendCommand(['PING']));
      this.#timeouts = 0;
      this.#isAway = false;
      if (this.#hasWarned) this.#warn('Redis answers again');
      this.#hasWarned = false;
    } catch {
      if (this.#clock.now() - this.#heardAt >= SILENCE_MS) this.#renew();
      this.#leave();
    }
  }

  /** A connection that is lost without a word is not noticed by those who have it. */
  #renew(): void {
    const [single, cluster] = [this.#single, this.#cluster];
    this.#single = this.#cluster = undefined;
    for (const client of [single, cluster]) destroy(client);
    if (this.#closing === undefined) void this.#begin();
  }

  /** A server that may not be asked is taken for one that is alone. */
  async #isClustered(): Promise<boolean> {
    try {
      return /cluster_enabled:1/.test(String(await this.#ask(() => this.#single?.sendCommand(['INFO', 'cluster']))));
    } catch (error) {
      if (isRefusal((error as Error).cause)) return false;
      throw error;
    }
  }

  async #joinCluster(): Promise<void> {
    if (this.#cluster?.isOpen === true) return;
    const cluster = this.#hear(this.#makeCluster());
    try {
      await within(this.#clock, CONNECT_TIMEOUT_MS, cluster.connect());
      if (cluster.masters.length === 0) throw unavailable('the cluster has no servers');
    } catch (error) {
      destroy(cluster);
      throw error;
    }
    this.#cluster = cluster;
    destroy(this.#single);
    this.#single = undefined;
  }

  /** Errors that nobody has asked for are of use only to say why it is away. */
  #hear<C extends Client>(client: C): C {
    client.on('error', (error) => {
      this.#lastError = error;
      this.#heardAt = this.#clock.now();
    });
    return client;
  }

  async #servers(): Promise<readonly SingleClient[]> {
    const cluster = this.#cluster;
    if (cluster === undefined) return this.#single === undefined ? [] : [this.#single];
    return Promise.all(cluster.masters.map((master) => cluster.nodeClient(master)));
  }

  async #ask(send: () => Promise<unknown> | undefined): Promise<RedisReply> {
    if (this.#inFlight >= MAX_IN_FLIGHT) throw unavailable('too much waits for Redis');
    this.#inFlight += 1;
    let cancel = (): void => {};
    const late = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.after(COMMAND_TIMEOUT_MS, () => {
        this.#timeouts += 1;
        if (this.#timeouts >= MAX_TIMEOUTS) this.#leave();
        reject(unavailable('Redis did not answer in time'));
      });
    });
    const answer = (async () => send())().finally(() => {
      this.#inFlight -= 1;
    });
    answer.catch(() => {});
    try {
      const reply = await Promise.race([answer, late]);
      this.#timeouts = 0;
      this.#heardAt = this.#clock.now();
      return reply as RedisReply;
    } catch (cause) {
      if (cause instanceof PeerDistError) throw cause;
      if (isRefusal(cause)) {
        this.#heardAt = this.#clock.now();
        throw unavailable('Redis refused a command', cause);
      }
      this.#leave();
      throw unavailable('the connection to Redis was lost', cause);
    } finally {
      cancel();
    }
  }

  /** Nobody waits for it any more, until it answers again. */
  #leave(): void {
    this.#isAway = true;
    if (this.#closing !== undefined) return;
    if (!this.#hasWarned) this.#warn(`Redis is away${reasonOf(this.#lastError)}; going on without it`);
    this.#hasWarned = true;
    this.#cancelTrying ??= this.#clock.after(TRY_AGAIN_MS, () => void this.#try());
  }

  async #askMemory(): Promise<void> {
    try {
      const infos = await Promise.all(
        (await this.#servers()).map((client) => this.#ask(() => client.sendCommand(['INFO', 'memory']))),
      );
      const used = infos.map((info) => Number(/^used_memory:(\d+)\r$/m.exec(String(info))?.[1] ?? 0));
      this.#usedMemory = used.reduce((sum, each) => sum + each, 0);
    } catch {
      this.#usedMemory = 0;
    }
  }
}
