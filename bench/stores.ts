/** Stores on disk and in Redis against those in memory: warm, cold, the first use after a start, opening, memory for each entry. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { LmdbBlockStore } from '../lib/stores/index.ts';
import { median, MiB, paired, ROUNDS, seededBytes } from './measure.ts';
import {
  curl,
  dateBack,
  hasTool,
  rangeScript,
  type Running,
  scratchFile,
  startCommand,
  startNginx,
  startRedis,
  wrk,
} from './processes.ts';
import { gigabytes, type Line, perSecond } from './report.ts';

const SECONDS = 3;
const REQUESTS = 300;
const AGENT = new Agent({ keepAlive: true });
const ENTRIES = 1_000_000;
/** Of a store of 100 GB. */
const MANY_ENTRIES = 1_600_000;

/** Of a client that reads content information: head office then hashes what passes. */
const CODED = ['-H', 'Accept-Encoding: peerdist', '-H', 'X-P2P-PeerDist: Version=1.0'];
/** Downloads before anything is measured: code is compiled, stores are full. */
const WARM_UP = 3;

let states = 0;

/** A directory that no store has been in. */
function freshState(): string {
  return scratchFile(`state-${(states += 1)}`);
}

export async function benchStores(): Promise<Line[]> {
  scratchFile('stores.bin', seededBytes(256 * MiB));
  dateBack(scratchFile('stores.bin'));
  const nginx = await startNginx();
  const reverse = await startCommand('reverse', '--origin', nginx.url, '--secret-hex', '00ff');
  curl(`${reverse.url}/stores.bin`, ...CODED);
  const lines = [...(hasTool('wrk') ? await warm(reverse) : []), await cold(reverse), ...(await afterStart(reverse))];
  await reverse.stop();
  lines.push(...(await throughRedis(nginx)));
  await nginx.stop();
  return [...lines, ...(await manyEntries())];
}

const branchOf = (reverse: Running, ...store: readonly string[]): Promise<Running> =>
  startCommand(
    'branch',
    '--origin',
    reverse.url,
    ...(store.includes('--max-cache') ? [] : ['--max-cache', '2GiB']),
    ...store,
  );

async function warm(reverse: Running): Promise<Line[]> {
  const script = scratchFile('store-ranges.lua', rangeScript('/stores.bin', 256 * MiB));
  const memory = await branchOf(reverse, '--store', 'memory');
  const lines: Line[] = [];
  for (const [size, what] of [
    ['16MiB', 'memory in front for a sixteenth of it'],
    ['256MiB', 'the default memory in front'],
  ] as const) {
    const disk = await branchOf(reverse, '--store', 'disk', '--memory', size, '--state-dir', freshState());
    for (const { url } of [memory, disk]) for (let round = 0; round < 2; round += 1) curl(`${url}/stores.bin`);
    const { value, yardstick, ratio } = await paired(
      () => wrk(disk.url, script, SECONDS),
      () => wrk(memory.url, script, SECONDS),
    );
    lines.push({
      what: `disk, warm random 64 KiB ranges of 256 MB, ${what}, against the store in memory`,
      value: perSecond(value),
      yardstick: perSecond(yardstick),
      ratio,
      goal: 0.5,
    });
    await disk.stop();
  }
  await memory.stop();
  return lines;
}

/** Contents that are new to branches which have been running for a while, and whose stores are full. */
async function cold(reverse: Running): Promise<Line> {
  const names = Array.from({ length: WARM_UP + ROUNDS }, (_, index) => `new-${index}.bin`);
  for (const [index, name] of names.entries()) {
    scratchFile(name, seededBytes(256 * MiB, 1_000 + index));
    dateBack(scratchFile(name));
    curl(`${reverse.url}/${name}`, ...CODED);
  }
  const full = ['--max-cache', '600MiB'];
  const disk = await branchOf(reverse, '--store', 'disk', '--state-dir', freshState(), ...full);
  const memory = await branchOf(reverse, '--store', 'memory', ...full);
  for (const name of names.slice(0, WARM_UP)) for (const { url } of [disk, memory]) curl(`${url}/${name}`);
  const [ofDisk, ofMemory] = [names.slice(WARM_UP), names.slice(WARM_UP)];
  const { value, yardstick, ratio } = await paired(
    () => curl(`${disk.url}/${ofDisk.shift()}`),
    () => curl(`${memory.url}/${ofMemory.shift()}`),
  );
  await disk.stop();
  await memory.stop();
  const what = 'disk, 256 MB downloaded while it is written and something else evicted, against the store in memory';
  return { what, value: gigabytes(value), yardstick: gigabytes(yardstick), ratio, goal: 0.85 };
}

/** What the verification at the first use costs: the same download right after a start, and again. */
async function afterStart(reverse: Running): Promise<Line[]> {
  const state = freshState();
  const start = (): Promise<Running> => branchOf(reverse, '--store', 'disk', '--memory', '16MiB', '--state-dir', state);
  const filler = await start();
  curl(`${filler.url}/stores.bin`);
  await filler.stop();
  const firsts: number[] = [];
  const seconds: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const branch = await start();
    firsts.push(curl(`${branch.url}/stores.bin`));
    seconds.push(curl(`${branch.url}/stores.bin`));
    await branch.stop();
  }
  const value = median(firsts);
  const yardstick = median(seconds);
  const what = 'disk, 256 MB read the first time after a start, every block hashed, against the second time';
  return [{ what, value: gigabytes(value), yardstick: gigabytes(yardstick), ratio: value / yardstick }];
}

/** What it takes to answer with content information out of Redis, nothing of it in memory, beyond what it takes out of memory. */
async function throughRedis(nginx: Running): Promise<Line[]> {
  if (!hasTool('redis-server')) return [{ what: 'redis: redis-server is not installed', value: 'skipped' }];
  scratchFile('redis.bin', seededBytes(64 * MiB));
  dateBack(scratchFile('redis.bin'));
  const redis = await startRedis();
  const reverse = (...store: readonly string[]): Promise<Running> =>
    startCommand('reverse', '--origin', nginx.url, '--secret-hex', '00ff', ...store);
  const far = await reverse('--store', redis.url, '--memory', '1');
  const near = await reverse();
  for (const { url } of [far, near]) curl(`${url}/redis.bin`, ...CODED);
  const fars: number[] = [];
  const nears: number[] = [];
  for (let round = 0; round < REQUESTS; round += 1) {
    fars.push(await codedMs(`${far.url}/redis.bin`));
    nears.push(await codedMs(`${near.url}/redis.bin`));
  }
  for (const each of [far, near, redis]) await each.stop();
  const added = median(fars) - median(nears);
  return [
    {
      what: 'redis, content information of 64 MB, added at p50, share of 2 ms',
      value: `${added.toFixed(2)} ms`,
      yardstick: `${median(nears).toFixed(2)} ms`,
      ratio: added / 2,
      goal: 1,
      atMost: true,
    },
  ];
}

/** Milliseconds of one request that content information answers. */
async function codedMs(url: string): Promise<number> {
  const started = performance.now();
  const headers = { 'accept-encoding': 'peerdist', 'x-p2p-peerdist': 'Version=1.0' };
  await new Promise<void>((resolve, reject) => {
    get(url, { headers, agent: AGENT }, (response) => {
      if (response.headers['content-encoding'] !== 'peerdist') reject(new Error('the body itself came'));
      response.resume().once('end', resolve);
    }).once('error', reject);
  });
  return performance.now() - started;
}

/** A store of many short values: what it takes of the process, and how soon it is open again. */
async function manyEntries(): Promise<Line[]> {
  const directory = mkdtempSync(`${scratchFile('entries')}-`);
  const open = (): Promise<LmdbBlockStore> => LmdbBlockStore.open({ directory, maxBytes: 1e12 });
  let store = await open();
  const value = seededBytes(32);
  const before = privateBytes();
  const key = (index: number): string => `${index.toString(16).padStart(64, '0')}:0`;
  let after = 0;
  for (let from = 0; from < MANY_ENTRIES; from += 4_000) {
    const facts = { secret: value, blockCount: 1 };
    const batch = Array.from({ length: 4_000 }, (_, index) => store.set(key(from + index), value, 'bench', facts));
    await Promise.all(batch);
    if (from + 4_000 === ENTRIES) {
      // Every one has been used, as it would be in a branch.
      for (let index = 0; index < ENTRIES; index += 1) store.touch(key(index));
      await store.written();
      after = privateBytes();
    }
  }
  await store.close();
  const openings: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const started = performance.now();
    store = await open();
    await store.get(key(round));
    openings.push((performance.now() - started) / 1000);
    await store.close();
  }
  rmSync(directory, { recursive: true });
  const perEntry = (after - before) / ENTRIES;
  return [
    {
      what: 'disk, memory of the process for each of a million entries, share of 200 bytes',
      value: `${perEntry.toFixed(0)} B`,
      ratio: perEntry / 200,
      goal: 1,
      atMost: true,
    },
    {
      what: 'disk, opening 1.6 million entries and reading one, share of 2 s',
      value: `${(median(openings) * 1000).toFixed(0)} ms`,
      ratio: median(openings) / 2,
      goal: 1,
      atMost: true,
    },
  ];
}

/** Memory that is this process's own: not the mapped file, which the system takes back when it needs it. */
function privateBytes(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
}
