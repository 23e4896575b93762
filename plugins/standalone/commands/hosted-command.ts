/** `peerdist hosted`: options to a role. */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import type { HashProvider } from '../../../lib/crypto/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import type { ContentInformationVersion } from '../../../lib/protocol/pccrc/index.ts';
import { basicAuthentication, keptCertificate } from '../../hosted-cache/index.ts';
import { type HostedOptions, startHosted } from '../roles/hosted-role.ts';
import { leadHosted } from '../roles/lead.ts';
import { fillAtStart, versionOption } from './fill-commands.ts';
import type { RoleDefinition } from './role-command.ts';
import { hashProviderOption, NETWORK } from '../options/proxy-options.ts';
import { addRunOptions, type RunValues } from '../options/role-options.ts';
import { runRole } from '../roles/run-role.ts';
import { keptToken } from '../kept/state-directory.ts';
import { ADDRESS, flag, list, numberFrom, setting, SIZE, TEXT, WEB_URL } from '../options/settings.ts';
import { addStoreOptions } from '../options/store-options.ts';
import { readCertificates, readText, readTls, type TlsValues } from '../options/tls-options.ts';
import type { ListenAddress } from '../options/units.ts';

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
    await runRole(terminal, exit, {
      role: 'hosted',
      values,
      start: async (own, common, _secrets, member) =>
        startHosted({ ...(await hostedOptions(own, common.warn)), ...common }, member),
      lead: async (plan) => leadHosted(plan, await hostedOptions(values, plan.warn)),
      // Clients are served meanwhile; what cannot be had is said and left.
      also: (service, log) => fillAtStart(service, values, terminal, log),
      reread,
    });
  },
};

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
    temporaryDirectory: join(values.stateDir, 'tmp'),
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
