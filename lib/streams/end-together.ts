import type { ServerResponse } from 'node:http';

interface Ending {
  readonly response: ServerResponse;
  readonly piece: Uint8Array | undefined;
}

/** Answers whose last piece waits for the end of this turn of the event loop. */
let ending: Ending[] = [];

/**
 * Ends an answer together with all others of this turn of the event loop. Written back to back they find the network path awake and
 * the receivers busy; between the work of one request and the next, each would have to wake them again, at more than the cost of the copy.
 */
export function endTogether(response: ServerResponse, piece: Uint8Array | undefined): void {
  if (ending.push({ response, piece }) === 1) setImmediate(endAll);
}

function endAll(): void {
  const batch = ending;
  ending = [];
  for (const { response, piece } of batch) {
    try {
      if (!response.destroyed) response.end(piece);
    } catch {
      // A response that middleware has wrapped may throw; the others must not wait for ever.
      response.destroy();
    }
  }
}
