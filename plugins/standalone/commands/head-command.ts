/** `peerdist head`: options to a role. */
import { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import type { TlsIdentity } from '../../http-proxy/index.ts';
import {
  addForwardOptions,
  addProxyOptions,
  checkProxy,
  type ForwardValues,
  proxyAdjustment,
  proxyOptions,
  type ProxyValues,
} from '../options/proxy-options.ts';
import {
  addPublishingOptions,
  checkPublishing,
  publishingOptions,
  type PublishingValues,
} from '../options/publishing-options.ts';
import { readSecret } from '../options/secret-options.ts';
import { DURATION, flag, setting, SIZE, TEXT } from '../options/settings.ts';
import { readCertificates, readTls } from '../options/tls-options.ts';
import { type HeadOptions, startHead } from '../roles/head-role.ts';
import { leadReverse } from '../roles/lead.ts';
import { runRole } from '../roles/run-role.ts';
import type { RoleDefinition } from './role-command.ts';

interface HeadValues extends Omit<ProxyValues, 'origin'>, PublishingValues, ForwardValues {
  readonly clientCa?: string;
  readonly hashUnknown: boolean;
  readonly hashUnknownSize: number;
  readonly hashUnknownTime: number;
}

/** Who may use a head that has been told nothing: what it hands out are the hashes of whatever anybody may fetch. */
const LOOPBACK = ['127.0.0.0/8', '::1'];

export const headRole: RoleDefinition<HeadValues> = {
  define() {
    const command = new Command('head').description(
      'head office: a forward proxy for branches (branch --upstream), hashing what any origin sends',
    );
    addProxyOptions(command, 'head', '127.0.0.1:3129', '127.0.0.1:9184');
    return addPublishingOptions(addForwardOptions(command))
      .addOption(
        setting(
          '--client-ca <file>',
          'authorities, PEM; clients then need a certificate of theirs, and nothing else',
          TEXT,
        ),
      )
      .addOption(flag('--no-hash-unknown', 'answer plain what is asked for the first time, and hash it as it passes'))
      .addOption(
        setting('--hash-unknown-size <size>', 'largest content to fetch and hash before it is answered', SIZE, '1GiB'),
      )
      .addOption(
        setting(
          '--hash-unknown-time <time>',
          'how long a branch waits for that; then it gets it plain',
          DURATION,
          '30s',
        ),
      );
  },
  check(values, sourceOf) {
    readSecret(values, () => {}, sourceOf);
    checkPublishing(values);
    checkProxy(headOptions(values));
  },
  adjustment: (values) => ({ ...proxyAdjustment(values), allowClients: clientsOf(values), tls: identityOf(values) }),
  async run(values, { terminal, exit, sourceOf, reread }) {
    const given = readSecret(values, terminal.warn, sourceOf);
    await runRole(terminal, exit, {
      role: 'head',
      values,
      given,
      start: (own, common, [secret], member) => startHead({ ...headOptions(own), ...common, secret }, member),
      lead: leadReverse,
      reread,
    });
  },
};

function headOptions(values: HeadValues): Omit<HeadOptions, 'admin' | 'secret'> {
  const { hashUnknown, hashUnknownSize, hashUnknownTime } = values;
  const { preserveHost: _, ...options } = proxyOptions(values);
  return {
    ...options,
    ...publishingOptions(values),
    tls: identityOf(values),
    allowClients: clientsOf(values),
    allowDestinations: values.allowDestination,
    connectPorts: values.connectPort,
    hashUnknown: hashUnknown ? { maxBytes: hashUnknownSize, maxMs: hashUnknownTime } : undefined,
  };
}

function clientsOf({ allowClient }: HeadValues): readonly string[] {
  return allowClient ?? LOOPBACK;
}

function identityOf(values: HeadValues): TlsIdentity | undefined {
  const identity = readTls(values);
  if (values.clientCa === undefined) return identity;
  if (identity !== undefined) return { ...identity, clientCa: readCertificates('--client-ca', values.clientCa) };
  throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', '--client-ca is about TLS: it needs --tls-cert and --tls-key');
}
