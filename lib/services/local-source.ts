import type { BlockStore, MaybePromise } from '../stores/index.ts';
import type { BlockRequest, BlockSource } from './block-source.ts';

/** Milliseconds the own store gets; then it is a store without the block. Policy, not protocol. */
export const LOCAL_DEADLINE_MS = 1_000;

/** A source that needs to know no more than which block. */
export interface LocalSource extends BlockSource {
  readonly deadlineMs: number;
  retrieve(
    request: Pick<BlockRequest, 'content' | 'ordinal'>,
    options?: { readonly signal: AbortSignal },
  ): MaybePromise<Uint8Array | undefined>;
}

/** The own store. Its blocks were verified when they went in; those of a durable one are again when the process first reads them. */
export function createLocalSource(
  store: BlockStore,
  { deadlineMs = LOCAL_DEADLINE_MS }: { readonly deadlineMs?: number } = {},
): LocalSource {
  return {
    name: 'store',
    trusted: true,
    deadlineMs,
    retrieve: ({ content, ordinal }) =>
      store.get(content.keyOf(ordinal), (bytes) => content.verify(content.block(ordinal), bytes)),
  };
}
