/** One run from its start to its result: origin, metrics before, the requests, quiet, metrics after. */
import { setTimeout as delay } from 'node:timers/promises';
import { formatListen, type ListenAddress } from '../options/units.ts';
import { Catalogue } from './catalogue.ts';
import { LoadOrigin } from './origin.ts';
import { planRequests } from './plan.ts';
import { type LoadProfile, planEndMs } from './profile.ts';
import { LoadRunner, type LoadTarget } from './runner.ts';
import type { Slice } from './series.ts';
import { type LoadStats, type Percentiles, percentiles } from './stats.ts';
import { CatalogueSubject, type Failure } from './subject.ts';
import { Timeline } from './timeline.ts';
import type { UrlList } from './url-list.ts';
import { readTraffic, sumOf, type Traffic, trafficBetween } from './wan-metrics.ts';

export interface LoadOptions {
  readonly profile: LoadProfile;
  readonly target: LoadTarget;
  /** Where the tool's own origin listens. */
  readonly originListen: ListenAddress;
  /** Under which address the target is to ask for the origin. @default the origin's own */
  readonly urlBase?: URL | undefined;
  /** Asked for in place of the own origin. */
  readonly urls?: UrlList | undefined;
  /** Metrics of the proxies that stand between client and WAN. */
  readonly metrics: readonly string[];
  readonly maxInFlight: number;
  readonly timeoutMs: number;
}

/** How a run is watched and ended. */
export interface LoadHooks {
  readonly stopRequested: Promise<void>;
  /** Called before the first request, with the address of the own origin if there is one. */
  readonly onStart?: ((originUrl: string | undefined) => void) | undefined;
  /** Called a few times a second. */
  readonly onProgress?: ((stats: LoadStats, elapsedMs: number) => void) | undefined;
}

export interface LoadResult {
  readonly profile: LoadProfile;
  /** `proxy host:port` or `gateway host:port`. */
  readonly target: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly seconds: number;
  readonly endedEarly: boolean;
  readonly requests: {
    readonly sent: number;
    readonly answered: number;
    readonly aborted: number;
    readonly interrupted: number;
    readonly failed: number;
    readonly retries: number;
    readonly late: number;
    readonly heldBack: number;
    /** Right as far as anybody can tell: there was nothing to compare with. */
    readonly unchecked: number;
  };
  readonly errors: Readonly<Record<Failure, number>>;
  readonly statuses: Readonly<Record<string, number>>;
  readonly clientBytes: number;
  readonly bytesPerSecond: number;
  /** Milliseconds after the planned time. */
  readonly firstByteMs: Percentiles;
  readonly lastByteMs: Percentiles;
  /** The own origin, where it was asked for. */
  readonly origin?: { readonly requests: number; readonly notModified: number; readonly bodyBytes: number };
  readonly metrics: readonly MetricsResult[];
  /** By the metrics where they say it, otherwise what the own origin sent. Absent where metrics could not be read at the end. */
  readonly wanBytes?: number;
  readonly series: {
    readonly secondsEach: number;
    readonly slices: readonly SliceResult[];
  };
  /** Last byte: milliseconds that one request in so many exceeds. */
  readonly tail: readonly { readonly oneIn: number; readonly ms: number }[];
}

/** What the run added to a proxy's metrics, or why nobody knows. */
export type MetricsResult = { readonly url: string } & (Traffic | { readonly error: string });

export interface SliceResult {
  readonly bytes: number;
  readonly requests: number;
  readonly errors: number;
  /** Null where nothing was answered. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
}

/** Milliseconds after the plan's end until which late answers are waited for, beyond the timeout. */
const DRAIN_MS = 300_000;
const PROGRESS_MS = 250;
/** The proxies are done when nothing changes for so long, or has not come to rest after so many looks. */
const QUIET_MS = 500;
const MAX_QUIET_LOOKS = 20;

/** @throws PeerDistError `ERR_PEERDIST_INVALID_OPTION`, before the first request, when the origin cannot listen or metrics cannot be read */
export async function runLoad(options: LoadOptions, hooks: LoadHooks): Promise<LoadResult> {
  const { profile, urls, metrics, target, maxInFlight, timeoutMs } = options;
  const timeline = new Timeline();
  const catalogue = new Catalogue(profile);
  const origin = urls === undefined ? await LoadOrigin.open(options.originListen, catalogue, timeline) : undefined;
  try {
    const base = options.urlBase ?? new URL(origin?.url ?? 'http://unused');
    const before = await Promise.all(metrics.map(readTraffic));
    hooks.onStart?.(origin?.url);
    const startedAt = new Date().toISOString();
    const runner = new LoadRunner({
      plan: planRequests(profile, urls ?? catalogue),
      subject: urls ?? new CatalogueSubject(catalogue, base),
      target,
      timeline,
      clients: profile.clients,
      maxInFlight,
      timeoutMs,
      deadlineMs: planEndMs(profile) + timeoutMs + DRAIN_MS,
    });
    const { seconds, endedEarly } = await drive(runner, timeline, hooks);
    const since = (): Promise<MetricsResult[]> =>
      Promise.all(metrics.map((url, index) => readSince(url, before[index] as Traffic)));
    await quiet(async () => JSON.stringify([origin?.bodyBytes, await since()]));
    const spent = await since();
    return {
      profile,
      target: `${target.kind} ${formatListen(target)}`,
      startedAt,
      ...results(runner.stats, seconds, endedEarly, urls?.unchecked ?? 0),
      ...(origin === undefined ? {} : { origin: counts(origin) }),
      metrics: spent,
      ...wanBytes(spent, origin),
    };
  } finally {
    await origin?.close();
  }
}

async function drive(
  runner: LoadRunner,
  timeline: Timeline,
  { stopRequested, onProgress }: LoadHooks,
): Promise<{ seconds: number; endedEarly: boolean }> {
  let endedEarly = false;
  let isRunning = true;
  void stopRequested.then(() => {
    endedEarly = isRunning;
    if (isRunning) runner.stop();
  });
  // Also what keeps the process going while it waits for the next request.
  const progress = setInterval(() => onProgress?.(runner.stats, timeline.elapsedMs()), PROGRESS_MS);
  runner.start();
  await runner.finished;
  isRunning = false;
  clearInterval(progress);
  return { seconds: timeline.elapsedMs() / 1000, endedEarly };
}

/** A proxy that the run has killed does not take the result with it. */
async function readSince(url: string, before: Traffic): Promise<MetricsResult> {
  try {
    return { url, ...trafficBetween(before, await readTraffic(url)) };
  } catch (error) {
    return { url, error: (error as Error).message };
  }
}

/** Waits for what proxies still fetch behind the clients' backs: it belongs to the run too. */
async function quiet(look: () => Promise<string>): Promise<void> {
  let last = await look();
  for (let looks = 0; looks < MAX_QUIET_LOOKS; looks += 1) {
    await delay(QUIET_MS);
    const now = await look();
    if (now === last) return;
    last = now;
  }
}

type Results = Omit<LoadResult, 'profile' | 'target' | 'startedAt' | 'origin' | 'metrics' | 'wanBytes'>;

function results(stats: LoadStats, seconds: number, endedEarly: boolean, unchecked: number): Results {
  const { sent, answered, aborted, interrupted, failed, retries, late, heldBack, series } = stats;
  return {
    seconds,
    endedEarly,
    requests: { sent, answered, aborted, interrupted, failed, retries, late, heldBack, unchecked },
    errors: stats.errors,
    statuses: Object.fromEntries(stats.statuses),
    clientBytes: stats.clientBytes,
    bytesPerSecond: seconds > 0 ? stats.clientBytes / seconds : 0,
    firstByteMs: percentiles(stats.firstByte),
    lastByteMs: percentiles(stats.lastByte),
    series: { secondsEach: series.sliceMs / 1000, slices: series.slices.map(sliceResult) },
    tail: tail(stats),
  };
}

function sliceResult({ bytes, requests, errors, latency }: Slice): SliceResult {
  const at = (percent: number): number | null =>
    latency.totalCount === 0 ? null : latency.getValueAtPercentile(percent) / 1000;
  return { bytes, requests, errors, p50Ms: at(50), p99Ms: at(99) };
}

/** As far out as there are requests. */
function tail({ lastByte }: LoadStats): { oneIn: number; ms: number }[] {
  const points: { oneIn: number; ms: number }[] = [];
  for (let oneIn = 1; oneIn <= lastByte.totalCount; oneIn *= 10 ** 0.1)
    points.push({ oneIn, ms: lastByte.getValueAtPercentile(100 * (1 - 1 / oneIn)) / 1000 });
  if (lastByte.totalCount > 0) points.push({ oneIn: lastByte.totalCount, ms: lastByte.maxValue / 1000 });
  return points;
}

function counts({ requests, notModified, bodyBytes }: LoadOrigin): NonNullable<LoadResult['origin']> {
  return { requests, notModified, bodyBytes };
}

function wanBytes(spent: readonly MetricsResult[], origin: LoadOrigin | undefined): { readonly wanBytes?: number } {
  if (spent.some((each) => 'error' in each)) return {};
  const measured = spent.flatMap((each) => ('wan' in each ? (sumOf(each.wan) ?? []) : []));
  if (measured.length > 0) return { wanBytes: measured.reduce((sum, bytes) => sum + bytes, 0) };
  return origin === undefined ? {} : { wanBytes: origin.bodyBytes };
}
