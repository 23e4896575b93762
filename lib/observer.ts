/**
 * What every layer reports, and to whom.
 *
 * One flat, closed list of observations: a layer calls its {@link Observer} and never learns who listens. Observations
 * carry counts and closed words only; no URL, address, client or segment id ever appears in one.
 */

/** Where bytes that reached a client came from. Peers and hosted caches join with their issues. */
export type BlockOrigin = 'store' | 'origin';

export type Observation =
  /** Body bytes handed to a client. */
  | { readonly type: 'delivered'; readonly source: BlockOrigin; readonly bytes: number }
  /** Body bytes received over the WAN. */
  | { readonly type: 'wan'; readonly kind: 'content_information' | 'missing_data' | 'plain'; readonly bytes: number }
  | { readonly type: 'hashed'; readonly bytes: number }
  /** What became of hashing one body. */
  | { readonly type: 'publication'; readonly result: 'completed' | 'aborted' | 'too_large' | 'failed' }
  | { readonly type: 'verification'; readonly result: 'match' | 'mismatch' }
  /** How an exchange met the cache or the store of content information. */
  | { readonly type: 'lookup'; readonly result: 'hit' | 'stale' | 'miss' | 'bypass' }
  | { readonly type: 'content_information'; readonly result: 'sent' | 'received' | 'rejected' }
  | { readonly type: 'eviction'; readonly store: 'block' | 'content_information'; readonly bytes: number }
  | { readonly type: 'stored'; readonly store: 'block' | 'content_information'; readonly bytes: number }
  /** A client was served from a fetch that another client had started. */
  | { readonly type: 'collapsed' }
  | { readonly type: 'tunnel'; readonly bytes: number }
  | { readonly type: 'plugin_failure'; readonly plugin: string; readonly error: unknown }
  /** An exchange ended. `seconds` from request head to last byte. */
  | { readonly type: 'exchange'; readonly status: number; readonly seconds: number };

/** Told of everything, at once and often: it must be quick and must not throw. */
export type Observer = (observation: Observation) => void;

/** The observer of those who want none. */
export const ignoreObservations: Observer = () => {};
