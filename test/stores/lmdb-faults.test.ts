/** The stores on disk when something is wrong: bytes that changed, too much at once, a closed store, a full disk. */
import { existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import { type BlockCheck, type BlockHash, blockKey, LmdbRecordStore } from '../../lib/stores/index.ts';
import { canLimitFiles, corrupt, fillDisk, limitFiles, quickDirectory, smallDisk, writeAt } from '../support/disk.ts';
import { facts, isWhole, POOL, watched } from '../support/lmdb.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { startOf } from '../support/processes.ts';
import { inTime, run, same } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

/** For scripts that a process of its own runs. */
const STORES = new URL('../../lib/stores/index.js', import.meta.url).href;
const noDisk = smallDisk(t, 65_536) === undefined && 'takes root and mount';

await t.test('bytes that changed on disk are found when they are first used, and go', async (test) => {
  const where = `${quickDirectory(test)}/store`;
  const value = (index: number): Uint8Array =>
    POOL.subarray(10_000 * index, 10_000 * index + (index === 2 ? 500 : 9_999));
  const hash = (index: number): BlockHash => ({
    digest: 'sha512',
    value: nativeHashProvider.digest('sha512', value(index)).subarray(0, 32),
  });
  const first = await watched(where, 1_000_000);
  for (let index = 0; index < 8; index += 1)
    await first.store.set(
      blockKey('s', index),
      value(index),
      'test',
      facts,
      [1, 4].includes(index) ? hash(index) : undefined,
    );
  await first.store.close();
  for (const index of [0, 1, 2, 3]) corrupt(join(where, 'data.mdb'), value(index).subarray(100, 200));

  const { store, faults } = await watched(where, 1_000_000);
  const { bytes } = store;
  const asked: string[] = [];
  const check =
    (index: number, verdict?: boolean): BlockCheck =>
    (block) => {
      const isSame = Buffer.compare(block, value(index)) === 0;
      asked.push(`${index} ${isSame}`);
      return verdict ?? isSame;
    };
  const part = { offset: 1_000, length: 50 };
  test.equal(store.peek(blockKey('s', 4), 9_999, part), undefined, 'nothing is believed unread');
  const found = [];
  for (const index of [0, 1, 2]) found.push(await store.get(blockKey('s', index)));
  found.push(await store.get(blockKey('s', 3), check(3)), await store.get(blockKey('s', 5), check(5, false)));
  test.same(found, [undefined, undefined, undefined, undefined, undefined]);
  test.ok(Buffer.compare((await store.get(blockKey('s', 6), check(6))) as Uint8Array, value(6)) === 0);
  test.ok(await isWhole(store, blockKey('s', 4), value(4)));
  await store.get(blockKey('s', 6), check(6, false));
  test.same(asked, ['3 false', '5 true', '6 true'], 'once each');
  test.same(
    faults,
    Array.from({ length: 5 }, () => 'block damaged'),
  );
  test.same(store.segment('s')?.blocks, [4, 6, 7], 'nor are they given to anybody');
  test.equal(store.count, 3);
  test.ok(store.bytes < bytes);
  test.same(store.peek(blockKey('s', 4), 9_999, part), Buffer.from(value(4).subarray(1_000, 1_050)));
  test.equal(store.peek(blockKey('s', 4), 9_998, part), undefined, 'of another length');
  await store.close();

  const open = (): Promise<LmdbRecordStore> => LmdbRecordStore.open({ directory: `${where}r`, maxBytes: 1_000_000 });
  let records = await open();
  for (const index of [0, 1]) await records.set(`${index}`, value(index));
  await records.close();
  corrupt(join(`${where}r`, 'data.mdb'), value(0).subarray(100, 200));
  records = await open();
  test.same([await records.get('0'), await records.get('1')], [undefined, Buffer.from(value(1))]);
  test.equal(records.count, 1);
  await records.close();
});

await t.test('more than may wait is not kept, and said; nobody is hurt', async (test) => {
  const { store, faults } = await watched(`${quickDirectory(test)}/store`, 200_000_000);
  const value = (index: number): Uint8Array => POOL.subarray(index, index + 128_000);
  test.equal(store.room(), undefined);
  await store.set(blockKey('s', 0), value(0), 'test');
  const sets = Array.from({ length: 700 }, (_, index) => store.set(blockKey('s', index + 1), value(index + 1), 'test'));
  sets.push(store.set(blockKey('s', 0), value(999), 'test'));
  test.equal(await store.get(blockKey('s', 0)), undefined, 'what was replaced is gone, what replaced it is not kept');
  const isOver = Promise.all(sets).then(() => 'all written');
  test.equal(await Promise.race([isOver, Promise.resolve(store.room()).then(() => 'room')]), 'room');
  test.equal(await inTime(isOver, 'the end of writing'), 'all written');
  let missing = 1;
  for (let index = 1; index <= 700; index += 1) {
    if (!store.has(blockKey('s', index))) missing += 1;
    else if (!(await isWhole(store, blockKey('s', index), value(index)))) test.fail(`${index} is wrong`);
  }
  // 64 MiB are 524 of them.
  test.equal(missing, 701 - 524);
  test.same(
    faults,
    Array.from({ length: missing }, () => 'block overloaded'),
  );
  await store.set(blockKey('s', 0), value(1_000), 'test');
  test.ok(await isWhole(store, blockKey('s', 0), value(1_000)), 'and afterwards all is as before');
  await store.close();
});

await t.test('close writes what waits; whoever asks then finds nothing', async (test) => {
  const where = `${quickDirectory(test)}/store`;
  const { store } = await watched(where, 10_000_000, { commitDelayMs: 60_000 });
  const value = POOL.subarray(0, 30_000);
  const sets = Array.from({ length: 100 }, (_, index) => store.set(blockKey('s', index), value, 'test', facts));
  const closing = store.close();
  sets.push(store.label(blockKey('s', 1), 'late'), store.delete(blockKey('s', 0)));
  await inTime(Promise.all([...sets, closing, store.close()]), 'the end');
  await store.set(blockKey('s', 200), value, 'test');
  await store.flush('test');
  store.touch(blockKey('s', 1));
  const part = { offset: 0, length: 9 };
  test.same([await store.get(blockKey('s', 1)), store.peek(blockKey('s', 1), 30_000, part)], [undefined, undefined]);
  test.same([store.has(blockKey('s', 1)), await store.purge(blockKey('s', 1))], [false, false]);
  test.same([store.bytes, store.count, store.version, store.uses, store.room()], [0, 0, 0, undefined, undefined]);
  for await (const _ of store.all()) test.fail('something is listed');

  const { store: again } = await watched(where, 10_000_000);
  test.equal(again.count, 99);
  for (let index = 1; index < 100; index += 1) test.ok(await isWhole(again, blockKey('s', index), value));
  await again.close();
  // LMDB ends a process that asks too late.
  for (const question of ["segment('s')", "verify('s:1')"]) {
    const script = `import { LmdbBlockStore } from '${STORES}';
      const store = await LmdbBlockStore.open({ directory: '${where}', maxBytes: 1e7 });
      await store.close();
      console.log(await store.${question});`;
    const { code } = await run(test, process.execPath, ['--input-type=module', '-e', script]);
    test.equal(code, 0, `${question} after close`);
  }
});

await t.test('a directory is its owner’s as long as that lives', async (test) => {
  const where = `${quickDirectory(test)}/store`;
  await (await watched(where, 1_000_000)).store.close();
  const owner = join(where, 'owner');
  const { ppid } = process;
  for (const [what, text] of [
    ['of nobody', undefined],
    ['of a process that has ended', '999999999 12345'],
    ['with a number that another has now', `${ppid} 12345`],
    ['of before this process', `${process.pid} 12345`],
    ['that was made and not written', ''],
    ['whose bytes were lost', '\0\0\0\0\0\0\0\0'],
    ['of something else', 'hello world'],
  ] as const) {
    if (text !== undefined) writeFileSync(owner, text);
    const opened = await watched(where, 1_000_000).catch((error: Error) => error.message);
    test.type(opened, 'object', `an owner file ${what}: ${typeof opened === 'string' ? opened : ''}`);
    if (typeof opened === 'object') await opened.store.close();
  }
  writeFileSync(owner, `${ppid} ${startOf(ppid)}`);
  const refused = { code: 'ERR_PEERDIST_STORE_IN_USE', message: new RegExp(`in use by another process \\(${ppid}\\)`) };
  await test.rejects(watched(where, 1_000_000), refused);
  const guest = await watched(where, 1_000_000, { isGuest: true });
  await guest.store.close();
  test.equal(readFileSync(owner, 'utf8'), `${ppid} ${startOf(ppid)}`, 'guests leave it alone');
});

await t.test('what cannot be read is moved aside, what can is kept', async (test) => {
  const cut = (file: string, bytes: number): void => truncateSync(file, Math.max(0, bytes));
  for (const [harm, isDamage] of [
    [(_file, closed) => rmSync(closed), false],
    [(file) => writeFileSync(file, seededBytes(9, 100_000)), true],
    [(file, closed) => (rmSync(closed), writeFileSync(file, seededBytes(9, 100_000))), true],
    [(file) => cut(file, 0), true],
    [(file) => cut(file, 100), true],
    [(file) => cut(file, statSync(file).size >> 1), true],
    [(file, closed) => (rmSync(closed), cut(file, statSync(file).size >> 1)), true],
    [(file) => cut(file, statSync(file).size - 4096), true],
  ] as const satisfies readonly (readonly [(file: string, closed: string) => void, boolean])[]) {
    const where = `${quickDirectory(test)}/store`;
    const { store } = await watched(where, 1_000_000);
    for (let index = 0; index < 20; index += 1)
      await store.set(blockKey('s', index), POOL.subarray(0, 9_000), 'x', facts);
    await store.close();
    harm(join(where, 'data.mdb'), join(where, 'closed'));
    const left = readFileSync(join(where, 'data.mdb'));
    const said: string[] = [];
    const { store: next } = await watched(where, 1_000_000, { warn: (line) => said.push(line) });
    const what = `${harm.toString()}: ${said.join()}`;
    test.same([next.count, said.length], isDamage ? [0, 1] : [20, 0], what);
    if (isDamage) test.ok(same(readFileSync(join(`${where}.damaged`, 'data.mdb')), left));
    await next.set(blockKey('t', 0), POOL.subarray(0, 9_000), 'x', facts);
    test.ok(await isWhole(next, blockKey('t', 0), POOL.subarray(0, 9_000)));
    await next.close();
    test.equal(existsSync(join(where, 'owner')), false);
  }
});

await t.test('pages of segments that are not what they were: moved aside, or worked with', async (test) => {
  const where = `${quickDirectory(test)}/store`;
  const { store } = await watched(where, 1_000_000);
  for (let index = 0; index < 20; index += 1)
    await store.set(blockKey(`segment-${index}`, 0), POOL.subarray(9_000 * index, 9_000 * (index + 1)), 'x', facts);
  await store.close();
  rmSync(join(where, 'closed'));
  const file = join(where, 'data.mdb');
  const whole = readFileSync(file);
  const secret = Buffer.from(facts.secret as Uint8Array);
  let pages = 0;
  for (let at = 0; at < whole.byteLength; at += 4096) {
    if (!whole.subarray(at, at + 4096).includes(secret)) continue;
    writeAt(file, at, seededBytes(11, 4096));
    pages += 1;
  }
  test.ok(pages > 0);
  const script = `import { LmdbBlockStore } from '${STORES}';
    const store = await LmdbBlockStore.open({ directory: '${where}', maxBytes: 1e6 });
    for (let index = 0; index < 20; index += 1) store.segment('segment-' + index);
    for (let index = 0; index < 20; index += 1)
      await store.set('segment-' + index + ':1', Buffer.alloc(30_000, 7), 'x', { blockCount: 2 });
    console.log(store.has('segment-19:1'), store.segment('segment-19')?.blocks.at(-1));
    await store.close();`;
  const { code, stdout, stderr } = await run(test, process.execPath, ['--input-type=module', '-e', script]);
  test.same([code, stdout], [0, 'true 1\n'], stderr.slice(0, 400));
});

await t.test('a disk with hardly any room is a store or none, and nothing else', { skip: noDisk }, async (test) => {
  const { directory } = smallDisk(test, 1_000_000) as NonNullable<ReturnType<typeof smallDisk>>;
  const script = `import { LmdbBlockStore } from '${STORES}';
    const options = { directory: '${directory}/store', maxBytes: 1e6 };
    const opened = await LmdbBlockStore.open(options).catch((error) => error.code);
    console.log(typeof opened === 'string' ? opened : 'open');
    if (typeof opened === 'object') await opened.close();`;
  for (const free of [0, 4_096, 8_192, 16_384, 24_576, 32_768, 65_536, 262_144]) {
    rmSync(join(directory, 'store'), { recursive: true, force: true });
    fillDisk(directory, free);
    // LMDB ends a process in whose pages there is no room.
    const { code, stdout } = await run(test, process.execPath, ['--input-type=module', '-e', script]);
    test.same(code, 0, `${free} bytes left`);
    test.match(stdout, free > 100_000 ? /^open\n$/ : /^(open|ERR_PEERDIST_STORE_UNAVAILABLE)\n$/);
  }
});

// Last, because what is wrong here ends the process.
await t.test(
  'a disk that is full: what could not be changed is a miss, until it can',
  { skip: !canLimitFiles && 'takes prlimit' },
  async (test) => {
    const where = `${quickDirectory(test)}/store`;
    const clock = new ManualClock();
    const { store, faults } = await watched(where, 50_000_000, { clock });
    const records = await LmdbRecordStore.open({ directory: `${where}r`, maxBytes: 50_000_000, clock });
    const value = (index: number): Uint8Array => POOL.subarray(index, index + 50_000);
    const setAll = (from: number): Promise<unknown> =>
      Promise.all(
        Array.from({ length: 10 }, (_, index) => store.set(blockKey('s', index), value(from + index), 'test', facts)),
      );
    for (let index = 0; index < 20; index += 1) await store.set(blockKey('s', index), value(index), 'test', facts);
    await records.set('a', value(0));
    const size = (of: string): number => statSync(join(of, 'data.mdb')).size;
    test.teardown(() => limitFiles(undefined));
    limitFiles(Math.max(size(where), size(`${where}r`)) + 50_000);
    await setAll(1_000);
    const replaced = await Promise.all(Array.from({ length: 20 }, async (_, index) => store.get(blockKey('s', index))));
    test.same(
      replaced.map((each) => each !== undefined),
      Array.from({ length: 20 }, (_, index) => index >= 10),
    );
    test.same(faults, ['block failed']);
    for (let index = 10; index < 20; index += 1) test.ok(await isWhole(store, blockKey('s', index), value(index)));
    await store.set(blockKey('s', 10), value(10), 'test', facts);
    test.same(faults, ['block failed', 'block failed'], 'for a while nothing is tried');
    test.equal(await store.get(blockKey('s', 10)), undefined);
    const large = POOL.subarray(0, 1_900_000);
    await records.set('a', large);
    test.equal(await records.get('a'), undefined, 'no record of before');
    limitFiles(undefined);

    clock.advance(5_000);
    await setAll(2_000);
    for (let index = 0; index < 10; index += 1)
      test.ok(await isWhole(store, blockKey('s', index), value(2_000 + index)));
    test.equal(await store.get(blockKey('s', 10)), undefined, 'still not what it was');
    await records.set('a', value(1));
    const again = await records.get('a');
    test.ok(again !== undefined && same(again, value(1)), 'also where there was next to nothing');
    await Promise.all([store.close(), records.close()]);
  },
);
