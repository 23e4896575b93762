/** The options that every role has, apart from its stores: how it is configured, shown, logged and ended. */
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { addLogOptions, type LogValues } from './log-options.ts';
import { ADDRESS, DURATION, flag, type Setting, setting, TEXT } from './settings.ts';
import type { StoreValues } from './store-options.ts';
import { readText } from './tls-options.ts';
import type { ListenAddress } from './units.ts';

export interface RunValues extends StoreValues, LogValues {
  readonly config?: string;
  readonly printConfig?: true;
  readonly site?: string;
  readonly admin: ListenAddress | false;
  readonly adminToken?: string;
  readonly dashboardNames?: true;
  /** Milliseconds. */
  readonly drainTimeout: number;
}

export function addRunOptions(command: Command, admin: string): Command {
  command
    .addOption(configOption())
    .addOption(printConfigOption())
    .addOption(setting('--site <name>', 'name of this place, on every metric and in reports', TEXT))
    .addOption(setting('--admin <host:port>', '/dashboard, /metrics, /healthz and /readyz', ADDRESS, admin))
    .addOption(flag('--no-admin', 'no admin listener'))
    .addOption(setting('--admin-token <file>', 'file with the token that dashboard and metrics then want', TEXT))
    .addOption(flag('--dashboard-names', 'show contents and downloads by name on the dashboard'))
    .addOption(setting('--drain-timeout <time>', 'for running exchanges when it ends', DURATION, '10s'));
  return addLogOptions(command);
}

export function configOption(): Setting {
  return setting('--config <file>', 'YAML or JSON with the options that are not given otherwise', TEXT);
}

export function printConfigOption(): Setting {
  return flag('--print-config', 'print what applies, and where it comes from, and end');
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function readAdminToken({ adminToken }: RunValues): string | undefined {
  if (adminToken === undefined) return undefined;
  const token = readText('--admin-token', adminToken).trim();
  if (/^[\x21-\x7e]{8,}$/.test(token)) return token;
  throw new PeerDistError(
    'ERR_PEERDIST_INVALID_OPTION',
    `--admin-token: ${adminToken} has no token: at least 8 printable characters without spaces are wanted`,
  );
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for what goes against itself, whatever the role */
export function checkRunValues(values: RunValues): void {
  readAdminToken(values);
  if (values.workers > 1 && values.store === 'memory')
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      '--workers: several need a store they can share: --store disk or redis://…',
    );
}
