/** Composition of a hosted cache: store, offers, retrieval, what an administrator puts in, and a branch proxy on the same blocks if wanted. */
import { hashProvider, type HashProvider } from '../../lib/crypto/index.ts';
import { Kit } from '../../lib/kit/index.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { createSealedSource, isNeighbour, type OfferAuthentication, SealingStore } from '../../lib/services/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { createBlockCache } from '../block-cache/index.ts';
import { HostedCacheService } from '../hosted-cache/index.ts';
import {
  createProxyServer,
  HttpProxyHost,
  isLoopback,
  networkSet,
  PRIVATE_NETWORKS,
  type TlsIdentity,
} from '../http-proxy/index.ts';
import { createMetrics } from '../metrics/index.ts';
import { createFillRoutes } from './hosted-fill.ts';
import { type ListenerPlan, type Service, startService } from './service.ts';
import type { ListenAddress } from './units.ts';

export interface HostedOptions {
  readonly listen: ListenAddress;
  readonly admin: ListenAddress | undefined;
  /** Bytes for blocks. @default 1 GiB */
  readonly cacheBytes?: number | undefined;
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
  /** Bytes one client may bring in an hour. @default half of the cache */
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

export interface HostedService extends Service {
  readonly cache: HostedCacheService;
}

export async function startHosted(options: HostedOptions): Promise<HostedService> {
  const metrics = createMetrics();
  const { observer } = metrics;
  const { cacheBytes = 1024 * 1024 * 1024, offers, proxy, token } = options;
  const allowed = networkSet(options.allowClients ?? PRIVATE_NETWORKS);
  const store = new MemoryBlockStore({ maxBytes: cacheBytes, observer });
  const provider = hashProvider(options.hashProvider ?? 'native');
  const cache = new HostedCacheService({
    store,
    isAllowed: (address) => allowed.has(address) || (options.allowClients === undefined && isNeighbour(address)),
    tls: offers && {
      ...offers.identity,
      ...(offers.legacyTls === true ? { minVersion: 'TLSv1' as const, ciphers: LEGACY_CIPHERS } : {}),
      ...(offers.clientCa === undefined ? {} : { ca: offers.clientCa, requestCert: true, rejectUnauthorized: true }),
    },
    authenticate: offers?.authenticate,
    allowLocalOffers: options.allowLocalOffers,
    maxBytesPerHour: options.clientBytesPerHour ?? cacheBytes / 2,
    maxUploads: options.maxUploads,
    hashProvider: provider,
    temporaryDirectory: options.temporaryDirectory,
    observer,
  });
  const peerdist = await PeerDist.open({
    components: {
      hashProvider: provider,
      blockStore: new SealingStore(cache.blocks, store),
      sources: [createSealedSource(cache.blocks)],
      observer,
    },
  });
  const kit = new Kit({ plugins: [createBlockCache({ peerdist, observer })], observer });
  const host = new HttpProxyHost({ proxy: createProxyServer(), kit, observer, allowClients: options.allowClients });
  const others: ListenerPlan[] = [];
  if (offers !== undefined && cache.tlsServer !== undefined)
    others.push({ role: 'version 1 offers', server: cache.tlsServer, listen: offers.listen });
  if (proxy !== undefined) others.push({ role: 'clients', server: host.createServer(), listen: proxy });
  const service = await startService({
    listeners: [{ role: 'hosted cache', server: cache.server, listen: options.listen }, ...others],
    admin: options.admin,
    // The token travels in the clear: not off this machine.
    adminRoutes:
      token === undefined || options.admin === undefined || !isLoopback(options.admin.host)
        ? undefined
        : createFillRoutes(cache, token),
    metrics,
    onServer: (server) => host.shelter(server),
    start: () => kit.start(),
    stop: async () => {
      cache.close();
      await kit.stop();
      host.close();
      await peerdist.close();
    },
  });
  return { ...service, cache };
}
