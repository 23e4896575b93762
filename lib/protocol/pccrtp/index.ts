export {
  compareVersions,
  formatPeerDist,
  formatPeerDistEx,
  parsePeerDist,
  parsePeerDistEx,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
  PEERDIST_VARY,
  type PeerDistExParameters,
  type PeerDistParameters,
  type PeerDistVersion,
} from './headers.ts';
export { negotiate, type Negotiation } from './negotiate.ts';
