/** Header fields as the whole package passes them: lower-case names, one string, or several where the field cannot be joined. */
export type HeaderFields = Readonly<Record<string, string | readonly string[] | undefined>>;

/** The value of a field as one string, its lines joined by a comma (RFC 9110 5.3). */
export function fieldValue(fields: HeaderFields, name: string): string | undefined {
  // The name may come from a stranger (Vary): `constructor` must find nothing.
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
  return typeof value === 'object' ? value.join(', ') : value;
}

/** The fields without some of them. */
export function withoutFields(fields: HeaderFields, names: readonly string[]): HeaderFields {
  // Built up, not deleted from: an object that had a property deleted is slow for the rest of its life.
  const rest: Record<string, string | readonly string[] | undefined> = {};
  for (const name in fields) if (!names.includes(name)) rest[name] = fields[name];
  return rest;
}

/** The members of a comma-separated list, lower-cased and trimmed; quoted commas do not occur in the lists this is used for. */
export function listMembers(value: string | undefined): string[] {
  if (value === undefined) return [];
  return value
    .split(',')
    .map((member) => member.trim().toLowerCase())
    .filter((member) => member !== '');
}

/** The list with `members` added where missing; a `*` list stays as it is. Used for Vary. */
export function addToList(value: string | undefined, members: readonly string[]): string {
  const present = listMembers(value);
  if (present.includes('*')) return '*';
  return [...(value ? [value] : []), ...members.filter((member) => !present.includes(member.toLowerCase()))].join(', ');
}

/** The list without `members`, other members as they were written; undefined when nothing is left. */
export function removeFromList(value: string | undefined, members: readonly string[]): string | undefined {
  const kept = (value ?? '')
    .split(',')
    .map((member) => member.trim())
    .filter((member) => member !== '' && !members.includes(member.toLowerCase()));
  return kept.length === 0 ? undefined : kept.join(', ');
}
