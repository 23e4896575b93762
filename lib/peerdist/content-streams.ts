import type { Readable } from 'node:stream';
import { assertByteRange, type ByteRange, clip, covers, intersect } from '../bytes/index.ts';
import type { Clock } from '../clock.ts';
import { PeerDistError } from '../errors.ts';
import type { BlockOrigin } from '../observer.ts';
import {
  type BlockBroker,
  type BlockSource,
  type DescribedContent,
  type FetchMissing,
  OriginSource,
} from '../services/index.ts';
import { type AssemblerPart, RangeAssembler } from '../streams/index.ts';
import { assertTimeout, READ_TIMEOUT_DEFAULT_MS } from './content-reads.ts';
import type { Abortable } from './operations.ts';

/**
 * Supplies exactly `missing.length` bytes. Stricter than Win32 (G14): the range is widened to block edges, so that every byte can be verified
 * before it goes downstream.
 */
export type MissingRangeHandler = (
  missing: ByteRange,
  context: { readonly reason: 'missing' | 'timeout'; readonly flashCrowd: boolean; readonly signal: AbortSignal },
) => Promise<Uint8Array | AsyncIterable<Uint8Array>> | AsyncIterable<Uint8Array>;

export interface ContentReadStreamOptions extends Abortable {
  /** Bytes to read. Extension. @default from `position` to the end */
  readonly range?: ByteRange | undefined;
  /** Milliseconds each block's sources get before `onMissing`; 0 = own cache only. @default 5000 */
  readonly timeoutMs?: number | undefined;
  /** Bytes that may wait for the consumer. @default 256 KiB */
  readonly highWaterMark?: number | undefined;
  /** Fills holes. Without it a hole destroys the stream with `PeerDistMissingDataError`. */
  readonly onMissing?: MissingRangeHandler | undefined;
  /** False keeps what `onMissing` brings out of the cache. @default true */
  readonly cacheMissing?: boolean | undefined;
  /** Bytes fetched ahead of the reader. @default 4 MiB */
  readonly lookAheadBytes?: number | undefined;
  /** Told the source of every byte that goes downstream. */
  readonly onSource?: ((source: BlockOrigin, bytes: number) => void) | undefined;
}

export interface ContentStreamsComponents {
  readonly broker: BlockBroker;
  readonly sources: readonly BlockSource[];
  readonly clock: Clock;
  readonly label: string;
}

/** The read streams of one handle; they share its way to the origin, so that neighbouring holes become one transfer. */
export class ContentStreams {
  readonly #components: ContentStreamsComponents;
  readonly #origin: OriginSource;

  constructor(components: ContentStreamsComponents) {
    this.#components = components;
    this.#origin = new OriginSource({
      clock: components.clock,
      isHeld: ({ content }, ordinal) => components.broker.holds(content, ordinal),
      onFirstBlock: (ms) => components.broker.originPace.note(ms),
    });
  }

  /** @throws {@link PeerDistError} `INVALID_PARAMETER`; `NO_MORE` when the range is not inside the described one */
  open(
    content: DescribedContent,
    range: ByteRange,
    options: ContentReadStreamOptions,
    hooks: { readonly onPush: ((bytes: number) => void) | undefined; readonly isCrowd: () => boolean },
  ): Readable {
    assertByteRange(range);
    assertTimeout(options.timeoutMs ?? 0);
    if (!covers(content.information.range, range))
      throw new PeerDistError('ERR_PEERDIST_NO_MORE', 'the range is not described', { actual: range });
    const { lookAheadBytes, highWaterMark } = options;
    const pace = new ReaderPace(this.#components.clock);
    const parts = this.#parts(content, range, options, pace, hooks.isCrowd);
    const onPush = (bytes: number): void => {
      pace.moved(bytes);
      hooks.onPush?.(bytes);
    };
    return new RangeAssembler(parts, { lookAheadBytes, highWaterMark, onPush });
  }

  *#parts(
    content: DescribedContent,
    range: ByteRange,
    options: ContentReadStreamOptions,
    pace: ReaderPace,
    isCrowd: () => boolean,
  ): Generator<AssemblerPart> {
    if (range.length === 0) return;
    const { broker, label } = this.#components;
    const { onMissing, onSource, cacheMissing = true, timeoutMs = READ_TIMEOUT_DEFAULT_MS } = options;
    const { first, last } = content.ordinals(range);
    const fetchMissing: FetchMissing | undefined =
      onMissing &&
      (async (missing, context) => {
        const supplied = await onMissing(missing, { ...context, flashCrowd: isCrowd() });
        return supplied instanceof Uint8Array ? oneChunk(supplied) : supplied;
      });
    const sources = timeoutMs === 0 || content.isPrivate ? [] : this.#components.sources;
    const order = fetchMissing === undefined ? sources : [...sources, this.#origin];
    for (let ordinal = first; ordinal <= last; ordinal += 1) {
      const block = content.block(ordinal);
      const { length } = intersect(block, range);
      yield {
        length,
        fetch: (signal) => {
          const neededInMs = pace.msUntil(block.offset - range.offset);
          const retrieved = broker.retrieve(
            { content, ordinal, lastOrdinal: last, label, timeoutMs, neededInMs, persist: cacheMissing, fetchMissing },
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
}

/** How fast one reader goes. */
class ReaderPace {
  readonly #clock: Clock;
  readonly #startedMs: number;
  #bytes = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#startedMs = clock.now();
  }

  moved(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Milliseconds until the reader gets to a byte of its range; 0 as long as nobody can tell. */
  msUntil(position: number): number {
    if (this.#bytes === 0) return 0;
    return (Math.max(0, position - this.#bytes) * (this.#clock.now() - this.#startedMs)) / this.#bytes;
  }
}

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
