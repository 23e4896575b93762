/** `peerdist hosted` with the other roles around it: branches that offer and ask, restarts, a full cache, preload, packages. */
import { randomBytes } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ask, Origin, peerdist, Role, same, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const BODY = Buffer.from(seededBytes(501, 6_000_000).buffer);
const OTHER = Buffer.from(seededBytes(502, 3_000_000).buffer);
const FRESH = { 'cache-control': 'max-age=600' };
const directory = t.testdir();
const path = (name: string): string => join(directory, name);

interface Site {
  readonly origin: Origin;
  readonly reverse: Role;
}

async function headOffice(test: Test): Promise<Site> {
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"f"', headers: FRESH },
    '/g': { body: OTHER, etag: '"g"', headers: FRESH },
    '/tiny': { body: BODY.subarray(0, 1000), etag: '"t"', headers: FRESH },
  });
  const reverse = await Role.start(test, ['reverse', '--origin', origin.url, '--no-admin', '--secret-hex', '0a']);
  return { origin, reverse };
}

const startHosted = (test: Test, ...more: readonly string[]): Promise<Role> =>
  Role.start(test, [
    'hosted',
    '--no-offer-listen',
    '--state-dir',
    path('state'),
    '--store',
    'memory',
    '--allow-local-offers',
    ...more,
  ]);

const startBranch = (test: Test, hosted: readonly Role[], ...more: readonly string[]): Promise<Role> =>
  Role.start(test, [
    'branch',
    '--peer-listen',
    '127.0.0.1:0',
    ...hosted.flatMap(({ port }) => ['--hosted-cache', `127.0.0.1:${port}`]),
    ...more,
  ]);

const series = (name: string, value: string): string => `${name}{${value}}`;
const delivered = (branch: Role, source: string): Promise<number | undefined> =>
  branch.metric(series('peerdist_delivered_bytes_total', `source="${source}"`));

/** Waits until a metric of a role has reached a value. */
async function reaches(role: Role, metric: string, least: number): Promise<void> {
  for (let value = 0; value < least; value = (await role.metric(metric)) ?? 0);
}

/** Has a branch download a file, and waits until the hosted cache has got it from there. */
async function offerThrough(branch: Role, hosted: Role, url: string, body: Buffer): Promise<void> {
  const before = (await hosted.metric('peerdist_ingested_bytes_total')) ?? 0;
  if (!same((await ask(branch.port, url)).body, body)) throw new Error('wrong bytes');
  await reaches(hosted, 'peerdist_ingested_bytes_total', before + body.byteLength);
}

for (const version of [1, 2]) {
  await t.test(
    `version ${version}: the first branch crosses the WAN, the second gets it from the hosted cache`,
    async (test) => {
      const { reverse } = await headOffice(test);
      const hosted = await startHosted(test);
      const form = ['--content-info', String(version)];
      const [first, second] = [await startBranch(test, [hosted], ...form), await startBranch(test, [hosted], ...form)];
      await offerThrough(first, hosted, `${reverse.url}/f`, BODY);
      test.equal(await delivered(first, 'origin'), BODY.byteLength);
      for (const range of [undefined, 'bytes=1000000-1999999', 'bytes=-70000']) {
        const { status, body } = await ask(
          second.port,
          `${reverse.url}/f`,
          range === undefined ? {} : { fields: { range } },
        );
        test.equal(status, range === undefined ? 200 : 206);
        const wanted =
          range === undefined ? BODY : range.startsWith('bytes=-') ? BODY.subarray(-70_000) : BODY.subarray(1e6, 2e6);
        test.ok(same(body, wanted), `the bytes of ${range ?? 'everything'}`);
      }
      const fromCache = (await delivered(second, 'hosted_cache')) ?? 0;
      test.ok(fromCache >= 0.99 * BODY.byteLength, `${fromCache} of ${BODY.byteLength} bytes from the hosted cache`);
      test.equal(await second.wanBodyBytes(), 0, 'and none over the WAN');
      test.equal(await second.metric(series('peerdist_discovery_messages_total', 'message="probe_sent"')), 0);
      test.equal(
        await second.metric(series('peerdist_offered_segments_total', 'result="ok"')),
        0,
        'nothing new to offer',
      );
      test.equal(
        await hosted.metric(series('peerdist_ingest_requests_total', 'result="stored"')),
        version === 1 ? 92 : await hosted.metric(series('peerdist_offers_total', 'result="accepted"')),
        'each block was fetched once',
      );
    },
  );
}

await t.test(
  'a hosted cache that is away costs nothing but the WAN, and one that comes back is offered to',
  async (test) => {
    const { reverse } = await headOffice(test);
    const first = await startHosted(test);
    const second = await startHosted(test);
    const branch = await startBranch(test, [first, second]);
    await first.stop();
    // The second one in the list takes what the first would have got.
    await offerThrough(branch, second, `${reverse.url}/f`, BODY);
    test.equal(await branch.metric(series('peerdist_offered_segments_total', 'result="failed"')), 0);
    await second.stop('SIGKILL');
    const { status, body } = await ask(branch.port, `${reverse.url}/g`);
    test.equal(status, 200);
    test.ok(same(body, OTHER), 'with both away the origin serves');
  },
);

await t.test(
  'kill -9 in the middle of an ingest, and a restart: what is missing comes from elsewhere, nothing is wrong',
  async (test) => {
    const { reverse } = await headOffice(test);
    let hosted = await startHosted(test);
    const listen = ['--listen', `127.0.0.1:${hosted.port}`];
    const first = await startBranch(test, [hosted]);
    const second = await startBranch(test, [hosted]);
    test.ok(same((await ask(first.port, `${reverse.url}/f`)).body, BODY));
    await reaches(hosted, 'peerdist_ingested_bytes_total', 1);
    await hosted.stop('SIGKILL');
    hosted = await startHosted(test, ...listen);
    test.ok(
      same((await ask(second.port, `${reverse.url}/f`)).body, BODY),
      'the cache has forgotten, the client does not notice',
    );
    test.equal(await delivered(second, 'origin'), BODY.byteLength);
    // What the second one had to fetch over the WAN it has offered: after the restart it is all there again.
    await reaches(hosted, 'peerdist_ingested_bytes_total', BODY.byteLength);
    const third = await startBranch(test, [hosted]);
    test.ok(same((await ask(third.port, `${reverse.url}/f`)).body, BODY));
    test.equal(await delivered(third, 'hosted_cache'), BODY.byteLength);
  },
);

await t.test('a full cache forgets, and what it still gives is right', async (test) => {
  const { reverse } = await headOffice(test);
  const hosted = await startHosted(test, '--max-cache', '2MB', '--client-quota', '1GB');
  const first = await startBranch(test, [hosted]);
  await offerThrough(first, hosted, `${reverse.url}/f`, BODY);
  test.ok(((await hosted.metric('peerdist_store_bytes{store="block"}')) ?? Infinity) <= 2_000_000);
  const second = await startBranch(test, [hosted]);
  test.ok(same((await ask(second.port, `${reverse.url}/f`)).body, BODY));
  const [cached, origin] = [await delivered(second, 'hosted_cache'), await delivered(second, 'origin')];
  test.equal((cached ?? 0) + (origin ?? 0), BODY.byteLength);
  test.ok((cached ?? 0) > 0, 'some of it is still there');
});

await t.test('one client may bring so much in an hour and no more', async (test) => {
  const { reverse } = await headOffice(test);
  const hosted = await startHosted(test, '--client-quota', '1MB');
  const branch = await startBranch(test, [hosted]);
  test.ok(same((await ask(branch.port, `${reverse.url}/f`)).body, BODY));
  await reaches(hosted, series('peerdist_ingest_requests_total', 'result="refused"'), 1);
  const bytes = (await hosted.metric('peerdist_ingested_bytes_total')) ?? Infinity;
  // What was under way when the last byte of the quota was used still counts.
  test.ok(bytes >= 1e6 && bytes <= 1e6 + 9 * 128 * 1024, `${bytes} bytes`);
});

await t.test('offers of this machine are answered and left, unless that is allowed', async (test) => {
  const { reverse } = await headOffice(test);
  const hosted = await Role.start(test, ['hosted', '--no-offer-listen', '--state-dir', path('state')]);
  const branch = await startBranch(test, [hosted]);
  test.ok(same((await ask(branch.port, `${reverse.url}/f`)).body, BODY));
  await reaches(branch, series('peerdist_offered_segments_total', 'result="ok"'), 1);
  await reaches(hosted, series('peerdist_offers_total', 'result="local"'), 1);
  test.equal(await hosted.metric('peerdist_ingested_bytes_total'), 0);
});

await t.test('preload, export and import: what is put in is served, and what is not right is refused', async (test) => {
  const { reverse, origin } = await headOffice(test);
  const state = ['--state-dir', path('state')];
  const exported = await peerdist(test, ['export', `${reverse.url}/g`, '-o', path('g.package')]);
  test.match(exported, { code: 0, stdout: /\/g: 2\.9 MiB/ });
  test.equal(statSync(path('g.package')).mode & 0o077, 0, 'a package is nobody else’s to read');
  test.ok(
    readFileSync(path('g.package')).includes(OTHER.subarray(0, 1000)),
    'it holds the content in the clear, as README says',
  );

  const hosted = await startHosted(test, '--preload', `${reverse.url}/f`, '--import', path('missing.package'));
  await until(() => hosted.program.stdout.includes('/f: 5.7 MiB'), 'the preload at the start');
  await until(
    () => hosted.program.stderr.includes('missing.package'),
    'the import that fails is said, and the cache runs',
  );
  const admin = ['--admin', `127.0.0.1:${hosted.adminPort}`];
  const imported = await peerdist(test, ['hosted', 'import', path('g.package'), ...admin, ...state]);
  test.match(imported, { code: 0, stdout: /g\.package: 2\.9 MiB/ });
  const seen = origin.requests.length;
  const branch = await startBranch(test, [hosted]);
  for (const [name, body] of [
    ['f', BODY],
    ['g', OTHER],
  ] as const)
    test.ok(same((await ask(branch.port, `${reverse.url}/${name}`)).body, body), name);
  test.equal(await delivered(branch, 'hosted_cache'), BODY.byteLength + OTHER.byteLength);
  test.equal(await branch.wanBodyBytes(), 0);
  test.ok(origin.requests.slice(seen).every(({ headers }) => headers['range'] === undefined));

  // The same through the admin listener, and what goes wrong there.
  const preloaded = await peerdist(test, ['hosted', 'preload', `${reverse.url}/g`, ...admin, ...state]);
  test.match(preloaded, { code: 0, stdout: /\/g: 2\.9 MiB/ });
  const damaged = readFileSync(path('g.package'));
  damaged[damaged.byteLength - 10_000] = (damaged[damaged.byteLength - 10_000] as number) ^ 1;
  writeFileSync(path('damaged.package'), damaged);
  writeFileSync(path('cut.package'), damaged.subarray(0, 1_000_000));
  writeFileSync(path('random.package'), randomBytes(100_000));
  for (const [args, code, message] of [
    [['import', path('damaged.package')], 1, /does not match its own hashes/],
    [['import', path('cut.package')], 1, /ends too early/],
    [['import', path('random.package')], 1, /no content package/],
    [['import', path('missing.package')], 2, /cannot read/],
    [['preload', `${reverse.url}/nothing`], 1, /answered 404/],
    [['preload', `${reverse.url}/tiny`], 1, /sends no hashes/],
    [['preload', 'ftp://x/'], 1, /http or https/],
  ] as const) {
    const finished = await peerdist(test, ['hosted', ...args, ...admin, ...state]);
    test.match(finished, { code, stderr: message }, args.join(' '));
    test.equal(finished.stderr.trim().split('\n').length, 1, 'in one line');
  }
  const stranger = await peerdist(test, [
    'hosted',
    'import',
    path('g.package'),
    ...admin,
    '--state-dir',
    path('nowhere'),
  ]);
  test.match(stranger, { code: 2, stderr: /cannot read the token/ });
  const untold = await ask(hosted.adminPort as number, '/preload', { method: 'POST' });
  test.equal(untold.status, 401);
  test.equal((await ask(hosted.adminPort as number, '/preload')).status, 405);
  test.match(await hosted.stop(), { code: 0 });
});

await t.test('a hosted cache can be a branch proxy on the same blocks', async (test) => {
  const { reverse } = await headOffice(test);
  const hosted = await startHosted(test, '--proxy', '127.0.0.1:0');
  const proxy = Number(/:(\d+)$/.exec(hosted.program.lines.find((line) => /^listening on \S+$/.test(line)) ?? '')?.[1]);
  const branch = await startBranch(test, [hosted]);
  await offerThrough(branch, hosted, `${reverse.url}/f`, BODY);
  test.ok(same((await ask(proxy, `${reverse.url}/f`)).body, BODY));
  test.equal(
    await delivered(hosted, 'store'),
    BODY.byteLength,
    'what was offered is checked by the hashes that the proxy gets',
  );
  test.equal(await delivered(hosted, 'origin'), 0);
  test.ok(same((await ask(proxy, `${reverse.url}/g`)).body, OTHER));
  test.equal(await delivered(hosted, 'origin'), OTHER.byteLength);
  // And what the proxy brought is there for everybody.
  const other = await startBranch(test, [hosted]);
  test.ok(same((await ask(other.port, `${reverse.url}/g`)).body, OTHER));
  test.equal(await delivered(other, 'hosted_cache'), OTHER.byteLength);
});
