/** Disks that are full, damaged, read-only or not there: clients do not notice, and administrators are told in a line. */
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { fillDisk, quickDirectory, smallDisk } from '../support/disk.ts';
import { ask, Origin, type OriginFile, Role, same, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const FRESH = { 'cache-control': 'max-age=3600' };
const BODIES = Array.from({ length: 12 }, (_, index) => Buffer.from(seededBytes(810 + index, 900_000)));
const FILES = BODIES.map((body, index) => [`/${index}`, { body, etag: `"${index}"`, headers: FRESH }] as const);
const SECRET = { PEERDIST_SECRET: 'of the test' };
const noDisk = smallDisk(t, 65_536) === undefined && 'takes root and mount';
const lines = (text: string): string[] => text.split('\n').filter(Boolean);

const reverseAt = (test: Test, origin: Origin, ...more: readonly string[]): Promise<Role> =>
  Role.start(test, ['reverse', '--origin', origin.url, ...more], SECRET);
const branchAt = (test: Test, state: string, ...more: readonly string[]): Promise<Role> =>
  Role.start(test, ['branch', '--state-dir', state, ...more]);

/** Has the branch download the first files of head office. */
async function download(test: Test, branch: Role, reverse: Role, count: number): Promise<void> {
  for (const [index, body] of BODIES.slice(0, count).entries())
    test.ok(same((await ask(branch.port, `${reverse.url}/${index}`)).body, body), `file ${index}`);
}

/** Waits until the branch serves the first file without asking anybody. */
async function warm(test: Test, branch: Role, reverse: Role, origin: Origin): Promise<void> {
  let seen = -1;
  while (seen !== origin.requests.length) {
    seen = origin.requests.length;
    await download(test, branch, reverse, 1);
  }
}

/** Head office and branch that cannot keep anything, and say so, once. */
async function goOnInMemory(test: Test, state: string): Promise<void> {
  const origin = await Origin.start(test, Object.fromEntries<OriginFile>(FILES));
  const [reverse, branch] = await Promise.all([reverseAt(test, origin, '--state-dir', state), branchAt(test, state)]);
  for (const role of [reverse, branch]) {
    const { status, body } = await ask(role.adminPort as number, '/readyz');
    test.equal(status, 200);
    test.match(body.toString(), /^ready\nstore: cannot use the store .*\n$/);
  }
  await warm(test, branch, reverse, origin);
  for (const role of [branch, reverse]) {
    const { code, stderr } = await role.stop();
    test.same([code, lines(stderr).length], [0, 1], stderr);
    test.match(stderr, /^cannot use the store .*; going on with a store in memory, which forgets when this ends\n$/);
  }
}

await t.test('a state directory that cannot be', async (test) => {
  const state = join(quickDirectory(test), 'state');
  writeFileSync(state, 'a file');
  await goOnInMemory(test, state);
  const hosted = await Role.start(test, ['hosted', '--no-offer-listen', '--no-admin', '--state-dir', state]);
  test.equal(lines((await hosted.stop()).stderr).length, 1);
  test.equal(readFileSync(state, 'utf8'), 'a file');
});

await t.test('a disk that cannot be written', { skip: noDisk }, async (test) => {
  const { directory, remount } = smallDisk(test, 8_000_000) as NonNullable<ReturnType<typeof smallDisk>>;
  await (await branchAt(test, directory)).stop('SIGKILL');
  remount('ro');
  await goOnInMemory(test, directory);
});

await t.test('a disk that becomes full, and one that is', { skip: noDisk }, async (test) => {
  const { directory } = smallDisk(test, 4_000_000) as NonNullable<ReturnType<typeof smallDisk>>;
  const origin = await Origin.start(test, Object.fromEntries<OriginFile>(FILES));
  const reverse = await reverseAt(test, origin, '--store', 'memory', '--no-admin');
  const branch = await branchAt(test, directory);
  const failed = 'peerdist_store_faults_total{store="block",fault="failed"}';
  for (let round = 0; round < 3; round += 1) await download(test, branch, reverse, BODIES.length);
  test.ok(((await branch.metric(failed)) ?? 0) > 0, 'the store could not be written');
  test.equal((await ask(branch.adminPort as number, '/readyz')).status, 200);
  const { code, stderr } = await branch.stop();
  test.equal(code, 0);
  test.ok(lines(stderr).length <= 8, stderr);

  rmSync(join(directory, 'branch'), { recursive: true });
  fillDisk(directory, 0);
  const late = await branchAt(test, directory);
  await warm(test, late, reverse, origin);
  test.match(await late.stop(), { code: 0, stderr: /^cannot use the store [^\n]*\n$/ });
});

await t.test('what is no store any more is moved aside, and a new one begun', async (test) => {
  const state = quickDirectory(test);
  const origin = await Origin.start(test, Object.fromEntries<OriginFile>(FILES));
  const reverse = await reverseAt(test, origin, '--store', 'memory', '--no-admin');
  const first = await branchAt(test, state);
  await warm(test, first, reverse, origin);
  await first.stop();
  const file = (store: string): string => join(state, 'branch', store, 'data.mdb');
  for (const store of ['blocks', 'records'])
    test.equal(
      readFileSync(join(file(store), '..', 'closed'), 'utf8').split(' ')[0],
      String(statSync(file(store)).size),
    );
  writeFileSync(file('blocks'), seededBytes(9, 100_000));
  truncateSync(file('records'), statSync(file('records')).size >> 1);
  const broken = ['blocks', 'records'].map((store) => readFileSync(file(store)));

  const branch = await branchAt(test, state);
  for (const [index, store] of ['blocks', 'records'].entries()) {
    const where = join(state, 'branch', store);
    const line = `^the store ${where} is damaged \\(.+\\); moved it to ${where}.damaged and started an empty one$`;
    await until(() => new RegExp(line, 'm').test(branch.program.stderr), `it is said of ${store}`);
    test.ok(same(readFileSync(join(`${where}.damaged`, 'data.mdb')), broken[index] as Buffer), 'left as it was');
  }
  await warm(test, branch, reverse, origin);
  test.equal(lines((await branch.stop()).stderr).length, 2);
  const again = await branchAt(test, state);
  const seen = origin.requests.length;
  await download(test, again, reverse, 1);
  test.equal(origin.requests.length, seen, 'which keeps what it is given');
  test.equal((await again.stop()).stderr, '');
});
