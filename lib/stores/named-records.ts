import type { RecordStore } from './types.ts';

/** A part of a record store: its records, under names that begin in a way of their own. Those who share the store do not see them. */
export function namedRecords(records: RecordStore, prefix: string): RecordStore {
  return {
    get: (name) => records.get(prefix + name),
    set: (name, value) => records.set(prefix + name, value),
    delete: (name) => records.delete(prefix + name),
    touch: (name) => records.touch?.(prefix + name),
    get version() {
      return records.version;
    },
    get bytes() {
      return records.bytes;
    },
  };
}
