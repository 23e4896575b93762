/**
 * Yardstick servers, each a process of its own: `node server.js KIND …` prints `listening on http://127.0.0.1:PORT`.
 *
 * - `buffer FILE`: the smallest Node server there can be, ranges and wholes out of one Buffer
 * - `body GIGABYTES`: an origin for one large body that is made as it goes
 * - `library ORIGIN`: plain `http-proxy`
 * - `host ORIGIN [N]`: our host with N pass-through plug-ins
 * - `block-cache ORIGIN`: our host with the block cache, as the command runs it, and nobody who counts or logs
 * - `hash ORIGIN VERSIONS THREADS`: our host hashing every body, by the content server's own stream
 */
import { readFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline, Readable } from 'node:stream';
import httpProxy from 'http-proxy';
import { nativeHashProvider } from '../lib/crypto/index.ts';
import { definePlugin, Kit, type Plugin } from '../lib/kit/index.ts';
import { PeerDist } from '../lib/peerdist/index.ts';
import { ServerSecret } from '../lib/protocol/pccrc/index.ts';
import { MemoryBlockStore } from '../lib/stores/index.ts';
import { ContentHasher, HashingPool } from '../lib/streams/index.ts';
import { MiB, seededBytes } from './measure.ts';
import { createBlockCache } from '../plugins/block-cache/index.ts';
import { createProxyServer, HttpProxyHost } from '../plugins/http-proxy/index.ts';
import { grantHeapSlack } from '../plugins/standalone/heap.ts';

const [kind, argument = '', extra = '0', threads = '0'] = process.argv.slice(2);

function bufferServer(file: Buffer): RequestListener {
  return (request, response) => {
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (match === null) {
      response.writeHead(200, { 'content-length': file.byteLength }).end(file);
      return;
    }
    const first = Number(match[1]);
    const last = Number(match[2]);
    response.writeHead(206, {
      'content-length': last - first + 1,
      'content-range': `bytes ${first}-${last}/${file.byteLength}`,
    });
    response.end(file.subarray(first, last + 1));
  };
}

function bodyServer(gigabytes: number): RequestListener {
  const piece = seededBytes(MiB);
  const length = gigabytes * 1024 * MiB;
  return (request, response) => {
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const first = Number(match?.[1] ?? 0);
    const end = match === null ? length : Number(match[2]) + 1;
    response.writeHead(match === null ? 200 : 206, {
      'content-length': end - first,
      etag: `"${gigabytes}"`,
      'cache-control': 'max-age=3600',
      ...(match === null ? {} : { 'content-range': `bytes ${first}-${end - 1}/${length}` }),
    });
    let at = first;
    const source = new Readable({
      read() {
        const from = at % MiB;
        const chunk = piece.subarray(from, Math.min(MiB, from + end - at));
        at += chunk.byteLength;
        this.push(chunk.byteLength === 0 ? null : chunk);
      },
    });
    pipeline(source, response, () => {});
  };
}

function host(plugins: readonly Plugin[]): RequestListener {
  const { middleware } = new HttpProxyHost({ proxy: createProxyServer(), kit: new Kit({ plugins }), origin: argument });
  return (request, response) => middleware(request, response);
}

function hashing(): Plugin {
  const secret = ServerSecret.fromText('bench');
  const versions = Array.from(extra, Number) as (1 | 2)[];
  const pool = threads === '0' ? undefined : new HashingPool(Number(threads) as 1 | 2);
  const options = { provider: nativeHashProvider, secret, versions };
  return definePlugin({
    name: 'hash-all',
    handle: async (request, next) =>
      (await next(request)).through(new ContentHasher({ ...options, engine: pool?.createEngine(options) })),
  });
}

/** Nobody observes it. */
const blockStore = new MemoryBlockStore({ maxBytes: 2 * 1024 ** 3 });

async function listener(): Promise<RequestListener> {
  switch (kind) {
    case 'buffer':
      return bufferServer(readFileSync(argument));
    case 'body':
      return bodyServer(Number(argument));
    case 'library': {
      const proxy = httpProxy.createProxyServer({ target: argument });
      proxy.on('error', () => {});
      return (request, response) => proxy.web(request, response);
    }
    case 'host':
      return host(
        Array.from({ length: Number(extra) }, (_, index) =>
          definePlugin({ name: `pass-${index}`, handle: (request, next) => next(request) }),
        ),
      );
    case 'hash':
      return host([hashing()]);
    case 'block-cache':
      grantHeapSlack();
      return host([createBlockCache({ peerdist: await PeerDist.open({ components: { blockStore } }) })]);
    default:
      throw new Error(`no such server: ${kind}`);
  }
}

const server = createServer({ noDelay: true }, await listener());
server.listen(0, '127.0.0.1', () =>
  console.log(`listening on http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
process.once('SIGTERM', () => process.exit(0));
