/** The administrator's listener, apart from the traffic: it is there before the service is, and says to the end what that is doing. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { Bearer } from './bearer.ts';
import { closeServer, Connections, type Listener, listenOn } from './listeners.ts';
import type { ListenAddress } from '../options/units.ts';

/** Milliseconds for a request head, connections at a time. Policy. */
const HEAD_MS = 30_000;
const MAX_CONNECTIONS = 256;

export interface AdminRoute {
  readonly method: 'GET' | 'POST';
  /** `open`: for everybody who can connect. `private`: for whoever has the token, where there is one. `own`: checks by itself. */
  readonly access: 'open' | 'private' | 'own';
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
}

/** By path. */
export type AdminRoutes = Readonly<Record<string, AdminRoute>>;

export interface Readiness {
  /** False while the service is starting or ending. */
  readonly isReady: boolean;
  /** What it has to do without, in words. */
  readonly trouble: string | undefined;
}

/** What the listener has to say once there is a service. */
export interface AdminFace {
  readonly readiness: () => Readiness;
  readonly routes: AdminRoutes;
}

export interface AdminOptions {
  readonly address: ListenAddress;
  /** Bearer token without which nobody gets numbers or names. @default none is wanted */
  readonly token?: string | undefined;
}

export class AdminListener {
  readonly server: Server;
  readonly #listener: Listener;
  readonly #host: string;
  #token: Bearer | undefined;
  #face: AdminFace | undefined;
  #address: ListenAddress | undefined;

  private constructor({ address, token }: AdminOptions) {
    this.#host = address.host.toLowerCase();
    this.want(token);
    // A package may take as long as it takes; heads may not, and Node would let them where it is told of no time for requests.
    const timeouts = { requestTimeout: 0, headersTimeout: HEAD_MS };
    this.server = createServer(timeouts, (request, response) => this.#handle(request, response));
    this.server.maxConnections = MAX_CONNECTIONS;
    this.#listener = { server: this.server, connections: new Connections(this.server) };
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when the address cannot be listened on */
  static async open(options: AdminOptions): Promise<AdminListener> {
    const admin = new AdminListener(options);
    admin.#address = await listenOn(admin.server, options.address);
    return admin;
  }

  /** The port is real when 0 was asked for. */
  get address(): ListenAddress {
    return this.#address as ListenAddress;
  }

  /** Changes the token that is wanted. */
  want(token: string | undefined): void {
    this.#token = token === undefined ? undefined : new Bearer(token);
  }

  /** From now on there is more to say than that the service is starting. */
  show(face: AdminFace): void {
    this.#face = face;
  }

  close(graceMs: number): Promise<void> {
    return closeServer(this.#listener, graceMs);
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const { method } = request;
    const path = (request.url ?? '').replace(/\?.*$/s, '');
    if (path === '/healthz') return answer(response, 200, 'ok\n');
    if (path === '/readyz') return this.#answerReadiness(response);
    if (this.#face === undefined) return answer(response, 503, 'starting\n');
    if (path === '/') return answer(response, 302, 'see /dashboard\n', { location: 'dashboard' });
    const { routes } = this.#face;
    const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
    if (route === undefined)
      return answer(response, 404, `only /healthz, /readyz, ${Object.keys(routes).join(', ')}\n`);
    const isRead = method === 'GET' || method === 'HEAD';
    if (route.method === 'GET' ? !isRead : method !== 'POST') return answer(response, 405, `only ${route.method}\n`);
    if (route.access === 'private' && !this.#isAdmitted(request, path))
      return this.#token === undefined
        ? answer(response, 403, 'this name is not known here; ask by address, or set --admin-token\n')
        : answer(response, 401, 'the token of --admin-token is wanted\n', { 'www-authenticate': 'Bearer' });
    try {
      return route.handle(request, response);
    } catch {
      return response.headersSent ? void response.destroy() : answer(response, 500, 'failed\n');
    }
  }

  #answerReadiness(response: ServerResponse): void {
    const { isReady, trouble } = this.#face?.readiness() ?? { isReady: false, trouble: undefined };
    const state = isReady ? 'ready' : this.#face === undefined ? 'starting' : 'ending';
    answer(response, isReady ? 200 : 503, `${state}\n${trouble === undefined ? '' : `store: ${trouble}\n`}`);
  }

  /** Without a token, a page of some other site must not read this through a name of its own (DNS rebinding). */
  #isAdmitted(request: IncomingMessage, path: string): boolean {
    if (this.#token !== undefined) return this.#token.hasSent(request);
    const { headers } = request;
    // Prometheus knows this machine by many names, and what it reads names nobody.
    if (path === '/metrics') return true;
    const name = (headers.host ?? '')
      .replace(/:\d*$/, '')
      .replace(/^\[|\]$/g, '')
      .toLowerCase();
    return isIP(name) !== 0 || name === 'localhost' || name === this.#host || name === hostname().toLowerCase();
  }
}

/** A short answer in plain text. */
export function answer(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response
    .writeHead(status, {
      'content-type': 'text/plain',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...headers,
    })
    .end(text);
}
