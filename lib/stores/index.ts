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
export { PURGE_CHECK_MS, TieredBlockStore, type TieredBlockStoreOptions } from './tiered-block-store.ts';
export { RecordContentInformationStore } from './record-content-information-store.ts';
export { namedRecords } from './named-records.ts';
export {
  type ResourceCodec,
  resourceKeyOf,
  resourceName,
  ResourceStore,
  type ResourceStoreOptions,
  resourceVariants,
} from './resource-store.ts';
export { LmdbBlockStore, type LmdbBlockStoreOptions } from './lmdb-block-store.ts';
export { LmdbRecordStore, type LmdbRecordStoreOptions, type StoredRecord } from './lmdb-record-store.ts';
export { makeDirectory } from './make-directory.ts';
export { DATA_FILE, findDamage, ownerOf } from './lmdb-environment.ts';
export { openRedis, type RedisConnection, type RedisOptions } from './redis-connection.ts';
export type { RedisTls } from './redis-client.ts';
export { RedisBlockStore, type RedisBlockStoreOptions } from './redis-block-store.ts';
export { RedisRecordStore, type RedisRecordStoreOptions } from './redis-record-store.ts';
export { RedisClaims, type RedisClaimsOptions } from './redis-claims.ts';
export { Sealer } from './sealing.ts';
