import { Agent, type Dispatcher, fetch, type RequestInfo, type RequestInit, type Response } from 'undici';
import { READING_OPTIONS, type ReadingOptions } from './cached-client.ts';
import { assertKnownOptions } from './closed-options.ts';
import { peerdist } from './undici.ts';

export interface FetchOptions extends ReadingOptions {
  /** Makes the requests to origins; stays open when the function is closed. @default an Agent of its own */
  readonly dispatcher?: Dispatcher | undefined;
}

/** A `fetch` that has to be closed. */
export interface CachingFetch extends AsyncDisposable {
  (input: RequestInfo, init?: Omit<RequestInit, 'dispatcher'>): Promise<Response>;
  /** Ends it, with the connections it has opened. What was given stays open. */
  close(): Promise<void>;
}

/**
 * The `fetch` of undici, whose GET requests read through a cache of verified blocks.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function createFetch(options: FetchOptions = {}): CachingFetch {
  assertKnownOptions(options, [...READING_OPTIONS, 'dispatcher']);
  const { dispatcher, ...reading } = options;
  const interceptor = peerdist(reading);
  const agent = dispatcher ?? new Agent();
  const composed = agent.compose(interceptor);
  const read = (input: RequestInfo, init?: Omit<RequestInit, 'dispatcher'>): Promise<Response> =>
    fetch(input, { ...init, dispatcher: composed });
  const close = async (): Promise<void> => {
    await interceptor.close();
    if (dispatcher === undefined) await agent.close();
  };
  return Object.assign(read, { close, [Symbol.asyncDispose]: close });
}
