/** Where a role keeps what must survive a restart. */
import { randomBytes, randomUUID } from 'node:crypto';
import { makeDirectory } from '../../../lib/stores/index.ts';
import { closeSync, fchownSync, fsyncSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PeerDistError } from '../../../lib/errors.ts';

const TOKEN_FILE = 'admin-token';

/** What systemd gives a service, else that of the XDG base directories. */
export function defaultStateDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  const { STATE_DIRECTORY: ofService, XDG_STATE_HOME: ofUser } = environment;
  return ofService?.split(':')[0] || join(ofUser || join(homedir(), '.local', 'state'), 'peerdist');
}

/** The token that lets an administrator of this machine command a running role; made on first use. Undefined where it cannot be kept. */
export function keptToken(directory: string): string | undefined {
  try {
    return readToken(directory);
  } catch {
    const token = randomBytes(32).toString('base64url');
    try {
      makeDirectory(directory);
      writeFileSync(join(directory, TOKEN_FILE), token, { mode: 0o600 });
      return token;
    } catch {
      return undefined;
    }
  }
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when there is none that this user may read */
export function readToken(directory: string): string {
  const file = join(directory, TOKEN_FILE);
  try {
    const token = readFileSync(file, 'utf8').trim();
    if (token !== '') return token;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `cannot read the token ${file}: ${code}; see --state-dir`);
  }
  throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `the token ${file} is empty`);
}

/**
 * Writes a file that is there as a whole or not at all, for its owner only, whenever process or machine die. That may leave a `*.part`, which
 * nobody reads.
 *
 * @param directory of the file; made if need be
 * @param putInPlace gives what is written its name, by a link or a rename
 * @throws what the file system throws; then the file is what it was, or is the new one whole
 */
export function writeAside(
  directory: string,
  file: string,
  text: string,
  putInPlace: (part: string, file: string) => void,
): void {
  makeDirectory(directory);
  const part = `${file}.${randomUUID()}.part`;
  const descriptor = openSync(part, 'wx', 0o600);
  try {
    try {
      writeFileSync(descriptor, text);
      giveToOwner(descriptor, directory);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    putInPlace(part, file);
  } finally {
    rmSync(part, { force: true });
  }
  flushDirectory(directory);
}

/** What an administrator writes as root into the directory of a service is the service's. */
function giveToOwner(descriptor: number, directory: string): void {
  const { uid, gid } = statSync(directory);
  if (process.getuid?.() === 0 && uid !== 0) fchownSync(descriptor, uid, gid);
}

/** A new name does not outlast a loss of power before. Windows cannot be asked for it. */
function flushDirectory(directory: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(directory, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
