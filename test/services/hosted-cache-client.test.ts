/**
 * The client side of a hosted cache: whom a branch asks for what, and what it offers. The hosted caches are real; time passes when the test
 * says so.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import {
  type BatchedOffer,
  decodeOffer,
  encodeOfferResponse,
  MAX_DESCRIPTORS,
  V2_OFFER_PATH,
} from '../../lib/protocol/pchc/index.ts';
import { decodeRequest, encodeResponse, type GetSegmentList, rangesOf } from '../../lib/protocol/pccrr/index.ts';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import {
  BlockBroker,
  type BlockRequest,
  type BlockSource,
  createLanHttpServer,
  createSealedSource,
  DescribedContent,
  Offers,
  openHoldings,
  PeerSource,
  RetrievalServer,
  SealingStore,
  SegmentLists,
} from '../../lib/services/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { describe } from '../support/content-information.ts';
import { BLOCK_BYTES, HostedRig, isFoundIn } from '../support/hosted.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { listen } from '../support/net.ts';
import { blockOf, peerContent, type PeerContent, smallSegments, startPeer } from '../support/peers.ts';
import { inTime, Observations, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { turns } from '../support/turns.ts';

const [A, B] = ['127.0.0.2', '127.0.0.3'] as const;
const GATHER_MS = 1_000;
const RETRY_MS = 15_000;
const ASK_AGAIN_MS = 15_000;

const V1 = peerContent(1, seededBytes(81, 10 * BLOCK_BYTES));
const V2 = peerContent(2, seededBytes(82, 6 * BLOCK_BYTES + 100));
const SMALL = smallSegments(seededBytes(83, 20_000), 1_000);
const MANY = smallSegments(seededBytes(84, 300_000), 1_000);

const never = new AbortController().signal;

function upTo(count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, index) => from + index);
}

function idOf({ content }: PeerContent, ordinal: number): string {
  return content.segmentId(content.block(ordinal).segment);
}

/** `3 block, 1 nothing` */
function tally(results: readonly string[]): string {
  const names = [...new Set(results)].toSorted();
  return names.map((name) => `${results.filter((each) => each === name).length} ${name}`).join(', ');
}

/** A hosted cache that writes down what it is told and answers as it is told. */
class Listener {
  readonly offers: BatchedOffer[] = [];
  /** How many segments each question named. */
  readonly lists: number[] = [];
  answers: 'ok' | 'interested' | '500' | 'hangs' | 'nonsense' | 'malformed list' = 'ok';
  /** Positions of segments it says it has. */
  holds: (id: string) => boolean = () => false;
  connections = 0;
  readonly server: Server;

  private constructor() {
    this.server = createServer((request, response) => {
      void (async () => {
        const chunks: Buffer[] = [];
        for await (const chunk of request) chunks.push(chunk as Buffer);
        const body = Buffer.concat(chunks);
        const answer = request.url === V2_OFFER_PATH ? this.#offered(body) : this.#asked(body);
        if (this.answers === 'hangs') return;
        if (this.answers === '500') response.writeHead(500, { 'content-length': 0 }).end();
        else response.end(this.answers === 'nonsense' ? 'nonsense' : answer);
      })().catch(() => response.destroy());
    });
    this.server.on('connection', () => (this.connections += 1));
  }

  static async start(t: Pick<Test, 'teardown'>, answers: Listener['answers'] = 'ok'): Promise<Listener> {
    const listener = new Listener();
    listener.answers = answers;
    await listen(t, listener.server);
    return listener;
  }

  get address(): { readonly address: string; readonly port: number } {
    return { address: '127.0.0.1', port: (this.server.address() as AddressInfo).port };
  }

  /** Segment IDs of all offers. */
  get segments(): string[] {
    return this.offers.flatMap(({ segments }) => segments.map(({ segmentId }) => toHex(segmentId)));
  }

  #offered(body: Buffer): Uint8Array {
    this.offers.push(decodeOffer(body) as BatchedOffer);
    return encodeOfferResponse(this.answers === 'interested' ? 'interested' : 'ok');
  }

  #asked(body: Buffer): Uint8Array {
    const { requestId, segmentIds } = decodeRequest(body) as GetSegmentList;
    this.lists.push(segmentIds.length);
    const held = [...segmentIds.keys()].filter((index) => this.holds(toHex(segmentIds[index] as Uint8Array)));
    const ranges = rangesOf(held);
    const answer = encodeResponse({ type: 'segment-list', cipher: 'none', requestId, ranges, blob: new Uint8Array(0) });
    return this.answers === 'malformed list' ? answer.subarray(0, -6) : answer;
  }
}

/** An address where nobody listens. */
async function nobody(t: Pick<Test, 'teardown'>): Promise<{ readonly address: string; readonly port: number }> {
  const listener = await Listener.start(t);
  const { address } = listener;
  await new Promise((resolve) => listener.server.close(resolve));
  return address;
}

// --- Who has what ------------------------------------------------------------------------------------------------------------------------

class Reader {
  readonly clock = new ManualClock();
  readonly observations = new Observations();
  readonly lists: SegmentLists;
  readonly source: PeerSource;

  constructor(t: Pick<Test, 'teardown'>, caches: readonly { readonly address: string; readonly port: number }[]) {
    const { clock } = this;
    const { observer } = this.observations;
    this.lists = new SegmentLists({ caches, clock, observer });
    this.source = new PeerSource({ name: 'hosted_cache', finder: this.lists, clock, observer });
    t.teardown(() => {
      this.source.close();
      this.lists.close();
    });
  }

  async get(of: PeerContent, ordinal: number, persist = true): Promise<'block' | 'nothing' | 'WRONG'> {
    const { content } = of;
    const lastOrdinal = content.information.blockCount - 1;
    const request: BlockRequest = { content, ordinal, lastOrdinal, label: 'test', persist };
    const bytes = await inTime((async () => this.source.retrieve(request, { signal: never }))(), `block ${ordinal}`);
    if (bytes === undefined) return 'nothing';
    return Buffer.compare(bytes, blockOf(of, ordinal)) === 0 ? 'block' : 'WRONG';
  }

  async getAll(of: PeerContent, ordinals = upTo(of.content.information.blockCount)): Promise<string> {
    return tally(await Promise.all(ordinals.map((ordinal) => this.get(of, ordinal))));
  }

  count(result: string): number {
    return this.observations.count('peer_request', { source: 'hosted_cache', result });
  }

  async ask(ids: readonly string[]): Promise<(number | undefined)[]> {
    this.lists.seek(ids, 2);
    for (const id of ids) await this.lists.awaited(id);
    return ids.map((id) => this.lists.holders(id)[0]?.peer.port);
  }
}

/** A hosted cache that holds this, and nobody it got it from any more. */
async function filled(t: Test, of: PeerContent, segments?: readonly number[], poison = false): Promise<HostedRig> {
  const rig = await HostedRig.start(t);
  const peer = await startPeer(t, of, poison ? 'wrong hash' : 'honest', { host: A });
  await rig.take(peer, of, segments);
  await peer.kill();
  return rig;
}

await t.test('blocks of both versions come from a hosted cache', async (test) => {
  for (const of of [V1, V2, SMALL]) {
    const rig = await filled(test, of);
    const reader = new Reader(test, [rig.address]);
    const count = of.content.information.blockCount;
    test.equal(reader.source.name, 'hosted_cache');
    test.equal(await reader.getAll(of), `${count} block`);
    test.equal(reader.observations.count('verification', { source: 'hosted_cache', result: 'match' }), count);
    test.equal(rig.observations.count('upload', { result: 'block' }), count, 'each is asked for once');
  }
});

await t.test('two hosted caches: the second is asked about what the first has not', async (test) => {
  const first = await filled(test, SMALL, upTo(8));
  const second = await filled(test, SMALL, upTo(8, 4));
  const reader = new Reader(test, [first.address, second.address]);
  test.equal(await reader.getAll(SMALL), '12 block, 8 nothing');
  const given = [first, second].map((rig) => rig.observations.count('upload', { result: 'block' }));
  test.equal((given[0] ?? 0) + (given[1] ?? 0), 12, 'each block once');
  test.ok((given[1] ?? 0) >= 4, `${given[1]} from the second`);

  const [one, two] = [await Listener.start(test), await Listener.start(test)];
  const ids = upTo(20).map((ordinal) => idOf(SMALL, ordinal));
  one.holds = (id) => ids.indexOf(id) < 15;
  const other = new Reader(test, [one.address, two.address]);
  test.same(await other.ask(ids), [...upTo(15).map(() => one.address.port), ...upTo(5).map(() => undefined)]);
  test.same([one.lists, two.lists], [[20], [5]]);
});

await t.test('a list names 128 segments at most, and is believed for a while', async (test) => {
  const cache = await Listener.start(test);
  cache.holds = () => true;
  const reader = new Reader(test, [cache.address]);
  const ids = upTo(300).map((ordinal) => idOf(MANY, ordinal));
  test.ok((await reader.ask(ids)).every((port) => port === cache.address.port));
  test.same(
    cache.lists.toSorted((a, b) => a - b),
    [44, 128, 128],
  );
  reader.clock.advance(ASK_AGAIN_MS - 1);
  await reader.ask(ids);
  test.equal(cache.lists.length, 3);
  reader.clock.advance(1);
  cache.holds = () => false;
  test.ok((await reader.ask(ids)).every((port) => port === undefined));
  test.equal(cache.lists.length, 6, 'then it is asked again');
});

await t.test(
  'a first one that is dead or talks nonsense: the second is asked about all, and the first left alone',
  async (test) => {
    const second = await filled(test, V2);
    const count = V2.content.information.blockCount;
    const reader = new Reader(test, [await nobody(test), second.address]);
    test.equal(await reader.getAll(V2), `${count} block`);
    test.equal(reader.count('failed'), 1);
    for (const answers of ['500', 'nonsense', 'malformed list', 'hangs'] as const) {
      const first = await Listener.start(test, answers);
      const other = new Reader(test, [first.address, second.address]);
      const all = other.getAll(V2);
      if (answers === 'hangs') {
        await until(() => first.lists.length === 1, 'it is asked');
        other.clock.advance(1_999);
        await turns(20);
        test.equal(other.count('timeout'), 0);
        other.clock.advance(1);
      }
      test.equal(await all, `${count} block`, answers);
      test.equal(first.lists.length, 1);
      test.equal(other.count('timeout') + other.count('failed') + other.count('lied'), 1);
    }
  },
);

await t.test('one that failed is left alone: ten seconds, then twice that, up to five minutes', async (test) => {
  const cache = await Listener.start(test, '500');
  const reader = new Reader(test, [cache.address]);
  const ids = upTo(300).map((ordinal) => idOf(MANY, ordinal));
  let asked = 0;
  // Asked about another segment each time: what was asked about lately is not asked again.
  const isAsked = async (): Promise<boolean> => {
    const before = cache.lists.length;
    await reader.ask([ids[asked] as string]);
    asked += 1;
    return cache.lists.length > before;
  };
  test.equal(await isAsked(), true);
  for (const seconds of [10, 20, 40, 80, 160, 300, 300]) {
    reader.clock.advance(1_000 * seconds - 1);
    test.equal(await isAsked(), false, `less than ${seconds} s`);
    reader.clock.advance(1);
    test.equal(await isAsked(), true, `${seconds} s`);
  }
  reader.clock.advance(300_000);
  cache.answers = 'ok';
  test.equal(await isAsked(), true);
  cache.answers = '500';
  test.equal(await isAsked(), true, 'an answer makes good');
  reader.clock.advance(10_000);
  test.equal(await isAsked(), true, 'ten seconds again');
});

await t.test('a poisoned block is not a ban', async (test) => {
  const rig = await filled(test, SMALL, upTo(7), true);
  const honest = await startPeer(test, SMALL, 'honest', { host: B });
  await rig.take(honest, SMALL, upTo(13, 7));
  const reader = new Reader(test, [rig.address]);
  // One more in a row, and this content would be asked about elsewhere for five seconds.
  for (const ordinal of upTo(7)) test.equal(await reader.get(SMALL, ordinal), 'nothing');
  test.equal(await reader.getAll(SMALL, upTo(13, 7)), '13 block', 'at the same moment');
  test.same([reader.count('lied'), reader.observations.count('peer_banned')], [7, 0]);
  test.equal(reader.observations.count('verification', { source: 'hosted_cache', result: 'mismatch' }), 7);
});

await t.test('content that must not be stored is named to no hosted cache', async (test) => {
  const cache = await Listener.start(test);
  const reader = new Reader(test, [cache.address]);
  test.equal(await reader.get(V2, 0, false), 'nothing');
  await turns(20);
  test.equal(cache.connections, 0);
});

// --- What is offered ---------------------------------------------------------------------------------------------------------------------

class Offering {
  readonly clock = new ManualClock();
  readonly observations = new Observations();
  readonly offers: Offers;
  port: number | undefined = 4_711;

  constructor(t: Pick<Test, 'teardown'>, caches: readonly { readonly address: string; readonly port: number }[]) {
    const { clock } = this;
    const { observer } = this.observations;
    this.offers = new Offers({ caches, port: () => this.port, clock, observer });
    t.teardown(() => this.offers.close());
  }

  kept({ content }: PeerContent, ordinals: readonly number[]): void {
    for (const ordinal of ordinals) this.offers.kept(content, content.block(ordinal));
  }

  sent(result: 'ok' | 'failed'): number {
    return this.observations.count('offer_sent', { result });
  }

  async until(count: number, result: 'ok' | 'failed' = 'ok'): Promise<void> {
    await until(() => this.sent(result) === count, `${count} offers, ${result}`);
    await turns(4);
  }
}

await t.test('an offer gathers for a second', async (test) => {
  const cache = await Listener.start(test);
  const offering = new Offering(test, [cache.address]);
  offering.kept(SMALL, upTo(5));
  offering.clock.advance(GATHER_MS / 2);
  offering.kept(SMALL, upTo(5, 5));
  offering.clock.advance(GATHER_MS / 2 - 1);
  await turns(20);
  test.equal(cache.connections, 0);
  offering.clock.advance(1);
  await offering.until(1);
  test.same([cache.offers.length, cache.segments], [1, upTo(10).map((ordinal) => idOf(SMALL, ordinal))]);
  const [offer] = cache.offers;
  test.equal(offer?.port, 4_711);
  test.match(offer?.segments[0], { segmentSize: 1_000, blockSize: 1_000, hashAlgorithm: 4 });
  test.equal(offering.clock.pending, 0, 'nothing else is due');
  offering.clock.advance(100_000);
  await turns(20);
  test.equal(cache.offers.length, 1, 'offered once');
});

await t.test('128 segments an offer, one after the other, the first at once', async (test) => {
  const cache = await Listener.start(test);
  const offering = new Offering(test, [cache.address]);
  offering.kept(MANY, upTo(300));
  await until(() => cache.segments.length >= 256, 'two offers without time passing');
  offering.clock.advance(GATHER_MS);
  await until(() => cache.segments.length === 300, 'the rest');
  test.ok(cache.offers.every(({ segments }) => segments.length <= MAX_DESCRIPTORS));
  test.equal(cache.offers[0]?.segments.length, MAX_DESCRIPTORS);
  test.same(
    cache.segments.toSorted(),
    upTo(300)
      .map((ordinal) => idOf(MANY, ordinal))
      .toSorted(),
    'each once',
  );
});

await t.test('version 1: from a fifth of new blocks on, or when no more comes', async (test) => {
  const cache = await Listener.start(test);
  const offering = new Offering(test, [cache.address]);
  offering.kept(V1, [0]);
  offering.clock.advance(GATHER_MS - 1);
  // Another segment keeps the clock going.
  offering.kept(V1, [1]);
  offering.clock.advance(1);
  await offering.until(1);
  test.match(cache.offers[0]?.segments, [{ blockSize: BLOCK_BYTES, segmentSize: 10 * BLOCK_BYTES, hashAlgorithm: 1 }]);

  offering.clock.advance(10 * GATHER_MS);
  offering.kept(V1, [2]);
  offering.clock.advance(GATHER_MS);
  await offering.until(2);

  const large = peerContent(1, seededBytes(85, 40 * BLOCK_BYTES));
  offering.kept(large, [0]);
  for (const ordinal of upTo(6, 1)) {
    offering.clock.advance(GATHER_MS / 2);
    await turns(20);
    offering.kept(large, [ordinal]);
  }
  test.equal(cache.offers.length, 2, 'seven of forty, and more is coming');
  offering.kept(large, [7]);
  offering.clock.advance(GATHER_MS);
  await offering.until(3);
  test.equal(cache.offers.length, 3, 'eight of forty');
});

await t.test('SHA-384 and SHA-512 cannot be offered', async (test) => {
  const cache = await Listener.start(test);
  const offering = new Offering(test, [cache.address]);
  for (const algorithm of ['sha384', 'sha512'] as const) {
    const bytes = seededBytes(86, 2 * BLOCK_BYTES);
    const content = new DescribedContent(describe(1, bytes, { algorithm }), nativeHashProvider);
    offering.kept({ bytes, content }, [0, 1]);
  }
  test.equal(offering.clock.pending, 0);
  offering.clock.advance(100_000);
  await turns(20);
  test.equal(cache.connections, 0);
});

await t.test('who gives nothing away offers nothing', async (test) => {
  const cache = await Listener.start(test);
  const offering = new Offering(test, [cache.address]);
  offering.port = undefined;
  offering.kept(SMALL, upTo(5));
  offering.clock.advance(GATHER_MS);
  await turns(20);
  test.same([cache.connections, offering.clock.pending], [0, 0]);
});

await t.test('the second hosted cache is offered to when the first is away', async (test) => {
  for (const answers of ['refuses', '500', 'nonsense', 'hangs'] as const) {
    const second = await Listener.start(test);
    const first = answers === 'refuses' ? undefined : await Listener.start(test, answers);
    const offering = new Offering(test, [first?.address ?? (await nobody(test)), second.address]);
    offering.kept(SMALL, [0]);
    offering.clock.advance(GATHER_MS);
    if (answers === 'hangs') {
      await until(() => first?.offers.length === 1, 'it is offered');
      await turns();
      offering.clock.advance(9_999);
      await turns(20);
      test.equal(second.offers.length, 0, 'ten seconds to answer');
      offering.clock.advance(1);
    }
    await offering.until(1);
    test.same([second.segments, offering.sent('failed')], [[idOf(SMALL, 0)], 0], answers);
    if (first !== undefined) first.answers = 'ok';
    offering.kept(SMALL, [1]);
    offering.clock.advance(GATHER_MS);
    await offering.until(2);
    test.equal(second.offers.length, 2, 'the first is left alone for a while');
    offering.clock.advance(10_000);
    offering.kept(SMALL, [2]);
    offering.clock.advance(GATHER_MS);
    await offering.until(3);
    if (first !== undefined) test.equal(first.segments.at(-1), idOf(SMALL, 2), 'and then tried again');
  }
});

await t.test('an answer of interest is an answer', async (test) => {
  const cache = await Listener.start(test, 'interested');
  const offering = new Offering(test, [cache.address]);
  offering.kept(SMALL, [0]);
  offering.clock.advance(GATHER_MS);
  await offering.until(1);
  test.equal(offering.clock.pending, 0);
});

await t.test('an offer that none takes is made again', async (test) => {
  const cache = await Listener.start(test, '500');
  const offering = new Offering(test, [cache.address]);
  offering.kept(SMALL, upTo(3));
  offering.clock.advance(GATHER_MS);
  await offering.until(1, 'failed');
  cache.answers = 'ok';
  offering.kept(SMALL, [3]);
  offering.clock.advance(RETRY_MS - 1);
  await turns(20);
  test.equal(cache.offers.length, 1);
  offering.clock.advance(1);
  await offering.until(1);
  test.same([cache.offers[1]?.segments.length, offering.clock.pending], [4, 0], 'with what has come since');
});

await t.test('closed: nothing is offered any more', async (test) => {
  const cache = await Listener.start(test);
  const offering = new Offering(test, [cache.address]);
  offering.kept(SMALL, upTo(3));
  offering.offers.close();
  offering.kept(MANY, upTo(300));
  offering.clock.advance(100_000);
  await turns(20);
  test.same([cache.connections, offering.clock.pending], [0, 0]);
});

await t.test('a hosted cache may fetch from its own address, in the clothes of IPv6 too', async (test) => {
  const offers = new Offering(test, [
    { address: 'localhost', port: 1 },
    { address: A, port: 1 },
    { address: 'no.such.invalid', port: 1 },
  ]).offers;
  await until(() => offers.isCache(A), 'names are looked up');
  test.same(
    ['127.0.0.1', '::ffff:127.0.0.1', `::ffff:${A}`, B, '', '10.0.0.1'].map((address) => offers.isCache(address)),
    [true, true, true, false, false, false],
  );
});

// --- Together ----------------------------------------------------------------------------------------------------------------------------

/** A branch with an origin behind it, which gives its blocks away from 127.0.0.1. */
class Branch {
  readonly store = new MemoryBlockStore({ maxBytes: 32 * 1024 * 1024 });
  readonly reader: Reader;
  readonly offering: Offering;
  readonly broker: BlockBroker;
  /** Ordinals that crossed the WAN. */
  readonly wan: number[] = [];
  readonly #sources: readonly BlockSource[];

  constructor(
    t: Pick<Test, 'teardown'>,
    caches: readonly { readonly address: string; readonly port: number }[],
    of: PeerContent,
  ) {
    this.reader = new Reader(t, caches);
    this.offering = new Offering(t, caches);
    const { offers } = this.offering;
    this.broker = new BlockBroker({
      store: this.store,
      onOriginBlock: (content, block) => offers.kept(content, block),
    });
    const origin: BlockSource = {
      name: 'origin',
      trusted: false,
      deadlineMs: Infinity,
      retrieve: ({ ordinal }) => {
        this.wan.push(ordinal);
        return Promise.resolve(Uint8Array.from(blockOf(of, ordinal)));
      },
    };
    this.#sources = [this.reader.source, origin];
  }

  static async start(
    t: Pick<Test, 'teardown'>,
    caches: ConstructorParameters<typeof Branch>[1],
    of: PeerContent,
  ): Promise<Branch> {
    const branch = new Branch(t, caches, of);
    branch.offering.port = await listen(
      t,
      createLanHttpServer([new RetrievalServer({ holdings: openHoldings(branch.store) })]),
    );
    return branch;
  }

  /** Reads it all, and lets an offer go out. */
  async read(of: PeerContent, persist = true): Promise<string> {
    const { content } = of;
    const lastOrdinal = content.information.blockCount - 1;
    const from: string[] = [];
    for (const ordinal of upTo(lastOrdinal + 1)) {
      const request: BlockRequest = { content, ordinal, lastOrdinal, label: 'test', persist };
      const { bytes, source } = await inTime(
        Promise.resolve(this.broker.retrieve(request, this.#sources, never)),
        `block ${ordinal}`,
      );
      from.push(Buffer.compare(bytes, blockOf(of, ordinal)) === 0 ? source : 'WRONG');
    }
    await turns();
    return tally(from);
  }
}

await t.test('what one branch got from the origin, the next one gets from the hosted cache', async (test) => {
  for (const of of [V1, V2]) {
    const rig = await HostedRig.start(test);
    const count = of.content.information.blockCount;
    const first = await Branch.start(test, [rig.address], of);
    test.equal(await first.read(of), `${count} origin`);
    first.offering.clock.advance(GATHER_MS);
    await first.offering.until(1);
    await rig.idle();
    const second = await Branch.start(test, [rig.address], of);
    test.equal(await second.read(of), `${count} hosted_cache`);
    test.same([second.wan, second.offering.clock.pending], [[], 0], 'and does not offer what came from there');
    test.notOk(
      isFoundIn(
        of.bytes,
        rig.written.map(({ block }) => block),
      ),
    );
  }
});

await t.test('a poisoned entry: our client falls back, and offers the good bytes', async (test) => {
  for (const of of [V1, V2]) {
    const rig = await filled(test, of, undefined, true);
    const count = of.content.information.blockCount;
    const branch = await Branch.start(test, [rig.address], of);
    rig.clock.advance(1);
    test.equal(await branch.read(of), `${count} origin`, 'never a wrong byte');
    branch.offering.clock.advance(GATHER_MS);
    await branch.offering.until(1);
    await rig.idle();
    test.equal(tally(await rig.getAll(B, of)), `${count} block`);
    const next = await Branch.start(test, [rig.address], of);
    test.equal(await next.read(of), `${count} hosted_cache`);
  }
});

await t.test('what must not be stored is neither asked of a hosted cache nor offered', async (test) => {
  const cache = await Listener.start(test);
  const branch = await Branch.start(test, [cache.address], V2);
  test.equal(await branch.read(V2, false), `${V2.content.information.blockCount} origin`);
  test.equal(branch.offering.clock.pending, 0);
  branch.offering.clock.advance(100_000);
  await turns(20);
  test.equal(cache.connections, 0);
});

await t.test(
  'a proxy on the machine of the hosted cache: what it stores is sealed, what it reads is opened',
  async (test) => {
    const rig = await HostedRig.start(test);
    const poisoner = await startPeer(
      test,
      V1,
      ({ ordinal, isList }) => (ordinal === 4 && !isList ? 'wrong hash' : 'honest'),
      { host: A },
    );
    await rig.take(poisoner, V1);
    const store = new SealingStore(rig.blocks, rig.store);
    const broker = new BlockBroker({ store });
    const origin: BlockSource = {
      name: 'origin',
      trusted: false,
      deadlineMs: Infinity,
      retrieve: ({ content: { information }, ordinal }) =>
        Promise.resolve(Uint8Array.from(blockOf(information.version === 1 ? V1 : V2, ordinal))),
    };
    for (const [of, expected] of [
      [V1, '1 origin, 9 store'],
      [V1, '10 store'],
      [V2, `${V2.content.information.blockCount} origin`],
      [V2, `${V2.content.information.blockCount} store`],
    ] as const) {
      const { content } = of;
      const lastOrdinal = content.information.blockCount - 1;
      const from: string[] = [];
      for (const ordinal of upTo(lastOrdinal + 1)) {
        const request: BlockRequest = { content, ordinal, lastOrdinal, label: 'test', persist: true };
        const { bytes, source } = await broker.retrieve(request, [createSealedSource(rig.blocks), origin], never);
        from.push(Buffer.compare(bytes, blockOf(of, ordinal)) === 0 ? source : 'WRONG');
      }
      await turns();
      test.equal(tally(from), expected);
      test.equal(tally(await rig.getAll(B, of)), `${lastOrdinal + 1} block`, 'and clients get it as well');
    }
    const all = rig.written.map(({ block }) => block);
    test.notOk(isFoundIn(V1.bytes, all) || isFoundIn(V2.bytes, all), 'no plain byte in all of the store');
  },
);
