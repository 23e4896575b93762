/** The small commands of an administrator: publish, verify, stats, completion. */
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { quickDirectory } from '../support/disk.ts';
import {
  ask,
  COMMAND,
  type Finished,
  listen,
  Origin,
  type OriginFile,
  peerdist,
  Role,
  run,
  same,
  until,
  V1_REQUEST,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { hasControls } from '../support/net.ts';
import { noRedis, TestRedis } from '../support/redis.ts';
import { runInside } from '../support/spoken.ts';

for (const name of Object.keys(process.env)) if (name.startsWith('PEERDIST_')) delete process.env[name];
const BODY = Buffer.from(seededBytes(79, 1_200_000));
/** More than the buffers between a server and a client that does not read. */
const BIG = Buffer.from(seededBytes(80, 30_000_000));
const stateOf = (test: Test): string => join(quickDirectory(test), 'state');
/** Nobody asks it to end. */
const verifyInside = (...args: readonly string[]): Promise<Finished> =>
  runInside(['verify', ...args], { stopRequested: new Promise(() => {}) });

async function verified(url: string): Promise<{ code: number | null; wrong: number[]; offered: boolean[] }> {
  const { code, stdout } = await verifyInside(`${url}/f`, '--json');
  const { agreements } = JSON.parse(stdout) as { agreements: { wrongBlocks: number; isOffered: boolean }[] };
  return {
    code,
    wrong: agreements.map(({ wrongBlocks }) => wrongBlocks),
    offered: agreements.map(({ isOffered }) => isOffered),
  };
}

const isCoded = ({ headers }: { headers: Readonly<Record<string, string>> }): boolean =>
  headers['content-encoding'] === 'peerdist';

/** Exit 1 and one clear line. */
function failed(test: Test, { code, stderr }: Finished, expected: RegExp, what: string): void {
  test.equal(code, 1, `${what}: ${stderr}`);
  test.match(stderr, /^peerdist: [^\n]+\n$/, `${what}: one line`);
  test.match(stderr, expected, what);
}

// --- publish ---------------------------------------------------------------------------------------------------------------------------

/** What publish compares at a time. */
const PIECE_BYTES = 16 * 1024;

await t.test('publish: the very first request is answered with hashes, and the origin sends no body', async (test) => {
  const directory = quickDirectory(test);
  const names = ['plain.iso', 'with space.iso', 'per%cent%20.iso', 'ümlaut+#.iso'];
  const bodies = names.map((_, index) => Buffer.from(seededBytes(800 + index, 100_000 + 70_000 * index)));
  names.forEach((name, index) => writeFileSync(join(directory, name), bodies[index] as Buffer));
  const paths = names.map((name) => `/files/${encodeURIComponent(name)}`);
  const files: Record<string, OriginFile> = Object.fromEntries(
    paths.map((path, index) => [path, { body: bodies[index] as Buffer, etag: `"${index}"` }]),
  );
  const origin = await Origin.start(test, files);
  const state = stateOf(test);
  const running = await Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state]);
  const args = [
    'publish',
    ...names.map((name) => join(directory, name)),
    '--url',
    `${origin.url}/files/`,
    '--state-dir',
    state,
  ];
  const published = await peerdist(test, args);
  test.same([published.code, published.stderr], [0, '']);
  test.same(
    published.stdout.split('\n').filter(Boolean),
    names.map((name) => `${join(directory, name)}: published`),
  );
  test.ok(
    origin.requests.every(({ method, sent }) => (method === 'HEAD' ? sent === 0 : sent <= PIECE_BYTES)),
    'only heads, and pieces to compare',
  );

  const check = async (role: Role, what: string): Promise<void> => {
    const before = origin.requests.length;
    for (const path of paths)
      for (const fields of [V1_REQUEST, V2_REQUEST]) {
        const answer = await ask(role.port, path, { fields });
        test.ok(isCoded(answer), `${what}: ${path}`);
      }
    await until(() => origin.requests.every(({ closed }) => closed), 'the origin is done');
    test.ok(origin.requests.length > before, 'the origin is asked whether it may be');
    test.equal(
      origin.requests.slice(before).reduce((sum, { sent }) => sum + sent, 0),
      0,
      `${what}: no body byte of the origin`,
    );
  };
  await check(running, 'a proxy that was running');
  const again = await peerdist(test, args);
  test.same(
    [
      again.code,
      [
        ...new Set(
          again.stdout
            .split('\n')
            .filter(Boolean)
            .map((line) => line.split(': ')[1]),
        ),
      ],
    ],
    [0, ['was published before']],
  );
  await running.stop();
  await check(
    await Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state]),
    'a proxy that was started afterwards',
  );

  // Another state directory knows nothing.
  const other = await Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', stateOf(test)]);
  test.notOk(isCoded(await ask(other.port, paths[0] as string, { fields: V2_REQUEST })));
});

await t.test('publish into Redis', { skip: noRedis }, async (test) => {
  const directory = quickDirectory(test);
  const file = join(directory, 'f');
  writeFileSync(file, BODY);
  const redis = await TestRedis.start(test);
  const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"' } });
  const store = ['--store', redis.url, '--secret-hex', 'aabbccddeeff00112233445566778899'];
  const published = await peerdist(test, ['publish', file, '--url', `${origin.url}/f`, ...store]);
  test.equal(published.code, 0, published.stderr);
  const role = await Role.start(test, ['reverse', '--origin', origin.url, ...store]);
  test.ok(isCoded(await ask(role.port, '/f', { fields: V2_REQUEST })));
  test.ok(origin.bodyBytes('/f') <= 3 * PIECE_BYTES, 'but pieces to compare');
});

await t.test('publish: a file that is not what the origin has', async (test) => {
  const directory = quickDirectory(test);
  const state = stateOf(test);
  const path = (name: string, content: string | Uint8Array): string => {
    writeFileSync(join(directory, name), content);
    return join(directory, name);
  };
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"f"', headers: { 'cache-control': 'max-age=3600' } },
    '/none': { body: BODY },
    '/weak': { body: BODY, etag: 'W/"weak"' },
    '/secret': { body: BODY, etag: '"s"', headers: { 'cache-control': 'no-store' } },
    '/redirect': (_request, response) => void response.writeHead(302, { location: '/f' }).end(),
    '/error': (_request, response) => void response.writeHead(500).end(),
    '/cut': (request) => void request.socket.destroy(),
  });
  const whole = path('whole', BODY);
  const publish = (file: string, url: string): Promise<Finished> =>
    runInside(['publish', file, '--url', url, '--state-dir', state]);
  failed(
    test,
    await publish(path('short', BODY.subarray(1)), `${origin.url}/f`),
    /short: the origin has 1200000 bytes of it, the file 1199999/,
    'another length',
  );
  failed(test, await publish(path('tiny', 'x'), `${origin.url}/f`), /tiny: smaller than 64.0 KiB/, 'too small');
  failed(test, await publish(path('empty', ''), `${origin.url}/f`), /empty: smaller than/, 'empty');
  failed(
    test,
    await publish(whole, `${origin.url}/none`),
    /whole: the origin sends it in a way that must not be published/,
    'no validator',
  );
  failed(test, await publish(whole, `${origin.url}/weak`), /must not be published/, 'a weak validator');
  failed(test, await publish(whole, `${origin.url}/secret`), /must not be published/, 'no-store');
  failed(test, await publish(whole, `${origin.url}/not-there`), /the origin answered 404 to HEAD/, '404');
  failed(test, await publish(whole, `${origin.url}/redirect`), /the origin answered 302/, 'a redirect');
  failed(test, await publish(whole, `${origin.url}/error`), /the origin answered 500/, '500');
  failed(test, await publish(whole, `${origin.url}/cut`), /no answer from/, 'an origin that hangs up');
  failed(
    test,
    await publish(whole, 'http://127.0.0.1:9/f'),
    /whole: no answer from http:\/\/127\.0\.0\.1:9\/f/,
    'nobody there',
  );
  failed(
    test,
    await publish(join(directory, 'nowhere'), `${origin.url}/f`),
    /nowhere: cannot be read: ENOENT/,
    'no file',
  );
  failed(test, await publish(directory, `${origin.url}/f`), /: not a file/, 'a directory');
  // One after the other: what is wrong with one does not keep the others from it.
  const some = await runInside([
    'publish',
    join(directory, 'nowhere'),
    whole,
    '--url',
    `${origin.url}/`,
    '--state-dir',
    state,
  ]);
  test.equal(some.code, 1);
  test.match(some.stderr, /nowhere: cannot be read: ENOENT\npeerdist: .*whole: the origin answered 404/);
  for (const args of [
    [whole],
    [whole, '--url', `${origin.url}/a b`],
    [whole, '--url', `${origin.url}/\u00e9`],
    [whole, '--url', `${origin.url}/f#x`],
    [whole, '--url', origin.url],
    [whole, '--url', 'ftp://h/f'],
    [whole, whole, '--url', `${origin.url}/f`],
    [whole, '--url', `${origin.url}/f`, '--store', 'memory'],
    ['--url', `${origin.url}/f`],
  ]) {
    const { code, stderr } = await runInside(['publish', ...args, '--state-dir', state]);
    test.equal(code, 2, args.join(' '));
    test.match(stderr, /^peerdist: [^\n]+\n$/, stderr);
  }

  // Another build of the same length is told by what it begins and ends with.
  const other = Buffer.from(BODY);
  other[0] = (other[0] as number) ^ 1;
  failed(test, await publish(path('other', other), `${origin.url}/f`), /other bytes of the same length/, 'other bytes');
  // Other bytes somewhere else: nobody can tell here. Hashes are then wrong, and the client has to get right bytes all the same.
  const forged = Buffer.from(BODY);
  forged[700_000] = (forged[700_000] as number) ^ 1;
  test.equal((await publish(path('forged', forged), `${origin.url}/f`)).code, 0);
  const head = await Role.start(test, ['reverse', '--origin', origin.url, '--state-dir', state]);
  test.ok(isCoded(await ask(head.port, '/f', { fields: V2_REQUEST })), 'the wrong hashes are sent');
  const branch = await Role.start(test, ['branch', '--store', 'memory']);
  const first = await ask(branch.port, `${head.url}/f`);
  const begun = first.body.byteLength;
  test.ok(same(first.body, BODY.subarray(0, begun)), 'no wrong byte');
  test.equal(first.complete, begun === BODY.byteLength, 'whole, or seen to be broken');
  const rest = await ask(branch.port, `${head.url}/f`, { fields: { range: `bytes=${begun}-` } });
  test.ok(
    rest.complete && same(rest.body, BODY.subarray(begun)),
    'a client that goes on where it broke gets all of it',
  );
  const { code, wrong } = await verified(head.url);
  test.same([code, wrong], [1, [1, 1]], 'and verify finds it');
});

// --- verify ----------------------------------------------------------------------------------------------------------------------------

/** A content server before ours that may change what passes. */
async function tampering(
  test: Test,
  target: Role,
  change: (request: IncomingMessage, answer: Awaited<ReturnType<typeof ask>>, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer((request, response) => {
    const fields = Object.fromEntries(
      Object.entries(request.headers)
        .filter(([name]) => /^(?:accept-encoding|x-p2p)/.test(name))
        .map(([name, value]) => [name, String(value)]),
    );
    void ask(target.port, request.url ?? '', { fields }).then((answer) => change(request, answer, response));
  });
  return `http://127.0.0.1:${await listen(test, server)}`;
}

await t.test('verify: hashes and bodies that agree, and every way in which they do not', async (test) => {
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"f"' },
    '/big': { body: BIG, etag: '"b"' },
    '/tiny': { body: 'x', etag: '"t"' },
  });
  const head = await Role.start(test, ['reverse', '--origin', origin.url, '--store', 'memory']);
  const right = await verifyInside(`${head.url}/f`);
  test.same([right.code, right.stderr], [0, ''], right.stdout);
  test.match(right.stdout, /version 1 .* 1 │ +19 │ +0 │ +1\.1 MiB/);
  test.match(right.stdout, /version 2 .* 0 │ +1\.1 MiB/);
  test.match(right.stdout, 'The hashes describe the 1.1 MiB that were downloaded: all right.');
  const big = await verifyInside(`${head.url}/big`);
  test.match(
    big.stdout,
    /version 1 .* 0 │ +28\.6 MiB[^]*version 2 .* 0 │ +28\.6 MiB/,
    'one that nobody has asked for before',
  );
  const json = await verifyInside(`${head.url}/f`, '--json');
  const found = JSON.parse(json.stdout) as {
    bytes: number;
    isRight: boolean;
    agreements: { version: number; wrongBlocks: number; describedBytes: number }[];
  };
  test.match(found, { url: `${head.url}/f`, bytes: BODY.byteLength, isRight: true });
  test.same(
    found.agreements.map(({ version, wrongBlocks, describedBytes }) => [version, wrongBlocks, describedBytes]),
    [
      [1, 0, BODY.byteLength],
      [2, 0, BODY.byteLength],
    ],
  );

  const send = (
    response: ServerResponse,
    { status, headers }: Awaited<ReturnType<typeof ask>>,
    body: Uint8Array,
  ): void => {
    const { 'content-length': _, 'transfer-encoding': __, ...rest } = headers;
    response.writeHead(status, { ...rest, 'content-length': body.byteLength }).end(body);
  };
  const wants = (request: IncomingMessage, version: string): boolean =>
    String(request.headers['x-p2p-peerdistex']).includes(`MaxContentInformation=${version}`);
  const changed = (body: Buffer): Buffer => {
    const copy = Buffer.from(body);
    copy[65_536 * 3 + 5] = (copy[65_536 * 3 + 5] as number) ^ 1;
    return copy;
  };
  const [lying, short, long, only1, garbage, cut, slow] = await Promise.all([
    tampering(test, head, (_request, answer, response) =>
      send(response, answer, isCoded(answer) ? answer.body : changed(answer.body)),
    ),
    tampering(test, head, (_request, answer, response) =>
      send(response, answer, isCoded(answer) ? answer.body : answer.body.subarray(0, 1_000_000)),
    ),
    tampering(test, head, (_request, answer, response) =>
      send(response, answer, isCoded(answer) ? answer.body : Buffer.concat([answer.body, Buffer.from('more')])),
    ),
    tampering(test, head, (request, answer, response) => {
      if (!isCoded(answer) || wants(request, '1')) return send(response, answer, answer.body);
      // One that does not know version 2 answers with what it has.
      return void ask(head.port, '/f', { fields: V1_REQUEST }).then((older) => send(response, older, older.body));
    }),
    tampering(test, head, (_request, answer, response) =>
      send(response, answer, isCoded(answer) ? Buffer.from(seededBytes(3, 5_000)) : answer.body),
    ),
    tampering(test, head, (_request, answer, response) => {
      if (isCoded(answer)) return send(response, answer, answer.body);
      return void response
        .writeHead(200, { 'content-length': answer.body.byteLength })
        .write(answer.body.subarray(0, 500_000), () => response.destroy());
    }),
    tampering(test, head, (_request, answer, response) => {
      if (!isCoded(answer)) return send(response, answer, answer.body);
      response.writeHead(200, { 'content-encoding': 'peerdist', 'content-length': 100_000 });
      return void response.write('x', () => response.destroy());
    }),
  ]);
  test.same(
    await verified(lying),
    { code: 1, wrong: [1, 1], offered: [true, true] },
    'a byte that was changed after hashing',
  );
  const { code, wrong } = await verified(short);
  test.ok(code === 1 && (wrong[0] as number) === 19 - 15 && (wrong[1] as number) > 0, 'a body that is too short');
  test.same(await verified(long), { code: 1, wrong: [0, 0], offered: [true, true] }, 'one that is too long');
  test.same(await verified(only1), { code: 0, wrong: [0, 0], offered: [true, false] }, 'version 1 alone is enough');
  test.match((await verifyInside(`${lying}/f`)).stdout, 'The hashes do NOT describe');
  failed(test, await verifyInside(`${garbage}/f`), /content information/i, 'no content information');
  failed(test, await verifyInside(`${cut}/f`), /the answer broke off/, 'a body that breaks off');
  failed(test, await verifyInside(`${slow}/f`), /the answer broke off/, 'hashes that break off');
  failed(test, await verifyInside(`${head.url}/none`), /the server answered 404/, '404');
  failed(test, await verifyInside('http://127.0.0.1:9/f'), /no answer from/, 'nobody there');
  for (const url of ['ftp://h/f', 'f', 'http://']) {
    const refused = await verifyInside(url);
    test.same([refused.code, refused.stderr.split('\n').length], [2, 2], url);
  }
  const none = await verifyInside(`${origin.url}/f`);
  test.equal(none.code, 1);
  test.match(none.stdout, /version 1 +│ not sent/);
  test.match(none.stdout, 'The server sends no hashes for it');
});

// --- stats -----------------------------------------------------------------------------------------------------------------------------

await t.test('stats: of real services, and of what is none', async (test) => {
  const directory = quickDirectory(test);
  const token = join(directory, 'token');
  writeFileSync(token, 'token-of-the-test');
  const site = '=HYPERLINK("x"), "Bamberg"';
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"f"', headers: { 'cache-control': 'max-age=3600' } },
  });
  const reverse = await Role.start(test, [
    'reverse',
    '--origin',
    origin.url,
    '--store',
    'memory',
    '--admin-token',
    token,
  ]);
  const branch = await Role.start(test, ['branch', '--store', 'memory', '--site', site]);
  const at = (role: Role): string => `127.0.0.1:${role.adminPort}`;
  let saved = 0;
  while (saved <= BODY.byteLength) {
    await ask(branch.port, `${reverse.url}/f`);
    saved = (JSON.parse((await ask(branch.adminPort as number, '/savings')).body.toString()) as { savedBytes: number })
      .savedBytes;
  }
  const sum = (numbers: readonly number[]): number => numbers.reduce((left, right) => left + right, 0);
  const json = await runInside(['stats', at(branch), '--json']);
  test.same([json.code, json.stderr], [0, '']);
  const [told] = JSON.parse(json.stdout) as [{ site: string; role: string; days: Record<string, unknown>[] }];
  test.same([told.site, told.role], [site, 'branch']);
  // The day may have changed meanwhile.
  for (const day of told.days) test.match(day, { day: /^\d{4}-\d\d-\d\d$/, deliveredBytes: Number });
  test.equal(sum(told.days.map(({ savedBytes }) => savedBytes as number)), saved);
  const [names, ...rows] = (await runInside(['stats', at(branch), '--csv'])).stdout.trimEnd().split('\n');
  test.equal(names, 'site,role,day,delivered_bytes,wan_bytes,saved_bytes');
  const columns = rows.map((row) => {
    test.match(row, /^"'=HYPERLINK\(""x""\), ""Bamberg""",branch,\d{4}-\d\d-\d\d,\d+,\d+,-?\d+$/, 'no formula');
    return row
      .replace(/^".*",/, 's,')
      .split(',')
      .slice(3)
      .map(Number);
  });
  const [delivered, wan, last] = [0, 1, 2].map((index) => sum(columns.map((row) => row[index] as number)));
  test.equal(last, saved);
  test.equal((delivered as number) - (wan as number), saved);
  const table = await runInside(['stats', at(branch)]);
  test.match(table.stdout, /Bamberg.*│ branch +│ +(\d\.\d MiB) │ +\1 │ +\1 │ +\d+\.\d %/);

  failed(test, await runInside(['stats', at(reverse)]), /: the token of --admin-token is wanted/, 'without the token');
  const both = await runInside(['stats', at(reverse), at(branch), '--admin-token', token, '--json']);
  test.equal(both.code, 0, both.stderr);
  test.same(
    (JSON.parse(both.stdout) as { role: string }[]).map(({ role }) => role),
    ['reverse', 'branch'],
  );

  // Whoever else listens there.
  const answers: Readonly<Record<string, string | Buffer>> = {
    object: '{}',
    null: 'null',
    list: '[1]',
    text: 'hello',
    html: '<html>',
    days: '{"role":"branch","days":[{"day":"x","savedBytes":1}]}',
    numbers: '{"role":"branch","days":[{"day":"2026-01-01","savedBytes":"1","deliveredBytes":1,"wanBytes":1}]}',
    role: '{"role":"branch,\\u001b[31m","days":[]}',
    huge: Buffer.alloc(3_000_000, 0x20),
  };
  for (const [what, answer] of Object.entries(answers)) {
    const port = await listen(
      test,
      createServer((_request, response) => void response.end(answer)),
    );
    failed(
      test,
      await runInside(['stats', `127.0.0.1:${port}`, '--csv']),
      /: this is no admin listener of peerdist/,
      what,
    );
  }
  const TEXT = { 'content-type': 'text/plain' };
  const rude = await listen(
    test,
    createServer((_request, response) => void response.writeHead(500, TEXT).end('\u001b[31mno\u009b')),
  );
  const { stderr } = await runInside(['stats', `127.0.0.1:${rude}`]);
  test.match(stderr, /^peerdist: 127\.0\.0\.1:\d+: \?\[31mno\?\n$/);
  const obeyed = await listen(
    test,
    createServer((_request, response) => void response.end('{"site":"\\u001b]0;x\\u0007","role":"branch","days":[]}')),
  );
  const { stdout: shown } = await runInside(['stats', `127.0.0.1:${obeyed}`]);
  test.notOk(hasControls(shown, '\n'), 'names do nothing to a terminal');
  failed(test, await runInside(['stats', '127.0.0.1:9']), /127\.0\.0\.1:9: .*ECONNREFUSED/, 'nobody there');
  const some = await runInside(['stats', '127.0.0.1:9', at(branch), '--csv']);
  test.same([some.code, some.stdout.split('\n').length > 2], [1, true], 'the others are shown');
});

const noNamespace = spawnSync('unshare', ['-n', 'true']).status !== 0 && 'takes root and unshare';

await t.test('stats: nothing runs', { skip: noNamespace }, async (test) => {
  const { code, stderr } = await run(test, 'unshare', ['-n', process.execPath, COMMAND, 'stats']);
  test.equal(code, 2);
  test.equal(
    stderr,
    'peerdist: no service answers at 127.0.0.1:9180, 127.0.0.1:9181, 127.0.0.1:9182, 127.0.0.1:9184: say where\n',
  );
});

// --- completion ------------------------------------------------------------------------------------------------------------------------

const noBash = spawnSync('bash', ['--version']).status !== 0 && 'bash is not installed';

await t.test('completion: bash completes commands, options and values', { skip: noBash }, async (test) => {
  const directory = quickDirectory(test);
  mkdirSync(join(directory, 'bin'));
  const program = join(directory, 'bin', 'peerdist');
  writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${COMMAND}' "$@"\n`);
  chmodSync(program, 0o755);
  const script = (await peerdist(test, ['completion', 'bash'])).stdout;
  /** What bash offers for the last word. */
  const complete = (...words: readonly string[]): string[] => {
    const asked = `${script}\ncomplete -p peerdist >&2\nCOMP_WORDS=(peerdist "$@"); COMP_CWORD=$#\n_peerdist\nprintf '%s\\n' "\${COMPREPLY[@]}"`;
    const env = { ...process.env, PATH: `${join(directory, 'bin')}:${process.env['PATH']}` };
    return execFileSync('bash', ['--norc', '-c', asked, 'bash', ...words], {
      encoding: 'utf8',
      env,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
      .split('\n')
      .filter(Boolean);
  };
  test.same(complete('rev'), ['reverse']);
  const commands = complete('');
  for (const name of [
    'reverse',
    'branch',
    'hosted',
    'publish',
    'verify',
    'stats',
    'doctor',
    'check-config',
    'completion',
  ])
    test.ok(commands.includes(name), name);
  test.notOk(commands.includes('complete'), 'what is hidden stays so');
  test.same(complete('branch', '--log-'), ['--log-level', '--log-format']);
  test.same(complete('branch', '--log-level', ''), ['debug', 'info', 'warn', 'error', 'silent']);
  test.same(complete('branch', '--log-level', 's'), ['silent']);
  test.same(complete('reverse', '--origin', ''), [], 'a URL cannot be guessed');
  test.same(complete('reverse', '--no-adm'), ['--no-admin']);
  test.same(complete('hosted', 'pre'), ['preload']);
  test.ok(complete('hosted', 'preload', '--').every((option) => option.startsWith('--')));
  test.same(complete('doctor', 'br'), ['branch']);
  test.same(complete('doctor', 'branch', '--hosted-c'), ['--hosted-cache']);
  test.same(complete('completion', 'zz'), []);
  test.same(complete('nonsense', '--'), complete('--'));
  // What stands on the line is nobody's command.
  complete(`$(touch ${directory}/owned)`, '`touch owned`', '');
  test.notOk(execFileSync('ls', [directory], { encoding: 'utf8' }).includes('owned'));
  for (const shell of ['zsh', 'fish']) test.equal((await runInside(['completion', shell])).code, 0, shell);
  const none = await runInside(['completion', 'tcsh']);
  test.same([none.code, none.stderr], [2, 'peerdist: completion is for bash, zsh, fish\n']);
});

for (const [shell, check] of [
  ['zsh', ['zsh', '-n']],
  ['fish', ['fish', '--no-execute']],
] as const)
  await t.test(
    `completion: ${shell} can read its script`,
    { skip: spawnSync(shell, ['--version']).status !== 0 && `${shell} is not installed` },
    async (test) => {
      const file = join(quickDirectory(test), 'script');
      writeFileSync(file, (await runInside(['completion', shell])).stdout);
      const [command, ...args] = check;
      test.equal(spawnSync(command, [...args, file]).status, 0);
    },
  );
