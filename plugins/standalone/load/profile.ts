/** What a load is like. The same profile is the same load: times, clients, objects, ranges and every byte. */
import { PeerDistError } from '../../../lib/errors.ts';

export interface LoadProfile {
  readonly name: string;
  /** 0 to 2^32 - 1. */
  readonly seed: number;
  readonly clients: number;
  /** Requests of all clients together, those of waves not counted. They arrive whether or not earlier ones were answered. 0: waves only. */
  readonly ratePerSecond: number;
  /** A wave that has begun by then goes on to its end. */
  readonly durationMs: number;
  readonly objects: number;
  readonly size: ObjectSize;
  /** How much more popular the first objects are; 0: all alike. */
  readonly zipfExponent: number;
  /** Share of the requests that ask for a range, 0 to 1. */
  readonly rangeShare: number;
  readonly rangeBytes: number;
  /** Share of the requests that the client breaks off somewhere, 0 to 1. */
  readonly abortShare: number;
  /** How long the origin lets a cache keep an object without asking; 0: it has to ask each time. */
  readonly maxAgeMs: number;
  readonly waves?: Waves;
  readonly updates?: Updates;
}

/** Log-normal; all alike with a sigma of 0. */
export interface ObjectSize {
  readonly medianBytes: number;
  readonly sigma: number;
}

/** A new file at regular times, the first one at the start, that every client fetches once. */
export interface Waves {
  readonly everyMs: number;
  /** Each client comes at some moment of this time. At most `everyMs`. */
  readonly withinMs: number;
  readonly bytes: number;
  /** 0: nothing like the file before. Otherwise the file before, with so many bytes inserted somewhere, under a new name. */
  readonly editBytes: number;
}

/** At regular times some object gets a new version under its old name: the old one with bytes inserted somewhere. */
export interface Updates {
  readonly everyMs: number;
  readonly editBytes: number;
}

const DAY_MS = 86_400_000;
/** Largest object, 64 GiB. */
export const MAX_OBJECT_BYTES = 2 ** 36;
/** Requests that rate and duration may come to. */
const MAX_ARRIVALS = 20_000_000;
/** New versions in one run. */
const MAX_UPDATES = 10_000;
const MAX_WAVES = 1_000;
const MAX_NAME_LENGTH = 80;

type Bounds = readonly [min: number, max: number, kind?: 'whole'];

const BOUNDS: Readonly<Record<string, Bounds>> = {
  seed: [0, 2 ** 32 - 1, 'whole'],
  clients: [1, 10_000, 'whole'],
  ratePerSecond: [0, 100_000],
  durationMs: [1, DAY_MS],
  objects: [1, 1_000_000, 'whole'],
  'size.medianBytes': [1, MAX_OBJECT_BYTES],
  'size.sigma': [0, 5],
  zipfExponent: [0, 5],
  rangeShare: [0, 1],
  rangeBytes: [1, MAX_OBJECT_BYTES, 'whole'],
  abortShare: [0, 1],
  maxAgeMs: [0, 365 * DAY_MS],
  'waves.everyMs': [1, DAY_MS],
  'waves.withinMs': [0, DAY_MS],
  'waves.bytes': [1, MAX_OBJECT_BYTES, 'whole'],
  'waves.editBytes': [0, 2 ** 30, 'whole'],
  'updates.everyMs': [1, DAY_MS],
  'updates.editBytes': [1, 2 ** 30, 'whole'],
};
const GROUPS = ['size', 'waves', 'updates'] as const;
const OPTIONAL_GROUPS: ReadonlySet<string> = new Set(['waves', 'updates']);

/**
 * A profile out of a file, or put together of options.
 *
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` in a line that names the member
 */
export function checkProfile(value: unknown): LoadProfile {
  const flat = flatten(value);
  const { name } = value as { name: unknown };
  if (typeof name !== 'string' || name === '' || name.length > MAX_NAME_LENGTH) throw invalid('name is a short text');
  for (const key of flat.keys()) if (BOUNDS[key] === undefined) throw invalid(`${key} is not known`);
  for (const [key, bounds] of Object.entries(BOUNDS)) {
    const [group = ''] = key.split('.');
    const isLeftOut = OPTIONAL_GROUPS.has(group) && (value as Record<string, unknown>)[group] === undefined;
    if (!isLeftOut) checkNumber(key, flat.get(key), bounds);
  }
  const profile = value as LoadProfile;
  const { ratePerSecond, durationMs, waves, updates } = profile;
  if ((ratePerSecond * durationMs) / 1000 > MAX_ARRIVALS)
    throw invalid(`rate and duration come to more than ${MAX_ARRIVALS} requests`);
  if (waves !== undefined && waves.withinMs > waves.everyMs) throw invalid('a wave ends before the next one begins');
  if (waveCount(profile) > MAX_WAVES) throw invalid(`there are more than ${MAX_WAVES} waves`);
  if (updates !== undefined && updateCount(profile) > MAX_UPDATES)
    throw invalid(`there are more than ${MAX_UPDATES} new versions`);
  if (ratePerSecond === 0 && waves === undefined) throw invalid('there is neither a rate nor a wave');
  return profile;
}

/** Files that come by waves. */
export function waveCount({ waves, durationMs }: LoadProfile): number {
  return waves === undefined ? 0 : Math.ceil(durationMs / waves.everyMs);
}

/** New versions that come while the profile lasts; none at its very start or end. */
export function updateCount({ updates, durationMs }: LoadProfile): number {
  return updates === undefined ? 0 : Math.ceil(durationMs / updates.everyMs) - 1;
}

/** Milliseconds after the start at which no more requests are planned. */
export function planEndMs(profile: LoadProfile): number {
  const { waves, durationMs } = profile;
  if (waves === undefined) return durationMs;
  return Math.max(durationMs, (waveCount(profile) - 1) * waves.everyMs + waves.withinMs);
}

function flatten(value: unknown): Map<string, unknown> {
  const flat = new Map(Object.entries(members('it', value)));
  flat.delete('name');
  for (const group of GROUPS) {
    const inner = flat.get(group);
    flat.delete(group);
    if (inner === undefined) continue;
    for (const [key, member] of Object.entries(members(group, inner))) flat.set(`${group}.${key}`, member);
  }
  return flat;
}

function members(what: string, value: unknown): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`${what} is not an object`);
  return value;
}

function checkNumber(key: string, value: unknown, [min, max, kind]: Bounds): void {
  const fits =
    typeof value === 'number' && value >= min && value <= max && (kind === undefined || Number.isInteger(value));
  if (!fits) throw invalid(`${key} is a ${kind ?? ''} number from ${min} to ${max}`.replace('  ', ' '));
}

function invalid(what: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `not a profile: ${what}`);
}
