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
const LIFETIMES = ['max-age', 's-maxage'];

/** @param isTargeted a valid CDN-Cache-Control replaces Cache-Control and Expires (RFC 9213 2.2) */
export function judgedHead(headers: HeaderFields, now: number, isTargeted: boolean): JudgedHead {
  const targeted = isTargeted ? targetedDirectives(fieldValue(headers, 'cdn-cache-control')) : undefined;
  const directives = targeted ?? parseCacheControl(fieldValue(headers, 'cache-control'));
  const head: Record<string, string> = {};
  for (const name of ['vary', 'last-modified', 'etag', 'pragma']) {
    const value = fieldValue(headers, name);
    if (value !== undefined) head[name] = value;
  }
  // Pragma counts in answers only by custom, and not beside Cache-Control.
  if (directives.size > 0) delete head['pragma'];
  const date = parseDate(single(headers['date'])) ?? now;
  head['date'] = new Date(date).toUTCString();
  const expires = targeted === undefined ? headers['expires'] : undefined;
  if (expires !== undefined) head['expires'] = expiresValue(single(expires), date);
  head['cache-control'] = [...directives]
    .map(([name, value]) => (LIFETIMES.includes(name) ? `${name}=${seconds(value) ?? 0}` : directive(name, value)))
    .join(', ');
  const isExplicit = directives.has('max-age') || directives.has('s-maxage') || expires !== undefined;
  return { head, directives, isExplicit, ageSeconds: ageOf(headers['age']) };
}

/** Delta-seconds (RFC 9111 1.2.2): digits and nothing else; undefined for anything else. */
export function seconds(value: string | true | undefined): number | undefined {
  return typeof value === 'string' && /^\d+$/.test(value) ? Math.min(Number(value), MAX_SECONDS) : undefined;
}

/** HTTP dates (RFC 9110 5.6.7): the one format for senders and the two obsolete ones. Undefined for anything else, however readable. */
export function parseDate(value: string | undefined): number | undefined {
  if (value === undefined || !DATES.some((format) => format.test(value))) return undefined;
  const time = Date.parse(/gmt$/i.test(value) ? value : `${value} GMT`);
  return Number.isNaN(time) ? undefined : time;
}

const DATES = [
  /^[a-z]{3}, \d\d [a-z]{3} \d{4} \d\d:\d\d:\d\d gmt$/i,
  /^[a-z]{6,9}, \d\d-[a-z]{3}-\d\d \d\d:\d\d:\d\d gmt$/i,
  /^[a-z]{3} [a-z]{3} [ \d]\d \d\d:\d\d:\d\d \d{4}$/i,
];

/** RFC 9111 4.2.1: an invalid date, `0` above all, lies in the past. */
function expiresValue(value: string | undefined, date: number): string {
  const time = parseDate(value);
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
    const isNumber = LIFETIMES.includes(name.toLowerCase());
    if (isNumber ? text === undefined || !/^\d+(?:;.*)?$/.test(text) : text !== undefined && !ITEM.test(text)) return undefined;
  }
  return parseCacheControl(value);
}

/** An item of a structured field: number, string, token, bytes or boolean, with parameters (RFC 8941 3.3). */
const ITEM = /^(?:-?\d+(?:\.\d+)?|"[^"]*"|[a-z*][\w!#$%&'*+.^`|~:/-]*|:[\w+/=]*:|\?[01])(?:;.*)?$/i;
