/**
 * Sends a plan's requests when they are due, whether or not earlier ones were answered (an open loop), as clients do who know nothing of
 * each other. Latency counts from the planned time: a proxy that stands still for a second is a second late for everybody who came
 * meanwhile, not only for those few whose requests it already had. What cannot be sent in time is sent late, and its wait counts.
 */
import { Agent, type OutgoingHttpHeaders, type RequestOptions } from 'node:http';
import { formatRange } from '../../../lib/http/index.ts';
import { formatListen } from '../options/units.ts';
import { Exchange, type Outcome } from './exchange.ts';
import type { PlannedRequest } from './plan.ts';
import { LoadStats } from './stats.ts';
import type { Subject } from './subject.ts';
import type { Timeline } from './timeline.ts';

/** Through a forward proxy, or straight at a gateway that knows its origin. */
export interface LoadTarget {
  readonly kind: 'proxy' | 'gateway';
  readonly host: string;
  readonly port: number;
}

export interface RunnerParts {
  readonly plan: Iterable<PlannedRequest, undefined>;
  readonly subject: Subject;
  readonly target: LoadTarget;
  readonly timeline: Timeline;
  readonly clients: number;
  /** Requests under way at once, of all clients. */
  readonly maxInFlight: number;
  /** Milliseconds without a byte after which a request has failed. */
  readonly timeoutMs: number;
  /** Milliseconds after the start at which whatever is still to be done has failed. */
  readonly deadlineMs: number;
}

/** Idle connections that each client keeps at least: as many as it may be using on the average at the limit, if that is more. */
const MIN_IDLE_CONNECTIONS = 2;
/** How often in a timeout the silent are looked for. */
const CHECKS_PER_TIMEOUT = 8;

export class LoadRunner {
  readonly stats = new LoadStats();
  /** Resolves when every request has ended. */
  readonly finished: Promise<void>;
  readonly #parts: RunnerParts;
  readonly #plan: Iterator<PlannedRequest, undefined>;
  readonly #agents = new Map<number, Agent>();
  readonly #underWay = new Set<Exchange>();
  #next: PlannedRequest | undefined;
  /** True from when the limit was met until no request is overdue. */
  #isHeldBack = false;
  #cancelWait: () => void = () => {};
  #cancelCheck: () => void = () => {};
  #finish!: () => void;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
    this.#plan = parts.plan[Symbol.iterator]();
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  start(): void {
    this.#parts.timeline.start();
    this.#advance();
    this.#watch();
    this.#pump();
  }

  /** Sends nothing more and breaks off what is under way. */
  stop(): void {
    this.#next = undefined;
    for (const exchange of this.#underWay) exchange.end('interrupted');
    this.#pump();
  }

  #advance(): void {
    this.#next = this.#plan.next().value;
  }

  #pump(): void {
    this.#cancelWait();
    const { timeline, maxInFlight } = this.#parts;
    for (; this.#next !== undefined; this.#advance()) {
      const waitMs = this.#next.atMs - timeline.elapsedMs();
      if (waitMs > 0) {
        this.#isHeldBack = false;
        this.#cancelWait = timeline.clock.after(waitMs, () => this.#pump());
        return;
      }
      if (this.#underWay.size >= maxInFlight) {
        this.#isHeldBack = true;
        return;
      }
      this.#send(this.#next);
    }
    if (this.#underWay.size > 0) return;
    this.#cancelCheck();
    for (const agent of this.#agents.values()) agent.destroy();
    this.#finish();
  }

  #send(planned: PlannedRequest): void {
    const { timeline, subject } = this.#parts;
    const sentAtMs = timeline.elapsedMs();
    const plannedAtMs = timeline.clock.now() - (sentAtMs - planned.atMs);
    this.stats.countSent(sentAtMs - planned.atMs, this.#isHeldBack);
    const exchange = new Exchange({
      options: this.#options(planned),
      abortAfterBytes: planned.abortAfterBytes,
      check: (head) => subject.check(planned, head, sentAtMs),
      now: () => timeline.clock.now(),
      onBytes: (bytes) => this.stats.countBytes(bytes, timeline.elapsedMs()),
      onRetry: () => {
        this.stats.retries += 1;
      },
      onEnd: (outcome: Outcome) => {
        this.#underWay.delete(exchange);
        this.stats.countEnd(outcome, plannedAtMs, planned.atMs);
        this.#pump();
      },
    });
    this.#underWay.add(exchange);
  }

  #options({ client, object, range }: PlannedRequest): RequestOptions {
    const { kind, host, port } = this.#parts.target;
    const { authority, path } = this.#parts.subject.urlOf(object);
    const headers: OutgoingHttpHeaders = {
      host: kind === 'proxy' ? authority : formatListen({ host, port }),
      accept: '*/*',
      'user-agent': 'peerdist-load',
    };
    if (range !== undefined) headers['range'] = formatRange(range);
    return {
      host,
      port,
      path: kind === 'proxy' ? `http://${authority}${path}` : path,
      headers,
      agent: this.#agent(client),
    };
  }

  /** Each client has connections of its own. */
  #agent(client: number): Agent {
    let agent = this.#agents.get(client);
    if (agent === undefined) {
      const { maxInFlight, clients } = this.#parts;
      const maxFreeSockets = Math.max(MIN_IDLE_CONNECTIONS, Math.ceil(maxInFlight / clients));
      agent = new Agent({ keepAlive: true, maxFreeSockets });
      this.#agents.set(client, agent);
    }
    return agent;
  }

  /** Ends those that have been silent for too long, and everything at the deadline. */
  #watch(): void {
    const { timeline, timeoutMs, deadlineMs } = this.#parts;
    this.#cancelCheck = timeline.clock.after(timeoutMs / CHECKS_PER_TIMEOUT, () => {
      const isOver = timeline.elapsedMs() >= deadlineMs;
      if (isOver) this.#giveUp();
      const silentSince = timeline.clock.now() - timeoutMs;
      for (const exchange of this.#underWay) if (isOver || exchange.activeAtMs <= silentSince) exchange.end('timeout');
      if (isOver) this.#pump();
      else this.#watch();
    });
  }

  #giveUp(): void {
    for (; this.#next !== undefined; this.#advance()) this.stats.errors.unsent += 1;
  }
}
