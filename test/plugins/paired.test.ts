/** Paired proxies: a branch whose requests go through a head, which describes what any origin sends. */
import { X509Certificate } from 'node:crypto';
import { createServer as createTlsServer } from 'node:https';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { createServer as createBareTls } from 'node:tls';
import t, { type Test } from 'tap';
import { Kit } from '../../lib/kit/index.ts';
import { MAX_FETCH_MS, MAX_FETCHES } from '../../plugins/content-server/unknown-content.ts';
import { createProxyServer, HttpProxyHost, type UpstreamOptions } from '../../plugins/http-proxy/index.ts';
import { AWAY_MS } from '../../plugins/http-proxy/upstream.ts';
import { UPSTREAM_CONNECT_MS } from '../../plugins/http-proxy/upstream-link.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { connecting, deafPort, outsideAddress, RawClient, RecordingOrigin, startHost } from '../support/net.ts';
import {
  type Answer,
  ask,
  begin,
  Gate,
  listen,
  Origin,
  type OriginFile,
  Proxy,
  same,
  startBranch,
  startHead,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { makeCertificate } from '../support/redis.ts';

const BODY = Buffer.from(seededBytes(801, 5_000_000).buffer);
const HASH_REQUEST = {
  ...V2_REQUEST,
  'X-P2P-PeerDistEx': 'MinContentInformation=1.0, MaxContentInformation=2.0, HashRequest=true',
};
const isCoded = ({ headers }: Answer): boolean => headers['content-encoding'] === 'peerdist';
const fresh = (body: Uint8Array, etag = '"1"'): OriginFile => ({
  body,
  etag,
  headers: { 'cache-control': 'max-age=600' },
});

/** A branch as `peerdist branch --upstream` puts it together. */
function paired(test: Test, upstream: UpstreamOptions): Promise<Proxy> {
  return startBranch(test, { hashRequestFirst: true, host: { upstream } });
}

await t.test('unknown content: the first client of each branch is served by its hashes', async (test) => {
  const origin = await Origin.start(test, { '/f': fresh(BODY) });
  const head = await startHead(test);
  const url = `${origin.url}/f`;
  const branches: Proxy[] = [];
  for (const _ of [1, 2]) {
    const branch = await paired(test, { url: head.url });
    branches.push(branch);
    const answer = await ask(branch.port, url);
    test.ok(same(answer.body, BODY));
    test.match(answer.headers['cache-status'], /fwd=uri-miss/);
    const { observations } = branch;
    test.equal(observations.bytes('wan', { kind: 'plain' }), 0, 'nothing came plain');
    test.ok(observations.bytes('wan', { kind: 'content_information' }) > 1000);
    test.equal(observations.count('upstream', { result: 'used' }), observations.count('upstream'));
    test.match((await ask(branch.port, url)).headers['cache-status'], /hit/);
  }
  test.equal(head.observations.count('publication', { result: 'completed' }), 1);
  test.equal(origin.bodies('/f').filter((body) => body === `200+${BODY.byteLength}`).length, 1, 'fetched whole once');
  test.match(head.received[0], { target: url, headers: { host: origin.authority } }, 'in absolute form');

  // One per cent of it changes, in one place.
  const edited = Buffer.from(BODY);
  edited.set(seededBytes(802, 50_000), 2_500_000);
  origin.resources.set('/f', fresh(edited, '"2"'));
  const [branch] = branches as [Proxy];
  const before = branch.observations.bytes('wan');
  test.ok(same((await ask(branch.port, url, { fields: { 'cache-control': 'no-cache' } })).body, edited));
  const share = (branch.observations.bytes('wan') - before) / edited.byteLength;
  const whole = `200+${BODY.byteLength}`;
  test.equal(origin.bodies('/f').filter((each) => each === whole).length, 2, 'and once more');
  test.ok(share < 0.05, `${(share * 100).toFixed(1)} % of version 2 crossed the link`);
  test.same([...head.observations.failures, ...branch.observations.failures], []);
});

await t.test('an origin without ranges', async (test) => {
  const origin = await Origin.start(test, { '/f': { ...fresh(BODY), noRanges: true } });
  const head = await startHead(test);
  const branch = await paired(test, { url: head.url });
  const answer = await ask(branch.port, `${origin.url}/f`);
  test.ok(same(answer.body, BODY));
  test.ok(
    same(
      (await ask(branch.port, `${origin.url}/f`, { fields: { range: 'bytes=4000000-' } })).body,
      BODY.subarray(4_000_000),
    ),
  );
  test.equal(origin.bodies('/f').length, 1, 'everything, once');
});

await t.test('what a hash request gets of unknown content', async (test) => {
  const small = Buffer.alloc(2000, 1);
  const origin = await Origin.start(test, {
    '/small': fresh(small),
    '/nameless': { body: BODY },
    '/long': fresh(BODY),
    '/endless': { ...fresh(BODY), chunked: true },
    '/part': fresh(BODY.subarray(0, 1_000_000)),
    '/old': fresh(BODY.subarray(0, 1_000_000)),
    '/kept': fresh(BODY.subarray(0, 1_000_000)),
  });
  const head = await startHead(test, { hashUnknown: { maxBytes: 2_000_000 } });
  const hashes = (path: string, fields = {}, version: '1.0' | '1.1' = '1.1'): Promise<Answer> =>
    ask(head.port, `${origin.url}${path}`, { fields: { ...HASH_REQUEST, ...fields }, version });
  for (const [path, body] of [
    ['/small', small],
    ['/nameless', BODY],
    ['/long', BODY],
  ] as const) {
    const answer = await hashes(path);
    test.notOk(isCoded(answer), path);
    test.ok(same(answer.body, body), path);
    test.equal(origin.asked(path).length, 1, 'the answer that came is the one that is given');
  }
  test.match((await hashes('/none')).status, 404);
  test.equal(origin.asked('/none').length, 1);

  const endless = await hashes('/endless');
  test.ok(same(endless.body, BODY), 'too long, as it turns out');
  test.notOk(isCoded(endless));

  const part = await hashes('/part', { range: 'bytes=100-70099' });
  test.equal(part.status, 206);
  test.ok(isCoded(part), 'a range is described too');
  test.equal(part.headers['content-range'], 'bytes 100-70099/1000000');
  test.equal(origin.asked('/part')[0]?.headers['range'], undefined, 'all of it was fetched');
  test.equal((await hashes('/old', { 'if-none-match': '"1"' })).status, 304, 'a condition is still one');

  for (const [fields, version] of [
    [{ 'cache-control': 'no-transform' }, '1.1'],
    [{}, '1.0'],
  ] as const) {
    const answer = await hashes('/kept', fields, version);
    test.notOk(isCoded(answer));
    test.equal(answer.headers['x-p2p-peerdistex'], undefined, 'nothing is promised, nothing hashed');
  }
  const plain = await ask(head.port, `${origin.url}/kept`, { fields: V2_REQUEST });
  test.equal(
    plain.headers['x-p2p-peerdistex'],
    'MakeHashRequest=true',
    'who does not ask for hashes is not kept waiting',
  );
  test.same(head.observations.failures, []);
});

await t.test('time is up: the plain body, and hashing goes on', async (test) => {
  const gate = new Gate();
  const held = { ...fresh(BODY), firstBytes: 1000, afterFirst: gate.passed };
  const origin = await Origin.start(test, { '/f': held, '/slow': held });
  const clock = new ManualClock();
  const head = await startHead(test, { clock, hashUnknown: { maxMs: 30_000 } });
  const url = `${origin.url}/f`;
  const first = await begin(head.port, url, { fields: HASH_REQUEST });
  await until(() => head.observations.bytes('wan', { kind: 'plain' }) === 1000, 'it is fetched');
  clock.advance(29_999);
  test.equal(origin.asked('/f').length, 1);
  clock.advance(1);
  const answer = await first.head();
  test.equal(answer.headers['x-p2p-peerdistex'], 'MakeHashRequest=true');
  test.equal(origin.asked('/f').length, 1, 'of the fetch that is under way');
  const slow = await begin(head.port, `${origin.url}/slow`, { fields: HASH_REQUEST });
  await until(() => head.observations.bytes('wan', { kind: 'plain' }) === 2000, 'that is fetched');
  clock.advance(30_000);
  test.equal((await slow.head()).status, 200);
  gate.open();
  await head.published(2);
  for (const each of [url, `${origin.url}/slow`])
    test.ok(isCoded(await ask(head.port, each, { fields: HASH_REQUEST })));
  first.close();
  slow.close();
});

await t.test('a fetch that never ends is given up', async (test) => {
  const origin = await Origin.start(test, {
    '/f': { ...fresh(BODY), firstBytes: 1000, afterFirst: new Gate().passed },
  });
  const clock = new ManualClock();
  const head = await startHead(test, { clock, hashUnknown: { maxMs: 2 * MAX_FETCH_MS } });
  const client = await begin(head.port, `${origin.url}/f`, { fields: HASH_REQUEST });
  await until(() => origin.asked('/f').length === 1, 'it is fetched');
  await until(() => head.observations.bytes('wan', { kind: 'plain' }) > 0, 'it is hashed');
  clock.advance(MAX_FETCH_MS);
  await until(() => head.observations.count('publication', { result: 'aborted' }) === 1, 'nobody hashes it any more');
  test.equal((await client.head()).status, 200, 'the client gets its bytes');
  client.leave();
  const isLeft = (): boolean => {
    clock.advance(10_000);
    return origin.asked('/f')[0]?.closed === true;
  };
  await until(isLeft, 'the origin is left when the client has gone');
});

await t.test('a fetch is shared, and ends with the last who wants it', async (test) => {
  const gate = new Gate();
  const held = { ...fresh(BODY), firstBytes: 1000, afterFirst: gate.passed };
  const origin = await Origin.start(test, { '/one': held, '/two': held });
  const head = await startHead(test);
  const join = async (path: string, count: number): Promise<Awaited<ReturnType<typeof begin>>[]> => {
    const url = `${origin.url}${path}`;
    const { length } = head.received;
    const joined = [await begin(head.port, url, { fields: HASH_REQUEST })];
    await until(() => origin.asked(path).length === 1, 'it is fetched');
    for (let index = 1; index < count; index += 1) joined.push(await begin(head.port, url, { fields: HASH_REQUEST }));
    await until(() => head.received.length === length + count, 'all have asked');
    return joined;
  };
  const [alone, other] = await join('/two', 2);
  alone?.leave();
  other?.leave();
  await until(() => origin.asked('/two')[0]?.closed === true, 'the origin is left');
  test.notOk(origin.asked('/two')[0]?.finished);
  await until(() => head.observations.count('publication', { result: 'aborted' }) === 1, 'nothing comes of it');

  const [first, second, third] = await join('/one', 3);
  first?.leave();
  gate.open();
  for (const client of [second, third]) {
    const answer = await client?.answer();
    test.ok(answer !== undefined && isCoded(answer), 'the others have their hashes');
    client?.close();
  }
  test.equal(origin.bodies('/one').length, 1);
  test.same(head.observations.failures, []);
});

await t.test('so many fetches at a time', async (test) => {
  const gate = new Gate();
  const origin = await Origin.start(test);
  for (let index = 0; index <= MAX_FETCHES; index += 1)
    origin.resources.set(`/${index}`, { ...fresh(BODY.subarray(0, 70_000)), beforeHead: gate.passed });
  const head = await startHead(test);
  const clients = [];
  for (let index = 0; index < MAX_FETCHES; index += 1)
    clients.push(await begin(head.port, `${origin.url}/${index}`, { fields: HASH_REQUEST }));
  await until(() => origin.requests.length === MAX_FETCHES, 'they are all fetched');
  const more = await begin(head.port, `${origin.url}/${MAX_FETCHES}`, { fields: HASH_REQUEST });
  await until(() => origin.requests.length === MAX_FETCHES + 1, 'one more asks');
  gate.open();
  const answer = await more.answer();
  test.notOk(isCoded(answer), 'answered as ever');
  for (const client of clients) {
    test.ok(isCoded(await client.answer()));
    client.close();
  }
  more.close();
});

await t.test('the head is away', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: 'ok' } });
  const url = `${origin.url}/f`;
  // Until a head takes it.
  const port = await freePort();
  const said: string[] = [];
  const upstream = { url: `http://127.0.0.1:${port}`, warn: (line: string) => said.push(line) };
  const clock = new ManualClock();
  const branch = await new Proxy().run(test, [], { upstream }, { clock });
  test.equal((await ask(branch.port, url)).status, 200);
  const posted = await ask(branch.port, url, { method: 'POST', body: 'hello' });
  test.equal(posted.status, 200, 'nothing of a body is lost before there is a connection');
  test.equal(origin.asked('/f')[1]?.body.toString(), 'hello');
  const refusing = await new Proxy().run(test, [], { upstream: { ...upstream, whenAway: 'refuse' } }, { clock });
  const refused = await ask(refusing.port, url);
  test.equal(refused.status, 502);
  test.match(refused.body.toString(), 'the upstream proxy cannot be reached');
  test.equal(origin.asked('/f').length, 2);
  test.same(refusing.observations.of('upstream'), [{ type: 'upstream', result: 'refused' }]);

  let connections = 0;
  const server = createTcpServer((socket: Socket) => {
    connections += 1;
    socket.on('error', () => {});
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhead'));
  });
  server.listen(port, '127.0.0.1');
  test.teardown(() => server.close());
  test.equal((await ask(branch.port, url)).body.toString(), 'ok', 'it is not tried at once again');
  test.equal(connections, 0);
  clock.advance(AWAY_MS);
  test.equal((await ask(branch.port, url)).body.toString(), 'head');
  test.same(
    branch.observations.of('upstream').map((each) => (each as { result?: string }).result),
    ['direct', 'direct', 'direct', 'used'],
  );
  test.match(said, [/is away \(ECONNREFUSED\); requests go direct$/, /; requests are refused$/, /is there again$/]);
});

await t.test('a head that takes no connection is given up after a while, for all', async (test) => {
  const port = await deafPort(test);
  if (port === undefined) return test.pass('needs Linux');
  const origin = await Origin.start(test, { '/f': { body: 'ok' } });
  const clock = new ManualClock();
  const branch = await new Proxy().run(test, [], { upstream: { url: `http://127.0.0.1:${port}` } }, { clock });
  const url = `${origin.url}/f`;
  const first = await begin(branch.port, url);
  await connecting(port, 1, 'the branch tries to connect');
  clock.advance(UPSTREAM_CONNECT_MS);
  test.equal((await first.answer()).body.toString(), 'ok');
  test.equal((await ask(branch.port, url)).body.toString(), 'ok', 'the next one does not wait');
  clock.advance(AWAY_MS);
  const probe = await begin(branch.port, url);
  await connecting(port, 1, 'one tries again');
  test.equal((await ask(branch.port, url)).body.toString(), 'ok', 'the others do not wait for that');
  probe.close();
  first.close();
  return undefined;
});

await t.test('the connection to the head breaks before the answer', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: 'ok' } });
  const head = await RecordingOrigin.listen(test, { answer: (_request, socket) => socket.destroy() });
  const branch = await new Proxy().run(test, [], { upstream: { url: head.url } });
  test.equal((await ask(branch.port, `${origin.url}/f`)).body.toString(), 'ok', 'what can be repeated goes direct');
  test.equal((await ask(branch.port, `${origin.url}/f`, { method: 'POST', body: 'x' })).status, 502);
  test.equal(origin.asked('/f').length, 1, 'what cannot does not');
  const refusing = await new Proxy().run(test, [], { upstream: { url: head.url, whenAway: 'refuse' } });
  test.equal((await ask(refusing.port, `${origin.url}/f`)).status, 502);
});

await t.test('a head that refuses the branch is not away', async (test) => {
  const origin = await Origin.start(test, { '/f': { body: 'ok' } });
  const head = await startHead(test, { host: { allowClients: ['192.0.2.0/24'] } });
  const squid = await RecordingOrigin.listen(test, {
    answer: (_request, socket) =>
      socket.write(
        'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n',
      ),
  });
  for (const [url, expected] of [
    [head.url, 'the upstream proxy refuses this proxy'],
    [squid.url, 'the upstream proxy wants a password'],
  ] as const) {
    const said: string[] = [];
    const upstream = { url, warn: (line: string) => said.push(line) };
    const branch = await new Proxy().run(test, [], { upstream, connectPorts: [origin.port] });
    for (let index = 0; index < 2; index += 1) {
      const answer = await ask(branch.port, `${origin.url}/f`);
      test.equal(answer.status, 502);
      test.match(answer.body.toString(), expected);
      test.equal(answer.headers['proxy-authenticate'], undefined);
    }
    test.equal((await ask(branch.port, origin.authority, { method: 'CONNECT' })).status, 502);
    test.equal(said.length, 1, 'said once');
    test.same(branch.observations.count('upstream', { result: 'refused' }), 3);
  }
  test.equal(origin.requests.length, 0, 'nothing went direct');

  // What the head refuses to fetch, it refuses to the client.
  const open = await startHead(test, { host: { connectPorts: [1] } });
  const branch = await new Proxy().run(test, [], { upstream: { url: open.url }, connectPorts: [origin.port] });
  test.equal((await ask(branch.port, origin.authority, { method: 'CONNECT' })).status, 403);
});

await t.test('tunnels go through the head', async (test) => {
  const origin = await RecordingOrigin.listen(test, {
    answer: (_request, socket) =>
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst'),
  });
  const connectPorts = [origin.port];
  const head = await startHead(test, { host: { connectPorts } });
  const branch = await startHost(test, { upstream: { url: head.url }, connectPorts });
  const client = await branch.client();
  client.send(`CONNECT 127.0.0.1:${origin.port} HTTP/1.1\r\nHost: x\r\n\r\nGET /early HTTP/1.1\r\nHost: o\r\n\r\n`);
  await client.until('first');
  test.equal(origin.requests[0]?.target, '/early');
  client.socket.destroy();
  await until(() => head.observations.count('tunnel') === 1, 'the head had a tunnel');

  const socket = await branch.client();
  socket.send(
    `GET http://127.0.0.1:${origin.port}/chat?x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  );
  await socket.until('first');
  const { target, fields } = await origin.request(2);
  test.equal(target, '/chat?x');
  test.match(fields.find(([name]) => name.toLowerCase() === 'via')?.[1], /^1\.1 peerdist-\w+, 1\.1 peerdist-\w+$/);
  socket.socket.destroy();
  await until(() => head.observations.count('tunnel') === 2, 'and another one');

  const away = await startHost(test, { upstream: { url: 'http://127.0.0.1:1' }, connectPorts });
  const direct = await away.client();
  direct.send(`CONNECT 127.0.0.1:${origin.port} HTTP/1.1\r\nHost: x\r\n\r\nGET /direct HTTP/1.1\r\nHost: o\r\n\r\n`);
  await direct.until('first');
  direct.socket.destroy();
  test.equal(head.observations.count('tunnel'), 2);
});

await t.test('a branch that is its own head is found out', async (test) => {
  const port = await freePort();
  const host = new HttpProxyHost({
    proxy: createProxyServer(),
    kit: new Kit({ plugins: [] }),
    upstream: { url: `http://127.0.0.1:${port}`, whenAway: 'refuse' },
  });
  const server = host.createServer().listen(port, '127.0.0.1');
  test.teardown(() => {
    server.close();
    host.close();
  });
  test.equal((await ask(port, 'http://www.example.com/')).status, 508);
  test.equal((await ask(port, 'www.example.com:443', { method: 'CONNECT' })).status, 508);
});

await t.test('clients from elsewhere: what can be seen to be sheltered is not even asked of the head', async (test) => {
  const outside = outsideAddress();
  if (outside === undefined) return test.pass('needs an address that is not loopback');
  const head = await RecordingOrigin.listen(test);
  const options = { upstream: { url: head.url }, allowClients: ['0.0.0.0/0'], connectPorts: [8] };
  const branch = await startHost(test, options, '0.0.0.0');
  const asked = async (line: string, more = ''): Promise<number> => {
    const client = await RawClient.connect(test, branch.port, outside);
    const { status } = await client.send(`${line} HTTP/1.1\r\nHost: x\r\n${more}\r\n`).response();
    client.socket.destroy();
    return status;
  };
  const sheltered = ['127.0.0.1:8', 'localhost:8', 'a.localhost.:8', '127.1:8', '2130706433:8', '0x7f000001:8', '0:8'];
  for (const place of [
    ...sheltered,
    '[::1]:8',
    '[::ffff:7f00:1]:8',
    '169.254.169.254:8',
    `${outside}:${branch.port}`,
  ]) {
    test.equal(await asked(`GET http://${place}/`), 403, place);
    if (!place.endsWith(':8')) continue;
    test.equal(await asked(`CONNECT ${place}`), 403, `CONNECT ${place}`);
    test.equal(
      await asked(`GET http://${place}/`, 'Connection: Upgrade\r\nUpgrade: websocket\r\n'),
      403,
      `ws ${place}`,
    );
  }
  test.equal(head.requests.length, 0);
  test.equal(await asked('GET http://www.example.com/'), 200, 'names are the business of the head');
  test.equal(head.requests[0]?.target, 'http://www.example.com/');
  return undefined;
});

await t.test('options of an upstream proxy', async (test) => {
  const make = (upstream: UpstreamOptions, preserveHost = false): void =>
    new HttpProxyHost({ proxy: createProxyServer(), kit: new Kit({ plugins: [] }), upstream, preserveHost }).close();
  const pin = 'ab:'.repeat(32).slice(0, -1);
  make({ url: 'https://head:3129', pins: [pin, 'AB'.repeat(32)] });
  for (const wrong of [
    { url: 'ftp://head' },
    { url: 'http://user@head' },
    { url: 'http://head', pins: [pin] },
    { url: 'http://head', ca: 'x' },
    { url: 'https://head', pins: ['abcd'] },
    { url: 'https://head', cert: 'x' },
  ])
    test.throws(() => make(wrong), { code: 'ERR_PEERDIST_INVALID_OPTION' }, JSON.stringify(wrong));
  test.throws(() => make({ url: 'http://head' }, true), { code: 'ERR_PEERDIST_INVALID_OPTION' });
});

const identity = makeCertificate();
const other = makeCertificate();
const skip = identity === undefined || other === undefined ? 'openssl is not installed' : false;

await t.test('TLS between branch and head', { skip }, async (test) => {
  const [own, client] = [identity, other] as [NonNullable<typeof identity>, NonNullable<typeof other>];
  const origin = await Origin.start(test, { '/f': fresh(BODY) });
  const head = await startHead(test, { tls: own });
  const guarded = await startHead(test, {
    tls: { ...own, clientCa: client.cert },
    host: { allowClients: ['192.0.2.0/24'], connectPorts: [origin.port] },
  });
  const fingerprint = (cert: string): string => new X509Certificate(cert).fingerprint256;
  const link = (to: Proxy, rest: Partial<UpstreamOptions>): UpstreamOptions => ({
    url: `https://127.0.0.1:${to.port}`,
    ...rest,
  });
  const ours = { cert: client.cert, key: client.key };
  const used: readonly [string, UpstreamOptions][] = [
    ['pinned', link(head, { pins: [fingerprint(client.cert), fingerprint(own.cert)] })],
    ['of an authority', link(head, { ca: own.cert })],
    ['both', link(head, { ca: own.cert, pins: [fingerprint(own.cert)] })],
    ['mutual', link(guarded, { ca: own.cert, ...ours })],
  ];
  for (const [name, upstream] of used) {
    const branch = await paired(test, upstream);
    test.ok(same((await ask(branch.port, `${origin.url}/f`)).body, BODY), name);
    test.equal(branch.observations.bytes('wan', { kind: 'plain' }), 0, name);
    test.equal(branch.observations.count('upstream', { result: 'used' }), branch.observations.count('upstream'));
  }
  const { length } = origin.requests;
  const strict = createBareTls({ ...own, ca: client.cert, requestCert: true, rejectUnauthorized: true });
  strict.on('tlsClientError', () => {}).listen(0, '127.0.0.1');
  test.teardown(() => strict.close());
  await new Promise((resolve) => {
    strict.once('listening', resolve);
  });
  const refused: readonly [string, UpstreamOptions, RegExp][] = [
    ['another pin', link(head, { pins: [fingerprint(client.cert)] }), /is not the pinned one/],
    ['another pin, right authority', link(head, { ca: own.cert, pins: [fingerprint(client.cert)] }), /pinned one/],
    ['right pin, another authority', link(head, { ca: client.cert, pins: [fingerprint(own.cert)] }), /not trusted/],
    ['no authority', link(head, {}), /not trusted \(DEPTH_ZERO_SELF_SIGNED_CERT\)/],
    ['no certificate of ours', link(guarded, { ca: own.cert }), /refuses this proxy/],
    ['another one', link(guarded, { ca: own.cert, cert: own.cert, key: own.key }), /refuses this proxy/],
    [
      'a proxy that says so by an alert',
      { url: `https://127.0.0.1:${(strict.address() as AddressInfo).port}`, ca: own.cert },
      /does not take our certificate/,
    ],
  ];
  for (const [name, upstream, expected] of refused) {
    const said: string[] = [];
    const warn = (line: string): void => void said.push(line);
    const branch = await new Proxy().run(test, [], { upstream: { ...upstream, warn }, connectPorts: [origin.port] });
    const answer = await ask(branch.port, `${origin.url}/f`);
    test.equal(answer.status, 502, name);
    test.match(answer.body.toString(), expected, name);
    test.match(said, [expected], name);
    test.equal((await ask(branch.port, origin.authority, { method: 'CONNECT' })).status, 502, name);
    test.equal(branch.observations.count('upstream', { result: 'refused' }), 2, name);
    test.equal(branch.observations.count('upstream'), 2, name);
  }
  test.equal(origin.requests.length, length, 'nothing went direct');
  // A port where nobody speaks TLS is one where there is no head.
  const plain = await new Proxy().run(test, [], { upstream: { url: `https://${origin.authority}` } });
  test.ok(same((await ask(plain.port, `${origin.url}/f`)).body, BODY));
  test.equal(plain.observations.count('upstream', { result: 'direct' }), 1);
});

await t.test('requests for https origins stay in TLS all the way', { skip }, async (test) => {
  const [own, theirs] = [identity, other] as [NonNullable<typeof identity>, NonNullable<typeof other>];
  const seen: string[] = [];
  const server = createTlsServer(theirs, ({ url, headers }, response) => {
    seen.push(`${headers.host} ${url}`);
    response.end('secret');
  });
  const port = await listen(test, server);
  const host = { connectPorts: [port], originCa: theirs.cert };
  const plain = await startHead(test, { host });
  const tls = await startHead(test, { host, tls: own });
  const url = `https://127.0.0.1:${port}/x?y`;
  const branch = await new Proxy().run(test, [], { ...host, upstream: { url: plain.url } });
  for (let index = 0; index < 2; index += 1) test.equal((await ask(branch.port, url)).body.toString(), 'secret');
  test.same(plain.received, [], 'over a plain link the head sees a tunnel');
  await until(() => branch.observations.count('upstream', { result: 'used' }) === 2, 'both went through it');
  const secure = await new Proxy().run(test, [], { upstream: { url: `https://${tls.authority}`, ca: own.cert } });
  test.equal((await ask(secure.port, url)).body.toString(), 'secret');
  test.equal(tls.received[0]?.target, url, 'over TLS it sees the request');
  test.same(seen, Array(3).fill(`127.0.0.1:${port} /x?y`));
  // The origin is verified as ever.
  const doubting = await new Proxy().run(test, [], { connectPorts: [port], upstream: { url: plain.url } });
  test.equal((await ask(doubting.port, url)).status, 502);
  test.equal(doubting.observations.count('upstream', { result: 'used' }), 1);
});

/** A port that nobody has just now. */
async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => {
    server.once('listening', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}
