/**
 * The block cache as a real branch proxy before a real reverse proxy before an origin that writes everything down: ranges, conditions,
 * sharing, freshness, and that nothing of it shows where it must not.
 */
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { ManualClock } from '../support/manual-clock.ts';
import { parts } from '../support/multipart.ts';
import {
  type Answer,
  type Ask,
  ask,
  begin,
  type BranchOptions,
  type Connection,
  Gate,
  Origin,
  type OriginFile,
  type OriginHandler,
  type Proxy,
  readAtLeast,
  type ReverseOptions,
  same,
  sendFile,
  startBranch,
  startReverse,
  until,
  V1_REQUEST,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const SIZE = 300_001;
const FILE = seededBytes(7, SIZE);
const DATE = 'Tue, 03 Feb 2026 10:00:00 GMT';
const LATER = 'Tue, 03 Feb 2026 10:00:01 GMT';
/** Largest unit that is fetched and verified: a segment of version 2. */
const UNIT = 131_072;

type Fields = Readonly<Record<string, string>>;

interface Chain {
  readonly origin: Origin;
  readonly reverse: Proxy;
  readonly branch: Proxy;
  readonly clock: ManualClock;
  /** Request target for a path of the origin, as a client of this branch writes it. */
  readonly target: (path: string) => string;
  readonly get: (path: string, fields?: Fields, options?: Ask) => Promise<Answer>;
  /** The same, and waits until the branch knows the content. */
  readonly warm: (path: string, fields?: Fields) => Promise<Answer>;
  /** A request whose answer the caller reads. */
  readonly open: (path: string, fields?: Fields) => Promise<Connection>;
}

interface ChainOptions {
  readonly reverse?: ReverseOptions;
  readonly branch?: BranchOptions;
  readonly gateway?: boolean;
}

async function chain(
  test: Test,
  resources: Readonly<Record<string, OriginFile | OriginHandler>>,
  { reverse: reverseOptions, branch: branchOptions, gateway = false }: ChainOptions = {},
): Promise<Chain> {
  const clock = new ManualClock();
  const origin = await Origin.start(test, resources);
  const reverse = await startReverse(test, origin, reverseOptions);
  const branch = await startBranch(test, { clock, ...branchOptions, ...(gateway ? { origin: reverse } : {}) });
  const target = (path: string): string => (gateway ? path : `${reverse.url}${path}`);
  const get: Chain['get'] = (path, fields = {}, options = {}) => ask(branch.port, target(path), { fields, ...options });
  return {
    origin,
    reverse,
    branch,
    clock,
    target,
    get,
    async warm(path, fields) {
      const before = branch.observations.count('stored', { store: 'content_information' });
      const answer = await get(path, fields);
      await branch.remembered(before + 1);
      return answer;
    },
    open: (path, fields = {}) => begin(branch.port, target(path), { fields }),
  };
}

function noFailures(test: Test, { branch, reverse, origin }: Chain): void {
  test.same(
    [branch.observations.failures, reverse.observations.failures, origin.errors],
    [[], [], []],
    'no plug-in failed',
  );
}

function isWhole(test: Test, answer: Answer, body: Uint8Array | string, what: string): boolean {
  return test.same(
    [answer.status, answer.complete, answer.headers['content-length'], same(answer.body, body)],
    [200, true, String(Buffer.from(body as Uint8Array).byteLength), true],
    what,
  );
}

/** Nothing in an answer shows that hashes were on the way. */
function isClean(test: Test, answer: Answer, what = 'no trace of the coding'): void {
  const traces = answer.lines.filter(
    ([name, value]) =>
      /^x-p2p/i.test(name) ||
      /peerdist/i.test(name) ||
      /^content-encoding$/i.test(name) ||
      (/^vary$/i.test(name) && /x-p2p/i.test(value)) ||
      (/peerdist/i.test(value) && !/^(?:via|cache-status)$/i.test(name)),
  );
  test.same(traces, [], what);
}

const status = (answer: Answer): string | undefined => answer.headers['cache-status'];

/** What the WAN and the origin did while something ran. */
async function during<T>(
  { branch, reverse, origin }: Chain,
  work: () => Promise<T>,
): Promise<{ result: T; wanBytes: number; wanBodyBytes: number; requests: Proxy['received']; originBody: number }> {
  const before = {
    written: reverse.bytesWritten,
    body: branch.observations.wanBodyBytes,
    received: reverse.received.length,
    sent: origin.requests.reduce((sum, { sent }) => sum + sent, 0),
  };
  const result = await work();
  return {
    result,
    wanBytes: reverse.bytesWritten - before.written,
    wanBodyBytes: branch.observations.wanBodyBytes - before.body,
    requests: reverse.received.slice(before.received),
    originBody: origin.requests.reduce((sum, { sent }) => sum + sent, 0) - before.sent,
  };
}

// --- The whole job -------------------------------------------------------------------------------------------------------------------

for (const gateway of [false, true]) {
  const mode = gateway ? 'gateway' : 'forward proxy';
  await t.test(`${mode}: once over the WAN, then from blocks, whole and in ranges`, async (test) => {
    const all = await chain(
      test,
      {
        '/f': { body: FILE, etag: '"f"', lastModified: DATE, headers: { 'cache-control': 'max-age=60', 'x-own': 'y' } },
      },
      { gateway },
    );
    const { get, warm, origin, branch } = all;
    const cold = await warm('/f');
    isWhole(test, cold, FILE, 'cold');
    isClean(test, cold);
    test.equal(status(cold), 'peerdist; fwd=uri-miss; stored');
    test.same(origin.bodies('/f'), [`200+${SIZE}`]);

    const { result: again, wanBytes, requests } = await during(all, () => get('/f'));
    isWhole(test, again, FILE, 'warm');
    isClean(test, again);
    test.equal(status(again), 'peerdist; hit');
    test.same([wanBytes, requests], [0, []], 'nothing went over the WAN');
    test.match(again.headers, {
      etag: '"f"',
      'last-modified': DATE,
      'cache-control': 'max-age=60',
      'x-own': 'y',
      'accept-ranges': 'bytes',
      'content-type': 'application/octet-stream',
      via: /^1\.1 /,
    });
    test.match(again.headers['age'], /^\d+$/);

    for (const [range, first, last] of [
      ['bytes=0-0', 0, 0],
      ['bytes=10-19', 10, 19],
      ['bytes=65530-65541', 65_530, 65_541],
      ['bytes=1000-299999', 1_000, 299_999],
      ['bytes=300000-', 300_000, 300_000],
      ['bytes=200000-', 200_000, 300_000],
      ['bytes=0-', 0, 300_000],
      ['bytes=299990-999999999', 299_990, 300_000],
      ['bytes=-1', 300_000, 300_000],
      ['bytes=-70000', 230_001, 300_000],
      ['bytes=-999999999', 0, 300_000],
      ['BYTES=5-6', 5, 6],
      ['bytes= 5-6 , ', 5, 6],
      ['bytes=999999-1000000, 7-8', 7, 8],
    ] as const) {
      const answer = await get('/f', { Range: range });
      test.same(
        [answer.status, answer.headers['content-range'], answer.headers['content-length'], answer.complete],
        [206, `bytes ${first}-${last}/${SIZE}`, String(last - first + 1), true],
        range,
      );
      test.ok(same(answer.body, FILE.subarray(first, last + 1)), `${range}: bytes`);
      isClean(test, answer);
      test.equal(answer.headers['etag'], '"f"');
    }
    test.equal(branch.observations.bytes('wan', { kind: 'missing_data' }), 0);
    test.same(origin.bodies('/f'), [`200+${SIZE}`], 'still one body');
    noFailures(test, all);
  });
}

await t.test('several ranges, and ranges that are none', async (test) => {
  const all = await chain(test, {
    '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60', 'content-type': 'text/plain' } },
  });
  const { get, warm, origin } = all;
  await warm('/f');
  for (const [range, expected] of [
    ['bytes=0-9,100000-100009', ['0-9', '100000-100009']],
    ['bytes=100000-100009, 0-9', ['100000-100009', '0-9']],
    ['bytes=-10,0-0,5-6', ['299991-300000', '0-0', '5-6']],
    ['bytes=0-0,2-2,4-4,131071-131073,300000-400000', ['0-0', '2-2', '4-4', '131071-131073', '300000-300000']],
  ] as const) {
    const answer = await get('/f', { Range: range });
    test.same([answer.status, answer.headers['content-range'], answer.complete], [206, undefined, true], range);
    test.equal(answer.headers['content-length'], String(answer.body.byteLength));
    isClean(test, answer);
    const found = parts(answer);
    test.same(
      found.map(({ headers }) => [headers['content-type'], headers['content-range']]),
      expected.map((part) => ['text/plain', `bytes ${part}/${SIZE}`]),
    );
    for (const [index, part] of found.entries()) {
      const [first = 0, last = 0] = (expected[index] ?? '').split('-').map(Number);
      test.ok(same(part.body, FILE.subarray(first, last + 1)), `part ${expected[index]}`);
    }
  }
  await test.test('overlapping ones never make more bytes than the content has', async (sub) => {
    const answer = await get('/f', { Range: `bytes=${Array.from({ length: 50 }, () => '0-').join(',')}` });
    sub.ok([200, 206].includes(answer.status));
    sub.ok(answer.body.byteLength < SIZE + 10_000, `${answer.body.byteLength} bytes`);
    const overlapping = await get('/f', { Range: 'bytes=0-99,50-149,1000-1009' });
    sub.equal(overlapping.status, 206);
    for (const { headers, body } of parts(overlapping)) {
      const [first = 0, last = 0] = (/(\d+)-(\d+)/.exec(headers['content-range'] ?? '') ?? []).slice(1).map(Number);
      sub.ok(same(body, FILE.subarray(first, last + 1)));
    }
  });
  const list = (count: number): string =>
    `bytes=${Array.from({ length: count }, (_, index) => `${index * 2_000}-${index * 2_000}`).join(',')}`;
  test.equal(parts(await get('/f', { Range: list(100) })).length, 100, '100 ranges are taken');
  isWhole(test, await get('/f', { Range: list(101) }), FILE, 'more are ignored');
  for (const range of [
    'bytes=9-8',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'bytes=1-2-3',
    'bytes=1-2,x',
    'bytes 1-2',
    'lines=1-2',
    'bytes=0x1-2',
    'bytes=1--2',
  ]) {
    isWhole(test, await get('/f', { Range: range }), FILE, `${range} is ignored`);
  }
  for (const range of [`bytes=${SIZE}-`, `bytes=${SIZE}-${SIZE + 5}`, 'bytes=-0', `bytes=${SIZE}-,999999999-`]) {
    const answer = await get('/f', { Range: range });
    test.same([answer.status, answer.headers['content-range'], answer.complete], [416, `bytes */${SIZE}`, true], range);
  }
  test.same(origin.bodies('/f'), [`200+${SIZE}`], 'all of it out of blocks');
  noFailures(test, all);
});

await t.test('If-Range', async (test) => {
  const all = await chain(test, {
    '/f': { body: FILE, etag: '"f"', lastModified: DATE, headers: { 'cache-control': 'max-age=60' } },
    '/dated': { body: FILE, lastModified: DATE, headers: { 'cache-control': 'max-age=60' } },
  });
  const { get, warm } = all;
  await warm('/f');
  await warm('/dated');
  for (const [path, value, code] of [
    ['/f', '"f"', 206],
    ['/f', '"other"', 200],
    ['/f', 'W/"f"', 200],
    ['/f', DATE, 206],
    ['/f', LATER, 200],
    ['/f', 'nonsense', 200],
    ['/dated', DATE, 206],
    ['/dated', LATER, 200],
    ['/dated', '"f"', 200],
  ] as const) {
    const { result, wanBodyBytes } = await during(all, () => get(path, { Range: 'bytes=5-9', 'If-Range': value }));
    test.same([result.status, wanBodyBytes], [code, 0], `${path} If-Range: ${value}`);
    test.ok(same(result.body, code === 206 ? FILE.subarray(5, 10) : FILE));
  }
  isWhole(test, await get('/f', { 'If-Range': '"other"' }), FILE, 'without Range it means nothing');
});

await t.test('HEAD', async (test) => {
  const all = await chain(test, {
    '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } },
  });
  const { get, warm } = all;
  const head = async (what: string, fields: Fields = {}): Promise<Answer> => {
    const answer = await get('/f', fields, { method: 'HEAD' });
    test.same(
      [answer.status, answer.headers['content-length'], answer.headers['content-range'], answer.body.byteLength],
      [200, String(SIZE), undefined, 0],
      what,
    );
    isClean(test, answer);
    return answer;
  };
  await head('cold');
  await head('cold, Range is ignored', { Range: 'bytes=0-9' });
  await warm('/f');
  const { requests } = await during(all, async () => {
    test.equal(status(await head('warm')), 'peerdist; hit');
    await head('warm, Range is ignored', { Range: 'bytes=0-9' });
    await head('warm, a range outside is ignored', { Range: 'bytes=999999-' });
    const same304 = await get('/f', { 'If-None-Match': '"f"' }, { method: 'HEAD' });
    test.same([same304.status, same304.body.byteLength], [304, 0]);
  });
  test.same(requests, []);
});

await t.test('conditions of clients are answered from the cache while it is fresh', async (test) => {
  const all = await chain(test, {
    '/f': { body: FILE, etag: '"f"', lastModified: DATE, headers: { 'cache-control': 'max-age=60' } },
  });
  const { get, warm, clock } = all;
  await warm('/f');
  const cases: [Fields, number][] = [
    [{ 'If-None-Match': '"f"' }, 304],
    [{ 'If-None-Match': 'W/"f"' }, 304],
    [{ 'If-None-Match': '"a", "f", "b"' }, 304],
    [{ 'If-None-Match': '*' }, 304],
    [{ 'If-None-Match': '"other"' }, 200],
    [{ 'If-Modified-Since': DATE }, 304],
    [{ 'If-Modified-Since': LATER }, 304],
    [{ 'If-Modified-Since': 'Tue, 03 Feb 2026 09:59:59 GMT' }, 200],
    [{ 'If-Modified-Since': 'no date' }, 200],
    [{ 'If-None-Match': '"other"', 'If-Modified-Since': DATE }, 200],
    [{ 'If-None-Match': '"f"', Range: 'bytes=0-9' }, 304],
  ];
  for (const [fields, code] of cases) {
    const { result, requests } = await during(all, () => get('/f', fields));
    test.same([result.status, requests.length], [code, 0], JSON.stringify(fields));
    if (code === 304) {
      test.match(result.headers, { etag: '"f"', 'cache-control': 'max-age=60' });
      test.equal(result.body.byteLength, 0);
      isClean(test, result);
    } else test.ok(same(result.body, FILE));
  }
  test.equal((await get('/f', { 'If-None-Match': '"other"', Range: 'bytes=0-9' })).status, 206);

  await test.test('If-Match and If-Unmodified-Since are for the origin', async (sub) => {
    for (const [fields, code] of [
      [{ 'If-Match': '"f"' }, 200],
      [{ 'If-Match': '"other"' }, 412],
    ] as [Fields, number][]) {
      const { result, requests } = await during(all, () => get('/f', fields));
      sub.same([result.status, requests.length], [code, 1], JSON.stringify(fields));
      if (code === 200) sub.ok(same(result.body, FILE));
    }
  });

  await test.test('and by the origin when it is stale', async (sub) => {
    clock.advance(61_000);
    const { result, requests } = await during(all, () => get('/f', { 'If-None-Match': '"f"' }));
    sub.same([result.status, result.body.byteLength, requests.length], [304, 0, 1]);
    isClean(sub, result);
    const { result: fresh, requests: none } = await during(all, () => get('/f'));
    isWhole(sub, fresh, FILE, 'the 304 made it fresh again');
    sub.same(none, []);
  });
  noFailures(test, all);
});

await t.test('Age and Cache-Status', async (test) => {
  const { get, warm, clock, origin } = await chain(test, {
    '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } },
    '/aged': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60', age: '50' } },
    '/nested': { body: FILE, headers: { 'cache-status': 'inner; hit' } },
  });
  await warm('/f');
  clock.advance(30_000);
  const hit = await get('/f');
  test.ok(['30', '31', '32'].includes(hit.headers['age'] ?? ''), `Age: ${hit.headers['age']} after 30 s`);
  clock.advance(40_000);
  const stale = await get('/f');
  test.equal(status(stale), 'peerdist; fwd=stale; fwd-status=304');
  test.ok(Number(stale.headers['age'] ?? 0) <= 2, `Age: ${stale.headers['age']} after revalidation`);
  await warm('/aged');
  test.equal(status(await get('/aged')), 'peerdist; hit');
  clock.advance(12_000);
  test.match(status(await get('/aged')), /^peerdist; fwd=/, 'Age of the origin counts');
  test.equal(status(await get('/nested')), 'inner; hit, peerdist; fwd=uri-miss', 'behind those of other caches');
  test.equal(status(await get('/f', {}, { method: 'POST' })), 'peerdist; fwd=method');
  test.equal(status(await get('/f', V2_REQUEST)), 'peerdist; fwd=bypass');
  test.ok(origin.errors.length === 0);
});

// --- Clients that speak it themselves ------------------------------------------------------------------------------------------------

await t.test('clients that speak peerdist get it through the branch', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } } });
  const { get, warm, reverse, branch } = all;
  const first = await get('/f', V2_REQUEST);
  isWhole(test, first, FILE, 'plain at first');
  test.equal(first.headers['x-p2p-peerdistex'], 'MakeHashRequest=true');
  await reverse.published();
  const hashRequest = {
    'X-P2P-PeerDist': 'Version=1.1',
    'X-P2P-PeerDistEx': `${V2_REQUEST['X-P2P-PeerDistEx']}, HashRequest=true`,
  };
  for (const state of ['cold', 'warm']) {
    for (const [fields, version, start] of [
      [V1_REQUEST, '1.0', '0001'],
      [V2_REQUEST, '1.1', '0002'],
      [hashRequest, '1.1', '0002'],
    ] as const) {
      const coded = await get('/f', fields);
      const direct = await ask(reverse.port, '/f', { fields });
      test.equal(coded.headers['content-encoding'], 'peerdist', state);
      test.equal(coded.headers['x-p2p-peerdist'], `Version=${version}, ContentLength=${SIZE}`);
      test.match(coded.headers['vary'], /X-P2P-PeerDist/);
      test.equal(coded.body.toString('hex', 0, 2), start);
      test.ok(same(coded.body, direct.body), 'the very bytes the content server sends');
    }
    const range = await get('/f', { ...V1_REQUEST, Range: 'bytes=5-9' });
    test.same(
      [range.status, range.headers['content-range'], range.headers['content-encoding']],
      [206, `bytes 5-9/${SIZE}`, 'peerdist'],
    );
    const missing = await get('/f', { 'X-P2P-PeerDist': 'Version=1.1, MissingDataRequest=true', Range: 'bytes=5-9' });
    test.same([missing.status, missing.headers['content-encoding']], [206, undefined]);
    test.ok(same(missing.body, FILE.subarray(5, 10)));
    isWhole(test, await (state === 'cold' ? warm('/f') : get('/f')), FILE, 'a plain client next to them');
  }
  test.ok(branch.observations.bytes('wan', { kind: 'content_information' }) > 0);
  noFailures(test, all);
});

// --- What goes over the WAN ----------------------------------------------------------------------------------------------------------

await t.test(
  'clients that speak peerdist, and an origin that does not: its plain content is theirs too',
  async (test) => {
    const origin = await Origin.start(test, {
      '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } },
    });
    const branch = await startBranch(test);
    const url = `${origin.url}/f`;
    isWhole(test, await ask(branch.port, url, { fields: V2_REQUEST }), FILE, 'cold');
    await branch.remembered();
    const again = await ask(branch.port, url, { fields: V2_REQUEST });
    isWhole(test, again, FILE, 'warm');
    test.equal(status(again), 'peerdist; hit');
    isWhole(test, await ask(branch.port, url), FILE, 'for others too');
    test.equal(origin.bodies('/f').length, 1);
  },
);

await t.test('a warm reverse and a cold branch: only what is asked for, and only once', async (test) => {
  for (const maxContentInformationVersion of [1, 2] as const) {
    const all = await chain(
      test,
      { '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } } },
      { branch: { maxContentInformationVersion } },
    );
    const { get, reverse, branch } = all;
    await ask(reverse.port, '/f', { fields: V1_REQUEST });
    await reverse.published();
    const { result, originBody, wanBodyBytes } = await during(all, () => get('/f', { Range: 'bytes=150000-150009' }));
    test.same([result.status, result.headers['content-range']], [206, `bytes 150000-150009/${SIZE}`]);
    test.ok(same(result.body, FILE.subarray(150_000, 150_010)));
    isClean(test, result);
    test.ok(originBody > 0 && originBody <= UNIT, `${originBody} bytes from the origin for a range of 10`);
    test.equal(wanBodyBytes, originBody);
    const rest = await during(all, () => get('/f'));
    isWhole(test, rest.result, FILE, 'then the whole');
    test.equal(rest.originBody, SIZE - originBody, 'without the block that was here');
    const third = await during(all, () => get('/f'));
    isWhole(test, third.result, FILE, 'then out of blocks');
    test.same([third.wanBytes, third.originBody], [0, 0]);
    const information = reverse.received.filter(({ headers }) => headers['x-p2p-peerdistex']?.includes('Max') === true);
    test.ok(
      information.every(({ headers }) =>
        headers['x-p2p-peerdistex']?.includes(`MaxContentInformation=${maxContentInformationVersion}.0`),
      ),
      'the version it was told to ask for',
    );
    test.equal(branch.observations.count('verification', { result: 'mismatch' }), 0);
    const delivered = branch.observations.bytes('delivered');
    test.equal(delivered, 10 + 2 * SIZE, 'every byte to a client is counted once');
    noFailures(test, all);
  }
});

await t.test('a fresh content costs nothing, a stale one a 304', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } } });
  const { get, warm, clock, origin, reverse } = all;
  await warm('/f');
  const fresh = await during(all, () => get('/f'));
  test.same([fresh.wanBytes, fresh.requests.length, fresh.wanBodyBytes], [0, 0, 0]);
  clock.advance(61_000);
  const stale = await during(all, () => get('/f'));
  isWhole(test, stale.result, FILE, 'stale');
  test.equal(status(stale.result), 'peerdist; fwd=stale; fwd-status=304');
  test.same(
    stale.requests.map(({ method, headers }) => [method, headers['if-none-match']]),
    [['GET', '"f"']],
    'one conditional request',
  );
  test.equal(stale.wanBodyBytes, 0);
  test.ok(stale.wanBytes < 600, `${stale.wanBytes} bytes over the WAN`);
  test.same(
    origin.asked('/f').map((request) => request.status),
    [200, 304, 304],
    'the download, the hash request, the revalidation',
  );
  const again = await during(all, () => get('/f'));
  test.same([again.wanBytes, status(again.result)], [0, 'peerdist; hit'], 'and is fresh again');
  clock.advance(61_000);
  const range = await during(all, () => get('/f', { Range: 'bytes=-5' }));
  test.same([range.result.status, range.wanBodyBytes, range.requests.length], [206, 0, 1], 'a stale range');
  test.ok(same(range.result.body, FILE.subarray(SIZE - 5)));
  test.ok(reverse.received.length > 0);
  noFailures(test, all);
});

await t.test('stale and changed, gone, or in trouble', async (test) => {
  const changed = seededBytes(8, 250_000);
  const headers = { 'cache-control': 'max-age=60' };
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers } });
  const { get, warm, clock, origin } = all;
  await warm('/f');
  clock.advance(61_000);
  origin.resources.set('/f', { body: changed, etag: '"g"', headers });
  const answer = await warm('/f');
  isWhole(test, answer, changed, 'changed');
  isClean(test, answer);
  test.equal(answer.headers['etag'], '"g"');
  const next = await during(all, () => get('/f'));
  isWhole(test, next.result, changed, 'and cached');
  test.equal(next.wanBytes, 0);
  clock.advance(61_000);
  const range = await get('/f', { Range: 'bytes=0-9', 'If-Range': '"f"' });
  isWhole(test, range, changed, 'If-Range of the old one');
  for (const code of [404, 410, 403, 500, 503]) {
    clock.advance(61_000);
    origin.resources.set('/f', (_request, response) => void response.writeHead(code).end(`no ${code}`));
    const refused = await get('/f');
    test.same([refused.status, refused.body.toString()], [code, `no ${code}`], `${code} is passed on`);
  }
  origin.resources.set('/f', { body: changed, etag: '"g"', headers });
  isWhole(test, await get('/f'), changed, 'and back');
  noFailures(test, all);
});

await t.test('a store that is too small forgets, and every byte is right all the same', async (test) => {
  const file = seededBytes(9, 3_000_000);
  const all = await chain(
    test,
    { '/f': { body: file, etag: '"f"', headers: { 'cache-control': 'max-age=60' } } },
    { branch: { cacheBytes: 1_000_000 } },
  );
  const { get, warm, branch } = all;
  isWhole(test, await warm('/f'), file, 'cold');
  for (let round = 0; round < 3; round += 1) isWhole(test, await get('/f'), file, 'again');
  const range = await get('/f', { Range: 'bytes=1234567-1834566' });
  test.ok(same(range.body, file.subarray(1_234_567, 1_834_567)));
  test.ok(branch.blockStore.bytes <= 1_000_000);
  test.ok(branch.observations.count('eviction', { store: 'block' }) > 0);
  noFailures(test, all);
});

await t.test('a body that cannot be held passes, and is described the next time', async (test) => {
  const all = await chain(
    test,
    { '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } } },
    { branch: { maxPendingBytes: SIZE - 1 } },
  );
  const { get, warm, reverse } = all;
  const first = await get('/f');
  isWhole(test, first, FILE, 'first');
  isClean(test, first);
  await reverse.published();
  isWhole(test, await warm('/f'), FILE, 'second, over missing data');
  const third = await during(all, () => get('/f'));
  isWhole(test, third.result, FILE, 'third');
  test.equal(third.wanBytes, 0);
});

// --- Sharing -------------------------------------------------------------------------------------------------------------------------

const CACHEABLE = { 'cache-control': 'max-age=60' };

await t.test('many cold clients at once cause one body', async (test) => {
  const head = new Gate();
  const rest = new Gate();
  const all = await chain(test, {
    '/f': {
      body: FILE,
      etag: '"f"',
      headers: CACHEABLE,
      beforeHead: head.passed,
      firstBytes: 100_000,
      afterFirst: rest.passed,
    },
  });
  const { get, open, branch, origin } = all;
  const early = Array.from({ length: 10 }, () => get('/f'));
  const ranges = Array.from({ length: 10 }, (_, index) =>
    get('/f', { Range: `bytes=${index * 30_000}-${index * 30_000 + 29_999}` }),
  );
  await until(() => branch.received.length === 20 && origin.requests.length > 0, 'all have asked');
  head.open();
  const reader = await open('/f');
  test.teardown(() => reader.close());
  const body = reader.body(await reader.head());
  test.ok(same(await readAtLeast(body, 100_000), FILE.subarray(0, 100_000)), 'bytes flow to a latecomer at once');
  const late = Array.from({ length: 10 }, () => get('/f'));
  await until(() => branch.received.length === 31, 'the late ones have asked');
  rest.open();
  for (const answer of await Promise.all([...early, ...late])) {
    isWhole(test, answer, FILE, `whole, ${status(answer)}`);
    isClean(test, answer);
  }
  for (const [index, answer] of (await Promise.all(ranges)).entries()) {
    const expected = FILE.subarray(index * 30_000, index * 30_000 + 30_000);
    if (answer.status === 200) isWhole(test, answer, FILE, 'a range that was answered whole');
    else test.same([answer.status, same(answer.body, expected)], [206, true], `range, ${status(answer)}`);
  }
  await branch.remembered();
  test.same(origin.bodies('/f'), [`200+${SIZE}`], 'one body');
  test.ok(branch.observations.count('collapsed') >= 29, `${branch.observations.count('collapsed')} collapsed`);
  noFailures(test, all);
});

await t.test('many cold clients of a content the reverse knows cause one body', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE } });
  const { get, reverse, origin } = all;
  await ask(reverse.port, '/f', { fields: V1_REQUEST });
  await reverse.published();
  const before = origin.bodyBytes('/f');
  const answers = await Promise.all(
    Array.from({ length: 24 }, (_, index) =>
      index % 2 === 0 ? get('/f') : get('/f', { Range: `bytes=${index * 10_000}-${index * 10_000 + 19_999}` }),
    ),
  );
  for (const [index, answer] of answers.entries()) {
    if (index % 2 === 0) isWhole(test, answer, FILE, 'whole');
    else {
      test.equal(answer.status, 206);
      test.ok(same(answer.body, FILE.subarray(index * 10_000, index * 10_000 + 20_000)), 'range');
    }
  }
  test.equal(origin.bodyBytes('/f') - before, SIZE, 'every byte came over the WAN once');
  noFailures(test, all);
});

await t.test('a client that leaves does not hurt the others', async (test) => {
  for (const when of ['before the head', 'in the body']) {
    const head = new Gate();
    const rest = new Gate();
    const all = await chain(test, {
      '/f': {
        body: FILE,
        etag: '"f"',
        headers: CACHEABLE,
        beforeHead: head.passed,
        firstBytes: 100_000,
        afterFirst: rest.passed,
      },
    });
    const { get, open, branch, origin } = all;
    const leaver = await open('/f');
    await until(() => origin.requests.length === 1, 'the first has asked');
    const others = Array.from({ length: 8 }, () => get('/f'));
    await until(() => branch.received.length === 9, 'the others have asked');
    if (when === 'before the head') {
      leaver.leave();
      await until(() => origin.requests.length > 1 || origin.requests[0]?.closed === true, 'that shows');
      head.open();
    } else {
      head.open();
      await readAtLeast(leaver.body(await leaver.head()), 50_000);
      leaver.leave();
    }
    rest.open();
    for (const answer of await Promise.all(others)) isWhole(test, answer, FILE, when);
    await branch.remembered();
    test.equal(origin.bodies('/f').length, 1, `${when}: the others share one body`);
    isWhole(test, await get('/f'), FILE, 'and it is in the cache');
    noFailures(test, all);
  }
});

await t.test('clients that waited for an answer nobody can share, share the next', async (test) => {
  for (const [what, fields, code] of [
    ['a range', { Range: 'bytes=0-9' }, 206],
    ['a condition', { 'If-None-Match': '"f"' }, 304],
  ] as [string, Fields, number][]) {
    const head = new Gate();
    const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE, beforeHead: head.passed } });
    const { get, branch, origin } = all;
    const leader = get('/f', fields);
    await until(() => origin.requests.length === 1, 'the first has asked');
    const others = Array.from({ length: 8 }, () => get('/f'));
    await until(() => branch.received.length === 9, 'the others have asked');
    head.open();
    test.equal((await leader).status, code);
    for (const answer of await Promise.all(others)) isWhole(test, answer, FILE, `behind ${what}`);
    const bytes = origin.bodies('/f').map((body) => Number(body.split('+')[1]));
    test.equal(
      bytes.reduce((sum, each) => sum + each, 0),
      SIZE,
      `behind ${what}: one body, in as many parts as it was asked for`,
    );
    noFailures(test, all);
  }
});

await t.test('many clients of a content that is stale and has changed cause one body', async (test) => {
  const head = new Gate();
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE } });
  const { get, warm, clock, origin, branch } = all;
  await warm('/f');
  clock.advance(61_000);
  const changed = seededBytes(16, SIZE);
  origin.resources.set('/f', { body: changed, etag: '"g"', headers: CACHEABLE, beforeHead: head.passed });
  const { result, originBody } = await during(all, async () => {
    const answers = Array.from({ length: 10 }, () => get('/f'));
    await until(() => branch.received.length === 11 && origin.requests.at(-1)?.status === 0, 'all have asked');
    head.open();
    return Promise.all(answers);
  });
  for (const answer of result) isWhole(test, answer, changed, 'the new one');
  test.equal(originBody, SIZE, 'one body');
  noFailures(test, all);
});

await t.test('many clients at once share one word of the origin on a content without a lifetime', async (test) => {
  const head = new Gate();
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"' } });
  const { get, warm, clock, origin, branch } = all;
  await warm('/f');
  clock.advance(1_000);
  origin.resources.set('/f', { body: FILE, etag: '"f"', beforeHead: head.passed });
  const { result, requests, originBody } = await during(all, async () => {
    const answers = Array.from({ length: 10 }, () => get('/f'));
    await until(() => branch.received.length === 11 && origin.requests.at(-1)?.status === 0, 'all have asked');
    head.open();
    return Promise.all(answers);
  });
  for (const answer of result) isWhole(test, answer, FILE, 'everybody');
  test.same([requests.length, originBody], [1, 0], 'one question');
  test.equal((await during(all, () => get('/f'))).requests.length, 1, 'who comes later asks again');
  noFailures(test, all);
});

await t.test('a client that has another state than the branch costs no body', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE } });
  const { get, warm, clock, origin } = all;
  await warm('/f');
  clock.advance(61_000);
  const { result, originBody } = await during(all, () => get('/f', { 'If-None-Match': '"old"' }));
  isWhole(test, result, FILE, 'the state of the branch');
  test.equal(originBody, 0);
  test.equal(origin.requests.at(-1)?.headers['if-none-match'], '"old", "f"');
  test.equal((await during(all, () => get('/f'))).requests.length, 0, 'which is fresh again');

  clock.advance(61_000);
  origin.resources.set('/f', { body: seededBytes(18, SIZE), etag: '"old"', headers: CACHEABLE });
  const back = await get('/f', { 'If-None-Match': '"old"' });
  test.same([back.status, back.headers['etag']], [304, '"old"'], 'the state of the client, which is there again');

  origin.resources.set('/f', async (request, response, record) => {
    if (request.headers['if-none-match'] === '"old", "f"') response.writeHead(304).end();
    else await sendFile({ body: FILE, etag: '"f"', headers: CACHEABLE }, request, response, record);
  });
  clock.advance(61_000);
  isWhole(test, await get('/f', { 'If-None-Match': '"old"' }), FILE, 'a 304 that does not say of what is asked about');
  noFailures(test, all);
});

await t.test('aria2: a plain GET that is aborted, then 16 ranges, is one body', async (test) => {
  const rest = new Gate();
  const file = seededBytes(10, 4_000_000);
  const all = await chain(test, {
    '/f': { body: file, etag: '"f"', headers: CACHEABLE, firstBytes: 200_000, afterFirst: rest.passed },
  });
  const { get, open, branch, origin, clock } = all;
  const first = await open('/f', { 'User-Agent': 'aria2/1.36.0', 'Want-Digest': 'SHA-256' });
  const head = await first.head();
  test.equal(head.headers['content-length'], '4000000');
  await readAtLeast(first.body(head), 16_384);
  first.leave();
  await until(() => clock.pending > 0, 'the branch has seen it leave');
  const ranges = Array.from({ length: 16 }, (_, index) =>
    get('/f', { 'User-Agent': 'aria2/1.36.0', Range: `bytes=${index * 250_000}-${index * 250_000 + 249_999}` }),
  );
  await until(() => branch.received.length === 17, 'the ranges are asked for');
  rest.open();
  for (const [index, answer] of (await Promise.all(ranges)).entries()) {
    test.same(
      [answer.status, same(answer.body, file.subarray(index * 250_000, index * 250_000 + 250_000))],
      [206, true],
      `range ${index}`,
    );
  }
  const steal = await get('/f', { Range: 'bytes=2097152-3145727' });
  test.ok(same(steal.body, file.subarray(2_097_152, 3_145_728)));
  await branch.remembered();
  test.same(origin.bodies('/f'), ['200+4000000']);
  noFailures(test, all);
});

await t.test('nobody left: the fetch goes on for a while and then ends', async (test) => {
  const rest = new Gate();
  const all = await chain(
    test,
    { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE, firstBytes: 100_000, afterFirst: rest.passed } },
    { branch: { lingerMs: 4_000 } },
  );
  const { open, origin, clock, branch, get } = all;
  const client = await open('/f');
  await readAtLeast(client.body(await client.head()), 50_000);
  client.leave();
  await until(() => clock.pending === 1, 'it lingers');
  clock.advance(3_999);
  test.notOk(origin.requests[0]?.closed);
  clock.advance(1);
  await until(() => origin.requests[0]?.closed === true, 'the origin connection is closed');
  test.equal(branch.observations.count('stored'), 0, 'nothing is kept of a body that was not whole');
  rest.open();
  isWhole(test, await get('/f'), FILE, 'the next client gets it from the start');
  noFailures(test, all);
});

await t.test('a client that does not read holds nobody back', async (test) => {
  const file = seededBytes(12, 12_000_000);
  const all = await chain(test, { '/f': { body: file, etag: '"f"', headers: CACHEABLE } });
  const { open, get, branch, origin } = all;
  const sleeper = await open('/f');
  test.teardown(() => sleeper.close());
  const head = await sleeper.head();
  isWhole(test, await get('/f'), file, 'another client');
  await branch.remembered();
  const body = sleeper.body(head);
  test.ok(same(await readAtLeast(body, file.byteLength), file), 'and it gets every byte when it wakes up');
  const sleepyHit = await open('/f');
  test.teardown(() => sleepyHit.close());
  const hitHead = await sleepyHit.head();
  isWhole(test, await get('/f'), file, 'warm, 12 MB');
  const range = await get('/f', { Range: 'bytes=1000000-10999999' });
  test.ok(same(range.body, file.subarray(1_000_000, 11_000_000)), 'a warm range of 10 MB');
  test.ok(same(await readAtLeast(sleepyHit.body(hitHead), file.byteLength), file), 'a warm client that slept');
  test.same(origin.bodies('/f'), ['200+12000000']);
});

await t.test('verification holds a client back by no more than one unit', async (test) => {
  for (const version of [1, 2] as const) {
    const rest = new Gate();
    let partial = false;
    const all = await chain(
      test,
      {
        '/f': (request, response, record) => {
          partial ||= request.headers.range !== undefined;
          const file = { body: FILE, etag: '"f"', headers: CACHEABLE };
          const slowly = partial ? { firstBytes: 200_000, afterFirst: rest.passed } : {};
          return sendFile({ ...file, ...slowly }, request, response, record);
        },
      },
      { branch: { maxContentInformationVersion: version } },
    );
    const { reverse, open } = all;
    await ask(reverse.port, '/f', { fields: V1_REQUEST });
    await reverse.published();
    const client = await open('/f');
    test.teardown(() => client.close());
    const body = client.body(await client.head());
    const least = 200_000 - (version === 1 ? 65_536 : UNIT);
    const early = await readAtLeast(body, least);
    test.ok(same(early, FILE.subarray(0, early.byteLength)), `version ${version}: ${early.byteLength} of 200000 bytes`);
    rest.open();
    const late = await readAtLeast(body, SIZE - early.byteLength);
    test.ok(same(Buffer.concat([early, late]), FILE));
    noFailures(test, all);
  }
});

await t.test('a request never joins an answer that is not for it', async (test) => {
  const cases: { what: string; headers: Record<string, string>; first: Fields; second: Fields; joins: boolean }[] = [
    { what: 'public', headers: CACHEABLE, first: {}, second: {}, joins: true },
    { what: 'private', headers: { 'cache-control': 'private, max-age=60' }, first: {}, second: {}, joins: false },
    { what: 'no-store', headers: { 'cache-control': 'no-store' }, first: {}, second: {}, joins: false },
    { what: 'no-cache', headers: { 'cache-control': 'no-cache' }, first: {}, second: {}, joins: false },
    { what: 'stale at once', headers: { 'cache-control': 'max-age=0' }, first: {}, second: {}, joins: false },
    { what: 'authorized', headers: CACHEABLE, first: { Authorization: 'Basic QQ==' }, second: {}, joins: false },
    {
      what: 'two users',
      headers: CACHEABLE,
      first: { Authorization: 'Basic QQ==' },
      second: { Authorization: 'Basic Qg==' },
      joins: false,
    },
    { what: 'authorizes', headers: CACHEABLE, first: {}, second: { Authorization: 'Basic Qg==' }, joins: false },
    {
      what: 'authorized, public',
      headers: { 'cache-control': 'public, max-age=60' },
      first: { Authorization: 'Basic QQ==' },
      second: { Authorization: 'Basic Qg==' },
      joins: true,
    },
    {
      what: 'same variant',
      headers: { ...CACHEABLE, vary: 'X-Kind' },
      first: { 'X-Kind': 'a' },
      second: { 'X-Kind': 'a' },
      joins: true,
    },
    {
      what: 'another variant',
      headers: { ...CACHEABLE, vary: 'X-Kind' },
      first: { 'X-Kind': 'a' },
      second: { 'X-Kind': 'b' },
      joins: false,
    },
    { what: 'vary: *', headers: { ...CACHEABLE, vary: '*' }, first: {}, second: {}, joins: false },
    { what: 'cookie', headers: { ...CACHEABLE, 'set-cookie': 'session=1' }, first: {}, second: {}, joins: false },
    { what: 'no-cache', headers: CACHEABLE, first: {}, second: { 'Cache-Control': 'no-cache' }, joins: false },
    { what: 'no-store', headers: CACHEABLE, first: { 'Cache-Control': 'no-store' }, second: {}, joins: false },
  ];
  for (const { what, headers, first, second, joins } of cases) {
    const beforeHead = new Gate();
    const rest = new Gate();
    let visits = 0;
    const all = await chain(test, {
      '/f': async (request, response, record) => {
        visits += 1;
        // Everybody who asks the origin gets a body of his own.
        const file = { body: seededBytes(visits, SIZE), etag: `"${visits}"`, headers };
        await sendFile(
          { ...file, beforeHead: beforeHead.passed, firstBytes: 100_000, afterFirst: rest.passed },
          request,
          response,
          record,
        );
      },
    });
    const { get, branch } = all;
    const one = get('/f', first);
    await until(() => visits === 1, 'the first has asked the origin');
    const waiting = get('/f', second);
    await until(() => branch.received.length === 2, 'the second is there before the head');
    beforeHead.open();
    await until(
      () => (joins ? branch.observations.count('collapsed') === 1 : visits === 2),
      `${what}: ${joins ? 'joins' : 'goes its own way'} before the head`,
    );
    const late = get('/f', second);
    await until(
      () =>
        joins
          ? branch.observations.count('collapsed') === 2
          : visits >= 3 || branch.observations.count('collapsed') === 1,
      `${what}: in the body`,
    );
    rest.open();
    const [answerOne, answerWaiting, answerLate] = await Promise.all([one, waiting, late]);
    isWhole(test, answerOne, seededBytes(1, SIZE), `${what}: the first gets its own`);
    isWhole(test, answerWaiting, seededBytes(joins ? 1 : 2, SIZE), `${what}: ${joins ? 'shared' : 'apart'}`);
    const lateIsFirst = same(answerLate.body, seededBytes(1, SIZE));
    test.equal(lateIsFirst, joins, `${what}: the late one`);
    test.ok(answerLate.complete);
    noFailures(test, all);
  }
});

// --- Freshness -----------------------------------------------------------------------------------------------------------------------

await t.test('what is kept, and what a second request costs', async (test) => {
  /** `hit` asks nobody; `304` asks once; `again` asks for content information, blocks are here; `body` downloads it again. */
  const cases: [
    headers: Record<string, string>,
    first: Fields,
    second: Fields,
    cost: 'hit' | '304' | 'again' | 'body',
  ][] = [
    [{ 'cache-control': 'max-age=60' }, {}, {}, 'hit'],
    [{ 'cache-control': 'public, max-age=60' }, {}, {}, 'hit'],
    [{ 'cache-control': 's-maxage=60, max-age=0' }, {}, {}, 'hit'],
    [{ 'cache-control': 'max-age=60, s-maxage=0' }, {}, {}, '304'],
    [{ 'cache-control': 'max-age=60, must-revalidate' }, {}, {}, 'hit'],
    [{ 'cache-control': 'max-age=0' }, {}, {}, '304'],
    [{ 'cache-control': 'no-cache' }, {}, {}, '304'],
    [{ 'cache-control': 'no-cache, max-age=60' }, {}, {}, '304'],
    [{ expires: new Date(Date.now() + 3_600_000).toUTCString() }, {}, {}, 'hit'],
    [{ expires: '0' }, {}, {}, '304'],
    [{ expires: new Date(Date.now() - 3_600_000).toUTCString() }, {}, {}, '304'],
    [{ 'cache-control': 'private' }, {}, {}, 'again'],
    [{ 'cache-control': 'private, max-age=60' }, {}, {}, 'again'],
    [{ 'cache-control': 'no-store' }, {}, {}, 'body'],
    [{ 'cache-control': 'max-age=60, no-store' }, {}, {}, 'body'],
    // Authorization (RFC 9111 3.5)
    [{ 'cache-control': 'max-age=60' }, { Authorization: 'Basic QQ==' }, { Authorization: 'Basic QQ==' }, 'again'],
    [{ 'cache-control': 'max-age=60' }, { Authorization: 'Basic QQ==' }, {}, 'again'],
    [
      { 'cache-control': 'public, max-age=60' },
      { Authorization: 'Basic QQ==' },
      { Authorization: 'Basic Qg==' },
      'hit',
    ],
    [{ 'cache-control': 's-maxage=60' }, { Authorization: 'Basic QQ==' }, {}, 'hit'],
    [{ 'cache-control': 'must-revalidate, max-age=60' }, { Authorization: 'Basic QQ==' }, {}, 'hit'],
    // Request directives (RFC 9111 5.2.1)
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'no-cache' }, '304'],
    [{ 'cache-control': 'max-age=60' }, {}, { Pragma: 'no-cache' }, '304'],
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'max-age=60', Pragma: 'no-cache' }, 'hit'],
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'max-age=0' }, '304'],
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'max-age=30' }, 'hit'],
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'min-fresh=30' }, 'hit'],
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'min-fresh=90' }, '304'],
    [{ 'cache-control': 'max-age=60' }, {}, { 'Cache-Control': 'only-if-cached' }, 'hit'],
    [{ 'cache-control': 'max-age=60' }, { 'Cache-Control': 'no-store' }, {}, 'body'],
    // A cookie is for one user
    [{ 'cache-control': 'max-age=60', 'set-cookie': 'session=1' }, {}, {}, 'again'],
  ];
  for (const [headers, first, second, cost] of cases) {
    const what = `${JSON.stringify(headers)} ${JSON.stringify([first, second])}: ${cost}`;
    const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers } });
    const { get, branch, reverse, clock, origin } = all;
    isWhole(test, await get('/f', first), FILE, what);
    const forbidden = cost === 'body';
    if (!forbidden) {
      await until(() => branch.blockStore.bytes > SIZE, `${what}: the blocks are here`);
      await until(() => reverse.received.length === 2 && origin.requests.every(({ closed }) => closed), 'it is quiet');
    } else await until(() => branch.observations.count('exchange') === 1, 'the exchange is over');
    clock.advance(1_500);
    const { result, wanBodyBytes, requests } = await during(all, () => get('/f', second));
    isWhole(test, result, FILE, `${what}, second`);
    isClean(test, result);
    if (forbidden) test.equal(wanBodyBytes, SIZE, what);
    else {
      test.same(
        [requests.length, requests[0]?.headers['if-none-match'], wanBodyBytes],
        [cost === 'hit' ? 0 : 1, cost === '304' ? '"f"' : undefined, 0],
        what,
      );
    }
    if (headers['cache-control']?.includes('no-store') === true) {
      test.equal(branch.blockStore.bytes, 0, `${what}: not even blocks are kept`);
    }
    if (cost === 'again') {
      const third = await during(all, () => get('/f', second));
      const anonymous = first['Authorization'] !== undefined && second['Authorization'] === undefined;
      test.same([third.requests.length, third.wanBodyBytes], [anonymous ? 0 : 1, 0], `${what}: third`);
    }
    noFailures(test, all);
  }
});

await t.test('no-store keeps no block either where content information is there', async (test) => {
  for (const [first, headers304] of [
    [{ 'Cache-Control': 'no-store' }, undefined],
    [{}, { 'cache-control': 'no-store' }],
  ] as [Fields, Record<string, string> | undefined][]) {
    const all = await chain(test, {
      '/f': { body: FILE, etag: '"f"', headers: CACHEABLE, ...(headers304 === undefined ? {} : { headers304 }) },
    });
    const { get, branch, reverse } = all;
    await ask(reverse.port, '/f', { fields: V1_REQUEST });
    await reverse.published();
    for (let round = 0; round < 2; round += 1) isWhole(test, await get('/f', first), FILE, 'the body');
    test.equal(branch.blockStore.bytes, 0);
    test.equal(branch.observations.count('stored'), 0);
    noFailures(test, all);
  }
});

await t.test('only-if-cached', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE } });
  const { get, warm, clock } = all;
  const fields = { 'Cache-Control': 'only-if-cached' };
  const cold = await during(all, () => get('/f', fields));
  test.same([cold.result.status, cold.requests.length], [504, 0]);
  await warm('/f');
  isWhole(test, await get('/f', fields), FILE, 'warm');
  clock.advance(61_000);
  const stale = await during(all, () => get('/f', fields));
  test.same([stale.result.status, stale.requests.length], [504, 0]);
});

await t.test('must-revalidate is asked about once it is stale, and a dead origin is said to be so', async (test) => {
  const all = await chain(test, {
    '/f': { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60, must-revalidate' } },
  });
  const { get, warm, clock, origin } = all;
  await warm('/f');
  clock.advance(61_000);
  test.equal(status(await get('/f')), 'peerdist; fwd=stale; fwd-status=304');
  clock.advance(61_000);
  origin.server.closeAllConnections();
  origin.server.close();
  const dead = await get('/f');
  test.equal(dead.status, 502);
  test.ok(dead.body.byteLength < 300);
});

await t.test(
  'private and authorized answers: every request is asked about, and one refused gets nothing',
  async (test) => {
    const file: OriginFile = { body: FILE, etag: '"f"', headers: { 'cache-control': 'max-age=60' } };
    const all = await chain(test, {
      '/f': (request, response, record) => {
        if (request.headers.authorization === 'Bearer good') return sendFile(file, request, response, record);
        response.writeHead(401, { 'www-authenticate': 'Bearer', 'content-length': 3 }).end('no\n');
        return undefined;
      },
    });
    const { get, branch } = all;
    isWhole(test, await get('/f', { Authorization: 'Bearer good' }), FILE, 'first');
    await until(() => branch.blockStore.bytes > SIZE, 'the blocks are here');
    for (const fields of [{}, { Authorization: 'Bearer bad' }] as Fields[]) {
      const refused = await get('/f', fields);
      test.same([refused.status, refused.body.toString()], [401, 'no\n']);
      test.equal((await get('/f', { ...fields, Range: 'bytes=0-9' })).status, 401);
    }
    const again = await during(all, () => get('/f', { Authorization: 'Bearer good' }));
    isWhole(test, again.result, FILE, 'second');
    test.equal(again.wanBodyBytes, 0, 'out of blocks');
  },
);

await t.test('Set-Cookie reaches the one it was set for and nobody else', async (test) => {
  for (const cacheControl of ['max-age=60', 'private', 'no-cache', 'max-age=0', undefined]) {
    let visits = 0;
    const rest = new Gate();
    const all = await chain(test, {
      '/f': (request, response, record) => {
        visits += 1;
        const headers = {
          'set-cookie': [`session=${visits}`],
          ...(cacheControl === undefined ? {} : { 'cache-control': cacheControl }),
        };
        return sendFile(
          {
            body: FILE,
            etag: '"f"',
            lastModified: DATE,
            headers,
            headers304: headers,
            firstBytes: 100_000,
            afterFirst: rest.passed,
          },
          request,
          response,
          record,
        );
      },
    });
    const { get, branch, reverse, origin } = all;
    const first = get('/f');
    await until(() => origin.requests[0]?.sent === 100_000, 'the body is under way');
    const during = get('/f');
    await until(() => branch.received.length === 2, 'a second client is there');
    rest.open();
    const seen = [(await first).headers['set-cookie'], (await during).headers['set-cookie']];
    await until(
      () => branch.observations.count('exchange') === 2 && reverse.observations.failures.length === 0,
      'over',
    );
    for (let round = 0; round < 3; round += 1) seen.push((await get('/f')).headers['set-cookie']);
    test.equal(seen[0], 'session=1');
    const cookies = seen.filter((cookie) => cookie !== undefined);
    test.equal(new Set(cookies).size, cookies.length, `${cacheControl}: ${seen.join(' | ')}`);
    noFailures(test, all);
  }
});

await t.test('unsafe methods make what is known of their target invalid', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE } });
  const { get, warm, origin } = all;
  const changed = seededBytes(13, SIZE);
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
    await warm('/f');
    test.equal(status(await get('/f')), 'peerdist; hit');
    origin.resources.set('/f', (_request, response) => void response.writeHead(400).end());
    test.equal((await get('/f', {}, { method, body: 'x' })).status, 400);
    test.equal(status(await get('/f')), 'peerdist; hit', `a ${method} that fails changes nothing`);
    origin.resources.set('/f', (_request, response) => void response.writeHead(204).end());
    test.equal((await get('/f', {}, { method, body: 'x' })).status, 204);
    origin.resources.set('/f', { body: changed, etag: `"${method}"`, headers: CACHEABLE });
    isWhole(test, await warm('/f'), changed, `after ${method}`);
    origin.resources.set('/f', { body: FILE, etag: '"f"', headers: CACHEABLE });
    await get('/f', {}, { method: 'PUT' });
  }
  noFailures(test, all);
});

await t.test('variants', async (test) => {
  const bodies: Record<string, Uint8Array> = { nl: seededBytes(14, SIZE), de: seededBytes(15, SIZE) };
  const all = await chain(test, {
    '/f': (request, response, record) => {
      const language = request.headers['accept-language'] ?? '';
      const body = bodies[language] ?? FILE;
      return sendFile(
        { body, etag: `"${language}"`, headers: { ...CACHEABLE, vary: 'Accept-Language' } },
        request,
        response,
        record,
      );
    },
  });
  const { get, warm } = all;
  for (const language of ['nl', 'de']) {
    const answer = await warm('/f', { 'Accept-Language': language });
    isWhole(test, answer, bodies[language] as Uint8Array, language);
    test.match(answer.headers['vary'], /Accept-Language/);
  }
  for (const language of ['nl', 'de', 'nl']) {
    const { result, requests } = await during(all, () => get('/f', { 'Accept-Language': language }));
    isWhole(test, result, bodies[language] as Uint8Array, `${language} from the cache`);
    test.same([requests.length, status(result)], [0, 'peerdist; hit']);
    const range = await get('/f', { 'Accept-Language': language, Range: 'bytes=1000-1999' });
    test.ok(same(range.body, (bodies[language] as Uint8Array).subarray(1_000, 2_000)));
  }
  isWhole(test, await get('/f', { 'Accept-Language': 'fr' }), FILE, 'a third is not mistaken for one');
  isWhole(test, await get('/f'), FILE, 'nor is none');
  noFailures(test, all);
});

await t.test('an origin that encodes for those who want it', async (test) => {
  const zipped = gzipSync(FILE);
  for (const vary of ['Accept-Encoding', 'accept-encoding, X-Other']) {
    const all = await chain(test, {
      '/f': (request, response, record) => {
        const encode = request.headers['accept-encoding']?.includes('gzip') === true;
        const file = encode
          ? { body: zipped, etag: '"z"', headers: { ...CACHEABLE, vary, 'content-encoding': 'gzip' } }
          : { body: FILE, etag: '"f"', headers: { ...CACHEABLE, vary } };
        return sendFile(file, request, response, record);
      },
    });
    const { get, warm } = all;
    isWhole(test, await warm('/f'), FILE, 'plain');
    for (let round = 0; round < 2; round += 1) {
      const encoded = await get('/f', { 'Accept-Encoding': 'gzip' });
      test.equal(encoded.headers['content-encoding'], 'gzip');
      test.ok(same(encoded.body, zipped), 'encoded');
      const plain = await during(all, () => get('/f'));
      isWhole(test, plain.result, FILE, 'plain again');
      test.equal(plain.wanBytes, 0);
      const identity = await get('/f', { 'Accept-Encoding': 'identity' });
      isWhole(test, identity, FILE, 'identity');
      const range = await get('/f', { 'Accept-Encoding': 'gzip', Range: 'bytes=0-9' });
      test.ok(same(range.body, (range.headers['content-encoding'] === 'gzip' ? zipped : FILE).subarray(0, 10)));
    }
    noFailures(test, all);
  }
});

await t.test('requests that meet a cold cache with conditions, ranges and If-Range', async (test) => {
  for (const [cacheControl, known] of [
    ['max-age=60', false],
    ['max-age=60', true],
    ['private', true],
    ['no-cache', true],
  ] as const) {
    for (const [fields, code, first, last] of [
      [{ 'If-None-Match': '"f"' }, 304, 0, -1],
      [{ 'If-Modified-Since': DATE }, 304, 0, -1],
      [{ 'If-None-Match': '"other"' }, 200, 0, SIZE - 1],
      [{ Range: 'bytes=70000-200000' }, 206, 70_000, 200_000],
      [{ Range: 'bytes=-70000' }, 206, SIZE - 70_000, SIZE - 1],
      [{ Range: 'bytes=299999-' }, 206, SIZE - 2, SIZE - 1],
      [{ Range: 'bytes=10-19', 'If-Range': '"f"' }, 206, 10, 19],
      [{ Range: 'bytes=10-19', 'If-Range': DATE }, 206, 10, 19],
      [{ Range: 'bytes=10-19', 'If-Range': '"other"' }, 200, 0, SIZE - 1],
      [{ Range: 'bytes=10-19', 'If-None-Match': '"f"' }, 304, 0, -1],
      [{ Range: 'bytes=300001-' }, 416, 0, -1],
    ] as [Fields, number, number, number][]) {
      const all = await chain(test, {
        '/f': { body: FILE, etag: '"f"', lastModified: DATE, headers: { 'cache-control': cacheControl } },
      });
      if (known) {
        await ask(all.reverse.port, '/f', { fields: V1_REQUEST });
        await all.reverse.published();
      }
      const answer = await all.get('/f', fields);
      const what = `${cacheControl}, ${known ? 'known' : 'unknown'}: ${JSON.stringify(fields)}`;
      test.equal(answer.status, code, what);
      if (last >= 0) test.ok(same(answer.body, FILE.subarray(first, last + 1)), `${what}: bytes`);
      if (code === 206) test.equal(answer.headers['content-range'], `bytes ${first}-${last}/${SIZE}`);
      if (code === 416) test.equal(answer.headers['content-range'], `bytes */${SIZE}`);
      test.ok(answer.complete);
      isClean(test, answer);
      isWhole(test, await all.get('/f'), FILE, `${what}, then the whole`);
      noFailures(test, all);
    }
  }
});

await t.test('a branch behind a branch', async (test) => {
  const all = await chain(test, { '/f': { body: FILE, etag: '"f"', headers: CACHEABLE } }, { gateway: true });
  const { branch: inner, reverse } = all;
  const outer = await startBranch(test, { origin: inner });
  const answer = await ask(outer.port, '/f');
  isWhole(test, answer, FILE, 'cold');
  isClean(test, answer);
  await outer.remembered();
  const written = reverse.bytesWritten;
  const warm = await ask(outer.port, '/f', { fields: { Range: 'bytes=-1000' } });
  test.same([warm.status, same(warm.body, FILE.subarray(SIZE - 1_000))], [206, true]);
  test.equal(reverse.bytesWritten, written);
  isWhole(test, await all.get('/f'), FILE, 'a client of the inner one');
  noFailures(test, all);
});

// --- Origins that know nothing, and answers that are none of our business ------------------------------------------------------------

await t.test('an origin that knows nothing of peerdist passes untouched', async (test) => {
  const origin = await Origin.start(test, {
    '/plain': (_request, response) => {
      response.writeHead(
        200,
        'Quite All Right',
        [
          ['Content-Type', 'text/html; charset=utf-8'],
          ['ETag', 'W/"weak"'],
          ['Last-Modified', DATE],
          ['Cache-Control', 'max-age=3600, stale-while-revalidate=5'],
          ['Vary', 'Accept-Encoding, Cookie'],
          ['Set-Cookie', 'a=1; Path=/'],
          ['Set-Cookie', 'b=2; Secure'],
          ['Link', '</a>; rel=x'],
          ['Link', '</b>; rel=y'],
          ['X-Empty', ''],
          ['X-Latin', 'caf\u00e9'],
          ['Age', '7'],
          ['Content-Digest', 'sha-256=:AAAA:'],
          ['Accept-Ranges', 'none'],
          ['Content-Length', '11'],
        ].flat(),
      );
      response.end('<p>hello</p>'.slice(0, 11));
    },
    '/zipped': (_request, response) => {
      response.writeHead(200, {
        'content-encoding': 'gzip',
        etag: '"z"',
        'cache-control': 'max-age=60',
        vary: 'accept-encoding',
      });
      response.end(FILE);
    },
    '/file': { body: FILE, etag: '"f"', lastModified: DATE, headers: CACHEABLE },
    '/chunked': { body: FILE, etag: '"f"', chunked: true, headers: CACHEABLE },
    '/empty': { body: '', etag: '"e"', headers: CACHEABLE },
    '/close': (_request, response) => {
      response.useChunkedEncodingByDefault = false;
      response.writeHead(200, { connection: 'close' }).end(FILE);
    },
  });
  let branch = await startBranch(test);
  const ours = new Set([
    'via',
    'cache-status',
    'connection',
    'keep-alive',
    'date',
    'transfer-encoding',
    'accept-ranges',
  ]);
  const shown = (answer: Answer): unknown[] => [
    answer.status,
    answer.reason,
    answer.lines
      .map(([name, value]) => [name.toLowerCase(), value] as const)
      .filter(([name]) => !ours.has(name))
      .toSorted(([a], [b]) => a.localeCompare(b)),
    answer.complete,
    answer.headers['transfer-encoding'],
  ];
  for (const path of origin.resources.keys()) {
    for (const fields of [
      {},
      { Range: 'bytes=5-9' },
      { 'If-None-Match': '"f"' },
      { 'Accept-Encoding': 'gzip, br' },
    ] as Fields[]) {
      if (path === '/close') continue;
      // A part of a known range gets its length, which the origin left out.
      if (path === '/chunked' && 'Range' in fields) continue;
      // The first one to ask.
      branch = await startBranch(test);
      const direct = await ask(origin.port, path, { fields });
      const through = await ask(branch.port, `${origin.url}${path}`, { fields });
      // Lines of one name may be joined on the way (RFC 9110 5.3), except Set-Cookie.
      const join = (answer: Answer): unknown[] => {
        const [code, reason, lines, complete, coding] = shown(answer) as [
          number,
          string,
          [string, string][],
          boolean,
          string,
        ];
        const joined: Record<string, string[]> = {};
        for (const [name, value] of lines) (joined[name] ??= []).push(value);
        return [
          code,
          reason,
          Object.entries(joined).map(([name, values]) => [name, name === 'set-cookie' ? values : values.join(', ')]),
          complete,
          coding,
        ];
      };
      test.same(join(through), join(direct), `${path} ${JSON.stringify(fields)}`);
      test.ok(same(through.body, direct.body), 'every byte');
      test.match(through.headers['via'], /^1\.1 /);
      test.match(status(through), /^peerdist; fwd=/);
    }
  }
  const closing = await ask(branch.port, `${origin.url}/close`);
  test.ok(same(closing.body, FILE) && closing.complete, 'a body that ends with its connection');
  const asked = origin.asked('/file');
  test.match(asked.at(-1)?.headers['accept-encoding'], /^gzip, br, peerdist$/, 'peerdist is added, nothing removed');
  test.equal(asked.at(1)?.headers['x-p2p-peerdist'], 'Version=1.1');
  test.same(branch.observations.failures, []);
});

await t.test('redirections, refusals and other answers pass through both proxies', async (test) => {
  const codes = [
    201, 202, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 409, 410, 412, 416, 418, 421, 429,
    451, 500, 501, 502, 503, 504, 507, 599,
  ];
  const all = await chain(
    test,
    Object.fromEntries(
      codes.map((code) => [
        `/${code}`,
        (_request, response) => {
          response.writeHead(code, `Reason ${code}`, {
            location: `/to-${code}`,
            etag: '"e"',
            'retry-after': '3',
            'x-code': String(code),
          });
          response.end(code === 204 ? undefined : `answer ${code}`);
        },
      ]) as [string, OriginHandler][],
    ),
  );
  for (const code of codes) {
    const answer = await all.get(`/${code}`);
    test.same(
      [
        answer.status,
        answer.reason,
        answer.body.toString(),
        answer.headers['location'],
        answer.headers['x-code'],
        answer.complete,
      ],
      [code, `Reason ${code}`, code === 204 ? '' : `answer ${code}`, `/to-${code}`, String(code), true],
    );
    isClean(test, answer);
  }
  test.equal((await all.get('/nowhere')).status, 404);
  noFailures(test, all);
});

await t.test('a chunked body, an empty one, a tiny one', async (test) => {
  const all = await chain(test, {
    '/chunked': { body: FILE, etag: '"c"', chunked: true, headers: CACHEABLE },
    '/empty': { body: '', etag: '"e"', headers: CACHEABLE },
    '/empty-chunked': { body: '', etag: '"e"', chunked: true, headers: CACHEABLE },
    '/tiny': { body: 'x', etag: '"t"', headers: CACHEABLE },
  });
  const { get, reverse, origin } = all;
  for (let round = 0; round < 3; round += 1) {
    for (const path of origin.resources.keys()) {
      const answer = await get(path);
      const file = origin.resources.get(path) as OriginFile;
      test.same([answer.status, answer.complete, same(answer.body, file.body)], [200, true, true], `${path} ${round}`);
      isClean(test, answer);
    }
    if (round === 0) await reverse.published();
  }
  const range = await during(all, () => get('/chunked', { Range: 'bytes=-10' }));
  test.same(
    [range.result.headers['content-range'], range.wanBodyBytes],
    [`bytes 299991-300000/${SIZE}`, 0],
    'described by then',
  );
  test.ok(same(range.result.body, FILE.subarray(SIZE - 10)));
  noFailures(test, all);
});

await t.test('bodies of requests, other methods, and HTTP/1.0', async (test) => {
  const all = await chain(test, {
    '/f': { body: FILE, etag: '"f"', headers: CACHEABLE },
    '/echo': (request, response, record) => {
      response.writeHead(200, { 'x-method': request.method ?? '', etag: '"f"' }).end(record.body);
    },
  });
  const { get, warm, branch, target, origin } = all;
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'REPORT']) {
    const answer = await get('/echo', {}, { method, body: FILE });
    test.same([answer.status, answer.headers['x-method'], same(answer.body, FILE)], [200, method, true]);
  }
  const withBody = await get('/echo', {}, { method: 'GET', body: 'a GET with a body' });
  test.equal(withBody.body.toString(), 'a GET with a body');
  await warm('/f');
  const old = await ask(branch.port, target('/f'), { version: '1.0' });
  test.ok(same(old.body, FILE), 'an HTTP/1.0 client');
  test.equal(old.headers['transfer-encoding'], undefined);
  isClean(test, old);
  const oldRange = await ask(branch.port, target('/f'), { version: '1.0', fields: { Range: 'bytes=0-9' } });
  test.ok([200, 206].includes(oldRange.status));
  test.equal(origin.bodies('/f').length, 1);
  noFailures(test, all);
});

await t.test('contents are told apart by what was asked for, byte for byte', async (test) => {
  const paths = ['/f', '/f?', '/f?a=%2f', '/f?a=%2F', '/./f', '//f', '/%66'];
  const body = (index: number): Uint8Array => seededBytes(200 + index, 70_000);
  const all = await chain(
    test,
    Object.fromEntries(paths.map((path, index) => [path, { body: body(index), etag: '"f"', headers: CACHEABLE }])),
  );
  for (const [index, path] of paths.entries()) isWhole(test, await all.warm(path), body(index), path);
  const { requests } = await during(all, async () => {
    for (const [index, path] of paths.entries()) isWhole(test, await all.get(path), body(index), `${path} again`);
  });
  test.same(requests, []);
});
