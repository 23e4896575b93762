import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';
import { listMembers } from '../../lib/http/index.ts';
import type { Next } from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import {
  type Agents,
  createAgents,
  DestinationRule,
  isLoopback,
  networkSet,
  plainAddress,
  PRIVATE_NETWORKS,
} from './access.ts';
import { errorResponse } from './errors.ts';
import { type IncomingRules, readRequest } from './incoming.ts';
import {
  type HttpProxyHostOptions,
  parseOrigin,
  type ResolvedTimeouts,
  resolveTimeouts,
  splitAuthority,
} from './options.ts';
import { Outgoing } from './outgoing.ts';
import { sendResponse } from './respond.ts';
import { answerOnSocket, connectTunnel, refuse, type TunnelContext, upgradeTunnel } from './tunnel.ts';

/** Certificate and key of a TLS listener, PEM. */
export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
}

/** Bytes of a request head; past it the client gets 431. Policy, not protocol. */
const MAX_HEADER_BYTES = 32 * 1024;
/** Milliseconds for a client to send a request head. Policy, not protocol. */
const CLIENT_HEAD_MS = 60_000;

/**
 * Runs exchanges: reads what a client sends, passes it through the kit's plug-ins to the origin, writes the answer. As a fixed-origin
 * (reverse) proxy or gateway, as a forward proxy, or as Connect/Express middleware.
 */
export class HttpProxyHost {
  readonly #timeouts: ResolvedTimeouts;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #rules: IncomingRules;
  readonly #allowedClients: { has(address: string): boolean } | undefined;
  readonly #connectPorts: ReadonlySet<number>;
  readonly #destinationRule: DestinationRule | undefined;
  readonly #openAgents: Agents;
  readonly #guardedAgents: Agents;
  readonly #servers = new Set<Server>();
  readonly #tunnel: TunnelContext;
  readonly #chain: Next;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  constructor(options: HttpProxyHostOptions, clock: Clock = systemClock) {
    const origin = options.origin === undefined ? undefined : parseOrigin(options.origin);
    this.#clock = clock;
    this.#timeouts = resolveTimeouts(options.timeouts);
    this.#observer = options.observer ?? ignoreObservations;
    const trusted = networkSet(options.trustedPeers ?? []);
    const viaName = options.viaName ?? `peerdist-${randomBytes(4).toString('hex')}`;
    this.#rules = {
      origin,
      preserveHost: options.preserveHost ?? false,
      viaName,
      maxRequestBytes: options.maxRequestBytes ?? Infinity,
      forwarded: options.forwarded ?? false,
      isTrustedPeer: (address) => trusted.has(address),
    };
    const allowClients = options.allowClients ?? (origin === undefined ? PRIVATE_NETWORKS : undefined);
    this.#allowedClients = allowClients && networkSet(allowClients);
    this.#connectPorts = new Set(options.connectPorts ?? [443]);
    // A fixed origin was chosen by the administrator, so nobody can be sent elsewhere.
    this.#destinationRule =
      origin === undefined
        ? new DestinationRule({ allow: options.allowDestinations ?? [], ownListeners: () => this.#listeners() })
        : undefined;
    this.#openAgents = createAgents(undefined, options.originCa);
    this.#guardedAgents =
      this.#destinationRule === undefined ? this.#openAgents : createAgents(this.#destinationRule, options.originCa);
    const outgoing = new Outgoing({
      proxy: options.proxy,
      timeouts: this.#timeouts,
      clock,
      agentsFor: (client) => (isLoopback(client) ? this.#openAgents : this.#guardedAgents),
    });
    this.#chain = options.kit.through((request) => outgoing.send(request));
    this.#tunnel = {
      timeouts: this.#timeouts,
      observer: this.#observer,
      viaName,
      originCa: options.originCa,
      ruleFor: (client) => (isLoopback(client) ? undefined : this.#destinationRule),
    };
  }

  /** A server with this host on it, not listening yet. With `tls` it speaks HTTPS. */
  createServer(tls?: TlsIdentity): Server {
    const options: ServerOptions = {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: CLIENT_HEAD_MS,
      // Node would cut an upload after 300 s, however briskly it goes on; silence is what ends one here.
      requestTimeout: 0,
      noDelay: true,
      keepAliveTimeout: this.#timeouts.idleMs,
      ...tls,
    };
    const server = tls === undefined ? createServer(options) : createTlsServer(options);
    server.timeout = this.#timeouts.idleMs;
    this.attach(server);
    return server;
  }

  /** Puts the host on a server somebody else made. */
  attach(server: Server): void {
    server.on('request', (message, client) => this.handle(message, client));
    server.on('upgrade', (message, socket, head) => void this.#upgrade(message, socket, head));
    server.on('connect', (message, socket, head) => void this.#connect(message, socket, head));
    this.#servers.add(server);
    server.once('close', () => this.#servers.delete(server));
  }

  /** Connect and Express middleware; errors before the head go to `next` where there is one. */
  get middleware(): (message: IncomingMessage, client: ServerResponse, next?: (error?: unknown) => void) => void {
    return (message, client, next) => this.handle(message, client, next);
  }

  /** Runs one exchange. Never throws. */
  handle(message: IncomingMessage, client: ServerResponse, next?: (error?: unknown) => void): void {
    this.#exchange(message, client, next).catch(() => client.destroy());
  }

  /** Closes the connections to origins. Call after the servers are closed. */
  close(): void {
    this.#openAgents.destroy();
    this.#guardedAgents.destroy();
  }

  async #exchange(message: IncomingMessage, client: ServerResponse, next?: (error?: unknown) => void): Promise<void> {
    const started = this.#clock.now();
    const cancelTotal =
      this.#timeouts.totalMs === 0 ? undefined : this.#clock.after(this.#timeouts.totalMs, () => client.destroy());
    client.once('close', () => {
      cancelTotal?.();
      this.#observer({ type: 'exchange', status: client.statusCode, seconds: (this.#clock.now() - started) / 1000 });
    });
    // An error of the client's socket is its leaving; without a listener it would be the end of the process.
    message.on('error', ignore);
    client.on('error', ignore);
    try {
      this.#admit(message);
      const request = readRequest(message, this.#rules, () => departure(client));
      const response = await this.#chain(request);
      await sendResponse(response, client, this.#rules.viaName);
    } catch (error) {
      if (client.headersSent || client.destroyed) {
        client.destroy();
        return;
      }
      if (next !== undefined) return next(error);
      // The rest of a body we do not want would be read as the next request.
      if (!message.complete) client.setHeader('connection', 'close');
      await sendResponse(errorResponse(error), client, this.#rules.viaName);
    }
  }

  async #connect(message: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', ignore);
    try {
      this.#admit(message);
      if (this.#rules.origin !== undefined)
        throw new PeerDistError('ERR_PEERDIST_BAD_REQUEST', 'CONNECT is for a forward proxy');
      const target = splitAuthority(message.url ?? '', 'https');
      if (!/:\d{1,5}$/.test(message.url ?? '') || target.hostname === '')
        throw new PeerDistError('ERR_PEERDIST_BAD_REQUEST', 'malformed CONNECT target');
      if (!this.#connectPorts.has(target.port)) {
        throw new PeerDistError('ERR_PEERDIST_DESTINATION_FORBIDDEN', `CONNECT to port ${target.port} is not allowed`);
      }
      await connectTunnel(target, plainAddress(message.socket.remoteAddress), socket, head, this.#tunnel);
    } catch (error) {
      await refuse(message, socket, error, this.#rules.viaName);
    }
  }

  async #upgrade(message: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', ignore);
    try {
      this.#admit(message);
      const controller = new AbortController();
      socket.once('close', () => controller.abort());
      const request = readRequest(message, this.#rules, () => controller.signal);
      if (listMembers(message.headers.upgrade).includes('websocket'))
        return await upgradeTunnel(message, request, socket, head, this.#tunnel);
      // Any other protocol is politely ignored (RFC 9110 7.8), but Node has already let go of the socket: this is its last answer.
      if (request.body !== null)
        throw new PeerDistError('ERR_PEERDIST_BAD_REQUEST', 'a body together with an unknown Upgrade');
      await answerOnSocket(message, socket, await this.#chain(request), this.#rules.viaName);
    } catch (error) {
      await refuse(message, socket, error, this.#rules.viaName);
    }
  }

  #admit(message: IncomingMessage): void {
    if (this.#allowedClients?.has(message.socket.remoteAddress ?? '') === false) {
      throw new PeerDistError('ERR_PEERDIST_CLIENT_FORBIDDEN', 'this client may not use the proxy');
    }
  }

  #listeners(): { address: string; port: number }[] {
    return [...this.#servers]
      .map((server) => server.address())
      .filter((address): address is AddressInfo => typeof address === 'object' && address !== null);
  }
}

function ignore(): void {}

/** A signal that fires when the client goes away before it has its answer. */
function departure(client: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const leave = (): void => {
    if (!client.writableFinished) controller.abort(new PeerDistAbortError('signal'));
  };
  if (client.destroyed) leave();
  else client.once('close', leave);
  return controller.signal;
}
