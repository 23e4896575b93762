import { Transform } from 'node:stream';
import type { ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';

/** The response with its bytes counted as they pass: over the WAN, and to the client. Nothing is held. */
export function countPlain(
  response: ProxyResponse,
  observer: Observer,
  kind: 'plain' | 'missing_data' | 'content_information',
): ProxyResponse {
  return response.through(
    new Transform({
      transform(chunk: Uint8Array, _encoding, callback) {
        observer({ type: 'wan', kind, bytes: chunk.byteLength });
        observer({ type: 'delivered', source: 'origin', bytes: chunk.byteLength });
        callback(null, chunk);
      },
    }),
  );
}
