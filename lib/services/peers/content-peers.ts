import type { Clock } from '../../clock.ts';
import type { DescribedContent } from '../described-content.ts';
import type { Peer } from './peer.ts';

/** Blocks a peer may lack in a row before it is left alone about this content for a while. Policy, not protocol. */
const MAX_ABSENT = 8;
/** Milliseconds it is then left alone. Policy, not protocol. */
const ABSENT_MS = 5_000;
/** Milliseconds a list of blocks is believed: the peer may be fetching too. Policy, not protocol. */
const LIST_AGE_MS = 2_000;

/** What a peer is known to have of one segment. */
interface KnownBlocks {
  readonly blocks: readonly boolean[] | 'asking';
  readonly since: number;
}

interface Experience {
  absent: number;
  leftAloneUntil: number;
  readonly lists: Map<number, KnownBlocks>;
}

/** What has been learnt about the peers of one content while it is read. Forgotten with its handle. */
export class ContentPeers {
  readonly content: DescribedContent;
  readonly #clock: Clock;
  readonly #experiences = new Map<Peer, Experience>();
  readonly #proven = new Set<Peer>();

  constructor(content: DescribedContent, clock: Clock) {
    this.content = content;
    this.#clock = clock;
  }

  /** Peers that have delivered, and have not lacked much since. */
  get proven(): Iterable<Peer> {
    return this.#proven;
  }

  delivered(peer: Peer): void {
    this.#of(peer).absent = 0;
    this.#proven.add(peer);
  }

  lacked(peer: Peer): void {
    const experience = this.#of(peer);
    experience.absent += 1;
    if (experience.absent < MAX_ABSENT) return;
    experience.absent = 0;
    this.#proven.delete(peer);
    experience.leftAloneUntil = this.#clock.now() + ABSENT_MS;
  }

  isLeftAlone(peer: Peer): boolean {
    const experience = this.#experiences.get(peer);
    return experience !== undefined && experience.leftAloneUntil > this.#clock.now();
  }

  /**
   * `unknown` when it would have to be asked.
   *
   * @param patienceMs after which an answer that is still to come counts as no: the request timer is not for readers to wait for
   */
  holds(peer: Peer, segment: number, blockIndex: number, patienceMs: number): 'yes' | 'no' | 'asking' | 'unknown' {
    const known = this.#experiences.get(peer)?.lists.get(segment);
    if (known === undefined) return 'unknown';
    if (known.blocks === 'asking') return this.#clock.now() - known.since > patienceMs ? 'no' : 'asking';
    if (known.blocks[blockIndex] === true) return 'yes';
    return this.#clock.now() - known.since > LIST_AGE_MS ? 'unknown' : 'no';
  }

  /** A list is on its way; `undefined` takes that back. */
  learn(peer: Peer, segment: number, blocks: KnownBlocks['blocks'] | undefined): void {
    const { lists } = this.#of(peer);
    if (blocks === undefined) lists.delete(segment);
    else lists.set(segment, { blocks, since: this.#clock.now() });
  }

  #of(peer: Peer): Experience {
    let experience = this.#experiences.get(peer);
    if (experience === undefined) {
      experience = { absent: 0, leftAloneUntil: 0, lists: new Map() };
      this.#experiences.set(peer, experience);
    }
    return experience;
  }
}
