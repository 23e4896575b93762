/** What a role that runs says of its requests: one whole line for each, with numbers that are right and nothing that is nobody's business. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { quickDirectory } from '../support/disk.ts';
import { hasControls } from '../support/net.ts';
import { portOf } from '../support/processes.ts';
import {
  ask,
  begin,
  COMMAND,
  Connection,
  Gate,
  inTime,
  Origin,
  type OriginFile,
  Program,
  readAtLeast,
  requestText,
  Role,
  same,
  sendFile,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import type { LoggedRequest } from '../support/spoken.ts';

const BODY = Buffer.from(seededBytes(77, 1_500_000));
const FRESH = { 'cache-control': 'max-age=3600' };

/** The port that a process listens on, once it does. */
async function listening(pid: number): Promise<number> {
  await until(() => portOf(pid) !== undefined, 'it listens', 40_000);
  return portOf(pid) as number;
}

/** Lines about requests, once there are so many. */
async function logged(role: Role, count: number): Promise<LoggedRequest[]> {
  await until(() => role.program.requests.length >= count, `${count} lines about requests`);
  return [...role.program.requests];
}

const sumOf = (numbers: unknown): number =>
  Object.values((numbers ?? {}) as Record<string, number>).reduce((sum, each) => sum + each, 0);

await t.test(
  'a line for each request: who, what, how much, from where, how it ended; and nothing else',
  async (test) => {
    const gate = new Gate();
    const origin = await Origin.start(test, {
      '/f?token=geheim-query': { body: BODY, etag: '"f"', headers: FRESH },
      '/cookie': { body: BODY, etag: '"c"', headers: { 'set-cookie': 'geheim-set' } },
      '/f': { body: BODY, etag: '"f"', headers: FRESH },
      '/slow': { body: BODY, etag: '"s"', firstBytes: 100_000, afterFirst: gate.passed },
      '/broken': (_request, response) => {
        response.writeHead(200, { 'content-length': 1_000_000 });
        response.write(BODY.subarray(0, 200_000), () => response.destroy());
      },
    });
    const tunnelled = createTcpServer((socket) => socket.on('error', () => {}).end('from beyond'));
    tunnelled.listen(0, '127.0.0.1');
    await once(tunnelled, 'listening');
    test.teardown(() => tunnelled.close());
    const { port: tunnelPort } = tunnelled.address() as AddressInfo;
    const reverse = await Role.start(test, [
      'reverse',
      '--origin',
      origin.url,
      '--store',
      'memory',
      '--secret-hex',
      'aabbccddeeff0011',
    ]);
    const branch = await Role.start(test, [
      'branch',
      '--store',
      'memory',
      '--connect-port',
      String(tunnelPort),
      '--site',
      'Bamberg',
    ]);
    const url = `${reverse.url}/f?token=geheim-query`;
    const fields = { cookie: 'session=geheim-cookie', authorization: undefined, referer: 'http://x/?geheim-referer' };
    const head = { cookie: fields.cookie, referer: fields.referer };

    const first = await ask(branch.port, url, { fields: head });
    test.ok(same(first.body, BODY));
    await until(() => origin.requests.length >= 1, 'the origin was asked');
    let [line] = await logged(branch, 1);
    test.match(line, {
      level: 'info',
      site: 'Bamberg',
      msg: 'request',
      client: '127.0.0.1',
      method: 'GET',
      url: `http://127.0.0.1:${reverse.port}/f`,
      status: 200,
      outcome: 'complete',
      lookup: String,
      wan: BODY.byteLength,
    });
    test.type(line?.['seconds'], 'number');
    test.ok((line?.['seconds'] as number) > 0 && (line?.['seconds'] as number) < 20);
    const overhead = (line?.['bytes'] as number) - BODY.byteLength;
    test.ok(overhead > 50 && overhead < 1_000, `head of ${overhead} bytes`);

    // Until it is cut into blocks; then out of them.
    let count = 1;
    await until(() => origin.requests.length >= 2, 'the branch has asked for the hashes');
    for (;;) {
      await ask(branch.port, url, { fields: head });
      line = (await logged(branch, (count += 1))).at(-1);
      if (line?.['lookup'] === 'hit' && line['wan'] === undefined) break;
      if (count > 200) throw new Error(JSON.stringify(line));
    }
    test.equal(sumOf(line['from']), BODY.byteLength, 'sources add up to the body');
    test.notOk(line['wan'], 'and nothing crossed the WAN');
    const range = await ask(branch.port, url, { fields: { ...head, range: 'bytes=100-70099' } });
    test.equal(range.body.byteLength, 70_000);
    line = (await logged(branch, (count += 1))).at(-1);
    test.match(line, { status: 206, from: { store: 70_000 } });
    test.equal(sumOf(line?.['from']), 70_000, 'of a range too');

    // Refused, not found, methods.
    await ask(branch.port, `${reverse.url}/none`);
    test.match((await logged(branch, (count += 1))).at(-1), {
      status: 404,
      outcome: 'complete',
      url: `${reverse.url}/none`,
    });
    await ask(branch.port, `${reverse.url}/f`, { method: 'HEAD' });
    line = (await logged(branch, (count += 1))).at(-1);
    test.match(line, { status: 200, method: 'HEAD' });
    test.ok((line?.['bytes'] as number) < 2_000, 'a head only');
    await ask(branch.port, 'ftp://host/x');
    test.match((await logged(branch, (count += 1))).at(-1), { status: 400, url: 'ftp://host/x' });

    // Tunnels, open and refused.
    const tunnel = await begin(branch.port, `127.0.0.1:${tunnelPort}`, {
      method: 'CONNECT',
      host: `127.0.0.1:${tunnelPort}`,
    });
    await inTime(tunnel.remainder(), 'the tunnel ends');
    line = (await logged(branch, (count += 1))).at(-1);
    test.match(line, { method: 'CONNECT', url: `127.0.0.1:${tunnelPort}`, status: 200, outcome: 'complete' });
    test.ok((line?.['bytes'] as number) > 'from beyond'.length, 'what came through it');
    await ask(branch.port, 'someone:geheim-user@127.0.0.1:25', { method: 'CONNECT', host: '127.0.0.1:25' });
    test.match((await logged(branch, (count += 1))).at(-1), {
      method: 'CONNECT',
      url: '127.0.0.1:25',
      outcome: 'complete',
    });

    await ask(branch.port, `${reverse.url}/cookie`, { fields: head });
    await logged(branch, (count += 1));

    // How it ended.
    const leaving = await begin(branch.port, `${reverse.url}/slow`);
    const slowHead = await leaving.head();
    await readAtLeast(leaving.body(slowHead), 50_000);
    leaving.leave();
    line = (await logged(branch, (count += 1))).at(-1);
    test.match(line, { outcome: 'left', url: `${reverse.url}/slow`, status: 200 });
    gate.open();
    const broken = await ask(branch.port, `${reverse.url}/broken`);
    test.notOk(broken.complete);
    line = (await logged(branch, (count += 1))).at(-1);
    test.match(line, { outcome: 'broken', url: `${reverse.url}/broken` });

    // User info, also where it is longer than what is kept of a URL.
    for (const user of ['u:geheim-user', `u:${'geheim-user'.repeat(400)}`, 'u:geheim-user@geheim-user'])
      await ask(branch.port, `http://${user}@127.0.0.1:${reverse.port}/f`, { host: `127.0.0.1:${reverse.port}` });
    for (const each of (await logged(branch, (count += 3))).slice(-3))
      test.equal(each['url'], `http://127.0.0.1:${reverse.port}/f`);
    await logged(reverse, 3);

    const ci = await ask(reverse.port, '/f?token=geheim-query', { fields: V2_REQUEST });
    test.equal(ci.headers['content-encoding'], 'peerdist');
    await until(
      () => reverse.program.requests.some(({ method, bytes }) => method === 'GET' && (bytes as number) < 200_000),
      'its line',
    );
    for (const { program } of [reverse, branch]) {
      const whole = JSON.stringify(program.log) + program.stderr + program.stdout;
      test.notMatch(whole, /geheim|aabbccddeeff|token=/i);
      // Nothing that is as long as an address of a segment is, or a hash; and no content information.
      test.notMatch(whole, /[0-9a-f]{32}/i, 'no hex of hashes');
      test.notMatch(whole, /[A-Za-z0-9+/]{43}=/, 'no base64 of hashes');
    }
    await reverse.stop();
    await branch.stop();
  },
);

/** A branch that can only say no, which is quick. */
function refusing(test: Test, ...args: readonly string[]): Promise<Role> {
  return Role.start(test, ['branch', '--store', 'memory', '--no-admin', '--allow-client', '10.255.255.1', ...args]);
}

await t.test(
  'whatever is asked for, a line is one line of valid JSON, and not longer than a pipe takes at once',
  async (test) => {
    const role = await refusing(test);
    const raw: number[] = [];
    let written = '';
    role.program.child.stdout?.on('data', (chunk: Buffer) => {
      written += chunk.toString('latin1');
    });
    const targets = [
      ['/\u001b[31m'],
      ['/\u0001\u0007\u007f'],
      [`/${'\u009b'.repeat(3_000)}`],
      [`/${'"\\'.repeat(3_000)}`],
      ['/"},"level":"error","msg":"forged"}'],
      [`/${'a'.repeat(30_000)}`],
      ['http://evil"\\host/x'],
      ['/\u00e9?x=\u009b'],
      ['/x', 'host\u009b"\\'],
      ['/x', 'h'.repeat(20_000)],
      ['*'],
      ['//\u009b@x/'],
    ] as const;
    for (const [target, host = 'h'] of targets) {
      const connection = await Connection.open(role.port);
      connection.send(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      const answer = (await inTime(connection.remainder(), 'an answer')).toString('latin1');
      raw.push(Number(/^HTTP\/1.1 (\d+)/.exec(answer)?.[1]));
      connection.close();
    }
    // What cannot be parsed as HTTP is no request; the others are logged.
    const requests = raw.filter((status) => status === 403).length;
    test.ok(requests >= 6, raw.join());
    const lines = await logged(role, requests);
    test.same(
      lines.map(({ status }) => status),
      Array.from({ length: requests }, () => 403),
    );
    await role.stop();
    const all = written.split('\n').filter(Boolean);
    for (const line of all) {
      test.ok(Buffer.byteLength(line, 'latin1') < 4_096, `${line.length} bytes`);
      const parsed = JSON.parse(line) as LoggedRequest;
      test.match(line, /^[\x20-\x7e]+$/);
      test.notOk(hasControls(JSON.stringify(parsed['url'] ?? '')));
    }
    test.equal(
      all.filter((line) => (JSON.parse(line) as LoggedRequest)['level'] === 'error').length,
      0,
      'nothing forged',
    );
    test.equal(lines.length, requests);
  },
);

await t.test('requests on one connection are each told their own bytes', async (test) => {
  let gate: Gate | undefined;
  const file = (size: number): OriginFile => ({ body: BODY.subarray(0, size), etag: `"${size}"` });
  const origin = await Origin.start(
    test,
    Object.fromEntries([10, 100_000, 20, 300_000, 30].map((size) => [`/${size}`, file(size)])),
  );
  origin.resources.set('/40', async (request, response, record) => {
    await gate?.passed;
    await sendFile(file(40), request, response, record);
  });
  const role = await Role.start(test, [
    'reverse',
    '--origin',
    origin.url,
    '--store',
    'memory',
    '--no-admin',
    '--min-size',
    '1GB',
  ]);
  const sizes = [40, 10, 100_000, 20, 300_000, 30, 10, 20];
  const check = async (from: number, lengths: readonly number[]): Promise<void> => {
    const lines = (await logged(role, from + sizes.length)).slice(from);
    const byUrl = lines.map(({ url, bytes, outcome }, index) => {
      const size = Number(String(url).split('/').at(-1));
      return [size, (bytes as number) - size - (lengths[index] as number), outcome];
    });
    test.same(
      byUrl,
      sizes.map((size) => [size, 0, 'complete']),
      'heads and bodies to the byte, in their order',
    );
  };
  /** Bytes of each head, as they come. */
  const heads = async (connection: Connection): Promise<number[]> => {
    const lengths: number[] = [];
    for (const size of sizes) {
      const answer = await inTime(connection.answer(), `${size}`);
      test.equal(answer.body.byteLength, size);
      const fields = answer.lines.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
      lengths.push(`HTTP/1.1 200 ${answer.reason}`.length + 4 + fields);
    }
    return lengths;
  };
  const kept = await Connection.open(role.port);
  const one = (async () => {
    const lengths: number[] = [];
    for (const size of sizes) {
      kept.send(requestText(role.port, `/${size}`));
      const answer = await inTime(kept.answer(), `${size}`);
      lengths.push(
        `HTTP/1.1 200 ${answer.reason}`.length +
          4 +
          answer.lines.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0),
      );
    }
    return lengths;
  })();
  await check(0, await one);
  // The others are there when the first one is at last answered, and leave with it.
  gate = new Gate();
  origin.requests.length = 0;
  const piped = await Connection.open(role.port);
  piped.send(Buffer.concat(sizes.map((size) => requestText(role.port, `/${size}`))));
  await until(() => origin.requests.filter(({ closed }) => closed).length === sizes.length - 1, 'all but the first');
  gate.open();
  await check(sizes.length, await heads(piped));
  kept.close();
  piped.close();
});

await t.test('what is said can be less, or prettier', async (test) => {
  const talk = async (args: readonly string[]): Promise<{ stdout: string; stderr: string }> => {
    const command = [
      COMMAND,
      'branch',
      '--listen',
      '127.0.0.1:0',
      '--no-admin',
      '--no-peers',
      '--store',
      'memory',
      ...args,
    ];
    const child = spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'pipe'] });
    test.teardown(() => child.kill('SIGKILL'));
    const out = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].on('data', (chunk: Buffer) => {
        out[name] += chunk.toString();
      });
    const port = await listening(child.pid as number);
    await ask(port, 'http://127.0.0.1:9/"x"?geheim');
    child.kill('SIGTERM');
    await inTime(once(child, 'close'), 'its end');
    return out;
  };
  const [plain, quiet, warn, silent, pretty] = await Promise.all([
    talk([]),
    talk(['--no-access-log']),
    talk(['--log-level', 'warn']),
    talk(['--log-level', 'silent']),
    talk(['--log-format', 'pretty']),
  ]);
  const count = ({ stdout }: { stdout: string }, pattern: RegExp): number => [...stdout.matchAll(pattern)].length;
  test.same([count(plain, /"msg":"request"/g), count(plain, /listening on/g)], [1, 1]);
  test.same([count(quiet, /"msg":"request"/g), count(quiet, /listening on/g)], [0, 1]);
  test.same([warn.stdout, silent.stdout], ['', '']);
  test.same([plain.stderr, quiet.stderr, warn.stderr, silent.stderr, pretty.stderr], ['', '', '', '', '']);
  test.match(
    pretty.stdout,
    /^\[?\d\d:\d\d:\d\d\]? INFO: 127\.0\.0\.1 GET http:\/\/127\.0\.0\.1:9\/%22x%22 502, .* in \d\.\d{3} s \(.*\)$/m,
  );
  test.match(pretty.stdout, /INFO: listening on http:\/\/127/);
  test.notOk(hasControls(pretty.stdout, '\n'), 'no colours where nobody looks');
  test.notMatch(pretty.stdout, /geheim/);
});

await t.test('two workers, one pipe: every line is whole', async (test) => {
  const state = join(quickDirectory(test), 'state');
  const program = new Program(test, process.execPath, [
    COMMAND,
    ...'branch --listen 127.0.0.1:0 --no-admin --no-peers --workers 2 --allow-client 10.255.255.1'.split(' '),
    `--state-dir=${state}`,
  ]);
  let written = '';
  program.child.stdout?.on('data', (chunk: Buffer) => {
    written += chunk.toString('latin1');
  });
  await until(() => program.lines.length > 0, 'it listens', 40_000);
  const port = Number(/:(\d+)$/.exec(program.lines[0] as string)?.[1]);
  const [clients, each] = [24, 60];
  await Promise.all(
    Array.from({ length: clients }, async (_, index) => {
      for (let number = 0; number < each; number += 1) {
        const path = `/${index}-${number}-${'"'.repeat(number * 28)}-${'x'.repeat((index + 1) * 80)}`;
        const { status } = await ask(port, path);
        if (status !== 403) test.fail(`${status}`);
      }
    }),
  );
  await until(() => program.requests.length >= clients * each, 'all lines');
  program.child.kill('SIGTERM');
  await inTime(program.finished, 'its end', 15_000);
  const lines = written
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as LoggedRequest);
  const urls = lines
    .filter(({ msg }) => msg === 'request')
    .map(({ url }) => String(url).split('/')[3]?.split('-').slice(0, 2).join());
  test.equal(new Set(urls).size, clients * each, 'each request once');
  test.equal(urls.length, clients * each);
});

await t.test('a log that nobody reads, or that is gone, costs neither the service nor its memory', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: 'x'.repeat(1_000), etag: '"f"' } });
  const start = async (): Promise<{ child: ReturnType<typeof spawn>; port: number }> => {
    const args = ['reverse', '--origin', origin.url, '--listen', '127.0.0.1:0', '--no-admin', '--store', 'memory'];
    const child = spawn(process.execPath, [COMMAND, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
    test.teardown(() => child.kill('SIGKILL'));
    return { child, port: await listening(child.pid as number) };
  };
  const [gone, still] = await Promise.all([start(), start()]);
  gone.child.stdout?.destroy();
  for (let index = 0; index < 50; index += 1) {
    const { status } = await ask(gone.port, '/f');
    if (status !== 200) test.fail(`${status}`);
  }
  test.equal(gone.child.exitCode, null, 'it lives without a reader');

  // A reader that stands still: 2 kB for each request, of which nobody takes any.
  still.child.stdout?.pause();
  const path = `/${'p'.repeat(2_040)}`;
  const load = async (requests: number): Promise<void> => {
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        const socket = connect({ port: still.port, host: '127.0.0.1' });
        let answers = 0;
        await new Promise<void>((resolve, reject) => {
          const next = (): void => void socket.write(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`);
          socket.once('error', reject);
          socket.on('data', (chunk: Buffer) => {
            if (!chunk.toString('latin1').includes('not here')) return;
            answers += 1;
            if (answers < requests / 16) next();
            else resolve();
          });
          next();
        });
        socket.destroy();
      }),
    );
  };
  await load(8_000);
  test.equal((await ask(still.port, '/f')).status, 200);
  let waited = '';
  still.child.stdout?.on('data', (chunk: Buffer) => {
    waited += chunk.toString('latin1');
  });
  still.child.stdout?.resume();
  for (const { child } of [gone, still]) {
    const closed = once(child, 'exit');
    child.kill('SIGTERM');
    const [code] = (await inTime(closed, 'its end', 12_000)) as [number];
    test.equal(code, 0, 'and it ends when it is asked to');
  }
  // 17 MB of lines were said.
  test.ok(waited.length > 1_000_000 && waited.length < 10_000_000, `${waited.length} bytes were kept for the reader`);
  for (const line of waited.split('\n').filter(Boolean)) JSON.parse(line);
});
