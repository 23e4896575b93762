import { setImmediate as yieldToOthers } from 'node:timers/promises';
import type { Readable } from 'node:stream';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import type { ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { ContentHandle, PeerDist } from '../../lib/peerdist/index.ts';
import { type CachedResource, CONTENT_TAG, type ContentPart, MIN_SHARED_BYTES, openPart } from './cached-resource.ts';
import type { Catalogue } from './catalogue.ts';
import type { Transfer } from './transfer.ts';
import type { Transfers } from './transfers.ts';

export interface KeeperComponents {
  readonly peerdist: PeerDist;
  readonly catalogue: Catalogue;
  readonly transfers: Transfers;
  readonly observer: Observer;
}

/** Longer contents stay in parts: reading and describing them once more would take too long. Policy, not protocol. */
const MAX_COMBINED_BYTES = 1024 * 1024 * 1024;
/** Bytes given to the store before others get their turn on the thread. */
const SLICE_BYTES = 1024 * 1024;

/** What the origin sends becomes part of a resource: at once for those who read it meanwhile, and in the store when it has come. */
export class Keeper {
  readonly #components: KeeperComponents;
  readonly #combining = new WeakSet<CachedResource>();

  constructor(components: KeeperComponents) {
    this.#components = components;
  }

  /**
   * Describes a body that its origin does not describe, and keeps it (RFC 9111 3.3, 3.4).
   *
   * @param range what of the content it is; without one it is all, of a length that only its end tells
   * @returns false when there is no memory for it; then nobody has touched the body
   */
  record(
    resource: CachedResource,
    request: ProxyRequest,
    response: ProxyResponse,
    range: ByteRange | undefined,
  ): boolean {
    const transfer = this.#components.transfers.record(response, {
      start: range?.offset ?? 0,
      length: range?.length,
      isPrivate: () => isPrivate(resource, transfer),
      onBytes: this.#onBytes(request),
      // Readers of a body without a length look there for its end.
      onWhole: (end) => (resource.length ??= end),
      // Nobody can begin to read any more what is only passed on.
      onGiveUp: () => (resource.isBroken ||= resource.parts.length === 0),
    });
    if (transfer === undefined) return false;
    void this.#settle(resource, request, transfer, () => this.#keepRecorded(resource, transfer));
    return true;
  }

  /**
   * Holds a body until its origin has described it; there must be room.
   *
   * @param describe asks for the description; undefined when there is none. `adopt` takes it over once its blocks are there
   */
  hold(
    resource: CachedResource,
    request: ProxyRequest,
    response: ProxyResponse,
    length: number,
    describe: () => Promise<{ readonly handle: ContentHandle; readonly adopt: () => void } | undefined>,
  ): void {
    const onBytes = this.#onBytes(request);
    const transfer = this.#components.transfers.hold(response, { start: 0, length, isPrivate: () => false, onBytes });
    void this.#settle(resource, request, transfer, async () => {
      const described = (await transfer.done) ? await describe() : undefined;
      if (described === undefined) return;
      try {
        await cut(transfer, length, described.handle);
      } finally {
        described.adopt();
      }
    });
  }

  /** A body that nobody keeps. */
  counted(request: ProxyRequest, response: ProxyResponse): Readable {
    return response.counted(this.#onBytes(request)).stream();
  }

  #onBytes(request: ProxyRequest): (bytes: number) => void {
    const observer = request.observedBy(this.#components.observer);
    return (bytes) => observer({ type: 'wan', kind: 'plain', bytes });
  }

  async #settle(
    resource: CachedResource,
    request: ProxyRequest,
    transfer: Transfer,
    keep: () => Promise<void>,
  ): Promise<void> {
    const { catalogue } = this.#components;
    resource.hold();
    resource.transfers.add(transfer);
    try {
      await keep();
    } catch {
      // The clients have their bytes; that nothing was learnt from them shows in the metrics.
    }
    if (resource.parts.length === 0 && resource.length !== 0) resource.isBroken ||= resource.transfers.size === 1;
    else if (catalogue.has(request, resource)) catalogue.remember(request, resource);
    // Who reads what has not been kept needs it to the end.
    if (!resource.isKept(transfer)) await transfer.idle();
    resource.transfers.delete(transfer);
    transfer.release();
    if (resource.transfers.size === 0) await this.#combine(resource, request);
    resource.release();
  }

  /** Makes one content of parts that have become a whole (RFC 9111 3.4), so that neighbours who have it whole know the same segments. */
  async #combine(resource: CachedResource, request: ProxyRequest): Promise<void> {
    const { catalogue, peerdist } = this.#components;
    const { parts, length = 0 } = resource;
    if (
      this.#combining.has(resource) ||
      parts.length < 2 ||
      length > MAX_COMBINED_BYTES ||
      !resource.covers({ offset: 0, length })
    )
      return;
    this.#combining.add(resource);
    const shared = { isPrivate: length < MIN_SHARED_BYTES };
    const recorder = peerdist.client.record(CONTENT_TAG, { version: 1, isPrivate: () => shared.isPrivate });
    try {
      for (let at = 0; at < length;) {
        const { handle, base, range } = resource.partAt(at) as ContentPart;
        // What the store has lost meanwhile is not worth a way to the origin.
        const rest = { offset: at - base, length: rangeEnd(range) - at };
        for await (const chunk of handle.createReadStream({ range: rest, timeoutMs: 0 }) as AsyncIterable<Uint8Array>) {
          await recorder.push(chunk);
          at += chunk.byteLength;
          await yieldToOthers();
        }
      }
      const encoded = await recorder.finish();
      this.#components.observer({ type: 'hashed', bytes: length });
      resource.addPart(await openPart(peerdist, encoded, shared), encoded);
      if (catalogue.has(request, resource)) catalogue.remember(request, resource);
    } catch {
      // It goes on to be served from its parts.
    } finally {
      this.#combining.delete(resource);
    }
  }

  /** A body that broke off is kept as far as it came, where the rest can be had later. */
  async #keepRecorded(resource: CachedResource, transfer: Transfer): Promise<void> {
    const { recorder, start } = transfer;
    const isWhole = await transfer.done;
    const isUseful = isWhole || (transfer.error !== undefined && resource.isCombinable);
    if (recorder === undefined || !isUseful) return;
    if (recorder.recordedBytes === 0) return;
    const encoded = await recorder.finish();
    this.#components.observer({ type: 'hashed', bytes: recorder.recordedBytes });
    const part = await openPart(this.#components.peerdist, encoded, {
      base: start,
      isPrivate: isPrivate(resource, transfer),
    });
    resource.addPart(part, encoded);
  }
}

/** Cuts what is held into the blocks that its origin has described. */
async function cut(transfer: Transfer, length: number, handle: ContentHandle): Promise<void> {
  let slice = 0;
  for (let offset = 0; offset < length;) {
    const piece = transfer.pieceAt(offset) as Uint8Array;
    await handle.addData(offset, piece);
    offset += piece.byteLength;
    slice += piece.byteLength;
    if (slice < SLICE_BYTES) continue;
    slice = 0;
    await yieldToOthers();
  }
}

function isPrivate({ length }: CachedResource, transfer: Transfer | undefined): boolean {
  return (length ?? transfer?.receivedEnd ?? 0) < MIN_SHARED_BYTES;
}
