/** ProbeMatches: the answer of a peer that has some of the segments (MS-PCCRD 2.2.2.2). */
import { isIP } from 'node:net';
import { decodeSegmentAges, encodeSegmentAges, type SegmentAge } from '../pccrr/index.ts';
import { ACTIONS, type DiscoveryVersion, TO_ANONYMOUS, TYPES } from './constants.ts';
import { readBase64 } from './probe.ts';
import { type Envelope, malformed, writeEnvelope, type XmlElement } from './soap.ts';

/** How much of a segment a peer has. */
export type Availability = 'none' | 'some' | 'all';

/** Where to ask for blocks. */
export interface PeerAddress {
  /** IP address, without brackets. */
  readonly address: string;
  readonly port: number;
}

/** Version 1: blocks held by segment ID, lower-case hexadecimal. Only what is held is listed. */
interface V1Holdings {
  readonly version: 1;
  readonly blockCounts: ReadonlyMap<string, number>;
}

/** Version 2: two bits for each segment of the probe, in its order. */
interface V2Holdings {
  readonly version: 2;
  readonly availability: readonly Availability[];
  readonly ages: readonly SegmentAge[];
}

export interface ProbeMatch {
  /** Where the peer says it listens; to be believed only as far as it is the datagram's source. */
  readonly addresses: readonly PeerAddress[];
  readonly holdings: V1Holdings | V2Holdings;
}

export interface ProbeMatches {
  readonly relatesTo: string;
  readonly matches: readonly ProbeMatch[];
}

/** What an answer of ours says about its sender (2.2.3.4 to 2.2.3.7). */
export interface Sender {
  readonly messageId: string;
  /** `urn:uuid:…` of this run. */
  readonly endpoint: string;
  /** Seconds since 1970 when the run began. */
  readonly instanceId: number;
  readonly messageNumber: number;
}

/** Matches read in one message; a peer sends one. Policy, not protocol. */
const MAX_MATCHES = 16;
/** Places for each match: IPv4 and IPv6 of a few interfaces. Policy, not protocol. */
const MAX_ADDRESSES = 16;

/** Encodes one match. iPXE finds `<wsd:Scopes>`, `<wsd:XAddrs>` and `<PeerDist:BlockCount>` as text: these very prefixes, no attributes. */
export function encodeProbeMatches(sender: Sender, relatesTo: string, { addresses, holdings }: ProbeMatch): Uint8Array {
  const { version } = holdings;
  const scopes =
    holdings.version === 1
      ? [...holdings.blockCounts.keys()].join(' ').toUpperCase()
      : encodeAvailability(holdings.availability);
  const data =
    holdings.version === 1
      ? `<PeerDist:BlockCount>${[...holdings.blockCounts.values()].map(hexCount).join('')}</PeerDist:BlockCount>`
      : `<PeerDist:SegmentAges>${Buffer.from(encodeSegmentAges(holdings.ages)).toString('base64')}</PeerDist:SegmentAges>`;
  return writeEnvelope(
    `<wsa:To>${TO_ANONYMOUS}</wsa:To><wsa:Action>${ACTIONS.probeMatches}</wsa:Action>` +
      `<wsa:MessageID>${sender.messageId}</wsa:MessageID><wsa:RelatesTo>${relatesTo}</wsa:RelatesTo>` +
      `<wsd:AppSequence InstanceId="${sender.instanceId}" MessageNumber="${sender.messageNumber}"/>`,
    '<wsd:ProbeMatches><wsd:ProbeMatch>' +
      `<wsa:EndpointReference><wsa:Address>${sender.endpoint}</wsa:Address></wsa:EndpointReference>` +
      `<wsd:Types>PeerDist:${TYPES[version]}</wsd:Types><wsd:Scopes>${scopes}</wsd:Scopes>` +
      `<wsd:XAddrs>${addresses.map(formatPeerAddress).join(' ')}</wsd:XAddrs>` +
      `<wsd:MetadataVersion>${version}</wsd:MetadataVersion><PeerDist:PeerDistData>${data}</PeerDist:PeerDistData>` +
      '</wsd:ProbeMatch></wsd:ProbeMatches>',
  );
}

/**
 * Reads the matches of a message; those of other services are left out.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`
 */
export function readProbeMatches({ relatesTo, content }: Envelope): ProbeMatches {
  if (!content.is('wsd', 'ProbeMatches') || relatesTo === undefined) throw malformed('not an answer to a probe');
  const matches = content.all('wsd', 'ProbeMatch');
  if (matches.length > MAX_MATCHES) throw malformed('too many matches');
  return { relatesTo, matches: matches.flatMap((match) => readMatch(match) ?? []) };
}

function readMatch(match: XmlElement): ProbeMatch | undefined {
  const [types] = match.all('wsd', 'Types');
  const version: DiscoveryVersion | undefined = types?.names('PeerDist', TYPES[1])
    ? 1
    : types?.names('PeerDist', TYPES[2])
      ? 2
      : undefined;
  if (version === undefined) return undefined;
  const scopes = match.only('wsd', 'Scopes').words;
  const data = match.only('PeerDist', 'PeerDistData');
  const places = match.only('wsd', 'XAddrs').words;
  if (places.length > MAX_ADDRESSES) throw malformed('too many addresses');
  const addresses = places.flatMap((place) => parsePeerAddress(place) ?? []);
  if (version === 2) {
    const [ages] = data.all('PeerDist', 'SegmentAges');
    return {
      addresses,
      holdings: {
        version,
        availability: readAvailability(readBase64(scopes)),
        ages: (ages && decodeSegmentAges(readBase64(ages.words))) ?? [],
      },
    };
  }
  const counts = data.only('PeerDist', 'BlockCount').text.trim();
  if (counts.length !== 8 * scopes.length || !/^[0-9A-Fa-f]*$/.test(counts))
    throw malformed('block counts that do not fit the segments');
  const blockCounts = new Map<string, number>();
  scopes.forEach((scope, index) =>
    blockCounts.set(scope.toLowerCase(), Number.parseInt(counts.slice(8 * index, 8 * index + 8), 16)),
  );
  return { addresses, holdings: { version, blockCounts } };
}

/** `address:port`, IPv6 in brackets: bare, without a scheme. */
export function formatPeerAddress({ address, port }: PeerAddress): string {
  return isIP(address) === 6 ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The inverse of {@link formatPeerAddress}; undefined for anything else. */
export function parsePeerAddress(text: string): PeerAddress | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.%\w]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const address = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  const family = match?.[1] === undefined ? 4 : 6;
  return isIP(address) === family && port > 0 && port <= 65_535 ? { address, port } : undefined;
}

/** 8 digits. Spec note: the text of 2.2.3.9 has an example with 4; its message, Windows and iPXE have 8. */
function hexCount(count: number): string {
  return count.toString(16).toUpperCase().padStart(8, '0');
}

/** The first segment in the two highest bits of the first byte; of each pair the high bit says "some", the low one "all". */
function encodeAvailability(availability: readonly Availability[]): string {
  const bits = Buffer.alloc(Math.ceil(availability.length / 4));
  availability.forEach((held, index) => {
    const pair = held === 'all' ? 0b11 : held === 'some' ? 0b10 : 0b00;
    const at = Math.floor(index / 4);
    bits[at] = (bits[at] as number) | (pair << (6 - 2 * (index % 4)));
  });
  return bits.toString('base64');
}

function readAvailability(bits: Buffer): Availability[] {
  return Array.from({ length: 4 * bits.byteLength }, (_, index) => {
    const pair = ((bits[Math.floor(index / 4)] as number) >>> (6 - 2 * (index % 4))) & 0b11;
    return pair === 0b11 ? 'all' : pair === 0b10 ? 'some' : 'none';
  });
}
