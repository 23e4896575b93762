import type { Observer } from '../../lib/observer.ts';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import type { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import type { ContentInformationStore, RecordStore } from '../../lib/stores/index.ts';
import { assertAmounts, assertKnownOptions, assertNoParts } from './closed-options.ts';

/** What the adapters on the side of the server take. */
export interface PublishingOptions {
  /** Publishes and answers; stays open when the adapter is closed. @default one of the adapter's own, made of the next two */
  readonly peerdist?: PeerDist | undefined;
  /** The same secret gives the same content information after a restart and on other machines. @default 32 random bytes */
  readonly serverSecret?: ServerSecret | undefined;
  /** Keeps content information. @default in memory, 64 MiB */
  readonly contentInformationStore?: ContentInformationStore | undefined;
  /** Keeps across restarts what is known of answers; the store of content information has to be durable too. @default in memory */
  readonly records?: RecordStore | undefined;
  /** Bytes below which a body is not published. @default 65536, as Windows */
  readonly minBytes?: number | undefined;
  /** Bytes above which a body is not published. @default Infinity */
  readonly maxBytes?: number | undefined;
  /** Told what happens, for metrics. */
  readonly observer?: Observer | undefined;
}

const NAMES: readonly (keyof PublishingOptions)[] = [
  'peerdist',
  'serverSecret',
  'contentInformationStore',
  'records',
  'minBytes',
  'maxBytes',
  'observer',
];

/** @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function assertPublishingOptions(options: PublishingOptions): void {
  assertKnownOptions(options, NAMES);
  const { peerdist, serverSecret, contentInformationStore, minBytes, maxBytes } = options;
  assertNoParts(peerdist, { serverSecret, contentInformationStore });
  assertAmounts({ minBytes, maxBytes });
}
