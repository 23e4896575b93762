import { PeerDistError } from '../../lib/errors.ts';

/**
 * Refuses options that do not exist: one that is mistyped would otherwise be left out without a word.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`, with the name that was probably meant
 */
export function assertKnownOptions(options: object, known: readonly string[]): void {
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const [nearest = ''] = known.toSorted((a, b) => distance(name, a) - distance(name, b));
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `no option ${name}; did you mean ${nearest}?`);
  }
}

/**
 * Refuses what is no whole number of bytes or milliseconds.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function assertAmounts(amounts: Readonly<Record<string, number | undefined>>): void {
  for (const [name, value] of Object.entries(amounts)) {
    if (value === undefined || value === Infinity || (Number.isSafeInteger(value) && value >= 0)) continue;
    throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${name} must be a whole number from 0 on`, {
      actual: value,
    });
  }
}

/**
 * Refuses options that decide what a given PeerDist has decided already.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function assertNoParts(peerdist: unknown, parts: Readonly<Record<string, unknown>>): void {
  if (peerdist === undefined) return;
  const name = Object.keys(parts).find((each) => parts[each] !== undefined);
  if (name === undefined) return;
  throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `give either peerdist or ${name}: a PeerDist brings its own`);
}

/** Letters to add, drop or replace between two names. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] as number) + (a[i - 1]?.toLowerCase() === b[j - 1]?.toLowerCase() ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row.at(-1) as number;
}
