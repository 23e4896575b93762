/**
 * The certificate authority that a directory keeps for the interception of TLS. Whoever has its key can pass for every site that its clients
 * trust it for, so nothing is read from a directory that others than its owner could look into or change.
 */
import { type X509Certificate } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  type Stats,
  statSync,
} from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { type CertificateAndKey, checkAuthority, makeAuthority } from '../../../lib/crypto/certificates.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import { makeDirectory } from '../../../lib/stores/index.ts';
import { parseHostPattern } from '../../http-proxy/index.ts';
import { writeAside } from './state-directory.ts';

const CERTIFICATE_FILE = 'ca-cert.pem';
const KEY_FILE = 'ca-key.pem';
/** What is allowed at most. */
const DIRECTORY_MODE = 0o700;
const KEY_MODE = 0o600;
const CERTIFICATE_MODE = 0o644;

const DAY_MS = 86_400_000;

export interface KeptAuthority {
  readonly identity: CertificateAndKey;
  readonly certificate: X509Certificate;
  /** What clients are to trust. */
  readonly file: string;
}

export interface AuthorityPlan {
  readonly name: string;
  readonly days: number;
  /** Hosts as `--intercept` takes them, that it can vouch for; names beneath them too. Undefined for all. */
  readonly permit: readonly string[] | undefined;
  /** Replace one that is there. */
  readonly force: boolean;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when one is there, or cannot be kept */
export async function createAuthority(
  directory: string,
  { name, days, permit, force }: AuthorityPlan,
): Promise<KeptAuthority> {
  const [file, keyFile] = [join(directory, CERTIFICATE_FILE), join(directory, KEY_FILE)];
  try {
    makeDirectory(directory);
  } catch (error) {
    throw unusable(`cannot make ${directory}: ${codeOf(error)}`);
  }
  checkMode(directory, statSync(directory), DIRECTORY_MODE);
  const there = [keyFile, file].find((each) => existsSync(each));
  if (!force && there !== undefined)
    throw unusable(`${there} exists already; with --force it is replaced, and clients have to trust the new one`);
  const validity = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + days * DAY_MS) };
  const { cert, key } = await makeAuthority(name, validity, permit && permittedNames(permit));
  // A link, unlike a rename, fails where somebody else has made a file meanwhile.
  const putInPlace = force ? renameSync : linkSync;
  try {
    writeAside(directory, keyFile, key, putInPlace);
    writeAside(directory, file, `${cert}\n`, putInPlace);
    chmodSync(file, CERTIFICATE_MODE);
  } catch (error) {
    throw unusable(`cannot write into ${directory}: ${codeOf(error)}`);
  }
  return readAuthority(directory);
}

function permittedNames(hosts: readonly string[]): { names: string[]; addresses: string[] } {
  const all = hosts.map((each) => parseHostPattern(each).host);
  return { names: all.filter((host) => isIP(host) === 0), addresses: all.filter((host) => isIP(host) !== 0) };
}

/**
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when it cannot be read, is open to others than its owner, or is no authority;
 *   not when it has expired
 */
export function readAuthority(directory: string): KeptAuthority {
  const file = join(directory, CERTIFICATE_FILE);
  try {
    checkMode(directory, statSync(directory), DIRECTORY_MODE);
  } catch (error) {
    throw unreadable(directory, error);
  }
  const identity = {
    cert: readPrivate(file, CERTIFICATE_MODE),
    key: readPrivate(join(directory, KEY_FILE), KEY_MODE),
  };
  try {
    return { identity, certificate: checkAuthority(identity), file };
  } catch (error) {
    throw unusable(`the authority in ${directory} cannot be used: ${(error as Error).message}`);
  }
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for one that is not good now */
export function checkCurrent({ certificate, file }: KeptAuthority, now: number): void {
  if (now >= Date.parse(certificate.validTo))
    throw unusable(`${file} has expired on ${certificate.validTo}; make another with peerdist ca create --force`);
  if (now < Date.parse(certificate.validFrom))
    throw unusable(`${file} is not valid before ${certificate.validFrom}: is the clock right?`);
}

function readPrivate(file: string, mode: number): string {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, 'r');
    checkMode(file, fstatSync(descriptor), mode);
    return readFileSync(descriptor, 'utf8');
  } catch (error) {
    throw unreadable(file, error);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** Windows has no such modes: there it is the access list of the directory that counts. */
function checkMode(path: string, { mode, uid }: Stats, allowed: number): void {
  if (process.platform === 'win32') return;
  if ((mode & 0o777 & ~(allowed | 0o700)) !== 0)
    throw unusable(`${path} is open to others than its owner: chmod ${allowed.toString(8)} ${path}`);
  const own = process.geteuid?.();
  if (own !== 0 && uid !== 0 && uid !== own)
    throw unusable(`${path} belongs to another user, who could change it: chown it to the one who runs the proxy`);
}

function unreadable(path: string, error: unknown): PeerDistError {
  if (error instanceof PeerDistError) return error;
  const code = codeOf(error);
  const advice =
    code === 'ENOENT'
      ? '; peerdist ca create makes one'
      : code === 'EACCES'
        ? '; it has to belong to the user who runs the proxy'
        : '';
  return unusable(`cannot read ${path}: ${code}${advice}`);
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
