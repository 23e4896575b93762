import { type ByteRange, intersect, rangeEnd } from '../bytes/index.ts';
import { PeerDistError } from '../errors.ts';
import type { Observer } from '../observer.ts';
import { type ContentInformation, V1_SEGMENT_BYTES } from '../protocol/pccrc/index.ts';
import type { BlockBroker, DescribedContent } from '../services/index.ts';
import { PartialBlocks } from './partial-blocks.ts';
import type { Candidate, Quarantine } from './quarantine.ts';

/** Byte counts of one `addData` call. Extension: Win32 only says that the operation finished. */
export interface AddDataResult {
  /** Checked and cached. */
  readonly verified: number;
  /** Held unserved until the rest of their block, or content information that covers them, arrives. */
  readonly pending: number;
  /** Hash mismatch; thrown away. */
  readonly rejected: number;
}

export interface AddedDataComponents {
  readonly broker: BlockBroker;
  readonly quarantine: Quarantine;
  readonly observer: Observer;
  readonly label: string;
}

/** What becomes of bytes somebody supplies: verified and stored, awaited until their block is whole, or kept in quarantine. */
export class AddedData {
  readonly #components: AddedDataComponents;
  #partials: PartialBlocks | undefined;

  constructor(components: AddedDataComponents) {
    this.#components = components;
  }

  /** Without content information all of it has to wait. */
  hold(candidate: Candidate): AddDataResult {
    this.#components.quarantine.add(this.#components.label, candidate);
    return { verified: 0, pending: candidate.data.byteLength, rejected: 0 };
  }

  /**
   * @throws {@link PeerDistError} `OUT_OF_BOUNDS` past the end of the content, where that is known
   */
  async add(
    content: DescribedContent,
    candidate: Candidate,
    onMismatch: (wrong: Candidate) => void = () => {},
  ): Promise<AddDataResult> {
    const { offset } = candidate;
    const end = contentEnd(content.information) ?? Infinity;
    if (offset > end || (offset === end && candidate.data.byteLength > 0)) {
      throw new PeerDistError('ERR_PEERDIST_OUT_OF_BOUNDS', 'data past the end of the content', {
        expected: end,
        actual: offset,
      });
    }
    const data = candidate.data.subarray(0, end - offset);
    const part = intersect(verifiable(content), { offset, length: data.byteLength });
    const rejected = candidate.data.byteLength - data.byteLength;
    if (part.length === 0) return { ...this.hold({ offset, data }), rejected };
    const result = { verified: 0, pending: data.byteLength - part.length, rejected };
    const { quarantine, label } = this.#components;
    quarantine.add(label, { offset, data: data.subarray(0, part.offset - offset) });
    quarantine.add(label, { offset: rangeEnd(part), data: data.subarray(rangeEnd(part) - offset) });
    for (let at = part.offset; at < rangeEnd(part);) {
      const block = content.block(content.information.ordinalAt(at));
      const stop = Math.min(rangeEnd(block), rangeEnd(part));
      const piece = data.subarray(at - offset, stop - offset);
      const whole =
        piece.byteLength === block.length
          ? Uint8Array.from(piece)
          : (this.#partials ??= new PartialBlocks()).add(block.ordinal, block, at, piece);
      if (whole === undefined) result.pending += piece.byteLength;
      else if (await this.#verify(content, block.ordinal, whole)) result.verified += piece.byteLength;
      else {
        result.rejected += piece.byteLength;
        onMismatch({ offset: at, data: piece, since: candidate.since });
      }
      at = stop;
    }
    return result;
  }

  /** Tries what was waiting for this content information. Never rejects. */
  async promote(content: DescribedContent): Promise<void> {
    const { quarantine, label } = this.#components;
    // What does not match this content may be another one's of the same tag.
    const keep = (wrong: Candidate): void => quarantine.add(label, wrong);
    for (const candidate of quarantine.take(label, verifiable(content)))
      await this.add(content, candidate, keep).catch(() => {});
  }

  clear(): void {
    this.#partials?.clear();
  }

  async #verify(content: DescribedContent, ordinal: number, whole: Uint8Array): Promise<boolean> {
    const { broker, observer, label } = this.#components;
    const block = content.block(ordinal);
    const matches = content.verify(block, whole);
    observer({ type: 'verification', source: 'added', result: matches ? 'match' : 'mismatch' });
    if (matches) await broker.keep(content, block, whole, label, true);
    return matches;
  }
}

/** The described range, widened to the edges of its blocks: what lies in them can be verified. */
function verifiable(content: DescribedContent): ByteRange {
  const { range } = content.information;
  return range.length === 0 ? range : content.extent(content.ordinals(range));
}

/** Where the content ends, where that can be known: in version 1 only the last segment may be short; version 2 never tells. */
function contentEnd(information: ContentInformation): number | undefined {
  const { version, segmentCount } = information;
  if (version === 2 || segmentCount === 0) return undefined;
  const last = information.segmentRange(segmentCount - 1);
  return last.length < V1_SEGMENT_BYTES ? rangeEnd(last) : undefined;
}
