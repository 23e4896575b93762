/** The options of `peerdist load` that make a profile: a named one or one of a file, each part of which can be overridden. */
import { readFileSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { PeerDistError } from '../../../lib/errors.ts';
import { DURATION, type Kind, kindOf, numberFrom, setting, SIZE, TEXT } from '../options/settings.ts';
import { parseSize } from '../options/units.ts';
import { checkProfile, type LoadProfile, type ObjectSize } from './profile.ts';
import { namedProfile, PROFILE_NAMES } from './profiles.ts';

export interface ProfileValues {
  readonly profile: string;
  readonly seed?: number;
  readonly clients?: number;
  readonly rate?: number;
  readonly duration?: number;
  readonly objects?: number;
  readonly size?: ObjectSize;
  readonly zipf?: number;
  readonly ranges?: number;
  readonly rangeSize?: number;
  readonly aborts?: number;
  readonly maxAge?: number;
  readonly waveEvery?: number;
  readonly waveWithin?: number;
  readonly waveSize?: number;
  readonly waveEdit?: number;
  readonly editEvery?: number;
  readonly editSize?: number;
}

/** Of a wave or an update that only its time was said of. */
const DEFAULT_WAVE_BYTES = 32 * 2 ** 20;
const DEFAULT_EDIT_BYTES = 4 * 2 ** 10;
const MAX_PROFILE_FILE_BYTES = 64 * 2 ** 20;
/** What only the tool's own origin can do. */
const ORIGIN_ONLY = {
  objects: '--objects',
  size: '--size',
  ranges: '--ranges',
  rangeSize: '--range-size',
  aborts: '--aborts',
  maxAge: '--max-age',
  waveEvery: '--wave-every',
  waveWithin: '--wave-within',
  waveSize: '--wave-size',
  waveEdit: '--wave-edit',
  editEvery: '--edit-every',
  editSize: '--edit-size',
} as const satisfies Partial<Record<keyof ProfileValues, string>>;

export function addProfileOptions(command: Command): Command {
  const names = PROFILE_NAMES.join(', ');
  const add = (flags: string, description: string, kind: Kind, text?: string): void => {
    command.addOption(setting(flags, description, kind, text));
  };
  add('--profile <name|file>', `${names}, or a file with a profile or a report of --json`, TEXT, 'office');
  add('--seed <number>', 'another seed: other times, objects and bytes', numberFrom('--seed', 0, 2 ** 32 - 1));
  add('--clients <number>', 'simulated clients', numberFrom('--clients', 1, 10_000));
  add('--rate <number>', 'requests a second of all clients together; 0: waves only', decimalOf('--rate'));
  add('--duration <time>', 'how long requests are planned for', DURATION);
  add('--objects <number>', 'objects of the origin', numberFrom('--objects', 1, 1_000_000));
  add(
    '--size <size[~sigma]>',
    'median of their sizes, and how far they spread (log-normal)',
    kindOf('a size like 256KiB or 256KiB~1.5', parseObjectSize),
  );
  add('--zipf <number>', 'how much more popular the first ones are; 0: all alike', decimalOf('--zipf'));
  add('--ranges <percent>', 'requests that ask for a range', percentOf('--ranges'));
  add('--range-size <size>', 'length of a range', SIZE);
  add('--aborts <percent>', 'requests that the client breaks off', percentOf('--aborts'));
  add('--max-age <time>', 'how long caches may keep an object without asking; 0: they ask each time', DURATION);
  add('--wave-every <time>', 'a new file that every client fetches; 0: none', DURATION);
  add('--wave-within <time>', 'time in which all clients fetch it', DURATION);
  add('--wave-size <size>', 'its size', SIZE);
  add('--wave-edit <size>', 'it is the file before with so many bytes inserted; 0: all new', SIZE);
  add('--edit-every <time>', 'some object gets a version with bytes inserted; 0: never', DURATION);
  add('--edit-size <size>', 'how many bytes', SIZE);
  return command;
}

/**
 * @param urlCount URLs of a list in place of the own origin
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export function profileOf(values: ProfileValues, urlCount: number | undefined): LoadProfile {
  const base = namedProfile(values.profile) ?? readProfile(values.profile);
  const profile: LoadProfile = {
    ...base,
    seed: values.seed ?? base.seed,
    clients: values.clients ?? base.clients,
    ratePerSecond: values.rate ?? base.ratePerSecond,
    durationMs: values.duration ?? base.durationMs,
    zipfExponent: values.zipf ?? base.zipfExponent,
  };
  return checkProfile(urlCount === undefined ? originProfile(profile, values) : listProfile(profile, values, urlCount));
}

function originProfile(profile: LoadProfile, values: ProfileValues): LoadProfile {
  const { waves: oldWaves, updates: oldUpdates, ...rest } = profile;
  const waves = wavesOf(oldWaves, values);
  const updates = updatesOf(oldUpdates, values);
  return {
    ...rest,
    objects: values.objects ?? rest.objects,
    size: values.size ?? rest.size,
    rangeShare: values.ranges ?? rest.rangeShare,
    rangeBytes: values.rangeSize ?? rest.rangeBytes,
    abortShare: values.aborts ?? rest.abortShare,
    maxAgeMs: values.maxAge ?? rest.maxAgeMs,
    ...(waves === undefined ? {} : { waves }),
    ...(updates === undefined ? {} : { updates }),
  };
}

function listProfile(profile: LoadProfile, values: ProfileValues, urlCount: number): LoadProfile {
  for (const [key, flag] of Object.entries(ORIGIN_ONLY))
    if (values[key as keyof ProfileValues] !== undefined) throw invalid(`${flag} does not go with --urls`);
  const { waves: _, updates: __, ...rest } = profile;
  return { ...rest, objects: urlCount, rangeShare: 0, abortShare: 0 };
}

function wavesOf(waves: LoadProfile['waves'], values: ProfileValues): LoadProfile['waves'] {
  const everyMs = values.waveEvery ?? waves?.everyMs ?? 0;
  if (everyMs === 0) {
    refuseAlone(values, ['waveWithin', 'waveSize', 'waveEdit'], '--wave-every');
    return undefined;
  }
  return {
    everyMs,
    withinMs: values.waveWithin ?? Math.min(everyMs, waves?.withinMs ?? everyMs),
    bytes: values.waveSize ?? waves?.bytes ?? DEFAULT_WAVE_BYTES,
    editBytes: values.waveEdit ?? waves?.editBytes ?? 0,
  };
}

function updatesOf(updates: LoadProfile['updates'], values: ProfileValues): LoadProfile['updates'] {
  const everyMs = values.editEvery ?? updates?.everyMs ?? 0;
  if (everyMs === 0) {
    refuseAlone(values, ['editSize'], '--edit-every');
    return undefined;
  }
  return { everyMs, editBytes: values.editSize ?? updates?.editBytes ?? DEFAULT_EDIT_BYTES };
}

function refuseAlone(values: ProfileValues, keys: readonly (keyof typeof ORIGIN_ONLY)[], needed: string): void {
  const alone = keys.find((key) => values[key] !== undefined);
  if (alone !== undefined) throw invalid(`${ORIGIN_ONLY[alone]} needs ${needed}`);
}

/** A profile, or anything with a profile in it. */
function readProfile(file: string): LoadProfile {
  let value: unknown;
  try {
    if (statSync(file).size > MAX_PROFILE_FILE_BYTES) throw new Error('too large');
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw invalid(
      `no such profile (${PROFILE_NAMES.join(', ')}), and not a file with one: ${file}: ${code ?? message}`,
    );
  }
  const inner = typeof value === 'object' && value !== null && 'profile' in value ? value.profile : value;
  return checkProfile(inner);
}

/** `256KiB`, or `256KiB~1.5` with a sigma. */
function parseObjectSize(text: string): ObjectSize {
  const [median = '', sigma = '0', ...rest] = text.split('~');
  if (rest.length > 0) throw invalid(`not a size like 256KiB or 256KiB~1.5: ${text}`);
  return { medianBytes: parseSize(median), sigma: parseDecimal('the sigma of --size')(sigma) };
}

/** `20`, `20%`, `0.5%`: a share from 0 to 1. */
export function percentOf(name: string): Kind {
  return kindOf('a percentage from 0 to 100', (text) => {
    const percent = parseDecimal(name)(text.replace(/%$/, ''));
    if (percent > 100) throw invalid(`${name} is at most 100 %: ${text}`);
    return percent / 100;
  });
}

function decimalOf(name: string): Kind {
  return kindOf('a number like 20 or 0.5', parseDecimal(name));
}

/** `20`, `0.5`. Its limits are the profile's. */
function parseDecimal(name: string): (text: string) => number {
  return (text) => {
    if (!/^\d{1,9}(?:\.\d{1,9})?$/.test(text)) throw invalid(`${name} is a number like 20 or 0.5: ${text}`);
    return Number(text);
  };
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
