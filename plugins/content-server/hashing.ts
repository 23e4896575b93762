/** Bodies that are hashed as they pass: who hashes, who waits for it, and what is remembered afterwards. */
import type { Clock } from '../../lib/clock.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import { fieldValue, selectingValues, validatorsOf, varyNames } from '../../lib/http/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { PeerDist, PublishTransform } from '../../lib/peerdist/index.ts';
import type { Claims, ResourceStore } from '../../lib/stores/index.ts';
import { type PublishedResource, rememberedFields } from './resource.ts';

export interface HashingOptions {
  readonly peerdist: PeerDist;
  readonly resources: ResourceStore<PublishedResource>;
  readonly minBytes: number;
  readonly maxBytes: number;
  /** Whether what is published stays so across restarts. */
  readonly isDurable: boolean;
  readonly claims: Claims | undefined;
  readonly clock: Clock;
}

/** A body that is going to be hashed. */
export interface BegunHashing {
  /** The body has to pass through it. */
  readonly transform: PublishTransform;
  /** Settles when its hashes are known, or it has come to nothing; never rejects. */
  readonly done: Promise<void>;
}

export class Hashing {
  readonly #options: HashingOptions;
  /** Hashes still running, by resource. Bounded by the exchanges under way. */
  readonly #running = new Map<string, Set<Promise<unknown>>>();

  constructor(options: HashingOptions) {
    this.#options = options;
  }

  /**
   * Starts to hash the body of a publishable answer.
   *
   * @returns `promised` when there will be hashes without this body; undefined when there will be none
   */
  async begin(request: ProxyRequest, response: ProxyResponse): Promise<BegunHashing | 'promised' | undefined> {
    const { peerdist, claims, isDurable, minBytes, maxBytes } = this.#options;
    const { key } = request;
    const names = varyNames(response.headers) ?? [];
    const validators = validatorsOf(response.headers);
    const selecting = selectingValues(names, request.headers);
    const contentId = [key, selecting, validators.etag ?? validators.lastModified].join('\n');
    const length = Number(fieldValue(response.headers, 'content-length') ?? 0);
    const remember = async (contentLength: number): Promise<void> => {
      const head = rememberedFields(response.headers);
      const resource = { validators, head, contentId, contentLength };
      await this.#options.resources.put(key, names, request.headers, resource);
    };
    const release = await claims?.claim(hashingOf(key));
    // Another proxy hashes it: the client gets its bytes, and comes back for what that one makes.
    if (release === undefined && claims !== undefined) return 'promised';
    let transform: PublishTransform;
    try {
      transform = await peerdist.server.publishThrough(contentId, { length, durable: isDurable, maxBytes });
    } catch (error) {
      release?.();
      // Hashing is not to be had: the client gets its bytes all the same.
      if (!isPeerDistError(error, 'ERR_PEERDIST_ALREADY_EXISTS')) return undefined;
      // Somebody else's body is being hashed right now, or has been, and what was known of the answer is lost.
      if (this.#running.has(key)) return 'promised';
      if (!isDurable || length === 0 || !(await this.#isPublishedWith(contentId, length))) return undefined;
      await remember(length);
      return 'promised';
    }
    const hashing = transform.published
      .then(async ({ length: contentLength }) => {
        if (contentLength < minBytes) await peerdist.server.unpublish(contentId);
        else await remember(contentLength);
      })
      .finally(release);
    return { transform, done: this.#track(key, hashing) };
  }

  /** Waits for hashes of a resource that are being made, here or by another proxy, but not longer. */
  async wait(key: string, maxMs: number): Promise<void> {
    const { claims, clock } = this.#options;
    const running = this.#running.get(key);
    if (running === undefined && claims === undefined) return;
    const timeout = new AbortController();
    const over = new Promise<void>((resolve) => {
      timeout.signal.addEventListener('abort', () => resolve());
    });
    const cancel = clock.after(maxMs, () => timeout.abort());
    const hashed =
      running === undefined ? claims?.released(hashingOf(key), timeout.signal) : Promise.allSettled(running);
    await Promise.race([hashed, over]);
    cancel();
    timeout.abort();
  }

  /** Whether what another proxy has published under that name has that length. What has not is nobody's. */
  async #isPublishedWith(contentId: string, length: number): Promise<boolean> {
    const { server } = this.#options.peerdist;
    try {
      const reader = await server.openContentInformation(contentId, { versions: { min: 1, max: 2 } });
      await reader.close();
      if (reader.range.length === length) return true;
      await server.unpublish(contentId);
    } catch {
      // It is not there any more, or cannot be looked at.
    }
    return false;
  }

  async #track(key: string, hashing: Promise<unknown>): Promise<void> {
    const running = this.#running.get(key) ?? new Set();
    this.#running.set(key, running.add(hashing));
    try {
      await hashing;
    } catch {
      // The clients have their bytes; that nothing came of it shows in the metrics.
    } finally {
      running.delete(hashing);
      if (running.size === 0) this.#running.delete(key);
    }
  }
}

/** Name of the work of hashing what lies under a key. */
function hashingOf(key: string): string {
  return `hashing\n${key}`;
}
