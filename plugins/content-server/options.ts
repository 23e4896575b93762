import type { Clock } from '../../lib/clock.ts';
import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import type { Claims, RecordStore } from '../../lib/stores/index.ts';

/** How far content is fetched ahead of the answer to a hash request. */
export interface HashUnknownOptions {
  /** Bytes above which a content is not fetched ahead. @default 1 GiB. Policy, not protocol */
  readonly maxBytes?: number | undefined;
  /** Milliseconds a hash request waits; then it gets the plain body, and hashing goes on. @default 30000. Policy, not protocol */
  readonly maxMs?: number | undefined;
}

export interface ContentServerOptions {
  /** Publishes and answers; its server secret and stores decide what content information looks like and how long it lives. */
  readonly peerdist: PeerDist;
  /** Bytes below which a body is not published. @default 65536, as Windows */
  readonly minBytes?: number | undefined;
  /** Bytes above which a body is not published. @default Infinity */
  readonly maxBytes?: number | undefined;
  /** Milliseconds a hash request waits for a hash that is still running. @default 5000. Policy, not protocol */
  readonly hashWaitMs?: number | undefined;
  /** Fetch and hash content that is not known before a hash request for it is answered. @default it is not */
  readonly hashUnknown?: HashUnknownOptions | undefined;
  /**
   * Keeps across restarts, and shares with other proxies of this origin, what is known of answers. What is published then stays published,
   * so the content information store of `peerdist` has to be durable too.
   */
  readonly records?: RecordStore | undefined;
  /** Decides who hashes a content where several proxies could. */
  readonly claims?: Claims | undefined;
  /** Bytes for what is remembered of answers' heads. @default 64 MiB */
  readonly maxIndexBytes?: number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}
