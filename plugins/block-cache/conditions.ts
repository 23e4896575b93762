/** What the origin is asked with about a state that is known here, and perhaps another one that the client knows. */
import { fieldValue, hasConditions, type HeaderFields, isPersonal } from '../../lib/http/index.ts';
import type { ProxyRequest } from '../../lib/kit/index.ts';
import type { CachedResource } from './cached-resource.ts';

/** Whose condition a 304 answers. */
export type Whose = 'ours' | 'theirs' | 'both';

/** The condition to ask with about what is known; undefined where it is the client's own. */
export function conditionsFor(
  { validators: { etag, lastModified } }: CachedResource,
  { headers }: ProxyRequest,
): { readonly fields: HeaderFields; readonly whose: Whose } | undefined {
  if (!hasConditions(headers)) {
    if (etag !== undefined) return { fields: { 'if-none-match': etag }, whose: 'ours' };
    // A date cannot tell one user's page from another's.
    if (lastModified === undefined || isPersonal(headers)) return { fields: {}, whose: 'ours' };
    return { fields: { 'if-modified-since': lastModified }, whose: 'ours' };
  }
  // The client has another state than we, and the origin may still have ours (RFC 9111 4.3.1).
  const theirs = fieldValue(headers, 'if-none-match');
  const isForOrigin = headers['if-match'] !== undefined || headers['if-unmodified-since'] !== undefined;
  if (theirs === undefined || etag === undefined || isForOrigin || theirs.trim() === '*' || theirs.includes(etag))
    return undefined;
  return { fields: { 'if-none-match': `${theirs}, ${etag}` }, whose: 'both' };
}
