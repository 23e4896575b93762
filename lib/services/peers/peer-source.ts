/**
 * Blocks from the neighbours.
 *
 * One queue of jobs, a block each. `#pump` gives the first jobs to the peers that are likely to answer soonest, up to 32 questions at a time in
 * all; an answer, a failure or news from the finder pumps again. A job that is overdue is put to a second peer as well. A job whose candidates
 * are used up is done: the next source is asked. Whoever asked can leave at any time by its signal.
 */
import { type Clock, systemClock } from '../../clock.ts';
import { isPeerDistError, PeerDistError } from '../../errors.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import { type PeerAddress, REQUEST_TIMER_MS } from '../../protocol/pccrd/index.ts';
import type { BlockRequest, BlockSource } from '../block-source.ts';
import type { ContentPeers } from './content-peers.ts';
import { type Exchange, PeerConnections, PeerError } from './exchange.ts';
import { Lookout } from './lookout.ts';
import { Patience } from './patience.ts';
import type { Peer, PeerState } from './peer.ts';
import { PeerChoice, type WantedBlock } from './peer-choice.ts';
import { nobody, type PeerFinder } from './peer-finder.ts';
import { blockListQuestion, blockQuestion, type Question } from './questions.ts';

export interface PeerSourceOptions {
  /** What these peers are: neighbours, or hosted caches. @default 'peer' */
  readonly name?: 'peer' | 'hosted_cache' | undefined;
  /** Peers that are asked about everything; an address or a name, and a port. */
  readonly peers?: readonly PeerAddress[] | undefined;
  /** Finds further ones. */
  readonly finder?: PeerFinder | undefined;
  /** Questions under way at a time, all peers together. @default 32 */
  readonly maxInFlight?: number | undefined;
  /** Milliseconds a peer gets for one answer (MS-PCCRR 3.1.2). @default 2000 */
  readonly requestTimeoutMs?: number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** Milliseconds a block may take for each that waits before it: 100 Mbit/s take 6. Policy, not protocol. */
const QUEUE_MS = 10;
/** Waiting blocks that are looked at when a peer becomes free: those of two readers. Policy, not protocol. */
const MAX_LOOKED_AT = 128;
/** How often questions under way are looked at, milliseconds. Policy, not protocol. */
const SWEEP_MS = 25;

interface Attempt {
  readonly peer: Peer;
  readonly exchange: Exchange;
  readonly startedAt: number;
  /** Questions the peer had at the same time. */
  readonly concurrency: number;
  readonly job: Job | undefined;
  isOverdue: boolean;
}

/** A block somebody waits for. */
interface Job extends WantedBlock {
  readonly startedAt: number;
  readonly tried: Peer[];
  readonly attempts: Set<Attempt>;
  readonly settle: (bytes: Uint8Array | undefined) => void;
  /** Nobody is left to ask; says whether somebody was only late. */
  readonly giveUp: () => void;
  isLate: boolean;
  isDone: boolean;
}

/** A neighbour as whoever looks on sees it. */
export interface PeerStanding {
  readonly address: PeerAddress;
  readonly state: PeerState;
  /** Milliseconds of its time one block takes; undefined before the first. */
  readonly serviceMs: number | undefined;
}

export class PeerSource implements BlockSource {
  readonly name: 'peer' | 'hosted_cache';
  /** Each block is hashed here, since who sent it must be known. */
  readonly trusted = true;
  readonly deadlineMs: (request: BlockRequest, originMs: number) => number;
  readonly #finder: PeerFinder;
  readonly #lookout: Lookout;
  readonly #choice: PeerChoice;
  readonly #connections: PeerConnections;
  readonly #patience = new Patience();
  readonly #maxInFlight: number;
  readonly #requestTimeoutMs: number;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #attempts = new Set<Attempt>();
  /** News that is going to pump when it comes. */
  readonly #awaited = new WeakSet<Promise<void>>();
  readonly #waiting: Job[] = [];
  #cancelSweep: (() => void) | undefined;
  #isClosed = false;

  constructor({
    name = 'peer',
    peers = [],
    finder = nobody,
    maxInFlight = 32,
    requestTimeoutMs = 2_000,
    observer = ignoreObservations,
    clock = systemClock,
  }: PeerSourceOptions = {}) {
    this.name = name;
    this.#finder = finder;
    this.#lookout = new Lookout(finder, clock);
    this.#choice = new PeerChoice({
      peers,
      finder,
      clock,
      askForList: (known, peer, segment) => this.#askForList(known, peer, segment),
    });
    this.#connections = new PeerConnections();
    this.#maxInFlight = maxInFlight;
    this.#requestTimeoutMs = requestTimeoutMs;
    this.#observer = observer;
    this.#clock = clock;
    this.deadlineMs = ({ content, ordinal, neededInMs = 0 }, originMs) => {
      const isSought = this.#finder.awaited(content.segmentId(content.block(ordinal).segment)) !== undefined;
      const queueMs = this.#waiting.length * QUEUE_MS + (isSought ? REQUEST_TIMER_MS : 0);
      return this.#patience.deadlineMs(neededInMs, originMs, queueMs);
    };
  }

  /** Everybody who is known, and how it stands with them. */
  get neighbours(): PeerStanding[] {
    return this.#choice.peers.map(({ address, state, serviceMs }) => ({ address, state, serviceMs }));
  }

  /**
   * Verified bytes of the block, or undefined where no neighbour has it; at once where there is nobody to ask.
   *
   * @throws {@link PeerDistError} `ERR_PEERDIST_TIMEOUT` where one has been late: what follows may well come from it
   */
  retrieve(
    { content, ordinal, lastOrdinal, persist }: BlockRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Uint8Array | undefined> | undefined {
    // What must not be stored is not named on the LAN either.
    if (!persist || this.#isClosed) return undefined;
    const block = content.block(ordinal);
    const lastBlock = content.block(lastOrdinal);
    this.#lookout.reach(content, block.segment, lastBlock.segment);
    const known = this.#choice.knownOf(content);
    const segmentId = content.segmentId(block.segment);
    const segmentBlocks = content.segmentFacts(block.segment).blockCount;
    const wantedBlocks = Math.min(lastOrdinal - ordinal + 1, segmentBlocks - block.blockIndex);
    return new Promise((resolve, reject) => {
      const leave = (): void => this.#leave(job, signal.reason, reject);
      const job: Job = {
        known,
        block,
        segmentId,
        segmentBlocks,
        wantedBlocks,
        startedAt: this.#clock.now(),
        tried: [],
        attempts: new Set(),
        isLate: false,
        isDone: false,
        settle: (bytes) => {
          job.isDone = true;
          signal.removeEventListener('abort', leave);
          resolve(bytes);
        },
        giveUp: () => {
          if (job.isLate) reject(new PeerDistError('ERR_PEERDIST_TIMEOUT', 'the peers that were asked were late'));
          job.settle(undefined);
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      if (!this.#serve(job)) this.#waiting.push(job);
      this.#sweepLater();
    });
  }

  /** Ends everything under way. */
  close(): void {
    this.#isClosed = true;
    for (const { exchange, job } of this.#attempts) {
      exchange.cancel('cancelled');
      if (job?.isDone === false) job.settle(undefined);
    }
    for (const job of this.#waiting.splice(0)) job.settle(undefined);
    this.#cancelSweep?.();
    this.#connections.close();
  }

  /** Gives waiting jobs to peers, first come, first served, as long as there is room. */
  #pump(): void {
    const waiting = this.#waiting;
    // With so many that have to wait for somebody, those behind them have to as well.
    for (let place = 0; place < Math.min(waiting.length, MAX_LOOKED_AT) && this.#hasRoom;) {
      if (this.#serve(waiting[place] as Job)) waiting.splice(place, 1);
      else place += 1;
    }
    this.#sweepLater();
  }

  /** Gives a job to a peer, or up. @returns false when it has to wait */
  #serve(job: Job): boolean {
    if (!this.#hasRoom) return false;
    const choice = this.#choose(job);
    if (choice === 'wait') return false;
    if (choice === undefined) job.giveUp();
    else this.#ask(job, choice);
    return true;
  }

  #choose(job: Job): Peer | 'wait' | undefined {
    const best = this.#choice.best(job, this.#patience.deadlineMs(0, 0, 0));
    if (best !== undefined) return best;
    // Only somebody new could help now.
    const news = this.#finder.awaited(job.segmentId);
    if (news === undefined) return undefined;
    if (!this.#awaited.has(news)) {
      this.#awaited.add(news);
      void news.then(() => this.#pump());
    }
    return 'wait';
  }

  #ask(job: Job, peer: Peer): void {
    job.tried.push(peer);
    void this.#put(peer, blockQuestion(job.known.content, job.block), job, (bytes, { startedAt, concurrency }) => {
      this.#observer({ type: 'peer_request', source: this.name, result: bytes === undefined ? 'absent' : 'block' });
      if (bytes === undefined) {
        job.known.lacked(peer);
        return;
      }
      this.#observer({ type: 'verification', source: this.name, result: 'match' });
      peer.answered(this.#clock.now() - startedAt, concurrency, this.#maxInFlight);
      job.known.delivered(peer);
      if (!job.isDone) job.settle(bytes);
      // Before patience learns of this block: who is late by what has been usual has failed, however long this one took.
      for (const late of job.attempts) this.#cancel(late);
      this.#patience.note(this.#clock.now() - job.startedAt);
    });
  }

  #askForList(known: ContentPeers, peer: Peer, segment: number): void {
    if (!this.#hasRoom) return;
    known.learn(peer, segment, 'asking');
    const { content } = known;
    const question = blockListQuestion(content.segmentId(segment), content.segmentFacts(segment).blockCount);
    void this.#put(peer, question, undefined, (blocks) => {
      this.#observer({ type: 'peer_request', source: this.name, result: 'list' });
      known.learn(peer, segment, blocks);
    }).then((isAnswered) => {
      if (!isAnswered) known.learn(peer, segment, undefined);
      this.#pump();
    });
  }

  get #hasRoom(): boolean {
    return this.#attempts.size < this.#maxInFlight;
  }

  /** Puts one question to one peer. @returns whether it was answered honestly; never rejects */
  async #put<T>(
    peer: Peer,
    question: Question<T>,
    job: Job | undefined,
    take: (answer: T, attempt: Attempt) => void,
  ): Promise<boolean> {
    peer.inFlight += 1;
    const attempt: Attempt = {
      peer,
      exchange: this.#connections.post(peer.address, question.message, question.maxBytes),
      startedAt: this.#clock.now(),
      concurrency: peer.inFlight,
      job,
      isOverdue: false,
    };
    this.#attempts.add(attempt);
    job?.attempts.add(attempt);
    let answer: T;
    try {
      const message = await attempt.exchange.answer;
      answer = question.read(message);
      this.#connections.release(message);
    } catch (error) {
      this.#end(attempt);
      this.#failed(attempt, error);
      this.#next(job);
      return false;
    }
    this.#end(attempt);
    take(answer, attempt);
    this.#next(job);
    return true;
  }

  /** What comes after an answer, or after none. */
  #next(job: Job | undefined): void {
    if (job === undefined) return;
    // With nobody asked any more the job is next in line.
    if (!job.isDone && job.attempts.size === 0) this.#waiting.unshift(job);
    this.#pump();
  }

  #end(attempt: Attempt): void {
    attempt.peer.inFlight -= 1;
    if (attempt.isOverdue) attempt.peer.overdue -= 1;
    this.#attempts.delete(attempt);
    attempt.job?.attempts.delete(attempt);
  }

  #failed({ peer, startedAt, job }: Attempt, error: unknown): void {
    const failure = error instanceof PeerError ? error.failure : 'failed';
    if (failure === 'timeout' && job !== undefined) job.isLate = true;
    if (failure === 'lied') this.#observer({ type: 'verification', source: this.name, result: 'mismatch' });
    this.#observer({ type: 'peer_request', source: this.name, result: failure });
    // A hosted cache cannot check what it was given (MS-PCHC 2.2.1.5): one bad block says nothing of the others.
    if (failure === 'lied' && this.name === 'hosted_cache') return job?.known.lacked(peer);
    if (!peer.failed(failure, startedAt)) return;
    this.#observer({ type: 'peer_banned' });
    // What else it was asked is asked of others at once.
    for (const attempt of this.#attempts) if (attempt.peer === peer) attempt.exchange.cancel('cancelled');
  }

  /** Somebody stops waiting. */
  #leave(job: Job, reason: unknown, reject: (reason: unknown) => void): void {
    job.isDone = true;
    const place = this.#waiting.indexOf(job);
    if (place >= 0) this.#waiting.splice(place, 1);
    const isLate = isPeerDistError(reason, 'ERR_PEERDIST_TIMEOUT');
    for (const attempt of job.attempts) {
      if (isLate) this.#cancel(attempt);
      else attempt.exchange.cancel('cancelled');
    }
    reject(reason);
  }

  /** Ends a question whose answer is no longer wanted. A peer that let it become overdue has failed, one that had just been asked has not. */
  #cancel({ exchange, startedAt }: Attempt): void {
    const isOverdue = this.#clock.now() - startedAt > this.#patience.overdueMs;
    exchange.cancel(isOverdue ? 'timeout' : 'cancelled');
  }

  #sweepLater(): void {
    if (this.#cancelSweep !== undefined || (this.#attempts.size === 0 && this.#waiting.length === 0)) return;
    this.#cancelSweep = this.#clock.after(SWEEP_MS, () => {
      this.#cancelSweep = undefined;
      this.#sweep();
      this.#pump();
    });
  }

  /**
   * The request timer, and blocks that are overdue: the reader stands still for them, so a second peer is asked. Where there is no room, the
   * first question gives its place to it: a peer that has gone must not hold up those that are there.
   */
  #sweep(): void {
    const now = this.#clock.now();
    for (const attempt of this.#attempts) {
      const { exchange, startedAt, job, peer } = attempt;
      const age = now - startedAt;
      if (age >= this.#requestTimeoutMs) exchange.cancel('timeout');
      else if (job !== undefined && age > this.#patience.overdueMs) {
        if (!attempt.isOverdue) peer.overdue += 1;
        attempt.isOverdue = true;
        const second = job.attempts.size === 1 ? this.#choose(job) : undefined;
        if (second === undefined || second === 'wait') continue;
        if (this.#hasRoom) this.#ask(job, second);
        else exchange.cancel('timeout');
      }
    }
  }
}
