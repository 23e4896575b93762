import { acceptsCoding, fieldValue, type HeaderFields } from '../../http/index.ts';
import {
  compareVersions,
  parsePeerDist,
  parsePeerDistEx,
  PEERDIST_EX_HEADER,
  PEERDIST_HEADER,
  type PeerDistVersion,
} from './headers.ts';

/** What a request asks of a content server. */
export type Negotiation =
  /** Nothing of peerdist, or nothing we speak: the plain body. */
  | { readonly kind: 'identity' }
  /** The plain body of a range that the peers could not supply. */
  | { readonly kind: 'missing-data' }
  /** Content information, if there is any. `hashRequest`: the client was told to come back for it, and waiting is worth while. */
  | {
      readonly kind: 'content-information';
      readonly contentInformationVersion: 1 | 2;
      /** Version to echo in `X-P2P-PeerDist`. */
      readonly version: PeerDistVersion;
      readonly hashRequest: boolean;
    };

const IDENTITY: Negotiation = { kind: 'identity' };

/**
 * Decides what a request asks for (MS-PCCRTP 3.2.5.1).
 *
 * Consent needs both the explicit token `peerdist` in Accept-Encoding (a `*` is none) and `X-P2P-PeerDist`; a hash request consents by
 * itself, since Windows sends it without Accept-Encoding. Without `X-P2P-PeerDistEx` the answer is version 1.
 * Spec note: 2.2 forbids MissingDataRequest together with the coding; Microsoft's own client sends both, and wants the plain body.
 *
 * @param headers request fields, lower-case names
 */
export function negotiate(headers: HeaderFields): Negotiation {
  const peerDist = parsePeerDist(fieldValue(headers, PEERDIST_HEADER));
  if (peerDist === undefined) return IDENTITY;
  if (peerDist.missingDataRequest) return { kind: 'missing-data' };
  // 1.x with a newer x includes 1.1; another major version is a protocol we do not know.
  if (peerDist.version?.major !== 1) return IDENTITY;
  const ex = parsePeerDistEx(fieldValue(headers, PEERDIST_EX_HEADER));
  const hashRequest = ex?.hashRequest === true;
  if (!hashRequest && !acceptsCoding(fieldValue(headers, 'accept-encoding'), 'peerdist')) return IDENTITY;
  const contentInformationVersion = chooseVersion(ex?.minContentInformation, ex?.maxContentInformation);
  if (contentInformationVersion === undefined) return IDENTITY;
  return {
    kind: 'content-information',
    contentInformationVersion,
    version: { major: 1, minor: Math.min(1, peerDist.version.minor) },
    hashRequest,
  };
}

/** The newest of 1.0 and 2.0 inside the span; 1 when the client names none. */
function chooseVersion(min?: PeerDistVersion, max?: PeerDistVersion): 1 | 2 | undefined {
  const low = min ?? { major: 1, minor: 0 };
  const high = max ?? { major: 1, minor: 0 };
  return ([2, 1] as const).find(
    (major) => compareVersions(low, { major, minor: 0 }) <= 0 && compareVersions({ major, minor: 0 }, high) <= 0,
  );
}
