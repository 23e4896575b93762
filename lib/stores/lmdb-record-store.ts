import { hash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { Observer } from '../observer.ts';
import { type EnvironmentOptions, openOn } from './lmdb-environment.ts';
import { LmdbTable, type TableEntry } from './lmdb-table.ts';
import type { MaybePromise, RecordStore } from './types.ts';

export interface LmdbRecordStoreOptions extends EnvironmentOptions {
  readonly maxBytes: number;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** A record as administrators see it. */
export interface StoredRecord {
  readonly name: string;
  readonly value: Uint8Array;
  /** Seconds since 1970. */
  readonly usedAt: number;
}

/** Every record has the same label: nobody takes one off. */
const LABEL = '';

/** Records on disk; several processes may have the same directory open. A name may have any length, so its hash is the key, and the value tells it. */
export class LmdbRecordStore implements RecordStore {
  readonly #table: LmdbTable;

  /** @throws {@link PeerDistError} as {@link openEnvironment} */
  static async open(options: LmdbRecordStoreOptions): Promise<LmdbRecordStore> {
    return openOn(
      options,
      (environment) => new LmdbRecordStore(new LmdbTable({ ...options, environment, store: 'content_information' })),
    );
  }

  private constructor(table: LmdbTable) {
    this.#table = table;
  }

  get bytes(): number {
    return this.#table.bytes;
  }

  get count(): number {
    return this.#table.count;
  }

  /** Changes when a record is deleted, by whatever process. */
  get version(): number {
    return this.#table.version;
  }

  get(name: string): MaybePromise<Uint8Array | undefined> {
    const open = (stored: Uint8Array | undefined): Uint8Array | undefined => {
      const record = stored && unpack(stored);
      return record?.name === name ? record.value : undefined;
    };
    const stored = this.#table.get(keyOf(name));
    return stored instanceof Promise ? stored.then(open) : open(stored);
  }

  set(name: string, value: Uint8Array): Promise<void> {
    return this.#table.set(keyOf(name), pack(name, value), LABEL);
  }

  touch(name: string): void {
    this.#table.touch(keyOf(name));
  }

  delete(name: string): Promise<boolean> {
    return this.#table.delete(keyOf(name), true);
  }

  /** Resolves when nothing waits to be written. Never rejects. */
  written(): Promise<void> {
    return this.#table.written();
  }

  /** Writes what waits. Never rejects. */
  close(): Promise<void> {
    return this.#table.close();
  }

  /** Every record that is whole, for administrators; no use of any. */
  async *all(): AsyncGenerator<StoredRecord> {
    for await (const { value, usedAt } of this.#table.allValues())
      if (value !== undefined) yield { ...unpack(value), usedAt };
  }

  /** Every record, whole or not, by a key that is not its name; for administrators. */
  entries(): AsyncGenerator<TableEntry> {
    return this.#table.all();
  }

  /** Seconds since 1970 of the use longest ago, and of the latest; undefined when nothing is here. */
  get uses(): readonly [oldest: number, newest: number] | undefined {
    return this.#table.uses;
  }

  /** Reads a record against its hash; no use of it. @param key as in {@link entries} */
  verify(key: string): Promise<boolean> {
    return this.#table.verify(key);
  }

  /** As {@link delete}. @param key as in {@link entries} */
  purge(key: string): Promise<boolean> {
    return this.#table.delete(key, true);
  }
}

function keyOf(name: string): string {
  return hash('sha256', name, 'hex');
}

function pack(name: string, value: Uint8Array): Uint8Array {
  const head = Buffer.alloc(4 + Buffer.byteLength(name));
  head.writeUInt32BE(head.byteLength);
  head.write(name, 4);
  return Buffer.concat([head, value]);
}

function unpack(stored: Uint8Array): { readonly name: string; readonly value: Uint8Array } {
  const bytes = Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength);
  const end = bytes.byteLength < 4 ? 0 : bytes.readUInt32BE();
  return { name: bytes.toString('utf8', 4, end), value: bytes.subarray(end) };
}
