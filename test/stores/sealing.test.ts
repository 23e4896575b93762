/** What leaves the machine sealed, and what a URL of Redis may be. */
import { inspect } from 'node:util';
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { nobleHashProvider } from '../../lib/crypto/index.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { openRedis, Sealer } from '../../lib/stores/index.ts';
import { seededBytes } from '../support/random.ts';

const SECRET = ServerSecret.fromText('one secret');
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

await t.test('a URL of Redis that is none is refused, and its password not repeated', async (test) => {
  const bad = [
    '',
    'http://secret@a',
    'redis:',
    'redis://',
    'redis://me:se/cret@a',
    'redis://me:secret@a:65536',
    'redis://me:secret@a:x',
    'redis://me:secret@a b',
    'redis://me:secret@a,',
    'redis://me:secret@a/x',
    'redis://me:secret@a?db=1',
    'redis://me:secret@a,b/1',
  ];
  for (const url of bad) {
    const error = await openRedis(url).then(
      (connection) => connection.close(),
      (reason: unknown) => reason as Error,
    );
    test.match(error, { code: 'ERR_PEERDIST_INVALID_OPTION' }, url);
    test.notMatch(inspect(error), /secret|se.cret/, 'a password is not repeated');
  }
});
