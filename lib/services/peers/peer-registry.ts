import type { Clock } from '../../clock.ts';
import { formatPeerAddress, type PeerAddress } from '../../protocol/pccrd/index.ts';
import { Peer } from './peer.ts';

/** Peers remembered; the one not mentioned for the longest time is forgotten. Policy, not protocol. */
const MAX_PEERS = 1024;

/** All peers anybody has named, by address and port. */
export class PeerRegistry {
  /** Those known by configuration. */
  readonly fixed: readonly Peer[];
  readonly #peers = new Map<string, Peer>();
  readonly #clock: Clock;

  constructor(fixed: readonly PeerAddress[], clock: Clock) {
    this.#clock = clock;
    this.fixed = fixed.map((address) => new Peer(address, clock));
  }

  of(address: PeerAddress): Peer {
    const name = formatPeerAddress(address);
    const known = this.fixed.find((peer) => formatPeerAddress(peer.address) === name) ?? this.#peers.get(name);
    const peer = known ?? new Peer(address, this.#clock);
    if (this.fixed.includes(peer)) return peer;
    // Last in line to be forgotten.
    this.#peers.delete(name);
    this.#peers.set(name, peer);
    if (this.#peers.size > MAX_PEERS) this.#forgetOne();
    return peer;
  }

  #forgetOne(): void {
    for (const [name, { inFlight }] of this.#peers) {
      if (inFlight > 0) continue;
      this.#peers.delete(name);
      return;
    }
  }
}
