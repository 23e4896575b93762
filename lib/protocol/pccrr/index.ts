export { type BlockRange, namedBlocks, rangesOf } from './block-ranges.ts';
export {
  MAX_REQUEST_BYTES,
  MAX_RESPONSE_BYTES,
  MAX_SEGMENT_BLOCKS,
  MAX_VERSION,
  MIN_VERSION,
  REQUEST_ID_BYTES,
  RETRIEVAL_PATH,
  RETRIEVAL_PORT,
} from './constants.ts';
export { decodeRequest, decodeResponse } from './decode.ts';
export { encodeBlock, encodeRequest, encodeResponse, withNextBlock } from './encode.ts';
export type {
  BlockList as BlockListMessage,
  BlockMessage,
  GetBlockList,
  GetBlocks,
  GetSegmentList,
  NegotiationRequest,
  NegotiationResponse,
  RequestMessage,
  ResponseMessage,
  SegmentList,
  UnknownVersion,
} from './messages.ts';
export { decodeSegmentAges, encodeSegmentAges, type SegmentAge } from './segment-ages.ts';
export { commonMajorVersion, type ProtocolVersion, type VersionRange } from './versions.ts';
