/** One question to one peer: an HTTP POST whose answer is read to its end before anybody gets it. */
import { type Dispatcher, Pool } from 'undici';
import { PeerDistError } from '../../errors.ts';
import { formatPeerAddress, type PeerAddress } from '../../protocol/pccrd/index.ts';
import { RETRIEVAL_PATH } from '../../protocol/pccrr/index.ts';

/** Why an exchange brought nothing. `lied`: what came cannot be an honest answer. */
export type PeerFailure = 'failed' | 'lied' | 'timeout' | 'cancelled';

/** One question to a peer, under way. */
export interface Exchange {
  /** The answer with its length in front, at most `maxBytes`. Rejects with {@link PeerError}. */
  readonly answer: Promise<Uint8Array>;
  /** Ends it; its connection goes with it. */
  cancel(reason: PeerFailure): void;
}

/** A peer did not answer as it should. */
export class PeerError extends PeerDistError {
  readonly failure: PeerFailure;

  constructor(failure: PeerFailure, message: string, cause?: unknown) {
    super('ERR_PEERDIST_PEER_FAILED', message, { cause });
    this.failure = failure;
  }
}

/** Milliseconds an idle connection to a peer is kept; less than common servers do. Policy, not protocol. */
const IDLE_CONNECTION_MS = 4_000;
/** Milliseconds to connect. Whoever asked has long gone on. Policy, not protocol. */
const CONNECT_TIMEOUT_MS = 5_000;
/** Bytes of the head of an answer. */
const MAX_HEAD_BYTES = 8 * 1024;
/** Peers connections are kept to. Policy, not protocol. */
const MAX_POOLS = 256;

/** A peer's connections, and whether any of them can be an old one. */
interface Connections {
  readonly pool: Pool;
  hasAnswered: boolean;
}

/** Connections to peers, kept alive between questions. */
export class PeerConnections {
  readonly #maxConnections: number;
  readonly #peers = new Map<string, Connections>();
  readonly #scratch = new Scratch();

  /** @param maxConnections to one peer */
  constructor(maxConnections: number) {
    this.#maxConnections = maxConnections;
  }

  /** Posts a message. */
  post(peer: PeerAddress, message: Uint8Array, maxBytes: number): Exchange {
    const question = new Question(this.#connectionsTo(peer), message, maxBytes, this.#scratch);
    return { answer: question.answer, cancel: (reason) => question.end(reason, `the question was ended: ${reason}`) };
  }

  /** Gives the memory of an answer back, of which nothing is used any more. */
  release(answer: Uint8Array): void {
    this.#scratch.give(answer);
  }

  close(): void {
    for (const { pool } of this.#peers.values()) void pool.destroy();
    this.#peers.clear();
  }

  #connectionsTo(peer: PeerAddress): Connections {
    const name = formatPeerAddress(peer);
    let connections = this.#peers.get(name);
    if (connections === undefined) {
      const pool = new Pool(`http://${name.replace('%', '%25')}`, {
        connections: this.#maxConnections,
        pipelining: 1,
        keepAliveTimeout: IDLE_CONNECTION_MS,
        keepAliveMaxTimeout: IDLE_CONNECTION_MS,
        maxHeaderSize: MAX_HEAD_BYTES,
        // Whoever asked has timers of its own.
        headersTimeout: 0,
        bodyTimeout: 0,
        connect: { timeout: CONNECT_TIMEOUT_MS, noDelay: true },
      });
      connections = { pool, hasAnswered: false };
      this.#peers.set(name, connections);
      if (this.#peers.size > MAX_POOLS) this.#forgetOne();
    }
    return connections;
  }

  #forgetOne(): void {
    for (const [name, { pool }] of this.#peers) {
      if (pool.stats.running + pool.stats.pending > 0) continue;
      void pool.destroy();
      this.#peers.delete(name);
      return;
    }
  }
}

/** The handler of one exchange; it settles once. */
class Question implements Dispatcher.DispatchHandler {
  readonly answer: Promise<Uint8Array>;
  readonly #connections: Connections;
  readonly #message: Uint8Array;
  readonly #maxBytes: number;
  readonly #scratch: Scratch;
  #resolve: (answer: Uint8Array) => void = () => {};
  #reject: (error: PeerError) => void = () => {};
  #controller: Dispatcher.DispatchController | undefined;
  #ended: PeerError | undefined;
  #bytes: Uint8Array | undefined;
  #length = 0;
  #mayTryAgain: boolean;

  constructor(connections: Connections, message: Uint8Array, maxBytes: number, scratch: Scratch) {
    this.#connections = connections;
    this.#message = message;
    this.#maxBytes = maxBytes;
    this.#scratch = scratch;
    this.#mayTryAgain = connections.hasAnswered;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#dispatch();
  }

  /** Ends it, whatever it has come to. */
  end(failure: PeerFailure, message: string, cause?: unknown): void {
    if (this.#ended !== undefined) return;
    this.#ended = new PeerError(failure, message, cause);
    this.#reject(this.#ended);
    this.#controller?.abort(this.#ended);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    // Ended while it waited for a connection.
    if (this.#ended !== undefined) controller.abort(this.#ended);
  }

  onResponseStart(_: unknown, status: number, headers: Readonly<Record<string, string | string[] | undefined>>): void {
    // Interim answers too: nobody said that any were expected.
    if (status !== 200) return this.end('failed', `the peer answered ${status}`);
    const announced = Number(headers['content-length'] ?? this.#maxBytes);
    if (!(announced <= this.#maxBytes)) return this.end('lied', 'the peer announced too much');
    this.#bytes = this.#scratch.take(announced);
    return undefined;
  }

  onResponseData(_: unknown, chunk: Uint8Array): void {
    const bytes = this.#bytes;
    if (bytes === undefined || this.#ended !== undefined) return undefined;
    if (this.#length + chunk.byteLength > bytes.byteLength) return this.end('lied', 'the peer sent too much');
    bytes.set(chunk, this.#length);
    this.#length += chunk.byteLength;
    return undefined;
  }

  onResponseEnd(): void {
    if (this.#bytes === undefined || this.#ended !== undefined) return;
    this.#connections.hasAnswered = true;
    this.#resolve(this.#bytes.subarray(0, this.#length));
  }

  onResponseError(_: unknown, error: Error): void {
    // The peer closed an idle connection just as it was wanted: that is nobody's fault, but only once.
    const wasIdle = this.#mayTryAgain && this.#bytes === undefined && this.#ended === undefined && isClosed(error);
    this.#mayTryAgain = false;
    if (wasIdle) this.#dispatch();
    else this.end('failed', 'the peer cannot be reached or broke off', error);
  }

  #dispatch(): void {
    this.#connections.pool.dispatch({ method: 'POST', path: RETRIEVAL_PATH, body: this.#message }, this);
  }
}

function isClosed(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE';
}

/** Bytes of one piece of memory for answers: the largest version 2 segment, encrypted, with its message. */
const SCRATCH_BYTES = 132 * 1024;
/** Pieces kept for the next answers. Policy, not protocol. */
const MAX_SCRATCH = 32;

/** Memory for answers, used again: they come by the thousand and live for a moment. */
class Scratch {
  readonly #free: ArrayBuffer[] = [];

  take(length: number): Uint8Array {
    if (length > SCRATCH_BYTES) return Buffer.allocUnsafeSlow(length);
    return new Uint8Array(this.#free.pop() ?? new ArrayBuffer(SCRATCH_BYTES), 0, length);
  }

  give({ buffer }: Uint8Array): void {
    if (buffer.byteLength === SCRATCH_BYTES && this.#free.length < MAX_SCRATCH) this.#free.push(buffer as ArrayBuffer);
  }
}
