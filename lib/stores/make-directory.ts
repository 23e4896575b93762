import { existsSync, mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/**
 * Makes a directory with all that it is in, for its owner only. Node's own way does not return where a file system says of a directory that
 * is there that nothing can be in it (Node 20, `/proc`).
 *
 * @returns the outermost one that was made; undefined when all were there
 * @throws what the file system throws
 */
export function makeDirectory(directory: string): string | undefined {
  const missing: string[] = [];
  for (let each = resolve(directory); !existsSync(each); each = dirname(each)) missing.unshift(each);
  for (const each of missing) {
    try {
      mkdirSync(each, { mode: 0o700 });
    } catch (error) {
      // Another process was quicker.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  return missing[0];
}
