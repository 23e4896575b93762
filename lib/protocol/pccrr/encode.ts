/**
 * Messages to bytes (MS-PCCRR 2.2). All integers are big-endian; every variable field is followed by zeros up to the next multiple of four,
 * counted from the start of the message. A response is preceded by its length.
 */
import { ByteWriter } from '../../bytes/index.ts';
import type { BlockRange } from './block-ranges.ts';
import { CIPHERS, HEADER_BYTES, MESSAGE_TYPES, REQUEST_ID_BYTES, TRANSPORT_HEADER_BYTES } from './constants.ts';
import type { BlockMessage, RequestMessage, ResponseMessage } from './messages.ts';
import type { ProtocolVersion } from './versions.ts';

/** Encodes a request. A fresh array. */
export function encodeRequest(message: RequestMessage): Uint8Array {
  const size = HEADER_BYTES + requestBodyBytes(message);
  const writer = new ByteWriter(size, false);
  putHeader(writer, message, size);
  switch (message.type) {
    case 'negotiation-request':
      putVersion(putVersion(writer, message.min), message.max);
      break;
    case 'get-block-list':
      putRanges(putSized(writer, message.segmentId), message.ranges);
      break;
    case 'get-blocks':
      // SizeOfDataForVrfBlock: nothing is ever there.
      putRanges(putSized(writer, message.segmentId), message.ranges).u32(0);
      break;
    case 'get-segment-list':
      writer.put(message.requestId).u32(message.segmentIds.length);
      for (const segmentId of message.segmentIds) putSized(writer, segmentId);
      writer.u32(message.blob.byteLength).put(message.blob);
  }
  return writer.bytes;
}

/** Encodes a response, its length in front. A fresh array. */
export function encodeResponse(message: Exclude<ResponseMessage, BlockMessage>): Uint8Array {
  const size = HEADER_BYTES + responseBodyBytes(message);
  const writer = new ByteWriter(TRANSPORT_HEADER_BYTES + size, false).u32(size);
  putHeader(writer, message, size);
  switch (message.type) {
    case 'negotiation-response':
      putVersion(putVersion(writer, message.min), message.max);
      break;
    case 'block-list':
      putRanges(putSized(writer, message.segmentId), message.ranges).u32(message.nextBlockIndex);
      break;
    case 'segment-list':
      putRanges(writer.put(message.requestId), message.ranges).u32(message.blob.byteLength).put(message.blob);
  }
  return writer.bytes;
}

/**
 * Encodes a block response around its data, which is not copied.
 *
 * @param data the block as encrypted, in pieces; none or empty ones = not held
 * @returns what goes over the wire, in order
 */
export function encodeBlock(
  message: Omit<BlockMessage, 'data'>,
  data: readonly Uint8Array[] = [],
): readonly Uint8Array[] {
  const { segmentId, blockIndex, nextBlockIndex, iv } = message;
  const length = data.reduce((sum, piece) => sum + piece.byteLength, 0);
  const headBytes = HEADER_BYTES + sizedBytes(segmentId.byteLength) + 12;
  const padBytes = sizedBytes(length) - 4 - length;
  const tailBytes = padBytes + 4 + 4 + iv.byteLength;
  const size = headBytes + length + tailBytes;
  // What comes before the data and what comes after it, in one piece of memory.
  const around = new ByteWriter(TRANSPORT_HEADER_BYTES + headBytes + tailBytes, false).u32(size);
  putHeader(around, message, size);
  // SizeOfVrfBlock: nothing is ever there.
  putSized(around, segmentId)
    .u32(blockIndex)
    .u32(nextBlockIndex)
    .u32(length)
    .skip(padBytes)
    .u32(0)
    .u32(iv.byteLength)
    .put(iv);
  const { bytes } = around;
  const end = TRANSPORT_HEADER_BYTES + headBytes;
  return [bytes.subarray(0, end), ...data, bytes.subarray(end)];
}

/**
 * A block response as {@link encodeBlock} has made it, saying another block is next.
 *
 * @param answer in one piece, which is not changed, and of which what is returned are views
 * @returns what goes over the wire, and how much of it is the block
 */
export function withNextBlock(
  answer: Uint8Array,
  nextBlockIndex: number,
): { readonly pieces: readonly Uint8Array[]; readonly dataBytes: number } {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.byteLength);
  const idAt = TRANSPORT_HEADER_BYTES + HEADER_BYTES;
  const nextAt = idAt + sizedBytes(view.getUint32(idAt)) + 4;
  const dataBytes = view.getUint32(nextAt + 4);
  if (view.getUint32(nextAt) === nextBlockIndex) return { pieces: [answer], dataBytes };
  const head = Uint8Array.from(answer.subarray(0, nextAt + 4));
  new DataView(head.buffer).setUint32(nextAt, nextBlockIndex);
  return { pieces: [head, answer.subarray(nextAt + 4)], dataBytes };
}

function requestBodyBytes(message: RequestMessage): number {
  switch (message.type) {
    case 'negotiation-request':
      return 8;
    case 'get-block-list':
      return sizedBytes(message.segmentId.byteLength) + rangesBytes(message.ranges);
    case 'get-blocks':
      return sizedBytes(message.segmentId.byteLength) + rangesBytes(message.ranges) + 4;
    default:
      return (
        REQUEST_ID_BYTES +
        4 +
        message.segmentIds.reduce((sum, id) => sum + sizedBytes(id.byteLength), 0) +
        4 +
        message.blob.byteLength
      );
  }
}

function responseBodyBytes(message: Exclude<ResponseMessage, BlockMessage>): number {
  switch (message.type) {
    case 'negotiation-response':
      return 8;
    case 'block-list':
      return sizedBytes(message.segmentId.byteLength) + rangesBytes(message.ranges) + 4;
    default:
      return REQUEST_ID_BYTES + rangesBytes(message.ranges) + 4 + message.blob.byteLength;
  }
}

/** Version 2.0 brought segment lists; everything else stays 1.0, whatever more is spoken (2.2.3). */
function putHeader(
  writer: ByteWriter,
  { type, cipher }: Pick<RequestMessage | ResponseMessage, 'type' | 'cipher'>,
  size: number,
): void {
  const isSegmentList = type === 'get-segment-list' || type === 'segment-list';
  putVersion(writer, { major: isSegmentList ? 2 : 1, minor: 0 })
    .u32(MESSAGE_TYPES[type])
    .u32(size)
    .u32(CIPHERS.indexOf(cipher));
}

function putVersion(writer: ByteWriter, { major, minor }: ProtocolVersion): ByteWriter {
  return writer.u16(minor).u16(major);
}

/** Bytes of a length, as many bytes, and padding. */
function sizedBytes(length: number): number {
  return 4 + Math.ceil(length / 4) * 4;
}

function putSized(writer: ByteWriter, bytes: Uint8Array): ByteWriter {
  return writer
    .u32(bytes.byteLength)
    .put(bytes)
    .skip(sizedBytes(bytes.byteLength) - 4 - bytes.byteLength);
}

function rangesBytes(ranges: readonly BlockRange[]): number {
  return 4 + 8 * ranges.length;
}

function putRanges(writer: ByteWriter, ranges: readonly BlockRange[]): ByteWriter {
  writer.u32(ranges.length);
  for (const { index, count } of ranges) writer.u32(index).u32(count);
  return writer;
}
