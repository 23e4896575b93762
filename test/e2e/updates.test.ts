/**
 * An update as a branch gets it: many clients fetch a new file at once, then its next version. Every byte that crosses the line is counted, heads
 * and all, in both directions; every byte that a client gets is looked at.
 */
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { WanLink } from '../../plugins/standalone/demo/wan-link.ts';
import { ask, inTime, Origin, peerdist, Role } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const SIZE = 20_000_000;
const CLIENTS = 20;
/** As many begin at once; the others come while the first one is under way. */
const AT_ONCE = 10;
const PATIENCE_MS = 60_000;
const LINE = { bitsPerSecond: 200e6, roundTripMs: 20 };

const FIRST = Buffer.from(seededBytes(821, SIZE).buffer);
const MIDDLE = SIZE / 2;
const NEW = Buffer.from(seededBytes(822, SIZE / 100).buffer);

/** The next versions: 1 % is new, in one place in the middle. */
const EDITS: Readonly<Record<string, (file: Buffer) => Buffer>> = {
  replaced: (file) => Buffer.concat([file.subarray(0, MIDDLE), NEW, file.subarray(MIDDLE + NEW.byteLength)]),
  inserted: (file) => Buffer.concat([file.subarray(0, MIDDLE + 777), NEW.subarray(1), file.subarray(MIDDLE + 777)]),
  removed: (file) => Buffer.concat([file.subarray(0, MIDDLE - 99_999), file.subarray(MIDDLE + 99_998)]),
};

/** A line to a port of this machine. */
async function startLine(test: Test, port: number): Promise<{ readonly link: WanLink; readonly url: string }> {
  const link = new WanLink({ ...LINE, target: { host: '127.0.0.1', port } });
  link.server.listen(0, '127.0.0.1');
  await once(link.server, 'listening');
  test.teardown(() => link.close());
  return { link, url: `http://127.0.0.1:${(link.server.address() as AddressInfo).port}` };
}

/** Fetches through a proxy, on a connection of its own. Resolves when every byte was the right one. */
async function download(
  port: number,
  url: string,
  expected: Buffer,
  onProgress: (share: number) => void = () => {},
): Promise<void> {
  const headers = { host: new URL(url).host };
  const request = httpRequest({ host: '127.0.0.1', port, path: url, headers, agent: false }).end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  if (response.statusCode !== 200) throw new Error(`${url}: ${response.statusCode}`);
  let at = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    if (!chunk.equals(expected.subarray(at, at + chunk.byteLength)))
      throw new Error(`${url}: other bytes from ${at} on`);
    at += chunk.byteLength;
    onProgress(at / expected.byteLength);
  }
  if (at !== expected.byteLength) throw new Error(`${url}: ${at} bytes`);
}

/** Many clients of a branch, some of them late. */
async function crowd(branch: Role, url: string, expected: Buffer): Promise<void> {
  const clients: Promise<void>[] = [];
  const one = (onProgress?: (share: number) => void): void => {
    clients.push(download(branch.port, url, expected, onProgress));
  };
  const first = (share: number): void => {
    while (clients.length < CLIENTS && clients.length - AT_ONCE < share * (CLIENTS - AT_ONCE)) one();
  };
  one(first);
  while (clients.length < AT_ONCE) one();
  // The late ones are there when the first one has ended.
  await inTime(clients[0] as Promise<void>, 'the first client', PATIENCE_MS);
  await inTime(Promise.all(clients), `${CLIENTS} clients`, PATIENCE_MS);
}

/** Waits until nothing of a file is under way any more: until then it is given to those who ask, as it was. */
async function settled(branch: Role, url: string): Promise<void> {
  const isUnderWay = async (): Promise<boolean> => {
    const { headers } = await ask(branch.port, url, { fields: { range: 'bytes=0-0' } });
    return /collapsed/.test(headers['cache-status'] ?? '');
  };
  const wait = async (): Promise<void> => {
    while (await isUnderWay());
  };
  await inTime(wait(), 'the branch has described what has come', PATIENCE_MS);
}

interface Stage {
  readonly origin: Origin;
  readonly url: string;
  readonly head: Role;
  readonly branch: Role;
  /** Publishes a version, has all clients fetch it. @returns copies that crossed the line */
  readonly update: (version: string, body: Buffer, before?: () => Promise<unknown>) => Promise<number>;
}

async function pair(test: Test, ...headOptions: readonly string[]): Promise<Stage> {
  const origin = await Origin.start(test);
  const url = `${origin.url}/update.bin`;
  const state = test.testdir();
  const head = await Role.start(test, ['head', '--state-dir', join(state, 'head'), ...headOptions]);
  const line = await startLine(test, head.port);
  const branch = await Role.start(test, ['branch', '--upstream', line.url, '--state-dir', join(state, 'branch')]);
  const update: Stage['update'] = async (version, body, before) => {
    origin.resources.set('/update.bin', { body, etag: `"${version}"` });
    await before?.();
    const carried = line.link.bytes;
    await crowd(branch, url, body);
    await settled(branch, url);
    const copies = (line.link.bytes - carried) / body.byteLength;
    test.comment(`${version}: ${copies.toFixed(4)} copies`);
    return copies;
  };
  return { origin, url, head, branch, update };
}

await t.test('without a head, one copy crosses the line', async (test) => {
  const origin = await Origin.start(test, {
    '/plain': { body: FIRST, etag: '"1"' },
    '/lasting': { body: FIRST, etag: '"1"', headers: { 'cache-control': 'max-age=600' } },
  });
  const line = await startLine(test, origin.port);
  const branch = await Role.start(test, ['branch', '--store', 'memory']);
  for (const path of ['/plain', '/lasting']) {
    const before = line.link.bytes;
    await crowd(branch, `${line.url}${path}`, FIRST);
    const copies = (line.link.bytes - before) / SIZE;
    test.ok(copies <= 1.01, `${path}: ${copies} copies for ${CLIENTS} clients`);
    test.same(origin.bodies(path), [`200+${SIZE}`]);
  }
});

await t.test('with a head, of a new version what is new', async (test) => {
  const { origin, branch, head, update } = await pair(test);
  const first = await update('first', FIRST);
  test.ok(first <= 1.01, `${first} copies for ${CLIENTS} clients`);
  for (const [name, edit] of Object.entries(EDITS)) {
    const copies = await update(name, edit(FIRST));
    test.ok(copies < 0.05, `${name}: ${copies} copies`);
  }
  const bodies = [FIRST, ...Object.values(EDITS).map((edit) => edit(FIRST))].map((body) => `200+${body.byteLength}`);
  test.same(
    origin.bodies('/update.bin'),
    bodies,
    'each version left the origin once: what the branch missed came out of the cache of the head',
  );
  test.ok(((await head.metric('peerdist_wan_bytes_total{kind="missing_data"}')) ?? 0) > SIZE);
  test.equal(await branch.metric('peerdist_wan_bytes_total{kind="plain"}'), 0);
  test.same(
    [await head.metric('peerdist_plugin_failures_total'), await branch.metric('peerdist_plugin_failures_total')],
    [0, 0],
  );
});

await t.test('a head that does not hash what it does not know', async (test) => {
  const { origin, url, head, update } = await pair(test, '--no-hash-unknown');
  const first = await update('first', FIRST);
  test.ok(first <= 1.01, `${first} copies for ${CLIENTS} clients`);
  const plain = await update('replaced', EDITS['replaced']?.(FIRST) as Buffer);
  test.ok(plain > 0.99 && plain <= 1.01, `${plain} copies when nobody has preheated`);
  const preheat = async (): Promise<void> => {
    const { code, stderr } = await peerdist(test, ['preheat', url, '--proxy', `127.0.0.1:${head.port}`]);
    test.equal(code, 0, stderr);
  };
  const preheated = await update('inserted', EDITS['inserted']?.(FIRST) as Buffer, preheat);
  test.ok(preheated < 0.05, `${preheated} copies after preheat`);
  test.equal(origin.bodies('/update.bin').length, 3);
});

await t.test('a head whose cache is too small for the file', async (test) => {
  const { update } = await pair(test, '--store', 'memory', '--max-cache', '1MiB');
  test.ok((await update('first', FIRST)) <= 1.01);
  test.ok((await update('replaced', EDITS['replaced']?.(FIRST) as Buffer)) < 0.05);
});
