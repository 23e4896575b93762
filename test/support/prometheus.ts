/** Debian's Prometheus with the configuration that is shipped. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Test } from 'tap';
import { parse, stringify } from 'yaml';
import { Program, until } from './proxies.ts';

export const SHIPPED = 'examples/prometheus';
const PATIENCE_MS = 60_000;

export interface Rules {
  readonly groups: { interval?: string; readonly rules: readonly { readonly record: string }[] }[];
}

interface Config {
  global: object;
  rule_files: string[];
  scrape_configs: { readonly job_name: string; static_configs: { readonly targets: readonly string[] }[] }[];
}

interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [atSeconds: number, value: string];
}

export interface Prometheus {
  /** One of the questions of its HTTP API. @throws when it does not take it */
  readonly get: <T>(what: string, parameters?: Readonly<Record<string, string>>) => Promise<T>;
  readonly query: (expression: string) => Promise<readonly Sample[]>;
  readonly series: (selector: string) => Promise<readonly Readonly<Record<string, string>>[]>;
  /** Asks until an expression has a result. */
  readonly eventually: (expression: string) => Promise<void>;
}

/** A file of {@link SHIPPED}. */
export function shipped(name: string): unknown {
  return parse(readFileSync(join(SHIPPED, name), 'utf8'));
}

/**
 * Starts it on a free port, with other targets and everything faster; jobs without targets are left out.
 *
 * @param targets addresses by job
 */
export async function startPrometheus(
  test: Test,
  targets: ReadonlyMap<string, readonly string[]>,
): Promise<Prometheus> {
  const directory = test.testdir({});
  const config = shipped('prometheus.yml') as Config;
  const rules = shipped('rules.yml') as Rules;
  for (const group of rules.groups) delete group.interval;
  writeFileSync(join(directory, 'rules.yml'), stringify(rules));
  config.global = { scrape_interval: '100ms', scrape_timeout: '100ms', evaluation_interval: '500ms' };
  config.rule_files = [join(directory, 'rules.yml'), join(process.cwd(), SHIPPED, 'alerts.yml')];
  config.scrape_configs = config.scrape_configs.filter(({ job_name: job }) => targets.has(job));
  for (const scrape of config.scrape_configs) scrape.static_configs = [{ targets: targets.get(scrape.job_name) ?? [] }];
  writeFileSync(join(directory, 'prometheus.yml'), stringify(config));
  const program = new Program(test, 'prometheus', [
    `--config.file=${join(directory, 'prometheus.yml')}`,
    `--storage.tsdb.path=${join(directory, 'data')}`,
    '--web.listen-address=127.0.0.1:0',
  ]);
  const address = (): string | undefined => /msg="Listening on" address=(\S+)/.exec(program.stderr)?.[1];
  const isReady = (): boolean => address() !== undefined && program.stderr.includes('Server is ready');
  await until(() => isReady() || program.child.exitCode !== null, 'Prometheus is ready', PATIENCE_MS);
  if (!isReady()) throw new Error(`Prometheus ended: ${program.stderr}`);
  const get: Prometheus['get'] = async <T>(what: string, parameters: Readonly<Record<string, string>> = {}) => {
    const search = new URLSearchParams(parameters).toString();
    const response = await fetch(`http://${address()}/api/v1/${what}?${search}`);
    const answer = (await response.json()) as { status: string; data: T; error?: string };
    if (answer.status !== 'success') throw new Error(`${what} ${JSON.stringify(parameters)}: ${answer.error}`);
    return answer.data;
  };
  const query: Prometheus['query'] = async (expression) =>
    (await get<{ result: Sample[] }>('query', { query: expression })).result;
  return {
    get,
    query,
    series: (selector) => get('series', { 'match[]': selector }),
    eventually: async (expression) => {
      for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; await pause(50))
        if ((await query(expression)).length > 0) return;
      throw new Error(`waited in vain for ${expression}\n${program.stderr.slice(-2000)}`);
    },
  };
}
