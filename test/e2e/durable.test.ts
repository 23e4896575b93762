/** Proxies with their stores on disk: what a restart keeps, whose a directory is, clocks, ends. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Clock } from '../../lib/clock.ts';
import { hashProvider } from '../../lib/crypto/index.ts';
import { decodeContentInformation, describeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import type { RecordStore } from '../../lib/stores/index.ts';
import { quickDirectory } from '../support/disk.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { startOf } from '../support/processes.ts';
import {
  type Answer,
  ask,
  begin,
  Gate,
  inTime,
  Origin,
  peerdist,
  readAtLeast,
  Role,
  same,
  startBranch,
  startReverse,
  until,
  V1_REQUEST,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const BODY = Buffer.from(seededBytes(801, 3_000_000));
const OTHER = Buffer.from(seededBytes(802, 1_000_000));
const FRESH = { 'cache-control': 'max-age=3600' };
const SECRET = { PEERDIST_SECRET: 'of the test' };
const FILES = { '/f': { body: BODY, etag: '"f"', headers: FRESH } };

const reverseAt = (test: Test, origin: Origin, state: string, ...more: readonly string[]): Promise<Role> =>
  Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state, ...more], SECRET);
const branchAt = (test: Test, state: string, ...more: readonly string[]): Promise<Role> =>
  Role.start(test, ['branch', '--state-dir', state, ...more]);
const stateOf = (test: Test): string => join(quickDirectory(test), 'state');
const lines = (text: string): string[] => text.split('\n').filter(Boolean);

/** Bytes over the WAN: bodies, missing data, content information. */
async function wan(branch: Role): Promise<(number | undefined)[]> {
  const kinds = ['plain', 'missing_data', 'content_information'];
  return Promise.all(kinds.map((kind) => branch.metric(`peerdist_wan_bytes_total{kind="${kind}"}`)));
}

/** Downloads until no body byte of it crosses the WAN any more. */
async function warm(branch: Role, url: string, body: Uint8Array): Promise<void> {
  let isHit = false;
  const attempt = async (): Promise<void> => {
    while (!isHit) {
      const before = await branch.wanBodyBytes();
      if (!same((await ask(branch.port, url)).body, body)) throw new Error('wrong bytes');
      isHit = (await branch.wanBodyBytes()) === before;
    }
  };
  await inTime(attempt(), `${url} is served by the branch`).finally(() => {
    isHit = true;
  });
}

/** Asks as a branch does until there is content information. */
async function information(reverse: Role, path: string, fields: object = V2_REQUEST): Promise<Buffer> {
  let answer: Answer | undefined;
  const attempt = async (): Promise<void> => {
    while (answer?.headers['content-encoding'] !== 'peerdist')
      answer = await ask(reverse.port, path, { fields: { ...fields } });
  };
  await inTime(attempt(), `content information of ${path}`);
  return (answer as Answer).body;
}

function firstSegment(encoded: Uint8Array): string | undefined {
  return describeContentInformation(decodeContentInformation(encoded), hashProvider('native')).segments[0]?.segmentId;
}

// --- Restarts ----------------------------------------------------------------------------------------------------------------------------

await t.test('a branch that was restarted serves what it had, also after kill -9', async (test) => {
  const state = stateOf(test);
  const origin = await Origin.start(test, {
    ...FILES,
    '/stale': { body: OTHER, etag: '"s"', headers: { 'cache-control': 'max-age=0' } },
  });
  const reverse = await reverseAt(test, origin, state, '--no-admin');
  let branch = await branchAt(test, state);
  await warm(branch, `${reverse.url}/f`, BODY);
  await warm(branch, `${reverse.url}/stale`, OTHER);
  for (const end of ['SIGTERM', 'SIGKILL'] as const) {
    const { code, stderr } = await branch.stop(end);
    test.same([code, stderr], [end === 'SIGTERM' ? 0 : null, '']);
    branch = await branchAt(test, state);
    const seen = origin.requests.length;
    test.ok(same((await ask(branch.port, `${reverse.url}/f`)).body, BODY), 'whole');
    for (const [range, part] of [
      ['bytes=1000000-1999999', BODY.subarray(1e6, 2e6)],
      ['bytes=-70000', BODY.subarray(-70_000)],
    ] as const) {
      const answer = await ask(branch.port, `${reverse.url}/f`, { fields: { range } });
      test.ok(answer.status === 206 && same(answer.body, part), range);
    }
    test.equal(origin.requests.length, seen, 'nobody was asked');
    test.ok(same((await ask(branch.port, `${reverse.url}/stale`)).body, OTHER), 'stale');
    test.match(origin.requests.slice(seen), [{ target: '/stale', headers: { 'if-none-match': '"s"' }, sent: 0 }]);
    test.equal(origin.requests.length, seen + 1, 'one question');
    test.same(await wan(branch), [0, 0, 0], 'and not a byte');
    const delivered = await branch.metric('peerdist_delivered_bytes_total{source="store"}');
    test.equal(delivered, BODY.byteLength + 1_000_000 + 70_000 + OTHER.byteLength);
  }
});

await t.test('a head office that was restarted knows its hashes, and another makes the same', async (test) => {
  const state = stateOf(test);
  const origin = await Origin.start(test, FILES);
  const given = ['--secret-hex', '0badcafe'];
  const [first, elsewhere] = await Promise.all(
    [state, `${state}-2`].map((each) => reverseAt(test, origin, each, ...given)),
  );
  const forms = [V1_REQUEST, V2_REQUEST];
  const all = (reverse: Role | undefined): Promise<Buffer[]> =>
    Promise.all(forms.map((form) => information(reverse as Role, '/f', form)));
  const before = await all(first);
  test.same(await all(elsewhere), before, 'of one secret comes one content information');
  test.equal(await first?.metric('peerdist_hashed_bytes_total'), BODY.byteLength);
  await first?.stop();
  const again = await reverseAt(test, origin, state, ...given);
  const seen = origin.requests.length;
  for (const [index, fields] of forms.entries()) {
    const answer = await ask(again.port, '/f', { fields });
    test.equal(answer.headers['content-encoding'], 'peerdist', 'at once');
    test.ok(same(answer.body, before[index] as Buffer), 'the same as before');
  }
  test.equal(await again.metric('peerdist_hashed_bytes_total'), 0);
  test.match(origin.requests.slice(seen), [
    { status: 304, sent: 0 },
    { status: 304, sent: 0 },
  ]);
});

await t.test('the server secret: made once, kept, rotated', async (test) => {
  const state = stateOf(test);
  const origin = await Origin.start(test, { ...FILES, '/copy': { body: BODY, etag: '"c"', headers: FRESH } });
  const start = (): Promise<Role> =>
    Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state, '--no-admin']);
  let reverse = await start();
  const old = await information(reverse, '/f');
  const { stderr } = await reverse.stop();
  test.match(lines(stderr), [/^made a server secret in .*: peerdist secret export and import /]);
  test.equal(lines(stderr).length, 1);
  test.equal(statSync(join(state, 'server-secret')).mode & 0o777, 0o600);

  reverse = await start();
  test.ok(same(await information(reverse, '/copy'), old), 'of what is hashed later too');
  test.equal((await reverse.stop()).stderr, '');

  test.equal((await peerdist(test, ['secret', 'rotate', '--state-dir', state])).code, 0);
  reverse = await start();
  test.ok(same((await ask(reverse.port, '/f', { fields: V2_REQUEST })).body, old), 'what is known stays as it was');
  origin.resources.set('/f', { body: BODY, etag: '"f2"', headers: FRESH });
  const fresh = await information(reverse, '/f');
  test.not(firstSegment(fresh), firstSegment(old), 'and what is hashed anew has other names');
  test.equal((await reverse.stop()).stderr, '');
});

// --- Whose directory it is -----------------------------------------------------------------------------------------------------------------

await t.test('one process for each role on a state directory', async (test) => {
  const state = stateOf(test);
  const origin = await Origin.start(test, FILES);
  const branch = await branchAt(test, state);
  const pid = branch.program.child.pid as number;
  const args = ['branch', '--state-dir', state, '--listen', '127.0.0.1:0', '--no-admin', '--no-peers'];
  const refused = async (owner: number): Promise<void> => {
    const { code, stdout, stderr } = await peerdist(test, args);
    test.same([code, stdout, lines(stderr).length], [2, '', 1]);
    test.match(
      stderr,
      new RegExp(`^peerdist: the store ${state}/branch/\\w+ is in use by another process \\(${owner}\\)`),
    );
  };
  await refused(pid);
  await reverseAt(test, origin, state);
  test.equal((await ask(branch.adminPort as number, '/readyz')).status, 200, 'who was there goes on');
  await branch.stop('SIGKILL');
  const owner = join(state, 'branch', 'records', 'owner');
  const left = readFileSync(owner, 'utf8');
  test.match(left, new RegExp(`^${pid} \\d+$`), 'killed, it has left its name');
  // The number is somebody else's by now.
  writeFileSync(owner, left.replace(/^\d+/, String(process.pid)));
  const next = await branchAt(test, state, '--no-admin');
  test.match(await next.stop(), { code: 0, stderr: '' });
  writeFileSync(owner, `${process.pid} ${startOf(process.pid)}`);
  await refused(process.pid);
});

// --- Time and end ------------------------------------------------------------------------------------------------------------------------

await t.test('a clock that was put back makes nothing fresh', async (test) => {
  const manual = new ManualClock();
  let shift = 0;
  const clock: Clock = { now: () => manual.now() + shift, after: (ms, callback) => manual.after(ms, callback) };
  const kept = new Map<string, Uint8Array>();
  const records: RecordStore = {
    get: (name) => kept.get(name),
    set: (name, value) => void kept.set(name, value),
    delete: (name) => kept.delete(name),
    bytes: 0,
  };
  const origin = await Origin.start(test, FILES);
  const reverse = await startReverse(test, origin);
  const [branch, restarted] = [
    await startBranch(test, { clock, records }),
    await startBranch(test, { clock, records }),
  ];
  const asks = async (proxy: { readonly port: number }): Promise<string[]> => {
    const before = origin.requests.length;
    const { body } = await ask(proxy.port, `${reverse.url}/f`);
    if (!same(body, BODY)) test.fail('wrong bytes');
    return origin.requests.slice(before).map(({ headers, status }) => `${headers['if-none-match']} ${status}`);
  };
  const revalidated = ['"f" 304'];
  await asks(branch);
  await reverse.published();
  await branch.remembered();
  test.same(await asks(branch), [], 'fresh');
  manual.advance(3_601_000);
  test.same(await asks(branch), revalidated, 'an hour later it is stale');
  test.same(await asks(branch), [], 'and fresh again');
  shift = -7_200_000;
  test.same(await asks(branch), revalidated, 'the clock was put back: nobody knows how old it is');
  test.same(await asks(branch), [], 'that is how old it is now');
  shift = -10_800_000;
  test.same((await asks(restarted)).slice(0, 1), revalidated, 'so does who reads it from the store');
});

await t.test('/readyz says to the end that it is ending', async (test) => {
  const gate = new Gate();
  const origin = await Origin.start(test, {
    '/slow': { body: BODY, etag: '"s"', firstBytes: 1_000_000, afterFirst: gate.passed },
  });
  const branch = await branchAt(test, stateOf(test));
  const ready = async (): Promise<string> => {
    try {
      const { status, body } = await ask(branch.adminPort as number, '/readyz');
      return `${status} ${body.toString()}`;
    } catch {
      return 'gone';
    }
  };
  test.equal(await ready(), '200 ready\n');
  const connection = await begin(branch.port, `${origin.url}/slow`);
  const head = await connection.head();
  const body = connection.body(head);
  const first = await readAtLeast(body, 1_000_000);
  const ended = branch.stop();
  const answers: string[] = [];
  const watch = (async () => {
    for (let last = ''; last !== 'gone'; answers.push(last)) last = await ready();
  })();
  await until(() => answers.includes('503 ending\n'), 'it says that it is ending');
  const counted = answers.length;
  await until(() => answers.length > counted + 20, 'it says so as long as it lasts');
  gate.open();
  const rest = await readAtLeast(body, BODY.byteLength);
  test.ok(connection.complete && same(Buffer.concat([first, rest]), BODY), 'the download is whole');
  test.match(await ended, { code: 0, stderr: '' });
  await watch;
  test.same([...new Set(answers.filter((each) => each !== '200 ready\n'))], ['503 ending\n', 'gone']);
  test.ok(answers.lastIndexOf('200 ready\n') < answers.indexOf('503 ending\n'));
});
