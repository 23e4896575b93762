/** Randomness that is the same in every run: a failing case can be looked at again. */

/** A generator of 32-bit words (Marsaglia's xorshift32). */
export function words(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Bytes of a seed; a longer run of a seed begins with the shorter one. */
export function seededBytes(seed: number, length: number): Uint8Array {
  const next = words(seed);
  const bytes = new Uint8Array(Math.ceil(length / 4) * 4);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.byteLength; at += 4) view.setUint32(at, next(), true);
  return bytes.subarray(0, length);
}

/** A number from 0 to `below` - 1. */
export function pick(next: () => number, below: number): number {
  return Math.floor((next() / 0x1_0000_0000) * below);
}

/** The same bytes in pieces of 1 to `maxBytes`, cut anywhere. */
export function cutAnywhere(bytes: Uint8Array, maxBytes: number, seed = 1): Uint8Array[] {
  const next = words(seed);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const piece = bytes.subarray(at, at + 1 + pick(next, maxBytes));
    pieces.push(piece);
    at += piece.byteLength;
  }
  return pieces;
}

/** A fresh array with the same members in another order. */
export function shuffled<T>(items: readonly T[], seed = 1): T[] {
  const next = words(seed);
  const result = [...items];
  for (let index = result.length - 1; index > 0; index -= 1) {
    const other = pick(next, index + 1);
    [result[index], result[other]] = [result[other] as T, result[index] as T];
  }
  return result;
}
