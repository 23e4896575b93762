import { nativeHashProvider } from './native.ts';
import { nobleHashProvider } from './noble.ts';
import type { HashProvider } from './types.ts';

export {
  CIPHER_BLOCK_BYTES,
  type CipherName,
  decryptBlock,
  decryptPadded,
  type Encrypted,
  encryptBlock,
  encryptedLength,
  equalInConstantTime,
} from './cipher.ts';
export { deriveKey } from './derive.ts';
export { type DigestName, type HashProvider, type IncrementalDigest } from './types.ts';
export { nativeHashProvider, nobleHashProvider };

/** The provider of that name; `native` is the default everywhere. */
export function hashProvider(name: HashProvider['name']): HashProvider {
  return name === 'noble' ? nobleHashProvider : nativeHashProvider;
}
