import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Clock, systemClock } from '../../lib/clock.ts';
import {
  CONDITION_FIELDS,
  fieldValue,
  parseCacheControl,
  parseRange,
  resolveRanges,
  withoutFields,
} from '../../lib/http/index.ts';
import { definePlugin, type Next, type Plugin, type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import { negotiate } from '../../lib/protocol/pccrtp/index.ts';
import { withCacheStatus } from './cache-status.ts';
import type { CachedResource } from './cached-resource.ts';
import { Catalogue } from './catalogue.ts';
import { CodedAnswers } from './coded-answers.ts';
import { countPlain } from './count.ts';
import { Flights, Leash } from './flights.ts';
import { Gaps } from './gaps.ts';
import { invalidatedKeys } from './invalidation.ts';
import { Keeper } from './keeper.ts';
import { type BlockCacheOptions, resolveBlockCacheOptions } from './options.ts';
import { OriginAnswers } from './origin-answers.ts';
import { Serving } from './serve.ts';
import { Siblings } from './siblings.ts';
import { Transfers } from './transfers.ts';
import { isCoded, withoutCoding } from './upstream.ts';

/** Milliseconds for which what is new is fetched behind everybody's back. Policy, not protocol. */
const MAX_REVALIDATION_MS = 5 * 60_000;

/**
 * The forward side: a shared HTTP cache (RFC 9111) whose bodies are verified blocks. It asks origins for content information on behalf of clients
 * that do not know it, describes what comes without, and serves whole and range requests out of blocks.
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
  readonly #gaps: Gaps;
  readonly #serving: Serving;
  readonly #origin: OriginAnswers;
  /** Undefined for a branch that asks nobody. */
  readonly #siblings: Siblings | undefined;
  /** Resources that are asked about behind their clients' backs. Bounded by the exchanges under way. */
  readonly #revalidating = new Set<CachedResource>();

  constructor({
    peerdist,
    records,
    directory,
    observer = ignoreObservations,
    clock = systemClock,
    ...rest
  }: BlockCacheOptions) {
    const options = resolveBlockCacheOptions(rest);
    const judging = { clock, isTargeted: options.cdnCacheControl };
    this.#joinWaitMs = options.joinWaitMs;
    this.#clock = clock;
    this.#observer = observer;
    const catalogue = new Catalogue({ ...options, peerdist, records, observer, clock });
    const transfers = new Transfers({ ...options, peerdist, clock });
    const keeper = new Keeper({ peerdist, catalogue, transfers, observer });
    const coded = new CodedAnswers({ peerdist, catalogue, options, judging, observer });
    const adopt: CodedAnswers['adopt'] = (resource, request, response) => coded.adopt(resource, request, response);
    this.#catalogue = catalogue;
    this.#flights = new Flights(clock);
    this.#gaps = new Gaps({ ...options, keeper, adopt, judging, observer });
    this.#siblings = directory && new Siblings({ directory, peerdist, catalogue, options, observer, clock });
    this.#serving = new Serving({ peerdist, catalogue, gaps: this.#gaps, observer, clock });
    this.#origin = new OriginAnswers({
      catalogue,
      serving: this.#serving,
      transfers,
      keeper,
      coded,
      options,
      judging,
      clock,
    });
  }

  stop(): void {
    this.#catalogue.clear();
  }

  handle(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    const { method, headers } = request;
    if ((method !== 'GET' && method !== 'HEAD') || request.body !== null) return this.#passUncached(request, next);
    const readsCoded = headers['x-p2p-peerdist'] !== undefined && negotiate(headers).kind !== 'identity';
    const resource = this.#catalogue.find(request);
    const answer = (found: CachedResource | undefined): Promise<ProxyResponse> =>
      readsCoded && found?.isPlain !== true
        ? this.#passCoded(request, next, found === undefined)
        : this.#answer(request, next, found);
    return resource instanceof Promise ? resource.then(answer) : answer(resource);
  }

  #answer(request: ProxyRequest, next: Next, resource: CachedResource | undefined): Promise<ProxyResponse> {
    const { headers } = request;
    // If-Match and If-Unmodified-Since are for the origin, not for a cache (RFC 9110 13.1.1, 13.1.4).
    const forOrigin = headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined;
    if (resource !== undefined && !forOrigin) {
      const served = this.#serveKnown(resource, request, next);
      if (served !== undefined) return served;
    }
    request.report(this.#observer, { type: 'lookup', result: resource === undefined ? 'miss' : 'stale' });
    return this.#forward(request, next, resource, forOrigin);
  }

  /** From what is known, as far as this request may have it: all of it, what has come of it, or parts with what lies between them. */
  #serveKnown(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    hasWaited = false,
    isNews = false,
  ): Promise<ProxyResponse> | undefined {
    const { headers } = request;
    const { freshness } = resource;
    if (freshness.isFreshFor(headers)) {
      if (resource.whole !== undefined || resource.length === 0) {
        request.report(this.#observer, hasWaited ? { type: 'collapsed' } : { type: 'lookup', result: 'hit' });
        return this.#serving.serve(resource, request, next, hasWaited ? 'fwd=uri-miss; collapsed' : 'hit');
      }
    } else if ((isNews || resource.transfers.size > 0) && freshness.isJoinableFor(headers, isNews)) {
      // It has only just been asked for.
    } else if (resource.whole !== undefined && freshness.isFreshEnoughFor(headers)) {
      request.report(this.#observer, { type: 'lookup', result: 'hit' });
      void this.#revalidate(resource, request, next);
      return this.#serving.serve(resource, request, next, 'hit; detail=stale-while-revalidate');
    } else return undefined;
    return this.#servePartly(resource, request, next, hasWaited);
  }

  /** From a content that is not all here. */
  #servePartly(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    hasWaited: boolean,
  ): Promise<ProxyResponse> | undefined {
    const specs = parseRange(fieldValue(request.headers, 'range'));
    const { length } = resource;
    // How much of it there is going to be, nobody knows yet: ranges are for the origin.
    if (length === undefined && specs !== undefined) return undefined;
    const ranges = length === undefined ? [] : resolveRanges(specs ?? [{ first: 0, last: undefined }], length);
    const isHere = ranges.every((range) => resource.covers(range));
    const isUnderWay = resource.transfers.size > 0;
    if (!isHere && !resource.isCombinable) return undefined;
    if (!isUnderWay && !isHere && parseCacheControl(fieldValue(request.headers, 'cache-control')).has('only-if-cached'))
      return undefined;
    for (const range of ranges) this.#gaps.noteRange(resource, range);
    const isShared = hasWaited || isUnderWay;
    request.report(
      this.#observer,
      isShared ? { type: 'collapsed' } : { type: 'lookup', result: isHere ? 'hit' : 'miss' },
    );
    const status = isShared ? 'fwd=uri-miss; collapsed' : isHere ? 'hit' : 'fwd=partial';
    return this.#serving.serve(resource, request, next, status, { waitMs: this.#joinWaitMs });
  }

  /** Asks about what has just been given away stale (RFC 5861 3). Never rejects. */
  async #revalidate(resource: CachedResource, request: ProxyRequest, next: Next): Promise<void> {
    if (this.#revalidating.has(resource)) return;
    this.#revalidating.add(resource);
    const headers = withoutFields(request.headers, [
      ...CONDITION_FIELDS,
      'range',
      'if-range',
      'cache-control',
      'pragma',
    ]);
    // Nobody waits for it, so that only time can end it.
    const timeout = new AbortController();
    const cancel = this.#clock.after(MAX_REVALIDATION_MS, () => timeout.abort());
    const own = request.with({ method: 'GET', headers, signal: timeout.signal, onInterim: undefined });
    resource.hold();
    try {
      const response = await this.#origin.fetch(own, next, resource, () => {});
      const isKept = fieldValue(response.headers, 'cache-status')?.endsWith('; stored') === true;
      if (!isKept) response.discard();
      else await pipeline(response.stream(), new Writable({ write: (_chunk, _encoding, done) => done() }), timeout);
    } catch {
      // the next client asks again
    } finally {
      cancel();
      resource.release();
      this.#revalidating.delete(resource);
    }
  }

  /** The catalogue may forget what is stale while the request waits, and its handles must stay open for the 304. */
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
    for (const key of invalidatedKeys(request, response)) this.#catalogue.forgetKey(key);
    return countPlain(withCacheStatus(response, 'fwd=method'), request.observedBy(this.#observer), 'plain');
  }

  /**
   * A client that speaks the coding itself gets it, as the origin sent it.
   *
   * @param isUnknown whether nothing is known of the resource: then it may turn out to be one of an origin that describes nothing
   */
  async #passCoded(request: ProxyRequest, next: Next, isUnknown: boolean): Promise<ProxyResponse> {
    request.report(this.#observer, { type: 'lookup', result: 'bypass' });
    const leash = new Leash(request.signal);
    const response = await next(request.with({ signal: leash.signal }));
    const taken = isUnknown && request.method === 'GET' ? this.#origin.take(request, next, response, leash) : undefined;
    if (taken !== undefined) return taken;
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
    if (request.method === 'HEAD') return this.#passHead(request, next, stale);
    const sociable =
      !forOrigin && !directives.has('no-store') && !directives.has('no-cache') && headers['pragma'] === undefined;
    if (!sociable) return this.#origin.fetch(request, next, stale, () => {});
    const deadline = this.#clock.now() + this.#joinWaitMs;
    const before = stale?.freshness.bornAt;
    for (;;) {
      if (this.#flights.isLonely(key)) return this.#origin.fetch(request, next, stale, () => {});
      const flight = this.#flights.start(key);
      if (flight !== undefined) {
        let told: CachedResource | undefined;
        try {
          told = stale === undefined ? await this.#siblings?.find(request) : undefined;
          return await this.#origin.fetch(request, next, stale ?? told, (landing) => flight.land(landing));
        } finally {
          flight.land('again');
          told?.release();
        }
      }
      const landing = await this.#flights.wait(key, Math.max(0, deadline - this.#clock.now()), request.signal);
      const resource = await this.#catalogue.find(request);
      // What the origin has said while this request waited is an answer to it too, however short it lives.
      const isNews = resource?.freshness.bornAt !== before;
      const served = resource && this.#serveKnown(resource, request, next, true, isNews);
      if (served !== undefined) return served;
      if (landing === 'alone') return this.#origin.fetch(request, next, stale, () => {});
    }
  }

  /** A head that tells of another state makes what is known of the resource invalid (RFC 9111 4.3.5). */
  async #passHead(request: ProxyRequest, next: Next, stale: CachedResource | undefined): Promise<ProxyResponse> {
    const response = await next(request);
    if (stale !== undefined && response.status === 200) {
      const { etag } = response.headers;
      const length = fieldValue(response.headers, 'content-length');
      const isOther =
        (etag !== undefined && etag !== stale.validators.etag) ||
        (length !== undefined && stale.length !== undefined && Number(length) !== stale.length);
      if (isOther) this.#catalogue.forget(request);
    }
    return withCacheStatus(withoutCoding(response), 'fwd=bypass');
  }
}
