/** What belongs to one connection and must not be forwarded (RFC 9110 7.6.1). */
import { fieldValue, type HeaderFields, listMembers } from './fields.ts';

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'expect',
  // Not hop-by-hop but never meant for us: CGI programs behind an origin would take it for their proxy setting (httpoxy).
  'proxy',
]);

/**
 * Fields a Connection header cannot nominate away: framing and routing, what we act upon ourselves, and what conditions or
 * authorises the request. A sender that lists them wants us and the origin to read different requests.
 */
const NOT_NOMINATABLE = new Set([
  'host',
  'content-length',
  'content-encoding',
  'content-range',
  'content-type',
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'authorization',
  'cookie',
  'set-cookie',
  'cache-control',
  'pragma',
  'vary',
  'etag',
  'last-modified',
  'expires',
  'date',
  'age',
  'via',
  'accept-encoding',
  'x-p2p-peerdist',
  'x-p2p-peerdistex',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
]);

/**
 * The end-to-end fields. Framing (Content-Length) stays: who sends the message on decides about it.
 *
 * @param without one more name to leave out
 */
export function endToEndFields(
  headers: HeaderFields,
  without?: string,
): Record<string, string | readonly string[] | undefined> {
  const connection = fieldValue(headers, 'connection');
  const nominated =
    connection === undefined || /^(?:keep-alive|close)$/i.test(connection) ? undefined : listMembers(connection);
  const kept: Record<string, string | readonly string[] | undefined> = {};
  for (const name in headers) {
    if (HOP_BY_HOP.has(name) || name === without) continue;
    if (nominated?.includes(name) === true && !NOT_NOMINATABLE.has(name)) continue;
    kept[name] = headers[name];
  }
  return kept;
}
