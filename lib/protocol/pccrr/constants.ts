/** Numbers of MS-PCCRR. Everything here is protocol. */
import type { CipherName } from '../../crypto/index.ts';
import type { ProtocolVersion } from './versions.ts';

/** Path that messages are posted to (2.1.1). Windows writes it in mixed case; compare without regard to it. */
export const RETRIEVAL_PATH = '/116B50EB-ECE2-41ac-8429-9F9E963361B7/';

/** Port of peers and hosted caches unless a setting or an XAddrs names another. */
export const RETRIEVAL_PORT = 80;

/** Largest request message, bytes (2.2.3). */
export const MAX_REQUEST_BYTES = 96 * 1024;
/** Largest response message, bytes (2.2.3). Spec note: 2.2 and 2.2.2 say 96 KiB, too little for a version 2 segment of 128 KiB. */
export const MAX_RESPONSE_BYTES = 384 * 1024;

/** Bytes of MESSAGE_HEADER (2.2.3). */
export const HEADER_BYTES = 16;
/** Bytes of TRANSPORT_RESPONSE_HEADER (2.2.2). */
export const TRANSPORT_HEADER_BYTES = 4;
/** Bytes of a RequestID (2.2.4.4). */
export const REQUEST_ID_BYTES = 16;
/** Longest segment ID that any content has: SHA-512. */
export const MAX_SEGMENT_ID_BYTES = 64;
/** Blocks a segment can have (2.2.1.1). */
export const MAX_SEGMENT_BLOCKS = 512;

/** MsgType (2.2.3). */
export const MESSAGE_TYPES = {
  'negotiation-request': 0,
  'negotiation-response': 1,
  'get-block-list': 2,
  'get-blocks': 3,
  'block-list': 4,
  block: 5,
  'get-segment-list': 6,
  'segment-list': 7,
} as const;

/** CryptoAlgoId (2.2.3): the place in the list. */
export const CIPHERS: readonly CipherName[] = ['none', 'aes-128', 'aes-192', 'aes-256'];

/** Versions spoken here. */
export const MIN_VERSION: ProtocolVersion = { major: 1, minor: 0 };
export const MAX_VERSION: ProtocolVersion = { major: 2, minor: 0 };
