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

/** Connections to peers, kept alive between questions. */
export class PeerConnections {
  readonly #agent: Agent;

  /** @param maxSockets connections to one peer */
  constructor(maxSockets: number) {
    this.#agent = new Agent({
      keepAlive: true,
      timeout: IDLE_CONNECTION_MS,
      maxSockets,
      maxFreeSockets: maxSockets,
      noDelay: true,
    });
  }

  /** Posts a message; answers are read to their end before anybody gets them. */
  post(peer: PeerAddress, message: Uint8Array, maxBytes: number): Exchange {
    let current: ClientRequest;
    let ended: PeerError | undefined;
    const answer = new Promise<Uint8Array>((resolve, reject) => {
      const start = (): void => {
        let hasAnswered = false;
        current = httpRequest({
          agent: this.#agent,
          host: peer.address,
          port: peer.port,
          method: 'POST',
          path: RETRIEVAL_PATH,
          headers: { 'content-length': message.byteLength },
        });
        current.once('response', (response) => {
          hasAnswered = true;
          readAnswer(response, maxBytes).then(resolve, (error: unknown) => reject(ended ?? error));
        });
        current.on('error', (error) => {
          if (ended !== undefined) return reject(ended);
          // The peer closed an idle connection just as it was wanted: that is nobody's fault.
          if (current.reusedSocket && !hasAnswered) return start();
          return reject(new PeerError('failed', 'the peer cannot be reached or broke off', error));
        });
        current.end(message);
      };
      start();
    });
    return {
      answer,
      cancel: (reason) => {
        ended ??= new PeerError(reason, `the question was ended: ${reason}`);
        current.destroy(ended);
      },
    };
  }

  close(): void {
    this.#agent.destroy();
  }
}

function readAnswer(response: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const fail = (failure: PeerFailure, message: string, cause?: unknown): void => {
      reject(new PeerError(failure, message, cause));
      response.destroy();
    };
    if (response.statusCode !== 200) return fail('failed', `the peer answered ${response.statusCode}`);
    const announced = Number(response.headers['content-length'] ?? maxBytes);
    if (!(announced <= maxBytes)) return fail('lied', 'the peer announced too much');
    // Its own memory: a block without a cipher is going to stay a view of it.
    const bytes = Buffer.allocUnsafeSlow(announced);
    let length = 0;
    response.on('data', (chunk: Uint8Array) => {
      if (length + chunk.byteLength > announced) return fail('lied', 'the peer sent too much');
      bytes.set(chunk, length);
      length += chunk.byteLength;
    });
    response.once('end', () => resolve(bytes.subarray(0, length)));
    response.once('error', (error) => fail('failed', 'the peer broke off', error));
    response.once('close', () => fail('failed', 'the peer broke off'));
    return undefined;
  });
}
