/** `peerdist reverse` and `peerdist branch`: options to roles. */
import { Command } from 'commander';
import type { CipherName, HashProvider } from '../../../lib/crypto/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import { Kit } from '../../../lib/kit/index.ts';
import type { V1AlgorithmName } from '../../../lib/protocol/pccrc/index.ts';
import {
  createProxyServer,
  HttpProxyHost,
  type HostTimeouts,
  networkSet,
  parseOrigin,
} from '../../http-proxy/index.ts';
import { leadBranch, leadReverse } from '../roles/lead.ts';
import type { NeighbourhoodOptions } from '../roles/neighbourhood.ts';
import { addPeerOptions, neighbourhoodOptions, type PeerValues } from '../options/peer-options.ts';
import type { RoleDefinition } from './role-command.ts';
import { addRunOptions, type RunValues } from '../options/role-options.ts';
import { type RoleOptions, startBranch, startReverse } from '../roles/roles.ts';
import { runRole } from '../roles/run-role.ts';
import { addSecretOptions, readSecret, type SecretOptions } from '../options/secret-options.ts';
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
  SIZE,
  TEXT,
} from '../options/settings.ts';
import { addStoreOptions } from '../options/store-options.ts';
import type { RoleName } from '../roles/stores.ts';
import { readCertificates, readTls, type TlsValues } from '../options/tls-options.ts';
import type { ListenAddress } from '../options/units.ts';

interface CommonValues extends RunValues, TlsValues {
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

const ORIGIN = checked('an origin like http://host:port', parseOrigin);
export const NETWORK = checked('a network like 10.0.0.0/8, or an address', (text) => networkSet([text]));

export const reverseRole: RoleDefinition<ReverseValues> = {
  define() {
    const command = new Command('reverse')
      .description('head office: stand before an origin, hash what it sends, answer capable clients with hashes')
      .addOption(setting('--origin <url>', 'the origin, http://host:port or https://host:port', ORIGIN));
    addCommonOptions(command, 'reverse', '127.0.0.1:8080', '127.0.0.1:9180');
    return addSecretOptions(command)
      .addOption(
        setting(
          '--algorithm <name>',
          'hash of version 1 content information: sha256, sha384 or sha512',
          oneOf('--algorithm', ['sha256', 'sha384', 'sha512']),
          'sha256',
        ),
      )
      .addOption(setting('--min-size <size>', 'smallest body to publish', SIZE, '64KiB'))
      .addOption(setting('--max-size <size>', 'largest body to publish', LIMIT, 'none'))
      .addOption(
        setting(
          '--hash-threads <0|1|2>',
          'threads that hash; 0 hashes on the main thread',
          numberFrom('--hash-threads', 0, 2),
          '2',
        ),
      );
  },
  check(values, sourceOf) {
    // Not Commander's requiredOption: that would complain before it has noticed a mistyped `--orign`.
    assertElsewhere(originOf(values), values.listen);
    readSecret(values, () => {}, sourceOf);
    if (values.minSize > values.maxSize)
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_OPTION',
        '--min-size is larger than --max-size: nothing would be published',
      );
    checkProxy(values);
  },
  adjustment: adjustmentOf,
  async run(values, { terminal, exit, sourceOf, reread }) {
    const given = readSecret(values, terminal.warn, sourceOf);
    await runRole(terminal, exit, {
      role: 'reverse',
      values,
      given,
      start: (own, common, secrets, member) =>
        startReverse(
          {
            ...proxyOptions(own),
            ...common,
            origin: originOf(own),
            secret: secrets[0],
            algorithm: own.algorithm,
            minBytes: own.minSize,
            maxBytes: own.maxSize,
            hashThreads: own.hashThreads,
          },
          member,
        ),
      lead: leadReverse,
      reread,
    });
  },
};

export const branchRole: RoleDefinition<BranchValues> = {
  define() {
    const command = new Command('branch')
      .description('branch office: a proxy that serves any HTTP client from verified blocks')
      .addOption(setting('--origin <url>', 'be a gateway to this one origin instead of a forward proxy', ORIGIN));
    addCommonOptions(command, 'branch', '127.0.0.1:3128', '127.0.0.1:9181')
      .addOption(setting('--pending-size <size>', 'memory for bodies whose hashes have not come yet', SIZE, '256MiB'))
      .addOption(
        setting(
          '--content-info <version>',
          'newest content information to ask for: 1 or 2',
          numberFrom('--content-info', 1, 2),
          '2',
        ),
      )
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
    return addPeerOptions(command)
      .addOption(setting('--peer-listen <host:port>', 'where peers get blocks', ADDRESS, '[::]:8008'))
      .addOption(
        list('--allow-peer <network>', "who may get blocks besides this machine's own subnets (repeatable)", NETWORK),
      )
      .addOption(
        setting(
          '--peer-cipher <name>',
          'how blocks are encrypted for peers: none, aes-128, aes-192 or aes-256',
          oneOf('--peer-cipher', ['none', 'aes-128', 'aes-192', 'aes-256']),
          'aes-128',
        ),
      )
      .addOption(
        setting('--max-uploads <number>', 'blocks given at a time', numberFrom('--max-uploads', 1, 16_384), '64'),
      )
      .addOption(flag('--no-peers', 'neither ask peers for blocks nor give them any'));
  },
  check(values) {
    checkProxy(values);
    if (values.discoveryInterface !== undefined && (!values.peers || values.discovery === false))
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_OPTION',
        '--discovery-interface is of no use without discovery: leave out --no-peers and --no-discovery',
      );
  },
  adjustment: adjustmentOf,
  async run(values, { terminal, exit, reread }) {
    await runRole(terminal, exit, {
      role: 'branch',
      values,
      start: (own, common, _secrets, member) =>
        startBranch({ ...branchOptions(own), ...common, neighbourhood: branchNeighbourhood(own, common.warn) }, member),
      lead: (plan) => leadBranch(plan, branchNeighbourhood(values, plan.warn)),
      reread,
    });
  },
};

function branchOptions(values: BranchValues): Omit<Parameters<typeof startBranch>[0], 'admin' | 'neighbourhood'> {
  return {
    ...proxyOptions(values),
    origin: values.origin,
    pendingBytes: values.pendingSize,
    maxContentInformationVersion: values.contentInfo,
    allowDestinations: values.allowDestination,
    connectPorts: values.connectPort,
  };
}

function originOf({ origin }: ReverseValues): string {
  if (origin !== undefined) return origin;
  throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'reverse needs --origin URL');
}

/** A proxy that is its own origin would only find out when somebody asks. */
function assertElsewhere(origin: string, { host, port }: ListenAddress): void {
  const { hostname, port: given, protocol } = new URL(origin);
  const theirs = Number(given || (protocol === 'https:' ? 443 : 80));
  const isHere = hostname === host || (/^(?:localhost|127\.)/.test(hostname) && /^(?:0\.0\.0\.0|::|127\.)/.test(host));
  if (isHere && theirs === port)
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', '--origin is where --listen is: the proxy would ask itself');
}

/** A host that never listens finds what is wrong with its options. */
function checkProxy(values: CommonValues | BranchValues): void {
  const options = 'peerListen' in values ? branchOptions(values) : proxyOptions(values);
  new HttpProxyHost({ ...options, proxy: createProxyServer(), kit: new Kit({ plugins: [] }) }).close();
}

function adjustmentOf(values: CommonValues): { allowClients: string[] | undefined; tls: ReturnType<typeof readTls> } {
  return { allowClients: values.allowClient, tls: readTls(values) };
}

/** Without peers there can still be a hosted cache, which is asked and not offered to. */
function branchNeighbourhood(values: BranchValues, warn: (line: string) => void): NeighbourhoodOptions | undefined {
  const { peerListen, allowPeer, peerCipher, maxUploads } = values;
  const options = neighbourhoodOptions(values, warn);
  if (values.peers) return { ...options, listen: peerListen, allow: allowPeer, cipher: peerCipher, maxUploads };
  return options.hostedCaches && { listen: undefined, hostedCaches: options.hostedCaches };
}

function addCommonOptions(command: Command, role: RoleName, listen: string, admin: string): Command {
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
