import type { IncomingMessage } from 'node:http';
import { endToEndFields, type HeaderFields } from '../../lib/http/index.ts';
import { ProxyRequest } from '../../lib/kit/index.ts';
import { PEERDIST_HEADER } from '../../lib/protocol/pccrtp/index.ts';
import { plainAddress } from '../http-proxy/index.ts';
import { withIfRangeDate } from './file-tags.ts';

/** True for a request whose answer may be coded, and which can be put to the application twice: GET and HEAD without a body. */
export function isReadOnly(message: IncomingMessage): boolean {
  const { method, headers } = message;
  const length = headers['content-length'];
  return (
    (method === 'GET' || method === 'HEAD') &&
    message.httpVersionMajor === 1 &&
    headers['transfer-encoding'] === undefined &&
    headers.upgrade === undefined &&
    (length === undefined || length === '0')
  );
}

/** One request of a client, as the kit sees it, and as the kit wants the application to see it. */
export class ApplicationRequest {
  readonly proxied: ProxyRequest;
  /** True when the client knows of BranchCache: then it hears of tags that it can name content by. */
  readonly speaksPeerDist: boolean;
  readonly #message: IncomingMessage;
  readonly #headers: IncomingMessage['headers'];
  readonly #rawHeaders: string[];

  constructor(message: IncomingMessage, signal: () => AbortSignal) {
    this.#message = message;
    this.#headers = message.headers;
    this.#rawHeaders = message.rawHeaders;
    this.speaksPeerDist = message.headers[PEERDIST_HEADER] !== undefined;
    this.proxied = new ProxyRequest({
      method: message.method ?? 'GET',
      scheme: 'encrypted' in message.socket ? 'https' : 'http',
      authority: (message.headers.host ?? '').toLowerCase(),
      target: (message as { originalUrl?: string }).originalUrl ?? message.url ?? '/',
      headers: endToEndFields(message.headers, 'host'),
      body: null,
      client: { address: plainAddress(message.socket.remoteAddress), httpVersion: message.httpVersion },
      signal,
    });
  }

  /** Lets the application see these fields instead of the client's; those of the connection stay as they are. */
  show(fields: HeaderFields): void {
    const shown = this.speaksPeerDist ? withIfRangeDate(fields) : fields;
    const own = this.proxied.headers;
    const changed = [...new Set([...Object.keys(own), ...Object.keys(shown)])].filter(
      (name) => own[name] !== shown[name],
    );
    if (changed.length === 0) return this.restore();
    const headers: Record<string, string | string[] | undefined> = { ...this.#headers };
    const raw: string[] = [];
    for (let index = 0; index < this.#rawHeaders.length; index += 2) {
      const name = this.#rawHeaders[index] as string;
      if (!changed.includes(name.toLowerCase())) raw.push(name, this.#rawHeaders[index + 1] as string);
    }
    for (const name of changed) {
      delete headers[name];
      const value = shown[name];
      if (value === undefined) continue;
      headers[name] = typeof value === 'string' ? value : [...value];
      for (const line of typeof value === 'string' ? [value] : value) raw.push(name, line);
    }
    return this.#set(headers, raw);
  }

  /** Lets the application see what the client has sent. */
  restore(): void {
    if (this.#message.headers !== this.#headers) this.#set(this.#headers, this.#rawHeaders);
  }

  #set(headers: IncomingMessage['headers'], rawHeaders: string[]): void {
    this.#message.headers = headers;
    this.#message.rawHeaders = rawHeaders;
    // Node makes it of the raw ones when somebody asks.
    Object.assign(this.#message, { headersDistinct: undefined });
  }
}
