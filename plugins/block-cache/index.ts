export { createBlockCache } from './block-cache.ts';
export { type KeptResource, parseKeptResource } from './kept-resource.ts';
export type { BlockCacheOptions } from './options.ts';
