/** Counts and latencies of one run. */
import type { Histogram } from 'hdr-histogram-js';
import type { Outcome } from './exchange.ts';
import { latencyHistogram, Series } from './series.ts';
import { FAILURES, type Failure } from './subject.ts';

export interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  readonly mean: number;
}

/** Milliseconds a request may be sent after its time before it counts as late: timers and busy turns. */
const LATE_MS = 20;

export class LoadStats {
  sent = 0;
  answered = 0;
  /** Broken off because the plan said so. */
  aborted = 0;
  /** Under way when the run was ended early. */
  interrupted = 0;
  /** Sent again because a kept connection had just been closed. */
  retries = 0;
  /** Sent after their time, for whatever reason. */
  late = 0;
  /** Those of them that waited for the limit of requests in flight. */
  heldBack = 0;
  /** Body bytes, those of failed and aborted requests too. */
  clientBytes = 0;
  readonly errors: Record<Failure, number> = Object.fromEntries(FAILURES.map((name) => [name, 0])) as Record<
    Failure,
    number
  >;
  /** Answers by status. */
  readonly statuses = new Map<number, number>();
  /** Microseconds from the planned time to the first byte of the body, of answered and aborted requests. */
  readonly firstByte = latencyHistogram(3);
  /** Microseconds from the planned time to the last byte, of answered requests. */
  readonly lastByte = latencyHistogram(3);
  readonly series = new Series();

  /** @param lateMs how long after its time */
  countSent(lateMs: number, wasHeldBack: boolean): void {
    this.sent += 1;
    if (lateMs <= LATE_MS) return;
    this.late += 1;
    if (wasHeldBack) this.heldBack += 1;
  }

  countBytes(bytes: number, elapsedMs: number): void {
    this.clientBytes += bytes;
    this.series.at(elapsedMs).bytes += bytes;
  }

  /** @param plannedAtMs when it should have been sent, by the clock of the outcome @param atMs the same after the start */
  countEnd({ ending, status, firstByteAtMs, endedAtMs }: Outcome, plannedAtMs: number, atMs: number): void {
    if (status !== 0) this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
    if (ending === 'interrupted') {
      this.interrupted += 1;
      return;
    }
    const slice = this.series.at(atMs);
    slice.requests += 1;
    if (ending !== 'answered' && ending !== 'aborted') {
      this.errors[ending] += 1;
      slice.errors += 1;
      return;
    }
    if (firstByteAtMs !== undefined) this.firstByte.recordValue(microseconds(firstByteAtMs - plannedAtMs));
    if (ending === 'aborted') {
      this.aborted += 1;
      return;
    }
    this.answered += 1;
    const latency = microseconds(endedAtMs - plannedAtMs);
    this.lastByte.recordValue(latency);
    slice.latency.recordValue(latency);
  }

  get failed(): number {
    return FAILURES.reduce((sum, name) => sum + this.errors[name], 0);
  }
}

/** Milliseconds. */
export function percentiles(histogram: Histogram): Percentiles {
  // A percentile is the upper end of a bucket, which the greatest value need not reach.
  const at = (percent: number): number =>
    milliseconds(Math.min(histogram.getValueAtPercentile(percent), histogram.maxValue));
  return {
    p50: at(50),
    p90: at(90),
    p99: at(99),
    p999: at(99.9),
    max: milliseconds(histogram.maxValue),
    mean: milliseconds(histogram.mean),
  };
}

function microseconds(ms: number): number {
  return Math.max(0, Math.round(ms * 1000));
}

function milliseconds(us: number): number {
  return Math.round(us) / 1000;
}
