/** Composition of a hosted cache: store, offers, retrieval, what an administrator puts in, and a branch proxy on the same blocks if wanted. */
import { rmSync } from 'node:fs';
import { Server as TlsServer } from 'node:https';
import type { TlsOptions } from 'node:tls';
import { hashProvider, type HashProvider } from '../../../lib/crypto/index.ts';
import { Kit } from '../../../lib/kit/index.ts';
import type { Observer } from '../../../lib/observer.ts';
import { PeerDist } from '../../../lib/peerdist/index.ts';
import {
  createSealedSource,
  isNeighbour,
  type OfferAuthentication,
  SealingStore,
} from '../../../lib/services/index.ts';
import type { BlockStore } from '../../../lib/stores/index.ts';
import { createBlockCache } from '../../block-cache/index.ts';
import { HostedCacheService } from '../../hosted-cache/index.ts';
import {
  createProxyServer,
  HttpProxyHost,
  isLoopback,
  networkSet,
  PRIVATE_NETWORKS,
  type TlsIdentity,
} from '../../http-proxy/index.ts';
import { createMetrics } from '../../metrics/index.ts';
import type { Member } from '../crew/member.ts';
import { AdminListener } from './admin.ts';
import { createFillRoutes } from './hosted-fill.ts';
import { liveOf, type Shown } from './roles.ts';
import { ownVersion } from '../version.ts';
import { type ListenerPlan, type Service, startService } from './service.ts';
import { memoryStore, openStores, type StoreOptions } from './stores.ts';
import type { ListenAddress } from '../options/units.ts';

export interface HostedOptions extends Shown {
  readonly listen: ListenAddress;
  readonly admin: ListenAddress | undefined;
  /** What `/metrics`, `/events` and `/savings` want as a bearer token. @default nothing */
  readonly adminToken?: string | undefined;
  /** @default in memory */
  readonly store?: StoreOptions | undefined;
  /** Told in a line what an administrator should know. */
  readonly warn?: ((line: string) => void) | undefined;
  /** Version 1 offers; undefined takes none. */
  readonly offers?:
    | {
        readonly listen: ListenAddress;
        readonly identity: TlsIdentity;
        /** TLS 1.0 and 1.1 too. @default false */
        readonly legacyTls?: boolean | undefined;
        /** Authorities that client certificates must come from, PEM; undefined asks for none. */
        readonly clientCa?: string | undefined;
        readonly authenticate?: OfferAuthentication | undefined;
      }
    | undefined;
  /** Networks that may offer and ask. @default loopback, private networks and this machine's own subnets */
  readonly allowClients?: readonly string[] | undefined;
  readonly allowLocalOffers?: boolean | undefined;
  /** Bytes one client may bring in an hour. @default half of the cache; 1 GiB where its limit is not ours */
  readonly clientBytesPerHour?: number | undefined;
  /** @default 1024 */
  readonly maxUploads?: number | undefined;
  /** Where to be a branch proxy too. */
  readonly proxy?: ListenAddress | undefined;
  readonly hashProvider?: HashProvider['name'] | undefined;
  /** Where downloads lie for a moment. */
  readonly temporaryDirectory?: string | undefined;
  /** What an administrator has to show to fill the cache; undefined: nobody can by the admin listener. */
  readonly token?: string | undefined;
}

/** What OpenSSL needs to be told before it speaks TLS 1.0 with SHA-1. */
const LEGACY_CIPHERS = 'DEFAULT:@SECLEVEL=0';
const UNKNOWN_LIMIT_QUOTA_BYTES = 1024 ** 3;

export interface HostedService extends Service {
  readonly cache: HostedCacheService;
}

/** The cache itself, on a store that is open. @param member where another process decides about offers */
export function createHostedCache(
  options: HostedOptions,
  store: BlockStore,
  limits: StoreOptions,
  observer: Observer,
  {
    member,
    admission = createAdmission(options.allowClients),
  }: { member?: Member | undefined; admission?: Admission } = {},
): HostedCacheService {
  const { offers, temporaryDirectory } = options;
  // A process that was killed has left there what it was preloading; the store is ours, so nobody else is at it.
  if (member === undefined && temporaryDirectory !== undefined) emptied(temporaryDirectory);
  const quota = limits.kind === 'redis' ? UNKNOWN_LIMIT_QUOTA_BYTES : limits.maxBytes / 2;
  return new HostedCacheService({
    store,
    isAllowed: admission.has,
    tls: offers && { ...tlsOptions(offers), ...offers.identity },
    authenticate: offers?.authenticate,
    leader: member,
    allowLocalOffers: options.allowLocalOffers,
    maxBytesPerHour: options.clientBytesPerHour ?? quota,
    maxUploads: options.maxUploads,
    hashProvider: hashProvider(options.hashProvider ?? 'native'),
    temporaryDirectory: options.temporaryDirectory,
    observer,
  });
}

function emptied(directory: string): void {
  try {
    rmSync(directory, { recursive: true, force: true });
  } catch {
    // Whoever cannot use the directory hears of it otherwise.
  }
}

/** What the listener for version 1 offers speaks, apart from its certificate. */
function tlsOptions(offers: HostedOptions['offers']): TlsOptions {
  return {
    ...(offers?.legacyTls === true ? { minVersion: 'TLSv1' as const, ciphers: LEGACY_CIPHERS } : {}),
    ...(offers?.clientCa === undefined ? {} : { ca: offers.clientCa, requestCert: true, rejectUnauthorized: true }),
  };
}

/** Who may connect; can be changed. */
interface Admission {
  readonly has: (address: string) => boolean;
  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`; then nothing has changed */
  readonly allow: (networks: readonly string[] | undefined) => void;
}

function createAdmission(networks: readonly string[] | undefined): Admission {
  let allowed = networkSet(networks ?? PRIVATE_NETWORKS);
  let isDefault = networks === undefined;
  return {
    has: (address) => allowed.has(address) || (isDefault && isNeighbour(address)),
    allow(others) {
      allowed = networkSet(others ?? PRIVATE_NETWORKS);
      isDefault = others === undefined;
    },
  };
}

/** @param member where this process is one of several */
export async function startHosted(options: HostedOptions, member?: Member): Promise<HostedService> {
  const metrics = createMetrics({ site: options.site, role: 'hosted', version: ownVersion() });
  const { observer } = metrics;
  const { offers, proxy, token, store = memoryStore('hosted'), warn = () => {} } = options;
  const admin = options.admin && (await AdminListener.open({ address: options.admin, token: options.adminToken }));
  const context = { role: 'hosted', observer, warn, isGuest: member !== undefined } as const;
  const stores = await openStores(store, context).catch(async (error: unknown) => {
    await admin?.close(0);
    throw error;
  });
  const admission = createAdmission(options.allowClients);
  const cache = createHostedCache(options, stores.blocks, store, observer, { member, admission });
  const peerdist = await PeerDist.open({
    components: {
      hashProvider: hashProvider(options.hashProvider ?? 'native'),
      blockStore: new SealingStore(cache.blocks, stores.blocks),
      sources: [createSealedSource(cache.blocks)],
      claims: member?.claims,
      observer,
    },
  });
  const kit = new Kit({ plugins: [createBlockCache({ peerdist, observer })], observer });
  const host = new HttpProxyHost({
    proxy: createProxyServer(),
    kit,
    observer,
    watch: options.exchanges?.watch,
    allowClients: options.allowClients,
  });
  const others: ListenerPlan[] = [];
  if (offers !== undefined && cache.tlsServer !== undefined)
    others.push({ role: 'version 1 offers', server: cache.tlsServer, listen: offers.listen });
  if (proxy !== undefined) others.push({ role: 'clients', server: host.createServer(), listen: proxy });
  const service = await startService({
    listeners: [{ role: 'hosted cache', server: cache.server, listen: options.listen }, ...others],
    admin,
    display: { ...options, role: 'hosted', live: async () => ({ ...liveOf(options), neighbours: [] }) },
    // The token travels in the clear: not off this machine.
    adminRoutes:
      token === undefined || options.admin === undefined || !isLoopback(options.admin.host)
        ? undefined
        : createFillRoutes(cache, token),
    metrics,
    trouble: stores.trouble,
    onServer: (server) => host.shelter(server),
    start: () => kit.start(),
    adjust: ({ allowClients, tls }) => {
      admission.allow(allowClients);
      host.allowClients(allowClients);
      if (tls !== undefined && cache.tlsServer instanceof TlsServer)
        cache.tlsServer.setSecureContext({ ...tlsOptions(offers), ...tls });
    },
    stop: async () => {
      cache.close();
      await kit.stop();
      host.close();
      await peerdist.close();
      await stores.close();
    },
  });
  return { ...service, cache };
}
