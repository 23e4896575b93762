/** Probe: who has these segments? (MS-PCCRD 2.2.2.1) */
import { fromHex, toHex } from '../../bytes/index.ts';
import { ACTIONS, type DiscoveryVersion, MATCH_BY, MAX_V2_SEGMENTS, TO_ALL, TYPES } from './constants.ts';
import { type Envelope, malformed, writeEnvelope } from './soap.ts';

export interface Probe {
  /** `urn:uuid:…`; answers relate to it. */
  readonly messageId: string;
  /** Which form; iPXE uses the first for segments of either. */
  readonly version: DiscoveryVersion;
  /** Segment IDs, lower-case hexadecimal; in version 2 all of one length. */
  readonly segmentIds: readonly string[];
}

/** Bytes of segment IDs: SHA-256 and truncated SHA-512, SHA-384, SHA-512. */
const ID_BYTES: ReadonlySet<number> = new Set([32, 48, 64]);
const V2_HEAD_BYTES = 3;

/** Encodes a probe. Version 1 writes upper case: the comparison is case-sensitive and Windows' IDs are so. */
export function encodeProbe({ messageId, version, segmentIds }: Probe): Uint8Array {
  const scopes = version === 1 ? segmentIds.join(' ').toUpperCase() : encodeScope(segmentIds);
  return writeEnvelope(
    `<wsa:To>${TO_ALL}</wsa:To><wsa:Action>${ACTIONS.probe}</wsa:Action><wsa:MessageID>${messageId}</wsa:MessageID>`,
    `<wsd:Probe><wsd:Types>PeerDist:${TYPES[version]}</wsd:Types>` +
      `<wsd:Scopes MatchBy="${MATCH_BY[version]}">${scopes}</wsd:Scopes></wsd:Probe>`,
  );
}

/**
 * Reads a probe. Undefined for a probe of another service: printers ask on the same port.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`
 */
export function readProbe({ messageId, content }: Envelope): Probe | undefined {
  if (!content.is('wsd', 'Probe')) throw malformed('not a probe');
  const [types] = content.all('wsd', 'Types');
  const version = types?.names('PeerDist', TYPES[1]) ? 1 : types?.names('PeerDist', TYPES[2]) ? 2 : undefined;
  if (version === undefined) return undefined;
  const scopes = content.only('wsd', 'Scopes');
  const matchBy = scopes.attribute('MatchBy');
  if (matchBy !== MATCH_BY[version]) throw malformed('another matching rule');
  const segmentIds = version === 1 ? scopes.words.map(readHexId) : readScope(scopes.words);
  if (segmentIds.length === 0) throw malformed('a probe for nothing');
  return { messageId, version, segmentIds };
}

function readHexId(word: string): string {
  if (!ID_BYTES.has(word.length / 2) || !/^[0-9A-Fa-f]+$/.test(word)) throw malformed('not a segment ID');
  return word.toLowerCase();
}

/** One scope of version 2: size of the IDs, their number, the IDs, as base64 (2.2.3.3). */
function encodeScope(segmentIds: readonly string[]): string {
  const ids = segmentIds.slice(0, MAX_V2_SEGMENTS).map(fromHex);
  const head = Buffer.alloc(V2_HEAD_BYTES);
  head.writeUInt16BE(ids[0]?.byteLength ?? 0, 0);
  head.writeUInt8(ids.length, 2);
  return Buffer.concat([head, ...ids]).toString('base64');
}

function readScope(words: readonly string[]): string[] {
  const bytes = readBase64(words);
  if (bytes.byteLength < V2_HEAD_BYTES) throw malformed('the scope ends too early');
  const size = bytes.readUInt16BE(0);
  const count = bytes.readUInt8(2);
  if (!ID_BYTES.has(size) || bytes.byteLength !== V2_HEAD_BYTES + size * count)
    throw malformed('the scope has another length than it says');
  return Array.from({ length: count }, (_, index) =>
    toHex(bytes.subarray(V2_HEAD_BYTES + index * size, V2_HEAD_BYTES + (index + 1) * size)),
  );
}

/** Base64 in one word; XML leaves white space around it. */
export function readBase64(words: readonly string[]): Buffer {
  const [word = ''] = words;
  if (words.length > 1 || !/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(word))
    throw malformed('not base64');
  return Buffer.from(word, 'base64');
}
