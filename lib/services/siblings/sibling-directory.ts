/** The other branch proxies of a site: who they are, and what they know of a resource. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Clock, systemClock } from '../../clock.ts';
import { ignoreObservations, type Observation, type Observer } from '../../observer.ts';
import type { ServerSecret } from '../../protocol/pccrc/index.ts';
import { formatPeerAddress, type PeerAddress } from '../../protocol/pccrd/index.ts';
import type { Sealer } from '../../stores/index.ts';
import type { LanRequestHandler } from '../lan-http.ts';
import { type Exchange, PeerConnections, PeerError } from '../peers/exchange.ts';
import type { PeerFinder } from '../peers/index.ts';
import {
  decodeAnswer,
  encodeQuestion,
  MAX_ANSWER_BYTES,
  MAX_QUESTION_BYTES,
  SIBLING_PATH,
  type SiblingEntry,
  type SiblingQuestion,
} from './messages.ts';
import { SiblingServer, type SiblingLookup } from './sibling-server.ts';
import { answerPlace, QUESTION_PLACE, siteBeacon, siteSealer } from './site.ts';

export interface SiblingDirectoryOptions {
  /** The secret of the site. */
  readonly secret: ServerSecret;
  /** Siblings known by configuration; those past {@link MAX_SIBLINGS} are not asked. */
  readonly siblings?: readonly PeerAddress[] | undefined;
  /** Finds others on the LAN by {@link siteBeacon}. @default nobody */
  readonly finder?: PeerFinder | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

/** Siblings that are asked. Policy. */
export const MAX_SIBLINGS = 16;
/** Milliseconds a client waits for what siblings know: less than most origins are away. Policy. */
const WAIT_MS = 250;
/** Questions to one sibling at a time; each may bring {@link MAX_ANSWER_BYTES}. Policy. */
const MAX_QUESTIONS = 8;
/** Milliseconds a sibling that failed is left alone; each time in a row twice as long, up to the other. Policy. */
const REST_MS = 30_000;
const MAX_REST_MS = 16 * REST_MS;
/** Milliseconds between two looks for siblings on the LAN, and after one until its answers are taken. Policy. */
const LOOK_MS = 2 * 60_000;
const COLLECT_MS = 1_000;
/** Milliseconds without an answer of a sibling that was found, after which it is forgotten. Policy. */
const FORGET_MS = 4 * LOOK_MS;
const NONCE_BYTES = 16;

type Result = Extract<Observation, { type: 'sibling_question' }>['result'];

interface Sibling {
  readonly address: PeerAddress;
  /** Infinity for those of the configuration. */
  seenAt: number;
  /** Questions under way. */
  questions: number;
  /** In a row. */
  failures: number;
  restsUntil: number;
}

/**
 * Asks siblings, and answers them. What is said is sealed under a key made of the site's secret: who does not have it learns neither what is asked
 * nor what is known. A sibling is believed where the content information of a content is concerned, and in nothing else: its bytes are verified.
 */
export class SiblingDirectory implements LanRequestHandler {
  readonly #sealer: Sealer;
  readonly #server: SiblingServer;
  readonly #connections = new PeerConnections();
  readonly #beacon: string;
  readonly #finder: PeerFinder | undefined;
  readonly #observer: Observer;
  readonly #clock: Clock;
  readonly #siblings = new Map<string, Sibling>();
  readonly #timers = new Set<() => void>();
  #isClosed = false;

  constructor({
    secret,
    siblings = [],
    finder,
    observer = ignoreObservations,
    clock = systemClock,
  }: SiblingDirectoryOptions) {
    this.#sealer = siteSealer(secret);
    this.#beacon = siteBeacon(secret);
    this.#server = new SiblingServer({ sealer: this.#sealer, observer, clock });
    this.#finder = finder;
    this.#observer = observer;
    this.#clock = clock;
    for (const address of siblings) this.#add(address, Infinity);
    this.#look();
  }

  /** Says what is known here; until then nothing is. */
  answerWith(lookup: SiblingLookup): void {
    this.#server.lookup = lookup;
  }

  handle(request: IncomingMessage, response: ServerResponse): boolean {
    return this.#server.handle(request, response);
  }

  /**
   * Asks all siblings at once; the first that knows it is believed. Never rejects.
   *
   * @returns undefined when nobody knows it, there is nobody, or nobody says so in time
   */
  async find(question: SiblingQuestion, signal: AbortSignal): Promise<SiblingEntry | undefined> {
    const siblings = this.#askable();
    if (siblings.length === 0 || signal.aborted || this.#isClosed) return undefined;
    const nonce = randomBytes(NONCE_BYTES);
    const sealed = this.#sealer.seal(QUESTION_PLACE, encodeQuestion(question, nonce));
    if (sealed.byteLength > MAX_QUESTION_BYTES) return undefined;
    return new Promise((resolve) => {
      const exchanges = siblings.map(({ address }) =>
        this.#connections.post(address, sealed, MAX_ANSWER_BYTES, SIBLING_PATH),
      );
      const endAll = (reason: 'timeout' | 'cancelled'): void => exchanges.forEach((each) => each.cancel(reason));
      const cancelTimer = this.#clock.after(WAIT_MS, () => endAll('timeout'));
      const onAbort = (): void => endAll('cancelled');
      signal.addEventListener('abort', onAbort, { once: true });
      const end = (entry: SiblingEntry | undefined): void => {
        cancelTimer();
        signal.removeEventListener('abort', onAbort);
        endAll('cancelled');
        resolve(entry);
      };
      let left = siblings.length;
      siblings.forEach((sibling, index) => {
        void this.#hear(sibling, exchanges[index] as Exchange, nonce).then((entry) => {
          left -= 1;
          if (entry !== undefined || left === 0) end(entry);
        });
      });
    });
  }

  close(): void {
    this.#isClosed = true;
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    this.#connections.close();
  }

  /** What one sibling says. Never rejects. */
  async #hear(sibling: Sibling, exchange: Exchange, nonce: Uint8Array): Promise<SiblingEntry | undefined> {
    sibling.questions += 1;
    let result: Result;
    let entry: SiblingEntry | undefined;
    try {
      const sealed = await exchange.answer;
      const bytes = this.#sealer.open(answerPlace(nonce), sealed);
      this.#connections.release(sealed);
      const answer = bytes === undefined ? 'nonsense' : decodeAnswer(bytes);
      if (answer === 'nonsense') result = 'lied';
      else {
        entry = answer;
        result = entry === undefined ? 'absent' : 'found';
      }
    } catch (error) {
      result = error instanceof PeerError ? error.failure : 'failed';
    }
    sibling.questions -= 1;
    this.#observer({ type: 'sibling_question', result });
    if (result === 'found' || result === 'absent') sibling.failures = 0;
    else if (result !== 'cancelled') {
      sibling.restsUntil = this.#clock.now() + Math.min(MAX_REST_MS, REST_MS * 2 ** sibling.failures);
      sibling.failures += 1;
    }
    return entry;
  }

  #askable(): readonly Sibling[] {
    this.#collect();
    const now = this.#clock.now();
    return [...this.#siblings.values()].filter(
      ({ restsUntil, questions }) => restsUntil <= now && questions < MAX_QUESTIONS,
    );
  }

  /** Looks for siblings on the LAN, now and from time to time. */
  #look(): void {
    if (this.#finder === undefined || this.#isClosed) return;
    this.#finder.seek([this.#beacon], 2);
    this.#after(COLLECT_MS, () => this.#collect());
    this.#after(LOOK_MS, () => this.#look());
  }

  #after(ms: number, act: () => void): void {
    const cancel = this.#clock.after(ms, () => {
      this.#timers.delete(cancel);
      act();
    });
    this.#timers.add(cancel);
  }

  /** Takes those who have said meanwhile that they are of the site; forgets those who have not for long. */
  #collect(): void {
    if (this.#finder === undefined) return;
    const now = this.#clock.now();
    for (const [name, { seenAt }] of this.#siblings) if (now - seenAt > FORGET_MS) this.#siblings.delete(name);
    for (const { peer } of this.#finder.holders(this.#beacon)) this.#add(peer, now);
  }

  #add(address: PeerAddress, seenAt: number): void {
    const name = formatPeerAddress(address);
    const known = this.#siblings.get(name);
    if (known !== undefined) {
      known.seenAt = Math.max(known.seenAt, seenAt);
      return;
    }
    // Whoever heard the beacon can claim to be one of us; who has shown not to be makes room.
    if (this.#siblings.size >= MAX_SIBLINGS) {
      const [impostor] = [...this.#siblings].find(([, each]) => each.failures > 0 && each.seenAt !== Infinity) ?? [];
      if (impostor === undefined) return;
      this.#siblings.delete(impostor);
    }
    this.#siblings.set(name, { address, seenAt, questions: 0, failures: 0, restsUntil: 0 });
  }
}
