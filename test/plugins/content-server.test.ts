/**
 * The content server as a real reverse proxy before a real origin: Microsoft's content server tests (conformance checklist 2, C1 to C12),
 * a recorded iPXE client, and the rules of RFC 9110 and 9111 it must keep while it answers with something else than the body.
 */
import { createHash, createHmac } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  type Answer,
  ask,
  begin,
  Connection,
  Gate,
  inTime,
  Origin,
  type OriginFile,
  type OriginHandler,
  type Proxy,
  readAtLeast,
  type ReverseOptions,
  same,
  sendFile,
  startReverse,
  until,
  V1_REQUEST,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { fixtureText } from '../support/vectors.ts';

const PASS_PHRASE = 'server secret';
const BLOCK = 65_536;
const SEGMENT = 512 * BLOCK;
const DATE = 'Tue, 03 Feb 2026 10:00:00 GMT';
const MISSING_V1 = { ...V1_REQUEST, 'X-P2P-PeerDist': 'Version=1.0,MissingDataRequest=true' };
const HASH_REQUEST = {
  'X-P2P-PeerDist': 'Version=1.1',
  'X-P2P-PeerDistEx': 'MinContentInformation=1.0, MaxContentInformation=2.0, HashRequest=true',
};

// --- Content information, read and recomputed with nothing of lib --------------------------------------------------------------------

const sha256 = (...bytes: Uint8Array[]): Buffer => {
  const hash = createHash('sha256');
  for (const piece of bytes) hash.update(piece);
  return hash.digest();
};
const hmac = (name: string, key: Uint8Array, bytes: Uint8Array): Buffer => createHmac(name, key).update(bytes).digest();
const truncated = (bytes: Uint8Array): Buffer => createHash('sha512').update(bytes).digest().subarray(0, 32);

interface ReadSegment {
  readonly offset: number;
  readonly length: number;
  readonly hashOfData: Buffer;
  readonly secret: Buffer;
  readonly blocks: readonly Buffer[];
}

interface ReadInformation {
  readonly version: 1 | 2;
  readonly offsetInFirst: number;
  /** dwReadBytesInLastSegment or ullLengthOfRange. */
  readonly lengthField: number;
  readonly segments: readonly ReadSegment[];
}

function readV1(bytes: Buffer): ReadInformation {
  if (bytes.readUInt16LE(0) !== 0x0100 || bytes.readUInt32LE(2) !== 0x800c) throw new Error('not version 1, SHA-256');
  const count = bytes.readUInt32LE(14);
  const segments: ReadSegment[] = [];
  let list = 18 + count * 80;
  for (let index = 0; index < count; index += 1) {
    const at = 18 + index * 80;
    const first = list + 4;
    const blocks = Array.from({ length: bytes.readUInt32LE(list) }, (_, block) =>
      bytes.subarray(first + block * 32, first + 32 + block * 32),
    );
    list = first + blocks.length * 32;
    if (bytes.readUInt32LE(at + 12) !== BLOCK) throw new Error('block size');
    segments.push({
      offset: Number(bytes.readBigUInt64LE(at)),
      length: bytes.readUInt32LE(at + 8),
      hashOfData: bytes.subarray(at + 16, at + 48),
      secret: bytes.subarray(at + 48, at + 80),
      blocks,
    });
  }
  if (list !== bytes.byteLength) throw new Error(`${bytes.byteLength - list} bytes too many`);
  return { version: 1, offsetInFirst: bytes.readUInt32LE(6), lengthField: bytes.readUInt32LE(10), segments };
}

function readV2(bytes: Buffer): ReadInformation {
  if (bytes.readUInt16BE(0) !== 0x0002 || bytes[2] !== 4) throw new Error('not version 2');
  const segments: ReadSegment[] = [];
  let offset = Number(bytes.readBigUInt64BE(3));
  for (let at = 31; at < bytes.byteLength;) {
    if (bytes[at] !== 0) throw new Error('chunk type');
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    for (at += 5; at < end; at += 68) {
      const length = bytes.readUInt32BE(at);
      segments.push({
        offset,
        length,
        hashOfData: bytes.subarray(at + 4, at + 36),
        secret: bytes.subarray(at + 36, at + 68),
        blocks: [],
      });
      offset += length;
    }
  }
  return {
    version: 2,
    offsetInFirst: bytes.readUInt32BE(19),
    lengthField: Number(bytes.readBigUInt64BE(23)),
    segments,
  };
}

/** Recomputes every hash and secret from the file; says how many comparisons that were. */
function checkHashes(test: Test, information: ReadInformation, file: Uint8Array, phrase = PASS_PHRASE): number {
  let comparisons = 0;
  const wrong: string[] = [];
  const compare = (what: string, actual: Buffer | undefined, expected: Buffer | undefined): void => {
    comparisons += 1;
    if (expected === undefined || actual?.equals(expected) !== true) wrong.push(what);
  };
  const secretKey = Buffer.from(phrase, 'utf16le');
  for (const [index, segment] of information.segments.entries()) {
    const data = file.subarray(segment.offset, segment.offset + segment.length);
    if (information.version === 2) {
      compare(`HoD ${index}`, segment.hashOfData, truncated(data));
      compare(`Kp ${index}`, segment.secret, hmac('sha512', truncated(secretKey), segment.hashOfData).subarray(0, 32));
      continue;
    }
    const hashes: Buffer[] = [];
    for (let at = 0; at < data.byteLength; at += BLOCK) hashes.push(sha256(data.subarray(at, at + BLOCK)));
    for (const [block, hash] of segment.blocks.entries()) compare(`block ${index}.${block}`, hash, hashes[block]);
    compare(`HoD ${index}`, segment.hashOfData, sha256(...hashes));
    compare(`Kp ${index}`, segment.secret, hmac('sha256', sha256(secretKey), segment.hashOfData));
  }
  test.same(wrong, [], `${comparisons} hashes and secrets recomputed`);
  return comparisons;
}

// --- Set-up --------------------------------------------------------------------------------------------------------------------------

type Fields = Readonly<Record<string, string>>;

interface Office {
  readonly origin: Origin;
  readonly reverse: Proxy;
  readonly get: (target: string, fields?: Fields, method?: string) => Promise<Answer>;
  /** Downloads with a version 1 request and waits until the content is published. */
  readonly publish: (target: string, fields?: Fields) => Promise<Answer>;
}

async function office(
  test: Test,
  resources: Readonly<Record<string, OriginFile | OriginHandler>>,
  options: ReverseOptions = {},
): Promise<Office> {
  const origin = await Origin.start(test, resources);
  const reverse = await startReverse(test, origin, { secret: ServerSecret.fromUtf16(PASS_PHRASE), ...options });
  const get: Office['get'] = (target, fields = {}, method = 'GET') => ask(reverse.port, target, { fields, method });
  return {
    origin,
    reverse,
    get,
    async publish(target, fields = {}) {
      const before = reverse.observations.count('publication', { result: 'completed' });
      const answer = await get(target, { ...V1_REQUEST, ...fields });
      await reverse.published(before + 1);
      return answer;
    },
  };
}

/** Nothing may have failed behind the scenes. */
function noFailures(test: Test, { reverse, origin }: Pick<Office, 'reverse' | 'origin'>): void {
  test.same([reverse.observations.failures, origin.errors], [[], []], 'no plug-in failed');
}

const isCoded = (answer: Answer): boolean => answer.headers['content-encoding'] === 'peerdist';
const isHinted = (answer: Answer): boolean => answer.headers['x-p2p-peerdistex'] === 'MakeHashRequest=true';

function isPlain(test: Test, answer: Answer, body: Uint8Array | string, what: string): boolean {
  return test.same(
    [answer.status, answer.headers['content-encoding'], answer.complete, same(answer.body, body)],
    [200, undefined, true, true],
    what,
  );
}

const big = (seed: number, length = 200_000): Uint8Array => seededBytes(seed, length);
const FILE = big(3);

// --- Microsoft's tests ---------------------------------------------------------------------------------------------------------------

await t.test('C1, C2, C5, C6, C8 to C12: a file of 79 KB', async (test) => {
  const file = Buffer.alloc(79 * 1024);
  const path = '/MultipleBlocks.txt';
  const { get, publish, origin, reverse } = await office(test, {
    [path]: { body: file, etag: '"zeros"', lastModified: DATE },
  });
  isPlain(test, await publish(path), file, 'C1: the first request is answered with the file');

  const v1 = await get(path, V1_REQUEST);
  test.equal(v1.headers['content-encoding'], 'peerdist', 'C1: then with content information');
  const one = readV1(v1.body);
  test.equal(checkHashes(test, one, file), 4);
  test.same([one.segments.length, one.segments[0]?.length, one.offsetInFirst], [1, file.byteLength, 0]);
  test.ok([0, file.byteLength].includes(one.lengthField), 'dwReadBytesInLastSegment');

  const v2 = await get(path, V2_REQUEST);
  test.equal(v2.headers['content-encoding'], 'peerdist', 'C2: the same hash run made version 2');
  const two = readV2(v2.body);
  checkHashes(test, two, file);
  test.equal(
    two.segments.reduce((sum, { length }) => sum + length, 0),
    file.byteLength,
  );
  test.ok([0, file.byteLength].includes(two.lengthField), 'ullLengthOfRange');

  isPlain(test, await get(path, MISSING_V1), file, 'C5: missing data, version 1, no blank after the comma');
  isPlain(
    test,
    await get(path, { ...V2_REQUEST, 'X-P2P-PeerDist': 'Version=1.1,MissingDataRequest=true' }),
    file,
    'C6: missing data, version 2',
  );
  isPlain(test, await get(path), file, 'C8: no Accept-Encoding, no X-P2P-PeerDist');
  isPlain(test, await get(path, { 'X-P2P-PeerDist': 'Version=1.0' }), file, 'C8: no Accept-Encoding');
  isPlain(test, await get(path, { 'Accept-Encoding': 'peerdist' }), file, 'no X-P2P-PeerDist');
  isPlain(test, await get(path, { ...V1_REQUEST, 'X-P2P-PeerDist': 'Version=999.999' }), file, 'C9: version');
  test.ok(
    isCoded(await get(path, { ...V1_REQUEST, 'X-P2P-PeerDist': 'Version=1.0, MissingDataRequest=false' })),
    'C10: MissingDataRequest=false is none',
  );
  isPlain(
    test,
    await get(path, { ...V1_REQUEST, 'X-P2P-PeerDist': 'Version=1.0, MissingDataRequest=InvalidValue' }),
    file,
    'C11: any other value is one',
  );
  isPlain(
    test,
    await get(path, { ...V2_REQUEST, 'X-P2P-PeerDistEx': 'MinContentInformation=900.0, MaxContentInformation=999.0' }),
    file,
    'C12: no version in common',
  );
  test.ok(
    origin.requests.every(
      ({ headers }) =>
        headers['x-p2p-peerdist'] === undefined &&
        headers['x-p2p-peerdistex'] === undefined &&
        headers['accept-encoding']?.includes('peerdist') !== true,
    ),
    'the origin never learns about any of it',
  );
  noFailures(test, { reverse, origin });
});

await t.test('C7: two segments, 40,000,003 bytes', async (test) => {
  const file = seededBytes(40, 40_000_003);
  const path = '/MultipleSegments.txt';
  const { get, publish } = await office(test, { [path]: { body: file, etag: '"40"' } });
  isPlain(test, await publish(path), file, 'the file');
  const answer = await get(path, V1_REQUEST);
  const information = readV1(answer.body);
  test.same(
    information.segments.map(({ offset, length, blocks }) => [offset, length, blocks.length]),
    [
      [0, SEGMENT, 512],
      [SEGMENT, 40_000_003 - SEGMENT, 99],
    ],
  );
  test.equal(checkHashes(test, information, file), 512 + 99 + 4);
  test.equal(answer.headers['x-p2p-peerdist'], 'Version=1.0, ContentLength=40000003');
  checkHashes(test, readV2((await get(path, V2_REQUEST)).body), file);

  await test.test('ranges of it', async (sub) => {
    const range = (first: number, last: number): Promise<Answer> =>
      get(path, { ...V1_REQUEST, Range: `bytes=${first}-${last}` });
    const inOne = await range(70_000, 200_000);
    sub.same(
      [inOne.status, inOne.headers['content-encoding'], inOne.headers['content-range']],
      [206, 'peerdist', 'bytes 70000-200000/40000003'],
    );
    sub.equal(inOne.headers['x-p2p-peerdist'], 'Version=1.0, ContentLength=40000003');
    const first = readV1(inOne.body);
    sub.same(
      [first.offsetInFirst, first.lengthField, first.segments.length, first.segments[0]?.blocks.length],
      [70_000, 130_001, 1, 4],
      'the list begins at block 0 and ends with the range; the count begins at the range (facts 8 and 9)',
    );
    sub.equal(first.segments[0]?.length, SEGMENT, 'the segment is described whole');
    // Its HoD covers blocks that are not listed, so only the listed ones are compared.
    checkHashes(sub, first, file);

    const across = readV1((await range(SEGMENT - 10, SEGMENT + 99_999)).body);
    sub.same(
      [across.offsetInFirst, across.lengthField, across.segments.map(({ blocks }) => blocks.length)],
      [SEGMENT - 10, 100_000, [512, 2]],
    );
    checkHashes(sub, across, file);

    const second = await range(SEGMENT, 40_000_002);
    sub.equal(second.headers['content-range'], `bytes ${SEGMENT}-40000002/40000003`);
    sub.same(
      readV1(second.body).segments.map(({ offset, blocks }) => [offset, blocks.length]),
      [[SEGMENT, 99]],
    );

    for (const [spec, shown] of [
      ['39999990-', '39999990-40000002'],
      ['-13', '39999990-40000002'],
      ['39999990-99999999', '39999990-40000002'],
      ['0-0', '0-0'],
    ] as const) {
      const answered = await get(path, { ...V2_REQUEST, Range: `bytes=${spec}` });
      const [from = 0, to = 0] = shown.split('-').map(Number);
      sub.same(
        [answered.status, answered.headers['content-range'], answered.headers['content-encoding']],
        [206, `bytes ${shown}/40000003`, 'peerdist'],
        spec,
      );
      const { segments, offsetInFirst, lengthField } = readV2(answered.body);
      const start = (segments[0]?.offset ?? 0) + offsetInFirst;
      const end = (segments.at(-1)?.offset ?? 0) + (segments.at(-1)?.length ?? 0);
      sub.same([start, start + (lengthField || end - start)], [from, to + 1], 'version 2 describes the range');
      checkHashes(sub, readV2(answered.body), file);
    }
  });
});

await t.test('iPXE, verbatim, on one connection', async (test) => {
  const verbatim = (title: string): Buffer => {
    const section = fixtureText('ipxe-client-wire.txt').split(`### ${title}\n`)[1] ?? '';
    const head = section.slice(0, section.search(/\r?\n\r?\n/)).replaceAll(/\r?\n/g, '\r\n');
    test.match(head, /^GET \/f200k\.bin HTTP\/1\.1\r\n/);
    return Buffer.from(`${head}\r\n\r\n`, 'latin1');
  };
  const file = big(200);
  const { reverse } = await office(test, { '/f200k.bin': { body: file, etag: '"ipxe"', lastModified: DATE } });
  const connection = await Connection.open(reverse.port);
  test.teardown(() => connection.close());
  const exchange = (title: string): Promise<Answer> => {
    connection.send(verbatim(title));
    return inTime(connection.answer(), title);
  };
  const first = await exchange('origin request (verbatim)');
  isPlain(test, first, file, 'the first answer is the file');
  test.same(
    [first.headers['x-p2p-peerdist'], first.headers['x-p2p-peerdistex']],
    ['Version=1.1', 'MakeHashRequest=true'],
  );
  await reverse.published();
  const second = await exchange('origin request (verbatim)');
  test.same(
    [second.status, second.headers['content-encoding'], second.headers['x-p2p-peerdist']],
    [200, 'peerdist', 'Version=1.1, ContentLength=200000'],
  );
  const information = readV2(second.body);
  test.same([information.offsetInFirst, information.segments[0]?.offset], [0, 0]);
  checkHashes(test, information, file);
  const missing = await exchange('range fallback request (verbatim)');
  test.same(
    [missing.status, missing.headers['content-range'], missing.headers['content-encoding']],
    [206, 'bytes 0-65535/200000', undefined],
  );
  test.ok(same(missing.body, file.subarray(0, 65_536)));
});

// --- The life of a publication -------------------------------------------------------------------------------------------------------

await t.test('the first plain answer makes both versions available, whichever was asked for', async (test) => {
  const { get, publish } = await office(test, {
    '/a': { body: FILE, etag: '"a"' },
    '/b': { body: FILE, etag: '"b"' },
  });
  test.ok(isHinted(await publish('/a')), 'MakeHashRequest on the first plain answer');
  test.ok(isHinted(await publish('/b', V2_REQUEST)));
  for (const path of ['/a', '/b']) {
    checkHashes(test, readV1((await get(path, V1_REQUEST)).body), FILE);
    checkHashes(test, readV2((await get(path, V2_REQUEST)).body), FILE);
    test.equal((await get(path, V2_REQUEST)).headers['x-p2p-peerdist'], 'Version=1.1, ContentLength=200000');
  }
});

await t.test('what a coded answer and a plain one look like', async (test) => {
  const headers = { vary: 'Accept-Language', 'cache-control': 'max-age=60', 'x-own': 'kept', 'content-language': 'nl' };
  const { get, publish } = await office(test, { '/f': { body: FILE, etag: '"f"', lastModified: DATE, headers } });
  const plain = await publish('/f', { 'Accept-Language': 'nl' });
  const coded = await get('/f', { ...V1_REQUEST, 'Accept-Language': 'nl' });
  for (const [what, answer] of [
    ['plain', plain],
    ['coded', coded],
    ['not asked for', await get('/f')],
    ['304', await get('/f', { 'If-None-Match': '"f"' })],
    ['206', await get('/f', { Range: 'bytes=0-9' })],
  ] as const) {
    const vary = (answer.headers['vary'] ?? '').split(/\s*,\s*/).map((name) => name.toLowerCase());
    test.same(
      vary.toSorted(),
      ['accept-encoding', 'accept-language', 'x-p2p-peerdist', 'x-p2p-peerdistex'],
      `Vary, ${what}`,
    );
  }
  test.same(
    coded.lines.filter(([name]) => /^(?:content-encoding|x-p2p-peerdist)$/i.test(name)).map(([, value]) => value),
    ['peerdist', 'Version=1.0, ContentLength=200000'],
    'each exactly once, Version first',
  );
  test.equal(coded.version, '1.1');
  test.equal(coded.headers['content-length'], String(coded.body.byteLength));
  test.equal(coded.headers['accept-ranges'], 'bytes');
  test.same(
    ['etag', 'last-modified', 'cache-control', 'x-own', 'content-type', 'content-language'].map(
      (name) => coded.headers[name],
    ),
    ['"f"', DATE, 'max-age=60', 'kept', 'application/octet-stream', 'nl'],
    'end-to-end fields of the 200',
  );
  test.equal(coded.headers['x-p2p-peerdistex'], undefined);
  test.equal(plain.headers['content-length'], '200000');
});

await t.test('a hash request waits for a hash that is still running, and not for ever', async (test) => {
  const clock = new ManualClock();
  const [ends, hangs] = [new Gate(), new Gate()];
  const slow = (gate: Gate, etag: string): OriginFile => ({
    body: FILE,
    etag,
    firstBytes: 100_000,
    afterFirst: gate.passed,
  });
  const { reverse, origin } = await office(
    test,
    { '/ends': slow(ends, '"ends"'), '/hangs': slow(hangs, '"hangs"') },
    { clock, hashWaitMs: 3_000 },
  );
  const first = await begin(reverse.port, '/ends', { fields: V1_REQUEST });
  test.teardown(() => first.close());
  const body = first.body(await first.head());
  await readAtLeast(body, 100_000);
  const waiting = [
    ask(reverse.port, '/ends', { fields: HASH_REQUEST }),
    ask(reverse.port, '/ends', { fields: { ...HASH_REQUEST, 'Accept-Encoding': 'peerdist' } }),
  ];
  await until(() => clock.pending === 2, 'both hash requests wait');
  test.equal(origin.asked('/ends').length, 1, 'nothing was asked of the origin meanwhile');
  ends.open();
  for (const answer of await Promise.all(waiting)) {
    test.equal(answer.headers['x-p2p-peerdist'], 'Version=1.1, ContentLength=200000');
    checkHashes(test, readV2(answer.body), FILE);
  }
  test.equal(clock.pending, 0, 'no timer is left');
  test.same(origin.bodies('/ends'), ['200+200000'], 'one body');
  await readAtLeast(body, 100_000);

  const second = await begin(reverse.port, '/hangs', { fields: V1_REQUEST });
  test.teardown(() => second.close());
  await readAtLeast(second.body(await second.head()), 100_000);
  const late = ask(reverse.port, '/hangs', { fields: HASH_REQUEST });
  await until(() => clock.pending === 1, 'it waits');
  clock.advance(2_999);
  test.equal(origin.asked('/hangs').length, 1);
  clock.advance(1);
  await until(() => origin.asked('/hangs').length === 2, 'it goes on without the hash');
  hangs.open();
  isPlain(test, await late, FILE, 'and gets the body');
});

await t.test('several cold clients at once: everybody the right bytes, one publication', async (test) => {
  const { reverse, get, origin } = await office(test, { '/f': { body: FILE, etag: '"f"' } });
  const answers = await Promise.all(
    Array.from({ length: 8 }, (_, index) => get('/f', index % 2 === 0 ? V1_REQUEST : V2_REQUEST)),
  );
  for (const answer of answers) {
    if (isCoded(answer)) test.equal(answer.status, 200, 'the last may come after the first has ended');
    else isPlain(test, answer, FILE, 'a cold client');
  }
  await reverse.published();
  test.ok(isCoded(await get('/f', V1_REQUEST)));
  test.equal(reverse.observations.count('publication', { result: 'failed' }), 0);
  test.equal(origin.asked('/f').length, 9);
  noFailures(test, { reverse, origin });
});

await t.test('changed content is hashed anew and never answered with old hashes', async (test) => {
  const { get, publish, origin, reverse } = await office(test, { '/f': { body: FILE, etag: '"old"' } });
  await publish('/f');
  for (let round = 0; round < 3; round += 1) test.ok(isCoded(await get('/f', V1_REQUEST)));
  test.same(
    origin.asked('/f').map(({ status, headers }) => [status, headers['if-none-match']]),
    [
      [200, undefined],
      [304, '"old"'],
      [304, '"old"'],
      [304, '"old"'],
    ],
    'the origin is asked about every request',
  );
  const changed = big(4, 210_000);
  origin.resources.set('/f', { body: changed, etag: '"new"' });
  const answer = await publish('/f');
  isPlain(test, answer, changed, 'the new body at once');
  test.ok(isHinted(answer));
  checkHashes(test, readV1((await get('/f', V1_REQUEST)).body), changed);
  origin.resources.set('/f', { body: FILE, etag: '"old"' });
  isPlain(test, await get('/f', V1_REQUEST), FILE, 'and back again: not the hashes of the new one');
  await until(() => origin.asked('/f').every(({ closed }) => closed), 'the origin has answered');
  const again = await get('/f', V1_REQUEST);
  if (isCoded(again)) checkHashes(test, readV1(again.body), FILE);
  else isPlain(test, again, FILE, 'the body');
  noFailures(test, { reverse, origin });
});

await t.test('content that comes back to an earlier state is published again', async (test) => {
  const { get, publish, origin, reverse } = await office(test, { '/f': { body: FILE, etag: '"old"' } });
  await publish('/f');
  origin.resources.set('/f', { body: big(4), etag: '"new"' });
  await publish('/f');
  origin.resources.set('/f', { body: FILE, etag: '"old"' });
  isPlain(test, await get('/f', V1_REQUEST), FILE, 'the body');
  await reverse.published(3);
  const again = await get('/f', V1_REQUEST);
  test.ok(isCoded(again));
  checkHashes(test, readV1(again.body), FILE);
});

await t.test('what else the origin says of known content goes through', async (test) => {
  const { get, publish, origin } = await office(test, { '/f': { body: FILE, etag: '"f"' } });
  await publish('/f');
  for (const status of [401, 403, 404, 410, 429, 500, 503]) {
    origin.resources.set('/f', (_request, response) => {
      response
        .writeHead(status, { 'www-authenticate': 'Basic realm="x"', 'content-type': 'text/plain', 'retry-after': '7' })
        .end(`no ${status}`);
    });
    const answer = await get('/f', V1_REQUEST);
    test.same(
      [answer.status, answer.body.toString(), answer.headers['www-authenticate'], answer.headers['retry-after']],
      [status, `no ${status}`, 'Basic realm="x"', '7'],
    );
    test.equal(answer.headers['x-p2p-peerdist'], undefined);
  }
  origin.resources.set('/f', (_request, response) => {
    response.writeHead(302, { location: '/g' }).end();
  });
  const moved = await get('/f', V1_REQUEST);
  test.same([moved.status, moved.headers['location']], [302, '/g']);
  origin.resources.set('/f', { body: FILE, etag: '"f"' });
  const back = await get('/f', V1_REQUEST);
  if (isCoded(back)) checkHashes(test, readV1(back.body), FILE);
  else isPlain(test, back, FILE, 'the body');
});

await t.test('what counts as agreement', async (test) => {
  /** How the origin answers a conditional request for known content; other requests get the body. */
  const cases: [string, number, Record<string, string>, boolean][] = [
    ['304 without a validator', 304, {}, true],
    ['304 with the same tag', 304, { etag: '"f"' }, true],
    ['304 with another tag', 304, { etag: '"other"' }, false],
    ['304 with a weak tag', 304, { etag: 'W/"f"' }, false],
    ['200 with the same tag', 200, { etag: '"f"' }, true],
    ['200 with a weak tag', 200, { etag: 'W/"f"' }, false],
    ['200 without a tag', 200, {}, false],
    ['200 with the date alone', 200, { 'last-modified': DATE }, false],
    ['200 with the same tag, encoded', 200, { etag: '"f"', 'content-encoding': 'br' }, false],
    ['200 with the same tag and no-transform', 200, { etag: '"f"', 'cache-control': 'no-transform' }, false],
    ['304 with no-transform', 304, { etag: '"f"', 'cache-control': 'no-transform' }, false],
    ['304 with Vary: *', 304, { etag: '"f"', vary: '*' }, false],
  ];
  for (const [what, status, headers, agrees] of cases) {
    const file: OriginFile = { body: FILE, etag: '"f"', lastModified: DATE };
    const { get, publish, origin } = await office(test, { '/f': file });
    await publish('/f');
    origin.resources.set('/f', (request, response, record) => {
      if (request.headers['if-none-match'] === undefined) return sendFile(file, request, response, record);
      response.writeHead(status, headers).end(status === 304 ? undefined : FILE);
      return undefined;
    });
    const answer = await get('/f', V1_REQUEST);
    test.equal(isCoded(answer), agrees, what);
    if (agrees) checkHashes(test, readV1(answer.body), FILE);
    else {
      test.equal(answer.status, 200, `${what}: never a 304 the client did not ask for`);
      test.ok(same(answer.body, FILE), `${what}: the body`);
    }
  }
});

await t.test('a 200 that agrees is stopped where it is', async (test) => {
  const file = Buffer.alloc(40_000_000, 'x');
  const { get, publish, origin } = await office(test, { '/f': { body: file, etag: '"f"' } });
  await publish('/f');
  origin.resources.set('/f', (request, response, record) => {
    delete request.headers['if-none-match'];
    return sendFile({ body: file, etag: '"f"' }, request, response, record);
  });
  test.ok(isCoded(await get('/f', V2_REQUEST)));
  const record = origin.asked('/f').at(-1);
  await until(() => record?.closed === true, 'the connection to the origin is closed');
  test.notOk(record?.finished, 'the body was not sent to its end');
  test.ok((record?.sent ?? 0) < 30_000_000, `${record?.sent} bytes were`);
});

await t.test('a date alone', async (test) => {
  const { get, publish, origin } = await office(test, { '/f': { body: FILE, lastModified: DATE } });
  test.ok(isHinted(await publish('/f')));
  const coded = await get('/f', V1_REQUEST);
  test.ok(isCoded(coded));
  test.equal(coded.headers['last-modified'], DATE);
  test.same([origin.asked('/f').at(-1)?.status, origin.asked('/f').at(-1)?.headers['if-modified-since']], [304, DATE]);
  for (const fields of [{ Cookie: 'user=1' }, { Authorization: 'Basic eDp5' }] as Fields[]) {
    isPlain(test, await get('/f', { ...V1_REQUEST, ...fields }), FILE, `is none for ${Object.keys(fields)[0]}`);
  }
  origin.resources.set('/f', { body: big(5), lastModified: 'Tue, 03 Feb 2026 10:00:01 GMT' });
  isPlain(test, await get('/f', V1_REQUEST), big(5), 'a later one is other content');
});

await t.test('what was hashed for one user and is named by a date alone goes to nobody else', async (test) => {
  for (const [field, value] of [
    ['Cookie', 'user=1'],
    ['Authorization', 'Bearer 1'],
  ] as const) {
    // The page of user 1 and the one for strangers were both last modified when the site was.
    const { get, reverse } = await office(test, {
      '/page': (request, response, record) => {
        const own = request.headers[field.toLowerCase()] === value;
        return sendFile({ body: own ? big(31) : big(32), lastModified: DATE }, request, response, record);
      },
    });
    isPlain(test, await get('/page', { ...V1_REQUEST, [field]: value }), big(31), 'user 1');
    await until(() => reverse.observations.count('exchange') === 1, 'the exchange is over');
    isPlain(
      test,
      await get('/page', V1_REQUEST),
      big(32),
      `a stranger does not get the hashes of a page with ${field}`,
    );
  }
});

await t.test('a tag agrees for requests with credentials too, and theirs are asked about', async (test) => {
  const file: OriginFile = { body: FILE, etag: '"f"' };
  const { get, publish, origin } = await office(test, {
    '/f': (request, response, record) => {
      if (request.headers.authorization === 'Bearer good') return sendFile(file, request, response, record);
      response.writeHead(401, { 'www-authenticate': 'Bearer' }).end('who?');
      return undefined;
    },
  });
  const good = { Authorization: 'Bearer good' };
  await publish('/f', good);
  test.ok(isCoded(await get('/f', { ...V1_REQUEST, ...good })));
  for (const fields of [{}, { Authorization: 'Bearer bad' }] as Fields[]) {
    const refused = await get('/f', { ...V1_REQUEST, ...fields });
    test.same(
      [refused.status, refused.body.toString()],
      [401, 'who?'],
      'content information is no way round the origin',
    );
  }
  test.equal(origin.asked('/f').at(1)?.headers['authorization'], 'Bearer good');
});

await t.test('the conditions of the client are its own', async (test) => {
  const { get, publish, origin } = await office(test, { '/f': { body: FILE, etag: '"f"', lastModified: DATE } });
  await publish('/f');
  const notModified = await get('/f', { ...V1_REQUEST, 'If-None-Match': '"f"' });
  test.same([notModified.status, notModified.body.byteLength, isCoded(notModified)], [304, 0, false]);
  const since = await get('/f', { ...V1_REQUEST, 'If-Modified-Since': DATE });
  test.same([since.status, origin.asked('/f').at(-1)?.headers['if-none-match']], [304, undefined]);
  const other = await get('/f', { ...V1_REQUEST, 'If-None-Match': '"mine"' });
  test.equal(origin.asked('/f').at(-1)?.headers['if-none-match'], '"mine"', 'are passed on as they are');
  test.ok(isCoded(other), 'a 200 with the same strong tag agrees');
  test.equal((await get('/f', { ...V1_REQUEST, 'If-Match': '"mine"' })).status, 412);
  test.ok(isCoded(await get('/f', { ...V1_REQUEST, 'If-Match': '"f"' })));
});

await t.test('Range that content information cannot answer, and If-Range', async (test) => {
  const { get, publish } = await office(test, { '/f': { body: FILE, etag: '"f"', lastModified: DATE } });
  const cold = await get('/f', { ...V1_REQUEST, Range: 'bytes=10-19' });
  test.same([cold.status, cold.headers['content-range'], isHinted(cold)], [206, 'bytes 10-19/200000', false], 'cold');
  test.ok(same(cold.body, FILE.subarray(10, 20)));
  await publish('/f');
  const range = (value: string, fields: Fields = {}): Promise<Answer> =>
    get('/f', { ...V1_REQUEST, Range: value, ...fields });
  const outside = await range('bytes=200000-');
  test.same([outside.status, outside.headers['content-range'], isCoded(outside)], [416, 'bytes */200000', false]);
  isPlain(test, await range('bytes=0-9,100-109'), FILE, 'several ranges are for the origin, and this one ignores them');
  const unit = await range('lines=1-2');
  test.same([unit.status, isCoded(unit)], [200, true], 'an unknown unit is ignored');
  for (const [value, status] of [
    ['"f"', 206],
    [DATE, 206],
    ['"other"', 200],
    ['W/"f"', 200],
    ['Tue, 03 Feb 2026 10:00:01 GMT', 200],
  ] as const) {
    const answer = await range('bytes=10-19', { 'If-Range': value });
    test.same([answer.status, isCoded(answer)], [status, true], `If-Range: ${value}`);
    const { segments, offsetInFirst, lengthField } = readV1(answer.body);
    test.same([offsetInFirst, segments[0]?.blocks.length], status === 206 ? [10, 1] : [0, 4]);
    if (status === 206) test.equal(lengthField, 10);
  }
  const missing = await range('bytes=65536-131071', { 'X-P2P-PeerDist': 'Version=1.0, MissingDataRequest=true' });
  test.same([missing.status, isCoded(missing)], [206, false]);
  test.ok(same(missing.body, FILE.subarray(65_536, 131_072)), 'missing data');
});

// --- What must not be published, and to whom nothing coded goes ----------------------------------------------------------------------

await t.test('answers that are never published', async (test) => {
  const body = FILE.subarray(0, 140_000);
  const zipped = gzipSync(body, { level: 0 });
  const { get, origin, reverse } = await office(
    test,
    {
      '/weak': { body, etag: 'W/"f"' },
      '/weak-and-date': { body, etag: 'W/"f"', lastModified: DATE },
      '/nameless': { body },
      '/no-transform': { body, etag: '"f"', headers: { 'cache-control': 'max-age=9, No-Transform' } },
      '/vary-all': { body, etag: '"f"', headers: { vary: '*' } },
      '/no-store': { body, etag: '"f"', headers: { 'cache-control': 'no-store' } },
      '/zipped': { body: zipped, etag: '"f"', headers: { 'content-encoding': 'gzip' } },
      '/tiny': { body: FILE.subarray(0, 65_535), etag: '"f"' },
      '/tiny-chunked': { body: FILE.subarray(0, 65_535), etag: '"f"', chunked: true },
      '/empty': { body: '', etag: '"f"' },
      '/large': { body: FILE.subarray(0, 150_001), etag: '"f"' },
      '/large-chunked': { body: FILE.subarray(0, 150_001), etag: '"f"', chunked: true },
      '/error': (_request, response) => void response.writeHead(500, { etag: '"f"' }).end(body),
      '/partial': (_request, response) =>
        void response.writeHead(206, { etag: '"f"', 'content-range': 'bytes 0-139999/300000' }).end(body),
    },
    { maxBytes: 150_000 },
  );
  for (const [path, file] of origin.resources) {
    for (let round = 0; round < 3; round += 1) {
      const answer = await get(path, V1_REQUEST);
      test.same([isCoded(answer), answer.complete], [false, true], path);
      // Of a chunked body the length is not known when the head is sent.
      if (!path.endsWith('chunked')) test.notOk(isHinted(answer), `${path}: no promise`);
      test.ok(same(answer.body, typeof file === 'object' ? file.body : body), `${path}: every byte`);
      if (path === '/zipped') test.equal(answer.headers['content-encoding'], 'gzip');
      if (path === '/vary-all') test.equal(answer.headers['vary'], '*');
    }
  }
  test.equal(reverse.contentInformationStore.bytes, 0, 'nothing is stored');
  test.ok(reverse.observations.count('publication', { result: 'too_large' }) > 0, 'given up on its way');
  origin.resources.set('/least', { body: FILE.subarray(0, 65_536), etag: '"l"' });
  origin.resources.set('/most', { body: FILE.subarray(0, 150_000), etag: '"m"' });
  for (const path of ['/least', '/most']) {
    const before = reverse.observations.count('publication', { result: 'completed' });
    await get(path, V1_REQUEST);
    await reverse.published(before + 1);
    test.ok(isCoded(await get(path, V1_REQUEST)), `${path}: the limit itself is inside`);
  }
  noFailures(test, { reverse, origin });
});

await t.test('requests that are never answered with content information, and some that are', async (test) => {
  const { get, publish, origin, reverse } = await office(test, {
    '/f': { body: FILE, etag: '"f"', lastModified: DATE },
  });
  await publish('/f');
  const head = await get('/f', V1_REQUEST, 'HEAD');
  test.same(
    [head.status, head.headers['content-length'], head.headers['content-encoding'], head.body.byteLength],
    [200, '200000', undefined, 0],
    'HEAD is about the file',
  );
  test.match(head.headers['vary'] ?? '', /x-p2p-peerdist/i);
  const old = await ask(reverse.port, '/f', { version: '1.0', fields: V1_REQUEST });
  test.same([old.headers['content-encoding'], same(old.body, FILE)], [undefined, true], 'HTTP/1.0');
  for (const fields of [
    { ...V1_REQUEST, 'Cache-Control': 'no-transform' },
    { ...V1_REQUEST, 'Accept-Encoding': '*' },
    { ...V1_REQUEST, 'Accept-Encoding': 'peerdist;q=0' },
    { ...V1_REQUEST, 'Accept-Encoding': 'gzip, peerdist;q=0.000' },
    { ...V1_REQUEST, 'X-P2P-PeerDist': 'nonsense' },
    { ...V1_REQUEST, 'X-P2P-PeerDist': '' },
    { ...V2_REQUEST, 'X-P2P-PeerDistEx': 'MinContentInformation=3.0, MaxContentInformation=4.0' },
    { ...V2_REQUEST, 'X-P2P-PeerDistEx': 'MinContentInformation=1.1, MaxContentInformation=1.9' },
  ]) {
    isPlain(test, await get('/f', fields), FILE, JSON.stringify(fields));
  }
  for (const fields of [
    { ...V1_REQUEST, 'Accept-Encoding': 'gzip;q=0.5, PeerDist;q=0.1, br' },
    { ...V1_REQUEST, 'X-P2P-PeerDist': ', Version=1.0' },
    { ...V1_REQUEST, 'X-P2P-PeerDist': ',VERSION=1.0' },
    { ...V2_REQUEST, 'X-P2P-PeerDistEx': ',mincontentinformation=1.0,MAXCONTENTINFORMATION=2.0' },
    { ...V2_REQUEST, 'X-P2P-PeerDistEx': 'MinContentInformation=1.0, MaxContentInformation=9.7' },
  ]) {
    test.ok(isCoded(await get('/f', fields)), JSON.stringify(fields));
  }
  test.ok(
    origin.asked('/f').some(({ headers }) => headers['accept-encoding'] === 'gzip;q=0.5, br'),
    'only peerdist is taken out of Accept-Encoding',
  );
  await get('/f', { 'Accept-Encoding': 'gzip, deflate' });
  test.equal(origin.asked('/f').at(-1)?.headers['accept-encoding'], 'gzip, deflate', 'other clients are left alone');
  await get('/f');
  test.equal(origin.asked('/f').at(-1)?.headers['accept-encoding'], undefined);
});

await t.test('POST and its friends pass with their bodies', async (test) => {
  const { reverse, origin, publish, get } = await office(test, { '/f': { body: FILE, etag: '"f"' } });
  await publish('/f');
  origin.resources.set('/f', (_request, response, record) => {
    response.writeHead(201, { etag: '"f"' }).end(`${record.method} ${record.body.byteLength}`);
  });
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const answer = await ask(reverse.port, '/f', { method, fields: V1_REQUEST, body: FILE });
    test.same([answer.status, answer.body.toString()], [201, `${method} 200000`]);
    const record = origin.asked('/f').at(-1);
    test.ok(same(record?.body ?? Buffer.alloc(0), FILE), `${method}: every byte`);
    test.equal(record?.headers['x-p2p-peerdist'], undefined);
  }
  origin.resources.set('/f', { body: FILE, etag: '"f"' });
  const after = await get('/f', V1_REQUEST);
  test.ok(isCoded(after) || same(after.body, FILE));
});

await t.test('a body that was cut or left never becomes content information', async (test) => {
  const gate = new Gate();
  const cut: OriginHandler = (request, response) => {
    response.writeHead(200, {
      etag: '"c"',
      ...(request.url === '/cut' ? { 'content-length': FILE.byteLength } : {}),
    });
    response.write(FILE.subarray(0, 100_000), () => response.destroy());
  };
  const { reverse, get, origin } = await office(test, {
    '/left': { body: FILE, etag: '"l"', firstBytes: 100_000, afterFirst: gate.passed },
    '/cut': cut,
    '/cut-chunked': cut,
  });
  const client = await begin(reverse.port, '/left', { fields: V1_REQUEST });
  await readAtLeast(client.body(await client.head()), 100_000);
  client.leave();
  await until(() => origin.asked('/left')[0]?.closed === true, 'the origin connection is closed with the client');
  gate.open();
  test.notOk(origin.asked('/left')[0]?.finished);
  for (const path of ['/cut', '/cut-chunked']) {
    const answer = await get(path, V1_REQUEST);
    test.notOk(answer.complete, `${path}: the client sees that it was cut`);
    test.ok(same(answer.body, FILE.subarray(0, answer.body.byteLength)), 'and got nothing else');
  }
  await until(() => reverse.observations.count('publication', { result: 'aborted' }) === 3, 'all three are given up');
  test.equal(reverse.observations.count('publication', { result: 'completed' }), 0);
  test.equal(reverse.contentInformationStore.bytes, 0);
  for (const path of ['/left', '/cut', '/cut-chunked']) {
    origin.resources.set(path, { body: FILE, etag: '"c"' });
    const before = reverse.observations.count('publication', { result: 'completed' });
    isPlain(test, await get(path, V1_REQUEST), FILE, `${path}: the next client gets it whole`);
    await reverse.published(before + 1);
    test.ok(isCoded(await get(path, V1_REQUEST)), 'and it is published then');
  }
  noFailures(test, { reverse, origin });
});

// --- Fields --------------------------------------------------------------------------------------------------------------------------

await t.test('fields of one answer that are not given with another', async (test) => {
  let visit = 0;
  const file = (): OriginFile => {
    visit += 1;
    const headers = {
      'set-cookie': [`session=${visit}`, `other=${visit}`],
      'cache-control': 'max-age=60, private="X-User", no-cache="x-token, X-Other"',
      'x-user': `user ${visit}`,
      'x-token': `token ${visit}`,
      'x-other': `other ${visit}`,
      'x-public': 'everybody',
      'content-digest': 'sha-256=:AAAA:',
      'repr-digest': 'sha-256=:BBBB:',
      'www-authenticate': 'Negotiate YYYY',
      'authentication-info': 'nextnonce="1"',
    };
    return { body: FILE, etag: '"f"', headers, headers304: { 'x-fresh': String(visit) } };
  };
  const { get, publish, origin } = await office(test, {
    '/f': (request, response, record) => sendFile(file(), request, response, record),
  });
  const plain = await publish('/f');
  test.match(plain.headers, {
    'set-cookie': 'session=1, other=1',
    'x-user': 'user 1',
    'content-digest': 'sha-256=:AAAA:',
  });
  const coded = await get('/f', V1_REQUEST);
  test.ok(isCoded(coded));
  for (const name of [
    'set-cookie',
    'x-user',
    'x-token',
    'x-other',
    'content-digest',
    'repr-digest',
    'www-authenticate',
    'authentication-info',
  ]) {
    test.equal(coded.headers[name], undefined, `${name} of the 200 is not replayed`);
  }
  test.match(coded.headers, { 'x-public': 'everybody', 'x-fresh': '2' }, 'fields of the 304 come in');

  origin.resources.set('/f', {
    body: FILE,
    etag: '"f"',
    headers304: {
      'set-cookie': ['mine=1', 'mine=2'],
      'x-public': 'changed',
      'cache-control': 'max-age=7',
      expires: DATE,
    },
  });
  const own = await get('/f', V1_REQUEST);
  test.same(
    own.lines.filter(([name]) => name.toLowerCase() === 'set-cookie').map(([, value]) => value),
    ['mine=1', 'mine=2'],
    "a 304's own Set-Cookie goes through, line by line",
  );
  test.match(own.headers, { 'x-public': 'changed', 'cache-control': 'max-age=7', expires: DATE }, 'its fields replace');
  origin.resources.set('/f', { body: FILE, etag: '"f"', headers304: {} });
  const later = await get('/f', V1_REQUEST);
  test.equal(later.headers['set-cookie'], undefined, 'once');
  test.match(later.headers, { 'x-public': 'changed', 'cache-control': 'max-age=7' });
});

// --- Keys ----------------------------------------------------------------------------------------------------------------------------

await t.test('variants by a request field', async (test) => {
  const bodies: Record<string, Uint8Array> = { nl: big(11), de: big(12) };
  const { get, publish } = await office(test, {
    '/f': (request, response, record) => {
      const body = bodies[request.headers['accept-language'] ?? ''] ?? FILE;
      return sendFile({ body, etag: '"same"', headers: { vary: 'Accept-Language' } }, request, response, record);
    },
  });
  for (const language of ['nl', 'de']) {
    isPlain(test, await publish('/f', { 'Accept-Language': language }), bodies[language] as Uint8Array, language);
  }
  for (const language of ['nl', 'de', 'nl']) {
    const coded = await get('/f', { ...V1_REQUEST, 'Accept-Language': language });
    test.ok(isCoded(coded));
    checkHashes(test, readV1(coded.body), bodies[language] as Uint8Array);
  }
  isPlain(test, await get('/f', { ...V1_REQUEST, 'Accept-Language': 'fr' }), FILE, 'a third is not mistaken for one');
});

await t.test('targets are told apart byte for byte, and reach the origin so', async (test) => {
  const targets = [
    '/f',
    '/f?',
    '/f?a=%2f',
    '/f?a=%2F',
    '/f?a=/',
    '/./f',
    '/x/../f',
    '//f',
    '/f?b&a',
    '/f?a&b',
    '/%66',
    "/f?q='[x]|\\",
  ];
  const body = (index: number): Uint8Array => big(100 + index, 70_000);
  const { get, publish, origin } = await office(
    test,
    Object.fromEntries(targets.map((target, index) => [target, { body: body(index), etag: '"f"' }])),
  );
  for (const [index, target] of targets.entries()) isPlain(test, await publish(target), body(index), target);
  for (const [index, target] of targets.entries()) {
    const coded = await get(target, V1_REQUEST);
    test.ok(isCoded(coded), target);
    checkHashes(test, readV1(coded.body), body(index));
    test.equal(origin.asked(target).length, 2);
  }
});

await t.test('two Hosts are two resources where the Host is passed on, and one where it is not', async (test) => {
  const byHost: OriginHandler = (request, response, record) =>
    sendFile({ body: request.headers.host === 'a.test' ? big(21) : big(22), etag: '"f"' }, request, response, record);
  const { reverse, origin } = await office(test, { '/f': byHost }, { host: { preserveHost: true } });
  const get = (host: string): Promise<Answer> => ask(reverse.port, '/f', { host, fields: V1_REQUEST });
  // Hosts no resolver knows: the connection goes to the origin whatever they say.
  const arrived = isPlain(test, await get('a.test'), big(21), 'a') && isPlain(test, await get('b.test'), big(22), 'b');
  if (arrived) {
    await reverse.published(2);
    checkHashes(test, readV1((await get('a.test')).body), big(21));
    checkHashes(test, readV1((await get('b.test')).body), big(22));
    checkHashes(test, readV1((await get('A.TEST')).body), big(21));
  }

  const plain = await startReverse(test, origin, { secret: ServerSecret.fromUtf16(PASS_PHRASE) });
  isPlain(test, await ask(plain.port, '/f', { host: 'a.test', fields: V1_REQUEST }), big(22), "the origin's own Host");
  test.equal(origin.requests.at(-1)?.headers['host'], origin.authority);
  await plain.published();
  checkHashes(test, readV1((await ask(plain.port, '/f', { host: 'b.test', fields: V1_REQUEST })).body), big(22));
});

await t.test('a Host that is passed on never says where to connect to', async (test) => {
  const inner = await Origin.start(test, { '/f': { body: 'inner secrets' } });
  const { reverse, origin } = await office(test, { '/f': { body: 'public' } }, { host: { preserveHost: true } });
  const target = `http://${inner.authority}/f`;
  for (const answer of [
    await ask(reverse.port, '/f', { host: inner.authority }),
    await ask(reverse.port, target, { host: origin.authority }),
  ]) {
    test.equal(answer.body.toString(), 'public');
  }
  test.equal(inner.requests.length, 0, 'nobody gets past the origin by naming another server');
});

await t.test('another secret gives other segment secrets for the same hashes', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: FILE, etag: '"f"' } });
  const informations: ReadInformation[] = [];
  for (const phrase of ['one', 'two']) {
    const reverse = await startReverse(test, origin, { secret: ServerSecret.fromUtf16(phrase) });
    await ask(reverse.port, '/f', { fields: V2_REQUEST });
    await reverse.published();
    const information = readV2((await ask(reverse.port, '/f', { fields: V2_REQUEST })).body);
    checkHashes(test, information, FILE, phrase);
    informations.push(information);
  }
  const [one = [], two = []] = informations.map(({ segments }) => segments);
  test.ok(one.length > 1);
  test.same(
    one.map(({ hashOfData }) => hashOfData.toString('hex')),
    two.map(({ hashOfData }) => hashOfData.toString('hex')),
  );
  test.notOk(one.some(({ secret }, index) => two[index]?.secret.equals(secret) === true));
});
