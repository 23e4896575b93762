import { assertByteRange, assertBytes, type ByteRange, toHex } from '../bytes/index.ts';
import type { HashProvider } from '../crypto/index.ts';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import type { Observer } from '../observer.ts';
import {
  type ContentInformation,
  type ContentInformationVersion,
  decodeContentInformation,
  encodeContentInformation,
  type ServerSecret,
  type V1AlgorithmName,
} from '../protocol/pccrc/index.ts';
import type { ContentInformationRecord, ContentInformationStore } from '../stores/index.ts';
import type { HashingEngine, HashingOptions } from '../streams/index.ts';
import { ContentInformationReader } from './content-information-reader.ts';
import type { Abortable, Operation } from './operations.ts';
import { PublicationStream, PublishTransform } from './publication.ts';
import {
  assertPublishOptions,
  type ContentId,
  type OpenContentInformationOptions,
  type PublisherIdentity,
  type PublishOptions,
} from './publish-options.ts';
import { HandleState, type Session } from './session.ts';
import { type Share, Shares } from './shares.ts';

export interface PublisherComponents {
  readonly session: Session;
  readonly store: ContentInformationStore;
  readonly provider: HashProvider;
  readonly secret: ServerSecret;
  readonly observer: Observer;
  readonly identity: PublisherIdentity;
  readonly algorithm?: V1AlgorithmName | undefined;
  /** Makes the engine that hashes one body; inline when absent. */
  readonly createEngine?: ((options: HashingOptions) => HashingEngine) | undefined;
}

interface Name {
  readonly contentId: Uint8Array;
  /** Of a publication that outlives its instance. */
  readonly durableKey: string;
  /** Of one that belongs to this instance. */
  readonly ownKey: string;
}

let instances = 0;

/**
 * Publisher side of the API (`pd.server`). A publication belongs to the identity; unless it is durable it also belongs to the instance and
 * ends with it. Promise members reject with the common set: `INVALID_PARAMETER`, `INVALID_HANDLE`, `DISABLED_BY_POLICY`,
 * `SERVICE_UNAVAILABLE`, `SHUTDOWN_IN_PROGRESS`, `INVALIDATED`, `OPERATION_ABORTED`.
 */
export class PeerDistServer {
  readonly #components: PublisherComponents;
  /** Distinguishes this instance's publications from others' in a shared store. */
  readonly #instance = `${process.pid}-${Date.now().toString(36)}-${(instances += 1)}`;
  /** Identifiers whose bodies are still coming (G4). */
  readonly #inProgress = new Map<string, Share>();
  /** Completed publications that end with this instance. */
  readonly #own = new Set<string>();
  readonly #shares = new Shares();

  constructor(components: PublisherComponents) {
    this.#components = components;
  }

  /**
   * Starts a publication.
   *
   * @throws {@link PeerDistError} common set; `ALREADY_EXISTS` when this identity published the id or is publishing it
   */
  async publish(id: ContentId, options: PublishOptions = {}): Promise<PublicationStream> {
    const { session } = this.#components;
    return this.#run(
      id,
      options,
      async (operation) => {
        let stream: PublicationStream | undefined;
        const transform = await this.#begin(id, options, operation, {
          cancel: async (error) => (await stream?.cancel(error)) ?? 0,
          withdraw: async (error) => (await stream?.abandon(error)) ?? 0,
        });
        stream = new PublicationStream(transform, session, options.length || undefined);
        return stream;
      },
      (late) => void late.close(),
    );
  }

  /**
   * Starts a publication fed by a stream that passes through; the end of input completes it. Convenience.
   *
   * @throws {@link PeerDistError} as {@link publish}
   */
  async publishThrough(id: ContentId, options: PublishOptions = {}): Promise<PublishTransform> {
    return this.#run(
      id,
      options,
      async (operation) => {
        let transform: PublishTransform | undefined;
        const abandon = async (error: PeerDistAbortError): Promise<number> => {
          transform?.abandon(error);
          return 1;
        };
        transform = await this.#begin(id, options, operation, { cancel: abandon, withdraw: abandon });
        return transform;
      },
      (late) => void late.destroy(),
    );
  }

  /**
   * Withdraws a publication of this identity and aborts this session's pending operations on it; a body still coming is not published.
   * Handles already open on it still need closing. What was handed out keeps working.
   *
   * @returns false when there was nothing to withdraw (G6)
   * @throws {@link PeerDistError} common set
   */
  async unpublish(id: ContentId, options: Abortable = {}): Promise<boolean> {
    return this.#components.session.run(options, async () => {
      const { ownKey, durableKey } = this.#name(id);
      const wasInProgress = this.#inProgress.delete(ownKey);
      this.#own.delete(ownKey);
      const { store } = this.#components;
      // First of all: a body that is just about to be stored must know that it is not wanted.
      const told = this.#shares.tell(ownKey, (share) => share.withdraw(new PeerDistAbortError('unpublish')));
      const deleted = await Promise.all([store.delete(ownKey), store.delete(durableKey)]);
      await told;
      return wasInProgress || deleted.includes(true);
    });
  }

  /**
   * Opens the encoded content information of a completed publication of this identity.
   *
   * @throws {@link PeerDistError} common set; `NOT_FOUND`; `CONTENTINFO_VERSION_UNSUPPORTED` when `versions` and what was published do not
   * overlap (G9); `OUT_OF_BOUNDS` when the range starts at or past the end (G7)
   */
  async openContentInformation(
    id: ContentId,
    options: OpenContentInformationOptions = {},
  ): Promise<ContentInformationReader> {
    const { session } = this.#components;
    return this.#run(
      id,
      options,
      async (operation) => {
        const { contentId, ownKey } = this.#name(id);
        const { version, range, encoded } = await this.#describe(id, options);
        operation.assertWanted();
        const share: Share = {
          cancel: (error) => reader.cancel(error),
          withdraw: (error) => reader.cancel(error),
        };
        const onEnd = (): void => this.#shares.leave(ownKey, share);
        const reader = new ContentInformationReader({ contentId, version, range, encoded, session, onEnd });
        this.#shares.join(ownKey, share);
        return reader;
      },
      (late) => void late.close(),
    );
  }

  /** open + read to the end + close. Convenience. */
  async getContentInformation(id: ContentId, options: OpenContentInformationOptions = {}): Promise<Uint8Array> {
    return this.#run(id, options, async () => (await this.#describe(id, options)).encoded);
  }

  /** Aborts this session's pending operations on `id`; settles once each has settled; resolves how many were aborted. */
  async cancelPending(id: ContentId): Promise<number> {
    this.#components.session.assertOpen();
    return this.#shares.tell(this.#name(id).ownKey, (share) => share.cancel(new PeerDistAbortError('cancel')));
  }

  /** Ends every publication that belongs to the instance. Never rejects: a store that fails is only a store that forgets. */
  async withdrawAll(): Promise<void> {
    const error = new PeerDistAbortError('shutdown');
    await this.#shares.tellAll((share) => share.withdraw(error));
    const keys = [...this.#own];
    this.#own.clear();
    await Promise.allSettled(keys.map(async (key) => this.#components.store.delete(key)));
  }

  async #begin(id: ContentId, options: PublishOptions, operation: Operation, share: Share): Promise<PublishTransform> {
    assertPublishOptions(options);
    const { contentId, ownKey, durableKey } = this.#name(id);
    const { store, session, provider, secret, observer, algorithm, createEngine } = this.#components;
    if (this.#inProgress.has(ownKey)) throw alreadyExists();
    this.#inProgress.set(ownKey, share);
    const free = (): void => {
      if (this.#inProgress.get(ownKey) === share) this.#inProgress.delete(ownKey);
    };
    // Cancelled while the store is slow: the identifier is free at once.
    operation.signal.addEventListener('abort', free, { once: true });
    const hashing: HashingOptions = { provider, secret, algorithm };
    let engine: HashingEngine | undefined;
    try {
      const known = await Promise.all([store.get(ownKey), store.get(durableKey)]);
      if (known.some((record) => record !== undefined)) throw alreadyExists();
      operation.assertWanted();
      engine = createEngine?.(hashing);
    } catch (error) {
      free();
      throw error;
    }
    this.#shares.join(ownKey, share);
    const { length, maxBytes, durable = false } = options;
    const key = durable ? durableKey : ownKey;
    const transform = new PublishTransform({
      contentId,
      hashing: { ...hashing, observer, engine, maxBytes, expectedBytes: length || undefined },
      commit: async (information) => {
        const record = toRecord(information);
        await store.set(key, record);
        return { contentId, length: record.contentLength };
      },
      discard: async () => void (await store.delete(key)),
      onEnd: (published) => {
        if (published && !durable) this.#own.add(ownKey);
        this.#shares.leave(ownKey, share);
        free();
        void state.close();
      },
    });
    const state = new HandleState(session, (error) => transform.abandon(error));
    return transform;
  }

  async #describe(
    id: ContentId,
    options: OpenContentInformationOptions,
  ): Promise<{ version: ContentInformationVersion; range: ByteRange; encoded: Uint8Array }> {
    const { ownKey, durableKey } = this.#name(id);
    const { min, max } = options.versions ?? { min: 1, max: 1 };
    if (![1, 2].includes(min) || ![1, 2].includes(max) || min > max)
      throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'versions run from 1 to 2');
    const { store } = this.#components;
    const record = (await store.get(ownKey)) ?? (await store.get(durableKey));
    if (record === undefined)
      throw new PeerDistError('ERR_PEERDIST_NOT_FOUND', 'no completed publication of that identifier');
    const version = ([2, 1] as const).find(
      (candidate) => candidate >= min && candidate <= max && record.encoded[candidate] !== undefined,
    );
    if (version === undefined) {
      throw new PeerDistError(
        'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED',
        'not published in a version the requester reads',
      );
    }
    const whole = record.encoded[version] as Uint8Array;
    const range = options.range;
    if (range !== undefined) assertByteRange(range);
    if (range === undefined || (range.offset === 0 && range.length === 0)) {
      return { version, range: { offset: 0, length: record.contentLength }, encoded: whole };
    }
    if (range.length === 0) throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a range of no bytes');
    const part = decodeContentInformation(whole).slice(range);
    return { version, range: part.range, encoded: encodeContentInformation(part) };
  }

  #run<T>(
    id: ContentId,
    options: Abortable,
    work: (operation: Operation) => Promise<T>,
    dispose?: (late: T) => void,
  ): Promise<T> {
    const { session } = this.#components;
    return this.#shares.run(this.#name(id).ownKey, session, options, work, dispose);
  }

  #name(id: ContentId): Name {
    const contentId = bytesOf(id);
    const durableKey = durableKeyOf(this.#components.identity, contentId);
    return { contentId, durableKey, ownKey: `${durableKey}\0${this.#instance}` };
  }
}

/** Name that a {@link ContentInformationStore} has for a durable publication; for administrators. */
export function durableKeyOf(identity: PublisherIdentity, id: ContentId): string {
  return `${identity}\0${toHex(bytesOf(id))}`;
}

function bytesOf(id: ContentId): Uint8Array {
  if (typeof id === 'string') return new TextEncoder().encode(id);
  assertBytes(id);
  return Uint8Array.from(id);
}

function toRecord(information: readonly ContentInformation[]): ContentInformationRecord {
  return {
    contentLength: information[0]?.range.length ?? 0,
    encoded: Object.fromEntries(information.map((each) => [each.version, encodeContentInformation(each)])),
  };
}

function alreadyExists(): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_ALREADY_EXISTS', 'the identifier is published already');
}
