/** What the content server remembers of an answer it has published, and the rules for it. */
import {
  addToList,
  canName,
  fieldValue,
  type HeaderFields,
  isPersonal,
  isStrongTag,
  listMembers,
  parseCacheControl,
  sameBytes,
  type Validators,
  validatorsOf,
  varyNames,
} from '../../lib/http/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import { PEERDIST_VARY } from '../../lib/protocol/pccrtp/index.ts';

/** One published state of a resource. */
export interface PublishedResource {
  readonly validators: Validators;
  /** End-to-end fields to send with its content information; those of a later 304 replace them (RFC 9111 4.3.4). */
  head: HeaderFields;
  readonly contentId: string;
  /** Bytes of the identity body. */
  readonly contentLength: number;
}

export function encodeResource({ validators, head, contentId, contentLength }: PublishedResource): Uint8Array {
  return Buffer.from(JSON.stringify({ validators, head, contentId, contentLength } satisfies PublishedResource));
}

/** What {@link encodeResource} has made. @throws {SyntaxError} */
export function decodeResource(bytes: Uint8Array): PublishedResource {
  return JSON.parse(Buffer.from(bytes).toString()) as PublishedResource;
}

/** Fields of one answer that must not be given with another (RFC 9111 3.1 and 3.2), and those the coding replaces. */
const NOT_REMEMBERED = new Set([
  'set-cookie',
  'set-cookie2',
  'www-authenticate',
  'authentication-info',
  'content-digest',
  'repr-digest',
  'digest',
  'content-md5',
  'content-length',
  'content-encoding',
  'content-range',
  'age',
  'via',
  'x-p2p-peerdist',
  'x-p2p-peerdistex',
]);

/** The fields of a 200 or 304 that may be sent again with a later answer. */
export function rememberedFields(headers: HeaderFields): HeaderFields {
  const directives = parseCacheControl(fieldValue(headers, 'cache-control'));
  const restricted = new Set(
    [directives.get('private'), directives.get('no-cache')].flatMap((names) =>
      typeof names === 'string' ? listMembers(names) : [],
    ),
  );
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => !NOT_REMEMBERED.has(name) && !restricted.has(name)),
  );
}

/** True when a coded form of this answer may exist at all: it can be named, may be transformed, and is selected by known fields. */
export function canBeCoded(headers: HeaderFields): boolean {
  return (
    canName(validatorsOf(headers)) &&
    varyNames(headers) !== undefined &&
    !parseCacheControl(fieldValue(headers, 'cache-control')).has('no-transform')
  );
}

/**
 * True when the body of this answer to a GET should be hashed as it passes; its length is checked where it is known.
 * What was made for one user and is named by a date alone cannot be told from another user's, so it is left alone.
 */
export function isPublishable(
  request: ProxyRequest,
  response: ProxyResponse,
  { minBytes, maxBytes }: { minBytes: number; maxBytes: number },
): boolean {
  const { status, headers, body } = response;
  const length = fieldValue(headers, 'content-length');
  return (
    status === 200 &&
    body !== null &&
    canBeCoded(headers) &&
    (headers['etag'] !== undefined || !isPersonal(request.headers)) &&
    headers['content-encoding'] === undefined &&
    !parseCacheControl(fieldValue(headers, 'cache-control')).has('no-store') &&
    (length === undefined || (Number(length) >= minBytes && Number(length) <= maxBytes))
  );
}

/**
 * True when the origin's answer to *this* request says that the published bytes are what the client would get.
 *
 * @param conditional we added the condition; a 304 to the client's own is for the client
 */
export function originAgrees(known: PublishedResource, response: ProxyResponse, conditional: boolean): boolean {
  const validators = validatorsOf(response.headers);
  if (response.status === 304) {
    return (
      conditional &&
      (validators.etag === undefined || (isStrongTag(validators.etag) && validators.etag === known.validators.etag))
    );
  }
  return (
    (response.status === 200 || response.status === 206) &&
    response.headers['content-encoding'] === undefined &&
    isStrongTag(validators.etag) &&
    sameBytes(validators, known.validators)
  );
}

/** The condition that asks the origin whether it still agrees; undefined where an agreement could not be trusted. */
export function agreementCondition(known: PublishedResource, request: ProxyRequest): HeaderFields | undefined {
  const { etag, lastModified } = known.validators;
  if (etag !== undefined) return { 'if-none-match': etag };
  // A date cannot tell one user's page from another's.
  return isPersonal(request.headers) || lastModified === undefined ? undefined : { 'if-modified-since': lastModified };
}

/** The head with the Vary members that every answer of a resource with a coded form needs. */
export function withCodingVary(response: ProxyResponse): ProxyResponse {
  const applies =
    (response.status === 200 || response.status === 206 || response.status === 304) && canBeCoded(response.headers);
  if (!applies) return response;
  return response.with({
    headers: { ...response.headers, vary: addToList(fieldValue(response.headers, 'vary'), PEERDIST_VARY) },
  });
}
