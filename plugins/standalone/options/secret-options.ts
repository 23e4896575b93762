/** The one set of secret options that `hash` and `reverse` share. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { fromHex } from '../../../lib/bytes/index.ts';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import { setting, TEXT } from './settings.ts';

export interface SecretOptions {
  readonly secret?: string;
  readonly secretUtf16?: string;
  readonly secretHex?: string;
  readonly secretFile?: string;
}

export function addSecretOptions(command: Command): Command {
  return command
    .addOption(
      setting('--secret <text>', 'server secret, UTF-8 (shows in the process list; better --secret-file)', TEXT),
    )
    .addOption(
      setting('--secret-utf16 <text>', 'server secret as `netsh branchcache set key` makes it of a pass phrase', TEXT),
    )
    .addOption(setting('--secret-hex <hex>', 'server secret, hexadecimal', TEXT))
    .addOption(setting('--secret-file <file>', 'server secret, the raw bytes of a file', TEXT));
}

/** Where an option's value comes from, as Commander says: `cli`, `env`, `config`. */
export type SourceOf = (attribute: string) => string | undefined;

/** Options that go before others, the strongest first. */
const SOURCES = ['cli', 'env', 'config'] as const;

/**
 * Reads the secret: that of the command line, else of the environment, else of a configuration file.
 *
 * @param sourceOf where a value comes from; without it all are from the command line
 * @param warn told what the administrator should know
 * @returns undefined when none was given
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function readSecret(
  options: SecretOptions,
  warn: (line: string) => void,
  sourceOf: SourceOf = () => 'cli',
): ServerSecret | undefined {
  const given = (Object.keys(SECRETS) as (keyof SecretOptions)[]).filter((name) => options[name] !== undefined);
  const strongest = SOURCES.find((source) => given.some((name) => sourceOf(name) === source));
  const [name, ...others] = given.filter((each) => sourceOf(each) === strongest);
  if (name === undefined) return undefined;
  if (others.length > 0) throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', 'give one secret, not several');
  if (strongest === 'cli' && name !== 'secretFile') {
    warn('warning: a secret on the command line shows in the process list; --secret-file or PEERDIST_SECRET do not');
  }
  const text = options[name] as string;
  return nonEmpty(() => SECRETS[name](text));
}

/** How each option says a secret. */
const SECRETS = {
  secret: (text) => ServerSecret.fromText(text),
  secretUtf16: (text) => ServerSecret.fromUtf16(text),
  secretHex: (text) => new ServerSecret(fromHex(text)),
  secretFile: (file) => new ServerSecret(readSecretFile(file)),
} as const satisfies Record<keyof SecretOptions, (text: string) => ServerSecret>;

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
    if (isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) throw error;
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `the secret is unusable: ${(error as Error).message}`);
  }
}
