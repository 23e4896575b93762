/** Answers as they leave: those in memory leave together and one that fails takes no other with it; a cut one closes its connection. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createNetServer } from 'node:net';
import { Readable } from 'node:stream';
import t from 'tap';
import { definePlugin, Kit, ProxyResponse } from '../../lib/kit/index.ts';
import { createProxyServer, HttpProxyHost } from '../../plugins/http-proxy/index.ts';
import { inTime } from '../support/proxies.ts';
import { failureOf } from '../support/turns.ts';

const BODY = Buffer.alloc(8_192, 7);

t.test('a response whose end throws', async (test) => {
  const answer = definePlugin({
    name: 'answer',
    handle: async () =>
      new ProxyResponse({ status: 200, headers: { 'content-length': String(BODY.byteLength) }, body: [BODY] }),
  });
  const kit = new Kit({ plugins: [answer] });
  const { middleware } = new HttpProxyHost({ proxy: createProxyServer(), kit, origin: 'http://127.0.0.1:1' });
  let arrived = 0;
  const both: (() => void)[] = [];
  const server = createServer((request, response) => {
    if (request.url === '/bad') {
      response.end = () => {
        throw new Error('middleware in the way');
      };
    }
    both.push(() => middleware(request, response));
    arrived += 1;
    // In one turn, the bad one first.
    if (arrived === 2) for (const run of request.url === '/bad' ? both.toReversed() : both) run();
  });
  server.listen(0, '127.0.0.1');
  test.teardown(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const get = (path: string): Promise<Uint8Array> =>
    fetch(`http://127.0.0.1:${port}${path}`).then(async (response) => new Uint8Array(await response.arrayBuffer()));
  const bad = failureOf(get('/bad'));
  const good = await get('/good');
  test.ok(BODY.equals(good), 'the other one of that turn gets its answer');
  test.ok((await bad) instanceof Error, 'its own client sees that it was cut');
});

t.test('a body for an HTTP/1.0 client that breaks while the end of the connection is being sent', async (test) => {
  const body = new Readable({ read() {} });
  body.push('part');
  const answer = definePlugin({
    name: 'answer',
    handle: async () => new ProxyResponse({ status: 200, headers: {}, body }),
  });
  const kit = new Kit({ plugins: [answer] });
  const host = new HttpProxyHost({ proxy: createProxyServer(), kit, origin: 'http://127.0.0.1:1' });
  const server = host.createServer();
  test.teardown(() => host.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const closed = new Promise<void>((resolve) => {
    server.once('connection', (socket) => {
      socket.once('close', () => resolve());
      // Node has just begun to end its side too.
      socket.once('end', () => body.destroy(new Error('the origin broke off')));
    });
  });
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  client.on('error', () => {});
  client.write('GET / HTTP/1.0\r\n\r\n');
  client.once('data', () => client.end());
  await inTime(closed, 'the connection is given back');
  await inTime(new Promise((resolve) => server.close(resolve)), 'the server can close');
  test.ok(body.destroyed);
});

t.test('an origin that sends more than it announced', async (test) => {
  const origin = createNetServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n${'x'.repeat(36)}`));
  });
  origin.listen(0, '127.0.0.1');
  await once(origin, 'listening');
  const url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
  const host = new HttpProxyHost({ proxy: createProxyServer(), kit: new Kit({ plugins: [] }), origin: url });
  const server = host.createServer();
  test.teardown(() => {
    host.close();
    server.close();
    origin.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  for (let count = 0; count < 3; count += 1) {
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    test.equal(await answer.text(), 'x'.repeat(10), 'its client gets what was announced, and nothing behind it');
  }
});

t.test('interim answers are handed on, before the final one and to those who can read them', async (test) => {
  const origin = createNetServer((socket) => {
    socket.on('error', () => {});
    const early = 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\n';
    socket.on('data', () =>
      socket.write(
        `HTTP/1.1 100 Continue\r\n\r\n${early}${'HTTP/1.1 102 Processing\r\n\r\n'.repeat(40)}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
      ),
    );
  });
  origin.listen(0, '127.0.0.1');
  await once(origin, 'listening');
  const url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}`;
  const host = new HttpProxyHost({ proxy: createProxyServer(), kit: new Kit({ plugins: [] }), origin: url });
  const server = host.createServer();
  test.teardown(() => {
    host.close();
    server.close();
    origin.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const received = async (version: string): Promise<string> => {
    const socket = connect(port, '127.0.0.1');
    socket.write(`GET / HTTP/${version}\r\nHost: h\r\nConnection: close\r\n\r\n`);
    const chunks: Buffer[] = [];
    for await (const chunk of socket as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks).toString('latin1');
  };
  const modern = await inTime(received('1.1'), 'the answer');
  test.match(modern, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 102 /);
  test.notMatch(modern, 'x-mine', 'what is for one connection stays there');
  test.notMatch(modern, ' 100 ', 'who did not ask for a 100 gets none');
  test.equal(modern.match(/HTTP\/1\.1 1\d\d /g)?.length, 16, 'no more than a bounded number');
  test.match(modern, /HTTP\/1\.1 200 OK[^]*\r\n\r\nok$/);
  test.match(await inTime(received('1.0'), 'the old answer'), /^HTTP\/1\.[01] 200 OK/);
});
