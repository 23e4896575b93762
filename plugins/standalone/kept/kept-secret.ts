/**
 * The server secret that a state directory keeps.
 *
 * The file `server-secret` holds the current one and those it replaced, newest first: each a line of hexadecimal with its newline. It is put in
 * place as a whole, so whoever reads it while it changes, and whoever comes after a process or the machine has died, finds all of the old or
 * all of the new. Of processes that start at once one makes the secret and all use it; of two that replace it at once the later wins.
 */
import { closeSync, fstatSync, linkSync, openSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { fromHex, toHex } from '../../../lib/bytes/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import { randomSecret } from '../options/secret-options.ts';
import { writeAside } from './state-directory.ts';

/** Name of the file in the directory. */
export const SECRET_FILE = 'server-secret';

/** Secrets kept after they were replaced. Policy, not protocol. */
export const MAX_PREVIOUS_SECRETS = 4;

export interface KeptSecret {
  readonly current: ServerSecret;
  /** Those it replaced, newest first. */
  readonly previous: readonly ServerSecret[];
  /** The current one was made or put there just now. */
  readonly isNew: boolean;
}

/**
 * The secret of a directory; 32 random bytes on first use.
 *
 * @param directory made if need be
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when it cannot be read or kept, or is open to others than its owner
 */
export function keptSecret(directory: string): KeptSecret {
  return read(directory) ?? create(directory, randomSecret());
}

/** @throws {@link PeerDistError} as {@link keptSecret}, and when there is none */
export function existingSecret(directory: string): KeptSecret {
  const kept = read(directory);
  if (kept === undefined) throw unusable(`there is no server secret in ${directory} yet; see --state-dir`);
  return kept;
}

/** Makes a new secret current and the old one the newest of the previous. @throws {@link PeerDistError} as {@link existingSecret} */
export function rotateSecret(directory: string): KeptSecret {
  existingSecret(directory);
  return replaceSecret(directory, randomSecret());
}

/** Makes this secret current, unless it is, and the old one the newest of the previous. @throws {@link PeerDistError} as {@link keptSecret} */
export function replaceSecret(directory: string, secret: ServerSecret): KeptSecret {
  const kept = read(directory) ?? create(directory, secret);
  if (isSame(kept.current, secret)) return kept;
  const previous = [kept.current, ...kept.previous]
    .filter((each) => !isSame(each, secret))
    .slice(0, MAX_PREVIOUS_SECRETS);
  write(directory, [secret, ...previous], renameSync);
  return { current: secret, previous, isNew: true };
}

/** Keeps a first secret, unless another process was quicker: then it is that one's. */
function create(directory: string, secret: ServerSecret): KeptSecret {
  let isFirst = true;
  write(directory, [secret], (part, file) => {
    try {
      // Unlike a rename it fails where there is a file.
      linkSync(part, file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      isFirst = false;
    }
  });
  return isFirst ? { current: secret, previous: [], isNew: true } : existingSecret(directory);
}

/** Undefined where there is none. */
function read(directory: string): KeptSecret | undefined {
  const file = join(directory, SECRET_FILE);
  const lines = readLines(file);
  if (lines === undefined) return undefined;
  // What has lost its end has lost its last newline, too.
  if (lines.pop() !== '') throw unusable(`the server secret ${file} is damaged`);
  if (lines.length === 0) throw unusable(`the server secret ${file} is empty`);
  try {
    const [current, ...previous] = lines.map((line) => new ServerSecret(fromHex(line)));
    return { current: current as ServerSecret, previous, isNew: false };
  } catch {
    throw unusable(`the server secret ${file} is damaged`);
  }
}

function readLines(file: string): string[] | undefined {
  let descriptor: number | undefined;
  let text: string;
  let isOpenToOthers: boolean;
  try {
    descriptor = openSync(file, 'r');
    // Windows has no such modes: there it is the access list of the directory that counts.
    isOpenToOthers = process.platform !== 'win32' && (fstatSync(descriptor).mode & 0o077) !== 0;
    text = readFileSync(descriptor, 'latin1');
  } catch (error) {
    if (descriptor === undefined && codeOf(error) === 'ENOENT') return undefined;
    throw unusable(`cannot read the server secret ${file}: ${codeOf(error)}; see --state-dir`);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
  if (isOpenToOthers) throw unusable(`the server secret ${file} is open to others than its owner; chmod 600 it`);
  return text.split('\n');
}

function write(
  directory: string,
  secrets: readonly ServerSecret[],
  putInPlace: (part: string, file: string) => void,
): void {
  const file = join(directory, SECRET_FILE);
  const text = secrets.map((secret) => `${toHex(secret.reveal())}\n`).join('');
  try {
    writeAside(directory, file, text, putInPlace);
  } catch (error) {
    throw unusable(`cannot write the server secret ${file}: ${codeOf(error)}; see --state-dir`);
  }
}

function isSame(a: ServerSecret, b: ServerSecret): boolean {
  return toHex(a.reveal()) === toHex(b.reveal());
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
