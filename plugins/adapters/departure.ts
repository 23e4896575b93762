import type { IncomingMessage, ServerResponse } from 'node:http';
import { PeerDistAbortError } from '../../lib/errors.ts';

/** The end of an exchange: the client has got its answer, or has gone away before. */
export class Departure {
  /** Why nobody waits any more; undefined while somebody does, or when the answer has been sent. */
  reason: PeerDistAbortError | undefined;
  readonly #client: ServerResponse;
  readonly #waiting = new Set<(reason: PeerDistAbortError) => void>();
  #controller: AbortController | undefined;

  /** @param onClose called when the exchange is over, one way or the other */
  constructor({ socket }: IncomingMessage, client: ServerResponse, onClose: () => void) {
    this.#client = client;
    let isOver = false;
    const leave = (): void => {
      if (isOver) return;
      isOver = true;
      socket.off('close', leave);
      this.#leave();
      onClose();
    };
    client.once('close', leave);
    // A request in a pipeline has no connection of its own yet, and its response would not hear the client leave.
    socket.setMaxListeners(0);
    socket.once('close', leave);
    if (client.destroyed || socket.destroyed) leave();
  }

  /** Fires when the client goes away. Made when somebody first looks: most exchanges never do, and it costs as much as all the rest. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.reason !== undefined) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  /** Settles with the promise. @throws {@link PeerDistError} `ERR_PEERDIST_OPERATION_ABORTED` when the client goes away before */
  before(promise: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.reason !== undefined) reject(this.reason);
      this.#waiting.add(reject);
      void promise.then(() => {
        this.#waiting.delete(reject);
        resolve();
      });
    });
  }

  #leave(): void {
    if (this.#client.writableFinished || this.reason !== undefined) return;
    this.reason = new PeerDistAbortError('signal');
    this.#controller?.abort(this.reason);
    for (const reject of this.#waiting) reject(this.reason);
    this.#waiting.clear();
  }
}
