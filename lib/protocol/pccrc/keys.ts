/** Hashes and keys of a segment: HoD, Kp, HoHoDk (MS-PCCRC 2.2). */
import type { HashProvider } from '../../crypto/index.ts';
import { PeerDistError } from '../../errors.ts';
import type { ContentHashAlgorithm } from './constants.ts';

/**
 * C2, the constant hashed into every segment ID.
 * Spec note: 2.2 calls it a NUL-terminated ASCII string; Windows uses UTF-16LE with a wide NUL, 30 bytes.
 */
const SEGMENT_ID_LABEL = Buffer.from('MS_P2P_CACHING\0', 'utf16le');

/** Hash of data as the algorithm names it: a digest cut to `algorithm.hashBytes`. */
export function contentHash(provider: HashProvider, algorithm: ContentHashAlgorithm, data: Uint8Array): Uint8Array {
  const digest = provider.digest(algorithm.digest, data);
  return digest.byteLength === algorithm.hashBytes ? digest : digest.subarray(0, algorithm.hashBytes);
}

/**
 * Derives the segment secret (Kp) that authorises a client and encrypts blocks between peers.
 *
 * MS-PCCRC 2.2. Spec note: 2.3.1.1, 2.4.1.2 and the examples say Hash(HoD + secret); the HMAC of 2.2 is what runs.
 *
 * @param serverKey Ks, `algorithm.hashBytes` long
 * @param hashOfData HoD, same length
 * @returns a fresh array of `algorithm.hashBytes` bytes
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` when a length disagrees
 */
export function segmentSecret(
  provider: HashProvider,
  algorithm: ContentHashAlgorithm,
  serverKey: Uint8Array,
  hashOfData: Uint8Array,
): Uint8Array {
  assertHashLength(algorithm, serverKey, 'Ks');
  assertHashLength(algorithm, hashOfData, 'HoD');
  return provider.hmac(algorithm.digest, serverKey, hashOfData).subarray(0, algorithm.hashBytes);
}

/**
 * Derives the segment ID (HoHoDk), the public name peers put in a probe.
 *
 * @param secret Kp, `algorithm.hashBytes` long; not retained
 * @param hashOfData HoD, same length
 * @returns a fresh array of `algorithm.hashBytes` bytes
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` when a length disagrees
 */
export function segmentId(
  provider: HashProvider,
  algorithm: ContentHashAlgorithm,
  secret: Uint8Array,
  hashOfData: Uint8Array,
): Uint8Array {
  assertHashLength(algorithm, secret, 'Kp');
  assertHashLength(algorithm, hashOfData, 'HoD');
  return provider.hmac(algorithm.digest, secret, hashOfData, SEGMENT_ID_LABEL).subarray(0, algorithm.hashBytes);
}

/** True when both arrays hold the same bytes. Hashes are public, so time need not be constant. */
export function equalHashes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function assertHashLength(algorithm: ContentHashAlgorithm, hash: Uint8Array, name: string): void {
  if (hash.byteLength !== algorithm.hashBytes) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', `${name} has the wrong length for ${algorithm.name}`, {
      spec: 'MS-PCCRC 2.2',
      expected: algorithm.hashBytes,
      actual: hash.byteLength,
    });
  }
}
