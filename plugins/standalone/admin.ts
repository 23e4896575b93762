import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Metrics } from '../metrics/index.ts';

/** What a role adds to the administrator's listener, by path. */
export type AdminRoutes = Readonly<Record<string, (request: IncomingMessage, response: ServerResponse) => void>>;

export interface Readiness {
  /** False while the service is ending. */
  readonly isReady: boolean;
  /** What it has to do without, in words. */
  readonly trouble: string | undefined;
}

/** The administrator's listener: `/metrics`, `/healthz` (it runs) and `/readyz` (it takes requests), apart from the traffic. */
export function createAdminServer(metrics: Metrics, readiness: () => Readiness, routes: AdminRoutes = {}): Server {
  // A package may take as long as it takes; heads may not.
  return createServer({ requestTimeout: 0 }, (request, response) => {
    const answer = (status: number, type: string, text: string): void => {
      response
        .writeHead(status, { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
        .end(text);
    };
    const { method, url = '' } = request;
    const route = Object.hasOwn(routes, url) ? routes[url] : undefined;
    if (route !== undefined)
      return method === 'POST' ? route(request, response) : answer(405, 'text/plain', 'only POST\n');
    if (method !== 'GET' && method !== 'HEAD') return answer(405, 'text/plain', 'only GET\n');
    switch (url) {
      case '/healthz':
        return answer(200, 'text/plain', 'ok\n');
      case '/readyz': {
        const { isReady, trouble } = readiness();
        const lines = [isReady ? 'ready' : 'ending', ...(trouble === undefined ? [] : [`store: ${trouble}`])];
        return answer(isReady ? 200 : 503, 'text/plain', lines.map((line) => `${line}\n`).join(''));
      }
      case '/metrics':
        void metrics.exposition().then(
          ({ contentType, text }) => answer(200, contentType, text),
          () => answer(500, 'text/plain', 'metrics failed\n'),
        );
        return undefined;
      default:
        return answer(404, 'text/plain', 'only /metrics, /healthz and /readyz\n');
    }
  });
}
