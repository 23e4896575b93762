import type { Metric, Registry } from 'prom-client';

/** Seconds; the longest exchanges are downloads. */
const BUCKETS = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 600];

/** A histogram of plain numbers, which prom-client's own costs several times as much as. It looks like one of those when it is read. */
export class DurationHistogram {
  readonly #name: string;
  readonly #help: string;
  /** Of each bucket alone; the last one is all that is longer. */
  readonly #counts = new Float64Array(BUCKETS.length + 1);
  #sum = 0;

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  observe(seconds: number): void {
    let bucket = 0;
    while (bucket < BUCKETS.length && seconds > (BUCKETS[bucket] as number)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#sum += seconds;
  }

  register(registry: Registry): void {
    const metric = { name: this.#name, get: async () => this.#read() };
    registry.registerMetric(metric as unknown as Metric);
  }

  #read(): object {
    const name = this.#name;
    let count = 0;
    const values: object[] = [...BUCKETS, '+Inf'].map((le, bucket) => {
      count += this.#counts[bucket] as number;
      return { metricName: `${name}_bucket`, exemplar: null, labels: { le }, value: count };
    });
    values.push({ metricName: `${name}_sum`, labels: {}, value: this.#sum });
    values.push({ metricName: `${name}_count`, labels: {}, value: count });
    return { name, help: this.#help, type: 'histogram', values, aggregator: 'sum' };
  }
}
