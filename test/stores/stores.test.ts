/** The stores in memory: the shared suites of their contracts, what they report, and what a proxy remembers of resources. */
import * as fc from 'fast-check';
import t from 'tap';
import type { HeaderFields } from '../../lib/http/index.ts';
import type { Observation } from '../../lib/observer.ts';
import { MemoryBlockStore, MemoryContentInformationStore, MemoryResourceStore } from '../../lib/stores/index.ts';
import { seededBytes } from '../support/random.ts';
import { blockStoreSuite, contentInformationStoreSuite } from '../support/store-suites.ts';

await t.test('MemoryBlockStore', async (test) => blockStoreSuite(test, (options) => new MemoryBlockStore(options)));

await t.test('MemoryContentInformationStore', async (test) =>
  contentInformationStoreSuite(test, (options) => new MemoryContentInformationStore(options)),
);

await t.test('evictions are reported, each once and with its size', async (test) => {
  const seen: Observation[] = [];
  const blocks = new MemoryBlockStore({ maxBytes: 12_000, observer: (observation) => seen.push(observation) });
  blocks.set('a', seededBytes(1, 4_000), 'test');
  blocks.set('a', seededBytes(1, 3_000), 'test');
  blocks.set('b', seededBytes(2, 4_400), 'test');
  blocks.set('c', seededBytes(3, 4_500), 'test');
  blocks.delete('c');
  test.same(
    seen.filter(({ type }) => type === 'eviction'),
    [{ type: 'eviction', store: 'block', bytes: 3_000 }],
    'replacing and deleting is no eviction',
  );
  test.same(
    seen
      .filter(({ type }) => type === 'stored')
      .map((observation) => 'bytes' in observation && observation.bytes <= 12_000),
    [true, true, true, true],
  );
  seen.length = 0;
  const information = new MemoryContentInformationStore({
    maxBytes: 5_000,
    observer: (observation) => seen.push(observation),
  });
  for (const key of ['a', 'b', 'c']) information.set(key, { contentLength: 1, encoded: { 1: seededBytes(1, 1_000) } });
  test.equal(seen.filter(({ type }) => type === 'eviction').length, 1);
  test.match(seen.at(-1), { type: 'stored', store: 'content_information', bytes: information.bytes });
});

const GERMAN: HeaderFields = { 'accept-language': 'de' };
const ENGLISH: HeaderFields = { 'accept-language': 'en' };
const LANGUAGE = ['accept-language'];

await t.test('MemoryResourceStore: variants', async (test) => {
  const removed: string[] = [];
  const store = new MemoryResourceStore<string>({
    maxBytes: 100_000,
    maxVariants: 3,
    onRemove: (value) => removed.push(value),
  });
  test.equal(store.find('/a', {}), undefined);
  store.put('/a', [], GERMAN, 'plain', 10);
  test.equal(store.find('/a', ENGLISH), 'plain', 'no Vary: every request selects it');
  test.equal(store.find('/b', ENGLISH), undefined);

  store.put('/a', LANGUAGE, GERMAN, 'german', 10);
  test.same(removed, ['plain'], 'an answer that now varies replaces the one that did not');
  test.equal(store.find('/a', GERMAN), 'german');
  test.equal(store.find('/a', { 'accept-language': ' de ', cookie: 'x' }), 'german');
  test.equal(store.find('/a', ENGLISH), undefined);
  test.equal(store.find('/a', {}), undefined);
  store.put('/a', LANGUAGE, ENGLISH, 'english', 10);
  store.put('/a', LANGUAGE, {}, 'none', 10);
  test.same(
    [GERMAN, ENGLISH, {}].map((request) => store.find('/a', request)),
    ['german', 'english', 'none'],
  );

  removed.length = 0;
  store.put('/a', LANGUAGE, GERMAN, 'german 2', 10);
  test.same(removed, ['german'], 'a newer answer replaces the older one of the same request');
  store.put('/a', LANGUAGE, GERMAN, 'german 2', 20);
  test.same(removed, ['german'], 'the same value again did not leave');
  store.put('/a', LANGUAGE, { 'accept-language': 'fr' }, 'french', 10);
  test.same(removed, ['german', 'english'], 'past the maximum the oldest variant leaves');
  test.equal(store.find('/a', ENGLISH), undefined);

  removed.length = 0;
  store.put('/a', ['accept-language', 'cookie'], GERMAN, 'by cookie', 10);
  test.same(
    removed.toSorted(),
    ['french', 'german 2', 'none'],
    'other selecting fields: nothing known is right any more',
  );
  test.equal(store.find('/a', GERMAN), 'by cookie');
  test.equal(store.find('/a', { ...GERMAN, cookie: 'a=1' }), undefined);

  removed.length = 0;
  store.put('/b', [], {}, 'b', 10);
  test.equal(store.delete('/a'), true);
  test.equal(store.delete('/a'), false);
  test.same(removed, ['by cookie']);
  store.clear();
  test.same(removed, ['by cookie', 'b']);
  test.equal(store.bytes, 0);
});

await t.test('MemoryResourceStore: a value is here, or it was removed exactly once', async (test) => {
  interface Step {
    readonly key: string;
    readonly varies: boolean;
    readonly language: string;
    readonly bytes: number;
    readonly remove: boolean;
  }
  const step: fc.Arbitrary<Step> = fc.record({
    key: fc.constantFrom('/a', '/b', '/c', '/d', '/e', '/f'),
    varies: fc.boolean(),
    language: fc.constantFrom('de', 'en', 'fr', 'it', 'es'),
    bytes: fc.integer({ min: 0, max: 900 }),
    remove: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
  });
  let evicted = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 80, size: 'max' }), (steps) => {
      const removals = new Map<number, number>();
      const maxBytes = 6_000;
      const store = new MemoryResourceStore<number>({
        maxBytes,
        maxVariants: 3,
        onRemove: (value) => removals.set(value, (removals.get(value) ?? 0) + 1),
      });
      const put: { value: number; step: Step }[] = [];
      for (const [value, current] of steps.entries()) {
        const { key, varies, language, bytes, remove } = current;
        if (remove) store.delete(key);
        else {
          store.put(key, varies ? LANGUAGE : [], { 'accept-language': language }, value, bytes);
          put.push({ value, step: current });
        }
        if (store.bytes > maxBytes) return false;
        for (const { value: known, step: origin } of put) {
          const here = store.find(origin.key, { 'accept-language': origin.language }) === known;
          if ((removals.get(known) ?? 0) !== (here ? 0 : 1)) return false;
        }
      }
      evicted += removals.size;
      return true;
    }),
    { numRuns: 300, seed: 23 },
  );
  test.ok(evicted > 1_000, `${evicted} values left`);
});

await t.test('MemoryResourceStore: a value too large for the store', async (test) => {
  const removals = new Map<string, number>();
  const create = (): MemoryResourceStore<string> => {
    removals.clear();
    return new MemoryResourceStore<string>({
      maxBytes: 10_000,
      onRemove: (value) => removals.set(value, (removals.get(value) ?? 0) + 1),
    });
  };
  const store = create();
  store.put('/a', LANGUAGE, GERMAN, 'german', 10);
  store.put('/a', LANGUAGE, ENGLISH, 'huge', 20_000);
  test.equal(store.find('/a', ENGLISH), undefined);
  test.ok(store.bytes <= 10_000);
  test.equal(removals.get('german') ?? 0, store.find('/a', GERMAN) === undefined ? 1 : 0);
  test.equal(removals.get('huge'), 1);

  const other = create();
  other.put('/a', LANGUAGE, GERMAN, 'german', 10);
  other.put('/a', ['cookie'], GERMAN, 'huge', 20_000);
  test.equal(other.find('/a', GERMAN), undefined);
  test.equal(removals.get('german'), 1, 'removed once, although two things happened to it');
});
