/**
 * The same update waves against `peerdist branch`, Squid and nginx, one after the other, each behind the same WAN line to the same origin,
 * and then once more with an empty cache: a second branch, which comes when head office has seen the files.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import Table from 'cli-table3';
import { WanLink } from '../plugins/standalone/demo/wan-link.ts';
import type { LoadResult } from '../plugins/standalone/load/run-load.ts';
import { formatBytes } from '../plugins/standalone/options/units.ts';
import { freePort, hasTool, type Running, startCommand, startNginxCache, startSquid } from './processes.ts';
import type { Line } from './report.ts';

/** Two waves; the file of the second one is that of the first one with an insertion. */
const PROFILE = ['--profile', 'update-wave', '--clients', '30', '--wave-size', '16MiB', '--wave-edit', '64KiB'];
const TIMES = ['--duration', '13s', '--wave-every', '12s', '--wave-within', '10s'];
const LINE = { bitsPerSecond: 100e6, roundTripMs: 20 };
const MAX_REPORT_BYTES = 64 * 2 ** 20;

/** A cache and where the load is to reach it, in front of a WAN line to a place that has the objects. */
interface Side {
  /** Far end of the WAN line. */
  readonly headOffice: { readonly port: number };
  /** An empty cache at the near end. */
  readonly start: (line: string) => Promise<Running>;
  readonly reach: (cache: Running) => readonly string[];
  readonly stop: () => Promise<void>;
}

interface Measured {
  readonly name: string;
  readonly branch: (typeof BRANCHES)[number];
  readonly result: LoadResult;
  /** Both ways, heads too. */
  readonly wanBytes: number;
}

const BRANCHES = ['first', 'second'] as const;
const throughProxy = ({ port }: Running): readonly string[] => ['--proxy', `127.0.0.1:${port}`];

const SIDES: Readonly<Record<string, (originPort: number) => Promise<Side>>> = {
  peerdist: async (originPort) => {
    const origin = `http://127.0.0.1:${originPort}`;
    const headOffice = await startCommand('reverse', '--origin', origin, '--secret-hex', '00ff');
    const start = (): Promise<Running> => startCommand('branch');
    return { headOffice, start, reach: throughProxy, stop: () => headOffice.stop() };
  },
  squid: async (originPort) => ({
    headOffice: { port: originPort },
    start: startSquid,
    reach: throughProxy,
    stop: async () => {},
  }),
  nginx: async (originPort) => ({
    headOffice: { port: originPort },
    start: startNginxCache,
    reach: ({ url }) => ['--target', url],
    stop: async () => {},
  }),
};

export async function benchLoad(): Promise<Line[]> {
  const all: Measured[] = [];
  for (const [name, prepare] of Object.entries(SIDES))
    if (name === 'peerdist' || hasTool(name)) all.push(...(await measure(name, prepare)));
  console.log(table(all));
  const theirs = all.filter(({ name }) => name !== 'peerdist');
  return theirs.map(({ name, branch, wanBytes }) => {
    const ours = all.find((each) => each.name === 'peerdist' && each.branch === branch) as Measured;
    return {
      what: `WAN bytes of two update waves of 16 MiB, ${branch} branch, against ${name}`,
      value: formatBytes(ours.wanBytes),
      yardstick: formatBytes(wanBytes),
      ratio: ours.wanBytes / wanBytes,
    };
  });
}

async function measure(name: string, prepare: (originPort: number) => Promise<Side>): Promise<Measured[]> {
  const originPort = await freePort();
  const side = await prepare(originPort);
  const line = new WanLink({ ...LINE, target: { host: '127.0.0.1', port: side.headOffice.port } });
  line.server.listen(0, '127.0.0.1');
  await once(line.server, 'listening');
  const url = `http://127.0.0.1:${(line.server.address() as AddressInfo).port}`;
  const origin = ['--origin-listen', `127.0.0.1:${originPort}`, '--url-base', url];
  const measured: Measured[] = [];
  for (const branch of BRANCHES) {
    const before = line.bytes;
    const cache = await side.start(url);
    const result = await load(...PROFILE, ...TIMES, ...origin, ...side.reach(cache));
    await cache.stop();
    measured.push({ name, branch, result, wanBytes: line.bytes - before });
  }
  line.close();
  await side.stop();
  return measured;
}

/** Runs the command. Requests that failed are in its report; that it counts them as a failure of its own does not matter here. */
function load(...args: readonly string[]): Promise<LoadResult> {
  const command = new URL('../plugins/standalone/main.js', import.meta.url).pathname;
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [command, 'load', ...args, '--json'],
      { maxBuffer: MAX_REPORT_BYTES },
      (error, stdout, stderr) => {
        if (error === null || error.code === 1) resolve(JSON.parse(stdout) as LoadResult);
        else reject(new Error(stderr));
      },
    );
  });
}

function table(all: readonly Measured[]): string {
  const rows = new Table({
    head: ['proxy', 'branch', 'client bytes', 'WAN bytes', 'p50', 'p99', 'errors'],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, branch, result, wanBytes } of all) {
    const { p50, p99 } = result.lastByteMs;
    const times = [p50, p99].map((ms) => `${Math.round(ms)} ms`);
    const { clientBytes, requests } = result;
    rows.push([name, branch, formatBytes(clientBytes), formatBytes(wanBytes), ...times, requests.failed]);
  }
  return rows.toString();
}
