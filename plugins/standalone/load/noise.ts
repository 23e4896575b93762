/**
 * Bytes as good as random, made when they are needed: AES in counter mode with the number of the noise in the upper half of the counter.
 * No two noises have a block in common, any of them can be entered anywhere, and nothing of it compresses.
 */
import { type Cipher, createCipheriv, createHash } from 'node:crypto';
import { type ByteRange, intersect } from '../../../lib/bytes/index.ts';

/** A run of a noise's bytes. */
export interface NoisePiece {
  readonly noise: NoiseId;
  /** Where in the noise it begins. */
  readonly offset: number;
  readonly length: number;
}

export interface NoiseId {
  readonly kind: keyof typeof KINDS;
  readonly index: number;
}

const KINDS = { object: 0, update: 1, wave: 2, 'wave edit': 3 } as const;
const CIPHER_BLOCK_BYTES = 16;
const ZEROS = Buffer.alloc(64 * 1024);

/** @returns a key for {@link NoiseReader} */
export function noiseKey(seed: number): Buffer {
  return createHash('sha256').update(`noise ${seed}`).digest().subarray(0, 16);
}

/** Reads a range of pieces put one after the other, front to back. */
export class NoiseReader {
  readonly #key: Buffer;
  readonly #pieces: NoisePiece[];
  #cipher: Cipher | undefined;
  #left: number;

  constructor(key: Buffer, pieces: readonly NoisePiece[], range: ByteRange) {
    this.#key = key;
    this.#pieces = cut(pieces, range).toReversed();
    this.#left = this.#pieces.at(-1)?.length ?? 0;
  }

  /** True when everything has been read. */
  get isAtEnd(): boolean {
    return this.#pieces.length === 0;
  }

  /** The next bytes, at most so many and at most 64 KiB; empty at the end. A fresh array. */
  read(maxBytes: number): Buffer {
    const piece = this.#pieces.at(-1);
    if (piece === undefined) return Buffer.alloc(0);
    this.#cipher ??= this.#open(piece);
    const bytes = this.#cipher.update(ZEROS.subarray(0, Math.min(maxBytes, this.#left)));
    this.#left -= bytes.byteLength;
    if (this.#left === 0) {
      this.#pieces.pop();
      this.#cipher = undefined;
      this.#left = this.#pieces.at(-1)?.length ?? 0;
    }
    return bytes;
  }

  /** True when the next bytes are these. After false the reader is of no more use. */
  matches(bytes: Uint8Array): boolean {
    for (let at = 0; at < bytes.byteLength;) {
      const expected = this.read(bytes.byteLength - at);
      if (expected.byteLength === 0 || !expected.equals(bytes.subarray(at, at + expected.byteLength))) return false;
      at += expected.byteLength;
    }
    return true;
  }

  #open({ noise, offset }: NoisePiece): Cipher {
    const counter = Buffer.alloc(CIPHER_BLOCK_BYTES);
    counter.writeUInt8(KINDS[noise.kind], 0);
    counter.writeUInt32BE(noise.index, 4);
    counter.writeBigUInt64BE(BigInt(Math.floor(offset / CIPHER_BLOCK_BYTES)), 8);
    const cipher = createCipheriv('aes-128-ctr', this.#key, counter);
    cipher.update(ZEROS.subarray(0, offset % CIPHER_BLOCK_BYTES));
    return cipher;
  }
}

/** The pieces with another one inserted at an offset of the whole. */
export function insertPiece(pieces: readonly NoisePiece[], at: number, inserted: NoisePiece): readonly NoisePiece[] {
  const whole = pieces.reduce((sum, { length }) => sum + length, 0);
  return [...cut(pieces, { offset: 0, length: at }), inserted, ...cut(pieces, { offset: at, length: whole - at })];
}

function cut(pieces: readonly NoisePiece[], range: ByteRange): NoisePiece[] {
  let start = 0;
  const inside: NoisePiece[] = [];
  for (const { noise, offset, length } of pieces) {
    const overlap = intersect(range, { offset: start, length });
    if (overlap.length > 0) inside.push({ noise, offset: offset + overlap.offset - start, length: overlap.length });
    start += length;
  }
  return inside;
}
