import type { LoadProfile } from './profile.ts';

const KIB = 2 ** 10;
const MIB = 2 ** 20;

/** Policy, not protocol: sizes and rates of offices with a few dozen machines. */
const PROFILES: readonly LoadProfile[] = [
  {
    name: 'office',
    seed: 1,
    clients: 40,
    ratePerSecond: 20,
    durationMs: 60_000,
    objects: 500,
    size: { medianBytes: 256 * KIB, sigma: 1.5 },
    zipfExponent: 0.9,
    rangeShare: 0.1,
    rangeBytes: 64 * KIB,
    abortShare: 0.03,
    maxAgeMs: 5_000,
    waves: { everyMs: 30_000, withinMs: 20_000, bytes: 8 * MIB, editBytes: 0 },
    updates: { everyMs: 3_000, editBytes: 4 * KIB },
  },
  {
    name: 'update-wave',
    seed: 1,
    clients: 50,
    ratePerSecond: 2,
    durationMs: 120_000,
    objects: 100,
    size: { medianBytes: 64 * KIB, sigma: 1 },
    zipfExponent: 0.9,
    rangeShare: 0,
    rangeBytes: 64 * KIB,
    abortShare: 0,
    maxAgeMs: 3_600_000,
    waves: { everyMs: 60_000, withinMs: 60_000, bytes: 32 * MIB, editBytes: 0 },
  },
  {
    name: 'ranges',
    seed: 1,
    clients: 40,
    ratePerSecond: 200,
    durationMs: 60_000,
    objects: 20,
    size: { medianBytes: 16 * MIB, sigma: 0.5 },
    zipfExponent: 0.9,
    rangeShare: 1,
    rangeBytes: 64 * KIB,
    abortShare: 0.02,
    maxAgeMs: 3_600_000,
  },
  {
    name: 'images',
    seed: 1,
    clients: 10,
    ratePerSecond: 0.2,
    durationMs: 120_000,
    objects: 3,
    size: { medianBytes: 512 * MIB, sigma: 0.3 },
    zipfExponent: 0.5,
    rangeShare: 0.2,
    rangeBytes: 64 * MIB,
    abortShare: 0.05,
    maxAgeMs: 3_600_000,
  },
];

export const PROFILE_NAMES: readonly string[] = PROFILES.map(({ name }) => name);

/** Undefined for a name that none has. */
export function namedProfile(name: string): LoadProfile | undefined {
  return PROFILES.find((profile) => profile.name === name);
}
