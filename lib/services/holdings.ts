import { type CipherName, type Encrypted, encryptBlock } from '../crypto/index.ts';
import { blockKey, type BlockStore, type HeldSegment, type MaybePromise } from '../stores/index.ts';

/** What is held of a segment. */
export interface SegmentHoldings {
  /** Indexes of the blocks held, ascending, at least one. */
  readonly blocks: readonly number[];
  /** When the first one came, milliseconds since 1970. */
  readonly since: number;
  /** One of them; undefined where it has gone meanwhile. @param address who asks */
  block(blockIndex: number, address: string): MaybePromise<EncryptedBlock | ReadyAnswer | undefined>;
}

/** A block as it goes over the wire. */
export interface EncryptedBlock extends Encrypted {
  readonly cipher: CipherName;
}

/** A block in the whole message that answers for it, as if it were the last one held of its segment. */
export interface ReadyAnswer {
  readonly answer: Uint8Array;
}

/** What a {@link RetrievalServer} gives away, by segment ID in lower-case hexadecimal. */
export interface Holdings {
  segment(segmentId: string): MaybePromise<SegmentHoldings | undefined>;
}

/**
 * The verified blocks of a store, encrypted for each who asks.
 *
 * @param cipher iPXE takes nothing that is not encrypted. Default: as Windows
 */
export function openHoldings(store: BlockStore, cipher: CipherName = 'aes-128'): Holdings {
  const holdings = (segmentId: string, held: HeldSegment | undefined): SegmentHoldings | undefined => {
    const { secret } = held ?? {};
    if (held === undefined || secret === undefined) return undefined;
    const encrypted = (block: Uint8Array | undefined): EncryptedBlock | undefined =>
      block && { ...encryptBlock(cipher, secret, block), cipher };
    return {
      blocks: held.blocks,
      since: held.since,
      block(blockIndex) {
        const block = store.get(blockKey(segmentId, blockIndex));
        return block instanceof Promise ? block.then(encrypted) : encrypted(block);
      },
    };
  };
  return {
    segment(segmentId) {
      const held = store.segment(segmentId);
      return held instanceof Promise ? held.then((value) => holdings(segmentId, value)) : holdings(segmentId, held);
    },
  };
}
