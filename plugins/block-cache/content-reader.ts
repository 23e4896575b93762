import { Readable } from 'node:stream';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import type { CachedResource, ContentPart } from './cached-resource.ts';
import type { Transfer } from './transfer.ts';

export interface ContentReaderComponents {
  /** Bytes out of blocks; the range lies in the part. */
  readonly readPart: (part: ContentPart, range: ByteRange) => Readable;
  /** Opens what a transfer has stored so far; the reader closes it. */
  readonly openKept: (transfer: Transfer) => Promise<ContentPart | undefined>;
  /**
   * Makes the byte there part of the resource or of one of its transfers, or brings bytes that nobody else gets.
   *
   * @throws when the origin does not give it
   */
  readonly fetchGap: (offset: number, end: number) => Promise<Readable | undefined>;
  /** Told of bytes that come straight from the origin. */
  readonly onOriginBytes: (bytes: number) => void;
}

/** How far a reader may be ahead of a transfer before it asks for its own place. Policy, not protocol. */
const SPLIT_BYTES = 4 * 1024 * 1024;
/** Attempts in a row that bring no byte before the reader gives up. */
const MAX_FRUITLESS = 3;

interface Source {
  readonly stream: Readable;
  /** False for blocks, which say themselves where they come from. */
  readonly isFromOrigin: boolean;
}

/**
 * The bytes of a range in order, whether they lie in parts, are on their way, or have still to be asked for. A transfer that fails half-way is gone
 * on with from where it stopped, if the origin still has the same content.
 *
 * One source at a time: `#open` finds what brings the next byte, `#pump` hands its bytes on until it ends.
 */
export class ContentReader extends Readable {
  readonly #resource: CachedResource;
  readonly #components: ContentReaderComponents;
  readonly #range: ByteRange | undefined;
  #at: number;
  #source: Source | undefined;
  #opening = false;
  #wanted = false;
  /** Where the source began, and how many before it brought nothing. */
  #openedAt = 0;
  #fruitless = 0;

  /** @param range without one, all there is: the length may not be known yet */
  constructor(resource: CachedResource, range: ByteRange | undefined, components: ContentReaderComponents) {
    super({ highWaterMark: 256 * 1024 });
    this.#resource = resource;
    this.#range = range;
    this.#components = components;
    this.#at = range?.offset ?? 0;
  }

  override _read(): void {
    this.#wanted = true;
    if (this.#source !== undefined) this.#pump(this.#source);
    else if (!this.#opening) void this.#open();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#source?.stream.destroy();
    callback(error);
  }

  get #end(): number | undefined {
    return this.#range === undefined ? this.#resource.length : rangeEnd(this.#range);
  }

  async #open(): Promise<void> {
    this.#opening = true;
    try {
      while (!this.destroyed) {
        const end = this.#end;
        if (end !== undefined && this.#at >= end) return void this.push(null);
        const source = await this.#find(end);
        if (source !== undefined) return this.#attach(source);
        if (end === undefined && !this.#resource.hasFailed) return void this.push(null);
        this.#countFruitless(this.#at);
      }
    } catch (error) {
      this.destroy(error as Error);
    } finally {
      this.#opening = false;
    }
  }

  #attach(source: Source): void {
    const { stream } = source;
    if (this.destroyed) return void stream.destroy();
    this.#source = source;
    this.#openedAt = this.#at;
    stream.on('readable', () => this.#pump(source));
    stream.once('end', () => this.#next());
    stream.once('error', (error) => {
      if (this.destroyed) return;
      if (this.#resource.isCombinable) this.#next(error);
      else this.destroy(error);
    });
    this.#pump(source);
  }

  #pump({ stream, isFromOrigin }: Source): void {
    while (this.#wanted && !this.destroyed) {
      const chunk = stream.read() as Uint8Array | null;
      if (chunk === null) return;
      this.#at += chunk.byteLength;
      if (isFromOrigin) this.#components.onOriginBytes(chunk.byteLength);
      this.#wanted = this.push(chunk);
    }
  }

  #next(error?: Error): void {
    this.#source = undefined;
    try {
      this.#countFruitless(this.#openedAt, error);
    } catch (failure) {
      this.destroy(failure as Error);
      return;
    }
    void this.#open();
  }

  /** @throws {@link PeerDistError} when nothing has come for too long, or the error that says why */
  #countFruitless(before: number, error?: Error): void {
    this.#fruitless = this.#at === before ? this.#fruitless + 1 : 0;
    if (this.#fruitless < MAX_FRUITLESS) return;
    throw (
      error ?? new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin does not bring the rest of the content')
    );
  }

  /** What brings the next byte, and more behind it if it can. Undefined when that has just changed hands: look again. */
  async #find(end: number | undefined): Promise<Source | undefined> {
    const { readPart, openKept, fetchGap } = this.#components;
    const resource = this.#resource;
    const at = this.#at;
    const read = (part: ContentPart): Readable => {
      const limit = rangeEnd(part.range);
      return readPart(part, { offset: at, length: Math.min(limit, end ?? limit) - at });
    };
    const part = resource.partAt(at);
    if (part !== undefined) return { stream: read(part), isFromOrigin: false };
    const transfer = resource.transferAt(at);
    if (transfer?.isKept(at) === true) {
      const kept = await openKept(transfer);
      if (kept === undefined) return undefined;
      const stream = read(kept);
      stream.once('close', () => void kept.handle.close());
      return { stream, isFromOrigin: false };
    }
    const isNear = transfer !== undefined && at - transfer.receivedEnd <= SPLIT_BYTES;
    if (transfer !== undefined && (isNear || !resource.isCombinable || transfer.recorder === undefined))
      return { stream: transfer.createReader(at, end), isFromOrigin: true };
    if (end === undefined) return undefined;
    const stream = await fetchGap(at, end);
    return stream && { stream, isFromOrigin: true };
  }
}
