/** SIGHUP: a role that runs reads its configuration anew, takes over what it can, says what it cannot, and dies of nothing. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { X509Certificate } from 'node:crypto';
import t, { type Test } from 'tap';
import { quickDirectory } from '../support/disk.ts';
import { childrenOf, isAlive } from '../support/processes.ts';
import { ask, inTime, Origin, type Program, Role, until } from '../support/proxies.ts';
import { type Certificate, makeCertificate } from '../support/redis.ts';

/** A configuration file, and where a role is told to find it. */
class Config {
  readonly file: string;
  readonly #directory: string;

  constructor(test: Test) {
    this.#directory = quickDirectory(test);
    this.file = this.path('peerdist.yaml');
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  write(role: string, values: Readonly<Record<string, unknown>>): void {
    writeFileSync(this.file, JSON.stringify({ [role]: values }));
  }

  identity({ cert, key }: Certificate): void {
    writeFileSync(this.path('cert.pem'), cert);
    writeFileSync(this.path('key.pem'), key);
  }
}

const said = ({ log }: Program, text: string): number => log.filter(({ msg }) => String(msg).includes(text)).length;

/** Sends SIGHUP and waits for what the role says to it. */
async function reload({ program }: Role, expected = 'the configuration was read anew'): Promise<string> {
  const before = said(program, expected);
  program.child.kill('SIGHUP');
  await until(() => said(program, expected) > before, `${expected}; so far ${program.stderr}`);
  return String(program.log.findLast(({ msg }) => String(msg).includes(expected))?.['msg']);
}

/** The certificate that a real client is shown. */
async function shown(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  try {
    return await inTime(
      new Promise<string>((resolve, reject) => {
        socket.once('secureConnect', () => resolve(socket.getPeerCertificate().fingerprint256));
        socket.once('error', reject);
      }),
      'a handshake',
    );
  } finally {
    socket.destroy();
  }
}

const noTls = makeCertificate() === undefined && 'openssl is not installed';
const certificate = (): Certificate => makeCertificate() as Certificate;
const fingerprint = ({ cert }: Certificate): string => new X509Certificate(cert).fingerprint256;

await t.test('what can be taken over is; what is wrong is one error and changes nothing', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: 'x'.repeat(100), etag: '"f"' } });
  const config = new Config(test);
  const base = { origin: origin.url, store: 'memory', memory: '64MiB' };
  config.write('reverse', base);
  const role = await Role.start(test, ['reverse', '--config', config.file, '--idle-timeout', '60s']);
  const { program } = role;
  const status = async (): Promise<number> => (await ask(role.port, '/f')).status;
  test.equal(await status(), 200);

  // Who may connect.
  config.write('reverse', { ...base, 'allow-client': ['10.255.255.1'] });
  await reload(role);
  test.equal(await status(), 403);
  config.write('reverse', { ...base, 'allow-client': '127.0.0.0/8' });
  await reload(role);
  test.equal(await status(), 200);

  // Everything that can be wrong with it.
  const notTaken = 'the configuration is not taken over';
  for (const [text, expected] of [
    ['reverse: [', /peerdist\.yaml:1: /],
    [
      `{"reverse": {"allow-client": "10.255.255.1", "alow-client": "x"}}`,
      /:1: reverse\.alow-client: no such key; did you mean allow-client/,
    ],
    [
      `reverse:\n  origin: ${origin.url}\n  allow-client: 10.255.255.1\n  max-size: 1\n`,
      /:4: reverse\.max-size: --min-size is larger/,
    ],
    [`reverse:\n  allow-client: 10.255.255.1\n`, /reverse needs --origin URL/],
    ['', /reverse needs --origin/],
    [
      `reverse:\n  origin: ${origin.url}\n  tls-cert: /no/cert\n  tls-key: /no/key\n`,
      /:3: reverse\.tls-cert: .*ENOENT/,
    ],
    ['\0\u001b[31m', /peerdist\.yaml:\d/],
  ] as const) {
    writeFileSync(config.file, text);
    const before = program.log.length;
    test.match(await reload(role, notTaken), expected);
    test.equal(await status(), 200, 'everything goes on');
    test.equal(program.log.slice(before).filter(({ level }) => level !== 'info').length, 1, 'said once');
  }

  // What needs a restart is named, what a flag decides is not the file's, what is taken over is not named.
  config.write('reverse', {
    ...base,
    site: 'x',
    memory: '65MiB',
    'idle-timeout': '1s',
    'access-log': false,
    'max-size': 'none',
  });
  await reload(role);
  await until(() => program.stderr.includes('a restart is needed'), 'the keys that need one');
  test.match(program.stderr, /a restart is needed for memory, site; going on as before\n$/);
  const lines = program.requests.length;
  await status();
  config.write('reverse', { ...base, site: 'x' });
  await reload(role);
  await status();
  await until(() => program.requests.length > lines, 'the next request is logged');
  test.equal(program.requests.length, lines + 1, 'the one before was not');

  // Less is said, and more again.
  config.write('reverse', { ...base, 'log-level': 'error', 'allow-client': '10.255.255.1' });
  program.child.kill('SIGHUP');
  while ((await status()) !== 403);
  const count = program.requests.length;
  await status();
  writeFileSync(config.file, 'nonsense');
  await reload(role, notTaken);
  config.write('reverse', base);
  await reload(role);
  test.equal(await status(), 200);
  await until(() => program.requests.length > count, 'the next request is logged');
  test.equal(program.requests.length, count + 1, 'the one before was not');

  test.equal((await role.stop()).code, 0);
});

await t.test(
  'a new certificate is shown to the next client; TLS itself does not come or go',
  { skip: noTls },
  async (test) => {
    const origin = await Origin.start(test, { '/f': { body: 'x', etag: '"f"' } });
    const config = new Config(test);
    const [first, second, third] = [certificate(), certificate(), certificate()];
    config.identity(first);
    const base = { origin: origin.url, store: 'memory' };
    const tls = { 'tls-cert': config.path('cert.pem'), 'tls-key': config.path('key.pem') };
    config.write('reverse', { ...base, ...tls });
    const role = await Role.start(test, ['reverse', '--config', config.file]);
    test.equal(await shown(role.port), fingerprint(first));
    config.identity(second);
    test.equal(await shown(role.port), fingerprint(first), 'not before it is told to');
    await reload(role);
    test.equal(await shown(role.port), fingerprint(second), 'the same files with other contents');
    test.notMatch(role.program.stderr, 'restart');

    config.identity({ cert: third.cert, key: first.key });
    test.match(await reload(role, 'not taken over'), /tls-cert|tls-key/);
    test.equal(await shown(role.port), fingerprint(second), 'a key of another certificate');
    writeFileSync(config.path('cert.pem'), 'half of a certifi');
    await reload(role, 'not taken over');
    test.equal(await shown(role.port), fingerprint(second), 'half a file');

    writeFileSync(config.path('other.pem'), third.cert);
    writeFileSync(config.path('other-key.pem'), third.key);
    config.write('reverse', { ...base, 'tls-cert': config.path('other.pem'), 'tls-key': config.path('other-key.pem') });
    await reload(role);
    test.equal(await shown(role.port), fingerprint(third), 'other files');
    test.notMatch(role.program.stderr, 'restart');

    config.write('reverse', base);
    await reload(role);
    await until(() => role.program.stderr.includes('restart'), 'that TLS does not end without one');
    test.match(role.program.stderr, /a restart is needed for tls-cert, tls-key;/);
    test.equal(await shown(role.port), fingerprint(third));
    await role.stop();

    const plain = await Role.start(test, ['reverse', '--config', config.file]);
    config.write('reverse', { ...base, ...tls });
    config.identity(first);
    await reload(plain);
    await until(() => plain.program.stderr.includes('restart'), 'that TLS does not begin without one');
    test.match(plain.program.stderr, /a restart is needed for tls-cert, tls-key;/);
    test.equal((await ask(plain.port, '/f')).status, 200);
    await plain.stop();
  },
);

await t.test(
  'two workers follow; signals to them are for the one that leads',
  { skip: process.platform === 'linux' ? noTls : 'takes /proc' },
  async (test) => {
    const origin = await Origin.start(test, { '/f': { body: 'x', etag: '"f"' } });
    const config = new Config(test);
    const [first, second] = [certificate(), certificate()];
    config.identity(first);
    const tls = { 'tls-cert': config.path('cert.pem'), 'tls-key': config.path('key.pem') };
    const base = { origin: origin.url, workers: 2, 'state-dir': config.path('state'), ...tls };
    config.write('reverse', base);
    const role = await Role.start(test, ['reverse', '--config', config.file]);
    const leader = role.program.child.pid as number;
    const workers = childrenOf(leader);
    test.equal(workers.length, 2);
    /** Of four connections, opened one after the other: workers get them in turn. */
    const all = async (): Promise<string[]> => {
      const found: string[] = [];
      for (let index = 0; index < 4; index += 1) found.push(await shown(role.port).catch(() => 'refused'));
      return [...new Set(found)];
    };
    test.same(await all(), [fingerprint(first)]);

    writeFileSync(config.file, 'reverse: {allow-client: 10.255.255.1, nonsense: 1}');
    test.match(await reload(role, 'not taken over'), /:1: reverse\.nonsense/);
    for (const pid of workers) process.kill(pid, 'SIGHUP');
    test.same(await all(), [fingerprint(first)]);
    test.equal(said(role.program, 'not taken over'), 1, 'said once for all');

    config.identity(second);
    config.write('reverse', { ...base, site: 'new' });
    await reload(role);
    let shownNow: string[] = [];
    const deadline = Date.now() + 8_000;
    while (shownNow.join() !== fingerprint(second) && Date.now() < deadline) shownNow = await all();
    test.same(shownNow, [fingerprint(second)], 'by both');
    await until(() => role.program.stderr.includes('restart'), 'what needs one');
    test.match(role.program.stderr, /a restart is needed for site;/);
    test.equal(said(role.program, 'a restart is needed'), 1, 'said once for all');

    // Each worker has looked at what it was sent long ago: it has answered since.
    test.same(childrenOf(leader), workers, 'the same two');
    test.ok(workers.every(isAlive));
    test.equal(said(role.program, 'a worker ended'), 0);
    test.equal((await role.stop()).code, 0);
  },
);
