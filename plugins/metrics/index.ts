export { createMetrics, METRICS, type Metrics } from './metrics.ts';
export { type MetricsReport, MetricsSum } from './aggregate.ts';
