/** The server secret in a state directory: `peerdist secret` as an administrator meets it, and the processes that share the directory. */
import { type ChildProcess, fork } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import {
  existingSecret,
  keptSecret,
  type KeptSecret,
  MAX_PREVIOUS_SECRETS,
  replaceSecret,
  rotateSecret,
} from '../../plugins/standalone/kept/kept-secret.ts';
import { inTime, peerdist } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { runInside } from '../support/spoken.ts';

const isWindows = process.platform === 'win32';
const isRoot = process.getuid?.() === 0;
const CHANGE = /segment IDs change.*\n.*old one.*hashed again.*restart/;

const hex = (secret: ServerSecret): string => toHex(secret.reveal());
const all = ({ current, previous }: KeptSecret): string[] => [current, ...previous].map(hex);
const modeOf = (file: string): string => (statSync(file).mode & 0o777).toString(8);

function messageOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) return error.message;
    throw error;
  }
  return 'no error';
}

/** A place of its own for each test: a state directory that is not there yet, and a pass phrase. */
function place(test: Test): { path: (name: string) => string; state: string; passphrase: readonly string[] } {
  const directory = test.testdir({ phrase: 'correct horse\n' });
  const path = (name: string): string => join(directory, name);
  return { path, state: path('made/for/it'), passphrase: ['--passphrase-file', path('phrase')] };
}

await t.test('first use makes a secret that stays, for its owner only', (test) => {
  const { path, state } = place(test);
  const first = keptSecret(state);
  test.same([first.isNew, first.previous, first.current.reveal().byteLength], [true, [], 32]);
  const again = keptSecret(state);
  test.same([again.isNew, all(again)], [false, all(first)]);
  test.notSame(all(keptSecret(path('another'))), all(first), 'each directory has its own');
  test.same(readdirSync(state), ['server-secret'], 'and nothing is left besides');
  if (!isWindows) test.same([modeOf(state), modeOf(join(state, 'server-secret'))], ['700', '600']);
  test.end();
});

await t.test('export and import carry it to another machine', async (test) => {
  const { path, state, passphrase } = place(test);
  const other = path('other');
  const kept = keptSecret(state);
  const exported = await peerdist(test, ['secret', 'export', path('key'), ...passphrase, '--state-dir', state]);
  test.same([exported.code, exported.stderr], [0, '']);
  if (!isWindows) test.equal(modeOf(path('key')), '600');
  const imported = await peerdist(test, ['secret', 'import', path('key'), ...passphrase], { STATE_DIRECTORY: other });
  test.same([imported.code, imported.stderr], [0, ''], 'the state directory may come from the environment');
  test.ok(readFileSync(join(other, 'server-secret')).equals(readFileSync(join(state, 'server-secret'))));
  if (!isWindows) test.same([modeOf(other), modeOf(join(other, 'server-secret'))], ['700', '600']);
  test.same(all(keptSecret(other)), all(kept));

  const importAgain = ['secret', 'import', path('key'), ...passphrase, '--state-dir', other];
  test.match((await runInside(importAgain)).stdout, 'nothing has changed');
  test.same(all(keptSecret(other)), all(kept), 'a second time is no change');
  const { current } = rotateSecret(other);
  const back = await runInside(importAgain);
  test.match(back.stdout, CHANGE);
  test.same(all(keptSecret(other)), [hex(kept.current), hex(current)], 'an old one becomes current again, once');
  for (const { stdout } of [exported, imported, back])
    test.notMatch(stdout, new RegExp(`${hex(kept.current)}|horse`, 'i'), 'neither secret nor pass phrase is shown');
});

await t.test('a file made elsewhere, and the forms of a pass phrase file', async (test) => {
  const { path, state } = place(test);
  const secretKey = seededBytes(8, 45);
  const digest = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();
  const cipher = createCipheriv('aes-256-cbc', digest(Buffer.from(' zwei Wörter ', 'utf16le')), Buffer.alloc(16));
  writeFileSync(
    path('key'),
    Buffer.concat([cipher.update(digest(secretKey)), cipher.update(secretKey), cipher.final()]),
  );
  const args = ['secret', 'import', path('key'), '--state-dir', state, '--passphrase-file', path('phrase')];
  for (const text of [' zwei Wörter ', ' zwei Wörter \n', ' zwei Wörter \r\n', '\ufeff zwei Wörter \n']) {
    writeFileSync(path('phrase'), text);
    test.same((await runInside(args)).code, 0, JSON.stringify(text));
    test.same(all(keptSecret(state)), [toHex(secretKey)]);
    unlinkSync(join(state, 'server-secret'));
  }
  for (const text of ['zwei Wörter', ' zwei Wörter \n\n', ' zwei Wörter \r', '\n zwei Wörter ']) {
    writeFileSync(path('phrase'), text);
    const { code, stderr } = await runInside(args);
    test.same([code, stderr.split('\n').length], [2, 2], JSON.stringify(text));
    test.match(stderr, 'the pass phrase is wrong');
  }
  test.same(readdirSync(state), [], 'and nothing was kept');
});

await t.test('rotation keeps the previous ones, newest first', async (test) => {
  const { state } = place(test);
  const known = all(keptSecret(state));
  const { code, stdout, stderr } = await peerdist(test, ['secret', 'rotate', '--state-dir', state]);
  test.same([code, stderr], [0, '']);
  test.match(stdout, CHANGE);
  known.unshift(hex(keptSecret(state).current));
  test.same(all(keptSecret(state)), known);
  for (let round = 0; round < MAX_PREVIOUS_SECRETS; round += 1) {
    const rotated = rotateSecret(state);
    known.unshift(hex(rotated.current));
    test.same(all(rotated), known.slice(0, 1 + MAX_PREVIOUS_SECRETS));
    test.same(all(existingSecret(state)), all(rotated), 'as it is read');
  }
  test.equal(new Set(known).size, 2 + MAX_PREVIOUS_SECRETS);
  const imported = replaceSecret(state, ServerSecret.fromText('of another length'));
  test.same(all(imported).slice(1), known.slice(0, MAX_PREVIOUS_SECRETS), 'what is imported pushes out as well');
  const oldest = imported.previous.at(-1) as ServerSecret;
  test.equal(replaceSecret(state, oldest).previous.length, MAX_PREVIOUS_SECRETS, 'and what comes back does not');
  test.same(readdirSync(state), ['server-secret']);
  if (!isWindows) test.equal(modeOf(join(state, 'server-secret')), '600');
});

/** Processes that load the module, say so, and then all do the same at the same time. */
async function together(test: Test, script: string, count: number): Promise<unknown[]> {
  const children = Array.from({ length: count }, () =>
    fork(script, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }),
  );
  test.teardown(() => {
    for (const child of children) child.kill('SIGKILL');
  });
  const said = async (child: ChildProcess): Promise<unknown> => ((await once(child, 'message')) as [unknown])[0];
  await inTime(Promise.all(children.map(said)), 'processes start', 20_000);
  const answers = Promise.all(children.map(said));
  for (const child of children) child.send('go');
  return inTime(answers, 'processes answer', 20_000);
}

await t.test('processes that start at once have one secret, while others read whole files', async (test) => {
  const { path } = place(test);
  const directories = Array.from({ length: 25 }, (_, index) => path(`state-${index}`));
  const module = new URL('../../plugins/standalone/kept/kept-secret.js', import.meta.url);
  writeFileSync(
    path('first-use.mjs'),
    `import { keptSecret, rotateSecret } from ${JSON.stringify(module.href)};
    const hex = (secret) => Buffer.from(secret.reveal()).toString('hex');
    const first = (directory) => {
      const { current, isNew } = keptSecret(directory);
      return [hex(current), isNew];
    };
    process.once('message', () => {
      const made = ${JSON.stringify(directories)}.map(first);
      const [shared] = ${JSON.stringify(directories)};
      for (let round = 0; round < 15; round += 1) rotateSecret(shared);
      process.send(made, () => process.disconnect());
    });
    process.send('ready');`,
  );
  const results = (await together(test, path('first-use.mjs'), 4)) as [string, boolean][][];
  let races = 0;
  for (const [index, directory] of directories.entries()) {
    const made = results.map((result) => result[index] as [string, boolean]);
    // The first directory is rotated by those who are through already.
    if (index > 0) {
      const secrets = new Set([...made.map(([secret]) => secret), hex(keptSecret(directory).current)]);
      if (secrets.size !== 1) test.fail(`${secrets.size} secrets in ${directory}`);
    }
    if (made.filter(([, isNew]) => isNew).length !== 1) test.fail(`not one that made it in ${directory}`);
    if (made[0]?.[1] !== true) races += 1;
    if (readdirSync(directory).length !== 1) test.fail(`something left in ${directory}`);
  }
  test.comment(`${races} of ${directories.length} not made by the first process`);
  test.equal(keptSecret(directories[0] as string).previous.length, MAX_PREVIOUS_SECRETS, 'rotations do not harm it');
});

await t.test('what others can get at is refused', { skip: isWindows && 'no modes on Windows' }, async (test) => {
  const { path, state, passphrase } = place(test);
  const kept = keptSecret(state);
  const file = join(state, 'server-secret');
  for (const mode of [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o777]) {
    chmodSync(file, mode);
    const message = `the server secret ${file} is open to others than its owner; chmod 600 it`;
    test.equal(
      messageOf(() => keptSecret(state)),
      message,
      mode.toString(8),
    );
    for (const args of [['export', path('key'), ...passphrase], ['rotate']]) {
      const { code, stdout, stderr } = await runInside(['secret', ...args, '--state-dir', state]);
      test.same([code, stdout, stderr], [2, '', `peerdist: ${message}\n`]);
    }
  }
  for (const mode of [0o600, 0o400, 0o700]) {
    chmodSync(file, mode);
    test.same(all(keptSecret(state)), all(kept), mode.toString(8));
  }
});

await t.test('a file that is none of ours is refused and left', (test) => {
  const { path, state } = place(test);
  const line = hex(keptSecret(state).current);
  const file = join(state, 'server-secret');
  const cases: [text: string, is: string][] = [
    ['', 'empty'],
    ['\n', 'damaged'],
    [line, 'damaged'],
    [`${line}\n${line.slice(0, 10)}`, 'damaged'],
    [`${line}\n\n${line}\n`, 'damaged'],
    [`${line.slice(1)}\n`, 'damaged'],
    [`${line.slice(2)}zz\n`, 'damaged'],
    ['\0'.repeat(65), 'damaged'],
  ];
  for (const [text, is] of cases) {
    writeFileSync(file, text);
    for (const act of [keptSecret, existingSecret, rotateSecret])
      test.equal(
        messageOf(() => act(state)),
        `the server secret ${file} is ${is}`,
        JSON.stringify(text),
      );
    test.equal(
      messageOf(() => replaceSecret(state, ServerSecret.fromText('x'))),
      `the server secret ${file} is ${is}`,
    );
    test.equal(readFileSync(file, 'latin1'), text);
  }
  writeFileSync(file, `${line}\n`);
  writeFileSync(`${file}.left-by-a-kill.part`, 'half');
  test.same(all(keptSecret(state)), [line], 'what a kill has left is not looked at');

  mkdirSync(path('as-directory/server-secret'), { recursive: true, mode: 0o700 });
  test.match(
    messageOf(() => keptSecret(path('as-directory'))),
    /^cannot read the server secret .*: E\w+; see --state-dir$/,
  );
  mkdirSync(path('dangling'));
  symlinkSync(path('nowhere'), path('dangling/server-secret'));
  test.match(
    messageOf(() => keptSecret(path('dangling'))),
    /no server secret/,
    'and no endless search',
  );
  test.match(
    messageOf(() => keptSecret(path('phrase'))),
    /^cannot \w+ the server secret .*: E\w+; see --state-dir$/,
  );
  test.end();
});

await t.test('what root writes for a service is the service’s', { skip: !isRoot && 'takes root' }, (test) => {
  const { state } = place(test);
  mkdirSync(state, { recursive: true, mode: 0o700 });
  chownSync(state, 4_321, 8_765);
  const owner = (): number[] => [statSync(join(state, 'server-secret'))].flatMap(({ uid, gid }) => [uid, gid]);
  keptSecret(state);
  test.same(owner(), [4_321, 8_765]);
  rotateSecret(state);
  test.same(owner(), [4_321, 8_765]);
  test.end();
});

await t.test('what is wrong: one clear line, exit 2, and nothing written', async (test) => {
  const { path, state, passphrase } = place(test);
  keptSecret(state);
  const before = readFileSync(join(state, 'server-secret'), 'utf8');
  const here = ['--state-dir', state];
  test.equal((await runInside(['secret', 'export', path('key'), ...passphrase, ...here])).code, 0);
  const key = readFileSync(path('key'));
  writeFileSync(path('wrong'), 'correct mouse\n');
  writeFileSync(path('empty'), '');
  writeFileSync(path('newline'), '\ufeff\r\n');
  writeFileSync(path('utf16'), Buffer.from('\ufeffcorrect horse\r\n', 'utf16le'));
  writeFileSync(path('cut'), key.subarray(0, 64));
  writeFileSync(path('garbage'), seededBytes(9, 4_096));
  writeFileSync(path('large'), Buffer.alloc(2 ** 20 + 1));
  mkdirSync(path('directory'));
  const phrase = (name: string): string[] => ['--passphrase-file', path(name)];
  const cases: [args: readonly string[], clue: string | RegExp][] = [
    [['export', path('key'), ...passphrase, ...here], `${path('key')} exists already`],
    [['export', path('nowhere/key'), ...passphrase, ...here], /cannot write .*nowhere.*ENOENT/],
    [['export', path('new'), ...here], 'secret export needs --passphrase-file'],
    [['export', path('new'), ...passphrase, '--state-dir', path('none')], `no server secret in ${path('none')} yet`],
    [['rotate', '--state-dir', path('none')], `no server secret in ${path('none')} yet`],
    [['import', path('key'), ...here], 'secret import needs --passphrase-file'],
    [['import', path('key'), ...phrase('wrong'), ...here], `${path('key')}: the pass phrase is wrong`],
    [
      ['import', path('key'), ...phrase('wrong'), '--state-dir', path('none')],
      `${path('key')}: the pass phrase is wrong`,
    ],
    [['import', path('cut'), ...passphrase, ...here], `${path('cut')}: the pass phrase is wrong`],
    [['import', path('garbage'), ...passphrase, ...here], `${path('garbage')}: the pass phrase is wrong`],
    [['import', path('empty'), ...passphrase, ...here], `${path('empty')}: the pass phrase is wrong`],
    [['import', path('large'), ...passphrase, ...here], `${path('large')} is too large`],
    [['import', '/dev/zero', ...passphrase, ...here], /\/dev\/zero is too large/],
    [['import', path('nowhere'), ...passphrase, ...here], /cannot read .*nowhere: ENOENT/],
    [['import', path('directory'), ...passphrase, ...here], /cannot read .*directory: EISDIR/],
    ...['export', 'import'].flatMap((name): [string[], string | RegExp][] => [
      [[name, path('new'), ...phrase('empty'), ...here], `--passphrase-file: ${path('empty')} is empty`],
      [[name, path('new'), ...phrase('newline'), ...here], `--passphrase-file: ${path('newline')} is empty`],
      [[name, path('new'), ...phrase('utf16'), ...here], `--passphrase-file: ${path('utf16')} is not UTF-8 text`],
      [[name, path('new'), ...phrase('large'), ...here], `--passphrase-file: ${path('large')} is too large`],
      [[name, path('new'), ...phrase('nowhere'), ...here], /--passphrase-file: cannot read .*nowhere: ENOENT/],
      [[name, ...passphrase, ...here], /file/],
    ]),
    [['frobnicate'], /frobnicate/],
    [['rotate', 'surplus', ...here], /argument/],
    [['export', path('new'), '--pasphrase-file', path('phrase')], /--pasphrase-file/],
  ];
  for (const [args, clue] of cases) {
    if (isWindows && args.includes('/dev/zero')) continue;
    const { code, stdout, stderr } = await runInside(['secret', ...args]);
    const what = args.join(' ').replaceAll(path('.'), '');
    test.same([code, stdout, stderr.split('\n').length], [2, '', 2], what);
    test.match(stderr, clue);
    test.notMatch(stderr, /horse|mouse/);
  }
  const spawned = await peerdist(test, ['secret', 'import', path('key'), ...phrase('wrong'), ...here]);
  test.same([spawned.code, spawned.stdout, spawned.stderr.split('\n').length], [2, '', 2], 'the real program too');
  test.equal(readFileSync(join(state, 'server-secret'), 'utf8'), before);
  test.ok(readFileSync(path('key')).equals(key), 'what was there is not written over');
  const names = readdirSync(path('.'));
  test.notOk(names.includes('none') || names.includes('new'), 'and nothing new is there');
});
