/**
 * Nothing a client sends may look to an origin like more, fewer or other requests than the proxy saw. The origin here believes whatever
 * framing it is told and counts; it runs once preferring Content-Length and once preferring chunks.
 */
import { createServer } from 'node:http';
import t from 'tap';
import { createProxyServer } from '../../plugins/http-proxy/index.ts';
import {
  hasControls,
  listen,
  RawClient,
  RecordingOrigin,
  type SeenRequest,
  startHost,
  values,
  within,
} from '../support/net.ts';

const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n';
const CHUNKED_SMUGGLED = `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`;

interface Case {
  readonly name: string;
  /** Bytes of the client, all at once. */
  readonly send: string;
  /** Status of each answer it gets. */
  readonly answers: readonly number[];
  /** Requests the origin sees, as `METHOD target body`. */
  readonly sees?: readonly string[];
  /** The parser of this Node may refuse it instead. */
  readonly orRefused?: true;
  /** The proxy must not read on behind a message it cannot delimit. */
  readonly closes?: true;
}

function post(fields: string, body: string, target = '/p'): string {
  return `POST ${target} HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n${body}`;
}

function get(target: string, fields = 'Host: a'): string {
  return `GET ${target} HTTP/1.1\r\n${fields}\r\n\r\n`;
}

/** A message that is refused, with a request hidden behind it that must not be seen either. */
function refused(name: string, send: string): Case {
  return { name, send: send + SMUGGLED, answers: [400], closes: true };
}

const framing: readonly Case[] = [
  ...['DELETE', 'OPTIONS', 'POST', 'PUT', 'GET', 'PATCH', 'PROPFIND'].flatMap((method): Case[] => [
    {
      name: `chunked ${method}`,
      send: `${method} /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_SMUGGLED}`,
      answers: [200],
      sees: [`${method} /d ${SMUGGLED}`],
    },
    {
      name: `${method} with Content-Length`,
      send: `${method} /d HTTP/1.1\r\nHost: a\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
      answers: [200],
      sees: [`${method} /d ${SMUGGLED}`],
    },
    {
      name: `${method} without a body, and its successor`,
      send: `${method} /d HTTP/1.1\r\nHost: a\r\n\r\n${get('/next')}`,
      answers: [200, 200],
      sees: [`${method} /d `, 'GET /next '],
    },
    {
      name: `chunked ${method} without a byte`,
      send: `${method} /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${get('/next')}`,
      answers: [200, 200],
      sees: [`${method} /d `, 'GET /next '],
    },
  ]),
  {
    name: 'HEAD with a body',
    send: `HEAD /h HTTP/1.1\r\nHost: a\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
    answers: [200],
    sees: [`HEAD /h ${SMUGGLED}`],
  },
  {
    name: 'chunked HEAD',
    send: `HEAD /h HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_SMUGGLED}`,
    answers: [200],
    sees: [`HEAD /h ${SMUGGLED}`],
  },
  refused('TE then CL', post('Transfer-Encoding: chunked\r\nContent-Length: 4', CHUNKED_SMUGGLED)),
  refused('CL then TE', post('Content-Length: 4\r\nTransfer-Encoding: chunked', '0\r\n\r\n')),
  refused('two CL that differ', post('Content-Length: 0\r\nContent-Length: 44', '')),
  refused('two CL that agree', post('Content-Length: 2\r\nContent-Length: 2', 'hi')),
  refused('CL as a list', post('Content-Length: 0, 44', '')),
  refused('CL with a sign', post('Content-Length: +2', 'hi')),
  refused('negative CL', post('Content-Length: -1', '')),
  refused('hexadecimal CL', post('Content-Length: 0x2', 'hi')),
  refused('CL with a space inside', post('Content-Length: 2 2', 'hi')),
  refused('CL beyond all numbers', post('Content-Length: 99999999999999999999', '')),
  refused('TE chunked, identity', post('Transfer-Encoding: chunked, identity', CHUNKED_SMUGGLED)),
  refused('TE identity', post('Transfer-Encoding: identity', '')),
  refused('TE identity with CL', post('Transfer-Encoding: identity\r\nContent-Length: 2', 'hi')),
  refused('TE xchunked', post('Transfer-Encoding: xchunked', CHUNKED_SMUGGLED)),
  refused('TE xchunked with CL', post('Transfer-Encoding: xchunked\r\nContent-Length: 2', 'hi')),
  refused('TE gzip, chunked', post('Transfer-Encoding: gzip, chunked', CHUNKED_SMUGGLED)),
  refused('TE chunked twice', post('Transfer-Encoding: chunked, chunked', CHUNKED_SMUGGLED)),
  refused('two TE lines', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', CHUNKED_SMUGGLED)),
  refused('two TE lines that differ', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: x', CHUNKED_SMUGGLED)),
  refused('quoted TE', post('Transfer-Encoding: "chunked"', CHUNKED_SMUGGLED)),
  refused('TE behind a vertical tab', post('Transfer-Encoding: \x0bchunked', CHUNKED_SMUGGLED)),
  refused('space before the colon of TE', post('Transfer-Encoding : chunked', CHUNKED_SMUGGLED)),
  refused('space before the colon of CL', post('Content-Length : 44', '')),
  refused('tab before the colon', get('/x', 'Host: a\r\nX-A\t: b')),
  refused('HTTP/1.0 with TE', 'POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n' + CHUNKED_SMUGGLED),
  {
    name: 'TE in capitals',
    send: post('TRANSFER-ENCODING: CHUNKED', CHUNKED_SMUGGLED),
    answers: [200],
    sees: [`POST /p ${SMUGGLED}`],
  },
  {
    name: 'chunk extensions',
    send: post('Transfer-Encoding: chunked', '3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n') + get('/next'),
    answers: [200, 200],
    sees: ['POST /p abc', 'GET /next '],
  },
  {
    name: 'chunk sizes with leading zeros and capitals',
    send: post('Transfer-Encoding: chunked', '000A\r\n0123456789\r\n000\r\n\r\n') + get('/next'),
    answers: [200, 200],
    sees: ['POST /p 0123456789', 'GET /next '],
  },
  {
    name: 'trailer fields that look like framing',
    send: post('Transfer-Encoding: chunked', '1\r\na\r\n0\r\nContent-Length: 44\r\nHost: evil\r\n\r\n') + get('/next'),
    answers: [200, 200],
    sees: ['POST /p a', 'GET /next '],
    orRefused: true,
  },
  {
    name: 'obs-fold hiding a coding',
    send: post('X-Fold: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 2', 'hi') + get('/next'),
    answers: [200, 200],
    sees: ['POST /p hi', 'GET /next '],
    orRefused: true,
  },
  {
    name: 'obs-fold inside a coding',
    send: post('Transfer-Encoding:\r\n chunked', CHUNKED_SMUGGLED),
    answers: [200],
    sees: [`POST /p ${SMUGGLED}`],
    orRefused: true,
  },
  {
    name: 'lines that end in a bare LF',
    send: `POST /p HTTP/1.1\nHost: a\nContent-Length: 2\n\nhi${get('/next')}`,
    answers: [200, 200],
    sees: ['POST /p hi', 'GET /next '],
    orRefused: true,
  },
  {
    name: 'empty lines before a request',
    send: `\r\n\r\n${get('/x')}`,
    answers: [200],
    sees: ['GET /x '],
    orRefused: true,
  },
  {
    name: 'an Upgrade nobody knows, with something behind it',
    send: get('/x', 'Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c') + SMUGGLED,
    answers: [200],
    sees: ['GET /x '],
    closes: true,
  },
  {
    name: 'a WebSocket handshake the origin does not take, with something behind it',
    send: get('/x', 'Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket') + SMUGGLED,
    answers: [200],
    sees: ['GET /x '],
    closes: true,
  },
  refused(
    'a WebSocket handshake with Content-Length',
    post('Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2', 'hi'),
  ),
  refused(
    'a WebSocket handshake with chunks',
    post('Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked', CHUNKED_SMUGGLED),
  ),
  refused('an unknown Upgrade with a body', post('Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2', 'hi')),
  {
    name: 'a refused request whose body is a request',
    send: `POST /p HTTP/1.1\r\nHost: a b\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
    answers: [400],
  },
];

const controls: readonly Case[] = [
  refused('CR in a value', get('/x', 'Host: a\r\nX-A: b\rX-B: c')),
  refused('NUL in a value', get('/x', 'Host: a\r\nX-A: b\0c')),
  refused('BEL in a value', get('/x', 'Host: a\r\nX-A: b\x07c')),
  refused('NUL in a name', get('/x', 'Host: a\r\nX\0A: b')),
  refused('no colon', get('/x', 'Host: a\r\nnonsense')),
  refused('no name', get('/x', 'Host: a\r\n: b')),
  refused('a space in the target', get('/a b')),
  refused('a NUL in the target', get('/a\0b')),
  refused('a tab in the target', get('/a\tb')),
  refused('a form feed in the target', get('/a\fb')),
  refused('a CR in the target', get('/a\rb')),
  refused('an escape character in the target', get('/a\x1bb')),
  refused('a DEL in the target', get('/a\x7fb')),
  refused('a target that is no path', get('x')),
  refused('an empty target', get('')),
  refused('an unknown method', 'GETS /x HTTP/1.1\r\nHost: a\r\n\r\n'),
  refused('another protocol', 'GET /x HTTP/9.9\r\nHost: a\r\n\r\n'),
  {
    name: 'a bare LF in a value',
    send: get('/x', 'Host: a\r\nX-A: b\nX-B: c'),
    answers: [200],
    sees: ['GET /x '],
    orRefused: true,
  },
];

const hosts: readonly Case[] = [
  ['two that differ', 'Host: a\r\nHost: b'],
  ['two that agree', 'Host: a\r\nHost: a'],
  ['two, one of them empty', 'Host: a\r\nHost:'],
  ['far apart and in other capitals', 'HOST: a\r\nX: y\r\nhost: b'],
  ['empty', 'Host:'],
  ['only white space', 'Host:  '],
  ['none', 'X-A: b'],
  ['a space', 'Host: a b'],
  ['a path', 'Host: a/b'],
  ['user information', 'Host: a@b'],
  ['a port that is none', 'Host: a:99999x'],
  ['a port out of range', 'Host: a:99999'],
  ['only a port', 'Host: :80'],
  ['a query', 'Host: a?b'],
  ['a fragment', 'Host: a#b'],
  ['a backslash', 'Host: a\\b'],
  ['an open bracket', 'Host: [::1'],
  ['a scheme', 'Host: http://a'],
  ['a quote', 'Host: a"b'],
  ['letters outside ASCII', 'Host: \xe4'],
].map(([name, fields]) => ({ name: `Host: ${name}`, send: get('/x', fields), answers: [400] }));

const targets = [
  '/a//b/./c?x=%2e%2E',
  '/%zz',
  '//evil.test/x',
  '/..%2f..',
  '/a/../b',
  '/?',
  '/?a?b',
  '/a;b=c',
  '/\'"<>\\^`{|}',
  '/%00%0d%0aHost:%20evil',
  '/http://evil.test/',
];

function seenAs({ method, target, body }: SeenRequest): string {
  return `${method} ${target} ${body}`;
}

/** Exactly one way to tell the end of the body, and no line nobody wrote. */
function isPlain(request: SeenRequest): boolean {
  const lengths = values(request.fields, 'content-length');
  const codings = values(request.fields, 'transfer-encoding');
  return (
    lengths.length + codings.length <= 1 &&
    lengths.every((length) => /^\d+$/.test(length)) &&
    codings.every((coding) => coding === 'chunked') &&
    values(request.fields, 'host').length === 1 &&
    // Nothing but the line ends that separate lines.
    !hasControls(request.head.replaceAll('\r\n', ''))
  );
}

await t.test('the origin can be fooled, and http-proxy alone does it', async (test) => {
  const origin = await RecordingOrigin.listen(test);
  const proxy = createProxyServer();
  const server = createServer((request, response) => {
    proxy.web(request as never, response as never, { target: origin.url, agent: undefined }, () => response.destroy());
  });
  const client = await RawClient.connect(test, await listen(test, server));
  client.send(`DELETE /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKED_SMUGGLED}`);
  await client.response();
  await origin.whole(2);
  test.ok(origin.requests.length > 1, 'one request became several');
});

for (const believes of ['content-length', 'chunked'] as const) {
  await t.test(`an origin that believes ${believes}`, async (test) => {
    for (const { name, send, answers, sees = [], orRefused, closes } of [...framing, ...controls, ...hosts]) {
      await test.test(name, async (inner) => {
        const origin = await RecordingOrigin.listen(inner, {
          believes,
          answer: ({ method, target }, socket) =>
            socket.write(
              `HTTP/1.1 200 OK\r\nContent-Length: ${target.length}\r\n\r\n${method === 'HEAD' ? '' : target}`,
            ),
        });
        const proxy = await startHost(inner, { origin: origin.url });
        const client = await proxy.client();
        client.send(send);
        const statuses: number[] = [];
        for (const _ of answers) {
          const { status } = await client.response(send.startsWith('HEAD') ? 'HEAD' : 'GET');
          statuses.push(status);
          if (status >= 400) break;
        }
        const wasRefused = orRefused === true && statuses.at(-1) === 400;
        if (!wasRefused) inner.strictSame(statuses, answers);
        if (closes === true) await within(client.closed, 'the end of the client connection');
        // Whatever is still on its way to the origin is there before this.
        const probe = await proxy.client();
        inner.match(await probe.send(get('/probe')).response(), { status: 200, body: '/probe' });
        const seen = origin.requests.map(seenAs);
        const expected = [...sees, 'GET /probe '];
        if (wasRefused) inner.notMatch(seen.join('\n'), /^GET \/smuggled/m);
        else inner.strictSame(seen, expected);
        inner.ok(origin.requests.every(isPlain), 'one framing, one Host');
        inner.strictSame(
          origin.requests.filter((request) => values(request.fields, 'host')[0] !== `127.0.0.1:${origin.port}`),
          [],
          'the Host of the origin',
        );
      });
    }
  });
}

await t.test('chunks that are none', async (test) => {
  for (const chunks of [
    'zz\r\nabc\r\n0\r\n\r\n',
    '-1\r\nabc\r\n0\r\n\r\n',
    '0x3\r\nabc\r\n0\r\n\r\n',
    '3 3\r\nabc\r\n0\r\n\r\n',
    'ffffffffffffffffff\r\nabc\r\n0\r\n\r\n',
    '\r\nabc\r\n0\r\n\r\n',
    '3\r\nabcd\r\n0\r\n\r\n',
    '3\r\nabc0\r\n\r\n',
    ';a=b\r\nabc\r\n0\r\n\r\n',
    '3\r\nabc\r\n0\r\n: bad\r\n\r\n',
    '3;\0\r\nabc\r\n0\r\n\r\n',
  ]) {
    const name = JSON.stringify(chunks);
    const origin = await RecordingOrigin.listen(test);
    const proxy = await startHost(test, { origin: origin.url });
    const client = await proxy.client();
    client.send(post('Transfer-Encoding: chunked', chunks) + SMUGGLED);
    const { status } = await client.response();
    test.ok(status === 400 || status === 0, `${name}: refused`);
    await within(client.closed, 'the end of the client connection');
    const probe = await proxy.client();
    test.match(await probe.send(get('/probe')).response(), { status: 200 }, name);
    test.strictSame(
      origin.requests.filter((request) => request.isComplete).map(seenAs),
      ['GET /probe '],
      `${name}: nothing whole but the probe`,
    );
  }
});

await t.test('targets go on byte for byte', async (test) => {
  const origin = await RecordingOrigin.listen(test);
  const proxy = await startHost(test, { origin: origin.url });
  const client = await proxy.client();
  for (const target of targets) {
    test.match(await client.send(get(target)).response(), { status: 200 }, JSON.stringify(target));
    test.equal(origin.requests.at(-1)?.target, target);
  }
  client.send('OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n');
  test.match(await client.response(), { status: 200 });
  test.equal(origin.requests.at(-1)?.target, '*');
  test.equal(origin.sockets.length, 1, 'on one connection');

  // Bytes outside ASCII: some versions of Node refuse them; none may change them.
  const { status } = await client.send(get('/\xc3\xa4\xff')).response();
  if (status === 200) test.equal(origin.requests.at(-1)?.target, '/\xc3\xa4\xff');
  else test.equal(status, 400);
});

await t.test('an absolute target replaces Host', async (test) => {
  const origin = await RecordingOrigin.listen(test);
  const hostsSeen = (): string[] => values(origin.requests.at(-1)?.fields ?? [], 'host');

  const fixed = await (await startHost(test, { origin: origin.url })).client();
  test.match(await fixed.send(get('http://b.test:81//x?y', 'Host: a.test')).response(), { status: 200 });
  test.equal(origin.requests.at(-1)?.target, '//x?y');
  test.strictSame(hostsSeen(), [`127.0.0.1:${origin.port}`]);
  test.match(await fixed.send(get('HTTP://b.test?q', 'Host: a.test')).response(), { status: 200 });
  test.equal(origin.requests.at(-1)?.target, '/?q');
  test.match(
    await fixed.send(get('http://b.test/', 'Host: a b')).response(),
    { status: 400 },
    'Host is read all the same',
  );
  for (const bad of ['http://', 'http:///x', 'http://a@b/', 'http://a b/', 'ftp://a/', 'http:/a', 'http://a:99999/']) {
    const client = await (await startHost(test, { origin: origin.url })).client();
    test.equal((await client.send(get(bad, 'Host: a.test')).response()).status, 400, bad);
  }

  const forward = await (await startHost(test, {})).client();
  const there = `127.0.0.1:${origin.port}`;
  test.match(await forward.send(get(`http://${there}/a//b`, 'Host: elsewhere.test')).response(), { status: 200 });
  test.equal(origin.requests.at(-1)?.target, '/a//b');
  test.strictSame(hostsSeen(), [there]);
});

await t.test('preserveHost sends the client’s Host, to the origin and nowhere else', async (test) => {
  const origin = await RecordingOrigin.listen(test);
  const elsewhere = await RecordingOrigin.listen(test);
  const proxy = await startHost(test, { origin: origin.url, preserveHost: true });
  for (const [name, request, host] of [
    ['a name', get('/x', 'Host: shop.test'), 'shop.test'],
    ['another server of ours', get('/x', `Host: 127.0.0.1:${elsewhere.port}`), `127.0.0.1:${elsewhere.port}`],
    ['an absolute target', get('http://b.test/x', 'Host: a.test'), 'b.test'],
  ] as const) {
    const client = await proxy.client();
    const { status } = await client.send(request).response();
    test.equal(status, 200, name);
    test.strictSame(values(origin.requests.at(-1)?.fields ?? [], 'host'), [host], name);
  }
  test.equal(elsewhere.requests.length, 0, 'a client does not choose the server');
});
