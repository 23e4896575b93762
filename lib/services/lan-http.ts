import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';

/** Answers the requests that are meant for it. */
export interface LanRequestHandler {
  /** @returns false, and leaves the request alone, when it is for another */
  handle(request: IncomingMessage, response: ServerResponse): boolean;
}

export interface LanHttpOptions {
  /** Certificate, key and whose certificates are taken: HTTPS. @default HTTP */
  readonly tls?: TlsOptions | undefined;
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

/** An HTTP server for what peers ask each other and a hosted cache, and for nothing else, fit to face a LAN of strangers. */
export function createLanHttpServer(
  handlers: readonly LanRequestHandler[],
  { tls, isAllowed = () => true, maxConnections = 1024, maxConnectionsPerAddress = 64 }: LanHttpOptions = {},
): Server {
  const options = {
    noDelay: true,
    maxHeaderSize: MAX_HEADER_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    headersTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: CHECK_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
  };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    if (!handlers.some((handler) => handler.handle(request, response)))
      response.writeHead(404, { connection: 'close' }).end();
  };
  const server =
    tls === undefined
      ? createServer(options, answer)
      : createTlsServer({ ...options, ...tls, handshakeTimeout: REQUEST_TIMEOUT_MS }, answer);
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
