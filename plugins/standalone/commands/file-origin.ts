/** An origin whose heads are those of a real one, and whose bodies are read from a file that has the same bytes. */
import { createReadStream } from 'node:fs';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { PeerDistError } from '../../../lib/errors.ts';
import { fieldValue, formatRange, withoutFields } from '../../../lib/http/index.ts';
import { type Next, type ProxyRequest, ProxyResponse } from '../../../lib/kit/index.ts';

/** Bytes of a piece that is compared, milliseconds for an answer. Policy. */
const SAMPLE_BYTES = 16 * 1024;
const TIMEOUT_MS = 30_000;

/** Answers with the head of the origin and the body of the file. */
export function fileOrigin(file: string, length: number, ca: string | undefined): Next {
  return async (request) => {
    const answer = await askOrigin(request, 'HEAD', ca);
    answer.resume();
    const { statusCode: status = 502 } = answer;
    const headers = withoutFields(answer.headers, ['connection', 'keep-alive', 'transfer-encoding']);
    if (status === 304) return new ProxyResponse({ status, headers, body: null });
    if (status !== 200)
      throw new PeerDistError('ERR_PEERDIST_NOT_FOUND', `the origin answered ${status} to HEAD ${request.key}`);
    const announced = Number(fieldValue(headers, 'content-length') ?? Number.NaN);
    if (announced !== length)
      throw new PeerDistError(
        'ERR_PEERDIST_LENGTH_MISMATCH',
        `the origin has ${announced} bytes of it, the file ${length}`,
      );
    await compare(request, file, length, ca);
    return new ProxyResponse({ status, headers, body: createReadStream(file, { highWaterMark: 1024 * 1024 }) });
  };
}

/** Compares a few pieces, where the origin sends ranges: another build of the same length is told from the file. */
async function compare(request: ProxyRequest, file: string, length: number, ca: string | undefined): Promise<void> {
  const last = length - SAMPLE_BYTES;
  for (const offset of [0, Math.floor(last / 2), last]) {
    const range = { offset, length: SAMPLE_BYTES };
    const headers = { 'accept-encoding': 'identity', range: formatRange(range) };
    const answer = await askOrigin(request.with({ headers }), 'GET', ca);
    if (answer.statusCode !== 206) return void answer.destroy();
    const [theirs, ours] = await Promise.all([
      readAll(answer),
      readAll(createReadStream(file, { start: offset, end: offset + SAMPLE_BYTES - 1 })),
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
