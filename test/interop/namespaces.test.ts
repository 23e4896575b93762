/**
 * A branch office as it is: three machines on one LAN, each with its own proxy, and head office somewhere else. Every machine is a network
 * namespace on one switch; nobody is told of anybody. A download crosses the WAN once, the others get it from whoever has it, and the end of
 * a peer costs nobody a byte.
 */
import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { COMMAND, inTime, Program, run, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const MEBI = 1024 * 1024;
const SIZE = 64 * MEBI;
/** By name: one to share, one in the middle of which a peer ends. */
const FILES = { shared: seededBytes(91, SIZE), interrupted: seededBytes(92, SIZE) } as const;
type FileName = keyof typeof FILES;
/** Where in a transfer a peer ends. The buffers between it and the client hold less than what is left. */
const MIDDLE = 12 * MEBI;
const ORIGIN_PROCESS = fileURLToPath(new URL('../support/origin-process.js', import.meta.url));
const directory = t.testdir({});

type Family = 4 | 6;

/** Runs `ip`. */
function ip(command: string): string {
  const { status, stdout, stderr, error } = spawnSync('ip', command.split(' '), { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${command}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

// --- The network ----------------------------------------------------------------------------------------------------------------------

/** A namespace and its place on the switch. */
class Machine {
  readonly namespace: string;
  readonly #switch: string;
  readonly #port: string;
  readonly #number: number;

  constructor(prefix: string, name: string, number: number) {
    this.namespace = `${prefix}-${name}`;
    this.#switch = `${prefix}-switch`;
    this.#port = `port-${name}`;
    this.#number = number;
  }

  connect(): void {
    ip(`netns add ${this.namespace}`);
    ip(`-n ${this.namespace} link set lo up`);
    ip(`-n ${this.#switch} link add ${this.#port} type veth peer name lan netns ${this.namespace}`);
    ip(`-n ${this.#switch} link set ${this.#port} master bridge up`);
    // Addresses are given, so that there is nothing to wait for.
    ip(`-n ${this.namespace} link set lan addrgenmode none up`);
  }

  /** Gives it addresses of one family only. */
  speak(family: Family): void {
    ip(`-n ${this.namespace} addr flush dev lan`);
    if (family === 4) {
      ip(`-n ${this.namespace} addr add 10.77.0.${this.#number}/24 dev lan`);
    } else {
      ip(`-n ${this.namespace} addr add fd77::${this.#number}/64 dev lan nodad`);
      ip(`-n ${this.namespace} addr add fe80::${this.#number}/64 dev lan nodad`);
    }
  }

  host(family: Family): string {
    return family === 4 ? `10.77.0.${this.#number}` : `[fd77::${this.#number}]`;
  }

  plug(state: 'up' | 'down'): void {
    ip(`-n ${this.#switch} link set ${this.#port} ${state}`);
  }

  /** Bytes it has put on the wire, frames and all. */
  get sentBytes(): number {
    const [link] = JSON.parse(ip(`-n ${this.namespace} -s -j link show lan`)) as {
      stats64: { tx: { bytes: number } };
    }[];
    return link?.stats64.tx.bytes ?? Number.NaN;
  }

  /** The command line of a program that runs there. */
  inside(command: string, ...args: string[]): readonly [command: string, args: string[]] {
    return ['ip', ['netns', 'exec', this.namespace, command, ...args]];
  }

  /** The body of what its own loopback answers. */
  async ask(test: Test, url: string): Promise<string> {
    const { code, stdout } = await run(test, ...this.inside('curl', '-q', '--noproxy', '*', '-sSf', url));
    if (code !== 0) throw new Error(`${this.namespace}: curl ${url}: ${code}`);
    return stdout;
  }
}

class Network {
  readonly hq: Machine;
  readonly a: Machine;
  readonly b: Machine;
  readonly c: Machine;
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
    this.hq = new Machine(prefix, 'hq', 1);
    this.a = new Machine(prefix, 'a', 2);
    this.b = new Machine(prefix, 'b', 3);
    this.c = new Machine(prefix, 'c', 4);
  }

  get machines(): readonly Machine[] {
    return [this.hq, this.a, this.b, this.c];
  }

  connect(): void {
    ip(`netns add ${this.#prefix}-switch`);
    ip(`-n ${this.#prefix}-switch link add bridge type bridge forward_delay 0 mcast_snooping 0`);
    ip(`-n ${this.#prefix}-switch link set bridge addrgenmode none up`);
    for (const machine of this.machines) machine.connect();
  }

  /** With everything in it, also what a test that was ended could not end itself. */
  remove(): void {
    for (const name of [`${this.#prefix}-switch`, ...this.machines.map(({ namespace }) => namespace)]) {
      const { stdout } = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' });
      for (const pid of (stdout ?? '').split('\n').filter((line) => line !== '')) {
        try {
          process.kill(Number(pid), 'SIGKILL');
        } catch {
          // it has ended meanwhile
        }
      }
      spawnSync('ip', ['netns', 'delete', name]);
    }
  }
}

/** False, or why this machine cannot do it. */
function impossible(): string | false {
  const absent = ['ip', 'curl'].filter((program) => spawnSync(program, ['-V']).error !== undefined);
  if (absent.length > 0) return `not installed: ${absent.join(', ')}`;
  const network = new Network(`pd${process.pid}p`);
  try {
    network.connect();
    return false;
  } catch (error) {
    return `network namespaces are not to be had: ${(error as Error).message}`;
  } finally {
    network.remove();
  }
}

// --- What runs in it ------------------------------------------------------------------------------------------------------------------

/** A program that listens somewhere in a namespace. */
class Service {
  readonly program: Program;
  readonly machine: Machine;
  readonly ports: readonly number[];
  readonly #test: Test;

  private constructor(test: Test, machine: Machine, program: Program, ports: readonly number[]) {
    this.#test = test;
    this.machine = machine;
    this.program = program;
    this.ports = ports;
  }

  static async start(test: Test, machine: Machine, listeners: number, ...args: string[]): Promise<Service> {
    const program = new Program(test, ...machine.inside(process.execPath, ...args));
    let hasEnded = false;
    void program.finished.finally(() => (hasEnded = true));
    const lines = (): string[] => program.lines.filter((line) => line.startsWith('listening on '));
    await until(() => hasEnded || lines().length === listeners, `${args[1]} listens`, 20_000);
    if (hasEnded) throw new Error(`${args.join(' ')}: ${program.stderr}`);
    const ports = lines().map((line) => Number(/:(\d+)(?: \([\w ]+\))?$/.exec(line)?.[1]));
    return new Service(test, machine, program, ports);
  }

  get port(): number {
    return this.ports[0] as number;
  }

  /** All of `/metrics`: the value of a series, 0 where there is none. */
  async metrics(): Promise<(series: string) => number> {
    const text = await this.machine.ask(this.#test, `http://127.0.0.1:${this.ports[1]}/metrics`);
    const values = new Map(text.split('\n').map((line) => line.split(' ') as [string, string]));
    return (series) => Number(values.get(`peerdist_${series}`) ?? 0);
  }
}

interface Stage {
  readonly network: Network;
  readonly a: Service;
  readonly b: Service;
  readonly c: Service;
  readonly url: (file: FileName) => string;
  /** Body bytes of a file that have left the origin. */
  readonly originBytes: (file: FileName) => Promise<number>;
}

async function stage(
  test: Test,
  network: Network,
  origin: Service,
  { family, version }: Pick<Case, 'family' | 'version'>,
  more: readonly string[] = [],
): Promise<Stage> {
  const { hq } = network;
  for (const machine of network.machines) machine.speak(family);
  const secret = join(directory, 'secret');
  const upstream = `http://127.0.0.1:${origin.port}`;
  const admin = ['--admin', '127.0.0.1:0'];
  const own = ['--listen', '127.0.0.1:0', ...admin, '--content-info', String(version), ...more];
  const [reverse, a, b, c] = await Promise.all([
    Service.start(
      test,
      hq,
      2,
      COMMAND,
      'reverse',
      '--origin',
      upstream,
      '--secret-file',
      secret,
      '--listen',
      '[::]:0',
      ...admin,
    ),
    Service.start(test, network.a, 3, COMMAND, 'branch', ...own),
    Service.start(test, network.b, 3, COMMAND, 'branch', ...own),
    Service.start(test, network.c, 3, COMMAND, 'branch', ...own),
  ]);
  return {
    network,
    a,
    b,
    c,
    url: (file) => `http://${hq.host(family)}:${reverse.port}/${file}`,
    originBytes: async (file) => Number(await hq.ask(test, `${upstream}/body-bytes/${file}`)),
  };
}

interface DownloadOptions {
  readonly range?: readonly [first: number, last: number];
  /** Called when so many bytes have come. */
  readonly at?: readonly [bytes: number, action: () => void];
}

/** One request of one client beside a branch, whose bytes are looked at as they come. */
async function download(
  test: Test,
  { url }: Stage,
  { machine, port }: Service,
  file: FileName,
  { range = [0, SIZE - 1], at }: DownloadOptions = {},
): Promise<void> {
  const wanted = FILES[file].subarray(range[0], range[1] + 1);
  const part = wanted.byteLength === SIZE ? [] : ['--range', range.join('-')];
  const args = ['-q', '-sS', '--fail', '--noproxy', '', '--proxy', `http://127.0.0.1:${port}`, ...part, url(file)];
  const client = spawn(...machine.inside('curl', ...args), { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve, reject) => {
    client.once('error', reject);
    client.once('close', resolve);
  });
  test.teardown(() => {
    client.kill('SIGKILL');
  });
  let length = 0;
  let isSame = true;
  let pauseMs = 0;
  let lastAt = performance.now();
  const read = async (): Promise<number | null> => {
    for await (const chunk of client.stdout as AsyncIterable<Buffer>) {
      isSame &&= chunk.equals(wanted.subarray(length, length + chunk.byteLength));
      if (at !== undefined && length < at[0] && length + chunk.byteLength >= at[0]) at[1]();
      length += chunk.byteLength;
      pauseMs = Math.max(pauseMs, performance.now() - lastAt);
      lastAt = performance.now();
    }
    return ended;
  };
  const startedAt = performance.now();
  test.equal(
    await inTime(read(), `${machine.namespace} downloads ${file}`, 30_000),
    0,
    `${file}: one request, one answer`,
  );
  test.same([length, isSame], [wanted.byteLength, true], `${file}: every byte`);
  const tookMs = Math.round(performance.now() - startedAt);
  test.comment(`${machine.namespace} ${file} ${part.join(' ')}: ${tookMs} ms, longest pause ${Math.round(pauseMs)} ms`);
}

/** Waits until a branch has blocks of so many bytes. */
async function holds(branch: Service, bytes: number): Promise<void> {
  const look = async (): Promise<void> => {
    while ((await branch.metrics())('store_bytes{store="block"}') < bytes);
  };
  await inTime(look(), `${branch.machine.namespace} holds ${bytes} bytes`, 20_000);
}

/** How A ends while B reads from it, and how many bytes of the file C has got before. */
interface Interruption {
  readonly end: 'killed' | 'unplugged';
  readonly heldByC: number;
}

interface Case {
  readonly family: Family;
  readonly version: 1 | 2;
  /** How B and C download what A has. */
  readonly order: 'in turn' | 'together';
  readonly interruption?: Interruption;
}

const CASES: readonly Case[] = [
  { family: 4, version: 1, order: 'in turn', interruption: { end: 'killed', heldByC: SIZE } },
  { family: 4, version: 2, order: 'in turn', interruption: { end: 'unplugged', heldByC: SIZE / 2 } },
  { family: 6, version: 2, order: 'together' },
];

/** A downloads a file, then the others do: one after the other, or together, where the deadlines of a busy machine count for something. */
async function share(test: Test, all: Stage, order: Case['order']): Promise<void> {
  const { network, a, b, c } = all;
  const start = network.hq.sentBytes;
  const sent = await all.originBytes('shared');
  await download(test, all, a, 'shared');
  await holds(a, SIZE);
  const once = network.hq.sentBytes - start;
  test.equal((await all.originBytes('shared')) - sent, SIZE, 'the origin has sent it once');
  test.ok(once < 1.05 * SIZE, `once over the WAN: ${once} bytes`);

  const atB = download(test, all, b, 'shared');
  if (order === 'in turn') await atB;
  await Promise.all([atB, download(test, all, c, 'shared')]);
  const least = (order === 'in turn' ? 0.99 : 0.9) * SIZE;
  for (const [name, branch] of Object.entries({ B: b, C: c })) {
    const metric = await branch.metrics();
    const peer = metric('delivered_bytes_total{source="peer"}');
    test.ok(peer >= least, `${name} got ${peer} bytes from its peers`);
    test.ok(metric('discovery_messages_total{message="match_received"}') > 0, `${name} has found them itself`);
    const odd = ['plugin_failures_total', 'discovery_messages_total{message="dropped"}', 'peer_bans_total'];
    test.same(odd.map(metric), [0, 0, 0], `nothing odd at ${name}`);
  }
  const metric = await a.metrics();
  test.ok(metric('discovery_messages_total{message="match_sent"}') > 0, 'A has answered');
  test.ok(metric('uploads_total{result="block"}') > 0, 'and given');
  const again = network.hq.sentBytes - start - once;
  test.ok(again < 2 * (1.01 * SIZE - least), `for both others over the WAN: ${again} bytes`);
}

/** B reads from A and C, until A is no more. */
async function interrupt(test: Test, all: Stage, { end, heldByC }: Interruption): Promise<void> {
  const { network, a, b, c } = all;
  await download(test, all, a, 'interrupted');
  await holds(a, 2 * SIZE);
  await download(test, all, c, 'interrupted', { range: [0, heldByC - 1] });
  await holds(c, SIZE + heldByC);
  const [atB, atC] = [await b.metrics(), await c.metrics()];
  test.teardown(() => network.a.plug('up'));
  const action = (): void => {
    if (end === 'killed') a.program.child.kill('SIGKILL');
    else network.a.plug('down');
  };
  await download(test, all, b, 'interrupted', { at: [MIDDLE, action] });
  const [laterAtB, laterAtC] = [await b.metrics(), await c.metrics()];
  const more = (series: string): number => laterAtB(series) - atB(series);
  const peer = more('delivered_bytes_total{source="peer"}');
  const fromOrigin = more('delivered_bytes_total{source="origin"}');
  test.equal(peer + fromOrigin, SIZE, `no byte twice: ${peer} from peers, ${fromOrigin} from the origin`);
  test.ok(fromOrigin < SIZE - heldByC + 0.1 * SIZE, 'the origin fills in little more than what nobody has any more');
  const given = laterAtC('uploaded_bytes_total') - atC('uploaded_bytes_total');
  test.ok(given > 0 && given < peer, `C has given ${given} bytes of it, A the others`);
  const exchanges = ['exchanges_total{status="2xx"}', 'exchanges_total{status="5xx"}', 'plugin_failures_total'];
  test.same(exchanges.map(more), [1, 0, 0], 'one exchange');
}

/** A hosted cache on C, on the ports it has by default; what A gets from head office B gets from there. */
async function throughHostedCache(
  test: Test,
  network: Network,
  origin: Service,
  { family, version }: Pick<Case, 'family' | 'version'>,
): Promise<void> {
  const state = join(directory, `state-${family}`);
  for (const machine of network.machines) machine.speak(family);
  const hosted = await Service.start(
    test,
    network.c,
    3,
    COMMAND,
    'hosted',
    '--admin',
    '127.0.0.1:0',
    '--state-dir',
    state,
    // Half of it is what one client may bring in an hour.
    '--max-cache',
    '256MiB',
  );
  test.equal(hosted.port, 80, 'where Windows looks for it');
  const all = await stage(test, network, origin, { family, version }, ['--hosted-cache', network.c.host(family)]);
  const { a, b } = all;
  const sent = await all.originBytes('shared');
  await download(test, all, a, 'shared');
  const ingested = async (): Promise<void> => {
    while ((await hosted.metrics())('ingested_bytes_total') < SIZE);
  };
  await inTime(ingested(), 'the hosted cache has fetched it from A', 20_000);
  test.equal((await all.originBytes('shared')) - sent, SIZE, 'the origin has sent it once');
  await download(test, all, b, 'shared');
  const metric = await b.metrics();
  const cached = metric('delivered_bytes_total{source="hosted_cache"}');
  test.ok(cached >= 0.99 * SIZE, `B got ${cached} bytes from the hosted cache`);
  test.same(
    ['discovery_messages_total{message="probe_sent"}', 'delivered_bytes_total{source="peer"}'].map(metric),
    [0, 0],
    'and nobody else was asked',
  );
  const blocks = (await hosted.metrics())('ingest_requests_total{result="stored"}');
  const accepted = (await hosted.metrics())('offers_total{result="accepted"}');
  if (version === 1) test.equal(blocks, SIZE / (64 * 1024), 'each block was fetched once');
  else test.equal(blocks, accepted, 'each segment was fetched once');
}

await t.test('three branches find each other', { skip: impossible() }, async (suite) => {
  const network = new Network(`pd${process.pid}`);
  const remove = (): void => network.remove();
  // Also where the test is ended from outside.
  process.once('exit', remove);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));
  suite.teardown(remove);
  network.connect();
  for (const [name, bytes] of Object.entries(FILES)) writeFileSync(join(directory, name), bytes);
  writeFileSync(join(directory, 'secret'), 'namespaces');
  const files = Object.keys(FILES).map((name) => join(directory, name));
  const origin = await Service.start(suite, network.hq, 1, ORIGIN_PROCESS, ...files);

  for (const { family, version, order, interruption } of CASES) {
    await suite.test(`IPv${family}, version ${version}, A ${interruption?.end ?? 'stays'}`, async (test) => {
      const all = await stage(test, network, origin, { family, version });
      await share(test, all, order);
      if (interruption !== undefined) await interrupt(test, all, interruption);
    });
  }

  for (const { family, version } of [
    { family: 4, version: 1 },
    { family: 6, version: 2 },
  ] as const) {
    await suite.test(`a hosted cache, IPv${family}, version ${version}`, (test) =>
      throughHostedCache(test, network, origin, { family, version }),
    );
  }
});
