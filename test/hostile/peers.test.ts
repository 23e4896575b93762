/**
 * Never stall, never spoil: whatever the neighbours of a branch do, its clients get the content, and in good time. Both proxies are real, the
 * neighbours misbehave at every layer, and the origin counts what is asked of it.
 */
import t, { type Test } from 'tap';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { type Behaviour, peerContent, type ScriptedPeer, startPeer } from '../support/peers.ts';
import {
  type Answer,
  ask,
  begin,
  type BranchOptions,
  Gate,
  inTime,
  Origin,
  type OriginFile,
  type OriginHandler,
  type Proxy,
  readAtLeast,
  same,
  sendFile,
  startBranch,
  startReverse,
  until,
  V1_REQUEST,
  V2_REQUEST,
} from '../support/proxies.ts';
import { pick, seededBytes, words } from '../support/random.ts';

const BLOCK = 65_536;
const SIZE = 40 * BLOCK + 1_234;
const FILE = seededBytes(71, SIZE);
const CONTENT = { 1: peerContent(1, FILE), 2: peerContent(2, FILE) } as const;
const RANGE = { first: 300_001, last: 1_200_000 };
/** Milliseconds after which a download of two megabytes over the loopback counts as stalled, on a machine with other things to do. */
const STALLED_MS = 30_000;

const file = (more: Partial<OriginFile> = {}): OriginFile => ({
  body: FILE,
  etag: '"f"',
  headers: { 'cache-control': 'max-age=3600' },
  ...more,
});

/** Head office; everything it has is published in both versions. */
async function headOffice(t: Pick<Test, 'teardown'>, files: Readonly<Record<string, OriginFile>>): Promise<HeadOffice> {
  const origin = await Origin.start(t, files);
  const reverse = await startReverse(t, origin);
  for (const path of Object.keys(files)) {
    await ask(reverse.port, path, { fields: V2_REQUEST });
    await until(
      () => reverse.observations.count('publication', { result: 'completed' }) > Object.keys(files).indexOf(path),
      `${path} is published`,
    );
    await ask(reverse.port, path, { fields: V1_REQUEST });
  }
  return { origin, reverse };
}

interface HeadOffice {
  readonly origin: Origin;
  readonly reverse: Proxy;
}

const office = await headOffice(t, { '/f': file() });

/**
 * A new branch among these neighbours. With a clock that stands still, the deadlines behind which the origin is asked never pass: a busy machine
 * must not make an honest peer look late where the origin is to give nothing. The peers' own timers run all the same.
 */
function branchAmong(
  test: Test,
  version: 1 | 2,
  peers: readonly Pick<ScriptedPeer, 'address'>[],
  { reverse }: HeadOffice = office,
  options: BranchOptions = {},
): Promise<Proxy> {
  return startBranch(test, {
    origin: reverse,
    maxContentInformationVersion: version,
    neighbourhood: { listen: undefined, peers: peers.map(({ address }) => address), discovery: undefined },
    ...options,
  });
}

function isTrue(
  test: Test,
  answer: Answer,
  what: string,
  range?: { readonly first: number; readonly last: number },
): void {
  const expected = range === undefined ? FILE : FILE.subarray(range.first, range.last + 1);
  test.same(
    [answer.status, answer.complete, answer.body.byteLength, same(answer.body, expected)],
    [range === undefined ? 200 : 206, true, expected.byteLength, true],
    what,
  );
}

const rangeField = ({ first, last }: typeof RANGE): { readonly Range: string } => ({ Range: `bytes=${first}-${last}` });

/** A part, the whole, the part again: from neighbours and origin, and from the store. */
async function download({ port }: Proxy, test: Test, what: string): Promise<void> {
  const options = { patienceMs: STALLED_MS };
  isTrue(test, await ask(port, '/f', { ...options, fields: rangeField(RANGE) }), `${what}: a part`, RANGE);
  isTrue(test, await ask(port, '/f', options), `${what}: the whole`);
  isTrue(test, await ask(port, '/f', { ...options, fields: rangeField(RANGE) }), `${what}: from the store`, RANGE);
}

const peerBytes = ({ observations }: Proxy): number => observations.bytes('delivered', { source: 'peer' });
const missingBytes = ({ observations }: Proxy): number => observations.bytes('wan', { kind: 'missing_data' });

/**
 * The same by a new branch that has no reason to ask the origin. On a machine that is very busy a peer's list of blocks may come too late to
 * be waited for; then another branch tries.
 */
async function downloadFromPeers(
  test: Test,
  version: 1 | 2,
  peers: readonly ScriptedPeer[],
  what: string,
): Promise<Proxy> {
  for (let attempt = 1; ; attempt += 1) {
    const branch = await branchAmong(test, version, peers, office, { clock: new ManualClock() });
    await download(branch, test, what);
    if (missingBytes(branch) === 0 || attempt === 4) return branch;
  }
}

// --- One hostile peer, alone or beside an honest one -----------------------------------------------------------------------------------

/** How a question to such a peer ends; a question that never ends is a timeout, or the end of somebody's patience. */
const MATRIX = {
  refuse: 'failed',
  hang: 'timeout',
  stall: 'timeout',
  drip: 'timeout',
  'wrong index': 'lied',
  'wrong hash': 'lied',
  short: 'lied',
  endless: 'lied',
  'endless head': 'failed',
  'endless interim answers': 'failed',
  'endless blank lines': 'timeout',
  'announces too much': 'lied',
  'wrong segment': 'lied',
  'bad IV': 'lied',
  'another IV': 'lied',
  'wrong plaintext': 'lied',
  disconnect: 'failed',
  reset: 'failed',
  '500': 'failed',
  redirect: 'failed',
  garbage: 'failed',
  'garbage in a body': 'lied',
  'switches protocols': 'failed',
  negotiates: 'failed',
  empty: 'absent',
} as const satisfies Partial<Record<Behaviour, string>>;

for (const version of [1, 2] as const) {
  await t.test(`version ${version}: a hostile peer, and nobody else to ask`, async (test) => {
    for (const [behaviour, result] of Object.entries(MATRIX) as [keyof typeof MATRIX, string][]) {
      const peer = await startPeer(test, CONTENT[version], behaviour);
      const branch = await branchAmong(test, version, [peer]);
      const { observations } = branch;
      await download(branch, test, behaviour);
      test.equal(peerBytes(branch), 0, `${behaviour}: nothing of it is believed`);
      // The timer of a question that nobody waits for any more runs on.
      await until(() => observations.count('peer_request', { result }) > 0, `${behaviour} is counted as ${result}`);
      const mismatches = observations.count('verification', { source: 'peer', result: 'mismatch' });
      if (result === 'lied') {
        test.equal(observations.count('peer_banned'), 1, `${behaviour}: it is banned`);
        test.equal(mismatches, observations.count('peer_request', { result }), 'each lie is a mismatch');
      } else test.equal(mismatches, 0, `${behaviour}: no lie`);
      // Four questions at first, which count as one failure, then one at a time until it is left alone.
      const failures = observations.count('peer_request', { result: 'failed' });
      const bans = observations.count('peer_banned');
      if (result === 'failed') test.ok(failures <= 6 * (bans + 1), `${behaviour}: ${failures} questions, ${bans} bans`);
      test.ok(missingBytes(branch) >= SIZE && missingBytes(branch) < 2 * SIZE, `${behaviour}: the origin gives it all`);
      test.same([observations.failures, peer.errors], [[], []], `${behaviour}: nothing failed`);
      if (result !== 'timeout') test.ok(peer.poured < 32 * 1024 * 1024, `${behaviour}: ${peer.poured} bytes poured`);
      await peer.kill();
    }
  });

  await t.test(`version ${version}: a hostile peer beside an honest one`, async (test) => {
    for (const behaviour of Object.keys(MATRIX) as (keyof typeof MATRIX)[]) {
      for (const hostileFirst of [true, false]) {
        const hostile = await startPeer(test, CONTENT[version], behaviour);
        const honest = await startPeer(test, CONTENT[version], 'honest');
        const peers = hostileFirst ? [hostile, honest] : [honest, hostile];
        const branch = await downloadFromPeers(test, version, peers, behaviour);
        test.same(
          [missingBytes(branch), branch.observations.bytes('delivered', { source: 'origin' })],
          [0, 0],
          `${behaviour}: the origin is asked for nothing`,
        );
        test.ok(peerBytes(branch) > SIZE / 2, `${behaviour}: the honest one gives it all`);
        test.same([branch.observations.failures, hostile.errors, honest.errors], [[], [], []]);
        await hostile.kill();
      }
    }
  });

  await t.test(`version ${version}: unusual, but true, is taken`, async (test) => {
    for (const behaviour of ['plaintext', 'whole key', 'odd padding', 'one answer a connection'] as const) {
      const peer = await startPeer(test, CONTENT[version], behaviour);
      const branch = await downloadFromPeers(test, version, [peer], behaviour);
      test.same(
        [
          missingBytes(branch),
          branch.observations.count('peer_banned'),
          branch.observations.count('peer_request', { result: 'lied' }),
        ],
        [0, 0, 0],
        behaviour,
      );
    }
  });
}

// --- Many ------------------------------------------------------------------------------------------------------------------------------

await t.test('all of them at once, and many clients', async (test) => {
  for (const version of [1, 2] as const) {
    const hostile = await Promise.all(
      (Object.keys(MATRIX) as (keyof typeof MATRIX)[]).map((behaviour) => startPeer(test, CONTENT[version], behaviour)),
    );
    const honest = await startPeer(test, CONTENT[version], 'honest');
    const branch = await branchAmong(test, version, [...hostile, honest]);
    const next = words(72 + version);
    const answers = Array.from({ length: 24 }, async (_, client) => {
      if (client % 4 === 0) return isTrue(test, await ask(branch.port, '/f', { patienceMs: STALLED_MS }), 'a whole');
      const first = pick(next, SIZE - 1);
      const range = { first, last: first + pick(next, SIZE - first) };
      const answer = await ask(branch.port, '/f', { fields: rangeField(range), patienceMs: STALLED_MS });
      return isTrue(test, answer, `${first}-${range.last}`, range);
    });
    await Promise.all(answers);
    test.same(branch.observations.failures, []);
    for (const peer of hostile) await peer.kill();
  }
});

await t.test('peers that are honest one time and hostile the next', async (test) => {
  const listening = (Object.keys(MATRIX) as Behaviour[]).filter((each) => each !== 'refuse');
  const behaviours: Behaviour[] = ['honest', 'honest', 'honest', ...listening];
  for (const [round, version] of ([1, 2, 1, 2] as const).entries()) {
    const next = words(80 + round);
    const any = (): Behaviour => behaviours[pick(next, behaviours.length)] as Behaviour;
    const peers = await Promise.all(Array.from({ length: 5 }, () => startPeer(test, CONTENT[version], any)));
    const branch = await branchAmong(test, version, peers);
    await download(branch, test, `round ${round}`);
    test.same([branch.observations.failures, peers.flatMap(({ errors }) => errors)], [[], []]);
    for (const peer of peers) await peer.kill();
  }
});

// --- In the middle ---------------------------------------------------------------------------------------------------------------------

await t.test('an honest peer that dies in the middle of a download costs no byte and no restart', async (test) => {
  for (const version of [1, 2] as const) {
    for (const survivors of [0, 1]) {
      const dying = await startPeer(test, CONTENT[version], () => {
        if (dying.blocks.length < 12) return 'honest';
        void dying.kill();
        return 'reset';
      });
      const others = await Promise.all(
        Array.from({ length: survivors }, () => startPeer(test, CONTENT[version], 'honest')),
      );
      const clock = survivors === 0 ? {} : { clock: new ManualClock() };
      const branch = await branchAmong(test, version, [dying, ...others], office, clock);
      const before = office.origin.requests.length;
      const answer = await ask(branch.port, '/f', { patienceMs: STALLED_MS });
      const what = `version ${version}, ${survivors} survive`;
      isTrue(test, answer, what);
      test.ok(dying.blocks.length >= 12, 'it was in the middle');
      test.equal(branch.observations.bytes('wan', { kind: 'plain' }), 0, `${what}: the plain body is not asked for`);
      // The origin's range runs through a block that the peer had just been asked for.
      const surplus = peerBytes(branch) + missingBytes(branch) - SIZE;
      test.ok(surplus >= 0 && surplus <= 8 * 131_072, `${what}: ${surplus} bytes come twice`);
      if (survivors > 0) test.ok(missingBytes(branch) < SIZE / 2, `${what}: the other one gives the rest`);
      else {
        test.ok(peerBytes(branch) > 0 && missingBytes(branch) > 0, `${what}: the origin gives the rest`);
        const asked = office.origin.requests.slice(before).filter(({ sent }) => sent > 0);
        test.ok(
          asked.every(({ headers }) => headers['range'] !== undefined),
          `${what}: by ranges`,
        );
      }
      test.same(branch.observations.failures, []);
    }
  }
});

await t.test('a client that leaves takes the questions to the neighbours with it', async (test) => {
  for (const behaviour of ['hang', 'stall', 'drip', 'hold'] as const) {
    const peer = await startPeer(test, CONTENT[2], behaviour);
    // On this clock the origin is never asked, so that the client waits for the peer.
    const branch = await branchAmong(test, 2, [peer], office, { clock: new ManualClock() });
    const client = await begin(branch.port, '/f');
    await until(() => peer.asked === 4, `${behaviour}: the peer is asked`);
    client.leave();
    await until(() => peer.sockets.size === 0, `${behaviour}: nothing is waited for any more`);
    test.same(
      [branch.observations.count('peer_request', { result: 'cancelled' }), branch.observations.count('peer_banned')],
      [4, 0],
      `${behaviour}: and nobody is blamed`,
    );
    test.equal(peer.asked, 4);
  }
});

await t.test('a client that does not read has a window asked for and no more', async (test) => {
  const large = seededBytes(73, 20 * 1024 * 1024);
  const far = await headOffice(test, { '/large': { ...file(), body: large } });
  for (const version of [1, 2] as const) {
    const content = peerContent(version, large);
    const peer = await startPeer(test, content, 'honest');
    const branch = await branchAmong(test, version, [peer], far, { clock: new ManualClock() });
    const client = await begin(branch.port, '/large');
    const head = await inTime(client.head(), 'the head');
    let asked = -1;
    await until(() => {
      const isStill = asked > 0 && asked === peer.blocks.length && peer.inFlight === 0;
      asked = peer.blocks.length;
      return isStill;
    }, 'it is still');
    const askedBytes = peer.blocks.reduce((sum, ordinal) => sum + content.content.block(ordinal).length, 0);
    // The window, what lies in the stream, and what the sockets between the two ends swallow.
    test.ok(askedBytes < 14 * 1024 * 1024, `version ${version}: ${askedBytes} bytes asked for`);
    test.ok(askedBytes > 3 * 1024 * 1024, `version ${version}: enough to keep going`);
    const body = client.body(head);
    const pieces: Buffer[] = [];
    for await (const piece of body) pieces.push(piece);
    test.ok(client.complete && same(Buffer.concat(pieces), large), 'and when it does read, it gets everything');
    client.close();
  }
});

// --- From branch to branch -------------------------------------------------------------------------------------------------------------

await t.test('what arrives in one branch can be had by another at once', async (test) => {
  for (const version of [1, 2] as const) {
    const gate = new Gate();
    const far = await headOffice(test, { '/f': file() });
    far.origin.resources.set('/f', file({ firstBytes: 20 * BLOCK, afterFirst: gate.passed }));
    const one = await startBranch(test, {
      origin: far.reverse,
      maxContentInformationVersion: version,
      neighbourhood: { listen: { host: '127.0.0.1', port: 0 }, peers: [], discovery: undefined },
    });
    const other = await branchAmong(test, version, [{ address: { address: '127.0.0.1', port: one.peerPort } }], far, {
      clock: new ManualClock(),
    });
    const client = await begin(one.port, '/f');
    const head = await inTime(client.head(), 'the head');
    const body = client.body(head);
    const start = await readAtLeast(body, 16 * BLOCK);
    const range = { first: 0, last: 12 * BLOCK };
    isTrue(
      test,
      await ask(other.port, '/f', { fields: rangeField(range), patienceMs: STALLED_MS }),
      `version ${version}: a part that the other branch has just got`,
      range,
    );
    test.equal(missingBytes(other), 0, 'without a byte from the origin');
    test.equal(peerBytes(other), range.last + 1);
    test.ok(one.observations.count('upload', { result: 'block' }) > 0);
    gate.open();
    const rest = await readAtLeast(body, SIZE);
    test.ok(same(Buffer.concat([start, rest]), FILE), 'whose own client gets the rest when it comes');
    client.close();
    isTrue(test, await ask(other.port, '/f', { patienceMs: STALLED_MS }), 'and the other branch all of it');
    // In version 1 a list of what there was is believed for two seconds.
    test.ok(missingBytes(other) <= (version === 1 ? SIZE - 20 * BLOCK : 0), `${missingBytes(other)} from the origin`);
    test.equal(missingBytes(one), SIZE);
    test.same([one.observations.failures, other.observations.failures], [[], []]);
  }
});

await t.test('two branches that have each other as a peer, and neither has anything', async (test) => {
  for (const version of [1, 2] as const) {
    const one = await startBranch(test, {
      origin: office.reverse,
      maxContentInformationVersion: version,
      neighbourhood: { listen: { host: '127.0.0.1', port: 0 }, peers: [], discovery: undefined },
      clock: new ManualClock(),
    });
    const other = await branchAmong(
      test,
      version,
      [{ address: { address: '127.0.0.1', port: one.peerPort } }],
      office,
      {
        neighbourhood: {
          listen: { host: '127.0.0.1', port: 0 },
          peers: [{ address: '127.0.0.1', port: one.peerPort }],
          discovery: undefined,
        },
      },
    );
    const third = await branchAmong(
      test,
      version,
      [
        { address: { address: '127.0.0.1', port: one.peerPort } },
        { address: { address: '127.0.0.1', port: other.peerPort } },
      ],
      office,
      { clock: new ManualClock() },
    );
    const answers = await Promise.all(
      [one, other, third].map(({ port }) => ask(port, '/f', { patienceMs: STALLED_MS })),
    );
    for (const answer of answers) isTrue(test, answer, `version ${version}: nobody waits for the other`);
    test.same(
      [one, other, third].map(({ observations }) => observations.count('peer_banned')),
      [0, 0, 0],
      'having nothing is no crime',
    );
  }
});

// --- What must not be shared -------------------------------------------------------------------------------------------------------------

/** A content server of another make, which describes content that must not be stored. */
function describing(version: 1 | 2): OriginHandler {
  const information = encodeContentInformation(CONTENT[version].content.information);
  return (request, response, record) => {
    const asked = String(request.headers['x-p2p-peerdist']);
    if (!asked.includes('Version=') || asked.includes('MissingDataRequest=true'))
      return sendFile(file({ headers: { 'cache-control': 'no-store' } }), request, response, record);
    response.writeHead(200, {
      etag: '"f"',
      'cache-control': 'no-store',
      'content-encoding': 'peerdist',
      'x-p2p-peerdist': `Version=1.1, ContentLength=${SIZE}`,
      'content-length': information.byteLength,
    });
    response.end(information);
    return undefined;
  };
}

await t.test('what must not be stored is neither asked of nor given to peers', async (test) => {
  for (const version of [1, 2] as const) {
    const origin = await Origin.start(test, { '/f': describing(version) });
    const peer = await startPeer(test, CONTENT[version], 'honest');
    const neighbourhood = {
      listen: { host: '127.0.0.1', port: 0 },
      peers: [peer.address],
      discovery: undefined,
    };
    const branch = await startBranch(test, { origin, maxContentInformationVersion: version, neighbourhood });
    isTrue(test, await ask(branch.port, '/f'), `version ${version}: the whole`);
    isTrue(test, await ask(branch.port, '/f', { fields: rangeField(RANGE) }), `version ${version}: a part`, RANGE);
    test.ok(missingBytes(branch) >= SIZE, 'it came as missing data');
    test.same([peer.connections, peer.asked], [0, 0], `version ${version}: no neighbour hears of it`);
    test.equal(branch.blockStore.bytes, 0, `version ${version}: nothing is there to be given away`);

    const careful = await startBranch(test, {
      origin: office.reverse,
      maxContentInformationVersion: version,
      neighbourhood,
    });
    const told = await ask(careful.port, '/f', { fields: { 'Cache-Control': 'no-store' } });
    isTrue(test, told, `version ${version}: the client says so`);
    test.same([peer.connections, peer.asked, careful.blockStore.bytes], [0, 0, 0], 'which counts as well');

    const neighbour = await branchAmong(
      test,
      version,
      [branch, careful].map(({ peerPort: port }) => ({ address: { address: '127.0.0.1', port } })),
    );
    isTrue(test, await ask(neighbour.port, '/f'), 'a neighbour that may store the same bytes gets them elsewhere');
    test.equal(peerBytes(neighbour), 0);
    test.same(
      [branch, careful].map(({ observations }) => observations.count('upload', { result: 'block' })),
      [0, 0],
    );

    isTrue(test, await ask(careful.port, '/f'), `version ${version}: without the word the neighbours are asked`);
    test.ok(peer.asked > 0 && peerBytes(careful) > 0);
  }
});
