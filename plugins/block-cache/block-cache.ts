import { Readable } from 'node:stream';
import type { ByteRange } from '../../lib/bytes/index.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import {
  canName,
  fieldValue,
  hasConditions,
  type HeaderFields,
  isStrongTag,
  parseCacheControl,
  sameBytes,
  validatorsOf,
  varyNames,
} from '../../lib/http/index.ts';
import {
  definePlugin,
  type Next,
  type Plugin,
  type ProxyBody,
  type ProxyRequest,
  ProxyResponse,
} from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import { negotiate } from '../../lib/protocol/pccrtp/index.ts';
import { MemoryResourceStore } from '../../lib/stores/index.ts';
import { cachedHead, type CachedResource, openResource } from './cached-resource.ts';
import { countPlain } from './count.ts';
import { type Deliverable, deliver, primed } from './deliver.ts';
import { Flights, Leash } from './flights.ts';
import { Freshness } from './freshness.ts';
import { type BlockCacheOptions, resolveBlockCacheOptions, type ResolvedBlockCacheOptions } from './options.ts';
import { PlainBodies, type PlainBody } from './plain-bodies.ts';
import {
  askForContentInformation,
  fetchMissingData,
  hashRequest,
  identityHead,
  isCoded,
  isHashPromised,
  readSmallBody,
} from './upstream.ts';

/** Ranges up to this are written straight from memory; a longer one is streamed, so that it does not pin evicted blocks. Policy. */
const MAX_DIRECT_BYTES = 8 * 1024 * 1024;

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

/** What became of a request, for Cache-Status (RFC 9211). */
type CacheStatus =
  | 'hit'
  | 'fwd=uri-miss'
  | 'fwd=uri-miss; collapsed'
  | 'fwd=stale'
  | 'fwd=stale; fwd-status=304'
  | 'fwd=bypass'
  | 'fwd=method';

class BlockCache {
  readonly #peerdist: PeerDist;
  readonly #options: ResolvedBlockCacheOptions;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #resources: MemoryResourceStore<CachedResource>;
  readonly #flights: Flights;
  readonly #plainBodies: PlainBodies;

  constructor(options: BlockCacheOptions) {
    this.#peerdist = options.peerdist;
    this.#options = resolveBlockCacheOptions(options);
    this.#observer = options.observer ?? ignoreObservations;
    this.#clock = options.clock ?? systemClock;
    this.#resources = new MemoryResourceStore({ maxBytes: this.#options.maxIndexBytes });
    this.#flights = new Flights(this.#clock);
    this.#plainBodies = new PlainBodies({ ...this.#options, clock: this.#clock, observer: this.#observer });
  }

  stop(): void {
    this.#resources.clear();
  }

  handle(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    const { method, headers } = request;
    if ((method !== 'GET' && method !== 'HEAD') || request.body !== null) return this.#passUncached(request, next);
    if (headers['x-p2p-peerdist'] !== undefined && negotiate(headers).kind !== 'identity')
      return this.#passCoded(request, next);
    const resource = this.#resources.find(request.key, headers);
    // If-Match and If-Unmodified-Since are for the origin, not for a cache (RFC 9110 13.1.1, 13.1.4).
    const forOrigin = headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined;
    if (resource !== undefined && !forOrigin && resource.freshness.isFreshFor(headers)) {
      this.#observer({ type: 'lookup', result: 'hit' });
      return this.#serve(resource, request, next, 'hit');
    }
    this.#observer({ type: 'lookup', result: resource === undefined ? 'miss' : 'stale' });
    return this.#forward(request, next, resource, forOrigin);
  }

  /** Methods that are not ours; an unsafe one that succeeds makes what we know of its target invalid (RFC 9111 4.4). */
  async #passUncached(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    const response = await next(request);
    const safe =
      request.method === 'OPTIONS' ||
      request.method === 'TRACE' ||
      request.method === 'GET' ||
      request.method === 'HEAD';
    if (!safe && response.status >= 200 && response.status < 400) this.#resources.delete(request.key);
    return countPlain(withCacheStatus(response, 'fwd=method'), this.#observer, 'plain');
  }

  /** A client that speaks the coding itself gets it, as the origin sent it. */
  async #passCoded(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    const response = await next(request);
    const kind = isCoded(response)
      ? 'content_information'
      : negotiate(request.headers).kind === 'missing-data'
        ? 'missing_data'
        : 'plain';
    return countPlain(withCacheStatus(response, 'fwd=bypass'), this.#observer, kind);
  }

  async #forward(
    request: ProxyRequest,
    next: Next,
    stale: CachedResource | undefined,
    forOrigin: boolean,
  ): Promise<ProxyResponse> {
    const { headers, key } = request;
    const directives = parseCacheControl(fieldValue(headers, 'cache-control'));
    if (directives.has('only-if-cached'))
      return ProxyResponse.text(504, 'not in this cache, and only-if-cached was asked for');
    if (request.method === 'HEAD') return withCacheStatus(identity(await next(request)), 'fwd=bypass');
    const sociable =
      stale === undefined &&
      !forOrigin &&
      !directives.has('no-store') &&
      !directives.has('no-cache') &&
      headers['pragma'] === undefined;
    if (sociable) {
      const joined = await this.#join(request, next);
      if (joined !== undefined) return joined;
    }
    const flight = sociable ? this.#flights.start(key) : undefined;
    try {
      return await this.#fetch(request, next, stale, () => flight?.land());
    } finally {
      flight?.land();
    }
  }

  /** Waits for what another client is fetching, as far as its answer may be given to this one too. */
  async #join(request: ProxyRequest, next: Next): Promise<ProxyResponse | undefined> {
    const { joinWaitMs } = this.#options;
    let plain = this.#plainBodies.find(request);
    if (plain === undefined) {
      if (!(await this.#flights.wait(request.key, joinWaitMs, request.signal))) return undefined;
      const resource = this.#resources.find(request.key, request.headers);
      if (resource?.freshness.isFreshFor(request.headers) === true) {
        this.#observer({ type: 'collapsed' });
        return this.#serve(resource, request, next, 'fwd=uri-miss; collapsed');
      }
      plain = this.#plainBodies.find(request);
    }
    if (plain === undefined) return undefined;
    try {
      const response = await this.#servePlain(plain, request, 'fwd=uri-miss; collapsed', joinWaitMs);
      this.#observer({ type: 'collapsed' });
      return response;
    } catch {
      return undefined; // too late or broken: the origin is asked once more, for this client alone
    }
  }

  async #fetch(
    request: ProxyRequest,
    next: Next,
    stale: CachedResource | undefined,
    landed: () => void,
  ): Promise<ProxyResponse> {
    const leash = new Leash(request.signal);
    let ask = askForContentInformation(request, this.#options.maxContentInformationVersion).with({
      signal: leash.signal,
    });
    const revalidating = stale !== undefined && !hasConditions(request.headers);
    if (revalidating) ask = ask.with({ headers: { ...ask.headers, ...condition(stale) } });
    const response = await next(ask);
    if (response.status === 304 && stale !== undefined)
      return this.#notModified(request, next, stale, response, revalidating);
    const status = stale === undefined ? 'fwd=uri-miss' : 'fwd=stale';
    if (isCoded(response)) return this.#receiveCoded(request, next, response, status, landed);
    return (
      (await this.#receivePromised(request, next, response, leash, status, landed)) ?? this.#passPlain(response, status)
    );
  }

  async #notModified(
    request: ProxyRequest,
    next: Next,
    stale: CachedResource,
    response: ProxyResponse,
    revalidating: boolean,
  ): Promise<ProxyResponse> {
    const { etag } = validatorsOf(response.headers);
    const same = etag === undefined ? revalidating : isStrongTag(etag) && etag === stale.validators.etag;
    if (same) this.#freshen(request, stale, response);
    if (!revalidating) return withCacheStatus(identity(response), 'fwd=stale');
    response.discard();
    if (same) return this.#serve(stale, request, next, 'fwd=stale; fwd-status=304', { conditions: false });
    this.#resources.delete(request.key);
    return this.#serveIdentity(request, next);
  }

  /** The fields of a 304 replace the stored ones (RFC 9111 4.3.4); where the new ones forbid keeping, this exchange is the last. */
  #freshen(request: ProxyRequest, stale: CachedResource, response: ProxyResponse): void {
    const head = { ...stale.head, ...cachedHead(response.headers) };
    const freshness = new Freshness(request, head, this.#clock);
    if (freshness.isStorable) {
      stale.head = head;
      stale.freshness = freshness;
    } else if (request.headers['authorization'] === undefined) this.#resources.delete(request.key);
  }

  /** Content information instead of a body: open it, remember it where that is allowed, serve from blocks. */
  async #receiveCoded(
    request: ProxyRequest,
    next: Next,
    response: ProxyResponse,
    status: CacheStatus,
    landed: () => void,
  ): Promise<ProxyResponse> {
    let resource: CachedResource;
    try {
      const described = await this.#open(request, response);
      resource = response.status === 206 ? ((await this.#openWhole(request, next, described)) ?? described) : described;
    } catch (error) {
      if (request.signal.aborted) throw error;
      this.#observer({ type: 'content_information', result: 'rejected' });
      return this.#serveIdentity(request, next);
    }
    if (resource.handle.description?.range.length === resource.length) this.#remember(request, resource);
    landed();
    return this.#serve(resource, request, next, status, { conditions: false });
  }

  async #open(request: ProxyRequest, response: ProxyResponse): Promise<CachedResource> {
    try {
      const encoded = await readSmallBody(response, this.#options.maxContentInformationBytes);
      this.#observer({ type: 'wan', kind: 'content_information', bytes: encoded.byteLength });
      const resource = await openResource({ peerdist: this.#peerdist, request, response, encoded, clock: this.#clock });
      this.#observer({ type: 'content_information', result: 'received' });
      return resource;
    } finally {
      response.discard();
    }
  }

  /** After a described range: the whole content's description, which serves every later range too. */
  async #openWhole(request: ProxyRequest, next: Next, part: CachedResource): Promise<CachedResource | undefined> {
    if (!part.freshness.isStorable) return undefined;
    try {
      const whole = await this.#describe(request, next, part.validators, request.signal);
      return whole?.length === part.length ? whole : undefined;
    } catch {
      return undefined;
    }
  }

  /** Asks for the content information of the whole content; undefined when the origin sends anything else. */
  async #describe(
    request: ProxyRequest,
    next: Next,
    validators: CachedResource['validators'],
    signal: AbortSignal,
  ): Promise<CachedResource | undefined> {
    const response = await next(hashRequest(request, this.#options.maxContentInformationVersion, signal));
    if (response.status !== 200 || !isCoded(response) || !sameBytes(validatorsOf(response.headers), validators)) {
      response.discard();
      return undefined;
    }
    return this.#open(request, response);
  }

  /**
   * A plain body that the origin is hashing: shared while it runs, asked about when it has ended. Undefined when it is none, or
   * when it cannot be held; it then passes like any other.
   */
  async #receivePromised(
    request: ProxyRequest,
    next: Next,
    response: ProxyResponse,
    leash: Leash,
    status: CacheStatus,
    landed: () => void,
  ): Promise<ProxyResponse | undefined> {
    const length = Number(fieldValue(response.headers, 'content-length') ?? Number.NaN);
    if (response.status !== 200 || !isHashPromised(response) || !(response.body instanceof Readable)) return undefined;
    const freshness = new Freshness(request, response.headers, this.#clock);
    const validators = validatorsOf(response.headers);
    if (!(length > 0) || freshness.isForbidden || !canName(validators) || !this.#plainBodies.hasRoom(length))
      return undefined;
    const transfer = leash.release();
    const plain = this.#plainBodies.add(request, response, freshness, length, async () => {
      const resource = await this.#describe(request, next, validators, transfer.signal);
      return resource && { resource, keep: () => this.#remember(request, resource) };
    });
    const answer = this.#servePlain(plain, withoutRange(request), status);
    landed();
    return answer;
  }

  #remember(request: ProxyRequest, resource: CachedResource): void {
    const names = varyNames(resource.head);
    if (!resource.freshness.isStorable || names === undefined) return;
    this.#resources.put(request.key, names, request.headers, resource, resource.bytes);
    this.#observer({ type: 'stored', store: 'content_information', bytes: this.#resources.bytes });
  }

  /** Answers out of blocks. When that fails before the first byte, the client gets the plain body by another request. */
  async #serve(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    status: CacheStatus,
    options?: { conditions: boolean },
  ): Promise<ProxyResponse> {
    const content: Deliverable = {
      head: { ...resource.head, age: String(resource.freshness.age), 'cache-status': cacheStatus(status) },
      validators: resource.validators,
      length: resource.length,
      read: (range) => this.#readBlocks(resource, range, request, next),
    };
    try {
      return await deliver(request, content, options);
    } catch (error) {
      if (request.signal.aborted) throw error;
      this.#distrust(request, error);
      return this.#serveIdentity(request, next);
    }
  }

  #readBlocks(
    resource: CachedResource,
    range: ByteRange,
    request: ProxyRequest,
    next: Next,
  ): ProxyBody | Promise<ProxyBody> {
    const observer = this.#observer;
    if (range.length <= MAX_DIRECT_BYTES) {
      const pieces = resource.handle.peek(range);
      if (pieces !== undefined) {
        observer({ type: 'delivered', source: 'store', bytes: range.length });
        return pieces;
      }
    }
    const stream = resource.handle.createReadStream({
      range,
      cacheMissing: !resource.freshness.isForbidden,
      onSource: (source, bytes) => observer({ type: 'delivered', source, bytes }),
      onMissing: (missing, { signal }) =>
        fetchMissingData(
          {
            request,
            next,
            validators: resource.validators,
            contentLength: resource.length,
            observer,
            signal,
          },
          missing,
        ),
    });
    stream.once('error', (error) => this.#distrust(request, error));
    return primed(stream);
  }

  async #servePlain(
    plain: PlainBody,
    request: ProxyRequest,
    status: CacheStatus,
    waitMs?: number,
  ): Promise<ProxyResponse> {
    return deliver(
      request,
      {
        head: { ...plain.head, 'cache-status': cacheStatus(status) },
        validators: plain.validators,
        length: plain.body.length,
        read: async (range) => {
          const stream = plain.body.createReadStream(range);
          const cancel =
            waitMs === undefined
              ? undefined
              : this.#clock.after(waitMs, () =>
                  stream.destroy(new PeerDistError('ERR_PEERDIST_TIMEOUT', 'the shared fetch is too far behind')),
                );
          try {
            await primed(stream);
          } finally {
            cancel?.();
          }
          this.#observer({ type: 'delivered', source: 'origin', bytes: range.length });
          return stream;
        },
      },
      { conditions: status !== 'fwd=uri-miss' && status !== 'fwd=stale' },
    );
  }

  /** The plain body by a request of the client's own; nothing of the coding is asked for. */
  async #serveIdentity(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    return this.#passPlain(await next(request), 'fwd=bypass');
  }

  #passPlain(response: ProxyResponse, status: CacheStatus): ProxyResponse {
    return countPlain(withCacheStatus(identity(response), status), this.#observer, 'plain');
  }

  /** Forgets a resource whose blocks did not match or whose content changed; what is wrong now stays wrong. */
  #distrust(request: ProxyRequest, error: unknown): void {
    const cause = isPeerDistError(error, 'ERR_PEERDIST_MISSING_DATA') ? error.cause : error;
    const mismatch = isPeerDistError(cause, 'ERR_PEERDIST_HASH_MISMATCH');
    if (mismatch) this.#observer({ type: 'content_information', result: 'rejected' });
    if (
      mismatch ||
      isPeerDistError(cause, 'ERR_PEERDIST_ORIGIN_CHANGED') ||
      isPeerDistError(cause, 'ERR_PEERDIST_ORIGIN_PROTOCOL')
    ) {
      this.#resources.delete(request.key);
    }
  }
}

function condition({ validators }: CachedResource): HeaderFields {
  return validators.etag === undefined
    ? { 'if-modified-since': validators.lastModified }
    : { 'if-none-match': validators.etag };
}

/** An origin that ignored a range sends everything, and so do we. */
function withoutRange(request: ProxyRequest): ProxyRequest {
  return request.headers['range'] === undefined
    ? request
    : request.with({ headers: { ...request.headers, range: undefined } });
}

function identity(response: ProxyResponse): ProxyResponse {
  return response.with({ headers: identityHead(response.headers) });
}

function cacheStatus(status: CacheStatus): string {
  return `peerdist; ${status}`;
}

function withCacheStatus(response: ProxyResponse, status: CacheStatus): ProxyResponse {
  const earlier = fieldValue(response.headers, 'cache-status');
  return response.with({
    headers: {
      ...response.headers,
      'cache-status': earlier === undefined ? cacheStatus(status) : `${earlier}, ${cacheStatus(status)}`,
    },
  });
}
