import type { ByteRange } from '../../lib/bytes/index.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  fieldValue,
  formatContentRange,
  hasConditions,
  ifRangeHolds,
  parseCacheControl,
  parseRange,
  removePeerDist,
  resolveRanges,
  selectingValues,
  validatorsOf,
  varyNames,
  withoutFields,
} from '../../lib/http/index.ts';
import { definePlugin, type Next, type Plugin, type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import type { PeerDist, PublishTransform } from '../../lib/peerdist/index.ts';
import {
  formatPeerDist,
  negotiate,
  type Negotiation,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
} from '../../lib/protocol/pccrtp/index.ts';
import { type Claims, type RecordStore, ResourceStore } from '../../lib/stores/index.ts';
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
  readonly #clock: Clock;
  readonly #records: RecordStore | undefined;
  readonly #claims: Claims | undefined;
  readonly #resources: ResourceStore<PublishedResource>;
  /** Hashes still running, by resource. Bounded by the exchanges under way. */
  readonly #running = new Map<string, Set<Promise<unknown>>>();

  constructor(options: ContentServerOptions) {
    this.#peerdist = options.peerdist;
    this.#minBytes = options.minBytes ?? 64 * 1024;
    this.#maxBytes = options.maxBytes ?? Infinity;
    this.#hashWaitMs = options.hashWaitMs ?? 5_000;
    this.#observer = options.observer ?? ignoreObservations;
    this.#clock = options.clock ?? systemClock;
    const { records } = options;
    this.#records = records;
    this.#claims = options.claims;
    this.#resources = new ResourceStore<PublishedResource>({
      maxBytes: options.maxIndexBytes ?? 64 * 1024 * 1024,
      bytesOf: resourceBytes,
      // What is durable leaves its store when nobody uses it any more.
      onRemove: ({ contentId }) =>
        void (records === undefined && this.#peerdist.server.unpublish(contentId).catch(() => {})),
      durable: records && { records, encode: encodeResource, decode: decodeResource },
    });
  }

  stop(): void {
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
    if (negotiation.hashRequest) await this.#waitForHash(request.key);
    const known = await this.#resources.find(request.key, plain.headers);
    observer({ type: 'lookup', result: known === undefined ? 'miss' : 'hit' });
    return known === undefined
      ? this.#pass(plain, await next(plain), negotiation)
      : this.#answerKnown(known, plain, next, negotiation);
  }

  async #answerKnown(
    known: PublishedResource,
    request: ProxyRequest,
    next: Next,
    negotiation: Coded,
  ): Promise<ProxyResponse> {
    const range = singleRange(request, known);
    if (range === 'plain') return withCodingVary(await next(request));
    const condition = hasConditions(request.headers) ? undefined : agreementCondition(known, request);
    const response = await next(
      condition === undefined ? request : request.with({ headers: { ...request.headers, ...condition } }),
    );
    if (originAgrees(known, response, condition !== undefined)) {
      const answer = await this.#answerCoded(known, range, response, request, negotiation);
      if (answer !== undefined) {
        response.discard();
        return answer;
      }
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
    const names = varyNames(response.headers) ?? [];
    const validators = validatorsOf(response.headers);
    const contentId = [
      request.key,
      selectingValues(names, request.headers),
      validators.etag ?? validators.lastModified,
    ].join('\n');
    const hint = {
      [PEERDIST_HEADER]: formatPeerDist({ version: negotiation.version }),
      [PEERDIST_EX_HEADER]: 'MakeHashRequest=true',
    };
    const hinted = answer.with({ headers: { ...answer.headers, ...hint } });
    const length = Number(fieldValue(response.headers, 'content-length') ?? 0);
    const remember = async (contentLength: number): Promise<void> => {
      const head = rememberedFields(response.headers);
      const resource = { validators, head, contentId, contentLength };
      await this.#resources.put(request.key, names, request.headers, resource);
    };
    const release = await this.#claims?.claim(hashingOf(request.key));
    // Another proxy hashes it: the client gets its bytes, and comes back for what that one makes.
    if (release === undefined && this.#claims !== undefined) return hinted;
    let transform: PublishTransform;
    try {
      const durable = this.#records !== undefined;
      transform = await this.#peerdist.server.publishThrough(contentId, { length, durable, maxBytes: this.#maxBytes });
    } catch (error) {
      release?.();
      // Hashing is not to be had: the client gets its bytes all the same.
      if (!isPeerDistError(error, 'ERR_PEERDIST_ALREADY_EXISTS')) return answer;
      // Somebody else's body is being hashed right now, or has been, and what was known of the answer is lost.
      if (this.#running.has(request.key)) return hinted;
      if (this.#records === undefined || length === 0 || !(await this.#isPublishedWith(contentId, length)))
        return answer;
      await remember(length);
      return hinted;
    }
    this.#track(
      request.key,
      transform.published
        .then(async ({ length: contentLength }) => {
          if (contentLength < this.#minBytes) await this.#peerdist.server.unpublish(contentId);
          else await remember(contentLength);
        })
        .finally(release),
    );
    return hinted.through(transform);
  }

  /** Whether what another proxy has published under that name has that length. What has not is nobody's. */
  async #isPublishedWith(contentId: string, length: number): Promise<boolean> {
    try {
      const reader = await this.#peerdist.server.openContentInformation(contentId, { versions: { min: 1, max: 2 } });
      await reader.close();
      if (reader.range.length === length) return true;
      await this.#peerdist.server.unpublish(contentId);
    } catch {
      // It is not there any more, or cannot be looked at.
    }
    return false;
  }

  #track(key: string, hashing: Promise<unknown>): void {
    const running = this.#running.get(key) ?? new Set();
    this.#running.set(key, running.add(hashing));
    hashing
      .catch(() => {})
      .finally(() => {
        running.delete(hashing);
        if (running.size === 0) this.#running.delete(key);
      });
  }

  async #waitForHash(key: string): Promise<void> {
    const running = this.#running.get(key);
    if (running === undefined && this.#claims === undefined) return;
    const timeout = new AbortController();
    const over = new Promise<void>((resolve) => {
      timeout.signal.addEventListener('abort', () => resolve());
    });
    const cancel = this.#clock.after(this.#hashWaitMs, () => timeout.abort());
    const hashed =
      running === undefined ? this.#claims?.released(hashingOf(key), timeout.signal) : Promise.allSettled(running);
    await Promise.race([hashed, over]);
    cancel();
    timeout.abort();
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

/** Name of the work of hashing what lies under a key. */
function hashingOf(key: string): string {
  return `hashing\n${key}`;
}
