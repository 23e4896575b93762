/**
 * The two header fields of MS-PCCRTP 2.2, `X-P2P-PeerDist` and `X-P2P-PeerDistEx`: comma-separated `name=value` parameters,
 * names case-insensitive, white space allowed around the commas, a leading comma legal.
 */

export const PEERDIST_HEADER = 'x-p2p-peerdist';
export const PEERDIST_EX_HEADER = 'x-p2p-peerdistex';
/** Request fields an answer that could be peerdist-coded varies by. */
export const PEERDIST_VARY = ['Accept-Encoding', 'X-P2P-PeerDist', 'X-P2P-PeerDistEx'] as const;

/** Two numbers, compared major first: 1.23 is newer than 1.3. */
export interface PeerDistVersion {
  readonly major: number;
  readonly minor: number;
}

export interface PeerDistParameters {
  /** Undefined when absent or malformed. */
  readonly version?: PeerDistVersion;
  /** Bytes of the identity body; answers only. */
  readonly contentLength?: number;
  /** True for any value but `false`, as Windows reads it. */
  readonly missingDataRequest: boolean;
}

export interface PeerDistExParameters {
  readonly minContentInformation?: PeerDistVersion;
  readonly maxContentInformation?: PeerDistVersion;
  /** Request: "you told me to ask for the hashes". */
  readonly hashRequest: boolean;
  /** Answer: "I have no hashes yet, ask again". */
  readonly makeHashRequest: boolean;
}

/** Parses `X-P2P-PeerDist`; undefined when the field is absent. Never throws. */
export function parsePeerDist(value: string | undefined): PeerDistParameters | undefined {
  if (value === undefined) return undefined;
  const parameters = parseParameters(value);
  const version = parseVersion(parameters.get('version'));
  const contentLength = parameters.get('contentlength');
  return {
    ...(version === undefined ? {} : { version }),
    ...(contentLength !== undefined && /^\d{1,15}$/.test(contentLength)
      ? { contentLength: Number(contentLength) }
      : {}),
    missingDataRequest: (parameters.get('missingdatarequest') ?? 'false').toLowerCase() !== 'false',
  };
}

/** Parses `X-P2P-PeerDistEx`; undefined when the field is absent. Never throws. */
export function parsePeerDistEx(value: string | undefined): PeerDistExParameters | undefined {
  if (value === undefined) return undefined;
  const parameters = parseParameters(value);
  const min = parseVersion(parameters.get('mincontentinformation'));
  const max = parseVersion(parameters.get('maxcontentinformation'));
  return {
    ...(min === undefined ? {} : { minContentInformation: min }),
    ...(max === undefined ? {} : { maxContentInformation: max }),
    hashRequest: parameters.get('hashrequest')?.toLowerCase() === 'true',
    makeHashRequest: parameters.get('makehashrequest')?.toLowerCase() === 'true',
  };
}

/** Formats `X-P2P-PeerDist` with Version first, as Microsoft's readers expect. */
export function formatPeerDist(parameters: {
  readonly version: PeerDistVersion;
  readonly contentLength?: number;
  readonly missingDataRequest?: boolean;
}): string {
  const parts = [`Version=${parameters.version.major}.${parameters.version.minor}`];
  if (parameters.contentLength !== undefined) parts.push(`ContentLength=${parameters.contentLength}`);
  if (parameters.missingDataRequest === true) parts.push('MissingDataRequest=true');
  return parts.join(', ');
}

/** `X-P2P-PeerDistEx` of a client that reads content information up to version `max`. */
export function formatPeerDistEx(max: 1 | 2, options: { readonly hashRequest?: boolean } = {}): string {
  return `MinContentInformation=1.0, MaxContentInformation=${max}.0${options.hashRequest === true ? ', HashRequest=true' : ''}`;
}

/** Negative, zero or positive as `a` is older, equal or newer. */
export function compareVersions(a: PeerDistVersion, b: PeerDistVersion): number {
  return a.major - b.major || a.minor - b.minor;
}

function parseParameters(value: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of value.split(',')) {
    const equals = part.indexOf('=');
    if (equals < 0) continue;
    const name = part.slice(0, equals).trim().toLowerCase();
    // The first wins: a second one is either a repeat or an attempt to be read differently by two hops.
    if (!parameters.has(name)) parameters.set(name, part.slice(equals + 1).trim());
  }
  return parameters;
}

function parseVersion(value: string | undefined): PeerDistVersion | undefined {
  const match = /^(\d{1,9})\.(\d{1,9})$/.exec(value ?? '');
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}
