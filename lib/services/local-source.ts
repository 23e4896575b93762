import type { BlockStore } from '../stores/index.ts';
import type { BlockSource } from './block-source.ts';

/** Milliseconds the own store gets; then it is a store without the block. Policy, not protocol. */
export const LOCAL_DEADLINE_MS = 1_000;

/** The own store. Its blocks were verified when they went in. */
export function createLocalSource(
  store: BlockStore,
  { deadlineMs = LOCAL_DEADLINE_MS }: { readonly deadlineMs?: number } = {},
): BlockSource {
  return {
    name: 'store',
    trusted: true,
    deadlineMs,
    retrieve: ({ content, ordinal }) => store.get(content.key(content.block(ordinal))),
  };
}
