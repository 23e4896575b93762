import type { Clock } from '../clock.ts';
import {
  type MakeClient,
  type RedisArgument,
  type RedisClient,
  type RedisReply,
  RedisReplyError,
  unavailable,
} from './redis-client.ts';
import { addressOf } from './redis-slots.ts';
import type { RedisServer } from './redis-url.ts';

/** Milliseconds for one command. Policy, not protocol. */
export const COMMAND_TIMEOUT_MS = 500;
/** Milliseconds to connect, authenticate and have a first answer. Policy, not protocol. */
export const CONNECT_TIMEOUT_MS = 2_000;
/** Commands that have not been answered in time, one after the other, until the server is taken for away. Policy, not protocol. */
const MAX_TIMEOUTS = 3;
/** Commands that may wait for an answer. Policy, not protocol. */
const MAX_IN_FLIGHT = 512;
/** Milliseconds before connecting again, doubled each time up to the second. Policy, not protocol. */
const MIN_PAUSE_MS = 100;
const MAX_PAUSE_MS = 3_000;
/** Milliseconds a connection must have been of use to forget those that were not. Policy, not protocol. */
const STABLE_MS = 10_000;
/** Milliseconds without an answer until it is asked whether it is still there. Policy, not protocol. */
const HEARTBEAT_MS = 5_000;

export interface RedisNodeOptions extends RedisServer {
  readonly makeClient: MakeClient;
  readonly clock: Clock;
  readonly warn: (line: string) => void;
  /** The node has become ready, or is not any more. */
  readonly onChange: (node: RedisNode) => void;
}

/** One connection. */
interface Link {
  readonly client: RedisClient;
  isReady: boolean;
  readySince: number;
  answeredAt: number;
  inFlight: number;
  /** Commands in a row that were not answered in time. */
  timeouts: number;
  /** Stops the timer that watches it. */
  cancel: () => void;
}

/**
 * One server of Redis: connected whenever it can be, for ever. While it is away, and while it is not answering, commands fail at once: a connection on
 * which several were not answered in time is closed, and only one that answers in time is used again.
 */
export class RedisNode {
  readonly host: string;
  readonly address: string;
  /** Resolves when the first attempt to connect is over. */
  readonly attempted: Promise<void>;
  readonly #options: RedisNodeOptions;
  readonly #clock: Clock;
  #link: Link | undefined;
  #failures = 0;
  #isClosed = false;
  #hasWarned = false;
  #cancelPause: () => void = () => {};
  #onAttempted: () => void = () => {};

  constructor(options: RedisNodeOptions) {
    this.host = options.host;
    this.address = addressOf(options);
    this.#options = options;
    this.#clock = options.clock;
    this.attempted = new Promise((resolve) => {
      this.#onAttempted = resolve;
    });
    this.#connect();
  }

  get isReady(): boolean {
    return this.#link?.isReady === true;
  }

  /**
   * @param isAsking the server has the key although it is another's (Redis cluster specification, `ASK`)
   * @throws {@link RedisReplyError}; {@link PeerDistError} `ERR_PEERDIST_STORE_UNAVAILABLE`, at once while the server is away
   */
  async send(args: readonly RedisArgument[], isAsking = false): Promise<RedisReply> {
    const link = this.#link;
    if (link?.isReady !== true) throw unavailable('Redis is away');
    if (link.inFlight >= MAX_IN_FLIGHT) throw unavailable('Redis has too much to do');
    if (isAsking) this.#ask(link, ['ASKING']).catch(() => {});
    return this.#ask(link, args);
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelPause();
    if (this.#link !== undefined) this.#drop(this.#link);
  }

  #connect(): void {
    const onLost = (error: unknown): void => this.#drop(link, error);
    const cancel = this.#clock.after(CONNECT_TIMEOUT_MS, () => onLost(undefined));
    const client = this.#options.makeClient(this.#options, onLost);
    const link: Link = { client, isReady: false, readySince: 0, answeredAt: 0, inFlight: 0, timeouts: 0, cancel };
    this.#link = link;
    client
      .open()
      .then(() => this.#ask(link, ['PING']))
      .then(
        () => this.#ready(link),
        (error: unknown) => this.#drop(link, error),
      );
  }

  #ready(link: Link): void {
    if (this.#link !== link) return;
    link.cancel();
    link.isReady = true;
    link.readySince = this.#clock.now();
    if (this.#hasWarned) this.#options.warn(`Redis at ${this.address} answers again`);
    this.#hasWarned = false;
    this.#beat(link);
    this.#changed();
  }

  /** Nobody may ask for long, and those who look at the state want to know all the same. */
  #beat(link: Link): void {
    link.cancel = this.#clock.after(HEARTBEAT_MS, () => {
      this.#beat(link);
      if (this.#clock.now() - link.answeredAt < HEARTBEAT_MS) return;
      this.#ask(link, ['PING']).catch((error: unknown) => this.#drop(link, error));
    });
  }

  #drop(link: Link, reason?: unknown): void {
    if (this.#link !== link) return;
    this.#link = undefined;
    link.cancel();
    link.client.destroy();
    const wasStable = link.isReady && this.#clock.now() - link.readySince >= STABLE_MS;
    this.#failures = wasStable ? 0 : this.#failures + 1;
    if (!this.#isClosed) {
      if (!this.#hasWarned) this.#options.warn(`Redis at ${this.address} is away: ${reasonOf(reason)}`);
      this.#hasWarned = true;
      const pauseMs = this.#failures === 0 ? 0 : MIN_PAUSE_MS * 2 ** (this.#failures - 1);
      this.#cancelPause = this.#clock.after(Math.min(pauseMs, MAX_PAUSE_MS), () => this.#connect());
    }
    this.#changed();
  }

  #changed(): void {
    this.#onAttempted();
    this.#options.onChange(this);
  }

  #ask(link: Link, args: readonly RedisArgument[]): Promise<RedisReply> {
    link.inFlight += 1;
    let isLate = false;
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(COMMAND_TIMEOUT_MS, () => {
        isLate = true;
        reject(unavailable('Redis did not answer in time'));
        link.timeouts += 1;
        if (link.timeouts >= MAX_TIMEOUTS) this.#drop(link);
      });
      const settled = (isAnswer: boolean): void => {
        cancel();
        // What was not answered in time is on its way until it is, or the connection ends.
        link.inFlight -= 1;
        if (!isAnswer || isLate) return;
        link.timeouts = 0;
        link.answeredAt = this.#clock.now();
      };
      link.client.send(args).then(
        (reply) => {
          settled(true);
          resolve(reply);
        },
        (error: unknown) => {
          const isAnswer = error instanceof RedisReplyError;
          settled(isAnswer);
          reject(isAnswer ? error : unavailable('the connection to Redis was lost', error));
        },
      );
    });
  }
}

/** In words of our own or the system's. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'it does not answer';
  // Where a host has several addresses, there is no message.
  const text = error.message === '' ? String((error as NodeJS.ErrnoException).code) : error.message;
  return text.replaceAll(/[^ -~]/g, '?').slice(0, 200);
}
