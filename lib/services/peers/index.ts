export { PeerSource, type PeerSourceOptions, type PeerStanding } from './peer-source.ts';
export type { PeerState } from './peer.ts';
export type { Holder, PeerFinder } from './peer-finder.ts';
