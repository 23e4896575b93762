import { ignoreObservations, type Observer } from '../observer.ts';
import { orderPlugins } from './order.ts';
import type { Next, Plugin } from './plugin.ts';
import type { ProxyRequest } from './request.ts';
import type { ProxyResponse } from './response.ts';

export interface KitOptions {
  readonly plugins: readonly Plugin[];
  readonly observer?: Observer | undefined;
}

/** Plug-ins in order with one life. A host calls `start`, sends every exchange through `through(origin)`, and calls `stop`. */
export class Kit {
  readonly plugins: readonly Plugin[];
  readonly #observer: Observer;
  readonly #lifetime = new AbortController();
  #started: Plugin[] = [];

  /** @throws {@link PeerDistError} `ERR_PEERDIST_PLUGIN` when the plug-ins do not fit together */
  constructor({ plugins, observer = ignoreObservations }: KitOptions) {
    this.plugins = orderPlugins(plugins);
    this.#observer = observer;
  }

  /** The way through all plug-ins to the origin. */
  through(origin: Next): Next {
    return this.plugins.reduceRight<Next>(
      (next, plugin) => (plugin.handle === undefined ? next : this.#link(plugin, next)),
      origin,
    );
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

  /** Stops the plug-ins in the opposite order. Never rejects. */
  async stop(): Promise<void> {
    this.#lifetime.abort();
    for (const plugin of this.#started.toReversed()) {
      try {
        await plugin.stop?.();
      } catch (error) {
        this.#failed(plugin, error);
      }
    }
    this.#started = [];
  }

  #link(plugin: Plugin, next: Next): Next {
    return async (request) => {
      // Errors of `next` that a plug-in passes on are not its own failures.
      let innerError: unknown;
      let inner: ProxyResponse | undefined;
      const tracked: Next = async (passed) => {
        try {
          const response = await next(passed);
          inner ??= response;
          return response;
        } catch (error) {
          innerError = error;
          throw error;
        }
      };
      try {
        return await (plugin.handle as NonNullable<Plugin['handle']>)(request, tracked);
      } catch (error) {
        if (error === innerError || request.signal.aborted) throw error;
        this.#failed(plugin, error);
        return this.#without(error, request, inner, next);
      }
    };
  }

  /** What the client would have got without the plug-in, as far as that is still to be had. */
  async #without(
    error: unknown,
    request: ProxyRequest,
    inner: ProxyResponse | undefined,
    next: Next,
  ): Promise<ProxyResponse> {
    if (inner !== undefined) {
      if (inner.isUntouched) return inner;
      throw error;
    }
    if (request.body !== null && request.body.readableDidRead) throw error;
    return next(request);
  }

  #failed(plugin: Plugin, error: unknown): void {
    this.#observer({ type: 'plugin_failure', plugin: plugin.name, error });
  }
}
