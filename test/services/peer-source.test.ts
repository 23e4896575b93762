/**
 * Blocks from the neighbours: who is asked for what, how much at a time, for how long, and who is left alone. The neighbours are real servers
 * on the loopback; time passes when the test says so.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once, setMaxListeners } from 'node:events';
import t, { type Test } from 'tap';
import type { CipherName } from '../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import {
  BlockBroker,
  type BlockRequest,
  type Holder,
  OriginSource,
  type PeerFinder,
  PeerSource,
  type RetrievedBlock,
} from '../../lib/services/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { deferred } from '../support/peerdist.ts';
import {
  type Behaviour,
  blockOf,
  peerContent,
  type PeerContent,
  type ScriptedPeer,
  smallSegments,
  startPeer,
} from '../support/peers.ts';
import { inTime, Observations, until } from '../support/proxies.ts';
import { ScriptedOrigin } from '../support/scripted-origin.ts';
import { seededBytes } from '../support/random.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const BLOCK = 65_536;
const V1 = peerContent(1, seededBytes(61, 20 * BLOCK + 100));
const V2 = peerContent(2, seededBytes(62, 10 * BLOCK + 100));
/** Many small blocks. */
const SMALL = smallSegments(seededBytes(63, 300_000), 1_000);

/** The signal of readers that stay; many listen to it at once. */
const never = new AbortController().signal;
setMaxListeners(0, never);

interface ReaderOptions {
  readonly peers?: readonly ScriptedPeer[];
  readonly finder?: PeerFinder;
}

type AskOptions = Partial<BlockRequest> & { readonly signal?: AbortSignal };

/** A source, and somebody who wants blocks from it. */
class Reader {
  readonly clock = new ManualClock();
  readonly observations = new Observations();
  readonly source: PeerSource;
  readonly of: PeerContent;

  constructor(t: Pick<Test, 'teardown'>, of: PeerContent, { peers = [], finder }: ReaderOptions) {
    this.of = of;
    this.source = new PeerSource({
      peers: peers.map(({ address }) => address),
      finder,
      observer: this.observations.observer,
      clock: this.clock,
    });
    t.teardown(() => this.source.close());
  }

  ask(ordinal: number, { signal = never, ...request }: AskOptions = {}): Promise<Uint8Array | undefined> {
    return (async () => this.source.retrieve(this.request(ordinal, request), { signal }))();
  }

  request(ordinal: number, options: Partial<BlockRequest> = {}): BlockRequest {
    const { content } = this.of;
    const lastOrdinal = content.information.blockCount - 1;
    return { content, ordinal, lastOrdinal, label: 'test', persist: true, ...options };
  }

  /** What came of asking for a block: its bytes, nothing, or what must never come. */
  async get(ordinal: number, options?: AskOptions): Promise<'block' | 'nothing' | 'late' | 'WRONG'> {
    const asked = this.ask(ordinal, options).catch((error: unknown) => {
      if (options?.signal?.aborted !== true && isPeerDistError(error, 'ERR_PEERDIST_TIMEOUT')) return 'late' as const;
      throw error;
    });
    const bytes = await inTime(asked, `block ${ordinal}`);
    if (bytes === undefined) return 'nothing';
    if (bytes === 'late') return bytes;
    return Buffer.compare(bytes, blockOf(this.of, ordinal)) === 0 ? 'block' : 'WRONG';
  }

  /** The same of many, in a line. */
  async getAll(ordinals: Iterable<number>, options?: AskOptions): Promise<string> {
    const results = await Promise.all([...ordinals].map((ordinal) => this.get(ordinal, options)));
    return tally(results);
  }

  /** How questions ended. */
  count(result: 'block' | 'list' | 'absent' | 'timeout' | 'failed' | 'lied' | 'cancelled'): number {
    return this.observations.count('peer_request', { result });
  }

  get bans(): number {
    return this.observations.count('peer_banned');
  }
}

/** `3 block, 1 nothing` */
function tally(results: readonly string[]): string {
  const names = [...new Set(results)].toSorted();
  return names.map((name) => `${results.filter((each) => each === name).length} ${name}`).join(', ');
}

function upTo(count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, index) => from + index);
}

/** Lets time pass in small steps; between them everything happens that can. */
async function pass(clock: ManualClock, ms: number, each: (step: number) => void = () => {}): Promise<void> {
  for (let step = 1; step <= ms / 5; step += 1) {
    clock.advance(5);
    each(step);
    await turns(12);
  }
}

/** A finder that knows what the test tells it. */
class TestFinder implements PeerFinder {
  readonly sought: string[][] = [];
  /** How often it was asked who has something. */
  looks = 0;
  news = deferred();
  isExpecting = true;
  readonly #holders = new Map<string, Holder[]>();

  /** From now on that peer has all segments. */
  names({ content }: PeerContent, { address: peer }: Pick<ScriptedPeer, 'address'>, blocks: Holder['blocks']): this {
    for (let segment = 0; segment < content.information.segmentCount; segment += 1) {
      const id = content.segmentId(segment);
      this.#holders.set(id, [...(this.#holders.get(id) ?? []), { peer, blocks }]);
    }
    return this;
  }

  holders(segmentId: string): readonly Holder[] {
    this.looks += 1;
    return this.#holders.get(segmentId) ?? [];
  }

  seek(segmentIds: readonly string[]): void {
    this.sought.push([...segmentIds]);
  }

  awaited(): Promise<void> | undefined {
    return this.isExpecting ? this.news.promise : undefined;
  }
}

// --- What comes ------------------------------------------------------------------------------------------------------------------------

await t.test('blocks of both versions, however they are encrypted', async (test) => {
  for (const of of [V1, V2]) {
    const count = of.content.information.blockCount;
    const forms: [CipherName, Behaviour][] = [
      ['none', 'honest'],
      ['aes-128', 'honest'],
      ['aes-192', 'honest'],
      ['aes-256', 'honest'],
      ['aes-128', 'whole key'],
      ['aes-192', 'whole key'],
      ['aes-128', 'odd padding'],
      ['aes-256', 'plaintext'],
    ];
    for (const [cipher, behaviour] of forms) {
      const peer = await startPeer(test, of, behaviour, { cipher });
      const reader = new Reader(test, of, { peers: [peer] });
      const what = `version ${of.content.information.version}, ${cipher}, ${behaviour}`;
      test.equal(await reader.getAll(upTo(count)), `${count} block`, what);
      test.same(
        [reader.count('block'), reader.observations.count('verification', { source: 'peer', result: 'match' })],
        [count, count],
        'each was asked for once, and hashed',
      );
      test.same([reader.bans, reader.count('lied'), peer.errors], [0, 0, []]);
      reader.source.close();
    }
  }
});

await t.test('blocks do not share memory: an answer that comes later writes over none', async (test) => {
  const peer = await startPeer(test, V2, 'plaintext');
  const reader = new Reader(test, V2, { peers: [peer] });
  const kept: Uint8Array[] = [];
  for (const ordinal of upTo(V2.content.information.blockCount)) kept.push((await reader.ask(ordinal)) as Uint8Array);
  test.ok(
    kept.every((bytes, ordinal) => Buffer.compare(bytes, blockOf(V2, ordinal)) === 0),
    'all are still what they were',
  );
});

await t.test('with nobody to ask the answer is no, at once and without a timer', async (test) => {
  const reader = new Reader(test, SMALL, {});
  test.equal(await reader.get(0), 'nothing');
  test.equal(reader.clock.pending, 0);
  test.equal(reader.observations.all.length, 0);
});

await t.test('content that must not be stored is asked of nobody and named to nobody', async (test) => {
  const peer = await startPeer(test, V1, 'honest');
  const finder = new TestFinder();
  const reader = new Reader(test, V1, { peers: [peer], finder });
  const answer = reader.source.retrieve(reader.request(0, { persist: false }), { signal: never });
  test.equal(answer, undefined, 'not even a promise');
  await turns();
  test.same([peer.connections, finder.sought, finder.looks], [0, [], 0]);
});

// --- How much at a time --------------------------------------------------------------------------------------------------------------

await t.test('a stranger gets four questions, one more for each answer, and 32 at most', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const all = reader.getAll(upTo(100));
  await until(() => peer.held.length === 4, 'four questions');
  await turns();
  for (let answers = 1; answers <= 40; answers += 1) {
    peer.release(1);
    const expected = Math.min(32, 4 + answers);
    await until(() => peer.held.length >= expected, `${expected} questions after ${answers} answers`);
    await turns(4);
    if (peer.held.length !== expected) test.fail(`${peer.held.length} instead of ${expected}`);
  }
  test.equal(peer.maxInFlight, 32);
  peer.behaviour = 'honest';
  peer.release();
  test.equal(await all, '100 block');
  test.equal(peer.blocks.length, 100, 'each was asked for once');
  test.ok(peer.connections <= 33, `on ${peer.connections} connections`);
});

await t.test('32 questions in all, however many peers there are', async (test) => {
  const peers = await Promise.all(upTo(12).map(() => startPeer(test, SMALL, 'hold')));
  const reader = new Reader(test, SMALL, { peers });
  const inFlight = (): number => peers.reduce((sum, { held }) => sum + held.length, 0);
  const all = reader.getAll(upTo(300));
  await until(() => inFlight() === 32, '32 questions');
  await turns(30);
  test.equal(inFlight(), 32);
  for (const peer of peers) {
    peer.release(1);
    await until(() => inFlight() >= 32, 'the place is taken');
    await turns(4);
    test.equal(inFlight(), 32);
  }
  for (const peer of peers) {
    peer.behaviour = 'honest';
    peer.release();
  }
  test.equal(await all, '300 block');
  test.ok(
    peers.every(({ blocks }) => blocks.length > 0),
    'all of them gave',
  );
});

await t.test('who is faster gives more', async (test) => {
  const [fast, slow] = [await startPeer(test, SMALL, 'hold'), await startPeer(test, SMALL, 'hold')];
  const reader = new Reader(test, SMALL, { peers: [slow, fast] });
  const all = reader.getAll(upTo(300));
  for (let rounds = 0; (await stateOf(all)) === 'pending' && rounds < 100; rounds += 1) {
    await pass(reader.clock, 50, (step) => {
      if (step % 2 === 0) fast.release();
      if (step === 10) slow.release();
    });
  }
  test.equal(await all, '300 block');
  test.ok(slow.blocks.length > 0, 'the slow one is used too');
  test.ok(fast.blocks.length > 4 * slow.blocks.length, `${fast.blocks.length} of the fast, ${slow.blocks.length}`);
  test.same([reader.bans, reader.count('lied'), reader.count('failed')], [0, 0, 0], 'being slow is no crime');
});

await t.test('a peer is not given more than it can answer in time', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const first = reader.get(0);
  await until(() => peer.held.length === 1, 'a question');
  reader.clock.advance(600);
  peer.release();
  test.equal(await first, 'block');
  const more = reader.getAll(upTo(5, 1));
  await until(() => peer.held.length > 0, 'the next question');
  await turns(20);
  test.equal(peer.held.length, 1, 'one at a time, since two would take longer than a second');
  peer.behaviour = 'honest';
  peer.release();
  test.equal(await more, '5 block', 'and with each quick answer it is trusted with more');
});

// --- Lists ------------------------------------------------------------------------------------------------------------------------------

await t.test('lists of blocks: where four or more of a segment are wanted, and then they are obeyed', async (test) => {
  const even = await startPeer(test, V1, 'honest', { holds: (ordinal) => ordinal % 2 === 0 });
  const odd = await startPeer(test, V1, 'honest', { holds: (ordinal) => ordinal % 2 === 1 && ordinal !== 7 });
  const reader = new Reader(test, V1, { peers: [even, odd] });
  const results = await Promise.all(upTo(21).map((ordinal) => reader.get(ordinal)));
  test.equal(tally(results), '20 block, 1 nothing');
  test.equal(results[7], 'nothing', 'the block that nobody has');
  test.same([even.lists, odd.lists], [[0], [0]], 'one list of each');
  // The last three of the content are wanted as three only, and so asked for on the off chance.
  const byList = (peer: ScriptedPeer): number[] => peer.blocks.filter((ordinal) => ordinal < 18);
  test.same(
    byList(even).filter((ordinal) => ordinal % 2 === 1),
    [],
  );
  test.same(
    byList(odd).filter((ordinal) => ordinal % 2 === 0),
    [],
  );
  test.notOk(even.blocks.includes(7) || odd.blocks.includes(7));
});

await t.test('lists of blocks: not for three blocks, not in version 2, not of who has it all', async (test) => {
  const peer = await startPeer(test, V1, 'honest', { holds: (ordinal) => ordinal !== 4 });
  const reader = new Reader(test, V1, { peers: [peer] });
  test.equal(await reader.getAll([3, 4, 5], { lastOrdinal: 5 }), '2 block, 1 nothing');
  test.same([peer.lists, reader.count('absent')], [[], 1]);
  test.equal(await reader.getAll([2, 3, 4, 5], { lastOrdinal: 5 }), '3 block, 1 nothing');
  test.same([peer.lists, reader.count('absent')], [[0], 2], 'the three at the end are asked for as they are');

  const v2 = await startPeer(test, V2, 'honest');
  const other = new Reader(test, V2, { peers: [v2] });
  await other.getAll(upTo(V2.content.information.blockCount));
  test.same(v2.lists, []);

  for (const [blocks, lists] of [
    ['all', []],
    [21, []],
    [20, [0]],
  ] as [Holder['blocks'], number[]][]) {
    const full = await startPeer(test, V1, 'honest');
    const finder = new TestFinder().names(V1, full, blocks);
    const third = new Reader(test, V1, { finder });
    test.equal(await third.getAll(upTo(21)), '21 block');
    test.same(full.lists, lists, `a peer that says it has ${blocks}`);
    third.source.close();
  }
});

await t.test(
  'what a list does not name is asked about again after two seconds: the peer may be fetching too',
  async (test) => {
    const held = new Set([0, 1]);
    const peer = await startPeer(test, V1, 'honest', { holds: (ordinal) => held.has(ordinal) });
    const reader = new Reader(test, V1, { peers: [peer] });
    test.equal(await reader.getAll([0, 1, 2]), '2 block, 1 nothing');
    held.add(2);
    test.equal(await reader.get(2), 'nothing', 'the list is still believed');
    test.equal(await reader.get(0), 'block', 'and so is what it names');
    reader.clock.advance(2_001);
    test.equal(await reader.get(2), 'block');
    test.same(peer.lists, [0, 0]);
  },
);

await t.test('a list that promises everything is believed until eight blocks in a row are not there', async (test) => {
  const peer = await startPeer(test, SMALL, 'empty');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  for (const ordinal of upTo(8)) test.equal(await reader.get(ordinal), 'nothing');
  test.same([reader.count('absent'), peer.blocks.length], [8, 8]);
  test.equal(await reader.get(8), 'nothing');
  test.equal(peer.blocks.length, 8, 'it is left alone');
  reader.clock.advance(4_999);
  await reader.get(8);
  test.equal(peer.blocks.length, 8);
  reader.clock.advance(1);
  peer.behaviour = 'honest';
  test.equal(await reader.get(8), 'block', 'for five seconds, about this content');
  peer.behaviour = (answer) => (answer.ordinal % 2 === 0 ? 'honest' : 'empty');
  for (const ordinal of upTo(40)) await reader.get(ordinal);
  test.equal(peer.blocks.length, 49, 'who has some of them is not');
  test.same([reader.bans, reader.count('absent')], [0, 28], 'nor is having nothing a lie');
});

await t.test('a list that does not come keeps nobody waiting for the request timer', async (test) => {
  const peer = await startPeer(test, V1, 'hold');
  const reader = new Reader(test, V1, { peers: [peer] });
  const first = reader.getAll(upTo(10));
  await until(() => peer.lists.length === 1, 'a list is asked for');
  await pass(reader.clock, 600);
  test.equal(await stateOf(first), 'pending', 'as long as a block may take it is worth waiting');
  await pass(reader.clock, 25);
  test.equal(await stateOf(first), 'fulfilled', 'and no longer');
  test.equal(await first, '10 nothing');
  const next = reader.get(10);
  test.equal(await stateOf(next), 'fulfilled', 'who comes later does not wait at all');
  test.equal(await next, 'nothing');
  test.same([reader.count('timeout'), peer.asked], [0, 1]);
  peer.behaviour = 'honest';
  peer.release();
  await until(() => reader.count('list') === 1, 'it comes after all');
  test.equal(await reader.getAll(upTo(21)), '21 block');
});

await t.test('a hostile list: huge, overlapping, of the wrong kind', async (test) => {
  const peer = await startPeer(test, V1, (answer) => (answer.isList ? 'a list' : 'wrong hash'));
  const reader = new Reader(test, V1, { peers: [peer] });
  test.equal(await reader.getAll(upTo(21)), '21 nothing', 'a list of everything from a liar');
  test.same([reader.bans, reader.observations.count('verification', { result: 'match' })], [1, 0]);
  for (const behaviour of ['garbage in a body', 'endless', 'an empty body'] as const) {
    const liar = await startPeer(test, V1, behaviour);
    const other = new Reader(test, V1, { peers: [liar] });
    test.equal(await other.getAll(upTo(21)), '21 nothing', behaviour);
    test.same([other.bans, other.count('lied'), liar.lists], [1, 1, [0]], 'one lie is enough');
    other.source.close();
  }
});

// --- Who fails and who lies --------------------------------------------------------------------------------------------------------------

const LIES = [
  'wrong index',
  'wrong hash',
  'wrong segment',
  'short',
  'bad IV',
  'another IV',
  'wrong plaintext',
  'a list',
  'unknown cipher',
  'bytes left over',
  'endless',
  'announces too much',
  'garbage in a body',
  'an empty body',
] as const satisfies Behaviour[];
const FAILURES = [
  'refuse',
  'disconnect',
  'reset',
  '500',
  'redirect',
  'garbage',
  'negotiates',
  'endless head',
  'endless interim answers',
  'switches protocols',
] as const satisfies Behaviour[];
const DELAYS = ['hang', 'stall', 'drip', 'endless blank lines'] as const satisfies Behaviour[];

/** Asks for one block; where the peer does not answer, until the request timer has run out. */
async function strike(reader: Reader, peer: ScriptedPeer, ordinal: number): Promise<string> {
  const before = peer.asked;
  let result: string | undefined;
  const end = reader.get(ordinal).then((each) => (result = each));
  if (DELAYS.includes(peer.behaviour as (typeof DELAYS)[number])) {
    await until(() => result !== undefined || peer.asked > before, 'the question comes');
    if (result === undefined) {
      reader.clock.advance(1_970);
      await turns(4);
      if (result !== undefined) throw new Error('the request timer is 2 s');
    }
    reader.clock.advance(55);
  }
  return end;
}

for (const [behaviours, result, strikes, banMs] of [
  [LIES, 'lied', 1, 60_000],
  [FAILURES, 'failed', 3, 10_000],
  [DELAYS, 'timeout', 3, 10_000],
] as const) {
  await t.test(`${result}: left alone for ${banMs / 1_000} s after ${strikes}`, async (test) => {
    for (const behaviour of behaviours) {
      const peer = await startPeer(test, SMALL, behaviour);
      const reader = new Reader(test, SMALL, { peers: [peer] });
      for (const ordinal of upTo(strikes)) {
        test.equal(reader.bans, 0);
        const outcome = result === 'timeout' ? 'late' : 'nothing';
        test.equal(await strike(reader, peer, ordinal), outcome, `${behaviour}: nobody else is left`);
      }
      test.same([reader.bans, reader.count(result)], [1, strikes], `${behaviour}: it is banned`);
      test.equal(
        reader.observations.count('verification', { source: 'peer', result: 'mismatch' }),
        result === 'lied' ? 1 : 0,
      );
      await until(() => peer.sockets.size <= 1, `${behaviour}: its connections are closed`);
      reader.clock.advance(banMs - 50);
      test.equal(await reader.get(10), 'nothing');
      test.equal(reader.observations.count('peer_request'), strikes, `${behaviour}: it is not asked meanwhile`);
      reader.clock.advance(51);
      if (behaviour === 'refuse') await peer.listen(peer.port);
      peer.behaviour = 'honest';
      test.equal(await reader.get(10), 'block', `${behaviour}: and then it has another chance`);
      test.ok(peer.poured < 64 * 1024 * 1024, `${behaviour}: ${peer.poured} bytes poured`);
      reader.source.close();
    }
  });
}

await t.test('bans double up to ten minutes, and good conduct makes them short again', async (test) => {
  for (const [behaviour, strikes, lengths] of [
    ['wrong hash', 1, [60, 120, 240, 480, 600, 600]],
    ['500', 3, [10, 20, 40, 80, 160, 320, 600, 600]],
  ] as const) {
    const peer = await startPeer(test, SMALL, behaviour);
    const reader = new Reader(test, SMALL, { peers: [peer] });
    for (const [round, seconds] of lengths.entries()) {
      for (const ordinal of upTo(strikes)) await reader.get(ordinal);
      test.equal(reader.bans, round + 1);
      reader.clock.advance(seconds * 1_000 - 1);
      const asked = peer.asked;
      await reader.get(5);
      test.equal(peer.asked, asked, `${behaviour}: ${seconds} s are not over`);
      reader.clock.advance(1);
    }
    peer.behaviour = 'honest';
    test.equal(await reader.get(0), 'block', 'still trusted with one question');
    reader.clock.advance(600_001);
    test.equal(await reader.get(1), 'block');
    peer.behaviour = behaviour;
    for (const ordinal of upTo(strikes)) await reader.get(ordinal);
    reader.clock.advance((lengths[0] as number) * 1_000);
    peer.behaviour = 'honest';
    test.equal(await reader.get(2), 'block', 'after ten good minutes the count begins anew');
  }
});

await t.test('what a banned peer was asked besides is asked of others at once', async (test) => {
  const liar = await startPeer(test, SMALL, 'hold');
  const friend = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [liar, friend] });
  const all = reader.getAll(upTo(8));
  await until(() => liar.held.length === 4 && friend.held.length === 4, 'both are asked');
  friend.behaviour = 'honest';
  const [first] = liar.held.splice(0, 1);
  first?.response.writeHead(200).end('no message at all');
  await until(() => reader.bans === 1, 'the ban');
  friend.release();
  test.equal(await all, '8 block', 'no timer had to run out');
  test.same([reader.count('lied'), reader.count('cancelled')], [1, 3], 'only the lie is held against it');
  test.equal(new Set(friend.blocks).size, 8);
  await until(() => liar.sockets.size <= 1, 'its connections are closed, but for an idle one');
});

await t.test('a failure costs a peer its place in the queue', async (test) => {
  const [quick, steady] = [await startPeer(test, SMALL, 'hold'), await startPeer(test, SMALL, 'hold')];
  const reader = new Reader(test, SMALL, { peers: [quick, steady] });
  const takes = async (peer: ScriptedPeer, ordinal: number, ms: number): Promise<void> => {
    const block = reader.get(ordinal);
    await until(() => quick.held.length + steady.held.length === 1, 'one is asked');
    test.equal(peer.held.length, 1, `block ${ordinal}`);
    reader.clock.advance(ms);
    peer.release();
    test.equal(await block, 'block');
  };
  await takes(quick, 0, 10);
  await takes(steady, 1, 15);
  await takes(quick, 2, 10);
  await takes(quick, 3, 10);
  quick.behaviour = '500';
  const fourth = reader.get(4);
  await until(() => steady.held.length === 1, 'the other is asked for the same block at once');
  steady.release();
  test.equal(await fourth, 'block');
  quick.behaviour = 'hold';
  await takes(steady, 5, 15);
  test.same([reader.count('failed'), reader.bans], [1, 0]);
});

/** Breaks off so many of the questions that wait, the oldest first. */
async function breakOff(reader: Reader, peer: ScriptedPeer, count = 1): Promise<void> {
  for (const { response } of peer.held.splice(0, count)) {
    const before = reader.count('failed');
    response.writeHead(500).end();
    await until(() => reader.count('failed') === before + 1, 'a question fails');
    // Of what follows, nothing happens in the same moment.
    reader.clock.advance(1);
  }
}

await t.test('after a failure a peer is given one thing at a time, and one more for each answer', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const first = reader.getAll(upTo(28));
  await until(() => peer.held.length === 4, '4 at a time');
  for (let window = 5; window <= 16; window += 1) {
    peer.release(1);
    await until(() => peer.held.length === window, `${window} at a time`);
  }
  test.equal(peer.blocks.length, 28);
  const inLine = reader.getAll([28, 29]);
  test.equal(await stateOf(inLine), 'pending');
  await breakOff(reader, peer);
  test.equal(await inLine, '2 nothing', 'nobody waits for a peer that has failed');
  test.equal(await reader.get(30), 'nothing', 'nor comes to do so');
  peer.release(1);
  await until(() => reader.count('block') === 13, 'an answer');
  const more = reader.getAll(upTo(5, 30));
  test.equal(await stateOf(more), 'pending', 'it has answered since, and is worth waiting for');
  // After six more answers 8 are under way, and 8 are allowed.
  peer.release(6);
  await until(() => reader.count('block') === 19, 'six more are answered');
  await turns(20);
  test.same([peer.held.length, peer.blocks.length], [8, 28], 'nothing more is asked');
  peer.release(1);
  await until(() => peer.blocks.length === 30, 'until there are fewer');
  await turns(20);
  test.same([peer.held.length, peer.blocks.length], [9, 30], 'as many as there were answers, and one');
  peer.behaviour = 'honest';
  peer.release();
  test.equal(await more, '5 block');
  test.equal(await first, '27 block, 1 nothing');
  test.same([reader.count('failed'), reader.bans], [1, 0]);
});

await t.test('only failures in a row add up', async (test) => {
  const peer = await startPeer(test, SMALL, '500');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  for (const ordinal of upTo(12)) {
    peer.behaviour = ordinal % 3 === 2 ? 'honest' : '500';
    test.equal(await reader.get(ordinal), ordinal % 3 === 2 ? 'block' : 'nothing');
  }
  test.same([reader.bans, reader.count('failed')], [0, 8]);
  peer.behaviour = '500';
  await reader.getAll([20]);
  await reader.getAll([21]);
  test.equal(reader.bans, 0);
  await reader.getAll([22]);
  test.equal(reader.bans, 1, 'the third without an answer between');
});

await t.test('questions that were open together fail together: one moment of silence is one failure', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  for (const [round, open] of [4, 1, 1].entries()) {
    test.equal(reader.bans, 0, `${round} moments of silence are no reason yet`);
    const asked = reader.getAll(upTo(open, 10 * round));
    await until(() => peer.held.length === open, 'all are open');
    reader.clock.advance(1);
    await breakOff(reader, peer, open);
    test.equal(await asked, `${open} nothing`);
  }
  test.same([reader.count('failed'), reader.bans], [6, 1], 'three moments are');
});

await t.test('a moment of silence does not cover up a lie', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const asked = reader.getAll(upTo(4));
  await until(() => peer.held.length === 4, 'all are open');
  reader.clock.advance(1);
  await breakOff(reader, peer);
  test.equal(reader.bans, 0);
  const [lie] = peer.held.splice(0, 1);
  lie?.response.writeHead(200).end('no message at all');
  await until(() => reader.bans === 1, 'the ban');
  test.equal(await asked, '4 nothing');
  test.same([reader.count('failed'), reader.count('lied'), reader.count('cancelled')], [1, 1, 2]);
  peer.behaviour = 'honest';
  reader.clock.advance(59_990);
  test.equal(await reader.get(10), 'nothing');
  reader.clock.advance(10);
  test.equal(await reader.get(10), 'block', 'it is left alone for as long as any liar');
});

await t.test('who has failed is asked when nobody better is free, and nobody waits for it', async (test) => {
  const [doubtful, better] = [await startPeer(test, SMALL, '500'), await startPeer(test, SMALL, 'refuse')];
  const reader = new Reader(test, SMALL, { peers: [doubtful, better] });
  test.equal(await reader.get(0), 'nothing', 'both fail');
  await better.listen(better.port);
  better.behaviour = 'honest';
  doubtful.behaviour = 'hold';
  const asked = reader.get(1);
  await until(() => doubtful.held.length === 1, 'with nobody better it is asked');
  test.equal(await reader.get(2), 'block', 'the other one has proved itself');
  const before = doubtful.asked;
  better.behaviour = 'hold';
  const some = reader.getAll(upTo(4, 10));
  await until(() => better.held.length > 0, 'the better one is asked');
  await turns(20);
  test.equal(doubtful.asked, before, 'the doubtful one is not: one question is enough for it');
  better.behaviour = 'honest';
  better.release();
  test.equal(await some, '4 block');
  doubtful.release();
  test.equal(await asked, 'block');
  test.same([reader.count('failed'), reader.bans], [2, 0]);
});

await t.test('an idle connection that the peer closes just then is nobody’s fault', async (test) => {
  const peer = await startPeer(test, SMALL, 'one answer a connection');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  for (const ordinal of upTo(12)) test.equal(await reader.get(ordinal), 'block');
  test.equal(await reader.getAll(upTo(60)), '60 block');
  test.same([reader.count('failed'), reader.bans], [0, 0]);
  test.ok(peer.connections > 12, `${peer.connections} connections`);
});

await t.test('four peers are tried for a block, and no fifth', async (test) => {
  const peers = await Promise.all(upTo(6).map(() => startPeer(test, SMALL, '500')));
  const reader = new Reader(test, SMALL, { peers });
  test.equal(await reader.get(0), 'nothing');
  test.equal(reader.count('failed'), 4);
});

// --- Waiting ---------------------------------------------------------------------------------------------------------------------------

await t.test('a block that is overdue is put to a second peer, and the first answer counts', async (test) => {
  for (const late of ['second', 'first'] as const) {
    const [first, second, third] = await Promise.all(upTo(3).map(() => startPeer(test, SMALL, 'hold')));
    if (first === undefined || second === undefined || third === undefined) throw new Error('three');
    const reader = new Reader(test, SMALL, { peers: [first, second, third] });
    const block = reader.get(0);
    await until(() => first.held.length === 1, 'the first is asked');
    await pass(reader.clock, 300);
    test.same([second.held.length, third.held.length], [0, 0], 'after 300 ms it is not overdue');
    reader.clock.advance(25);
    await until(() => second.held.length === 1, 'the second is asked');
    await pass(reader.clock, 500);
    test.equal(third.held.length, 0, 'two are enough');
    (late === 'second' ? first : second).release();
    test.equal(await block, 'block');
    const loser = late === 'second' ? second : first;
    await until(() => loser.sockets.size === 0, `the ${late}, which was late, is not waited for`);
    test.same([reader.count('block'), reader.count('timeout')], [1, 1]);
    await until(() => reader.clock.pending === 0 || (reader.clock.advance(25), false), 'no timer goes on');
    reader.source.close();
  }
});

await t.test('who was asked second is not blamed when the first answers after all', async (test) => {
  const [slow, spare] = [await startPeer(test, SMALL, 'hold'), await startPeer(test, SMALL, 'hold')];
  for (const ordinal of upTo(4)) {
    const reader = new Reader(test, SMALL, { peers: [slow, spare] });
    const block = reader.get(ordinal);
    await until(() => slow.held.length === 1, 'the first is asked');
    reader.clock.advance(325);
    await until(() => spare.held.length === 1, 'the second is asked');
    slow.release();
    test.equal(await block, 'block');
    await until(() => reader.observations.count('peer_request') === 2, 'the second question is over');
    test.same([reader.count('cancelled'), reader.count('timeout')], [1, 0]);
    spare.held.length = 0;
    reader.source.close();
  }
});

await t.test('the request timer: two seconds, then the next peer', async (test) => {
  const [first, second, third] = await Promise.all(upTo(3).map(() => startPeer(test, SMALL, 'stall')));
  if (first === undefined || second === undefined || third === undefined) throw new Error('three');
  const reader = new Reader(test, SMALL, { peers: [first, second, third] });
  const block = reader.get(0);
  await until(() => first.asked === 1, 'the first is asked');
  reader.clock.advance(325);
  await until(() => second.asked === 1, 'and the second');
  await pass(reader.clock, 1_670);
  test.same([reader.count('timeout'), third.asked], [0, 0]);
  third.behaviour = 'honest';
  await pass(reader.clock, 5);
  await until(() => reader.count('timeout') === 1, 'the first has had its two seconds');
  await pass(reader.clock, 25);
  test.equal(await block, 'block');
  test.same([reader.count('timeout'), third.asked], [2, 1]);
  await until(() => first.sockets.size + second.sockets.size === 0, 'the stalled answers are given up');
});

await t.test('deadlines: as long as the reader can wait, but not less than a second peer needs', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const deadline = (neededInMs: number | undefined, originMs: number): number =>
    reader.source.deadlineMs(reader.request(0, { neededInMs }), originMs);
  test.same(
    [
      deadline(undefined, 200),
      deadline(0, 200),
      deadline(799, 200),
      deadline(800, 200),
      deadline(801, 200),
      deadline(1_000, 200),
      deadline(1_000, 2_000),
      deadline(5_200, 200),
      deadline(60_000, 200),
      deadline(60_000, 0),
    ],
    [600, 600, 600, 600, 601, 800, 600, 5_000, 5_000, 5_000],
    'twice what makes a block overdue to five seconds',
  );
  const seen: number[] = [];
  for (const ordinal of upTo(60)) {
    const block = reader.get(ordinal);
    await until(() => peer.held.length === 1, 'the question');
    reader.clock.advance(500);
    peer.release();
    await block;
    seen.push(deadline(0, 200));
  }
  test.ok(Math.min(...seen) >= 1_000, `from the first slow block on never less than twice that: ${Math.min(...seen)}`);
  test.ok(Math.max(...seen) > 2_000, `while nobody knows how slow the next will be, much more: ${Math.max(...seen)}`);
  const last = seen.at(-1) as number;
  test.ok(last < 1_010, `and little more where all are equally slow: ${last}`);
  test.equal(deadline(60_000, 200), 5_000);
  peer.behaviour = 'honest';
  for (const ordinal of upTo(60)) await reader.get(ordinal);
  test.equal(deadline(0, 200), 400, 'patience goes when blocks are quick again, but not all of it');
  test.same([reader.bans, reader.count('timeout')], [0, 0], 'being slow is no crime');
});

await t.test('deadlines: 10 ms more for each block in line, 300 ms while peers are still to be found', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const finder = new TestFinder();
  finder.isExpecting = false;
  const reader = new Reader(test, SMALL, { peers: [peer], finder });
  const deadline = (neededInMs?: number): number => reader.source.deadlineMs(reader.request(0, { neededInMs }), 200);
  test.equal(deadline(), 600);
  const few = reader.getAll(upTo(4));
  await until(() => peer.held.length === 4, 'four are asked');
  test.equal(deadline(), 600, 'who is asked is not in line');
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  const { signal } = controller;
  const inLine = upTo(30, 4).map((ordinal) => failureOf(reader.ask(ordinal, { signal })));
  test.equal(deadline(), 900);
  finder.isExpecting = true;
  test.equal(deadline(), 1_200);
  test.same([deadline(1_400), deadline(1_401), deadline(2_200)], [1_200, 1_201, 2_000], 'or what the reader can wait');
  const others = upTo(240, 34).map((ordinal) => failureOf(reader.ask(ordinal, { signal })));
  test.equal(deadline(), 3_600);
  const again = upTo(200, 34).map((ordinal) => failureOf(reader.ask(ordinal, { signal })));
  test.equal(deadline(), 5_000, 'five seconds at most');
  controller.abort('bored');
  test.same(new Set(await Promise.all([...inLine, ...others, ...again])), new Set(['bored']));
  finder.isExpecting = false;
  test.equal(deadline(), 600, 'who has left is not in line any more');
  peer.release();
  test.equal(await few, '4 block');
});

await t.test('without a next source nobody is impatient', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const { clock } = reader;
  const broker = new BlockBroker({ store: new MemoryBlockStore({ maxBytes: 1_000_000 }), clock });
  const wanted = (async () => broker.retrieve(reader.request(0), [reader.source], never))();
  await until(() => peer.held.length === 1, 'the peer is asked');
  await pass(clock, 1_990);
  test.equal(await stateOf(wanted), 'pending', 'the deadline has passed three times');
  peer.release();
  test.equal((await inTime(wanted, 'the block')).source, 'peer');
  test.equal(reader.count('timeout'), 0);
});

await t.test('a hole goes to the origin early, and the peer hears of it', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const { clock } = reader;
  const origin = new ScriptedOrigin(SMALL.bytes, { chunkBytes: 1_000 });
  const store = new MemoryBlockStore({ maxBytes: 1_000_000 });
  const broker = new BlockBroker({ store, clock });
  const way = new OriginSource({ clock, onFirstBlock: (ms) => broker.originPace.note(ms) });
  const retrieve = (ordinal: number, neededInMs?: number): Promise<RetrievedBlock> =>
    (async () =>
      broker.retrieve(
        reader.request(ordinal, { lastOrdinal: ordinal, neededInMs, fetchMissing: origin.fetch }),
        [reader.source, way],
        never,
      ))();

  const wanted = retrieve(0);
  const wantedLater = retrieve(1, 1_000);
  await until(() => peer.held.length === 2, 'the peer is asked for both');
  await pass(clock, 595);
  test.same(origin.asked, []);
  await pass(clock, 5);
  const { bytes, source } = await inTime(wanted, 'the block that is wanted now');
  test.same([source, Buffer.compare(bytes, blockOf(SMALL, 0)), origin.asked], ['origin', 0, ['0+1000']]);
  await until(() => peer.inFlight === 1, 'the peer is told, long before the request timer');
  test.equal(reader.count('timeout'), 1);
  peer.held.shift();
  await pass(clock, 195);
  test.equal(await stateOf(wantedLater), 'pending', 'the other one has time, 800 ms');
  peer.release();
  test.equal((await wantedLater).source, 'peer');
  // The origin has been quick, so that the neighbours get 50 ms more than from one that nobody knows.
  test.equal(broker.originPace.blockMs, 150);
  peer.behaviour = 'honest';
  test.equal(await reader.getAll(upTo(60, 10)), '60 block', 'and the peer has become quick');
  peer.behaviour = 'hold';
  const third = retrieve(2, 1_000);
  await until(() => peer.held.length === 1, 'the peer is asked again');
  await pass(clock, 845);
  test.equal(origin.asked.length, 1);
  await pass(clock, 5);
  test.equal((await inTime(third, 'the third block')).source, 'origin');
  for (const ordinal of [0, 1]) test.equal((await retrieve(ordinal)).source, 'store', 'and both are kept');
});

// --- Leaving ---------------------------------------------------------------------------------------------------------------------------

await t.test('who leaves takes his questions with him, and nobody is blamed', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  const left = upTo(50).map((ordinal) => failureOf(reader.ask(ordinal, { signal: controller.signal })));
  const stays = reader.get(60);
  await until(() => peer.held.length === 4, 'four are asked');
  controller.abort('bored');
  test.same(new Set(await Promise.all(left)), new Set(['bored']));
  await until(() => peer.held.length === 5, 'the one who stays gets a place');
  test.equal(reader.count('cancelled'), 4);
  peer.release();
  test.equal(await stays, 'block');
  await until(() => peer.inFlight === 0, 'the others’ connections are closed');
  test.equal(reader.bans, 0);
  test.equal(peer.blocks.length, 5, 'those who waited in line were never asked for');
  reader.clock.advance(25);
  test.equal(reader.clock.pending, 0, 'no timer goes on');
});

await t.test('who leaves at any moment leaves nothing behind', async (test) => {
  for (const behaviour of ['hold', 'hang', 'stall', 'drip', 'endless head', '500', 'honest'] as const) {
    const peer = await startPeer(test, V1, behaviour);
    const reader = new Reader(test, V1, { peers: [peer] });
    for (let moment = 0; moment < 14; moment += 1) {
      const controller = new AbortController();
      setMaxListeners(0, controller.signal);
      const { signal } = controller;
      const results = upTo(21).map((ordinal) => reader.ask(ordinal, { signal }).catch(() => undefined));
      await turns(moment);
      controller.abort();
      await inTime(Promise.all(results), `${behaviour}: everybody is gone`);
    }
    await turns(20);
    // A list under way belongs to nobody; the request timer ends it.
    reader.clock.advance(2_025);
    await until(() => peer.inFlight === 0, `${behaviour}: nothing is under way`);
    reader.clock.advance(25);
    test.equal(reader.clock.pending, 0, `${behaviour}: no timer goes on`);
    reader.source.close();
    await until(() => peer.sockets.size === 0, `${behaviour}: no connection stays`);
  }
});

await t.test(
  'a deadline that passes is held against a peer that was late, not against one just asked',
  async (test) => {
    const peer = await startPeer(test, SMALL, 'hold');
    const reader = new Reader(test, SMALL, { peers: [peer] });
    const leave = async (ordinal: number, afterMs: number, reason: unknown): Promise<void> => {
      const controller = new AbortController();
      const asked = peer.asked;
      const failure = failureOf(reader.ask(ordinal, { signal: controller.signal }));
      await until(() => peer.asked > asked, 'it is asked');
      reader.clock.advance(afterMs);
      controller.abort(reason);
      test.equal(await failure, reason);
      await turns(10);
    };
    const timeout = new PeerDistError('ERR_PEERDIST_TIMEOUT', 'too long');
    for (const ordinal of upTo(4)) await leave(ordinal, 300, timeout);
    for (const ordinal of upTo(4)) await leave(ordinal, 500, new Error('another reason'));
    test.same([reader.count('cancelled'), reader.count('timeout'), reader.bans], [8, 0, 0]);
    for (const ordinal of upTo(3)) await leave(ordinal, 301, timeout);
    test.same([reader.count('timeout'), reader.bans], [3, 1]);
    test.equal(await reader.get(0), 'nothing');
  },
);

await t.test('close ends everything: questions, those who wait, connections, timers', async (test) => {
  for (const behaviour of ['hold', 'stall', 'drip'] as const) {
    const [busy, idle] = [await startPeer(test, SMALL, behaviour), await startPeer(test, SMALL, 'honest')];
    const reader = new Reader(test, SMALL, { peers: [busy] });
    const finder = new TestFinder();
    const waiting = new Reader(test, SMALL, { finder });
    const all = reader.getAll(upTo(50));
    await until(() => busy.asked === 4, 'four are asked');
    const awaiting = waiting.getAll(upTo(10));
    reader.source.close();
    waiting.source.close();
    test.equal(await all, '50 nothing', `${behaviour}: nobody waits any more`);
    test.equal(await awaiting, '10 nothing', 'nor for news');
    await until(() => busy.sockets.size === 0, `${behaviour}: its connections are closed`);
    finder.names(SMALL, idle, 'all').news.resolve();
    test.equal(await reader.get(0), 'nothing', 'there is nothing to be had from a closed source');
    await turns(20);
    test.equal(busy.asked, 4, `${behaviour}: nothing is asked after the end`);
    test.same([reader.clock.pending, waiting.clock.pending], [0, 0], `${behaviour}: no timer goes on`);
    test.equal(reader.bans, 0);
  }
});

await t.test('close asks nobody else for what it has taken from somebody', async (test) => {
  const [first, second] = [await startPeer(test, SMALL, 'hold'), await startPeer(test, SMALL, 'hold')];
  const reader = new Reader(test, SMALL, { peers: [first, second] });
  const all = reader.getAll(upTo(20));
  await until(() => first.held.length + second.held.length === 8, 'both are asked');
  const asked = first.asked + second.asked;
  reader.source.close();
  test.equal(await all, '20 nothing');
  await turns(30);
  test.equal(first.asked + second.asked, asked);
  await until(() => first.sockets.size + second.sockets.size === 0, 'no connection stays');
});

// --- The finder ------------------------------------------------------------------------------------------------------------------------

await t.test('who is found is asked, as soon as there is news', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const finder = new TestFinder();
  const reader = new Reader(test, SMALL, { finder });
  const all = reader.getAll(upTo(64));
  test.equal(await stateOf(all), 'pending');
  test.equal(peer.connections, 0);
  finder.names(SMALL, peer, 'all');
  const before = finder.looks;
  finder.news.resolve();
  await turns(1);
  test.ok(finder.looks - before <= 2 * 64, `${finder.looks - before} looks for 64 blocks: one round, not 64`);
  await until(() => peer.held.length === 4, 'it is asked');
  peer.behaviour = 'honest';
  peer.release();
  test.equal(await all, '64 block');
});

await t.test('no news: nobody waits longer than the finder says', async (test) => {
  const finder = new TestFinder();
  const reader = new Reader(test, SMALL, { finder });
  const all = reader.getAll(upTo(64));
  test.equal(await stateOf(all), 'pending');
  await pass(reader.clock, 500);
  test.equal(await stateOf(all), 'pending', 'it is the finder’s clock that counts');
  finder.isExpecting = false;
  finder.news.resolve();
  test.equal(await all, '64 nothing');
  test.equal(await reader.get(0), 'nothing', 'and where no news is expected nobody waits at all');
  reader.clock.advance(25);
  test.equal(reader.clock.pending, 0);
});

await t.test('news: who has been tried is not asked again, who is new is', async (test) => {
  const [tried, newcomer] = [await startPeer(test, SMALL, '500'), await startPeer(test, SMALL, 'honest')];
  const finder = new TestFinder().names(SMALL, tried, 'all');
  const reader = new Reader(test, SMALL, { finder });
  const news = async (): Promise<void> => {
    const { resolve } = finder.news;
    finder.news = deferred();
    resolve();
    await turns(10);
  };
  const block = reader.get(0);
  await until(() => reader.count('failed') === 1, 'the one that is known fails');
  test.equal(await stateOf(block), 'pending', 'another may still be found');
  tried.behaviour = 'honest';
  for (const answers of [1, 2]) {
    await news();
    test.equal(await stateOf(block), 'pending', `${answers} answers that name nobody new`);
  }
  finder.names(SMALL, newcomer, 'all');
  await news();
  test.equal(await block, 'block');
  test.same([tried.blocks, newcomer.blocks], [[0], [0]]);

  const over = new TestFinder().names(SMALL, await startPeer(test, SMALL, '500'), 'all');
  over.isExpecting = false;
  test.equal(await new Reader(test, SMALL, { finder: over }).get(0), 'nothing', 'without any to come nobody waits');
});

await t.test('who had one segment is asked for the next, whatever the finder knows', async (test) => {
  const peer = await startPeer(test, SMALL, 'honest');
  const finder = new TestFinder();
  finder.isExpecting = false;
  const reader = new Reader(test, SMALL, { finder });
  test.equal(await reader.get(0), 'nothing');
  const one = SMALL.content.segmentId(1);
  const named: PeerFinder = {
    holders: (id) => (id === one ? [{ peer: peer.address, blocks: 'all' }] : []),
    seek: () => {},
    awaited: () => undefined,
  };
  const other = new Reader(test, SMALL, { finder: named });
  test.equal(await other.get(0), 'nothing');
  test.equal(await other.get(1), 'block');
  test.equal(await other.getAll(upTo(30, 2)), '30 block');
});

await t.test('the work of a queue does not grow with its square', async (test) => {
  const looks = async (count: number): Promise<number> => {
    const peer = await startPeer(test, SMALL, 'hold');
    const finder = new TestFinder().names(SMALL, peer, 'all');
    const reader = new Reader(test, SMALL, { finder });
    // The window is wide open first.
    const warm = reader.getAll(upTo(40));
    while (peer.blocks.length < 40 || peer.held.length > 0) {
      peer.release();
      await turns(4);
    }
    await warm;
    const before = finder.looks;
    peer.behaviour = 'honest';
    const all = reader.getAll(upTo(count));
    test.equal(await all, `${count} block`);
    reader.source.close();
    return finder.looks - before;
  };
  const [few, many] = [await looks(75), await looks(300)];
  test.ok(many < 8 * few, `${few} looks for 75 blocks, ${many} for 300`);
});

await t.test('segments are asked about ahead of the reader, many at a time and once', async (test) => {
  const finder = new TestFinder();
  finder.isExpecting = false;
  const reader = new Reader(test, SMALL, { finder });
  for (const ordinal of upTo(280)) await reader.get(ordinal, { lastOrdinal: 279 });
  const ids = upTo(280).map((segment) => SMALL.content.segmentId(segment));
  test.same(finder.sought, [ids.slice(0, 128), ids.slice(128, 256), ids.slice(256, 280)]);
  reader.clock.advance(20_000);
  await reader.get(10, { lastOrdinal: 20 });
  test.same(finder.sought[3], ids.slice(10, 21), 'and again after a while, no further than the reader goes');
});

await t.test('peers without number cost nothing but their names', async (test) => {
  const peer = await startPeer(test, SMALL, 'honest');
  let named = 0;
  const finder: PeerFinder = {
    // Every look brings 16 new places where nobody listens.
    holders: () => [
      ...upTo(16).map((): Holder => {
        named += 1;
        return { peer: { address: `127.1.${(named >> 8) & 255}.${named & 255}`, port: 9 }, blocks: 'all' };
      }),
      { peer: peer.address, blocks: 'all' },
    ],
    seek: () => {},
    awaited: () => undefined,
  };
  const reader = new Reader(test, SMALL, { finder });
  const results: string[] = [];
  for (const ordinal of upTo(40)) results.push(await reader.get(ordinal));
  test.notOk(results.includes('WRONG'));
  test.ok(named >= 16 * 40, `${named} names`);
  test.ok(reader.count('failed') <= 4 * 40, 'four tries a block at most');
});

for (const [how, atOnce, mostFailures] of [
  // Where it is free, once for each block; where it has its hands full, three times.
  ['one after the other', 1, 100],
  ['all at once', 100, 300],
] as const) {
  await t.test(`strangers without number keep no block from who has proved itself: ${how}`, async (test) => {
    const peer = await startPeer(test, SMALL, 'honest');
    const strangers = new Map<string, Holder[]>();
    const finder: PeerFinder = {
      // For each segment 16 places where nobody listens, and first in the line.
      holders: (id) => {
        const named =
          strangers.get(id) ??
          upTo(16).map((index): Holder => {
            const address = `127.1.${strangers.size}.${index + 1}`;
            return { peer: { address, port: 9 }, blocks: 'all' };
          });
        strangers.set(id, named);
        return [...named, { peer: peer.address, blocks: 'all' }];
      },
      seek: () => {},
      awaited: () => undefined,
    };
    const reader = new Reader(test, SMALL, { peers: [peer], finder });
    // It proves itself where only it is known.
    strangers.set(SMALL.content.segmentId(200), []);
    test.equal(await reader.get(200), 'block');
    const results: string[] = [];
    for (let from = 0; from < 100; from += atOnce)
      results.push(...(await Promise.all(upTo(atOnce, from).map((ordinal) => reader.get(ordinal)))));
    const blocks = results.filter((result) => result === 'block').length;
    test.ok(blocks >= 95, `${blocks} of 100`);
    test.notOk(results.includes('WRONG'));
    test.equal(new Set(peer.blocks).size, blocks + 1, 'all from the one that has them');
    const failures = reader.count('failed');
    test.ok(failures > 0 && failures <= mostFailures, `strangers are tried, but not too often: ${failures}`);
  });
}

await t.test('strangers are tried one at a time where a proven peer is free', async (test) => {
  const proven = await startPeer(test, SMALL, 'honest');
  const strangers = await Promise.all(upTo(6).map(() => startPeer(test, SMALL, 'hold')));
  const finder = new TestFinder();
  finder.isExpecting = false;
  const reader = new Reader(test, SMALL, { peers: [proven], finder });
  test.equal(await reader.getAll(upTo(60, 100)), '60 block');
  for (const stranger of strangers) finder.names(SMALL, stranger, 'all');
  const tried = (): number => strangers.filter((stranger) => stranger.asked > 0).length;
  for (let trial = 1; trial <= 3; trial += 1) {
    const wanted = upTo(8, 10 * trial).map((ordinal) => reader.get(ordinal));
    await until(() => tried() === trial, `number ${trial} is tried`);
    test.equal(tally(await Promise.all(wanted.slice(1))), '7 block', 'the others go to who is known');
    await turns(20);
    test.same([tried(), strangers.reduce((sum, { held }) => sum + held.length, 0)], [trial, 1], 'with one question');
    for (const stranger of strangers.filter((each) => each.held.length > 0)) {
      stranger.behaviour = 'honest';
      stranger.release();
    }
    test.equal(await wanted[0], 'block');
  }
});

await t.test('never more than 32 questions, whoever hangs', async (test) => {
  const hanging = await Promise.all(upTo(12).map(() => startPeer(test, SMALL, 'hang')));
  const honest = await Promise.all(upTo(2).map(() => startPeer(test, SMALL, 'hold')));
  const reader = new Reader(test, SMALL, { peers: [...hanging, ...honest] });
  let put = 0;
  let most = 0;
  // What the source itself has put and has not seen the end of: a server hears of the end of a question later than that.
  const count = (): void => {
    put += 1;
    most = Math.max(most, put - reader.observations.count('peer_request'));
  };
  subscribe('undici:request:create', count);
  test.teardown(() => unsubscribe('undici:request:create', count));
  const all = reader.getAll(upTo(200));
  for (let rounds = 0; (await stateOf(all)) === 'pending' && rounds < 100; rounds += 1)
    await pass(reader.clock, 50, (step) => {
      if (step % 4 === 0) for (const peer of honest) peer.release();
    });
  test.equal(await all, '200 block');
  test.ok(put >= 224, `${put} questions`);
  test.equal(most, 32);
  test.ok(reader.count('timeout') > 0, 'who hangs gives up its place');
  await until(() => hanging.every(({ inFlight }) => inFlight === 0), 'and is told so');
});

await t.test('who owes an answer is asked nothing more until it has come', async (test) => {
  const peer = await startPeer(test, SMALL, 'hold');
  const reader = new Reader(test, SMALL, { peers: [peer] });
  const first = reader.get(0);
  await until(() => peer.held.length === 1, 'a question');
  reader.clock.advance(300);
  const second = reader.get(1);
  await until(() => peer.held.length === 2, 'another, as long as the first is not overdue');
  reader.clock.advance(25);
  const third = reader.get(2);
  await turns(20);
  test.same([await stateOf(third), peer.asked], ['pending', 2], 'but none after that');
  peer.release();
  test.same([await first, await second], ['block', 'block']);
  await until(() => peer.held.length === 1, 'the third');
  peer.release();
  test.equal(await third, 'block');
  test.same([reader.count('timeout'), reader.bans], [0, 0]);
});

await t.test('without room an overdue question gives up its place', async (test) => {
  const peers = await Promise.all(upTo(8).map(() => startPeer(test, SMALL, 'hang')));
  const finder = new TestFinder();
  finder.isExpecting = false;
  const reader = new Reader(test, SMALL, { peers, finder });
  const friend = await startPeer(test, SMALL, 'honest');
  const all = reader.getAll(upTo(40));
  const asked = (): number => peers.reduce((sum, peer) => sum + peer.asked, 0);
  await until(() => asked() === 32, '32 questions');
  finder.names(SMALL, friend, 'all');
  await pass(reader.clock, 300);
  test.same([friend.asked, reader.count('timeout')], [0, 0], 'nothing is overdue yet');
  reader.clock.advance(25);
  test.equal(await all, '40 block');
  test.ok(reader.count('timeout') >= 28, `${reader.count('timeout')} have been given up`);
  test.equal(reader.bans, 0, 'one moment of silence');
});

// --- Memory ----------------------------------------------------------------------------------------------------------------------------

await t.test('a reader that does not read has its window asked for and no more', async (test) => {
  const bytes = seededBytes(64, 8 * 1024 * 1024);
  for (const version of [1, 2] as const) {
    const of = peerContent(version, bytes);
    const peer = await startPeer(test, of, 'honest');
    const reader = new Reader(test, of, { peers: [peer] });
    await using pd = await PeerDist.open({ components: { sources: [reader.source], clock: new ManualClock() } });
    await using handle = await pd.client.openContent(Buffer.alloc(16, version));
    await handle.setContentInformation(encodeContentInformation(of.content.information));
    const stream = handle.createReadStream();
    stream.read(0);
    await once(stream, 'readable');
    let asked = -1;
    await until(() => {
      const isStill = peer.inFlight === 0 && asked === peer.blocks.length;
      asked = peer.blocks.length;
      return isStill;
    }, 'everything has been asked');
    await turns(50);
    const askedBytes = [...new Set(peer.blocks)].reduce((sum, each) => sum + of.content.block(each).length, 0);
    test.ok(askedBytes >= 3 * 1024 * 1024, `version ${version}: ${askedBytes} bytes are asked for ahead`);
    test.ok(askedBytes <= 4 * 1024 * 1024 + 512 * 1024, `version ${version}: and no more`);
    test.equal(peer.blocks.length, new Set(peer.blocks).size, 'each once');
    let at = 0;
    let isTrue = true;
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      isTrue &&= Buffer.compare(chunk, bytes.subarray(at, at + chunk.byteLength)) === 0;
      at += chunk.byteLength;
    }
    test.same([at, isTrue], [bytes.byteLength, true], 'when it does read, it gets everything');
    reader.source.close();
  }
});
