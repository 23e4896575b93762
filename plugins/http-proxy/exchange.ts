import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../../lib/clock.ts';
import type { ProxyResponse, RequestWatcher } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import { isPeerDistError, PeerDistAbortError, type PeerDistError } from '../../lib/errors.ts';
import { fieldValue } from '../../lib/http/index.ts';

/** `complete`: the client was given the whole answer; `left`: it went away before; `broken`: the answer broke off, or its time was up. */
export type Outcome = 'complete' | 'left' | 'broken';

/** How one exchange ended. */
export interface ExchangeEnd {
  /** Of the answer, or of a tunnel (200, 101). */
  readonly status: number;
  /** Handed to the client's connection, heads included. */
  readonly bytes: number;
  readonly seconds: number;
  readonly outcome: Outcome;
  /** Code of the error that was answered, or that broke the answer off. */
  readonly error?: string | undefined;
}

/** Follows one exchange. Its functions must be quick and must not throw. */
export interface ExchangeWatcher extends RequestWatcher {
  /** The head of the answer is known; `length` of its body, where it says so. */
  answered(status: number, length: number | undefined): void;
  ended(end: ExchangeEnd): void;
}

/** Whoever follows exchanges, such as an access log. `exchange` says how many bytes the client's connection has been handed so far. */
export type ExchangeWatch = (message: IncomingMessage, exchange: { readonly sentBytes: number }) => ExchangeWatcher;

/** Bytes of a connection that belong to exchanges which have ended: answers on one end in the order of their requests. */
const COUNTED = Symbol('bytes counted');
type CountedSocket = Socket & { [COUNTED]?: number };

/** One exchange as it is counted and watched. */
export class Exchange {
  readonly #socket: CountedSocket;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #startedAt: number;
  readonly #watcher: ExchangeWatcher | undefined;
  #isBroken = false;
  #error: string | undefined;
  #isOver = false;
  /** Bytes of the answer, once all of it is written. */
  #wholeBytes: number | undefined;

  constructor(
    message: IncomingMessage,
    { observer, clock, watch }: { observer: Observer; clock: Clock; watch: ExchangeWatch | undefined },
  ) {
    this.#socket = message.socket;
    this.#observer = observer;
    this.#clock = clock;
    this.#startedAt = clock.now();
    this.#watcher = watch?.(message, this);
  }

  /** Told of what happens for the sake of this exchange; undefined where nobody follows it. */
  get watcher(): RequestWatcher | undefined {
    return this.#watcher;
  }

  answered(response: ProxyResponse): ProxyResponse {
    if (this.#watcher !== undefined) {
      const length = fieldValue(response.headers, 'content-length');
      this.#watcher.answered(response.status, length === undefined ? undefined : Number(length));
    }
    return response;
  }

  /** All of the answer is written, and nothing of the next one on its connection. */
  written(): void {
    this.#wholeBytes = this.#count();
  }

  /** Something failed; the client is told, or sees it. */
  fails(error: unknown): void {
    this.#error = isPeerDistError(error) ? error.code : 'ERR_INTERNAL';
  }

  /** The answer breaks off, for a reason that is not the client's. */
  breaks(): void {
    this.#isBroken = true;
  }

  /** An answer has been given, or its connection is gone. */
  end(status: number, isWhole: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const end = this.#settle(status, isWhole);
    this.#observer({ type: 'exchange', status, seconds: end.seconds, bytes: end.bytes });
    this.#watcher?.ended(end);
  }

  /** A tunnel has ended, or was refused. */
  endTunnel(status: number): void {
    this.#watcher?.ended(this.#settle(status, true));
  }

  /** A client whose TLS ends here is in; what it asks for are exchanges of their own. @param failure why it is not */
  endIntercepted(failure: PeerDistError | undefined): void {
    if (failure !== undefined) {
      this.fails(failure);
      if (!(failure instanceof PeerDistAbortError)) this.breaks();
    }
    this.#watcher?.ended(this.#settle(200, failure === undefined));
  }

  #settle(status: number, isWhole: boolean): ExchangeEnd {
    const bytes = this.#wholeBytes ?? this.#count();
    const outcome = isWhole ? 'complete' : this.#isBroken ? 'broken' : 'left';
    return { status, bytes, seconds: (this.#clock.now() - this.#startedAt) / 1000, outcome, error: this.#error };
  }

  /** From now on they belong to this exchange. */
  #count(): number {
    const bytes = this.sentBytes;
    this.#socket[COUNTED] = (this.#socket[COUNTED] ?? 0) + bytes;
    return bytes;
  }

  /** Handed to the client's connection so far, heads included. */
  get sentBytes(): number {
    return (this.#socket.bytesWritten ?? 0) - (this.#socket[COUNTED] ?? 0);
  }
}
