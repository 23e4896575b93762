import { isIPv6 } from 'node:net';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { PeerDistError } from '../../lib/errors.ts';
import type { Observer } from '../../lib/observer.ts';
import type { Kit } from '../../lib/kit/index.ts';
import type { ExchangeWatch } from './exchange.ts';
import type { UpstreamOptions } from './upstream.ts';
import type { Interceptor } from './intercept.ts';

/** What the host needs of a proxy library; `http-proxy`, `http-proxy-3` and `httpxy` all have it. */
export interface ProxyServerLike {
  web(request: never, response: never, options: object, callback: (error: Error) => void): unknown;
  on(event: 'proxyReq', listener: (upstream: ClientRequest, request: unknown) => void): unknown;
  on(event: 'proxyRes', listener: (response: IncomingMessage, request: unknown) => void): unknown;
}

/** Time limits, milliseconds; 0 switches one off. */
export interface HostTimeouts {
  /** From wanting a connection to the origin to having it. @default 10000 */
  readonly connectMs?: number | undefined;
  /** From the last byte of the request to the head of the answer. @default 60000 */
  readonly headMs?: number | undefined;
  /** Without a byte in either direction: requests, answers and tunnels. @default 120000 */
  readonly idleMs?: number | undefined;
  /** Of a whole exchange. @default 0 */
  readonly totalMs?: number | undefined;
}

export interface HttpProxyHostOptions {
  /** Makes requests to origins; create one with no options. */
  readonly proxy: ProxyServerLike;
  /** Plug-ins every exchange goes through. */
  readonly kit: Kit;
  /** Fixed origin, `http://host:port` or `https://…` without a path. Without it the host is a forward proxy. */
  readonly origin?: string | undefined;
  /** Reverse: send the client's Host to the origin instead of the origin's own. @default false */
  readonly preserveHost?: boolean | undefined;
  readonly timeouts?: HostTimeouts | undefined;
  /** Bytes of a request body. @default Infinity */
  readonly maxRequestBytes?: number | undefined;
  /** Write Forwarded and X-Forwarded-*. @default false */
  readonly forwarded?: boolean | undefined;
  /** Networks (CIDR or address) whose Forwarded fields are believed and passed on. @default none */
  readonly trustedPeers?: readonly string[] | undefined;
  /** Networks that may use the proxy. @default everybody for a fixed origin; loopback and private networks for a forward proxy */
  readonly allowClients?: readonly string[] | undefined;
  /** Networks, addresses or `host:port` that clients from elsewhere may reach although they are loopback, link-local or our own. @default none */
  readonly allowDestinations?: readonly string[] | undefined;
  /** Ports CONNECT may reach. @default [443] */
  readonly connectPorts?: readonly number[] | undefined;
  /** Hosts whose TLS ends here, so that what is asked of them are requests like any other; forward proxy only. @default none: tunnels */
  readonly intercept?: Interceptor | undefined;
  /** Certificate authorities of https origins, PEM. @default those of Node */
  readonly originCa?: string | undefined;
  /** Name in Via fields. @default `peerdist-` and random digits: unique, so that loops are found */
  readonly viaName?: string | undefined;
  /** Another forward proxy that everything goes through. @default none */
  readonly upstream?: UpstreamOptions | undefined;
  readonly observer?: Observer | undefined;
  /** Follows single exchanges, for an access log. @default nobody */
  readonly watch?: ExchangeWatch | undefined;
}

export interface ResolvedTimeouts {
  readonly connectMs: number;
  readonly headMs: number;
  readonly idleMs: number;
  readonly totalMs: number;
}

export function resolveTimeouts({
  connectMs = 10_000,
  headMs = 60_000,
  idleMs = 120_000,
  totalMs = 0,
}: HostTimeouts = {}): ResolvedTimeouts {
  return { connectMs, headMs, idleMs, totalMs };
}

/** A fixed origin, taken apart. */
export interface Origin {
  readonly scheme: 'http' | 'https';
  readonly authority: string;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for anything but scheme, host and port */
export function parseOrigin(text: string): Origin {
  const match = /^(https?):\/\/([^/?#@\s]+)\/?$/i.exec(text);
  if (match === null || parseAuthority(match[2] as string) === undefined) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not an origin like http://host:port: ${text}`);
  }
  const scheme = (match[1] as string).toLowerCase() as Origin['scheme'];
  // One origin, one name (RFC 9110 4.2.3): what is known of it is kept under that.
  const authority = (match[2] as string).toLowerCase().replace(scheme === 'https' ? /:443$/ : /:80$/, '');
  return { scheme, authority };
}

export interface HostAndPort {
  /** Without brackets. */
  readonly hostname: string;
  /** Undefined where the authority names none. */
  readonly port: number | undefined;
}

/** Takes `host`, `host:port`, `[ipv6]` or `[ipv6]:port` apart; undefined for anything else (RFC 3986 3.2, no user information). */
export function parseAuthority(authority: string): HostAndPort | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._~!$&'()*+,;=%-]+))(?::(\d{1,5}))?$/i.exec(authority);
  if (match === null) return undefined;
  const [, literal, name, digits] = match;
  const port = digits === undefined ? undefined : Number(digits);
  if ((literal !== undefined && !isIPv6(literal)) || (port !== undefined && port > 65_535)) return undefined;
  return { hostname: (literal ?? name) as string, port };
}

/** Where to connect to for an authority that {@link parseAuthority} takes. */
export function connectTarget(
  authority: string,
  scheme: Origin['scheme'],
): { readonly hostname: string; readonly port: number } {
  const { hostname, port } = parseAuthority(authority) ?? { hostname: authority, port: undefined };
  return { hostname, port: port ?? (scheme === 'https' ? 443 : 80) };
}
