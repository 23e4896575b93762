/** A head office and two branches of one site, each in a network namespace, and the lines between them: our own relays. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { directory, scratchFile } from './processes.ts';

const HQ = 'peerdist-bench-hq';
export const A = 'peerdist-bench-a';
export const B = 'peerdist-bench-b';

const LINE = { bitsPerSecond: 20e6, roundTripMs: 40 };
/** The same in both branches, so that what they keep has the same name. */
export const ORIGIN_PORT = 8100;
export const HEAD_PORT = 8200;

/** Runs a program in a namespace. @returns what it has printed */
export async function inside(namespace: string, ...command: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('ip', ['netns', 'exec', namespace, ...command], { encoding: 'utf8' });
  return stdout;
}

interface Relay {
  readonly child: ChildProcess;
  readonly lines: Interface;
}

/** Three namespaces: head office has a line to each branch, the branches have a LAN. */
export class Site {
  readonly #running = new Set<ChildProcess>();
  readonly #branches = new Set<ChildProcess>();
  readonly #relays = new Map<string, Relay>();
  #states = 0;

  constructor() {
    for (const namespace of [HQ, A, B]) {
      this.#remove(namespace);
      ip('netns', 'add', namespace);
      ip('-n', namespace, 'link', 'set', 'lo', 'up');
    }
    const connected = [
      [HQ, 'to-a', '10.88.1.1/24', A, 'to-hq', '10.88.1.2/24'],
      [HQ, 'to-b', '10.88.2.1/24', B, 'to-hq', '10.88.2.2/24'],
      [A, 'lan', '10.88.3.1/24', B, 'lan', '10.88.3.2/24'],
    ] as const;
    for (const [near, nearLink, nearAddress, far, farLink, farAddress] of connected) {
      ip('-n', near, 'link', 'add', 'name', nearLink, 'type', 'veth', 'peer', 'name', farLink, 'netns', far);
      ip('-n', near, 'addr', 'add', nearAddress, 'dev', nearLink);
      ip('-n', far, 'addr', 'add', farAddress, 'dev', farLink);
      ip('-n', near, 'link', 'set', nearLink, 'up');
      ip('-n', far, 'link', 'set', farLink, 'up');
    }
  }

  /** A web server, a head, and the lines to both for each branch. */
  async serve(line = LINE): Promise<void> {
    const config = scratchFile(
      'paired.conf',
      `daemon off; worker_processes 1; pid ${scratchFile('paired.pid')}; error_log stderr crit;
      events { worker_connections 1024; }
      http {
        access_log off; sendfile on; default_type application/octet-stream; expires 1h;
        client_body_temp_path ${scratchFile('p-body')}; proxy_temp_path ${scratchFile('p-proxy')}; fastcgi_temp_path ${scratchFile('p-fcgi')};
        uwsgi_temp_path ${scratchFile('p-uwsgi')}; scgi_temp_path ${scratchFile('p-scgi')};
        server { listen 8000; root ${join(directory, 'www')}; }
      }`,
    );
    this.#start(HQ, 'nginx', '-p', directory, '-c', config);
    await this.#command(HQ, this.#running, 'head', '--listen', '0.0.0.0:3129', '--allow-client', '10.88.0.0/16');
    for (const [namespace, address] of [
      [A, '10.88.1.1'],
      [B, '10.88.2.1'],
    ] as const) {
      for (const [port, target] of [
        [ORIGIN_PORT, 8000],
        [HEAD_PORT, 3129],
      ] as const) {
        const script = new URL('./relay.js', import.meta.url).pathname;
        const figures = [port, address, target, line.bitsPerSecond, line.roundTripMs].map(String);
        const child = this.#start(namespace, process.execPath, script, ...figures);
        const relay = { child, lines: createInterface({ input: child.stdout as NodeJS.ReadableStream }) };
        await once(relay.lines, 'line');
        this.#relays.set(`${namespace} ${port}`, relay);
      }
    }
  }

  /** Bytes a line has carried in both directions. */
  async carried(namespace: string, port: number): Promise<number> {
    const { child, lines } = this.#relays.get(`${namespace} ${port}`) as Relay;
    child.stdin?.write('\n');
    const [bytes] = (await once(lines, 'line')) as [string];
    return Number(bytes);
  }

  /** @returns the address of its proxy */
  async branch(namespace: string, ...options: readonly string[]): Promise<string> {
    await this.#command(namespace, this.#branches, 'branch', '--listen', '127.0.0.1:3128', ...options);
    return 'http://127.0.0.1:3128';
  }

  async stopBranches(): Promise<void> {
    // What has just passed is described before it is asked about.
    await end(this.#branches);
    this.#states += 1;
  }

  async stopAll(): Promise<void> {
    await this.stopBranches();
    await end(this.#running);
    this.#relays.clear();
  }

  async close(): Promise<void> {
    await this.stopAll();
    for (const namespace of [HQ, A, B]) this.#remove(namespace);
  }

  async #command(namespace: string, among: Set<ChildProcess>, ...args: readonly string[]): Promise<void> {
    const state = join(directory, `paired-${namespace}-${args[0]}-${this.#states}`);
    mkdirSync(state, { recursive: true, mode: 0o700 });
    // The branches of a site have one secret.
    const secret = scratchFile('site-secret', `${'5e'.repeat(32)}\n`);
    copyFileSync(secret, join(state, 'server-secret'));
    execFileSync('chmod', ['600', join(state, 'server-secret')]);
    const script = new URL('../plugins/standalone/main.js', import.meta.url).pathname;
    const child = this.#start(namespace, process.execPath, script, ...args, '--state-dir', state, '--no-access-log');
    this.#running.delete(child);
    among.add(child);
    for await (const text of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
      if (!text.includes('listening on')) continue;
      child.stdout?.resume();
      // Neighbours are looked for as soon as it runs.
      await pause(500);
      return;
    }
    throw new Error(`${args[0]} did not start`);
  }

  #start(namespace: string, ...command: readonly string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', namespace, ...command], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#running.add(child);
    return child;
  }

  #remove(namespace: string): void {
    try {
      execFileSync('ip', ['netns', 'del', namespace], { stdio: 'ignore' });
    } catch {
      // there was none
    }
  }
}

/** Ends processes by their ids; `ip netns exec` has become what it runs. */
async function end(children: Set<ChildProcess>): Promise<void> {
  for (const child of children) {
    if (child.exitCode !== null) continue;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
  children.clear();
}

function ip(...args: readonly string[]): void {
  execFileSync('ip', args);
}
