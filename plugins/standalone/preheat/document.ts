/** Documents that say what is to be preheated: read through the proxy, unpacked and limited as they come. */
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { formatBytes } from '../options/units.ts';
import type { ProxyClient } from './proxy-client.ts';

/** How sources ask. */
export interface Reading {
  readonly client: ProxyClient;
  readonly signal: AbortSignal;
  /** Told before each document. */
  readonly onDocument: (url: string) => void;
}

export interface Document {
  /** Where it came from, after redirects. */
  readonly url: string;
  /** To be read once, or ended by `return()`. */
  readonly body: AsyncGenerator<Uint8Array, void>;
}

/** Caches ask whether they have the newest: a list that does not fit what it lists is of no use. */
const NEWEST = { 'accept-encoding': 'identity', 'cache-control': 'no-cache' };

/**
 * @param maxBytes as it is sent
 * @throws {@link PeerDistError} as {@link ProxyClient.get} does, and the body `ERR_PEERDIST_LIMIT` and `ERR_PEERDIST_ORIGIN_UNREACHABLE`
 */
export async function openDocument(
  url: string,
  maxBytes: number,
  { client, signal, onDocument }: Reading,
): Promise<Document> {
  onDocument(url);
  const answer = await client.get(url, NEWEST, signal);
  return { url: answer.url, body: limited(answer.response as AsyncIterable<Uint8Array>, maxBytes, signal) };
}

/** The bytes, of gzip those that are packed in it. @throws {@link PeerDistError} `ERR_PEERDIST_LIMIT`, `ERR_PEERDIST_ORIGIN_PROTOCOL` */
export async function* unpacked(
  body: AsyncGenerator<Uint8Array, void>,
  maxBytes: number,
): AsyncGenerator<Uint8Array, void> {
  try {
    let head: Uint8Array = new Uint8Array();
    while (head.byteLength < 2) {
      const next = await body.next();
      if (next.done === true) break;
      head = Buffer.concat([head, next.value]);
    }
    const whole = chain(head, body);
    const isPacked = head[0] === 0x1f && head[1] === 0x8b;
    // Its errors come out where it is read.
    const plain = isPacked ? pipeline(Readable.from(whole), createGunzip(), () => {}) : whole;
    let bytes = 0;
    for await (const chunk of plain as AsyncIterable<Uint8Array>) {
      bytes += chunk.byteLength;
      if (bytes > maxBytes) throw tooLong(maxBytes, 'unpacked');
      yield chunk;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith('Z_') !== true) throw error;
    throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'not whole gzip', { cause: error });
  } finally {
    // Not waited for: it may be waiting for bytes.
    body.return().catch(() => {});
  }
}

/** All of it as text. @throws {@link PeerDistError} as {@link unpacked} does */
export async function textOf(body: AsyncGenerator<Uint8Array, void>, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of unpacked(body, maxBytes)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function* chain(head: Uint8Array, rest: AsyncGenerator<Uint8Array, void>): AsyncGenerator<Uint8Array, void> {
  yield head;
  yield* rest;
}

async function* limited(
  response: AsyncIterable<Uint8Array>,
  maxBytes: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  let bytes = 0;
  try {
    for await (const chunk of response) {
      bytes += chunk.byteLength;
      if (bytes > maxBytes) throw tooLong(maxBytes, 'as it is sent');
      yield chunk;
    }
  } catch (error) {
    throw brokenOff(error, signal);
  }
}

/** What an error in the middle of an answer means; one of our own is itself. */
export function brokenOff(error: unknown, signal: AbortSignal): unknown {
  if (isPeerDistError(error) || signal.aborted) return error;
  const message = `the answer broke off: ${(error as Error).message}`;
  return new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', message, { cause: error });
}

function tooLong(maxBytes: number, how: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_LIMIT', `larger than ${formatBytes(maxBytes)} ${how}`);
}
