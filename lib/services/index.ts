export { BlockBroker, type BlockBrokerOptions, type RetrievedBlock } from './block-broker.ts';
export type { BlockRequest, BlockSource, FetchMissing } from './block-source.ts';
export { DescribedContent } from './described-content.ts';
export { createLocalSource, LOCAL_DEADLINE_MS } from './local-source.ts';
export { OriginSource, type OriginSourceOptions } from './origin-source.ts';
export { SingleFlight } from './single-flight.ts';
