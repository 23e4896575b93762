import { createHash, createHmac, hash } from 'node:crypto';
import type { HashProvider } from './types.ts';

/** OpenSSL through `node:crypto`: the default. */
export const nativeHashProvider: HashProvider = {
  name: 'native',
  digest: (algorithm, data) => hash(algorithm, data, 'buffer'),
  createDigest(algorithm) {
    const digest = createHash(algorithm);
    return {
      update: (data) => void digest.update(data),
      // By way of a string: Node makes an array for a binary digest that costs more than the hash of a small block.
      finishInto: (target, offset, length) => void target.write(digest.digest('binary'), offset, length, 'binary'),
    };
  },
  hmac(algorithm, key, ...data) {
    const hmac = createHmac(algorithm, key);
    for (const piece of data) hmac.update(piece);
    return hmac.digest();
  },
};
