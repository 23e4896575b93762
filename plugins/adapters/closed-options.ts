import { closestMatch } from 'leven';
import { PeerDistError } from '../../lib/errors.ts';

/**
 * Refuses options that do not exist: one that is mistyped would otherwise be left out without a word.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`, with the name that was probably meant
 */
export function assertKnownOptions(options: object, known: readonly string[]): void {
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const nearest = closestMatch(name.toLowerCase(), known) ?? known.join(', ');
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
