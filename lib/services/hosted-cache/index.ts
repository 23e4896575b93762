export { HostedCache, type HostedCacheOptions } from './hosted-cache.ts';
export { type OfferAuthentication, OfferServer, type OfferServerOptions } from './offer-server.ts';
export { Offers, type OffersOptions } from './offers.ts';
export { type FetchNote, SealedBlocks } from './sealed-blocks.ts';
export { createSealedSource, SealingStore } from './sealing-store.ts';
export { SegmentLists, type SegmentListsOptions } from './segment-lists.ts';
