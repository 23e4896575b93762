import { type ByteRange, rangeEnd } from '../bytes/index.ts';

interface Partial {
  readonly bytes: Uint8Array;
  /** Bytes `[from, to)` of the block that are there. */
  from: number;
  to: number;
}

/** Blocks that are only partly there; the oldest leaves past this. 64 blocks are at most 8 MiB. Policy, not protocol. */
const MAX_PARTIAL_BLOCKS = 64;

/** Collects the pieces of blocks until they can be verified. Pieces of a block must touch; one that does not replaces what was there. */
export class PartialBlocks {
  readonly #partials = new Map<number, Partial>();

  /**
   * Adds a piece of a block.
   *
   * @param block where the block lies in the content
   * @param offset where the piece lies in the content, inside the block
   * @returns the block when it is complete
   */
  add(ordinal: number, block: ByteRange, offset: number, piece: Uint8Array): Uint8Array | undefined {
    const from = offset - block.offset;
    const to = from + piece.byteLength;
    const known = this.#partials.get(ordinal);
    const touches = known !== undefined && from <= known.to && to >= known.from;
    const partial = touches ? known : { bytes: Buffer.allocUnsafeSlow(block.length), from, to };
    partial.bytes.set(piece, from);
    partial.from = Math.min(partial.from, from);
    partial.to = Math.max(partial.to, to);
    if (partial.from === 0 && partial.to === rangeEnd(block) - block.offset) {
      this.#partials.delete(ordinal);
      return partial.bytes;
    }
    this.#partials.set(ordinal, partial);
    if (this.#partials.size > MAX_PARTIAL_BLOCKS) this.#partials.delete(this.#partials.keys().next().value as number);
    return undefined;
  }

  clear(): void {
    this.#partials.clear();
  }
}
