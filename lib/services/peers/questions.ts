/** The two questions a branch puts to a peer, and what an honest answer to each must be (MS-PCCRR 3.1.5). */
import { fromHex } from '../../bytes/index.ts';
import { type CipherName, decryptBlock } from '../../crypto/index.ts';
import type { ContentBlock } from '../../protocol/pccrc/index.ts';
import {
  decodeResponse,
  encodeRequest,
  MAX_SEGMENT_BLOCKS,
  namedBlocks,
  type ResponseMessage,
} from '../../protocol/pccrr/index.ts';
import { isPeerDistError } from '../../errors.ts';
import type { DescribedContent } from '../described-content.ts';
import { PeerError } from './exchange.ts';

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
  const segmentId = fromHex(content.segmentId(block.segment));
  const ranges = [{ index: block.blockIndex, count: 1 }];
  return {
    message: encodeRequest({ type: 'get-blocks', cipher: PREFERRED_CIPHER, segmentId, ranges }),
    maxBytes: block.length + ANSWER_OVERHEAD_BYTES,
    read: (answer) => {
      const message = readResponse(answer);
      const isFitting =
        message.type === 'block' &&
        message.blockIndex === block.blockIndex &&
        Buffer.compare(message.segmentId, segmentId) === 0;
      if (!isFitting) throw lie('another block than was asked for');
      if (message.data.byteLength === 0) return undefined;
      const secret = content.information.segmentSecret(block.segment);
      const bytes = decryptBlock(message.cipher, secret, message, block.length);
      if (bytes !== undefined && content.verify(block, bytes)) return bytes;
      // Microsoft's test peers encrypt with all of Kp, whatever cipher they name.
      if (message.cipher === 'aes-128' || message.cipher === 'aes-192') {
        const others = decryptBlock('aes-256', secret, message, block.length);
        if (others !== undefined && content.verify(block, others)) return others;
      }
      throw lie('the block does not match its hash');
    },
  };
}

/** Which blocks of a version 1 segment a peer has: one flag for each. */
export function blockListQuestion(content: DescribedContent, segment: number): Question<readonly boolean[]> {
  const segmentId = fromHex(content.segmentId(segment));
  const ranges = [{ index: 0, count: content.segmentFacts(segment).blockCount }];
  return {
    message: encodeRequest({ type: 'get-block-list', cipher: PREFERRED_CIPHER, segmentId, ranges }),
    maxBytes: ANSWER_OVERHEAD_BYTES + 8 * MAX_SEGMENT_BLOCKS,
    read: (answer) => {
      const message = readResponse(answer);
      // Windows does not look at the segment ID here; the connection says which question this answers.
      if (message.type !== 'block-list') throw lie('no list of blocks');
      return namedBlocks(message.ranges);
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
