/** What an estimate says, for people and for programs. */
import Table from 'cli-table3';
import { formatBytes } from '../options/units.ts';
import type { Curve } from './curve.ts';
import type { Estimate, NamedSite } from './estimate.ts';

/** Rows of a table of sites; JSON has them all. */
const MAX_ROWS = 20;
/** Of the possible saving, the share that the store of the last columns is for. */
const STORE_SHARE = 0.9;

export const HEAD = [
  'site',
  'requests',
  'WAN bytes',
  'one-sided cache',
  'peers',
  'hosted cache',
  '90 % one-sided',
  '90 % hosted',
];

/** The largest sites, and all of them together. */
export function rowsOf({ sites, total }: Estimate, maxRows: number): string[][] {
  const shown = sites.slice(0, maxRows).map(rowOf);
  return sites.length > 1 ? [...shown, rowOf({ name: 'total', sums: total })] : shown;
}

function rowOf({ name, sums }: NamedSite): string[] {
  const store = (size: number | undefined): string => (size === undefined ? '–' : formatBytes(size));
  return [
    name,
    String(sums.requests),
    formatBytes(sums.wanBytes),
    savedText(sums.oneSided, sums.wanBytes),
    savedText(sums.peers, sums.wanBytes),
    savedText(sums.hosted, sums.wanBytes),
    store(sums.curve.sizeFor(STORE_SHARE)),
    store(sums.hostedCurve.sizeFor(STORE_SHARE)),
  ];
}

function savedText(saved: number, all: number): string {
  return `${formatBytes(Math.round(saved))} (${percentOf(saved, all).toFixed(1)} %)`;
}

/** The table and the sentences below it. */
export function textOf(estimate: Estimate): string {
  const table = new Table({
    head: HEAD,
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  table.push(...rowsOf(estimate, MAX_ROWS));
  return [table.toString(), ...sentences(estimate, MAX_ROWS)].join('\n');
}

/** What an administrator has to know to read a table of so many sites. */
export function sentences(estimate: Estimate, maxRows: number): string[] {
  const { rules, sites, total, clients, untrackedRequests, level } = estimate;
  const size = formatBytes(rules.cacheBytes);
  const ways = [
    ['a one-sided cache', total.oneSided],
    ['peers', total.peers],
    ['a hosted cache', total.hosted],
  ] as const;
  const [best, saved] = ways.reduce((a, b) => (b[1] > a[1] ? b : a));
  const left = sites.length - maxRows;
  const share = (bytes: number): string =>
    `${formatBytes(Math.round(bytes))} (${percentOf(bytes, total.wanBytes).toFixed(1)} %)`;
  const told: (string | false)[] = [
    left > 0 && `${left} smaller sites are left out here and are part of the total; --json has all of them.`,
    saved > 0
      ? `Most is saved by ${best}: ${share(saved)} of the ${formatBytes(total.wanBytes)} that cross the WAN without it.`
      : 'No way saves anything: hardly any content was asked for twice at the same site.',
    `A one-sided cache and a hosted cache have ${size} at each site; of ${clients} clients each keeps ${formatBytes(rules.clientCacheBytes)} for its neighbours.`,
    'The last two columns are the size from which a cache saves nine tenths of what the largest would.',
    `Peers and hosted cache need ${share(total.contentInformationBytes)} of content information, which is taken off already; the one-sided cache asks ${total.revalidations} times whether something has changed.`,
    total.hostedAtFirst > 0 &&
      `Of their savings ${formatBytes(Math.round(total.peersAtFirst))} by peers and ${formatBytes(Math.round(total.hostedAtFirst))} by the hosted cache come from the first download of a version at all, which \`peerdist branch\` keeps and Windows does not.`,
    total.tunnelBytes > 0 && `${share(total.tunnelBytes)} went through tunnels (HTTPS), where nothing can be saved.`,
    total.otherBytes > 0 &&
      `${share(total.otherBytes)} were answers that cannot be kept: errors, other methods than GET.`,
    total.loggedHitBytes > 0 &&
      `${share(total.loggedHitBytes)} came from the cache of the proxy that wrote the log; they are counted as if it had none.`,
    untrackedRequests > 0 &&
      `There are too many clients to tell them all from each other: ${untrackedRequests} requests are of clients that give nothing to others here.`,
    level > 0 &&
      `There are too many contents to watch all of them: of those that are seldom asked for one in ${2 ** level} was, and stands for the others. Savings of all sites are right within about one percent, those of small sites are rougher; --max-objects makes room.`,
  ];
  return told.filter((sentence) => sentence !== false);
}

/** All of it, as plain values. */
export function jsonOf({ rules, sites, total, days, clients, untrackedRequests, level }: Estimate): object {
  return {
    rules,
    clients,
    untrackedRequests,
    sampledOneIn: 2 ** level,
    total: siteJson({ name: 'total', sums: total }),
    sites: sites.map(siteJson),
    days: days.map(({ day, ...sums }) => ({ date: dateOf(day), ...sums })),
  };
}

function siteJson({ name, sums }: NamedSite): object {
  const { curve, hostedCurve, oneSided, peers, hosted, peersAtFirst, hostedAtFirst, revalidations, ...others } = sums;
  const saved = (savedBytes: number): object => ({ savedBytes, savedPercent: percentOf(savedBytes, sums.wanBytes) });
  const store = (each: Curve): object => ({
    storeBytesFor90Percent: each.sizeFor(STORE_SHARE) ?? null,
    curve: each.points,
  });
  return {
    name,
    ...others,
    oneSided: { ...saved(oneSided), revalidations, ...store(curve) },
    peers: { ...saved(peers), atFirstBytes: peersAtFirst },
    hosted: { ...saved(hosted), atFirstBytes: hostedAtFirst, ...store(hostedCurve) },
  };
}

export function percentOf(part: number, all: number): number {
  return all === 0 ? 0 : (100 * part) / all;
}

function dateOf(day: number): string {
  return new Date(day * 86_400_000).toISOString().slice(0, 10);
}
