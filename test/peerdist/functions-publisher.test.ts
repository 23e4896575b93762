/** The functions of the publisher, each by its Win32 name, but those of content information, which are in `functions-information`. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import type { ContentId, PeerDist } from '../../lib/peerdist/index.ts';
import { decodeContentInformation, encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { MemoryContentInformationStore } from '../../lib/stores/index.ts';
import { describe, sha256Hex } from '../support/content-information.ts';
import { cutAnywhere } from '../support/random.ts';
import {
  BLOCK,
  blocks,
  BODY,
  codeOf,
  deferred,
  described,
  ENCODED,
  GatedHashing,
  open,
  publish,
  WHOLE,
} from '../support/peerdist.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const ABORTED = 'ERR_PEERDIST_OPERATION_ABORTED';
const NOT_FOUND = 'ERR_PEERDIST_NOT_FOUND';
const V1 = sha256Hex(ENCODED[1]);

/** Digest of the content information, or the code of the error. */
function informationOf(pd: PeerDist, id: ContentId): Promise<string | undefined> {
  return pd.server.getContentInformation(id).then(sha256Hex, async (error: unknown) => codeOf(Promise.reject(error)));
}

/** An instance whose hashing waits for gates. */
async function gated(gates: { push?: Promise<void>; finish?: Promise<void> }): Promise<{
  pd: PeerDist;
  engines: GatedHashing[];
}> {
  const engines: GatedHashing[] = [];
  const pd = await open({
    createEngine: (options) => {
      const engine = new GatedHashing(options, engines.length === 0 ? gates : {});
      engines.push(engine);
      return engine;
    },
  });
  return { pd, engines };
}

await t.test('PeerDistServerPublishStream', async (test) => {
  const contentInformationStore = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  await using pd = await open({ contentInformationStore });
  const id = Buffer.from('page');
  await using publication = await pd.server.publish(id, { length: BODY.byteLength });
  id.fill(0);
  test.equal(toHex(publication.contentId), toHex(Buffer.from('page')), 'the identifier is copied');
  test.equal(publication.expectedLength, BODY.byteLength);
  test.same([publication.phase, publication.publishedBytes], ['open', 0]);
  test.equal(await codeOf(pd.server.publish('page')), 'ERR_PEERDIST_ALREADY_EXISTS', 'reserved before the first byte');
  test.equal(await codeOf(pd.server.publishThrough('page')), 'ERR_PEERDIST_ALREADY_EXISTS');
  await using other = await open({ contentInformationStore }, { identity: 'somebody else' });
  await publish(other, 'page', BODY.subarray(0, 1_000));
  test.pass('another identity may');
  test.equal(await informationOf(pd, 'page'), NOT_FOUND, 'and its publication is not this one');
  await publication.addData(BODY);
  await publication.complete();
  test.equal(await codeOf(pd.server.publish('page')), 'ERR_PEERDIST_ALREADY_EXISTS', 'taken when complete');
  test.equal(await informationOf(pd, 'page'), V1);
  test.not(await informationOf(other, 'page'), V1);

  test.equal((await pd.server.publish('unknown length')).expectedLength, undefined);
  test.equal((await pd.server.publish('zero is unknown', { length: 0 })).expectedLength, undefined);
  for (const any of ['', 'ü', Uint8Array.of(0), Uint8Array.of(0, 0), new Uint8Array(5_000)]) {
    await publish(pd, any, BODY.subarray(0, 10));
    test.equal(await codeOf(pd.server.publish(any)), 'ERR_PEERDIST_ALREADY_EXISTS', 'any bytes are an identifier');
  }

  const controller = new AbortController();
  controller.abort();
  test.equal(await codeOf(pd.server.publish('never', { signal: controller.signal })), ABORTED);
  test.equal(await codeOf(publish(pd, 'never')), undefined, 'aborted before, it has reserved nothing');
  for (const begin of ['publish', 'publishThrough'] as const) {
    const late = new AbortController();
    const outcome = failureOf(pd.server[begin](`late ${begin}`, { signal: late.signal }));
    late.abort();
    test.match(await outcome, { trigger: 'signal' });
    await turns();
    test.equal(await codeOf(publish(pd, `late ${begin}`)), undefined, `${begin}: aborted half-way, neither`);
  }
});

await t.test('PeerDistServerPublishAddToStream', async (test) => {
  const push = deferred();
  const { pd, engines } = await gated({ push: push.promise });
  await using publication = await pd.server.publish('page');
  const pieces = [blocks(0, 3), blocks(3), BODY.subarray(4 * BLOCK)];
  const adds = pieces.map((piece) => publication.addData(piece));
  test.equal(await stateOf(adds[0] as Promise<void>), 'pending');
  test.same(engines[0]?.pushed, [3 * BLOCK], 'one at a time');
  push.resolve();
  await Promise.all(adds);
  test.equal(publication.publishedBytes, BODY.byteLength);
  test.equal((await publication.complete()).length, BODY.byteLength);
  test.equal(await informationOf(pd, 'page'), V1, 'in the order of the calls');
  test.equal(await codeOf(publication.addData(BODY)), 'ERR_PEERDIST_ALREADY_COMPLETED');
  test.equal(publication.phase, 'completed', 'which changes nothing');
  test.equal(await informationOf(pd, 'page'), V1);

  await using overrun = await pd.server.publish('short', { length: 2 * BLOCK });
  await overrun.addData(blocks(0, 2));
  test.match(await failureOf(overrun.addData(BODY.subarray(0, 1))), {
    code: 'ERR_PEERDIST_LENGTH_MISMATCH',
    win32Code: undefined,
    expected: 2 * BLOCK,
  });
  test.equal(overrun.phase, 'failed');
  for (const again of [overrun.addData(BODY), overrun.complete()])
    test.equal(await codeOf(again), 'ERR_PEERDIST_LENGTH_MISMATCH', 'the error is repeated');
  test.equal(await informationOf(pd, 'short'), NOT_FOUND);
  test.equal(await codeOf(publish(pd, 'short')), undefined, 'dropped: the identifier is free');

  const buffer = Uint8Array.from(BODY);
  await using reused = await pd.server.publish('reused');
  for (let at = 0; at < BODY.byteLength; at += 50_000) {
    const piece = buffer.subarray(at, at + 50_000);
    await reused.addData(piece);
    piece.fill(0);
  }
  await reused.addData(new Uint8Array(0));
  await reused.complete();
  test.equal(await informationOf(pd, 'reused'), V1, 'a buffer is free when its call has settled');
  await pd.close();
});

await t.test('PeerDistServerPublishAddToStream: cancelled', async (test) => {
  const push = deferred();
  const { pd } = await gated({ push: push.promise });
  await using publication = await pd.server.publish('page');
  const before = AbortSignal.abort('before');
  test.match(await failureOf(publication.addData(BODY, { signal: before })), { trigger: 'signal', cause: 'before' });
  test.same([publication.phase, publication.publishedBytes], ['open', 0], 'aborted before: nothing has happened');
  const controller = new AbortController();
  const first = failureOf(publication.addData(blocks(0), { signal: controller.signal }));
  const second = failureOf(publication.addData(blocks(1)));
  await turns();
  controller.abort('midway');
  test.match(await first, { name: 'AbortError', code: ABORTED, trigger: 'signal', cause: 'midway' });
  test.equal(publication.phase, 'failed', 'what has been taken is unknowable');
  push.resolve();
  test.ok((await second) instanceof Error, 'what came after it fails too');
  test.equal(await codeOf(publication.complete()), ABORTED);
  test.equal(await codeOf(publication.addData(blocks(1))), ABORTED);
  await turns();
  test.equal(await informationOf(pd, 'page'), NOT_FOUND);
  const again = await publish(pd, 'page');
  test.equal(await informationOf(pd, 'page'), V1);
  controller.abort();
  test.equal(again.phase, 'completed');
  const settled = new AbortController();
  await using late = await pd.server.publish('late');
  await late.addData(BODY, { signal: settled.signal });
  settled.abort();
  await late.complete();
  test.equal(late.phase, 'completed', 'aborting what has settled does nothing');
  await pd.close();
});

await t.test('PeerDistServerPublishCompleteStream', async (test) => {
  const finish = deferred();
  const { pd, engines } = await gated({ finish: finish.promise });
  await using publication = await pd.server.publish('page', { length: BODY.byteLength });
  for (const piece of cutAnywhere(BODY, 100_000)) await publication.addData(piece);
  test.equal(await informationOf(pd, 'page'), NOT_FOUND);
  const completing = publication.complete();
  await turns();
  test.equal(engines[0]?.finishing, true);
  test.equal(await informationOf(pd, 'page'), NOT_FOUND, 'not before it has succeeded');
  test.equal(await codeOf(publication.addData(BODY)), 'ERR_PEERDIST_ALREADY_COMPLETED');
  test.equal(await codeOf(publication.complete()), 'ERR_PEERDIST_ALREADY_COMPLETED');
  finish.resolve();
  test.same(await completing, { contentId: publication.contentId, length: BODY.byteLength });
  test.equal(publication.phase, 'completed', 'the handle is not closed by it');
  test.equal(await informationOf(pd, 'page'), V1);

  await using short = await pd.server.publish('short', { length: BODY.byteLength + 1 });
  await short.addData(BODY);
  test.match(await failureOf(short.complete()), {
    code: 'ERR_PEERDIST_LENGTH_MISMATCH',
    expected: BODY.byteLength + 1,
    actual: BODY.byteLength,
  });
  test.equal(short.phase, 'failed');
  test.equal(await informationOf(pd, 'short'), NOT_FOUND);
  test.equal(await codeOf(publish(pd, 'short')), undefined);

  await using empty = await pd.server.publish('empty');
  test.equal((await empty.complete()).length, 0);
  for (const version of [1, 2] as const) {
    const versions = { min: version, max: version };
    const encoded = await pd.server.getContentInformation('empty', { versions });
    test.same(encoded, encodeContentInformation(describe(version, new Uint8Array(0))));
    const handle = await described(pd, encoded);
    test.same(handle.description, { version, range: { offset: 0, length: 0 } }, 'nothing can be published');
    test.same(await handle.read(), { kind: 'end', offset: 0 });
    test.same(await handle.readAt(0), { kind: 'end', offset: 0 });
  }
  await pd.close();

  // As a Writable: 'finish' is the success of complete.
  await using plain = await open();
  const sink = await plain.server.publish('piped', { length: BODY.byteLength });
  await pipeline(Readable.from(cutAnywhere(BODY, 60_000)), sink);
  test.same([sink.phase, sink.publishedBytes], ['completed', BODY.byteLength]);
  test.equal(await informationOf(plain, 'piped'), V1);
  const wrong = await plain.server.publish('wrong', { length: 5 });
  test.equal(await codeOf(pipeline(Readable.from([BODY]), wrong)), 'ERR_PEERDIST_LENGTH_MISMATCH');
  const cut = await plain.server.publish('cut');
  const broken = Readable.from(
    (async function* () {
      yield blocks(0);
      throw new Error('the origin has gone');
    })(),
  );
  test.match(await failureOf(pipeline(broken, cut)), { message: 'the origin has gone' });
  test.equal(await informationOf(plain, 'cut'), NOT_FOUND, 'a truncated body is never completed');
  test.equal(await codeOf(plain.server.publish('cut')), undefined);
});

await t.test('PeerDistServerPublishCompleteStream: what ends it half-way drops the publication', async (test) => {
  for (const [name, end] of Object.entries<(pd: PeerDist, close: () => Promise<void>, abort: () => void) => unknown>({
    unpublish: (pd) => pd.server.unpublish('page'),
    cancelPending: (pd) => pd.server.cancelPending('page'),
    'closing the handle': (_, close) => close(),
    'the signal': (_, __, abort) => abort(),
    'losing the service': async (pd) => {
      pd.setStatus('unavailable');
      await turns();
      pd.setStatus('available');
    },
  })) {
    const finish = deferred();
    const { pd } = await gated({ finish: finish.promise });
    const publication = await pd.server.publish('page');
    await publication.addData(BODY);
    const controller = new AbortController();
    const completing = codeOf(publication.complete({ signal: controller.signal }));
    await turns();
    await end(
      pd,
      () => publication.close(),
      () => controller.abort(),
    );
    test.equal(await completing, name === 'losing the service' ? 'ERR_PEERDIST_INVALIDATED' : ABORTED, name);
    finish.resolve();
    await turns();
    test.equal(await informationOf(pd, 'page'), NOT_FOUND, `${name}: what was finished later is not published`);
    test.equal(await codeOf(publish(pd, 'page', blocks(0))), undefined, `${name}: the identifier is free`);
    await turns();
    await pd.close();
  }
});

await t.test('PeerDistServerCloseStreamHandle', async (test) => {
  await using pd = await open();
  const unfinished = await pd.server.publish('page');
  await unfinished.addData(BODY);
  await unfinished.close();
  await unfinished.close();
  test.equal(unfinished.phase, 'closed');
  test.equal(await codeOf(unfinished.addData(BODY)), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await codeOf(unfinished.complete()), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await informationOf(pd, 'page'), NOT_FOUND, 'closed before completion: given up');
  const finished = await publish(pd, 'page');
  await finished.close();
  test.equal(finished.phase, 'closed');
  test.equal(await informationOf(pd, 'page'), V1, 'after: the publication stays');
  {
    await using scoped = await pd.server.publish('scoped');
    await scoped.addData(BODY);
  }
  test.equal(await codeOf(publish(pd, 'scoped')), undefined);
  const destroyed = await pd.server.publish('destroyed');
  destroyed.write(BODY);
  destroyed.destroy();
  await turns();
  test.equal(destroyed.phase, 'failed', 'destroying is giving up, but the handle is still to be closed');
  test.equal(await codeOf(publish(pd, 'destroyed')), undefined);
  await destroyed.close();
  const push = deferred();
  const slow = await gated({ push: push.promise });
  const publication = await slow.pd.server.publish('page');
  const adding = failureOf(publication.addData(BODY));
  await turns();
  await publication.close();
  test.match(await adding, { code: ABORTED, trigger: 'close' }, 'what is pending is aborted');
  slow.pd.setStatus('disabled');
  await turns();
  test.equal(await failureOf(publication.close()), undefined, 'closing never fails');
  await slow.pd.close();
});

await t.test('PeerDistServerUnpublish', async (test) => {
  const contentInformationStore = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  await using pd = await open({ contentInformationStore });
  await using other = await open({ contentInformationStore }, { identity: 'somebody else' });
  test.equal(await pd.server.unpublish('page'), false, 'nothing to withdraw');
  const publication = await publish(pd, 'page');
  const reader = await pd.server.openContentInformation('page');
  const encoded = await pd.server.getContentInformation('page');
  await reader.read({ maxBytes: 10 });
  test.equal(await other.server.unpublish('page'), false, 'only whoever published it can');
  test.equal(await pd.server.unpublish(Buffer.from('page')), true);
  test.equal(await informationOf(pd, 'page'), NOT_FOUND);
  for (const later of [reader.read(), reader.readAll()])
    test.match(await failureOf(later), { code: ABORTED, trigger: 'unpublish' }, 'an open reader reads no more');
  test.match(await failureOf(reader[Symbol.asyncIterator]().next()), { trigger: 'unpublish' });
  await reader.close();
  test.equal(await codeOf(reader.read()), 'ERR_PEERDIST_INVALID_HANDLE', 'but is to be closed');
  test.equal(publication.phase, 'completed');
  test.same((await described(pd, encoded)).description?.range, WHOLE, 'what was handed out keeps working');
  await publish(pd, 'page', blocks(0));
  test.same(decodeContentInformation(await pd.server.getContentInformation('page')).range.length, BLOCK, 'free again');

  const push = deferred();
  const slow = await gated({ push: push.promise });
  const written = await slow.pd.server.publish('page');
  const adding = failureOf(written.addData(BODY));
  await turns();
  test.equal(await slow.pd.server.unpublish('page'), true, 'while it is written');
  test.match(await adding, { code: ABORTED, trigger: 'unpublish' });
  test.equal(written.phase, 'failed');
  test.match(await failureOf(written.complete()), { code: ABORTED });
  test.equal(await slow.pd.server.unpublish('page'), false);
  await publish(slow.pd, 'page');
  push.resolve();
  await turns();
  test.equal(await informationOf(slow.pd, 'page'), V1, 'the old body does not disturb the new one');
  await written.close();
  test.equal(await informationOf(slow.pd, 'page'), V1, 'nor does closing it');

  await using idle = await slow.pd.server.publish('idle');
  await idle.addData(BODY);
  test.equal(await slow.pd.server.unpublish('idle'), true, 'with nothing pending');
  test.match(await failureOf(idle.complete()), { code: ABORTED });
  const through = await slow.pd.server.publishThrough('through');
  const out: Buffer[] = [];
  through.on('data', (chunk: Buffer) => out.push(chunk));
  through.write(blocks(0));
  test.equal(await slow.pd.server.unpublish('through'), true);
  through.end(BODY.subarray(BLOCK));
  test.match(await failureOf(through.published), { code: ABORTED, trigger: 'unpublish' });
  await turns();
  test.ok(Buffer.concat(out).equals(BODY), 'its bytes flow on');
  test.equal(await informationOf(slow.pd, 'through'), NOT_FOUND);
  const { signal } = new AbortController();
  test.equal(await slow.pd.server.unpublish('page', { signal }), true);
  await slow.pd.close();
});

await t.test('PeerDistServerCancelAsyncOperation', async (test) => {
  const push = deferred();
  const { pd } = await gated({ push: push.promise });
  test.equal(await pd.server.cancelPending('page'), 0, 'nothing to cancel is no error');
  await using publication = await pd.server.publish('page');
  test.equal(await pd.server.cancelPending('page'), 0);
  test.equal(publication.phase, 'open');
  const settled: string[] = [];
  const adds = [0, 1, 2].map(async (index) => {
    const error = await failureOf(publication.addData(blocks(index)));
    settled.push(`${index}`);
    return error;
  });
  await turns();
  test.equal(await pd.server.cancelPending('other'), 0, 'of another identifier');
  test.equal(await pd.server.cancelPending('page'), 3, 'every pending operation');
  await turns(1);
  test.same(settled, ['0', '1', '2'], 'and each has settled');
  for (const error of await Promise.all(adds))
    test.match(error, { name: 'AbortError', code: ABORTED, trigger: 'cancel' });
  test.equal(publication.phase, 'failed');
  test.equal(await pd.server.cancelPending('page'), 0, 'nothing is left');
  push.resolve();
  await turns();
  await publish(pd, 'page');
  await using reader = await pd.server.openContentInformation('page');
  test.equal(await pd.server.cancelPending('page'), 0);
  test.equal(toHex(await reader.readAll()), toHex(ENCODED[1]), 'what was not pending is not touched');
  test.equal(await informationOf(pd, 'page'), V1);
  await pd.close();
});
