/** One estimate: from records to the sums of the sites, whatever the records are from. */
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import type { LogRecord } from './log-record.ts';
import { Replay, type ReplayRules } from './replay.ts';
import { type DaySums, type SiteSums, totalOf } from './sums.ts';

export interface NamedSite {
  readonly name: string;
  readonly sums: SiteSums;
}

export interface Estimate {
  readonly rules: ReplayRules;
  /** Those that asked for anything, the one with the most WAN bytes first. */
  readonly sites: readonly NamedSite[];
  readonly total: SiteSums;
  readonly days: readonly DaySums[];
  /** Clients told from each other, and requests of those for which there was no room. */
  readonly clients: number;
  readonly untrackedRequests: number;
  /** As {@link Replay.level}. */
  readonly level: number;
}

export interface EstimateOptions {
  readonly records: AsyncIterable<LogRecord[]> | Iterable<LogRecord[]>;
  readonly rules: ReplayRules;
  /** Number of the site a client belongs to, and the name of a site. */
  readonly siteOf: (client: string) => number;
  readonly nameOf: (site: number) => string;
  readonly signal: AbortSignal;
  /** Called with the number of records after each batch. */
  readonly onRecords?: ((records: number) => void) | undefined;
}

/** Batches replayed before others get their turn. Policy. */
const BATCHES_TOGETHER = 16;

/** @returns undefined when it was aborted */
export async function estimate(options: EstimateOptions): Promise<Estimate | undefined> {
  const { records, rules, siteOf, nameOf, signal, onRecords } = options;
  const replay = new Replay(rules, siteOf);
  let batches = 0;
  for await (const batch of records) {
    for (const record of batch) replay.take(record);
    onRecords?.(batch.length);
    batches += 1;
    if (batches % BATCHES_TOGETHER === 0) await yieldToOthers();
    if (signal.aborted) break;
  }
  if (signal.aborted) return undefined;
  const sites = replay.sites.flatMap((sums, site) => (sums === undefined ? [] : [{ name: nameOf(site), sums }]));
  return {
    rules,
    sites: sites.toSorted((a, b) => b.sums.wanBytes - a.sums.wanBytes),
    total: totalOf(sites.map(({ sums }) => sums)),
    days: replay.days,
    clients: replay.clients,
    untrackedRequests: replay.untrackedRequests,
    level: replay.level,
  };
}
