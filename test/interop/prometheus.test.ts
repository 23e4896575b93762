/**
 * What is shipped for Prometheus and Grafana, against Debian's Prometheus: `promtool` takes the files and the metrics of every role, the rule for
 * saved bytes says what the proxies themselves say, and everything on the Grafana dashboard exists.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { METRICS } from '../../plugins/metrics/index.ts';
import { type Prometheus, type Rules, shipped, SHIPPED, startPrometheus } from '../support/prometheus.ts';
import { ask, Origin, Role, same } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const FIXTURES = 'test/fixtures/prometheus';
const SIZE = 3_000_000;
const BODY = Buffer.from(seededBytes(77, SIZE).buffer);
/** Of the fleet's roles, in their order. */
const JOBS = ['peerdist-reverse', 'peerdist-hosted', 'peerdist-branch', 'peerdist-branch'];
const absent = ['prometheus', 'promtool'].filter((name) => spawnSync(name, ['--version']).error !== undefined);
const skip = absent.length === 0 ? false : `not installed: ${absent.join(', ')}`;
/** `increase()` adds up to 1.1 scrapes at the end: with so many, that is under 1 %. */
const SCRAPES = 120;

interface Alert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

await t.test(
  'promtool takes the configuration, the rules and the alerts, and their unit tests pass',
  { skip },
  async (test) => {
    for (const args of [
      ['check', 'config', join(SHIPPED, 'prometheus.yml')],
      ['check', 'rules', '--lint=all', '--lint-fatal', join(SHIPPED, 'rules.yml'), join(SHIPPED, 'alerts.yml')],
      ['test', 'rules', ...['saved.yml', 'days.yml', 'alerts.yml'].map((name) => join(FIXTURES, name))],
    ]) {
      const { status, stdout, stderr } = spawnSync('promtool', args, { encoding: 'utf8' });
      test.equal(status, 0, `${args.join(' ')}\n${stdout}${stderr}`);
    }
    const { groups } = shipped('alerts.yml') as { groups: readonly { rules: readonly AlertRule[] }[] };
    const tested = readFileSync(join(FIXTURES, 'alerts.yml'), 'utf8');
    for (const alert of groups.flatMap(({ rules }) => rules)) {
      test.match(alert.for, /^\d+[mh]$/, `${alert.alert} waits`);
      test.match(alert.labels.severity, /^(critical|warning)$/);
      test.ok(
        alert.annotations.summary !== '' && alert.annotations.description.length > 100,
        `${alert.alert} says what to do`,
      );
      test.ok(tested.includes(`alertname="${alert.alert}",alertstate="firing"`), `${alert.alert} is seen firing`);
    }
  },
);

await t.test('a real Prometheus reads a head office, a hosted cache and two branches', { skip }, async (test) => {
  const roles = await startFleet(test);
  const prometheus = await startPrometheus(test, targetsOf(roles));
  // Every series is read at 0, so that increase() has nothing to guess at its beginning.
  await prometheus.eventually(`count(up == 1) == ${roles.length}`);
  await makeTraffic(test, prometheus, roles);

  await test.test('promtool has nothing to say about the metrics', async (test) => {
    for (const role of roles) {
      const { body } = await ask(role.adminPort as number, '/metrics');
      const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], { input: body, encoding: 'utf8' });
      test.strictSame([status, stdout, stderr], [0, '', '']);
    }
  });

  await test.test('saved bytes of the last hour are what each proxy says itself', async (test) => {
    await prometheus.eventually(`min(count_over_time(peerdist_described_bytes_total[1h])) >= ${SCRAPES}`);
    await prometheus.eventually(`min(timestamp(instance:peerdist_saved_bytes:increase1h)) > ${Date.now() / 1000}`);
    const recorded = await prometheus.query('instance:peerdist_saved_bytes:increase1h');
    test.equal(recorded.length, roles.length);
    const byJob = new Map<string, number>();
    for (const role of roles) {
      const { savedBytes: own, site } = await whatItSays(role);
      const sample = recorded.find(({ metric }) => metric['instance'] === `127.0.0.1:${role.adminPort}`);
      test.equal(sample?.metric['site'], site);
      test.ok(isNear(Number(sample?.value[1]), own), `${sample?.metric['job']}: ${sample?.value[1]} of ${own}`);
      const job = sample?.metric['job'] ?? '';
      byJob.set(job, (byJob.get(job) ?? 0) + own);
    }
    for (const { metric, value } of await prometheus.query('job:peerdist_saved_bytes:increase1h')) {
      const own = byJob.get(metric['job'] ?? '') ?? NaN;
      test.ok(own > SIZE / 2, `${metric['job']} has saved ${own}`);
      test.ok(isNear(Number(value[1]), own), `${metric['job']}: ${value[1]} of ${own}`);
    }
  });

  await test.test('every panel of the Grafana dashboard asks for what there is', async (test) => {
    const records = (shipped('rules.yml') as Rules).groups.flatMap(({ rules }) => rules.map(({ record }) => record));
    const known = new Set<string | undefined>([...Object.keys(METRICS), ...records]);
    const dashboard = shipped('grafana.json') as Dashboard;
    const inputs = new Set(dashboard.__inputs.map(({ name }) => `\${${name}}`));
    const targets = dashboard.panels.flatMap((panel) =>
      panel.targets.map((target) => ({ ...target, panel: panel.title })),
    );
    test.ok(targets.length > 20);
    for (const { expr, legendFormat, datasource, panel } of targets) {
      test.ok(inputs.has(datasource.uid), `${panel}: the data source is asked for when it is imported`);
      const asked = expr
        .replaceAll('$job', 'peerdist-branch')
        .replaceAll('$site', '.*')
        .replaceAll('$__rate_interval', '1m');
      test.notMatch(asked, /\$/, panel);
      await prometheus.query(asked);
      const names = [...asked.matchAll(/\bpeerdist_\w+|\b\w+:\w+:\w+/g)].map(([name]) => name);
      test.strictSame(
        names.filter((name) => !known.has(name.replace(/_bucket$/, ''))),
        [],
        panel,
      );
      // Longer sums than an hour begin with the first whole hour.
      if (names.some((name) => /:increase\d+d$/.test(name))) continue;
      for (const [selector] of asked.matchAll(/\bpeerdist_\w+\{[^}]*\}/g))
        test.ok((await prometheus.series(selector)).length > 0, `${panel}: ${selector}`);
      const there = (await Promise.all(names.map((name) => prometheus.series(name)))).flat();
      const labels = new Set(there.flatMap((series) => Object.keys(series)));
      const grouped = [...asked.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(', '));
      const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = '']) => label);
      test.strictSame(
        [...grouped, ...shown].filter((label) => !labels.has(label)),
        [],
        panel,
      );
    }
    test.strictSame(
      dashboard.templating.list.map(({ name }) => name),
      ['job', 'site'],
    );
    for (const { definition } of dashboard.templating.list) {
      const [, selector = '', label = ''] = /^label_values\((.+), (\w+)\)$/.exec(definition) ?? [];
      const series = await prometheus.series(selector.replace('$job', 'peerdist-branch'));
      test.ok(series.length > 0 && series.every((each) => label in each), definition);
    }
  });

  await test.test('every rule can be evaluated, and an alert says what it is about', async (test) => {
    // Four rounds and more of every group.
    await prometheus.eventually(`min(timestamp(instance:peerdist_saved_bytes:increase1h)) > ${Date.now() / 1000 + 2}`);
    const { groups } = await prometheus.get<{ groups: readonly { rules: readonly { health: string }[] }[] }>('rules');
    const evaluated = groups.flatMap((group) => group.rules);
    test.ok(evaluated.length > 20);
    test.strictSame(
      evaluated.filter(({ health }) => health !== 'ok'),
      [],
    );
    await (roles[1] as Role).stop();
    await prometheus.eventually('ALERTS{alertname="PeerdistDown",job="peerdist-hosted"}');
    const { alerts } = await prometheus.get<{ alerts: readonly Alert[] }>('alerts');
    const down = alerts.find(
      ({ labels }) => labels['alertname'] === 'PeerdistDown' && labels['job'] === 'peerdist-hosted',
    );
    test.equal(down?.annotations['summary'], `peerdist-hosted at 127.0.0.1:${roles[1]?.adminPort} does not answer.`);
    test.match(down?.annotations['description'], /systemctl status peerdist-hosted,/);
  });
});

interface AlertRule {
  readonly alert: string;
  readonly for: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}

interface Dashboard {
  readonly __inputs: readonly { readonly name: string }[];
  readonly panels: readonly {
    readonly title: string;
    readonly targets: readonly { expr: string; legendFormat: string; datasource: { uid: string } }[];
  }[];
  readonly templating: { readonly list: readonly { readonly name: string; readonly definition: string }[] };
}

/** Head office, a hosted cache, and two branches that use it; in the order of {@link JOBS}. */
async function startFleet(test: Test): Promise<Role[]> {
  const origin = await Origin.start(test, {
    '/f': { body: BODY, etag: '"f"', headers: { 'cache-control': 'max-age=600' } },
  });
  const memory = ['--store', 'memory'];
  const reverse = await Role.start(test, ['reverse', '--origin', origin.url, '--site', 'head office', ...memory]);
  const hosted = await Role.start(test, [
    'hosted',
    '--no-offer-listen',
    '--allow-local-offers',
    '--site',
    'Köln',
    ...memory,
  ]);
  const branch = (site: string): Promise<Role> =>
    Role.start(test, [
      'branch',
      '--peer-listen',
      '127.0.0.1:0',
      '--hosted-cache',
      `127.0.0.1:${hosted.port}`,
      '--site',
      site,
      ...memory,
    ]);
  return [reverse, hosted, await branch('Köln'), await branch('Bonn')];
}

/** Addresses to be scraped, by job. */
function targetsOf(roles: readonly Role[]): Map<string, string[]> {
  const targets = new Map<string, string[]>(JOBS.map((job) => [job, []]));
  for (const [index, { adminPort }] of roles.entries()) targets.get(JOBS[index] ?? '')?.push(`127.0.0.1:${adminPort}`);
  return targets;
}

/** The first branch crosses the WAN and offers, the second one gets it from the hosted cache; then all of it again. */
async function makeTraffic(
  test: Test,
  prometheus: Prometheus,
  [reverse, , first, second]: readonly Role[],
): Promise<void> {
  const download = async (role: Role | undefined): Promise<void> => {
    test.ok(same((await ask(role?.port as number, `${reverse?.url}/f`)).body, BODY));
  };
  await download(first);
  await prometheus.eventually(`peerdist_ingested_bytes_total >= ${SIZE}`);
  await download(second);
  await download(first);
  await download(second);
}

/** What the page of a role shows of it. */
async function whatItSays(role: Role): Promise<{ readonly savedBytes: number; readonly site: string }> {
  const response = await fetch(`http://127.0.0.1:${role.adminPort}/events`);
  let text = '';
  for await (const piece of response.body ?? []) {
    text += Buffer.from(piece as Uint8Array).toString();
    const [, json] = /^event: now\ndata: (.*)\n\n/m.exec(text) ?? [];
    if (json !== undefined) return JSON.parse(json) as { savedBytes: number; site: string };
  }
  throw new Error('the stream of events ended');
}

/** Within 2 %. */
function isNear(value: number, expected: number): boolean {
  return Math.abs(value - expected) <= 0.02 * Math.abs(expected);
}
