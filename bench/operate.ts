/** What it costs to be watched: metrics, dashboard and access log on warm ranges; and how long a start takes. */
import { get } from 'node:http';
import { median, MiB, paired, ROUNDS, seededBytes } from './measure.ts';
import {
  curl,
  dateBack,
  hasTool,
  rangeScript,
  type Running,
  scratchFile,
  startCommand,
  startLogged,
  startNginx,
  startServer,
  wrkInBackground,
} from './processes.ts';
import { type Line, perSecond } from './report.ts';

const SECONDS = 3;
const SCRAPE_MS = 1_000;
const FILE = 'operate.bin';
const FILE_BYTES = 256 * MiB;

export async function benchOperate(): Promise<Line[]> {
  const lines = [await timeOfStart()];
  if (!hasTool('wrk')) return [...lines, { what: 'warm ranges: wrk is not installed', value: 'skipped' }];
  scratchFile(FILE, seededBytes(FILE_BYTES));
  dateBack(scratchFile(FILE));
  const nginx = await startNginx();
  const reverse = await startCommand('reverse', '--origin', nginx.url, '--secret-hex', '00ff');
  const options = ['branch', '--origin', reverse.url, '--max-cache', '2GiB', '--store', 'memory'];
  const script = scratchFile('operate.lua', rangeScript(`/${FILE}`, FILE_BYTES));
  // Whoever watches does so meanwhile.
  const run = (role: Running): Promise<number> => wrkInBackground(role.url, script, SECONDS);
  const bare = await startServer('block-cache', reverse.url);
  const quiet = await startLogged(scratchFile('quiet.log'), ...options, '--no-access-log', '--no-admin');
  const watched = await startLogged(scratchFile('watched.log'), ...options, '--no-access-log', '--admin', ADMIN);
  const logged = await startLogged(scratchFile('logged.log'), ...options, '--no-admin');
  for (const role of [bare, quiet, watched, logged]) {
    for (let download = 0; download < 2; download += 1) curl(`${role.url}/${FILE}`);
  }
  const endWatching = watch();
  const metrics = await paired(
    () => run(watched),
    () => run(bare),
  );
  endWatching();
  lines.push({
    what: 'warm random 64 KiB ranges with metrics, a dashboard that is watched and a scrape a second, against none of it',
    value: perSecond(metrics.value),
    yardstick: perSecond(metrics.yardstick),
    ratio: metrics.ratio,
    goal: 0.95,
  });
  const log = await paired(
    () => run(logged),
    () => run(quiet),
  );
  lines.push({
    what: 'the same with the access log, against none',
    value: perSecond(log.value),
    yardstick: perSecond(log.yardstick),
    ratio: log.ratio,
    goal: 0.8,
  });
  for (const role of [bare, quiet, watched, logged, reverse, nginx]) await role.stop();
  return lines;
}

/** Where the one that is watched has its admin listener. */
const ADMIN = '127.0.0.1:19181';

/** Watches the dashboard's events and scrapes the metrics. @returns ends that */
function watch(): () => void {
  const read = (path: string): ReturnType<typeof get> =>
    get(`http://${ADMIN}${path}`, (response) => response.resume()).on('error', () => {});
  const events = read('/events');
  const scraping = setInterval(() => read('/metrics'), SCRAPE_MS);
  return () => {
    clearInterval(scraping);
    events.destroy();
  };
}

async function timeOfStart(): Promise<Line> {
  const seconds: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const log = scratchFile(`start-${round}.log`);
    const started = performance.now();
    const role = await startLogged(log, 'branch', '--no-admin', '--state-dir', scratchFile(`start-${round}`));
    seconds.push((performance.now() - started) / 1000);
    await role.stop();
  }
  const value = median(seconds);
  return {
    what: 'from the start to the first request, disk store, seconds',
    value: `${value.toFixed(2)} s`,
    ratio: value,
    goal: 1,
    atMost: true,
  };
}
