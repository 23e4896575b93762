/** What a publisher names and asks for. */
import { userInfo } from 'node:os';
import type { ByteRange } from '../bytes/index.ts';
import { PeerDistError } from '../errors.ts';
import type { ContentInformationVersion } from '../protocol/pccrc/index.ts';
import type { Abortable } from './operations.ts';

/** Publisher-chosen label. Opaque bytes; a string means its UTF-8 bytes. Unique for each publisher identity. */
export type ContentId = Uint8Array | string;

/** Stand-in for the Windows account that owns publications. Compared for exact equality. */
export type PublisherIdentity = string;

export interface PublishOptions extends Abortable {
  /** Expected total, bytes. Omitted or 0 = not known; otherwise a body of another length is not published (G5). */
  readonly length?: number | undefined;
  /** Bytes past which publishing is given up. Extension. @default Infinity */
  readonly maxBytes?: number | undefined;
  /** True: the publication outlives this instance, as long as the store keeps it (G29). Extension. @default false, as Windows */
  readonly durable?: boolean | undefined;
  /** Version of these options (Win32 dwVersion); no difference is made. @default 2 */
  readonly version?: 1 | 2 | undefined;
  /** Reserved (Win32 dwFlags). */
  readonly flags?: 0 | undefined;
}

export interface OpenContentInformationOptions extends Abortable {
  /** Part of the content to describe. Omitted, or `{ offset: 0, length: 0 }`, = all of it; an overrun is clamped (G7). */
  readonly range?: ByteRange | undefined;
  /** Formats the requester can read, inclusive. Omitted = version 1 only (G8). */
  readonly versions?: { readonly min: ContentInformationVersion; readonly max: ContentInformationVersion } | undefined;
}

/** The OS account that runs the process (G21). */
export function defaultIdentity(): PublisherIdentity {
  try {
    return userInfo().username;
  } catch {
    // Containers run under numbers that no list of accounts knows.
    return `uid:${process.getuid?.() ?? 0}`;
  }
}

/** @throws {@link PeerDistError} `INVALID_PARAMETER` */
export function assertPublishOptions({
  length = 0,
  maxBytes = Infinity,
  version = 2,
  flags = 0,
}: PublishOptions): void {
  const isValid =
    Number.isSafeInteger(length) &&
    length >= 0 &&
    (maxBytes === Infinity || (Number.isSafeInteger(maxBytes) && maxBytes >= 0)) &&
    (version === 1 || version === 2) &&
    (flags as number) === 0;
  if (!isValid)
    throw new PeerDistError('ERR_PEERDIST_INVALID_PARAMETER', 'length, maxBytes, version or flags of a publication');
}
