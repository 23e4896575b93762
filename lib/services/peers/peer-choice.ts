import type { Clock } from '../../clock.ts';
import type { PeerAddress } from '../../protocol/pccrd/index.ts';
import type { ContentBlock } from '../../protocol/pccrc/index.ts';
import type { DescribedContent } from '../described-content.ts';
import { ContentPeers } from './content-peers.ts';
import type { Peer } from './peer.ts';
import type { PeerFinder } from './peer-finder.ts';
import { PeerRegistry } from './peer-registry.ts';

/** A block that is wanted of somebody. */
export interface WantedBlock {
  readonly known: ContentPeers;
  readonly block: ContentBlock;
  readonly segmentId: string;
  /** Blocks its segment has. */
  readonly segmentBlocks: number;
  /** Blocks of the segment the reader is going to want, this one included. */
  readonly wantedBlocks: number;
  /** Who has been asked. */
  readonly tried: readonly Peer[];
}

export interface PeerChoiceOptions {
  readonly peers: readonly PeerAddress[];
  readonly finder: PeerFinder;
  readonly clock: Clock;
  /** Called where it pays to know which blocks of a segment a peer has before it is asked for one. */
  readonly askForList: (known: ContentPeers, peer: Peer, segment: number) => void;
}

/** Peers one block is asked of before the next source is. Policy, not protocol. */
const MAX_TRIES = 4;
/** From so many blocks of a segment on, a list of them is worth a question (MS-PCCRR 3.1.4.3, as Windows). */
const LIST_BLOCKS = 4;

/** Whom to ask for a block: those that say they have it, those that had others of the same content, those that are always asked. */
export class PeerChoice {
  readonly #finder: PeerFinder;
  readonly #registry: PeerRegistry;
  readonly #clock: Clock;
  readonly #askForList: PeerChoiceOptions['askForList'];
  readonly #contents = new WeakMap<DescribedContent, ContentPeers>();
  /** The stranger that was asked last. */
  #trial: Peer | undefined;

  constructor({ peers, finder, clock, askForList }: PeerChoiceOptions) {
    this.#finder = finder;
    this.#registry = new PeerRegistry(peers, clock);
    this.#clock = clock;
    this.#askForList = askForList;
  }

  /** Everybody who is known. */
  get peers(): readonly Peer[] {
    return this.#registry.all;
  }

  /** What has been learnt of a content's peers. */
  knownOf(content: DescribedContent): ContentPeers {
    let known = this.#contents.get(content);
    if (known === undefined) {
      known = new ContentPeers(content, this.#clock);
      this.#contents.set(content, known);
    }
    return known;
  }

  /**
   * The peer likely to answer soonest; `wait` when one may become free or known; undefined when nobody is left but who is still to be found.
   * Strangers are tried, but one at a time where others have proved themselves, and once for each block: whoever names many of them gains nothing.
   * Where those others have their hands full more strangers are tried, but not so many that no try is left for who has proved itself.
   *
   * @param listMs how long a list of blocks is waited for
   */
  best(wanted: WantedBlock, listMs: number): Peer | 'wait' | undefined {
    const { known, block, segmentId, segmentBlocks, wantedBlocks, tried } = wanted;
    if (tried.length >= MAX_TRIES) return undefined;
    const paysList = known.content.information.version === 1 && wantedBlocks >= LIST_BLOCKS;
    let best: Peer | undefined;
    let stranger: Peer | undefined;
    let doubtful: Peer | undefined;
    let mayCome = false;
    let isProvenBusy = false;
    const consider = (peer: Peer, needsList: boolean): void => {
      if (peer.isBanned || tried.includes(peer) || known.isLeftAlone(peer)) return;
      const holds = needsList ? known.holds(peer, block.segment, block.blockIndex, listMs) : 'yes';
      if (holds === 'no') return;
      if (holds === 'unknown' && peer.isFree) this.#askForList(known, peer, block.segment);
      if (holds !== 'yes' || !peer.isFree) {
        mayCome ||= !peer.isDoubtful;
        isProvenBusy ||= holds === 'yes' && peer.overdue === 0 && !peer.isStranger && !peer.isDoubtful;
      } else if (peer.isDoubtful) doubtful = quicker(peer, doubtful);
      else if (peer.isStranger) stranger = quicker(peer, stranger);
      else best = quicker(peer, best);
    };
    const named = new Set<Peer>();
    for (const { peer, blocks } of this.#finder.holders(segmentId)) {
      const holder = this.#registry.of(peer);
      named.add(holder);
      // Who has all of the segment need not say so again.
      consider(holder, paysList && blocks !== 'all' && blocks < segmentBlocks);
    }
    for (const peer of this.#registry.fixed) if (!named.has(peer)) consider(peer, paysList);
    // Who had one segment of a content most likely has the next.
    for (const peer of known.proven) if (!named.has(peer)) consider(peer, paysList);
    if (best === undefined && isProvenBusy && tried.length === MAX_TRIES - 1) return 'wait';
    const isTrialDue =
      !(this.#trial?.isStranger && this.#trial.inFlight > 0) && tried.every((peer) => !peer.isStranger);
    const choice = isTrialDue ? (stranger ?? best) : (best ?? stranger);
    if (stranger !== undefined && choice === stranger) this.#trial = stranger;
    return choice ?? (mayCome ? 'wait' : doubtful);
  }
}

function quicker(peer: Peer, other: Peer | undefined): Peer {
  return other === undefined || peer.expectedMs < other.expectedMs ? peer : other;
}
