/** One content the branch can serve: its content information, opened, and the head its origin sent. */
import { hash } from 'node:crypto';
import type { ByteRange } from '../../lib/bytes/index.ts';
import type { Clock } from '../../lib/clock.ts';
import { PeerDistError } from '../../lib/errors.ts';
import {
  canName,
  fieldValue,
  type HeaderFields,
  parseContentRange,
  type Validators,
  validatorsOf,
  withoutFields,
} from '../../lib/http/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { ContentHandle, PeerDist } from '../../lib/peerdist/index.ts';
import type { RecordStore } from '../../lib/stores/index.ts';
import { ANSWER_FIELDS } from './deliver.ts';
import { Freshness, type FreshnessRules } from './freshness.ts';
import { announcedLength, identityHead } from './upstream.ts';

export interface CachedResourceParts {
  readonly handle: ContentHandle;
  /** Bytes of the whole content; the handle may describe a part only. */
  readonly length: number;
  readonly validators: Validators;
  readonly head: HeaderFields;
  readonly freshness: Freshness;
  /** Its content information, until that has been kept. */
  readonly encoded: Uint8Array;
}

/**
 * A content and its open handle, shared by the catalogue and the exchanges that are served from it. Who uses it holds it; the handle closes
 * with the last {@link release}.
 */
export class CachedResource {
  readonly handle: ContentHandle;
  readonly length: number;
  readonly validators: Validators;
  /** Bytes it costs to keep. */
  readonly bytes: number;
  /** Name that its content information is kept under. */
  readonly informationName: string;
  /** Its content information, until that has been kept. */
  encoded: Uint8Array | undefined;
  /** Fields to answer with; those of a 304 replace them. */
  head: HeaderFields;
  freshness: Freshness;
  /** Whoever opened it is the first. */
  #holders = 1;

  constructor(parts: CachedResourceParts) {
    this.handle = parts.handle;
    this.length = parts.length;
    this.validators = parts.validators;
    this.bytes = parts.encoded.byteLength + 2 * JSON.stringify(parts.head).length + ENTRY_BYTES;
    this.informationName = `catalogue\n${hash('sha256', parts.encoded, 'hex')}`;
    this.encoded = parts.encoded;
    this.head = parts.head;
    this.freshness = parts.freshness;
  }

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
    if (this.#holders === 0) void this.handle.close();
  }
}

/** Of a resource beside content information and head. */
const ENTRY_BYTES = 4096;
/** Label of everything this plug-in puts into the cache. */
const CONTENT_TAG = Buffer.from('peerdist-branch!', 'latin1');

/** Fields of a 200 that stay true for later answers out of the cache. */
export function cachedHead(headers: HeaderFields): HeaderFields {
  const head: Record<string, string | readonly string[] | undefined> = withoutFields(identityHead(headers), [
    ...ANSWER_FIELDS,
    'content-encoding',
  ]);
  for (const name of ANSWER_FIELDS) head[name] = undefined;
  return { ...head };
}

/**
 * Opens what a coded answer describes; the caller holds it.
 *
 * @param encoded its body
 * @param contentLength bytes of the whole content when this answer describes only a part
 * @throws {@link PeerDistError} when the content information is garbage or contradicts the head it came with
 */
export async function openResource({
  peerdist,
  request,
  response,
  encoded,
  clock,
}: {
  peerdist: PeerDist;
  request: ProxyRequest;
  response: ProxyResponse;
  encoded: Uint8Array;
  clock: Clock;
}): Promise<CachedResource> {
  const handle = await peerdist.client.openContent(CONTENT_TAG);
  try {
    const { range } = await handle.setContentInformation(encoded);
    const validators = validatorsOf(response.headers);
    if (!canName(validators)) throw contradiction('a coded answer without a validator');
    return new CachedResource({
      handle,
      length: contentLength(response, range),
      validators,
      head: cachedHead(response.headers),
      freshness: Freshness.of(request, response.headers, clock),
      encoded,
    });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** What is kept of a resource, as JSON, beside its content information. */
export interface KeptResource {
  readonly informationName: string;
  /** Bytes of the content. */
  readonly contentLength: number;
  readonly head: HeaderFields;
  readonly rules: FreshnessRules;
}

export function encodeResource({ informationName, length, head, freshness }: CachedResource): Uint8Array {
  const { isStorable, isForbidden, sharesAuthorized, isJoinable, bornAt, staleAt } = freshness;
  const rules: FreshnessRules = { isStorable, isForbidden, sharesAuthorized, isJoinable, bornAt, staleAt };
  return Buffer.from(JSON.stringify({ informationName, contentLength: length, head, rules } satisfies KeptResource));
}

/** What {@link encodeResource} has made. @throws {SyntaxError} */
export function parseKeptResource(bytes: Uint8Array): KeptResource {
  return JSON.parse(Buffer.from(bytes).toString()) as KeptResource;
}

/**
 * Opens a resource as {@link encodeResource} made it; the caller holds it.
 *
 * @returns undefined when its content information is not there any more
 * @throws {@link PeerDistError} when what is there cannot be read
 */
export async function decodeResource(
  bytes: Uint8Array,
  { peerdist, records, clock }: { peerdist: PeerDist; records: RecordStore; clock: Clock },
): Promise<CachedResource | undefined> {
  const { informationName, head, rules } = parseKeptResource(bytes);
  const encoded = await records.get(informationName);
  if (encoded === undefined) return undefined;
  const handle = await peerdist.client.openContent(CONTENT_TAG);
  try {
    const { range } = await handle.setContentInformation(encoded);
    return new CachedResource({
      handle,
      length: range.length,
      validators: validatorsOf(head),
      head: cachedHead(head),
      freshness: new Freshness(rules, clock),
      encoded,
    });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

function contentLength(response: ProxyResponse, described: ByteRange): number {
  if (response.status === 206) {
    const range = parseContentRange(fieldValue(response.headers, 'content-range'));
    if (
      range?.total === undefined ||
      range.range.offset !== described.offset ||
      range.range.length !== described.length
    ) {
      throw contradiction('content information of another range');
    }
    return range.total;
  }
  if (described.offset !== 0 || described.length !== announcedLength(response))
    throw contradiction('content information of another length');
  return described.length;
}

function contradiction(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', message, { spec: 'MS-PCCRTP 3.2.5.1' });
}
