/** What blocks and segments look like in Redis, and what is believed of it. */
import { type DigestName, equalInConstantTime, nativeHashProvider } from '../crypto/index.ts';
import { membersOf, type RedisArgument, type RedisReply } from './redis-client.ts';
import type { BlockCheck, BlockHash, HeldSegment, SegmentFacts } from './types.ts';

/** Blocks a segment may have. Policy, not protocol. */
const MAX_BLOCKS = 65_536;
const MAX_SECRET_BYTES = 64;
const MAX_FROM_LENGTH = 256;
/** Shorter ones say too little. */
const MIN_HASH_BYTES = 16;

export const BLOCK_FIELDS = ['v', 'd', 'h', 'k'] as const;
export const NO_FACTS: readonly RedisArgument[] = ['', '', '', ''];

/** @returns arguments of `SET_BLOCK`: the block and what it hashes to */
export function blockArgs(key: string, block: Uint8Array, hash: BlockHash | undefined): RedisArgument[] {
  const isOfUse = hash !== undefined && hash.value.byteLength >= MIN_HASH_BYTES;
  const { digest, value }: BlockHash = isOfUse
    ? hash
    : { digest: 'sha256', value: nativeHashProvider.digest('sha256', block) };
  return [bytesOf(block), digest, Buffer.from(value), key];
}

/** @returns arguments of `SET_BLOCK`: what is known of the segment; copies, so that the caller may overwrite its own */
export function factArgs({ blockCount, secret, from = '' }: SegmentFacts, now: number): RedisArgument[] {
  return [String(blockCount), String(now), Buffer.from(secret ?? []), from.slice(0, MAX_FROM_LENGTH)];
}

/**
 * The block that Redis gave for {@link BLOCK_FIELDS}.
 *
 * @param check @default by the hash it was kept with
 * @returns in memory of its own; `absent`; or `damaged`: it is not what was kept under this key
 */
export function blockOf(reply: RedisReply, key: string, check?: BlockCheck): Uint8Array | 'absent' | 'damaged' {
  const fields = membersOf(reply);
  if (fields.length === BLOCK_FIELDS.length && fields.every((field) => field === null)) return 'absent';
  const [block, digest, hash, name] = fields;
  if (!Buffer.isBuffer(block) || String(name) !== key) return 'damaged';
  if (!(check === undefined ? matches(block, String(digest), hash) : check(block))) return 'damaged';
  if (block.buffer.byteLength === block.byteLength) return block;
  const copy = Buffer.allocUnsafeSlow(block.byteLength);
  copy.set(block);
  return copy;
}

/** What `READ_SEGMENT` replied; undefined when it cannot be. */
export function segmentOf(reply: RedisReply): HeldSegment | undefined {
  const [count, time, secret, from, indexes] = membersOf(reply);
  const [blockCount, since] = [Number(String(count)), Number(String(time))];
  const list = String(indexes);
  const blocks = list
    .split(',')
    .map(Number)
    .toSorted((a, b) => a - b);
  const isSound =
    isWithin(blockCount, 1, MAX_BLOCKS) &&
    isWithin(since, 0, Number.MAX_SAFE_INTEGER) &&
    /^\d{1,5}(?:,\d{1,5})*$/.test(list) &&
    blocks.every((index, at) => isWithin(index, at === 0 ? 0 : (blocks[at - 1] as number) + 1, MAX_BLOCKS - 1));
  if (!isSound || !isBytes(secret, MAX_SECRET_BYTES) || !isBytes(from, 4 * MAX_FROM_LENGTH)) return undefined;
  return {
    blocks,
    since,
    blockCount,
    secret: secret === null ? undefined : Uint8Array.from(secret),
    from: from === null ? undefined : String(from),
  };
}

function matches(block: Uint8Array, digest: string, hash: RedisReply | undefined): boolean {
  if (!isDigest(digest) || !Buffer.isBuffer(hash) || hash.byteLength < MIN_HASH_BYTES) return false;
  return equalInConstantTime(nativeHashProvider.digest(digest, block).subarray(0, hash.byteLength), hash);
}

function isDigest(name: string): name is DigestName {
  return name === 'sha256' || name === 'sha384' || name === 'sha512';
}

function isBytes(value: RedisReply | undefined, maxBytes: number): value is Buffer | null {
  return value === null || (Buffer.isBuffer(value) && value.byteLength <= maxBytes);
}

function isWithin(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most;
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
