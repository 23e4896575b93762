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

/** Request heads in the iPXE recording, by the title of their section: fields with lower-case names. */
export function ipxeRequests(): ReadonlyMap<string, Readonly<Record<string, string>>> {
  const requests = new Map<string, Record<string, string>>();
  for (const section of fixtureText('ipxe-client-wire.txt').split(/^### /m)) {
    const [title = '', requestLine = '', ...lines] = section.split(/\r?\n/);
    if (!/^(?:GET|POST) /.test(requestLine)) continue;
    const head = lines.slice(0, lines.indexOf(''));
    requests.set(
      title,
      Object.fromEntries(head.map((line) => [line.split(': ')[0]?.toLowerCase(), line.slice(line.indexOf(': ') + 2)])),
    );
  }
  return requests;
}
