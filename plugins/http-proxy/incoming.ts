/** From what a client sent to a {@link ProxyRequest}, or a refusal. Nothing ambiguous goes any further (RFC 9112 3.2 and 6). */
import type { IncomingMessage } from 'node:http';
import { PeerDistError } from '../../lib/errors.ts';
import { endToEndFields, fieldValue } from '../../lib/http/index.ts';
import { ProxyRequest, type InterimListener, type RequestWatcher } from '../../lib/kit/index.ts';
import { plainAddress } from './access.ts';
import { badRequest } from './errors.ts';
import { type Origin, parseAuthority } from './options.ts';

export interface IncomingRules {
  /** Fixed origin; undefined for a forward proxy. */
  readonly origin: Origin | undefined;
  readonly preserveHost: boolean;
  readonly viaName: string;
  /** Largest Content-Length; a chunked body is counted as it goes out. */
  readonly maxRequestBytes: number;
  readonly forwarded: boolean;
  isTrustedPeer(address: string): boolean;
}

/**
 * Reads one request.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_BAD_REQUEST` or `ERR_PEERDIST_LOOP`
 */
export function readRequest(
  message: IncomingMessage,
  rules: IncomingRules,
  signal: () => AbortSignal,
  watcher?: RequestWatcher,
  onInterim?: InterimListener,
): ProxyRequest {
  const host = readHost(message);
  const { scheme, authority, target } = readTarget(message.method, message.url ?? '', host, rules);
  const headers = endToEndFields(message.headers, 'host');
  const address = plainAddress(message.socket.remoteAddress);
  readVia(message, headers, rules);
  writeForwarded(message, headers, host, address, rules);
  const body = readBody(message, rules.maxRequestBytes);
  return new ProxyRequest({
    method: message.method ?? 'GET',
    scheme,
    authority,
    target,
    headers,
    body,
    signal,
    watcher,
    onInterim,
    client: { address, httpVersion: message.httpVersion },
  });
}

/**
 * The one Host field, or undefined for HTTP/1.0 without.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_BAD_REQUEST` for none, several or a malformed one
 */
export function readHost(message: IncomingMessage): string | undefined {
  let count = 0;
  for (let index = 0; index < message.rawHeaders.length; index += 2) {
    const name = message.rawHeaders[index] as string;
    if (name.length === 4 && name.toLowerCase() === 'host') count += 1;
  }
  const host = message.headers.host;
  if (count > 1) throw badRequest('more than one Host field');
  if (host === undefined) {
    if (message.httpVersion === '1.0') return undefined;
    throw badRequest('no Host field');
  }
  if (parseAuthority(host) === undefined) throw badRequest('malformed Host field');
  return host.toLowerCase();
}

function readTarget(
  method: string | undefined,
  url: string,
  host: string | undefined,
  rules: IncomingRules,
): { scheme: 'http' | 'https'; authority: string; target: string } {
  const absolute = url.startsWith('/') ? null : /^(https?):\/\/([^/?#]*)(.*)$/i.exec(url);
  if (absolute === null) {
    if (!url.startsWith('/') && url !== '*') throw badRequest('malformed request target');
    if (rules.origin === undefined)
      throw badRequest('this is a proxy: send the whole URL, or set it as the proxy of your client');
    return {
      ...rules.origin,
      authority: rules.preserveHost ? (host ?? rules.origin.authority) : rules.origin.authority,
      target: url,
    };
  }
  const named = (absolute[2] as string).toLowerCase();
  if (parseAuthority(named) === undefined) throw badRequest('malformed host in the request target');
  const rest = absolute[3] as string;
  // RFC 9112 3.2.4: OPTIONS of a whole server has no path in the absolute form.
  const target = rest.startsWith('/') ? rest : rest === '' && method === 'OPTIONS' ? '*' : `/${rest}`;
  // RFC 9112 3.2.2: the host of an absolute target replaces whatever Host says.
  if (rules.origin !== undefined)
    return { ...rules.origin, authority: rules.preserveHost ? named : rules.origin.authority, target };
  return { scheme: (absolute[1] as string).toLowerCase() as 'http' | 'https', authority: named, target };
}

function readVia(
  message: IncomingMessage,
  headers: Record<string, string | readonly string[] | undefined>,
  rules: IncomingRules,
): void {
  const via = fieldValue(headers, 'via');
  checkLoop(via, rules.viaName);
  headers['via'] = `${via === undefined ? '' : `${via}, `}${message.httpVersion} ${rules.viaName}`;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_LOOP` when this proxy is among those a request has passed */
export function checkLoop(via: string | undefined, viaName: string): void {
  if (via?.split(',').some((hop) => hop.trim().split(/\s+/)[1] === viaName) === true)
    throw new PeerDistError('ERR_PEERDIST_LOOP', 'the request has passed this proxy before');
}

function writeForwarded(
  message: IncomingMessage,
  headers: Record<string, string | readonly string[] | undefined>,
  host: string | undefined,
  address: string,
  rules: IncomingRules,
): void {
  if (!rules.isTrustedPeer(address)) {
    for (const name in headers) {
      if (name === 'forwarded' || name === 'x-real-ip' || name.startsWith('x-forwarded-')) delete headers[name];
    }
  }
  if (!rules.forwarded) return;
  const proto = 'encrypted' in message.socket ? 'https' : 'http';
  const quoted = address.includes(':') ? `"[${address}]"` : address;
  const element = `for=${quoted}${host === undefined ? '' : `;host="${host}"`};proto=${proto}`;
  headers['forwarded'] = addHop(fieldValue(headers, 'forwarded'), element);
  headers['x-forwarded-for'] = addHop(fieldValue(headers, 'x-forwarded-for'), address);
  headers['x-forwarded-proto'] ??= proto;
  if (host !== undefined) headers['x-forwarded-host'] ??= host;
}

function addHop(value: string | undefined, element: string): string {
  return value === undefined ? element : `${value}, ${element}`;
}

/**
 * The body, whose framing towards the origin is made by us: the one valid Content-Length, or chunked.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_BAD_REQUEST` or `ERR_PEERDIST_LIMIT`
 */
function readBody(message: IncomingMessage, maxBytes: number): ProxyRequest['body'] {
  const coding = message.headers['transfer-encoding'];
  const length = message.headers['content-length'];
  if (coding !== undefined) {
    if (coding.trim().toLowerCase() !== 'chunked') throw badRequest('a transfer coding other than chunked');
    if (length !== undefined || message.httpVersion === '1.0') throw badRequest('ambiguous message framing');
    return message;
  }
  if (length === undefined) return null;
  if (!/^\d{1,15}$/.test(length)) throw badRequest('malformed Content-Length');
  if (Number(length) > maxBytes) throw bodyTooLarge(maxBytes);
  return Number(length) === 0 ? null : message;
}

export function bodyTooLarge(maxBytes: number): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_LIMIT', `the request body is larger than ${maxBytes} bytes`);
}
