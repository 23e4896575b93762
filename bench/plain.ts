/** Origins that describe nothing: warm against described ones, cold against the host without plug-ins, and a crowd of clients that keep their connections. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { median, MiB, paired, seededBytes } from './measure.ts';
import {
  curl,
  dateBack,
  hasTool,
  rangeScript,
  residentMemory,
  scratchFile,
  startCommand,
  startNginx,
  startServer,
  wrk,
  wrkLatency,
} from './processes.ts';
import { gigabytes, type Line, perSecond } from './report.ts';

const SECONDS = 3;
/** Long enough to be described as it passes, and not to be. */
const LONG_BYTES = 256 * MiB;
const SHORT_BYTES = 8 * MiB;
/** Milliseconds in which what has passed is described, and downloads of which the median counts. */
const REST_MS = 100;
const DOWNLOADS = 8;

const CLIENTS = 10_000;
const ACTIVE = 200;

export async function benchPlain(): Promise<Line[]> {
  scratchFile('plain.bin', seededBytes(LONG_BYTES));
  scratchFile('short.bin', seededBytes(SHORT_BYTES));
  for (const name of ['plain.bin', 'short.bin']) dateBack(scratchFile(name));
  const nginx = await startNginx();
  const lines = [...(await warm(nginx.url)), ...(await cold(nginx.url)), ...(await crowd(nginx.url))];
  await nginx.stop();
  return lines;
}

async function warm(origin: string): Promise<Line[]> {
  if (!hasTool('wrk')) return [{ what: 'warm ranges of a plain origin: wrk is not installed', value: 'skipped' }];
  const reverse = await startCommand('reverse', '--origin', origin, '--secret-hex', '00ff');
  const limits = ['--max-cache', '2GiB', '--pending-size', '1200MiB'];
  const described = await startCommand('branch', '--origin', reverse.url, ...limits);
  const plain = await startCommand('branch', '--origin', origin, ...limits);
  for (const { url } of [described, described, plain, plain]) curl(`${url}/plain.bin`);
  const ranges = scratchFile('plain.lua', rangeScript('/plain.bin', LONG_BYTES));
  const { value, yardstick, ratio } = await paired(
    () => wrk(plain.url, ranges, SECONDS),
    () => wrk(described.url, ranges, SECONDS),
  );
  for (const each of [plain, described, reverse]) await each.stop();
  const what = 'warm random 64 KiB ranges of a plain origin, against one that describes';
  return [{ what, value: perSecond(value), yardstick: perSecond(yardstick), ratio, goal: 0.95 }];
}

/** Each download is of a resource that nobody has asked for before. */
async function cold(origin: string): Promise<Line[]> {
  const storing = await startServer('block-cache', origin);
  const host = await startServer('host', origin);
  let count = 0;
  const speed = (url: string, name: string): number => curl(`${url}/${name}?${(count += 1)}`);
  const long = await paired(
    () => speed(storing.url, 'plain.bin'),
    () => speed(host.url, 'plain.bin'),
  );
  const rested = async (url: string): Promise<number> => {
    const speeds: number[] = [];
    for (let download = 0; download < DOWNLOADS; download += 1) {
      speeds.push(speed(url, 'short.bin'));
      await pause(REST_MS);
    }
    return median(speeds);
  };
  const short = await paired(
    () => rested(storing.url),
    () => rested(host.url),
  );
  await storing.stop();
  await host.stop();
  const line = (what: string, { value, yardstick, ratio }: typeof long, goal: number): Line => ({
    what,
    value: gigabytes(value),
    yardstick: gigabytes(yardstick),
    ratio,
    goal,
  });
  return [
    line('cold 256 MB, stored and described (v1) as it passes, against the host without plug-ins', long, 0.5),
    line('cold 8 MB until the last byte, described afterwards, against the host without plug-ins', short, 0.75),
  ];
}

/** Many clients that have asked once and keep their connections, while some others go on asking. */
async function crowd(origin: string): Promise<Line[]> {
  if (!hasTool('wrk')) return [{ what: 'kept connections: wrk is not installed', value: 'skipped' }];
  const branch = await startCommand('branch', '--origin', origin, '--max-cache', '256MiB');
  const ranges = scratchFile('crowd.lua', rangeScript('/plain.bin', MiB, 4096));
  curl(`${branch.url}/plain.bin`, '-r', '0-1048575');
  await wrkLatency(branch.url, ranges, ACTIVE, SECONDS);
  const before = residentMemory(branch);
  const { port } = new URL(branch.url);
  const idle: Socket[] = [];
  while (idle.length < CLIENTS - ACTIVE) idle.push(await askOnce(Number(port)));
  const memory = residentMemory(branch) - before;
  const { perSecond: rate, p99 } = await wrkLatency(branch.url, ranges, ACTIVE, SECONDS);
  for (const socket of idle) socket.destroy();
  await branch.stop();
  return [
    {
      what: `${CLIENTS.toLocaleString('en')} kept connections, ${ACTIVE} asking for warm 4 KiB ranges: p99; answers a second`,
      value: `${p99}; ${perSecond(rate)}`,
    },
    {
      what: 'the same: memory for each kept connection',
      value: `${(memory / idle.length / 1024).toFixed(1)} KiB`,
    },
  ];
}

/** A connection that has had one answer and is kept. */
async function askOnce(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write('GET /plain.bin HTTP/1.1\r\nHost: bench\r\nRange: bytes=0-99\r\n\r\n');
  await once(socket, 'data');
  return socket.pause();
}
