/** The options of roles that publish what passes: `reverse` and `head`. */
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import type { V1AlgorithmName } from '../../../lib/protocol/pccrc/index.ts';
import type { ReverseOptions } from '../roles/roles.ts';
import { addSecretOptions, type SecretOptions } from './secret-options.ts';
import { LIMIT, numberFrom, oneOf, setting, SIZE } from './settings.ts';

export interface PublishingValues extends SecretOptions {
  readonly algorithm: V1AlgorithmName;
  readonly minSize: number;
  readonly maxSize: number;
  readonly hashThreads: 0 | 1 | 2;
}

export function addPublishingOptions(command: Command): Command {
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
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function checkPublishing({ minSize, maxSize }: PublishingValues): void {
  if (minSize > maxSize)
    throw new PeerDistError(
      'ERR_PEERDIST_INVALID_OPTION',
      '--min-size is larger than --max-size: nothing would be published',
    );
}

export function publishingOptions({
  algorithm,
  minSize,
  maxSize,
  hashThreads,
}: PublishingValues): Pick<ReverseOptions, 'algorithm' | 'minBytes' | 'maxBytes' | 'hashThreads'> {
  return { algorithm, minBytes: minSize, maxBytes: maxSize, hashThreads };
}
