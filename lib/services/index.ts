export { BlockBroker, type BlockBrokerOptions, type RetrievedBlock } from './block-broker.ts';
export type { BlockRequest, BlockSource, FetchMissing } from './block-source.ts';
export { DescribedContent } from './described-content.ts';
export { type EncryptedBlock, type Holdings, openHoldings, type SegmentHoldings } from './holdings.ts';
export { createLocalSource, LOCAL_DEADLINE_MS } from './local-source.ts';
export { OriginSource, type OriginSourceOptions } from './origin-source.ts';
export { SingleFlight } from './single-flight.ts';
export {
  Discovery,
  type DiscoveryOptions,
  isNeighbour,
  isOwnAddress,
  type LanInterface,
  lanInterfaces,
} from './discovery/index.ts';
export {
  type Holder,
  type PeerFinder,
  PeerSource,
  type PeerSourceOptions,
  type PeerStanding,
  type PeerState,
} from './peers/index.ts';
export { createLanHttpServer, type LanHttpOptions, type LanRequestHandler } from './lan-http.ts';
export { RetrievalServer, type RetrievalServerOptions } from './retrieval-server.ts';
export {
  MAX_SIBLINGS,
  siteBeacon,
  SiblingDirectory,
  type SiblingDirectoryOptions,
  type SiblingEntry,
  type SiblingLookup,
  type SiblingQuestion,
} from './siblings/index.ts';
export { type SealedBlock } from './sealed-block.ts';
export {
  createSealedSource,
  HostedCache,
  type HostedCacheOptions,
  type OfferAuthentication,
  Offers,
  OfferServer,
  type OfferServerOptions,
  type OffersOptions,
  type FetchNote,
  SealedBlocks,
  SealingStore,
  SegmentLists,
  type SegmentListsOptions,
} from './hosted-cache/index.ts';
