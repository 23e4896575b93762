import { type ByteRange, intersect, rangeEnd } from '../../bytes/index.ts';
import type { HashProvider } from '../../crypto/index.ts';
import { PeerDistError } from '../../errors.ts';
import {
  type ContentHashAlgorithm,
  type ContentInformationVersion,
  V1_BLOCK_BYTES,
  V1_BLOCKS_PER_SEGMENT,
} from './constants.ts';
import { contentHash, equalHashes } from './keys.ts';

/** Block hashes of one version 1 segment, one after the other. */
export interface BlockList {
  /** Index within the segment of the first hash: 0, unless a sender trimmed the head (MS-PCCRC 2.3.1.2 read literally). */
  readonly firstBlock: number;
  readonly hashes: Uint8Array;
}

/** One verifiable unit: a version 1 block, or a whole version 2 segment. */
export interface ContentBlock {
  /** Position among the units of this content information, 0 = first unit of the first described segment. */
  readonly ordinal: number;
  /** Position of its segment within this content information. */
  readonly segment: number;
  /** Index within its segment (always 0 in version 2). */
  readonly blockIndex: number;
  /** Where the block begins, bytes from the start of the whole content. */
  readonly offset: number;
  readonly length: number;
  /** A view; do not write to it. */
  readonly hash: Uint8Array;
}

export interface ContentInformationParts {
  readonly version: ContentInformationVersion;
  readonly algorithm: ContentHashAlgorithm;
  /** Bytes described, from the start of the whole content. */
  readonly range: ByteRange;
  /** Index of the first described segment in the whole content. */
  readonly firstSegmentIndex: number;
  /** Segment boundaries from the start of the whole content: one more than there are segments. */
  readonly boundaries: Float64Array;
  /** Segment descriptions as on the wire, one after the other. */
  readonly descriptors: Uint8Array;
  /** Version 1: one list for each segment. Version 2: empty. */
  readonly blockLists: readonly BlockList[];
}

/** Bytes before HoD in a segment description: offset, length and block size (2.3.1.1), or length alone (2.4.1.2). */
export const DESCRIPTOR_PREFIX_BYTES: Readonly<Record<ContentInformationVersion, number>> = { 1: 16, 2: 4 };

/** Bytes of one segment description. */
export function descriptorBytes(version: ContentInformationVersion, algorithm: ContentHashAlgorithm): number {
  return DESCRIPTOR_PREFIX_BYTES[version] + 2 * algorithm.hashBytes;
}

/**
 * Parsed content information: views on the encoded bytes plus one number for each segment, so that describing a content of many
 * gigabytes costs little more than its encoded form, and looking a block up costs no search in version 1 and a binary one in version 2.
 *
 * A capability: whoever holds it can read the content from the peers. It prints as a placeholder and does not serialise.
 */
export class ContentInformation implements ContentInformationParts {
  readonly version: ContentInformationVersion;
  readonly algorithm: ContentHashAlgorithm;
  readonly range: ByteRange;
  readonly firstSegmentIndex: number;
  readonly boundaries: Float64Array;
  readonly descriptors: Uint8Array;
  readonly blockLists: readonly BlockList[];

  /** Takes parts that are consistent: the decoders check them, the accumulators make them so. */
  constructor(parts: ContentInformationParts) {
    this.version = parts.version;
    this.algorithm = parts.algorithm;
    this.range = parts.range;
    this.firstSegmentIndex = parts.firstSegmentIndex;
    this.boundaries = parts.boundaries;
    this.descriptors = parts.descriptors;
    this.blockLists = parts.blockLists;
  }

  get segmentCount(): number {
    return this.boundaries.length - 1;
  }

  /** Units in the described segments, whether or not they meet the range. */
  get blockCount(): number {
    if (this.version === 2) return this.segmentCount;
    return Math.ceil((this.#boundary(this.segmentCount) - this.#boundary(0)) / V1_BLOCK_BYTES);
  }

  /** True when the range is all of every described segment, starting with the content's first. */
  get isWhole(): boolean {
    return this.range.offset === 0 && rangeEnd(this.range) === this.#boundary(this.segmentCount);
  }

  /** The whole segment, bytes from the start of the content. */
  segmentRange(segment: number): ByteRange {
    const offset = this.#boundary(segment);
    return { offset, length: this.#boundary(segment + 1) - offset };
  }

  /** HoD of a segment; a view. */
  hashOfData(segment: number): Uint8Array {
    return this.#descriptorField(segment, 0);
  }

  /** Kp of a segment; a view. */
  segmentSecret(segment: number): Uint8Array {
    return this.#descriptorField(segment, 1);
  }

  /** Which unit holds the byte at `offset` of the content; it must lie in a described segment. */
  ordinalAt(offset: number): number {
    if (offset < this.#boundary(0) || offset >= this.#boundary(this.segmentCount)) {
      throw outOfBounds('offset outside the described segments', offset);
    }
    if (this.version === 1) return Math.floor((offset - this.#boundary(0)) / V1_BLOCK_BYTES);
    return this.#segmentAt(offset);
  }

  /** The unit of that ordinal; its hash must be described ({@link ContentInformation.range} says which are). */
  block(ordinal: number): ContentBlock {
    if (this.version === 2) {
      if (!(ordinal >= 0 && ordinal < this.segmentCount)) throw outOfBounds('the segment is not described', ordinal);
      const { offset, length } = this.segmentRange(ordinal);
      return { ordinal, segment: ordinal, blockIndex: 0, offset, length, hash: this.hashOfData(ordinal) };
    }
    const segment = Math.floor(ordinal / V1_BLOCKS_PER_SEGMENT);
    const blockIndex = ordinal % V1_BLOCKS_PER_SEGMENT;
    const list = this.blockLists[segment];
    const at = list === undefined ? -1 : (blockIndex - list.firstBlock) * this.algorithm.hashBytes;
    if (list === undefined || at < 0 || at >= list.hashes.byteLength) {
      throw outOfBounds('the block is not described', ordinal);
    }
    const offset = this.#boundary(segment) + blockIndex * V1_BLOCK_BYTES;
    return {
      ordinal,
      segment,
      blockIndex,
      offset,
      length: Math.min(V1_BLOCK_BYTES, this.#boundary(segment + 1) - offset),
      hash: list.hashes.subarray(at, at + this.algorithm.hashBytes),
    };
  }

  /**
   * Narrows to a part of the described range without the content (MS-PCCRTP range answers).
   * Segments stay whole; the last block list loses its tail and the first keeps its head (fact 8: what Windows and iPXE do).
   *
   * @param range clamped to what is described
   * @throws {@link PeerDistError} `ERR_PEERDIST_OUT_OF_BOUNDS` when it does not meet the described range
   */
  slice(range: ByteRange): ContentInformation {
    const part = intersect(this.range, range);
    if (part.length === 0) {
      throw new PeerDistError('ERR_PEERDIST_OUT_OF_BOUNDS', 'range outside the described content', { actual: range });
    }
    const first = this.#segmentAt(part.offset);
    const last = this.#segmentAt(rangeEnd(part) - 1);
    const stride = descriptorBytes(this.version, this.algorithm);
    return new ContentInformation({
      version: this.version,
      algorithm: this.algorithm,
      range: part,
      firstSegmentIndex: this.firstSegmentIndex + first,
      boundaries: this.boundaries.subarray(first, last + 2),
      descriptors: this.descriptors.subarray(first * stride, (last + 1) * stride),
      blockLists: this.blockLists.slice(first, last + 1).map((list, index) => this.#trim(list, first + index, part)),
    });
  }

  /**
   * Checks that every complete block list hashes to its HoD (MS-PCCRC 2.2 demands it before any block is used).
   * Trimmed lists cannot be checked this way. Version 2 has nothing to check.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO`
   */
  checkBlockLists(provider: HashProvider): void {
    this.blockLists.forEach((list, segment) => {
      const blocks = Math.ceil(this.segmentRange(segment).length / V1_BLOCK_BYTES);
      if (list.hashes.byteLength !== blocks * this.algorithm.hashBytes) return;
      if (!equalHashes(contentHash(provider, this.algorithm, list.hashes), this.hashOfData(segment))) {
        throw new PeerDistError('ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO', 'block hashes do not match their segment', {
          spec: 'MS-PCCRC 2.2',
          actual: { segment },
        });
      }
    });
  }

  toJSON(): string {
    return '[content information]';
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[content information]';
  }

  /** The hashes of a segment that a range needs: all but the tail behind it, and no head where the sender gave none. */
  #trim({ firstBlock, hashes }: BlockList, segment: number, part: ByteRange): BlockList {
    const { offset, length } = this.segmentRange(segment);
    const { hashBytes } = this.algorithm;
    const start = firstBlock === 0 ? 0 : Math.floor(Math.max(0, part.offset - offset) / V1_BLOCK_BYTES);
    const end = rangeEnd(part) >= offset + length ? Infinity : Math.ceil((rangeEnd(part) - offset) / V1_BLOCK_BYTES);
    return {
      firstBlock: start,
      hashes: hashes.subarray((start - firstBlock) * hashBytes, (end - firstBlock) * hashBytes),
    };
  }

  #boundary(index: number): number {
    return this.boundaries[index] as number;
  }

  #segmentAt(offset: number): number {
    let low = 0;
    let high = this.segmentCount - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#boundary(middle) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #descriptorField(segment: number, index: 0 | 1): Uint8Array {
    const { hashBytes } = this.algorithm;
    const at =
      segment * descriptorBytes(this.version, this.algorithm) +
      DESCRIPTOR_PREFIX_BYTES[this.version] +
      index * hashBytes;
    return this.descriptors.subarray(at, at + hashBytes);
  }
}

function outOfBounds(message: string, actual: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_OUT_OF_BOUNDS', message, { actual });
}
