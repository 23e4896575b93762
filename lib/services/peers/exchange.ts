import { Agent, type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { PeerDistError } from '../../errors.ts';
import { type PeerAddress } from '../../protocol/pccrd/index.ts';
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
/** Bytes of one piece of memory for answers: the largest version 2 segment, encrypted, with its message. */
const SCRATCH_BYTES = 132 * 1024;
/** Pieces kept for the next answers. Policy, not protocol. */
const MAX_SCRATCH = 32;

/** Connections to peers, kept alive between questions. */
export class PeerConnections {
  readonly #agent: Agent;
  readonly #scratch = new Scratch();

  /**
   * @param maxFreeSockets idle connections to one peer. Questions in flight bound the others; the agent must not, since it does not tell of a
   * request that waited in its line that the connection it got was an old one
   */
  constructor(maxFreeSockets: number) {
    this.#agent = new Agent({
      keepAlive: true,
      timeout: IDLE_CONNECTION_MS,
      maxFreeSockets,
      noDelay: true,
    });
  }

  /** Posts a message; answers are read to their end before anybody gets them. */
  post(peer: PeerAddress, message: Uint8Array, maxBytes: number): Exchange {
    let request: ClientRequest;
    let ended: PeerError | undefined;
    const answer = new Promise<Uint8Array>((resolve, reject) => {
      const fail = (error: PeerError): void => reject(ended ?? error);
      const start = (): void => {
        let hasAnswered = false;
        const current = httpRequest({
          agent: this.#agent,
          host: peer.address,
          port: peer.port,
          method: 'POST',
          path: RETRIEVAL_PATH,
          headers: { 'content-length': message.byteLength },
        });
        request = current;
        current.on('response', (response) => {
          hasAnswered = true;
          this.#read(response, maxBytes, resolve, fail);
        });
        current.on('error', (error) => {
          // The peer closed an idle connection just as it was wanted: that is nobody's fault.
          if (ended === undefined && current.reusedSocket && !hasAnswered) start();
          else fail(new PeerError('failed', 'the peer cannot be reached or broke off', error));
        });
        // Nothing was said of expecting any, and a flood of them would keep everybody from the event loop.
        current.on('information', () => {
          ended ??= new PeerError('failed', 'the peer sent an interim answer');
          current.destroy(ended);
        });
        // A 101 that nobody asked for is neither a response nor an error.
        current.on('close', () => {
          if (!hasAnswered && request === current) fail(new PeerError('failed', 'the peer closed without an answer'));
        });
        current.end(message);
      };
      start();
    });
    return {
      answer,
      cancel: (reason) => {
        ended ??= new PeerError(reason, `the question was ended: ${reason}`);
        request.destroy(ended);
      },
    };
  }

  /** Gives the memory of an answer back, of which nothing is used any more. */
  release(answer: Uint8Array): void {
    this.#scratch.give(answer);
  }

  close(): void {
    this.#agent.destroy();
  }

  /** Calls back once, with all of the body or why there is none. */
  #read(
    response: IncomingMessage,
    maxBytes: number,
    resolve: (answer: Uint8Array) => void,
    reject: (error: PeerError) => void,
  ): void {
    const fail = (failure: PeerFailure, message: string, cause?: unknown): void => {
      reject(new PeerError(failure, message, cause));
      response.destroy();
    };
    if (response.statusCode !== 200) return fail('failed', `the peer answered ${response.statusCode}`);
    const announced = Number(response.headers['content-length'] ?? maxBytes);
    if (!(announced <= maxBytes)) return fail('lied', 'the peer announced too much');
    const bytes = this.#scratch.take(announced);
    let length = 0;
    response.on('data', (chunk: Uint8Array) => {
      if (length + chunk.byteLength > announced) return fail('lied', 'the peer sent too much');
      bytes.set(chunk, length);
      length += chunk.byteLength;
      return undefined;
    });
    response.on('end', () => resolve(bytes.subarray(0, length)));
    response.on('error', (error) => fail('failed', 'the peer broke off', error));
    return undefined;
  }
}

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
