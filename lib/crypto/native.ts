import { createHmac, hash } from 'node:crypto';
import type { HashProvider } from './types.ts';

/** OpenSSL through `node:crypto`: the default. One-shot digests, since a block is always wholly at hand. */
export const nativeHashProvider: HashProvider = {
  name: 'native',
  digest: (algorithm, data) => hash(algorithm, data, 'buffer'),
  hmac(algorithm, key, ...data) {
    const hmac = createHmac(algorithm, key);
    for (const piece of data) hmac.update(piece);
    return hmac.digest();
  },
};
