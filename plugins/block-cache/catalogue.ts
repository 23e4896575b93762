import { isPeerDistError, PeerDistMissingDataError } from '../../lib/errors.ts';
import { varyNames } from '../../lib/http/index.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { MemoryResourceStore } from '../../lib/stores/index.ts';
import type { CachedResource } from './cached-resource.ts';

/** The contents the branch knows, by resource and variant. */
export class Catalogue {
  readonly #resources: MemoryResourceStore<CachedResource>;
  readonly #observer: Observer;

  constructor({ maxIndexBytes, observer }: { readonly maxIndexBytes: number; readonly observer: Observer }) {
    this.#observer = observer;
    this.#resources = new MemoryResourceStore({ maxBytes: maxIndexBytes, onRemove: (resource) => resource.release() });
  }

  find(request: ProxyRequest): CachedResource | undefined {
    const resource = this.#resources.find(request.key, request.headers);
    if (resource === undefined || resource.handle.phase === 'ready') return resource;
    // The service was lost in the meantime, and its handles with it.
    this.forget(request);
    return undefined;
  }

  /** Keeps a resource where a shared cache may keep the answer (RFC 9111 3); else it serves its one exchange and is gone. */
  remember(request: ProxyRequest, resource: CachedResource): void {
    const names = varyNames(resource.head);
    if (!resource.freshness.isStorable || names === undefined) return;
    resource.hold();
    this.#resources.put(request.key, names, request.headers, resource, resource.bytes);
    this.#observer({ type: 'stored', store: 'content_information', bytes: this.#resources.bytes });
  }

  forget(request: ProxyRequest): void {
    this.#resources.delete(request.key);
  }

  /** Forgets a resource whose blocks did not match or whose content changed; what is wrong now stays wrong. */
  distrust(request: ProxyRequest, error: unknown): void {
    const cause = error instanceof PeerDistMissingDataError ? error.cause : error;
    const mismatch = isPeerDistError(cause, 'ERR_PEERDIST_HASH_MISMATCH');
    if (mismatch) this.#observer({ type: 'content_information', result: 'rejected' });
    if (
      mismatch ||
      isPeerDistError(cause, 'ERR_PEERDIST_ORIGIN_CHANGED') ||
      isPeerDistError(cause, 'ERR_PEERDIST_ORIGIN_PROTOCOL') ||
      isPeerDistError(cause, 'ERR_PEERDIST_LENGTH_MISMATCH')
    ) {
      this.forget(request);
    }
  }

  clear(): void {
    this.#resources.clear();
  }
}
