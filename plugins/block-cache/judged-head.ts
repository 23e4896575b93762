/** The fields that decide over freshness, read strictly: what is malformed never makes an answer live longer. */
import { type CacheDirectives, fieldValue, type HeaderFields, parseCacheControl } from '../../lib/http/index.ts';

export interface JudgedHead {
  /** As `http-cache-semantics` gets it: one meaning for each field. */
  readonly head: Record<string, string>;
  readonly directives: CacheDirectives;
  /** True when the origin said how long the answer lives, in whatever way. */
  readonly isExplicit: boolean;
  /** The Age the answer came with. What its Date says is left alone: clocks differ more often than answers come without an Age. */
  readonly ageSeconds: number;
}

/** RFC 9111 1.2.2: larger numbers mean this one. */
const MAX_SECONDS = 2 ** 31;
const LIFETIMES = new Set(['max-age', 's-maxage']);
/** Final status codes whose meaning is known (RFC 9110 15), apart from those about conditions and ranges, which are never kept as they are. */
const UNDERSTOOD = new Set([
  200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 417,
  421, 422, 426, 429, 451, 500, 501, 502, 503, 504, 505,
]);
const NEVER_KEPT = new Set([206, 304, 412, 416]);

/**
 * The status as `http-cache-semantics` gets it: it keeps what it has heard of, where RFC 9111 3 wants no more than an explicit lifetime, unless the
 * origin says must-understand.
 */
export function judgedStatus(status: number, { directives, isExplicit }: JudgedHead): number {
  if (status < 200 || status > 599 || NEVER_KEPT.has(status)) return 0;
  if (directives.has('must-understand') && !UNDERSTOOD.has(status)) return 0;
  return isExplicit || directives.has('public') ? 200 : status;
}

/** @param isTargeted a valid CDN-Cache-Control replaces Cache-Control and Expires (RFC 9213 2.2) */
export function judgedHead(headers: HeaderFields, now: number, isTargeted: boolean): JudgedHead {
  const targeted = isTargeted ? targetedDirectives(fieldValue(headers, 'cdn-cache-control')) : undefined;
  const directives = new Map(targeted ?? parseCacheControl(fieldValue(headers, 'cache-control')));
  // Who understands the status need not heed what is meant for those who do not (RFC 9111 5.2.2.3).
  if (directives.has('must-understand')) directives.delete('no-store');
  const head: Record<string, string> = {};
  for (const name of ['vary', 'last-modified', 'etag', 'pragma']) {
    const value = fieldValue(headers, name);
    if (value !== undefined) head[name] = value;
  }
  // Pragma counts in answers only by custom, and not beside Cache-Control.
  if (directives.size > 0) delete head['pragma'];
  const date = parseDate(single(headers['date']), now) ?? now;
  head['date'] = new Date(date).toUTCString();
  const expires = targeted === undefined ? headers['expires'] : undefined;
  if (expires !== undefined) head['expires'] = expiresValue(single(expires), date, now);
  head['cache-control'] = [...directives]
    .map(([name, value]) => (LIFETIMES.has(name) ? `${name}=${seconds(value) ?? 0}` : directive(name, value)))
    .join(', ');
  const isExplicit = directives.has('max-age') || directives.has('s-maxage') || expires !== undefined;
  return { head, directives, isExplicit, ageSeconds: ageOf(headers['age']) };
}

/** Delta-seconds (RFC 9111 1.2.2): digits and nothing else; undefined for anything else. */
export function seconds(value: string | true | undefined): number | undefined {
  return typeof value === 'string' && /^\d+$/.test(value) ? Math.min(Number(value), MAX_SECONDS) : undefined;
}

/** HTTP dates (RFC 9110 5.6.7): the one format for senders and the two obsolete ones. Undefined for anything else, however readable. */
function parseDate(value: string | undefined, now: number): number | undefined {
  const [, day, month, year, clock] =
    IMF_DATE.exec(value ?? '') ?? RFC_850_DATE.exec(value ?? '') ?? reordered(ASCTIME_DATE.exec(value ?? ''));
  if (day === undefined) return undefined;
  const time = Date.parse(`${day} ${month} ${year} ${clock} GMT`);
  if (Number.isNaN(time) || year?.length === 4) return Number.isNaN(time) ? undefined : time;
  // Two digits that would lie more than 50 years ahead are of the century before.
  const thisYear = new Date(now).getUTCFullYear();
  const century = thisYear - (thisYear % 100) + Number(year);
  return Date.parse(`${day} ${month} ${century > thisYear + 50 ? century - 100 : century} ${clock} GMT`);
}

const IMF_DATE = /^[a-z]{3}, (\d\d) ([a-z]{3}) (\d{4}) (\d\d:\d\d:\d\d) gmt$/i;
const RFC_850_DATE = /^[a-z]{6,9}, (\d\d)-([a-z]{3})-(\d\d) (\d\d:\d\d:\d\d) gmt$/i;
const ASCTIME_DATE = /^[a-z]{3} ([a-z]{3}) ([ \d]\d) (\d\d:\d\d:\d\d) (\d{4})$/i;

function reordered(match: RegExpExecArray | null): readonly (string | undefined)[] {
  const [whole, month, day, clock, year] = match ?? [];
  return [whole, day, month, year, clock];
}

/** RFC 9111 4.2.1: an invalid date, `0` above all, lies in the past. */
function expiresValue(value: string | undefined, date: number, now: number): string {
  const time = parseDate(value, now);
  return new Date(time === undefined ? date - 1000 : time).toUTCString();
}

/** The first value of Age; one that is no number is none (RFC 9111 5.1). */
function ageOf(value: string | readonly string[] | undefined): number {
  const first = (typeof value === 'string' ? value : value?.[0])?.split(',')[0]?.trim();
  return seconds(first) ?? 0;
}

/** A field that may occur once; several lines are none. */
function single(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.length === 1 ? value[0] : undefined;
}

function directive(name: string, value: string | true): string {
  // A quoted list of field names would be cut at its commas.
  return value === true || value.includes(',') ? name : `${name}=${value}`;
}

/** Directives of a structured field (RFC 9213 2.1); undefined where it is none, and is then ignored. */
function targetedDirectives(value: string | undefined): CacheDirectives | undefined {
  if (value === undefined || value.trim() === '') return undefined;
  for (const member of value.split(',')) {
    const match = /^\s*([a-z*][a-z0-9_.*-]*)(?:=(.+?))?\s*$/i.exec(member);
    if (match === null) return undefined;
    const [, name = '', text] = match;
    const isNumber = LIFETIMES.has(name.toLowerCase());
    if (isNumber ? text === undefined || !/^\d+(?:;.*)?$/.test(text) : text !== undefined && !ITEM.test(text))
      return undefined;
  }
  return parseCacheControl(value);
}

/** An item of a structured field: number, string, token, bytes or boolean, with parameters (RFC 8941 3.3). */
const ITEM = /^(?:-?\d+(?:\.\d+)?|"[^"]*"|[a-z*][\w!#$%&'*+.^`|~:/-]*|:[\w+/=]*:|\?[01])(?:;.*)?$/i;
