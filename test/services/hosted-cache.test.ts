/**
 * The server side of a hosted cache: what it takes of whom, what it keeps, and what it serves. Clients are real sockets on addresses of their
 * own of the loopback; time passes when the test says so.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { encryptBlock } from '../../lib/crypto/index.ts';
import {
  encodeOffer,
  MAX_DESCRIPTORS,
  MAX_OFFER_BYTES,
  V1_OFFER_PATH,
  V2_OFFER_PATH,
} from '../../lib/protocol/pchc/index.ts';
import { V2_MAX_SEGMENT_BYTES } from '../../lib/protocol/pccrc/index.ts';
import { decodeResponse } from '../../lib/protocol/pccrr/index.ts';
import { SealedBlocks } from '../../lib/services/index.ts';
import { packSealed } from '../../lib/services/sealed-block.ts';
import { type BlockStore, MemoryBlockStore } from '../../lib/stores/index.ts';
import { basicAuthentication, keptCertificate } from '../../plugins/hosted-cache/index.ts';
import {
  batched,
  BLOCK_BYTES,
  descriptorOf,
  descriptorsOf,
  HostedRig,
  initialOffer,
  isFoundIn,
  post,
  RecordingStore,
  segmentInfo,
} from '../support/hosted.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { outsideAddress } from '../support/net.ts';
import { type Behaviour, blockOf, peerContent, type PeerContent, smallSegments, startPeer } from '../support/peers.ts';
import { until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { turns } from '../support/turns.ts';

const HOUR_MS = 3_600_000;
const REQUEST_TIMEOUT_MS = 2_000;
/** Addresses of four clients. */
const [A, B, C, D] = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5'] as const;

const V1 = peerContent(1, seededBytes(71, 9 * BLOCK_BYTES + 100));
const V2 = peerContent(2, seededBytes(72, 6 * BLOCK_BYTES + 100));
/** Many small blocks. */
const SMALL = smallSegments(seededBytes(73, 100_000), 1_000);
const FEW = smallSegments(seededBytes(80, 20_000), 1_000);
const ONE = smallSegments(seededBytes(74, 1_000), 1_000);

const { identity } = await keptCertificate(t.testdir());

function upTo(count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, index) => from + index);
}

function ordinalsOf({ content }: PeerContent): number[] {
  return upTo(content.information.blockCount);
}

/** Unique and in order. */
function sorted(numbers: readonly number[]): number[] {
  return [...new Set(numbers)].toSorted((a, b) => a - b);
}

/** `3 block, 1 nothing` */
function tally(results: readonly string[]): string {
  const names = [...new Set(results)].toSorted();
  return names.map((name) => `${results.filter((each) => each === name).length} ${name}`).join(', ');
}

// --- Sealed blocks -----------------------------------------------------------------------------------------------------------------------

const V1_ID = V1.content.segmentId(0);
const V1_COUNT = V1.content.information.blockCount;

/** A block of {@link V1} on its way into the store; `good` or with a bit that is wrong. */
function sealed(ordinal: number, isGood = true): Uint8Array {
  const bytes = Uint8Array.from(blockOf(V1, ordinal));
  if (!isGood) bytes[7] = (bytes[7] as number) ^ 1;
  const { pieces, iv } = encryptBlock('aes-192', V1.content.segmentFacts(0).secret, bytes);
  return packSealed({ segmentId: V1_ID, blockIndex: ordinal }, { cipher: 'aes-192', iv, data: pieces });
}

class Shelf {
  readonly clock = new ManualClock();
  readonly store = new RecordingStore({ maxBytes: 32 * 1024 * 1024, clock: this.clock });
  readonly blocks = new SealedBlocks(this.store, this.clock);

  async put(candidate: '0' | '1', from: string, ordinals: readonly number[], isGood = true): Promise<void> {
    for (const ordinal of ordinals) {
      const place = { candidate, blockCount: V1_COUNT, from, label: 'test' };
      await this.blocks.put(V1_ID, ordinal, sealed(ordinal, isGood), place);
    }
  }

  wanted(from: string): ReturnType<SealedBlocks['wanted']> {
    return this.blocks.wanted(V1_ID, V1_COUNT, from);
  }

  /** As a client would. */
  async fetch(from: string, ordinal = 0): Promise<Uint8Array | undefined> {
    const block = await (await this.blocks.segment(V1_ID))?.block(ordinal, from);
    if (block !== undefined && !('answer' in block)) throw new Error('not as it was kept');
    return block?.answer;
  }

  held(place: 'v' | '0' | '1'): number[] {
    return [...(this.store.segment(`${V1_ID}/${place}`)?.blocks ?? [])];
  }

  async open(ordinal: number): Promise<'block' | 'nothing' | 'WRONG'> {
    const bytes = await this.blocks.open(V1.content, V1.content.block(ordinal));
    if (bytes === undefined) return 'nothing';
    return Buffer.compare(bytes, blockOf(V1, ordinal)) === 0 ? 'block' : 'WRONG';
  }
}

await t.test('sealed blocks: what comes is given away as it came', async (test) => {
  const shelf = new Shelf();
  const record = sealed(3);
  await shelf.blocks.put(V1_ID, 3, record, { candidate: '0', blockCount: V1_COUNT, from: A, label: 'x' });
  const answer = await shelf.fetch(B, 3);
  test.same(answer, record);
  test.match(decodeResponse(answer as Uint8Array), {
    type: 'block',
    cipher: 'aes-192',
    blockIndex: 3,
    nextBlockIndex: 0,
  });
  test.same((await shelf.blocks.segment(V1_ID))?.blocks, [3]);
  test.equal(await shelf.fetch(B, 2), undefined);
  test.equal(await shelf.blocks.segment(V2.content.segmentId(0)), undefined);
  test.equal(shelf.store.segment(V1_ID), undefined, 'nobody who reads a store of plain blocks finds it');
  test.same([await shelf.blocks.has(V1_ID, '0', 3), await shelf.blocks.hasVerified(V1_ID, 3)], [true, false]);
});

await t.test('sealed blocks: wanted is what is missing, from whomever', async (test) => {
  const shelf = new Shelf();
  test.same(await shelf.wanted(A), { candidate: '0', blocks: ordinalsOf(V1) });
  await shelf.put('0', A, [0, 1, 5]);
  for (const address of [A, B])
    test.same(await shelf.wanted(address), { candidate: '0', blocks: [2, 3, 4, 6, 7, 8, 9] });
  await shelf.put('0', B, [2, 3, 4, 6, 7, 8, 9]);
  for (const address of [A, B]) test.equal(await shelf.wanted(address), undefined, 'complete');
});

await t.test('sealed blocks: who was given a complete segment within the hour may bring another', async (test) => {
  const shelf = new Shelf();
  await shelf.put('0', A, ordinalsOf(V1));
  await shelf.fetch(B);
  test.equal(await shelf.wanted(C), undefined, 'not who was given nothing');
  const second = { blocks: ordinalsOf(V1) };
  test.same(await shelf.wanted(B), second);
  shelf.clock.advance(HOUR_MS);
  test.same(await shelf.wanted(B), second, 'an hour later');
  shelf.clock.advance(1);
  test.equal(await shelf.wanted(B), undefined, 'and no longer');
  await shelf.fetch(B, 4);
  shelf.clock.advance(HOUR_MS);
  test.same(await shelf.wanted(B), second, 'any block of it counts');
});

await t.test(
  'sealed blocks: two candidates, the newer one is served, a third address takes the older place',
  async (test) => {
    const shelf = new Shelf();
    await shelf.put('0', A, ordinalsOf(V1), false);
    await shelf.fetch(B);
    shelf.clock.advance(1);
    test.equal(await shelf.blocks.replace(V1_ID, B), '1');
    test.same(shelf.held('0'), ordinalsOf(V1), 'the first one stays');
    const bytesOf = async (ordinal: number): Promise<string> => {
      const answer = await shelf.fetch(D, ordinal);
      return Buffer.from(answer ?? []).toString('latin1');
    };
    const first = await bytesOf(2);
    await shelf.put('1', B, [0, 1, 2]);
    test.not(await bytesOf(2), first, 'what has come of the second is served');
    test.ok((await bytesOf(7)).length > 0, 'what has not, from the first');
    await shelf.put('1', B, upTo(7, 3));
    test.equal(await shelf.wanted(B), undefined, 'one copy for each time it was given one');

    shelf.clock.advance(1);
    await shelf.fetch(C);
    test.equal(await shelf.blocks.replace(V1_ID, C), '0', 'the older of the two');
    test.same([shelf.held('0'), shelf.held('1')], [[], ordinalsOf(V1)]);
    await shelf.put('0', C, ordinalsOf(V1));

    shelf.clock.advance(1);
    await shelf.fetch(C);
    test.equal(await shelf.blocks.replace(V1_ID, C), '1', 'its own copy is the one that is served: it stays');
    test.same([shelf.held('0'), shelf.held('1')], [ordinalsOf(V1), []]);
    await shelf.put('1', C, [0, 1]);
    test.same([shelf.held('0'), shelf.held('1')], [upTo(8, 2), [0, 1]], 'block by block the new one takes its place');
  },
);

await t.test('sealed blocks: verified ones are not replaced, and what came unseen beside them goes', async (test) => {
  const shelf = new Shelf();
  await shelf.put('0', A, ordinalsOf(V1), false);
  for (const ordinal of ordinalsOf(V1)) {
    const place = { segmentId: V1_ID, blockIndex: ordinal };
    await shelf.blocks.keep(place, blockOf(V1, ordinal), 'x', V1.content.segmentFacts(0));
  }
  test.same([shelf.held('v'), shelf.held('0'), shelf.held('1')], [ordinalsOf(V1), [], []]);
  test.equal(shelf.held('v').length === V1_COUNT, true);
  await shelf.fetch(B);
  test.equal(await shelf.wanted(B), undefined);
  test.equal(await shelf.open(4), 'block');
  const all = shelf.store.written.map(({ block }) => block);
  test.notOk(isFoundIn(V1.bytes, all), 'never a plain byte');
  test.ok(isFoundIn(V1.bytes, [blockOf(V1, 3)]), 'which would have been found');
  test.notOk(isFoundIn(V1.content.segmentFacts(0).secret, all), 'nor a key');
  test.ok(
    shelf.store.written.every(({ facts }) => facts !== undefined && facts.secret === undefined),
    'nor one beside it',
  );
});

await t.test(
  'sealed blocks: opening checks all copies, wrong ones go, the right one counts as verified',
  async (test) => {
    const shelf = new Shelf();
    await shelf.put('0', A, [0, 1, 2]);
    shelf.clock.advance(1);
    await shelf.put('1', B, [0, 2, 3], false);
    test.same(await Promise.all(upTo(5).map((ordinal) => shelf.open(ordinal))), [
      'block',
      'block',
      'block',
      'nothing',
      'nothing',
    ]);
    test.same([shelf.held('v'), shelf.held('0'), shelf.held('1')], [[0, 1, 2], [], []]);
  },
);

await t.test('sealed blocks: with the hashes known a check says what is still to be fetched', async (test) => {
  const shelf = new Shelf();
  await shelf.put('0', A, [0, 1, 2]);
  await shelf.put('0', A, [4], false);
  test.same(await shelf.blocks.check(V1.content, 0), upTo(7, 3));
  test.same([shelf.held('v'), shelf.held('0')], [[0, 1, 2], []]);
  test.same(await shelf.blocks.check(V1.content, 0), upTo(7, 3), 'again');
});

// --- Offers and what comes of them -------------------------------------------------------------------------------------------------------

await t.test('version 2: each block is fetched once, kept as it was received, and served', async (test) => {
  for (const [cipher, behaviour] of [
    ['aes-128', 'honest'],
    ['aes-192', 'honest'],
    ['aes-256', 'honest'],
    ['aes-128', 'one answer a connection'],
  ] as const) {
    const rig = await HostedRig.start(test);
    const peer = await startPeer(test, V2, behaviour, { cipher, host: A });
    test.equal(await rig.take(peer, V2), 'ok');
    const all = ordinalsOf(V2);
    test.same([sorted(peer.blocks), peer.blocks.length, peer.lists], [all, all.length, []], `${cipher}, ${behaviour}`);
    test.same([rig.offers('accepted'), rig.ingests('stored')], [all.length, all.length]);
    test.equal(tally(await rig.getAll(B, V2)), `${all.length} block`);
    for (const ordinal of all) {
      const { data, iv, ...message } = await rig.message(B, V2, ordinal);
      test.equal(message.cipher, cipher);
      const { block } = rig.written.find(({ key }) => key.startsWith(V2.content.segmentId(ordinal))) ?? {};
      if (
        block === undefined ||
        !Buffer.from(block).includes(Buffer.from(data)) ||
        !Buffer.from(block).includes(Buffer.from(iv))
      )
        test.fail(`block ${ordinal} is not served as it was stored`);
    }
    test.notOk(
      isFoundIn(
        V2.bytes,
        rig.written.map(({ block }) => block),
      ),
      'no plain byte in all of the store',
    );
  }
});

await t.test(
  'what a client sends in the clear is kept as it was received too, until its hashes are known',
  async (test) => {
    const rig = await HostedRig.start(test);
    const peer = await startPeer(test, V2, 'honest', { cipher: 'none', host: A });
    test.equal(await rig.take(peer, V2), 'ok');
    test.notOk((await rig.getAll(B, V2)).includes('WRONG'));
    const written = rig.written.length;
    for (let segment = 0; segment < V2.content.information.segmentCount; segment += 1)
      test.same(await rig.blocks.check(V2.content, segment), []);
    const sealed = rig.written.slice(written).map(({ block }) => block);
    test.equal(sealed.length, V2.content.information.segmentCount);
    test.notOk(isFoundIn(V2.bytes, sealed), 'from then on it is encrypted');
  },
);

await t.test('version 1 in a batched offer: blocks of a segment, the list of them first from four on', async (test) => {
  const three = peerContent(1, seededBytes(75, 2 * BLOCK_BYTES + 1));
  const four = peerContent(1, seededBytes(76, 3 * BLOCK_BYTES + 1));
  for (const [of, lists] of [
    [three, []],
    [four, [0]],
    [V1, [0]],
  ] as [PeerContent, number[]][]) {
    const rig = await HostedRig.start(test);
    const peer = await startPeer(test, of, 'honest', { host: A });
    test.equal(await rig.take(peer, of), 'ok');
    const all = ordinalsOf(of);
    test.same([peer.lists, sorted(peer.blocks), peer.blocks.length], [lists, all, all.length]);
    test.equal(tally(await rig.getAll(B, of)), `${all.length} block`);
    test.notOk(
      isFoundIn(
        of.bytes,
        rig.written.map(({ block }) => block),
      ),
    );
  }
});

await t.test('a list that names some is obeyed, and the rest comes from who has it', async (test) => {
  const rig = await HostedRig.start(test);
  const even = await startPeer(test, V1, 'honest', { host: A, holds: (ordinal) => ordinal % 2 === 0 });
  const all = await startPeer(test, V1, 'honest', { host: B });
  await rig.take(even, V1);
  test.same([even.lists, sorted(even.blocks), even.blocks.length], [[0], [0, 2, 4, 6, 8], 5]);
  test.equal(tally(await rig.getAll(C, V1)), '5 block, 5 nothing');
  await rig.take(all, V1);
  test.same([all.lists, sorted(all.blocks), all.blocks.length], [[0], [1, 3, 5, 7, 9], 5]);
  test.equal(tally(await rig.getAll(C, V1)), '10 block');
});

await t.test('a list that is a lie ends the client’s jobs; one that names nothing is none', async (test) => {
  for (const behaviour of ['garbage in a body', 'an empty body', 'negotiates', '500', 'endless'] as const) {
    const rig = await HostedRig.start(test);
    const peer = await startPeer(test, V1, ({ isList }) => (isList ? behaviour : 'honest'), { host: A });
    test.equal(await rig.take(peer, V1), 'ok');
    test.same([peer.lists.length, peer.blocks, rig.store.bytes], [1, [], 0], behaviour);
    peer.behaviour = 'honest';
    await rig.take(peer, V1);
    test.equal(tally(await rig.getAll(B, V1)), '10 block', 'it may offer again');
  }
  const rig = await HostedRig.start(test);
  const peer = await startPeer(test, V1, 'honest', { host: A, holds: () => false });
  await rig.take(peer, V1);
  test.same([peer.lists, peer.blocks], [[0], []]);
});

await t.test('the same offer again, and that of another: nothing is fetched twice', async (test) => {
  for (const of of [V1, V2]) {
    const rig = await HostedRig.start(test);
    const [first, second] = [
      await startPeer(test, of, 'honest', { host: A }),
      await startPeer(test, of, 'honest', { host: B }),
    ];
    const count = of.content.information.blockCount;
    // At the same time.
    await Promise.all([rig.offerOf(first, of), rig.offerOf(first, of), rig.offerOf(second, of)]);
    await rig.idle();
    test.equal(first.blocks.length + second.blocks.length, count, 'each block once');
    const known = rig.offers('known');
    await rig.take(first, of);
    await rig.take(second, of);
    test.equal(first.blocks.length + second.blocks.length, count);
    test.equal(rig.offers('known') - known, 2 * of.content.information.segmentCount);
    test.equal(tally(await rig.getAll(C, of)), `${count} block`);
  }
});

await t.test('a fetch that fails goes on with the next offer', async (test) => {
  const rig = await HostedRig.start(test, { maxPerClient: 1 });
  for (const behaviour of ['500', 'disconnect', 'reset', 'short'] as const) {
    const rest = await HostedRig.start(test, { maxPerClient: 1 });
    const peer = await startPeer(test, V1, ({ ordinal, isList }) => (ordinal === 5 && !isList ? behaviour : 'honest'), {
      host: A,
    });
    await rest.take(peer, V1);
    // After a reset a kept connection is tried once more: it may have been idle for too long.
    test.same(sorted(peer.blocks), upTo(6), `${behaviour}: the rest is not asked for`);
    peer.behaviour = 'honest';
    peer.blocks.length = 0;
    await rest.take(peer, V1);
    test.same(peer.blocks, upTo(5, 5), 'what has come is kept');
    test.equal(tally(await rest.getAll(B, V1)), '10 block');
  }
  const [first, second] = [
    await startPeer(test, V2, '500', { host: A }),
    await startPeer(test, V2, 'honest', { host: B }),
  ];
  await rig.take(first, V2);
  await rig.take(second, V2);
  test.equal(tally(await rig.getAll(C, V2)), tally(ordinalsOf(V2).map(() => 'block')), 'from another, too');
});

// --- Poison ------------------------------------------------------------------------------------------------------------------------------

await t.test(
  'a poisoned entry: clients see it, and the copy of one that was given it is served from then on',
  async (test) => {
    for (const poison of ['wrong hash', 'another IV'] as const) {
      for (const of of [V1, V2]) {
        const rig = await HostedRig.start(test);
        const poisoner = await startPeer(test, of, poison, { host: A });
        const honest = await startPeer(test, of, 'honest', { host: B });
        const count = of.content.information.blockCount;
        await rig.take(poisoner, of);
        await rig.take(honest, of);
        test.equal(honest.asked, 0, 'complete: not fetched from who was not given it');
        test.equal(tally(await rig.getAll(B, of)), `${count} WRONG`, 'clients see the hash mismatch');
        rig.clock.advance(1);
        await rig.take(honest, of);
        test.equal(honest.blocks.length, count, 'each once');
        test.equal(tally(await rig.getAll(C, of)), `${count} block`);
        await rig.take(honest, of);
        test.equal(honest.blocks.length, count, 'and once only');
      }
    }
  },
);

await t.test('a poisoned entry: after more than an hour it is not replaced, nor by another address', async (test) => {
  const rig = await HostedRig.start(test);
  const poisoner = await startPeer(test, ONE, 'wrong hash', { host: A });
  const honest = await startPeer(test, ONE, 'honest', { host: B });
  const stranger = await startPeer(test, ONE, 'honest', { host: C });
  await rig.take(poisoner, ONE);
  test.equal(await rig.get(B, ONE, 0), 'WRONG');
  await rig.take(stranger, ONE);
  rig.clock.advance(HOUR_MS + 1);
  await rig.take(honest, ONE);
  test.same([honest.asked, stranger.asked], [0, 0]);
  test.equal(await rig.get(B, ONE, 0), 'WRONG');
  rig.clock.advance(HOUR_MS);
  await rig.take(honest, ONE);
  test.equal(await rig.get(C, ONE, 0), 'block');
});

await t.test('never more than two candidates, of two addresses', async (test) => {
  const rig = await HostedRig.start(test);
  const id = ONE.content.segmentId(0);
  const held = async (): Promise<(string | undefined)[]> =>
    Promise.all(['v', '0', '1', '2'].map(async (place) => (await rig.store.segment(`${id}/${place}`))?.from));
  const hosts = [A, B, C, D, A, C, B];
  for (const host of hosts) {
    const peer = await startPeer(test, ONE, 'wrong hash', { host });
    await rig.get(host, ONE, 0);
    rig.clock.advance(1);
    await rig.take(peer, ONE);
    test.equal(peer.blocks.length, 1);
  }
  const [verified, first, second, third] = await held();
  test.same([verified, third], [undefined, undefined]);
  test.same(new Set([first, second]), new Set([B, C]));
});

await t.test('a refused offer of one that was given an entry takes nothing away', async (test) => {
  const rig = await HostedRig.start(test, { maxBytesPerHour: 1_000 });
  const first = await startPeer(test, ONE, 'wrong hash', { host: A });
  const second = await startPeer(test, ONE, 'honest', { host: B });
  await rig.take(first, ONE);
  await rig.get(B, ONE, 0);
  rig.clock.advance(1);
  await rig.take(second, ONE);
  // Its allowance is used up for something else.
  const third = await startPeer(test, SMALL, 'honest', { host: C });
  await rig.take(third, SMALL, [0]);
  await rig.get(C, ONE, 0);
  const id = ONE.content.segmentId(0);
  const candidates = async (): Promise<number> =>
    (await Promise.all([rig.blocks.has(id, '0', 0), rig.blocks.has(id, '1', 0)])).filter(Boolean).length;
  test.equal(await candidates(), 2);
  test.equal(await rig.offer(C, { type: 'batched-offer', port: third.port, segments: [descriptorOf(ONE)] }), 'ok');
  await rig.idle();
  test.equal(rig.offers('refused'), 1);
  test.equal(await candidates(), 2, 'who brings nothing drives nothing out');
});

await t.test('an offer of one that brings nothing takes nothing away of what others have brought', async (test) => {
  const rig = await HostedRig.start(test, { maxPerClient: 1 });
  const first = await startPeer(test, V1, ({ ordinal, isList }) => (ordinal > 0 && !isList ? '500' : 'honest'), {
    host: A,
  });
  const second = await startPeer(test, V1, 'honest', { host: B });
  await rig.take(first, V1);
  await rig.take(second, V1);
  test.equal(second.blocks.length, 9, 'all but one are of the second');
  test.equal(tally(await rig.getAll(C, V1)), '10 block');
  rig.clock.advance(1);
  await rig.get(A, V1, 0);
  first.behaviour = '500';
  await rig.take(first, V1);
  test.equal(tally(await rig.getAll(C, V1)), '10 block', 'one client cannot empty the cache');
});

await t.test(
  'clients that reach a listener of both families by IPv4 are the same when they ask and when they offer',
  async (test) => {
    let rig: HostedRig;
    try {
      rig = await HostedRig.start(test, { host: '::' });
    } catch {
      test.pass('no IPv6 here');
      return;
    }
    const poisoner = await startPeer(test, ONE, 'wrong hash', { host: A });
    const honest = await startPeer(test, ONE, 'honest', { host: B });
    await rig.take(poisoner, ONE);
    test.equal(await rig.get(B, ONE, 0), 'WRONG');
    rig.clock.advance(1);
    await rig.take(honest, ONE);
    test.equal(honest.blocks.length, 1, 'it fetched the segment from us within the last hour');
    test.equal(await rig.get(C, ONE, 0), 'block');
  },
);

// --- With the hashes known ---------------------------------------------------------------------------------------------------------------

await t.test('version 1: the hashes are wanted first, and each block is checked by them', async (test) => {
  const rig = await HostedRig.start(test, { tls: identity });
  const peer = await startPeer(test, V1, 'wrong hash', { host: A });
  test.equal(await rig.offer(A, initialOffer(peer.port, V1)), 'interested');
  test.equal(peer.asked, 0);
  test.equal(await rig.offer(A, segmentInfo(peer.port, V1)), 'ok');
  await rig.idle();
  test.same([rig.store.bytes, rig.ingests('stored')], [0, 0], 'nothing of a liar is kept');
  test.ok(rig.ingests('lied') > 0);
  peer.behaviour = 'honest';
  peer.blocks.length = 0;
  test.equal(await rig.offer(A, initialOffer(peer.port, V1)), 'ok', 'the hashes are remembered');
  await rig.idle();
  test.same([sorted(peer.blocks), peer.blocks.length], [ordinalsOf(V1), V1_COUNT]);
  test.equal(tally(await rig.getAll(B, V1)), '10 block');
  test.notOk(
    isFoundIn(
      V1.bytes,
      rig.written.map(({ block }) => block),
    ),
    'no plain byte in all of the store',
  );

  const other = await startPeer(test, V1, 'wrong hash', { host: B });
  rig.clock.advance(1);
  for (const offer of [initialOffer(other.port, V1), segmentInfo(other.port, V1)] as const)
    test.equal(await rig.offer(B, offer), 'ok');
  await rig.take(other, V1);
  test.equal(other.asked, 0, 'nothing verified is replaced');
  test.equal(tally(await rig.getAll(B, V1)), '10 block');
});

await t.test(
  'hashes that become known later: what came unseen is checked then, what is wrong is fetched',
  async (test) => {
    const rig = await HostedRig.start(test, { tls: identity });
    const poisoner = await startPeer(
      test,
      V1,
      ({ ordinal, isList }) => (ordinal === 3 && !isList ? 'wrong hash' : 'honest'),
      {
        host: A,
        cipher: 'aes-256',
      },
    );
    const honest = await startPeer(test, V1, 'honest', { host: B });
    await rig.take(poisoner, V1);
    test.equal(await rig.get(B, V1, 3), 'WRONG');
    test.equal(await rig.offer(B, segmentInfo(honest.port, V1)), 'ok');
    await rig.idle();
    test.same(honest.blocks, [3]);
    test.equal(tally(await rig.getAll(B, V1)), '10 block');
    const id = V1.content.segmentId(0);
    test.equal((await rig.store.segment(`${id}/v`))?.blocks.length === V1_COUNT, true);
    test.same([await rig.store.segment(`${id}/0`), await rig.store.segment(`${id}/1`)], [undefined, undefined]);
  },
);

await t.test('with the hashes known, a batched offer is checked by them as well', async (test) => {
  const rig = await HostedRig.start(test, { tls: identity });
  const absent = await startPeer(test, V1, 'honest', { host: A, holds: () => false });
  await rig.offer(A, segmentInfo(absent.port, V1));
  await rig.idle();
  const liar = await startPeer(test, V1, 'wrong hash', { host: B });
  await rig.take(liar, V1);
  test.ok(liar.blocks.length > 0);
  test.same([rig.store.bytes, rig.ingests('stored')], [0, 0]);
  const honest = await startPeer(test, V1, 'honest', { host: C });
  await rig.take(honest, V1);
  test.equal((await rig.store.segment(`${V1.content.segmentId(0)}/v`))?.blocks.length === V1_COUNT, true);
});

await t.test('hashes that are no hashes of their segment are answered and not used', async (test) => {
  const rig = await HostedRig.start(test, { tls: identity });
  const peer = await startPeer(test, V1, 'honest', { host: A });
  const good = segmentInfo(peer.port, V1) as Extract<ReturnType<typeof segmentInfo>, { type: 'segment-info' }>;
  const bad = Buffer.from(good.segmentInformation);
  bad.writeUInt8((bad.at(-1) as number) ^ 1, bad.byteLength - 1);
  for (const segmentInformation of [bad, good.segmentInformation.subarray(0, 40), new Uint8Array(0)])
    test.equal(await rig.offer(A, { ...good, segmentInformation }), 'ok');
  await rig.idle();
  test.same([rig.offers('unusable'), peer.asked], [3, 0]);
  test.equal(await rig.offer(A, initialOffer(peer.port, V1)), 'interested', 'nor remembered');
});

// --- The door ----------------------------------------------------------------------------------------------------------------------------

await t.test('each version has its path, its transport and its messages', async (test) => {
  const rig = await HostedRig.start(test, { tls: identity });
  const peer = await startPeer(test, ONE, 'hang', { host: A });
  const v1 = encodeOffer(initialOffer(peer.port, V1));
  const v2 = batched(peer.port, descriptorsOf(ONE));
  const status = async (path: string, message: Uint8Array, tls: boolean, method = 'POST'): Promise<number> =>
    (await post(tls ? rig.tlsPort : rig.port, path, message, { from: A, tls, method })).status;
  test.same(
    [
      await status(V2_OFFER_PATH, v1, false),
      await status(V1_OFFER_PATH, v1, false),
      await status(V1_OFFER_PATH, v2, false),
    ],
    [400, 404, 404],
    'version 1 only over HTTPS',
  );
  test.same(
    [
      await status(V1_OFFER_PATH, v2, true),
      await status(V2_OFFER_PATH, v2, true),
      await status(V2_OFFER_PATH, v1, true),
    ],
    [400, 404, 404],
    'version 2 only over HTTP',
  );
  test.equal(peer.asked, 0);
  for (const path of [V2_OFFER_PATH, V2_OFFER_PATH.slice(0, -1), V2_OFFER_PATH.toUpperCase()])
    test.equal(await status(path, v2, false), 200, path);
  for (const path of [V1_OFFER_PATH, V1_OFFER_PATH.slice(0, -1), V1_OFFER_PATH.toLowerCase()])
    test.equal(await status(path, v1, true), 200, path);
  test.equal(await status(V2_OFFER_PATH, new Uint8Array(0), false, 'GET'), 405);
  test.equal(await status(V2_OFFER_PATH, new Uint8Array(MAX_OFFER_BYTES + 1), false), 413);
  for (const message of [new Uint8Array(0), v2.subarray(0, -1), v2.subarray(0, 16), seededBytes(1, 200)])
    test.equal(await status(V2_OFFER_PATH, message, false), 400, 'malformed');
  const many = batched(
    peer.port,
    Array.from({ length: MAX_DESCRIPTORS + 1 }, () => descriptorOf(ONE)),
  );
  test.equal(await status(V2_OFFER_PATH, many, false), 400, 'more than 128');
  test.equal(await status(V2_OFFER_PATH, batched(0, descriptorsOf(ONE)), false), 400, 'port 0');
  test.same([rig.offers('accepted'), rig.offers('malformed')], [3, 10]);
});

await t.test('credentials: asked of version 1 before anything is read', async (test) => {
  const rig = await HostedRig.start(test, {
    tls: identity,
    authenticate: basicAuthentication(new Map([['anna', 'pass:word']])),
  });
  const offer = encodeOffer(initialOffer(1, V1));
  const ask = async (authorization?: string): Promise<readonly [number, string | undefined]> => {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const { status, headers: fields } = await post(rig.tlsPort, V1_OFFER_PATH, offer, { tls: true, headers });
    return [status, fields['www-authenticate']];
  };
  const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
  const challenge = 'Basic realm="hosted cache", charset="UTF-8"';
  for (const wrong of [undefined, 'Basic', 'Bearer x', basic('anna:password'), basic('ann:pass:word'), basic('anna:')])
    test.same(await ask(wrong), [401, challenge], `${wrong}`);
  test.same(await ask(basic('anna:pass:word')), [200, undefined]);
  test.equal(rig.offers('unauthorized'), 6);
  const peer = await startPeer(test, ONE, 'honest', { host: A });
  test.equal(await rig.take(peer, ONE), 'ok', 'version 2 has none to show');
});

await t.test('offers of this machine are answered and not fetched, unless that is allowed', async (test) => {
  const rig = await HostedRig.start(test, { allowLocalOffers: false, tls: identity });
  const peers = [A, '127.0.0.1', outsideAddress()].filter((host) => host !== undefined);
  for (const [index, host] of peers.entries()) {
    const peer = await startPeer(test, V1, 'honest', { host });
    // From an address of this machine that is not loopback nothing can be sent to 127.0.0.1.
    const from = index === 2 ? '127.0.0.1' : host;
    const offers = [
      { type: 'batched-offer', port: peer.port, segments: descriptorsOf(V1) },
      segmentInfo(peer.port, V1),
      initialOffer(peer.port, V1),
    ] as const;
    for (const offer of offers)
      test.equal(index === 2 ? await rig.cache.offer(offer, host) : await rig.offer(from, offer), 'ok', host);
    await rig.idle();
    test.equal(peer.connections, 0);
  }
  test.equal(rig.offers('local'), 3 * peers.length);
  test.equal(
    await rig.cache.offer({ type: 'batched-offer', port: 9, segments: descriptorsOf(V1) }, '::ffff:127.0.0.1'),
    'ok',
  );
  test.equal(rig.cache.pending, 0);
});

await t.test('nothing connects to any address but that of the offer', async (test) => {
  const rig = await HostedRig.start(test);
  const target = await startPeer(test, V2, 'honest', { host: A });
  const { port } = target;
  const bystanders = await Promise.all([C, D].map((host) => startPeer(test, V2, 'honest', { host, port })));
  test.equal(await rig.offer(B, { type: 'batched-offer', port, segments: descriptorsOf(V2) }), 'ok');
  await rig.idle();
  test.same([target.connections, rig.ingests('failed') > 0, rig.store.bytes], [0, true, 0], 'B does not listen there');
  const redirecting = await startPeer(test, V2, 'redirect', { host: B, port });
  await rig.take(redirecting, V2);
  test.ok(redirecting.connections > 0);
  const headers = { 'x-forwarded-for': A, forwarded: `for=${A}`, host: A };
  const reply = await post(rig.port, V2_OFFER_PATH, batched(port, descriptorsOf(V2)), { from: B, headers });
  test.equal(reply.status, 200);
  await rig.idle();
  test.same(
    [target, ...bystanders].map(({ connections }) => connections),
    [0, 0, 0],
  );
});

await t.test('a client that offers and disconnects', async (test) => {
  const rig = await HostedRig.start(test);
  const peer = await startPeer(test, ONE, 'honest', { host: A });
  const message = batched(peer.port, descriptorsOf(ONE));
  const head = `POST ${V2_OFFER_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: ${message.byteLength}\r\n\r\n`;
  const send = async (bytes: Uint8Array): Promise<void> => {
    const socket = connect({ port: rig.port, host: '127.0.0.1', localAddress: A });
    socket.on('error', () => {});
    await once(socket, 'connect');
    socket.end(bytes);
    socket.resume();
    await once(socket, 'close');
  };
  await send(Buffer.concat([Buffer.from(head), message.subarray(0, 40)]));
  await turns(20);
  test.same([rig.offers('accepted'), peer.asked], [0, 0], 'half an offer is none');
  await send(Buffer.concat([Buffer.from(head), message]));
  await until(() => rig.offers('accepted') === 1, 'a whole one is one');
  await rig.idle();
  await peer.kill();
  const gone = await startPeer(test, SMALL, 'refuse', { host: A });
  test.equal(await rig.take(gone, SMALL), 'ok');
  test.same([rig.cache.pending, rig.clock.pending], [0, 0], 'nothing is left of one that has gone');
  test.equal(await rig.get(B, ONE, 0), 'block');
});

// --- Liars -------------------------------------------------------------------------------------------------------------------------------

/** What is no block of that segment, index and length, and is over at once. */
const LIES: readonly Behaviour[] = [
  'wrong index',
  'wrong segment',
  'short',
  'long',
  'bad IV',
  'a list',
  'unknown cipher',
  'bytes left over',
  'size 0 and bytes',
  'endless',
  'endless head',
  'endless interim answers',
  'announces too much',
  'disconnect',
  'reset',
  '500',
  'redirect',
  'garbage',
  'garbage in a body',
  'an empty body',
  'negotiates',
];
/** What never ends. */
const SILENCES: readonly Behaviour[] = ['hang', 'stall', 'drip'];

await t.test('whoever does not answer honestly gets nothing into the cache, and may offer again', async (test) => {
  for (const behaviour of LIES) {
    for (const of of [ONE, V1]) {
      const rig = await HostedRig.start(test);
      const peer = await startPeer(test, of, ({ isList }) => (isList ? 'honest' : behaviour), { host: A });
      test.equal(await rig.take(peer, of), 'ok', behaviour);
      test.same([rig.store.bytes, rig.ingests('stored'), rig.cache.pending], [0, 0, 0], 'nothing is kept');
      test.ok(rig.ingests('lied') + rig.ingests('failed') > 0, 'and it is seen');
      test.equal(await rig.get(B, of, 0), 'nothing');
      // What the kernel takes of eight connections; the cache reads none of it.
      test.ok(peer.poured < 8 * 16 * 1024 * 1024, `${peer.poured} bytes poured`);
      peer.behaviour = 'honest';
      await rig.take(peer, of);
      test.equal(tally(await rig.getAll(B, of)), `${of.content.information.blockCount} block`);
      await peer.kill();
    }
  }
});

await t.test('the request timer is two seconds, and it ends all of that client’s jobs', async (test) => {
  for (const behaviour of SILENCES) {
    const rig = await HostedRig.start(test, { maxPerClient: 2 });
    const peer = await startPeer(test, SMALL, behaviour, { host: A });
    await rig.offerOf(peer, SMALL);
    await until(() => peer.blocks.length === 2, 'two questions');
    await turns();
    rig.clock.advance(REQUEST_TIMEOUT_MS - 1);
    await turns(20);
    test.same([rig.cache.pending, rig.ingests('timeout')], [100, 0], `${behaviour}: it may be slow`);
    rig.clock.advance(1);
    await rig.idle();
    test.same([rig.ingests('timeout'), peer.blocks.length, rig.store.bytes], [2, 2, 0], 'but no slower');
    test.equal(rig.clock.pending, 0);
    await until(() => peer.sockets.size === 0, 'the connections are closed');
    peer.behaviour = 'honest';
    await rig.take(peer, SMALL);
    test.equal(tally(await rig.getAll(B, SMALL)), '100 block');
    await peer.kill();
  }
});

await t.test('a client that never answers for a list', async (test) => {
  const rig = await HostedRig.start(test);
  const peer = await startPeer(test, V1, 'hang', { host: A });
  await rig.offerOf(peer, V1);
  await until(() => peer.lists.length === 1, 'a list is asked for');
  await turns();
  test.equal(peer.blocks.length, 0, 'and no block before it is there');
  rig.clock.advance(REQUEST_TIMEOUT_MS);
  await rig.idle();
  test.same([peer.lists.length, peer.blocks.length, rig.clock.pending], [1, 0, 0]);
});

await t.test('sizes that lie', async (test) => {
  const rig = await HostedRig.start(test);
  const peer = await startPeer(test, V1, 'honest', { host: A });
  const v1 = descriptorOf(V1);
  const v2 = descriptorOf(ONE);
  const unusable = [
    { ...v1, blockSize: 0 },
    { ...v1, segmentSize: 0 },
    { ...v1, blockSize: BLOCK_BYTES + 1 },
    { ...v1, segmentSize: 512 * BLOCK_BYTES + 1 },
    { ...v1, segmentSize: 0xffff_ffff },
    { ...v1, blockSize: 0xffff_ffff, segmentSize: 0xffff_ffff },
    { ...v1, blockSize: 1 },
    { ...v1, blockSize: 30_000 },
    { ...v2, blockSize: 0 },
    { ...v2, segmentSize: 0 },
    { ...v2, segmentSize: V2_MAX_SEGMENT_BYTES + 1 },
    { ...v2, segmentSize: 0xffff_ffff },
    ...[0, 2, 3, 5, 255].map((hashAlgorithm) => ({ ...v1, hashAlgorithm })),
  ];
  // One offer names a segment once.
  for (const each of unusable)
    test.equal(await rig.offer(A, { type: 'batched-offer', port: peer.port, segments: [each, each] }), 'ok');
  await rig.idle();
  test.same([rig.offers('unusable'), peer.connections], [unusable.length, 0]);
  // Believable, but not true.
  for (const changes of [{ segmentSize: v1.segmentSize - 16 }, { segmentSize: v1.segmentSize + 16 }]) {
    const liar = await HostedRig.start(test);
    await liar.offer(A, { type: 'batched-offer', port: peer.port, segments: [{ ...v1, ...changes }] });
    await liar.idle();
    const got = await liar.getAll(B, V1);
    test.notOk(got.includes('WRONG'), JSON.stringify(changes));
    test.ok(liar.ingests('lied') > 0);
  }
  const most = { ...v1, segmentSize: 512 * BLOCK_BYTES };
  const other = await HostedRig.start(test);
  await other.offer(A, { type: 'batched-offer', port: peer.port, segments: [most] });
  await other.idle();
  test.equal(other.offers('accepted'), 1, '512 blocks are a segment');
});

// --- Limits ------------------------------------------------------------------------------------------------------------------------------

await t.test('eight questions at a time to one client, sixty-four in all', async (test) => {
  const rig = await HostedRig.start(test);
  const hosts = upTo(10, 2).map((last) => `127.0.0.${last}`);
  // Contents of their own, or they would be fetched once.
  const clients = await Promise.all(
    hosts.map(async (host, index) => {
      const of = smallSegments(seededBytes(200 + index, 20_000), 1_000);
      return { of, peer: await startPeer(test, of, 'hold', { host }) };
    }),
  );
  const inFlight = (): number => clients.reduce((sum, { peer }) => sum + peer.held.length, 0);
  const [first] = clients as [(typeof clients)[0]];
  await rig.offerOf(first.peer, first.of);
  await until(() => first.peer.held.length === 8, 'eight questions');
  await turns(30);
  test.equal(first.peer.held.length, 8);
  for (const { peer, of } of clients.slice(1)) await rig.offerOf(peer, of);
  await until(() => inFlight() === 64, '64 questions');
  await turns(30);
  test.equal(inFlight(), 64);
  for (const { peer } of clients) {
    peer.release(1);
    await until(() => inFlight() >= 64 || rig.cache.pending < 64, 'the place is taken');
    await turns(4);
    test.equal(inFlight(), 64);
  }
  for (const { peer } of clients) {
    peer.behaviour = 'honest';
    peer.release();
  }
  await rig.idle();
  for (const { peer, of } of clients) {
    test.same([peer.blocks.length, peer.maxInFlight <= 8], [20, true]);
    test.equal(tally(await rig.getAll(B, of)), '20 block');
  }
});

await t.test('a client with a long line holds up no other', async (test) => {
  for (const limits of [{}, { maxInFlight: 4, maxPerClient: 4 }]) {
    const rig = await HostedRig.start(test, limits);
    const long = await startPeer(test, SMALL, 'hold', { host: A });
    const short = await startPeer(test, V2, 'honest', { host: B });
    await rig.offerOf(long, SMALL);
    await until(() => long.held.length === (limits.maxPerClient ?? 8), 'the first is being asked');
    await rig.offerOf(short, V2);
    const count = V2.content.information.blockCount;
    if (limits.maxInFlight === undefined) {
      await until(() => short.blocks.length === count, 'the second gets its turn at once');
      test.equal(long.held.length, 8);
    } else {
      // Turn by turn, however long the line is.
      for (let answers = 0; short.blocks.length < count && answers < 2 * count + 4; answers += 1) {
        const before = rig.ingests('stored');
        long.release(1);
        await until(() => rig.ingests('stored') > before, 'an answer');
        await until(() => short.inFlight === 0, 'no question at the second');
        await turns(20);
      }
      test.equal(short.blocks.length, count, `after ${long.blocks.length} questions to the first`);
    }
    long.behaviour = 'honest';
    long.release();
    await rig.idle();
    await Promise.all([long.kill(), short.kill()]);
  }
});

await t.test('what is in line is limited, for each and in all', async (test) => {
  const rig = await HostedRig.start(test, { maxPerClient: 2, maxQueuedPerClient: 50, maxQueued: 80 });
  const first = await startPeer(test, SMALL, 'hold', { host: A });
  const other = smallSegments(seededBytes(77, 100_000), 1_000);
  const second = await startPeer(test, other, 'hold', { host: B });
  await rig.offerOf(first, SMALL);
  test.same([rig.offers('accepted'), rig.offers('refused'), rig.cache.pending], [52, 48, 52]);
  await rig.offerOf(second, other);
  test.same([rig.offers('accepted'), rig.cache.pending], [84, 84], '80 in line and four under way');
  await until(() => first.held.length === 2 && second.held.length === 2, 'they are asked');
  for (const peer of [first, second]) {
    peer.behaviour = 'honest';
    peer.release();
  }
  await rig.idle();
  test.same([first.blocks.length, second.blocks.length], [52, 32]);
  for (let round = 0; round < 3; round += 1) {
    await rig.take(first, SMALL);
    await rig.take(second, other);
  }
  test.same([tally(await rig.getAll(C, SMALL)), tally(await rig.getAll(C, other))], ['100 block', '100 block']);
});

await t.test('offers of millions of segments', async (test) => {
  const rig = await HostedRig.start(test);
  const peer = await startPeer(test, V1, 'hang', { host: A });
  const names = seededBytes(78, 32 * MAX_DESCRIPTORS);
  for (let round = 0; round < 400; round += 1) {
    const segments = Array.from({ length: MAX_DESCRIPTORS }, (_, index) => {
      const segmentId = Buffer.from(names.subarray(32 * index, 32 * (index + 1)));
      segmentId.writeUInt32BE(round, 0);
      const size = { blockSize: BLOCK_BYTES, segmentSize: (1 + (round % 512)) * BLOCK_BYTES };
      return { ...descriptorOf(V1), ...size, segmentId };
    });
    const answer = await rig.cache.offer({ type: 'batched-offer', port: peer.port, segments }, A);
    if (answer !== 'ok') test.fail(answer);
    if (rig.cache.pending > 16_384 + 8) test.fail(`${rig.cache.pending} blocks in line`);
  }
  test.ok(rig.offers('refused') > 45_000, `${rig.offers('refused')} refused`);
  await until(() => peer.asked === 8, 'the first ones are asked for');
  test.ok(peer.connections <= 8, `${peer.connections} connections`);
  const other = await startPeer(test, ONE, 'honest', { host: B });
  await rig.offerOf(other, ONE);
  await until(() => rig.ingests('stored') === 1, 'another is served all the same');
  rig.clock.advance(REQUEST_TIMEOUT_MS);
  await rig.idle();
  test.equal(peer.asked, 8, 'one silence ends it all');
});

await t.test('an address brings so many bytes an hour; they come back evenly', async (test) => {
  // A block counts for what it costs the store.
  const rig = await HostedRig.start(test, { maxBytesPerHour: 10 * (1_000 + 1_024), maxPerClient: 1 });
  const peer = await startPeer(test, SMALL, 'honest', { host: A });
  await rig.take(peer, SMALL);
  test.same([peer.blocks.length, rig.ingests('refused'), rig.cache.pending], [10, 1, 0]);
  await rig.take(peer, SMALL);
  test.equal(peer.blocks.length, 10, 'no more now');
  test.equal(rig.offers('refused'), 100, 'nor is any of them looked up');
  const other = await startPeer(test, SMALL, 'honest', { host: B });
  await rig.take(other, SMALL);
  test.equal(other.blocks.length, 10, 'another address has its own');
  rig.clock.advance(HOUR_MS / 2);
  await rig.take(peer, SMALL);
  test.equal(peer.blocks.length, 15, 'half an hour, half of it');
  rig.clock.advance(10 * HOUR_MS);
  await rig.take(peer, SMALL);
  test.equal(peer.blocks.length, 25, 'never more than that of an hour');
  const got = await rig.getAll(C, SMALL);
  test.equal(tally(got), '35 block, 65 nothing');
});

// --- Stores ------------------------------------------------------------------------------------------------------------------------------

/** A store that fails as it is told. */
class FailingStore implements BlockStore {
  fails: 'not' | 'throws' | 'rejects' = 'not';
  only: ReadonlySet<string> | undefined;
  readonly #inner = new MemoryBlockStore({ maxBytes: 32 * 1024 * 1024 });

  get bytes(): number {
    return this.#inner.bytes;
  }

  get(key: string): ReturnType<BlockStore['get']> {
    return this.#do('get', () => this.#inner.get(key));
  }

  has(key: string): ReturnType<BlockStore['has']> {
    return this.#do('has', () => this.#inner.has(key));
  }

  set(...[key, block, label, segment]: Parameters<BlockStore['set']>): ReturnType<BlockStore['set']> {
    return this.#do('set', () => this.#inner.set(key, block, label, segment));
  }

  segment(segmentId: string): ReturnType<BlockStore['segment']> {
    return this.#do('segment', () => this.#inner.segment(segmentId));
  }

  label(): void {}

  delete(key: string): ReturnType<BlockStore['delete']> {
    return this.#do('delete', () => this.#inner.delete(key));
  }

  flush(): void {}

  #do<T>(name: string, act: () => T): T | Promise<T> {
    if (this.fails === 'not' || this.only?.has(name) === false) return act();
    const error = new Error('the disk is gone');
    if (this.fails === 'throws') throw error;
    return Promise.reject(error);
  }
}

await t.test('a store that fails is a store that forgets', async (test) => {
  for (const fails of ['throws', 'rejects'] as const) {
    for (const name of ['get', 'has', 'set', 'segment', 'delete']) {
      for (const of of [V1, V2]) {
        const store = new FailingStore();
        store.only = new Set([name]);
        const rig = await HostedRig.start(test, { store, tls: identity });
        const peer = await startPeer(test, of, 'honest', { host: A });
        store.fails = fails;
        test.equal(await rig.take(peer, of), 'ok', `${name} ${fails}`);
        if (of === V1) test.equal(await rig.offer(A, segmentInfo(peer.port, V1)), 'ok');
        await rig.idle();
        test.notOk((await rig.getAll(B, of)).includes('WRONG'));
        store.fails = 'not';
        await rig.take(peer, of);
        test.equal(tally(await rig.getAll(B, of)), `${of.content.information.blockCount} block`, 'and goes on');
        await peer.kill();
      }
    }
  }
});

await t.test('a full cache serves no wrong byte', async (test) => {
  for (const maxBytes of [1_000, 70_000, 150_000, 400_000]) {
    const rig = await HostedRig.start(test, { maxBytes, tls: identity });
    const contents = [V1, V2, peerContent(2, seededBytes(79, 300_000)), FEW];
    for (let round = 0; round < 2; round += 1) {
      for (const [index, of] of contents.entries()) {
        const host = [A, B, C, D][(index + round) % 4] as string;
        const peer = await startPeer(test, of, 'honest', { host });
        await rig.take(peer, of);
        if (of === V1) {
          await rig.offer(host, segmentInfo(peer.port, V1));
          await rig.idle();
        }
        for (const each of contents) {
          const got = await rig.getAll(D, each);
          if (got.includes('WRONG')) test.fail(`${maxBytes}: ${tally(got)}`);
        }
        if (rig.store.bytes > maxBytes) test.fail(`${rig.store.bytes} of ${maxBytes} bytes`);
        await peer.kill();
      }
    }
    test.pass(`${maxBytes} bytes`);
  }
});

// --- The end -----------------------------------------------------------------------------------------------------------------------------

await t.test('closed: what is under way ends, and nothing more is fetched', async (test) => {
  const rig = await HostedRig.start(test);
  const peer = await startPeer(test, SMALL, 'hold', { host: A });
  await rig.offerOf(peer, SMALL);
  await until(() => peer.held.length === 8, 'questions under way');
  rig.cache.close();
  test.equal(await rig.offerOf(peer, SMALL), 'ok');
  await turns(20);
  test.same([rig.offers('refused'), peer.blocks.length], [100, 8]);
  await until(() => peer.sockets.size === 0, 'the connections end', 2_000);
});
