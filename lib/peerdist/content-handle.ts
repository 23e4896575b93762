import type { Readable } from 'node:stream';
import { assertByteRange, type ByteRange, covers, intersect, rangeEnd } from '../bytes/index.ts';
import type { Clock } from '../clock.ts';
import type { HashProvider } from '../crypto/index.ts';
import { PeerDistError } from '../errors.ts';
import type { BlockOrigin, Observer } from '../observer.ts';
import { type ContentInformationVersion, decodeContentInformation } from '../protocol/pccrc/index.ts';
import {
  type BlockBroker,
  type BlockSource,
  DescribedContent,
  type FetchMissing,
  OriginSource,
} from '../services/index.ts';
import { type AssemblerPart, RangeAssembler } from '../streams/index.ts';
import { PartialBlocks } from './partial-blocks.ts';

export interface ContentDescription {
  readonly version: ContentInformationVersion;
  /** Bytes covered by the content information; reads stay inside. */
  readonly range: ByteRange;
}

/** Byte counts of one `addData` call. Extension: Win32 only says that the operation finished. */
export interface AddDataResult {
  /** Checked and cached. */
  readonly verified: number;
  /** Held until the rest of their block arrives. */
  readonly pending: number;
  /** Hash mismatch, or outside what the content information describes; thrown away. */
  readonly rejected: number;
}

/**
 * Supplies exactly `missing.length` bytes. Extension to G14: the range is widened to block edges, so that every byte can be verified
 * before it goes downstream.
 */
export type MissingRangeHandler = (
  missing: ByteRange,
  context: { readonly reason: 'missing'; readonly signal: AbortSignal },
) => Promise<Uint8Array | AsyncIterable<Uint8Array>> | AsyncIterable<Uint8Array>;

export interface ContentReadStreamOptions {
  /** Bytes to read. Extension. @default all that is described */
  readonly range?: ByteRange | undefined;
  /** Fills holes. Without it a hole destroys the stream with `PeerDistMissingDataError`. */
  readonly onMissing?: MissingRangeHandler | undefined;
  /** False keeps what `onMissing` brings out of the cache. @default true */
  readonly cacheMissing?: boolean | undefined;
  /** Bytes fetched ahead of the reader. @default 4 MiB */
  readonly lookAheadBytes?: number | undefined;
  /** Told the source of every byte that goes downstream. */
  readonly onSource?: ((source: BlockOrigin, bytes: number) => void) | undefined;
}

export interface ContentHandleComponents {
  readonly broker: BlockBroker;
  /** Asked between the own store and the origin. */
  readonly sources: readonly BlockSource[];
  readonly provider: HashProvider;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** Bytes of content information one handle takes: a terabyte in version 2. Policy, not protocol. */
const MAX_CONTENT_INFORMATION_BYTES = 1024 * 1024 * 1024;

/** Consumer handle (`pd.client.openContent`). Order: `addContentInformation`* → `completeContentInformation` → reads and `addData`. */
export class ContentHandle implements AsyncDisposable {
  readonly tag: Uint8Array;
  readonly #components: ContentHandleComponents;
  readonly #origin: OriginSource;
  readonly #partials = new PartialBlocks();
  readonly #pieces: Uint8Array[] = [];
  #pieceBytes = 0;
  #content: DescribedContent | undefined;
  #phase: 'describing' | 'ready' | 'failed' | 'closed' = 'describing';
  #failure: unknown;

  constructor(tag: Uint8Array, components: ContentHandleComponents) {
    this.tag = tag;
    this.#components = components;
    this.#origin = new OriginSource({
      clock: components.clock,
      isHeld: ({ content }, ordinal) => components.broker.holds(content, ordinal),
    });
  }

  get phase(): 'describing' | 'ready' | 'failed' | 'closed' {
    return this.#phase;
  }

  /** Set once `phase` is 'ready'. */
  get description(): ContentDescription | undefined {
    const information = this.#content?.information;
    return information && { version: information.version, range: information.range };
  }

  /** Takes one piece of content information, split anywhere; it must not change until `completeContentInformation` settles. */
  async addContentInformation(chunk: Uint8Array): Promise<void> {
    this.#assertDescribing();
    this.#pieceBytes += chunk.byteLength;
    if (this.#pieceBytes > MAX_CONTENT_INFORMATION_BYTES) {
      this.#failure = new PeerDistError('ERR_PEERDIST_LIMIT', 'too much content information');
      this.#phase = 'failed';
      throw this.#failure;
    }
    this.#pieces.push(chunk);
  }

  /**
   * Seals the content information; reads are legal once this resolves.
   *
   * @throws {@link PeerDistError} `CANNOT_PARSE_CONTENTINFO`, `CONTENTINFO_VERSION_UNSUPPORTED`, `ALREADY_COMPLETED`, `INVALID_HANDLE`
   */
  async completeContentInformation(): Promise<ContentDescription> {
    this.#assertDescribing();
    const { provider } = this.#components;
    try {
      const information = decodeContentInformation(Buffer.concat(this.#pieces));
      information.checkBlockLists(provider);
      this.#content = new DescribedContent(information, provider);
    } catch (error) {
      this.#failure = error;
      this.#phase = 'failed';
      throw error;
    } finally {
      this.#pieces.length = 0;
    }
    this.#phase = 'ready';
    return this.description as ContentDescription;
  }

  /** Both of the above from bytes at hand. Convenience. */
  async setContentInformation(source: Uint8Array): Promise<ContentDescription> {
    await this.addContentInformation(source);
    return this.completeContentInformation();
  }

  /**
   * Gives content bytes to the cache, normally ones that came another way. Whole blocks are verified and stored; the rest of a block
   * is awaited. A mismatch is counted, not thrown (G16).
   *
   * @param offset bytes from the start of the whole content
   * @throws {@link PeerDistError} `NOT_INITIALIZED` before the content information is complete; `INVALID_PARAMETER`; `INVALID_HANDLE`
   */
  async addData(offset: number, data: Uint8Array): Promise<AddDataResult> {
    const content = this.#ready();
    assertByteRange({ offset, length: data.byteLength });
    const part = intersect(verifiable(content), { offset, length: data.byteLength });
    const result = { verified: 0, pending: 0, rejected: data.byteLength - part.length };
    for (let at = part.offset; at < rangeEnd(part);) {
      const block = content.block(content.information.ordinalAt(at));
      const stop = Math.min(rangeEnd(block), rangeEnd(part));
      const piece = data.subarray(at - offset, stop - offset);
      const whole =
        piece.byteLength === block.length
          ? Uint8Array.from(piece)
          : this.#partials.add(block.ordinal, block, at, piece);
      if (whole === undefined) result.pending += piece.byteLength;
      else {
        const matches = content.verify(block, whole);
        this.#components.observer({ type: 'verification', result: matches ? 'match' : 'mismatch' });
        if (matches) await this.#components.broker.keep(content, block, whole);
        result[matches ? 'verified' : 'rejected'] += piece.byteLength;
      }
      at = stop;
    }
    return result;
  }

  /**
   * The bytes of a range when all of them are in the own store and the store answers at once; undefined otherwise. Extension: the
   * fast way of a warm cache, with no stream in between. The pieces are views and must not be written to.
   */
  peek(range: ByteRange): Uint8Array[] | undefined {
    const content = this.#ready();
    if (!covers(content.information.range, range)) return undefined;
    const pieces: Uint8Array[] = [];
    if (range.length === 0) return pieces;
    const { broker } = this.#components;
    const { first, last } = content.ordinals(range);
    for (let ordinal = first; ordinal <= last; ordinal += 1) {
      const block = content.block(ordinal);
      const bytes = broker.peek(content, block);
      if (bytes === undefined) return undefined;
      pieces.push(clip(block, bytes, range));
    }
    return pieces;
  }

  /**
   * Contiguous bytes of a range, each verified before it goes downstream: from the own store, the configured sources, and what
   * `onMissing` brings. Destroy the stream to stop.
   *
   * @throws {@link PeerDistError} `NOT_INITIALIZED`, `INVALID_HANDLE`; `NO_MORE` when the range is not inside the described one
   */
  createReadStream(options: ContentReadStreamOptions = {}): Readable {
    const content = this.#ready();
    const range = options.range ?? content.information.range;
    assertByteRange(range);
    if (!covers(content.information.range, range)) {
      throw new PeerDistError('ERR_PEERDIST_NO_MORE', 'the range is not described', { actual: range });
    }
    return new RangeAssembler(this.#parts(content, range, options), { lookAheadBytes: options.lookAheadBytes });
  }

  /** Releases the handle. Idempotent, never rejects. Streams already open run to their end. */
  async close(): Promise<void> {
    this.#phase = 'closed';
    this.#pieces.length = 0;
    this.#partials.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  *#parts(content: DescribedContent, range: ByteRange, options: ContentReadStreamOptions): Generator<AssemblerPart> {
    if (range.length === 0) return;
    const { broker, sources } = this.#components;
    const { onMissing, onSource, cacheMissing = true } = options;
    const { first, last } = content.ordinals(range);
    const fetchMissing: FetchMissing | undefined =
      onMissing &&
      (async (missing, signal) => {
        const supplied = await onMissing(missing, { reason: 'missing', signal });
        return supplied instanceof Uint8Array ? oneChunk(supplied) : supplied;
      });
    const order = fetchMissing === undefined ? sources : [...sources, this.#origin];
    for (let ordinal = first; ordinal <= last; ordinal += 1) {
      const block = content.block(ordinal);
      const length = intersect(block, range).length;
      yield {
        length,
        fetch: (signal) => {
          const retrieved = broker.retrieve(
            { content, ordinal, lastOrdinal: last, persist: cacheMissing, fetchMissing },
            order,
            signal,
          );
          const take = ({ bytes, source }: { bytes: Uint8Array; source: BlockOrigin }): Uint8Array => {
            onSource?.(source, length);
            return clip(block, bytes, range);
          };
          return 'bytes' in retrieved ? take(retrieved) : retrieved.then(take);
        },
      };
    }
  }

  #assertDescribing(): void {
    if (this.#phase === 'describing') return;
    if (this.#phase === 'closed')
      throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the content handle is closed');
    if (this.#phase === 'failed') throw this.#failure;
    throw new PeerDistError('ERR_PEERDIST_ALREADY_COMPLETED', 'the content information is sealed');
  }

  #ready(): DescribedContent {
    if (this.#phase === 'closed')
      throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the content handle is closed');
    if (this.#content === undefined) {
      throw new PeerDistError('ERR_PEERDIST_NOT_INITIALIZED', 'the content information is not complete');
    }
    return this.#content;
  }
}

/** The described range, widened to the edges of its blocks: what lies in them can be verified. */
function verifiable({ information }: DescribedContent): ByteRange {
  const { range } = information;
  if (range.length === 0) return range;
  const { offset } = information.block(information.ordinalAt(range.offset));
  return { offset, length: rangeEnd(information.block(information.ordinalAt(rangeEnd(range) - 1))) - offset };
}

/** The part of a block that lies in the range. */
function clip(block: ByteRange, bytes: Uint8Array, range: ByteRange): Uint8Array {
  const part = intersect(block, range);
  return part.length === block.length
    ? bytes
    : bytes.subarray(part.offset - block.offset, rangeEnd(part) - block.offset);
}

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
