/** Accept-Encoding (RFC 9110 12.5.3), as far as one coding is asked for, added or taken away. */

const PEERDIST = 'peerdist';

/** True when the list names `coding` itself with a weight above zero. `*` is not consent (MS-PCCRTP, fact 2). */
export function acceptsCoding(acceptEncoding: string | undefined, coding: string): boolean {
  return members(acceptEncoding).some((member) => member.coding === coding && member.weight > 0);
}

/** Adds peerdist to a client's own list and removes nothing. No list means that identity is what the client wants. */
export function addPeerDist(acceptEncoding: string | undefined): string {
  if (acceptsCoding(acceptEncoding, PEERDIST)) return acceptEncoding as string;
  const rest = removePeerDist(acceptEncoding);
  return `${rest}, ${PEERDIST}`;
}

/** Takes peerdist out of a list and nothing else. What is left of an empty list is `identity`: a missing field would allow any coding. */
export function removePeerDist(acceptEncoding: string | undefined): string {
  const rest = members(acceptEncoding)
    .filter((member) => member.coding !== PEERDIST)
    .map((member) => member.text);
  return rest.length === 0 ? 'identity' : rest.join(', ');
}

interface Member {
  readonly text: string;
  readonly coding: string;
  readonly weight: number;
}

function members(acceptEncoding: string | undefined): Member[] {
  return (acceptEncoding ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((text) => text !== '')
    .map((text) => {
      const [coding = '', ...parameters] = text.split(';').map((piece) => piece.trim().toLowerCase());
      const q = parameters.find((parameter) => parameter.startsWith('q='));
      return { text, coding, weight: q === undefined ? 1 : Number(q.slice(2)) || 0 };
    });
}
