import { fieldValue } from '../../lib/http/index.ts';
import type { ProxyResponse } from '../../lib/kit/index.ts';

/** What became of a request (RFC 9211). */
export type CacheStatus =
  | 'hit'
  | 'fwd=uri-miss'
  | 'fwd=uri-miss; collapsed'
  | 'fwd=stale'
  | 'fwd=stale; fwd-status=304'
  | 'fwd=bypass'
  | 'fwd=method';

/** A Cache-Status field of our own. */
export function cacheStatus(status: CacheStatus): string {
  return `peerdist; ${status}`;
}

/** The response with our Cache-Status behind those of caches nearer to the origin. */
export function withCacheStatus(response: ProxyResponse, status: CacheStatus): ProxyResponse {
  const earlier = fieldValue(response.headers, 'cache-status');
  const own = cacheStatus(status);
  return response.with({
    headers: { ...response.headers, 'cache-status': earlier === undefined ? own : `${earlier}, ${own}` },
  });
}
