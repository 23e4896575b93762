/** README.md of lib/peerdist against the code: each Windows function has its row, each member named is there, each member there is named. */
import { EventEmitter } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { Transform, Writable } from 'node:stream';
import t from 'tap';
import ts from 'typescript';
import { ERROR_CODES } from '../../lib/errors.ts';
import * as surface from '../../lib/peerdist/index.ts';

const README = 'lib/peerdist/README.md';
const readme = readFileSync(README, 'utf8');

/** The functions of peerdist.h, in the order of the documentation: common, client, server. */
const WIN32 = [
  'PeerDistStartup',
  'PeerDistShutdown',
  'PeerDistGetStatus',
  'PeerDistGetStatusEx',
  'PeerDistGetOverlappedResult',
  'PeerDistRegisterForStatusChangeNotification',
  'PeerDistRegisterForStatusChangeNotificationEx',
  'PeerDistUnregisterForStatusChangeNotification',
  'PeerDistClientOpenContent',
  'PeerDistClientCloseContent',
  'PeerDistClientGetInformationByHandle',
  'PeerDistClientAddContentInformation',
  'PeerDistClientCompleteContentInformation',
  'PeerDistClientAddData',
  'PeerDistClientBlockRead',
  'PeerDistClientStreamRead',
  'PeerDistClientFlushContent',
  'PeerDistClientCancelAsyncOperation',
  'PeerDistServerPublishStream',
  'PeerDistServerPublishAddToStream',
  'PeerDistServerPublishCompleteStream',
  'PeerDistServerCloseStreamHandle',
  'PeerDistServerUnpublish',
  'PeerDistServerOpenContentInformation',
  'PeerDistServerOpenContentInformationEx',
  'PeerDistServerRetrieveContentInformation',
  'PeerDistServerCloseContentInformation',
  'PeerDistServerCancelAsyncOperation',
];

const STRUCTURES = [
  'PEERDIST_CONTENT_TAG',
  'PEERDIST_PUBLICATION_OPTIONS',
  'PEERDIST_RETRIEVAL_OPTIONS',
  'PEERDIST_STATUS_INFO',
  'PEERDIST_CLIENT_BASIC_INFO',
  'PEERDIST_STATUS (enumeration)',
  'PEERDIST_CLIENT_INFO_BY_HANDLE_CLASS (enumeration)',
];

/** Interfaces of options, with one they certainly have. */
const OPTIONS = [
  ['PeerDistOptions', 'minimumVersion'],
  ['PublishOptions', 'durable'],
  ['OpenContentInformationOptions', 'versions'],
  ['ReadOptions', 'timeoutMs'],
  ['ContentReadStreamOptions', 'onMissing'],
] as const;

/** What parts of the library tell each other; public only because they live in different files. */
const INTERNAL = [
  'pd.server.withdrawAll',
  'publication.abandon',
  'publication.cancel',
  'reader.cancel',
  'through.abandon',
];

/** Cells of the TypeScript column that are no member: syntax, and options that every operation takes. */
const SYNTAX = new Set(['await operation', '{ signal }']);

// --- What README says ----------------------------------------------------------------------------------------------------------------

/** The text under a heading, down to the next one of its level or above. */
function section(heading: string): string {
  const start = readme.indexOf(`\n${heading}\n`);
  if (start < 0) throw new Error(`${README} has no heading ${heading}`);
  const level = heading.indexOf(' ');
  const rest = readme.slice(start + heading.length + 2);
  const end = rest.search(new RegExp(`^#{1,${level}} `, 'm'));
  return rest.slice(0, end < 0 ? undefined : end);
}

function withoutExamples(text: string): string {
  return text.replaceAll(/^```ts$[\s\S]*?^```$/gm, '');
}

function rows(text: string): string[][] {
  return withoutExamples(text)
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )
    .filter(([first]) => first !== '---');
}

function codeSpans(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, code]) => code as string);
}

/** `receiver.member` for each member a code span names; symbols by their well-known name. */
function membersIn(span: string): string[] {
  const names = [...span.matchAll(/\b(pd\.(?:server|client)|pd|PeerDist|publication|through|reader|handle)\.(\w+)/g)];
  const members = names.map(([, receiver, member]) => `${receiver}.${member}`);
  for (const [, receiver] of span.matchAll(/await using (\w+)/g)) members.push(`${receiver}.asyncDispose`);
  for (const [, receiver] of span.matchAll(/for await \(… of (\w+)\)/g)) members.push(`${receiver}.asyncIterator`);
  return members;
}

const mapping = ['### Common', '### Consumer', '### Publisher'].flatMap((heading) =>
  rows(section(heading)).filter(([number]) => number !== '#'),
);

/** Members named in the mapping, between its tables, or among the extensions. Examples and the rest of the page do not count. */
const named = new Set(
  [section('## Win32 → TypeScript'), section('## Beyond Windows')]
    .flatMap((text) => codeSpans(withoutExamples(text)))
    .flatMap(membersIn),
);

const examples = [...readme.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code as string);

// --- What there is -------------------------------------------------------------------------------------------------------------------

const pd = await surface.PeerDist.open();
t.teardown(() => pd.close());
const publication = await pd.server.publish('published');
await publication.addData(new Uint8Array(10));
await publication.complete();
const through = await pd.server.publishThrough('flowing');
through.published.catch(() => {});
const reader = await pd.server.openContentInformation('published');
const handle = await pd.client.openContent(new Uint8Array(16));

const OBJECTS: Readonly<Record<string, object>> = {
  PeerDist: surface.PeerDist,
  pd,
  'pd.server': pd.server,
  'pd.client': pd.client,
  publication,
  through,
  reader,
  handle,
};

/** Where the classes of Node begin. */
const NODE = new Set<object>([
  Writable.prototype,
  Transform.prototype,
  EventEmitter.prototype,
  EventEmitter,
  Object.prototype,
  Function.prototype,
]);

/** What Node puts on each stream, emitter or class by itself. */
const NODE_OWN = new Set([new Writable(), new Transform(), new EventEmitter(), Object].flatMap(Reflect.ownKeys));

/** Members that are no words; `await using` and `for await` name them. */
const SYMBOLS = ['asyncDispose', 'asyncIterator'] as const;

/** Members of an object and of its classes down to the first that is Node's, without Node's hooks (`_write`). */
function membersOf(object: object): string[] {
  const keys = Reflect.ownKeys(object).filter((key) => !NODE_OWN.has(key));
  for (let each = Reflect.getPrototypeOf(object); each !== null && !NODE.has(each); each = Reflect.getPrototypeOf(each))
    keys.push(...Reflect.ownKeys(each).filter((key) => key !== 'constructor'));
  return [...new Set(keys.map(nameOf))].filter((name) => !name.startsWith('_'));
}

function nameOf(key: string | symbol): string {
  return SYMBOLS.find((name) => Symbol[name] === key) ?? String(key);
}

function has(member: string): boolean {
  const dot = member.lastIndexOf('.');
  const object = OBJECTS[member.slice(0, dot)];
  const name = member.slice(dot + 1);
  const symbol = SYMBOLS.find((each) => each === name);
  return object !== undefined && (symbol === undefined ? name : Symbol[symbol]) in object;
}

// --- A compiler ----------------------------------------------------------------------------------------------------------------------

/** What the examples of README presuppose. */
const PRELUDE = `
import { randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { type ByteRange, CONTENT_TAG_BYTES, isPeerDistError, MemoryBlockStore, peek, PeerDist } from 'peerdist';
import { READ_TIMEOUT_LOCAL_CACHE_ONLY, ServerSecret } from 'peerdist';
declare function fromOrigin(missing: ByteRange): Promise<Uint8Array>;
`;

let before: ts.Program | undefined;

/** A module in examples/, by the project's own rules save that names may go unused. */
function moduleOf(code: string): { program: ts.Program; file: ts.SourceFile } {
  const { options } = ts.getParsedCommandLineOfConfigFile(
    'tsconfig.json',
    { noEmit: true, incremental: false, noUnusedLocals: false, noUnusedParameters: false },
    { ...ts.sys, onUnRecoverableConfigFileDiagnostic: () => {} },
  ) as ts.ParsedCommandLine;
  delete options.tsBuildInfoFile;
  const name = resolve('examples/from-readme.ts');
  const disk = ts.createCompilerHost(options);
  const program = ts.createProgram([name], options, {
    ...disk,
    fileExists: (each) => each === name || disk.fileExists(each),
    getSourceFile: (each, language, ...rest) =>
      each === name
        ? ts.createSourceFile(name, code, language)
        : (before?.getSourceFile(each) ?? disk.getSourceFile(each, language, ...rest)),
  });
  before = program;
  return { program, file: program.getSourceFile(name) as ts.SourceFile };
}

/** What tsc says about a module. */
function compile(code: string): string[] {
  const { program, file } = moduleOf(code);
  return ts
    .getPreEmitDiagnostics(program, file)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}

/** Properties of an interface the package exports. */
function propertiesOf(type: string): string[] {
  const { program, file } = moduleOf(`export type { ${type} } from 'peerdist';\n`);
  const checker = program.getTypeChecker();
  const [symbol] = checker.getExportsOfModule(checker.getSymbolAtLocation(file) as ts.Symbol);
  const declared = checker.getDeclaredTypeOfSymbol(checker.getAliasedSymbol(symbol as ts.Symbol));
  return checker.getPropertiesOfType(declared).map(({ name }) => name);
}

// --- Tests ---------------------------------------------------------------------------------------------------------------------------

t.test('each of the 28 functions of Windows has its row', (t) => {
  t.strictSame(
    mapping.map(([number, name]) => [number, name]),
    WIN32.map((name, index) => [String(index + 1), name]),
  );
  t.end();
});

t.test('each member a row names is there', (t) => {
  for (const [number, name, cell = ''] of mapping) {
    const found: string[] = [];
    for (const span of codeSpans(cell)) {
      const exported = /^\w+(?=\()/.exec(span)?.[0];
      const members = exported !== undefined && exported in surface ? [exported] : membersIn(span);
      if (!SYNTAX.has(span)) t.ok(members.length > 0, `${number} ${name}: ${span} names something`);
      for (const member of members) t.ok(member === exported || has(member), `${number} ${name}: ${member}`);
      found.push(...members);
    }
    t.ok(found.length > 0, `${number} ${name} names a member`);
  }
  t.end();
});

t.test('each member that is there is named', (t) => {
  for (const [receiver, object] of Object.entries(OBJECTS)) {
    const members = membersOf(object);
    t.ok(members.length > 0, `${receiver} has members`);
    for (const member of members) {
      const name = `${receiver}.${member}`;
      if (!INTERNAL.includes(name)) t.ok(named.has(name) || isReceiver(name), name);
    }
  }
  for (const name of Object.keys(surface)) {
    t.ok(
      codeSpans(withoutExamples(readme)).some((span) => new RegExp(`\\b${name}\\b`).test(span)),
      `export ${name}`,
    );
  }
  for (const name of named) t.ok(has(name), `${name} is named and there`);
  for (const name of INTERNAL) t.ok(has(name) && !named.has(name), `${name} is internal, there and not named`);
  t.end();
});

/** `pd.server` and `pd.client`: named by whatever they are asked for. */
function isReceiver(name: string): boolean {
  return [...named].some((other) => other.startsWith(`${name}.`));
}

t.test('each option is named', (t) => {
  const spans = [section('## Win32 → TypeScript'), section('## Beyond Windows')]
    .flatMap((text) => codeSpans(withoutExamples(text)))
    .join(' ');
  for (const [type, some] of OPTIONS) {
    const options = propertiesOf(type);
    t.ok(options.includes(some), `${type} has ${some}`);
    for (const option of options) t.ok(new RegExp(`\\b${option}\\b`).test(spans), `${type}.${option}`);
  }
  t.end();
});

t.test('the structures and enumerations of Windows have their types', (t) => {
  const table = rows(section('### Structures and enumerations')).slice(1);
  t.strictSame(
    table.map(([name]) => name),
    STRUCTURES,
  );
  const types = table.flatMap(([, cell = '']) => codeSpans(cell));
  t.ok(types.length >= STRUCTURES.length);
  const imports = new Set(types.flatMap((type) => type.match(/\b[A-Z]\w+/g) ?? []));
  const lines = types.map((type, index) => `export type Type${index} = ${type};`);
  t.strictSame(compile(`import type { ${[...imports].join(', ')} } from 'peerdist';\n${lines.join('\n')}\n`), []);
  t.end();
});

t.test('each error code with a Win32 name has its row', (t) => {
  t.strictSame(
    rows(section('### Errors')).slice(1),
    Object.entries(ERROR_CODES).flatMap(([code, details]) =>
      'name' in details ? [[`\`${code}\``, details.name, String(details.win32)]] : [],
    ),
  );
  t.end();
});

t.test('each row has an example of two lines, and the examples compile', (t) => {
  const lines = examples.join('').split('\n');
  const heads = lines.flatMap((line, index) => (/^\/\/ \d+ /.test(line) ? [index] : []));
  t.strictSame(
    heads.map((index) => lines[index]),
    WIN32.map((name, index) => `// ${index + 1} ${name}`),
  );
  for (const [nth, index] of heads.entries()) {
    const after = lines.slice(index + 1, index + 3);
    t.ok(
      after.every((line) => line !== '' && !line.startsWith('//')),
      `example ${nth + 1} has two lines`,
    );
  }
  const [first = '', ...others] = examples;
  t.strictSame(compile(first), []);
  t.strictSame(compile(PRELUDE + others.join('')), []);
  t.strictSame(compile("import { PeerDist } from 'peerdist';\nawait PeerDist.open({ identify: 'x' });\n").length, 1);
  t.end();
});

t.test('links lead somewhere', (t) => {
  const links = [...readme.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map(([, target]) => target as string);
  t.ok(links.length > 0);
  for (const link of links) t.ok(existsSync(join(dirname(README), link)), link);
  t.end();
});
