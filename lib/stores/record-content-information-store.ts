import type { Observer } from '../observer.ts';
import { MemoryContentInformationStore } from './memory-content-information-store.ts';
import type { ContentInformationRecord, ContentInformationStore, MaybePromise, RecordStore } from './types.ts';

/** Before the two structures: bytes of the content (8), of version 1 (4) and of version 2 (4). */
const HEAD_BYTES = 16;
const PREFIX = 'content information\n';

/** Content information in a {@link RecordStore}, with a memory in front: what is published under a key never changes. */
export class RecordContentInformationStore implements ContentInformationStore {
  readonly #records: RecordStore;
  readonly #memory: MemoryContentInformationStore;
  #version: number | undefined;

  /** @param options.memoryBytes limit of the memory in front */
  constructor({
    records,
    memoryBytes,
    observer,
  }: {
    readonly records: RecordStore;
    readonly memoryBytes: number;
    readonly observer?: Observer | undefined;
  }) {
    this.#records = records;
    this.#version = records.version;
    this.#memory = new MemoryContentInformationStore({ maxBytes: memoryBytes, observer });
  }

  get bytes(): number {
    return this.#records.bytes;
  }

  get(key: string): MaybePromise<ContentInformationRecord | undefined> {
    if (this.#records.version !== this.#version) {
      // Another process has deleted something.
      this.#version = this.#records.version;
      this.#memory.clear();
    }
    const near = this.#memory.get(key);
    if (near !== undefined) {
      this.#records.touch?.(PREFIX + key);
      return near;
    }
    const open = (value: Uint8Array | undefined): ContentInformationRecord | undefined => {
      const record = value && decode(value);
      if (record !== undefined) this.#memory.set(key, record);
      return record;
    };
    const value = this.#records.get(PREFIX + key);
    return value instanceof Promise ? value.then(open) : open(value);
  }

  async set(key: string, record: ContentInformationRecord): Promise<void> {
    this.#memory.set(key, record);
    await this.#records.set(PREFIX + key, encode(record));
  }

  async delete(key: string): Promise<boolean> {
    const wasNear = this.#memory.delete(key);
    return (await this.#records.delete(PREFIX + key)) || wasNear;
  }
}

function encode({ contentLength, encoded }: ContentInformationRecord): Uint8Array {
  const { 1: v1 = new Uint8Array(0), 2: v2 = new Uint8Array(0) } = encoded;
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeBigUInt64BE(BigInt(contentLength));
  head.writeUInt32BE(v1.byteLength, 8);
  head.writeUInt32BE(v2.byteLength, 12);
  return Buffer.concat([head, v1, v2]);
}

function decode(value: Uint8Array): ContentInformationRecord | undefined {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (bytes.byteLength < HEAD_BYTES) return undefined;
  const [first, second] = [bytes.readUInt32BE(8), bytes.readUInt32BE(12)];
  if (bytes.byteLength !== HEAD_BYTES + first + second) return undefined;
  const v1 = bytes.subarray(HEAD_BYTES, HEAD_BYTES + first);
  const v2 = bytes.subarray(HEAD_BYTES + first);
  return {
    contentLength: Number(bytes.readBigUInt64BE()),
    encoded: { ...(first === 0 ? {} : { 1: v1 }), ...(second === 0 ? {} : { 2: v2 }) },
  };
}
