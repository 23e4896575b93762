/** The calls an application makes to its ServerResponse, in all the forms that Node takes. */
import type { ServerResponse } from 'node:http';

/** `write` and `end` take a chunk, an encoding and a callback, and each of them can be left out. */
export function normalized(args: readonly unknown[]): { chunk: unknown; callback: (() => void) | undefined } {
  const callback = args.find((each) => typeof each === 'function') as (() => void) | undefined;
  const [chunk, encoding] = args;
  if (typeof chunk === 'function') return { chunk: undefined, callback };
  if (typeof chunk !== 'string') return { chunk, callback };
  return { chunk: Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8'), callback };
}

/** @throws {TypeError} for what Node does not take either */
export function bytesOf(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk;
  throw Object.assign(new TypeError('a chunk of an answer must be a string, a Buffer or a Uint8Array'), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
}

/**
 * Puts what `writeHead` was given where `setHeader` and the rest have put theirs. Its fields replace those of the same name; given as a
 * list, one name may have several lines.
 */
export function readHeadArguments(response: ServerResponse, args: readonly unknown[]): void {
  const [status, second, third] = args;
  response.statusCode = status as number;
  if (typeof second === 'string') response.statusMessage = second;
  const fields = (typeof second === 'string' ? third : (third ?? second)) as object | readonly unknown[] | undefined;
  if (fields === undefined || fields === null) return;
  if (!Array.isArray(fields)) {
    for (const [name, value] of Object.entries(fields)) {
      if (name !== '') response.setHeader(name, value as string);
    }
    return;
  }
  const list = pairs(fields);
  for (const [name] of list) if (response.hasHeader(name)) response.removeHeader(name);
  for (const [name, value] of list) response.appendHeader(name, value);
}

/** Names and values, given one after the other or two by two. */
function pairs(fields: readonly unknown[]): (readonly [name: string, value: string])[] {
  if (Array.isArray(fields[0])) return fields as [string, string][];
  return Array.from({ length: fields.length / 2 }, (_, index) => [
    fields[2 * index] as string,
    fields[2 * index + 1] as string,
  ]);
}
