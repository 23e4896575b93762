import { createHash, timingSafeEqual } from 'node:crypto';
import type { OfferAuthentication } from '../../lib/services/index.ts';

/**
 * HTTP Basic (RFC 7617), over the HTTPS that offers come by.
 *
 * @param users passwords by name
 */
export function basicAuthentication(users: ReadonlyMap<string, string>): OfferAuthentication {
  const known = new Map([...users].map(([name, password]) => [name, digest(password)]));
  const nobody = digest('');
  return ({ headers }) => {
    const [scheme, credentials = ''] = headers.authorization?.split(' ') ?? [];
    const [name = '', ...rest] = Buffer.from(credentials, 'base64').toString('utf8').split(':');
    // Always compared, so that the time says nothing about names.
    const isRight = timingSafeEqual(digest(rest.join(':')), known.get(name) ?? nobody) && known.has(name);
    return scheme?.toLowerCase() === 'basic' && isRight ? undefined : 'Basic realm="hosted cache", charset="UTF-8"';
  };
}

function digest(text: string): Uint8Array {
  return createHash('sha256').update(text, 'utf8').digest();
}
