/**
 * Secret key files (MS-PCCRC 2.5) against the outside: what OpenSSL makes of the description, what the description says when it is followed
 * step by step, and everything that is not such a file. A file that Windows itself wrote was not to be had.
 */
import { createCipheriv, createHash } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { fromHex, toHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider, nobleHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError, type PeerDistErrorCode } from '../../lib/errors.ts';
import {
  decodeSecretFile,
  encodeSecretFile,
  MAX_SECRET_FILE_BYTES,
  ServerSecret,
} from '../../lib/protocol/pccrc/index.ts';
import { seededBytes } from '../support/random.ts';

const PROVIDERS = [nativeHashProvider, nobleHashProvider];
const WRONG = 'the pass phrase is wrong, or this is no server secret key file';

/**
 * Made by OpenSSL 3.0.19, with `hash` for `openssl dgst -sha256 -binary`:
 *
 *     printf "$KEY" > key                     # '\x00\x01…\x1f' for the first; printf 'server secret' | iconv -t UTF-16LE for the second
 *     printf "$PASSPHRASE" | iconv -f UTF-8 -t UTF-16LE | hash | xxd -p -c64 > aes-key
 *     (hash key; cat key) | openssl enc -aes-256-cbc -K "$(cat aes-key)" -iv 00000000000000000000000000000000 | xxd -p
 */
const OPENSSL_VECTORS = [
  {
    passphrase: 'a pass phrase',
    secretKey: '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
    file:
      '2e2dcd4bdd33e31948dcaab00899c1694371795cba0fadd5b2ba0a012379ad95' +
      '933939f0e3f9dbd6f82c221091a23f4125196a6e1e8fbfbf5356a6fec629cb14fdf0a7262cab10af7e6bda62108e8113',
  },
  {
    passphrase: 'pässword "1"',
    secretKey: Buffer.from('server secret', 'utf16le').toString('hex'),
    file:
      '3c74616fd195b3bafa7eb9dba38a87c9ce6e765f37d4ad42b610fd9956ecc6db' +
      '0982433d1eccc5374c5e7f59d1ff261052a27d575d8433a699b9cc36054b7afb',
  },
];

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

/** Cipher block chaining by hand, over whole blocks. */
function encryptBlocks(passphrase: string, padded: Uint8Array): Buffer {
  const key = sha256(Buffer.from(passphrase, 'utf16le'));
  let previous = Buffer.alloc(16);
  const blocks: Buffer[] = [];
  for (let at = 0; at < padded.byteLength; at += 16) {
    const block = Buffer.from(padded.subarray(at, at + 16)).map((byte, index) => byte ^ (previous[index] as number));
    previous = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(block);
    blocks.push(previous);
  }
  return Buffer.concat(blocks);
}

/** 1 to 16 bytes, each their number. */
function pad(plain: Uint8Array): Buffer {
  const count = 16 - (plain.byteLength % 16);
  return Buffer.concat([plain, Buffer.alloc(count, count)]);
}

function fileByHand(passphrase: string, secretKey: Uint8Array): Buffer {
  return encryptBlocks(passphrase, pad(Buffer.concat([sha256(secretKey), secretKey])));
}

function outcome(act: () => ServerSecret): string {
  try {
    return toHex(act().reveal());
  } catch (error) {
    if (!isPeerDistError(error)) throw error;
    return `${error.code}: ${error.message}`;
  }
}

const refused = (code: PeerDistErrorCode, message: string): string => `${code}: ${message}`;
const REFUSED = refused('ERR_PEERDIST_INVALID_PARAMETER', WRONG);

const secretKeys = fc.uint8Array({ minLength: 1, maxLength: 200 });
const passphrases = fc.string({ minLength: 1, maxLength: 40, unit: 'binary' });

t.test('what OpenSSL made is read, and made again byte by byte', (test) => {
  for (const { passphrase, secretKey, file } of OPENSSL_VECTORS) {
    test.equal(toHex(fileByHand(passphrase, fromHex(secretKey))), file, 'the description, followed by hand');
    for (const provider of PROVIDERS) {
      test.equal(toHex(encodeSecretFile(new ServerSecret(fromHex(secretKey)), passphrase, provider)), file);
      test.equal(toHex(decodeSecretFile(fromHex(file), passphrase, provider).reveal()), secretKey);
    }
  }
  test.equal(OPENSSL_VECTORS[0]?.file.length, 2 * 80, 'as long as those of Windows, whose keys have 32 bytes');
  test.end();
});

t.test('every secret comes back under its pass phrase, whoever wrote the file', (test) => {
  fc.assert(
    fc.property(secretKeys, passphrases, fc.constantFrom(...PROVIDERS), (secretKey, passphrase, provider) => {
      const file = encodeSecretFile(new ServerSecret(secretKey), passphrase, provider);
      const byHand = fileByHand(passphrase, secretKey);
      return (
        toHex(file) === toHex(byHand) &&
        file.byteLength === 16 * Math.ceil((32 + secretKey.byteLength + 1) / 16) &&
        toHex(decodeSecretFile(byHand, passphrase, provider).reveal()) === toHex(secretKey)
      );
    }),
  );
  test.end();
});

t.test('another pass phrase gives nothing', (test) => {
  const [{ passphrase, file }] = OPENSSL_VECTORS as [(typeof OPENSSL_VECTORS)[0]];
  const near = ['A pass phrase', 'a pass phrase\n', 'a pass phrase\0', ' a pass phrase', '\ufeffa pass phrase', 'a'];
  for (const wrong of near)
    test.equal(
      outcome(() => decodeSecretFile(fromHex(file), wrong)),
      REFUSED,
    );
  // Many, since one in 256 leaves padding that looks right.
  fc.assert(
    fc.property(passphrases, (wrong) => {
      fc.pre(wrong !== passphrase);
      return outcome(() => decodeSecretFile(fromHex(file), wrong)) === REFUSED;
    }),
    { numRuns: 3_000 },
  );
  test.equal(
    outcome(() => decodeSecretFile(fromHex(file), '')),
    refused('ERR_PEERDIST_INVALID_PARAMETER', 'the pass phrase is empty'),
  );
  test.throws(() => encodeSecretFile(ServerSecret.fromText('x'), ''), { code: 'ERR_PEERDIST_INVALID_PARAMETER' });
  test.end();
});

t.test('a file that is cut anywhere, or differs in any bit, gives nothing', (test) => {
  for (const { passphrase, file } of OPENSSL_VECTORS) {
    const whole = fromHex(file);
    const wrong: string[] = [];
    for (let length = 0; length < whole.byteLength; length += 1) {
      if (outcome(() => decodeSecretFile(whole.subarray(0, length), passphrase)) !== REFUSED)
        wrong.push(`cut ${length}`);
      for (let bit = 0; bit < 8; bit += 1) {
        const changed = whole.map((byte, index) => (index === length ? byte ^ (1 << bit) : byte));
        if (outcome(() => decodeSecretFile(changed, passphrase)) !== REFUSED) wrong.push(`bit ${bit} of ${length}`);
      }
    }
    test.same(wrong, []);
    test.equal(
      outcome(() => decodeSecretFile(Buffer.concat([whole, Buffer.alloc(16)]), passphrase)),
      REFUSED,
      'longer',
    );
  }
  test.end();
});

t.test('what decrypts well and is no secret all the same', (test) => {
  const passphrase = 'p';
  const secretKey = seededBytes(5, 20);
  const plain = Buffer.concat([sha256(secretKey), secretKey]);
  const cases: [what: string, padded: Uint8Array][] = [
    ['no secret after its digest', pad(sha256(new Uint8Array(0)))],
    ['nothing', pad(new Uint8Array(0))],
    ['less than a digest', pad(sha256(secretKey).subarray(0, 31))],
    ['the digest of something else', pad(Buffer.concat([sha256(plain), secretKey]))],
    ['the digest after the secret', pad(Buffer.concat([secretKey, sha256(secretKey)]))],
    ['a hash of another kind', pad(Buffer.concat([createHash('sha512').update(secretKey).digest(), secretKey]))],
    ['padding of zeros', Buffer.concat([plain, Buffer.alloc(12)])],
    ['padding longer than a block', Buffer.concat([plain, Buffer.alloc(28, 28)])],
    ['padding that is not all the same', Buffer.concat([plain, Buffer.alloc(11, 1), Buffer.from([12])])],
  ];
  test.equal(
    outcome(() => decodeSecretFile(encryptBlocks(passphrase, pad(plain)), passphrase)),
    toHex(secretKey),
  );
  for (const [what, padded] of cases)
    test.equal(
      outcome(() => decodeSecretFile(encryptBlocks(passphrase, padded), passphrase)),
      REFUSED,
      what,
    );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), passphrases, (bytes, phrase) => {
      return outcome(() => decodeSecretFile(bytes, phrase)) === REFUSED;
    }),
  );
  test.end();
});

t.test('the largest file, and one byte more', (test) => {
  // One byte of padding fills the last block.
  const largest = new ServerSecret(seededBytes(6, MAX_SECRET_FILE_BYTES - 32 - 1));
  const file = encodeSecretFile(largest, 'p');
  test.equal(file.byteLength, MAX_SECRET_FILE_BYTES);
  test.ok(Buffer.from(decodeSecretFile(file, 'p').reveal()).equals(largest.reveal()));
  const limit = refused('ERR_PEERDIST_LIMIT', 'larger than any server secret key file');
  test.equal(
    outcome(() => decodeSecretFile(new Uint8Array(MAX_SECRET_FILE_BYTES + 1), 'p')),
    limit,
  );
  const tooLong = new ServerSecret(seededBytes(6, MAX_SECRET_FILE_BYTES - 32));
  test.throws(() => encodeSecretFile(tooLong, 'p'), { code: 'ERR_PEERDIST_LIMIT' });
  test.end();
});
