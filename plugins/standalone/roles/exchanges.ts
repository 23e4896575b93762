/** The exchanges under way in this process, and a line in the log for each that has ended. */
import type { IncomingMessage } from 'node:http';
import type { BlockOrigin, Observation } from '../../../lib/observer.ts';
import { type Download, type Live, MAX_SHOWN, SavedContents } from '../../dashboard/index.ts';
import { type ExchangeEnd, type ExchangeWatch, type ExchangeWatcher, plainAddress } from '../../http-proxy/index.ts';
import type { Log } from './log.ts';

/** Characters of a URL that are kept, as they are logged: a line stays below what a pipe takes at once. */
const MAX_URL_LENGTH = 2048;

export class Exchanges {
  readonly #active = new Set<Following>();
  readonly #log: Log;
  /** Undefined where names are nobody's business. */
  readonly #contents: SavedContents | undefined;

  constructor(log: Log, { showsNames }: { readonly showsNames: boolean }) {
    this.#log = log;
    this.#contents = showsNames ? new SavedContents() : undefined;
  }

  /** For a host's `watch`. */
  readonly watch: ExchangeWatch = (message, exchange) => {
    const following = new Following(message, exchange, this);
    this.#active.add(following);
    return following;
  };

  /** For {@link Following}. */
  end(following: Following, end: ExchangeEnd): void {
    this.#active.delete(following);
    if (this.#log.isAccessLogged) this.#log.request(following.line(end));
    this.#contents?.add(following.url, following.savedBytes);
  }

  /** What is going on, those that have been under way longest. */
  live(): Omit<Live, 'neighbours'> {
    const downloads: Download[] = [];
    for (const following of this.#active) {
      if (downloads.length === MAX_SHOWN) break;
      const { state } = following;
      downloads.push(this.#contents === undefined ? { ...state, url: '' } : state);
    }
    return { downloads, downloadCount: this.#active.size, contents: this.#contents?.top() ?? [] };
  }
}

/** One that is under way. Made for every request: what only some need is made when they do. */
class Following implements ExchangeWatcher {
  readonly #message: IncomingMessage;
  readonly #exchange: { readonly sentBytes: number };
  readonly #all: Exchanges;
  readonly #startedAt = performance.now();
  #length: number | undefined;
  #lookup: string | undefined;
  #from: Partial<Record<BlockOrigin, number>> | undefined;
  #describedBytes = 0;
  #wanBytes = 0;

  constructor(message: IncomingMessage, exchange: { readonly sentBytes: number }, all: Exchanges) {
    this.#message = message;
    this.#exchange = exchange;
    this.#all = all;
  }

  ended(end: ExchangeEnd): void {
    this.#all.end(this, end);
  }

  observe(observation: Observation): void {
    switch (observation.type) {
      case 'delivered': {
        const from = (this.#from ??= {});
        from[observation.source] = (from[observation.source] ?? 0) + observation.bytes;
        return;
      }
      case 'described':
        this.#describedBytes += observation.bytes;
        return;
      case 'wan':
        this.#wanBytes += observation.bytes;
        return;
      case 'lookup':
        this.#lookup = observation.result;
        return;
      default:
    }
  }

  answered(_status: number, length: number | undefined): void {
    this.#length = length;
  }

  get url(): string {
    return printableUrl(this.#message);
  }

  /** What clients got, or were told the hashes of, less what crossed the WAN for it. */
  get savedBytes(): number {
    const delivered = Object.values(this.#from ?? {}).reduce((sum, bytes) => sum + bytes, 0);
    return delivered + this.#describedBytes - this.#wanBytes;
  }

  get state(): Download {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    return { url: this.url, seconds, sentBytes: this.#exchange.sentBytes, length: this.#length };
  }

  line({ status, bytes, seconds, outcome, error }: ExchangeEnd): Parameters<Log['request']>[0] {
    return {
      client: plainAddress(this.#message.socket.remoteAddress),
      method: this.#message.method ?? '',
      url: this.url,
      status,
      bytes,
      seconds: Math.round(seconds * 1e6) / 1e6,
      outcome,
      error,
      lookup: this.#lookup,
      from: this.#from,
      wan: this.#wanBytes === 0 ? undefined : this.#wanBytes,
    };
  }
}

/**
 * What was asked for, without query, fragment and user, in characters that do nothing to a terminal and need no escape in JSON. A path gets the
 * host it was sent to.
 */
export function printableUrl({ url = '', method, headers, socket }: IncomingMessage): string {
  const scheme = 'encrypted' in socket ? 'https' : 'http';
  const whole = url.startsWith('/') && method !== 'CONNECT' ? `${scheme}://${headers.host ?? ''}${url}` : url;
  return whole
    .replace(/[?#].*$/s, '')
    .replace(/^([a-z][a-z\d+.-]*:\/\/|(?!\/))[^/]*@/i, '$1')
    .slice(0, MAX_URL_LENGTH)
    .replace(/[^\x21-\x7e]|["\\]/g, (character) => encodeURIComponent(character))
    .slice(0, MAX_URL_LENGTH);
}
