/**
 * Runs every command that documents show, as it stands there: in a network namespace of its own, where the names of the documents are this machine, a web
 * server is on port 80 and Redis on its own. A service runs on until another one of its role starts, or its chapter ends.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { mkdtempSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { shownIn } from './shown.ts';
import { seededBytes } from './random.ts';

/** What stands there before a chapter, as at its reader's: services that its commands speak to, until it starts one of its own. */
const STANDING: Readonly<Record<string, string>> = {
  reverse: 'peerdist reverse --origin http://127.0.0.1:9000 --listen 0.0.0.0:8080',
  branch: 'peerdist branch --listen 0.0.0.0:3128',
  hosted: 'peerdist hosted --listen 127.0.0.1:8880 --no-offer-listen',
};
/** What is not run here: npm's own, which CI runs, and a shell's. */
const ELSEWHERE = /^npm /;
const SERVICE =
  /^(?:[A-Z_]+=\S+ )?(?:sudo )?peerdist (reverse|branch|hosted|head)(?! (?:preload|import)\b)(?!.*--print-config)/;
const NAMES = ['head-office', 'cache-machine', 'redis-machine', 'branch-1', 'branch-2'];

/** An ordinary web server for one directory. */
const WEB_SERVER = `
const { createServer } = require('node:http');
const { readFileSync, statSync } = require('node:fs');
const [root] = process.argv.slice(1);
createServer((request, response) => {
  try {
    const body = readFileSync(root + request.url);
    const head = { etag: '"1"', 'last-modified': statSync(root + request.url).mtime.toUTCString(), 'content-length': body.length };
    if (request.headers['if-none-match'] === '"1"') return response.writeHead(304, head).end();
    response.writeHead(200, head).end(request.method === 'HEAD' ? undefined : body);
  } catch { response.writeHead(404).end(); }
}).listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));`;

async function inside(documents: readonly string[]): Promise<void> {
  const place = mkdtempSync(join(tmpdir(), 'peerdist-docs-'));
  t.teardown(() => rmSync(place, { recursive: true, force: true }));
  prepare(place);
  const servers = await startServers(place);
  t.teardown(() => Promise.all(servers.map(end)));
  const before: ChildProcess[] = [];
  for (const shown of shownIn(readFileSync('plugins/standalone/README.md', 'utf8')))
    if (shown.kind === 'file') writeFileSync(join(place, shown.name), shown.text);
  // What a reader has done before.
  for (const role of ['reverse', 'branch'] as const) {
    const service = await start(place, STANDING[role] as string);
    if (typeof service === 'string') throw new Error(service);
    before.push(service);
  }
  for (let download = 0; download < 2; download += 1)
    await run(place, 'curl -s -x http://127.0.0.1:3128 -o /dev/null http://head-office:8080/big.iso; sleep 1');
  await Promise.all(before.map(end));
  for (const document of documents) {
    await t.test(document, async (test) => {
      const services = new Map<string, ChildProcess>();
      /** Roles that the chapter has started itself. */
      const own = new Set<string>();
      let chapter = '';
      for (const shown of shownIn(readFileSync(document, 'utf8'))) {
        if (shown.heading !== chapter) {
          for (const role of own) {
            await end(services.get(role));
            services.delete(role);
          }
          own.clear();
          endNginx();
          if (servers[0]?.signalCode !== null) servers[0] = await startWebServer(place, 80);
        }
        chapter = shown.heading;
        if (shown.kind === 'file') {
          writeFileSync(join(place, shown.name), shown.text);
          continue;
        }
        if (ELSEWHERE.test(shown.text)) continue;
        const role = SERVICE.exec(shown.text)?.[1];
        for (const [standing, line] of Object.entries(STANDING)) {
          if (services.has(standing) || role === standing) continue;
          const service = await start(place, line);
          if (typeof service === 'string') throw new Error(service);
          services.set(standing, service);
        }
        const name = `${document}:${shown.line}: ${shown.text}`;
        if (role !== undefined) {
          await end(services.get(role));
          services.delete(role);
          // A hosted cache and a web server cannot both have port 80 of one machine.
          if (role === 'hosted') await end(servers[0]);
          const service = await start(place, shown.text);
          if (typeof service === 'string') test.fail(`${name}\n${service}`);
          else {
            services.set(role, service);
            own.add(role);
            test.pass(name);
          }
        } else {
          // The load tool is the origin of head office, where it says so.
          if (shown.text.includes('--origin-listen 127.0.0.1:9000')) await end(servers[1]);
          const { status, stdout, stderr } = await run(place, shown.text);
          test.equal(status, 0, `${name}${status === 0 ? '' : `\n${stdout}${stderr}`}`);
        }
      }
      await endAll(services);
      endNginx();
    });
  }
}

function prepare(place: string): void {
  const bin = join(place, 'bin');
  mkdirSync(bin);
  const command = resolve('dist/plugins/standalone/main.js');
  for (const [name, text] of [
    ['peerdist', `exec ${process.execPath} ${command} "$@"`],
    ['sudo', 'exec "$@"'],
  ] as const) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(bin, name), 0o755);
  }
  writeFileSync(join(place, 'pass.txt'), 'a pass phrase that is long enough\n');
  writeFileSync(join(place, 'secret.bin'), Buffer.alloc(32, 7));
  const hosts = join(place, 'hosts');
  writeFileSync(hosts, `127.0.0.1 localhost ${NAMES.join(' ')}\n::1 localhost\n`);
  for (const [name, from] of [
    ['access.log', 'combined.log'],
    ['access.log.1.gz', 'combined.log'],
  ] as const) {
    const log = readFileSync(join('test/fixtures/logs', from));
    writeFileSync(join(place, name), name.endsWith('.gz') ? gzipSync(log) : log);
  }
  writeFileSync(join(place, 'sites.txt'), 'hamburg 10.1.0.0/16\nbremen 10.2.0.0/16\n');
  mkdirSync(join(place, 'www'));
  writeFileSync(join(place, 'www', 'big.iso'), seededBytes(3, 2_000_000));
  prepareLists(join(place, 'www'));
  mkdirSync(join(place, 'srv'));
  for (const args of [
    ['ip', 'link', 'set', 'lo', 'up'],
    ['ip', 'link', 'add', 'name', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1'],
    ['ip', 'address', 'add', '10.9.0.1/24', 'dev', 'lan0'],
    ['ip', 'link', 'set', 'lan0', 'up'],
    ['ip', 'link', 'set', 'lan1', 'up'],
    ['mount', '--bind', hosts, '/etc/hosts'],
  ])
    spawnSync(args[0] as string, args.slice(1));
  // The path that a document names; what is there on this machine is left alone.
  for (const directory of ['/srv', '/run']) spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', directory]);
  mkdirSync('/srv/www', { recursive: true });
  writeFileSync('/srv/www/big.iso', seededBytes(3, 2_000_000));
}

/** A sitemap, and a repository of one package. */
function prepareLists(www: string): void {
  const base = 'http://head-office:8080';
  const listed = (text: string): string => `${createHash('sha256').update(text).digest('hex')} ${text.length}`;
  const [hash, size] = listed('a kernel').split(' ');
  const name = 'pool/linux-image-6_amd64.deb';
  const index = `Package: linux-image-6\nFilename: ${name}\nSize: ${size}\nSHA256: ${hash}\n`;
  const path = 'main/binary-amd64/Packages';
  for (const [file, text] of [
    [
      'sitemap.xml',
      `<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc>${base}/big.iso</loc></url></urlset>`,
    ],
    [`debian/${name}`, 'a kernel'],
    [`debian/dists/stable/${path}`, index],
    ['debian/dists/stable/InRelease', `Components: main\nSHA256:\n ${listed(index)} ${path}\n`],
  ] as const) {
    mkdirSync(dirname(join(www, file)), { recursive: true });
    writeFileSync(join(www, file), text);
  }
}

async function startServers(place: string): Promise<ChildProcess[]> {
  const webs = await Promise.all([startWebServer(place, 80), startWebServer(place, 9000)]);
  const redis = spawn('redis-server', ['--save', '', '--bind', '127.0.0.1'], {
    cwd: place,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  redis.on('error', () => {});
  await Promise.race([once(redis.stdout, 'data'), once(redis, 'error')]);
  return [...webs, redis];
}

async function startWebServer(place: string, port: number): Promise<ChildProcess> {
  const web = spawn(process.execPath, ['-e', WEB_SERVER, join(place, 'www'), String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(web.stdout, 'data');
  return web;
}

function environment(place: string): NodeJS.ProcessEnv {
  const { PATH } = process.env;
  // A profile of a minute takes a moment: what a document leaves open is told here.
  const load = {
    PEERDIST_DURATION: '2s',
    PEERDIST_RATE: '20',
    PEERDIST_WAVE_EVERY: '2s',
    PEERDIST_WAVE_WITHIN: '1s',
    PEERDIST_WAVE_SIZE: '1MiB',
  };
  return {
    ...load,
    PATH: `${join(place, 'bin')}:${PATH}`,
    HOME: place,
    XDG_STATE_HOME: join(place, 'state'),
    LANG: 'C.UTF-8',
  };
}

/** A service that listens, or why it does not. */
async function start(place: string, line: string): Promise<ChildProcess | string> {
  const child = spawn('bash', ['-c', `exec ${line.replace(/^([A-Z_]+=\S+) /, 'env $1 ')}`], {
    cwd: place,
    env: environment(place),
  });
  let said = '';
  return new Promise((done) => {
    const take = (text: Buffer): void => {
      said += text.toString();
      // The last one that is opened.
      if (/listening on \S+ \((?:admin|peers)\)/.test(said) || /\(version 1 offers\)/.test(said))
        setImmediate(() => done(child));
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.once('exit', (code) => done(`ended with ${code}: ${said}`));
  });
}

async function run(place: string, line: string): Promise<{ status: number | null; stdout: string; stderr: string }> {
  // Bash reads \`source <(…)\` and redirections.
  const child = spawn('bash', ['-c', line], { cwd: place, env: environment(place) });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (text: Buffer) => {
    stdout += text.toString();
  });
  child.stderr.on('data', (text: Buffer) => {
    stderr += text.toString();
  });
  // Not 'close': what it leaves running has its output too.
  const [status] = (await once(child, 'exit')) as [number | null];
  return { status, stdout, stderr };
}

/** It has left its terminal; its number is in a directory that is only ours. */
function endNginx(): void {
  try {
    process.kill(Number(readFileSync('/run/nginx.pid', 'utf8')));
  } catch {
    // It does not run.
  }
}

async function endAll(services: Map<string, ChildProcess>): Promise<void> {
  await Promise.all([...services.values()].map(end));
  services.clear();
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  await gone;
}

/** A test for each of the documents. */
export async function testDocuments(documents: readonly string[]): Promise<void> {
  if (process.env['PEERDIST_TEST_INSIDE'] !== undefined) return inside(documents);
  if (spawnSync('unshare', ['--net', '--mount', 'true']).status !== 0) {
    t.plan(0, 'needs to make namespaces');
    return undefined;
  }
  await t.test('in a namespace', { timeout: 220_000 }, async (test) => {
    // tap's own way of starting a file, within a namespace.
    const inside = spawn(
      'unshare',
      ['--net', '--mount', process.execPath, ...process.execArgv, process.argv[1] as string],
      {
        env: { ...process.env, PEERDIST_TEST_INSIDE: '1', TAP: '1' },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let output = '';
    inside.stdout.on('data', (text: Buffer) => {
      output += text.toString();
    });
    const [code] = (await once(inside, 'exit')) as [number];
    for (const [, not, name] of output.matchAll(/^ {4}(not )?ok \d+ - (.*)$/gm))
      test.ok(not === undefined, name as string);
    test.equal(code, 0, code === 0 ? 'all of them' : output.slice(-4_000));
  });
  return undefined;
}
