/** `peerdist head` with `peerdist branch --upstream`: the commands as they are run, one process each, and a crew. */
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ask, Origin, type OriginFile, peerdist, Role, same, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { makeCertificate } from '../support/redis.ts';

const BODY = Buffer.from(seededBytes(811, 5_000_000).buffer);
/** Large enough for what is changed to count rather than the segments it begins and ends in, of up to 128 KiB each. */
const BIG = Buffer.from(seededBytes(812, 20_000_000).buffer);
const fresh = (body: Uint8Array, etag: string): OriginFile => ({
  body,
  etag,
  headers: { 'cache-control': 'max-age=600' },
});

const informationBytes = (role: Role): Promise<number | undefined> =>
  role.metric('peerdist_wan_bytes_total{kind="content_information"}');
const went = (role: Role, way: string): Promise<number | undefined> =>
  role.metric(`peerdist_upstream_requests_total{result="${way}"}`);
const nothingPlain = async (role: Role): Promise<boolean> =>
  (await role.metric('peerdist_wan_bytes_total{kind="plain"}')) === 0;

await t.test('two branches and a head before a plain origin', async (test) => {
  const state = test.testdir();
  const origin = await Origin.start(test, { '/f': fresh(BODY, '"1"'), '/g': fresh(BODY, '"g"') });
  origin.resources.set('/big', fresh(BIG, '"1"'));
  const url = `${origin.url}/f`;
  const head = await Role.start(test, ['head', '--state-dir', join(state, 'head'), '--workers', '2']);
  const start = (name: string, ...more: string[]): Promise<Role> =>
    Role.start(test, ['branch', '--upstream', head.url, '--state-dir', join(state, name), ...more]);
  const [one, two] = await Promise.all([start('one'), start('two')]);
  for (const branch of [one, two]) {
    const answer = await ask(branch.port, url, { patienceMs: 20_000 });
    test.ok(same(answer.body, BODY));
    test.ok(await nothingPlain(branch), 'the first client is served by hashes already');
    test.ok(((await informationBytes(branch)) ?? 0) > 1000);
    test.match((await ask(branch.port, url)).headers['cache-status'], /hit/);
    test.equal(await went(branch, 'direct'), 0);
  }
  test.equal(await head.metric('peerdist_publications_total{result="completed"}'), 1);

  const big = `${origin.url}/big`;
  test.ok(same((await ask(one.port, big, { patienceMs: 20_000 })).body, BIG));
  const edited = Buffer.from(BIG);
  edited.set(seededBytes(813, BIG.byteLength / 100), BIG.byteLength / 2);
  origin.resources.set('/big', fresh(edited, '"2"'));
  const sum = async (): Promise<number> => ((await informationBytes(one)) ?? 0) + (await one.wanBodyBytes());
  const before = await sum();
  const answer = await ask(one.port, big, { fields: { 'cache-control': 'no-cache' }, patienceMs: 20_000 });
  test.ok(same(answer.body, edited));
  const share = ((await sum()) - before) / edited.byteLength;
  test.ok(share < 0.02, `${(share * 100).toFixed(2)} % of version 2 crossed the link, of which 1 % was new`);

  const known = await peerdist(test, ['cache', 'list', '--role', 'head', '--json', '--state-dir', join(state, 'head')]);
  test.same((JSON.parse(known.stdout) as { url: string; bytes: number }[]).map(({ url: each }) => each).toSorted(), [
    big,
    url,
  ]);

  const strict = await start('strict', '--upstream-away', 'refuse');
  const examined = await peerdist(test, [
    'doctor',
    'branch',
    '--upstream',
    head.url,
    '--store',
    'memory',
    '--no-peers',
  ]);
  test.match(examined.stdout, /upstream proxy: 127\.0\.0\.1:\d+ can be reached/);
  await head.stop();
  test.ok(same((await ask(two.port, `${origin.url}/g`)).body, BODY), 'without the head it goes direct');
  test.equal(await went(two, 'direct'), 1);
  test.match((await ask(two.adminPort as number, '/readyz')).body.toString(), /the upstream proxy .* is away/);
  const refused = await ask(strict.port, `${origin.url}/g`);
  test.equal(refused.status, 502);
  test.match(refused.body.toString(), 'the upstream proxy cannot be reached');
  await until(() => strict.program.stderr.includes('requests are refused'), 'it says so');
  const purged = await peerdist(test, ['cache', 'purge', url, '--role', 'head', '--state-dir', join(state, 'head')]);
  test.match(purged.stdout, /^head: deleted \d+ blocks \(.*\) of http/);
});

const identities = [makeCertificate(), makeCertificate()] as const;
const skip = identities.includes(undefined) ? 'openssl is not installed' : false;

await t.test('a link with mutual TLS and a pin', { skip }, async (test) => {
  const state = test.testdir();
  const files = identities.flatMap((identity, index) =>
    (['cert', 'key'] as const).map((kind) => {
      const file = join(state, `${kind}-${index}.pem`);
      writeFileSync(file, identity?.[kind] ?? '');
      return file;
    }),
  );
  const [cert = '', key = '', clientCert = '', clientKey = ''] = files;
  const origin = await Origin.start(test, { '/f': fresh(BODY, '"1"') });
  const url = `${origin.url}/f`;
  const memory = ['--store', 'memory'];
  const tls = ['--tls-cert', cert, '--tls-key', key, '--client-ca', clientCert];
  const head = await Role.start(test, ['head', ...memory, ...tls, '--allow-client', '192.0.2.0/24']);
  const pin = new X509Certificate(identities[0]?.cert ?? '').fingerprint256;
  const other = new X509Certificate(identities[1]?.cert ?? '').fingerprint256;
  const link = ['--upstream', `https://127.0.0.1:${head.port}`];
  const ours = ['--upstream-cert', clientCert, '--upstream-key', clientKey];
  const branch = await Role.start(test, ['branch', ...memory, ...link, ...ours, '--upstream-pin', pin]);
  test.ok(same((await ask(branch.port, url, { patienceMs: 20_000 })).body, BODY));
  test.ok(await nothingPlain(branch));
  const { length } = origin.requests;
  for (const [options, expected] of [
    [[...ours, '--upstream-pin', other], 'is not the pinned one'],
    [['--upstream-pin', pin], 'refuses this proxy'],
    [ours, 'is not trusted'],
  ] as const) {
    const wrong = await Role.start(test, ['branch', ...memory, ...link, ...options]);
    const answer = await ask(wrong.port, url);
    test.equal(answer.status, 502);
    test.match(answer.body.toString(), expected);
    await until(() => wrong.program.stderr.includes(expected), 'it says so');
    await until(() => wrong.program.requests.length === 1, 'the request is logged');
    test.equal(wrong.program.requests[0]?.error, 'ERR_PEERDIST_UPSTREAM_REFUSED');
  }
  test.equal(origin.requests.length, length, 'nothing went direct');

  for (const [args, expected] of [
    [['head', '--client-ca', clientCert], /needs --tls-cert/],
    [['head', '--min-size', '2MB', '--max-size', '1MB'], /nothing would be published/],
    [['branch', '--upstream-pin', pin], /of no use without --upstream/],
    [['branch', '--upstream', 'http://head', '--upstream-pin', pin], /need an https URL/],
    [['branch', ...link, '--upstream-pin', 'abc'], /SHA-256/],
    [['branch', ...link, '--upstream-cert', clientCert], /belong together/],
    [['branch', '--listen', '127.0.0.1:3128', '--upstream', 'http://127.0.0.1:3128'], /would ask itself/],
  ] as const) {
    const { code, stderr } = await peerdist(test, args);
    test.equal(code, 2, args.join(' '));
    test.match(stderr, expected);
  }
});
