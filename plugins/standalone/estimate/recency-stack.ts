/** What the stacks of all sites know of an entry, by its row. */
export interface StackEntries {
  /** Bytes of each entry. */
  readonly sizes: Float64Array;
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
    const { sizes, positions, maxBytes, minLargeBytes } = this.#entries;
    const position = positions[entry] as number;
    const group = Math.floor(position / GROUP);
    let above = this.#all.total - this.#all.before(group);
    let largeAbove = this.#large.total - this.#large.before(group);
    for (let below = group * GROUP; below < position; below += 1) {
      const row = (this.#rows[below] as number) - 1;
      if (row < 0) continue;
      const size = sizes[row] as number;
      if (size > maxBytes) continue;
      above -= size;
      if (size >= minLargeBytes) largeAbove -= size;
    }
    this.distance = above;
    this.largeDistance = largeAbove;
  }

  /** The rows of the entries used longest ago, the oldest first. */
  oldest(count: number): number[] {
    const rows: number[] = [];
    for (let position = 0; rows.length < count && position < this.#next; position += 1) {
      const row = (this.#rows[position] as number) - 1;
      if (row >= 0) rows.push(row);
    }
    return rows;
  }

  /** Rows have moved: sizes and positions are where the moves say, and entries that went have left the stack. */
  move(moves: Int32Array): void {
    for (let position = 0; position < this.#next; position += 1) {
      const row = (this.#rows[position] as number) - 1;
      if (row >= 0) this.#rows[position] = (moves[row] as number) + 1;
    }
  }

  #weigh(row: number, position: number, sign: 1 | -1): void {
    const { sizes, maxBytes, minLargeBytes } = this.#entries;
    const size = sizes[row] as number;
    if (size > maxBytes) return;
    const group = Math.floor(position / GROUP);
    this.#all.add(group, sign * size);
    if (size >= minLargeBytes) this.#large.add(group, sign * size);
  }

  /** Gives the entries the first positions, and room for as many uses again. */
  #renumber(): void {
    const before = this.#rows;
    let positions = before.length;
    while (positions < this.#count * 2) positions *= 2;
    const { sizes, maxBytes, minLargeBytes, positions: places } = this.#entries;
    const rows = positions === before.length ? before : new Uint32Array(positions);
    this.#all = new PartialSums(positions / GROUP);
    this.#large = new PartialSums(positions / GROUP);
    let next = 0;
    for (const entry of before) {
      if (entry === 0) continue;
      rows[next] = entry;
      places[entry - 1] = next;
      const size = sizes[entry - 1] as number;
      const group = Math.floor(next / GROUP);
      if (size <= maxBytes) {
        this.#all.add(group, size);
        if (size >= minLargeBytes) this.#large.add(group, size);
      }
      next += 1;
    }
    rows.fill(0, next);
    this.#rows = rows;
    this.#next = next;
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
