/** What the branch proxies of a site have in common: a secret, and keys made of it. */
import { deriveKey } from '../../crypto/index.ts';
import { toHex } from '../../bytes/index.ts';
import type { ServerSecret } from '../../protocol/pccrc/index.ts';
import { Sealer } from '../../stores/index.ts';

const DIRECTORY_USE = 'peerdist sibling directory, version 1';
const BEACON_USE = 'peerdist sibling beacon, version 1';

/** Seals what siblings say to each other. Of the current secret alone: who has another one is no sibling. */
export function siteSealer(secret: ServerSecret): Sealer {
  return new Sealer([secret.derive(DIRECTORY_USE)]);
}

/**
 * The name by which the proxies of a site find each other: a segment ID that no segment has (lower-case hexadecimal, 32 bytes). Whoever has heard
 * it can say that it is of the site, and can neither read a question nor answer one.
 */
export function siteBeacon(secret: ServerSecret): string {
  const bytes = secret.derive(DIRECTORY_USE).reveal();
  const beacon = toHex(deriveKey(bytes, BEACON_USE));
  bytes.fill(0);
  return beacon;
}

/** Where a question is sealed for, and an answer to the question of that nonce: neither can be taken for anything else. */
export const QUESTION_PLACE = 'peerdist sibling question, version 1';

export function answerPlace(nonce: Uint8Array): string {
  return `peerdist sibling answer, version 1\n${toHex(nonce)}`;
}
