/**
 * Fetches what clients have offered, behind everybody's back.
 *
 * Each address has a line of jobs, one for each segment it has offered; `#pump` goes round the addresses and gives each one question at a
 * time, up to its own limit and that of all. A question that is not answered honestly ends every job of that client: it can offer
 * again, and what came until then stays.
 */
import { type Clock, systemClock } from '../../clock.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import { PeerConnections, PeerError } from '../peers/exchange.ts';
import type { Question } from '../peers/questions.ts';
import { Allowance } from './allowance.ts';

export interface IngestOptions {
  /** Questions under way to one address. @default 8 */
  readonly maxPerClient?: number | undefined;
  /** Questions under way in all. @default 64 */
  readonly maxInFlight?: number | undefined;
  /** Blocks in line of one address; what is offered beyond that is not fetched. @default 16384 */
  readonly maxQueuedPerClient?: number | undefined;
  /** Blocks in line in all. @default 262144 */
  readonly maxQueued?: number | undefined;
  /** Bytes taken of one address in an hour. @default Infinity */
  readonly maxBytesPerHour?: number | undefined;
  /** Milliseconds a client gets for one answer (MS-PCCRR 3.1.2). @default 2000 */
  readonly requestTimeoutMs?: number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

type Limits = { readonly [Name in keyof Omit<IngestOptions, 'observer' | 'clock'>]-?: number };

/** Blocks of one segment, to be fetched from one client. */
export interface IngestJob {
  /** Port the client named; the address is that of its offer. */
  readonly port: number;
  /** Indexes of blocks; those that are not there when their turn comes are left out. */
  readonly blocks: number[];
  /** Name of what is fetched: nothing is fetched twice at a time. */
  readonly name: string;
  /** Asked first, where it pays to know what the client has. */
  readonly list?: Question<readonly boolean[]> | undefined;
  /** False for what has come from elsewhere in the meantime. */
  readonly isWanted: (blockIndex: number) => Promise<boolean>;
  /** How to ask for a block, and what becomes of it. @returns from `read`: keeps it, or undefined where the client has it not */
  readonly question: (blockIndex: number) => Question<(() => Promise<number>) | undefined>;
}

/** Blocks in a row that do not match after which everything of a client is dropped. Policy, not protocol. */
const MAX_MISMATCHES = 3;
/** What a block costs the store beside its bytes; small ones must not be cheaper than they are. */
const ENTRY_BYTES = 1_024;

interface Client {
  readonly address: string;
  readonly jobs: Set<QueuedJob>;
  queued: number;
  inFlight: number;
  /** Blocks in a row that did not match their hash. */
  mismatches: number;
}

interface QueuedJob extends IngestJob {
  state: 'unlisted' | 'listing' | 'ready';
}

export class Ingest {
  readonly #options: Limits;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #connections = new PeerConnections();
  readonly #allowance: Allowance;
  /** By address, the one that was served last at the end. */
  readonly #clients = new Map<string, Client>();
  readonly #inFlight = new Map<string, Promise<void>>();
  #questions = 0;
  #queued = 0;
  #isClosed = false;

  constructor({
    maxPerClient = 8,
    maxInFlight = 64,
    maxQueuedPerClient = 16_384,
    maxQueued = 262_144,
    maxBytesPerHour = Infinity,
    requestTimeoutMs = 2_000,
    observer = ignoreObservations,
    clock = systemClock,
  }: IngestOptions = {}) {
    this.#options = { maxPerClient, maxInFlight, maxQueuedPerClient, maxQueued, maxBytesPerHour, requestTimeoutMs };
    this.#observer = observer;
    this.#clock = clock;
    this.#allowance = new Allowance(maxBytesPerHour, clock);
  }

  /** Puts a job in line. @returns false when a limit forbids it: nothing of it is going to be fetched */
  add(address: string, job: IngestJob): boolean {
    const count = job.blocks.length;
    if (!this.hasRoom(address, count)) return false;
    const client = this.#clients.get(address) ?? { address, jobs: new Set(), queued: 0, inFlight: 0, mismatches: 0 };
    client.jobs.add({ ...job, state: job.list === undefined ? 'ready' : 'unlisted' });
    client.queued += count;
    this.#queued += count;
    this.#clients.set(address, client);
    this.#pump();
    return true;
  }

  /** Whether so many more blocks of one address could get in line. */
  hasRoom(address: string, blocks = 1): boolean {
    const { maxQueued, maxQueuedPerClient } = this.#options;
    const queued = this.#clients.get(address)?.queued ?? 0;
    return (
      !this.#isClosed &&
      this.#queued + blocks <= maxQueued &&
      queued + blocks <= maxQueuedPerClient &&
      !this.#allowance.isUsedUp(address)
    );
  }

  /** Blocks in line and under way. */
  get pending(): number {
    return this.#queued + this.#questions;
  }

  close(): void {
    this.#isClosed = true;
    for (const client of this.#clients.values()) this.#drop(client, () => true);
    this.#connections.close();
  }

  #pump(): void {
    const { maxInFlight, maxPerClient } = this.#options;
    for (const [address, client] of this.#clients) {
      if (this.#questions >= maxInFlight) return;
      if (client.inFlight >= maxPerClient || !this.#serve(client)) continue;
      // Last in line from now on, and looked at again when all others have been.
      this.#clients.delete(address);
      this.#clients.set(address, client);
    }
  }

  /** Puts the client's next question. @returns false when it has none now */
  #serve(client: Client): boolean {
    for (const job of client.jobs) {
      if (job.state === 'listing') continue;
      if (job.state === 'unlisted') {
        job.state = 'listing';
        void this.#run(client, () => this.#askForList(client, job));
        return true;
      }
      const blockIndex = job.blocks.shift();
      if (blockIndex === undefined) {
        client.jobs.delete(job);
        continue;
      }
      client.queued -= 1;
      this.#queued -= 1;
      void this.#run(client, () => this.#askForBlock(client, job, blockIndex));
      return true;
    }
    if (client.jobs.size === 0 && client.inFlight === 0) this.#clients.delete(client.address);
    return false;
  }

  async #run(client: Client, question: () => Promise<void>): Promise<void> {
    client.inFlight += 1;
    this.#questions += 1;
    await question();
    client.inFlight -= 1;
    this.#questions -= 1;
    this.#pump();
  }

  /** What is not listed is not asked for. A list that does not come is a question without an answer, like any other. */
  async #askForList(client: Client, job: QueuedJob): Promise<void> {
    const listed = await this.#ask(client, job, job.list as Question<readonly boolean[]>);
    job.state = 'ready';
    // Dropped meanwhile, or not to be had.
    if (listed === undefined || !client.jobs.has(job)) return;
    const before = job.blocks.length;
    job.blocks.splice(0, before, ...job.blocks.filter((blockIndex) => listed[blockIndex] === true));
    const absent = before - job.blocks.length;
    client.queued -= absent;
    this.#queued -= absent;
  }

  async #askForBlock(client: Client, job: QueuedJob, blockIndex: number): Promise<void> {
    const name = `${job.name}:${blockIndex}`;
    // Asked of somebody else just now: where that comes to nothing, it is this one's turn.
    for (let flight = this.#inFlight.get(name); flight !== undefined; flight = this.#inFlight.get(name)) await flight;
    const flight = this.#fetch(client, job, blockIndex);
    this.#inFlight.set(name, flight);
    await flight;
    this.#inFlight.delete(name);
  }

  /** Never rejects: a store that fails is only a store that forgets. */
  async #fetch(client: Client, job: QueuedJob, blockIndex: number): Promise<void> {
    try {
      if (!(await job.isWanted(blockIndex))) return;
      const keep = await this.#ask(client, job, job.question(blockIndex));
      if (keep === undefined || this.#isClosed) return;
      const bytes = await keep();
      this.#observer({ type: 'ingest', result: 'stored', bytes });
      this.#allowance.use(client.address, bytes + ENTRY_BYTES);
      if (!this.#allowance.isUsedUp(client.address)) return;
      this.#observer({ type: 'ingest', result: 'refused', bytes: 0 });
      this.#drop(client, () => true);
    } catch {
      this.#observer({ type: 'ingest', result: 'failed', bytes: 0 });
    }
  }

  /** Undefined when there was no answer, or no honest one, or nothing to have. Never rejects. */
  async #ask<T>(client: Client, job: QueuedJob, question: Question<T>): Promise<T | undefined> {
    const peer = { address: client.address, port: job.port };
    const exchange = this.#connections.post(peer, question.message, question.maxBytes);
    const cancel = this.#clock.after(this.#options.requestTimeoutMs, () => exchange.cancel('timeout'));
    try {
      const message = await exchange.answer;
      const answer = question.read(message);
      this.#connections.release(message);
      client.mismatches = 0;
      if (answer === undefined) this.#observer({ type: 'ingest', result: 'absent', bytes: 0 });
      return answer;
    } catch (error) {
      const failure = error instanceof PeerError ? error.failure : 'failed';
      if (failure !== 'cancelled') this.#observer({ type: 'ingest', result: failure, bytes: 0 });
      const isMismatch = error instanceof PeerError && error.isMismatch;
      if (isMismatch) client.mismatches += 1;
      // One wrong block can be the fault of who said what the segment is like: no hash covers its length.
      if (!isMismatch || client.mismatches >= MAX_MISMATCHES) this.#drop(client, ({ port }) => port === job.port);
      return undefined;
    } finally {
      cancel();
    }
  }

  #drop(client: Client, which: (job: QueuedJob) => boolean): void {
    for (const job of client.jobs) {
      if (!which(job)) continue;
      client.jobs.delete(job);
      client.queued -= job.blocks.length;
      this.#queued -= job.blocks.length;
      job.blocks.length = 0;
    }
  }
}
