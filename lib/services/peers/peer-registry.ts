import type { Clock } from '../../clock.ts';
import { formatPeerAddress, type PeerAddress } from '../../protocol/pccrd/index.ts';
import { Peer } from './peer.ts';

/** Peers remembered; the one not mentioned for the longest time is forgotten. Policy, not protocol. */
const MAX_PEERS = 1024;
/** Ports of one address that are believed to be peers of their own. Policy, not protocol. */
const MAX_PORTS = 4;

/** All peers anybody has named, by address and port. */
export class PeerRegistry {
  /** Those known by configuration, never forgotten. */
  readonly fixed: readonly Peer[];
  readonly #fixed: ReadonlyMap<string, Peer>;
  readonly #found = new Map<string, Peer>();
  readonly #clock: Clock;

  constructor(fixed: readonly PeerAddress[], clock: Clock) {
    this.#clock = clock;
    this.#fixed = new Map(fixed.map((address) => [formatPeerAddress(address), new Peer(address, clock)]));
    this.fixed = [...this.#fixed.values()];
  }

  /** Those known by configuration first, then those mentioned last. */
  get all(): readonly Peer[] {
    return [...this.fixed, ...[...this.#found.values()].toReversed()];
  }

  of(address: PeerAddress): Peer {
    const name = formatPeerAddress(address);
    const fixed = this.#fixed.get(name);
    if (fixed !== undefined) return fixed;
    const peer = this.#found.get(name) ?? this.#newcomer(address);
    if (formatPeerAddress(peer.address) !== name) return peer;
    // Last in line to be forgotten.
    this.#found.delete(name);
    this.#found.set(name, peer);
    if (this.#found.size > MAX_PEERS) this.#forgetOne();
    return peer;
  }

  /** A port nobody has named before. Where an address has named several and one of them is banned, it is no newcomer. */
  #newcomer(address: PeerAddress): Peer {
    const siblings = [...this.#found.values()].filter((peer) => peer.address.address === address.address);
    const banned = siblings.length < MAX_PORTS ? undefined : siblings.find((peer) => peer.isBanned);
    return banned ?? new Peer(address, this.#clock);
  }

  #forgetOne(): void {
    for (const [name, { inFlight }] of this.#found) {
      if (inFlight > 0) continue;
      this.#found.delete(name);
      return;
    }
  }
}
