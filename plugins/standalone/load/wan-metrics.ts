/** What a proxy of ours says of its own traffic: two series out of its metrics, before and after. */
import { PeerDistError } from '../../../lib/errors.ts';

/** Bytes by label. Empty where a server has no such series. */
export interface Traffic {
  readonly wan: Readonly<Record<string, number>>;
  readonly delivered: Readonly<Record<string, number>>;
}

const SERIES = { wan: 'peerdist_wan_bytes_total', delivered: 'peerdist_delivered_bytes_total' } as const;
const LINE = /^(\w+)\{(?:kind|source)="(\w{1,40})"\} (\d+(?:\.\d+)?(?:e\+\d+)?)$/;
const MAX_METRICS_BYTES = 8 * 1024 * 1024;
const TIMEOUT_MS = 10_000;

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when they cannot be read */
export async function readTraffic(url: string): Promise<Traffic> {
  try {
    return parseTraffic(await download(url));
  } catch (error) {
    const { message, cause } = error as Error;
    const reason = (cause as NodeJS.ErrnoException | undefined)?.code ?? message;
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `no metrics from ${url}: ${reason}`, { cause: error });
  }
}

/** Reads the Prometheus text format as far as these two series need it. */
export function parseTraffic(text: string): Traffic {
  const traffic: Record<keyof Traffic, Record<string, number>> = { wan: {}, delivered: {} };
  for (const line of text.split('\n')) {
    const [, name, label = '', value] = LINE.exec(line) ?? [];
    for (const kind of ['wan', 'delivered'] as const) if (name === SERIES[kind]) traffic[kind][label] = Number(value);
  }
  return traffic;
}

export function trafficBetween(before: Traffic, after: Traffic): Traffic {
  const difference = (kind: keyof Traffic): Record<string, number> =>
    Object.fromEntries(
      Object.entries(after[kind]).map(([label, bytes]) => [label, bytes - (before[kind][label] ?? 0)]),
    );
  return { wan: difference('wan'), delivered: difference('delivered') };
}

/** Of all labels; undefined where there is no such series. */
export function sumOf(bytes: Readonly<Record<string, number>>): number | undefined {
  const values = Object.values(bytes);
  return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
}

async function download(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += (chunk as Uint8Array).byteLength;
    if (bytes > MAX_METRICS_BYTES) throw new Error(`more than ${MAX_METRICS_BYTES} bytes`);
    chunks.push(chunk as Uint8Array);
  }
  return Buffer.concat(chunks).toString();
}
