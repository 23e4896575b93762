/** The rules of `.oxlintrc.json` that hold the structure together, each tried on a file that breaks it. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import t, { type Test } from 'tap';

const PLUGIN = 'test/support/lint/close-handles.mjs';

/** What the linter says of one file at that place in the project, rule by rule. */
function lint(test: Test, path: string, source: string): string[] {
  // Outside of the project: what git ignores, the linter does not look at.
  const root = mkdtempSync(join(tmpdir(), 'peerdist-lint-'));
  test.teardown(() => rmSync(root, { recursive: true, force: true }));
  // What needs types needs the whole project; these rules do not.
  const config = { ...(JSON.parse(readFileSync('.oxlintrc.json', 'utf8')) as object), options: { typeAware: false } };
  for (const [name, content] of [
    ['package.json', '{"type":"module"}'],
    ['.oxlintrc.json', JSON.stringify(config)],
    [path, source],
  ] as const) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), content);
  }
  cpSync(PLUGIN, join(root, PLUGIN));
  const linter = resolve('node_modules/oxlint/dist/cli.js');
  try {
    execFileSync(process.execPath, [linter, '--format=json', path], {
      cwd: root,
      encoding: 'utf8',
      stdio: 'pipe',
    });
    return [];
  } catch (error) {
    const { diagnostics } = JSON.parse((error as { stdout: string }).stdout) as { diagnostics: { code: string }[] };
    return diagnostics.map(({ code }) => code);
  }
}

const CLOSE = 'peerdist(close-handles)';

t.test('a handle that is opened and never closed', async (test) => {
  const body = (line: string): string => `export async function probe(pd, tag, keep) {\n  keep(tag);\n  ${line}\n}\n`;
  const forgotten = [
    'const handle = await pd.client.openContent(tag); return handle.phase;',
    'const handle = await pd.client.openContent(tag); await handle.read();',
    "const reader = await pd.server.openContentInformation('id'); await reader.readAll();",
    "const publication = await pd.server.publish('id'); publication.write(tag);",
    'await pd.client.openContent(tag);',
  ];
  for (const line of forgotten) test.same(lint(test, 'lib/probe.js', body(line)), [CLOSE], line);
  const settled = [
    'await using handle = await pd.client.openContent(tag); await handle.read();',
    'const handle = await pd.client.openContent(tag); await handle.close();',
    'const handle = await pd.client.openContent(tag); return handle;',
    'const handle = await pd.client.openContent(tag); keep(handle);',
    "const publication = await pd.server.publish('id'); publication.destroy();",
    'return pd.client.openContent(tag);',
  ];
  for (const line of settled) test.same(lint(test, 'lib/probe.js', body(line)), [], line);
});

t.test('the plug-ins stand on the API', async (test) => {
  const RESTRICTED = 'eslint(no-restricted-imports)';
  const probe = (from: string, name = 'x'): string =>
    `import { ${name} } from '../../lib/${from}/index.ts';\nexport const y = ${name};\n`;
  for (const plugin of ['block-cache', 'content-server']) {
    const at = `plugins/${plugin}/probe.ts`;
    for (const room of ['services', 'streams', 'protocol/pccrc'])
      test.same(lint(test, at, probe(room)), [RESTRICTED], `${plugin} ${room}`);
    test.same(lint(test, at, probe('stores', 'MemoryBlockStore')), [RESTRICTED], `${plugin} stores`);
    test.same(lint(test, at, probe('peerdist', 'PeerDist')), [], `${plugin} peerdist`);
  }
});

t.test('imports never point up', async (test) => {
  const source = "import { PeerDist } from '../peerdist/index.ts';\nexport const y = PeerDist;\n";
  test.same(lint(test, 'lib/streams/probe.ts', source), ['eslint(no-restricted-imports)']);
});
