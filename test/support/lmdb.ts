/** What tests of the stores on disk share. */
import type { Observation } from '../../lib/observer.ts';
import { LmdbBlockStore, type LmdbBlockStoreOptions, type SegmentFacts } from '../../lib/stores/index.ts';
import { seededBytes } from './random.ts';

/** Of the segment that test blocks belong to. */
export const facts: SegmentFacts = { blockCount: 64, secret: seededBytes(1, 32) };
/** Bytes that values are cut from. */
export const POOL = seededBytes(7, 2_000_000);

/** A store, and what it reports that went wrong. */
export async function watched(
  where: string,
  maxBytes: number,
  options: Partial<LmdbBlockStoreOptions> = {},
): Promise<{ store: LmdbBlockStore; faults: string[] }> {
  const faults: string[] = [];
  const observer = (observation: Observation): void => {
    if (observation.type === 'store_fault') faults.push(`${observation.store} ${observation.fault}`);
  };
  return { store: await LmdbBlockStore.open({ directory: where, maxBytes, observer, ...options }), faults };
}

/** Whether the store has these bytes; undefined: none at all. */
export async function isWhole(store: LmdbBlockStore, key: string, wanted: Uint8Array | undefined): Promise<boolean> {
  const found = await store.get(key);
  return found === undefined || wanted === undefined ? found === wanted : Buffer.compare(found, wanted) === 0;
}
