/** Servers for the host to listen with. */
import { createServer, type Server, type ServerOptions } from 'node:http';
import { createServer as createTlsServer, Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { SecureContextOptions, TLSSocket } from 'node:tls';

/** Certificate and key of a TLS listener, PEM. */
export interface TlsIdentity {
  readonly cert: string;
  readonly key: string;
  /** Authorities, PEM: clients then need a certificate of theirs, and need not be on the allow-list. */
  readonly clientCa?: string | undefined;
}

/** Bytes of a request head; past it the client gets 431. Policy, not protocol. */
const MAX_HEADER_BYTES = 32 * 1024;
/** Milliseconds for a client to send a request head. Policy, not protocol. */
const CLIENT_HEAD_MS = 60_000;
/** Servers that want a certificate of their clients, and of whose authority. */
const WANTING = new WeakMap<object, string>();

/** A server, not listening yet. With `tls` it speaks HTTPS. */
export function createListener(tls: TlsIdentity | undefined, idleMs: number): Server {
  const options: ServerOptions = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: CLIENT_HEAD_MS,
    // Node would cut an upload after 300 s, however briskly it goes on; silence is what ends one here.
    requestTimeout: 0,
    noDelay: true,
    keepAliveTimeout: idleMs,
  };
  const server = tls === undefined ? createServer(options) : createTls(options, tls);
  // While the origin is being waited for the client is silent for a good reason; its own silence is watched where it matters.
  server.timeout = 0;
  // Node would silently drop fields past 1000, Content-Length and a second Host among them. The head's size is limited already.
  server.maxHeadersCount = 0;
  return server;
}

function createTls(options: ServerOptions, tls: TlsIdentity): Server {
  // A client without the right certificate gets an answer, so that whoever looks after it learns why.
  const wanted = tls.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: false };
  const server = createTlsServer({ ...options, ...wanted, ...contextOf(tls) });
  if (tls.clientCa !== undefined) WANTING.set(server, tls.clientCa);
  return server;
}

/** Changes certificate, key and authorities from the next connection on; whether clients need a certificate stays as it was. */
export function renewIdentity(server: Server, tls: TlsIdentity): void {
  if (!(server instanceof HttpsServer)) return;
  const before = WANTING.get(server);
  const clientCa = before && (tls.clientCa ?? before);
  if (clientCa !== undefined) WANTING.set(server, clientCa);
  server.setSecureContext(contextOf({ ...tls, clientCa }));
}

function contextOf({ cert, key, clientCa }: TlsIdentity): SecureContextOptions {
  return { cert, key, ...(clientCa === undefined ? {} : { ca: clientCa }) };
}

/** Whether a client has shown a certificate of the right authority; undefined where its listener wants none. */
export function isCertified(socket: Socket): boolean | undefined {
  const { server } = socket as Socket & { readonly server?: object };
  if (server === undefined || !WANTING.has(server)) return undefined;
  return (socket as TLSSocket).authorized;
}
