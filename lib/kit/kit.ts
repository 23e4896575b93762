import { PeerDistError } from '../errors.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { orderPlugins } from './order.ts';
import type { Next, Plugin } from './plugin.ts';
import type { ProxyRequest } from './request.ts';
import { ProxyResponse } from './response.ts';

export interface KitOptions {
  readonly plugins: readonly Plugin[];
  readonly observer?: Observer | undefined;
}

/** Plug-ins in order with one life. A host calls `start`, sends every exchange through `through(origin)`, and calls `stop`. */
export class Kit {
  readonly plugins: readonly Plugin[];
  readonly #observer: Observer;
  readonly #lifetime = new AbortController();
  readonly #started: Plugin[] = [];

  /** @throws {@link PeerDistError} `ERR_PEERDIST_PLUGIN` when the plug-ins do not fit together */
  constructor({ plugins, observer = ignoreObservations }: KitOptions) {
    this.plugins = orderPlugins(plugins);
    this.#observer = observer;
  }

  /** The way through all plug-ins to the origin. */
  through(origin: Next): Next {
    return this.plugins.reduceRight<Next>((next, plugin) => this.#link(plugin, next), origin);
  }

  /** Starts the plug-ins from the origin outwards; when one fails, those that run are stopped and the failure is thrown. */
  async start(): Promise<void> {
    try {
      for (const plugin of this.plugins.toReversed()) {
        await plugin.start?.(this.#lifetime.signal);
        this.#started.push(plugin);
      }
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Stops the plug-ins in the opposite order. Never rejects; a second call has nothing left to stop. */
  async stop(): Promise<void> {
    this.#lifetime.abort();
    const started = this.#started.splice(0);
    for (const plugin of started.toReversed()) {
      try {
        await plugin.stop?.();
      } catch (error) {
        this.#failed(plugin, error);
      }
    }
  }

  #link(plugin: Plugin, next: Next): Next {
    const handle = plugin.handle?.bind(plugin);
    if (handle === undefined) return next;
    return async (request) => {
      // Errors of `next` that a plug-in passes on are not its own failures.
      let innerError: unknown;
      // What came from `next` while the plug-in was at work: it answers for those, and we do if it fails.
      let inner: Inner[] | undefined = [];
      const tracked: Next = (passed) => {
        const response = next(passed);
        inner?.push({ request: passed, response });
        response.catch((error: unknown) => {
          innerError = error;
        });
        return response;
      };
      try {
        const response: unknown = await handle(request, tracked);
        if (response instanceof ProxyResponse) return response;
        throw new PeerDistError('ERR_PEERDIST_PLUGIN', `plug-in ${plugin.name} returned no response`);
      } catch (error) {
        if (error === innerError || request.signal.aborted) {
          discardAll(inner);
          throw error;
        }
        this.#failed(plugin, error);
        return await withoutPlugin(error, request, inner, next);
      } finally {
        inner = undefined;
      }
    };
  }

  #failed(plugin: Plugin, error: unknown): void {
    this.#observer({ type: 'plugin_failure', plugin: plugin.name, error });
  }
}

/** One call of `next` by a plug-in. */
interface Inner {
  readonly request: ProxyRequest;
  readonly response: Promise<ProxyResponse>;
}

/** What the client would have got without the plug-in, as far as that is still to be had. */
async function withoutPlugin(
  error: unknown,
  request: ProxyRequest,
  inner: readonly Inner[],
  next: Next,
): Promise<ProxyResponse> {
  // An answer to a request the plug-in has changed is not what the client would have got.
  const own = inner.find((call) => call.request === request);
  discardAll(inner.filter((call) => call !== own));
  if (own !== undefined) {
    const response = await own.response;
    if (response.isUntouched) return response;
    response.discard();
    throw error;
  }
  if (request.body?.readableDidRead === true) throw error;
  return next(request);
}

/** Frees the connections of answers nobody has begun to read. One that is being read has an owner, perhaps with other clients behind it. */
function discardAll(calls: readonly Inner[]): void {
  for (const { response } of calls) {
    void response.then((each) => each.isUnclaimed && each.discard()).catch(() => {});
  }
}
