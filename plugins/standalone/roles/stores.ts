/** The stores of a role: in memory, on disk behind a memory, or in Redis behind a memory. */
import { join } from 'node:path';
import { isPeerDistError } from '../../../lib/errors.ts';
import type { Observer } from '../../../lib/observer.ts';
import type { ServerSecret } from '../../../lib/protocol/pccrc/index.ts';
import {
  type BlockStore,
  type Claims,
  type ContentInformationStore,
  type DurableBlockStore,
  LmdbBlockStore,
  LmdbRecordStore,
  MemoryBlockStore,
  MemoryContentInformationStore,
  openRedis,
  RecordContentInformationStore,
  type RecordStore,
  RedisBlockStore,
  RedisClaims,
  RedisRecordStore,
  Sealer,
  TieredBlockStore,
} from '../../../lib/stores/index.ts';

/** What a role keeps: blocks, content information with what is known of resources, or both; a head keeps content information of its own too. */
export type RoleName = 'reverse' | 'branch' | 'hosted' | 'head';

interface MemoryStoreOptions {
  readonly kind: 'memory';
  /** Bytes of the store. */
  readonly maxBytes: number;
}

/** Falls back to memory where the disk cannot be used. */
interface DiskStoreOptions {
  readonly kind: 'disk';
  /** Each role has a directory of its own in it. */
  readonly stateDirectory: string;
  /** Bytes of the store. */
  readonly maxBytes: number;
  /** Bytes of the memory before it. */
  readonly memoryBytes: number;
}

/** Redis has a limit of its own. */
interface RedisStoreOptions {
  readonly kind: 'redis';
  readonly url: string;
  /** Bytes of the memory before it. */
  readonly memoryBytes: number;
  /** Content information is sealed with the first; what was sealed with the others can still be opened. */
  readonly secrets: readonly [ServerSecret, ...ServerSecret[]];
}

export type StoreOptions = MemoryStoreOptions | DiskStoreOptions | RedisStoreOptions;

export interface StoreContext {
  readonly role: RoleName;
  readonly observer: Observer;
  /** Told in a line what an administrator should know. */
  readonly warn: (line: string) => void;
  /** True for a worker: the process that leads it owns the directory. */
  readonly isGuest?: boolean | undefined;
}

export interface RoleStores {
  readonly blocks: BlockStore;
  readonly contentInformation: ContentInformationStore;
  /** Undefined where nothing outlives the process. */
  readonly records: RecordStore | undefined;
  /** Decides between machines; undefined where there is only this one. */
  readonly claims: Claims | undefined;
  /** True where the disk could not be used. */
  readonly isFallback?: boolean | undefined;
  /** What is wrong with the stores, in words; undefined when nothing is. */
  readonly trouble: () => string | undefined;
  /** Writes what waits. Never rejects. */
  readonly close: () => Promise<void>;
}

const MiB = 1024 * 1024;

/** Share of a branch's store that may be taken by what is known of its contents: theirs is a thousandth of the blocks, and answers have heads. */
const RECORDS_SHARE = 32;
const MIN_RECORDS_BYTES = 64 * MiB;
/** Milliseconds between two transactions of blocks: a transaction costs as much as writing some dozen of them. Policy, measured. */
const COMMIT_DELAY_MS = 100;
/** Bytes of content information in memory before a durable store. Policy. */
const INFORMATION_MEMORY_BYTES = 64 * MiB;

/** @throws {@link PeerDistError} `ERR_PEERDIST_STORE_IN_USE`; `ERR_PEERDIST_INVALID_OPTION` for a URL that is none */
export async function openStores(options: StoreOptions, context: StoreContext): Promise<RoleStores> {
  if (options.kind === 'memory') return inMemory(options, context);
  if (options.kind === 'redis') return inRedis(options, context);
  try {
    return await onDisk(options, context);
  } catch (error) {
    if (!isPeerDistError(error, 'ERR_PEERDIST_STORE_UNAVAILABLE') || context.isGuest === true) throw error;
    context.warn(`${error.message}; going on with a store in memory, which forgets when this ends`);
    const instead = inMemory({ kind: 'memory', maxBytes: options.memoryBytes }, context);
    return { ...instead, isFallback: true, trouble: () => error.message };
  }
}

/** What a role has when nobody says anything else. */
export function memoryStore(role: RoleName): StoreOptions {
  return { kind: 'memory', maxBytes: role === 'reverse' ? 256 * MiB : 1024 * MiB };
}

/** Directories of a role's stores on disk. */
export function storeDirectories(stateDirectory: string, role: RoleName): { blocks: string; records: string } {
  return { blocks: join(stateDirectory, role, 'blocks'), records: join(stateDirectory, role, 'records') };
}

function inMemory({ maxBytes }: MemoryStoreOptions, { role, observer }: StoreContext): RoleStores {
  if (role === 'head')
    return {
      blocks: new MemoryBlockStore({ maxBytes, observer }),
      contentInformation: new MemoryContentInformationStore({ maxBytes: recordBytesOf(maxBytes), observer }),
      ...NOTHING_KEPT,
    };
  // Only the one that the role is about is told of; the other is a stopgap.
  return {
    blocks: role === 'reverse' ? new MemoryBlockStore({ maxBytes: MiB }) : new MemoryBlockStore({ maxBytes, observer }),
    contentInformation:
      role === 'reverse'
        ? new MemoryContentInformationStore({ maxBytes, observer })
        : new MemoryContentInformationStore({ maxBytes: MiB }),
    ...NOTHING_KEPT,
  };
}

const NOTHING_KEPT = {
  records: undefined,
  claims: undefined,
  trouble: () => undefined,
  close: async () => {},
} as const satisfies Partial<RoleStores>;

/** What is known of contents has a share of the store of their blocks. */
function recordBytesOf(maxBytes: number): number {
  return Math.max(MIN_RECORDS_BYTES, Math.floor(maxBytes / RECORDS_SHARE));
}

async function onDisk(options: DiskStoreOptions, { role, observer, warn, isGuest }: StoreContext): Promise<RoleStores> {
  const { maxBytes, memoryBytes, stateDirectory } = options;
  const directories = storeDirectories(stateDirectory, role);
  const common = { observer, warn, isGuest };
  // A branch counts what it knows of contents into the same limit.
  const recordBytes = role === 'reverse' ? maxBytes : recordBytesOf(maxBytes);
  const records =
    role === 'hosted'
      ? undefined
      : await LmdbRecordStore.open({ ...common, directory: directories.records, maxBytes: recordBytes });
  let durable: DurableBlockStore | undefined;
  try {
    durable =
      role === 'reverse'
        ? undefined
        : await LmdbBlockStore.open({
            ...common,
            directory: directories.blocks,
            maxBytes,
            commitDelayMs: COMMIT_DELAY_MS,
          });
  } catch (error) {
    await records?.close();
    throw error;
  }
  return tiered({ durable, records, memoryBytes, observer }, async () => records?.close());
}

async function inRedis(
  { url, memoryBytes, secrets }: RedisStoreOptions,
  { role, observer, warn }: StoreContext,
): Promise<RoleStores> {
  const connection = await openRedis(url, { warn });
  const sealer = new Sealer(secrets);
  const durable = role === 'reverse' ? undefined : new RedisBlockStore({ connection, observer });
  const records = role === 'hosted' ? undefined : new RedisRecordStore({ connection, sealer, observer });
  return {
    ...tiered({ durable, records, memoryBytes, observer }, () => connection.close()),
    claims: new RedisClaims({ connection, sealer }),
    trouble: () => (connection.state() === 'ready' ? undefined : 'Redis is away; going on without it'),
  };
}

function tiered(
  {
    durable,
    records,
    memoryBytes,
    observer,
  }: {
    readonly durable: DurableBlockStore | undefined;
    readonly records: RecordStore | undefined;
    readonly memoryBytes: number;
    readonly observer: Observer;
  },
  closeRecords: () => Promise<void> | undefined,
): RoleStores {
  const blocks = durable && new TieredBlockStore({ durable, memoryBytes, observer });
  return {
    blocks: blocks ?? new MemoryBlockStore({ maxBytes: MiB }),
    contentInformation:
      records === undefined
        ? new MemoryContentInformationStore({ maxBytes: MiB })
        : new RecordContentInformationStore({ records, memoryBytes: Math.min(memoryBytes, INFORMATION_MEMORY_BYTES) }),
    records,
    claims: undefined,
    trouble: () => undefined,
    async close() {
      await blocks?.close();
      await closeRecords();
    },
  };
}
