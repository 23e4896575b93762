import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import { PublishedApplication } from './published-application.ts';
import type { PublishingOptions } from './publishing-options.ts';

export type { PublishingOptions } from './publishing-options.ts';

/** What is needed of a server of `http-proxy`; that of `http-proxy-3` and `httpxy` will do as well. */
export interface WebProxy {
  web(request: IncomingMessage, response: ServerResponse, ...rest: never[]): unknown;
  on(event: 'proxyReq', listener: (upstream: ClientRequest, request: unknown, response: unknown) => void): unknown;
  on(event: 'proxyRes', listener: (upstream: IncomingMessage, request: unknown, response: unknown) => void): unknown;
}

/** `proxy.web` with the content server before it. */
export interface PublishingProxy<Rest extends readonly unknown[]> extends AsyncDisposable {
  (message: IncomingMessage, client: ServerResponse, ...rest: Rest): void;
  /** Ends it: from now on requests only pass. A PeerDist that was given stays open, and so does the proxy. */
  close(): Promise<void>;
}

type RestOf<Web> = Web extends (request: never, response: never, ...rest: infer Rest) => unknown ? Rest : never;

/**
 * A handler to use in place of `proxy.web`, with the same arguments: what the origin answers is hashed on its way where it has a strong validator,
 * and clients that can use content information get it.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function publish<Proxy extends WebProxy>(
  proxy: Proxy,
  options?: PublishingOptions,
): PublishingProxy<RestOf<Proxy['web']>> {
  const application = new PublishedApplication(options);
  const clients = new WeakSet<ServerResponse>();
  const clientOf = (response: unknown): ServerResponse | undefined =>
    clients.has(response as ServerResponse) ? (response as ServerResponse) : undefined;
  // The library pipes, and a pipe passes on neither that its source has broken off nor that its client has left.
  proxy.on('proxyReq', (upstream, _request, response) => {
    const client = clientOf(response);
    client?.once('close', () => void (client.writableFinished || upstream.destroy()));
  });
  proxy.on('proxyRes', (upstream, _request, response) => {
    const client = clientOf(response);
    upstream.once('close', () => void (upstream.complete || client?.destroy()));
  });
  const handle = (message: IncomingMessage, client: ServerResponse, ...rest: RestOf<Proxy['web']>): void => {
    clients.add(client);
    const run = (): void => void proxy.web(message, client, ...(rest as never[]));
    application.handle(message, client, { run, rerun: run });
  };
  const close = (): Promise<void> => application.close();
  return Object.assign(handle, { close, [Symbol.asyncDispose]: close });
}
