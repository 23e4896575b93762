/** What the stacks of all sites know of an entry, by its row. */
export interface StackEntries {
  /** Bytes of each entry. */
  readonly sizes: Float64Array;
  /** An entry stands for 2^level entries, as many of which lie where it does. */
  readonly levels: Uint8Array;
  /** Where each entry is in its stack; the stack writes it. */
  readonly positions: Uint32Array;
  /** Entries with more bytes weigh nothing: no cache keeps them. */
  readonly maxBytes: number;
  /** Entries with fewer bytes are not counted among the large ones. */
  readonly minLargeBytes: number;
}

/** Positions whose entries are added up one by one; the tree is over groups of so many. */
const GROUP = 32;
const FIRST_POSITIONS = 2 * GROUP;

/**
 * The contents of one site, the one used last on top. For each it tells how many bytes lie from it to the top, which is the size of the
 * smallest cache (least recently used leaves first) that still has it: one pass gives the hits of caches of every size (Mattson, 1970).
 *
 * A use takes an entry out of its position and puts it behind the last one. A tree of partial sums (Fenwick, 1994) over groups of positions tells what
 * lies above; when the positions have run out they are given out anew.
 */
export class RecencyStack {
  readonly #entries: StackEntries;
  /** Row + 1 at each position, the top last; 0 where nothing is any more. */
  #rows = new Uint32Array(FIRST_POSITIONS);
  #next = 0;
  #count = 0;
  #all = new PartialSums(FIRST_POSITIONS / GROUP);
  #large = new PartialSums(FIRST_POSITIONS / GROUP);
  /** Set by {@link measure}: bytes from the entry to the top, both included; of the large entries in the other. */
  distance = 0;
  largeDistance = 0;

  constructor(entries: StackEntries) {
    this.#entries = entries;
  }

  get count(): number {
    return this.#count;
  }

  /** Puts an entry on top. It is nowhere in the stack. */
  push(row: number): void {
    if (this.#next === this.#rows.length) this.#renumber();
    const position = this.#next;
    this.#next += 1;
    this.#count += 1;
    this.#rows[position] = row + 1;
    this.#entries.positions[row] = position;
    this.#weigh(row, position, 1);
  }

  /** Takes an entry out; its size is what it was when it was put in. */
  remove(row: number): void {
    const position = this.#entries.positions[row] as number;
    this.#weigh(row, position, -1);
    this.#rows[position] = 0;
    this.#count -= 1;
  }

  /** Sets {@link distance} and {@link largeDistance} of an entry that weighs something. */
  measure(entry: number): void {
    const { sizes, levels, positions, maxBytes, minLargeBytes } = this.#entries;
    const position = positions[entry] as number;
    const group = Math.floor(position / GROUP);
    let above = this.#all.total - this.#all.before(group);
    let largeAbove = this.#large.total - this.#large.before(group);
    for (let at = group * GROUP; at <= position; at += 1) {
      const row = (this.#rows[at] as number) - 1;
      if (row < 0) continue;
      const size = sizes[row] as number;
      if (size > maxBytes) continue;
      const weight = size * 2 ** (levels[row] as number);
      above -= weight;
      if (size >= minLargeBytes) largeAbove -= weight;
    }
    // By itself it is there once.
    const size = sizes[entry] as number;
    this.distance = above + size;
    this.largeDistance = largeAbove + size;
  }

  /** Rows have moved, as `KeyTable.retain` says, and may have another level; those that are gone leave the stack. */
  move(moves: Int32Array): void {
    this.#count = 0;
    for (let position = 0; position < this.#next; position += 1) {
      const row = (this.#rows[position] as number) - 1;
      if (row < 0) continue;
      this.#rows[position] = (moves[row] as number) + 1;
      if (this.#rows[position] !== 0) this.#count += 1;
    }
    this.#renumber();
  }

  #weigh(row: number, position: number, sign: 1 | -1): void {
    const { sizes, levels, maxBytes, minLargeBytes } = this.#entries;
    const size = sizes[row] as number;
    if (size > maxBytes) return;
    const group = Math.floor(position / GROUP);
    const weight = sign * size * 2 ** (levels[row] as number);
    this.#all.add(group, weight);
    if (size >= minLargeBytes) this.#large.add(group, weight);
  }

  /** Gives the entries the first positions, and room for as many uses again. */
  #renumber(): void {
    const before = this.#rows;
    let positions = before.length;
    while (positions < this.#count * 2) positions *= 2;
    this.#rows = positions === before.length ? before : new Uint32Array(positions);
    this.#all = new PartialSums(positions / GROUP);
    this.#large = new PartialSums(positions / GROUP);
    const end = this.#next;
    this.#next = 0;
    for (let position = 0; position < end; position += 1) {
      const row = (before[position] as number) - 1;
      if (row < 0) continue;
      this.#rows[this.#next] = row + 1;
      this.#entries.positions[row] = this.#next;
      this.#weigh(row, this.#next, 1);
      this.#next += 1;
    }
    this.#rows.fill(0, this.#next);
  }
}

/** Sums over the first members of a list whose members change. */
class PartialSums {
  total = 0;
  readonly #tree: Float64Array;

  constructor(members: number) {
    this.#tree = new Float64Array(members + 1);
  }

  add(member: number, value: number): void {
    this.total += value;
    const tree = this.#tree;
    for (let at = member + 1; at < tree.length; at += at & -at) tree[at] = (tree[at] as number) + value;
  }

  /** Sum of the members before this one. */
  before(member: number): number {
    let sum = 0;
    for (let at = member; at > 0; at -= at & -at) sum += this.#tree[at] as number;
    return sum;
  }
}
