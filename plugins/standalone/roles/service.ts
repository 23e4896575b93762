/** A role that runs: its listeners, what an administrator sees of it, and how it ends. */
import type { Server } from 'node:http';
import { Server as TlsServer } from 'node:tls';
import { Dashboard, type Live } from '../../dashboard/index.ts';
import type { TlsIdentity } from '../../http-proxy/index.ts';
import type { Metrics } from '../../metrics/index.ts';
import { type AdminListener, type AdminRoutes, answer, type Readiness } from './admin.ts';
import { closeServer, Connections, type Listener, listenOn } from './listeners.ts';
import type { LogValues } from '../options/log-options.ts';
import type { ListenAddress } from '../options/units.ts';
import { ownVersion } from '../version.ts';

/** What a listener is for, as it is printed. */
export type ListenerRole = 'clients' | 'peers' | 'hosted cache' | 'version 1 offers' | 'admin';

export interface ListenerPlan {
  readonly role: ListenerRole;
  readonly server: Server;
  readonly listen: ListenAddress;
}

/** What is shown of a service to its administrator. */
export interface Display {
  readonly role: string;
  readonly site?: string | undefined;
  /** Whether contents and downloads are shown by name. @default false */
  readonly showsNames?: boolean | undefined;
  /** Keeps the savings of the past across restarts. */
  readonly keeper?: { readonly read: () => string; readonly write: (text: string) => void } | undefined;
  readonly live: () => Promise<Live>;
}

export interface ServiceParts {
  /** Opened in this order; the first one is the service's own. None where other processes have them. */
  readonly listeners: readonly ListenerPlan[];
  /** Open already; closed with the service, also when it could not start. Undefined for none. */
  readonly admin: AdminListener | undefined;
  readonly adminRoutes?: AdminRoutes | undefined;
  readonly display: Display;
  readonly metrics: Metrics;
  /** Whether it can take requests, beside what is known here. @default always */
  readonly canServe?: (() => boolean) | undefined;
  /** What does not work although the service does, in words. */
  readonly trouble?: (() => string | undefined) | undefined;
  /** Told of every listener before it is opened. */
  readonly onServer?: ((server: Server) => void) | undefined;
  /** Called before anything listens. */
  readonly start?: (() => Promise<void>) | undefined;
  /** Called first when the service stops: from then on nobody is asked to come. */
  readonly leave?: (() => void) | undefined;
  /** Called last when the service stops, also when it could not start. */
  readonly stop: (graceMs: number) => Promise<void>;
  readonly adjust?: Service['adjust'];
}

export interface OpenListener {
  readonly role: ListenerRole;
  readonly scheme: 'http' | 'https';
  /** The port is real when 0 was asked for. */
  readonly address: ListenAddress;
}

/** What a configuration that was read anew brings. */
export interface Update {
  readonly logLevel: LogValues['logLevel'];
  readonly accessLog: boolean;
  readonly adjustment: Adjustment;
}

/** What can be changed while a service runs; what is undefined stays as it is by default. */
export interface Adjustment {
  /** Networks that may connect. */
  readonly allowClients?: readonly string[] | undefined;
  /** What the admin listener wants. */
  readonly adminToken?: string | undefined;
  /** Certificate and key of the listener that has one. */
  readonly tls?: TlsIdentity | undefined;
}

/** A role that runs. */
export interface Service {
  readonly listeners: readonly OpenListener[];
  /** Where clients connect to. */
  readonly address: ListenAddress;
  readonly metrics: Metrics;
  /** What is going on right now. */
  readonly live: () => Promise<Live>;
  /** Resolves with the reason when the service cannot go on; undefined where it always can. */
  readonly failed?: Promise<string> | undefined;
  addressOf(role: ListenerRole): ListenAddress | undefined;
  /** Changes what can be changed while it runs. */
  readonly adjust?: ((adjustment: Adjustment) => void) | undefined;
  /** Has other processes take over what this one has, where there are such. */
  readonly reload?: ((update: Update) => void) | undefined;
  /** Lets running exchanges end for up to `graceMs`, then cuts them. Never rejects. */
  stop(graceMs?: number): Promise<void>;
}

/** Address of a service whose listeners are all in other processes. */
const NOWHERE: ListenAddress = { host: '', port: 0 };
/** Milliseconds running exchanges get at shutdown. Policy, not protocol. */
const GRACE_MS = 10_000;

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when an address cannot be listened on */
export async function startService({
  listeners,
  admin,
  adminRoutes = {},
  display,
  metrics,
  canServe = () => true,
  trouble = () => undefined,
  onServer,
  start,
  ...parts
}: ServiceParts): Promise<Service> {
  const running: Listener[] = [];
  let dashboard: Dashboard | undefined;
  let isDraining = false;
  const stop = async (graceMs = GRACE_MS): Promise<void> => {
    isDraining = true;
    parts.leave?.();
    await Promise.all(running.map((listener) => closeServer(listener, graceMs)));
    await parts.stop(graceMs);
    // Whoever watches hears to the end that it is ending.
    await dashboard?.stop();
    await admin?.close(graceMs);
  };
  try {
    if (admin !== undefined) onServer?.(admin.server);
    await start?.();
    const open: OpenListener[] = [];
    for (const { role, server, listen } of listeners) {
      running.push({ server, connections: new Connections(server) });
      onServer?.(server);
      const address = await listenOn(server, listen);
      open.push({ role, scheme: server instanceof TlsServer ? 'https' : 'http', address });
    }
    if (admin !== undefined) {
      const readiness = (): Readiness => ({ isReady: !isDraining && canServe(), trouble: trouble() });
      dashboard = createDashboard(display, metrics, readiness);
      admin.show({ readiness, routes: { ...adminRoutes, ...routesOf(metrics, dashboard) } });
      open.splice(1, 0, { role: 'admin', scheme: 'http', address: admin.address });
    }
    const addressOf: Service['addressOf'] = (role) => open.find((listener) => listener.role === role)?.address;
    return {
      listeners: open,
      address: addressOf(listeners[0]?.role ?? 'clients') ?? NOWHERE,
      metrics,
      live: display.live,
      adjust: (adjustment) => {
        parts.adjust?.(adjustment);
        admin?.want(adjustment.adminToken);
      },
      addressOf,
      stop,
    };
  } catch (error) {
    await stop(0);
    throw error;
  }
}

function createDashboard(
  { role, site, showsNames = false, keeper, live }: Display,
  metrics: Metrics,
  readiness: () => Readiness,
): Dashboard {
  return new Dashboard({
    role,
    site,
    version: ownVersion(),
    showsNames,
    samples: metrics.report,
    live,
    readiness,
    keeper,
  });
}

function routesOf(metrics: Metrics, { pages, data }: Dashboard): AdminRoutes {
  const read = (access: 'open' | 'private', routes: Dashboard['pages']): AdminRoutes =>
    Object.fromEntries(Object.entries(routes).map(([path, handle]) => [path, { method: 'GET', access, handle }]));
  return {
    '/metrics': {
      method: 'GET',
      access: 'private',
      handle: (_request, response) =>
        void metrics.exposition().then(
          ({ contentType, text }) => answer(response, 200, text, { 'content-type': contentType }),
          () => answer(response, 500, 'metrics failed\n'),
        ),
    },
    ...read('open', pages),
    ...read('private', data),
  };
}
