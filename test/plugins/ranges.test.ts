/**
 * Range requests to the block cache: every form of them against contents that are there, there in parts, on their way, and described by a reverse
 * proxy; then clients that fetch in pieces, and origins that do so badly.
 */
import * as fc from 'fast-check';
import { createServer } from 'node:net';
import t, { type Test } from 'tap';
import { ChunkQueue } from '../../plugins/block-cache/chunk-queue.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { parts } from '../support/multipart.ts';
import {
  type Answer,
  ask,
  begin,
  type BranchOptions,
  type Connection,
  Gate,
  inTime,
  Origin,
  type OriginFile,
  type OriginHandler,
  type Proxy,
  readAtLeast,
  same,
  sendFile,
  startBranch,
  startReverse,
  until,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { turns } from '../support/turns.ts';

const SIZE = 300_001;
const FILE = seededBytes(7, SIZE);
const LAST = SIZE - 1;
const BLOCK = 65_536;
const MiB = 1024 * 1024;
const DATE = 'Tue, 03 Feb 2026 10:00:00 GMT';
const LATER = 'Tue, 03 Feb 2026 10:00:01 GMT';
const TAG = '"f"';
const FRESH = { 'cache-control': 'max-age=3600', 'content-type': 'text/plain' };
const PLAIN: OriginFile = { body: FILE, etag: TAG, lastModified: DATE, headers: FRESH };

type Fields = Readonly<Record<string, string>>;
/** Inclusive, as they are written. */
type Span = readonly [first: number, last: number];

// --- Forms ---------------------------------------------------------------------------------------------------------------------------

interface Form {
  readonly what: string;
  readonly fields: Fields;
  readonly method?: string;
  readonly status: number;
  /** What of the content is in the answer; one span of a 206 has Content-Range, several are parts. */
  readonly spans: readonly Span[];
}

const form = (what: string, range: string, status: number, spans: readonly Span[] = [], fields: Fields = {}): Form => ({
  what,
  fields: { Range: range, ...fields },
  status,
  spans,
});
const WHOLE: readonly Span[] = [[0, LAST]];
const HUGE = '99999999999999999999';

const FORMS: readonly Form[] = [
  form('single', 'bytes=70000-140009', 206, [[70_000, 140_009]]),
  form('one byte', 'bytes=0-0', 206, [[0, 0]]),
  form('open', 'bytes=299000-', 206, [[299_000, LAST]]),
  form('all of it', 'bytes=0-', 206, WHOLE),
  form('suffix', 'bytes=-500', 206, [[SIZE - 500, LAST]]),
  form('suffix longer than the content', 'bytes=-999999', 206, WHOLE),
  form('zero suffix', 'bytes=-0', 416),
  form('past the end', 'bytes=299990-999999', 206, [[299_990, LAST]]),
  form('behind the end', `bytes=${SIZE}-`, 416),
  form('last before first', 'bytes=9-5', 200, WHOLE),
  form('no numbers', 'bytes=a-b', 200, WHOLE),
  form('another unit', 'lines=1-5', 200, WHOLE),
  form('several', 'bytes=0-9,100000-100009', 206, [[0, 9], [100_000, 100_009]]), // prettier-ignore
  form('overlapping', 'bytes=0-99,50-149', 206, [[0, 149]]),
  form('descending', 'bytes=200000-200009, 0-9', 206, [[200_000, 200_009], [0, 9]]), // prettier-ignore
  form('one of several outside', `bytes=5-9,${SIZE}-`, 206, [[5, 9]]),
  form('the first of several outside', `bytes=${SIZE}-,5-9`, 206, [[5, 9]]),
  form('all but a suffix outside', `bytes=${SIZE}-,-5`, 206, [[SIZE - 5, LAST]]),
  form('all but a zero suffix outside', `bytes=-0,${SIZE}-`, 416),
  form('all of several outside', `bytes=${SIZE}-,999999-9999999,-0`, 416),
  form('one of several is none', 'bytes=0-9,9-5', 200, WHOLE),
  form('If-Range: the tag', 'bytes=10-19', 206, [[10, 19]], { 'If-Range': TAG }),
  form('If-Range: another tag', 'bytes=10-19', 200, WHOLE, { 'If-Range': '"g"' }),
  form('If-Range: a weak tag', 'bytes=10-19', 200, WHOLE, { 'If-Range': `W/${TAG}` }),
  form('If-Range: the date', 'bytes=10-19', 206, [[10, 19]], { 'If-Range': DATE }),
  form('If-Range: another date', 'bytes=10-19', 200, WHOLE, { 'If-Range': LATER }),
  form('If-Range and nothing inside', `bytes=${SIZE}-`, 200, WHOLE, { 'If-Range': '"g"' }),
  form('If-None-Match: the tag', 'bytes=10-19', 304, [], { 'If-None-Match': TAG }),
  form('If-None-Match: another tag', 'bytes=10-19', 206, [[10, 19]], { 'If-None-Match': '"g"' }),
  form('If-Modified-Since: the date', 'bytes=10-19', 304, [], { 'If-Modified-Since': DATE }),
  { ...form('HEAD', 'bytes=10-19', 200, WHOLE), method: 'HEAD' },
  form('first too large to count', `bytes=${HUGE}-`, 416),
  form('last too large to count', `bytes=299990-${HUGE}`, 206, [[299_990, LAST]]),
  form('suffix too large to count', `bytes=-${HUGE}`, 206, WHOLE),
];

/** Everything that an answer to a form must be. */
function isRight(test: Test, { what, method = 'GET', status, spans }: Form, answer: Answer, where: string): void {
  const { headers, body } = answer;
  const bytes = ([first, last]: Span): Uint8Array => FILE.subarray(first, last + 1);
  const name = ([first, last]: Span): string => `bytes ${first}-${last}/${SIZE}`;
  const [only] = spans;
  const seen: unknown[] = [answer.status, answer.complete];
  const expected: unknown[] = [status, true];
  if (status === 416) {
    seen.push(headers['content-range']);
    expected.push(`bytes */${SIZE}`);
  } else {
    seen.push(headers['etag']);
    expected.push(TAG);
  }
  if (status === 304) {
    seen.push(body.byteLength, headers['content-range']);
    expected.push(0, undefined);
  } else if (only !== undefined && spans.length === 1) {
    seen.push(headers['content-range'], headers['content-length'], headers['content-type'], headers['accept-ranges']);
    expected.push(status === 206 ? name(only) : undefined, String(only[1] - only[0] + 1), 'text/plain', 'bytes');
    seen.push(same(body, method === 'HEAD' ? '' : bytes(only)));
    expected.push(true);
  } else if (spans.length > 1) {
    const found = parts(answer);
    seen.push(
      headers['content-range'],
      headers['content-length'],
      found.map((part) => part.headers),
    );
    expected.push(
      undefined,
      String(body.byteLength),
      spans.map((span) => ({ 'content-type': 'text/plain', 'content-range': name(span) })),
    );
    seen.push(found.map((part, index) => same(part.body, bytes(spans[index] as Span))));
    expected.push(spans.map(() => true));
  }
  test.same(seen, expected, `${where}: ${what}`);
}

/** The very bytes that were asked for. */
function isPiece(answer: Answer, body: Uint8Array, first: number, last: number): boolean {
  return (
    answer.status === 206 &&
    answer.complete &&
    answer.headers['content-range'] === `bytes ${first}-${last}/${body.byteLength}` &&
    same(answer.body, body.subarray(first, last + 1))
  );
}

const isWhole = (answer: Answer, body: Uint8Array): boolean =>
  answer.status === 200 && answer.complete && same(answer.body, body);

const WARM: Form = { what: 'warm', fields: {}, status: 200, spans: WHOLE };
const options = ({ fields, method = 'GET' }: Form): { fields: Fields; method: string } => ({ fields, method });
const askedBytes = (origin: Origin): number => origin.requests.reduce((sum, { sent }) => sum + sent, 0);

await t.test('forms of Range, where all of the content is here', async (test) => {
  const origin = await Origin.start(test, { '/f': PLAIN });
  const reverse = await startReverse(test, origin);
  for (const [where, source] of [
    ['described here', origin],
    ['described by a reverse proxy', reverse],
  ] as const) {
    const branch = await startBranch(test, { clock: new ManualClock() });
    const get = (each: Form): Promise<Answer> => ask(branch.port, `${source.url}/f`, options(each));
    await get(WARM);
    await branch.remembered();
    const before = { origin: origin.requests.length, reverse: reverse.received.length };
    for (const each of FORMS) isRight(test, each, await get(each), where);
    test.same([origin.requests.length, reverse.received.length], Object.values(before), `${where}: nobody was asked`);
    test.same(branch.observations.failures, []);
  }
});

/** What of the content is here, where it is here in parts. */
const HERE: readonly Span[] = [
  [0, 99_999],
  [196_608, 262_143],
];

await t.test('forms of Range, where parts of the content are here', async (test) => {
  const origin = await Origin.start(test);
  const branch = await startBranch(test, { clock: new ManualClock() });
  for (const [index, each] of FORMS.entries()) {
    const path = `/${index}`;
    origin.resources.set(path, PLAIN);
    const get = (fields: Fields, method = 'GET'): Promise<Answer> =>
      ask(branch.port, `${origin.url}${path}`, { fields, method });
    const known = branch.observations.count('stored', { store: 'content_information' });
    for (const [part, [first, last]] of HERE.entries()) {
      await get({ Range: `bytes=${first}-${last}` });
      await branch.remembered(known + part + 1);
    }
    const before = { requests: origin.requests.length, bytes: askedBytes(origin) };
    isRight(test, each, await get(each.fields, each.method), 'in parts');
    const isBodiless = each.status === 304 || each.status === 416 || each.method === 'HEAD';
    const missing = isBodiless ? 0 : missingBytes(each.spans);
    const requests = origin.requests.slice(before.requests);
    test.equal(requests.length === 0, missing === 0, `${each.what}: the origin is asked only for what is missing`);
    test.ok(requests.every(({ headers }) => headers['if-range'] === TAG && headers['range'] !== undefined));
    test.ok(
      askedBytes(origin) - before.bytes <= missing + each.spans.length * 2 * BLOCK &&
        askedBytes(origin) - before.bytes <= SIZE - 100_000 - BLOCK,
      `${each.what}: ${askedBytes(origin) - before.bytes} bytes for ${missing}`,
    );
  }
  test.same(branch.observations.failures, []);
});

function missingBytes(spans: readonly Span[]): number {
  const overlap = (a: Span, b: Span): number => Math.max(0, Math.min(a[1], b[1]) - Math.max(a[0], b[0]) + 1);
  return spans.reduce(
    (sum, span) => sum + span[1] - span[0] + 1 - HERE.reduce((here, part) => here + overlap(span, part), 0),
    0,
  );
}

await t.test('forms of Range, where the content is on its way', async (test) => {
  const ARRIVED = 150_000;
  const origin = await Origin.start(test);
  const branch = await startBranch(test, { clock: new ManualClock() });
  for (const [index, each] of FORMS.entries()) {
    const gate = new Gate();
    const path = `/${index}`;
    origin.resources.set(path, { ...PLAIN, firstBytes: ARRIVED, afterFirst: gate.passed });
    const first = ask(branch.port, `${origin.url}${path}`);
    await until(() => (origin.asked(path)[0]?.sent ?? 0) >= ARRIVED, 'the body is on its way');
    const second = ask(branch.port, `${origin.url}${path}`, options(each));
    // What has come, and what needs no byte, is answered at once.
    const isHere = each.method === 'HEAD' || each.spans.every(([, last]) => last < ARRIVED);
    if (!isHere) await until(() => branch.received.length === 2 * (index + 1), 'it is asked for');
    else isRight(test, each, await second, 'at once');
    gate.open();
    isRight(test, each, await second, 'under way');
    test.ok(same((await first).body, FILE), 'and whose request it was gets all of it');
    test.equal(origin.asked(path).length, 1, `${each.what}: one question`);
  }
  test.same(branch.observations.failures, []);
});

await t.test('forms of Range, where nothing of the content is here, or it has become stale', async (test) => {
  const origin = await Origin.start(test);
  for (const [where, isKnown] of [
    ['cold', false],
    ['stale', true],
  ] as const) {
    const clock = new ManualClock();
    const branch = await startBranch(test, { clock });
    for (const [index, each] of FORMS.entries()) {
      const path = `/${where}${index}`;
      origin.resources.set(path, PLAIN);
      const get = (given: Form): Promise<Answer> => ask(branch.port, `${origin.url}${path}`, options(given));
      if (isKnown) {
        await get(WARM);
        await branch.remembered(index * 2 + 1);
        clock.advance(3_601_000);
      }
      isRight(test, each, await get(each), where);
      if (isKnown) {
        const [, question] = origin.asked(path);
        // What the client asks about is for the origin, and HEAD is not kept.
        const isOurs = each.method === undefined && !/^If-(?:None|Mod)/.test(Object.keys(each.fields)[1] ?? '');
        if (isOurs)
          test.match(
            [question?.headers['if-none-match'], question?.sent],
            [TAG, 0],
            `${each.what}: it has not changed`,
          );
        await branch.remembered(index * 2 + (isOurs || each.status === 304 ? 2 : 1));
      }
      test.equal((await get(WARM)).status, 200);
    }
    test.same(branch.observations.failures, []);
  }
});

await t.test('a range of what is stale and has changed', async (test) => {
  const changed = seededBytes(8, SIZE + 5);
  for (const what of ['whole', 'part'] as const) {
    const clock = new ManualClock();
    const origin = await Origin.start(test, { '/f': PLAIN });
    const branch = await startBranch(test, { clock });
    const get = (fields: Fields = {}): Promise<Answer> => ask(branch.port, `${origin.url}/f`, { fields });
    await get(what === 'part' ? { Range: 'bytes=0-99999' } : {});
    await branch.remembered();
    clock.advance(3_601_000);
    origin.resources.set('/f', { ...PLAIN, body: changed, etag: '"g"' });
    test.ok(isPiece(await get({ Range: 'bytes=1000-1999' }), changed, 1_000, 1_999), `${what}: the new one`);
    test.ok(isPiece(await get({ Range: 'bytes=1500-199999' }), changed, 1_500, 199_999), `${what}: and more of it`);
    test.ok(isWhole(await get(), changed), `${what}: and all of it`);
    test.same(branch.observations.failures, []);
  }
});

await t.test('parts that are stale are asked about once, and what is missing is fetched', async (test) => {
  const clock = new ManualClock();
  const origin = await Origin.start(test, { '/f': PLAIN });
  const branch = await startBranch(test, { clock });
  const get = (fields: Fields = {}): Promise<Answer> => ask(branch.port, `${origin.url}/f`, { fields });
  await get({ Range: 'bytes=0-99999' });
  await branch.remembered();
  clock.advance(3_601_000);
  test.ok(isWhole(await get(), FILE));
  test.same(
    origin.requests.map(({ headers, status, sent }) => [headers['if-none-match'], headers['if-range'], status, sent]),
    [
      [undefined, undefined, 206, 100_000],
      [TAG, undefined, 304, 0],
      [undefined, TAG, 206, SIZE - 100_000],
    ],
  );
  test.same(branch.observations.failures, []);
});

await t.test('a part that may not be kept', async (test) => {
  for (const headers of [{ 'cache-control': 'no-store' }, { 'cache-control': 'private, max-age=60' }]) {
    const origin = await Origin.start(test, { '/f': PLAIN });
    const branch = await startBranch(test, { clock: new ManualClock() });
    const get = (fields: Fields = {}): Promise<Answer> => ask(branch.port, `${origin.url}/f`, { fields });
    await get({ Range: 'bytes=0-65535' });
    await branch.remembered();
    origin.resources.set('/f', { ...PLAIN, headers });
    const kept = branch.blockStore.bytes;
    for (const clients of [1, 8]) {
      const before = askedBytes(origin);
      const answers = await Promise.all(Array.from({ length: clients }, () => get()));
      test.equal(answers.filter((answer) => isWhole(answer, FILE)).length, clients, 'is given to who asked');
      await until(() => origin.requests.every(({ closed }) => closed), 'the origin is at rest');
      await turns(50);
      test.ok(askedBytes(origin) - before >= clients * (SIZE - BLOCK), 'by the origin, each time');
    }
    test.equal(branch.blockStore.bytes, kept, 'and to nobody else');
    test.same(branch.observations.failures, []);
  }
});

// --- Clients that fetch in pieces ----------------------------------------------------------------------------------------------------

const BIG = seededBytes(11, 8 * MiB);
const big = (file: Partial<OriginFile> = {}): OriginFile => ({ body: BIG, etag: '"b"', headers: FRESH, ...file });

interface Pieces {
  readonly origin: Origin;
  readonly branch: Proxy;
  readonly clock: ManualClock;
  /** Asks for a span of `/f`. */
  readonly piece: (first: number, last: number) => Promise<Answer>;
  readonly whole: () => Promise<Answer>;
}

async function pieces(
  test: Test,
  file: OriginFile | OriginHandler,
  branchOptions: BranchOptions = {},
): Promise<Pieces> {
  const clock = new ManualClock();
  const origin = await Origin.start(test, { '/f': file });
  const branch = await startBranch(test, { clock, ...branchOptions });
  const get = (fields: Fields): Promise<Answer> => ask(branch.port, `${origin.url}/f`, { fields });
  return {
    origin,
    branch,
    clock,
    piece: (first, last) => get({ Range: `bytes=${first}-${last}` }),
    whole: () => get({}),
  };
}

/** Everything has come that is going to, and is described. */
async function quiet({ origin, branch }: Pieces): Promise<void> {
  await until(() => origin.requests.every(({ closed }) => closed), 'the origin is at rest');
  let before = -1;
  // Describing takes turns with everything else on the thread.
  while (before !== branch.observations.all.length) {
    before = branch.observations.all.length;
    await turns(50);
  }
}

await t.test('16 ranges at once', async (test) => {
  const all = await pieces(test, big());
  const length = BIG.byteLength / 16;
  const answers = await Promise.all(
    Array.from({ length: 16 }, (_, index) => all.piece(index * length, (index + 1) * length - 1)),
  );
  for (const [index, answer] of answers.entries())
    test.ok(isPiece(answer, BIG, index * length, (index + 1) * length - 1), `range ${index}`);
  test.ok(askedBytes(all.origin) <= 1.05 * BIG.byteLength, `${askedBytes(all.origin)} bytes of the origin`);
  await quiet(all);
  const before = all.origin.requests.length;
  test.ok(isWhole(await all.whole(), BIG));
  test.equal(all.origin.requests.length, before, 'the whole is here');
  test.same(all.branch.observations.failures, []);
});

await t.test('ranges that follow each other, all asked for before any is answered', async (test) => {
  const all = await pieces(test, big());
  await all.piece(0, 99);
  const gate = new Gate();
  all.origin.resources.set('/f', { ...big(), beforeHead: gate.passed });
  const length = BIG.byteLength / 16;
  const order = Array.from({ length: 16 }, (_, index) => (index * 7) % 16);
  const answers = order.map((index) => all.piece(index * length, (index + 1) * length - 1));
  await until(() => all.branch.received.length === 17, 'all have asked');
  gate.open();
  for (const [at, answer] of (await Promise.all(answers)).entries()) {
    const index = order[at] as number;
    test.ok(isPiece(answer, BIG, index * length, (index + 1) * length - 1), `range ${index}`);
  }
  test.ok(askedBytes(all.origin) <= 1.02 * BIG.byteLength, `${askedBytes(all.origin)} bytes of the origin`);
});

await t.test('several ranges of a cold content in one request', async (test) => {
  const all = await pieces(test, big());
  const spans = Array.from({ length: 8 }, (_, index): Span => [index * MiB + 1_000, index * MiB + 70_000]);
  const Range = `bytes=${spans.map((span) => span.join('-')).join()}`;
  for (const what of ['cold', 'warm']) {
    const before = askedBytes(all.origin);
    const answer = await ask(all.branch.port, `${all.origin.url}/f`, { fields: { Range } });
    test.equal(answer.status, 206);
    test.same(
      parts(answer).map(({ headers, body }, index) => {
        const [first, last] = spans[index] as Span;
        return [
          headers['content-range'] === `bytes ${first}-${last}/${BIG.byteLength}`,
          same(body, BIG.subarray(first, last + 1)),
        ];
      }),
      spans.map(() => [true, true]),
      what,
    );
    await quiet(all);
    const cost = askedBytes(all.origin) - before;
    test.ok(what === 'warm' ? cost === 0 : cost <= spans.length * (69_001 + 2 * BLOCK), `${what}: ${cost} bytes`);
  }
  test.same(all.branch.observations.failures, []);
});

await t.test('range after range: more is fetched each time, and nothing once the client stops', async (test) => {
  const all = await pieces(test, big());
  const cost: number[] = [];
  for (let at = 0; at < 3 * MiB; at += BLOCK) {
    if (!isPiece(await all.piece(at, at + BLOCK - 1), BIG, at, at + BLOCK - 1)) test.fail(`range at ${at}`);
    cost.push(all.origin.requests.length);
  }
  await quiet(all);
  test.ok((cost.at(-1) ?? Infinity) <= 8, `${cost.at(-1)} requests for 48 ranges`);
  const fetched = askedBytes(all.origin);
  test.ok(fetched <= 6 * MiB + 5 * BLOCK, `${fetched} bytes fetched for 3 MiB`);
  all.clock.advance(3_600_000);
  await quiet(all);
  test.equal(askedBytes(all.origin), fetched, 'no byte more');
  test.same(all.branch.observations.failures, []);
});

await t.test('a range here and a range there cost what they are', async (test) => {
  const all = await pieces(test, big());
  for (const [first, last, most] of [
    [3_000_000, 3_000_999, 1_000],
    [5_000_000, 5_000_999, 1_000 + 2 * BLOCK],
    [1_000, 1_999, 1_000 + 2 * BLOCK],
    [8_388_000, 8_388_607, 608 + 2 * BLOCK],
    [5_000_100, 5_000_199, 0],
    [3_000_500, 3_000_999, 0],
  ] as const) {
    const before = askedBytes(all.origin);
    test.ok(isPiece(await all.piece(first, last), BIG, first, last));
    await quiet(all);
    test.ok(askedBytes(all.origin) - before <= most, `${askedBytes(all.origin) - before} bytes for ${first}-${last}`);
  }
  test.same(all.branch.observations.failures, []);
});

await t.test('a range far ahead of a body that is on its way', async (test) => {
  const gate = new Gate();
  const all = await pieces(test, big({ firstBytes: MiB, afterFirst: gate.passed }));
  const first = all.whole();
  await until(() => askedBytes(all.origin) >= MiB, 'the body is on its way');
  // The origin holds back what comes behind the first MiB of an answer: this one is shorter.
  test.ok(
    isPiece(await all.piece(7 * MiB, 7 * MiB + 99), BIG, 7 * MiB, 7 * MiB + 99),
    'it does not wait for what lies between',
  );
  gate.open();
  test.ok(isWhole(await first, BIG));
  await quiet(all);
  // What has arrived: the origin had sent more when the first body was ended.
  const arrived = all.branch.observations.bytes('wan', { kind: 'plain' });
  test.ok(arrived <= 1.05 * BIG.byteLength, `${arrived} bytes of the origin`);
  test.same(all.branch.observations.failures, []);
});

await t.test('an origin that answers ranges with everything', async (test) => {
  const all = await pieces(test, big({ noRanges: true }));
  const length = BIG.byteLength / 16;
  const answers = await Promise.all(
    Array.from({ length: 16 }, (_, index) => all.piece(index * length, (index + 1) * length - 1)),
  );
  for (const [index, answer] of answers.entries())
    test.ok(isWhole(answer, BIG) || isPiece(answer, BIG, index * length, (index + 1) * length - 1), `range ${index}`);
  await quiet(all);
  test.ok(isPiece(await all.piece(5, 9), BIG, 5, 9));
  test.same(all.origin.bodies('/f'), [`200+${BIG.byteLength}`], 'one body');
  test.same(all.branch.observations.failures, []);
});

await t.test('an origin that gave ranges and does so no more', async (test) => {
  const all = await pieces(test, big());
  await all.piece(MiB, 2 * MiB - 1);
  await quiet(all);
  all.origin.resources.set('/f', big({ noRanges: true }));
  for (const [first, last] of [
    [5 * MiB, 5 * MiB + 9],
    [1_000, 2_000],
    [MiB - 5, 3 * MiB],
  ] as const)
    test.ok(isPiece(await all.piece(first, last), BIG, first, last), `${first}-${last}`);
  await quiet(all);
  test.ok(isWhole(await all.whole(), BIG));
  test.ok(askedBytes(all.origin) <= BIG.byteLength + MiB, `${askedBytes(all.origin)} bytes of the origin`);
  test.same(all.branch.observations.failures, []);
});

// --- Contents that change, and origins that fail -----------------------------------------------------------------------------------------

await t.test('a content that changes between its parts is never mixed', async (test) => {
  const other = seededBytes(12, BIG.byteLength);
  const shorter = seededBytes(13, 5 * MiB);
  for (const [what, changed] of [
    ['another content', other],
    ['a shorter one', shorter],
  ] as const) {
    const all = await pieces(test, big());
    for (const at of [0, 2, 4, 6]) await all.piece(at * MiB, at * MiB + 99_999);
    await quiet(all);
    all.origin.resources.set('/f', { body: changed, etag: '"c"', headers: FRESH });
    /** The bytes are those of the content that the answer names, all of them; a broken answer says so itself. */
    const isOne = (answer: Answer, first: number): boolean => {
      if (!answer.complete) return true;
      if (answer.status === 416) return true;
      const body = answer.headers['etag'] === '"b"' ? BIG : changed;
      return answer.status === 200
        ? same(answer.body, body)
        : isPiece(answer, body, first, first + answer.body.byteLength - 1);
    };
    for (const [first, last] of [
      [50_000, 150_000],
      [MiB, MiB + 9],
      [0, 7 * MiB],
      [4 * MiB, 4 * MiB + 9],
      [2 * MiB, 3 * MiB],
    ] as const) {
      test.ok(isOne(await all.piece(first, last), first), `${what}: ${first}-${last}`);
    }
    test.ok(isOne(await all.whole(), 0), `${what}: whole`);
    await quiet(all);
    test.ok(isWhole(await all.whole(), changed), `${what}: in the end it is the new one`);
    test.same(all.branch.observations.failures, []);
  }
});

await t.test('parts without a strong tag are not kept', async (test) => {
  for (const [what, file] of [
    ['a weak tag', { etag: 'W/"f"' }],
    ['a date alone', { lastModified: DATE }],
    ['nothing', {}],
  ] as const) {
    const all = await pieces(test, { body: FILE, headers: FRESH, ...file });
    for (let round = 1; round <= 2; round += 1) {
      test.ok(isPiece(await all.piece(1_000, 1_999), FILE, 1_000, 1_999), what);
      await quiet(all);
      test.equal(all.origin.requests.length, round, `${what}: asked each time`);
    }
    test.equal(all.branch.blockStore.bytes, 0, `${what}: nothing of it is kept`);
    test.ok(isWhole(await all.whole(), FILE));
  }
});

/** Breaks the connection after so many bytes of the first answer; all others are as they should be. */
function breaking(file: OriginFile, afterBytes: number, times = 1): OriginHandler {
  let broken = 0;
  return async (request, response, record) => {
    if (broken === times) return sendFile(file, request, response, record);
    broken += 1;
    const never = new Gate();
    const sending = sendFile({ ...file, firstBytes: afterBytes, afterFirst: never.passed }, request, response, record);
    await until(() => record.sent >= afterBytes || response.destroyed, 'the first bytes have gone');
    // Whatever has been written is on its way before the end is.
    response.write('', () => response.socket?.destroySoon());
    await sending;
    return undefined;
  };
}

await t.test('a body that breaks off', async (test) => {
  await test.test('is gone on with where a strong tag says that it is the same', async (sub) => {
    const all = await pieces(sub, breaking(big(), 3 * MiB));
    sub.ok(isWhole(await all.whole(), BIG), 'the client notices nothing');
    const [, second] = all.origin.requests;
    sub.match(second?.headers, { range: /^bytes=\d+-/, 'if-range': '"b"' });
    sub.ok(askedBytes(all.origin) <= 1.05 * BIG.byteLength, `${askedBytes(all.origin)} bytes of the origin`);
    await quiet(all);
    const before = all.origin.requests.length;
    sub.ok(isWhole(await all.whole(), BIG));
    sub.equal(all.origin.requests.length, before, 'and it is all here');
    sub.same(all.branch.observations.failures, []);
  });
  await test.test('again and again, and is given up', async (sub) => {
    const all = await pieces(sub, breaking(big(), 0, Infinity));
    const answer = await all.whole().catch(() => undefined);
    sub.notOk(answer?.complete === true && answer.status === 200, 'an error, or a broken connection');
    sub.ok(all.origin.requests.length < 20, `${all.origin.requests.length} attempts`);
    all.origin.resources.set('/f', big());
    sub.ok(isWhole(await all.whole(), BIG), 'the next one gets it');
  });
  for (const [what, file] of [
    ['has no tag', { body: BIG, headers: FRESH }],
    ['has a weak one', big({ etag: 'W/"b"' })],
    ['has no length', big({ chunked: true })],
  ] as const) {
    await test.test(`is not kept where it ${what}`, async (sub) => {
      const all = await pieces(sub, breaking(file, 3 * MiB));
      const answer = await all.whole();
      sub.same([answer.status, answer.complete], [200, false], 'the client is told');
      sub.ok(same(answer.body, BIG.subarray(0, answer.body.byteLength)));
      await quiet(all);
      const before = all.origin.requests.length;
      sub.ok(isWhole(await all.whole(), BIG), 'all of it');
      sub.same(
        all.origin.requests.slice(before).map(({ headers, sent }) => [headers['range'], sent]),
        [[undefined, BIG.byteLength]],
        'the next one is given all of it by the origin',
      );
    });
  }
});

await t.test('parts that contradict themselves', async (test) => {
  const body = seededBytes(14, 1_000);
  const scripted =
    (contentRange: string, bytes: Uint8Array, fields: Fields = {}): OriginHandler =>
    (_request, response) => {
      const headers = {
        ...FRESH,
        etag: '"p"',
        'content-range': contentRange,
        'content-length': bytes.byteLength,
        ...fields,
      };
      response.writeHead(206, headers).end(bytes);
    };
  for (const [what, contentRange, bytes] of [
    ['longer than it says', 'bytes 0-9/1000', body.subarray(0, 20)],
    ['shorter than it says', 'bytes 0-9/1000', body.subarray(0, 5)],
    ['outside of the content', 'bytes 995-1004/1000', body.subarray(0, 10)],
    ['last before first', 'bytes 9-0/1000', body.subarray(0, 10)],
    ['no range at all', 'something', body.subarray(0, 10)],
    ['another unit', 'lines 0-9/1000', body.subarray(0, 10)],
    ['of an unknown whole', 'bytes 0-9/*', body.subarray(0, 10)],
  ] as const) {
    const all = await pieces(test, scripted(contentRange, bytes));
    for (let round = 1; round <= 2; round += 1) {
      await all.piece(0, 9);
      await quiet(all);
      test.ok(all.origin.requests.length >= round, `${what}: asked each time`);
    }
    test.equal(all.branch.blockStore.bytes, 0, `${what}: nothing of it is kept`);
    test.same(all.branch.observations.failures, []);
  }
  await test.test('another range than the one that was asked for', async (sub) => {
    const all = await pieces(sub, scripted('bytes 5-14/1000', body.subarray(5, 15)));
    const answer = await inTime(all.piece(0, 9), 'an answer');
    const isAsAnnounced = isPiece(answer, body, 5, 14) || answer.status >= 500;
    sub.ok(isAsAnnounced, 'the client gets what it is told it gets');
    all.origin.resources.set('/f', { body, etag: '"p"', headers: FRESH });
    sub.ok(isPiece(await all.piece(0, 19), body, 0, 19));
    sub.same(all.branch.observations.failures, []);
  });
  await test.test('a part of a longer whole under the same tag', async (sub) => {
    const longer = seededBytes(16, 2_000);
    const all = await pieces(sub, { body, etag: '"p"', headers: FRESH });
    await all.piece(0, 99);
    await quiet(all);
    all.origin.resources.set('/f', { body: longer, etag: '"p"', headers: FRESH });
    const answer = await all.whole();
    sub.ok(!answer.complete || isWhole(answer, longer), 'is not put to it');
    sub.ok(isWhole(await all.whole(), longer));
    sub.same(all.branch.observations.failures, []);
  });
  await test.test('a part in the middle that is of another length', async (sub) => {
    const all = await pieces(sub, { body, etag: '"p"', headers: FRESH });
    await all.piece(0, 99);
    await quiet(all);
    all.origin.resources.set('/f', scripted('bytes 100-999/1000', body.subarray(100, 500)));
    const answer = await all.whole();
    sub.notOk(answer.complete && answer.status === 200, 'no whole answer is made of it');
    all.origin.resources.set('/f', { body, etag: '"p"', headers: FRESH });
    sub.ok(isWhole(await all.whole(), body), 'and nothing of it stays');
    sub.same(all.branch.observations.failures, []);
  });
});

await t.test('two lengths', async (test) => {
  let answers = 0;
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      answers += 1;
      const second = answers === 1 ? 'Content-Length: 5\r\n' : '';
      socket.end(
        `HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n${second}Connection: close\r\n\r\n0123456789`,
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.teardown(() => void server.close());
  const branch = await startBranch(test, { clock: new ManualClock() });
  const target = `http://127.0.0.1:${(server.address() as { port: number }).port}/f`;
  test.equal((await ask(branch.port, target)).status, 502);
  test.equal((await ask(branch.port, target)).body.toString(), '0123456789', 'nothing of it is kept');
});

// --- Clients that leave, that are slow, that are many --------------------------------------------------------------------------------------

await t.test('a client that leaves takes nothing from the others', async (test) => {
  const gate = new Gate();
  const all = await pieces(test, big({ firstBytes: MiB, afterFirst: gate.passed }));
  const url = `${all.origin.url}/f`;
  const leaving: Connection = await begin(all.branch.port, url);
  await readAtLeast(leaving.body(await leaving.head()), 100_000);
  const whole = all.whole();
  const piece = all.piece(2 * MiB, 3 * MiB - 1);
  await until(() => all.branch.received.length === 3, 'all are there');
  await until(() => all.branch.observations.count('collapsed') === 2, 'and share the body');
  leaving.leave();
  await until(() => all.branch.observations.count('exchange') === 1, 'one has left');
  gate.open();
  test.ok(isWhole(await whole, BIG));
  test.ok(isPiece(await piece, BIG, 2 * MiB, 3 * MiB - 1));
  await quiet(all);
  test.ok(isWhole(await all.whole(), BIG));
  test.same(all.origin.bodies('/f'), [`200+${BIG.byteLength}`], 'one body');
  test.same(all.branch.observations.failures, []);
});

await t.test('a client far behind reads on from the store, and holds nobody back', async (test) => {
  for (const [what, length, maxPendingBytes] of [
    // Version 2, which needs little memory.
    ['little memory', 16 * MiB, 2 * MiB],
    // Version 1, whose segments are 32 MiB.
    ['enough memory', 48 * MiB, undefined],
  ] as const) {
    const body = seededBytes(15, length);
    const all = await pieces(
      test,
      { body, etag: '"s"', headers: FRESH, chunked: length > 20 * MiB },
      { maxPendingBytes },
    );
    const slow = await begin(all.branch.port, `${all.origin.url}/f`);
    const head = await slow.head();
    slow.socket.pause();
    test.ok(isWhole(await inTime(all.whole(), 'the fast one', 20_000), body), `${what}: the fast one has it all`);
    const delivered = all.branch.observations.bytes('delivered', { source: 'store' });
    slow.socket.resume();
    const rest: Buffer[] = [];
    for await (const piece of slow.body(head)) rest.push(piece);
    slow.close();
    test.ok(slow.complete && same(Buffer.concat(rest), body), `${what}: so has the slow one`);
    test.ok(
      all.branch.observations.bytes('delivered', { source: 'store' }) > delivered,
      `${what}: part of it out of the store`,
    );
    test.same(all.origin.bodies('/f'), [`200+${length}`], `${what}: one body`);
    test.same(all.branch.observations.failures, []);
  }
});

await t.test('many bodies on their way: no more are kept than memory allows, and all arrive', async (test) => {
  const COUNT = 12;
  const LENGTH = 200_000;
  const gate = new Gate();
  const bodies = Array.from({ length: COUNT }, (_, index) => seededBytes(20 + index, LENGTH));
  const origin = await Origin.start(test);
  const branch = await startBranch(test, { clock: new ManualClock(), maxPendingBytes: 5 * LENGTH });
  const get = (index: number): Promise<Answer> => ask(branch.port, `${origin.url}/${index}`);
  const set = (more: Partial<OriginFile>): void => {
    for (const [index, body] of bodies.entries())
      origin.resources.set(`/${index}`, { body, etag: `"${index}"`, headers: FRESH, ...more });
  };
  set({ firstBytes: 100_000, afterFirst: gate.passed });
  const answers = bodies.map((_, index) => get(index));
  await until(() => origin.requests.filter(({ sent }) => sent >= 100_000).length === COUNT, 'all are on their way');
  gate.open();
  for (const [index, answer] of (await Promise.all(answers)).entries())
    test.ok(isWhole(answer, bodies[index] as Uint8Array));
  // A body takes twice its length while it is described: two of them.
  await branch.remembered(2);
  await turns(50);
  test.equal(branch.observations.count('stored', { store: 'content_information' }), 2, 'two are kept');
  set({});
  // Bodies that break give back what they took.
  for (let index = 0; index < 6; index += 1) {
    const file = { body: bodies[0] as Uint8Array, headers: FRESH };
    origin.resources.set(`/broken${index}`, breaking(file, 50_000));
    test.notOk((await ask(branch.port, `${origin.url}/broken${index}`)).complete);
  }
  for (const [index, body] of bodies.entries()) test.ok(isWhole(await get(index), body));
  await branch.remembered(COUNT);
  const before = origin.requests.length;
  for (const [index, body] of bodies.entries()) test.ok(isWhole(await get(index), body));
  test.equal(origin.requests.length, before, 'one after the other, all are kept');
  test.same(branch.observations.failures, []);
});

await t.test('a queue of chunks is a body of which the front is missing', (test) => {
  const operation = fc.oneof(
    fc.record({ kind: fc.constant('push'), size: fc.integer({ min: 0, max: 9 }) }),
    fc.record({ kind: fc.constantFrom('shift', 'clear'), size: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 40 }), fc.integer({ min: 1, max: 30 }), (operations, repeat) => {
      const queue = new ChunkQueue();
      let start = 0;
      let end = 0;
      // Often enough that places are cleared away.
      for (const { kind, size } of Array.from({ length: repeat }, () => operations).flat()) {
        if (kind === 'push') {
          const chunk = Uint8Array.from({ length: size }, (_, index) => (end + index) % 251);
          queue.push(chunk);
          end += size;
        } else if (kind === 'shift') {
          start += queue.first?.byteLength ?? 0;
          queue.shift();
        } else if (repeat === 1) {
          queue.clear();
          start = end;
        }
        if (queue.bytes !== end - start || queue.start !== start) return false;
        if (start < end && queue.first?.[0] !== start % 251) return false;
      }
      for (let place = Math.max(0, queue.start - 3); place < end + 3; place += 1) {
        const piece = queue.pieceAt(place);
        if ((piece === undefined) !== (place < queue.start || place >= end)) return false;
        if (piece?.some((byte, index) => byte !== (place + index) % 251) === true) return false;
      }
      return true;
    }),
    { numRuns: 300, seed: 5 },
  );
  const queue = new ChunkQueue();
  for (let byte = 0; byte < 100_000; byte += 1) queue.push(Uint8Array.of(byte));
  let chunks = 0;
  for (; queue.first !== undefined && queue.bytes > 0; chunks += 1) queue.shift();
  test.ok(chunks < 10, `100,000 single bytes lie in ${chunks} chunks`);
  test.end();
});
