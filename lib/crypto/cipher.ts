/**
 * The ciphers that peers use for blocks (MS-PCCRR 2.2.3) and Windows for secret key files (MS-PCCRC 2.5): AES in CBC mode with PKCS#7 padding,
 * or none. They come from `node:crypto` whatever the hash provider: a runtime without it has no sockets to exchange blocks over either.
 */
import { createCipheriv, createDecipheriv, randomBytes, timingSafeEqual } from 'node:crypto';
import { PeerDistError } from '../errors.ts';

export type CipherName = 'none' | 'aes-128' | 'aes-192' | 'aes-256';

/** Bytes of an AES block and of the initialization vector. */
export const CIPHER_BLOCK_BYTES = 16;

const KEY_BYTES: Readonly<Record<Exclude<CipherName, 'none'>, number>> = {
  'aes-128': 16,
  'aes-192': 24,
  'aes-256': 32,
};

/** A block as it goes over the wire. */
export interface Encrypted {
  /** Bytes in order; more than one piece saves a copy of them all. */
  readonly pieces: readonly Uint8Array[];
  /** Empty without a cipher. */
  readonly iv: Uint8Array;
}

const NO_IV = new Uint8Array(0);

/**
 * Encrypts one block under a fresh random initialization vector.
 *
 * @param secret Kp; its first 16, 24 or 32 bytes are the key
 * @param data not retained, but returned as it is where the cipher is `none`
 */
export function encryptBlock(
  cipher: CipherName,
  secret: Uint8Array,
  data: Uint8Array,
  iv: Uint8Array = cipher === 'none' ? NO_IV : freshIv(),
): Encrypted {
  if (cipher === 'none') return { pieces: [data], iv: NO_IV };
  const encryption = createCipheriv(`${cipher}-cbc`, keyOf(cipher, secret), iv);
  return { pieces: [encryption.update(data), encryption.final()], iv };
}

/** Random bytes fetched at a time: one call costs as much as a tenth of encrypting a block. */
const RANDOM_BYTES = 256 * CIPHER_BLOCK_BYTES;
let random = Buffer.alloc(0);

/** Each is handed out once. */
function freshIv(): Uint8Array {
  if (random.byteLength === 0) random = randomBytes(RANDOM_BYTES);
  const iv = random.subarray(0, CIPHER_BLOCK_BYTES);
  random = random.subarray(CIPHER_BLOCK_BYTES);
  return iv;
}

/** Bytes a block of `length` bytes has when encrypted. */
export function encryptedLength(cipher: CipherName, length: number): number {
  return cipher === 'none' ? length : length - (length % CIPHER_BLOCK_BYTES) + CIPHER_BLOCK_BYTES;
}

/**
 * Decrypts one block and cuts it to its known length: what padding is made of differs between implementations, so it is not looked at.
 *
 * @param secret Kp
 * @param length bytes the block is known to have
 * @returns the block in its own memory; undefined where `data` or `iv` cannot be that block encrypted
 */
export function decryptBlock(
  cipher: CipherName,
  secret: Uint8Array,
  { data, iv }: { readonly data: Uint8Array; readonly iv: Uint8Array },
  length: number,
): Uint8Array | undefined {
  if (cipher === 'none') return data.byteLength === length ? ownCopy(data) : undefined;
  const isWhole = data.byteLength === encryptedLength(cipher, length) && iv.byteLength === CIPHER_BLOCK_BYTES;
  if (!isWhole) return undefined;
  const decryption = createDecipheriv(`${cipher}-cbc`, keyOf(cipher, secret), iv).setAutoPadding(false);
  return decryption.update(data).subarray(0, length);
}

/**
 * Decrypts what has no known length: its PKCS#7 padding says where it ends.
 *
 * @param secret its first 16, 24 or 32 bytes are the key
 * @returns a fresh array; undefined where the padding is wrong, which it mostly is under another key
 */
export function decryptPadded(
  cipher: Exclude<CipherName, 'none'>,
  secret: Uint8Array,
  { data, iv }: { readonly data: Uint8Array; readonly iv: Uint8Array },
): Uint8Array | undefined {
  const decryption = createDecipheriv(`${cipher}-cbc`, keyOf(cipher, secret), iv);
  try {
    return Buffer.concat([decryption.update(data), decryption.final()]);
  } catch {
    return undefined;
  }
}

/** Compares what only one who knows a secret can make: the time says nothing of where they differ. */
export function equalInConstantTime(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && timingSafeEqual(a, b);
}

/** Not the pool's memory: blocks are kept. */
function ownCopy(data: Uint8Array): Uint8Array {
  const copy = Buffer.allocUnsafeSlow(data.byteLength);
  copy.set(data);
  return copy;
}

function keyOf(cipher: Exclude<CipherName, 'none'>, secret: Uint8Array): Uint8Array {
  const bytes = KEY_BYTES[cipher];
  if (secret.byteLength < bytes) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', `the secret is too short for ${cipher}`, {
      expected: bytes,
      actual: secret.byteLength,
    });
  }
  return secret.subarray(0, bytes);
}
