import { toHex } from '../../bytes/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { type HashProvider, nativeHashProvider } from '../../crypto/index.ts';
import { isPeerDistError } from '../../errors.ts';
import { ignoreObservations, type Observer } from '../../observer.ts';
import { V1_BLOCK_BYTES, V2_MAX_SEGMENT_BYTES } from '../../protocol/pccrc/index.ts';
import { MAX_SEGMENT_BLOCKS } from '../../protocol/pccrr/index.ts';
import {
  type BatchedOffer,
  OFFER_HASHES,
  type OfferMessage,
  type OfferResponse,
  readSegmentInformation,
  type SegmentDescriptor,
  type SegmentInfo,
} from '../../protocol/pchc/index.ts';
import { DescribedContent } from '../described-content.ts';
import { isOwnAddress } from '../discovery/index.ts';
import { blockListQuestion, blockQuestion, sealedBlockQuestion } from '../peers/questions.ts';
import { packSealed } from '../sealed-block.ts';
import { Ingest, type IngestOptions } from './ingest.ts';
import type { SealedBlocks } from './sealed-blocks.ts';
import { SegmentInfos } from './segment-infos.ts';

export interface HostedCacheOptions extends IngestOptions {
  readonly blocks: SealedBlocks;
  /** Fetch also what this machine itself offers. @default false: whoever is here has the store at hand, and loopback is no branch */
  readonly allowLocalOffers?: boolean | undefined;
  readonly hashProvider?: HashProvider | undefined;
}

/** From so many blocks of a segment on, a list of them is worth a question (MS-PCCRR 3.1.4.3). */
const LIST_BLOCKS = 4;

/**
 * The server role of the hosted cache protocol (MS-PCHC 3.1): takes offers, and fetches from those who made them, each block once. What it
 * holds is in its {@link SealedBlocks}, which a `RetrievalServer` gives away.
 */
export class HostedCache {
  readonly #blocks: SealedBlocks;
  readonly #allowLocalOffers: boolean;
  readonly #provider: HashProvider;
  readonly #observer: Observer;
  readonly #infos = new SegmentInfos();
  readonly #ingest: Ingest;

  constructor({
    blocks,
    allowLocalOffers = false,
    hashProvider = nativeHashProvider,
    observer = ignoreObservations,
    clock = systemClock,
    ...limits
  }: HostedCacheOptions & { readonly clock?: Clock | undefined }) {
    this.#blocks = blocks;
    this.#allowLocalOffers = allowLocalOffers;
    this.#provider = hashProvider;
    this.#observer = observer;
    this.#ingest = new Ingest({ ...limits, observer, clock });
  }

  /**
   * The answer to an offer. What is wanted of it is fetched later, from that address and nowhere else. Never rejects.
   *
   * @param from address the offer came from
   */
  async offer(offer: OfferMessage, from: string): Promise<OfferResponse> {
    // Looked at once: asking the system for its addresses takes as long as fetching a block.
    if (!this.#allowLocalOffers && isOwnAddress(from)) {
      for (let left = offer.type === 'batched-offer' ? offer.segments.length : 1; left > 0; left -= 1)
        this.#observe('local');
      return 'ok';
    }
    try {
      switch (offer.type) {
        case 'initial-offer':
          return await this.#initialOffer(toHex(offer.segmentId), offer.port, from);
        case 'segment-info':
          await this.#segmentInfo(offer, from);
          return 'ok';
        default:
          await this.#batch(offer, from);
          return 'ok';
      }
    } catch {
      // A store that fails is only a store that forgets.
      this.#observer({ type: 'offer', result: 'failed' });
      return 'ok';
    }
  }

  /** Blocks that are still to be fetched. */
  get pending(): number {
    return this.#ingest.pending;
  }

  close(): void {
    this.#ingest.close();
  }

  async #initialOffer(segmentId: string, port: number, from: string): Promise<OfferResponse> {
    const content = this.#infos.get(segmentId);
    // Hashes that have been forgotten are asked for again; blocks that have been verified stay so.
    if (content === undefined) return 'interested';
    await this.#fetchVerified(content, port, from, '');
    return 'ok';
  }

  async #segmentInfo({ segmentInformation, contentTag, port }: SegmentInfo, from: string): Promise<void> {
    const information = readSegmentInformation(segmentInformation);
    try {
      // The list must hash to HoD, and HoD is what the segment ID is made of: what is fetched by it is proven.
      information?.checkBlockLists(this.#provider);
    } catch (error) {
      if (!isPeerDistError(error)) throw error;
      return this.#observe('unusable');
    }
    if (information === undefined) return this.#observe('unusable');
    const content = new DescribedContent(information, this.#provider);
    const segmentId = content.segmentId(0);
    // HoD does not cover lengths: hashes that have stood the test stay, whoever sends the same ones with another length.
    const isProven = await this.#blocks.hasVerified(segmentId, content.segmentFacts(0).blockCount - 1);
    if (this.#infos.get(segmentId) === undefined || !isProven) this.#infos.set(segmentId, content);
    return this.#fetchVerified(content, port, from, toHex(contentTag));
  }

  async #fetchVerified(content: DescribedContent, port: number, from: string, label: string): Promise<void> {
    const segmentId = content.segmentId(0);
    const { blockCount } = content.segmentFacts(0);
    if (!this.#ingest.hasRoom(from)) return this.#observe('refused');
    const blocks = [...(await this.#blocks.check(content, 0))];
    if (blocks.length === 0) return this.#observe('known');
    return this.#enqueue(from, {
      port,
      blocks,
      name: segmentId,
      list: blockCount < LIST_BLOCKS ? undefined : blockListQuestion(segmentId, blockCount),
      isWanted: async (blockIndex) => !(await this.#blocks.hasVerified(segmentId, blockIndex)),
      question: (blockIndex) => {
        const block = content.block(blockIndex);
        const question = blockQuestion(content, block);
        return {
          ...question,
          read: (answer) => {
            const bytes = question.read(answer);
            if (bytes === undefined) return undefined;
            return async () => {
              await this.#blocks.keep({ segmentId, blockIndex }, bytes, label, content.segmentFacts(0));
              return bytes.byteLength;
            };
          },
        };
      },
    });
  }

  async #batch({ segments, port }: BatchedOffer, from: string): Promise<void> {
    const seen = new Set<string>();
    for (const segment of segments) {
      const segmentId = toHex(segment.segmentId);
      if (seen.has(segmentId)) continue;
      seen.add(segmentId);
      await this.#segment(segmentId, segment, port, from);
    }
  }

  /** One segment of a batched offer: nobody here will be able to tell whether what comes is right. */
  async #segment(segmentId: string, descriptor: SegmentDescriptor, port: number, from: string): Promise<void> {
    // Not the descriptor itself, which pins the whole message, goes into the line.
    const { blockSize, segmentSize } = descriptor;
    const label = toHex(descriptor.contentTag);
    const blockCount = blocksOf(descriptor);
    if (blockCount === undefined) return this.#observe('unusable');
    if (!this.#ingest.hasRoom(from)) return this.#observe('refused');
    const known = this.#infos.get(segmentId);
    if (known !== undefined) return this.#fetchVerified(known, port, from, label);
    const wanted = await this.#blocks.wanted(segmentId, blockCount, from);
    if (wanted === undefined) return this.#observe('known');
    // A second copy gets its place when the first block of it is here.
    let candidate = wanted.candidate === undefined ? undefined : Promise.resolve(wanted.candidate);
    return this.#enqueue(from, {
      port,
      blocks: [...wanted.blocks],
      name: wanted.candidate === undefined ? `${segmentId}/${from}` : segmentId,
      list: wanted.blocks.length < LIST_BLOCKS ? undefined : blockListQuestion(segmentId, blockCount),
      isWanted: async (blockIndex) =>
        candidate === undefined
          ? this.#blocks.doubts(segmentId, from)
          : !(await this.#blocks.has(segmentId, await candidate, blockIndex)),
      question: (blockIndex) => {
        const length = blockCount === 1 ? segmentSize : Math.min(blockSize, segmentSize - blockIndex * blockSize);
        const question = sealedBlockQuestion(segmentId, blockIndex, length);
        return {
          ...question,
          read: (answer) => {
            const sealed = question.read(answer);
            if (sealed === undefined) return undefined;
            // Copied at once: the memory of the answer is used again.
            const record = packSealed({ segmentId, blockIndex }, { ...sealed, data: [sealed.data] });
            return async () => {
              const place = await (candidate ??= this.#blocks.replace(segmentId, from));
              await this.#blocks.put(segmentId, blockIndex, record, { candidate: place, blockCount, from, label });
              return length;
            };
          },
        };
      },
    });
  }

  #enqueue(from: string, job: Parameters<Ingest['add']>[1]): void {
    this.#observe(this.#ingest.add(from, job) ? 'accepted' : 'refused');
  }

  #observe(result: 'accepted' | 'known' | 'unusable' | 'refused' | 'local'): void {
    this.#observer({ type: 'offer', result });
  }
}

/** Blocks of a segment as it is offered; undefined where no segment is like that. */
function blocksOf({ blockSize, segmentSize, hashAlgorithm }: SegmentDescriptor): number | undefined {
  if (blockSize === 0 || segmentSize === 0) return undefined;
  switch (hashAlgorithm) {
    case OFFER_HASHES['truncated-sha512']:
      // A version 2 segment is one block, whatever is said of its size.
      return segmentSize <= V2_MAX_SEGMENT_BYTES ? 1 : undefined;
    case OFFER_HASHES.sha256: {
      const blockCount = Math.ceil(segmentSize / blockSize);
      const isUsual = blockSize === V1_BLOCK_BYTES || (blockCount === 1 && segmentSize <= V1_BLOCK_BYTES);
      return isUsual && blockCount <= MAX_SEGMENT_BLOCKS ? blockCount : undefined;
    }
    default:
      return undefined;
  }
}
