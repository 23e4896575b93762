/** What one check found. */
export interface Finding {
  /** What was looked at. */
  readonly what: string;
  /** `skipped`: there is nothing to look at. */
  readonly verdict: 'ok' | 'warning' | 'bad' | 'skipped';
  /** What is so. */
  readonly says: string;
  /** What to do about it; where there is something. */
  readonly advice?: string | undefined;
}

export function ok(what: string, says: string): Finding {
  return { what, verdict: 'ok', says };
}

export function skipped(what: string, says: string): Finding {
  return { what, verdict: 'skipped', says };
}

export function warning(what: string, says: string, advice: string): Finding {
  return { what, verdict: 'warning', says, advice };
}

export function bad(what: string, says: string, advice: string): Finding {
  return { what, verdict: 'bad', says, advice };
}
