import type { Clock } from '../../lib/clock.ts';
import type { ProxyResponse } from '../../lib/kit/index.ts';
import { ContentRecorder, type PeerDist } from '../../lib/peerdist/index.ts';
import { CONTENT_TAG } from './cached-resource.ts';
import { Transfer } from './transfer.ts';

export interface TransfersOptions {
  readonly peerdist: PeerDist;
  /** Bytes that may wait in memory, all transfers together. */
  readonly maxPendingBytes: number;
  readonly lingerMs: number;
  /** Bytes of one content that are kept. */
  readonly maxContentBytes: number;
  readonly clock: Clock;
}

export interface TransferPlan {
  /** Where in the content the first byte belongs. */
  readonly start: number;
  /** Bytes that are to come, where known. */
  readonly length: number | undefined;
  /** Whether peers are to get none of it; asked when it is described. */
  readonly isPrivate: () => boolean;
  readonly onBytes: (bytes: number) => void;
  /** Called when all has come, with where it ends in the content. */
  readonly onWhole?: ((end: number) => void) | undefined;
  /** Called when it is only passed on from now on, and not kept. */
  readonly onGiveUp?: (() => void) | undefined;
}

/**
 * Bytes of a body that may wait before they are described, by version. What is no longer than this is described when its clients have it. Policy.
 */
const DEFERRED_BYTES = { 1: 8 * 1024 * 1024, 2: 512 * 1024 } as const;
/** What a short body costs at least: the block it is copied into. */
const MIN_RESERVED_BYTES = 64 * 1024;

/** Begins transfers, as many as memory allows. */
export class Transfers {
  readonly #options: TransfersOptions;
  #pendingBytes = 0;

  constructor(options: TransfersOptions) {
    this.#options = options;
  }

  /** True while a body of that length may be held whole. */
  hasRoom(length: number): boolean {
    return this.#pendingBytes + length <= this.#options.maxPendingBytes;
  }

  /** A body that is described as it comes and goes to the store; undefined when there is no memory for it, or nobody to describe it. */
  record(response: ProxyResponse, plan: TransferPlan): Transfer | undefined {
    // Version 2 takes more work and next to no memory: it is for the time when there is none.
    const version = ([1, 2] as const).find((each) => this.hasRoom(reserved(each, plan.length)));
    if (version === undefined) return undefined;
    const { isPrivate } = plan;
    let recorder: ContentRecorder;
    try {
      recorder = this.#options.peerdist.client.record(CONTENT_TAG, { version, isPrivate });
    } catch {
      return undefined;
    }
    return this.#begin(response, plan, recorder, DEFERRED_BYTES[version], reserved(version, plan.length));
  }

  /** A body that is held whole until its owner lets go of it; there must be room. */
  hold(response: ProxyResponse, plan: TransferPlan & { readonly length: number }): Transfer {
    return this.#begin(response, plan, undefined, 0, plan.length);
  }

  #begin(
    response: ProxyResponse,
    { start, length, onBytes, onWhole, onGiveUp }: TransferPlan,
    recorder: ContentRecorder | undefined,
    deferredBytes: number,
    reservedBytes: number,
  ): Transfer {
    const { lingerMs, maxContentBytes: maxBytes, clock } = this.#options;
    const common = { start, length, maxBytes, lingerMs, clock, onBytes, onWhole, onGiveUp };
    const transfer = new Transfer(response.stream(), { ...common, recorder, deferredBytes });
    this.#pendingBytes += reservedBytes;
    void transfer.released.then(() => (this.#pendingBytes -= reservedBytes));
    return transfer;
  }
}

/** Most bytes a body takes of the memory: what waits to be described, twice while the origin is being stopped, and the segment under way. */
function reserved(version: 1 | 2, length = Infinity): number {
  const most = 2 * DEFERRED_BYTES[version] + ContentRecorder.pendingBytes(version);
  return Math.max(MIN_RESERVED_BYTES, Math.min(most, 2 * length));
}
