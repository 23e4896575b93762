import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { RetrievalServer } from './retrieval-server.ts';

export interface RetrievalHttpOptions {
  /** Who may connect, by address. @default everybody */
  readonly isAllowed?: ((address: string) => boolean) | undefined;
  /** Connections at a time. @default 1024 */
  readonly maxConnections?: number | undefined;
  /** Of them from one address; iPXE opens 32. @default 64 */
  readonly maxConnectionsPerAddress?: number | undefined;
}

/** Milliseconds a request may take to arrive; it is one small message. Policy, not protocol. */
const REQUEST_TIMEOUT_MS = 15_000;
/** How often Node looks for requests that take longer. Policy, not protocol. */
const CHECK_MS = 5_000;
/** Milliseconds an idle connection is kept. Policy, not protocol. */
const KEEP_ALIVE_MS = 30_000;
const MAX_HEADER_BYTES = 8 * 1024;

/** An HTTP server for the retrieval protocol and nothing else, fit to face a LAN of strangers. */
export function createRetrievalHttpServer(
  retrieval: RetrievalServer,
  { isAllowed = () => true, maxConnections = 1024, maxConnectionsPerAddress = 64 }: RetrievalHttpOptions = {},
): Server {
  const server = createServer(
    {
      noDelay: true,
      maxHeaderSize: MAX_HEADER_BYTES,
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: CHECK_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    (request, response) => {
      if (!retrieval.handle(request, response)) response.writeHead(404, { connection: 'close' }).end();
    },
  );
  server.maxConnections = maxConnections;
  const connections = new Map<string, number>();
  server.on('connection', (socket: Socket) => {
    const { remoteAddress: address = '' } = socket;
    const count = connections.get(address) ?? 0;
    if (count >= maxConnectionsPerAddress || !isAllowed(address)) return socket.destroy();
    connections.set(address, count + 1);
    socket.once('close', () => {
      const left = (connections.get(address) ?? 1) - 1;
      if (left === 0) connections.delete(address);
      else connections.set(address, left);
    });
    return undefined;
  });
  return server;
}
