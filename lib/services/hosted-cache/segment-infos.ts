import type { DescribedContent } from '../described-content.ts';

/** Bytes of hashes remembered; the segment offered longest ago is forgotten. Policy, not protocol. */
const MAX_BYTES = 64 * 1024 * 1024;
/** Of one entry beside its hashes. */
const ENTRY_BYTES = 512;

/** Hashes of segments that clients have sent: from then on the hosted cache can check their blocks, whoever offers them (MS-PCHC 3.1.1). */
export class SegmentInfos {
  readonly #contents = new Map<string, DescribedContent>();
  #bytes = 0;

  get(segmentId: string): DescribedContent | undefined {
    return this.#contents.get(segmentId);
  }

  set(segmentId: string, content: DescribedContent): void {
    this.#delete(segmentId);
    this.#contents.set(segmentId, content);
    this.#bytes += bytesOf(content);
    while (this.#bytes > MAX_BYTES) this.#delete(this.#contents.keys().next().value as string);
  }

  #delete(segmentId: string): void {
    const content = this.#contents.get(segmentId);
    if (content === undefined) return;
    this.#contents.delete(segmentId);
    this.#bytes -= bytesOf(content);
  }
}

function bytesOf({ information }: DescribedContent): number {
  return ENTRY_BYTES + information.blockCount * information.algorithm.hashBytes;
}
