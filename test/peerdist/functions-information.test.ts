/** The functions that hand out content information, each by its Win32 name. */
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { decodeContentInformation, encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { BLOCK, BODY, codeOf, ENCODED, INFORMATION, open, publish, WHOLE } from '../support/peerdist.ts';
import { failureOf, turns } from '../support/turns.ts';

const ABORTED = 'ERR_PEERDIST_OPERATION_ABORTED';
const NOT_FOUND = 'ERR_PEERDIST_NOT_FOUND';

await t.test('PeerDistServerOpenContentInformation', async (test) => {
  await using pd = await open();
  test.equal(await codeOf(pd.server.openContentInformation('page')), NOT_FOUND);
  await using publication = await pd.server.publish('page');
  await publication.addData(BODY);
  test.equal(await codeOf(pd.server.openContentInformation('page')), NOT_FOUND, 'not complete');
  await publication.complete();
  const whole = await pd.server.openContentInformation('page');
  test.match(whole, { version: 1, range: WHOLE, byteLength: ENCODED[1].byteLength }, 'version 1, all of it');
  test.equal(toHex(whole.contentId), toHex(Buffer.from('page')));
  const { byteLength } = BODY;
  for (const [range, expected] of [
    [{ offset: 0, length: 0 }, WHOLE],
    [{ offset: 1, length: 1 }, undefined],
    [{ offset: 3 * BLOCK, length: BLOCK }, undefined],
    [{ offset: byteLength - 1, length: 1 }, undefined],
    [
      { offset: byteLength - 10, length: 1e15 },
      { offset: byteLength - 10, length: 10 },
    ],
    [{ offset: byteLength, length: 1 }, 'ERR_PEERDIST_OUT_OF_BOUNDS'],
    [{ offset: byteLength + 9, length: 1 }, 'ERR_PEERDIST_OUT_OF_BOUNDS'],
    [{ offset: 1, length: 0 }, 'ERR_PEERDIST_INVALID_PARAMETER'],
    [{ offset: -1, length: 2 }, 'ERR_PEERDIST_INVALID_PARAMETER'],
    [{ offset: 0, length: 1.5 }, 'ERR_PEERDIST_INVALID_PARAMETER'],
  ] as const) {
    const name = `${range.offset}+${range.length}`;
    if (typeof expected === 'string') {
      test.equal(await codeOf(pd.server.openContentInformation('page', { range })), expected, name);
      continue;
    }
    await using reader = await pd.server.openContentInformation('page', { range });
    test.same(reader.range, expected ?? range, name);
    test.same(decodeContentInformation(await reader.readAll()).range, reader.range, name);
  }
  await using small = await pd.server.openContentInformation('page', { range: { offset: 0, length: 1 } });
  test.ok(small.byteLength < whole.byteLength / 2, 'its size follows the part described');
  await whole.close();
});

await t.test('PeerDistServerOpenContentInformationEx', async (test) => {
  await using pd = await open();
  await publish(pd, 'page');
  for (const range of [undefined, { offset: BLOCK + 7, length: 2 * BLOCK }]) {
    for (const [min, max, version] of [
      [1, 1, 1],
      [1, 2, 2],
      [2, 2, 2],
    ] as const) {
      await using reader = await pd.server.openContentInformation('page', { range, versions: { min, max } });
      test.equal(reader.version, version, `${min} to ${max}`);
      const expected = range === undefined ? INFORMATION[version] : INFORMATION[version].slice(range);
      test.equal(toHex(await reader.readAll()), toHex(encodeContentInformation(expected)));
    }
  }
  const nothing = pd.server.openContentInformation('other', { versions: { min: 1, max: 2 } });
  test.equal(await codeOf(nothing), NOT_FOUND);
});

await t.test('PeerDistServerRetrieveContentInformation', async (test) => {
  await using pd = await open();
  await publish(pd, 'page');
  await using reader = await pd.server.openContentInformation('page');
  await using other = await pd.server.openContentInformation('page');
  const pieces = await Promise.all([7, 100, 1, 50].map((maxBytes) => reader.read({ maxBytes })));
  test.same(
    pieces.map((piece) => [piece?.offset, piece?.data.byteLength]),
    [
      [0, 7],
      [7, 100],
      [107, 1],
      [108, 50],
    ],
    'overlapping calls are served in their order',
  );
  test.equal((await other.read({ maxBytes: 3 }))?.offset, 0, 'each handle has a cursor of its own');
  const rest = await reader.readAll();
  test.equal(
    toHex(Buffer.concat([...pieces.map((piece) => piece?.data as Uint8Array), rest])),
    toHex(ENCODED[1]),
    'all of it',
  );
  test.equal(await reader.read(), null, 'then no more');
  test.equal(await reader.read(), null);
  for (const maxBytes of [0, -1, 0.5, Number.NaN])
    test.equal(await codeOf(other.read({ maxBytes })), 'ERR_PEERDIST_INVALID_PARAMETER');
  const out: Buffer[] = [];
  for await (const chunk of other.toReadable({ highWaterMark: 16 })) out.push(chunk as Buffer);
  test.equal(toHex(Buffer.concat(out)), toHex(ENCODED[1].subarray(3)), 'as a stream, from the cursor');
  test.equal(await other.read(), null, 'a stream that has ended does not close the handle');

  await using third = await pd.server.openContentInformation('page');
  test.equal(await codeOf(third.read({ signal: AbortSignal.abort() })), ABORTED);
  const controller = new AbortController();
  const racing = third.read({ maxBytes: 10, signal: controller.signal });
  controller.abort();
  const outcome = await racing.then(
    () => 'read',
    () => 'aborted',
  );
  test.equal((await third.read())?.offset, outcome === 'read' ? 10 : 0, `${outcome}: no byte is lost`);
});

await t.test('PeerDistServerCloseContentInformation', async (test) => {
  await using pd = await open();
  await publish(pd, 'page');
  const reader = await pd.server.openContentInformation('page');
  const walk = reader[Symbol.asyncIterator]();
  await reader.close();
  await reader.close();
  for (const late of [reader.read(), reader.readAll(), walk.next()])
    test.equal(await codeOf(late), 'ERR_PEERDIST_INVALID_HANDLE');
  let scoped;
  {
    await using inner = await pd.server.openContentInformation('page');
    scoped = inner;
  }
  test.equal(await codeOf(scoped.read()), 'ERR_PEERDIST_INVALID_HANDLE');
  const kept = await pd.server.openContentInformation('page');
  pd.setStatus('disabled');
  test.equal(await codeOf(kept.read()), 'ERR_PEERDIST_INVALIDATED');
  test.equal(await failureOf(kept.close()), undefined, 'closing never fails, whatever the policy says');
  test.equal(await codeOf(kept.read()), 'ERR_PEERDIST_INVALID_HANDLE');
  await turns();
});
