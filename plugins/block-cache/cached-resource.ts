/** One answer the branch can give again: its head, and its content in described parts. */
import { hash } from 'node:crypto';
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import { fieldValue, type HeaderFields, isStrongTag, type Validators, withoutFields } from '../../lib/http/index.ts';
import type { ContentHandle, PeerDist } from '../../lib/peerdist/index.ts';
import { ANSWER_FIELDS } from './deliver.ts';
import type { Freshness } from './freshness.ts';
import type { Transfer } from './transfer.ts';
import { identityHead } from './upstream.ts';

/** A described part of a content; its handle counts bytes from where the part begins, unless it describes a part of the whole. */
export interface ContentPart {
  /** What of the content it holds. */
  readonly range: ByteRange;
  /** Where the handle's offset 0 lies in the content. */
  readonly base: number;
  readonly handle: ContentHandle;
  /** Name that its content information is kept under. */
  readonly informationName: string;
  /** Bytes of its content information. */
  readonly informationBytes: number;
  readonly isPrivate: boolean;
}

export interface CachedResourceParts {
  readonly status: number;
  readonly statusText: string | undefined;
  readonly validators: Validators;
  readonly head: HeaderFields;
  readonly freshness: Freshness;
  /** Bytes of the content; undefined until a body without a length has come. */
  readonly length: number | undefined;
  /** True for what comes of an origin that knows nothing of content information: clients who do get it plain too. */
  readonly isPlain: boolean;
}

/** Of a resource beside content information and head. */
const ENTRY_BYTES = 2048;
/** Of a part beside its content information: the handle and what it knows. */
const PART_BYTES = 2048;
/** Label of everything this plug-in puts into the cache. */
export const CONTENT_TAG = Buffer.from('peerdist-branch!', 'latin1');
/** Parts of one content; what comes then is given to who asked and not kept. Policy, not protocol. */
const MAX_PARTS = 1024;
/** Contents shorter than this are nobody's business but the branch's own: asking a peer costs more than they do. */
export const MIN_SHARED_BYTES = 64 * 1024;

/**
 * An answer with its content: parts that are described and stored, and transfers that bring more of it. Shared by the catalogue and the
 * exchanges that are served from it. Who uses it holds it; the handles close with the last {@link release}.
 */
export class CachedResource {
  readonly status: number;
  readonly statusText: string | undefined;
  readonly validators: Validators;
  readonly isPlain: boolean;
  /** Bytes on their way. */
  readonly transfers = new Set<Transfer>();
  /** Fields to answer with; those of a 304 replace them. */
  head: HeaderFields;
  freshness: Freshness;
  length: number | undefined;
  /** Content information that has not been kept yet, by the name it is to be kept under. */
  readonly unkept = new Map<string, Uint8Array>();
  /** By position; they may overlap. */
  #parts: ContentPart[] = [];
  /** Parts that others have made superfluous. */
  readonly #retired: ContentPart[] = [];
  /** True when its content did not come and will not. */
  isBroken = false;
  /** False once the origin has sent all where a part was asked for. */
  hasRanges = true;
  /** Whoever made it is the first. */
  #holders = 1;

  constructor(parts: CachedResourceParts) {
    this.status = parts.status;
    this.statusText = parts.statusText;
    this.validators = parts.validators;
    this.head = parts.head;
    this.freshness = parts.freshness;
    this.length = parts.length;
    this.isPlain = parts.isPlain;
  }

  get parts(): readonly ContentPart[] {
    return this.#parts;
  }

  /** Bytes it costs to keep. */
  get bytes(): number {
    const heads = 2 * JSON.stringify(this.head).length + ENTRY_BYTES;
    return this.#parts.reduce((sum, { informationBytes }) => sum + informationBytes + PART_BYTES, heads);
  }

  /** The one part that is all of the content, as a rule. */
  get whole(): ContentPart | undefined {
    const [only] = this.#parts;
    return only !== undefined && only.range.offset === 0 && only.range.length === this.length ? only : undefined;
  }

  /** True while every handle can be read from: a service that was lost takes them along. */
  get isReady(): boolean {
    return this.#parts.every(({ handle }) => handle.phase === 'ready');
  }

  /** True when a byte that is missing can be fetched alone, and surely belongs to the others (RFC 9110 15.3.7.3). */
  get isCombinable(): boolean {
    return this.hasRanges && this.status === 200 && this.length !== undefined && isStrongTag(this.validators.etag);
  }

  /** True when all of the range is described or on its way. */
  covers(range: ByteRange): boolean {
    let at = range.offset;
    while (at < rangeEnd(range)) {
      const part = this.partAt(at);
      const transfer = part === undefined ? this.transferAt(at) : undefined;
      const end = part === undefined ? (transfer?.end ?? transfer?.receivedEnd) : rangeEnd(part.range);
      if (end === undefined || end <= at) return false;
      at = end;
    }
    return true;
  }

  /** Content-Encoding of the bytes held; undefined for none. */
  get contentCoding(): string | undefined {
    return fieldValue(this.head, 'content-encoding');
  }

  /** True when what was to come did not. */
  get hasFailed(): boolean {
    return this.isBroken || [...this.transfers].some(({ error }) => error !== undefined);
  }

  /** True when it is of no use to anybody new: what was to bring it has failed, and what is missing cannot be had alone. */
  get isHopeless(): boolean {
    return this.isBroken || (this.#parts.length === 0 && !this.isCombinable && this.hasFailed);
  }

  /** The part that holds the byte and reaches farthest. */
  partAt(offset: number): ContentPart | undefined {
    let found: ContentPart | undefined;
    for (const part of this.#parts) {
      if (part.range.offset > offset) break;
      if (rangeEnd(part.range) > Math.max(offset, found === undefined ? 0 : rangeEnd(found.range))) found = part;
    }
    return found;
  }

  /** A transfer that brings the byte, or has brought it. */
  transferAt(offset: number): Transfer | undefined {
    for (const transfer of this.transfers) if (transfer.covers(offset)) return transfer;
    return undefined;
  }

  /** True when all that a transfer has brought is described. */
  isKept(transfer: Transfer): boolean {
    if (transfer.receivedEnd === transfer.start) return true;
    const part = this.partAt(transfer.start);
    return part !== undefined && rangeEnd(part.range) >= transfer.receivedEnd;
  }

  /** Where the last part or transfer before a missing byte ends. */
  endBefore(offset: number): number {
    let end = 0;
    for (const { range } of this.#parts) if (rangeEnd(range) <= offset) end = Math.max(end, rangeEnd(range));
    for (const transfer of this.transfers) {
      const stop = transfer.end ?? transfer.receivedEnd;
      if (stop <= offset) end = Math.max(end, stop);
    }
    return end;
  }

  /** Where the first part or transfer behind a position begins. */
  nextAfter(offset: number): number {
    let next = this.length ?? Infinity;
    for (const { range } of this.#parts) if (range.offset > offset) next = Math.min(next, range.offset);
    for (const { start } of this.transfers) if (start > offset) next = Math.min(next, start);
    return next;
  }

  /**
   * Takes a part over, with its handle. Those it makes superfluous leave.
   *
   * @param encoded its content information, where that has not been kept
   */
  addPart(part: ContentPart, encoded?: Uint8Array): void {
    const { range } = part;
    const isInside = (inner: ByteRange, outer: ByteRange): boolean =>
      inner.offset >= outer.offset && rangeEnd(inner) <= rangeEnd(outer);
    const superfluous = this.#parts.filter((other) => isInside(other.range, range));
    const isFull = this.#parts.length - superfluous.length >= MAX_PARTS;
    if (isFull || this.#parts.some((other) => isInside(range, other.range))) {
      void part.handle.close();
      return;
    }
    // A reader may be on its way through them; they close with the resource.
    this.#retired.push(...superfluous);
    for (const { informationName } of superfluous) this.unkept.delete(informationName);
    if (encoded !== undefined) this.unkept.set(part.informationName, encoded);
    this.#parts = [...this.#parts.filter((other) => !superfluous.includes(other)), part].toSorted(
      (a, b) => a.range.offset - b.range.offset,
    );
  }

  /** Gives the parts away; whoever gets them closes their handles. */
  yieldParts(): readonly ContentPart[] {
    return this.#parts.splice(0);
  }

  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    for (const { handle } of [...this.#parts, ...this.#retired]) void handle.close();
  }
}

/** Fields of a 200 that stay true for later answers out of the cache. A cookie is for whoever asked. */
export function cachedHead(headers: HeaderFields): HeaderFields {
  const head: Record<string, string | readonly string[] | undefined> = withoutFields(identityHead(headers), [
    ...ANSWER_FIELDS,
    'set-cookie',
    ...(headers['content-encoding'] === 'peerdist' ? ['content-encoding'] : []),
  ]);
  for (const name of ANSWER_FIELDS) head[name] = undefined;
  return { ...head };
}

/**
 * Opens a part of a content.
 *
 * @param base where the described content begins in the whole one: 0 for what the origin describes
 * @throws {@link PeerDistError} when the content information is garbage
 */
export async function openPart(
  peerdist: PeerDist,
  encoded: Uint8Array,
  {
    base = 0,
    isPrivate = false,
  }: { readonly base?: number | undefined; readonly isPrivate?: boolean | undefined } = {},
): Promise<ContentPart> {
  const handle = await peerdist.client.openContent(CONTENT_TAG, { isPrivate });
  try {
    const { range } = await handle.setContentInformation(encoded);
    return {
      range: { offset: base + range.offset, length: range.length },
      base,
      handle,
      informationName: `catalogue\n${hash('sha256', encoded, 'hex')}`,
      informationBytes: encoded.byteLength,
      isPrivate,
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
