/**
 * Bytes to messages (MS-PCCRR 2.2). Strict: sizes must agree, nothing may be missing and nothing left over. What padding is made of is not
 * looked at. Nothing is allocated from a length that the input does not back, and fields are views on the input.
 */
import { ByteReader } from '../../bytes/index.ts';
import { PeerDistError } from '../../errors.ts';
import type { CipherName } from '../../crypto/index.ts';
import type { BlockRange } from './block-ranges.ts';
import {
  CIPHERS,
  HEADER_BYTES,
  MAX_REQUEST_BYTES,
  MAX_RESPONSE_BYTES,
  MAX_SEGMENT_ID_BYTES,
  MAX_VERSION,
  MESSAGE_TYPES,
  MIN_VERSION,
  REQUEST_ID_BYTES,
  TRANSPORT_HEADER_BYTES,
} from './constants.ts';
import type { RequestMessage, ResponseMessage, UnknownVersion } from './messages.ts';
import type { ProtocolVersion } from './versions.ts';

/**
 * Decodes a request. A version that is not spoken is no error: it is answered by a negotiation response.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`; also for a response
 */
export function decodeRequest(bytes: Uint8Array): RequestMessage | UnknownVersion {
  const { reader, type, cipher, version } = readHeader(bytes, MAX_REQUEST_BYTES);
  if (cipher === undefined) return { type: 'unknown-version', version };
  const message = readRequest(reader, type, cipher);
  assertEnd(reader);
  return message;
}

function readRequest(reader: ByteReader, type: number, cipher: CipherName): RequestMessage {
  switch (type) {
    case MESSAGE_TYPES['negotiation-request']:
      return { type: 'negotiation-request', cipher, min: readVersion(reader), max: readVersion(reader) };
    case MESSAGE_TYPES['get-block-list']:
      return { type: 'get-block-list', cipher, segmentId: readSegmentId(reader), ranges: readRanges(reader) };
    case MESSAGE_TYPES['get-blocks']: {
      const segmentId = readSegmentId(reader);
      const ranges = readRanges(reader);
      // DataForVrfBlock: not used, but it may be there.
      reader.take(reader.u32());
      return { type: 'get-blocks', cipher, segmentId, ranges };
    }
    case MESSAGE_TYPES['get-segment-list']:
      return {
        type: 'get-segment-list',
        cipher,
        requestId: reader.take(REQUEST_ID_BYTES),
        segmentIds: readSegmentIds(reader),
        blob: reader.take(reader.u32()),
      };
    default:
      throw malformed('no request of that type', '2.2.3', { actual: type });
  }
}

/**
 * Decodes a response with its length in front.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`; also for a request
 */
export function decodeResponse(bytes: Uint8Array): ResponseMessage | UnknownVersion {
  const size = openReader(bytes).u32();
  if (size !== bytes.byteLength - TRANSPORT_HEADER_BYTES)
    throw malformed('the length in front is another', '2.2.2', {
      expected: bytes.byteLength - TRANSPORT_HEADER_BYTES,
      actual: size,
    });
  const { reader, type, cipher, version } = readHeader(bytes.subarray(TRANSPORT_HEADER_BYTES), MAX_RESPONSE_BYTES);
  if (cipher === undefined) return { type: 'unknown-version', version };
  const message = readResponse(reader, type, cipher);
  assertEnd(reader);
  return message;
}

function readResponse(reader: ByteReader, type: number, cipher: CipherName): ResponseMessage {
  switch (type) {
    case MESSAGE_TYPES['negotiation-response']:
      return { type: 'negotiation-response', cipher, min: readVersion(reader), max: readVersion(reader) };
    case MESSAGE_TYPES['block-list']:
      return {
        type: 'block-list',
        cipher,
        segmentId: readSegmentId(reader),
        ranges: readRanges(reader),
        nextBlockIndex: reader.u32(),
      };
    case MESSAGE_TYPES['block']: {
      const segmentId = readSegmentId(reader);
      const blockIndex = reader.u32();
      const nextBlockIndex = reader.u32();
      const data = readSized(reader);
      readSized(reader); // VrfBlock: not used, but it may be there
      return { type: 'block', cipher, segmentId, blockIndex, nextBlockIndex, data, iv: reader.take(reader.u32()) };
    }
    case MESSAGE_TYPES['segment-list']:
      return {
        type: 'segment-list',
        cipher,
        requestId: reader.take(REQUEST_ID_BYTES),
        ranges: readRanges(reader),
        blob: reader.take(reader.u32()),
      };
    default:
      throw malformed('no response of that type', '2.2.3', { actual: type });
  }
}

interface OpenMessage {
  readonly reader: ByteReader;
  readonly type: number;
  /** Undefined when the version is not spoken: what follows may mean anything. */
  readonly cipher: CipherName | undefined;
  readonly version: ProtocolVersion;
}

function readHeader(bytes: Uint8Array, maxBytes: number): OpenMessage {
  if (bytes.byteLength < HEADER_BYTES || bytes.byteLength > maxBytes)
    throw malformed('the message is too short or too long', '2.2.3', { expected: maxBytes, actual: bytes.byteLength });
  const reader = openReader(bytes);
  const version = readVersion(reader);
  const type = reader.u32();
  const size = reader.u32();
  const cipherId = reader.u32();
  if (version.major < MIN_VERSION.major || version.major > MAX_VERSION.major)
    return { reader, type, cipher: undefined, version };
  if (size !== bytes.byteLength)
    throw malformed('MsgSize is another', '2.2.3', { expected: bytes.byteLength, actual: size });
  const cipher = CIPHERS[cipherId];
  if (cipher === undefined) throw malformed('no such cipher', '2.2.3', { actual: cipherId });
  return { reader, type, cipher, version };
}

function openReader(bytes: Uint8Array): ByteReader {
  return new ByteReader(bytes, false, (needed, left) =>
    malformed('the message ends too early', '2.2', { expected: needed, actual: left }),
  );
}

function readVersion(reader: ByteReader): ProtocolVersion {
  const minor = reader.u16();
  return { minor, major: reader.u16() };
}

/** A length, as many bytes, and what restores the alignment. */
function readSized(reader: ByteReader): Uint8Array {
  const length = reader.u32();
  const bytes = reader.take(length);
  // Microsoft's own decoder skips `length % 4` bytes, which is wrong for 1 and 3; its encoder is right.
  reader.take((4 - (length % 4)) % 4);
  return bytes;
}

function readSegmentId(reader: ByteReader): Uint8Array {
  const id = readSized(reader);
  if (id.byteLength === 0 || id.byteLength > MAX_SEGMENT_ID_BYTES)
    throw malformed('no segment ID has that length', '2.2.4.2', { actual: id.byteLength });
  return id;
}

function readSegmentIds(reader: ByteReader): Uint8Array[] {
  const count = reader.u32();
  // Microsoft's tests want a request without any refused.
  if (count === 0 || count > reader.left / 8)
    throw malformed('fewer segments than announced', '2.2.4.4', { actual: count });
  return Array.from({ length: count }, () => readSegmentId(reader));
}

function readRanges(reader: ByteReader): BlockRange[] {
  const count = reader.u32();
  if (8 * count > reader.left) throw malformed('fewer ranges than announced', '2.2.1.3', { actual: count });
  return Array.from({ length: count }, () => ({ index: reader.u32(), count: reader.u32() }));
}

function assertEnd(reader: ByteReader): void {
  if (reader.left > 0) throw malformed('bytes after the end', '2.2', { actual: reader.left });
}

function malformed(message: string, section: string, details: { expected?: unknown; actual?: unknown }): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_MALFORMED_MESSAGE', message, { spec: `MS-PCCRR ${section}`, ...details });
}
