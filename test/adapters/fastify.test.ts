/** `peerdist/fastify` in Fastify 5: buffers, streams, hooks, errors, `inject`, and its end with the instance. */
import { createReadStream, statSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import t, { type Test } from 'tap';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { peerdist, type PublishingOptions } from '../../plugins/adapters/fastify.ts';
import { AdapterObservations, askCoded, describes, folder } from '../support/adapters.ts';
import { ask, begin, inTime, readAtLeast, same, startBranch, until, V2_REQUEST } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const FILE = seededBytes(1, 300_000);
const LARGE = seededBytes(2, 8 * 1024 * 1024);

interface Registered {
  readonly app: FastifyInstance;
  readonly port: number;
  readonly seen: AdapterObservations;
}

async function registered(
  t: Test,
  routes: (app: FastifyInstance) => void | Promise<void>,
  options: PublishingOptions = {},
): Promise<Registered> {
  const seen = new AdapterObservations();
  const app = fastify({ forceCloseConnections: true });
  t.teardown(() => app.close());
  await app.register(peerdist, { observer: seen.observer, ...options });
  await routes(app);
  await app.listen({ host: '127.0.0.1', port: 0 });
  return { app, port: portOf(app), seen };
}

function portOf(app: FastifyInstance): number {
  return (app.server.address() as AddressInfo).port;
}

/** A file as a route would send it: a tag of length and time, a 304 where it holds. */
function sendFile(path: string, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { size, mtimeMs } = statSync(path);
  const etag = `"${size}-${mtimeMs}"`;
  void reply.header('etag', etag).type('application/octet-stream');
  if (request.headers['if-none-match'] === etag) return reply.code(304).send();
  return reply.header('content-length', size).send(createReadStream(path));
}

t.test('streams and buffers: the body and the promise, then hashes, and new ones for a new file', async (t) => {
  const root = folder(t, { 'file.bin': FILE });
  const statuses: number[] = [];
  const { port, seen } = await registered(t, (app) => {
    app.addHook('onResponse', async (_request, reply) => void statuses.push(reply.raw.statusCode));
    app.get('/stream', (request, reply) => sendFile(join(root, 'file.bin'), request, reply));
    app.get('/buffer', (_request, reply) => reply.header('etag', '"one"').send(FILE));
    app.get('/web', (_request, reply) =>
      reply
        .header('etag', '"one"')
        .send(Readable.toWeb(Readable.from([FILE.subarray(0, 100_000), FILE.subarray(100_000)]))),
    );
  });
  for (const [index, target] of ['/stream', '/buffer', '/web'].entries()) {
    const plain = await ask(port, target);
    t.ok(same(plain.body, FILE));
    t.notOk('x-p2p-peerdist' in plain.headers);
    const first = await askCoded(port, target);
    t.ok(same(first.body, FILE));
    t.equal(first.headers['x-p2p-peerdistex'], 'MakeHashRequest=true');
    await seen.published(index + 1);
    const second = await askCoded(port, target);
    t.equal(second.headers['content-encoding'], 'peerdist');
    t.ok(await describes(second.body, FILE));
  }
  t.ok(
    statuses.every((status) => status === 200),
    'hooks see what the client got',
  );
  const next = seededBytes(3, FILE.byteLength + 1);
  writeFileSync(join(root, 'file.bin'), next);
  t.ok(same((await askCoded(port, '/stream')).body, next));
  await seen.published(4);
  t.ok(await describes((await askCoded(port, '/stream')).body, next));
  const branch = await startBranch(t, { origin: { url: `http://127.0.0.1:${port}` } });
  t.ok(same((await ask(branch.port, '/stream')).body, next));
  t.ok(
    same((await ask(branch.port, '/stream', { fields: { range: 'bytes=9-70000' } })).body, next.subarray(9, 70_001)),
  );
  t.strictSame(seen.failures, []);
});

t.test('what is not published is answered as Fastify answers it', async (t) => {
  const routes = (app: FastifyInstance): void => {
    app.addHook('onSend', async (_request, reply) => void reply.header('x-hook', 'sent'));
    app.setErrorHandler((error: Error, _request, reply) => void reply.code(503).send({ handled: error.message }));
    app.get('/object', async () => ({ a: 1 }));
    app.get('/throws', async () => {
      throw new Error('on purpose');
    });
    app.get('/nothing', (_request, reply) => void reply.code(204).send());
    app.get('/hijacked', (_request, reply) => {
      reply.hijack();
      reply.raw.writeHead(200, 'Mine', { 'X-Raw': '1' }).end('raw');
    });
    app.get('/redirect', (_request, reply) => reply.redirect('/object'));
    app.get('/fails', (_request, reply) =>
      reply.send(
        new Readable({
          read() {
            this.destroy(new Error('before its first byte'));
          },
        }),
      ),
    );
    app.post('/echo', async ({ body }) => body);
  };
  const { port } = await registered(t, routes);
  const other = fastify();
  t.teardown(() => other.close());
  routes(other);
  await other.listen({ host: '127.0.0.1', port: 0 });
  const without = portOf(other);
  for (const target of ['/object', '/throws', '/nothing', '/hijacked', '/redirect', '/fails', '/absent']) {
    for (const method of ['GET', 'HEAD']) {
      const wire = async (at: number): Promise<string> => {
        const connection = await begin(at, target, { method, fields: { connection: 'close' } });
        return (await inTime(connection.remainder(), target)).toString('latin1').replace(/date: .*\r\n/i, '');
      };
      t.equal(await wire(port), await wire(without), `${method} ${target}`);
    }
  }
  const fields = { 'content-type': 'application/json', 'x-p2p-peerdist': 'Version=1.1' };
  t.equal((await ask(port, '/echo', { method: 'POST', body: '{"b":2}', fields })).body.toString(), '{"b":2}');
});

t.test('inject: the same answers without a connection', async (t) => {
  const { app, seen } = await registered(t, (app) => {
    app.get('/file', (_request, reply) => reply.header('etag', '"one"').send(FILE));
    app.get('/stream', (_request, reply) =>
      reply.header('etag', '"one"').send(Readable.from([FILE.subarray(0, 90_000), FILE.subarray(90_000)])),
    );
  });
  for (const url of ['/file', '/stream']) {
    t.ok(same((await app.inject({ url })).rawPayload, FILE));
    t.ok(same((await app.inject({ url, headers: { ...V2_REQUEST } })).rawPayload, FILE));
    await seen.published();
    const { rawPayload, headers } = await app.inject({ url, headers: { ...V2_REQUEST } });
    t.equal(headers['content-encoding'], 'peerdist');
    t.ok(await describes(rawPayload, FILE));
    t.equal((await app.inject({ url: '/absent', headers: { ...V2_REQUEST } })).statusCode, 404);
    seen.all.length = 0;
  }
});

t.test('a 304 that is of no use: the route is run once more', async (t) => {
  let runs = 0;
  const { app, port, seen } = await registered(t, (app) => {
    app.get('/file', (request, reply) => {
      runs += 1;
      void reply.header('etag', '"one"').header('x-run', runs);
      if (request.headers['if-none-match'] !== '"one"') return reply.send(FILE);
      return reply.code(304).header('cache-control', 'no-transform').send();
    });
  });
  await askCoded(port, '/file');
  await seen.published();
  const again = await askCoded(port, '/file');
  t.ok(same(again.body, FILE));
  t.equal(again.headers['x-run'], '3');
  t.notOk('cache-control' in again.headers);
  const injected = await app.inject({ url: '/file', headers: { ...V2_REQUEST } });
  t.ok(same(injected.rawPayload, FILE));
  t.strictSame(seen.failures, []);
});

t.test('streams that break, and clients that leave', async (t) => {
  let closed = 0;
  const { port, seen } = await registered(t, (app) => {
    app.get('/breaks', (_request, reply) => {
      async function* pieces(): AsyncGenerator<Uint8Array> {
        yield FILE.subarray(0, 200_000);
        await Promise.resolve();
        throw new Error('on purpose');
      }
      return reply.header('etag', '"one"').header('content-length', FILE.byteLength).send(Readable.from(pieces()));
    });
    app.get('/large', (_request, reply) => {
      const body = Readable.from([...Array(128).keys()].map((n) => LARGE.subarray(n * 65_536, (n + 1) * 65_536)));
      body.once('close', () => (closed += 1));
      return reply.header('etag', '"two"').header('content-length', LARGE.byteLength).send(body);
    });
  });
  for (const fields of [V2_REQUEST, {}]) {
    const connection = await begin(port, '/breaks', { fields });
    const answer = await inTime(connection.answer(), 'a broken answer').catch(() => undefined);
    t.notOk(answer?.complete);
  }
  const leaving = await begin(port, '/large', { fields: V2_REQUEST });
  await readAtLeast(leaving.body(await leaving.head()), 100_000);
  leaving.leave();
  await until(() => closed === 1, 'the stream of a client that has left is closed');
  t.equal(seen.count('publication', { result: 'completed' }), 0);
  t.ok(same((await askCoded(port, '/large')).body, LARGE));
});

t.test('options, and the end with the instance', async (t) => {
  const refused = fastify();
  t.teardown(() => refused.close());
  await t.rejects(async () => refused.register(peerdist, { maxByte: 1 } as PublishingOptions), {
    code: 'ERR_PEERDIST_INVALID_OPTION',
    message: /did you mean maxBytes/,
  });
  await using given = await PeerDist.open();
  const { app } = await registered(t, () => {}, { peerdist: given });
  await app.close();
  t.notOk(given.closed, 'a PeerDist that was given stays open');
});
