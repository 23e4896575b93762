/** From a {@link ProxyResponse} to the client's connection. */
import { STATUS_CODES, type ServerResponse, validateHeaderName, validateHeaderValue } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ProxyResponse } from '../../lib/kit/index.ts';
import { endTogether } from '../../lib/streams/index.ts';

/** Characters a reason phrase may have (RFC 9112 4). Origins send others, and Node refuses to write them. */
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Writes a response. Resolves when the client has been given it all, or is gone; rejects when the body failed after the head had been sent, and the
 * client's connection is then broken, so that a cut body cannot pass for a whole one.
 *
 * @param idleMs without progress after which a client that does not read is dropped; 0 = never
 * @param onBreak called when the body fails, before the client's connection is broken
 */
export async function sendResponse(
  response: ProxyResponse,
  client: ServerResponse,
  viaName: string,
  idleMs: number,
  onBreak: () => void = () => {},
): Promise<void> {
  const { body, status, transforms } = response;
  try {
    writeHead(response, client, viaName);
  } catch (error) {
    response.discard();
    throw error;
  }
  if (client.socket?.timeout !== idleMs) client.socket?.setTimeout(idleMs);
  if (client.destroyed) return response.discard();
  if (body === null || client.req.method === 'HEAD' || isBodiless(status)) {
    if (body !== null) response.discard();
    client.end();
    return;
  }
  if (Array.isArray(body) && transforms.length === 0) return writePieces(body as readonly Uint8Array[], client);
  breakOnOtherLength(client);
  const stream = response.stream();
  stream.prependListener('error', (error) => {
    if (!isPrematureClose(error)) onBreak();
  });
  if (client.req.httpVersion === '1.0') resetOnFailure(stream, client);
  try {
    await pipeline([stream, client]);
  } catch (error) {
    // A client that leaves is no failure; a body that breaks is.
    if (!isPrematureClose(error)) throw error;
  }
}

/**
 * A body of another length than announced would be read as part of the next answer: the connection breaks instead. Node would throw where only
 * the process could catch it.
 */
function breakOnOtherLength(client: ServerResponse): void {
  client.strictContentLength = true;
  const write = client.write.bind(client);
  const end = client.end.bind(client);
  const guarded =
    <T>(act: (...args: never) => T, failed: T) =>
    (...args: unknown[]): T => {
      try {
        return act(...(args as never));
      } catch (error) {
        client.destroy(error as Error);
        return failed;
      }
    };
  client.write = guarded(write, false) as typeof write;
  client.end = guarded(end, client) as typeof end;
}

/** For HTTP/1.0 the end of the connection is the end of the body: only a reset tells a cut body from a whole one. */
function resetOnFailure(stream: Readable, client: ServerResponse): void {
  stream.prependListener('error', () => {
    const { socket } = client;
    // Node loses a socket that is reset while its end is being sent: it would never close, nor its server.
    if (socket?.writableEnded === true) socket.destroy();
    else socket?.resetAndDestroy();
  });
}

function isBodiless(status: number): boolean {
  return status === 204 || status === 205 || status === 304;
}

function writeHead(response: ProxyResponse, client: ServerResponse, viaName: string): void {
  const { status, statusText, headers } = response;
  const fields: string[] = [];
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined || name === 'via' || (name === 'content-length' && (status === 204 || status === 205)))
      continue;
    if (typeof value === 'string') fields.push(name, value);
    else for (const line of value) fields.push(name, line);
  }
  const via = headers['via'];
  fields.push('via', `${via === undefined ? '' : `${String(via)}, `}1.1 ${viaName}`);
  const length = ownLength(response);
  if (length !== undefined && client.req.method !== 'HEAD') fields.push('content-length', String(length));
  const reason =
    statusText !== undefined && statusText !== '' && REASON.test(statusText)
      ? statusText
      : (STATUS_CODES[status] ?? 'Unknown');
  if (client.getHeaderNames().length > 0) {
    // Express and others have set fields before; given an array, Node would then keep only the last line of each name.
    setFields(client, writable(fields));
    client.writeHead(status, reason);
    return;
  }
  try {
    client.writeHead(status, reason, fields);
  } catch {
    client.writeHead(status, reason, writable(fields));
  }
}

/** The length of a body in memory, where the head does not say it; a Transform may change it. */
function ownLength({ status, headers, body, transforms }: ProxyResponse): number | undefined {
  if (status === 205) return 0;
  if (status === 204 || status === 304 || headers['content-length'] !== undefined || transforms.length > 0)
    return undefined;
  if (body === null) return 0;
  return Array.isArray(body) ? body.reduce((sum: number, piece: Uint8Array) => sum + piece.byteLength, 0) : undefined;
}

function setFields(client: ServerResponse, fields: readonly string[]): void {
  const lines = new Map<string, string[]>();
  for (let index = 0; index < fields.length; index += 2) {
    const name = fields[index] as string;
    lines.set(name, [...(lines.get(name) ?? []), fields[index + 1] as string]);
  }
  for (const [name, values] of lines) client.setHeader(name, values.length === 1 ? (values[0] as string) : values);
}

/** Fields the origin sent and Node refuses to write are left out: they must not cost the client its answer. */
function writable(fields: readonly string[]): string[] {
  const kept: string[] = [];
  for (let index = 0; index < fields.length; index += 2) {
    const [name, value] = [fields[index] as string, fields[index + 1] as string];
    if (isWritable(name, value)) kept.push(name, value);
  }
  return kept;
}

function isWritable(name: string, value: string): boolean {
  try {
    validateHeaderName(name);
    validateHeaderValue(name, value);
    return true;
  } catch {
    return false;
  }
}

/** Bytes handed to the socket before its answer is heeded: a usual range then leaves, head and all, in one system call. */
const BATCH_BYTES = 256 * 1024;

/**
 * Pieces that are all in memory: corked so that head and body leave in one write, waiting whenever the client does not keep up.
 * This is the named exception to `pipeline`, which costs two thirds of the rate here.
 */
async function writePieces(pieces: readonly Uint8Array[], client: ServerResponse): Promise<void> {
  const last = pieces.length - 1;
  let batched = 0;
  client.cork();
  for (let index = 0; index < last; index += 1) {
    const piece = pieces[index] as Uint8Array;
    const room = client.write(piece);
    batched += piece.byteLength;
    if (room || batched < BATCH_BYTES) continue;
    batched = 0;
    client.uncork();
    if (client.writableNeedDrain && !(await drained(client))) return;
    client.cork();
  }
  const piece = pieces[last];
  if (batched + (piece?.byteLength ?? 0) < TOGETHER_BYTES) client.end(piece);
  else endTogether(client, piece);
}

/** Answers from this size leave together. A refusal is smaller, and must be out before Node closes on whatever follows the refused. */
const TOGETHER_BYTES = 4096;

/** True when there is room again, false when the client is gone. */
function drained(client: ServerResponse): Promise<boolean> {
  if (client.destroyed) return Promise.resolve(false);
  return new Promise((resolve) => {
    const settle = (open: boolean) => (): void => {
      client.off('drain', onDrain);
      client.off('close', onClose);
      resolve(open);
    };
    const onDrain = settle(true);
    const onClose = settle(false);
    client.once('drain', onDrain);
    client.once('close', onClose);
  });
}

function isPrematureClose(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE';
}
