/** What a role says, and how. */
import type { Command } from 'commander';
import { flag, oneOf, setting } from './settings.ts';

const LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;

export interface LogValues {
  readonly logLevel: (typeof LEVELS)[number];
  readonly logFormat: 'auto' | 'json' | 'pretty';
  readonly accessLog: boolean;
}

export function addLogOptions(command: Command): Command {
  return command
    .addOption(
      setting(
        '--log-level <level>',
        'least level that is said: debug, info, warn, error, silent',
        oneOf('--log-level', LEVELS),
        'info',
      ),
    )
    .addOption(
      setting(
        '--log-format <format>',
        'json, pretty for people, or auto: pretty on a terminal',
        oneOf('--log-format', ['auto', 'json', 'pretty']),
        'auto',
      ),
    )
    .addOption(flag('--no-access-log', 'no line for each request'));
}
