/** A hosted cache put together: what clients offer and ask for over HTTP, and version 1 offers over HTTPS. */
import type { Server } from 'node:http';
import { createReadStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsOptions } from 'node:tls';
import { makeDirectory } from '../../lib/stores/index.ts';
import { type HashProvider, nativeHashProvider } from '../../lib/crypto/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import { ignoreObservations, type Observer } from '../../lib/observer.ts';
import type { ContentInformationVersion } from '../../lib/protocol/pccrc/index.ts';
import {
  createLanHttpServer,
  DescribedContent,
  type FetchNote,
  HostedCache,
  type HostedCacheOptions,
  type OfferAuthentication,
  OfferServer,
  RetrievalServer,
  SealedBlocks,
} from '../../lib/services/index.ts';
import type { BlockStore } from '../../lib/stores/index.ts';
import { readPackage } from './content-package.ts';
import { type Progress, writePackage } from './describe-url.ts';

export interface HostedCacheServiceOptions extends Omit<HostedCacheOptions, 'blocks'> {
  readonly store: BlockStore;
  /** Who may offer and ask, by address. @default everybody */
  readonly isAllowed?: ((address: string) => boolean) | undefined;
  /** Certificate of the HTTPS listener, and whose client certificates it takes; undefined: no version 1 offers. */
  readonly tls?: TlsOptions | undefined;
  readonly authenticate?: OfferAuthentication | undefined;
  /** Answers under way at a time; further ones are empty. @default 1024 */
  readonly maxUploads?: number | undefined;
  /** Decides about offers in place of this process, which then fetches nothing; it has to see the same store. */
  readonly leader?: HostedCacheLeader | undefined;
  readonly hashProvider?: HashProvider | undefined;
  /** Where downloads lie for a moment, in the clear; made if need be. @default that of the operating system */
  readonly temporaryDirectory?: string | undefined;
}

export interface HostedCacheLeader {
  readonly offer: HostedCache['offer'];
  readonly noteFetch: FetchNote;
}

export interface PreloadOptions {
  /** @default 2 */
  readonly version?: ContentInformationVersion | undefined;
  readonly onProgress?: Progress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Connections at a time; each has at most one question open. Policy, not protocol. */
const MAX_CONNECTIONS = 4_096;
/** Label of what was put in without a client. */
const PRELOADED_LABEL = 'preloaded';

export class HostedCacheService {
  readonly blocks: SealedBlocks;
  /** Offers of version 2, blocks, lists; not listening yet. */
  readonly server: Server;
  /** Offers of version 1; not listening yet. */
  readonly tlsServer: Server | undefined;
  readonly #cache: HostedCache;
  readonly #provider: HashProvider;
  readonly #temporaryDirectory: string;

  constructor({
    store,
    isAllowed,
    tls,
    authenticate,
    leader,
    maxUploads = 1_024,
    hashProvider = nativeHashProvider,
    temporaryDirectory = tmpdir(),
    observer = ignoreObservations,
    ...options
  }: HostedCacheServiceOptions & { readonly observer?: Observer | undefined }) {
    this.#provider = hashProvider;
    this.#temporaryDirectory = temporaryDirectory;
    this.blocks = new SealedBlocks(store, options.clock, leader?.noteFetch);
    this.#cache = new HostedCache({ ...options, blocks: this.blocks, hashProvider, observer });
    const offers = new OfferServer({ cache: leader ?? this.#cache, authenticate, observer });
    const retrieval = new RetrievalServer({ holdings: this.blocks, maxUploads, observer, clock: options.clock });
    const limits = { isAllowed, maxConnections: MAX_CONNECTIONS };
    this.server = createLanHttpServer([retrieval, offers], limits);
    this.tlsServer = tls && createLanHttpServer([offers], { ...limits, tls });
  }

  /** Decides about an offer that another process has taken. */
  get offer(): HostedCache['offer'] {
    return (offer, from) => this.#cache.offer(offer, from);
  }

  /**
   * Puts a content package into the cache, each block verified.
   *
   * @returns bytes of the content
   * @throws {@link PeerDistError} as {@link readPackage}; `ERR_PEERDIST_HASH_MISMATCH`: blocks until then are in
   */
  async import(
    input: AsyncIterable<Uint8Array>,
    { onProgress = () => {}, signal }: Pick<PreloadOptions, 'onProgress' | 'signal'> = {},
  ): Promise<number> {
    let content: DescribedContent | undefined;
    let total = 0;
    for await (const { information, ordinal, bytes } of readPackage(input)) {
      signal?.throwIfAborted();
      if (content === undefined) {
        information.checkBlockLists(this.#provider);
        content = new DescribedContent(information, this.#provider);
      }
      const block = content.block(ordinal);
      if (!content.verify(block, bytes))
        throw new PeerDistError('ERR_PEERDIST_HASH_MISMATCH', 'the package does not match its own hashes');
      const place = { segmentId: content.segmentId(block.segment), blockIndex: block.blockIndex };
      await this.blocks.keep(place, bytes, PRELOADED_LABEL, content.segmentFacts(block.segment));
      total = block.offset + block.length;
      onProgress('import', total, information.range.length);
    }
    return total;
  }

  /** Downloads what stands behind a URL, by way of a temporary file, and puts it into the cache. */
  async preload(url: string, options: PreloadOptions = {}): Promise<number> {
    makeDirectory(this.#temporaryDirectory);
    const directory = mkdtempSync(join(this.#temporaryDirectory, 'preload-'));
    try {
      const file = join(directory, 'package');
      await writePackage(url, file, options);
      return await this.import(createReadStream(file) as AsyncIterable<Uint8Array>, options);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  /** Ends what is under way with clients that had offered; the servers are closed by whoever opened them. */
  close(): void {
    this.#cache.close();
  }
}
