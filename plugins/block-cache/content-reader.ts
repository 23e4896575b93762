/** Reads a content whose bytes lie in parts, are on their way, or have still to be asked for. */
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
/** Attempts that bring no byte before the reader gives up. */
const MAX_FRUITLESS = 3;

/**
 * The bytes of a range, in order. A transfer that fails half-way is gone on with from where it stopped, if the origin still has the same content.
 *
 * @param range without one, all there is: the length may not be known yet
 */
export function readContent(
  resource: CachedResource,
  range: ByteRange | undefined,
  components: ContentReaderComponents,
): Readable {
  let inner: Readable | undefined;
  async function* bytes(): AsyncGenerator<Uint8Array> {
    let at = range?.offset ?? 0;
    let fruitless = 0;
    for (;;) {
      const end = range === undefined ? resource.length : rangeEnd(range);
      if (end !== undefined && at >= end) return;
      const before = at;
      try {
        const source = await openAt(resource, at, end, components);
        if (source === undefined) {
          if (end === undefined && !resource.hasFailed) return;
        } else {
          inner = source.stream;
          // The reader has left meanwhile.
          if (stream.destroyed) inner.destroy();
          for await (const chunk of inner as AsyncIterable<Uint8Array>) {
            at += chunk.byteLength;
            if (source.isFromOrigin) components.onOriginBytes(chunk.byteLength);
            yield chunk;
          }
        }
      } catch (error) {
        if (!resource.isCombinable || fruitless + 1 >= MAX_FRUITLESS) throw error;
      }
      fruitless = at === before ? fruitless + 1 : 0;
      if (fruitless >= MAX_FRUITLESS)
        throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin does not bring the rest of the content');
    }
  }
  const stream: Readable = Readable.from(bytes(), { objectMode: false, highWaterMark: 256 * 1024 });
  stream.once('close', () => inner?.destroy());
  return stream;
}

interface Source {
  readonly stream: Readable;
  /** False for blocks, which say themselves where they come from. */
  readonly isFromOrigin: boolean;
}

/** What brings the byte at a position, and more behind it if it can. Undefined when that has just changed hands: look again. */
async function openAt(
  resource: CachedResource,
  at: number,
  end: number | undefined,
  { readPart, openKept, fetchGap }: ContentReaderComponents,
): Promise<Source | undefined> {
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
  if (transfer !== undefined && !(resource.isCombinable && transfer.recorder !== undefined && isFarBehind(transfer, at)))
    return { stream: transfer.createReader(at, end), isFromOrigin: true };
  if (end === undefined) return undefined;
  const stream = await fetchGap(at, end);
  return stream && { stream, isFromOrigin: true };
}

function isFarBehind(transfer: Transfer, at: number): boolean {
  return at - transfer.receivedEnd > SPLIT_BYTES;
}
