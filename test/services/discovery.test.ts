/**
 * Who has what: asking the LAN, answering it, and believing neither more than it deserves. The parts run on a clock that the test turns;
 * the whole on the loopback interface.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { platform } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  type Availability,
  decodeDiscovery,
  DISCOVERY_GROUP_IPV4,
  type DiscoveryVersion,
  encodeProbe,
  encodeProbeMatches,
  type PeerAddress,
  type Probe,
  type ProbeMatch,
  type ProbeMatches,
} from '../../lib/protocol/pccrd/index.ts';
import {
  DescribedContent,
  Discovery,
  type Holder,
  type LanInterface,
  lanInterfaces,
} from '../../lib/services/index.ts';
import type { Arrival } from '../../lib/services/discovery/multicast.ts';
import { PeerCache } from '../../lib/services/discovery/peer-cache.ts';
import { Prober } from '../../lib/services/discovery/prober.ts';
import { RateLimiter } from '../../lib/services/discovery/rate-limiter.ts';
import { Responder } from '../../lib/services/discovery/responder.ts';
import { Lookout } from '../../lib/services/peers/lookout.ts';
import { type BlockStore, blockKey, MemoryBlockStore } from '../../lib/stores/index.ts';
import { inventV2 } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { inTime, Observations, until } from '../support/proxies.ts';
import { pick, seededBytes, words } from '../support/random.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const SENDER = { messageId: 'urn:uuid:1', endpoint: 'urn:uuid:2', instanceId: 1, messageNumber: 1 };
const NEIGHBOUR: PeerAddress = { address: '192.168.0.7', port: 50_000 };

/** Segment IDs that belong to nothing. */
function ids(count: number, seed = 1): string[] {
  const bytes = Buffer.from(seededBytes(seed, 32 * count));
  return Array.from({ length: count }, (_, index) => bytes.subarray(32 * index, 32 * (index + 1)).toString('hex'));
}

function probeOf(datagram: Uint8Array | undefined): Probe {
  const message = datagram && decodeDiscovery(datagram);
  if (message === undefined || !('probe' in message)) throw new Error('no probe');
  return message.probe;
}

function matchOf(datagram: Uint8Array | undefined): ProbeMatches & { readonly match: ProbeMatch } {
  const message = datagram && decodeDiscovery(datagram);
  const match = message !== undefined && 'probeMatches' in message ? message.probeMatches.matches[0] : undefined;
  if (message === undefined || !('probeMatches' in message) || match === undefined) throw new Error('no match');
  return { ...message.probeMatches, match };
}

/** The part of a match that says what is had of a version 2 probe. */
const holding = (...availability: Availability[]): ProbeMatch['holdings'] => ({ version: 2, availability, ages: [] });

// --- RateLimiter -----------------------------------------------------------------------------------------------------------------------

await t.test('RateLimiter: so many a second for each, saved up for a second', (test) => {
  const clock = new ManualClock();
  const limiter = new RateLimiter(10, clock);
  const allowed = (key: string, times: number): number =>
    Array.from({ length: times }, () => limiter.allows(key)).filter(Boolean).length;
  test.equal(allowed('a', 100), 10);
  test.equal(allowed('b', 100), 10, 'each has its own');
  clock.advance(99);
  test.equal(allowed('a', 5), 0);
  clock.advance(1);
  test.equal(allowed('a', 5), 1);
  clock.advance(550);
  test.equal(allowed('a', 100), 5);
  clock.advance(3_600_000);
  test.equal(allowed('a', 100), 10, 'no more than a second’s worth is saved up');
  // A stranger with many names makes it forget, and never grow.
  for (let key = 0; key < 1_023; key += 1) limiter.allows(`stranger ${key}`);
  test.equal(allowed('a', 1), 0, '1,024 are remembered');
  for (let key = 0; key < 1_024; key += 1) limiter.allows(`another ${key}`);
  test.equal(allowed('a', 1), 1, 'and no more');
  test.end();
});

// --- PeerCache -------------------------------------------------------------------------------------------------------------------------

function holder(address: string, port = 80, blocks: Holder['blocks'] = 'all'): Holder {
  return { peer: { address, port }, blocks };
}

await t.test('PeerCache: what was said, by whom, for a minute', (test) => {
  const clock = new ManualClock();
  const cache = new PeerCache(clock);
  cache.add('x', holder('10.0.0.1'));
  test.same(cache.holders('x'), [], 'nobody asked about that');
  test.equal(cache.isDue('a'), true);
  cache.beginAsking('a');
  test.equal(cache.isDue('a'), false, 'asked just now');
  cache.add('a', holder('10.0.0.1', 80, 1));
  clock.advance(14_999);
  test.equal(cache.isDue('a'), false);
  cache.add('a', holder('10.0.0.2'));
  clock.advance(1);
  test.equal(cache.isDue('a'), true, 'again after 15 s');
  cache.beginAsking('a');
  test.match(cache.holders('a'), [{ peer: { address: '10.0.0.1' } }, { peer: { address: '10.0.0.2' } }]);
  clock.advance(45_000);
  test.equal(cache.holders('a').length, 2);
  clock.advance(1);
  test.match(cache.holders('a'), [{ peer: { address: '10.0.0.2' }, blocks: 'all' }], 'the older word is a minute old');
  cache.add('a', holder('10.0.0.2', 80, 3));
  test.match(cache.holders('a'), [{ blocks: 3 }], 'the newest word counts');
  clock.advance(60_001);
  test.same(cache.holders('a'), []);
  test.end();
});

await t.test('PeerCache: has room for so many and no more', (test) => {
  const clock = new ManualClock();
  const cache = new PeerCache(clock);
  cache.beginAsking('a');
  for (let port = 1; port <= 50; port += 1) cache.add('a', holder('10.0.0.1', port));
  test.equal(cache.holders('a').length, 4, 'many ports of one address are not many peers');
  for (let host = 2; host <= 50; host += 1) cache.add('a', holder(`10.0.0.${host}`));
  test.equal(cache.holders('a').length, 16);
  cache.add('a', holder('10.0.0.1', 1, 7));
  test.match(
    cache.holders('a').find(({ peer }) => peer.port === 1),
    { blocks: 7 },
    'who is known may say more',
  );
  for (let segment = 0; segment < 8_191; segment += 1) cache.beginAsking(`segment ${segment}`);
  test.equal(cache.holders('a').length, 16);
  cache.beginAsking('one more');
  test.same(cache.holders('a'), [], 'the oldest of 8,193 segments is forgotten');
  test.equal(cache.isDue('a'), true);
  cache.beginAsking('a');
  test.end();
});

await t.test('PeerCache: counts answers to the last question', (test) => {
  const clock = new ManualClock();
  const cache = new PeerCache(clock);
  test.same(cache.quorum('a', 512), { answers: 0, full: 0 });
  cache.beginAsking('a');
  cache.add('a', holder('10.0.0.1'));
  cache.add('a', holder('10.0.0.1'));
  cache.add('a', holder('10.0.0.2', 80, 3));
  test.match(cache.quorum('a', 512), { answers: 2, full: 1 }, 'each once');
  clock.advance(20_000);
  cache.beginAsking('a');
  test.match(cache.quorum('a', 512), { answers: 0, full: 0 });
  cache.add('a', holder('10.0.0.1', 80, 1));
  test.match(cache.quorum('a', 512), { answers: 1, full: 0 });
  test.end();
});

// --- Prober ----------------------------------------------------------------------------------------------------------------------------

class Asking {
  readonly clock = new ManualClock();
  readonly observations = new Observations();
  readonly sent: Uint8Array[] = [];
  readonly prober = new Prober({
    send: (datagram) => this.sent.push(datagram),
    observer: this.observations.observer,
    clock: this.clock,
  });

  /** The probes that have gone out since. */
  probes(): Probe[] {
    return this.sent.splice(0).map(probeOf);
  }

  /** Asks about one segment, at once. */
  ask(id: string, version: DiscoveryVersion = 2): Probe {
    this.prober.seek([id], version);
    this.clock.advance(5);
    const [probe] = this.probes();
    if (probe === undefined) throw new Error('no probe');
    return probe;
  }

  answer(
    { messageId }: Pick<Probe, 'messageId'>,
    holdings: ProbeMatch['holdings'],
    { address, port }: PeerAddress = NEIGHBOUR,
    addresses: readonly PeerAddress[] = [{ address, port: 8_080 }],
  ): boolean {
    return this.prober.take({ relatesTo: messageId, matches: [{ addresses, holdings }] }, { address, port });
  }
}

await t.test('Prober: many segments, one question', (test) => {
  const asking = new Asking();
  const { prober, clock } = asking;
  const all = ids(300);
  prober.seek(all.slice(0, 10), 2);
  prober.seek(all.slice(5, 20), 2);
  prober.seek(all.slice(20, 22), 1);
  clock.advance(4);
  test.equal(asking.sent.length, 0, 'for five milliseconds it collects');
  clock.advance(1);
  test.match(asking.probes(), [
    { version: 2, segmentIds: all.slice(0, 20) },
    { version: 1, segmentIds: all.slice(20, 22) },
  ]);
  prober.seek(all.slice(0, 22), 2);
  clock.advance(10);
  test.equal(asking.sent.length, 0, 'nothing is asked twice');
  prober.seek(all.slice(22), 2);
  test.equal(asking.sent.length, 2, 'a full probe goes at once');
  clock.advance(5);
  test.same(
    asking.probes().map(({ segmentIds }) => segmentIds.length),
    [128, 128, 22],
  );
  test.same(
    asking.observations.all,
    Array.from({ length: 5 }, () => ({ type: 'discovery', message: 'probe_sent' })),
  );
  clock.advance(15_000);
  prober.seek(all.slice(0, 2), 2);
  clock.advance(5);
  test.match(asking.probes(), [{ segmentIds: all.slice(0, 2) }], 'after a while they may be');
  test.end();
});

await t.test('Prober: 4 GB in version 2 are 500 questions, not 64,000', (test) => {
  const asking = new Asking();
  const count = 64_000;
  const content = new DescribedContent(
    inventV2(
      Array.from({ length: count }, () => 65_536),
      3,
    ),
    nativeHashProvider,
  );
  const lookout = new Lookout(asking.prober, asking.clock);
  let datagramBytes = 0;
  const asked = new Set<string>();
  for (let segment = 0; segment < count; segment += 1) {
    lookout.reach(content, segment, count - 1);
    if (segment % 16 !== 0) continue;
    // A gigabit: 65,536 bytes in half a millisecond.
    asking.clock.advance(8);
    for (const datagram of asking.sent.splice(0)) {
      datagramBytes = Math.max(datagramBytes, datagram.byteLength);
      for (const id of probeOf(datagram).segmentIds) asked.add(id);
    }
    if (!asked.has(content.segmentId(segment))) test.fail(`segment ${segment} is wanted and was not asked about`);
  }
  const probes = asking.observations.all.length;
  test.ok(probes >= 500 && probes <= 510, `${probes} probes`);
  test.equal(asked.size, count, 'about all of them');
  test.ok(datagramBytes < 8_192, `${datagramBytes} bytes in a datagram`);
  test.end();
});

await t.test('Prober: no more than 50 questions a second', (test) => {
  const asking = new Asking();
  for (const id of ids(70)) {
    asking.prober.seek([id], 2);
    asking.clock.advance(5);
  }
  // 50 saved up, and 0.35 s worth of more.
  test.ok(asking.sent.length >= 60 && asking.sent.length <= 67, `${asking.sent.length} of 70`);
  test.equal(asking.prober.awaited(ids(70).at(-1) as string), undefined, 'nobody waits for what was not asked');
  asking.clock.advance(1_000);
  asking.sent.length = 0;
  for (const id of ids(10, 2)) {
    asking.prober.seek([id], 2);
    asking.clock.advance(5);
  }
  test.equal(asking.sent.length, 10);
  test.end();
});

await t.test('Prober: waits for the first answer, and less each time that none comes', async (test) => {
  const asking = new Asking();
  const { prober, clock } = asking;
  const all = ids(40);
  const waits: (number | undefined)[] = [];
  const wait = async (id: string): Promise<number | undefined> => {
    asking.ask(id);
    const awaited = prober.awaited(id);
    if (awaited === undefined) return undefined;
    let ms = 0;
    while ((await stateOf(awaited)) === 'pending') {
      clock.advance(1);
      ms += 1;
    }
    test.equal(prober.awaited(id), undefined, 'once');
    return ms;
  };
  for (const id of all.slice(0, 11)) waits.push(await wait(id));
  test.same(waits, [300, 150, 75, 38, 19, 10, 5, 3, 2, undefined, undefined]);

  const probe = asking.ask(all[20] as string);
  test.equal(asking.answer(probe, holding('none')), false, 'no answer worth the name');
  test.equal(prober.awaited(all[20] as string), undefined);
  test.equal(asking.answer(probe, holding('some')), true);
  test.equal(await wait(all[21] as string), 300, 'the first answer restores it');

  const last = asking.ask(all[22] as string);
  const awaited = prober.awaited(all[22] as string) as Promise<void>;
  test.equal(await stateOf(awaited), 'pending');
  asking.answer(last, holding('all'));
  test.equal(await stateOf(awaited), 'fulfilled', 'which is all that anybody waits for');
  clock.advance(300);
  test.equal(await wait(all[23] as string), 300, 'and its timer, when it runs out, takes nothing back');
  test.equal(await wait(all[24] as string), 150);
});

await t.test('Prober: believes answers to its own questions, about what was asked, from where they come', (test) => {
  const asking = new Asking();
  const { prober, clock } = asking;
  const [a, b, c, other] = ids(4) as [string, string, string, string];
  prober.seek([a, b, c], 2);
  clock.advance(5);
  const [probe] = asking.probes() as [Probe];
  test.equal(asking.answer({ messageId: 'urn:uuid:unknown' }, holding('all', 'all', 'all')), false);
  test.equal(asking.answer(probe, holding('all'), NEIGHBOUR, []), false, 'it names no place');
  const elsewhere = [
    { address: '192.168.0.8', port: 80 },
    { address: '8.8.8.8', port: 80 },
  ];
  test.equal(asking.answer(probe, holding('all'), NEIGHBOUR, elsewhere), false, 'nor may anybody name another');
  test.same([prober.holders(a), prober.holders(b)], [[], []]);
  test.equal(
    asking.answer(probe, holding('all', 'none', 'some', 'all', 'all'), NEIGHBOUR, [
      ...elsewhere,
      { address: NEIGHBOUR.address, port: 4_711 },
    ]),
    true,
  );
  const peer = { address: NEIGHBOUR.address, port: 4_711 };
  test.match(prober.holders(a), [{ peer, blocks: 'all' }]);
  test.same(prober.holders(b), []);
  test.match(prober.holders(c), [{ peer, blocks: 1 }]);

  const linkLocal = { address: 'fe80::17%eth0', port: 1_024 };
  test.equal(asking.answer(probe, holding('all'), linkLocal, [{ address: 'FE80::17', port: 80 }]), true);
  test.match(prober.holders(a)[1], { peer: { address: 'fe80::17%eth0', port: 80 } }, 'with the zone it needs');

  const v1 = asking.ask(other, 1);
  const counts = new Map([
    [other, 5],
    [a, 9],
    ['ff'.repeat(32), 1],
  ]);
  test.equal(asking.answer(v1, { version: 1, blockCounts: counts }), true);
  test.match(prober.holders(other), [{ blocks: 5 }]);
  test.same(prober.holders('ff'.repeat(32)), [], 'nobody asked about that');
  test.equal(asking.answer(v1, { version: 1, blockCounts: new Map([[other, 0]]) }), false);
  test.equal(prober.isOwn(v1.messageId), true);
  clock.advance(4_999);
  test.equal(asking.answer(v1, { version: 1, blockCounts: counts }), true, 'late answers are good');
  clock.advance(1);
  test.equal(asking.answer(v1, { version: 1, blockCounts: counts }), false, 'for five seconds');
  test.equal(prober.isOwn(v1.messageId), false);
  test.end();
});

await t.test('Prober: who is there says nothing of who has what', async (test) => {
  const clock = new ManualClock();
  const sent: Uint8Array[] = [];
  const [beacon, segment] = ids(2, 8) as [string, string];
  const prober = new Prober({ send: (datagram) => sent.push(datagram), beacon, observer: () => {}, clock });
  for (let round = 0; round < 20; round += 1) {
    prober.seek([beacon], 2);
    test.same(probeOf(sent.at(-1)).segmentIds, [beacon], 'a question of its own, at once');
    clock.advance(15_000);
  }
  prober.seek([segment, beacon], 2);
  clock.advance(5);
  test.same(
    sent.slice(-2).map((datagram) => probeOf(datagram).segmentIds),
    [[beacon], [segment]],
  );
  test.ok(prober.awaited(segment), 'readers are as patient as ever');
  const answer: ProbeMatch = { addresses: [{ address: NEIGHBOUR.address, port: 8008 }], holdings: holding('all') };
  test.ok(prober.take({ relatesTo: probeOf(sent.at(-2)).messageId, matches: [answer] }, NEIGHBOUR));
  test.match(prober.holders(beacon), [{ peer: { address: NEIGHBOUR.address, port: 8008 } }]);
  test.same(prober.holders(segment), []);
  prober.close();
});

await t.test('Prober: close lets everybody go and asks nothing more', async (test) => {
  const asking = new Asking();
  const [a, b, c] = ids(3) as [string, string, string];
  asking.ask(a);
  asking.prober.seek([b], 2);
  const awaited = [a, b].map((id) => asking.prober.awaited(id) as Promise<void>);
  asking.prober.close();
  test.same(await Promise.all(awaited.map(stateOf)), ['fulfilled', 'fulfilled']);
  asking.prober.seek([c], 2);
  asking.clock.advance(10_000);
  test.same([asking.sent.length, asking.prober.awaited(c), asking.clock.pending], [0, undefined, 0]);
});

// --- Responder -------------------------------------------------------------------------------------------------------------------------

const LAN: LanInterface = { name: 'test', family: 4, address: '192.168.0.1', contains: () => true };

function arrivalFrom(address: string, port = 50_000, datagram: Uint8Array = new Uint8Array(0)): Arrival {
  return { datagram, source: { address, port }, via: LAN };
}

interface AnsweringOptions {
  readonly store?: BlockStore;
  readonly port?: number | undefined;
  readonly beacon?: string;
  readonly quorum?: { readonly answers: number; readonly full: number };
}

class Answering {
  readonly clock = new ManualClock();
  readonly store = new MemoryBlockStore({ maxBytes: 1_000_000, clock: this.clock });
  readonly replies: Uint8Array[] = [];
  readonly responder: Responder;
  quorum = { answers: 0, full: 0 };
  random = 0;
  #probes = 0;

  constructor(options: AnsweringOptions = {}) {
    const port = 'port' in options ? options.port : 8_080;
    this.quorum = options.quorum ?? this.quorum;
    this.responder = new Responder({
      store: options.store ?? this.store,
      beacon: options.beacon,
      portOn: () => port,
      reply: (datagram) => this.replies.push(datagram),
      quorum: () => this.quorum,
      observer: () => {},
      clock: this.clock,
      random: () => this.random,
    });
  }

  /** Puts blocks of a segment into the store. */
  hold(id: string, blocks: readonly number[], blockCount = 1): this {
    for (const block of blocks)
      this.store.set(blockKey(id, block), seededBytes(1, 10), 'test', { secret: seededBytes(2, 32), blockCount });
    return this;
  }

  probe(segmentIds: readonly string[], version: DiscoveryVersion = 2): Probe {
    this.#probes += 1;
    return { messageId: `urn:uuid:${this.#probes}`, version, segmentIds };
  }

  take(probe: Probe, address = NEIGHBOUR.address, port?: number): Promise<boolean> {
    return this.responder.take(probe, arrivalFrom(address, port));
  }

  /** What comes of a question after every back-off. */
  async ask(segmentIds: readonly string[], version: DiscoveryVersion = 2, address?: string): Promise<Uint8Array[]> {
    await this.take(this.probe(segmentIds, version), address);
    this.clock.advance(65);
    return this.replies.splice(0);
  }
}

await t.test('Responder: says what is held, in the form it was asked', async (test) => {
  const answering = new Answering();
  const [all, some, none, later] = ids(4) as [string, string, string, string];
  answering.hold(all, [0]).hold(some, [0, 2, 3], 512);
  answering.clock.advance(1_000);
  answering.hold(later, [0]);
  const probe = answering.probe([none, some, all, later]);
  test.equal(await answering.take(probe), true);
  answering.clock.advance(65);
  const [reply] = answering.replies.splice(0);
  const { relatesTo, match } = matchOf(reply);
  test.equal(relatesTo, probe.messageId);
  test.same(match.addresses, [{ address: LAN.address, port: 8_080 }], 'the place is on the interface it came by');
  test.match(match.holdings, { version: 2, availability: ['none', 'some', 'all', 'all'] });
  if (match.holdings.version === 2)
    test.same(
      match.holdings.ages.map(({ index, ageMs }) => [index, Math.floor(ageMs / 100)]),
      [
        [1, 10],
        [2, 10],
        [3, 0],
      ],
    );

  const [v1] = await answering.ask([none, some, all, later], 1);
  const counts = matchOf(v1).match.holdings;
  test.equal(counts.version, 1);
  if (counts.version === 1)
    test.same(
      [...counts.blockCounts],
      [
        [some, 3],
        [all, 1],
        [later, 1],
      ],
      'iPXE asks so about segments of version 2 as well',
    );
  const text = Buffer.from(v1 as Uint8Array).toString();
  for (const literal of ['<wsd:Scopes>', '<wsd:XAddrs>', '<PeerDist:BlockCount>'])
    test.ok(text.includes(literal), `${literal}, for which iPXE searches`);
  test.ok(text.includes(some.toUpperCase()), 'upper case, as it compares');
});

await t.test('Responder: stays silent where there is nothing to say or nobody to give it', async (test) => {
  const [a, b] = ids(2) as [string, string];
  const silent: [string, Answering][] = [
    ['nothing is held', new Answering()],
    ['nothing listens', new Answering({ port: undefined }).hold(a, [0])],
    ['only other segments are held', new Answering().hold(b, [0])],
    ['the store throws', new Answering({ store: brokenStore('throws') })],
    ['the store fails', new Answering({ store: brokenStore('rejects') })],
  ];
  for (const [what, answering] of silent) {
    test.same(await answering.ask([a]), [], what);
    test.equal(answering.clock.pending, 0, `${what}: no timer`);
  }
  const own = new Answering();
  own.store.set(blockKey(a, 0), seededBytes(1, 10), 'test');
  test.same(await own.ask([a]), [], 'blocks that are for their owner alone');
});

await t.test('Responder: says that it is there, however many have said so', async (test) => {
  const [beacon, other] = ids(2) as [string, string];
  const answering = new Answering({ beacon, quorum: { answers: 20, full: 20 }, store: brokenStore('rejects') });
  const [reply] = await answering.ask([beacon]);
  test.match(matchOf(reply).match, { holdings: holding('all'), addresses: [{ address: LAN.address, port: 8_080 }] });
  test.same(await answering.ask([other]), []);
  test.same(await new Answering({ beacon, port: undefined }).ask([beacon]), [], 'who gives nothing is nobody');
});

function brokenStore(how: 'throws' | 'rejects'): BlockStore {
  const store = new MemoryBlockStore({ maxBytes: 1_000 });
  return Object.assign(Object.create(store) as BlockStore, {
    segment: (): Promise<undefined> => {
      if (how === 'throws') throw new Error('the disk is gone');
      return Promise.reject(new Error('the disk is gone'));
    },
  });
}

await t.test('Responder: answers after 1 to 65 ms', async (test) => {
  const [id] = ids(1) as [string];
  for (const [random, ms] of [
    [0, 1],
    [0.5, 33],
    [0.999_999, 65],
  ] as const) {
    const answering = new Answering().hold(id, [0]);
    answering.random = random;
    await answering.take(answering.probe([id]));
    answering.clock.advance(ms - 1);
    test.equal(answering.replies.length, 0);
    answering.clock.advance(1);
    test.equal(answering.replies.length, 1, `${ms} ms`);
  }
});

await t.test('Responder: a repetition on the way is no second question', async (test) => {
  const [id] = ids(1) as [string];
  const answering = new Answering().hold(id, [0]);
  answering.random = 0.5;
  const probe = answering.probe([id]);
  await Promise.all([answering.take(probe), answering.take(probe), answering.take(probe)]);
  await answering.take(probe);
  answering.clock.advance(33);
  test.equal(answering.replies.length, 1);
  await answering.take(probe);
  answering.clock.advance(400);
  await answering.take(probe);
  answering.clock.advance(66);
  test.equal(answering.replies.length, 1);
  await answering.take(probe, '192.168.0.8');
  await answering.take(probe, NEIGHBOUR.address, 50_001);
  answering.clock.advance(65);
  test.equal(answering.replies.length, 3, 'but the same name from elsewhere is');
  answering.clock.advance(600);
  await answering.take(probe);
  answering.clock.advance(65);
  test.equal(answering.replies.length, 4, 'and so is the same after half a second');
});

await t.test('Responder: when enough others have answered', async (test) => {
  const [id] = ids(1) as [string];
  for (const [answers, full, random, isAnswered] of [
    [0, 0, 0.99, true],
    [9, 9, 0.99, true],
    [9, 0, 0.99, true],
    [10, 10, 0, false],
    [30, 10, 0, false],
    [10, 9, 0.329, true],
    [10, 9, 0.331, false],
    [16, 0, 0.99, false],
    [16, 0, 0, true],
  ] as const) {
    const answering = new Answering({ quorum: { answers, full } }).hold(id, [0]);
    answering.random = random;
    test.equal((await answering.ask([id])).length === 1, isAnswered, `${answers} answers, ${full} full, ${random}`);
  }
});

await t.test('Responder: so many answers to each, so many in all, and none after the end', async (test) => {
  const [id] = ids(1) as [string];
  const answering = new Answering().hold(id, [0]);
  const taken = async (address: string, count: number): Promise<number> => {
    const results = await Promise.all(
      Array.from({ length: count }, () => answering.take(answering.probe([id]), address)),
    );
    return results.filter(Boolean).length;
  };
  test.equal(await taken('192.168.0.7', 250), 200, 'to one address');
  test.equal(await taken('192.168.0.8', 200), 200, 'another has its own');
  for (const host of [9, 10, 11]) test.equal(await taken(`192.168.0.${host}`, 200), 200);
  test.equal(await taken('192.168.0.12', 200), 24, '1,024 in all');
  answering.clock.advance(65);
  test.equal(answering.replies.length, 1_024);
  test.equal(await taken('192.168.0.13', 10), 0, 'repetitions are remembered for a while');
  answering.clock.advance(500);
  test.equal(await taken('192.168.0.13', 10), 10);
  answering.responder.close();
  answering.clock.advance(1_000);
  test.equal(answering.replies.length, 1_024);
  test.equal(answering.clock.pending, 0);
});

// --- The whole -------------------------------------------------------------------------------------------------------------------------

/** Why multicast cannot be used on the loopback interface here; undefined where it can. */
async function loopbackTrouble(): Promise<string | undefined> {
  if (platform() !== 'linux') return 'the name and the abilities of the loopback interface are known on Linux only';
  if (!lanInterfaces(['lo']).some(({ family }) => family === 4)) return 'the loopback interface has no IPv4 address';
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  try {
    socket.bind(0);
    await once(socket, 'listening');
    socket.addMembership(DISCOVERY_GROUP_IPV4, '127.0.0.1');
    socket.setMulticastInterface('127.0.0.1');
    const heard = once(socket, 'message').then(() => undefined);
    socket.send('?', socket.address().port, DISCOVERY_GROUP_IPV4);
    return await Promise.race([heard, pause(2_000, 'multicast on the loopback interface does not arrive')]);
  } catch (error) {
    return `multicast on the loopback interface is not permitted: ${(error as Error).message}`;
  } finally {
    socket.close();
  }
}

const trouble = await loopbackTrouble();

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4');
  socket.bind(0);
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  return port;
}

class Neighbour {
  readonly observations = new Observations();
  readonly store = new MemoryBlockStore({ maxBytes: 1_000_000 });
  discovery!: Discovery;

  static async open(
    t: Pick<Test, 'teardown'>,
    port: number,
    listensAt?: number,
    clock?: ManualClock,
  ): Promise<Neighbour> {
    const neighbour = new Neighbour();
    neighbour.discovery = await Discovery.open({
      store: neighbour.store,
      portOn: () => listensAt,
      interfaces: ['lo'],
      port,
      observer: neighbour.observations.observer,
      clock,
    });
    t.teardown(() => neighbour.discovery.close());
    return neighbour;
  }

  hold(id: string): void {
    this.store.set(blockKey(id, 0), seededBytes(1, 10), 'test', { secret: seededBytes(2, 32), blockCount: 1 });
  }

  /** Datagrams of a kind. */
  count(message: string): number {
    return this.observations.all.filter((each) => each.type === 'discovery' && each.message === message).length;
  }
}

await t.test('neighbours find each other’s segments', { skip: trouble ?? false }, async (test) => {
  const port = await freeUdpPort();
  const one = await Neighbour.open(test, port, 4_711);
  const other = await Neighbour.open(test, port, 4_712);
  const deaf = await Neighbour.open(test, port);
  const [a, b, c] = ids(3) as [string, string, string];
  one.hold(a);
  other.hold(b);
  deaf.hold(c);
  for (const [asker, version, id, holderPort] of [
    [other, 2, a, 4_711],
    [one, 2, b, 4_712],
    [deaf, 1, a, 4_711],
    [deaf, 1, b, 4_712],
  ] as const) {
    asker.discovery.seek([id], version);
    // Most often by the first answer; where the machine is slow, by a later one.
    await inTime(asker.discovery.awaited(id) ?? Promise.resolve(), 'the first answer');
    await until(() => asker.discovery.holders(id).length === 1, 'somebody answers');
    test.match(asker.discovery.holders(id), [{ peer: { address: '127.0.0.1', port: holderPort } }]);
  }
  one.discovery.seek([c], 2);
  await inTime(one.discovery.awaited(c) ?? Promise.resolve(), 'the wait for nobody');
  test.same(one.discovery.holders(c), [], 'who gives nothing says nothing');
  test.ok(one.count('match_sent') >= 2 && other.count('match_sent') >= 2);
  test.same([deaf.count('match_sent'), deaf.count('dropped'), one.count('dropped')], [0, 0, 0]);
  const sent = [one, other, deaf].map((each) => each.count('probe_sent'));
  test.same(sent, [2, 1, 2]);
  const received = (): number[] => [one, other, deaf].map((each) => each.count('probe_received'));
  await until(() => received().reduce((sum, count) => sum + count) >= 10, 'all of them have arrived');
  test.same(received(), [3, 4, 3], 'nobody takes his own question for somebody else’s');
});

/** What may come from a hostile neighbour: malformed, and well-formed to no good end. */
function hostileDatagrams(): { readonly dropped: readonly Uint8Array[]; readonly ignored: readonly Uint8Array[] } {
  const [id] = ids(1) as [string];
  const probe = Buffer.from(encodeProbe({ messageId: 'urn:uuid:1', version: 2, segmentIds: [id] })).toString();
  const inside = (text: string): Buffer => Buffer.from(probe.replace('<wsd:Probe>', `<wsd:Probe>${text}`));
  const scopes = (base64: string): Buffer => Buffer.from(probe.replace(/(?<=<wsd:Scopes[^>]*>)[^<]*/, base64));
  const laughs = Array.from({ length: 9 }, (_, n) => `<!ENTITY l${n + 1} "${`&l${n};`.repeat(10)}">`).join('');
  return {
    dropped: [
      new Uint8Array(0),
      seededBytes(5, 1_000),
      Buffer.alloc(60_000, 'a'),
      Buffer.from(probe.replace('?>', '?><!DOCTYPE x SYSTEM "file:///etc/passwd">')),
      Buffer.from(probe.replace('?>', `?><!DOCTYPE x [<!ENTITY l0 "ha">${laughs}]>`).replace('PeerDistDataV2', '&l9;')),
      inside('<a>'.repeat(5_000)),
      inside('<a/>'.repeat(5_000)),
      inside('<a>'.repeat(1_500) + '</a>'.repeat(1_500)),
      inside(`<wsd:Scopes>${'AAAA'.repeat(6_000)}</wsd:Scopes>`),
      scopes(''),
      scopes('AAA'),
      scopes('ACD/'),
      scopes(Buffer.from([0, 32, 2]).toString('base64') + 'A'.repeat(40)),
      Buffer.from(probe.slice(0, probe.length / 2)),
      Buffer.from(probe.replace('urn:uuid:1', `urn:uuid:${'1'.repeat(500)}`)),
      Buffer.from(probe.replace('urn:uuid:1', '&lt;x/&gt;')),
      Buffer.from(probe.replace('</soap:Envelope>', '</soap:Envelope><x/>')),
      encodeProbeMatches(SENDER, 'urn:uuid:unknown', {
        addresses: [{ address: '127.0.0.1', port: 80 }],
        holdings: holding('all'),
      }),
    ],
    ignored: [
      inside(`<a ${Array.from({ length: 2_000 }, (_, n) => `a${n}=""`).join(' ')}/>`),
      inside(`<a ${Array.from({ length: 900 }, (_, n) => `xmlns:a${n}="u:${n}"`).join(' ')}/>`),
      inside(`<b>${'&amp;'.repeat(3_000)}</b>`),
    ],
  };
}

await t.test('hostile datagrams are dropped, counted, and kill nothing', { skip: trouble ?? false }, async (test) => {
  const port = await freeUdpPort();
  const victim = await Neighbour.open(test, port, 4_711);
  const asker = await Neighbour.open(test, port);
  const attacker = createSocket('udp4');
  test.teardown(() => attacker.close());
  attacker.bind(0, '127.0.0.1');
  await once(attacker, 'listening');
  attacker.setMulticastInterface('127.0.0.1');
  const { dropped, ignored } = hostileDatagrams();
  for (const [index, datagram] of dropped.entries()) {
    await send(attacker, datagram, port);
    await until(() => victim.count('dropped') > index, `hostile datagram ${index} is dropped`);
  }
  for (const [index, datagram] of ignored.entries()) {
    await send(attacker, datagram, port);
    await until(
      () => victim.count('probe_received') > index,
      `strange datagram ${index} is a question about nothing held`,
    );
  }
  test.same([victim.count('dropped'), victim.count('match_sent')], [dropped.length, 0]);

  const [id] = ids(1) as [string];
  victim.hold(id);
  for (let count = 0; count < 5_000; count += 1) {
    const datagram = encodeProbe({ messageId: `urn:uuid:${count}`, version: 2, segmentIds: [id] });
    attacker.send(datagram, port, DISCOVERY_GROUP_IPV4);
    if (count % 100 === 0) await turns(2);
  }
  await until(() => victim.count('dropped') > 100, 'too many are dropped');
  await pause(100);
  test.ok(victim.count('match_sent') <= 1_000, `${victim.count('match_sent')} answers to a flood`);

  // From the same address, and so from what the flood has left of its share.
  let round = 0;
  const found = (): boolean => asker.discovery.holders(id).length > 0;
  while (!found() && round < 20) {
    const fresh = ids(1, 100 + round)[0] as string;
    victim.hold(fresh);
    asker.discovery.seek([id, fresh], 2);
    await until(() => found() || asker.discovery.holders(fresh).length > 0, 'an answer', 1_000).catch(() => {});
    if (asker.discovery.holders(fresh).length > 0) break;
    round += 1;
  }
  test.ok(round < 20, 'afterwards neighbours are answered as before');
});

function send(socket: Socket, datagram: Uint8Array, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(datagram, port, DISCOVERY_GROUP_IPV4, (error) => (error === null ? resolve() : reject(error)));
  });
}

await t.test(
  'whatever a datagram holds, it is read in no time and nothing is thrown',
  { skip: trouble ?? false },
  async (test) => {
    const clock = new ManualClock();
    const { discovery, observations, store } = await Neighbour.open(test, await freeUdpPort(), 4_711, clock);
    const [id] = ids(1) as [string];
    store.set(blockKey(id, 0), seededBytes(1, 10), 'test', { secret: seededBytes(2, 32), blockCount: 1 });
    const take = (datagram: Uint8Array, source: number): void => {
      // Each from an address of its own, and time enough between them.
      clock.advance(10);
      discovery.receive(
        arrivalFrom(`10.${(source >> 16) & 255}.${(source >> 8) & 255}.${source & 255}`, 1_024, datagram),
      );
    };
    const { dropped, ignored } = hostileDatagrams();
    for (const [index, datagram] of [...dropped, ...ignored].entries()) {
      const before = performance.now();
      for (let times = 0; times < 5; times += 1) take(datagram, index);
      const ms = (performance.now() - before) / 5;
      test.ok(ms < 250, `${ms.toFixed(1)} ms for hostile datagram ${index}`);
    }
    const seeds = [
      encodeProbe({ messageId: 'urn:uuid:1', version: 1, segmentIds: [id] }),
      encodeProbe({ messageId: 'urn:uuid:1', version: 2, segmentIds: [id] }),
      encodeProbeMatches(SENDER, 'urn:uuid:1', {
        addresses: [{ address: '127.0.0.1', port: 80 }],
        holdings: holding('all', 'some', 'none'),
      }),
      encodeProbeMatches(SENDER, 'urn:uuid:1', {
        addresses: [{ address: 'fe80::1', port: 80 }],
        holdings: { version: 1, blockCounts: new Map([[id, 3]]) },
      }),
    ];
    const next = words(90);
    const alphabet = Buffer.from('<>/&;:="\'!? \0\xff[]-%#0aAz', 'latin1');
    const before = observations.all.length;
    for (let count = 0; count < 6_000; count += 1) {
      const datagram = Buffer.from(seeds[count % seeds.length] as Uint8Array);
      for (let change = 0; change <= pick(next, 3); change += 1)
        datagram[pick(next, datagram.byteLength)] = alphabet[pick(next, alphabet.byteLength)] as number;
      const from = pick(next, 4) === 0 ? pick(next, datagram.byteLength) : 0;
      take(datagram.subarray(from, pick(next, 4) === 0 ? pick(next, datagram.byteLength) : undefined), count);
    }
    await turns(20);
    test.ok(observations.all.length - before >= 5_500, 'each was looked at');
    clock.advance(1_000);
  },
);

await t.test(
  'a neighbour has its share of attention, and all of them together have theirs',
  { skip: trouble ?? false },
  async (test) => {
    const clock = new ManualClock();
    const victim = await Neighbour.open(test, await freeUdpPort(), 4_711, clock);
    const flood = (source: string, count: number): number => {
      const before = victim.count('probe_received');
      for (let each = 0; each < count; each += 1) {
        const datagram = encodeProbe({ messageId: `urn:uuid:${each}`, version: 2, segmentIds: ids(1) });
        victim.discovery.receive(arrivalFrom(source, 1_024, datagram));
      }
      return victim.count('probe_received') - before;
    };
    test.equal(flood('10.0.0.1', 1_000), 400);
    test.equal(flood('10.0.0.2', 400), 400, 'another is not hurt by that');
    for (const host of [3, 4, 5]) test.equal(flood(`10.0.0.${host}`, 400), 400);
    test.equal(flood('10.0.0.6', 400), 0, '2,000 a second in all');
    clock.advance(1_000);
    test.equal(flood('10.0.0.6', 400), 400);
  },
);

await t.test('interfaces that cannot be used', async (test) => {
  const failure = await failureOf(
    Discovery.open({ store: new MemoryBlockStore({ maxBytes: 1 }), interfaces: ['no such thing'] }),
  );
  test.ok(isPeerDistError(failure, 'ERR_PEERDIST_INVALID_OPTION'));
  test.match(failure, { message: /no such thing.*it has/ });
  for (const lan of lanInterfaces()) test.notOk(lan.address.startsWith('127.'), 'loopback is used by those who say so');
  const [loopback] = platform() === 'linux' ? lanInterfaces(['lo']) : [];
  if (loopback !== undefined) {
    test.same(
      ['127.0.0.1', '127.255.0.1', '128.0.0.1', '10.0.0.1', '::1', 'x', ''].map((each) => loopback.contains(each)),
      [true, true, false, false, false, false, false],
    );
  }
});
