/** What a role keeps: its directory, its store, its secret, its certificates. */
import { X509Certificate } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname, join, resolve as absolute } from 'node:path';
import { isPeerDistError } from '../../../lib/errors.ts';
import {
  DATA_FILE,
  findDamage,
  LmdbRecordStore,
  makeDirectory,
  openRedis,
  ownerOf,
} from '../../../lib/stores/index.ts';
import { withoutPasswords } from '../config/discretion.ts';
import { existingSecret, SECRET_FILE } from '../kept/kept-secret.ts';
import { type RoleName, storeDirectories } from '../roles/stores.ts';
import { formatBytes } from '../options/units.ts';
import { bad, type Finding, ok, skipped, warning } from './finding.ts';
import { inTime } from '../in-time.ts';

/** Bytes of a server secret below which it can be guessed. Policy. */
const SHORT_SECRET_BYTES = 16;
/** A certificate is renewed before that. Policy. */
const SOON_MS = 14 * 86_400_000;
const TIMEOUT_MS = 3_000;

export function checkStateDirectory(directory: string): Finding {
  const what = 'state directory';
  try {
    const made = makeDirectory(directory);
    // A name nobody can foresee: whoever owns the directory could have put a link there.
    rmSync(mkdtempSync(join(directory, '.doctor-')), { recursive: true });
    if (made !== undefined) {
      // Left here it would belong to whoever asked, and not to the user that the role runs as.
      removeEmpty(directory, made);
      return ok(what, `${directory} can be made`);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return bad(
      what,
      `${directory} cannot be written: ${code}`,
      'give it to the user that runs peerdist, or choose another by --state-dir',
    );
  }
  const { mode } = statSync(directory);
  if (process.platform === 'win32' || (mode & 0o077) === 0) return ok(what, `${directory} can be written`);
  return warning(what, `others can look into ${directory}`, `chmod 700 ${directory}`);
}

export function checkRoom(directory: string, maxBytes: number): Finding {
  const what = 'disk space';
  let existing = directory;
  for (;;) {
    try {
      accessSync(existing, constants.F_OK);
      break;
    } catch {
      existing = join(existing, '..');
    }
  }
  const { bavail, bsize } = statfsSync(existing);
  const free = bavail * bsize;
  const says = `${formatBytes(free)} free where ${directory} is; the store may take ${formatBytes(maxBytes)}`;
  return free >= maxBytes
    ? ok(what, says)
    : warning(what, says, 'a smaller --max-cache, or another disk by --state-dir');
}

/** The store on disk, opened as the role would. */
export async function checkDisk(stateDirectory: string, role: RoleName): Promise<Finding> {
  const what = 'store';
  const directories = Object.values(storeDirectories(stateDirectory, role));
  if (directories.some((directory) => ownerOf(directory) !== undefined))
    return ok(what, 'in use by a peerdist that runs');
  for (const directory of directories.filter((each) => existsSync(join(each, DATA_FILE)))) {
    const damage = await findDamage(directory).catch((error: unknown) => (error as Error).message);
    if (damage !== undefined)
      return bad(
        what,
        `${directory} is damaged: ${damage}`,
        'start the role: it moves the damaged store aside and begins an empty one',
      );
  }
  let trial: string | undefined;
  let made: string | undefined;
  try {
    made = makeDirectory(stateDirectory);
    trial = mkdtempSync(join(stateDirectory, '.doctor-'));
    const store = await LmdbRecordStore.open({ directory: trial, maxBytes: 1024 * 1024 });
    await store.close();
    return ok(what, 'a store on disk can be opened');
  } catch (error) {
    const advice = isPeerDistError(error, 'ERR_PEERDIST_STORE_UNAVAILABLE')
      ? 'npm install lmdb, and a file system that can map files into memory; without: --store memory'
      : 'see --state-dir';
    return bad(what, (error as Error).message, advice);
  } finally {
    if (trial !== undefined) rmSync(trial, { recursive: true, force: true });
    if (made !== undefined) removeEmpty(stateDirectory, made);
  }
}

/** Removes what is empty, from a directory up to one that it is in. */
function removeEmpty(directory: string, outermost: string): void {
  try {
    for (let each = absolute(directory); each.startsWith(absolute(outermost)); each = dirname(each)) rmdirSync(each);
  } catch {
    // Somebody has something in it by now.
  }
}

export async function checkRedis(url: string): Promise<Finding> {
  const what = 'store';
  const shown = withoutPasswords(url);
  let connection: Awaited<ReturnType<typeof openRedis>>;
  try {
    connection = await openRedis(url, { warn: () => {} });
  } catch (error) {
    return bad(what, (error as Error).message, 'npm install @redis/client; a URL like redis://host:6379');
  }
  try {
    const info = await inTime(connection.send('peerdist', ['INFO', 'memory']), TIMEOUT_MS);
    const policy = info === undefined ? undefined : (/^maxmemory_policy:(\S+)/m.exec(String(info))?.[1] ?? 'unknown');
    if (policy === undefined)
      return bad(
        what,
        `Redis at ${shown} does not answer`,
        'is it running, is the address right, does a firewall or a password stand between?',
      );
    if (policy === 'noeviction')
      return warning(
        what,
        `Redis at ${shown} answers; when it is full it refuses to store (noeviction)`,
        'in redis.conf: maxmemory 4gb and maxmemory-policy allkeys-lru',
      );
    return ok(what, `Redis at ${shown} answers (${policy})`);
  } finally {
    await connection.close();
  }
}

export function checkKeptSecret(stateDirectory: string): Finding {
  const what = 'server secret';
  const file = join(stateDirectory, SECRET_FILE);
  let mode: number;
  try {
    ({ mode } = statSync(file));
  } catch {
    return ok(what, 'none yet: one is made at the first start');
  }
  if (process.platform !== 'win32' && (mode & 0o077) !== 0)
    return bad(
      what,
      `others can read ${file}`,
      `chmod 600 ${file}, and peerdist secret rotate, since others may have read it`,
    );
  try {
    return judged(what, existingSecret(stateDirectory).current.reveal().byteLength);
  } catch (error) {
    return bad(
      what,
      (error as Error).message,
      'peerdist secret import from another machine, or remove the file to get a new one',
    );
  }
}

/** A secret that was given. @param file where it stands, if in one */
export function checkGivenSecret(bytes: number, file: string | undefined): Finding {
  const what = 'server secret';
  if (file !== undefined && process.platform !== 'win32' && (statSync(file).mode & 0o077) !== 0)
    return warning(
      what,
      `others can read ${file}`,
      `chmod 600 ${file}, or 640 for a group of its own; and a new secret, since others may have read it`,
    );
  return judged(what, bytes);
}

function judged(what: string, bytes: number): Finding {
  if (bytes >= SHORT_SECRET_BYTES) return ok(what, `${bytes} bytes`);
  return warning(
    what,
    `only ${bytes} bytes: it can be guessed`,
    'leave it out, then 32 random bytes are made; peerdist secret export takes them along',
  );
}

export function checkCertificate(what: string, file: string | undefined): Finding {
  if (file === undefined) return skipped(what, 'none is given');
  try {
    const { validTo, validFrom, subject } = new X509Certificate(readFileSync(file));
    const left = Date.parse(validTo) - Date.now();
    const name = subject.split('\n').at(-1) ?? file;
    if (left < 0)
      return bad(what, `${name}: has expired on ${validTo}`, 'renew it; SIGHUP has a running service read it anew');
    if (Date.parse(validFrom) > Date.now())
      return bad(what, `${name}: is valid only from ${validFrom}`, 'is the clock of this machine right?');
    if (left < SOON_MS)
      return warning(what, `${name}: expires on ${validTo}`, 'renew it; SIGHUP has a running service read it anew');
    return ok(what, `${name}: until ${validTo}`);
  } catch (error) {
    return bad(what, `${file}: ${(error as Error).message.split('\n')[0]}`, 'give a certificate in PEM');
  }
}
