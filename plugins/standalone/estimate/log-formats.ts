/** The formats of access logs, and which of them a file is in. */
import { type LineParser, type LogRecord, parseBytes, parseStatus, validTime } from './log-record.ts';
import { w3cParser } from './w3c-format.ts';

export const FORMAT_NAMES = ['combined', 'squid', 'iis'] as const;
export type FormatName = (typeof FORMAT_NAMES)[number];

/** A parser for one file, from its beginning: some formats say in the file what is where. */
export function createParser(format: FormatName): LineParser {
  if (format === 'iis') return w3cParser();
  return format === 'squid' ? parseSquid : parseCombined;
}

/** The format that understands most of these lines; undefined when none understands any. */
export function detectFormat(lines: readonly string[]): FormatName | undefined {
  // A file of IIS whose fields are not enough is still one of IIS.
  if (lines.some((line) => /^#(?:Software: Microsoft|Fields:)/.test(line))) return 'iis';
  let best: FormatName | undefined;
  let most = 0;
  for (const format of ['combined', 'squid'] as const) {
    const parse = createParser(format);
    const understood = lines.filter((line) => typeof parse(line) === 'object').length;
    if (understood <= most) continue;
    best = format;
    most = understood;
  }
  return best;
}

const MONTHS = 'JanFebMarAprMayJunJulAugSepOctNovDec';
/** `10/Oct/2000:13:55:36 -0700` */
const TIME_LENGTH = 26;

/**
 * Common and combined: `client ident user [time] "request" status bytes …`, as Apache and nginx write them. What follows the bytes is not looked at.
 * Bytes are those of the body.
 */
export function parseCombined(line: string): LogRecord | undefined {
  const clientEnd = line.indexOf(' ');
  if (clientEnd <= 0) return undefined;
  // A user may be called anything: the time is the first bracket that holds one.
  let open = line.indexOf(' [', clientEnd);
  let timeMs: number | undefined;
  for (; open >= 0; open = line.indexOf(' [', open + 1)) {
    timeMs = line.startsWith('] "', open + 2 + TIME_LENGTH) ? parseTime(line, open + 2) : undefined;
    if (timeMs !== undefined) break;
  }
  if (timeMs === undefined) return undefined;
  const start = open + 2 + TIME_LENGTH + 3;
  const end = closingQuote(line, start);
  if (end < 0) return undefined;
  const answer = /^ (\d{3}) (\d+|-)(?: |$)/.exec(line.slice(end + 1, end + 32));
  const bytes = parseBytes(answer?.[2] ?? '');
  if (answer === null || bytes === undefined) return undefined;
  const status = Number(answer[1]);
  return {
    timeMs,
    client: line.slice(0, clientEnd),
    ...requestOf(line.slice(start, end)),
    status,
    bytes,
    ...BODY_ONLY,
  };
}

const BODY_ONLY = { hasHead: false, isCacheHit: false } as const;

/** `GET /path HTTP/1.1`, with the escapes of Apache (`\"`) and nginx (`\x22`). Whoever sent something else gets a method of `-`. */
function requestOf(logged: string): { readonly method: string; readonly url: string } {
  const request = logged.includes('\\') ? unescaped(logged) : logged;
  const methodEnd = request.indexOf(' ');
  if (methodEnd <= 0) return { method: '-', url: '' };
  const versionStart = request.lastIndexOf(' HTTP/');
  const url = request.slice(methodEnd + 1, versionStart > methodEnd ? versionStart : undefined);
  return { method: request.slice(0, methodEnd), url };
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(?:x([0-9A-Fa-f]{2})|(["\\]))/g, (_, hex: string | undefined, plain: string | undefined) =>
    hex === undefined ? (plain as string) : String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** The quote that is not escaped, or -1. */
function closingQuote(line: string, start: number): number {
  for (let at = line.indexOf('"', start); at >= 0; at = line.indexOf('"', at + 1)) {
    let slashes = 0;
    while (line[at - 1 - slashes] === '\\' && at - 1 - slashes >= start) slashes += 1;
    if (slashes % 2 === 0) return at;
  }
  return -1;
}

function parseTime(line: string, at: number): number | undefined {
  const parts = /^(\d\d)\/([A-Z][a-z]{2})\/(\d{4}):([01]\d|2[0-3]):([0-5]\d):([0-6]\d) ([+-])(\d\d)([0-5]\d)$/.exec(
    line.slice(at, at + TIME_LENGTH),
  );
  if (parts === null) return undefined;
  const month = MONTHS.indexOf(parts[2] as string);
  const day = Number(parts[1]);
  if (month < 0 || month % 3 !== 0 || day < 1 || day > 31) return undefined;
  const utc = Date.UTC(Number(parts[3]), month / 3, day, Number(parts[4]), Number(parts[5]), Number(parts[6]));
  const offset = (Number(parts[8]) * 60 + Number(parts[9])) * 60_000;
  return validTime(parts[7] === '+' ? utc - offset : utc + offset);
}

/** `time elapsed client code/status bytes method URL user hierarchy/from type`. Bytes include the head. */
export function parseSquid(line: string): LogRecord | undefined {
  const fields = /^(\d{1,12})\.(\d{3}) +-?\d+ (\S+) ([A-Z_]+)\/(\S+) (\S+) (\S+) (\S+)(?: |$)/.exec(line);
  if (fields === null) return undefined;
  const [, seconds, milliseconds, client = '', code = '', statusText = '', bytesText = '', method = '', url = ''] =
    fields;
  const timeMs = validTime(Number(seconds) * 1000 + Number(milliseconds));
  const status = parseStatus(statusText);
  const bytes = parseBytes(bytesText);
  if (timeMs === undefined || status === undefined || bytes === undefined) return undefined;
  return { timeMs, client, method, url, status, bytes, hasHead: true, isCacheHit: code.includes('HIT') };
}
