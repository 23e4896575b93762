import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue } from 'prom-client';

/** What one process counts, as it travels to another. */
export type MetricsReport = readonly MetricObjectWithValues<MetricValue<string>>[];

/**
 * The metrics of several processes as those of one: counters and histograms are added, stores are shared. What a process has counted stays
 * counted when it is gone, so that no sum ever falls.
 */
export class MetricsSum {
  readonly #reports = new Map<number, MetricsReport>();
  #retired: MetricsReport = [];

  /** The newest counts of a process. @param member its number, never given again */
  add(member: number, report: MetricsReport): void {
    this.#reports.set(member, report);
  }

  /** The process is gone. */
  async retire(member: number): Promise<void> {
    const report = this.#reports.get(member) ?? [];
    this.#reports.delete(member);
    const lasting = report.filter(({ type }) => String(type) !== 'gauge');
    const retired = this.#retired;
    // At once: a scrape may come before the sum is made.
    this.#retired = [...retired, ...lasting];
    this.#retired = await sum([this.#retired]).getMetricsAsJSON();
  }

  async exposition(): Promise<{ readonly contentType: string; readonly text: string }> {
    const registry = this.#registry();
    return { contentType: registry.contentType, text: await registry.metrics() };
  }

  report(): Promise<MetricsReport> {
    return this.#registry().getMetricsAsJSON();
  }

  #registry(): ReturnType<typeof sum> {
    return sum([...this.#reports.values(), this.#retired]);
  }
}

function sum(reports: readonly MetricsReport[]): ReturnType<typeof AggregatorRegistry.aggregate> {
  return AggregatorRegistry.aggregate(reports as unknown as Parameters<typeof AggregatorRegistry.aggregate>[0]);
}
