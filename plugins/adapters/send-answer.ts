import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ProxyResponse } from '../../lib/kit/index.ts';
import type { ApplicationRun } from './application-run.ts';
import type { CapturedResponse } from './captured-response.ts';

/**
 * Gives the client what the kit has decided on: the application's answer as it was written, or with its body through the kit's streams, or
 * something else. Fields change only where the kit has changed them.
 *
 * @throws what broke the body after the head was sent, which may be that the client has left; the connection is then broken too, so that a cut body
 * cannot pass for a whole one
 */
export async function sendAnswer(answer: ProxyResponse, run: ApplicationRun): Promise<void> {
  const { capture, client, answered } = run;
  run.hasAnswered = true;
  if (client.destroyed) return answer.discard();
  const isOwn = answered !== undefined && answer.body === answered.body && answer.status === answered.status;
  capture.edit(changedFields(answer, run));
  if (isOwn && answer.transforms.length === 0) return capture.pass();
  if (isOwn) capture.stream();
  else capture.replace(answer.status);
  const { body } = answer;
  if (Array.isArray(body) && answer.transforms.length === 0) return sendPieces(body as Uint8Array[], run);
  try {
    await pipeline([answer.stream(), new Sink(run)], { signal: run.departure.signal });
  } catch (error) {
    if (!client.destroyed) capture.native.destroy();
    throw error;
  }
}

/** Pieces that are all in memory, head and body in one write. */
function sendPieces(pieces: readonly Uint8Array[], { capture, client }: ApplicationRun): void {
  client.cork();
  for (const piece of pieces) capture.native.write(piece);
  capture.finish();
}

/** The fields in which an answer differs from what the application wrote; undefined where it has one no more. */
function changedFields(
  { headers: after }: ProxyResponse,
  { client, answered, request }: ApplicationRun,
): ReadonlyMap<string, string | readonly string[] | undefined> {
  const before = answered?.headers ?? {};
  const changes = new Map<string, string | readonly string[] | undefined>();
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (before[name] !== after[name]) changes.set(name, after[name]);
  }
  // The strong form of a tag is for those who name content by it.
  const { etag } = after;
  if (request.speaksPeerDist && etag !== undefined && client.getHeader('etag') !== etag) changes.set('etag', etag);
  return changes;
}

/** The client's connection as a stream, past the application. */
class Sink extends Writable {
  readonly #client: ApplicationRun['client'];
  readonly #capture: CapturedResponse;

  constructor({ capture, client }: ApplicationRun) {
    super();
    this.#client = client;
    this.#capture = capture;
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: () => void): void {
    if (this.#capture.native.write(chunk)) callback();
    else this.#client.once('drain', callback);
  }

  override _final(callback: () => void): void {
    // Bytes can all be there before the application is at its end.
    void this.#capture.ended().then(() => {
      this.#capture.finish();
      callback();
    });
  }
}
