/** A publisher and a consumer, each a process of its own: the consumer believes no byte without its hash. `node dist/examples/publish-and-read.js` */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { CONTENT_TAG_BYTES, type ContentHandle, PeerDist } from 'peerdist';

/** Publishes a file and hands out what describes it, until the other process lets go. */
async function publisher(): Promise<void> {
  const file = Buffer.from(Array.from({ length: 65_536 }, (_, n) => `line ${String(n).padStart(10, '0')}\n`).join(''));
  await using pd = await PeerDist.open();
  await using publication = await pd.server.publish('the file');
  await publication.addData(file);
  const { length } = await publication.complete();

  const server = createServer((request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    if (request.url === '/file') response.writeHead(206).end(file.subarray(Number(first), Number(last) + 1));
    else void describe(pd, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  console.log(`publisher: has a file of ${length} bytes`);
  process.send?.(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await once(process, 'disconnect');
  server.close();
  server.closeAllConnections();
}

async function describe(pd: PeerDist, response: ServerResponse): Promise<void> {
  await using reader = await pd.server.openContentInformation('the file');
  await pipeline(reader.toReadable(), response);
}

/** Learns what the file looks like, and reads it from its own cache or, where that has a hole, from the publisher. */
async function consumer(url: string): Promise<void> {
  const tag = new Uint8Array(CONTENT_TAG_BYTES).fill(7);
  await using pd = await PeerDist.open();
  await using content = await pd.client.openContent(tag);

  const hashes = await download(`${url}/content-information`);
  const { range } = await content.setContentInformation(hashes);
  console.log(`consumer: got ${hashes.byteLength} bytes of hashes, which describe ${range.length} bytes`);

  const begun = await content.addData(0, await download(`${url}/file`, 0, 600_000));
  console.log('consumer: an earlier download stopped after 600000 bytes');
  console.log(`consumer: ${begun.verified} of them are verified, ${begun.pending} are no whole block yet`);

  await read(content, 320_000);
  const hole = await read(content, 900_000);
  if (hole !== undefined) {
    const { verified, rejected } = await content.addData(
      hole.offset,
      await download(`${url}/file`, hole.offset, hole.length),
    );
    console.log(`consumer: asks the publisher for the hole: ${verified} bytes verified, ${rejected} rejected`);
  }
  await read(content, 900_000);

  await pd.client.flush(tag);
  console.log('consumer: empties its cache');
  await read(content, 900_000);
}

/** Reads one line out of the own cache, or says what is missing. */
async function read(content: ContentHandle, offset: number): Promise<{ offset: number; length: number } | undefined> {
  const result = await content.readAt(offset, { maxBytes: 15, timeoutMs: 0 });
  if (result.kind === 'data') console.log(`consumer: reads at ${offset}: "${Buffer.from(result.data).toString()}"`);
  if (result.kind !== 'missing') return undefined;
  const { missing } = result;
  console.log(`consumer: reads at ${offset}: a hole of ${missing.length} bytes from ${missing.offset} on`);
  return missing;
}

async function download(url: string, offset?: number, length = 0): Promise<Uint8Array> {
  const headers: Record<string, string> =
    offset === undefined ? {} : { range: `bytes=${offset}-${offset + length - 1}` };
  return new Uint8Array(await (await fetch(url, { headers })).arrayBuffer());
}

if (process.argv[2] === 'publisher') {
  await publisher();
} else {
  const other = fork(fileURLToPath(import.meta.url), ['publisher']);
  const ended = once(other, 'exit');
  const [url] = (await once(other, 'message')) as [string];
  try {
    await consumer(url);
  } finally {
    other.disconnect();
    await ended;
  }
}
