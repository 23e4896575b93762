/** Bytes that grow at the end, by doubling. For records of known small size that come one at a time. */
export class GrowableBytes {
  #buffer: Buffer;
  #length = 0;

  constructor(initialBytes = 1024) {
    this.#buffer = Buffer.alloc(initialBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** Makes room for `length` bytes at the end and returns them, zeroed, to be written before the next call. */
  extend(length: number): Buffer {
    const end = this.#length + length;
    if (end > this.#buffer.byteLength) {
      const larger = Buffer.alloc(Math.max(end, 2 * this.#buffer.byteLength));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    const piece = this.#buffer.subarray(this.#length, end);
    this.#length = end;
    return piece;
  }

  /** The bytes so far, or some of them, in an array of just that size. */
  toBytes(start = 0, end = this.#length): Uint8Array {
    return Uint8Array.from(this.#buffer.subarray(start, Math.min(end, this.#length)));
  }
}
