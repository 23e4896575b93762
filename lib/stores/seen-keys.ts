/** Keys remembered, eight bytes each. Policy: enough for 64 GiB of blocks. */
const SLOTS = 1 << 20;

/**
 * Keys that have been seen, in a fixed amount of memory: a key may be forgotten, when another takes its slot, and none is taken for another
 * but by a collision of 64 bits.
 */
export class SeenKeys {
  #slots: Uint32Array | undefined;

  add(key: string): void {
    const [high, low] = fingerprint(key);
    const at = (low & (SLOTS - 1)) * 2;
    // Made when it is needed: many stores are opened and closed without one.
    this.#slots ??= new Uint32Array(SLOTS * 2);
    this.#slots[at] = high;
    this.#slots[at + 1] = low;
  }

  has(key: string): boolean {
    if (this.#slots === undefined) return false;
    const [high, low] = fingerprint(key);
    const at = (low & (SLOTS - 1)) * 2;
    return this.#slots[at] === high && this.#slots[at + 1] === low;
  }
}

/** Two independent multiplicative hashes (FNV-1a and one with another multiplier). Keys end in digests: nobody chooses them freely. */
function fingerprint(key: string): readonly [number, number] {
  let high = 0x811c9dc5;
  let low = 0x9747b28c;
  for (let index = 0; index < key.length; index += 1) {
    const code = key.charCodeAt(index);
    high = Math.imul(high ^ code, 0x01000193);
    low = Math.imul(low ^ code, 0x5bd1e995);
    low ^= low >>> 15;
  }
  // Never that of an empty slot.
  return [(high | 1) >>> 0, low >>> 0];
}
