/** Entity tags, dates and the conditions made of them (RFC 9110 8.8 and 13). */
import { fieldValue, type HeaderFields } from './fields.ts';

/** What identifies one state of a resource. */
export interface Validators {
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
}

/** The validators of an answer's head. */
export function validatorsOf(headers: HeaderFields): Validators {
  return { etag: fieldValue(headers, 'etag'), lastModified: fieldValue(headers, 'last-modified') };
}

const STRONG = /^"[\x21\x23-\x7e\x80-\xff]*"$/;

/** True for a well-formed entity tag that is not weak. */
export function isStrongTag(etag: string | undefined): etag is string {
  return etag !== undefined && STRONG.test(etag);
}

/**
 * True when the content can be named by what the origin sent: a strong ETag, or no ETag and a Last-Modified.
 * A weak tag says that bytes may differ under the same name; nothing can be published under it.
 */
export function canName(validators: Validators): boolean {
  return validators.etag === undefined ? validators.lastModified !== undefined : isStrongTag(validators.etag);
}

/** True when both surely name the same bytes: equal strong tags, or no tags and the same date. */
export function sameBytes(a: Validators, b: Validators): boolean {
  if (a.etag !== undefined || b.etag !== undefined) return isStrongTag(a.etag) && a.etag === b.etag;
  return a.lastModified !== undefined && a.lastModified === b.lastModified;
}

/** The value for If-Range that makes the origin refuse to mix old and new bytes. */
export function ifRangeValue(validators: Validators): string | undefined {
  return isStrongTag(validators.etag) ? validators.etag : validators.lastModified;
}

/** If-Range (RFC 9110 13.1.5): strong comparison of tags, exact comparison of dates. No field always holds. */
export function ifRangeHolds(value: string | undefined, validators: Validators): boolean {
  if (value === undefined) return true;
  return value.includes('"') ? isStrongTag(value) && value === validators.etag : value === validators.lastModified;
}

/** Names of the request fields that make a request conditional; If-Range is apart, it only matters with Range. */
export const CONDITION_FIELDS = ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since'] as const;

/** True for requests whose answers may be for one user, whatever their origin forgets to say: a date cannot tell one user's page from another's. */
export function isPersonal(headers: HeaderFields): boolean {
  return headers['authorization'] !== undefined || headers['cookie'] !== undefined;
}

/** True when the client sent conditions of its own. */
export function hasConditions(headers: HeaderFields): boolean {
  return CONDITION_FIELDS.some((name) => headers[name] !== undefined);
}

/** True when a cache that holds this answer may say 304 (RFC 9111 4.3.2): If-None-Match first, else If-Modified-Since. */
export function isNotModified(request: HeaderFields, validators: Validators): boolean {
  const ifNoneMatch = fieldValue(request, 'if-none-match');
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch.trim() === '*') return true;
    const opaque = validators.etag?.replace(/^W\//, '');
    const tags = ifNoneMatch.match(/(?:W\/)?"[^"]*"/g) ?? [];
    return opaque !== undefined && tags.some((tag) => tag.replace(/^W\//, '') === opaque);
  }
  const since = Date.parse(fieldValue(request, 'if-modified-since') ?? '');
  return since >= Date.parse(validators.lastModified ?? '');
}
