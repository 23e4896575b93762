/** One request of one client: sent, watched byte by byte, and ended one way or another. */
import { type ClientRequest, type IncomingMessage, request as httpRequest, type RequestOptions } from 'node:http';
import type { AnswerHead, BodyCheck, Failure } from './subject.ts';

export type Ending = Failure | 'answered' | 'aborted' | 'interrupted';

export interface Outcome {
  readonly ending: Ending;
  /** 0 where no answer came. */
  readonly status: number;
  /** By the exchange's clock; undefined where no byte of a body came. */
  readonly firstByteAtMs: number | undefined;
  readonly endedAtMs: number;
}

export interface ExchangeParts {
  readonly options: RequestOptions;
  readonly abortAfterBytes: number | undefined;
  readonly check: (head: AnswerHead) => BodyCheck | Failure;
  readonly now: () => number;
  readonly onBytes: (bytes: number) => void;
  /** The kept connection was closed as the request went out, as servers may do; it is sent again. */
  readonly onRetry: () => void;
  /** Called once. */
  readonly onEnd: (outcome: Outcome) => void;
}

/** Kept connections that may turn out to be closed, one after the other. */
const MAX_RETRIES = 8;
const RESETS: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE']);

export class Exchange {
  /** When something last came, or was sent. */
  activeAtMs: number;
  readonly #parts: ExchangeParts;
  #request: ClientRequest;
  #check: BodyCheck | undefined;
  #status = 0;
  #bytes = 0;
  #firstByteAtMs: number | undefined;
  #isEnded = false;

  constructor(parts: ExchangeParts) {
    this.#parts = parts;
    this.activeAtMs = parts.now();
    this.#request = this.#send(MAX_RETRIES);
  }

  /** Breaks it off, unless it has ended. */
  end(ending: Ending): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    if (ending !== 'answered') this.#request.destroy();
    const endedAtMs = this.#parts.now();
    this.#parts.onEnd({ ending, status: this.#status, firstByteAtMs: this.#firstByteAtMs, endedAtMs });
  }

  #send(retries: number): ClientRequest {
    const request = httpRequest(this.#parts.options);
    request.on('response', (response) => this.#begin(response));
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#isEnded) return;
      if (retries > 0 && request.reusedSocket && this.#status === 0 && RESETS.has(error.code)) {
        this.#parts.onRetry();
        this.#request = this.#send(retries - 1);
      } else if (this.#status !== 0) this.end('cutShort');
      else this.end(error.code?.startsWith('HPE_') === true ? 'protocol' : 'connect');
    });
    request.end();
    return request;
  }

  #begin(response: IncomingMessage): void {
    this.activeAtMs = this.#parts.now();
    this.#status = response.statusCode ?? 0;
    const check = this.#parts.check({ status: this.#status, headers: response.headers });
    if (typeof check === 'string') return this.end(check);
    this.#check = check;
    response.on('data', (chunk: Buffer) => this.#take(chunk));
    response.on('end', () => this.end(check.end() ?? 'answered'));
    response.on('error', () => this.end('cutShort'));
    response.on('close', () => this.end('cutShort'));
    return undefined;
  }

  #take(chunk: Buffer): void {
    if (this.#isEnded) return;
    const { now, onBytes, abortAfterBytes } = this.#parts;
    this.activeAtMs = now();
    this.#firstByteAtMs ??= this.activeAtMs;
    this.#bytes += chunk.byteLength;
    onBytes(chunk.byteLength);
    if (this.#check?.push(chunk) === false) this.end('wrongBytes');
    else if (abortAfterBytes !== undefined && this.#bytes >= abortAfterBytes) this.end('aborted');
  }
}
