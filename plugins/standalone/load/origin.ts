/** The tool's own origin: an ordinary web server with the objects of a catalogue. What it sends is what a proxy before it did not have. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline, Readable } from 'node:stream';
import type { ByteRange } from '../../../lib/bytes/index.ts';
import { PeerDistError } from '../../../lib/errors.ts';
import {
  fieldValue,
  formatContentRange,
  ifRangeHolds,
  isNotModified,
  parseRange,
  resolveRanges,
} from '../../../lib/http/index.ts';
import { formatListen, type ListenAddress } from '../options/units.ts';
import type { Catalogue } from './catalogue.ts';
import type { NoiseReader } from './noise.ts';
import type { Timeline } from './timeline.ts';

const MAX_CONNECTIONS = 10_000;
/** Connections that may wait to be taken: a proxy without a pool opens one for each request. */
const BACKLOG = 4_096;
const CHUNK_BYTES = 64 * 1024;

export class LoadOrigin {
  /** `http://host:port`. */
  readonly url: string;
  requests = 0;
  /** Body bytes given to sockets. */
  bodyBytes = 0;
  /** Requests answered with 304. */
  notModified = 0;
  readonly #server: Server;
  readonly #catalogue: Catalogue;
  readonly #timeline: Timeline;

  private constructor(server: Server, catalogue: Catalogue, timeline: Timeline) {
    const { address: host, port } = server.address() as AddressInfo;
    this.url = `http://${formatListen({ host, port })}`;
    this.#server = server;
    this.#catalogue = catalogue;
    this.#timeline = timeline;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => this.#answer(request, response));
  }

  /** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when the address cannot be listened on */
  static open(listen: ListenAddress, catalogue: Catalogue, timeline: Timeline): Promise<LoadOrigin> {
    const server = createServer({ noDelay: true });
    server.maxConnections = MAX_CONNECTIONS;
    return new Promise((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        const text = `cannot listen on ${formatListen(listen)}: ${error.code ?? error.message}`;
        reject(new PeerDistError('ERR_PEERDIST_INVALID_OPTION', text, { cause: error }));
      });
      const { port, host } = listen;
      server.listen({ port, host, backlog: BACKLOG }, () => resolve(new LoadOrigin(server, catalogue, timeline)));
    });
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => {
      this.#server.close(resolve);
    });
    this.#server.closeAllConnections();
    await closed;
  }

  #answer({ method, url = '', headers }: IncomingMessage, response: ServerResponse): void {
    this.requests += 1;
    const object = this.#catalogue.objectAt(url);
    if (object === undefined) return void response.writeHead(404, { 'content-length': 0 }).end();
    if (method !== 'GET' && method !== 'HEAD') return void response.writeHead(405, { allow: 'GET, HEAD' }).end();
    const version = this.#catalogue.versionAt(object, this.#timeline.elapsedMs());
    const length = this.#catalogue.bytesOf(object, version);
    const validators = {
      etag: this.#catalogue.etagOf(object, version),
      lastModified: this.#catalogue.lastModifiedOf(version),
    };
    const seconds = Math.floor(this.#catalogue.profile.maxAgeMs / 1000);
    const head = {
      etag: validators.etag,
      'last-modified': validators.lastModified,
      'cache-control': seconds === 0 ? 'no-cache' : `max-age=${seconds}`,
    };
    if (isNotModified(headers, validators)) {
      this.notModified += 1;
      return void response.writeHead(304, head).end();
    }
    const body = { ...head, 'accept-ranges': 'bytes', 'content-type': 'application/octet-stream' };
    // Several ranges in one request get everything, as RFC 9110 14.2 allows.
    const specs = ifRangeHolds(fieldValue(headers, 'if-range'), validators) ? parseRange(headers.range, 1) : undefined;
    const [range] = specs === undefined ? [{ offset: 0, length }] : resolveRanges(specs, length);
    if (range === undefined)
      return void response.writeHead(416, { ...head, 'content-range': formatContentRange(undefined, length) }).end();
    if (specs === undefined) response.writeHead(200, { ...body, 'content-length': length });
    else {
      const contentRange = formatContentRange(range, length);
      response.writeHead(206, { ...body, 'content-length': range.length, 'content-range': contentRange });
    }
    if (method === 'HEAD') return void response.end();
    return void pipeline(this.#body(object, version, range), response, () => {});
  }

  #body(object: number, version: number, range: ByteRange): Readable {
    const reader: NoiseReader = this.#catalogue.read(object, version, range);
    const send = (bytes: Buffer): Buffer => {
      this.bodyBytes += bytes.byteLength;
      return bytes;
    };
    return new Readable({
      highWaterMark: CHUNK_BYTES,
      read() {
        this.push(reader.isAtEnd ? null : send(reader.read(CHUNK_BYTES)));
      },
    });
  }
}
