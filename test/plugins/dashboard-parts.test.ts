/** The parts of the dashboard that count: history, snapshot, lists, and the stream of events. */
import { createServer, type IncomingMessage, request } from 'node:http';
import t, { type Test } from 'tap';
import * as fc from 'fast-check';
import { type Live, mergeLive, SavedContents } from '../../plugins/dashboard/index.ts';
import { EventStream } from '../../plugins/dashboard/event-stream.ts';
import { NO_TOTALS, type Samples, savedBytes, type Totals } from '../../plugins/dashboard/facts.ts';
import { History, savedDays } from '../../plugins/dashboard/history.ts';
import { MAX_SHOWN } from '../../plugins/dashboard/live.ts';
import { takeSnapshot } from '../../plugins/dashboard/snapshot.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Gate, inTime, listen, until } from '../support/proxies.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Not at the beginning of anything. */
const NOW = Date.parse('2026-03-28T23:17:42Z');
const totals = (store: number, wan = 0): Totals => ({ ...NO_TOTALS, store, wan });

await t.test('history: each span counts what was in it, and forgets what is older', (test) => {
  const history = new History();
  history.add(NOW - 10 * DAY, totals(1_000));
  history.add(NOW - 3 * DAY, totals(1_100, 500));
  history.add(NOW - 5 * HOUR, totals(1_110, 500));
  history.add(NOW - 20 * MINUTE, totals(1_111, 500));
  history.add(NOW, totals(1_111, 500));
  const saved = (['hour', 'day', 'week', 'days'] as const).map((span) => savedBytes(history.sum(span, NOW)));
  test.same(saved, [1, 11, 111 - 500, 1_111 - 500], 'and a cold cache costs');
  test.equal(savedBytes(history.sum('hour', NOW + 41 * MINUTE)), 0, 'later that is longer ago');
  test.same(
    savedDays(history, NOW).map((day) => [day.day, day.deliveredBytes, day.wanBytes, day.savedBytes]),
    [
      ['2026-03-18', 1_000, 0, 1_000],
      ['2026-03-25', 100, 500, -400],
      ['2026-03-28', 11, 0, 11],
    ],
  );
  for (const [span, buckets, ms] of [
    ['hour', 60, MINUTE],
    ['day', 144, 10 * MINUTE],
    ['week', 168, HOUR],
  ] as const) {
    const filled = history.filled(span, NOW);
    test.equal(filled.length, buckets);
    test.ok(filled.every(({ startMs }, index) => startMs - (filled[0]?.startMs ?? 0) === index * ms));
    test.equal(filled.at(-1)?.startMs, Math.floor(NOW / ms) * ms, 'up to now');
    const sum = filled.reduce((all, { bytes }) => all + savedBytes(bytes), 0);
    test.equal(sum, savedBytes(history.sum(span, NOW)), `${span}: the plot and the sum agree`);
  }
  test.end();
});

await t.test('history: a service that begins anew counts from 0, and nothing is counted twice', (test) => {
  const history = new History();
  history.add(NOW, totals(100));
  history.add(NOW, totals(100));
  test.equal(history.sum('hour', NOW).store, 100);
  history.add(NOW + MINUTE, totals(30));
  history.add(NOW + MINUTE, totals(40));
  test.equal(history.sum('hour', NOW + MINUTE).store, 140);
  const later = new History(history.encode());
  later.add(NOW + 2 * MINUTE, totals(7));
  test.equal(later.sum('hour', NOW + 2 * MINUTE).store, 147, 'what was kept is there');
  test.end();
});

await t.test('history: whatever the clock does, nothing is lost and the plot shows what the sum has', (test) => {
  const step = fc.tuple(fc.integer({ min: -3 * DAY, max: 3 * HOUR }), fc.integer({ min: 0, max: 1_000 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const history = new History();
      let [now, sum, latest] = [NOW, 0, NOW];
      for (const [forward, bytes] of steps) {
        now += forward;
        latest = Math.max(latest, now);
        sum += bytes;
        history.add(now, totals(sum));
      }
      const kept = new History(history.encode());
      const starts = kept.buckets('day', latest).map(({ startMs }) => startMs);
      const week = kept.filled('week', latest).reduce((all, { bytes }) => all + bytes.store, 0);
      return (
        kept.sum('days', latest).store === sum &&
        kept.sum('week', latest).store === week &&
        kept.encode() === history.encode() &&
        starts.every((start, index) => index === 0 || start > (starts[index - 1] as number))
      );
    }),
  );
  test.end();
});

await t.test('history: a clock that is wrong for a moment costs nothing of the past', (test) => {
  const history = new History();
  for (let day = 0; day < 300; day += 1) history.add(NOW + day * DAY, totals(day + 1));
  const end = NOW + 299 * DAY;
  history.add(1_000, totals(310));
  history.add(end, totals(311));
  test.equal(history.sum('days', end).store, 301, 'all but what it was wrong for');
  test.equal(history.buckets('days', end).length, 300);
  test.end();
});

await t.test('history: what is kept stays small; what cannot be read is empty', (test) => {
  const history = new History();
  for (let day = 0; day < 800; day += 1) history.add(NOW + day * DAY, totals(day + 1));
  const text = history.encode();
  test.ok(text.length < 200_000, `${text.length}`);
  const end = NOW + 799 * DAY;
  test.equal(new History(text).sum('days', end).store, 400, 'a year and a bit');
  for (const kept of [
    '',
    '{',
    'null',
    '[]',
    '{"hour":[]}',
    '{"hour":1,"day":1,"week":1,"days":1}',
    text.slice(0, -5),
    '"x"',
  ])
    test.equal(new History(kept).sum('days', end).store, 0, kept.slice(0, 40));
  const rows = JSON.parse(text) as Record<string, unknown[]>;
  rows['days'] = [
    ...(rows['days'] as unknown[]).slice(0, 3),
    [1, 2],
    ['x', 0, 0, 0, 0, 0, 0, 0],
    [],
    ...(rows['days'] as unknown[]).slice(-2),
  ];
  test.equal(new History(JSON.stringify(rows)).sum('days', end).store, 5, 'rows that are none are left out');
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (any) => {
      const read = new History(any);
      read.add(NOW, totals(5));
      return read.sum('hour', NOW).store === 5;
    }),
  );
  test.end();
});

await t.test('snapshot: numbers are those of the metrics; concerns are what has happened', (test) => {
  const counter = (
    name: string,
    ...values: readonly (readonly [Record<string, string>, number])[]
  ): Samples[number] => ({
    name,
    values: values.map(([labels, value]) => ({ labels: { site: 's', ...labels }, value })),
  });
  const samples: Samples = [
    counter(
      'peerdist_delivered_bytes_total',
      [{ source: 'store' }, 100],
      [{ source: 'peer' }, 20],
      [{ source: 'origin' }, 3],
    ),
    counter(
      'peerdist_wan_bytes_total',
      [{ kind: 'plain' }, 5],
      [{ kind: 'content_information' }, 2],
      [{ kind: 'missing_data' }, 1],
    ),
    counter('peerdist_described_bytes_total', [{ version: '1' }, 1_000], [{ version: '2' }, 2_000]),
    counter('peerdist_uploaded_bytes_total', [{}, 10_000]),
    counter('peerdist_exchanges_total', [{ status: '2xx' }, 7], [{ status: '5xx' }, 2]),
    counter('peerdist_store_bytes', [{ store: 'block' }, 50]),
    counter('peerdist_store_limit_bytes', [{ store: 'block' }, 80]),
    counter('peerdist_block_verifications_total', [{ result: 'ok' }, 9], [{ result: 'mismatch' }, 1]),
    counter('peerdist_peer_bans_total', [{ reason: 'lied' }, 0]),
  ];
  const live: Live = { neighbours: [], downloads: [], downloadCount: 0, contents: [] };
  const take = (role: string): ReturnType<typeof takeSnapshot> =>
    takeSnapshot({ role, version: '1', showsNames: false }, samples, new History(), {
      atMs: NOW,
      isReady: true,
      trouble: undefined,
      live,
    });
  const branch = take('branch');
  test.match(branch, {
    savedBytes: 100 + 20 + 3 + 3_000 - 8,
    requests: 9,
    uploadedBytes: 10_000,
    wan: { plain: 5, content_information: 2, missing_data: 1 },
    stores: [{ name: 'block', bytes: 50, limit: 80 }],
    saved: { hour: 0, day: 0, week: 0 },
  });
  test.same(
    branch.concerns.map(({ count }) => count),
    [2, 1],
    'server errors and wrong blocks; no bans',
  );
  test.equal(take('hosted').savedBytes, branch.savedBytes + 10_000, 'what only a hosted cache can count');
  test.same(take('reverse').totals, branch.totals);
  const nothing = takeSnapshot({ role: 'branch', version: '1', showsNames: false }, [], new History(), {
    atMs: NOW,
    isReady: false,
    trouble: 'x',
    live,
  });
  test.match(nothing, { savedBytes: 0, requests: 0, stores: [], concerns: [], isReady: false, trouble: 'x' });
  test.end();
});

await t.test('contents: those that save most stay, however many others come', (test) => {
  const contents = new SavedContents();
  for (let index = 0; index < 5; index += 1)
    for (let time = 0; time < 3; time += 1) contents.add(`/big-${index}`, 1_000 * (index + 1));
  contents.add('/cold', -5_000);
  for (let index = 0; index < 20_000; index += 1) contents.add(`/flood-${index}`, index % 7);
  const top = contents.top();
  test.equal(top.length, MAX_SHOWN);
  test.same(
    top.slice(0, 5),
    [5, 4, 3, 2, 1].map((size) => ({ url: `/big-${size - 1}`, savedBytes: 3_000 * size, requests: 3 })),
  );
  test.notOk(top.some(({ url, savedBytes: saved }) => url === '/cold' || saved <= 0));
  test.end();
});

await t.test('several processes are shown as one', (test) => {
  const neighbour = (
    name: string,
    state: Live['neighbours'][number]['state'],
    kind: 'peer' | 'hosted_cache' = 'peer',
  ) => ({ name, state, kind });
  const live = (index: number): Live => ({
    neighbours: [
      neighbour('a', index === 1 ? 'avoided' : 'answers'),
      neighbour('b', index === 0 ? 'new' : 'answers'),
      neighbour('a', 'doubtful', 'hosted_cache'),
    ],
    downloads: Array.from({ length: 15 }, (_, each) => ({
      url: `/${index}-${each}`,
      seconds: each * 3 + index,
      sentBytes: 1,
    })),
    downloadCount: 100,
    contents: [
      { url: '/both', savedBytes: 10 + index, requests: 2 },
      { url: `/only-${index}`, savedBytes: 1, requests: 1 },
      { url: '/dear', savedBytes: index === 0 ? -50 : 20, requests: 1 },
    ],
  });
  const merged = mergeLive([live(0), live(1), live(2)]);
  test.same(
    merged.neighbours.map(({ name, kind, state }) => [name, kind, state]),
    [
      ['a', 'peer', 'avoided'],
      ['b', 'peer', 'answers'],
      ['a', 'hosted_cache', 'doubtful'],
    ],
  );
  test.equal(merged.downloadCount, 300);
  test.equal(merged.downloads.length, MAX_SHOWN);
  test.same(
    merged.downloads.slice(0, 2).map(({ seconds }) => seconds),
    [44, 43],
    'the longest first',
  );
  test.same(merged.contents[0], { url: '/both', savedBytes: 33, requests: 6 });
  test.notOk(
    merged.contents.some(({ url }) => url === '/dear'),
    'in sum it has cost',
  );
  test.same(mergeLive([]), { neighbours: [], downloads: [], downloadCount: 0, contents: [] });
  test.end();
});

// --- The stream of events --------------------------------------------------------------------------------------------------------------

class Watcher {
  text = '';
  status = 0;
  isOver = false;
  response: IncomingMessage | undefined;
  readonly headers: Promise<IncomingMessage>;

  constructor(test: Test, port: number, method = 'GET') {
    const asked = request({ port, host: '127.0.0.1', path: '/events', method, agent: false });
    test.teardown(() => asked.destroy());
    asked.on('error', () => {});
    asked.end();
    this.headers = new Promise((resolve) => {
      asked.once('response', (response) => {
        this.response = response;
        this.status = response.statusCode ?? 0;
        response.on('close', () => {
          this.isOver = true;
        });
        response.on('error', () => {});
        resolve(response);
      });
    });
  }

  read(): this {
    void this.headers.then((response) =>
      response.on('data', (chunk: Buffer) => {
        this.text += chunk.toString();
      }),
    );
    return this;
  }

  get events(): string[] {
    return [...this.text.matchAll(/^event: (.*)$/gm)].map(([, name]) => name as string);
  }
}

async function stream(test: Test, tick: () => Promise<readonly (readonly [string, unknown])[]>) {
  const clock = new ManualClock();
  const events = new EventStream({ everyMs: 1_000, clock, tick });
  const server = createServer((message, response) => events.add(message, response));
  return { clock, events, server, port: await listen(test, server) };
}

await t.test('events: who watches is told at once and at each beat; nobody watches, nobody looks', async (test) => {
  let ticks = 0;
  const { clock, events, port } = await stream(test, async () => [['now', (ticks += 1)]]);
  clock.advance(10_000);
  test.same([ticks, clock.pending], [0, 0]);
  const first = new Watcher(test, port).read();
  await until(() => first.text === 'event: now\ndata: 1\n\n', 'the first event, without the clock');
  test.match((await first.headers).headers, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const second = new Watcher(test, port).read();
  await until(() => second.events.length === 1 && first.events.length === 2, 'the second is told at once too');
  for (let beat = 3; beat <= 5; beat += 1) {
    clock.advance(1_000);
    await until(() => first.events.length === beat && second.events.length === beat - 1, `beat ${beat}`);
  }
  test.equal(clock.pending, 1, 'one timer, however many watch');
  first.response?.destroy();
  second.response?.destroy();
  await until(() => clock.pending === 0, 'nobody watches any more');
  clock.advance(5_000);
  test.equal(ticks, 5);
  events.close();
});

await t.test('events: a look that fails or takes long is one look less', async (test) => {
  let ticks = 0;
  let gate: Gate | undefined;
  const { clock, port } = await stream(test, async () => {
    ticks += 1;
    if (ticks === 2) throw new Error('not now');
    await gate?.passed;
    return [['now', ticks]];
  });
  const watcher = new Watcher(test, port).read();
  await until(() => watcher.events.length === 1, 'the first event');
  clock.advance(1_000);
  await until(() => ticks === 2, 'the look that fails');
  gate = new Gate();
  await until(() => {
    clock.advance(1_000);
    return ticks === 3;
  }, 'the next look');
  clock.advance(5_000);
  test.equal(ticks, 3, 'no look on top of a look');
  gate.open();
  await until(() => watcher.text.endsWith('data: 3\n\n'), 'what it found');
  await until(() => {
    clock.advance(1_000);
    return watcher.events.length > 2;
  }, 'and on');
});

await t.test(
  'events: 32 may watch; HEAD watches nothing; whoever does not read costs nothing and holds up nobody',
  async (test) => {
    const big = 'x'.repeat(100_000);
    let ticks = 0;
    const { clock, events, server, port } = await stream(test, async () => [['now', `${(ticks += 1)} ${big}`]]);
    const sockets = new Set<{ writableLength: number }>();
    server.on('connection', (socket) => sockets.add(socket));
    const watchers = Array.from({ length: 32 }, () => new Watcher(test, port));
    await inTime(Promise.all(watchers.map(({ headers }) => headers)), 'all 32 watch');
    const late = new Watcher(test, port).read();
    await late.headers;
    test.equal(late.status, 503);
    const head = new Watcher(test, port, 'HEAD').read();
    test.equal((await inTime(head.headers, 'HEAD')).statusCode, 503, 'as GET would be answered');
    watchers.pop()?.response?.destroy();
    await until(() => {
      const next = new Watcher(test, port, 'HEAD').read();
      watchers.push(next);
      return watchers.some(({ status, isOver }, index) => index >= 31 && status === 200 && isOver);
    }, 'HEAD is answered at once, and takes no place');

    const reader = watchers[0]?.read() as Watcher;
    // Far more than sockets buffer.
    for (let beat = 0; beat < 200; beat += 1) {
      const before = ticks;
      clock.advance(1_000);
      await until(() => ticks === before + 1 && reader.text.includes(`data: "${ticks} `), `beat ${beat}`);
    }
    const waiting = [...sockets].reduce((sum, { writableLength }) => sum + writableLength, 0);
    test.ok(waiting <= 33 * 150_000, `${waiting} bytes wait for those who do not read`);

    events.close();
    await until(() => reader.isOver, 'the stream of the one that reads ends');
    const closed = new Promise((resolve) => {
      server.close(resolve);
    });
    await inTime(closed, 'the end of all connections, of those too that do not read');
    test.equal(clock.pending, 0);
  },
);

await t.test('events: nobody can watch what has ended', async (test) => {
  const { clock, events, port } = await stream(test, async () => [['now', 1]]);
  events.close();
  const late = new Watcher(test, port).read();
  await inTime(late.headers, 'an answer');
  await until(() => late.isOver, 'its end');
  test.same([late.status, late.text, clock.pending], [503, 'it is ending\n', 0]);
});
