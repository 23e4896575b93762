import type { Clock } from '../clock.ts';
import { type MakeClient, type RedisArgument, type RedisReply, RedisReplyError, unavailable } from './redis-client.ts';
import { RedisNode } from './redis-node.ts';
import { addressOf, parseSlots, type SlotRange, SLOTS, slotOf } from './redis-slots.ts';
import type { RedisServer } from './redis-url.ts';

export interface RedisServersOptions {
  readonly servers: readonly RedisServer[];
  readonly makeClient: MakeClient;
  readonly clock: Clock;
  readonly warn: (line: string) => void;
}

/** Milliseconds between two questions who has which keys. Policy, not protocol. */
const DISCOVERY_PAUSE_MS = 1_000;

/**
 * The servers of one Redis and which of them has a key. They are asked (`CLUSTER SLOTS`) when somebody answers for the first time, and whenever one
 * comes, goes, or says that a key is elsewhere. Nothing waits for that.
 */
export class RedisServers {
  readonly #options: RedisServersOptions;
  readonly #clock: Clock;
  /** Those of the URL, which remain, and those the cluster names. */
  readonly #nodes = new Map<string, RedisNode>();
  /** Who has each slot; one that has them all; undefined until somebody has been asked. */
  #owners: readonly (RedisNode | undefined)[] | RedisNode | undefined;
  #discovering: Promise<void> | undefined;
  #discoveredAt = -Infinity;
  #cancelDiscovery: (() => void) | undefined;
  #hasWarned = false;
  #isClosed = false;

  constructor(options: RedisServersOptions) {
    this.#options = options;
    this.#clock = options.clock;
    for (const server of options.servers) this.#node(server);
  }

  get isCluster(): boolean {
    return Array.isArray(this.#owners);
  }

  /** Those who have keys; none until somebody has been asked. */
  masters(): readonly RedisNode[] {
    if (this.#owners instanceof RedisNode) return [this.#owners];
    return [...new Set(this.#owners)].filter((node) => node !== undefined);
  }

  /** Resolves when every server that is known of has been tried once. Never rejects. */
  async attempted(): Promise<void> {
    await Promise.all([...this.#nodes.values()].map((node) => node.attempted));
    await this.#discover();
    await Promise.all([...this.#nodes.values()].map((node) => node.attempted));
  }

  /** Sends a command to whoever has `key`. @throws as {@link RedisNode.send} */
  async send(key: string, args: readonly RedisArgument[]): Promise<RedisReply> {
    const owners = this.#owners;
    const node = owners instanceof RedisNode ? owners : owners?.[slotOf(key)];
    if (node?.isReady !== true) {
      // Somebody else may have its keys by now.
      if (!(owners instanceof RedisNode)) this.#discoverSoon();
      throw unavailable('Redis is away');
    }
    try {
      return await node.send(args);
    } catch (error) {
      if (!(error instanceof RedisReplyError) || error.target === undefined) throw error;
      if (error.code === 'MOVED') this.#discoverSoon();
      const target = error.target.startsWith(':') ? node.host + error.target : error.target;
      const other = this.#nodes.get(target);
      if (other === undefined) throw error;
      return other.send(args, error.code === 'ASK');
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelDiscovery?.();
    for (const node of this.#nodes.values()) node.close();
  }

  #node(server: RedisServer): RedisNode {
    const { makeClient, warn } = this.#options;
    const address = addressOf(server);
    const known = this.#nodes.get(address);
    if (known !== undefined) return known;
    const onChange = ({ isReady }: RedisNode): void => {
      if (this.#owners === undefined && isReady) void this.#discover();
      else this.#discoverSoon();
    };
    const node = new RedisNode({ ...server, makeClient, clock: this.#clock, warn, onChange });
    this.#nodes.set(address, node);
    return node;
  }

  #discoverSoon(): void {
    if (this.#cancelDiscovery !== undefined || this.#isClosed) return;
    const pauseMs = this.#discoveredAt + DISCOVERY_PAUSE_MS - this.#clock.now();
    this.#cancelDiscovery = this.#clock.after(Math.max(0, pauseMs), () => {
      this.#cancelDiscovery = undefined;
      void this.#discover();
    });
  }

  /** Asks who has which keys, until one knows. Never rejects. */
  #discover(): Promise<void> {
    this.#discovering ??= this.#askAround().finally(() => {
      this.#discovering = undefined;
    });
    return this.#discovering;
  }

  async #askAround(): Promise<void> {
    this.#discoveredAt = this.#clock.now();
    const ready = [...this.#nodes.values()].filter(({ isReady }) => isReady);
    for (const node of ready) {
      try {
        const ranges = parseSlots(await node.send(['CLUSTER', 'SLOTS']), node.host);
        if (ranges.length > 0) return this.#divide(ranges);
      } catch (error) {
        // A server that is no cluster refuses, or may not be asked.
        const isAlone = error instanceof RedisReplyError && /^(?:ERR|NOPERM)$/.test(error.code);
        if (isAlone && this.#options.servers.length === 1) {
          this.#owners = node;
          return undefined;
        }
        if (isAlone && !this.#hasWarned) this.#options.warn(`Redis at ${node.address} is not in a cluster`);
        this.#hasWarned ||= isAlone;
      }
    }
    if (ready.length > 0) this.#discoverSoon();
    return undefined;
  }

  #divide(ranges: readonly SlotRange[]): void {
    if (this.#isClosed) return;
    const owners = Array.from<RedisNode | undefined>({ length: SLOTS });
    for (const range of ranges) owners.fill(this.#node(range), range.first, range.last + 1);
    this.#owners = owners;
    const named = new Set([...this.#options.servers, ...ranges].map(addressOf));
    for (const [address, node] of this.#nodes) {
      if (named.has(address)) continue;
      this.#nodes.delete(address);
      node.close();
    }
  }
}
