/** The server role of discovery: answers neighbours that look for segments held here (MS-PCCRD 3.2). */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import type { Observer } from '../../observer.ts';
import { encodeProbeMatches, MAX_BACK_OFF_MS, type Probe, type ProbeMatch } from '../../protocol/pccrd/index.ts';
import type { BlockStore, HeldSegment } from '../../stores/index.ts';
import type { Arrival } from './multicast.ts';
import { RateLimiter } from './rate-limiter.ts';

export interface ResponderOptions {
  readonly store: Pick<BlockStore, 'segment'>;
  /** Answered as if it were a segment of one block. */
  readonly beacon?: string | undefined;
  /** Where the retrieval server listens on an interface; undefined where it does not. */
  readonly portOn: (address: string) => number | undefined;
  readonly reply: (datagram: Uint8Array, arrival: Arrival) => void;
  /** Answers others gave when we looked for the segment ourselves. */
  readonly quorum: (segmentId: string, blockCount: number) => { readonly answers: number; readonly full: number };
  readonly observer: Observer;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
}

/** Answers a second to one address. Policy, not protocol. */
const MAX_ANSWERS_PER_SECOND = 200;
/** Answers waiting for their back-off timer. Policy, not protocol. */
const MAX_PENDING = 1024;
/** Milliseconds in which the same message is a repetition on the way (SOAP over UDP) and no second question. Policy, not protocol. */
const REPETITION_MS = 500;
/** So many answers there must have been before a peer may stay silent: Windows 7's value (3.2.4.1). Policy, not protocol. */
const QUORUM = 10;
/** How likely it answers nevertheless, when not all of them were full. */
const ANSWER_PROBABILITY = 0.33;

export class Responder {
  readonly #options: ResponderOptions;
  readonly #rate: RateLimiter;
  readonly #pending = new Map<string, () => void>();
  readonly #endpoint = `urn:uuid:${randomUUID()}`;
  readonly #instanceId: number;
  #messageNumber = 0;

  constructor(options: ResponderOptions) {
    this.#options = options;
    this.#rate = new RateLimiter(MAX_ANSWERS_PER_SECOND, options.clock);
    this.#instanceId = Math.floor(options.clock.now() / 1_000);
  }

  /** Answers a probe after a random while, if something of it is held here. @returns false when it is dropped as one too many */
  async take(probe: Probe, arrival: Arrival): Promise<boolean> {
    const { portOn, clock, random } = this.#options;
    const port = portOn(arrival.via.address);
    const name = `${arrival.source.address} ${arrival.source.port} ${probe.messageId}`;
    if (port === undefined || this.#pending.has(name)) return true;
    const held = await this.#heldOf(probe);
    if (held.every((segment) => segment === undefined) || this.#pending.has(name)) return true;
    if (this.#pending.size >= MAX_PENDING || !this.#rate.allows(arrival.source.address)) return false;
    const backOffMs = 1 + Math.floor(random() * MAX_BACK_OFF_MS);
    const cancel = clock.after(backOffMs, () => {
      this.#answer(probe, held, port, arrival);
      this.#pending.set(
        name,
        clock.after(REPETITION_MS, () => this.#pending.delete(name)),
      );
    });
    this.#pending.set(name, cancel);
    return true;
  }

  close(): void {
    for (const cancel of this.#pending.values()) cancel();
    this.#pending.clear();
  }

  async #heldOf({ segmentIds }: Probe): Promise<(HeldSegment | undefined)[]> {
    const held: (HeldSegment | undefined)[] = [];
    for (const segmentId of segmentIds) held.push(await this.#find(segmentId));
    return held;
  }

  /** What others are to be told of. A store that fails has nothing. */
  async #find(segmentId: string): Promise<HeldSegment | undefined> {
    const { beacon, clock } = this.#options;
    if (segmentId === beacon) return { blocks: [0], blockCount: 1, since: clock.now() };
    try {
      const segment = await this.#options.store.segment(segmentId);
      return segment === undefined || this.#staysSilent(segmentId, segment) ? undefined : segment;
    } catch {
      return undefined;
    }
  }

  #staysSilent(segmentId: string, { blockCount }: HeldSegment): boolean {
    const { answers, full } = this.#options.quorum(segmentId, blockCount);
    if (answers < QUORUM) return false;
    return full >= QUORUM || this.#options.random() >= ANSWER_PROBABILITY;
  }

  #answer(probe: Probe, found: readonly (HeldSegment | undefined)[], port: number, arrival: Arrival): void {
    // What was held may be gone by now.
    const held = found.map((segment) => (segment?.blocks.length === 0 ? undefined : segment));
    if (held.every((segment) => segment === undefined)) return;
    const { reply, observer } = this.#options;
    this.#messageNumber += 1;
    const sender = {
      messageId: `urn:uuid:${randomUUID()}`,
      endpoint: this.#endpoint,
      instanceId: this.#instanceId,
      messageNumber: this.#messageNumber,
    };
    const addresses = [{ address: arrival.via.address, port }];
    const match: ProbeMatch = { addresses, holdings: this.#holdings(probe, held) };
    reply(encodeProbeMatches(sender, probe.messageId, match), arrival);
    observer({ type: 'discovery', message: 'match_sent' });
  }

  #holdings({ version, segmentIds }: Probe, held: readonly (HeldSegment | undefined)[]): ProbeMatch['holdings'] {
    const now = this.#options.clock.now();
    if (version === 1) {
      const counted = segmentIds.map((id, index) => [id, held[index]?.blocks.length ?? 0] as const);
      return { version, blockCounts: new Map(counted.filter(([, count]) => count > 0)) };
    }
    return {
      version,
      availability: held.map((segment) => {
        if (segment === undefined) return 'none';
        return segment.blocks.length >= segment.blockCount ? 'all' : 'some';
      }),
      ages: held.flatMap((segment, index) => (segment === undefined ? [] : [{ index, ageMs: now - segment.since }])),
    };
  }
}
