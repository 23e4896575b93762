/** One question to one peer: an HTTP POST whose answer is read to its end before anybody gets it. */
import { buildConnector, Client, type Dispatcher } from 'undici';
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
  /** The message was in order and only the block in it is not the one described. */
  readonly isMismatch: boolean = false;

  constructor(failure: PeerFailure, message: string, cause?: unknown) {
    super('ERR_PEERDIST_PEER_FAILED', message, { cause });
    this.failure = failure;
  }
}

/** A peer has sent another block than the one described. */
export class MismatchError extends PeerError {
  override readonly isMismatch = true;

  constructor() {
    super('lied', 'the block does not match its hash');
  }
}

/** Milliseconds an idle connection to a peer is kept; less than common servers do. Policy, not protocol. */
const IDLE_CONNECTION_MS = 4_000;
/** Milliseconds to connect. Whoever asked has long gone on. Policy, not protocol. */
const CONNECT_TIMEOUT_MS = 5_000;
/** Bytes of the head of an answer. */
const MAX_HEAD_BYTES = 8 * 1024;
/** Peers that idle connections are kept to. Policy, not protocol. */
const MAX_PEERS = 256;

/** Where a client believes to be connected: URLs know nothing of the zone of a link-local address, so the connector is told apart. */
const NOMINAL_ORIGIN = 'http://peer.invalid';

const connector = buildConnector({ timeout: CONNECT_TIMEOUT_MS });

/** One connection, lent to one question at a time. */
interface Connection {
  readonly client: Client;
  /** True once it has carried an answer: the peer may close it at any time. */
  isOld: boolean;
}

/** Connections to peers, kept alive between questions. One that a question has failed on is closed. */
export class PeerConnections {
  /** By peer, the one used last at the end. */
  readonly #idle = new Map<string, Connection[]>();
  readonly #scratch = new Scratch();
  readonly #open = new Set<Question>();

  /** Posts a message. As many connections as there are questions at a time. */
  post(peer: PeerAddress, message: Uint8Array, maxBytes: number, path: string = RETRIEVAL_PATH): Exchange {
    const question = new Question(peer, this, { message, maxBytes, path });

    return { answer: question.answer, cancel: (reason) => question.end(reason, `the question was ended: ${reason}`) };
  }

  /** Memory for an answer. */
  take(bytes: number): Uint8Array {
    return this.#scratch.take(bytes);
  }

  /** Gives the memory of an answer back, of which nothing is used any more. */
  release(answer: Uint8Array): void {
    this.#scratch.give(answer);
  }

  lend(peer: PeerAddress, question: Question): Connection {
    this.#open.add(question);
    return this.#idle.get(formatPeerAddress(peer))?.pop() ?? connectTo(peer);
  }

  /** The question is over, one way or the other. */
  ended(question: Question): void {
    this.#open.delete(question);
  }

  giveBack(peer: PeerAddress, connection: Connection): void {
    const name = formatPeerAddress(peer);
    const idle = this.#idle.get(name) ?? [];
    idle.push(connection);
    // Last in line to be forgotten.
    this.#idle.delete(name);
    this.#idle.set(name, idle);
    if (this.#idle.size > MAX_PEERS) this.#forget(this.#idle.keys().next().value as string);
  }

  /** Ends everything under way. */
  close(): void {
    for (const question of this.#open) question.end('cancelled', 'the connections were closed');
    for (const name of this.#idle.keys()) this.#forget(name);
  }

  #forget(name: string): void {
    for (const { client } of this.#idle.get(name) ?? []) void client.destroy();
    this.#idle.delete(name);
  }
}

function connectTo({ address, port }: PeerAddress): Connection {
  const client = new Client(NOMINAL_ORIGIN, {
    pipelining: 1,
    keepAliveTimeout: IDLE_CONNECTION_MS,
    keepAliveMaxTimeout: IDLE_CONNECTION_MS,
    maxHeaderSize: MAX_HEAD_BYTES,
    // Whoever asked has timers of its own.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: (options, callback) => connector({ ...options, hostname: address, port: String(port) }, callback),
  });
  return { client, isOld: false };
}

interface Post {
  readonly message: Uint8Array;
  /** No honest answer is longer. */
  readonly maxBytes: number;
  readonly path: string;
}

/** The handler of one exchange; it settles once. */
class Question implements Dispatcher.DispatchHandler {
  readonly answer: Promise<Uint8Array>;
  readonly #peer: PeerAddress;
  readonly #connections: PeerConnections;
  readonly #post: Post;
  readonly #maxBytes: number;
  #connection: Connection;
  #resolve: (answer: Uint8Array) => void = () => {};
  #reject: (error: PeerError) => void = () => {};
  #isOver = false;
  #bytes: Uint8Array | undefined;
  #length = 0;

  constructor(peer: PeerAddress, connections: PeerConnections, post: Post) {
    this.#peer = peer;
    this.#connections = connections;
    this.#post = post;
    this.#maxBytes = post.maxBytes;
    this.#connection = connections.lend(peer, this);
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#dispatch();
  }

  /** Ends it, whatever it has come to, and its connection. */
  end(failure: PeerFailure, message: string, cause?: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connections.ended(this);
    const error = new PeerError(failure, message, cause);
    this.#reject(error);
    void this.#connection.client.destroy(error);
  }

  /** Tells undici which kind of handler this is. */
  onRequestStart(): void {}

  onResponseStart(_: unknown, status: number, headers: Readonly<Record<string, string | string[] | undefined>>): void {
    // Interim answers too: nobody said that any were expected.
    if (status !== 200) return this.end('failed', `the peer answered ${status}`);
    const announced = Number(headers['content-length'] ?? this.#maxBytes);
    if (!(announced <= this.#maxBytes)) return this.end('lied', 'the peer announced too much');
    this.#bytes = this.#connections.take(announced);
    return undefined;
  }

  onResponseData(_: unknown, chunk: Uint8Array): void {
    const bytes = this.#bytes;
    if (bytes === undefined || this.#isOver) return undefined;
    if (this.#length + chunk.byteLength > bytes.byteLength) return this.end('lied', 'the peer sent too much');
    bytes.set(chunk, this.#length);
    this.#length += chunk.byteLength;
    return undefined;
  }

  onResponseEnd(): void {
    if (this.#bytes === undefined || this.#isOver) return;
    this.#isOver = true;
    this.#connections.ended(this);
    this.#connection.isOld = true;
    this.#connections.giveBack(this.#peer, this.#connection);
    this.#resolve(this.#bytes.subarray(0, this.#length));
  }

  onResponseError(_: unknown, error: Error): void {
    // The peer closed an idle connection just as it was wanted: that is nobody's fault.
    if (this.#connection.isOld && this.#bytes === undefined && !this.#isOver) {
      void this.#connection.client.destroy();
      this.#connection = connectTo(this.#peer);
      this.#dispatch();
    } else this.end('failed', 'the peer cannot be reached or broke off', error);
  }

  #dispatch(): void {
    const headers = { host: formatPeerAddress(this.#peer).replace(/%[^\]]*/, '') };
    const { path, message } = this.#post;
    this.#connection.client.dispatch({ method: 'POST', path, headers, body: message }, this);
  }
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
