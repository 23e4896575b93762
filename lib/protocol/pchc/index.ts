export { decodeOffer, decodeOfferResponse, encodeOffer, encodeOfferResponse, readSegmentInformation } from './codec.ts';
export {
  type BatchedOffer,
  type InitialOffer,
  MAX_DESCRIPTORS,
  MAX_OFFER_BYTES,
  OFFER_HASHES,
  OFFER_VERSIONS,
  type OfferMessage,
  type OfferResponse,
  type SegmentDescriptor,
  type SegmentInfo,
  V1_OFFER_PATH,
  V2_OFFER_PATH,
} from './messages.ts';
