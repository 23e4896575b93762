/** Blocks from the neighbours: a download from one, from three, with a liar among them; what one gives; what a running download holds. */
import { execFile } from 'node:child_process';
import { Agent, request as httpRequest } from 'node:http';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { type CipherName, decryptBlock } from '../lib/crypto/index.ts';
import { PeerDist } from '../lib/peerdist/index.ts';
import { encodeContentInformation } from '../lib/protocol/pccrc/index.ts';
import { decodeResponse, encodeRequest, RETRIEVAL_PATH } from '../lib/protocol/pccrr/index.ts';
import { PeerSource } from '../lib/services/index.ts';
import { MemoryBlockStore } from '../lib/stores/index.ts';
import { fromHex } from '../lib/bytes/index.ts';
import { grantHeapSlack } from '../plugins/standalone/heap.ts';
import { median, MiB, paired, rate, ROUNDS } from './measure.ts';
import { blockScript } from './block-script.ts';
import { peerContent, type PeerContent } from './peer-content.ts';
import { hasTool, type Running, scratchFile, startNode, wrk } from './processes.ts';
import { gigabytes, type Line, perSecond } from './report.ts';

const MEGABYTES = 256;
const CONNECTIONS = 32;
const SLOW_PEER_BYTES_PER_SECOND = 25e6;

const startPeer = (kind: string, version: 1 | 2, cipher: CipherName, ...more: readonly string[]): Promise<Running> =>
  startNode('./peer.js', kind, String(version), String(MEGABYTES), cipher, ...more);

/** Seconds of a whole download through the API, from peers only. A hole fails it. */
async function download({ content, bytes }: PeerContent, peers: readonly Running[]): Promise<void> {
  const source = new PeerSource({ peers: peers.map(({ port }) => ({ address: '127.0.0.1', port })) });
  await using pd = await PeerDist.open({
    components: { sources: [source], blockStore: new MemoryBlockStore({ maxBytes: 64 * MiB }) },
  });
  await using handle = await pd.client.openContent(Buffer.alloc(16));
  await handle.setContentInformation(encodeContentInformation(content.information));
  let received = 0;
  await pipeline(
    handle.createReadStream({ range: { offset: 0, length: bytes.byteLength } }),
    new Writable({
      write(chunk: Uint8Array, _encoding, callback) {
        received += chunk.byteLength;
        callback();
      },
    }),
  );
  source.close();
  if (received !== bytes.byteLength) throw new Error(`received ${received}`);
}

/**
 * The smallest client: posts for the same blocks over as many connections, decrypts and hashes, and does nothing else.
 *
 * @param isBare neither decrypts nor hashes
 */
export async function minimalDownload(
  { content }: PeerContent,
  { port }: Running,
  isBare = false,
  keep?: (ordinal: number, block: Buffer) => void,
): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const count = content.information.blockCount;
  let next = 0;
  const fetchBlock = (ordinal: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const block = content.block(ordinal);
      const message = encodeRequest({
        type: 'get-blocks',
        cipher: 'aes-128',
        segmentId: fromHex(content.segmentId(block.segment)),
        ranges: [{ index: block.blockIndex, count: 1 }],
      });
      const headers = { 'content-length': message.byteLength };
      const request = httpRequest(
        { agent, host: '127.0.0.1', port, method: 'POST', path: RETRIEVAL_PATH, headers },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.once('end', () => {
            if (isBare) {
              keep?.(ordinal, Buffer.concat(chunks));
              return resolve();
            }
            const answer = decodeResponse(Buffer.concat(chunks));
            if (answer.type !== 'block') return reject(new Error(answer.type));
            const secret = content.information.segmentSecret(block.segment);
            const data = decryptBlock(answer.cipher, secret, answer, block.length);
            return data !== undefined && content.verify(block, data) ? resolve() : reject(new Error('a wrong block'));
          });
        },
      );
      request.once('error', reject);
      request.end(message);
    });
  const worker = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await fetchBlock(next - 1);
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, worker));
  agent.destroy();
}

async function benchOnePeer(): Promise<Line[]> {
  const lines: Line[] = [];
  for (const version of [1, 2] as const) {
    const content = peerContent(version, MEGABYTES);
    const total = content.bytes.byteLength;
    for (const cipher of ['none', 'aes-128'] as const) {
      const peer = await startPeer('warm', version, cipher);
      for (const warmUp of [minimalDownload, (c: PeerContent, p: Running) => download(c, [p])])
        await warmUp(content, peer);
      const { value, yardstick, ratio } = await paired(
        () => rate(total, () => download(content, [peer])),
        () => rate(total, () => minimalDownload(content, peer)),
      );
      await peer.stop();
      const what = `${MEGABYTES} MB from one peer, v${version}, ${cipher}, against a minimal client`;
      lines.push({ what, value: gigabytes(value), yardstick: gigabytes(yardstick), ratio, goal: 0.75 });
    }
    const plain = await startPeer('plain', version, 'none');
    const value = median(await inTurn(ROUNDS, () => rate(total, () => minimalDownload(content, plain, true))));
    await plain.stop();
    lines.push({ what: `the same blocks over plain HTTP, v${version} (no goal)`, value: gigabytes(value) });
  }
  return lines;
}

async function benchThreePeers(): Promise<Line> {
  const content = peerContent(2, MEGABYTES);
  const total = content.bytes.byteLength;
  const peers = await Promise.all(Array.from({ length: 3 }, () => startPeer('warm', 2, 'aes-128')));
  await download(content, peers);
  const { value, yardstick, ratio } = await paired(
    () => rate(total, () => download(content, peers)),
    () => rate(total, () => download(content, peers.slice(0, 1))),
  );
  for (const peer of peers) await peer.stop();
  const what = `${MEGABYTES} MB from three peers, against one`;
  return { what, value: gigabytes(value), yardstick: gigabytes(yardstick), ratio, goal: 0.85 };
}

async function benchLiar(): Promise<Line> {
  const content = peerContent(2, MEGABYTES);
  const slow = (kind: string): Promise<Running> => startPeer(kind, 2, 'aes-128', String(SLOW_PEER_BYTES_PER_SECOND));
  const honest = [await slow('warm'), await slow('warm')];
  const liar = await slow('liar');
  const seconds = async (peers: readonly Running[]): Promise<number> => {
    const started = performance.now();
    await download(content, peers);
    return (performance.now() - started) / 1000;
  };
  const { value, yardstick, ratio } = await paired(
    () => seconds([liar, ...honest]),
    () => seconds(honest),
    Math.min(3, ROUNDS),
  );
  for (const peer of [...honest, liar]) await peer.stop();
  return {
    what: `${MEGABYTES} MB with one liar among three peers of 25 MB/s each, against the two honest ones`,
    value: `${value.toFixed(1)} s`,
    yardstick: `${yardstick.toFixed(1)} s`,
    ratio,
    goal: 1.5,
    atMost: true,
  };
}

/** Requests for random blocks of one version 1 segment. */
async function benchServer(): Promise<Line[]> {
  if (!hasTool('wrk')) return [];
  const { content } = peerContent(1, MEGABYTES);
  const script = blockScript(content, 256);
  const warm = await startPeer('warm', 1, 'aes-128');
  const minimal = await startPeer('minimal', 1, 'aes-128');
  const { value, yardstick, ratio } = await paired(
    () => wrk(warm.url, script, 3),
    () => wrk(minimal.url, script, 3),
  );
  await warm.stop();
  await minimal.stop();
  return [
    {
      // 8,000 a second where the minimal server does 12,000.
      what: 'retrieval server, block requests with AES-128, against a minimal server that encrypts the same bytes',
      value: perSecond(value),
      yardstick: perSecond(yardstick),
      ratio,
      goal: 0.67,
    },
  ];
}

interface Footprint {
  readonly read: number;
  readonly peak: number;
  readonly window: number;
}

async function footprint(megabytes: number): Promise<Footprint> {
  const { content, bytes } = peerContent(2, megabytes);
  const file = scratchFile(`${megabytes}.v2`, encodeContentInformation(content.information));
  const peer = await startNode('./peer.js', 'warm', '2', String(megabytes), 'aes-128');
  const script = new URL('./peer-download.js', import.meta.url).pathname;
  const { stdout } = await promisify(execFile)(process.execPath, [script, file, String(peer.port)]);
  await peer.stop();
  const result = JSON.parse(stdout) as Footprint;
  if (result.read !== bytes.byteLength) throw new Error(`received ${result.read}`);
  return result;
}

/** What a running download holds must not grow with the file. */
async function benchWindow(): Promise<Line[]> {
  const small = await footprint(128);
  const large = await footprint(512);
  const megabytes = (count: number): string => `${(count / MiB).toFixed(1)} MB`;
  return [
    {
      what: 'a running download: bytes asked for and not read yet, share of 4 MB and one segment',
      value: megabytes(large.window),
      ratio: large.window / (4 * MiB + 128 * 1024),
      goal: 1,
      atMost: true,
    },
    {
      what: 'peak memory of a download, 512 MB over 128 MB, share of 16 MB',
      value: megabytes(large.peak - small.peak),
      ratio: (large.peak - small.peak) / (16 * MiB),
      goal: 1,
      atMost: true,
    },
  ];
}

async function inTurn(rounds: number, measure: () => Promise<number>): Promise<number[]> {
  const values: number[] = [];
  for (let round = 0; round < rounds; round += 1) values.push(await measure());
  return values;
}

export async function benchPeers(): Promise<Line[]> {
  // As the command does.
  grantHeapSlack();
  return [
    ...(await benchOnePeer()),
    await benchThreePeers(),
    await benchLiar(),
    ...(await benchServer()),
    ...(await benchWindow()),
  ];
}
