/** How many bytes content information has for a content of which nothing but the length is known. */
import {
  ContentInformation,
  type ContentInformationVersion,
  encodeContentInformation,
  MAX_SEGMENT_BYTES,
  MIN_SEGMENT_BYTES,
  SHA256,
  TRUNCATED_SHA512,
  V1_BLOCK_BYTES,
  V1_SEGMENT_BYTES,
} from '../../../lib/protocol/pccrc/index.ts';
import { descriptorBytes } from '../../../lib/protocol/pccrc/content-information.ts';

/** Bytes behind the minimum after which a segment of version 2 ends on average: a cut is where 15 bits are zero (`segmentation.ts`). */
const CUT_SPAN_BYTES = 2 ** 15;

/** What the encoders write whatever the content: head, chunk head, and in version 1 the number of blocks of each segment. */
const V1_HEAD_BYTES = encodedBytes(1, 0);
const V1_SEGMENT_INFO_BYTES = encodedBytes(1, 1) - V1_HEAD_BYTES - SHA256.hashBytes;
const V2_SEGMENT_INFO_BYTES = descriptorBytes(2, TRUNCATED_SHA512);
const V2_HEAD_BYTES = encodedBytes(2, 1) - V2_SEGMENT_INFO_BYTES;

/** Mean length of a version 2 segment, and how many more segments than length / mean a content has, because its last one is cut short. */
const { meanBytes: V2_MEAN_SEGMENT_BYTES, excess: V2_EXCESS } = segmentLengths();

/**
 * Bytes of the content information of a content: exact for version 1 with SHA-256; the mean for version 2, whose segments follow the content.
 *
 * @param bytes of the content, or of the part that was asked for
 */
export function contentInformationBytes(version: ContentInformationVersion, bytes: number): number {
  if (version === 1)
    return (
      V1_HEAD_BYTES +
      Math.ceil(bytes / V1_SEGMENT_BYTES) * V1_SEGMENT_INFO_BYTES +
      Math.ceil(bytes / V1_BLOCK_BYTES) * SHA256.hashBytes
    );
  const segments = bytes <= MIN_SEGMENT_BYTES ? 1 : bytes / V2_MEAN_SEGMENT_BYTES + V2_EXCESS;
  return V2_HEAD_BYTES + Math.max(1, segments) * V2_SEGMENT_INFO_BYTES;
}

/** A segment has the minimum and then a length that is distributed exponentially, cut off at the maximum: its first two moments. */
function segmentLengths(): { readonly meanBytes: number; readonly excess: number } {
  const most = (MAX_SEGMENT_BYTES - MIN_SEGMENT_BYTES) / CUT_SPAN_BYTES;
  const rest = Math.exp(-most);
  const mean = CUT_SPAN_BYTES * (1 - rest);
  const square = 2 * CUT_SPAN_BYTES ** 2 * (1 - (1 + most) * rest);
  const meanBytes = MIN_SEGMENT_BYTES + mean;
  // Renewal theory: segments begun within a long content.
  return { meanBytes, excess: (MIN_SEGMENT_BYTES ** 2 + 2 * MIN_SEGMENT_BYTES * mean + square) / (2 * meanBytes ** 2) };
}

/** Size of the structure with that many segments, each of one byte. */
function encodedBytes(version: ContentInformationVersion, segments: 0 | 1): number {
  const algorithm = version === 1 ? SHA256 : TRUNCATED_SHA512;
  const hashes = new Uint8Array(algorithm.hashBytes);
  return encodeContentInformation(
    new ContentInformation({
      version,
      algorithm,
      range: { offset: 0, length: segments },
      firstSegmentIndex: 0,
      boundaries: new Float64Array(segments + 1).map((_, index) => index),
      descriptors: new Uint8Array(segments * descriptorBytes(version, algorithm)),
      blockLists: version === 1 && segments === 1 ? [{ firstBlock: 0, hashes }] : [],
    }),
  ).byteLength;
}
