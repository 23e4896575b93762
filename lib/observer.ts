/**
 * What every layer reports, and to whom.
 *
 * One flat, closed list of observations: a layer calls its {@link Observer} and never learns who listens. Observations
 * carry counts and closed words only; no URL, address, client or segment id ever appears in one.
 */

/** Where bytes that reached a client came from. */
export type BlockOrigin = 'store' | 'peer' | 'hosted_cache' | 'origin';

export type Observation =
  /** Body bytes handed to a client. */
  | { readonly type: 'delivered'; readonly source: BlockOrigin; readonly bytes: number }
  /** Body bytes received over the WAN. */
  | { readonly type: 'wan'; readonly kind: 'content_information' | 'missing_data' | 'plain'; readonly bytes: number }
  | { readonly type: 'hashed'; readonly bytes: number }
  /** Body bytes that a client was told the hashes of, instead of being sent them. */
  | { readonly type: 'described'; readonly bytes: number }
  /** What became of hashing one body. */
  | { readonly type: 'publication'; readonly result: 'completed' | 'aborted' | 'too_large' | 'failed' }
  /** `added`: bytes given by whoever uses the API, such as a plain body that is cut into blocks. */
  | {
      readonly type: 'verification';
      readonly source: Exclude<BlockOrigin, 'store'> | 'added';
      readonly result: 'match' | 'mismatch';
    }
  /** What one question to a peer or a hosted cache brought. */
  | {
      readonly type: 'peer_request';
      readonly source: 'peer' | 'hosted_cache';
      readonly result: 'block' | 'list' | 'absent' | 'timeout' | 'failed' | 'lied' | 'cancelled';
    }
  /** What one question to a sibling brought; `lied`: something that only somebody else can have sent, or that contradicts itself. */
  | {
      readonly type: 'sibling_question';
      readonly result: 'found' | 'absent' | 'timeout' | 'failed' | 'lied' | 'cancelled';
    }
  /** What one question to us as a sibling got; `refused`: it was not sealed with the secret of this site, or came a second time. */
  | { readonly type: 'sibling_answer'; readonly result: 'found' | 'absent' | 'busy' | 'refused' }
  /** A peer is left alone for a while. */
  | { readonly type: 'peer_banned' }
  /** What one question of a peer got. `bytes` of block data, encrypted. */
  | {
      readonly type: 'upload';
      readonly result: 'block' | 'list' | 'absent' | 'busy' | 'rejected' | 'aborted';
      readonly bytes: number;
    }
  /** What a hosted cache made of one segment that it was offered, or of an offer that named none it could read. */
  | {
      readonly type: 'offer';
      readonly result:
        'accepted' | 'known' | 'unusable' | 'refused' | 'local' | 'malformed' | 'unauthorized' | 'failed';
    }
  /** What one question of a hosted cache to a client brought that had offered; `refused`: the client may bring no more for now. */
  | {
      readonly type: 'ingest';
      readonly result: 'stored' | 'absent' | 'timeout' | 'failed' | 'lied' | 'refused';
      readonly bytes: number;
    }
  /** One offer to a hosted cache; `failed`: no hosted cache took it. */
  | { readonly type: 'offer_sent'; readonly result: 'ok' | 'failed'; readonly segments: number }
  /** Datagrams; `dropped` are hostile, malformed, of another version of WS-Discovery, from elsewhere or too many. */
  | {
      readonly type: 'discovery';
      readonly message: 'probe_sent' | 'probe_received' | 'match_sent' | 'match_received' | 'dropped';
    }
  /** How an exchange met the cache or the store of content information. */
  | { readonly type: 'lookup'; readonly result: 'hit' | 'stale' | 'miss' | 'bypass' }
  | { readonly type: 'content_information'; readonly result: 'sent' | 'received' | 'rejected' }
  | { readonly type: 'eviction'; readonly store: 'block' | 'content_information'; readonly bytes: number }
  | { readonly type: 'stored'; readonly store: 'block' | 'content_information'; readonly bytes: number }
  /** What a store may hold, said once when it is opened; a store that says nothing has no limit of its own. */
  | { readonly type: 'store_limit'; readonly store: 'block' | 'content_information'; readonly bytes: number }
  /**
   * A store did not do its work. `damaged`: an entry did not match its hash, `unsealed`: one could not be decrypted; both are gone. `failed`: it
   * could not be read or written. `overloaded`: something was not kept, because too much was waiting to be written.
   */
  | {
      readonly type: 'store_fault';
      readonly store: 'block' | 'content_information';
      readonly fault: 'damaged' | 'unsealed' | 'failed' | 'overloaded';
    }
  /** A client was served from a fetch that another client had started. */
  | { readonly type: 'collapsed' }
  | { readonly type: 'tunnel'; readonly bytes: number }
  /** How one request found its way where there is an upstream proxy. `direct`: that was away; `refused`: there was no way. */
  | { readonly type: 'upstream'; readonly result: 'used' | 'direct' | 'refused' }
  | { readonly type: 'plugin_failure'; readonly plugin: string; readonly error: unknown }
  /** An exchange ended. `seconds` from request head to last byte; `bytes` handed to the client's connection, heads included. */
  | { readonly type: 'exchange'; readonly status: number; readonly seconds: number; readonly bytes: number };

/** Told of everything, at once and often: it must be quick and must not throw. */
export type Observer = (observation: Observation) => void;

/** The observer of those who want none. */
export const ignoreObservations: Observer = () => {};
