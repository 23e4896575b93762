/** The dashboard of a running service: one page, and a stream of events that fills it. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { EventStream } from './event-stream.ts';
import { type Live, type Samples, savedBytes, totalsOf } from './facts.ts';
import { History, type SavedDay, savedDays, type Span } from './history.ts';
import { pageFile, plotAssets } from './plot-assets.ts';
import { type Identity, type Snapshot, takeSnapshot } from './snapshot.ts';

export interface DashboardOptions extends Identity {
  /** What `/metrics` says. */
  readonly samples: () => Promise<Samples>;
  readonly live: () => Promise<Live>;
  /** Whether `live` has names of contents. */
  readonly showsNames: boolean;
  readonly readiness: () => { readonly isReady: boolean; readonly trouble: string | undefined };
  /** Keeps the history across restarts. Both may throw. @default it is forgotten */
  readonly keeper?: { readonly read: () => string; readonly write: (text: string) => void } | undefined;
  /** Milliseconds since 1970. @default Date.now */
  readonly wallClock?: (() => number) | undefined;
  readonly clock?: Clock | undefined;
}

/** Answers one request; the body has not been read. */
export type Route = (request: IncomingMessage, response: ServerResponse) => void;

/** What a service has saved, for reports. */
export interface Savings extends Identity {
  readonly savedBytes: number;
  readonly days: readonly SavedDay[];
}

/** Milliseconds between two looks at the numbers: for those who watch, and for the history. Policy. */
const WATCHED_MS = 1_000;
const SAMPLE_MS = 10_000;
/** Looks for the history before it is written down. Policy. */
const SAMPLES_KEPT = 6;
/** Points of the plot are sent anew so often. Policy. */
const PLOT_EVERY = 10;

const PAGE_TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
};
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

export class Dashboard {
  /** Pages that anybody may have: they hold no data. */
  readonly pages: Readonly<Record<string, Route>>;
  /** What only those may have who may have `/metrics`. */
  readonly data: Readonly<Record<string, Route>>;
  readonly #options: DashboardOptions;
  readonly #clock: Clock;
  readonly #now: () => number;
  readonly #history: History;
  readonly #stream: EventStream;
  #unsaved = 0;
  #ticks = 0;
  #cancel: (() => void) | undefined;

  constructor(options: DashboardOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#now = options.wallClock ?? Date.now;
    this.#history = new History(readKept(options.keeper));
    this.#stream = new EventStream({ everyMs: WATCHED_MS, clock: this.#clock, tick: () => this.#tick() });
    const { script, style } = plotAssets();
    this.pages = {
      '/dashboard': page('html', pageFile('dashboard.html')),
      '/dashboard/dashboard.js': page('js', pageFile('dashboard.js')),
      '/dashboard/plots.js': page('js', script),
      '/dashboard/style.css': page('css', `${style}\n${pageFile('dashboard.css')}`),
    };
    this.data = {
      '/events': (request, response) => this.#stream.add(request, response),
      '/savings': (_request, response) => void this.#answerSavings(response),
    };
    this.#rest();
  }

  /** Writes the history down and ends all streams. Never throws. */
  async stop(): Promise<void> {
    this.#cancel?.();
    this.#stream.close();
    await this.#sample().catch(() => {});
    this.#keep();
  }

  #rest(): void {
    this.#cancel = this.#clock.after(SAMPLE_MS, () => {
      this.#rest();
      void this.#sample()
        .then(() => {
          this.#unsaved += 1;
          if (this.#unsaved >= SAMPLES_KEPT) this.#keep();
        })
        .catch(() => {});
    });
  }

  async #sample(): Promise<Samples> {
    const samples = await this.#options.samples();
    this.#history.add(this.#now(), totalsOf(samples, this.#options.role));
    return samples;
  }

  #keep(): void {
    this.#unsaved = 0;
    try {
      this.#options.keeper?.write(this.#history.encode());
    } catch {
      // Whoever cannot write is told so by the store; the numbers of the past are a comfort only.
    }
  }

  /** The events of one moment. */
  async #tick(): Promise<readonly (readonly [event: string, data: unknown])[]> {
    const now = await this.#snapshot();
    const events: [string, unknown][] = [['now', now]];
    if (this.#ticks % PLOT_EVERY === 0 || this.#stream.hasNewcomer) events.push(['history', this.#plots()]);
    this.#ticks += 1;
    return events;
  }

  async #snapshot(): Promise<Snapshot> {
    const { role, version, site, showsNames, live, readiness } = this.#options;
    const samples = await this.#sample();
    const moment = { atMs: this.#now(), ...readiness(), live: await live() };
    return takeSnapshot({ role, version, site, showsNames }, samples, this.#history, moment);
  }

  #plots(): Readonly<Record<Exclude<Span, 'days'>, unknown>> {
    const now = this.#now();
    const plot = (span: Span): unknown => this.#history.filled(span, now);
    return { hour: plot('hour'), day: plot('day'), week: plot('week') };
  }

  async #answerSavings(response: ServerResponse): Promise<void> {
    try {
      const { role, version, site } = this.#options;
      const samples = await this.#sample();
      const saved = savedBytes(totalsOf(samples, role));
      const savings: Savings = { role, version, site, savedBytes: saved, days: savedDays(this.#history, this.#now()) };
      response.writeHead(200, {
        'content-type': 'application/json',
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
      });
      response.end(JSON.stringify(savings));
    } catch {
      response.writeHead(500, { 'content-type': 'text/plain' }).end('the numbers cannot be had\n');
    }
  }
}

/** @param text read once: nobody who asks for a page can make us open files */
function page(type: keyof typeof PAGE_TYPES, text: string): Route {
  return (_request, response) => {
    response.writeHead(200, {
      'content-type': PAGE_TYPES[type],
      'content-security-policy': POLICY,
      'cache-control': 'no-cache',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    });
    response.end(text);
  };
}

function readKept(keeper: DashboardOptions['keeper']): string | undefined {
  try {
    return keeper?.read();
  } catch {
    return undefined;
  }
}
