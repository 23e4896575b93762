/** What is shipped: the package of npm, how large it is when it is installed, the units for systemd, and the recipe of a container. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import t from 'tap';
import { parse } from 'yaml';
import { parseDuration } from '../plugins/standalone/options/units.ts';
import { peerdist, Program, until } from './support/proxies.ts';

const MAX_PACKAGE_BYTES = 1_000_000;
/** Sum of the files, as npm reckons it; on a disk with blocks of 4 KiB it is about half as much again. */
const MAX_INSTALLED_BYTES = 25_000_000;
/** What `systemd-analyze security` may say at most; 10 is no protection at all. */
const MAX_EXPOSURE = 2;

interface Packed {
  readonly filename: string;
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

interface LockedPackage {
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
}

const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as {
  readonly bin: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string>>;
  readonly scripts: Readonly<Record<string, string>>;
};
const directory = t.testdir({});
const [packed] = JSON.parse(
  execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }),
) as [Packed];
const inPackage = new Set(packed.files.map(({ path }) => path));
/** Folders of what comes along with `npm install --omit=optional`. */
const installed = Object.entries(
  (JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, LockedPackage> }).packages,
)
  .filter(([path, { dev, optional, devOptional }]) => path !== '' && !(dev ?? optional ?? devOptional ?? false))
  .map(([path]) => path);

await t.test('the package has what it needs, and nothing of tests and measurements', async (test) => {
  test.ok(packed.size < MAX_PACKAGE_BYTES, `${packed.size} bytes`);
  test.comment(`package: ${packed.size} bytes, unpacked ${packed.unpackedSize} in ${inPackage.size} files`);
  const paths = [...inPackage];
  const allowed =
    /^(dist\/(lib|plugins)\/.+\.(js|d\.ts)|plugins\/dashboard\/page\/.+|plugins\/standalone\/config\/peerdist\.schema\.json|examples\/.+|.+\.md|LICENSE|package\.json)$/;
  test.strictSame(
    paths.filter((path) => !allowed.test(path)),
    [],
  );
  const compiled = paths.filter((path) => path.startsWith('dist/'));
  const sources = compiled.map((path) => path.replace(/^dist\//, '').replace(/(\.d)?\.(js|ts)$/, '.ts'));
  test.strictSame(
    sources.filter((path) => !existsSync(path)),
    [],
    'nothing that an older build has left',
  );
  const entries = [...Object.values(manifest.exports), ...Object.values(manifest.bin)].map((path) =>
    posix.normalize(path),
  );
  const needed = [
    ...entries,
    ...entries.filter((path) => path.endsWith('.js')).map((path) => path.replace(/js$/, 'd.ts')),
    ...['plugins/dashboard/page', 'examples/prometheus', 'examples/systemd', 'examples/container'].flatMap((folder) =>
      readdirSync(folder).map((name) => `${folder}/${name}`),
    ),
    'README.md',
    'LICENSE',
    'CHANGELOG.md',
    'SECURITY.md',
  ];
  test.strictSame(
    needed.filter((path) => !inPackage.has(path)),
    [],
  );
});

await t.test('what its documents point to comes along', async (test) => {
  for (const document of [...inPackage].filter((path) => path.endsWith('.md'))) {
    const text = readFileSync(document, 'utf8');
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, target = '']) =>
      posix.join(dirname(document), target),
    );
    const named = [...text.matchAll(/`(examples\/[\w./-]*\w)`/g)].map(([, path = '']) => path);
    test.strictSame(
      [...links, ...named].filter(
        (path) => !inPackage.has(path) && ![...inPackage].some((each) => each.startsWith(path)),
      ),
      [],
      document,
    );
  }
});

await t.test('installed without optional packages it is small, and runs', async (test) => {
  const bytes = installed.reduce((sum, folder) => sum + bytesOf(folder), packed.unpackedSize);
  test.comment(`installed: ${bytes} bytes with ${installed.length} packages`);
  test.ok(bytes < MAX_INSTALLED_BYTES, `${bytes} bytes`);
  test.strictSame(
    installed.filter((path) => /lmdb|redis/.test(path)),
    [],
  );
  // Not below this directory: Node would find its packages.
  const root = mkdtempSync(join(tmpdir(), 'peerdist-package-'));
  test.teardown(() => rmSync(root, { recursive: true, force: true }));
  execFileSync('tar', ['-xzf', join(directory, packed.filename), '-C', root]);
  for (const folder of installed.filter((path) => !path.includes('/node_modules/'))) {
    mkdirSync(dirname(join(root, folder)), { recursive: true });
    symlinkSync(join(process.cwd(), folder), join(root, folder));
  }
  const main = join(root, 'package', manifest.bin['peerdist'] as string);
  const start = (...args: string[]): Program => new Program(test, process.execPath, [main, ...args]);
  const schema = await start('check-config', '--schema').finished;
  test.match(JSON.parse(schema.stdout), { title: 'peerdist configuration' });
  const program = start(
    'reverse',
    '--origin',
    'http://127.0.0.1:9',
    '--listen',
    '127.0.0.1:0',
    '--admin',
    '127.0.0.1:0',
  );
  const admin = await adminOf(program);
  test.match(program.stderr, /a store on disk needs the package lmdb, which is not installed; going on with .* memory/);
  for (const path of [
    '/dashboard',
    '/dashboard/dashboard.js',
    '/dashboard/plots.js',
    '/dashboard/style.css',
    '/metrics',
  ])
    test.equal((await fetch(`${admin}${path}`)).status, 200, path);
});

const analyze = spawnSync('systemd-analyze', ['--version']).error === undefined;
await t.test('the units for systemd', { skip: analyze ? false : 'not installed: systemd-analyze' }, async (test) => {
  const sample = 'examples/systemd/peerdist.yaml';
  const checked = await peerdist(test, ['check-config', sample]);
  test.strictSame([checked.code, checked.stdout], [0, `${sample}: all right for reverse, head, branch, hosted\n`]);
  for (const role of ['reverse', 'head', 'branch', 'hosted'] as const) {
    const unit = `examples/systemd/peerdist-${role}.service`;
    const verified = spawnSync('systemd-analyze', ['verify', '--man=no', unit], { encoding: 'utf8' });
    test.strictSame([verified.status, verified.stdout + verified.stderr], [0, ''], `${unit} is accepted`);
    const args = ['security', '--offline=true', `--threshold=${MAX_EXPOSURE * 10}`, unit];
    const security = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
    const exposure = /Overall exposure level for \S+: (\S+)/.exec(security.stdout)?.[1];
    test.equal(security.status, 0, `exposure ${exposure}`);
    test.comment(`${unit}: exposure ${exposure}`);
    const text = readFileSync(unit, 'utf8');
    const values = (key: string): string[] =>
      [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map((found) => found[1] ?? '');
    const file = '/etc/peerdist.yaml';
    test.strictSame(values('ExecStartPre'), [`/usr/bin/env peerdist check-config ${file}`]);
    test.strictSame(values('ExecStart'), [`/usr/bin/env peerdist ${role} --config ${file}`]);
    const shown = await peerdist(test, [role, '--config', sample, '--print-config']);
    test.equal(shown.code, 0, shown.stderr);
    const settings = (parse(readFileSync(sample, 'utf8')) as Record<string, { 'drain-timeout': string }>)[role];
    const drainMs = parseDuration(settings?.['drain-timeout'] ?? '');
    test.ok(
      Number(values('TimeoutStopSec')[0]) * 1000 > 3 * drainMs,
      'running downloads have the time they were promised',
    );
  }
});

await t.test(
  'the recipe of a container: what it copies is there, and its commands do their work without one',
  async (test) => {
    const instructions = readFileSync('examples/container/Containerfile', 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => ({ word: line.split(' ')[0], rest: line.slice(line.indexOf(' ') + 1) }));
    const all = (word: string): string[] => instructions.filter((each) => each.word === word).map(({ rest }) => rest);
    test.strictSame(
      all('RUN')
        .map((text) => JSON.parse(text) as string[])
        .filter(([program, verb = '', script = '']) =>
          verb === 'run' ? !(script in manifest.scripts) : !['npm', 'install'].includes(program ?? ''),
        ),
      [],
    );
    const root = test.testdir({});
    for (const copy of all('COPY')) {
      const [target = '', ...from] = copy
        .split(' ')
        .filter((word) => !word.startsWith('--'))
        .toReversed();
      for (const path of from) {
        const source = path.replace(/^\/src\//, '');
        if (path === '/state') mkdirSync(join(root, 'state'));
        else test.ok(existsSync(source), source);
        if (!path.startsWith('/src/')) continue;
        // Under WORKDIR, as the last stage has it; the packages are more than they would be there.
        const place = join(root, target === './' ? source : target);
        if (source === 'node_modules') symlinkSync(join(process.cwd(), source), place);
        else cpSync(source, place, { recursive: true });
      }
    }
    test.ok(Number(/^\d+/.exec(all('USER').at(-1) ?? '')?.[0]) > 0, 'not root');
    const environment = Object.fromEntries(
      all('ENV')
        .join(' ')
        .split(' ')
        .map((pair) => pair.split('=')),
    );
    test.strictSame(all('VOLUME'), [environment['STATE_DIRECTORY']]);
    const health = (JSON.parse(/CMD (.*)$/.exec(all('HEALTHCHECK')[0] ?? '')?.[1] ?? '') as string[]).slice(1);
    const [, main = ''] = JSON.parse(all('ENTRYPOINT')[0] ?? '') as string[];
    const program = new Program(
      test,
      process.execPath,
      [join(root, main), 'reverse', '--origin', 'http://127.0.0.1:9', '--listen', '127.0.0.1:0'],
      { ...environment, STATE_DIRECTORY: join(root, 'state'), PEERDIST_ADMIN: '127.0.0.1:0' },
    );
    const admin = await adminOf(program);
    const { port } = new URL(admin);
    const [, adminPort = ''] = /:(\d+)$/.exec(environment['PEERDIST_ADMIN'] ?? '') ?? [];
    const check = health.map((part) => part.replace(`:${adminPort}/`, `:${port}/`));
    test.not(check.join(), health.join(), 'it asks the port that the roles have');
    test.equal((await new Program(test, process.execPath, check).finished).code, 0, 'healthy');
    program.child.kill('SIGTERM');
    test.equal((await program.finished).code, 0);
    test.equal((await new Program(test, process.execPath, check).finished).code, 1, 'not healthy');
    const help = await new Program(test, process.execPath, [
      join(root, main),
      ...(JSON.parse(all('CMD')[0] ?? '') as string[]),
    ]).finished;
    test.equal(help.code, 0);
  },
);

/** Where the admin listener of a role is, once it is there. */
async function adminOf(program: Program): Promise<string> {
  const url = (): string | undefined => /listening on (\S+) \(admin\)/.exec(program.stdout)?.[1];
  await until(() => url() !== undefined || program.child.exitCode !== null, 'the role listens', 40_000);
  return url() ?? '';
}

/** Sum of the files of a package, without the packages within it. */
function bytesOf(folder: string): number {
  return readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => name !== 'node_modules')
    .reduce((sum, entry) => {
      const path = join(folder, entry.name);
      return sum + (entry.isDirectory() ? bytesOf(path) : statSync(path).size);
    }, 0);
}
