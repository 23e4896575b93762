/** The stores on disk: the shared suites, restarts, limits of the file, damage, broken disks. */
import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  blockKey,
  type BlockStore,
  LmdbBlockStore,
  LmdbRecordStore,
  PURGE_CHECK_MS,
  RecordContentInformationStore,
  TieredBlockStore,
} from '../../lib/stores/index.ts';
import { SeenKeys } from '../../lib/stores/seen-keys.ts';
import { quickDirectory } from '../support/disk.ts';
import { facts, isWhole, POOL, watched } from '../support/lmdb.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { until } from '../support/proxies.ts';
import { pick, words } from '../support/random.ts';
import { blockStoreSuite, contentInformationStoreSuite, type StoreOptions } from '../support/store-suites.ts';

let directories = 0;

/** A fresh directory of the test. */
function directory(test: Test): string {
  return `${quickDirectory(test)}/${(directories += 1)}`;
}

async function openBlocks(test: Test, options: StoreOptions): Promise<LmdbBlockStore> {
  const store = await LmdbBlockStore.open({ directory: directory(test), ...options });
  test.teardown(() => store.close());
  return store;
}

await t.test('LmdbBlockStore', async (test) => blockStoreSuite(test, (options) => openBlocks(test, options)));

await t.test('TieredBlockStore on LmdbBlockStore', async (test) =>
  blockStoreSuite(test, async (options) => {
    const durable = await openBlocks(test, options);
    const tiered = new TieredBlockStore({ ...options, durable, memoryBytes: Math.floor(options.maxBytes / 10) });
    test.teardown(() => tiered.close());
    return settled(tiered, durable);
  }),
);

await t.test('RecordContentInformationStore on LmdbRecordStore', async (test) =>
  contentInformationStoreSuite(test, async (options) => {
    const records = await LmdbRecordStore.open({ directory: directory(test), ...options });
    test.teardown(() => records.close());
    return new RecordContentInformationStore({ records, memoryBytes: 1 });
  }),
);

/** The store, whose writes are waited for. */
function settled(store: TieredBlockStore, durable: LmdbBlockStore): BlockStore {
  return {
    get bytes() {
      return store.bytes;
    },
    get: (key, check) => store.get(key, check),
    has: (key) => store.has(key),
    async set(...change) {
      await store.set(...change);
      await durable.written();
    },
    segment: (segmentId) => store.segment(segmentId),
    label: (key, label) => store.label(key, label),
    delete: (key) => store.delete(key),
    flush: (label) => store.flush(label),
  };
}

// --- What only a store on disk has to answer for -----------------------------------------------------------------------------------------

await t.test('the file stays within its limit under churn, and what is in it is right', async (test) => {
  const maxBytes = 24_000_000;
  const where = directory(test);
  const { store, faults } = await watched(where, maxBytes);
  const next = words(3);
  const held = new Map<string, Uint8Array>();
  let largest = 0;
  for (let left = 20 * maxBytes; left > 0;) {
    const sets: Promise<void>[] = [];
    for (let count = 1 + pick(next, 64); count > 0; count -= 1) {
      const size = 32_768 + pick(next, 98_305);
      const at = pick(next, POOL.byteLength - size);
      const key = blockKey(`segment-${held.size >> 5}`, held.size & 31);
      held.set(key, POOL.subarray(at, at + size));
      sets.push(store.set(key, POOL.subarray(at, at + size), 'test', facts));
      left -= size;
    }
    await Promise.all(sets);
    largest = Math.max(largest, statSync(join(where, 'data.mdb')).size);
  }
  test.ok(largest <= maxBytes, `at most ${largest} of ${maxBytes} bytes`);
  test.ok(store.bytes > 0.7 * maxBytes, `and it uses what it may: ${store.bytes}`);
  const kept = [...held.keys()].slice(-store.count);
  for (const key of kept) if (!(await isWhole(store, key, held.get(key)))) test.fail(`${key} is not what it was`);
  test.ok(kept.length > 150, `the newest ${kept.length} are here`);
  test.same(faults, []);
  await store.close();
});

await t.test('a restart forgets nothing, neither when something was used', async (test) => {
  const where = directory(test);
  const maxBytes = 1_000_000;
  const value = (index: number): Uint8Array => POOL.subarray(index, index + 10_000);
  const open = async (): Promise<LmdbBlockStore> => (await watched(where, maxBytes)).store;
  const here = (store: LmdbBlockStore): number[] =>
    Array.from({ length: 110 }, (_, index) => index).filter((index) => store.has(blockKey('s', index)));
  let store = await open();
  for (let index = 0; index < 60; index += 1) await store.set(blockKey('s', index), value(index), 'test', facts);
  await store.close();
  store = await open();
  test.equal(here(store).length, 60);
  for (let index = 0; index < 10; index += 1) test.ok(await isWhole(store, blockKey('s', index), value(index)));
  store.touch(blockKey('s', 10));
  await store.close();
  store = await open();
  test.same([store.count, here(store).length], [60, 60]);
  for (let index = 60; index < 100; index += 1) await store.set(blockKey('s', index), value(index), 'test', facts);
  const left = here(store);
  test.same(left.slice(0, 11), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 'those that were used');
  test.ok((left[11] as number) > 30 && left.at(-1) === 99, `then ${left[11]} and what follows`);
  test.same(store.segment('s')?.blocks, left);
  test.same(store.segment('s')?.secret, facts.secret);
  await store.close();
});

await t.test('two on one directory see what the other does; memory before them too', async (test) => {
  const where = directory(test);
  const clock = new ManualClock();
  const maxBytes = 1_000_000;
  const { store: owner } = await watched(where, maxBytes);
  const { store: guest } = await watched(where, maxBytes, { isGuest: true });
  const tiered = new TieredBlockStore({ durable: owner, memoryBytes: maxBytes, clock });
  const value = POOL.subarray(0, 20_000);
  /** Each reads a state of the file that is as old as its turn of the event loop. */
  const agree = (blocks: readonly number[] | undefined, what: string): Promise<void> => {
    const seen = (store: LmdbBlockStore): string =>
      JSON.stringify([store.bytes, store.count, store.version, store.segment('s')?.blocks]);
    const wanted = JSON.stringify(blocks);
    return until(
      () => seen(owner) === seen(guest) && JSON.stringify(owner.segment('s')?.blocks) === wanted,
      `both see what is ${what}`,
    );
  };
  await tiered.set(blockKey('s', 0), value, 'mine', facts);
  await owner.written();
  for (const index of [1, 2]) await guest.set(blockKey('s', index), value, 'its', facts);
  await agree([0, 1, 2], 'written by both');
  for (const index of [0, 1, 2])
    for (const store of [owner, guest]) test.ok(await isWhole(store, blockKey('s', index), value));
  for (const index of [1, 2]) await tiered.get(blockKey('s', index));

  const { version } = owner;
  await guest.purge(blockKey('s', 0));
  await agree([1, 2], 'purged');
  test.not(owner.version, version);
  test.ok(await tiered.get(blockKey('s', 0)), 'memory has not heard of it yet');
  clock.advance(PURGE_CHECK_MS);
  test.equal(await tiered.get(blockKey('s', 0)), undefined, 'purged');
  for (const index of [1, 2]) await tiered.get(blockKey('s', index));
  await guest.flush('its');
  await agree(undefined, 'flushed');
  clock.advance(PURGE_CHECK_MS);
  for (const index of [1, 2]) test.equal(await tiered.get(blockKey('s', index)), undefined, 'flushed');

  await tiered.set(blockKey('s', 3), value, 'mine', facts);
  await owner.written();
  const before = owner.version;
  for (let index = 10; index < 60; index += 1) await guest.set(blockKey('s', index), value, 'its', facts);
  await agree(guest.segment('s')?.blocks, 'evicted');
  test.equal(owner.has(blockKey('s', 3)), false, 'driven out by the other');
  test.equal(owner.version, before);
  clock.advance(PURGE_CHECK_MS);
  test.ok(await tiered.get(blockKey('s', 3)), 'which is no reason to forget it in memory');
  test.ok(owner.bytes > 0.7 * maxBytes && owner.bytes <= maxBytes);
  await guest.close();
  test.ok(owner.has(blockKey('s', 59)), 'one goes, the other stays');
  await tiered.close();

  const [one, other] = [
    await LmdbRecordStore.open({ directory: `${where}r`, maxBytes }),
    await LmdbRecordStore.open({ directory: `${where}r`, maxBytes, isGuest: true }),
  ];
  const information = new RecordContentInformationStore({ records: one, memoryBytes: maxBytes });
  const theirs = new RecordContentInformationStore({ records: other, memoryBytes: maxBytes });
  await information.set('a', { contentLength: 7, encoded: { 2: value } });
  await until(() => other.count === 1, 'the other has it');
  test.equal((await theirs.get('a'))?.contentLength, 7);
  await information.delete('a');
  await until(() => other.version === one.version, 'the other hears of it');
  test.equal(await theirs.get('a'), undefined);
  await Promise.all([one.close(), other.close()]);
});

await t.test('SeenKeys: knows most of what it saw, and nothing else', (test) => {
  const seen = new SeenKeys();
  const key = (index: number): string =>
    blockKey(
      createHash('sha256')
        .update(`${index >> 9}`)
        .digest('hex'),
      index & 511,
    );
  const count = 100_000;
  test.equal(seen.has(key(0)), false);
  for (let index = 0; index < count; index += 1) seen.add(key(index));
  let [known, mistaken] = [0, 0];
  for (let index = 0; index < count; index += 1) {
    if (seen.has(key(index))) known += 1;
    if (seen.has(key(count + index))) mistaken += 1;
  }
  // A tenth of the slots is taken, so that a twentieth has lost its place.
  test.ok(known > 0.93 * count, `${known} of ${count}`);
  test.equal(mistaken, 0);
  test.ok(seen.has(key(count - 1)), 'the newest is always known');
  test.end();
});
