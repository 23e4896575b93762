import type { DiscoveryVersion, PeerAddress } from '../../protocol/pccrd/index.ts';

/** A peer that says it has some of a segment. */
export interface Holder {
  readonly peer: PeerAddress;
  /** How many blocks of it, as far as it says. */
  readonly blocks: number | 'all';
}

/** Knows, or finds out, who has what. `Discovery` is one. */
export interface PeerFinder {
  /** Who is believed to have some of the segment, by segment ID in lower-case hexadecimal. */
  holders(segmentId: string): readonly Holder[];
  /** Asks about segments, those left out that were asked about lately. */
  seek(segmentIds: readonly string[], version: DiscoveryVersion): void;
  /** Settles with the next answer about the segment, or when it is not worth waiting for one any more; undefined when it is not now. */
  awaited(segmentId: string): Promise<void> | undefined;
}

/** The finder of those who know all their peers by configuration. */
export const nobody: PeerFinder = { holders: () => [], seek: () => {}, awaited: () => undefined };
