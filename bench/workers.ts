/** Two workers against one: what a request costs, and how connections spread. A third core, where the rate itself would show, is not asked for. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { cpus } from 'node:os';
import { promisify } from 'node:util';
import { median, MiB, ROUNDS, seededBytes } from './measure.ts';
import {
  curl,
  dateBack,
  hasTool,
  rangeScript,
  type Running,
  scratchFile,
  startCommand,
  startNginx,
  wrkInBackground,
} from './processes.ts';
import { type Line, perSecond } from './report.ts';

const SECONDS = 4;
const CONNECTIONS = 64;

interface Measured {
  /** CPU seconds for each request, all processes of the role together. */
  readonly cost: number;
  readonly rate: number;
  /** Share of the connections that the busier worker has. */
  readonly share: number;
}

export async function benchWorkers(): Promise<Line[]> {
  if (!hasTool('wrk')) return [{ what: 'workers: wrk is not installed', value: 'skipped' }];
  scratchFile('workers.bin', seededBytes(64 * MiB));
  dateBack(scratchFile('workers.bin'));
  const nginx = await startNginx();
  const reverse = await startCommand('reverse', '--origin', nginx.url, '--secret-hex', '00ff');
  const script = scratchFile('workers.lua', rangeScript('/workers.bin', 64 * MiB));
  const start = (workers: number): Promise<Running> => {
    const state = scratchFile(`workers-${workers}`);
    const store = ['--store', 'disk', '--state-dir', state, '--workers', String(workers)];
    return startCommand('branch', '--origin', reverse.url, ...store);
  };
  const one = await start(1);
  const two = await start(2);
  for (const { url } of [one, two]) for (let round = 0; round < 2; round += 1) curl(`${url}/workers.bin`);
  // Each worker has a memory of its own to fill.
  for (let round = 0; round < 3; round += 1) for (const each of [one, two]) await measure(each, script);
  const ones: Measured[] = [];
  const twos: Measured[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    ones.push(await measure(one, script));
    twos.push(await measure(two, script));
  }
  for (const each of [one, two, reverse, nginx]) await each.stop();
  const ratio = (of: (measured: Measured) => number): number =>
    median(twos.map((each, index) => of(each) / of(ones[index] as Measured)));
  const cost = (measured: readonly Measured[]): string =>
    `${(median(measured.map((each) => each.cost)) * 1e6).toFixed(1)} µs`;
  const share = median(twos.map((each) => each.share));
  const rate = (measured: readonly Measured[]): number => median(measured.map((each) => each.rate));
  return [
    {
      what: 'CPU time for a warm 64 KiB range, two workers against one process',
      value: cost(twos),
      yardstick: cost(ones),
      ratio: ratio((each) => each.cost),
      goal: 1.15,
      atMost: true,
    },
    {
      what: 'share of 64 connections that the busier of two workers has',
      value: `${Math.round(share * 100)} %`,
      ratio: share / 0.6,
      goal: 1,
      atMost: true,
    },
    {
      what: `the same, requests a second (${cpus().length} cores, of which the client takes one)`,
      value: perSecond(rate(twos)),
      yardstick: perSecond(rate(ones)),
      ratio: ratio((each) => each.rate),
    },
  ];
}

async function measure(proxy: Running, script: string): Promise<Measured> {
  const pids = await family(proxy.process.pid as number);
  const before = pids.map(cpuSeconds);
  const running = wrkInBackground(proxy.url, script, SECONDS);
  await new Promise((resolve) => {
    setTimeout(resolve, (SECONDS * 1000) / 2);
  });
  const connections = pids.map(sockets).filter((count) => count >= CONNECTIONS / 8);
  const rate = await running;
  const used = pids.reduce((sum, pid, index) => sum + cpuSeconds(pid) - (before[index] as number), 0);
  const all = connections.reduce((sum, count) => sum + count, 0);
  return { cost: used / (rate * SECONDS), rate, share: Math.max(...connections) / all };
}

/** A process and its children. */
async function family(pid: number): Promise<number[]> {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'pid=', '--ppid', String(pid)]).catch(() => ({
    stdout: '',
  }));
  return [
    pid,
    ...stdout
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map(Number),
  ];
}

function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function sockets(pid: number): number {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory).filter((fd) => {
    try {
      return readlinkSync(`${directory}/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}
