/** A result as tables for a terminal and as a page with plots. */
import Table from 'cli-table3';
import { htmlReport, type ReportTable } from '../report/html-report.ts';
import { formatBytes } from '../options/units.ts';
import { planEndMs } from './profile.ts';
import type { LoadResult, MetricsResult } from './run-load.ts';
import type { Percentiles } from './stats.ts';
import { FAILURES, type Failure } from './subject.ts';
import { sumOf } from './wan-metrics.ts';

const FAILURE_WORDS: Readonly<Record<Failure, string>> = {
  connect: 'no connection, or closed before an answer',
  timeout: 'silent for too long',
  protocol: 'not HTTP',
  status: 'another status',
  stale: 'older than allowed',
  wrongBytes: 'WRONG BYTES',
  cutShort: 'cut short',
  unsent: 'never sent',
};

/** Tables of a result, in plain text. */
export function textReport(result: LoadResult): string {
  return [...sentences(result), ...tables(result).map(textTable)].join('\n');
}

/** The same, with plots over time, as one HTML file. */
export function webReport(result: LoadResult): string {
  const { series, tail } = result;
  const time = {
    label: 'after the start',
    unit: 'seconds',
    values: series.slices.map((_, index) => index * series.secondsEach),
  } as const;
  const each = (of: (slice: (typeof series.slices)[number]) => number | null): (number | null)[] =>
    series.slices.map(of);
  const seconds = (ms: number | null): number | null => (ms === null ? null : ms / 1000);
  return htmlReport({
    title: `peerdist load: ${result.profile.name}`,
    summary: sentences(result),
    sections: [
      ...tables(result),
      {
        title: 'Throughput',
        x: time,
        y: { label: 'bytes a second', unit: 'bytes' },
        series: [{ label: 'clients', values: each(({ bytes }) => bytes / series.secondsEach) }],
      },
      {
        title: 'Last byte, by planned time of the request',
        x: time,
        y: { label: 'latency', unit: 'seconds' },
        series: [
          { label: 'p50', values: each(({ p50Ms }) => seconds(p50Ms)) },
          { label: 'p99', values: each(({ p99Ms }) => seconds(p99Ms)) },
        ],
      },
      {
        title: 'Requests',
        x: time,
        y: { label: 'in each slice of time', unit: 'count' },
        series: [
          { label: 'planned', values: each(({ requests }) => requests) },
          { label: 'failed', values: each(({ errors }) => errors) },
        ],
      },
      {
        title: 'Last byte: the slowest one in so many',
        x: { label: 'one in', unit: 'count', logarithmic: true, values: tail.map(({ oneIn }) => oneIn) },
        y: { label: 'latency', unit: 'seconds' },
        series: [{ label: 'at least', values: tail.map(({ ms }) => ms / 1000) }],
      },
      { title: 'Profile', head: ['member', 'value'], rows: profileRows(result.profile) },
    ],
  });
}

function sentences({ profile, target, seconds, endedEarly, startedAt }: LoadResult): string[] {
  return [
    `${profile.name}, seed ${profile.seed}, against ${target}: ${seconds.toFixed(1)} s from ${startedAt}`,
    ...(endedEarly ? [`Ended early, of ${planEndMs(profile) / 1000} s.`] : []),
  ];
}

function tables(result: LoadResult): ReportTable[] {
  return [
    { title: 'Result', head: ['', 'value'], rows: [...requestRows(result), ...byteRows(result)] },
    {
      title: 'Milliseconds after the planned time',
      head: ['', 'p50', 'p90', 'p99', 'p99.9', 'max'],
      rows: [
        ['first byte', ...latencyCells(result.firstByteMs)],
        ['last byte', ...latencyCells(result.lastByteMs)],
      ],
    },
  ];
}

function requestRows({ requests, errors, statuses }: LoadResult): string[][] {
  const { sent, answered, aborted, interrupted, failed, retries, late, heldBack, unchecked } = requests;
  const some = (name: string, value: number): string[][] => (value === 0 ? [] : [[name, String(value)]]);
  const others = Object.entries(statuses).filter(([status]) => status !== '200' && status !== '206');
  return [
    ['requests sent', String(sent)],
    ['answered, every byte right', String(answered - unchecked)],
    ...some('answered, nothing to compare with', unchecked),
    ...some('broken off by the client, as planned', aborted),
    ...some('under way at the end', interrupted),
    ['failed', String(failed)],
    ...FAILURES.flatMap((name) => some(`  ${FAILURE_WORDS[name]}`, errors[name])),
    ...others.map(([status, count]) => [`  status ${status}`, String(count)]),
    ...some('sent again, the kept connection was closed', retries),
    ...some('sent late', late),
    ...some('  for the limit in flight', heldBack),
  ];
}

function byteRows({ clientBytes, bytesPerSecond, origin, metrics, wanBytes }: LoadResult): string[][] {
  const saved = wanBytes === undefined || clientBytes === 0 ? undefined : 100 * (1 - wanBytes / clientBytes);
  return [
    ['client bytes', formatBytes(clientBytes)],
    ['throughput', `${formatBytes(bytesPerSecond)}/s`],
    ...(origin === undefined
      ? []
      : [
          ['origin: bytes sent', formatBytes(origin.bodyBytes)],
          ['origin: requests, of them not modified', `${origin.requests}, ${origin.notModified}`],
        ]),
    ...metrics.map((each) => [`WAN bytes by ${each.url}`, wanCell(each)]),
    ...(saved === undefined ? [] : [['saved', `${saved.toFixed(1)} %`]]),
  ];
}

function wanCell(metrics: MetricsResult): string {
  if ('error' in metrics) return metrics.error;
  const bytes = sumOf(metrics.wan);
  return bytes === undefined ? 'has no such series' : formatBytes(bytes);
}

function latencyCells({ p50, p90, p99, p999, max }: Percentiles): string[] {
  // Nothing takes no time at all: nothing was answered.
  if (max === 0) return ['–', '–', '–', '–', '–'];
  return [p50, p90, p99, p999, max].map((ms) => ms.toFixed(ms < 100 ? 2 : 0));
}

function profileRows(profile: object, prefix = ''): string[][] {
  return Object.entries(profile).flatMap(([key, value]: [string, unknown]) =>
    typeof value === 'object' && value !== null
      ? profileRows(value, `${prefix}${key}.`)
      : [[`${prefix}${key}`, String(value)]],
  );
}

function textTable({ title, head, rows }: ReportTable): string {
  const [, ...columns] = head;
  const table = new Table({
    head: [title, ...columns],
    colAligns: ['left', ...columns.map(() => 'right' as const)],
    style: { head: [], border: [], compact: true },
  });
  table.push(...rows.map((row) => [...row]));
  return table.toString();
}
