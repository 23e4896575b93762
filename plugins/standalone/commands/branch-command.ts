/** `peerdist branch`: options to a role. */
import { Command } from 'commander';
import type { CipherName } from '../../../lib/crypto/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import { MAX_SIBLINGS } from '../../../lib/services/index.ts';
import {
  addInterceptOptions,
  checkIntercept,
  type InterceptValues,
  openInterceptor,
} from '../options/intercept-options.ts';
import { addPeerOptions, neighbourhoodOptions, peerAddress, type PeerValues } from '../options/peer-options.ts';
import {
  addForwardOptions,
  addProxyOptions,
  assertElsewhere,
  checkProxy,
  type ForwardValues,
  NETWORK,
  ORIGIN,
  proxyAdjustment,
  proxyOptions,
  type ProxyValues,
} from '../options/proxy-options.ts';
import { ADDRESS, checked, flag, list, numberFrom, oneOf, setting, SIZE } from '../options/settings.ts';
import { type ListenAddress, parsePeer, PEER_PORT } from '../options/units.ts';
import { addUpstreamOptions, upstreamOptions, type UpstreamValues } from '../options/upstream-options.ts';
import { leadBranch } from '../roles/lead.ts';
import type { NeighbourhoodOptions } from '../roles/neighbourhood.ts';
import { startBranch } from '../roles/roles.ts';
import { runRole } from '../roles/run-role.ts';
import type { RoleDefinition } from './role-command.ts';

interface BranchValues extends ProxyValues, PeerValues, ForwardValues, UpstreamValues, InterceptValues {
  readonly pendingSize: number;
  readonly cdnCacheControl?: true;
  readonly contentInfo: 1 | 2;
  readonly peers: boolean;
  readonly peerListen: ListenAddress;
  readonly sibling?: string[];
  readonly allowPeer?: string[];
  readonly peerCipher: CipherName;
  readonly maxUploads: number;
}

export const branchRole: RoleDefinition<BranchValues> = {
  define() {
    const command = new Command('branch')
      .description('branch office: a proxy that serves any HTTP client from verified blocks')
      .addOption(setting('--origin <url>', 'be a gateway to this one origin instead of a forward proxy', ORIGIN));
    addProxyOptions(command, 'branch', '127.0.0.1:3128', '127.0.0.1:9181')
      .addOption(setting('--pending-size <size>', 'memory for bodies that are on their way', SIZE, '256MiB'))
      .addOption(flag('--cdn-cache-control', 'let CDN-Cache-Control of origins go before their Cache-Control'))
      .addOption(
        setting(
          '--content-info <version>',
          'newest content information to ask for: 1 or 2',
          numberFrom('--content-info', 1, 2),
          '2',
        ),
      );
    addUpstreamOptions(addForwardOptions(command));
    return addPeerOptions(addInterceptOptions(command))
      .addOption(setting('--peer-listen <host:port>', 'where peers get blocks', ADDRESS, `[::]:${PEER_PORT}`))
      .addOption(
        list(
          '--sibling <host:port>',
          'another branch proxy of this site, which has the same secret; port 8008 unless given (repeatable)',
          checked('a sibling like 10.0.0.7 or 10.0.0.7:8008', (text) => parsePeer(text, PEER_PORT)),
        ),
      )
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
    checkProxy(branchOptions(values));
    if (values.upstream !== undefined) assertElsewhere('--upstream', values.upstream, values.listen);
    checkIntercept(values);
    if (values.discoveryInterface !== undefined && (!values.peers || values.discovery === false))
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_OPTION',
        '--discovery-interface is of no use without discovery: leave out --no-peers and --no-discovery',
      );
    if (values.sibling !== undefined && !values.peers)
      throw new PeerDistError(
        'ERR_PEERDIST_INVALID_OPTION',
        '--sibling is of no use without peers: leave out --no-peers',
      );
    if ((values.sibling?.length ?? 0) > MAX_SIBLINGS)
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `--sibling: no more than ${MAX_SIBLINGS} are asked`);
  },
  adjustment: proxyAdjustment,
  async run(values, { terminal, exit, reread }) {
    await runRole(terminal, exit, {
      role: 'branch',
      values,
      start: async (own, common, [secret], member) => {
        const intercept = await openInterceptor(own, common.warn);
        const neighbourhood = branchNeighbourhood(own, common.warn);
        return startBranch({ ...branchOptions(own), ...common, secret, intercept, neighbourhood }, member);
      },
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
    cdnCacheControl: values.cdnCacheControl,
    maxContentInformationVersion: values.contentInfo,
    allowDestinations: values.allowDestination,
    connectPorts: values.connectPort,
    upstream: upstreamOptions(values),
  };
}

/** Without peers there can still be a hosted cache, which is asked and not offered to. */
function branchNeighbourhood(values: BranchValues, warn: (line: string) => void): NeighbourhoodOptions | undefined {
  const { peerListen, allowPeer, peerCipher, maxUploads } = values;
  const options = neighbourhoodOptions(values, warn);
  const siblings = values.sibling?.map((text) => peerAddress(text, PEER_PORT));
  if (values.peers)
    return { ...options, listen: peerListen, siblings, allow: allowPeer, cipher: peerCipher, maxUploads };
  return options.hostedCaches && { listen: undefined, hostedCaches: options.hostedCaches };
}
