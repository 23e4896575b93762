import { PeerDistError } from '../errors.ts';

/** Lower-case hexadecimal, two digits a byte. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/**
 * Bytes from hexadecimal of either case.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_PARAMETER` for an odd length or another character
 */
export function fromHex(text: string): Uint8Array {
  // It stops at the first character that is none.
  const bytes = Buffer.from(text, 'hex');
  if (2 * bytes.byteLength !== text.length)
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'not hexadecimal');
  return new Uint8Array(bytes);
}
