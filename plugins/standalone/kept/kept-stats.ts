/** What the stores of a state directory hold, in figures. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import Table from 'cli-table3';
import { DATA_FILE } from '../../../lib/stores/index.ts';
import type { KeptStore } from './kept-stores.ts';
import type { RoleName } from '../roles/stores.ts';
import { formatBytes } from '../options/units.ts';

export interface KeptStats {
  readonly role: RoleName;
  readonly store: KeptStore['kind'];
  readonly directory: string;
  readonly entries: number;
  /** With bookkeeping, as it counts against the limit. */
  readonly bytes: number;
  readonly fileBytes: number;
  /** As {@link formatTime}; null where there is no entry. */
  readonly oldestUse: string | null;
  readonly newestUse: string | null;
  readonly isOpen: boolean;
  /** Process that has it open; null where there is none, or where it cannot be told. */
  readonly process: number | null;
}

export function statsOf(role: RoleName, { kind, directory, owner, store }: KeptStore): KeptStats {
  const [oldest, newest] = store.uses ?? [];
  return {
    role,
    store: kind,
    directory,
    entries: store.count,
    bytes: store.bytes,
    fileBytes: statSync(join(directory, DATA_FILE)).size,
    oldestUse: oldest === undefined ? null : formatTime(oldest),
    newestUse: newest === undefined ? null : formatTime(newest),
    isOpen: owner !== undefined,
    process: owner === undefined || owner < 0 ? null : owner,
  };
}

export function statsTable(rows: readonly KeptStats[]): string {
  const table = new Table({
    head: ['store', 'entries', 'bytes', 'file', 'oldest use', 'newest use', 'open'],
    colAligns: ['left', 'right', 'right', 'right', 'left', 'left', 'left'],
    style: { head: [], border: [] },
  });
  for (const { role, store, entries, bytes, fileBytes, oldestUse, newestUse, isOpen, process } of rows)
    table.push([
      `${role} ${store}`,
      entries,
      formatBytes(bytes),
      formatBytes(fileBytes),
      oldestUse ?? '–',
      newestUse ?? '–',
      isOpen ? `by process ${process ?? 'of somebody else'}` : 'no',
    ]);
  return table.toString();
}

/** ISO 8601, in UTC. @param seconds since 1970 */
export function formatTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
}
