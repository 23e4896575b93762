/**
 * Programs other people wrote: Debian's nginx behind `peerdist reverse`; curl, wget, aria2c and apt-get through `peerdist branch`. Every
 * file must arrive as it is, and the second time without a body byte over the WAN.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { ask, type Finished, Program, Role, run, until, V2_REQUEST } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

/** False, or why a test has to be skipped. */
function missing(...programs: readonly string[]): string | false {
  const absent = programs.filter(
    (program) =>
      spawnSync(program, ['--version']).error !== undefined && spawnSync(program, ['-v']).error !== undefined,
  );
  return absent.length === 0 ? false : `not installed: ${absent.join(', ')}`;
}

const directory = t.testdir({});
const path = (...names: string[]): string => join(directory, ...names);
const FILES: readonly [name: string, size: number][] = [
  ['small.bin', 70_001],
  ['medium.bin', 3_000_000],
  ['large.bin', 20_000_000],
];
const digest = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');

interface Site {
  readonly origin: string;
  /** Lines of nginx's access log since the last call: `METHOD uri status body-bytes`. */
  readonly logged: () => Promise<string[]>;
}

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}

/** nginx, unprivileged and in the foreground, serving `root`. */
async function startNginx(test: Test, root: string): Promise<Site> {
  const prefix = path(`nginx-${Math.random().toString(36).slice(2)}`);
  mkdirSync(join(prefix, 'temp'), { recursive: true });
  const port = await freePort();
  const log = join(prefix, 'access.log');
  writeFileSync(log, '');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(prefix, 'temp', name)};`)
    .join('\n');
  writeFileSync(
    join(prefix, 'nginx.conf'),
    `daemon off; master_process off; worker_processes 1; pid ${join(prefix, 'pid')}; error_log ${join(prefix, 'error.log')};
events { worker_connections 256; }
http {
  ${temporary}
  types { text/plain txt; }
  default_type application/octet-stream;
  log_format own '$request_method $uri $status $body_bytes_sent';
  access_log ${log} own;
  sendfile on;
  server { listen 127.0.0.1:${port}; root ${root}; }
}
`,
  );
  const nginx = new Program(test, 'nginx', [
    '-p',
    prefix,
    '-e',
    join(prefix, 'error.log'),
    '-c',
    join(prefix, 'nginx.conf'),
  ]);
  let ended: Finished | undefined;
  nginx.finished.then(
    (finished) => {
      ended = finished;
    },
    () => {},
  );
  let ready = false;
  while (!ready) {
    if (ended !== undefined) throw new Error(`nginx ended: ${ended.stderr}`);
    ready = await ask(port, '/').then(
      () => true,
      () => false,
    );
  }
  let read = 0;
  return {
    origin: `http://127.0.0.1:${port}`,
    async logged() {
      // A request of ours is the mark behind which nothing is missing.
      const mark = `/mark-${Math.random().toString(36).slice(2)}`;
      await ask(port, mark);
      await until(() => readFileSync(log, 'utf8').includes(mark), 'nginx has written its log');
      const lines = readFileSync(log, 'utf8').trim().split('\n');
      const fresh = lines.slice(read).filter((line) => !line.includes('/mark-') && line !== 'GET / 403 153');
      read = lines.length;
      return fresh;
    },
  };
}

interface Stage extends Site {
  readonly reverse: Role;
  readonly branch: Role;
}

async function stage(test: Test, root: string): Promise<Stage> {
  const site = await startNginx(test, root);
  await site.logged();
  const secret = path('secret');
  writeFileSync(secret, 'interop');
  const reverse = await Role.start(test, ['reverse', '--origin', site.origin, '--secret-file', secret]);
  const branch = await Role.start(test, ['branch']);
  return { ...site, reverse, branch };
}

/** Waits until the branch has what it wanted of a download: its content information, and every block. */
async function settled({ branch }: Stage, contents: number): Promise<void> {
  for (let last = -1, now = -2, known = 0; now !== last || known < contents;) {
    last = now;
    known = (await branch.metric('peerdist_content_information_total{result="received"}')) ?? 0;
    now = (await branch.metric('peerdist_store_bytes{store="block"}')) ?? 0;
  }
}

const bodies = (lines: readonly string[]): string[] => lines.filter((line) => / 20[06] [1-9]/.test(line));

await t.test('nginx behind, curl, wget and aria2c in front', { skip: missing('nginx') }, async (t2) => {
  const root = path('www');
  mkdirSync(root);
  const past = new Date('2026-01-05T06:07:08Z');
  for (const [name, size] of FILES) {
    writeFileSync(join(root, name), seededBytes(size, size));
    utimesSync(join(root, name), past, past);
  }
  /** How each program downloads one file to `to`. */
  const clients: Readonly<Record<string, (proxy: string, url: string, to: string) => readonly string[]>> = {
    curl: (proxy, url, to) => ['curl', '--silent', '--show-error', '--fail', '--proxy', proxy, '--output', to, url],
    wget: (proxy, url, to) => [
      'wget',
      '--quiet',
      '-c',
      '-e',
      'use_proxy=yes',
      '-e',
      `http_proxy=${proxy}`,
      '-O',
      to,
      url,
    ],
    aria2c: (proxy, url, to) => [
      'aria2c',
      '--no-conf',
      '--quiet',
      '--allow-overwrite=true',
      '-x8',
      '-s8',
      '-k1M',
      `--all-proxy=${proxy}`,
      `--dir=${join(to, '..')}`,
      `--out=${to.slice(to.lastIndexOf('/') + 1)}`,
      url,
    ],
  };
  for (const [name, command] of Object.entries(clients)) {
    await t2.test(name, { skip: missing(name) }, async (test) => {
      const all = await stage(test, root);
      const { branch, reverse, logged } = all;
      const download = async (file: string, round: number): Promise<void> => {
        const to = path(`${name}-${round}-${file}`);
        const [program = '', ...args] = command(branch.url, `${reverse.url}/${file}`, to);
        const { code, stderr } = await run(test, program, args);
        test.equal(code, 0, `${name} ${file}, round ${round} ${stderr}`);
        test.equal(digest(to), digest(join(root, file)), 'the same file');
        rmSync(to);
      };
      for (const [index, [file]] of FILES.entries()) {
        await download(file, 1);
        await settled(all, index + 1);
      }
      const sent = bodies(await logged()).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
      const total = FILES.reduce((sum, [, size]) => sum + size, 0);
      test.equal(sent, total, 'nginx sent each file once');
      const before = await branch.wanBodyBytes();
      for (let round = 2; round <= 3; round += 1) for (const [file] of FILES) await download(file, round);
      test.equal(await branch.wanBodyBytes(), before, 'no body byte over the WAN any more');
      const lines = await logged();
      test.same(bodies(lines), [], 'and none from nginx');
      test.ok(
        lines.every((line) => line.endsWith(' 304 0')),
        `nginx only agreed: ${lines.length} requests`,
      );
      const stored = (await branch.metric('peerdist_delivered_bytes_total{source="store"}')) ?? 0;
      test.ok(stored >= 2 * total, `${stored} bytes out of blocks`);
      test.same(
        [await branch.metric('peerdist_plugin_failures_total'), await reverse.metric('peerdist_plugin_failures_total')],
        [0, 0],
      );
      test.same([branch.program.stderr, reverse.program.stderr], ['', '']);
    });
  }

  await t2.test(
    'wget -c and curl -C - go on where a download broke off',
    { skip: missing('wget', 'curl') },
    async (test) => {
      const all = await stage(test, root);
      const { branch, reverse } = all;
      const [file, size] = FILES[1] as [string, number];
      for (const name of ['wget', 'curl'] as const) {
        const to = path(`resumed-${name}`);
        writeFileSync(to, readFileSync(join(root, file)).subarray(0, 1_234_567));
        const args = [...(clients[name]?.(branch.url, `${reverse.url}/${file}`, to) ?? [])].slice(1);
        const { code, stderr } = await run(test, name, name === 'curl' ? ['--continue-at', '-', ...args] : args);
        test.equal(code, 0, stderr);
        test.same([statSync(to).size, digest(to)], [size, digest(join(root, file))], `${name}: the same file`);
        truncateSync(to, size - 1);
        test.equal((await run(test, name, name === 'curl' ? ['--continue-at', '-', ...args] : args)).code, 0);
        test.equal(digest(to), digest(join(root, file)), `${name}: its last byte`);
      }
    },
  );

  await t2.test('a changed file is seen', { skip: missing('curl') }, async (test) => {
    const all = await stage(test, root);
    const { branch, reverse, logged } = all;
    const name = join(root, 'changing.bin');
    const url = `${reverse.url}/changing.bin`;
    const fetch = async (...extra: string[]): Promise<string> => {
      const to = path('changing');
      const { code } = await run(test, 'curl', [...extra, '-sSf', '-x', branch.url, '-o', to, url]);
      test.equal(code, 0);
      return digest(to);
    };
    writeFileSync(name, seededBytes(71, 500_000));
    utimesSync(name, past, past);
    test.equal(await fetch(), digest(name));
    await settled(all, 1);
    test.equal(await fetch('-H', 'Cache-Control: no-cache'), digest(name), 'revalidated');
    writeFileSync(name, seededBytes(72, 500_000));
    test.equal(await fetch('-H', 'Cache-Control: no-cache'), digest(name), 'and changed');
    test.equal(bodies(await logged()).length, 2, 'two bodies in all');
    rmSync(name);
    const gone = await run(test, 'curl', [
      '-s',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      '-H',
      'Cache-Control: no-cache',
      '-x',
      branch.url,
      url,
    ]);
    test.equal(gone.stdout, '404');
  });

  await t2.test('nginx keeps the last word on several ranges and conditions at the reverse', async (test) => {
    const { reverse } = await stage(test, root);
    const get = (fields: Record<string, string>): ReturnType<typeof ask> =>
      ask(reverse.port, '/medium.bin', { fields: { ...V2_REQUEST, ...fields } });
    await get({});
    const coded = await get({ 'X-P2P-PeerDistEx': `${V2_REQUEST['X-P2P-PeerDistEx']}, HashRequest=true` });
    test.equal(coded.headers['content-encoding'], 'peerdist');
    test.match((await get({ Range: 'bytes=0-0,9-9' })).headers['content-type'], /^multipart\/byteranges/);
    test.equal((await get({ Range: 'bytes=9000000-' })).status, 416);
    test.equal((await get({ 'If-None-Match': coded.headers['etag'] as string })).status, 304);
    test.equal((await get({ 'If-Match': '"no"' })).status, 412);
    test.equal((await get({ Range: 'bytes=5-9' })).headers['content-range'], 'bytes 5-9/3000000');
  });
});

// --- apt -------------------------------------------------------------------------------------------------------------------------------

/** A flat Debian repository with one package list, large enough to be worth publishing. */
function makeRepository(root: string): void {
  mkdirSync(root, { recursive: true });
  const packages = Array.from({ length: 1_500 }, (_, index) => {
    const hash = createHash('sha256').update(`package ${index}`).digest('hex');
    return `Package: peerdist-test-${index}\nVersion: 1.${index}\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\nInstalled-Size: ${index}\nFilename: pool/peerdist-test-${index}.deb\nSize: ${1000 + index}\nSHA256: ${hash}\nDescription: package number ${index}\n`;
  }).join('\n');
  writeFileSync(join(root, 'Packages'), packages);
  writeFileSync(join(root, 'Packages.gz'), gzipSync(packages, { level: 0 }));
  const sums = ['Packages', 'Packages.gz']
    .map((name) => ` ${digest(join(root, name))} ${statSync(join(root, name)).size} ${name}`)
    .join('\n');
  writeFileSync(
    join(root, 'Release'),
    `Origin: peerdist\nLabel: peerdist\nSuite: test\nArchitectures: all amd64 arm64\nDate: ${new Date().toUTCString()}\nSHA256:\n${sums}\n`,
  );
}

await t.test('apt-get update', { skip: missing('nginx', 'apt-get') }, async (test) => {
  const root = path('apt-www');
  makeRepository(join(root, 'repository'));
  const all = await stage(test, root);
  const { branch, reverse, logged } = all;
  const home = path('apt');
  const list = path('test.list');
  writeFileSync(list, `deb [trusted=yes] ${reverse.url}/repository ./\n`);
  const update = async (): Promise<Finished> => {
    for (const name of ['state/lists/partial', 'cache/archives/partial', 'etc', 'log'])
      mkdirSync(join(home, name), { recursive: true });
    const status = join(home, 'status');
    if (!existsSync(status)) writeFileSync(status, '');
    const options = {
      'Dir::Etc::sourcelist': list,
      'Dir::Etc::sourceparts': '-',
      'Dir::Etc::main': '-',
      'Dir::Etc::parts': '-',
      'Dir::State': join(home, 'state'),
      'Dir::State::status': status,
      'Dir::Cache': join(home, 'cache'),
      'Dir::Log': join(home, 'log'),
      'APT::Sandbox::User': 'root',
      'APT::Get::List-Cleanup': '0',
      'Acquire::http::Proxy': `http://127.0.0.1:${branch.port}`,
      'Acquire::Retries': '0',
      'Acquire::Languages': 'none',
      'Acquire::GzipIndexes': 'false',
    };
    const args = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
    return run(test, 'apt-get', [...args, 'update'], { LC_ALL: 'C', APT_CONFIG: '/dev/null' });
  };
  const first = await update();
  test.equal(first.code, 0, `apt-get update ${first.stderr}`);
  test.notMatch(first.stderr, /^E:|^Err/m);
  const lists = join(home, 'state', 'lists');
  const found = spawnSync('grep', ['-rlc', 'Package: peerdist-test-1499', lists]).stdout.toString().trim();
  test.not(found, '', 'the package list has arrived');
  const one = bodies(await logged());
  test.ok(
    one.some((line) => /Packages/.test(line)),
    one.join(' | '),
  );

  await settled(all, 1);
  const again = await update();
  test.equal(again.code, 0, 'a second update');
  test.match(again.stdout, /Hit:/, 'everything is up to date');
  test.same(
    bodies(await logged()).filter((line) => /Packages/.test(line)),
    [],
  );

  rmSync(home, { recursive: true });
  const before = await branch.wanBodyBytes();
  const third = await update();
  test.equal(third.code, 0, 'another machine');
  test.ok(spawnSync('grep', ['-rlc', 'Package: peerdist-test-1499', lists]).stdout.byteLength > 0);
  test.same(
    bodies(await logged()).filter((line) => /Packages/.test(line)),
    [],
    'the list comes out of blocks',
  );
  test.ok((await branch.wanBodyBytes()) - before < 5_000, 'only the small files came over the WAN');
});
