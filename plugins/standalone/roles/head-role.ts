/** Composition of the role `head`: the far end of paired proxies, which describes whatever origins send. */
import { hashProvider } from '../../../lib/crypto/index.ts';
import { Kit } from '../../../lib/kit/index.ts';
import { PeerDist } from '../../../lib/peerdist/index.ts';
import { namedRecords } from '../../../lib/stores/index.ts';
import { HashingPool } from '../../../lib/streams/index.ts';
import { createBlockCache } from '../../block-cache/index.ts';
import { createContentServer, type HashUnknownOptions } from '../../content-server/index.ts';
import { HttpProxyHost } from '../../http-proxy/index.ts';
import type { Live } from '../../dashboard/index.ts';
import type { Member } from '../crew/member.ts';
import { hostOptions, largestContent, liveOf, open, PUBLISHER, type ReverseOptions, startProxy } from './roles.ts';
import type { Service } from './service.ts';

export interface HeadOptions extends Omit<ReverseOptions, 'origin' | 'preserveHost'> {
  /** Fetches unknown content before it answers a hash request for it; undefined does not. */
  readonly hashUnknown: HashUnknownOptions | undefined;
}

/** What the content server knows of resources lies beside what the block cache knows of the same ones. */
export const PUBLISHED_RECORDS = 'published\n';

/**
 * A forward proxy that answers branches with content information. Nearest to them is the content server; behind it a block cache keeps what
 * origins describe, so that ranges the branches miss need not be asked of the origin again.
 *
 * @param member where this process is one of several
 */
export async function startHead(options: HeadOptions, member?: Member): Promise<Service> {
  const { metrics, admin, stores } = await open('head', options, member);
  const { observer } = metrics;
  const threads = options.hashThreads ?? 2;
  const pool = threads === 0 ? undefined : new HashingPool(threads);
  const provider = hashProvider(options.hashProvider ?? 'native');
  const publishing = await PeerDist.open({
    identity: PUBLISHER,
    serverSecret: options.secret,
    algorithm: options.algorithm,
    components: {
      hashProvider: provider,
      contentInformationStore: stores.contentInformation,
      createEngine: pool && ((hashing) => pool.createEngine(hashing)),
      observer,
    },
  });
  const caching = await PeerDist.open({
    components: { hashProvider: provider, blockStore: stores.blocks, claims: member?.claims, observer },
  });
  const contentServer = createContentServer({
    peerdist: publishing,
    minBytes: options.minBytes,
    maxBytes: options.maxBytes,
    hashUnknown: options.hashUnknown,
    records: stores.records && namedRecords(stores.records, PUBLISHED_RECORDS),
    claims: stores.claims ?? member?.claims,
    observer,
  });
  const blockCache = createBlockCache({
    peerdist: caching,
    maxContentBytes: largestContent(options.store),
    records: stores.records,
    observer,
  });
  const kit = new Kit({ plugins: [contentServer, blockCache], observer });
  const host = new HttpProxyHost(hostOptions(options, kit, observer));
  const live = async (): Promise<Live> => ({ ...liveOf(options), neighbours: [] });
  const display = { ...options, role: 'head', live };
  const onStop = async (): Promise<void> => {
    await caching.close();
    await pool?.close();
  };
  return startProxy({ ...options, admin, display, host, kit, peerdist: publishing, metrics, stores, onStop });
}
