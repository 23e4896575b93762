import { hmac } from '@noble/hashes/hmac.js';
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js';
import type { HashProvider } from './types.ts';

const functions = { sha256, sha384, sha512 };

/** Pure JavaScript: for runtimes without `node:crypto`, and as the second opinion in every vector test. */
export const nobleHashProvider: HashProvider = {
  name: 'noble',
  digest: (algorithm, data) => functions[algorithm](data),
  createDigest(algorithm) {
    const digest = functions[algorithm].create();
    return {
      update: (data) => void digest.update(data),
      finishInto: (target, offset, length) => target.set(digest.digest().subarray(0, length), offset),
    };
  },
  hmac(algorithm, key, ...data) {
    const mac = hmac.create(functions[algorithm], key);
    for (const piece of data) mac.update(piece);
    return mac.digest();
  },
};
