/** Where a role keeps what it knows: the options that all roles have. */
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import type { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import { type Kind, numberFrom, type Setting, setting, SIZE, TEXT } from './settings.ts';
import { defaultStateDirectory } from '../kept/state-directory.ts';
import type { RoleName, StoreOptions } from '../roles/stores.ts';

export interface StoreValues {
  readonly store: 'memory' | 'disk' | { readonly url: string };
  readonly maxCache?: number;
  readonly memory: number;
  readonly stateDir: string;
  readonly workers: number;
}

const GiB = 1024 ** 3;
/** Bytes of a store nobody has set a limit for. Policy. */
const DEFAULTS: Readonly<Record<'memory' | 'disk', Readonly<Record<RoleName, number>>>> = {
  memory: { reverse: GiB / 4, branch: GiB, hosted: GiB, head: GiB },
  disk: { reverse: GiB, branch: 10 * GiB, hosted: 10 * GiB, head: 10 * GiB },
};

export function addStoreOptions(command: Command, role: RoleName): Command {
  const size = (kind: 'memory' | 'disk'): string => {
    const bytes = DEFAULTS[kind][role];
    return bytes < GiB ? `${bytes / 1024 ** 2}MiB` : `${bytes / GiB}GiB`;
  };
  return command
    .addOption(
      setting(
        '--store <where>',
        'what keeps content: memory, disk, or redis://host:port for several machines',
        STORE,
        'disk',
      ),
    )
    .addOption(
      setting(
        '--max-cache <size>',
        `limit of the store; Redis has its own (default ${size('disk')} on disk, ${size('memory')} in memory)`,
        SIZE,
      ),
    )
    .addOption(setting('--memory <size>', 'memory before a store on disk or in Redis', SIZE, '256MiB'))
    .addOption(stateOption('where store, server secret, certificate and admin token are kept'))
    .addOption(setting('--workers <number>', 'processes that share the work', numberFrom('--workers', 1, 256), '1'));
}

export function stateOption(description: string): Setting {
  return setting('--state-dir <dir>', description, TEXT).default(
    defaultStateDirectory(),
    '$STATE_DIRECTORY or ~/.local/state/peerdist',
  );
}

/** @param secrets what content information is sealed with where it leaves this machine */
export function storeOptions(
  { store, maxCache, memory, stateDir }: StoreValues,
  role: RoleName,
  secrets: () => readonly [ServerSecret, ...ServerSecret[]],
): StoreOptions {
  if (store === 'memory') return { kind: 'memory', maxBytes: maxCache ?? DEFAULTS.memory[role] };
  if (store === 'disk') {
    const maxBytes = maxCache ?? DEFAULTS.disk[role];
    return { kind: 'disk', maxBytes, memoryBytes: Math.min(memory, maxBytes), stateDirectory: stateDir };
  }
  return { kind: 'redis', url: store.url, memoryBytes: memory, secrets: secrets() };
}

function parseStore(text: string): StoreValues['store'] {
  if (text === 'memory' || text === 'disk') return text;
  if (/^rediss?:\/\//.test(text)) return { url: text };
  throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', '--store is memory, disk, or a URL like redis://host:6379');
}

export const STORE: Kind = {
  expected: 'memory, disk, or a URL like redis://host:6379',
  schema: { type: 'string', pattern: '^(memory|disk|rediss?://.+)$' },
  parse: parseStore,
};
