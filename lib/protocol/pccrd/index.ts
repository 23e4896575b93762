import { ACTIONS } from './constants.ts';
import { type Probe, readProbe } from './probe.ts';
import { type ProbeMatches, readProbeMatches } from './probe-match.ts';
import { readEnvelope } from './soap.ts';

export {
  DISCOVERY_GROUP_IPV4,
  DISCOVERY_GROUP_IPV6,
  DISCOVERY_PORT,
  type DiscoveryVersion,
  MAX_BACK_OFF_MS,
  MAX_V2_SEGMENTS,
  REQUEST_TIMER_MS,
} from './constants.ts';
export { encodeProbe, type Probe } from './probe.ts';
export {
  type Availability,
  encodeProbeMatches,
  formatPeerAddress,
  parsePeerAddress,
  type PeerAddress,
  type ProbeMatch,
  type ProbeMatches,
  type Sender,
} from './probe-match.ts';

/**
 * Reads a datagram of the discovery port. Undefined for a well-formed message of another service or of no interest.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`
 */
export function decodeDiscovery(
  datagram: Uint8Array,
): { readonly probe: Probe } | { readonly probeMatches: ProbeMatches } | undefined {
  const envelope = readEnvelope(datagram);
  switch (envelope.action) {
    case ACTIONS.probe: {
      const probe = readProbe(envelope);
      return probe && { probe };
    }
    case ACTIONS.probeMatches:
      return { probeMatches: readProbeMatches(envelope) };
    default:
      return undefined;
  }
}
