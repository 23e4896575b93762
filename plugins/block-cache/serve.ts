import { Readable } from 'node:stream';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { PeerDistError } from '../../lib/errors.ts';
import { fieldValue, type HeaderFields } from '../../lib/http/index.ts';
import type { Next, ProxyBody, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import { cacheStatus, type CacheStatus, withCacheStatus } from './cache-status.ts';
import { type CachedResource, type ContentPart, MIN_SHARED_BYTES, openPart } from './cached-resource.ts';
import type { Catalogue } from './catalogue.ts';
import { ContentReader } from './content-reader.ts';
import { countPlain } from './count.ts';
import { deliver, primed } from './deliver.ts';
import type { Gaps } from './gaps.ts';
import type { Transfer } from './transfer.ts';
import { fetchMissingData, withoutCoding } from './upstream.ts';

/** Ranges up to this are written straight from memory; a longer one is streamed, so that it does not pin evicted blocks. Policy. */
const MAX_DIRECT_BYTES = 8 * 1024 * 1024;

export interface ServingComponents {
  readonly peerdist: PeerDist;
  readonly catalogue: Catalogue;
  readonly gaps: Gaps;
  readonly observer: Observer;
  readonly clock: Clock;
}

export interface ServeOptions {
  /** False when the origin has just answered the client's conditions. @default true */
  readonly conditions?: boolean | undefined;
  /** The origin's own answer to this very request, where that is what is being served. */
  readonly answer?: HeaderFields | undefined;
  /** Cookies that the origin has just set for this client. */
  readonly cookies?: HeaderFields[string];
  /** Milliseconds for the first byte; then the client gets an answer of its own. @default as long as the origin takes */
  readonly waitMs?: number | undefined;
}

/** Makes answers out of contents: from blocks, from what is under way, from the origin where neither has it. */
export class Serving {
  readonly #components: ServingComponents;

  constructor(components: ServingComponents) {
    this.#components = components;
  }

  /** When nothing comes of it before the first byte, the client gets the plain body by a request of its own. */
  async serve(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    status: CacheStatus,
    { conditions, answer, cookies, waitMs }: ServeOptions = {},
  ): Promise<ProxyResponse> {
    const age = answer === undefined ? String(resource.freshness.age) : answer['age'];
    resource.hold();
    try {
      const response = await deliver(
        request,
        {
          status: resource.status,
          statusText: resource.statusText,
          head: cookies === undefined ? resource.head : { ...resource.head, 'set-cookie': cookies },
          fields: { age, 'cache-status': cacheStatus(status, answer && fieldValue(answer, 'cache-status')) },
          validators: resource.validators,
          length: resource.length,
          read: (range) => this.#read(resource, range, request, next, waitMs),
        },
        { conditions },
      );
      // Several ranges read on while the body flows.
      if (response.body instanceof Readable && !response.body.closed)
        response.body.once('close', () => resource.release());
      else resource.release();
      return response;
    } catch (error) {
      resource.release();
      if (request.signal.aborted) throw error;
      this.#components.catalogue.distrust(request, resource, error);
      return this.serveIdentity(request, next);
    }
  }

  /** The plain body by a request of the client's own; nothing of the coding is asked for. */
  async serveIdentity(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    return this.passPlain(request, await next(request), 'fwd=bypass');
  }

  passPlain(request: ProxyRequest, response: ProxyResponse, status: CacheStatus): ProxyResponse {
    const { observer } = this.#components;
    return countPlain(withCacheStatus(withoutCoding(response), status), request.observedBy(observer), 'plain');
  }

  #read(
    resource: CachedResource,
    range: ByteRange | undefined,
    request: ProxyRequest,
    next: Next,
    waitMs: number | undefined,
  ): ProxyBody | Promise<ProxyBody> {
    const { observer, catalogue } = this.#components;
    if (range?.length === 0) return [];
    const part = range === undefined ? undefined : resource.partAt(range.offset);
    let stream: Readable;
    if (part !== undefined && range !== undefined && rangeEnd(range) <= rangeEnd(part.range)) {
      if (range.length <= MAX_DIRECT_BYTES) {
        const pieces = part.handle.peek({ offset: range.offset - part.base, length: range.length });
        if (pieces !== undefined) {
          request.report(observer, { type: 'delivered', source: 'store', bytes: range.length });
          return pieces;
        }
      }
      stream = this.#readPart(resource, part, range, request, next);
    } else {
      stream = new ContentReader(resource, range, {
        readPart: (each, within) => this.#readPart(resource, each, within, request, next),
        openKept: (transfer) => this.#openKept(resource, transfer),
        fetchGap: (offset, end) => this.#components.gaps.fetch(resource, request, next, { offset, end }),
        onOriginBytes: (bytes) => request.report(observer, { type: 'delivered', source: 'origin', bytes }),
      });
    }
    stream.once('error', (error) => catalogue.distrust(request, resource, error));
    return this.#primed(stream, request, waitMs);
  }

  async #primed(stream: Readable, request: ProxyRequest, waitMs: number | undefined): Promise<Readable> {
    const tooLate = (): void =>
      void stream.destroy(new PeerDistError('ERR_PEERDIST_TIMEOUT', 'the shared fetch is too far behind'));
    const cancel = waitMs === undefined ? undefined : this.#components.clock.after(waitMs, tooLate);
    try {
      return await primed(stream, request.signal);
    } finally {
      cancel?.();
    }
  }

  #readPart(
    resource: CachedResource,
    { handle, base }: ContentPart,
    range: ByteRange,
    request: ProxyRequest,
    next: Next,
  ): Readable {
    const { validators, length = 0 } = resource;
    const observer = request.observedBy(this.#components.observer);
    return handle.createReadStream({
      range: { offset: range.offset - base, length: range.length },
      cacheMissing: !resource.freshness.isForbidden,
      onSource: (source, bytes) => observer({ type: 'delivered', source, bytes }),
      onMissing: (missing, { signal }) =>
        fetchMissingData(
          { request, next, validators, contentLength: length, contentCoding: resource.contentCoding, observer, signal },
          { offset: base + missing.offset, length: missing.length },
        ),
    });
  }

  async #openKept(resource: CachedResource, { recorder, start }: Transfer): Promise<ContentPart | undefined> {
    const encoded = recorder?.soFar();
    // A segment is complete, so it is a long one, unless its content is known to be short.
    const isPrivate = (resource.length ?? MIN_SHARED_BYTES) < MIN_SHARED_BYTES;
    return encoded && openPart(this.#components.peerdist, encoded, { base: start, isPrivate });
  }
}
