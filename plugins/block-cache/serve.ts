import { Readable } from 'node:stream';
import type { ByteRange } from '../../lib/bytes/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { PeerDistError } from '../../lib/errors.ts';
import type { Next, ProxyBody, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { cacheStatus, type CacheStatus, withCacheStatus } from './cache-status.ts';
import type { CachedResource } from './cached-resource.ts';
import type { Catalogue } from './catalogue.ts';
import { countPlain } from './count.ts';
import { type Deliverable, deliver, primed } from './deliver.ts';
import type { PlainBody } from './plain-bodies.ts';
import { fetchMissingData, withoutCoding } from './upstream.ts';

/** Ranges up to this are written straight from memory; a longer one is streamed, so that it does not pin evicted blocks. Policy. */
const MAX_DIRECT_BYTES = 8 * 1024 * 1024;

export interface ServingComponents {
  readonly catalogue: Catalogue;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** Makes answers: out of blocks, out of a plain body under way, or the plain body itself. */
export class Serving {
  readonly #catalogue: Catalogue;
  readonly #observer: Observer;
  readonly #clock: Clock;

  constructor({ catalogue, observer, clock }: ServingComponents) {
    this.#catalogue = catalogue;
    this.#observer = observer;
    this.#clock = clock;
  }

  /** Answers out of blocks. When that fails before the first byte, the client gets the plain body by another request. */
  async serve(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    status: CacheStatus,
    options?: { conditions: boolean },
  ): Promise<ProxyResponse> {
    const content: Deliverable = {
      head: resource.head,
      fields: { age: String(resource.freshness.age), 'cache-status': cacheStatus(status) },
      validators: resource.validators,
      length: resource.length,
      read: (range) => this.#readBlocks(resource, range, request, next),
    };
    resource.hold();
    try {
      const response = await deliver(request, content, options);
      // Several ranges read on while the body flows.
      if (response.body instanceof Readable) response.body.once('close', () => resource.release());
      else resource.release();
      return response;
    } catch (error) {
      resource.release();
      if (request.signal.aborted) throw error;
      this.#catalogue.distrust(request, error);
      return this.serveIdentity(request, next);
    }
  }

  #readBlocks(
    resource: CachedResource,
    range: ByteRange,
    request: ProxyRequest,
    next: Next,
  ): ProxyBody | Promise<ProxyBody> {
    if (range.length <= MAX_DIRECT_BYTES) {
      const pieces = resource.handle.peek(range);
      if (pieces !== undefined) {
        request.report(this.#observer, { type: 'delivered', source: 'store', bytes: range.length });
        return pieces;
      }
    }
    const observer = request.observedBy(this.#observer);
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
    stream.once('error', (error) => this.#catalogue.distrust(request, error));
    return primed(stream, request.signal);
  }

  async servePlain(
    plain: PlainBody,
    request: ProxyRequest,
    status: CacheStatus,
    waitMs?: number,
  ): Promise<ProxyResponse> {
    return deliver(
      request,
      {
        head: plain.head,
        fields: { 'cache-status': cacheStatus(status) },
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
            await primed(stream, request.signal);
          } finally {
            cancel?.();
          }
          request.report(this.#observer, { type: 'delivered', source: 'origin', bytes: range.length });
          return stream;
        },
      },
      { conditions: status !== 'fwd=uri-miss' && status !== 'fwd=stale' },
    );
  }

  /** The plain body by a request of the client's own; nothing of the coding is asked for. */
  async serveIdentity(request: ProxyRequest, next: Next): Promise<ProxyResponse> {
    return this.passPlain(request, await next(request), 'fwd=bypass');
  }

  passPlain(request: ProxyRequest, response: ProxyResponse, status: CacheStatus): ProxyResponse {
    return countPlain(withCacheStatus(withoutCoding(response), status), request.observedBy(this.#observer), 'plain');
  }
}
