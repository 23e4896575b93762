/** `peerdist/http-proxy` with a server of the `http-proxy` package before a real origin. */
import { createServer } from 'node:http';
import httpProxy from 'http-proxy';
import t, { type Test } from 'tap';
import { publish, type PublishingOptions } from '../../plugins/adapters/http-proxy.ts';
import { AdapterObservations, askCoded, describes, serve } from '../support/adapters.ts';
import {
  ask,
  begin,
  Gate,
  inTime,
  Origin,
  type OriginFile,
  readAtLeast,
  same,
  startBranch,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const FILE = seededBytes(1, 300_000);
const LARGE = seededBytes(2, 8 * 1024 * 1024);

async function proxied(
  t: Test,
  resources: Readonly<Record<string, OriginFile>>,
  options: PublishingOptions = {},
): Promise<{ readonly port: number; readonly origin: Origin; readonly seen: AdapterObservations }> {
  const origin = await Origin.start(t, resources);
  const seen = new AdapterObservations();
  const proxy = httpProxy.createProxyServer({ target: origin.url });
  const web = publish(proxy, { observer: seen.observer, ...options });
  t.teardown(async () => {
    await web.close();
    proxy.close();
  });
  const server = createServer((request, response) => {
    if (request.url === '/own') response.end('own');
    else web(request, response, {}, () => response.writeHead(502).end('no origin'));
  });
  return { port: await serve(t, server), origin, seen };
}

t.test('what the proxy brings is published, and given as hashes while the origin agrees', async (t) => {
  const { port, origin, seen } = await proxied(t, { '/file': { body: FILE, etag: '"one"' } });
  t.ok(same((await ask(port, '/file')).body, FILE));
  t.ok(same((await askCoded(port, '/file')).body, FILE));
  await seen.published();
  const second = await askCoded(port, '/file');
  t.equal(second.headers['content-encoding'], 'peerdist');
  t.ok(await describes(second.body, FILE));
  t.strictSame(
    origin.asked('/file').map(({ status, headers }) => [status, headers['if-none-match']]),
    [
      [200, undefined],
      [200, undefined],
      [304, '"one"'],
    ],
  );
  const next = seededBytes(3, FILE.byteLength);
  origin.resources.set('/file', { body: next, etag: '"two"' });
  t.ok(same((await askCoded(port, '/file')).body, next));
  await seen.published(2);
  t.ok(await describes((await askCoded(port, '/file')).body, next));

  const branch = await startBranch(t, { origin: { url: `http://127.0.0.1:${port}` } });
  const before = origin.bodyBytes('/file');
  t.ok(same((await ask(branch.port, '/file')).body, next));
  t.equal(origin.bodyBytes('/file') - before, next.byteLength, 'by ranges, once');
  t.ok(same((await ask(branch.port, '/file', { fields: { range: 'bytes=5-99999' } })).body, next.subarray(5, 100_000)));
  t.equal(origin.bodyBytes('/file') - before, next.byteLength);
  t.equal((await ask(port, '/own')).body.toString(), 'own');
  t.equal((await ask(port, '/file', { method: 'POST', body: 'x' })).status, 200);
  t.strictSame(seen.failures, []);
});

t.test('a 304 that is of no use: the origin is asked once more, as the client did', async (t) => {
  const { port, origin, seen } = await proxied(t, {
    '/file': { body: FILE, etag: '"one"', headers304: { 'cache-control': 'no-transform' } },
  });
  await askCoded(port, '/file');
  await seen.published();
  t.ok(same((await askCoded(port, '/file')).body, FILE));
  t.strictSame(
    origin.asked('/file').map(({ status }) => status),
    [200, 304, 200],
  );
});

t.test('broken on either side', async (t) => {
  const gate = new Gate();
  const { port, origin, seen } = await proxied(t, {
    '/broken': { body: FILE, etag: '"one"', firstBytes: 100_000, afterFirst: gate.passed },
    '/large': { body: LARGE, etag: '"two"', firstBytes: 200_000, afterFirst: new Promise(() => {}) },
  });
  const broken = await Promise.all([V2_REQUEST, {}].map((fields) => begin(port, '/broken', { fields })));
  const bodies = await Promise.all(broken.map(async (each) => each.body(await each.head())));
  for (const body of bodies) await readAtLeast(body, 100_000);
  origin.server.closeAllConnections();
  for (const [index, body] of bodies.entries()) {
    t.ok((await inTime(body.next(), 'the end')).done);
    t.notOk(broken[index]?.complete, 'the client sees that the origin has broken off');
  }
  const leaving = await begin(port, '/large', { fields: V2_REQUEST });
  await readAtLeast(leaving.body(await leaving.head()), 100_000);
  leaving.leave();
  await until(() => origin.asked('/large')[0]?.closed === true, 'the connection to the origin is closed');
  t.notOk(origin.asked('/large')[0]?.finished);
  t.equal(seen.count('publication', { result: 'completed' }), 0);
  origin.server.close();
  origin.server.closeAllConnections();
  t.equal((await askCoded(port, '/large')).status, 502, 'the error callback answers');
});

t.test('options are closed', (t) => {
  const proxy = httpProxy.createProxyServer();
  t.throws(() => publish(proxy, { server: 1 } as PublishingOptions), { code: 'ERR_PEERDIST_INVALID_OPTION' });
  t.end();
});
