import { PeerDistAbortError } from '../errors.ts';
import type { ContentInformationVersion } from '../protocol/pccrc/index.ts';
import { type Abortable, Operations } from './operations.ts';
import type { PeerDistStatus } from './session.ts';

export interface PeerDistStatusInfo {
  readonly status: PeerDistStatus;
  /** Oldest content information format the service handles. */
  readonly minContentInfoVersion: ContentInformationVersion;
  /** Newest content information format the service handles. */
  readonly maxContentInfoVersion: ContentInformationVersion;
}

/**
 * Tells of status changes, one registration for the instance, fanned out (section 3). It compares with the status last *delivered*, so a
 * change between two registrations is not lost; before the first delivery that is `disabled`.
 */
export class StatusNotifications {
  readonly #current: () => PeerDistStatusInfo;
  readonly #emit: (info: PeerDistStatusInfo) => void;
  readonly #hasListeners: () => boolean;
  readonly #takers = new Set<Taker>();
  readonly #operations = new Operations();
  /** Iterators that wait: they end, and are not cancelled. */
  readonly #waits = new Operations();
  #ended = false;
  #delivered: PeerDistStatus = 'disabled';
  #scheduled = false;

  constructor({
    current,
    emit,
    hasListeners,
  }: {
    readonly current: () => PeerDistStatusInfo;
    readonly emit: (info: PeerDistStatusInfo) => void;
    readonly hasListeners: () => boolean;
  }) {
    this.#current = current;
    this.#emit = emit;
    this.#hasListeners = hasListeners;
  }

  /** Somebody new listens, or the status has changed. Delivers in a later turn, so that listeners attached right now hear it. */
  arm(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#deliver();
    });
  }

  /** The next status that differs from the one last delivered to anybody. */
  async next(options: Abortable = {}): Promise<PeerDistStatusInfo> {
    const taker: Taker = { take: () => {}, stop: () => {} };
    try {
      return await this.#operations.run(
        options,
        () =>
          new Promise((resolve) => {
            taker.take = resolve;
            this.#takers.add(taker);
            this.arm();
          }),
      );
    } finally {
      this.#takers.delete(taker);
    }
  }

  /** Every change from now on; of those nobody has taken yet only the newest is kept. Ends quietly on {@link stop}. */
  async *changes(options: Abortable = {}): AsyncGenerator<PeerDistStatusInfo, undefined> {
    let newest: PeerDistStatusInfo | undefined;
    let stopped = false;
    let wake = (): void => {};
    const taker: Taker = {
      take: (info) => {
        newest = info;
        wake();
      },
      stop: () => {
        stopped = true;
        wake();
      },
    };
    this.#takers.add(taker);
    this.arm();
    try {
      for (;;) {
        if (newest === undefined && !stopped && !this.#ended) {
          await this.#waits.run(options, () => new Promise<void>((resolve) => (wake = resolve)));
        }
        if (stopped || this.#ended) return undefined;
        const info = newest;
        newest = undefined;
        if (info !== undefined) yield info;
      }
    } finally {
      this.#takers.delete(taker);
    }
  }

  /** Drops every registration: iterators end, `next` rejects. */
  stop(trigger: 'unregister' | 'shutdown'): void {
    this.#ended ||= trigger === 'shutdown';
    for (const taker of this.#takers) taker.stop();
    void this.#operations.cancel(new PeerDistAbortError(trigger));
  }

  #deliver(): void {
    if (this.#ended) return;
    const info = this.#current();
    if (info.status === this.#delivered || (this.#takers.size === 0 && !this.#hasListeners())) return;
    this.#delivered = info.status;
    for (const taker of this.#takers) taker.take(info);
    this.#emit(info);
  }
}

/** One registration that is waiting. */
interface Taker {
  take(info: PeerDistStatusInfo): void;
  stop(): void;
}
