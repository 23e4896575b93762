import { type ByteRange, rangeEnd, toHex } from '../bytes/index.ts';
import type { HashProvider } from '../crypto/index.ts';
import {
  type ContentBlock,
  contentHash,
  type ContentInformation,
  equalHashes,
  segmentId,
  V1_BLOCK_BYTES,
} from '../protocol/pccrc/index.ts';
import { type BlockHash, blockKey, type SegmentFacts } from '../stores/index.ts';

/**
 * Content information ready for use: it finds blocks, names them for stores and peers, and verifies them. Segment IDs are derived
 * when first needed and kept, because a large content has many and a range needs few.
 */
export class DescribedContent {
  readonly information: ContentInformation;
  /** True for what peers are neither asked for nor given. */
  readonly isPrivate: boolean;
  readonly #provider: HashProvider;
  readonly #segmentIds: (string | undefined)[] = [];
  /** By ordinal. Kept because a string that is asked for again has its hash ready. */
  readonly #keys: (string | undefined)[] = [];

  constructor(information: ContentInformation, provider: HashProvider, isPrivate = false) {
    this.information = information;
    this.isPrivate = isPrivate;
    this.#provider = provider;
  }

  /** First and last unit that meet a range inside the described one; the range must not be empty. */
  ordinals(range: ByteRange): { readonly first: number; readonly last: number } {
    return { first: this.information.ordinalAt(range.offset), last: this.information.ordinalAt(rangeEnd(range) - 1) };
  }

  /** From the start of one unit to the end of another: what can be verified. */
  extent({ first, last }: { readonly first: number; readonly last: number }): ByteRange {
    const { offset } = this.block(first);
    return { offset, length: rangeEnd(this.block(last)) - offset };
  }

  block(ordinal: number): ContentBlock {
    return this.information.block(ordinal);
  }

  /** HoHoDk in lower-case hexadecimal. */
  segmentId(segment: number): string {
    const { information } = this;
    return (this.#segmentIds[segment] ??= toHex(
      segmentId(
        this.#provider,
        information.algorithm,
        information.segmentSecret(segment),
        information.hashOfData(segment),
      ),
    ));
  }

  /** Name of a block in stores, see {@link blockKey}. */
  key(block: ContentBlock): string {
    return (this.#keys[block.ordinal] ??= blockKey(this.segmentId(block.segment), block.blockIndex));
  }

  /** What has to be known of a segment to share it with peers. */
  segmentFacts(segment: number): SegmentFacts & { readonly secret: Uint8Array } {
    const { information } = this;
    const blockCount =
      information.version === 2 ? 1 : Math.ceil(information.segmentRange(segment).length / V1_BLOCK_BYTES);
    return { secret: information.segmentSecret(segment), blockCount };
  }

  /** What a block must hash to, for stores. */
  hashOf(block: ContentBlock): BlockHash {
    return { digest: this.information.algorithm.digest, value: block.hash };
  }

  /** {@link key} without the block, for those who only look it up. */
  keyOf(ordinal: number): string {
    return this.#keys[ordinal] ?? this.key(this.block(ordinal));
  }

  /** True when `bytes` are the block's. */
  verify(block: ContentBlock, bytes: Uint8Array): boolean {
    return (
      bytes.byteLength === block.length &&
      equalHashes(contentHash(this.#provider, this.information.algorithm, bytes), block.hash)
    );
  }
}
