import type { IncomingMessage, ServerResponse } from 'node:http';
import { PeerDistAbortError, PeerDistError } from '../../lib/errors.ts';

/** The end of the client's interest in its answer: it goes away, or its time is up. */
export class Departure {
  readonly #message: IncomingMessage;
  readonly #client: ServerResponse;
  #controller: AbortController | undefined;
  #expired: PeerDistError | undefined;

  constructor(message: IncomingMessage, client: ServerResponse) {
    this.#message = message;
    this.#client = client;
  }

  /** Why, when the time was up. */
  get expired(): PeerDistError | undefined {
    return this.#expired;
  }

  /** Made when somebody first looks: most exchanges with a warm cache never do. */
  get signal(): AbortSignal {
    if (this.#controller !== undefined) return this.#controller.signal;
    const controller = new AbortController();
    this.#controller = controller;
    const client = this.#client;
    const { socket } = this.#message;
    const leave = (): void => {
      socket.off('close', leave);
      if (!client.writableFinished) controller.abort(this.#expired ?? new PeerDistAbortError('signal'));
    };
    if (client.destroyed || socket.destroyed || this.#expired !== undefined) leave();
    else {
      client.once('close', leave);
      // A request in a pipeline has no connection of its own yet, and its response would not hear the client leave.
      socket.setMaxListeners(0);
      socket.once('close', leave);
    }
    return controller.signal;
  }

  /** Ends an exchange that took too long: with an answer where none has begun. */
  expire(): void {
    this.#expired = new PeerDistError('ERR_PEERDIST_ORIGIN_TIMEOUT', 'the exchange took too long');
    if (this.#client.headersSent) this.#client.destroy();
    else if (this.#controller === undefined) void this.signal;
    else this.#controller.abort(this.#expired);
  }
}
