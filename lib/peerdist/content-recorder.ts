import { rangeEnd } from '../bytes/index.ts';
import type { HashProvider } from '../crypto/index.ts';
import {
  type ContentInformation,
  type ContentInformationVersion,
  encodeContentInformation,
  MAX_SEGMENT_BYTES,
  type ServerSecret,
  V1_BLOCK_BYTES,
  V1_SEGMENT_BYTES,
} from '../protocol/pccrc/index.ts';
import { type BlockBroker, DescribedContent } from '../services/index.ts';
import { type SegmentAccumulator, V1Accumulator, V2Accumulator } from '../streams/index.ts';

export interface RecordOptions {
  /** Version 1 is cheaper to make and holds up to 32 MiB until a segment is complete; version 2 holds up to 128 KiB. @default 1 */
  readonly version?: ContentInformationVersion | undefined;
  /** True: peers are not given any of it. Asked when blocks are stored. @default false */
  readonly isPrivate?: (() => boolean) | undefined;
}

export interface ContentRecorderComponents extends RecordOptions {
  readonly broker: BlockBroker;
  readonly provider: HashProvider;
  readonly secret: ServerSecret;
  /** Of what is stored. */
  readonly label: string;
}

/**
 * Describes a content as it comes and keeps its blocks: the hashing of a publisher and the cache of a reader in one pass over the bytes, for
 * contents whose origin describes nothing. Extension.
 *
 * A segment has its ID only when it is complete, so its bytes wait here until then, cut into blocks already; {@link peek} finds them.
 */
export class ContentRecorder {
  readonly #components: ContentRecorderComponents;
  readonly #accumulator: SegmentAccumulator;
  readonly #unitBytes: number;
  /** Bytes of the segment under way; all pieces but the last are full. */
  #pieces: Buffer[] = [];
  #fill = 0;
  #kept = 0;
  #segments = 0;
  #finished: ContentInformation | undefined;

  constructor(components: ContentRecorderComponents) {
    const { version = 1, provider, secret } = components;
    this.#components = components;
    this.#accumulator = version === 1 ? new V1Accumulator(provider, secret) : new V2Accumulator(provider, secret);
    this.#unitBytes = version === 1 ? V1_BLOCK_BYTES : MAX_SEGMENT_BYTES;
  }

  /** Most bytes that wait in one recorder. */
  static pendingBytes(version: ContentInformationVersion): number {
    return version === 1 ? V1_SEGMENT_BYTES : MAX_SEGMENT_BYTES;
  }

  /** Bytes taken. */
  get recordedBytes(): number {
    return this.#kept + this.#fill;
  }

  /** Bytes from the start whose segments are complete: they are in the store, and {@link soFar} describes them. */
  get keptBytes(): number {
    return this.#kept;
  }

  /** Takes the next bytes; they are copied. Resolves when the store has room for more; one call at a time. */
  async push(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.byteLength > 0;) {
      // Never past the end of a block, so that a segment ends with what has been copied.
      const piece = rest.subarray(0, this.#unitBytes - (this.#fill % this.#unitBytes));
      const before = this.#accumulator.segmentCount;
      this.#accumulator.push(piece);
      this.#copy(piece);
      rest = rest.subarray(piece.byteLength);
      if (this.#accumulator.segmentCount > before) await this.#keepSegments();
    }
  }

  /** What has been taken and waits for the end of its segment, from `offset` on: one piece of it. Undefined where nothing waits. */
  peek(offset: number): Uint8Array | undefined {
    const at = offset - this.#kept;
    if (at < 0 || at >= this.#fill) return undefined;
    const index = Math.floor(at / this.#unitBytes);
    return this.#pieces[index]?.subarray(at % this.#unitBytes, this.#fill - index * this.#unitBytes);
  }

  /** Content information of the first {@link keptBytes}, encoded; undefined as long as there are none. */
  soFar(): Uint8Array | undefined {
    if (this.#segments === 0) return undefined;
    return encodeContentInformation(this.#finished ?? this.#accumulator.segments(0, this.#segments));
  }

  /** The content is complete and its blocks are stored. @returns its content information, encoded */
  async finish(): Promise<Uint8Array> {
    this.#finished ??= this.#accumulator.finish();
    await this.#keepSegments();
    return encodeContentInformation(this.#finished);
  }

  #copy(piece: Uint8Array): void {
    const at = this.#fill % this.#unitBytes;
    if (at === 0) this.#pieces.push(Buffer.allocUnsafeSlow(this.#unitBytes));
    (this.#pieces.at(-1) as Buffer).set(piece, at);
    this.#fill += piece.byteLength;
  }

  /** Stores what is complete, then lets go of it. Version 2 may have cut several segments out of what is held. */
  async #keepSegments(): Promise<void> {
    const { broker, provider, label, isPrivate = () => false } = this.#components;
    const end = this.#accumulator.segmentCount;
    if (end === this.#segments) return;
    const content = new DescribedContent(this.#accumulator.segments(this.#segments, end), provider, isPrivate());
    const start = this.#kept;
    for (let ordinal = 0; ordinal < content.information.blockCount; ordinal += 1) {
      const block = content.block(ordinal);
      await broker.keep(content, block, this.#take(block.offset - start, block.length), label, true);
    }
    const keptBytes = rangeEnd(content.information.range) - start;
    const left = this.#fill === keptBytes ? undefined : this.#take(keptBytes, this.#fill - keptBytes);
    this.#kept = start + keptBytes;
    this.#segments = end;
    this.#pieces = [];
    this.#fill = 0;
    if (left !== undefined) this.#copy(left);
  }

  /** Bytes of what is held, in an array of their own size that nobody changes. */
  #take(at: number, length: number): Uint8Array {
    const index = Math.floor(at / this.#unitBytes);
    const piece = this.#pieces[index] as Buffer;
    const from = at % this.#unitBytes;
    if (from === 0 && length === piece.byteLength) return piece;
    if (from + length <= piece.byteLength) return Uint8Array.from(piece.subarray(from, from + length));
    return Uint8Array.from(Buffer.concat(this.#pieces).subarray(at, at + length));
  }
}
