import type { Readable, Writable } from 'node:stream';
import { PeerDistAbortError, PeerDistError } from '../errors.ts';
import { type Abortable, type Operation, Operations } from './operations.ts';

/** Win32 values: disabled 0, unavailable 1, available 2. */
export type PeerDistStatus = 'disabled' | 'unavailable' | 'available';

/** What an instance and all its handles share: whether the service is there, and who has to hear when it no longer is. */
export class Session {
  readonly handles = new Set<HandleState>();
  /** Operations that belong to no handle, such as opening one. */
  readonly operations = new Operations();
  #status: PeerDistStatus = 'available';
  #phase: 'open' | 'closing' | 'closed' = 'open';

  get status(): PeerDistStatus {
    return this.#status;
  }

  /** Changes the status; leaving `available` ends every handle (section 3). */
  set status(status: PeerDistStatus) {
    this.#status = status;
    if (status === 'available') return;
    void this.operations.cancel(invalidated());
    for (const handle of this.handles) handle.invalidate();
  }

  get isClosed(): boolean {
    return this.#phase === 'closed';
  }

  /** @throws {@link PeerDistError} `INVALID_HANDLE` once closed, `SHUTDOWN_IN_PROGRESS` while closing */
  assertOpen(): void {
    if (this.#phase === 'closed') throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the instance is closed');
    if (this.#phase === 'closing')
      throw new PeerDistError('ERR_PEERDIST_SHUTDOWN_IN_PROGRESS', 'the instance is being closed');
  }

  /** @throws {@link PeerDistError} as {@link assertOpen}; `DISABLED_BY_POLICY`; `SERVICE_UNAVAILABLE` */
  assertServing(): void {
    this.assertOpen();
    if (this.#status === 'disabled')
      throw new PeerDistError('ERR_PEERDIST_DISABLED_BY_POLICY', 'the service is switched off');
    if (this.#status === 'unavailable')
      throw new PeerDistError('ERR_PEERDIST_SERVICE_UNAVAILABLE', 'the service cannot take requests now');
  }

  /** An operation without a handle. */
  run<T>(options: Abortable, work: (operation: Operation) => Promise<T>, dispose?: (late: T) => void): Promise<T> {
    return this.operations.run(
      options,
      async (operation) => {
        this.assertServing();
        return work(operation);
      },
      dispose,
    );
  }

  /** Ends everything. With `drain`, waits for what is under way before, unless `signal` fires. */
  async close({ drain = false, signal }: Abortable & { readonly drain?: boolean | undefined } = {}): Promise<void> {
    if (this.#phase !== 'open') return;
    this.#phase = 'closing';
    try {
      if (drain) await this.#drained(signal);
    } finally {
      const error = new PeerDistAbortError('shutdown');
      await Promise.all([...[...this.handles].map((handle) => handle.close(error)), this.operations.cancel(error)]);
      this.#phase = 'closed';
    }
  }

  /** Aborts what is under way, so that a drain has nothing left to wait for. */
  cutDrain(): void {
    const error = new PeerDistAbortError('shutdown');
    void this.operations.cancel(error);
    for (const { operations } of this.handles) void operations.cancel(error);
  }

  async #drained(signal: AbortSignal | undefined): Promise<void> {
    const idle = Promise.all([this.operations.idle(), ...[...this.handles].map(({ operations }) => operations.idle())]);
    await new Operations().run({ signal }, () => idle);
  }
}

/** The life of one handle: open, then closed by its owner, or invalidated when the service was lost. */
export class HandleState {
  readonly operations = new Operations();
  readonly #session: Session;
  readonly #onEnd: (error: PeerDistError) => void;
  #end: 'closed' | 'invalidated' | undefined;

  /** @param onEnd told once, by whichever comes first: frees what the handle holds */
  constructor(session: Session, onEnd: (error: PeerDistError) => void = () => {}) {
    this.#session = session;
    this.#onEnd = onEnd;
    session.handles.add(this);
  }

  get end(): 'closed' | 'invalidated' | undefined {
    return this.#end ?? (this.#session.isClosed ? 'closed' : undefined);
  }

  /** @throws {@link PeerDistError} `INVALID_HANDLE`, `INVALIDATED` */
  assertOpen(): void {
    if (this.end === 'closed') throw new PeerDistError('ERR_PEERDIST_INVALID_HANDLE', 'the handle is closed');
    if (this.end === 'invalidated') throw invalidated();
  }

  /** An operation on the handle. */
  run<T>(options: Abortable, work: (operation: Operation) => Promise<T>): Promise<T> {
    return this.operations.run(options, async (operation) => {
      this.assertOpen();
      return work(operation);
    });
  }

  /** Takes a stream in that lives by this handle: it ends with it. A stream nobody listens to must not end the process. */
  adopt<S extends Readable | Writable>(stream: S, options: Abortable): S {
    const closed = new Promise<void>((resolve) => {
      stream.once('close', () => resolve());
    });
    stream.on('error', () => {});
    this.operations.track((error) => stream.destroy(error), closed, options);
    return stream;
  }

  /** Leaves the session without ending: nothing of the handle needs to be ended any more. */
  detach(): void {
    this.#session.handles.delete(this);
  }

  invalidate(): void {
    if (this.#end !== undefined) return;
    this.#end = 'invalidated';
    const error = invalidated();
    void this.operations.cancel(error);
    this.#onEnd(error);
  }

  /** Aborts what is under way and ends the handle. Idempotent, never rejects. */
  async close(error: PeerDistError = new PeerDistAbortError('close')): Promise<void> {
    const first = this.#end === undefined;
    this.#end = 'closed';
    this.#session.handles.delete(this);
    const cancelled = this.operations.cancel(error);
    if (first) this.#onEnd(error);
    await cancelled;
  }
}

function invalidated(): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALIDATED', 'the service was lost while the handle was open; close it');
}
