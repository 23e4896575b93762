/** Calls between two processes over Node's own channel, by name: each side says what it can be asked for. */
import { PeerDistError } from '../../../lib/errors.ts';

/** What is asked for by name. A throw becomes a rejection at the other side. */
export type Handlers = Readonly<Record<string, (...args: never[]) => unknown>>;

/** One end of a channel: `process` in a worker, the worker in its leader. */
export interface Port {
  send(message: unknown, callback: (error: Error | null) => void): unknown;
  on(event: 'message', listener: (message: unknown) => void): unknown;
  on(event: 'disconnect', listener: () => void): unknown;
}

type Message =
  | { readonly peerdist: 'call'; readonly id: number; readonly name: string; readonly args: unknown[] }
  | { readonly peerdist: 'tell'; readonly name: string; readonly args: unknown[] }
  | { readonly peerdist: 'answer'; readonly id: number; readonly value?: unknown; readonly error?: string };

/** Calls without an answer; further ones fail. Policy, not protocol. */
const MAX_PENDING = 16_384;

export class Channel {
  readonly #port: Port;
  readonly #handlers: Handlers;
  readonly #pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #calls = 0;
  #isOpen = true;

  constructor(port: Port, handlers: Handlers) {
    this.#port = port;
    this.#handlers = handlers;
    port.on('message', (message) => this.#take(message as Message));
    port.on('disconnect', () => this.#close());
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_SERVICE_UNAVAILABLE` when the other side is gone, or failed */
  call(name: string, ...args: unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (!this.#isOpen || this.#pending.size >= MAX_PENDING) return reject(unavailable('the other process is away'));
      const id = (this.#calls += 1);
      this.#pending.set(id, { resolve, reject });
      return this.#send({ peerdist: 'call', id, name, args });
    });
  }

  /** Without an answer; lost when the other side is gone. */
  tell(name: string, ...args: unknown[]): void {
    if (this.#isOpen) this.#send({ peerdist: 'tell', name, args });
  }

  #send(message: Message): void {
    // A channel that breaks says so by 'disconnect' too.
    this.#port.send(message, () => {});
  }

  #take(message: Message): void {
    if (typeof message !== 'object' || message === null) return;
    if (message.peerdist === 'answer') {
      const pending = this.#pending.get(message.id);
      this.#pending.delete(message.id);
      if (message.error === undefined) pending?.resolve(message.value);
      else pending?.reject(unavailable(message.error));
    } else if (message.peerdist === 'call') void this.#answer(message.id, message.name, message.args);
    else if (message.peerdist === 'tell') void this.#run(message.name, message.args).catch(() => {});
  }

  async #run(name: string, args: unknown[]): Promise<unknown> {
    return this.#handlers[name]?.(...(args as never[]));
  }

  async #answer(id: number, name: string, args: unknown[]): Promise<void> {
    let answer: Message;
    try {
      answer = { peerdist: 'answer', id, value: await this.#run(name, args) };
    } catch (error) {
      answer = { peerdist: 'answer', id, error: (error as Error).message };
    }
    if (this.#isOpen) this.#send(answer);
  }

  #close(): void {
    this.#isOpen = false;
    for (const { reject } of this.#pending.values()) reject(unavailable('the other process is gone'));
    this.#pending.clear();
  }
}

function unavailable(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_SERVICE_UNAVAILABLE', message);
}
