export {
  type BlockCheck,
  type BlockHash,
  blockKey,
  type BlockStore,
  type ContentInformationRecord,
  type ContentInformationStore,
  type DurableBlockStore,
  type HeldSegment,
  type MaybePromise,
  parseBlockKey,
  type RecordStore,
  type SegmentFacts,
} from './types.ts';
export type { Claims } from './claims.ts';
export { placeOf } from './segment-index.ts';
export { MemoryBlockStore } from './memory-block-store.ts';
export { MemoryContentInformationStore } from './memory-content-information-store.ts';
export { MemoryResourceStore, type MemoryResourceStoreOptions } from './memory-resource-store.ts';
export { TieredBlockStore, type TieredBlockStoreOptions } from './tiered-block-store.ts';
export { RecordContentInformationStore } from './record-content-information-store.ts';
export {
  type ResourceCodec,
  resourceKeyOf,
  ResourceStore,
  type ResourceStoreOptions,
  resourceVariants,
} from './resource-store.ts';
export { LmdbBlockStore, type LmdbBlockStoreOptions } from './lmdb-block-store.ts';
export { LmdbRecordStore, type LmdbRecordStoreOptions, type StoredRecord } from './lmdb-record-store.ts';
export { ownerOf } from './lmdb-environment.ts';
