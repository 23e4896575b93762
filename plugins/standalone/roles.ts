/** Composition of the two roles out of the plug-ins. */
import { hashProvider, type HashProvider } from '../../lib/crypto/index.ts';
import { Kit } from '../../lib/kit/index.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import type { ServerSecret, V1AlgorithmName } from '../../lib/protocol/pccrc/index.ts';
import { HashingPool } from '../../lib/streams/index.ts';
import { MemoryBlockStore, MemoryContentInformationStore } from '../../lib/stores/index.ts';
import { createBlockCache } from '../block-cache/index.ts';
import { createContentServer } from '../content-server/index.ts';
import { createProxyServer, HttpProxyHost, type HttpProxyHostOptions, type TlsIdentity } from '../http-proxy/index.ts';
import { createMetrics, type Metrics } from '../metrics/index.ts';
import { joinNeighbourhood, type NeighbourhoodOptions } from './neighbourhood.ts';
import { type ListenerPlan, type Service, startService } from './service.ts';
import type { ListenAddress } from './units.ts';

/** What both roles take. */
export interface RoleOptions extends Omit<HttpProxyHostOptions, 'proxy' | 'kit' | 'observer'> {
  readonly listen: ListenAddress;
  readonly admin: ListenAddress | undefined;
  readonly tls?: TlsIdentity | undefined;
  readonly hashProvider?: HashProvider['name'] | undefined;
}

export interface ReverseOptions extends RoleOptions {
  readonly origin: string;
  readonly secret: ServerSecret;
  readonly algorithm?: V1AlgorithmName | undefined;
  readonly minBytes?: number | undefined;
  readonly maxBytes?: number | undefined;
  /** Bytes for content information. @default 256 MiB */
  readonly storeBytes?: number | undefined;
  /** Threads that hash; 0 hashes on the main thread. @default 2: a version each */
  readonly hashThreads?: 0 | 1 | 2 | undefined;
}

export interface BranchOptions extends RoleOptions {
  /** Bytes for blocks. @default 1 GiB */
  readonly cacheBytes?: number | undefined;
  /** Bytes for plain bodies whose content information is not there yet. @default 256 MiB */
  readonly pendingBytes?: number | undefined;
  readonly maxContentInformationVersion?: 1 | 2 | undefined;
  /** Undefined for a branch proxy that is alone. */
  readonly neighbourhood?: NeighbourhoodOptions | undefined;
}

/** Head office: an origin's content as content information. */
export async function startReverse(options: ReverseOptions): Promise<Service> {
  const metrics = createMetrics();
  const { observer } = metrics;
  const threads = options.hashThreads ?? 2;
  const pool = threads === 0 ? undefined : new HashingPool(threads);
  const peerdist = await PeerDist.open({
    serverSecret: options.secret,
    algorithm: options.algorithm,
    components: {
      hashProvider: hashProvider(options.hashProvider ?? 'native'),
      contentInformationStore: new MemoryContentInformationStore({
        maxBytes: options.storeBytes ?? 256 * 1024 * 1024,
        observer,
      }),
      createEngine: pool && ((hashing) => pool.createEngine(hashing)),
      observer,
    },
  });
  const kit = new Kit({
    plugins: [createContentServer({ peerdist, minBytes: options.minBytes, maxBytes: options.maxBytes, observer })],
    observer,
  });
  const host = new HttpProxyHost({ ...options, proxy: createProxyServer(), kit, observer });
  return startProxy({ ...options, host, kit, peerdist, metrics, onStop: () => pool?.close() });
}

/** Branch: any HTTP client's content out of verified blocks. */
export async function startBranch(options: BranchOptions): Promise<Service> {
  const metrics = createMetrics();
  const { observer } = metrics;
  const blockStore = new MemoryBlockStore({ maxBytes: options.cacheBytes ?? 1024 * 1024 * 1024, observer });
  const { neighbourhood } = options;
  const neighbours = neighbourhood && (await joinNeighbourhood(neighbourhood, { store: blockStore, observer }));
  const peerdist = await PeerDist.open({
    components: {
      hashProvider: hashProvider(options.hashProvider ?? 'native'),
      blockStore,
      sources: neighbours?.sources,
      onOriginBlock: neighbours?.onOriginBlock,
      observer,
    },
  });
  const kit = new Kit({
    plugins: [
      createBlockCache({
        peerdist,
        maxPendingBytes: options.pendingBytes,
        maxContentInformationVersion: options.maxContentInformationVersion,
        observer,
      }),
    ],
    observer,
  });
  const host = new HttpProxyHost({ ...options, proxy: createProxyServer(), kit, observer });
  const peers = neighbours?.server &&
    neighbourhood?.listen && { role: 'peers' as const, server: neighbours.server, listen: neighbourhood.listen };
  return startProxy({ ...options, host, kit, peerdist, metrics, peers, onStop: async () => neighbours?.close() });
}

interface ProxyParts extends Pick<RoleOptions, 'listen' | 'admin' | 'tls'> {
  readonly host: HttpProxyHost;
  readonly kit: Kit;
  readonly peerdist: PeerDist;
  readonly metrics: Metrics;
  readonly peers?: ListenerPlan | undefined;
  readonly onStop: () => Promise<void> | undefined;
}

/** A proxy host with its listeners; it keeps clients from elsewhere away from all of them. */
function startProxy({ host, kit, peerdist, metrics, listen, admin, tls, peers, onStop }: ProxyParts): Promise<Service> {
  const clients = { role: 'clients', server: host.createServer(tls), listen } as const;
  return startService({
    listeners: peers === undefined ? [clients] : [clients, peers],
    admin,
    metrics,
    onServer: (server) => host.shelter(server),
    start: () => kit.start(),
    stop: async () => {
      await kit.stop();
      host.close();
      await peerdist.close();
      await onStop();
    },
  });
}
