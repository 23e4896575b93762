/** `peerdist reverse`: options to a role. */
import { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import {
  addProxyOptions,
  assertElsewhere,
  checkProxy,
  ORIGIN,
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
import { setting } from '../options/settings.ts';
import { leadReverse } from '../roles/lead.ts';
import { startReverse } from '../roles/roles.ts';
import { runRole } from '../roles/run-role.ts';
import type { RoleDefinition } from './role-command.ts';

interface ReverseValues extends ProxyValues, PublishingValues {}

export const reverseRole: RoleDefinition<ReverseValues> = {
  define() {
    const command = new Command('reverse')
      .description('head office: stand before an origin, hash what it sends, answer capable clients with hashes')
      .addOption(setting('--origin <url>', 'the origin, http://host:port or https://host:port', ORIGIN));
    addProxyOptions(command, 'reverse', '127.0.0.1:8080', '127.0.0.1:9180');
    return addPublishingOptions(command);
  },
  check(values, sourceOf) {
    // Not Commander's requiredOption: that would complain before it has noticed a mistyped `--orign`.
    assertElsewhere('--origin', originOf(values), values.listen);
    readSecret(values, () => {}, sourceOf);
    checkPublishing(values);
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
            ...publishingOptions(own),
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
