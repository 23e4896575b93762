import { isPeerDistError, PeerDistError, type PeerDistErrorCode } from '../../lib/errors.ts';
import { CLIENT_REFUSED } from './upstream-link.ts';
import { ProxyResponse } from '../../lib/kit/index.ts';

/** One table from error code to HTTP status; anything else is a 502. */
const STATUS: Partial<Record<PeerDistErrorCode, number>> = {
  ERR_PEERDIST_BAD_REQUEST: 400,
  ERR_PEERDIST_CLIENT_FORBIDDEN: 403,
  ERR_PEERDIST_DESTINATION_FORBIDDEN: 403,
  ERR_PEERDIST_LIMIT: 413,
  ERR_PEERDIST_LOOP: 508,
  ERR_PEERDIST_ORIGIN_TIMEOUT: 504,
  ERR_PEERDIST_TIMEOUT: 504,
};

/** The answer for a failure: a status and one readable line, nothing of what lies behind it. */
export function errorResponse(error: unknown): ProxyResponse {
  if (!isPeerDistError(error)) return ProxyResponse.text(502, 'peerdist: the request could not be completed');
  const refused = error.code === 'ERR_PEERDIST_CLIENT_FORBIDDEN' ? { 'proxy-status': CLIENT_REFUSED } : {};
  const fields = { 'cache-control': 'no-store', ...refused };
  return ProxyResponse.text(STATUS[error.code] ?? 502, `peerdist: ${error.message}`, fields);
}

/** The error of a request that cannot be forwarded safely. */
export function badRequest(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_BAD_REQUEST', message);
}
