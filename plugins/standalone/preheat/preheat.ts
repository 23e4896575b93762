/** Asks for each URL, some at a time, reads what comes to its end and throws it away; then asks for its hashes where the proxy makes any. */
import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { fieldValue, listMembers, nearestCacheStatus } from '../../../lib/http/index.ts';
import {
  formatPeerDist,
  formatPeerDistEx,
  parsePeerDistEx,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
} from '../../../lib/protocol/pccrtp/index.ts';
import { type Failure, Failures, type Item } from './collection.ts';
import { brokenOff } from './document.ts';
import type { ProxyClient } from './proxy-client.ts';

/** Bytes of content information that are read. Policy. */
const MAX_CONTENT_INFORMATION_BYTES = 64 * 1024 * 1024;
/** How often hashes are asked for that a proxy promises: it makes them of a body that is read to its end, and waits for them itself. Policy. */
const MAX_QUESTIONS = 3;
/** Asks for hashes (MS-PCCRTP 2.2), of either version. */
const HASH_REQUEST = {
  [PEERDIST_HEADER]: formatPeerDist({ version: { major: 1, minor: 1 } }),
  [PEERDIST_EX_HEADER]: formatPeerDistEx(2, { hashRequest: true }),
};

export interface PreheatOptions {
  readonly client: ProxyClient;
  readonly concurrency: number;
  /** Larger bodies are left out. */
  readonly maxBytes: number;
  /** Whether to ask for hashes as well. */
  readonly isHashing: boolean;
  readonly signal: AbortSignal;
  /** Told of each body under way, by which of the {@link concurrency} it is: bytes so far, and in all; undefined when it has ended. */
  readonly onBytes?: (at: number, url: string, bytes: number | undefined, total: number | undefined) => void;
  /** Told when a URL is done with, and why where that failed. */
  readonly onDone?: (failure: Failure | undefined) => void;
}

/** Counts of URLs, and bytes of bodies. */
export class PreheatResult {
  bytes = 0;
  /** Out of the proxy's cache, without a question to anybody. */
  fresh = 0;
  /** Out of its cache, after the origin said that it is still right. */
  confirmed = 0;
  fetched = 0;
  tooLarge = 0;
  /** With hashes that are ready now, and without, of those whose proxy makes hashes. */
  readonly contentInformation = { ready: 0, missing: 0 };
  readonly failures = new Failures();
  /** True when the rest was not asked for: it was stopped, or the proxy has gone. */
  isEndedEarly = false;

  /** URLs done with. */
  get done(): number {
    return this.fresh + this.confirmed + this.fetched + this.tooLarge + this.failures.count;
  }
}

/**
 * What cannot be had is a failure that is counted.
 *
 * @param result counts as it goes on
 * @throws {@link PeerDistError} `ERR_PEERDIST_SERVICE_UNAVAILABLE` when the proxy does not even take the first request
 */
export async function preheat(items: readonly Item[], options: PreheatOptions, result: PreheatResult): Promise<void> {
  const { concurrency, signal, onDone = () => {} } = options;
  // One for each request under way is no leak.
  setMaxListeners(0, signal);
  let next = 0;
  const work = async (at: number): Promise<void> => {
    while (next < items.length && !result.isEndedEarly && !signal.aborted) {
      const item = items[next] as Item;
      next += 1;
      let failure: Failure | undefined;
      try {
        await preheatOne(item, at, options, result);
      } catch (error) {
        if (signal.aborted) break;
        if (!isPeerDistError(error)) throw error;
        // The others would fail alike.
        if (error.code === 'ERR_PEERDIST_SERVICE_UNAVAILABLE') {
          result.isEndedEarly = true;
          if (result.done === 0) throw error;
        }
        failure = result.failures.add(item.url, error);
      } finally {
        options.onBytes?.(at, item.url, undefined, undefined);
      }
      onDone(failure);
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, (_, at) => work(at)));
  if (signal.aborted) result.isEndedEarly = true;
}

async function preheatOne(item: Item, at: number, options: PreheatOptions, result: PreheatResult): Promise<void> {
  const { client, maxBytes, isHashing, signal, onBytes = () => {} } = options;
  // What is listed is what is not encoded.
  const fields: OutgoingHttpHeaders = isListed(item) ? { 'accept-encoding': 'identity' } : {};
  const { url, response } = await client.get(item.url, fields, signal);
  const announced = Number(response.headers['content-length'] ?? Number.NaN);
  if (announced > maxBytes) {
    response.destroy();
    result.tooLarge += 1;
    return;
  }
  if (item.bytes !== undefined && announced >= 0 && announced !== item.bytes) {
    response.destroy();
    throw otherLength(announced, item.bytes);
  }
  const hash = item.sha256 === undefined ? undefined : createHash('sha256');
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      bytes += chunk.byteLength;
      result.bytes += chunk.byteLength;
      onBytes(at, item.url, bytes, announced >= 0 ? announced : undefined);
      hash?.update(chunk);
      if (bytes > maxBytes) break;
    }
  } catch (error) {
    throw brokenOff(error, signal);
  }
  if (bytes > maxBytes) {
    result.tooLarge += 1;
    return;
  }
  if (item.bytes !== undefined && bytes !== item.bytes) throw otherLength(bytes, item.bytes);
  if (hash !== undefined && hash.digest('hex') !== item.sha256)
    throw new PeerDistError('ERR_PEERDIST_HASH_MISMATCH', 'not the bytes that the list says: another SHA-256');
  result[became(response)] += 1;
  // A proxy that makes hashes says so with every answer that could be given as such.
  if (!isHashing || !listMembers(fieldValue(response.headers, 'vary')).includes(PEERDIST_HEADER)) return;
  const isReady = await areHashesReady(url, fields, options);
  result.contentInformation[isReady ? 'ready' : 'missing'] += 1;
}

function became({ headers }: IncomingMessage): 'fresh' | 'confirmed' | 'fetched' {
  const status = nearestCacheStatus(fieldValue(headers, 'cache-status'));
  if (status?.isHit === true) return 'fresh';
  return status?.forwardStatus === 304 ? 'confirmed' : 'fetched';
}

/** Whether the proxy answers with content information. What goes wrong here costs nobody the body. */
async function areHashesReady(
  url: string,
  fields: OutgoingHttpHeaders,
  { client, maxBytes, signal }: PreheatOptions,
): Promise<boolean> {
  try {
    for (let question = 0; question < MAX_QUESTIONS; question += 1) {
      const { response } = await client.get(url, { ...fields, ...HASH_REQUEST }, signal);
      const isCoded = response.headers['content-encoding'] === 'peerdist';
      const isPromised = parsePeerDistEx(fieldValue(response.headers, PEERDIST_EX_HEADER))?.makeHashRequest === true;
      const limit = isCoded ? MAX_CONTENT_INFORMATION_BYTES : isPromised ? maxBytes : 0;
      let bytes = 0;
      for await (const chunk of response as AsyncIterable<Uint8Array>) {
        bytes += chunk.byteLength;
        if (bytes > limit) break;
      }
      if (isCoded || !isPromised) return isCoded && bytes <= limit;
    }
  } catch (error) {
    if (signal.aborted) throw error;
  }
  return false;
}

function isListed({ bytes, sha256 }: Item): boolean {
  return bytes !== undefined || sha256 !== undefined;
}

function otherLength(actual: number, expected: number): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_LENGTH_MISMATCH', `${actual} bytes, and the list says ${expected}`, {
    expected,
    actual,
  });
}
