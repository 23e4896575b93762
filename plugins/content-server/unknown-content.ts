/**
 * Content that nobody has asked for yet, fetched and hashed before a hash request for it is answered: the first client of a branch then gets
 * hashes already, and what it has of an older version need not cross the WAN again.
 */
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '../../lib/clock.ts';
import { PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';
import { CONDITION_FIELDS, hasConditions, withoutFields } from '../../lib/http/index.ts';
import type { Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { BegunHashing, Hashing } from './hashing.ts';
import type { HashUnknownOptions } from './options.ts';
import { isPublishable } from './resource.ts';

/** Such fetches under way; what is asked for beyond them is answered as if there were none. Policy, not protocol. */
export const MAX_FETCHES = 64;

/** Clients of a fetch whose leaving is heeded; one more, and it goes on to its end. Policy, not protocol. */
const MAX_HEEDED = 1024;
/** Milliseconds after which a fetch is given up, however briskly it goes on. Policy, not protocol. */
export const MAX_FETCH_MS = 60 * 60_000;

const DEFAULT_MAX_BYTES = 1024 ** 3;
const DEFAULT_MAX_MS = 30_000;

/** One fetch, and those it is made for. */
class Fetch {
  readonly #controller = new AbortController();
  #members = 0;
  readonly #leave = (): void => {
    this.#members -= 1;
    if (this.#members === 0) this.end(new PeerDistAbortError('signal'));
  };
  readonly #signals: AbortSignal[] = [];
  /** Resolves when the content is known, or is not going to be; never rejects. */
  readonly settled: Promise<void>;
  settle!: () => void;
  /** The answer that is not going to be hashed here, for whoever takes it first; it is an answer to that client's very request. */
  answer: ProxyResponse | undefined;
  /** Head of the answer that has been hashed, where it is an answer to that client's very request: the origin has agreed just now. */
  agreement: ProxyResponse | undefined;
  /** Whether that client still waits. */
  isAwaited = true;

  constructor() {
    this.settled = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** It goes on until all who have joined are gone: those too that have got tired of waiting, as long as they read something else. */
  join(signal: AbortSignal): void {
    this.#members += 1;
    if (this.#signals.length === MAX_HEEDED) return undefined;
    if (signal.aborted) return this.#leave();
    this.#signals.push(signal);
    signal.addEventListener('abort', this.#leave, { once: true });
    return undefined;
  }

  end(reason: Error): void {
    this.#controller.abort(reason);
  }

  /** From now on nobody's leaving means anything. */
  forget(): void {
    for (const signal of this.#signals.splice(0)) signal.removeEventListener('abort', this.#leave);
  }
}

export class UnknownContent {
  /** Milliseconds a client waits. */
  readonly maxMs: number;
  readonly #maxBytes: number;
  readonly #minBytes: number;
  readonly #hashing: Hashing;
  readonly #clock: Clock;
  readonly #fetches = new Map<string, Fetch>();

  constructor(
    { maxBytes = DEFAULT_MAX_BYTES, maxMs = DEFAULT_MAX_MS }: HashUnknownOptions,
    { minBytes, maxBytes: mostBytes, hashing, clock }: UnknownContentComponents,
  ) {
    this.maxMs = maxMs;
    this.#maxBytes = Math.min(maxBytes, mostBytes);
    this.#minBytes = minBytes;
    this.#hashing = hashing;
    this.#clock = clock;
  }

  /** Whether it is being fetched right now. */
  has(key: string): boolean {
    return this.#fetches.has(key);
  }

  /** A fetch that may come of a question about what is known: made with its signal, the answer is of use for others too. */
  begin(request: ProxyRequest): Fetch {
    const fetch = new Fetch();
    fetch.join(request.signal);
    return fetch;
  }

  /**
   * Fetches what a request asks for, whole, and waits until it is hashed, the time is up or the client leaves. Clients that ask for the same at once share a fetch.
   *
   * @param request without its coding
   * @param begun of {@link begin}, where the origin has answered already
   * @returns `answer`: that of the origin to this very request, when it is nothing to be hashed ahead; `agreement`: its head, when it has been
   * hashed; neither: what is known now is to be looked up
   * @throws what `next` throws, for the one who has asked first
   */
  async learn(request: ProxyRequest, next: Next, begun?: Begun): Promise<Learned> {
    const running = this.#fetches.get(request.key);
    if (running === undefined && this.#fetches.size >= MAX_FETCHES) return { answer: begun?.response };
    if (running !== undefined) {
      begun?.response.discard();
      running.join(request.signal);
      await this.#patience(running.settled, request.signal);
      return {};
    }
    const fetch = begun?.fetch ?? this.begin(request);
    this.#fetches.set(request.key, fetch);
    const cancel = this.#clock.after(MAX_FETCH_MS, () =>
      fetch.end(new PeerDistError('ERR_PEERDIST_TIMEOUT', 'a fetch ahead took too long')),
    );
    const failure = this.#run(fetch, request, next, begun?.response).finally(() => {
      cancel();
      fetch.forget();
      this.#fetches.delete(request.key);
      fetch.settle();
    });
    // Heard below as long as anybody listens.
    failure.catch(() => {});
    try {
      await this.#patience(failure, request.signal);
      return { answer: fetch.answer, agreement: fetch.agreement };
    } finally {
      fetch.isAwaited = false;
    }
  }

  stop(): void {
    for (const fetch of this.#fetches.values()) fetch.end(new PeerDistAbortError('shutdown'));
  }

  async #run(fetch: Fetch, request: ProxyRequest, next: Next, answer: ProxyResponse | undefined): Promise<void> {
    const headers = withoutFields(request.headers, [...CONDITION_FIELDS, 'if-range', 'range']);
    const asked = request.with({ headers, signal: fetch.signal });
    const response = answer ?? (await next(asked));
    const limits = { minBytes: this.#minBytes, maxBytes: this.#maxBytes };
    const begun = isPublishable(asked, response, limits) ? await this.#hashing.begin(asked, response) : undefined;
    const isOwn = answer !== undefined || asksForAll(request);
    if (typeof begun === 'object') {
      const isHashed = await this.#hash(fetch, response, begun);
      if (isHashed && isOwn) fetch.agreement = response;
      return;
    }
    // Not for everybody: an error page, too small or too large, or another proxy is at it.
    if (isOwn && fetch.isAwaited) fetch.answer = response;
    else response.discard();
  }

  async #hash(fetch: Fetch, response: ProxyResponse, { transform, done }: BegunHashing): Promise<boolean> {
    let bytes = 0;
    // A body whose hashes are not to be had is of no use here.
    transform.failOpen = false;
    const sink = new Writable({
      write: (chunk: Uint8Array, _encoding, callback) => {
        bytes += chunk.byteLength;
        callback(
          bytes <= this.#maxBytes ? null : new PeerDistError('ERR_PEERDIST_LIMIT', 'too long to be hashed ahead'),
        );
      },
    });
    try {
      await pipeline(response.stream(), transform, sink, { signal: fetch.signal });
      await done;
      return true;
    } catch {
      // Whoever still waits asks for the plain body.
      return false;
    }
  }

  /** Resolves with the promise, after the longest time or when the client leaves. @throws what the promise rejects with */
  async #patience(promise: Promise<void>, signal: AbortSignal): Promise<void> {
    let giveUp!: () => void;
    const over = new Promise<void>((resolve) => {
      giveUp = resolve;
    });
    const cancel = this.#clock.after(this.maxMs, giveUp);
    signal.addEventListener('abort', giveUp);
    try {
      await Promise.race([promise, over]);
    } finally {
      cancel();
      signal.removeEventListener('abort', giveUp);
    }
  }
}

/** Whether what this request gets is what anybody would get who asks for all of it. */
function asksForAll({ headers }: ProxyRequest): boolean {
  return !hasConditions(headers) && headers['range'] === undefined;
}

/** What has come of a fetch for the one who has asked first. */
export interface Learned {
  readonly answer?: ProxyResponse | undefined;
  readonly agreement?: ProxyResponse | undefined;
}

/** An answer that came under the signal of a fetch. */
export interface Begun {
  readonly fetch: Fetch;
  readonly response: ProxyResponse;
}

export interface UnknownContentComponents {
  readonly minBytes: number;
  /** Largest body that is published at all. */
  readonly maxBytes: number;
  readonly hashing: Hashing;
  readonly clock: Clock;
}
