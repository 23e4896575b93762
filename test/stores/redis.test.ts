/** The stores in Redis, on real servers: the shared suites, other writers and garbage, eviction, restarts, secrets, claims. */
import { randomBytes } from 'node:crypto';
import t, { type Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import type { Observation } from '../../lib/observer.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import {
  blockKey,
  type ContentInformationStore,
  openRedis,
  RecordContentInformationStore,
  RedisBlockStore,
  RedisClaims,
  type RedisConnection,
  type RedisOptions,
  RedisRecordStore,
  Sealer,
  TieredBlockStore,
} from '../../lib/stores/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { within } from '../support/net.ts';
import { seededBytes } from '../support/random.ts';
import {
  Cutter,
  makeCertificate,
  noRedis,
  polite,
  pretendRedis,
  redisCli,
  startCluster,
  TestRedis,
  until,
} from '../support/redis.ts';
import { blockStoreSuite, contentInformationStoreSuite, type StoreOptions } from '../support/store-suites.ts';

const SECRET = ServerSecret.fromText('one secret');
const OTHER_SECRET = ServerSecret.fromText('another secret');
const BLOCK = seededBytes(1, 65_536);
const FACTS = { secret: seededBytes(2, 32), blockCount: 512, from: '192.0.2.7' };
/** Milliseconds that bound what a Redis that hangs may cost a caller, with room for a machine that is busy. */
const BOUND_MS = 5_000;

let prefixes = 0;
/** Every store is empty at first. */
function freshPrefix(): string {
  prefixes += 1;
  return `test${prefixes}:`;
}

async function open(test: Test, url: string, options?: RedisOptions): Promise<RedisConnection> {
  const connection = await openRedis(url, options);
  test.teardown(() => connection.close());
  return connection;
}

interface Blocks {
  readonly store: RedisBlockStore;
  readonly prefix: string;
  /** Faults observed since the last look. */
  readonly faults: () => string[];
}

function blocksOn(
  connection: RedisConnection,
  { prefix = freshPrefix(), clock }: { readonly prefix?: string; readonly clock?: ManualClock } = {},
): Blocks {
  const { observer, faults } = watch('block');
  return { store: new RedisBlockStore({ connection, prefix, observer, clock }), prefix, faults };
}

function recordsOn(
  connection: RedisConnection,
  secrets: readonly [ServerSecret, ...ServerSecret[]] = [SECRET],
  prefix = freshPrefix(),
): { readonly store: RedisRecordStore; readonly prefix: string; readonly faults: () => string[] } {
  const { observer, faults } = watch('content_information');
  return { store: new RedisRecordStore({ connection, sealer: new Sealer(secrets), prefix, observer }), prefix, faults };
}

function watch(store: 'block' | 'content_information') {
  const seen: string[] = [];
  const observer = (observation: Observation): void => {
    if (observation.type === 'store_fault' && observation.store === store) seen.push(observation.fault);
  };
  return { observer, faults: () => seen.splice(0) };
}

/** Stands for bytes where a test that fails prints them. */
function sum(bytes: Uint8Array | undefined): string | undefined {
  return bytes && toHex(nativeHashProvider.digest('sha256', bytes));
}

/** Every key there is. */
async function keysOf(connection: RedisConnection): Promise<string[]> {
  const keys: string[] = [];
  for await (const some of connection.scan('*')) keys.push(...some);
  return keys.toSorted();
}

async function suites(test: Test, connection: RedisConnection): Promise<void> {
  await test.test('RedisBlockStore', async (sub) =>
    blockStoreSuite(
      sub,
      ({ observer, clock }: StoreOptions) => {
        const store = new RedisBlockStore({ connection, prefix: freshPrefix(), observer, clock });
        sub.teardown(() => store.close());
        return store;
      },
      { isBounded: false },
    ),
  );
  await test.test('RecordContentInformationStore on RedisRecordStore', async (sub) =>
    contentInformationStoreSuite(
      sub,
      (): ContentInformationStore =>
        new RecordContentInformationStore({ records: recordsOn(connection).store, memoryBytes: 1 }),
      { isBounded: false },
    ),
  );
}

await t.test('one server', { skip: noRedis }, async (t) => {
  const redis = await TestRedis.start(t);
  const connection = await open(t, redis.url);
  t.equal(connection.state(), 'ready');
  await suites(t, connection);

  await t.test('garbage where a block should be is never given out, and goes', async (test) => {
    const { store, prefix, faults } = blocksOn(connection);
    const at = (index: number): string => `${prefix}{a}:${index}`;
    const isBlock = (bytes: Uint8Array): boolean => sum(bytes) === sum(BLOCK);
    const other = seededBytes(9, 65_536);
    const digest = nativeHashProvider.digest('sha256', other);
    const garbage: Record<string, (key: string) => Promise<unknown>> = {
      'a string': (key) => connection.send(key, ['SET', key, 'x']),
      'a list': (key) => connection.send(key, ['RPUSH', key, 'v']),
      'no value': (key) => connection.send(key, ['HDEL', key, 'v']),
      'no hash': (key) => connection.send(key, ['HDEL', key, 'h']),
      'no digest': (key) => connection.send(key, ['HDEL', key, 'd']),
      'a digest nobody knows': (key) => connection.send(key, ['HSET', key, 'd', 'md5']),
      'a hash that says nothing': (key) => connection.send(key, ['HSET', key, 'h', '']),
      'a byte of a hash': (key) =>
        connection.send(key, [
          'HSET',
          key,
          'h',
          Buffer.from(nativeHashProvider.digest('sha256', BLOCK).subarray(0, 1)),
        ]),
      'random bytes': (key) => connection.send(key, ['HSET', key, 'v', randomBytes(65_536)]),
      truncated: (key) => connection.send(key, ['HSET', key, 'v', Buffer.from(BLOCK.subarray(0, 65_535))]),
      'nothing in it': (key) => connection.send(key, ['HSET', key, 'v', '']),
      'another block': (key) => connection.send(key, ['COPY', at(99), key, 'REPLACE']),
    };
    await store.set('a:99', other, 'test', FACTS, { digest: 'sha256', value: digest });
    let index = 0;
    for (const [what, spoil] of Object.entries(garbage))
      for (const check of [undefined, isBlock]) {
        index += 1;
        const key = blockKey('a', index);
        await store.set(key, BLOCK, 'test', FACTS);
        test.equal(sum(await store.get(key, check)), sum(BLOCK));
        await connection.send(at(index), what.startsWith('a ') ? ['DEL', at(index)] : ['PING']);
        if (what.startsWith('a ')) await store.set(key, BLOCK, 'test', FACTS);
        if (what === 'a string' || what === 'a list') await connection.send(at(index), ['DEL', at(index)]);
        await spoil(at(index));
        // With the caller's own check, what is said beside the bytes does not matter.
        const isStillTrue = check !== undefined && /hash|digest/.test(what);
        test.equal(sum(await store.get(key, check)), isStillTrue ? sum(BLOCK) : undefined, what);
        test.same(faults(), isStillTrue ? [] : ['damaged'], what);
        if (isStillTrue) continue;
        test.equal(await store.has(key), false, 'gone');
        test.notOk((await store.segment('a'))?.blocks.includes(index), 'and not offered');
        await store.set(key, BLOCK, 'test', FACTS);
        test.equal(sum(await store.get(key, check)), sum(BLOCK), 'and comes again');
      }
    test.equal(sum(await store.get('a:99')), sum(other));
  });

  await t.test('a check that fails, of a block that is what it was', async (test) => {
    const { store, faults } = blocksOn(connection);
    await store.set('a:0', BLOCK, 'test', FACTS);
    test.equal(await store.get('a:0', () => false), undefined);
    test.same([faults(), await store.has('a:0')], [['damaged'], false]);
  });

  await t.test('garbage beside a block is written over', async (test) => {
    const { store, prefix, faults } = blocksOn(connection);
    const [block, row] = [`${prefix}{a}:0`, `${prefix}{a}:s`];
    for (const key of [block, row]) await connection.send(key, ['SET', key, 'x']);
    test.equal(await store.segment('a'), undefined);
    await store.label('a:0', 'test');
    await store.set('a:0', BLOCK, 'test', FACTS);
    test.equal(sum(await store.get('a:0')), sum(BLOCK));
    test.match(await store.segment('a'), { blocks: [0], blockCount: 512, from: FACTS.from });
    await connection.send(block, ['HSET', block, 'n', 'x']);
    await store.set('a:0', BLOCK, 'more');
    await store.flush('test');
    test.ok(await store.has('a:0'), 'labels are still counted');
    await connection.send(row, ['SET', row, 'x']);
    await connection.send(block, ['SET', block, 'x']);
    await store.flush('more');
    test.equal(await store.has('a:0'), false, 'what is no block is nobody’s');
    test.same(faults(), []);
  });

  await t.test('garbage where a segment should be is not told to anybody', async (test) => {
    const { store, prefix, faults } = blocksOn(connection);
    const row = `${prefix}{a}:s`;
    const spoilt: readonly (readonly string[])[] = [
      ['c', '0'],
      ['c', '65537'],
      ['c', 'many'],
      ['c', '1.5'],
      ['t', '-1'],
      ['t', 'now'],
      ['t', '1e400'],
      ['x', 'x'.repeat(65)],
      ['f', 'x'.repeat(2_000)],
    ];
    for (const fields of spoilt) {
      await store.set('a:0', BLOCK, 'test', FACTS);
      await connection.send(row, ['HSET', row, ...fields]);
      test.equal(await store.segment('a'), undefined, fields.join(' ').slice(0, 20));
      test.same(faults(), ['damaged']);
    }
    await store.set('a:0', BLOCK, 'test', FACTS);
    await connection.send(row, ['HSET', row, 'i', '', 'i007', '', 'i1', '', 'ix', '', 'i99999999999999999999', '']);
    test.same((await store.segment('a'))?.blocks, [0], 'only what is here');
    await connection.send(row, ['HDEL', row, 'c']);
    test.equal(await store.segment('a'), undefined);
    test.same(faults(), ['damaged']);
  });

  await t.test('blocks and segments leave one without the other', async (test) => {
    const clock = new ManualClock();
    const { store, prefix, faults } = blocksOn(connection, { clock });
    const since = clock.now();
    const drop = (name: string): Promise<unknown> => connection.send(`${prefix}{a}`, ['DEL', `${prefix}{a}:${name}`]);
    for (const index of [0, 1, 2]) await store.set(blockKey('a', index), BLOCK, 'test', FACTS);
    test.same((await store.segment('a'))?.blocks, [0, 1, 2]);
    await drop('1');
    test.equal(await store.get('a:1'), undefined, 'after it was offered');
    test.same((await store.segment('a'))?.blocks, [0, 2]);
    test.equal(await connection.send('', ['HEXISTS', `${prefix}{a}:s`, 'i1']), 0, 'and is forgotten');
    await store.set('a:1', BLOCK, 'test', FACTS);
    await drop('1');
    await store.set('a:1', BLOCK, 'test');
    test.same((await store.segment('a'))?.blocks, [0, 2], 'it is its owner’s alone when it comes again without a word');
    clock.advance(1_000);
    await store.set('a:3', BLOCK, 'test', FACTS);
    test.equal((await store.segment('a'))?.since, since, 'the segment is as old as it was');
    await drop('s');
    test.equal(await store.segment('a'), undefined, 'nothing is known of it');
    test.equal(sum(await store.get('a:0')), sum(BLOCK), 'its blocks are here all the same');
    await store.set('a:0', BLOCK, 'test', FACTS);
    const found = await store.segment('a');
    test.same([found?.blocks, found?.since], [[0, 2, 3], since], 'all but the owner’s own are found when one comes');
    for (const index of [0, 1, 2, 3]) await drop(String(index));
    clock.advance(1_000);
    await store.set('a:2', BLOCK, 'test', FACTS);
    test.equal((await store.segment('a'))?.since, since + 2_000, 'all evicted and come again, it is new');
    await drop('2');
    test.equal(await store.segment('a'), undefined);
    await store.set('a:4', BLOCK, 'test', FACTS);
    await store.delete('a:4');
    test.notOk(
      (await keysOf(connection)).some((key) => key.startsWith(prefix)),
      'and leaves nothing behind',
    );
    test.same(faults(), []);
  });

  await t.test('labels have a limit, and the oldest gives way', async (test) => {
    const { store, prefix } = blocksOn(connection);
    await store.set('a:0', BLOCK, 'label 0', FACTS);
    for (let index = 1; index < 80; index += 1) await store.label('a:0', `label ${index}`);
    const fields = await connection.send('', ['HKEYS', `${prefix}{a}:0`]);
    const labels = (fields as Buffer[]).map(String).filter((field) => field.startsWith('l:'));
    test.equal(labels.length, 64);
    test.notOk(labels.includes('l:label 15'));
    test.ok(labels.includes('l:label 16'));
  });

  await t.test('two stores on one Redis see each other', async (test) => {
    const second = await open(test, redis.url);
    const here = blocksOn(connection);
    const there = blocksOn(second, { prefix: here.prefix });
    await here.store.set('a:0', BLOCK, 'here', FACTS);
    test.equal(sum(await there.store.get('a:0')), sum(BLOCK));
    await there.store.set('a:1', BLOCK, 'there', FACTS);
    test.same((await here.store.segment('a'))?.blocks, [0, 1]);
    await there.store.label('a:0', 'there');
    await here.store.flush('here');
    test.same((await there.store.segment('a'))?.blocks, [0, 1], 'labels are shared');
    await there.store.delete('a:0');
    test.same((await here.store.segment('a'))?.blocks, [1]);
    test.equal(await blocksOn(second).store.has('a:1'), false, 'under another prefix, nothing');
  });

  await t.test('a memory before it', async (test) => {
    const { store } = blocksOn(connection);
    const tiered = new TieredBlockStore({ durable: store, memoryBytes: 1_000_000 });
    await tiered.set('a:0', BLOCK, 'test', FACTS);
    await store.written();
    test.equal(sum(await store.get('a:0')), sum(BLOCK));
    test.equal(sum(await tiered.get('a:0')), sum(BLOCK));
    await tiered.close();
  });

  await t.test('what is given and what is got is nobody else’s memory', async (test) => {
    const { store } = blocksOn(connection);
    const secret = Uint8Array.from(FACTS.secret);
    const set = store.set('a:0', BLOCK, 'test', { ...FACTS, secret });
    secret.fill(0);
    await set;
    test.equal(sum((await store.segment('a'))?.secret), sum(FACTS.secret), 'the caller may overwrite its own at once');
    await store.set('a:1', seededBytes(2, 2_000), 'test');
    // Two replies in one piece.
    const [, small] = await Promise.all([store.get('a:0'), store.get('a:1')]);
    test.equal(sum(small), sum(seededBytes(2, 2_000)));
    test.ok((small?.buffer.byteLength ?? 0) < 10_000, `2,000 bytes pin ${small?.buffer.byteLength}`);
  });

  await t.test('writes come in order, whatever waits', async (test) => {
    const { store } = blocksOn(connection);
    const done: Promise<unknown>[] = [];
    for (let round = 0; round < 30; round += 1)
      for (let index = 0; index < 8; index += 1) {
        const key = blockKey('a', index);
        done.push(store.set(key, BLOCK, 'test', FACTS), store.label(key, 'other'));
        if (index % 2 === 0) done.push(store.delete(key));
      }
    await Promise.all(done);
    test.same((await store.segment('a'))?.blocks, [1, 3, 5, 7]);
    done.splice(0);
    for (let index = 0; index < 100; index += 1) done.push(store.set(blockKey('b', index), BLOCK, 'red', FACTS));
    await store.flush('red');
    await Promise.all(done);
    test.equal(await store.segment('b'), undefined, 'a flush meets what was set before');
  });

  await t.test('more than a Redis takes at once', async (test) => {
    const { store, faults } = blocksOn(connection);
    const before = process.memoryUsage().arrayBuffers;
    const done: Promise<void>[] = [];
    for (let index = 0; index < 1_500; index += 1) done.push(store.set(blockKey('a', index), BLOCK, 'test', FACTS));
    test.ok(store.room(), 'whoever can wait does');
    test.ok(process.memoryUsage().arrayBuffers - before < 1_500 * BLOCK.byteLength, 'blocks are not copied');
    await Promise.all(done);
    test.equal(store.room(), undefined);
    const dropped = faults();
    test.ok(dropped.length > 0 && dropped.every((fault) => fault === 'overloaded'), `${dropped.length} were dropped`);
    test.equal((await store.segment('a'))?.blocks.length, 1_500 - dropped.length, 'all others were kept');
    await store.flush('test');
  });

  await t.test('a block that is too large', async (test) => {
    const { store, faults } = blocksOn(connection);
    await store.set('a:0', BLOCK, 'test', FACTS);
    await store.set('a:0', new Uint8Array(16 * 1024 * 1024 + 1), 'test', FACTS);
    test.equal(await store.has('a:0'), false, 'nor is the one it was to replace');
    await store.set('a:0', new Uint8Array(16 * 1024 * 1024), 'test', FACTS);
    test.equal((await store.get('a:0'))?.byteLength, 16 * 1024 * 1024, 'the largest one is');
    await store.delete('a:0');
    test.same(faults(), []);
  });

  await t.test('bytes are those Redis uses, as of some seconds ago', async (test) => {
    const clock = new ManualClock();
    const watched = await open(test, redis.url, { clock });
    const { store } = blocksOn(watched);
    await until(() => store.bytes > 100_000, 'what Redis says');
    const { bytes } = store;
    for (let index = 0; index < 100; index += 1) await store.set(blockKey('a', index), BLOCK, 'test');
    test.equal(store.bytes, bytes, 'not asked again at once');
    clock.advance(5_000);
    await until(() => store.bytes !== bytes, 'what it says later');
    const used = /used_memory:(\d+)/.exec(String(await connection.send('', ['INFO', 'memory'])))?.[1];
    test.ok(Math.abs(store.bytes / Number(used) - 1) < 0.5, `${store.bytes} is near ${used}`);
    await store.flush('test');
  });

  await t.test('prefixes', async (test) => {
    for (const prefix of ['{', 'a}', 'x'.repeat(129)]) {
      const invalid = { code: 'ERR_PEERDIST_INVALID_OPTION' };
      test.throws(() => new RedisBlockStore({ connection, prefix }), invalid);
      test.throws(() => new RedisRecordStore({ connection, sealer: new Sealer([SECRET]), prefix }), invalid);
      test.throws(() => new RedisClaims({ connection, sealer: new Sealer([SECRET]), prefix }), invalid);
    }
    const { store } = blocksOn(connection, { prefix: 'a*[b]?^\\-' });
    const { store: other } = blocksOn(connection, { prefix: 'axb?^\\-' });
    await store.set('a:0', BLOCK, 'test');
    await other.set('a:0', BLOCK, 'test');
    await store.flush('test');
    test.same([await store.has('a:0'), await other.has('a:0')], [false, true], 'are no patterns');
    test.same(
      [new RedisBlockStore({ connection }), new RedisRecordStore({ connection, sealer: new Sealer([SECRET]) })].length,
      2,
      'and there is one for those who want none',
    );
  });

  await t.test('records: neither names nor values can be read in Redis', async (test) => {
    const { store, prefix } = recordsOn(connection);
    const [name, value] = ['http://example.org/private?token=1', 'content information of it'];
    await store.set(name, Buffer.from(value));
    test.equal(String(await store.get(name)), value);
    const mine = (await keysOf(connection)).filter((key) => key.startsWith(prefix));
    test.equal(mine.length, 1);
    test.match(mine[0], new RegExp(`^${prefix}r:[0-9a-f]{64}$`));
    const stored = (await connection.send('', ['GET', mine[0] as string])) as Buffer;
    test.notOk(stored.includes(value.slice(0, 7)) || stored.includes('example'));
    await store.set(name, Buffer.from(value));
    test.notSame(await connection.send('', ['GET', mine[0] as string]), stored, 'nor that it is the same again');
    test.same([await store.delete(name), await store.delete(name), await store.get(name)], [true, false, undefined]);
  });

  await t.test('records: garbage does not open, and goes', async (test) => {
    const { store, prefix, faults } = recordsOn(connection);
    const key = (name: string): string => `${prefix}r:${new Sealer([SECRET]).names(name)[0]}`;
    const value = seededBytes(3, 500);
    await store.set('other', seededBytes(4, 500));
    const sealed = async (): Promise<Buffer> => (await connection.send('', ['GET', key('a')])) as Buffer;
    const garbage: Record<string, (bytes: Buffer) => readonly (string | Buffer)[]> = {
      'another record': () => ['COPY', key('other'), key('a'), 'REPLACE'],
      'random bytes': () => ['SET', key('a'), randomBytes(529)],
      'an empty value': () => ['SET', key('a'), ''],
      truncated: (bytes) => ['SET', key('a'), bytes.subarray(0, -1)],
      'a bit': (bytes) => ['SETBIT', key('a'), '2000', String(1 - ((bytes[250] as number) >>> 7))],
      'another version': (bytes) => ['SET', key('a'), Buffer.concat([Buffer.of(2), bytes.subarray(1)])],
    };
    for (const [what, spoil] of Object.entries(garbage)) {
      await store.set('a', value);
      test.equal(sum(await store.get('a')), sum(value));
      await connection.send('', spoil(await sealed()));
      test.equal(await store.get('a'), undefined, what);
      test.same([faults(), await sealed()], [['unsealed'], null], what);
    }
    await connection.send('', ['RPUSH', key('a'), 'x']);
    test.same([await store.get('a'), faults(), await sealed()], [undefined, ['damaged'], null]);
    await connection.send('', ['RPUSH', key('a'), 'x']);
    await store.set('a', value);
    test.equal(sum(await store.get('a')), sum(value), 'or is written over');
  });

  await t.test('records: secrets change', async (test) => {
    const old = recordsOn(connection);
    const rotated = recordsOn(connection, [OTHER_SECRET, SECRET], old.prefix);
    const stranger = recordsOn(connection, [OTHER_SECRET], old.prefix);
    await old.store.set('a', Buffer.from('old'));
    test.equal(String(await rotated.store.get('a')), 'old');
    test.equal(await stranger.store.get('a'), undefined);
    await rotated.store.set('a', Buffer.from('new'));
    test.equal(String(await rotated.store.get('a')), 'new');
    test.equal(String(await stranger.store.get('a')), 'new', 'it is sealed with the current one');
    const current = `${old.prefix}r:${new Sealer([OTHER_SECRET]).names('a')[0]}`;
    await connection.send(current, ['DEL', current]);
    test.equal(await rotated.store.get('a'), undefined, 'an older value does not come back when the newer is evicted');
    await old.store.set('a', Buffer.from('old'));
    test.equal(await rotated.store.delete('a'), true);
    test.equal(await old.store.get('a'), undefined, 'deleted under every name it may have');
    test.same([old.faults(), rotated.faults(), stranger.faults()], [[], [], []]);
  });

  await t.test('records: one that is too large is not kept, nor the one before', async (test) => {
    const { store, faults } = recordsOn(connection);
    await store.set('a', Buffer.from('small'));
    await store.set('a', new Uint8Array(16 * 1024 * 1024 + 1));
    test.equal(await store.get('a'), undefined);
    await store.set('a', new Uint8Array(16 * 1024 * 1024));
    test.equal((await store.get('a'))?.byteLength, 16 * 1024 * 1024);
    await store.delete('a');
    test.same(faults(), []);
  });

  await t.test('claims', async (test) => {
    const second = await open(test, redis.url);
    const [sealer, prefix] = [new Sealer([SECRET]), freshPrefix()];
    const [clock, farClock] = [new ManualClock(), new ManualClock()];
    const here = new RedisClaims({ connection, sealer, prefix, clock });
    const there = new RedisClaims({ connection: second, sealer, prefix, clock: farClock });
    const key = `${prefix}c:${sealer.names('http://example.org/a')[0]}`;
    const never = new AbortController().signal;
    const left = async (): Promise<number> => Number(await connection.send(key, ['PTTL', key]));

    await there.released('http://example.org/a', never);
    const release = await here.claim('http://example.org/a');
    test.ok(release);
    test.ok((await keysOf(connection)).includes(key), 'under a name from which nothing can be told');
    test.equal(await there.claim('http://example.org/a'), undefined, 'somebody else has it');
    test.equal(await here.claim('http://example.org/a'), undefined, 'even the same');
    (await there.claim('http://example.org/b'))?.();

    await connection.send(key, ['PEXPIRE', key, '2000']);
    clock.advance(3_000);
    await until(async () => (await left()) > 5_000, 'that it is renewed');

    let isFree = false;
    const released = there.released('http://example.org/a', never).then(() => {
      isFree = true;
    });
    for (let look = 0; look < 3; look += 1) {
      await until(() => farClock.pending > 0, 'another look');
      test.equal(isFree, false);
      farClock.advance(100);
    }
    release?.();
    release?.();
    await until(() => {
      farClock.advance(100);
      return isFree;
    }, 'that it is free');
    await released;
    test.equal(clock.pending, 0, 'it is not renewed any more');
    test.equal(await left(), -2);

    const abort = new AbortController();
    const held = await here.claim('http://example.org/a');
    const waiting = there.released('http://example.org/a', abort.signal);
    await until(() => farClock.pending > 0, 'a look');
    abort.abort();
    await waiting;
    test.equal(farClock.pending, 0, 'nobody looks any more');
    await there.released('http://example.org/a', abort.signal);

    // The holder stands still: nobody turns its clock.
    await connection.send(key, ['PEXPIRE', key, '20']);
    let taken: (() => void) | undefined;
    await until(async () => (taken = await there.claim('http://example.org/a')), 'that it is free of one that died');
    await connection.send(key, ['PEXPIRE', key, '9000']);
    clock.advance(3_000);
    await connection.send('', ['PING']);
    test.ok((await left()) <= 9_000, 'who has lost it does not renew it');
    held?.();
    await connection.send('', ['PING']);
    test.ok((await left()) > 0, 'nor give it back');
    taken?.();

    await connection.send(key, ['SET', key, 'for ever']);
    await there.released('http://example.org/a', never);
    const over = await there.claim('http://example.org/a');
    test.ok(over, 'what nobody can have claimed keeps nobody away');
    test.ok((await left()) > 0);
    over?.();
    await connection.send('', ['PING']);
    await connection.send(key, ['RPUSH', key, 'x']);
    (await there.claim('http://example.org/a'))?.();
  });
});

await t.test('a Redis that comes, goes, hangs', { skip: noRedis }, async (t) => {
  const redis = await TestRedis.start(t);
  await redis.stop();
  const lines: string[] = [];
  const connection = await within(open(t, redis.url, { warn: (line) => lines.push(line) }), 'a connection');
  const { store, faults } = blocksOn(connection);
  const records = recordsOn(connection);
  const claims = new RedisClaims({ connection, sealer: new Sealer([SECRET]), prefix: freshPrefix() });
  const never = new AbortController().signal;

  /** Everything fails, nothing rejects but what says so. */
  const findsNothing = async (test: Test): Promise<void> => {
    const unavailable = { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' };
    await store.set('a:0', BLOCK, 'test', FACTS);
    await store.label('a:0', 'other');
    store.touch('a:0');
    await records.store.set('a', BLOCK);
    test.same(
      [await store.get('a:0'), await store.has('a:0'), await store.segment('a'), await records.store.get('a')],
      [undefined, false, undefined, undefined],
    );
    await test.rejects(store.delete('a:0'), unavailable);
    await test.rejects(store.flush('test'), unavailable);
    await test.rejects(records.store.delete('a'), unavailable);
    const release = await claims.claim('a');
    test.ok(release, 'when nobody can be asked, everybody may');
    release?.();
    await claims.released('a', never);
    test.same([store.room(), store.bytes], [undefined, 0]);
    test.same(new Set([...faults(), ...records.faults()]), new Set(['failed']));
  };
  const works = async (test: Test): Promise<void> => {
    await until(() => connection.state() === 'ready', 'a connection that is ready');
    await store.set('a:0', BLOCK, 'test', FACTS);
    await records.store.set('a', BLOCK);
    test.equal(sum(await store.get('a:0')), sum(BLOCK));
    test.equal(sum(await records.store.get('a')), sum(BLOCK));
    test.same([faults(), records.faults()], [[], []]);
  };

  await t.test('away from the start', async (test) => {
    test.equal(connection.state(), 'away');
    await findsNothing(test);
    test.match(lines, [/^Redis is away \(connect ECONNREFUSED/]);
    await redis.start();
    await works(test);
    test.match(lines, [/away/, /^Redis answers again$/]);
  });

  await t.test('stopped and started again', async (test) => {
    await redis.stop();
    await until(() => connection.state() === 'away', 'that it is away');
    await findsNothing(test);
    await redis.start();
    await works(test);
  });

  await t.test('while it is asked', async (test) => {
    const asked = Array.from({ length: 200 }, () => store.get('a:0'));
    await redis.stop();
    for (const block of await within(Promise.all(asked), 'the end of all questions', BOUND_MS))
      test.ok(block === undefined || sum(block) === sum(BLOCK));
    await until(() => connection.state() === 'away', 'that it is away');
    await redis.start();
    faults();
    await works(test);
  });

  await t.test('it stands still', async (test) => {
    redis.pause();
    test.equal(connection.state(), 'ready', 'which nobody can know yet');
    const ask = async (): Promise<void> => {
      for (let index = 0; index < 50; index += 1) {
        test.equal(await store.get('a:0'), undefined);
        test.equal(await store.segment('a'), undefined);
      }
    };
    // A hundred questions of half a second each would take ten times as long.
    await within(ask(), 'an end of questions', BOUND_MS);
    test.equal(connection.state(), 'away');
    await within(findsNothing(test), 'the end of everything', BOUND_MS);
    redis.resume();
    faults();
    await works(test);
  });

  await t.test('closing does not wait for one that stands still', async (test) => {
    const second = await open(test, redis.url);
    const blocks = blocksOn(second);
    const tiered = new TieredBlockStore({ durable: blocks.store, memoryBytes: 10_000_000 });
    redis.pause();
    await tiered.set('a:0', BLOCK, 'test', FACTS);
    void blocks.store.get('a:1');
    await within(tiered.close(), 'the end of the store', BOUND_MS);
    await within(second.close(), 'the end of the connection', BOUND_MS);
    test.equal(second.state(), 'away');
    redis.resume();
    await until(() => connection.state() === 'ready', 'that it is ready');
  });

  await t.test('closing waits for what is on its way', async (test) => {
    const second = await open(test, redis.url);
    const blocks = blocksOn(second);
    const written = recordsOn(second);
    for (let index = 0; index < 100; index += 1) void blocks.store.set(blockKey('a', index), BLOCK, 'test', FACTS);
    void written.store.set('a', BLOCK);
    await second.close();
    await second.close();
    test.equal((await blocksOn(connection, blocks).store.segment('a'))?.blocks.length, 100);
    test.equal(sum(await recordsOn(connection, [SECRET], written.prefix).store.get('a')), sum(BLOCK));
    test.equal(await blocks.store.get('a:0'), undefined, 'then nothing is found');
    await test.rejects(blocks.store.delete('a:0'), { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' });
  });

  await t.test('a connection that is cut in the middle of a reply', async (test) => {
    const cutter = await Cutter.start(test, redis.port);
    const { store: whole, prefix } = blocksOn(connection);
    await whole.set('a:0', BLOCK, 'test', FACTS);
    for (const bytes of [0, 1, 5, 30, 1_000, 65_000, 65_560, 65_700]) {
      const cut = await open(test, `redis://127.0.0.1:${cutter.port}`);
      const blocks = blocksOn(cut, { prefix });
      cutter.cutAfter(bytes);
      const both = await within(Promise.all([blocks.store.get('a:0'), blocks.store.get('a:0')]), 'an end', BOUND_MS);
      const isWhole = bytes > 65_650;
      test.same(both.map(sum), [isWhole ? sum(BLOCK) : undefined, undefined], `cut after ${bytes} bytes`);
      test.notOk(blocks.faults().includes('damaged'), 'half a block is none');
      await until(() => cut.state() === 'away', 'that it was cut');
      await until(() => cut.state() === 'ready', 'a new connection');
      test.equal(sum(await blocks.store.get('a:0')), sum(BLOCK));
      await cut.close();
    }
  });
});

await t.test('Redis has no room for everything', { skip: noRedis }, async (t) => {
  const redis = await TestRedis.start(t, { config: ['maxmemory 12mb', 'maxmemory-policy allkeys-lru'] });
  const connection = await open(t, redis.url);

  await t.test('what is offered is what is here', async (test) => {
    const { store, faults } = blocksOn(connection);
    const total = 400;
    for (let index = 0; index < total; index += 1)
      await store.set(blockKey(`s${index % 4}`, index), BLOCK, 'test', FACTS);
    // Whoever reads makes Redis use memory, too.
    await connection.send('', ['CONFIG', 'SET', 'maxmemory', '0']);
    // Within a second, Redis does not know which of its keys was used last: what is known of a segment may have gone, too.
    for (const index of [0, 1, 2, 3]) await store.set(blockKey(`s${index}`, index), BLOCK, 'test', FACTS);
    const here: number[] = [];
    for (let index = 0; index < total; index += 1)
      if (await store.has(blockKey(`s${index % 4}`, index))) here.push(index);
    const offered = (await Promise.all([0, 1, 2, 3].map((each) => store.segment(`s${each}`)))).flatMap(
      (held) => held?.blocks ?? [],
    );
    test.same(
      offered.toSorted((a, b) => a - b),
      here,
    );
    test.ok(here.length > 10 && here.length < total / 2, `${here.length} are here`);
    for (const index of here) test.equal(sum(await store.get(blockKey(`s${index % 4}`, index))), sum(BLOCK));
    test.same(faults(), []);
  });

  await t.test('nobody may go', async (test) => {
    const { store, faults } = blocksOn(connection);
    await connection.send('', ['CONFIG', 'SET', 'maxmemory', '12mb', 'maxmemory-policy', 'noeviction']);
    for (let index = 0; index < 300; index += 1) await store.set(blockKey('a', index), BLOCK, 'test', FACTS);
    test.same(new Set(faults()), new Set(['failed']), 'then what comes is not kept');
    await store.flush('test');
    await connection.send('', ['CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru']);
  });

  await t.test('what counts as a use', async (test) => {
    // Counts each use, from 5 on.
    await connection.send('', ['CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lfu', 'lfu-log-factor', '0']);
    const clock = new ManualClock();
    const { store, prefix } = blocksOn(connection, { clock });
    const uses = async (name: string): Promise<number> =>
      Number(await connection.send('', ['OBJECT', 'FREQ', `${prefix}{a}:${name}`]));
    await store.set('a:0', BLOCK, 'test', FACTS);
    let block = await uses('0');
    await store.has('a:0');
    await store.segment('a');
    test.equal(await uses('0'), block, 'to ask whether it is here is none');
    let row = await uses('s');
    await store.get('a:0');
    test.ok((await uses('0')) > block, 'to read it is one');
    clock.advance(10_000);
    await until(async () => (await uses('s')) > row, 'a use of its segment');
    [block, row] = [await uses('0'), await uses('s')];
    store.touch('a:0');
    store.touch('a:0');
    test.equal(await uses('0'), block, 'one that memory answered is told later');
    clock.advance(10_000);
    await until(async () => (await uses('0')) > block, 'a use of the block');
    test.ok((await uses('s')) > row, 'and of its segment');
    [block, row] = [await uses('0'), await uses('s')];
    store.touch('a:0');
    await store.close();
    test.ok((await uses('0')) > block && (await uses('s')) > row, 'or when the store is closed');
    test.equal(clock.pending, 0);
  });
});

await t.test('TLS, a user, a database', { skip: noRedis }, async (t) => {
  const certificate = makeCertificate();
  await t.test('TLS', { skip: certificate === undefined && 'openssl is not installed' }, async (test) => {
    const redis = await TestRedis.start(test, { certificate: certificate as NonNullable<typeof certificate> });
    const connection = await open(test, redis.url, {
      tls: { ca: (certificate as NonNullable<typeof certificate>).cert },
    });
    test.equal(connection.state(), 'ready');
    const { store } = blocksOn(connection);
    await store.set('a:0', BLOCK, 'test', FACTS);
    test.equal(sum(await store.get('a:0')), sum(BLOCK));
    const lines: string[] = [];
    const unverified = await open(test, redis.url, { warn: (line) => lines.push(line) });
    test.equal(unverified.state(), 'away', 'a certificate nobody knows');
    test.match(lines, [/self-signed/]);
    const plain = await open(test, redis.url.replace('rediss', 'redis'));
    test.equal(plain.state(), 'away');
  });

  await t.test('a user who may do what we need, and nothing else', async (test) => {
    const commands =
      'ping|eval|exists|type|hmget|hset|hget|hdel|hkeys|hlen|hexists|get|set|del|touch|scan|info|pttl|pexpire';
    const rules = `~peerdist:* -@all ${commands
      .split('|')
      .map((name) => `+${name}`)
      .join(' ')}`;
    const redis = await TestRedis.start(test, { user: { name: 'proxy', password: 'p@ss:w/rd', rules } });
    const connection = await open(test, redis.url);
    test.equal(connection.state(), 'ready');
    const [blocks, records] = [
      blocksOn(connection, { prefix: 'peerdist:' }),
      recordsOn(connection, [SECRET], 'peerdist:'),
    ];
    await blocks.store.set('a:0', BLOCK, 'test', FACTS);
    await blocks.store.label('a:0', 'other');
    test.equal(sum(await blocks.store.get('a:0')), sum(BLOCK));
    test.same([await blocks.store.has('a:0'), (await blocks.store.segment('a'))?.blocks], [true, [0]]);
    blocks.store.touch('a:0');
    await blocks.store.flush('test');
    await blocks.store.delete('a:0');
    await until(() => blocks.store.bytes > 0, 'what Redis uses');
    await records.store.set('a', BLOCK);
    test.equal(sum(await records.store.get('a')), sum(BLOCK));
    test.equal(await records.store.delete('a'), true);
    const claims = new RedisClaims({ connection, sealer: new Sealer([SECRET]) });
    const release = await claims.claim('a');
    test.equal(await claims.claim('a'), undefined);
    release?.();
    await blocks.store.close();
    test.same([blocks.faults(), records.faults()], [[], []]);

    const lines: string[] = [];
    const wrong = redis.url.replace(/:[^:@]*@/, ':wrong-password@');
    const stranger = await open(test, wrong, { warn: (line) => lines.push(line) });
    test.equal(stranger.state(), 'away');
    test.match(lines, [/WRONGPASS/]);
    test.notMatch(lines, [/password@|wrong-password/]);
    const nobody = await open(test, `redis://127.0.0.1:${redis.port}`);
    test.equal(nobody.state(), 'away');
  });

  await t.test('a database', async (test) => {
    const redis = await TestRedis.start(test);
    const third = await open(test, `${redis.url}/3`);
    const { store } = blocksOn(third, { prefix: 'x:' });
    await store.set('a:0', BLOCK, 'test', FACTS);
    const first = await open(test, `${redis.url}/`);
    test.same([(await keysOf(first)).length, (await keysOf(third)).length], [0, 2]);
    const none = await open(test, `${redis.url}/999`);
    test.equal(none.state(), 'away', 'which this server does not have');
  });
});

await t.test('a cluster', { skip: noRedis }, async (t) => {
  const nodes = await startCluster(t);
  const [first, second, third] = nodes as [TestRedis, TestRedis, TestRedis];
  const connection = await open(t, first.url);
  t.equal(connection.state(), 'ready', 'one of them says that it is one');
  await suites(t, connection);
  const cli = (node: TestRedis, ...args: string[]): Promise<string> => redisCli(['-p', String(node.port), ...args]);
  const slotOf = async (key: string): Promise<number> => Number(await cli(first, 'cluster', 'keyslot', key));
  /** A segment that a node has. */
  const segmentOf = async (node: TestRedis): Promise<string> => {
    const slots = nodes.indexOf(node);
    for (let at = 0; ; at += 1) {
      const segmentId = `segment${at}`;
      // As `redis-cli --cluster create` divides them.
      const owner = Math.floor((await slotOf(`{${segmentId}}`)) / 5461.4);
      if (owner === slots) return segmentId;
    }
  };

  await t.test('keys are where Redis says they are', async (test) => {
    const { store } = blocksOn(connection);
    for (let index = 0; index < 60; index += 1) await store.set(blockKey(`s${index}`, 0), BLOCK, 'test', FACTS);
    for (const node of nodes) test.ok(Number(await cli(node, 'dbsize')) > 10, 'each has some');
    for (let index = 0; index < 60; index += 1) store.touch(blockKey(`s${index}`, 0));
    await store.flush('test');
    for (let index = 0; index < 60; index += 1) test.equal(await store.segment(`s${index}`), undefined);
  });

  await t.test('uses are told to each of them', async (test) => {
    const clock = new ManualClock();
    const { store, prefix } = blocksOn(connection, { clock });
    for (const node of nodes) await cli(node, 'config', 'set', 'maxmemory-policy', 'allkeys-lfu');
    for (const node of nodes) await cli(node, 'config', 'set', 'lfu-log-factor', '0');
    const ids = await Promise.all(nodes.map(segmentOf));
    const uses = async (): Promise<number[]> =>
      Promise.all(
        ids.map(async (id) => Number(await connection.send(`{${id}}`, ['OBJECT', 'FREQ', `${prefix}{${id}}:0`]))),
      );
    for (const id of ids) await store.set(blockKey(id, 0), BLOCK, 'test', FACTS);
    const before = await uses();
    for (const id of ids) store.touch(blockKey(id, 0));
    await store.close();
    const after = await uses();
    test.ok(after.every((count, at) => count > (before[at] as number)));
    await store.flush('test');
  });

  await t.test('several hosts, the first of which is away', async (test) => {
    const hosts = [`127.0.0.1:1`, ...nodes.map(({ port }) => `127.0.0.1:${port}`)];
    const several = await open(test, `redis://${hosts.join(',')}`);
    test.equal(several.state(), 'ready');
    const { store } = blocksOn(several);
    await store.set('a:0', BLOCK, 'test', FACTS);
    test.equal(sum(await store.get('a:0')), sum(BLOCK));
  });

  await t.test('a database, which a cluster does not have', async (test) => {
    const lines: string[] = [];
    const numbered = await open(test, `${first.url}/1`, { warn: (line) => lines.push(line) });
    test.equal(numbered.state(), 'away');
    test.match(lines, [/is away/]);
  });

  await t.test('keys move', async (test) => {
    const { store, faults } = blocksOn(connection);
    const segmentId = await segmentOf(first);
    const slot = String(await slotOf(`{${segmentId}}`));
    const [from, to] = await Promise.all([cli(first, 'cluster', 'myid'), cli(second, 'cluster', 'myid')]);
    await store.set(blockKey(segmentId, 0), BLOCK, 'test', FACTS);
    await cli(second, 'cluster', 'setslot', slot, 'importing', from.trim());
    await cli(first, 'cluster', 'setslot', slot, 'migrating', to.trim());
    test.equal(sum(await store.get(blockKey(segmentId, 0))), sum(BLOCK), 'while they are still where they were');
    const keys = (await cli(first, 'cluster', 'getkeysinslot', slot, '100')).trim().split('\n');
    await cli(first, 'migrate', '127.0.0.1', String(second.port), '', '0', '5000', 'keys', ...keys);
    test.equal(sum(await store.get(blockKey(segmentId, 0))), sum(BLOCK), 'when they have moved (ASK)');
    for (const node of [second, first, third]) await cli(node, 'cluster', 'setslot', slot, 'node', to.trim());
    test.equal(sum(await store.get(blockKey(segmentId, 0))), sum(BLOCK), 'when everybody knows (MOVED)');
    await store.set(blockKey(segmentId, 1), BLOCK, 'test', FACTS);
    test.same((await store.segment(segmentId))?.blocks, [0, 1]);
    test.same(faults(), []);
    // The old owner is not asked any more once they have been asked who has what.
    const refused = async (): Promise<number> =>
      Number(/errorstat_MOVED:count=(\d+)/.exec(await cli(first, 'info', 'errorstats'))?.[1] ?? 0);
    await until(async () => {
      const before = await refused();
      await store.get(blockKey(segmentId, 0));
      return (await refused()) === before;
    }, 'that it is known where they are');
  });

  await t.test('one of them goes and comes', async (test) => {
    const { store, faults } = blocksOn(connection);
    const [here, there] = [blockKey(await segmentOf(second), 7), blockKey(await segmentOf(third), 7)];
    for (const node of nodes) await cli(node, 'config', 'set', 'cluster-require-full-coverage', 'no');
    await store.set(here, BLOCK, 'test', FACTS);
    await store.set(there, BLOCK, 'test', FACTS);
    third.pause();
    const asked = await within(Promise.all([1, 2, 3].map(() => store.get(there))), 'an end of questions', BOUND_MS);
    test.same(asked, [undefined, undefined, undefined]);
    await until(() => connection.state() === 'away', 'that something is away');
    faults();
    test.equal(await store.get(there), undefined);
    test.same(faults(), ['failed']);
    await test.rejects(store.flush('test'), { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' });
    third.resume();
    await until(() => connection.state() === 'ready', 'that all are there');
    for (const key of [here, there]) await until(async () => sum(await store.get(key)) === sum(BLOCK), 'what it has');
    test.notOk(faults().includes('damaged'));
  });
});

await t.test('a Redis that only pretends', async (t) => {
  /** Opens a connection without waiting for a clock that nobody turns. */
  const openBy = async (test: Test, url: string, clock: ManualClock): Promise<RedisConnection> => {
    const opening = openRedis(url, { clock });
    let connection: RedisConnection | undefined;
    void opening.then((opened) => (connection = opened));
    await until(() => {
      clock.advance(50);
      return connection;
    }, 'a connection');
    test.teardown(() => {
      const closed = connection?.close();
      clock.advance(10_000);
      return closed;
    });
    return opening;
  };

  for (const when of ['when it is to authenticate us', 'when it has done so'])
    await t.test(`falls silent ${when}, for ever, and another connection is made`, async (test) => {
      const clock = new ManualClock();
      const mute = new Set<unknown>();
      let isMute = when === 'when it is to authenticate us';
      const url = await pretendRedis(test, (command, socket) => {
        if (isMute) mute.add(socket);
        if (mute.has(socket)) return undefined;
        return command[0] === 'AUTH' ? '+OK\r\n' : (polite(command) ?? '$-1\r\n');
      });
      const connection = await openBy(test, url.replace('//', '//user:password@'), clock);
      test.equal(connection.state(), isMute ? 'away' : 'ready');
      isMute = true;
      const { store } = blocksOn(connection);
      const asked = [1, 2, 3].map(() => store.get('a:0'));
      clock.advance(500);
      test.same(await Promise.all(asked), [undefined, undefined, undefined]);
      test.equal(connection.state(), 'away');
      await until(() => {
        clock.advance(500);
        return mute.size > 1;
      }, 'another connection');
      isMute = false;
      await until(() => {
        clock.advance(500);
        return connection.state() === 'ready';
      }, 'one that answers');
    });

  await t.test('repeats what it was told, and the password is in no line', async (test) => {
    const lines: string[] = [];
    const url = await pretendRedis(test, (command) => `-ERR unknown command, beginning with: ${command.join(' ')}\r\n`);
    await open(test, url.replace('//', '//user:opensesame@'), { warn: (line) => lines.push(line) });
    test.same(lines, ['Redis is away (ERR); going on without it']);
  });
});
