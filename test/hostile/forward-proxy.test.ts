/** The host as a forward proxy: who may go where, tunnels of both kinds, and clients that send anything at all. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import t from 'tap';
import type { Observation } from '../../lib/observer.ts';
import { DestinationRule, guarded, networkSet, plainAddress } from '../../plugins/http-proxy/access.ts';
import { pick, seededBytes, words } from '../support/random.ts';
import {
  connecting,
  deafPort,
  listen,
  outsideAddress,
  RawClient,
  RecordingOrigin,
  type Scope,
  startHost,
  values,
  within,
} from '../support/net.ts';

function absolute(port: number, path = '/x', fields = '', host = '127.0.0.1'): string {
  return `GET http://${host}:${port}${path} HTTP/1.1\r\nHost: ignored.test\r\n${fields}\r\n`;
}

function connectTo(authority: string): string {
  return `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
}

function closed(socket: Socket): Promise<unknown> {
  return socket.destroyed ? Promise.resolve() : within(once(socket, 'close'), 'the end of a connection');
}

function tunnels(observations: readonly Observation[]): number[] {
  return observations.flatMap((observation) => (observation.type === 'tunnel' ? [observation.bytes] : []));
}

/** A server of bare bytes. */
async function serve(
  scope: Scope,
  onSocket: (socket: Socket) => void,
  allowHalfOpen = false,
): Promise<{ port: number; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen, noDelay: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    onSocket(socket);
    // A socket nobody reads from never learns that the other side is gone.
    socket.resume();
  });
  return { port: await listen(scope, server), sockets };
}

/** A port where nobody listens. */
async function deserted(scope: Scope): Promise<number> {
  const server = createServer();
  const port = await listen(scope, server);
  server.close();
  await once(server, 'close');
  return port;
}

await t.test('forms of a request', async (test) => {
  const origin = await RecordingOrigin.listen(test);
  const proxy = await startHost(test, { viaName: 'branch' });
  const client = await proxy.client();

  test.match(await client.send(absolute(origin.port, '/a//b?c')).response(), { status: 200, body: 'ok' });
  const seen = await origin.whole(1);
  test.equal(seen.target, '/a//b?c');
  test.strictSame(values(seen.fields, 'host'), [`127.0.0.1:${origin.port}`]);
  test.strictSame(values(seen.fields, 'via'), ['1.1 branch']);

  const second = await client.send(absolute(origin.port, '', 'Via: 1.0 first, 1.1 other (comment)\r\n')).response();
  test.strictSame(values(second.fields, 'via'), ['1.1 branch'], 'towards the client too');
  const viaSeen = await origin.whole(2);
  test.equal(viaSeen.target, '/', 'no path is the root');
  test.strictSame(values(viaSeen.fields, 'via'), ['1.0 first, 1.1 other (comment), 1.1 branch']);

  client.send(`OPTIONS http://127.0.0.1:${origin.port} HTTP/1.1\r\nHost: a\r\n\r\n`);
  test.equal((await client.response()).status, 200);
  test.equal((await origin.whole(3)).target, '*', 'RFC 9112 3.2.4');

  client.send(`GET http://127.0.0.1:${origin.port}/old HTTP/1.0\r\n\r\n`);
  test.match(await client.response(), { status: 200, body: 'ok' }, 'HTTP/1.0 without Host');
  test.strictSame(values((await origin.whole(4)).fields, 'via'), ['1.0 branch']);

  for (const request of ['GET /x HTTP/1.1\r\nHost: a\r\n\r\n', 'OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n']) {
    const plain = await proxy.client();
    test.match(await plain.send(request).response(), { status: 400, body: /^peerdist: .*proxy.*\n$/ });
  }
  for (const url of ['ftp://a.test/', 'http://', 'http://a b/', 'http://u:p@a.test/', 'http://[::1/', 'http:a']) {
    const bad = await proxy.client();
    test.equal((await bad.send(`GET ${url} HTTP/1.1\r\nHost: a\r\n\r\n`).response()).status, 400, url);
  }
  test.equal(origin.requests.length, 4);
});

await t.test('loops', async (test) => {
  await test.test('a request that carries our name', async (inner) => {
    const origin = await RecordingOrigin.listen(inner);
    const proxy = await startHost(inner, { viaName: 'branch' });
    for (const via of ['1.1 branch', '1.0 a, 1.1 branch (x), 1.1 b', 'HTTP/1.1 branch', '1.1   branch']) {
      const client = await proxy.client();
      const response = await client.send(absolute(origin.port, '/x', `Via: ${via}\r\n`)).response();
      inner.match(response, { status: 508, body: /passed this proxy/ }, via);
    }
    const lines = await proxy.client();
    lines.send(absolute(origin.port, '/x', 'Via: 1.1 a\r\nConnection: via\r\nVia: 1.1 branch\r\n'));
    inner.equal((await lines.response()).status, 508, 'nominated by Connection');
    const other = await proxy.client();
    inner.equal((await other.send(absolute(origin.port, '/x', 'Via: 1.1 branch-2\r\n')).response()).status, 200);
    inner.equal(origin.requests.length, 1);
  });

  await test.test('two proxies that point at each other', async (inner) => {
    const port = await deserted(inner);
    const first = await startHost(inner, { origin: `http://127.0.0.1:${port}` });
    const second = await startHost(inner, { origin: `http://127.0.0.1:${first.port}` });
    const server = second.host.createServer();
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    inner.teardown(() => {
      server.closeAllConnections();
      server.close();
    });
    const client = await first.client();
    inner.equal((await client.send('GET /x HTTP/1.1\r\nHost: a\r\n\r\n').response()).status, 508);
  });
});

await t.test('CONNECT', async (test) => {
  await test.test('tunnels bytes both ways and counts them', async (inner) => {
    const server = await serve(inner, (socket) => socket.pipe(socket));
    const proxy = await startHost(inner, { connectPorts: [server.port] });
    const client = await proxy.client();
    // The first bytes come along with the request.
    client.send(`${connectTo(`127.0.0.1:${server.port}`)}\x16\x03\x01early`);
    const head = await client.until('early');
    inner.match(head, /^HTTP\/1\.1 200 [^\r]*\r\n(?:[^\r]+\r\n)*\r\n...early$/s);
    inner.notMatch(head, /content-length|transfer-encoding/i);
    const bytes = seededBytes(1, 3_000_000);
    const pieces: Buffer[] = [];
    let back = 0;
    client.socket.removeAllListeners('data');
    client.socket.on('data', (chunk: Buffer) => {
      pieces.push(chunk);
      back += chunk.byteLength;
      if (back === bytes.byteLength) client.socket.emit('all');
    });
    const all = once(client.socket, 'all');
    client.socket.write(bytes);
    await within(all, 'every byte');
    inner.ok(Buffer.concat(pieces).equals(bytes), 'every byte came back');
    client.socket.end();
    await within(client.closed, 'the end of the client connection');
    await closed(server.sockets[0] as Socket);
    // 8 bytes came with the request.
    inner.match(tunnels(proxy.observations), [2 * (bytes.byteLength + 8)]);
  });

  await test.test('a client that has said all still gets its answer', async (inner) => {
    const server = await serve(inner, (socket) => {
      let text = '';
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      socket.on('end', () => socket.end(`got ${text}`));
    });
    const proxy = await startHost(inner, { connectPorts: [server.port] });
    const client = await proxy.client();
    client.send(connectTo(`127.0.0.1:${server.port}`));
    await client.until('\r\n\r\n');
    client.send('question').socket.end();
    await client.until('got question');
    inner.equal(await client.closed, 'ended');
  });

  await test.test('a destination that has said all ends the tunnel', async (inner) => {
    const server = await serve(inner, (socket) => socket.end('hello'));
    const proxy = await startHost(inner, { connectPorts: [server.port] });
    const client = await proxy.client();
    client.send(connectTo(`127.0.0.1:${server.port}`));
    await client.until('hello');
    await within(client.closed, 'the end of the client connection');
    await closed(server.sockets[0] as Socket);
    inner.pass('both connections are closed');
  });

  for (const who of ['client', 'destination'] as const) {
    await test.test(`a ${who} that breaks off closes the other side`, async (inner) => {
      const server = await serve(inner, (socket) => socket.write('hello'));
      const proxy = await startHost(inner, { connectPorts: [server.port] });
      const client = await proxy.client();
      client.send(connectTo(`127.0.0.1:${server.port}`));
      await client.until('hello');
      (who === 'client' ? client.socket : (server.sockets[0] as Socket)).resetAndDestroy();
      await within(client.closed, 'the end of the client connection');
      await closed(server.sockets[0] as Socket);
      inner.equal(tunnels(proxy.observations).length, 1);
    });
  }

  await test.test('only to ports on the list', async (inner) => {
    const server = await serve(inner, (socket) => socket.end('hello'));
    const proxy = await startHost(inner);
    for (const port of [server.port, 25, 22, 80]) {
      const client = await proxy.client();
      const response = await client.send(connectTo(`127.0.0.1:${port}`)).response();
      inner.match(response, { status: 403, body: /port/, complete: true }, String(port));
      await within(client.closed, 'the end of the client connection');
    }
    inner.equal(server.sockets.length, 0);
  });

  await test.test('to a destination that is none', async (inner) => {
    const proxy = await startHost(inner, { connectPorts: [443], timeouts: { connectMs: 500 } });
    for (const authority of [
      '/x',
      'a.test',
      'a.test:',
      ':443',
      'a.test:443x',
      'a.test:99999',
      'a.test:443/',
      'http://a.test:443',
      'user@a.test:443',
      'a/b:443',
      'a?b:443',
      '[::1:443',
      '::1:443',
      'a:b:443',
      'a:1:443',
      '[]:443',
    ]) {
      const client = await proxy.client();
      const response = await client.send(`CONNECT ${authority} HTTP/1.1\r\nHost: a\r\n\r\n`).response();
      inner.equal(response.status, 400, authority);
    }
    for (const fields of ['Host: a\r\nHost: b\r\n', 'Host: a b\r\n', '']) {
      const client = await proxy.client();
      const { status } = await client.send(`CONNECT 127.0.0.1:443 HTTP/1.1\r\n${fields}\r\n`).response();
      inner.equal(status, 400, JSON.stringify(fields));
    }
  });

  await test.test('to nobody', async (inner) => {
    const port = await deserted(inner);
    const proxy = await startHost(inner, { connectPorts: [port] });
    const client = await proxy.client();
    inner.match(await client.send(connectTo(`127.0.0.1:${port}`)).response(), { status: 502, body: /reached/ });
    inner.strictSame(tunnels(proxy.observations), []);
  });

  await test.test('to a destination that never takes the connection', async (inner) => {
    const port = await deafPort(inner);
    if (port === undefined) {
      inner.pass('connect time-out', { skip: 'needs Linux' });
      return;
    }
    const proxy = await startHost(inner, { connectPorts: [port], timeouts: { connectMs: 100 } });
    const client = await proxy.client();
    inner.match(await client.send(connectTo(`127.0.0.1:${port}`)).response(), { status: 504, body: /time/ });
    await within(client.closed, 'the end of the client connection');
  });

  await test.test('a client that leaves before there is a connection', async (inner) => {
    const port = await deafPort(inner);
    if (port === undefined) {
      inner.pass('leaving early', { skip: 'needs Linux' });
      return;
    }
    const proxy = await startHost(inner, { connectPorts: [port] });
    for (const request of [absolute(port), connectTo(`127.0.0.1:${port}`)]) {
      const client = await proxy.client();
      client.send(request);
      await connecting(port, 1, 'the attempt to connect');
      client.socket.destroy();
      await connecting(port, 0, `the end of the attempt: ${request.slice(0, 7)}`);
    }
    inner.pass('nobody goes on connecting');
  });

  await test.test('idle', async (inner) => {
    const server = await serve(inner, (socket) => socket.write('hello'));
    const proxy = await startHost(inner, { connectPorts: [server.port], timeouts: { idleMs: 200 } });
    const client = await proxy.client();
    client.send(connectTo(`127.0.0.1:${server.port}`));
    await client.until('hello');
    await within(client.closed, 'the end of the client connection');
    await closed(server.sockets[0] as Socket);
    inner.strictSame(tunnels(proxy.observations), [5]);
  });

  await test.test('one that is busy in one direction only is not idle', async (inner) => {
    let beats = 0;
    const server = await serve(inner, (socket) => {
      const beat = setInterval(() => {
        socket.write('.');
        beats += 1;
        if (beats === 15) socket.end('done');
        if (beats === 15) clearInterval(beat);
      }, 30);
      socket.once('close', () => clearInterval(beat));
    });
    const proxy = await startHost(inner, { connectPorts: [server.port], timeouts: { idleMs: 300 } });
    const client = await proxy.client();
    client.send(connectTo(`127.0.0.1:${server.port}`));
    inner.match(await client.until('done'), /\.{15}done$/, 'longer than the limit');
  });

  await test.test('a client that leaves at once', async (inner) => {
    const server = await serve(inner, (socket) => socket.pipe(socket));
    const proxy = await startHost(inner, { connectPorts: [server.port] });
    for (let round = 0; round < 10; round += 1) {
      const client = await proxy.client();
      client.send(connectTo(`127.0.0.1:${server.port}`));
      if (round % 2 === 0) client.socket.destroy();
      else client.socket.resetAndDestroy();
    }
    const staying = await proxy.client();
    staying.send(`${connectTo(`127.0.0.1:${server.port}`)}echo`);
    await staying.until('echo');
    const left = server.sockets.slice(0, -1);
    await Promise.all(left.map((socket) => closed(socket)));
    staying.socket.end();
    await within(staying.closed, 'the end of the last tunnel');
    await closed(server.sockets.at(-1) as Socket);
    inner.ok(tunnels(proxy.observations).length >= 1);
  });
});

await t.test('destination rule', async (test) => {
  const own = { address: '0.0.0.0', port: 8080 };
  const rule = (allow: readonly string[] = [], listeners = [own]): DestinationRule =>
    new DestinationRule({ allow, ownListeners: () => listeners });

  await test.test('sheltered addresses in all their spellings', async (inner) => {
    for (const address of [
      '127.0.0.1',
      '127.255.255.254',
      '0.0.0.0',
      '0.1.2.3',
      '169.254.169.254',
      '::1',
      '0:0:0:0:0:0:0:1',
      '::',
      'fe80::1',
      'fe80::1%eth0',
      'febf::1',
      '::ffff:127.0.0.1',
      '::FFFF:127.0.0.1',
      '::ffff:7f00:1',
      '0:0:0:0:0:ffff:7f00:0001',
      '::ffff:169.254.169.254',
      '::ffff:a9fe:a9fe',
      '::ffff:0.0.0.0',
      '::ffff:0:0',
    ])
      inner.notOk(rule().permits(address, address, 80), address);
    for (const address of ['192.0.2.1', '10.0.0.1', '128.0.0.1', '169.255.0.1', '2001:db8::1', 'fd00::1', '1.0.0.0'])
      inner.ok(rule().permits(address, address, 80), address);
  });

  await test.test('our own listeners in all their spellings', async (inner) => {
    const four = outsideAddress('IPv4');
    const six = outsideAddress('IPv6');
    if (four === undefined) {
      inner.pass('own addresses', { skip: 'needs an address that is not loopback' });
      return;
    }
    const [a = 0, b = 0, c = 0, d = 0] = four.split('.').map(Number);
    const hex = `::ffff:${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
    const spellings = [four, `::ffff:${four}`, hex, `0:0:0:0:0:ffff:${four}`, hex.toUpperCase()];
    for (const listener of ['0.0.0.0', '::', four]) {
      for (const address of spellings) {
        const name = `${address} against ${listener}`;
        inner.notOk(rule([], [{ address: listener, port: 8080 }]).permits(address, address, 8080), name);
        inner.ok(rule([], [{ address: listener, port: 8080 }]).permits(address, address, 8081), `${name}, other port`);
      }
    }
    inner.ok(rule([], [{ address: '192.0.2.99', port: 8080 }]).permits('192.0.2.98', '192.0.2.98', 8080));
    if (six === undefined) return;
    const long = six.replace('::', `:${'0:'.repeat(8 - six.split(':').filter(Boolean).length)}`);
    for (const listener of ['::', six]) {
      for (const address of [six, six.toUpperCase(), long]) {
        const name = `${address} against ${listener}`;
        inner.notOk(rule([], [{ address: listener, port: 8080 }]).permits(address, address, 8080), name);
      }
    }
  });

  await test.test('exemptions', async (inner) => {
    inner.ok(rule(['127.0.0.0/8']).permits('x', '127.0.0.1', 80));
    inner.ok(rule(['127.0.0.1']).permits('x', '::ffff:127.0.0.1', 80));
    inner.ok(rule(['::1']).permits('x', '::1', 80));
    inner.notOk(rule(['::1']).permits('x', '127.0.0.1', 80));
    inner.ok(rule(['127.0.0.1:81']).permits('x', '127.0.0.1', 81));
    inner.notOk(rule(['127.0.0.1:81']).permits('x', '127.0.0.1', 82), 'that port only');
    inner.ok(rule(['Intranet.test:81']).permits('INTRANET.test', '127.0.0.1', 81));
    inner.notOk(rule(['intranet.test:81']).permits('intranet.test', '127.0.0.1', 82));
    inner.notOk(rule(['intranet.test:81']).permits('other.test', '127.0.0.1', 81));
    inner.ok(rule(['[::1]:81']).permits('::1', '::1', 81), 'an IPv6 address with a port');
    inner.notOk(rule(['[::1]:81']).permits('::1', '::1', 82));
    inner.ok(rule(['10.0.0.0/8'], [{ address: '10.1.1.1', port: 9 }]).permits('x', '10.1.1.1', 9), 'our own, if named');
    for (const bad of ['nonsense', '1.2.3.4/33', '::/129', '1.2.3/8', '1.2.3.4/', '1.2.3.4/-1', ''])
      inner.throws(() => networkSet([bad]), { code: 'ERR_PEERDIST_INVALID_OPTION' }, JSON.stringify(bad));
  });

  await test.test('plain addresses', async (inner) => {
    inner.equal(plainAddress('::ffff:1.2.3.4'), '1.2.3.4');
    inner.equal(plainAddress('::FFFF:1.2.3.4'), '1.2.3.4');
    inner.equal(plainAddress('fe80::1%eth0'), 'fe80::1');
    inner.equal(plainAddress(undefined), '');
    inner.notOk(networkSet(['0.0.0.0/0']).has(''));
    inner.ok(networkSet(['192.0.2.0/24']).has('::ffff:192.0.2.9'));
    inner.ok(networkSet(['192.0.2.0/24']).has('::ffff:c000:209'));
  });

  await test.test('guarded connection options', async (inner) => {
    const forbidden = { code: 'ERR_PEERDIST_DESTINATION_FORBIDDEN' };
    inner.throws(() => guarded({ host: '127.0.0.1', port: 80 }, rule()), forbidden);
    const untouched = { host: '127.0.0.1', port: 80 };
    inner.equal(guarded(untouched, undefined), untouched);
    const { lookup } = guarded({ host: 'localhost', port: 80 }, rule());
    for (const all of [true, false]) {
      const error = await new Promise((resolve) => lookup?.('localhost', { all }, (failure) => resolve(failure)));
      inner.match(error, forbidden, `a name that resolves there, all: ${all}`);
    }
  });
});

await t.test('clients from elsewhere', async (test) => {
  const outside = outsideAddress();
  if (outside === undefined) {
    test.pass('clients from elsewhere', { skip: 'needs an address that is not loopback' });
    return;
  }
  const origin = await RecordingOrigin.listen(test);
  const everywhere = await RecordingOrigin.listen(test, {}, '0.0.0.0');
  const connectPorts = [origin.port, everywhere.port];
  const proxy = await startHost(test, { allowClients: ['0.0.0.0/0'], connectPorts }, '0.0.0.0');
  const admin = proxy.host.createServer();
  const adminPort = await listen(test, admin, '0.0.0.0');

  const [a = 0, b = 0, c = 0, d = 0] = outside.split('.').map(Number);
  const outsideHex = `[::ffff:${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}]`;
  const sheltered = [
    `127.0.0.1:${origin.port}`,
    `127.0.0.1:${everywhere.port}`,
    `127.1.2.3:${everywhere.port}`,
    `localhost:${origin.port}`,
    `127.1:${origin.port}`,
    `2130706433:${origin.port}`,
    `0x7f000001:${origin.port}`,
    `0.0.0.0:${origin.port}`,
    `0:${origin.port}`,
    `[::1]:${origin.port}`,
    `[::]:${origin.port}`,
    `[::ffff:127.0.0.1]:${origin.port}`,
    `[::ffff:7f00:1]:${origin.port}`,
    `[0:0:0:0:0:ffff:127.0.0.1]:${origin.port}`,
    `169.254.169.254:${origin.port}`,
    `[fe80::1]:${origin.port}`,
    `[::ffff:169.254.169.254]:${origin.port}`,
    `${outside}:${proxy.port}`,
    `${outside}:${adminPort}`,
    `[::ffff:${outside}]:${adminPort}`,
    `${outsideHex}:${adminPort}`,
  ];

  await test.test('do not get to sheltered addresses', async (inner) => {
    for (const authority of sheltered) {
      const client = await proxy.client(outside);
      client.send(`GET http://${authority}/ HTTP/1.1\r\nHost: a\r\n\r\n`);
      const response = await client.response();
      inner.match(response, { status: 403, body: /^peerdist: .*not allowed\n$/, complete: true }, authority);
    }
    inner.equal(origin.sockets.length + everywhere.sockets.length, 0, 'nothing was even connected to');
  });

  await test.test('nor by CONNECT', async (inner) => {
    const everyPort = Array.from({ length: 65_535 }, (_, index) => index + 1);
    const open = await startHost(inner, { allowClients: ['0.0.0.0/0'], connectPorts: everyPort }, '0.0.0.0');
    const openAdmin = await listen(inner, open.host.createServer(), '0.0.0.0');
    for (const authority of [
      ...sheltered.slice(0, -4),
      `${outside}:${open.port}`,
      `${outside}:${openAdmin}`,
      `[::ffff:${outside}]:${openAdmin}`,
      `${outsideHex}:${openAdmin}`,
    ]) {
      const client = await open.client(outside);
      const response = await client.send(connectTo(authority)).response();
      inner.match(response, { status: 403, complete: true }, authority);
    }
    inner.equal(origin.sockets.length + everywhere.sockets.length, 0);
  });

  await test.test('nor by Upgrade', async (inner) => {
    const client = await proxy.client(outside);
    client.send(absolute(origin.port, '/ws', 'Connection: Upgrade\r\nUpgrade: websocket\r\n'));
    inner.equal((await client.response()).status, 403);
    const other = await proxy.client(outside);
    other.send(absolute(origin.port, '/h2c', 'Connection: Upgrade\r\nUpgrade: h2c\r\n'));
    inner.equal((await other.response()).status, 403);
    inner.equal(origin.sockets.length, 0);
  });

  await test.test('get anywhere else, and loopback clients everywhere', async (inner) => {
    const client = await proxy.client(outside);
    const elsewhere = absolute(everywhere.port, '/x', '', outside);
    inner.match(await client.send(elsewhere).response(), { status: 200, body: 'ok' });
    const local = await proxy.client();
    inner.match(await local.send(absolute(origin.port)).response(), { status: 200, body: 'ok' });
    // The connection that the loopback client left behind is not for this one.
    const again = await proxy.client(outside);
    inner.equal((await again.send(absolute(origin.port)).response()).status, 403);
    inner.equal(origin.requests.length, 1);
  });

  await test.test('get where allow-destinations lets them', async (inner) => {
    for (const [allow, authority] of [
      ['127.0.0.0/8', `127.0.0.1:${origin.port}`],
      ['127.0.0.1', `[::ffff:127.0.0.1]:${origin.port}`],
      [`127.0.0.1:${origin.port}`, `127.0.0.1:${origin.port}`],
      [`localhost:${origin.port}`, `localhost:${origin.port}`],
      ['127.0.0.1', `localhost:${origin.port}`],
    ] as const) {
      const open = await startHost(
        inner,
        { allowClients: ['0.0.0.0/0'], allowDestinations: [allow], connectPorts },
        '0.0.0.0',
      );
      const client = await open.client(outside);
      client.send(`GET http://${authority}/ HTTP/1.1\r\nHost: a\r\n\r\n`);
      inner.equal((await client.response()).status, 200, `${allow} for ${authority}`);
      const tunnel = await open.client(outside);
      tunnel.send(`${connectTo(authority)}GET /t HTTP/1.1\r\nHost: a\r\n\r\n`);
      inner.match(await tunnel.until(/\r\n\r\nok$/), /^HTTP\/1\.1 200 /, `${allow} for CONNECT ${authority}`);
      const forbidden = await open.client(outside);
      forbidden.send('GET http://169.254.169.254/ HTTP/1.1\r\nHost: a\r\n\r\n');
      inner.equal((await forbidden.response()).status, 403);
    }
  });

  await test.test('are served only when on the list of clients', async (inner) => {
    for (const allowClients of [['127.0.0.0/8'], ['203.0.113.0/24', '::1'], []]) {
      const closedHost = await startHost(inner, { allowClients, connectPorts }, '0.0.0.0');
      const name = JSON.stringify(allowClients);
      for (const request of [
        absolute(everywhere.port, '/x', '', outside),
        connectTo(`${outside}:${everywhere.port}`),
        absolute(everywhere.port, '/x', 'Connection: Upgrade\r\nUpgrade: websocket\r\n', outside),
      ]) {
        const client = await closedHost.client(outside);
        inner.match(await client.send(request).response(), { status: 403, body: /client/ }, name);
      }
    }
    const listed = await startHost(inner, { allowClients: [`${outside}/32`] }, '0.0.0.0');
    const client = await listed.client(outside);
    inner.equal((await client.send(absolute(everywhere.port, '/x', '', outside)).response()).status, 200);
    const local = await listed.client();
    inner.equal((await local.send(absolute(everywhere.port, '/x', '', outside)).response()).status, 403);
  });

  await test.test('over IPv6 too', async (inner) => {
    const six = outsideAddress('IPv6');
    if (six === undefined) {
      inner.pass('IPv6', { skip: 'needs an IPv6 address that is not loopback' });
      return;
    }
    const dual = await startHost(inner, { allowClients: ['::/0', '0.0.0.0/0'] }, '::');
    const long = six.replace('::', `:${'0:'.repeat(8 - six.split(':').filter(Boolean).length)}`);
    for (const [from, authority] of [
      [six, `[::1]:${origin.port}`],
      [six, `127.0.0.1:${origin.port}`],
      [six, `[${six}]:${dual.port}`],
      [six, `[${long}]:${dual.port}`],
      // An IPv4 client of a dual-stack listener has a mapped address.
      [outside, `127.0.0.1:${origin.port}`],
      [outside, `${outside}:${dual.port}`],
    ] as const) {
      const client = await dual.client(from);
      client.send(`GET http://${authority}/ HTTP/1.1\r\nHost: a\r\n\r\n`);
      inner.equal((await client.response()).status, 403, `${authority} for ${from}`);
    }
    const local = await dual.client('127.0.0.1');
    inner.equal((await local.send(absolute(origin.port)).response()).status, 200, 'mapped loopback is loopback');
  });
});

await t.test('Upgrade', async (test) => {
  const handshake =
    'GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n' +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nProxy-Authorization: secret\r\n\r\n';
  const accept =
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
    'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nProxy-Authenticate: x\r\n\r\n';

  await test.test('to WebSocket is tunnelled both ways', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, {
      answer: (_request, socket) => {
        socket.removeAllListeners('data');
        socket.write(`${accept}first`);
        socket.pipe(socket);
      },
    });
    const proxy = await startHost(inner, { origin: origin.url });
    const client = await proxy.client();
    client.send(handshake);
    const head = await client.until('first');
    inner.match(head, /^HTTP\/1\.1 101 Switching Protocols\r\n/);
    inner.match(head, /^upgrade: websocket\r$/im);
    inner.match(head, /^connection: upgrade\r$/im);
    inner.match(head, /^sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r$/im);
    inner.match(head, /^set-cookie: a=1\r\nset-cookie: b=2\r$/im);
    inner.notMatch(head, /proxy-|content-length/i);
    const seen = await origin.request(1);
    inner.strictSame(values(seen.fields, 'upgrade'), ['websocket']);
    inner.match(values(seen.fields, 'connection'), [/^upgrade$/i]);
    inner.strictSame(values(seen.fields, 'host'), [`127.0.0.1:${origin.port}`]);
    inner.strictSame(values(seen.fields, 'sec-websocket-key'), ['dGhlIHNhbXBsZSBub25jZQ==']);
    inner.notMatch(seen.head, /proxy-/i);
    client.send('\x81\x05frame');
    await client.until('\x81\x05frame');
    client.socket.end();
    await within(client.closed, 'the end of the client connection');
    await closed(seen.socket);
    inner.ok((tunnels(proxy.observations)[0] ?? 0) >= 14, 'counted');
  });

  await test.test('first bytes of the client come along', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, {
      answer: (_request, socket) => {
        socket.removeAllListeners('data');
        socket.write(accept);
        socket.on('data', (chunk: Buffer) => socket.write(chunk));
      },
    });
    const proxy = await startHost(inner, { origin: origin.url });
    const client = await proxy.client();
    client.send(`${handshake}eager`);
    inner.match(await client.until('eager'), /\r\n\r\neager$/);
  });

  await test.test('an origin that refuses', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, {
      answer: (_request, socket) => socket.write('HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno'),
    });
    const proxy = await startHost(inner, { origin: origin.url });
    const client = await proxy.client();
    inner.match(await client.send(handshake).response(), { status: 403, body: 'no', complete: true });
    await within(client.closed, 'the end of the client connection');
    await closed((await origin.request(1)).socket);
    inner.strictSame(tunnels(proxy.observations), []);
  });

  await test.test('an origin that refuses and never ends', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, {
      answer: (_request, socket) => socket.write('HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nhalf'),
    });
    const proxy = await startHost(inner, { origin: origin.url, timeouts: { idleMs: 200 } });
    const client = await proxy.client();
    inner.match(await client.send(handshake).response(), { status: 403, complete: false });
    await closed((await origin.request(1)).socket);
  });

  await test.test('an origin that switches to something else', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, {
      answer: (_request, socket) =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'),
    });
    const proxy = await startHost(inner, { origin: origin.url });
    const client = await proxy.client();
    inner.equal((await client.send(handshake).response()).status, 502, 'RFC 9110 7.8: not what was asked for');
  });

  await test.test('an origin that never answers, one that hangs up, none at all', async (inner) => {
    const silent = await RecordingOrigin.listen(inner, { answer: () => {} });
    const slow = await startHost(inner, { origin: silent.url, timeouts: { headMs: 100 } });
    const first = await slow.client();
    inner.match(await first.send(handshake).response(), { status: 504, complete: true });
    await closed((await silent.request(1)).socket);

    const hanging = await RecordingOrigin.listen(inner, { answer: (_request, socket) => socket.end() });
    const broken = await startHost(inner, { origin: hanging.url });
    const second = await broken.client();
    inner.match(await second.send(handshake).response(), { status: 502, complete: true });

    const port = await deserted(inner);
    const third = await (await startHost(inner, { origin: `http://127.0.0.1:${port}` })).client();
    inner.match(await third.send(handshake).response(), { status: 502, complete: true });
  });

  for (const [name, request] of [
    ['WebSocket', handshake],
    ['h2c', handshake.replace('Upgrade: WebSocket', 'Upgrade: h2c')],
  ] as const) {
    await test.test(`a client that leaves before the answer, ${name}`, async (inner) => {
      const origin = await RecordingOrigin.listen(inner, { answer: () => {} });
      const proxy = await startHost(inner, { origin: origin.url });
      const client = await proxy.client();
      client.send(request);
      const seen = await origin.request(1);
      client.socket.destroy();
      await closed(seen.socket);
      inner.pass('the origin connection is closed');
    });
  }

  await test.test('idle', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, { answer: (_request, socket) => socket.write(accept) });
    const proxy = await startHost(inner, { origin: origin.url, timeouts: { idleMs: 200 } });
    const client = await proxy.client();
    client.send(handshake);
    await client.until('\r\n\r\n');
    await within(client.closed, 'the end of the client connection');
    await closed((await origin.request(1)).socket);
  });

  await test.test('to h2c is answered without it', async (inner) => {
    const origin = await RecordingOrigin.listen(inner);
    const proxy = await startHost(inner, { origin: origin.url });
    const client = await proxy.client();
    client.send(
      'GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n' +
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    );
    inner.match(await client.response(), { status: 200, body: 'ok', complete: true });
    await within(client.closed, 'the end of the client connection');
    const seen = await origin.whole(1);
    inner.notMatch(seen.head, /upgrade|http2/i);
    inner.equal(origin.requests.length, 1);
    inner.strictSame(tunnels(proxy.observations), []);
  });

  await test.test('by a forward proxy', async (inner) => {
    const origin = await RecordingOrigin.listen(inner, {
      answer: (_request, socket) => {
        socket.removeAllListeners('data');
        socket.write(accept);
        socket.pipe(socket);
      },
    });
    const proxy = await startHost(inner);
    const client = await proxy.client();
    client.send(handshake.replace('GET /ws', `GET http://127.0.0.1:${origin.port}/ws`));
    await client.until('\r\n\r\n');
    client.send('frame');
    inner.match(await client.until('frame'), /^HTTP\/1\.1 101 /);
  });
});

await t.test('Forwarded', async (test) => {
  const incoming =
    'Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n' +
    'X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: evil\r\nX-Real-IP: 9.9.9.9\r\n';
  const seenFrom = async (options: Parameters<typeof startHost>[1], fields = incoming): Promise<string[]> => {
    const origin = await RecordingOrigin.listen(test);
    const proxy = await startHost(test, { origin: origin.url, ...options });
    const client = await proxy.client();
    await client.send(`GET /x HTTP/1.1\r\nHost: Shop.test:81\r\n${fields}\r\n`).response();
    const { fields: seen } = await origin.whole(1);
    return seen.flatMap(([name, value]) => (/forwarded|real-ip/i.test(name) ? [`${name}: ${value}`] : [])).toSorted();
  };
  test.strictSame(await seenFrom({}), [], 'of an unknown peer: dropped');
  test.strictSame(await seenFrom({ trustedPeers: ['10.0.0.0/8'] }), [], 'of another peer: dropped');
  const written = [
    'forwarded: for=127.0.0.1;host="shop.test:81";proto=http',
    'x-forwarded-for: 127.0.0.1',
    'x-forwarded-host: shop.test:81',
    'x-forwarded-proto: http',
  ];
  test.strictSame(await seenFrom({ forwarded: true }), written, 'written instead of what an unknown peer says');
  test.strictSame(await seenFrom({ forwarded: true }, ''), written);
  test.strictSame(await seenFrom({ forwarded: true }, 'Connection: Forwarded, X-Forwarded-For\r\n'), written);
  test.strictSame(
    await seenFrom({ trustedPeers: ['127.0.0.0/8'] }),
    [
      'forwarded: for=9.9.9.9',
      'x-forwarded-for: 9.9.9.9',
      'x-forwarded-host: evil',
      'x-forwarded-port: 1',
      'x-forwarded-prefix: /evil',
      'x-forwarded-proto: https',
      'x-forwarded-server: evil',
      'x-real-ip: 9.9.9.9',
    ],
    'of a trusted peer: kept',
  );
  test.match(
    await seenFrom({ forwarded: true, trustedPeers: ['127.0.0.1'] }),
    [
      /^forwarded: for=9\.9\.9\.9, for=127\.0\.0\.1;/,
      'x-forwarded-for: 9.9.9.9, 127.0.0.1',
      'x-forwarded-host: evil',
      'x-forwarded-port: 1',
    ],
    'of a trusted peer: added to',
  );
  const six = await RecordingOrigin.listen(test);
  const proxy = await startHost(test, { origin: six.url, forwarded: true }, '::1');
  const client = await proxy.client('::1');
  await client.send('GET /x HTTP/1.1\r\nHost: a\r\n\r\n').response();
  const { fields } = await six.whole(1);
  test.match(values(fields, 'forwarded'), [/^for="\[::1\]";/]);
  test.strictSame(values(fields, 'x-forwarded-for'), ['::1']);
});

await t.test('anything at all', async (test) => {
  const origin = await RecordingOrigin.listen(test);
  const proxy = await startHost(test, { connectPorts: [origin.port] });
  const works = async (name: string): Promise<void> => {
    const client = await proxy.client();
    const { status } = await client.send(absolute(origin.port)).response();
    if (status !== 200) test.fail(`${name}: ${status}`);
    client.socket.destroy();
  };
  const rejections: unknown[] = [];
  const note = (error: unknown): void => void rejections.push(error);
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  test.teardown(() => {
    process.off('unhandledRejection', note);
    process.off('uncaughtException', note);
  });

  const next = words(77);
  const valid = [
    absolute(origin.port, '/x', 'Connection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n'),
    `POST http://127.0.0.1:${origin.port}/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
    `${connectTo(`127.0.0.1:${origin.port}`)}bytes`,
    absolute(origin.port, '/x', 'Range: bytes=0-1\r\nAccept-Encoding: gzip\r\nVia: 1.1 a\r\n'),
  ];
  for (let round = 0; round < 150; round += 1) {
    const client = await proxy.client();
    const kind = round % 3;
    if (kind === 0) client.send(seededBytes(round + 1, 1 + pick(next, 2_000)));
    else {
      const bytes = Buffer.from(valid[pick(next, valid.length)] as string, 'latin1');
      const mutations = kind === 1 ? 1 + pick(next, 8) : 0;
      for (let count = 0; count < mutations; count += 1) bytes[pick(next, bytes.byteLength)] = pick(next, 256);
      client.send(kind === 1 ? bytes : bytes.subarray(0, pick(next, bytes.byteLength)));
    }
    // Some leave by the door, some through the window.
    if (round % 2 === 0) client.socket.end();
    else client.socket.resetAndDestroy();
    if (round % 25 === 24) await works(`after ${round + 1}`);
  }
  await works('at the end');
  test.strictSame(rejections, [], 'nothing went uncaught');

  const huge = await proxy.client();
  huge.send(absolute(origin.port, '/x', `X-Huge: ${'a'.repeat(100_000)}\r\n`));
  test.equal((await huge.response()).status, 431);
  const long = await proxy.client();
  long.send(absolute(origin.port, `/${'a'.repeat(100_000)}`));
  test.match(String((await long.response()).status), /^4(?:14|31)$/);
  const many = await proxy.client();
  many.send(absolute(origin.port, '/x', 'X-Many: 0123456789\r\n'.repeat(5_000)));
  test.equal((await many.response()).status, 431);
  await works('after huge heads');
});

await t.test('destinations nobody can connect to', async (test) => {
  const proxy = await startHost(test, { connectPorts: [0, 443, 65_535] });
  for (const [url, expected] of [
    ['http://name.invalid/', 502],
    ['http://127.0.0.1:99999/', 400],
    ['http://127.0.0.1:65536/', 400],
    ['http://[::1%25lo]/', 400],
    ['http://[1:2:3]/', 400],
  ] as const) {
    const client = await proxy.client();
    const response = await client.send(`GET ${url} HTTP/1.1\r\nHost: a\r\n\r\n`).response();
    test.match(response, { status: expected, complete: true, body: /^peerdist: / }, url);
  }
  const after = await RawClient.connect(test, proxy.port);
  test.equal((await after.send('GET / HTTP/1.1\r\nHost: a\r\n\r\n').response()).status, 400);
});
