export { createBlockCache } from './block-cache.ts';
export type { BlockCacheOptions } from './options.ts';
