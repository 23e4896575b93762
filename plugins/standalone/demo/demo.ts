/** `npm start`: the whole job on loopback, with a real file, an honest slow line, and a table at the end. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import Table from 'cli-table3';
import { parseRange, resolveRanges } from '../../../lib/http/index.ts';
import { startReverse } from '../roles/roles.ts';
import { randomSecret } from '../options/secret-options.ts';
import { formatBytes, formatListen } from '../options/units.ts';
import { startTwoBranches } from './branches.ts';
import { type Download, ProxyClient } from './client.ts';
import { ProgressBar } from '../progress.ts';
import type { Terminal } from '../terminal.ts';
import { WanLink } from './wan-link.ts';

const LOOPBACK = { host: '127.0.0.1', port: 0 };
const SMALLEST_FILE_BYTES = 50 * 1024 * 1024;
const SEEDED_BYTES = 100 * 1024 * 1024;
const RANDOM_RANGES = 20;
const RANGE_BYTES = 256 * 1024;

interface Row extends Download {
  readonly name: string;
  readonly wanBytes: number;
  readonly seconds: number;
}

/** Runs the demonstration. @returns true when every byte was right */
export async function runDemo(
  { print, stopRequested }: Pick<Terminal, 'print' | 'stopRequested'>,
  { keep }: { readonly keep: boolean },
): Promise<boolean> {
  const { file, name } = demoFile();
  const origin = await listen(fileServer(file));
  const reverse = await startReverse({
    origin: `http://127.0.0.1:${port(origin)}`,
    secret: randomSecret(),
    listen: LOOPBACK,
    admin: LOOPBACK,
  });
  const wan = new WanLink({ target: reverse.address, bitsPerSecond: 100e6, roundTripMs: 40 });
  await listen(wan.server);
  const { branches, areFound } = await startTwoBranches();
  const url = `http://127.0.0.1:${port(wan.server)}/download.bin`;
  const [client, neighbour] = branches.map(({ address }) => new ProxyClient(address, url, file)) as [
    ProxyClient,
    ProxyClient,
  ];
  print(
    `Clients in a branch office download ${name} (${formatBytes(file.byteLength)}) from head office over a WAN line`,
  );
  print('of 100 Mbit/s and 40 ms. Head office describes the file by hashes; a branch proxy keeps its blocks and gives');
  print(`them to the other one on the same LAN, which ${areFound ? 'finds it by multicast' : 'was told of it'}.`);
  print('');
  print(`  origin       http://127.0.0.1:${port(origin)}        the web server, knows nothing of this`);
  print(`  head office  http://${formatListen(reverse.address)}        peerdist reverse`);
  print(`  WAN line     http://127.0.0.1:${port(wan.server)}        100 Mbit/s, 40 ms, every byte counted`);
  for (const [index, { address, peers }] of branches.entries()) {
    const place = `http://${formatListen(address)}`;
    print(
      `  branch ${'AB'[index]}     ${place}        peerdist branch, a client's proxy; blocks for peers at ${peers}`,
    );
  }
  print('');
  print('Dashboards, while this runs:');
  for (const [index, { admin }] of branches.entries()) print(`  branch ${'AB'[index]}     http://${admin}/dashboard`);
  print(`  head office  http://${formatListen(reverse.addressOf('admin') ?? LOOPBACK)}/dashboard`);
  print('');

  const rows: Row[] = [];
  const measure = async (what: string, work: () => Promise<Download>): Promise<void> => {
    const before = wan.bytes;
    const started = performance.now();
    const download = await work();
    const seconds = (performance.now() - started) / 1000;
    // What the branch still asks for behind the client's back belongs to this download too.
    await settled(() => wan.bytes);
    rows.push({ name: what, ...download, wanBytes: wan.bytes - before, seconds });
  };
  const whole = (what: string, by: ProxyClient): Promise<void> =>
    measure(what, () => withBar(what, file.byteLength, (progress) => by.whole(progress)));
  for (const what of ['1st download', '2nd download', '3rd download']) await whole(`A: ${what}`, client);
  await measure(`A: ${RANDOM_RANGES} random ranges`, async () => {
    const downloads: Download[] = [];
    for (const range of randomRanges(file.byteLength, RANDOM_RANGES)) downloads.push(await client.ranges([range]));
    return {
      bytes: downloads.reduce((sum, { bytes }) => sum + bytes, 0),
      matches: downloads.every(({ matches }) => matches),
    };
  });
  await measure('A: 5 ranges in one request', () =>
    client.ranges(randomRanges(file.byteLength, 5).toSorted((a, b) => a.first - b.first)),
  );
  await whole('B: 1st download, from A', neighbour);

  print(table(rows));
  const matches = rows.every((row) => row.matches);
  print(matches ? 'Every byte was compared with the file: all right.' : 'WRONG BYTES: see the table.');
  if (keep) {
    print('Everything is left running; Ctrl+C ends it.');
    await stopRequested;
  }
  client.close();
  neighbour.close();
  wan.close();
  await Promise.all([...branches.map((branch) => branch.stop()), reverse.stop(0)]);
  origin.closeAllConnections();
  origin.close();
  return matches;
}

/** A real file that everybody who can run this has: Node itself. Where it is small (a shared library build), seeded bytes. */
function demoFile(): { file: Buffer; name: string } {
  if (statSync(process.execPath).size >= SMALLEST_FILE_BYTES)
    return { file: readFileSync(process.execPath), name: 'the Node executable' };
  const file = Buffer.alloc(SEEDED_BYTES);
  let block = createHash('sha512').update('peerdist demo').digest();
  for (let at = 0; at < file.byteLength; at += block.byteLength) {
    block.copy(file, at);
    block = createHash('sha512').update(block).digest();
  }
  return { file, name: 'a file of seeded random bytes' };
}

/** The origin: an ordinary web server for one file, with ETag, Last-Modified and ranges. */
function fileServer(file: Buffer): Server {
  const etag = `"${createHash('sha256').update(file).digest('hex').slice(0, 16)}"`;
  const lastModified = new Date(Date.now() - 30 * 86_400_000).toUTCString();
  return createServer((request, response) => {
    const head = {
      etag,
      'last-modified': lastModified,
      'accept-ranges': 'bytes',
      'content-type': 'application/octet-stream',
    };
    if (request.headers['if-none-match'] === etag) return response.writeHead(304, head).end();
    const specs =
      request.headers['if-range'] === undefined || request.headers['if-range'] === etag
        ? parseRange(request.headers.range)
        : undefined;
    const [range] = specs === undefined ? [] : resolveRanges(specs, file.byteLength);
    if (range === undefined) return response.writeHead(200, { ...head, 'content-length': file.byteLength }).end(file);
    const { offset, length } = range;
    response.writeHead(206, {
      ...head,
      'content-length': length,
      'content-range': `bytes ${offset}-${offset + length - 1}/${file.byteLength}`,
    });
    return response.end(file.subarray(offset, offset + length));
  });
}

/** Ranges that do not touch, in a fixed pseudo-random order, so that two runs can be compared. */
function randomRanges(length: number, count: number): { first: number; last: number }[] {
  const slot = Math.floor(length / count);
  const digest = createHash('sha512').update(`ranges ${count}`).digest();
  return Array.from({ length: count }, (_, index) => {
    const first = index * slot + (digest.readUInt32BE(index * 2) % (slot - RANGE_BYTES));
    return { first, last: first + RANGE_BYTES - 1 };
  }).toSorted((a, b) => ((a.first * 31) % 97) - ((b.first * 31) % 97));
}

async function withBar(
  name: string,
  total: number,
  work: (progress: (bytes: number) => void) => Promise<Download>,
): Promise<Download> {
  const bar = new ProgressBar('  {step} [{bar}] {percentage}%  {eta}s left');
  const show = (bytes: number): void => bar.show(name, bytes, total);
  show(0);
  try {
    return await work(show);
  } finally {
    bar.stop();
  }
}

function table(rows: readonly Row[]): string {
  const output = new Table({
    head: ['', 'client got', 'WAN carried', 'WAN saved', 'seconds', 'bytes right'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'left'],
    style: { head: [], border: [] },
  });
  for (const { name, bytes, wanBytes, seconds, matches } of rows) {
    output.push([
      name,
      formatBytes(bytes),
      formatBytes(wanBytes),
      `${((1 - wanBytes / bytes) * 100).toFixed(2)} %`,
      seconds.toFixed(2),
      matches ? 'yes' : 'NO',
    ]);
  }
  return output.toString();
}

/** Waits until a figure has stood still for a while. */
async function settled(figure: () => number): Promise<void> {
  for (let last = -1; last !== figure();) {
    last = figure();
    await new Promise((resolve) => {
      setTimeout(resolve, 250);
    });
  }
}

function listen(server: Server | WanLink['server']): Promise<Server> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(server as Server));
  });
}

function port(server: { address(): AddressInfo | string | null }): number {
  return (server.address() as AddressInfo).port;
}
