/** Where a role keeps what must survive a restart. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PeerDistError } from '../../lib/errors.ts';

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
      mkdirSync(directory, { recursive: true, mode: 0o700 });
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
