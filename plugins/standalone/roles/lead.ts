/** A role carried by several processes: what the one that leads them does, which carries no traffic itself. */
import { PeerDistError } from '../../../lib/errors.ts';
import type { Observer } from '../../../lib/observer.ts';
import type { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import type { DiscoveryVersion } from '../../../lib/protocol/pccrd/index.ts';
import type { OfferMessage } from '../../../lib/protocol/pchc/index.ts';
import { siteBeacon } from '../../../lib/services/index.ts';
import { findDamage } from '../../../lib/stores/index.ts';
import type { HostedCacheService } from '../../hosted-cache/index.ts';
import { createMetrics } from '../../metrics/index.ts';
import { AdminListener, type AdminRoutes } from './admin.ts';
import type { Handlers } from '../crew/channel.ts';
import { seekFor } from '../crew/finder.ts';
import { Crew } from '../crew/leader.ts';
import { createHostedCache, type HostedOptions, type HostedService } from './hosted-role.ts';
import { createFillRoutes } from './hosted-fill.ts';
import { discover, type NeighbourhoodOptions, portAt } from './neighbourhood.ts';
import type { Shown } from './roles.ts';
import { type ListenerRole, type Service, startService } from './service.ts';
import { ownVersion } from '../version.ts';
import { openStores, type RoleName, type RoleStores, storeDirectories, type StoreOptions } from './stores.ts';
import { isLoopback } from '../../http-proxy/index.ts';
import type { ListenAddress } from '../options/units.ts';

export interface CrewPlan {
  readonly role: RoleName;
  /** What workers are started with. */
  readonly values: unknown;
  readonly workers: number;
  readonly admin: ListenAddress | undefined;
  readonly adminToken?: string | undefined;
  readonly shown: Shown;
  readonly store: StoreOptions;
  /** What workers are given in place of making their own. */
  readonly secrets: readonly [ServerSecret, ...ServerSecret[]];
  readonly warn: (line: string) => void;
}

/** What a leader does for its role. */
interface Duties {
  readonly handlers: (tell: (name: string, ...args: unknown[]) => void) => Handlers;
  readonly adminRoutes?: AdminRoutes | undefined;
  /** From now on nobody is asked to come. */
  readonly leave?: (() => void) | undefined;
  readonly close: () => void;
}

interface Means {
  readonly stores: RoleStores;
  readonly observer: Observer;
  /** Where the workers listen, once they do. */
  readonly addressOf: (role: ListenerRole) => ListenAddress | undefined;
}

const NO_DUTIES: Duties = { handlers: () => ({}), close: () => {} };

export function leadReverse(plan: CrewPlan): Promise<Service> {
  return lead(plan, async () => NO_DUTIES);
}

/** On the LAN for all of them. */
export function leadBranch(plan: CrewPlan, neighbourhood: NeighbourhoodOptions | undefined): Promise<Service> {
  return lead(plan, async ({ stores, observer, addressOf }) => {
    if (neighbourhood?.discovery === undefined) return NO_DUTIES;
    const portOn = (address: string): number | undefined => {
      const peers = addressOf('peers');
      return peers && portAt(peers, address);
    };
    const beacon = siteBeacon(plan.secrets[0]);
    const finding = { ...neighbourhood.discovery, store: stores.blocks, portOn, beacon, observer };
    const discovery = await discover(finding, plan.warn);
    return {
      handlers: (tell) => ({
        seek: (segmentIds: readonly string[], version: DiscoveryVersion) =>
          seekFor(discovery, segmentIds, version, (id, holders) => tell('heard', id, holders)),
      }),
      leave: () => discovery.close(),
      close: () => discovery.close(),
    };
  });
}

/** Decides about offers and fetches what was offered. */
export async function leadHosted(plan: CrewPlan, options: HostedOptions): Promise<HostedService> {
  let cache: HostedCacheService | undefined;
  const service = await lead(plan, async ({ stores, observer }) => {
    const own = (cache = createHostedCache(options, stores.blocks, plan.store, observer));
    const { token, admin } = options;
    return {
      handlers: () => ({
        offer: (offer: OfferMessage, from: string) => own.offer(offer, from),
        noteFetch: (segmentId: string, address: string) => own.blocks.noteFetch(segmentId, address),
      }),
      adminRoutes: token === undefined || !isLoopback(admin?.host ?? '') ? undefined : createFillRoutes(own, token),
      close: () => own.close(),
    };
  });
  return { ...service, cache: cache as unknown as HostedCacheService };
}

async function lead(plan: CrewPlan, takeOn: (means: Means) => Promise<Duties>): Promise<Service> {
  const { role, store, secrets, warn, workers, shown } = plan;
  const metrics = createMetrics({ site: shown.site, role, version: ownVersion() });
  const admin = plan.admin && (await AdminListener.open({ address: plan.admin, token: plan.adminToken }));
  let stores: RoleStores | undefined;
  let crew: Crew | undefined;
  try {
    const opened = (stores = await openStores(store, { role, observer: metrics.observer, warn }));
    if (store.kind === 'memory' || opened.isFallback === true)
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_OPTION',
        'several workers need a store they can share: --store disk or redis://…',
      );
    const addressOf: Means['addressOf'] = (wanted) => crew?.listeners.find((each) => each.role === wanted)?.address;
    const duties = await takeOn({ stores: opened, observer: metrics.observer, addressOf });
    const led = (crew = new Crew({
      workers,
      welcome: { secrets: secrets.map((secret) => secret.reveal()), values: plan.values },
      metrics,
      handlers: duties.handlers,
      inspect: () => inspect(store, role),
      warn,
    }));
    const service = await startService({
      listeners: [],
      admin,
      adminRoutes: duties.adminRoutes,
      display: { ...shown, role, live: () => led.live() },
      metrics: { ...metrics, exposition: () => led.exposition(), report: () => led.report() },
      canServe: () => led.isServing,
      trouble: () => opened.trouble(),
      start: () => led.start(),
      leave: duties.leave,
      stop: async (graceMs) => {
        await led.stop(graceMs);
        duties.close();
        await opened.close();
      },
    });
    const [first, ...others] = led.listeners;
    const listeners = [...(first === undefined ? [] : [first]), ...service.listeners, ...others];
    return {
      ...service,
      listeners,
      address: addressOf('clients') ?? service.address,
      failed: led.failed,
      reload: (update) => led.reload(update),
    };
  } catch (error) {
    // Where the crew has started, whoever started it has ended it.
    if (crew === undefined) {
      await stores?.close();
      await admin?.close(0);
    }
    throw error;
  }
}

/** A worker may have died of what it read. */
async function inspect(store: StoreOptions, role: RoleName): Promise<string | undefined> {
  if (store.kind !== 'disk') return undefined;
  for (const directory of Object.values(storeDirectories(store.stateDirectory, role))) {
    // What cannot be found out now is found at the next start.
    const damage = await findDamage(directory).catch(() => undefined);
    if (damage !== undefined) return `the store ${directory} is damaged (${damage}); start again to begin an empty one`;
  }
  return undefined;
}
