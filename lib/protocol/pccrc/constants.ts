/** Numbers of MS-PCCRC. Everything here is protocol; policy lives in `segmentation.ts`. */
import type { DigestName } from '../../crypto/index.ts';

/** Content information format: 1 = Windows 7 era, 2 = Windows 8 era. */
export type ContentInformationVersion = 1 | 2;

/** Bytes of a version 1 segment; only the last of a content is shorter (2.1). */
export const V1_SEGMENT_BYTES = 32 * 1024 * 1024;
/** Bytes of a version 1 block; only the last of a content is shorter (2.1). */
export const V1_BLOCK_BYTES = 64 * 1024;
export const V1_BLOCKS_PER_SEGMENT = V1_SEGMENT_BYTES / V1_BLOCK_BYTES;
/** Largest version 2 segment (2.4.1.2). */
export const V2_MAX_SEGMENT_BYTES = 128 * 1024;

/** A hash algorithm as content information names it: a digest, perhaps cut short. */
export interface ContentHashAlgorithm {
  readonly name: 'sha256' | 'sha384' | 'sha512' | 'truncated-sha512';
  readonly digest: DigestName;
  /** Bytes kept of the digest. */
  readonly hashBytes: number;
  /** Number on the wire: dwHashAlgo (2.3) or bHashAlgo (2.4). */
  readonly wireId: number;
}

export const SHA256: ContentHashAlgorithm = { name: 'sha256', digest: 'sha256', hashBytes: 32, wireId: 0x800c };
export const SHA384: ContentHashAlgorithm = { name: 'sha384', digest: 'sha384', hashBytes: 48, wireId: 0x800d };
export const SHA512: ContentHashAlgorithm = { name: 'sha512', digest: 'sha512', hashBytes: 64, wireId: 0x800e };
/** Plain SHA-512 cut to 32 bytes, not FIPS SHA-512/256. Spec note: example 3.7 shows id 0x01; 2.4 allows 0x04 only. */
export const TRUNCATED_SHA512: ContentHashAlgorithm = {
  name: 'truncated-sha512',
  digest: 'sha512',
  hashBytes: 32,
  wireId: 0x04,
};

/** The algorithms version 1 may name. Windows clients consume SHA-256 only. */
export const V1_ALGORITHMS = { sha256: SHA256, sha384: SHA384, sha512: SHA512 } as const;
export type V1AlgorithmName = keyof typeof V1_ALGORITHMS;
