/** TLS that ends at a forward proxy, for listed hosts: who sees which certificate, what may be asked behind it, and who may keep an authority. */
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect as tcpConnect, type Socket } from 'node:net';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { type CertificateAndKey, Issuer, makeAuthority, makeServerCertificate } from '../../lib/crypto/certificates.ts';
import { Kit } from '../../lib/kit/index.ts';
import {
  createProxyServer,
  type ExchangeEnd,
  HttpProxyHost,
  LeafCertificates,
  parseHostPattern,
} from '../../plugins/http-proxy/index.ts';
import { startBranch } from '../../plugins/standalone/roles/roles.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { listen, outsideAddress, RawClient, RecordingOrigin, startHost, values, within } from '../support/net.ts';
import { inTime, Role, run, until } from '../support/proxies.ts';
import { runInside } from '../support/spoken.ts';

const DAY_MS = 86_400_000;
const around = (daysBefore: number, daysAfter: number): { notBefore: Date; notAfter: Date } => ({
  notBefore: new Date(Date.now() - daysBefore * DAY_MS),
  notAfter: new Date(Date.now() + daysAfter * DAY_MS),
});
/** Of the proxy, and of the origins. */
const authority = await makeAuthority('the proxy', around(1, 100));
const originAuthority = await makeAuthority('the origins', around(1, 100));
const originIssuer = await Issuer.open(originAuthority);

async function originIdentity(host: string, validity = around(1, 10)): Promise<CertificateAndKey> {
  return { cert: await originIssuer.issue(host, validity), key: originIssuer.key };
}

const localhost = await originIdentity('localhost');

interface Rig {
  readonly origin: RecordingOrigin;
  readonly proxy: Awaited<ReturnType<typeof startHost>>;
  readonly ends: ExchangeEnd[];
}

/** A TLS origin, and a proxy that ends the TLS of `localhost`. */
async function rig(
  scope: Test,
  identity: CertificateAndKey = localhost,
  options: Parameters<typeof startHost>[1] = {},
): Promise<Rig> {
  const origin = await RecordingOrigin.listen(scope, { tls: identity });
  const ends: ExchangeEnd[] = [];
  const proxy = await startHost(scope, {
    intercept: new LeafCertificates({ authority, hosts: ['localhost'] }),
    connectPorts: [origin.port],
    originCa: originAuthority.cert,
    viaName: 'branch',
    watch: () => ({ observe() {}, answered() {}, ended: (end) => ends.push(end) }),
    ...options,
  });
  return { origin, proxy, ends };
}

/** The connection of a client whose CONNECT was accepted. */
async function tunnel(scope: Test, proxy: { readonly port: number }, authorityForm: string): Promise<Socket> {
  const client = await RawClient.connect(scope, proxy.port);
  client.send(`CONNECT ${authorityForm} HTTP/1.1\r\nHost: ${authorityForm}\r\n\r\n`);
  await client.until('\r\n\r\n');
  if (!client.received.startsWith('HTTP/1.1 200 ')) throw new Error(client.received);
  client.socket.removeAllListeners('data');
  return client.socket;
}

async function secured(scope: Test, socket: Duplex, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const secure = tlsConnect({ socket, ca: authority.cert, servername: 'localhost', ...options });
  scope.teardown(() => secure.destroy());
  await within(once(secure, 'secureConnect'), 'a TLS handshake');
  return secure;
}

/** A client that is in. */
async function enter(scope: Test, { proxy, origin }: Pick<Rig, 'proxy' | 'origin'>): Promise<RawClient> {
  return RawClient.over(scope, await secured(scope, await tunnel(scope, proxy, `localhost:${origin.port}`)));
}

/** How a handshake ends that must not succeed. */
async function refused(scope: Test, socket: Socket, options: ConnectionOptions = {}): Promise<string> {
  const secure = tlsConnect({ socket, ca: authority.cert, servername: 'localhost', ...options });
  scope.teardown(() => secure.destroy());
  return within(
    new Promise<string>((resolve) => {
      secure.once('secureConnect', () => resolve('in'));
      secure.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code ?? 'error'));
      secure.once('close', () => resolve('closed'));
    }),
    'the end of a handshake',
  );
}

await t.test('a listed host is read, any other one is a tunnel', async (test) => {
  const { origin, proxy, ends } = await rig(test);
  const socket = await tunnel(test, proxy, `LOCALHOST:${origin.port}`);
  const secure = await secured(test, socket, { ALPNProtocols: ['h2', 'http/1.1'] });
  test.equal(secure.alpnProtocol, 'http/1.1');
  test.equal(secure.getPeerCertificate().issuer['CN'], 'the proxy');
  const client = RawClient.over(test, secure);
  client.send(`GET /a?b HTTP/1.1\r\nHost: localhost:${origin.port}\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n`);
  test.match(await client.response(), { status: 200, body: 'ok', complete: true });
  client.send(`POST /up HTTP/1.1\r\nHost: LocalHost:${origin.port}\r\nContent-Length: 5\r\n\r\nhello`);
  const second = await client.response();
  test.strictSame(values(second.fields, 'via'), ['1.1 branch']);
  const [first, upload] = [await origin.whole(1), await origin.whole(2)];
  test.equal(first.target, '/a?b');
  test.strictSame(values(first.fields, 'host'), [`localhost:${origin.port}`]);
  test.strictSame(values(first.fields, 'via'), ['1.1 branch']);
  test.strictSame(values(first.fields, 'x-forwarded-for'), [], 'rebuilt, as any request is');
  test.equal(upload.body, 'hello');
  test.ok((first.socket as TLSSocket).encrypted, 'and the way on is TLS');
  test.equal(proxy.observations.filter(({ type }) => type === 'exchange').length, 2);
  test.equal(proxy.observations.filter(({ type }) => type === 'tunnel').length, 0);
  test.match(ends, [
    { status: 200, outcome: 'complete', error: undefined },
    { status: 200, outcome: 'complete' },
    { status: 200, outcome: 'complete' },
  ]);

  const otherIdentity = await originIdentity('127.0.0.1');
  const other = await RecordingOrigin.listen(test, { tls: otherIdentity });
  const ports = { connectPorts: [other.port], intercept: new LeafCertificates({ authority, hosts: ['localhost'] }) };
  const unlisted = await startHost(test, ports);
  const through = await secured(test, await tunnel(test, unlisted, `127.0.0.1:${other.port}`), {
    ca: originAuthority.cert,
    host: '127.0.0.1',
    servername: '',
  });
  test.equal(
    through.getPeerCertificate().fingerprint256,
    new X509Certificate(otherIdentity.cert).fingerprint256,
    'its own certificate',
  );
});

await t.test('what is asked is for the host of the CONNECT', async (test) => {
  const { origin, proxy } = await rig(test);
  const port = String(origin.port);
  for (const [what, request] of [
    ['another host', `GET / HTTP/1.1\r\nHost: other.test:${port}\r\n\r\n`],
    ['another port', 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'],
    ['another absolute target', `GET https://other.test:${port}/ HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`],
    ['without TLS', `GET http://localhost:${port}/ HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`],
    ['an upgrade elsewhere', 'GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
  ] as const) {
    const client = await enter(test, { proxy, origin });
    test.equal((await client.send(request).response()).status, 421, what);
  }
  for (const [what, request] of [
    ['a tunnel in it', `CONNECT localhost:${port} HTTP/1.1\r\nHost: localhost:${port}\r\n\r\n`],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n'],
    ['two of them', `GET / HTTP/1.1\r\nHost: localhost:${port}\r\nHost: a.test\r\n\r\n`],
  ] as const) {
    const client = await enter(test, { proxy, origin });
    test.equal((await client.send(request).response()).status, 400, what);
  }
  test.equal(origin.requests.length, 0);

  const fine = await enter(test, { proxy, origin });
  fine.send(`GET https://localhost:${port}/absolute HTTP/1.1\r\nHost: ignored.test\r\n\r\n`);
  test.equal((await fine.response()).status, 200, 'RFC 9112 3.2.2: the target says it');
  const old = await enter(test, { proxy, origin });
  test.equal((await old.send('GET /old HTTP/1.0\r\n\r\n').response()).status, 200, 'HTTP/1.0 without Host');
});

await t.test('handshakes that come to nothing', async (test) => {
  const hands = new ManualClock();
  const origin = await RecordingOrigin.listen(test, { tls: localhost });
  const ends: ExchangeEnd[] = [];
  const host = new HttpProxyHost(
    {
      proxy: createProxyServer(),
      kit: new Kit({ plugins: [] }),
      intercept: new LeafCertificates({ authority, hosts: ['localhost'] }),
      connectPorts: [origin.port],
      originCa: originAuthority.cert,
      watch: () => ({ observe() {}, answered() {}, ended: (end) => ends.push(end) }),
    },
    hands,
  );
  const proxy = { port: await listen(test, host.createServer()) };
  const target = `localhost:${origin.port}`;
  const ended = async (count: number): Promise<ExchangeEnd | undefined> => {
    await until(() => ends.length === count, `${count} ends`);
    return ends.at(-1);
  };

  test.not(await refused(test, await tunnel(test, proxy, target), { servername: 'other.test' }), 'in', 'another SNI');
  test.match(await ended(1), { status: 200, outcome: 'broken', error: 'ERR_PEERDIST_BAD_REQUEST' });
  test.not(await refused(test, await tunnel(test, proxy, target), { ALPNProtocols: ['h2'] }), 'in', 'HTTP/2 only');
  test.match(await ended(2), { outcome: 'broken' });
  const doubtful = await refused(test, await tunnel(test, proxy, target), { ca: originAuthority.cert });
  test.match(doubtful, /^(?:UNABLE_TO|SELF_SIGNED)/, 'a client that does not trust us');
  // Node's client leaves without a word; curl, below, says why.
  test.match(await ended(3), { outcome: 'left', error: 'ERR_PEERDIST_OPERATION_ABORTED' });

  for (const garbage of ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', '\x16\x03\x01\xff\xff', '\0'.repeat(70_000)]) {
    const count = ends.length;
    const client = RawClient.over(test, await tunnel(test, proxy, target));
    client.send(garbage);
    // That a whole record is still to come is no fault yet.
    if (garbage.length === 5) client.socket.end();
    await within(client.closed, 'the end of a client that sends garbage');
    test.not((await ended(count + 1))?.outcome, 'complete');
  }

  const slow = RawClient.over(test, await tunnel(test, proxy, target));
  slow.send('\x16\x03\x01\x02\x00\x01');
  const count = ends.length;
  hands.advance(29_999);
  test.equal(ends.length, count);
  hands.advance(1);
  await within(slow.closed, 'the end of a client that does not go on');
  test.match(await ended(count + 1), { outcome: 'broken', error: 'ERR_PEERDIST_TIMEOUT' });

  const gone = RawClient.over(test, await tunnel(test, proxy, target));
  gone.socket.destroy();
  test.match(await ended(count + 2), { outcome: 'left', error: 'ERR_PEERDIST_OPERATION_ABORTED' });
  test.equal(hands.pending, 0, 'no timer is left');

  const nameless = await secured(test, await tunnel(test, proxy, target), { servername: '', host: 'localhost' });
  test.equal(nameless.getPeerCertificate().subject['CN'], 'localhost', 'without SNI the CONNECT says it');
});

/** A connection that sends its CONNECT together with the first bytes of its handshake, and drops the head of the answer. */
function impatient(socket: Socket, head: string): Duplex {
  let sent = false;
  let answer: Buffer | undefined = Buffer.alloc(0);
  const duplex = new Duplex({
    read() {
      socket.resume();
    },
    write(chunk: Buffer, _encoding, callback) {
      socket.write(sent ? chunk : Buffer.concat([Buffer.from(head), chunk]), callback);
      sent = true;
    },
    destroy(error, callback) {
      socket.destroy();
      callback(error);
    },
  });
  socket.on('data', (chunk: Buffer) => {
    if (answer === undefined) return void duplex.push(chunk);
    answer = Buffer.concat([answer, chunk]);
    const end = answer.indexOf('\r\n\r\n');
    if (end < 0) return undefined;
    const rest = answer.subarray(end + 4);
    answer = undefined;
    if (rest.byteLength > 0) duplex.push(rest);
    return undefined;
  });
  socket.once('close', () => duplex.push(null));
  return duplex;
}

await t.test('what comes before it is asked for', async (test) => {
  const { origin, proxy } = await rig(test);
  const socket = tcpConnect({ port: proxy.port, host: '127.0.0.1' });
  test.teardown(() => socket.destroy());
  const head = `CONNECT localhost:${origin.port} HTTP/1.1\r\nHost: localhost:${origin.port}\r\n\r\n`;
  const client = RawClient.over(test, await secured(test, impatient(socket, head)));
  // Behind the handshake, two requests at once.
  const request = `GET /early HTTP/1.1\r\nHost: localhost:${origin.port}\r\n\r\n`;
  client.send(request + request);
  test.match([await client.response(), await client.response()], [{ body: 'ok' }, { body: 'ok' }]);
});

await t.test('who may come in, and where to', async (test) => {
  const { origin, proxy } = await rig(test);
  const client = await enter(test, { proxy, origin });
  const request = `GET / HTTP/1.1\r\nHost: localhost:${origin.port}\r\n\r\n`;
  test.equal((await client.send(request).response()).status, 200);
  proxy.host.allowClients(['10.99.0.0/16']);
  test.equal((await client.send(request).response()).status, 403, 'asked anew with each request');
  const another = await proxy.client();
  another.send(`CONNECT localhost:${origin.port} HTTP/1.1\r\nHost: a\r\n\r\n`);
  test.equal((await another.response()).status, 403);
  proxy.host.allowClients(undefined);
  const elsewhere = await proxy.client();
  elsewhere.send('CONNECT localhost:1 HTTP/1.1\r\nHost: a\r\n\r\n');
  test.equal((await elsewhere.response()).status, 403, 'only ports that CONNECT may reach');

  const address = outsideAddress();
  if (address === undefined) return;
  const options = { intercept: new LeafCertificates({ authority, hosts: ['localhost', '127.0.0.1'] }) };
  const open = { ...options, connectPorts: [origin.port], allowClients: ['0.0.0.0/0'] };
  const outside = await startHost(test, open, address);
  const literal = await outside.client(address);
  literal.send(`CONNECT 127.0.0.1:${origin.port} HTTP/1.1\r\nHost: a\r\n\r\n`);
  test.equal((await literal.response()).status, 403, 'the destination rule');
  const named = await outside.client(address);
  named.send(`CONNECT localhost:${origin.port} HTTP/1.1\r\nHost: a\r\n\r\n`);
  await named.until('\r\n\r\n');
  named.socket.removeAllListeners('data');
  const inside = RawClient.over(test, await secured(test, named.socket));
  test.equal((await inside.send(request).response()).status, 403, 'a name, when it has been looked up');
  test.equal(origin.requests.length, 1);
});

await t.test('a proxy that its clients reach by TLS', async (test) => {
  const origin = await RecordingOrigin.listen(test, { tls: localhost });
  const host = new HttpProxyHost({
    proxy: createProxyServer(),
    kit: new Kit({ plugins: [] }),
    intercept: new LeafCertificates({ authority, hosts: ['localhost'] }),
    connectPorts: [origin.port],
    originCa: originAuthority.cert,
  });
  test.teardown(() => host.close());
  const port = await listen(test, host.createServer(localhost));
  const outer = tlsConnect({ port, host: '127.0.0.1', servername: 'localhost', ca: originAuthority.cert });
  await once(outer, 'secureConnect');
  const client = RawClient.over(test, outer);
  client.send(`CONNECT localhost:${origin.port} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  await client.until('\r\n\r\n');
  outer.removeAllListeners('data');
  const inner = RawClient.over(test, await secured(test, outer));
  inner.send(`GET / HTTP/1.1\r\nHost: localhost:${origin.port}\r\n\r\n`);
  test.match(await inner.response(), { status: 200, body: 'ok' });
});

await t.test('an origin whose certificate is not good', async (test) => {
  // What would switch verification off elsewhere.
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
  process.removeAllListeners('warning');
  test.teardown(() => delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']);
  const cases: readonly (readonly [identity: CertificateAndKey, code: string])[] = [
    [await originIdentity('other.test'), 'ERR_TLS_CERT_ALTNAME_INVALID'],
    [await originIdentity('localhost', around(20, -10)), 'CERT_HAS_EXPIRED'],
    [await originIdentity('localhost', around(-10, 20)), 'CERT_NOT_YET_VALID'],
    [await makeServerCertificate(['localhost'], around(1, 10)), 'DEPTH_ZERO_SELF_SIGNED_CERT'],
  ];
  for (const [identity, code] of cases) {
    const { origin, proxy, ends } = await rig(test, identity);
    const client = await enter(test, { proxy, origin });
    const fields = `Host: localhost:${origin.port}\r\n`;
    const plain = await client.send(`GET / HTTP/1.1\r\n${fields}\r\n`).response();
    test.match(plain, { status: 502, body: `peerdist: the origin has no valid certificate (${code})\n` });
    test.match(ends.at(-1), { status: 502, error: 'ERR_PEERDIST_ORIGIN_UNREACHABLE' });
    const upgrade = `GET / HTTP/1.1\r\n${fields}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
    test.match(await client.send(upgrade).response(), { status: 502, body: new RegExp(code) }, 'WebSocket');
    test.equal(origin.requests.length, 0, 'it is told nothing');
  }
});

await t.test('WebSocket through TLS that ends here', async (test) => {
  const origin = await RecordingOrigin.listen(test, {
    tls: localhost,
    answer: (_request, socket) => {
      socket.removeAllListeners('data');
      socket.on('data', (bytes: Buffer) => socket.write(bytes.toString('latin1').toUpperCase()));
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    },
  });
  const proxy = await startHost(test, {
    intercept: new LeafCertificates({ authority, hosts: ['localhost'] }),
    connectPorts: [origin.port],
    originCa: originAuthority.cert,
  });
  const client = await enter(test, { proxy, origin });
  client.send(
    `GET /ws HTTP/1.1\r\nHost: localhost:${origin.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  );
  test.equal((await client.response()).status, 101);
  client.send('frames');
  await client.until('FRAMES');
  client.socket.destroy();
  const far = origin.sockets[0] as Socket;
  if (!far.destroyed) await within(once(far, 'close'), 'the end of the way on');
});

await t.test('which hosts are listed', async (test) => {
  const hosts = ['A.Example.com', '*.packages.test', '192.0.2.1', '[2001:DB8:0::1]', 'xn--bcher-kva.example'];
  const certificates = new LeafCertificates({ authority, hosts });
  for (const host of ['a.example.com', 'x.packages.test', '192.0.2.1', '2001:db8::1', 'xn--bcher-kva.example'])
    test.ok(certificates.isListed(host), host);
  for (const host of [
    'example.com',
    'b.a.example.com',
    'packages.test',
    'x.y.packages.test',
    '.packages.test',
    '192.0.2.2',
  ])
    test.notOk(certificates.isListed(host), host);
  test.notOk(certificates.isListed("a'b.packages.test"), 'no name of a host');
  for (const text of [
    '',
    '*',
    '*.com',
    '*.*.com',
    'a.*.com',
    '**.a.b',
    'https://a.test',
    'a.test:443',
    'a.test/',
    'a..test',
    '-a.test',
    '1.2.3',
    '1.2.3.400',
    'bücher.example',
    'a b.test',
    `${'a'.repeat(64)}.test`,
    'a.test.',
  ])
    test.throws(() => parseHostPattern(text), { code: 'ERR_PEERDIST_INVALID_OPTION' }, text);
});

await t.test('certificates made as they are needed', async (test) => {
  const clock = new ManualClock();
  clock.advance(Date.now() - clock.now());
  const certificates = new LeafCertificates({ authority, hosts: ['*.many.test', '127.0.0.1'] }, clock);
  const leaf = async (host: string): Promise<X509Certificate> =>
    new X509Certificate((await certificates.identityFor(host)).cert);
  const [first, same] = await Promise.all([
    certificates.identityFor('a.many.test'),
    certificates.identityFor('a.many.test'),
  ]);
  test.equal(first, same, 'handshakes at once share one');
  const certificate = new X509Certificate(first.cert);
  test.equal(certificate.subjectAltName, 'DNS:a.many.test');
  test.ok(certificate.verify(new X509Certificate(authority.cert).publicKey));
  test.notOk(certificate.ca);
  test.equal(Date.parse(certificate.validFrom), Math.floor((clock.now() - DAY_MS / 24) / 1000) * 1000, 'an hour back');
  test.ok(Math.abs(Date.parse(certificate.validTo) - clock.now() - 7 * DAY_MS) < 1000, 'a week');
  test.match(await leaf('127.0.0.1'), { subjectAltName: 'IP Address:127.0.0.1' });
  test.not((await leaf('b.many.test')).serialNumber, certificate.serialNumber);

  clock.advance(6 * DAY_MS - 1000);
  test.equal(await certificates.identityFor('a.many.test'), first);
  clock.advance(2000);
  const renewed = await certificates.identityFor('a.many.test');
  test.not(renewed, first, 'another one a day before its end');
  test.equal(renewed.key, first.key, 'for the one key of this process');
  for (let index = 0; index < 256; index += 1) void certificates.identityFor(`h${index}.many.test`);
  test.not(await certificates.identityFor('a.many.test'), renewed, 'no more than 256 are kept');

  clock.advance(91 * DAY_MS);
  const last = await certificates.identityFor('a.many.test');
  test.ok(
    Date.parse(new X509Certificate(last.cert).validTo) <= Date.parse(new X509Certificate(authority.cert).validTo),
  );
  test.equal(await certificates.identityFor('a.many.test'), last, 'good until its authority ends');
  clock.advance(3 * DAY_MS);
  await test.rejects(certificates.identityFor('a.many.test'), { code: 'ERR_PEERDIST_SERVICE_UNAVAILABLE' });
});

await t.test('a service that ends', async (test) => {
  const held: Socket[] = [];
  const origin = await RecordingOrigin.listen(test, {
    tls: localhost,
    answer: (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok');
      held.push(socket);
    },
  });
  const service = await startBranch({
    listen: { host: '127.0.0.1', port: 0 },
    admin: undefined,
    intercept: new LeafCertificates({ authority, hosts: ['localhost'] }),
    connectPorts: [origin.port],
    originCa: originAuthority.cert,
  });
  const proxy = service.address as never;
  const idle = await enter(test, { proxy, origin });
  const busy = await enter(test, { proxy, origin });
  busy.send(`GET / HTTP/1.1\r\nHost: localhost:${origin.port}\r\n\r\n`);
  await busy.until('\r\n\r\nok');
  const between = await tunnel(test, service.address, `localhost:${origin.port}`);
  const stopped = service.stop(600_000);
  await within(idle.closed, 'the end of a connection with nothing under way');
  held[0]?.write('ay');
  test.match(
    await busy.response(),
    { status: 200, body: 'okay', complete: true },
    'what is under way comes to its end',
  );
  const late = tlsConnect({ socket: between, ca: authority.cert, servername: 'localhost' }).on('error', () => {});
  test.teardown(() => late.destroy());
  await within(once(late, 'close'), 'the end of one that shook hands too late');
  await inTime(stopped, 'the end of the service');
});

// --- The command --------------------------------------------------------------------------------------------------------------------

const directory = t.testdir({});
const path = (...names: string[]): string => join(directory, ...names);
const mode = (file: string): number => statSync(file).mode & 0o777;

await t.test('an authority is kept for its owner only', async (test) => {
  const ca = path('ca');
  const made = await runInside([
    'ca',
    'create',
    ca,
    '--name',
    'Hamburg, Office',
    '--days',
    '90',
    '--permit',
    '*.a.test',
    '--permit',
    '192.0.2.1',
  ]);
  test.equal(made.code, 0, made.stderr);
  test.strictSame([mode(ca), mode(join(ca, 'ca-key.pem')), mode(join(ca, 'ca-cert.pem'))], [0o700, 0o600, 0o644]);
  const certificate = new X509Certificate(readFileSync(join(ca, 'ca-cert.pem')));
  test.match(made.stdout, certificate.fingerprint256);
  test.match(made.stdout, /vouches for +a\.test, 192\.0\.2\.1\n/);
  test.match(made.stdout, /curl --cacert .*ca-cert\.pem/);
  const left = (Date.parse(certificate.validTo) - Date.now()) / DAY_MS;
  test.ok(left > 89 && left < 91);
  test.equal((await runInside(['ca', 'show', ca])).stdout, made.stdout);

  const again = await runInside(['ca', 'create', ca]);
  test.match(again, { code: 2, stderr: /^peerdist: \S+ca-key\.pem exists already; with --force [^\n]*\n$/ });
  test.equal(
    readFileSync(join(ca, 'ca-cert.pem'), 'utf8').trim(),
    certificate.toString().trim(),
    'nothing has changed',
  );
  const unlimited = await runInside(['ca', 'create', ca, '--force']);
  test.match(unlimited, { code: 0, stdout: /vouches for +any host/ });
  test.notMatch(unlimited.stdout, certificate.fingerprint256);

  mkdirSync(path('open'), { mode: 0o755 });
  chmodSync(path('open'), 0o755);
  const open = await runInside(['ca', 'create', path('open')]);
  test.match(open, {
    code: 2,
    stderr: `peerdist: ${path('open')} is open to others than its owner: chmod 700 ${path('open')}\n`,
  });
  test.match(await runInside(['ca', 'show', path('nowhere')]), {
    code: 2,
    stderr: /ENOENT; peerdist ca create makes one/,
  });
  for (const args of [
    ['--days', '0'],
    ['--permit', 'https://a'],
    ['--permit', '*'],
  ])
    test.equal((await runInside(['ca', 'create', path('never'), ...args])).code, 2, args.join(' '));
});

await t.test('a branch that must not start', async (test) => {
  const ca = path('kept');
  const other = path('other');
  for (const each of [ca, other]) test.equal((await runInside(['ca', 'create', each, '--permit', 'a.test'])).code, 0);
  const [cert, key] = [join(ca, 'ca-cert.pem'), join(ca, 'ca-key.pem')];
  const branch = ['branch', '--listen', '127.0.0.1:0', '--no-admin', '--no-peers', '--store', 'memory'];
  const refuses = async (args: readonly string[], expected: RegExp | string): Promise<void> => {
    const { code, stderr } = await runInside([...branch, ...args]);
    test.match(stderr, expected);
    test.match(stderr, /^peerdist: [^\n]*\n$/, 'one line');
    test.equal(code, 2, String(expected));
  };
  const both = ['--intercept-ca', ca, '--intercept', 'a.test'];
  test.match(await runInside([...branch, ...both]), { code: 0, stderr: '' }, 'as it should be');
  await refuses(['--intercept', 'a.test'], /--intercept needs --intercept-ca DIR/);
  await refuses(['--intercept-ca', ca], /--intercept-ca is of no use without --intercept/);
  await refuses([...both, '--origin', 'http://127.0.0.1:1'], /--intercept is for a forward proxy/);
  await refuses(
    [...both, '--intercept', 'b.test'],
    /--intercept: the authority is not permitted to vouch for b\.test, only for a\.test/,
  );
  await refuses([...both, '--intercept', '127.0.0.1'], /not permitted to vouch for 127\.0\.0\.1/);
  await refuses(['--intercept-ca', path('nowhere'), '--intercept', 'a.test'], /--intercept-ca: cannot read .*ENOENT/);

  for (const [file, bad, good] of [
    [key, 0o640, 0o600],
    [key, 0o604, 0o600],
    [key, 0o620, 0o600],
    [cert, 0o666, 0o644],
    [cert, 0o664, 0o644],
    [ca, 0o750, 0o700],
    [ca, 0o701, 0o700],
    [ca, 0o777, 0o700],
  ] as const) {
    chmodSync(file, bad);
    await refuses(
      both,
      `--intercept-ca: ${file} is open to others than its owner: chmod ${good.toString(8)} ${file}\n`,
    );
    chmodSync(file, good);
  }
  const put = (pair: CertificateAndKey): void => {
    writeFileSync(cert, pair.cert);
    writeFileSync(key, pair.key);
  };
  copyFileSync(join(other, 'ca-key.pem'), key);
  await refuses(both, /certificate and key do not belong together/);
  put(await makeAuthority('old', around(20, -10)));
  await refuses(both, /has expired on .*peerdist ca create --force/);
  put(await makeAuthority('new', around(-10, 20)));
  await refuses(both, /is not valid before/);
  put(localhost);
  await refuses(both, /the certificate is none of an authority/);
  put({ cert: 'nothing', key: 'nothing' });
  await refuses(both, /not usable PEM/);
  put(await makeAuthority('soon', around(1, 10)));
  test.match(
    await runInside([...branch, ...both]),
    { code: 0, stderr: /expires in 9 days/ },
    'one that ends soon is said',
  );
});

const withoutCurl = spawnSync('curl', ['--version']).status === 0 ? false : 'curl is not installed';

await t.test('curl', { skip: withoutCurl }, async (test) => {
  const listed = await RecordingOrigin.listen(test, {
    tls: localhost,
    answer: (_request, socket) =>
      socket.write('HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 6\r\n\r\nlisted'),
  });
  const other = await RecordingOrigin.listen(test, { tls: await originIdentity('127.0.0.1') });
  const ca = path('curl');
  test.equal((await runInside(['ca', 'create', ca, '--permit', 'localhost'])).code, 0);
  writeFileSync(path('origins.pem'), originAuthority.cert);
  const ports = [listed.port, other.port].flatMap((port) => ['--connect-port', String(port)]);
  const role = await Role.start(test, [
    'branch',
    '--store',
    'memory',
    '--no-admin',
    '--intercept-ca',
    ca,
    '--intercept',
    'localhost',
    '--origin-ca',
    path('origins.pem'),
    ...ports,
  ]);
  const curl = (cacert: string, url: string): ReturnType<typeof run> =>
    run(test, 'curl', ['-sS', '-v', '--noproxy', '', '--proxy', role.url, '--cacert', cacert, url]);
  const trusting = await curl(join(ca, 'ca-cert.pem'), `https://localhost:${listed.port}/file`);
  test.match(trusting, { code: 0, stdout: /listed/, stderr: /issuer: CN=peerdist interception on / });
  test.match(
    await curl(path('origins.pem'), `https://localhost:${listed.port}/file`),
    { code: 60 },
    'one that does not trust it',
  );
  const tunnelled = await curl(path('origins.pem'), `https://127.0.0.1:${other.port}/file`);
  test.match(tunnelled, { code: 0, stdout: /ok/, stderr: /issuer: CN=the origins/ }, 'not listed: its own certificate');
  test.notMatch(tunnelled.stderr, /issuer: CN=peerdist/);
  await until(() => role.program.requests.length >= 4, 'the log has them');
  test.match(
    role.program.requests.map(({ method, url, status, outcome }) => [method, url, status, outcome]),
    [
      ['CONNECT', `localhost:${listed.port}`, 200, 'complete'],
      ['GET', `https://localhost:${listed.port}/file`, 200, 'complete'],
      ['CONNECT', `localhost:${listed.port}`, 200, 'broken'],
      ['CONNECT', `127.0.0.1:${other.port}`, 200, 'complete'],
    ],
  );
});
