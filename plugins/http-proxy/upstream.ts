/** The proxy that every request goes through: whether it is there, and what becomes of a request when it is not. */
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Observation } from '../../lib/observer.ts';
import { connectTarget, parseOrigin } from './options.ts';
import { fingerprintOf, UpstreamAway, UpstreamLink } from './upstream-link.ts';

export interface UpstreamOptions {
  /** `http://host:port` or `https://host:port` of a forward proxy. */
  readonly url: string;
  /** SHA-256 fingerprints of its certificate, with or without colons. With one that matches no authority is needed. @default none */
  readonly pins?: readonly string[] | undefined;
  /** Authorities of its certificate, PEM. @default those of Node, or none with `pins` */
  readonly ca?: string | undefined;
  /** Our certificate and key for it, PEM. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** What a request does when the proxy cannot be connected to. One that is not trusted, or refuses us, is not away. @default 'direct' */
  readonly whenAway?: 'direct' | 'refuse' | undefined;
  /** Told in a line when it goes away, comes back, or is not to be used. */
  readonly warn?: ((line: string) => void) | undefined;
}

/** Milliseconds in which nobody tries again what could not be connected to; then one request does, and the others go on without it. Policy. */
export const AWAY_MS = 5_000;

/** A request was repeatable and the connection broke before the answer: it may go another way. */
export class UpstreamBroke extends Error {
  override readonly name = 'UpstreamBroke';
}

export class Upstream {
  readonly hostname: string;
  readonly port: number;
  readonly link: UpstreamLink;
  readonly #url: string;
  readonly #clock: Clock;
  readonly #goesDirect: boolean;
  readonly #warn: (line: string) => void;
  /** Undefined while it is there, as far as is known. */
  #retryAt: number | undefined;
  #isProbed = false;
  #complaint: string | undefined;

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
  constructor(
    { url, pins = [], ca, cert, key, whenAway = 'direct', warn = () => {} }: UpstreamOptions,
    rest: {
      readonly originCa: string | undefined;
      readonly viaName: string;
      readonly headMs: number;
      readonly clock: Clock;
    },
  ) {
    const { scheme, authority } = parseOrigin(url);
    const { hostname, port } = connectTarget(authority, scheme);
    const isTls = scheme === 'https';
    if (!isTls && (pins.length > 0 || [ca, cert, key].some((each) => each !== undefined)))
      throw invalid('certificates and pins of an upstream proxy need an https URL');
    if ((cert === undefined) !== (key === undefined))
      throw invalid('certificate and key for an upstream proxy belong together');
    for (const pin of pins)
      if (!/^[0-9a-f]{64}$/.test(fingerprintOf(pin))) throw invalid(`not a SHA-256 fingerprint: ${pin}`);
    this.hostname = hostname;
    this.port = port;
    this.#url = `${scheme}://${authority}`;
    this.#clock = rest.clock;
    this.#goesDirect = whenAway === 'direct';
    this.#warn = warn;
    const { headMs, ...others } = rest;
    const options = { hostname, port, isTls, pins: pins.map(fingerprintOf), ca, cert, key, ...others };
    this.link = new UpstreamLink(options, headMs, () => this.#isThere());
  }

  /** What does not work, in words; undefined when all does. */
  get trouble(): string | undefined {
    if (this.#complaint !== undefined) return this.#complaint;
    return this.#retryAt === undefined ? undefined : `the upstream proxy ${this.#url} is away`;
  }

  close(): void {
    this.link.destroy();
  }

  /**
   * Goes through the proxy, if it is there.
   *
   * @param act sends the request; may be called once
   * @returns undefined when the request is to go direct
   * @throws what `act` throws, and {@link PeerDistError} `ERR_PEERDIST_ORIGIN_UNREACHABLE` when it is away and nothing goes direct
   */
  async through<T>(act: () => Promise<T>, report: (observation: Observation) => void): Promise<T | undefined> {
    if (this.#retryAt !== undefined && (this.#isProbed || this.#clock.now() < this.#retryAt))
      return this.#aside(new UpstreamAway('as found before'), report);
    const isProbe = this.#retryAt !== undefined;
    if (isProbe) this.#isProbed = true;
    try {
      const result = await act();
      this.#isThere();
      this.#complaint = undefined;
      report({ type: 'upstream', result: 'used' });
      return result;
    } catch (error) {
      if (error instanceof UpstreamAway) this.#isAway(error.reason);
      if (error instanceof UpstreamAway || error instanceof UpstreamBroke) return this.#aside(error, report);
      const isRefusal = isPeerDistError(error, 'ERR_PEERDIST_UPSTREAM_REFUSED');
      if (isRefusal) this.#refuses(error.message);
      report({ type: 'upstream', result: isRefusal ? 'refused' : 'used' });
      throw error;
    } finally {
      if (isProbe) this.#isProbed = false;
    }
  }

  #aside(error: UpstreamAway | UpstreamBroke, report: (observation: Observation) => void): undefined {
    report({ type: 'upstream', result: this.#goesDirect ? 'direct' : 'refused' });
    if (this.#goesDirect) return undefined;
    throw error instanceof UpstreamAway ? error : new UpstreamAway('the connection broke', error);
  }

  #isAway(reason: string): void {
    const isNews = this.#retryAt === undefined;
    this.#retryAt = this.#clock.now() + AWAY_MS;
    const consequence = this.#goesDirect ? 'requests go direct' : 'requests are refused';
    if (isNews) this.#warn(`the upstream proxy ${this.#url} is away (${reason}); ${consequence}`);
  }

  #isThere(): void {
    if (this.#retryAt !== undefined) this.#warn(`the upstream proxy ${this.#url} is there again`);
    this.#retryAt = undefined;
  }

  /** Said once, not for each request; and not taken back by a connection, which may come before the refusal. */
  #refuses(message: string): void {
    if (this.#complaint !== message) this.#warn(`${message} (${this.#url})`);
    this.#complaint = message;
  }
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
