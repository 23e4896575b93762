import { lookup } from 'node:dns/promises';
import { fromHex } from '../../bytes/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import { type ContentBlock, V1_BLOCK_BYTES } from '../../protocol/pccrc/index.ts';
import type { PeerAddress } from '../../protocol/pccrd/index.ts';
import {
  decodeOfferResponse,
  encodeOffer,
  MAX_DESCRIPTORS,
  OFFER_HASHES,
  type SegmentDescriptor,
  V2_OFFER_PATH,
} from '../../protocol/pchc/index.ts';
import { unmappedAddress } from '../address.ts';
import type { DescribedContent } from '../described-content.ts';
import { PeerConnections } from '../peers/exchange.ts';
import { CacheList } from './cache-list.ts';

export interface OffersOptions {
  /** In the order they are tried; the first one that answers is the one that is offered to. */
  readonly caches: readonly PeerAddress[];
  /** Where this machine gives its blocks away; undefined while it does not. */
  readonly port: () => number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** Tells hosted caches who is asking on whose behalf; Windows counts what it does not know as "Other" (MS-PCHC 3.2.1). */
const CONTENT_TAG = Buffer.from('peerdist'.padEnd(16, '\0'), 'latin1');
/** Part of a segment's blocks that must be new before it is offered while more is still coming, as Windows (MS-PCHC 3.2.4). */
const ENOUGH = 0.2;
/** Milliseconds without a further block after which the rest is offered too; also how long an offer gathers. Policy, not protocol. */
const GATHER_MS = 1_000;
/** Milliseconds a hosted cache gets for its answer: the request timer (MS-PCHC 3.2.2). */
const REQUEST_TIMEOUT_MS = 10_000;
/** Milliseconds after which an offer that nobody took is made again. Policy, not protocol. */
const RETRY_MS = 15_000;
/** Segments waiting to be offered; the oldest is forgotten. Policy, not protocol. */
const MAX_WAITING = 16_384;
/** Bytes of an answer. */
const MAX_ANSWER_BYTES = 64;

interface Waiting {
  readonly descriptor: SegmentDescriptor;
  readonly blockCount: number;
  newBlocks: number;
  lastAt: number;
}

/** The client role of the hosted cache protocol: offers what has come from the origin, many segments at a time (MS-PCHC 3.2). */
export class Offers {
  readonly #caches: CacheList;
  readonly #names: readonly PeerAddress[];
  readonly #port: OffersOptions['port'];
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #connections = new PeerConnections();
  readonly #waiting = new Map<string, Waiting>();
  /** Addresses the hosted caches fetch from. */
  readonly #addresses = new Set<string>();
  #cancelTimer: (() => void) | undefined;
  #isSending = false;
  /** Nobody took the last offer: the next one waits for its time. */
  #isRefused = false;
  #isClosed = false;

  constructor({ caches, port, observer = ignoreObservations, clock = systemClock }: OffersOptions) {
    this.#caches = new CacheList(caches, clock);
    this.#names = caches;
    this.#port = port;
    this.#observer = observer;
    this.#clock = clock;
    void this.#resolve();
  }

  /** True for the address of a hosted cache: it may fetch what it has been offered. */
  isCache(address: string): boolean {
    return this.#addresses.has(unmappedAddress(address));
  }

  /** A block from the origin is in the store. */
  kept(content: DescribedContent, { segment, length }: ContentBlock): void {
    const { algorithm } = content.information;
    // Version 1 of SHA-384 and SHA-512 cannot be offered this way (MS-PCHC 2.2.1.5).
    if (this.#isClosed || !(algorithm.name in OFFER_HASHES)) return;
    const segmentId = content.segmentId(segment);
    const waiting = this.#waiting.get(segmentId) ?? {
      descriptor: {
        blockSize: content.information.version === 2 ? length : V1_BLOCK_BYTES,
        segmentSize: content.information.segmentRange(segment).length,
        contentTag: CONTENT_TAG,
        hashAlgorithm: OFFER_HASHES[algorithm.name as keyof typeof OFFER_HASHES],
        segmentId: fromHex(segmentId),
      },
      blockCount: content.segmentFacts(segment).blockCount,
      newBlocks: 0,
      lastAt: 0,
    };
    waiting.newBlocks += 1;
    waiting.lastAt = this.#clock.now();
    this.#wait(segmentId, waiting);
    if (this.#waiting.size >= MAX_DESCRIPTORS && !this.#isRefused) void this.#send();
    else this.#sendLater(GATHER_MS);
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
    this.#connections.close();
  }

  #wait(segmentId: string, waiting: Waiting): void {
    this.#waiting.set(segmentId, waiting);
    if (this.#waiting.size > MAX_WAITING) this.#waiting.delete(this.#waiting.keys().next().value as string);
  }

  #sendLater(ms: number): void {
    if (this.#isClosed) return;
    this.#cancelTimer ??= this.#clock.after(ms, () => {
      this.#cancelTimer = undefined;
      void this.#send();
    });
  }

  /** Offers what is due, one offer after the other. Never rejects. */
  async #send(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    let isTaken = true;
    for (let due = this.#takeDue(); isTaken && due.size > 0; due = isTaken ? this.#takeDue() : due) {
      isTaken = await this.#offer([...due.values()].map(({ descriptor }) => descriptor));
      if (isTaken) continue;
      for (const [segmentId, waiting] of due) if (!this.#waiting.has(segmentId)) this.#wait(segmentId, waiting);
    }
    this.#isSending = false;
    this.#isRefused = !isTaken;
    if (this.#waiting.size > 0) this.#sendLater(isTaken ? GATHER_MS : RETRY_MS);
  }

  #takeDue(): Map<string, Waiting> {
    const due = new Map<string, Waiting>();
    const quietSince = this.#clock.now() - GATHER_MS;
    for (const [segmentId, waiting] of this.#waiting) {
      const isDue = waiting.newBlocks >= ENOUGH * waiting.blockCount || waiting.lastAt <= quietSince;
      if (!isDue) continue;
      this.#waiting.delete(segmentId);
      due.set(segmentId, waiting);
      if (due.size === MAX_DESCRIPTORS) break;
    }
    return due;
  }

  async #offer(segments: readonly SegmentDescriptor[]): Promise<boolean> {
    const port = this.#port();
    if (port === undefined) return true;
    const message = encodeOffer({ type: 'batched-offer', port, segments });
    for (const cache of this.#caches.usable) {
      if (!(await this.#post(cache, message))) continue;
      this.#observer({ type: 'offer_sent', result: 'ok', segments: segments.length });
      return true;
    }
    this.#observer({ type: 'offer_sent', result: 'failed', segments: segments.length });
    return false;
  }

  async #post(cache: PeerAddress, message: Uint8Array): Promise<boolean> {
    // Known before it is asked: it may fetch before its answer is here.
    await this.#resolve();
    const exchange = this.#connections.post(cache, message, MAX_ANSWER_BYTES, V2_OFFER_PATH);
    const cancel = this.#clock.after(REQUEST_TIMEOUT_MS, () => exchange.cancel('timeout'));
    try {
      decodeOfferResponse(await exchange.answer);
      this.#caches.answered(cache);
      return true;
    } catch {
      this.#caches.failed(cache);
      return false;
    } finally {
      cancel();
    }
  }

  async #resolve(): Promise<void> {
    const found = await Promise.all(
      this.#names.map(async ({ address }) => {
        try {
          return await lookup(address, { all: true });
        } catch {
          return [];
        }
      }),
    );
    const addresses = found.flat().map(({ address }) => address);
    // A name server that is away takes nothing back.
    if (addresses.length > 0) this.#addresses.clear();
    for (const address of addresses) this.#addresses.add(address);
  }
}
