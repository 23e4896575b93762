/** One content the branch can serve: its content information, opened, and the head its origin sent. */
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
import { ANSWER_FIELDS } from './deliver.ts';
import { Freshness } from './freshness.ts';
import { announcedLength, identityHead } from './upstream.ts';

export interface CachedResourceParts {
  readonly handle: ContentHandle;
  /** Bytes of the whole content; the handle may describe a part only. */
  readonly length: number;
  readonly validators: Validators;
  readonly head: HeaderFields;
  readonly freshness: Freshness;
  /** Bytes it costs to keep. */
  readonly bytes: number;
}

/**
 * A content and its open handle, shared by the catalogue and the exchanges that are served from it. Who uses it holds it; the handle closes
 * with the last {@link release}.
 */
export class CachedResource {
  readonly handle: ContentHandle;
  readonly length: number;
  readonly validators: Validators;
  readonly bytes: number;
  /** Fields to answer with; those of a 304 replace them. */
  head: HeaderFields;
  freshness: Freshness;
  /** Whoever opened it is the first. */
  #holders = 1;

  constructor(parts: CachedResourceParts) {
    this.handle = parts.handle;
    this.length = parts.length;
    this.validators = parts.validators;
    this.bytes = parts.bytes;
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
    const head = cachedHead(response.headers);
    return new CachedResource({
      handle,
      length: contentLength(response, range),
      validators,
      head,
      freshness: new Freshness(request, response.headers, clock),
      bytes: encoded.byteLength + 2 * JSON.stringify(head).length + 4096,
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
