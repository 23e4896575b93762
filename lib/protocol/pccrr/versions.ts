/** Protocol versions and which of them fit (MS-PCCRR 2.2.3, 3.1.5.1). */

/** Both from 0 to 65535. On the wire the minor version is the first, more significant word. */
export interface ProtocolVersion {
  readonly major: number;
  readonly minor: number;
}

export interface VersionRange {
  readonly min: ProtocolVersion;
  readonly max: ProtocolVersion;
}

/**
 * The highest major version that both ranges hold, the only thing that compatibility depends on; undefined where there is none. Each side
 * then speaks its own highest minor version of it.
 */
export function commonMajorVersion(a: VersionRange, b: VersionRange): number | undefined {
  const highest = Math.min(a.max.major, b.max.major);
  return highest >= Math.max(a.min.major, b.min.major) ? highest : undefined;
}
