import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { toHex } from '../bytes/index.ts';
import { type Clock, systemClock } from '../clock.ts';
import { type HashProvider, nativeHashProvider } from '../crypto/index.ts';
import { PeerDistError } from '../errors.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import { ServerSecret, type V1AlgorithmName } from '../protocol/pccrc/index.ts';
import { BlockBroker, type BlockBrokerOptions, type BlockSource } from '../services/index.ts';
import {
  type BlockStore,
  type Claims,
  type ContentInformationStore,
  MemoryBlockStore,
  MemoryContentInformationStore,
} from '../stores/index.ts';
import type { HashingEngine, HashingOptions } from '../streams/index.ts';
import { ContentHandle } from './content-handle.ts';
import { ContentRecorder, type RecordOptions } from './content-recorder.ts';
import { FlashCrowd } from './flash-crowd.ts';
import type { Abortable } from './operations.ts';
import { defaultIdentity, type PublisherIdentity } from './publish-options.ts';
import { PeerDistServer } from './publisher.ts';
import { Quarantine } from './quarantine.ts';
import { type PeerDistStatus, Session } from './session.ts';
import { type PeerDistStatusInfo, StatusNotifications } from './status.ts';

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
  /** Told of each block that came from the origin and is in the store now: by `onMissing` or `addData`. */
  readonly onOriginBlock?: BlockBrokerOptions['onOriginBlock'];
  /** Shared by the processes that share the block store: of these, one brings a block from the origin. */
  readonly claims?: Claims | undefined;
  readonly hashProvider?: HashProvider | undefined;
  /** Where publications are hashed. @default on the calling thread */
  readonly createEngine?: ((options: HashingOptions) => HashingEngine) | undefined;
  readonly clock?: Clock | undefined;
  readonly observer?: Observer | undefined;
}

/** Version of the API; compared major first. */
export interface ApiVersion {
  readonly major: number;
  readonly minor: number;
}

export interface PeerDistOptions {
  /** Oldest version the caller can live with. @default 1.0 */
  readonly minimumVersion?: ApiVersion | undefined;
  /** Owner of everything published here. @default the OS account that runs the process */
  readonly identity?: PublisherIdentity | undefined;
  /** Secret of the content server, and of what is recorded here. @default 32 random bytes: what is published then cannot be found again after a restart */
  readonly serverSecret?: ServerSecret | undefined;
  /** Hash of version 1 content information. @default 'sha256' */
  readonly algorithm?: V1AlgorithmName | undefined;
  readonly components?: PeerDistComponents | undefined;
}

export interface OpenContentOptions extends Abortable {
  /** True: peers are neither asked for the content nor given it. Extension. @default false */
  readonly isPrivate?: boolean | undefined;
}

/** Consumer side of the API (`pd.client`). Members reject with the common set, see {@link PeerDistServer}. */
export interface PeerDistClient {
  /**
   * New handle, not yet tied to any content.
   *
   * @throws {@link PeerDistError} common set; `INVALID_PARAMETER` unless the tag is 16 bytes
   */
  openContent(tag: ContentTag, options?: OpenContentOptions): Promise<ContentHandle>;
  /**
   * Describes a content under the instance's server secret as it comes, and keeps its blocks under `tag`. Extension, for contents whose origin
   * describes nothing.
   *
   * @throws {@link PeerDistError} `INVALID_HANDLE`, `SERVICE_UNAVAILABLE`, `DISABLED_BY_POLICY`; `INVALID_PARAMETER` unless the tag is 16 bytes
   */
  record(tag: ContentTag, options?: RecordOptions): ContentRecorder;
  /**
   * Drops from the local cache what was added or pulled under `tag` alone; open handles survive and see holes (G17).
   *
   * @throws {@link PeerDistError} as {@link openContent}
   */
  flush(tag: ContentTag, options?: Abortable): Promise<void>;
}

export interface PeerDistEvents {
  /** Status differs from the one last delivered; the baseline is 'disabled'. */
  status: [status: PeerDistStatus, info: PeerDistStatusInfo];
  close: [];
}

/** Newest version of the API: that of Windows 8. */
const SUPPORTED_VERSION: ApiVersion = { major: 2, minor: 0 };

/**
 * One session of the Peer Distribution API. Everything it makes belongs to it and ends with it, except durable publications and cached
 * content. Opening succeeds even while the service is disabled or unavailable; ask {@link getStatus}.
 */
export class PeerDist extends EventEmitter<PeerDistEvents> implements AsyncDisposable {
  readonly supportedVersion = SUPPORTED_VERSION;
  readonly identity: PublisherIdentity;
  readonly client: PeerDistClient;
  readonly server: PeerDistServer;
  readonly #session = new Session();
  readonly #notifications: StatusNotifications;
  #closing: Promise<void> | undefined;

  /**
   * Opens a session.
   *
   * @throws {@link PeerDistError} `INVALID_PARAMETER`; `VERSION_UNSUPPORTED` when `minimumVersion` is newer than what there is
   */
  static async open(options: PeerDistOptions = {}): Promise<PeerDist> {
    assertVersion(options.minimumVersion);
    return new PeerDist(options);
  }

  private constructor(options: PeerDistOptions) {
    super();
    const { components = {} } = options;
    const session = this.#session;
    const observer = components.observer ?? ignoreObservations;
    const provider = components.hashProvider ?? nativeHashProvider;
    const clock = components.clock ?? systemClock;
    this.identity = options.identity ?? defaultIdentity();
    this.#notifications = new StatusNotifications({
      current: () => this.getStatusInfo(),
      emit: (info) => this.emit('status', info.status, info),
      hasListeners: () => this.listenerCount('status') > 0,
    });
    (this as EventEmitter).on('newListener', (event) => {
      if (event === 'status') this.#notifications.arm();
    });
    const secret = options.serverSecret ?? new ServerSecret(randomBytes(32));
    this.server = new PeerDistServer({
      session,
      identity: this.identity,
      secret,
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
      onOriginBlock: components.onOriginBlock,
      claims: components.claims,
      observer,
      clock,
    });
    const quarantine = new Quarantine(clock);
    const crowd = new FlashCrowd(clock);
    const parts = { session, broker, sources: components.sources ?? [], provider, quarantine, crowd, observer, clock };
    this.client = {
      openContent: (tag, opening = {}) =>
        session.run(
          opening,
          async () => {
            assertTag(tag);
            return new ContentHandle(Uint8Array.from(tag), parts, opening.isPrivate);
          },
          (late) => void late.close(),
        ),
      record: (tag, recording = {}) => {
        session.assertServing();
        assertTag(tag);
        return new ContentRecorder({ ...recording, broker, provider, secret, label: toHex(tag) });
      },
      flush: (tag, flushing = {}) =>
        session.run(flushing, async () => {
          assertTag(tag);
          quarantine.flush(toHex(tag));
          await broker.flush(toHex(tag));
        }),
    };
  }

  get closed(): boolean {
    return this.#session.isClosed;
  }

  /** @throws {@link PeerDistError} `INVALID_HANDLE` after close */
  getStatus(): PeerDistStatus {
    return this.getStatusInfo().status;
  }

  /** Status and the content information formats the service handles. @throws {@link PeerDistError} `INVALID_HANDLE` after close */
  getStatusInfo(): PeerDistStatusInfo {
    if (this.closed) throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the instance is closed');
    return { status: this.#session.status, minContentInfoVersion: 1, maxContentInfoVersion: 2 };
  }

  /**
   * Switches the service, as an administrator does by policy. Losing it ends every open handle with `INVALIDATED` and fails what is asked
   * for from then on; publications survive, and with 'available' new handles work again (G18). Extension.
   *
   * @throws {@link PeerDistError} `INVALID_HANDLE` after close; `INVALID_PARAMETER`
   */
  setStatus(status: PeerDistStatus): void {
    this.#session.assertOpen();
    if (!STATUSES.has(status)) throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'no such status');
    this.#session.status = status;
    this.#notifications.arm();
  }

  /**
   * One-shot: settles at the next status that differs from the one last delivered to anybody; at once, unless the status is 'disabled',
   * when nothing was ever delivered. 'unavailable' may come first: loop until 'available'.
   *
   * @throws {@link PeerDistError} `INVALID_HANDLE`; `OPERATION_ABORTED` (signal, {@link stopStatusNotifications}, close)
   */
  async nextStatus(options: Abortable = {}): Promise<PeerDistStatusInfo> {
    this.#session.assertOpen();
    return this.#notifications.next(options);
  }

  /** Self-re-arming form of {@link nextStatus}. Only the newest undelivered status is kept. Ends quietly on close. */
  statusChanges(options: Abortable = {}): AsyncGenerator<PeerDistStatusInfo, undefined> {
    return this.#notifications.changes(options);
  }

  /** Drops every 'status' listener, ends iterators, aborts {@link nextStatus}. Does nothing when nothing is registered. */
  stopStatusNotifications(): void {
    this.removeAllListeners('status');
    this.#notifications.stop('unregister');
  }

  /**
   * Aborts pending operations, ends every handle, withdraws every publication that is not durable. Cached content is left alone. Idempotent.
   *
   * @param options.drain first waits for what is pending (the recommended order), except for status registrations and streams
   * @throws {@link PeerDistError} `OPERATION_ABORTED` when `signal` cuts the drain short; the session is closed all the same
   */
  close(options: Abortable & { readonly drain?: boolean | undefined } = {}): Promise<void> {
    if (this.#closing !== undefined) {
      // Whoever comes second can hasten it, and only learns that it is done (G25).
      if (options.drain !== true) this.#session.cutDrain();
      return this.#closing.catch(() => {});
    }
    this.#closing = this.#close(options);
    return this.#closing;
  }

  /** `close({ drain: true })`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close({ drain: true });
  }

  async #close(options: Abortable & { readonly drain?: boolean | undefined }): Promise<void> {
    this.#notifications.stop('shutdown');
    try {
      await this.#session.close(options);
    } finally {
      await this.server.withdrawAll();
      this.emit('close');
    }
  }
}

const STATUSES: ReadonlySet<PeerDistStatus> = new Set(['disabled', 'unavailable', 'available']);

function assertTag(tag: ContentTag): void {
  if (!(tag instanceof Uint8Array) || tag.byteLength !== CONTENT_TAG_BYTES)
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a content tag has 16 bytes');
}

function assertVersion({ major, minor }: ApiVersion = { major: 1, minor: 0 }): void {
  if (!Number.isSafeInteger(major) || !Number.isSafeInteger(minor) || major < 0 || minor < 0)
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a version has two whole numbers');
  const isNewer =
    major > SUPPORTED_VERSION.major || (major === SUPPORTED_VERSION.major && minor > SUPPORTED_VERSION.minor);
  if (isNewer) throw new PeerDistError('ERR_PEERDIST_VERSION_UNSUPPORTED', 'a newer version than there is');
}
