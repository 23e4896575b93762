/** How roles are configured: by flags, by the environment and by a file, and what is said when one of them is wrong. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { isPeerDistError } from '../../lib/errors.ts';
import { readConfigFile } from '../../plugins/standalone/config/config-file.ts';
import { hostedRole } from '../../plugins/standalone/commands/hosted-command.ts';
import { branchRole } from '../../plugins/standalone/commands/branch-command.ts';
import { reverseRole } from '../../plugins/standalone/commands/reverse-command.ts';
import { type Finished, inTime, peerdist, Program, COMMAND, until } from '../support/proxies.ts';
import { hasControls } from '../support/net.ts';
import { runInside } from '../support/spoken.ts';

for (const name of Object.keys(process.env)) if (name.startsWith('PEERDIST_')) delete process.env[name];
const directory = t.testdir({});
const path = (name: string): string => join(directory, name);
let files = 0;

/** A file with this in it. */
function file(text: string | Uint8Array, extension = 'yaml'): string {
  const name = path(`config-${(files += 1)}.${extension}`);
  writeFileSync(name, text);
  return name;
}

/** What applies, by key: the value as it is printed, and where it comes from. */
async function effective(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<Map<string, { readonly value: string; readonly source: string }>> {
  const { code, stdout, stderr } = await runInside([...args, '--print-config'], { environment });
  if (code !== 0) throw new Error(stderr);
  const lines = stdout.split('\n').map((line) => /^ {2}([a-z0-9-]+): (.*) {2}# (\w+)$/.exec(line));
  return new Map(
    lines.filter((line) => line !== null).map(([, key, value, source]) => [key as string, { value, source } as never]),
  );
}

/** Exit 2 and one line, which matches. */
function isRefused(test: Test, { code, stdout, stderr }: Finished, expected: RegExp | string, what: string): void {
  test.equal(code, 2, what);
  test.equal(stdout, '', what);
  test.match(stderr, /^peerdist: [^\n]+\n$/, `${what}: one line`);
  test.match(stderr, expected, what);
  test.notOk(hasControls(stderr, '\n') || /[\x80-\x9f]/.test(stderr), `${what}: nothing that a terminal would obey`);
  test.notMatch(stderr, /\n {4}at |node:internal|Error:/, `${what}: no stack trace`);
}

// --- Flags, environment, file, defaults ------------------------------------------------------------------------------------------------

await t.test('flags go before the environment, that before the file, that before defaults', async (test) => {
  const cases = [
    { key: 'memory', standard: '256MiB', inFile: '1GB', variable: '2GB', flags: ['--memory', '3GB'], flag: '3GB' },
    {
      key: 'allow-client',
      standard: undefined,
      inFile: ['10.0.0.0/8', '::1'],
      shown: '[10.0.0.0/8, ::1]',
      variable: '10.1.0.0/16, 10.2.0.0/16',
      shownVariable: '[10.1.0.0/16, 10.2.0.0/16]',
      flags: ['--allow-client', '10.3.0.1', '--allow-client', '10.4.0.1'],
      flag: '[10.3.0.1, 10.4.0.1]',
    },
    // A variable that says no takes back what the file has switched on.
    {
      key: 'forwarded',
      standard: undefined,
      inFile: true,
      variable: 'off',
      shownVariable: undefined,
      flags: ['--forwarded'],
      flag: 'true',
    },
    {
      key: 'access-log',
      standard: 'true',
      inFile: false,
      variable: 'yes',
      shownVariable: 'true',
      flags: ['--no-access-log'],
      flag: 'false',
    },
    {
      key: 'admin',
      standard: '127.0.0.1:9181',
      inFile: false,
      variable: '127.0.0.1:1',
      flags: ['--no-admin'],
      flag: 'false',
    },
    {
      key: 'listen',
      standard: '127.0.0.1:3128',
      inFile: '0.0.0.0:1234',
      variable: '[::1]:8080',
      shownVariable: '"[::1]:8080"',
      flags: ['--listen', ':80'],
      flag: ':80',
    },
    { key: 'idle-timeout', standard: '120s', inFile: 7, variable: '2m', flags: ['--idle-timeout', '3h'], flag: '3h' },
    {
      key: 'log-level',
      standard: 'info',
      inFile: 'warn',
      variable: 'error',
      flags: ['--log-level=debug'],
      flag: 'debug',
    },
  ];
  for (const { key, standard, inFile, variable, flags, flag, ...shown } of cases) {
    const variables = { [`PEERDIST_${key.replaceAll('-', '_').toUpperCase()}`]: variable };
    const found = async (args: readonly string[], environment = {}): Promise<unknown> => {
      const entry = (await effective(['branch', ...args], environment)).get(key);
      return entry && [entry.value, entry.source];
    };
    const fromVariable = 'shownVariable' in shown ? shown.shownVariable : variable;
    const inEnvironment = fromVariable && [fromVariable, 'environment'];
    test.same(await found([]), standard && [standard, 'default'], `${key}: default`);
    for (const extension of ['yaml', 'json']) {
      const text = JSON.stringify({ branch: { [key]: inFile } });
      const config = file(extension === 'json' ? text : text.replaceAll('"', ''), extension);
      if (extension === 'yaml') writeFileSync(config, `branch:\n  ${key}: ${JSON.stringify(inFile)}\n`);
      const fromFile = [shown.shown ?? String(inFile), 'file'];
      test.same(await found(['--config', config]), fromFile, `${key}: file`);
      test.same(await found([], { PEERDIST_CONFIG: config }), fromFile, `${key}: a file that the environment names`);
      test.same(await found(['--config', config], variables), inEnvironment, `${key}: environment`);
      test.same(await found(['--config', config, ...flags], variables), [flag, 'flag'], `${key}: flag`);
    }
    test.same(await found([], variables), inEnvironment, `${key}: environment without a file`);
  }
  const empty = await effective(['branch'], { PEERDIST_MEMORY: '', PEERDIST_CONFIG: '' });
  test.equal(empty.get('memory')?.source, 'default', 'an empty variable says nothing');
});

await t.test('a variable that is wrong is named; one that nobody knows is told of once, at the start', async (test) => {
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['PEERDIST_MEMORY', 'much', /^peerdist: PEERDIST_MEMORY: expected a size like 64KiB or 2GB, not much\n$/],
    ['PEERDIST_LISTEN', 'here\u009b2J', /PEERDIST_LISTEN: expected an address like 127.0.0.1:8080, not here\?2J/],
    ['PEERDIST_FORWARDED', 'maybe', /PEERDIST_FORWARDED: expected true or false, not maybe/],
    ['PEERDIST_ACCESS_LOG', '2', /PEERDIST_ACCESS_LOG: expected true or false, not 2/],
    ['PEERDIST_ALLOW_CLIENT', '10.0.0.0/8,,', /PEERDIST_ALLOW_CLIENT: expected a network/],
    ['PEERDIST_WORKERS', '1e9', /PEERDIST_WORKERS: expected a whole number from 1 to 256, not 1e9/],
    [
      'PEERDIST_STORE',
      'redsi://u:geheim@h',
      /PEERDIST_STORE: expected memory, disk, or a URL.*redsi:\/\/u:\*\*\*@h\n$/,
    ],
    ['PEERDIST_CONFIG', path('nowhere'), /nowhere: cannot be read: ENOENT/],
  ];
  for (const [name, value, expected] of cases)
    isRefused(test, await runInside(['branch'], { environment: { [name]: value } }), expected, name);

  const mistyped = { PEERDIST_LOG_LEVLE: 'warn', PEERDIST_XYZZYXYZZY: '1', PEERDIST_URL: 'is an option of publish' };
  const program = new Program(
    test,
    process.execPath,
    [COMMAND, 'branch', '--listen', '127.0.0.1:0', '--no-admin', '--no-peers', '--workers', '2'],
    { ...mistyped, PEERDIST_SECRET: 'is an option of reverse' },
  );
  await until(() => program.lines.length > 0, 'the branch listens', 40_000);
  program.child.kill('SIGTERM');
  const { code, stderr } = await inTime(program.finished, 'its end', 15_000);
  test.equal(code, 0);
  test.same(
    stderr.split('\n').filter((line) => line.includes('PEERDIST_')),
    [
      'peerdist: PEERDIST_LOG_LEVLE is no option; did you mean PEERDIST_LOG_LEVEL?',
      'peerdist: PEERDIST_XYZZYXYZZY is no option',
    ],
    'by the one that leads, and not by its workers',
  );
});

// --- What applies, as a file -----------------------------------------------------------------------------------------------------------

const withoutSources = (text: string): string => text.replace(/ {2}# (?:flag|environment|file|default)$/gm, '');

await t.test('--print-config prints a file that means the same, and shows no secret', async (test) => {
  const hard = [
    'true',
    '~',
    'null',
    '1.10',
    '007',
    '0x1F',
    '1e3',
    'a: b',
    '- x',
    '# x',
    'it\'s "so"',
    '\u009b2J\u2028\u0085',
    '*a',
    ' ',
    'a:',
  ];
  const commands: readonly (readonly string[])[] = [
    [
      'reverse',
      '--origin',
      'https://origin:8443',
      '--max-size',
      'none',
      '--hash-threads',
      '0',
      '--workers',
      '02',
      '--admin',
      '08080',
    ],
    [
      'branch',
      '--no-peers',
      '--no-admin',
      '--no-access-log',
      '--peer',
      '10.0.0.7',
      '--peer',
      '[::1]:80',
      '--total-timeout',
      '1.50',
    ],
    [
      'branch',
      '--discovery',
      '--hosted-cache',
      'cache',
      '--connect-port',
      '443',
      '--connect-port',
      '8443',
      '--store',
      'memory',
    ],
    ['hosted', '--no-offer-listen', '--preload', 'http://a/b?c=d&e#f', '--client-quota', '1.5 GiB', '--proxy', '3128'],
    ...hard.map((text) => [
      'branch',
      `--site=${text}`,
      `--discovery-interface=${text}`,
      `--discovery-interface=${text}2`,
    ]),
  ];
  const roundTrip = async (args: readonly string[]): Promise<void> => {
    const [role = '', ...options] = args;
    const first = await runInside([role, ...options, '--print-config']);
    if (first.code !== 0) throw new Error(first.stderr);
    const saved = file(first.stdout);
    const [checked, second] = [
      await runInside(['check-config', saved]),
      await runInside([role, '--config', saved, '--print-config']),
    ];
    if (checked.code !== 0) throw new Error(checked.stderr);
    test.same([checked.code, checked.stdout], [0, `${saved}: all right for ${role}\n`], role);
    if (withoutSources(first.stdout) !== withoutSources(second.stdout))
      test.same(withoutSources(second.stdout), withoutSources(first.stdout), role);
    test.notMatch(second.stdout, /# (?:flag|environment|default)/, 'all of it is in the file');
  };
  for (const args of commands) await roundTrip(args);
  await fc.assert(
    fc.asyncProperty(fc.string({ minLength: 1, unit: 'binary' }), async (site) =>
      roundTrip(['branch', `--site=${site}`]),
    ),
    { numRuns: 40 },
  );

  const state = path('of nobody');
  const { stdout } = await runInside(
    'reverse --origin http://o --secret geheim-1 --store redis://user:geheim-2@/ge:heim-2@host:6379/0 --print-config'
      .split(' ')
      .concat('--state-dir', state),
    { environment: { PEERDIST_SECRET_HEX: 'aabbccdd' } },
  );
  test.notMatch(stdout, /geheim-1|geheim-2|heim-2|aabbccdd/);
  test.match(stdout, '# secret: not shown  (flag)');
  test.match(stdout, '# secret-hex: not shown  (environment)');
  test.match(stdout, 'store: "redis://user:***@host:6379/0"');
  test.match(stdout, `state-dir: "${state}"  # flag`);
  test.throws(() => readFileSync(state), { code: 'ENOENT' }, 'and nothing is made');
});

// --- What is wrong with a file ---------------------------------------------------------------------------------------------------------

await t.test('each mistake in a file is one line with file, line and key', async (test) => {
  const lines = (count: number, line: (index: number) => string): string =>
    Array.from({ length: count }, (_, i) => line(i)).join('\n');
  const bomb = `a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n${lines(12, (i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(10)}]`)}\n`;
  mkdirSync(path('directory'));
  const cases: readonly (readonly [what: string, text: string, expected: RegExp])[] = [
    ['syntax', 'branch:\n  memory: [1GB\n', /:\d+: /],
    ['broken JSON', '{"branch": {"memory": "1GB",, }}', /:1: /],
    ['tabs', 'branch:\n\tmemory: 1GB\n', /:2: Tabs/],
    ['duplicate key', 'branch:\n  memory: 1GB\n  memory: 2GB\n', /:3: Map keys must be unique/],
    ['duplicate section', 'branch: {memory: 1GB}\nbranch: {memory: 1GB}\n', /:2: Map keys must be unique/],
    ['two documents', 'branch: {}\n---\nbranch: {}\n', /:\d: /],
    ['unknown key', 'branch:\n  # here\n  memroy: 1GB\n', /:3: branch\.memroy: no such key; did you mean memory\?\n$/],
    ['a key of another role', 'branch:\n  hash-threads: 1\n', /:2: branch\.hash-threads: no such key/],
    [
      'flag in place of its key',
      'branch:\n  no-access-log: true\n',
      /:2: branch\.no-access-log: write access-log: false/,
    ],
    ['what is about the command line', 'branch:\n  config: x\n', /:2: branch\.config: no such key/],
    ['__proto__', '{"branch": {"__proto__": {"memory": 1}}}', /:1: branch\.__proto__: no such key/],
    ['unknown section', 'branhc:\n  memory: 1GB\n', /:1: branhc: no such section; did you mean branch\?/],
    [
      'nothing like a section',
      'zzzzzzzzzzzz: 1\n',
      /:1: zzzzzzzzzzzz: no such section; there are reverse, branch, hosted/,
    ],
    ['a section that is none', 'branch: 7\n', /:1: branch: expected keys with values/],
    ['an empty section', 'branch:\n', /:1: branch: expected keys with values/],
    ['a list', '- branch\n', /:1: the file: expected keys with values/],
    ['text', 'branch', /:1: the file: expected keys with values/],
    [
      'wrong type',
      'branch:\n  memory: [1GB]\n',
      /:2: branch\.memory: expected a size like 64KiB or 2GB, not \["1GB"\]/,
    ],
    [
      'a map',
      'branch:\n  listen:\n    host: x\n',
      /:2: branch\.listen: expected an address like 127\.0\.0\.1:8080, not /,
    ],
    [
      'text for a switch',
      'branch:\n  forwarded: "true"\n',
      /:2: branch\.forwarded: expected true or false, not "true"/,
    ],
    [
      'text for a number',
      'branch:\n  workers: two\n',
      /:2: branch\.workers: expected a whole number from 1 to 256, not "two"/,
    ],
    ['null', 'branch:\n  site:\n', /:2: branch\.site: expected text, not null/],
    [
      'not in the list',
      'branch:\n  log-level: loud\n',
      /:2: branch\.log-level: expected one of debug, info.* not "loud"/,
    ],
    [
      'out of range',
      'branch:\n  connect-port: [443, 65536]\n',
      /:2: branch\.connect-port: expected a whole number from 1 to 65535/,
    ],
    ['no port', 'branch:\n  listen: 127.0.0.1:70000\n', /:2: branch\.listen: expected an address like/],
    ['no size', 'branch:\n  memory: 5XB\n', /:2: branch\.memory: expected a size like/],
    [
      'no network',
      'branch:\n  memory: 1GB\n  allow-client: [10.0.0.0/99]\n',
      /:3: branch\.allow-client: expected a network/,
    ],
    // Nobody, somebody might think; everybody, it would be.
    [
      'an empty list',
      'branch:\n  allow-client: []\n',
      /:2: branch\.allow-client: expected a network.*, or a list of such, not \[\]/,
    ],
    [
      'contradiction',
      'branch:\n  store: memory\n  workers: 2\n',
      /:3: branch\.workers: --workers: several need a store/,
    ],
    [
      'contradiction of a role',
      'reverse:\n  origin: http://o\n  max-size: 1\n',
      /:3: reverse\.max-size: --min-size is larger/,
    ],
    [
      'a file that is not there',
      'branch:\n  site: x\n  tls-cert: /no/cert\n  tls-key: /no/key\n',
      /:3: branch\.tls-cert: .*ENOENT/,
    ],
    ['one of two', 'branch:\n  tls-key: x\n', /:2: branch\.tls-key: --tls-cert and --tls-key belong together/],
    ['a secret in the wrong form', 'reverse:\n  secret: [geheim]\n', /:2: reverse\.secret: expected text\n$/],
    ['a pass word', 'branch:\n  store: [redis://u:geheim@h]\n', /:2: branch\.store: expected memory.*u:\*\*\*@h/],
    ['alias bomb', bomb, /: Excessive alias count/],
    ['an alias of nothing', 'branch: *\u001b[31m\n', /:\d+: /],
    ['brackets', '['.repeat(60_000), /:1: /],
    ['too large', `branch:\n  site: x\n${'#'.repeat(2_000_000)}`, /: larger than any configuration file/],
    ['controls in a key', 'branch:\n  "mem\\e[31m\\u009b\\nory": 1\n', /:2: branch\.mem\?\[31m\?\?ory: no such key/],
    ['controls in a value', 'branch:\n  memory: "\\e]0;x\\a\\r\\n\\u009b"\n', /:2: branch\.memory: expected a size/],
    ['controls in a section', '"\\ebranch\\n": 1\n', /:1: \?branch\?: no such section; did you mean branch/],
    ['raw controls', 'branch:\n  site: \u001b\u0007 : \u009b: {\n', /:\d+: /],
    ['a key that is a list', '? [branch]\n: x\n', /:1: .*: no such section/],
    ['a tag', 'branch: !!js/function "x"\n', /:1: branch: expected keys with values/],
    ['nothing but zeros', '\0'.repeat(100), /:1: /],
  ];
  for (const [what, text, expected] of cases) {
    const config = file(text);
    const checked = await runInside(['check-config', config]);
    isRefused(test, checked, expected, what);
    test.ok(checked.stderr.startsWith(`peerdist: ${config}:`), `${what}: the file`);
    test.notMatch(checked.stderr, 'geheim', what);
    const role = text.startsWith('reverse') ? 'reverse' : 'branch';
    const run = await runInside([role, '--config', config]);
    test.same([run.code, run.stderr], [2, checked.stderr], `${what}: a role says the same`);
  }
  for (const [config, expected] of [
    [path('nowhere'), /nowhere: cannot be read: ENOENT/],
    [path('directory'), /directory: cannot be read: EISDIR/],
  ] as const)
    for (const args of [
      ['check-config', config],
      ['hosted', '--config', config],
    ])
      isRefused(test, await runInside(args), expected, args.join(' '));
  isRefused(test, await runInside(['check-config'], { environment: {} }), /needs a FILE/, 'no file');

  // The real program, where others could speak too.
  for (const text of ['? [branch]\n: x\n', bomb, 'branch: !x {}\n']) {
    const { code, stderr } = await peerdist(test, ['check-config', file(text)]);
    test.ok(code === 2 || code === 0);
    test.equal(stderr.split('\n').length, code === 2 ? 2 : 1, stderr);
  }
  for (const [text, sections] of [
    ['', 'empty'],
    ['# nothing\n', 'empty'],
    ['\ufeffbranch: {site: x}\nhosted: {no-such: 1}\n', undefined],
    ['\ufeffbranch: {site: x}\r\nhosted: {memory: 1GB}\r\n', 'all right for branch, hosted'],
    ['branch: &a {site: x}\nhosted: *a\n', 'all right for branch, hosted'],
  ] as const) {
    const config = file(text);
    const { code, stdout } = await runInside(['check-config', config]);
    test.same([code, stdout], sections === undefined ? [2, ''] : [0, `${config}: ${sections}\n`], text);
  }
});

const COMMANDS = [reverseRole, branchRole, hostedRole].map(({ define }) => define());

await t.test('no text makes reading a file fail in any other way', async (test) => {
  const config = file('');
  const reads = (text: string): boolean => {
    writeFileSync(config, text);
    try {
      const read = readConfigFile(config, COMMANDS);
      for (const name of read.sections)
        for (const key of read.section(name).values.keys()) if (key === '') return false;
    } catch (error) {
      if (!isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) throw error;
      return error.message.startsWith(config) && !hasControls(error.message);
    }
    return true;
  };
  const words = [
    'reverse branch hosted memory site admin allow-client __proto__ toString << ~1 / : - ? [ ] { } , &a *a !!set !!binary !t | > "'.split(
      ' ',
    ),
    "' # --- ... 1e999 .nan 2001-01-01 true null".split(' '),
    [': ', '\n', '\n  ', '- ', '? ', ' ', '\t', '%YAML 1.1\n---\n', '\u001b', '\u0085', '\0', '\ud800'],
  ].flat();
  const word = fc.constantFrom(...words);
  const key = fc.oneof(fc.constantFrom('reverse', 'branch', 'site', 'memory', '__proto__', 'constructor'), fc.string());
  const value = fc.letrec((tie) => ({
    any: fc.oneof({ maxDepth: 4 }, fc.jsonValue(), fc.dictionary(key, tie('any')), fc.array(tie('any'))),
  })).any;
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.array(fc.oneof(word, fc.string({ maxLength: 4 })), { maxLength: 60 }).map((words) => words.join('')),
    value.map((any) => JSON.stringify(any)),
    fc
      .dictionary(fc.constantFrom('reverse', 'branch', 'hosted'), fc.dictionary(key, value))
      .map((any) => JSON.stringify(any)),
  );
  fc.assert(fc.property(text, reads), { numRuns: 150 });
  test.end();
});

// --- The schema ------------------------------------------------------------------------------------------------------------------------

await t.test('the schema in the package is the one that applies, and knows every option', async (test) => {
  const kept: unknown = JSON.parse(readFileSync('plugins/standalone/config/peerdist.schema.json', 'utf8'));
  const { code, stdout } = await runInside(['check-config', '--schema']);
  test.equal(code, 0);
  test.same(kept, JSON.parse(stdout), 'node dist/plugins/standalone/main.js check-config --schema makes it');
  const ajv = new Ajv({ strict: true, allowUnionTypes: true });
  test.equal(ajv.validateSchema(kept as object), true, ajv.errorsText());
  test.match(kept, { $schema: 'http://json-schema.org/draft-07/schema#' });
  const isRight = new Ajv({ strict: false }).compile(kept as object);
  const { properties } = kept as {
    properties: Record<string, { properties: Record<string, { description: string }> }>;
  };
  for (const role of ['reverse', 'branch', 'hosted']) {
    const { stdout: help } = await runInside([role, '--help']);
    const options = [...help.matchAll(/^ {2}(?:-\w, )?--(?:no-)?([a-z0-9-]+)/gm)].map(([, name]) => name as string);
    const expected = new Set(options.filter((name) => !['help', 'config', 'print-config'].includes(name)));
    test.ok(expected.size > 15);
    test.same(Object.keys(properties[role]?.properties ?? {}).toSorted(), [...expected].toSorted(), role);
    for (const [name, { description }] of Object.entries(properties[role]?.properties ?? {}))
      test.ok(description.length > 5, `${role}.${name}: is described`);
  }
  const right = {
    branch: { memory: 1024, 'idle-timeout': 2.5, listen: 80, 'allow-client': '10.0.0.0/8', admin: false },
  };
  test.ok(isRight(right));
  for (const wrong of [
    { branch: { memory: '5 apples' } },
    { branch: { nope: 1 } },
    { nope: {} },
    { branch: { admin: true } },
  ])
    test.notOk(isRight(wrong), JSON.stringify(wrong));
  test.equal((await runInside(['check-config', file(JSON.stringify(right), 'json')])).code, 0);
});
