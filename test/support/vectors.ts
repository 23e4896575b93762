/** The fixtures as typed values. `test/fixtures` says where they come from. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const FIXTURES = join(process.cwd(), 'test', 'fixtures');

/** An encoded structure: its bytes, or for large ones only their number and SHA-256. */
export interface EncodedVector {
  readonly length: number;
  readonly sha256: string;
  readonly hex?: string;
}

export interface KeysVector {
  readonly HoD: string;
  readonly Kp: string;
  readonly HoHoDk: string;
}

export interface SegmentVectorV1 extends KeysVector {
  readonly ullOffsetInContent: number;
  readonly cbSegment: number;
  readonly cBlocks: number;
  readonly blockHashes?: readonly string[];
  readonly blockHashFirst?: string;
  readonly blockHashLast?: string;
  readonly blockHashListSha256?: string;
}

export interface VectorV1 {
  readonly name: string;
  readonly contentLength: number;
  readonly contentSha256: string;
  readonly dwHashAlgo: number;
  readonly segments: readonly SegmentVectorV1[];
  readonly encoding_dwReadBytesInLastSegment0: EncodedVector;
  readonly encoding_dwReadBytesInLastSegmentExplicit: EncodedVector;
  readonly defectiveMicrosoftGeneratorOutput_onlyLastBlockHashPerSegment?: EncodedVector;
}

export interface RangeVectorV1 {
  readonly name: string;
  readonly contentLength: number;
  readonly rangeStart: number;
  readonly rangeLength: number;
  readonly firstSegment: number;
  readonly cSegments: number;
  readonly cBlocksFirstSegment: number;
  readonly cBlocksLastSegment: number;
  readonly dwOffsetInFirstSegment: number;
  readonly bytesOfRangeInLastSegment: number;
  readonly segments: readonly KeysVector[];
  readonly encoding_exampleStyle_explicitReadBytes: EncodedVector;
  readonly encoding_exampleStyle_readBytes0_becauseRangeEndsWithSegment?: EncodedVector;
  readonly encoding_literalReading_leadingBlocksOmitted?: EncodedVector;
}

export interface VectorV2 {
  readonly name: string;
  readonly contentLength: number;
  readonly contentSha256: string;
  readonly rangeStart?: number;
  readonly rangeLength?: number;
  readonly ullStartInContent: number;
  readonly ullIndexOfFirstSegment: number;
  readonly dwOffsetInFirstSegment: number;
  readonly ullLengthOfRange: number;
  readonly chunks: readonly {
    readonly dwChunkDataLength: number;
    /** How many there are; a long list is cut in the file. */
    readonly segmentCount: number;
    readonly segments: readonly (KeysVector & { readonly cbSegment: number })[];
  }[];
  readonly encoding?: EncodedVector;
  readonly encoding_ullLengthOfRange0?: EncodedVector;
  readonly encoding_ullLengthOfRangeExplicit?: EncodedVector;
}

/** A retrieval message. A response begins with its length. */
export interface RetrievalVector extends EncodedVector {
  readonly name: string;
  readonly direction: string;
  /** By Microsoft's names; what is left out is as usual. */
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

/** A discovery message. */
export interface DiscoveryVector {
  readonly name: string;
  readonly fields: Readonly<Record<string, string | number | readonly string[]>>;
  /** Without the byte order mark that Microsoft's serializer writes. */
  readonly xml: string;
}

export interface MicrosoftStack {
  readonly serverSecretKey: {
    readonly ascii: string;
    readonly bytes: string;
    readonly Ks_sha256: string;
    readonly Ks_sha384: string;
    readonly Ks_sha512: string;
    readonly Ks_v2_first32OfSha512: string;
  };
  readonly contentInformationV1: readonly VectorV1[];
  readonly contentInformationV1Ranges: readonly RangeVectorV1[];
  readonly contentInformationV2: readonly VectorV2[];
  /** Content whose only segment the messages are about. */
  readonly messageFixture: {
    readonly contentLength: number;
    readonly SegmentID_HoHoDk: string;
    readonly Kp: string;
  };
  readonly pccrr: readonly RetrievalVector[];
  readonly pccrd: readonly DiscoveryVector[];
}

export interface WindowsServer {
  readonly contentLength: number;
  readonly serverSecretKey: string;
  readonly contentInformationV1: string;
  readonly contentInformationV2: string;
  readonly segments: Readonly<Record<string, KeysVector>>;
  readonly blocks: Readonly<Record<string, string>>;
  /** First byte and first byte after, by segment or block. */
  readonly ranges: Readonly<Record<string, readonly [number, number]>>;
}

/** Text of a file in `test/fixtures`. */
export function fixtureText(name: string): string {
  return readFileSync(join(FIXTURES, name), 'utf8');
}

export function microsoftStack(): MicrosoftStack {
  return JSON.parse(fixtureText('microsoft-stack.json')) as MicrosoftStack;
}

export function windowsServer(): WindowsServer {
  return JSON.parse(fixtureText('windows-server.json')) as WindowsServer;
}

/** The content behind every vector of Microsoft's stack; a shorter one is the beginning of a longer one. */
export function vectorContent(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 1) bytes[i] = i * 31 + (i >> 8) * 17 + (i >> 16) * 7;
  return bytes;
}

/** The iPXE recording: what it sent, as text, by the title of the section. */
function ipxeRecording(): ReadonlyMap<string, string> {
  const sections = fixtureText('ipxe-client-wire.txt').split(/^### /m).slice(1);
  return new Map(
    sections.map((section) => {
      const end = section.indexOf('\n');
      return [section.slice(0, end).trim(), section.slice(end + 1)];
    }),
  );
}

/** Request heads in the iPXE recording, by the title of their section: fields with lower-case names. */
export function ipxeRequests(): ReadonlyMap<string, Readonly<Record<string, string>>> {
  const requests = new Map<string, Record<string, string>>();
  for (const [title, text] of ipxeRecording()) {
    const [requestLine = '', ...lines] = text.split(/\r?\n/);
    if (!/^(?:GET|POST) /.test(requestLine)) continue;
    const head = lines.slice(0, lines.indexOf(''));
    requests.set(
      title,
      Object.fromEntries(head.map((line) => [line.split(': ')[0]?.toLowerCase(), line.slice(line.indexOf(': ') + 2)])),
    );
  }
  return requests;
}

/** The retrieval request that iPXE posted, head and body, byte for byte. */
export function ipxePost(): { readonly head: string; readonly body: Uint8Array } {
  const text = ipxeRecording().get('PCCRR request (verbatim head + body hex)') as string;
  const [head = '', body = ''] = text.replaceAll('\r', '').split('\n\n');
  return { head: `${head.replaceAll('\n', '\r\n')}\r\n\r\n`, body: Buffer.from(body.trim(), 'hex') };
}

/** The range request that iPXE falls back to, byte for byte. */
export function ipxeRangeRequest(): string {
  const text = ipxeRecording().get('range fallback request (verbatim)') as string;
  return `${text.replaceAll('\r', '').trim().replaceAll('\n', '\r\n')}\r\n\r\n`;
}

/** Bodies of all retrieval requests in the iPXE recording, by the title of their section. */
export function ipxeRetrievals(): ReadonlyMap<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  for (const [title, text] of ipxeRecording()) {
    const body = text.trim().split(/\s+/).at(-1) as string;
    if (title.startsWith('PCCRR request')) found.set(title, Buffer.from(body, 'hex'));
  }
  return found;
}

/** The probe that iPXE multicast, byte for byte. */
export function ipxeProbe(): string {
  return (ipxeRecording().get('Probe (verbatim, 814 bytes)') as string).trim();
}
