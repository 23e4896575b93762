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
  if (text.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(text)) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'not hexadecimal');
  }
  return new Uint8Array(Buffer.from(text, 'hex'));
}
