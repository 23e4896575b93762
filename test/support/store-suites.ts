/**
 * What every implementation of a store contract (`lib/stores/types.ts`) has to do. A new store calls its suite with a way to make an
 * empty store of at most `maxBytes`; nothing here knows how it works inside.
 */
import type { Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Observer } from '../../lib/observer.ts';
import {
  blockKey,
  type BlockStore,
  type ContentInformationRecord,
  type ContentInformationStore,
} from '../../lib/stores/index.ts';
import { ManualClock } from './manual-clock.ts';
import { pick, seededBytes, shuffled, words } from './random.ts';

export interface StoreOptions {
  readonly maxBytes: number;
  readonly observer?: Observer;
  readonly clock?: Clock;
}

type Create<S> = (options: StoreOptions) => S | Promise<S>;

/** What the two contracts have in common, so that limits and eviction are tested by the same lines. */
interface Adapter {
  readonly bytes: () => number;
  /** Bytes of an entry's payload; undefined when it is not here. Counts as a use. */
  readonly use: (key: string) => Promise<number | undefined>;
  /** Keeps an entry with a payload of that size. */
  readonly put: (key: string, size: number) => Promise<void>;
  readonly remove: (key: string) => Promise<unknown>;
}

const ENTRY_BYTES = 10_000;
/** Entries of {@link ENTRY_BYTES} where a store has no limit. */
const UNBOUNDED_ENTRIES = 16;

export interface SuiteOptions {
  /**
   * False for a store that leaves its limit and who has to go to somebody else (a Redis, which evicts by samples, and counts what others keep in
   * it): nothing is asked of its bytes, and `maxBytes` is not meant. @default true
   */
  readonly isBounded?: boolean;
}

export async function blockStoreSuite(
  test: Test,
  create: Create<BlockStore>,
  { isBounded = true }: SuiteOptions = {},
): Promise<void> {
  const adapt = (store: BlockStore): Adapter => ({
    bytes: () => store.bytes,
    use: async (key) => (await store.get(key))?.byteLength,
    put: async (key, size) => store.set(key, seededBytes(size, size), 'test'),
    remove: async (key) => store.delete(key),
  });

  await test.test('keeps blocks as they are', async (sub) => {
    const store = await create({ maxBytes: 1_000_000 });
    sub.equal(await store.get('a:0'), undefined);
    sub.equal(await store.has('a:0'), false);
    await store.set('a:0', seededBytes(1, 65_536), 'test');
    await store.set('a:1', seededBytes(2, 1), 'test');
    sub.equal(toHex((await store.get('a:0')) as Uint8Array), toHex(seededBytes(1, 65_536)));
    sub.same([...((await store.get('a:1')) ?? [])], [...seededBytes(2, 1)]);
    sub.same([await store.has('a:0'), await store.has('a:1'), await store.has('a:2')], [true, true, false]);
    await store.delete('a:0');
    await store.delete('never there');
    sub.same([await store.has('a:0'), await store.get('a:0'), await store.has('a:1')], [false, undefined, true]);
    for (const key of ['__proto__', 'constructor', '']) sub.equal(await store.get(key), undefined, `no key ${key}`);
  });

  await test.test('a view does not keep the buffer it was cut from', async (sub) => {
    const large = seededBytes(3, 4_000_000);
    for (const [name, whole] of [
      ['Uint8Array', large],
      ['Buffer', Buffer.from(large.buffer, large.byteOffset, large.byteLength)],
    ] as const) {
      const store = await create({ maxBytes: 1_000_000 });
      await store.set('view', whole.subarray(1_000, 3_000), 'test');
      const kept = await store.get('view');
      sub.equal(toHex(kept as Uint8Array), toHex(large.subarray(1_000, 3_000)));
      sub.ok((kept?.buffer.byteLength ?? 0) < 10_000, `a ${name} of 2,000 bytes pins ${kept?.buffer.byteLength}`);
    }
  });

  await test.test('labels: a block stays until the last of them goes', async (sub) => {
    const store = await create({ maxBytes: 1_000_000 });
    const block = seededBytes(5, 1_000);
    const here = (...keys: readonly string[]): Promise<boolean[]> =>
      Promise.all(keys.map(async (key) => store.has(key)));
    await store.set('one', block, 'red');
    await store.set('two', block, 'red');
    await store.set('two', block, 'blue');
    await store.set('three', block, 'red');
    await store.label('three', 'blue');
    await store.label('three', 'blue');
    await store.set('four', block, 'blue');
    await store.label('absent', 'blue');
    sub.same(await here('one', 'two', 'three', 'four', 'absent'), [true, true, true, true, false]);
    const { bytes } = store;
    await store.flush('green');
    if (isBounded) sub.equal(store.bytes, bytes, 'an unknown label is on nothing');
    await store.flush('red');
    sub.same(await here('one', 'two', 'three', 'four'), [false, true, true, true], 'a second label keeps a block');
    if (isBounded) sub.ok(store.bytes < bytes, 'what went is not counted');
    for (const key of ['two', 'three']) sub.equal(toHex((await store.get(key)) as Uint8Array), toHex(block), key);
    await store.flush('red');
    sub.same(await here('two', 'three', 'four'), [true, true, true], 'a label goes once');
    await store.flush('blue');
    sub.same(await here('one', 'two', 'three', 'four'), [false, false, false, false]);
    if (isBounded) sub.equal(store.bytes, 0);
    await store.label('one', 'blue');
    sub.equal(await store.has('one'), false, 'a label brings nothing back');
    await store.set('one', block, 'red');
    await store.flush('blue');
    sub.equal(await store.has('one'), true, 'old labels are forgotten with their block');
    await store.delete('one');
    await store.set('one', block, 'blue');
    await store.flush('red');
    sub.equal(await store.has('one'), true, 'deleted or flushed');
  });

  await test.test('labels: of many blocks', async (sub) => {
    const count = isBounded ? await capacity(adapt(await create({ maxBytes: 200_000 }))) : UNBOUNDED_ENTRIES;
    const store = await create({ maxBytes: 200_000 });
    for (let index = 0; index < count; index += 1)
      await store.set(entry(index), seededBytes(index + 1, ENTRY_BYTES), index % 2 === 0 ? 'even' : 'odd');
    const { bytes } = store;
    await store.label(entry(1), 'even');
    if (isBounded) sub.ok(Math.abs(store.bytes - bytes) <= 200, 'and costs next to nothing');
    await store.flush('odd');
    const left = await Promise.all(Array.from({ length: count }, async (_, index) => store.has(entry(index))));
    sub.same(
      left,
      left.map((__, index) => index % 2 === 0 || index === 1),
    );
  });

  await segmentSuite(test, create, isBounded);
  if (!isBounded) return;

  await test.test('asking whether a block is here is no use of it', async (sub) => {
    const count = await capacity(adapt(await create({ maxBytes: 200_000 })));
    const store = await create({ maxBytes: 200_000 });
    for (let index = 0; index < count; index += 1)
      await store.set(entry(index), seededBytes(index + 1, ENTRY_BYTES), 'test');
    sub.equal(await store.has(entry(0)), true);
    await store.set(entry(count), seededBytes(1, ENTRY_BYTES), 'test');
    sub.equal(await store.has(entry(0)), false, 'the oldest left although it was asked about');
    sub.equal(await store.has(entry(1)), true);
  });

  await limitsSuite(test, async (options) => adapt(await create(options)));
}

/** What can be given to peers: which blocks of which segments are here. */
async function segmentSuite(test: Test, create: Create<BlockStore>, isBounded: boolean): Promise<void> {
  const facts = (seed: number, blockCount = 512) => ({ secret: seededBytes(seed, 32), blockCount });
  const block = seededBytes(6, 1_000);
  const blocksOf = async (store: BlockStore, segmentId: string): Promise<readonly number[] | undefined> => {
    const found = await store.segment(segmentId);
    return found && [...found.blocks];
  };

  await test.test('segments: the blocks held, in ascending order whatever order they came in', async (sub) => {
    const store = await create({ maxBytes: 10_000_000 });
    sub.equal(await store.segment('a'), undefined);
    const indexes = [...Array.from({ length: 60 }, (_, index) => index), 255, 510, 511];
    for (const index of shuffled(indexes, 3)) await store.set(blockKey('a', index), block, 'test', facts(1));
    for (const index of [9, 3, 3, 9]) await store.set(blockKey('a', index), block, 'again', facts(1));
    await store.set(blockKey('b', 7), block, 'test', facts(2, 8));
    sub.same(await blocksOf(store, 'a'), indexes, 'each once');
    sub.match(await store.segment('a'), { blockCount: 512 });
    sub.equal(toHex((await store.segment('a'))?.secret as Uint8Array), toHex(seededBytes(1, 32)));
    sub.same([await blocksOf(store, 'b'), (await store.segment('b'))?.blockCount], [[7], 8], 'segments are apart');
    for (const segmentId of ['a:0', 'a:', ':', '', 'A', '__proto__', 'constructor'])
      sub.equal(await store.segment(segmentId), undefined, `no segment ${segmentId}`);
  });

  await test.test('segments: the secret is a copy, since the first block came', async (sub) => {
    const clock = new ManualClock();
    const store = await create({ maxBytes: 1_000_000, clock });
    const large = seededBytes(4, 1_000_000);
    const secret = large.subarray(500, 532);
    const kept = toHex(secret);
    const before = clock.now();
    await store.set(blockKey('a', 1), block, 'test', { secret, blockCount: 3 });
    secret.fill(0);
    clock.advance(5_000);
    await store.set(blockKey('a', 0), block, 'test', { secret: seededBytes(1, 32), blockCount: 3 });
    await store.set(blockKey('a', 1), block, 'test', { secret: seededBytes(1, 32), blockCount: 3 });
    const held = await store.segment('a');
    sub.equal(toHex(held?.secret as Uint8Array), kept, 'the caller may overwrite its own');
    sub.equal(held?.secret?.buffer.byteLength, 32, 'and a view pins nothing');
    sub.equal(held?.since, before, 'later blocks make it no younger');
    await store.delete(blockKey('a', 0));
    sub.equal((await store.segment('a'))?.since, before);
    await store.delete(blockKey('a', 1));
    clock.advance(1);
    await store.set(blockKey('a', 1), block, 'test', { secret: seededBytes(1, 32), blockCount: 3 });
    sub.equal((await store.segment('a'))?.since, before + 5_001, 'all gone and come again, it is new');
    sub.equal(toHex((await store.segment('a'))?.secret as Uint8Array), toHex(seededBytes(1, 32)));
  });

  await test.test('segments: without facts a block is for the owner alone', async (sub) => {
    const store = await create({ maxBytes: 1_000_000 });
    await store.set(blockKey('a', 0), block, 'test');
    await store.set(blockKey('a', 1), block, 'test', facts(1));
    sub.same(await blocksOf(store, 'a'), [1]);
    sub.equal(await store.has(blockKey('a', 0)), true);
    await store.set(blockKey('a', 0), block, 'other', facts(1));
    sub.same(await blocksOf(store, 'a'), [0, 1], 'until somebody knows them');
    await store.set(blockKey('a', 1), block, 'other');
    sub.same(await blocksOf(store, 'a'), [0, 1], 'and those known stay so');
    for (const index of [0, 1]) await store.label(blockKey('a', index), 'third');
    sub.same(await blocksOf(store, 'a'), [0, 1]);
    await store.set(blockKey('b', 0), block, 'test');
    sub.equal(await store.segment('b'), undefined);
  });

  await test.test('segments: what is deleted, flushed or evicted is not offered', async (sub) => {
    const store = await create({ maxBytes: 1_000_000 });
    for (const index of [0, 1, 2, 3])
      await store.set(blockKey('a', index), block, index % 2 === 0 ? 'even' : 'odd', facts(1));
    await store.label(blockKey('a', 2), 'odd');
    await store.delete(blockKey('a', 9));
    await store.delete(blockKey('a', 1));
    await store.delete(blockKey('a', 1));
    sub.same(await blocksOf(store, 'a'), [0, 2, 3], 'deleted');
    await store.flush('even');
    sub.same(await blocksOf(store, 'a'), [2, 3], 'flushed, but for what somebody else has too');
    await store.flush('odd');
    sub.equal(await store.segment('a'), undefined, 'no block, no segment');
    if (!isBounded) return;

    const small = await create({ maxBytes: 200_000 });
    for (let index = 0; index < 100; index += 1) {
      const segmentId = index % 3 === 0 ? 'a' : 'b';
      await small.set(blockKey(segmentId, index), seededBytes(index + 1, ENTRY_BYTES), 'test', facts(1));
    }
    for (const segmentId of ['a', 'b']) {
      const offered = (await blocksOf(small, segmentId)) ?? [];
      const here: number[] = [];
      for (let index = 0; index < 100; index += 1) if (await small.has(blockKey(segmentId, index))) here.push(index);
      sub.same(offered, here, 'exactly what is here');
      sub.ok(offered.length > 0 && offered.length < 20, `${offered.length} were kept`);
    }
  });

  if (!isBounded) return;
  await test.test('segments: a block that was not kept is not offered', async (sub) => {
    const store = await create({ maxBytes: 100_000 });
    await store.set(blockKey('a', 0), seededBytes(1, 100_001), 'test', facts(1));
    sub.equal(await store.segment('a'), undefined);
    await store.set(blockKey('a', 0), block, 'test', facts(1));
    await store.set(blockKey('a', 1), block, 'test', facts(1));
    await store.set(blockKey('a', 0), seededBytes(1, 100_001), 'test', facts(1));
    const isHere = await store.has(blockKey('a', 0));
    sub.same(await blocksOf(store, 'a'), isHere ? [0, 1] : [1], 'nor one that drove itself out');
  });

  await test.test('segments: asking what can be given is no use of it', async (sub) => {
    const store = await create({ maxBytes: 200_000 });
    let count = 0;
    // Until the first has left.
    do {
      await store.segment('s0');
      await store.set(blockKey(`s${count}`, 0), seededBytes(count + 1, ENTRY_BYTES), 'test', facts(1));
      count += 1;
    } while ((await store.has(blockKey('s0', 0))) && count < 1_000);
    sub.ok(count > 5 && count < 25, `the first left when ${count} had come`);
    sub.equal(await store.segment('s0'), undefined);
    sub.same(await blocksOf(store, 's1'), [0]);
  });
}

export async function contentInformationStoreSuite(
  test: Test,
  create: Create<ContentInformationStore>,
  { isBounded = true }: SuiteOptions = {},
): Promise<void> {
  const record = (size: number): ContentInformationRecord => {
    const half = Math.floor(size / 2);
    return { contentLength: size, encoded: { 1: seededBytes(1, half), 2: seededBytes(2, size - half) } };
  };
  const adapt = (store: ContentInformationStore): Adapter => ({
    bytes: () => store.bytes,
    use: async (key) => {
      const found = await store.get(key);
      return found && (found.encoded[1]?.byteLength ?? 0) + (found.encoded[2]?.byteLength ?? 0);
    },
    put: async (key, size) => store.set(key, record(size)),
    remove: async (key) => store.delete(key),
  });

  await test.test('keeps records as they are', async (sub) => {
    const store = await create({ maxBytes: 1_000_000 });
    sub.equal(await store.get('a'), undefined);
    await store.set('a', record(5_000));
    await store.set('b', { contentLength: 7, encoded: { 2: seededBytes(9, 70) } });
    const a = await store.get('a');
    sub.equal(a?.contentLength, 5_000);
    sub.same(
      [a?.encoded[1], a?.encoded[2]].map((bytes) => toHex(bytes as Uint8Array)),
      [toHex(seededBytes(1, 2_500)), toHex(seededBytes(2, 2_500))],
    );
    const b = await store.get('b');
    sub.same([b?.encoded[1], toHex(b?.encoded[2] as Uint8Array)], [undefined, toHex(seededBytes(9, 70))]);
    sub.equal(await store.delete('a'), true);
    sub.equal(await store.delete('a'), false, 'there was nothing any more');
    sub.equal(await store.get('a'), undefined);
    sub.equal((await store.get('b'))?.contentLength, 7);
  });

  if (isBounded) await limitsSuite(test, async (options) => adapt(await create(options)));
}

/** Entries of {@link ENTRY_BYTES} that fit. */
async function capacity(store: Adapter): Promise<number> {
  let count = 0;
  while (count < 1_000) {
    const before = store.bytes();
    await store.put(entry(count), ENTRY_BYTES);
    if (store.bytes() <= before) return count;
    count += 1;
  }
  throw new Error('the store has no limit');
}

/** Keys of one length, so that every entry costs the same. */
function entry(index: number): string {
  return `entry ${String(index).padStart(4, '0')}`;
}

async function limitsSuite(test: Test, create: Create<Adapter>): Promise<void> {
  await test.test('never holds more than its limit', async (sub) => {
    const maxBytes = 300_000;
    const store = await create({ maxBytes });
    const next = words(17);
    const sizes = new Map<string, number>();
    let most = 0;
    for (let step = 0; step < 600; step += 1) {
      const key = `${pick(next, 80)}`;
      const size = 1 + pick(next, step % 50 === 0 ? 400_000 : 60_000);
      await store.put(key, size);
      sizes.set(key, size);
      if (step % 7 === 0) await store.remove(`${pick(next, 80)}`);
      most = Math.max(most, store.bytes());
    }
    sub.ok(most <= maxBytes, `at most ${most} of ${maxBytes}`);
    sub.ok(most > maxBytes / 2, 'and it uses what it may');
    let held = 0;
    for (const [key, size] of sizes) {
      const found = await store.use(key);
      if (found === undefined) continue;
      if (found !== size) sub.fail(`${key} has ${found} bytes, not ${size}`);
      held += found;
    }
    sub.ok(held > 0 && held <= store.bytes(), 'what it counts is at least what it holds');
  });

  await test.test('bookkeeping counts too', async (sub) => {
    const store = await create({ maxBytes: 100_000 });
    const many = Array.from({ length: 10_000 }, (_, index) => `key ${index}`);
    for (let from = 0; from < many.length; from += 500)
      await Promise.all(many.slice(from, from + 500).map((key) => store.put(key, 1)));
    let held = 0;
    for (const key of many) if ((await store.use(key)) !== undefined) held += 1;
    sub.ok(held > 0 && held < 1_000, `${held} entries of one byte in 100,000 bytes`);
  });

  await test.test('the least recently used leaves first', async (sub) => {
    const count = await capacity(await create({ maxBytes: 200_000 }));
    sub.ok(count > 5 && count <= 20, `${count} fit`);
    const store = await create({ maxBytes: 200_000 });
    for (let index = 0; index < count; index += 1) await store.put(entry(index), ENTRY_BYTES);
    sub.equal(await store.use(entry(0)), ENTRY_BYTES);
    await store.put(entry(2), ENTRY_BYTES);
    await store.put(entry(count), ENTRY_BYTES);
    await store.put(entry(count + 1), ENTRY_BYTES);
    const here = await Promise.all([0, 1, 2, 3, count, count + 1].map((index) => store.use(entry(index))));
    sub.same(
      here.map((size) => size !== undefined),
      [true, false, true, false, true, true],
      'read and written again stay, 1 and 3 left',
    );
  });

  await test.test('an entry that does not fit alone is not kept and drives nobody out', async (sub) => {
    const store = await create({ maxBytes: 100_000 });
    await store.put('small', 1_000);
    await store.put('huge', 100_001);
    sub.equal(await store.use('huge'), undefined);
    sub.equal(await store.use('small'), 1_000);
    await store.put('small', 100_001);
    sub.not(await store.use('small'), 100_001);
    sub.ok(store.bytes() <= 100_000);
  });

  await test.test('replaced and removed entries are not counted', async (sub) => {
    const store = await create({ maxBytes: 100_000 });
    sub.equal(store.bytes(), 0);
    await store.put('a', 50_000);
    const once = store.bytes();
    sub.ok(once >= 50_000);
    for (let round = 0; round < 5; round += 1) await store.put('a', 50_000);
    sub.equal(store.bytes(), once, 'the same again');
    await store.put('a', 10_000);
    // A store may count in pages.
    sub.ok(Math.abs(store.bytes() - (once - 40_000)) < 8_192, 'smaller');
    sub.equal(await store.use('a'), 10_000);
    await store.remove('a');
    sub.equal(store.bytes(), 0);
  });
}
