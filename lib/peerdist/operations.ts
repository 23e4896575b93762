import { PeerDistAbortError, type PeerDistError } from '../errors.ts';

export interface Abortable {
  /** Cancels just this operation. Best effort: an operation that already has a result keeps it. */
  readonly signal?: AbortSignal | undefined;
}

/** One operation under way. */
export interface Operation {
  /** Fires when the operation is cancelled; made when somebody first looks, since most operations end at once. */
  readonly signal: AbortSignal;
  /** Called before an effect that the caller must know of: once cancelled, the result reaches nobody. @throws the reason */
  assertWanted(): void;
}

interface Pending {
  abort(error: PeerDistError): void;
  readonly settled: Promise<unknown>;
  /** False for a stream: nobody can say whether its reader ever comes back. */
  readonly endsByItself: boolean;
}

/** The pending operations of one owner: each can be cancelled alone by its signal, all together by their owner. */
export class Operations {
  readonly #pending = new Set<Pending>();

  /**
   * Runs one operation. When it is cancelled its promise rejects at once, whatever the work does with the signal.
   *
   * @param dispose releases a result that came too late for anybody to get it
   * @throws {@link PeerDistAbortError} when the caller's signal fires, or had fired before: then the work is not begun (G20)
   */
  run<T>(
    { signal: outer }: Abortable,
    work: (operation: Operation) => Promise<T>,
    dispose: (late: T) => void = () => {},
  ): Promise<T> {
    if (outer?.aborted === true) return Promise.reject(new PeerDistAbortError('signal', outer.reason));
    let controller: AbortController | undefined;
    let reason: PeerDistError | undefined;
    let refuse!: (error: PeerDistError) => void;
    const abort = (error: PeerDistError): void => {
      if (reason !== undefined) return;
      reason = error;
      controller?.abort(error);
      refuse(error);
    };
    const leave = (): void => abort(new PeerDistAbortError('signal', outer?.reason));
    const settled = new Promise<T>((resolve, reject) => {
      refuse = reject;
      const operation: Operation = {
        get signal() {
          if (controller === undefined) {
            controller = new AbortController();
            if (reason !== undefined) controller.abort(reason);
          }
          return controller.signal;
        },
        assertWanted() {
          if (reason !== undefined) throw reason;
        },
      };
      work(operation).then((result) => (reason === undefined ? resolve(result) : dispose(result)), reject);
    });
    const pending: Pending = { abort, settled, endsByItself: true };
    this.#pending.add(pending);
    outer?.addEventListener('abort', leave, { once: true });
    return settled.finally(() => {
      this.#pending.delete(pending);
      outer?.removeEventListener('abort', leave);
    });
  }

  /** Takes in something that is under way by other means, such as a stream; `settled` does not reject. */
  track(abort: (error: PeerDistError) => void, settled: Promise<void>, { signal }: Abortable = {}): void {
    const pending: Pending = { abort, settled, endsByItself: false };
    const leave = (): void => abort(new PeerDistAbortError('signal', signal?.reason));
    this.#pending.add(pending);
    signal?.addEventListener('abort', leave, { once: true });
    if (signal?.aborted === true) leave();
    void settled.then(() => {
      this.#pending.delete(pending);
      signal?.removeEventListener('abort', leave);
    });
  }

  /** Cancels everything under way; resolves how many that were, when each has settled. */
  async cancel(reason: PeerDistError): Promise<number> {
    const pending = [...this.#pending];
    for (const each of pending) each.abort(reason);
    await Promise.allSettled(pending.map(({ settled }) => settled));
    return pending.length;
  }

  /** Resolves when every operation that is under way now has settled; streams are not waited for. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#pending].filter((each) => each.endsByItself).map(({ settled }) => settled));
  }
}
