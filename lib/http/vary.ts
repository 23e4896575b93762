/** Secondary keys (RFC 9111 4.1): which request fields select an answer, and what they said. */
import { fieldValue, type HeaderFields, listMembers } from './fields.ts';

/** Fields that negotiate the peerdist coding itself. Our own answers vary by them; the content below them does not. */
const CODING_FIELDS = new Set(['x-p2p-peerdist', 'x-p2p-peerdistex']);

/**
 * The request fields that select among the answers of a resource, sorted; undefined for `Vary: *`, which never matches.
 */
export function varyNames(response: HeaderFields): readonly string[] | undefined {
  const names = listMembers(fieldValue(response, 'vary'));
  if (names.includes('*')) return undefined;
  return [...new Set(names)].filter((name) => !CODING_FIELDS.has(name)).toSorted();
}

/** The selecting fields' values in one string: equal for two requests exactly when they select the same answer. */
export function selectingValues(names: readonly string[], request: HeaderFields): string {
  let selecting = '';
  for (const name of names) {
    const value = normalized(name, fieldValue(request, name));
    // The length first, so that no value can look like the next name.
    selecting += value === undefined ? `${name}\n` : `${name}:${value.length}:${value}\n`;
  }
  return selecting;
}

/** Preferences, whose letters' case and, where their weights say all, whose order mean nothing. */
const PREFERENCES = new Set(['accept-language', 'accept-encoding', 'accept-charset']);

/** One way to write what means the same (RFC 9111 4.1): without the white space that lists allow. */
function normalized(name: string, value: string | undefined): string | undefined {
  if (value === undefined || value.includes('"')) return value?.trim();
  const members = value.split(',').map((member) => member.trim().replace(/\s*;\s*/g, ';'));
  if (!PREFERENCES.has(name)) return members.join(',');
  return members
    .map((member) => member.toLowerCase())
    .toSorted()
    .join(',');
}
