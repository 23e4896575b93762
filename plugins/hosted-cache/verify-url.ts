/** Whether a content server tells the truth: its content information against its body. */
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import { type ContentInformationVersion, decodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { DescribedContent } from '../../lib/services/index.ts';
import { ask, hashesOf, type Progress, requestPlain } from './describe-url.ts';

/** What one version of the content information says, and whether the body agrees. */
export interface Agreement {
  readonly version: ContentInformationVersion;
  /** False where the server sends none of this version. */
  readonly isOffered: boolean;
  /** Bytes of the structure. */
  readonly informationBytes: number;
  readonly segments: number;
  readonly blocks: number;
  /** Of them, those that do not match the body. */
  readonly wrongBlocks: number;
  /** Bytes that are described. */
  readonly describedBytes: number;
}

export interface Comparison {
  /** Of the body. */
  readonly bytes: number;
  /** One for each version. */
  readonly agreements: readonly Agreement[];
}

/**
 * Downloads a body and compares it with the content information of both versions.
 *
 * @throws {@link PeerDistError} when the body cannot be had
 */
export async function verifyUrl(
  url: string,
  { onProgress = () => {}, signal }: { readonly onProgress?: Progress; readonly signal?: AbortSignal } = {},
): Promise<Comparison> {
  try {
    return await compare(url, onProgress, signal);
  } catch (error) {
    // With a code it is of the connection, in the middle of an answer.
    if (isPeerDistError(error) || signal?.aborted === true || (error as NodeJS.ErrnoException).code === undefined)
      throw error;
    const message = `the answer broke off: ${(error as Error).message}`;
    throw new PeerDistError('ERR_PEERDIST_ORIGIN_UNREACHABLE', message, { cause: error });
  }
}

async function compare(url: string, onProgress: Progress, signal: AbortSignal | undefined): Promise<Comparison> {
  // A server hashes what it has sent once, so the body goes first; it is not kept, and comes again for the comparison.
  await drain(url, onProgress, signal);
  // Both at once: a server that makes no hashes is waited for only once.
  const versions = [1, 2] as const;
  const informations = await Promise.all(versions.map((version) => offered(url, version, signal)));
  const checks = informations.filter((encoded) => encoded !== undefined).map((encoded) => new BlockCheck(encoded));
  const missing = versions.filter((_, index) => informations[index] === undefined);
  const response = await requestPlain(url, signal);
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    for (const check of checks) check.push(chunk);
    onProgress('verify', bytes, Number(response.headers['content-length'] ?? bytes));
  }
  const none = { isOffered: false, informationBytes: 0, segments: 0, blocks: 0, wrongBlocks: 0, describedBytes: 0 };
  const agreements = [...checks.map((check) => check.end()), ...missing.map((version) => ({ version, ...none }))];
  return { bytes, agreements: agreements.toSorted((a, b) => a.version - b.version) };
}

async function drain(url: string, onProgress: Progress, signal: AbortSignal | undefined): Promise<void> {
  // What is asked for as missing data is not hashed.
  const answer = await ask(url, 2, false, signal);
  if ('information' in answer) return;
  const response = answer.plain;
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    bytes += chunk.byteLength;
    onProgress('download', bytes, Number(response.headers['content-length'] ?? bytes));
  }
}

async function offered(
  url: string,
  version: ContentInformationVersion,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  try {
    const encoded = await hashesOf(url, version, signal);
    // A server may answer with the version it has, where the client reads both.
    return decodeContentInformation(encoded).version === version ? encoded : undefined;
  } catch (error) {
    if (isPeerDistError(error, 'ERR_PEERDIST_NOT_FOUND')) return undefined;
    throw error;
  }
}

/** Hashes a body block by block, as content information cuts it. */
class BlockCheck {
  readonly #content: DescribedContent;
  readonly #informationBytes: number;
  readonly #blocks: number;
  #ordinal = 0;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #wrong = 0;

  constructor(encoded: Uint8Array) {
    const information = decodeContentInformation(encoded);
    this.#content = new DescribedContent(information, nativeHashProvider);
    this.#informationBytes = encoded.byteLength;
    const { range } = information;
    this.#blocks = range.length === 0 ? 0 : this.#content.ordinals(range).last + 1;
  }

  push(chunk: Uint8Array): void {
    let rest = chunk;
    while (this.#ordinal < this.#blocks && rest.byteLength > 0) {
      const block = this.#content.block(this.#ordinal);
      const piece = rest.subarray(0, block.length - this.#pendingBytes);
      this.#pending.push(piece);
      this.#pendingBytes += piece.byteLength;
      rest = rest.subarray(piece.byteLength);
      if (this.#pendingBytes < block.length) return;
      if (!this.#content.verify(block, Buffer.concat(this.#pending))) this.#wrong += 1;
      this.#pending = [];
      this.#pendingBytes = 0;
      this.#ordinal += 1;
    }
  }

  end(): Agreement {
    const { information } = this.#content;
    return {
      version: information.version,
      isOffered: true,
      informationBytes: this.#informationBytes,
      segments: information.segmentCount,
      blocks: this.#blocks,
      // What the body did not reach is wrong too.
      wrongBlocks: this.#wrong + this.#blocks - this.#ordinal,
      describedBytes: information.range.length,
    };
  }
}
