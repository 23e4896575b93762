import { PeerDistError } from '../../errors.ts';

/** The error of both decoders. `spec` names the section of MS-PCCRC that the input broke. */
export function malformed(
  message: string,
  section: string,
  details: { expected?: unknown; actual?: unknown } = {},
): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO', message, {
    spec: `MS-PCCRC ${section}`,
    ...details,
  });
}
