/**
 * The process that leads a crew of workers: starts them, replaces those that die, adds up what they count, and decides who does what needs to be
 * done once. It carries no traffic itself.
 */
import cluster, { type Worker } from 'node:cluster';
import { PeerDistError } from '../../../lib/errors.ts';
import { type Metrics, type MetricsReport, MetricsSum } from '../../metrics/index.ts';
import { type Live, mergeLive } from '../../dashboard/index.ts';
import type { OpenListener, Update } from '../roles/service.ts';
import { Channel, type Handlers } from './channel.ts';
import { ClaimsDesk } from './claims.ts';
import type { Welcome } from './member.ts';
import { inTime } from '../in-time.ts';

export interface CrewOptions {
  readonly workers: number;
  readonly welcome: Welcome;
  /** What the leader itself counts. */
  readonly metrics: Metrics;
  /** What else workers may ask for. */
  readonly handlers: (tell: Channel['tell']) => Handlers;
  /** Looks at what a worker that crashed had open. @returns why the crew cannot go on */
  readonly inspect: () => Promise<string | undefined>;
  readonly warn: (line: string) => void;
}

interface Fellow {
  readonly worker: Worker;
  readonly channel: Channel;
  readonly startedAt: number;
  /** Whoever waits for it to listen. */
  readonly onReady: () => void;
  isReady: boolean;
}

/** Milliseconds a worker must have lived for the next one to start at once, and the longest pause otherwise. Policy. */
const SHORT_LIFE_MS = 2_000;
const MAX_PAUSE_MS = 30_000;
/** Milliseconds for a worker's counts when somebody asks; then those of a second ago are good enough. Policy. */
const REPORT_TIMEOUT_MS = 500;
/** Milliseconds beyond the grace after which a worker that should end is killed. Policy. */
const KILL_AFTER_MS = 3_000;
/** The leader's own number among those who count. */
const LEADER = 0;
/** Ends of a process that a damaged file may have brought about. */
const CRASHES: ReadonlySet<string> = new Set(['SIGBUS', 'SIGSEGV', 'SIGABRT', 'SIGILL', 'SIGFPE']);

export class Crew {
  /** Resolves with the reason when the crew cannot go on. */
  readonly failed: Promise<string>;
  readonly #options: CrewOptions;
  readonly #desk = new ClaimsDesk();
  readonly #sum = new MetricsSum();
  readonly #fellows = new Map<number, Fellow>();
  #listeners: readonly OpenListener[] = [];
  #fail: (reason: string) => void = () => {};
  /** Workers that are going to be started. */
  readonly #hiring = new Set<NodeJS.Timeout>();
  #isStopping = false;
  /** What has been taken over since the start. */
  #update: Update | undefined;
  #counting: Promise<void> | undefined;
  #pauseMs = 0;

  constructor(options: CrewOptions) {
    this.#options = options;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
  }

  /** Where the workers listen. */
  get listeners(): readonly OpenListener[] {
    return this.#listeners;
  }

  /**
   * Resolves when every worker listens.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` when one cannot
   */
  async start(): Promise<void> {
    // Bytes travel as bytes.
    cluster.setupPrimary({ serialization: 'advanced' });
    const ready = Array.from(
      { length: this.#options.workers },
      () =>
        new Promise<void>((resolve) => {
          this.#hire(resolve);
        }),
    );
    const failed = this.failed.then((reason) => {
      throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', reason);
    });
    await Promise.race([Promise.all(ready), failed]);
  }

  async exposition(): ReturnType<Metrics['exposition']> {
    await this.#countAll();
    return this.#sum.exposition();
  }

  async report(): ReturnType<Metrics['report']> {
    await this.#countAll();
    return this.#sum.report();
  }

  /** What all workers are doing; one that does not say so in time is left out. */
  async live(): Promise<Live> {
    const asked = [...this.#fellows.values()].map(({ channel }) =>
      inTime(
        channel.call('live').then((live) => live as Live),
        REPORT_TIMEOUT_MS,
      ),
    );
    const answers = await Promise.all(asked);
    return mergeLive(answers.filter((live) => live !== undefined));
  }

  /** Has every worker take over what its leader has, also those that come later. */
  reload(update: Update): void {
    this.#update = update;
    for (const { channel } of this.#fellows.values()) channel.tell('reload', update);
  }

  /** True while at least one worker takes requests. */
  get isServing(): boolean {
    return [...this.#fellows.values()].some(({ isReady }) => isReady);
  }

  /** Lets every worker end its exchanges for up to `graceMs`. Never rejects. */
  async stop(graceMs: number): Promise<void> {
    this.#isStopping = true;
    for (const timer of this.#hiring) clearTimeout(timer);
    await Promise.all([...this.#fellows.values()].map(({ worker, channel }) => dismiss(worker, channel, graceMs)));
  }

  /** Starts a worker. @param onReady called when it, or one that takes its place, listens */
  #hire(onReady: () => void): void {
    const worker = cluster.fork();
    const { id } = worker;
    const { welcome, handlers } = this.#options;
    const channel: Channel = new Channel(worker, {
      ...handlers((name, ...args) => channel.tell(name, ...args)),
      welcome: () => welcome,
      ready: (listeners: readonly OpenListener[]) => {
        this.#listeners = listeners;
        fellow.isReady = true;
        if (this.#update !== undefined) channel.tell('reload', this.#update);
        onReady();
      },
      failed: (message: string) => {
        this.#isStopping = true;
        this.#fail(message);
      },
      counted: (report: MetricsReport) => this.#report(id, report),
      claim: (name: string) => this.#desk.claim(id, name),
      release: (name: string) => this.#desk.release(id, name),
      released: (name: string) => this.#desk.released(name),
    });
    const fellow: Fellow = { worker, channel, startedAt: performance.now(), onReady, isReady: false };
    this.#fellows.set(id, fellow);
    worker.once('exit', (code, signal) => void this.#replace(fellow, code, signal));
    // One that could not even be started does not always exit.
    worker.on('error', () => void this.#replace(fellow, null, null));
  }

  async #replace(fellow: Fellow, code: number | null, signal: string | null): Promise<void> {
    const { worker, startedAt, onReady } = fellow;
    if (!this.#fellows.delete(worker.id)) return;
    this.#desk.leave(worker.id);
    await this.#sum.retire(worker.id);
    if (this.#isStopping) return;
    this.#options.warn(`a worker ended (${signal ?? `exit code ${code}`}); starting another`);
    if (signal !== null && CRASHES.has(signal)) {
      const reason = await this.#options.inspect();
      if (reason !== undefined) return this.#fail(reason);
    }
    const wasShort = performance.now() - startedAt < SHORT_LIFE_MS;
    this.#pauseMs = wasShort ? Math.min(Math.max(250, this.#pauseMs * 2), MAX_PAUSE_MS) : 0;
    const timer = setTimeout(() => {
      this.#hiring.delete(timer);
      if (!this.#isStopping) this.#hire(onReady);
    }, this.#pauseMs);
    this.#hiring.add(timer);
  }

  /** What comes after its sender has gone is counted already. */
  #report(id: number, report: MetricsReport): void {
    if (this.#fellows.has(id)) this.#sum.add(id, report);
  }

  /** Once at a time, however many ask. */
  #countAll(): Promise<void> {
    this.#counting ??= this.#countEach().finally(() => {
      this.#counting = undefined;
    });
    return this.#counting;
  }

  async #countEach(): Promise<void> {
    this.#sum.add(LEADER, await this.#options.metrics.report());
    const asked = [...this.#fellows].map(([id, { channel }]) =>
      inTime(
        channel.call('report').then((report) => this.#report(id, report as MetricsReport)),
        REPORT_TIMEOUT_MS,
      ),
    );
    await Promise.all(asked);
  }
}

async function dismiss(worker: Worker, channel: Channel, graceMs: number): Promise<void> {
  if (worker.isDead()) return;
  const gone = new Promise<void>((resolve) => {
    worker.once('exit', () => resolve());
  });
  channel.tell('stop');
  const timer = setTimeout(() => worker.process.kill('SIGKILL'), graceMs + KILL_AFTER_MS);
  await gone;
  clearTimeout(timer);
}
