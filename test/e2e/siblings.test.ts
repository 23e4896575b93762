/**
 * Several branch proxies of one site before origins that know nothing of any of this: what one has, the others get from it, after a question to
 * the origin; and what becomes of that when they have nothing in common, or one of them lies.
 */
import { gzipSync } from 'node:zlib';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { fromHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import { encodeContentInformation, ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { decodeResponse, encodeRequest, RETRIEVAL_PATH } from '../../lib/protocol/pccrr/index.ts';
import { DescribedContent } from '../../lib/services/index.ts';
import type { NeighbourhoodOptions } from '../../plugins/standalone/roles/neighbourhood.ts';
import { describe } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  type Answer,
  ask,
  type BranchOptions,
  Origin,
  type OriginFile,
  type OriginHandler,
  peerdist,
  type Proxy,
  Role,
  same,
  sendFile,
  startBranch,
  until,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { until as untilSo } from '../support/redis.ts';

const BODY = Buffer.from(seededBytes(91, 1_000_000).buffer);
const SITE = ServerSecret.fromText('the secret of the site');
const STALE = { 'cache-control': 'max-age=60' };
const neighbourhood: NeighbourhoodOptions = { listen: { host: '127.0.0.1', port: 0 } };

interface Pair {
  readonly origin: Origin;
  readonly a: Proxy;
  readonly b: Proxy;
}

/** A site of two, of which the second knows the first. */
async function site(
  test: Test,
  resources: Readonly<Record<string, OriginFile | OriginHandler>>,
  more: BranchOptions = {},
): Promise<Pair> {
  const origin = await Origin.start(test, resources);
  const a = await startBranch(test, { secret: SITE, neighbourhood });
  const siblings = [{ address: '127.0.0.1', port: a.peerPort }];
  const b = await startBranch(test, { secret: SITE, neighbourhood: { ...neighbourhood, siblings }, ...more });
  return { origin, a, b };
}

/** Has a branch download something until it gives it out of its blocks. */
async function warm({ origin, a }: Pair, path: string, fields: Readonly<Record<string, string>> = {}): Promise<void> {
  const before = a.observations.count('stored', { store: 'content_information' });
  const answer = await ask(a.port, `${origin.url}${path}`, { fields });
  if (answer.status !== 200) throw new Error(`${answer.status}`);
  await a.remembered(before + 1);
}

/** What the origin was asked for the sake of some work: `status+bytes` each. */
async function cost(origin: Origin, work: () => Promise<void>): Promise<string[]> {
  const before = origin.requests.length;
  await work();
  return origin.requests.slice(before).map(({ status, sent }) => `${status}+${sent}`);
}

function isWhole(test: Test, { status, complete, body }: Answer, wanted: Uint8Array = BODY, what = 'whole'): void {
  test.same([status, complete, same(body, wanted)], [200, true, true], what);
}

const results = ({ observations }: Proxy): unknown[] =>
  observations.of('sibling_question').map((each) => (each as { result: string }).result);

await t.test('what the first has costs the second a question to the origin, and no byte of the body', async (test) => {
  const pair = await site(test, {
    '/f': { body: BODY, etag: '"f"', headers: { ...STALE, 'content-type': 'text/x', 'x-own': 'y' } },
  });
  const { origin, a, b } = pair;
  await warm(pair, '/f');
  const asked = await cost(origin, async () => {
    const answer = await ask(b.port, `${origin.url}/f`);
    isWhole(test, answer);
    test.match(answer.headers, { etag: '"f"', 'content-type': 'text/x', 'x-own': 'y', 'cache-control': 'max-age=60' });
  });
  test.same(asked, ['304+0']);
  test.equal(origin.requests.at(-1)?.headers['if-none-match'], '"f"');
  test.same([b.observations.wanBodyBytes, b.observations.bytes('delivered', { source: 'peer' })], [0, BODY.byteLength]);
  test.same([results(b), a.observations.count('sibling_answer', { result: 'found' })], [['found'], 1]);

  // From now on it is the second one's own.
  test.same(
    await cost(origin, async () => {
      const again = await ask(b.port, `${origin.url}/f`, { fields: { range: 'bytes=500000-500099' } });
      test.same([again.status, same(again.body, BODY.subarray(500_000, 500_100))], [206, true]);
      test.match(again.headers['cache-status'], 'hit');
    }),
    [],
  );
  test.same([results(b), b.observations.failures, a.observations.failures], [['found'], [], []]);
});

await t.test('a range, variants, and what has changed meanwhile', async (test) => {
  const text = Buffer.from('All work and no play makes Jack a dull boy.\n'.repeat(5_000));
  const zipped = Buffer.concat([gzipSync(text), seededBytes(3, 70_000)]);
  const negotiated: OriginHandler = (request, response, record) => {
    const isZipped = /\bgzip\b/.test(request.headers['accept-encoding'] ?? '');
    const headers = { ...STALE, vary: 'Accept-Encoding', ...(isZipped ? { 'content-encoding': 'gzip' } : {}) };
    const file = isZipped ? { body: zipped, etag: '"z"', headers } : { body: text, etag: '"t"', headers };
    return sendFile(file, request, response, record);
  };
  const pair = await site(test, {
    '/range': { body: BODY, etag: '"r"', headers: STALE },
    '/text': negotiated,
    '/new': { body: BODY, etag: '"1"', headers: STALE },
  });
  const { origin, b } = pair;
  await warm(pair, '/range');
  const asked = await cost(origin, async () => {
    const { status, body } = await ask(b.port, `${origin.url}/range`, { fields: { range: 'bytes=-1000' } });
    test.same([status, same(body, BODY.subarray(-1000))], [206, true]);
  });
  test.same(asked, ['304+0'], 'a range of what is not here');

  await warm(pair, '/text', { 'accept-encoding': 'gzip' });
  const plain = await cost(origin, async () => isWhole(test, await ask(b.port, `${origin.url}/text`), text));
  test.same(plain, [`200+${text.byteLength}`], 'the first has another variant');
  test.same(results(b).at(-1), 'absent');

  await warm(pair, '/new');
  const changed = BODY.subarray(1);
  origin.resources.set('/new', { body: changed, etag: '"2"', headers: STALE });
  const both = await cost(origin, async () => isWhole(test, await ask(b.port, `${origin.url}/new`), changed));
  test.same(both, [`200+${changed.byteLength}`], 'the origin has the last word');
});

await t.test('another secret: a download of its own', async (test) => {
  const pair = await site(
    test,
    { '/f': { body: BODY, etag: '"f"', headers: STALE } },
    { secret: ServerSecret.fromText('of another site') },
  );
  const { origin, a, b } = pair;
  await warm(pair, '/f');
  const asked = await cost(origin, async () => isWhole(test, await ask(b.port, `${origin.url}/f`)));
  test.same(asked, [`200+${BODY.byteLength}`]);
  test.same([results(b), a.observations.count('sibling_answer', { result: 'refused' })], [['failed'], 1]);
});

await t.test('nobody is told what is not for a shared cache, small, or said by weak tags', async (test) => {
  const pair = await site(test, {
    '/small': { body: BODY.subarray(0, 65_535), etag: '"s"', headers: STALE },
    '/weak': { body: BODY, etag: 'W/"w"', headers: STALE },
    '/dated': { body: BODY, lastModified: 'Tue, 03 Feb 2026 10:00:00 GMT', headers: STALE },
    '/cookie': { body: BODY, etag: '"c"', headers: { ...STALE, vary: 'Cookie' } },
  });
  const { origin, b } = pair;
  for (const path of ['/small', '/weak', '/dated', '/cookie']) {
    await warm(pair, path);
    const asked = await cost(origin, async () => {
      test.equal((await ask(b.port, `${origin.url}${path}`)).status, 200);
    });
    test.match(asked, [/^200\+/], path);
  }
  test.same(results(b), ['absent', 'absent', 'absent', 'absent']);
  origin.resources.set('/private', { body: BODY, etag: '"p"', headers: { 'cache-control': 'private, max-age=60' } });
  await ask(pair.a.port, `${origin.url}/private`);
  isWhole(test, await ask(b.port, `${origin.url}/private`));
  test.equal(results(b).at(-1), 'absent');
});

// --- What is asked, and lies ---------------------------------------------------------------------------------------------------------

/** A directory that says what the test wants, and writes down what it is asked. */
function scripted(entry?: Entry): Directory & { readonly asked: Question[] } {
  const asked: Question[] = [];
  return {
    asked,
    find: async (question) => {
      asked.push(question);
      return entry;
    },
    answerWith: () => {},
  };
}

type Directory = NonNullable<BranchOptions['directory']>;
type Entry = NonNullable<Awaited<ReturnType<Directory['find']>>>;
type Question = Parameters<Directory['find']>[0];

await t.test('siblings are not told who asks, nor asked what they could not answer', async (test) => {
  const clock = new ManualClock();
  const directory = scripted();
  const origin = await Origin.start(test, {});
  const b = await startBranch(test, { directory, clock });
  const get = (path: string, fields: Readonly<Record<string, string>>, method = 'GET'): Promise<Answer> =>
    ask(b.port, `${origin.url}${path}`, { fields, method });
  await get('/1', { authorization: 'Basic eDp5' });
  await get('/2', { 'if-none-match': '"x"' });
  await get('/3', { 'if-modified-since': 'Tue, 03 Feb 2026 10:00:00 GMT' });
  await get('/4', { 'cache-control': 'no-cache' });
  await get('/5', { 'cache-control': 'no-store' });
  await get('/6', { pragma: 'no-cache' });
  await get('/7', {}, 'HEAD');
  await get('/8', { 'content-length': '0' }, 'POST');
  await get('/9', { 'cache-control': 'only-if-cached' });
  test.same(directory.asked, []);

  await get('/x', { cookie: 'a=b', 'proxy-authorization': 'Basic eDp5', 'accept-language': 'fr', range: 'bytes=0-1' });
  test.same(directory.asked, [{ key: `${origin.url}/x`, headers: { 'accept-language': 'fr' } }]);
  await get('/x', {});
  test.equal(directory.asked.length, 1, 'not about the same thing at once again');
  clock.advance(60_000);
  await get('/x', {});
  test.equal(directory.asked.length, 2);
});

await t.test('wrong hashes: the client gets the bytes of the origin', async (test) => {
  const wrong = seededBytes(92, BODY.byteLength);
  for (const version of [1, 2] as const) {
    const contentInformation = encodeContentInformation(describe(version, wrong));
    const directory = scripted({ head: { etag: '"f"', ...STALE }, length: BODY.byteLength, contentInformation });
    const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: STALE } });
    const b = await startBranch(test, { directory });
    isWhole(test, await ask(b.port, `${origin.url}/f`), BODY, `version ${version}`);
    test.ok(b.observations.count('verification', { source: 'origin', result: 'mismatch' }) > 0);
    test.ok(b.observations.count('content_information', { result: 'rejected' }) > 0);
    // Once: what it says of this content is not asked for again so soon.
    const before = b.observations.count('stored', { store: 'content_information' });
    isWhole(test, await ask(b.port, `${origin.url}/f`));
    await b.remembered(before + 1);
    isWhole(test, await ask(b.port, `${origin.url}/f`));
    test.same([directory.asked.length, b.observations.failures], [1, []]);
  }
});

await t.test('other nonsense is dropped, and counted', async (test) => {
  const contentInformation = encodeContentInformation(describe(1, BODY));
  const good: Entry = { head: { etag: '"f"', ...STALE }, length: BODY.byteLength, contentInformation };
  const nonsense: readonly (readonly [string, Entry])[] = [
    ['garbage', { ...good, contentInformation: seededBytes(5, 500) }],
    ['another length', { ...good, length: BODY.byteLength + 1 }],
    ['a weak tag', { ...good, head: { ...good.head, etag: 'W/"f"' } }],
    ['an answer that nothing selects', { ...good, head: { ...good.head, vary: '*' } }],
    ['one that a cookie selects', { ...good, head: { ...good.head, vary: 'cookie' } }],
  ];
  for (const [what, entry] of nonsense) {
    const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: STALE } });
    const b = await startBranch(test, { directory: scripted(entry) });
    const asked = await cost(origin, async () => isWhole(test, await ask(b.port, `${origin.url}/f`), BODY, what));
    test.same(asked, [`200+${BODY.byteLength}`], what);
    test.equal(origin.requests[0]?.headers['if-none-match'], undefined, what);
    test.equal(b.observations.count('content_information', { result: 'rejected' }), 1, what);
  }
  // What is of one hop, or of one user, is not taken along.
  const head = { ...good.head, 'set-cookie': 'a=b', connection: 'x-hop', 'x-hop': '1', 'transfer-encoding': 'chunked' };
  const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: STALE } });
  const b = await startBranch(test, { directory: scripted({ ...good, head }) });
  const { headers, ...answer } = await ask(b.port, `${origin.url}/f`);
  isWhole(test, { headers, ...answer });
  test.same([headers['set-cookie'], headers['x-hop'], headers['transfer-encoding']], [undefined, undefined, undefined]);
});

/** How many blocks of a segment a branch gives to peers. */
async function blocksOf({ peerPort }: Role, segmentId: string): Promise<number> {
  const ranges = [{ index: 0, count: 512 }];
  const body = encodeRequest({ type: 'get-block-list', cipher: 'aes-128', segmentId: fromHex(segmentId), ranges });
  const answer = await ask(peerPort as number, RETRIEVAL_PATH, { method: 'POST', body });
  const message = decodeResponse(answer.body);
  return message.type === 'block-list' ? message.ranges.reduce((sum, { count }) => sum + count, 0) : 0;
}

// --- The command ---------------------------------------------------------------------------------------------------------------------

for (const workers of ['1', '2'])
  await t.test(`the command: one secret, taken from machine to machine; workers: ${workers}`, async (test) => {
    const directory = test.testdir({ a: {}, b: {}, pass: 'correct horse battery staple' });
    const path = (name: string): string => join(directory, name);
    const other = BODY.subarray(1);
    const origin = await Origin.start(test, {
      '/f': { body: BODY, etag: '"f"', headers: STALE },
      '/g': { body: other, etag: '"g"', headers: STALE },
    });
    const start = (name: string, ...more: readonly string[]): Promise<Role> =>
      Role.start(test, [
        'branch',
        '--no-discovery',
        '--peer-listen',
        '127.0.0.1:0',
        '--state-dir',
        path(name),
        ...more,
      ]);
    const first = await start('a', '--workers', workers);
    const url = `${origin.url}/f`;
    isWhole(test, await ask(first.port, url));
    await until(
      () => origin.requests.length > 0 && origin.requests.every(({ closed }) => closed),
      'the origin has sent it',
    );
    for (let kept = 0; kept < BODY.byteLength;) kept = (await first.metric('peerdist_store_bytes{store="block"}')) ?? 0;

    // Made by itself on the first start; without it, the other is a stranger.
    const stranger = await start('b', '--sibling', `127.0.0.1:${first.peerPort}`);
    isWhole(test, await ask(stranger.port, url));
    test.equal(await first.metric('peerdist_sibling_answers_total{result="refused"}'), 1);
    await stranger.stop();

    writeFileSync(path('pass'), 'correct horse battery staple');
    const carry = async (what: string, name: string): Promise<void> => {
      const passphrase = ['--passphrase-file', path('pass'), '--state-dir', path(name)];
      test.equal((await peerdist(test, ['secret', what, path('key'), ...passphrase])).code, 0, what);
    };
    await carry('export', 'a');
    await carry('import', 'c');
    const second = await start('c', '--sibling', `127.0.0.1:${first.peerPort}`, '--workers', workers);
    const asked = await cost(origin, async () => isWhole(test, await ask(second.port, url)));
    test.same(asked, ['304+0']);
    test.equal(await second.wanBodyBytes(), 0);
    test.equal(await second.metric('peerdist_delivered_bytes_total{source="peer"}'), BODY.byteLength);
    test.equal(await second.metric('peerdist_sibling_questions_total{result="found"}'), 1);

    // What each has described by itself has one segment ID.
    for (const role of [second, first])
      test.same(await cost(origin, async () => isWhole(test, await ask(role.port, `${origin.url}/g`), other)), [
        `200+${other.byteLength}`,
      ]);
    const [line] = readFileSync(join(path('c'), 'server-secret'), 'latin1').split('\n');
    const secret = new ServerSecret(fromHex(line as string)).derive('peerdist self-described content, version 1');
    const described = new DescribedContent(describe(1, other, { secret }), nativeHashProvider);
    for (const role of [first, second])
      await untilSo(async () => (await blocksOf(role, described.segmentId(0))) === 16, 'all blocks can be had of each');
  });
