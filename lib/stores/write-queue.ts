/** Bytes and writes that may be on their way together, so that who reads does not wait behind those who write. Policy, not protocol. */
const WINDOW_BYTES = 2 * 1024 * 1024;
const WINDOW_WRITES = 128;
/** Bytes that may wait, those on their way included. Policy, not protocol. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;
/** What every write costs beside its value. */
const WRITE_BYTES = 1024;

interface Write {
  readonly bytes: number;
  readonly begin: () => Promise<unknown>;
}

/** Writes one after the other, as many together as the window takes; they begin in the order they came in. */
export class WriteQueue {
  readonly #waiting = new Set<Write>();
  #queuedBytes = 0;
  #sentBytes = 0;
  #sent = 0;
  #onRoom: (() => void)[] = [];
  #onIdle: (() => void)[] = [];

  /**
   * @param bytes of the value
   * @returns what `write` returns; undefined when too much waits already, and `write` is not called
   */
  add<T>(bytes: number, write: () => Promise<T>): Promise<T> | undefined {
    const cost = bytes + WRITE_BYTES;
    if (this.#queuedBytes + cost > MAX_QUEUED_BYTES) return undefined;
    this.#queuedBytes += cost;
    return new Promise((resolve, reject) => {
      this.#waiting.add({ bytes: cost, begin: () => write().then(resolve, reject) });
      this.#pump();
    });
  }

  /** Resolves when not so much is waiting any more; undefined when it is not. Never rejects. */
  room(): Promise<void> | undefined {
    if (this.#queuedBytes < MAX_QUEUED_BYTES / 4) return undefined;
    return new Promise((resolve) => {
      this.#onRoom.push(resolve);
    });
  }

  /** Resolves when nothing waits. Never rejects. */
  idle(): Promise<void> {
    if (this.#queuedBytes === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle.push(resolve);
    });
  }

  #pump(): void {
    for (const write of this.#waiting) {
      if (this.#sent > 0 && this.#sentBytes + write.bytes > WINDOW_BYTES) return;
      if (this.#sent >= WINDOW_WRITES) return;
      this.#waiting.delete(write);
      this.#sent += 1;
      this.#sentBytes += write.bytes;
      void write.begin().finally(() => this.#ended(write.bytes));
    }
  }

  #ended(bytes: number): void {
    this.#sent -= 1;
    this.#sentBytes -= bytes;
    this.#queuedBytes -= bytes;
    if (this.#queuedBytes < MAX_QUEUED_BYTES / 4) for (const resolve of this.#onRoom.splice(0)) resolve();
    if (this.#queuedBytes === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
    this.#pump();
  }
}
