export {
  type ContentHashAlgorithm,
  type ContentInformationVersion,
  type V1AlgorithmName,
  SHA256,
  SHA384,
  SHA512,
  TRUNCATED_SHA512,
  V1_ALGORITHMS,
  V1_BLOCK_BYTES,
  V1_BLOCKS_PER_SEGMENT,
  V1_SEGMENT_BYTES,
  V2_MAX_SEGMENT_BYTES,
} from './constants.ts';
export {
  type BlockList,
  type ContentBlock,
  ContentInformation,
  type ContentInformationParts,
} from './content-information.ts';
export { decodeContentInformation, encodeContentInformation } from './codec.ts';
export type { LengthStyle } from './v1.ts';
export { contentHash, equalHashes, segmentId, segmentSecret } from './keys.ts';
export { ServerSecret } from './server-secret.ts';
export { decodeSecretFile, encodeSecretFile, MAX_SECRET_FILE_BYTES } from './secret-file.ts';
export { type CutScan, findCut, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, startCutScan } from './segmentation.ts';
export { type ContentInformationDescription, describeContentInformation, formatDescription } from './describe.ts';
