import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

/** Tells who has a token (RFC 6750 2.1); how long that takes says nothing about it. */
export class Bearer {
  readonly #expected: Uint8Array;

  constructor(token: string) {
    this.#expected = digest(`Bearer ${token}`);
  }

  hasSent({ headers }: IncomingMessage): boolean {
    return timingSafeEqual(digest(headers.authorization ?? ''), this.#expected);
  }
}

function digest(text: string): Uint8Array {
  return createHash('sha256').update(text, 'utf8').digest();
}
