/** Where blocks come from: one flight for many, one transfer for neighbours, and only bytes that match. Time passes when the test says so. */
import { setMaxListeners } from 'node:events';
import t from 'tap';
import { rangeEnd, toHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider, nobleHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistAbortError, PeerDistError, PeerDistMissingDataError } from '../../lib/errors.ts';
import type { Observation } from '../../lib/observer.ts';
import { decodeDiscovery, type Probe as Question, REQUEST_TIMER_MS } from '../../lib/protocol/pccrd/index.ts';
import {
  BlockBroker,
  type BlockRequest,
  type BlockSource,
  createLocalSource,
  DescribedContent,
  type FetchMissing,
  OriginSource,
  PeerSource,
  SingleFlight,
} from '../../lib/services/index.ts';
import { Prober } from '../../lib/services/discovery/prober.ts';
import { Peer } from '../../lib/services/peers/peer.ts';
import { type BlockStore, MemoryBlockStore } from '../../lib/stores/index.ts';
import { describe, inventV2 } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { seededBytes } from '../support/random.ts';
import { ScriptedOrigin } from '../support/scripted-origin.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const BLOCK = 65_536;
const BODY = seededBytes(21, 19 * BLOCK + 100);
const LAST = 19;
const content = new DescribedContent(describe(1, BODY), nativeHashProvider);
/** Many small blocks with invented hashes: for what does not look at bytes. */
const SMALL = 100;
const many = new DescribedContent(
  inventV2(
    Array.from({ length: 3_000 }, () => SMALL),
    1,
  ),
  nativeHashProvider,
);
const manyBytes = seededBytes(22, 3_000 * SMALL);

/** The signal of readers that stay; many listen to it at once. */
const never = new AbortController().signal;
setMaxListeners(0, never);

function blockBytes(ordinal: number, of = content, body = BODY): Uint8Array {
  const block = of.block(ordinal);
  return body.subarray(block.offset, rangeEnd(block));
}

function isBlock(bytes: Uint8Array | undefined, ordinal: number, of = content, body = BODY): boolean {
  return bytes !== undefined && Buffer.compare(bytes, blockBytes(ordinal, of, body)) === 0;
}

function request(ordinal: number, fetchMissing?: FetchMissing, options: Partial<BlockRequest> = {}): BlockRequest {
  const of = options.content ?? content;
  return {
    content: of,
    ordinal,
    lastOrdinal: of.information.blockCount - 1,
    label: 'test',
    persist: true,
    fetchMissing,
    ...options,
  };
}

// --- SingleFlight ----------------------------------------------------------------------------------------------------------------

await t.test('SingleFlight: one run, however many ask', async (test) => {
  const flights = new SingleFlight<number>();
  let runs = 0;
  let land: (value: number) => void = () => {};
  const run = (): Promise<number> => {
    runs += 1;
    return new Promise((resolve) => (land = resolve));
  };
  const all = Array.from({ length: 5 }, () => flights.do('a', never, run));
  const other = flights.do('b', never, async () => 2);
  test.same([flights.has('a'), flights.has('c'), runs], [true, false, 1]);
  land(1);
  test.same(await Promise.all(all), [1, 1, 1, 1, 1]);
  test.equal(await other, 2, 'another key is another run');
  test.equal(flights.has('a'), false);
  const again = flights.do('a', never, run);
  land(7);
  test.equal(await again, 7, 'what has landed is not remembered');
  test.equal(runs, 2);

  const failing = Array.from({ length: 3 }, () => flights.do('a', never, () => Promise.reject(new Error('down'))));
  for (const result of await Promise.allSettled(failing))
    test.match(result, { status: 'rejected', reason: { message: 'down' } });
  test.equal(flights.has('a'), false);
  test.match(
    await failureOf(
      flights.do('a', never, () => {
        throw new Error('at once');
      }),
    ),
    { message: 'at once' },
  );
  test.equal(flights.has('a'), false);
});

await t.test('SingleFlight: leaving', async (test) => {
  const flights = new SingleFlight<number>();
  const [one, two] = [new AbortController(), new AbortController()];
  let inner: AbortSignal | undefined;
  let crash: (error: Error) => void = () => {};
  const run = (signal: AbortSignal): Promise<number> => {
    inner = signal;
    return new Promise((_, reject) => (crash = reject));
  };
  const first = flights.do('a', one.signal, run);
  const second = flights.do('a', two.signal, run);
  one.abort('bored');
  const left = await failureOf(first);
  test.ok(left instanceof PeerDistAbortError);
  test.match(left, { name: 'AbortError', trigger: 'signal', cause: 'bored' });
  test.equal(inner?.aborted, false, 'somebody still waits');
  test.equal(await stateOf(second), 'pending');
  const abandoned = inner;
  two.abort();
  test.ok(isPeerDistError(await failureOf(second), 'ERR_PEERDIST_OPERATION_ABORTED'));
  test.equal(abandoned?.aborted, true, 'nobody waits any more');
  test.equal(flights.has('a'), false, 'and nobody can join what is being aborted');
  const fresh = flights.do('a', never, async () => 5);
  crash(new Error('a run that nobody waits for may fail unheard'));
  test.equal(await fresh, 5);
  await turns();

  let called = false;
  const gone = flights.do('b', AbortSignal.abort(), async () => {
    called = true;
    return 1;
  });
  test.ok(isPeerDistError(await failureOf(gone), 'ERR_PEERDIST_OPERATION_ABORTED'));
  test.same([called, flights.has('b')], [false, false], 'who has left already starts nothing');
});

// --- DescribedContent ------------------------------------------------------------------------------------------------------------

await t.test('DescribedContent names, finds and verifies blocks', async (test) => {
  for (const provider of [nativeHashProvider, nobleHashProvider]) {
    for (const version of [1, 2] as const) {
      const described = new DescribedContent(describe(version, BODY), provider);
      const { first, last } = described.ordinals({ offset: 0, length: BODY.byteLength });
      test.same([first, last], [0, described.information.blockCount - 1]);
      const keys = new Set<string>();
      let verified = 0;
      for (let ordinal = first; ordinal <= last; ordinal += 1) {
        const block = described.block(ordinal);
        const bytes = blockBytes(ordinal, described);
        keys.add(described.key(block));
        const flipped = Uint8Array.from(bytes);
        flipped[bytes.byteLength - 1] = (bytes.at(-1) as number) ^ 1;
        if (described.verify(block, bytes) && !described.verify(block, flipped)) verified += 1;
      }
      test.equal(verified, last + 1, `version ${version}, ${provider.name}`);
      test.equal(keys.size, last + 1, 'every block has a key of its own');
      const block = described.block(0);
      test.notOk(described.verify(block, blockBytes(0, described).subarray(1)));
      test.notOk(described.verify(block, new Uint8Array(0)));
    }
  }
  test.same(content.ordinals({ offset: BLOCK - 1, length: 2 }), { first: 0, last: 1 });
  test.same(content.ordinals({ offset: BLOCK, length: BLOCK }), { first: 1, last: 1 });
});

// --- OriginSource ----------------------------------------------------------------------------------------------------------------

await t.test('neighbours are one range', async (test) => {
  for (const chunkBytes of [1_000, 30_000, BLOCK, 200_000]) {
    const origin = new ScriptedOrigin(BODY, { chunkBytes });
    const source = new OriginSource({ clock: new ManualClock() });
    const ordinals = [3, 4, 5, 6, 7, 8];
    const blocks = await Promise.all(
      ordinals.map((ordinal) => source.retrieve(request(ordinal, origin.fetch, { lastOrdinal: 8 }), { signal: never })),
    );
    test.ok(
      blocks.every((bytes, index) => isBlock(bytes, ordinals[index] as number)),
      `chunks of ${chunkBytes}`,
    );
    test.same(origin.asked, [`${3 * BLOCK}+${6 * BLOCK}`]);
    const tail = await source.retrieve(request(LAST, origin.fetch), { signal: never });
    test.ok(isBlock(tail, LAST));
    test.equal(origin.asked[1], `${LAST * BLOCK}+100`, 'the last block is short');
    test.equal(tail?.buffer.byteLength, 100, 'and takes no more memory than that');
    test.ok(
      blocks.every((bytes) => bytes?.buffer.byteLength === BLOCK),
      'each has memory of its own, for a store to keep',
    );
  }
  test.equal(
    await new OriginSource().retrieve(request(0), { signal: never }),
    undefined,
    'without a way to the origin it has nothing',
  );
  const long = new ScriptedOrigin(manyBytes);
  await new OriginSource({ clock: new ManualClock() }).retrieve(request(0, long.fetch, { content: many }), {
    signal: never,
  });
  test.same(long.asked, [`0+${1_024 * SMALL}`], 'one request has an end');
});

/** Reads a whole content block by block, never asking for one before the last one is here. */
async function readInOrder(source: OriginSource, origin: ScriptedOrigin): Promise<boolean> {
  for (let ordinal = 0; ordinal <= LAST; ordinal += 1) {
    const bytes = await source.retrieve(request(ordinal, origin.fetch), { signal: never });
    if (!isBlock(bytes, ordinal)) return false;
    await turns(1);
  }
  await turns();
  return true;
}

await t.test('one after the other, still one range', async (test) => {
  const origin = new ScriptedOrigin(BODY, { chunkBytes: 4_096 });
  test.ok(await readInOrder(new OriginSource({ clock: new ManualClock() }), origin));
  test.same(origin.asked, [`0+${BODY.byteLength}`]);
  test.ok(origin.transfers[0]?.closed);
});

await t.test('a chunk of several blocks waits until they are asked for', async (test) => {
  for (const chunkBytes of [BLOCK + 100, 3 * BLOCK, BODY.byteLength]) {
    const origin = new ScriptedOrigin(BODY, { chunkBytes });
    test.ok(await readInOrder(new OriginSource({ clock: new ManualClock() }), origin));
    test.same(
      origin.asked,
      [`0+${BODY.byteLength}`],
      `chunks of ${chunkBytes}: nothing is thrown away and fetched again`,
    );
  }
});

await t.test('two readers share a transfer; one far ahead gets its own', async (test) => {
  const origin = new ScriptedOrigin(manyBytes, { chunkBytes: 130 });
  const source = new OriginSource({ clock: new ManualClock() });
  const ask = (ordinal: number): Promise<Uint8Array | undefined> =>
    source.retrieve(request(ordinal, origin.fetch, { content: many }), { signal: never });
  const near = [ask(0), ask(1), ask(200)];
  await turns(1);
  test.equal(origin.transfers.length, 1);
  const far = ask(700);
  await turns(1);
  test.same(origin.asked, [`0+${1_024 * SMALL}`, `${700 * SMALL}+${1_024 * SMALL}`]);
  const ordinals = [0, 1, 200, 700];
  for (const [index, bytes] of (await Promise.all([...near, far])).entries()) {
    test.ok(isBlock(bytes, ordinals[index] as number, many, manyBytes));
  }
  // A block that another reader has claimed of the transfer cannot be handed out twice.
  const twice = await Promise.all([ask(1_900), ask(1_900)]);
  test.ok(
    twice.every((bytes) => isBlock(bytes, 1_900, many, manyBytes)),
    'both asked for the same block',
  );
  // A range ends where another transfer begins.
  const before = ask(690);
  await before;
  test.ok(origin.asked.includes(`${690 * SMALL}+${10 * SMALL}`), origin.asked.join(' '));
});

await t.test('a transfer goes no further than to where another has begun', async (test) => {
  const origin = new ScriptedOrigin(manyBytes, { chunkBytes: 130 });
  const clock = new ManualClock();
  const source = new OriginSource({ clock });
  const ask = (ordinal: number): Promise<Uint8Array | undefined> =>
    source.retrieve(request(ordinal, origin.fetch, { content: many }), { signal: never });
  await ask(0);
  await ask(300);
  for (let ordinal = 1; ordinal < 300; ordinal += 1) await ask(ordinal);
  await turns();
  const [first, second] = origin.transfers;
  test.same([origin.transfers.length, first?.closed], [2, true], 'at once, not when it has lingered');
  test.ok((first?.sent ?? 0) < 300 * SMALL + 130, `${first?.sent} bytes of a transfer of 300 blocks`);
  test.ok(isBlock(await ask(301), 301, many, manyBytes), 'where the other one goes on');
  test.equal(origin.transfers.length, 2);

  // Who waits already for what follows gets it from where it waits.
  const late = [ask(301 + 200), ask(301 + 257)];
  await turns(1);
  for (let ordinal = 302; ordinal < 501; ordinal += 1) await ask(ordinal);
  for (const [index, bytes] of (await Promise.all(late)).entries())
    test.ok(isBlock(bytes, [501, 558][index] as number, many, manyBytes));
  test.notOk(second?.signal.aborted);
  test.equal(origin.transfers.length, 3);
});

await t.test('blocks that are held end a range', async (test) => {
  for (const held of [(ordinal: number) => ordinal === 5, async (ordinal: number) => ordinal === 5]) {
    const origin = new ScriptedOrigin(BODY);
    const source = new OriginSource({ clock: new ManualClock(), isHeld: (_request, ordinal) => held(ordinal) });
    const ordinals = [2, 3, 4, 6, 7];
    const blocks = await Promise.all(
      ordinals.map((ordinal) => source.retrieve(request(ordinal, origin.fetch), { signal: never })),
    );
    test.ok(blocks.every((bytes, index) => isBlock(bytes, ordinals[index] as number)));
    test.same(origin.asked, [`${2 * BLOCK}+${3 * BLOCK}`, `${6 * BLOCK}+${BODY.byteLength - 6 * BLOCK}`]);
  }
});

await t.test('a transfer that is short, long or broken', async (test) => {
  const short = new ScriptedOrigin(BODY, { surplus: -BLOCK });
  const source = new OriginSource({ clock: new ManualClock() });
  const ask = (ordinal: number, origin: ScriptedOrigin, lastOrdinal = 3): Promise<Uint8Array | undefined> =>
    source.retrieve(request(ordinal, origin.fetch, { lastOrdinal }), { signal: never });
  const [a, b, c] = [ask(0, short), ask(2, short), ask(3, short)];
  test.ok(isBlock(await a, 0));
  test.ok(isBlock(await b, 2));
  test.ok(isPeerDistError(await failureOf(c), 'ERR_PEERDIST_LENGTH_MISMATCH'), 'the block that did not come');

  const long = new ScriptedOrigin(BODY, { surplus: 50_000 });
  const pair = [ask(0, long, 1), ask(1, long, 1)];
  for (const [ordinal, bytes] of (await Promise.all(pair)).entries())
    test.ok(isBlock(bytes, ordinal), 'more than asked for');
  await turns();
  test.ok(long.transfers[0]?.closed, 'the rest is not read');

  const broken = new ScriptedOrigin(BODY, { manual: true });
  const [d, e] = [ask(0, broken), ask(1, broken)];
  await turns(2);
  broken.transfers[0]?.give(BLOCK + 10);
  test.ok(isBlock(await d, 0));
  const failure = failureOf(e);
  broken.transfers[0]?.fail(new Error('reset'));
  await turns();
  // The one that had joined tries with a transfer of its own.
  test.equal(broken.transfers.length, 2);
  test.equal(broken.transfers[1]?.range.offset, BLOCK);
  broken.transfers[1]?.fail(new Error('reset again'));
  test.match(await failure, { message: 'reset again' });

  const refusing: FetchMissing = () => Promise.reject(new Error('refused'));
  test.match(await failureOf(source.retrieve(request(0, refusing), { signal: never })), { message: 'refused' });
  const throwing: FetchMissing = () => {
    throw new Error('thrown');
  };
  test.match(await failureOf(source.retrieve(request(0, throwing), { signal: never })), { message: 'thrown' });
});

await t.test('content that changed at the origin is not asked for again', async (test) => {
  const origin = new ScriptedOrigin(BODY, { manual: true });
  const source = new OriginSource({ clock: new ManualClock() });
  const pair = [0, 1].map((ordinal) => failureOf(source.retrieve(request(ordinal, origin.fetch), { signal: never })));
  await turns(2);
  origin.transfers[0]?.fail(new PeerDistError('ERR_PEERDIST_ORIGIN_CHANGED', 'another ETag'));
  for (const failure of await Promise.all(pair)) test.ok(isPeerDistError(failure, 'ERR_PEERDIST_ORIGIN_CHANGED'));
  test.equal(origin.transfers.length, 1);
});

await t.test('nobody waits: the transfer stands still, lingers, and ends', async (test) => {
  const clock = new ManualClock();
  const origin = new ScriptedOrigin(BODY, { chunkBytes: 10_000 });
  const source = new OriginSource({ clock });
  const take = (ordinal: number): Promise<Uint8Array | undefined> =>
    source.retrieve(request(ordinal, origin.fetch), { signal: never });
  await take(0);
  await turns();
  const [transfer] = origin.transfers;
  const sent = transfer?.sent as number;
  test.ok(sent < BLOCK + 2 * 10_000, `${sent} bytes read for one block`);
  test.equal(clock.pending, 1);
  clock.advance(1_999);
  await turns();
  test.notOk(transfer?.signal.aborted, 'a reader that is only slow');
  test.ok(isBlock(await take(1), 1), 'comes back');
  test.equal(origin.transfers.length, 1, 'and goes on with the same transfer');
  await turns();
  clock.advance(1_999);
  await turns();
  test.notOk(transfer?.signal.aborted, 'its time counts anew');
  clock.advance(1);
  await turns();
  test.ok(transfer?.signal.aborted);
  test.ok(transfer?.closed, 'the transfer is over');
  test.equal(clock.pending, 0);
  test.ok(isBlock(await take(2), 2), 'who comes later starts a new one');
  test.equal(origin.transfers.length, 2);
  for (let ordinal = 3; ordinal <= LAST; ordinal += 1) await take(ordinal);
  await turns();
  test.equal(clock.pending, 0, 'a transfer that is done leaves no timer');
});

await t.test('readers that leave', async (test) => {
  const clock = new ManualClock();
  const origin = new ScriptedOrigin(BODY, { manual: true });
  const source = new OriginSource({ clock });
  const [one, two] = [new AbortController(), new AbortController()];
  const first = failureOf(source.retrieve(request(0, origin.fetch), { signal: one.signal }));
  const second = source.retrieve(request(1, origin.fetch), { signal: two.signal });
  await turns(2);
  one.abort();
  test.ok(isPeerDistError(await first, 'ERR_PEERDIST_OPERATION_ABORTED'));
  origin.transfers[0]?.give(2 * BLOCK);
  test.ok(isBlock(await second, 1), 'the other one is not disturbed');
  const third = failureOf(source.retrieve(request(2, origin.fetch), { signal: two.signal }));
  await turns(2);
  two.abort();
  test.ok(isPeerDistError(await third, 'ERR_PEERDIST_OPERATION_ABORTED'));
  test.equal(origin.transfers.length, 1);
  clock.advance(2_000);
  await turns();
  test.ok(origin.transfers[0]?.signal.aborted, 'with the last one goes the transfer');
  test.ok(origin.transfers[0]?.closed);

  const late = failureOf(source.retrieve(request(0, origin.fetch), { signal: AbortSignal.abort() }));
  await turns();
  test.ok((await late) !== undefined, 'who has left already gets nothing');
  test.equal(origin.transfers.length, 1, 'and starts nothing');
});

await t.test('who has left already does not join a transfer', async (test) => {
  const clock = new ManualClock();
  const origin = new ScriptedOrigin(BODY, { manual: true });
  const source = new OriginSource({ clock });
  const staying = new AbortController();
  const first = failureOf(source.retrieve(request(0, origin.fetch), { signal: staying.signal }));
  await turns(2);
  const gone = source.retrieve(request(5, origin.fetch), { signal: AbortSignal.abort() });
  test.equal(await stateOf(gone), 'rejected');
  staying.abort();
  await first;
  clock.advance(2_000);
  await turns();
  test.ok(origin.transfers[0]?.closed, 'nobody is left, so the transfer ends');
});

await t.test(
  'a transfer that fails at once, while blocks are looked up in a store that answers later',
  async (test) => {
    const source = new OriginSource({ clock: new ManualClock(), isHeld: async () => false });
    for (const [name, fetch] of Object.entries<FetchMissing>({
      rejects: () => Promise.reject(new Error('refused')),
      throws: () => {
        throw new Error('refused');
      },
    })) {
      const asked = source.retrieve(request(0, fetch, { lastOrdinal: 1 }), { signal: never });
      test.equal(await stateOf(asked), 'rejected', name);
    }
  },
);

await t.test('past 64 transfers readers wait their turn, and get it', async (test) => {
  const apart = 300;
  const contentOfMany = new DescribedContent(
    inventV2(
      Array.from({ length: 70 * apart }, () => 1),
      2,
    ),
    nativeHashProvider,
  );
  const origin = new ScriptedOrigin(seededBytes(3, 70 * apart), { manual: true });
  const source = new OriginSource({ clock: new ManualClock() });
  const ask = (index: number, signal = never): Promise<Uint8Array | undefined> =>
    source.retrieve(request(index * apart, origin.fetch, { content: contentOfMany, lastOrdinal: index * apart }), {
      signal,
    });
  const running = Array.from({ length: 64 }, (_, index) => ask(index));
  await turns(2);
  const leaving = new AbortController();
  const gone = Array.from({ length: 3 }, (_, index) => failureOf(ask(64 + index, leaving.signal)));
  const waiting = ask(67);
  await turns(2);
  test.equal(origin.transfers.length, 64);
  leaving.abort();
  origin.transfers[0]?.give();
  await running[0];
  await turns();
  test.equal(origin.transfers.length, 65, 'one transfer has ended: the one that still waits is next');
  for (const transfer of origin.transfers) transfer.give();
  await Promise.all(running);
  await turns();
  for (const transfer of origin.transfers) transfer.give();
  test.equal((await waiting)?.byteLength, 1);
  await turns();
  for (const failure of await Promise.all(gone)) test.ok(failure !== undefined);
});

// --- BlockBroker -----------------------------------------------------------------------------------------------------------------

interface Bench {
  readonly broker: BlockBroker;
  readonly store: BlockStore;
  readonly clock: ManualClock;
  readonly seen: Observation[];
}

function bench(store: BlockStore = new MemoryBlockStore({ maxBytes: 10_000_000 })): Bench {
  const seen: Observation[] = [];
  const clock = new ManualClock();
  const broker = new BlockBroker({ store, clock, observer: (observation) => seen.push(observation) });
  return { broker, store, clock, seen };
}

interface Probe extends BlockSource {
  readonly signals: AbortSignal[];
}

function probe(retrieve: BlockSource['retrieve'], options: Partial<BlockSource> = {}): Probe {
  const signals: AbortSignal[] = [];
  return {
    name: 'origin',
    trusted: false,
    deadlineMs: 5_000,
    ...options,
    signals,
    retrieve(asked, context) {
      signals.push(context.signal);
      return retrieve(asked, context);
    },
  };
}

const good = (): Probe => probe(async ({ ordinal, content: of }) => blockBytes(ordinal, of).slice());
const pending = (): Probe => probe(() => new Promise(() => {}));
const key = (ordinal: number): string => content.key(content.block(ordinal));
const verifications = (seen: readonly Observation[]): string[] =>
  seen.flatMap((observation) => (observation.type === 'verification' ? [observation.result] : []));

await t.test('own store first, then the sources in order', async (test) => {
  const { broker, store, seen } = bench();
  const [empty, full, unasked] = [probe(() => undefined), good(), good()];
  const first = broker.retrieve(request(0), [empty, full, unasked], never);
  test.ok(first instanceof Promise);
  const { bytes, source } = await first;
  test.ok(isBlock(bytes, 0));
  test.equal(source, 'origin');
  test.same(
    [empty, full, unasked].map(({ signals }) => signals.length),
    [1, 1, 0],
  );
  test.same(verifications(seen), ['match']);
  test.ok(isBlock(await store.get(key(0)), 0), 'verified and stored');

  const second = broker.retrieve(request(0), [empty, full, unasked], never);
  test.notOk(second instanceof Promise, 'a block in memory costs no promise');
  test.match(second, { source: 'store' });
  test.same(
    [empty, full, unasked].map(({ signals }) => signals.length),
    [1, 1, 0],
    'and asks nobody',
  );

  const local = createLocalSource(store);
  test.ok(local.trusted);
  test.equal(local.name, 'store');
  test.ok(isBlock(await local.retrieve(request(0), { signal: never }), 0));
  test.equal(await local.retrieve(request(1), { signal: never }), undefined);
});

await t.test('a source that lies, throws, has nothing or sleeps costs time, never bytes', async (test) => {
  const wrong = Uint8Array.from(blockBytes(3));
  wrong[100] = (wrong[100] as number) ^ 1;
  const liars: Record<string, Probe> = {
    'a flipped bit': probe(async () => wrong),
    'at once': probe(() => wrong),
    'too short': probe(async () => blockBytes(3).subarray(1)),
    'too long': probe(async () => BODY.subarray(3 * BLOCK, 4 * BLOCK + 1)),
    nothing: probe(async () => undefined),
    'no bytes': probe(async () => new Uint8Array(0)),
    'another block': probe(async () => blockBytes(4)),
    throws: probe(() => {
      throw new Error('source');
    }),
    rejects: probe(() => Promise.reject(new Error('source'))),
  };
  for (const [name, liar] of Object.entries(liars)) {
    const { broker, store, clock } = bench();
    const last = good();
    const { bytes } = await broker.retrieve(request(3), [liar, last], never);
    test.ok(isBlock(bytes, 3), name);
    test.same([liar.signals.length, last.signals.length], [1, 1]);
    test.ok(isBlock(await store.get(key(3)), 3));
    test.equal(clock.pending, 0, 'no timer is left');

    const alone = bench();
    const failure = await failureOf(Promise.resolve(alone.broker.retrieve(request(3), [liar], never)));
    test.ok(failure instanceof PeerDistMissingDataError, `${name}, and nobody else`);
    test.match(failure, { missing: { offset: 3 * BLOCK, length: BLOCK }, code: 'ERR_PEERDIST_MISSING_DATA' });
    test.equal(await alone.store.get(key(3)), undefined, 'nothing stored');
    if (name === 'a flipped bit') {
      test.ok(isPeerDistError((failure as Error).cause, 'ERR_PEERDIST_HASH_MISMATCH'));
      test.same(verifications(alone.seen), ['mismatch']);
    }
    if (name === 'rejects') test.match(failure, { cause: { message: 'source' } });
  }
  const { broker } = bench();
  test.ok(
    (await failureOf(Promise.resolve(broker.retrieve(request(0), [], never)))) instanceof PeerDistMissingDataError,
  );
});

await t.test('deadlines', async (test) => {
  const { broker, clock } = bench();
  const [slow, slower, last] = [pending(), probe(() => new Promise(() => {}), { deadlineMs: 10_000 }), good()];
  const asked = Promise.resolve(broker.retrieve(request(1), [slow, slower, last], never));
  await turns(2);
  clock.advance(4_999);
  await turns(2);
  test.same(
    [slow, slower, last].map(({ signals }) => signals.length),
    [1, 0, 0],
  );
  clock.advance(1);
  await turns(2);
  test.ok(isPeerDistError(slow.signals[0]?.reason, 'ERR_PEERDIST_TIMEOUT'), 'the source is told to stop');
  test.equal(slower.signals.length, 1);
  clock.advance(9_999);
  test.equal(await stateOf(asked), 'pending');
  clock.advance(1);
  test.ok(isBlock((await asked).bytes, 1));
  test.equal(clock.pending, 0);

  const alone = bench();
  const failure = failureOf(Promise.resolve(alone.broker.retrieve(request(1), [pending()], never)));
  await turns(2);
  alone.clock.advance(5_000);
  test.match(await failure, { code: 'ERR_PEERDIST_TIMEOUT', cause: { code: 'ERR_PEERDIST_TIMEOUT' } });
  test.ok((await failure) instanceof PeerDistMissingDataError);
});

await t.test('what a trusted source brings is neither hashed nor stored again', async (test) => {
  const { broker, store, seen } = bench();
  const trusted = probe(async () => blockBytes(2), { trusted: true, name: 'store' });
  test.ok(isBlock((await broker.retrieve(request(2), [trusted], never)).bytes, 2));
  test.same(verifications(seen), []);
  test.equal(await store.get(key(2)), undefined);
});

await t.test('a store that fails is a store that forgets', async (test) => {
  const fail = (): never => {
    throw new Error('store');
  };
  const reject = (): Promise<never> => Promise.reject(new Error('store'));
  const forgetful: BlockStore = {
    get: () => undefined,
    has: () => false,
    set: () => {},
    label: () => {},
    delete: () => {},
    segment: () => undefined,
    flush: () => {},
    bytes: 0,
  };
  const broken: Record<string, BlockStore> = {
    'get throws': { ...forgetful, get: fail },
    'get rejects': { ...forgetful, get: reject },
    'set throws': { ...forgetful, set: fail },
    'set rejects': { ...forgetful, set: reject },
    'set never ends': { ...forgetful, set: () => new Promise(() => {}) },
    'everything throws': {
      get: fail,
      has: fail,
      set: fail,
      segment: fail,
      label: fail,
      delete: fail,
      flush: fail,
      bytes: 0,
    },
  };
  for (const [name, store] of Object.entries(broken)) {
    for (const persist of [true, false]) {
      const { broker } = bench(store);
      const { bytes, source } = await broker.retrieve(request(1, undefined, { persist }), [good()], never);
      test.ok(isBlock(bytes, 1) && source === 'origin', `${name}, persist ${persist}`);
    }
  }
  await turns();
  const late = bench({ ...forgetful, get: async () => blockBytes(1) });
  test.match(await late.broker.retrieve(request(1), [], never), { source: 'store' }, 'a store may answer later');
  const stuck = bench({ ...forgetful, get: () => new Promise(() => {}) });
  const asked = Promise.resolve(stuck.broker.retrieve(request(1), [good()], never));
  await turns();
  test.equal(await stateOf(asked), 'pending');
  stuck.clock.advance(1_000);
  test.match(await asked, { source: 'origin' }, 'but not for ever');
});

await t.test('many readers of a block share one retrieval', async (test) => {
  const { broker, seen } = bench();
  let deliver: (bytes: Uint8Array) => void = () => {};
  const source = probe(() => new Promise((resolve) => (deliver = resolve)));
  const leaving = new AbortController();
  const readers = [never, never, leaving.signal].map((signal) =>
    Promise.resolve(broker.retrieve(request(4), [source], signal)),
  );
  const gone = failureOf(readers.pop() as Promise<unknown>);
  await turns(2);
  test.equal(source.signals.length, 1);
  test.equal(seen.filter(({ type }) => type === 'collapsed').length, 2);
  leaving.abort();
  test.ok(isPeerDistError(await gone, 'ERR_PEERDIST_OPERATION_ABORTED'));
  deliver(blockBytes(4).slice());
  for (const { bytes } of await Promise.all(readers)) test.ok(isBlock(bytes, 4));
  test.same(verifications(seen), ['match'], 'hashed once');
});

await t.test('the last reader takes the retrieval with it, and nothing is stored', async (test) => {
  for (const persist of [true, false]) {
    const { broker, store, clock } = bench();
    const source = pending();
    const unasked = good();
    const controller = new AbortController();
    const asked = failureOf(
      Promise.resolve(broker.retrieve(request(4, undefined, { persist }), [source, unasked], controller.signal)),
    );
    await turns(2);
    controller.abort(new Error('client gone'));
    test.ok((await asked) instanceof Error);
    await turns();
    test.ok(source.signals[0]?.aborted, `persist ${persist}`);
    test.equal(unasked.signals.length, 0, 'the next source is not asked for nobody');
    test.equal(await store.get(key(4)), undefined);
    test.equal(clock.pending, 0);
  }
});

await t.test('who has left already asks no source', async (test) => {
  for (const persist of [true, false]) {
    const { broker } = bench();
    const source = pending();
    const asked = Promise.resolve(broker.retrieve(request(4, undefined, { persist }), [source], AbortSignal.abort()));
    test.equal(await stateOf(asked), 'rejected', `persist ${persist}`);
    test.equal(source.signals.length, 0, `persist ${persist}`);
  }
});

await t.test('no-store: nothing is kept and nothing is shared', async (test) => {
  const { broker, store, seen } = bench();
  const source = good();
  const pair = [0, 1].map(async () => broker.retrieve(request(6, undefined, { persist: false }), [source], never));
  for (const { bytes } of await Promise.all(pair)) test.ok(isBlock(bytes, 6));
  test.equal(source.signals.length, 2, 'each reader by itself');
  test.equal(seen.filter(({ type }) => type === 'collapsed' || type === 'stored').length, 0);
  test.equal(await store.get(key(6)), undefined);
  test.same(verifications(seen), ['match', 'match'], 'but verified all the same');
  await store.set(key(6), blockBytes(6).slice(), 'test');
  test.match(broker.retrieve(request(6, undefined, { persist: false }), [source], never), { source: 'store' });
});

await t.test('a retrieval that fails for another reader is tried again by the own way', async (test) => {
  const { broker, store } = bench();
  const waysTried: string[] = [];
  /** Like the origin: it works by the reader's own way, and only that. */
  const source = probe(async (asked) => {
    const stream = await asked.fetchMissing?.(asked.content.block(asked.ordinal), { reason: 'missing', signal: never });
    for await (const chunk of stream ?? []) return Uint8Array.from(chunk);
    return undefined;
  });
  const way =
    (name: string, works: boolean): FetchMissing =>
    async ({ offset, length }) => {
      waysTried.push(name);
      await turns(2);
      if (!works) throw new Error(`${name} is down`);
      return (async function* () {
        yield BODY.subarray(offset, offset + length);
      })();
    };
  const [first, second] = [
    failureOf(Promise.resolve(broker.retrieve(request(7, way('first', false)), [source], never))),
    broker.retrieve(request(7, way('second', true)), [source], never),
  ];
  test.match(await first, { code: 'ERR_PEERDIST_MISSING_DATA', cause: { message: 'first is down' } });
  test.ok(isBlock((await second).bytes, 7));
  test.same(waysTried, ['first', 'second']);
  test.ok(isBlock(await store.get(key(7)), 7));

  waysTried.length = 0;
  const [a, b, c] = [
    failureOf(Promise.resolve(broker.retrieve(request(8, way('a', false)), [source], never))),
    failureOf(Promise.resolve(broker.retrieve(request(8, way('b', false)), [source], never))),
    Promise.allSettled([broker.retrieve(request(8, way('c', true)), [source], never)]),
  ];
  test.ok((await a) instanceof PeerDistMissingDataError);
  await b;
  const [result] = await c;
  test.ok(waysTried.includes('c'), `three readers: tried ${waysTried.join()}`);
  test.equal(result.status, 'fulfilled', 'the reader whose own way works gets its block');
});

await t.test('broker and origin together: a whole content by one request', async (test) => {
  for (const persist of [true, false]) {
    const { broker, store, clock } = bench();
    const origin = new ScriptedOrigin(BODY, { chunkBytes: 4_096 });
    const source = new OriginSource({
      clock,
      isHeld: ({ content: of }, ordinal) => store.has(of.key(of.block(ordinal))),
    });
    const readers = Array.from({ length: 3 }, async () => {
      for (let ordinal = 0; ordinal <= LAST; ordinal += 1) {
        const { bytes } = await broker.retrieve(request(ordinal, origin.fetch, { persist }), [source], never);
        if (!isBlock(bytes, ordinal)) return toHex(bytes);
      }
      return 'all';
    });
    test.same(await Promise.all(readers), ['all', 'all', 'all']);
    if (persist) test.same(origin.asked, [`0+${BODY.byteLength}`], 'three readers, one request');
    test.equal(store.bytes > 0, persist);
    await turns();
    clock.advance(2_000);
    await turns();
    test.ok(origin.transfers.every(({ closed }) => closed));
    test.equal(clock.pending, 0);
  }
});

// --- Patience with peers -------------------------------------------------------------------------------------------------------------

await t.test('a first answer of somebody who has little does not end the wait for the others', async (test) => {
  const clock = new ManualClock();
  const sent: Uint8Array[] = [];
  const prober = new Prober({ send: (datagram) => sent.push(datagram), observer: () => {}, clock });
  const [one, other] = ['11'.repeat(32), '22'.repeat(32)] as const;
  prober.seek([one, other], 2);
  clock.advance(5);
  const { probe } = decodeDiscovery(sent[0] as Uint8Array) as { readonly probe: Question };
  const answer = (address: string, availability: readonly ('all' | 'none')[]): boolean => {
    const place = { address, port: 8008 };
    const holdings = { version: 2, availability, ages: [] } as const;
    return prober.take({ relatesTo: probe.messageId, matches: [{ addresses: [place], holdings }] }, place);
  };
  const first = prober.awaited(other) as Promise<void>;
  test.ok(answer('10.0.0.2', ['all', 'none']));
  test.equal(await stateOf(first), 'fulfilled', 'news');
  test.same([prober.holders(one).length, prober.holders(other).length], [1, 0]);
  const second = prober.awaited(other) as Promise<void>;
  test.equal(await stateOf(second), 'pending', 'but not of this segment');
  test.ok(answer('10.0.0.3', ['none', 'all']));
  test.equal(await stateOf(second), 'fulfilled');
  test.equal(prober.holders(other).length, 1);
  const last = prober.awaited(other) as Promise<void>;
  clock.advance(REQUEST_TIMER_MS);
  test.equal(await stateOf(last), 'fulfilled', 'the request timer ends it');
  test.equal(prober.awaited(other), undefined);
});

await t.test('one moment of silence is one failure of a peer, three are enough', async (test) => {
  const clock = new ManualClock();
  const peer = new Peer({ address: '10.0.0.2', port: 8008 }, clock);
  const silence = (questions: number): boolean[] => {
    const askedAt = clock.now();
    clock.advance(200);
    const bans = Array.from({ length: questions }, () => peer.failed('timeout', askedAt));
    clock.advance(1);
    return bans;
  };
  test.same(silence(4), [false, false, false, false]);
  test.same(silence(4), [false, false, false, false]);
  test.equal(peer.isDoubtful, true);
  peer.answered(10, 1, 32);
  test.equal(peer.isDoubtful, false);
  test.same([...silence(4), ...silence(1)], [false, false, false, false, false], 'in a row, that is');
  test.equal(peer.isBanned, false);
  test.same(silence(2), [true, false]);
  test.equal(peer.isBanned, true);
});

await t.test('a block of peers that are still looked for has more time', async (test) => {
  const clock = new ManualClock();
  let news: Promise<void> | undefined;
  const finder = { holders: () => [], seek: () => {}, awaited: () => news };
  const source = new PeerSource({ finder, clock });
  const least = source.deadlineMs(request(0), 0);
  news = new Promise(() => {});
  test.equal(source.deadlineMs(request(0), 0), least + REQUEST_TIMER_MS);
  const { signal } = new AbortController();
  for (let ordinal = 0; ordinal < 8; ordinal += 1) void source.retrieve(request(ordinal), { signal });
  test.ok(source.deadlineMs(request(8), 0) > least + REQUEST_TIMER_MS + 40, 'and one behind many others more still');
  source.close();
});
