/** `peerdist/undici` and `peerdist/fetch` on real dispatchers, before a head office that publishes and origins that do not. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { Agent, type Dispatcher, fetch as undiciFetch, interceptors, Pool } from 'undici';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { type BlockSource, createLanHttpServer, openHoldings, RetrievalServer } from '../../lib/services/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { createFetch, type FetchOptions } from '../../plugins/adapters/fetch.ts';
import { peerdist, type ReadingOptions } from '../../plugins/adapters/undici.ts';
import { AdapterObservations } from '../support/adapters.ts';
import {
  Gate,
  inTime,
  listen,
  Origin,
  type OriginFile,
  type OriginHandler,
  same,
  startReverse,
  until,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const FILE = seededBytes(1, 1_000_000);
const LARGE = seededBytes(2, 24 * 1024 * 1024);
const FRESH = { 'cache-control': 'max-age=600' };

/** A head office before an origin with these resources. */
async function office(
  t: Test,
  resources: Readonly<Record<string, OriginFile | OriginHandler>>,
): Promise<{ readonly url: string; readonly origin: Origin }> {
  const origin = await Origin.start(t, resources);
  const { url } = await startReverse(t, origin);
  return { url, origin };
}

interface Caching {
  readonly dispatcher: Dispatcher;
  readonly seen: Reading;
}

class Reading extends AdapterObservations {
  /** Waits until so many contents are known. */
  remembered(count = 1): Promise<void> {
    return until(() => this.count('stored', { store: 'content_information' }) >= count, `${count} contents are known`);
  }
}

function caching(t: Test, options: ReadingOptions = {}, ...more: Dispatcher.DispatcherComposeInterceptor[]): Caching {
  const seen = new Reading();
  const interceptor = peerdist({ observer: seen.observer, ...options });
  const agent = new Agent();
  t.teardown(async () => {
    await interceptor.close();
    await agent.destroy();
  });
  return { dispatcher: agent.compose(interceptor, ...more), seen };
}

async function download(
  dispatcher: Dispatcher,
  url: string,
  headers: Record<string, string> = {},
): Promise<{ readonly status: number; readonly headers: Readonly<Record<string, unknown>>; readonly body: Buffer }> {
  const { origin, pathname: path } = new URL(url);
  const answer = await inTime(dispatcher.request({ origin, path, method: 'GET', headers }), url);
  return { status: answer.statusCode, headers: answer.headers, body: Buffer.from(await answer.body.bytes()) };
}

t.test('the second download costs no body, a range neither, and a file that has changed is fetched anew', async (t) => {
  const { url, origin } = await office(t, {
    '/fresh': { body: FILE, etag: '"one"', headers: FRESH },
    '/asked': { body: FILE, etag: '"one"', headers: { 'cache-control': 'no-cache' } },
  });
  for (const name of ['/fresh', '/asked']) {
    const { dispatcher, seen } = caching(t);
    const first = await download(dispatcher, url + name);
    t.equal(first.status, 200);
    t.ok(same(first.body, FILE));
    await seen.remembered();
    const before = origin.bodyBytes(name);
    const second = await download(dispatcher, url + name);
    t.ok(same(second.body, FILE));
    t.match(second.headers['cache-status'], name === '/fresh' ? /; hit$/ : /fwd-status=304$/);
    const part = await download(dispatcher, url + name, { Range: 'bytes=70000-199999' });
    t.strictSame([part.status, part.headers['content-range']], [206, `bytes 70000-199999/${FILE.byteLength}`]);
    t.ok(same(part.body, FILE.subarray(70_000, 200_000)));
    t.equal((await download(dispatcher, url + name, { 'if-none-match': '"one"' })).status, 304);
    t.equal(origin.bodyBytes(name), before, 'no byte of a body from the origin');
    t.strictSame(seen.failures, []);
  }
  const { dispatcher, seen } = caching(t);
  t.ok(same((await download(dispatcher, `${url}/asked`)).body, FILE));
  await seen.remembered();
  const next = seededBytes(3, 900_000);
  origin.resources.set('/asked', { body: next, etag: '"two"', headers: { 'cache-control': 'no-cache' } });
  t.ok(same((await download(dispatcher, `${url}/asked`)).body, next));
});

t.test('what a program does to the bytes it got is not done to the cache', async (t) => {
  const small = seededBytes(4, 70_000);
  const { url } = await office(t, { '/small': { body: small, etag: '"one"', headers: FRESH } });
  const { dispatcher, seen } = caching(t);
  await download(dispatcher, `${url}/small`);
  await seen.remembered();
  for (let round = 0; round < 2; round += 1) {
    const pieces: Buffer[] = [];
    await dispatcher.stream({ origin: url, path: '/small', method: 'GET' }, () => {
      return new Writable({
        write(chunk: Buffer, _encoding, callback) {
          pieces.push(Buffer.from(chunk));
          chunk.fill(0);
          callback();
        },
      });
    });
    t.ok(same(Buffer.concat(pieces), small));
  }
});

t.test('every way of asking: request, stream, pipeline, the fetch of undici and that of Node', async (t) => {
  const { url } = await office(t, {
    '/file': { body: FILE, etag: '"one"', headers: { ...FRESH, 'set-cookie': ['a=1', 'b=2'] } },
  });
  const { dispatcher } = caching(t);
  const { origin } = new URL(url);
  const ask = { origin, path: '/file', method: 'GET' } as const;
  for (let round = 0; round < 2; round += 1) {
    const raw = await dispatcher.request(ask);
    t.equal(raw.statusText, 'OK');
    t.strictSame(raw.headers['set-cookie'], ['a=1', 'b=2']);
    t.ok(same(Buffer.from(await raw.body.bytes()), FILE));
    const chunks: Buffer[] = [];
    await dispatcher.stream({ ...ask, opaque: chunks }, ({ opaque }) => {
      return new Writable({
        write(chunk: Buffer, _encoding, callback) {
          opaque.push(chunk);
          callback();
        },
      });
    });
    t.ok(same(Buffer.concat(chunks), FILE));
    const piped: Buffer[] = [];
    await pipeline(
      Readable.from([]),
      dispatcher.pipeline(ask, ({ body }) => body),
      async (source: AsyncIterable<Buffer>) => {
        for await (const chunk of source) piped.push(chunk);
      },
    );
    t.ok(same(Buffer.concat(piped), FILE));
    const own = await undiciFetch(`${url}/file`, { dispatcher });
    t.ok(same(Buffer.from(await own.arrayBuffer()), FILE));
    const builtIn = await fetch(`${url}/file`, { dispatcher } as unknown as RequestInit);
    t.equal(builtIn.status, 200);
    t.match(builtIn.headers.get('cache-status'), /^peerdist/);
    t.ok(same(Buffer.from(await builtIn.arrayBuffer()), FILE));
  }
  const fields = [
    ['range', 'bytes=1-3'],
    ['Range', 'bytes=1-3'],
  ] as const;
  for (const headers of [fields[0].flat(), new Map([fields[1]]), { RANGE: 'bytes=1-3' }]) {
    const part = await dispatcher.request({ ...ask, headers: headers as string[] });
    t.equal(part.statusCode, 206);
    t.ok(same(Buffer.from(await part.body.bytes()), FILE.subarray(1, 4)));
  }
});

t.test('other requests pass untouched, and an unsafe one makes what is known invalid', async (t) => {
  let version = 1;
  const { url, origin } = await office(t, {
    '/file': async (request, response) => {
      if (request.method === 'PUT') version += 1;
      const body = Buffer.alloc(200_000, String(version));
      response.writeHead(200, { ...FRESH, etag: `"${version}"`, 'content-length': body.byteLength });
      response.end(request.method === 'HEAD' ? undefined : body);
    },
    '/query?a=1&b=2': { body: 'found' },
  });
  const { dispatcher, seen } = caching(t);
  t.equal((await download(dispatcher, `${url}/file`)).body[0], 0x31);
  await seen.remembered();
  const head = await dispatcher.request({ origin: url, path: '/file', method: 'HEAD' });
  t.equal(head.headers['content-length'], '200000');
  t.notOk('cache-status' in head.headers);
  await head.body.dump();
  t.equal((await download(dispatcher, `${url}/file`)).body[0], 0x31);
  const put = await dispatcher.request({ origin: url, path: '/file', method: 'PUT', body: 'next' });
  t.notOk('cache-status' in put.headers);
  await put.body.dump();
  t.equal(origin.asked('/file').at(-1)?.body.toString(), 'next');
  t.equal((await download(dispatcher, `${url}/file`)).body[0], 0x32, 'the cache has heard of the PUT');
  const query = await dispatcher.request({ origin: url, path: '/query', method: 'GET', query: { a: 1, b: 2 } });
  t.equal(await query.body.text(), 'found');
  const withBody = await dispatcher.request({ origin: url, path: '/file', method: 'GET', body: 'a body' });
  t.notOk('cache-status' in withBody.headers);
  await withBody.body.dump();
  await t.rejects(dispatcher.request({ origin: url, path: '/query?a=1', method: 'GET', query: { b: 2 } }));
});

t.test('a reader that does not read holds the origin back; one that leaves closes its connection', async (t) => {
  const origin = await Origin.start(t, { '/plain': { body: LARGE }, '/never': () => {} });
  const { url, origin: source } = await office(t, { '/coded': { body: LARGE, etag: '"one"', headers: FRESH } });
  const { dispatcher, seen } = caching(t);
  const slow = await dispatcher.request({ origin: origin.url, path: '/plain', method: 'GET' });
  await once(slow.body, 'readable');
  // While all of it goes to another reader, this one does not read.
  t.ok(same((await download(dispatcher, `${origin.url}/plain`)).body, LARGE));
  const sent = origin.asked('/plain')[0]?.sent ?? 0;
  t.ok(sent < LARGE.byteLength / 2, `${sent} bytes are sent that nobody reads`);
  t.ok(same(Buffer.from(await slow.body.bytes()), LARGE));

  const left = await dispatcher.request({ origin: origin.url, path: '/plain', method: 'GET' });
  await once(left.body, 'readable');
  left.body.destroy();
  await until(() => origin.asked('/plain')[2]?.closed === true, 'the connection of a reader that has left is closed');
  t.notOk(origin.asked('/plain')[2]?.finished);

  const abort = new AbortController();
  const waiting = dispatcher.request({ origin: origin.url, path: '/never', method: 'GET', signal: abort.signal });
  await until(() => origin.asked('/never').length === 1, 'the request has come');
  abort.abort();
  await t.rejects(waiting, { name: 'AbortError' });
  await until(() => origin.asked('/never')[0]?.closed === true, 'its connection is closed');
  const early = new AbortController();
  early.abort();
  await t.rejects(dispatcher.request({ origin: origin.url, path: '/never', method: 'GET', signal: early.signal }));
  t.equal(origin.asked('/never').length, 1, 'what is called off before it begins is not asked for');

  // So does one whose answer is going to be kept: nobody else wants it.
  const shared = await dispatcher.request({ origin: url, path: '/coded', method: 'GET' });
  await once(shared.body, 'readable');
  shared.body.destroy();
  await until(() => source.asked('/coded')[0]?.closed === true, 'the connection behind head office is closed too');
  t.notOk(source.asked('/coded')[0]?.finished);
  t.ok(same((await download(dispatcher, `${url}/coded`)).body, LARGE), 'and the next one gets all of it');
  t.strictSame(seen.failures, []);
});

t.test('an origin that fails: before the head, in the body, and not at all there', async (t) => {
  const gate = new Gate();
  const { url, origin } = await office(t, {
    '/broken': { body: LARGE, etag: '"one"', headers: FRESH, firstBytes: 100_000, afterFirst: gate.passed },
  });
  const bare = await Origin.start(t, { '/cut': (_request, response) => void response.socket?.destroy() });
  const { dispatcher } = caching(t);
  await t.rejects(download(dispatcher, `${bare.url}/cut`), { code: 'UND_ERR_SOCKET' });
  const { body } = await dispatcher.request({ origin: url, path: '/broken', method: 'GET' });
  await once(body, 'readable');
  origin.server.closeAllConnections();
  await t.rejects(inTime(body.bytes(), 'the error of a broken body'));
  const server = createServer();
  const port = await listen(t, server);
  server.close();
  await t.rejects(download(dispatcher, `http://127.0.0.1:${port}/`), { code: 'ECONNREFUSED' });
});

t.test('together with redirect and retry, on either side', async (t) => {
  let cuts = 0;
  const { url, origin } = await office(t, {
    '/file': { body: FILE, etag: '"one"', headers: FRESH },
    '/from': (_request, response) => void response.writeHead(302, { location: '/file' }).end(),
    '/twice': (_request, response) => {
      cuts += 1;
      if (cuts === 1) response.writeHead(503, { 'content-length': 4 }).end('busy');
      else response.writeHead(200, { 'content-length': 4 }).end('done');
    },
  });
  const redirect = interceptors.redirect({ maxRedirections: 2 });
  const retry = interceptors.retry({ minTimeout: 1, maxRetries: 2 });
  const { dispatcher, seen } = caching(t, {}, redirect, retry);
  t.ok(same((await download(dispatcher, `${url}/from`)).body, FILE));
  await seen.remembered();
  const before = origin.bodyBytes('/file');
  t.ok(same((await download(dispatcher, `${url}/from`)).body, FILE));
  t.equal(origin.bodyBytes('/file'), before);
  t.equal((await download(dispatcher, `${url}/twice`)).body.toString(), 'done');

  cuts = 0;
  const interceptor = peerdist();
  const pool = new Pool(url);
  t.teardown(async () => {
    await interceptor.close();
    await pool.destroy();
  });
  const inner = pool.compose(redirect, retry, interceptor);
  t.ok(same((await download(inner, `${url}/from`)).body, FILE));
  t.equal((await download(inner, `${url}/twice`)).body.toString(), 'done');
});

t.test('blocks from a peer; one that lies is not believed', async (t) => {
  const { url, origin } = await office(t, { '/file': { body: FILE, etag: '"one"', headers: FRESH } });
  const blockStore = new MemoryBlockStore({ maxBytes: 64 * 1024 * 1024 });
  const first = caching(t, { blockStore });
  t.ok(same((await download(first.dispatcher, `${url}/file`)).body, FILE));
  await first.seen.remembered();
  const neighbour = createLanHttpServer([new RetrievalServer({ holdings: openHoldings(blockStore) })]);
  const port = await listen(t, neighbour);
  const second = caching(t, { peers: [{ address: '127.0.0.1', port }] });
  const before = origin.bodyBytes('/file');
  t.ok(same((await download(second.dispatcher, `${url}/file`)).body, FILE));
  t.equal(second.seen.bytes('delivered', { source: 'peer' }), FILE.byteLength);
  t.equal(origin.bodyBytes('/file'), before, 'no byte of a body from the origin');

  const liar: BlockSource = {
    name: 'peer',
    trusted: false,
    deadlineMs: 1_000,
    retrieve: ({ content, ordinal }) => Buffer.alloc(content.block(ordinal).length, 'lie'),
  };
  const third = caching(t, { sources: [liar] });
  t.ok(same((await download(third.dispatcher, `${url}/file`)).body, FILE));
  t.ok(third.seen.count('verification', { source: 'peer', result: 'mismatch' }) > 0);
  t.equal(third.seen.bytes('delivered', { source: 'peer' }), 0);
});

t.test('fetch: the Response that the standard describes', async (t) => {
  const { url, origin } = await office(t, {
    '/file': { body: FILE, etag: '"one"', headers: FRESH },
    '/json': { body: '{"a":1}', headers: { 'content-type': 'application/json' } },
    '/zipped': { body: gzipSync('unzipped'), headers: { 'content-encoding': 'gzip' } },
    '/from': (_request, response) => void response.writeHead(301, { location: '/json' }).end(),
    '/never': () => {},
  });
  const seen = new Reading();
  const read = createFetch({ observer: seen.observer });
  t.teardown(() => read.close());
  const first = await read(`${url}/file`);
  t.ok(first.ok);
  t.equal(first.url, `${url}/file`);
  t.ok(same(Buffer.from(await first.arrayBuffer()), FILE));
  await seen.remembered();
  const before = origin.bodyBytes('/file');
  t.ok(same(Buffer.from(await (await read(new URL(`${url}/file`))).arrayBuffer()), FILE));
  t.equal(origin.bodyBytes('/file'), before);
  const part = await read(`${url}/file`, { headers: { range: 'bytes=-10' } });
  t.equal(part.status, 206);
  t.ok(same(Buffer.from(await part.arrayBuffer()), FILE.subarray(-10)));
  t.strictSame(await (await read(`${url}/json`)).json(), { a: 1 });
  t.equal(await (await read(`${url}/zipped`)).text(), 'unzipped');
  const redirected = await read(`${url}/from`);
  t.ok(redirected.redirected);
  t.equal(await redirected.text(), '{"a":1}');
  t.equal((await read(`${url}/absent`)).status, 404);
  t.equal((await read(`${url}/json`, { method: 'POST', body: 'sent' })).status, 200);
  t.equal(origin.asked('/json').at(-1)?.body.toString(), 'sent');
  await t.rejects(read(`${url}/never`, { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
  const aborting = new AbortController();
  const { body } = await read(`${url}/file`, { signal: aborting.signal, cache: 'no-store' });
  aborting.abort();
  await t.rejects(text(body as AsyncIterable<Uint8Array>), { name: 'AbortError' });
});

t.test('options: closed; what is given stays open, what is not is closed', async (t) => {
  t.throws(() => peerdist({ blockstore: 1 } as ReadingOptions), {
    message: /no option blockstore; did you mean blockStore\?/,
  });
  t.throws(() => createFetch({ agent: 1 } as FetchOptions), { code: 'ERR_PEERDIST_INVALID_OPTION' });
  await using given = await PeerDist.open();
  t.throws(() => peerdist({ peerdist: given, peers: [] }), { message: /either peerdist or peers/ });
  const origin = await Origin.start(t, { '/file': { body: 'bytes' } });
  const agent = new Agent();
  t.teardown(() => agent.destroy());
  const read = createFetch({ peerdist: given, dispatcher: agent });
  t.equal(await (await read(`${origin.url}/file`)).text(), 'bytes');
  await read.close();
  await read.close();
  t.notOk(given.closed);
  t.notOk(agent.closed);
  t.equal(await (await read(`${origin.url}/file`)).text(), 'bytes', 'closed, it only passes');
});
