/**
 * Peers, each a process of its own: `node peer.js KIND VERSION MEGABYTES CIPHER [BYTES_PER_SECOND]` prints `listening on URL`.
 *
 * - `warm`: our retrieval server with all of the content
 * - `liar`: the same, but every block is wrong
 * - `minimal`: the smallest Node server that encrypts the same blocks and answers each POST with one
 * - `plain`: the same without a cipher or a message around the block
 */
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CipherName, encryptBlock } from '../lib/crypto/index.ts';
import { openHoldings, RetrievalServer } from '../lib/services/index.ts';
import { MemoryBlockStore } from '../lib/stores/index.ts';
import { MiB } from './measure.ts';
import { peerContent } from './peer-content.ts';

const [kind, version, megabytes, cipherName, bytesPerSecond] = process.argv.slice(2);
const cipher = cipherName as CipherName;
const { bytes, content } = peerContent(Number(version) as 1 | 2, Number(megabytes));

function retrieval(isHonest: boolean): RequestListener {
  const store = new MemoryBlockStore({ maxBytes: 2 * bytes.byteLength + 64 * MiB });
  for (let ordinal = 0; ordinal < content.information.blockCount; ordinal += 1) {
    const block = content.block(ordinal);
    const data = Uint8Array.from(bytes.subarray(block.offset, block.offset + block.length));
    if (!isHonest) data[0] = (data[0] as number) ^ 1;
    store.set(content.key(block), data, 'bench', content.segmentFacts(block.segment));
  }
  const server = new RetrievalServer({ holdings: openHoldings(store, cipher) });
  return (request, response) => {
    if (bytesPerSecond !== undefined) throttle(response, Number(bytesPerSecond));
    server.handle(request, response);
  };
}

let freeAt = 0;

/** Holds an answer's end back until the line of all answers together has had time for it. */
function throttle(response: ServerResponse, rate: number): void {
  const end = response.end.bind(response);
  response.end = ((last: Uint8Array) => {
    freeAt = Math.max(performance.now(), freeAt) + (64 * 1024 * 1000) / rate;
    setTimeout(() => end(last), freeAt - performance.now());
    return response;
  }) as ServerResponse['end'];
}

function minimal(isBare: boolean): RequestListener {
  const blocks = Array.from({ length: content.information.blockCount }, (_, ordinal) => {
    const { offset, length, segment } = content.block(ordinal);
    return { data: bytes.subarray(offset, offset + length), secret: content.information.segmentSecret(segment) };
  });
  let next = 0;
  return (request: IncomingMessage, response: ServerResponse) => {
    request.on('data', () => {});
    request.on('end', () => {
      const { data, secret } = blocks[next] as (typeof blocks)[number];
      next = (next + 1) % blocks.length;
      const body = isBare ? data : Buffer.concat(encryptBlock(cipher, secret, data).pieces);
      response.writeHead(200, { 'content-length': body.byteLength }).end(body);
    });
  };
}

const listener = kind === 'minimal' || kind === 'plain' ? minimal(kind === 'plain') : retrieval(kind !== 'liar');
const server = createServer({ noDelay: true }, listener);
server.listen(0, '127.0.0.1', () =>
  console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
process.once('SIGTERM', () => process.exit(0));
