/**
 * Entity tags of files, as `send` makes them for Express and Fastify: `W/"size-mtime"`, both in hexadecimal, the time in milliseconds.
 *
 * They are called weak, and nothing can be published under a weak tag. But one that agrees with the length and the date of its answer says
 * more than the date alone, which is a validator in its own right: it is taken for a strong one.
 */
import { fieldValue, type HeaderFields, parseContentRange } from '../../lib/http/index.ts';

/** From 1978 on; shorter times could be the sizes in tags of other makes. */
const FILE_TAG = /^(?:W\/)?("([0-9a-f]{1,13})-([0-9a-f]{10,11})")$/;

/**
 * The strong form of the tag of an answer whose weak one names a file, undefined for any other answer.
 *
 * @param status 200, 206 or 304: others say nothing about the file
 */
export function strongFileTag(status: number, headers: HeaderFields): string | undefined {
  const etag = fieldValue(headers, 'etag');
  if (etag?.startsWith('W/') !== true || headers['content-encoding'] !== undefined) return undefined;
  const [, strong, size = '', time = ''] = FILE_TAG.exec(etag) ?? [];
  const seconds = Math.floor(Number.parseInt(time, 16) / 1000);
  if (seconds * 1000 !== Date.parse(fieldValue(headers, 'last-modified') ?? '')) return undefined;
  return status === 304 || fileBytes(status, headers) === Number.parseInt(size, 16) ? strong : undefined;
}

/**
 * The request with a condition on a part that the application can check: it has never heard of the strong form, and a weak tag never
 * holds in If-Range, but the date in it does. Whoever asks sees by the tag of the answer what it is a part of.
 */
export function withIfRangeDate(headers: HeaderFields): HeaderFields {
  const condition = fieldValue(headers, 'if-range');
  const [, strong, , time = ''] = FILE_TAG.exec(condition ?? '') ?? [];
  if (condition === undefined || condition !== strong) return headers;
  return { ...headers, 'if-range': new Date(Number.parseInt(time, 16)).toUTCString() };
}

/** Bytes of the whole file that an answer is about. */
function fileBytes(status: number, headers: HeaderFields): number | undefined {
  if (status === 206) return parseContentRange(fieldValue(headers, 'content-range'))?.total;
  return status === 200 ? Number(fieldValue(headers, 'content-length') ?? Number.NaN) : undefined;
}
