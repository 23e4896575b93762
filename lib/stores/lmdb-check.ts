/** Run by itself, with the directory of a store: walks all of it and ends with 0, with 1 and a line, or by the signal that damage brings. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'lmdb';
import { isTableSound } from './lmdb-rows.ts';

function damageOf(directory: string): string | undefined {
  const root = open({ path: directory, noSubdir: false, maxDbs: 16, readOnly: true, cache: false, encoding: 'binary' });
  const { lastPageNumber, pageSize } = root.getStats() as { lastPageNumber: number; pageSize: number };
  // After that: others may be making it longer.
  if ((lastPageNumber + 1) * pageSize > statSync(join(directory, 'data.mdb')).size) return 'its file has been cut';
  // Every page but those of the values, whose hashes are checked when they are used.
  const names = [...root.getKeys()].filter((name) => typeof name === 'string' && name !== 'values') as string[];
  for (const name of names) {
    const encoding = name === 'recency' ? 'string' : 'msgpack';
    for (const entry of root.openDB(name, { encoding, cache: false }).getRange()) void entry;
  }
  return isTableSound(root) ? undefined : 'its tables contradict each other';
}

let damage: string | undefined;
try {
  damage = damageOf(process.argv[2] ?? '');
} catch (error) {
  damage = (error as Error).message;
}
if (damage !== undefined) process.stderr.write(`${damage.split('\n')[0]}\n`);
process.exit(damage === undefined ? 0 : 1);
