/** Asks a forward proxy for URLs: http as any client does, https through a tunnel that the proxy reads (`tunnel-agent.ts`). */
import { Agent, type IncomingMessage, type OutgoingHttpHeaders, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { PeerDistError } from '../../../lib/errors.ts';
import { formatListen, type ListenAddress } from '../options/units.ts';
import { TunnelAgent } from './tunnel-agent.ts';

/** Redirects followed one after the other. Policy. */
const MAX_REDIRECTS = 5;
/** Kept connections that may turn out to be closed, one after the other. */
const MAX_RETRIES = 8;
/** Of what a proxy says about an answer that is no 200. */
const MAX_EXPLANATION_CHARACTERS = 200;
const RESETS: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE']);
const REDIRECTS: ReadonlySet<number | undefined> = new Set([301, 302, 303, 307, 308]);

export interface ProxyClientOptions {
  readonly proxy: ListenAddress;
  /** Authorities, PEM, of the certificates that the proxy makes of the hosts whose https it reads; undefined where it reads none. */
  readonly proxyCa: string | undefined;
  /** Milliseconds without a byte. */
  readonly timeoutMs: number;
  /** Requests at a time; as many connections are kept. */
  readonly concurrency: number;
  /** Accept-Encoding of every request. */
  readonly acceptEncoding: string;
}

export interface Answer {
  /** Where it came from, after redirects. */
  readonly url: string;
  /** Its body is the caller's to read or to destroy. */
  readonly response: IncomingMessage;
}

export class ProxyClient {
  readonly #options: ProxyClientOptions;
  readonly #plain: Agent;
  readonly #tunnels: TunnelAgent | undefined;

  constructor(options: ProxyClientOptions) {
    const { proxy, proxyCa, timeoutMs, concurrency } = options;
    this.#options = options;
    this.#plain = new Agent({ keepAlive: true, maxFreeSockets: concurrency });
    if (proxyCa !== undefined) this.#tunnels = new TunnelAgent({ proxy, ca: proxyCa, timeoutMs, concurrency });
  }

  /** Closes the connections that are kept. */
  close(): void {
    this.#plain.destroy();
    this.#tunnels?.destroy();
  }

  /**
   * Asks, and follows redirects within the scheme.
   *
   * @param fields of this request, lower-case names
   * @throws {@link PeerDistError} `ERR_PEERDIST_SERVICE_UNAVAILABLE` when nobody listens at the proxy's address, `ERR_PEERDIST_NOT_FOUND`
   * unless the answer is 200, `ERR_PEERDIST_TIMEOUT`, `ERR_PEERDIST_ORIGIN_UNREACHABLE` and `ERR_PEERDIST_ORIGIN_PROTOCOL`
   */
  async get(url: string, fields: OutgoingHttpHeaders, signal: AbortSignal): Promise<Answer> {
    let at = url;
    for (let redirects = 0; ; redirects += 1) {
      const response = await this.#ask(at, fields, signal, MAX_RETRIES);
      if (response.statusCode === 200) return { url: at, response };
      if (!REDIRECTS.has(response.statusCode))
        throw new PeerDistError(
          'ERR_PEERDIST_NOT_FOUND',
          `the answer is ${response.statusCode}${await explanationOf(response)}`,
        );
      response.destroy();
      if (redirects === MAX_REDIRECTS) throw redirected(`more than ${MAX_REDIRECTS} redirects`);
      at = targetOf(response, at);
    }
  }

  #ask(url: string, fields: OutgoingHttpHeaders, signal: AbortSignal, retries: number): Promise<IncomingMessage> {
    const { proxy, timeoutMs, acceptEncoding } = this.#options;
    const { protocol, host, pathname, search } = new URL(url);
    const isSecret = protocol === 'https:';
    if (isSecret && this.#tunnels === undefined)
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_PARAMETER',
        'https goes through the proxy in a tunnel that it cannot keep: it takes a proxy that reads this host, and its authority in --proxy-ca',
      );
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      const headers = { host, accept: '*/*', 'accept-encoding': acceptEncoding, 'user-agent': 'peerdist-preheat' };
      const common = { headers: { ...headers, ...fields }, timeout: timeoutMs, signal };
      const request = isSecret
        ? httpsRequest(url, { ...common, agent: this.#tunnels })
        : httpRequest({ ...common, ...proxy, path: `http://${host}${pathname}${search}`, agent: this.#plain });
      let answer: IncomingMessage | undefined;
      // A request that waits for a tunnel does not hear of it.
      const stop = (): void => reject(signal.reason as Error);
      signal.addEventListener('abort', stop, { once: true });
      request.once('close', () => signal.removeEventListener('abort', stop));
      request.once('response', (response) => {
        answer = response;
        // Whoever reads gets it as well; where nobody does, it is of no interest.
        response.on('error', () => {});
        resolve(response);
      });
      request.once('timeout', () => (answer ?? request).destroy(silent(timeoutMs)));
      request.on('error', (error: NodeJS.ErrnoException) => {
        if (answer !== undefined || signal.aborted) return reject(error);
        if (retries > 0 && request.reusedSocket && RESETS.has(error.code))
          return resolve(this.#ask(url, fields, signal, retries - 1));
        return reject(failure(error, proxy));
      });
      request.end();
    });
  }
}

/** What a connection that gave no answer means. */
function failure(error: NodeJS.ErrnoException, proxy: ListenAddress): PeerDistError {
  if (error instanceof PeerDistError) return error;
  if (error.syscall === 'connect' || error.syscall === 'getaddrinfo')
    return new PeerDistError(
      'ERR_PEERDIST_SERVICE_UNAVAILABLE',
      `no proxy answers at ${formatListen(proxy)}: ${error.code}`,
      { cause: error },
    );
  return new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', `no answer: ${error.message}`, { cause: error });
}

export function silent(timeoutMs: number): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_TIMEOUT', `not a byte for ${timeoutMs / 1000} s`);
}

/** What a proxy says of why it refuses: the first line of a plain text. */
async function explanationOf(response: IncomingMessage): Promise<string> {
  let text = '';
  try {
    if (!/^text\/plain\b/i.test(response.headers['content-type'] ?? '')) return '';
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      if (text.includes('\n') || text.length > MAX_EXPLANATION_CHARACTERS) break;
    }
  } catch {
    // The status says enough.
  } finally {
    response.destroy();
  }
  const [line = ''] = text.slice(0, MAX_EXPLANATION_CHARACTERS).split('\n');
  return line.trim() === '' ? '' : `: ${line.trim()}`;
}

function targetOf({ headers: { location } }: IncomingMessage, from: string): string {
  if (location === undefined || !URL.canParse(location, from)) throw redirected('a redirect to no URL');
  const target = new URL(location, from);
  target.hash = '';
  if (target.protocol !== new URL(from).protocol) throw redirected(`a redirect to ${target.protocol}//${target.host}`);
  return target.href;
}

function redirected(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', message);
}
