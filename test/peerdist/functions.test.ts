/**
 * The Win32 functions common to both sides, each by its name: what Microsoft documents of it, and what was decided where that is silent.
 * The other functions are in the other files `functions-…`, structures and enumerations in `structures`.
 */
import { execFile } from 'node:child_process';
import { userInfo } from 'node:os';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { peek, PeerDist, type PeerDistStatus, type PeerDistStatusInfo } from '../../lib/peerdist/index.ts';
import { MemoryBlockStore, MemoryContentInformationStore } from '../../lib/stores/index.ts';
import {
  BLOCK,
  blocks,
  BODY,
  codeOf,
  deferred,
  described,
  open,
  publish,
  TAG,
  TestSource,
} from '../support/peerdist.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const V1_TO_2 = { minContentInfoVersion: 1, maxContentInfoVersion: 2 } as const;

/** Runs a program on the compiled library in a process of its own; rejects when it fails. */
async function run(program: string, options: { uid?: number } = {}): Promise<string> {
  const library = pathToFileURL(`${process.cwd()}/dist/lib/index.js`).href;
  const text = `const { PeerDist } = await import(${JSON.stringify(library)});\n${program}`;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', text], options);
    return stdout.trim();
  } catch (error) {
    throw new Error(/^.*Error.*: .*$/m.exec((error as { stderr: string }).stderr)?.[0] ?? 'failed', { cause: error });
  }
}

await t.test('PeerDistStartup', async (test) => {
  for (const minimumVersion of [undefined, { major: 1, minor: 0 }, { major: 1, minor: 99 }, { major: 2, minor: 0 }]) {
    const pd = await open({}, { minimumVersion });
    test.same(pd.supportedVersion, { major: 2, minor: 0 }, 'the newest version, whatever is asked for');
    test.equal(pd.closed, false);
    await pd.close();
  }
  for (const minimumVersion of [
    { major: 2, minor: 1 },
    { major: 3, minor: 0 },
  ]) {
    test.equal(await codeOf(open({}, { minimumVersion })), 'ERR_PEERDIST_VERSION_UNSUPPORTED');
  }
  for (const minimumVersion of [
    { major: -1, minor: 0 },
    { major: 1.5, minor: 0 },
    { major: 1, minor: Number.NaN },
    { major: 1, minor: -1 },
  ]) {
    test.equal(await codeOf(open({}, { minimumVersion })), 'ERR_PEERDIST_INVALID_PARAMETER');
  }
  const anybody = await PeerDist.open();
  test.equal(anybody.identity, userInfo().username, 'the account of the process');
  test.equal(anybody.getStatus(), 'available');
  const other = await open();
  test.equal(other.identity, 'tester');
  await anybody.close();
  test.equal(other.closed, false, 'each has its own end');
  test.equal(await codeOf(other.client.openContent(TAG)), undefined);
  await other.close();
});

await t.test('PeerDistStartup: an account without a name', { skip: process.getuid?.() !== 0 }, async (test) => {
  // Containers run under numbers that no list of accounts knows.
  const program = 'const pd = await PeerDist.open(); console.log(pd.identity.length > 0); await pd.close();';
  test.equal(await run(program, { uid: 54_321 }).catch((error: Error) => error.message), 'true');
});

await t.test('PeerDistShutdown', async (test) => {
  const contentInformationStore = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  const blockStore = new MemoryBlockStore({ maxBytes: 10_000_000 });
  const source = new TestSource('slow');
  const pd = await open({ contentInformationStore, blockStore, sources: [source] });
  const publication = await publish(pd, 'page');
  const unfinished = await pd.server.publish('half');
  await unfinished.addData(blocks(0));
  const reader = await pd.server.openContentInformation('page');
  const handle = await described(pd);
  await handle.addData(0, blocks(0));
  const reading = failureOf(handle.readAt(BLOCK));
  const waiting = failureOf(pd.nextStatus().then(() => pd.nextStatus()));
  await turns();
  let closes = 0;
  pd.on('close', () => (closes += 1));
  test.ok(contentInformationStore.bytes > 0);
  await pd.close();
  test.match(await reading, { code: 'ERR_PEERDIST_OPERATION_ABORTED', trigger: 'shutdown' });
  test.match(await waiting, { code: 'ERR_PEERDIST_OPERATION_ABORTED', trigger: 'shutdown' });
  test.equal(contentInformationStore.bytes, 0, 'every publication is withdrawn');
  test.equal(pd.closed, true);
  test.same([publication.phase, unfinished.phase, handle.phase], ['closed', 'closed', 'closed']);
  for (const [name, promise] of Object.entries({
    openContent: pd.client.openContent(TAG),
    flush: pd.client.flush(TAG),
    publish: pd.server.publish('page'),
    publishThrough: pd.server.publishThrough('page'),
    unpublish: pd.server.unpublish('page'),
    openContentInformation: pd.server.openContentInformation('page'),
    cancelPending: pd.server.cancelPending('page'),
    nextStatus: pd.nextStatus(),
    addData: unfinished.addData(BODY),
    complete: unfinished.complete(),
    read: handle.read(),
    'reader.read': reader.read(),
    cancelAll: handle.cancelAll(),
  })) {
    test.equal(await codeOf(promise), 'ERR_PEERDIST_INVALID_HANDLE', name);
  }
  test.throws(() => pd.setStatus('disabled'), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
  await pd.close();
  await pd[Symbol.asyncDispose]();
  await Promise.all([publication.close(), unfinished.close(), reader.close(), handle.close()]);
  test.equal(closes, 1, 'closing twice is closing once');
  source.release();
  await turns();
  const next = await open({ blockStore });
  test.match(await (await described(next)).readAt(0, { timeoutMs: 0 }), { kind: 'data' }, 'cached content stays');
  test.equal(await codeOf(next.server.getContentInformation('page')), 'ERR_PEERDIST_NOT_FOUND');
});

await t.test('PeerDistShutdown: what is under way may end first', async (test) => {
  const source = new TestSource('slow');
  const pd = await open({ sources: [source] });
  const handle = await described(pd);
  const reading = handle.read();
  const registration = failureOf(pd.nextStatus().then(() => pd.nextStatus()));
  await turns();
  let closes = 0;
  pd.on('close', () => (closes += 1));
  const closing = pd.close({ drain: true });
  test.equal(await stateOf(closing), 'pending');
  test.equal(pd.closed, false);
  for (const promise of [
    pd.client.openContent(TAG),
    pd.client.flush(TAG),
    pd.server.publish('page'),
    pd.server.unpublish('page'),
    pd.server.openContentInformation('page'),
  ]) {
    test.equal(await codeOf(promise), 'ERR_PEERDIST_SHUTDOWN_IN_PROGRESS');
  }
  const again = pd.close({ drain: true });
  test.equal(closes, 0, 'a second close ends nothing before its time');
  test.equal(await stateOf(reading), 'pending');
  source.release();
  test.match(await reading, { kind: 'data', offset: 0 }, 'the read has ended by itself');
  await Promise.all([closing, again]);
  test.match(await registration, { trigger: 'shutdown' }, 'a registration holds nothing up');
  test.equal(closes, 1);

  const stuck = await open({ sources: [new TestSource('slow')] });
  const hanging = failureOf((await described(stuck)).read());
  const controller = new AbortController();
  const cut = failureOf(stuck.close({ drain: true, signal: controller.signal }));
  await turns();
  controller.abort('enough');
  test.match(await cut, { code: 'ERR_PEERDIST_OPERATION_ABORTED', trigger: 'signal', cause: 'enough' });
  test.match(await hanging, { trigger: 'shutdown' });
  test.equal(stuck.closed, true, 'closed all the same');
  test.equal(await failureOf(stuck.close()), undefined, 'closing it again is no error');

  let disposed: PeerDist;
  const slow = new TestSource('slow');
  let outcome: Promise<unknown>;
  {
    await using scoped = await open({ sources: [slow] });
    disposed = scoped;
    outcome = (await described(scoped)).read();
    await turns();
    setImmediate(() => slow.release());
  }
  test.equal(disposed.closed, true);
  test.match(await outcome, { kind: 'data' }, 'leaving the scope drains');
});

await t.test('PeerDistGetStatus', async (test) => {
  const pd = await open();
  test.equal(pd.getStatus(), 'available');
  for (const status of ['unavailable', 'disabled', 'available'] as const) {
    pd.setStatus(status);
    test.equal(pd.getStatus(), status, 'at once, with nobody registered');
  }
  test.throws(() => pd.setStatus('on' as PeerDistStatus), { code: 'ERR_PEERDIST_INVALID_PARAMETER' });
  test.equal(pd.getStatus(), 'available');
  await turns();
  await pd.close();
  test.throws(() => pd.getStatus(), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
});

await t.test('PeerDistGetStatusEx', async (test) => {
  const pd = await open();
  test.same(pd.getStatusInfo(), { status: 'available', ...V1_TO_2 });
  pd.setStatus('disabled');
  test.same(pd.getStatusInfo(), { status: 'disabled', ...V1_TO_2 }, 'formats do not depend on the status');
  await turns();
  await pd.close();
  test.throws(() => pd.getStatusInfo(), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
});

await t.test('PeerDistRegisterForStatusChangeNotification', async (test) => {
  await using pd = await open();
  const seen: PeerDistStatus[] = [];
  pd.on('status', (status) => seen.push(status));
  test.same(seen, [], 'not before whoever registers has had time to');
  await turns();
  test.same(seen, ['available'], 'the first registration fires: nothing was told before, which counts as disabled');
  const next = pd.nextStatus();
  test.equal(await stateOf(next), 'pending', 'then it waits for a change');
  pd.setStatus('available');
  test.equal(await stateOf(next), 'pending', 'which this is not');
  pd.setStatus('unavailable');
  test.match(await next, { status: 'unavailable' });
  pd.removeAllListeners('status');

  pd.setStatus('disabled');
  await turns();
  test.match(await pd.nextStatus(), { status: 'disabled' }, 'a change between two registrations is not lost');
  pd.setStatus('available');
  await turns();
  pd.setStatus('disabled');
  await turns();
  const both = [pd.nextStatus(), pd.nextStatus()];
  test.equal(await stateOf(Promise.race(both)), 'pending', 'there and back is not seen');
  pd.setStatus('unavailable');
  test.match(await Promise.all(both), [{ status: 'unavailable' }, { status: 'unavailable' }], 'one change for all');
  test.equal(await stateOf(pd.nextStatus()), 'pending', 'one-shot');

  await using off = await open();
  off.setStatus('disabled');
  const first = off.nextStatus();
  test.equal(await stateOf(first), 'pending', 'disabled is what was to be expected');
  off.setStatus('unavailable');
  test.match(await first, { status: 'unavailable' });

  const controller = new AbortController();
  const signal = controller.signal;
  const aborted = failureOf(off.nextStatus({ signal }));
  const stays = off.nextStatus();
  await turns();
  controller.abort('no more');
  test.match(await aborted, { name: 'AbortError', trigger: 'signal', cause: 'no more' });
  test.match(await failureOf(off.nextStatus({ signal })), { trigger: 'signal' }, 'aborted before');
  off.setStatus('available');
  test.match(await stays, { status: 'available' }, 'another registration stays');
  await off.close();
  test.equal(await codeOf(off.nextStatus()), 'ERR_PEERDIST_INVALID_HANDLE');
});

await t.test('PeerDistRegisterForStatusChangeNotificationEx', async (test) => {
  const pd = await open();
  const events: [PeerDistStatus, PeerDistStatusInfo][] = [];
  pd.once('status', (status, info) => events.push([status, info]));
  test.same(await pd.nextStatus(), { status: 'available', ...V1_TO_2 });
  test.same(events, [['available', { status: 'available', ...V1_TO_2 }]]);

  const changes = pd.statusChanges();
  const first = changes.next();
  await turns();
  for (const status of ['unavailable', 'available', 'disabled'] as const) {
    pd.setStatus(status);
    await turns();
  }
  test.same(await first, { done: false, value: { status: 'unavailable', ...V1_TO_2 } });
  test.same(
    await changes.next(),
    { done: false, value: { status: 'disabled', ...V1_TO_2 } },
    'only the newest is kept',
  );
  const pending = changes.next();
  test.equal(await stateOf(pending), 'pending');
  pd.setStatus('available');
  test.same(await pending, { done: false, value: { status: 'available', ...V1_TO_2 } }, 'it registers itself again');
  test.same(await changes.return(undefined), { done: true, value: undefined });

  const seen: PeerDistStatus[] = [];
  const walk = (async () => {
    for await (const { status } of pd.statusChanges()) seen.push(status);
  })();
  await turns();
  pd.setStatus('unavailable');
  await turns();
  test.same(seen, ['unavailable']);
  await pd.close();
  test.equal(await failureOf(walk), undefined, 'closing ends it quietly');
});

await t.test('PeerDistUnregisterForStatusChangeNotification', async (test) => {
  await using pd = await open();
  pd.stopStatusNotifications();
  test.pass('nothing to withdraw is no error');
  await pd.nextStatus();
  let heard = 0;
  pd.on('status', () => (heard += 1));
  pd.on('close', () => {});
  const registration = failureOf(pd.nextStatus());
  const walk = (async () => {
    for await (const info of pd.statusChanges()) test.fail(`${info.status} after the end`);
  })();
  await turns();
  pd.stopStatusNotifications();
  test.match(await registration, {
    name: 'AbortError',
    code: 'ERR_PEERDIST_OPERATION_ABORTED',
    win32Code: 995,
    trigger: 'unregister',
  });
  test.equal(await failureOf(walk), undefined, 'an iterator just ends');
  test.equal(pd.listenerCount('status'), 0);
  test.equal(pd.listenerCount('close'), 1, 'what is not about the status stays');
  pd.setStatus('unavailable');
  await turns();
  test.equal(heard, 0);
  test.match(await pd.nextStatus(), { status: 'unavailable' }, 'it can be registered again, and has missed nothing');
});

await t.test('status notifications end with their instance', async (test) => {
  // A notification that is on its way when the instance closes must not end the process.
  for (const [name, program] of Object.entries({
    'a change, then the end': `const pd = await PeerDist.open(); pd.setStatus('unavailable'); await pd.close();`,
    'a listener, then the end': `const pd = await PeerDist.open(); pd.on('status', () => {}); await pd.close();`,
    'an iterator after the end': `const pd = await PeerDist.open(); await pd.close();
      Promise.resolve(pd.statusChanges().next()).catch(() => {});`,
    'a listener after the end': `const pd = await PeerDist.open(); await pd.close(); pd.on('status', () => {});`,
  })) {
    test.equal(await run(program).catch((error: Error) => error.message), '', name);
  }
});

await t.test('PeerDistGetOverlappedResult', async (test) => {
  const source = new TestSource('slow');
  await using pd = await open({ sources: [source] });
  const handle = await described(pd);
  const operation = handle.readAt(3 * BLOCK, { maxBytes: 100 });
  test.same(await peek(operation), { state: 'pending' }, 'looking does not wait');
  source.release();
  await turns();
  const state = await peek(operation);
  test.match(state, { state: 'fulfilled', value: { kind: 'data', offset: 3 * BLOCK } }, 'offset and count');
  test.ok(state.state === 'fulfilled' && (await operation) === state.value, 'looking takes nothing away');
  test.same(await peek(Promise.resolve(5)), { state: 'fulfilled', value: 5 });
  const reason = new Error('why');
  test.same(await peek(Promise.reject(reason)), { state: 'rejected', reason });
  const later = deferred<number>();
  test.same(await peek(later.promise), { state: 'pending' });
  later.resolve(1);
  test.same(await peek(later.promise), { state: 'fulfilled', value: 1 });
});
