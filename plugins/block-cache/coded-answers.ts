import type { ByteRange } from '../../lib/bytes/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import {
  canName,
  fieldValue,
  parseContentRange,
  sameBytes,
  type Validators,
  validatorsOf,
} from '../../lib/http/index.ts';
import type { Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { ContentHandle, PeerDist } from '../../lib/peerdist/index.ts';
import type { CacheStatus } from './cache-status.ts';
import { cachedHead, CachedResource, openPart } from './cached-resource.ts';
import type { Catalogue } from './catalogue.ts';
import type { Landing } from './flights.ts';
import { Freshness, type JudgingOptions } from './freshness.ts';
import type { ResolvedBlockCacheOptions } from './options.ts';
import type { Serving } from './serve.ts';
import { announcedLength, changed, hashRequest, isCoded, readSmallBody } from './upstream.ts';

export interface CodedAnswersComponents {
  readonly peerdist: PeerDist;
  readonly catalogue: Catalogue;
  readonly options: ResolvedBlockCacheOptions;
  readonly judging: JudgingOptions;
  readonly observer: Observer;
}

/** Makes something of answers whose body is content information (MS-PCCRTP 3.1). */
export class CodedAnswers {
  readonly #components: CodedAnswersComponents;
  /** Bytes of content information being read, all answers together: twice what one may have. */
  #readingBytes = 0;

  constructor(components: CodedAnswersComponents) {
    this.#components = components;
  }

  /** Content information instead of a body: opens it, remembers it where that is allowed, serves from blocks. */
  async receive(
    {
      request,
      next,
      status,
      landed,
    }: {
      readonly request: ProxyRequest;
      readonly next: Next;
      readonly status: CacheStatus;
      readonly landed: (landing: Landing) => void;
    },
    response: ProxyResponse,
    serving: Serving,
  ): Promise<ProxyResponse> {
    if (response.status !== 200 && response.status !== 206) {
      // Content information of an error page, say: it describes nothing that could be served as a 200.
      response.discard();
      return serving.serveIdentity(request, next);
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
      request.report(this.#components.observer, { type: 'content_information', result: 'rejected' });
      return serving.serveIdentity(request, next);
    }
    if (resource.whole !== undefined) this.#components.catalogue.remember(request, resource);
    landed('alone');
    try {
      const cookies = response.headers['set-cookie'];
      return await serving.serve(resource, request, next, status, { conditions: false, cookies });
    } finally {
      resource.release();
    }
  }

  /**
   * Asks for the description of a body that has come meanwhile.
   *
   * @returns undefined when the origin has none, or one of another content; else its handle. `adopt` makes it the resource's own
   */
  async describe(
    request: ProxyRequest,
    next: Next,
    resource: CachedResource,
    signal: AbortSignal,
  ): Promise<{ readonly handle: ContentHandle; readonly adopt: () => void } | undefined> {
    const described = await this.#ask(request, next, resource.validators, signal);
    if (described === undefined) return undefined;
    const { whole } = described;
    if (whole === undefined || described.length !== resource.length) {
      described.release();
      return undefined;
    }
    return { handle: whole.handle, adopt: () => this.#merge(resource, described) };
  }

  /** Content information that came where a part of the content was asked for. @throws {@link PeerDistError} when it is of no use */
  async adopt(resource: CachedResource, request: ProxyRequest, response: ProxyResponse): Promise<void> {
    const described = await this.#open(request, response);
    if (!sameBytes(described.validators, resource.validators) || described.length !== resource.length) {
      described.release();
      throw changed();
    }
    this.#merge(resource, described);
    if (this.#components.catalogue.has(request, resource)) this.#components.catalogue.remember(request, resource);
  }

  /** What the origin has described takes the place of what was known. */
  #merge(resource: CachedResource, described: CachedResource): void {
    resource.head = described.head;
    resource.freshness = described.freshness;
    for (const part of described.yieldParts()) resource.addPart(part, described.unkept.get(part.informationName));
    described.release();
  }

  async #open(request: ProxyRequest, response: ProxyResponse): Promise<CachedResource> {
    const { peerdist, options, judging } = this.#components;
    const observer = request.observedBy(this.#components.observer);
    let taken = 0;
    const mayTake = (bytes: number): boolean => {
      taken += bytes;
      this.#readingBytes += bytes;
      return this.#readingBytes <= 2 * options.maxContentInformationBytes;
    };
    try {
      const encoded = await readSmallBody(response, options.maxContentInformationBytes, mayTake);
      observer({ type: 'wan', kind: 'content_information', bytes: encoded.byteLength });
      const validators = validatorsOf(response.headers);
      if (!canName(validators)) throw contradiction('a coded answer without a validator');
      const part = await openPart(peerdist, encoded);
      let length: number;
      try {
        length = contentLength(response, part.range);
      } catch (error) {
        await part.handle.close();
        throw error;
      }
      const resource = new CachedResource({
        status: 200,
        statusText: undefined,
        validators,
        head: cachedHead(response.headers),
        freshness: Freshness.of(request, { headers: response.headers }, judging),
        length,
        isPlain: false,
      });
      resource.addPart(part, encoded);
      observer({ type: 'content_information', result: 'received' });
      return resource;
    } finally {
      this.#readingBytes -= taken;
      response.discard();
    }
  }

  /** After a described range: the whole content's description, which serves every later range too. */
  async #openWhole(request: ProxyRequest, next: Next, part: CachedResource): Promise<CachedResource | undefined> {
    if (!part.freshness.isStorable) return undefined;
    try {
      const whole = await this.#ask(request, next, part.validators, request.signal);
      if (whole === undefined || whole.length === part.length) return whole;
      whole.release();
      return undefined;
    } catch {
      return undefined;
    }
  }

  /** Asks for the content information of the whole content; undefined when the origin sends anything else. */
  async #ask(
    request: ProxyRequest,
    next: Next,
    validators: Validators,
    signal: AbortSignal,
  ): Promise<CachedResource | undefined> {
    const response = await next(hashRequest(request, this.#components.options.maxContentInformationVersion, signal));
    if (response.status !== 200 || !isCoded(response) || !sameBytes(validatorsOf(response.headers), validators)) {
      response.discard();
      return undefined;
    }
    return this.#open(request, response);
  }
}

function contentLength(response: ProxyResponse, described: ByteRange): number {
  if (response.status === 206) {
    const range = parseContentRange(fieldValue(response.headers, 'content-range'));
    if (
      range?.total === undefined ||
      range.range.offset !== described.offset ||
      range.range.length !== described.length
    ) {
      throw contradiction('content information of another range');
    }
    return range.total;
  }
  if (described.offset !== 0 || described.length !== announcedLength(response))
    throw contradiction('content information of another length');
  return described.length;
}

function contradiction(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', message, { spec: 'MS-PCCRTP 3.2.5.1' });
}
