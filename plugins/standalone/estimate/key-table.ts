import { mixed } from './fingerprint.ts';

/** Slots of the index at the beginning; they double. */
const FIRST_SLOTS = 1024;
/** Of the slots, those that may be taken. */
const MAX_LOAD = 0.75;

/**
 * Rows found by keys of 64 bits: open addressing over row numbers. Whoever owns it keeps columns beside it, one value for each row.
 *
 * Keys and columns are reserved for as many rows as there may be. The system gives memory for what has been written only, and growing
 * would take the double for a while.
 */
export class KeyTable {
  readonly maxRows: number;
  /** Of each row, the two halves of its key. */
  readonly highs: Uint32Array;
  readonly lows: Uint32Array;
  #count = 0;
  /** Row + 1; 0 is free. */
  #slots = new Int32Array(FIRST_SLOTS);

  constructor(maxRows: number) {
    this.maxRows = maxRows;
    this.highs = new Uint32Array(maxRows);
    this.lows = new Uint32Array(maxRows);
  }

  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count === this.maxRows;
  }

  /** @returns the row, or -1 */
  find(high: number, low: number): number {
    return (this.#slots[this.#slotOf(high, low)] as number) - 1;
  }

  /** Adds a key that is not there, while the table is not full. @returns its row: the number of rows before */
  add(high: number, low: number): number {
    const row = this.#count;
    this.highs[row] = high;
    this.lows[row] = low;
    this.#count += 1;
    if (this.#count > this.#slots.length * MAX_LOAD) this.reindex(this.#slots.length * 2);
    else this.#slots[this.#slotOf(high, low)] = row + 1;
    return row;
  }

  /**
   * Drops rows; those that stay move up and keep their order.
   *
   * @returns for each row of before, where it is now, or -1
   */
  retain(isKept: (row: number) => boolean): Int32Array {
    const moves = new Int32Array(this.#count).fill(-1);
    let kept = 0;
    for (let row = 0; row < this.#count; row += 1) {
      if (!isKept(row)) continue;
      moves[row] = kept;
      kept += 1;
    }
    moveRows(this.highs, moves);
    moveRows(this.lows, moves);
    this.#count = kept;
    this.reindex();
    return moves;
  }

  /** Finds the rows anew, after their keys have been changed from outside. */
  reindex(slots = this.#slots.length): void {
    if (slots === this.#slots.length) this.#slots.fill(0);
    else this.#slots = new Int32Array(slots);
    for (let row = 0; row < this.#count; row += 1)
      this.#slots[this.#slotOf(this.highs[row] as number, this.lows[row] as number)] = row + 1;
  }

  /** Where the key is, or would be. */
  #slotOf(high: number, low: number): number {
    const mask = this.#slots.length - 1;
    let slot = mixed(high ^ Math.imul(low, 0x9e3779b1)) & mask;
    for (;;) {
      const row = (this.#slots[slot] as number) - 1;
      if (row < 0 || (this.highs[row] === high && this.lows[row] === low)) return slot;
      slot = (slot + 1) & mask;
    }
  }
}

/** Moves the values of a column as {@link KeyTable.retain} says. */
export function moveRows(column: Uint32Array | Float64Array | Float32Array | Uint8Array, moves: Int32Array): void {
  for (let row = 0; row < moves.length; row += 1) {
    const to = moves[row] as number;
    if (to >= 0) column[to] = column[row] as number;
  }
  column.fill(0, countOf(moves), moves.length);
}

function countOf(moves: Int32Array): number {
  for (let row = moves.length - 1; row >= 0; row -= 1)
    if ((moves[row] as number) >= 0) return (moves[row] as number) + 1;
  return 0;
}
