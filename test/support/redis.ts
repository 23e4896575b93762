/** Real Redis servers on free ports of 127.0.0.1, in directories of their own, and what stands between us and one. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { listen, type Scope } from './net.ts';

export interface RedisServerOptions {
  /** Lines of its configuration. */
  readonly config?: readonly string[];
  /** The only user there is; others may not even look. */
  readonly user?: { readonly name: string; readonly password: string; readonly rules: string };
  /** Speaks TLS only, with the certificate of {@link makeCertificate}. */
  readonly certificate?: Certificate;
}

export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** Milliseconds a real server may take for what it does in a few. */
const NEVER_MS = 20_000;
/** Milliseconds between two looks at what other processes do. */
const LOOK_MS = 5;
const START_ATTEMPTS = 5;

/** Why the tests that need a real server are skipped; false when they are not. */
export const noRedis =
  spawnSync('redis-server', ['--version']).error === undefined ? false : 'redis-server is not installed';

/** Waits until something that others do has come about. */
export async function until(look: () => unknown, what: string, ms = NEVER_MS): Promise<void> {
  const never = Date.now() + ms;
  while (!(await look())) {
    if (Date.now() > never) throw new Error(`never came: ${what}`);
    await new Promise((resolve) => {
      setTimeout(resolve, LOOK_MS);
    });
  }
}

/** Children that must not outlive this process, however it ends. */
const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

/** A server that can be stopped, started again, and made to stand still. */
export class TestRedis {
  readonly directory: string;
  port = 0;
  readonly #options: RedisServerOptions;
  #child: ChildProcess | undefined;

  private constructor(options: RedisServerOptions) {
    this.#options = options;
    this.directory = mkdtempSync(join(tmpdir(), 'peerdist-redis-'));
  }

  static async start(scope: Scope, options: RedisServerOptions = {}): Promise<TestRedis> {
    const redis = new TestRedis(options);
    scope.teardown(async () => {
      await redis.stop();
      rmSync(redis.directory, { recursive: true, force: true });
    });
    for (let attempt = 1; ; attempt += 1)
      try {
        redis.port = await freePort();
        await redis.start();
        return redis;
      } catch (error) {
        // Somebody else may have taken the port meanwhile.
        if (attempt === START_ATTEMPTS) throw error;
      }
  }

  get url(): string {
    const { user, certificate } = this.#options;
    const userinfo = user === undefined ? '' : `${user.name}:${encodeURIComponent(user.password)}@`;
    return `${certificate === undefined ? 'redis' : 'rediss'}://${userinfo}127.0.0.1:${this.port}`;
  }

  /** On the port it had, with nothing in it. */
  async start(): Promise<void> {
    const file = join(this.directory, 'redis.conf');
    writeFileSync(file, `${this.#lines().join('\n')}\n`);
    const child = spawn('redis-server', [file], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#child = child;
    children.add(child);
    child.once('exit', () => children.delete(child));
    let said = '';
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString();
    });
    await until(() => said.includes('eady to accept connections') || child.exitCode !== null, 'a Redis that is ready');
    if (child.exitCode !== null) throw new Error(`redis-server ended: ${said.slice(-500)}`);
  }

  /** At once, as a crash does. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }

  /** It keeps its connections, and the kernel takes new ones for it, but it does nothing. */
  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  #lines(): string[] {
    const { config = [], user, certificate } = this.#options;
    const lines = ['bind 127.0.0.1', `dir ${this.directory}`, 'save ""', 'appendonly no', ...config];
    if (user !== undefined) lines.push('user default off', `user ${user.name} on >${user.password} ${user.rules}`);
    if (certificate === undefined) return [`port ${this.port}`, ...lines];
    const { cert, key } = certificate;
    for (const [name, text] of [
      ['cert', cert],
      ['key', key],
    ] as const)
      writeFileSync(join(this.directory, `${name}.pem`), text);
    const pem = (name: string): string => join(this.directory, `${name}.pem`);
    return [
      'port 0',
      `tls-port ${this.port}`,
      `tls-cert-file ${pem('cert')}`,
      `tls-key-file ${pem('key')}`,
      `tls-ca-cert-file ${pem('cert')}`,
      'tls-auth-clients no',
      ...lines,
    ];
  }
}

/** Three masters, which have all slots between them when this returns. */
export async function startCluster(scope: Scope): Promise<readonly TestRedis[]> {
  const nodes = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const config = ['cluster-enabled yes', `cluster-port ${await freePort()}`, 'cluster-node-timeout 2000'];
      return TestRedis.start(scope, { config });
    }),
  );
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`);
  await redisCli(['--cluster', 'create', ...addresses, '--cluster-yes']);
  await until(async () => {
    const says = await Promise.all(nodes.map(({ port }) => redisCli(['-p', String(port), 'cluster', 'info'])));
    return says.every((text) => text.includes('cluster_state:ok'));
  }, 'a cluster that agrees');
  return nodes;
}

/** What `redis-cli` prints. */
export async function redisCli(args: readonly string[]): Promise<string> {
  return (await promisify(execFile)('redis-cli', [...args])).stdout;
}

/** A certificate for 127.0.0.1 that is its own authority; undefined where `openssl` is not installed. */
export function makeCertificate(): Certificate | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'peerdist-tls-'));
  try {
    const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=redis';
    const extension = ['-addext', 'subjectAltName=IP:127.0.0.1'];
    const { status, stdout } = spawnSync('openssl', [...request.split(' '), ...extension, '-keyout', '-'], {
      encoding: 'utf8',
      cwd: directory,
    });
    if (status !== 0) return undefined;
    const pem = (name: string): string =>
      new RegExp(`-----BEGIN ${name}-----[^]*?-----END ${name}-----\n`).exec(stdout)?.[0] ?? '';
    return { cert: pem('CERTIFICATE'), key: pem('PRIVATE KEY') };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Stands before a server and cuts connections in the middle of a reply. */
export class Cutter {
  port = 0;
  /** Bytes of the server that still go through; then every connection ends. */
  #left = Infinity;
  readonly #sockets = new Set<Socket>();

  static async start(scope: Scope, port: number): Promise<Cutter> {
    const cutter = new Cutter();
    const server: Server = createServer({ noDelay: true }, (client) =>
      cutter.#join(client, connect(port, '127.0.0.1')),
    );
    cutter.port = await listen(scope, server);
    scope.teardown(() => cutter.#end());
    return cutter;
  }

  cutAfter(bytes: number): void {
    this.#left = bytes;
  }

  #join(client: Socket, server: Socket): void {
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (chunk: Buffer) => server.write(chunk));
    server.on('data', (chunk: Buffer) => {
      const { byteLength } = chunk;
      if (byteLength < this.#left) {
        this.#left -= byteLength;
        client.write(chunk);
        return;
      }
      client.write(chunk.subarray(0, this.#left), () => this.#end());
      this.#left = Infinity;
    });
  }

  #end(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** What a server that only pretends to be one says to a command; undefined: nothing. */
export type Pretend = (command: readonly string[], socket: Socket) => string | Buffer | undefined;

/** A server that says what a test wants. It is polite until somebody is connected. */
export async function pretendRedis(scope: Scope, pretend: Pretend): Promise<string> {
  const server = createServer({ noDelay: true }, (socket) => {
    let received = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      for (;;) {
        const taken = takeCommand(received);
        if (taken === undefined) return;
        received = received.subarray(taken.length);
        const reply = pretend(taken.command, socket);
        if (reply !== undefined) socket.write(reply);
      }
    });
  });
  return `redis://127.0.0.1:${await listen(scope, server)}`;
}

/** What a single server says to those who connect; undefined for other commands. */
export function polite([name = '']: readonly string[]): string | undefined {
  if (name === 'PING') return '+PONG\r\n';
  if (name === 'INFO') return '$17\r\ncluster_enabled:0\r\n';
  if (name === 'CLUSTER') return '-ERR This instance has cluster support disabled\r\n';
  return undefined;
}

/** One command (RESP: an array of values) from the start of what was received. */
function takeCommand(received: Buffer): { command: string[]; length: number } | undefined {
  let at = 0;
  const line = (): string | undefined => {
    const end = received.indexOf('\r\n', at);
    if (end < 0) return undefined;
    const text = received.toString('latin1', at, end);
    at = end + 2;
    return text;
  };
  const count = Number(line()?.slice(1));
  if (!Number.isInteger(count)) return undefined;
  const command: string[] = [];
  while (command.length < count) {
    const length = Number(line()?.slice(1));
    if (!Number.isInteger(length) || at + length + 2 > received.byteLength) return undefined;
    command.push(received.toString('latin1', at, at + length));
    at += length + 2;
  }
  return { command, length: at };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
