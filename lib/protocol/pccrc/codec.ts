import { PeerDistError } from '../../errors.ts';
import type { ContentInformation } from './content-information.ts';
import { malformed } from './malformed.ts';
import { decodeV1, encodeV1, type LengthStyle } from './v1.ts';
import { decodeV2, encodeV2 } from './v2.ts';

/** Encodes content information in the format of its version. A fresh array. */
export function encodeContentInformation(information: ContentInformation, style?: LengthStyle): Uint8Array {
  return information.version === 1 ? encodeV1(information, style) : encodeV2(information, style);
}

/**
 * Decodes content information of either version; both begin with the minor and then the major version byte.
 * The result holds views on `bytes`, which must not change afterwards. Work and memory are linear in `bytes`.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO`, or `ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED` for another version
 */
export function decodeContentInformation(bytes: Uint8Array): ContentInformation {
  if (bytes.byteLength < 2) throw malformed('content information ends too early', '2.3', { actual: bytes.byteLength });
  if (bytes[0] === 0 && bytes[1] === 1) return decodeV1(bytes);
  if (bytes[0] === 0 && bytes[1] === 2) return decodeV2(bytes);
  throw new PeerDistError('ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED', 'content information of another version', {
    spec: 'MS-PCCRC 2.3',
    expected: ['1.0', '2.0'],
    actual: `${bytes[1]}.${bytes[0]}`,
  });
}
