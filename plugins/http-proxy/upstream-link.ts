/** Connections to an upstream proxy: plain or TLS, trusted before a byte of a request is sent, and tunnels through it. */
import { Agent, type IncomingMessage, request as httpRequest } from 'node:http';
import { connect, isIP, type Socket } from 'node:net';
import { connect as tlsConnect, type TLSSocket } from 'node:tls';
import type { Clock } from '../../lib/clock.ts';
import { isPeerDistError, PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';
import { KEPT_CONNECTIONS, verified } from './access.ts';

/** Milliseconds to a connection to the upstream proxy, TLS included: it is a neighbour or on a link of our own. Policy, not protocol. */
export const UPSTREAM_CONNECT_MS = 3_000;

/** What TLS says when it is our certificate that the other side does not take, or misses. */
const CERTIFICATE_ALERT = /^ERR_SSL_\w*ALERT_\w*(?:CERT|UNKNOWN_CA|ACCESS_DENIED)/;

/** The upstream proxy cannot be connected to: nothing of the request has been sent. */
export class UpstreamAway extends PeerDistError {
  /** In a word or two, for an administrator. */
  readonly reason: string;

  constructor(reason: string, cause?: unknown) {
    super('ERR_PEERDIST_ORIGIN_UNREACHABLE', 'the upstream proxy cannot be reached', { cause });
    this.reason = reason;
  }
}

export function upstreamRefused(message: string, cause?: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_UPSTREAM_REFUSED', message, { cause });
}

/** The refusal behind an error of a connection to the upstream proxy, if there is one. */
export function refusalOf(error: unknown): PeerDistError | undefined {
  if (isPeerDistError(error, 'ERR_PEERDIST_UPSTREAM_REFUSED')) return error;
  for (let each: unknown = error; each instanceof Error; each = each.cause) {
    if (CERTIFICATE_ALERT.test((each as NodeJS.ErrnoException).code ?? ''))
      return upstreamRefused('the upstream proxy does not take our certificate', error);
  }
  return undefined;
}

export interface LinkOptions {
  readonly hostname: string;
  readonly port: number;
  readonly isTls: boolean;
  /** SHA-256 fingerprints, hexadecimal in lower case. Where there are some, one of them has to be that of the certificate. */
  readonly pins: readonly string[];
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  /** Authorities of https origins behind a tunnel, PEM. */
  readonly originCa: string | undefined;
  readonly viaName: string;
  readonly clock: Clock;
}

/** A tunnel's far end. */
export interface TunnelEnd {
  readonly hostname: string;
  readonly port: number;
  /** Via of the CONNECT so far, ours not among it. */
  readonly via?: string | undefined;
  readonly headMs: number;
}

export class UpstreamLink {
  readonly isTls: boolean;
  /** Keep-alive connections to the proxy. */
  readonly agent: Agent;
  /** Keep-alive connections to https origins, each through a tunnel of its own. */
  readonly tunnelAgent: Agent;
  readonly #options: LinkOptions;
  readonly #connected: () => void;

  /** @param connected told of each connection that has been made */
  constructor(options: LinkOptions, headMs: number, connected: () => void) {
    this.#options = options;
    this.#connected = connected;
    this.isTls = options.isTls;
    this.agent = agentOf(() => this.connect());
    this.tunnelAgent = agentOf(({ host, port }) => this.connectOrigin({ hostname: host, port, headMs }));
  }

  destroy(): void {
    this.agent.destroy();
    this.tunnelAgent.destroy();
  }

  /**
   * A connection to the proxy, which is the one that is trusted.
   *
   * @throws {@link UpstreamAway}, or {@link PeerDistError} `ERR_PEERDIST_UPSTREAM_REFUSED`
   */
  async connect(signal?: AbortSignal): Promise<Socket> {
    const { hostname: host, port, isTls, ca, cert, key, clock } = this.#options;
    const socket = isTls
      ? tlsConnect({
          host,
          port,
          ...(isIP(host) === 0 ? { servername: host } : {}),
          ...(ca === undefined ? {} : { ca }),
          ...(cert === undefined ? {} : { cert }),
          ...(key === undefined ? {} : { key }),
          // Looked at below, where a pin may stand in for an authority; until then nothing is sent.
          rejectUnauthorized: false,
        })
      : connect({ host, port });
    socket.setNoDelay(true);
    const late = clock.after(UPSTREAM_CONNECT_MS, () => socket.destroy(new UpstreamAway('no answer')));
    try {
      await opened(socket, isTls ? 'secureConnect' : 'connect', signal);
    } catch (error) {
      if (error instanceof UpstreamAway || isPeerDistError(error, 'ERR_PEERDIST_OPERATION_ABORTED')) throw error;
      throw (
        refusalOf(error) ?? new UpstreamAway((error as NodeJS.ErrnoException).code ?? 'the connection broke', error)
      );
    } finally {
      late();
    }
    const complaint = isTls ? this.#complaint(socket as TLSSocket) : undefined;
    if (complaint !== undefined) {
      socket.destroy();
      throw upstreamRefused(complaint);
    }
    this.#connected();
    return socket;
  }

  /** A tunnel (CONNECT, RFC 9110 9.3.6). @throws as {@link connect}; {@link PeerDistError} when the proxy makes none */
  async tunnel({ hostname, port, via, headMs }: TunnelEnd, signal?: AbortSignal): Promise<Socket> {
    const socket = await this.connect(signal);
    const authority = `${hostname.includes(':') ? `[${hostname}]` : hostname}:${port}`;
    const ours = `1.1 ${this.#options.viaName}`;
    const asked = httpRequest({
      method: 'CONNECT',
      path: authority,
      headers: { host: authority, via: via === undefined ? ours : `${via}, ${ours}` },
      createConnection: () => socket,
      ...(signal === undefined ? {} : { signal }),
    });
    const late =
      headMs === 0
        ? undefined
        : this.#options.clock.after(headMs, () =>
            asked.destroy(
              new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the upstream proxy made no tunnel in time'),
            ),
          );
    try {
      const [answer, first] = await new Promise<[IncomingMessage, Buffer]>((resolve, reject) => {
        asked.once('connect', (message, _socket, head) => resolve([message, head]));
        asked.once('error', (error) => reject(refusalOf(error) ?? failureOf(error, signal)));
        asked.once('close', () => reject(failureOf(undefined, signal)));
        asked.end();
      });
      checkTunnel(answer);
      if (first.byteLength > 0) socket.unshift(first);
      return socket;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      late?.();
    }
  }

  /** A tunnel to an https origin with TLS to that origin inside: the proxy sees ciphertext. @throws as {@link tunnel} */
  async connectOrigin(end: TunnelEnd, signal?: AbortSignal): Promise<Socket> {
    const tunnel = await this.tunnel(end, signal);
    const { originCa } = this.#options;
    const socket = tlsConnect({
      socket: tunnel,
      host: end.hostname,
      ...(isIP(end.hostname) === 0 ? { servername: end.hostname } : {}),
      ...verified(originCa),
    });
    try {
      await opened(socket, 'secureConnect', signal);
      return socket;
    } catch (error) {
      tunnel.destroy();
      throw failureOf(error, signal);
    }
  }

  /** What is wrong with the proxy's certificate. */
  #complaint(socket: TLSSocket): string | undefined {
    const { pins, ca } = this.#options;
    if (pins.length > 0) {
      const { fingerprint256 } = socket.getPeerCertificate();
      if (!pins.includes(fingerprintOf(fingerprint256 ?? '')))
        return 'the certificate of the upstream proxy is not the pinned one';
      // A pin is trust enough, unless an authority is named besides.
      if (ca === undefined) return undefined;
    }
    if (socket.authorized) return undefined;
    const reason: unknown = socket.authorizationError;
    const code = reason instanceof Error ? ((reason as NodeJS.ErrnoException).code ?? reason.message) : String(reason);
    return `the certificate of the upstream proxy is not trusted (${code})`;
  }
}

/** A fingerprint without colons, in lower case. */
export function fingerprintOf(text: string): string {
  return text.replaceAll(':', '').toLowerCase();
}

/** Resolves when it is connected; otherwise it is destroyed. */
async function opened(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  signal: AbortSignal | undefined,
): Promise<void> {
  const abandon = (): void => void socket.destroy(new PeerDistAbortError('signal', signal?.reason));
  // Also after it was given away: an error that nobody hears would be the end of the process.
  socket.on('error', () => {});
  if (signal?.aborted === true) abandon();
  signal?.addEventListener('abort', abandon, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once(event, () => resolve());
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the connection was closed')));
    });
  } finally {
    signal?.removeEventListener('abort', abandon);
  }
}

function failureOf(error: unknown, signal: AbortSignal | undefined): PeerDistError {
  if (signal?.aborted === true) return new PeerDistAbortError('signal', signal.reason);
  if (isPeerDistError(error)) return error;
  const message = 'the destination cannot be reached through the upstream proxy';
  return new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', message, { cause: error });
}

/** @throws {@link PeerDistError} for an answer that makes no tunnel */
function checkTunnel({ statusCode: status = 502, headers }: IncomingMessage): void {
  if (status >= 200 && status < 300) return;
  const refusal = refusalIn(status, headers['proxy-status']);
  if (refusal !== undefined) throw refusal;
  if (status === 403)
    throw new PeerDistError('ERR_PEERDIST_DESTINATION_FORBIDDEN', 'the upstream proxy does not allow this destination');
  if (status === 504)
    throw new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the upstream proxy could not connect to it in time');
  if (status === 508) throw new PeerDistError('ERR_PEERDIST_LOOP', 'the upstream proxy found a loop');
  throw new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', `the upstream proxy made no tunnel: ${status}`);
}

/** Says in an answer of ours that it was the client who may not use this proxy, and not an origin's word (RFC 9209). */
export const CLIENT_REFUSED = 'peerdist; error=http_request_denied';

/** The refusal that an answer of the upstream proxy means: of us, not of what was asked for. */
export function refusalIn(status: number, proxyStatus: unknown): PeerDistError | undefined {
  if (status === 407) return upstreamRefused('the upstream proxy wants a password');
  if (status === 403 && proxyStatus === CLIENT_REFUSED)
    return upstreamRefused('the upstream proxy refuses this proxy: see its --allow-client and --client-ca');
  return undefined;
}

/** An agent whose connections are made by `open`. */
function agentOf(open: (options: { readonly host: string; readonly port: number }) => Promise<Socket>): Agent {
  const agent = new Agent(KEPT_CONNECTIONS);
  // Node's types give the options of a request; what arrives are those of a connection.
  const connectable = agent as unknown as {
    createConnection: (
      options: { readonly host: string; readonly port: number },
      callback: (error: unknown, socket?: Socket) => void,
    ) => undefined;
  };
  connectable.createConnection = (options, callback) => {
    open(options).then(
      (socket) => callback(null, socket),
      (error: unknown) => callback(error),
    );
    return undefined;
  };
  return agent;
}
