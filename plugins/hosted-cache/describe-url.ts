/** What stands behind a URL, with its hashes: for those who put content into a hosted cache before any client asks for it. */
import { createReadStream, createWriteStream, rmSync } from 'node:fs';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { get as httpsGet } from 'node:https';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import type { ContentInformationVersion } from '../../lib/protocol/pccrc/index.ts';
import {
  formatPeerDist,
  formatPeerDistEx,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
} from '../../lib/protocol/pccrtp/index.ts';
import { DescribedContent } from '../../lib/services/index.ts';
import { packageHead, readPackage } from './content-package.ts';

/** Bytes of content information taken from an origin. Policy. */
const MAX_CONTENT_INFORMATION_BYTES = 64 * 1024 * 1024;
/** How often a content server is asked again for hashes it has not made yet, and milliseconds between. Policy. */
const MAX_QUESTIONS = 20;
const PAUSE_MS = 250;
/** Milliseconds without a byte. Policy. */
const IDLE_MS = 60_000;

/** Told how far it is: `step` in words, bytes of the content so far, and in all where that is known. */
export type Progress = (step: 'download' | 'verify' | 'import', bytes: number, total: number | undefined) => void;

/** The answer of a server to a client that reads content information: hashes, or the content itself. */
type Answer = { readonly information: Uint8Array } | { readonly plain: IncomingMessage };

/** Asks as a branch does. @param hashRequest for hashes that are just being made */
export async function ask(
  url: string,
  version: ContentInformationVersion,
  hashRequest: boolean,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const response = await request(
    url,
    {
      'accept-encoding': 'peerdist',
      [PEERDIST_HEADER]: formatPeerDist({ version: { major: 1, minor: 1 } }),
      [PEERDIST_EX_HEADER]: formatPeerDistEx(version, { hashRequest }),
    },
    signal,
  );
  if (response.headers['content-encoding'] !== 'peerdist') return { plain: response };
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    if (bytes > MAX_CONTENT_INFORMATION_BYTES)
      throw new PeerDistError('ERR_PEERDIST_LIMIT', 'the content information is larger than 64 MiB');
    chunks.push(chunk);
  }
  return { information: Buffer.concat(chunks) };
}

/**
 * Content information for a URL.
 *
 * @param options.hashRequest wait for hashes that are just being made
 * @returns undefined where the server sends none now
 * @throws {@link PeerDistError} `ERR_PEERDIST_NOT_FOUND` when the server does not answer 200, `ERR_PEERDIST_ORIGIN_UNREACHABLE`
 */
export async function fetchContentInformation(
  url: string,
  version: ContentInformationVersion = 2,
  { hashRequest = false, signal }: { readonly hashRequest?: boolean; readonly signal?: AbortSignal | undefined } = {},
): Promise<Uint8Array | undefined> {
  const answer = await ask(url, version, hashRequest, signal);
  if ('information' in answer) return answer.information;
  answer.plain.destroy();
  return undefined;
}

/**
 * Downloads what stands behind a URL, gets its hashes, verifies one by the other and writes a content package.
 *
 * @param file where to; a second one beside it is used meanwhile. Whoever gives the name removes both when this rejects
 * @throws {@link PeerDistError} `ERR_PEERDIST_NOT_FOUND` when the server sends no hashes, `ERR_PEERDIST_HASH_MISMATCH` when they do not fit
 */
export async function writePackage(
  url: string,
  file: string,
  {
    version = 2,
    onProgress = () => {},
    signal,
  }: {
    readonly version?: ContentInformationVersion | undefined;
    readonly onProgress?: Progress | undefined;
    readonly signal?: AbortSignal | undefined;
  } = {},
): Promise<void> {
  const answer = await ask(url, version, false, signal);
  const plain = 'plain' in answer ? answer.plain : await requestPlain(url, signal);
  const body = `${file}.body`;
  try {
    await saveBody(plain, body, onProgress, signal);
    const information = 'information' in answer ? answer.information : await hashesOf(url, version, signal);
    const content = async function* (): AsyncGenerator<Uint8Array> {
      yield packageHead(information);
      yield* createReadStream(body) as AsyncIterable<Uint8Array>;
    };
    await verify(content(), onProgress, signal);
    await pipeline(content, createWriteStream(file, { mode: 0o600 }), { signal });
  } finally {
    rmSync(body, { force: true });
  }
}

/** The plain body, also from a server that would rather send hashes. @throws {@link PeerDistError} unless the answer is 200 */
export function requestPlain(url: string, signal: AbortSignal | undefined): Promise<IncomingMessage> {
  const parameters = { version: { major: 1, minor: 1 }, missingDataRequest: true };
  return request(url, { 'accept-encoding': 'identity', [PEERDIST_HEADER]: formatPeerDist(parameters) }, signal);
}

async function saveBody(
  response: IncomingMessage,
  file: string,
  onProgress: Progress,
  signal: AbortSignal | undefined,
): Promise<void> {
  const announced = response.headers['content-length'];
  let bytes = 0;
  response.on('data', (chunk: Uint8Array) => {
    bytes += chunk.byteLength;
    onProgress('download', bytes, announced === undefined ? undefined : Number(announced));
  });
  await pipeline(response, createWriteStream(file, { mode: 0o600 }), { signal });
}

/**
 * Hashes of a content that has just been downloaded: a content server may need to be asked before it makes them.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_NOT_FOUND` when it does not make any
 */
export async function hashesOf(
  url: string,
  version: ContentInformationVersion,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  for (let question = 0; question < MAX_QUESTIONS; question += 1) {
    const information = await fetchContentInformation(url, version, { hashRequest: true, signal });
    if (information !== undefined) return information;
    await delay(PAUSE_MS, undefined, signal === undefined ? {} : { signal });
  }
  throw new PeerDistError(
    'ERR_PEERDIST_NOT_FOUND',
    'the server sends no hashes for it: is it a BranchCache content server, and the file large enough?',
  );
}

async function verify(
  content: AsyncIterable<Uint8Array>,
  onProgress: Progress,
  signal: AbortSignal | undefined,
): Promise<void> {
  let described: DescribedContent | undefined;
  for await (const { information, ordinal, bytes } of readPackage(content)) {
    signal?.throwIfAborted();
    described ??= new DescribedContent(information, nativeHashProvider);
    const block = described.block(ordinal);
    if (!described.verify(block, bytes))
      throw new PeerDistError(
        'ERR_PEERDIST_HASH_MISMATCH',
        'what was downloaded does not match the hashes of the server',
      );
    onProgress('verify', block.offset + block.length, information.range.length);
  }
}

/** @throws {@link PeerDistError} unless the answer is 200 */
function request(
  url: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = (url.startsWith('https:') ? httpsGet : httpGet)(
      url,
      { headers, timeout: IDLE_MS, signal },
      (response) => {
        if (response.statusCode === 200) return resolve(response);
        response.destroy();
        return reject(new PeerDistError('ERR_PEERDIST_NOT_FOUND', `the server answered ${response.statusCode}`));
      },
    );
    asked.once('timeout', () => asked.destroy(new Error('no answer in time')));
    asked.once('error', (error) =>
      reject(
        new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', `no answer from ${url}: ${error.message}`, {
          cause: error,
        }),
      ),
    );
  });
}
