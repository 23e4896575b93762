import { hkdfSync } from 'node:crypto';

const DERIVED_BYTES = 32;

/**
 * A key for one use of a secret, from which neither the secret nor the keys of its other uses can be told (HKDF with SHA-256, RFC 5869).
 *
 * @param use what the key is for (`info`); the same secret and use make the same key everywhere
 * @returns 32 bytes
 */
export function deriveKey(secret: Uint8Array, use: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, '', use, DERIVED_BYTES));
}
