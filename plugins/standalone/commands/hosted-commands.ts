/** `peerdist hosted`, what fills it, and `peerdist export`. */
import cluster from 'node:cluster';
import { createReadStream, renameSync, rmSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import type { HashProvider } from '../../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import type { ContentInformationVersion } from '../../../lib/protocol/pccrc/index.ts';
import { basicAuthentication, keptCertificate, type Progress, writePackage } from '../../hosted-cache/index.ts';
import { type Filling, fillRunning } from '../roles/hosted-fill.ts';
import { type HostedOptions, type HostedService, startHosted } from '../roles/hosted-role.ts';
import { leadHosted } from '../roles/lead.ts';
import type { RoleDefinition } from './role-command.ts';
import { hashProviderOption, NETWORK } from './role-commands.ts';
import { addRunOptions, type RunValues } from '../options/role-options.ts';
import { runRole } from '../roles/run-role.ts';
import { ProgressBar } from '../progress.ts';
import { keptToken, readToken } from '../kept/state-directory.ts';
import { ADDRESS, checked, flag, list, numberFrom, type Setting, setting, SIZE, TEXT } from '../options/settings.ts';
import { addStoreOptions } from '../options/store-options.ts';
import type { Terminal } from '../terminal.ts';
import { readCertificates, readText, readTls, type TlsValues } from '../options/tls-options.ts';
import { formatBytes, type ListenAddress } from '../options/units.ts';

interface HostedValues extends TlsValues, RunValues {
  readonly listen: ListenAddress;
  readonly offerListen: ListenAddress | false;
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

export const hostedRole: RoleDefinition<HostedValues> = {
  define() {
    const hosted = new Command('hosted').description(
      'branch office: a cache that Windows PCs, iPXE and branch proxies offer to and ask',
    );
    return addRunOptions(addStoreOptions(hosted, 'hosted'), '127.0.0.1:9182')
      .addOption(setting('--listen <host:port>', 'where clients offer (version 2) and ask', ADDRESS, '[::]:80'))
      .addOption(setting('--offer-listen <host:port>', 'where Windows 7 offers, by HTTPS', ADDRESS, '[::]:443'))
      .addOption(flag('--no-offer-listen', 'take no offers by HTTPS'))
      .addOption(
        setting('--client-quota <size>', 'what one client may bring in an hour (default half of the cache)', SIZE),
      )
      .addOption(
        setting(
          '--tls-cert <file>',
          'certificate for --offer-listen, PEM (default one that is made on the first start)',
          TEXT,
        ),
      )
      .addOption(setting('--tls-key <file>', 'its key, PEM', TEXT))
      .addOption(
        list(
          '--tls-name <name>',
          'name that clients know this machine by, for the certificate that is made (repeatable)',
          TEXT,
        ),
      )
      .addOption(flag('--legacy-tls', 'TLS 1.0 and 1.1 too: Windows 7 without the updates that bring TLS 1.2'))
      .addOption(
        setting(
          '--offer-users <file>',
          'lines name:password; offers by HTTPS then need HTTP Basic authentication',
          TEXT,
        ),
      )
      .addOption(
        setting(
          '--client-ca <file>',
          'authorities, PEM; offers by HTTPS then need a client certificate of theirs',
          TEXT,
        ),
      )
      .addOption(
        list(
          '--allow-client <network>',
          'who may connect (repeatable; default loopback, private networks, own subnets)',
          NETWORK,
        ),
      )
      .addOption(flag('--allow-local-offers', 'fetch also what this machine itself offers'))
      .addOption(
        setting('--max-uploads <number>', 'blocks given at a time', numberFrom('--max-uploads', 1, 16_384), '1024'),
      )
      .addOption(setting('--proxy <host:port>', 'be a branch proxy there too, on the same blocks', ADDRESS))
      .addOption(hashProviderOption())
      .addOption(versionOption())
      .addOption(
        list('--preload <url>', 'download it and its hashes before the first client asks (repeatable)', WEB_URL),
      )
      .addOption(list('--import <file>', 'put a package of `peerdist export` in (repeatable)', TEXT));
  },
  check(values) {
    readTls(values);
    if (values.clientCa !== undefined) readCertificates('--client-ca', values.clientCa);
    if (values.offerUsers !== undefined) readUsers(values.offerUsers);
    if (values.offerListen !== false) return;
    for (const name of ['legacyTls', 'offerUsers', 'clientCa', 'tlsCert'] as const)
      if (values[name] !== undefined) {
        const option = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
        throw new PeerDistError(
          'ERR_PEERDIST_INVALID_OPTION',
          `--${option} is about offers by HTTPS, which --no-offer-listen switches off`,
        );
      }
  },
  adjustment: (values) => ({ allowClients: values.allowClient, tls: readTls(values) }),
  async run(values, { terminal, exit, reread }) {
    const options = await hostedOptions(values, terminal.warn);
    await runRole(terminal, exit, {
      role: 'hosted',
      values,
      start: (common, _secrets, member) => startHosted({ ...options, ...common }, member),
      lead: (plan) => leadHosted(plan, options),
      // Clients are served meanwhile; what cannot be had is said and left.
      also: (service, log) => fillAtStart(service, values, terminal, log),
      reread,
    });
  },
};

/** What fills a hosted cache that runs. */
export function addFillCommands(hosted: Command, terminal: Terminal, exit: (code: number) => void): void {
  const add = (name: 'preload' | 'import', argument: string, description: string): void => {
    hosted
      .command(name)
      .description(description)
      .argument(argument)
      .action(async (items: string[], _values: object, command: Command) => {
        const { admin, stateDir, contentInfo } = command.optsWithGlobals<FillValues>();
        if (admin === false)
          throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${name} goes through the admin listener`);
        const token = readToken(stateDir);
        const say = { info: terminal.print, warn: (line: string) => terminal.warn(`peerdist: ${line}`) };
        for (const item of items) {
          const filling: Filling = name === 'import' ? { file: item } : { url: item, version: contentInfo };
          const ok = await report(terminal, say, item, (options) => fillRunning(admin, token, filling, options));
          if (!ok) exit(1);
        }
      });
  };
  add('preload', '<url...>', 'download content and its hashes into a running hosted cache');
  add('import', '<file...>', 'put packages of `peerdist export` into a running hosted cache');
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
          const say = { info: terminal.print, warn: (line: string) => terminal.warn(`peerdist: ${line}`) };
          const ok = await report(terminal, say, url, async (options) => {
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

async function hostedOptions(values: HostedValues, warn: (line: string) => void): Promise<HostedOptions> {
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

async function fillAtStart(
  { cache }: HostedService,
  values: HostedValues,
  terminal: Terminal,
  say: Speaker,
): Promise<void> {
  for (const url of values.preload ?? [])
    await report(terminal, say, url, (options) => cache.preload(url, { ...options, version: values.contentInfo }));
  for (const file of values.import ?? [])
    await report(terminal, say, file, (options) =>
      cache.import(createReadStream(file) as AsyncIterable<Uint8Array>, options),
    );
}

/** Says how things went: a command to whoever typed it, a service in its log. */
interface Speaker {
  info(line: string): void;
  warn(line: string): void;
}

/** Does one thing with a progress bar, on a terminal, until the process is asked to end, and says how it ended. @returns whether it went well; never rejects for what can fail */
async function report(
  { stopRequested }: Terminal,
  say: Speaker,
  what: string,
  act: (options: { readonly onProgress: Progress; readonly signal: AbortSignal }) => Promise<number>,
): Promise<boolean> {
  const stopped = new AbortController();
  void stopRequested.then(() => stopped.abort(new Error('stopped')));
  const bar = new ProgressBar('{step} {bar} {percentage}%  {amount}  {eta_formatted} left');
  try {
    const onProgress: Progress = (step, done, total = done) =>
      bar.show(step, done, total, { amount: formatBytes(done) });
    const bytes = await act({ onProgress, signal: stopped.signal });
    bar.stop();
    say.info(`${what}: ${formatBytes(bytes)}`);
    return true;
  } catch (error) {
    bar.stop();
    if (isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) throw error;
    say.warn(`${what}: ${(error as Error).message}`);
    return false;
  }
}

function versionOption(): Setting {
  return setting(
    '--content-info <version>',
    'content information to preload: 1 for Windows 7, 2 for all later',
    numberFrom('--content-info', 1, 2),
    '2',
  );
}

export const WEB_URL = checked('an http or https URL', assertUrl);

function assertUrl(url: string): void {
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url))
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not an http or https URL: ${url}`);
}
