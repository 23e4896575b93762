/** The host as a guest: Connect and Express middleware, and on a server somebody else made. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import express from 'express';
import t from 'tap';
import { isPeerDistError } from '../../lib/errors.ts';
import { definePlugin, Kit } from '../../lib/kit/index.ts';
import { createProxyServer, HttpProxyHost, type HttpProxyHostOptions } from '../../plugins/http-proxy/index.ts';
import { listen, RawClient, RecordingOrigin, type Scope, values, within } from '../support/net.ts';

async function guest(
  scope: Scope,
  origin: string,
  options: Partial<HttpProxyHostOptions> = {},
): Promise<HttpProxyHost> {
  const host = new HttpProxyHost({ proxy: createProxyServer(), kit: new Kit({ plugins: [] }), origin, ...options });
  scope.teardown(() => host.close());
  return host;
}

await t.test('Express', async (test) => {
  const origin = await RecordingOrigin.listen(test, {
    answer: ({ target }, socket) => {
      if (target === '/hang-up') socket.end();
      else if (target === '/half') socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf');
      else socket.write('HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok');
    },
  });
  const seen: unknown[] = [];
  const stamp = definePlugin({
    name: 'stamp',
    handle: async (request, next) => {
      const response = await next(request);
      return response.with({ headers: { ...response.headers, 'x-stamp': request.target } });
    },
  });
  const host = await guest(test, origin.url, { kit: new Kit({ plugins: [stamp] }) });
  const app = express();
  app.get('/own', (_request, response) => void response.send('own'));
  app.use('/files', host.middleware);
  app.use(((error, _request, response, _next) => {
    seen.push(error);
    response.status(599).send('handled');
  }) satisfies express.ErrorRequestHandler);
  const port = await listen(test, createServer(app as never));
  const client = await RawClient.connect(test, port);
  const ask = (method: string, target: string, rest = '\r\n'): RawClient =>
    client.send(`${method} ${target} HTTP/1.1\r\nHost: a.test\r\n${rest}`);

  test.match(await ask('GET', '/own').response(), { status: 200, body: 'own' });

  const response = await ask('GET', '/files/a//b?c=%2e').response();
  test.match(response, { status: 200, body: 'ok', complete: true });
  test.equal((await origin.whole(1)).target, '/a//b?c=%2e', 'the mount path is the application’s affair');
  test.strictSame(values(response.fields, 'set-cookie'), ['a=1', 'b=2'], 'lines that cannot be joined');
  test.strictSame(values(response.fields, 'x-stamp'), ['/a//b?c=%2e'], 'through the plug-ins');

  test.match(await ask('POST', '/files/up', 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n').response(), {
    status: 200,
  });
  test.match(await origin.whole(2), { target: '/up', body: 'hello' });
  test.match(await ask('HEAD', '/files/').response('HEAD'), { status: 200 });

  test.match(await ask('GET', '/files/hang-up').response(), { status: 599, body: 'handled', complete: true });
  test.ok(isPeerDistError(seen[0]), 'an error before the head goes to next');
  test.match(await ask('GET', '/own').response(), { status: 200, body: 'own' }, 'and the connection goes on');

  test.match(await ask('GET', '/files/half').response(), { status: 200, complete: false });
  test.equal(seen.length, 1, 'an error after the head breaks the connection instead');
  await within(client.closed, 'the end of the client connection');

  const other = await RawClient.connect(test, port);
  other.send('GET /files/x HTTP/1.1\r\nHost: a b\r\n\r\n');
  test.match(await other.response(), { status: 599 });
  test.ok(isPeerDistError(seen[1], 'ERR_PEERDIST_BAD_REQUEST'), 'a refusal too');
});

await t.test('a plain server of somebody else', async (test) => {
  const origin = await RecordingOrigin.listen(test, {
    answer: ({ target }, socket) =>
      target === '/hang-up' ? socket.end() : socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
  });
  const host = await guest(test, origin.url);

  const server = createServer((request, response) => host.handle(request, response));
  const client = await RawClient.connect(test, await listen(test, server));
  test.match(await client.send('GET /x HTTP/1.1\r\nHost: a\r\n\r\n').response(), { status: 200, body: 'ok' });
  client.send('GET /hang-up HTTP/1.1\r\nHost: a\r\n\r\n');
  test.match(
    await client.response(),
    { status: 502, body: /^peerdist: / },
    'without next there is an answer all the same',
  );

  const attached: Server = createServer();
  host.attach(attached);
  const second = await RawClient.connect(test, await listen(test, attached));
  test.match(await second.send('GET /y HTTP/1.1\r\nHost: a\r\n\r\n').response(), { status: 200, body: 'ok' });
  second.send('CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n');
  test.equal((await second.response()).status, 400);
});

await t.test('several hosts share one proxy library', async (test) => {
  const proxy = createProxyServer();
  const origins = [await RecordingOrigin.listen(test), await RecordingOrigin.listen(test)];
  const clients = await Promise.all(
    origins.map(async ({ url }) => {
      const host = await guest(test, url, { proxy });
      const server = host.createServer();
      return RawClient.connect(test, await listen(test, server));
    }),
  );
  for (const client of clients) client.send('POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello');
  for (const client of clients) test.match(await client.response(), { status: 200, body: 'ok', complete: true });
  test.strictSame(
    origins.map(({ requests }) => requests.map(({ body }) => body)),
    [['hello'], ['hello']],
    'each request once, whole, where it belongs',
  );
});

await t.test('a client that leaves a middleware', async (test) => {
  const origin = await RecordingOrigin.listen(test, { answer: () => {} });
  const host = await guest(test, origin.url);
  const errors: unknown[] = [];
  const app = express();
  app.use(host.middleware);
  app.use(((error, _request, _response, _next) => void errors.push(error)) satisfies express.ErrorRequestHandler);
  const client = await RawClient.connect(test, await listen(test, createServer(app as never)));
  client.send('GET /x HTTP/1.1\r\nHost: a\r\n\r\n');
  const { socket } = await origin.whole(1);
  client.socket.destroy();
  await within(once(socket, 'close'), 'the end of the origin connection');
  test.strictSame(errors, [], 'is no error of the application');
});
