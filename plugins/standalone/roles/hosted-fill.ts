/**
 * Filling a running hosted cache through its admin listener: `POST /preload` with a URL in JSON, `POST /import` with a content package. The
 * answer is a line of JSON for each step, the last one says how it ended.
 */
import { createReadStream, statSync } from 'node:fs';
import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import type { ContentInformationVersion } from '../../../lib/protocol/pccrc/index.ts';
import type { HostedCacheService, Progress } from '../../hosted-cache/index.ts';
import type { AdminRoute, AdminRoutes } from './admin.ts';
import { Bearer } from './bearer.ts';
import type { ListenAddress } from '../options/units.ts';

/** Fillings under way at a time. Policy. */
const MAX_FILLINGS = 4;
/** Bytes of a preload request. */
const MAX_REQUEST_BYTES = 64 * 1024;
/** Milliseconds between two lines of progress. */
const PROGRESS_MS = 100;

type Line =
  | { readonly step: Parameters<Progress>[0]; readonly bytes: number; readonly total?: number | undefined }
  | { readonly done: true; readonly bytes: number }
  | { readonly error: string; readonly code?: string | undefined };

/** @param token what has to be in `Authorization: Bearer` */
export function createFillRoutes(cache: HostedCacheService, token: string): AdminRoutes {
  let running = 0;
  const bearer = new Bearer(token);
  const fill =
    (act: (request: IncomingMessage, progress: Progress, signal: AbortSignal) => Promise<number>) =>
    (request: IncomingMessage, response: ServerResponse): void => {
      const refuse = (status: number, text: string): void => {
        request.resume();
        response.writeHead(status, { 'content-type': 'text/plain', connection: 'close' }).end(`${text}\n`);
      };
      // A page in the administrator's browser cannot send this field.
      if (!bearer.hasSent(request)) return refuse(401, 'the token of the state directory is wanted');
      if (running === MAX_FILLINGS) return refuse(503, 'enough is being filled in already');
      running += 1;
      const gone = new AbortController();
      response.on('close', () => gone.abort());
      response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
      const say = (line: Line): void => void response.write(`${JSON.stringify(line)}\n`);
      let saidAt = 0;
      const progress: Progress = (step, bytes, total) => {
        const now = performance.now();
        if (now - saidAt < PROGRESS_MS && bytes !== total) return;
        saidAt = now;
        // Progress is not worth memory for a reader that does not read it.
        if (!response.writableNeedDrain) say({ step, bytes, total });
      };
      void act(request, progress, gone.signal)
        .then(
          (bytes) => say({ done: true, bytes }),
          (error: Error) => say({ error: error.message, code: isPeerDistError(error) ? error.code : undefined }),
        )
        .finally(() => {
          running -= 1;
          // What is still to come of a package that is not taken is not waited for.
          response.end(() => request.destroy());
        });
      return undefined;
    };
  return {
    '/import': route(fill((request, onProgress, signal) => cache.import(request, { onProgress, signal }))),
    '/preload': route(
      fill(async (request, onProgress, signal) => {
        const { url, version } = await readPreload(request);
        return cache.preload(url, { version, onProgress, signal });
      }),
    ),
  };
}

/** The token of the state directory is wanted whether or not there is another. */
function route(handle: AdminRoute['handle']): AdminRoute {
  return { method: 'POST', access: 'own', handle };
}

async function readPreload(
  request: IncomingMessage,
): Promise<{ readonly url: string; readonly version: ContentInformationVersion | undefined }> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > MAX_REQUEST_BYTES) throw new PeerDistError('ERR_PEERDIST_LIMIT', 'the request is too large');
    chunks.push(chunk);
  }
  let body: { readonly url?: unknown; readonly version?: unknown };
  try {
    body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as typeof body;
  } catch {
    body = {};
  }
  const { url, version } = body;
  if (typeof url !== 'string' || !/^https?:\/\//i.test(url) || !URL.canParse(url))
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'an http or https URL is wanted');
  return { url, version: version === 1 || version === 2 ? version : undefined };
}

/** What a running hosted cache is to be filled with. */
export type Filling =
  { readonly url: string; readonly version: ContentInformationVersion | undefined } | { readonly file: string };

/**
 * Fills a running hosted cache through its admin listener.
 *
 * @returns bytes of the content
 * @throws {@link PeerDistError} with the code that the hosted cache gave; `ERR_PEERDIST_INVALID_OPTION` when none answers there
 */
export async function fillRunning(
  admin: ListenAddress,
  token: string,
  filling: Filling,
  { onProgress, signal }: { readonly onProgress: Progress; readonly signal: AbortSignal },
): Promise<number> {
  const isFile = 'file' in filling;
  const size = isFile ? sizeOf(filling.file) : undefined;
  const request = httpRequest({
    host: admin.host,
    port: admin.port,
    method: 'POST',
    path: isFile ? '/import' : '/preload',
    signal,
    headers: { authorization: `Bearer ${token}`, ...(size === undefined ? {} : { 'content-length': size }) },
  });
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        new PeerDistError(
          'ERR_PEERDIST_INVALID_OPTION',
          `no hosted cache answers at ${admin.host}:${admin.port}: ${error.code ?? error.message}`,
        ),
      ),
    );
  });
  // Cut short by an answer that says why; then that is what counts.
  const sent = isFile ? pipeline(createReadStream(filling.file), request).catch(() => {}) : undefined;
  if (!isFile) request.end(JSON.stringify(filling));
  const response = await answered;
  if (response.statusCode !== 200) {
    response.resume();
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `the hosted cache refused: ${response.statusCode}`);
  }
  let last: Line | undefined;
  for await (const text of createInterface({ input: response })) {
    last = JSON.parse(text) as Line;
    if ('step' in last) onProgress(last.step, last.bytes, last.total);
  }
  await sent;
  if (last !== undefined && 'done' in last) return last.bytes;
  const { error = 'it broke off', code } = last !== undefined && 'error' in last ? last : {};
  throw new PeerDistError((code as PeerDistError['code'] | undefined) ?? 'ERR_PEERDIST_PEER_FAILED', error);
}

function sizeOf(file: string): number {
  try {
    return statSync(file).size;
  } catch (error) {
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `cannot read ${file}: ${(error as NodeJS.ErrnoException).code}`,
    );
  }
}
