import type { Clock } from '../../clock.ts';
import { formatPeerAddress } from '../../protocol/pccrd/index.ts';
import type { Holder } from '../peers/index.ts';

/** Segments remembered; the one asked about longest ago is forgotten. Policy, not protocol. */
const MAX_SEGMENTS = 32_768;
/** Peers remembered for each; more than anybody needs to read from. Policy, not protocol. */
const MAX_HOLDERS = 16;
/** Of them at one address: whoever names many ports is not many peers. Policy, not protocol. */
const MAX_HOLDERS_PER_ADDRESS = 4;
/** Milliseconds an answer is believed. Policy, not protocol. */
const AGE_MS = 60_000;
/** Milliseconds after which a segment may be asked about again. Policy, not protocol. */
const ASK_AGAIN_MS = 15_000;

interface Entry {
  askedAt: number;
  answers: number;
  full: number;
  readonly holders: Map<string, Holder & { readonly at: number }>;
}

/** Who said that they have what, and when. */
export class PeerCache {
  readonly #clock: Clock;
  readonly #segments = new Map<string, Entry>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @returns false when the segment was asked about just now */
  beginAsking(segmentId: string): boolean {
    const now = this.#clock.now();
    const known = this.#segments.get(segmentId);
    if (known !== undefined && now - known.askedAt < ASK_AGAIN_MS) return false;
    this.#segments.delete(segmentId);
    const entry: Entry = { askedAt: now, answers: 0, full: 0, holders: known?.holders ?? new Map() };
    this.#segments.set(segmentId, entry);
    if (this.#segments.size > MAX_SEGMENTS) this.#segments.delete(this.#segments.keys().next().value as string);
    return true;
  }

  add(segmentId: string, holder: Holder): void {
    const entry = this.#segments.get(segmentId);
    if (entry === undefined) return;
    const name = formatPeerAddress(holder.peer);
    if (!entry.holders.has(name)) {
      const { address } = holder.peer;
      const neighbours = [...entry.holders.values()].filter(({ peer }) => peer.address === address).length;
      if (entry.holders.size >= MAX_HOLDERS || neighbours >= MAX_HOLDERS_PER_ADDRESS) return;
    }
    const at = this.#clock.now();
    if ((entry.holders.get(name)?.at ?? -Infinity) < entry.askedAt) {
      entry.answers += 1;
      if (holder.blocks === 'all') entry.full += 1;
    }
    entry.holders.set(name, { ...holder, at });
  }

  holders(segmentId: string): readonly Holder[] {
    const entry = this.#segments.get(segmentId);
    if (entry === undefined || entry.holders.size === 0) return [];
    const oldest = this.#clock.now() - AGE_MS;
    for (const [name, { at }] of entry.holders) if (at < oldest) entry.holders.delete(name);
    return [...entry.holders.values()];
  }

  quorum(segmentId: string): { readonly answers: number; readonly full: number } {
    return this.#segments.get(segmentId) ?? { answers: 0, full: 0 };
  }
}
