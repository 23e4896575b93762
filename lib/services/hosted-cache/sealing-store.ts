/** The blocks of a hosted cache for a proxy on the same machine: what it stores is sealed at once, what it reads is opened by the hashes it has. */
import { type BlockStore, parseBlockKey, type SegmentFacts } from '../../stores/index.ts';
import type { BlockSource } from '../block-source.ts';
import { LOCAL_DEADLINE_MS } from '../local-source.ts';
import type { SealedBlocks } from './sealed-blocks.ts';

/** The store of that proxy. It gives nothing back itself: that takes content information, which {@link createSealedSource} has. */
export class SealingStore implements BlockStore {
  readonly #blocks: SealedBlocks;
  readonly #store: BlockStore;

  /** @param store where the sealed blocks lie */
  constructor(blocks: SealedBlocks, store: BlockStore) {
    this.#blocks = blocks;
    this.#store = store;
  }

  get bytes(): number {
    return this.#store.bytes;
  }

  get(): undefined {
    return undefined;
  }

  async has(key: string): Promise<boolean> {
    const { segmentId, blockIndex } = parseBlockKey(key);
    return this.#blocks.hasVerified(segmentId, blockIndex);
  }

  async set(key: string, block: Uint8Array, label: string, segment?: SegmentFacts): Promise<void> {
    const { secret, blockCount = 1 } = segment ?? {};
    if (secret !== undefined) await this.#blocks.keep(parseBlockKey(key), block, label, { secret, blockCount });
  }

  segment(): undefined {
    return undefined;
  }

  label(): void {}

  delete(): void {}

  flush(label: string): ReturnType<BlockStore['flush']> {
    return this.#store.flush(label);
  }
}

/** A source that finds and opens sealed blocks. */
export function createSealedSource(blocks: SealedBlocks): BlockSource {
  return {
    name: 'store',
    trusted: true,
    deadlineMs: LOCAL_DEADLINE_MS,
    retrieve: ({ content, ordinal }) => blocks.open(content, content.block(ordinal)),
  };
}
