export { PeerSource, type PeerSourceOptions } from './peer-source.ts';
export type { Holder, PeerFinder } from './peer-finder.ts';
