/** How a request is put to an upstream proxy, and what its answer means. */
import type { Agent } from 'node:http';
import { isPeerDistError } from '../../lib/errors.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { type Upstream, UpstreamBroke } from './upstream.ts';
import { refusalIn, refusalOf, UpstreamAway } from './upstream-link.ts';

/** Where a request is sent, and how it is put there. */
export interface Route {
  readonly target: {
    readonly protocol: string;
    readonly hostname: string;
    readonly host: string;
    readonly port: number;
  };
  readonly agent: Agent;
  /** The whole URL stands in the request line (RFC 9112 3.2.2). */
  readonly isAbsolute: boolean;
}

/**
 * Sends a request through the upstream proxy. One for an https origin stays in TLS all the way: in that of the link, or in a tunnel.
 *
 * @param isRepeatable whether it may be sent again when the connection breaks before the answer
 * @throws {@link UpstreamBroke} for such a one, {@link UpstreamAway}, and what `send` throws
 */
export async function sendThrough(
  { link, hostname, port }: Upstream,
  request: ProxyRequest,
  origin: Route['target'],
  isRepeatable: boolean,
  send: (route: Route) => Promise<ProxyResponse>,
): Promise<ProxyResponse> {
  // Both agents bring connections that speak TLS already where they have to.
  const protocol = 'http:';
  if (request.scheme === 'https' && !link.isTls)
    return send({ target: { ...origin, protocol }, agent: link.tunnelAgent, isAbsolute: false });
  let response: ProxyResponse;
  try {
    response = await send({
      target: { protocol, hostname, host: hostname, port },
      agent: link.agent,
      isAbsolute: true,
    });
  } catch (error) {
    const refusal = refusalOf(error);
    if (refusal !== undefined) throw refusal;
    const isBroken = isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_UNREACHABLE') && !(error instanceof UpstreamAway);
    throw isBroken && isRepeatable ? new UpstreamBroke('the connection broke', { cause: error }) : error;
  }
  const refusal = refusalIn(response.status, response.headers['proxy-status']);
  if (refusal === undefined) return response;
  response.discard();
  throw refusal;
}

/** RFC 9112 3.2.4: OPTIONS of a whole server has no path there. */
export function absoluteForm({ scheme, authority, target }: ProxyRequest): string {
  return `${scheme}://${authority}${target === '*' ? '' : target}`;
}
