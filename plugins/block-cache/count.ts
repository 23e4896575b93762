import type { ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';

/** The response with its bytes counted as they pass: over the WAN, and to the client. */
export function countPlain(
  response: ProxyResponse,
  observer: Observer,
  kind: 'plain' | 'missing_data' | 'content_information',
): ProxyResponse {
  return response.counted((bytes) => {
    observer({ type: 'wan', kind, bytes });
    observer({ type: 'delivered', source: 'origin', bytes });
  });
}
