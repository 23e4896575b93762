/** Content information for tests: made of vectors, of random hashes, and taken apart for comparison. */
import { createHash } from 'node:crypto';
import { type ByteRange, fromHex, rangeEnd, toHex } from '../../lib/bytes/index.ts';
import { type HashProvider, nativeHashProvider } from '../../lib/crypto/index.ts';
import {
  type ContentBlock,
  type ContentHashAlgorithm,
  ContentInformation,
  ServerSecret,
  TRUNCATED_SHA512,
  V1_BLOCK_BYTES,
  V1_SEGMENT_BYTES,
  type V1AlgorithmName,
} from '../../lib/protocol/pccrc/index.ts';
import { type SegmentAccumulator, V1Accumulator, V2Accumulator } from '../../lib/streams/index.ts';
import { seededBytes } from './random.ts';
import type { VectorV2 } from './vectors.ts';

export const SECRET = ServerSecret.fromText('a secret for tests');

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Content information of bytes at hand. */
export function describe(
  version: 1 | 2,
  bytes: Uint8Array | readonly Uint8Array[],
  {
    secret = SECRET,
    provider = nativeHashProvider,
    algorithm,
  }: { secret?: ServerSecret; provider?: HashProvider; algorithm?: V1AlgorithmName } = {},
): ContentInformation {
  const accumulator: SegmentAccumulator =
    version === 1 ? new V1Accumulator(provider, secret, algorithm) : new V2Accumulator(provider, secret);
  for (const piece of bytes instanceof Uint8Array ? [bytes] : bytes) accumulator.push(piece);
  return accumulator.finish();
}

/** What a V2 vector of Microsoft's stack describes, from its fields. */
export function fromVectorV2(vector: VectorV2): ContentInformation {
  const segments = vector.chunks.flatMap((chunk) => chunk.segments);
  const boundaries = boundariesOf(
    vector.ullStartInContent,
    segments.map(({ cbSegment }) => cbSegment),
  );
  const offset = vector.ullStartInContent + vector.dwOffsetInFirstSegment;
  return new ContentInformation({
    version: 2,
    algorithm: TRUNCATED_SHA512,
    range: { offset, length: vector.ullLengthOfRange || (boundaries.at(-1) as number) - offset },
    firstSegmentIndex: vector.ullIndexOfFirstSegment,
    boundaries,
    descriptors: Buffer.concat(
      segments.map(({ cbSegment, HoD, Kp }) => Buffer.concat([u32(cbSegment, false), fromHex(HoD), fromHex(Kp)])),
    ),
    blockLists: [],
  });
}

/** Version 1 content information of a content of that length with random hashes; no content is needed for it. */
export function inventV1(contentLength: number, algorithm: ContentHashAlgorithm, seed: number): ContentInformation {
  const lengths = Array.from({ length: Math.ceil(contentLength / V1_SEGMENT_BYTES) }, (_, segment) =>
    Math.min(V1_SEGMENT_BYTES, contentLength - segment * V1_SEGMENT_BYTES),
  );
  const boundaries = boundariesOf(0, lengths);
  return new ContentInformation({
    version: 1,
    algorithm,
    range: { offset: 0, length: contentLength },
    firstSegmentIndex: 0,
    boundaries,
    descriptors: Buffer.concat(
      lengths.map((length, segment) => {
        const prefix = Buffer.alloc(16);
        prefix.writeBigUInt64LE(BigInt(boundaries[segment] as number), 0);
        prefix.writeUInt32LE(length, 8);
        prefix.writeUInt32LE(V1_BLOCK_BYTES, 12);
        return Buffer.concat([prefix, seededBytes(seed + 7 * segment, 2 * algorithm.hashBytes)]);
      }),
    ),
    blockLists: lengths.map((length, segment) => ({
      firstBlock: 0,
      hashes: seededBytes(seed + 11 * segment + 1, Math.ceil(length / V1_BLOCK_BYTES) * algorithm.hashBytes),
    })),
  });
}

/** Version 2 content information with segments of these lengths and random hashes. */
export function inventV2(lengths: readonly number[], seed: number): ContentInformation {
  const boundaries = boundariesOf(0, lengths);
  const hashes = seededBytes(seed, lengths.length * 64);
  return new ContentInformation({
    version: 2,
    algorithm: TRUNCATED_SHA512,
    range: { offset: 0, length: boundaries.at(-1) as number },
    firstSegmentIndex: 0,
    boundaries,
    descriptors: Buffer.concat(
      lengths.map((length, segment) =>
        Buffer.concat([u32(length, false), hashes.subarray(64 * segment, 64 * (segment + 1))]),
      ),
    ),
    blockLists: [],
  });
}

/** Everything that content information says, as plain values that `t.same` compares. */
export function fieldsOf(information: ContentInformation): object {
  return {
    version: information.version,
    algorithm: information.algorithm.name,
    range: information.range,
    firstSegmentIndex: information.firstSegmentIndex,
    boundaries: [...information.boundaries],
    descriptors: toHex(information.descriptors),
    blockLists: information.blockLists.map(({ firstBlock, hashes }) => `${firstBlock}:${toHex(hashes)}`),
  };
}

/** The units that meet a range, in order. */
export function blocksIn(information: ContentInformation, range: ByteRange = information.range): ContentBlock[] {
  if (range.length === 0) return [];
  const blocks: ContentBlock[] = [];
  const last = information.ordinalAt(rangeEnd(range) - 1);
  for (let ordinal = information.ordinalAt(range.offset); ordinal <= last; ordinal += 1) {
    blocks.push(information.block(ordinal));
  }
  return blocks;
}

export function u32(value: number, littleEndian: boolean): Buffer {
  const bytes = Buffer.alloc(4);
  if (littleEndian) bytes.writeUInt32LE(value);
  else bytes.writeUInt32BE(value);
  return bytes;
}

function boundariesOf(start: number, lengths: readonly number[]): Float64Array {
  const boundaries = new Float64Array(lengths.length + 1);
  boundaries[0] = start;
  lengths.forEach((length, segment) => {
    boundaries[segment + 1] = (boundaries[segment] as number) + length;
  });
  return boundaries;
}
