import { PeerDistError } from '../errors.ts';

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` unless a store may hold that many bytes */
export function assertMaxBytes(maxBytes: number): void {
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) {
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `a store needs a limit of at least one byte: ${maxBytes}`);
  }
}
