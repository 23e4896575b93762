/** One answer that a server or a proxy has logged. */
export interface LogRecord {
  /** Milliseconds since 1970. */
  readonly timeMs: number;
  /** Address or name, as logged. */
  readonly client: string;
  /** `-` where the request could not be read. */
  readonly method: string;
  readonly url: string;
  readonly status: number;
  /** Bytes sent to the client. */
  readonly bytes: number;
  /** The head of the answer is among the bytes, so that answers with the same body may differ by some. */
  readonly hasHead: boolean;
  /** The proxy that wrote the log had it in its own cache. */
  readonly isCacheHit: boolean;
}

/** What a line turns out to be: a record, nothing to replay (a comment), or nothing that is known. */
export type LineParser = (line: string) => LogRecord | 'comment' | undefined;

/** No answer has more bytes: 1 PiB. Policy. */
const MAX_ANSWER_BYTES = 2 ** 50;
/** Times that fit into 32 bits of seconds. */
const MAX_TIME_MS = (2 ** 32 - 1) * 1000;

/** Digits, or `-` for none; undefined for what is no number of bytes. */
export function parseBytes(text: string): number | undefined {
  if (text === '-') return 0;
  if (!/^\d{1,16}$/.test(text)) return undefined;
  const bytes = Number(text);
  return bytes <= MAX_ANSWER_BYTES ? bytes : undefined;
}

/** Undefined for times before 1970 and after 2106, and what is none. */
export function validTime(timeMs: number): number | undefined {
  return timeMs >= 0 && timeMs <= MAX_TIME_MS ? timeMs : undefined;
}

/** Three digits, or Squid's 000 for no answer. */
export function parseStatus(text: string): number | undefined {
  return /^\d{3}$/.test(text) ? Number(text) : undefined;
}
