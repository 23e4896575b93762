/** Run by itself, with the directory of a store: walks all of it and ends with 0, with 1 and a line, or by the signal that damage brings. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { open } from 'lmdb';
import { isTableSound } from './lmdb-rows.ts';

const [directory = ''] = process.argv.slice(2);
const size = statSync(join(directory, 'data.mdb')).size;
const root = open({ path: directory, noSubdir: false, maxDbs: 16, readOnly: true, cache: false, encoding: 'binary' });
const { lastPageNumber, pageSize } = root.getStats() as { lastPageNumber: number; pageSize: number };
if ((lastPageNumber + 1) * pageSize > size) {
  process.stderr.write('its file has been cut\n');
  process.exit(1);
}
if (!isTableSound(root)) {
  process.stderr.write('its tables contradict each other\n');
  process.exit(1);
}
process.exit(0);
