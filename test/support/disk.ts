/** Disks as tests want them: quick ones, small ones, ones that take no more. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';

type Owner = Pick<Test, 'teardown'>;

/** A directory that is gone after the test; in memory where the machine has that, because these tests sync a thousand times. */
export function quickDirectory(t: Owner): string {
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'peerdist-test-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A file system of its own. @returns where, and `remount` for other options; undefined where this user or machine cannot have one */
export function smallDisk(
  t: Owner,
  bytes: number,
): { readonly directory: string; readonly remount: (options: string) => void } | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'peerdist-disk-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', directory], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  // Lazily: what a test that failed has left may still be in it.
  t.teardown(() => execFileSync('umount', ['-l', directory]));
  return { directory, remount: (options) => execFileSync('mount', ['-o', `remount,${options}`, directory]) };
}

/** Leaves so many bytes, give or take a page. */
export function fillDisk(directory: string, free: number): void {
  const ballast = join(directory, 'ballast');
  writeFileSync(ballast, '');
  try {
    for (;;) writeFileSync(ballast, Buffer.alloc(4096), { flag: 'a' });
  } catch {
    truncateSync(ballast, Math.max(0, statSync(ballast).size - free));
  }
}

/** True where {@link limitFiles} works. */
export const canLimitFiles = canRun('prlimit', ['--version']);

/** No file of this process can grow past that any more, as if the disk were full; undefined: it can again. */
export function limitFiles(bytes: number | undefined): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes ?? 'unlimited'}:unlimited`]);
}

/** Changes bytes in a file, wherever it holds these. */
export function corrupt(file: string, held: Uint8Array): void {
  const whole = readFileSync(file);
  const places: number[] = [];
  for (let at = whole.indexOf(held); at >= 0; at = whole.indexOf(held, at + 1)) places.push(at);
  if (places.length === 0) throw new Error('not in the file');
  const changed = Buffer.from(held.subarray(0, 7)).map((byte) => byte ^ 0x55);
  for (const at of places) writeAt(file, at, changed);
}

export function writeAt(file: string, offset: number, bytes: Uint8Array): void {
  const descriptor = openSync(file, 'r+');
  writeSync(descriptor, bytes, 0, bytes.byteLength, offset);
  closeSync(descriptor);
}

function canRun(command: string, args: readonly string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
