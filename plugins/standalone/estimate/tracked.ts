import { KeyTable, moveRows } from './key-table.ts';
import type { PeerCopies } from './peer-copies.ts';
import { RecencyStack, type StackEntries } from './recency-stack.ts';

/** Contents that were asked for at least this share of all bytes are watched with certainty. Policy: the others then add less than half a percent of error. */
const CERTAIN_SHARE = 1e-5;
/** Where too many are certain, how much larger the share becomes. */
const CERTAIN_FACTOR = 16;
/** Of the rows, those that are free at least when there was no room. */
const FREED_SHARE = 0.1;
/** Each level halves what is watched. */
const MAX_LEVEL = 32;

/**
 * What is remembered of contents: of each at head office its size, of each at a site what the site's caches know of it. Entries are rows of columns.
 *
 * When there is no room for another, half of the contents that matter little leave, chosen by the fingerprint of their URL, and such contents are not watched any
 * more; each of the other half stands for two from then on (spatial sampling: Waldspurger and others, 2015). What is added up is the same on average.
 */
export class Tracked implements StackEntries {
  readonly #contents: KeyTable;
  /** Bytes of the version that head office sent last. */
  readonly contentSizes: Float64Array;
  /** A content stands for 2^level contents. */
  readonly contentLevels: Uint8Array;
  /** Bytes that were asked for since it is watched. */
  readonly #asked: Float32Array;
  /** By content and site. */
  readonly #pairs: KeyTable;
  /** Bytes of the version the site got last. */
  readonly sizes: Float64Array;
  /** As of the content. */
  readonly levels: Uint8Array;
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
  #level = 0;
  #askedInAll = 0;

  constructor(
    maxRows: number,
    { maxBytes, minLargeBytes }: { readonly maxBytes: number; readonly minLargeBytes: number },
  ) {
    this.#contents = new KeyTable(maxRows);
    this.contentSizes = new Float64Array(maxRows);
    this.contentLevels = new Uint8Array(maxRows);
    this.#asked = new Float32Array(maxRows);
    this.#pairs = new KeyTable(maxRows);
    this.sizes = new Float64Array(maxRows);
    this.levels = new Uint8Array(maxRows);
    this.positions = new Uint32Array(maxRows);
    this.maxBytes = maxBytes;
    this.minLargeBytes = minLargeBytes;
    this.validatedAt = new Uint32Array(maxRows);
    this.copySets = new Uint32Array(maxRows);
    this.flags = new Uint8Array(maxRows);
  }

  /** Of the contents seen for the first time now, one in 2^level is watched. */
  get level(): number {
    return this.#level;
  }

  stack(site: number): RecencyStack {
    return (this.#stacks[site] ??= new RecencyStack(this));
  }

  /** @returns row of the content, or -1 */
  findContent(high: number, low: number): number {
    return this.#contents.find(high, low);
  }

  /** A content that is not known yet, while there {@link hasRoom}. @returns its row, or -1 when it is not to be watched */
  addContent(high: number, low: number): number {
    if (this.#level > 0 && low >>> (MAX_LEVEL - this.#level) !== 0) return -1;
    const content = this.#contents.add(high, low);
    this.contentLevels[content] = this.#level;
    return content;
  }

  /** @returns row of the content at the site, or -1 */
  findPair(content: number, site: number): number {
    return this.#pairs.find(content, site);
  }

  /** A content that is new at the site, while there {@link hasRoom}. */
  addPair(content: number, site: number): number {
    const pair = this.#pairs.add(content, site);
    this.levels[pair] = this.contentLevels[content] as number;
    return pair;
  }

  /** A watched content was asked for. */
  ask(content: number, bytes: number): void {
    this.#asked[content] = (this.#asked[content] as number) + bytes;
    this.#askedInAll += bytes;
  }

  /** Room for another content at another site: no content is without a site. */
  get hasRoom(): boolean {
    return !this.#pairs.isFull;
  }

  /** Makes room. Every row is another one afterwards. */
  thin(copies: PeerCopies): void {
    const isGone = this.#chooseGone();
    const { highs } = this.#pairs;
    for (let pair = 0; pair < this.#pairs.count; pair += 1) {
      const set = this.copySets[pair] as number;
      if (isGone[highs[pair] as number] === 1 && set > 0) copies.release(set - 1);
      this.levels[pair] = this.contentLevels[highs[pair] as number] as number;
    }
    const moves = this.#pairs.retain((pair) => isGone[highs[pair] as number] === 0);
    const { sizes, levels, positions, validatedAt, copySets, flags } = this;
    for (const column of [sizes, levels, positions, validatedAt, copySets, flags]) moveRows(column, moves);
    for (const stack of this.#stacks) stack?.move(moves);
    const contentMoves = this.#contents.retain((content) => isGone[content] === 0);
    for (const column of [this.contentSizes, this.contentLevels, this.#asked]) moveRows(column, contentMoves);
    for (let pair = 0; pair < this.#pairs.count; pair += 1) highs[pair] = contentMoves[highs[pair] as number] as number;
    this.#pairs.reindex();
  }

  /** Goes to the next level at which there is room enough; contents that stay stand for as many as they must. @returns 1 for each content that goes */
  #chooseGone(): Uint8Array {
    const { count, lows } = this.#contents;
    const isGone = new Uint8Array(count);
    while (this.#level < MAX_LEVEL) {
      this.#level += 1;
      const bit = MAX_LEVEL - this.#level;
      let certainBytes = this.#askedInAll * CERTAIN_SHARE;
      while (this.#isTooFull(isGone, bit, certainBytes) && certainBytes < this.#askedInAll)
        certainBytes *= CERTAIN_FACTOR;
      for (let content = 0; content < count; content += 1) {
        if (isGone[content] === 1 || (this.#asked[content] as number) >= certainBytes) continue;
        if (((lows[content] as number) >>> bit) & 1) isGone[content] = 1;
        else this.contentLevels[content] = (this.contentLevels[content] as number) + 1;
      }
      if (!this.#isTooFull(isGone)) return isGone;
    }
    // A few contents at more sites than there are rows.
    return isGone.fill(1);
  }

  /** Whether too many pairs are left when contents with this bit go too, if they were asked for less than so many bytes. */
  #isTooFull(isGone: Uint8Array, bit = 0, certainBytes = 0): boolean {
    const { count, highs } = this.#pairs;
    let left = 0;
    for (let pair = 0; pair < count; pair += 1) {
      const content = highs[pair] as number;
      const isChosen =
        (this.#asked[content] as number) < certainBytes && ((this.#contents.lows[content] as number) >>> bit) & 1;
      if (isGone[content] === 0 && !isChosen) left += 1;
    }
    return left > this.#pairs.maxRows * (1 - FREED_SHARE);
  }
}

/** The site has only the plain answer that head office gave before there were hashes: Windows PCs would not have kept it for others. */
export const FIRST_FOR_PEERS = 1;
export const FIRST_FOR_HOSTED = 2;
