/** The stores on disk: the shared suites, restarts, limits of the file, damage, broken disks. */
import t, { type Test } from 'tap';
import {
  type BlockStore,
  LmdbBlockStore,
  LmdbRecordStore,
  RecordContentInformationStore,
  TieredBlockStore,
} from '../../lib/stores/index.ts';
import { blockStoreSuite, contentInformationStoreSuite, type StoreOptions } from '../support/store-suites.ts';

let directories = 0;

/** A fresh directory of the test. */
function directory(test: Test): string {
  return `${test.testdir({})}/${(directories += 1)}`;
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
