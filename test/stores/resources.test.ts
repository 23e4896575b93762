/** What a proxy knows of resources, with records behind it: what was deleted does not come back, whatever is under way meanwhile. */
import t, { type Test } from 'tap';
import type { HeaderFields } from '../../lib/http/index.ts';
import { type RecordStore, ResourceStore } from '../../lib/stores/index.ts';

interface Value {
  readonly text: string;
}

/** Records that answer when they are told to. */
class SlowRecords implements RecordStore {
  readonly kept = new Map<string, Uint8Array>();
  readonly bytes = 0;
  version = 0;
  #held: (() => void)[] = [];
  #last = Promise.resolve();
  isHeld = false;

  /** Lets go what waits, in its order. */
  async letGo(): Promise<void> {
    this.isHeld = false;
    for (const go of this.#held.splice(0)) {
      go();
      await new Promise(setImmediate);
    }
  }

  async get(name: string): Promise<Uint8Array | undefined> {
    const value = this.kept.get(name);
    await this.#turn();
    return value;
  }

  async set(name: string, value: Uint8Array): Promise<void> {
    await this.#turn();
    this.kept.set(name, value);
  }

  async delete(name: string): Promise<boolean> {
    await this.#turn();
    this.version += 1;
    return this.kept.delete(name);
  }

  /** One after the other, as LMDB and Redis do it. */
  #turn(): Promise<void> {
    const gate = this.isHeld ? new Promise<void>((resolve) => this.#held.push(resolve)) : Promise.resolve();
    this.#last = this.#last.then(() => gate);
    return this.#last;
  }
}

function open(_test: Test, records: SlowRecords): ResourceStore<Value> {
  return new ResourceStore<Value>({
    maxBytes: 100_000,
    bytesOf: () => 100,
    durable: {
      records,
      encode: ({ text }) => Buffer.from(text),
      decode: (bytes) => ({ text: Buffer.from(bytes).toString() }),
    },
  });
}

const LANGUAGE = ['accept-language'];
const GERMAN: HeaderFields = { 'accept-language': 'de' };
const ENGLISH: HeaderFields = { 'accept-language': 'en' };

await t.test('variants survive the process, each put at the same moment as another', async (test) => {
  const records = new SlowRecords();
  const store = open(test, records);
  records.isHeld = true;
  const puts = [
    store.put('/a', LANGUAGE, GERMAN, { text: 'german' }),
    store.put('/a', LANGUAGE, ENGLISH, { text: 'english' }),
  ];
  while (records.isHeld) await records.letGo();
  await Promise.all(puts);
  const later = open(test, records);
  test.same(
    [await later.find('/a', GERMAN), await later.find('/a', ENGLISH)],
    [{ text: 'german' }, { text: 'english' }],
  );
  test.equal(await later.find('/a', {}), undefined);
});

await t.test('what is being deleted is not there any more, and takes no variant along', async (test) => {
  const records = new SlowRecords();
  const store = open(test, records);
  await store.put('/a', LANGUAGE, ENGLISH, { text: 'old english' });
  records.isHeld = true;
  const deleted = store.delete('/a');
  test.equal(await store.find('/a', ENGLISH), undefined, 'before the records have heard of it');
  const put = store.put('/a', LANGUAGE, GERMAN, { text: 'german' });
  while (records.isHeld) await records.letGo();
  await Promise.all([deleted, put]);
  test.equal(await open(test, records).find('/a', ENGLISH), undefined);
  test.same(await open(test, records).find('/a', GERMAN), { text: 'german' });
});

await t.test('what was read or learned before a deletion does not outlive it', async (test) => {
  const records = new SlowRecords();
  await open(test, records).put('/a', [], {}, { text: 'old' });
  const store = open(test, records);
  records.isHeld = true;
  const found = store.find('/a', {});
  const put = store.put('/b', [], {}, { text: 'old' });
  const deleted = [store.delete('/a'), store.delete('/b')];
  while (records.isHeld) await records.letGo();
  await Promise.all([...deleted, put]);
  test.equal(await found, undefined);
  test.same([await store.find('/a', {}), await store.find('/b', {})], [undefined, undefined]);
  test.same(
    [await open(test, records).find('/a', {}), await open(test, records).find('/b', {})],
    [undefined, undefined],
  );
});

await t.test('another process has deleted something: nothing in memory is believed', async (test) => {
  const records = new SlowRecords();
  const [store, other] = [open(test, records), open(test, records)];
  await store.put('/a', [], {}, { text: 'a' });
  test.same(await other.find('/a', {}), { text: 'a' });
  await store.delete('/a');
  test.equal(await other.find('/a', {}), undefined);
});
