import { createServer, type Server } from 'node:http';
import type { Metrics } from '../metrics/index.ts';

/** The administrator's listener: `/metrics` and `/healthz`, apart from the traffic. */
export function createAdminServer(metrics: Metrics): Server {
  return createServer((request, response) => {
    const answer = (status: number, type: string, text: string): void => {
      response
        .writeHead(status, { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
        .end(text);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'text/plain', 'only GET\n');
    switch (request.url) {
      case '/healthz':
        return answer(200, 'text/plain', 'ok\n');
      case '/metrics':
        void metrics.exposition().then(
          ({ contentType, text }) => answer(200, contentType, text),
          () => answer(500, 'text/plain', 'metrics failed\n'),
        );
        return undefined;
      default:
        return answer(404, 'text/plain', 'only /metrics and /healthz\n');
    }
  });
}
