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

/** A request on a connection that is for another host (RFC 9110 15.5.20). */
class Misdirected extends PeerDistError {
  static readonly status = 421;
}

/** The answer for a failure: a status and one readable line, nothing of what lies behind it. */
export function errorResponse(error: unknown): ProxyResponse {
  if (!isPeerDistError(error)) return ProxyResponse.text(502, 'peerdist: the request could not be completed');
  const refused = error.code === 'ERR_PEERDIST_CLIENT_FORBIDDEN' ? { 'proxy-status': CLIENT_REFUSED } : {};
  const fields = { 'cache-control': 'no-store', ...refused };
  return ProxyResponse.text(statusOf(error), `peerdist: ${error.message}`, fields);
}

function statusOf(error: PeerDistError): number {
  return error instanceof Misdirected ? Misdirected.status : (STATUS[error.code] ?? 502);
}

/** The error of a request for another host than its connection is for. */
export function misdirected(message: string): PeerDistError {
  return new Misdirected('ERR_PEERDIST_BAD_REQUEST', message);
}

/** What Node says of a certificate that it does not trust; not what the origin says of ours (`ERR_SSL_…ALERT…`). */
const CERTIFICATE_CODE =
  /^(?!ERR_(?!TLS_CERT_))(?:.*CERT.*|UNABLE_TO_.*|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED|HOSTNAME_MISMATCH)$/;

/** The error of a connection that could not be made. @param what was not reached */
export function unreachable(what: string, cause: unknown): PeerDistError {
  const { code } = (cause ?? {}) as NodeJS.ErrnoException;
  const message =
    typeof code === 'string' && CERTIFICATE_CODE.test(code)
      ? `${what} has no valid certificate (${code})`
      : `${what} cannot be reached`;
  return new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', message, { cause });
}

/** The error of a request that cannot be forwarded safely. */
export function badRequest(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_BAD_REQUEST', message);
}
