/** A profile as requests in time order: the same profile, the same requests. Times do not depend on how anything is answered. */
import type { ByteRange } from '../../../lib/bytes/index.ts';
import { type LoadProfile, waveCount } from './profile.ts';
import { SeededRandom, Zipf } from './random.ts';

export interface PlannedRequest {
  /** Milliseconds after the start. */
  readonly atMs: number;
  readonly client: number;
  readonly object: number;
  /** What the origin has at that time. */
  readonly version: number;
  /** The whole object where there is none. */
  readonly range?: ByteRange;
  /** Body bytes after which the client goes away; undefined where it stays. */
  readonly abortAfterBytes?: number;
}

/** What a plan has to know of the objects; {@link Catalogue} is one. */
export interface Stock {
  versionAt(object: number, elapsedMs: number): number;
  bytesOf(object: number, version: number): number;
}

export function* planRequests(profile: LoadProfile, stock: Stock): Generator<PlannedRequest, undefined> {
  const waves = waveRequests(profile);
  let wave = waves.next().value;
  for (const arrival of arrivals(profile, stock)) {
    for (; wave !== undefined && wave.atMs <= arrival.atMs; wave = waves.next().value) yield wave;
    yield arrival;
  }
  for (; wave !== undefined; wave = waves.next().value) yield wave;
}

/** Poisson arrivals: the many who know nothing of each other. */
function* arrivals(profile: LoadProfile, stock: Stock): Generator<PlannedRequest, undefined> {
  const { seed, clients, ratePerSecond, durationMs, objects, zipfExponent, rangeShare, abortShare } = profile;
  if (ratePerSecond === 0) return;
  const purposes = ['times', 'clients', 'objects', 'ranges', 'aborts'] as const;
  const [times, who, what, ranges, aborts] = purposes.map((purpose) => new SeededRandom(seed, purpose)) as [
    SeededRandom,
    SeededRandom,
    SeededRandom,
    SeededRandom,
    SeededRandom,
  ];
  const popularity = new Zipf(objects, zipfExponent);
  let elapsedMs = 0;
  for (;;) {
    elapsedMs += (times.exponential() * 1000) / ratePerSecond;
    if (elapsedMs >= durationMs) return;
    const atMs = microseconds(elapsedMs);
    const object = popularity.pick(what);
    const version = stock.versionAt(object, atMs);
    // Of the first version: what lies in it lies in every later one too, whichever of them a cache may still hold.
    const bytes = stock.bytesOf(object, 0);
    const isRange = ranges.next() < rangeShare;
    const place = ranges.next();
    const length = Math.min(profile.rangeBytes, bytes);
    const range = { offset: Math.floor(place * (bytes - length + 1)), length };
    const isAborted = aborts.next() < abortShare;
    const patience = aborts.next();
    const abortAfterBytes = 1 + Math.floor(patience * (isRange ? length : bytes));
    yield {
      atMs,
      client: who.below(clients),
      object,
      version,
      ...(isRange ? { range } : {}),
      ...(isAborted ? { abortAfterBytes } : {}),
    };
  }
}

function* waveRequests(profile: LoadProfile): Generator<PlannedRequest, undefined> {
  const { seed, clients, objects, waves } = profile;
  if (waves === undefined) return;
  const times = new SeededRandom(seed, 'wave times');
  for (let wave = 0; wave < waveCount(profile); wave += 1) {
    const visits = Array.from({ length: clients }, (_, client) => {
      const atMs = microseconds(wave * waves.everyMs + times.next() * waves.withinMs);
      return { atMs, client, object: objects + wave, version: 0 };
    });
    yield* visits.toSorted((a, b) => a.atMs - b.atMs);
  }
}

function microseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
