/** What is asked for, and whether an answer is right: the catalogue's objects here, a list of URLs in `url-list.ts`. */
import type { IncomingHttpHeaders } from 'node:http';
import { intersect } from '../../../lib/bytes/index.ts';
import { parseContentRange } from '../../../lib/http/index.ts';
import type { Catalogue } from './catalogue.ts';
import type { PlannedRequest } from './plan.ts';

/**
 * What can become of a request that should have been answered:
 *
 * - `connect`: no connection, or it ended before an answer began
 * - `timeout`: no byte for too long, or the run could not wait any longer
 * - `protocol`: the answer is no HTTP
 * - `status`: another status than 200, or than 206 where a range was asked for
 * - `stale`: a version that the proxy was not allowed to have any more
 * - `wrongBytes`: not the bytes of the version that the answer names
 * - `cutShort`: the right bytes, but not all of them
 * - `unsent`: its time came too late for the run
 */
export const FAILURES = [
  'connect',
  'timeout',
  'protocol',
  'status',
  'stale',
  'wrongBytes',
  'cutShort',
  'unsent',
] as const;
export type Failure = (typeof FAILURES)[number];

export interface AnswerHead {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
}

/** Watches one body go by. */
export interface BodyCheck {
  /** False when these bytes are wrong; nothing more is to be pushed then. */
  push(bytes: Uint8Array): boolean;
  /** The body ended as its framing said. */
  end(): Failure | undefined;
}

export interface Subject {
  /** The URL of an object, in the two parts that a request has. */
  urlOf(object: number): { readonly authority: string; readonly path: string };
  /** @param sentAtMs when the request was sent, milliseconds after the start */
  check(request: PlannedRequest, head: AnswerHead, sentAtMs: number): BodyCheck | Failure;
}

/** Dates and ages in HTTP are whole seconds, and a version is on its way for a moment. */
const STALE_SLACK_MS = 2_000;

export class CatalogueSubject implements Subject {
  readonly #catalogue: Catalogue;
  readonly #authority: string;
  readonly #prefix: string;

  /** @param base `http://host:port/prefix` under which the proxy is to ask for the objects */
  constructor(catalogue: Catalogue, base: URL) {
    this.#catalogue = catalogue;
    this.#authority = base.host;
    this.#prefix = base.pathname.replace(/\/$/, '');
  }

  urlOf(object: number): { readonly authority: string; readonly path: string } {
    return { authority: this.#authority, path: `${this.#prefix}${this.#catalogue.pathOf(object)}` };
  }

  check({ object, range }: PlannedRequest, { status, headers }: AnswerHead, sentAtMs: number): BodyCheck | Failure {
    if (status !== 200 && (status !== 206 || range === undefined)) return 'status';
    const etag = headers.etag?.replace(/^W\//, '');
    // Without a tag of ours the bytes decide.
    const version = this.#catalogue.versionOf(object, etag) ?? this.#catalogue.versionAt(object, sentAtMs);
    const replacedAtMs = this.#catalogue.replacedAtMs(object, version) ?? Infinity;
    if (sentAtMs > replacedAtMs + this.#catalogue.profile.maxAgeMs + STALE_SLACK_MS) return 'stale';
    const whole = { offset: 0, length: this.#catalogue.bytesOf(object, version) };
    // A server may answer a range with everything.
    const expected = status === 200 || range === undefined ? whole : intersect(whole, range);
    if (status === 206) {
      const sent = parseContentRange(headers['content-range']);
      if (sent?.range.offset !== expected.offset || sent.range.length !== expected.length) return 'wrongBytes';
    }
    const reader = this.#catalogue.read(object, version, expected);
    return { push: (bytes) => reader.matches(bytes), end: () => (reader.isAtEnd ? undefined : 'cutShort') };
  }
}
