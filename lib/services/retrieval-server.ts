/** Serves blocks to peers (MS-PCCRR 3.2). */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { toHex } from '../bytes/index.ts';
import { type Clock, systemClock } from '../clock.ts';
import { isPeerDistError } from '../errors.ts';
import { ignoreObservations, type Observer } from '../observer.ts';
import {
  decodeRequest,
  encodeBlock,
  encodeResponse,
  encodeSegmentAges,
  type GetBlockList,
  type GetBlocks,
  type GetSegmentList,
  MAX_REQUEST_BYTES,
  MAX_VERSION,
  MIN_VERSION,
  namedBlocks,
  rangesOf,
  RETRIEVAL_PATH,
  withNextBlock,
} from '../protocol/pccrr/index.ts';
import { type MaybePromise, placeOf } from '../stores/index.ts';
import { endTogether } from '../streams/index.ts';
import { unmappedAddress } from './address.ts';
import { readBody } from './http-body.ts';
import type { Holdings, SegmentHoldings } from './holdings.ts';

export interface RetrievalServerOptions {
  /** What there is to give: `openHoldings` of a block store, or the `SealedBlocks` of a hosted cache. */
  readonly holdings: Holdings;
  /** Answers under way at a time; further ones are empty (3.2.1). @default 64 */
  readonly maxUploads?: number | undefined;
  /** Milliseconds from the head of a request to the last byte of its answer (3.2.2). @default 15000 */
  readonly uploadTimeoutMs?: number | undefined;
  readonly observer?: Observer | undefined;
  readonly clock?: Clock | undefined;
}

interface Answer {
  readonly pieces: readonly Uint8Array[];
  readonly result: 'block' | 'list' | 'absent' | 'busy';
  /** Of block data, encrypted. */
  readonly bytes: number;
  /** Nothing had to be encrypted for it. */
  readonly isReady?: boolean;
}

const NO_BYTES = new Uint8Array(0);

/**
 * The server role of the retrieval protocol, to be mounted on any HTTP server: call {@link handle} for each request. Who may connect at all
 * and how many is the business of the HTTP server.
 */
export class RetrievalServer {
  readonly #holdings: Holdings;
  readonly #maxUploads: number;
  readonly #uploadTimeoutMs: number;
  readonly #observer: Observer;
  readonly #clock: Clock;
  #uploads = 0;

  constructor({
    holdings,
    maxUploads = 64,
    uploadTimeoutMs = 15_000,
    observer = ignoreObservations,
    clock = systemClock,
  }: RetrievalServerOptions) {
    this.#holdings = holdings;
    this.#maxUploads = maxUploads;
    this.#uploadTimeoutMs = uploadTimeoutMs;
    this.#observer = observer;
    this.#clock = clock;
  }

  /** Answers a request to the well-known path. @returns false, and leaves the request alone, when it is to another */
  handle(request: IncomingMessage, response: ServerResponse): boolean {
    if (request.url?.toUpperCase() !== RETRIEVAL_PATH.toUpperCase()) return false;
    if (response.socket !== null) this.#serve(request, response);
    else {
      // Behind another answer. Of one that has left, Node hears only after it has read what the peer asks next: so it looks again.
      setImmediate(() => {
        if (response.socket !== null) this.#serve(request, response);
        else this.#refusePipelined(request);
      });
    }
    return true;
  }

  /** Nobody pipelines POST (RFC 9112 9.3.2), and a response behind another does not hear of the connection's end. */
  #refusePipelined({ socket }: IncomingMessage): void {
    this.#observer({ type: 'upload', result: 'rejected', bytes: 0 });
    socket.destroy();
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const address = unmappedAddress(socket.remoteAddress ?? '');
    const cancel = this.#clock.after(this.#uploadTimeoutMs, () => response.destroy());
    let isActive = false;
    let isSent = false;
    // Node calls an answer finished also when its socket is destroyed.
    response.once('finish', () => {
      isSent = !socket.destroyed;
    });
    response.once('close', () => {
      cancel();
      if (isActive) this.#uploads -= 1;
      if (!isSent) this.#observer({ type: 'upload', result: 'aborted', bytes: 0 });
    });
    const announced = Number(request.headers['content-length'] ?? 0);
    if (request.method !== 'POST') this.#refuse(request, response, 405);
    else if (announced > MAX_REQUEST_BYTES) this.#refuse(request, response, 413);
    else {
      void this.#receive(request, response, (message) => {
        isActive = this.#uploads < this.#maxUploads;
        if (isActive) this.#uploads += 1;
        return this.answer(message, address, !isActive);
      });
    }
  }

  /**
   * The answer to one message, as it goes over the wire.
   *
   * @param address of the peer that asks
   * @param isBusy answers as if nothing were held
   * @throws {@link PeerDistError} `ERR_PEERDIST_MALFORMED_MESSAGE`: deserves no answer
   */
  async answer(message: Uint8Array, address = '', isBusy = false): Promise<Answer> {
    const request = decodeRequest(message);
    switch (request.type) {
      case 'get-block-list':
        return this.#blockList(request, isBusy);
      case 'get-blocks':
        return this.#block(request, address, isBusy);
      case 'get-segment-list':
        return this.#segmentList(request, isBusy);
      default:
        // A negotiation, asked for or due.
        return this.#list(
          encodeResponse({ type: 'negotiation-response', cipher: 'none', min: MIN_VERSION, max: MAX_VERSION }),
        );
    }
  }

  async #receive(
    request: IncomingMessage,
    response: ServerResponse,
    answer: (message: Uint8Array) => Promise<Answer>,
  ): Promise<void> {
    try {
      const message = await readBody(request, MAX_REQUEST_BYTES);
      if (message === undefined) return this.#refuse(request, response, 413);
      const { pieces, result, bytes, isReady } = await answer(message);
      if (response.destroyed) return;
      response.writeHead(200, {
        'content-length': pieces.reduce((sum, piece) => sum + piece.byteLength, 0),
        'content-type': 'application/octet-stream',
      });
      // One block is all that may wait for a slow reader; the upload timer ends its patience.
      response.cork();
      const last = pieces.length - 1;
      for (let at = 0; at < last; at += 1) response.write(pieces[at]);
      // Encrypted ones leave one by one: the peer decrypts the first while we encrypt the next.
      if (isReady === true) endTogether(response, pieces[last]);
      else response.end(pieces[last]);
      this.#observer({ type: 'upload', result, bytes });
    } catch (error) {
      if (isPeerDistError(error, 'ERR_PEERDIST_MALFORMED_MESSAGE')) this.#refuse(request, response, 400);
      else response.destroy();
    }
  }

  #refuse(request: IncomingMessage, response: ServerResponse, status: number): void {
    this.#observer({ type: 'upload', result: 'rejected', bytes: 0 });
    request.resume();
    response.writeHead(status, { 'content-length': 0, connection: 'close' }).end();
  }

  async #blockList({ segmentId, ranges }: GetBlockList, isBusy: boolean): Promise<Answer> {
    const segment = isBusy ? undefined : await this.#segment(toHex(segmentId));
    const named = namedBlocks(ranges);
    const listed = (segment?.blocks ?? []).filter((index) => named[index] === true);
    const last = listed.at(-1);
    const message = encodeResponse({
      type: 'block-list',
      cipher: 'aes-128',
      segmentId,
      ranges: rangesOf(listed),
      nextBlockIndex: last === undefined ? 0 : nextAfter(segment, last),
    });
    return this.#list(message, isBusy);
  }

  async #block({ segmentId, ranges }: GetBlocks, address: string, isBusy: boolean): Promise<Answer> {
    const id = toHex(segmentId);
    // The smallest one, whatever the order (3.2.5.3).
    const blockIndex = ranges.reduce(
      (least, { index, count }) => (count > 0 ? Math.min(least, index) : least),
      Infinity,
    );
    // Not awaited where they are at hand: this is done thousands of times a second.
    const found = isBusy ? undefined : this.#segment(id);
    const segment = found instanceof Promise ? await found : found;
    const isHeld = segment !== undefined && segment.blocks[placeOf(segment.blocks, blockIndex)] === blockIndex;
    const given = isHeld ? orNothing(() => segment.block(blockIndex, address)) : undefined;
    const block = given instanceof Promise ? await given : given;
    const place = {
      type: 'block',
      segmentId,
      blockIndex: Number.isFinite(blockIndex) ? blockIndex : 0,
      nextBlockIndex: nextAfter(segment, blockIndex),
    } as const;
    if (block === undefined) {
      const pieces = encodeBlock({ ...place, cipher: 'aes-128', iv: NO_BYTES });
      return { pieces, result: isBusy ? 'busy' : 'absent', bytes: 0 };
    }
    if ('answer' in block) return readyAnswer(block.answer, place.nextBlockIndex);
    const { cipher, pieces, iv } = block;
    const bytes = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
    return { pieces: encodeBlock({ ...place, cipher, iv }, pieces), result: 'block', bytes };
  }

  async #segmentList({ requestId, segmentIds }: GetSegmentList, isBusy: boolean): Promise<Answer> {
    const held: number[] = [];
    const ages: { index: number; ageMs: number }[] = [];
    for (const [position, segmentId] of segmentIds.entries()) {
      const segment = isBusy ? undefined : await this.#segment(toHex(segmentId));
      if (segment === undefined) continue;
      held.push(position);
      // Relative to the first one listed (2.2.5.4).
      ages.push({ index: position - (held[0] as number), ageMs: this.#clock.now() - segment.since });
    }
    const blob = encodeSegmentAges(ages);
    const ranges = rangesOf(held);
    return this.#list(encodeResponse({ type: 'segment-list', cipher: 'aes-128', requestId, ranges, blob }), isBusy);
  }

  #list(message: Uint8Array, isBusy = false): Answer {
    return { pieces: [message], result: isBusy ? 'busy' : 'list', bytes: 0 };
  }

  #segment(segmentId: string): MaybePromise<SegmentHoldings | undefined> {
    return orNothing(() => this.#holdings.segment(segmentId));
  }
}

/** An answer that lies ready, told which block is next. */
function readyAnswer(answer: Uint8Array, nextBlockIndex: number): Answer {
  const { pieces, dataBytes } = withNextBlock(answer, nextBlockIndex);
  return { pieces, result: 'block', bytes: dataBytes, isReady: true };
}

/** A store that fails is a store that has nothing, and so is a block that cannot be encrypted. */
function orNothing<T>(act: () => MaybePromise<T | undefined>): MaybePromise<T | undefined> {
  try {
    const value = act();
    return value instanceof Promise ? value.catch(() => undefined) : value;
  } catch {
    return undefined;
  }
}

/** First block held behind `blockIndex`; 0 = none. */
function nextAfter(segment: SegmentHoldings | undefined, blockIndex: number): number {
  return segment?.blocks[placeOf(segment.blocks, blockIndex + 1)] ?? 0;
}
