import { type Live, type Samples, savedBytes, sumOf, type Totals, totalsOf } from './facts.ts';
import type { History, Span } from './history.ts';

/** Who is shown. */
export interface Identity {
  readonly role: string;
  readonly version: string;
  readonly site?: string | undefined;
}

/** Something that an administrator should know, and how often it has happened. */
export interface Concern {
  readonly text: string;
  readonly count: number;
}

/** The state of a service, as the page gets it once a second. */
export interface Snapshot extends Identity {
  readonly showsNames: boolean;
  readonly atMs: number;
  readonly isReady: boolean;
  /** What it has to do without, in words. */
  readonly trouble: string | undefined;
  readonly totals: Totals;
  readonly savedBytes: number;
  readonly wan: Readonly<Record<'content_information' | 'missing_data' | 'plain', number>>;
  readonly requests: number;
  readonly uploadedBytes: number;
  /** What was saved lately. */
  readonly saved: Readonly<Record<Exclude<Span, 'days'>, number>>;
  readonly stores: readonly { readonly name: string; readonly bytes: number; readonly limit: number }[];
  readonly concerns: readonly Concern[];
  readonly live: Live;
}

export function takeSnapshot(
  identity: Identity & { readonly showsNames: boolean },
  samples: Samples,
  history: History,
  {
    atMs,
    isReady,
    trouble,
    live,
  }: { readonly atMs: number; readonly isReady: boolean; readonly trouble: string | undefined; readonly live: Live },
): Snapshot {
  const totals = totalsOf(samples, identity.role);
  const wan = (kind: string): number => sumOf(samples, 'peerdist_wan_bytes_total', { kind });
  const saved = (span: Span): number => savedBytes(history.sum(span, atMs));
  return {
    ...identity,
    atMs,
    isReady,
    trouble,
    totals,
    savedBytes: savedBytes(totals),
    wan: {
      content_information: wan('content_information'),
      missing_data: wan('missing_data'),
      plain: wan('plain'),
    },
    requests: sumOf(samples, 'peerdist_exchanges_total'),
    uploadedBytes: sumOf(samples, 'peerdist_uploaded_bytes_total'),
    saved: { hour: saved('hour'), day: saved('day'), week: saved('week') },
    stores: storesOf(samples, identity.role),
    concerns: concernsOf(samples),
    live,
  };
}

/** Head office has no blocks. */
function storesOf(samples: Samples, role: string): Snapshot['stores'] {
  return (role === 'reverse' ? ['content_information'] : ['block', 'content_information'])
    .map((store) => ({
      name: store,
      bytes: sumOf(samples, 'peerdist_store_bytes', { store }),
      limit: sumOf(samples, 'peerdist_store_limit_bytes', { store }),
    }))
    .filter(({ bytes, limit }) => bytes > 0 || limit > 0);
}

/** Samples that are nothing to worry about while they are 0. */
const CONCERNS: readonly (readonly [text: string, name: string, labels: Readonly<Record<string, string>>])[] = [
  ['Requests that failed with a server error (5xx)', 'peerdist_exchanges_total', { status: '5xx' }],
  [
    'Blocks from peers or caches that were not what they should be; they were fetched again',
    'peerdist_block_verifications_total',
    { result: 'mismatch' },
  ],
  ['Peers left alone for a while, because they failed or lied', 'peerdist_peer_bans_total', {}],
  [
    'Answers of head office that could not be used as content information',
    'peerdist_content_information_total',
    { result: 'rejected' },
  ],
  ['Times a store could not do its work; clients did not notice', 'peerdist_store_faults_total', {}],
  ['Segments that no hosted cache took', 'peerdist_offered_segments_total', { result: 'failed' }],
  ['Bodies whose hashing failed', 'peerdist_publications_total', { result: 'failed' }],
  ['Requests in which a plug-in failed and was skipped', 'peerdist_plugin_failures_total', {}],
];

function concernsOf(samples: Samples): Concern[] {
  return CONCERNS.map(([text, name, labels]) => ({ text, count: sumOf(samples, name, labels) })).filter(
    ({ count }) => count > 0,
  );
}
