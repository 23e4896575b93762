/** Starts a role's listeners, says where they are, and stops them gracefully. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Server as TlsServer } from 'node:tls';
import { PeerDistError } from '../../lib/errors.ts';
import type { Kit } from '../../lib/kit/index.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import type { HttpProxyHost, TlsIdentity } from '../http-proxy/index.ts';
import type { Metrics } from '../metrics/index.ts';
import { createAdminServer } from './admin.ts';
import { formatListen, type ListenAddress } from './units.ts';

export interface ServiceParts {
  readonly host: HttpProxyHost;
  readonly kit: Kit;
  readonly peerdist: PeerDist;
  readonly metrics: Metrics;
  readonly listen: ListenAddress;
  /** Undefined for none. */
  readonly admin: ListenAddress | undefined;
  readonly tls?: TlsIdentity | undefined;
  /** The listener for neighbours. */
  readonly peers?: { readonly server: Server; readonly listen: ListenAddress } | undefined;
  /** Called last when the service stops, also when it could not start. */
  readonly onStop?: (() => Promise<void> | undefined) | undefined;
}

/** A role that runs. */
export interface Service {
  /** Where clients connect to; the port is real when 0 was asked for. */
  readonly address: ListenAddress;
  readonly adminAddress: ListenAddress | undefined;
  readonly peerAddress: ListenAddress | undefined;
  readonly metrics: Metrics;
  readonly scheme: 'http' | 'https';
  /** Lets running exchanges end for up to `graceMs`, then cuts them. Never rejects. */
  stop(graceMs?: number): Promise<void>;
}

/** Milliseconds running exchanges get at shutdown. Policy, not protocol. */
const GRACE_MS = 10_000;

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when an address cannot be listened on */
export async function startService({
  host,
  kit,
  peerdist,
  metrics,
  listen,
  admin,
  tls,
  peers,
  onStop,
}: ServiceParts): Promise<Service> {
  const listeners: Listener[] = [];
  const open = async (server: Server, address: ListenAddress): Promise<ListenAddress> => {
    listeners.push({ server, connections: new Connections(server) });
    return listenOn(server, address);
  };
  const stop = async (graceMs = GRACE_MS): Promise<void> => {
    await Promise.all(listeners.map((listener) => closeServer(listener, graceMs)));
    await kit.stop();
    host.close();
    await peerdist.close();
    await onStop?.();
  };
  try {
    await kit.start();
    const address = await open(host.createServer(tls), listen);
    const adminServer = createAdminServer(metrics);
    host.shelter(adminServer);
    const adminAddress = admin && (await open(adminServer, admin));
    if (peers !== undefined) host.shelter(peers.server);
    const peerAddress = peers && (await open(peers.server, peers.listen));
    return { address, adminAddress, peerAddress, metrics, scheme: tls === undefined ? 'http' : 'https', stop };
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
    return 'no permission for this port (below 1024 it takes root, or sysctl net.ipv4.ip_unprivileged_port_start=80)';
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

  #add(socket: Duplex, exchanges: number): void {
    const now = (this.#busy.get(socket) ?? 0) + exchanges;
    if (!socket.destroyed) this.#busy.set(socket, now);
    if (this.#closing && now === 0) (socket as Socket).destroySoon();
  }
}

function closeServer({ server, connections }: Listener, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    if (!server.listening) return resolve();
    const timer = setTimeout(() => server.closeAllConnections(), graceMs);
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
}
