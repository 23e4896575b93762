/**
 * What crosses the line to head office, and how long clients wait: a head and two branches of one site in three network namespaces, the line between
 * them our own relay of 20 Mbit/s and 40 ms. An apt repository, an image of 200 MB, a web page with 60 objects; then an update for 50 clients at once.
 * Takes root, about seven minutes, and `ip`, nginx, curl, apt-get and the tools of dpkg.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { seededBytes } from './measure.ts';
import { A, B, HEAD_PORT, inside, ORIGIN_PORT, Site } from './paired-site.ts';
import { directory, hasTool, scratchFile } from './processes.ts';
import type { Line } from './report.ts';

const TOOLS = ['ip', 'nginx', 'curl', 'apt-get', 'dpkg-deb', 'dpkg-scanpackages'];

/** For an update that 50 clients get within a minute. */
const FAST_LINE = { bitsPerSecond: 400e6, roundTripMs: 20 };
const IMAGE_BYTES = 200e6;
const PACKAGES = 40;
const PACKAGE_BYTES = 750_000;
const OBJECTS = 60;
const UPDATE_CLIENTS = 50;

export async function benchPaired(): Promise<Line[]> {
  const missing = TOOLS.find((tool) => !hasTool(tool));
  if (missing !== undefined || process.getuid?.() !== 0)
    return [
      {
        what: `paired proxies: ${missing === undefined ? 'takes root' : `${missing} is not installed`}`,
        value: 'skipped',
      },
    ];
  const site = new Site();
  try {
    return [...(await workloads(site)), ...(await update(site))];
  } finally {
    await site.close();
  }
}

/** One download of one client. */
interface Cost {
  readonly bytes: number;
  readonly seconds: number;
}

interface Workload {
  readonly name: string;
  /** Downloads all of it. @param proxy undefined: direct */
  readonly run: (namespace: string, origin: string, proxy: string | undefined) => Promise<void>;
}

async function workloads(site: Site): Promise<Line[]> {
  writeContent();
  await site.serve();
  const plain = `http://127.0.0.1:${ORIGIN_PORT}`;
  const behindHead = `http://10.88.1.1:8000`;
  const lines: Line[] = [];
  for (const { name, run } of [apt(), page(), image()]) {
    const measure = async (namespace: string, port: number, origin: string, proxy?: string): Promise<Cost> => {
      const before = await site.carried(namespace, port);
      const started = performance.now();
      await run(namespace, origin, proxy);
      return { seconds: (performance.now() - started) / 1000, bytes: (await site.carried(namespace, port)) - before };
    };
    const direct = await measure(A, ORIGIN_PORT, plain);
    const line = (who: string, cost: Cost, goal: number): void =>
      void lines.push(shown(`${name}, ${who}`, cost, direct, goal));
    line('direct', direct, 1);
    const alone = await site.branch(A);
    line('branch alone, first client', await measure(A, ORIGIN_PORT, plain, alone), 1.01);
    line('branch alone, second client', await measure(A, ORIGIN_PORT, plain, alone), 0.01);
    const sibling = await site.branch(B, '--sibling', '10.88.3.1:8008');
    line('its sibling, first client', await measure(B, ORIGIN_PORT, plain, sibling), name === 'web page' ? 1.01 : 0.1);
    await site.stopBranches();
    const paired = await site.branch(A, '--upstream', `http://127.0.0.1:${HEAD_PORT}`);
    line('branch with head, first client', await measure(A, HEAD_PORT, behindHead, paired), 1.02);
    line('branch with head, second client', await measure(A, HEAD_PORT, behindHead, paired), 0.01);
    const neighbour = await site.branch(B, '--upstream', `http://127.0.0.1:${HEAD_PORT}`);
    line(
      'its neighbour with head, first client',
      await measure(B, HEAD_PORT, behindHead, neighbour),
      name === 'web page' ? 1.01 : 0.1,
    );
    await site.stopBranches();
  }
  await site.stopAll();
  return lines;
}

/** 50 clients fetch a new file within a minute, then its next version, of which one per cent is new. */
async function update(site: Site): Promise<Line[]> {
  const first = seededBytes(IMAGE_BYTES, 5);
  const next = Buffer.from(first);
  seededBytes(IMAGE_BYTES / 100, 6).copy(next, IMAGE_BYTES / 2);
  scratchFile('www/update.bin', first);
  await site.serve(FAST_LINE);
  const lines: Line[] = [];
  const crowd = async (port: number, url: string, proxy: string): Promise<Cost> => {
    const before = await site.carried(A, port);
    const started = performance.now();
    const urls = Array.from({ length: UPDATE_CLIENTS }, () => ['-o', '/dev/null', url]).flat();
    await inside(
      A,
      'curl',
      '-q',
      '-sSf',
      '-Z',
      '--parallel-max',
      String(UPDATE_CLIENTS),
      '--parallel-immediate',
      '-x',
      proxy,
      ...urls,
    );
    return { seconds: (performance.now() - started) / 1000, bytes: (await site.carried(A, port)) - before };
  };
  const copy = { bytes: IMAGE_BYTES, seconds: Number.NaN };
  const alone = await site.branch(A);
  const plain = `http://127.0.0.1:${ORIGIN_PORT}/update.bin`;
  lines.push(
    shown(`update, ${UPDATE_CLIENTS} clients, branch alone`, await crowd(ORIGIN_PORT, plain, alone), copy, 1.01),
  );
  await site.stopBranches();
  const paired = await site.branch(A, '--upstream', `http://127.0.0.1:${HEAD_PORT}`);
  const url = 'http://10.88.1.1:8000/update.bin';
  lines.push(shown(`update, ${UPDATE_CLIENTS} clients, with head`, await crowd(HEAD_PORT, url, paired), copy, 1.01));
  scratchFile('www/update.bin', next);
  await inside(
    A,
    'curl',
    '-q',
    '-sSf',
    '-o',
    '/dev/null',
    '-H',
    'Cache-Control: no-cache',
    '-r',
    '0-0',
    '-x',
    paired,
    url,
  );
  lines.push(
    shown(
      `next version, 1 % new, ${UPDATE_CLIENTS} clients, with head`,
      await crowd(HEAD_PORT, url, paired),
      copy,
      0.05,
    ),
  );
  await site.stopAll();
  return lines;
}

function shown(what: string, cost: Cost, against: Cost, goal: number): Line {
  const figure = ({ bytes, seconds }: Cost): string =>
    `${(bytes / 1e6).toFixed(2)} MB${Number.isNaN(seconds) ? '' : `, ${seconds.toFixed(1)} s`}`;
  return {
    what,
    value: figure(cost),
    yardstick: figure(against),
    ratio: cost.bytes / against.bytes,
    goal,
    atMost: true,
  };
}

// --- What is downloaded ----------------------------------------------------------------------------------------------------------------

function writeContent(): void {
  const www = join(directory, 'www');
  for (const name of ['apt', 'page']) mkdirSync(join(www, name), { recursive: true });
  writeFileSync(join(www, 'image.bin'), seededBytes(IMAGE_BYTES, 2));
  for (let index = 0; index < OBJECTS; index += 1)
    writeFileSync(join(www, 'page', String(index)), seededBytes(objectBytes(index), 100 + index));
  const root = join(directory, 'package');
  mkdirSync(join(root, 'DEBIAN'), { recursive: true });
  for (let index = 0; index < PACKAGES; index += 1) {
    const control = `Package: bench-${index}\nVersion: 1\nArchitecture: all\nMaintainer: bench <bench@example.com>\nDescription: bench\n`;
    writeFileSync(join(root, 'DEBIAN', 'control'), control);
    writeFileSync(join(root, 'data'), seededBytes(PACKAGE_BYTES, 300 + index));
    execFileSync('dpkg-deb', ['-b', root, join(www, 'apt')], { stdio: 'ignore' });
  }
  const stdio = ['ignore', 'pipe', 'ignore'] as const;
  const index = execFileSync('dpkg-scanpackages', ['-m', '.'], { cwd: join(www, 'apt'), stdio: [...stdio] });
  writeFileSync(join(www, 'apt', 'Packages.gz'), gzipSync(index));
}

/** From an icon to a photograph: 2.4 MB in all. */
function objectBytes(index: number): number {
  return 1_000 + ((index * 7919) % 60) ** 2 * 65;
}

function apt(): Workload {
  let clients = 0;
  return {
    name: `apt, ${PACKAGES} packages`,
    async run(namespace, origin, proxy) {
      const root = join(directory, `apt-${(clients += 1)}`);
      for (const name of ['etc/apt', 'state/lists/partial', 'cache/archives/partial', 'got'])
        mkdirSync(join(root, name), { recursive: true });
      writeFileSync(join(root, 'status'), '');
      writeFileSync(join(root, 'etc/apt/sources.list'), `deb [trusted=yes] ${origin}/apt ./\n`);
      const options = [
        `Dir=${root}`,
        `Dir::Etc=${join(root, 'etc/apt')}`,
        `Dir::State=${join(root, 'state')}`,
        `Dir::State::status=${join(root, 'status')}`,
        `Dir::Cache=${join(root, 'cache')}`,
        'APT::Sandbox::User=root',
        'Acquire::Languages=none',
        ...(proxy === undefined ? [] : [`Acquire::http::Proxy=${proxy}`]),
      ].flatMap((option) => ['-o', option]);
      await inside(namespace, 'apt-get', ...options, '-qq', 'update');
      const names = Array.from({ length: PACKAGES }, (_, index) => `bench-${index}`);
      await inside(
        namespace,
        'sh',
        '-c',
        `cd ${join(root, 'got')} && exec "$@"`,
        'sh',
        'apt-get',
        ...options,
        '-qq',
        'download',
        ...names,
      );
    },
  };
}

function page(): Workload {
  return {
    name: 'web page',
    async run(namespace, origin, proxy) {
      const urls = Array.from({ length: OBJECTS }, (_, index) => ['-o', '/dev/null', `${origin}/page/${index}`]).flat();
      await inside(namespace, 'curl', '-q', '-sSf', '-Z', '--parallel-max', '6', ...through(proxy), ...urls);
    },
  };
}

function image(): Workload {
  return {
    name: 'image of 200 MB',
    run: async (namespace, origin, proxy) =>
      void (await inside(namespace, 'curl', '-q', '-sSf', '-o', '/dev/null', ...through(proxy), `${origin}/image.bin`)),
  };
}

function through(proxy: string | undefined): readonly string[] {
  return proxy === undefined ? ['--noproxy', '*'] : ['-x', proxy];
}
