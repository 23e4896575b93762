/**
 * `peerdist cache` as an administrator meets it: on the stores of proxies that are running, of proxies that have ended in every way, and of
 * none. Proxies are real programs; the command itself runs in this process where that makes no difference, which is much quicker.
 */
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { V1_BLOCK_BYTES } from '../../lib/protocol/pccrc/index.ts';
import { LmdbBlockStore, LmdbRecordStore, ownerOf, ResourceStore } from '../../lib/stores/index.ts';
import { urlsOf } from '../../plugins/standalone/kept/kept-contents.ts';
import { parseDuration } from '../../plugins/standalone/options/units.ts';
import {
  type Answer,
  ask,
  type Finished,
  Origin,
  type OriginFile,
  type OriginHandler,
  peerdist,
  Role,
  same,
  sendFile,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { runInside } from '../support/spoken.ts';

const SIZE = 3_000_000;
const FILE = seededBytes(91, SIZE);
const OTHER = seededBytes(92, 500_000);
const SMALL = seededBytes(93, 300_000);
const DAY_MS = 86_400_000;
const isRoot = process.getuid?.() === 0;

interface Stats {
  readonly role: string;
  readonly store: string;
  readonly directory: string;
  readonly entries: number;
  readonly bytes: number;
  readonly fileBytes: number;
  readonly oldestUse: string | null;
  readonly newestUse: string | null;
  readonly isOpen: boolean;
  readonly process: number | null;
}

/** `peerdist cache` in this process. */
async function cache(state: string, ...args: readonly string[]): Promise<Finished> {
  return cacheUntil(new Promise(() => {}), state, ...args);
}

async function cacheUntil(stopRequested: Promise<void>, state: string, ...args: readonly string[]): Promise<Finished> {
  return runInside(['cache', ...args, '--state-dir', state], { stopRequested });
}

async function statsOf(state: string, name: string): Promise<Stats> {
  const { stdout } = await cache(state, 'stats', '--json');
  const found = (JSON.parse(stdout) as Stats[]).find(({ role, store }) => `${role} ${store}` === name);
  if (found === undefined) throw new Error(`no ${name} in ${stdout}`);
  return found;
}

interface Listed {
  readonly role: string;
  readonly url: string;
  readonly bytes: number;
  readonly usedAt: string;
}

async function listed(state: string, ...args: readonly string[]): Promise<Listed[]> {
  return JSON.parse((await cache(state, 'list', '--json', ...args)).stdout) as Listed[];
}

/** Asks until it is so. */
async function becomes(condition: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    // The origin is in this process.
    await pause(10);
  }
}

/** Offsets and lengths of the version 2 segments of some bytes, which are their blocks; no secret changes them. */
async function segmentsOf(test: Test, bytes: Uint8Array): Promise<{ offset: number; length: number }[]> {
  const file = join(test.testdir({}), 'bytes');
  writeFileSync(file, bytes);
  const { stdout } = await peerdist(test, ['hash', file, '--secret-hex', '00', '--json']);
  return (JSON.parse(stdout) as { segments: { offset: number; length: number }[] }).segments;
}

const segments = await segmentsOf(t, FILE);
const BLOCKS = segments.length;
const OTHER_BLOCKS = (await segmentsOf(t, OTHER)).length;

interface Site {
  readonly state: string;
  readonly origin: Origin;
  readonly reverse: Role;
  branch: Role;
  readonly get: (path: string, fields?: Readonly<Record<string, string>>) => Promise<Answer>;
  /** What the branch calls a path. */
  readonly url: (path: string) => string;
  readonly startBranch: () => Promise<Role>;
}

const fresh = { 'cache-control': 'max-age=3600' };

/** Head office and branch with their stores in one state directory. */
async function site(
  test: Test,
  resources: Readonly<Record<string, OriginFile | OriginHandler>> = {
    '/file': { body: FILE, etag: '"1"', headers: fresh },
  },
  branchOptions: readonly string[] = [],
): Promise<Site> {
  const state = join(test.testdir({}), 'state');
  const origin = await Origin.start(test, resources);
  const stored = ['--store', 'disk', '--state-dir', state];
  const startBranch = (): Promise<Role> => Role.start(test, ['branch', ...stored, ...branchOptions]);
  const [reverse, branch] = await Promise.all([
    Role.start(test, ['reverse', '--origin', origin.url, ...stored]),
    startBranch(),
  ]);
  const url = (path: string): string => `${reverse.url}${path}`;
  const made: Site = {
    state,
    origin,
    reverse,
    branch,
    url,
    startBranch,
    get: (path, fields = {}) => ask(made.branch.port, url(path), { fields }),
  };
  return made;
}

interface Warm {
  /** Blocks of the branch then. @default those of the file */
  readonly blocks?: number;
  /** Contents listed under the path, by both. @default 2 */
  readonly contents?: number;
  readonly fields?: Readonly<Record<string, string>>;
}

/** Downloads until the branch serves it without asking anybody, and everything is on disk. */
async function warm(
  test: Test,
  { get, state, origin }: Site,
  path: string,
  bytes: Uint8Array,
  { blocks = BLOCKS, contents = 2, fields = {} }: Warm = {},
): Promise<void> {
  const isWarm = async (): Promise<boolean> => {
    const before = origin.asked(path).length;
    const { body } = await get(path, fields);
    if (!same(body, bytes)) test.fail(`wrong bytes of ${path}`);
    // Who is served from memory does not wait for the disk.
    return (
      origin.asked(path).length === before &&
      (await statsOf(state, 'branch blocks')).entries === blocks &&
      (await listed(state)).filter(({ url }) => url.endsWith(path)).length === contents
    );
  };
  await becomes(isWarm, `${path} is served by the branch, and on disk`);
}

/** A store of a role as the library makes it, at a time. */
async function withBlocks(
  directory: string,
  clock: Clock,
  act: (store: LmdbBlockStore) => Promise<unknown>,
): Promise<void> {
  const store = await LmdbBlockStore.open({ directory, maxBytes: 2 ** 30, clock });
  await act(store);
  await store.close();
}

async function withResources(
  directory: string,
  clock: Clock,
  act: (store: ResourceStore<object>) => Promise<unknown>,
): Promise<void> {
  const records = await LmdbRecordStore.open({ directory, maxBytes: 2 ** 30, clock });
  const encode = (value: object): Uint8Array => Buffer.from(JSON.stringify(value));
  const durable = { records, encode, decode: () => undefined };
  await act(new ResourceStore<object>({ maxBytes: 1000, bytesOf: () => 1, durable }));
  await records.close();
}

const ago = (ms: number): Clock => ({ ...systemClock, now: () => Date.now() - ms });
const secondsAgo = (time: string | null): number => Math.round((Date.now() - Date.parse(time ?? '')) / 1000);

/** Overwrites bytes of a store's file where it holds these, wherever that is. */
function corrupt(directory: string, ...held: readonly Uint8Array[]): void {
  const file = join(directory, 'data.mdb');
  const whole = readFileSync(file);
  const descriptor = openSync(file, 'r+');
  for (const bytes of held) {
    const places: number[] = [];
    for (let at = whole.indexOf(bytes); at >= 0; at = whole.indexOf(bytes, at + 1)) places.push(at);
    if (places.length === 0) throw new Error('not in the file');
    for (const at of places)
      writeSync(
        descriptor,
        Buffer.from(bytes).map((byte) => byte ^ 0x55),
        0,
        7,
        at,
      );
  }
  closeSync(descriptor);
}

/** Bytes out of the middle of a block. */
function insideOf({ offset, length }: { offset: number; length: number }): Uint8Array {
  const at = offset + Math.floor(length / 2);
  return FILE.subarray(at, at + 64);
}

// --- Looking ---------------------------------------------------------------------------------------------------------------------------

await t.test('stats, list and clear: while proxies run, and after', async (test) => {
  const here = await site(test);
  const { state, origin, reverse, branch, url, get } = here;
  const started = Date.now();
  await warm(test, here, '/file', FILE);
  const check = async (isRunning: boolean): Promise<void> => {
    const when = isRunning ? 'running' : 'ended';
    const run = (...args: string[]): Promise<Finished> =>
      isRunning ? peerdist(test, ['cache', ...args, '--state-dir', state]) : cache(state, ...args);
    const { code, stdout, stderr } = await run('stats', '--json');
    test.same([code, stderr], [0, ''], when);
    const stats = JSON.parse(stdout) as Stats[];
    test.same(
      stats.map(({ role, store, entries, isOpen, process }) => [role, store, entries, isOpen, process]),
      [
        ['reverse', 'records', 2, isRunning, isRunning ? reverse.program.child.pid : null],
        ['branch', 'blocks', BLOCKS, isRunning, isRunning ? branch.program.child.pid : null],
        ['branch', 'records', 2, isRunning, isRunning ? branch.program.child.pid : null],
      ],
    );
    for (const { directory, fileBytes, bytes, oldestUse, newestUse } of stats) {
      test.equal(fileBytes, statSync(join(directory, 'data.mdb')).size);
      test.ok(bytes > 0 && bytes < 1.2 * fileBytes, directory);
      const [oldest, newest] = [Date.parse(oldestUse ?? ''), Date.parse(newestUse ?? '')];
      test.ok(started - 1_000 <= oldest && oldest <= newest && newest <= Date.now(), `${oldestUse} to ${newestUse}`);
    }
    const table = await cache(state, 'stats');
    test.same([table.code, table.stderr], [0, '']);
    const row = (name: string): string => table.stdout.split('\n').find((line) => line.includes(name)) ?? '';
    test.match(row('branch blocks'), new RegExp(` ${BLOCKS} .* MiB .* MiB .*Z .*Z `));
    test.match(row('branch blocks'), isRunning ? `by process ${branch.program.child.pid} ` : ' no ');

    const list = await run('list');
    test.same([list.code, list.stderr], [0, '']);
    const lines = list.stdout.trimEnd().split('\n').toSorted();
    test.equal(lines.length, 2);
    for (const [role, known] of [
      ['branch ', url('/file')],
      ['reverse', `${origin.url}/file`],
    ] as const)
      test.match(list.stdout, new RegExp(`^20[0-9T:-]+Z {2}${role} {5}2\\.9 MiB {2}${known}$`, 'm'));
    const json = await listed(state);
    test.same(json.map(({ role, url, bytes }) => `${role} ${url} ${bytes}`).toSorted(), [
      `branch ${url('/file')} ${SIZE}`,
      `reverse ${origin.url}/file ${SIZE}`,
    ]);
    test.same(
      (await listed(state, '--role', 'branch')).map(({ role }) => role),
      ['branch'],
    );
  };
  await check(true);

  const lately = await cache(state, 'clear', '--older-than', '1h');
  test.equal(lately.stdout, 'reverse: deleted 0 records (0 B)\nbranch: deleted 0 blocks (0 B) and 0 records (0 B)\n');
  const [asked, carried] = [origin.asked('/file').length, await branch.wanBodyBytes()];
  const { code, stdout, stderr } = await peerdist(test, ['cache', 'clear', '--role', 'branch', '--state-dir', state]);
  test.same([code, stderr], [0, '']);
  test.match(
    stdout,
    new RegExp(`^branch: deleted ${BLOCKS} blocks \\(2\\.9 MiB\\) and 2 records \\([\\d.]+ KiB\\)\\n$`),
  );
  test.same(
    await Promise.all(
      ['branch blocks', 'branch records', 'reverse records'].map(async (name) => (await statsOf(state, name)).entries),
    ),
    [0, 0, 2],
    'of the chosen role',
  );
  test.ok(same((await get('/file')).body, FILE));
  test.ok(origin.asked('/file').length > asked);
  test.equal(await branch.wanBodyBytes(), carried + SIZE, 'it starts anew');

  await warm(test, here, '/file', FILE);
  await Promise.all([reverse.stop(), branch.stop()]);
  await check(false);
  test.equal(ownerOf(join(state, 'branch', 'blocks')), undefined, 'given back');
  test.ok(existsSync(join(state, 'branch', 'blocks', 'closed')), 'and closed');
  const all = await cache(state, 'clear');
  test.match(
    all.stdout,
    new RegExp(`^reverse: deleted 2 records .*\\nbranch: deleted ${BLOCKS} blocks .* and 2 records .*\\n$`),
  );
  test.equal((await statsOf(state, 'branch blocks')).entries, 0);
});

await t.test(
  'list: newest first, a line for each content of a URL, and nothing that a terminal would obey',
  async (test) => {
    const state = test.testdir({});
    const records = join(state, 'branch', 'records');
    const content = (id: string, contentLength: number): object => ({
      parts: [{ informationName: id, base: 0, isPrivate: false }],
      contentLength,
      head: {},
    });
    const nasty = 'http://h/\u001b[2J\r\n\u009b\u202e\u2028\u{e0001}ü';
    await withResources(records, ago(3 * DAY_MS), (store) => store.put('http://h/old', [], {}, content('a', 10)));
    await withResources(records, ago(2 * DAY_MS), (store) => store.put(nasty, [], {}, content('d', 1)));
    await withResources(records, ago(DAY_MS), async (store) => {
      await store.put('http://h/new', ['accept-language'], { 'accept-language': 'de' }, content('b', 2 ** 20));
      await store.put('http://h/new', ['accept-language'], { 'accept-language': 'fr' }, content('c', 2 ** 21));
      await store.put('http://h/new', ['accept-language'], { 'accept-language': 'fr-CH' }, content('c', 2 ** 21));
    });
    const json = await listed(state);
    test.same(
      json.map(({ url, bytes }) => [url, bytes]),
      [
        ['http://h/new', 2 ** 20],
        ['http://h/new', 2 ** 21],
        [nasty, 1],
        ['http://h/old', 10],
      ],
    );
    test.same(
      json.map(({ usedAt }) => Math.round(secondsAgo(usedAt) / 86_400)),
      [1, 1, 2, 3],
    );
    const escaped = 'http://h/\\u001b[2J\\u000d\\u000a\\u009b\\u202e\\u2028\\udb40\\udc01ü';
    for (const args of [['list'], ['list', '--json']]) {
      const { stdout } = await cache(state, ...args);
      test.equal(stdout.trimEnd().split('\n').length, 4);
      test.ok(stdout.replace('\\r\\n', '\\u000d\\u000a').includes(escaped), stdout);
      test.notMatch(stdout.replaceAll('\n', ''), /[\p{C}\p{Zl}]/u);
    }
    // None of this was a use.
    const { oldestUse, newestUse } = await statsOf(state, 'branch records');
    test.same(
      [secondsAgo(oldestUse), secondsAgo(newestUse)].map((age) => Math.round(age / 86_400)),
      [3, 1],
    );
  },
);

await t.test('a hosted cache has no URLs', async (test) => {
  const state = test.testdir({});
  await withBlocks(join(state, 'hosted', 'blocks'), systemClock, async (store) => {
    for (let index = 0; index < 5; index += 1) await store.set(`aa:${index}`, seededBytes(index + 1, 9_000), 'x');
  });
  const no = /^(peerdist: )?a hosted cache has no URLs[^\n]*\n$/;
  const text = await cache(state, 'list');
  test.same([text.code, text.stdout], [0, '']);
  test.match(text.stderr, no);
  test.same(await listed(state), []);
  const purge = await cache(state, 'purge', 'http://h/');
  test.same([purge.code, purge.stdout], [1, '']);
  test.match(purge.stderr, no);
  test.equal((await cache(state, 'verify')).stdout, '5 blocks and 0 records verified, 0 bad\n');
  test.equal((await cache(state, 'clear')).stdout, 'hosted: deleted 5 blocks (43.9 KiB)\n');
  test.equal((await statsOf(state, 'hosted blocks')).entries, 0);
});

// --- Damage ----------------------------------------------------------------------------------------------------------------------------

await t.test('verify: what is damaged on disk goes, and only that crosses the WAN again', async (test) => {
  const here = await site(test);
  const { state, get } = here;
  await warm(test, here, '/file', FILE);
  const sound = await peerdist(test, ['cache', 'verify', '--state-dir', state]);
  test.same(
    [sound.code, sound.stdout, sound.stderr],
    [0, `${BLOCKS} blocks and 4 records verified, 0 bad\n`, ''],
    'while they run; no bar where there is no terminal',
  );

  // In a store that is open: a proxy that has good bytes in memory is told as well.
  const blocks = join(state, 'branch', 'blocks');
  const [first, ...later] = [3, 11, 12, 20].map((index) => segments[index] as (typeof segments)[0]);
  corrupt(blocks, insideOf(first as (typeof segments)[0]));
  const before = await here.branch.wanBodyBytes();
  test.ok(same((await get('/file')).body, FILE), 'out of memory');
  test.equal(await here.branch.wanBodyBytes(), before);
  const live = await cache(state, 'verify');
  test.same([live.code, live.stdout], [1, `${BLOCKS} blocks and 4 records verified, 1 bad\n`]);
  test.equal((await statsOf(state, 'branch blocks')).entries, BLOCKS - 1);
  test.ok(same((await get('/file')).body, FILE), 'right bytes');
  test.equal(await here.branch.wanBodyBytes(), before + (first?.length ?? 0), 'the one block came again');
  await becomes(async () => (await statsOf(state, 'branch blocks')).entries === BLOCKS, 'it is on disk again');

  // In one that was closed.
  await here.branch.stop();
  const marker = readFileSync(join(blocks, 'closed'), 'utf8');
  corrupt(blocks, ...later.map(insideOf));
  test.equal(String(statSync(join(blocks, 'data.mdb')).size), marker.split(' ')[0], 'its size says nothing');
  const bad = await peerdist(test, ['cache', 'verify', '--json', '--state-dir', state]);
  test.same([bad.code, JSON.parse(bad.stdout), bad.stderr], [1, { blocks: BLOCKS, records: 4, bad: 3 }, '']);
  const again = await cache(state, 'verify', '--role', 'branch');
  test.same([again.code, again.stdout], [0, `${BLOCKS - 3} blocks and 2 records verified, 0 bad\n`], 'those have gone');

  here.branch = await here.startBranch();
  const answer = await get('/file');
  test.ok(same(answer.body, FILE), 'right bytes after a restart');
  test.equal(
    await here.branch.wanBodyBytes(),
    later.reduce((sum, { length }) => sum + length, 0),
    'and nothing but the bad blocks over the WAN',
  );
  await warm(test, here, '/file', FILE);

  const { branch, reverse } = here;
  for (const { program } of [branch, reverse]) program.child.kill('SIGKILL');
  await Promise.all([branch, reverse].map(({ program }) => program.finished));
  test.notOk(existsSync(join(blocks, 'closed')), 'an unclean stop');
  const killed = await cache(state, 'verify');
  test.same([killed.code, killed.stdout, killed.stderr], [0, `${BLOCKS} blocks and 4 records verified, 0 bad\n`, '']);
  here.branch = await here.startBranch();
  test.ok(same((await get('/file')).body, FILE), 'right bytes without a head office');
});

await t.test('verify: damaged records', async (test) => {
  const state = test.testdir({});
  const records = join(state, 'reverse', 'records');
  await withResources(records, systemClock, async (store) => {
    for (const name of ['a', 'b', 'c'])
      await store.put(`http://h/${name}`, [], {}, { contentId: name, contentLength: 1, head: {} });
  });
  corrupt(records, Buffer.from('resource\nhttp://h/b'));
  test.same((await listed(state)).map(({ url }) => url).toSorted(), ['http://h/a', 'http://h/c'], 'it is not listed');
  test.equal((await statsOf(state, 'reverse records')).entries, 3);
  test.match(await cache(state, 'verify'), { code: 1, stdout: '0 blocks and 3 records verified, 1 bad\n' });
  test.match(await cache(state, 'verify'), { code: 0, stdout: '0 blocks and 2 records verified, 0 bad\n' });
});

await t.test('what is no store any more is moved aside', async (test) => {
  const state = test.testdir({});
  const blocks = join(state, 'branch', 'blocks');
  const data = join(blocks, 'data.mdb');
  const fill = (): Promise<void> =>
    withBlocks(blocks, systemClock, async (store) => {
      for (let index = 0; index < 50; index += 1) await store.set(`aa:${index}`, seededBytes(index + 1, 9_000), 'x');
    });
  const damages: [name: string, damage: () => void][] = [
    ['a foreign file', () => writeFileSync(data, seededBytes(5, 100_000))],
    ['a file that was cut', () => truncateSync(data, 40_000)],
  ];
  for (const [name, damage] of damages) {
    await fill();
    damage();
    const { code, stdout, stderr } = await peerdist(test, ['cache', 'verify', '--state-dir', state]);
    test.same([code, stdout], [0, '0 blocks and 0 records verified, 0 bad\n'], name);
    test.match(stderr, /^the store \S+ is damaged \(.*\); moved it to \S+\.damaged and started an empty one\n$/);
    test.same(readdirSync(join(state, 'branch')).toSorted(), ['blocks', 'blocks.damaged']);
    await fill();
    test.equal((await statsOf(state, 'branch blocks')).entries, 50, 'and the new one can be used');
  }
});

// --- Purging ---------------------------------------------------------------------------------------------------------------------------

await t.test('purge: a branch that is running asks again, a head office hashes again', async (test) => {
  const here = await site(test, {
    '/file': { body: FILE, etag: '"1"', headers: fresh },
    '/same': { body: FILE, etag: '"2"', headers: fresh },
    '/other?a=%2F': { body: OTHER, etag: '"3"', headers: fresh },
  });
  const { state, origin, reverse, url, get } = here;
  await warm(test, here, '/file', FILE);
  await warm(test, here, '/same', FILE);
  await warm(test, here, '/other?a=%2F', OTHER, { blocks: BLOCKS + OTHER_BLOCKS });
  const wan = (): Promise<number> => here.branch.wanBodyBytes();
  const [asked, carried] = [origin.asked('/file').length, await wan()];
  test.ok(same((await get('/file')).body, FILE));
  test.same([origin.asked('/file').length, await wan()], [asked, carried], 'it needed nobody');

  const unknown = await cache(state, 'purge', url('/FILE'));
  test.same([unknown.code, unknown.stdout, unknown.stderr], [1, '', `peerdist: not known here: ${url('/FILE')}\n`]);
  const purged = await peerdist(test, ['cache', 'purge', url('/file').replace('http', 'HTTP'), '--state-dir', state]);
  test.same(
    [purged.code, purged.stdout, purged.stderr],
    [0, `branch: deleted ${BLOCKS} blocks (2.9 MiB) of ${url('/file')}\n`, ''],
  );
  test.equal((await statsOf(state, 'branch blocks')).entries, OTHER_BLOCKS, 'the other content has its own');
  test.same((await listed(state, '--role', 'branch')).map(({ url }) => url).toSorted(), [
    url('/other?a=%2F'),
    url('/same'),
  ]);

  test.ok(same((await get('/file')).body, FILE), 'right bytes');
  test.ok(origin.asked('/file').length > asked, 'the origin was asked');
  test.equal(await wan(), carried + SIZE, 'and every byte came again, none out of memory');
  await becomes(async () => (await statsOf(state, 'branch blocks')).entries === BLOCKS + OTHER_BLOCKS, 'all are kept');
  const others = origin.asked('/other?a=%2F').length;
  test.ok(same((await get('/other?a=%2F')).body, OTHER) && same((await get('/same')).body, FILE), 'so are the others');
  test.equal(origin.asked('/other?a=%2F').length, others);
  test.equal(await wan(), carried + SIZE);

  const fields = { ...V2_REQUEST, 'X-P2P-PeerDistEx': `${V2_REQUEST['X-P2P-PeerDistEx']}, HashRequest=true` };
  const isCoded = async (): Promise<boolean> =>
    (await ask(reverse.port, '/file', { fields })).headers['content-encoding'] === 'peerdist';
  const hashed = async (): Promise<number> => (await reverse.metric('peerdist_hashed_bytes_total')) ?? 0;
  test.equal(await isCoded(), true);
  const before = await hashed();
  const { code, stdout } = await cache(state, 'purge', `${origin.url}/file`);
  test.same([code, stdout], [0, `reverse: deleted the content information of ${origin.url}/file\n`]);
  test.equal((await statsOf(state, 'reverse records')).entries, 4, 'both records');
  test.equal(await isCoded(), false, 'nothing out of memory');
  await becomes(isCoded, 'it is hashed again');
  test.equal(await hashed(), before + SIZE);
  await becomes(async () => (await statsOf(state, 'reverse records')).entries === 6, 'it is on disk again');
});

await t.test('purge: all variants, in blocks of version 1, and when nothing runs', async (test) => {
  const bodies: Readonly<Record<string, Uint8Array>> = { de: FILE, fr: OTHER };
  const blocks = Math.ceil(SIZE / V1_BLOCK_BYTES);
  const both = blocks + Math.ceil(OTHER.byteLength / V1_BLOCK_BYTES);
  const resources: Readonly<Record<string, OriginHandler>> = {
    '/v': (request, response, record) => {
      const language = request.headers['accept-language'] ?? 'de';
      const headers = { ...fresh, vary: 'Accept-Language' };
      const file = { body: bodies[language] ?? FILE, etag: `"${language}"`, headers };
      return sendFile(file, request, response, record);
    },
  };
  const here = await site(test, resources, ['--content-info', '1']);
  const { state, origin, branch, reverse, url } = here;
  await warm(test, here, '/v', FILE, { blocks, fields: { 'Accept-Language': 'de' } });
  await warm(test, here, '/v', OTHER, { blocks: both, contents: 4, fields: { 'Accept-Language': 'fr' } });
  await Promise.all([branch.stop(), reverse.stop()]);
  test.same(
    (await listed(state, '--role', 'branch')).map(({ url, bytes }) => [url, bytes]),
    [
      [url('/v'), SIZE],
      [url('/v'), OTHER.byteLength],
    ],
  );
  const purge = await cache(state, 'purge', url('/v'));
  test.match(purge, { code: 0, stdout: `branch: deleted ${both} blocks (3.3 MiB) of ${url('/v')}\n` });
  test.equal((await statsOf(state, 'branch blocks')).entries, 0);
  test.equal((await statsOf(state, 'branch records')).entries, 0, 'its resource and two content informations');
  test.equal((await statsOf(state, 'reverse records')).entries, 3, 'head office knows it by the URL of its origin');
  test.equal((await cache(state, 'purge', `${origin.url}/v`)).code, 0);
  test.equal((await statsOf(state, 'reverse records')).entries, 0);
});

t.test('the URL as it is typed, and as browsers send it', (test) => {
  const cases: [typed: string, ...urls: string[]][] = [
    ['http://host/a', 'http://host/a'],
    ['HTTP://HOST:8080/A?B#c', 'http://host:8080/A?B'],
    ['http://host', 'http://host/'],
    ['http://host?q', 'http://host/?q'],
    ['http://host:80/a/../b%2f', 'http://host:80/a/../b%2f', 'http://host/b%2f'],
    ['https://bücher.example/ü', 'https://bücher.example/ü', 'https://xn--bcher-kva.example/%C3%BC'],
    ['http://[::1]:8080/', 'http://[::1]:8080/'],
    ['ftp://host/'],
    ['/path'],
    ['http://'],
    ['http://host:99999/'],
  ];
  for (const [typed, ...urls] of cases) test.same(urlsOf(typed), urls, typed);
  test.end();
});

// --- Clearing --------------------------------------------------------------------------------------------------------------------------

await t.test('clear --older-than: by the last use', async (test) => {
  const state = test.testdir({});
  const blocks = join(state, 'branch', 'blocks');
  const records = join(state, 'branch', 'records');
  const ages = { old: 30 * DAY_MS + 60_000, young: 30 * DAY_MS - 60_000, new: 0 };
  for (const [name, age] of Object.entries(ages)) {
    await withBlocks(blocks, ago(age), async (store) => {
      await store.set(`${name}:0`, seededBytes(1, 9_000), 'x');
      await store.set(`${name}:1`, seededBytes(2, 9_000), 'x');
    });
    await withResources(records, ago(age), (store) => store.put(`http://h/${name}`, [], {}, { contentLength: 1 }));
  }
  // Used later than it was kept.
  await withBlocks(blocks, systemClock, async (store) => store.get('old:1'));
  const { oldestUse } = await statsOf(state, 'branch blocks');
  test.ok(Math.abs(secondsAgo(oldestUse) - ages.old / 1000) < 30);

  const { code, stdout } = await cache(state, 'clear', '--older-than', '30d');
  test.equal(code, 0);
  test.match(stdout, /^branch: deleted 1 blocks \(8\.8 KiB\) and 1 records \(\d+ B\)\n$/);
  await withBlocks(blocks, systemClock, async (store) => {
    test.same(
      ['old:0', 'old:1', 'young:0', 'young:1', 'new:0', 'new:1'].map((key) => store.has(key)),
      [false, true, true, true, true, true],
    );
  });
  test.same(
    (await listed(state)).map(({ url }) => url),
    ['http://h/new', 'http://h/young'],
  );
  test.match((await cache(state, 'clear')).stdout, /^branch: deleted 5 blocks .* and 2 records /);
  test.equal((await statsOf(state, 'branch blocks')).oldestUse, null);
  test.match((await cache(state, 'stats')).stdout, '–');
  test.equal((await cache(state, 'list')).stdout, '');
  test.end();
});

t.test('days', (test) => {
  test.same(['30d', '1.5d', '2h', '3m', '4s', '5ms', '6', '0'].map(parseDuration), [
    30 * DAY_MS,
    1.5 * DAY_MS,
    7_200_000,
    180_000,
    4_000,
    5,
    6_000,
    0,
  ]);
  for (const wrong of ['d', '1 d', '1D', '1w', '-1d', '1dd'])
    test.throws(() => parseDuration(wrong), /not a duration/, wrong);
  test.end();
});

// --- Around it -------------------------------------------------------------------------------------------------------------------------

await t.test('who is asked to stop stops, and says so', async (test) => {
  const state = test.testdir({});
  await withBlocks(join(state, 'branch', 'blocks'), systemClock, async (store) => {
    const keys = Array.from({ length: 3_000 }, (_, index) => `aa:${index}`);
    await Promise.all(keys.map((key) => store.set(key, seededBytes(7, 10), 'x')));
  });
  const stopped = 'peerdist: stopped before everything was done\n';
  for (const command of ['verify', 'clear']) {
    const { code, stdout, stderr } = await cacheUntil(Promise.resolve(), state, command);
    test.same([code, stderr], [1, stopped], command);
    test.notMatch(stdout, '3000 blocks');
    test.ok((await statsOf(state, 'branch blocks')).entries > 0, 'some are left');
  }
});

await t.test('one clear line, exit 2, and nothing made', async (test) => {
  const directory = test.testdir({});
  const state = join(directory, 'state');
  mkdirSync(join(state, 'branch'), { recursive: true });
  const nothing = `no store in ${state}; see --state-dir`;
  const cases: [args: string[], clue: string | RegExp][] = [
    ...['stats', 'list', 'verify', 'clear'].map((name): [string[], string] => [[name], nothing]),
    [['purge', 'http://h/'], nothing],
    [['stats', '--role', 'hosted'], 'no store of the role hosted in'],
    [['purge', 'h/path'], 'not an http or https URL: h/path'],
    [['purge'], 'url'],
    [['stats', '--role', 'forward'], 'forward'],
    [['stats', 'surplus'], 'argument'],
    [['clear', '--older-than', 'yesterday'], 'not a duration'],
    [['clear', '--json'], '--json'],
    [['frobnicate'], 'frobnicate'],
  ];
  for (const [args, clue] of cases) {
    const { code, stdout, stderr } = await cache(state, ...args);
    test.same([code, stdout, stderr.split('\n').length], [2, '', 2], args.join(' '));
    test.match(stderr, clue);
  }
  test.same([readdirSync(state), readdirSync(join(state, 'branch'))], [['branch'], []]);
  const spawned = await peerdist(test, ['cache', 'stats'], { STATE_DIRECTORY: state });
  test.same([spawned.code, spawned.stdout, spawned.stderr], [2, '', `peerdist: ${nothing}\n`]);

  await withBlocks(join(state, 'branch', 'blocks'), systemClock, async (store) => store.set('a:0', SMALL, 'x'));
  const hook = `export const resolve = async (name, context, next) => {
    if (name === 'lmdb') throw Object.assign(new Error('gone'), { code: 'ERR_MODULE_NOT_FOUND' });
    return next(name, context);
  };`;
  writeFileSync(
    join(directory, 'without-lmdb.mjs'),
    `import { register } from 'node:module';
    register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hook)}`)});`,
  );
  const without = await peerdist(test, ['cache', 'list', '--state-dir', state], {
    NODE_OPTIONS: `--import=${join(directory, 'without-lmdb.mjs')}`,
  });
  test.same([without.code, without.stdout], [2, '']);
  test.match(without.stderr, /^peerdist: [^\n]*needs the package lmdb, which is not installed\n$/);
});

await t.test(
  'what root does in the directory of a service stays the service’s',
  { skip: !isRoot && 'takes root' },
  async (test) => {
    const state = test.testdir({});
    const blocks = join(state, 'branch', 'blocks');
    await withBlocks(blocks, systemClock, async (store) => store.set('a:0', SMALL, 'x'));
    const files = (): string[] => ['.', ...readdirSync(blocks)].map((name) => join(blocks, name));
    for (const file of files()) chownSync(file, 4_321, 8_765);
    const isTheirs = (): boolean[] =>
      files().map((file) => statSync(file).uid === 4_321 && statSync(file).gid === 8_765);
    test.equal((await cache(state, 'clear')).code, 0);
    test.same(isTheirs(), [true, true, true, true], 'the directory, closed, data.mdb, lock.mdb');
    writeFileSync(join(blocks, 'data.mdb'), 'foreign');
    test.match((await cache(state, 'stats')).stderr, 'damaged');
    test.same(isTheirs(), [true, true, true, true], 'also of one that was started anew');
  },
);

await t.test('help', async (test) => {
  const [help, purge, clear] = await Promise.all(
    [[], ['purge'], ['clear']].map(async (args) =>
      (await cache('x', ...args, '--help')).stdout.replaceAll(/\s+/g, ' '),
    ),
  );
  for (const name of ['stats', 'list', 'verify', 'purge', 'clear']) test.match(help, ` ${name} `);
  test.match(purge, 'blocks that it shares with others');
  test.match(clear, '--older-than <time>');
});
