import { toHex } from '../../bytes/index.ts';
import type { HashProvider } from '../../crypto/index.ts';
import { V1_BLOCK_BYTES } from './constants.ts';
import { encodeContentInformation } from './codec.ts';
import type { ContentInformation } from './content-information.ts';
import { segmentId } from './keys.ts';

/** What may be shown of content information: names and sizes, never a segment secret. */
export interface ContentInformationDescription {
  readonly version: '1.0' | '2.0';
  readonly algorithm: string;
  /** Bytes the content information describes; the length of the content when `whole`. */
  readonly contentLength: number;
  /** First described byte of the content. */
  readonly contentOffset: number;
  readonly whole: boolean;
  /** Bytes of the structure itself. */
  readonly size: number;
  readonly segments: readonly {
    readonly offset: number;
    readonly length: number;
    readonly hashOfData: string;
    readonly segmentId: string;
    readonly blockCount: number;
  }[];
}

/** Describes content information for people and programs. */
export function describeContentInformation(
  information: ContentInformation,
  provider: HashProvider,
): ContentInformationDescription {
  const segments = Array.from({ length: information.segmentCount }, (_, segment) => {
    const { offset, length } = information.segmentRange(segment);
    const hashOfData = information.hashOfData(segment);
    return {
      offset,
      length,
      hashOfData: toHex(hashOfData),
      segmentId: toHex(segmentId(provider, information.algorithm, information.segmentSecret(segment), hashOfData)),
      blockCount: information.version === 1 ? Math.ceil(length / V1_BLOCK_BYTES) : 1,
    };
  });
  return {
    version: information.version === 1 ? '1.0' : '2.0',
    algorithm: information.algorithm.name,
    contentLength: information.range.length,
    contentOffset: information.range.offset,
    whole: information.isWhole,
    size: encodeContentInformation(information).byteLength,
    segments,
  };
}

/** The description as lines of text. */
export function formatDescription(description: ContentInformationDescription): string {
  const { contentLength, contentOffset, segments } = description;
  const described = description.whole
    ? `${contentLength} bytes`
    : `bytes ${contentOffset}-${contentOffset + contentLength - 1}`;
  return [
    `content information ${description.version}, ${description.algorithm}, ${description.size} bytes`,
    `describes ${described} in ${segments.length} segment${segments.length === 1 ? '' : 's'}`,
    ...segments.map((segment) =>
      [
        `  at ${segment.offset}, ${segment.length} bytes, ${segment.blockCount} block${segment.blockCount === 1 ? '' : 's'}`,
        `    hash of data ${segment.hashOfData}`,
        `    segment ID   ${segment.segmentId}`,
      ].join('\n'),
    ),
  ].join('\n');
}
