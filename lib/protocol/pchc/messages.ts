/** What a client and a hosted cache say to each other (MS-PCHC 2.2). */

/** Path of version 1 offers, over HTTPS (2.1). Compare without regard to case, with and without the last slash. */
export const V1_OFFER_PATH = '/C574AC30-5794-4AEE-B1BB-6651C5315029/';
/** Path of version 2 offers, over HTTP (2.1). */
export const V2_OFFER_PATH = '/0131501b-d67f-491b-9a40-c4bf27bcb4d4/';

/** Segments one batched offer can name (2.2.1.5). */
export const MAX_DESCRIPTORS = 128;
/** Bytes of a content tag. */
export const CONTENT_TAG_BYTES = 16;
/** No offer is longer, bytes: segment information with 512 hashes of SHA-512, and something to spare. */
export const MAX_OFFER_BYTES = 64 * 1024;

interface Offer {
  /** Where the client gives its blocks away. (CONNECTION_INFORMATION, 2.2.1.2) */
  readonly port: number;
}

/** New blocks of a segment (INITIAL_OFFER_MESSAGE, version 1.0, 2.2.1.3). */
export interface InitialOffer extends Offer {
  readonly type: 'initial-offer';
  /** HoHoDk. */
  readonly segmentId: Uint8Array;
}

/** The segment that was offered, with its hashes (SEGMENT_INFO_MESSAGE, version 1.0, 2.2.1.4). */
export interface SegmentInfo extends Offer {
  readonly type: 'segment-info';
  readonly contentTag: Uint8Array;
  /** Content information of one segment as it was sent, little-endian, not looked at: see `readSegmentInformation`. */
  readonly segmentInformation: Uint8Array;
}

/** One segment of a batched offer. Nothing here proves anything. */
export interface SegmentDescriptor {
  /** Bytes of each block but the last. */
  readonly blockSize: number;
  readonly segmentSize: number;
  readonly contentTag: Uint8Array;
  /** 0x01 SHA-256, 0x04 truncated SHA-512; another one is to be answered, but not used. */
  readonly hashAlgorithm: number;
  /** HoHoDk. */
  readonly segmentId: Uint8Array;
}

/** HashAlgorithm of a {@link SegmentDescriptor}. */
export const OFFER_HASHES = { sha256: 0x01, 'truncated-sha512': 0x04 } as const;

/** New segments, up to 128 (BATCHED_OFFER_MESSAGE, version 2.0, 2.2.1.5). */
export interface BatchedOffer extends Offer {
  readonly type: 'batched-offer';
  readonly segments: readonly SegmentDescriptor[];
}

export type OfferMessage = InitialOffer | SegmentInfo | BatchedOffer;

/** `interested`: the hashes of the segment are wanted first (2.2.2.2). */
export type OfferResponse = 'ok' | 'interested';

/** Major version a message belongs to; each has a transport of its own (1.7). */
export const OFFER_VERSIONS = { 'initial-offer': 1, 'segment-info': 1, 'batched-offer': 2 } as const;
/** Type (2.2.1.1). */
export const OFFER_TYPES = { 'initial-offer': 1, 'segment-info': 2, 'batched-offer': 3 } as const;
