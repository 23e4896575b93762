/**
 * The one error type of the package and the table of its codes.
 *
 * The first block of codes mirrors the Peer Distribution API (Win32 numbers where Microsoft publishes one);
 * the second block belongs to this package alone: limits, origins, options, plug-ins.
 */

/**
 * Every error code with its Win32 number and name (0 and none = no counterpart) and what it tells the caller. The first block is the table of
 * `lib/peerdist/README.md`. README repeats both; a test compares them.
 */
export const ERROR_CODES = {
  ERR_PEERDIST_INVALID_PARAMETER: {
    win32: 87,
    name: 'ERROR_INVALID_PARAMETER',
    meaning: 'an argument is unacceptable',
  },
  ERR_PEERDIST_INVALID_HANDLE: {
    win32: 6,
    name: 'ERROR_INVALID_HANDLE',
    meaning: 'the instance or handle is no longer open',
  },
  ERR_PEERDIST_DISABLED_BY_POLICY: {
    win32: 1260,
    name: 'ERROR_ACCESS_DISABLED_BY_POLICY',
    meaning: 'the service is switched off',
  },
  ERR_PEERDIST_SERVICE_UNAVAILABLE: {
    win32: 4065,
    name: 'PEERDIST_ERROR_SERVICE_UNAVAILABLE',
    meaning: 'the service cannot take requests now; try again later',
  },
  ERR_PEERDIST_VERSION_UNSUPPORTED: {
    win32: 4062,
    name: 'PEERDIST_ERROR_VERSION_UNSUPPORTED',
    meaning: 'a newer version of the API was asked for than there is',
  },
  ERR_PEERDIST_ALREADY_EXISTS: {
    win32: 4058,
    name: 'PEERDIST_ERROR_ALREADY_EXISTS',
    meaning: 'this identity already published that identifier',
  },
  ERR_PEERDIST_NOT_FOUND: {
    win32: 1168,
    name: 'PEERDIST_ERROR_NOT_FOUND',
    meaning: 'no completed publication of that identifier',
  },
  ERR_PEERDIST_OPERATION_NOT_FOUND: {
    win32: 4059,
    name: 'PEERDIST_ERROR_OPERATION_NOTFOUND',
    meaning: 'reserved: cancelling nothing counts nothing and is no error',
  },
  ERR_PEERDIST_OPERATION_ABORTED: {
    win32: 995,
    name: 'ERROR_OPERATION_ABORTED',
    meaning: 'cancelled by a signal, a cancel, a close or an unpublish',
  },
  ERR_PEERDIST_INVALIDATED: {
    win32: 4057,
    name: 'PEERDIST_ERROR_INVALIDATED',
    meaning: 'the service was lost after the handle was opened; close it',
  },
  ERR_PEERDIST_MISSING_DATA: { win32: 4052, name: 'PEERDIST_ERROR_MISSING_DATA', meaning: 'no source has these bytes' },
  ERR_PEERDIST_TIMEOUT: { win32: 1460, name: 'ERROR_TIMEOUT', meaning: 'time ran out' },
  ERR_PEERDIST_NO_MORE: {
    win32: 4053,
    name: 'PEERDIST_ERROR_NO_MORE',
    meaning: 'position outside the content or the described range',
  },
  ERR_PEERDIST_OUT_OF_BOUNDS: {
    win32: 4061,
    name: 'PEERDIST_ERROR_OUT_OF_BOUNDS',
    meaning: 'offset past the end of the content',
  },
  ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED: {
    win32: 4050,
    name: 'PEERDIST_ERROR_CONTENTINFO_VERSION_UNSUPPORTED',
    meaning: 'content information in a format that is not spoken',
  },
  ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO: {
    win32: 4051,
    name: 'PEERDIST_ERROR_CANNOT_PARSE_CONTENTINFO',
    meaning: 'content information is malformed',
  },
  ERR_PEERDIST_NOT_INITIALIZED: {
    win32: 4054,
    name: 'PEERDIST_ERROR_NOT_INITIALIZED',
    meaning: 'read before the content information was complete',
  },
  ERR_PEERDIST_ALREADY_INITIALIZED: { win32: 4055, name: 'PEERDIST_ERROR_ALREADY_INITIALIZED', meaning: 'reserved' },
  ERR_PEERDIST_SHUTDOWN_IN_PROGRESS: {
    win32: 4056,
    name: 'PEERDIST_ERROR_SHUTDOWN_IN_PROGRESS',
    meaning: 'the instance is being closed',
  },
  ERR_PEERDIST_ALREADY_COMPLETED: {
    win32: 4060,
    name: 'PEERDIST_ERROR_ALREADY_COMPLETED',
    meaning: 'data added after completion',
  },
  ERR_PEERDIST_INVALID_CONFIGURATION: {
    win32: 4063,
    name: 'PEERDIST_ERROR_INVALID_CONFIGURATION',
    meaning: 'reserved: a bad option has its own code',
  },
  ERR_PEERDIST_NOT_LICENSED: {
    win32: 4064,
    name: 'PEERDIST_ERROR_NOT_LICENSED',
    meaning: 'reserved: never raised here',
  },
  ERR_PEERDIST_TRUST_FAILURE: {
    win32: 4066,
    name: 'PEERDIST_ERROR_TRUST_FAILURE',
    meaning: 'reserved: peers that lied are left out for a while',
  },
  ERR_PEERDIST_LENGTH_MISMATCH: { win32: 0, meaning: 'declared and supplied length differ' },

  ERR_PEERDIST_LIMIT: { win32: 0, meaning: 'a named limit was exceeded' },
  ERR_PEERDIST_MALFORMED_MESSAGE: { win32: 0, meaning: 'a message of a peer breaks its protocol' },
  ERR_PEERDIST_PEER_FAILED: { win32: 0, meaning: 'a peer refused, lied or fell silent; the next source was asked' },
  ERR_PEERDIST_HASH_MISMATCH: { win32: 0, meaning: 'bytes do not match their hash' },
  ERR_PEERDIST_BAD_REQUEST: { win32: 0, meaning: 'the request cannot be forwarded safely' },
  ERR_PEERDIST_DESTINATION_FORBIDDEN: { win32: 0, meaning: 'the destination rule refuses this address or port' },
  ERR_PEERDIST_CLIENT_FORBIDDEN: { win32: 0, meaning: 'the client is not on the allow-list' },
  ERR_PEERDIST_LOOP: { win32: 0, meaning: 'the request has passed this proxy before' },
  ERR_PEERDIST_UPSTREAM_REFUSED: {
    win32: 0,
    meaning: 'the upstream proxy is not the one that is trusted, or refuses us',
  },
  ERR_PEERDIST_ORIGIN_UNREACHABLE: { win32: 0, meaning: 'no connection to the origin' },
  ERR_PEERDIST_ORIGIN_TIMEOUT: { win32: 0, meaning: 'the origin did not answer in time' },
  ERR_PEERDIST_ORIGIN_PROTOCOL: { win32: 0, meaning: 'the origin broke HTTP or contradicted itself' },
  ERR_PEERDIST_ORIGIN_CHANGED: { win32: 0, meaning: 'the content changed at the origin while it was read' },
  ERR_PEERDIST_INVALID_OPTION: { win32: 0, meaning: 'an option is unknown or its value is unacceptable' },
  ERR_PEERDIST_STORE_IN_USE: { win32: 0, meaning: 'another process has this store open' },
  ERR_PEERDIST_STORE_UNAVAILABLE: { win32: 0, meaning: 'a store cannot be opened, read or written' },
  ERR_PEERDIST_PLUGIN: { win32: 0, meaning: 'plug-ins do not fit together' },
} as const;

export type PeerDistErrorCode = keyof typeof ERROR_CODES;

export interface PeerDistErrorDetails {
  readonly cause?: unknown;
  /** Section of the specification that was broken, for example `MS-PCCRC 2.3`. */
  readonly spec?: string;
  readonly expected?: unknown;
  readonly actual?: unknown;
  /** Member that failed, for example `ContentHandle.addData`. */
  readonly operation?: string;
}

/** Every failure this package raises on purpose. */
export class PeerDistError extends Error {
  override readonly name: string = 'PeerDistError';
  readonly code: PeerDistErrorCode;
  // `declare`: what does not apply is absent, not undefined.
  declare readonly spec?: string;
  declare readonly expected?: unknown;
  declare readonly actual?: unknown;
  declare readonly operation?: string;

  constructor(code: PeerDistErrorCode, message: string, details: PeerDistErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (details.spec !== undefined) this.spec = details.spec;
    if (details.expected !== undefined) this.expected = details.expected;
    if (details.actual !== undefined) this.actual = details.actual;
    if (details.operation !== undefined) this.operation = details.operation;
  }

  /** Win32 number of the code, or undefined where Windows has none. */
  get win32Code(): number | undefined {
    return ERROR_CODES[this.code].win32 || undefined;
  }

  /** Win32 name of the code, or undefined where Windows has none. */
  get win32Name(): string | undefined {
    const entry = ERROR_CODES[this.code];
    return 'name' in entry ? entry.name : undefined;
  }
}

/** Raised by stream-shaped readers when a hole is met and nobody could fill it, or time ran out. */
export class PeerDistMissingDataError extends PeerDistError {
  /** Bytes to get from another source. */
  readonly missing: { readonly offset: number; readonly length: number };

  constructor(missing: { readonly offset: number; readonly length: number }, details: PeerDistErrorDetails = {}) {
    const timedOut = isPeerDistError(details.cause, 'ERR_PEERDIST_TIMEOUT');
    super(
      timedOut ? 'ERR_PEERDIST_TIMEOUT' : 'ERR_PEERDIST_MISSING_DATA',
      `no source has bytes ${missing.offset}+${missing.length}${timedOut ? ' in time' : ''}`,
      details,
    );
    this.missing = missing;
  }
}

export type AbortTrigger = 'signal' | 'cancel' | 'close' | 'unpublish' | 'shutdown' | 'unregister';

/** Raised when an operation was cancelled. `name` is `AbortError`, so generic abort handling works; `cause` is the signal's reason. */
export class PeerDistAbortError extends PeerDistError {
  override readonly name = 'AbortError';
  readonly trigger: AbortTrigger;

  constructor(trigger: AbortTrigger, cause?: unknown) {
    super('ERR_PEERDIST_OPERATION_ABORTED', `cancelled (${trigger})`, { cause });
    this.trigger = trigger;
  }
}

/** True for a {@link PeerDistError}, and of that code when one is given. */
export function isPeerDistError(value: unknown, code?: PeerDistErrorCode): value is PeerDistError {
  return value instanceof PeerDistError && (code === undefined || value.code === code);
}
