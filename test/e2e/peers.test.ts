/** The command among neighbours, on a LAN that is the loopback interface: two branch proxies, `probe` and `get`. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ask, Origin, peerdist, Role, same } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const BODY = Buffer.from(seededBytes(77, 5_000_000).buffer);
const FRESH = { 'cache-control': 'max-age=600' };
const directory = t.testdir();
const path = (name: string): string => join(directory, name);

/** A UDP port that nobody uses. */
async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  return port;
}

/** Options that keep discovery on the loopback interface; undefined where it cannot multicast. */
async function loopbackLan(): Promise<readonly string[] | undefined> {
  const [socket, port] = [createSocket({ type: 'udp4', reuseAddr: true }), await freeUdpPort()];
  socket.bind(port);
  await once(socket, 'listening');
  try {
    socket.addMembership('239.255.255.250', '127.0.0.1');
    socket.setMulticastInterface('127.0.0.1');
    socket.send('hello', port, '239.255.255.250');
    await Promise.race([
      once(socket, 'message'),
      once(AbortSignal.timeout(5_000), 'abort').then(() => Promise.reject(new Error('nothing came'))),
    ]);
    return ['--discovery-interface', 'lo', '--discovery-port', String(await freeUdpPort())];
  } catch {
    return undefined;
  } finally {
    socket.close();
  }
}

const lan = await loopbackLan();
const options = lan === undefined ? { skip: 'the loopback interface cannot multicast here' } : {};
const discovery = lan ?? [];

interface Site {
  readonly reverse: Role;
  readonly origin: Origin;
  readonly url: string;
}

async function headOffice(test: Test): Promise<Site> {
  const origin = await Origin.start(test, { '/f': { body: BODY, etag: '"f"', headers: FRESH } });
  const reverse = await Role.start(test, ['reverse', '--origin', origin.url, '--no-admin', '--secret-hex', '0a']);
  return { reverse, origin, url: `${reverse.url}/f` };
}

const startBranch = (test: Test, ...more: readonly string[]): Promise<Role> =>
  Role.start(test, ['branch', '--peer-listen', '127.0.0.1:0', ...more]);

/** Has a branch download the body and waits until it could give blocks of it away. */
async function fill(branch: Role, { url }: Site): Promise<void> {
  if (!same((await ask(branch.port, url)).body, BODY)) throw new Error('wrong bytes');
  const stored = async (): Promise<number> => (await branch.metric('peerdist_store_bytes{store="block"}')) ?? 0;
  // The hashes are asked for behind the client's back.
  while ((await stored()) < BODY.byteLength);
}

for (const workers of ['1', '2'])
  await t.test(
    `the second branch gets everything from the first, which it finds by itself; workers: ${workers}`,
    options,
    async (test) => {
      const site = await headOffice(test);
      const start = (): Promise<Role> => startBranch(test, ...discovery, '--workers', workers);
      const [first, second] = [await start(), await start()];
      test.match(first.program.lines[2], /^listening on http:\/\/127\.0\.0\.1:\d+ \(peers\)$/);
      await fill(first, site);
      for (const range of [undefined, 'bytes=1000000-1999999', 'bytes=-70000']) {
        const { status, body } = await ask(second.port, site.url, range === undefined ? {} : { fields: { range } });
        const wanted =
          range === undefined ? BODY : range.startsWith('bytes=-') ? BODY.subarray(-70_000) : BODY.subarray(1e6, 2e6);
        test.ok(same(body, wanted), `${status} ${range}`);
      }
      // On a machine that has better things to do a block may be overdue.
      const fromPeers = (await second.metric('peerdist_delivered_bytes_total{source="peer"}')) ?? 0;
      test.ok(fromPeers >= 0.9 * BODY.byteLength, `${fromPeers} bytes from peers`);
      test.ok((await second.wanBodyBytes()) <= 0.1 * BODY.byteLength, 'hardly anything but hashes crossed the WAN');
      test.equal(await second.metric('peerdist_block_verifications_total{source="peer",result="mismatch"}'), 0);
      test.ok(((await second.metric('peerdist_discovery_messages_total{message="match_received"}')) ?? 0) >= 1);
      test.ok(((await first.metric('peerdist_uploaded_bytes_total')) ?? 0) >= fromPeers);
      test.ok(((await first.metric('peerdist_discovery_messages_total{message="match_sent"}')) ?? 0) >= 1);
    },
  );

for (const workers of ['1', '2'])
  await t.test(
    `branches of one site find each other, for what no head office describes; workers: ${workers}`,
    options,
    async (test) => {
      const files = Array.from({ length: 12 }, (_, index) => `/${index}`);
      const body = BODY.subarray(0, 300_000);
      const origin = await Origin.start(
        test,
        Object.fromEntries(files.map((file) => [file, { body, etag: `"${file}"`, headers: FRESH }])),
      );
      const states = test.testdir({ a: {}, b: {} });
      const start = (name: string): Promise<Role> => {
        const state = join(states, name);
        writeFileSync(join(state, 'server-secret'), `${'5a'.repeat(32)}\n`, { mode: 0o600 });
        return startBranch(test, ...discovery, '--workers', workers, '--state-dir', state);
      };
      const first = await start('a');
      for (const file of files)
        for (let status = ''; !status.endsWith(' hit');)
          status = String((await ask(first.port, `${origin.url}${file}`)).headers['cache-status']);
      const second = await start('b');
      // It looks around as it starts; a question that comes too early is not asked.
      let asked = 0;
      for (const file of files) {
        const before = origin.requests.length;
        test.ok(same((await ask(second.port, `${origin.url}${file}`)).body, body), file);
        asked = (await second.metric('peerdist_sibling_questions_total{result="found"}')) ?? 0;
        if (asked === 0) continue;
        test.equal(origin.requests[before]?.status, 304);
        break;
      }
      test.equal(asked, 1, 'the sibling was found and asked');
    },
  );

await t.test('a peer known by configuration needs no discovery', async (test) => {
  const site = await headOffice(test);
  const first = await startBranch(test, '--no-discovery', '--peer-cipher', 'aes-256');
  await fill(first, site);
  const second = await startBranch(test, '--no-discovery', '--peer', `127.0.0.1:${first.peerPort}`);
  test.ok(same((await ask(second.port, site.url)).body, BODY));
  test.ok((await second.wanBodyBytes()) <= 0.1 * BODY.byteLength);
  test.equal(await second.metric('peerdist_discovery_messages_total{message="probe_sent"}'), 0);
});

await t.test('probe tells who has a content, by file and by URL', options, async (test) => {
  const site = await headOffice(test);
  const nobody = await peerdist(test, ['probe', site.url, ...discovery]);
  test.equal(nobody.code, 2, 'an origin that has hashed nothing yet');
  test.match(nobody.stderr, /^peerdist: no content information from .*not hashed this content yet/);
  const branch = await startBranch(test, ...discovery);
  await fill(branch, site);
  writeFileSync(path('body'), BODY);
  await peerdist(test, ['hash', path('body'), '--secret-hex', '0a', '-o', path('body.v2')]);
  await peerdist(test, ['hash', path('body'), '--secret-hex', '0b', '-o', path('other.v1'), '--content-info', '1']);
  for (const from of [site.url, path('body.v2')]) {
    const { code, stdout } = await peerdist(test, ['probe', from, ...discovery]);
    test.equal(code, 0);
    test.match(stdout, new RegExp(`127\\.0\\.0\\.1:${branch.peerPort} +│ +(\\d+) of \\1 +│ +\\1 `), from);
  }
  const json = JSON.parse((await peerdist(test, ['probe', path('body.v2'), '--json', ...discovery])).stdout) as {
    segments: number;
    peers: unknown;
  };
  test.same(json.peers, [{ peer: `127.0.0.1:${branch.peerPort}`, some: json.segments, all: json.segments }]);
  const other = await peerdist(test, ['probe', path('other.v1'), ...discovery]);
  test.same([other.code, other.stdout.trim()], [1, 'Nobody on the LAN says that it has any of 1 segments.']);
});

await t.test('get downloads through peers and says where the bytes came from', async (test) => {
  const site = await headOffice(test);
  const first = await startBranch(test, '--no-discovery');
  await fill(first, site);
  const peer = ['--no-discovery', '--peer', `127.0.0.1:${first.peerPort}`];
  const near = await peerdist(test, ['get', site.url, '-o', path('near'), ...peer]);
  test.equal(near.code, 0, near.stderr);
  test.match(near.stdout, /^4\.8 MiB in [\d.]+ s: 4\.\d MiB from peers, \d.* from the origin$/m);
  test.ok(same(readFileSync(path('near')), BODY));
  test.equal(near.stderr, '', 'no bar where there is no terminal');
  const far = await peerdist(test, ['get', site.url, '-o', path('far'), '--no-discovery']);
  test.match(far.stdout, /^4\.8 MiB in [\d.]+ s: 0 B from peers, 4\.8 MiB from the origin$/m);
  test.ok(same(readFileSync(path('far')), BODY));
  const absent = await peerdist(test, ['get', `${site.reverse.url}/absent`, '-o', path('absent'), '--no-discovery']);
  test.equal(absent.code, 1);
  test.match(absent.stderr, /absent: the server answered 404/);
  test.throws(() => readFileSync(path('absent')), { code: 'ENOENT' });
  test.throws(() => readFileSync(path('absent.part')), { code: 'ENOENT' }, 'nothing is left behind');
});

await t.test(
  'whoever wants a tunnel of the peer or admin port gets a closed connection, and hurts nobody',
  async (test) => {
    const branch = await startBranch(test, '--no-discovery');
    for (const port of [branch.peerPort as number, branch.adminPort as number]) {
      for (const head of [
        'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n',
        'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
      ]) {
        const patient = connect(port, '127.0.0.1');
        patient.write(head);
        patient.resume();
        await once(patient, 'close');
        const rude = connect(port, '127.0.0.1');
        await once(rude, 'connect');
        rude.write(head, () => rude.resetAndDestroy());
        await once(rude, 'close');
      }
      test.ok((await ask(port, '/nowhere')).status >= 400, 'it still answers');
    }
  },
);

await t.test('what is wrong with the neighbours: one clear line and exit 2', async (test) => {
  const listen = ['--listen', '127.0.0.1:0', '--no-admin', '--peer-listen', '127.0.0.1:0'];
  const cases: readonly [args: readonly string[], clue: RegExp][] = [
    [['branch', ...listen, '--peer', 'somewhere:else'], /not a peer like/],
    [['branch', ...listen, '--peer', '10.0.0.7:99999'], /not a peer like/],
    [['branch', ...listen, '--discovery-interface', 'nope0'], /no network interface nope0; it has .*lo/],
    [['branch', ...listen, '--no-discovery', '--allow-peer', '10.0.0.0/33'], /not a network or address/],
    [['branch', ...listen, '--no-discovery', '--peer-cipher', 'rot13'], /rot13/],
    [['branch', ...listen, '--no-discovery', '--max-uploads', '0'], /--max-uploads/],
    [['get', 'ftp://127.0.0.1/', '-o', path('x')], /not an http or https URL/],
    [['get', 'http://127.0.0.1/'], /--output/],
    [['probe', path('nowhere')], /no content information from .*ENOENT/],
    [['probe', process.execPath], /no content information from /],
  ];
  for (const [args, clue] of cases) {
    const { code, stderr } = await peerdist(test, args);
    test.equal(code, 2, args.join(' '));
    test.match(stderr, clue);
    test.equal(stderr.trim().split('\n').length, 1, stderr);
  }
});
