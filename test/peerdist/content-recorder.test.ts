/** The recorder: what comes is described as a publisher would describe it, and its blocks are kept as a reader would keep them. */
import t from 'tap';
import { rangeEnd, toHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import type { ContentRecorder, PeerDist } from '../../lib/peerdist/index.ts';
import {
  decodeContentInformation,
  encodeContentInformation,
  V1_SEGMENT_BYTES,
} from '../../lib/protocol/pccrc/index.ts';
import { DescribedContent } from '../../lib/services/index.ts';
import { type BlockStore, MemoryBlockStore, type SegmentFacts } from '../../lib/stores/index.ts';
import { describe } from '../support/content-information.ts';
import { BLOCK, BODY, codeOf, deferred, ENCODED, open, OTHER_TAG, publish, TAG } from '../support/peerdist.ts';
import { cutAnywhere, seededBytes } from '../support/random.ts';
import { stateOf, turns } from '../support/turns.ts';

const VERSIONS = [1, 2] as const;
/** More than a segment of version 1. */
const LONG = seededBytes(33, V1_SEGMENT_BYTES + 3 * BLOCK + 777);

/** A block store that writes down what it is given. */
class WatchedStore extends MemoryBlockStore {
  readonly given: { readonly key: string; readonly block: Uint8Array; readonly facts: SegmentFacts | undefined }[] = [];
  /** Waited for before anything is kept. */
  gate: Promise<void> | undefined;

  constructor() {
    super({ maxBytes: 128 * 1024 * 1024 });
  }

  override set(...[key, block, label, facts, ...rest]: Parameters<MemoryBlockStore['set']>): void {
    this.given.push({ key, block, facts });
    const keep = (): void => super.set(key, block, label, facts, ...rest);
    return this.gate === undefined ? keep() : (this.gate.then(keep) as unknown as void);
  }
}

async function record(recorder: ContentRecorder, pieces: Iterable<Uint8Array>): Promise<Uint8Array> {
  for (const piece of pieces) await recorder.push(piece);
  return recorder.finish();
}

/** What a handle with that content information gives, where nobody but the store has any of it. */
async function readBack(pd: PeerDist, encoded: Uint8Array): Promise<Buffer> {
  await using handle = await pd.client.openContent(OTHER_TAG);
  await handle.setContentInformation(encoded);
  const pieces: Buffer[] = [];
  for await (const piece of handle.createReadStream() as AsyncIterable<Buffer>) pieces.push(piece);
  return Buffer.concat(pieces);
}

await t.test('the same content information as a publisher makes, and all of it can be read', async (test) => {
  for (const version of VERSIONS) {
    for (const length of [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 9, BODY.byteLength]) {
      await using pd = await open();
      const body = BODY.subarray(0, length);
      const encoded = await record(pd.client.record(TAG, { version }), [body]);
      const expected = encodeContentInformation(describe(version, body));
      test.equal(toHex(encoded), toHex(expected), `version ${version}, ${length} bytes`);
      if (length > 0) test.ok((await readBack(pd, encoded)).equals(body), `version ${version}, ${length} bytes read`);
    }
  }
  await using pd = await open();
  test.equal(toHex(await record(pd.client.record(TAG), [BODY])), toHex(ENCODED[1]), 'version 1 where nobody says');
  await using publication = await publish(pd, 'page');
  await using reader = await pd.server.openContentInformation('page');
  test.equal(toHex(await reader.readAll()), toHex(ENCODED[1]), 'the very bytes that a server gives away');
  test.equal(publication.phase, 'completed');
});

await t.test('however it is cut', async (test) => {
  await using pd = await open();
  for (const version of VERSIONS) {
    const expected = toHex(ENCODED[version]);
    const cuts: [string, Iterable<Uint8Array>][] = [
      ...[1, 2, 3].map((seed): [string, Uint8Array[]] => [`seed ${seed}`, cutAnywhere(BODY, 200_000, seed)]),
      ['small pieces', cutAnywhere(BODY, 997)],
      ['pieces of blocks', cutAnywhere(BODY, BLOCK)],
      ['nothing in between', [BODY.subarray(0, 5), new Uint8Array(), BODY.subarray(5), new Uint8Array()]],
    ];
    for (const [what, pieces] of cuts) {
      const recorder = pd.client.record(TAG, { version });
      test.equal(toHex(await record(recorder, pieces)), expected, `version ${version}: ${what}`);
      test.equal(recorder.recordedBytes, BODY.byteLength);
      test.equal(toHex(await recorder.finish()), expected, 'and once more');
    }
    const small = BODY.subarray(0, 1_500);
    const single = pd.client.record(TAG, { version });
    const bytes = Array.from(small, (byte) => Uint8Array.of(byte));
    test.equal(toHex(await record(single, bytes)), toHex(encodeContentInformation(describe(version, small))), 'bytes');
  }
});

await t.test('the caller may use its memory again', async (test) => {
  for (const version of VERSIONS) {
    await using pd = await open();
    const recorder = pd.client.record(TAG, { version });
    const scratch = new Uint8Array(30_000);
    for (let at = 0; at < BODY.byteLength; at += scratch.byteLength) {
      const piece = BODY.subarray(at, at + scratch.byteLength);
      scratch.set(piece);
      await recorder.push(scratch.subarray(0, piece.byteLength));
      scratch.fill(0xee);
    }
    const encoded = await recorder.finish();
    test.equal(toHex(encoded), toHex(ENCODED[version]));
    test.ok((await readBack(pd, encoded)).equals(BODY), `version ${version}`);
  }
});

await t.test('while it is under way: what is kept, and what waits', async (test) => {
  for (const [version, body, pieceBytes] of [
    [2, BODY, 10_007],
    [1, LONG, 3_000_017],
  ] as const) {
    await using pd = await open({ blockStore: new WatchedStore() });
    const recorder = pd.client.record(TAG, { version });
    test.same([recorder.soFar(), recorder.keptBytes, recorder.peek(0)], [undefined, 0, undefined], 'nothing at first');
    let kept = 0;
    for (let at = 0; at < body.byteLength; at += pieceBytes) {
      await recorder.push(body.subarray(at, at + pieceBytes));
      const end = Math.min(body.byteLength, at + pieceBytes);
      const what = `version ${version}, ${end} bytes`;
      if (recorder.recordedBytes !== end || recorder.keptBytes < kept || recorder.keptBytes > end) test.fail(what);
      if (recorder.soFar() === undefined ? recorder.keptBytes !== 0 : recorder.keptBytes === 0) test.fail(what);
      // From what is kept to what has come, piece by piece, without a hole.
      for (let place = recorder.keptBytes; place < end;) {
        const piece = recorder.peek(place);
        if (piece === undefined || !Buffer.from(body.subarray(place, place + piece.byteLength)).equals(piece)) {
          test.fail(`${what}: peek at ${place}`);
          break;
        }
        place += piece.byteLength;
      }
      if (recorder.peek(end) !== undefined || recorder.peek(recorder.keptBytes - 1) !== undefined) test.fail(what);
      if (recorder.keptBytes > kept) {
        kept = recorder.keptBytes;
        const soFar = recorder.soFar() as Uint8Array;
        test.same(decodeContentInformation(soFar).range, { offset: 0, length: kept }, `${what}: described so far`);
        test.ok((await readBack(pd, soFar)).equals(body.subarray(0, kept)), `${what}: and read`);
      }
    }
    test.ok(kept > 0 && kept < body.byteLength, 'some of it was kept before the end');
    const encoded = await recorder.finish();
    test.equal(recorder.keptBytes, body.byteLength, 'all of it at the end');
    test.equal(toHex(recorder.soFar() as Uint8Array), toHex(encoded));
    test.equal(toHex(encoded), toHex(encodeContentInformation(describe(version, body))));
    test.ok((await readBack(pd, encoded)).equals(body));
  }
});

await t.test('what the store is given', async (test) => {
  for (const version of VERSIONS) {
    const store = new WatchedStore();
    const told: string[] = [];
    await using pd = await open({
      blockStore: store,
      onOriginBlock: (content, block) => void told.push(content.key(block)),
    });
    const encoded = await record(pd.client.record(TAG, { version }), cutAnywhere(BODY, 50_000));
    const content = new DescribedContent(decodeContentInformation(encoded), nativeHashProvider);
    const count = content.information.blockCount;
    const expected = Array.from({ length: count }, (_, ordinal) => content.block(ordinal));
    test.same(
      store.given.map(({ key }) => key),
      expected.map((block) => content.key(block)),
      `version ${version}: each block once, in order, under its name`,
    );
    test.ok(
      store.given.every(({ block }, index) => {
        const { offset, length } = content.block(index);
        return Buffer.from(block).equals(BODY.subarray(offset, rangeEnd({ offset, length })));
      }),
      'and its bytes',
    );
    test.ok(
      store.given.every(({ block }) => block.buffer.byteLength === block.byteLength),
      'in memory of its own: no small block keeps a large one alive',
    );
    test.same(
      told,
      store.given.map(({ key }) => key),
      'those who offer it to others hear of it',
    );
    const { segmentCount } = content.information;
    for (let segment = 0; segment < segmentCount; segment += 1) {
      const held = store.segment(content.segmentId(segment));
      test.match(held, { secret: Buffer.from(content.information.segmentSecret(segment)) }, 'peers can be given it');
    }
    await pd.client.flush(TAG);
    test.equal(store.bytes, 0, 'it goes with its label');
  }
});

await t.test('what is private is not for peers', async (test) => {
  for (const version of VERSIONS) {
    const store = new WatchedStore();
    let told = 0;
    await using pd = await open({ blockStore: store, onOriginBlock: () => void (told += 1) });
    const encoded = await record(pd.client.record(TAG, { version, isPrivate: () => true }), [BODY]);
    const content = new DescribedContent(decodeContentInformation(encoded), nativeHashProvider);
    test.ok(store.given.length > 0 && store.given.every(({ facts }) => facts === undefined), `version ${version}`);
    for (let segment = 0; segment < content.information.segmentCount; segment += 1)
      test.equal(store.segment(content.segmentId(segment)), undefined);
    test.equal(told, 0, 'nobody hears of it');
    test.ok((await readBack(pd, encoded)).equals(BODY), 'its owner reads it');
  }
  // Whether it is, is asked when blocks are stored: the length may only be known by then.
  const store = new WatchedStore();
  await using pd = await open({ blockStore: store });
  const shared = { isPrivate: true };
  const recorder = pd.client.record(TAG, { version: 2, isPrivate: () => shared.isPrivate });
  await recorder.push(BODY.subarray(0, 300_000));
  const before = store.given.length;
  shared.isPrivate = false;
  await recorder.push(BODY.subarray(300_000));
  await recorder.finish();
  test.ok(before > 0 && store.given.length > before);
  test.same(
    store.given.map(({ facts }) => facts === undefined),
    store.given.map((_, index) => index < before),
  );
});

await t.test('stores that fail, that are slow, that are full', async (test) => {
  for (const version of VERSIONS) {
    for (const [what, set] of [
      ['throws', (): never => { throw new Error('disk on fire'); }], // prettier-ignore
      ['rejects', () => Promise.reject(new Error('disk on fire'))],
    ] as const) {
      const memory = new MemoryBlockStore({ maxBytes: 1e7 });
      const failing: BlockStore = {
        get: () => undefined,
        has: () => false,
        set,
        label: () => {},
        delete: () => {},
        segment: () => undefined,
        flush: (label) => memory.flush(label),
        bytes: 0,
      };
      await using pd = await open({ blockStore: failing });
      const encoded = await record(pd.client.record(TAG, { version }), cutAnywhere(BODY, 99_999));
      test.equal(toHex(encoded), toHex(ENCODED[version]), `a store that ${what}: described all the same`);
    }
    const store = new WatchedStore();
    const gate = deferred();
    store.gate = gate.promise;
    await using pd = await open({ blockStore: store });
    const recorder = pd.client.record(TAG, { version });
    const work = record(recorder, [BODY]);
    test.equal(await stateOf(work), 'pending', 'whoever brings more waits for the store');
    test.equal(store.given.length, 1, 'one block at a time');
    gate.resolve();
    test.equal(toHex(await work), toHex(ENCODED[version]));
    await turns();
    test.ok((await readBack(pd, await work)).equals(BODY));

    const small = new MemoryBlockStore({ maxBytes: 3 * BLOCK });
    await using full = await open({ blockStore: small });
    const encoded = await record(full.client.record(TAG, { version }), [BODY]);
    test.equal(toHex(encoded), toHex(ENCODED[version]), 'a store that is full');
    test.ok(small.bytes <= 3 * BLOCK);
  }
});

await t.test('who may record', async (test) => {
  const pd = await open();
  const code = (work: () => unknown): Promise<string | undefined> => codeOf((async () => work())());
  test.equal(await code(() => pd.client.record(new Uint8Array(15))), 'ERR_PEERDIST_INVALID_PARAMETER');
  pd.setStatus('unavailable');
  test.equal(await code(() => pd.client.record(TAG)), 'ERR_PEERDIST_SERVICE_UNAVAILABLE');
  pd.setStatus('disabled');
  test.equal(await code(() => pd.client.record(TAG)), 'ERR_PEERDIST_DISABLED_BY_POLICY');
  await pd.close();
  test.equal(await code(() => pd.client.record(TAG)), 'ERR_PEERDIST_INVALID_HANDLE');
});
