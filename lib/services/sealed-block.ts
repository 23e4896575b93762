/** Blocks as they go over the wire, for those who keep them so and for those who open them. */
import { CIPHER_BLOCK_BYTES, type CipherName, decryptBlock, encryptedLength } from '../crypto/index.ts';
import { fromHex } from '../bytes/index.ts';
import type { ContentBlock } from '../protocol/pccrc/index.ts';
import { decodeResponse, encodeBlock } from '../protocol/pccrr/index.ts';
import type { DescribedContent } from './described-content.ts';

/** One block, encrypted under a key that only those know who hold its content information. */
export interface SealedBlock {
  readonly cipher: CipherName;
  readonly data: Uint8Array;
  /** Behind the data on the wire; with the cipher `none` it may be there and means nothing. */
  readonly iv: Uint8Array;
}

/** Whether this can be a block of `length` bytes. Whether it is, nobody can tell without its hash. */
export function isSealedLength({ cipher, data, iv }: SealedBlock, length: number): boolean {
  return (
    data.byteLength === encryptedLength(cipher, length) &&
    (iv.byteLength === CIPHER_BLOCK_BYTES || (cipher === 'none' && iv.byteLength === 0))
  );
}

/** The block decrypted and verified, in its own memory; undefined where it is not the one described. */
export function unseal(content: DescribedContent, block: ContentBlock, sealed: SealedBlock): Uint8Array | undefined {
  const secret = content.information.segmentSecret(block.segment);
  const bytes = decryptBlock(sealed.cipher, secret, sealed, block.length);
  if (bytes !== undefined && content.verify(block, bytes)) return bytes;
  // Microsoft's test peers encrypt with all of Kp, whatever cipher they name.
  if (sealed.cipher !== 'aes-128' && sealed.cipher !== 'aes-192') return undefined;
  const others = decryptBlock('aes-256', secret, sealed, block.length);
  return others !== undefined && content.verify(block, others) ? others : undefined;
}

/**
 * A sealed block as a store keeps it: the answer that gives it away, ready to be sent (MSG_BLK, MS-PCCRR 2.2.5.3).
 *
 * @param data encrypted, in pieces
 * @returns memory of its own
 */
export function packSealed(
  place: { readonly segmentId: string; readonly blockIndex: number },
  { cipher, iv, data }: { readonly cipher: CipherName; readonly iv: Uint8Array; readonly data: readonly Uint8Array[] },
): Uint8Array {
  const segmentId = fromHex(place.segmentId);
  const { blockIndex } = place;
  const pieces = encodeBlock({ type: 'block', segmentId, blockIndex, nextBlockIndex: 0, cipher, iv }, data);
  const record = Buffer.allocUnsafeSlow(pieces.reduce((sum, piece) => sum + piece.byteLength, 0));
  let at = 0;
  for (const piece of pieces) {
    record.set(piece, at);
    at += piece.byteLength;
  }
  return record;
}

/** What lies in a store as a sealed block, as views; undefined for anything else. */
export function unpackSealed(record: Uint8Array): SealedBlock | undefined {
  try {
    const message = decodeResponse(record);
    return message.type === 'block' ? message : undefined;
  } catch {
    return undefined;
  }
}
