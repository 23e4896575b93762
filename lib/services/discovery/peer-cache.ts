import type { Clock } from '../../clock.ts';
import { formatPeerAddress } from '../../protocol/pccrd/index.ts';
import type { Holder } from '../peers/index.ts';

/** Segments remembered; the one asked about longest ago is forgotten. Policy, not protocol. */
const MAX_SEGMENTS = 8_192;
/** Peers remembered for each; more than anybody needs to read from. Policy, not protocol. */
const MAX_HOLDERS = 16;
/** Of them at one address: whoever names many ports is not many peers. Policy, not protocol. */
const MAX_HOLDERS_PER_ADDRESS = 4;
/** Milliseconds an answer is believed. Policy, not protocol. */
const AGE_MS = 60_000;
/** Milliseconds after which a segment may be asked about again. Policy, not protocol. */
const ASK_AGAIN_MS = 15_000;

interface Entry {
  readonly askedAt: number;
  /** How many blocks each answer to the last question named. */
  readonly answers: Holder['blocks'][];
  readonly holders: Map<string, Holder & { readonly at: number }>;
}

/** Who said that they have what, and when. */
export class PeerCache {
  readonly #clock: Clock;
  readonly #segments = new Map<string, Entry>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** False when the segment was asked about just now. */
  isDue(segmentId: string): boolean {
    const askedAt = this.#segments.get(segmentId)?.askedAt;
    return askedAt === undefined || this.#clock.now() - askedAt >= ASK_AGAIN_MS;
  }

  /** The segment is asked about. */
  beginAsking(segmentId: string): void {
    const holders = this.#segments.get(segmentId)?.holders ?? new Map();
    this.#segments.delete(segmentId);
    this.#segments.set(segmentId, { askedAt: this.#clock.now(), answers: [], holders });
    if (this.#segments.size > MAX_SEGMENTS) this.#segments.delete(this.#segments.keys().next().value as string);
  }

  add(segmentId: string, holder: Holder): void {
    const entry = this.#segments.get(segmentId);
    if (entry === undefined) return;
    const name = formatPeerAddress(holder.peer);
    this.#dropOld(entry);
    if (!entry.holders.has(name)) {
      const { address } = holder.peer;
      const neighbours = [...entry.holders.values()].filter(({ peer }) => peer.address === address).length;
      if (entry.holders.size >= MAX_HOLDERS || neighbours >= MAX_HOLDERS_PER_ADDRESS) return;
    }
    const at = this.#clock.now();
    if ((entry.holders.get(name)?.at ?? -Infinity) < entry.askedAt) entry.answers.push(holder.blocks);
    entry.holders.set(name, { ...holder, at });
  }

  holders(segmentId: string): readonly Holder[] {
    const entry = this.#segments.get(segmentId);
    if (entry === undefined || entry.holders.size === 0) return [];
    this.#dropOld(entry);
    return [...entry.holders.values()];
  }

  #dropOld({ holders }: Entry): void {
    const oldest = this.#clock.now() - AGE_MS;
    for (const [name, { at }] of holders) if (at < oldest) holders.delete(name);
  }

  /**
   * Answers to the last question about a segment, and those of them that had all of it.
   *
   * @param blockCount blocks the segment has
   */
  quorum(segmentId: string, blockCount: number): { readonly answers: number; readonly full: number } {
    const answers = this.#segments.get(segmentId)?.answers ?? [];
    const full = answers.filter((blocks) => blocks === 'all' || blocks >= blockCount);
    return { answers: answers.length, full: full.length };
  }
}
