/** Starts a role's listeners, says where they are, and stops them gracefully. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Server as TlsServer } from 'node:tls';
import { PeerDistError } from '../../lib/errors.ts';
import type { Metrics } from '../metrics/index.ts';
import { type AdminRoutes, createAdminServer, type Readiness } from './admin.ts';
import { formatListen, type ListenAddress } from './units.ts';

/** What a listener is for, as it is printed. */
export type ListenerRole = 'clients' | 'peers' | 'hosted cache' | 'version 1 offers' | 'admin';

export interface ListenerPlan {
  readonly role: ListenerRole;
  readonly server: Server;
  readonly listen: ListenAddress;
}

export interface ServiceParts {
  /** Opened in this order; the first one is the service's own. None where other processes have them. */
  readonly listeners: readonly ListenerPlan[];
  /** Undefined for none. */
  readonly admin: ListenAddress | undefined;
  readonly adminRoutes?: AdminRoutes | undefined;
  readonly metrics: Metrics;
  /** What does not work although the service does, in words. */
  readonly trouble?: (() => string | undefined) | undefined;
  /** Told of every listener before it is opened. */
  readonly onServer?: ((server: Server) => void) | undefined;
  /** Called before anything listens. */
  readonly start?: (() => Promise<void>) | undefined;
  /** Called last when the service stops, also when it could not start. */
  readonly stop: (graceMs: number) => Promise<void>;
}

export interface OpenListener {
  readonly role: ListenerRole;
  readonly scheme: 'http' | 'https';
  /** The port is real when 0 was asked for. */
  readonly address: ListenAddress;
}

/** A role that runs. */
export interface Service {
  readonly listeners: readonly OpenListener[];
  /** Where clients connect to. */
  readonly address: ListenAddress;
  readonly metrics: Metrics;
  /** Resolves with the reason when the service cannot go on; undefined where it always can. */
  readonly failed?: Promise<string> | undefined;
  addressOf(role: ListenerRole): ListenAddress | undefined;
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
  adminRoutes,
  metrics,
  trouble = () => undefined,
  onServer,
  start,
  ...parts
}: ServiceParts): Promise<Service> {
  const running: Listener[] = [];
  let isDraining = false;
  const stop = async (graceMs = GRACE_MS): Promise<void> => {
    isDraining = true;
    const close = (listener: Listener): Promise<void> => closeServer(listener, graceMs);
    // Whoever watches hears to the end that it is ending.
    await Promise.all(running.filter(({ isAdmin }) => !isAdmin).map(close));
    await parts.stop(graceMs);
    await Promise.all(running.filter(({ isAdmin }) => isAdmin).map(close));
  };
  const plans = [...listeners];
  if (admin !== undefined) {
    const readiness = (): Readiness => ({ isReady: !isDraining, trouble: trouble() });
    plans.splice(1, 0, { role: 'admin', server: createAdminServer(metrics, readiness, adminRoutes), listen: admin });
  }
  try {
    await start?.();
    const open: OpenListener[] = [];
    for (const { role, server, listen } of plans) {
      running.push({ server, connections: new Connections(server), isAdmin: role === 'admin' });
      onServer?.(server);
      const address = await listenOn(server, listen);
      open.push({ role, scheme: server instanceof TlsServer ? 'https' : 'http', address });
    }
    const addressOf: Service['addressOf'] = (role) => open.find((listener) => listener.role === role)?.address;
    return {
      listeners: open,
      address: open[0]?.address ?? NOWHERE,
      metrics,
      addressOf,
      stop,
    };
  } catch (error) {
    await stop(0);
    throw error;
  }
}

function listenOn(server: Server, address: ListenAddress): Promise<ListenAddress> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      // Everywhere is everywhere, also where IPv6 is switched off.
      if (address.host === '::' && (error.code === 'EAFNOSUPPORT' || error.code === 'EADDRNOTAVAIL'))
        return resolve(listenOn(server, { ...address, host: '0.0.0.0' }));
      return reject(
        new PeerDistError(
          'ERR_PEERDIST_INVALID_OPTION',
          `cannot listen on ${formatListen(address)}: ${reason(error)}`,
          { cause: error },
        ),
      );
    });
    server.listen(address.port, address.host, () => {
      const { address: host, port } = server.address() as AddressInfo;
      resolve({ host, port });
    });
  });
}

function reason({ code, message }: NodeJS.ErrnoException): string {
  if (code === 'EADDRINUSE') return 'the port is in use';
  if (code === 'EACCES')
    return 'no permission for this port: below 1024 it takes root or sysctl net.ipv4.ip_unprivileged_port_start=80; or --listen on another';
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return 'this machine has no such address';
  return code ?? message;
}

/** Connections of a server and how many exchanges each has under way: Node's own idea of idle leaves out those that never sent a request. */
class Connections {
  readonly #busy = new Map<Duplex, number>();
  #closing = false;

  constructor(server: Server) {
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#busy.set(socket, 0);
      socket.once('close', () => this.#busy.delete(socket));
    });
    server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
      this.#add(socket, 1);
      response.on('close', () => this.#add(socket, -1));
    });
    for (const event of ['upgrade', 'connect'] as const) {
      server.on(event, (_message: IncomingMessage, socket: Duplex) => {
        // A tunnel is busy until it is cut. Where nobody makes tunnels, nobody else looks after the socket that Node lets go.
        if (server.listenerCount(event) > 1) this.#add(socket, 1);
        else socket.on('error', () => {}).destroy();
      });
    }
  }

  /** Closes each connection as soon as it has nothing under way. */
  closeWhenIdle(): void {
    this.#closing = true;
    for (const [socket, exchanges] of this.#busy) if (exchanges === 0) socket.destroy();
  }

  /** Tunnels too, of which Node knows nothing any more. */
  destroyAll(): void {
    for (const socket of this.#busy.keys()) socket.destroy();
  }

  #add(socket: Duplex, exchanges: number): void {
    const now = (this.#busy.get(socket) ?? 0) + exchanges;
    if (!socket.destroyed) this.#busy.set(socket, now);
    if (this.#closing && now === 0) (socket as Socket).destroySoon();
  }
}

function closeServer({ server, connections }: Listener, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    if (!server.listening) return resolve();
    const timer = setTimeout(() => connections.destroyAll(), graceMs);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    connections.closeWhenIdle();
    return undefined;
  });
}

interface Listener {
  readonly server: Server;
  readonly connections: Connections;
  readonly isAdmin: boolean;
}
