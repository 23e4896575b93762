/**
 * What http-proxy gets wrong on its own, one test for each fault, through the real host with bare sockets on both sides.
 * Smuggling has its own file.
 */
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Socket } from 'node:net';
import t from 'tap';
import {
  deafPort,
  hasControls,
  listen,
  RawClient,
  RecordingOrigin,
  type RecordingOriginOptions,
  type Scope,
  type SeenRequest,
  startHost,
  type TestHost,
  values,
  within,
} from '../support/net.ts';
import { Kit, ProxyResponse } from '../../lib/kit/index.ts';
import type { HttpProxyHostOptions } from '../../plugins/http-proxy/index.ts';

interface Pair {
  readonly origin: RecordingOrigin;
  readonly proxy: TestHost;
}

/** A recording origin behind a reverse proxy. */
async function start(
  scope: Scope,
  origin: RecordingOriginOptions = {},
  options: Partial<HttpProxyHostOptions> = {},
): Promise<Pair> {
  const recording = await RecordingOrigin.listen(scope, origin);
  return { origin: recording, proxy: await startHost(scope, { origin: recording.url, ...options }) };
}

/** An origin that answers every request with these bytes. */
function always(bytes: string, after: (socket: Socket) => void = () => {}): RecordingOriginOptions {
  return {
    answer: (_request, socket) => {
      socket.write(Buffer.from(bytes, 'latin1'));
      after(socket);
    },
  };
}

const GET = 'GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

function closed(socket: Socket): Promise<unknown> {
  return socket.destroyed ? Promise.resolve() : within(once(socket, 'close'), 'the end of the origin connection');
}

await t.test('Trailer', async (test) => {
  await test.test('of a client is dropped, its body goes on', async (inner) => {
    const { origin, proxy } = await start(inner);
    const client = await proxy.client();
    client.send('POST /t HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n');
    client.send('3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n');
    inner.match(await client.response(), { status: 200, body: 'ok', complete: true });
    const seen = await origin.whole(1);
    inner.equal(seen.body, 'abc');
    inner.notMatch(seen.head, /trailer|x-sum|evil|^te:/im);

    client.send('GET /t HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\n\r\n');
    inner.match(await client.response(), { status: 200, complete: true });
    inner.notMatch((await origin.whole(2)).head, /trailer/i);
  });

  await test.test('of an origin with Content-Length costs nobody the answer', async (inner) => {
    const { proxy } = await start(inner, always('HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 5\r\n\r\nhello'));
    const client = await proxy.client();
    for (const _ of [1, 2]) {
      const response = await client.send(GET).response();
      inner.match(response, { status: 200, body: 'hello', complete: true });
      inner.strictSame(values(response.fields, 'trailer'), []);
    }
  });

  await test.test('of a chunked origin answer is dropped with its fields', async (inner) => {
    const { proxy } = await start(
      inner,
      always(
        'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n',
      ),
    );
    const client = await proxy.client();
    const response = await client.send(GET).response();
    inner.match(response, { status: 200, body: 'hello', complete: true });
    inner.strictSame(values(response.fields, 'trailer'), []);
    inner.match(await client.send(GET).response(), { status: 200, body: 'hello', complete: true });
  });
});

await t.test('reason phrases nobody may write', async (test) => {
  for (const [sent, expected] of [
    ['OK', 'OK'],
    ['Tr\xe8s bien \xff', 'Tr\xe8s bien \xff'],
    ['Bell\x07 rings', 'OK'],
    ['Del\x7fete', 'OK'],
    ['Bare\rreturn', 'OK'],
    ['', 'OK'],
  ] as const) {
    const { proxy } = await start(test, always(`HTTP/1.1 200 ${sent}\r\nContent-Length: 2\r\n\r\nok`));
    const client = await proxy.client();
    const response = await client.send(GET).response();
    const name = JSON.stringify(sent);
    if (response.status === 200) {
      test.equal(response.reason, expected, name);
      test.equal(response.body, 'ok', name);
    } else {
      test.equal(response.status, 502, `${name}: the parser refuses it`);
      test.match(sent, /[\r\x7f]/, name);
    }
    test.match(await client.send(GET).response(), { complete: true }, `${name}: the connection goes on`);
  }
});

await t.test('status codes', async (test) => {
  await test.test('101 to a plain GET is a protocol error', async (inner) => {
    const { origin, proxy } = await start(inner, {
      answer: (request, socket) =>
        socket.write(
          request.target === '/x'
            ? 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\n\r\n'
            : OK,
        ),
    });
    const client = await proxy.client();
    const response = await client.send(GET).response();
    inner.match(response, { status: 502, body: /origin/, complete: true });
    await closed((await origin.request(1)).socket);
    client.send('GET /y HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await client.response(), { status: 200, body: 'ok' });
  });

  await test.test('informational ones are not the answer', async (inner) => {
    const { proxy } = await start(
      inner,
      always(`HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${OK}`),
    );
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, body: 'ok', complete: true });
  });

  await test.test('one that cannot be written is a 502, and its connection is given up', async (inner) => {
    const { origin, proxy } = await start(inner, always('HTTP/1.1 099 Odd\r\nContent-Length: 10\r\n\r\nhalf'));
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 502, complete: true });
    await closed((await origin.request(1)).socket);
  });

  for (const status of [204, 205, 304]) {
    await test.test(`${status} with Content-Length leaves nobody waiting for a body`, async (inner) => {
      const { proxy } = await start(inner, {
        answer: (request, socket) =>
          socket.write(
            request.target === '/x'
              ? `HTTP/1.1 ${status} Odd\r\nContent-Length: 5\r\n\r\n${status === 205 ? 'hello' : ''}`
              : OK,
          ),
      });
      const client = await proxy.client();
      const response = await client.send(GET).response();
      inner.match(response, { status, complete: true });
      if (status === 204) inner.strictSame(values(response.fields, 'content-length'), [], 'RFC 9110 8.6');
      client.send('GET /y HTTP/1.1\r\nHost: a\r\n\r\n');
      inner.match(await client.response(), { status: 200, body: 'ok' });
    });
  }
});

await t.test('fields of one connection', async (test) => {
  const hopByHop = [
    'Keep-Alive: timeout=99',
    'Proxy-Connection: keep-alive',
    'Proxy-Authenticate: Basic realm="x"',
    'Proxy-Authorization: Basic eDp5',
    'Proxy-Authentication-Info: x',
    'TE: trailers',
    'Trailer: x-sum',
    'HTTP2-Settings: AAMAAABkAAQAAP__',
    'X-Private: 1',
    'X-Also: 2',
  ];
  const forbidden =
    /keep-alive:|proxy-|^te:|trailer|http2-settings|x-private|x-also|upgrade|^expect|connection:.*x-private/im;

  await test.test('do not reach the origin', async (inner) => {
    const { origin, proxy } = await start(inner);
    const client = await proxy.client();
    const lines = [...hopByHop, 'Connection: close, X-Private, TE', 'connection: X-ALSO', 'X-Public: 3'];
    client.send(`GET /x HTTP/1.1\r\nHost: a\r\n${lines.join('\r\n')}\r\n\r\n`);
    inner.match(await client.response(), { status: 200 });
    const { head, fields } = await origin.whole(1);
    inner.notMatch(head, forbidden);
    inner.strictSame(values(fields, 'x-public'), ['3']);
    inner.strictSame(
      values(fields, 'connection').filter((value) => value !== 'keep-alive'),
      [],
    );
  });

  await test.test('do not reach the client', async (inner) => {
    const lines = [...hopByHop, 'Connection: X-Private', 'connection: x-also', 'Upgrade: h2c', 'X-Public: 3'];
    const { proxy } = await start(
      inner,
      always(`HTTP/1.1 200 OK\r\n${lines.join('\r\n')}\r\nContent-Length: 2\r\n\r\nok`),
    );
    const client = await proxy.client();
    const response = await client.send(GET).response();
    inner.match(response, { status: 200, body: 'ok' });
    const text = response.fields.map(([name, value]) => `${name}: ${value}`).join('\n');
    // Node's own Keep-Alive towards its client is the host's, not the origin's.
    inner.notMatch(
      text.replace(/^keep-alive: timeout=\d+$/im, (line) => (line.endsWith('=99') ? line : '')),
      forbidden,
    );
    inner.strictSame(values(response.fields, 'x-public'), ['3']);
  });

  await test.test('Connection cannot nominate framing, routing or what we act upon', async (inner) => {
    const { origin, proxy } = await start(inner);
    const client = await proxy.client();
    client.send(
      `POST /n HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip\r\nAuthorization: Basic eDp5\r\n` +
        `Cookie: a=b\r\nIf-None-Match: "x"\r\nX-P2P-PeerDist: Version=1.1\r\nVia: 1.0 other\r\nX-Gone: 1\r\n` +
        `Connection: content-length, transfer-encoding, host, range, accept-encoding, authorization, cookie, if-none-match, x-p2p-peerdist, via, x-gone\r\n\r\nhello`,
    );
    inner.match(await client.response(), { status: 200 });
    const seen = await origin.whole(1);
    inner.equal(seen.body, 'hello');
    inner.strictSame(
      ['content-length', 'transfer-encoding', 'range', 'accept-encoding', 'authorization', 'cookie'].map((name) =>
        values(seen.fields, name),
      ),
      [['5'], [], ['bytes=0-1'], ['gzip'], ['Basic eDp5'], ['a=b']],
    );
    inner.strictSame(values(seen.fields, 'host'), [`127.0.0.1:${origin.port}`]);
    inner.strictSame(values(seen.fields, 'if-none-match'), ['"x"']);
    inner.strictSame(values(seen.fields, 'x-p2p-peerdist'), ['Version=1.1']);
    inner.match(values(seen.fields, 'via'), [/^1\.0 other, 1\.1 /]);
    inner.strictSame(values(seen.fields, 'x-gone'), []);

    client.send(
      'PUT /c HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    );
    inner.match(await client.response(), { status: 200 });
    const chunked = await origin.whole(2);
    inner.equal(chunked.body, 'abc');
    inner.strictSame(values(chunked.fields, 'transfer-encoding'), ['chunked']);
  });

  await test.test('an origin cannot nominate them away either', async (inner) => {
    const { proxy } = await start(
      inner,
      always(
        'HTTP/1.1 200 OK\r\nConnection: content-length, content-encoding, etag, cache-control, content-range\r\n' +
          'Content-Encoding: gzip\r\nETag: "e"\r\nCache-Control: no-store\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\n\r\nok',
      ),
    );
    const client = await proxy.client();
    const { fields, body } = await client.send(GET).response();
    inner.equal(body, 'ok');
    for (const name of ['content-length', 'content-encoding', 'etag', 'cache-control', 'content-range'])
      inner.equal(values(fields, name).length, 1, name);
  });
});

await t.test('Expect', async (test) => {
  const { origin, proxy } = await start(test);
  const client = await proxy.client();
  client.send('POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n');
  test.match(await client.until('\r\n\r\n'), /^HTTP\/1\.1 100 Continue\r\n\r\n/);
  client.send('hello');
  test.match(await client.response(), { status: 200, body: 'ok' });
  const seen = await origin.whole(1);
  test.equal(seen.body, 'hello');
  test.notMatch(seen.head, /expect/i);

  client.send('GET /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n');
  test.match(await client.response(), { status: 200, body: 'ok' }, 'without a body');
  test.notMatch((await origin.whole(2)).head, /expect/i);

  const other = await proxy.client();
  other.send('POST /e HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 5\r\n\r\nhello');
  test.equal((await other.response()).status, 417);
  test.equal(origin.requests.length, 2, 'an unknown expectation goes no further');
});

await t.test('a client that leaves', async (test) => {
  await test.test('before the head', async (inner) => {
    const { origin, proxy } = await start(inner, { answer: () => {} });
    const client = await proxy.client();
    client.send(GET);
    const seen = await origin.whole(1);
    client.socket.destroy();
    await closed(seen.socket);
    inner.pass('the origin request is closed');
  });

  await test.test('mid-body', async (inner) => {
    const { origin, proxy } = await start(inner, always('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst'));
    const client = await proxy.client();
    client.send(GET);
    await client.until('first');
    client.socket.resetAndDestroy();
    await closed((await origin.request(1)).socket);
    inner.pass('the origin request is closed');
  });

  for (const [name, head, part] of [
    ['Content-Length', 'Content-Length: 1000', 'part'],
    ['chunks', 'Transfer-Encoding: chunked', '4\r\npart\r\n'],
  ] as const) {
    await test.test(`mid-upload, ${name}`, async (inner) => {
      const { origin, proxy } = await start(inner);
      const client = await proxy.client();
      client.send(`POST /u HTTP/1.1\r\nHost: a\r\n${head}\r\n\r\n${part}`);
      const seen = await origin.request(1);
      client.socket.destroy();
      await closed(seen.socket);
      inner.notOk(seen.isComplete, 'half an upload never looks whole');
    });

    await test.test(`mid-upload with a body limit, ${name}`, async (inner) => {
      const { origin, proxy } = await start(inner, {}, { maxRequestBytes: 10_000 });
      const client = await proxy.client();
      client.send(`POST /u HTTP/1.1\r\nHost: a\r\n${head}\r\n\r\n${part}`);
      const seen = await origin.request(1);
      client.socket.destroy();
      await closed(seen.socket);
      inner.notOk(seen.isComplete);
    });
  }

  await test.test('with a second request in its pipeline', async (inner) => {
    const { origin, proxy } = await start(inner, { answer: () => {} });
    const client = await proxy.client();
    client.send(GET + GET);
    const seen = [await origin.whole(1), await origin.whole(2)];
    client.socket.destroy();
    await Promise.all(seen.map(({ socket }) => closed(socket)));
    inner.pass('both origin requests are closed');
  });

  await test.test('is nobody else’s trouble', async (inner) => {
    const { origin, proxy } = await start(inner, {
      answer: (request, socket) => request.target === '/x' || socket.write(OK),
    });
    const leaving = await Promise.all(Array.from({ length: 5 }, () => proxy.client()));
    for (const client of leaving) client.send(GET);
    const staying = await proxy.client();
    const left = await Promise.all([1, 2, 3, 4, 5].map((number) => origin.whole(number)));
    for (const client of leaving) client.socket.destroy();
    staying.send('GET /y HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await staying.response(), { status: 200, body: 'ok' });
    await Promise.all(left.map(({ socket }) => closed(socket)));
    inner.equal(origin.sockets.filter((socket) => !socket.destroyed).length, 1);
  });
});

await t.test('an origin cut off', async (test) => {
  const cuts: readonly (readonly [string, string])[] = [
    ['mid-body with Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'],
    ['before the first byte of a body', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'],
    ['mid-chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf'],
    ['between chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'],
    ['before the last empty line', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n'],
    ['by a chunk size that is none', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n'],
  ];
  for (const [name, bytes] of cuts) {
    for (const how of ['end', 'reset'] as const) {
      const { proxy } = await start(
        test,
        always(bytes, (socket) => (how === 'end' ? socket.end() : socket.resetAndDestroy())),
      );
      const client = await proxy.client();
      const response = await client.send(GET).response();
      // A reset may overtake the head.
      test.notOk(response.complete && response.status === 200, `${name}, ${how}: the client sees it`);
      if (response.status === 200) await within(client.closed, 'the end of the client connection');
    }
  }
  await test.test('without any framing', async (inner) => {
    for (const how of ['end', 'reset'] as const) {
      const { origin, proxy } = await start(inner, always('HTTP/1.0 200 OK\r\n\r\nbody'));
      const client = await proxy.client();
      client.send(GET);
      await client.until('body');
      const socket = origin.sockets[0] as Socket;
      if (how === 'end') socket.end();
      else socket.resetAndDestroy();
      inner.match(await client.response(), { status: 200, body: 'body', complete: how === 'end' }, how);
    }
  });

  await test.test('under an HTTP/1.0 client, which knows the end only by the connection', async (inner) => {
    for (const [name, bytes, how] of [
      ['whole', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n', 'ended'],
      ['cut', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', 'reset'],
    ] as const) {
      const { proxy } = await start(
        inner,
        always(bytes, (socket) => socket.end()),
      );
      const client = await proxy.client();
      client.send('GET /x HTTP/1.0\r\n\r\n');
      inner.equal(await within(client.closed, 'the end of the client connection'), how, name);
    }
  });

  for (const bytes of ['', 'HTTP/1.1 200', 'HTTP/1.1 200 OK\r\nContent-', 'nonsense\r\n\r\n']) {
    const { proxy } = await start(
      test,
      always(bytes, (socket) => socket.end()),
    );
    const client = await proxy.client();
    const response = await client.send(GET).response();
    test.match(
      response,
      { status: 502, complete: true, body: /^peerdist: .*\n$/ },
      `cut after ${JSON.stringify(bytes)}`,
    );
    test.match(values(response.fields, 'content-type'), [/^text\/plain/]);
  }
});

await t.test('a kept connection that closes just when it is used again', async (test) => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['GET', 'GET /r HTTP/1.1\r\nHost: a\r\n\r\n', true],
    ['HEAD', 'HEAD /r HTTP/1.1\r\nHost: a\r\n\r\n', true],
    ['POST', 'POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi', false],
    ['POST', 'POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n', false],
    ['GET', 'GET /r HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi', false],
  ];
  for (const [method, request, repeated] of cases) {
    for (const how of ['end', 'reset'] as const) {
      const name = `${JSON.stringify(request.slice(0, 60))}, ${how}`;
      const { origin, proxy } = await start(test, {
        answer: (seen, socket) => {
          const isFirstOfConnection = seen.connection === 2 || seen.target === '/x';
          if (isFirstOfConnection) socket.write(seen.method === 'HEAD' ? 'HTTP/1.1 200 OK\r\n\r\n' : OK);
          else if (how === 'end') socket.end();
          else socket.resetAndDestroy();
        },
      });
      const client = await proxy.client();
      test.match(await client.send(GET).response(), { status: 200 });
      const response = await client.send(request).response(method);
      test.equal(response.status, repeated ? 200 : 502, name);
      test.strictSame(
        origin.requests.map(({ method: sent, connection }) => `${sent} ${connection}`),
        ['GET 1', `${method} 1`, ...(repeated ? [`${method} 2`] : [])],
        name,
      );
    }
  }

  await test.test('a fresh connection that closes is not tried again', async (inner) => {
    const { origin, proxy } = await start(
      inner,
      always('', (socket) => socket.end()),
    );
    const client = await proxy.client();
    inner.equal((await client.send(GET).response()).status, 502);
    inner.equal(origin.requests.length, 1);
  });

  await test.test('an answer that has begun is not begun again', async (inner) => {
    const { origin, proxy } = await start(inner, {
      answer: (seen, socket) => {
        if (seen.target === '/x') socket.write(OK);
        else socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf');
      },
    });
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200 });
    client.send('GET /half HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await client.response(), { status: 200, complete: false });
    inner.equal(origin.requests.length, 2);
  });
});

await t.test('bytes behind the end of an answer', async (test) => {
  const evil = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil';
  for (const [name, method, first] of [
    ['after Content-Length', 'GET', OK],
    ['after chunks', 'GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'],
    ['after HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n'],
    ['after 304', 'GET', 'HTTP/1.1 304 Not Modified\r\n\r\n'],
  ] as const) {
    const { proxy } = await start(test, {
      answer: (seen, socket) => socket.write(seen.target === '/first' ? first + evil : OK),
    });
    const client = await proxy.client();
    client.send(`${method} /first HTTP/1.1\r\nHost: a\r\n\r\n`);
    test.match(await client.response(method), { complete: true }, name);
    client.send('GET /second HTTP/1.1\r\nHost: a\r\n\r\n');
    test.equal((await client.response()).body, 'ok', `${name}: they are not the next one's answer`);
  }
});

await t.test('time limits', async (test) => {
  await test.test('no answer', async (inner) => {
    const { origin, proxy } = await start(inner, { answer: () => {} }, { timeouts: { headMs: 100 } });
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 504, body: /in time/, complete: true });
    await closed((await origin.request(1)).socket);
    client.send('POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi');
    inner.match(await client.response(), { status: 504, complete: true });
  });

  await test.test('silence before the head', async (inner) => {
    const { origin, proxy } = await start(inner, { answer: () => {} }, { timeouts: { idleMs: 200 } });
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 504, complete: true }, 'there is still time to say so');
    await closed((await origin.request(1)).socket);
  });

  await test.test('nobody there', async (inner) => {
    const gone = createServer();
    const port = await listen(inner, gone);
    gone.close();
    await once(gone, 'close');
    const proxy = await startHost(inner, { origin: `http://127.0.0.1:${port}` });
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 502, body: /cannot be reached/, complete: true });
    client.send('POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi');
    inner.match(await client.response(), { status: 502 });
  });

  await test.test('no connection in time', async (inner) => {
    const port = await deafPort(inner);
    if (port === undefined) {
      inner.pass('connect time-out', { skip: 'needs Linux' });
      return;
    }
    const proxy = await startHost(inner, { origin: `http://127.0.0.1:${port}`, timeouts: { connectMs: 100 } });
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 504, body: /connect/, complete: true });
    client.send('POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi');
    inner.match(await client.response(), { status: 504 }, 'with a body');
  });

  await test.test('silence mid-body', async (inner) => {
    const { origin, proxy } = await start(inner, always('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'), {
      timeouts: { idleMs: 200 },
    });
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, body: 'half', complete: false });
    await closed((await origin.request(1)).socket);
  });

  await test.test('a client that does not read', async (inner) => {
    const big = 32 * 1024 * 1024;
    const { origin, proxy } = await start(
      inner,
      {
        answer: (_seen, socket) => {
          socket.on('error', () => {});
          socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${big + 10}\r\n\r\n`);
          socket.write(Buffer.alloc(big));
        },
      },
      { timeouts: { idleMs: 200 } },
    );
    // A server of somebody else's, which does not time its clients out.
    const server = createHttpServer();
    const port = await listen(inner, server);
    proxy.host.attach(server);
    const slow = await RawClient.connect(inner, port);
    slow.socket.on('error', () => {});
    slow.socket.pause();
    slow.send('GET /big HTTP/1.1\r\nHost: a\r\n\r\n');
    const { socket } = await origin.request(1);
    // By a reset, since it was still sending.
    if (!socket.destroyed) await new Promise((resolve) => void socket.once('close', resolve));
    inner.pass('the exchange ends, and with it the connection to the origin');
  });

  await test.test('a client silent mid-upload', async (inner) => {
    const { origin, proxy } = await start(inner, {}, { timeouts: { idleMs: 200 } });
    const client = await proxy.client();
    client.send('POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf');
    const seen = await origin.request(1);
    await within(client.closed, 'the end of the client connection');
    await closed(seen.socket);
    inner.notOk(seen.isComplete);
  });

  await test.test('of a whole exchange', async (inner) => {
    const { origin, proxy } = await start(
      inner,
      {
        onHead: (seen, socket) => {
          if (seen.target !== '/x') return;
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n');
          // Never silent, never done.
          const drip = setInterval(() => socket.write('drip'), 10);
          socket.once('close', () => clearInterval(drip));
        },
        answer: () => {},
      },
      { timeouts: { totalMs: 300 } },
    );
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, complete: false, body: /^drip/ });
    await closed((await origin.request(1)).socket);

    const waiting = await proxy.client();
    waiting.send('GET /never HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await waiting.response(), { status: 504, complete: true }, 'before the head there is still an answer');
    await closed((await origin.request(2)).socket);
  });

  await test.test('none for a long upload', async (inner) => {
    const proxy = await startHost(inner, { origin: 'http://127.0.0.1:9' });
    const server = proxy.host.createServer();
    inner.equal(server.requestTimeout, 0);
    inner.ok(server.headersTimeout > 0, 'the head is still due in time');
  });
});

await t.test('Content-Length more than once', async (test) => {
  const { origin, proxy } = await start(test);
  for (const lines of [
    'Content-Length: 2\r\nContent-Length: 2',
    'Content-Length: 2\r\nContent-Length: 5',
    'Content-Length: 2, 2',
  ]) {
    const client = await proxy.client();
    client.send(`POST /x HTTP/1.1\r\nHost: a\r\n${lines}\r\n\r\nhiGET`);
    test.equal((await client.response()).status, 400, JSON.stringify(lines));
    await within(client.closed, 'the end of the connection');
  }
  test.equal(origin.requests.length, 0);

  for (const lines of [
    'Content-Length: 2\r\nContent-Length: 5',
    'Content-Length: 2\r\nTransfer-Encoding: chunked',
    'Transfer-Encoding: chunked\r\nContent-Length: 2',
  ]) {
    const answering = await start(test, always(`HTTP/1.1 200 OK\r\n${lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n`));
    const client = await answering.proxy.client();
    const response = await client.send(GET).response();
    const name = `of the origin: ${JSON.stringify(lines)}`;
    if (response.status === 502) test.ok(response.complete, name);
    else {
      // Taking the chunks at their word is allowed (RFC 9112 6.3), with framing of our own.
      test.match(response, { status: 200, body: 'hello', complete: true }, name);
      test.equal(client.received, '', name);
    }
  }
});

await t.test('a body on GET and HEAD', async (test) => {
  const { origin, proxy } = await start(test, {
    answer: (seen, socket) =>
      socket.write(seen.method === 'HEAD' ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n' : OK),
  });
  const client = await proxy.client();
  let number = 0;
  for (const method of ['GET', 'HEAD']) {
    for (const [framing, body] of [
      ['Content-Length: 5', 'hello'],
      ['Transfer-Encoding: chunked', '5\r\nhello\r\n0\r\n\r\n'],
    ] as const) {
      client.send(`${method} /b HTTP/1.1\r\nHost: a\r\n${framing}\r\n\r\n${body}`);
      test.match(await client.response(method), { status: 200, complete: true }, `${method}, ${framing}`);
      number += 1;
      const seen = await origin.whole(number);
      test.match(seen, { method, body: 'hello' });
      test.equal(
        values(seen.fields, 'content-length').length + values(seen.fields, 'transfer-encoding').length,
        1,
        'one framing',
      );
    }
  }
  client.send('GET /n HTTP/1.1\r\nHost: a\r\n\r\n');
  await client.response();
  const bare = await origin.whole(number + 1);
  test.strictSame([...values(bare.fields, 'content-length'), ...values(bare.fields, 'transfer-encoding')], []);
  test.equal(origin.requests.length, number + 1);
});

await t.test('limits of a request body', async (test) => {
  const { origin, proxy } = await start(test, {}, { maxRequestBytes: 10 });
  const exact = await proxy.client();
  exact.send('POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789');
  test.match(await exact.response(), { status: 200 });
  test.equal((await origin.whole(1)).body, '0123456789');

  const declared = await proxy.client();
  declared.send('POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n');
  test.match(await declared.response(), { status: 413, body: /10 bytes/ });
  test.equal(origin.requests.length, 1);

  const growing = await proxy.client();
  growing.send('POST /l HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n');
  const seen = await origin.request(2);
  growing.send('8\r\n01234567\r\n0\r\n\r\n');
  test.match(await growing.response(), { status: 413 });
  await closed(seen.socket);
  test.notOk(seen.isComplete);
});

await t.test('a request body nobody reads', async (test) => {
  const kit = new Kit({ plugins: [{ name: 'answerer', handle: () => ProxyResponse.text(200, 'mine') }] });
  for (const maxRequestBytes of [Infinity, 1_000_000]) {
    for (const framing of ['Content-Length: 300000', 'Transfer-Encoding: chunked']) {
      await test.test(`${framing}, limit ${maxRequestBytes}`, async (inner) => {
        const { proxy } = await start(inner, {}, { kit, maxRequestBytes });
        const client = await proxy.client();
        client.send(`POST /x HTTP/1.1\r\nHost: a\r\n${framing}\r\n\r\n`);
        if (framing.startsWith('T')) client.send('493e0\r\n');
        client.send(Buffer.alloc(300_000));
        if (framing.startsWith('T')) client.send('\r\n0\r\n\r\n');
        client.send(GET);
        inner.match(await client.response(), { status: 200, body: 'mine\n' });
        inner.match(await client.response(), { status: 200, body: 'mine\n' }, 'it is not in the way of the next');
      });
    }
  }

  await test.test('past the limit', async (inner) => {
    const uncaught: unknown[] = [];
    const note = (error: unknown): void => void uncaught.push(error);
    process.prependListener('uncaughtException', note);
    inner.teardown(() => process.off('uncaughtException', note));
    const { proxy } = await start(inner, {}, { kit, maxRequestBytes: 10 });
    const client = await proxy.client();
    client.send(
      'POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n',
    );
    inner.match(String((await client.response()).status), /^(?:200|413)$/);
    const after = await proxy.client();
    inner.match(await after.send(GET).response(), { status: 200 });
    inner.strictSame(uncaught, [], 'its error has somebody who listens');
  });
});

await t.test('an answer before the end of the upload', async (test) => {
  const { proxy } = await start(test, {
    onHead: (_seen, socket) =>
      socket.end('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig'),
    answer: () => {},
  });
  const client = await proxy.client();
  client.send('POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n');
  client.send(new Uint8Array(1_000_000));
  test.match(await client.response(), { status: 413, body: 'big', complete: true });
});

await t.test('CONNECT to a reverse proxy', async (test) => {
  const { origin, proxy } = await start(test);
  const client = await proxy.client();
  client.send(`CONNECT 127.0.0.1:${origin.port} HTTP/1.1\r\nHost: 127.0.0.1:${origin.port}\r\n\r\n${GET}`);
  const response = await client.response();
  test.ok(response.status >= 400 && response.status < 500, `refused with ${response.status}`);
  test.match(response.body, /CONNECT/);
  await within(client.closed, 'the end of the connection');
  test.equal(origin.sockets.length, 0);
});

await t.test('fields of the origin that cannot be written', async (test) => {
  for (const line of [
    'X-Bad: a\x01b',
    'X-Bad: a\x00b',
    'X-Bad: a\rb',
    'X-Bad: a\x7fb',
    'X Bad: b',
    'X-Bad : b',
    'X-B\xe4d: b',
    ': b',
    'no colon',
    ' folded: b',
  ]) {
    const { proxy } = await start(
      test,
      always(`HTTP/1.1 200 OK\r\nX-Good: 1\r\n${line}\r\nX-Last: \xe4\r\nContent-Length: 2\r\n\r\nok`),
    );
    const client = await proxy.client();
    const response = await client.send(GET).response();
    const name = JSON.stringify(line);
    test.ok(response.complete, name);
    if (response.status === 200) {
      test.equal(response.body, 'ok', name);
      test.strictSame(values(response.fields, 'x-last'), ['\xe4'], name);
      test.notOk(hasControls(response.fields.flat().join('')), name);
    } else test.equal(response.status, 502, name);
    test.match(await client.send(GET).response(), { status: response.status }, `${name}: the process lives`);
  }
});

await t.test('more fields than Node hands over', async (test) => {
  const junk = Array.from({ length: 1_200 }, (_, index) => `a${index}:b`).join('\r\n');
  const { origin, proxy } = await start(test);
  const client = await proxy.client();
  client.send(`POST /m HTTP/1.1\r\nHost: a\r\n${junk}\r\nCookie: c=d\r\nContent-Length: 5\r\n\r\nhello`);
  const response = await client.response();
  // Either refused or complete: a request that silently lost its last fields is another request.
  if (response.status === 200) {
    const seen: SeenRequest = await origin.whole(1);
    test.equal(seen.body, 'hello');
    test.strictSame(values(seen.fields, 'cookie'), ['c=d']);
  } else {
    test.match(String(response.status), /^(?:400|431)$/);
    test.equal(origin.requests.length, 0);
  }
});

await t.test('every exchange is observed once', async (test) => {
  const { proxy } = await start(test);
  const client = await proxy.client();
  await client.send(GET).response();
  client.send('GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n');
  await client.response();
  await within(client.closed, 'the end of the connection');
  test.match(
    proxy.observations.map((observation) => (observation.type === 'exchange' ? observation.status : observation.type)),
    [200, 400],
  );
});

const PIPELINED = [
  'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n',
  'GET /b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
];

t.test(
  'CONNECT and Upgrade behind an answer that is not there yet: the connection ends, and nothing else does',
  async (t) => {
    for (const allowClients of [undefined, ['192.0.2.1']])
      for (const second of PIPELINED) {
        // It never answers.
        const { proxy } = await start(t, { answer: () => {} }, allowClients === undefined ? {} : { allowClients });
        const client = await RawClient.connect(t, proxy.port);
        client.send(`GET /a HTTP/1.1\r\nHost: a\r\n\r\n${second}`);
        await within(client.closed, 'the end of the connection');
        const next = await RawClient.connect(t, proxy.port);
        next.send('OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
        if (allowClients !== undefined) t.equal((await next.response()).status, 403);
      }
  },
);

t.test(
  'exchanges of a pipeline whose client leaves all come to an end, and are counted as what they are',
  async (t) => {
    const ended: number[] = [];
    const watch: NonNullable<HttpProxyHostOptions['watch']> = () => ({
      observe() {},
      answered() {},
      ended: ({ status }) => void ended.push(status),
    });
    const { origin, proxy } = await start(t, { answer: () => {} }, { watch });
    const client = await RawClient.connect(t, proxy.port);
    client.send('GET /a HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(20));
    while (origin.sockets.length === 0) await new Promise((resolve) => setImmediate(resolve));
    client.socket.destroy();
    const isOver = (): boolean => ended.length === 20;
    while (!isOver()) await new Promise((resolve) => setImmediate(resolve));
    t.same([...new Set(ended)], [499], 'none had an answer');
  },
);
