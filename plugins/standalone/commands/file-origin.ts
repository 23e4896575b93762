/** An origin whose heads are those of a real one, and whose bodies are read from a file that has the same bytes. */
import { createReadStream } from 'node:fs';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { PeerDistError } from '../../../lib/errors.ts';
import { formatRange, withoutFields } from '../../../lib/http/index.ts';
import { type Next, type ProxyRequest, ProxyResponse } from '../../../lib/kit/index.ts';

/** Bytes of a piece that is compared, milliseconds for an answer. Policy. */
const SAMPLE_BYTES = 16 * 1024;
const TIMEOUT_MS = 30_000;

/** Answers with the head of the origin and the body of the file, which {@link compareWithOrigin} has found to be the same. */
export function fileOrigin(file: string, ca: string | undefined): Next {
  return async (request) => {
    const answer = await askOrigin(request, 'HEAD', ca);
    answer.resume();
    const { statusCode: status = 502 } = answer;
    const headers = withoutFields(answer.headers, ['connection', 'keep-alive', 'transfer-encoding']);
    if (status === 304) return new ProxyResponse({ status, headers, body: null });
    if (status !== 200)
      throw new PeerDistError('ERR_PEERDIST_NOT_FOUND', `the origin answered ${status} to HEAD ${request.key}`);
    return new ProxyResponse({ status, headers, body: createReadStream(file, { highWaterMark: 1024 * 1024 }) });
  };
}

/**
 * Compares the length and, where the origin sends ranges, a few pieces: another build of the same length is told from the file.
 *
 * @throws {@link PeerDistError} when the origin has something else, or is a proxy of ours
 */
export async function compareWithOrigin(
  request: ProxyRequest,
  file: string,
  length: number,
  ca: string | undefined,
): Promise<void> {
  const head = await askOrigin(request.with({ headers: { 'accept-encoding': 'identity' } }), 'HEAD', ca);
  head.resume();
  if (head.statusCode !== 200)
    throw new PeerDistError('ERR_PEERDIST_NOT_FOUND', `the origin answered ${head.statusCode} to HEAD ${request.key}`);
  if (/\bpeerdist-/.test(head.headers.via ?? ''))
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_PARAMETER',
      'that is a proxy of peerdist: give the URL at the origin',
    );
  const announced = Number(head.headers['content-length'] ?? Number.NaN);
  if (announced !== length)
    throw new PeerDistError(
      'ERR_PEERDIST_LENGTH_MISMATCH',
      `the origin has ${announced} bytes of it, the file ${length}`,
    );
  const sample = Math.min(SAMPLE_BYTES, length);
  const last = length - sample;
  for (const offset of [0, Math.floor(last / 2), last]) {
    const range = { offset, length: sample };
    const headers = { 'accept-encoding': 'identity', range: formatRange(range) };
    const answer = await askOrigin(request.with({ headers }), 'GET', ca);
    if (answer.statusCode !== 206) return void answer.destroy();
    const [theirs, ours] = await Promise.all([
      readAll(answer),
      readAll(createReadStream(file, { start: offset, end: offset + sample - 1 })),
    ]);
    if (!theirs.equals(ours))
      throw new PeerDistError('ERR_PEERDIST_HASH_MISMATCH', 'the origin has other bytes of the same length');
  }
  return undefined;
}

function askOrigin(
  { key, headers }: ProxyRequest,
  method: 'HEAD' | 'GET',
  ca: string | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const send = key.startsWith('https:') ? httpsRequest : httpRequest;
    const fields = { ...withoutFields(headers, []), connection: 'close' } as Record<string, string>;
    const asked = send(key, { method, headers: fields, timeout: TIMEOUT_MS, ...(ca === undefined ? {} : { ca }) });
    asked.once('response', resolve);
    asked.once('timeout', () => asked.destroy(new Error('no answer in time')));
    asked.once('error', (error) =>
      reject(new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', `no answer from ${key}: ${error.message}`)),
    );
    asked.end();
  });
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_LIMIT` for more than a sample */
async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.byteLength;
    if (bytes > SAMPLE_BYTES) throw new PeerDistError('ERR_PEERDIST_LIMIT', 'the origin sent more than was asked for');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
