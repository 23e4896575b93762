import type { Clock } from '../../lib/clock.ts';
import { isPeerDistError, PeerDistMissingDataError } from '../../lib/errors.ts';
import { type HeaderFields, varyNames } from '../../lib/http/index.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import { type MaybePromise, type RecordStore, ResourceStore } from '../../lib/stores/index.ts';
import type { CachedResource } from './cached-resource.ts';
import { decodeResource, encodeResource } from './kept-resource.ts';

export interface CatalogueOptions {
  readonly peerdist: PeerDist;
  readonly maxIndexBytes: number;
  /** Keeps what is known across restarts. */
  readonly records?: RecordStore | undefined;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** The contents the branch knows, by resource and variant. */
export class Catalogue {
  readonly #resources: ResourceStore<CachedResource>;
  readonly #records: RecordStore | undefined;
  readonly #observer: Observer;

  constructor({ peerdist, maxIndexBytes, records, observer, clock }: CatalogueOptions) {
    this.#observer = observer;
    this.#records = records;
    // What is durable has the limit of its store.
    if (records === undefined) observer({ type: 'store_limit', store: 'content_information', bytes: maxIndexBytes });
    this.#resources = new ResourceStore<CachedResource>({
      maxBytes: maxIndexBytes,
      bytesOf: ({ bytes }) => bytes,
      onRemove: (resource) => resource.release(),
      durable: records && {
        records,
        encode: encodeResource,
        leansOn: ({ parts }) => parts.map(({ informationName }) => informationName),
        decode: (bytes) => decodeResource(bytes, { peerdist, records, clock }),
      },
    });
  }

  /** At once when it is in memory. Never throws or rejects. */
  find(request: Pick<ProxyRequest, 'key' | 'headers'>): MaybePromise<CachedResource | undefined> {
    const usable = (resource: CachedResource | undefined): CachedResource | undefined => {
      if (resource === undefined || resource.isHopeless) return undefined;
      if (resource.isReady) return resource;
      // The service was lost in the meantime, and its handles with it.
      this.forgetKey(request.key);
      return undefined;
    };
    const found = this.#resources.find(request.key, request.headers);
    return found instanceof Promise ? found.then(usable) : usable(found);
  }

  /** Keeps a resource where a shared cache may keep the answer (RFC 9111 3); else it serves its one exchange and is gone. */
  remember(request: ProxyRequest, resource: CachedResource): void {
    const names = selectingNames(resource.head);
    if (!resource.freshness.isStorable || names === undefined) {
      if (this.has(request, resource)) this.forget(request);
      return;
    }
    if (!this.has(request, resource)) resource.hold();
    // While nothing of its content is here, it is of use to this process alone.
    if (resource.parts.length === 0 && resource.length !== 0) {
      this.#resources.putNear(request.key, names, request.headers, resource);
      return;
    }
    void this.#keep(request, names, resource);
    this.#observer({
      type: 'stored',
      store: 'content_information',
      bytes: this.#records?.bytes ?? this.#resources.bytes,
    });
  }

  /** Whether this very resource is what such requests find. */
  has(request: ProxyRequest, resource: CachedResource): boolean {
    return this.#resources.isInMemory(request.key, request.headers, resource);
  }

  forget(request: ProxyRequest): void {
    this.forgetKey(request.key);
  }

  /** @param key as {@link ProxyRequest.key} */
  forgetKey(key: string): void {
    void this.#resources.delete(key);
  }

  /** Forgets a resource whose blocks did not match or whose content changed; what is wrong now stays wrong. */
  distrust(request: ProxyRequest, resource: CachedResource, error: unknown): void {
    const cause = error instanceof PeerDistMissingDataError ? error.cause : error;
    const mismatch = isPeerDistError(cause, 'ERR_PEERDIST_HASH_MISMATCH');
    if (mismatch) this.#observer({ type: 'content_information', result: 'rejected' });
    if (
      mismatch ||
      isPeerDistError(cause, 'ERR_PEERDIST_ORIGIN_CHANGED') ||
      isPeerDistError(cause, 'ERR_PEERDIST_ORIGIN_PROTOCOL') ||
      isPeerDistError(cause, 'ERR_PEERDIST_LENGTH_MISMATCH')
    ) {
      // Somebody who reads an older state has nothing to say about a newer one.
      if (this.has(request, resource)) this.forget(request);
    }
  }

  /** Forgets what is in memory. */
  clear(): void {
    this.#resources.clear();
  }

  /** In memory at once. Never rejects. */
  async #keep(request: ProxyRequest, names: readonly string[], resource: CachedResource): Promise<void> {
    const unkept = [...resource.unkept];
    resource.unkept.clear();
    const put = this.#resources.put(request.key, names, request.headers, resource);
    try {
      for (const [name, encoded] of unkept) await this.#records?.set(name, encoded);
    } catch {
      // a store that fails is only a store that forgets
    }
    await put;
  }
}

/** Fields by which the answers of one resource are told apart. Policy, not protocol. */
const MAX_NAMES = 16;

/**
 * The request fields that select an answer; undefined when none can select it. A coding is a variant even where the origin forgets to say so:
 * somebody who cannot read it would get it.
 */
export function selectingNames(head: HeaderFields): readonly string[] | undefined {
  const names = varyNames(head);
  if (names === undefined || names.length > MAX_NAMES) return undefined;
  if (head['content-encoding'] === undefined || names.includes('accept-encoding')) return names;
  return [...names, 'accept-encoding'].toSorted();
}
