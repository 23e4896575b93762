export type { BlockStore, ContentInformationRecord, ContentInformationStore, MaybePromise } from './types.ts';
export { MemoryBlockStore } from './memory-block-store.ts';
export { MemoryContentInformationStore } from './memory-content-information-store.ts';
export { MemoryResourceStore, type MemoryResourceStoreOptions } from './memory-resource-store.ts';
