/** `ContentHasher` against one core of OpenSSL, fed 64 KiB chunks at an odd offset. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { hashProvider } from '../lib/crypto/index.ts';
import { findCut, ServerSecret, startCutScan } from '../lib/protocol/pccrc/index.ts';
import { ContentHasher } from '../lib/streams/index.ts';
import { GB, median, MiB, paired, rate, ROUNDS, seededBytes } from './measure.ts';
import { gigabytes, type Line } from './report.ts';

const CHUNK_BYTES = 64 * 1024;
const TOTAL_BYTES = 512 * MiB;
const secret = ServerSecret.fromText('bench');

/** What one core of OpenSSL does, bytes a second. */
function openssl(digest: 'sha256' | 'sha512'): number {
  const output = execFileSync(
    'openssl',
    ['speed', '-mr', '-evp', digest, '-bytes', String(CHUNK_BYTES), '-seconds', '1'],
    {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  const figure = /^\+F:\d+:[^:]+:([\d.]+)$/m.exec(output)?.[1];
  if (figure === undefined) throw new Error(`openssl speed said something else: ${output}`);
  return Number(figure);
}

/** Bytes a second through a hasher whose chunks begin at an odd offset of the content. */
async function hasherRate(
  versions: readonly (1 | 2)[],
  provider: 'native' | 'noble' = 'native',
  total = TOTAL_BYTES,
): Promise<number> {
  const data = seededBytes(CHUNK_BYTES * 64);
  const hasher = new ContentHasher({ provider: hashProvider(provider), secret, versions });
  hasher.resume();
  return rate(total, async () => {
    hasher.write(data.subarray(0, 30_001));
    for (let sent = 0; sent < total; sent += CHUNK_BYTES) {
      const at = (sent % (data.byteLength - CHUNK_BYTES)) + 1;
      if (!hasher.write(data.subarray(at, at + CHUNK_BYTES))) await once(hasher, 'drain');
    }
    hasher.end();
    await hasher.contentInformation;
  });
}

function scanRate(): number {
  const data = seededBytes(128 * MiB);
  const started = performance.now();
  let scanned = 0;
  for (let at = 0; at < data.byteLength;) {
    const length = findCut(data.subarray(at), startCutScan()) || data.byteLength - at;
    at += length;
    scanned += length;
  }
  return scanned / ((performance.now() - started) / 1000);
}

export async function benchHashing(): Promise<Line[]> {
  // Once for the compiler.
  await hasherRate([1, 2], 'native', 64 * MiB);
  const v1 = await paired(
    () => hasherRate([1]),
    () => openssl('sha256'),
  );
  const v2 = await paired(
    () => hasherRate([2]),
    () => openssl('sha512'),
  );
  const scan = median(Array.from({ length: ROUNDS }, scanRate));
  // Serial sum: every byte is hashed twice and cut once, one thing after the other.
  const both = await paired(
    () => hasherRate([1, 2]),
    () => 1 / (1 / openssl('sha256') + 1 / openssl('sha512') + 1 / scan),
  );
  const noble = await hasherRate([1, 2], 'noble', 32 * MiB);
  return [
    {
      what: 'v1 alone, against openssl sha256',
      value: gigabytes(v1.value),
      yardstick: gigabytes(v1.yardstick),
      ratio: v1.ratio,
      goal: 0.88,
    },
    {
      what: 'v2 alone with segmentation, against openssl sha512',
      value: gigabytes(v2.value),
      yardstick: gigabytes(v2.yardstick),
      ratio: v2.ratio,
      goal: 0.6,
    },
    {
      what: 'both, against the serial sum of the three costs',
      value: gigabytes(both.value),
      yardstick: gigabytes(both.yardstick),
      ratio: both.ratio,
      goal: 0.9,
    },
    { what: 'both with the noble provider (no goal)', value: gigabytes(noble) },
    { what: 'cut scan alone (no goal)', value: `${(scan / GB).toFixed(2)} GB/s` },
  ];
}
