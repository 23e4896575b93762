import { PeerDistError } from '../errors.ts';
import type { ProxyRequest } from './request.ts';
import type { ProxyResponse } from './response.ts';

/** Passes a request on towards the origin. May be called any number of times, also after the exchange that brought it has ended. */
export type Next = (request: ProxyRequest) => Promise<ProxyResponse>;

/**
 * One plug-in. For each exchange `handle` sees the request; `await next(request)` brings the response head before any body byte. What it
 * returns goes to the client: the response as it came, one with another head or one more Transform, or an answer of its own.
 *
 * A plug-in that throws is reported and skipped: the client gets what it would have got without it, unless the body was already taken.
 */
export interface Plugin {
  /** Unique in a kit; also the `plugin` of its failures. */
  readonly name: string;
  /** Names of plug-ins that must be in the kit too. */
  readonly requires?: readonly string[];
  /** Names of plug-ins that must be nearer to the origin than this one, where present. */
  readonly before?: readonly string[];
  /** Names of plug-ins that must be nearer to the client than this one, where present. */
  readonly after?: readonly string[];
  /** Called once before the first exchange; the signal fires when the kit stops. A failure keeps the kit from starting. */
  start?(signal: AbortSignal): void | Promise<void>;
  /** Called once after the last exchange. A failure is reported and does not keep others from stopping. */
  stop?(): void | Promise<void>;
  handle?(request: ProxyRequest, next: Next): ProxyResponse | Promise<ProxyResponse>;
}

/**
 * Checks a plug-in's shape and returns it.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_PLUGIN`
 */
export function definePlugin(plugin: Plugin): Plugin {
  if (!/^[a-z][a-z0-9-]*$/.test(plugin.name)) {
    throw new PeerDistError('ERR_PEERDIST_PLUGIN', 'a plug-in needs a name of lower-case letters, digits and hyphens', {
      actual: plugin.name,
    });
  }
  return plugin;
}
