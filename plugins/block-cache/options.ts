import type { Clock } from '../../lib/clock.ts';
import type { HeaderFields } from '../../lib/http/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import type { RecordStore } from '../../lib/stores/index.ts';

/** A resource, and what of a request may select one of its answers. */
export interface DirectoryQuestion {
  /** As {@link ProxyRequest.key}. */
  readonly key: string;
  readonly headers: HeaderFields;
}

/** A whole content that somebody of the same site has. */
export interface DirectoryEntry {
  /** Fields of a 200, a strong ETag among them. */
  readonly head: HeaderFields;
  /** Bytes of the content. */
  readonly length: number;
  /** Of all of it, encoded. */
  readonly contentInformation: Uint8Array;
}

/** What the proxies of a site tell each other; `SiblingDirectory` is one. It is trusted for what a content hashes to. */
export interface Directory {
  /** What others know; undefined when nobody says so soon. Never rejects. */
  find(question: DirectoryQuestion, signal: AbortSignal): Promise<DirectoryEntry | undefined>;
  /** From now on others can be told what is known here. */
  answerWith(lookup: (question: DirectoryQuestion) => Promise<DirectoryEntry | undefined>): void;
}

export interface BlockCacheOptions {
  /** Reads content; its block store is the cache. */
  readonly peerdist: PeerDist;
  /** Newest content information asked for. @default 2 */
  readonly maxContentInformationVersion?: 1 | 2 | undefined;
  /** Ask for content information as one does who has been told to, the first time too: for an upstream proxy that then makes it. @default false */
  readonly hashRequestFirst?: boolean | undefined;
  /** Bytes of content information taken for one content; a larger one is left alone and the body asked for. @default 64 MiB */
  readonly maxContentInformationBytes?: number | undefined;
  /** Bytes for content information and heads that are kept. @default 128 MiB */
  readonly maxIndexBytes?: number | undefined;
  /** Bytes of plain bodies held until their content information arrives, all together. @default 256 MiB */
  readonly maxPendingBytes?: number | undefined;
  /** Milliseconds a request waits for the head or the bytes of another client's fetch before it goes on its own. @default 10000 */
  readonly joinWaitMs?: number | undefined;
  /** Milliseconds a plain fetch goes on after its last client has left. @default 5000 */
  readonly lingerMs?: number | undefined;
  /** Bytes of a content that is described here; a longer one passes. @default Infinity */
  readonly maxContentBytes?: number | undefined;
  /** Whether CDN-Cache-Control goes before Cache-Control (RFC 9213). @default false */
  readonly cdnCacheControl?: boolean | undefined;
  /** Asked about what is not known here. @default nobody is */
  readonly directory?: Directory | undefined;
  /** Keeps across restarts what is known of contents. Its blocks are kept by the block store. */
  readonly records?: RecordStore | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

export interface ResolvedBlockCacheOptions {
  readonly maxContentInformationVersion: 1 | 2;
  readonly hashRequestFirst: boolean;
  readonly maxContentInformationBytes: number;
  readonly maxIndexBytes: number;
  readonly maxPendingBytes: number;
  readonly joinWaitMs: number;
  readonly lingerMs: number;
  readonly maxContentBytes: number;
  readonly cdnCacheControl: boolean;
}

const MiB = 1024 * 1024;

export function resolveBlockCacheOptions(
  options: Omit<BlockCacheOptions, 'peerdist' | 'directory'>,
): ResolvedBlockCacheOptions {
  return {
    maxContentInformationVersion: options.maxContentInformationVersion ?? 2,
    hashRequestFirst: options.hashRequestFirst ?? false,
    maxContentInformationBytes: options.maxContentInformationBytes ?? 64 * MiB,
    maxIndexBytes: options.maxIndexBytes ?? 128 * MiB,
    maxPendingBytes: options.maxPendingBytes ?? 256 * MiB,
    joinWaitMs: options.joinWaitMs ?? 10_000,
    lingerMs: options.lingerMs ?? 5_000,
    maxContentBytes: options.maxContentBytes ?? Infinity,
    cdnCacheControl: options.cdnCacheControl ?? false,
  };
}
