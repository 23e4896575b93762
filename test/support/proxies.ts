/**
 * What the tests of the two main plug-ins stand on: a recording origin, the two roles put together as `plugins/standalone/roles.ts`
 * does it, and an HTTP client that sends exactly what a test says and believes nothing but the bytes it gets.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { Clock } from '../../lib/clock.ts';
import { Kit, type Plugin } from '../../lib/kit/index.ts';
import type { Observation } from '../../lib/observer.ts';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { MemoryBlockStore, MemoryContentInformationStore } from '../../lib/stores/index.ts';
import { type BlockCacheOptions, createBlockCache } from '../../plugins/block-cache/index.ts';
import { type ContentServerOptions, createContentServer } from '../../plugins/content-server/index.ts';
import {
  createProxyServer,
  HttpProxyHost,
  type HttpProxyHostOptions,
  type TlsIdentity,
} from '../../plugins/http-proxy/index.ts';
import { joinNeighbourhood, type NeighbourhoodOptions } from '../../plugins/standalone/roles/neighbourhood.ts';
import { type LoggedRequest, Spoken } from './spoken.ts';

/** Milliseconds after which a test gives up waiting. */
const PATIENCE_MS = 8_000;
const START_PATIENCE_MS = 40_000;

type Owner = Pick<Test, 'teardown'>;

/** Polls a condition; rejects when it has not come true in time. */
export async function until(condition: () => boolean, what: string, patienceMs = PATIENCE_MS): Promise<void> {
  const deadline = Date.now() + patienceMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await pause(2);
  }
}

/** The promise, or a rejection when it takes too long: a hang becomes a failing test that says where. */
export async function inTime<T>(promise: Promise<T>, what: string, patienceMs = PATIENCE_MS): Promise<T> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      promise,
      pause(patienceMs, undefined, { signal: timer.signal }).then(() => {
        throw new Error(`${what}: no end after ${patienceMs} ms`);
      }),
    ]);
  } finally {
    timer.abort();
  }
}

/** A door that code under test waits at until the test opens it. */
export class Gate {
  open!: () => void;
  readonly passed: Promise<void> = new Promise((resolve) => {
    this.open = resolve;
  });
}

// --- What a proxy reports ------------------------------------------------------------------------------------------------------------

type Counted = Partial<Record<'kind' | 'source' | 'result' | 'store' | 'status', string | number>>;

/** Observations of one proxy, to be counted. */
export class Observations {
  readonly all: Observation[] = [];
  readonly observer = (observation: Observation): void => {
    this.all.push(observation);
  };

  of(type: Observation['type'], labels: Counted = {}): Observation[] {
    return this.all.filter(
      (observation) =>
        observation.type === type &&
        Object.entries(labels).every(([name, value]) => (observation as unknown as Counted)[name as 'kind'] === value),
    );
  }

  count(type: Observation['type'], labels: Counted = {}): number {
    return this.of(type, labels).length;
  }

  bytes(type: 'delivered' | 'wan' | 'hashed', labels: Counted = {}): number {
    return this.of(type, labels).reduce((sum, observation) => sum + (observation as { bytes: number }).bytes, 0);
  }

  /** Body bytes the WAN carried that were not content information. */
  get wanBodyBytes(): number {
    return this.bytes('wan', { kind: 'plain' }) + this.bytes('wan', { kind: 'missing_data' });
  }

  /** Failures of plug-ins; there should be none. */
  get failures(): unknown[] {
    return this.of('plugin_failure').map((observation) => (observation as { error: unknown }).error);
  }
}

// --- The origin ----------------------------------------------------------------------------------------------------------------------

export interface OriginRequest {
  readonly method: string;
  /** Request-target as it stood in the request line. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Status of the answer, 0 while there is none. */
  status: number;
  /** Body bytes of the answer that were given to the socket. */
  sent: number;
  /** True once the answer has been sent, or has been cut. */
  closed: boolean;
  /** True when the whole answer has been given to the socket. */
  finished: boolean;
}

export type OriginHandler = (
  request: IncomingMessage,
  response: ServerResponse,
  record: OriginRequest,
) => void | Promise<void>;

/** A file of an ordinary web server. */
export interface OriginFile {
  readonly body: Uint8Array | string;
  /** Without one the answers carry none. */
  readonly etag?: string;
  readonly lastModified?: string;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** Fields of a 304, in place of `headers`. */
  readonly headers304?: Readonly<Record<string, string | string[]>>;
  /** No Content-Length. */
  readonly chunked?: boolean;
  /** Answers ranges with everything. */
  readonly noRanges?: boolean;
  /** Waits here before the head, and for each further piece of the body. */
  readonly beforeHead?: Promise<void>;
  /** Bytes that go at once; the rest waits at `afterFirst`. */
  readonly firstBytes?: number;
  readonly afterFirst?: Promise<void>;
}

/** A web server that knows nothing of BranchCache and writes down what it is asked. */
export class Origin {
  readonly requests: OriginRequest[] = [];
  readonly resources = new Map<string, OriginFile | OriginHandler>();
  readonly server: Server;
  /** Errors thrown by handlers. */
  readonly errors: unknown[] = [];

  constructor() {
    this.server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        this.errors.push(error);
        response.destroy();
      });
    });
  }

  static async start(t: Owner, resources: Readonly<Record<string, OriginFile | OriginHandler>> = {}): Promise<Origin> {
    const origin = new Origin();
    for (const [path, resource] of Object.entries(resources)) origin.resources.set(path, resource);
    await listen(t, origin.server);
    return origin;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get authority(): string {
    return `127.0.0.1:${this.port}`;
  }

  get url(): string {
    return `http://${this.authority}`;
  }

  /** Requests for one target. */
  asked(target: string): OriginRequest[] {
    return this.requests.filter((request) => request.target === target);
  }

  /** Answers that carried a body, as `status+bytes`. */
  bodies(target: string): string[] {
    return this.asked(target)
      .filter(({ sent }) => sent > 0)
      .map(({ status, sent }) => `${status}+${sent}`);
  }

  bodyBytes(target: string): number {
    return this.asked(target).reduce((sum, { sent }) => sum + sent, 0);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    request.on('error', () => {});
    response.on('error', () => {});
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      // The proxy went away in the middle of its request.
    }
    const record: OriginRequest = {
      method: request.method ?? '',
      target: request.url ?? '',
      headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)])),
      body: Buffer.concat(chunks),
      status: 0,
      sent: 0,
      closed: false,
      finished: false,
    };
    this.requests.push(record);
    response.on('finish', () => {
      record.finished = true;
    });
    response.on('close', () => {
      record.status = response.statusCode;
      record.closed = true;
    });
    const resource = this.resources.get(record.target);
    if (typeof resource === 'function') await resource(request, response, record);
    else if (resource === undefined) response.writeHead(404, { 'content-length': 9 }).end('not here\n');
    else await sendFile(resource, request, response, record);
  }
}

/** Sends a file the way RFC 9110 wants it: conditions first, then one range. Written apart from lib/http, which is under test. */
export async function sendFile(
  file: OriginFile,
  request: IncomingMessage,
  response: ServerResponse,
  record: OriginRequest,
): Promise<void> {
  const body = Buffer.from(file.body as Uint8Array);
  const validators = {
    ...(file.etag === undefined ? {} : { etag: file.etag }),
    ...(file.lastModified === undefined ? {} : { 'last-modified': file.lastModified }),
  };
  await file.beforeHead;
  const { headers } = request;
  const none = headers['if-none-match'];
  const since = headers['if-modified-since'];
  const unchanged =
    none === undefined
      ? since !== undefined &&
        file.lastModified !== undefined &&
        Date.parse(since) >= Date.parse(file.lastModified) &&
        !Number.isNaN(Date.parse(since))
      : none.split(/\s*,\s*/).some((tag) => tag === file.etag || tag === '*');
  const match = headers['if-match'];
  if (match !== undefined && match !== '*' && !match.split(/\s*,\s*/).includes(file.etag ?? '')) {
    response.writeHead(412, { ...validators, 'content-length': 0 }).end();
    return;
  }
  if (unchanged) {
    record.status = 304;
    response.writeHead(304, { ...validators, ...(file.headers304 ?? file.headers) }).end();
    return;
  }
  const ifRange = headers['if-range'];
  const wanted =
    file.noRanges === true ||
    request.method !== 'GET' ||
    (ifRange !== undefined && ifRange !== file.etag && ifRange !== file.lastModified)
      ? null
      : /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? '');
  let part = body;
  let range = {};
  // The last before the first is no range at all.
  const isNone = wanted === null || (wanted[1] !== '' && wanted[2] !== '' && Number(wanted[1]) > Number(wanted[2]));
  if (!isNone) {
    const first = wanted[1] === '' ? Math.max(0, body.byteLength - Number(wanted[2])) : Number(wanted[1]);
    const last =
      wanted[1] === '' || wanted[2] === '' ? body.byteLength - 1 : Math.min(Number(wanted[2]), body.byteLength - 1);
    if (first > last) {
      response.writeHead(416, { ...validators, 'content-range': `bytes */${body.byteLength}` }).end();
      return;
    }
    part = body.subarray(first, last + 1);
    range = { 'content-range': `bytes ${first}-${last}/${body.byteLength}` };
  }
  record.status = isNone ? 200 : 206;
  response.writeHead(record.status, {
    'content-type': 'application/octet-stream',
    'accept-ranges': 'bytes',
    ...validators,
    ...file.headers,
    ...range,
    ...(file.chunked === true ? {} : { 'content-length': part.byteLength }),
  });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  const first = part.subarray(0, file.firstBytes ?? part.byteLength);
  const gone = new Promise<void>((resolve) => {
    response.once('close', resolve);
  });
  await sendPiece(response, first, gone, record);
  if (file.firstBytes !== undefined) {
    await Promise.race([file.afterFirst, gone]);
    await sendPiece(response, part.subarray(file.firstBytes), gone, record);
  }
  if (!response.destroyed) response.end();
}

/** Under back-pressure, so that `sent` says how far a reader got, give or take the socket's buffers. */
async function sendPiece(
  response: ServerResponse,
  piece: Uint8Array,
  gone: Promise<void>,
  record: OriginRequest,
): Promise<void> {
  for (let at = 0; at < piece.byteLength && !response.destroyed; at += 65_536) {
    const chunk = piece.subarray(at, at + 65_536);
    record.sent += chunk.byteLength;
    if (response.write(chunk)) continue;
    await Promise.race([
      gone,
      new Promise<void>((resolve) => {
        response.once('drain', resolve);
      }),
    ]);
  }
}

/** Listens on a free port of the loopback; at the end of the test everything on it is cut. */
export async function listen(t: Owner, server: Server): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  t.teardown(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => {
      server.close(resolve);
    });
  });
  return (server.address() as AddressInfo).port;
}

// --- The proxies ---------------------------------------------------------------------------------------------------------------------

/** One role, running. */
export class Proxy {
  readonly observations = new Observations();
  /** Heads of what it was asked, in order. */
  readonly received: { readonly method: string; readonly target: string; readonly headers: Record<string, string> }[] =
    [];
  readonly contentInformationStore: MemoryContentInformationStore;
  readonly blockStore: MemoryBlockStore;
  readonly sockets = new Set<Socket>();
  /** Where neighbours get blocks; 0 where they get none. */
  peerPort = 0;
  #port = 0;

  constructor({ cacheBytes = 512 * 1024 * 1024 }: { cacheBytes?: number | undefined } = {}) {
    const { observer } = this.observations;
    this.contentInformationStore = new MemoryContentInformationStore({ maxBytes: 64 * 1024 * 1024, observer });
    this.blockStore = new MemoryBlockStore({ maxBytes: cacheBytes, observer });
  }

  get port(): number {
    return this.#port;
  }

  get authority(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get url(): string {
    return `http://${this.authority}`;
  }

  /** Bytes written to clients since the start, heads and framing included. */
  get bytesWritten(): number {
    return [...this.sockets].reduce((sum, socket) => sum + socket.bytesWritten, 0);
  }

  async run(
    t: Owner,
    plugins: Plugin | readonly Plugin[],
    host: Partial<HttpProxyHostOptions> = {},
    { clock, tls }: { readonly clock?: Clock | undefined; readonly tls?: TlsIdentity | undefined } = {},
  ): Promise<this> {
    const { observer } = this.observations;
    const kit = new Kit({ plugins: [plugins].flat(), observer });
    const proxyHost = new HttpProxyHost({ ...host, proxy: createProxyServer(), kit, observer }, clock);
    await kit.start();
    t.teardown(async () => {
      await kit.stop();
      proxyHost.close();
    });
    const server = proxyHost.createServer(tls);
    server.on('connection', (socket: Socket) => this.sockets.add(socket));
    server.on('request', ({ method = '', url = '', headers }: IncomingMessage) => {
      this.received.push({
        method,
        target: url,
        headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])),
      });
    });
    this.#port = await listen(t, server);
    return this;
  }

  /** Waits until so many bodies have become content information. */
  published(count = 1): Promise<void> {
    return until(
      () => this.observations.count('publication', { result: 'completed' }) >= count,
      `${count} bodies are published`,
    );
  }

  /** Waits until so many contents are known to the branch. */
  remembered(count = 1): Promise<void> {
    return until(
      () => this.observations.count('stored', { store: 'content_information' }) >= count,
      `${count} contents are known`,
    );
  }
}

export const TEST_SECRET = ServerSecret.fromText('a secret for tests');

export interface ReverseOptions extends Partial<Omit<ContentServerOptions, 'peerdist' | 'observer'>> {
  readonly secret?: ServerSecret;
  readonly host?: Partial<HttpProxyHostOptions>;
}

/** Head office in front of `origin`. */
export async function startReverse(
  t: Owner,
  origin: { readonly url: string },
  { secret = TEST_SECRET, host, ...options }: ReverseOptions = {},
): Promise<Proxy> {
  const proxy = new Proxy();
  const { observer } = proxy.observations;
  const peerdist = await PeerDist.open({
    serverSecret: secret,
    components: { contentInformationStore: proxy.contentInformationStore, observer },
  });
  t.teardown(() => peerdist.close());
  return proxy.run(t, createContentServer({ ...options, peerdist, observer }), { ...host, origin: origin.url });
}

export interface HeadOptions extends ReverseOptions {
  /** Of the host. */
  readonly hostClock?: Clock;
  readonly tls?: TlsIdentity;
}

/** The far end of paired proxies: a forward proxy that describes what origins send. */
export async function startHead(
  t: Owner,
  { secret = TEST_SECRET, host, hostClock, tls, ...options }: HeadOptions = {},
): Promise<Proxy> {
  const proxy = new Proxy();
  const { observer } = proxy.observations;
  const { contentInformationStore, blockStore } = proxy;
  const publishing = await PeerDist.open({
    serverSecret: secret,
    components: { contentInformationStore, observer },
  });
  const caching = await PeerDist.open({ components: { blockStore, observer } });
  t.teardown(() => Promise.all([publishing.close(), caching.close()]));
  const plugins = [
    createContentServer({ hashUnknown: {}, ...options, peerdist: publishing, observer }),
    createBlockCache({ peerdist: caching, observer }),
  ];
  return proxy.run(t, plugins, host, { clock: hostClock, tls });
}

export interface BranchOptions extends Partial<Omit<BlockCacheOptions, 'peerdist' | 'observer'>> {
  readonly cacheBytes?: number;
  /** A gateway to this origin instead of a forward proxy. */
  readonly origin?: { readonly url: string };
  readonly host?: Partial<HttpProxyHostOptions>;
  readonly clock?: Clock;
  /** Undefined for a branch that is alone. Where it says to listen matters only as far as it says so at all. */
  readonly neighbourhood?: NeighbourhoodOptions;
  /** What siblings have in common. */
  readonly secret?: ServerSecret;
}

/** The branch, a forward proxy unless an origin is given. */
export async function startBranch(
  t: Owner,
  { origin, cacheBytes, host, neighbourhood, secret, ...options }: BranchOptions = {},
): Promise<Proxy> {
  const proxy = new Proxy({ cacheBytes });
  const { observer } = proxy.observations;
  const surroundings = { store: proxy.blockStore, secret, observer };
  const neighbours = neighbourhood && (await joinNeighbourhood(neighbourhood, surroundings));
  if (neighbours !== undefined) {
    if (neighbours.server !== undefined) proxy.peerPort = await listen(t, neighbours.server);
    t.teardown(() => neighbours.close());
  }
  const peerdist = await PeerDist.open({
    serverSecret: secret,
    components: {
      blockStore: proxy.blockStore,
      sources: neighbours?.sources,
      onOriginBlock: neighbours?.onOriginBlock,
      observer,
      clock: options.clock,
    },
  });
  t.teardown(() => peerdist.close());
  return proxy.run(t, createBlockCache({ directory: neighbours?.directory, ...options, peerdist, observer }), {
    ...host,
    origin: origin?.url,
  });
}

// --- The client ----------------------------------------------------------------------------------------------------------------------

export interface Head {
  readonly status: number;
  readonly reason: string;
  readonly version: string;
  /** Lower-case names; lines of one name joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Names and values as they came. */
  readonly lines: readonly (readonly [name: string, value: string])[];
}

export interface Answer extends Head {
  readonly body: Buffer;
  /** True when the body ended as its framing said; false when the connection broke before. */
  readonly complete: boolean;
}

/** One connection to a server. Reads no further than it is asked to, so that not reading is back-pressure. */
export class Connection {
  readonly socket: Socket;
  /** True when the last body ended as its framing said. */
  complete = false;
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket;
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  static async open(port: number): Promise<Connection> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    socket.on('error', () => {});
    return new Connection(socket);
  }

  send(bytes: string | Uint8Array): void {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  /** Goes away without a word. */
  leave(): void {
    this.socket.resetAndDestroy();
  }

  close(): void {
    this.socket.destroy();
  }

  /** Whatever else comes until the other side closes. */
  async remainder(): Promise<Buffer> {
    const pieces = [this.#rest];
    this.#rest = Buffer.alloc(0);
    for (let next = await this.#next(); next !== undefined; next = await this.#next()) pieces.push(next);
    return Buffer.concat(pieces);
  }

  /** The next head; 1xx heads are skipped. */
  async head(): Promise<Head> {
    for (;;) {
      const text = (await this.#upTo('\r\n\r\n')).toString('latin1');
      const [statusLine = '', ...lines] = text.split('\r\n');
      const match = /^HTTP\/(\d\.\d) (\d{3}) ?(.*)$/.exec(statusLine);
      if (match === null) throw new Error(`not a status line: ${statusLine}`);
      if (match[2]?.startsWith('1') === true && match[2] !== '101') continue;
      const fields = lines.map((line) => {
        const colon = line.indexOf(':');
        if (colon < 1) throw new Error(`not a field: ${line}`);
        return [line.slice(0, colon), line.slice(colon + 1).trim()] as const;
      });
      const headers: Record<string, string> = {};
      for (const [name, value] of fields) {
        const key = name.toLowerCase();
        headers[key] = headers[key] === undefined ? value : `${headers[key]}, ${value}`;
      }
      return { status: Number(match[2]), reason: match[3] ?? '', version: match[1] ?? '', headers, lines: fields };
    }
  }

  /** The body that belongs to a head, as it comes. Ends early when the connection breaks; `complete` tells. */
  async *body({ status, headers, version }: Head, method = 'GET'): AsyncGenerator<Buffer, void> {
    this.complete = false;
    if (method === 'HEAD' || status === 204 || status === 304) {
      this.complete = true;
    } else if (headers['transfer-encoding'] !== undefined) {
      if (headers['content-length'] !== undefined) throw new Error('both Content-Length and Transfer-Encoding');
      yield* this.#chunked();
    } else if (headers['content-length'] !== undefined) {
      if (!/^\d+$/.test(headers['content-length'])) throw new Error(`bad length: ${headers['content-length']}`);
      this.complete = yield* this.#exactly(Number(headers['content-length']));
    } else {
      // Up to the end of the connection; a reset is then the only sign of a cut.
      if (version === '1.1' && headers['connection'] !== 'close') throw new Error('an answer without framing');
      for (let next = await this.#next(); next !== undefined; next = await this.#next()) yield next;
      this.complete = !this.socket.errored;
    }
  }

  /** A whole answer. */
  async answer(method = 'GET'): Promise<Answer> {
    const head = await this.head();
    const pieces: Buffer[] = [];
    for await (const piece of this.body(head, method)) pieces.push(piece);
    return { ...head, body: Buffer.concat(pieces), complete: this.complete };
  }

  async *#exactly(length: number): AsyncGenerator<Buffer, boolean> {
    for (let left = length; left > 0;) {
      const next = await this.#next();
      if (next === undefined) return false;
      const piece = next.subarray(0, left);
      this.#rest = next.subarray(piece.byteLength);
      left -= piece.byteLength;
      yield piece;
    }
    return true;
  }

  async *#chunked(): AsyncGenerator<Buffer, void> {
    for (;;) {
      let line: string;
      try {
        line = (await this.#upTo('\r\n')).toString('latin1');
      } catch {
        return;
      }
      const size = Number.parseInt(line, 16);
      if (Number.isNaN(size)) throw new Error(`not a chunk size: ${line}`);
      if (size === 0) {
        this.complete = await this.#upTo('\r\n').then(
          () => true,
          () => false,
        );
        return;
      }
      if (!(yield* this.#exactly(size))) return;
      await this.#upTo('\r\n').catch(() => undefined);
    }
  }

  async #upTo(mark: string): Promise<Buffer> {
    let read: Buffer = Buffer.alloc(0);
    for (;;) {
      const next = await this.#next();
      if (next === undefined) throw new Error('the connection ended before the head did');
      read = Buffer.concat([read, next]);
      const at = read.indexOf(mark);
      if (at < 0) continue;
      this.#rest = read.subarray(at + mark.length);
      return read.subarray(0, at);
    }
  }

  async #next(): Promise<Buffer | undefined> {
    if (this.#rest.byteLength > 0) {
      const rest = this.#rest;
      this.#rest = Buffer.alloc(0);
      return rest;
    }
    try {
      const next = await this.#chunks.next();
      return next.done === true ? undefined : next.value;
    } catch {
      return undefined;
    }
  }
}

export interface Ask {
  readonly method?: string;
  readonly fields?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string | Uint8Array;
  readonly version?: '1.0' | '1.1';
  /** Host field; that of an absolute target, else of the server, when absent. */
  readonly host?: string;
  /** Milliseconds until a test takes it for a hang. */
  readonly patienceMs?: number;
}

/** A request head (and body with its length) as bytes. */
export function requestText(
  port: number,
  target: string,
  { method = 'GET', fields = {}, body, version = '1.1', host }: Ask = {},
): Buffer {
  const named = host ?? /^https?:\/\/([^/]+)/.exec(target)?.[1] ?? `127.0.0.1:${port}`;
  const lines = [`${method} ${target} HTTP/${version}`, `Host: ${named}`];
  for (const [name, value] of Object.entries(fields)) {
    for (const each of typeof value === 'string' ? [value] : value) lines.push(`${name}: ${each}`);
  }
  const content = body === undefined ? undefined : Buffer.from(body as Uint8Array);
  if (content !== undefined && fields['content-length'] === undefined && fields['transfer-encoding'] === undefined)
    lines.push(`Content-Length: ${content.byteLength}`);
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), content ?? Buffer.alloc(0)]);
}

/** Sends one request on a connection of its own. The caller reads. */
export async function begin(port: number, target: string, options: Ask = {}): Promise<Connection> {
  const connection = await Connection.open(port);
  connection.send(requestText(port, target, options));
  return connection;
}

/** One request on a connection of its own, answered whole. */
export async function ask(port: number, target: string, options: Ask = {}): Promise<Answer> {
  const connection = await begin(port, target, options);
  try {
    return await inTime(
      connection.answer(options.method),
      `${options.method ?? 'GET'} ${target}`,
      options.patienceMs ?? PATIENCE_MS,
    );
  } finally {
    connection.close();
  }
}

/** Reads at least so many body bytes, or all there are. */
export async function readAtLeast(body: AsyncGenerator<Buffer, void>, bytes: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let read = 0;
  while (read < bytes) {
    const next = await inTime(body.next(), `${bytes} bytes of a body`);
    if (next.done === true) break;
    pieces.push(next.value);
    read += next.value.byteLength;
  }
  return Buffer.concat(pieces);
}

/** True when both are the same bytes; `t.equal` on megabytes would print them. */
export function same(actual: Uint8Array, expected: Uint8Array | string): boolean {
  return Buffer.compare(actual, Buffer.from(expected as Uint8Array)) === 0;
}

// --- Peerdist on the wire ------------------------------------------------------------------------------------------------------------

/** What Microsoft's test client sends (conformance checklist 2.1). */
export const V1_REQUEST = { 'Accept-Encoding': 'peerdist', 'X-P2P-PeerDist': 'Version=1.0' } as const;
export const V2_REQUEST = {
  'Accept-Encoding': 'peerdist',
  'X-P2P-PeerDist': 'Version=1.1',
  'X-P2P-PeerDistEx': 'MinContentInformation=1.0, MaxContentInformation=2.0',
} as const;

// --- The command and other programs ----------------------------------------------------------------------------------------------------

/** The `peerdist` command, built. */
export const COMMAND = fileURLToPath(new URL('../../plugins/standalone/main.js', import.meta.url));

/** What a program left behind. */
export interface Finished {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that runs; at the end of the test it is killed if it still does. */
export class Program {
  readonly child: ChildProcess;
  readonly #spoken = new Spoken();
  #stderr = '';
  readonly finished: Promise<Finished>;

  constructor(t: Owner, command: string, args: readonly string[], environment: NodeJS.ProcessEnv = {}) {
    const { PEERDIST_SECRET: _, http_proxy: __, https_proxy: ___, no_proxy: ____, ...inherited } = process.env;
    // Nobody finds what another test has kept, or what the user who runs it keeps.
    const state = mkdtempSync(join(tmpdir(), 'peerdist-test-'));
    t.teardown(() => rmSync(state, { recursive: true, force: true }));
    this.child = spawn(command, args, {
      env: { ...inherited, STATE_DIRECTORY: '', XDG_STATE_HOME: state, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.on('data', (text: Buffer) => {
      this.#spoken.take(text.toString());
    });
    this.child.stderr?.on('data', (text: Buffer) => {
      this.#stderr += text.toString();
    });
    this.finished = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code) => {
        this.#spoken.end();
        resolve({ code, stdout: this.stdout, stderr: this.stderr });
      });
    });
    this.finished.catch(() => {});
    t.teardown(async () => {
      if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
      await this.finished.catch(() => {});
    });
  }

  /** What it says in its log counts as said: notices here, warnings and errors in {@link stderr}. */
  get stdout(): string {
    return this.#spoken.stdout;
  }

  get stderr(): string {
    return this.#spoken.stderr + this.#stderr;
  }

  /** Lines of the access log. */
  get requests(): readonly LoggedRequest[] {
    return this.#spoken.requests;
  }

  get log(): readonly LoggedRequest[] {
    return this.#spoken.log;
  }

  get lines(): string[] {
    return this.stdout.split('\n').filter((line) => line !== '');
  }
}

/** Runs a program to its end. */
export function run(
  t: Owner,
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  patienceMs = 20_000,
): Promise<Finished> {
  return inTime(new Program(t, command, args, environment).finished, `${command} ${args.join(' ')}`, patienceMs);
}

/** Runs `peerdist` to its end. */
export function peerdist(t: Owner, args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Finished> {
  return run(t, process.execPath, [COMMAND, ...args], environment);
}

/** The port in a line `listening on URL`, with or without what the listener is for. */
function portIn(line: string): number {
  return Number(/:(\d+)(?: \([\w ]+\))?$/.exec(line)?.[1]);
}

/** `peerdist reverse`, `branch`, `hosted` or `head`, listening. */
export class Role {
  readonly program: Program;
  readonly port: number;
  readonly adminPort: number | undefined;
  readonly peerPort: number | undefined;
  readonly offerPort: number | undefined;

  private constructor(program: Program) {
    const portOf = (kind: string): number | undefined => {
      const line = program.lines.find((each) => each.startsWith('listening on ') && each.endsWith(kind));
      return line === undefined ? undefined : portIn(line);
    };
    this.program = program;
    this.port = portIn(program.lines[0] ?? '');
    this.adminPort = portOf(' (admin)');
    this.peerPort = portOf(' (peers)');
    this.offerPort = portOf(' (version 1 offers)');
  }

  /** Starts a role on free ports of the loopback and waits for its `listening on` lines. */
  static async start(t: Owner, args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Role> {
    const hasAdmin = !args.includes('--no-admin');
    const admin = hasAdmin && !args.includes('--admin') ? ['--admin', '127.0.0.1:0'] : [];
    const listen = args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
    // Tests do not speak to the LAN they run on.
    const alone = args[0] === 'branch' && !args.includes('--peer-listen') ? ['--no-peers'] : [];
    const program = new Program(t, process.execPath, [COMMAND, ...args, ...listen, ...admin, ...alone], environment);
    const others = ['--peer-listen', '--offer-listen', '--proxy'].filter((option) => args.includes(option)).length;
    const expected = 1 + (hasAdmin ? 1 : 0) + others;
    let ended = false;
    void program.finished.finally(() => {
      ended = true;
    });
    await until(
      () => ended || program.lines.filter((line) => line.startsWith('listening on ')).length === expected,
      `peerdist ${args[0]} listens`,
      // It may have to look through a store first, on a machine that has much to do.
      START_PATIENCE_MS,
    );
    if (ended) throw new Error(`peerdist ${args[0]} ended: ${program.stderr}`);
    return new Role(program);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The value of one series of `/metrics`; undefined when there is none. */
  async metric(series: string): Promise<number | undefined> {
    const { body } = await ask(this.adminPort as number, '/metrics');
    const line = body
      .toString()
      .split('\n')
      .find((each) => each.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.slice(series.length + 1));
  }

  /** Body bytes over the WAN that were not content information. */
  async wanBodyBytes(): Promise<number> {
    const kinds = ['plain', 'missing_data'].map((kind) => this.metric(`peerdist_wan_bytes_total{kind="${kind}"}`));
    return (await Promise.all(kinds)).reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0);
  }

  /** Asks it to end, as an administrator or systemd does. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Finished> {
    this.program.child.kill(signal);
    return inTime(this.program.finished, `the end after ${signal}`, 12_000);
  }
}
