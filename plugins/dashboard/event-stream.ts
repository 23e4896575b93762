import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../lib/clock.ts';

/** Beats that a watcher may not read before its place is another's. Policy. */
const MAX_UNREAD = 30;
/** Watchers at a time; more are refused. Policy. */
const MAX_WATCHERS = 32;

export interface EventStreamOptions {
  readonly everyMs: number;
  readonly clock: Clock;
  /** What is to be told; only asked while somebody watches. */
  readonly tick: () => Promise<readonly (readonly [event: string, data: unknown])[]>;
}

/** Server-sent events to everybody who watches (WHATWG HTML 9.2). One that does not read is skipped until it does, and nothing is kept for it. */
export class EventStream {
  readonly #options: EventStreamOptions;
  /** With how many beats each has not read in a row. */
  readonly #watchers = new Map<ServerResponse, number>();
  #newcomers = 0;
  #cancel: (() => void) | undefined;
  #isTicking = false;
  #isClosed = false;

  constructor(options: EventStreamOptions) {
    this.#options = options;
  }

  /** True until everybody has been told something. */
  get hasNewcomer(): boolean {
    return this.#newcomers > 0;
  }

  add(request: IncomingMessage, response: ServerResponse): void {
    if (this.#isClosed || this.#watchers.size >= MAX_WATCHERS) {
      const reason = this.#isClosed ? 'it is ending\n' : 'enough are watching\n';
      response.writeHead(503, { 'content-type': 'text/plain', 'retry-after': '10' }).end(reason);
      return;
    }
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      // For a proxy in between that would gather a page full first.
      'x-accel-buffering': 'no',
    });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    this.#watchers.set(response, 0);
    this.#newcomers += 1;
    response.on('error', () => {});
    response.on('close', () => {
      this.#watchers.delete(response);
      if (this.#watchers.size === 0) this.#cancel?.();
    });
    this.#cancel?.();
    this.#beat();
  }

  /** Nobody is waited for: one that does not read would hold up whoever closes this. */
  close(): void {
    this.#isClosed = true;
    this.#cancel?.();
    for (const watcher of this.#watchers.keys()) {
      if (watcher.writableLength > 0) watcher.destroy();
      else watcher.end();
    }
  }

  #beat(): void {
    this.#cancel = this.#options.clock.after(this.#options.everyMs, () => {
      if (this.#watchers.size > 0) this.#beat();
    });
    // A moment that takes longer than a beat is not begun twice.
    if (this.#isTicking) return;
    this.#isTicking = true;
    void this.#tell().finally(() => {
      this.#isTicking = false;
    });
  }

  async #tell(): Promise<void> {
    const newcomers = this.#newcomers;
    try {
      const events = await this.#options.tick();
      // Who has come meanwhile is told the next time what only newcomers are told.
      this.#newcomers -= newcomers;
      const text = events.map(([event, data]) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`).join('');
      for (const [watcher, unread] of this.#watchers) this.#send(watcher, unread, text);
    } catch {
      // The next beat tries again.
    }
  }

  /** One that does not read for long makes room for another. */
  #send(watcher: ServerResponse, unread: number, text: string): void {
    if (!watcher.writableNeedDrain) {
      this.#watchers.set(watcher, 0);
      watcher.write(text);
    } else if (unread < MAX_UNREAD) this.#watchers.set(watcher, unread + 1);
    else watcher.destroy();
  }
}
