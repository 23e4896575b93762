/** What a dashboard is told of the service it shows. */

/** Series as prom-client gives them as JSON: what `/metrics` says, so that both say the same. */
export type Samples = readonly {
  readonly name: string;
  readonly values: readonly {
    readonly labels: Readonly<Record<string, string | number | undefined>>;
    readonly value: number;
  }[];
}[];

/** A neighbour that is asked for blocks. */
export interface Neighbour {
  /** Address and port. */
  readonly name: string;
  readonly kind: 'peer' | 'hosted_cache';
  /** `new`: has not answered yet; `doubtful`: has failed since it last answered; `avoided`: left alone for a while. */
  readonly state: 'answers' | 'new' | 'doubtful' | 'avoided';
  /** Milliseconds of its time that one block takes, as far as that is known. */
  readonly blockMs?: number | undefined;
}

/** An answer that is being sent. */
export interface Download {
  readonly url: string;
  readonly seconds: number;
  readonly sentBytes: number;
  /** Of the body; undefined where that is not known. */
  readonly length?: number | undefined;
}

/** A content and what it has saved since the start. */
export interface SavedContent {
  readonly url: string;
  readonly savedBytes: number;
  readonly requests: number;
}

/** What is going on right now; lists are short. */
export interface Live {
  readonly neighbours: readonly Neighbour[];
  readonly downloads: readonly Download[];
  /** Of them, all that there are. */
  readonly downloadCount: number;
  /** Empty unless names may be shown. */
  readonly contents: readonly SavedContent[];
}

/** Bytes since the start of the service. */
export interface Totals {
  /** To clients: out of the own store, from peers, from hosted caches, from the origin. */
  readonly store: number;
  readonly peer: number;
  readonly hosted_cache: number;
  readonly origin: number;
  /** What clients were sent the hashes of instead. */
  readonly described: number;
  /** Blocks that a hosted cache gave to its clients. */
  readonly uploaded: number;
  /** Over the WAN. */
  readonly wan: number;
}

export const NO_TOTALS: Totals = { store: 0, peer: 0, hosted_cache: 0, origin: 0, described: 0, uploaded: 0, wan: 0 };

/** The bytes that the WAN did not have to carry; negative while a cold cache costs more than it saves. */
export function savedBytes({ store, peer, hosted_cache: hosted, origin, described, uploaded, wan }: Totals): number {
  return store + peer + hosted + origin + described + uploaded - wan;
}

/** Sum of a series, of those samples whose labels are as given. */
export function sumOf(samples: Samples, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const wanted = Object.entries(labels);
  const values = samples.find((family) => family.name === name)?.values ?? [];
  return values
    .filter((sample) => wanted.every(([label, value]) => sample.labels[label] === value))
    .reduce((sum, { value }) => sum + value, 0);
}

/** @param role what others upload counts where nobody else can tell what it saved: at a hosted cache */
export function totalsOf(samples: Samples, role: string): Totals {
  const delivered = (source: string): number => sumOf(samples, 'peerdist_delivered_bytes_total', { source });
  return {
    store: delivered('store'),
    peer: delivered('peer'),
    hosted_cache: delivered('hosted_cache'),
    origin: delivered('origin'),
    described: sumOf(samples, 'peerdist_described_bytes_total'),
    uploaded: role === 'hosted' ? sumOf(samples, 'peerdist_uploaded_bytes_total') : 0,
    wan: sumOf(samples, 'peerdist_wan_bytes_total'),
  };
}
