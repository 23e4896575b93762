/** Brings what a content lacks: the parts of it that nobody has asked for yet. */
import { Readable } from 'node:stream';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import { PeerDistError } from '../../lib/errors.ts';
import { fieldValue, formatRange, parseContentRange, sameBytes, validatorsOf } from '../../lib/http/index.ts';
import type { Next, ProxyRequest, ProxyResponse } from '../../lib/kit/index.ts';
import type { Observer } from '../../lib/observer.ts';
import type { CachedResource } from './cached-resource.ts';
import { Leash } from './flights.ts';
import { Freshness, type JudgingOptions } from './freshness.ts';
import type { Keeper } from './keeper.ts';
import { askForContentInformation, changed, isCoded, ownRequest, rangeOfPart } from './upstream.ts';

/** Gaps are fetched to such edges, so that neighbours do not ask for the rest of each other's blocks. Policy, not protocol. */
const BLOCK_BYTES = 64 * 1024;
/** What is fetched ahead of a client that goes on where it stopped: as much as it has read in a row, within these. Policy, not protocol. */
const MIN_AHEAD_BYTES = 256 * 1024;
const MAX_AHEAD_BYTES = 8 * 1024 * 1024;
/** Places where clients have stopped, remembered for one content. */
const MAX_CURSORS = 64;

export interface GapsComponents {
  readonly keeper: Keeper;
  readonly maxContentInformationVersion: 1 | 2;
  /** Puts content information that came instead of bytes into the resource. */
  readonly adopt: (resource: CachedResource, request: ProxyRequest, response: ProxyResponse) => Promise<void>;
  readonly judging: JudgingOptions;
  readonly observer: Observer;
}

/** What a reader wants: from one byte up to another. */
export interface Wanted {
  readonly offset: number;
  readonly end: number;
}

/** Where a client has stopped. */
interface Cursor {
  /** Bytes it has read in a row up to there. */
  readonly readBytes: number;
  /** Bytes that are fetched ahead of it from there. */
  readonly aheadBytes: number;
}

/** How clients go through one content. */
interface Course {
  /** By position. */
  readonly cursors: Map<number, Cursor>;
  /** Gaps being asked for. */
  readonly asked: Set<{ readonly range: ByteRange; readonly answered: Promise<Readable | undefined> }>;
}

export class Gaps {
  readonly #components: GapsComponents;
  readonly #courses = new WeakMap<CachedResource, Course>();

  constructor(components: GapsComponents) {
    this.#components = components;
  }

  /** A client is going to have this range: should it go on behind it, more is fetched each time. */
  noteRange(resource: CachedResource, range: ByteRange): void {
    const { cursors } = this.#courseOf(resource);
    const before = cursors.get(range.offset);
    cursors.delete(range.offset);
    const readBytes = (before?.readBytes ?? 0) + range.length;
    const aheadBytes = before === undefined ? 0 : Math.min(MAX_AHEAD_BYTES, Math.max(MIN_AHEAD_BYTES, readBytes));
    cursors.set(rangeEnd(range), { readBytes, aheadBytes });
    if (cursors.size > MAX_CURSORS) cursors.delete(cursors.keys().next().value as number);
  }

  /**
   * Begins to bring the byte at `wanted.offset` and what is missing behind it: afterwards the resource has it, or one of its transfers.
   *
   * @returns bytes from that one on for this reader alone, where they may not be kept or there is no memory for it; else undefined
   * @throws {@link PeerDistError} `ERR_PEERDIST_ORIGIN_CHANGED`, `ERR_PEERDIST_ORIGIN_PROTOCOL`, and what `next` throws
   */
  async fetch(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    wanted: Wanted,
  ): Promise<Readable | undefined> {
    const { asked, cursors } = this.#courseOf(resource);
    for (const { range, answered } of asked) {
      if (wanted.offset < range.offset || wanted.offset >= rangeEnd(range)) continue;
      const alone = await answered.catch(() => undefined);
      if (alone === undefined) return undefined;
      // Those bytes are for who asked for them. Everybody else asks at once, not one behind the other.
      break;
    }
    const range = gapAround(
      resource,
      wanted,
      cursors.get(wanted.end)?.aheadBytes ?? 0,
      [...asked].map(({ range: each }) => each),
    );
    const answered = this.#ask(resource, request, next, range, wanted);
    const question = { range, answered };
    asked.add(question);
    try {
      return await answered;
    } finally {
      asked.delete(question);
    }
  }

  async #ask(
    resource: CachedResource,
    request: ProxyRequest,
    next: Next,
    range: ByteRange,
    wanted: Wanted,
  ): Promise<Readable | undefined> {
    const { keeper, judging, maxContentInformationVersion, adopt } = this.#components;
    if (!resource.isCombinable)
      throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'this content cannot be put together of parts');
    const leash = new Leash(request.signal);
    const own = ownRequest(request, leash.signal, {
      range: formatRange(range),
      'if-range': resource.validators.etag,
      // The variant is selected by what the client accepts.
      'accept-encoding': request.headers['accept-encoding'],
    });
    const response = await next(askForContentInformation(own, maxContentInformationVersion));
    if (isCoded(response)) {
      await adopt(resource, request, response);
      return undefined;
    }
    let got: ByteRange;
    try {
      got = rangeOf(resource, response, wanted.offset);
    } catch (error) {
      response.discard();
      throw error;
    }
    const earlier = resource.transferAt(wanted.offset);
    if (response.status === 200) resource.hasRanges = false;
    if (response.status === 200 && earlier !== undefined) {
      response.discard();
      return undefined;
    }
    const { isStorable } = Freshness.of(request, { headers: response.headers }, judging);
    if (isStorable && keeper.record(resource, request, response, got)) {
      // Whoever was to bring these bytes later on need not do so.
      earlier?.endAt(got.offset);
      leash.release();
      return undefined;
    }
    const source = keeper.counted(request, response);
    const alone = Readable.from(slice(source, wanted.offset - got.offset, wanted.end - wanted.offset), {
      objectMode: false,
    });
    // One that is destroyed unread never gets to its source.
    alone.once('close', () => source.destroy());
    return alone;
  }

  #courseOf(resource: CachedResource): Course {
    let course = this.#courses.get(resource);
    if (course === undefined) {
      course = { cursors: new Map(), asked: new Set() };
      this.#courses.set(resource, course);
    }
    return course;
  }
}

/** What to ask for: whole blocks, nothing that is there or asked for already, and more than is wanted only up to what is fetched ahead. */
function gapAround(
  resource: CachedResource,
  { offset, end }: Wanted,
  aheadBytes: number,
  asked: readonly ByteRange[],
): ByteRange {
  const before = asked.map(rangeEnd).filter((each) => each <= offset);
  const after = asked.map((each) => each.offset).filter((each) => each > offset);
  const start = Math.max(resource.endBefore(offset), ...before, offset - (offset % BLOCK_BYTES));
  const limit = Math.min(resource.nextAfter(offset), ...after);
  const stop = Math.min(limit, Math.ceil((end + aheadBytes) / BLOCK_BYTES) * BLOCK_BYTES);
  return { offset: start, length: stop - start };
}

/**
 * Which bytes of the content an answer brings. Unlike missing data they are not going to be compared with a hash, so that the answer has to name
 * their state and the whole they belong to.
 *
 * @throws {@link PeerDistError} when they are not of this content, or not those that are wanted
 */
function rangeOf(resource: CachedResource, response: ProxyResponse, wantedOffset: number): ByteRange {
  const { validators, contentCoding } = resource;
  const contentLength = resource.length as number;
  const range = rangeOfPart(response, { validators, contentLength, contentCoding });
  const { status, headers } = response;
  const total =
    status === 206
      ? parseContentRange(fieldValue(headers, 'content-range'))?.total
      : Number(fieldValue(headers, 'content-length'));
  if (total !== contentLength || !sameBytes(validatorsOf(headers), validators)) throw changed();
  if (wantedOffset < range.offset || wantedOffset >= rangeEnd(range))
    throw new PeerDistError('ERR_PEERDIST_ORIGIN_PROTOCOL', 'the origin answered another range');
  return range;
}

async function* slice(stream: Readable, skip: number, length: number): AsyncGenerator<Uint8Array> {
  let at = 0;
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    const piece = chunk.subarray(Math.max(0, skip - at), skip + length - at);
    at += chunk.byteLength;
    if (piece.byteLength > 0) yield piece;
    if (at >= skip + length) return;
  }
}
