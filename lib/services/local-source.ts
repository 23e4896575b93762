import type { BlockStore } from '../stores/index.ts';
import type { BlockSource } from './block-source.ts';

/** The own store. Its blocks were verified when they went in. */
export function createLocalSource(
  store: BlockStore,
  { deadlineMs = 1_000 }: { readonly deadlineMs?: number } = {},
): BlockSource {
  return {
    name: 'store',
    trusted: true,
    deadlineMs,
    retrieve: ({ content, ordinal }) => store.get(content.key(content.block(ordinal))),
  };
}
