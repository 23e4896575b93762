import { PeerDistError } from '../errors.ts';

/** Makes the error for input that ends too early; the codec that reads knows its code and section. */
export type TruncationError = (needed: number, left: number) => PeerDistError;

/**
 * A bounded cursor over received bytes. It never copies and never allocates from a length it has read:
 * `take` fails before anything is made when the input cannot back the length.
 */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #littleEndian: boolean;
  readonly #truncated: TruncationError;
  #offset = 0;

  constructor(bytes: Uint8Array, littleEndian: boolean, truncated: TruncationError) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#littleEndian = littleEndian;
    this.#truncated = truncated;
  }

  get offset(): number {
    return this.#offset;
  }

  /** Bytes not yet read. */
  get left(): number {
    return this.#bytes.byteLength - this.#offset;
  }

  u8(): number {
    return this.#view.getUint8(this.#advance(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), this.#littleEndian);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), this.#littleEndian);
  }

  /** A 64-bit count. Values past 2^53-1 come back as `undefined`: no content is that long, and a double cannot hold them. */
  u64(): number | undefined {
    const value = this.#view.getBigUint64(this.#advance(8), this.#littleEndian);
    return value > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : Number(value);
  }

  /** A view of the next `length` bytes. */
  take(length: number): Uint8Array {
    const start = this.#advance(length);
    return this.#bytes.subarray(start, start + length);
  }

  #advance(length: number): number {
    if (length > this.left) throw this.#truncated(length, this.left);
    const start = this.#offset;
    this.#offset += length;
    return start;
  }
}
