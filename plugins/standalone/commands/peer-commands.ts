/** `peerdist probe` and `peerdist get`: the neighbours without a proxy. */
import { createWriteStream, readFileSync, renameSync, rmSync } from 'node:fs';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { get as httpsGet } from 'node:https';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import Table from 'cli-table3';
import type { Command } from 'commander';
import { nativeHashProvider } from '../../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { type ContentInformation, decodeContentInformation } from '../../../lib/protocol/pccrc/index.ts';
import { formatPeerAddress } from '../../../lib/protocol/pccrd/index.ts';
import { DescribedContent, Discovery, type Holder } from '../../../lib/services/index.ts';
import { MemoryBlockStore } from '../../../lib/stores/index.ts';
import { fetchContentInformation } from '../../hosted-cache/index.ts';
import {
  addDiscoveryOptions,
  addPeerOptions,
  type DiscoveryValues,
  neighbourhoodOptions,
  type PeerValues,
} from '../options/peer-options.ts';
import { ProgressBar } from '../progress.ts';
import type { Terminal } from '../terminal.ts';
import { startBranch } from '../roles/roles.ts';
import type { Service } from '../roles/service.ts';
import { formatBytes } from '../options/units.ts';

/** Segments `probe` asks about: as many as discovery lets out at once. */
const MAX_PROBED_SEGMENTS = 6_400;
/** Milliseconds `probe` waits for answers: back-off, request timer, and a slow neighbour. */
const PROBE_WAIT_MS = 1_000;

export function addProbeCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  addDiscoveryOptions(
    program
      .command('probe')
      .description('ask the LAN who has a content')
      .argument('<file|url>', 'content information, as hash -o writes it, or where to get it'),
  )
    .option('--json', 'print JSON')
    .action(async (from: string, values: DiscoveryValues & { readonly json?: true }) => {
      const information = await readContentInformation(from);
      const content = new DescribedContent(information, nativeHashProvider);
      const segments = Math.min(information.segmentCount, MAX_PROBED_SEGMENTS);
      const holdings = await askTheLan(content, segments, values);
      const peers = [...holdings].map(([peer, held]) => ({ peer, ...held }));
      if (values.json === true) terminal.print(JSON.stringify({ segments, peers }, undefined, 2));
      else terminal.print(probeReport(peers, segments, information.segmentCount));
      exit(peers.length > 0 ? 0 : 1);
    });
}

interface Holdings {
  /** Segments the peer has some blocks of. */
  some: number;
  /** Segments it has all blocks of. */
  all: number;
}

async function askTheLan(
  content: DescribedContent,
  segments: number,
  { discoveryInterface, discoveryPort }: DiscoveryValues,
): Promise<Map<string, Holdings>> {
  const store = new MemoryBlockStore({ maxBytes: 1 });
  const discovery = await Discovery.open({ store, interfaces: discoveryInterface, port: discoveryPort });
  if (discovery.interfaces.length === 0) {
    discovery.close();
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'no network interface can be used for discovery');
  }
  const ids = Array.from({ length: segments }, (_, segment) => content.segmentId(segment));
  discovery.seek(ids, content.information.version);
  await delay(PROBE_WAIT_MS);
  const holdings = new Map<string, Holdings>();
  ids.forEach((id, segment) => {
    const { blockCount } = content.segmentFacts(segment);
    const isAll = ({ blocks }: Holder): boolean => blocks === 'all' || blocks >= blockCount;
    for (const holder of discovery.holders(id)) {
      const name = formatPeerAddress(holder.peer);
      const held = holdings.get(name) ?? { some: 0, all: 0 };
      held.some += 1;
      if (isAll(holder)) held.all += 1;
      holdings.set(name, held);
    }
  });
  discovery.close();
  return holdings;
}

function probeReport(
  peers: readonly (Holdings & { readonly peer: string })[],
  asked: number,
  segments: number,
): string {
  const scope = asked === segments ? `${segments} segments` : `the first ${asked} of ${segments} segments`;
  if (peers.length === 0) return `Nobody on the LAN says that it has any of ${scope}.`;
  const table = new Table({
    head: ['peer', 'segments', 'of them complete'],
    colAligns: ['left', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const { peer, some, all } of peers) table.push([peer, `${some} of ${asked}`, all]);
  return `Asked about ${scope}:\n${table.toString()}`;
}

async function readContentInformation(from: string): Promise<ContentInformation> {
  try {
    return decodeContentInformation(isUrl(from) ? await requireContentInformation(from) : readFileSync(from));
  } catch (error) {
    const reason = isPeerDistError(error) ? error.message : (error as NodeJS.ErrnoException).code;
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `no content information from ${from}: ${reason}`);
  }
}

async function requireContentInformation(url: string): Promise<Uint8Array> {
  const information = await fetchContentInformation(url);
  if (information !== undefined) return information;
  throw new PeerDistError(
    'ERR_PEERDIST_NOT_FOUND',
    'the server sends none, or has not hashed this content yet; ask again after a first download',
  );
}

interface GetValues extends PeerValues {
  readonly output: string;
}

export function addGetCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  addPeerOptions(
    program
      .command('get')
      .description('download through peers, without a proxy')
      .argument('<url>')
      .requiredOption('-o, --output <file>', 'where to write it'),
  ).action(async (url: string, values: GetValues) => {
    if (!isUrl(url)) throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not an http or https URL: ${url}`);
    const branch = await startBranch({
      origin: new URL(url).origin,
      listen: { host: '127.0.0.1', port: 0 },
      admin: undefined,
      neighbourhood: neighbourhoodOptions(values, terminal.warn),
    });
    const part = `${values.output}.part`;
    try {
      const started = performance.now();
      const { delivered } = branch.metrics;
      const bytes = await save(throughBranch(url, branch.address.port), part, delivered);
      renameSync(part, values.output);
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      terminal.print(`${formatBytes(bytes)} in ${seconds} s: ${bySource(delivered(), bytes)}`);
    } catch (error) {
      rmSync(part, { force: true });
      terminal.warn(`peerdist: ${url}: ${(error as Error).message}`);
      exit(1);
    } finally {
      await branch.stop(0);
    }
  });
}

/** The same URL at the branch, which is a gateway to its origin. */
function throughBranch(url: string, port: number): string {
  const { pathname, search } = new URL(url);
  return `http://127.0.0.1:${port}${pathname}${search}`;
}

type Delivered = ReturnType<Service['metrics']['delivered']>;

async function save(url: string, file: string, delivered: () => Delivered): Promise<number> {
  const response = await request(url);
  if (response.statusCode !== 200) {
    const reason = await firstLine(response);
    throw new Error(`the server answered ${response.statusCode}${reason === '' ? '' : `: ${reason}`}`);
  }
  const total = Number(response.headers['content-length'] ?? 0);
  const bar = new ProgressBar('{bar} {percentage}%  {sources}  {eta_formatted} left');
  bar.show('get', 0, total, { sources: '' });
  let bytes = 0;
  response.on('data', (chunk: Uint8Array) => {
    bytes += chunk.byteLength;
    bar.show('get', bytes, total, { sources: bySource(delivered(), bytes) });
  });
  try {
    await pipeline(response, createWriteStream(file));
  } finally {
    bar.stop();
  }
  return bytes;
}

/**
 * Where the bytes so far came from. The branch counts what it reads ahead too, and what no cache has touched not at all. A block that the
 * content repeats is counted where it came from first, which is the origin unless peers brought everything.
 */
function bySource({ peer, hosted_cache: hosted, store, origin }: Delivered, bytes: number): string {
  const fromCache = Math.min(bytes, hosted);
  const fromPeers = Math.min(bytes - fromCache, origin === 0 ? peer + store : peer);
  const others = hosted === 0 ? '' : `${formatBytes(fromCache)} from the hosted cache, `;
  return `${others}${formatBytes(fromPeers)} from peers, ${formatBytes(bytes - fromCache - fromPeers)} from the origin`;
}

function request(url: string, headers: Readonly<Record<string, string>> = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    (url.startsWith('https:') ? httpsGet : httpGet)(url, { headers }, resolve).once('error', reject);
  });
}

async function firstLine(response: IncomingMessage): Promise<string> {
  for await (const chunk of response as AsyncIterable<Buffer>)
    return chunk.toString().split('\n')[0]?.slice(0, 200) ?? '';
  return '';
}

function isUrl(text: string): boolean {
  return /^https?:\/\//i.test(text) && URL.canParse(text);
}
