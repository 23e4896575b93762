/** Metrics: every series is there from the start, no label says anything that is not on a closed list, and what is saved is derived. */
import { Registry } from 'prom-client';
import t from 'tap';
import type { Observation } from '../../lib/observer.ts';
import { createMetrics, type Metrics } from '../../plugins/metrics/index.ts';
import { ask, Origin, startBranch, startReverse, V1_REQUEST } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

/** Every series but the histogram's, as README promises them. */
const SERIES: Readonly<Record<string, readonly [label: string, values: readonly string[]] | null>> = {
  peerdist_delivered_bytes_total: ['source', ['store', 'peer', 'hosted_cache', 'origin']],
  peerdist_wan_bytes_total: ['kind', ['content_information', 'missing_data', 'plain']],
  peerdist_hashed_bytes_total: null,
  peerdist_described_bytes_total: null,
  peerdist_sent_bytes_total: null,
  peerdist_publications_total: ['result', ['completed', 'aborted', 'too_large', 'failed']],
  peerdist_peer_bans_total: null,
  peerdist_uploads_total: ['result', ['block', 'list', 'absent', 'busy', 'rejected', 'aborted']],
  peerdist_uploaded_bytes_total: null,
  peerdist_discovery_messages_total: [
    'message',
    ['probe_sent', 'probe_received', 'match_sent', 'match_received', 'dropped'],
  ],
  peerdist_sibling_questions_total: ['result', ['found', 'absent', 'timeout', 'failed', 'lied', 'cancelled']],
  peerdist_sibling_answers_total: ['result', ['found', 'absent', 'busy', 'refused']],
  peerdist_offers_total: [
    'result',
    ['accepted', 'known', 'unusable', 'refused', 'local', 'malformed', 'unauthorized', 'failed'],
  ],
  peerdist_ingest_requests_total: ['result', ['stored', 'absent', 'timeout', 'failed', 'lied', 'refused']],
  peerdist_ingested_bytes_total: null,
  peerdist_offered_segments_total: ['result', ['ok', 'failed']],
  peerdist_lookups_total: ['result', ['hit', 'stale', 'miss', 'bypass']],
  peerdist_content_information_total: ['result', ['sent', 'received', 'rejected']],
  peerdist_evictions_total: ['store', ['block', 'content_information']],
  peerdist_evicted_bytes_total: ['store', ['block', 'content_information']],
  peerdist_store_bytes: ['store', ['block', 'content_information']],
  peerdist_store_limit_bytes: ['store', ['block', 'content_information']],
  peerdist_collapsed_requests_total: null,
  peerdist_tunnel_bytes_total: null,
  peerdist_upstream_requests_total: ['result', ['used', 'direct', 'refused']],
  peerdist_plugin_failures_total: null,
  peerdist_exchanges_total: ['status', ['1xx', '2xx', '3xx', '4xx', '5xx']],
};
/** The series with two labels. */
const VERIFICATIONS = 'peerdist_block_verifications_total';
const VERIFIED = ['peer', 'hosted_cache', 'origin', 'added'] as const;
const RESULTS = ['match', 'mismatch'] as const;
const REQUESTS = 'peerdist_peer_requests_total';
const ASKED = ['peer', 'hosted_cache'] as const;
const ANSWERS = ['block', 'list', 'absent', 'timeout', 'failed', 'lied', 'cancelled'] as const;
const FAULTS = 'peerdist_store_faults_total';
const STORES = ['block', 'content_information'] as const;
const WRONG = ['damaged', 'unsealed', 'failed', 'overloaded'] as const;
/** Says what runs, and is always 1. */
const INFO = 'peerdist_info';
const HISTOGRAM = 'peerdist_exchange_duration_seconds';

/** Samples of the text format by their whole name, labels included. Throws at a line that is none. */
async function samples(metrics: Metrics): Promise<Map<string, number>> {
  const { text } = await metrics.exposition();
  const found = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const match = /^([a-z_]+(?:\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})?) (-?[\d.e+-]+|NaN|\+Inf)$/i.exec(line);
    if (match === null) throw new Error(`not a sample: ${line}`);
    if (line.startsWith(`${INFO}{`)) continue;
    if (found.has(match[1] as string)) throw new Error(`twice: ${line}`);
    found.set(match[1] as string, Number(match[2]));
  }
  return found;
}

const names = (entries: ReadonlyMap<string, number>): string[] =>
  [...entries.keys()].filter((name) => !name.startsWith(HISTOGRAM)).toSorted();

const EXPECTED = [
  ...Object.entries(SERIES).flatMap(([name, labels]) =>
    labels === null ? [name] : labels[1].map((value) => `${name}{${labels[0]}="${value}"}`),
  ),
  ...VERIFIED.flatMap((source) => RESULTS.map((result) => `${VERIFICATIONS}{source="${source}",result="${result}"}`)),
  ...ASKED.flatMap((source) => ANSWERS.map((result) => `${REQUESTS}{source="${source}",result="${result}"}`)),
  ...STORES.flatMap((store) => WRONG.map((fault) => `${FAULTS}{store="${store}",fault="${fault}"}`)),
].toSorted();

const EVERY: readonly Observation[] = [
  ...(['store', 'peer', 'hosted_cache', 'origin'] as const).map(
    (source) => ({ type: 'delivered', source, bytes: 100 }) as const,
  ),
  ...(['content_information', 'missing_data', 'plain'] as const).map(
    (kind) => ({ type: 'wan', kind, bytes: 30 }) as const,
  ),
  { type: 'hashed', bytes: 7 },
  { type: 'described', bytes: 9 },
  ...(['completed', 'aborted', 'too_large', 'failed'] as const).map(
    (result) => ({ type: 'publication', result }) as const,
  ),
  ...VERIFIED.flatMap((source) => RESULTS.map((result) => ({ type: 'verification', source, result }) as const)),
  ...STORES.flatMap((store) => WRONG.map((fault) => ({ type: 'store_fault', store, fault }) as const)),
  ...ASKED.flatMap((source) => ANSWERS.map((result) => ({ type: 'peer_request', source, result }) as const)),
  { type: 'peer_banned' },
  ...(['block', 'list', 'absent', 'busy', 'rejected', 'aborted'] as const).map(
    (result) => ({ type: 'upload', result, bytes: result === 'block' ? 19 : 0 }) as const,
  ),
  ...(['found', 'absent', 'timeout', 'failed', 'lied', 'cancelled'] as const).map(
    (result) => ({ type: 'sibling_question', result }) as const,
  ),
  ...(['found', 'absent', 'busy', 'refused'] as const).map((result) => ({ type: 'sibling_answer', result }) as const),
  ...(['probe_sent', 'probe_received', 'match_sent', 'match_received', 'dropped'] as const).map(
    (message) => ({ type: 'discovery', message }) as const,
  ),
  ...(['accepted', 'known', 'unusable', 'refused', 'local', 'malformed', 'unauthorized', 'failed'] as const).map(
    (result) => ({ type: 'offer', result }) as const,
  ),
  ...(['stored', 'absent', 'timeout', 'failed', 'lied', 'refused'] as const).map(
    (result) => ({ type: 'ingest', result, bytes: result === 'stored' ? 23 : 0 }) as const,
  ),
  ...(['ok', 'failed'] as const).map((result) => ({ type: 'offer_sent', result, segments: 29 }) as const),
  ...(['hit', 'stale', 'miss', 'bypass'] as const).map((result) => ({ type: 'lookup', result }) as const),
  ...(['sent', 'received', 'rejected'] as const).map((result) => ({ type: 'content_information', result }) as const),
  ...(['block', 'content_information'] as const).flatMap((store) => [
    { type: 'eviction', store, bytes: 11 } as const,
    { type: 'stored', store, bytes: 13 } as const,
    { type: 'store_limit', store, bytes: 1_300 } as const,
  ]),
  { type: 'collapsed' },
  { type: 'tunnel', bytes: 17 },
  { type: 'upstream', result: 'used' },
  { type: 'upstream', result: 'direct' },
  { type: 'upstream', result: 'refused' },
  { type: 'plugin_failure', plugin: 'somebody-elses', error: new Error('http://secret.example/') },
  ...[101, 200, 304, 404, 503].map((status) => ({ type: 'exchange', status, seconds: 0.02, bytes: 40 }) as const),
];

await t.test('every metric exists before any traffic, at zero', async (test) => {
  const found = await samples(createMetrics());
  test.same(names(found), EXPECTED);
  test.same(
    [...found.values()].filter((value) => value !== 0),
    [],
  );
  test.ok(
    found.has(`${HISTOGRAM}_count`) && found.has(`${HISTOGRAM}_sum`) && found.has(`${HISTOGRAM}_bucket{le="+Inf"}`),
  );
});

await t.test('names, units, types and help', async (test) => {
  const { text, contentType } = await createMetrics().exposition();
  test.match(contentType, /^text\/plain; version=0\.0\.4; charset=utf-8$/);
  for (const name of [...Object.keys(SERIES), VERIFICATIONS, HISTOGRAM, INFO]) {
    const help = new RegExp(`^# HELP ${name} (.+)$`, 'm').exec(text)?.[1] ?? '';
    test.ok(help.length > 10 && help.endsWith('.'), `${name}: ${help}`);
    const type = new RegExp(`^# TYPE ${name} (.+)$`, 'm').exec(text)?.[1];
    test.equal(
      type,
      name === HISTOGRAM ? 'histogram' : name.endsWith('_total') ? 'counter' : 'gauge',
      `type of ${name}`,
    );
    test.match(name, /^peerdist(?:_[a-z]+)*_(?:total|bytes|seconds|info)$/);
  }
});

await t.test('each observation moves its own series and no other', async (test) => {
  for (const observation of EVERY) {
    const metrics = createMetrics();
    metrics.observer(observation);
    const moved = [...(await samples(metrics))].filter(([name, value]) => value !== 0 && !name.startsWith(HISTOGRAM));
    const word = Object.entries(observation).find(([name]) =>
      /^(?:source|kind|result|store|message)$/.test(name),
    )?.[1] as string | undefined;
    const isTwofold =
      observation.type === 'eviction' ||
      observation.type === 'exchange' ||
      ((observation.type === 'upload' || observation.type === 'ingest') && observation.bytes > 0);
    test.equal(moved.length, isTwofold ? 2 : 1, JSON.stringify(observation));
    if (word !== undefined && (observation.type === 'upload' || observation.type === 'ingest'))
      test.ok(moved.some(([name]) => name.includes(`"${word}"`)));
    else if (word !== undefined) test.ok(moved.every(([name]) => name.includes(`"${word}"`)));
    if ('bytes' in observation && observation.bytes > 0)
      test.ok(moved.some(([, value]) => value === observation.bytes));
  }
});

await t.test('traffic makes no new series, whatever it is', async (test) => {
  const metrics = createMetrics();
  for (const observation of EVERY) metrics.observer(observation);
  for (const status of [0, 100, 199, 299, 399, 499, 599, 600, 999])
    metrics.observer({ type: 'exchange', status, seconds: 1e9, bytes: 1 });
  test.same(names(await samples(metrics)), EXPECTED);
  const { text } = await metrics.exposition();
  test.notMatch(text, /secret|example|somebody|http:/);
  const found = await samples(metrics);
  const exchanges = ['1xx', '2xx', '3xx', '4xx', '5xx'].map(
    (status) => found.get(`peerdist_exchanges_total{status="${status}"}`) ?? 0,
  );
  test.equal(
    exchanges.reduce((sum, count) => sum + count),
    5 + 9,
    'every exchange is in one class',
  );
  test.equal(found.get(`${HISTOGRAM}_count`), 5 + 9);
});

await t.test('saved bytes are derived, and negative while a cold cache still costs', async (test) => {
  const metrics = createMetrics();
  test.equal(metrics.savedBytes(), 0);
  metrics.observer({ type: 'wan', kind: 'content_information', bytes: 500 });
  test.equal(metrics.savedBytes(), -500);
  metrics.observer({ type: 'wan', kind: 'missing_data', bytes: 1_000 });
  metrics.observer({ type: 'delivered', source: 'origin', bytes: 1_000 });
  test.equal(metrics.savedBytes(), -500);
  metrics.observer({ type: 'delivered', source: 'store', bytes: 1_000 });
  test.equal(metrics.savedBytes(), 500);
  metrics.observer({ type: 'described', bytes: 250 });
  test.equal(metrics.savedBytes(), 750, 'head office counts what it need not send');
});

await t.test('a histogram that Prometheus can read, and a site on every series', async (test) => {
  const metrics = createMetrics({ site: 'Köln "1"', role: 'branch', version: '9.9.9' });
  for (const seconds of [0.001, 0.002, 3, 5_000])
    metrics.observer({ type: 'exchange', status: 200, seconds, bytes: 0 });
  const { text } = await metrics.exposition();
  const site = String.raw`site="Köln \"1\""`;
  const lines = text.split('\n');
  for (const line of [
    `${HISTOGRAM}_bucket{le="0.001",${site}} 1`,
    `${HISTOGRAM}_bucket{le="0.005",${site}} 2`,
    `${HISTOGRAM}_bucket{le="2.5",${site}} 2`,
    `${HISTOGRAM}_bucket{le="10",${site}} 3`,
    `${HISTOGRAM}_bucket{le="+Inf",${site}} 4`,
    `${HISTOGRAM}_sum{${site}} 5003.003`,
    `${HISTOGRAM}_count{${site}} 4`,
    `${INFO}{version="9.9.9",role="branch",${site}} 1`,
  ])
    test.ok(lines.includes(line), line);
  test.equal(lines.filter((line) => line !== '' && !line.startsWith('#') && !line.includes(site)).length, 0);
});

await t.test('the registry may be somebody else’s; two instances do not meet', async (test) => {
  const registry = new Registry();
  const first = createMetrics({ registry });
  const second = createMetrics();
  first.observer({ type: 'hashed', bytes: 5 });
  test.equal(first.registry, registry);
  test.equal((await samples(second)).get('peerdist_hashed_bytes_total'), 0);
  test.match(await registry.metrics(), /^peerdist_hashed_bytes_total 5$/m);
});

await t.test('what they say of a download is what the wire carried', async (test) => {
  const size = 300_001;
  const file = seededBytes(1, size);
  const origin = await Origin.start(test, {
    '/f': { body: file, etag: '"f"', headers: { 'cache-control': 'max-age=60' } },
    '/plain': { body: file },
  });
  const reverse = await startReverse(test, origin);
  const branch = await startBranch(test);
  const url = (path: string): string => `${reverse.url}${path}`;
  const sum = (found: ReadonlyMap<string, number>, name: string): number =>
    [...found].filter(([series]) => series.startsWith(`${name}{`)).reduce((total, [, value]) => total + value, 0);
  await ask(branch.port, url('/f'));
  await branch.remembered();
  await ask(branch.port, url('/f'));
  await ask(branch.port, url('/f'), { fields: { Range: 'bytes=0-999' } });
  const several = await ask(branch.port, url('/f'), { fields: { Range: 'bytes=0-999,5000-5999' } });
  await ask(branch.port, url('/plain'));
  const coded = await ask(branch.port, url('/f'), { fields: V1_REQUEST });
  const metrics = createMetrics();
  for (const observation of branch.observations.all) metrics.observer(observation);
  const found = await samples(metrics);
  const delivered = sum(found, 'peerdist_delivered_bytes_total');
  const wan = sum(found, 'peerdist_wan_bytes_total');
  const least = 3 * size + 1_000 + 2_000 + coded.body.byteLength;
  test.ok(delivered >= least && delivered <= least + several.body.byteLength, `${delivered} delivered`);
  const information = found.get('peerdist_wan_bytes_total{kind="content_information"}') ?? 0;
  test.equal(wan - information, 2 * size, 'two bodies');
  test.ok(information >= 2 * coded.body.byteLength * 0.5 && information < 3 * coded.body.byteLength);
  test.equal(metrics.savedBytes(), delivered - wan);
  test.ok(metrics.savedBytes() > 0);
  test.equal(found.get('peerdist_lookups_total{result="hit"}'), 3);
  test.equal(found.get('peerdist_block_verifications_total{source="origin",result="mismatch"}'), 0);
  test.equal(found.get('peerdist_store_bytes{store="block"}'), branch.blockStore.bytes);
  test.ok((found.get('peerdist_store_limit_bytes{store="block"}') ?? 0) > branch.blockStore.bytes);
  test.ok((found.get('peerdist_sent_bytes_total') ?? 0) > delivered, 'bodies and heads');
  const office = createMetrics();
  for (const observation of reverse.observations.all) office.observer(observation);
  const there = await samples(office);
  test.equal(there.get('peerdist_hashed_bytes_total'), size);
  test.equal(there.get('peerdist_publications_total{result="completed"}'), 1);
  test.equal(there.get('peerdist_content_information_total{result="sent"}'), 2);
  test.equal(there.get('peerdist_described_bytes_total'), 2 * size);
});
