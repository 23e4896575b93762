/** The stores on disk of a state directory, for administrators: found, opened whether or not a proxy has them open, given back as they were. */
import { chownSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { PeerDistError } from '../../../lib/errors.ts';
import { DATA_FILE, LmdbBlockStore, LmdbRecordStore, ownerOf, PURGE_CHECK_MS } from '../../../lib/stores/index.ts';
import { type RoleName, storeDirectories } from '../roles/stores.ts';

export const ROLES = ['reverse', 'branch', 'hosted', 'head'] as const satisfies readonly RoleName[];
const KINDS = ['blocks', 'records'] as const;

export interface KeptStore {
  readonly kind: (typeof KINDS)[number];
  readonly directory: string;
  /** Process of the proxy that has it open; -1 where that cannot be told. Undefined: nobody else has. */
  readonly owner: number | undefined;
  readonly store: LmdbBlockStore | LmdbRecordStore;
}

/** What a role has on disk, open. */
export interface KeptStores {
  readonly role: RoleName;
  /** Blocks first. */
  readonly all: readonly KeptStore[];
  readonly blocks: LmdbBlockStore | undefined;
  readonly records: LmdbRecordStore | undefined;
}

/** Milliseconds beyond those that proxies look after, for one that is busy. */
const PURGE_SLACK_MS = 250;

/**
 * Opens the stores of one role after the other; none is made. Where that changes what a running proxy has open, it goes on when the proxy has noticed.
 *
 * @param role @default every role that has one
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when there is none; as {@link LmdbBlockStore.open}
 */
export async function withEachRole(
  { stateDir, role }: { readonly stateDir: string; readonly role?: RoleName },
  warn: (line: string) => void,
  act: (stores: KeptStores) => Promise<void>,
): Promise<void> {
  const chosen = ROLES.filter((each) => role === undefined || role === each);
  const found = chosen.filter((each) => kindsOf(stateDir, each).length > 0);
  if (found.length === 0)
    throw unusable(`no store ${role === undefined ? '' : `of the role ${role} `}in ${stateDir}; see --state-dir`);
  for (const each of found) await withRole(stateDir, each, warn, act);
}

async function withRole(
  stateDirectory: string,
  role: RoleName,
  warn: (line: string) => void,
  act: (stores: KeptStores) => Promise<void>,
): Promise<void> {
  const all: KeptStore[] = [];
  const giveBack: (() => void)[] = [];
  try {
    for (const kind of kindsOf(stateDirectory, role)) {
      const directory = storeDirectories(stateDirectory, role)[kind];
      giveBack.push(ownership(directory));
      const owner = ownerOf(directory);
      // It never makes room here: what the proxy was told to keep, it keeps.
      const options = { directory, warn, isGuest: owner !== undefined, maxBytes: Number.MAX_SAFE_INTEGER };
      const store = await (kind === 'blocks' ? LmdbBlockStore : LmdbRecordStore).open(options);
      all.push({ kind, directory, owner, store });
    }
    for (const give of giveBack) give();
    const versions = all.map(({ store }) => store.version);
    await act({
      role,
      all,
      blocks: all.map(({ store }) => store).find((store) => store instanceof LmdbBlockStore),
      records: all.map(({ store }) => store).find((store) => store instanceof LmdbRecordStore),
    });
    const isNews = all.some(({ owner, store }, index) => owner !== undefined && store.version !== versions[index]);
    if (isNews) await pause(PURGE_CHECK_MS + PURGE_SLACK_MS);
  } finally {
    for (const { store } of all) await store.close();
    for (const give of giveBack) give();
  }
}

/** The stores of a role that are there. */
function kindsOf(stateDirectory: string, role: RoleName): (typeof KINDS)[number][] {
  return KINDS.filter((kind) => {
    const directory = storeDirectories(stateDirectory, role)[kind];
    try {
      return statSync(join(directory, DATA_FILE)).isFile();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR') return false;
      throw unusable(`cannot read the store ${directory}: ${code}; see --state-dir`);
    }
  });
}

/** What root does in the directory of a service stays the service's. @returns gives what is there now to whom it belonged before */
export function ownership(directory: string): () => void {
  const { uid, gid } = statSync(directory);
  if (process.getuid?.() !== 0 || uid === 0) return () => {};
  return () => {
    for (const file of ['.', ...readdirSync(directory)]) chownSync(join(directory, file), uid, gid);
  };
}

function unusable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
