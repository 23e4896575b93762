/**
 * What an application writes to its ServerResponse, held back until it is decided what the client gets.
 *
 * The object stays the same one, since frameworks keep it and listen to it; its writing methods are replaced. They pass through these states:
 *
 *   waiting   the application has not written yet
 *   held      it has begun: head and calls wait, at most a buffer full of them, then the application has to wait as well
 *   passing   what it wrote, and whatever it is going to write, goes to the connection as if nobody had been here
 *   streaming what it writes is read by others as a stream, who send it on
 *   dropped   the client gets another answer, and what the application writes goes nowhere
 */
import { OutgoingMessage, type ServerResponse, validateHeaderValue } from 'node:http';
import { Readable } from 'node:stream';
import { PeerDistAbortError } from '../../lib/errors.ts';
import { endToEndFields, type HeaderFields } from '../../lib/http/index.ts';
import { bytesOf, type HeldCall, normalized, readHeadArguments } from './response-calls.ts';

type Method<Result> = (this: ServerResponse, ...args: readonly unknown[]) => Result;
/** The methods as they were. */
interface Native {
  readonly writeHead: Method<ServerResponse>;
  readonly write: Method<boolean>;
  readonly end: Method<ServerResponse>;
  readonly flushHeaders: Method<void>;
  readonly destroy: Method<ServerResponse>;
}
/** What Node's types leave out. */
type Response = ServerResponse & { _header: string | null; getRawHeaderNames(): string[] };
type State = 'waiting' | 'held' | 'passing' | 'streaming' | 'dropped';

/** Bytes an application may write ahead. Policy, not protocol: that of a file stream. */
const MAX_HELD_BYTES = 64 * 1024;
/** Takes the place of the head that Node is going to make, so that everybody sees there is one. */
const HELD_HEAD = 'held';
/** Fields about the framing of a body that is not sent. */
const FRAMING = ['transfer-encoding', 'trailer'];

export class CapturedResponse {
  readonly #response: Response;
  readonly #native: Native;
  readonly #sources = new Set<Readable>();
  #state: State = 'waiting';
  #calls: HeldCall[] = [];
  #heldBytes = 0;
  #wantsDrain = false;
  #hasEnded = false;
  /** Node makes the head by itself, and knows the length, when the first thing it is told is the end. */
  #endsAtOnce = false;
  #body: CapturedBody | undefined;
  #onHead: (() => void) | undefined;
  #onEnd: (() => void) | undefined;

  constructor(response: ServerResponse) {
    this.#response = response as Response;
    const { writeHead, write, end, flushHeaders, destroy } = response;
    this.#native = { writeHead, write, end, flushHeaders, destroy } as Native;
    Object.assign(response, {
      writeHead: (...args: unknown[]) => this.#writeHead(args),
      write: (...args: unknown[]) => this.#write(args),
      end: (...args: unknown[]) => this.#end(args),
      flushHeaders: () => this.#flushHeaders(),
      destroy: (error?: Error) => this.#destroy(error),
    });
    const native = (name: string): unknown => Reflect.get(OutgoingMessage.prototype, name, response) as unknown;
    Object.defineProperties(response, {
      writableEnded: { configurable: true, get: () => this.#hasEnded || native('writableEnded') },
      writableNeedDrain: {
        configurable: true,
        get: () => (this.#state === 'passing' ? native('writableNeedDrain') : this.#wantsDrain && !this.#hasEnded),
      },
    });
    response.on('pipe', (source) => this.#sources.add(source));
    response.on('unpipe', (source) => this.#sources.delete(source));
    response.once('close', () => this.#body?.destroy(new PeerDistAbortError('close')));
  }

  /** True as soon as the application has begun to write. */
  get hasHead(): boolean {
    return this.#state !== 'waiting';
  }

  /** Settles when the application has begun to write. It may never do so. */
  head(): Promise<void> {
    return new Promise((resolve) => {
      if (this.hasHead) resolve();
      else this.#onHead = resolve;
    });
  }

  /** Settles when the application has written everything. It may never do so. */
  ended(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#hasEnded) resolve();
      else this.#onEnd = resolve;
    });
  }

  /** End-to-end fields of the held answer; a length that Node is going to add is there already. */
  fields(): HeaderFields {
    const fields: Record<string, string | string[]> = {};
    for (const [name, value] of Object.entries(this.#response.getHeaders())) {
      if (value !== undefined) fields[name] = Array.isArray(value) ? value : String(value);
    }
    const length = this.#endsAtOnce && fields['transfer-encoding'] === undefined ? this.#heldBytes : undefined;
    if (length !== undefined) fields['content-length'] ??= String(length);
    return endToEndFields(fields);
  }

  /** A stream of the held body. Reading it makes the answer one that is streaming; an unread one can be replaced by another. */
  body(): Readable {
    this.#body = new CapturedBody(() => this.#feed());
    return this.#body;
  }

  /** Changes fields of the held answer; undefined removes one. Names keep the case that the application gave them. */
  edit(changes: ReadonlyMap<string, string | readonly string[] | undefined>): void {
    const response = this.#response;
    response._header = null;
    const names = new Map(response.getRawHeaderNames().map((name) => [name.toLowerCase(), name]));
    for (const [name, value] of changes) {
      if (value === undefined) response.removeHeader(name);
      else response.setHeader(names.get(name) ?? name, value);
    }
    response._header = HELD_HEAD;
  }

  /** Lets the answer go as it was written. */
  pass(): void {
    const response = this.#response;
    const calls = this.#calls;
    this.#calls = [];
    this.#state = 'passing';
    response._header = null;
    const { writeHead, write, end, flushHeaders } = this.#native;
    if (!this.#endsAtOnce) writeHead.call(response, response.statusCode);
    for (const { kind, chunk, callback } of calls) {
      if (kind === 'flush') flushHeaders.call(response);
      else if (kind === 'write') write.call(response, chunk, callback);
      else if (chunk === undefined) end.call(response, callback);
      else end.call(response, chunk, callback);
    }
    if (this.#wantsDrain && !response.writableNeedDrain) response.emit('drain');
  }

  /** Sends the head; what others make of {@link body} follows by {@link sink}. */
  stream(): void {
    const isFlushed = this.#calls.some(({ kind }) => kind === 'flush');
    const { 'content-length': length } = this.fields();
    if (length !== undefined) this.edit(new Map([['content-length', length]]));
    this.#sendHead('streaming');
    if (isFlushed) this.#native.flushHeaders.call(this.#response);
  }

  /** Sends another head in place of the application's; its body follows by {@link sink}. What feeds the application's body is closed. */
  replace(status: number): void {
    this.#response.statusCode = status;
    this.#response.statusMessage = '';
    this.edit(new Map(FRAMING.filter((name) => this.#response.hasHeader(name)).map((name) => [name, undefined])));
    this.#sendHead('dropped');
    for (const source of this.#sources) {
      source.unpipe(this.#response);
      source.on('error', () => {});
      source.destroy();
    }
    for (const { callback } of this.#calls.splice(0)) if (callback !== undefined) process.nextTick(callback);
  }

  /** Gives up what the application has written, so that it can be asked once more. */
  restart(): void {
    const response = this.#response;
    response._header = null;
    // Node remembers of these that they were taken away, and leaves out its own.
    const kept = new Set(['date', 'connection', 'content-length', 'transfer-encoding']);
    for (const name of response.getHeaderNames()) if (!kept.has(name)) response.removeHeader(name);
    response.statusCode = 200;
    response.statusMessage = '';
    this.#state = 'waiting';
    this.#calls = [];
    this.#heldBytes = 0;
    this.#hasEnded = false;
    this.#endsAtOnce = false;
    this.#wantsDrain = false;
  }

  /** Where bytes for the client go, past the application. */
  sink(): { write(chunk: Uint8Array): boolean; end(): void; destroy(): void } {
    const response = this.#response;
    const { write, end, destroy } = this.#native;
    return {
      write: (chunk) => write.call(response, chunk),
      end: () => void end.call(response),
      destroy: () => void destroy.call(response),
    };
  }

  #sendHead(state: State): void {
    this.#state = state;
    this.#response._header = null;
    this.#native.writeHead.call(this.#response, this.#response.statusCode);
  }

  #writeHead(args: unknown[]): ServerResponse {
    const response = this.#response;
    if (this.#state !== 'waiting') return this.#native.writeHead.apply(response, args);
    readHeadArguments(response, args);
    const { statusCode } = response;
    // Node refuses what it cannot send, and the application has to hear of it now.
    if (!(Number.isInteger(statusCode) && statusCode >= 100 && statusCode < 1000)) {
      return this.#native.writeHead.call(response, statusCode);
    }
    if (response.statusMessage) validateHeaderValue('status message', response.statusMessage);
    this.#state = 'held';
    response._header = HELD_HEAD;
    // After the call that brought the head: an end in it is part of what there is to know.
    queueMicrotask(() => this.#onHead?.());
    return response;
  }

  #write(args: unknown[]): boolean {
    if (this.#state === 'waiting') this.#response.writeHead(this.#response.statusCode);
    const { write } = this.#native;
    if (this.#state === 'passing') return write.apply(this.#response, args);
    const { chunk, callback } = normalized(args);
    if (this.#hasEnded || this.#state === 'dropped') {
      if (callback !== undefined) process.nextTick(callback);
      return false;
    }
    this.#hold({ kind: 'write', chunk: bytesOf(chunk), callback });
    return !this.#wantsDrain;
  }

  #end(args: unknown[]): ServerResponse {
    const response = this.#response;
    if (this.#state === 'waiting') {
      this.#endsAtOnce = true;
      response.writeHead(response.statusCode);
    }
    const { end } = this.#native;
    if (this.#state === 'passing') return end.apply(response, args);
    const { chunk, callback } = normalized(args);
    if (this.#hasEnded) {
      if (callback !== undefined) process.nextTick(callback);
      return response;
    }
    this.#hasEnded = true;
    const bytes = chunk === undefined || chunk === null ? undefined : bytesOf(chunk);
    if (this.#state !== 'dropped') this.#hold({ kind: 'end', chunk: bytes, callback });
    else if (callback !== undefined) response.once('finish', callback);
    this.#onEnd?.();
    return response;
  }

  #flushHeaders(): void {
    if (this.#state === 'waiting') this.#response.writeHead(this.#response.statusCode);
    if (this.#state === 'held') this.#calls.push({ kind: 'flush' });
    else if (this.#state !== 'dropped') this.#native.flushHeaders.call(this.#response);
  }

  /** An answer that breaks off must not pass for a whole one. Of an answer nobody gets it is no matter. */
  #destroy(error: Error | undefined): ServerResponse {
    if (this.#state === 'dropped') return this.#response;
    this.#body?.destroy(error ?? new PeerDistAbortError('close'));
    return this.#native.destroy.call(this.#response, error);
  }

  #hold(call: HeldCall): void {
    this.#calls.push(call);
    this.#heldBytes += call.chunk?.byteLength ?? 0;
    this.#wantsDrain = this.#heldBytes >= MAX_HELD_BYTES;
    if (this.#state === 'streaming') this.#feed();
  }

  /** Gives a stream of the body what it wants. A drain of the connection may let the application write before its time: one piece for each that has left. */
  #feed(): void {
    const body = this.#body;
    while (body?.isWanting === true && this.#calls.length > 0) {
      const { kind, chunk, callback } = this.#calls.shift() as HeldCall;
      this.#heldBytes -= chunk?.byteLength ?? 0;
      if (chunk !== undefined) body.give(chunk);
      if (kind === 'end') {
        body.give(null);
        if (callback !== undefined) this.#response.once('finish', callback);
      } else if (callback !== undefined) process.nextTick(callback);
    }
    if (!this.#wantsDrain || this.#heldBytes >= MAX_HELD_BYTES) return;
    this.#wantsDrain = false;
    process.nextTick(() => this.#response.emit('drain'));
  }
}

class CapturedBody extends Readable {
  isWanting = false;
  readonly #feed: () => void;

  constructor(feed: () => void) {
    super({ highWaterMark: MAX_HELD_BYTES });
    this.#feed = feed;
    // Whoever reads it sees the error; nobody has to.
    this.on('error', () => {});
  }

  give(chunk: Uint8Array | null): void {
    this.isWanting = this.push(chunk);
  }

  override _read(): void {
    this.isWanting = true;
    this.#feed();
  }
}
