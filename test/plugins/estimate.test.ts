/** `peerdist estimate`: against logs whose savings are known, in all formats; hostile logs; sampling, sizes and stacks against plain models. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { encodeProbe } from '../../lib/protocol/pccrd/index.ts';
import { costOf } from '../../lib/stores/lmdb-rows.ts';
import { contentInformationBytes } from '../../plugins/standalone/estimate/content-information-size.ts';
import { createParser, type FormatName } from '../../plugins/standalone/estimate/log-formats.ts';
import { Replay } from '../../plugins/standalone/estimate/replay.ts';
import { RecencyStack } from '../../plugins/standalone/estimate/recency-stack.ts';
import { Sites } from '../../plugins/standalone/estimate/sites.ts';
import {
  combinedLine,
  iisLines,
  PLANNED_CACHE_BYTES,
  PLANNED_SITES,
  type PlannedLog,
  planLog,
  squidLine,
} from '../support/access-logs.ts';
import { describe } from '../support/content-information.ts';
import { peerdist } from '../support/proxies.ts';
import { pick, seededBytes, words } from '../support/random.ts';
import type { Finished } from '../support/proxies.ts';
import { runInside } from '../support/spoken.ts';

interface WayJson {
  readonly savedBytes: number;
  readonly savedPercent: number;
  readonly storeBytesFor90Percent: number | null;
  readonly atFirstBytes: number;
  readonly revalidations: number;
  readonly curve: readonly { readonly sizeBytes: number; readonly savedBytes: number }[];
}

interface SiteJson {
  readonly name: string;
  readonly requests: number;
  readonly wanBytes: number;
  readonly tunnelBytes: number;
  readonly otherBytes: number;
  readonly loggedHitBytes: number;
  readonly oneSided: WayJson;
  readonly peers: WayJson;
  readonly hosted: WayJson;
}

interface EstimateJson {
  readonly sampledOneIn: number;
  readonly clients: number;
  readonly total: SiteJson;
  readonly sites: readonly SiteJson[];
  readonly days: readonly { readonly date: string; readonly wanBytes: number }[];
}

const directory = t.testdir({});
const path = (name: string): string => join(directory, name);
function file(name: string, content: string | Uint8Array): string {
  writeFileSync(path(name), content);
  return path(name);
}
const sites = file('sites.txt', PLANNED_SITES);

/** The command in this process. */
function inside(...args: readonly string[]): Promise<Finished> {
  return runInside(['estimate', ...args], { stopRequested: new Promise(() => {}) });
}

async function estimateOf(test: Test, ...args: readonly string[]): Promise<EstimateJson> {
  const { code, stdout, stderr } = await inside(...args, '--json');
  test.equal(code, 0, stderr);
  return JSON.parse(stdout) as EstimateJson;
}

// --- Logs whose savings are known --------------------------------------------------------------------------------------------------------

/** The log in three files whose times overlap, one of them packed. */
function writeFormat(format: FormatName, log: PlannedLog): string[] {
  return [0, 1, 2].map((part) => {
    const lines = log.lines.filter((_, at) => Math.floor(at / 40) % 3 === part);
    const text = format === 'iis' ? iisLines(lines) : lines.map(format === 'squid' ? squidLine : combinedLine);
    const whole = `${text.join(part === 1 ? '\r\n' : '\n')}${part === 2 ? '' : '\n'}`;
    return part === 1 ? file(`${format}.1.log.gz`, gzipSync(whole)) : file(`${format}.${part}.log`, whole);
  });
}

const isNear = (is: number, shouldBe: number, share: number): boolean =>
  Math.abs(is - shouldBe) <= share * Math.max(1, Math.abs(shouldBe));

for (const format of ['combined', 'squid', 'iis'] as const)
  await t.test(`${format}: what is saved at each site is what was planned`, async (test) => {
    const log = planLog(7, 110, format === 'combined' ? 0 : 400);
    const logs = writeFormat(format, log);
    const [cache, twice] = [PLANNED_CACHE_BYTES, 2 * PLANNED_CACHE_BYTES].map(String) as [string, string];
    // Once as the program that people start.
    const args = [...logs, '--sites', sites, '--cache-size', cache, '--json'];
    const { code, stdout, stderr } = await peerdist(test, ['estimate', ...args]);
    test.same([code, stderr], [0, '']);
    const result = JSON.parse(stdout) as EstimateJson;
    const large = await estimateOf(test, ...logs, '--sites', sites, '--cache-size', twice, '--format', format);
    test.same(result.sites.map(({ name }) => name).toSorted(), [...log.truth.keys()].toSorted());
    for (const [name, truth] of log.truth) {
      const site = result.sites.find((each) => each.name === name) as SiteJson;
      test.same([site.requests, site.wanBytes], [truth.requests, truth.wanBytes], name);
      test.equal(site.oneSided.savedBytes, truth.oneSided, `${name}: one-sided cache`);
      test.ok(
        isNear(site.peers.savedBytes, truth.peers, 0.001),
        `${name}: peers, ${site.peers.savedBytes} for ${truth.peers}`,
      );
      test.ok(
        isNear(site.hosted.savedBytes, truth.hosted, 0.001),
        `${name}: hosted, ${site.hosted.savedBytes} for ${truth.hosted}`,
      );
      const larger = large.sites.find((each) => each.name === name) as SiteJson;
      test.equal(larger.oneSided.savedBytes, truth.oneSided + truth.withTwice, `${name}: a cache twice as large`);
      test.ok(isNear(larger.hosted.savedBytes, truth.hosted + truth.withTwice, 0.001));
      // One pass tells what the other size saves, but for what is larger than the smaller cache itself.
      const atCache = larger.oneSided.curve.findLast(({ sizeBytes }) => sizeBytes <= PLANNED_CACHE_BYTES);
      test.ok((atCache?.savedBytes ?? Infinity) <= truth.oneSided, 'the curve below the cache');
      test.equal(larger.oneSided.curve.at(-1)?.savedBytes, truth.oneSided + truth.withTwice, 'the end of the curve');
      const saved = larger.oneSided.curve.map(({ savedBytes }) => savedBytes);
      test.same(
        saved,
        saved.toSorted((a, b) => a - b),
        'a larger cache saves more',
      );
      const enough = larger.oneSided.storeBytesFor90Percent ?? 0;
      const at = larger.oneSided.curve.findIndex(({ sizeBytes }) => sizeBytes === enough);
      test.ok(
        (saved[at] ?? 0) >= 0.9 * (saved.at(-1) as number) && (saved[at - 1] ?? 0) < 0.9 * (saved.at(-1) as number),
      );
    }
    const sum = (of: (site: SiteJson) => number): number => result.sites.reduce((all, site) => all + of(site), 0);
    test.equal(
      result.total.wanBytes,
      sum((site) => site.wanBytes),
    );
    test.equal(
      result.total.oneSided.savedBytes,
      sum((site) => site.oneSided.savedBytes),
    );
    test.equal(
      result.days.reduce((all, day) => all + day.wanBytes, 0),
      result.total.wanBytes,
    );
  });

// --- Rules, one by one -------------------------------------------------------------------------------------------------------------------

const at = (hour: number): number => Date.UTC(2024, 4, 6, hour) / 1000;
const get = (hour: number, client: string, url: string, bytes: number, status = 200): string =>
  combinedLine({ second: at(hour), client, method: 'GET', url, status, bytes });
const MEGABYTE = 1_000_000;
const roughly = (way: WayJson): number => Math.round(way.savedBytes / (MEGABYTE / 10)) / 10 || 0;

await t.test(
  'clients leave and forget; versions share what they have in common; head office has no hashes at first',
  async (test) => {
    const rules = file(
      'rules.log',
      [
        // Three holders are remembered: those not heard of for the longest time make room. Of c, d and e only d comes on again.
        ...['a', 'b', 'c', 'd', 'e'].map((client, hour) => get(hour, client, '/held', MEGABYTE)),
        get(20, 'd', '/none', 10, 404),
        get(20, 'e2', '/held', MEGABYTE),
        // Its client takes in so much that it forgets the first.
        get(20, 'f', '/first', MEGABYTE),
        get(20, 'f', '/second', 1.5 * MEGABYTE),
        get(21, 'g', '/first', MEGABYTE),
      ].join('\n'),
    );
    const all = await estimateOf(test, rules, '--client-cache', '2MB');
    test.same([roughly(all.total.peers), roughly(all.total.hosted)], [5, 6]);
    test.equal(
      roughly({ ...all.total.peers, savedBytes: all.total.peers.atFirstBytes }),
      1,
      'b had it of the very first',
    );
    test.same(roughly((await estimateOf(test, rules, '--client-cache', '3MB')).total.peers), 6);
    test.same(roughly((await estimateOf(test, rules, '--on-for', '30m', '--client-cache', '3MB')).total.peers), 1);

    const versions = file(
      'versions.log',
      [
        get(0, '10.1.0.1', '/v', MEGABYTE),
        get(1, '10.2.0.1', '/v', MEGABYTE),
        get(2, '10.1.0.1', '/v', MEGABYTE + 10),
        get(3, '10.2.0.1', '/v', MEGABYTE + 10),
      ].join('\n'),
    );
    const split = ['--site', 'one=10.1.0.0/16', '--site', 'two=10.2.0.0/16'];
    test.equal(roughly((await estimateOf(test, versions, ...split)).total.hosted), 0);
    const similar = await estimateOf(test, versions, ...split, '--similarity', '80');
    test.same(
      Object.fromEntries(
        similar.sites.map(({ name, oneSided, peers, hosted }) => [name, [oneSided, peers, hosted].map(roughly)]),
      ),
      { one: [0, 0, 0], two: [0, 0.8, 0.8] },
      'the site that comes second is told what has changed',
    );
  },
);

await t.test('peers and hosted cache cost content information, whoever has it', async (test) => {
  const log = file(
    'cost.log',
    Array.from({ length: 10 }, (_, hour) => get(hour, 'a', `/${hour}`, 50 * MEGABYTE)).join('\n'),
  );
  const { total } = await estimateOf(test, log);
  const real = 10 * encodeContentInformation(describe(2, seededBytes(3, 50 * MEGABYTE))).byteLength;
  test.equal(total.oneSided.savedBytes, 0);
  for (const way of [total.peers, total.hosted]) test.ok(isNear(way.savedBytes, -real, 0.03), `${way.savedBytes}`);
  const { stdout } = await inside(log);
  test.match(stdout, /No way saves anything/);
});

await t.test('Squid: hits of its own, tunnels, and answers that never came are told apart', async (test) => {
  const line = (code: string, bytes: number, method = 'GET', url = 'http://h/x'): string =>
    `1700000000.500     12 10.0.0.1 ${code} ${bytes} ${method} ${url} - HIER_NONE/- text/html`;
  const log = file(
    'squid-codes.log',
    [
      line('TCP_MISS/200', 100_300),
      line('TCP_MEM_HIT/200', 100_350),
      line('TCP_TUNNEL/200', 7_000, 'CONNECT', 'h:443'),
      line('NONE_NONE_ABORTED/000', 0),
      line('TCP_DENIED/403', 4_000),
    ].join('\n'),
  );
  const { total } = await estimateOf(test, log);
  test.match(total, { requests: 5, tunnelBytes: 7_000, otherBytes: 4_000, loggedHitBytes: 100_350 });
  test.equal(total.oneSided.savedBytes, 100_350, 'heads of other lengths make no other version');
});

// --- Formats -----------------------------------------------------------------------------------------------------------------------------

await t.test('lines of real servers', (test) => {
  for (const format of ['combined', 'squid', 'iis'] as const) {
    const parse = createParser(format);
    const records = readFileSync(`test/fixtures/logs/${format}.log`, 'latin1')
      .trimEnd()
      .split(/\r?\n/)
      .map(parse)
      .filter((record) => record !== 'comment');
    const expected = JSON.parse(readFileSync(`test/fixtures/logs/${format}.json`, 'utf8')) as unknown[];
    test.same(
      records.map((record) => record ?? null),
      expected,
      format,
    );
  }
  test.end();
});

await t.test('IIS without the bytes sent says which field to switch on, and where', async (test) => {
  const log = file(
    'no-bytes.log',
    '#Fields: date time c-ip cs-method cs-uri-stem sc-status\n2024-01-01 00:00:00 ::1 GET / 200\n',
  );
  const { code, stderr } = await inside(log);
  test.equal(code, 2);
  test.match(stderr, /no-bytes\.log, line 1: IIS does not log sc-bytes \(Bytes Sent\) there: switch it on/);
});

await t.test('sites: the longest network wins, in both families', async (test) => {
  const of = new Sites([
    ['all', '10.0.0.0/8'],
    ['one', '10.1.2.3'],
    ['half', '10.1.0.0/17'],
    ['six', '2001:db8::/32'],
    ['six-near', '2001:db8:0:1::/64'],
    ['rest', '0.0.0.0/0'],
  ]);
  const name = (client: string): string => of.names[of.of(client)] as string;
  test.same(
    [
      '10.9.9.9',
      '10.1.2.3',
      '10.1.2.4',
      '10.1.128.1',
      '::ffff:10.1.2.3',
      '2001:DB8::1',
      '2001:db8:0:1::9',
      '9.9.9.9',
    ].map(name),
    ['all', 'one', 'half', 'all', 'one', 'six', 'six-near', 'rest'],
  );
  test.same(['fe80::1', 'host.example.com', '-', '1.2.3', '::1.2.3.4'].map(name), Array(5).fill('other'));
  for (const [args, message] of [
    [['--site', 'x=10.0.0.0/33'], /not a network/],
    [['--site', 'x'], /not a site like/],
    [['--site', '\u001b[31m=::1'], /not a name of a site .*"\\u001b/],
    [['--site', 'x=::1', '--site', 'y=::1'], /for two sites/],
    [['--sites', file('bad-sites', 'x ::1\ny\n')], /bad-sites, line 2/],
    [['--sites', path('none')], /cannot read .*ENOENT/],
  ] as const) {
    const { code, stderr } = await inside(file('empty.log', ''), ...args);
    test.equal(code, 2);
    test.match(stderr, message);
    test.equal(stderr.split('\n').length, 2, 'one line');
  }
});

// --- Hostile logs ------------------------------------------------------------------------------------------------------------------------

await t.test('whatever is in a log, it is counted, skipped and never printed', async (test) => {
  const good = Array.from({ length: 40 }, (_, hour) => get(hour % 5, '10.0.0.1', `/\u001b[31m${hour % 2}`, 100_000));
  const bad = [
    `10.0.0.1 - - [06/May/2024:00:00:00 +0000] "GET /${'x'.repeat(3_000_000)} HTTP/1.1" 200 100000`,
    Buffer.from(seededBytes(5, 5_000))
      .toString('latin1')
      .replaceAll(/[\r\n]/g, ' '),
    '\0'.repeat(70_000),
    get(0, '10.0.0.1', '/negative', -5),
    `10.0.0.1 - - [06/May/2024:00:00:00 +0000] "GET / HTTP/1.1" 200 ${2 ** 53}`,
    '10.0.0.1 - - [31/Foo/2024:00:00:00 +0000] "GET / HTTP/1.1" 200 5',
    '10.0.0.1 - - [06/May/9999:00:00:00 +0000] "GET / HTTP/1.1" 200 5',
    '10.0.0.1 - - [06/May/1969:00:00:00 +0000] "GET / HTTP/1.1" 200 5',
    `10.0.0.1 - - [06/May/2024:00:00:00 +0000] "GET /${String.raw`\"`.repeat(20_000)}`,
  ];
  const lines = good.flatMap((line, index) => (bad[index] === undefined ? [line] : [line, bad[index]]));
  const log = file('hostile.log', Buffer.from(`${lines.join('\n')}\n`, 'latin1'));
  const { code, stdout, stderr } = await inside(log, '--json');
  test.equal(code, 0);
  test.match(
    stderr,
    `hostile.log: skipped: ${bad.length} of ${lines.length} lines are not in the format combined (lines 2, 4, 6, 8, 10, …)`,
  );
  const { total } = JSON.parse(stdout) as EstimateJson;
  test.match(total, { requests: 40, wanBytes: 4_000_000 });
  // Times go backwards again and again: a content is as fresh as it was.
  test.equal(total.oneSided.savedBytes, 3_800_000);
  const html = path('hostile.html');
  const printed = await inside(log, '--html', html);
  for (const text of [
    stdout,
    stderr,
    printed.stdout,
    printed.stderr,
    readFileSync(html, 'utf8').split('<script>')[0] ?? '',
  ])
    test.notMatch(text, /[\u0000-\u0008\u000b-\u001f]/); // eslint-disable-line no-control-regex
});

await t.test('a million clients, and answers of a petabyte', (test) => {
  const rules = { cacheBytes: 1e11, clientCacheBytes: 1e10, freshForMs: 1e6, onForMs: 1e6, minSizeBytes: 65_536 };
  const replay = new Replay({ ...rules, similarity: 0, maxEntries: 1000 }, () => 0);
  const answer = { timeMs: 0, method: 'GET', url: '/', status: 200, hasHead: false, isCacheHit: false };
  const clients = 2 ** 20 + 50_000;
  for (let client = 0; client < clients; client += 1) replay.take({ ...answer, client: `c${client}`, bytes: 2 ** 50 });
  test.same([replay.clients, replay.untrackedRequests], [2 ** 20, 50_000]);
  const [sums] = replay.sites;
  test.match(sums, { requests: clients, wanBytes: clients * 2 ** 50, oneSided: 0 }, 'no cache keeps that');
  test.end();
});

await t.test('what cannot be replayed ends with one clear line', async (test) => {
  const packed = gzipSync(Buffer.from(`${get(0, 'a', '/', 5)}\n`.repeat(5_000)));
  mkdirSync(path('directory'));
  for (const [args, code, message] of [
    [[], 2, /estimate needs logs/],
    [[path('none.log')], 2, /cannot read .*none\.log: ENOENT/],
    [[path('directory')], 2, /cannot read .*directory: EISDIR/],
    [[file('empty.log', '')], 1, /not one request/],
    [
      [file('comments.log', '#Fields: date time c-ip cs-method cs-uri-stem sc-status sc-bytes\n')],
      1,
      /not one request/,
    ],
    [
      [file('noise.log', Buffer.from(seededBytes(9, 100_000)))],
      1,
      /noise\.log: its first lines are in none of the formats/,
    ],
    [[file('zero.log', Buffer.alloc(1_000_000))], 1, /zero\.log: .*1 of 1 lines are not in a format that is known/],
    [
      [file('mostly.log', `${get(0, 'a', '/', 5)}\n${'noise\n'.repeat(5)}`)],
      1,
      /mostly\.log: 5 of 6 lines are not in the format combined/,
    ],
    [[file('cut.log.gz', packed.subarray(0, -20))], 1, /cut\.log\.gz: damaged, or cut off/],
    [[file('plain.log.gz', 'not packed')], 1, /plain\.log\.gz: damaged/],
    [[path('cut.log.gz'), file('fine.log', get(0, 'a', '/', 5))], 1, /cut\.log\.gz: damaged, or cut off/],
    [[path('fine.log'), path('fine.log')], 2, /given twice/],
    [[path('fine.log'), '--synthetic', 'sites=1'], 2, /takes no logs/],
    [[path('fine.log'), '--html', path('directory')], 2, /cannot write/],
    [[path('fine.log'), '--similarity', '101'], 2, /--similarity/],
    [['--synthetic', 'colour=1'], 2, /--synthetic knows sites, .*not "colour"/],
    [['--synthetic', 'sites=1.5'], 2, /sites is a whole number/],
  ] as const) {
    const { code: exitCode, stdout, stderr } = await inside(...args);
    test.same([exitCode, stdout], [code, ''], String(message));
    test.match(stderr, message);
    test.equal(stderr.split('\n').length, 2, stderr);
  }
});

await t.test('standard input, and a request to stop', async (test) => {
  const main = new URL('../../plugins/standalone/main.js', import.meta.url).pathname;
  const input = `${get(0, 'a', '/', 70_000)}\n${get(0, 'b', '/', 70_000)}\n`;
  const { status, stdout } = spawnSync(process.execPath, [main, 'estimate', '-', '--json'], {
    input,
    encoding: 'utf8',
  });
  test.equal(status, 0);
  test.equal((JSON.parse(stdout) as EstimateJson).total.oneSided.savedBytes, 70_000);
  // A pipe of which nothing more comes, beside a file.
  spawnSync('mkfifo', [path('pipe')]);
  const writer = openSync(path('pipe'), 'r+');
  writeSync(writer, input);
  for (const args of [
    ['--synthetic', 'requests=100000000'],
    [path('pipe')],
    [path('pipe'), file('beside.log', input)],
  ]) {
    const { code, stderr } = await runInside(['estimate', ...args]);
    test.equal(code, 1);
    test.match(stderr, /stopped before everything was read/);
  }
  closeSync(writer);
});

// --- Catalogues, samples, reports --------------------------------------------------------------------------------------------------------

await t.test('a sample stands for more contents than there is room for', async (test) => {
  const catalogue = 'sites=8,clients=20,objects=60000,requests=400000,updates=300,meanSize=200000';
  const args = ['--synthetic', catalogue, '--cache-size', '2GB', '--client-cache', '100MB'];
  const [all, sampled] = [await estimateOf(test, ...args), await estimateOf(test, ...args, '--max-objects', '40000')];
  test.equal(all.sampledOneIn, 1);
  test.ok(sampled.sampledOneIn >= 4, `one in ${sampled.sampledOneIn}`);
  test.equal(sampled.total.wanBytes, all.total.wanBytes);
  for (const way of ['oneSided', 'peers', 'hosted'] as const) {
    const [is, shouldBe] = [sampled.total[way].savedBytes, all.total[way].savedBytes];
    test.ok(isNear(is, shouldBe, 0.02), `${way}: ${is} for ${shouldBe}`);
  }
  // One content at more sites than there is room for: it ends, and says something.
  const few = await inside('--synthetic', 'sites=5000,objects=1,requests=20000', '--max-objects', '1000');
  test.equal(few.code, 0);
  test.match(few.stdout, /too many contents to watch all/);
});

await t.test('ten thousand sites: the largest in the table, all in JSON, plots in HTML', async (test) => {
  const args = ['--synthetic', 'sites=10000,clients=3,objects=500,requests=60000,seed=3'];
  const html = path('report.html');
  const { code, stdout } = await inside(...args, '--html', html);
  test.equal(code, 0);
  test.equal(stdout.split('\n').filter((line) => /site-\d/.test(line)).length, 20);
  const result = await estimateOf(test, ...args);
  test.match(stdout, `${result.sites.length - 20} smaller sites are left out here`);
  test.equal(
    result.sites.reduce((sum, site) => sum + site.requests, 0),
    60_000,
  );
  test.same(await estimateOf(test, ...args), result, 'the same seed, the same requests');
  const page = readFileSync(html, 'utf8');
  const plots = JSON.parse(/id="plots">(.*?)<\/script>/.exec(page)?.[1] ?? '[]') as {
    readonly title: string;
    readonly x: { readonly values: readonly number[] };
    readonly series: readonly { readonly values: readonly number[] }[];
  }[];
  test.equal(plots.length, 1 + 1 + 6, 'days, the total, the largest sites');
  for (const { title, x, series } of plots)
    for (const { values } of series) test.equal(values.length, x.values.length, title);
});

// --- Models ------------------------------------------------------------------------------------------------------------------------------

await t.test('a stack tells the distances that a plain list tells', (test) => {
  const next = words(11);
  const entries = {
    sizes: Float64Array.from({ length: 300 }, () => pick(next, 1000)),
    levels: Uint8Array.from({ length: 300 }, () => pick(next, 3)),
    positions: new Uint32Array(300),
    maxBytes: 900,
    minLargeBytes: 400,
  };
  const stack = new RecencyStack(entries);
  const list: number[] = [];
  const weight = (row: number, least: number): number => {
    const size = entries.sizes[row] as number;
    return size > 900 || size < least ? 0 : size;
  };
  for (let step = 0; step < 20_000; step += 1) {
    const row = pick(next, 300);
    const place = list.indexOf(row);
    if (place >= 0) {
      const above = (least: number): number =>
        list
          .slice(place + 1)
          .reduce((sum, each) => sum + weight(each, least) * 2 ** (entries.levels[each] as number), 0);
      stack.measure(row);
      const size = entries.sizes[row] as number;
      if (size <= 900 && stack.distance !== above(0) + size) test.fail(`step ${step}: ${stack.distance}`);
      if (size <= 900 && size >= 400 && stack.largeDistance !== above(400) + size) test.fail(`step ${step}, large`);
      stack.remove(row);
      list.splice(place, 1);
      if (pick(next, 10) === 0) continue;
      entries.sizes[row] = pick(next, 1000);
    }
    stack.push(row);
    list.push(row);
  }
  test.equal(stack.count, list.length);
  test.end();
});

await t.test('the size of content information, from the length alone', (test) => {
  const content = seededBytes(21, 40_000_000);
  for (const bytes of [1, 30_000, 65_536, 65_537, 33_554_432, 33_554_433, 40_000_000]) {
    const real = encodeContentInformation(describe(1, content.subarray(0, bytes))).byteLength;
    test.equal(contentInformationBytes(1, bytes), real, `version 1, ${bytes}`);
  }
  // Of version 2 the mean: over many contents of one length.
  for (const [bytes, share] of [
    [70_000, 0.03],
    [200_000, 0.02],
    [1_000_000, 0.02],
    [40_000_000, 0.02],
  ] as const) {
    const contents = Math.floor(content.byteLength / bytes);
    let real = 0;
    for (let each = 0; each < contents; each += 1)
      real += encodeContentInformation(describe(2, content.subarray(each * bytes, (each + 1) * bytes))).byteLength;
    test.ok(
      isNear(contentInformationBytes(2, bytes), real / contents, share),
      `version 2, ${bytes}: ${real / contents}`,
    );
  }
  test.end();
});

await t.test('SIZING.md says what the code does', (test) => {
  const text = readFileSync('plugins/standalone/estimate/SIZING.md', 'utf8');
  /** The number that a row begins its third cell with. */
  const figure = (name: string): number => {
    const row = text.split('\n').find((line) => line.startsWith(`| ${name}`));
    return Number.parseFloat((row?.split('|')[3] ?? '').replaceAll(',', ''));
  };
  test.equal(figure('version 1, SHA-256'), contentInformationBytes(1, 1e9));
  test.ok(isNear(figure('version 2'), contentInformationBytes(2, 1e9), 0.002), `${contentInformationBytes(2, 1e9)}`);
  // Segments of all lengths between the shortest and the longest cost the mean.
  const lengths = Array.from({ length: 62_400 }, (_, index) => 32_768 + index);
  const cost =
    lengths.reduce((sum, length) => sum + costOf(length), 0) / lengths.reduce((sum, length) => sum + length, 0);
  test.ok(isNear(figure('a value in LMDB'), cost, 0.01), `${cost}`);
  for (const [name, version] of [
    ['a probe, version 2', 2],
    ['the same, version 1', 1],
  ] as const) {
    const segmentIds = Array.from({ length: 128 }, (_, index) => index.toString(16).padStart(64, '0'));
    const messageId = 'urn:uuid:00000000-0000-0000-0000-000000000000';
    test.equal(figure(name), encodeProbe({ messageId, version, segmentIds }).byteLength, name);
  }
  test.end();
});
