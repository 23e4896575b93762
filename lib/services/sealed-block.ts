/** Blocks as they go over the wire, for those who keep them so and for those who open them. */
import { CIPHER_BLOCK_BYTES, type CipherName, decryptBlock, encryptedLength } from '../crypto/index.ts';
import type { ContentBlock } from '../protocol/pccrc/index.ts';
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

/** Lengths of cipher and vector, vector, data. */
const RECORD_HEAD_BYTES = 2;
const CIPHERS: readonly CipherName[] = ['none', 'aes-128', 'aes-192', 'aes-256'];

/** A sealed block as a store keeps it. In memory of its own. */
export function packSealed({
  cipher,
  iv,
  data,
}: {
  readonly cipher: CipherName;
  readonly iv: Uint8Array;
  readonly data: Uint8Array | readonly Uint8Array[];
}): Uint8Array {
  const pieces = data instanceof Uint8Array ? [data] : data;
  const length = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const record = Buffer.allocUnsafeSlow(RECORD_HEAD_BYTES + iv.byteLength + length);
  record[0] = CIPHERS.indexOf(cipher);
  record[1] = iv.byteLength;
  record.set(iv, RECORD_HEAD_BYTES);
  let at = RECORD_HEAD_BYTES + iv.byteLength;
  for (const piece of pieces) {
    record.set(piece, at);
    at += piece.byteLength;
  }
  return record;
}

/** What {@link packSealed} has packed, as views; undefined for anything else. */
export function unpackSealed(record: Uint8Array): SealedBlock | undefined {
  const cipher = CIPHERS[record[0] ?? -1];
  const ivEnd = RECORD_HEAD_BYTES + (record[1] ?? 0);
  if (cipher === undefined || ivEnd > record.byteLength) return undefined;
  return { cipher, iv: record.subarray(RECORD_HEAD_BYTES, ivEnd), data: record.subarray(ivEnd) };
}
