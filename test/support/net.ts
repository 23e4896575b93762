/** Both ends of a proxy as bare sockets: a client that may send anything, an origin that records what it got and believes all of it. */
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { networkInterfaces, platform } from 'node:os';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { Kit } from '../../lib/kit/index.ts';
import type { Observation } from '../../lib/observer.ts';
import { createProxyServer, HttpProxyHost, type HttpProxyHostOptions } from '../../plugins/http-proxy/index.ts';

/** What these helpers need of a tap test. */
export interface Scope {
  teardown(callback: () => unknown): unknown;
}

/** Milliseconds after which something awaited counts as never happening. */
const NEVER_MS = 3_000;

/** The promise, or a failure that names what did not come. Nothing waits this long in a passing test. */
export async function within<T>(promise: Promise<T>, what: string | (() => string), ms = NEVER_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const never = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`never came: ${typeof what === 'string' ? what : what()}`)), ms);
  });
  try {
    return await Promise.race([promise, never]);
  } finally {
    clearTimeout(timer);
  }
}

/** Listens on a free port and closes everything with the test. */
export async function listen(scope: Scope, server: Server, address = '127.0.0.1'): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, address);
  await once(server, 'listening');
  scope.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    if (!server.listening) return;
    server.close();
    await once(server, 'close');
  });
  return (server.address() as AddressInfo).port;
}

/** An address of this machine that is not loopback: who connects to it is a client from elsewhere. */
export function outsideAddress(family: 'IPv4' | 'IPv6' = 'IPv4'): string | undefined {
  const entries = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return entries.find(
    (entry) => !entry.internal && entry.family === family && !/^(?:169\.254\.|fe80:)/i.test(entry.address),
  )?.address;
}

/**
 * A port of 127.0.0.1 where connecting neither succeeds nor fails: the queue of a process that stands still is full. Undefined where
 * processes cannot be looked at (anything but Linux).
 */
export async function deafPort(scope: Scope): Promise<number | undefined> {
  if (platform() !== 'linux') return undefined;
  const script = `const s = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 },
    () => process.stdout.write(String(s.address().port)))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  scope.teardown(async () => {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  const [text] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(text.toString());
  child.kill('SIGSTOP');
  while (!/\) T /.test(readFileSync(`/proc/${child.pid}/stat`, 'latin1'))) await new Promise(setImmediate);
  const fillers = Array.from({ length: 6 }, () => connect({ port, host: '127.0.0.1' }).on('error', () => {}));
  scope.teardown(() => {
    for (const filler of fillers) filler.destroy();
  });
  await once(fillers[1] as Socket, 'connect');
  for (const filler of fillers) if (filler.connecting) filler.destroy();
  return port;
}

/** Waits until so many connections of this machine wait for a port to take them (Linux). */
export async function connecting(port: number, count: number, what: string): Promise<void> {
  const waiting = `:${port.toString(16).padStart(4, '0').toUpperCase()} 02 `;
  const never = Date.now() + NEVER_MS;
  while (readFileSync('/proc/net/tcp', 'latin1').split(waiting).length - 1 !== count) {
    if (Date.now() > never) throw new Error(`never came: ${what}`);
    await new Promise(setImmediate);
  }
}

export type FieldLines = readonly (readonly [name: string, value: string])[];

/** The values of a field, one for each line it has. */
export function values(fields: FieldLines, name: string): string[] {
  return fields.filter(([lineName]) => lineName.toLowerCase() === name).map(([, value]) => value);
}

/** True when a text has control characters other than those in `allowed`. */
export function hasControls(text: string, allowed = ''): boolean {
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if ((code < 0x20 || code === 0x7f) && !allowed.includes(text.charAt(at))) return true;
  }
  return false;
}

function parseFields(lines: readonly string[]): FieldLines {
  return lines.map((line) => {
    const colon = line.indexOf(':');
    return [line.slice(0, colon), line.slice(colon + 1).trim()] as const;
  });
}

/** One response as it came over the wire; `status` is 0 when the connection closed without one. */
export interface RawResponse {
  readonly status: number;
  readonly reason: string;
  readonly fields: FieldLines;
  /** Decoded from chunks, as latin1. */
  readonly body: string;
  /** False when the connection closed before the end that the head announced. */
  readonly complete: boolean;
}

/** A client that sends exactly the bytes it is told to. */
export class RawClient {
  readonly socket: Socket;
  /** Settles when the connection is closed. */
  readonly closed: Promise<'ended' | 'reset'>;
  #bytes: Buffer = Buffer.alloc(0);
  #isClosed = false;
  readonly #changes = new EventEmitter().setMaxListeners(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    let failed = false;
    socket.on('error', () => {
      failed = true;
    });
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#changes.emit('change');
    });
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true;
        this.#changes.emit('change');
        resolve(failed ? 'reset' : 'ended');
      });
    });
  }

  static async connect(scope: Scope, port: number, host = '127.0.0.1'): Promise<RawClient> {
    const socket = connect({ port, host, noDelay: true });
    const client = RawClient.over(scope, socket);
    await once(socket, 'connect');
    return client;
  }

  /** On a connection that somebody else makes. */
  static over(scope: Scope, socket: Socket): RawClient {
    scope.teardown(() => socket.destroy());
    return new RawClient(socket);
  }

  /** Text goes out as latin1, so that any byte can be written. */
  send(bytes: string | Uint8Array): this {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
    return this;
  }

  /** What has come and was not taken by {@link response}. */
  get received(): string {
    return this.#bytes.toString('latin1');
  }

  /** Waits until the bytes that have come match. */
  async until(pattern: RegExp | string): Promise<string> {
    const matches = (): boolean =>
      typeof pattern === 'string' ? this.received.includes(pattern) : pattern.test(this.received);
    const wait = async (): Promise<string> => {
      while (!matches()) {
        if (this.#isClosed) throw new Error(`closed before ${String(pattern)}: ${this.received.slice(0, 500)}`);
        await once(this.#changes, 'change');
      }
      return this.received;
    };
    return within(wait(), () => `${String(pattern)} in ${JSON.stringify(this.received.slice(0, 500))}`);
  }

  /** Takes the next final response, whole or as far as it comes. */
  async response(method = 'GET'): Promise<RawResponse> {
    const wait = async (): Promise<RawResponse> => {
      for (;;) {
        const taken = takeResponse(this.#bytes, method, this.#isClosed);
        if (taken !== undefined) {
          this.#bytes = this.#bytes.subarray(taken.length);
          return taken.response;
        }
        await once(this.#changes, 'change');
      }
    };
    return within(wait(), () => `a response; so far ${JSON.stringify(this.received.slice(0, 500))}`);
  }
}

function takeResponse(
  bytes: Buffer,
  method: string,
  isClosed: boolean,
): { response: RawResponse; length: number } | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd < 0) {
    const none = { status: 0, reason: '', fields: [], body: bytes.toString('latin1'), complete: false };
    return isClosed ? { response: none, length: bytes.byteLength } : undefined;
  }
  const [statusLine = '', ...lines] = bytes.toString('latin1', 0, headEnd).split('\r\n');
  const [, code = '0', reason = ''] = /^HTTP\/1\.[01] (\d{3}) ?(.*)$/s.exec(statusLine) ?? [];
  const status = Number(code);
  const fields = parseFields(lines);
  const start = headEnd + 4;
  if (status >= 100 && status < 200 && status !== 101) {
    const later = takeResponse(bytes.subarray(start), method, isClosed);
    return later && { response: later.response, length: start + later.length };
  }
  const taken = (body: string, complete: boolean, length: number) => ({
    response: { status, reason, fields, body, complete },
    length,
  });
  if (method === 'HEAD' || status === 101 || status === 204 || status === 304) return taken('', true, start);
  if (values(fields, 'transfer-encoding').length > 0) {
    const { body, end } = unchunk(bytes, start);
    if (end === undefined && !isClosed) return undefined;
    return taken(body, end !== undefined, end ?? bytes.byteLength);
  }
  const [length] = values(fields, 'content-length');
  if (length === undefined) {
    return isClosed ? taken(bytes.toString('latin1', start), true, bytes.byteLength) : undefined;
  }
  const end = start + Number(length);
  if (bytes.byteLength < end && !isClosed) return undefined;
  return taken(bytes.toString('latin1', start, end), bytes.byteLength >= end, Math.min(end, bytes.byteLength));
}

/** A chunked body and where it ends, undefined while it does not. Sizes are read as leniently as `parseInt` reads. */
function unchunk(bytes: Buffer, start: number): { body: string; end: number | undefined } {
  let at = start;
  let body = '';
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd < 0) return { body, end: undefined };
    const size = Number.parseInt(bytes.toString('latin1', at, lineEnd), 16) || 0;
    at = lineEnd + 2;
    if (size === 0) break;
    body += bytes.toString('latin1', at, at + size);
    if (bytes.byteLength < at + size + 2) return { body, end: undefined };
    at += size + 2;
  }
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd < 0) return { body, end: undefined };
    if (lineEnd === at) return { body, end: at + 2 };
    at = lineEnd + 2;
  }
}

/** One request as the origin read it. */
export interface SeenRequest {
  readonly method: string;
  /** Bytes of the request target as latin1. */
  readonly target: string;
  /** Request line and fields as they came. */
  readonly head: string;
  readonly fields: FieldLines;
  readonly socket: Socket;
  /** Number of the connection it came on, from 1. */
  readonly connection: number;
  body: string;
  isComplete: boolean;
}

export interface RecordingOriginOptions {
  /** Which framing it believes when a request has both. @default 'content-length' */
  readonly believes?: 'content-length' | 'chunked';
  /** Called with each request whose head is there. @default nothing */
  readonly onHead?: ((request: SeenRequest, socket: Socket) => void) | undefined;
  /** Called with each whole request. @default answers 200 and `ok` */
  readonly answer?: ((request: SeenRequest, socket: Socket) => void) | undefined;
  /** Certificate and key, where it speaks TLS. */
  readonly tls?: TlsOptions | undefined;
}

/**
 * A lenient origin: reads requests from each connection one after the other, by whatever framing they claim to have, and never objects.
 * Bytes left over from a badly framed request are its next request.
 */
export class RecordingOrigin {
  readonly requests: SeenRequest[] = [];
  readonly sockets: Socket[] = [];
  port = 0;
  readonly #options: RecordingOriginOptions;
  readonly #changes = new EventEmitter().setMaxListeners(0);

  private constructor(options: RecordingOriginOptions) {
    this.#options = options;
  }

  static async listen(scope: Scope, options: RecordingOriginOptions = {}, address?: string): Promise<RecordingOrigin> {
    const origin = new RecordingOrigin(options);
    const server =
      options.tls === undefined
        ? createServer({ noDelay: true }, (socket) => origin.#read(socket))
        : createTlsServer(options.tls, (socket) => origin.#read(socket));
    server.on('tlsClientError', () => {});
    origin.port = await listen(scope, server, address);
    return origin;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The request of that number (from 1), when its head is there. */
  request(number: number): Promise<SeenRequest> {
    return this.#await(() => this.requests[number - 1], `request ${number} at the origin`);
  }

  /** The same, when all of it is there. */
  whole(number: number): Promise<SeenRequest> {
    return this.#await(
      () => (this.requests[number - 1]?.isComplete === true ? this.requests[number - 1] : undefined),
      `all of request ${number} at the origin`,
    );
  }

  async #await<T>(look: () => T | undefined, what: string): Promise<T> {
    const wait = async (): Promise<T> => {
      for (;;) {
        const found = look();
        if (found !== undefined) return found;
        await once(this.#changes, 'change');
      }
    };
    return within(wait(), what);
  }

  #read(socket: Socket): void {
    this.sockets.push(socket);
    const connection = this.sockets.length;
    let bytes: Buffer = Buffer.alloc(0);
    let current: SeenRequest | undefined;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      for (;;) {
        if (current === undefined) {
          while (bytes.indexOf('\r\n') === 0) bytes = bytes.subarray(2);
          const headEnd = bytes.indexOf('\r\n\r\n');
          if (headEnd < 0) break;
          current = this.#begin(bytes.toString('latin1', 0, headEnd), socket, connection);
          bytes = bytes.subarray(headEnd + 4);
        }
        const { body, end } = this.#body(current, bytes);
        current.body = body;
        this.#changes.emit('change');
        if (end === undefined) break;
        bytes = bytes.subarray(end);
        current.isComplete = true;
        const whole = current;
        current = undefined;
        if (this.#options.answer === undefined) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
        else this.#options.answer(whole, socket);
        this.#changes.emit('change');
      }
    });
  }

  #begin(head: string, socket: Socket, connection: number): SeenRequest {
    const [requestLine = '', ...lines] = head.split('\r\n');
    const request: SeenRequest = {
      method: requestLine.slice(0, requestLine.indexOf(' ')),
      target: requestLine.slice(requestLine.indexOf(' ') + 1, requestLine.lastIndexOf(' ')),
      head,
      fields: parseFields(lines),
      socket,
      connection,
      body: '',
      isComplete: false,
    };
    this.requests.push(request);
    this.#options.onHead?.(request, socket);
    return request;
  }

  #body(request: SeenRequest, bytes: Buffer): { body: string; end: number | undefined } {
    const [length] = values(request.fields, 'content-length');
    const isChunked = values(request.fields, 'transfer-encoding').some((coding) => coding.includes('chunked'));
    if (isChunked && (length === undefined || this.#options.believes === 'chunked')) return unchunk(bytes, 0);
    const size = Number.parseInt(length ?? '0', 10) || 0;
    const body = bytes.toString('latin1', 0, size);
    return { body, end: bytes.byteLength >= size ? size : undefined };
  }
}

export interface TestHost {
  readonly host: HttpProxyHost;
  readonly port: number;
  readonly observations: Observation[];
  client(address?: string): Promise<RawClient>;
}

/** A host on a free port, without plug-ins unless told otherwise. */
export async function startHost(
  scope: Scope,
  options: Partial<HttpProxyHostOptions> = {},
  address?: string,
): Promise<TestHost> {
  const observations: Observation[] = [];
  const host = new HttpProxyHost({
    proxy: createProxyServer(),
    kit: new Kit({ plugins: [] }),
    observer: (observation) => observations.push(observation),
    ...options,
  });
  const port = await listen(scope, host.createServer(), address);
  scope.teardown(() => host.close());
  return { host, port, observations, client: (to = '127.0.0.1') => RawClient.connect(scope, port, to) };
}
