/** Values as people write them on a command line. Each parser throws an error whose message is a whole, clear line. */
import { isIP } from 'node:net';
import { PeerDistError } from '../../../lib/errors.ts';
import { RETRIEVAL_PORT } from '../../../lib/protocol/pccrr/index.ts';

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}

const FACTORS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  m: 1e6,
  mb: 1e6,
  g: 1e9,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** `64KiB`, `1.5GB`, `4096`: bytes. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const factor = FACTORS[match?.[2]?.toLowerCase() ?? '?'];
  if (match === null || factor === undefined) throw invalid(`not a size like 64KiB or 2GB: ${text}`);
  return Math.floor(Number(match[1]) * factor);
}

/** `30s`, `500ms`, `5m`, `2h`, `30d`, `10` (seconds), `0` (no limit): milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim());
  if (match === null) throw invalid(`not a duration like 30s or 500ms: ${text}`);
  const factors = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  return Math.round(Number(match[1]) * factors[(match[2] ?? 's') as keyof typeof factors]);
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `HOST:PORT`, `[::1]:PORT`, `:PORT` and `PORT` (both loopback). */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:(\[[^\]]+\]|[^:]*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) throw invalid(`not an address like 127.0.0.1:8080: ${text}`);
  return { host: (match[1] ?? '').replace(/^\[|\]$/g, '') || '127.0.0.1', port };
}

/** Where a branch proxy listens for peers unless told otherwise: 80 takes root. */
export const PEER_PORT = 8008;

/** `HOST`, `HOST:PORT`, `[::1]:PORT`: where a peer listens; port 80 unless given, as with Windows. */
export function parsePeer(text: string, defaultPort: number = RETRIEVAL_PORT): ListenAddress {
  const match = /^(?:\[([^\]]+)\]|([^:\s[\]]+))(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[3] ?? defaultPort);
  if (match === null || port < 1 || port > 65_535) throw invalid(`not a peer like 10.0.0.7 or 10.0.0.7:8008: ${text}`);
  return { host: (match[1] ?? match[2]) as string, port };
}

export function formatListen({ host, port }: ListenAddress): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** `FIRST-LAST`, inclusive as in HTTP. */
export function parseByteRange(text: string): { readonly offset: number; readonly length: number } {
  const match = /^(\d{1,15})-(\d{1,15})$/.exec(text);
  const first = Number(match?.[1]);
  const last = Number(match?.[2]);
  if (match === null || last < first) throw invalid(`not a range like 0-65535: ${text}`);
  return { offset: first, length: last - first + 1 };
}

/** A whole number between two others. */
export function parseNumber(name: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max)
      throw invalid(`${name} is a whole number from ${min} to ${max}: ${text}`);
    return value;
  };
}

/** Bytes for people. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
