/** Roles of several processes: as one to clients and administrators, whichever of them dies. */
import { createServer } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MetricsSum, METRICS, type MetricsReport } from '../../plugins/metrics/index.ts';
import { quickDirectory } from '../support/disk.ts';
import { childrenOf, isAlive, processesWith, socketsOf } from '../support/processes.ts';
import {
  ask,
  begin,
  Connection,
  Gate,
  inTime,
  listen,
  Origin,
  type OriginFile,
  peerdist,
  readAtLeast,
  requestText,
  Role,
  same,
  startReverse,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const BODY = Buffer.from(seededBytes(901, 5_000_000));
const OTHER = Buffer.from(seededBytes(902, 300_000));
const FRESH = { 'cache-control': 'max-age=3600' };
const SECRET = { PEERDIST_SECRET: 'of the test' };
const notLinux = process.platform !== 'linux' && 'takes /proc';

const stateOf = (test: Test): string => join(quickDirectory(test), 'state');
const lines = (text: string): string[] => text.split('\n').filter(Boolean);
const leaderOf = ({ program }: Role): number => program.child.pid as number;

/** A role of two workers. */
async function crew(test: Test, state: string, ...args: readonly string[]): Promise<Role> {
  // Whatever becomes of the test, nobody is left.
  test.teardown(() => processesWith(state).forEach((pid) => process.kill(pid, 'SIGKILL')));
  return Role.start(test, [...args, '--workers', '2', '--state-dir', state], SECRET);
}

const gone = (state: string): Promise<void> =>
  until(() => processesWith(state).length === 0, 'no process is left').catch((error: Error) => {
    throw new Error(`${error.message}: ${processesWith(state).join()}`);
  });

/** Each series of `/metrics`, which is there once. */
async function scrape(role: Role): Promise<Map<string, number>> {
  const text = lines((await ask(role.adminPort as number, '/metrics')).body.toString());
  const names = text.map((line) => line.slice(0, line.lastIndexOf(' ')));
  if (new Set(names).size !== names.length) throw new Error(`something is there twice:\n${text.join('\n')}`);
  const values = text.filter((line) => !line.startsWith('#'));
  return new Map(values.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]));
}

const sumOf = (series: ReadonlyMap<string, number>, name: string): number =>
  [...series].filter(([each]) => each.startsWith(`${name}{`)).reduce((sum, [, value]) => sum + value, 0);

/** Connections, opened one after the other: workers get them in turn. */
async function connections(test: Test, port: number, count: number): Promise<Connection[]> {
  const made: Connection[] = [];
  for (let index = 0; index < count; index += 1) made.push(await Connection.open(port));
  test.teardown(() => made.forEach((each) => each.close()));
  return made;
}

async function askOn(
  connection: Connection,
  port: number,
  url: string,
  options = {},
): ReturnType<Connection['answer']> {
  connection.send(requestText(port, url, options));
  return inTime(connection.answer(), url);
}

await t.test('a branch and a head office of two workers each are one', { skip: notLinux }, async (test) => {
  const [near, far] = [stateOf(test), stateOf(test)];
  const copies = Array.from({ length: 8 }, (_, index) => `/copy-${index}`);
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"f"', headers: FRESH },
    '/note': { body: OTHER, etag: '"n"', headers: FRESH },
    ...Object.fromEntries(copies.map((path) => [path, { body: OTHER, etag: `"${path}"` }])),
  });
  const [reverse, branch] = await Promise.all([
    crew(test, far, 'reverse', '--origin', origin.url),
    crew(test, near, 'branch'),
  ]);
  for (const role of [reverse, branch]) {
    const url = 'http://127\\.0\\.0\\.1:\\d+';
    test.match(role.program.stdout, new RegExp(`^listening on ${url}\nlistening on ${url} \\(admin\\)\n$`));
    test.equal(childrenOf(leaderOf(role)).length, 2);
    test.equal((await ask(role.adminPort as number, '/readyz')).body.toString(), 'ready\n');
  }

  // One secret, whoever hashes.
  const coded = async (path: string): Promise<Buffer> => {
    for (;;) {
      const { headers, body } = await ask(reverse.port, path, { fields: V2_REQUEST });
      if (headers['content-encoding'] === 'peerdist') return body;
    }
  };
  const informations = await inTime(Promise.all(copies.map(coded)), 'all copies are hashed');
  test.equal(new Set(informations.map((each) => each.toString('hex'))).size, 1);

  const workers = childrenOf(leaderOf(branch));
  const idle = workers.map(socketsOf);
  const clients = await connections(test, branch.port, 16);
  let [bytes, requests] = [0, 0];
  const everybody = (path: string, body: Uint8Array): Promise<void[]> =>
    Promise.all(
      clients.map(async (client) => {
        const answer = await askOn(client, branch.port, `${reverse.url}${path}`);
        if (!same(answer.body, body)) test.fail(`${path}: wrong bytes`);
        bytes += answer.body.byteLength;
        requests += 1;
      }),
    );
  await everybody('/f', BODY);
  await everybody('/f', BODY);
  await everybody('/note', OTHER);
  await everybody('/note', OTHER);
  const busy = workers.map((pid, index) => socketsOf(pid) - (idle[index] as number));
  test.ok(Math.min(...busy) > 0, `both have clients: ${busy.join()}`);

  let series = await scrape(branch);
  const ended = 'peerdist_exchanges_total{status="2xx"}';
  const counted = async (): Promise<void> => {
    while (series.get(ended) !== requests) series = await scrape(branch);
  };
  await inTime(counted(), `${requests} exchanges are counted`);
  test.equal(sumOf(series, 'peerdist_delivered_bytes_total'), bytes, 'what clients got is what is counted');
  test.equal(series.get('peerdist_exchange_duration_seconds_count'), requests);
  test.same(
    [...new Set([...series.keys()].map((each) => each.replace(/(_bucket|_sum|_count)?(\{.*)?$/, '')))].toSorted(),
    Object.keys(METRICS).toSorted(),
  );
  test.ok(
    (series.get('peerdist_store_bytes{store="block"}') ?? 0) < 1.2 * (BODY.byteLength + OTHER.byteLength),
    'one store',
  );
  const shipped = origin.bodyBytes('/f');
  test.ok(shipped <= 2.1 * BODY.byteLength, `${shipped} bytes left the origin: no more than one for each worker`);

  // What one worker hears of makes the others forget.
  const changed = Buffer.from(seededBytes(903, 400_000));
  origin.resources.set('/note', { body: changed, etag: '"n2"', headers: FRESH });
  const [first, ...rest] = clients as [Connection, ...Connection[]];
  const post = { method: 'POST', body: 'new' };
  test.equal((await askOn(first, branch.port, `${reverse.url}/note`, post)).status, 200);
  const hearsOfIt = async (client: Connection): Promise<void> => {
    while (!same((await askOn(client, branch.port, `${reverse.url}/note`)).body, changed));
  };
  await inTime(Promise.all(rest.map(hearsOfIt)), 'all workers have heard of the change');

  await Promise.all([branch, reverse].map(async (role) => test.match(await role.stop(), { code: 0, stderr: '' })));
  test.same([processesWith(near), processesWith(far)], [[], []], 'nobody is left');
});

await t.test('what both workers want at the same moment crosses the WAN once', { skip: notLinux }, async (test) => {
  const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: FRESH } });
  const reverse = await startReverse(test, origin);
  await ask(reverse.port, '/f', { fields: V2_REQUEST });
  await reverse.published();
  const branch = await crew(test, stateOf(test), 'branch');
  const clients = await connections(test, branch.port, 16);
  const answers = await Promise.all(clients.map((client) => askOn(client, branch.port, `${reverse.url}/f`)));
  for (const { body } of answers) if (!same(body, BODY)) test.fail('wrong bytes');
  const series = await scrape(branch);
  const missing = series.get('peerdist_wan_bytes_total{kind="missing_data"}') ?? 0;
  test.equal(series.get('peerdist_wan_bytes_total{kind="plain"}'), 0);
  test.ok(missing >= BODY.byteLength && missing <= 1.3 * BODY.byteLength, `${missing / BODY.byteLength} copies`);
});

await t.test(
  'a worker that is killed takes its own clients with it, and nothing else',
  { skip: notLinux },
  async (test) => {
    const gate = new Gate();
    const slow: OriginFile = { body: BODY, firstBytes: 1_000_000, afterFirst: gate.passed };
    const paths = Array.from({ length: 12 }, (_, index) => `/slow-${index}`);
    const origin = await Origin.start(test, {
      ...Object.fromEntries(paths.map((path) => [path, slow])),
      '/f': { body: OTHER, etag: '"f"', headers: FRESH },
    });
    const state = stateOf(test);
    const branch = await crew(test, state, 'branch');
    for (let index = 0; index < 10; index += 1) await ask(branch.port, `${origin.url}/f`);
    const downloads = await Promise.all(
      paths.map(async (path) => {
        const connection = await begin(branch.port, `${origin.url}${path}`);
        const body = connection.body(await connection.head());
        return { connection, body, first: await readAtLeast(body, 1_000_000) };
      }),
    );

    // Somebody reads the metrics all the time.
    const over = new AbortController();
    let scrapes = 0;
    const fallen: string[] = [];
    const watch = (async () => {
      let before = await scrape(branch);
      while (!over.signal.aborted) {
        const now = await scrape(branch);
        for (const [name, value] of before)
          if (!name.startsWith('peerdist_store_bytes') && !((now.get(name) ?? -1) >= value))
            fallen.push(`${name} from ${value} to ${now.get(name)}`);
        before = now;
        scrapes += 1;
      }
      return before;
    })();
    await until(() => scrapes > 3, 'some scrapes');
    const [victim, survivor] = childrenOf(leaderOf(branch)) as [number, number];
    process.kill(victim, 'SIGKILL');
    const others = (): number[] => childrenOf(leaderOf(branch)).filter((pid) => pid !== victim);
    await until(() => others().length === 2, 'another one comes');
    test.ok(others().includes(survivor));
    gate.open();
    let broken = 0;
    for (const { connection, body, first } of downloads) {
      const bytes = Buffer.concat([first, await readAtLeast(body, BODY.byteLength)]);
      if (!connection.complete) broken += 1;
      test.ok(
        same(bytes, BODY.subarray(0, connection.complete ? undefined : bytes.byteLength)),
        'right as far as it came',
      );
      connection.close();
    }
    test.ok(broken > 0 && broken < paths.length, `${broken} of ${paths.length} downloads were the victim's`);
    // The new one takes its share.
    const newest = others().find((pid) => pid !== survivor) as number;
    const idle = socketsOf(newest);
    const takesPart = async (): Promise<void> => {
      while (socketsOf(newest) < idle + 2)
        for (const client of await connections(test, branch.port, 4))
          test.ok(same((await askOn(client, branch.port, `${origin.url}/f`)).body, OTHER));
    };
    await inTime(takesPart(), 'the new one serves');
    over.abort();
    const last = await watch;
    test.same(fallen, [], `nothing fell in ${scrapes} scrapes`);
    test.ok((last.get('peerdist_exchanges_total{status="2xx"}') ?? 0) >= 10);
    const { code, stderr } = await branch.stop();
    test.same([code, lines(stderr)], [0, ['a worker ended (SIGKILL); starting another']]);
    await gone(state);
  },
);

t.test('no sum falls when several end at once', async (test) => {
  const report = (value: number): MetricsReport =>
    [
      { name: 'n', help: 'h', type: 'counter', aggregator: 'sum', values: [{ value, labels: {} }] },
    ] as unknown as MetricsReport;
  const sum = new MetricsSum();
  for (const [member, value] of [5, 7, 11].entries()) sum.add(member, report(value));
  const ends = Promise.all([0, 1, 2].map((member) => sum.retire(member)));
  const seen: Promise<{ readonly text: string }>[] = [];
  for (let turn = 0; turn < 100; turn += 1) {
    seen.push(sum.exposition());
    await Promise.resolve();
  }
  await ends;
  seen.push(sum.exposition());
  const values = (await Promise.all(seen)).map(({ text }) => /^n (\d+)$/m.exec(text)?.[1]);
  test.same([...new Set(values)], ['23']);
});

await t.test('a hosted cache of two workers', { skip: notLinux }, async (test) => {
  const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: FRESH } });
  const reverse = await startReverse(test, origin);
  const state = stateOf(test);
  const hosted = await crew(test, state, 'hosted', '--no-offer-listen', '--allow-local-offers');
  const url = 'http://127\\.0\\.0\\.1:\\d+';
  test.match(
    hosted.program.stdout,
    new RegExp(`^listening on ${url} \\(hosted cache\\)\nlistening on ${url} \\(admin\\)\n$`),
  );
  const branchOf = (): Promise<Role> =>
    Role.start(test, [
      'branch',
      '--store',
      'memory',
      '--peer-listen',
      '127.0.0.1:0',
      '--no-discovery',
      '--hosted-cache',
      `127.0.0.1:${hosted.port}`,
    ]);
  const [first, second] = await Promise.all([branchOf(), branchOf()]);
  test.ok(same((await ask(first.port, `${reverse.url}/f`)).body, BODY));
  const ingested = async (): Promise<void> => {
    while (((await scrape(hosted)).get('peerdist_ingested_bytes_total') ?? 0) < BODY.byteLength);
  };
  await inTime(ingested(), 'the hosted cache has it');
  const shipped = origin.bodyBytes('/f');
  test.ok(same((await ask(second.port, `${reverse.url}/f`)).body, BODY));
  const delivered = await second.metric('peerdist_delivered_bytes_total{source="hosted_cache"}');
  // On a machine that has better things to do a block may be overdue.
  test.ok((delivered ?? 0) >= 0.5 * BODY.byteLength, `${delivered} bytes from the hosted cache`);
  test.ok(origin.bodyBytes('/f') - shipped <= 0.5 * BODY.byteLength);
  const series = await scrape(hosted);
  test.equal(series.get('peerdist_ingested_bytes_total'), BODY.byteLength, 'each block once');
  test.ok((series.get('peerdist_uploaded_bytes_total') ?? 0) >= (delivered ?? Infinity));
  test.match(await hosted.stop(), { code: 0, stderr: '' });
  await gone(state);
});

await t.test('what cannot be is said in one line, and nobody is left', { skip: notLinux }, async (test) => {
  const busy = await listen(test, createServer());
  const state = stateOf(test);
  const free = ['--listen', '127.0.0.1:0', '--no-admin', '--no-peers', '--state-dir', state, '--workers', '2'];
  for (const [args, clue] of [
    [['branch', ...free, '--listen', `127.0.0.1:${busy}`], /^peerdist: cannot listen on .*: the port is in use\n$/],
    [['branch', ...free, '--admin', `127.0.0.1:${busy}`], /^peerdist: cannot listen on .*: the port is in use\n$/],
    [
      ['branch', ...free, '--store', 'memory'],
      /^peerdist: --workers: several need a store they can share: --store disk/,
    ],
  ] as const) {
    const { code, stdout, stderr } = await peerdist(test, args, SECRET);
    test.same([code, stdout, lines(stderr).length], [2, '', 1], stderr);
    test.match(stderr, clue);
    test.same(processesWith(state), [], 'nobody is left');
  }
});

await t.test('workers end with their leader, however busy they are', { skip: notLinux }, async (test) => {
  const bodies = Array.from({ length: 12 }, (_, index) => Buffer.from(seededBytes(910 + index, 2_000_000)));
  const files = bodies.map((body, index) => [`/${index}`, { body, etag: `"${index}"`, headers: FRESH }] as const);
  const origin = await Origin.start(test, Object.fromEntries<OriginFile>(files));
  const reverse = await startReverse(test, origin);
  const state = stateOf(test);
  for (let round = 0; round < 3; round += 1) {
    const branch = await crew(test, state, 'branch', '--max-cache', '10MB');
    const workers = childrenOf(leaderOf(branch));
    let written = 0;
    const download = async (path: string): Promise<void> => {
      const connection = await begin(branch.port, `${reverse.url}${path}`);
      try {
        for await (const piece of connection.body(await connection.head())) written += piece.byteLength;
      } catch {
        // They are killed in the middle of it.
      }
      connection.close();
    };
    const downloads = files.map(([path]) => download(path));
    await until(() => written > 4_000_000 * (1 + round), 'they have something to do');
    process.kill(leaderOf(branch), 'SIGKILL');
    await until(() => !workers.some(isAlive), 'the workers have ended').catch((error: Error) =>
      test.fail(error.message),
    );
    await inTime(Promise.all(downloads), 'the end of the downloads');
  }
  await gone(state);
});
