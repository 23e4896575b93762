/** `peerdist load`: what it plans, what its objects are, and that it counts everything as what it is, on a manual clock and with real sockets. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import t, { type Test } from 'tap';
import type { ByteRange } from '../../lib/bytes/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import { Catalogue } from '../../plugins/standalone/load/catalogue.ts';
import { LoadOrigin } from '../../plugins/standalone/load/origin.ts';
import { type PlannedRequest, planRequests } from '../../plugins/standalone/load/plan.ts';
import { checkProfile, type LoadProfile } from '../../plugins/standalone/load/profile.ts';
import { namedProfile } from '../../plugins/standalone/load/profiles.ts';
import { LoadRunner, type RunnerParts } from '../../plugins/standalone/load/runner.ts';
import { MAX_SLICES, Series } from '../../plugins/standalone/load/series.ts';
import { percentiles } from '../../plugins/standalone/load/stats.ts';
import { CatalogueSubject } from '../../plugins/standalone/load/subject.ts';
import { Timeline } from '../../plugins/standalone/load/timeline.ts';
import { UrlList } from '../../plugins/standalone/load/url-list.ts';
import { parseTraffic, trafficBetween } from '../../plugins/standalone/load/wan-metrics.ts';
import { freePort, hasTool, type Running, startNginxCache, startSquid } from '../../bench/processes.ts';
import type { LoadResult } from '../../plugins/standalone/load/run-load.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { ask, COMMAND, inTime, listen, Program, Role, until } from '../support/proxies.ts';
import type { Finished } from '../support/proxies.ts';
import { runInside } from '../support/spoken.ts';

const OFFICE = namedProfile('office') as LoadProfile;
/** Small enough to look at every byte. */
const SMALL: LoadProfile = {
  ...OFFICE,
  clients: 5,
  ratePerSecond: 50,
  durationMs: 10_000,
  objects: 20,
  size: { medianBytes: 20_000, sigma: 0.5 },
  waves: { everyMs: 4_000, withinMs: 3_000, bytes: 50_000, editBytes: 100 },
  updates: { everyMs: 200, editBytes: 33 },
};

function plan(profile: LoadProfile): PlannedRequest[] {
  return [...planRequests(profile, new Catalogue(profile))];
}

/** All bytes of a range of an object. */
function bytesOf(catalogue: Catalogue, object: number, version: number, range?: ByteRange): Buffer {
  const whole = { offset: 0, length: catalogue.bytesOf(object, version) };
  const reader = catalogue.read(object, version, range ?? whole);
  const chunks: Buffer[] = [];
  while (!reader.isAtEnd) chunks.push(reader.read(5_000));
  return Buffer.concat(chunks);
}

t.test('the same profile is the same plan', (t) => {
  const requests = plan(SMALL);
  t.strictSame(plan({ ...SMALL }), requests);
  const digest = createHash('sha256').update(JSON.stringify(requests)).digest('hex').slice(0, 16);
  t.equal(
    digest,
    '850ce7f07f1aa87e',
    'on every machine and in every version: a change here makes old reports unrepeatable',
  );
  t.notSame(plan({ ...SMALL, seed: 2 })[0], requests[0], 'another seed is another plan');

  const times = requests.map(({ atMs }) => atMs);
  t.strictSame(
    times,
    times.toSorted((a, b) => a - b),
    'in time order',
  );
  const arrivals = requests.filter(({ object }) => object < SMALL.objects);
  t.ok(Math.abs(arrivals.length - 500) < 100, `at the rate of the profile: ${arrivals.length}`);
  const skeleton = (each: PlannedRequest[]): unknown => each.map(({ atMs, client, object }) => [atMs, client, object]);
  const changed = plan({ ...SMALL, rangeShare: 0.7, abortShare: 0.5 });
  t.strictSame(skeleton(changed), skeleton(requests), 'other shares leave times, clients and objects alone');
  const share = (of: (request: PlannedRequest) => unknown): number =>
    changed.filter(({ object }) => object < SMALL.objects).filter((request) => of(request) !== undefined).length / 500;
  t.ok(Math.abs(share(({ range }) => range) - 0.7) < 0.15, 'as many ranges as asked for');
  t.ok(Math.abs(share(({ abortAfterBytes }) => abortAfterBytes) - 0.5) < 0.15, 'as many aborts');
  const catalogue = new Catalogue(SMALL);
  for (const { object, version, range, abortAfterBytes = 1 } of changed) {
    const length = range?.length ?? catalogue.bytesOf(object, version);
    if (range !== undefined && range.offset + length > catalogue.bytesOf(object, 0)) t.fail('a range outside');
    if (abortAfterBytes < 1 || abortAfterBytes > length) t.fail('an abort that never comes');
  }
  const popularity = arrivals.reduce((counts, { object }) => {
    counts[object] = (counts[object] as number) + 1;
    return counts;
  }, Array<number>(SMALL.objects).fill(0));
  t.ok((popularity[0] as number) > 3 * (popularity[15] as number), `Zipf: ${popularity.join(' ')}`);
  t.end();
});

t.test('in each wave every client comes exactly once, in its time', (t) => {
  const { clients, objects, waves } = SMALL as LoadProfile & Required<Pick<LoadProfile, 'waves'>>;
  const visits = plan(SMALL).filter(({ object }) => object >= objects);
  for (const wave of [0, 1, 2]) {
    const own = visits.filter(({ object }) => object === objects + wave);
    t.strictSame(
      own.map(({ client }) => client).toSorted((a, b) => a - b),
      Array.from({ length: clients }, (_, client) => client),
    );
    const startMs = wave * waves.everyMs;
    t.ok(own.every(({ atMs }) => atMs >= startMs && atMs < startMs + waves.withinMs));
    t.ok(own.every(({ range, abortAfterBytes }) => range === undefined && abortAfterBytes === undefined));
  }
  t.equal(visits.length, 3 * clients, 'the last wave goes on past the duration, and there is no other');
  t.end();
});

t.test('contents: any range, edits that keep the rest, nothing twice', (t) => {
  const catalogue = new Catalogue(SMALL);
  const versions = catalogue.versionAt(0, SMALL.durationMs);
  t.ok(versions > 3, `the most popular object changes: ${versions}`);
  const wave = SMALL.objects;
  for (const [object, version] of [
    [0, 0],
    [0, versions],
    [wave + 2, 0],
  ] as const) {
    const whole = bytesOf(catalogue, object, version);
    t.equal(whole.byteLength, catalogue.bytesOf(object, version));
    for (const [offset, length] of [
      [0, 1],
      [15, 2],
      [16, 4_000],
      [4_321, 12_345],
      [whole.byteLength - 7, 7],
    ] as const)
      t.ok(
        bytesOf(catalogue, object, version, { offset, length }).equals(whole.subarray(offset, offset + length)),
        `${offset}+${length} of ${object} is a slice of the whole`,
      );
  }
  const isEdited = (before: Buffer, after: Buffer, inserted: number): boolean => {
    let at = 0;
    while (at < before.byteLength && before[at] === after[at]) at += 1;
    // Inserted bytes may happen to go on as the old ones did.
    return (
      after.byteLength === before.byteLength + inserted && after.subarray(at + inserted).equals(before.subarray(at))
    );
  };
  for (let version = 1; version <= versions; version += 1)
    t.ok(
      isEdited(bytesOf(catalogue, 0, version - 1), bytesOf(catalogue, 0, version), 33),
      `version ${version} is the one before and an insertion`,
    );
  t.ok(isEdited(bytesOf(catalogue, wave, 0), bytesOf(catalogue, wave + 1, 0), 100), 'so are the files of edited waves');

  const strangers = new Catalogue({
    ...SMALL,
    waves: { everyMs: 4_000, withinMs: 3_000, bytes: 50_000, editBytes: 0 },
  });
  const blocks = new Set<string>();
  let count = 0;
  for (const object of [0, 1, 2, wave, wave + 1]) {
    const bytes = bytesOf(strangers, object, 0);
    for (let at = 0; at + 16 <= bytes.byteLength; at += 16) blocks.add(bytes.toString('latin1', at, at + 16));
    count += Math.floor(bytes.byteLength / 16);
    t.ok(deflateRawSync(bytes).byteLength >= bytes.byteLength, `object ${object} does not compress`);
  }
  t.equal(blocks.size, count, 'no two objects share a block, and none repeats one');
  const other = new Catalogue({ ...SMALL, seed: 2 });
  t.notOk(
    bytesOf(other, 0, 0)
      .subarray(0, 16)
      .equals(bytesOf(catalogue, 0, 0).subarray(0, 16)),
  );
  t.not(other.pathOf(0), catalogue.pathOf(0), 'another seed has other names: no cache mixes them up');
  t.end();
});

t.test('the origin is an ordinary web server', async (t) => {
  const clock = new ManualClock();
  const timeline = new Timeline(clock);
  const catalogue = new Catalogue(SMALL);
  const origin = await LoadOrigin.open({ host: '127.0.0.1', port: 0 }, catalogue, timeline);
  t.teardown(() => origin.close());
  const port = Number(new URL(origin.url).port);
  const path = catalogue.pathOf(0);
  const whole = bytesOf(catalogue, 0, 0);
  const got = await ask(port, path);
  t.equal(got.status, 200);
  t.ok(whole.equals(got.body));
  t.equal(got.headers['cache-control'], 'max-age=5');
  const etag = got.headers['etag'] as string;
  t.equal((await ask(port, path, { fields: { 'If-None-Match': etag } })).status, 304);
  t.equal(origin.bodyBytes, whole.byteLength, 'nothing but bodies is counted');
  const part = await ask(port, path, { fields: { Range: 'bytes=100-199', 'If-Range': etag } });
  t.equal(part.status, 206);
  t.ok(part.body.equals(whole.subarray(100, 200)));
  t.equal((await ask(port, path, { fields: { Range: 'bytes=100-199', 'If-Range': '"other"' } })).status, 200);
  t.equal((await ask(port, path, { fields: { Range: 'bytes=99999999-' } })).status, 416);
  const head = await ask(port, path, { method: 'HEAD' });
  t.strictSame([head.status, head.headers['content-length']], [200, String(whole.byteLength)]);
  t.equal((await ask(port, '/load-0/object-0')).status, 404);

  timeline.start();
  clock.advance(SMALL.durationMs);
  const version = catalogue.versionAt(0, SMALL.durationMs);
  const later = await ask(port, path, { fields: { 'If-None-Match': etag } });
  t.equal(later.status, 200, 'with time comes another version');
  t.equal(later.headers['etag'], catalogue.etagOf(0, version));
  t.ok(later.body.equals(bytesOf(catalogue, 0, version)));
  const inUse = LoadOrigin.open({ host: '127.0.0.1', port }, catalogue, timeline);
  await t.rejects(inUse, { code: 'ERR_PEERDIST_INVALID_OPTION' });
});

/** A runner on a manual clock, at a server of the test. */
function start(
  t: Test,
  port: number,
  requests: readonly PlannedRequest[],
  parts: Partial<RunnerParts> = {},
): { readonly clock: ManualClock; readonly runner: LoadRunner; readonly finished: Promise<void> } {
  const clock = new ManualClock();
  const runner = new LoadRunner({
    plan: requests.values() as Iterable<PlannedRequest, undefined>,
    subject: new CatalogueSubject(new Catalogue(SMALL), new URL('http://origin.test')),
    target: { kind: 'proxy', host: '127.0.0.1', port },
    timeline: new Timeline(clock),
    clients: 5,
    maxInFlight: 1_000,
    timeoutMs: 8_000,
    deadlineMs: 1_000_000,
    ...parts,
  });
  t.teardown(() => runner.stop());
  runner.start();
  return { clock, runner, finished: inTime(runner.finished, 'the run') };
}

const wanted = (object: number, more: Partial<PlannedRequest> = {}): PlannedRequest => ({
  atMs: 0,
  client: 0,
  object,
  version: 0,
  ...more,
});

/** A proxy that does with each object what the test says; others get what is right. */
async function liar(
  t: Test,
  lies: Readonly<
    Record<number, (response: ServerResponse, body: Buffer, etag: string, request: IncomingMessage) => void>
  >,
): Promise<number> {
  const catalogue = new Catalogue(SMALL);
  const serve: RequestListener = (request, response) => {
    const object = catalogue.objectAt(new URL(request.url as string).pathname) as number;
    const body = bytesOf(catalogue, object, 0);
    const etag = catalogue.etagOf(object, 0);
    const lie = lies[object];
    if (lie !== undefined) lie(response, body, etag, request);
    else response.writeHead(200, { etag, 'content-length': body.byteLength }).end(body);
  };
  return listen(t, createServer(serve));
}

t.test('what goes wrong is counted as what it is', async (t) => {
  const port = await liar(t, {
    1: (response, body, etag) => {
      body[body.byteLength >> 1] = (body[body.byteLength >> 1] as number) ^ 1;
      response.writeHead(200, { etag, 'content-length': body.byteLength }).end(body);
    },
    2: (response, body, etag) => {
      response.writeHead(200, { etag, 'content-length': body.byteLength }).write(body.subarray(0, 1_000), () => {
        response.destroy();
      });
    },
    // Chunked: the end looks like one.
    3: (response, body, etag) => response.writeHead(200, { etag }).end(body.subarray(0, -1)),
    4: (response, body, etag) => response.writeHead(200, { etag }).end(Buffer.concat([body, Buffer.of(1)])),
    5: (response) => response.writeHead(500).end('no'),
    6: (response, body, etag) => {
      response.writeHead(200, { etag, 'content-length': body.byteLength }).write(body.subarray(0, 1_000));
    },
    7: (response) => response.socket?.end('what?\r\n\r\n'),
    8: (response) => response.destroy(),
    // The bytes of the range that was asked for, under the name of another one.
    9: (response, body, etag) =>
      response
        .writeHead(206, { etag, 'content-length': 10, 'content-range': `bytes 0-9/${body.byteLength}` })
        .end(body.subarray(5, 15)),
    10: () => {},
    // Not asked for a range.
    11: (response, body, etag) =>
      response
        .writeHead(206, { etag, 'content-length': 10, 'content-range': `bytes 0-9/${body.byteLength}` })
        .end(body.subarray(0, 10)),
    // A range answered with everything is no lie, nor is a weak tag.
    12: (response, body, etag) => response.writeHead(200, { etag: `W/${etag}` }).end(body),
  });
  const range = { offset: 5, length: 10 };
  const { clock, runner, finished } = start(t, port, [
    ...Array.from({ length: 14 }, (_, object) => wanted(object, { client: object % 5 })).filter(
      ({ object }) => object !== 9 && object !== 12,
    ),
    wanted(9, { range }),
    wanted(12, { range }),
  ]);
  const { stats } = runner;
  await until(
    () => stats.answered + stats.failed === 12 && stats.clientBytes > 0,
    'all but the silent ones have ended',
  );
  t.equal(stats.errors.timeout, 0);
  clock.advance(4_000);
  clock.advance(6_000);
  await finished;
  t.strictSame(stats.errors, {
    connect: 1,
    timeout: 2,
    protocol: 1,
    status: 2,
    stale: 0,
    wrongBytes: 3,
    cutShort: 2,
    unsent: 0,
  });
  t.equal(stats.answered, 3);
  t.equal(stats.sent, 14);
  t.equal(stats.lastByte.totalCount, 3, 'failures have no latency');
  t.equal(stats.statuses.get(500), 1);

  const nobody = start(t, await freePort(), [wanted(0)]);
  await nobody.finished;
  t.equal(nobody.runner.stats.errors.connect, 1, 'nobody listens');
});

t.test('an old version is an error when no cache may have it any more', async (t) => {
  const catalogue = new Catalogue(SMALL);
  const replacedAtMs = catalogue.replacedAtMs(0, 0) as number;
  const port = await liar(t, {});
  const at = [replacedAtMs + SMALL.maxAgeMs, replacedAtMs + SMALL.maxAgeMs + 3_000];
  const { clock, runner, finished } = start(
    t,
    port,
    at.map((atMs) => wanted(0, { atMs })),
  );
  clock.advance(at[0] as number);
  await until(() => runner.stats.answered === 1, 'the first one is within its time');
  clock.advance(3_000);
  await finished;
  t.strictSame([runner.stats.answered, runner.stats.errors.stale, runner.stats.failed], [1, 1, 1]);
});

t.test('clients that go away, and connections that are kept', async (t) => {
  const gone: Socket[] = [];
  const sockets = new Set<Socket | null>();
  const port = await liar(t, {
    1: (response, body, etag, request) => {
      response.writeHead(200, { etag, 'content-length': body.byteLength }).write(body.subarray(0, 9_000));
      request.socket.once('close', () => gone.push(request.socket));
    },
    2: (response, body, etag, { socket }) => {
      sockets.add(socket);
      response.writeHead(200, { etag, 'content-length': body.byteLength }).end(body);
    },
  });
  const first = start(t, port, [wanted(1, { abortAfterBytes: 8_000 })]);
  await first.finished;
  const { stats } = first.runner;
  t.strictSame([stats.aborted, stats.failed, stats.answered, stats.firstByte.totalCount], [1, 0, 0, 1]);
  t.ok(stats.clientBytes >= 8_000, 'what it got is counted');
  await until(() => gone.length === 1, 'the server sees it go');

  const times = [0, 10, 20].map((atMs) => wanted(2, { atMs }));
  const kept = start(t, port, [...times, wanted(2, { atMs: 30, client: 1 })]);
  for (let answers = 1; answers <= 3; answers += 1) {
    await until(() => kept.runner.stats.answered === answers, `${answers} answers`);
    // The connection is free a turn after the answer's end.
    await new Promise(setImmediate);
    kept.clock.advance(10);
  }
  await kept.finished;
  t.equal(sockets.size, 2, 'a client keeps its connection, and shares it with nobody');

  // A server may close a kept connection at any time; one that does it as the next request comes has not failed.
  let connections = 0;
  const catalogue = new Catalogue(SMALL);
  const body = bytesOf(catalogue, 0, 0);
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.byteLength}\r\nETag: ${catalogue.etagOf(0, 0)}\r\n\r\n`;
  const closing = createTcpServer((socket) => {
    connections += 1;
    let requests = 0;
    socket.on('error', () => {});
    socket.on('data', () => {
      requests += 1;
      if (requests === 1) socket.write(Buffer.concat([Buffer.from(head), body]));
      else socket.resetAndDestroy();
    });
  });
  closing.listen(0, '127.0.0.1');
  await once(closing, 'listening');
  t.teardown(() => closing.close());
  const again = start(t, (closing.address() as { port: number }).port, [wanted(0), wanted(0, { atMs: 10 })]);
  await until(() => again.runner.stats.answered === 1, 'the first answer');
  await new Promise(setImmediate);
  again.clock.advance(10);
  await again.finished;
  t.strictSame([again.runner.stats.answered, again.runner.stats.retries, connections], [2, 1, 2]);
});

t.test('a stall is seen by everybody whose time came meanwhile', async (t) => {
  // A request every 10 ms for 2 s; the server stands still from 200 ms to 1,200 ms. One who sends the next request only after the last
  // answer would see a single slow one of 101.
  const requests = Array.from({ length: 201 }, (_, index) => wanted(0, { atMs: index * 10, client: index % 5 }));
  for (const maxInFlight of [1_000, 1]) {
    let release: (() => void)[] | undefined;
    let isStanding = false;
    const port = await liar(t, {
      0: (response, body, etag) => {
        const answer = (): void => void response.writeHead(200, { etag, 'content-length': body.byteLength }).end(body);
        if (isStanding) (release ??= []).push(answer);
        else answer();
      },
    });
    const { clock, runner, finished } = start(t, port, requests, { maxInFlight });
    const { stats } = runner;
    const expected = Math.min(100, maxInFlight);
    for (let atMs = 0; atMs < 200; atMs += 10) {
      await until(() => stats.answered === atMs / 10 + 1, `the answer to the request at ${atMs} ms`);
      if (atMs === 190) isStanding = true;
      clock.advance(10);
    }
    clock.advance(990);
    await until(() => release?.length === expected, 'the server holds what it got');
    isStanding = false;
    clock.advance(10);
    for (const answer of release ?? []) answer();
    for (let atMs = 1_200; atMs <= 2_000; atMs += 10) {
      await until(() => stats.answered === atMs / 10 + 1, `everything up to ${atMs} ms`);
      clock.advance(10);
    }
    await finished;
    const { p50, p99, max } = percentiles(stats.lastByte);
    t.equal(p50, 0, `at most ${maxInFlight} in flight: half of the requests did not notice`);
    t.ok(p99 >= 970 && p99 <= 1_000, `p99 is ${p99} ms`);
    t.ok(Math.abs(max - 1_000) < 1, `the longest wait is ${max} ms`);
    t.ok(
      Math.abs(percentiles(stats.lastByte).mean - (1_000 * 101) / 2 / 201) < 10,
      'and everybody in between has waited accordingly',
    );
    t.equal(stats.sent, 201, 'nothing was left out');
    t.equal(stats.heldBack > 90, maxInFlight === 1, 'what the limit has held back is said');
    const stalled = stats.series.slices.map(({ latency }) => latency.getValueAtPercentile(99) / 1000);
    t.ok((stalled[0] as number) > 900 && (stalled[1] as number) > 100, 'in the slices of time it was planned for');
  }
});

t.test('no server keeps a run from ending', async (t) => {
  const drips: NodeJS.Timeout[] = [];
  const port = await liar(t, {
    0: (response, body, etag) => {
      response.writeHead(200, { etag, 'content-length': body.byteLength });
      let at = 0;
      drips.push(setInterval(() => response.write(body.subarray(at, (at += 1))), 1).unref());
    },
  });
  t.teardown(() => drips.forEach((timer) => clearInterval(timer)));
  const requests = [wanted(0), wanted(0, { atMs: 5 }), wanted(0, { atMs: 6 })];
  const { clock, runner, finished } = start(t, port, requests, { maxInFlight: 1, deadlineMs: 20_000 });
  const { stats } = runner;
  for (let elapsedMs = 0; elapsedMs < 20_000; elapsedMs += 1_000) {
    const bytes = stats.clientBytes;
    await until(() => stats.clientBytes > bytes, 'another byte');
    t.equal(stats.failed, 0);
    clock.advance(1_000);
  }
  await finished;
  t.strictSame([stats.errors.timeout, stats.errors.unsent, stats.sent], [1, 2, 1], 'at the deadline all is over');
  const early = start(t, port, requests);
  await until(() => early.runner.stats.clientBytes > 0, 'it is under way');
  early.runner.stop();
  await early.finished;
  t.strictSame([early.runner.stats.interrupted, early.runner.stats.failed], [1, 0], 'nor is ending early a failure');
});

t.test('the series stay short, and lose nothing', (t) => {
  const series = new Series();
  let bytes = 0;
  for (let second = 0; second < 3_600; second += 1) {
    const slice = series.at(second * 1_000);
    slice.bytes += second;
    slice.requests += 1;
    slice.latency.recordValue(second);
    bytes += second;
  }
  t.ok(series.slices.length <= MAX_SLICES && series.slices.length >= MAX_SLICES / 2 - 1);
  t.equal(series.sliceMs, 16_000);
  t.equal(
    series.slices.reduce((sum, slice) => sum + slice.bytes, 0),
    bytes,
  );
  t.equal(
    series.slices.reduce((sum, slice) => sum + slice.latency.totalCount, 0),
    3_600,
  );
  t.equal(series.slices[1]?.requests, 16);
  t.end();
});

t.test('profiles, lists and metrics are read carefully', async (t) => {
  const message = (work: () => unknown): string => {
    try {
      work();
    } catch (error) {
      if (isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) return error.message;
      throw error;
    }
    return 'accepted';
  };
  const profile = (change: object): string => message(() => checkProfile({ ...SMALL, ...change }));
  t.equal(profile({}), 'accepted');
  t.match(profile({ clients: 0 }), 'clients is a whole number from 1 to 10000');
  t.match(profile({ rangeShare: '0.5' }), 'rangeShare is a number from 0 to 1');
  t.match(profile({ sizes: 3 }), 'sizes is not known');
  t.match(profile({ waves: { everyMs: 1_000, withinMs: 2_000, bytes: 1, editBytes: 0 } }), 'a wave ends before');
  t.match(profile({ waves: { everyMs: 1, withinMs: 1, bytes: 1, editBytes: 0 } }), 'more than 1000 waves');
  t.match(profile({ updates: { everyMs: 1, editBytes: 1 }, durationMs: 20_000 }), 'more than 10000 new versions');
  t.match(profile({ ratePerSecond: 100_000, durationMs: 86_400_000 }), 'more than 20000000 requests');
  t.match(profile({ ratePerSecond: 0, waves: undefined }), 'neither a rate nor a wave');
  for (const value of [null, [], 'office', { ...SMALL, size: null }, { ...SMALL, name: 7 }])
    t.match(
      message(() => checkProfile(value)),
      'not a profile',
    );

  t.match(
    message(() => new UrlList('# nothing\n\n')),
    'no URL',
  );
  t.match(
    message(() => new UrlList('http://a/\nhttps://b/')),
    'line 2 does not begin with an http URL',
  );
  t.match(
    message(() => new UrlList('http://a/ 0123')),
    'line 1 has something else',
  );
  const body = Buffer.from('a body');
  const digest = createHash('sha256').update(body).digest('hex');
  const list = new UrlList(`http://a/x?y ${digest.toUpperCase()}\n# a comment\nhttp://b:81/z\n`);
  t.strictSame(
    [list.count, list.urlOf(0), list.urlOf(1)],
    [2, { authority: 'a', path: '/x?y' }, { authority: 'b:81', path: '/z' }],
  );
  const download = (object: number, bytes: Buffer, headers: Record<string, string>): string | undefined => {
    const check = list.check(wanted(object), { status: 200, headers });
    if (typeof check === 'string') return check;
    check.push(bytes);
    return check.end();
  };
  t.equal(download(0, body, {}), undefined, 'the digest of the list');
  t.equal(download(0, Buffer.from('another'), { etag: '"1"' }), 'wrongBytes');
  t.equal(download(1, body, { etag: '"1"' }), undefined, 'nothing to compare with');
  t.equal(list.unchecked, 1);
  t.equal(download(1, body, { etag: '"1"' }), undefined, 'the same once more');
  t.equal(download(1, Buffer.from('another'), { etag: '"1"' }), 'wrongBytes', 'another body under the same tag');
  t.equal(download(1, Buffer.from('another'), { etag: '"2"' }), undefined, 'another tag');
  t.equal(list.unchecked, 2);
  t.equal(list.check(wanted(1), { status: 404, headers: {} }), 'status');

  const before = parseTraffic('peerdist_wan_bytes_total{kind="plain"} 10\nother{kind="plain"} 3\n');
  const after = parseTraffic(
    '# HELP x\npeerdist_wan_bytes_total{kind="plain"} 1.5e+3\npeerdist_wan_bytes_total{kind="missing_data"} 7\npeerdist_delivered_bytes_total{source="store"} 5\n',
  );
  t.strictSame(trafficBetween(before, after), { wan: { plain: 1_490, missing_data: 7 }, delivered: { store: 5 } });
  t.strictSame(parseTraffic(readFileSync(join('package.json'), 'utf8')), { wan: {}, delivered: {} });
});

/** The command within this process: starting one takes longer than most runs here. */
async function load(args: readonly string[]): Promise<Finished> {
  const { code, stdout, stderr } = await runInside(['load', ...args], { stopRequested: new Promise(() => {}) });
  return { code, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() };
}

const words = (text: string): string[] => text.split(' ');

/** A short update wave over few objects: nothing aborted and no range, so that every byte can be foretold. */
const WAVE = words(
  '--profile update-wave --clients 8 --rate 20 --objects 10 --duration 1s --wave-every 1s --wave-within 1s --wave-size 3MiB',
);

/** Bytes that a run delivers, and those of the objects it asks for, each once. */
function foretold(profile: LoadProfile): {
  readonly requests: number;
  readonly bytes: number;
  readonly distinct: number;
} {
  const catalogue = new Catalogue(profile);
  const asked = plan(profile).map(({ object }) => object);
  const sum = (objects: Iterable<number>): number =>
    [...objects].reduce((bytes, object) => bytes + catalogue.bytesOf(object, 0), 0);
  return { requests: asked.length, bytes: sum(asked), distinct: sum(new Set(asked)) };
}

t.test('a wave through a branch and head office', async (t) => {
  const originPort = await freePort();
  const reverse = await Role.start(t, ['reverse', '--origin', `http://127.0.0.1:${originPort}`, '--store', 'memory']);
  const branch = await Role.start(t, ['branch', '--store', 'memory']);
  const directory = t.testdir({});
  const html = join(directory, 'report.html');
  const { code, stdout, stderr } = await load([
    ...WAVE,
    ...words(`--proxy 127.0.0.1:${branch.port} --origin-listen 127.0.0.1:${originPort} --url-base ${reverse.url}`),
    ...words(`--metrics http://127.0.0.1:${branch.adminPort}/metrics --json --html ${html}`),
  ]);
  t.strictSame([code, stderr], [0, ''], stdout);
  const result = JSON.parse(stdout) as LoadResult;
  const { requests, bytes, distinct } = foretold(result.profile);
  t.strictSame([result.requests.sent, result.requests.answered, result.requests.failed], [requests, requests, 0]);
  t.equal(result.clientBytes, bytes, 'clients got what was planned');
  const { wanBytes = 0, origin, lastByteMs, firstByteMs } = result;
  t.ok(
    wanBytes >= distinct && wanBytes < distinct * 1.1,
    `each object crossed the WAN once: ${wanBytes} of ${distinct}`,
  );
  t.ok((origin?.bodyBytes ?? 0) >= distinct);
  t.ok(firstByteMs.p50 > 0 && firstByteMs.p50 <= lastByteMs.p50 && lastByteMs.p50 <= lastByteMs.max);
  t.equal(
    result.series.slices.reduce((sum, slice) => sum + slice.bytes, 0),
    bytes,
  );
  const page = readFileSync(html, 'utf8');
  t.match(page, 'Throughput');
  t.notMatch(page, /(?:src|href)="?http/, 'the page asks nobody for anything');

  // Straight at the origin, as the report says.
  const report = join(directory, 'report.json');
  writeFileSync(report, stdout);
  const again = await load(
    words(`--profile ${report} --origin-listen 127.0.0.1:${originPort} --target http://127.0.0.1:${originPort} --json`),
  );
  const repeated = JSON.parse(again.stdout) as LoadResult;
  t.strictSame(repeated.profile, result.profile, 'a report is a profile');
  t.strictSame(
    [repeated.clientBytes, repeated.wanBytes],
    [bytes, bytes],
    'without a cache everything comes from the origin',
  );
});

for (const [name, start] of [
  ['squid', startSquid],
  ['nginx', startNginxCache],
] as const) {
  t.test(`the same wave through ${name}`, { skip: hasTool(name) ? false : `${name} is not installed` }, async (t) => {
    const originPort = await freePort();
    const cache: Running = await start(`http://127.0.0.1:${originPort}`);
    t.teardown(() => cache.stop());
    const via = name === 'squid' ? ['--proxy', `127.0.0.1:${cache.port}`] : ['--target', cache.url];
    const { code, stdout } = await load([...WAVE, ...via, '--origin-listen', `127.0.0.1:${originPort}`, '--json']);
    t.equal(code, 0, stdout);
    const { profile, clientBytes, wanBytes = 0 } = JSON.parse(stdout) as LoadResult;
    const { bytes, distinct } = foretold(profile);
    t.equal(clientBytes, bytes);
    t.ok(wanBytes >= distinct && wanBytes < bytes / 2, `it is a cache: ${wanBytes} of ${bytes}`);
  });
}

t.test('exit codes: 1 for what went wrong, 2 for what cannot be done', async (t) => {
  const wrong = await listen(
    t,
    createServer((_request, response) => response.end('not what was asked for')),
  );
  const broken = await listen(
    t,
    createServer((_request, response) => response.writeHead(500).end()),
  );
  const short = ['--clients', '2', '--rate', '50', '--duration', '500ms', '--wave-every', '0', '--edit-every', '0'];
  const at = (port: number, ...more: string[]): string[] => [...short, '--target', `http://127.0.0.1:${port}`, ...more];
  const bad = await load(at(wrong, '--max-errors', '100'));
  t.equal(bad.code, 1, 'no share of wrong bytes is fine');
  t.match(bad.stdout, /WRONG BYTES +│ +\d/);
  const failing = await load(at(broken));
  t.equal(failing.code, 1);
  t.match(failing.stdout, /status 500 +│ +\d/);
  t.equal((await load(at(broken, '--max-errors', '100%'))).code, 0);

  const proxy = ['--proxy', '127.0.0.1:1'];
  for (const [args, complaint] of [
    [[], 'load needs either --proxy HOST:PORT or --target URL'],
    [[...proxy, '--target', 'http://a:1'], 'load needs either --proxy HOST:PORT or --target URL'],
    [['--target', 'https://a:1'], 'not an http URL: https://a:1'],
    [
      [...proxy, '--profile', 'offcie'],
      'no such profile (office, update-wave, ranges, images), and not a file with one: offcie: ENOENT',
    ],
    [[...proxy, '--profile', 'ranges', '--wave-size', '1MiB'], '--wave-size needs --wave-every'],
    [[...proxy, '--ranges', '101'], '--ranges is at most 100 %: 101'],
    [[...proxy, '--rate', '-1'], '--rate is a number like 20 or 0.5: -1'],
    [[...proxy, '--urls', 'package.json'], '--urls: line 1 does not begin with an http URL'],
    [[...proxy, '--origin-listen', `127.0.0.1:${wrong}`], `cannot listen on 127.0.0.1:${wrong}: EADDRINUSE`],
    [
      [...proxy, '--metrics', `http://127.0.0.1:${broken}/metrics`],
      `no metrics from http://127.0.0.1:${broken}/metrics: status 500`,
    ],
    [[...proxy, '--html', '/nowhere/report.html'], 'cannot write /nowhere/report.html: ENOENT'],
  ] as const) {
    const { code, stdout, stderr } = await load(args);
    t.strictSame([code, stderr], [2, `peerdist: ${complaint}`], args.join(' '));
    t.notMatch(stdout, 'requests', 'nothing was sent');
  }
});

t.test('lists of URLs, and a run that is ended early', async (t) => {
  const body = Buffer.from('the body of a list');
  const digest = createHash('sha256').update(body).digest('hex');
  const port = await listen(
    t,
    createServer((_request, response) => response.writeHead(200, { etag: '"1"' }).end(body)),
  );
  const lists = t.testdir({
    good: `http://127.0.0.1:${port}/a ${digest}\nhttp://127.0.0.1:${port}/b\n`,
    bad: `http://127.0.0.1:${port}/a ${'0'.repeat(64)}\n`,
  });
  const branch = await Role.start(t, ['branch', '--store', 'memory']);
  const args = ['--proxy', `127.0.0.1:${branch.port}`, '--duration', '1s', '--json', '--urls'];
  const good = await load([...args, join(lists, 'good')]);
  t.equal(good.code, 0, good.stderr);
  const { requests, clientBytes, wanBytes } = JSON.parse(good.stdout) as LoadResult;
  t.ok(requests.answered > 0 && clientBytes === requests.answered * body.byteLength);
  t.strictSame([requests.unchecked, wanBytes], [1, undefined], 'all but the first of those without a digest');
  t.equal((await load([...args, join(lists, 'bad')])).code, 1);

  let asked = 0;
  const silent = await listen(
    t,
    createServer(() => {
      asked += 1;
    }),
  );
  const program = new Program(t, process.execPath, [COMMAND, 'load', '--target', `http://127.0.0.1:${silent}`]);
  await until(() => asked > 2, 'the run is under way');
  program.child.kill('SIGINT');
  const { code, stdout } = await inTime(program.finished, 'the end after SIGINT');
  t.equal(code, 0, 'what was under way has not failed');
  t.match(stdout, 'Ended early, of 60 s.');
  t.match(stdout, /under way at the end +│ +\d/);
});
