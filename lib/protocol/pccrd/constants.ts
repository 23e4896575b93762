/** Numbers and names of MS-PCCRD and of WS-Discovery (April 2005) beneath it. */

/** UDP port of WS-Discovery. */
export const DISCOVERY_PORT = 3702;
export const DISCOVERY_GROUP_IPV4 = '239.255.255.250';
export const DISCOVERY_GROUP_IPV6 = 'ff02::c';

/** Longest wait of a server before it answers, milliseconds (APP_MAX_DELAY, 3.2.2); the wait is random, so that answers do not collide. */
export const MAX_BACK_OFF_MS = 65;
/** How long answers to a probe are waited for, milliseconds: Windows' value in the span of 3.1.2 (200 to 500). */
export const REQUEST_TIMER_MS = 300;
/** Segments one version 2 scope can name: the count is a byte (2.2.3.3). */
export const MAX_V2_SEGMENTS = 255;

export const NAMESPACES = {
  soap: 'http://www.w3.org/2003/05/soap-envelope',
  wsa: 'http://schemas.xmlsoap.org/ws/2004/08/addressing',
  wsd: 'http://schemas.xmlsoap.org/ws/2005/04/discovery',
  PeerDist: 'http://schemas.microsoft.com/p2p/2007/09/PeerDistributionDiscovery',
} as const;

export const ACTIONS = {
  probe: `${NAMESPACES.wsd}/Probe`,
  probeMatches: `${NAMESPACES.wsd}/ProbeMatches`,
} as const;

export const TO_ALL = 'urn:schemas-xmlsoap-org:ws:2005:04:discovery';
export const TO_ANONYMOUS = `${NAMESPACES.wsa}/role/anonymous`;

/** Local names of the types, by version of the content information that the segments come from. */
export const TYPES = { 1: 'PeerDistData', 2: 'PeerDistDataV2' } as const;

export const MATCH_BY = {
  1: `${NAMESPACES.wsd}/strcmp0`,
  2: 'http://schemas.microsoft.com/p2p/2010/05/PeerDistV2MatchingRule',
} as const;

export type DiscoveryVersion = 1 | 2;
