/** Every example is run, in a process of its own, as a user would run it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer, get, type IncomingMessage, type RequestOptions } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';

const content = randomBytes(300_000);
const origin = createServer((_request, response) => {
  response.setHeader('etag', '"one"').setHeader('content-length', content.byteLength).end(content);
});
origin.listen(0, '127.0.0.1');
await once(origin, 'listening');
const originUrl = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
t.teardown(() => {
  origin.closeAllConnections();
  origin.close();
});

interface Example {
  readonly process: ChildProcess;
  /** The lines printed until the first listener was there, or all of them. */
  readonly lines: readonly string[];
  readonly url: string;
}

async function run(name: string, lineCount: number, ...args: string[]): Promise<Example> {
  const child = spawn(process.execPath, [`dist/examples/${name}.js`, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (lines.length === lineCount) break;
  }
  return { process: child, lines, url: /http:\S+/.exec(lines[0] ?? '')?.[0] ?? '' };
}

async function download(options: RequestOptions | string): Promise<{ response: IncomingMessage; body: Buffer }> {
  const [response] = (await once(get(options as string), 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return { response, body: Buffer.concat(chunks) };
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

t.test('there is a test for each example', (t) => {
  t.strictSame(
    readdirSync('examples')
      .filter((name) => name.endsWith('.ts'))
      .toSorted(),
    [
      'connect-app.ts',
      'express.ts',
      'fastify-app.ts',
      'fetch-through-cache.ts',
      'forward-proxy.ts',
      'http-proxy-app.ts',
      'loopback.ts',
      'metrics.ts',
      'peers.ts',
      'publish-and-read.ts',
      'reverse-proxy.ts',
      'throttle.ts',
      'undici-interceptor.ts',
    ],
  );
  t.end();
});

t.test('reverse proxy: the plain body first, with the promise of hashes', async (t) => {
  const { url } = await run('reverse-proxy', 1, originUrl);
  const { response, body } = await download({
    port: new URL(url).port,
    path: '/file',
    headers: { 'accept-encoding': 'peerdist', 'x-p2p-peerdist': 'Version=1.0' },
  });
  t.equal(sha256(body), sha256(content));
  t.equal(response.headers['x-p2p-peerdistex'], 'MakeHashRequest=true');
});

t.test('forward proxy: absolute form', async (t) => {
  const { url } = await run('forward-proxy', 1);
  const { response, body } = await download({
    port: new URL(url).port,
    path: `${originUrl}/file`,
    headers: { host: new URL(originUrl).host },
  });
  t.equal(sha256(body), sha256(content));
  t.match(response.headers['cache-status'], /^peerdist; fwd=uri-miss/);
});

t.test('both on loopback: the second download saves the WAN', async (t) => {
  const { lines } = await run('loopback', Infinity);
  t.match(lines[0], /^first download: right/);
  t.match(lines[1], /^second download: right, [1-9]\d* WAN bytes saved/);
});

t.test('Express: the mount path is proxied, the rest is not', async (t) => {
  const { url } = await run('express', 1, originUrl);
  t.match((await download(url)).body.toString(), /downloads are under/);
  t.equal(sha256((await download(`${url}/downloads/file`)).body), sha256(content));
});

t.test('metrics, with the throttle in the chain', async (t) => {
  const { lines, url } = await run('metrics', 2, originUrl);
  t.equal(sha256((await download(`${url}/file`)).body), sha256(content));
  const { body } = await download(/http:\S+/.exec(lines[1] ?? '')?.[0] ?? '');
  t.match(body.toString(), /^peerdist_exchanges_total\{status="2xx"\} 1$/m);
});

t.test('publisher and consumer: hashes, a hole, its bytes, and the hole again', async (t) => {
  const { process: parent, lines } = await run('publish-and-read', Infinity);
  t.equal(parent.exitCode ?? (await once(parent, 'exit'))[0], 0);
  t.match(lines[1], /^consumer: got \d{3} bytes of hashes, which describe 1048576 bytes$/);
  t.strictSame(lines.toSpliced(1, 1), [
    'publisher: has a file of 1048576 bytes',
    'consumer: an earlier download stopped after 600000 bytes',
    'consumer: 589824 of them are verified, 10176 are no whole block yet',
    'consumer: reads at 320000: "line 0000020000"',
    'consumer: reads at 900000: a hole of 458752 bytes from 589824 on',
    'consumer: asks the publisher for the hole: 458752 bytes verified, 0 rejected',
    'consumer: reads at 900000: "line 0000056250"',
    'consumer: empties its cache',
    'consumer: reads at 900000: a hole of 1048576 bytes from 0 on',
  ]);
});

t.test('two peers: all bytes from the other one', async (t) => {
  const { process: child, lines } = await run('peers', Infinity);
  t.equal(child.exitCode ?? (await once(child, 'exit'))[0], 0);
  t.strictSame(lines, ['512000 bytes from the peer: all of them right']);
});

t.test('applications that publish their own answers: the plain body first, then hashes', async (t) => {
  const folder = t.testdir({ file: content });
  const applications = [
    ['connect-app', folder, '/files/file'],
    ['fastify-app', join(folder, 'file'), '/file'],
    ['http-proxy-app', originUrl, '/file'],
  ] as const;
  for (const [name, argument, path] of applications) {
    const { url } = await run(name, 1, argument);
    const ask = () =>
      download({
        port: new URL(url).port,
        path,
        agent: false,
        headers: { 'accept-encoding': 'peerdist', 'x-p2p-peerdist': 'Version=1.0' },
      });
    t.equal(sha256((await ask()).body), sha256(content), name);
    t.equal((await ask()).response.headers['content-encoding'], 'peerdist', name);
  }
});

t.test('fetch: the second download and a range cost the server nothing', async (t) => {
  const { process: child, lines } = await run('fetch-through-cache', Infinity);
  t.equal(child.exitCode ?? (await once(child, 'exit'))[0], 0);
  t.strictSame(lines, [
    '200: 2560000 bytes, of which the server sent 2560000; peerdist; fwd=uri-miss; stored',
    '200: 2560000 bytes, of which the server sent 0; peerdist; hit',
    '206: 1000000 bytes, of which the server sent 0; peerdist; fwd=uri-miss',
  ]);
});

t.test('undici: both downloads are whole', async (t) => {
  const { process: child, lines } = await run('undici-interceptor', Infinity, `${originUrl}/file`);
  t.equal(child.exitCode ?? (await once(child, 'exit'))[0], 0);
  t.match(lines[0], /^first: 200, 300000 bytes; so far \d+ from the origin/);
  t.match(lines[1], /^second: 200, 300000 bytes/);
});
