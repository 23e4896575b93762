/** What a shared cache may do with an answer (RFC 9111), as `http-cache-semantics` sees it, with a short way for the warm case. */
import CachePolicy from 'http-cache-semantics';
import type { Clock } from '../../lib/clock.ts';
import { type CacheDirectives, fieldValue, type HeaderFields, parseCacheControl } from '../../lib/http/index.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';

/** The rules of one answer to one request, as they can be kept. Times in milliseconds since 1970. */
export interface FreshnessRules {
  /** True when a shared cache may keep the answer for later requests (RFC 9111 3). */
  readonly isStorable: boolean;
  /** True when not even its blocks may be kept. */
  readonly isForbidden: boolean;
  /** True when requests with Authorization may share it (RFC 9111 3.5). */
  readonly sharesAuthorized: boolean;
  /** True when a request that was waiting while the answer came may have it too. */
  readonly isJoinable: boolean;
  readonly bornAt: number;
  readonly staleAt: number;
}

/** {@link FreshnessRules}, put to requests. */
export class Freshness implements FreshnessRules {
  readonly isStorable: boolean;
  readonly isForbidden: boolean;
  readonly sharesAuthorized: boolean;
  readonly isJoinable: boolean;
  readonly bornAt: number;
  readonly staleAt: number;
  readonly #clock: Clock;

  static of(request: ProxyRequest, head: HeaderFields, clock: Clock): Freshness {
    return new Freshness(rulesOf(request, head, clock.now()), clock);
  }

  constructor(rules: FreshnessRules, clock: Clock) {
    this.isStorable = rules.isStorable;
    this.isForbidden = rules.isForbidden;
    this.sharesAuthorized = rules.sharesAuthorized;
    this.isJoinable = rules.isJoinable;
    this.bornAt = rules.bornAt;
    this.staleAt = rules.staleAt;
    this.#clock = clock;
  }

  /** True when this request may have the answer without asking the origin. */
  isFreshFor(headers: HeaderFields): boolean {
    const now = this.#clock.now();
    // The clock has been put back: how old the answer is, nobody knows.
    if (now < this.bornAt) return false;
    if (headers['authorization'] !== undefined && !this.sharesAuthorized) return false;
    const cacheControl = headers['cache-control'];
    if (cacheControl === undefined && headers['pragma'] === undefined) return now < this.staleAt;
    return this.#satisfies(parseCacheControl(fieldValue(headers, 'cache-control')), headers, now);
  }

  /** Seconds for the Age field. */
  get age(): number {
    return Math.max(0, Math.floor((this.#clock.now() - this.bornAt) / 1000));
  }

  /** Request directives (RFC 9111 5.2.1). max-stale is not honoured: it would let one client keep stale bytes alive for nobody's benefit. */
  #satisfies(directives: CacheDirectives, headers: HeaderFields, now: number): boolean {
    if (directives.has('no-cache')) return false;
    if (directives.size === 0 && /no-cache/i.test(fieldValue(headers, 'pragma') ?? '')) return false;
    const maxAge = directives.get('max-age');
    if (typeof maxAge === 'string' && this.age > Number(maxAge)) return false;
    const minFresh = directives.get('min-fresh');
    return now + (typeof minFresh === 'string' ? Number(minFresh) * 1000 : 0) < this.staleAt;
  }
}

function rulesOf(request: ProxyRequest, head: HeaderFields, now: number): FreshnessRules {
  const directives = parseCacheControl(fieldValue(head, 'cache-control'));
  const policy = new CachePolicy(
    { method: 'GET', url: request.target, headers: request.headers as Record<string, string> },
    { status: 200, headers: head as Record<string, string> },
    { shared: true },
  );
  const requested = parseCacheControl(fieldValue(request.headers, 'cache-control'));
  const isForbidden = directives.has('no-store') || requested.has('no-store');
  // Cookies are for one user, whatever else the head says.
  const personal = head['set-cookie'] !== undefined && !directives.has('public') && !directives.has('s-maxage');
  const isStorable = policy.storable() && !isForbidden && !personal;
  const explicit = directives.has('max-age') || directives.has('s-maxage') || head['expires'] !== undefined;
  const mustAsk = directives.has('no-cache') || directives.has('must-revalidate') || directives.has('proxy-revalidate');
  return {
    isForbidden,
    isStorable,
    sharesAuthorized: directives.has('public') || directives.has('s-maxage') || directives.has('must-revalidate'),
    // Without an explicit lifetime the heuristic is ours: an answer outlives the transfer it is still part of.
    isJoinable: isStorable && !directives.has('no-cache') && (policy.timeToLive() > 0 || (!explicit && !mustAsk)),
    bornAt: now - policy.age() * 1000,
    staleAt: now + policy.timeToLive(),
  };
}
