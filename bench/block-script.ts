import { fromHex } from '../lib/bytes/index.ts';
import { encodeRequest, RETRIEVAL_PATH } from '../lib/protocol/pccrr/index.ts';
import type { DescribedContent } from '../lib/services/index.ts';
import { scratchFile } from './processes.ts';

/** A script for wrk that asks for the first so many blocks of a content, in turns. */
export function blockScript(content: DescribedContent, blocks: number): string {
  const messages = Array.from({ length: blocks }, (_, ordinal) => {
    const { segment, blockIndex } = content.block(ordinal);
    const segmentId = fromHex(content.segmentId(segment));
    const ranges = [{ index: blockIndex, count: 1 }];
    const message = encodeRequest({ type: 'get-blocks', cipher: 'aes-128', segmentId, ranges });
    return `"${[...message].map((byte) => `\\${byte}`).join('')}"`;
  });
  return scratchFile(
    'blocks.lua',
    `
  local bodies = {${messages.join(',')}}
  local at = 0
  request = function()
    at = at % #bodies + 1
    return wrk.format("POST", "${RETRIEVAL_PATH}", nil, bodies[at])
  end`,
  );
}
