/** The Peer Distribution API: read streams, publishing, and what an open handle costs. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { pipeline, Readable } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { nativeHashProvider } from '../lib/crypto/index.ts';
import { type ContentHandle, PeerDist } from '../lib/peerdist/index.ts';
import { ServerSecret } from '../lib/protocol/pccrc/index.ts';
import { ContentHasher } from '../lib/streams/index.ts';
import { MiB, paired, rate, ROUNDS, seededBytes } from './measure.ts';
import { gigabytes, type Line } from './report.ts';

const CONTENT_BYTES = 128 * MiB;
const BLOCK_BYTES = 64 * 1024;
const HANDLES = 10_000;
/** A round takes a tenth of a second, so there is time for many, and two ratios near one need them. */
const MANY_ROUNDS = 4 * ROUNDS;

/** Bytes a second of one GET on loopback, read by a socket that only counts. */
function download({ port }: { readonly port: number }, path: string): Promise<number> {
  return rate(CONTENT_BYTES, async () => {
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET ${path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n`);
    socket.resume();
    await once(socket, 'close');
  });
}

async function serve(answer: (request: IncomingMessage) => Readable): Promise<Server> {
  const server = createServer((request, response: ServerResponse) => pipeline(answer(request), response, () => {}));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** Content in the own cache, and the handle to read it. */
async function warmContent(pd: PeerDist, content: Buffer): Promise<ContentHandle> {
  await using publication = await pd.server.publish('warm');
  await publication.addData(content);
  await publication.complete();
  const handle = await pd.client.openContent(Buffer.alloc(16));
  await handle.setContentInformation(await pd.server.getContentInformation('warm'));
  await handle.addData(0, content);
  return handle;
}

async function benchReadStream(): Promise<Line> {
  await using pd = await PeerDist.open();
  const content = seededBytes(CONTENT_BYTES);
  await using handle = await warmContent(pd, content);
  const range = { offset: 0, length: CONTENT_BYTES };
  const buffers = handle.peek(range) as Uint8Array[];
  const server = await serve(({ url }) =>
    url === '/stream'
      ? handle.createReadStream({ range })
      : Readable.from(buffers, { objectMode: false, highWaterMark: 4 * BLOCK_BYTES }),
  );
  const address = server.address() as AddressInfo;
  for (const path of ['/stream', '/buffers']) await download(address, path);
  const { value, yardstick, ratio } = await paired(
    () => download(address, '/stream'),
    () => download(address, '/buffers'),
    MANY_ROUNDS,
  );
  server.close();
  return {
    what: 'createReadStream over a warm store, against Readable.from(buffers), to an HTTP response',
    value: gigabytes(value),
    yardstick: gigabytes(yardstick),
    ratio,
    goal: 0.85,
  };
}

async function benchPublish(): Promise<Line> {
  const secret = ServerSecret.fromText('bench');
  await using pd = await PeerDist.open({ serverSecret: secret });
  const chunks = seededBytes(CONTENT_BYTES);
  const feed = async (hasher: ContentHasher): Promise<void> => {
    hasher.resume();
    for (let at = 0; at < CONTENT_BYTES; at += BLOCK_BYTES) {
      if (!hasher.write(chunks.subarray(at, at + BLOCK_BYTES))) await once(hasher, 'drain');
    }
    hasher.end();
    await hasher.contentInformation;
  };
  const publish = async (): Promise<void> => {
    const transform = await pd.server.publishThrough('bench');
    await feed(transform);
    await transform.published;
    await pd.server.unpublish('bench');
  };
  const hash = (): Promise<void> => feed(new ContentHasher({ provider: nativeHashProvider, secret }));
  await publish();
  const { value, yardstick, ratio } = await paired(
    () => rate(CONTENT_BYTES, publish),
    () => rate(CONTENT_BYTES, hash),
    MANY_ROUNDS,
  );
  return {
    what: 'publishing through PublishTransform, against the bare ContentHasher',
    value: gigabytes(value),
    yardstick: gigabytes(yardstick),
    ratio,
    goal: 0.95,
  };
}

async function benchHandles(): Promise<Line> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const held = (): number => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  await using pd = await PeerDist.open();
  await using publication = await pd.server.publish('small');
  await publication.addData(seededBytes(BLOCK_BYTES));
  await publication.complete();
  const information = await pd.server.getContentInformation('small');
  const before = held();
  const handles: ContentHandle[] = [];
  for (let index = 0; index < HANDLES; index += 1) {
    const handle = await pd.client.openContent(Buffer.alloc(16, index));
    await handle.setContentInformation(Uint8Array.from(information));
    handles.push(handle);
  }
  const bytes = held() - before;
  await Promise.all(handles.map((handle) => handle.close()));
  return {
    what: `${HANDLES.toLocaleString('en')} open content handles, share of 40 MB`,
    value: `${(bytes / MiB).toFixed(1)} MB`,
    ratio: bytes / (40 * MiB),
    goal: 1,
    atMost: true,
  };
}

export async function benchApi(): Promise<Line[]> {
  // The handles first: what the others leave to the collector would be counted against them.
  const handles = await benchHandles();
  return [await benchReadStream(), await benchPublish(), handles];
}
