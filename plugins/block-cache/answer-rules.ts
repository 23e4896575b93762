/** What can be said of an answer of the origin, and of the request it answers, by looking at them. */
import type { ByteRange } from '../../lib/bytes/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  fieldValue,
  formatSpec,
  type HeaderFields,
  parseContentRange,
  parseRange,
  sameBytes,
  validatorsOf,
} from '../../lib/http/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { cachedHead, CachedResource } from './cached-resource.ts';
import type { Freshness } from './freshness.ts';
import { knowsPeerDist } from './upstream.ts';

/** What is known of an answer whose content is about to come; the caller holds it. */
export function resourceOf(
  response: ProxyResponse,
  freshness: Freshness,
  length: number | undefined,
  clock: Clock,
): CachedResource {
  const { status, statusText, headers } = response;
  const head = {
    ...cachedHead(headers),
    // Who has a clock dates what comes undated (RFC 9110 6.6.1).
    date: headers['date'] ?? new Date(clock.now()).toUTCString(),
    // It has no meaning outside of a 206, and is passed on like any other field that has none.
    ...(status === 206 ? {} : { 'content-range': headers['content-range'] }),
  };
  return new CachedResource({
    // A part is a part of a 200 (RFC 9111 3.3).
    status: status === 206 ? 200 : status,
    statusText: status === 206 ? undefined : statusText,
    validators: validatorsOf(headers),
    head,
    freshness,
    length,
    isPlain: !knowsPeerDist(response),
  });
}

/** The range of the content that an answer's body is; undefined for a whole one of unknown length. */
export function bodyRange({ status, headers }: ProxyResponse): ByteRange | undefined | 'contradiction' {
  const field = fieldValue(headers, 'content-length');
  if (field !== undefined && !/^\d{1,15}$/.test(field)) return 'contradiction';
  const length = field === undefined ? undefined : Number(field);
  if (status !== 206) return length === undefined ? undefined : { offset: 0, length };
  // Several parts in one body, or a head that contradicts itself.
  const range = parseContentRange(fieldValue(headers, 'content-range'))?.range;
  return range === undefined || (length !== undefined && length !== range.length) ? 'contradiction' : range;
}

/** Whether an answer brings bytes of what is known: the same state, in the same coding. */
export function isSameState(known: CachedResource, { headers }: ProxyResponse, total: number | undefined): boolean {
  return (
    known.length === total &&
    sameBytes(validatorsOf(headers), known.validators) &&
    fieldValue(headers, 'content-encoding') === known.contentCoding
  );
}

/** Errors of the origin and the way to it, rather than of the client or ourselves. */
export function isOriginFailure(error: unknown): boolean {
  return (
    isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_UNREACHABLE') ||
    isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_TIMEOUT') ||
    isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_PROTOCOL')
  );
}

/** True for an answer that says what the resource is now. */
export function replaces({ status }: ProxyResponse): boolean {
  return (status >= 200 && status < 300) || status === 404 || status === 410;
}

/** Weak comparison (RFC 9110 8.8.3.2). */
export function isSameTag(a: string, b: string | undefined): boolean {
  return b !== undefined && a.replace(/^W\//, '') === b.replace(/^W\//, '');
}

/** Fields of a 304 that take the place of stored ones; those that describe the bytes do not (RFC 9111 3.2). */
export function updatedFields(headers: HeaderFields, stale: CachedResource): HeaderFields {
  const { 'content-encoding': _, etag, ...fields } = cachedHead(headers);
  return { ...fields, etag: stale.validators.etag ?? etag };
}

export function rangeCount({ headers }: ProxyRequest): number {
  return headers['range'] === undefined ? 0 : (parseRange(fieldValue(headers, 'range'))?.length ?? 0);
}

/**
 * Several ranges are put together here: the answer to one tells what the others are parts of. It is one that lies inside of the content if any does: a
 * suffix, or the one that begins first.
 */
export function oneRangeOnly(request: ProxyRequest): ProxyRequest {
  const specs = parseRange(fieldValue(request.headers, 'range')) ?? [];
  const suffix = specs.find(({ first, last }) => first === undefined && last !== 0);
  const one = suffix ?? specs.toSorted((a, b) => (a.first ?? Infinity) - (b.first ?? Infinity))[0];
  return request.with({ headers: { ...request.headers, range: one && formatSpec(one) } });
}

/** An origin that ignored a range sends everything, and so do we. */
export function withoutRange(request: ProxyRequest): ProxyRequest {
  return request.headers['range'] === undefined
    ? request
    : request.with({ headers: { ...request.headers, range: undefined } });
}
