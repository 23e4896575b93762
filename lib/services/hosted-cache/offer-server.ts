import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import { TLSSocket } from 'node:tls';
import { isPeerDistError } from '../../errors.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import {
  decodeOffer,
  encodeOfferResponse,
  MAX_OFFER_BYTES,
  OFFER_VERSIONS,
  V1_OFFER_PATH,
  V2_OFFER_PATH,
} from '../../protocol/pchc/index.ts';
import { unmappedAddress } from '../address.ts';
import { readBody } from '../http-body.ts';
import type { HostedCache } from './hosted-cache.ts';

/**
 * Says whether a client may offer over HTTPS: undefined = yes, else the challenge to put into WWW-Authenticate of a 401 (MS-PCHC 2.1).
 * It sees the head of the request, and by its socket the client's certificate.
 */
export type OfferAuthentication = (request: IncomingMessage) => string | undefined | Promise<string | undefined>;

export interface OfferServerOptions {
  /** Who decides about offers. */
  readonly cache: Pick<HostedCache, 'offer'>;
  /** Asked about version 1 offers, the only ones that can carry credentials. @default everybody may offer */
  readonly authenticate?: OfferAuthentication | undefined;
  readonly observer?: Observer | undefined;
}

/** Takes offers over HTTP (version 2) and HTTPS (version 1), to be mounted on any server of either: call {@link handle} for each request. */
export class OfferServer {
  readonly #cache: Pick<HostedCache, 'offer'>;
  readonly #authenticate: OfferAuthentication | undefined;
  readonly #observer: Observer;

  constructor({ cache, authenticate, observer = ignoreObservations }: OfferServerOptions) {
    this.#cache = cache;
    this.#authenticate = authenticate;
    this.#observer = observer;
  }

  /** Answers a request to the path of its transport. @returns false, and leaves the request alone, when it is to another */
  handle(request: IncomingMessage, response: ServerResponse): boolean {
    const version = request.socket instanceof TLSSocket ? 1 : 2;
    if (!isPath(request.url, version === 1 ? V1_OFFER_PATH : V2_OFFER_PATH)) return false;
    // Read before anything is waited for: of a connection that has ended nobody can tell any more, and an offer of nobody means this machine.
    const from = unmappedAddress(request.socket.remoteAddress ?? '');
    if (isIP(from) === 0) request.destroy();
    else void this.#serve(request, response, version, from).catch(() => response.destroy());
    return true;
  }

  async #serve(request: IncomingMessage, response: ServerResponse, version: 1 | 2, from: string): Promise<void> {
    if (request.method !== 'POST') return this.#refuse(request, response, 405);
    const challenge = version === 1 ? await this.#authenticate?.(request) : undefined;
    if (challenge !== undefined) {
      this.#observer({ type: 'offer', result: 'unauthorized' });
      request.resume();
      response.writeHead(401, { 'www-authenticate': challenge, 'content-length': 0 }).end();
      return undefined;
    }
    const body = await readBody(request, MAX_OFFER_BYTES);
    if (body === undefined) return this.#refuse(request, response, 413);
    try {
      const offer = decodeOffer(body);
      if (OFFER_VERSIONS[offer.type] !== version) return this.#refuse(request, response, 400);
      const answer = encodeOfferResponse(await this.#cache.offer(offer, from));
      response
        .writeHead(200, { 'content-length': answer.byteLength, 'content-type': 'application/octet-stream' })
        .end(answer);
    } catch (error) {
      if (!isPeerDistError(error, 'ERR_PEERDIST_MALFORMED_MESSAGE')) throw error;
      this.#refuse(request, response, 400);
    }
    return undefined;
  }

  #refuse(request: IncomingMessage, response: ServerResponse, status: number): void {
    this.#observer({ type: 'offer', result: 'malformed' });
    request.resume();
    response.writeHead(status, { 'content-length': 0, connection: 'close' }).end();
  }
}

/** With and without the last slash: the specification writes none, Microsoft's client sends it. */
function isPath(target: string | undefined, path: string): boolean {
  const wanted = path.toUpperCase();
  const given = target?.toUpperCase();
  return given === wanted || given === wanted.slice(0, -1);
}
