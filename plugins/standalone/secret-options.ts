/** The one set of secret options that `hash` and `reverse` share. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { fromHex } from '../../lib/bytes/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';

export interface SecretOptions {
  readonly secret?: string;
  readonly secretUtf16?: string;
  readonly secretHex?: string;
  readonly secretFile?: string;
}

export function addSecretOptions(command: Command): Command {
  return command
    .option('--secret <text>', 'server secret, UTF-8 (shows in the process list; better --secret-file)')
    .option('--secret-utf16 <text>', 'server secret as `netsh branchcache set key` makes it of a pass phrase')
    .option('--secret-hex <hex>', 'server secret, hexadecimal')
    .option('--secret-file <file>', 'server secret, the raw bytes of a file');
}

/**
 * Reads the secret from the options or from `PEERDIST_SECRET`.
 *
 * @param warn told what the administrator should know
 * @returns undefined when none was given
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function readSecret(
  options: SecretOptions,
  warn: (line: string) => void,
  environment: NodeJS.ProcessEnv = process.env,
): ServerSecret | undefined {
  const { secret, secretUtf16, secretHex, secretFile } = options;
  if ([secret, secretUtf16, secretHex, secretFile].filter((value) => value !== undefined).length > 1) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'give one secret, not several');
  }
  if (secret !== undefined || secretUtf16 !== undefined || secretHex !== undefined) {
    warn('warning: a secret on the command line shows in the process list; --secret-file or PEERDIST_SECRET do not');
  }
  if (secret !== undefined) return nonEmpty(() => ServerSecret.fromText(secret));
  if (secretUtf16 !== undefined) return nonEmpty(() => ServerSecret.fromUtf16(secretUtf16));
  if (secretHex !== undefined) return nonEmpty(() => new ServerSecret(fromHex(secretHex)));
  if (secretFile !== undefined) {
    const bytes = readSecretFile(secretFile);
    return nonEmpty(() => new ServerSecret(bytes));
  }
  const fromEnvironment = environment['PEERDIST_SECRET'];
  return fromEnvironment === undefined || fromEnvironment === '' ? undefined : ServerSecret.fromText(fromEnvironment);
}

/** 32 random bytes. */
export function randomSecret(): ServerSecret {
  return new ServerSecret(randomBytes(32));
}

function readSecretFile(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `cannot read the secret file ${file}: ${code}`);
  }
}

function nonEmpty(make: () => ServerSecret): ServerSecret {
  try {
    return make();
  } catch (error) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `the secret is unusable: ${(error as Error).message}`);
  }
}
