/** `peerdist load`: drives a running proxy like a branch office, and says how it went. */
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { effectiveConfig } from '../config/effective.ts';
import { addProfileOptions, percentOf, type ProfileValues, profileOf } from '../load/load-options.ts';
import { planEndMs } from '../load/profile.ts';
import type { LoadResult } from '../load/run-load.ts';
import type { LoadTarget } from '../load/runner.ts';
import type { LoadStats } from '../load/stats.ts';
import { UrlList } from '../load/url-list.ts';
import { ADDRESS, DURATION, kindOf, list, numberFrom, setting, TEXT } from '../options/settings.ts';
import { configOption, printConfigOption } from '../options/role-options.ts';
import { ProgressBar } from '../progress.ts';
import type { Terminal } from '../terminal.ts';
import { formatBytes, type ListenAddress, parseDuration, parseListen } from '../options/units.ts';

interface LoadValues extends ProfileValues {
  readonly printConfig?: true;
  readonly proxy?: LoadTarget;
  readonly target?: LoadTarget;
  readonly originListen: ListenAddress;
  readonly urlBase?: URL;
  readonly urls?: string;
  readonly metrics?: string[];
  readonly maxInFlight: number;
  readonly timeout: number;
  readonly maxErrors: number;
  readonly json?: true;
  readonly html?: string;
}

export function addLoadCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const command = program
    .command('load')
    .description('drive a running proxy like a branch office: check every byte, measure, report')
    .addOption(setting('--proxy <host:port>', 'a forward proxy', kindOf('an address like 127.0.0.1:3128', parseProxy)))
    .addOption(
      setting(
        '--target <url>',
        'or a gateway that knows its origin, http://host:port',
        kindOf('a gateway like http://127.0.0.1:8080', parseGateway),
      ),
    );
  addProfileOptions(command)
    .addOption(setting('--origin-listen <host:port>', 'where the own origin listens', ADDRESS, '127.0.0.1:0'))
    .addOption(
      setting(
        '--url-base <url>',
        "where the proxy is to ask for it (default the own origin's address)",
        kindOf('an http URL', parseBase),
      ),
    )
    .addOption(setting('--urls <file>', 'ask for these in place of the own origin: lines URL [sha256]', TEXT))
    .addOption(
      list(
        '--metrics <url>',
        "metrics of a proxy of ours: tells the WAN's bytes (repeatable)",
        kindOf('an http URL', (text) => httpUrl(text).href),
      ),
    )
    .addOption(
      setting('--max-in-flight <number>', 'requests under way', numberFrom('--max-in-flight', 1, 10_000), '1000'),
    )
    .addOption(
      setting(
        '--timeout <time>',
        'without a byte',
        { ...DURATION, expected: 'a time like 30s', parse: parseTimeout },
        '30s',
      ),
    )
    .addOption(setting('--max-errors <percent>', 'failures that are no failure', percentOf('--max-errors'), '0'))
    .addOption(configOption())
    .addOption(printConfigOption())
    .option('--json', 'print JSON')
    .option('--html <file>', 'write a report with plots')
    .action(async (values: LoadValues) => {
      if (values.printConfig === true) return terminal.print(effectiveConfig(command));
      const result = await run(values, terminal);
      const { textReport, webReport } = await import('../load/report.ts');
      if (values.html !== undefined) write(values.html, webReport(result));
      terminal.print(values.json === true ? JSON.stringify(result, undefined, 2) : textReport(result));
      return exit(isGood(result, values.maxErrors) ? 0 : 1);
    });
}

async function run(values: LoadValues, terminal: Terminal): Promise<LoadResult> {
  if ((values.proxy === undefined) === (values.target === undefined))
    throw invalid('load needs either --proxy HOST:PORT or --target URL');
  if (values.urls !== undefined && values.urlBase !== undefined) throw invalid('--url-base does not go with --urls');
  const urls = values.urls === undefined ? undefined : UrlList.read(values.urls);
  const profile = profileOf(values, urls?.count);
  // Not after an hour of work.
  if (values.html !== undefined) write(values.html, '', 'a');
  const bar = new ProgressBar('{bar} {percentage}%  {sent} sent, {failed} failed, {bytes}  {eta_formatted} left');
  const payload = (stats?: LoadStats): object => ({
    sent: stats?.sent ?? 0,
    failed: stats?.failed ?? 0,
    bytes: formatBytes(stats?.clientBytes ?? 0),
  });
  const endMs = planEndMs(profile);
  // Loaded when it is needed: its histograms take long.
  const { runLoad } = await import('../load/run-load.ts');
  try {
    return await runLoad(
      {
        profile,
        target: (values.proxy ?? values.target) as LoadTarget,
        originListen: values.originListen,
        urlBase: values.urlBase,
        urls,
        metrics: values.metrics ?? [],
        maxInFlight: values.maxInFlight,
        timeoutMs: values.timeout,
      },
      {
        stopRequested: terminal.stopRequested,
        onStart: (originUrl) => {
          if (originUrl !== undefined && values.json !== true) terminal.print(`origin on ${originUrl}`);
          bar.show('load', 0, endMs, payload());
        },
        onProgress: (stats, elapsedMs) => bar.show('load', Math.min(endMs, elapsedMs), endMs, payload(stats)),
      },
    );
  } finally {
    bar.stop();
  }
}

/** One wrong byte is too many. */
function isGood({ requests, errors }: LoadResult, maxErrors: number): boolean {
  const total = requests.sent + errors.unsent;
  return errors.wrongBytes === 0 && requests.failed <= maxErrors * total;
}

function parseProxy(text: string): LoadTarget {
  const { host, port } = parseListen(text);
  return { kind: 'proxy', host, port };
}

function parseGateway(text: string): LoadTarget {
  const url = httpUrl(text);
  if (url.pathname !== '/' || url.search !== '') throw invalid(`--target is a scheme, a host and a port: ${text}`);
  return { kind: 'gateway', host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || 80) };
}

function parseBase(text: string): URL {
  const url = httpUrl(text);
  if (url.search !== '') throw invalid(`--url-base has no query: ${text}`);
  return url;
}

function parseTimeout(text: string): number {
  const ms = parseDuration(text);
  if (ms === 0) throw invalid('--timeout is more than 0');
  return ms;
}

function httpUrl(text: string): URL {
  if (!/^http:\/\//i.test(text) || !URL.canParse(text)) throw invalid(`not an http URL: ${text}`);
  return new URL(text);
}

function write(file: string, text: string, flag: 'w' | 'a' = 'w'): void {
  try {
    writeFileSync(file, text, { flag });
  } catch (error) {
    throw invalid(`cannot write ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
