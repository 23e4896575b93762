/**
 * An origin that speaks peerdist itself, and lies. Whatever it says about its content, a client of the branch gets the content or a
 * broken connection: never a wrong byte, never a mixed one, and an end in good time. And both proxies through every way an exchange
 * can be broken off.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { describe } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  type Answer,
  ask,
  begin,
  type BranchOptions,
  type Connection,
  Gate,
  inTime,
  Origin,
  type OriginHandler,
  type OriginRequest,
  type Proxy,
  readAtLeast,
  same,
  startBranch,
  startReverse,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const SIZE = 1_200_000;
const FILE = seededBytes(51, SIZE);
/** What the origin would rather send: other bytes, same length. */
const OTHER = seededBytes(52, SIZE);
const INFORMATION = { 1: encodeContentInformation(describe(1, FILE)), 2: encodeContentInformation(describe(2, FILE)) };
const OF_OTHER = { 1: encodeContentInformation(describe(1, OTHER)), 2: encodeContentInformation(describe(2, OTHER)) };
/** Short, for origins that stall; too short for the others on a busy machine. */
const IMPATIENT = { host: { timeouts: { connectMs: 2_000, headMs: 200, idleMs: 500 } } };

type Fields = Readonly<Record<string, string>>;

interface Lie {
  /** Fields of the coded answer, over the true ones; an empty string leaves a field out. */
  readonly fields?: Fields;
  readonly status?: number;
  readonly information?: Uint8Array;
  /** In place of the true coded answer. */
  readonly coded?: OriginHandler;
  /** In place of the true range. */
  readonly missing?: (request: IncomingMessage, response: ServerResponse, range: Range, visit: number) => void;
  /** In place of the true body. */
  readonly plain?: OriginHandler;
}

interface Range {
  readonly first: number;
  readonly last: number;
}

/** A server made by hand that answers peerdist requests truly but for its lies. */
function liar(version: 1 | 2, lie: Lie): OriginHandler {
  let visits = 0;
  return (request, response, record) => {
    const { headers } = request;
    const wanted = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '');
    const range =
      wanted === null ? undefined : { first: Number(wanted[1]), last: Math.min(SIZE - 1, Number(wanted[2])) };
    const isMissing = String(headers['x-p2p-peerdist']).includes('MissingDataRequest=true');
    const isCoded =
      !isMissing &&
      headers['x-p2p-peerdist'] !== undefined &&
      (/peerdist/.test(headers['accept-encoding'] ?? '') ||
        /HashRequest=true/.test(String(headers['x-p2p-peerdistex'])));
    if (isCoded) {
      if (lie.coded !== undefined) return lie.coded(request, response, record);
      const information = lie.information ?? INFORMATION[version];
      const fields: Record<string, string> = {
        etag: '"true"',
        'cache-control': 'max-age=60',
        'content-encoding': 'peerdist',
        'x-p2p-peerdist': `Version=1.1, ContentLength=${SIZE}`,
        'content-length': String(information.byteLength),
        ...lie.fields,
      };
      for (const [name, value] of Object.entries(fields)) if (value === '') delete fields[name];
      response.writeHead(lie.status ?? 200, fields).end(information);
      return undefined;
    }
    if (isMissing && range !== undefined && lie.missing !== undefined) {
      visits += 1;
      lie.missing(request, response, range, visits);
      return undefined;
    }
    if (lie.plain !== undefined && !isMissing) return lie.plain(request, response, record);
    if (range === undefined) response.writeHead(200, { etag: '"true"', 'content-length': SIZE }).end(FILE);
    else sendRange(response, range, FILE);
    return undefined;
  };
}

function sendRange(
  response: ServerResponse,
  { first, last }: Range,
  file: Uint8Array,
  fields: Readonly<Record<string, string | number>> = {},
): void {
  response
    .writeHead(206, {
      etag: '"true"',
      'content-range': `bytes ${first}-${last}/${SIZE}`,
      'content-length': last - first + 1,
      ...fields,
    })
    .end(file.subarray(first, last + 1));
}

interface Scene {
  readonly origin: Origin;
  readonly branch: Proxy;
  readonly get: (fields?: Fields) => Promise<Answer>;
}

async function scene(test: Test, version: 1 | 2, lie: Lie, options: BranchOptions = {}): Promise<Scene> {
  const origin = await Origin.start(test, { '/f': liar(version, lie) });
  const branch = await startBranch(test, {
    maxContentInformationVersion: version,
    ...options,
  });
  return { origin, branch, get: (fields = {}) => askOrBreak(branch.port, `${origin.url}/f`, fields) };
}

/** The answer; a connection that was broken before any head counts as an answer of status 0. */
async function askOrBreak(port: number, target: string, fields: Fields): Promise<Answer> {
  try {
    return await ask(port, target, { fields });
  } catch (error) {
    if (!(error as Error).message.startsWith('the connection ended')) throw error;
    return { status: 0, reason: '', version: '', headers: {}, lines: [], body: Buffer.alloc(0), complete: false };
  }
}

/** Nothing but the true bytes, and a break is seen as one. */
function isTrue(test: Test, answer: Answer, what: string, { first, last }: Range = { first: 0, last: SIZE - 1 }): void {
  const expected = FILE.subarray(first, last + 1);
  if (answer.status >= 400) {
    test.ok(answer.status >= 500 && answer.body.byteLength < 1_000, `${what}: ${answer.status}, and says so`);
    return;
  }
  const whole = answer.status === 200 && first !== 0 ? FILE : expected;
  test.ok(same(answer.body, whole.subarray(0, answer.body.byteLength)), `${what}: only true bytes`);
  test.equal(answer.complete, answer.body.byteLength === whole.byteLength, `${what}: whole, or seen to be broken`);
  test.notOk(answer.headers['content-encoding'], 'decoded');
}

function isWhole(test: Test, answer: Answer, what: string): void {
  test.same([answer.status, answer.complete, same(answer.body, FILE)], [200, true, true], what);
}

const rejected = ({ branch }: Scene): number =>
  branch.observations.count('content_information', { result: 'rejected' });
const mismatches = ({ branch }: Scene): number => branch.observations.count('verification', { result: 'mismatch' });

// --- Content information ---------------------------------------------------------------------------------------------------------------

await t.test('the true origin, for comparison', async (test) => {
  for (const version of [1, 2] as const) {
    const all = await scene(test, version, {});
    isWhole(test, await all.get(), 'cold');
    isWhole(test, await all.get(), 'warm');
    const range = await all.get({ Range: 'bytes=100000-299999' });
    test.same([range.status, same(range.body, FILE.subarray(100_000, 300_000))], [206, true]);
    test.same([rejected(all), mismatches(all), all.origin.bodyBytes('/f')], [0, 0, 0]);
  }
});

/** Content information that is none, or is of something else; `blind` where the lie cannot be seen before blocks are compared. */
function* falseInformation(version: 1 | 2): Generator<[what: string, lie: Lie]> {
  const truth = INFORMATION[version];
  const changed = (at: number, value: number): Uint8Array => {
    const copy = Uint8Array.from(truth);
    copy[at] = value;
    return copy;
  };
  yield ['empty', { information: new Uint8Array(0) }];
  yield ['garbage', { information: seededBytes(53, 5_000) }];
  yield ['a web page', { information: Buffer.from('<html>sorry</html>') }];
  yield ['the body itself', { information: FILE }];
  yield ['zeros', { information: new Uint8Array(2_000) }];
  yield ['one byte more', { information: Buffer.concat([truth, Buffer.from([0])]) }];
  yield ['twice', { information: Buffer.concat([truth, truth]) }];
  yield ['of another version', { information: changed(version === 1 ? 1 : 1, 9) }];
  yield ['of an unknown hash', { information: changed(2, 0x77) }];
  yield ['oversized', { information: new Uint8Array(3_000_000) }];
  yield [
    'cut by the connection',
    {
      coded: (_request, response) => {
        response.writeHead(200, {
          etag: '"true"',
          'content-encoding': 'peerdist',
          'x-p2p-peerdist': `Version=1.1, ContentLength=${SIZE}`,
          'content-length': truth.byteLength,
        });
        response.write(truth.subarray(0, truth.byteLength - 1), () => response.destroy());
      },
    },
  ];
  yield [
    'stalled',
    {
      coded: (_request, response) => {
        response.writeHead(200, {
          etag: '"true"',
          'content-encoding': 'peerdist',
          'x-p2p-peerdist': `Version=1.1, ContentLength=${SIZE}`,
        });
        response.write(truth.subarray(0, 40));
      },
    },
  ];
  if (version === 1) {
    yield [
      'with a billion segments',
      { information: Buffer.concat([truth.subarray(0, 14), Buffer.from('ffffff3f', 'hex'), truth.subarray(18)]) },
    ];
    yield ['with a wrong block hash', { information: changed(truth.byteLength - 5, (truth.at(-5) as number) ^ 1) }];
  } else {
    yield [
      'with a chunk of 4 GB',
      { information: Buffer.concat([truth.subarray(0, 32), Buffer.from('ffffffff', 'hex'), truth.subarray(36)]) },
    ];
    yield ['beginning in the middle', { information: changed(10, 1) }];
  }
  for (const [what, contentLength] of [
    ['shorter', SIZE - 1],
    ['longer', SIZE + 1],
    ['zero', 0],
    ['enormous', 9e14],
  ] as const) {
    yield [`announced as ${what}`, { fields: { 'x-p2p-peerdist': `Version=1.1, ContentLength=${contentLength}` } }];
  }
  yield ['announced without a length', { fields: { 'x-p2p-peerdist': 'Version=1.1' } }];
  yield ['announced as nonsense', { fields: { 'x-p2p-peerdist': 'Version=1.1, ContentLength=1e6' } }];
  yield ['without X-P2P-PeerDist', { fields: { 'x-p2p-peerdist': '' } }];
  yield ['without a validator', { fields: { etag: '' } }];
  yield ['with a weak validator', { fields: { etag: 'W/"true"' } }];
  yield ['as a 206 without Content-Range', { status: 206 }];
  yield ['as a 206 of another range', { status: 206, fields: { 'content-range': `bytes 5-9/${SIZE}` } }];
  yield ['as a 206 of a larger content', { status: 206, fields: { 'content-range': `bytes 0-${SIZE}/${SIZE + 1}` } }];
}

async function tellFalse(test: Test, what: string, lie: Lie, version: 1 | 2): Promise<void> {
  const stalls = what === 'stalled';
  const all = await scene(test, version, lie, {
    maxContentInformationBytes: 2_000_000,
    ...(stalls ? IMPATIENT : {}),
  });
  const name = `version ${version} ${what}`;
  const answer = await all.get();
  // An origin that falls silent may cost the connection.
  if (stalls) isTrue(test, answer, name);
  else {
    isWhole(test, answer, name);
    test.ok(rejected(all) >= 1, `${name}: counted as rejected`);
  }
  test.equal(all.branch.blockStore.bytes, 0, `${name}: nothing is kept`);
  isTrue(test, await all.get(), `${name}, again`);
  const range = { first: 100_000, last: 299_999 };
  isTrue(test, await all.get({ Range: 'bytes=100000-299999' }), `${name}, a range`, range);
  test.same(all.branch.observations.failures, []);
}

await t.test('false content information: the body by another request, and it is counted', async (test) => {
  const lies = ([1, 2] as const).flatMap((version) =>
    [...falseInformation(version)].map(([what, lie]) => ({ version, what, lie })),
  );
  const stalling = lies
    .filter(({ what }) => what === 'stalled')
    .map(({ what, lie, version }) => tellFalse(test, what, lie, version));
  for (const { what, lie, version } of lies) if (what !== 'stalled') await tellFalse(test, what, lie, version);
  await Promise.all(stalling);
});

await t.test('content information that ends early, at every 97th byte', async (test) => {
  for (const version of [1, 2] as const) {
    const truth = INFORMATION[version];
    let information: Uint8Array = truth;
    const all = await scene(test, version, {
      coded: (request, response, record) => liar(version, { information })(request, response, record),
    });
    let count = 0;
    for (let length = 0; length < truth.byteLength; length += 97) {
      information = truth.subarray(0, length);
      const answer = await all.get();
      count += 1;
      test.ok(answer.complete && same(answer.body, FILE), `version ${version}, ${length} of ${truth.byteLength} bytes`);
      test.equal(rejected(all), count);
    }
    test.equal(all.branch.observations.count('stored'), 0);
  }
});

await t.test('content information of other content: blocks do not match, and that is seen', async (test) => {
  for (const version of [1, 2] as const) {
    const all = await scene(test, version, { information: OF_OTHER[version] });
    isWhole(test, await all.get(), `version ${version}, whole`);
    test.ok(mismatches(all) >= 1 && rejected(all) >= 1, 'counted');
    test.equal(all.branch.blockStore.bytes, 0, 'no block of it is kept');
    const range = await all.get({ Range: 'bytes=500000-599999' });
    test.same([range.status, range.complete, same(range.body, FILE.subarray(500_000, 600_000))], [206, true, true]);
    isTrue(test, await all.get({ Range: 'bytes=0-9,500000-500009' }), 'several ranges', { first: 0, last: SIZE });
  }
});

await t.test('content information that is right at first and then of other content', async (test) => {
  const mixed = Buffer.concat([FILE.subarray(0, 600_000), OTHER.subarray(600_000)]);
  for (const version of [1, 2] as const) {
    const all = await scene(test, version, { information: encodeContentInformation(describe(version, mixed)) });
    for (let round = 0; round < 3; round += 1) isTrue(test, await all.get(), `version ${version}, round ${round}`);
    test.ok(mismatches(all) >= 1, 'seen');
    const late = await all.get({ Range: 'bytes=900000-999999' });
    isTrue(test, late, 'a range behind', { first: 900_000, last: 999_999 });
    test.ok(late.complete, 'and it comes by another request');
  }
});

await t.test('coded answers of other kinds', async (test) => {
  for (const status of [404, 410, 500]) {
    const all = await scene(test, 2, {
      status,
      plain: (_request, response) => void response.writeHead(status).end('none here'),
    });
    for (let round = 0; round < 2; round += 1) {
      const answer = await all.get();
      test.equal(answer.status, status, `a coded ${status} is never a 200`);
      test.notOk(answer.headers['x-p2p-peerdist'] ?? answer.headers['content-encoding'], 'and never hashes for a body');
    }
  }
  const twice = await scene(test, 2, { fields: { 'content-encoding': 'gzip, peerdist' } });
  const answer = await twice.get();
  test.ok(answer.headers['content-encoding'] === 'gzip, peerdist' || same(answer.body, FILE), 'two codings');
  const moved = await scene(test, 2, {
    coded: (_request, response) =>
      void response.writeHead(302, { location: '/g', 'content-encoding': 'peerdist' }).end(),
  });
  const elsewhere = await moved.get();
  test.ok(elsewhere.headers['location'] === '/g' || same(elsewhere.body, FILE), `a coded 302: ${elsewhere.status}`);
});

await t.test('an origin that only ever says peerdist', async (test) => {
  const all = await scene(test, 2, {
    information: seededBytes(54, 3_000),
    plain: (_request, response) => {
      response.writeHead(200, { 'content-encoding': 'peerdist', etag: '"true"' }).end(seededBytes(54, 3_000));
    },
  });
  const answer = await all.get();
  test.ok(
    answer.status >= 500 || answer.headers['content-encoding'] === 'peerdist',
    `${answer.status}: hashes never pass for a body`,
  );
});

// --- Missing data ----------------------------------------------------------------------------------------------------------------------

type Missing = readonly [what: string, missing: NonNullable<Lie['missing']>];

const MISSING: readonly Missing[] = [
  ['other bytes', (_request, response, range) => sendRange(response, range, OTHER)],
  [
    'other bytes from the middle on',
    (_request, response, range) =>
      sendRange(response, range, Buffer.concat([FILE.subarray(0, 600_000), OTHER.subarray(600_000)])),
  ],
  [
    'one bit in the last block',
    (_request, response, range) => {
      const copy = Buffer.from(FILE);
      copy[SIZE - 1] = (copy[SIZE - 1] as number) ^ 1;
      sendRange(response, range, copy);
    },
  ],
  [
    'too short, cut',
    (_request, response, { first, last }) => {
      response.writeHead(206, {
        etag: '"true"',
        'content-range': `bytes ${first}-${last}/${SIZE}`,
        'content-length': last - first + 1,
      });
      response.write(FILE.subarray(first, Math.floor((first + last) / 2)), () => response.destroy());
    },
  ],
  [
    'nothing, cut',
    (_request, response, { first, last }) => {
      response.writeHead(206, {
        etag: '"true"',
        'content-range': `bytes ${first}-${last}/${SIZE}`,
        'content-length': last - first + 1,
      });
      response.flushHeaders();
      setImmediate(() => response.destroy());
    },
  ],
  [
    'too short, chunked',
    (_request, response, { first, last }) => {
      response.writeHead(206, { etag: '"true"', 'content-range': `bytes ${first}-${last}/${SIZE}` });
      response.end(FILE.subarray(first, last - 10));
    },
  ],
  [
    'too long, chunked',
    (_request, response, { first, last }) => {
      response.writeHead(206, { etag: '"true"', 'content-range': `bytes ${first}-${last}/${SIZE}` });
      response.end(Buffer.concat([FILE.subarray(first, last + 1), OTHER]));
    },
  ],
  [
    'a shorter range than asked for',
    (_request, response, { first, last }) => sendRange(response, { first, last: Math.max(first, last - 70_000) }, FILE),
  ],
  ['a range somewhere else', (_request, response) => sendRange(response, { first: 1, last: 10 }, FILE)],
  [
    'a range of a content with another length',
    (_request, response, range) =>
      sendRange(response, range, FILE, { 'content-range': `bytes ${range.first}-${range.last}/${SIZE + 5}` }),
  ],
  [
    'a range without Content-Range',
    (_request, response, { first, last }) =>
      void response.writeHead(206, { etag: '"true"' }).end(FILE.subarray(first, last + 1)),
  ],
  [
    'a range of nonsense',
    (_request, response, range) => sendRange(response, range, FILE, { 'content-range': 'bytes all/some' }),
  ],
  ['another ETag', (_request, response, range) => sendRange(response, range, OTHER, { etag: '"new"' })],
  ['a weak ETag', (_request, response, range) => sendRange(response, range, FILE, { etag: 'W/"true"' })],
  [
    'everything, of another version',
    (_request, response) => void response.writeHead(200, { etag: '"new"', 'content-length': SIZE }).end(OTHER),
  ],
  [
    'everything, true',
    (_request, response) => void response.writeHead(200, { etag: '"true"', 'content-length': SIZE }).end(FILE),
  ],
  [
    'everything, without a name',
    (_request, response) => void response.writeHead(200, { 'content-length': SIZE }).end(OTHER),
  ],
  [
    'multipart',
    (_request, response, range) =>
      sendRange(response, range, FILE, { 'content-type': 'multipart/byteranges; boundary=x' }),
  ],
  [
    'gzip',
    (_request, response, { first, last }) => {
      const zipped = gzipSync(FILE.subarray(first, last + 1), { level: 0 });
      response
        .writeHead(206, {
          etag: '"true"',
          'content-range': `bytes ${first}-${last}/${SIZE}`,
          'content-encoding': 'gzip',
        })
        .end(zipped);
    },
  ],
  [
    'hashes',
    (_request, response) =>
      void response
        .writeHead(200, {
          etag: '"true"',
          'content-encoding': 'peerdist',
          'x-p2p-peerdist': `Version=1.1, ContentLength=${SIZE}`,
        })
        .end(INFORMATION[2]),
  ],
  ...[204, 304, 401, 403, 404, 410, 412, 416, 500, 503].map(
    (status) =>
      [
        `a ${status}`,
        (_request: IncomingMessage, response: ServerResponse) =>
          void response.writeHead(status, { etag: '"true"' }).end(),
      ] as const,
  ),
  ['a 302', (_request, response) => void response.writeHead(302, { location: '/elsewhere' }).end()],
  ['no head, ever', () => {}],
  [
    'no byte, ever',
    (_request, response, { first, last }) => {
      response.writeHead(206, {
        etag: '"true"',
        'content-range': `bytes ${first}-${last}/${SIZE}`,
        'content-length': last - first + 1,
      });
      response.flushHeaders();
    },
  ],
  [
    'a stall in the middle',
    (_request, response, { first, last }) => {
      response.writeHead(206, {
        etag: '"true"',
        'content-range': `bytes ${first}-${last}/${SIZE}`,
        'content-length': last - first + 1,
      });
      response.write(FILE.subarray(first, first + Math.floor((last - first) / 2)));
    },
  ],
  ['a closed connection', (request) => void request.socket.destroy()],
  ['garbage', (request) => void request.socket.end('what?\r\n\r\n')],
];

const isSlow = ([what]: Missing): boolean => /ever|stall/.test(what);

async function tellMissing(test: Test, [what, missing]: Missing, version: 1 | 2): Promise<void> {
  const all = await scene(test, version, { missing }, isSlow([what, missing]) ? IMPATIENT : {});
  const name = `version ${version}, ${what}`;
  const cold = await all.get();
  isTrue(test, cold, name);
  const inside = { first: 650_000, last: 750_000 };
  isTrue(test, await all.get({ Range: 'bytes=650000-750000' }), `${name}, a range`, inside);
  isTrue(test, await all.get(), `${name}, again`);
  if (/other bytes|one bit/.test(what)) test.ok(mismatches(all) > 0, `${name}: a mismatch was observed`);
  // Where not one byte had been sent, the client gets the body all the same.
  if (!/middle|one bit|short|cut|long|no byte/.test(what)) isWhole(test, cold, `${name}: by another request`);
  test.same(all.branch.observations.failures, [], `${name}: no plug-in failed`);
}

await t.test('missing data that is not', async (test) => {
  for (const version of [1, 2] as const) {
    for (const missing of MISSING) {
      // A refusal is the same for both versions.
      const once = version === 1 && /^a \d/.test(missing[0]);
      if (!isSlow(missing) && !once) await tellMissing(test, missing, version);
    }
  }
  // Side by side: each of them has to be waited for.
  await Promise.all(
    ([1, 2] as const).flatMap((version) =>
      MISSING.filter(isSlow).map((missing) => tellMissing(test, missing, version)),
    ),
  );
});

await t.test('missing data that is false once: the next client gets everything', async (test) => {
  for (const [what, missing] of MISSING.filter((each) => !isSlow(each))) {
    let lying = true;
    const all = await scene(test, 2, {
      missing: (request, response, range, visit) => {
        if (lying) missing(request, response, range, visit);
        else sendRange(response, range, FILE);
      },
    });
    isTrue(test, await all.get(), what);
    lying = false;
    isWhole(test, await all.get(), `${what}, then the truth`);
    isWhole(test, await all.get(), `${what}, and again`);
    isTrue(test, await all.get({ Range: 'bytes=3-900000' }), 'a range', { first: 3, last: 900_000 });
  }
});

await t.test('content that changes between two ranges of one download is never mixed', async (test) => {
  for (const version of [1, 2] as const) {
    for (const how of [
      '206 with another tag',
      '200 of the new one',
      '206 with the old tag and new bytes',
      '416',
      '412',
    ] as const) {
      let changed = false;
      const origin = await Origin.start(test, {
        '/f': (request, response, record) => {
          if (!changed) return liar(version, {})(request, response, record);
          const coded = /peerdist/.test(request.headers['accept-encoding'] ?? '');
          const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
          const head = { etag: '"new"', 'cache-control': 'max-age=60' };
          if (coded || range === null) {
            response.writeHead(200, { ...head, 'content-length': SIZE }).end(OTHER);
            return undefined;
          }
          const part = { first: Number(range[1]), last: Math.min(SIZE - 1, Number(range[2])) };
          if (how === '206 with another tag') sendRange(response, part, OTHER, { etag: '"new"' });
          else if (how === '206 with the old tag and new bytes') sendRange(response, part, OTHER);
          else if (how === '200 of the new one')
            response.writeHead(200, { ...head, 'content-length': SIZE }).end(OTHER);
          else response.writeHead(Number(how), head).end();
          return undefined;
        },
      });
      const branch = await startBranch(test, { maxContentInformationVersion: version });
      const get = (fields: Fields = {}): Promise<Answer> => ask(branch.port, `${origin.url}/f`, { fields });
      const first = await get({ Range: 'bytes=0-499999' });
      test.ok(same(first.body, FILE.subarray(0, 500_000)), 'the first half');
      changed = true;
      const name = `version ${version}, ${how}`;
      const answer = await get();
      const isOld = same(answer.body, FILE.subarray(0, answer.body.byteLength));
      const isNew = answer.complete && same(answer.body, OTHER);
      test.ok((isOld && !answer.complete) || isNew, `${name}: old bytes and a break, or the new content`);
      if (isNew) test.equal(answer.headers['etag'], '"new"', 'under its own name');
      const next = await get();
      test.ok(next.complete && same(next.body, OTHER), `${name}: the next client gets the new content`);
      const range = await get({ Range: 'bytes=400000-599999' });
      test.ok(
        same(range.body, OTHER.subarray(400_000, 600_000)) || same(range.body, OTHER),
        `${name}: and a range of it`,
      );
    }
  }
});

await t.test('a body that is promised hashes and breaks, or whose hashes are false', async (test) => {
  const promise = {
    etag: '"true"',
    'cache-control': 'max-age=60',
    'x-p2p-peerdist': 'Version=1.1',
    'x-p2p-peerdistex': 'MakeHashRequest=true',
  };
  const bodies: [what: string, send: (response: ServerResponse) => void, whole: boolean][] = [
    ['true', (response) => void response.writeHead(200, { ...promise, 'content-length': SIZE }).end(FILE), true],
    [
      'cut',
      (response) => {
        response.writeHead(200, { ...promise, 'content-length': SIZE });
        response.write(FILE.subarray(0, 700_000), () => response.destroy());
      },
      false,
    ],
    [
      'stalled',
      (response) => {
        response.writeHead(200, { ...promise, 'content-length': SIZE });
        response.write(FILE.subarray(0, 700_000));
      },
      false,
    ],
    ['of length 0', (response) => void response.writeHead(200, { ...promise, 'content-length': 0 }).end(), true],
  ];
  const hashes: [what: string, answer: (response: ServerResponse) => void][] = [
    ['of other content', (response) => sendInformation(response, OF_OTHER[2])],
    ['garbage', (response) => sendInformation(response, seededBytes(55, 500))],
    ['of another tag', (response) => sendInformation(response, INFORMATION[2], { etag: '"new"' })],
    ['the body', (response) => void response.writeHead(200, { etag: '"true"', 'content-length': SIZE }).end(FILE)],
    ['an error', (response) => void response.writeHead(500).end()],
    ['none', (response) => void response.destroy()],
  ];
  const tell = async (
    [what, send, whole]: (typeof bodies)[number],
    [lie, answer]: (typeof hashes)[number],
  ): Promise<void> => {
    const origin = await Origin.start(test, {
      '/f': (request, response) => {
        if (/HashRequest=true/.test(String(request.headers['x-p2p-peerdistex']))) answer(response);
        else send(response);
      },
    });
    const branch = await startBranch(test, what === 'stalled' ? IMPATIENT : {});
    const name = `${what}, hashes: ${lie}`;
    const get = (): Promise<Answer> => ask(branch.port, `${origin.url}/f`);
    for (const got of await Promise.all([get(), get()])) {
      if (what === 'of length 0') test.same([got.status, got.body.byteLength, got.complete], [200, 0, true], name);
      else {
        isTrue(test, got, name);
        test.equal(got.complete, whole, name);
      }
    }
    if (what === 'true') {
      await until(() => origin.requests.length >= 2, 'the hashes were asked for');
      isTrue(test, await get(), `${name}, again`);
    }
    test.equal(branch.observations.count('verification', { result: 'match' }), 0, `${name}: nothing is kept`);
    test.equal(branch.blockStore.bytes, 0);
    test.same(branch.observations.failures, []);
  };
  await Promise.all(
    bodies.map(async (body) => {
      for (const hash of body[0] === 'stalled' ? hashes.slice(0, 1) : hashes) await tell(body, hash);
    }),
  );
});

function sendInformation(response: ServerResponse, information: Uint8Array, fields: Fields = {}): void {
  response
    .writeHead(200, {
      etag: '"true"',
      'cache-control': 'max-age=60',
      'content-encoding': 'peerdist',
      'x-p2p-peerdist': `Version=1.1, ContentLength=${SIZE}`,
      ...fields,
    })
    .end(information);
}

await t.test('liars do not hurt the clients of others', async (test) => {
  const all = await scene(test, 2, { missing: () => {} });
  const honest = await Origin.start(test, { '/h': { body: OTHER, etag: '"h"' } });
  const stuck = await Promise.all(Array.from({ length: 20 }, () => begin(all.branch.port, `${all.origin.url}/f`)));
  const isStalled = ({ headers }: OriginRequest): boolean => headers['range'] !== undefined;
  await until(() => all.origin.requests.some(isStalled), 'the liar stalls');
  const answer = await ask(all.branch.port, `${honest.url}/h`);
  test.ok(same(answer.body, OTHER), 'another origin is served meanwhile');
  test.ok(stuck.every(({ socket }) => socket.bytesRead === 0 && !socket.destroyed));
  for (const connection of stuck) connection.close();
  test.same(all.branch.observations.failures, []);
});

await t.test('a client that leaves before its first block has come leaves nothing open behind it', async (test) => {
  for (const fields of [{}, { Range: 'bytes=0-99' }, { Range: 'bytes=0-9,700000-700009' }] as Fields[]) {
    const clock = new ManualClock();
    const all = await scene(test, 2, { missing: () => {} }, { clock });
    const client = await begin(all.branch.port, `${all.origin.url}/f`, { fields });
    const stalled = (): OriginRequest | undefined =>
      all.origin.requests.find(
        ({ headers }) => headers['range'] !== undefined && headers['x-p2p-peerdist']?.includes('Missing'),
      );
    if (fields['Range']?.includes(',') === true) {
      // Several ranges are the liar's to answer, or the branch's.
      await until(() => stalled() !== undefined || client.socket.bytesRead > 0, 'something happens');
    } else await until(() => stalled() !== undefined, 'missing data is asked for');
    client.leave();
    await until(() => all.branch.observations.count('exchange') === 1, 'the branch has seen it leave');
    // Time for everything that lingers, but for no time-out.
    let steps = 0;
    const patience = until(
      () => {
        steps += 1;
        if (steps < 20) clock.advance(500);
        return stalled()?.closed !== false;
      },
      'the origin is left too',
      1_000,
    );
    test.ok(
      await patience.then(
        () => true,
        () => false,
      ),
      `the request for missing data is given up: ${JSON.stringify(fields)}`,
    );
  }
});

// --- The abort matrix ------------------------------------------------------------------------------------------------------------------

const WHEN = ['before the head', 'in the body', 'at the end'] as const;

/** A file that stops where the test says. */
class Staged {
  readonly head = new Gate();
  readonly rest = new Gate();
  readonly last = new Gate();
  response: ServerResponse | undefined;
  record: OriginRequest | undefined;
  readonly #chunked: boolean;

  constructor(chunked: boolean) {
    this.#chunked = chunked;
  }

  readonly handler: OriginHandler = async (request, response, record) => {
    if (this.response !== undefined) {
      // Nobody leaves a second visit: it is the hash request after a whole body.
      const same304 = request.headers['if-none-match'] === '"true"';
      response.writeHead(same304 ? 304 : 200, { etag: '"true"' }).end(same304 ? undefined : FILE);
      return;
    }
    this.response = response;
    this.record = record;
    await this.head.passed;
    if (response.destroyed) return;
    response.writeHead(200, {
      etag: '"true"',
      'cache-control': 'max-age=60',
      ...(this.#chunked ? {} : { 'content-length': SIZE }),
    });
    response.write(FILE.subarray(0, 600_000));
    await this.rest.passed;
    if (response.destroyed) return;
    response.write(FILE.subarray(600_000));
    await this.last.passed;
    response.end();
  };

  openAll(): void {
    this.head.open();
    this.rest.open();
    this.last.open();
  }
}

for (const role of ['reverse', 'branch'] as const) {
  await t.test(`${role}: who leaves when, and what is left`, async (test) => {
    for (const chunked of [false, true]) {
      for (const who of ['client', 'origin'] as const) {
        for (const when of WHEN) {
          const name = `${who} ${when}${chunked ? ', chunked' : ''}`;
          const clock = new ManualClock();
          const staged = new Staged(chunked);
          const origin = await Origin.start(test, { '/f': staged.handler });
          const reverse = await startReverse(test, origin);
          const branch = await startBranch(test, { clock, origin: reverse, lingerMs: 1_000 });
          const proxy = role === 'reverse' ? reverse : branch;
          const fields = role === 'reverse' ? V2_REQUEST : {};
          const client = await begin(proxy.port, '/f', { fields });
          test.teardown(() => client.close());
          await until(() => staged.response !== undefined, 'the origin was asked');
          const outcome = await breakOff(staged, client, who, when);
          await until(
            () => staged.record?.closed === true || clock.pending > 0,
            `${name}: the origin side ends or lingers`,
          );
          clock.advance(1_000);
          await until(() => staged.record?.closed === true, `${name}: the origin connection is closed`);
          await until(() => proxy.observations.count('exchange') >= 1, `${name}: the exchange is over`);
          if (who === 'origin') {
            if (when === 'before the head') test.equal(outcome?.status, 502, `${name}: the client is told`);
            else if (when === 'in the body' || chunked) {
              test.notOk(outcome?.complete, `${name}: the client sees the cut`);
              test.ok(same(outcome?.body ?? Buffer.alloc(0), FILE.subarray(0, outcome?.body.byteLength ?? 0)));
            } else test.ok(outcome?.complete && same(outcome.body, FILE), `${name}: the body was whole by then`);
          }
          const whole = when === 'at the end' && !(who === 'origin' && chunked);
          if (!whole) {
            test.equal(reverse.contentInformationStore.bytes, 0, `${name}: no content information is stored`);
            test.equal(branch.observations.count('stored'), 0, `${name}: nor anything in the branch`);
          }
          test.same([...reverse.observations.failures, ...branch.observations.failures], [], `${name}: nothing failed`);

          origin.resources.set('/f', { body: FILE, etag: '"true"', headers: { 'cache-control': 'max-age=60' } });
          isWhole(test, await ask(proxy.port, '/f'), `${name}: later requests work`);
          await ask(proxy.port, '/f', { fields: V2_REQUEST });
          await reverse.published();
          const coded = await ask(proxy.port, '/f', { fields: V2_REQUEST });
          test.equal(coded.headers['content-encoding'], 'peerdist', `${name}: and are published`);
          isWhole(test, await ask(branch.port, '/f'), `${name}: and served`);
        }
      }
    }
  });
}

/** Breaks an exchange off; what the client got of it, when it was not the client. */
async function breakOff(
  staged: Staged,
  client: Connection,
  who: 'client' | 'origin',
  when: (typeof WHEN)[number],
): Promise<Answer | undefined> {
  const cut = (): void => void staged.response?.socket?.destroy();
  if (when === 'before the head') {
    if (who === 'client') {
      client.leave();
      return undefined;
    }
    cut();
    return inTime(client.answer(), 'an answer after the origin was cut');
  }
  staged.head.open();
  const head = await inTime(client.head(), 'the head');
  const body = client.body(head);
  const pieces = [await readAtLeast(body, 500_000)];
  if (when === 'at the end') {
    staged.rest.open();
    pieces.push(await readAtLeast(body, SIZE - (pieces[0]?.byteLength ?? 0)));
  }
  if (who === 'client') {
    if (when === 'at the end') staged.last.open();
    client.leave();
    return undefined;
  }
  cut();
  pieces.push(await readAtLeast(body, SIZE));
  return { ...head, body: Buffer.concat(pieces), complete: client.complete };
}
