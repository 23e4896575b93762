/** Opens listeners and closes them gracefully. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Server as TlsServer } from 'node:tls';
import { PeerDistError } from '../../../lib/errors.ts';
import { formatListen, type ListenAddress } from '../options/units.ts';

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when the address cannot be listened on */
export function listenOn(server: Server, address: ListenAddress): Promise<ListenAddress> {
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
export class Connections {
  readonly #busy = new Map<Duplex, number>();
  /** Those of a TLS listener, whether or not they have shaken hands. */
  readonly #raw = new Set<Socket>();
  #closing = false;

  constructor(server: Server) {
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#busy.set(socket, 0);
      socket.once('close', () => this.#busy.delete(socket));
      // One whose client shook hands within a tunnel, and had not yet asked for anything.
      if (this.#closing) socket.destroy();
    });
    if (server instanceof TlsServer)
      server.on('connection', (socket: Socket) => {
        this.#raw.add(socket);
        socket.once('close', () => this.#raw.delete(socket));
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
    for (const socket of [...this.#busy.keys(), ...this.#raw]) socket.destroy();
  }

  #add(socket: Duplex, exchanges: number): void {
    const now = (this.#busy.get(socket) ?? 0) + exchanges;
    if (!socket.destroyed) this.#busy.set(socket, now);
    if (this.#closing && now === 0) (socket as Socket).destroySoon();
  }
}

/** A server that is open, or about to be. */
export interface Listener {
  readonly server: Server;
  readonly connections: Connections;
}

/** Lets running exchanges end for up to `graceMs`, then cuts them. Never rejects. */
export function closeServer({ server, connections }: Listener, graceMs: number): Promise<void> {
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
