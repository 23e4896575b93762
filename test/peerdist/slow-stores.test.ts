/** Stores that answer later, late or never: nothing is lost, mixed up or left behind by it. */
import t from 'tap';
import {
  type BlockStore,
  type ContentInformationStore,
  MemoryBlockStore,
  MemoryContentInformationStore,
} from '../../lib/stores/index.ts';
import { BLOCK, BODY, codeOf, deferred, described, open, publish, TAG } from '../support/peerdist.ts';
import { failureOf, turns } from '../support/turns.ts';

/** A block store whose answers come by promise, behind a gate. */
function behind(gate: () => Promise<void>): BlockStore {
  const memory = new MemoryBlockStore({ maxBytes: 10_000_000 });
  return {
    get: (key) => gate().then(() => memory.get(key)),
    has: (key) => gate().then(() => memory.has(key)),
    set: (key, block, label) => memory.set(key, block, label),
    label: (key, label) => memory.label(key, label),
    delete: (key) => memory.delete(key),
    segment: (id) => memory.segment(id),
    flush: (label) => memory.flush(label),
    bytes: 0,
  };
}

await t.test('a prompt origin behind a store that answers by promise', async (test) => {
  for (const missing of ['bytes', 'iterable'] as const) {
    await using pd = await open({ blockStore: behind(() => Promise.resolve()) });
    await using handle = await described(pd);
    const chunks: Buffer[] = [];
    const stream = handle.createReadStream({
      onMissing: async ({ offset, length }) => {
        const bytes = BODY.subarray(offset, offset + length);
        return missing === 'bytes'
          ? bytes
          : (async function* () {
              yield bytes;
            })();
      },
    });
    for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
    test.ok(Buffer.concat(chunks).equals(BODY), missing);
  }
});

await t.test('an abandoned read leaves the buffer of its caller alone', async (test) => {
  const slow = deferred();
  let gate = Promise.resolve();
  await using pd = await open({ blockStore: behind(() => gate) });
  await using handle = await described(pd);
  await handle.addData(0, BODY);
  gate = slow.promise;
  const into = new Uint8Array(BLOCK).fill(0x55);
  const controller = new AbortController();
  const reading = handle.readAt(0, { into, signal: controller.signal });
  await turns();
  controller.abort();
  test.equal(await codeOf(reading), 'ERR_PEERDIST_OPERATION_ABORTED');
  slow.resolve();
  await turns();
  test.ok(into.every((byte) => byte === 0x55));
});

await t.test('unpublish while the store is still writing', async (test) => {
  const memory = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  const [writing, deleting] = [deferred(), deferred()];
  const contentInformationStore: ContentInformationStore = {
    get: (key) => memory.get(key),
    set: (key, record) => writing.promise.then(() => memory.set(key, record)),
    delete: async (key) => {
      const deleted = memory.delete(key);
      await deleting.promise;
      return deleted;
    },
    bytes: 0,
  };
  await using pd = await open({ contentInformationStore });
  await using publication = await pd.server.publish('page');
  await publication.addData(BODY);
  const completing = failureOf(publication.complete());
  await turns();
  const unpublishing = pd.server.unpublish('page');
  await turns();
  writing.resolve();
  await turns();
  deleting.resolve();
  test.match(await completing, { code: 'ERR_PEERDIST_OPERATION_ABORTED', trigger: 'unpublish' });
  test.equal(await unpublishing, true);
  await turns();
  test.equal(await codeOf(pd.server.getContentInformation('page')), 'ERR_PEERDIST_NOT_FOUND');
});

await t.test('an engine that cannot be made leaves the identifier free', async (test) => {
  let fails = true;
  await using pd = await open({
    createEngine: () => {
      if (fails) throw new Error('no threads');
      return { push: () => {}, finish: () => [], abort: () => {} };
    },
  });
  test.match(await failureOf(pd.server.publish('page')), { message: 'no threads' });
  fails = false;
  test.equal(await codeOf(publish(pd, 'page')), undefined);
});

await t.test('an opening that nobody waits for leaves nothing open', async (test) => {
  await using pd = await open();
  const controller = new AbortController();
  const opening = codeOf(pd.client.openContent(TAG, { signal: controller.signal }));
  controller.abort();
  test.equal(await opening, 'ERR_PEERDIST_OPERATION_ABORTED');
  await turns();
  // Data in quarantine goes with the last handle of its tag: a forgotten one would keep it.
  await using other = await pd.client.openContent(TAG);
  await other.addData(0, BODY);
  await other.close();
  await using late = await described(pd);
  test.equal(await late.availableAt(0), 0);
});
