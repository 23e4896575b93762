/** Requests of a catalogue that nobody has: to plan for branches that are not there yet. */
import { PeerDistError } from '../../../lib/errors.ts';
import { mixed } from './fingerprint.ts';
import type { LogRecord } from './log-record.ts';

export interface Catalogue {
  readonly sites: number;
  /** At each site. */
  readonly clients: number;
  readonly objects: number;
  /** At all sites together, spread evenly over the time. */
  readonly requests: number;
  /** The object in place n is asked for n^-zipf times as often as the first. */
  readonly zipf: number;
  /** Bytes; sizes are distributed log-normally. */
  readonly meanSize: number;
  /** New versions a day, of all objects together. */
  readonly updates: number;
  readonly days: number;
  readonly seed: number;
}

interface Part {
  readonly value: number;
  readonly least: number;
  readonly most: number;
  readonly isWhole: boolean;
}

const whole = (value: number, most: number, least = 1): Part => ({ value, least, most, isWhole: true });
const real = (value: number, most: number, least = 0): Part => ({ value, least, most, isWhole: false });

/** Defaults and limits. Policy. */
const PARTS: Readonly<Record<keyof Catalogue, Part>> = {
  sites: whole(10, 100_000),
  clients: whole(30, 10_000),
  objects: whole(10_000, 100_000_000),
  requests: whole(1_000_000, 1_000_000_000),
  zipf: real(0.8, 3),
  meanSize: whole(1_000_000, 1e12),
  updates: real(0, 1e9),
  days: real(30, 3650, 0.001),
  seed: whole(1, 2 ** 31, 0),
};

/** Width of the distribution of sizes: standard deviation of their logarithm. Policy: as of downloads and updates. */
const SIZE_SPREAD = 1;
/** 2026-01-05, a Monday. */
const START_MS = Date.UTC(2026, 0, 5);
const DAY_MS = 86_400_000;
const BATCH = 1024;

/** `key=value,…`. @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` */
export function parseCatalogue(text: string): Catalogue {
  const catalogue = Object.fromEntries(Object.entries(PARTS).map(([name, { value }]) => [name, value]));
  for (const pair of text.split(',').filter(Boolean)) {
    const [name = '', value = ''] = pair.split('=');
    const part = Object.hasOwn(PARTS, name) ? PARTS[name as keyof Catalogue] : undefined;
    if (part === undefined)
      throw invalid(`--synthetic knows ${Object.keys(PARTS).join(', ')}; not ${JSON.stringify(name)}`);
    const number = /^\d+(?:\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
    if (!(number >= part.least && number <= part.most) || (part.isWhole && !Number.isInteger(number)))
      throw invalid(`${name} is a ${part.isWhole ? 'whole ' : ''}number from ${part.least} to ${part.most}: ${value}`);
    catalogue[name] = number;
  }
  return catalogue as unknown as Catalogue;
}

/** Records in the order of time, a batch at a time; the same for the same catalogue. Their clients are named `site.client`. */
export function* syntheticRecords(catalogue: Catalogue): Generator<LogRecord[]> {
  const { sites, clients, objects, requests, days, seed } = catalogue;
  const random = randomOf(seed);
  const pick = (below: number): number => Math.floor(random() * below);
  const place = zipfOf(objects, catalogue.zipf, random);
  for (let from = 0; from < requests; from += BATCH) {
    const batch: LogRecord[] = [];
    for (let at = from; at < Math.min(requests, from + BATCH); at += 1) {
      const day = (days * at) / requests;
      const object = place();
      batch.push({
        timeMs: START_MS + Math.floor(day * DAY_MS),
        client: `${pick(sites)}.${pick(clients)}`,
        method: 'GET',
        url: `/${object}`,
        status: 200,
        bytes: sizeOf(object, day, catalogue),
        hasHead: false,
        isCacheHit: false,
      });
    }
    yield batch;
  }
}

/** Number of the site of a synthetic client. */
export function syntheticSiteOf(client: string): number {
  return Number.parseInt(client, 10);
}

/** Another size for each version, by so few bytes that the mean does not change. */
function sizeOf(object: number, day: number, { meanSize, updates, objects, seed }: Catalogue): number {
  const draw = (salt: number): number => ((mixed(mixed(object + seed) ^ salt) >>> 0) + 0.5) / 2 ** 32;
  const normal = Math.sqrt(-2 * Math.log(draw(1))) * Math.cos(2 * Math.PI * draw(2));
  const size = meanSize * Math.exp(SIZE_SPREAD * normal - SIZE_SPREAD ** 2 / 2);
  const version = Math.floor((day * updates) / objects + draw(3));
  return Math.max(1, Math.round(size)) + version;
}

/** Numbers from 0 up to 1 (SplitMix32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    return (mixed(state) >>> 0) / 2 ** 32;
  };
}

/**
 * Draws places from 1 to `count`, each with a probability of place^-exponent, without a table: rejection-inversion (Hörmann and Derflinger, 1996).
 */
function zipfOf(count: number, exponent: number, random: () => number): () => number {
  // The integral of x^-exponent and its inverse; near 1 it is the logarithm.
  const isLog = Math.abs(exponent - 1) < 1e-9;
  const integral = (x: number): number => (isLog ? Math.log(x) : (x ** (1 - exponent) - 1) / (1 - exponent));
  const inverse = (y: number): number => (isLog ? Math.exp(y) : (1 + y * (1 - exponent)) ** (1 / (1 - exponent)));
  const low = integral(1.5) - 1;
  const high = integral(count + 0.5);
  return () => {
    for (;;) {
      const area = high + random() * (low - high);
      const x = inverse(area);
      const place = Math.min(count, Math.max(1, Math.round(x)));
      if (area >= integral(place + 0.5) - place ** -exponent) return place;
    }
  };
}

function invalid(message: string): PeerDistError {
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', message);
}
