import { Worker } from 'node:worker_threads';
import { PeerDistError } from '../errors.ts';
import type { HashProvider } from '../crypto/index.ts';
import {
  type ContentInformation,
  type ContentInformationVersion,
  decodeContentInformation,
  type V1AlgorithmName,
} from '../protocol/pccrc/index.ts';
import type { HashingEngine, HashingOptions } from './hashing.ts';

/** What the main thread tells a worker. */
export type HashingMessage =
  | {
      readonly type: 'begin';
      readonly body: number;
      readonly provider: HashProvider['name'];
      readonly secretKey: Uint8Array;
      readonly version: ContentInformationVersion;
      readonly algorithm: V1AlgorithmName | undefined;
    }
  | { readonly type: 'bytes'; readonly body: number; readonly slab: SharedArrayBuffer; readonly length: number }
  | { readonly type: 'finish' | 'abort'; readonly body: number };

/** What a worker answers. */
export type HashingReply =
  | { readonly type: 'taken'; readonly body: number }
  | { readonly type: 'finished'; readonly body: number; readonly encoded: Uint8Array };

/** Bytes handed over at a time: large enough that the hand-over is lost in the hashing. */
const SLAB_BYTES = 256 * 1024;
/** Slabs of one body under way; a body that runs ahead of its hashing waits. 2 MiB. Policy, not protocol. */
const SLABS_PER_BODY = 8;

/**
 * Hashing on worker threads, one version on each where there are two. The workers are shared by all bodies; bytes are copied once into
 * memory that both threads see. Close the pool to end them.
 */
export class HashingPool {
  readonly #workers: readonly PoolWorker[];
  #bodies = 0;

  /** @param threads 1 or 2 */
  constructor(threads: 1 | 2) {
    this.#workers = Array.from({ length: threads }, () => new PoolWorker());
  }

  /** An engine for one body. */
  createEngine(options: HashingOptions): HashingEngine {
    const { versions = [1, 2] } = options;
    const tasks = versions.map((version, index): Task => {
      const worker = this.#workers[index % this.#workers.length] as PoolWorker;
      this.#bodies += 1;
      worker.post({
        type: 'begin',
        body: this.#bodies,
        provider: options.provider.name,
        secretKey: options.secret.reveal(),
        version,
        algorithm: options.algorithm,
      });
      return { worker, body: this.#bodies };
    });
    return new ThreadedHashing(tasks);
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.close()));
  }
}

interface Task {
  readonly worker: PoolWorker;
  readonly body: number;
}

/** A worker and who waits for its replies. One that dies fails the bodies it had, and the next body gets a new one. */
class PoolWorker {
  readonly #listeners = new Map<number, (reply: HashingReply | Error) => void>();
  /** Started at once: a thread takes longer to begin than a small body takes to pass. */
  #worker: Worker | undefined = this.#start();
  #closed = false;

  post(message: HashingMessage): void {
    if (!this.#closed) (this.#worker ??= this.#start()).postMessage(message);
  }

  listen(body: number, listener: (reply: HashingReply | Error) => void): void {
    if (this.#closed) listener(ended());
    else this.#listeners.set(body, listener);
  }

  forget(body: number): void {
    this.#listeners.delete(body);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL('./hashing-worker.js', import.meta.url));
    worker.unref();
    worker.on('message', (reply: HashingReply) => this.#listeners.get(reply.body)?.(reply));
    let failed = false;
    const fail = (error: Error): void => {
      // After an error comes an exit, and by then others may be served by the next worker.
      if (failed) return;
      failed = true;
      if (this.#worker === worker) this.#worker = undefined;
      const listeners = [...this.#listeners.values()];
      this.#listeners.clear();
      for (const listener of listeners) listener(error);
    };
    worker.on('error', fail);
    worker.on('exit', () => fail(ended()));
    return worker;
  }
}

function ended(): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the hashing thread has ended');
}

class ThreadedHashing implements HashingEngine {
  readonly #tasks: readonly Task[];
  readonly #free: SharedArrayBuffer[] = [];
  readonly #results: (ContentInformation | undefined)[];
  /** Hand-overs not yet acknowledged by every worker, oldest first. */
  readonly #underWay: SharedArrayBuffer[] = [];
  readonly #taken: number[];
  #slabs = 0;
  #current: SharedArrayBuffer | undefined;
  #fill = 0;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(tasks: readonly Task[]) {
    this.#tasks = tasks;
    this.#results = tasks.map(() => undefined);
    this.#taken = tasks.map(() => 0);
    tasks.forEach(({ worker, body }, index) => worker.listen(body, (reply) => this.#hear(index, reply)));
  }

  push(chunk: Uint8Array): void | Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    for (let at = 0; at < chunk.byteLength;) {
      const slab = this.#slab();
      if (slab === undefined) return this.#pushLater(chunk.subarray(at));
      const piece = chunk.subarray(at, at + SLAB_BYTES - this.#fill);
      new Uint8Array(slab).set(piece, this.#fill);
      this.#fill += piece.byteLength;
      at += piece.byteLength;
      if (this.#fill === SLAB_BYTES) this.#handOver();
    }
    return undefined;
  }

  async finish(): Promise<readonly ContentInformation[]> {
    if (this.#fill > 0) this.#handOver();
    for (const { worker, body } of this.#tasks) worker.post({ type: 'finish', body });
    while (this.#results.includes(undefined)) await this.#reply();
    return this.#results as ContentInformation[];
  }

  abort(): void {
    for (const { worker, body } of this.#tasks) {
      worker.forget(body);
      worker.post({ type: 'abort', body });
    }
    this.#error ??= new PeerDistError('ERR_PEERDIST_OPERATION_ABORTED', 'hashing was given up');
    this.#wake?.();
  }

  #slab(): SharedArrayBuffer | undefined {
    if (this.#current !== undefined) return this.#current;
    this.#current = this.#free.pop();
    if (this.#current === undefined && this.#slabs < SLABS_PER_BODY) {
      this.#slabs += 1;
      this.#current = new SharedArrayBuffer(SLAB_BYTES);
    }
    return this.#current;
  }

  async #pushLater(rest: Uint8Array): Promise<void> {
    await this.#reply();
    await this.push(rest);
  }

  #handOver(): void {
    const slab = this.#current as SharedArrayBuffer;
    for (const { worker, body } of this.#tasks) worker.post({ type: 'bytes', body, slab, length: this.#fill });
    this.#underWay.push(slab);
    this.#current = undefined;
    this.#fill = 0;
  }

  /** Resolves at the next reply of a worker. */
  async #reply(): Promise<void> {
    if (this.#error === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#error !== undefined) throw this.#error;
  }

  #hear(task: number, reply: HashingReply | Error): void {
    if (reply instanceof Error) this.#error ??= reply;
    else if (reply.type === 'finished') this.#results[task] = decodeContentInformation(reply.encoded);
    else this.#acknowledge(task);
    this.#wake?.();
  }

  /** Each worker takes slabs in order; one is free when the slowest has taken it. */
  #acknowledge(task: number): void {
    const before = Math.min(...this.#taken);
    this.#taken[task] = (this.#taken[task] as number) + 1;
    if (Math.min(...this.#taken) > before) this.#free.push(this.#underWay.shift() as SharedArrayBuffer);
  }
}
