import { type ByteRange, intersect } from '../bytes/index.ts';
import { type Clock, systemClock } from '../clock.ts';
import { isPeerDistError, PeerDistError, PeerDistMissingDataError } from '../errors.ts';
import { type BlockOrigin, ignoreObservations, type Observer } from '../observer.ts';
import type { ContentBlock } from '../protocol/pccrc/index.ts';
import type { BlockStore, Claims, MaybePromise } from '../stores/index.ts';
import { BlockClaims } from './block-claims.ts';
import type { BlockRequest, BlockSource } from './block-source.ts';
import type { DescribedContent } from './described-content.ts';
import { createLocalSource, type LocalSource } from './local-source.ts';
import { OriginPace } from './origin-pace.ts';
import { SingleFlight } from './single-flight.ts';

export interface RetrievedBlock {
  readonly bytes: Uint8Array;
  readonly source: BlockOrigin;
}

export interface BlockBrokerOptions {
  readonly store: BlockStore;
  /** Told of each block from the origin that has been put into the store. */
  readonly onOriginBlock?: ((content: DescribedContent, block: ContentBlock) => void) | undefined;
  /** Shared by the processes that share the store: of these, one fetches a block. */
  readonly claims?: Claims | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/**
 * Gets verified blocks: own store first, then each source in order until one delivers bytes that match. What came from elsewhere is
 * stored behind the reader's back. Concurrent requests of one block share one retrieval.
 */
export class BlockBroker {
  /** What the origin takes for a block: whoever reads from it reports here. */
  readonly originPace = new OriginPace();
  readonly #store: BlockStore;
  readonly #local: LocalSource;
  readonly #onOriginBlock: BlockBrokerOptions['onOriginBlock'];
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #claims: BlockClaims | undefined;
  readonly #flights = new SingleFlight<RetrievedBlock>();
  /** Flights that nobody may join, so far. */
  #alone = 0;

  constructor({
    store,
    onOriginBlock,
    claims,
    observer = ignoreObservations,
    clock = systemClock,
  }: BlockBrokerOptions) {
    this.#store = store;
    this.#onOriginBlock = onOriginBlock;
    this.#local = createLocalSource(store);
    this.#observer = observer;
    this.#clock = clock;
    this.#claims = claims && new BlockClaims(claims, clock);
  }

  /**
   * @param sources asked in order after the own store
   * @returns at once when a memory store has the block
   * @throws {@link PeerDistMissingDataError} when no source has it; its `cause` is the last failure
   */
  retrieve(
    request: BlockRequest,
    sources: readonly BlockSource[],
    signal: AbortSignal,
  ): RetrievedBlock | Promise<RetrievedBlock> {
    const local = this.held(request.content, request.content.block(request.ordinal));
    if (local instanceof Uint8Array) return { bytes: local, source: 'store' };
    return this.#retrieveElsewhere(request, local, sources, signal);
  }

  /**
   * What lies in a range of the content of a block, if the own store has it and answers at once. Never throws: a store that fails is a store
   * without the block.
   */
  peek(content: DescribedContent, block: ContentBlock, range: ByteRange): Uint8Array | undefined {
    const { offset, length } = intersect(block, range);
    const part = { offset: offset - block.offset, length };
    try {
      const near = this.#store.peek?.(content.key(block), block.length, part);
      if (near !== undefined) return near;
    } catch {
      return undefined;
    }
    const bytes = this.held(content, block);
    return bytes === undefined || bytes instanceof Promise
      ? undefined
      : bytes.subarray(part.offset, part.offset + part.length);
  }

  /** The block if the own store has it and answers before its deadline. Never throws or rejects. */
  held(content: DescribedContent, block: ContentBlock): MaybePromise<Uint8Array | undefined> {
    // Under one key lie the same bytes, but content information can claim another length for them.
    const fitting = (bytes: Uint8Array | undefined): Uint8Array | undefined =>
      bytes?.byteLength === block.length ? bytes : undefined;
    try {
      const bytes = this.#local.retrieve({ content, ordinal: block.ordinal });
      if (!(bytes instanceof Promise)) return fitting(bytes);
      return this.#withDeadline('store', this.#local.deadlineMs, bytes).then(fitting, () => undefined);
    } catch {
      return undefined;
    }
  }

  /** True when the own store has the block. Never throws or rejects. */
  holds(content: DescribedContent, ordinal: number): MaybePromise<boolean> {
    try {
      const held = this.#store.has(content.keyOf(ordinal));
      if (typeof held === 'boolean') return held;
      return this.#withDeadline('store', this.#local.deadlineMs, held).catch(() => false);
    } catch {
      return false;
    }
  }

  async #retrieveElsewhere(
    request: BlockRequest,
    local: Promise<Uint8Array | undefined> | undefined,
    sources: readonly BlockSource[],
    signal: AbortSignal,
  ): Promise<RetrievedBlock> {
    if (local !== undefined) {
      const bytes = await local;
      if (bytes !== undefined) return { bytes, source: 'store' };
    }
    if (signal.aborted) throw signal.reason;
    // What must not be kept is not shared either: a flight of its own.
    const key = request.persist ? request.content.keyOf(request.ordinal) : `alone ${(this.#alone += 1)}`;
    const joining = this.#flights.has(key);
    if (joining) this.#observer({ type: 'collapsed' });
    try {
      const retrieved = await this.#flights.do(key, signal, (shared) => this.#claimAndAsk(request, sources, shared));
      if (joining && retrieved.source !== 'store') void this.#label(key, request.label);
      return retrieved;
    } catch (error) {
      // The flight used the way to the origin of whoever started it: go on until it was the own one.
      if (!joining || signal.aborted) throw error;
      return this.#retrieveElsewhere(request, undefined, sources, signal);
    }
  }

  /** Lets another process go first that is about to bring the block across the WAN. */
  async #claimAndAsk(
    request: BlockRequest,
    sources: readonly BlockSource[],
    signal: AbortSignal,
  ): Promise<RetrievedBlock> {
    const { content, ordinal, persist, fetchMissing } = request;
    if (this.#claims === undefined || !persist || fetchMissing === undefined)
      return this.#ask(request, sources, signal);
    const look = async (): Promise<boolean> => this.holds(content, ordinal);
    const leave = await this.#claims.enter(request, signal, look);
    if (leave === undefined) {
      const bytes = await this.held(content, content.block(ordinal));
      return bytes === undefined ? this.#ask(request, sources, signal) : { bytes, source: 'store' };
    }
    const leaveWhenCommitted = async (kept: Promise<void> | undefined): Promise<void> => {
      await kept;
      await this.#store.committed?.(content.keyOf(ordinal));
      leave();
    };
    try {
      return await this.#ask(request, sources, signal, (kept) => void leaveWhenCommitted(kept));
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** @param onKept told of what has been found, and when it is stored */
  async #ask(
    request: BlockRequest,
    sources: readonly BlockSource[],
    signal: AbortSignal,
    onKept: (kept: Promise<void> | undefined) => void = () => {},
  ): Promise<RetrievedBlock> {
    const { content, persist } = request;
    const block = content.block(request.ordinal);
    const { timeoutMs } = request;
    const until = timeoutMs === undefined ? Infinity : this.#clock.now() + timeoutMs;
    let failure: unknown;
    for (const source of sources) {
      if (signal.aborted) throw signal.reason;
      const left = source.name === 'origin' ? Infinity : until - this.#clock.now();
      if (left <= 0) {
        failure = new PeerDistError('ERR_PEERDIST_TIMEOUT', `no time left to ask ${source.name}`);
        continue;
      }
      // The last question ends with the whole retrieval; an earlier one is told to stop when the next source has its turn.
      const turn = source === sources.at(-1) ? undefined : new AbortController();
      try {
        const timedOut = isPeerDistError(failure, 'ERR_PEERDIST_TIMEOUT');
        const answer = source.retrieve(request, { signal: turn?.signal ?? signal, timedOut });
        // Looked at afterwards: by now the source knows what the block has to wait for.
        const deadlineMs = Math.min(this.#patienceMs(source, request, turn === undefined), left);
        const bytes =
          answer instanceof Promise ? await this.#withDeadline(source.name, deadlineMs, answer, signal, turn) : answer;
        if (bytes === undefined) continue;
        if (source.trusted || this.#verify(request, bytes, source.name)) {
          // Storing never holds a reader back.
          const isNew = persist && source.name !== 'store';
          const kept = isNew ? this.keep(content, block, bytes, request.label, source.name === 'origin') : undefined;
          onKept(kept);
          return { bytes, source: source.name };
        }
        failure = new PeerDistError('ERR_PEERDIST_HASH_MISMATCH', `bytes from ${source.name} do not match their hash`);
      } catch (error) {
        if (signal.aborted) throw error;
        failure = error;
      }
    }
    throw new PeerDistMissingDataError({ offset: block.offset, length: block.length }, { cause: failure });
  }

  /** Who is impatient because another could be quicker has no reason to be when there is no other. */
  #patienceMs({ deadlineMs }: BlockSource, request: BlockRequest, isLast: boolean): number {
    if (typeof deadlineMs === 'number') return deadlineMs;
    return isLast ? Infinity : deadlineMs(request, this.originPace.blockMs);
  }

  #verify(request: BlockRequest, bytes: Uint8Array, name: BlockOrigin): boolean {
    const matches = request.content.verify(request.content.block(request.ordinal), bytes);
    const source = name === 'store' ? 'added' : name;
    this.#observer({ type: 'verification', source, result: matches ? 'match' : 'mismatch' });
    return matches;
  }

  /** Takes a label off everything in the own store. A store that fails says so: the caller believes its data gone. */
  async flush(label: string): Promise<void> {
    await this.#store.flush(label);
  }

  /** A reader that joined somebody else's retrieval has pulled the block too. Never rejects. */
  async #label(key: string, label: string): Promise<void> {
    try {
      await this.#store.label(key, label);
    } catch {
      // a store that fails is only a store that forgets
    }
  }

  /**
   * Stores a block that has been verified. Never rejects: a store that fails is only a store that forgets.
   *
   * @param isFromOrigin it crossed the WAN
   */
  async keep(
    content: DescribedContent,
    block: ContentBlock,
    bytes: Uint8Array,
    label: string,
    isFromOrigin: boolean,
  ): Promise<void> {
    try {
      await this.#store.set(
        content.key(block),
        bytes,
        label,
        content.isPrivate ? undefined : content.segmentFacts(block.segment),
        content.hashOf(block),
      );
      if (isFromOrigin && !content.isPrivate) this.#onOriginBlock?.(content, block);
    } catch {
      // as said
    }
  }

  /**
   * What is answered; an error past the deadline: not every source heeds its signal. Whoever stops waiting is let go by its flight.
   *
   * @param turn ends with the wait, and with `signal`
   */
  #withDeadline<T>(
    source: BlockOrigin,
    deadlineMs: number,
    answer: Promise<T>,
    signal?: AbortSignal,
    turn?: AbortController,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const settle = (): void => {
        cancel();
        if (turn !== undefined) signal?.removeEventListener('abort', leave);
      };
      const fail = (error: unknown): void => {
        settle();
        reject(error);
        turn?.abort(error);
      };
      const leave = (): void => fail(signal?.reason);
      const cancel = this.#clock.after(deadlineMs, () =>
        fail(new PeerDistError('ERR_PEERDIST_TIMEOUT', `${source} took longer than ${deadlineMs} ms`)),
      );
      if (turn !== undefined) signal?.addEventListener('abort', leave, { once: true });
      answer.then((value) => {
        settle();
        resolve(value);
      }, fail);
    });
  }
}
