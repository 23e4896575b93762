/**
 * What every implementation of a store contract (`lib/stores/types.ts`) has to do. A new store calls its suite with a way to make an
 * empty store of at most `maxBytes`; nothing here knows how it works inside.
 */
import type { Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { BlockStore, ContentInformationRecord, ContentInformationStore } from '../../lib/stores/index.ts';
import { pick, seededBytes, words } from './random.ts';

export interface StoreOptions {
  readonly maxBytes: number;
  readonly observer?: Observer;
}

type Create<S> = (options: StoreOptions) => S;

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

export async function blockStoreSuite(test: Test, create: Create<BlockStore>): Promise<void> {
  const adapt = (store: BlockStore): Adapter => ({
    bytes: () => store.bytes,
    use: async (key) => (await store.get(key))?.byteLength,
    put: async (key, size) => store.set(key, seededBytes(size, size), 'test'),
    remove: async (key) => store.delete(key),
  });

  await test.test('keeps blocks as they are', async (sub) => {
    const store = create({ maxBytes: 1_000_000 });
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
      const store = create({ maxBytes: 1_000_000 });
      await store.set('view', whole.subarray(1_000, 3_000), 'test');
      const kept = await store.get('view');
      sub.equal(toHex(kept as Uint8Array), toHex(large.subarray(1_000, 3_000)));
      sub.ok((kept?.buffer.byteLength ?? 0) < 10_000, `a ${name} of 2,000 bytes pins ${kept?.buffer.byteLength}`);
    }
  });

  await test.test('labels: a block stays until the last of them goes', async (sub) => {
    const store = create({ maxBytes: 1_000_000 });
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
    sub.equal(store.bytes, bytes, 'an unknown label is on nothing');
    await store.flush('red');
    sub.same(await here('one', 'two', 'three', 'four'), [false, true, true, true], 'a second label keeps a block');
    sub.ok(store.bytes < bytes, 'what went is not counted');
    for (const key of ['two', 'three']) sub.equal(toHex((await store.get(key)) as Uint8Array), toHex(block), key);
    await store.flush('red');
    sub.same(await here('two', 'three', 'four'), [true, true, true], 'a label goes once');
    await store.flush('blue');
    sub.same(await here('one', 'two', 'three', 'four'), [false, false, false, false]);
    sub.equal(store.bytes, 0);
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
    const count = await capacity(adapt(create({ maxBytes: 200_000 })));
    const store = create({ maxBytes: 200_000 });
    for (let index = 0; index < count; index += 1)
      await store.set(entry(index), seededBytes(index + 1, ENTRY_BYTES), index % 2 === 0 ? 'even' : 'odd');
    const { bytes } = store;
    await store.label(entry(1), 'even');
    sub.ok(Math.abs(store.bytes - bytes) <= 200, 'and costs next to nothing');
    await store.flush('odd');
    const left = await Promise.all(Array.from({ length: count }, async (_, index) => store.has(entry(index))));
    sub.same(
      left,
      left.map((__, index) => index % 2 === 0 || index === 1),
    );
  });

  await test.test('asking whether a block is here is no use of it', async (sub) => {
    const count = await capacity(adapt(create({ maxBytes: 200_000 })));
    const store = create({ maxBytes: 200_000 });
    for (let index = 0; index < count; index += 1)
      await store.set(entry(index), seededBytes(index + 1, ENTRY_BYTES), 'test');
    sub.equal(await store.has(entry(0)), true);
    await store.set(entry(count), seededBytes(1, ENTRY_BYTES), 'test');
    sub.equal(await store.has(entry(0)), false, 'the oldest left although it was asked about');
    sub.equal(await store.has(entry(1)), true);
  });

  await limitsSuite(test, (options) => adapt(create(options)));
}

export async function contentInformationStoreSuite(test: Test, create: Create<ContentInformationStore>): Promise<void> {
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
    const store = create({ maxBytes: 1_000_000 });
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

  await limitsSuite(test, (options) => adapt(create(options)));
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
    const store = create({ maxBytes });
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
    const store = create({ maxBytes: 100_000 });
    for (let index = 0; index < 10_000; index += 1) await store.put(`key ${index}`, 1);
    let held = 0;
    for (let index = 0; index < 10_000; index += 1) if ((await store.use(`key ${index}`)) !== undefined) held += 1;
    sub.ok(held > 0 && held < 1_000, `${held} entries of one byte in 100,000 bytes`);
  });

  await test.test('the least recently used leaves first', async (sub) => {
    const count = await capacity(create({ maxBytes: 200_000 }));
    sub.ok(count > 5 && count <= 20, `${count} fit`);
    const store = create({ maxBytes: 200_000 });
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
    const store = create({ maxBytes: 100_000 });
    await store.put('small', 1_000);
    await store.put('huge', 100_001);
    sub.equal(await store.use('huge'), undefined);
    sub.equal(await store.use('small'), 1_000);
    await store.put('small', 100_001);
    sub.not(await store.use('small'), 100_001);
    sub.ok(store.bytes() <= 100_000);
  });

  await test.test('replaced and removed entries are not counted', async (sub) => {
    const store = create({ maxBytes: 100_000 });
    sub.equal(store.bytes(), 0);
    await store.put('a', 50_000);
    const once = store.bytes();
    sub.ok(once >= 50_000);
    for (let round = 0; round < 5; round += 1) await store.put('a', 50_000);
    sub.equal(store.bytes(), once, 'the same again');
    await store.put('a', 10_000);
    sub.equal(store.bytes(), once - 40_000, 'smaller');
    sub.equal(await store.use('a'), 10_000);
    await store.remove('a');
    sub.equal(store.bytes(), 0);
  });
}
