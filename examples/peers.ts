/**
 * Two peers on one machine. The first has a content; the second knows its content information only and reads it from the first, block by
 * block, encrypted on the way and verified on arrival. On a LAN, `Discovery.open({ store, portOn })` as `finder` would find the first by itself.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import {
  createLanHttpServer,
  MemoryBlockStore,
  openHoldings,
  PeerDist,
  PeerSource,
  RetrievalServer,
} from '../lib/index.ts';

const TAG = Buffer.from('peers-example-16');
const content = Buffer.concat(
  Array.from({ length: 8_000 }, (_, line) => createHash('sha512').update(`${line}`).digest()),
);

// The first peer: its store holds the content, and a server gives blocks away.
const store = new MemoryBlockStore({ maxBytes: 64 * 1024 * 1024 });
await using first = await PeerDist.open({ components: { blockStore: store } });
await using publication = await first.server.publish('example');
await publication.addData(content);
await publication.complete();
const information = await first.server.getContentInformation('example', { versions: { min: 1, max: 2 } });
await using own = await first.client.openContent(TAG);
await own.setContentInformation(information);
await own.addData(0, content);
const server = createLanHttpServer([new RetrievalServer({ holdings: openHoldings(store) })]);
server.listen(0, '127.0.0.1');
await once(server, 'listening');

// The second peer: nothing but the content information and the first one's address.
const { port } = server.address() as AddressInfo;
const source = new PeerSource({ peers: [{ address: '127.0.0.1', port }] });
await using second = await PeerDist.open({ components: { sources: [source] } });
await using handle = await second.client.openContent(TAG);
await handle.setContentInformation(information);
const digest = createHash('sha256');
for await (const chunk of handle.createReadStream()) digest.update(chunk as Buffer);
const isRight = digest.digest('hex') === createHash('sha256').update(content).digest('hex');
console.log(`${content.byteLength} bytes from the peer: ${isRight ? 'all of them right' : 'WRONG'}`);

source.close();
server.close();
server.closeIdleConnections();
process.exitCode = isRight ? 0 : 1;
