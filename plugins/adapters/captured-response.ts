/**
 * What an application writes to its ServerResponse, held back until it is decided what the client gets.
 *
 * The object stays the same one, since frameworks keep it and listen to it; its writing methods are replaced. It passes through these states:
 *
 *   waiting   the application has not written yet
 *   held      it has begun: its calls wait, a buffer full of them, and then the application has to wait as well
 *   passing   what it wrote, and whatever it is going to write, goes to the connection as if nobody had been here
 *   streaming what it writes is read by others as a stream, who send it on
 *   dropped   the client gets another answer, and what the application writes goes nowhere
 */
import { type ServerResponse, validateHeaderValue } from 'node:http';
import type { Readable } from 'node:stream';
import { PeerDistAbortError } from '../../lib/errors.ts';
import { endToEndFields, type HeaderFields } from '../../lib/http/index.ts';
import { HeldCalls } from './held-calls.ts';
import { NativeResponse } from './native-response.ts';
import { bytesOf, normalized, readHeadArguments } from './response-calls.ts';

type State = 'waiting' | 'held' | 'passing' | 'streaming' | 'dropped';

/** Fields about the framing of a body that is not sent. */
const FRAMING = ['transfer-encoding', 'trailer'];

export class CapturedResponse {
  /** The response without us, for those who send what the application did not write. */
  readonly native: NativeResponse;
  readonly #response: ServerResponse;
  readonly #calls: HeldCalls;
  readonly #sources = new Set<Readable>();
  #state: State = 'waiting';
  #hasEnded = false;
  #isFinishing = false;
  /** Node makes the head by itself, and knows the length, when the first thing it is told is the end. */
  #endsAtOnce = false;
  #onHead: (() => void) | undefined;
  #onEnd: (() => void) | undefined;

  constructor(response: ServerResponse) {
    this.#response = response;
    this.native = new NativeResponse(response);
    this.#calls = new HeldCalls({
      onDrain: () => void response.emit('drain'),
      onFinish: (callback) => void response.once('finish', callback),
    });
    Object.assign(response, {
      writeHead: (...args: unknown[]) => this.#writeHead(args),
      write: (...args: unknown[]) => this.#write(args),
      end: (...args: unknown[]) => this.#end(args),
      flushHeaders: () => this.#flushHeaders(),
      destroy: (error?: Error) => this.#destroy(error),
    });
    const { native } = this;
    Object.defineProperties(response, {
      writableEnded: { configurable: true, get: () => this.#hasEnded || native.writableEnded },
      writableNeedDrain: {
        configurable: true,
        get: () => (this.#state === 'passing' ? native.writableNeedDrain : this.#calls.wantsDrain && !this.#hasEnded),
      },
    });
    response.on('pipe', (source) => this.#sources.add(source));
    response.on('unpipe', (source) => this.#sources.delete(source));
  }

  /** Settles when the application has begun to write. It may never do so. */
  head(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#state === 'waiting') this.#onHead = resolve;
      else resolve();
    });
  }

  /** Settles when the application has written everything that matters. It may never do so. */
  ended(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#hasEnded || this.#state === 'dropped') resolve();
      else this.#onEnd = resolve;
    });
  }

  /** End-to-end fields of the held answer; a length that Node is going to add is there already. */
  fields(): HeaderFields {
    const fields: Record<string, string | string[]> = {};
    for (const [name, value] of Object.entries(this.#response.getHeaders())) {
      if (value !== undefined) fields[name] = Array.isArray(value) ? value : String(value);
    }
    if (this.#endsAtOnce && fields['transfer-encoding'] === undefined)
      fields['content-length'] ??= String(this.#calls.bytes);
    return endToEndFields(fields);
  }

  /** The held body as a stream. */
  body(): Readable {
    const { 'content-length': length } = this.fields();
    return this.#calls.body(length === undefined ? undefined : Number(length));
  }

  /** Changes fields of the held answer; undefined removes one. */
  edit(changes: ReadonlyMap<string, string | readonly string[] | undefined>): void {
    this.native.openHead();
    this.native.edit(changes);
    this.native.closeHead();
  }

  /** Lets the answer go as it was written. */
  pass(): void {
    const { native } = this;
    const wantsDrain = this.#calls.wantsDrain;
    this.#state = 'passing';
    native.openHead();
    if (!this.#endsAtOnce) native.writeHead(this.#response.statusCode);
    let hasRoom = true;
    for (const { kind, chunk, callback } of this.#calls.take()) {
      if (kind === 'flush') native.flushHeaders();
      else if (kind === 'write') hasRoom = native.write(chunk, callback);
      else if (chunk === undefined) native.end(callback);
      else native.end(chunk, callback);
    }
    if (wantsDrain && hasRoom) this.#response.emit('drain');
  }

  /** Sends the head. Whoever reads {@link body} sends that. */
  stream(): void {
    const { 'content-length': length } = this.fields();
    this.native.openHead();
    this.native.edit(new Map([['content-length', length]]));
    this.#state = 'streaming';
    this.native.writeHead(this.#response.statusCode);
    if (this.#calls.hasFlush) this.native.flushHeaders();
  }

  /** Sends another head in place of the application's, with the fields as they have been edited; what feeds the application's body is closed. */
  replace(status: number): void {
    const response = this.#response;
    response.statusCode = status;
    response.statusMessage = '';
    this.#state = 'dropped';
    this.native.openHead();
    this.native.edit(new Map(FRAMING.map((name) => [name, undefined])));
    this.native.writeHead(status);
    for (const source of this.#sources) {
      source.unpipe(response);
      source.on('error', () => {});
      source.destroy();
    }
    for (const { callback } of this.#calls.take()) if (callback !== undefined) process.nextTick(callback);
  }

  /** Ends what is sent in place of the application's own writing. */
  finish(): void {
    // A response that is not one of Node's may destroy itself at its end.
    this.#isFinishing = true;
    this.native.end();
    this.#isFinishing = false;
  }

  /** Gives up what the application has written, so that it can be asked once more. */
  restart(): void {
    const response = this.#response;
    // Node remembers of these that they were removed, and would leave out its own.
    const kept = new Set(['date', 'connection', 'content-length', 'transfer-encoding']);
    this.native.openHead();
    for (const name of response.getHeaderNames()) if (!kept.has(name)) response.removeHeader(name);
    response.statusCode = 200;
    response.statusMessage = '';
    this.#calls.take();
    this.#state = 'waiting';
    this.#hasEnded = false;
    this.#endsAtOnce = false;
  }

  #writeHead(args: readonly unknown[]): ServerResponse {
    const response = this.#response;
    if (this.#state !== 'waiting') return this.native.writeHead(...args);
    readHeadArguments(response, args);
    const { statusCode, statusMessage } = response;
    // Node refuses what it cannot send, and the application has to hear of it now.
    const isSendable = Number.isInteger(statusCode) && statusCode >= 100 && statusCode < 1000;
    if (!isSendable) return this.native.writeHead(statusCode);
    if (statusMessage) validateHeaderValue('status message', statusMessage);
    this.#state = 'held';
    this.native.closeHead();
    // After the call that brought the head: an end in it is part of what there is to know.
    queueMicrotask(() => this.#onHead?.());
    return response;
  }

  #write(args: readonly unknown[]): boolean {
    if (this.#state === 'waiting') this.#response.writeHead(this.#response.statusCode);
    if (this.#state === 'passing') return this.native.write(...args);
    const { chunk, callback } = normalized(args);
    if (this.#hasEnded || this.#state === 'dropped') {
      if (callback !== undefined) process.nextTick(callback);
      return false;
    }
    const bytes = bytesOf(chunk);
    // Whoever waits for a callback may use the same memory again after it.
    this.#calls.add({ kind: 'write', chunk: callback === undefined ? bytes : Uint8Array.from(bytes), callback });
    return !this.#calls.wantsDrain;
  }

  #end(args: readonly unknown[]): ServerResponse {
    const response = this.#response;
    if (this.#state === 'waiting') {
      this.#endsAtOnce = true;
      response.writeHead(response.statusCode);
    }
    if (this.#state === 'passing') return this.native.end(...args);
    const { chunk, callback } = normalized(args);
    if (this.#hasEnded) {
      if (callback !== undefined) process.nextTick(callback);
      return response;
    }
    this.#hasEnded = true;
    const bytes = chunk === undefined || chunk === null ? undefined : bytesOf(chunk);
    if (this.#state !== 'dropped') this.#calls.add({ kind: 'end', chunk: bytes, callback });
    else if (callback !== undefined) response.once('finish', callback);
    this.#onEnd?.();
    return response;
  }

  #flushHeaders(): void {
    if (this.#state === 'waiting') this.#response.writeHead(this.#response.statusCode);
    if (this.#state === 'held') this.#calls.add({ kind: 'flush' });
    else if (this.#state !== 'dropped') this.native.flushHeaders();
  }

  /** An answer that breaks off must not pass for a whole one. Of an answer that nobody gets it is no matter. */
  #destroy(error: Error | undefined): ServerResponse {
    if (this.#state === 'dropped' && !this.#isFinishing) return this.#response;
    this.#calls.break(error ?? new PeerDistAbortError('close'));
    return this.native.destroy(error);
  }
}
