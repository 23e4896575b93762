/** The structures and enumerations of `peerdist.h`, each by its name, in their TypeScript form. */
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import {
  type ClientInformation,
  CONTENT_TAG_BYTES,
  type PeerDist,
  type PeerDistStatus,
  type PublishOptions,
} from '../../lib/peerdist/index.ts';
import { decodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { type ContentInformationStore, MemoryContentInformationStore } from '../../lib/stores/index.ts';
import { InlineHashing } from '../../lib/streams/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { seededBytes } from '../support/random.ts';
import {
  blocks,
  BODY,
  codeOf,
  deferred,
  described,
  ENCODED,
  open,
  publish,
  TAG,
  TestSource,
} from '../support/peerdist.ts';
import { failureOf, turns } from '../support/turns.ts';

await t.test('PEERDIST_STATUS', async (test) => {
  const codes: Record<PeerDistStatus, string | undefined> = {
    disabled: 'ERR_PEERDIST_DISABLED_BY_POLICY',
    unavailable: 'ERR_PEERDIST_SERVICE_UNAVAILABLE',
    available: undefined,
  };
  await using pd = await open();
  await publish(pd, 'page');
  for (const status of ['disabled', 'available', 'unavailable', 'available'] as const) {
    pd.setStatus(status);
    const outcomes = {
      openContent: await codeOf(pd.client.openContent(TAG)),
      flush: await codeOf(pd.client.flush(TAG)),
      publish: await codeOf(pd.server.publish(`${status} ${Math.random()}`)),
      publishThrough: await codeOf(pd.server.publishThrough(`through ${status} ${Math.random()}`)),
      openContentInformation: await codeOf(pd.server.openContentInformation('page')),
      getContentInformation: await codeOf(pd.server.getContentInformation('page')),
      unpublish: await codeOf(pd.server.unpublish('nothing')),
    };
    for (const [name, code] of Object.entries(outcomes)) test.equal(code, codes[status], `${name} while ${status}`);
  }
  await turns();
});

await t.test('PEERDIST_STATUS: losing it ends every handle for good', async (test) => {
  for (const status of ['disabled', 'unavailable'] as const) {
    await using pd = await open({ sources: [new TestSource('slow')] });
    await publish(pd, 'page');
    const handle = await described(pd);
    const describing = await pd.client.openContent(TAG);
    const reader = await pd.server.openContentInformation('page');
    const publication = await pd.server.publish('half');
    await publication.addData(blocks(0));
    const through = await pd.server.publishThrough('passing');
    through.resume();
    through.write(blocks(0));
    const read = failureOf(handle.read());
    const stream = handle.createReadStream();
    const broken = failureOf(new Promise((_, reject) => stream.resume().once('error', reject)));
    const information = describing.contentInformationWritable();
    information.on('error', () => {});
    await turns();
    pd.setStatus(status);
    const invalidated = { code: 'ERR_PEERDIST_INVALIDATED', win32Code: 4057 };
    test.match(await read, invalidated, 'what is pending');
    test.match(await broken, invalidated, 'a stream');
    await turns();
    test.match(information.errored, invalidated, 'the other kind of stream');
    test.same(
      [handle.phase, describing.phase, publication.phase],
      ['invalidated', 'invalidated', 'invalidated'],
      status,
    );
    pd.setStatus('available');
    for (const [name, promise] of Object.entries({
      read: handle.read(),
      readAt: handle.readAt(0),
      available: handle.available(),
      addData: handle.addData(0, blocks(0)),
      cancelAll: handle.cancelAll(),
      addContentInformation: describing.addContentInformation(ENCODED[1]),
      completeContentInformation: describing.completeContentInformation(),
      'reader.read': reader.read(),
      'publication.addData': publication.addData(blocks(1)),
      complete: publication.complete(),
    })) {
      test.match(await failureOf(promise), invalidated, `${name} after it has come back from ${status}`);
    }
    for (const act of [
      () => handle.getInformation('basic'),
      () => handle.createReadStream(),
      () => handle.peek({ offset: 0, length: 1 }),
    ])
      test.throws(act, { code: 'ERR_PEERDIST_INVALIDATED' });
    through.end();
    test.match(await failureOf(through.published), invalidated, 'a body that was passing is not published');
    await Promise.all([handle, describing, reader, publication].map((each) => each.close()));
    test.same([handle.phase, publication.phase], ['closed', 'closed'], 'closing them is still somebody’s duty');
    test.equal(await codeOf(handle.read()), 'ERR_PEERDIST_INVALID_HANDLE');

    test.equal(toHex(await pd.server.getContentInformation('page')), toHex(ENCODED[1]), 'publications survive');
    test.equal(await codeOf(described(pd)), undefined, 'and new handles work');
    test.equal(await codeOf(publish(pd, 'half')), undefined, 'identifiers of dropped bodies are free');
    test.equal(await codeOf(publish(pd, 'passing')), undefined);
    await turns();
  }
});

await t.test('PEERDIST_STATUS: lost while something is opened', async (test) => {
  const memory = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  let gate = Promise.resolve();
  const contentInformationStore: ContentInformationStore = {
    get: async (key) => gate.then(() => memory.get(key)),
    set: (key, record) => memory.set(key, record),
    delete: (key) => memory.delete(key),
    bytes: 0,
  };
  await using pd = await open({ contentInformationStore });
  await publish(pd, 'page');
  const slow = deferred();
  gate = slow.promise;
  const opening = [
    pd.server.openContentInformation('page').then((reader) => reader.read()),
    pd.server.getContentInformation('page'),
    pd.server.publish('new').then((publication) => publication.addData(BODY)),
    pd.server.publishThrough('through').then((through) => through.resume().end(BODY).published),
  ].map(codeOf);
  await turns();
  pd.setStatus('unavailable');
  await turns();
  pd.setStatus('available');
  slow.resolve();
  test.same(await Promise.all(opening), Array(4).fill('ERR_PEERDIST_INVALIDATED'), 'it is not given away');
  test.equal(await codeOf(publish(pd, 'new')), undefined, 'and nothing stays reserved');
  test.equal(await codeOf(publish(pd, 'through')), undefined);
  await turns();
});

await t.test('PEERDIST_STATUS_INFO', async (test) => {
  await using pd = await open();
  const expected = { status: 'available', minContentInfoVersion: 1, maxContentInfoVersion: 2 };
  const event = new Promise((resolve) => pd.once('status', (_, info) => resolve(info)));
  const changes = pd.statusChanges();
  const change = changes.next();
  for (const info of [pd.getStatusInfo(), await pd.nextStatus(), await event, (await change).value])
    test.strictSame(info, expected, 'the same wherever it is told');
  await changes.return(undefined);
});

await t.test('PEERDIST_CONTENT_TAG', async (test) => {
  await using pd = await open();
  test.equal(CONTENT_TAG_BYTES, 16);
  for (const tag of [new Uint8Array(0), new Uint8Array(15), new Uint8Array(17), 'sixteen characte' as never]) {
    test.equal(await codeOf(pd.client.openContent(tag)), 'ERR_PEERDIST_INVALID_PARAMETER');
    test.equal(await codeOf(pd.client.flush(tag)), 'ERR_PEERDIST_INVALID_PARAMETER');
  }
  const tag = Uint8Array.from(TAG);
  const [one, other] = await Promise.all([pd.client.openContent(tag), pd.client.openContent(tag)]);
  tag.fill(0);
  test.same([toHex(one.tag), toHex(other.tag)], [toHex(TAG), toHex(TAG)], 'copied; many handles may have it');
  await one.setContentInformation(ENCODED[1]);
  test.equal(other.phase, 'describing', 'a tag ties no handle to a content');
  test.equal(await codeOf(pd.client.flush(seededBytes(99, 16))), undefined, 'an unknown tag is flushed of nothing');
});

await t.test('PEERDIST_PUBLICATION_OPTIONS', async (test) => {
  await using pd = await open();
  for (const version of [1, 2, undefined] as const) {
    const publication = await publish(pd, `version ${version}`, BODY, { version, flags: 0 });
    await publication.close();
    for (const format of [1, 2] as const) {
      const versions = { min: format, max: format };
      test.equal(
        toHex(await pd.server.getContentInformation(`version ${version}`, { versions })),
        toHex(ENCODED[format]),
        `options of version ${version} do not choose the format`,
      );
    }
  }
  for (const options of [
    { version: 0 },
    { version: 3 },
    { version: '1' },
    { flags: 1 },
    { length: -1 },
    { length: 0.5 },
    { length: Number.NaN },
    { length: 2 ** 53 },
  ] as object[] as PublishOptions[]) {
    test.equal(await codeOf(pd.server.publish('page', options)), 'ERR_PEERDIST_INVALID_PARAMETER');
    test.equal(await codeOf(pd.server.publishThrough('page', options)), 'ERR_PEERDIST_INVALID_PARAMETER');
  }
  test.equal(await codeOf(publish(pd, 'page')), undefined, 'a refused one reserves nothing');
});

await t.test('PEERDIST_RETRIEVAL_OPTIONS', async (test) => {
  const get = async (pd: PeerDist, versions?: object): Promise<string | number | undefined> => {
    const options = { versions } as object;
    const code = await codeOf(pd.server.openContentInformation('page', options));
    return code ?? decodeContentInformation(await pd.server.getContentInformation('page', options)).version;
  };
  const engine = (formats: readonly (1 | 2)[]) => ({
    createEngine: (options: ConstructorParameters<typeof InlineHashing>[0]) =>
      new InlineHashing({ ...options, versions: formats }),
  });
  await using both = await open();
  await using old = await open(engine([1]));
  await using recent = await open(engine([2]));
  for (const pd of [both, old, recent]) await publish(pd, 'page');
  const none = 'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED';
  for (const [versions, ...expected] of [
    [undefined, 1, 1, none],
    [{ min: 1, max: 1 }, 1, 1, none],
    [{ min: 1, max: 2 }, 2, 1, 2],
    [{ min: 2, max: 2 }, 2, none, 2],
  ] as const) {
    test.same(
      [await get(both, versions), await get(old, versions), await get(recent, versions)],
      expected,
      JSON.stringify(versions),
    );
  }
  for (const versions of [
    { min: 2, max: 1 },
    { min: 0, max: 1 },
    { min: 1, max: 3 },
    { min: 1.5, max: 2 },
    { min: Number.NaN, max: 2 },
  ])
    test.equal(await get(both, versions), 'ERR_PEERDIST_INVALID_PARAMETER', JSON.stringify(versions));
});

await t.test('PEERDIST_CLIENT_BASIC_INFO', async (test) => {
  const clock = new ManualClock();
  await using pd = await open({ clock });
  const handles = await Promise.all(Array.from({ length: 4 }, () => described(pd)));
  const [first] = handles as [(typeof handles)[0]];
  test.strictSame(first.getInformation('basic'), { flashCrowd: false });
  for (const [index, handle] of handles.entries()) {
    const before = handle.getInformation('basic');
    await handle.readAt(0, { timeoutMs: 0 });
    test.same(before, { flashCrowd: false }, 'what was told does not change');
    test.equal(handle.getInformation('basic').flashCrowd, index === 3, `${index + 1} readers`);
  }
  test.equal(first.getInformation('basic').flashCrowd, true, 'known to all of them');
  const elsewhere = await described(pd, ENCODED[2]);
  test.equal(elsewhere.getInformation('basic').flashCrowd, false, 'of another content it says nothing');
  await handles[3]?.close();
  test.equal(first.getInformation('basic').flashCrowd, false, 'three are none');
  const fourth = await described(pd);
  await fourth.readAt(0, { timeoutMs: 0 });
  test.equal(first.getInformation('basic').flashCrowd, true);
  clock.advance(60_000);
  test.equal(first.getInformation('basic').flashCrowd, false, 'nor are those who have stopped');
});

await t.test('PEERDIST_CLIENT_INFO_BY_HANDLE_CLASS', async (test) => {
  await using pd = await open();
  await using handle = await pd.client.openContent(TAG);
  test.same(Object.keys(handle.getInformation('basic')), ['flashCrowd']);
  for (const kind of ['maximum', 'Basic', '', 0, 1, undefined, 'toString', '__proto__'])
    test.throws(() => handle.getInformation(kind as keyof ClientInformation), {
      code: 'ERR_PEERDIST_INVALID_PARAMETER',
    });
});
