/**
 * A program that downloads a file three times through the block cache, from a server that publishes it. `node dist/examples/fetch-through-cache.js`
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'peerdist/connect';
import { createFetch } from 'peerdist/fetch';

const file = Buffer.concat(
  Array.from({ length: 40_000 }, (_, line) => createHash('sha512').update(`${line}`).digest()),
);

// The server: any handler will do whose answers have a tag, and which says 304 to somebody who has it.
const tag = '"first-edition"';
let bodyBytes = 0;
const publish = connect();
const server = createServer((request, response) => {
  publish(request, response, () => {
    response.setHeader('etag', tag).setHeader('cache-control', 'max-age=60');
    if (request.headers['if-none-match'] === tag) return response.writeHead(304).end();
    bodyBytes += file.byteLength;
    return response.end(file);
  });
}).listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/file`;

// The program: a fetch like any other, that keeps blocks and believes none without its hash.
let tellKnown: () => void = () => {};
const known = new Promise<void>((resolve) => {
  tellKnown = resolve;
});
const read = createFetch({
  observer: (observation) => {
    if (observation.type === 'stored' && observation.store === 'content_information') tellKnown();
  },
});
for (const range of [undefined, undefined, 'bytes=1000000-1999999']) {
  const before = bodyBytes;
  const response = await read(url, range === undefined ? {} : { headers: { range } });
  const { byteLength } = await response.arrayBuffer();
  console.log(
    `${response.status}: ${byteLength} bytes, of which the server sent ${bodyBytes - before}; ${response.headers.get('cache-status')}`,
  );
  await known; // The hashes follow the first body.
}

await read.close();
await publish.close();
server.close();
