/**
 * Content information from bytes in order: the pure part under {@link ContentHasher} and the recorder of `peerdist/`. Push chunks cut anywhere,
 * finish once.
 *
 * Neither accumulator copies or keeps a byte of the content: chunks go straight into the digest of the block or segment they belong to.
 */
import { type ByteRange, GrowableBytes } from '../bytes/index.ts';
import type { HashProvider, IncrementalDigest } from '../crypto/index.ts';
import {
  type BlockList,
  type ContentHashAlgorithm,
  contentHash,
  ContentInformation,
  findCut,
  segmentSecret,
  type ServerSecret,
  startCutScan,
  TRUNCATED_SHA512,
  V1_ALGORITHMS,
  V1_BLOCK_BYTES,
  V1_BLOCKS_PER_SEGMENT,
  V1_SEGMENT_BYTES,
  type V1AlgorithmName,
} from '../protocol/pccrc/index.ts';

export interface SegmentAccumulator {
  /** Segments that are complete. */
  readonly segmentCount: number;
  /** Takes the next bytes; they are not retained. */
  push(chunk: Uint8Array): void;
  /** Content information of complete segments alone, from one up to another, the latter not included. */
  segments(first: number, end: number): ContentInformation;
  /** Content information of all bytes pushed. Call once. */
  finish(): ContentInformation;
}

/** Version 1: 64 KiB blocks in 32 MiB segments (MS-PCCRC 2.1). Holds the hashes. */
export class V1Accumulator implements SegmentAccumulator {
  readonly #provider: HashProvider;
  readonly #algorithm: ContentHashAlgorithm;
  readonly #serverKey: Uint8Array;
  readonly #descriptors = new GrowableBytes();
  readonly #blockLists: BlockList[] = [];
  #hashes = new GrowableBytes();
  #digest: IncrementalDigest | undefined;
  #blockFill = 0;
  #segmentBlocks = 0;
  #length = 0;

  constructor(provider: HashProvider, secret: ServerSecret, algorithm: V1AlgorithmName = 'sha256') {
    this.#provider = provider;
    this.#algorithm = V1_ALGORITHMS[algorithm];
    this.#serverKey = secret.key(provider, this.#algorithm);
  }

  get segmentCount(): number {
    return this.#blockLists.length;
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.byteLength;) {
      const piece = chunk.subarray(at, at + V1_BLOCK_BYTES - this.#blockFill);
      this.#digest ??= this.#provider.createDigest(this.#algorithm.digest);
      this.#digest.update(piece);
      this.#blockFill += piece.byteLength;
      at += piece.byteLength;
      if (this.#blockFill === V1_BLOCK_BYTES) this.#endBlock();
    }
  }

  finish(): ContentInformation {
    if (this.#blockFill > 0) this.#endBlock();
    if (this.#segmentBlocks > 0) this.#endSegment();
    return this.segments(0, this.segmentCount);
  }

  segments(first: number, end: number): ContentInformation {
    const boundaries = Float64Array.from({ length: end - first + 1 }, (_, index) =>
      Math.min((first + index) * V1_SEGMENT_BYTES, this.#length),
    );
    const stride = 16 + 2 * this.#algorithm.hashBytes;
    return new ContentInformation({
      version: 1,
      algorithm: this.#algorithm,
      range: rangeOf(boundaries),
      firstSegmentIndex: first,
      boundaries,
      descriptors: this.#descriptors.toBytes(first * stride, end * stride),
      blockLists: this.#blockLists.slice(first, end),
    });
  }

  #endBlock(): void {
    const { hashBytes } = this.#algorithm;
    this.#digest?.finishInto(this.#hashes.extend(hashBytes), 0, hashBytes);
    this.#digest = undefined;
    this.#length += this.#blockFill;
    this.#blockFill = 0;
    this.#segmentBlocks += 1;
    if (this.#segmentBlocks === V1_BLOCKS_PER_SEGMENT) this.#endSegment();
  }

  #endSegment(): void {
    const { hashBytes } = this.#algorithm;
    const offset = this.#blockLists.length * V1_SEGMENT_BYTES;
    const hashes = this.#hashes.toBytes();
    const hashOfData = contentHash(this.#provider, this.#algorithm, hashes);
    const descriptor = this.#descriptors.extend(16 + 2 * hashBytes);
    descriptor.writeBigUInt64LE(BigInt(offset), 0);
    descriptor.writeUInt32LE(this.#length - offset, 8);
    descriptor.writeUInt32LE(V1_BLOCK_BYTES, 12);
    descriptor.set(hashOfData, 16);
    descriptor.set(segmentSecret(this.#provider, this.#algorithm, this.#serverKey, hashOfData), 16 + hashBytes);
    this.#blockLists.push({ firstBlock: 0, hashes });
    this.#hashes = new GrowableBytes();
    this.#segmentBlocks = 0;
  }
}

/** Version 2: content-defined segments of 32 to 128 KiB. Holds the descriptions. */
export class V2Accumulator implements SegmentAccumulator {
  readonly #provider: HashProvider;
  readonly #serverKey: Uint8Array;
  readonly #descriptors = new GrowableBytes();
  readonly #ends: number[] = [0];
  #digest: IncrementalDigest | undefined;
  #scan = startCutScan();
  #length = 0;

  constructor(provider: HashProvider, secret: ServerSecret) {
    this.#provider = provider;
    this.#serverKey = secret.key(provider, TRUNCATED_SHA512);
  }

  get segmentCount(): number {
    return this.#ends.length - 1;
  }

  push(chunk: Uint8Array): void {
    for (let rest = chunk; rest.byteLength > 0;) {
      const cut = findCut(rest, this.#scan);
      const piece = cut === 0 ? rest : rest.subarray(0, cut);
      this.#digest ??= this.#provider.createDigest(TRUNCATED_SHA512.digest);
      this.#digest.update(piece);
      this.#length += piece.byteLength;
      if (cut > 0) this.#endSegment();
      rest = rest.subarray(piece.byteLength);
    }
  }

  finish(): ContentInformation {
    if (this.#digest !== undefined) this.#endSegment();
    return this.segments(0, this.segmentCount);
  }

  segments(first: number, end: number): ContentInformation {
    const boundaries = Float64Array.from(this.#ends.slice(first, end + 1));
    const stride = 4 + 2 * TRUNCATED_SHA512.hashBytes;
    return new ContentInformation({
      version: 2,
      algorithm: TRUNCATED_SHA512,
      range: rangeOf(boundaries),
      firstSegmentIndex: first,
      boundaries,
      descriptors: this.#descriptors.toBytes(first * stride, end * stride),
      blockLists: [],
    });
  }

  #endSegment(): void {
    const { hashBytes } = TRUNCATED_SHA512;
    const descriptor = this.#descriptors.extend(4 + 2 * hashBytes);
    descriptor.writeUInt32BE(this.#length - (this.#ends.at(-1) as number), 0);
    this.#digest?.finishInto(descriptor, 4, hashBytes);
    const hashOfData = descriptor.subarray(4, 4 + hashBytes);
    descriptor.set(segmentSecret(this.#provider, TRUNCATED_SHA512, this.#serverKey, hashOfData), 4 + hashBytes);
    this.#ends.push(this.#length);
    this.#digest = undefined;
    this.#scan = startCutScan();
  }
}

function rangeOf(boundaries: Float64Array): ByteRange {
  const offset = boundaries[0] as number;
  return { offset, length: (boundaries.at(-1) as number) - offset };
}
