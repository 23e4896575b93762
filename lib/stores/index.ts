export {
  blockKey,
  type BlockStore,
  type ContentInformationRecord,
  type ContentInformationStore,
  type HeldSegment,
  type MaybePromise,
  parseBlockKey,
  type SegmentFacts,
} from './types.ts';
export { placeOf } from './segment-index.ts';
export { MemoryBlockStore } from './memory-block-store.ts';
export { MemoryContentInformationStore } from './memory-content-information-store.ts';
export { MemoryResourceStore, type MemoryResourceStoreOptions } from './memory-resource-store.ts';
