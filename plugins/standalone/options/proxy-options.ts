/** The options that `reverse`, `branch` and `head` have as proxies, and what the host makes of them. */
import type { Command } from 'commander';
import type { HashProvider } from '../../../lib/crypto/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import { Kit } from '../../../lib/kit/index.ts';
import {
  createProxyServer,
  HttpProxyHost,
  type HttpProxyHostOptions,
  type HostTimeouts,
  networkSet,
  parseOrigin,
} from '../../http-proxy/index.ts';
import type { RoleOptions } from '../roles/roles.ts';
import type { Adjustment } from '../roles/service.ts';
import type { RoleName } from '../roles/stores.ts';
import { addRunOptions, type RunValues } from './role-options.ts';
import {
  ADDRESS,
  checked,
  DURATION,
  flag,
  LIMIT,
  list,
  numberFrom,
  oneOf,
  type Setting,
  setting,
  TEXT,
} from './settings.ts';
import { addStoreOptions } from './store-options.ts';
import { readCertificates, readTls, type TlsValues } from './tls-options.ts';
import type { ListenAddress } from './units.ts';

export interface ProxyValues extends RunValues, TlsValues {
  readonly listen: ListenAddress;
  readonly origin?: string;
  readonly originCa?: string;
  readonly preserveHost?: true;
  readonly forwarded?: true;
  readonly trustPeer?: string[];
  readonly allowClient?: string[];
  readonly hashProvider: HashProvider['name'];
  readonly connectTimeout: number;
  readonly headTimeout: number;
  readonly idleTimeout: number;
  readonly totalTimeout: number;
  readonly maxRequest: number;
}

export const ORIGIN = checked('an origin like http://host:port', parseOrigin);
export const NETWORK = checked('a network like 10.0.0.0/8, or an address', (text) => networkSet([text]));

export function addProxyOptions(command: Command, role: RoleName, listen: string, admin: string): Command {
  addRunOptions(addStoreOptions(command, role), admin);
  return command
    .addOption(setting('--listen <host:port>', 'where clients connect to', ADDRESS, listen))
    .addOption(setting('--tls-cert <file>', 'certificate of the listener, PEM: clients then use HTTPS', TEXT))
    .addOption(setting('--tls-key <file>', 'key of the listener, PEM', TEXT))
    .addOption(setting('--origin-ca <file>', 'certificate authorities of https origins, PEM', TEXT))
    .addOption(flag('--preserve-host', "send the client's Host to the origin"))
    .addOption(flag('--forwarded', 'write Forwarded and X-Forwarded-*'))
    .addOption(list('--trust-peer <network>', 'believe Forwarded fields from there (repeatable)', NETWORK))
    .addOption(list('--allow-client <network>', 'who may connect (repeatable)', NETWORK))
    .addOption(hashProviderOption())
    .addOption(setting('--connect-timeout <time>', 'to connect to the origin', DURATION, '10s'))
    .addOption(setting('--head-timeout <time>', 'from the whole request to the head of the answer', DURATION, '60s'))
    .addOption(setting('--idle-timeout <time>', 'without a byte', DURATION, '120s'))
    .addOption(setting('--total-timeout <time>', 'of a whole exchange, 0 = none', DURATION, '0'))
    .addOption(setting('--max-request <size>', 'largest request body', LIMIT, 'none'));
}

export function hashProviderOption(): Setting {
  return setting(
    '--hash-provider <name>',
    'hash functions: native or noble',
    oneOf('--hash-provider', ['native', 'noble']),
    'native',
  );
}

export function proxyOptions(values: ProxyValues): Omit<RoleOptions, 'admin' | 'store'> {
  const timeouts: HostTimeouts = {
    connectMs: values.connectTimeout,
    headMs: values.headTimeout,
    idleMs: values.idleTimeout,
    totalMs: values.totalTimeout,
  };
  return {
    listen: values.listen,
    tls: readTls(values),
    originCa: values.originCa === undefined ? undefined : readCertificates('--origin-ca', values.originCa),
    preserveHost: values.preserveHost,
    forwarded: values.forwarded,
    trustedPeers: values.trustPeer,
    allowClients: values.allowClient,
    hashProvider: values.hashProvider,
    maxRequestBytes: values.maxRequest,
    timeouts,
  };
}

/** A host that never listens finds what is wrong with its options. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function checkProxy(options: Omit<HttpProxyHostOptions, 'proxy' | 'kit'>): void {
  new HttpProxyHost({ ...options, proxy: createProxyServer(), kit: new Kit({ plugins: [] }) }).close();
}

/** What a proxy takes over while it runs. */
export function proxyAdjustment(values: ProxyValues): Adjustment {
  return { allowClients: values.allowClient, tls: readTls(values) };
}

/** A proxy that is its own origin would only find out when somebody asks. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function assertElsewhere(option: string, url: string, { host, port }: ListenAddress): void {
  const { hostname, port: given, protocol } = new URL(url);
  const theirs = Number(given || (protocol === 'https:' ? 443 : 80));
  const isHere = hostname === host || (/^(?:localhost|127\.)/.test(hostname) && /^(?:0\.0\.0\.0|::|127\.)/.test(host));
  if (isHere && theirs === port)
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      `${option} is where --listen is: the proxy would ask itself`,
    );
}

export interface ForwardValues {
  readonly allowDestination?: string[];
  readonly connectPort?: number[];
}

/** The options of forward proxies: where their clients may be brought. */
export function addForwardOptions(command: Command): Command {
  return command
    .addOption(
      list(
        '--allow-destination <where>',
        'network, address or host:port that other machines may reach although it is local (repeatable)',
        TEXT,
      ),
    )
    .addOption(
      list(
        '--connect-port <port>',
        'port CONNECT may reach (repeatable; default 443)',
        numberFrom('--connect-port', 1, 65_535),
      ),
    );
}
