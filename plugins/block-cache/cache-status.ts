import { fieldValue } from '../../lib/http/index.ts';
import type { ProxyResponse } from '../../lib/kit/index.ts';

/** What became of a request (RFC 9211). */
export type CacheStatus =
  | 'hit'
  | 'hit; detail=stale-while-revalidate'
  | 'fwd=stale; detail=stale-if-error'
  | 'fwd=partial'
  | 'fwd=uri-miss'
  | 'fwd=uri-miss; stored'
  | 'fwd=stale; stored'
  | 'fwd=uri-miss; collapsed'
  | 'fwd=stale'
  | 'fwd=stale; fwd-status=304'
  | 'fwd=bypass'
  | 'fwd=method';

/** A Cache-Status field of our own, behind those of caches nearer to the origin. */
export function cacheStatus(status: CacheStatus, earlier?: string): string {
  const own = `peerdist; ${status}`;
  return earlier === undefined ? own : `${earlier}, ${own}`;
}

/** The response with our Cache-Status behind those of caches nearer to the origin. */
export function withCacheStatus(response: ProxyResponse, status: CacheStatus): ProxyResponse {
  const own = cacheStatus(status, fieldValue(response.headers, 'cache-status'));
  return response.with({ headers: { ...response.headers, 'cache-status': own } });
}
