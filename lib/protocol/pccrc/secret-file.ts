/**
 * The file that carries a server secret to another content server (MS-PCCRC 2.5): `netsh branchcache exportkey` and `importkey`,
 * `Export-BCSecretKey` and `Import-BCSecretKey`.
 *
 * SHA-256 of the secret key, then the secret key, under AES-256 in CBC mode with PKCS#7 padding and an initialization vector of zeros. The key is
 * the SHA-256 of the pass phrase in UTF-16LE without a terminator: one hash and no salt, so the file withstands guessing only as long as
 * the pass phrase does.
 */
import {
  CIPHER_BLOCK_BYTES,
  decryptPadded,
  encryptBlock,
  encryptedLength,
  equalInConstantTime,
  type HashProvider,
  nativeHashProvider,
} from '../../crypto/index.ts';
import { PeerDistError } from '../../errors.ts';
import { ServerSecret } from './server-secret.ts';

/** Bytes of the largest file. Policy, not protocol: Windows writes 80. */
export const MAX_SECRET_FILE_BYTES = 1024 * 1024;

const CIPHER = 'aes-256';
const DIGEST = 'sha256';
const DIGEST_BYTES = 32;
const ZERO_IV = new Uint8Array(CIPHER_BLOCK_BYTES);
const SPEC = 'MS-PCCRC 2.5';

/**
 * Encrypts a server secret under a pass phrase. The same two make the same file.
 *
 * @param passphrase at least one character
 * @returns the bytes of the file, a multiple of 16
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` for an empty pass phrase, `ERR_PEERDIST_LIMIT` for a secret too long for
 *   {@link MAX_SECRET_FILE_BYTES}
 */
export function encodeSecretFile(
  secret: ServerSecret,
  passphrase: string,
  provider: HashProvider = nativeHashProvider,
): Uint8Array {
  const key = keyOf(passphrase, provider);
  const secretKey = secret.reveal();
  assertFits(encryptedLength(CIPHER, DIGEST_BYTES + secretKey.byteLength));
  const plain = Buffer.concat([provider.digest(DIGEST, secretKey), secretKey]);
  return Buffer.concat(encryptBlock(CIPHER, key, plain, ZERO_IV).pieces);
}

/**
 * Reads a server secret back. A wrong pass phrase, a damaged file and one of another kind cannot be told apart.
 *
 * @param bytes the whole file
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` when no secret comes out, `ERR_PEERDIST_LIMIT` above
 *   {@link MAX_SECRET_FILE_BYTES}
 */
export function decodeSecretFile(
  bytes: Uint8Array,
  passphrase: string,
  provider: HashProvider = nativeHashProvider,
): ServerSecret {
  const key = keyOf(passphrase, provider);
  assertFits(bytes.byteLength);
  const plain = decryptPadded(CIPHER, key, { data: bytes, iv: ZERO_IV });
  const secretKey = plain?.subarray(DIGEST_BYTES);
  const isWhole =
    plain !== undefined &&
    secretKey !== undefined &&
    secretKey.byteLength > 0 &&
    equalInConstantTime(plain.subarray(0, DIGEST_BYTES), provider.digest(DIGEST, secretKey));
  if (!isWhole) {
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_PARAMETER',
      'the pass phrase is wrong, or this is no server secret key file',
      { spec: SPEC },
    );
  }
  return new ServerSecret(secretKey);
}

function keyOf(passphrase: string, provider: HashProvider): Uint8Array {
  if (passphrase === '') throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'the pass phrase is empty');
  return provider.digest(DIGEST, Buffer.from(passphrase, 'utf16le'));
}

function assertFits(fileBytes: number): void {
  if (fileBytes > MAX_SECRET_FILE_BYTES) {
    throw new PeerDistError('ERR_PEERDIST_LIMIT', 'larger than any server secret key file', {
      spec: SPEC,
      expected: MAX_SECRET_FILE_BYTES,
      actual: fileBytes,
    });
  }
}
