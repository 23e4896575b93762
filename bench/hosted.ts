/** A hosted cache: what it takes in of one client and of many, and what it gives away. */
import { Agent, createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { fromHex } from '../lib/bytes/index.ts';
import { encodeOffer, MAX_DESCRIPTORS, OFFER_HASHES, V2_OFFER_PATH } from '../lib/protocol/pchc/index.ts';
import { decodeResponse, encodeRequest, REQUEST_ID_BYTES, RETRIEVAL_PATH } from '../lib/protocol/pccrr/index.ts';
import { openHoldings, RetrievalServer } from '../lib/services/index.ts';
import { MemoryBlockStore } from '../lib/stores/index.ts';
import { HostedCacheService } from '../plugins/hosted-cache/index.ts';
import { grantHeapSlack } from '../plugins/standalone/heap.ts';
import { blockScript } from './block-script.ts';
import { median, paired, rate, ROUNDS } from './measure.ts';
import { peerContent, type PeerContent } from './peer-content.ts';
import { minimalDownload } from './peers.ts';
import { hasTool, type Running, startNode, wrk, wrkInBackground } from './processes.ts';
import { gigabytes, type Line, perSecond } from './report.ts';

const MEGABYTES = 256;
const CLIENTS = 200;
/** How often it is asked whether all is in, milliseconds. */
const POLL_MS = 5;

const startHosted = (): Promise<Running> =>
  startNode(
    '../plugins/standalone/main.js',
    'hosted',
    '--listen',
    '127.0.0.1:0',
    '--no-offer-listen',
    '--no-admin',
    '--allow-local-offers',
    '--max-cache',
    '2GiB',
    '--client-quota',
    '100GiB',
  );

interface Target {
  readonly agent: Agent;
  readonly port: number;
  readonly localAddress?: string;
}

function post({ agent, port, localAddress }: Target, path: string, message: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-length': message.byteLength };
    const source = localAddress === undefined ? {} : { localAddress };
    const request = httpRequest(
      { agent, host: '127.0.0.1', port, ...source, method: 'POST', path, headers },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('end', () =>
          response.statusCode === 200 ? resolve(Buffer.concat(chunks)) : reject(new Error(`${response.statusCode}`)),
        );
      },
    );
    request.once('error', reject);
    request.end(message);
  });
}

/** Segments of a content, so many to an offer. */
function batches({ content }: PeerContent, count: number): number[][] {
  const segments = Array.from({ length: content.information.segmentCount }, (_, segment) => segment);
  return Array.from({ length: Math.ceil(segments.length / count) }, (_, at) =>
    segments.slice(at * count, (at + 1) * count),
  );
}

function offerOf({ content }: PeerContent, segments: readonly number[], port: number): Uint8Array {
  const { information } = content;
  return encodeOffer({
    type: 'batched-offer',
    port,
    segments: segments.map((segment) => {
      const { length } = information.segmentRange(segment);
      return {
        blockSize: information.version === 2 ? length : 64 * 1024,
        segmentSize: length,
        contentTag: Buffer.alloc(16),
        hashAlgorithm: OFFER_HASHES[information.version === 2 ? 'truncated-sha512' : 'sha256'],
        segmentId: fromHex(content.segmentId(segment)),
      };
    }),
  });
}

/** Resolves when the hosted cache says that it has some of every segment. */
async function allIn({ content }: PeerContent, target: Target): Promise<void> {
  for (const segments of batches({ content } as PeerContent, MAX_DESCRIPTORS).toReversed()) {
    const segmentIds = segments.map((segment) => fromHex(content.segmentId(segment)));
    const message = encodeRequest({
      type: 'get-segment-list',
      cipher: 'aes-128',
      requestId: Buffer.alloc(REQUEST_ID_BYTES),
      segmentIds,
      blob: new Uint8Array(0),
    });
    for (;;) {
      const answer = decodeResponse(await post(target, RETRIEVAL_PATH, message));
      if (answer.type !== 'segment-list') throw new Error(answer.type);
      if (answer.ranges.reduce((sum, { count }) => sum + count, 0) === segmentIds.length) break;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

/** One client offers all of a content. */
async function offerAll(content: PeerContent, peer: Running, target: Target): Promise<void> {
  for (const segments of batches(content, MAX_DESCRIPTORS))
    await post(target, V2_OFFER_PATH, offerOf(content, segments, peer.port));
}

/** And gives it away. */
async function ingest(content: PeerContent, peer: Running, port: number): Promise<void> {
  const target = { agent: new Agent({ keepAlive: true }), port };
  await offerAll(content, peer, target);
  await allIn(content, target);
  target.agent.destroy();
}

/** In this process, as warm as the minimal client is; a new one each time, since what it has taken in it does not take again. */
async function ingestHere(content: PeerContent, peer: Running): Promise<void> {
  const store = new MemoryBlockStore({ maxBytes: 2 * content.bytes.byteLength });
  let missing = content.content.information.blockCount;
  await new Promise<void>((resolve, reject) => {
    const hosted = new HostedCacheService({
      store,
      allowLocalOffers: true,
      observer: (observation) => {
        if (observation.type !== 'ingest') return;
        if (observation.result !== 'stored') reject(new Error(observation.result));
        missing -= 1;
        if (missing > 0) return;
        hosted.close();
        hosted.server.close().closeAllConnections();
        resolve();
      },
    });
    hosted.server.listen(0, '127.0.0.1', () => {
      const { port } = hosted.server.address() as AddressInfo;
      offerAll(content, peer, { agent: new Agent({ keepAlive: true }), port }).catch(reject);
    });
  });
}

async function benchIngest(): Promise<Line> {
  const content = peerContent(2, MEGABYTES);
  const peer = await startNode('./peer.js', 'warm', '2', String(MEGABYTES), 'aes-128');
  const total = content.bytes.byteLength;
  // The same work: each block in one piece, kept.
  const minimal = async (): Promise<void> => {
    const kept = new Map<number, Buffer>();
    await minimalDownload(content, peer, true, (ordinal, block) => kept.set(ordinal, block));
    if (kept.size !== content.content.information.blockCount) throw new Error('not all of it');
  };
  for (const warmUp of [minimal, () => ingestHere(content, peer)]) await warmUp();
  const { value, yardstick, ratio } = await paired(
    () => rate(total, () => ingestHere(content, peer)),
    () => rate(total, minimal),
  );
  await peer.stop();
  const what = `hosted cache, ${MEGABYTES} MB offered by one client, v2, against a minimal client that fetches and keeps the same`;
  return { what, value: gigabytes(value), yardstick: gigabytes(yardstick), ratio, goal: 0.75 };
}

async function benchServing(): Promise<Line[]> {
  if (!hasTool('wrk')) return [];
  const content = peerContent(2, 64);
  const peer = await startNode('./peer.js', 'warm', '2', '64', 'aes-128');
  const hosted = await startHosted();
  await ingest(content, peer, hosted.port);
  await peer.stop();
  const minimal = await startNode('./peer.js', 'plain', '2', '64', 'none');
  const script = blockScript(content.content, 256);
  const { value, yardstick, ratio } = await paired(
    () => wrk(hosted.url, script, 3),
    () => wrk(minimal.url, script, 3),
  );
  await hosted.stop();
  await minimal.stop();
  const what = 'hosted cache, block requests, 64 connections, against a minimal server with the same POSTs';
  return [{ what, value: perSecond(value), yardstick: perSecond(yardstick), ratio, goal: 0.6 }];
}

/** Many clients, each an address of its own, offer at once while 64 others ask; nothing of what is offered may be missing in the end. */
async function benchMany(): Promise<Line[]> {
  if (!hasTool('wrk')) return [];
  const content = peerContent(2, MEGABYTES);
  const asked = peerContent(1, 64);
  const store = new MemoryBlockStore({ maxBytes: 2 * content.bytes.byteLength });
  for (let ordinal = 0; ordinal < content.content.information.blockCount; ordinal += 1) {
    const block = content.content.block(ordinal);
    const data = content.bytes.subarray(block.offset, block.offset + block.length);
    store.set(content.content.key(block), data, 'bench', content.content.segmentFacts(block.segment));
  }
  const retrieval = new RetrievalServer({ holdings: openHoldings(store, 'aes-128') });
  const addresses = Array.from({ length: CLIENTS }, (_, client) => `127.0.1.${client + 1}`);
  const servers = await Promise.all(
    addresses.map(async (address) => {
      const server = createServer({ noDelay: true }, (request, response) => retrieval.handle(request, response));
      server.listen(0, address);
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  const shares = batches(content, Math.ceil(content.content.information.segmentCount / CLIENTS));
  const warmUpPeer = await startNode('./peer.js', 'warm', '1', '64', 'aes-128');
  const script = blockScript(asked.content, 256);
  const rates: number[] = [];
  const served: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const hosted = await startHosted();
    await ingest(asked, warmUpPeer, hosted.port);
    const agents = addresses.map(() => new Agent({ keepAlive: true }));
    const serving = wrkInBackground(hosted.url, script, 3);
    rates.push(
      await rate(content.bytes.byteLength, async () => {
        await Promise.all(
          shares.map((segments, client) => {
            const target = {
              agent: agents[client] as Agent,
              port: hosted.port,
              localAddress: addresses[client] as string,
            };
            return post(target, V2_OFFER_PATH, offerOf(content, segments, ports[client] as number));
          }),
        );
        // From another address than the 64: each may have so many connections.
        await allIn(content, { agent: agents[0] as Agent, port: hosted.port, localAddress: addresses[0] as string });
      }),
    );
    served.push(await serving);
    for (const agent of agents) agent.destroy();
    await hosted.stop();
  }
  await warmUpPeer.stop();
  for (const server of servers) server.close().closeAllConnections();
  return [
    {
      what: `hosted cache, ${MEGABYTES} MB offered by ${CLIENTS} clients at once while 64 others ask`,
      value: gigabytes(median(rates)),
    },
    { what: 'what those 64 got meanwhile', value: perSecond(median(served)) },
  ];
}

export async function benchHosted(): Promise<Line[]> {
  // As the command does.
  grantHeapSlack();
  return [await benchIngest(), ...(await benchServing()), ...(await benchMany())];
}
