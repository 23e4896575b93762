import { Counter, Gauge, Registry } from 'prom-client';
import type { BlockOrigin, Observation, Observer } from '../../lib/observer.ts';
import type { MetricsReport } from './aggregate.ts';
import { DurationHistogram } from './duration-histogram.ts';

export interface Metrics {
  readonly registry: Registry;
  /** The metrics as Prometheus reads them, and their media type. */
  readonly exposition: () => Promise<{ readonly contentType: string; readonly text: string }>;
  /** What has been counted, for a {@link MetricsSum} in another process. */
  readonly report: () => Promise<MetricsReport>;
  /** Give this to every component that reports. */
  readonly observer: Observer;
  /** Bytes clients got, or were told the hashes of, minus bytes the WAN carried for them. Negative while a cold cache still costs more than it saves. */
  readonly savedBytes: () => number;
  /** Bytes handed to clients so far, by where they came from. */
  readonly delivered: () => Readonly<Record<BlockOrigin, number>>;
}

/** Every metric with its help text. README repeats this table; a test compares them. */
export const METRICS = {
  peerdist_delivered_bytes_total: 'Body bytes handed to clients, by where they came from.',
  peerdist_wan_bytes_total: 'Body bytes carried by the WAN, by what they were.',
  peerdist_described_bytes_total: 'Body bytes that clients were sent the hashes of instead.',
  peerdist_sent_bytes_total: 'Bytes sent to clients in answers, heads included.',
  peerdist_hashed_bytes_total: 'Bytes of bodies that became content information.',
  peerdist_publications_total: 'Bodies that were to be hashed, by what became of it.',
  peerdist_block_verifications_total: 'Blocks hashed before use, by where they came from and result.',
  peerdist_peer_requests_total: 'Questions put to peers and hosted caches, by whom and by what they brought.',
  peerdist_peer_bans_total: 'Times a peer was left alone for a while, because it failed or lied.',
  peerdist_sibling_questions_total: 'Questions to sibling proxies of the site, by what they brought.',
  peerdist_sibling_answers_total: 'Questions of sibling proxies of the site, by what they got.',
  peerdist_uploads_total: 'Questions of peers, by what they got.',
  peerdist_uploaded_bytes_total: 'Bytes of blocks given to peers, encrypted.',
  peerdist_discovery_messages_total: 'Datagrams of peer discovery, by what they were.',
  peerdist_offers_total: 'Segments offered to this hosted cache, by what became of them.',
  peerdist_ingest_requests_total: 'Questions of this hosted cache to clients that had offered, by what they brought.',
  peerdist_ingested_bytes_total: 'Bytes of blocks fetched from clients that had offered them.',
  peerdist_offered_segments_total: 'Segments offered to hosted caches, by whether one took them.',
  peerdist_lookups_total: 'Requests looked up in the cache or among the published, by result.',
  peerdist_content_information_total: 'Content information structures sent, received and rejected.',
  peerdist_evictions_total: 'Entries a store dropped to stay within its limit.',
  peerdist_evicted_bytes_total: 'Bytes a store dropped to stay within its limit.',
  peerdist_store_bytes: 'Bytes a store holds.',
  peerdist_store_limit_bytes: 'Bytes a store may hold; 0 where something else sets the limit.',
  peerdist_store_faults_total: 'Times a store did not do its work, by what was wrong; clients do not notice.',
  peerdist_collapsed_requests_total: 'Requests served from a fetch that another client had started.',
  peerdist_tunnel_bytes_total: 'Bytes through CONNECT and WebSocket tunnels.',
  peerdist_upstream_requests_total: 'Requests where there is an upstream proxy, by the way they went.',
  peerdist_plugin_failures_total: 'Exchanges in which a plug-in failed and was skipped.',
  peerdist_exchanges_total: 'Exchanges ended, by class of status.',
  peerdist_exchange_duration_seconds: 'From request head to last byte.',
  peerdist_info: 'Always 1; its labels tell what runs.',
} as const;

type Name = keyof typeof METRICS;

/** A number that only grows. */
class Tally {
  value = 0;

  inc(by = 1): void {
    this.value += by;
  }
}

export interface MetricsOptions {
  /** @default a new one */
  readonly registry?: Registry | undefined;
  /** Label `site` of every series. @default none */
  readonly site?: string | undefined;
  /** Labels of `peerdist_info`. */
  readonly role?: string | undefined;
  readonly version?: string | undefined;
}

/**
 * Turns observations into Prometheus metrics. Labels are closed lists and exist from the start, at zero. Saved bytes are derived: what clients
 * were given, and what they were told the hashes of instead, less what the WAN carried for it.
 */
export function createMetrics({
  registry = new Registry(),
  site,
  role = '',
  version = '',
}: MetricsOptions = {}): Metrics {
  if (site !== undefined) registry.setDefaultLabels({ site });
  // Plain numbers, handed to prom-client when somebody asks: counting must cost nothing on the way of a warm range.
  const counter = (name: Name): Tally => {
    const tally = new Tally();
    register(name, [], (family) => family.inc(tally.value));
    return tally;
  };
  const counters = <L extends string>(name: Name, label: string, values: readonly L[]): Record<L, Tally> => {
    const tallies = values.map((value) => [value, new Tally()] as const);
    register(name, [label], (family) => {
      for (const [value, tally] of tallies) family.inc({ [label]: value }, tally.value);
    });
    return Object.fromEntries(tallies) as Record<L, Tally>;
  };
  const pairs = <A extends string, B extends string>(
    name: Name,
    [first, firsts]: readonly [string, readonly A[]],
    [second, seconds]: readonly [string, readonly B[]],
  ): Record<A, Record<B, Tally>> => {
    const rows = firsts.map((value) => [value, seconds.map((other) => [other, new Tally()] as const)] as const);
    register(name, [first, second], (family) => {
      for (const [value, row] of rows)
        for (const [other, tally] of row) family.inc({ [first]: value, [second]: other }, tally.value);
    });
    return Object.fromEntries(rows.map(([value, row]) => [value, Object.fromEntries(row)])) as Record<
      A,
      Record<B, Tally>
    >;
  };
  const register = (name: Name, labelNames: string[], fill: (family: Counter) => void): void => {
    void new Counter({
      name,
      help: METRICS[name],
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        fill(this);
      },
    });
  };
  const stores = ['block', 'content_information'] as const;
  const delivered = counters('peerdist_delivered_bytes_total', 'source', ['store', 'peer', 'hosted_cache', 'origin']);
  const wan = counters('peerdist_wan_bytes_total', 'kind', ['content_information', 'missing_data', 'plain']);
  const described = counter('peerdist_described_bytes_total');
  const sent = counter('peerdist_sent_bytes_total');
  const hashed = counter('peerdist_hashed_bytes_total');
  const publications = counters('peerdist_publications_total', 'result', [
    'completed',
    'aborted',
    'too_large',
    'failed',
  ]);
  const verifications = pairs(
    'peerdist_block_verifications_total',
    ['source', ['peer', 'hosted_cache', 'origin', 'added']],
    ['result', ['match', 'mismatch']],
  );
  const peerRequests = pairs(
    'peerdist_peer_requests_total',
    ['source', ['peer', 'hosted_cache']],
    ['result', ['block', 'list', 'absent', 'timeout', 'failed', 'lied', 'cancelled']],
  );
  const bans = counter('peerdist_peer_bans_total');
  const asked = ['found', 'absent', 'timeout', 'failed', 'lied', 'cancelled'] as const;
  const siblingQuestions = counters('peerdist_sibling_questions_total', 'result', asked);
  const answered = ['found', 'absent', 'busy', 'refused'] as const;
  const siblingAnswers = counters('peerdist_sibling_answers_total', 'result', answered);
  const uploads = counters('peerdist_uploads_total', 'result', [
    'block',
    'list',
    'absent',
    'busy',
    'rejected',
    'aborted',
  ]);
  const uploaded = counter('peerdist_uploaded_bytes_total');
  const discovery = counters('peerdist_discovery_messages_total', 'message', [
    'probe_sent',
    'probe_received',
    'match_sent',
    'match_received',
    'dropped',
  ]);
  const offers = counters('peerdist_offers_total', 'result', [
    'accepted',
    'known',
    'unusable',
    'refused',
    'local',
    'malformed',
    'unauthorized',
    'failed',
  ]);
  const ingests = counters('peerdist_ingest_requests_total', 'result', [
    'stored',
    'absent',
    'timeout',
    'failed',
    'lied',
    'refused',
  ]);
  const ingested = counter('peerdist_ingested_bytes_total');
  const offered = counters('peerdist_offered_segments_total', 'result', ['ok', 'failed']);
  const lookups = counters('peerdist_lookups_total', 'result', ['hit', 'stale', 'miss', 'bypass']);
  const information = counters('peerdist_content_information_total', 'result', ['sent', 'received', 'rejected']);
  const evictions = counters('peerdist_evictions_total', 'store', stores);
  const evicted = counters('peerdist_evicted_bytes_total', 'store', stores);
  const faults = pairs(
    'peerdist_store_faults_total',
    ['store', stores],
    ['fault', ['damaged', 'unsealed', 'failed', 'overloaded']],
  );
  const gauges = (name: Name): Record<(typeof stores)[number], { value: number }> => {
    const values = { block: { value: 0 }, content_information: { value: 0 } };
    void new Gauge({
      name,
      help: METRICS[name],
      labelNames: ['store'],
      // Processes that count together share their stores.
      aggregator: 'max',
      registers: [registry],
      collect() {
        for (const store of stores) this.set({ store }, values[store].value);
      },
    });
    return values;
  };
  const held = gauges('peerdist_store_bytes');
  const limits = gauges('peerdist_store_limit_bytes');
  const collapsed = counter('peerdist_collapsed_requests_total');
  const tunnels = counter('peerdist_tunnel_bytes_total');
  const upstream = counters('peerdist_upstream_requests_total', 'result', ['used', 'direct', 'refused']);
  const failures = counter('peerdist_plugin_failures_total');
  const exchanges = counters('peerdist_exchanges_total', 'status', ['1xx', '2xx', '3xx', '4xx', '5xx']);
  const duration = new DurationHistogram(
    'peerdist_exchange_duration_seconds',
    METRICS.peerdist_exchange_duration_seconds,
  );
  duration.register(registry);
  new Gauge({
    name: 'peerdist_info',
    help: METRICS.peerdist_info,
    labelNames: ['version', 'role'],
    aggregator: 'max',
    registers: [registry],
  }).set({ version, role }, 1);
  let saved = 0;

  const observer = (event: Observation): void => {
    switch (event.type) {
      case 'delivered':
        saved += event.bytes;
        return delivered[event.source].inc(event.bytes);
      case 'wan':
        saved -= event.bytes;
        return wan[event.kind].inc(event.bytes);
      case 'described':
        saved += event.bytes;
        return described.inc(event.bytes);
      case 'hashed':
        return hashed.inc(event.bytes);
      case 'publication':
        return publications[event.result].inc();
      case 'verification':
        return verifications[event.source][event.result].inc();
      case 'peer_request':
        return peerRequests[event.source][event.result].inc();
      case 'peer_banned':
        return bans.inc();
      case 'sibling_question':
        return siblingQuestions[event.result].inc();
      case 'sibling_answer':
        return siblingAnswers[event.result].inc();
      case 'upload':
        uploads[event.result].inc();
        return uploaded.inc(event.bytes);
      case 'discovery':
        return discovery[event.message].inc();
      case 'offer':
        return offers[event.result].inc();
      case 'ingest':
        ingests[event.result].inc();
        return ingested.inc(event.bytes);
      case 'offer_sent':
        return offered[event.result].inc(event.segments);
      case 'lookup':
        return lookups[event.result].inc();
      case 'content_information':
        return information[event.result].inc();
      case 'eviction':
        evictions[event.store].inc();
        return evicted[event.store].inc(event.bytes);
      case 'stored':
        held[event.store].value = event.bytes;
        return undefined;
      case 'store_limit':
        limits[event.store].value = event.bytes;
        return undefined;
      case 'store_fault':
        return faults[event.store][event.fault].inc();
      case 'collapsed':
        return collapsed.inc();
      case 'tunnel':
        return tunnels.inc(event.bytes);
      case 'upstream':
        return upstream[event.result].inc();
      case 'plugin_failure':
        return failures.inc();
      case 'exchange':
        exchanges[`${Math.min(5, Math.max(1, Math.floor(event.status / 100)))}xx` as keyof typeof exchanges].inc();
        sent.inc(event.bytes);
        return duration.observe(event.seconds);
    }
  };
  return {
    registry,
    observer,
    exposition: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
    report: () => registry.getMetricsAsJSON(),
    savedBytes: () => saved,
    delivered: () => ({
      store: delivered.store.value,
      peer: delivered.peer.value,
      hosted_cache: delivered.hosted_cache.value,
      origin: delivered.origin.value,
    }),
  };
}
