import type { Readable } from 'node:stream';
import type { HeaderFields } from '../http/index.ts';
import type { Observation, Observer } from '../observer.ts';

/** Told of what happens for the sake of one request; must be quick and must not throw. */
export interface RequestWatcher {
  observe(observation: Observation): void;
}

/** Told of an interim answer (1xx) that is on its way to the client. Must be quick and must not throw. */
export type InterimListener = (status: number, headers: HeaderFields) => void;

/** Who sent the request. */
export interface ClientInfo {
  /** IP address without zone or mapping prefix. */
  readonly address: string;
  /** `1.1` or `1.0`. */
  readonly httpVersion: string;
}

export interface ProxyRequestParts {
  readonly method: string;
  /** Scheme of the origin. */
  readonly scheme: 'http' | 'https';
  /** Host and port as the origin is going to see them in Host. */
  readonly authority: string;
  /** Request-target in origin form: path and query, the client's bytes verbatim. */
  readonly target: string;
  /** End-to-end fields, lower-case names; Host is left out ({@link ProxyRequestParts.authority}). */
  readonly headers: HeaderFields;
  /** The body, or null. Its framing towards the origin is made by the host. */
  readonly body: Readable | null;
  readonly client: ClientInfo;
  /** Fires when nobody wants the answer any more. A function makes it when somebody first looks. */
  readonly signal: AbortSignal | (() => AbortSignal);
  /** Told of what happens for the sake of this request; whoever watches exchanges gives it. */
  readonly watcher?: RequestWatcher | undefined;
  /** Undefined for a request that no client waits for: its interim answers are nobody's. */
  readonly onInterim?: InterimListener | undefined;
}

/** One request on its way to the origin. Immutable: a plug-in that wants another one makes it by {@link with} and passes it to `next`. */
export class ProxyRequest {
  readonly method: string;
  readonly scheme: 'http' | 'https';
  readonly authority: string;
  readonly target: string;
  readonly headers: HeaderFields;
  readonly body: Readable | null;
  readonly client: ClientInfo;
  #signal: AbortSignal | (() => AbortSignal);
  readonly onInterim: InterimListener | undefined;
  readonly #watcher: RequestWatcher | undefined;

  constructor(parts: ProxyRequestParts) {
    this.method = parts.method;
    this.scheme = parts.scheme;
    this.authority = parts.authority;
    this.target = parts.target;
    this.headers = parts.headers;
    this.body = parts.body;
    this.client = parts.client;
    this.#signal = parts.signal;
    this.#watcher = parts.watcher;
    this.onInterim = parts.onInterim;
  }

  /** Reports what happens for the sake of this request: to the observer of whoever says it, and to whoever watches this exchange. */
  report(observer: Observer, observation: Observation): void {
    observer(observation);
    this.#watcher?.observe(observation);
  }

  /** {@link report} as an observer, for those who are told more than once. */
  observedBy(observer: Observer): Observer {
    return (observation) => this.report(observer, observation);
  }

  /** Fires when nobody wants the answer any more; not made before somebody looks, since most requests never need it. */
  get signal(): AbortSignal {
    if (typeof this.#signal === 'function') this.#signal = this.#signal();
    return this.#signal;
  }

  /** The resource's primary key: scheme, authority and target byte for byte (RFC 9111 2). */
  get key(): string {
    return `${this.scheme}://${this.authority}${this.target}`;
  }

  /** A copy with some parts replaced. */
  with(parts: Partial<ProxyRequestParts>): ProxyRequest {
    const { method, scheme, authority, target, headers, body, client, onInterim } = this;
    return new ProxyRequest({
      method,
      scheme,
      authority,
      target,
      headers,
      body,
      client,
      signal: this.#signal,
      watcher: this.#watcher,
      onInterim,
      ...parts,
    });
  }
}
