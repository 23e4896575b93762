/**
 * Content information version 2.0 (MS-PCCRC 2.4). Big-endian throughout:
 *
 *     u8 0 · u8 2 · u8 bHashAlgo · u64 ullStartInContent · u64 ullIndexOfFirstSegment · u32 dwOffsetInFirstSegment · u64 ullLengthOfRange
 *     chunks × { u8 0 · u32 dwChunkDataLength · segments × { u32 cbSegment · HoD · Kp } }
 */
import { ByteReader, ByteWriter, rangeEnd } from '../../bytes/index.ts';
import { TRUNCATED_SHA512, V2_MAX_SEGMENT_BYTES } from './constants.ts';
import { ContentInformation, descriptorBytes } from './content-information.ts';
import { malformed } from './malformed.ts';
import type { LengthStyle } from './v1.ts';

const HEADER_BYTES = 31;
const CHUNK_HEADER_BYTES = 5;
const SEGMENT_CHUNK = 0;
const STRIDE = descriptorBytes(2, TRUNCATED_SHA512);

/** Encodes version 2 content information in one chunk. A fresh array. */
export function encodeV2(information: ContentInformation, style?: LengthStyle): Uint8Array {
  const { descriptors, range, boundaries, segmentCount } = information;
  const start = segmentCount === 0 ? range.offset : (boundaries[0] as number);
  const implicit =
    rangeEnd(range) === boundaries[segmentCount] &&
    (style ?? (information.isWhole ? 'implicit' : 'explicit')) === 'implicit';
  const writer = new ByteWriter(
    HEADER_BYTES + (segmentCount === 0 ? 0 : CHUNK_HEADER_BYTES + descriptors.byteLength),
    false,
  )
    .u8(0)
    .u8(2)
    .u8(information.algorithm.wireId)
    .u64(start)
    .u64(information.firstSegmentIndex)
    .u32(range.offset - start)
    .u64(implicit ? 0 : range.length);
  if (segmentCount > 0) writer.u8(SEGMENT_CHUNK).u32(descriptors.byteLength).put(descriptors);
  return writer.bytes;
}

/**
 * Decodes version 2 content information. The result holds views on `bytes`, which must not change afterwards.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO`
 */
export function decodeV2(bytes: Uint8Array): ContentInformation {
  const reader = new ByteReader(bytes, false, (needed, left) =>
    malformed('content information ends too early', '2.4', { expected: needed, actual: left }),
  );
  if (reader.u8() !== 0 || reader.u8() !== 2) throw malformed('not version 2.0', '2.4');
  const wireId = reader.u8();
  if (wireId !== TRUNCATED_SHA512.wireId) throw malformed('unknown hash algorithm', '2.4', { actual: wireId });
  const start = reader.u64();
  const firstSegmentIndex = reader.u64();
  const offsetInFirst = reader.u32();
  const lengthOfRange = reader.u64();
  if (start === undefined || firstSegmentIndex === undefined || lengthOfRange === undefined) {
    throw malformed('a position past 2^53', '2.4');
  }
  const descriptors = readChunks(reader);
  const boundaries = readBoundaries(descriptors, start);
  const segmentCount = boundaries.length - 1;
  const end = boundaries[segmentCount] as number;
  const offset = start + offsetInFirst;
  if (segmentCount === 0 ? offsetInFirst !== 0 || lengthOfRange !== 0 : offset >= (boundaries[1] as number)) {
    throw malformed('the range starts outside its first segment', '2.4', { actual: offsetInFirst });
  }
  if (lengthOfRange > end - offset)
    throw malformed('the range ends after its last segment', '2.4', { actual: lengthOfRange });
  return new ContentInformation({
    version: 2,
    algorithm: TRUNCATED_SHA512,
    range: { offset, length: lengthOfRange === 0 ? end - offset : lengthOfRange },
    firstSegmentIndex,
    boundaries,
    descriptors,
    blockLists: [],
  });
}

/** The segment descriptions of all chunks; copied only where there is more than one chunk. */
function readChunks(reader: ByteReader): Uint8Array {
  const chunks: Uint8Array[] = [];
  while (reader.left > 0) {
    if (reader.u8() !== SEGMENT_CHUNK) throw malformed('unknown chunk type', '2.4.1.1');
    const length = reader.u32();
    if (length === 0 || length % STRIDE !== 0)
      throw malformed('a chunk that does not hold whole segments', '2.4.1.1', { actual: length });
    chunks.push(reader.take(length));
  }
  return chunks.length === 1 ? (chunks[0] as Uint8Array) : new Uint8Array(Buffer.concat(chunks));
}

function readBoundaries(descriptors: Uint8Array, start: number): Float64Array {
  const view = new DataView(descriptors.buffer, descriptors.byteOffset, descriptors.byteLength);
  const segmentCount = descriptors.byteLength / STRIDE;
  const boundaries = new Float64Array(segmentCount + 1);
  let position = start;
  boundaries[0] = position;
  for (let segment = 0; segment < segmentCount; segment += 1) {
    const length = view.getUint32(segment * STRIDE, false);
    if (length === 0 || length > V2_MAX_SEGMENT_BYTES)
      throw malformed('wrong segment length', '2.4.1.2', { actual: length });
    position += length;
    boundaries[segment + 1] = position;
  }
  if (!Number.isSafeInteger(position)) throw malformed('a position past 2^53', '2.4');
  return boundaries;
}
