/** What became of a run, for people and for programs. */
import Table from 'cli-table3';
import { formatBytes } from '../options/units.ts';
import type { Collection, Failure } from './collection.ts';
import type { PreheatResult } from './preheat.ts';

/** Failures that a table is followed by; JSON has more of them. */
const MAX_FAILURES_SHOWN = 20;

export interface PreheatReport {
  readonly proxy: string;
  readonly seconds: number;
  /** That were to be asked for. */
  readonly urls: number;
  /** Of bodies, received from the proxy. */
  readonly bytes: number;
  /** In the proxy's cache before; of them, those that it asked the origin about. */
  readonly alreadyThere: number;
  readonly confirmed: number;
  readonly fetched: number;
  /** Of URLs, and of sources. */
  readonly failed: number;
  /** Under way or waiting at an early end. */
  readonly notAsked: number;
  /** Not asked for, or not read to the end, on purpose: how many for which reason. */
  readonly leftOut: Readonly<Record<string, number>>;
  /** Of those whose proxy makes hashes; absent where they were not asked for. */
  readonly contentInformation?: { readonly ready: number; readonly missing: number };
  readonly endedEarly: boolean;
  /** The first ones. */
  readonly failures: readonly Failure[];
}

export function reportOf(
  proxy: string,
  collection: Collection,
  result: PreheatResult,
  { isHashing, milliseconds }: { readonly isHashing: boolean; readonly milliseconds: number },
): PreheatReport {
  const urls = collection.items.length;
  return {
    proxy,
    seconds: Math.round(milliseconds) / 1000,
    urls,
    bytes: result.bytes,
    alreadyThere: result.fresh + result.confirmed,
    confirmed: result.confirmed,
    fetched: result.fetched,
    failed: collection.failures.count + result.failures.count,
    notAsked: urls - result.done,
    leftOut: {
      ...Object.fromEntries(collection.leftOut),
      ...(result.tooLarge === 0 ? {} : { 'too large': result.tooLarge }),
    },
    ...(isHashing ? { contentInformation: { ...result.contentInformation } } : {}),
    endedEarly: result.isEndedEarly,
    failures: [...collection.failures.kept, ...result.failures.kept],
  };
}

export function textReport(report: PreheatReport): string {
  const some = (name: string, count: number): string[][] => (count === 0 ? [] : [[name, String(count)]]);
  const rows = [
    ['URLs', String(report.urls)],
    ['bytes', formatBytes(report.bytes)],
    ['already there', String(report.alreadyThere)],
    ...some('  of them, the origin was asked', report.confirmed),
    ['fetched', String(report.fetched)],
    ...Object.entries(report.leftOut).map(([reason, count]) => [`left out: ${reason}`, String(count)]),
    ...some('not asked for, it ended early', report.notAsked),
    ['failed', String(report.failed)],
    ...hashRows(report),
    ['time', `${report.seconds.toFixed(1)} s`],
  ];
  const table = new Table({
    head: [`through ${report.proxy}`, ''],
    colAligns: ['left', 'right'],
    style: { head: [], border: [], compact: true },
  });
  table.push(...rows);
  const shown = report.failures.slice(0, MAX_FAILURES_SHOWN).map(({ url, reason }) => `  ${url}: ${reason}`);
  const more = report.failed - shown.length;
  return [
    table.toString(),
    ...(shown.length === 0 ? [] : ['Failed:', ...shown]),
    ...(more > 0 ? [`  and ${more} more`] : []),
  ].join('\n');
}

function hashRows({ contentInformation, alreadyThere, fetched }: PreheatReport): string[][] {
  if (contentInformation === undefined || alreadyThere + fetched === 0) return [];
  const { ready, missing } = contentInformation;
  return [
    ['content information ready', ready + missing === 0 ? 'this proxy makes none' : `${ready} of ${ready + missing}`],
  ];
}
