import { randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '../clock.ts';
import { type HashProvider, nativeHashProvider } from '../crypto/index.ts';
import { PeerDistError } from '../errors.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { ServerSecret, type V1AlgorithmName } from '../protocol/pccrc/index.ts';
import { BlockBroker, type BlockSource } from '../services/index.ts';
import {
  type BlockStore,
  type ContentInformationStore,
  MemoryBlockStore,
  MemoryContentInformationStore,
} from '../stores/index.ts';
import type { HashingEngine, HashingOptions } from '../streams/index.ts';
import { ContentHandle } from './content-handle.ts';
import { defaultIdentity, PeerDistServer, type PublisherIdentity } from './publisher.ts';

/** Consumer-chosen cache label, exactly 16 bytes. */
export type ContentTag = Uint8Array;
export const CONTENT_TAG_BYTES = 16;

/** Memory given to each store when none is passed in. Policy, not protocol. */
const DEFAULT_BLOCK_STORE_BYTES = 256 * 1024 * 1024;
const DEFAULT_CONTENT_INFORMATION_STORE_BYTES = 64 * 1024 * 1024;

/** The parts an instance is made of; each has a default in memory. */
export interface PeerDistComponents {
  readonly blockStore?: BlockStore | undefined;
  readonly contentInformationStore?: ContentInformationStore | undefined;
  /** Asked for blocks between the own store and `onMissing`, in this order. */
  readonly sources?: readonly BlockSource[] | undefined;
  readonly hashProvider?: HashProvider | undefined;
  /** Where publications are hashed. @default on the calling thread */
  readonly createEngine?: ((options: HashingOptions) => HashingEngine) | undefined;
  readonly clock?: Clock | undefined;
  readonly observer?: Observer | undefined;
}

export interface PeerDistOptions {
  /** Owner of everything published here. @default the OS account that runs the process */
  readonly identity?: PublisherIdentity | undefined;
  /** Secret of the content server. @default 32 random bytes: what is published then cannot be found again after a restart */
  readonly serverSecret?: ServerSecret | undefined;
  /** Hash of version 1 content information. @default 'sha256' */
  readonly algorithm?: V1AlgorithmName | undefined;
  readonly components?: PeerDistComponents | undefined;
}

/** Consumer side of the API (`pd.client`). */
export interface PeerDistClient {
  /**
   * New handle, not yet tied to any content.
   *
   * @throws {@link PeerDistError} `INVALID_PARAMETER` unless the tag is 16 bytes; `INVALID_HANDLE` after close
   */
  openContent(tag: ContentTag): Promise<ContentHandle>;
}

/** One session of the Peer Distribution API. Everything it makes belongs to it. */
export class PeerDist implements AsyncDisposable {
  readonly client: PeerDistClient;
  readonly server: PeerDistServer;
  readonly identity: PublisherIdentity;
  #closed = false;

  /** Opens a session. */
  static async open(options: PeerDistOptions = {}): Promise<PeerDist> {
    return new PeerDist(options);
  }

  private constructor(options: PeerDistOptions) {
    const { components = {} } = options;
    const observer = components.observer ?? ignoreObservations;
    const provider = components.hashProvider ?? nativeHashProvider;
    const clock = components.clock ?? systemClock;
    this.identity = options.identity ?? defaultIdentity();
    this.server = new PeerDistServer({
      identity: this.identity,
      secret: options.serverSecret ?? new ServerSecret(randomBytes(32)),
      store:
        components.contentInformationStore ??
        new MemoryContentInformationStore({ maxBytes: DEFAULT_CONTENT_INFORMATION_STORE_BYTES, observer }),
      algorithm: options.algorithm,
      createEngine: components.createEngine,
      provider,
      observer,
    });
    const broker = new BlockBroker({
      store: components.blockStore ?? new MemoryBlockStore({ maxBytes: DEFAULT_BLOCK_STORE_BYTES, observer }),
      observer,
      clock,
    });
    this.client = {
      openContent: async (tag) => {
        if (this.#closed) throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the instance is closed');
        if (tag.byteLength !== CONTENT_TAG_BYTES)
          throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a content tag has 16 bytes');
        return new ContentHandle(Uint8Array.from(tag), {
          broker,
          sources: components.sources ?? [],
          provider,
          observer,
          clock,
        });
      },
    };
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Ends the session. Cached content is left alone. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    this.server.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
