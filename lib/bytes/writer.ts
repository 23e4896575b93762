/** A cursor over a buffer of known size; the caller computes the size first, so nothing is ever grown or copied twice. */
export class ByteWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #littleEndian: boolean;
  #offset = 0;

  constructor(size: number, littleEndian: boolean) {
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
    this.#littleEndian = littleEndian;
  }

  u8(value: number): this {
    this.#view.setUint8(this.#advance(1), value);
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.#advance(2), value, this.#littleEndian);
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#advance(4), value, this.#littleEndian);
    return this;
  }

  u64(value: number): this {
    this.#view.setBigUint64(this.#advance(8), BigInt(value), this.#littleEndian);
    return this;
  }

  put(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.#advance(bytes.byteLength));
    return this;
  }

  /** Leaves bytes zero. */
  skip(length: number): this {
    this.#advance(length);
    return this;
  }

  #advance(length: number): number {
    const start = this.#offset;
    this.#offset += length;
    return start;
  }
}
