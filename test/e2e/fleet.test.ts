/** Several machines and one Redis: proxies at head office that share content information, branches that share blocks, Redis going away under load. */
import { writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { ask, inTime, Origin, Role, same, V2_REQUEST } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';
import { noRedis, TestRedis, until } from '../support/redis.ts';

const BODY = Buffer.from(seededBytes(601, 3_000_000).buffer);
const SECRET = { PEERDIST_SECRET: 'one secret for the fleet' };
const HOST = 'www.example.com';

interface Fleet {
  readonly redis: TestRedis;
  readonly origin: Origin;
  readonly a: Role;
  readonly b: Role;
}

/** Two proxies before the same origin, which see the same Host as behind a load balancer. */
async function fleet(test: Test): Promise<Fleet> {
  const redis = await TestRedis.start(test);
  const files = Object.fromEntries(
    Array.from({ length: 8 }, (_, index) => [
      `/${index}`,
      {
        body: BODY.subarray(0, BODY.byteLength - index),
        etag: `"${index}"`,
        headers: { 'cache-control': 'max-age=600' },
      },
    ]),
  );
  const origin = await Origin.start(test, files);
  const start = (): Promise<Role> =>
    Role.start(test, ['reverse', '--origin', origin.url, '--preserve-host', '--store', redis.url], SECRET);
  const [a, b] = await Promise.all([start(), start()]);
  return { redis, origin, a, b };
}

const coded = (proxy: Role, path: string): ReturnType<typeof ask> =>
  ask(proxy.port, path, { fields: V2_REQUEST, host: HOST });

/** Content information, once it has been made. */
async function information(proxy: Role, path: string): Promise<Buffer> {
  for (;;) {
    const { headers, body } = await coded(proxy, path);
    if (headers['content-encoding'] === 'peerdist') return body;
  }
}

const ready = async ({ adminPort }: Role): Promise<string> =>
  (await ask(adminPort as number, '/readyz')).body.toString();

await t.test('what one proxy has hashed, the other answers at once', { skip: noRedis }, async (test) => {
  const { redis, origin, a, b } = await fleet(test);
  test.equal(await ready(a), 'ready\n');
  const first = await inTime(information(a, '/0'), 'content information');
  const bodies = (): number => origin.requests.filter(({ sent }) => sent > 0).length;
  const before = bodies();
  const { headers, body } = await coded(b, '/0');
  test.equal(headers['content-encoding'], 'peerdist');
  test.ok(same(body, first), 'with the same segment IDs and all');
  test.equal(bodies(), before, 'and no body has come from the origin for it');
  test.equal(await b.metric('peerdist_hashed_bytes_total'), 0);

  // Both at once: one hashes.
  await Promise.all([information(a, '/1'), information(b, '/1')]);
  const hashed = await Promise.all([a, b].map((proxy) => proxy.metric('peerdist_hashed_bytes_total')));
  test.ok(
    hashed.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0) <= 3 * BODY.byteLength,
    `${hashed.join()} hashed`,
  );

  await redis.stop();
  await until(async () => (await ready(b)).includes('Redis is away'), 'that it is away');
  test.equal((await ask(b.adminPort as number, '/readyz')).status, 200, 'the proxy goes on');
});

await t.test('Redis goes and comes under load: no request fails', { skip: noRedis }, async (test) => {
  const { redis, a, b } = await fleet(test);
  await information(a, '/0');
  const end = new AbortController();
  const seen = { plain: 0, coded: 0, wrong: 0 };
  const client = async (proxy: Role, from: number): Promise<void> => {
    for (let index = from; !end.signal.aborted; index += 1) {
      const { status, headers, body, complete } = await coded(proxy, `/${index % 8}`);
      const isCoded = headers['content-encoding'] === 'peerdist';
      if (status !== 200 || !complete) seen.wrong += 1;
      else if (isCoded) seen.coded += 1;
      else if (same(body, BODY.subarray(0, BODY.byteLength - (index % 8)))) seen.plain += 1;
      else seen.wrong += 1;
    }
  };
  const clients = [a, b, a, b].map((proxy, index) => client(proxy, 2 * index));
  for (let round = 0; round < 3; round += 1) {
    await redis.stop();
    await until(async () => (await ready(a)).includes('Redis is away'), 'that it is away');
    const { coded: before } = seen;
    await until(() => seen.coded > before + 3 || seen.plain > 40, 'answers without it');
    await redis.start();
    await until(async () => (await ready(a)) === 'ready\n', 'that it is there again');
  }
  end.abort();
  await inTime(Promise.all(clients), 'the end of all requests', 20_000);
  test.equal(seen.wrong, 0, `${seen.coded} answered with content information, ${seen.plain} plain`);
  test.ok(seen.coded > 10);
});

await t.test(
  'branches with one Redis know what each has of origins that describe nothing',
  { skip: noRedis },
  async (test) => {
    const { redis, origin } = await fleet(test);
    const states = test.testdir({ one: {}, two: {} });
    const start = (name: string): Promise<Role> => {
      const state = `${states}/${name}`;
      writeFileSync(`${state}/server-secret`, `${'5a'.repeat(32)}\n`, { mode: 0o600 });
      return Role.start(test, ['branch', '--store', redis.url, '--state-dir', state]);
    };
    const [one, two] = await Promise.all([start('one'), start('two')]);
    const url = `${origin.url}/3`;
    const body = BODY.subarray(0, BODY.byteLength - 3);
    test.ok(same((await ask(one.port, url)).body, body));
    await until(async () => String((await ask(one.port, url)).headers['cache-status']).endsWith(' hit'), 'it is kept');
    await one.stop();
    const before = origin.requests.length;
    const { headers, body: got } = await ask(two.port, url);
    test.ok(same(got, body));
    test.match(headers['cache-status'], / hit$/);
    test.equal(origin.requests.length, before, 'the origin was not even asked');
    test.equal(await two.metric('peerdist_delivered_bytes_total{source="store"}'), body.byteLength);
  },
);

await t.test(
  'branches that share blocks: the second download of a site crosses no WAN',
  { skip: noRedis },
  async (test) => {
    const { redis, a } = await fleet(test);
    const url = `${a.url}/2`;
    const body = BODY.subarray(0, BODY.byteLength - 2);
    const start = (): Promise<Role> => Role.start(test, ['branch', '--store', redis.url]);
    const [one, two] = await Promise.all([start(), start()]);
    test.ok(same((await ask(one.port, url)).body, body));
    // Not one that is still given out of the first download: out of blocks.
    await until(async () => {
      const answer = await ask(one.port, url);
      return same(answer.body, body) && / hit\b/.test(String(answer.headers['cache-status']));
    }, 'that the first has it');
    // They go to Redis behind the client's back, and the last of them before it ends.
    await one.stop();
    test.ok(same((await ask(two.port, url)).body, body));
    test.equal(await two.wanBodyBytes(), 0);
    test.equal(await two.metric('peerdist_delivered_bytes_total{source="store"}'), body.byteLength);
  },
);
