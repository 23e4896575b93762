/**
 * What a hosted cache holds: blocks as they go over the wire, never a key and never plain bytes.
 *
 * A segment has up to three places in the block store. `v` holds what was verified, because its hashes were known when it came or
 * have become known since. `0` and `1` hold candidates nobody here can check (MS-PCHC 2.2.1.5): the newer one is served, and the other one
 * where it lacks a block. A second candidate is taken only of an address that was given the first one, and comes back to offer its own:
 * what it got did not verify.
 */
import { setImmediate } from 'node:timers/promises';
import { type Clock, systemClock } from '../../clock.ts';
import { type CipherName, encryptBlock } from '../../crypto/index.ts';
import type { ContentBlock } from '../../protocol/pccrc/index.ts';
import { blockKey, type BlockStore, type HeldSegment, type MaybePromise, placeOf } from '../../stores/index.ts';
import type { DescribedContent } from '../described-content.ts';
import type { Holdings, ReadyAnswer, SegmentHoldings } from '../holdings.ts';
import { isSealedLength, packSealed, unpackSealed, unseal } from '../sealed-block.ts';
import { FetchLog } from './fetch-log.ts';

export type FetchNote = (segmentId: string, address: string) => void;

type PlaceName = 'v' | '0' | '1';

interface Place {
  readonly name: PlaceName;
  readonly held: HeldSegment;
}

/** What is to be fetched of a segment that was offered. */
export interface Wanted {
  /** Where it belongs; undefined for another copy of what is held, see {@link SealedBlocks.replace}. */
  readonly candidate?: '0' | '1';
  /** Indexes of blocks. */
  readonly blocks: readonly number[];
}

/** Cipher of blocks that come here as plain bytes. */
const CIPHER: CipherName = 'aes-128';

export class SealedBlocks implements Holdings {
  readonly #store: BlockStore;
  readonly #fetches: FetchLog;
  readonly #onFetch: FetchNote | undefined;

  /** @param onFetch told, where another process decides about offers, what {@link noteFetch} has to hear there */
  constructor(store: BlockStore, clock: Clock = systemClock, onFetch?: FetchNote) {
    this.#store = store;
    this.#fetches = new FetchLog(clock);
    this.#onFetch = onFetch;
  }

  /** The address has been given some of a segment that nobody has verified. */
  noteFetch(segmentId: string, address: string): void {
    if (this.#fetches.note(segmentId, address)) this.#onFetch?.(segmentId, address);
  }

  segment(segmentId: string): MaybePromise<SegmentHoldings | undefined> {
    const places = this.#places(segmentId);
    return places instanceof Promise
      ? places.then((found) => this.#holdings(segmentId, found))
      : this.#holdings(segmentId, places);
  }

  /** Which of the blocks of a segment that somebody offers are to be fetched from there, unseen. Undefined: none. */
  async wanted(segmentId: string, blockCount: number, address: string): Promise<Wanted | undefined> {
    const places = await this.#places(segmentId);
    const missing = absent(blockCount, places);
    const served = places.find(({ name }) => name !== 'v');
    if (missing.length > 0) return { candidate: served?.name === '1' ? '1' : '0', blocks: missing };
    // Complete. Of what has been verified nobody needs another copy.
    const unverified = absent(
      blockCount,
      places.filter(({ name }) => name === 'v'),
    );
    if (unverified.length === 0 || !this.doubts(segmentId, address)) return undefined;
    return { blocks: unverified };
  }

  /** Whether the address still has something to say about what it was given. */
  doubts(segmentId: string, address: string): boolean {
    return this.#fetches.has(segmentId, address);
  }

  /**
   * The address's own copy of a complete segment begins to come. It goes where the one that is served does not lie, which stays until the new
   * one is here; what lay there goes.
   */
  async replace(segmentId: string, address: string): Promise<'0' | '1'> {
    this.#fetches.forget(segmentId, address);
    const served = (await this.#places(segmentId)).find(({ name }) => name !== 'v');
    const candidate = served?.name === '0' ? '1' : '0';
    const held = await this.#store.segment(placeId(segmentId, candidate));
    // A view that changes as they go.
    for (const blockIndex of (held?.blocks ?? []).slice()) await this.#delete(segmentId, candidate, blockIndex);
    return candidate;
  }

  /** Whether a block is held that was verified. */
  async hasVerified(segmentId: string, blockIndex: number): Promise<boolean> {
    return this.#store.has(blockKey(placeId(segmentId, 'v'), blockIndex));
  }

  async has(segmentId: string, candidate: '0' | '1', blockIndex: number): Promise<boolean> {
    return this.#store.has(blockKey(placeId(segmentId, candidate), blockIndex));
  }

  /** Keeps a block as it was received. @param record as {@link packSealed} makes it */
  async put(
    segmentId: string,
    blockIndex: number,
    record: Uint8Array,
    place: {
      readonly candidate: '0' | '1';
      readonly blockCount: number;
      readonly from: string;
      readonly label: string;
    },
  ): Promise<void> {
    const { candidate, blockCount, from, label } = place;
    const key = blockKey(placeId(segmentId, candidate), blockIndex);
    await this.#store.set(key, record, label, { blockCount, from });
    // Two copies of one address are no second opinion.
    const twin = candidate === '0' ? '1' : '0';
    const held = await this.#store.segment(placeId(segmentId, twin));
    if (held?.from === from) await this.#delete(segmentId, twin, blockIndex);
  }

  /** Keeps a block that has been verified, encrypted; copies that were not go. */
  async keep(
    { segmentId, blockIndex }: { readonly segmentId: string; readonly blockIndex: number },
    bytes: Uint8Array,
    label: string,
    { secret, blockCount }: { readonly secret: Uint8Array; readonly blockCount: number },
  ): Promise<void> {
    const { pieces, iv } = encryptBlock(CIPHER, secret, bytes);
    const record = packSealed({ segmentId, blockIndex }, { cipher: CIPHER, iv, data: pieces });
    await this.#store.set(blockKey(placeId(segmentId, 'v'), blockIndex), record, label, { blockCount });
    for (const candidate of ['0', '1'] as const) await this.#delete(segmentId, candidate, blockIndex);
  }

  /** The plain block, if one of the copies is it; copies that turn out wrong go. */
  async open(content: DescribedContent, block: ContentBlock): Promise<Uint8Array | undefined> {
    const segmentId = content.segmentId(block.segment);
    for (const place of await this.#places(segmentId)) {
      const record = await this.#record(segmentId, place, block.blockIndex);
      const sealed = record && unpackSealed(record);
      if (sealed === undefined) continue;
      const { name } = place;
      const bytes = unseal(content, block, sealed);
      if (bytes === undefined) {
        // HoD does not cover lengths: content information that lies about the last one must not cost a good block.
        // What was verified once stays: content information of a range cannot be checked against its segment.
        if (name !== 'v' && isSealedLength(sealed, block.length)) await this.#delete(segmentId, name, block.blockIndex);
        continue;
      }
      // Encrypted anew: it may have come in the clear, or under the key that only Microsoft's test peers take.
      const { blockIndex } = block;
      if (name !== 'v')
        await this.keep({ segmentId, blockIndex }, bytes, VERIFIED_LABEL, content.segmentFacts(block.segment));
      return bytes;
    }
    return undefined;
  }

  /** Blocks of a segment whose hashes have become known that are still to be fetched: copies that prove right count as verified from now on. */
  async check(content: DescribedContent, segment: number): Promise<readonly number[]> {
    const { blockCount } = content.segmentFacts(segment);
    const segmentId = content.segmentId(segment);
    const places = await this.#places(segmentId);
    const unverified = absent(
      blockCount,
      places.filter(({ name }) => name === 'v'),
    );
    if (places.every(({ name }) => name === 'v')) return unverified;
    const { first } = content.ordinals(content.information.segmentRange(segment));
    const missing: number[] = [];
    for (const [count, blockIndex] of unverified.entries()) {
      if ((await this.open(content, content.block(first + blockIndex))) === undefined) missing.push(blockIndex);
      // Each costs a decryption and a hash: others have their turn in between.
      if (count % CHECKED_AT_A_TIME === CHECKED_AT_A_TIME - 1) await setImmediate();
    }
    return missing;
  }

  async #delete(segmentId: string, place: PlaceName, blockIndex: number): Promise<void> {
    await this.#store.delete(blockKey(placeId(segmentId, place), blockIndex));
  }

  #holdings(segmentId: string, places: readonly Place[]): SegmentHoldings | undefined {
    const [first, ...others] = places;
    if (first === undefined) return undefined;
    const all = [first, ...others];
    const blocks = others.length === 0 ? first.held.blocks : [...new Set(all.flatMap(({ held }) => held.blocks))];
    return {
      blocks: others.length === 0 ? blocks : blocks.toSorted((a, b) => a - b),
      since: Math.min(...all.map(({ held }) => held.since)),
      block: (blockIndex, address) => this.#give(segmentId, all, blockIndex, address),
    };
  }

  /** The copy in the first of the places that has one. */
  #give(
    segmentId: string,
    [place, ...others]: readonly Place[],
    blockIndex: number,
    address: string,
  ): MaybePromise<ReadyAnswer | undefined> {
    if (place === undefined) return undefined;
    const give = (record: Uint8Array | undefined): MaybePromise<ReadyAnswer | undefined> => {
      if (record === undefined) return this.#give(segmentId, others, blockIndex, address);
      if (place.name !== 'v') this.noteFetch(segmentId, address);
      return { answer: record };
    };
    const record = this.#record(segmentId, place, blockIndex);
    return record instanceof Promise ? record.then(give) : give(record);
  }

  /** Places that hold some of a segment, the one that is served first in front. At once where the store answers at once. */
  #places(segmentId: string): MaybePromise<Place[]> {
    const found = PLACES.map((name) => this.#store.segment(placeId(segmentId, name)));
    return found.some((each) => each instanceof Promise)
      ? Promise.all(found.map(async (each) => each)).then(inOrder)
      : inOrder(found as (HeldSegment | undefined)[]);
  }

  #record(segmentId: string, { name, held }: Place, blockIndex: number): MaybePromise<Uint8Array | undefined> {
    if (held.blocks[placeOf(held.blocks, blockIndex)] !== blockIndex) return undefined;
    return this.#store.get(blockKey(placeId(segmentId, name), blockIndex));
  }
}

const PLACES = ['v', '0', '1'] as const;

function inOrder(found: readonly (HeldSegment | undefined)[]): Place[] {
  const places: Place[] = [];
  for (const [index, name] of PLACES.entries()) {
    const held = found[index];
    if (held !== undefined) places.push({ name, held });
  }
  if (places.length < 2) return places;
  const [a, b] = places.slice(-2);
  // Of the two candidates the newer one.
  if (a?.name === '0' && b !== undefined && b.held.since >= a.held.since) places.splice(-2, 2, b, a);
  return places;
}

/** Copies that are opened without a break. Policy, not protocol. */
const CHECKED_AT_A_TIME = 16;
/** Label of what a copy that was here already has become. */
const VERIFIED_LABEL = 'verified';

/** Name of one place of a segment in the block store. No segment ID looks like it, so that nothing sealed is ever read as plain. */
function placeId(segmentId: string, place: PlaceName): string {
  return `${segmentId}/${place}`;
}

/** Blocks that none of the places has. */
function absent(blockCount: number, places: readonly Place[]): number[] {
  const missing: number[] = [];
  for (let blockIndex = 0; blockIndex < blockCount; blockIndex += 1) {
    const isHeld = places.some(({ held }) => held.blocks[placeOf(held.blocks, blockIndex)] === blockIndex);
    if (!isHeld) missing.push(blockIndex);
  }
  return missing;
}
