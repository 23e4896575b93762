/** `peerdist hosted`, what fills it, and `peerdist export`. */
import cluster from 'node:cluster';
import { createReadStream, renameSync, rmSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { SingleBar } from 'cli-progress';
import { type Command, Option } from 'commander';
import type { HashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../lib/errors.ts';
import type { ContentInformationVersion } from '../../lib/protocol/pccrc/index.ts';
import { basicAuthentication, keptCertificate, type Progress, writePackage } from '../hosted-cache/index.ts';
import { type Filling, fillRunning } from './hosted-fill.ts';
import { type HostedOptions, type HostedService, startHosted } from './hosted-role.ts';
import { leadHosted } from './lead.ts';
import { collect, valued } from './option-parts.ts';
import { runRole } from './run-role.ts';
import { keptToken, readToken } from './state-directory.ts';
import { addStoreOptions, type StoreValues } from './store-options.ts';
import type { Terminal } from './terminal.ts';
import { readCertificates, readText, readTls, type TlsValues } from './tls-options.ts';
import { formatBytes, type ListenAddress, parseListen, parseNumber, parseSize } from './units.ts';

interface HostedValues extends TlsValues, StoreValues {
  readonly listen: ListenAddress;
  readonly offerListen: ListenAddress | false;
  readonly admin: ListenAddress | false;
  readonly clientQuota?: number;
  readonly tlsName?: string[];
  readonly legacyTls?: true;
  readonly offerUsers?: string;
  readonly clientCa?: string;
  readonly allowClient?: string[];
  readonly allowLocalOffers?: true;
  readonly maxUploads: number;
  readonly proxy?: ListenAddress;
  readonly hashProvider: HashProvider['name'];
  readonly contentInfo: ContentInformationVersion;
  readonly preload?: string[];
  readonly import?: string[];
}

interface FillValues {
  readonly admin: ListenAddress | false;
  readonly stateDir: string;
  readonly contentInfo: ContentInformationVersion;
}

export function addHostedCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const hosted = program.command('hosted');
  addStoreOptions(hosted, 'hosted')
    .description('branch office: a cache that Windows PCs, iPXE and branch proxies offer to and ask')
    .addOption(valued('--listen <host:port>', 'where clients offer (version 2) and ask', parseListen, '[::]:80'))
    .addOption(valued('--offer-listen <host:port>', 'where Windows 7 offers, by HTTPS', parseListen, '[::]:443'))
    .option('--no-offer-listen', 'take no offers by HTTPS')
    .addOption(adminOption())
    .option('--no-admin', 'no admin listener')
    .option('--client-quota <size>', 'what one client may bring in an hour (default half of the cache)', parseSize)
    .option('--tls-cert <file>', 'certificate for --offer-listen, PEM (default one that is made on the first start)')
    .option('--tls-key <file>', 'its key, PEM')
    .option(
      '--tls-name <name>',
      'name that clients know this machine by, for the certificate that is made (repeatable)',
      collect,
    )
    .option('--legacy-tls', 'TLS 1.0 and 1.1 too: Windows 7 without the updates that bring TLS 1.2')
    .option('--offer-users <file>', 'lines name:password; offers by HTTPS then need HTTP Basic authentication')
    .option('--client-ca <file>', 'authorities, PEM; offers by HTTPS then need a client certificate of theirs')
    .option(
      '--allow-client <network>',
      'who may connect (repeatable; default loopback, private networks, own subnets)',
      collect,
    )
    .option('--allow-local-offers', 'fetch also what this machine itself offers')
    .addOption(
      valued('--max-uploads <number>', 'blocks given at a time', parseNumber('--max-uploads', 1, 16_384), '1024'),
    )
    .option('--proxy <host:port>', 'be a branch proxy there too, on the same blocks', parseListen)
    .addOption(new Option('--hash-provider <name>', 'hash functions').choices(['native', 'noble']).default('native'))
    .addOption(versionOption())
    .option('--preload <url>', 'download it and its hashes before the first client asks (repeatable)', collect)
    .option('--import <file>', 'put a package of `peerdist export` in (repeatable)', collect)
    .action(async (values: HostedValues) => {
      const options = await hostedOptions(values, terminal);
      await runRole(terminal, exit, {
        role: 'hosted',
        values,
        start: (common, _secrets, member) => startHosted({ ...options, ...common }, member),
        lead: (plan) => leadHosted(plan, options),
        // Clients are served meanwhile; what cannot be had is said and left.
        also: (service) => fillAtStart(service, values, terminal),
      });
    });
  addFillCommand(hosted, 'preload', '<url...>', 'download content and its hashes into a running hosted cache');
  addFillCommand(hosted, 'import', '<file...>', 'put packages of `peerdist export` into a running hosted cache');

  function addFillCommand(parent: Command, name: 'preload' | 'import', argument: string, description: string): void {
    parent
      .command(name)
      .description(description)
      .argument(argument)
      .action(async (items: string[], _values: object, command: Command) => {
        const { admin, stateDir, contentInfo } = command.optsWithGlobals<FillValues>();
        if (admin === false)
          throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${name} goes through the admin listener`);
        const token = readToken(stateDir);
        for (const item of items) {
          const filling: Filling = name === 'import' ? { file: item } : { url: item, version: contentInfo };
          const ok = await report(terminal, item, (options) => fillRunning(admin, token, filling, options));
          if (!ok) exit(1);
        }
      });
  }
}

export function addExportCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  program
    .command('export')
    .description('download a content and its hashes into a package for hosted caches')
    .argument('<url>')
    .requiredOption('-o, --output <file>', 'where to write it')
    .addOption(versionOption())
    .action(
      async (url: string, { output, contentInfo }: { output: string; contentInfo: ContentInformationVersion }) => {
        assertUrl(url);
        const part = `${output}.part`;
        try {
          const ok = await report(terminal, url, async (options) => {
            await writePackage(url, part, { ...options, version: contentInfo });
            renameSync(part, output);
            return statSync(output).size;
          });
          if (!ok) exit(1);
        } finally {
          rmSync(part, { force: true });
        }
      },
    );
}

/** Emptied at the start: a process that was killed has left the content of what it was preloading there. */
function temporaryDirectory(stateDirectory: string): string {
  const directory = join(stateDirectory, 'tmp');
  try {
    if (!cluster.isWorker) rmSync(directory, { recursive: true, force: true });
  } catch {
    // Whoever cannot use the directory hears of it otherwise.
  }
  return directory;
}

async function hostedOptions(values: HostedValues, { warn }: Terminal): Promise<HostedOptions> {
  for (const url of values.preload ?? []) assertUrl(url);
  const token = values.admin === false ? undefined : keptToken(values.stateDir);
  if (values.admin !== false && token === undefined)
    warn(`${values.stateDir} cannot be written: a running cache cannot be told to preload or import`);
  return {
    listen: values.listen,
    admin: values.admin === false ? undefined : values.admin,
    clientBytesPerHour: values.clientQuota,
    offers: values.offerListen === false ? undefined : await offerOptions(values, values.offerListen, warn),
    allowClients: values.allowClient,
    allowLocalOffers: values.allowLocalOffers,
    maxUploads: values.maxUploads,
    proxy: values.proxy,
    temporaryDirectory: temporaryDirectory(values.stateDir),
    hashProvider: values.hashProvider,
    token,
  };
}

async function offerOptions(
  values: HostedValues,
  listen: ListenAddress,
  warn: (line: string) => void,
): Promise<HostedOptions['offers']> {
  let identity = readTls(values);
  if (identity === undefined) {
    const kept = await keptCertificate(values.stateDir, values.tlsName);
    identity = kept.identity;
    if (kept.file === undefined)
      warn(`${values.stateDir} cannot be written: the certificate for Windows 7 clients is good for this run only`);
    else if (kept.isNew)
      warn(
        `made a certificate for ${values.tlsName?.join(', ') ?? hostname()}: Windows 7 clients have to trust ${kept.file}`,
      );
  }
  const { offerUsers, clientCa } = values;
  return {
    listen,
    identity,
    legacyTls: values.legacyTls,
    clientCa: clientCa === undefined ? undefined : readCertificates('--client-ca', clientCa),
    authenticate: offerUsers === undefined ? undefined : basicAuthentication(readUsers(offerUsers)),
  };
}

function readUsers(file: string): Map<string, string> {
  const users = new Map<string, string>();
  for (const line of readText('--offer-users', file).split(/\r?\n/)) {
    const colon = line.indexOf(':');
    if (colon > 0) users.set(line.slice(0, colon), line.slice(colon + 1));
    else if (line.trim() !== '')
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `--offer-users: not name:password in ${file}`);
  }
  if (users.size === 0) throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `--offer-users: nobody in ${file}`);
  return users;
}

async function fillAtStart({ cache }: HostedService, values: HostedValues, terminal: Terminal): Promise<void> {
  for (const url of values.preload ?? [])
    await report(terminal, url, (options) => cache.preload(url, { ...options, version: values.contentInfo }));
  for (const file of values.import ?? [])
    await report(terminal, file, (options) =>
      cache.import(createReadStream(file) as AsyncIterable<Uint8Array>, options),
    );
}

/** Does one thing with a progress bar, on a terminal, until the process is asked to end, and says how it ended. @returns whether it went well; never rejects for what can fail */
async function report(
  terminal: Terminal,
  what: string,
  act: (options: { readonly onProgress: Progress; readonly signal: AbortSignal }) => Promise<number>,
): Promise<boolean> {
  const stopped = new AbortController();
  void terminal.stopRequested.then(() => stopped.abort(new Error('stopped')));
  const bar = new SingleBar({
    format: '{step} {bar} {percentage}%  {amount}  {eta_formatted} left',
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    etaBuffer: 100,
  });
  let step: string | undefined;
  try {
    const onProgress: Progress = (now, done, total = done) => {
      if (now !== step) bar.start(total, done, { step: now.padEnd(8), amount: formatBytes(done) });
      else bar.update(done, { amount: formatBytes(done) });
      step = now;
    };
    const bytes = await act({ onProgress, signal: stopped.signal });
    bar.stop();
    terminal.print(`${what}: ${formatBytes(bytes)}`);
    return true;
  } catch (error) {
    bar.stop();
    if (isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) throw error;
    terminal.warn(`peerdist: ${what}: ${(error as Error).message}`);
    return false;
  }
}

function adminOption(): Option {
  return valued('--admin <host:port>', '/metrics, /healthz and /readyz', parseListen, '127.0.0.1:9182');
}

function versionOption(): Option {
  return new Option('--content-info <version>', 'content information to preload: 1 for Windows 7, 2 for all later')
    .default(2, '2')
    .argParser(parseNumber('--content-info', 1, 2));
}

function assertUrl(url: string): void {
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url))
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not an http or https URL: ${url}`);
}
