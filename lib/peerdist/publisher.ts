import { userInfo } from 'node:os';
import { assertByteRange, type ByteRange, toHex } from '../bytes/index.ts';
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
import { ContentHasher, type HashingEngine, type HashingOptions } from '../streams/index.ts';
import { ContentInformationReader } from './content-information-reader.ts';

/** Publisher-chosen label. Opaque bytes; a string means its UTF-8 bytes. Unique for each publisher identity. */
export type ContentId = Uint8Array | string;

/** Stand-in for the Windows account that owns publications. Compared for exact equality. */
export type PublisherIdentity = string;

export interface PublishOptions {
  /** Expected total, bytes. Omitted or 0 = not known; otherwise a body of another length is not published. */
  readonly length?: number | undefined;
  /** Bytes past which publishing is given up while the body flows on. @default Infinity */
  readonly maxBytes?: number | undefined;
}

export interface PublicationInfo {
  readonly contentId: Uint8Array;
  /** Bytes published. */
  readonly length: number;
}

export interface OpenContentInformationOptions {
  /** Part of the content to describe. Omitted, or `{ offset: 0, length: 0 }`, = all of it; an overrun is clamped (G7). */
  readonly range?: ByteRange | undefined;
  /** Formats the requester can read, inclusive. Omitted = version 1 only (G8). */
  readonly versions?: { readonly min: ContentInformationVersion; readonly max: ContentInformationVersion } | undefined;
}

export interface PublisherComponents {
  readonly store: ContentInformationStore;
  readonly provider: HashProvider;
  readonly secret: ServerSecret;
  readonly observer: Observer;
  readonly identity: PublisherIdentity;
  readonly algorithm?: V1AlgorithmName | undefined;
  /** Makes the engine that hashes one body; inline when absent. */
  readonly createEngine?: ((options: HashingOptions) => HashingEngine) | undefined;
}

/** The OS account that runs the process (G21). */
export function defaultIdentity(): PublisherIdentity {
  return userInfo().username;
}

/** A pass-through that publishes what flows through it. Bytes, chunks and order are untouched; 'finish' waits for the publication. */
export class PublishTransform extends ContentHasher {
  readonly contentId: Uint8Array;
  /** Settles when the publication completes. A failure rejects this and leaves the bytes flowing; ignoring it is safe. */
  readonly published: Promise<PublicationInfo>;

  constructor(
    contentId: Uint8Array,
    options: ConstructorParameters<typeof ContentHasher>[0],
    complete: (information: readonly ContentInformation[] | undefined) => Promise<PublicationInfo>,
  ) {
    super(options);
    this.contentId = contentId;
    this.published = this.contentInformation.then(complete);
    this.published.catch(() => {});
  }
}

/** Publisher side of the API (`pd.server`). */
export class PeerDistServer {
  readonly #components: PublisherComponents;
  /** Identifiers whose bodies are still flowing (G4). */
  readonly #inProgress = new Set<string>();
  #closed = false;

  constructor(components: PublisherComponents) {
    this.#components = components;
  }

  /**
   * Starts a publication fed by a stream that passes through; the end of input completes it. Convenience.
   *
   * @throws {@link PeerDistError} `ALREADY_EXISTS` when this identity published the id or is publishing it; `INVALID_HANDLE` after close
   */
  async publishThrough(id: ContentId, options: PublishOptions = {}): Promise<PublishTransform> {
    const { contentId, key } = this.#name(id);
    if (this.#inProgress.has(key)) throw alreadyExists();
    this.#inProgress.add(key);
    try {
      if ((await this.#components.store.get(key)) !== undefined) throw alreadyExists();
    } catch (error) {
      this.#inProgress.delete(key);
      throw error;
    }
    const { provider, secret, observer, algorithm, createEngine } = this.#components;
    const hashing: HashingOptions = { provider, secret, algorithm };
    return new PublishTransform(
      contentId,
      {
        ...hashing,
        observer,
        engine: createEngine?.(hashing),
        maxBytes: options.maxBytes,
        expectedBytes: options.length || undefined,
      },
      async (information) => {
        try {
          if (information === undefined) throw new PeerDistAbortError('close');
          if (this.#closed) throw new PeerDistAbortError('shutdown');
          const record = toRecord(information);
          await this.#components.store.set(key, record);
          return { contentId, length: record.contentLength };
        } finally {
          this.#inProgress.delete(key);
        }
      },
    );
  }

  /** Withdraws a publication of this identity; false when there was nothing (G6). What was handed out keeps working. */
  async unpublish(id: ContentId): Promise<boolean> {
    return this.#components.store.delete(this.#name(id).key);
  }

  /**
   * Opens the encoded content information of a completed publication of this identity.
   *
   * @throws {@link PeerDistError} `NOT_FOUND`; `CONTENTINFO_VERSION_UNSUPPORTED` when `versions` and what was published do not overlap;
   * `OUT_OF_BOUNDS` when the range starts at or past the end; `INVALID_PARAMETER` for a span or range that makes no sense
   */
  async openContentInformation(
    id: ContentId,
    options: OpenContentInformationOptions = {},
  ): Promise<ContentInformationReader> {
    const { contentId, key } = this.#name(id);
    const { min, max } = options.versions ?? { min: 1, max: 1 };
    if (min > max || min < 1 || max > 2)
      throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'versions run from 1 to 2');
    const record = await this.#components.store.get(key);
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
      return new ContentInformationReader(contentId, version, { offset: 0, length: record.contentLength }, whole);
    }
    if (range.length === 0) throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'a range of no bytes');
    const part = decodeContentInformation(whole).slice(range);
    return new ContentInformationReader(contentId, version, part.range, encodeContentInformation(part));
  }

  /** open + read to the end + close. Convenience. */
  async getContentInformation(id: ContentId, options: OpenContentInformationOptions = {}): Promise<Uint8Array> {
    const reader = await this.openContentInformation(id, options);
    try {
      return await reader.readAll();
    } finally {
      await reader.close();
    }
  }

  /** Ends the publisher: nothing completes any more. */
  close(): void {
    this.#closed = true;
  }

  #name(id: ContentId): { readonly contentId: Uint8Array; readonly key: string } {
    if (this.#closed) throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the instance is closed');
    const contentId = typeof id === 'string' ? new TextEncoder().encode(id) : Uint8Array.from(id);
    return { contentId, key: `${this.#components.identity}\0${toHex(contentId)}` };
  }
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
