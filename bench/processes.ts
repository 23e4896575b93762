/** Real processes around the thing measured: yardstick servers, the command, nginx, curl, wrk, squid. Each is ended by its own id. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';

const running = new Set<ChildProcess>();
/** Everything a benchmark writes. */
export const directory = mkdtempSync(join(tmpdir(), 'peerdist-bench-'));
// nginx's workers run as another user.
chmodSync(directory, 0o755);
process.once('exit', () => {
  for (const child of running) child.kill('SIGTERM');
  rmSync(directory, { recursive: true, force: true });
});

export interface Running {
  readonly url: string;
  readonly port: number;
  readonly process: ChildProcess;
  stop(): Promise<void>;
}

/** A file in the benchmark's own directory. */
export function scratchFile(name: string, content?: Uint8Array | string): string {
  const path = join(directory, name);
  if (content !== undefined) writeFileSync(path, content);
  return path;
}

export function hasTool(name: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${name}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** A Node script of ours that says `listening on URL`, as it is or in a line of JSON. */
export async function startNode(script: string, ...args: readonly string[]): Promise<Running> {
  const child = spawn(process.execPath, [new URL(script, import.meta.url).pathname, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /listening on ([^\s"]+)/.exec(line)?.[1];
    if (url !== undefined) {
      child.stdout.resume();
      return handle(child, url);
    }
  }
  throw new Error(`${script} did not listen`);
}

export const startServer = (kind: string, ...args: readonly string[]): Promise<Running> =>
  startNode('./server.js', kind, ...args);
/** A role of the command, without neighbours; in memory unless the arguments say otherwise. */
export const startCommand = (...args: readonly string[]): Promise<Running> =>
  startNode(
    '../plugins/standalone/main.js',
    ...args,
    '--listen',
    '127.0.0.1:0',
    ...(args.includes('--admin') ? [] : ['--no-admin']),
    // Read by nobody here; what it costs has a line of its own.
    '--no-access-log',
    ...(args[0] === 'branch' ? ['--no-peers'] : []),
    ...(args.includes('--store') ? [] : ['--store', 'memory']),
    ...(args.includes('--state-dir') ? [] : ['--state-dir', scratchFile('state')]),
  );

/** A branch as it is run: its log goes to a file. */
export async function startLogged(log: string, ...args: readonly string[]): Promise<Running> {
  const command = new URL('../plugins/standalone/main.js', import.meta.url).pathname;
  const descriptor = openSync(log, 'w');
  const child = spawn(
    process.execPath,
    [command, ...args, '--listen', '127.0.0.1:0', '--no-peers', '--state-dir', scratchFile('state')],
    { stdio: ['ignore', descriptor, 'inherit'] },
  );
  closeSync(descriptor);
  running.add(child);
  for (;;) {
    const url = /listening on ([^\s"]+)/.exec(readFileSync(log, 'utf8'))?.[1];
    if (url !== undefined) return handle(child, url);
    await pause(2);
  }
}

/** nginx as an ordinary file server for the benchmark's directory. */
export async function startNginx(): Promise<Running> {
  const port = await freePort();
  const config = scratchFile(
    'nginx.conf',
    `
    daemon off; worker_processes 1; pid ${scratchFile('nginx.pid')}; error_log stderr crit;
    events { worker_connections 1024; }
    http {
      access_log off; sendfile on; tcp_nodelay on; default_type application/octet-stream;
      client_body_temp_path ${scratchFile('body')}; proxy_temp_path ${scratchFile('proxy')}; fastcgi_temp_path ${scratchFile('fcgi')};
      uwsgi_temp_path ${scratchFile('uwsgi')}; scgi_temp_path ${scratchFile('scgi')};
      server { listen 127.0.0.1:${port}; root ${directory}; }
    }`,
  );
  return startTool(port, 'nginx', '-p', directory, '-c', config);
}

/** nginx as a caching gateway: one request for each object however many ask, and nobody is let past it. */
export async function startNginxCache(origin: string): Promise<Running> {
  const port = await freePort();
  const own = (name: string): string => scratchFile(`nginx-cache-${port}-${name}`);
  const config = scratchFile(
    `nginx-cache-${port}.conf`,
    `
    daemon off; worker_processes 1; pid ${own('pid')}; error_log stderr crit;
    events { worker_connections 4096; }
    http {
      access_log off; sendfile on; tcp_nodelay on;
      client_body_temp_path ${own('body')}; proxy_temp_path ${own('proxy')}; fastcgi_temp_path ${own('fcgi')};
      uwsgi_temp_path ${own('uwsgi')}; scgi_temp_path ${own('scgi')};
      proxy_cache_path ${own('store')} keys_zone=all:16m max_size=4g use_temp_path=off;
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass ${origin}; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_cache all; proxy_cache_revalidate on; proxy_cache_lock on; proxy_cache_lock_timeout 5m; proxy_cache_lock_age 5m;
        }
      }
    }`,
  );
  return startTool(port, 'nginx', '-p', directory, '-c', config);
}

/** Squid with a memory cache that holds everything, no log; those who ask for the same at once share one fetch. */
export async function startSquid(): Promise<Running> {
  const port = await freePort();
  const config = scratchFile(
    'squid.conf',
    `
    http_port 127.0.0.1:${port}
    http_access allow all
    cache_mem 1024 MB
    maximum_object_size_in_memory 512 MB
    maximum_object_size 512 MB
    range_offset_limit none
    collapsed_forwarding on
    refresh_pattern . 1440 100% 10080
    access_log none
    cache_log /dev/null
    pid_filename none
    shutdown_lifetime 0 seconds
    coredump_dir ${directory}`,
  );
  return startTool(port, 'squid', '-N', '-f', config);
}

/** Redis that keeps everything in memory and nothing else. */
export async function startRedis(): Promise<Running> {
  const port = await freePort();
  const redis = await startTool(port, 'redis-server', '--port', String(port), '--bind', '127.0.0.1', '--save', '');
  return { ...redis, url: `redis://127.0.0.1:${port}` };
}

async function startTool(port: number, command: string, ...args: readonly string[]): Promise<Running> {
  const child = spawn(command, args, { stdio: 'ignore' });
  running.add(child);
  await answering(port);
  return handle(child, `http://127.0.0.1:${port}`);
}

function handle(child: ChildProcess, url: string): Running {
  return {
    url,
    port: Number(new URL(url).port),
    process: child,
    async stop() {
      running.delete(child);
      if (child.exitCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** Bytes a second that curl reports for one download. */
export function curl(url: string, ...args: readonly string[]): number {
  const output = execFileSync(
    'curl',
    ['-s', '-S', '-f', '-o', '/dev/null', '-w', '%{speed_download} %{size_download}', ...args, url],
    { encoding: 'utf8' },
  );
  return Number(output.split(' ')[0]);
}

/** Seconds until the first byte, by curl. */
export function timeToFirstByte(url: string, ...args: readonly string[]): number {
  return Number(
    execFileSync('curl', ['-s', '-o', '/dev/null', '-w', '%{time_starttransfer}', ...args, url], { encoding: 'utf8' }),
  );
}

/** A script of wrk: random ranges of a content. @param bytes of the content @param length of a range */
export const rangeScript = (path: string, bytes: number, length = 65_536): string => `
  math.randomseed(7)
  request = function()
    local first = math.random(0, ${bytes - length})
    return wrk.format("GET", "${path}", { ["Range"] = "bytes=" .. first .. "-" .. (first + ${length - 1}) })
  end`;

/** Requests a second by wrk: 64 connections, one thread. */
export function wrk(url: string, script: string, seconds: number): number {
  return wrkFigure(execFileSync('wrk', ['-t1', '-c64', `-d${seconds}s`, '-s', script, url], { encoding: 'utf8' }));
}

/** The same beside whatever else is going on. */
export async function wrkInBackground(url: string, script: string, seconds: number): Promise<number> {
  const { stdout } = await promisify(execFile)('wrk', ['-t1', '-c64', `-d${seconds}s`, '-s', script, url]);
  return wrkFigure(stdout);
}

/** The same with so many connections, beside whatever else is going on, and how long the slowest of a hundred answers takes. */
export async function wrkLatency(
  url: string,
  script: string,
  connections: number,
  seconds: number,
): Promise<{ readonly perSecond: number; readonly p99: string }> {
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '-s', script, url];
  const { stdout } = await promisify(execFile)('wrk', args);
  return { perSecond: wrkFigure(stdout), p99: /99%\s+(\S+)/.exec(stdout)?.[1] ?? 'unknown' };
}

function wrkFigure(output: string): number {
  const figure = /Requests\/sec:\s+([\d.]+)/.exec(output)?.[1];
  if (figure === undefined || /Non-2xx/.test(output)) throw new Error(`wrk: ${output}`);
  return Number(figure);
}

/** Resident memory of a process now, bytes. */
export function residentMemory({ process: child }: Running): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024;
}

/** Peak resident memory of a process so far, bytes. */
export function peakMemory({ process: child }: Running): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024;
}

/** A port that nothing listens on, for a server whose address others have to know before it starts. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function answering(port: number): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    const socket = connect(port, '127.0.0.1');
    const connected = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (connected) return;
    await new Promise((resolve) => {
      setTimeout(resolve, 25);
    });
  }
  throw new Error(`nothing listens on port ${port}`);
}

/** Dates a file a year back: by RFC 9111 4.2.2 an answer without an explicit lifetime then stays fresh for weeks. */
export function dateBack(path: string): void {
  const then = Date.now() / 1000 - 365 * 86_400;
  utimesSync(path, then, then);
}
