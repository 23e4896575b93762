/** The questions put to peers and hosted caches, and what an honest answer to each must be (MS-PCCRR 3.1.5). */
import { randomBytes } from 'node:crypto';
import { fromHex } from '../../bytes/index.ts';
import type { CipherName } from '../../crypto/index.ts';
import type { ContentBlock } from '../../protocol/pccrc/index.ts';
import {
  decodeResponse,
  encodeRequest,
  MAX_SEGMENT_BLOCKS,
  namedBlocks,
  REQUEST_ID_BYTES,
  type ResponseMessage,
} from '../../protocol/pccrr/index.ts';
import { isPeerDistError } from '../../errors.ts';
import type { DescribedContent } from '../described-content.ts';
import { isSealedLength, type SealedBlock, unseal } from '../sealed-block.ts';
import { MismatchError, PeerError } from './exchange.ts';

/** Asked for, though every peer chooses for itself (2.2.3). */
const PREFERRED_CIPHER: CipherName = 'aes-128';
/** Bytes of an answer around its data: length, header, segment ID, lengths, padding, vector. */
const ANSWER_OVERHEAD_BYTES = 256;

export interface Question<T> {
  readonly message: Uint8Array;
  /** No honest answer is longer. */
  readonly maxBytes: number;
  /** What the answer says, in memory of its own. @throws {@link PeerError} `lied` for what no honest peer would send, `failed` for one that cannot be talked to */
  readonly read: (answer: Uint8Array) => T;
}

/** For one block: its verified bytes, or undefined where the peer has it not. */
export function blockQuestion(content: DescribedContent, block: ContentBlock): Question<Uint8Array | undefined> {
  const sealed = sealedBlockQuestion(content.segmentId(block.segment), block.blockIndex, block.length);
  return {
    ...sealed,
    read: (answer) => {
      const message = readBlock(sealed, answer);
      if (message === undefined) return undefined;
      const bytes = unseal(content, block, message);
      if (bytes === undefined) throw new MismatchError();
      return bytes;
    },
  };
}

/**
 * For one block as it is encrypted, which only who knows its hash can check: a view on the answer, or undefined where the peer has it not.
 *
 * @param length bytes the block is said to have
 */
export function sealedBlockQuestion(
  segmentId: string,
  blockIndex: number,
  length: number,
): BlockQuestion & Question<SealedBlock | undefined> {
  const id = fromHex(segmentId);
  const ranges = [{ index: blockIndex, count: 1 }];
  const question = {
    id,
    blockIndex,
    message: encodeRequest({ type: 'get-blocks', cipher: PREFERRED_CIPHER, segmentId: id, ranges }),
    maxBytes: length + ANSWER_OVERHEAD_BYTES,
  };
  return {
    ...question,
    read: (answer) => {
      const message = readBlock(question, answer);
      if (message !== undefined && !isSealedLength(message, length)) throw lie('a block of another length');
      return message;
    },
  };
}

interface BlockQuestion {
  readonly id: Uint8Array;
  readonly blockIndex: number;
}

function readBlock({ id, blockIndex }: BlockQuestion, answer: Uint8Array): SealedBlock | undefined {
  const message = readResponse(answer);
  const isFitting =
    message.type === 'block' && message.blockIndex === blockIndex && Buffer.compare(message.segmentId, id) === 0;
  if (!isFitting) throw lie('another block than was asked for');
  return message.data.byteLength === 0 ? undefined : message;
}

/** Which of the blocks of a segment somebody has: one flag for each. */
export function blockListQuestion(segmentId: string, blockCount: number): Question<readonly boolean[]> {
  const ranges = [{ index: 0, count: blockCount }];
  return {
    message: encodeRequest({
      type: 'get-block-list',
      cipher: PREFERRED_CIPHER,
      segmentId: fromHex(segmentId),
      ranges,
    }),
    maxBytes: ANSWER_OVERHEAD_BYTES + 8 * MAX_SEGMENT_BLOCKS,
    read: (answer) => {
      const message = readResponse(answer);
      // Windows does not look at the segment ID here; the connection says which question this answers.
      if (message.type !== 'block-list') throw lie('no list of blocks');
      return namedBlocks(message.ranges);
    },
  };
}

/** Which segments a hosted cache has some of: one flag for each. @param segmentIds at most 512 */
export function segmentListQuestion(segmentIds: readonly string[]): Question<readonly boolean[]> {
  const requestId = randomBytes(REQUEST_ID_BYTES);
  return {
    message: encodeRequest({
      type: 'get-segment-list',
      cipher: PREFERRED_CIPHER,
      requestId,
      segmentIds: segmentIds.map(fromHex),
      blob: new Uint8Array(0),
    }),
    // Ranges and ages.
    maxBytes: ANSWER_OVERHEAD_BYTES + 16 * segmentIds.length,
    read: (answer) => {
      const message = readResponse(answer);
      if (message.type !== 'segment-list' || Buffer.compare(message.requestId, requestId) !== 0)
        throw lie('no list of segments');
      return namedBlocks(message.ranges).slice(0, segmentIds.length);
    },
  };
}

function readResponse(answer: Uint8Array): ResponseMessage {
  let message: ReturnType<typeof decodeResponse>;
  try {
    message = decodeResponse(answer);
  } catch (error) {
    throw isPeerDistError(error, 'ERR_PEERDIST_MALFORMED_MESSAGE') ? lie('a malformed message', error) : error;
  }
  if (message.type === 'negotiation-response' || message.type === 'unknown-version')
    throw new PeerError('failed', 'the peer speaks another version of the protocol');
  return message;
}

function lie(message: string, cause?: unknown): PeerError {
  return new PeerError('lied', message, cause);
}
