import { connect, createServer, type Server, type Socket } from 'node:net';
import { pipeline, Transform, type TransformCallback } from 'node:stream';

export interface WanLinkOptions {
  readonly target: { readonly host: string; readonly port: number };
  /** Bits a second in each direction, all connections together. */
  readonly bitsPerSecond: number;
  /** Milliseconds there and back. */
  readonly roundTripMs: number;
}

/** A TCP relay that is as slow and as far as a WAN line. `bytes` counts what it carried both ways, heads and all. */
export class WanLink {
  readonly server: Server;
  bytes = 0;
  readonly #options: WanLinkOptions;
  readonly #sockets = new Set<Socket>();
  readonly #up: Wire;
  readonly #down: Wire;

  constructor(options: WanLinkOptions) {
    this.#options = options;
    this.#up = new Wire(options);
    this.#down = new Wire(options);
    this.server = createServer({ noDelay: true }, (near) => this.#relay(near));
  }

  close(): void {
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #relay(near: Socket): void {
    const far = connect({ ...this.#options.target, noDelay: true });
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    }
    const count = (bytes: number): void => {
      this.bytes += bytes;
    };
    pipeline(near, new Line(this.#up, count), far, () => {});
    pipeline(far, new Line(this.#down, count), near, () => {});
  }
}

/** One direction, shared by all connections: says when bytes handed to it now have left it. */
class Wire {
  readonly #msPerByte: number;
  readonly delayMs: number;
  #freeAt = 0;

  constructor({ bitsPerSecond, roundTripMs }: WanLinkOptions) {
    this.#msPerByte = 8_000 / bitsPerSecond;
    this.delayMs = roundTripMs / 2;
  }

  /** Milliseconds until the bytes are on their way. */
  send(bytes: number): number {
    const now = performance.now();
    this.#freeAt = Math.max(now, this.#freeAt) + bytes * this.#msPerByte;
    return this.#freeAt - now;
  }
}

/** One connection in one direction. */
class Line extends Transform {
  readonly #wire: Wire;
  readonly #count: (bytes: number) => void;
  readonly #underWay: Uint8Array[] = [];
  #flushed: TransformCallback | undefined;

  constructor(wire: Wire, count: (bytes: number) => void) {
    super();
    this.#wire = wire;
    this.#count = count;
  }

  override _transform(chunk: Uint8Array, _encoding: BufferEncoding, callback: TransformCallback): void {
    this.#count(chunk.byteLength);
    const wait = this.#wire.send(chunk.byteLength);
    this.#underWay.push(chunk);
    // Timers of a busy process can fire in another order than they were set.
    setTimeout(() => {
      this.push(this.#underWay.shift());
      if (this.#underWay.length === 0) this.#flushed?.();
    }, wait + this.#wire.delayMs);
    setTimeout(callback, wait);
  }

  override _flush(callback: TransformCallback): void {
    if (this.#underWay.length === 0) callback();
    else this.#flushed = callback;
  }
}
