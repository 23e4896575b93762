/** Cache-Control directives (RFC 9111 5.2) as far as the plug-ins read them themselves; freshness is `http-cache-semantics`' work. */

export type CacheDirectives = ReadonlyMap<string, string | true>;

/** Directives by lower-case name; the first of a name wins. */
export function parseCacheControl(value: string | undefined): CacheDirectives {
  const directives = new Map<string, string | true>();
  for (const match of (value ?? '').matchAll(/([^\s,;=]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;]*)))?/g)) {
    const name = (match[1] as string).toLowerCase();
    if (!directives.has(name)) directives.set(name, match[2] ?? match[3] ?? true);
  }
  return directives;
}
