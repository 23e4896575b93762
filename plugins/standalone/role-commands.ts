/** `peerdist reverse` and `peerdist branch`: options to roles. */
import { type Command, Option } from 'commander';
import type { CipherName, HashProvider } from '../../lib/crypto/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import type { V1AlgorithmName } from '../../lib/protocol/pccrc/index.ts';
import { type HostTimeouts, parseOrigin } from '../http-proxy/index.ts';
import { readCertificates, readTls } from './tls-options.ts';
import { type RoleOptions, startBranch, startReverse } from './roles.ts';
import { collect, valued } from './option-parts.ts';
import type { NeighbourhoodOptions } from './neighbourhood.ts';
import { addPeerOptions, neighbourhoodOptions, type PeerValues } from './peer-options.ts';
import { leadBranch, leadReverse } from './lead.ts';
import { runRole } from './run-role.ts';
import { addSecretOptions, readSecret, type SecretOptions } from './secret-options.ts';
import { addStoreOptions, type StoreValues } from './store-options.ts';
import type { RoleName } from './stores.ts';
import type { Terminal } from './terminal.ts';
import { type ListenAddress, parseDuration, parseListen, parseNumber, parseSize } from './units.ts';

interface CommonValues extends StoreValues {
  readonly listen: ListenAddress;
  readonly admin: ListenAddress | false;
  readonly origin?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
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

interface ReverseValues extends CommonValues, SecretOptions {
  readonly algorithm: V1AlgorithmName;
  readonly minSize: number;
  readonly maxSize: number;
  readonly hashThreads: 0 | 1 | 2;
}

interface BranchValues extends CommonValues, PeerValues {
  readonly pendingSize: number;
  readonly contentInfo: 1 | 2;
  readonly allowDestination?: string[];
  readonly connectPort?: number[];
  readonly peers: boolean;
  readonly peerListen: ListenAddress;
  readonly allowPeer?: string[];
  readonly peerCipher: CipherName;
  readonly maxUploads: number;
}

export function addReverseCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const command = program
    .command('reverse')
    .description('head office: stand before an origin, hash what it sends, answer capable clients with hashes')
    .option('--origin <url>', 'the origin, http://host:port or https://host:port', originUrl);
  addCommonOptions(command, 'reverse', '127.0.0.1:8080', '127.0.0.1:9180');
  addSecretOptions(command)
    .addOption(
      new Option('--algorithm <name>', 'hash of version 1 content information')
        .choices(['sha256', 'sha384', 'sha512'])
        .default('sha256'),
    )
    .addOption(valued('--min-size <size>', 'smallest body to publish', parseSize, '64KiB'))
    .addOption(valued('--max-size <size>', 'largest body to publish', parseSize, 'none'))
    .addOption(
      valued(
        '--hash-threads <0|1|2>',
        'threads that hash; 0 hashes on the main thread',
        parseNumber('--hash-threads', 0, 2),
        '2',
      ),
    )
    .action(async (values: ReverseValues) => {
      // Not Commander's requiredOption: that would complain before it has noticed a mistyped `--orign`.
      if (values.origin === undefined)
        throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'reverse needs --origin URL');
      const { origin } = values;
      const given = readSecret(values, terminal.warn);
      await runRole(terminal, exit, {
        role: 'reverse',
        values,
        given,
        start: (common, secrets, member) =>
          startReverse(
            {
              ...proxyOptions(values),
              ...common,
              origin,
              secret: secrets[0],
              algorithm: values.algorithm,
              minBytes: values.minSize,
              maxBytes: values.maxSize,
              hashThreads: values.hashThreads,
            },
            member,
          ),
        lead: leadReverse,
      });
    });
}

export function addBranchCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  const command = program
    .command('branch')
    .description('branch office: a proxy that serves any HTTP client from verified blocks')
    .option('--origin <url>', 'be a gateway to this one origin instead of a forward proxy', originUrl);
  addCommonOptions(command, 'branch', '127.0.0.1:3128', '127.0.0.1:9181')
    .addOption(valued('--pending-size <size>', 'memory for bodies whose hashes have not come yet', parseSize, '256MiB'))
    .addOption(
      new Option('--content-info <version>', 'newest content information to ask for')
        .choices(['1', '2'])
        .default(2, '2')
        .argParser((text) => parseNumber('--content-info', 1, 2)(text)),
    )
    .option(
      '--allow-destination <where>',
      'network, address or host:port that other machines may reach although it is local (repeatable)',
      collect,
    )
    .option('--connect-port <port>', 'port CONNECT may reach (repeatable; default 443)', collectNumbers);
  addPeerOptions(command)
    .addOption(valued('--peer-listen <host:port>', 'where peers get blocks', parseListen, '[::]:8008'))
    .option('--allow-peer <network>', "who may get blocks besides this machine's own subnets (repeatable)", collect)
    .addOption(
      new Option('--peer-cipher <name>', 'how blocks are encrypted for peers')
        .choices(['none', 'aes-128', 'aes-192', 'aes-256'])
        .default('aes-128'),
    )
    .addOption(
      valued('--max-uploads <number>', 'blocks given at a time', parseNumber('--max-uploads', 1, 16_384), '64'),
    )
    .option('--no-peers', 'neither ask peers for blocks nor give them any')
    .action(async (values: BranchValues) => {
      const neighbourhood = branchNeighbourhood(values, terminal.warn);
      await runRole(terminal, exit, {
        role: 'branch',
        values,
        start: (common, _secrets, member) =>
          startBranch(
            {
              ...proxyOptions(values),
              ...common,
              origin: values.origin,
              pendingBytes: values.pendingSize,
              maxContentInformationVersion: values.contentInfo,
              allowDestinations: values.allowDestination,
              connectPorts: values.connectPort,
              neighbourhood,
            },
            member,
          ),
        lead: (plan) => leadBranch(plan, neighbourhood),
      });
    });
}

/** Without peers there can still be a hosted cache, which is asked and not offered to. */
function branchNeighbourhood(values: BranchValues, warn: (line: string) => void): NeighbourhoodOptions | undefined {
  const { peerListen, allowPeer, peerCipher, maxUploads } = values;
  const options = neighbourhoodOptions(values, warn);
  if (values.peers) return { ...options, listen: peerListen, allow: allowPeer, cipher: peerCipher, maxUploads };
  return options.hostedCaches && { listen: undefined, hostedCaches: options.hostedCaches };
}

/** Checks an origin where it is given, so that nothing else is said before. */
function originUrl(text: string): string {
  parseOrigin(text);
  return text;
}

function addCommonOptions(command: Command, role: RoleName, listen: string, admin: string): Command {
  return addStoreOptions(command, role)
    .addOption(valued('--listen <host:port>', 'where clients connect to', parseListen, listen))
    .addOption(valued('--admin <host:port>', '/metrics, /healthz and /readyz', parseListen, admin))
    .option('--no-admin', 'no admin listener')
    .option('--tls-cert <file>', 'certificate of the listener, PEM: clients then use HTTPS')
    .option('--tls-key <file>', 'key of the listener, PEM')
    .option('--origin-ca <file>', 'certificate authorities of https origins, PEM')
    .option('--preserve-host', "send the client's Host to the origin")
    .option('--forwarded', 'write Forwarded and X-Forwarded-*')
    .option('--trust-peer <network>', 'believe Forwarded fields from there (repeatable)', collect)
    .option('--allow-client <network>', 'who may connect (repeatable)', collect)
    .addOption(new Option('--hash-provider <name>', 'hash functions').choices(['native', 'noble']).default('native'))
    .addOption(valued('--connect-timeout <time>', 'to connect to the origin', parseDuration, '10s'))
    .addOption(
      valued('--head-timeout <time>', 'from the whole request to the head of the answer', parseDuration, '60s'),
    )
    .addOption(valued('--idle-timeout <time>', 'without a byte', parseDuration, '120s'))
    .addOption(valued('--total-timeout <time>', 'of a whole exchange, 0 = none', parseDuration, '0'))
    .addOption(valued('--max-request <size>', 'largest request body', parseSize, 'none'));
}

function proxyOptions(values: CommonValues): Omit<RoleOptions, 'admin' | 'store'> {
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

function collectNumbers(value: string, previous: number[] = []): number[] {
  return [...previous, parseNumber('--connect-port', 1, 65_535)(value)];
}
