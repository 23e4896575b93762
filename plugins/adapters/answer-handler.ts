import { STATUS_CODES } from 'node:http';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Dispatcher, errors } from 'undici';
import type { HeaderFields } from '../../lib/http/index.ts';
import type { ProxyResponse } from '../../lib/kit/index.ts';

/**
 * Gives an answer to the handler of whoever has asked, and takes from it what it says about pace and end. The handler hears of exactly one end.
 */
export class AnswerController implements Dispatcher.DispatchController {
  rawHeaders: Buffer[] | null = null;
  readonly rawTrailers = null;
  readonly #handler: Dispatcher.DispatchHandler;
  readonly #abort = new AbortController();
  #isPaused = false;
  #hasEnded = false;
  #onResume: (() => void) | undefined;

  constructor(handler: Dispatcher.DispatchHandler) {
    this.#handler = handler;
  }

  /** Fires when nobody wants the answer any more. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get aborted(): boolean {
    return this.#abort.signal.aborted;
  }

  get reason(): Error | null {
    return this.aborted ? (this.#abort.signal.reason as Error) : null;
  }

  get paused(): boolean {
    return this.#isPaused;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#goOn();
  }

  abort(reason?: Error): void {
    if (this.#hasEnded || this.aborted) return;
    this.#abort.abort(reason ?? new errors.RequestAbortedError());
    this.#goOn();
    // Not from inside the handler: it has not come to its own end yet.
    queueMicrotask(() => this.fail(this.#abort.signal.reason as Error));
  }

  /** Tells the handler that there is a request, which is where it may call it off. */
  begin(): void {
    this.#told(() => this.#handler.onRequestStart?.(this, {}));
  }

  fail(error: Error): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#handler.onResponseError?.(this, this.reason ?? error);
  }

  /** Gives the whole answer. Never rejects: what breaks it goes to the handler. */
  async give(response: ProxyResponse): Promise<void> {
    const { status, statusText, headers } = response;
    if (this.aborted) return response.discard();
    const fields = definedFields(headers);
    this.rawHeaders = Object.entries(fields).flatMap(([name, value]) =>
      [value].flat().flatMap((line) => [Buffer.from(name, 'latin1'), Buffer.from(line, 'latin1')]),
    );
    this.#told(() => this.#handler.onResponseStart?.(this, status, fields, statusText ?? STATUS_CODES[status]));
    try {
      if (response.body === null) await this.#resumed();
      else await pipeline(response.stream(), this.#sink(), { signal: this.signal });
    } catch (error) {
      if (!this.aborted) this.fail(error as Error);
      return;
    }
    if (this.#hasEnded || this.aborted) return;
    try {
      this.#handler.onResponseEnd?.(this, {});
      this.#hasEnded = true;
    } catch (error) {
      // So says one that wants to begin again: it has not called anything off.
      this.fail(error as Error);
    }
  }

  #sink(): Writable {
    return new Writable({
      highWaterMark: 1,
      write: (chunk: Buffer, _encoding, callback) => {
        // What a program does to its bytes must not be done to those of the cache.
        this.#told(() => this.#handler.onResponseData?.(this, Buffer.from(chunk)));
        if (this.#isPaused && !this.aborted) this.#onResume = callback;
        else callback();
      },
      // The end waits for a handler that has paused, as the bytes do.
      final: (callback) => void this.#resumed().then(() => callback()),
    });
  }

  #resumed(): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#isPaused || this.aborted) resolve();
      else this.#onResume = resolve;
    });
  }

  #goOn(): void {
    const resume = this.#onResume;
    this.#onResume = undefined;
    resume?.();
  }

  /** A handler that throws has refused the answer. */
  #told(tell: () => void): void {
    try {
      tell();
    } catch (error) {
      this.abort(error as Error);
    }
  }
}

function definedFields(headers: HeaderFields): Record<string, string | string[]> {
  const fields: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) fields[name] = typeof value === 'string' ? value : [...value];
  }
  return fields;
}
