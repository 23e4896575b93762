/**
 * What a shared cache may do with an answer (RFC 9111). `http-cache-semantics` decides; what it takes from a head is made unambiguous before
 * ({@link judgedHead}), and what it is silent about is added: stale answers, Authorization, cookies. The warm case has a short way.
 */
import CachePolicy from 'http-cache-semantics';
import type { Clock } from '../../lib/clock.ts';
import { type CacheDirectives, fieldValue, type HeaderFields, parseCacheControl } from '../../lib/http/index.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';
import { judgedHead, judgedStatus, seconds } from './judged-head.ts';

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
  /** Until when others may join it while it is still coming. */
  readonly joinableUntil: number;
  readonly bornAt: number;
  readonly staleAt: number;
  /** Until when it may be given while it is being asked about (RFC 5861 3). */
  readonly revalidatingUntil: number;
  /** Until when it may be given in place of an error (RFC 5861 4). */
  readonly insteadOfErrorUntil: number;
  /** Until when it may be given when the origin cannot be reached (RFC 9111 4.2.4). */
  readonly disconnectedUntil: number;
}

/** An answer, as far as its freshness goes. */
export interface JudgedAnswer {
  /** @default 200 */
  readonly status?: number | undefined;
  readonly headers: HeaderFields;
  /** Milliseconds between asking for it and its head. @default 0 */
  readonly delayMs?: number | undefined;
}

export interface JudgingOptions {
  readonly clock: Clock;
  /** CDN-Cache-Control goes before Cache-Control (RFC 9213). */
  readonly isTargeted: boolean;
}

/** How long an answer is given when its origin cannot be reached, where the origin says nothing of it. Policy, not protocol. */
const DISCONNECTED_MS = 24 * 3600_000;

/** How long others may join a transfer whose origin says nothing of lifetimes. Policy, not protocol. */
const MAX_JOIN_MS = 10 * 60_000;
/** A time that has passed. */
const NEVER = 0;

/** {@link FreshnessRules}, put to requests. */
export class Freshness implements FreshnessRules {
  readonly isStorable: boolean;
  readonly isForbidden: boolean;
  readonly sharesAuthorized: boolean;
  readonly isJoinable: boolean;
  readonly joinableUntil: number;
  readonly bornAt: number;
  readonly staleAt: number;
  readonly revalidatingUntil: number;
  readonly insteadOfErrorUntil: number;
  readonly disconnectedUntil: number;
  readonly #clock: Clock;

  static of(request: ProxyRequest, answer: JudgedAnswer, options: JudgingOptions): Freshness {
    return new Freshness(rulesOf(request, answer, options), options.clock);
  }

  constructor(rules: FreshnessRules, clock: Clock) {
    this.isStorable = rules.isStorable;
    this.isForbidden = rules.isForbidden;
    this.sharesAuthorized = rules.sharesAuthorized;
    this.isJoinable = rules.isJoinable;
    this.joinableUntil = rules.joinableUntil;
    this.bornAt = rules.bornAt;
    this.staleAt = rules.staleAt;
    this.revalidatingUntil = rules.revalidatingUntil;
    this.insteadOfErrorUntil = rules.insteadOfErrorUntil;
    this.disconnectedUntil = rules.disconnectedUntil;
    this.#clock = clock;
  }

  /** As it can be kept. */
  get rules(): FreshnessRules {
    const { isStorable, isForbidden, sharesAuthorized, isJoinable, bornAt, staleAt } = this;
    const { joinableUntil, revalidatingUntil, insteadOfErrorUntil, disconnectedUntil } = this;
    return {
      isStorable,
      isForbidden,
      sharesAuthorized,
      isJoinable,
      joinableUntil,
      bornAt,
      staleAt,
      revalidatingUntil,
      insteadOfErrorUntil,
      disconnectedUntil,
    };
  }

  /** True when this request may have the answer without asking the origin. */
  isFreshFor(headers: HeaderFields): boolean {
    return this.#isGoodFor(headers, this.staleAt);
  }

  /** True when this request may have the answer while the origin is asked. */
  isFreshEnoughFor(headers: HeaderFields): boolean {
    return this.#isGoodFor(headers, this.revalidatingUntil);
  }

  /**
   * True when the request that came meanwhile may have what is still coming.
   *
   * @param isNews it has waited for this answer: it may have it however short it lives
   */
  isJoinableFor(headers: HeaderFields, isNews: boolean): boolean {
    const isInTime = isNews || this.#clock.now() < this.joinableUntil;
    return this.isJoinable && isInTime && this.#isSharedWith(headers) && !asksAnew(headers);
  }

  /** True when this request gets the answer rather than an error. @param isDisconnected the origin gave none at all */
  isBetterThanError(headers: HeaderFields, isDisconnected: boolean): boolean {
    const now = this.#clock.now();
    if (now < this.bornAt || !this.#isSharedWith(headers) || asksAnew(headers)) return false;
    const asked = seconds(parseCacheControl(fieldValue(headers, 'cache-control')).get('stale-if-error'));
    const until = isDisconnected ? this.disconnectedUntil : this.insteadOfErrorUntil;
    // The origin has the last word where it wants to be asked first.
    const widened = asked === undefined || this.disconnectedUntil === NEVER ? until : this.staleAt + asked * 1000;
    return now < Math.max(until, widened);
  }

  /** Seconds for the Age field. */
  get age(): number {
    return Math.max(0, Math.floor((this.#clock.now() - this.bornAt) / 1000));
  }

  #isGoodFor(headers: HeaderFields, until: number): boolean {
    const now = this.#clock.now();
    // The clock has been put back: how old the answer is, nobody knows.
    if (now < this.bornAt) return false;
    if (!this.#isSharedWith(headers)) return false;
    const cacheControl = headers['cache-control'];
    if (cacheControl === undefined && headers['pragma'] === undefined) return now < until;
    return this.#satisfies(parseCacheControl(fieldValue(headers, 'cache-control')), headers, now, until);
  }

  #isSharedWith(headers: HeaderFields): boolean {
    return headers['authorization'] === undefined || this.sharesAuthorized;
  }

  /** Request directives (RFC 9111 5.2.1). max-stale is not honoured: it would let one client keep stale bytes alive for nobody's benefit. */
  #satisfies(directives: CacheDirectives, headers: HeaderFields, now: number, until: number): boolean {
    if (asksAnew(headers, directives)) return false;
    const maxAge = seconds(directives.get('max-age'));
    if (maxAge !== undefined && this.age > maxAge) return false;
    const minFresh = seconds(directives.get('min-fresh'));
    // Who wants so and so much freshness wants no stale answer either.
    return minFresh === undefined ? now < until : now + minFresh * 1000 < this.staleAt;
  }
}

/** True for a request that wants the origin's own word: no-cache, or its ancestor. */
function asksAnew(headers: HeaderFields, parsed?: CacheDirectives): boolean {
  const directives = parsed ?? parseCacheControl(fieldValue(headers, 'cache-control'));
  return directives.has('no-cache') || (directives.size === 0 && /no-cache/i.test(fieldValue(headers, 'pragma') ?? ''));
}

function rulesOf(request: ProxyRequest, answer: JudgedAnswer, { clock, isTargeted }: JudgingOptions): FreshnessRules {
  const { status = 200, headers, delayMs = 0 } = answer;
  const now = clock.now();
  const judged = judgedHead(headers, now, isTargeted);
  const { head, directives, isExplicit, ageSeconds } = judged;
  const policy = new CachePolicy(
    { method: 'GET', url: request.target, headers: request.headers as Record<string, string> },
    { status: judgedStatus(status, judged), headers: head },
    { shared: true },
  );
  const requested = parseCacheControl(fieldValue(request.headers, 'cache-control'));
  const isForbidden = directives.has('no-store') || requested.has('no-store');
  // Cookies are for one user, whatever else the head says.
  const personal = headers['set-cookie'] !== undefined;
  const isStorable = policy.storable() && !isForbidden && !personal && !directives.has('private');
  const mustAsk =
    directives.has('no-cache') ||
    directives.has('must-revalidate') ||
    directives.has('proxy-revalidate') ||
    directives.has('s-maxage');
  const lifetimeMs = Math.min(policy.maxAge() * 1000, MAX_LIFETIME_MS);
  const bornAt = now - Math.min(ageSeconds * 1000 + delayMs, MAX_LIFETIME_MS);
  const staleAt = bornAt + lifetimeMs;
  // Without an explicit lifetime the heuristic is ours: an answer outlives the transfer it is still part of, within reason.
  const outlives = !isExplicit && !mustAsk;
  const whileAsking = seconds(directives.get('stale-while-revalidate')) ?? 0;
  const insteadOfError = seconds(directives.get('stale-if-error'));
  return {
    isForbidden,
    isStorable,
    sharesAuthorized: directives.has('public') || directives.has('s-maxage') || directives.has('must-revalidate'),
    isJoinable: isStorable && !directives.has('no-cache') && (staleAt > now || outlives),
    joinableUntil: outlives ? Math.max(staleAt, now + MAX_JOIN_MS) : staleAt,
    bornAt,
    staleAt,
    revalidatingUntil: mustAsk ? staleAt : staleAt + whileAsking * 1000,
    insteadOfErrorUntil: mustAsk || insteadOfError === undefined ? NEVER : staleAt + insteadOfError * 1000,
    disconnectedUntil: mustAsk
      ? NEVER
      : staleAt + (insteadOfError === undefined ? DISCONNECTED_MS : insteadOfError * 1000),
  };
}

/** Longer than any answer lives; numbers stay exact. */
const MAX_LIFETIME_MS = 100 * 365 * 24 * 3600_000;
