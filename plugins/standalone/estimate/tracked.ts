import { KeyTable, moveRows } from './key-table.ts';
import type { PeerCopies } from './peer-copies.ts';
import { RecencyStack, type StackEntries } from './recency-stack.ts';

/** Of the entries of each site, the share that is forgotten when there is no room for another: those used longest ago. */
const FORGOTTEN_SHARE = 0.25;

/**
 * What is remembered of contents: of each at head office its size, of each at a site what the site's caches know of it. Entries are rows of columns,
 * at most as many as there are pairs of content and site.
 */
export class Tracked implements StackEntries {
  readonly #contents: KeyTable;
  /** Bytes of the version that head office sent last. */
  readonly contentSizes: Float64Array;
  /** By content and site. */
  readonly #pairs: KeyTable;
  /** Bytes of the version the site got last. */
  readonly sizes: Float64Array;
  readonly positions: Uint32Array;
  readonly maxBytes: number;
  readonly minLargeBytes: number;
  /** Seconds since 1970 when a one-sided cache fetched or validated it. */
  readonly validatedAt: Uint32Array;
  /** Set of copies + 1; 0 where there is none. */
  readonly copySets: Uint32Array;
  /** {@link FIRST_FOR_PEERS} and {@link FIRST_FOR_HOSTED}. */
  readonly flags: Uint8Array;
  readonly #stacks: RecencyStack[] = [];
  /** Entries forgotten for want of room. */
  forgotten = 0;

  constructor(
    maxRows: number,
    { maxBytes, minLargeBytes }: { readonly maxBytes: number; readonly minLargeBytes: number },
  ) {
    this.#contents = new KeyTable(maxRows);
    this.contentSizes = new Float64Array(maxRows);
    this.#pairs = new KeyTable(maxRows);
    this.sizes = new Float64Array(maxRows);
    this.positions = new Uint32Array(maxRows);
    this.maxBytes = maxBytes;
    this.minLargeBytes = minLargeBytes;
    this.validatedAt = new Uint32Array(maxRows);
    this.copySets = new Uint32Array(maxRows);
    this.flags = new Uint8Array(maxRows);
  }

  /** Contents now known. */
  get contents(): number {
    return this.#contents.count;
  }

  stack(site: number): RecencyStack {
    return (this.#stacks[site] ??= new RecencyStack(this));
  }

  /** @returns row of the content, or -1 */
  findContent(high: number, low: number): number {
    return this.#contents.find(high, low);
  }

  /** A content that is not known yet, while there is {@link hasRoom}. */
  addContent(high: number, low: number): number {
    return this.#contents.add(high, low);
  }

  /** @returns row of the content at the site, or -1 */
  findPair(content: number, site: number): number {
    return this.#pairs.find(content, site);
  }

  /** A content that is new at the site, while there is {@link hasRoom}. */
  addPair(content: number, site: number): number {
    return this.#pairs.add(content, site);
  }

  /** Room for another content at another site. */
  get hasRoom(): boolean {
    return !this.#pairs.isFull;
  }

  /** Makes room. Every row is another one afterwards. */
  forget(copies: PeerCopies): void {
    const gone = new Uint8Array(this.#pairs.count);
    for (const stack of this.#stacks) {
      if (stack === undefined) continue;
      for (const row of stack.oldest(Math.ceil(stack.count * FORGOTTEN_SHARE))) {
        stack.remove(row);
        gone[row] = 1;
        const set = this.copySets[row] as number;
        if (set > 0) copies.release(set - 1);
        this.forgotten += 1;
      }
    }
    const moves = this.#pairs.retain((row) => gone[row] === 0);
    for (const column of [this.sizes, this.positions, this.validatedAt, this.copySets, this.flags])
      moveRows(column, moves);
    for (const stack of this.#stacks) stack?.move(moves);
    this.#forgetContents();
  }

  /** Contents that no site has. */
  #forgetContents(): void {
    const { count, highs } = this.#pairs;
    const isUsed = new Uint8Array(this.#contents.count);
    for (let row = 0; row < count; row += 1) isUsed[highs[row] as number] = 1;
    const moves = this.#contents.retain((row) => isUsed[row] === 1);
    moveRows(this.contentSizes, moves);
    for (let row = 0; row < count; row += 1) highs[row] = moves[highs[row] as number] as number;
    this.#pairs.reindex();
  }
}

/** The site has only the plain answer that head office gave before there were hashes: Windows PCs would not have kept it for others. */
export const FIRST_FOR_PEERS = 1;
export const FIRST_FOR_HOSTED = 2;
