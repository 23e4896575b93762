/** What is between us and a Redis: URLs, sealing, servers that are slow, silent or hostile, a package that is missing. */
import { execFile } from 'node:child_process';
import { createServer, type Socket } from 'node:net';
import { inspect, promisify } from 'node:util';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { nobleHashProvider } from '../../lib/crypto/index.ts';
import type { Observation } from '../../lib/observer.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { openRedis, RedisBlockStore, type RedisConnection, type RedisOptions, Sealer } from '../../lib/stores/index.ts';
import { parseSlots } from '../../lib/stores/redis-slots.ts';
import { parseRedisUrl } from '../../lib/stores/redis-url.ts';
import { MAX_VALUE_BYTES, RespGuard } from '../../lib/stores/resp-guard.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { deafPort, listen, within } from '../support/net.ts';
import { cutAnywhere, seededBytes } from '../support/random.ts';
import { polite, type Pretend, pretendRedis, until } from '../support/redis.ts';

const SECRET = ServerSecret.fromText('one secret');
const BLOCK = seededBytes(1, 65_536);
const NEVER_MS = 10_000;

interface Setup {
  readonly connection: RedisConnection;
  readonly store: RedisBlockStore;
  /** Faults observed since the last look. */
  readonly faults: () => string[];
}

async function connect(test: Test, url: string, options: RedisOptions = {}): Promise<Setup> {
  const connection = await openRedis(url, options);
  test.teardown(() => {
    const closed = connection.close();
    if (options.clock instanceof ManualClock) options.clock.advance(NEVER_MS);
    return closed;
  });
  const seen: string[] = [];
  const observer = (observation: Observation): void => {
    if (observation.type === 'store_fault') seen.push(observation.fault);
  };
  return { connection, store: new RedisBlockStore({ connection, observer }), faults: () => seen.splice(0) };
}

/** Turns of the event loop in which whatever is ready comes. */
async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate);
}

/** Commands that a pretended server has got and will answer when it is told to; those behind them wait, as with any Redis. */
function held(): {
  readonly pretend: Pretend;
  readonly waiting: ((reply: string) => void)[];
  connections: Set<Socket>;
} {
  const waiting: ((reply: string) => void)[] = [];
  const connections = new Set<Socket>();
  const busy = new Map<Socket, number>();
  const pretend: Pretend = (command, socket) => {
    connections.add(socket);
    const isBusy = (busy.get(socket) ?? 0) > 0;
    const reply = isBusy ? undefined : polite(command);
    if (reply !== undefined) return reply;
    busy.set(socket, (busy.get(socket) ?? 0) + 1);
    waiting.push((text) => {
      busy.set(socket, (busy.get(socket) ?? 0) - 1);
      socket.write(text);
    });
    return undefined;
  };
  return { pretend, waiting, connections };
}

await t.test('URLs', async (test) => {
  const plain = { isTls: false, username: undefined, password: undefined, database: 0 };
  const good: Record<string, unknown> = {
    'redis://localhost': { ...plain, servers: [{ host: 'localhost', port: 6379 }] },
    'redis://a:1/': { ...plain, servers: [{ host: 'a', port: 1 }] },
    'rediss://[::1]:7000/15': { ...plain, servers: [{ host: '::1', port: 7000 }], isTls: true, database: 15 },
    'redis://:secret@a': { ...plain, servers: [{ host: 'a', port: 6379 }], password: 'secret' },
    'redis://me:a%40b%3A%2F@a-1.b_c:65535': {
      ...plain,
      servers: [{ host: 'a-1.b_c', port: 65_535 }],
      username: 'me',
      password: 'a@b:/',
    },
    'redis://a,b:2,[::2]/0': {
      ...plain,
      servers: [
        { host: 'a', port: 6379 },
        { host: 'b', port: 2 },
        { host: '::2', port: 6379 },
      ],
    },
    'redis://@a': { ...plain, servers: [{ host: 'a', port: 6379 }] },
  };
  for (const [url, parsed] of Object.entries(good)) test.same(parseRedisUrl(url), parsed, url);
  const bad = [
    '',
    'http://secret@a',
    'redis:',
    'redis://',
    'redis://:secret@',
    'redis://secret@a',
    'redis://secret:@a',
    'redis://me:secret%@a',
    'redis://me:se@cret@a',
    'redis://me:se/cret@a',
    'redis://me:secret@a:0',
    'redis://me:secret@a:65536',
    'redis://me:secret@a:x',
    'redis://me:secret@a b',
    'redis://me:secret@a,',
    'redis://me:secret@[::g]',
    'redis://me:secret@[1.2.3.4]',
    'redis://me:secret@::1',
    'redis://me:secret@a/x',
    'redis://me:secret@a/65536',
    'redis://me:secret@a/1/2',
    'redis://me:secret@a?db=1',
    'redis://me:secret@a#1',
    'redis://me:secret@a,b/1',
    `redis://me:secret@${Array.from({ length: 17 }, () => 'a').join(',')}`,
  ];
  for (const url of bad) {
    const error = await openRedis(url).then(
      () => undefined,
      (reason: unknown) => reason as Error,
    );
    test.match(error, { code: 'ERR_PEERDIST_INVALID_OPTION' }, url);
    test.notMatch(inspect(error), /secret|se.cret/, 'a password is not repeated');
  }
});

await t.test('sealing', async (t) => {
  const other = ServerSecret.fromText('another secret');
  const value = seededBytes(2, 300);

  await t.test('as it is written down, by other means', async (test) => {
    const hmac = (key: Uint8Array, ...data: Uint8Array[]): Uint8Array => nobleHashProvider.hmac('sha256', key, ...data);
    // RFC 5869 with no salt and one block of output.
    const derive = (label: string): Uint8Array =>
      hmac(hmac(new Uint8Array(32), Buffer.from('one secret')), Buffer.from(label), Uint8Array.of(1));
    const sealer = new Sealer([SECRET]);
    const names = sealer.names('a name');
    test.same(names, [toHex(hmac(derive('peerdist store: names, version 1'), Buffer.from('a name')))]);
    const sealed = sealer.seal('a place', value);
    test.equal(sealed[0], 1);
    const { subtle } = globalThis.crypto;
    const raw = Buffer.from(hmac(derive('peerdist store: values, version 1'), Buffer.from('a place')));
    const key = await subtle.importKey('raw', raw, 'AES-GCM', false, ['decrypt']);
    const [iv, additionalData] = [Buffer.from(sealed.subarray(1, 13)), Buffer.from('a place')];
    const opened = await subtle.decrypt({ name: 'AES-GCM', iv, additionalData }, key, Buffer.from(sealed.subarray(13)));
    test.equal(toHex(new Uint8Array(opened)), toHex(value));
  });

  await t.test('opens what it has sealed, at its place, and nothing else', async (test) => {
    const sealer = new Sealer([SECRET]);
    for (const length of [0, 1, 15, 16, 17, 100_000]) {
      const bytes = seededBytes(3, length);
      test.equal(toHex(sealer.open('a', sealer.seal('a', bytes)) ?? new Uint8Array(7)), toHex(bytes));
    }
    const sealed = sealer.seal('a', value);
    test.notSame(sealer.seal('a', value), sealed, 'never twice the same');
    for (const place of ['b', '', 'a ', 'A']) test.equal(sealer.open(place, sealed), undefined, `at ${place}`);
    for (let length = 0; length < sealed.byteLength; length += 1)
      if (sealer.open('a', sealed.subarray(0, length)) !== undefined) test.fail(`${length} bytes of it`);
    for (let at = 0; at < sealed.byteLength; at += 1)
      for (const bit of [1, 0x80]) {
        const spoilt = Uint8Array.from(sealed);
        spoilt[at] = (spoilt[at] as number) ^ bit;
        if (sealer.open('a', spoilt) !== undefined) test.fail(`another bit at ${at}`);
      }
    test.equal(sealer.open('a', Buffer.concat([sealed, Buffer.of(0)])), undefined);
    test.equal(toHex(sealer.open('a', sealed) as Uint8Array), toHex(value));
  });

  await t.test('secrets', async (test) => {
    const [old, rotated, stranger] = [new Sealer([SECRET]), new Sealer([other, SECRET]), new Sealer([other])];
    test.same(rotated.names('a'), [...stranger.names('a'), ...old.names('a')], 'the current one first');
    const [before, after] = [old.seal('a', value), rotated.seal('a', value)];
    const opens = (sealed: Uint8Array): boolean[] =>
      [old, rotated, stranger].map((sealer) => sealer.open('a', sealed) !== undefined);
    test.same(opens(before), [true, true, false]);
    test.same(opens(after), [false, true, true], 'which seals');
    test.match([inspect(rotated), JSON.stringify(rotated)], ['[sealer]', '"[sealer]"']);
  });
});

await t.test('the guard', async (t) => {
  const encode = (reply: unknown): string => {
    if (reply === null) return '$-1\r\n';
    if (typeof reply === 'number') return `:${reply}\r\n`;
    if (typeof reply === 'string') return `$${reply.length}\r\n${reply}\r\n`;
    const members = reply as readonly unknown[];
    return `*${members.length}\r\n${members.map(encode).join('')}`;
  };
  const cut = (text: string, seed: number): Uint8Array[] => cutAnywhere(Buffer.from(text, 'latin1'), 7, seed);

  await t.test('what a Redis says goes through, however it is cut', async (test) => {
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 5 },
        fc.constant(null),
        fc.integer(),
        fc.string({ unit: 'binary-ascii' }),
        fc.constant('\r\n$9\r\n*1\r\n'),
        fc.array(tie('tree'), { maxLength: 6 }),
      ),
    }));
    const whole = new RespGuard();
    const replies = fc.array(tree, { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(replies, fc.integer(), (some, seed) => {
        const text = `${some.map(encode).join('')}+OK\r\n-ERR no\r\n*-1\r\n*0\r\n`;
        whole.check(Buffer.from(text, 'latin1'));
        const guard = new RespGuard();
        for (const piece of cut(text, seed)) guard.check(piece);
        // It has seen the end of each: what comes next is read as something new.
        test.throws(() => guard.check(Buffer.from('x\r\n')));
      }),
    );
  });

  await t.test('what none says does not', async (test) => {
    const bad = [
      '+OK\r*32000000\r\n',
      '+OK\rx',
      '$1\r\n1\r\n:1\rx',
      '+OK\r\r\n',
      '\n+OK\r\n',
      'x\r\n',
      '\r\n',
      '+OK\r\nx\r\n',
      '$\r\n',
      '$-2\r\n',
      '$+1\r\n',
      '$1',
      '*1.5\r\n',
      '*99999999999\r\n',
      '$99999999999\r\n',
      `$${MAX_VALUE_BYTES + 2_000}\r\n`,
      '*300000\r\n',
      '*2\r\n*200000\r\n*200000\r\n',
      '*1\r\n'.repeat(9),
      '%1\r\n+a\r\n+b\r\n',
      '>1\r\n+a\r\n',
      '_\r\n',
      `+${'x'.repeat(70_000)}`,
      `$${'1'.repeat(70_000)}\n`,
      `*3\r\n${`$${MAX_VALUE_BYTES}\r\n${'x'.repeat(MAX_VALUE_BYTES)}\r\n`.repeat(2)}+`,
    ];
    for (const text of bad) {
      const guard = new RespGuard();
      if (text === '$1') {
        guard.check(Buffer.from(text));
        test.throws(() => guard.check(Buffer.from('\nx\r\n')), 'a line end that is half of one');
      } else test.throws(() => guard.check(Buffer.from(text, 'latin1')), JSON.stringify(text.slice(0, 40)));
    }
    const long = new RespGuard();
    long.check(Buffer.from(encode('x'.repeat(MAX_VALUE_BYTES)), 'latin1'));
    for (let count = 0; count < 4; count += 1) long.check(Buffer.from(encode('x'.repeat(MAX_VALUE_BYTES)), 'latin1'));
    test.pass('one after the other is not one reply');
  });
});

await t.test('who has which keys, as a server says', async (test) => {
  const master = (name: string | null, port: unknown) => [name === null ? null : Buffer.from(name), port, 'id'];
  const slots = (...ranges: unknown[]) => parseSlots(ranges as never, 'asked');
  test.same(slots([0, 5, master('a', 1), master('b', 2)], [6, 16_383, master('', 3)], [7, 7, master(null, 4)]), [
    { first: 0, last: 5, host: 'a', port: 1 },
    { first: 6, last: 16_383, host: 'asked', port: 3 },
    { first: 7, last: 7, host: 'asked', port: 4 },
  ]);
  for (const range of [
    null,
    7,
    [],
    [0, 5],
    [0, 16_384, master('a', 1)],
    [-1, 5, master('a', 1)],
    [0, 5.5, master('a', 1)],
    ['0', 5, master('a', 1)],
    [0, 5, master('a', 0)],
    [0, 5, master('a', 65_536)],
    [0, 5, master('a', '1')],
    [0, 5, master('?', 1)],
    [0, 5, master('a\nb', 1)],
    [0, 5, master('x'.repeat(254), 1)],
    [0, 5, 'a'],
  ])
    test.same(slots(range), [], inspect(range).slice(0, 60));
  test.same([parseSlots(null, 'a'), parseSlots('OK', 'a')], [[], []]);
  const many = slots(...Array.from({ length: 16_384 }, (_, slot) => [slot, slot, master(`h${slot % 1_000}`, 1)]));
  test.equal(new Set(many.map(({ host }) => host)).size, 128, 'no more servers than that');
});

await t.test('a server that does not answer', async (t) => {
  await t.test('costs little, and less and less', async (test) => {
    const clock = new ManualClock();
    const { pretend, waiting, connections } = held();
    const { connection, store, faults } = await connect(test, await pretendRedis(test, pretend), { clock });
    test.equal(connection.state(), 'ready');
    for (const pauseMs of [100, 200, 400, 800, 1_600, 3_000, 3_000]) {
      // Who has which keys is asked again when somebody has come.
      for (let quarter = 0; quarter < 4; quarter += 1) {
        clock.advance(250);
        await turns();
      }
      const before = connections.size;
      const asked = [store.get('a:0'), store.has('a:0'), store.segment('a')];
      let isOver = false;
      void Promise.all(asked).then(() => {
        isOver = true;
      });
      await until(() => waiting.splice(0).length > 0, 'a question');
      clock.advance(499);
      await turns();
      test.equal(isOver, false);
      clock.advance(1);
      test.same(await within(Promise.all(asked), 'an end'), [undefined, false, undefined]);
      test.equal(connection.state(), 'away');
      test.equal(await within(store.get('a:0'), 'an answer at once'), undefined);
      test.same(faults(), ['failed', 'failed', 'failed', 'failed']);
      clock.advance(pauseMs - 1);
      await turns();
      test.equal(connections.size, before, 'it is left alone for a while');
      clock.advance(1);
      await until(() => connection.state() === 'ready', 'another attempt');
      test.equal(connections.size, before + 1);
    }
  });

  await t.test('or too late, each time', async (test) => {
    const clock = new ManualClock();
    const { pretend, waiting } = held();
    const { connection, store } = await connect(test, await pretendRedis(test, pretend), { clock });
    const late = async (): Promise<void> => {
      const asked = store.has('a:0');
      await until(() => waiting.length === 1, 'a question');
      clock.advance(500);
      test.equal(await asked, false);
      waiting.splice(0)[0]?.(':1\r\n');
    };
    const inTime = async (): Promise<void> => {
      const asked = store.has('a:0');
      await until(() => waiting.length === 1, 'a question');
      waiting.splice(0)[0]?.(':1\r\n');
      test.equal(await asked, true);
    };
    await late();
    await late();
    await inTime();
    await late();
    await late();
    test.equal(connection.state(), 'ready', 'one in time is enough');
    await inTime();
    for (let count = 0; count < 3; count += 1) await late();
    test.equal(connection.state(), 'away');
  });

  await t.test('nobody asks, and it is noticed all the same', async (test) => {
    const clock = new ManualClock();
    let pings = 0;
    let isSilent = false;
    const url = await pretendRedis(test, (command) => {
      if (command[0] === 'PING') pings += 1;
      if (isSilent) return undefined;
      return command[0] === 'EXISTS' ? ':1\r\n' : polite(command);
    });
    const { connection, store } = await connect(test, url, { clock });
    test.equal(pings, 1);
    clock.advance(4_000);
    await store.has('a:0');
    clock.advance(1_000);
    await turns();
    test.equal(pings, 1, 'who answers others is not asked');
    clock.advance(5_000);
    await until(() => pings === 2, 'a question');
    await turns();
    isSilent = true;
    clock.advance(5_000);
    await until(() => pings === 3, 'a question');
    test.equal(connection.state(), 'ready');
    clock.advance(500);
    await until(() => connection.state() === 'away', 'that it is noticed');
  });

  await t.test('not even when it is connected', async (test) => {
    const clock = new ManualClock();
    const server = createServer((socket) => socket.resume().on('error', () => {}));
    const port = await listen(test, server);
    const opening = connect(test, `redis://127.0.0.1:${port}`, { clock });
    await until(() => clock.pending > 0, 'an attempt');
    clock.advance(2_000);
    const { connection, store } = await within(opening, 'a connection');
    test.equal(connection.state(), 'away');
    test.equal(await store.get('a:0'), undefined);
  });

  await t.test('as much waits as may', async (test) => {
    const clock = new ManualClock();
    const { pretend } = held();
    const { store, faults } = await connect(test, await pretendRedis(test, pretend), { clock });
    const asked = Array.from({ length: 512 }, () => store.get('a:0'));
    test.equal(await within(store.get('a:0'), 'an answer at once'), undefined);
    test.same(faults(), ['failed']);
    clock.advance(500);
    await within(Promise.all(asked), 'an end');
    test.equal(faults().length, 512);
  });

  await t.test('nor is more kept in memory than may', async (test) => {
    const clock = new ManualClock();
    const { pretend } = held();
    const { connection, store, faults } = await connect(test, await pretendRedis(test, pretend), { clock });
    const done: Promise<void>[] = [];
    for (let index = 0; index < 1_100; index += 1) done.push(store.set(`a:${index}`, BLOCK, 'test'));
    const room = store.room();
    test.ok(room);
    test.equal(connection.state(), 'ready');
    const dropped = faults();
    test.same([dropped.length, new Set(dropped)], [1_100 - 1_008, new Set(['overloaded'])]);
    // What is left is room for as many that are small.
    for (let count = 0; count < 16; count += 1) done.push(store.label('a:0', 'more'));
    await test.rejects(store.delete('a:0'), { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' }, 'not behind so much');
    await test.rejects(store.flush('test'), { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' });
    clock.advance(500);
    await within(Promise.all(done), 'an end of all, with the first');
    await within(room as Promise<void>, 'room');
    test.equal(faults().length, 1_008 + 16);
    test.equal(store.room(), undefined);
  });
});

await t.test('a hostile server', async (t) => {
  const replies: Record<string, string | Buffer> = {
    'a length that nobody has room for': '*4\r\n$9999999999\r\n',
    'members that nobody has room for': '*32000000\r\n'.repeat(50),
    'arrays in arrays': '*1\r\n'.repeat(200_000),
    'no end of a line': `+${'x'.repeat(200_000)}`,
    'no reply': 'HTTP/1.1 400 Bad Request\r\n\r\n',
    'what RESP2 does not have': '>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n',
    'a push that looks like a subscription': '>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n',
    'more replies than questions': '*4\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n+OK\r\n+OK\r\n',
    'random bytes': Buffer.from(seededBytes(5, 100_000)),
  };
  for (const [what, reply] of Object.entries(replies))
    await t.test(what, async (test) => {
      const ended = new Set<Socket>();
      const url = await pretendRedis(test, (command, socket) => {
        socket.once('close', () => ended.add(socket));
        return polite(command) ?? reply;
      });
      const { connection, store, faults } = await connect(test, url);
      const before = process.memoryUsage();
      test.equal(await within(store.get('a:0'), 'an answer'), undefined);
      await until(() => ended.size > 0, 'an end of the connection');
      const { heapTotal, arrayBuffers } = process.memoryUsage();
      const grown = heapTotal + arrayBuffers - before.heapTotal - before.arrayBuffers;
      test.ok(grown < 64 * 1024 * 1024, `${grown} bytes`);
      await until(() => connection.state() === 'ready', 'another attempt');
      test.match(faults(), what.startsWith('more') ? [] : ['failed']);
    });

  const wrong: Record<string, string> = {
    'a number': ':4\r\n',
    'a word': '+OK\r\n',
    'one value': '$4\r\nabcd\r\n',
    nothing: '$-1\r\n',
    'no members': '*0\r\n',
    'too few': '*3\r\n$-1\r\n$-1\r\n$-1\r\n',
    'members that have members': '*4\r\n*1\r\n:1\r\n*0\r\n:1\r\n$-1\r\n',
    'an error': '-ERR a segment\r\n',
    'an error without a word': '-\r\n',
    'a server that nobody knows': '-MOVED 3 192.0.2.1:1\r\n',
    'itself, for ever': '-MOVED 3 :1\r\n',
  };
  for (const [what, reply] of Object.entries(wrong))
    await t.test(`replies ${what}`, async (test) => {
      const url = await pretendRedis(test, (command) => polite(command) ?? reply);
      const { store } = await connect(test, url);
      await store.set('a:0', BLOCK, 'test', { blockCount: 3 });
      await store.label('a:0', 'test');
      const check = (): boolean => true;
      test.same(
        [await store.get('a:0'), await store.get('a:0', check), await store.segment('a')],
        [undefined, undefined, undefined],
      );
      test.equal(await store.has('a:0'), false);
      const error = await store.flush('test').then(
        () => undefined,
        (reason: unknown) => reason,
      );
      test.match(error, { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' });
      test.notMatch(inspect(error), /segment/, 'what it says is not repeated');
      await store.close();
    });

  await t.test('lists keys without end', async (test) => {
    let scans = 0;
    const url = await pretendRedis(test, (command, socket) => {
      if (command[0] !== 'SCAN') return polite(command) ?? ':0\r\n';
      scans += 1;
      if (scans === 1_000) socket.destroy();
      return '*2\r\n$1\r\n7\r\n*1\r\n$14\r\npeerdist:{a}:0\r\n';
    });
    const { store } = await connect(test, url);
    await test.rejects(store.flush('test'), { code: 'ERR_PEERDIST_STORE_UNAVAILABLE' });
    test.equal(scans, 1_000, 'it is asked again and again, and nothing is kept meanwhile');
  });

  await t.test('says what looks like a line of ours', async (test) => {
    const lines: string[] = [];
    const url = await pretendRedis(test, () => '-NO\u001B[31m\nsecret\r\n');
    const { connection } = await connect(test, url, { warn: (line) => lines.push(line) });
    test.equal(connection.state(), 'away');
    test.equal(lines.length, 1);
    test.match(lines[0], /^Redis at 127\.0\.0\.1:\d+ is away: Redis replied ERR$/);
  });

  await t.test('is not ready yet', async (test) => {
    let isLoading = true;
    const url = await pretendRedis(test, (command) =>
      isLoading ? '-LOADING Redis is loading the dataset in memory\r\n' : polite(command),
    );
    const { connection } = await connect(test, url);
    test.equal(connection.state(), 'away');
    isLoading = false;
    await until(() => connection.state() === 'ready', 'that it is');
  });
});

await t.test('several servers that are no cluster', async (test) => {
  const urls = await Promise.all([pretendRedis(test, polite), pretendRedis(test, polite)]);
  const lines: string[] = [];
  const hosts = urls.map((url) => url.slice('redis://'.length)).join(',');
  const { connection, store } = await connect(test, `redis://${hosts}`, { warn: (line) => lines.push(line) });
  test.equal(connection.state(), 'away', 'nobody can say which of them has a key');
  test.equal(await store.get('a:0'), undefined);
  test.match(lines, [/is not in a cluster$/]);
});

await t.test('a process', async (t) => {
  const module = (name: string): string => JSON.stringify(new URL(`../../lib/stores/${name}.js`, import.meta.url).href);
  const run = async (script: string) => {
    const args = ['--input-type=module', '-e', script];
    return promisify(execFile)(process.execPath, args, { timeout: NEVER_MS * 2, cwd: new URL('.', import.meta.url) });
  };
  /** A loader for which the package is missing, or something else. */
  const without = (hook: string): string => `
    import { register } from 'node:module';
    register('data:text/javascript,' + encodeURIComponent(${JSON.stringify(hook)}));
    const { openRedis } = await import(${module('redis-connection')});
    await openRedis('redis://127.0.0.1:1').catch((error) => console.log(error.code, error.message));`;

  await t.test('without the package', async (test) => {
    const { stdout } = await run(
      without(`export async function resolve(name, context, next) {
        if (name === '@redis/client') throw Object.assign(new Error('no'), { code: 'ERR_MODULE_NOT_FOUND' });
        return next(name, context);
      }`),
    );
    test.equal(
      stdout.trim(),
      'ERR_PEERDIST_STORE_UNAVAILABLE a store in Redis needs the package @redis/client, which is not installed',
    );
  });

  await t.test('with one whose insides have changed', async (test) => {
    const stub = 'export class ErrorReply {}; export const createClient = () => ({ destroy() {} })';
    const { stdout } = await run(
      without(`export async function resolve(name, context, next) {
        return name === '@redis/client'
          ? { url: 'data:text/javascript,${encodeURIComponent(stub)}', format: 'module', shortCircuit: true }
          : next(name, context);
      }`),
    );
    test.match(stdout, /^ERR_PEERDIST_STORE_UNAVAILABLE this version of the package @redis\/client is not known/);
  });

  await t.test('ends by itself, and nothing is rejected that nobody looks at', async (test) => {
    const deaf = await deafPort(test);
    const url = await pretendRedis(test, held().pretend);
    const { stdout, stderr } = await run(`
      import { openRedis } from ${module('redis-connection')};
      import { RedisBlockStore } from ${module('redis-block-store')};
      const urls = ${JSON.stringify(['redis://127.0.0.1:1', 'rediss://127.0.0.1:1', url, ...(deaf === undefined ? [] : [`redis://127.0.0.1:${deaf}`, `rediss://127.0.0.1:${deaf}`])])};
      await Promise.all(urls.map(async (url) => {
        const connection = await openRedis(url);
        const store = new RedisBlockStore({ connection });
        store.touch('a:0');
        await Promise.all([store.get('a:0'), store.set('a:0', new Uint8Array(10), 'test'), store.segment('a')]);
        void store.set('a:1', new Uint8Array(10), 'test');
        void store.get('a:1');
        await store.close();
        await connection.close();
      }));
      console.log('closed');`);
    test.same([stdout, stderr], ['closed\n', '']);
  });
});
