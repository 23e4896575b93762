/**
 * The `peerdist` command as an administrator meets it. Every test starts the real program; where one asks for the same thing in many
 * ways, some of them run in this process, because starting Node costs a fifth of a second.
 */
import { spawnSync } from 'node:child_process';
import { createHash, createHmac } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createTcpServer } from 'node:net';
import { Agent, createServer as createTlsServer, request as tlsRequest } from 'node:https';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  ask,
  begin,
  Connection,
  type Finished,
  Gate,
  inTime,
  listen,
  Origin,
  peerdist,
  readAtLeast,
  Role,
  run,
  same,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { runInside } from '../support/spoken.ts';

delete process.env['PEERDIST_SECRET'];
const directory = t.testdir({});
const path = (name: string): string => join(directory, name);
const SIZE = 35_000_000;
const FILE = seededBytes(61, SIZE);
writeFileSync(path('file'), FILE);
const SMALL = FILE.subarray(0, 200_000);
writeFileSync(path('small'), SMALL);

interface Description {
  readonly version: string;
  readonly contentLength: number;
  readonly size: number;
  readonly segments: readonly {
    readonly offset: number;
    readonly length: number;
    readonly hashOfData: string;
    readonly segmentId: string;
    readonly blockCount: number;
  }[];
}

async function json(test: Test, args: readonly string[]): Promise<Description> {
  const { code, stdout } = await runInside([...args, '--json']);
  test.equal(code, 0, args.slice(0, 4).join(' '));
  return JSON.parse(stdout) as Description;
}

/** Segment ID by the specification, from nothing but node:crypto. */
function segmentId(digest: string, length: number, secretKey: Uint8Array, hashOfData: Uint8Array): string {
  const cut = (bytes: Buffer): Buffer => bytes.subarray(0, length);
  const serverKey = cut(createHash(digest).update(secretKey).digest());
  const secret = cut(createHmac(digest, serverKey).update(hashOfData).digest());
  const label = Buffer.from('MS_P2P_CACHING\0', 'utf16le');
  return cut(createHmac(digest, secret).update(hashOfData).update(label).digest()).toString('hex');
}

// --- hash and inspect ------------------------------------------------------------------------------------------------------------------

await t.test('hash --json says what the content information of the file is', async (test) => {
  const secretKey = Buffer.from('c0ffee00ff', 'hex');
  await Promise.all([
    ...(['sha256', 'sha384', 'sha512'] as const).map(async (algorithm) => {
      const args = [
        'hash',
        path('file'),
        '--secret-hex',
        'c0ffee00ff',
        '--content-info',
        '1',
        '--algorithm',
        algorithm,
      ];
      const described = await json(test, [...args, '-o', path(`${algorithm}.ci`)]);
      test.match(described, { version: '1.0', contentLength: SIZE });
      test.equal(described.size, readFileSync(path(`${algorithm}.ci`)).byteLength, `${algorithm}: size`);
      const hashBytes = Number(algorithm.slice(3)) / 8;
      test.equal(described.size, 18 + 2 * (16 + 2 * hashBytes) + 2 * 4 + 535 * hashBytes);
      test.same(
        described.segments.map(({ offset, length, blockCount }) => [offset, length, blockCount]),
        [
          [0, 33_554_432, 512],
          [33_554_432, SIZE - 33_554_432, 23],
        ],
      );
      for (const segment of described.segments) {
        const hash = createHash(algorithm);
        for (let at = 0; at < segment.length; at += 65_536) {
          const end = segment.offset + Math.min(segment.length, at + 65_536);
          hash.update(
            createHash(algorithm)
              .update(FILE.subarray(segment.offset + at, end))
              .digest(),
          );
        }
        const hashOfData = hash.digest();
        test.equal(segment.hashOfData.toLowerCase(), hashOfData.toString('hex'), `${algorithm}: HoD`);
        test.equal(segment.segmentId.toLowerCase(), segmentId(algorithm, hashBytes, secretKey, hashOfData), 'HoHoDk');
      }
    }),
    (async () => {
      const described = await json(test, ['hash', path('file'), '--secret-hex', 'c0ffee00ff', '-o', path('2.ci')]);
      test.match(described, { version: '2.0', contentLength: SIZE });
      test.equal(described.size, readFileSync(path('2.ci')).byteLength);
      test.ok(described.segments.length > SIZE / 131_072);
      let offset = 0;
      const wrong: number[] = [];
      for (const segment of described.segments) {
        const data = FILE.subarray(offset, offset + segment.length);
        const hashOfData = createHash('sha512').update(data).digest().subarray(0, 32);
        if (
          segment.offset !== offset ||
          segment.blockCount !== 1 ||
          segment.hashOfData.toLowerCase() !== hashOfData.toString('hex') ||
          segment.segmentId.toLowerCase() !== segmentId('sha512', 32, secretKey, hashOfData)
        )
          wrong.push(offset);
        offset += segment.length;
      }
      test.same([offset, wrong], [SIZE, []], 'version 2: every segment');
    })(),
  ]);
});

await t.test('-o writes the raw structure, and inspect says of it what hash said', async (test) => {
  await Promise.all(
    (
      [
        ['1', []],
        ['2', []],
        ['1', ['--range', '70000-150000']],
        ['2', ['--range', '0-0']],
      ] as const
    ).map(async ([version, range], index) => {
      const args = ['hash', path('small'), '--content-info', version, '--secret-utf16', 'x', ...range];
      const file = path(`raw-${index}.ci`);
      const silent = await peerdist(test, [...args, '-o', file]);
      test.same([silent.code, silent.stdout], [0, ''], 'with -o nothing is printed');
      const [hashed, inspected, asJson, inspectedJson] = await Promise.all([
        runInside(args),
        peerdist(test, ['inspect', file]),
        json(test, args),
        json(test, ['inspect', file]),
      ]);
      test.equal(inspected.code, 0);
      test.equal(inspected.stderr, '');
      test.equal(inspected.stdout, hashed.stdout, `version ${version} ${range.join(' ')}`);
      test.same(inspectedJson, asJson);
      test.notMatch(`${hashed.stdout}${JSON.stringify(asJson)}`, /secret|Kp/i, 'no segment secret is shown');
      if (range.length > 0) test.ok(asJson.contentLength === 80_001 || asJson.contentLength === 1);
    }),
  );
});

await t.test('every way to give a secret is the same secret', async (test) => {
  const text = 'pässword "1"';
  writeFileSync(path('utf8.secret'), text);
  writeFileSync(path('utf16.secret'), Buffer.from(text, 'utf16le'));
  const ways: [string, readonly string[], NodeJS.ProcessEnv, warns: boolean][] = [
    ['utf8', ['--secret', text], {}, true],
    ['utf8', ['--secret-hex', Buffer.from(text).toString('hex')], {}, true],
    ['utf8', ['--secret-hex', Buffer.from(text).toString('hex').toUpperCase()], {}, true],
    ['utf8', ['--secret-file', path('utf8.secret')], {}, false],
    ['utf8', [], { PEERDIST_SECRET: text }, false],
    ['utf8', ['--secret-file', path('utf8.secret')], { PEERDIST_SECRET: 'another' }, false],
    ['utf16', ['--secret-utf16', text], {}, true],
    ['utf16', ['--secret-hex', Buffer.from(text, 'utf16le').toString('hex')], {}, true],
    ['utf16', ['--secret-file', path('utf16.secret')], {}, false],
  ];
  const results = await Promise.all(
    ways.map(async ([kind, args, environment, warns]) => {
      const line = ['hash', path('small'), '--json', ...args];
      const inside = Object.keys(environment).length === 0 && !args.includes('--secret');
      const { code, stdout, stderr } = await (inside ? runInside(line) : peerdist(test, line, environment));
      test.equal(code, 0);
      test.equal(stderr.split('\n').filter((line) => /process list/.test(line)).length, warns ? 1 : 0, args.join(' '));
      test.equal(stderr.trim().split('\n').filter(Boolean).length, warns ? 1 : 0, 'and nothing else');
      test.notMatch(stdout + stderr, /pässword/, 'the secret itself is never printed');
      return [kind, stdout] as const;
    }),
  );
  for (const kind of ['utf8', 'utf16']) {
    const outputs = results.filter(([each]) => each === kind).map(([, stdout]) => stdout);
    test.equal(new Set(outputs).size, 1, kind);
  }
  test.not(results[0]?.[1], results.at(-1)?.[1], 'UTF-8 and UTF-16 are two secrets');
  const utf8 = JSON.parse(results[0]?.[1] ?? '') as Description;
  const [segment] = utf8.segments;
  test.equal(
    segment?.segmentId.toLowerCase(),
    segmentId('sha512', 32, Buffer.from(text), Buffer.from(segment?.hashOfData ?? '', 'hex')),
  );
});

// --- One clear line --------------------------------------------------------------------------------------------------------------------

await t.test('what is wrong on the command line or around it: one clear line and exit 2', async (test) => {
  mkdirSync(path('directory'));
  writeFileSync(path('empty'), '');
  writeFileSync(path('garbage'), seededBytes(62, 5_000));
  writeFileSync(path('garbage.pem'), '-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n');
  writeFileSync(path('text.pem'), 'not PEM at all\n');
  const taken = createTcpServer();
  await new Promise<void>((resolve) => {
    taken.listen(0, '127.0.0.1', resolve);
  });
  test.teardown(() => taken.close());
  const busy = `127.0.0.1:${(taken.address() as { port: number }).port}`;
  const reverse = [
    'reverse',
    '--origin',
    'http://127.0.0.1:9',
    '--secret-hex',
    '00',
    '--listen',
    '127.0.0.1:0',
    '--admin',
    '127.0.0.1:0',
  ];
  const branch = ['branch', '--no-peers', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'];
  const hash = ['hash', path('small'), '--secret-hex', '00'];
  const cases: [args: readonly string[], clue: RegExp][] = [
    [['frobnicate'], /frobnicate/],
    [['revers'], /revers/],
    [[...branch, '--nope'], /--nope/],
    [[...branch, '--cache-sise', '1GiB'], /--cache-sise/],
    [[...reverse, 'surplus'], /argument/],
    [['reverse'], /--origin/],
    [['reverse', '--origin'], /--origin/],
    ...[
      'ftp://127.0.0.1/',
      'http://127.0.0.1:9/path',
      'nonsense',
      'http://',
      'http://127.0.0.1:99999',
      'http://u:p@127.0.0.1',
      'http://a b/',
    ].map((url): [string[], RegExp] => [
      ['reverse', '--origin', url, '--secret-hex', '00', '--no-admin', '--listen', '127.0.0.1:0'],
      /origin/,
    ]),
    [[...branch, '--origin', 'http://127.0.0.1/x?y'], /origin/],
    [[...reverse, '--listen', busy], /in use/],
    [[...branch, '--listen', busy], /in use/],
    [[...branch, '--admin', busy], /in use/],
    [[...branch, '--listen', '192.0.2.1:0'], /192\.0\.2\.1/],
    [[...branch, '--listen', '127.0.0.1:70000'], /70000/],
    [[...branch, '--listen', 'here'], /here/],
    [[...reverse.slice(0, 3), '--secret-file', path('nowhere')], /nowhere/],
    [[...reverse.slice(0, 3), '--secret-file', path('directory')], /directory/],
    [[...reverse.slice(0, 3), '--secret-file', path('empty')], /secret/],
    [[...reverse.slice(0, 3), '--secret', ''], /secret/],
    [[...reverse.slice(0, 3), '--secret-hex', 'xyz'], /secret/],
    [[...reverse.slice(0, 3), '--secret-hex', 'abc'], /secret/],
    [[...reverse, '--secret', 'second'], /secret/],
    [[...reverse, '--tls-cert', path('garbage.pem')], /--tls-key/],
    [[...reverse, '--tls-cert', path('nowhere'), '--tls-key', path('nowhere')], /nowhere/],
    [[...reverse, '--tls-cert', path('garbage.pem'), '--tls-key', path('garbage.pem')], /tls|certificate|PEM|key/i],
    [[...reverse, '--tls-cert', path('text.pem'), '--tls-key', path('text.pem')], /tls|certificate|PEM|key/i],
    [[...reverse, '--origin-ca', path('nowhere')], /nowhere/],
    [[...reverse, '--origin-ca', path('text.pem')], /origin-ca/],
    [[...reverse, '--min-size', 'small'], /small/],
    [[...reverse, '--max-size', '-1'], /-1/],
    [[...branch, '--head-timeout', 'soon'], /soon/],
    [[...branch, '--max-cache', '1XB'], /1XB/],
    [[...branch, '--allow-client', '10.0.0.0/99'], /10\.0\.0\.0\/99/],
    [[...branch, '--trust-peer', 'everybody'], /everybody/],
    [[...branch, '--allow-destination', '::1/200'], /::1\/200/],
    [[...branch, '--connect-port', '0'], /connect-port/],
    [[...branch, '--content-info', '3'], /content-info/],
    [[...reverse, '--algorithm', 'md5'], /md5/],
    [[...reverse, '--hash-provider', 'abacus'], /abacus/],
    [['hash', path('small')], /secret/],
    [['hash', '--secret-hex', '00'], /file/],
    [['hash', path('nowhere'), '--secret-hex', '00'], /nowhere/],
    [['hash', path('directory'), '--secret-hex', '00'], /directory/],
    [[...hash, '-o', path('directory')], /directory/],
    [[...hash, '-o', join(path('nowhere'), 'x')], /nowhere/],
    [[...hash, '--range', '9-8'], /9-8/],
    [[...hash, '--range', '200000-'], /200000-/],
    [[...hash, '--range', '200000-200009'], /range/],
    [[...hash, '--content-info', '0'], /content-info/],
    [[...hash, '--algorithm', 'sha1'], /sha1/],
    [['inspect', path('garbage')], /garbage/],
    [['inspect', path('empty')], /empty/],
    [['inspect', path('small')], /small/],
    [['inspect', path('nowhere')], /nowhere/],
    [['inspect', path('directory')], /directory/],
    [['inspect'], /file/],
  ];
  const check = ({ code, stdout, stderr }: Finished, args: readonly string[], clue: RegExp): void => {
    const lines = stderr.split('\n').filter((line) => line !== '' && !/process list/.test(line));
    const what = args.join(' ').replaceAll(directory, '');
    test.same([code, stdout, lines.length], [2, '', 1], `${what}: ${lines[0]?.replaceAll(directory, '')}`);
    test.match(lines[0] ?? '', clue, 'that says what is wrong');
    test.notMatch(stderr, /^\s+at |node:internal|TypeError/m, 'and no stack');
  };
  // The real program for some of each kind; for the others the same function in this process, which is much quicker.
  const spawned = cases.filter(([, clue]) => /in use|nope|nowhere|garbage/.test(clue.source));
  const within = cases.filter((each) => !spawned.includes(each));
  test.ok(spawned.length > 8 && within.length > 15);
  const attempt = async (each: (typeof cases)[number], result: Promise<Finished>): Promise<void> => {
    try {
      check(await inTime(result, 'the end', 15_000), ...each);
    } catch (error) {
      test.fail(`${each[0].join(' ').replaceAll(directory, '')}: ${(error as Error).message.slice(-60)}`);
    }
  };
  const queue = [...spawned];
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift())
      await attempt(next, peerdist(test, next[0]));
  };
  await Promise.all(Array.from({ length: 3 }, work));
  for (const each of within) await attempt(each, runInside(each[0]));
});

await t.test('help and version', async (test) => {
  const [version, help, reverse, branch] = await Promise.all(
    [['--version'], ['--help'], ['reverse', '--help'], ['branch', '--help']].map((args) => peerdist(test, args)),
  );
  const { version: own } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
  test.same([version?.code, version?.stdout.trim(), version?.stderr], [0, own, '']);
  test.equal(help?.code, 0);
  for (const command of ['reverse', 'branch', 'hash', 'inspect', 'probe', 'get']) test.match(help?.stdout, command);
  const defaults = [reverse, branch].map((each) =>
    [...(each?.stdout.replaceAll(/\s+/g, ' ') ?? '').matchAll(/default: (127\.0\.0\.1:\d+)/g)].map(
      ([, address]) => address,
    ),
  );
  test.equal(new Set(defaults.flat()).size, 4, 'two roles with their defaults do not collide');
});

// --- Roles -----------------------------------------------------------------------------------------------------------------------------

await t.test('reverse and branch: what they print, /healthz, /metrics', async (test) => {
  const origin = await Origin.start(test, {
    '/f': { body: SMALL, etag: '"f"', headers: { 'cache-control': 'max-age=60' } },
  });
  const reverse = await Role.start(test, ['reverse', '--origin', origin.url]);
  const branch = await Role.start(test, ['branch']);
  test.same(
    reverse.program.lines.map((line) => line.replace(/\d+(?= |$)/, 'PORT')),
    ['listening on http://127.0.0.1:PORT', 'listening on http://127.0.0.1:PORT (admin)'],
  );
  test.equal(reverse.program.stderr.trim().split('\n').length, 1);
  test.match(reverse.program.stderr, /^made a server secret in .*\n$/, 'no secret: said in one line');
  test.equal(branch.program.stderr, '', 'a branch needs none');
  for (const role of [reverse, branch]) {
    const admin = role.adminPort as number;
    const health = await ask(admin, '/healthz');
    test.same([health.status, health.body.toString()], [200, 'ok\n']);
    test.equal((await ask(admin, '/healthz', { method: 'HEAD' })).status, 200);
    const metrics = await ask(admin, '/metrics');
    test.match(metrics.headers['content-type'], /^text\/plain; version=0\.0\.4/);
    test.match(metrics.body.toString(), /^peerdist_exchanges_total\{status="2xx"\} 0$/m);
    test.equal((await ask(admin, '/nowhere')).status, 404);
    test.equal((await ask(admin, '/')).headers['location'], 'dashboard');
    test.equal((await ask(admin, '/metrics', { method: 'POST' })).status, 405);
    test.equal((await ask(role.port, '/metrics')).status, role === reverse ? 404 : 400, 'not among the traffic');
  }
  for (let round = 0; round < 2; round += 1) {
    const answer = await ask(branch.port, `${reverse.url}/f`);
    test.ok(same(answer.body, SMALL));
    await until(() => origin.asked('/f').length >= 2, 'the hashes were asked for');
    while ((await branch.metric('peerdist_content_information_total{result="received"}')) !== 1);
  }
  test.equal(await branch.metric('peerdist_delivered_bytes_total{source="store"}'), SMALL.byteLength);
  test.equal(await branch.metric('peerdist_wan_bytes_total{kind="plain"}'), SMALL.byteLength);
  test.equal(await reverse.metric('peerdist_hashed_bytes_total'), SMALL.byteLength);
  test.same(
    (await Promise.all([reverse.stop('SIGINT'), branch.stop('SIGTERM')])).map(({ code }) => code),
    [0, 0],
  );
  test.equal(branch.program.stderr, '');
});

await t.test('options reach the roles', async (test) => {
  const origin = await Origin.start(test, {
    '/f': { body: SMALL, etag: '"f"' },
    '/s': { body: 'small enough', etag: '"s"' },
  });
  const reverse = await Role.start(test, [
    'reverse',
    '--no-admin',
    '--origin',
    origin.url,
    '--secret',
    'shown',
    '--min-size',
    '10B',
    '--max-size',
    '100KiB',
    '--forwarded',
  ]);
  test.equal(reverse.program.lines.length, 1, '--no-admin');
  test.match(reverse.program.stderr, /process list/, 'a secret on the command line is warned about');
  test.notMatch(reverse.program.stderr, /shown/);
  const get = (target: string): ReturnType<typeof ask> => ask(reverse.port, target, { fields: V2_REQUEST });
  test.equal((await get('/f')).headers['x-p2p-peerdistex'], undefined, '--max-size');
  test.equal((await get('/s')).headers['x-p2p-peerdistex'], 'MakeHashRequest=true', '--min-size');
  test.match(origin.requests[0]?.headers['forwarded'], /^for=127\.0\.0\.1;/, '--forwarded');
  const described = await json(test, ['hash', path('small'), '--secret', 'shown']);
  const branch = await Role.start(test, [
    'branch',
    '--origin',
    reverse.url,
    '--content-info',
    '1',
    '--listen',
    '127.0.0.1:0',
  ]);
  test.equal((await ask(branch.port, '/s')).body.toString(), 'small enough', 'branch as a gateway');
  test.ok(described.segments.length > 0);
});

await t.test('the command and the proxy describe a file alike', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: SMALL, etag: '"f"' } });
  writeFileSync(path('both.secret'), 'both');
  const reverse = await Role.start(test, ['reverse', '--origin', origin.url, '--secret-file', path('both.secret')]);
  await ask(reverse.port, '/f', { fields: V2_REQUEST });
  const coded = await ask(reverse.port, '/f', {
    fields: { ...V2_REQUEST, 'X-P2P-PeerDistEx': `${V2_REQUEST['X-P2P-PeerDistEx']}, HashRequest=true` },
  });
  test.equal(coded.headers['content-encoding'], 'peerdist');
  await peerdist(test, ['hash', path('small'), '--secret-file', path('both.secret'), '-o', path('both.ci')]);
  test.ok(same(coded.body, readFileSync(path('both.ci'))), 'byte for byte');
});

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed';

await t.test('TLS in front and behind', { skip: noOpenssl }, async (test) => {
  const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost';
  const made = await run(test, 'openssl', [
    ...request.split(' '),
    '-addext',
    'subjectAltName=IP:127.0.0.1,DNS:localhost',
    '-keyout',
    path('key.pem'),
    '-out',
    path('cert.pem'),
  ]);
  test.equal(made.code, 0, 'a certificate');
  const identity = { cert: readFileSync(path('cert.pem')), key: readFileSync(path('key.pem')) };
  const server = createTlsServer(identity, (request, response) => {
    const head = { etag: '"f"', 'content-length': SMALL.byteLength };
    if (request.headers['if-none-match'] === '"f"') response.writeHead(304, { etag: '"f"' }).end();
    else response.writeHead(200, head).end(SMALL);
  });
  const port = await listen(test, server);
  const origin = `https://127.0.0.1:${port}`;
  const [trusting, wary] = await Promise.all([
    Role.start(test, [
      'reverse',
      '--origin',
      origin,
      '--origin-ca',
      path('cert.pem'),
      '--secret-file',
      path('small'),
      '--tls-cert',
      path('cert.pem'),
      '--tls-key',
      path('key.pem'),
    ]),
    Role.start(test, ['reverse', '--origin', origin, '--secret-file', path('small')]),
  ]);
  test.match(trusting.program.lines[0], /^listening on https:\/\/127\.0\.0\.1:\d+$/);
  test.match(trusting.program.lines[1], /^listening on http:/, 'the admin listener is plain');
  const agent = new Agent({ ca: identity.cert });
  test.teardown(() => agent.destroy());
  const get = (headers: Record<string, string>): Promise<{ headers: Record<string, unknown>; body: Buffer }> =>
    new Promise((resolve, reject) => {
      tlsRequest({ host: '127.0.0.1', port: trusting.port, path: '/f', agent, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('end', () => resolve({ headers: response.headers, body: Buffer.concat(chunks) }));
        response.once('error', reject);
      })
        .once('error', reject)
        .end();
    });
  test.ok(same((await get({ ...V2_REQUEST })).body, SMALL), 'through two TLS connections');
  const coded = await get({ ...V2_REQUEST, 'X-P2P-PeerDistEx': `${V2_REQUEST['X-P2P-PeerDistEx']}, HashRequest=true` });
  test.equal(coded.headers['content-encoding'], 'peerdist', 'BranchCache works inside TLS');
  const refused = await ask(wary.port, '/f');
  test.equal(refused.status, 502, 'an origin nobody vouches for');
  const plain = await Connection.open(trusting.port);
  plain.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  test.notMatch(
    (await inTime(plain.remainder(), 'the end')).toString(),
    /^HTTP\/1\.1 200/,
    'no plain HTTP on a TLS port',
  );
  test.same((await trusting.stop()).code, 0);
});

for (const name of ['reverse', 'branch'] as const) {
  await t.test(`${name}: SIGTERM lets a running download end, takes no new one, and exits with 0`, async (test) => {
    const rest = new Gate();
    const origin = await Origin.start(test, {
      '/slow': { body: SMALL, etag: '"f"', firstBytes: 100_000, afterFirst: rest.passed },
      '/quick': { body: 'quick' },
    });
    const secret = name === 'reverse' ? ['--secret-file', path('small')] : [];
    const role = await Role.start(test, [name, '--origin', origin.url, ...secret]);
    const idle = await begin(role.port, '/quick');
    test.equal((await idle.answer()).body.toString(), 'quick', 'a connection that is kept');
    const download = await begin(role.port, '/slow', { fields: V2_REQUEST });
    const body = download.body(await download.head());
    const first = await readAtLeast(body, 100_000);
    let ended = false;
    const stopped = role.stop().finally(() => {
      ended = true;
    });
    stopped.catch(() => {});
    let refused = false;
    for (const deadline = Date.now() + 5_000; !refused && Date.now() < deadline;) {
      refused = await Connection.open(role.port).then(
        (connection) => {
          connection.close();
          return false;
        },
        () => true,
      );
    }
    test.ok(refused, 'no new connection');
    test.notOk(ended, 'the program waits for the download');
    rest.open();
    const whole = Buffer.concat([first, await readAtLeast(body, SMALL.byteLength)]);
    test.ok(same(whole, SMALL) && download.complete, 'the download is complete');
    // The client keeps its connection: nothing is left to wait for.
    const prompt = await inTime(stopped, 'the end', 3_000).catch(() => undefined);
    test.ok(prompt, 'it ends when the download has');
    download.close();
    idle.close();
    const { code, stderr } = await stopped;
    test.same([code, stderr], [0, ''], 'exit code');
  });
}

await t.test('SIGTERM with connections on which nothing happens is quick', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: SMALL, etag: '"f"' } });
  for (const what of ['kept', 'silent'] as const) {
    const branch = await Role.start(test, ['branch', '--origin', origin.url]);
    const connections = await Promise.all(
      Array.from({ length: 5 }, () => (what === 'kept' ? begin(branch.port, '/f') : Connection.open(branch.port))),
    );
    if (what === 'kept') {
      for (const connection of connections) test.ok(same((await connection.answer()).body, SMALL));
    }
    // Answered, so the silent ones have been accepted as well.
    test.equal((await ask(branch.port, '/nothing')).status, 404);
    const stopped = branch.stop();
    stopped.catch(() => {});
    test.ok(await inTime(stopped, 'the end', 3_000).catch(() => undefined), `connections that are ${what}`);
    for (const connection of connections) connection.close();
    test.equal((await stopped).code, 0);
  }
});

await t.test('every command has an example in its help', async (test) => {
  const queue: string[][] = [[]];
  let seen = 0;
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    const { stdout } = await runInside([...path, '--help']);
    if (path.length > 0) test.match(stdout, /\nExamples?:\n {2}\S/, path.join(' '));
    const commands = /\nCommands:\n([\s\S]*?)(?:\n\n|$)/.exec(stdout)?.[1] ?? '';
    for (const [, name = ''] of commands.matchAll(/^ {2}([a-z][a-z-]*)/gm))
      if (name !== 'help') queue.push([...path, name]);
    seen += 1;
  }
  test.ok(seen > 25, `${seen} commands`);
});
