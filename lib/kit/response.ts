import { pipeline, Readable, Transform } from 'node:stream';
import type { HeaderFields } from '../http/index.ts';

/** A stream, or pieces that are all in memory (written corked, the fast way), or nothing. */
export type ProxyBody = Readable | readonly Uint8Array[] | null;

export interface ProxyResponseParts {
  readonly status: number;
  /** Reason phrase; the standard one when absent. */
  readonly statusText?: string | undefined;
  /** End-to-end fields, lower-case names. Content-Length stays where the length is known. */
  readonly headers: HeaderFields;
  readonly body: ProxyBody;
  readonly transforms?: readonly Transform[] | undefined;
}

/**
 * One response head with its body still to come. Immutable: a plug-in returns it as it is, or one made by {@link with} or
 * {@link through}. Who replaces a response must {@link discard} it, else its connection stays open.
 */
export class ProxyResponse {
  readonly status: number;
  readonly statusText: string | undefined;
  readonly headers: HeaderFields;
  readonly body: ProxyBody;
  /** Streams the host is going to put between body and client, in this order. */
  readonly transforms: readonly Transform[];

  constructor(parts: ProxyResponseParts) {
    this.status = parts.status;
    this.statusText = parts.statusText;
    this.headers = parts.headers;
    this.body = parts.body;
    this.transforms = parts.transforms ?? [];
  }

  /** A copy with some parts replaced. */
  with(parts: Partial<ProxyResponseParts>): ProxyResponse {
    const { status, statusText, headers, body, transforms } = this;
    return new ProxyResponse({ status, statusText, headers, body, transforms, ...parts });
  }

  /**
   * The same response with one more Transform behind its body. One that changes the length must take Content-Length out of the
   * head by {@link with}. Without a body there is nothing to transform, and the Transform is destroyed.
   */
  through(transform: Transform): ProxyResponse {
    if (this.body === null) {
      transform.destroy();
      return this;
    }
    return this.with({ transforms: [...this.transforms, transform] });
  }

  /** The same response whose body bytes are told to `onBytes` as they pass. Nothing is held. */
  counted(onBytes: (bytes: number) => void): ProxyResponse {
    return this.through(
      new Transform({
        transform(chunk: Uint8Array, _encoding, callback) {
          onBytes(chunk.byteLength);
          callback(null, chunk);
        },
      }),
    );
  }

  /** The body behind its transforms as one stream, for a plug-in that wants to read it itself. */
  stream(): Readable {
    const body = this.body instanceof Readable ? this.body : Readable.from(this.body ?? [], { objectMode: false });
    if (this.transforms.length === 0) return body;
    // The callback only keeps errors handled; whoever reads the last stream sees them.
    return pipeline([body, ...this.transforms], () => {}) as unknown as Readable;
  }

  /** Gives the body up: closes its connection unless it is at its end. */
  discard(): void {
    for (const transform of this.transforms) transform.destroy();
    if (this.body instanceof Readable) {
      this.body.on('error', () => {});
      this.body.destroy();
    }
  }

  /** True while nobody has read from the body. */
  get isUntouched(): boolean {
    return !(this.body instanceof Readable) || (!this.body.readableDidRead && !this.body.destroyed);
  }

  /** True while nobody has even begun to listen for the body. */
  get isUnclaimed(): boolean {
    return this.isUntouched && !(this.body instanceof Readable && this.body.readableFlowing !== null);
  }

  /** A short answer in plain text, for errors and refusals. */
  static text(status: number, text: string, headers: HeaderFields = {}): ProxyResponse {
    const body = Buffer.from(`${text}\n`);
    return new ProxyResponse({
      status,
      headers: { 'content-type': 'text/plain; charset=utf-8', 'content-length': String(body.byteLength), ...headers },
      body: [body],
    });
  }
}
