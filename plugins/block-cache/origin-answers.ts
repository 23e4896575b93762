import { Readable } from 'node:stream';
import type { Clock } from '../../lib/clock.ts';
import {
  canName,
  fieldValue,
  hasConditions,
  type HeaderFields,
  isStrongTag,
  sameBytes,
  validatorsOf,
} from '../../lib/http/index.ts';
import type { Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import { type CacheStatus, withCacheStatus } from './cache-status.ts';
import { cachedHead, type CachedResource, openResource } from './cached-resource.ts';
import type { Catalogue } from './catalogue.ts';
import { type Landing, Leash } from './flights.ts';
import { Freshness } from './freshness.ts';
import type { ResolvedBlockCacheOptions } from './options.ts';
import type { PlainBodies } from './plain-bodies.ts';
import type { Serving } from './serve.ts';
import {
  askForContentInformation,
  hashRequest,
  isCoded,
  isHashPromised,
  knowsPeerDist,
  readSmallBody,
  withoutCoding,
} from './upstream.ts';

export interface OriginAnswersComponents {
  readonly peerdist: PeerDist;
  readonly catalogue: Catalogue;
  readonly serving: Serving;
  readonly plainBodies: PlainBodies;
  readonly options: ResolvedBlockCacheOptions;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** Asks the origin and makes something of each kind of answer: 304, content information, a body that is being hashed, anything else. */
export class OriginAnswers {
  readonly #peerdist: PeerDist;
  readonly #catalogue: Catalogue;
  readonly #serving: Serving;
  readonly #plainBodies: PlainBodies;
  readonly #options: ResolvedBlockCacheOptions;
  readonly #observer: Observer;
  readonly #clock: Clock;

  constructor(components: OriginAnswersComponents) {
    this.#peerdist = components.peerdist;
    this.#catalogue = components.catalogue;
    this.#serving = components.serving;
    this.#plainBodies = components.plainBodies;
    this.#options = components.options;
    this.#observer = components.observer;
    this.#clock = components.clock;
  }

  /**
   * One request to the origin in the client's name.
   *
   * @param stale what is known and must be asked about; the caller holds it
   * @param landed called as soon as others can find what came, and with what they should do if they find nothing
   */
  async fetch(
    request: ProxyRequest,
    next: Next,
    stale: CachedResource | undefined,
    landed: (landing: Landing) => void,
  ): Promise<ProxyResponse> {
    const leash = new Leash(request.signal);
    const { maxContentInformationVersion, hashRequestFirst } = this.#options;
    let ask = askForContentInformation(request, maxContentInformationVersion, hashRequestFirst).with({
      signal: leash.signal,
    });
    const revalidating = stale !== undefined && !hasConditions(request.headers);
    if (revalidating) ask = ask.with({ headers: { ...ask.headers, ...condition(stale) } });
    const response = await next(ask);
    if (response.status === 304 && stale !== undefined) {
      const answer = this.#notModified(request, next, stale, response, revalidating);
      landed('alone');
      return answer;
    }
    const status = stale === undefined ? 'fwd=uri-miss' : 'fwd=stale';
    if (isCoded(response)) return this.#receiveCoded(request, next, response, status, landed);
    const promised = await this.#receivePromised(request, next, response, leash, status, landed);
    if (promised !== undefined) return promised;
    // A part or a 304 came of this client's own range or condition; the next one may get something that can be shared.
    const partial = response.status === 206 || response.status === 304;
    landed(knowsPeerDist(response) ? (partial ? 'again' : 'alone') : 'never');
    return this.#serving.passPlain(request, response, status);
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
    if (!revalidating) return withCacheStatus(withoutCoding(response), 'fwd=stale');
    response.discard();
    if (same) return this.#serving.serve(stale, request, next, 'fwd=stale; fwd-status=304', { conditions: false });
    this.#catalogue.forget(request);
    return this.#serving.serveIdentity(request, next);
  }

  /** The fields of a 304 replace the stored ones (RFC 9111 4.3.4); where the new ones forbid keeping, this exchange is the last. */
  #freshen(request: ProxyRequest, stale: CachedResource, response: ProxyResponse): void {
    const head = { ...stale.head, ...cachedHead(response.headers) };
    const freshness = Freshness.of(request, { ...head, age: response.headers['age'] }, this.#clock);
    if (freshness.isStorable) {
      stale.head = head;
      stale.freshness = freshness;
      this.#catalogue.remember(request, stale);
    } else if (request.headers['authorization'] === undefined) this.#catalogue.forget(request);
  }

  /** Content information instead of a body: open it, remember it where that is allowed, serve from blocks. */
  async #receiveCoded(
    request: ProxyRequest,
    next: Next,
    response: ProxyResponse,
    status: CacheStatus,
    landed: (landing: Landing) => void,
  ): Promise<ProxyResponse> {
    if (response.status !== 200 && response.status !== 206) {
      // Content information of an error page, say: it describes nothing that could be served as a 200.
      response.discard();
      return this.#serving.serveIdentity(request, next);
    }
    let resource: CachedResource;
    try {
      resource = await this.#open(request, response);
      const whole = response.status === 206 ? await this.#openWhole(request, next, resource) : undefined;
      if (whole !== undefined) {
        resource.release();
        resource = whole;
      }
    } catch (error) {
      if (request.signal.aborted) throw error;
      request.report(this.#observer, { type: 'content_information', result: 'rejected' });
      return this.#serving.serveIdentity(request, next);
    }
    if (resource.handle.description?.range.length === resource.length) this.#catalogue.remember(request, resource);
    landed('alone');
    try {
      return await this.#serving.serve(resource, request, next, status, { conditions: false });
    } finally {
      resource.release();
    }
  }

  async #open(request: ProxyRequest, response: ProxyResponse): Promise<CachedResource> {
    const observer = request.observedBy(this.#observer);
    try {
      const encoded = await readSmallBody(response, this.#options.maxContentInformationBytes);
      observer({ type: 'wan', kind: 'content_information', bytes: encoded.byteLength });
      const resource = await openResource({ peerdist: this.#peerdist, request, response, encoded, clock: this.#clock });
      observer({ type: 'content_information', result: 'received' });
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
      if (whole === undefined || whole.length === part.length) return whole;
      whole.release();
      return undefined;
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
    landed: (landing: Landing) => void,
  ): Promise<ProxyResponse | undefined> {
    const length = Number(fieldValue(response.headers, 'content-length') ?? Number.NaN);
    if (response.status !== 200 || !isHashPromised(response) || !(response.body instanceof Readable)) return undefined;
    const freshness = Freshness.of(request, response.headers, this.#clock);
    const validators = validatorsOf(response.headers);
    if (!(length > 0) || freshness.isForbidden || !canName(validators) || !this.#plainBodies.hasRoom(length))
      return undefined;
    const transfer = leash.release();
    const plain = this.#plainBodies.add(request, response, freshness, length, async () => {
      const resource = await this.#describe(request, next, validators, transfer.signal);
      return resource && { resource, keep: () => this.#catalogue.remember(request, resource) };
    });
    const answer = this.#serving.servePlain(plain, withoutRange(request), status);
    landed('alone');
    return answer;
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
