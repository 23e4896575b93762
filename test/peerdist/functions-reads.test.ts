/** The two reads of the consumer, by their Win32 names: cursor, order, holes, ends, time. */
import t from 'tap';
import { rangeEnd } from '../../lib/bytes/index.ts';
import {
  type ContentHandle,
  READ_TIMEOUT_DEFAULT_MS,
  READ_TIMEOUT_LOCAL_CACHE_ONLY,
  type ReadOptions,
  type ReadResult,
} from '../../lib/peerdist/index.ts';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  BLOCK,
  blocks,
  BODY,
  codeOf,
  described,
  ENCODED,
  encodedPart,
  INFORMATION,
  open,
  tell,
  TestSource,
  WHOLE,
} from '../support/peerdist.ts';
import { stateOf, turns } from '../support/turns.ts';

const LOCAL = { timeoutMs: READ_TIMEOUT_LOCAL_CACHE_ONLY };
const INVALID = 'ERR_PEERDIST_INVALID_PARAMETER';

const isMissing = (reason: string, offset: number, length: number): string => `${reason} ${offset}+${length}`;

/** The options of any read that are refused. */
const REFUSED: readonly ReadOptions[] = [
  { maxBytes: 0 },
  { maxBytes: -1 },
  { maxBytes: 1.5 },
  { maxBytes: Number.NaN },
  { into: new Uint8Array(0) },
  { timeoutMs: -1 },
  { timeoutMs: 0.5 },
  { timeoutMs: Infinity },
  { timeoutMs: Number.NaN },
  { timeoutMs: 0xffff_fffe },
  { timeoutMs: 0xffff_ffff },
];

/** A read on an instance whose only source never answers; tells how long it took to give up. */
async function patience(options: ReadOptions): Promise<{ ms: number; told: string; asked: number }> {
  const clock = new ManualClock();
  const source = new TestSource('slow');
  const pd = await open({ clock, sources: [source] });
  const handle = await described(pd);
  const reading = handle.read(options);
  const start = clock.now();
  await turns();
  for (const step of [1, 98, 1, 4_899, 1, 10_000]) {
    if ((await stateOf(reading)) !== 'pending') break;
    clock.advance(step);
  }
  const told = tell(await reading);
  const ms = clock.now() - start;
  await pd.close();
  if (clock.pending > 0) throw new Error('a timer is left');
  return { ms, told, asked: source.asked.length };
}

await t.test('PeerDistClientBlockRead', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  await handle.addData(0, blocks(0, 3));
  await handle.addData(5 * BLOCK, blocks(5));
  const at = async (offset: number, options: ReadOptions = {}): Promise<string> =>
    tell(await handle.readAt(offset, { ...LOCAL, ...options }));
  test.equal(await at(0, { maxBytes: 10 }), 'data 0+10');
  test.equal(await at(BLOCK - 3, { maxBytes: 10 }), `data ${BLOCK - 3}+10`, 'across blocks');
  test.equal(await at(7), 'data 7+65536', '64 KiB when nothing is said');
  test.equal(await at(0, { maxBytes: 1e9 }), `data 0+${3 * BLOCK}`, 'as far as it goes: short reads are normal');
  test.equal(await at(3 * BLOCK - 1, { maxBytes: 100 }), `data ${3 * BLOCK - 1}+1`);
  test.equal(await at(3 * BLOCK), isMissing('missing', 3 * BLOCK, 2 * BLOCK), 'the whole hole');
  test.equal(await at(4 * BLOCK + 50, { maxBytes: 1 }), isMissing('missing', 3 * BLOCK, 2 * BLOCK), 'from before it');
  const tail = BODY.byteLength - 6 * BLOCK;
  test.equal(await at(BODY.byteLength - 1), isMissing('missing', 6 * BLOCK, tail), 'to the end and no further');
  test.equal(await at(BODY.byteLength), `end ${BODY.byteLength}`, 'exactly at the end');
  test.equal(await at(BODY.byteLength + 1e9), `end ${BODY.byteLength + 1e9}`);
  test.equal(handle.position, 0, 'the cursor is not its business');

  const into = new Uint8Array(1_000);
  const result = await handle.readAt(100, { into, ...LOCAL });
  test.ok(result.kind === 'data' && result.data.buffer === into.buffer && result.data.byteLength === 1_000);
  test.ok(Buffer.from(into).equals(BODY.subarray(100, 1_100)));
  const less = await handle.readAt(0, { into, maxBytes: 10, ...LOCAL });
  test.equal(tell(less), 'data 0+10');
  test.equal(tell(await handle.readAt(0, { into, maxBytes: 5_000, ...LOCAL })), 'data 0+1000', 'never past the buffer');

  const many = await Promise.all([5, 0, 2, 9, 1].map((block) => at(block * BLOCK, { maxBytes: 8 })));
  test.same(
    many,
    ['data 327680+8', 'data 0+8', 'data 131072+8', isMissing('missing', 6 * BLOCK, tail), 'data 65536+8'],
    'any number at a time, in any order',
  );
  for (const options of REFUSED) test.equal(await codeOf(handle.readAt(0, options)), INVALID, JSON.stringify(options));
  for (const offset of [-1, 0.5, Number.NaN, Infinity, 2 ** 53])
    test.equal(await codeOf(handle.readAt(offset)), INVALID, `${offset}`);
});

await t.test('PeerDistClientBlockRead: content information of a range', async (test) => {
  await using pd = await open();
  const range = { offset: 70_000, length: 200_000 };
  for (const version of [1, 2] as const) {
    const handle = await described(pd, encodeContentInformation(INFORMATION[version].slice(range)));
    const at = async (offset: number): Promise<string> =>
      tell(await handle.readAt(offset, { maxBytes: 1e9, ...LOCAL }));
    for (const outside of [0, 69_999, 270_000, 270_001])
      test.equal(await at(outside), `end ${outside}`, `version ${version}, ${outside}`);
    const { first, last } = {
      first: INFORMATION[version].ordinalAt(70_000),
      last: INFORMATION[version].ordinalAt(269_999),
    };
    const start = INFORMATION[version].block(first).offset;
    const end = INFORMATION[version].block(last).offset + INFORMATION[version].block(last).length;
    for (const inside of [70_000, 150_000, 269_999])
      test.equal(await at(inside), `missing ${start}+${end - start}`, 'a hole reaches from block edge to block edge');
    const walk = await described(pd, encodeContentInformation(INFORMATION[version].slice(range)));
    test.equal(tell(await walk.read(LOCAL)), 'missing 70000+200000', 'that of a walk stays inside');
    test.equal(await codeOf(handle.availableAt(69_999)), 'ERR_PEERDIST_NO_MORE');
    test.equal(await codeOf(handle.availableAt(270_000)), 'ERR_PEERDIST_NO_MORE');
    test.equal(await handle.availableAt(70_000), 0);
    await handle.addData(start, BODY.subarray(start, end));
    test.equal(await at(70_000), 'data 70000+200000', 'what was reported fills it, and reads stay inside');
    test.equal(await at(269_999), 'data 269999+1');
    test.equal(await handle.availableAt(70_001), 199_999);
  }
});

await t.test('PeerDistClientBlockRead: the zero-length query', async (test) => {
  const source = new TestSource('gives');
  await using pd = await open({ sources: [source] });
  const handle = await described(pd);
  await handle.addData(BLOCK, blocks(1, 3));
  test.equal(await handle.availableAt(0), 0);
  test.equal(await handle.availableAt(BLOCK), 3 * BLOCK);
  test.equal(await handle.availableAt(2 * BLOCK + 6), 2 * BLOCK - 6);
  test.equal(await handle.availableAt(4 * BLOCK), 0);
  test.equal(await codeOf(handle.availableAt(BODY.byteLength)), 'ERR_PEERDIST_NO_MORE');
  test.equal(await codeOf(handle.availableAt(-1)), INVALID);
  test.equal(await codeOf(handle.availableAt(0, { signal: AbortSignal.abort() })), 'ERR_PEERDIST_OPERATION_ABORTED');
  test.same(source.asked, [], 'nothing is sent');
});

await t.test('PeerDistClientBlockRead: sources and time', async (test) => {
  test.same([READ_TIMEOUT_DEFAULT_MS, READ_TIMEOUT_LOCAL_CACHE_ONLY], [5_000, 0]);
  const all = `0+${BODY.byteLength}`;
  test.same(await patience({ timeoutMs: 0 }), { ms: 0, told: `missing ${all}`, asked: 0 }, 'own cache only');
  test.same(await patience({ timeoutMs: 100 }), { ms: 100, told: `timeout ${all}`, asked: 1 });
  test.same(await patience({ timeoutMs: 1 }), { ms: 1, told: `timeout ${all}`, asked: 1 });
  test.same(await patience({}), { ms: 5_000, told: `timeout ${all}`, asked: 1 }, 'the default');
  await using patient = await open({ sources: [new TestSource('slow')] });
  const longest = await described(patient);
  test.equal(await stateOf(longest.readAt(0, { timeoutMs: 0xffff_fffd })), 'pending', 'the longest');
  await longest.cancelAll();

  for (const behaviour of ['absent', 'lies', 'fails'] as const) {
    const blockStore = new MemoryBlockStore({ maxBytes: 10_000_000 });
    await using pd = await open({ blockStore, sources: [new TestSource(behaviour)] });
    const handle = await described(pd);
    await handle.addData(BLOCK, blocks(1));
    const { bytes } = blockStore;
    test.equal(tell(await handle.readAt(0)), isMissing('missing', 0, BLOCK), `a source that ${behaviour}`);
    test.equal(blockStore.bytes, bytes, 'nothing of it is kept');
  }
  const [liar, giver] = [new TestSource('lies'), new TestSource('gives')];
  await using pd = await open({ sources: [liar, giver] });
  const handle = await described(pd);
  test.equal(tell(await handle.readAt(BLOCK + 10, { maxBytes: 20 })), 'data 65546+20', 'the next source is asked');
  test.same([liar.asked, giver.asked], [[1], [1]]);
  await turns();
  test.equal(tell(await handle.readAt(BLOCK, { maxBytes: 20, ...LOCAL })), 'data 65536+20', 'what came is cached');
  giver.behaviour = 'absent';
  test.equal(tell(await handle.readAt(0)), isMissing('missing', 0, BLOCK));
  await handle.addData(0, blocks(0));
  test.equal(tell(await handle.readAt(0, { maxBytes: 4 })), 'data 0+4', 'a hole that was filled can be read');
});

await t.test('PeerDistClientBlockRead: an own store that does not answer', async (test) => {
  const clock = new ManualClock();
  const store = new MemoryBlockStore({ maxBytes: 1_000_000 });
  const blockStore = Object.assign(Object.create(store) as MemoryBlockStore, {
    get: () => new Promise<undefined>(() => {}),
    has: () => false,
    flush: () => {},
  });
  const pd = await open({ clock, blockStore });
  const handle = await described(pd);
  const reading = handle.readAt(0, { timeoutMs: 100 });
  await turns();
  clock.advance(100_000);
  test.equal(await stateOf(reading), 'fulfilled', 'does not hold a read for longer than it may take');
  reading.catch(() => {});
  await pd.close();
});

await t.test('PeerDistClientStreamRead', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  await handle.addData(0, blocks(0, 2));
  await handle.addData(4 * BLOCK, blocks(4));
  const read = async (maxBytes?: number): Promise<string> => tell(await handle.read({ maxBytes, ...LOCAL }));
  test.equal(handle.position, 0);
  test.equal(await read(10), 'data 0+10');
  test.equal(handle.position, 10, 'past the bytes read');
  test.equal(tell(await handle.readAt(5, { maxBytes: 1, ...LOCAL })), 'data 5+1');
  test.equal(handle.position, 10);
  test.equal(await handle.available(), 2 * BLOCK - 10);
  test.equal(handle.position, 10, 'a query leaves it');
  test.equal(await read(1e9), `data 10+${2 * BLOCK - 10}`);
  test.equal(await handle.available(), 0);
  test.equal(await read(1), isMissing('missing', 2 * BLOCK, 2 * BLOCK), 'a hole begins at the cursor');
  test.equal(handle.position, 4 * BLOCK, 'and is stepped over');
  test.equal(await read(1e9), `data ${4 * BLOCK}+${BLOCK}`);
  const rest = BODY.byteLength - 5 * BLOCK;
  test.equal(await read(), isMissing('missing', 5 * BLOCK, rest));
  test.equal(await read(), `end ${BODY.byteLength}`);
  test.equal(await read(), `end ${BODY.byteLength}`, 'where it stays');
  test.equal(handle.position, BODY.byteLength);
  test.equal(await codeOf(handle.available()), 'ERR_PEERDIST_NO_MORE');
  for (const options of REFUSED) test.equal(await codeOf(handle.read(options)), INVALID, JSON.stringify(options));
  test.equal(handle.position, BODY.byteLength, 'not moved by errors');

  const backwards = await described(pd);
  await backwards.read({ maxBytes: 2 * BLOCK + 0, ...LOCAL });
  test.equal(tell(await backwards.read(LOCAL)), isMissing('missing', 2 * BLOCK, 2 * BLOCK));
  const middle = await described(pd, encodedPart({ offset: 3 * BLOCK + 9, length: BLOCK }));
  test.equal(middle.position, 3 * BLOCK + 9);
  test.equal(tell(await middle.read(LOCAL)), isMissing('missing', 3 * BLOCK + 9, BLOCK - 9), 'inside the range');
  test.equal(tell(await middle.read(LOCAL)), `data ${4 * BLOCK}+9`);
  test.equal(tell(await middle.read(LOCAL)), `end ${4 * BLOCK + 9}`);
});

await t.test('PeerDistClientStreamRead: in the order of the calls', async (test) => {
  const clock = new ManualClock();
  const source = new TestSource('slow');
  await using pd = await open({ clock, sources: [source] });
  const handle = await described(pd);
  await handle.addData(BLOCK, blocks(1));
  const order: string[] = [];
  const reads = [10, 20, 1e9, 5].map(async (maxBytes, index) => {
    const told = tell(await handle.read({ maxBytes }));
    order.push(`${index}: ${told}`);
  });
  await turns();
  test.same(order, [], 'a later one waits, though its bytes may be here');
  test.same(source.asked, [0]);
  source.release();
  await turns();
  clock.advance(5_000);
  await Promise.all(reads);
  test.same(order, ['0: data 0+10', '1: data 10+20', `2: data 30+${2 * BLOCK - 30}`, `3: ${order[3]?.slice(3)}`]);
  test.match(order[3], `timeout ${2 * BLOCK}+`, 'and each has its own time');

  const again = await described(pd);
  const controller = new AbortController();
  await again.addData(0, blocks(0));
  const results = await Promise.allSettled([
    again.read({ maxBytes: 4 }),
    again.read({ maxBytes: 4, signal: AbortSignal.abort() }),
    again.read({ maxBytes: 4, timeoutMs: -1 }),
    again.read({ maxBytes: 4, signal: controller.signal }),
  ]);
  test.same(
    results.map((result) => (result.status === 'fulfilled' ? tell(result.value) : 'rejected')),
    ['data 0+4', 'rejected', 'rejected', 'data 4+4'],
    'one that fails takes no turn',
  );
});

await t.test('PeerDistClientStreamRead: walking the content', async (test) => {
  await using pd = await open();
  for (const version of [1, 2] as const) {
    const handle = await described(pd, ENCODED[version]);
    await handle.addData(2 * BLOCK, blocks(2, 3));
    const walk = async (of: AsyncIterable<ReadResult>): Promise<[number, number]> => {
      let [at, data] = [handle.position, 0];
      for await (const segment of of) {
        if (segment.kind === 'end') test.fail('an end is not told');
        else if (segment.kind === 'missing') {
          test.equal(segment.missing.offset, at, 'in order and without gaps');
          at = rangeEnd(segment.missing);
        } else {
          test.equal(segment.offset, at);
          test.match(tell(segment), 'data');
          at += segment.data.byteLength;
          data += segment.data.byteLength;
        }
      }
      return [at, data];
    };
    const [end, bytes] = await walk(handle.segments(LOCAL));
    test.equal(end, BODY.byteLength);
    if (version === 1) test.equal(bytes, 3 * BLOCK);
    test.same(await walk(handle), [BODY.byteLength, 0], 'the cursor is shared');
  }
  const handle: ContentHandle = await described(pd);
  await handle.addData(0, BODY);
  for await (const segment of handle) {
    test.match(segment, { kind: 'data', offset: 0 });
    break;
  }
  test.equal(handle.phase, 'ready', 'leaving early does not close');
  const first = handle.position;
  test.ok(first > 0 && first < WHOLE.length);
  const chunks: Buffer[] = [];
  for await (const chunk of handle.createReadStream()) chunks.push(chunk as Buffer);
  test.ok(Buffer.concat(chunks).equals(BODY.subarray(first)), 'a stream goes on from there');
  test.equal(handle.position, BODY.byteLength);
  chunks.length = 0;
  for await (const chunk of handle.createReadStream({ range: WHOLE })) chunks.push(chunk as Buffer);
  test.ok(Buffer.concat(chunks).equals(BODY), 'unless it is given a range');
  for await (const chunk of handle.createReadStream()) chunks.push(chunk as Buffer);
  test.equal(Buffer.concat(chunks).byteLength, BODY.byteLength, 'at the end there is nothing');
});
