/** Answers out of something that can be read anywhere: conditions, ranges, several ranges (RFC 9110 13 to 15). */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ByteRange } from '../../lib/bytes/index.ts';
import {
  fieldValue,
  formatContentRange,
  type HeaderFields,
  ifRangeHolds,
  isNotModified,
  parseRange,
  resolveRanges,
  type Validators,
} from '../../lib/http/index.ts';
import { type ProxyBody, type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';

/** A content whose bytes can be had at any position. */
export interface Deliverable {
  readonly status: number;
  readonly statusText: string | undefined;
  /** Fields of the 200 answer, without those about length and range. */
  readonly head: HeaderFields;
  /** Fields of this answer alone: Age, Cache-Status. */
  readonly fields: HeaderFields;
  readonly validators: Validators;
  /** Undefined while a body without a length is on its way: then it is to be had whole only. */
  readonly length: number | undefined;
  /** Bytes of a range, or all: pieces when they are at hand, else a stream whose first bytes are there. */
  read(range: ByteRange | undefined): ProxyBody | Promise<ProxyBody>;
}

/**
 * Makes the answer to a GET or HEAD.
 *
 * @param conditions whether the client's conditions are ours to answer; false when the origin has just done so
 */
export async function deliver(
  request: ProxyRequest,
  content: Deliverable,
  { conditions = true } = {},
): Promise<ProxyResponse> {
  const { validators, length, status, statusText } = content;
  if (
    conditions &&
    status === 200 &&
    isConditional(request.headers) &&
    isNotModified(request.headers, datedValidators(content))
  ) {
    return new ProxyResponse({ status: 304, headers: answerHead(content, { 'content-type': undefined }), body: null });
  }
  const whole = {
    'accept-ranges': status === 200 ? 'bytes' : undefined,
    'content-length': length === undefined || isBodiless(status) ? undefined : String(length),
  };
  // Range is defined for GET alone (RFC 9110 14.2).
  if (request.method === 'HEAD')
    return new ProxyResponse({ status, statusText, headers: answerHead(content, whole), body: null });
  const rangeField = request.headers['range'];
  const specs =
    rangeField === undefined || status !== 200 ? undefined : parseRange(fieldValue(request.headers, 'range'));
  if (
    specs === undefined ||
    length === undefined ||
    !ifRangeHolds(fieldValue(request.headers, 'if-range'), validators)
  ) {
    const body = isBodiless(status)
      ? null
      : await content.read(length === undefined ? undefined : { offset: 0, length });
    return new ProxyResponse({ status, statusText, headers: answerHead(content, whole), body });
  }
  const ranges = resolveRanges(specs, length);
  const [first] = ranges;
  if (first === undefined) {
    return ProxyResponse.text(416, 'the range lies outside the content', {
      'content-range': formatContentRange(undefined, length),
      'accept-ranges': 'bytes',
    });
  }
  if (ranges.length > 1) return severalRanges(ranges, length, content);
  const part = {
    'accept-ranges': 'bytes',
    'content-range': formatContentRange(first, length),
    'content-length': String(first.length),
  };
  return new ProxyResponse({ status: 206, headers: answerHead(content, part), body: await content.read(first) });
}

/** The fields an answer adds to a cached head; {@link cachedHead} keeps their places free. */
export const ANSWER_FIELDS = ['age', 'cache-status', 'accept-ranges', 'content-length', 'content-range'] as const;

/** Head and additions in one object. Copying a head whose places are there is fifty times cheaper than adding to one. */
function answerHead({ head, fields }: Deliverable, additions: HeaderFields): HeaderFields {
  const answer: Record<string, string | readonly string[] | undefined> = { ...head };
  for (const name in fields) answer[name] = fields[name];
  for (const name in additions) answer[name] = additions[name];
  return answer;
}

/** Without a Last-Modified it is the Date that a client's If-Modified-Since is compared with (RFC 9111 4.3.2). */
function datedValidators({ validators, head }: Deliverable): Validators {
  return validators.lastModified === undefined ? { ...validators, lastModified: fieldValue(head, 'date') } : validators;
}

function isBodiless(status: number): boolean {
  return status === 204 || status === 205 || status === 304;
}

function isConditional(headers: HeaderFields): boolean {
  return headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined;
}

async function severalRanges(
  ranges: readonly ByteRange[],
  contentLength: number,
  content: Deliverable,
): Promise<ProxyResponse> {
  const boundary = randomBytes(12).toString('hex');
  const type = fieldValue(content.head, 'content-type');
  const heads = ranges.map((range, index) =>
    Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\n${type === undefined ? '' : `Content-Type: ${type}\r\n`}` +
        `Content-Range: ${formatContentRange(range, contentLength)}\r\n\r\n`,
      'latin1',
    ),
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1');
  const length = ranges.reduce(
    (sum, range, index) => sum + range.length + (heads[index] as Buffer).byteLength,
    tail.byteLength,
  );
  // The first part is read before the head is given away, so that a failure can still become another answer.
  const first = await content.read(ranges[0]);
  async function* parts(): AsyncGenerator<Uint8Array> {
    for (const [index, range] of ranges.entries()) {
      yield heads[index] as Buffer;
      const body = index === 0 ? first : await content.read(range);
      if (body !== null) yield* body as Iterable<Uint8Array>;
    }
    yield tail;
  }
  const body = Readable.from(parts(), { objectMode: false });
  if (first instanceof Readable) body.once('close', () => first.destroy());
  return new ProxyResponse({
    status: 206,
    headers: answerHead(content, {
      'accept-ranges': 'bytes',
      'content-type': `multipart/byteranges; boundary=${boundary}`,
      'content-length': String(length),
    }),
    body,
  });
}

/**
 * Resolves once a stream has its first bytes or has ended; rejects when it fails before that.
 *
 * @param signal ends the stream while it is being waited for: nobody else would, since nobody reads it yet
 */
export function primed(stream: Readable, signal: AbortSignal): Promise<Readable> {
  return new Promise((resolve, reject) => {
    const leave = (): void => void stream.destroy(signal.reason as Error);
    const settle = (action: () => void): void => {
      signal.removeEventListener('abort', leave);
      stream.off('readable', onReadable);
      stream.off('end', onReadable);
      stream.off('error', onError);
      action();
    };
    const onReadable = (): void => settle(() => resolve(stream));
    const onError = (error: Error): void => settle(() => reject(error));
    // It may fail between now and the moment somebody reads it; whoever reads sees the error all the same.
    stream.on('error', () => {});
    stream.once('readable', onReadable);
    stream.once('end', onReadable);
    stream.once('error', onError);
    signal.addEventListener('abort', leave, { once: true });
    if (signal.aborted) leave();
  });
}
