/** `peerdist estimate` on a log of ten million lines over at most a million contents: time, and peak memory of its process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseCatalogue, syntheticRecords } from '../plugins/standalone/estimate/synthetic.ts';
import { MiB } from './measure.ts';
import { scratchFile } from './processes.ts';
import { type Line, perSecond } from './report.ts';

const LINES = Number(process.env['BENCH_ESTIMATE_LINES'] ?? 10_000_000);
const SITES = 20;
const CATALOGUE = `sites=${SITES},clients=200,objects=1000000,requests=${LINES},zipf=0.8,meanSize=300000,updates=500`;
const MEMORY_LIMIT_BYTES = 300 * MiB;
/** Milliseconds between two looks at the memory of the process. */
const LOOK_MS = 100;

export async function benchEstimate(): Promise<Line[]> {
  const log = scratchFile('access.log');
  writeLog(log);
  const { size } = statSync(log);
  const sites = scratchFile(
    'sites.txt',
    Array.from({ length: SITES }, (_, site) => `branch-${site} 10.${site}.0.0/16\n`).join(''),
  );
  const { seconds, peakBytes } = await run(log, '--sites', sites, '--json');
  rmSync(log);
  return [
    {
      what: `estimate, ${LINES.toLocaleString('en')} lines (${Math.round(size / MiB)} MB) of ${SITES} sites`,
      value: perSecond(LINES / seconds),
      yardstick: `${seconds.toFixed(0)} s`,
    },
    {
      what: 'estimate, peak memory of its process over that log, share of 300 MB',
      value: `${Math.round(peakBytes / MiB)} MB`,
      ratio: peakBytes / MEMORY_LIMIT_BYTES,
      goal: 1,
      atMost: true,
    },
  ];
}

/** Runs the command to its end. */
async function run(...args: readonly string[]): Promise<{ readonly seconds: number; readonly peakBytes: number }> {
  const started = performance.now();
  const command = new URL('../plugins/standalone/main.js', import.meta.url).pathname;
  const child = spawn(process.execPath, [command, 'estimate', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let peakBytes = 0;
  const look = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      peakBytes = Math.max(peakBytes, Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024);
    } catch {
      // It has ended.
    }
  }, LOOK_MS);
  const ended = once(child, 'exit');
  let requests = 0;
  for await (const line of createInterface({ input: child.stdout }))
    requests ||= Number(/^ {4}"requests": (\d+)/.exec(line)?.[1] ?? 0);
  const [code] = (await ended) as [number | null];
  clearInterval(look);
  if (code !== 0 || requests !== LINES) throw new Error(`estimate ended with ${code} after ${requests} requests`);
  return { seconds: (performance.now() - started) / 1000, peakBytes };
}

/** Lines of nginx. */
function writeLog(file: string): void {
  const output = openSync(file, 'w');
  let second = -1;
  let time = '';
  for (const batch of syntheticRecords(parseCatalogue(CATALOGUE))) {
    const lines = batch.map(({ timeMs, client, url, bytes }) => {
      if (Math.floor(timeMs / 1000) !== second) {
        second = Math.floor(timeMs / 1000);
        time = logTime(second);
      }
      const [site, host] = client.split('.').map(Number) as [number, number];
      return `10.${site}.0.${host} - - [${time}] "GET /downloads${url}.bin HTTP/1.1" 200 ${bytes} "-" "Microsoft BITS/7.8"\n`;
    });
    writeSync(output, lines.join(''));
  }
  closeSync(output);
}

function logTime(second: number): string {
  const [, day, month, year, clock] = new Date(second * 1000).toUTCString().split(' ') as [
    string,
    string,
    string,
    string,
    string,
  ];
  return `${day}/${month}/${year}:${clock} +0000`;
}
