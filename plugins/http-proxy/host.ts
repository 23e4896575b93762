import { randomBytes } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { PeerDistError } from '../../lib/errors.ts';
import type { Next } from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import {
  type Agents,
  checkVisible,
  createAgents,
  DestinationRule,
  isLoopback,
  networkSet,
  PRIVATE_NETWORKS,
} from './access.ts';
import { Departure } from './departure.ts';
import { errorResponse } from './errors.ts';
import { Exchange, type ExchangeWatch } from './exchange.ts';
import { Handover } from './handover.ts';
import { type IncomingRules, readRequest } from './incoming.ts';
import { Interception } from './intercept.ts';
import { type HttpProxyHostOptions, parseOrigin, type ResolvedTimeouts, resolveTimeouts } from './options.ts';
import { interimWriter } from './interim.ts';
import { createListener, isCertified, type TlsIdentity } from './listener.ts';
import { Outgoing } from './outgoing.ts';
import { sendResponse } from './respond.ts';
import { Upstream } from './upstream.ts';

/** Status of an exchange whose client left before there was one, as nginx logs it. */
const CLIENT_GONE = 499;
/**
 * Runs exchanges: reads what a client sends, passes it through the kit's plug-ins to the origin, writes the answer. As a fixed-origin
 * (reverse) proxy or gateway, as a forward proxy, or as Connect/Express middleware.
 */
export class HttpProxyHost {
  readonly #timeouts: ResolvedTimeouts;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #rules: IncomingRules;
  #allowedClients: { has(address: string): boolean } | undefined;
  readonly #destinationRule: DestinationRule | undefined;
  readonly #openAgents: Agents;
  readonly #guardedAgents: Agents;
  readonly #upstream: Upstream | undefined;
  readonly #servers = new Set<Server>();
  readonly #interception: Interception | undefined;
  readonly #handover: Handover;
  readonly #chain: Next;
  readonly #watch: ExchangeWatch | undefined;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  constructor(options: HttpProxyHostOptions, clock: Clock = systemClock) {
    const origin = options.origin === undefined ? undefined : parseOrigin(options.origin);
    this.#clock = clock;
    this.#timeouts = resolveTimeouts(options.timeouts);
    this.#observer = options.observer ?? ignoreObservations;
    this.#watch = options.watch;
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
    this.allowClients(options.allowClients);
    // A fixed origin was chosen by the administrator, so nobody can be sent elsewhere.
    this.#destinationRule =
      origin === undefined
        ? new DestinationRule({ allow: options.allowDestinations ?? [], ownListeners: () => this.#listeners() })
        : undefined;
    this.#openAgents = createAgents(undefined, options.originCa);
    this.#guardedAgents =
      this.#destinationRule === undefined ? this.#openAgents : createAgents(this.#destinationRule, options.originCa);
    const { originCa } = options;
    this.#upstream =
      options.upstream && new Upstream(options.upstream, { originCa, viaName, headMs: this.#timeouts.headMs, clock });
    // To an upstream proxy a request has one name, and that says where it goes.
    if (options.upstream !== undefined && options.preserveHost === true)
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', "an upstream proxy cannot be told the client's Host too");
    const ruleFor = (client: string): DestinationRule | undefined =>
      isLoopback(client) ? undefined : this.#destinationRule;
    const outgoing = new Outgoing({
      proxy: options.proxy,
      timeouts: this.#timeouts,
      clock,
      fixedOrigin: origin,
      maxRequestBytes: this.#rules.maxRequestBytes,
      agentsFor: (client) => (isLoopback(client) ? this.#openAgents : this.#guardedAgents),
      upstream: this.#upstream,
      checkVisible: (client, hostname, port) => checkVisible(ruleFor(client), hostname, port),
      observer: this.#observer,
    });
    this.#chain = options.kit.through((request) => outgoing.send(request));
    const interceptor = options.intercept;
    this.#interception = interceptor && new Interception({ interceptor, rules: this.#rules, clock });
    this.#handover = new Handover({
      admit: (message) => this.#admit(message),
      begin: (message) => this.#begin(message),
      rulesFor: (message) => this.#rulesFor(message),
      chain: this.#chain,
      connectPorts: new Set(options.connectPorts ?? [443]),
      interception: this.#interception,
      tunnel: {
        timeouts: this.#timeouts,
        observer: this.#observer,
        viaName,
        originCa,
        ruleFor,
        upstream: this.#upstream,
      },
    });
  }

  /** A server with this host on it, not listening yet. With `tls` it speaks HTTPS. */
  createServer(tls?: TlsIdentity): Server {
    const server = createListener(tls, this.#timeouts.idleMs);
    this.attach(server);
    return server;
  }

  /** Puts the host on a server somebody else made. */
  attach(server: Server): void {
    server.on('request', (message, client) => this.handle(message, client));
    this.#handover.attach(server);
    this.shelter(server);
  }

  /** Shelters a listener of the same process, such as the admin one, from clients of a forward proxy. */
  shelter(server: Server): void {
    this.#servers.add(server);
    server.once('close', () => this.#servers.delete(server));
  }

  /**
   * Changes who may use the proxy from the next request on.
   *
   * @param networks as {@link HttpProxyHostOptions.allowClients}; undefined for its default
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`; then nothing has changed
   */
  allowClients(networks: readonly string[] | undefined): void {
    const allowed = networks ?? (this.#rules.origin === undefined ? PRIVATE_NETWORKS : undefined);
    this.#allowedClients = allowed && networkSet(allowed);
  }

  /** Connect and Express middleware; errors before the head go to `next` where there is one. */
  get middleware(): (message: IncomingMessage, client: ServerResponse, next?: (error?: unknown) => void) => void {
    return (message, client, next) => this.handle(message, client, next);
  }

  /** Runs one exchange. Never throws. */
  handle(message: IncomingMessage, client: ServerResponse, next?: (error?: unknown) => void): void {
    this.#exchange(message, client, next).catch(() => client.destroy());
  }

  /** What does not work although the host does, in words; undefined when all does. */
  get trouble(): string | undefined {
    return this.#upstream?.trouble;
  }

  /** Closes the connections to origins. Call after the servers are closed. */
  close(): void {
    this.#openAgents.destroy();
    this.#guardedAgents.destroy();
    this.#upstream?.close();
  }

  async #exchange(message: IncomingMessage, client: ServerResponse, next?: (error?: unknown) => void): Promise<void> {
    const exchange = this.#begin(message);
    const { totalMs, idleMs } = this.#timeouts;
    const departure = new Departure(message, client);
    const cancelTotal =
      totalMs === 0
        ? undefined
        : this.#clock.after(totalMs, () => {
            exchange.breaks();
            departure.expire();
          });
    // Before Node's own listener, which lets the next answer of a pipeline go.
    client.prependListener('finish', () => exchange.written());
    const over = (): void => {
      message.socket.off('close', over);
      cancelTotal?.();
      exchange.end(client.headersSent ? client.statusCode : CLIENT_GONE, client.writableFinished);
    };
    client.once('close', over);
    // A request in a pipeline has no connection of its own yet, and its response would not hear that go.
    if (client.socket === null) message.socket.setMaxListeners(0).once('close', over);
    // An error of the client's socket is its leaving; without a listener it would be the end of the process.
    message.on('error', ignore);
    client.on('error', ignore);
    try {
      this.#admit(message);
      const { watcher } = exchange;
      const request = readRequest(
        message,
        this.#rulesFor(message),
        () => departure.signal,
        watcher,
        interimWriter(client),
      );
      const response = await this.#chain(request);
      await sendResponse(exchange.answered(response), client, this.#rules.viaName, idleMs, () => exchange.breaks());
    } catch (error) {
      exchange.fails(departure.expired ?? error);
      if (client.headersSent || client.destroyed) {
        if (!client.destroyed) exchange.breaks();
        client.destroy();
        return;
      }
      const failure = departure.expired ?? error;
      if (next !== undefined) return next(failure);
      // The rest of a body we do not want would be read as the next request.
      if (!message.complete) client.setHeader('connection', 'close');
      await sendResponse(errorResponse(failure), client, this.#rules.viaName, idleMs);
    }
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_BAD_REQUEST` for a request on a connection that is for another host */
  #rulesFor(message: IncomingMessage): IncomingRules {
    return this.#interception?.rulesFor(message) ?? this.#rules;
  }

  #begin(message: IncomingMessage): Exchange {
    return new Exchange(message, { observer: this.#observer, clock: this.#clock, watch: this.#watch });
  }

  #admit(message: IncomingMessage): void {
    // A connection whose TLS ended here is carried by that of the client.
    const carrier = this.#interception?.carrierOf(message.socket) ?? message.socket;
    const certified = isCertified(carrier);
    if (certified === true) return;
    if (certified === false)
      throw new PeerDistError('ERR_PEERDIST_CLIENT_FORBIDDEN', 'this proxy wants a client certificate that it trusts');
    if (this.#allowedClients?.has(carrier.remoteAddress ?? '') === false) {
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
