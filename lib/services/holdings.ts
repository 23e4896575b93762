import { type CipherName, type Encrypted, encryptBlock } from '../crypto/index.ts';
import { blockKey, type BlockStore, type MaybePromise } from '../stores/index.ts';

/** What is held of a segment. */
export interface SegmentHoldings {
  /** Indexes of the blocks held, ascending, at least one. */
  readonly blocks: readonly number[];
  /** When the first one came, milliseconds since 1970. */
  readonly since: number;
}

/** A block as it goes over the wire. */
export interface EncryptedBlock extends Encrypted {
  readonly cipher: CipherName;
}

/** What a {@link RetrievalServer} gives away, by segment ID in lower-case hexadecimal. */
export interface Holdings {
  segment(segmentId: string): MaybePromise<SegmentHoldings | undefined>;
  /** @param address who asks */
  block(segmentId: string, blockIndex: number, address: string): MaybePromise<EncryptedBlock | undefined>;
}

/**
 * The verified blocks of a store, encrypted for each who asks.
 *
 * @param cipher iPXE takes nothing that is not encrypted. Default: as Windows
 */
export function openHoldings(store: BlockStore, cipher: CipherName = 'aes-128'): Holdings {
  return {
    segment: (segmentId) => store.segment(segmentId),
    async block(segmentId, blockIndex) {
      const secret = (await store.segment(segmentId))?.secret;
      const block = secret && (await store.get(blockKey(segmentId, blockIndex)));
      return block && { ...encryptBlock(cipher, secret, block), cipher };
    },
  };
}
