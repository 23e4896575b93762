/** What sibling proxies ask each other, before it is sealed. A format of our own: both ends are of this package. */
import { fromHex, toHex } from '../../bytes/index.ts';
import { isPeerDistError } from '../../errors.ts';
import { type HeaderFields, isStrongTag, validatorsOf } from '../../http/index.ts';
import { decodeContentInformation } from '../../protocol/pccrc/index.ts';

/** What is asked about: a resource, and what of the request may select one of its answers. */
export interface SiblingQuestion {
  /** Scheme, authority and target. */
  readonly key: string;
  readonly headers: HeaderFields;
}

/** What a sibling knows of a whole content. */
export interface SiblingEntry {
  /** Fields of the 200 it had, a strong ETag among them. */
  readonly head: HeaderFields;
  /** Bytes of the content. */
  readonly length: number;
  /** Of all of it, encoded. */
  readonly contentInformation: Uint8Array;
}

/** Where a sibling takes questions, beside the blocks it gives to peers. */
export const SIBLING_PATH = '/peerdist/siblings/1';
/** Bytes of a sealed question: a long URL and the fields of a request. Policy. */
export const MAX_QUESTION_BYTES = 32 * 1024;
/** Bytes of a sealed answer: content information of 4 GiB and more. What is larger is not asked of siblings. Policy. */
export const MAX_ANSWER_BYTES = 4 * 1024 * 1024;
/** Bytes of a nonce: an answer is good for its question alone. */
const NONCE_BYTES = 16;
/** Fields of a head. Policy. */
const MAX_FIELDS = 256;
const LENGTH_BYTES = 4;

const TOKEN = /^[a-z0-9!#$%&'*+.^_`|~-]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** A question and its nonce in one message, JSON. */
export function encodeQuestion({ key, headers }: SiblingQuestion, nonce: Uint8Array): Uint8Array {
  return Buffer.from(JSON.stringify({ nonce: toHex(nonce), key, headers }));
}

/** @returns undefined for what {@link encodeQuestion} cannot have made */
export function decodeQuestion(bytes: Uint8Array): (SiblingQuestion & { readonly nonce: Uint8Array }) | undefined {
  const { nonce, key, headers } = parse(bytes) ?? {};
  const fields = readFields(headers);
  if (typeof nonce !== 'string' || nonce.length !== 2 * NONCE_BYTES || !/^[\da-f]+$/.test(nonce)) return undefined;
  if (typeof key !== 'string' || fields === undefined) return undefined;
  return { nonce: fromHex(nonce), key, headers: fields };
}

/** Length of the head, the head as JSON, content information; nothing at all where nothing is known. */
export function encodeAnswer(entry: SiblingEntry | undefined): Uint8Array {
  if (entry === undefined) return new Uint8Array(0);
  const head = Buffer.from(JSON.stringify({ head: entry.head, length: entry.length }));
  const size = Buffer.alloc(LENGTH_BYTES);
  size.writeUInt32BE(head.byteLength);
  return Buffer.concat([size, head, entry.contentInformation]);
}

/**
 * Reads an answer and looks whether it agrees with itself.
 *
 * @returns undefined where nothing is known; `nonsense` for what no honest sibling says
 */
export function decodeAnswer(bytes: Uint8Array): SiblingEntry | undefined | 'nonsense' {
  if (bytes.byteLength === 0) return undefined;
  if (bytes.byteLength < LENGTH_BYTES) return 'nonsense';
  const headEnd = LENGTH_BYTES + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  if (headEnd > bytes.byteLength) return 'nonsense';
  const { head, length } = parse(bytes.subarray(LENGTH_BYTES, headEnd)) ?? {};
  const fields = readFields(head);
  if (fields === undefined || !isStrongTag(validatorsOf(fields).etag)) return 'nonsense';
  if (typeof length !== 'number' || !Number.isSafeInteger(length)) return 'nonsense';
  const contentInformation = bytes.subarray(headEnd);
  return describes(contentInformation, length) ? { head: fields, length, contentInformation } : 'nonsense';
}

/** Whether this is content information of a whole content of that length. */
function describes(contentInformation: Uint8Array, length: number): boolean {
  try {
    const { range } = decodeContentInformation(contentInformation);
    return range.offset === 0 && range.length === length;
  } catch (error) {
    if (!isPeerDistError(error)) throw error;
    return false;
  }
}

function parse(bytes: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  try {
    const value = JSON.parse(Buffer.from(bytes).toString()) as unknown;
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Fields that can be passed on as they are; undefined when one of them cannot. */
function readFields(value: unknown): HeaderFields | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const entries = Object.entries(value as Record<string, unknown>);
  if (entries.length > MAX_FIELDS) return undefined;
  const fields: Record<string, string | readonly string[]> = {};
  for (const [name, lines] of entries) {
    const all: readonly unknown[] = Array.isArray(lines) ? lines : [lines];
    // JSON can name a property that is none of a plain object's own.
    if (!TOKEN.test(name) || name === '__proto__' || all.length > MAX_FIELDS) return undefined;
    if (!all.every((line) => typeof line === 'string' && VALUE.test(line))) return undefined;
    fields[name] = lines as string | readonly string[];
  }
  return fields;
}
