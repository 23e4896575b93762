/** Two 32-bit words that stand for a text. 64 bits tell hundreds of millions of URLs apart; they are no match for somebody who looks for collisions. */
export interface Fingerprint {
  high: number;
  low: number;
}

/**
 * Writes the fingerprint of a text, so that millions of them leave nothing to collect.
 *
 * @param into where to write it
 * @param seed texts of different seeds have nothing to do with each other
 */
export function fingerprint(text: string, into: Fingerprint, seed = 0): void {
  let high = 0x9747b28c ^ seed;
  let low = 0x2f0b4c47 ^ Math.imul(seed, 0x27d4eb2f);
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    high = Math.imul(high ^ code, 0x85ebca6b);
    low = Math.imul(low ^ code, 0xc2b2ae35);
    high ^= high >>> 15;
  }
  into.high = mixed(high ^ (low >>> 7)) >>> 0;
  into.low = mixed(low ^ text.length) >>> 0;
}

/** A word in which every bit depends on all bits of another (the output function of SplitMix32). */
export function mixed(word: number): number {
  let value = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  value = Math.imul(value ^ (value >>> 15), 0x735a2d97);
  return value ^ (value >>> 15);
}
