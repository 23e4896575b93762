/**
 * A directory with an LMDB environment: who owns it, whether it can be opened, what becomes of a damaged one.
 *
 * LMDB survives the end of its process at any moment, but it maps its file and believes it: a truncated or foreign one ends the process (SIGBUS,
 * SIGSEGV). So a file that was not closed by its owner, or was changed since, is first opened and walked by a child; where the
 * child dies, the directory is moved aside.
 */
import { execFile } from 'node:child_process';
import { linkSync, readFileSync, renameSync, rmSync, statfsSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import type { RootDatabase } from 'lmdb';
import { makeDirectory } from './make-directory.ts';
import { PeerDistError } from '../errors.ts';

export type { Database, RootDatabase } from 'lmdb';

/** Files of a store directory beside those of LMDB. */
export const DATA_FILE = 'data.mdb';
const CLEAN_FILE = 'closed';
const OWNER_FILE = 'owner';

/** Attempts to become the owner, where others try too. */
const CLAIM_ATTEMPTS = 10;
/** Bytes a disk must have free. Policy. */
const MIN_ROOM_BYTES = 128 * 1024;
/** Exit code of the walk that has found damage. */
const DAMAGED = 1;
/** Milliseconds for the walk; whoever takes longer is stuck in a file it cannot read. Policy, not protocol. */
const CHECK_TIMEOUT_MS = 600_000;

export interface EnvironmentOptions {
  readonly directory: string;
  /** Told in a line what an administrator should know. */
  readonly warn?: ((line: string) => void) | undefined;
  /** True where another process is the owner and has the directory open: nothing is checked or claimed. @default false */
  readonly isGuest?: boolean | undefined;
}

export interface Environment {
  readonly root: RootDatabase;
  readonly directory: string;
  /** One transaction, see {@link transact}. */
  transact<T>(work: () => T): Promise<T>;
  close(): Promise<void>;
}

/**
 * Opens the environment of a directory, which is made where there is none.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_IN_USE` when another process owns it; `ERR_PEERDIST_STORE_UNAVAILABLE` when it cannot be made,
 * read or written, or the package `lmdb` is not installed
 */
export async function openEnvironment(options: EnvironmentOptions): Promise<Environment> {
  const { directory, warn = () => {}, isGuest = false } = options;
  const lmdb = await loadLmdb();
  try {
    makeDirectory(directory);
    assertRoom(directory);
    if (!isGuest) {
      claim(directory);
      await moveAsideIfDamaged(directory, warn);
      rmSync(join(directory, CLEAN_FILE), { force: true });
    }
    const root = lmdb.open({
      path: directory,
      noSubdir: false,
      maxDbs: 16,
      cache: false,
      encoding: 'binary',
      // What is left of other memory in the slack of pages stays in this machine's own file.
      noMemInit: true,
      // Measured: half the work of the default. What is lost with the machine, not the process, is the last moment.
      overlappingSync: false,
    });
    return {
      root,
      directory,
      transact: (work) => transact(root, work),
      async close() {
        await root.close();
        if (!isGuest) leave(directory, stateOf(directory));
      },
    };
  } catch (error) {
    if (error instanceof PeerDistError) throw error;
    if (!isGuest) leave(directory, undefined);
    throw unavailable(`cannot use the store ${directory}: ${(error as NodeJS.ErrnoException).message}`, error);
  }
}

/** Opens an environment and what is made of it, or nothing. @throws as {@link openEnvironment} */
export async function openOn<S>(options: EnvironmentOptions, make: (environment: Environment) => S): Promise<S> {
  const environment = await openEnvironment(options);
  try {
    return make(environment);
  } catch (error) {
    await environment.close().catch(ignore);
    if (error instanceof PeerDistError) throw error;
    throw unavailable(`cannot use the store ${options.directory}: ${(error as Error).message}`, error);
  }
}

/** Process that has the directory open, if there is one. */
export function ownerOf(directory: string): number | undefined {
  try {
    const [pid = '', start = ''] = readFileSync(join(directory, OWNER_FILE), 'utf8').split(' ');
    if (!(Number(pid) > 0) || Number(pid) === process.pid || startOf(Number(pid)) !== start) return undefined;
    process.kill(Number(pid), 0);
    return Number(pid);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Somebody else's process is there all the same.
    return code === 'EPERM' ? -1 : undefined;
  }
}

let underWay = 0;

/**
 * Runs `work` in a transaction with what was queued in the same turn of the event loop.
 *
 * LMDB's thread waits for it, and a process that ends waits for that thread: one that ends by itself in between would never end, and would keep
 * everybody else from writing. Then it is killed, which LMDB survives.
 */
async function transact<T>(root: RootDatabase, work: () => T): Promise<T> {
  if (underWay === 0) process.on('exit', endAtOnce).on('uncaughtExceptionMonitor', report);
  underWay += 1;
  // At the end of the turn LMDB makes a promise of its own, which nobody else looks at, and which fails with the transaction.
  setImmediate(() => void root.committed.then(ignore, ignore));
  try {
    return await root.transaction(work);
  } finally {
    underWay -= 1;
    if (underWay === 0) process.off('exit', endAtOnce).off('uncaughtExceptionMonitor', report);
  }
}

function ignore(): void {}

function endAtOnce(): void {
  process.kill(process.pid, 'SIGKILL');
}

/** Node would say it after it has ended. */
function report(error: unknown): void {
  writeSync(2, `${inspect(error)}\n`);
}

async function loadLmdb(): Promise<typeof import('lmdb')> {
  try {
    return await import('lmdb');
  } catch (error) {
    throw unavailable('a store on disk needs the package lmdb, which is not installed', error);
  }
}

/** Puts our name into the directory, as a whole and only where there is none, or that of a process that has ended. */
function claim(directory: string): void {
  const file = join(directory, OWNER_FILE);
  const part = `${file}.${process.pid}`;
  writeFileSync(part, `${process.pid} ${startOf(process.pid)}`, { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt += 1) {
      if (isLinked(part, file)) return;
      const owner = ownerOf(directory);
      if (owner !== undefined)
        throw new PeerDistError(
          'ERR_PEERDIST_STORE_IN_USE',
          `the store ${directory} is in use by another process${owner < 0 ? '' : ` (${owner})`}; see --state-dir`,
        );
      rmSync(file, { force: true });
    }
    throw unavailable(`the store ${directory} is being opened by others`, undefined);
  } finally {
    rmSync(part, { force: true });
  }
}

function isLinked(part: string, file: string): boolean {
  try {
    linkSync(part, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** LMDB maps a file of its own for locks: where there is no room for it, the process ends. */
function assertRoom(directory: string): void {
  const { bavail, bsize } = statfsSync(directory);
  if (bavail * bsize < MIN_ROOM_BYTES)
    throw unavailable(`cannot use the store ${directory}: the disk is full`, undefined);
}

/** When a process began, so that a number that was given again is not taken for it. Empty where the system does not say. */
function startOf(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

/** @param state of its file as it was closed; undefined lets the next one look closely */
function leave(directory: string, state: string | undefined): void {
  try {
    if (state !== undefined) writeFileSync(join(directory, CLEAN_FILE), state, { mode: 0o600 });
    rmSync(join(directory, OWNER_FILE), { force: true });
  } catch {
    // Then the next one finds the name of a process that has ended.
  }
}

async function moveAsideIfDamaged(directory: string, warn: (line: string) => void): Promise<void> {
  const state = stateOf(directory);
  if (state === undefined || wasClosedAs(directory) === state) return;
  const damage = await findDamage(directory);
  if (damage === undefined) return;
  const aside = `${directory}.damaged`;
  // One is enough to look at; more would fill the disk.
  rmSync(aside, { recursive: true, force: true });
  renameSync(directory, aside);
  makeDirectory(directory);
  claim(directory);
  warn(`the store ${directory} is damaged (${damage}); moved it to ${aside} and started an empty one`);
}

/** Ends of a process that a damaged file brings about. */
const CRASHES: ReadonlySet<string> = new Set(['SIGBUS', 'SIGSEGV', 'SIGABRT', 'SIGILL', 'SIGFPE']);

/**
 * Walks a store in a process of its own.
 *
 * @returns what is wrong with it
 * @throws {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE` when that could not be found out
 */
export function findDamage(directory: string): Promise<string | undefined> {
  const script = fileURLToPath(new URL('./lmdb-check.js', import.meta.url));
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [script, directory],
      { timeout: CHECK_TIMEOUT_MS, killSignal: 'SIGKILL', cwd: dirname(directory), env: {} },
      (error, _stdout, stderr) => {
        if (error === null) return resolve(undefined);
        const { code, signal } = error;
        if (code === DAMAGED) return resolve(stderr.trim().split('\n').at(-1) || 'it cannot be read');
        if (signal != null && CRASHES.has(signal)) return resolve(`reading it ended with ${signal}`);
        return reject(unavailable(`could not look through the store ${directory}: ${signal ?? error.message}`, error));
      },
    );
  });
}

/** What its file was like when it was closed. */
function wasClosedAs(directory: string): string | undefined {
  try {
    return readFileSync(join(directory, CLEAN_FILE), 'utf8');
  } catch {
    return undefined;
  }
}

/** Size of its file and when that was written; undefined where there is none. */
function stateOf(directory: string): string | undefined {
  try {
    const { size, mtimeMs } = statSync(join(directory, DATA_FILE));
    return `${size} ${mtimeMs}`;
  } catch {
    return undefined;
  }
}

function unavailable(message: string, cause: unknown): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_STORE_UNAVAILABLE', message, { cause });
}
