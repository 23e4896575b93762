/** The content that peers and clients of the benchmark agree on without a word: seeded bytes under a known secret. */
import { nativeHashProvider } from '../lib/crypto/index.ts';
import { ServerSecret } from '../lib/protocol/pccrc/index.ts';
import { DescribedContent } from '../lib/services/index.ts';
import { InlineHashing } from '../lib/streams/index.ts';
import { MiB, seededBytes } from './measure.ts';

export interface PeerContent {
  readonly bytes: Buffer;
  readonly content: DescribedContent;
}

export function peerContent(version: 1 | 2, megabytes: number): PeerContent {
  const bytes = seededBytes(megabytes * MiB);
  const hashing = new InlineHashing({
    provider: nativeHashProvider,
    secret: ServerSecret.fromText('bench'),
    versions: [version],
  });
  hashing.push(bytes);
  const [information] = hashing.finish();
  if (information === undefined) throw new Error('no content information');
  return { bytes, content: new DescribedContent(information, nativeHashProvider) };
}
