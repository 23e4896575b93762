import { fieldValue } from '../../lib/http/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

/**
 * Keys of what an exchange makes invalid: the target of an unsafe method that did not fail, and what its answer names in Location and
 * Content-Location, if that is of the same origin (RFC 9111 4.4). Nobody can have somebody else's content forgotten.
 */
export function invalidatedKeys(request: ProxyRequest, { status, headers }: ProxyResponse): readonly string[] {
  if (SAFE_METHODS.has(request.method) || status < 200 || status >= 400) return [];
  const origin = `${request.scheme}://${request.authority}`;
  const named = ['location', 'content-location'].flatMap((name) => {
    const value = fieldValue(headers, name);
    if (value === undefined || !URL.canParse(value, request.key)) return [];
    const url = new URL(value, request.key);
    // As the client writes it, the default port may be there or not.
    return url.origin === new URL(origin).origin ? [`${origin}${url.pathname}${url.search}`] : [];
  });
  return [request.key, ...named];
}
