/**
 * The one error type of the package and the table of its codes.
 *
 * The first block of codes mirrors the Peer Distribution API (Win32 numbers where Microsoft publishes one);
 * the second block belongs to this package alone: limits, origins, options, plug-ins.
 */

/** Every error code with its Win32 number (0 = no counterpart) and what it tells the caller. README repeats this table; a test compares them. */
export const ERROR_CODES = {
  ERR_PEERDIST_INVALID_PARAMETER: { win32: 87, meaning: 'an argument is unacceptable' },
  ERR_PEERDIST_INVALID_HANDLE: { win32: 6, meaning: 'the instance or handle is no longer open' },
  ERR_PEERDIST_ALREADY_EXISTS: { win32: 4058, meaning: 'this identity already published that identifier' },
  ERR_PEERDIST_NOT_FOUND: { win32: 1168, meaning: 'no completed publication of that identifier' },
  ERR_PEERDIST_OPERATION_ABORTED: { win32: 995, meaning: 'cancelled by a signal, a close or an unpublish' },
  ERR_PEERDIST_MISSING_DATA: { win32: 4052, meaning: 'no source has these bytes' },
  ERR_PEERDIST_TIMEOUT: { win32: 1460, meaning: 'time ran out' },
  ERR_PEERDIST_NO_MORE: { win32: 4053, meaning: 'position outside the content or the described range' },
  ERR_PEERDIST_OUT_OF_BOUNDS: { win32: 4061, meaning: 'offset past the end of the content' },
  ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED: {
    win32: 4050,
    meaning: 'content information in a format that is not spoken',
  },
  ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO: { win32: 4051, meaning: 'content information is malformed' },
  ERR_PEERDIST_NOT_INITIALIZED: { win32: 4054, meaning: 'read before the content information was complete' },
  ERR_PEERDIST_ALREADY_COMPLETED: { win32: 4060, meaning: 'data added after completion' },
  ERR_PEERDIST_LENGTH_MISMATCH: { win32: 0, meaning: 'declared and supplied length differ' },

  ERR_PEERDIST_LIMIT: { win32: 0, meaning: 'a named limit was exceeded' },
  ERR_PEERDIST_HASH_MISMATCH: { win32: 0, meaning: 'bytes do not match their hash' },
  ERR_PEERDIST_BAD_REQUEST: { win32: 0, meaning: 'the request cannot be forwarded safely' },
  ERR_PEERDIST_DESTINATION_FORBIDDEN: { win32: 0, meaning: 'the destination rule refuses this address or port' },
  ERR_PEERDIST_CLIENT_FORBIDDEN: { win32: 0, meaning: 'the client is not on the allow-list' },
  ERR_PEERDIST_LOOP: { win32: 0, meaning: 'the request has passed this proxy before' },
  ERR_PEERDIST_ORIGIN_UNREACHABLE: { win32: 0, meaning: 'no connection to the origin' },
  ERR_PEERDIST_ORIGIN_TIMEOUT: { win32: 0, meaning: 'the origin did not answer in time' },
  ERR_PEERDIST_ORIGIN_PROTOCOL: { win32: 0, meaning: 'the origin broke HTTP or contradicted itself' },
  ERR_PEERDIST_ORIGIN_CHANGED: { win32: 0, meaning: 'the content changed at the origin while it was read' },
  ERR_PEERDIST_INVALID_OPTION: { win32: 0, meaning: 'an option is unknown or its value is unacceptable' },
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
}

/** Raised by stream-shaped readers when a hole is met and nobody could fill it. */
export class PeerDistMissingDataError extends PeerDistError {
  /** Bytes to get from another source. */
  readonly missing: { readonly offset: number; readonly length: number };

  constructor(missing: { readonly offset: number; readonly length: number }, details: PeerDistErrorDetails = {}) {
    super('ERR_PEERDIST_MISSING_DATA', `no source has bytes ${missing.offset}+${missing.length}`, details);
    this.missing = missing;
  }
}

/** Raised when an operation was cancelled. `name` is `AbortError`, so generic abort handling works. */
export class PeerDistAbortError extends PeerDistError {
  override readonly name = 'AbortError';
  readonly trigger: 'signal' | 'close' | 'unpublish' | 'shutdown';

  constructor(trigger: PeerDistAbortError['trigger'], cause?: unknown) {
    super('ERR_PEERDIST_OPERATION_ABORTED', `cancelled (${trigger})`, { cause });
    this.trigger = trigger;
  }
}

/** True for a {@link PeerDistError}, and of that code when one is given. */
export function isPeerDistError(value: unknown, code?: PeerDistErrorCode): value is PeerDistError {
  return value instanceof PeerDistError && (code === undefined || value.code === code);
}
