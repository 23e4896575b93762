/** Composition of the proxy roles `reverse` and `branch` out of the plug-ins, and what they share with `head`. */
import { hashProvider, type HashProvider } from '../../../lib/crypto/index.ts';
import { Kit } from '../../../lib/kit/index.ts';
import { PeerDist } from '../../../lib/peerdist/index.ts';
import type { ServerSecret, V1AlgorithmName } from '../../../lib/protocol/pccrc/index.ts';
import { HashingPool } from '../../../lib/streams/index.ts';
import { createBlockCache } from '../../block-cache/index.ts';
import { createContentServer } from '../../content-server/index.ts';
import {
  createProxyServer,
  HttpProxyHost,
  type HttpProxyHostOptions,
  renewIdentity,
  type TlsIdentity,
} from '../../http-proxy/index.ts';
import { createMetrics, type Metrics } from '../../metrics/index.ts';
import type { Observer } from '../../../lib/observer.ts';
import { type Live, MAX_SHOWN } from '../../dashboard/index.ts';
import { AdminListener } from './admin.ts';
import type { Exchanges } from './exchanges.ts';
import { ownVersion } from '../version.ts';
import type { Member } from '../crew/member.ts';
import { joinNeighbourhood, type NeighbourhoodOptions } from './neighbourhood.ts';
import { type Display, type ListenerPlan, type Service, startService } from './service.ts';
import { memoryStore, openStores, type RoleName, type RoleStores, type StoreOptions } from './stores.ts';
import type { ListenAddress } from '../options/units.ts';

/** What a role shows of itself. */
export interface Shown {
  /** Name of the place, on every metric and in reports. */
  readonly site?: string | undefined;
  /** Those under way, and their log. */
  readonly exchanges?: Exchanges | undefined;
  /** Whether the dashboard names contents. @default false */
  readonly showsNames?: boolean | undefined;
  /** Keeps the savings of the past. */
  readonly keeper?: Display['keeper'];
}

/** What every proxy role takes. */
export interface RoleOptions extends Omit<HttpProxyHostOptions, 'proxy' | 'kit' | 'observer' | 'watch'>, Shown {
  readonly listen: ListenAddress;
  readonly admin: ListenAddress | undefined;
  /** What `/metrics`, `/events` and `/savings` want as a bearer token. @default nothing */
  readonly adminToken?: string | undefined;
  readonly tls?: TlsIdentity | undefined;
  /** @default in memory */
  readonly store?: StoreOptions | undefined;
  /** Told in a line what an administrator should know. */
  readonly warn?: ((line: string) => void) | undefined;
  /** Told in a line of what happens while it runs. @default nobody is */
  readonly notice?: ((line: string) => void) | undefined;
  readonly hashProvider?: HashProvider['name'] | undefined;
}

export interface ReverseOptions extends RoleOptions {
  readonly origin: string;
  readonly secret: ServerSecret;
  readonly algorithm?: V1AlgorithmName | undefined;
  readonly minBytes?: number | undefined;
  readonly maxBytes?: number | undefined;
  /** Threads that hash; 0 hashes on the main thread. @default 2: a version each */
  readonly hashThreads?: 0 | 1 | 2 | undefined;
}

export interface BranchOptions extends RoleOptions {
  /** Bytes for bodies that are on their way. @default 256 MiB */
  readonly pendingBytes?: number | undefined;
  readonly maxContentInformationVersion?: 1 | 2 | undefined;
  /** Whether CDN-Cache-Control goes before Cache-Control (RFC 9213). @default false */
  readonly cdnCacheControl?: boolean | undefined;
  /** What is described here is described with it, and siblings of the same site know each other by it. @default one for this run */
  readonly secret?: ServerSecret | undefined;
  /** Undefined for a branch proxy that is alone. */
  readonly neighbourhood?: NeighbourhoodOptions | undefined;
}

/** What the secret of a branch is for, beside {@link SiblingDirectory}. */
const SELF_DESCRIBED = 'peerdist self-described content, version 1';

/** Whose publications they are: the same on every machine that serves an origin. */
export const PUBLISHER = 'peerdist reverse';

/** Head office: an origin's content as content information. @param member where this process is one of several */
export async function startReverse(options: ReverseOptions, member?: Member): Promise<Service> {
  const { metrics, admin, stores } = await open('reverse', options, member);
  const { observer } = metrics;
  const threads = options.hashThreads ?? 2;
  const pool = threads === 0 ? undefined : new HashingPool(threads);
  const peerdist = await PeerDist.open({
    identity: PUBLISHER,
    serverSecret: options.secret,
    algorithm: options.algorithm,
    components: {
      hashProvider: hashProvider(options.hashProvider ?? 'native'),
      contentInformationStore: stores.contentInformation,
      createEngine: pool && ((hashing) => pool.createEngine(hashing)),
      observer,
    },
  });
  const contentServer = createContentServer({
    peerdist,
    minBytes: options.minBytes,
    maxBytes: options.maxBytes,
    records: stores.records,
    // Between machines rather than between the processes of one: it covers both.
    claims: stores.claims ?? member?.claims,
    observer,
  });
  const kit = new Kit({ plugins: [contentServer], observer });
  const host = new HttpProxyHost(hostOptions(options, kit, observer));
  const live = async (): Promise<Live> => ({ ...liveOf(options), neighbours: [] });
  const display = { ...options, role: 'reverse', live };
  return startProxy({ ...options, admin, display, host, kit, peerdist, metrics, stores, onStop: () => pool?.close() });
}

/** Branch: any HTTP client's content out of verified blocks. @param member where this process is one of several */
export async function startBranch(options: BranchOptions, member?: Member): Promise<Service> {
  const { metrics, admin, stores } = await open('branch', options, member);
  const { observer } = metrics;
  const { neighbourhood } = options;
  const { secret } = options;
  const isShared = options.store?.kind === 'redis';
  const surroundings = { store: stores.blocks, finder: member?.finder, secret, isShared, observer };
  const neighbours = await (neighbourhood && joinNeighbourhood(neighbourhood, surroundings))?.catch(async (error) => {
    await stores.close();
    await admin?.close(0);
    throw error;
  });
  const peerdist = await PeerDist.open({
    serverSecret: secret?.derive(SELF_DESCRIBED),
    components: {
      hashProvider: hashProvider(options.hashProvider ?? 'native'),
      blockStore: stores.blocks,
      sources: neighbours?.sources,
      onOriginBlock: neighbours?.onOriginBlock,
      claims: member?.claims,
      observer,
    },
  });
  const blockCache = createBlockCache({
    peerdist,
    maxPendingBytes: options.pendingBytes,
    maxContentInformationVersion: options.maxContentInformationVersion,
    maxContentBytes: largestContent(options.store),
    cdnCacheControl: options.cdnCacheControl,
    // A head makes the hashes of what nobody has asked for yet, where it is asked for them.
    hashRequestFirst: options.upstream !== undefined,
    directory: neighbours?.directory,
    records: stores.records,
    observer,
  });
  const kit = new Kit({ plugins: [blockCache], observer });
  const upstream = options.upstream && { ...options.upstream, warn: options.notice };
  const host = new HttpProxyHost(hostOptions({ ...options, upstream }, kit, observer));
  const live = async (): Promise<Live> => ({
    ...liveOf(options),
    neighbours: neighbours?.neighbours().slice(0, MAX_SHOWN) ?? [],
  });
  const display = { ...options, role: 'branch', live };
  const peers = neighbours?.server &&
    neighbourhood?.listen && { role: 'peers' as const, server: neighbours.server, listen: neighbourhood.listen };
  const onLeave = (): void => neighbours?.leave();
  const onStop = async (): Promise<void> => neighbours?.close();
  return startProxy({ ...options, admin, display, host, kit, peerdist, metrics, stores, peers, onLeave, onStop });
}

type ProxyRole = Exclude<RoleName, 'hosted'>;

/** One content may take half of a store; with a longer one nothing else would be left. Policy. */
export function largestContent(store: StoreOptions | undefined): number | undefined {
  return store === undefined || store.kind === 'redis' ? undefined : Math.floor(store.maxBytes / 2);
}

/** What every role has before it is put together: the administrator's listener says meanwhile that it is starting. */
export async function open(
  role: ProxyRole,
  options: RoleOptions,
  member: Member | undefined,
): Promise<{ readonly metrics: Metrics; readonly admin: AdminListener | undefined; readonly stores: RoleStores }> {
  const metrics = createMetrics({ site: options.site, role, version: ownVersion() });
  const admin = options.admin && (await AdminListener.open({ address: options.admin, token: options.adminToken }));
  try {
    return { metrics, admin, stores: await openRoleStores(role, options, metrics, member) };
  } catch (error) {
    await admin?.close(0);
    throw error;
  }
}

export function hostOptions(options: RoleOptions, kit: Kit, observer: Observer): HttpProxyHostOptions {
  return { ...options, proxy: createProxyServer(), kit, observer, watch: options.exchanges?.watch };
}

export function liveOf({ exchanges }: Shown): Omit<Live, 'neighbours'> {
  return exchanges?.live() ?? { downloads: [], downloadCount: 0, contents: [] };
}

function openRoleStores(
  role: ProxyRole,
  { store = memoryStore(role), warn = () => {} }: RoleOptions,
  { observer }: Metrics,
  member: Member | undefined,
): Promise<RoleStores> {
  return openStores(store, { role, observer, warn, isGuest: member !== undefined });
}

interface ProxyParts extends Pick<RoleOptions, 'listen' | 'tls'> {
  readonly admin: AdminListener | undefined;
  readonly display: Display;
  readonly host: HttpProxyHost;
  readonly kit: Kit;
  readonly peerdist: PeerDist;
  readonly metrics: Metrics;
  readonly stores: RoleStores;
  readonly peers?: ListenerPlan | undefined;
  readonly onLeave?: (() => void) | undefined;
  readonly onStop: () => Promise<void> | undefined;
}

/** A proxy host with its listeners; it keeps clients from elsewhere away from all of them. */
export function startProxy(parts: ProxyParts): Promise<Service> {
  const { host, kit, peerdist, metrics, stores, listen, admin, display, tls, peers, onLeave, onStop } = parts;
  const clients = { role: 'clients', server: host.createServer(tls), listen } as const;
  return startService({
    listeners: peers === undefined ? [clients] : [clients, peers],
    admin,
    display,
    metrics,
    trouble: () => stores.trouble() ?? host.trouble,
    onServer: (server) => host.shelter(server),
    start: () => kit.start(),
    leave: onLeave,
    adjust: ({ allowClients, tls: identity }) => {
      host.allowClients(allowClients);
      if (identity !== undefined) renewIdentity(clients.server, identity);
    },
    stop: async () => {
      await kit.stop();
      host.close();
      await peerdist.close();
      await onStop();
      await stores.close();
    },
  });
}
