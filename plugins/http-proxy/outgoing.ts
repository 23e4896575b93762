/**
 * Requests to origins through a proxy library, so that none of its habits reach the wire.
 *
 * The library is handed an {@link OutgoingRequest} with a bare method and no fields; the real head is written onto the ClientRequest in
 * its `proxyReq` event. Until then the body holds back its first byte and its end, so the head cannot have been sent.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { Clock } from '../../lib/clock.ts';
import { isPeerDistError, PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';
import { endToEndFields } from '../../lib/http/index.ts';
import { type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { Agents } from './access.ts';
import { unreachable } from './errors.ts';
import { bodyTooLarge } from './incoming.ts';
import { connectTarget, type Origin, type ProxyServerLike, type ResolvedTimeouts } from './options.ts';
import type { Upstream } from './upstream.ts';
import { absoluteForm, type Route, sendThrough } from './upstream-way.ts';

export interface OutgoingComponents {
  readonly proxy: ProxyServerLike;
  /** Connections for this client: which pool depends on who asks. */
  readonly agentsFor: (clientAddress: string) => Agents;
  /** Where to connect to whatever the request's Host says; undefined for a forward proxy. */
  readonly fixedOrigin: Origin | undefined;
  readonly maxRequestBytes: number;
  readonly timeouts: ResolvedTimeouts;
  readonly clock: Clock;
  /** The proxy that everything goes through; undefined where requests go to their origins. */
  readonly upstream?: Upstream | undefined;
  /** Refuses a destination that can be seen to be forbidden for this client. */
  readonly checkVisible: (clientAddress: string, hostname: string, port: number) => void;
  readonly observer: Observer;
}

const BODILESS_STATUS = new Set([204, 205, 304]);
/** Repeated once a kept connection turned out to be closed: nothing of these can have happened twice (RFC 9110 9.2.2). */
const REPEATABLE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);
const MAX_REPEATS = 2;
/** Where Node stops telling: 1000 names and values. Whatever came after is lost, and could have been Cache-Control. */
const MAX_RAW_HEADERS = 2000;

/** The origin end of every chain of plug-ins. */
export class Outgoing {
  readonly #components: OutgoingComponents;

  constructor(components: OutgoingComponents) {
    this.#components = components;
    const { proxy } = components;
    proxy.on('proxyReq', (upstream, request) => {
      if (request instanceof OutgoingRequest) request.begin(upstream);
    });
    proxy.on('proxyRes', (response, request) => {
      if (request instanceof OutgoingRequest) request.answer(response);
    });
  }

  /**
   * Sends a request and resolves with the head of its answer.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_ORIGIN_UNREACHABLE`, `_ORIGIN_TIMEOUT`, `_ORIGIN_PROTOCOL`, `_DESTINATION_FORBIDDEN`
   */
  async send(request: ProxyRequest): Promise<ProxyResponse> {
    const { upstream, agentsFor, fixedOrigin, checkVisible, observer } = this.#components;
    const { hostname, port } = connectTarget(fixedOrigin?.authority ?? request.authority, request.scheme);
    const protocol = `${request.scheme}:`;
    const target = { protocol, hostname, host: hostname, port };
    if (upstream !== undefined) {
      checkVisible(request.client.address, hostname, port);
      const answer = await upstream.through(
        () => sendThrough(upstream, request, target, isRepeatable(request), (route) => this.#send(request, route)),
        (observation) => request.report(observer, observation),
      );
      if (answer !== undefined) return answer;
    }
    return this.#send(request, { target, agent: agentsFor(request.client.address)[request.scheme], isAbsolute: false });
  }

  async #send(request: ProxyRequest, route: Route): Promise<ProxyResponse> {
    for (let repeats = 0; ; repeats += 1) {
      if (request.signal.aborted) throw new PeerDistAbortError('signal', request.signal.reason);
      const outgoing = new OutgoingRequest(request, this.#components, route.isAbsolute);
      try {
        return await this.#once(outgoing, route);
      } catch (error) {
        const repeatable = outgoing.usedKeptConnection && isRepeatable(request) && repeats < MAX_REPEATS;
        if (!repeatable || !isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_UNREACHABLE')) throw error;
      }
    }
  }

  #once(outgoing: OutgoingRequest, { target, agent }: Route): Promise<ProxyResponse> {
    const { proxy } = this.#components;
    const options = {
      target,
      agent,
      ignorePath: true,
      prependPath: false,
      selfHandleResponse: true,
    };
    try {
      proxy.web(outgoing as never, outgoing.placeholder as never, options, (error) => outgoing.fail(error));
    } catch (error) {
      outgoing.fail(error);
    }
    return outgoing.response;
  }
}

/** What the library takes for the client's request; also the owner of the origin connection while it is in use. */
class OutgoingRequest extends Readable {
  // Read by the library.
  readonly method: string;
  readonly url = '/';
  readonly headers = {};
  readonly httpVersion = '1.1';
  readonly socket = { destroyed: false };
  readonly connection = this.socket;
  /** What the library takes for the response: it never writes to it. */
  readonly placeholder = { headersSent: false, finished: false, on() {}, once() {}, emit() {} };

  readonly response: Promise<ProxyResponse>;
  readonly #request: ProxyRequest;
  readonly #timeouts: ResolvedTimeouts;
  readonly #maxRequestBytes: number;
  readonly #clock: Clock;
  readonly #isAbsolute: boolean;
  #sentBytes = 0;
  #resolve!: (response: ProxyResponse) => void;
  #reject!: (error: unknown) => void;
  #upstream: ClientRequest | undefined;
  #incoming: IncomingMessage | undefined;
  #cancelTimer: (() => void) | undefined;
  #failure: unknown;

  constructor(request: ProxyRequest, { timeouts, maxRequestBytes, clock }: OutgoingComponents, isAbsolute: boolean) {
    super({ highWaterMark: 256 * 1024 });
    this.#isAbsolute = isAbsolute;
    this.#request = request;
    this.#timeouts = timeouts;
    this.#maxRequestBytes = maxRequestBytes;
    this.#clock = clock;
    this.method = request.method;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#startTimer(timeouts.connectMs, 'the origin could not be connected to in time');
    request.signal.addEventListener('abort', this.#leave, { once: true });
  }

  get usedKeptConnection(): boolean {
    return this.#upstream?.reusedSocket === true && this.#incoming === undefined;
  }

  /** The connection is there (or being made) and nothing is sent yet: writes the head, then lets the body flow. */
  begin(upstream: ClientRequest): void {
    this.#upstream = upstream;
    if (this.#failure !== undefined) {
      upstream.destroy();
      return;
    }
    const socket = upstream.socket;
    const connected = 'encrypted' in (socket ?? {}) ? 'secureConnect' : 'connect';
    if (socket?.connecting === true) socket.once(connected, () => this.#cancelTimer?.());
    else this.#cancelTimer?.();
    upstream.on('information', ({ statusCode, headers }) => {
      // 100 is for us: we have asked for it, or answered it, ourselves.
      if (statusCode > 101) this.#request.onInterim?.(statusCode, endToEndFields(headers));
    });
    upstream.once('upgrade', () =>
      this.fail(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin switched protocols unasked')),
    );
    upstream.once('close', () => {
      if (this.#incoming === undefined)
        this.fail(
          new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin closed the connection without an answer'),
        );
    });
    upstream.once('finish', () => {
      if (this.#incoming === undefined) this.#startTimer(this.#timeouts.headMs, 'the origin did not answer in time');
    });
    upstream.on('timeout', () => this.#idle());
    upstream.setTimeout(this.#timeouts.idleMs);
    try {
      this.#writeHead(upstream);
      this.#sendBody();
    } catch (error) {
      this.fail(error);
    }
  }

  answer(incoming: IncomingMessage): void {
    this.#cancelTimer?.();
    this.#incoming = incoming;
    incoming.once('close', () => this.#request.signal.removeEventListener('abort', this.#leave));
    if (incoming.rawHeaders.length >= MAX_RAW_HEADERS) {
      this.fail(new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin sent too many header fields'));
      return;
    }
    const headers = endToEndFields(incoming.headers);
    const status = incoming.statusCode ?? 502;
    const bodiless = this.#request.method === 'HEAD' || BODILESS_STATUS.has(status);
    if (bodiless) incoming.resume();
    this.#resolve(
      new ProxyResponse({ status, statusText: incoming.statusMessage, headers, body: bodiless ? null : incoming }),
    );
  }

  /** Ends the attempt. After the head it is the body stream that carries the error. */
  fail(cause: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = cause;
    this.#cancelTimer?.();
    this.#request.signal.removeEventListener('abort', this.#leave);
    this.#reject(isPeerDistError(cause) ? cause : unreachable('the origin', cause));
    // What has come whole is the client's, whatever follows it: Node would drop it together with the request.
    if (this.#incoming?.complete !== true) this.#upstream?.destroy();
    if (this.#incoming !== undefined && !this.#incoming.complete) this.#incoming.destroy(cause as Error);
    this.destroy();
  }

  override _read(): void {
    // Before there is a connection nobody takes what the client sends, and it would be lost.
    if (this.#upstream !== undefined) this.#request.body?.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#request.body?.removeListener('data', this.#onData);
    callback(error);
  }

  readonly #leave = (): void => this.fail(new PeerDistAbortError('signal', this.#request.signal.reason));

  readonly #onData = (chunk: Uint8Array): void => {
    this.#sentBytes += chunk.byteLength;
    if (this.#sentBytes > this.#maxRequestBytes) this.fail(bodyTooLarge(this.#maxRequestBytes));
    else if (!this.push(chunk)) this.#request.body?.pause();
  };

  #writeHead(upstream: ClientRequest): void {
    const { method, target, headers, body, authority } = this.#request;
    // Node checks the path it is given at first, and this is not that one.
    if (/[^\x21-\xff]/.test(target)) throw new PeerDistError('ERR_PEERDIST_BAD_REQUEST', 'malformed request target');
    upstream.path = this.#isAbsolute ? absoluteForm(this.#request) : target;
    for (const name of upstream.getHeaderNames()) upstream.removeHeader(name);
    upstream.setHeader('host', authority);
    for (const name in headers) {
      const value = headers[name];
      if (value !== undefined && name !== 'content-length') upstream.setHeader(name, value);
    }
    const length = headers['content-length'];
    if (body === null) {
      // A method that usually has a body must say that it has none; others say nothing.
      if (method === 'POST' || method === 'PUT' || method === 'PATCH') upstream.setHeader('content-length', '0');
    } else if (typeof length === 'string') upstream.setHeader('content-length', String(Number(length)));
    else upstream.setHeader('transfer-encoding', 'chunked');
  }

  #sendBody(): void {
    const { body } = this.#request;
    if (body === null) {
      this.push(null);
      return;
    }
    body.on('data', this.#onData);
    body.once('end', () => this.push(null));
    body.once('error', (error) => this.fail(error));
    body.once('close', () => {
      if (!body.readableEnded) this.fail(new PeerDistAbortError('signal'));
    });
  }

  #startTimer(ms: number, message: string): void {
    this.#cancelTimer?.();
    this.#cancelTimer =
      ms === 0
        ? undefined
        : this.#clock.after(ms, () => this.fail(new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', message)));
  }

  /** Silence is the origin's fault only while we are ready to read. */
  #idle(): void {
    const waitingForClient = this.#incoming !== undefined && this.#incoming.readableLength > 0;
    if (waitingForClient) this.#upstream?.setTimeout(this.#timeouts.idleMs);
    else this.fail(new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the origin fell silent'));
  }
}

function isRepeatable({ body, method }: ProxyRequest): boolean {
  return body === null && REPEATABLE.has(method);
}
