import { Readable } from 'node:stream';
import type { Clock } from '../../lib/clock.ts';
import { canName, fieldValue, isPersonal, isStrongTag, parseContentRange, validatorsOf } from '../../lib/http/index.ts';
import type { Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import {
  bodyRange,
  isOriginFailure,
  isSameState,
  isSameTag,
  oneRangeOnly,
  rangeCount,
  replaces,
  resourceOf,
  updatedFields,
  withoutRange,
} from './answer-rules.ts';
import type { CacheStatus } from './cache-status.ts';
import { withCacheStatus } from './cache-status.ts';
import { cachedHead, CachedResource } from './cached-resource.ts';
import { type Catalogue, selectingNames } from './catalogue.ts';
import type { CodedAnswers } from './coded-answers.ts';
import { conditionsFor, type Whose } from './conditions.ts';
import { type Landing, Leash } from './flights.ts';
import { Freshness, type JudgingOptions } from './freshness.ts';
import type { Keeper } from './keeper.ts';
import type { ResolvedBlockCacheOptions } from './options.ts';
import { QueryGuard } from './query-guard.ts';
import type { Serving } from './serve.ts';
import type { Transfers } from './transfers.ts';
import { askForContentInformation, isCoded, isHashPromised, knowsPeerDist, withoutCoding } from './upstream.ts';

export interface OriginAnswersComponents {
  readonly catalogue: Catalogue;
  readonly serving: Serving;
  readonly transfers: Transfers;
  readonly keeper: Keeper;
  readonly coded: CodedAnswers;
  readonly options: ResolvedBlockCacheOptions;
  readonly judging: JudgingOptions;
  readonly clock: Clock;
}

/** One question to the origin on behalf of a client. */
interface Question {
  readonly request: ProxyRequest;
  readonly next: Next;
  /** What is known and asked about; whoever asks holds it. */
  readonly stale: CachedResource | undefined;
  /** Called as soon as others can find what came, and with what they should do if they find nothing. */
  readonly landed: (landing: Landing) => void;
  readonly status: 'fwd=uri-miss' | 'fwd=stale';
  readonly askedAt: number;
  readonly leash: Leash;
}

/**
 * Asks the origin and makes something of each kind of answer: 304, an error, content information, a body that is being hashed, one that may be
 * kept, anything else.
 */
export class OriginAnswers {
  readonly #components: OriginAnswersComponents;
  readonly #queries: QueryGuard;

  constructor(components: OriginAnswersComponents) {
    this.#components = components;
    this.#queries = new QueryGuard(components.clock);
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
    const { options, serving, clock, coded } = this.#components;
    const leash = new Leash(request.signal);
    const status = stale === undefined ? 'fwd=uri-miss' : 'fwd=stale';
    const question: Question = { request, next, stale, landed, status, askedAt: clock.now(), leash };
    const severalRanges = rangeCount(request) > 1;
    const asked = severalRanges ? oneRangeOnly(request) : request;
    const { maxContentInformationVersion, hashRequestFirst } = options;
    let ask = askForContentInformation(asked, maxContentInformationVersion, hashRequestFirst).with({
      signal: leash.signal,
    });
    const conditions = stale && conditionsFor(stale, request);
    if (conditions !== undefined) ask = ask.with({ headers: { ...ask.headers, ...conditions.fields } });
    let response: ProxyResponse;
    try {
      response = await next(ask);
    } catch (error) {
      if (request.signal.aborted || !isOriginFailure(error)) throw error;
      const instead = this.#insteadOfError(question, true);
      if (instead === undefined) throw error;
      landed('alone');
      return instead;
    }
    if (response.status >= 500) {
      const instead = this.#insteadOfError(question, false);
      if (instead !== undefined) {
        response.discard();
        landed('alone');
        return instead;
      }
    }
    if (response.status === 304 && stale !== undefined) {
      const answer = this.#notModified(question, stale, response, conditions?.whose ?? 'theirs');
      landed('alone');
      return answer;
    }
    if (isCoded(response)) return coded.receive(question, response, serving);
    const kept = this.#receivePromised(question, response) ?? this.#receivePlain(question, response);
    if (kept !== undefined) return kept;
    if (severalRanges && response.status === 206) {
      response.discard();
      landed('again');
      return serving.serveIdentity(request, next);
    }
    // What is not kept takes the place of what was kept all the same (RFC 9111 4).
    if (stale !== undefined && replaces(response)) this.#components.catalogue.forget(request);
    // A part or a 304 came of this client's own range or condition; the next one may get something that can be shared.
    const partial = response.status === 206 || response.status === 304;
    landed(knowsPeerDist(response) ? (partial ? 'again' : 'alone') : 'never');
    return serving.passPlain(request, response, status);
  }

  /**
   * What the origin has answered to a client that reads content information itself: kept where it is plain all the same.
   *
   * @returns undefined when it is not to be kept; it is then untouched
   */
  take(request: ProxyRequest, next: Next, response: ProxyResponse, leash: Leash): Promise<ProxyResponse> | undefined {
    if (isCoded(response) || knowsPeerDist(response)) return undefined;
    const askedAt = this.#components.clock.now();
    const question = {
      request,
      next,
      stale: undefined,
      landed: () => {},
      status: 'fwd=uri-miss',
      askedAt,
      leash,
    } as const;
    return this.#receivePlain(question, response);
  }

  /** What is stale, where that is better than no answer or an error (RFC 9111 4.2.4, RFC 5861 4). */
  #insteadOfError({ request, next, stale }: Question, isDisconnected: boolean): Promise<ProxyResponse> | undefined {
    if (stale === undefined || (stale.whole === undefined && stale.length !== 0)) return undefined;
    if (!stale.freshness.isBetterThanError(request.headers, isDisconnected)) return undefined;
    return this.#components.serving.serve(stale, request, next, 'fwd=stale; detail=stale-if-error');
  }

  async #notModified(
    { request, next }: Question,
    stale: CachedResource,
    response: ProxyResponse,
    whose: Whose,
  ): Promise<ProxyResponse> {
    const { catalogue, serving } = this.#components;
    const { etag } = validatorsOf(response.headers);
    const isOurTag = etag !== undefined && isSameTag(etag, stale.validators.etag);
    const isOurs = whose === 'ours' || (whose === 'both' && isOurTag);
    const same = etag === undefined ? isOurs : isOurTag && (isOurs || isStrongTag(etag));
    if (same) this.#freshen(request, stale, response);
    if (whose === 'both' && etag === undefined) {
      // It does not say which of the states it is.
      response.discard();
      return serving.serveIdentity(request, next);
    }
    if (!isOurs) return withCacheStatus(withoutCoding(response), 'fwd=stale');
    response.discard();
    const cookies = response.headers['set-cookie'];
    if (same) return serving.serve(stale, request, next, 'fwd=stale; fwd-status=304', { cookies });
    catalogue.forget(request);
    return serving.serveIdentity(request, next);
  }

  /** The fields of a 304 replace the stored ones (RFC 9111 4.3.4); where the new ones forbid keeping, this exchange is the last. */
  #freshen(request: ProxyRequest, stale: CachedResource, response: ProxyResponse): void {
    const { catalogue } = this.#components;
    const head = { ...stale.head, ...updatedFields(response.headers, stale) };
    const headers = { ...head, age: response.headers['age'] };
    const freshness = Freshness.of(request, { status: stale.status, headers }, this.#components.judging);
    if (freshness.isStorable) {
      stale.head = head;
      stale.freshness = freshness;
      catalogue.remember(request, stale);
    } else if (request.headers['authorization'] === undefined) catalogue.forget(request);
  }

  /**
   * A plain body that the origin is hashing: shared while it runs, asked about when it has ended. Undefined when it is none, or when it cannot
   * be held; it is then like any other.
   */
  #receivePromised(question: Question, response: ProxyResponse): Promise<ProxyResponse> | undefined {
    const { request, next, leash } = question;
    const { transfers, keeper, coded, clock } = this.#components;
    const length = Number(fieldValue(response.headers, 'content-length') ?? Number.NaN);
    if (response.status !== 200 || !isHashPromised(response) || !(response.body instanceof Readable)) return undefined;
    const validators = validatorsOf(response.headers);
    const freshness = this.#judge(question, response);
    if (!(length > 0) || freshness.isForbidden || !canName(validators) || !transfers.hasRoom(length)) return undefined;
    const resource = resourceOf(response, freshness, length, clock);
    const { signal } = leash.release();
    keeper.hold(resource, request, response, length, () => coded.describe(request, next, resource, signal));
    return this.#serveNew(question, resource, response);
  }

  /** A body, or a part of one, that a shared cache may keep (RFC 9111 3, 3.3). Undefined for any other. */
  #receivePlain(question: Question, response: ProxyResponse): Promise<ProxyResponse> | undefined {
    const { request, stale, leash } = question;
    const { keeper, clock, options } = this.#components;
    const range = bodyRange(response);
    if (range === 'contradiction') return undefined;
    const freshness = this.#judge(question, response);
    const validators = validatorsOf(response.headers);
    const isDated = validators.lastModified !== undefined && !isPersonal(request.headers);
    const isUseful = freshness.staleAt > clock.now() || validators.etag !== undefined || isDated;
    if (!freshness.isStorable || !isUseful || selectingNames(response.headers) === undefined) return undefined;
    const isPart = response.status === 206;
    if (isPart && !isStrongTag(validators.etag)) return undefined;
    const total = isPart ? parseContentRange(fieldValue(response.headers, 'content-range'))?.total : range?.length;
    if (isPart && total === undefined) return undefined;
    const length = response.body === null ? 0 : total;
    if (length !== undefined && length > options.maxContentBytes) return undefined;
    // Parts of one state of a content belong together (RFC 9111 3.4).
    const same = isPart && stale !== undefined && isSameState(stale, response, total) ? stale : undefined;
    if (stale === undefined && !this.#queries.admits(request)) return undefined;
    const resource = same ?? resourceOf(response, freshness, length, clock);
    if (same !== undefined) {
      same.head = { ...same.head, ...cachedHead(response.headers) };
      same.freshness = freshness;
      same.hold();
    }
    if (length !== 0 && !keeper.record(resource, request, response, range)) {
      resource.release();
      return undefined;
    }
    leash.release();
    return this.#serveNew(question, resource, response);
  }

  /** What is new is found from now on by others, and given to whom it was asked for. */
  async #serveNew(
    { request, next, status, landed }: Question,
    resource: CachedResource,
    response: ProxyResponse,
  ): Promise<ProxyResponse> {
    const { catalogue, serving } = this.#components;
    catalogue.remember(request, resource);
    landed('alone');
    // An origin that ignored a range sends everything, and so do we.
    const asked = response.status === 206 ? request : withoutRange(request);
    const told: CacheStatus = resource.freshness.isStorable ? `${status}; stored` : status;
    try {
      const { headers } = response;
      const cookies = headers['set-cookie'];
      return await serving.serve(resource, asked, next, told, { conditions: false, answer: headers, cookies });
    } finally {
      resource.release();
    }
  }

  #judge({ request, askedAt }: Question, { status, headers }: ProxyResponse): Freshness {
    const delayMs = this.#components.clock.now() - askedAt;
    // A part is judged as the whole it belongs to.
    return Freshness.of(request, { status: status === 206 ? 200 : status, headers, delayMs }, this.#components.judging);
  }
}
