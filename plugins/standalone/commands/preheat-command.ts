/** `peerdist preheat`: asks a running proxy for what will be wanted, before anybody wants it. */
import { type Command, Option } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { DURATION, type Kind, kindOf, LIMIT, list, numberFrom, setting, TEXT } from '../options/settings.ts';
import { readCertificates } from '../options/tls-options.ts';
import { formatBytes, formatListen, type ListenAddress, parseDuration, parseListen } from '../options/units.ts';
import { isReleaseUrl, readAptRelease } from '../preheat/apt-release.ts';
import { Collection, webUrl } from '../preheat/collection.ts';
import { preheat, PreheatResult } from '../preheat/preheat.ts';
import { ProxyClient } from '../preheat/proxy-client.ts';
import { type PreheatReport, reportOf, textReport } from '../preheat/report.ts';
import { readUrlFile } from '../preheat/url-file.ts';
import { ProgressBars } from '../progress.ts';
import type { Terminal } from '../terminal.ts';

interface PreheatValues {
  readonly proxy: ListenAddress;
  readonly proxyCa?: string;
  readonly urls?: string;
  readonly sitemap?: readonly string[];
  readonly anyHost?: true;
  readonly aptRelease?: readonly string[];
  readonly component?: readonly string[];
  readonly architecture?: readonly string[];
  readonly match?: RegExp;
  readonly acceptEncoding: string;
  readonly concurrency: number;
  readonly timeout: number;
  readonly maxSize: number;
  readonly hash: boolean;
  readonly json?: true;
}

/** Lines of progress where there is no terminal for bars. */
const LINES = 10;

export function addPreheatCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const url = kindOf('an http or https URL', parseUrl);
  program
    .command('preheat')
    .description('have a running proxy fetch what will be wanted, before anybody wants it')
    .argument('[url...]')
    .addOption(
      setting(
        '--proxy <host:port>',
        'the forward proxy to ask',
        kindOf('a proxy like 127.0.0.1:3128', parseProxy),
        '127.0.0.1:3128',
      ),
    )
    .addOption(setting('--proxy-ca <file>', 'authority of a proxy that reads https, PEM: for https URLs', TEXT))
    .addOption(setting('--urls <file>', 'lines URL [sha256]; - is standard input', TEXT))
    .addOption(list('--sitemap <url>', 'what a sitemap lists, or an index of sitemaps (repeatable)', url))
    .option('--any-host', 'also what sitemaps list of other hosts')
    .addOption(
      list(
        '--apt-release <url>',
        'the packages of a repository: its …/dists/SUITE/Release or InRelease (repeatable)',
        kindOf('the URL of a Release file', parseRelease),
      ),
    )
    .addOption(list('--component <name>', 'of repositories (repeatable; default main)', TEXT))
    .addOption(
      list('--architecture <name>', "of repositories (repeatable; default this machine's, and what is for all)", TEXT),
    )
    .addOption(setting('--match <regex>', 'only URLs that match', kindOf('a regular expression', parsePattern)))
    .addOption(setting('--accept-encoding <codings>', 'as those who will want it send', TEXT, 'identity'))
    .addOption(setting('--concurrency <number>', 'requests at a time', numberFrom('--concurrency', 1, 256), '4'))
    .addOption(setting('--timeout <time>', 'without a byte', { ...DURATION, parse: parseTimeout }, '2m'))
    .addOption(setting('--max-size <size>', 'largest body; larger ones are left out', LIMIT, 'none'))
    .addOption(new Option('--no-hash', 'do not ask for hashes where the proxy makes them'))
    .option('--json', 'print JSON')
    .action(async (urls: string[], values: PreheatValues) => {
      const report = await run(urls, values, terminal);
      terminal.print(values.json === true ? JSON.stringify(report, undefined, 2) : textReport(report));
      exit(report.failed === 0 && !report.endedEarly && report.urls > 0 ? 0 : 1);
    });
}

async function run(urls: readonly string[], values: PreheatValues, terminal: Terminal): Promise<PreheatReport> {
  const { proxy, proxyCa, timeout, concurrency, acceptEncoding, maxSize } = values;
  if (urls.length === 0 && ![values.urls, values.sitemap, values.aptRelease].some((given) => given !== undefined))
    throw invalid('preheat needs a URL, --urls, --sitemap or --apt-release');
  const collection = new Collection(values.match);
  for (const url of urls) collection.add({ url: parseUrl(url) });
  const stopped = new AbortController();
  void terminal.stopRequested.then(() => stopped.abort(new Error('stopped')));
  const { signal } = stopped;
  const startedAt = performance.now();
  const client = new ProxyClient({
    proxy,
    proxyCa: proxyCa === undefined ? undefined : readCertificates('--proxy-ca', proxyCa),
    timeoutMs: timeout,
    concurrency,
    acceptEncoding,
  });
  const result = new PreheatResult();
  const show = new Show(concurrency, result, terminal);
  try {
    await collect(collection, values, client, signal, show);
    const items = collection.items;
    show.begin(items.length);
    await preheat(
      items,
      {
        client,
        concurrency,
        maxBytes: maxSize,
        isHashing: values.hash,
        signal,
        onBytes: (at, url, bytes, total) => show.one(at, url, bytes, total),
        onDone: () => show.done(),
      },
      result,
    );
  } catch (error) {
    if (!signal.aborted) throw error;
    result.isEndedEarly = true;
  } finally {
    show.stop();
    client.close();
  }
  const milliseconds = performance.now() - startedAt;
  return reportOf(formatListen(proxy), collection, result, { isHashing: values.hash, milliseconds });
}

async function collect(
  collection: Collection,
  values: PreheatValues,
  client: ProxyClient,
  signal: AbortSignal,
  show: Show,
): Promise<void> {
  const reading = { client, signal, onDocument: (url: string) => show.reading(url) };
  if (values.urls !== undefined) for (const item of await readUrlFile(values.urls, process.stdin)) collection.add(item);
  const choice = { components: values.component ?? ['main'], architectures: values.architecture };
  for (const url of values.aptRelease ?? []) await readAptRelease(url, choice, collection, reading);
  if (values.sitemap === undefined) return;
  // Loaded when it is needed, with its parser.
  const { readSitemaps } = await import('../preheat/sitemap.ts');
  for (const url of values.sitemap) await readSitemaps(url, collection, reading, values.anyHost === true);
}

/** Bars on a terminal, and a few lines elsewhere. */
class Show {
  readonly #bars: ProgressBars;
  readonly #result: PreheatResult;
  readonly #say: (line: string) => void;
  #total = 0;
  #said = 0;

  constructor(concurrency: number, result: PreheatResult, { warn }: Terminal) {
    this.#bars = new ProgressBars(
      '{bar} {percentage}%  {value} of {total}  {amount}',
      '{bar} {amount}  {name}',
      concurrency,
    );
    this.#result = result;
    this.#say = process.stderr.isTTY ? () => {} : warn;
  }

  reading(url: string): void {
    this.#say(`reading ${url}`);
    this.#bars.showOne(0, 0, 1, { name: `reading ${url}`, amount: '' });
  }

  begin(total: number): void {
    this.#total = total;
    this.#bars.showOne(0, 0, 1, { name: '', amount: '' });
    this.#bars.show(0, total, { amount: '' });
  }

  one(at: number, url: string, bytes: number | undefined, total: number | undefined): void {
    if (bytes === undefined) return this.#bars.showOne(at, 0, 1, { name: '', amount: '' });
    return this.#bars.showOne(at, bytes, total ?? bytes, { name: url, amount: formatBytes(bytes).padStart(10) });
  }

  done(): void {
    const { done, bytes } = this.#result;
    this.#bars.show(done, this.#total, { amount: formatBytes(bytes) });
    const part = Math.floor((LINES * done) / this.#total);
    if (part > this.#said) this.#say(`${done} of ${this.#total} URLs, ${formatBytes(bytes)}`);
    this.#said = part;
  }

  stop(): void {
    this.#bars.stop();
  }
}

function parseProxy(text: string): ListenAddress {
  return parseListen(text.replace(/^http:\/\//i, '').replace(/\/$/, ''));
}

function parseUrl(text: string): string {
  const url = webUrl(text);
  if (url === undefined) throw invalid(`not an http or https URL without a password: ${text}`);
  return url;
}

function parseRelease(text: string): string {
  const url = parseUrl(text);
  if (isReleaseUrl(url)) return url;
  throw invalid(`not the URL of a Release file like http://host/debian/dists/stable/Release: ${text}`);
}

function parsePattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw invalid(`--match is a regular expression: ${text}`);
  }
}

const parseTimeout: Kind['parse'] = (text) => {
  const ms = parseDuration(text);
  if (ms === 0) throw invalid('--timeout is more than 0');
  return ms;
};

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
