/** Peak resident memory of reverse and branch while 1 GB and 3 GB pass: it must not grow with the body. */
import { MiB } from './measure.ts';
import { curl, peakMemory, startCommand, startServer } from './processes.ts';
import type { Line } from './report.ts';

const STORE_BYTES = 64 * MiB;

/** Memory beyond the configured stores, by role, after a body of that size passed twice. */
async function peak(gigabytes: number): Promise<{ reverse: number; branch: number }> {
  const origin = await startServer('body', String(gigabytes));
  const reverse = await startCommand(
    'reverse',
    '--origin',
    origin.url,
    '--secret-hex',
    '00ff',
    '--max-cache',
    String(STORE_BYTES),
  );
  const branch = await startCommand(
    'branch',
    '--origin',
    reverse.url,
    '--max-cache',
    String(STORE_BYTES),
    '--pending-size',
    String(STORE_BYTES),
  );
  // The second time there is content information, and every block is fetched, verified and stored.
  for (let round = 0; round < 2; round += 1) curl(`${branch.url}/body`);
  const result = { reverse: peakMemory(reverse) - STORE_BYTES, branch: peakMemory(branch) - 2 * STORE_BYTES };
  await branch.stop();
  await reverse.stop();
  await origin.stop();
  return result;
}

export async function benchMemory(): Promise<Line[]> {
  const one = await peak(1);
  const three = await peak(3);
  const megabytes = (bytes: number): string => `${Math.round(bytes / MiB)} MB`;
  return (['reverse', 'branch'] as const).flatMap((role) => [
    {
      what: `${role}: peak memory beyond its stores, 3 GB body, share of 192 MB`,
      value: megabytes(three[role]),
      ratio: three[role] / (192 * MiB),
      goal: 1,
      atMost: true,
    },
    {
      what: `${role}: 3 GB over 1 GB, share of 32 MB`,
      value: megabytes(three[role] - one[role]),
      ratio: (three[role] - one[role]) / (32 * MiB),
      goal: 1,
      atMost: true,
    },
  ]);
}
