import { Kit, type Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import type { PeerAddress } from '../../lib/protocol/pccrd/index.ts';
import { type BlockSource, PeerSource } from '../../lib/services/index.ts';
import type { BlockStore, RecordStore } from '../../lib/stores/index.ts';
import { createBlockCache } from '../block-cache/index.ts';
import { assertAmounts, assertKnownOptions, assertNoParts } from './closed-options.ts';

/** What the adapters on the side of the client take. */
export interface ReadingOptions {
  /** Reads content; stays open when the adapter is closed. @default one of the adapter's own, made of the next three */
  readonly peerdist?: PeerDist | undefined;
  /** The cache of blocks. @default in memory, 256 MiB */
  readonly blockStore?: BlockStore | undefined;
  /** Peers that are asked for blocks before the origin. @default none */
  readonly peers?: readonly PeerAddress[] | undefined;
  /** Further places blocks come from, asked after `peers` and before the origin; they stay open. @default none */
  readonly sources?: readonly BlockSource[] | undefined;
  /** Keeps across restarts what is known of contents; the store of blocks has to be durable too. @default in memory */
  readonly records?: RecordStore | undefined;
  /** Bytes of plain bodies held until their content information arrives, all together. @default 256 MiB */
  readonly maxPendingBytes?: number | undefined;
  /** Told what happens, for metrics. */
  readonly observer?: Observer | undefined;
}

export const READING_OPTIONS: readonly (keyof ReadingOptions)[] = [
  'peerdist',
  'blockStore',
  'peers',
  'sources',
  'records',
  'maxPendingBytes',
  'observer',
];

/** A kit with the block cache in it, for programs that make requests themselves. */
export class CachedClient {
  readonly #kit: Promise<Kit>;
  readonly #ownPeers: PeerSource | undefined;
  #ownPeerDist: PeerDist | undefined;
  #isClosed = false;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  constructor(options: ReadingOptions = {}) {
    assertKnownOptions(options, READING_OPTIONS);
    const { peerdist, blockStore, peers, sources, maxPendingBytes, observer } = options;
    assertNoParts(peerdist, { blockStore, peers, sources });
    assertAmounts({ maxPendingBytes });
    this.#ownPeers = peers && new PeerSource({ peers, observer });
    this.#kit = this.#open(options);
    // Whoever asks sees it; until then it is nobody's.
    this.#kit.catch(() => {});
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** One exchange through the cache. */
  async exchange(request: ProxyRequest, origin: Next): Promise<ProxyResponse> {
    return (await this.#kit).through(origin)(request);
  }

  /** Tells the cache of an answer to a request that went past it: an unsafe one makes what is known of its target invalid (RFC 9111 4.4). */
  async notice(request: ProxyRequest, status: number): Promise<void> {
    await this.exchange(request, async () => new ProxyResponse({ status, headers: {}, body: null }));
  }

  /** Ends it. A PeerDist and sources that were given stay open. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const kit = await this.#kit.catch(() => undefined);
    await kit?.stop();
    await this.#ownPeerDist?.close();
    this.#ownPeers?.close();
  }

  async #open({
    peerdist,
    blockStore,
    sources = [],
    records,
    maxPendingBytes,
    observer,
  }: ReadingOptions): Promise<Kit> {
    let reader = peerdist;
    if (reader === undefined) {
      const all = this.#ownPeers === undefined ? sources : [this.#ownPeers, ...sources];
      reader = await PeerDist.open({ components: { blockStore, sources: all, observer } });
      this.#ownPeerDist = reader;
    }
    // A program that calls a request off means it: nobody else is going to come for the rest.
    const plugins = [createBlockCache({ peerdist: reader, records, maxPendingBytes, lingerMs: 0, observer })];
    const kit = new Kit({ plugins, observer });
    await kit.start();
    return kit;
  }
}
