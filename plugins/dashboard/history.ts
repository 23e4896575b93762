import { NO_TOTALS, savedBytes, type Totals } from './facts.ts';

/** How long ago is looked at, and how finely. */
const SPANS = {
  hour: { bucketMs: 60_000, buckets: 60 },
  day: { bucketMs: 600_000, buckets: 144 },
  week: { bucketMs: 3_600_000, buckets: 168 },
  /** For reports; more than a year. */
  days: { bucketMs: 86_400_000, buckets: 400 },
} as const;

export type Span = keyof typeof SPANS;
const SPAN_NAMES = Object.keys(SPANS) as Span[];
const FIELDS = Object.keys(NO_TOTALS) as (keyof Totals)[];

/** What happened in a piece of time. */
export interface Bucket {
  /** Milliseconds since 1970. */
  readonly startMs: number;
  readonly bytes: Totals;
}

/** As it is kept: for each bucket its start and one number for each field. */
type Kept = Readonly<Record<Span, readonly (readonly number[])[]>>;

/** Bytes over time: an hour by minutes, a day by ten minutes, a week by hours, a year by days. */
export class History {
  readonly #buckets: Record<Span, Bucket[]>;
  #last: Totals = NO_TOTALS;

  /** @param kept what {@link encode} has made; anything else is an empty history */
  constructor(kept?: string) {
    this.#buckets = decode(kept);
  }

  /** @param totals since the start of the service; less than before means that it was started anew */
  add(nowMs: number, totals: Totals): void {
    const isNew = FIELDS.some((field) => totals[field] < this.#last[field]);
    const grown = combine(totals, isNew ? NO_TOTALS : this.#last, (now, before) => now - before);
    this.#last = totals;
    for (const span of SPAN_NAMES) {
      const { bucketMs, buckets } = SPANS[span];
      const startMs = Math.floor(nowMs / bucketMs) * bucketMs;
      const list = this.#buckets[span];
      if (FIELDS.every((field) => grown[field] === 0)) continue;
      // Where the clock says, also when it has been put back: what was later stays where it is.
      const at = list.findLastIndex((bucket) => bucket.startMs <= startMs);
      const there = list[at];
      if (there?.startMs === startMs) list[at] = { startMs, bytes: combine(there.bytes, grown, (a, b) => a + b) };
      else list.splice(at + 1, 0, { startMs, bytes: grown });
      if (list.length > buckets) list.splice(0, list.length - buckets);
    }
  }

  /** Those that something happened in, oldest first. */
  buckets(span: Span, nowMs: number): readonly Bucket[] {
    const { bucketMs, buckets } = SPANS[span];
    const since = (Math.floor(nowMs / bucketMs) - buckets) * bucketMs;
    return this.#buckets[span].filter(({ startMs }) => startMs > since && startMs <= nowMs);
  }

  /** Every bucket of a span up to now, with zeros where nothing happened. */
  filled(span: Span, nowMs: number): readonly Bucket[] {
    const { bucketMs, buckets } = SPANS[span];
    const known = new Map(this.#buckets[span].map((bucket) => [bucket.startMs, bucket]));
    const last = Math.floor(nowMs / bucketMs) * bucketMs;
    return Array.from({ length: buckets }, (_, index) => {
      const startMs = last - (buckets - 1 - index) * bucketMs;
      return known.get(startMs) ?? { startMs, bytes: NO_TOTALS };
    });
  }

  /** All of a span together. */
  sum(span: Span, nowMs: number): Totals {
    return this.buckets(span, nowMs).reduce((sum, { bytes }) => combine(sum, bytes, (a, b) => a + b), NO_TOTALS);
  }

  encode(): string {
    const rows = (span: Span): number[][] =>
      this.#buckets[span].map(({ startMs, bytes }) => [startMs, ...FIELDS.map((field) => bytes[field])]);
    return JSON.stringify(Object.fromEntries(SPAN_NAMES.map((span) => [span, rows(span)])));
  }
}

/** What a day saved, for reports. */
export interface SavedDay {
  /** `2026-11-27`, UTC. */
  readonly day: string;
  readonly deliveredBytes: number;
  readonly wanBytes: number;
  readonly savedBytes: number;
}

export function savedDays(history: History, nowMs: number): SavedDay[] {
  return history.buckets('days', nowMs).map(({ startMs, bytes }) => ({
    day: new Date(startMs).toISOString().slice(0, 10),
    deliveredBytes: savedBytes(bytes) + bytes.wan,
    wanBytes: bytes.wan,
    savedBytes: savedBytes(bytes),
  }));
}

function combine(first: Totals, second: Totals, by: (a: number, b: number) => number): Totals {
  return Object.fromEntries(FIELDS.map((field) => [field, by(first[field], second[field])])) as unknown as Totals;
}

function decode(kept: string | undefined): Record<Span, Bucket[]> {
  const empty = { hour: [], day: [], week: [], days: [] };
  if (kept === undefined) return empty;
  try {
    const rows = JSON.parse(kept) as Kept;
    const isRow = (row: readonly number[]): boolean => row.length === FIELDS.length + 1 && row.every(Number.isFinite);
    const read = (span: Span): Bucket[] =>
      rows[span]
        .filter(isRow)
        .slice(-SPANS[span].buckets)
        .map(([startMs = 0, ...bytes]) => ({
          startMs,
          bytes: Object.fromEntries(FIELDS.map((field, index) => [field, bytes[index]])) as unknown as Totals,
        }));
    return { hour: read('hour'), day: read('day'), week: read('week'), days: read('days') };
  } catch {
    // A history that cannot be read is worth no more than none.
    return empty;
  }
}
