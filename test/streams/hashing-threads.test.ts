/** Hashing on worker threads: the same results as on the main thread, bounded hand-over, and what happens when a thread is gone. */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import t from 'tap';
import { hashProvider } from '../../lib/crypto/index.ts';
import { encodeContentInformation, ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { ContentHasher, HashingPool, InlineHashing } from '../../lib/streams/index.ts';
import { seededBytes } from '../../bench/measure.ts';

const options = { provider: hashProvider('native'), secret: ServerSecret.fromText('threads') };
const content = seededBytes(5_000_001, 7);

function inline(bytes: Uint8Array, versions: readonly (1 | 2)[] = [1, 2]): string[] {
  const hashing = new InlineHashing({ ...options, versions });
  hashing.push(bytes);
  return hashing.finish().map((information) => Buffer.from(encodeContentInformation(information)).toString('hex'));
}

async function threaded(
  pool: HashingPool,
  bytes: Buffer,
  versions: readonly (1 | 2)[] = [1, 2],
): Promise<string[] | undefined> {
  const hasher = new ContentHasher({ ...options, versions, engine: pool.createEngine({ ...options, versions }) });
  const source = new PassThrough();
  for (let at = 0; at < bytes.byteLength; at += 99_991) source.write(bytes.subarray(at, at + 99_991));
  source.end();
  const chunks: Buffer[] = [];
  hasher.on('data', (chunk: Buffer) => chunks.push(chunk));
  await pipeline(source, hasher);
  if (!Buffer.concat(chunks).equals(bytes)) throw new Error('the bytes have changed');
  return (await hasher.contentInformation)?.map((information) =>
    Buffer.from(encodeContentInformation(information)).toString('hex'),
  );
}

for (const threads of [1, 2] as const) {
  await t.test(`${threads} thread(s) find what the main thread finds`, async (test) => {
    const pool = new HashingPool(threads);
    test.teardown(() => pool.close());
    test.strictSame(await threaded(pool, content), inline(content));
    test.strictSame(await threaded(pool, content, [2]), inline(content, [2]), 'one version alone');
    test.strictSame(await threaded(pool, Buffer.alloc(0)), inline(Buffer.alloc(0)), 'no bytes at all');
    const several = [content.subarray(1), content.subarray(0, 70_000), content.subarray(3)];
    const results = await Promise.all(several.map((bytes) => threaded(pool, bytes)));
    test.strictSame(
      results,
      several.map((bytes) => inline(bytes)),
      'several bodies at once do not mix',
    );
  });
}

await t.test('a body that ends early yields nothing and leaves the pool usable', async (test) => {
  const pool = new HashingPool(2);
  test.teardown(() => pool.close());
  const hasher = new ContentHasher({ ...options, engine: pool.createEngine(options) });
  hasher.resume();
  hasher.write(content);
  hasher.destroy();
  test.equal(await hasher.contentInformation, undefined);
  test.strictSame(await threaded(pool, content), inline(content));
});

await t.test('more than the slabs hold: the writer waits, and goes on', async (test) => {
  const pool = new HashingPool(1);
  test.teardown(() => pool.close());
  const engine = pool.createEngine(options);
  const large = seededBytes(8 * 1024 * 1024, 9);
  const wait = engine.push(large);
  test.type(wait, Promise, 'eight times 256 KiB is all there is');
  await wait;
  const result = await engine.finish();
  test.strictSame(
    result.map((information) => Buffer.from(encodeContentInformation(information)).toString('hex')),
    inline(large),
  );
});

await t.test('threads that are gone cost the hashes, not the bytes', async (test) => {
  const pool = new HashingPool(2);
  const hasher = new ContentHasher({ ...options, engine: pool.createEngine(options) });
  let bytes = 0;
  hasher.on('data', (chunk: Buffer) => {
    bytes += chunk.byteLength;
  });
  hasher.write(content.subarray(0, 1_000_000));
  await pool.close();
  hasher.end(content.subarray(1_000_000));
  await once(hasher, 'end');
  test.equal(bytes, content.byteLength);
  test.equal(await hasher.contentInformation, undefined);
  test.equal(
    await threaded(pool, seededBytes(8 * 1024 * 1024, 9)),
    undefined,
    'a later body does not wait for a closed pool',
  );
});
