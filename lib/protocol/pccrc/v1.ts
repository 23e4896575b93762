/**
 * Content information version 1.0 (MS-PCCRC 2.3). Little-endian throughout:
 *
 *     u16 0x0100 · u32 dwHashAlgo · u32 dwOffsetInFirstSegment · u32 dwReadBytesInLastSegment · u32 cSegments
 *     cSegments × { u64 ullOffsetInContent · u32 cbSegment · u32 cbBlockSize · HoD · Kp }
 *     cSegments × { u32 cBlocks · cBlocks × block hash }
 */
import { ByteReader, ByteWriter, rangeEnd } from '../../bytes/index.ts';
import { type ContentHashAlgorithm, V1_ALGORITHMS, V1_BLOCK_BYTES, V1_SEGMENT_BYTES } from './constants.ts';
import { type BlockList, ContentInformation, descriptorBytes } from './content-information.ts';
import { malformed } from './malformed.ts';

const HEADER_BYTES = 18;
const VERSION = 0x0100;

/**
 * How the length of the range is written.
 * `implicit` leaves it 0 where the range ends with its last segment; `explicit` always writes it.
 * Default: implicit for a whole content, explicit for a range, as Windows does (fact 7).
 */
export type LengthStyle = 'implicit' | 'explicit';

/** Encodes version 1 content information. A fresh array. */
export function encodeV1(information: ContentInformation, style?: LengthStyle): Uint8Array {
  const { blockLists, boundaries, range, algorithm, segmentCount } = information;
  const size =
    HEADER_BYTES +
    information.descriptors.byteLength +
    blockLists.reduce((sum, list) => sum + 4 + list.hashes.byteLength, 0);
  const lastSegment = information.segmentRange(segmentCount - 1);
  const implicit =
    segmentCount === 0 ||
    (rangeEnd(range) === rangeEnd(lastSegment) &&
      (style ?? (information.isWhole ? 'implicit' : 'explicit')) === 'implicit');
  const writer = new ByteWriter(size, true)
    .u16(VERSION)
    .u32(algorithm.wireId)
    .u32(segmentCount === 0 ? 0 : range.offset - (boundaries[0] as number))
    // Fact 9: within a single segment the count starts at the range, not at the segment.
    .u32(implicit ? 0 : rangeEnd(range) - Math.max(range.offset, lastSegment.offset))
    .u32(segmentCount)
    .put(information.descriptors);
  for (const list of blockLists) writer.u32(list.hashes.byteLength / algorithm.hashBytes).put(list.hashes);
  return writer.bytes;
}

/**
 * Decodes version 1 content information. The result holds views on `bytes`, which must not change afterwards.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO`
 */
export function decodeV1(bytes: Uint8Array): ContentInformation {
  const reader = new ByteReader(bytes, true, (needed, left) =>
    malformed('content information ends too early', '2.3', { expected: needed, actual: left }),
  );
  if (reader.u16() !== VERSION) throw malformed('not version 1.0', '2.3');
  const wireId = reader.u32();
  const algorithm = Object.values(V1_ALGORITHMS).find((known) => known.wireId === wireId);
  if (algorithm === undefined) throw malformed('unknown hash algorithm', '2.3', { actual: wireId });
  const offsetInFirst = reader.u32();
  const readBytesInLast = reader.u32();
  const segmentCount = reader.u32();
  const stride = descriptorBytes(1, algorithm);
  if (segmentCount * stride > reader.left)
    throw malformed('fewer segments than announced', '2.3', { actual: segmentCount });
  const descriptors = reader.take(segmentCount * stride);
  const boundaries = readBoundaries(descriptors, segmentCount, stride);
  if (segmentCount === 0) {
    if (offsetInFirst !== 0 || readBytesInLast !== 0) throw malformed('a range without segments', '2.3');
    if (reader.left > 0) throw malformed('bytes after the end', '2.3', { actual: reader.left });
    return new ContentInformation({
      version: 1,
      algorithm,
      range: { offset: 0, length: 0 },
      firstSegmentIndex: 0,
      boundaries,
      descriptors,
      blockLists: [],
    });
  }
  const range = readRange(boundaries, offsetInFirst, readBytesInLast);
  const blockLists: BlockList[] = [];
  for (let segment = 0; segment < segmentCount; segment += 1) {
    blockLists.push(readBlockList(reader, algorithm, boundaries, segment, range));
  }
  if (reader.left > 0) throw malformed('bytes after the end', '2.3', { actual: reader.left });
  return new ContentInformation({
    version: 1,
    algorithm,
    range,
    firstSegmentIndex: (boundaries[0] as number) / V1_SEGMENT_BYTES,
    boundaries,
    descriptors,
    blockLists,
  });
}

function readBoundaries(descriptors: Uint8Array, segmentCount: number, stride: number): Float64Array {
  const view = new DataView(descriptors.buffer, descriptors.byteOffset, descriptors.byteLength);
  const boundaries = new Float64Array(segmentCount + 1);
  for (let segment = 0; segment < segmentCount; segment += 1) {
    const at = segment * stride;
    const offset = Number(view.getBigUint64(at, true));
    const length = view.getUint32(at + 8, true);
    const expected = segment === 0 ? offset : boundaries[segment];
    if (offset !== expected || offset % V1_SEGMENT_BYTES !== 0 || offset + length > Number.MAX_SAFE_INTEGER) {
      throw malformed('segments are not contiguous', '2.3.1.1', { expected, actual: offset });
    }
    const isLast = segment === segmentCount - 1;
    if (length === 0 || length > V1_SEGMENT_BYTES || (!isLast && length !== V1_SEGMENT_BYTES)) {
      throw malformed('wrong segment length', '2.3.1.1', { actual: length });
    }
    if (view.getUint32(at + 12, true) !== V1_BLOCK_BYTES) throw malformed('wrong block size', '2.3.1.1');
    if (segment === 0) boundaries[0] = offset;
    boundaries[segment + 1] = offset + length;
  }
  return boundaries;
}

function readRange(
  boundaries: Float64Array,
  offsetInFirst: number,
  readBytesInLast: number,
): { offset: number; length: number } {
  const segmentCount = boundaries.length - 1;
  const start = (boundaries[0] as number) + offsetInFirst;
  const end = boundaries[segmentCount] as number;
  if (start >= (boundaries[1] as number))
    throw malformed('the range starts after its first segment', '2.3', { actual: offsetInFirst });
  if (readBytesInLast === 0) return { offset: start, length: end - start };
  const rangeStop = Math.max(start, boundaries[segmentCount - 1] as number) + readBytesInLast;
  if (rangeStop > end) throw malformed('the range ends after its last segment', '2.3', { actual: readBytesInLast });
  return { offset: start, length: rangeStop - start };
}

/** Accepts the three forms seen: from block 0 to the end of the range (Windows), all of the segment, only what meets the range. */
function readBlockList(
  reader: ByteReader,
  algorithm: ContentHashAlgorithm,
  boundaries: Float64Array,
  segment: number,
  range: { offset: number; length: number },
): BlockList {
  const offset = boundaries[segment] as number;
  const length = (boundaries[segment + 1] as number) - offset;
  const firstBlock = Math.floor(Math.max(0, range.offset - offset) / V1_BLOCK_BYTES);
  const needed = Math.ceil(Math.min(length, rangeEnd(range) - offset) / V1_BLOCK_BYTES);
  const count = reader.u32();
  const fromStart = count === needed || count === Math.ceil(length / V1_BLOCK_BYTES);
  if (!fromStart && count !== needed - firstBlock) {
    throw malformed('wrong number of blocks', '2.3.1.2', { expected: needed, actual: count });
  }
  return { firstBlock: fromStart ? 0 : firstBlock, hashes: reader.take(count * algorithm.hashBytes) };
}
