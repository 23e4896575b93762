/** The options of a branch whose requests all go through another proxy. */
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { parseOrigin, type UpstreamOptions } from '../../http-proxy/index.ts';
import { checked, list, oneOf, setting, TEXT } from './settings.ts';
import { readCertificates, readIdentity } from './tls-options.ts';

export interface UpstreamValues {
  readonly upstream?: string;
  readonly upstreamPin?: string[];
  readonly upstreamCa?: string;
  readonly upstreamCert?: string;
  readonly upstreamKey?: string;
  readonly upstreamAway: 'direct' | 'refuse';
}

const PIN = checked('a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons', (text) => {
  if (!/^[0-9a-f]{64}$/i.test(text.replaceAll(':', '')))
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `--upstream-pin is a SHA-256 fingerprint: ${text}`);
});

export function addUpstreamOptions(command: Command): Command {
  const url = checked('a proxy like http://head-office:3129', parseOrigin);
  return command
    .addOption(setting('--upstream <url>', 'proxy that everything goes through, such as `peerdist head`', url))
    .addOption(
      list('--upstream-pin <sha256>', 'fingerprint of its certificate: trust that one and no other (repeatable)', PIN),
    )
    .addOption(setting('--upstream-ca <file>', 'certificate authorities of it, PEM', TEXT))
    .addOption(setting('--upstream-cert <file>', 'certificate to show to it, PEM', TEXT))
    .addOption(setting('--upstream-key <file>', 'key of that certificate, PEM', TEXT))
    .addOption(
      setting(
        '--upstream-away <what>',
        'what requests do when it cannot be reached: direct or refuse',
        oneOf('--upstream-away', ['direct', 'refuse']),
        'direct',
      ),
    );
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function upstreamOptions(values: UpstreamValues): UpstreamOptions | undefined {
  const { upstream, upstreamPin, upstreamCa, upstreamCert, upstreamKey, upstreamAway } = values;
  const given = { '--upstream-pin': upstreamPin, '--upstream-ca': upstreamCa, '--upstream-cert': upstreamCert };
  if (upstream === undefined) {
    const idle = Object.entries({ ...given, '--upstream-key': upstreamKey }).find(([, value]) => value !== undefined);
    if (idle !== undefined)
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${idle[0]} is of no use without --upstream`);
    return undefined;
  }
  if ((upstreamCert === undefined) !== (upstreamKey === undefined))
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', '--upstream-cert and --upstream-key belong together');
  const identity =
    upstreamCert === undefined || upstreamKey === undefined
      ? undefined
      : readIdentity(['--upstream-cert', upstreamCert], ['--upstream-key', upstreamKey]);
  return {
    url: upstream,
    pins: upstreamPin,
    ca: upstreamCa === undefined ? undefined : readCertificates('--upstream-ca', upstreamCa),
    cert: identity?.cert,
    key: identity?.key,
    whenAway: upstreamAway,
  };
}
