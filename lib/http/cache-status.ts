/** Cache-Status (RFC 9211): what caches on the way say of how they answered. */

export interface CacheStatusReport {
  /** The answer came out of the cache, and nobody was asked. */
  readonly isHit: boolean;
  /** Status of the server that was asked; 304 when what the cache had was still right. */
  readonly forwardStatus: number | undefined;
}

/** What the cache nearest to the client says: the last member (RFC 9211 2). Undefined where there is none. Never throws. */
export function nearestCacheStatus(value: string | undefined): CacheStatusReport | undefined {
  let member: string[] = [];
  let parameter = '';
  // A cache names itself, or gives a detail, in a quoted string that may hold commas and semicolons.
  for (const [token] of `${value ?? ''};`.matchAll(/"(?:[^"\\]|\\.)*"?|[^",;]+|[,;]/g)) {
    if (token !== ',' && token !== ';') {
      parameter += token;
      continue;
    }
    member.push(parameter.trim());
    parameter = '';
    if (token === ',') member = [];
  }
  const [name = '', ...parameters] = member;
  if (name === '') return undefined;
  const status = parameters.find((each) => /^fwd-status=\d{3}$/.test(each));
  return {
    isHit: parameters.some((each) => each === 'hit' || each === 'hit=?1'),
    forwardStatus: status === undefined ? undefined : Number(status.slice('fwd-status='.length)),
  };
}
