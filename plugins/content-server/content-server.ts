import type { ByteRange } from '../../lib/bytes/index.ts';
import { systemClock } from '../../lib/clock.ts';
import {
  fieldValue,
  formatContentRange,
  hasConditions,
  ifRangeHolds,
  parseCacheControl,
  parseRange,
  removePeerDist,
  resolveRanges,
  withoutFields,
} from '../../lib/http/index.ts';
import { definePlugin, type Next, type Plugin, type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import {
  formatPeerDist,
  negotiate,
  type Negotiation,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
} from '../../lib/protocol/pccrtp/index.ts';
import { ResourceStore } from '../../lib/stores/index.ts';
import { Hashing } from './hashing.ts';
import type { ContentServerOptions } from './options.ts';
import {
  agreementCondition,
  canBeCoded,
  decodeResource,
  encodeResource,
  isPublishable,
  originAgrees,
  type PublishedResource,
  rememberedFields,
  withCodingVary,
} from './resource.ts';
import { type Begun, UnknownContent } from './unknown-content.ts';

type Coded = Extract<Negotiation, { kind: 'content-information' }>;

/**
 * The reverse side. A client that reads content information gets it instead of the body, once the body has passed and been hashed, and
 * only after the origin has agreed to the very request (MS-PCCRTP 3.2; RFC 9111 3.2 and 4.3.4).
 */
export function createContentServer(options: ContentServerOptions): Plugin {
  const server = new ContentServer(options);
  return definePlugin({
    name: 'content-server',
    handle: (request, next) => server.handle(request, next),
    stop: () => server.stop(),
  });
}

class ContentServer {
  readonly #peerdist: PeerDist;
  readonly #minBytes: number;
  readonly #maxBytes: number;
  readonly #hashWaitMs: number;
  readonly #observer: Observer;
  readonly #resources: ResourceStore<PublishedResource>;
  readonly #hashing: Hashing;
  readonly #unknown: UnknownContent | undefined;

  constructor(options: ContentServerOptions) {
    this.#peerdist = options.peerdist;
    this.#minBytes = options.minBytes ?? 64 * 1024;
    this.#maxBytes = options.maxBytes ?? Infinity;
    this.#hashWaitMs = options.hashWaitMs ?? 5_000;
    this.#observer = options.observer ?? ignoreObservations;
    const { peerdist, records, claims, clock = systemClock, hashUnknown } = options;
    this.#resources = new ResourceStore<PublishedResource>({
      maxBytes: options.maxIndexBytes ?? 64 * 1024 * 1024,
      bytesOf: resourceBytes,
      // What is durable leaves its store when nobody uses it any more.
      onRemove: ({ contentId }) =>
        void (records === undefined && this.#peerdist.server.unpublish(contentId).catch(() => {})),
      durable: records && { records, encode: encodeResource, decode: decodeResource },
    });
    const limits = { minBytes: this.#minBytes, maxBytes: this.#maxBytes };
    const isDurable = records !== undefined;
    const hashing = { ...limits, peerdist, resources: this.#resources, isDurable, claims, clock };
    this.#hashing = new Hashing(hashing);
    this.#unknown = hashUnknown && new UnknownContent(hashUnknown, { ...limits, hashing: this.#hashing, clock });
  }

  stop(): void {
    this.#unknown?.stop();
    this.#resources.clear();
  }

  async handle(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    const negotiation = negotiate(request.headers);
    const plain = plainRequest(request);
    if (request.method !== 'GET' && request.method !== 'HEAD') return next(plain);
    // HTTP/1.0 caches on the way know no Vary, so a coded answer could reach somebody who did not ask for it.
    const coded =
      negotiation.kind === 'content-information' &&
      request.method === 'GET' &&
      request.client.httpVersion !== '1.0' &&
      !parseCacheControl(fieldValue(request.headers, 'cache-control')).has('no-transform');
    const observer = request.observedBy(this.#observer);
    if (!coded) {
      const response = withCodingVary(await next(plain));
      if (negotiation.kind !== 'missing-data') return response;
      return response.counted((bytes) => observer({ type: 'wan', kind: 'missing_data', bytes }));
    }
    const { key } = request;
    // Where it is fetched ahead, whoever waits has a share in that.
    if (negotiation.hashRequest && this.#unknown?.has(key) !== true)
      await this.#hashing.wait(key, Math.max(this.#hashWaitMs, this.#unknown?.maxMs ?? 0));
    const known = await this.#resources.find(key, plain.headers);
    observer({ type: 'lookup', result: known === undefined ? 'miss' : 'hit' });
    const unknown = negotiation.hashRequest ? this.#unknown : undefined;
    if (known !== undefined) return this.#answerKnown(known, plain, next, negotiation, unknown);
    return unknown === undefined
      ? this.#pass(plain, await next(plain), negotiation)
      : this.#answerLearned(plain, next, negotiation, unknown);
  }

  /** @param begun the origin's answer, where it is there already */
  async #answerLearned(
    request: ProxyRequest,
    next: Next,
    negotiation: Coded,
    unknown: UnknownContent,
    begun?: Begun,
  ): Promise<ProxyResponse> {
    const { answer, agreement } = await unknown.learn(request, next, begun);
    if (answer !== undefined) return this.#pass(request, answer, negotiation);
    const known = await this.#resources.find(request.key, request.headers);
    if (known !== undefined && agreement !== undefined && originAgrees(known, agreement, false)) {
      const range = singleRange(request, known);
      const coded =
        range === 'plain' ? undefined : await this.#answerCoded(known, range, agreement, request, negotiation);
      if (coded !== undefined) return coded;
    }
    return known === undefined
      ? this.#pass(request, await next(request), negotiation)
      : this.#answerKnown(known, request, next, negotiation, undefined);
  }

  /** @param unknown learns what the origin has in place of what is known; undefined where it is not to be fetched ahead */
  async #answerKnown(
    known: PublishedResource,
    request: ProxyRequest,
    next: Next,
    negotiation: Coded,
    unknown: UnknownContent | undefined,
  ): Promise<ProxyResponse> {
    const range = singleRange(request, known);
    if (range === 'plain') return withCodingVary(await next(request));
    const condition = hasConditions(request.headers) ? undefined : agreementCondition(known, request);
    const fetch = unknown?.begin(request);
    const asked = fetch === undefined ? request : request.with({ signal: fetch.signal });
    const response = await next(
      condition === undefined ? asked : asked.with({ headers: { ...request.headers, ...condition } }),
    );
    if (originAgrees(known, response, condition !== undefined)) {
      const answer = await this.#answerCoded(known, range, response, request, negotiation);
      if (answer !== undefined) {
        response.discard();
        return answer;
      }
    }
    if (unknown !== undefined && fetch !== undefined && (response.status === 200 || response.status === 206)) {
      // The origin has something else now.
      if (response.status === 200) return this.#answerLearned(request, next, negotiation, unknown, { fetch, response });
      response.discard();
      return this.#answerLearned(request, next, negotiation, unknown);
    }
    if (response.status === 304 && condition !== undefined) {
      // The 304 was an answer to us, not to the client, and is of no use: ask as the client did.
      response.discard();
      return this.#pass(request, await next(request), negotiation);
    }
    return this.#pass(request, response, negotiation);
  }

  /** Content information instead of the body; undefined when the store has forgotten it. */
  async #answerCoded(
    known: PublishedResource,
    range: ByteRange | undefined,
    agreement: ProxyResponse,
    request: ProxyRequest,
    negotiation: Coded,
  ): Promise<ProxyResponse | undefined> {
    const fresh = rememberedFields(agreement.headers);
    const head = { ...known.head, ...fresh };
    if (!canBeCoded(head)) return undefined;
    const { contentInformationVersion } = negotiation;
    let information: Uint8Array;
    try {
      information = await this.#peerdist.server.getContentInformation(known.contentId, {
        range,
        versions: { min: contentInformationVersion, max: contentInformationVersion },
      });
    } catch {
      await this.#resources.delete(request.key);
      return undefined;
    }
    known.head = head;
    const observer = request.observedBy(this.#observer);
    observer({ type: 'content_information', result: 'sent' });
    observer({ type: 'wan', kind: 'content_information', bytes: information.byteLength });
    observer({ type: 'described', bytes: range?.length ?? known.contentLength });
    // Of this answer alone, so never remembered: how old it is, and what it sets.
    const { age, 'set-cookie': setCookie } = agreement.headers;
    return withCodingVary(
      new ProxyResponse({
        status: range === undefined ? 200 : 206,
        headers: {
          ...head,
          age,
          'set-cookie': setCookie,
          ...(range === undefined ? {} : { 'content-range': formatContentRange(range, known.contentLength) }),
          'accept-ranges': 'bytes',
          'content-encoding': 'peerdist',
          'content-length': String(information.byteLength),
          [PEERDIST_HEADER]: formatPeerDist({ version: negotiation.version, contentLength: known.contentLength }),
        },
        body: [information],
      }),
    );
  }

  /** The origin's answer as it is; a body worth publishing is hashed on its way, and the client told to come back. */
  async #pass(request: ProxyRequest, response: ProxyResponse, negotiation: Coded): Promise<ProxyResponse> {
    const answer = withCodingVary(response);
    if (!isPublishable(request, response, { minBytes: this.#minBytes, maxBytes: this.#maxBytes })) return answer;
    const hashing = await this.#hashing.begin(request, response);
    if (hashing === undefined) return answer;
    const hint = {
      [PEERDIST_HEADER]: formatPeerDist({ version: negotiation.version }),
      [PEERDIST_EX_HEADER]: 'MakeHashRequest=true',
    };
    const hinted = answer.with({ headers: { ...answer.headers, ...hint } });
    return hashing === 'promised' ? hinted : hinted.through(hashing.transform);
  }
}

/** The request as the origin may see it: it knows nothing of the coding. */
function plainRequest(request: ProxyRequest): ProxyRequest {
  const { headers } = request;
  const acceptEncoding = fieldValue(headers, 'accept-encoding');
  const rest = withoutFields(headers, [PEERDIST_HEADER, PEERDIST_EX_HEADER]);
  return request.with({
    headers: acceptEncoding === undefined ? rest : { ...rest, 'accept-encoding': removePeerDist(acceptEncoding) },
  });
}

/** The one range asked for, nothing for the whole content, or `plain` where content information cannot answer: several ranges, or none left. */
function singleRange(request: ProxyRequest, known: PublishedResource): ByteRange | undefined | 'plain' {
  const specs = parseRange(fieldValue(request.headers, 'range'));
  if (specs === undefined || !ifRangeHolds(fieldValue(request.headers, 'if-range'), known.validators)) return undefined;
  const ranges = resolveRanges(specs, known.contentLength);
  return ranges.length === 1 ? ranges[0] : 'plain';
}

function resourceBytes({ head, contentId }: PublishedResource): number {
  return 2 * (JSON.stringify(head).length + contentId.length);
}
