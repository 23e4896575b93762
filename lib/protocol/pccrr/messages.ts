/** The eight messages of MS-PCCRR and what they carry. */
import type { CipherName } from '../../crypto/index.ts';
import type { BlockRange } from './block-ranges.ts';
import type { ProtocolVersion } from './versions.ts';

interface Header {
  /**
   * Of a request: the cipher the client would like, which the server need not heed. Of a block: how it is encrypted. Elsewhere of no
   * meaning. (CryptoAlgoId)
   */
  readonly cipher: CipherName;
}

/** Asks which versions are spoken (MSG_NEGO_REQ, 2.2.4.1). */
export interface NegotiationRequest extends Header {
  readonly type: 'negotiation-request';
  readonly min: ProtocolVersion;
  readonly max: ProtocolVersion;
}

/** Asks which of the named blocks of a segment are held (MSG_GETBLKLIST, 2.2.4.2). */
export interface GetBlockList extends Header {
  readonly type: 'get-block-list';
  readonly segmentId: Uint8Array;
  readonly ranges: readonly BlockRange[];
}

/** Asks for one block, the first of the named ones (MSG_GETBLKS, 2.2.4.3). */
export interface GetBlocks extends Header {
  readonly type: 'get-blocks';
  readonly segmentId: Uint8Array;
  readonly ranges: readonly BlockRange[];
}

/** Asks which of the named segments are held (MSG_GETSEGLIST, 2.2.4.4). */
export interface GetSegmentList extends Header {
  readonly type: 'get-segment-list';
  /** 16 bytes, repeated by the answer. */
  readonly requestId: Uint8Array;
  readonly segmentIds: readonly Uint8Array[];
  readonly blob: Uint8Array;
}

/** Versions spoken: the answer to a negotiation request and to any request of an unknown version (MSG_NEGO_RESP, 2.2.5.1). */
export interface NegotiationResponse extends Header {
  readonly type: 'negotiation-response';
  readonly min: ProtocolVersion;
  readonly max: ProtocolVersion;
}

/** Blocks held of those asked for (MSG_BLKLIST, 2.2.5.2). */
export interface BlockList extends Header {
  readonly type: 'block-list';
  readonly segmentId: Uint8Array;
  readonly ranges: readonly BlockRange[];
  /** First block held behind the last one listed; 0 = none. */
  readonly nextBlockIndex: number;
}

/** One block, or none (MSG_BLK, 2.2.5.3). */
export interface BlockMessage extends Header {
  readonly type: 'block';
  readonly segmentId: Uint8Array;
  readonly blockIndex: number;
  /** First block held behind this one; 0 = none. */
  readonly nextBlockIndex: number;
  /** As encrypted; empty = not held. */
  readonly data: Uint8Array;
  /** Initialization vector, behind the data on the wire. Microsoft's test peer sends one with the cipher `none` too. */
  readonly iv: Uint8Array;
}

/** Segments held of those asked for (MSG_SEGLIST, 2.2.5.4). */
export interface SegmentList extends Header {
  readonly type: 'segment-list';
  readonly requestId: Uint8Array;
  /** Positions in the request. */
  readonly ranges: readonly BlockRange[];
  /** See `segment-ages.ts`. */
  readonly blob: Uint8Array;
}

export type RequestMessage = NegotiationRequest | GetBlockList | GetBlocks | GetSegmentList;
export type ResponseMessage = NegotiationResponse | BlockList | BlockMessage | SegmentList;
export type MessageType = (RequestMessage | ResponseMessage)['type'];

/** A message of a major version that is not spoken here; its body is not looked at. */
export interface UnknownVersion {
  readonly type: 'unknown-version';
  readonly version: ProtocolVersion;
}
