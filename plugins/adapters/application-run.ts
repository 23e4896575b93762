import type { ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { fieldValue, type HeaderFields } from '../../lib/http/index.ts';
import { type ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { ApplicationRequest } from './application-request.ts';
import type { CapturedResponse } from './captured-response.ts';
import type { Departure } from './departure.ts';
import { strongFileTag } from './file-tags.ts';

/** How the application is put to work on a request. */
export interface ApplicationCalls {
  /** Runs it. What it throws is not caught, as it would not be without us. */
  run(): void;
  /** Runs it a second time, from its front door. Undefined where that cannot be done. */
  readonly rerun: (() => void) | undefined;
}

const CONDITIONS = ['if-none-match', 'if-modified-since'] as const;

/** The application at work on one request: what the kit takes for an origin. */
export class ApplicationRun {
  readonly client: ServerResponse;
  readonly capture: CapturedResponse;
  readonly request: ApplicationRequest;
  readonly departure: Departure;
  /** True when something has been sent. */
  hasAnswered = false;
  /** The application's answer as the kit has seen it. */
  answered: ProxyResponse | undefined;
  readonly #calls: ApplicationCalls;
  #hasStarted = false;
  #shown: HeaderFields;

  constructor({
    client,
    capture,
    request,
    departure,
    calls,
  }: {
    readonly client: ServerResponse;
    readonly capture: CapturedResponse;
    readonly request: ApplicationRequest;
    readonly departure: Departure;
    readonly calls: ApplicationCalls;
  }) {
    this.client = client;
    this.capture = capture;
    this.request = request;
    this.departure = departure;
    this.#calls = calls;
    this.#shown = request.proxied.headers;
  }

  /**
   * The application's answer. Asked again, it is the one that is there already; only where that is a 304 to a condition which this request
   * has not got the application has to say it all once more.
   */
  async answer(asked: ProxyRequest): Promise<ProxyResponse> {
    if (this.departure.reason !== undefined) throw this.departure.reason;
    if (!this.#hasStarted) {
      // A 304 that turns out to be of no use would be the only answer there is.
      this.#shown = this.#calls.rerun === undefined ? this.#withoutOwnConditions(asked.headers) : asked.headers;
      this.request.show(this.#shown);
      this.start();
    } else if (this.#calls.rerun !== undefined && this.#isForAnother(asked)) {
      await this.departure.before(this.capture.ended());
      this.#shown = asked.headers;
      this.capture.restart();
      this.request.show(asked.headers);
      this.#calls.rerun();
    }
    await this.departure.before(this.capture.head());
    this.answered = this.#view();
    return this.answered;
  }

  /** Sets the application to work, once. */
  start(): void {
    if (this.#hasStarted) return;
    this.#hasStarted = true;
    try {
      this.#calls.run();
    } catch (error) {
      // What an application throws would have been thrown without us as well.
      process.nextTick(() => {
        throw error;
      });
    }
  }

  /** True when the answer is a 304 to a condition that this request has not got. */
  #isForAnother({ headers }: ProxyRequest): boolean {
    return this.client.statusCode === 304 && CONDITIONS.some((name) => this.#shown[name] !== headers[name]);
  }

  #view(): ProxyResponse {
    const { statusCode: status, statusMessage } = this.client;
    const fields = this.capture.fields();
    const etag = strongFileTag(status, fields) ?? fieldValue(fields, 'etag');
    const isBodiless = this.request.proxied.method === 'HEAD' || status === 204 || status === 304;
    const body: Readable | null = isBodiless ? null : this.capture.body();
    return new ProxyResponse({ status, statusText: statusMessage, headers: { ...fields, etag }, body });
  }

  #withoutOwnConditions(headers: HeaderFields): HeaderFields {
    const own = this.request.proxied.headers;
    return { ...headers, ...Object.fromEntries(CONDITIONS.map((name) => [name, own[name]])) };
  }
}
