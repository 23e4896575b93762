/** README's tables against the code: options, errors, metrics; and the files the documents point to. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { ERROR_CODES } from '../lib/errors.ts';
import { METRICS } from '../plugins/metrics/index.ts';

/** The table rows under a heading of a document, first cell without its backticks. */
function rows(file: string, heading: string): string[][] {
  const text = readFileSync(file, 'utf8');
  const start = `\n${text}`.indexOf(`\n${heading}`);
  if (start < 0) throw new Error(`${file} has no heading ${heading}`);
  const level = /^#+/.exec(heading)?.[0] ?? '##';
  const rest = text.slice(start + heading.length);
  const next = rest.search(new RegExp(`^#{1,${level.length}} `, 'm'));
  return rest
    .slice(0, next < 0 ? undefined : next)
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim().replace(/^`|`$/g, '').replaceAll('\\|', '|')),
    );
}

function helpOptions(command: string): string[] {
  const help = execFileSync(process.execPath, ['dist/plugins/standalone/main.js', ...command.split(' '), '--help'], {
    encoding: 'utf8',
  });
  return [...help.matchAll(/^ {2}(-\S.*?)(?: {2,}|$)/gm)]
    .map((match) => match[1] as string)
    .filter((flag) => flag !== '-h, --help');
}

t.test('every option of the command has its row', (t) => {
  const table = (heading: string): string[] =>
    rows('plugins/standalone/README.md', heading).map((row) => row[0] as string);
  const both = table('### Proxies');
  const secret = table('### The server secret');
  const stores = [...table('### Stores and workers'), ...table('### Running')];
  t.strictSame(
    [...table('### `peerdist reverse`'), ...both, ...stores, ...secret].toSorted(),
    helpOptions('reverse').toSorted(),
  );
  const discovery = table('### Discovery');
  const peers = [...table('### Asking peers'), ...discovery];
  t.strictSame(
    [...table('### `peerdist branch`'), ...both, ...stores, ...peers].toSorted(),
    helpOptions('branch').toSorted(),
  );
  t.strictSame(
    [...table('### `peerdist head`'), ...both, ...stores, ...secret].toSorted(),
    helpOptions('head').toSorted(),
  );
  t.strictSame([...table('### `peerdist hosted`'), ...stores].toSorted(), helpOptions('hosted').toSorted());
  t.strictSame(table('### `peerdist secret`').toSorted(), helpOptions('secret export').toSorted());
  t.strictSame(table('### `peerdist ca`').toSorted(), helpOptions('ca create').toSorted());
  t.strictSame(table('### `peerdist cache`').toSorted(), helpOptions('cache purge').toSorted());
  t.strictSame(table('### `peerdist export').toSorted(), helpOptions('export').toSorted());
  t.strictSame([...table('### `peerdist probe'), ...discovery].toSorted(), helpOptions('probe').toSorted());
  t.strictSame([...table('### `peerdist get'), ...peers].toSorted(), helpOptions('get').toSorted());
  for (const command of ['preheat', 'verify', 'stats', 'check-config', 'load', 'estimate', 'demo'])
    t.strictSame(table(`### \`peerdist ${command}`).toSorted(), helpOptions(command).toSorted(), command);
  t.strictSame([...table('### `peerdist publish'), ...secret].toSorted(), helpOptions('publish').toSorted());
  t.strictSame([...table('### `peerdist hash'), ...secret].toSorted(), helpOptions('hash').toSorted());
  t.end();
});

t.test('every error code has its row', (t) => {
  t.strictSame(
    rows('README.md', '## Errors'),
    Object.entries(ERROR_CODES).map(([code, { win32, meaning }]) => [code, win32 === 0 ? '–' : String(win32), meaning]),
  );
  t.end();
});

t.test('every metric has its row', (t) => {
  t.strictSame(
    rows('plugins/metrics/README.md', '# Metrics').map(([name, , meaning]) => [name, meaning]),
    Object.entries(METRICS),
  );
  t.end();
});

function pagesIn(directory: string): string[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => name.endsWith('.md')).map((name) => join(directory, name));
}

t.test('links between documents lead somewhere', (t) => {
  for (const file of [
    'README.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'bench/README.md',
    ...pagesIn('lib'),
    ...pagesIn('plugins'),
    ...pagesIn('examples'),
  ]) {
    for (const [, target] of readFileSync(file, 'utf8').matchAll(/\]\(([^)#]+)\)/g)) {
      if (target === undefined || /^https?:/.test(target)) continue;
      t.ok(existsSync(join(dirname(file), target)), `${file} → ${target}`);
    }
  }
  t.end();
});
