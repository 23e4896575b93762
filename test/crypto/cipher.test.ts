/** Blocks as they go over the wire: every cipher, every length around the padding, and what cannot be a block. */
import { createDecipheriv } from 'node:crypto';
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import {
  CIPHER_BLOCK_BYTES,
  type CipherName,
  decryptBlock,
  encryptBlock,
  encryptedLength,
} from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import { seededBytes } from '../support/random.ts';

const KEY_BYTES: Readonly<Record<CipherName, number>> = { none: 0, 'aes-128': 16, 'aes-192': 24, 'aes-256': 32 };
const CIPHERS = Object.keys(KEY_BYTES) as CipherName[];
const SECRET = seededBytes(7, 64);

function encrypt(cipher: CipherName, plain: Uint8Array, iv?: Uint8Array): { data: Buffer; iv: Uint8Array } {
  const encrypted = encryptBlock(cipher, SECRET, plain, iv);
  return { data: Buffer.concat(encrypted.pieces), iv: encrypted.iv };
}

await t.test('every length comes back, and nothing else has its encrypted length', async (test) => {
  let blocks = 0;
  for (const cipher of CIPHERS) {
    const wrong: string[] = [];
    for (const length of [...Array.from({ length: 100 }, (_, index) => index + 1), 65_535, 65_536, 131_072]) {
      const plain = seededBytes(length, length);
      const encrypted = encrypt(cipher, plain);
      const back = decryptBlock(cipher, SECRET, encrypted, length);
      if (back === undefined || toHex(back) !== toHex(plain)) wrong.push(`${length} does not come back`);
      if (encrypted.data.byteLength !== encryptedLength(cipher, length)) wrong.push(`${length} has another length`);
      if (cipher !== 'none' && encrypted.data.includes(Buffer.from(plain.subarray(0, 16))) && length >= 16)
        wrong.push(`${length} is not encrypted`);
      blocks += 1;
    }
    test.same(wrong, [], cipher);
  }
  test.equal(blocks, 4 * 103);
  test.same(
    [0, 1, 15, 16, 17, 65_536].map((length) => encryptedLength('aes-192', length)),
    [16, 16, 16, 32, 32, 65_552],
    'padding is never nothing',
  );
});

await t.test('it is AES-CBC with PKCS#7 under the first bytes of the secret', async (test) => {
  const plain = seededBytes(3, 1_000);
  for (const cipher of CIPHERS.slice(1)) {
    const { data, iv } = encrypt(cipher, plain);
    const decipher = createDecipheriv(`${cipher}-cbc`, SECRET.subarray(0, KEY_BYTES[cipher]), iv);
    test.equal(Buffer.concat([decipher.update(data), decipher.final()]).toString('hex'), toHex(plain), cipher);
    test.equal(iv.byteLength, CIPHER_BLOCK_BYTES);
    test.not(toHex(iv), toHex(encrypt(cipher, plain).iv), 'a fresh vector for every block');
    const fixed = seededBytes(4, 16);
    test.equal(toHex(encrypt(cipher, plain, fixed).data), toHex(encrypt(cipher, plain, fixed).data));
    test.equal(toHex(encrypt(cipher, plain, fixed).iv), toHex(fixed), 'unless there is one');
  }
});

await t.test('padding is not looked at: implementations differ in it', async (test) => {
  const plain = seededBytes(5, 30);
  const zeros = Buffer.concat([plain, Buffer.alloc(2)]);
  for (const cipher of CIPHERS.slice(1)) {
    const { data, iv } = encrypt(cipher, zeros);
    // Padded with zeros to the next 16 bytes: the first two AES blocks.
    const back = decryptBlock(cipher, SECRET, { data: data.subarray(0, 32), iv }, 30);
    test.equal(toHex(back as Uint8Array), toHex(plain), cipher);
  }
});

await t.test('no cipher: the very bytes, whatever stands where a vector would', async (test) => {
  const plain = seededBytes(6, 99);
  const { pieces, iv } = encryptBlock('none', SECRET, plain);
  test.equal(pieces[0], plain, 'not copied');
  test.same([pieces.length, iv.byteLength], [1, 0]);
  for (const any of [iv, new Uint8Array(16), new Uint8Array(3)])
    test.same(decryptBlock('none', SECRET, { data: plain, iv: any }, 99), Buffer.from(plain), 'in memory of its own');
  test.equal(encryptBlock('none', SECRET, plain, new Uint8Array(16)).iv.byteLength, 0, 'none is sent');
});

await t.test('data or a vector of another length is not that block', async (test) => {
  for (const cipher of CIPHERS) {
    const { data, iv } = encrypt(cipher, seededBytes(1, 40));
    const decrypted = (of: { data?: Uint8Array; iv?: Uint8Array }, length = 40): Uint8Array | undefined =>
      decryptBlock(cipher, SECRET, { data, iv, ...of }, length);
    test.ok(decrypted({}), cipher);
    for (const size of [0, 1, data.byteLength - 16, data.byteLength - 1])
      test.equal(decrypted({ data: data.subarray(0, size) }), undefined, `${cipher}: ${size} bytes of data`);
    for (const more of [1, 16, 100_000])
      test.equal(decrypted({ data: Buffer.concat([data, Buffer.alloc(more)]) }), undefined, `${more} bytes more`);
    for (const length of [0, 15, 31, 48, 65_536])
      test.equal(decrypted({}, length), undefined, `${cipher}: not a block of ${length}`);
    if (cipher === 'none') continue;
    for (const size of [0, 1, 15, 17, 32])
      test.equal(decrypted({ iv: new Uint8Array(size) }), undefined, `${cipher}: a vector of ${size}`);
  }
});

await t.test('another secret, vector or cipher gives other bytes and no error', async (test) => {
  const plain = seededBytes(2, 64);
  const { data, iv } = encrypt('aes-256', plain);
  for (const [name, other] of [
    ['secret', decryptBlock('aes-256', seededBytes(8, 64), { data, iv }, 64)],
    ['vector', decryptBlock('aes-256', SECRET, { data, iv: new Uint8Array(16) }, 64)],
    ['cipher', decryptBlock('aes-128', SECRET, { data, iv }, 64)],
  ] as const) {
    test.equal(other?.byteLength, 64, name);
    test.not(toHex(other as Uint8Array), toHex(plain), name);
  }
});

await t.test('a secret that is too short for the key throws', async (test) => {
  const code = (run: () => unknown): unknown => {
    try {
      run();
      return 'nothing';
    } catch (error) {
      return isPeerDistError(error) ? [error.code, error.expected, error.actual] : error;
    }
  };
  for (const cipher of CIPHERS.slice(1)) {
    const enough = KEY_BYTES[cipher];
    const block = encrypt(cipher, seededBytes(1, 16));
    const expected = ['ERR_PEERDIST_INVALID_PARAMETER', enough, enough - 1];
    const short = SECRET.subarray(0, enough - 1);
    test.same(
      code(() => encryptBlock(cipher, short, new Uint8Array(16))),
      expected,
      cipher,
    );
    test.same(
      code(() => decryptBlock(cipher, short, block, 16)),
      expected,
    );
    test.equal(
      code(() => encryptBlock(cipher, SECRET.subarray(0, enough), new Uint8Array(16))),
      'nothing',
    );
  }
  test.equal(
    code(() => encryptBlock('none', new Uint8Array(0), new Uint8Array(16))),
    'nothing',
    'without a cipher there is no key',
  );
});
