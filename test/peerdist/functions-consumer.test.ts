/** The functions of the consumer but the two reads, each by its Win32 name. */
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { type ContentHandle, READ_TIMEOUT_LOCAL_CACHE_ONLY } from '../../lib/peerdist/index.ts';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { describe, SECRET } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { cutAnywhere, seededBytes } from '../support/random.ts';
import {
  BLOCK,
  blocks,
  BODY,
  codeOf,
  deferred,
  described,
  ENCODED,
  encodedPart,
  INFORMATION,
  open,
  OTHER_TAG,
  TAG,
  tell,
  TestSource,
  WHOLE,
} from '../support/peerdist.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const ABORTED = 'ERR_PEERDIST_OPERATION_ABORTED';
const COMPLETED = 'ERR_PEERDIST_ALREADY_COMPLETED';
const LOCAL = { timeoutMs: READ_TIMEOUT_LOCAL_CACHE_ONLY };

/** Which blocks of the content the own cache has for that handle. */
async function held(handle: ContentHandle): Promise<number[]> {
  const found: number[] = [];
  for (let block = 0; block < 10; block += 1) if ((await handle.availableAt(block * BLOCK)) > 0) found.push(block);
  return found;
}

await t.test('PeerDistClientOpenContent', async (test) => {
  await using pd = await open();
  const handle = await pd.client.openContent(TAG);
  test.match(handle, { phase: 'describing', description: undefined, position: 0 });
  test.equal(toHex(handle.tag), toHex(TAG));
  test.not(await pd.client.openContent(TAG), handle, 'every call makes a handle');
  test.equal(await codeOf(pd.client.openContent(TAG, { signal: AbortSignal.abort() })), ABORTED);
});

await t.test('PeerDistClientCloseContent', async (test) => {
  const source = new TestSource('slow');
  await using pd = await open({ sources: [source] });
  const handle = await described(pd);
  const pending = [handle.read(), handle.readAt(BLOCK), handle.read()].map(failureOf);
  await turns();
  await handle.close();
  for (const error of await Promise.all(pending))
    test.match(error, { name: 'AbortError', code: ABORTED, trigger: 'close' }, 'what is pending is aborted');
  test.ok(source.signals.length > 0 && source.signals.every(({ aborted }) => aborted), 'and the sources are told');
  test.equal(handle.phase, 'closed');
  await handle.close();
  await handle[Symbol.asyncDispose]();
  for (const [name, promise] of Object.entries({
    read: handle.read(),
    readAt: handle.readAt(0),
    available: handle.available(),
    availableAt: handle.availableAt(0),
    addData: handle.addData(0, blocks(0)),
    addContentInformation: handle.addContentInformation(ENCODED[1]),
    completeContentInformation: handle.completeContentInformation(),
    setContentInformation: handle.setContentInformation(ENCODED[1]),
    cancelAll: handle.cancelAll(),
    segments: handle.segments().next(),
  }))
    test.equal(await codeOf(promise), 'ERR_PEERDIST_INVALID_HANDLE', name);
  test.throws(() => handle.createReadStream(), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
  test.throws(() => handle.getInformation('basic'), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
  source.release();
  let scoped: ContentHandle;
  {
    await using inner = await pd.client.openContent(TAG);
    scoped = inner;
  }
  test.equal(scoped.phase, 'closed');
});

await t.test('PeerDistClientAddContentInformation', async (test) => {
  await using pd = await open();
  for (const version of [1, 2] as const) {
    await using queued = await pd.client.openContent(TAG);
    await Promise.all(cutAnywhere(ENCODED[version], 100).map((piece) => queued.addContentInformation(piece)));
    test.same(await queued.completeContentInformation(), { version, range: WHOLE }, 'calls queue in their order');

    const buffer = new Uint8Array(64);
    await using reusing = await pd.client.openContent(TAG);
    for (let at = 0; at < ENCODED[version].byteLength; at += 64) {
      const piece = ENCODED[version].subarray(at, at + 64);
      buffer.set(piece);
      await reusing.addContentInformation(buffer.subarray(0, piece.byteLength));
      buffer.fill(0xaa);
    }
    test.equal(await codeOf(reusing.completeContentInformation()), undefined, 'a buffer is free once its call settled');
  }
  await using handle = await pd.client.openContent(TAG);
  const before = handle.addContentInformation(ENCODED[1], { signal: AbortSignal.abort() });
  test.equal(await codeOf(before), ABORTED);
  await handle.addContentInformation(ENCODED[1]);
  test.equal(await codeOf(handle.completeContentInformation()), undefined, 'aborted before: nothing was taken');
  test.equal(await codeOf(handle.addContentInformation(ENCODED[1])), COMPLETED);
  test.equal(handle.phase, 'ready', 'and that has changed nothing');

  await using cut = await pd.client.openContent(TAG);
  const controller = new AbortController();
  const adding = cut.addContentInformation(ENCODED[1].subarray(0, 100), { signal: controller.signal });
  controller.abort();
  const code = await codeOf(adding);
  test.equal(cut.phase, code === ABORTED ? 'failed' : 'describing', 'aborted half-way: what was taken is unknowable');
  const sink = (await pd.client.openContent(TAG)).contentInformationWritable();
  await new Promise<void>((resolve) => sink.end(ENCODED[2], resolve));
  test.equal(sink.errored, null);
});

await t.test('PeerDistClientCompleteContentInformation', async (test) => {
  await using pd = await open();
  await using handle = await pd.client.openContent(TAG);
  for (const read of [handle.read(), handle.readAt(0), handle.available(), handle.availableAt(0)])
    test.equal(await codeOf(read), 'ERR_PEERDIST_NOT_INITIALIZED', 'nothing is read before');
  test.equal(handle.position, 0);
  await handle.addContentInformation(encodedPart({ offset: 70_000, length: 60_000 }));
  test.equal(handle.description, undefined);
  const description = await handle.completeContentInformation();
  test.same(description, { version: 1, range: { offset: 70_000, length: 60_000 } });
  test.same(handle.description, description);
  test.equal(handle.position, 70_000, 'reading begins where the description does');
  test.equal(await codeOf(handle.completeContentInformation()), COMPLETED);

  await using broken = await pd.client.openContent(TAG);
  await broken.addContentInformation(ENCODED[1].subarray(0, -1));
  test.equal(await codeOf(broken.completeContentInformation()), 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO');
  test.equal(broken.phase, 'failed');
  for (const again of [broken.addContentInformation(ENCODED[1]), broken.completeContentInformation()])
    test.equal(await codeOf(again), 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO', 'the error is repeated');
  test.equal(await codeOf(broken.read()), 'ERR_PEERDIST_NOT_INITIALIZED');
  const source = async function* (): AsyncGenerator<Uint8Array> {
    yield* cutAnywhere(ENCODED[2], 90);
  };
  await using streamed = await pd.client.openContent(TAG);
  test.same(await streamed.setContentInformation(source()), { version: 2, range: WHOLE });
});

await t.test('PeerDistClientAddData', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  test.same(await handle.addData(BLOCK, blocks(1, 2)), { verified: 2 * BLOCK, pending: 0, rejected: 0 });
  test.same(await held(handle), [1, 2]);
  test.same(await held(await described(pd, ENCODED[1], OTHER_TAG)), [1, 2], 'the cache belongs to the machine');
  test.same(await handle.addData(0, new Uint8Array(BLOCK)), { verified: 0, pending: 0, rejected: BLOCK });
  test.same(await held(handle), [1, 2], 'a mismatch is counted, never cached');
  const position = handle.position;
  const results = await Promise.all([5, 3, 4].map((block) => handle.addData(block * BLOCK, blocks(block))));
  test.same(
    results.map(({ verified }) => verified),
    [BLOCK, BLOCK, BLOCK],
    'any number at a time',
  );
  test.equal(handle.position, position, 'the cursor does not move');
  for (const offset of [BODY.byteLength, BODY.byteLength + 1])
    test.equal(await codeOf(handle.addData(offset, blocks(0))), 'ERR_PEERDIST_OUT_OF_BOUNDS');
  test.same(await handle.addData(BODY.byteLength, new Uint8Array(0)), { verified: 0, pending: 0, rejected: 0 });
  for (const offset of [-1, 0.5, Number.NaN, Infinity, 2 ** 53])
    test.equal(await codeOf(handle.addData(offset, blocks(0))), 'ERR_PEERDIST_INVALID_PARAMETER');
  const beyond = Buffer.concat([BODY.subarray(9 * BLOCK), new Uint8Array(79)]);
  test.same(await handle.addData(9 * BLOCK, beyond), { verified: 4_321, pending: 0, rejected: 79 });
  const ranged = await described(pd, encodedPart({ offset: BLOCK, length: BLOCK }));
  test.same(
    await ranged.addData(9 * BLOCK, beyond),
    { verified: 0, pending: 4_321, rejected: 79 },
    'what lies past the end is wrong, described or not',
  );
  test.equal(await codeOf(handle.addData(6 * BLOCK, blocks(6), { signal: AbortSignal.abort() })), ABORTED);
  test.equal((await held(handle)).includes(6), false, 'aborted before: nothing was taken');

  const sink = handle.dataWritable(6 * BLOCK);
  for (const piece of cutAnywhere(BODY.subarray(6 * BLOCK, 8 * BLOCK), 10_000)) sink.write(piece);
  await new Promise<void>((resolve) => sink.end(resolve));
  test.same(await held(handle), [1, 2, 3, 4, 5, 6, 7, 9], 'as a sink');
});

await t.test('PeerDistClientAddData: the quarantine', async (test) => {
  const clock = new ManualClock();
  const blockStore = new MemoryBlockStore({ maxBytes: 10_000_000 });
  await using pd = await open({ clock, blockStore });
  const early = await pd.client.openContent(TAG);
  test.same(await early.addData(0, blocks(0)), { verified: 0, pending: BLOCK, rejected: 0 }, 'before it is described');
  test.same(await early.addData(BLOCK, new Uint8Array(BLOCK)), { verified: 0, pending: BLOCK, rejected: 0 });
  test.same(await early.addData(BLOCK, blocks(1)), { verified: 0, pending: BLOCK, rejected: 0 }, 'many candidates');
  test.same(await early.addData(6 * BLOCK, blocks(6)), { verified: 0, pending: BLOCK, rejected: 0 });
  test.equal(blockStore.bytes, 0, 'nothing of it is served');
  const stranger = await described(pd, ENCODED[1], OTHER_TAG);
  test.same(await held(stranger), [], 'the tag is the only link');

  const part = await described(pd, encodedPart({ offset: 10, length: 2 * BLOCK }));
  test.equal(tell(await part.readAt(10, { maxBytes: BLOCK, ...LOCAL })), `data 10+${BLOCK}`);
  test.same(await held(stranger), [0, 1], 'promoted by another handle of the tag, by hash');
  for (const piece of cutAnywhere(BODY.subarray(3 * BLOCK, 5 * BLOCK), 20_000)) {
    const at = piece.byteOffset - BODY.byteOffset;
    test.match(await part.addData(at, piece), { verified: 0, pending: piece.byteLength }, 'outside the range');
  }
  await early.setContentInformation(ENCODED[1]);
  test.same(await held(stranger), [0, 1, 3, 4, 6], 'pieces are put together');

  const waiting = await pd.client.openContent(TAG);
  await waiting.addData(7 * BLOCK, blocks(7));
  await pd.client.flush(TAG);
  await waiting.setContentInformation(ENCODED[1]);
  test.same(await held(waiting), [], 'flushed');
  await Promise.all([part, early, waiting].map((handle) => handle.close()));

  const [last, other] = [await pd.client.openContent(TAG), await pd.client.openContent(TAG)];
  await last.addData(0, blocks(0));
  await last.close();
  await other.setContentInformation(ENCODED[1]);
  test.same(await held(other), [0], 'while a handle of the tag is open it stays');
});

await t.test('PeerDistClientAddData: what leaves the quarantine', async (test) => {
  const clock = new ManualClock();
  await using pd = await open({ clock });
  const only = await pd.client.openContent(TAG);
  await only.addData(0, blocks(0));
  await only.close();
  test.same(await held(await described(pd)), [], 'closed with the last handle of the tag');

  await using aged = await open({ clock });
  const old = await aged.client.openContent(TAG);
  await old.addData(0, blocks(0));
  clock.advance(24 * 60 * 60_000);
  await old.addData(BLOCK, blocks(1));
  await old.setContentInformation(ENCODED[1]);
  test.same(await held(old), [1], 'by age');

  await using full = await open();
  const flood = await full.client.openContent(TAG);
  await flood.addData(0, blocks(0));
  const junk = new Uint8Array(1024 * 1024);
  for (let index = 0; index < 300; index += 1) await flood.addData(1e9 + index * junk.byteLength, junk);
  await flood.addData(BLOCK, blocks(1));
  await flood.setContentInformation(ENCODED[1]);
  test.same(await held(flood), [1], 'by size, the oldest first');

  // One tag may stand for many contents: what one of them does not know may be another one's.
  await using shared = await open();
  await using keeper = await shared.client.openContent(TAG);
  await keeper.addData(0, blocks(0));
  await described(shared, encodeContentInformation(describe(1, seededBytes(9, 3 * BLOCK), { secret: SECRET })));
  test.same(await held(await described(shared)), [0], 'not by a content that it does not match');
});

await t.test('PeerDistClientFlushContent', async (test) => {
  const source = new TestSource('gives');
  await using pd = await open({ sources: [source] });
  const mine = await described(pd);
  const theirs = await described(pd, ENCODED[1], OTHER_TAG);
  await mine.addData(0, blocks(0, 2));
  await theirs.addData(BLOCK, blocks(1, 2));
  test.match(await mine.readAt(5 * BLOCK), { kind: 'data' });
  test.match(await theirs.readAt(6 * BLOCK), { kind: 'data' });
  source.behaviour = 'slow';
  const both = [mine.readAt(7 * BLOCK), theirs.readAt(7 * BLOCK)];
  await turns();
  test.same(source.asked, [5, 6, 7], 'a block is asked for once, however many want it');
  source.release();
  for (const result of await Promise.all(both)) test.match(result, { kind: 'data' });
  await turns();
  test.same(await held(mine), [0, 1, 2, 5, 6, 7]);
  await pd.client.flush(seededBytes(50, 16));
  test.same(await held(mine), [0, 1, 2, 5, 6, 7], 'an unknown tag is nothing');
  await pd.client.flush(TAG);
  test.same(await held(mine), [1, 2, 6, 7], 'added or pulled under this tag alone goes, what another has too stays');
  test.equal(mine.phase, 'ready', 'open handles survive');
  test.match(await mine.readAt(0, LOCAL), { kind: 'missing', missing: { offset: 0, length: BLOCK } }, 'and see holes');
  await pd.client.flush(OTHER_TAG);
  test.same(await held(mine), []);
  await mine.close();
  await theirs.close();
  const { signal } = new AbortController();
  test.equal(await codeOf(pd.client.flush(TAG, { signal })), undefined, 'it needs no open handle');
  test.equal(await codeOf(pd.client.flush(TAG, { signal: AbortSignal.abort() })), ABORTED);

  const gate = deferred();
  const store = new MemoryBlockStore({ maxBytes: 1_000_000 });
  const blockStore = Object.assign(Object.create(store) as MemoryBlockStore, {
    get: (key: string) => store.get(key),
    has: (key: string) => store.has(key),
    set: (...args: Parameters<MemoryBlockStore['set']>) => store.set(...args),
    flush: () => gate.promise,
  });
  const slow = await open({ blockStore });
  const controller = new AbortController();
  const flushing = slow.client.flush(TAG, { signal: controller.signal });
  test.equal(await stateOf(flushing), 'pending');
  controller.abort();
  test.equal(await codeOf(flushing), ABORTED, 'a signal is its only cancel');
  gate.resolve();
  await slow.close();
});

await t.test('PeerDistClientCancelAsyncOperation', async (test) => {
  const source = new TestSource('slow');
  await using pd = await open({ sources: [source] });
  const handle = await described(pd);
  test.equal(await handle.cancelAll(), 0, 'nothing to cancel is no error');
  const controller = new AbortController();
  const one = failureOf(handle.readAt(0, { signal: controller.signal }));
  const others = [handle.readAt(BLOCK), handle.read(), handle.read()].map(failureOf);
  const stream = handle.createReadStream({ range: { offset: 2 * BLOCK, length: BLOCK } });
  const broken = failureOf(new Promise((_, reject) => stream.resume().once('error', reject)));
  await turns();
  controller.abort('this one');
  test.match(await one, { name: 'AbortError', code: ABORTED, win32Code: 995, trigger: 'signal', cause: 'this one' });
  test.equal(await stateOf(Promise.race(others)), 'pending', 'the others go on');
  test.equal(await handle.cancelAll(), 4, 'three reads and a stream');
  for (const error of await Promise.all([...others, broken])) test.match(error, { code: ABORTED, trigger: 'cancel' });
  test.equal(await handle.cancelAll(), 0);
  test.same([handle.phase, handle.position], ['ready', 0], 'the handle goes on, its cursor has not moved');
  source.release();
  source.behaviour = 'gives';
  const settled = new AbortController();
  const result = await handle.read({ maxBytes: 10, signal: settled.signal });
  settled.abort();
  test.match(result, { kind: 'data' }, 'what has settled stays');
  test.equal(handle.position, 10);
  test.equal(await codeOf(handle.read({ signal: settled.signal })), ABORTED, 'aborted before');
  test.equal(handle.position, 10, 'without an effect');
});

await t.test('PeerDistClientCancelAsyncOperation: no byte is lost', async (test) => {
  const source = new TestSource('slow');
  await using pd = await open({ sources: [source] });
  const handle = await described(pd);
  await handle.addData(0, blocks(0));
  const controller = new AbortController();
  const into = new Uint8Array(100);
  const racing = handle.read({ into, signal: controller.signal });
  controller.abort();
  const code = await codeOf(racing);
  await turns();
  test.equal(handle.position, code === undefined ? 100 : 0, 'an aborted read leaves the cursor');
  if (code !== undefined) test.ok(Buffer.alloc(100).equals(into), 'and the buffer, which the caller has back');

  const other = await described(pd, encodedPart({ offset: BLOCK, length: 2 * BLOCK }));
  const pending = [other.read(), other.read()].map(codeOf);
  await turns();
  await other.addData(BLOCK, blocks(1));
  test.equal(await other.cancelAll(), 2);
  test.same(await Promise.all(pending), [ABORTED, ABORTED]);
  await turns();
  test.equal(other.position, BLOCK, 'a queued read that was cancelled does not run later');
  test.match(await other.read({ maxBytes: 5 }), { kind: 'data', offset: BLOCK });
  source.release();
});

await t.test('PeerDistClientGetInformationByHandle', async (test) => {
  await using pd = await open({ sources: [new TestSource('slow')] });
  await using handle = await pd.client.openContent(TAG);
  test.same(handle.getInformation('basic'), { flashCrowd: false }, 'known of any open handle');
  const crowd = await Promise.all(Array.from({ length: 4 }, () => described(pd)));
  const contexts: boolean[] = [];
  const streams = crowd.map((each) =>
    each.createReadStream({
      ...LOCAL,
      onMissing: async (missing, { flashCrowd }) => {
        contexts.push(flashCrowd);
        return BODY.subarray(missing.offset, missing.offset + missing.length);
      },
    }),
  );
  test.equal(crowd[0]?.getInformation('basic').flashCrowd, true, 'four read the same at the same time');
  for (const stream of streams) for await (const _ of stream);
  test.ok(contexts.length > 0 && contexts[0] === true, 'whoever fills holes is told');
  await turns();
  test.equal(crowd[0]?.getInformation('basic').flashCrowd, false, 'and nobody reads any more');
  test.same(INFORMATION[1].range, WHOLE);
});
