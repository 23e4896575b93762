/** What is done to each entry of a store on disk, while proxies may be using it. */
import { LmdbBlockStore } from '../../../lib/stores/index.ts';
import type { KeptStore } from './kept-stores.ts';

/** Entries read, and entries deleted, at a time. Policy. */
const VERIFIED_TOGETHER = 16;
const DELETED_TOGETHER = 1024;

/**
 * Reads every entry against its hash; what does not match is deleted, and announced.
 *
 * @param onVerified told how many are done
 * @param stop ends it early
 * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`
 */
export async function verifyStore(
  { store }: KeptStore,
  onVerified: (verified: number) => void,
  stop: AbortSignal,
): Promise<{ readonly verified: number; readonly bad: number }> {
  let [verified, bad] = [0, 0];
  const entries = entriesOf(store);
  const work = async (): Promise<void> => {
    // All take from the same walk.
    for await (const { key } of entries) {
      if (stop.aborted) return;
      if (!(await store.verify(key))) {
        bad += 1;
        await store.purge(key);
      }
      onVerified((verified += 1));
    }
  };
  // Nobody may still be reading when the store closes.
  const ends = await Promise.allSettled(Array.from({ length: VERIFIED_TOGETHER }, work));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  return { verified, bad };
}

/**
 * Deletes every entry, or those last used before a time, and announces it.
 *
 * @param before seconds since 1970
 * @param stop ends it early
 * @returns what went
 * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`
 */
export async function clearStore(
  { store }: KeptStore,
  before: number,
  stop: AbortSignal,
): Promise<{ readonly entries: number; readonly bytes: number }> {
  const gone = { entries: 0, bytes: 0 };
  let failure: unknown;
  const purge = async (key: string, size: number): Promise<void> => {
    try {
      if (!(await store.purge(key))) return;
      gone.entries += 1;
      gone.bytes += size;
    } catch (error) {
      failure ??= error;
    }
  };
  const going: Promise<void>[] = [];
  for await (const { key, size, usedAt } of entriesOf(store)) {
    if (stop.aborted || failure !== undefined) break;
    if (usedAt >= before) continue;
    going.push(purge(key, size));
    if (going.length >= DELETED_TOGETHER) await Promise.all(going.splice(0));
  }
  await Promise.all(going);
  if (failure !== undefined) throw failure;
  return gone;
}

function entriesOf(store: KeptStore['store']): ReturnType<LmdbBlockStore['all']> {
  return store instanceof LmdbBlockStore ? store.all() : store.entries();
}
