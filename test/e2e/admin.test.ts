/** The administrator's listener of a role: there before the service is, honest to the end, and for those only whom it is for. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Savings } from '../../plugins/dashboard/index.ts';
import type { Snapshot } from '../../plugins/dashboard/snapshot.ts';
import { quickDirectory } from '../support/disk.ts';
import { childrenOf, isAlive, processesWith } from '../support/processes.ts';
import {
  ask,
  type Answer,
  begin,
  COMMAND,
  Connection,
  Gate,
  inTime,
  Origin,
  Program,
  readAtLeast,
  requestText,
  Role,
  same,
  until,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const BODY = Buffer.from(seededBytes(78, 3_000_000));
const FRESH = { 'cache-control': 'max-age=3600' };
const notLinux = process.platform !== 'linux' && 'takes /proc';
const TOKEN = 'a-token-of-this-test';

const stateOf = (test: Test): string => join(quickDirectory(test), 'state');
const admin = (role: Role): number => role.adminPort as number;
const text = ({ status, body }: Answer): string => `${status} ${body.toString()}`;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => {
    server.once('listening', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}

/** The first `now` and `history` that somebody who begins to watch is told. */
async function firstEvents(
  port: number,
  fields: Record<string, string> = {},
): Promise<{ now: Snapshot; history: Record<string, unknown[]> }> {
  const connection = await begin(port, '/events', { fields });
  try {
    const head = await inTime(connection.head(), 'the head of /events');
    if (head.status !== 200) throw new Error(`${head.status}`);
    let said = '';
    const body = connection.body(head);
    const find = (name: string): string | undefined =>
      new RegExp(`^event: ${name}\\ndata: (.*)\\n\\n`, 'm').exec(said)?.[1];
    while (find('now') === undefined || find('history') === undefined) {
      const next = await inTime(body.next(), 'events');
      if (next.done === true) throw new Error('the stream ended');
      said += next.value.toString();
    }
    return {
      now: JSON.parse(find('now') as string) as Snapshot,
      history: JSON.parse(find('history') as string) as Record<string, unknown[]>,
    };
  } finally {
    connection.close();
  }
}

await t.test(
  'without a token: whoever asks by address is told, whoever comes by a strange name is not',
  async (test) => {
    const origin = await Origin.start(test);
    const role = await Role.start(test, ['reverse', '--origin', origin.url, '--store', 'memory']);
    const port = admin(role);
    for (const path of [
      '/healthz',
      '/readyz',
      '/metrics',
      '/savings',
      '/dashboard',
      '/dashboard/dashboard.js',
      '/dashboard/plots.js',
      '/dashboard/style.css',
    ]) {
      const whole = await ask(port, path);
      test.equal(whole.status, 200, path);
      test.ok(whole.body.byteLength > 2, path);
      test.equal(whole.headers['x-content-type-options'], 'nosniff');
      const head = await ask(port, path, { method: 'HEAD' });
      test.same([head.status, head.complete], [200, true], `HEAD ${path}`);
      if (path !== '/healthz' && path !== '/readyz')
        test.same(
          [
            (await ask(port, path, { method: 'POST', body: 'x' })).status,
            (await ask(port, path, { method: 'DELETE' })).status,
          ],
          [405, 405],
          path,
        );
    }
    test.match(
      (await ask(port, '/dashboard')).headers['content-security-policy'],
      /default-src 'none'.*frame-ancestors 'none'/,
    );
    for (const path of [
      '/metrics/',
      '//metrics',
      '/dashboard/../metrics',
      '/__proto__',
      '/constructor',
      '/toString',
      '*',
      '/fill',
      '/%6detrics',
    ])
      test.match(text(await ask(port, path)), /^404 only \/healthz, /, path);
    const head = await inTime(ask(port, '/events', { method: 'HEAD' }), 'HEAD /events ends');
    test.same([head.status, head.headers['content-type']], [200, 'text/event-stream']);

    for (const host of [
      'evil.example',
      'evil.example:9180',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '',
      'x@127.0.0.1',
    ]) {
      for (const path of ['/events', '/savings', '/events?x=/metrics'])
        test.equal((await ask(port, path, { host })).status, 403, `${path} as ${host}`);
      test.equal((await ask(port, '/metrics', { host })).status, 200, 'Prometheus may come by any name');
      test.equal((await ask(port, '/dashboard', { host })).status, 200, 'the page holds no data');
    }
    for (const host of ['127.0.0.1', `localhost:${port}`, '[::1]:80', '10.1.2.3'])
      test.equal((await ask(port, '/savings', { host })).status, 200, host);
    await role.stop();
  },
);

await t.test('with a token: nothing with numbers in it without that', async (test) => {
  const directory = quickDirectory(test);
  const file = join(directory, 'token');
  writeFileSync(file, `${TOKEN}\n`);
  const origin = await Origin.start(test);
  const role = await Role.start(test, ['reverse', '--origin', origin.url, '--store', 'memory', '--admin-token', file]);
  const port = admin(role);
  const bearer = { authorization: `Bearer ${TOKEN}` };
  for (const path of ['/metrics', '/events', '/savings', '/metrics?token=x']) {
    const answers = await Promise.all(
      [
        {},
        { authorization: 'Bearer' },
        { authorization: `Bearer ${TOKEN}x` },
        { authorization: `Bearer ${TOKEN.slice(0, -1)}` },
        { authorization: `Basic ${TOKEN}` },
        { authorization: TOKEN },
        { cookie: TOKEN },
      ].map((fields) => ask(port, path, { fields })),
    );
    const same401 = answers.map((answer) => `${text(answer)}${answer.headers['www-authenticate']}`);
    test.same(
      new Set(same401),
      new Set(['401 the token of --admin-token is wanted\nBearer']),
      `${path}: one answer whatever was wrong`,
    );
  }
  for (const path of [
    '/healthz',
    '/readyz',
    '/dashboard',
    '/dashboard/dashboard.js',
    '/dashboard/plots.js',
    '/dashboard/style.css',
  ])
    test.equal((await ask(port, path)).status, 200, `${path} is open`);
  for (const path of ['/metrics', '/savings'])
    test.equal(
      (await ask(port, path, { fields: bearer, host: 'any.example' })).status,
      200,
      `${path}, by whatever name`,
    );
  test.equal((await firstEvents(port, bearer)).now.role, 'reverse');
  test.equal(
    (await ask(port, '/events', { fields: { authorization: `Bearer ${TOKEN}`, 'x-y': 'z' }, method: 'HEAD' })).status,
    200,
  );
  test.notMatch(JSON.stringify(role.program.log), TOKEN);
  await role.stop();
  for (const wrong of ['', 'short', 'with space in it', 'line\nline-line']) {
    writeFileSync(file, wrong);
    const program = new Program(test, process.execPath, [
      COMMAND,
      'reverse',
      '--origin',
      origin.url,
      '--listen',
      '127.0.0.1:0',
      '--admin',
      '127.0.0.1:0',
      '--admin-token',
      file,
    ]);
    const { code, stderr } = await inTime(program.finished, 'its end', 20_000);
    test.equal(code, 2);
    test.match(stderr, /^peerdist: --admin-token: .* has no token: [^\n]+\n$/);
  }
});

await t.test(
  'it is there while the store is looked through, and a signal then is no end',
  { skip: notLinux },
  async (test) => {
    const state = stateOf(test);
    test.teardown(() => processesWith(state).forEach((pid) => process.kill(pid, 'SIGKILL')));
    const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: FRESH } });
    const first = await Role.start(test, ['branch', '--state-dir', state]);
    await ask(first.port, `${origin.url}/f`);
    first.program.child.kill('SIGKILL');
    await first.program.finished;

    const adminPort = await freePort();
    const args = [
      'branch',
      '--listen',
      '127.0.0.1:0',
      '--no-peers',
      '--admin',
      `127.0.0.1:${adminPort}`,
      '--state-dir',
      state,
    ];
    const program = new Program(test, process.execPath, [COMMAND, ...args]);
    const looking = (): number[] =>
      childrenOf(program.child.pid as number).filter((pid) =>
        readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('lmdb-check'),
      );
    let found: number[] = [];
    await until(
      () => {
        found = looking();
        return found.length > 0;
      },
      'the store is looked through',
      20_000,
    );
    process.kill(found[0] as number, 'SIGSTOP');
    test.equal(text(await ask(adminPort, '/healthz')), '200 ok\n');
    test.equal(text(await ask(adminPort, '/readyz')), '503 starting\n');
    for (const path of ['/metrics', '/events', '/dashboard', '/nothing'])
      test.equal(text(await ask(adminPort, path)), '503 starting\n', path);
    program.child.kill('SIGHUP');
    test.equal(text(await ask(adminPort, '/readyz')), '503 starting\n');
    test.ok(isAlive(program.child.pid as number));
    process.kill(found[0] as number, 'SIGCONT');
    await until(() => program.lines.some((line) => line.includes('(admin)')), 'it listens', 20_000);
    test.equal(text(await ask(adminPort, '/readyz')), '200 ready\n');
    test.equal((await ask(adminPort, '/metrics')).status, 200);
    program.child.kill('SIGTERM');
    test.equal((await inTime(program.finished, 'its end', 15_000)).code, 0);
  },
);

await t.test(
  'it says to the end that it is ending; downloads end whole, or are cut when their time is up',
  async (test) => {
    const gate = new Gate();
    const never = new Gate();
    test.teardown(() => never.open());
    const origin = await Origin.start(test, {
      '/slow': { body: BODY, etag: '"s"', firstBytes: 100_000, afterFirst: gate.passed },
      '/stuck': { body: BODY, etag: '"t"', firstBytes: 100_000, afterFirst: never.passed },
    });
    const start = (...args: readonly string[]): Promise<Role> =>
      Role.start(test, ['reverse', '--origin', origin.url, '--store', 'memory', ...args]);
    const role = await start('--drain-timeout', '60s');
    const watching = await begin(admin(role), '/events');
    const watched = watching.body(await watching.head());
    await watched.next();
    // One who watches and does not read holds nothing up either.
    const deaf = await begin(admin(role), '/events');
    await deaf.head();
    const download = await begin(role.port, '/slow');
    const head = await download.head();
    const body = download.body(head);
    const begun = await readAtLeast(body, 100_000);
    role.program.child.kill('SIGTERM');
    let answer: Answer | undefined;
    for (; answer?.status !== 503;) answer = await ask(admin(role), '/readyz');
    test.equal(text(answer), '503 ending\n');
    test.equal(text(await ask(admin(role), '/healthz')), '200 ok\n');
    test.equal((await ask(admin(role), '/metrics')).status, 200);
    await test.rejects(ask(role.port, '/slow'), 'nobody new is served');
    const { now } = await firstEvents(admin(role));
    test.match(now, { isReady: false, live: { downloadCount: 1 } }, 'and the dashboard says so');
    gate.open();
    const rest = await readAtLeast(body, BODY.byteLength);
    test.ok(same(Buffer.concat([begun, rest]), BODY) && download.complete, 'the download ends whole');
    const ended = (async () => {
      for await (const _ of watched);
    })();
    const { code } = await inTime(role.program.finished, 'its end, long before the time is up', 15_000);
    await inTime(ended, 'the end of the stream');
    test.equal(code, 0);
    test.match(role.program.requests.at(-1), { url: `http://127.0.0.1:${role.port}/slow`, outcome: 'complete' });

    const impatient = await start('--drain-timeout', '300ms');
    const cut = await begin(impatient.port, '/stuck');
    const cutHead = await cut.head();
    await readAtLeast(cut.body(cutHead), 100_000);
    impatient.program.child.kill('SIGTERM');
    test.equal((await inTime(impatient.program.finished, 'its end', 10_000)).code, 0);
    await inTime(cut.remainder(), 'the connection is cut');
    test.notOk(cut.complete);
  },
);

await t.test(
  '/events: numbers are those of /metrics, 32 may watch, one who does not read holds up nobody',
  async (test) => {
    const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: FRESH } });
    const role = await Role.start(test, ['branch', '--store', 'memory', '--dashboard-names', '--site', 'Bamberg']);
    for (let time = 0; time < 3; time += 1) await ask(role.port, `${origin.url}/f`);
    await until(() => role.program.requests.length === 3, 'the lines');
    const { now, history } = await firstEvents(admin(role));
    test.match(now, {
      role: 'branch',
      site: 'Bamberg',
      isReady: true,
      requests: 3,
      live: { downloads: [], downloadCount: 0 },
    });
    test.same(Object.keys(history).toSorted(), ['day', 'hour', 'week']);
    await agrees(test, role, now);

    const watchers = await Promise.all(Array.from({ length: 40 }, () => begin(admin(role), '/events')));
    const statuses: number[] = [];
    for (const watcher of watchers) statuses.push((await inTime(watcher.head(), 'a head')).status);
    test.same(
      [statuses.filter((status) => status === 200).length, statuses.filter((status) => status === 503).length],
      [32, 8],
    );
    test.equal(text(await ask(admin(role), '/healthz')), '200 ok\n');
    for (const watcher of watchers) watcher.close();
    let again = 503;
    for (; again !== 200;) again = (await ask(admin(role), '/events', { method: 'HEAD' })).status;
    test.equal((await firstEvents(admin(role))).now.requests, 3, 'when they have left others may');
    await role.stop();
  },
);

/** What the dashboard says is what Prometheus is told. */
async function agrees(test: Test, role: Role, now: Snapshot): Promise<void> {
  const series = (await ask(admin(role), '/metrics')).body.toString().split('\n');
  const sum = (name: string, ...labels: readonly string[]): number =>
    series
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .filter((line) => labels.every((label) => line.includes(label)))
      .reduce((total, line) => total + Number(line.split(' ').at(-1)), 0);
  const sources = (['store', 'peer', 'hosted_cache', 'origin'] as const).map((source) => [
    source,
    sum('peerdist_delivered_bytes_total', `source="${source}"`),
  ]);
  test.same(Object.fromEntries(sources), {
    store: now.totals.store,
    peer: now.totals.peer,
    hosted_cache: now.totals.hosted_cache,
    origin: now.totals.origin,
  });
  test.equal(now.totals.wan, sum('peerdist_wan_bytes_total'));
  test.same(
    Object.values(now.wan).reduce((all, bytes) => all + bytes, 0),
    now.totals.wan,
    'its parts',
  );
  test.equal(now.totals.described, sum('peerdist_described_bytes_total'));
  test.equal(now.requests, sum('peerdist_exchanges_total'));
  const delivered = sources.reduce((all, [, bytes]) => all + (bytes as number), 0);
  test.equal(now.savedBytes, delivered + now.totals.described - now.totals.wan);
  test.ok(now.totals.wan > 0);
}

for (const workers of [1, 2])
  await t.test(`what was saved is known after a restart: ${workers} processes`, { skip: notLinux }, async (test) => {
    const state = stateOf(test);
    test.teardown(() => processesWith(state).forEach((pid) => process.kill(pid, 'SIGKILL')));
    const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: FRESH } });
    const head = await Role.start(test, ['reverse', '--origin', origin.url, '--store', 'memory']);
    const start = (): Promise<Role> => Role.start(test, ['branch', '--state-dir', state, '--workers', String(workers)]);
    let role = await start();
    const savings = async (): Promise<Savings> =>
      JSON.parse((await ask(admin(role), '/savings')).body.toString()) as Savings;
    const dayOf = ({ days }: Savings): number => days.reduce((sum, { savedBytes }) => sum + savedBytes, 0);
    let requests = 0;
    while ((await savings()).savedBytes <= BODY.byteLength) {
      await ask(role.port, `${head.url}/f`);
      if ((requests += 1) > 500) throw new Error('nothing is saved');
    }
    await until(() => role.program.requests.length === requests, 'all lines of the log');
    const before = await firstEvents(admin(role));
    await agrees(test, role, before.now);
    test.equal(before.now.requests, requests);
    test.equal(before.now.saved.hour, before.now.savedBytes);
    test.equal(dayOf(await savings()), before.now.savedBytes);
    test.equal((await role.stop()).code, 0);
    const file = join(state, 'branch', 'savings.json');
    test.equal(statSync(file).mode & 0o077, 0, 'for its owner');
    test.notMatch(readFileSync(file, 'utf8'), /127\.0|\/f/, 'no names in it');

    role = await start();
    const after = (await firstEvents(admin(role))).now;
    test.same([after.savedBytes, after.requests], [0, 0], 'since the start');
    test.same(
      [after.saved.hour, after.saved.day, after.saved.week],
      Array.from({ length: 3 }, () => before.now.savedBytes),
    );
    test.equal(dayOf(await savings()), before.now.savedBytes);
    await ask(role.port, `${head.url}/f`);
    test.ok(dayOf(await savings()) > before.now.savedBytes, 'and it goes on from there');
    await role.stop();

    for (const damaged of ['', '{"hour": [[', '\0\0', '{"hour":[[1,2]],"day":[],"week":[],"days":[]}']) {
      writeFileSync(file, damaged);
      role = await start();
      test.equal((await firstEvents(admin(role))).now.saved.week, 0, `${JSON.stringify(damaged)}: begins empty`);
      test.equal((await role.stop()).code, 0);
      if (workers > 1) break;
    }
    test.doesNotThrow(() => JSON.parse(readFileSync(file, 'utf8')) as unknown, 'and is whole again');
  });

await t.test('a role in memory keeps no file', async (test) => {
  const state = stateOf(test);
  const role = await Role.start(test, ['branch', '--store', 'memory', '--state-dir', state]);
  const connection = await Connection.open(role.port);
  connection.send(requestText(role.port, 'http://127.0.0.1:9/'));
  await connection.answer();
  connection.close();
  await role.stop();
  test.notOk(existsSync(state));
});
