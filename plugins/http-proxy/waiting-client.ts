import type { Duplex } from 'node:stream';
import { PeerDistAbortError } from '../../lib/errors.ts';

/** Bytes a client may send before its tunnel is there; then it has to wait. Policy, not protocol. */
const MAX_EARLY_BYTES = 64 * 1024;

/**
 * A client whose socket Node has handed over and that waits for its tunnel. Its socket is read meanwhile, because a client that
 * leaves would go unnoticed otherwise; what it sends early is kept for the tunnel.
 */
export class WaitingClient {
  readonly socket: Duplex;
  readonly #controller = new AbortController();
  readonly #early: Buffer[];
  #earlyBytes: number;

  constructor(socket: Duplex, head: Buffer) {
    this.socket = socket;
    this.#early = [head];
    this.#earlyBytes = head.byteLength;
    socket.on('error', () => {});
    socket.on('data', this.#keep);
    socket.once('end', this.#leave);
    socket.once('close', this.#leave);
  }

  /** Fires when the client goes away before it has its tunnel or its answer. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the waiting. @returns what came early */
  claim(): Buffer {
    this.socket.off('data', this.#keep);
    this.socket.off('end', this.#leave);
    this.socket.off('close', this.#leave);
    this.socket.pause();
    return Buffer.concat(this.#early);
  }

  readonly #keep = (chunk: Buffer): void => {
    this.#early.push(chunk);
    this.#earlyBytes += chunk.byteLength;
    if (this.#earlyBytes > MAX_EARLY_BYTES) this.socket.pause();
  };

  readonly #leave = (): void => {
    this.#controller.abort(new PeerDistAbortError('signal'));
    this.socket.destroy();
  };
}

/** True while Node writes the answer to an earlier request of the connection. */
export function isAnswering(socket: Duplex): boolean {
  return ((socket as Duplex & { _httpMessage?: unknown })._httpMessage ?? null) !== null;
}
