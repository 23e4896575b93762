import { type Readable, Writable } from 'node:stream';
import { assertByteRange, assertBytes, type ByteRange, intersect, rangeEnd, toHex } from '../bytes/index.ts';
import type { Clock } from '../clock.ts';
import type { HashProvider } from '../crypto/index.ts';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import type { Observer } from '../observer.ts';
import { encodeContentInformation } from '../protocol/pccrc/index.ts';
import type { BlockBroker, BlockSource, DescribedContent } from '../services/index.ts';
import { AddedData, type AddDataResult } from './added-data.ts';
import {
  availableBytes,
  peekContent,
  readContent,
  type ReadOptions,
  readRequest,
  type ReadResult,
} from './content-reads.ts';
import { ContentStreams, type ContentReadStreamOptions } from './content-streams.ts';
import { type ContentDescription, Description } from './description.ts';
import type { FlashCrowd } from './flash-crowd.ts';
import type { Abortable, Operation } from './operations.ts';
import type { Quarantine } from './quarantine.ts';
import { HandleState, type Session } from './session.ts';

/** What a whole walk of the content yields: never 'end', the iterator just finishes. */
export type ContentSegment = Exclude<ReadResult, { kind: 'end' }>;

/** Registry behind `getInformation`; grows by declaration merging. */
export interface ClientInformation {
  basic: {
    /** Many readers of this site want the same content now, so a hole may soon be fillable from peers. */
    readonly flashCrowd: boolean;
  };
}

export interface ContentHandleComponents {
  readonly session: Session;
  readonly broker: BlockBroker;
  /** Asked between the own store and the origin. */
  readonly sources: readonly BlockSource[];
  readonly provider: HashProvider;
  readonly quarantine: Quarantine;
  readonly crowd: FlashCrowd;
  readonly observer: Observer;
  readonly clock: Clock;
}

/**
 * Consumer handle (`pd.client.openContent`). Order: `addContentInformation`* → `completeContentInformation` → reads; `addData` at any time.
 * Promise members reject with the common set: `INVALID_PARAMETER`, `INVALID_HANDLE`, `INVALIDATED`, `OPERATION_ABORTED`.
 */
export class ContentHandle implements AsyncDisposable, AsyncIterable<ContentSegment> {
  readonly tag: Uint8Array;
  readonly #label: string;
  readonly #components: ContentHandleComponents;
  readonly #state: HandleState;
  readonly #description: Description;
  readonly #data: AddedData;
  #streams: ContentStreams | undefined;
  #position: number | undefined;
  /** Reads at the cursor are served one after the other. */
  #turn: Promise<unknown> | undefined;

  /** @param isPrivate peers are neither asked for the content nor given it */
  constructor(tag: Uint8Array, components: ContentHandleComponents, isPrivate = false) {
    const { session, broker, quarantine, observer, provider } = components;
    this.tag = tag;
    this.#label = toHex(tag);
    this.#components = components;
    this.#description = new Description(provider, isPrivate);
    this.#data = new AddedData({ broker, quarantine, observer, label: this.#label });
    const onFlush = (): void => this.#data.clear();
    quarantine.enter(this.#label, onFlush);
    this.#state = new HandleState(session, () => {
      quarantine.leave(this.#label, onFlush);
      this.#data.clear();
      const { content } = this.#description;
      this.#description.clear();
      if (content !== undefined) components.crowd.leave(crowdKeyOf(content), this);
    });
  }

  get phase(): 'describing' | 'ready' | 'failed' | 'invalidated' | 'closed' {
    return this.#state.end ?? this.#description.phase;
  }

  /** Set once `phase` is 'ready'. */
  get description(): ContentDescription | undefined {
    return this.#description.summary;
  }

  /** The content information again, encoded in one piece; undefined unless `phase` is 'ready'. Extension. */
  encodeContentInformation(): Uint8Array | undefined {
    const { content } = this.#description;
    return content && encodeContentInformation(content.information);
  }

  /** Where the next `read` starts, bytes from the start of the content; begins where the description begins. */
  get position(): number {
    return this.#position ?? this.#description.summary?.range.offset ?? 0;
  }

  /**
   * Takes one piece of content information, split anywhere. Calls queue in order (G3); do not modify `chunk` until settled.
   *
   * @throws {@link PeerDistError} common set; `CANNOT_PARSE_CONTENTINFO`, `CONTENTINFO_VERSION_UNSUPPORTED`, `LIMIT`, each repeated by every
   * later call; `ALREADY_COMPLETED` (G2)
   */
  addContentInformation(chunk: Uint8Array, options: Abortable = {}): Promise<void> {
    let begun = false;
    const added = this.#state.run(options, async () => {
      begun = true;
      this.#description.add(chunk);
    });
    // Cancelled half-way: what was taken is unknowable (G24).
    return added.catch((error: unknown) => {
      if (begun && error instanceof PeerDistAbortError) this.#description.fail(error);
      throw error;
    });
  }

  /**
   * Seals the content information; reads are legal once this resolves, and data that waited for it has been tried.
   *
   * @throws {@link PeerDistError} as {@link addContentInformation}
   */
  completeContentInformation(options: Abortable = {}): Promise<ContentDescription> {
    return this.#state.run(options, async () => {
      const content = this.#description.complete();
      await this.#data.promote(content);
      return this.#description.summary as ContentDescription;
    });
  }

  /** Both of the above from one source. Convenience. */
  async setContentInformation(
    source: Uint8Array | AsyncIterable<Uint8Array>,
    options: Abortable = {},
  ): Promise<ContentDescription> {
    for await (const chunk of source instanceof Uint8Array ? [source] : source)
      await this.addContentInformation(chunk, options);
    return this.completeContentInformation(options);
  }

  /** write = add, end = complete, for `pipeline(response, …)`. Convenience. */
  contentInformationWritable(options: Abortable = {}): Writable {
    const write = (chunk: Uint8Array): Promise<void> => this.addContentInformation(chunk);
    return this.#state.adopt(
      sink(write, () => this.completeContentInformation()),
      options,
    );
  }

  /**
   * Gives content bytes to the cache, normally ones that came another way. What is described is verified and stored by whole blocks; the
   * rest waits (G15). A mismatch is counted, not thrown (G16).
   *
   * @param offset bytes from the start of the whole content
   * @param data must not change until settled
   * @throws {@link PeerDistError} common set; `OUT_OF_BOUNDS` past the end of the content, where that is known
   */
  addData(offset: number, data: Uint8Array, options: Abortable = {}): Promise<AddDataResult> {
    return this.#state.run(options, async () => {
      assertBytes(data);
      assertByteRange({ offset, length: data.byteLength });
      const { content } = this.#description;
      return content === undefined ? this.#data.hold({ offset, data }) : this.#data.add(content, { offset, data });
    });
  }

  /** `addData` as a sink, from `offset` on. Convenience. */
  dataWritable(offset: number, options: Abortable = {}): Writable {
    let at = offset;
    const write = (chunk: Uint8Array): Promise<AddDataResult> => {
      const from = at;
      at += chunk.byteLength;
      return this.addData(from, chunk);
    };
    return this.#state.adopt(sink(write), options);
  }

  /**
   * Positioned read; any number may be in flight, in any order. Holes and the end are results.
   *
   * @throws {@link PeerDistError} common set; `NOT_INITIALIZED` before the content information is complete (G1)
   */
  readAt(offset: number, options: ReadOptions = {}): Promise<ReadResult> {
    return this.#state.run(options, async (operation) => {
      const request = readRequest(options);
      assertByteRange({ offset, length: 0 });
      return this.#read(offset, request, operation);
    });
  }

  /**
   * Read at `position`. Overlapping calls are served in call order. `position` moves by the bytes read or by the hole, which starts at it
   * (G13); at the end and on errors it stays.
   *
   * @throws {@link PeerDistError} as {@link readAt}
   */
  read(options: ReadOptions = {}): Promise<ReadResult> {
    return this.#state.run(options, async (operation) => {
      const request = readRequest(options);
      const before = this.#turn;
      let done = (): void => {};
      const turn = new Promise<void>((resolve) => (done = resolve));
      this.#turn = turn;
      try {
        await before;
        operation.assertWanted();
        return await this.#readOn(request, operation);
      } finally {
        if (this.#turn === turn) this.#turn = undefined;
        done();
      }
    });
  }

  /**
   * Contiguous bytes in the own cache from `offset`; sends nothing (the zero-length query).
   *
   * @throws {@link PeerDistError} common set; `NOT_INITIALIZED`; `NO_MORE` outside the range (G11)
   */
  availableAt(offset: number, options: Abortable = {}): Promise<number> {
    return this.#state.run(options, async () => {
      assertByteRange({ offset, length: 0 });
      return availableBytes(this.#ready(), offset, this.#components.broker);
    });
  }

  /** The same from `position`, which stays put. */
  available(options: Abortable = {}): Promise<number> {
    return this.#state.run(options, async () => {
      await this.#turn;
      return availableBytes(this.#ready(), this.position, this.#components.broker);
    });
  }

  /** Walks `read` to the end: data and holes in order. Shares `position`. */
  async *segments(options: ReadOptions = {}): AsyncGenerator<ContentSegment, undefined> {
    for (;;) {
      const result = await this.read(options);
      if (result.kind === 'end') return undefined;
      yield result;
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<ContentSegment, undefined> {
    return this.segments();
  }

  /**
   * The bytes of a range when all of them are in the own store and the store answers at once; undefined otherwise. Extension: the
   * fast way of a warm cache, with no stream in between. The pieces are views and must not be written to.
   */
  peek(range: ByteRange): Uint8Array[] | undefined {
    this.#state.assertOpen();
    return peekContent(this.#ready(), range, this.#components.broker);
  }

  /**
   * Contiguous bytes, each verified before it goes downstream: from the own store, the configured sources, and what `onMissing` brings.
   * Without `range`, from `position` to the end, and `position` follows. Destroy the stream to stop.
   *
   * @throws {@link PeerDistError} common set; `NOT_INITIALIZED`; `NO_MORE` when the range is not inside the described one
   */
  createReadStream(options: ContentReadStreamOptions = {}): Readable {
    this.#state.assertOpen();
    const content = this.#ready();
    const described = content.information.range;
    const range = options.range ?? { offset: this.position, length: rangeEnd(described) - this.position };
    const onPush = options.range === undefined ? this.#moveBy.bind(this) : undefined;
    this.#streams ??= new ContentStreams({ ...this.#components, label: this.#label });
    const crowdKey = crowdKeyOf(content);
    const { crowd } = this.#components;
    const stream = this.#streams.open(content, range, options, { onPush, isCrowd: () => crowd.isCrowd(crowdKey) });
    crowd.enter(crowdKey, stream);
    stream.once('close', () => crowd.leave(crowdKey, stream));
    return this.#state.adopt(stream, options);
  }

  /** @throws {@link PeerDistError} `INVALID_PARAMETER` for an unknown class; `INVALID_HANDLE`; `INVALIDATED` */
  getInformation<K extends keyof ClientInformation>(kind: K): ClientInformation[K] {
    this.#state.assertOpen();
    if (kind !== 'basic') throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'no such class of information');
    const { content } = this.#description;
    return { flashCrowd: content !== undefined && this.#components.crowd.isCrowd(crowdKeyOf(content)) };
  }

  /** Aborts everything pending on this handle, streams included; resolves how many that were, when each has settled. */
  async cancelAll(): Promise<number> {
    this.#state.assertOpen();
    return this.#state.operations.cancel(new PeerDistAbortError('cancel'));
  }

  /** Aborts what is pending, streams included, and releases the handle. Idempotent, never rejects. */
  close(): Promise<void> {
    return this.#state.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #read(offset: number, request: ReturnType<typeof readRequest>, operation: Operation): Promise<ReadResult> {
    const content = this.#ready();
    this.#components.crowd.touch(crowdKeyOf(content), this);
    const components = { ...this.#components, label: this.#label };
    return readContent(content, offset, request, components, operation);
  }

  async #readOn(request: ReturnType<typeof readRequest>, operation: Operation): Promise<ReadResult> {
    const offset = this.position;
    const result = await this.#read(offset, request, operation);
    operation.assertWanted();
    if (result.kind === 'end') return result;
    if (result.kind === 'data') {
      this.#moveBy(result.data.byteLength);
      return result;
    }
    const { range } = this.#ready().information;
    const missing = intersect(result.missing, { offset, length: rangeEnd(range) - offset });
    this.#moveBy(missing.length);
    return { ...result, missing };
  }

  #moveBy(bytes: number): void {
    this.#position = this.position + bytes;
  }

  #ready(): DescribedContent {
    const { content } = this.#description;
    if (content === undefined)
      throw new PeerDistError('ERR_PEERDIST_NOT_INITIALIZED', 'the content information is not complete');
    return content;
  }
}

/** Readers of what begins with the same segment want the same content. */
function crowdKeyOf(content: DescribedContent): string {
  return content.information.segmentCount === 0 ? '' : content.segmentId(0);
}

function sink(
  write: (chunk: Uint8Array) => Promise<unknown>,
  final: () => Promise<unknown> = async () => {},
): Writable {
  return new Writable({
    write: (chunk: Uint8Array, _encoding, callback) => void write(chunk).then(() => callback(), callback),
    final: (callback) => void final().then(() => callback(), callback),
  });
}
