/**
 * TLS that ends here, for hosts an administrator has listed: the client of a CONNECT shakes hands with us, and what it then sends are requests
 * like any other, on the very server that took its connection. So they have its limits, its time-outs and its end.
 */
import type { IncomingMessage, Server } from 'node:http';
import { isIPv6, type Socket } from 'node:net';
import { createServer as createTlsServer, Server as TlsServer, type TLSSocket } from 'node:tls';
import type { Clock } from '../../lib/clock.ts';
import type { CertificateAndKey } from '../../lib/crypto/certificates.ts';
import { PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';
import { type DestinationRule, guarded, plainAddress } from './access.ts';
import { badRequest, misdirected } from './errors.ts';
import type { IncomingRules } from './incoming.ts';
import { type HostAndPort, parseAuthority } from './options.ts';
import { establishedHead } from './tunnel.ts';
import type { WaitingClient } from './waiting-client.ts';

/** Whose TLS ends here, and in whose name. */
export interface Interceptor {
  /** @param hostname as in a CONNECT, lower case; an address without brackets */
  isListed(hostname: string): boolean;
  /** @throws {@link PeerDistError} when there is none; the client is then told instead of being let in */
  identityFor(hostname: string): Promise<InterceptIdentity>;
}

/** What clients are shown. */
export interface InterceptIdentity extends CertificateAndKey {
  /** 48 random bytes for the session tickets of this host. */
  readonly ticketKeys: Buffer;
}

/** Milliseconds for a client to shake hands. Policy, not protocol. */
const MAX_HANDSHAKE_MS = 30_000;

export interface InterceptionComponents {
  readonly interceptor: Interceptor;
  readonly rules: IncomingRules;
  readonly clock: Clock;
}

/** A connection whose TLS ends here. */
interface LetIn {
  readonly rules: IncomingRules;
  /** What it came over. */
  readonly carrier: Socket;
}

export class Interception {
  readonly #components: InterceptionComponents;
  readonly #letIn = new WeakMap<Socket, LetIn>();

  constructor(components: InterceptionComponents) {
    this.#components = components;
  }

  isListed(hostname: string): boolean {
    return this.#components.interceptor.isListed(nameOf(hostname));
  }

  /**
   * The rules of a request that came through TLS which ends here; undefined for any other.
   *
   * @throws {@link PeerDistError} where it is for another host than its CONNECT was (RFC 9110 7.4)
   */
  rulesFor({ socket, url = '', headers }: IncomingMessage): IncomingRules | undefined {
    const rules = this.#letIn.get(socket)?.rules;
    if (rules?.origin === undefined) return undefined;
    const [, scheme, absolute] = /^(https?):\/\/([^/?#]*)/i.exec(url) ?? [];
    const named = absolute ?? headers.host;
    // What is malformed, or has to be there and is not, is found by whoever reads the rest of it.
    const parsed = named === undefined ? undefined : parseAuthority(named);
    if (scheme?.toLowerCase() === 'http' || (parsed !== undefined && authorityOf(parsed) !== rules.origin.authority))
      throw misdirected(`this connection is for ${rules.origin.authority} only`);
    return rules;
  }

  /** The connection that its client made to us: who may use the proxy is seen there. */
  carrierOf(socket: Socket): Socket {
    return this.#letIn.get(socket)?.carrier ?? socket;
  }

  /**
   * Lets a client in and gives its connection back to the server that it came from.
   *
   * @param target of its CONNECT, which is listed
   * @returns what went wrong once the client had been told to begin; undefined when it is in
   * @throws {@link PeerDistError} before that
   */
  async accept(
    server: Server,
    client: WaitingClient,
    target: HostAndPort & { readonly port: number },
    rule: DestinationRule | undefined,
  ): Promise<PeerDistError | undefined> {
    const { interceptor, rules, clock } = this.#components;
    // A name is looked at with every connection that is made for it.
    guarded({ host: target.hostname, port: target.port }, rule);
    const hostname = nameOf(target.hostname);
    const identity = await interceptor.identityFor(hostname);
    if (client.signal.aborted) throw new PeerDistAbortError('signal', client.signal.reason);
    const early = client.claim();
    const socket = client.socket as Socket;
    socket.setTimeout(0);
    // As with Node's own HTTPS: a client that ends its side while it shakes hands has left.
    socket.allowHalfOpen = false;
    socket.write(establishedHead(rules.viaName));
    if (early.byteLength > 0) socket.unshift(early);
    const origin = { scheme: 'https', authority: authorityOf(target) } as const;
    return shakeHands(socket, hostname, identity, clock, (secure) => {
      this.#letIn.set(secure, { rules: { ...rules, origin, preserveHost: false }, carrier: socket });
      server.emit(server instanceof TlsServer ? 'secureConnection' : 'connection', secure);
    });
  }
}

/** @param onSecure called at once, before anything that came behind the handshake is read */
function shakeHands(
  socket: Socket,
  hostname: string,
  identity: InterceptIdentity,
  clock: Clock,
  onSecure: (secure: TLSSocket) => void,
): Promise<PeerDistError | undefined> {
  return new Promise((resolve) => {
    let failure: PeerDistError | undefined;
    const fail = (error: PeerDistError): void => {
      failure ??= error;
      cancelTimer();
      socket.destroy();
      resolve(failure);
    };
    const cancelTimer = clock.after(MAX_HANDSHAKE_MS, () =>
      fail(new PeerDistError('ERR_PEERDIST_TIMEOUT', 'the client did not shake hands in time')),
    );
    const leave = (): void => fail(new PeerDistAbortError('signal'));
    // One for each connection: it never listens, and Node's own way to shake hands with one client.
    const server = createTlsServer({
      ...identity,
      ALPNProtocols: ['http/1.1'],
      SNICallback: (name, callback) => {
        if (nameOf(name) === hostname) return callback(null);
        const error = badRequest('the client wants another host by TLS than by CONNECT');
        failure ??= error;
        return callback(error);
      },
    });
    server.on('secureConnection', (secure) => {
      cancelTimer();
      socket.off('close', leave);
      onSecure(secure);
      resolve(undefined);
    });
    server.on('tlsClientError', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return leave();
      return fail(badRequest(`the client does not shake hands: ${error.code ?? error.message}`));
    });
    socket.once('close', leave);
    server.emit('connection', socket);
  });
}

/** One spelling of each name and address. */
function nameOf(hostname: string): string {
  return plainAddress(hostname.toLowerCase());
}

/** As it stands in an https URL, without the port that goes without saying. */
function authorityOf({ hostname, port = 443 }: HostAndPort): string {
  const name = nameOf(hostname);
  const host = isIPv6(name) ? `[${name}]` : name;
  return port === 443 ? host : `${host}:${port}`;
}
