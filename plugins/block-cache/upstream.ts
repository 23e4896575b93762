/** The requests the branch makes in its own name, and what it makes of their answers (MS-PCCRTP 3.1). */
import type { ByteRange } from '../../lib/bytes/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import {
  addPeerDist,
  CONDITION_FIELDS,
  fieldValue,
  formatRange,
  type HeaderFields,
  ifRangeValue,
  listMembers,
  parseCacheControl,
  parseContentRange,
  removeFromList,
  sameBytes,
  type Validators,
  validatorsOf,
  withoutFields,
} from '../../lib/http/index.ts';
import type { Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import {
  formatPeerDist,
  formatPeerDistEx,
  parsePeerDist,
  parsePeerDistEx,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
} from '../../lib/protocol/pccrtp/index.ts';

const VERSION = { major: 1, minor: 1 };
/** Fields of a client's request that our own requests do without. */
const NOT_OURS = [...CONDITION_FIELDS, 'if-range', 'range', 'content-length', 'content-type'];
const CODING_FIELDS = [PEERDIST_HEADER, PEERDIST_EX_HEADER];

/**
 * The client's request, ready for content information too. Adds to its Accept-Encoding, removes nothing.
 *
 * @param isHashRequest says that waiting for it is worth while
 */
export function askForContentInformation(request: ProxyRequest, max: 1 | 2, isHashRequest = false): ProxyRequest {
  return request.with({
    headers: {
      ...request.headers,
      'accept-encoding': addPeerDist(fieldValue(request.headers, 'accept-encoding')),
      [PEERDIST_HEADER]: formatPeerDist({ version: VERSION }),
      [PEERDIST_EX_HEADER]: formatPeerDistEx(max, { hashRequest: isHashRequest }),
    },
  });
}

/** A GET for the content information of the whole content, after the origin said MakeHashRequest or to a range request. */
export function hashRequest(request: ProxyRequest, max: 1 | 2, signal: AbortSignal): ProxyRequest {
  return ownRequest(request, signal, {
    [PEERDIST_HEADER]: formatPeerDist({ version: VERSION }),
    [PEERDIST_EX_HEADER]: formatPeerDistEx(max, { hashRequest: true }),
  });
}

/**
 * Our own GET with the client's end-to-end fields, but none of its conditions, ranges and codings. What it says of caches has been heeded already,
 * but for no-store: the validators of what we ask for tell whether it is the right one.
 */
export function ownRequest(request: ProxyRequest, signal: AbortSignal, fields: HeaderFields): ProxyRequest {
  const isSecret = parseCacheControl(fieldValue(request.headers, 'cache-control')).has('no-store');
  const left = isSecret ? NOT_OURS : [...NOT_OURS, 'cache-control', 'pragma'];
  return request.with({
    method: 'GET',
    body: null,
    signal,
    onInterim: undefined,
    headers: {
      ...withoutFields(request.headers, left),
      'accept-encoding': 'identity',
      ...fields,
    },
  });
}

/** True for an answer whose body is content information. */
export function isCoded(response: ProxyResponse): boolean {
  return fieldValue(response.headers, 'content-encoding')?.trim().toLowerCase() === 'peerdist';
}

/** True when the origin is hashing this body and wants to be asked again. */
export function isHashPromised(response: ProxyResponse): boolean {
  return parsePeerDistEx(fieldValue(response.headers, PEERDIST_EX_HEADER))?.makeHashRequest === true;
}

/** True for an answer of an origin that speaks peerdist, whatever form this one has: it varies by our request fields. */
export function knowsPeerDist(response: ProxyResponse): boolean {
  return listMembers(fieldValue(response.headers, 'vary')).includes(PEERDIST_HEADER);
}

/** Length of the identity body that a coded answer announces. */
export function announcedLength(response: ProxyResponse): number | undefined {
  return parsePeerDist(fieldValue(response.headers, PEERDIST_HEADER))?.contentLength;
}

/** The head without any trace of the coding, as if the origin knew nothing of it. */
export function identityHead(headers: HeaderFields): HeaderFields {
  const vary = removeFromList(fieldValue(headers, 'vary'), CODING_FIELDS);
  const { vary: _, ...rest } = withoutFields(headers, CODING_FIELDS);
  return vary === undefined ? rest : { ...rest, vary };
}

/** The response without any trace of the coding. */
export function withoutCoding(response: ProxyResponse): ProxyResponse {
  return response.with({ headers: identityHead(response.headers) });
}

/**
 * Fetches a range of the plain body for blocks nobody else has. The validator goes along, so that a content that has changed is
 * refused by the origin and noticed here; whatever comes is hashed by the broker before anybody gets it.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_ORIGIN_CHANGED`, `ERR_PEERDIST_ORIGIN_PROTOCOL`, and what `next` throws
 */
export async function fetchMissingData(
  {
    request,
    next,
    validators,
    contentLength,
    contentCoding,
    observer,
    signal,
  }: {
    request: ProxyRequest;
    next: Next;
    validators: Validators;
    contentLength: number;
    /** Content-Encoding of the bytes wanted. */
    contentCoding: string | undefined;
    observer: Observer;
    signal: AbortSignal;
  },
  missing: ByteRange,
): Promise<AsyncIterable<Uint8Array>> {
  const condition = ifRangeValue(validators);
  const response = await next(
    ownRequest(request, signal, {
      range: formatRange(missing),
      ...(contentCoding === undefined ? {} : { 'accept-encoding': request.headers['accept-encoding'] }),
      ...(condition === undefined ? {} : { 'if-range': condition }),
      [PEERDIST_HEADER]: formatPeerDist({ version: VERSION, missingDataRequest: true }),
    }),
  );
  try {
    checkMissingData(response, { validators, contentLength, contentCoding }, missing);
  } catch (error) {
    response.discard();
    throw error;
  }
  return counted(response, observer);
}

/** What bytes of a content have to agree with. */
export interface PartOf {
  readonly validators: Validators;
  readonly contentLength: number;
  /** Content-Encoding of the bytes wanted. */
  readonly contentCoding: string | undefined;
}

/**
 * Which bytes of a content an answer brings.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_ORIGIN_CHANGED` when they are of another state, `ERR_PEERDIST_ORIGIN_PROTOCOL` when they are of no use
 */
export function rangeOfPart(
  { status, headers }: ProxyResponse,
  { validators, contentLength, contentCoding }: PartOf,
): ByteRange {
  if (status === 412 || status === 416 || status === 404 || status === 410) throw changed();
  if (status !== 206 && status !== 200)
    throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin refused a part', { actual: status });
  const now = validatorsOf(headers);
  if ((now.etag !== undefined || now.lastModified !== undefined) && !sameBytes(now, validators)) throw changed();
  if (fieldValue(headers, 'content-encoding') !== contentCoding)
    throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin encoded a part otherwise');
  if (status === 200) return { offset: 0, length: contentLength };
  const part = parseContentRange(fieldValue(headers, 'content-range'));
  if (part?.total !== undefined && part.total !== contentLength) throw changed();
  if (part === undefined) throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin answered no range');
  return part.range;
}

function checkMissingData(response: ProxyResponse, content: PartOf, missing: ByteRange): void {
  const range = rangeOfPart(response, content);
  // An origin without ranges is of use only where everything is missing.
  if (range.offset === missing.offset && range.length === missing.length) return;
  throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin answered another range', {
    expected: missing,
    actual: range,
  });
}

/** The error of a content that is another one by now. */
export function changed(): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ORIGIN_CHANGED', 'the content changed at the origin');
}

async function* counted(response: ProxyResponse, observer: Observer): AsyncGenerator<Uint8Array> {
  for await (const chunk of response.stream() as AsyncIterable<Uint8Array>) {
    observer({ type: 'wan', kind: 'missing_data', bytes: chunk.byteLength });
    yield chunk;
  }
}

/**
 * Reads a body that must be small.
 *
 * @param mayTake asked about each chunk: whether there is room for it beside the others that are being read
 * @throws {@link PeerDistError} `ERR_PEERDIST_LIMIT` as soon as it is not, or there is no room
 */
export async function readSmallBody(
  response: ProxyResponse,
  maxBytes: number,
  mayTake: (bytes: number) => boolean = () => true,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.stream() as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes || !mayTake(chunk.byteLength))
      throw new PeerDistError('ERR_PEERDIST_LIMIT', 'content information is larger than the limit', {
        expected: maxBytes,
      });
    chunks.push(chunk);
  }
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole;
}
