/**
 * Content information from bytes in order: the pure part under {@link ContentHasher}. Push chunks cut anywhere, finish once.
 *
 * Both accumulators copy into one fixed buffer (64 and 128 KiB) because a one-shot digest over a copied block is as fast as OpenSSL
 * itself, and faster than an incremental one over the pieces.
 */
import { GrowableBytes } from '../bytes/index.ts';
import type { HashProvider } from '../crypto/index.ts';
import {
  type BlockList,
  type ContentHashAlgorithm,
  contentHash,
  ContentInformation,
  findCut,
  MAX_SEGMENT_BYTES,
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
  /** Takes the next bytes; they are not retained. */
  push(chunk: Uint8Array): void;
  /** Content information of all bytes pushed. Call once. */
  finish(): ContentInformation;
}

/** Version 1: 64 KiB blocks in 32 MiB segments (MS-PCCRC 2.1). Holds one block and the hashes. */
export class V1Accumulator implements SegmentAccumulator {
  readonly #provider: HashProvider;
  readonly #algorithm: ContentHashAlgorithm;
  readonly #serverKey: Uint8Array;
  readonly #block = Buffer.allocUnsafeSlow(V1_BLOCK_BYTES);
  readonly #descriptors = new GrowableBytes();
  readonly #blockLists: BlockList[] = [];
  #hashes = new GrowableBytes();
  #blockFill = 0;
  #segmentBlocks = 0;
  #length = 0;

  constructor(provider: HashProvider, secret: ServerSecret, algorithm: V1AlgorithmName = 'sha256') {
    this.#provider = provider;
    this.#algorithm = V1_ALGORITHMS[algorithm];
    this.#serverKey = secret.key(provider, this.#algorithm);
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.byteLength) {
      const piece = chunk.subarray(at, at + V1_BLOCK_BYTES - this.#blockFill);
      at += piece.byteLength;
      if (piece.byteLength === V1_BLOCK_BYTES) this.#endBlock(piece);
      else {
        this.#block.set(piece, this.#blockFill);
        this.#blockFill += piece.byteLength;
        if (this.#blockFill === V1_BLOCK_BYTES) this.#endBlock(this.#block);
      }
    }
  }

  finish(): ContentInformation {
    if (this.#blockFill > 0) this.#endBlock(this.#block.subarray(0, this.#blockFill));
    if (this.#segmentBlocks > 0) this.#endSegment();
    const segmentCount = this.#blockLists.length;
    const boundaries = Float64Array.from({ length: segmentCount + 1 }, (_, index) =>
      Math.min(index * V1_SEGMENT_BYTES, this.#length),
    );
    return new ContentInformation({
      version: 1,
      algorithm: this.#algorithm,
      range: { offset: 0, length: this.#length },
      firstSegmentIndex: 0,
      boundaries,
      descriptors: this.#descriptors.toBytes(),
      blockLists: this.#blockLists,
    });
  }

  #endBlock(block: Uint8Array): void {
    this.#hashes.append(contentHash(this.#provider, this.#algorithm, block));
    this.#length += block.byteLength;
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
    const view = new DataView(descriptor.buffer, descriptor.byteOffset);
    view.setBigUint64(0, BigInt(offset), true);
    view.setUint32(8, this.#length - offset, true);
    view.setUint32(12, V1_BLOCK_BYTES, true);
    descriptor.set(hashOfData, 16);
    descriptor.set(segmentSecret(this.#provider, this.#algorithm, this.#serverKey, hashOfData), 16 + hashBytes);
    this.#blockLists.push({ firstBlock: 0, hashes });
    this.#hashes = new GrowableBytes();
    this.#segmentBlocks = 0;
  }
}

/** Version 2: content-defined segments of 32 to 128 KiB. Holds one segment and the descriptions. */
export class V2Accumulator implements SegmentAccumulator {
  readonly #provider: HashProvider;
  readonly #serverKey: Uint8Array;
  readonly #segment = Buffer.allocUnsafeSlow(MAX_SEGMENT_BYTES);
  readonly #descriptors = new GrowableBytes();
  #fill = 0;
  #scan = startCutScan();
  #lengths: number[] = [];

  constructor(provider: HashProvider, secret: ServerSecret) {
    this.#provider = provider;
    this.#serverKey = secret.key(provider, TRUNCATED_SHA512);
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.byteLength) {
      const piece = chunk.subarray(at, at + MAX_SEGMENT_BYTES - this.#fill);
      this.#segment.set(piece, this.#fill);
      this.#fill += piece.byteLength;
      at += piece.byteLength;
      this.#cut();
    }
  }

  finish(): ContentInformation {
    if (this.#fill > 0) this.#endSegment(this.#fill);
    const boundaries = new Float64Array(this.#lengths.length + 1);
    this.#lengths.forEach((length, index) => {
      boundaries[index + 1] = (boundaries[index] as number) + length;
    });
    return new ContentInformation({
      version: 2,
      algorithm: TRUNCATED_SHA512,
      range: { offset: 0, length: boundaries.at(-1) as number },
      firstSegmentIndex: 0,
      boundaries,
      descriptors: this.#descriptors.toBytes(),
      blockLists: [],
    });
  }

  #cut(): void {
    for (;;) {
      const length = findCut(this.#segment.subarray(0, this.#fill), this.#scan);
      if (length === 0) return;
      this.#endSegment(length);
      this.#segment.copyWithin(0, length, this.#fill);
      this.#fill -= length;
      this.#scan = startCutScan();
    }
  }

  #endSegment(length: number): void {
    const hashOfData = contentHash(this.#provider, TRUNCATED_SHA512, this.#segment.subarray(0, length));
    const descriptor = this.#descriptors.extend(4 + 2 * TRUNCATED_SHA512.hashBytes);
    new DataView(descriptor.buffer, descriptor.byteOffset).setUint32(0, length, false);
    descriptor.set(hashOfData, 4);
    descriptor.set(
      segmentSecret(this.#provider, TRUNCATED_SHA512, this.#serverKey, hashOfData),
      4 + TRUNCATED_SHA512.hashBytes,
    );
    this.#lengths.push(length);
  }
}
