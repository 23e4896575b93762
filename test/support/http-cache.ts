/** Tables of what a shared HTTP cache does: answers of an origin, requests of clients, and what becomes of each. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Test } from 'tap';
import type { BlockCacheOptions } from '../../plugins/block-cache/index.ts';
import { ManualClock } from './manual-clock.ts';
import { type Answer, ask, Origin, type Proxy, startBranch, until } from './proxies.ts';
import { turns } from './turns.ts';

/** What the clock shows when a table begins: the middle of a year, a month and a day. */
export const START = Date.UTC(2030, 5, 12, 13, 14, 15);

/** `{base}` stands for scheme and authority of the origin, `{path}` for the path of the behaviour. */
type FieldValue = string | readonly string[] | ((now: number) => string | readonly string[]) | undefined;
export type AnswerFields = Readonly<Record<string, FieldValue>>;

export interface ScriptedAnswer {
  /** @default 200 */
  readonly status?: number;
  /** Date is that of the clock unless it says otherwise; undefined leaves a field out. */
  readonly fields?: AnswerFields;
  /** @default a text of its own for each answer */
  readonly body?: string | Uint8Array;
  /** No Content-Length. */
  readonly chunked?: boolean;
}

/** One answer: a string is its Cache-Control; `dead` is none at all. The last one of a script is repeated. */
export type Scripted = string | ScriptedAnswer;

export interface Asking {
  /** Seconds since the request before. */
  readonly after?: number;
  readonly method?: string;
  readonly fields?: Readonly<Record<string, string>>;
  /** Behind the path of the behaviour. */
  readonly to?: string;
}

/** One request: a number is seconds since the one before. */
export type Request = number | Asking;

type Seen = Readonly<Record<string, string | RegExp | undefined>>;

export interface Behaviour {
  readonly name: string;
  /** Where it is written. */
  readonly spec: string;
  /** Required: a cache that does otherwise is wrong. Optimal: it is less useful. */
  readonly level: 'required' | 'optimal';
  readonly options?: Partial<BlockCacheOptions>;
  readonly answers: readonly Scripted[];
  readonly requests: readonly Request[];
  /**
   * What becomes of each request, in a word: `new` is the origin's answer; `kept` is the last one and the origin was not asked (`kept 1` an earlier one);
   * `checked` is a kept one after the origin said 304; `behind` is a kept one while the origin is asked; `instead` is a kept one in place of an error. Any other is the
   * status of an answer that is none of these, followed by `asked` if the origin was.
   */
  readonly expect: readonly string[];
  /** Fields of the client's answers, by request; undefined for one that must not be there. */
  readonly shows?: Readonly<Record<number, Seen>>;
  /** Fields of what the origin was asked, by request. */
  readonly asks?: Readonly<Record<number, Seen>>;
}

/** An HTTP date so many seconds from now. */
export const inSeconds =
  (seconds: number) =>
  (now: number): string =>
    new Date(now + seconds * 1000).toUTCString();

/** Branches of one way to reach the origin, by their options, and the origin behind them. */
export class CacheTable {
  readonly #test: Test;
  readonly #isGateway: boolean;
  readonly #origin: Origin;
  readonly #branches = new Map<string, { readonly branch: Proxy; readonly clock: ManualClock }>();
  #rows = 0;

  private constructor(test: Test, isGateway: boolean, origin: Origin) {
    this.#test = test;
    this.#isGateway = isGateway;
    this.#origin = origin;
  }

  static async start(test: Test, mode: 'gateway' | 'forward proxy'): Promise<CacheTable> {
    return new CacheTable(test, mode === 'gateway', await Origin.start(test));
  }

  /** Nothing failed that nobody saw. */
  get failures(): unknown[] {
    return [
      ...this.#origin.errors,
      ...[...this.#branches.values()].flatMap(({ branch }) => branch.observations.failures),
    ];
  }

  /** What became of each request of a behaviour, in the words of {@link Behaviour.expect}. */
  async outcomes(behaviour: Behaviour): Promise<string[]> {
    const { branch, clock } = await this.#branchFor(behaviour.options ?? {});
    const path = `/${(this.#rows += 1)}`;
    const base = this.#origin.url;
    const script = new Script(behaviour.answers, clock, { base, path });
    const outcomes: string[] = [];
    for (const [index, request] of behaviour.requests.entries()) {
      const {
        after = 0,
        method = 'GET',
        fields = {},
        to = '',
      } = typeof request === 'number' ? { after: request } : request;
      clock.advance(after * 1000);
      const target = `${path}${to}`;
      this.#origin.resources.set(target, (incoming, response) => script.answer(incoming, response));
      const before = { asked: this.#origin.requests.length, stored: stored(branch), over: over(branch) };
      const answer = await ask(branch.port, this.#isGateway ? target : `${base}${target}`, { method, fields });
      const expected = behaviour.expect[index];
      if (expected === 'behind') {
        await until(() => this.#origin.requests.length > before.asked, `${behaviour.name}: the origin is asked`);
        await until(() => stored(branch) > before.stored || script.hasFailed, `${behaviour.name}: what came is kept`);
      }
      await until(
        () => over(branch) > before.over && this.#origin.requests.every(({ closed }) => closed),
        `${behaviour.name}: it is quiet`,
      );
      // What has come is described and kept without any more waiting.
      await turns(20);
      const asked = this.#origin.requests.slice(before.asked);
      outcomes.push(
        [
          script.word(answer, asked.length),
          ...differences('shows', answer.headers, behaviour.shows?.[index]),
          ...differences('asks', asked.at(-1)?.headers ?? {}, behaviour.asks?.[index]),
        ].join(' '),
      );
    }
    return outcomes;
  }

  async #branchFor(options: Partial<BlockCacheOptions>): Promise<{ branch: Proxy; clock: ManualClock }> {
    const name = JSON.stringify(options);
    let found = this.#branches.get(name);
    if (found === undefined) {
      const clock = new ManualClock();
      clock.advance(START - clock.now());
      const origin = this.#isGateway ? { origin: this.#origin } : {};
      found = { branch: await startBranch(this.#test, { ...options, clock, ...origin }), clock };
      this.#branches.set(name, found);
    }
    return found;
  }
}

/** What the origin answers for one behaviour, in order, and how its answers are known again. */
class Script {
  readonly #answers: readonly Scripted[];
  readonly #clock: ManualClock;
  readonly #names: { readonly base: string; readonly path: string };
  readonly #bodies = new Map<string, Buffer>();
  #given = 0;
  #last = 0;
  #lastStatus = 0;
  /** Answers, and the newest of them, that had been given when a word was last asked for. */
  #told = 0;

  constructor(
    answers: readonly Scripted[],
    clock: ManualClock,
    names: { readonly base: string; readonly path: string },
  ) {
    this.#answers = answers;
    this.#clock = clock;
    this.#names = names;
  }

  get hasFailed(): boolean {
    return this.#lastStatus >= 500;
  }

  answer(request: IncomingMessage, response: ServerResponse): void {
    const scripted = this.#answers[Math.min(this.#given, this.#answers.length - 1)] as Scripted;
    if (scripted === 'dead') {
      this.#lastStatus = 502;
      response.destroy();
      return;
    }
    this.#given += 1;
    const {
      status = 200,
      fields = {},
      body,
      chunked = false,
    } = typeof scripted === 'string' ? { fields: { 'cache-control': scripted } } : scripted;
    this.#lastStatus = status;
    // A connection that is not kept is not tried again when it breaks.
    response.shouldKeepAlive = !this.#answers.includes('dead');
    response.sendDate = false;
    response.statusCode = status;
    for (const [name, value] of Object.entries({ date: inSeconds(0), ...fields })) {
      const text = typeof value === 'function' ? value(this.#clock.now()) : value;
      if (text !== undefined) response.setHeader(name, typeof text === 'string' ? this.#filled(text) : [...text]);
    }
    if (status === 304) {
      const { 'if-none-match': tag, 'if-modified-since': since } = request.headers;
      // Nobody may be told that nothing has changed who has not asked.
      if (tag === undefined && since === undefined) response.statusCode = 500;
      response.end();
      return;
    }
    this.#last = this.#given;
    response.setHeader('x-answer', String(this.#given));
    const content = Buffer.from((body ?? `answer ${this.#given} of ${this.#names.path}`) as Uint8Array);
    this.#bodies.set(String(this.#given), content);
    if (!chunked && status !== 204) response.setHeader('content-length', content.byteLength);
    response.end(request.method === 'HEAD' || status === 204 ? undefined : content);
  }

  /** @param asked requests that have reached the origin meanwhile */
  word(answer: Answer, asked: number): string {
    const { status, headers, body, complete } = answer;
    const number = headers['x-answer'];
    const isNew = Number(number) > this.#told;
    this.#told = this.#given;
    if (!complete) return 'cut';
    const detail = /detail=([\w-]+)/.exec(headers['cache-status'] ?? '')?.[1];
    const isBodiless = status === 304 || status === 204 || body.byteLength === 0;
    if (number === undefined || (status === 304 && !isNew)) return asked === 0 ? `${status}` : `${status} asked`;
    if (!isBodiless && !body.equals(this.#bodies.get(number) as Buffer)) return 'WRONG BYTES';
    const which = Number(number) === this.#last || isNew ? '' : ` ${number}`;
    if (isNew) return asked === 1 ? 'new' : `new after ${asked}`;
    if (asked === 0) return `kept${which}`;
    if (detail === 'stale-while-revalidate') return asked === 1 ? 'behind' : `behind ${asked}`;
    if (detail === 'stale-if-error') return 'instead';
    return this.#lastStatus === 304 && asked === 1 ? `checked${which}` : `kept${which} after ${asked}`;
  }

  #filled(text: string): string {
    return text.replaceAll('{base}', this.#names.base).replaceAll('{path}', this.#names.path);
  }
}

function differences(what: string, headers: Readonly<Record<string, string>>, seen: Seen = {}): string[] {
  return Object.entries(seen).flatMap(([name, expected]) => {
    const actual = headers[name];
    const agrees = expected instanceof RegExp ? actual !== undefined && expected.test(actual) : actual === expected;
    return agrees ? [] : [`(${what} ${name}: ${actual})`];
  });
}

function stored(branch: Proxy): number {
  return branch.observations.count('stored', { store: 'content_information' });
}

function over(branch: Proxy): number {
  return branch.observations.count('exchange');
}
