/** `peerdist doctor`: each fault that is planted is found, with what to do about it; and a healthy machine is called healthy. */
import { spawnSync } from 'node:child_process';
import { webcrypto } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Finding } from '../../plugins/standalone/doctor/finding.ts';
import { quickDirectory, smallDisk, writeAt } from '../support/disk.ts';
import { listen as listenTcp } from '../support/net.ts';
import { ask, COMMAND, type Finished, listen, Origin, Role, run } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { makeCertificate, noRedis, TestRedis } from '../support/redis.ts';
import { runInside } from '../support/spoken.ts';

for (const name of Object.keys(process.env)) if (name.startsWith('PEERDIST_')) delete process.env[name];
const noTls = makeCertificate() === undefined && 'openssl is not installed';
const noNamespace = spawnSync('unshare', ['-n', 'true']).status !== 0 && 'takes root and unshare';

interface Examined {
  readonly code: number | null;
  readonly findings: readonly Finding[];
  /** What it says about one thing. */
  readonly of: (what: string) => Finding[];
}

/** On ports of its own, and without a word to the LAN, unless a test says otherwise. */
async function examine(role: string, args: readonly string[]): Promise<Examined> {
  const listen = args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
  const admin = args.includes('--admin') ? [] : ['--no-admin'];
  const alone = role === 'branch' && !args.includes('--discovery-interface') ? ['--no-peers'] : [];
  const { code, stdout, stderr } = await runInside(['doctor', role, ...args, ...listen, ...admin, ...alone, '--json']);
  if (stderr !== '') throw new Error(stderr);
  const findings = JSON.parse(stdout) as Finding[];
  return { code, findings, of: (what) => findings.filter((finding) => finding.what === what) };
}

/** One thing is wrong, and only that; it says so and what to do. */
function found(
  test: Test,
  { code, findings, of }: Examined,
  what: string,
  says: RegExp,
  verdict: 'bad' | 'warning' = 'bad',
): void {
  test.equal(code, verdict === 'bad' ? 1 : 0, `${what}: exit code`);
  const wrong = findings.filter((finding) => finding.verdict !== 'ok' && finding.verdict !== 'skipped');
  test.same(
    wrong.map((finding) => [finding.what, finding.verdict]),
    [[what, verdict]],
    `${what}: nothing else is wrong`,
  );
  const finding = of(what).find((each) => each.verdict === verdict);
  test.match(finding?.says, says, what);
  test.ok((finding?.advice ?? '').length > 10, `${what}: advice`);
}

const memory = ['--store', 'memory'];

await t.test('a healthy machine is called healthy, and nothing of it is changed', async (test) => {
  const state = join(quickDirectory(test), 'of', 'peerdist');
  const origin = await Origin.start(test, {
    '/': { body: 'x', etag: '"x"', headers: { date: new Date().toUTCString() } },
  });
  for (const [role, ...args] of [
    ['reverse', '--origin', origin.url],
    ['branch', '--origin', origin.url],
    ['hosted', '--no-offer-listen'],
  ] as const) {
    const { code, findings } = await examine(role, [...args, '--state-dir', state]);
    test.same(
      findings.filter(({ verdict }) => verdict === 'bad'),
      [],
      role,
    );
    test.equal(code, 0, role);
    test.ok(findings.length >= 7, `${role}: ${findings.length} things were looked at`);
  }
  test.notOk(
    existsSync(join(state, '..')),
    'what it had to make for a look is gone: it might belong to the wrong user',
  );
  const text = await runInside([
    'doctor',
    'reverse',
    '--origin',
    origin.url,
    ...memory,
    '--listen',
    '127.0.0.1:0',
    '--no-admin',
  ]);
  test.equal(text.code, 0);
  test.match(text.stdout, /^ok {3}configuration: nothing contradicts itself$/m);
  test.match(text.stdout, /^ok {3}origin: http:\/\/127\.0\.0\.1:\d+ answers 200$/m);
  test.match(text.stdout, /^ok {3}clock: agrees/m);
  test.match(text.stdout, /`peerdist reverse` can work\.\n$/);

  // Beside one that runs.
  const running = await Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state]);
  const beside = [
    '--listen',
    `127.0.0.1:${running.port}`,
    '--admin',
    `127.0.0.1:${running.adminPort}`,
    '--state-dir',
    state,
  ];
  const { code, findings, of } = await examine('reverse', ['--origin', origin.url, ...beside]);
  test.same([code, findings.filter(({ verdict }) => verdict !== 'ok' && verdict !== 'skipped')], [0, []]);
  test.match(
    [...of('--listen'), ...of('--admin'), ...of('store')].map(({ says }) => says),
    [/by a peerdist that runs/, /by a peerdist that runs/, /in use by a peerdist that runs/],
  );
  test.equal((await ask(running.port, '/')).status, 200, 'which goes on');
  await running.stop();
});

await t.test('listeners: a port that is taken, an address that is not ours', async (test) => {
  const taken = await listenTcp(
    test,
    createTcpServer((socket) => socket.end('no peerdist')),
  );
  const { code, stdout } = await runInside([
    'doctor',
    'branch',
    '--listen',
    `127.0.0.1:${taken}`,
    '--admin',
    '127.0.0.1:0',
    '--no-peers',
    ...memory,
  ]);
  test.equal(code, 1);
  test.match(
    stdout,
    new RegExp(
      `^BAD {2}--listen: 127\\.0\\.0\\.1:${taken} is in use by another program\n {5}→ .*ss -ltnp.*choose another --listen$`,
      'm',
    ),
  );
  test.match(stdout, '1 thing to put right before `peerdist branch` can work.');
  found(
    test,
    await examine('branch', ['--listen', '192.0.2.1:3128', ...memory]),
    '--listen',
    /this machine has no address 192\.0\.2\.1/,
  );
  found(
    test,
    await examine('branch', ['--listen', 'no-such-name.invalid:3128', ...memory]),
    '--listen',
    /no address|cannot be listened on/,
  );
  found(
    test,
    await examine('hosted', ['--offer-listen', `127.0.0.1:${taken}`, ...memory]),
    '--offer-listen',
    /is in use by another program/,
  );
  found(
    test,
    await examine('hosted', ['--no-offer-listen', '--proxy', `127.0.0.1:${taken}`, ...memory]),
    '--proxy',
    /is in use by another program/,
  );
});

await t.test(
  'multicast: an interface that is not there, a network without any',
  { skip: noNamespace },
  async (test) => {
    found(
      test,
      await examine('branch', ['--discovery-interface', 'nothere0', '--peer-listen', '127.0.0.1:0', ...memory]),
      'multicast',
      /no network interface nothere0; it has lo/,
    );
    // Only loopback, and no IPv6: what listens everywhere still can.
    const script = `ip link set lo up; sysctl -qw net.ipv6.conf.all.disable_ipv6=1; exec "$@"`;
    const command = [process.execPath, COMMAND, 'doctor', 'branch', '--listen', '127.0.0.1:0', ...memory, '--json'];
    const alone: Finished = await run(test, 'unshare', ['-n', 'sh', '-c', script, 'sh', ...command]);
    test.equal(alone.code, 1);
    const findings = JSON.parse(alone.stdout) as Finding[];
    test.same(
      findings.filter(({ verdict }) => verdict === 'bad').map(({ what }) => what),
      ['multicast'],
    );
    test.match(
      findings.find(({ what }) => what === 'multicast'),
      { says: /on any network interface/, advice: /--no-discovery/ },
    );
    test.equal(findings.find(({ what }) => what === '--peer-listen')?.verdict, 'ok', 'everywhere, without IPv6');
  },
);

await t.test('the origin: down, unknown, failing, without validators, with another time', async (test) => {
  const reverse = (url: string, ...args: readonly string[]): Promise<Examined> =>
    examine('reverse', ['--origin', url, ...memory, '--secret', 'sixteen bytes and more', ...args]);
  const withSecret = async (url: string): Promise<Examined> => reverse(url);
  const origin = (headers: Record<string, string>, status = 200): Promise<string> =>
    serve(
      test,
      createServer((_request, response) => void response.writeHead(status, headers).end()),
    );
  const down = await withSecret('http://127.0.0.1:9');
  found(test, down, 'origin', /http:\/\/127\.0\.0\.1:9 cannot be reached: ECONNREFUSED/);
  test.match(down.of('origin')[0]?.advice, 'is the web server running');
  const unknown = await withSecret('http://no-such-name.invalid');
  found(test, unknown, 'origin', /cannot be reached: E(?:NOTFOUND|AI_AGAIN)/);
  test.match(unknown.of('origin')[0]?.advice, 'the name is not known');
  found(test, await withSecret(await origin({ etag: '"x"' }, 503)), 'origin', /answers 503/);
  found(test, await withSecret(await origin({})), 'origin', /without ETag and Last-Modified/, 'warning');
  for (const [hours, word] of [
    [1, 'behind'],
    [-1, 'ahead of'],
  ] as const) {
    const date = new Date(Date.now() + hours * 3_600_000).toUTCString();
    found(
      test,
      await withSecret(await origin({ etag: '"x"', date })),
      'clock',
      new RegExp(`^3(?:600|59\\d|60\\d) seconds ${word} the origin's$`),
    );
  }
  const odd = await withSecret(await origin({ etag: '"x"', date: 'yesterday' }));
  test.equal(odd.code, 0, 'a date that is none says nothing');
  const hangsUp = await listenTcp(
    test,
    createTcpServer((socket) => void socket.destroy()),
  );
  found(test, await withSecret(`http://127.0.0.1:${hangsUp}`), 'origin', /cannot be reached/);
});

async function serve(test: Test, server: Server): Promise<string> {
  return `http://127.0.0.1:${await listen(test, server)}`;
}

await t.test('the state directory: not writable, open to others', async (test) => {
  const directory = quickDirectory(test);
  writeFileSync(join(directory, 'file'), '');
  found(
    test,
    await examine('branch', ['--state-dir', join(directory, 'file', 'state')]),
    'state directory',
    /cannot be written: ENOTDIR/,
  );
  const disk = smallDisk(test, 1_000_000);
  if (disk !== undefined) {
    mkdirSync(join(disk.directory, 'state'), { mode: 0o700 });
    disk.remount('ro');
    found(
      test,
      await examine('branch', ['--state-dir', join(disk.directory, 'state')]),
      'state directory',
      /cannot be written: EROFS/,
    );
    disk.remount('rw');
    const small = await examine('branch', ['--state-dir', join(disk.directory, 'state')]);
    test.equal(small.of('disk space')[0]?.verdict, 'warning');
  }
  const open = join(directory, 'open');
  mkdirSync(open);
  chmodSync(open, 0o755);
  found(
    test,
    await examine('branch', ['--state-dir', open, '--max-cache', '1MiB']),
    'state directory',
    /others can look into/,
    'warning',
  );
  test.same(readdirSync(open), [], 'nothing is left in it');
  test.equal(statSync(open).mode & 0o777, 0o755);
});

await t.test('the store: damaged', async (test) => {
  const state = join(quickDirectory(test), 'state');
  const body = seededBytes(81, 2_000_000);
  const origin = await Origin.start(test, {
    '/f': { body, etag: '"f"', headers: { 'cache-control': 'max-age=3600' } },
  });
  const head = await Role.start(test, ['reverse', '--origin', origin.url, ...memory]);
  const role = await Role.start(test, ['branch', '--state-dir', state]);
  for (let time = 0; time < 200 && ((await role.metric('peerdist_store_bytes{store="block"}')) ?? 0) === 0; time += 1)
    await ask(role.port, `${head.url}/f`);
  await role.stop();
  const args = ['--state-dir', state, '--max-cache', '1MiB'];
  test.equal((await examine('branch', args)).of('store')[0]?.verdict, 'ok');
  const file = join(state, 'branch', 'blocks', 'data.mdb');
  // Every page but the two that say where the others are.
  for (let page = 2; page * 4096 < statSync(file).size && page < 200; page += 1)
    writeAt(file, page * 4096, new Uint8Array(64).fill(0xa5));
  found(test, await examine('branch', args), 'store', /blocks is damaged: /);
});

await t.test('the server secret: open to others, short, broken', async (test) => {
  const directory = quickDirectory(test);
  const state = join(directory, 'state');
  const origin = await Origin.start(test, { '/': { body: 'x', etag: '"x"' } });
  const reverse = (...args: readonly string[]): Promise<Examined> =>
    examine('reverse', ['--origin', origin.url, '--state-dir', state, '--max-cache', '1MiB', ...args]);
  const made = await Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state]);
  await made.stop();
  test.match((await reverse()).of('server secret'), [{ verdict: 'ok', says: '32 bytes' }]);
  const file = join(state, 'server-secret');
  chmodSync(file, 0o644);
  found(test, await reverse(), 'server secret', /others can read .*server-secret/);
  chmodSync(file, 0o600);
  writeFileSync(file, 'no hexadecimal\n');
  found(test, await reverse(), 'server secret', /server-secret/);

  const own = join(directory, 'secret');
  writeFileSync(own, 'long enough to be a secret', { mode: 0o600 });
  test.equal((await reverse('--secret-file', own)).of('server secret')[0]?.verdict, 'ok');
  chmodSync(own, 0o644);
  found(test, await reverse('--secret-file', own), 'server secret', /others can read .*secret$/, 'warning');
  chmodSync(own, 0o600);
  writeFileSync(own, 'short');
  const short = await reverse('--secret-file', own);
  found(test, short, 'server secret', /only 5 bytes: it can be guessed/, 'warning');
  test.notMatch(JSON.stringify(short.findings), '"short"');
});

await t.test('certificates: expired, not yet valid, soon to expire, of another key', { skip: noTls }, async (test) => {
  const directory = quickDirectory(test);
  const path = (name: string): string => join(directory, name);
  const origin = await Origin.start(test, { '/': { body: 'x', etag: '"x"' } });
  const reverse = (cert: string, key: string): Promise<Examined> =>
    examine('reverse', [
      '--origin',
      origin.url,
      ...memory,
      '--secret',
      'sixteen bytes and more',
      '--tls-cert',
      cert,
      '--tls-key',
      key,
    ]);
  for (const [name, validity, says, verdict] of [
    ['expired', ['-10', '-1'], /doctor-expired: has expired on /, 'bad'],
    ['future', ['10', '400'], /doctor-future: is valid only from /, 'bad'],
    ['soon', ['-10', '5'], /doctor-soon: expires on /, 'warning'],
  ] as const) {
    await certify(name, path(name), validity);
    found(test, await reverse(`${path(name)}.pem`, `${path(name)}-key.pem`), 'certificate', says, verdict);
  }
  await certify('good', path('good'), ['-1', '400']);
  test.equal((await reverse(path('good.pem'), path('good-key.pem'))).of('certificate')[0]?.verdict, 'ok');
  found(
    test,
    await reverse(path('good.pem'), path('soon-key.pem')),
    'configuration',
    /--tls-cert and --tls-key: not usable PEM \(.*mismatch/,
  );
  writeFileSync(path('nonsense.pem'), 'nonsense');
  const nonsense = await reverse(path('nonsense.pem'), path('good-key.pem'));
  test.same(
    nonsense.findings.filter(({ verdict }) => verdict === 'bad').map(({ what }) => what),
    ['configuration', 'certificate'],
  );
});

/** A self-signed certificate that is valid from and until so many days from now. */
async function certify(name: string, file: string, [from, until]: readonly [string, string]): Promise<void> {
  await import('reflect-metadata');
  const { PemConverter, X509CertificateGenerator } = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const inDays = (days: string): Date => new Date(Date.now() + Number(days) * 86_400_000);
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      name: `CN=doctor-${name}`,
      notBefore: inDays(from),
      notAfter: inDays(until),
      keys: keys as never,
      signingAlgorithm: algorithm,
    },
    webcrypto,
  );
  writeFileSync(`${file}.pem`, certificate.toString('pem'));
  writeFileSync(
    `${file}-key.pem`,
    PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY'),
  );
}

await t.test('Redis: down, without eviction, with; no password is shown', { skip: noRedis }, async (test) => {
  const state = join(quickDirectory(test), 'state');
  const branch = (url: string): Promise<Examined> => examine('branch', ['--store', url, '--state-dir', state]);
  const down = await branch('redis://someone:geheim@127.0.0.1:9');
  found(test, down, 'store', /Redis at redis:\/\/.*127\.0\.0\.1:9 does not answer/);
  test.notMatch(JSON.stringify(down.findings), 'geheim');
  const full = await TestRedis.start(test, { config: ['maxmemory 10mb', 'maxmemory-policy noeviction'] });
  found(test, await branch(full.url), 'store', /refuses to store \(noeviction\)/, 'warning');
  const good = await TestRedis.start(test, { config: ['maxmemory 10mb', 'maxmemory-policy allkeys-lru'] });
  const healthy = await branch(good.url);
  test.same([healthy.code, healthy.of('store')[0]?.verdict], [0, 'ok']);
  found(test, await branch(`redis://u:geheim@127.0.0.1:${good.port}`), 'store', /does not answer/);
});

await t.test('neighbours that are not there, and a configuration that goes against itself', async (test) => {
  found(
    test,
    await examine('branch', ['--hosted-cache', '127.0.0.1:9', ...memory]),
    'hosted cache',
    /127\.0\.0\.1:9 cannot be reached: ECONNREFUSED/,
    'warning',
  );
  found(
    test,
    await examine('branch', ['--peer', '127.0.0.1:9', ...memory]),
    'peer',
    /127\.0\.0\.1:9 cannot be reached/,
    'warning',
  );
  const there = await listenTcp(test, createTcpServer());
  test.equal(
    (await examine('branch', ['--hosted-cache', `127.0.0.1:${there}`, ...memory])).of('hosted cache')[0]?.verdict,
    'ok',
  );

  const config = join(quickDirectory(test), 'peerdist.yaml');
  writeFileSync(config, 'branch:\n  site: x\n  store: memory\n  workers: 2\n');
  const { code, stdout } = await runInside([
    'doctor',
    'branch',
    '--config',
    config,
    '--listen',
    '127.0.0.1:0',
    '--no-admin',
    '--no-peers',
  ]);
  test.equal(code, 1);
  test.ok(
    stdout.startsWith(`BAD  configuration: ${config}:4: branch.workers: --workers: several need a store`),
    stdout.split('\n')[0] ?? '',
  );
  test.match(stdout, /^ok {3}--listen/m, 'and the rest is looked at all the same');
  writeFileSync(config, 'branch:\n  siite: x\n');
  const broken = await runInside(['doctor', 'branch', '--config', config]);
  test.same([broken.code, broken.stdout], [2, ''], 'with a file that cannot be read nothing can be said');
  test.match(broken.stderr, /^peerdist: .*:2: branch\.siite: no such key; did you mean site\?\n$/);
  found(
    test,
    await examine('reverse', [...memory, '--secret', 'sixteen bytes and more']),
    'configuration',
    /reverse needs --origin URL/,
  );
});
