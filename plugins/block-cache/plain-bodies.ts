import { setImmediate as yieldToOthers } from 'node:timers/promises';
import type { Clock } from '../../lib/clock.ts';
import { type HeaderFields, selectingValues, type Validators, validatorsOf, varyNames } from '../../lib/http/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { cachedHead, type CachedResource } from './cached-resource.ts';
import type { Freshness } from './freshness.ts';
import { SharedBody } from './shared-body.ts';

/** A plain body under way, and who may have it. */
export interface PlainBody {
  readonly body: SharedBody;
  readonly head: HeaderFields;
  readonly validators: Validators;
  readonly freshness: Freshness;
  readonly names: readonly string[];
  readonly selecting: string;
}

export interface PlainBodiesOptions {
  /** Bytes held, all bodies together. */
  readonly maxPendingBytes: number;
  readonly lingerMs: number;
  readonly clock: Clock;
  readonly observer: Observer;
}

/** Bytes given to the store before others get their turn on the thread. */
const SLICE_BYTES = 1024 * 1024;

/** Plain bodies whose content information is going to be asked for: shared while they run, cut into blocks when it has come. */
export class PlainBodies {
  readonly #options: PlainBodiesOptions;
  readonly #bodies = new Map<string, Set<PlainBody>>();
  #pendingBytes = 0;

  constructor(options: PlainBodiesOptions) {
    this.#options = options;
  }

  /** True while another body of that length may be held. */
  hasRoom(length: number): boolean {
    return this.#pendingBytes + length <= this.#options.maxPendingBytes;
  }

  /** A body under way that this request may have (RFC 9111 3, 3.5, 4.1). */
  find(request: ProxyRequest): PlainBody | undefined {
    for (const plain of this.#bodies.get(request.key) ?? []) {
      const allowed =
        plain.freshness.isJoinable &&
        (request.headers['authorization'] === undefined || plain.freshness.sharesAuthorized);
      if (allowed && selectingValues(plain.names, request.headers) === plain.selecting) return plain;
    }
    return undefined;
  }

  /** What is under way may not be given to anybody else any more, nor be kept when it has come. */
  forget(request: ProxyRequest): void {
    this.#bodies.delete(request.key);
  }

  /**
   * Takes a body over. When it has come whole, `describe` asks for its content information and its blocks go to the store.
   *
   * @param length its Content-Length; there must be room for it
   */
  add(
    request: ProxyRequest,
    response: ProxyResponse,
    freshness: Freshness,
    length: number,
    describe: () => Promise<{ resource: CachedResource; keep: () => void } | undefined>,
  ): PlainBody {
    const { lingerMs, clock } = this.#options;
    const observer = request.observedBy(this.#options.observer);
    const names = varyNames(response.headers) ?? [];
    const plain: PlainBody = {
      body: new SharedBody(response.stream(), {
        length,
        lingerMs,
        clock,
        onBytes: (bytes) => observer({ type: 'wan', kind: 'plain', bytes }),
      }),
      head: cachedHead(response.headers),
      validators: validatorsOf(response.headers),
      freshness,
      names,
      selecting: selectingValues(names, request.headers),
    };
    const bodies = this.#bodies.get(request.key) ?? new Set();
    this.#bodies.set(request.key, bodies.add(plain));
    this.#pendingBytes += length;
    const isKept = (): boolean => bodies.has(plain) && this.#bodies.get(request.key) === bodies;
    void this.#settle(plain.body, describe, isKept).finally(() => {
      this.#pendingBytes -= length;
      bodies.delete(plain);
      if (bodies.size === 0 && this.#bodies.get(request.key) === bodies) this.#bodies.delete(request.key);
    });
    return plain;
  }

  async #settle(
    body: SharedBody,
    describe: () => Promise<{ resource: CachedResource; keep: () => void } | undefined>,
    isKept: () => boolean,
  ): Promise<void> {
    if (!(await body.done)) return;
    let described: Awaited<ReturnType<typeof describe>>;
    try {
      described = await describe();
      if (described === undefined || described.resource.length !== body.length) return;
      let slice = 0;
      for (let offset = 0; offset < body.length;) {
        const piece = body.pieceAt(offset) as Uint8Array;
        await described.resource.handle.addData(offset, piece);
        offset += piece.byteLength;
        slice += piece.byteLength;
        if (slice >= SLICE_BYTES) {
          slice = 0;
          await yieldToOthers();
        }
      }
      if (isKept()) described.keep();
    } catch {
      // The clients have their bytes; that nothing was learnt from them shows in the metrics.
    } finally {
      described?.resource.release();
    }
  }
}
