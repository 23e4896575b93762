const NOTHING = new Uint8Array();
/** Chunks shorter than this are put together: an origin that sends single bytes would cost a hundred times what it sends. */
const MIN_CHUNK_BYTES = 4096;
const PACK_BYTES = 16_384;
/** Places of taken chunks that are cleared away together. */
const MAX_TAKEN = 256;

/** Bytes of a body in order, as they came: added at the end, taken from the front, found by their place in the body. */
export class ChunkQueue {
  #chunks: Uint8Array[] = [];
  #starts: number[] = [];
  /** Index of the first one that is still here. */
  #head = 0;
  #end = 0;
  #bytes = 0;
  /** Where short chunks are put together, and how much of it is taken. */
  #open: Uint8Array | undefined;
  #fill = 0;

  /** Bytes here. */
  get bytes(): number {
    return this.#bytes;
  }

  get first(): Uint8Array | undefined {
    return this.#chunks[this.#head];
  }

  /** Place of the first byte that is here. */
  get start(): number {
    return this.#end - this.#bytes;
  }

  push(chunk: Uint8Array): void {
    if (chunk.byteLength === 0) return;
    if (chunk.byteLength >= MIN_CHUNK_BYTES || !this.#extend(chunk)) {
      this.#starts.push(this.#end);
      this.#chunks.push(chunk.byteLength >= MIN_CHUNK_BYTES ? chunk : this.#pack(chunk));
    }
    this.#end += chunk.byteLength;
    this.#bytes += chunk.byteLength;
  }

  /** Puts a short chunk to the last one; not to the first, which may be being taken. */
  #extend(chunk: Uint8Array): boolean {
    const last = this.#chunks.length - 1;
    const pack = this.#open;
    if (pack === undefined || last <= this.#head || this.#chunks[last]?.buffer !== pack.buffer) return false;
    if (this.#fill + chunk.byteLength > PACK_BYTES) return false;
    pack.set(chunk, this.#fill);
    this.#fill += chunk.byteLength;
    this.#chunks[last] = pack.subarray(0, this.#fill);
    return true;
  }

  #pack(chunk: Uint8Array): Uint8Array {
    this.#open = new Uint8Array(PACK_BYTES);
    this.#open.set(chunk);
    this.#fill = chunk.byteLength;
    return this.#open.subarray(0, this.#fill);
  }

  /** Takes the first one out. */
  shift(): void {
    const chunk = this.first;
    if (chunk === undefined) return;
    this.#bytes -= chunk.byteLength;
    // Its memory is wanted back before its place is.
    this.#chunks[this.#head] = NOTHING;
    this.#head += 1;
    if (this.#head < MAX_TAKEN) return;
    this.#chunks = this.#chunks.slice(this.#head);
    this.#starts = this.#starts.slice(this.#head);
    this.#head = 0;
  }

  /** The chunk with the byte at that place of the body, from there on; undefined where it is not here. */
  pieceAt(place: number): Uint8Array | undefined {
    if (place >= this.#end || place < this.start) return undefined;
    let low = this.#head;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#starts[middle] as number) <= place) low = middle;
      else high = middle - 1;
    }
    return (this.#chunks[low] as Uint8Array).subarray(place - (this.#starts[low] as number));
  }

  clear(): void {
    this.#chunks = [];
    this.#starts = [];
    this.#head = 0;
    this.#bytes = 0;
  }
}
