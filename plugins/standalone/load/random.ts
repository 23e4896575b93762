import { createHash } from 'node:crypto';

/**
 * Random numbers that are the same in every run (sfc32). Each purpose has a sequence of its own: what one part of a profile draws does not
 * move the others.
 */
export class SeededRandom {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  constructor(seed: number, purpose: string) {
    const digest = createHash('sha256').update(`${seed}/${purpose}`).digest();
    this.#a = digest.readInt32LE(0);
    this.#b = digest.readInt32LE(4);
    this.#c = digest.readInt32LE(8);
    this.#counter = digest.readInt32LE(12);
  }

  /** From 0, inclusive, to 1, exclusive; 53 bits. */
  next(): number {
    return ((this.#word() >>> 5) * 0x400_0000 + (this.#word() >>> 6)) / 2 ** 53;
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** Mean 0, standard deviation 1 (Box and Muller). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    return radius * Math.cos(2 * Math.PI * this.next());
  }

  /** Mean 1: the gap between two arrivals that know nothing of each other. */
  exponential(): number {
    return -Math.log(1 - this.next());
  }

  #word(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
}

/** Ranks by popularity: rank r (from 0) is picked in proportion to 1 / (r + 1) ^ exponent. */
export class Zipf {
  readonly #shares: Float64Array;

  /** @param exponent 0 makes all ranks alike */
  constructor(ranks: number, exponent: number) {
    this.#shares = new Float64Array(ranks);
    let sum = 0;
    for (let rank = 0; rank < ranks; rank += 1) {
      sum += (rank + 1) ** -exponent;
      this.#shares[rank] = sum;
    }
  }

  pick(random: SeededRandom): number {
    const wanted = random.next() * (this.#shares.at(-1) as number);
    let low = 0;
    let high = this.#shares.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#shares[middle] as number) > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
