import type { IncomingMessage, ServerResponse } from 'node:http';
import { PublishedApplication } from './published-application.ts';
import type { PublishingOptions } from './publishing-options.ts';

export type { PublishingOptions } from './publishing-options.ts';

/** Connect and Express middleware that has to be closed. */
export interface PublishingMiddleware extends AsyncDisposable {
  (message: IncomingMessage, client: ServerResponse, next: (error?: unknown) => void): void;
  /** Ends it: from now on requests only pass. A PeerDist that was given stays open. */
  close(): Promise<void>;
}

/**
 * Middleware for what comes after it: files and other answers with a strong validator are hashed on their way, and clients that can use content
 * information get it. Everybody else gets what the application wrote.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function connect(options?: PublishingOptions): PublishingMiddleware {
  const application = new PublishedApplication(options);
  const handle = (message: IncomingMessage, client: ServerResponse, next: (error?: unknown) => void): void =>
    application.handle(message, client, { run: () => next(), rerun: frontDoor(message, client) });
  const close = (): Promise<void> => application.close();
  return Object.assign(handle, { close, [Symbol.asyncDispose]: close });
}

/**
 * `next` goes on where it has stopped, and never back. So a second run comes in as a request of its own, through the server's listeners;
 * undefined for a request that no server has brought.
 */
function frontDoor(message: IncomingMessage, client: ServerResponse): (() => void) | undefined {
  const { server } = message.socket as { server?: { emit?: (...args: unknown[]) => boolean } };
  if (typeof server?.emit !== 'function') return undefined;
  return () => {
    const { originalUrl } = message as { originalUrl?: string };
    if (originalUrl !== undefined) message.url = originalUrl;
    server.emit?.('request', message, client);
  };
}
