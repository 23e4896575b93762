import { type Clock, systemClock } from '../../lib/clock.ts';
import { fieldValue, parseCacheControl } from '../../lib/http/index.ts';
import { definePlugin, type Next, type Plugin, type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import { negotiate } from '../../lib/protocol/pccrtp/index.ts';
import { withCacheStatus } from './cache-status.ts';
import type { CachedResource } from './cached-resource.ts';
import { Catalogue } from './catalogue.ts';
import { countPlain } from './count.ts';
import { Flights } from './flights.ts';
import { type BlockCacheOptions, resolveBlockCacheOptions } from './options.ts';
import { OriginAnswers } from './origin-answers.ts';
import { PlainBodies } from './plain-bodies.ts';
import { Serving } from './serve.ts';
import { isCoded, withoutCoding } from './upstream.ts';

/**
 * The forward side. Asks origins for content information on behalf of clients that do not know it, and serves them whole and range
 * requests out of verified blocks; an origin that knows nothing of it passes through untouched.
 */
export function createBlockCache(options: BlockCacheOptions): Plugin {
  const cache = new BlockCache(options);
  return definePlugin({
    name: 'block-cache',
    handle: (request, next) => cache.handle(request, next),
    stop: () => cache.stop(),
  });
}

class BlockCache {
  readonly #joinWaitMs: number;
  readonly #clock: Clock;
  readonly #observer: Observer;
  readonly #catalogue: Catalogue;
  readonly #flights: Flights;
  readonly #plainBodies: PlainBodies;
  readonly #serving: Serving;
  readonly #origin: OriginAnswers;

  constructor({ peerdist, records, observer = ignoreObservations, clock = systemClock, ...rest }: BlockCacheOptions) {
    const options = resolveBlockCacheOptions(rest);
    this.#joinWaitMs = options.joinWaitMs;
    this.#clock = clock;
    this.#observer = observer;
    this.#catalogue = new Catalogue({ ...options, peerdist, records, observer, clock });
    this.#flights = new Flights(clock);
    this.#plainBodies = new PlainBodies({ ...options, clock, observer });
    this.#serving = new Serving({ catalogue: this.#catalogue, observer, clock });
    this.#origin = new OriginAnswers({
      peerdist,
      catalogue: this.#catalogue,
      serving: this.#serving,
      plainBodies: this.#plainBodies,
      options,
      observer,
      clock,
    });
  }

  stop(): void {
    this.#catalogue.clear();
  }

  handle(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    const { method, headers } = request;
    if ((method !== 'GET' && method !== 'HEAD') || request.body !== null) return this.#passUncached(request, next);
    if (headers['x-p2p-peerdist'] !== undefined && negotiate(headers).kind !== 'identity')
      return this.#passCoded(request, next);
    const resource = this.#catalogue.find(request);
    return resource instanceof Promise
      ? resource.then((found) => this.#answer(request, next, found))
      : this.#answer(request, next, resource);
  }

  #answer(request: ProxyRequest, next: Next, resource: CachedResource | undefined): Promise<ProxyResponse> {
    const { headers } = request;
    // If-Match and If-Unmodified-Since are for the origin, not for a cache (RFC 9110 13.1.1, 13.1.4).
    const forOrigin = headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined;
    if (resource !== undefined && !forOrigin && resource.freshness.isFreshFor(headers)) {
      request.report(this.#observer, { type: 'lookup', result: 'hit' });
      return this.#serving.serve(resource, request, next, 'hit');
    }
    request.report(this.#observer, { type: 'lookup', result: resource === undefined ? 'miss' : 'stale' });
    return this.#forward(request, next, resource, forOrigin);
  }

  /** The catalogue may forget what is stale while the request waits, and its handle must stay open for the 304. */
  async #forward(
    request: ProxyRequest,
    next: Next,
    stale: CachedResource | undefined,
    forOrigin: boolean,
  ): Promise<ProxyResponse> {
    stale?.hold();
    try {
      return await this.#forwardHolding(request, next, stale, forOrigin);
    } finally {
      stale?.release();
    }
  }

  /** Methods that are not ours; an unsafe one that succeeds makes what we know of its target invalid (RFC 9111 4.4). */
  async #passUncached(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    request.report(this.#observer, { type: 'lookup', result: 'bypass' });
    const response = await next(request);
    const safe =
      request.method === 'OPTIONS' ||
      request.method === 'TRACE' ||
      request.method === 'GET' ||
      request.method === 'HEAD';
    if (!safe && response.status >= 200 && response.status < 400) {
      this.#catalogue.forget(request);
      this.#plainBodies.forget(request);
    }
    return countPlain(withCacheStatus(response, 'fwd=method'), request.observedBy(this.#observer), 'plain');
  }

  /** A client that speaks the coding itself gets it, as the origin sent it. */
  async #passCoded(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    request.report(this.#observer, { type: 'lookup', result: 'bypass' });
    const response = await next(request);
    const kind = isCoded(response)
      ? 'content_information'
      : negotiate(request.headers).kind === 'missing-data'
        ? 'missing_data'
        : 'plain';
    return countPlain(withCacheStatus(response, 'fwd=bypass'), request.observedBy(this.#observer), kind);
  }

  async #forwardHolding(
    request: ProxyRequest,
    next: Next,
    stale: CachedResource | undefined,
    forOrigin: boolean,
  ): Promise<ProxyResponse> {
    const { headers, key } = request;
    const directives = parseCacheControl(fieldValue(headers, 'cache-control'));
    if (directives.has('only-if-cached'))
      return ProxyResponse.text(504, 'not in this cache, and only-if-cached was asked for');
    if (request.method === 'HEAD') return withCacheStatus(withoutCoding(await next(request)), 'fwd=bypass');
    const sociable =
      !forOrigin && !directives.has('no-store') && !directives.has('no-cache') && headers['pragma'] === undefined;
    if (!sociable) return this.#origin.fetch(request, next, stale, () => {});
    const deadline = this.#clock.now() + this.#joinWaitMs;
    for (;;) {
      const plain = await this.#joinPlain(request);
      if (plain !== undefined) return plain;
      if (this.#flights.isLonely(key)) return this.#origin.fetch(request, next, stale, () => {});
      const flight = this.#flights.start(key);
      if (flight !== undefined) {
        try {
          return await this.#origin.fetch(request, next, stale, (landing) => flight.land(landing));
        } finally {
          flight.land('again');
        }
      }
      const landing = await this.#flights.wait(key, Math.max(0, deadline - this.#clock.now()), request.signal);
      const resource = await this.#catalogue.find(request);
      if (resource?.freshness.isFreshFor(headers) === true) {
        request.report(this.#observer, { type: 'collapsed' });
        return this.#serving.serve(resource, request, next, 'fwd=uri-miss; collapsed');
      }
      if (landing === 'alone') {
        return (await this.#joinPlain(request)) ?? this.#origin.fetch(request, next, stale, () => {});
      }
    }
  }

  /** The answer out of a plain body that is under way, as far as it may be given to this client too. */
  async #joinPlain(request: ProxyRequest): Promise<ProxyResponse | undefined> {
    const plain = this.#plainBodies.find(request);
    if (plain === undefined) return undefined;
    try {
      const response = await this.#serving.servePlain(plain, request, 'fwd=uri-miss; collapsed', this.#joinWaitMs);
      request.report(this.#observer, { type: 'collapsed' });
      return response;
    } catch {
      return undefined; // too late or broken: the origin is asked once more
    }
  }
}
