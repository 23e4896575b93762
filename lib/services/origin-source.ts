import type { ByteRange } from '../bytes/index.ts';
import { type Clock, systemClock } from '../clock.ts';
import { isPeerDistError, PeerDistError } from '../errors.ts';
import type { MaybePromise } from '../stores/index.ts';
import type { BlockRequest, BlockSource, FetchMissing } from './block-source.ts';
import { LOCAL_DEADLINE_MS } from './local-source.ts';
import { OriginRun } from './origin-run.ts';

export interface OriginSourceOptions {
  /** Milliseconds a reader waits for one block. Long, since a slow link is no failure: idle connections are the host's to cut. @default 300000 */
  readonly deadlineMs?: number;
  /** True for a block that need not be fetched; ends the range asked for. */
  readonly isHeld?: (request: BlockRequest, ordinal: number) => MaybePromise<boolean>;
  /** Told how long each transfer took to bring its first block. */
  readonly onFirstBlock?: (ms: number) => void;
  readonly clock?: Clock;
}

/** Blocks asked for in one range request. 1024 are 64 MiB, after which one round trip is lost in the noise. Policy, not protocol. */
const MAX_RUN_BLOCKS = 1024;
/** The same when peers are only late: they are likely to deliver what follows, and what the line carries until it is told to stop is lost. Policy. */
const MAX_OVERDUE_BLOCKS = 16;
/** A block this far ahead of a running transfer waits for it; one further away gets a transfer of its own. Policy, not protocol. */
const JOIN_AHEAD_BLOCKS = 256;
/** Transfers of one content at a time; more wait their turn. Policy, not protocol. */
const MAX_RUNS = 64;

/**
 * The origin of one content as a source of blocks. Neighbouring blocks that are wanted are coalesced into one range request;
 * several readers of the same stretch share it.
 */
export class OriginSource implements BlockSource {
  readonly name = 'origin';
  readonly trusted = false;
  readonly deadlineMs: number;
  readonly #clock: Clock;
  readonly #isHeld: NonNullable<OriginSourceOptions['isHeld']>;
  readonly #onFirstBlock: (ms: number) => void;
  readonly #runs = new Set<OriginRun>();
  readonly #queue: (() => void)[] = [];
  #starting: Promise<void> | undefined;

  constructor({
    deadlineMs = 300_000,
    isHeld = () => false,
    onFirstBlock = () => {},
    clock = systemClock,
  }: OriginSourceOptions = {}) {
    this.deadlineMs = deadlineMs;
    this.#isHeld = isHeld;
    this.#onFirstBlock = onFirstBlock;
    this.#clock = clock;
  }

  async retrieve(
    request: BlockRequest,
    { signal, timedOut = false }: { readonly signal: AbortSignal; readonly timedOut?: boolean | undefined },
  ): Promise<Uint8Array | undefined> {
    if (request.fetchMissing === undefined) return undefined;
    const joined = this.#passing(request.ordinal);
    if (joined !== undefined) {
      try {
        return await joined.take(request, signal);
      } catch (error) {
        // Somebody else's transfer broke, or its client went away: that is no reason why this reader's own should.
        if (signal.aborted || isPeerDistError(error, 'ERR_PEERDIST_ORIGIN_CHANGED')) throw error;
      }
    }
    return this.#ownRun(request, signal, timedOut ? 'timeout' : 'missing');
  }

  #passing(ordinal: number): OriginRun | undefined {
    for (const run of this.#runs) if (run.willPass(ordinal, JOIN_AHEAD_BLOCKS)) return run;
    return undefined;
  }

  async #ownRun(request: BlockRequest, signal: AbortSignal, reason: 'missing' | 'timeout'): Promise<Uint8Array> {
    // One at a time: the block before this one may be just about to start a transfer that passes here.
    while (this.#starting !== undefined) await this.#starting;
    if (signal.aborted) throw signal.reason;
    const passing = this.#passing(request.ordinal);
    if (passing !== undefined) return passing.take(request, signal);
    if (this.#runs.size >= MAX_RUNS) {
      await this.#turn(signal);
      return this.#ownRun(request, signal, reason);
    }
    const most = request.ordinal + (reason === 'timeout' ? MAX_OVERDUE_BLOCKS : MAX_RUN_BLOCKS) - 1;
    const limit = Math.min(request.lastOrdinal, most);
    const extent = this.#lastOrdinal(request, limit, signal, this.#clock.now() + LOCAL_DEADLINE_MS);
    if (typeof extent === 'number') return this.#start(request, extent, reason).take(request, signal);
    // The block is asked for in the turn that starts the transfer, or a prompt origin would deliver it to nobody.
    let taken: Promise<Uint8Array> | undefined;
    this.#starting = extent
      .then((last) => {
        taken = this.#start(request, last, reason).take(request, signal);
        taken.catch(() => {});
      })
      .finally(() => {
        this.#starting = undefined;
      });
    await this.#starting;
    return taken as unknown as Promise<Uint8Array>;
  }

  /** Waits for a transfer to end. A reader that leaves gives up its place, or it would use up somebody else's turn. */
  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const leave = (): void => {
        const place = this.#queue.indexOf(go);
        if (place >= 0) this.#queue.splice(place, 1);
        resolve();
      };
      const go = (): void => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      this.#queue.push(go);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  #start(request: BlockRequest, last: number, reason: 'missing' | 'timeout'): OriginRun {
    const { content, ordinal, fetchMissing } = request;
    if (fetchMissing === undefined) throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'no way to the origin');
    const fetch = (missing: ByteRange, abort: AbortSignal): ReturnType<FetchMissing> =>
      fetchMissing(missing, { reason, signal: abort });
    const started = this.#clock.now();
    for (const other of this.#runs) other.endBefore(ordinal);
    const run: OriginRun = new OriginRun(content, { first: ordinal, last }, fetch, this.#clock, {
      onFirstBlock: () => this.#onFirstBlock(this.#clock.now() - started),
      onEnd: () => {
        this.#runs.delete(run);
        this.#queue.shift()?.();
      },
    });
    this.#runs.add(run);
    return run;
  }

  /** How far one request may go: to where the reader stops, a block that is at hand, or another transfer begins. */
  #lastOrdinal(
    request: BlockRequest,
    limit: number,
    signal: AbortSignal,
    until: number,
    from = request.ordinal + 1,
  ): number | Promise<number> {
    const starts = new Set([...this.#runs].map((run) => run.firstOrdinal));
    for (let ordinal = from; ordinal <= limit; ordinal += 1) {
      if (starts.has(ordinal)) return ordinal - 1;
      const held = this.#isHeld(request, ordinal);
      if (held === true) return ordinal - 1;
      if (typeof held === 'object') {
        // A slow store does not keep the reader from the origin: the range ends where its time is up.
        return held.then((isHeld) => {
          if (isHeld) return ordinal - 1;
          const isOver = signal.aborted || this.#clock.now() >= until;
          return isOver ? ordinal : this.#lastOrdinal(request, limit, signal, until, ordinal + 1);
        });
      }
    }
    return limit;
  }
}
