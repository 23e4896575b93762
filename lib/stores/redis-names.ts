/** How what is ours is called in Redis. What is between braces decides which server of a cluster has it: a segment is in one place. */
import { PeerDistError } from '../errors.ts';
import { parseBlockKey } from './types.ts';

/** Before every key, so that several of us, or others, can use one Redis. */
export const DEFAULT_PREFIX = 'peerdist:';
const MAX_PREFIX_LENGTH = 128;
/** Longer keys are nobody's. */
const MAX_KEY_LENGTH = 512;

/** Where a block is. */
export interface BlockPlace {
  /** Key of the block. */
  readonly block: string;
  /** Key of what is known of its segment. */
  readonly row: string;
  /** Undefined where the key is not a block's: an owner may have others. */
  readonly index: number | undefined;
}

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for a prefix that would decide about places */
export function assertPrefix(prefix: string): string {
  if (/^[^{}]*$/.test(prefix) && prefix.length <= MAX_PREFIX_LENGTH) return prefix;
  throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not a prefix of keys in Redis: ${prefix.slice(0, 32)}`);
}

/**
 * @param key a `blockKey`, or an owner's own
 * @returns undefined for what is no key
 */
export function placeOfBlock(prefix: string, key: string): BlockPlace | undefined {
  if (key.length === 0 || key.length > MAX_KEY_LENGTH) return undefined;
  const { segmentId, blockIndex } = parseBlockKey(key);
  if (segmentId === '' || !/:(?:0|[1-9]\d{0,4})$/.test(key))
    return { block: `${prefix}{${key}}`, row: rowOfSegment(prefix, key), index: undefined };
  return { block: `${prefix}{${segmentId}}:${blockIndex}`, row: rowOfSegment(prefix, segmentId), index: blockIndex };
}

export function rowOfSegment(prefix: string, segmentId: string): string {
  return `${prefix}{${segmentId}}:s`;
}

/** The place of a block by its key in Redis; undefined for other keys. */
export function placeOfRedisKey(prefix: string, redisKey: string): BlockPlace | undefined {
  const rest = redisKey.slice(prefix.length);
  const [, segmentId, index] = /^\{(.+)\}:(\d{1,5})$/s.exec(rest) ?? [];
  const key = segmentId === undefined ? /^\{(.+)\}$/s.exec(rest)?.[1] : `${segmentId}:${index}`;
  return key === undefined ? undefined : placeOfBlock(prefix, key);
}

/** Pattern of all keys of blocks and segments. */
export function patternOfBlocks(prefix: string): string {
  return `${prefix.replaceAll(/[*?[\]\\^-]/g, String.raw`\$&`)}{*`;
}
