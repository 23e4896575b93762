/** `peerdist estimate`: what BranchCache would save, from access logs that people already have. */
import { statSync, writeFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { estimate, type Estimate, type EstimateOptions } from '../estimate/estimate.ts';
import { htmlEstimate } from '../estimate/html-sections.ts';
import { LogError, LogFile } from '../estimate/log-file.ts';
import { FORMAT_NAMES, type FormatName } from '../estimate/log-formats.ts';
import { mergeLogs } from '../estimate/merge.ts';
import type { ReplayRules } from '../estimate/replay.ts';
import { jsonOf, textOf } from '../estimate/report.ts';
import { parseSite, readSites, Sites } from '../estimate/sites.ts';
import { type Catalogue, parseCatalogue, syntheticRecords, syntheticSiteOf } from '../estimate/synthetic.ts';
import { htmlReport } from '../report/html-report.ts';
import { DURATION, list, numberFrom, setting, SIZE, TEXT } from '../options/settings.ts';
import { ProgressBar } from '../progress.ts';
import type { Terminal } from '../terminal.ts';

interface EstimateValues {
  readonly format: FormatName | 'auto';
  readonly sites?: string;
  readonly site?: readonly string[];
  readonly synthetic?: Catalogue;
  readonly cacheSize: number;
  readonly clientCache: number;
  readonly freshFor: number;
  readonly onFor: number;
  readonly minSize: number;
  readonly similarity: number;
  readonly maxObjects: number;
  readonly json?: true;
  readonly html?: string;
}

export function addEstimateCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  program
    .command('estimate')
    .description('what caches, peers and a hosted cache would have saved, from access logs')
    .argument('[log...]', 'access logs, *.gz too; - is standard input')
    .addOption(
      new Option('--format <name>', 'how lines are written; auto looks at the first ones of each log')
        .choices(['auto', ...FORMAT_NAMES])
        .default('auto'),
    )
    .option('--sites <file>', 'lines "name network,network": which clients are at which site')
    .addOption(list('--site <name=networks>', 'one site (repeatable)', TEXT))
    .option('--synthetic <key=value,...>', 'invent the requests: sites, clients, objects, …', parseCatalogue)
    .addOption(setting('--cache-size <size>', 'of a one-sided cache, and of a hosted cache', SIZE, '100GiB'))
    .addOption(setting('--client-cache <size>', 'what each client keeps for its neighbours', SIZE, '10GiB'))
    .addOption(setting('--fresh-for <time>', 'a one-sided cache answers so long without asking', DURATION, '1d'))
    .addOption(setting('--on-for <time>', 'a client counts as on so long after a request', DURATION, '8h'))
    .addOption(setting('--min-size <size>', 'smallest body that has content information', SIZE, '64KiB'))
    .addOption(
      setting(
        '--similarity <percent>',
        'of a new version, what the old one has too',
        numberFrom('--similarity', 0, 100),
        '0',
      ),
    )
    .addOption(
      setting(
        '--max-objects <number>',
        'contents watched, each at each site; of more a sample is; 80 bytes of memory each',
        numberFrom('--max-objects', 1000, 100_000_000),
        '1500000',
      ),
    )
    .option('--json', 'print JSON')
    .option('--html <file>', 'write a report with plots too')
    .action(async (logs: string[], values: EstimateValues) => {
      const stopped = new AbortController();
      void terminal.stopRequested.then(() => stopped.abort());
      const { signal } = stopped;
      const source =
        values.synthetic === undefined ? fromLogs(logs, values, signal) : fromCatalogue(logs, values.synthetic, values);
      try {
        const result = await withBar(source, (onRecords) =>
          estimate({ ...source, rules: rulesOf(values), signal, onRecords }),
        );
        for (const { badLines, name, badSentence } of source.files)
          if (badLines > 0) terminal.warn(`peerdist: ${name}: skipped: ${badSentence}`);
        if (result === undefined) throw new LogError('stopped before everything was read');
        if (result.total.requests === 0) throw new LogError('there is not one request in it');
        show(result, values, terminal);
      } catch (error) {
        if (!(error instanceof LogError)) throw error;
        terminal.warn(`peerdist: ${error.message}`);
        exit(1);
      }
    });
}

type Source = Pick<EstimateOptions, 'records' | 'siteOf' | 'nameOf'> & {
  readonly files: readonly LogFile[];
  /** For the progress bar: bytes of the logs, or records; 0 when nobody knows. */
  readonly steps: number;
  /** Called with the steps done since the last call. */
  onStep: (steps: number) => void;
};

function fromLogs(names: readonly string[], { format, sites, site = [] }: EstimateValues, signal: AbortSignal): Source {
  if (names.length === 0) throw invalid('estimate needs logs, or --synthetic');
  if (new Set(names).size < names.length) throw invalid('a log is given twice');
  const networks = [...(sites === undefined ? [] : readSites(sites)), ...site.flatMap(parseSite)];
  const known = new Sites(networks);
  const files = names.map(
    (name) =>
      new LogFile(name, {
        format: format === 'auto' ? undefined : format,
        onRead: (bytes) => source.onStep(bytes),
        signal,
      }),
  );
  const source: Source = {
    records: mergeLogs(files),
    siteOf: (client) => known.of(client),
    nameOf: (number) => known.names[number] ?? '',
    files,
    steps: names.reduce((sum, name) => sum + bytesOf(name), 0),
    onStep: () => {},
  };
  return source;
}

function fromCatalogue(names: readonly string[], catalogue: Catalogue, { sites, site }: EstimateValues): Source {
  if (names.length > 0) throw invalid('--synthetic takes no logs');
  if (sites !== undefined || site !== undefined) throw invalid('--synthetic has its own sites: sites=10');
  return {
    records: syntheticRecords(catalogue),
    siteOf: syntheticSiteOf,
    nameOf: (number) => `site-${number + 1}`,
    files: [],
    steps: catalogue.requests,
    onStep: () => {},
  };
}

function rulesOf(values: EstimateValues): ReplayRules {
  return {
    cacheBytes: values.cacheSize,
    clientCacheBytes: values.clientCache,
    freshForMs: values.freshFor,
    onForMs: values.onFor,
    minSizeBytes: values.minSize,
    similarity: values.similarity / 100,
    maxEntries: values.maxObjects,
  };
}

/** A bar over the bytes of the logs, or over the records where these are invented. */
async function withBar<T>(source: Source, work: (onRecords: (records: number) => void) => Promise<T>): Promise<T> {
  const bar = new ProgressBar('{bar} {percentage}%  {records} requests  {eta_formatted} left');
  let records = 0;
  let steps = 0;
  const step = (more: number): void => {
    steps += more;
    if (source.steps > 0) bar.show('estimate', steps, source.steps, { records });
  };
  const isByRecord = source.files.length === 0;
  if (!isByRecord) source.onStep = step;
  step(0);
  try {
    return await work((more) => {
      records += more;
      if (isByRecord) step(more);
    });
  } finally {
    bar.stop();
  }
}

function show(result: Estimate, { json, html }: EstimateValues, { print }: Terminal): void {
  if (html !== undefined) write(html, htmlReport(htmlEstimate(result)));
  print(json === true ? JSON.stringify(jsonOf(result), undefined, 2) : textOf(result));
}

/** 0 for what is no file; a bar then shows what it can. */
function bytesOf(name: string): number {
  if (name === '-') return 0;
  try {
    return statSync(name).size;
  } catch (error) {
    throw invalid(`cannot read ${name}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw invalid(`cannot write ${file}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
