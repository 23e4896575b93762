/** `peerdist reverse`: options to a role. */
import { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import type { V1AlgorithmName } from '../../../lib/protocol/pccrc/index.ts';
import {
  addProxyOptions,
  checkProxy,
  ORIGIN,
  proxyAdjustment,
  proxyOptions,
  type ProxyValues,
} from '../options/proxy-options.ts';
import { addSecretOptions, readSecret, type SecretOptions } from '../options/secret-options.ts';
import { LIMIT, numberFrom, oneOf, setting, SIZE } from '../options/settings.ts';
import type { ListenAddress } from '../options/units.ts';
import { leadReverse } from '../roles/lead.ts';
import { startReverse } from '../roles/roles.ts';
import { runRole } from '../roles/run-role.ts';
import type { RoleDefinition } from './role-command.ts';

interface ReverseValues extends ProxyValues, SecretOptions {
  readonly algorithm: V1AlgorithmName;
  readonly minSize: number;
  readonly maxSize: number;
  readonly hashThreads: 0 | 1 | 2;
}

export const reverseRole: RoleDefinition<ReverseValues> = {
  define() {
    const command = new Command('reverse')
      .description('head office: stand before an origin, hash what it sends, answer capable clients with hashes')
      .addOption(setting('--origin <url>', 'the origin, http://host:port or https://host:port', ORIGIN));
    addProxyOptions(command, 'reverse', '127.0.0.1:8080', '127.0.0.1:9180');
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
    checkProxy(proxyOptions(values));
  },
  adjustment: proxyAdjustment,
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
