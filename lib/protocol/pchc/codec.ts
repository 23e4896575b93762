/**
 * Messages to bytes and back (MS-PCHC 2.2). Big-endian, except for the segment information, which stays as MS-PCCRC has it. What padding
 * is made of is not looked at. Nothing is allocated from a length that the input does not back, and fields are views on the input.
 *
 *     u8 minor · u8 major · u16 Type · 4 padding · u16 Port · 6 padding · body
 */
import { ByteReader, ByteWriter } from '../../bytes/index.ts';
import { PeerDistError } from '../../errors.ts';
import { type ContentInformation, decodeContentInformation } from '../pccrc/index.ts';
import {
  CONTENT_TAG_BYTES,
  MAX_DESCRIPTORS,
  OFFER_TYPES,
  OFFER_VERSIONS,
  type OfferMessage,
  type OfferResponse,
  type SegmentDescriptor,
} from './messages.ts';

const HEADER_BYTES = 16;
/** Bytes of a segment ID in a batched offer, whatever the algorithm (2.2.1.5). */
const BATCHED_ID_BYTES = 32;
const DESCRIPTOR_BYTES = 4 + 4 + 2 + CONTENT_TAG_BYTES + 1 + BATCHED_ID_BYTES;
/** Lengths a segment ID can have: those of the hash functions. */
const ID_BYTES: ReadonlySet<number> = new Set([32, 48, 64]);

/**
 * Decodes an offer.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`
 */
export function decodeOffer(bytes: Uint8Array): OfferMessage {
  const reader = openReader(bytes);
  const minor = reader.u8();
  const major = reader.u8();
  const type = reader.u16();
  reader.take(4);
  const port = reader.u16();
  reader.take(6);
  const name = typeOf(type);
  if (minor !== 0 || major !== OFFER_VERSIONS[name])
    throw malformed('the version is not that of the message', '2.2.1.1', { actual: `${major}.${minor}` });
  if (port === 0) throw malformed('nobody can listen on port 0', '2.2.1.2', {});
  switch (name) {
    case 'initial-offer': {
      if (!ID_BYTES.has(reader.left))
        throw malformed('no segment ID has that length', '2.2.1.3', { actual: reader.left });
      return { type: name, port, segmentId: reader.take(reader.left) };
    }
    case 'segment-info':
      return {
        type: name,
        port,
        contentTag: reader.take(CONTENT_TAG_BYTES),
        segmentInformation: reader.take(reader.left),
      };
    default:
      return { type: name, port, segments: readDescriptors(reader) };
  }
}

/** Encodes an offer. A fresh array. */
export function encodeOffer(offer: OfferMessage): Uint8Array {
  const writer = new ByteWriter(HEADER_BYTES + bodyBytes(offer), false)
    .u8(0)
    .u8(OFFER_VERSIONS[offer.type])
    .u16(OFFER_TYPES[offer.type])
    .u32(0)
    .u16(offer.port)
    .put(new Uint8Array(6));
  switch (offer.type) {
    case 'initial-offer':
      writer.put(offer.segmentId);
      break;
    case 'segment-info':
      writer.put(offer.contentTag).put(offer.segmentInformation);
      break;
    default:
      for (const { blockSize, segmentSize, contentTag, hashAlgorithm, segmentId } of offer.segments)
        writer.u32(blockSize).u32(segmentSize).u16(CONTENT_TAG_BYTES).put(contentTag).u8(hashAlgorithm).put(segmentId);
  }
  return writer.bytes;
}

/** Encodes an answer with its length in front (2.2.2). */
export function encodeOfferResponse(response: OfferResponse): Uint8Array {
  return new ByteWriter(5, false).u32(1).u8(response === 'ok' ? 0 : 1).bytes;
}

/** Decodes an answer. @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE` */
export function decodeOfferResponse(bytes: Uint8Array): OfferResponse {
  const reader = openReader(bytes);
  const size = reader.u32();
  const code = reader.u8();
  if (size !== 1 || reader.left > 0 || code > 1)
    throw malformed('no answer to an offer', '2.2.2', { actual: { size, code, left: reader.left } });
  return code === 0 ? 'ok' : 'interested';
}

/**
 * The one segment that a {@link SegmentInfo} describes, or undefined where it cannot be used: such a message is answered all the same
 * (3.1.5.2). The hashes are not checked against their segment yet.
 *
 * Spec note: dwReadBytesInLastSegment is to be the size of the segment even where the range begins inside it, which contradicts MS-PCCRC 2.3,
 * and Microsoft's own client leaves it 0. A segment is offered whole, so both fields of the range are passed over.
 */
export function readSegmentInformation(bytes: Uint8Array): ContentInformation | undefined {
  if (bytes.byteLength < RANGE_FIELDS.end) return undefined;
  const whole = Uint8Array.from(bytes);
  whole.fill(0, RANGE_FIELDS.start, RANGE_FIELDS.end);
  try {
    const information = decodeContentInformation(whole);
    return information.version === 1 && information.segmentCount === 1 ? information : undefined;
  } catch {
    return undefined;
  }
}

/** dwOffsetInFirstSegment and dwReadBytesInLastSegment (MS-PCCRC 2.3). */
const RANGE_FIELDS = { start: 6, end: 14 } as const;

function typeOf(type: number): OfferMessage['type'] {
  for (const [name, number] of Object.entries(OFFER_TYPES)) if (number === type) return name as OfferMessage['type'];
  throw malformed('no offer of that type', '2.2.1.1', { actual: type });
}

function bodyBytes(offer: OfferMessage): number {
  switch (offer.type) {
    case 'initial-offer':
      return offer.segmentId.byteLength;
    case 'segment-info':
      return CONTENT_TAG_BYTES + offer.segmentInformation.byteLength;
    default:
      return DESCRIPTOR_BYTES * offer.segments.length;
  }
}

function readDescriptors(reader: ByteReader): SegmentDescriptor[] {
  const segments: SegmentDescriptor[] = [];
  while (reader.left > 0) {
    if (segments.length === MAX_DESCRIPTORS) throw malformed('more than 128 segments', '2.2.1.5', {});
    const blockSize = reader.u32();
    const segmentSize = reader.u32();
    const tagBytes = reader.u16();
    if (tagBytes !== CONTENT_TAG_BYTES)
      throw malformed('a content tag has 16 bytes', '2.2.1.5', { expected: CONTENT_TAG_BYTES, actual: tagBytes });
    const contentTag = reader.take(tagBytes);
    segments.push({
      blockSize,
      segmentSize,
      contentTag,
      hashAlgorithm: reader.u8(),
      segmentId: reader.take(BATCHED_ID_BYTES),
    });
  }
  if (segments.length === 0) throw malformed('an offer of nothing', '2.2.1.5', {});
  return segments;
}

function openReader(bytes: Uint8Array): ByteReader {
  return new ByteReader(bytes, false, (needed, left) =>
    malformed('the message ends too early', '2.2', { expected: needed, actual: left }),
  );
}

function malformed(message: string, section: string, details: { expected?: unknown; actual?: unknown }): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_MALFORMED_MESSAGE', message, { spec: `MS-PCHC ${section}`, ...details });
}
