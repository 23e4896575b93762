/** Branch proxy: warm ranges and objects against a minimal Node server and Squid; cold against two plain hops; time to first byte. */
import { median, MiB, paired, ROUNDS, seededBytes } from './measure.ts';
import {
  curl,
  dateBack,
  hasTool,
  rangeScript,
  type Running,
  scratchFile,
  startCommand,
  startNginx,
  startServer,
  startSquid,
  timeToFirstByte,
  wrk,
} from './processes.ts';
import { gigabytes, type Line, perSecond } from './report.ts';

const SECONDS = 3;

const wholeScript = (path: string): string => `request = function() return wrk.format("GET", "${path}") end`;

/** A branch behind which everything asked for is fresh: the file is old, so the heuristic holds for days. */
async function pair(
  nginx: Running,
): Promise<{ reverse: Running; branch: Running; readonly stop: () => Promise<void> }> {
  const reverse = await startCommand('reverse', '--origin', nginx.url, '--secret-hex', '00ff');
  const branch = await startCommand(
    'branch',
    '--origin',
    reverse.url,
    '--max-cache',
    '2GiB',
    '--pending-size',
    '1200MiB',
  );
  return {
    reverse,
    branch,
    stop: async () => {
      await branch.stop();
      await reverse.stop();
    },
  };
}

export async function benchWarm(): Promise<Line[]> {
  if (!hasTool('wrk')) return [{ what: 'warm ranges: wrk is not installed', value: 'skipped' }];
  const large = scratchFile('warm.bin', seededBytes(256 * MiB));
  const small = scratchFile('1m.bin', seededBytes(MiB));
  for (const name of ['warm.bin', '1m.bin']) dateBack(scratchFile(name));
  const nginx = await startNginx();
  const { branch, stop } = await pair(nginx);
  const bufferLarge = await startServer('buffer', large);
  const bufferSmall = await startServer('buffer', small);
  for (const name of ['warm.bin', 'warm.bin', '1m.bin', '1m.bin']) curl(`${branch.url}/${name}`);
  const ranges = scratchFile('ranges.lua', rangeScript('/warm.bin', 256 * MiB));
  const whole = scratchFile('whole.lua', wholeScript('/1m.bin'));
  const lines: Line[] = [];
  const againstBuffer = await paired(
    () => wrk(branch.url, ranges, SECONDS),
    () => wrk(bufferLarge.url, ranges, SECONDS),
  );
  lines.push({
    what: 'warm random 64 KiB ranges, 64 connections, against a Node Buffer server',
    value: perSecond(againstBuffer.value),
    yardstick: perSecond(againstBuffer.yardstick),
    ratio: againstBuffer.ratio,
    goal: 0.5,
  });
  if (hasTool('squid')) {
    const squid = await startSquid();
    const throughSquid = scratchFile('squid.lua', rangeScript(`${nginx.url}/warm.bin`, 256 * MiB));
    curl(`${nginx.url}/warm.bin`, '-x', squid.url);
    const againstSquid = await paired(
      () => wrk(branch.url, ranges, SECONDS),
      () => wrk(squid.url, throughSquid, SECONDS),
    );
    lines.push({
      what: 'the same, against Squid',
      value: perSecond(againstSquid.value),
      yardstick: perSecond(againstSquid.yardstick),
      ratio: againstSquid.ratio,
      goal: 3,
    });
    await squid.stop();
  }
  const objects = await paired(
    () => wrk(branch.url, whole, SECONDS),
    () => wrk(bufferSmall.url, whole, SECONDS),
  );
  lines.push({
    what: 'warm whole 1 MB objects, against a Node Buffer server',
    value: perSecond(objects.value),
    yardstick: perSecond(objects.yardstick),
    ratio: objects.ratio,
    goal: 0.6,
  });
  await bufferLarge.stop();
  await bufferSmall.stop();
  await stop();
  await nginx.stop();
  return lines;
}

export async function benchCold(): Promise<Line[]> {
  scratchFile('cold.bin', seededBytes(256 * MiB));
  for (const name of ['cold.bin']) dateBack(scratchFile(name));
  const nginx = await startNginx();
  // Ours forget by starting anew; so do the yardstick's processes, whose code would else be compiled while ours is not yet.
  const hops = async (): Promise<number> => {
    const near = await startServer('library', nginx.url);
    const far = await startServer('library', near.url);
    const speed = curl(`${far.url}/cold.bin`);
    await far.stop();
    await near.stop();
    return speed;
  };
  const cold = async (known: boolean): Promise<number> => {
    const { reverse, branch, stop } = await pair(nginx);
    // A head office that already has the hashes: the branch gets content information and fills every block from missing data.
    if (known) curl(`${reverse.url}/cold.bin`, '-H', 'Accept-Encoding: peerdist', '-H', 'X-P2P-PeerDist: Version=1.0');
    const speed = curl(`${branch.url}/cold.bin`);
    await stop();
    return speed;
  };
  const lines: Line[] = [];
  for (const known of [false, true]) {
    const { value, yardstick, ratio } = await paired(() => cold(known), hops);
    const what = `cold 256 MB through branch and reverse, ${known ? 'hashes known at head office' : 'never seen'}, against two http-proxy hops`;
    lines.push({ what, value: gigabytes(value), yardstick: gigabytes(yardstick), ratio, goal: 0.3 });
  }
  await nginx.stop();
  return lines;
}

export async function benchFirstByte(): Promise<Line[]> {
  scratchFile('64m.bin', seededBytes(64 * MiB));
  scratchFile('1g.bin', seededBytes(1024 * MiB));
  for (const name of ['64m.bin', '1g.bin']) dateBack(scratchFile(name));
  const nginx = await startNginx();
  const { branch, stop } = await pair(nginx);
  for (const name of ['64m.bin', '64m.bin', '1g.bin', '1g.bin']) curl(`${branch.url}/${name}`);
  const first = (name: string): number =>
    median(Array.from({ length: 40 }, () => timeToFirstByte(`${branch.url}/${name}`, '-r', '0-65535')));
  const large: number[] = [];
  const small: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    small.push(first('64m.bin'));
    large.push(first('1g.bin'));
  }
  const ratio = median(large.map((value, index) => value / (small[index] as number)));
  await stop();
  await nginx.stop();
  return [
    {
      what: 'time to first byte, warm 1 GB against warm 64 MB',
      value: `${(median(large) * 1000).toFixed(2)} ms`,
      yardstick: `${(median(small) * 1000).toFixed(2)} ms`,
      ratio,
      goal: 1.25,
      atMost: true,
    },
  ];
}
