/** A plain HTTP client behind a proxy: no cache, no knowledge of BranchCache, an eye on every byte. */
import { Agent, get, type IncomingMessage } from 'node:http';
import type { ListenAddress } from '../options/units.ts';

export interface Download {
  /** Body bytes received. */
  readonly bytes: number;
  /** True when every byte was the file's. */
  readonly matches: boolean;
}

export class ProxyClient {
  readonly #agent = new Agent({ keepAlive: true });
  readonly #proxy: ListenAddress;
  readonly #url: string;
  readonly #file: Buffer;

  constructor(proxy: ListenAddress, url: string, file: Buffer) {
    this.#proxy = proxy;
    this.#url = url;
    this.#file = file;
  }

  close(): void {
    this.#agent.destroy();
  }

  /** The whole file, compared as it comes. */
  async whole(onProgress: (bytes: number) => void): Promise<Download> {
    const response = await this.#request();
    let bytes = 0;
    let matches = response.statusCode === 200;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      matches &&= chunk.equals(this.#file.subarray(bytes, bytes + chunk.byteLength));
      bytes += chunk.byteLength;
      onProgress(bytes);
    }
    return { bytes, matches: matches && bytes === this.#file.byteLength };
  }

  /** Some ranges in one request; two or more come as multipart/byteranges. */
  async ranges(ranges: readonly { readonly first: number; readonly last: number }[]): Promise<Download> {
    const response = await this.#request(`bytes=${ranges.map(({ first, last }) => `${first}-${last}`).join(',')}`);
    const chunks: Buffer[] = [];
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const boundary = /boundary=(.+)$/.exec(response.headers['content-type'] ?? '')?.[1];
    const parts =
      boundary === undefined
        ? [{ contentRange: response.headers['content-range'] ?? '', bytes: body }]
        : splitParts(body, boundary);
    const matches =
      response.statusCode === 206 &&
      parts.length === ranges.length &&
      parts.every((part, index) => {
        const range = ranges[index] as { first: number; last: number };
        return (
          part.contentRange === `bytes ${range.first}-${range.last}/${this.#file.byteLength}` &&
          part.bytes.equals(this.#file.subarray(range.first, range.last + 1))
        );
      });
    return { bytes: body.byteLength, matches };
  }

  #request(range?: string): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      get(
        {
          host: this.#proxy.host,
          port: this.#proxy.port,
          agent: this.#agent,
          path: this.#url,
          headers: { host: new URL(this.#url).host, ...(range === undefined ? {} : { range }) },
        },
        resolve,
      ).once('error', reject);
    });
  }
}

function splitParts(body: Buffer, boundary: string): { contentRange: string; bytes: Buffer }[] {
  const parts = [];
  const delimiter = Buffer.from(`--${boundary}`);
  let at = body.indexOf(delimiter);
  for (;;) {
    const headEnd = body.indexOf('\r\n\r\n', at);
    const next = body.indexOf(Buffer.concat([Buffer.from('\r\n'), delimiter]), headEnd);
    if (headEnd < 0 || next < 0) return parts;
    const head = body.toString('latin1', at, headEnd);
    parts.push({ contentRange: /content-range: (.*)/i.exec(head)?.[1] ?? '', bytes: body.subarray(headEnd + 4, next) });
    at = next + 2;
  }
}
