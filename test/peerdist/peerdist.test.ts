/** The Peer Distribution API as a program uses it: publish a body while it passes, describe it, read it back from anywhere, verified. */
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { inspect } from 'node:util';
import * as fc from 'fast-check';
import t from 'tap';
import { type ByteRange, rangeEnd, toHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider, nobleHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError, PeerDistError, type PeerDistErrorCode, PeerDistMissingDataError } from '../../lib/errors.ts';
import type { Observation } from '../../lib/observer.ts';
import {
  type ContentHandle,
  type ContentReadStreamOptions,
  PeerDist,
  type PeerDistComponents,
  type PeerDistOptions,
} from '../../lib/peerdist/index.ts';
import { decodeContentInformation, encodeContentInformation, ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { type BlockSource, DescribedContent } from '../../lib/services/index.ts';
import { type BlockStore, MemoryBlockStore, MemoryContentInformationStore } from '../../lib/stores/index.ts';
import { InlineHashing } from '../../lib/streams/index.ts';
import { blocksIn, describe, SECRET, sha256Hex } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { cutAnywhere, seededBytes, shuffled } from '../support/random.ts';
import { ScriptedOrigin } from '../support/scripted-origin.ts';
import { failureOf, turns } from '../support/turns.ts';

const BLOCK = 65_536;
const BODY = seededBytes(31, 9 * BLOCK + 4_321);
const WHOLE: ByteRange = { offset: 0, length: BODY.byteLength };
const TAG = seededBytes(1, 16);
const INFORMATION = { 1: describe(1, BODY), 2: describe(2, BODY) } as const;
const ENCODED = { 1: encodeContentInformation(INFORMATION[1]), 2: encodeContentInformation(INFORMATION[2]) } as const;

function open(components: PeerDistComponents = {}, options: PeerDistOptions = {}): Promise<PeerDist> {
  return PeerDist.open({
    identity: 'tester',
    serverSecret: SECRET,
    ...options,
    components: { clock: new ManualClock(), ...components },
  });
}

/** Publishes bytes; returns what came out at the other end. */
async function publish(pd: PeerDist, id: string | Uint8Array, bytes: Uint8Array, options = {}): Promise<Buffer> {
  const through = await pd.server.publishThrough(id, options);
  const out: Buffer[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      out.push(chunk);
      callback();
    },
  });
  await pipeline(Readable.from(cutAnywhere(bytes, 50_000)), through, sink);
  await through.published;
  return Buffer.concat(out);
}

/** A handle that knows the content information; by default the whole of version 1. */
async function described(pd: PeerDist, encoded: Uint8Array = ENCODED[1]): Promise<ContentHandle> {
  const handle = await pd.client.openContent(TAG);
  await handle.setContentInformation(encoded);
  return handle;
}

/** Reads to the end or to the error, and keeps what came before it. */
async function read(
  handle: ContentHandle,
  options: ContentReadStreamOptions = {},
): Promise<{ bytes: Buffer; error: unknown }> {
  const chunks: Buffer[] = [];
  const stream = handle.createReadStream(options);
  const error = await failureOf(
    (async () => {
      for await (const chunk of stream) chunks.push(chunk as Buffer);
    })(),
  );
  return { bytes: Buffer.concat(chunks), error };
}

function part(range: ByteRange, body: Uint8Array = BODY): Uint8Array {
  return body.subarray(range.offset, rangeEnd(range));
}

async function codeOf(promise: Promise<unknown>): Promise<PeerDistErrorCode | undefined> {
  const error = await failureOf(promise);
  if (error !== undefined && !isPeerDistError(error)) throw error as Error;
  return error?.code;
}

const NOTHING: BlockStore = {
  get: () => undefined,
  has: () => false,
  set: () => {},
  label: () => {},
  delete: () => {},
  segment: () => undefined,
  flush: () => {},
  bytes: 0,
};

// --- Publisher -------------------------------------------------------------------------------------------------------------------

await t.test('publish a body while it passes, then hand out content information', async (test) => {
  for (const hashProvider of [nativeHashProvider, nobleHashProvider]) {
    await using pd = await open({ hashProvider });
    test.equal(sha256Hex(await publish(pd, 'page', BODY)), sha256Hex(BODY), 'the bytes pass');
    const get = (options?: object): Promise<Uint8Array> => pd.server.getContentInformation('page', options);
    test.equal(toHex(await get()), toHex(ENCODED[1]), `${hashProvider.name}: without a word about versions, version 1`);
    test.equal(toHex(await get({ versions: { min: 1, max: 1 } })), toHex(ENCODED[1]));
    test.equal(toHex(await get({ versions: { min: 1, max: 2 } })), toHex(ENCODED[2]), 'the newest of the span');
    test.equal(toHex(await get({ versions: { min: 2, max: 2 } })), toHex(ENCODED[2]));
    test.equal(
      toHex(await pd.server.getContentInformation(Buffer.from('page'))),
      toHex(ENCODED[1]),
      'a text is its UTF-8 bytes',
    );
    for (const [range, expected] of [
      [{ offset: 70_000, length: 60_000 }, undefined],
      [{ offset: 0, length: 1 }, undefined],
      [{ offset: BODY.byteLength - 1, length: 1 }, undefined],
      [
        { offset: 500_000, length: 1e12 },
        { offset: 500_000, length: BODY.byteLength - 500_000 },
      ],
      [{ offset: 0, length: 0 }, WHOLE],
    ] as const) {
      for (const version of [1, 2] as const) {
        await using reader = await pd.server.openContentInformation('page', {
          range,
          versions: { min: version, max: version },
        });
        test.same(reader.range, expected ?? range, `version ${version}, ${range.offset}+${range.length}`);
        test.equal(reader.version, version);
        const information = decodeContentInformation(await reader.readAll());
        test.same(information.range, reader.range);
        test.same(
          blocksIn(information).map(({ hash }) => toHex(hash)),
          blocksIn(INFORMATION[version], reader.range).map(({ hash }) => toHex(hash)),
        );
      }
    }
  }
  await using sha512 = await open({}, { algorithm: 'sha512' });
  await publish(sha512, 'page', BODY);
  test.equal(decodeContentInformation(await sha512.server.getContentInformation('page')).algorithm.name, 'sha512');
});

await t.test('what cannot be asked for', async (test) => {
  await using pd = await open();
  await publish(pd, 'page', BODY);
  const get = (options: object): Promise<PeerDistErrorCode | undefined> =>
    codeOf(pd.server.getContentInformation('page', options));
  test.equal(await get({ versions: { min: 2, max: 1 } }), 'ERR_PEERDIST_INVALID_PARAMETER');
  test.equal(await get({ versions: { min: 0, max: 2 } }), 'ERR_PEERDIST_INVALID_PARAMETER');
  test.equal(await get({ versions: { min: 1, max: 3 } }), 'ERR_PEERDIST_INVALID_PARAMETER');
  test.equal(await get({ range: { offset: BODY.byteLength, length: 1 } }), 'ERR_PEERDIST_OUT_OF_BOUNDS');
  test.equal(await get({ range: { offset: BODY.byteLength + 5, length: 1 } }), 'ERR_PEERDIST_OUT_OF_BOUNDS');
  test.equal(await get({ range: { offset: 5, length: 0 } }), 'ERR_PEERDIST_INVALID_PARAMETER');
  test.equal(await codeOf(pd.server.getContentInformation('other')), 'ERR_PEERDIST_NOT_FOUND');
  test.equal(await codeOf(pd.server.getContentInformation('')), 'ERR_PEERDIST_NOT_FOUND');

  const onlyV1 = await open({ createEngine: (options) => new InlineHashing({ ...options, versions: [1] }) });
  await publish(onlyV1, 'page', BODY);
  test.equal(
    await codeOf(onlyV1.server.getContentInformation('page', { versions: { min: 2, max: 2 } })),
    'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED',
  );
  test.equal(
    toHex(await onlyV1.server.getContentInformation('page', { versions: { min: 1, max: 2 } })),
    toHex(ENCODED[1]),
  );
});

await t.test('a range that is none', async (test) => {
  await using pd = await open();
  await publish(pd, 'page', BODY);
  for (const range of [
    { offset: -5, length: 10 },
    { offset: 0, length: -1 },
    { offset: 0.5, length: 10 },
    { offset: 0, length: 10.5 },
    { offset: Number.NaN, length: 10 },
    { offset: 0, length: Number.NaN },
  ]) {
    const code = await codeOf(pd.server.getContentInformation('page', { range }));
    test.equal(code, 'ERR_PEERDIST_INVALID_PARAMETER', `${range.offset}+${range.length}`);
  }
});

await t.test('an identifier is published once, by one identity', async (test) => {
  const contentInformationStore = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  const pd = await open({ contentInformationStore });
  const first = await pd.server.publishThrough('page');
  test.equal(toHex(first.contentId), toHex(Buffer.from('page')));
  test.equal(
    await codeOf(pd.server.publishThrough('page')),
    'ERR_PEERDIST_ALREADY_EXISTS',
    'while it is still written',
  );
  test.equal(
    await codeOf(pd.server.getContentInformation('page')),
    'ERR_PEERDIST_NOT_FOUND',
    'not before it is complete',
  );
  first.resume();
  first.end(BODY);
  test.match(await first.published, { length: BODY.byteLength });
  test.equal(await codeOf(pd.server.publishThrough('page')), 'ERR_PEERDIST_ALREADY_EXISTS');
  test.equal(toHex(await pd.server.getContentInformation('page')), toHex(ENCODED[1]));
  const neighbour = await open({ contentInformationStore });
  test.equal(
    await codeOf(neighbour.server.getContentInformation('page')),
    'ERR_PEERDIST_NOT_FOUND',
    'it belongs to its instance, whoever shares the store',
  );
  await publish(pd, 'lasting', BODY, { durable: true });
  test.equal(toHex(await neighbour.server.getContentInformation('lasting')), toHex(ENCODED[1]), 'unless it is durable');
  test.equal(await codeOf(neighbour.server.publishThrough('lasting')), 'ERR_PEERDIST_ALREADY_EXISTS');

  const other = await open({ contentInformationStore }, { identity: 'somebody else' });
  test.equal(await codeOf(other.server.getContentInformation('page')), 'ERR_PEERDIST_NOT_FOUND');
  await publish(other, 'page', BODY.subarray(0, 100_000));
  test.equal(decodeContentInformation(await other.server.getContentInformation('page')).range.length, 100_000);
  await pd.close();
  const again = await open({ contentInformationStore });
  test.equal(
    await codeOf(again.server.getContentInformation('page')),
    'ERR_PEERDIST_NOT_FOUND',
    'gone with its session',
  );
  test.equal(
    toHex(await again.server.getContentInformation('lasting')),
    toHex(ENCODED[1]),
    'what is durable outlives the session',
  );
  const { bytes } = contentInformationStore;
  await again.close();
  test.equal(contentInformationStore.bytes, bytes, 'and that of another one');

  const last = await open({ contentInformationStore });
  const reader = await last.server.openContentInformation('lasting');
  const handedOut = await last.server.getContentInformation('lasting');
  test.equal(await last.server.unpublish('lasting'), true);
  test.equal(await last.server.unpublish('lasting'), false);
  test.equal(await codeOf(last.server.getContentInformation('lasting')), 'ERR_PEERDIST_NOT_FOUND');
  test.match(await failureOf(reader.readAll()), { trigger: 'unpublish' }, 'nothing more is handed out');
  await reader.close();
  test.same((await described(last, handedOut)).description, { version: 1, range: WHOLE }, 'what was keeps working');
  await publish(last, 'lasting', BODY);
  test.equal(toHex(await last.server.getContentInformation('lasting')), toHex(ENCODED[1]));
});

await t.test('a publication that fails leaves the bytes flowing and the identifier free', async (test) => {
  const failing = (): Promise<never> => Promise.reject(new Error('store'));
  const store = new MemoryContentInformationStore({ maxBytes: 1_000_000 });
  const cases: Record<string, { components?: PeerDistComponents; options?: object; failure: object }> = {
    'announced longer': {
      options: { length: BODY.byteLength + 1 },
      failure: { code: 'ERR_PEERDIST_LENGTH_MISMATCH', expected: BODY.byteLength + 1, actual: BODY.byteLength },
    },
    'announced shorter': {
      options: { length: BODY.byteLength - 1 },
      failure: { code: 'ERR_PEERDIST_LENGTH_MISMATCH', expected: BODY.byteLength - 1 },
    },
    'too large': { options: { maxBytes: BODY.byteLength - 1 }, failure: { code: 'ERR_PEERDIST_LIMIT' } },
    'engine fails': {
      components: {
        createEngine: () => ({
          push() {
            throw new Error('engine');
          },
          finish: () => [],
          abort() {},
        }),
      },
      failure: { message: 'engine' },
    },
    'store fails': {
      components: {
        contentInformationStore: { get: (key) => store.get(key), set: failing, delete: () => false, bytes: 0 },
      },
      failure: { message: 'store' },
    },
  };
  for (const [name, { components, options, failure }] of Object.entries(cases)) {
    const pd = await open(components);
    const through = await pd.server.publishThrough('page', options);
    const out: Buffer[] = [];
    through.on('data', (chunk: Buffer) => out.push(chunk));
    through.end(BODY);
    const error = await failureOf(through.published);
    test.ok(error instanceof Error, name);
    test.match(error, failure, name);
    await turns();
    test.equal(sha256Hex(Buffer.concat(out)), sha256Hex(BODY), `${name}: the bytes`);
    test.equal(await codeOf(pd.server.getContentInformation('page')), 'ERR_PEERDIST_NOT_FOUND');
    const next = await pd.server.publishThrough('page');
    next.destroy();
    await failureOf(next.published);
  }

  const pd = await open();
  const cut = await pd.server.publishThrough('page');
  cut.resume();
  cut.write(BODY.subarray(0, 100_000));
  cut.destroy();
  test.match(await failureOf(cut.published), { name: 'AbortError', code: 'ERR_PEERDIST_OPERATION_ABORTED' });
  const ignored = await pd.server.publishThrough('page');
  ignored.destroy(new Error('nobody listens to `published`'));
  ignored.on('error', () => {});
  await turns();
  test.equal(
    sha256Hex(await publish(pd, 'page', BODY, { length: BODY.byteLength })),
    sha256Hex(BODY),
    'the identifier is free again',
  );
  const closing = await pd.server.publishThrough('late');
  closing.resume();
  closing.write(BODY);
  await pd.close();
  closing.end();
  test.match(await failureOf(closing.published), { trigger: 'shutdown' }, 'nothing completes after close');
});

await t.test('reading content information in pieces', async (test) => {
  await using pd = await open();
  await publish(pd, 'page', BODY);
  await using reader = await pd.server.openContentInformation('page');
  test.equal(reader.byteLength, ENCODED[1].byteLength);
  test.equal(toHex(reader.contentId), toHex(Buffer.from('page')));
  const pieces: Buffer[] = [];
  for (let piece = await reader.read({ maxBytes: 7 }); piece !== null; piece = await reader.read({ maxBytes: 7 })) {
    if (piece.offset !== pieces.length * 7 || piece.data.byteLength > 7) test.fail('a piece out of place');
    pieces.push(Buffer.from(piece.data));
  }
  test.equal(toHex(Buffer.concat(pieces)), toHex(ENCODED[1]));
  test.equal(await reader.read(), null, 'at the end it stays');
  test.equal((await reader.readAll()).byteLength, 0);

  const halfway = await pd.server.openContentInformation('page');
  await halfway.read({ maxBytes: 10 });
  test.equal(toHex(await halfway.readAll()), toHex(ENCODED[1].subarray(10)), 'the rest');
  const iterated: Uint8Array[] = [];
  for await (const piece of await pd.server.openContentInformation('page')) iterated.push(piece);
  test.equal(toHex(Buffer.concat(iterated)), toHex(ENCODED[1]));
  for (const maxBytes of [0, -1, 1.5, Number.NaN, Infinity]) {
    test.equal(await codeOf(halfway.read({ maxBytes })), 'ERR_PEERDIST_INVALID_PARAMETER', `${maxBytes}`);
  }
  await halfway.close();
  await halfway.close();
  test.equal(await codeOf(halfway.read()), 'ERR_PEERDIST_INVALID_HANDLE');
});

// --- Consumer: describing --------------------------------------------------------------------------------------------------------

await t.test('content information arrives in pieces cut anywhere', async (test) => {
  await using pd = await open();
  for (const version of [1, 2] as const) {
    for (const [maxBytes, seed] of [
      [1, 1],
      [50, 2],
      [100_000, 3],
    ] as const) {
      await using handle = await pd.client.openContent(TAG);
      for (const piece of cutAnywhere(ENCODED[version], maxBytes, seed)) await handle.addContentInformation(piece);
      test.equal(handle.phase, 'describing');
      test.equal(handle.description, undefined);
      test.same(
        await handle.completeContentInformation(),
        { version, range: WHOLE },
        `version ${version}, up to ${maxBytes}`,
      );
      test.equal(handle.phase, 'ready');
      test.same(handle.description, { version, range: WHOLE });
      test.equal(await codeOf(handle.addContentInformation(ENCODED[1])), 'ERR_PEERDIST_ALREADY_COMPLETED');
      test.equal(await codeOf(handle.completeContentInformation()), 'ERR_PEERDIST_ALREADY_COMPLETED');
    }
  }
});

await t.test('garbage, forgeries, and reading too early', async (test) => {
  await using pd = await open();
  const forged = Uint8Array.from(ENCODED[1]);
  forged[forged.byteLength - 1] = (forged.at(-1) as number) ^ 1;
  const cases: readonly (readonly [string, Uint8Array, PeerDistErrorCode])[] = [
    ['nothing', new Uint8Array(0), 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO'],
    ['cut', ENCODED[1].subarray(0, -1), 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO'],
    ['a tail', Buffer.concat([ENCODED[1], Uint8Array.of(0)]), 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO'],
    ['a block hash that its segment does not know', forged, 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO'],
    ['a web page', Buffer.from('<html></html>'), 'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED'],
    ['version 3', Uint8Array.of(0, 3, 0, 0), 'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED'],
  ];
  for (const [name, bytes, code] of cases) {
    await using handle = await pd.client.openContent(TAG);
    test.equal(await codeOf(handle.setContentInformation(bytes)), code, name);
    test.equal(handle.phase, 'failed');
    test.throws(() => handle.createReadStream(), { code: 'ERR_PEERDIST_NOT_INITIALIZED' });
    test.ok((await codeOf(handle.setContentInformation(ENCODED[1]))) !== undefined, 'a failed handle stays one');
  }
  await using handle = await pd.client.openContent(TAG);
  test.throws(() => handle.createReadStream(), { code: 'ERR_PEERDIST_NOT_INITIALIZED' });
  test.throws(() => handle.peek(WHOLE), { code: 'ERR_PEERDIST_NOT_INITIALIZED' });
  test.same(
    await handle.addData(0, BODY),
    { verified: 0, pending: BODY.byteLength, rejected: 0 },
    'data may come before its description',
  );
  test.throws(() => handle.peek(WHOLE), { code: 'ERR_PEERDIST_NOT_INITIALIZED' }, 'which makes nothing readable');
  for (const length of [0, 15, 17]) {
    test.equal(await codeOf(pd.client.openContent(new Uint8Array(length))), 'ERR_PEERDIST_INVALID_PARAMETER');
  }
});

await t.test('a buffer of content information may be used again once it is taken', async (test) => {
  await using pd = await open();
  for (const version of [1, 2] as const) {
    const buffer = Uint8Array.from(ENCODED[version]);
    const handle = await described(pd, buffer);
    buffer.fill(0xaa);
    const origin = new ScriptedOrigin(BODY);
    const { bytes, error } = await read(handle, {
      onMissing: (missing, context) => origin.fetch(missing, context),
      cacheMissing: false,
    });
    test.equal(error, undefined, `version ${version}`);
    test.ok(bytes.equals(BODY), 'the content as it was described');
  }
});

// --- Consumer: addData and peek --------------------------------------------------------------------------------------------------

await t.test('addData: cut anywhere, verified when a block is whole', async (test) => {
  for (const version of [1, 2] as const) {
    for (const [maxBytes, seed] of [
      [3_000, 1],
      [90_000, 2],
      [BODY.byteLength, 3],
    ] as const) {
      await using pd = await open();
      const handle = await described(pd, ENCODED[version]);
      let offset = 0;
      const sum = { verified: 0, pending: 0, rejected: 0 };
      for (const piece of cutAnywhere(BODY, maxBytes, seed)) {
        const result = await handle.addData(offset, piece);
        if (result.verified + result.pending + result.rejected !== piece.byteLength)
          test.fail('bytes not accounted for');
        sum.verified += result.verified;
        sum.pending += result.pending;
        sum.rejected += result.rejected;
        offset += piece.byteLength;
      }
      test.equal(sum.rejected, 0);
      test.ok(Buffer.concat(handle.peek(WHOLE) ?? []).equals(BODY), `version ${version}, pieces of up to ${maxBytes}`);
      if (maxBytes === BODY.byteLength) test.same((await handle.addData(0, BODY)).verified, BODY.byteLength);
      const { bytes, error } = await read(handle);
      test.ok(error === undefined && bytes.equals(BODY), 'no source is needed any more');
    }
  }
});

await t.test('addData: blocks in any order, pieces twice and overlapping', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  const blocks = shuffled(blocksIn(INFORMATION[1]), 5);
  for (const block of blocks)
    test.same(await handle.addData(block.offset, part(block)), { verified: block.length, pending: 0, rejected: 0 });
  test.ok(Buffer.concat(handle.peek(WHOLE) ?? []).equals(BODY));

  await using other = await open();
  const second = await described(other);
  test.same(await second.addData(100, BODY.subarray(100, 40_000)), { verified: 0, pending: 39_900, rejected: 0 });
  test.same(
    await second.addData(0, BODY.subarray(0, 200)),
    { verified: 0, pending: 200, rejected: 0 },
    'before it, overlapping',
  );
  test.equal(second.peek({ offset: 0, length: 1 }), undefined, 'nothing comes out before its block is verified');
  const last = await second.addData(39_000, BODY.subarray(39_000, BLOCK + 10));
  test.same(last, { verified: BLOCK - 39_000, pending: 10, rejected: 0 }, 'after it, overlapping');
  test.ok(Buffer.concat(second.peek({ offset: 0, length: BLOCK }) ?? []).equals(BODY.subarray(0, BLOCK)));
  // Pieces that do not touch cannot both be kept; the newer one stays.
  await second.addData(2 * BLOCK, part({ offset: 2 * BLOCK, length: 100 }));
  await second.addData(2 * BLOCK + 200, part({ offset: 2 * BLOCK + 200, length: BLOCK - 200 }));
  test.equal(second.peek({ offset: 2 * BLOCK, length: 1 }), undefined);
  await second.addData(2 * BLOCK, part({ offset: 2 * BLOCK, length: 200 }));
  test.ok(second.peek({ offset: 2 * BLOCK, length: BLOCK }) !== undefined);
});

await t.test('addData: what does not match or does not belong is counted and thrown away', async (test) => {
  const seen: Observation[] = [];
  await using pd = await open({ observer: (observation) => seen.push(observation) });
  const handle = await described(pd);
  const wrong = Uint8Array.from(BODY);
  wrong[BLOCK + 5] = (wrong[BLOCK + 5] as number) ^ 1;
  test.same(await handle.addData(0, wrong.subarray(0, 3 * BLOCK)), {
    verified: 2 * BLOCK,
    pending: 0,
    rejected: BLOCK,
  });
  test.equal(handle.peek({ offset: BLOCK, length: 1 }), undefined);
  test.ok(handle.peek({ offset: 0, length: BLOCK }) !== undefined);
  test.same(
    seen.flatMap((observation) => (observation.type === 'verification' ? [observation.result] : [])),
    ['match', 'mismatch', 'match'],
  );
  for (const offset of [BODY.byteLength, BODY.byteLength + 1, 40 * 1024 * 1024])
    test.equal(await codeOf(handle.addData(offset, BODY.subarray(0, 50))), 'ERR_PEERDIST_OUT_OF_BOUNDS', `${offset}`);
  const beyond = Buffer.concat([part({ offset: 9 * BLOCK, length: 4_321 }), new Uint8Array(79)]);
  test.same(await handle.addData(9 * BLOCK, beyond), { verified: 4_321, pending: 0, rejected: 79 }, 'past the end');
  test.same(await handle.addData(0, new Uint8Array(0)), { verified: 0, pending: 0, rejected: 0 });
  for (const offset of [-1, 0.5, Number.NaN, 2 ** 53]) {
    test.equal(
      await codeOf(handle.addData(offset, BODY.subarray(0, 5))),
      'ERR_PEERDIST_INVALID_PARAMETER',
      `${offset}`,
    );
  }
  // A wrong piece spoils its block once, not for ever.
  const spoiled = 5 * BLOCK;
  await handle.addData(spoiled, new Uint8Array(100));
  const rest = await handle.addData(spoiled + 100, part({ offset: spoiled + 100, length: BLOCK - 100 }));
  test.equal(rest.rejected, BLOCK - 100);
  test.equal((await handle.addData(spoiled, part({ offset: spoiled, length: BLOCK }))).verified, BLOCK);
});

await t.test('addData under content information of a range', async (test) => {
  await using pd = await open();
  const handle = await described(
    pd,
    encodeContentInformation(INFORMATION[1].slice({ offset: BLOCK, length: 2 * BLOCK + 50 })),
  );
  test.same(
    await handle.addData(0, BODY.subarray(0, BLOCK)),
    { verified: 0, pending: BLOCK, rejected: 0 },
    'before it: it waits for a description',
  );
  test.same(
    await handle.addData(4 * BLOCK, BODY.subarray(4 * BLOCK)),
    { verified: 0, pending: BODY.byteLength - 4 * BLOCK, rejected: 0 },
    'after it',
  );
  test.equal(
    await codeOf(handle.addData(BODY.byteLength, BODY.subarray(0, 1))),
    'ERR_PEERDIST_OUT_OF_BOUNDS',
    'the last segment is shorter than others: the content ends with it',
  );
  const v2 = await described(
    pd,
    encodeContentInformation(INFORMATION[2].slice({ offset: BLOCK, length: 2 * BLOCK + 50 })),
  );
  test.same(
    await v2.addData(BODY.byteLength, BODY.subarray(0, 50)),
    { verified: 0, pending: 50, rejected: 0 },
    'version 2 never tells where the content ends',
  );
  const { verified, pending, rejected } = await handle.addData(0, BODY);
  test.ok(verified >= 2 * BLOCK, 'the blocks that lie wholly inside');
  test.equal(verified + pending + rejected, BODY.byteLength);
  test.equal(rejected, 0, 'nothing of it is wrong');
  test.ok(
    Buffer.concat(handle.peek({ offset: BLOCK, length: 2 * BLOCK }) ?? []).equals(
      part({ offset: BLOCK, length: 2 * BLOCK }),
    ),
  );
  test.equal(handle.peek({ offset: 0, length: 1 }), undefined);
});

await t.test('addData keeps nothing that the caller may write to', async (test) => {
  for (const [name, make] of Object.entries<(bytes: Uint8Array) => Uint8Array>({
    Uint8Array: (bytes) => Uint8Array.from(bytes),
    Buffer: (bytes) => Buffer.from(bytes),
  })) {
    await using pd = await open();
    const handle = await described(pd);
    const buffer = make(BODY.subarray(0, 2 * BLOCK + 1_000));
    await handle.addData(0, buffer);
    // A socket's buffer is filled again as soon as addData has settled.
    buffer.fill(0);
    const { bytes } = await read(handle, { range: { offset: 0, length: 2 * BLOCK } });
    test.ok(bytes.equals(BODY.subarray(0, 2 * BLOCK)), `${name}: what was verified is what comes out`);
  }
});

await t.test('peek', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  test.equal(handle.peek(WHOLE), undefined);
  await handle.addData(BLOCK, part({ offset: BLOCK, length: 3 * BLOCK }));
  for (const range of [
    { offset: BLOCK, length: 3 * BLOCK },
    { offset: BLOCK + 1, length: 1 },
    { offset: 2 * BLOCK - 1, length: 2 },
    { offset: 4 * BLOCK - 1, length: 1 },
  ]) {
    test.ok(Buffer.concat(handle.peek(range) ?? []).equals(part(range)), `${range.offset}+${range.length}`);
  }
  for (const range of [
    { offset: BLOCK - 1, length: 2 },
    { offset: 4 * BLOCK - 1, length: 2 },
    { offset: BODY.byteLength - 1, length: 2 },
    { offset: -1, length: 1 },
  ]) {
    test.equal(handle.peek(range), undefined, `${range.offset}+${range.length}`);
  }
  const memory = new MemoryBlockStore({ maxBytes: 10_000_000 });
  await using slow = await open({
    blockStore: {
      ...NOTHING,
      get: async (key) => memory.get(key),
      set: (key, block, label) => memory.set(key, block, label),
    },
  });
  const later = await described(slow);
  await later.addData(0, BODY);
  test.equal(later.peek({ offset: 0, length: 1 }), undefined, 'a store that answers later is nothing to peek into');
  test.ok((await read(later)).bytes.equals(BODY), 'but to read from');
});

await t.test('peek at no bytes', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  for (const offset of [0, 5, BODY.byteLength]) {
    test.doesNotThrow(() => handle.peek({ offset, length: 0 }), `at ${offset}`);
  }
  const empty = await described(pd, encodeContentInformation(describe(1, new Uint8Array(0))));
  test.doesNotThrow(() => empty.peek({ offset: 0, length: 0 }), 'an empty content');
  test.equal((await read(empty)).bytes.byteLength, 0);
});

// --- Consumer: reading -----------------------------------------------------------------------------------------------------------

await t.test('a stream reads any range, from the store and from the origin', async (test) => {
  for (const version of [1, 2] as const) {
    const pd = await open();
    const handle = await described(pd, ENCODED[version]);
    await handle.addData(3 * BLOCK, part({ offset: 3 * BLOCK, length: 3 * BLOCK }));
    const fraction = fc.double({ min: 0, max: 1, noNaN: true });
    await fc.assert(
      fc.asyncProperty(fraction, fraction, fc.constantFrom(1, 70_000, 4_000_000), async (a, b, lookAheadBytes) => {
        const [from, to] = [a, b].map((x) => Math.floor(x * BODY.byteLength)).toSorted((x, y) => x - y) as [
          number,
          number,
        ];
        const range = { offset: from, length: to - from };
        const origin = new ScriptedOrigin(BODY, { chunkBytes: 20_000 });
        const sources = { store: 0, peer: 0, hosted_cache: 0, origin: 0 };
        const { bytes, error } = await read(handle, {
          range,
          lookAheadBytes,
          cacheMissing: false,
          onMissing: (missing, context) => origin.fetch(missing, context),
          onSource: (source, count) => {
            sources[source] += count;
          },
        });
        if (error !== undefined) throw error as Error;
        const held = Math.max(0, Math.min(to, 6 * BLOCK) - Math.max(from, 3 * BLOCK));
        return (
          bytes.equals(part(range)) &&
          sources.store + sources.origin === range.length &&
          (version === 2 || sources.store === held)
        );
      }),
      { numRuns: 40, seed: 41 },
    );
    test.pass(`version ${version}`);
    await pd.close();
  }
});

await t.test('holes are asked for in whole blocks, once, and kept', async (test) => {
  const seen: Observation[] = [];
  await using pd = await open({ observer: (observation) => seen.push(observation) });
  const handle = await described(pd);
  await handle.addData(4 * BLOCK, part({ offset: 4 * BLOCK, length: BLOCK }));
  const origin = new ScriptedOrigin(BODY);
  const onMissing: ContentReadStreamOptions['onMissing'] = (missing, context) => {
    test.equal(context.reason, 'missing');
    return origin.fetch(missing, context);
  };
  const range = { offset: 2 * BLOCK + 77, length: 4 * BLOCK };
  const { bytes } = await read(handle, { range, onMissing });
  test.ok(bytes.equals(part(range)));
  test.same(
    origin.asked,
    [`${2 * BLOCK}+${2 * BLOCK}`, `${5 * BLOCK}+${2 * BLOCK}`],
    'up to what is held, and after it',
  );
  const again = await read(handle, { range: { offset: 2 * BLOCK, length: 5 * BLOCK }, onMissing });
  test.ok(again.bytes.equals(part({ offset: 2 * BLOCK, length: 5 * BLOCK })));
  test.equal(origin.asked.length, 2, 'what came in is served from the store');

  const other = await described(pd);
  test.ok(Buffer.concat(other.peek(range) ?? []).equals(part(range)), 'to every handle of the content');
  const v2 = await described(pd, ENCODED[2]);
  test.equal(v2.peek({ offset: 2 * BLOCK, length: 1 }), undefined, 'but another version has blocks of its own');
  await turns();
  test.ok(origin.transfers.every(({ closed }) => closed));
});

await t.test('cacheMissing false keeps nothing', async (test) => {
  const blockStore = new MemoryBlockStore({ maxBytes: 10_000_000 });
  await using pd = await open({ blockStore });
  const handle = await described(pd);
  const origin = new ScriptedOrigin(BODY);
  const onMissing: ContentReadStreamOptions['onMissing'] = (missing, context) => origin.fetch(missing, context);
  for (let round = 1; round <= 2; round += 1) {
    const { bytes } = await read(handle, { range: WHOLE, onMissing, cacheMissing: false });
    test.ok(bytes.equals(BODY));
    test.equal(blockStore.bytes, 0);
    await turns();
    test.equal(origin.asked.length, round, 'asked for again');
  }
});

await t.test('what onMissing may bring: a promise, an iterable, or bytes', async (test) => {
  async function* chunks(missing: ByteRange): AsyncGenerator<Uint8Array> {
    for (const piece of cutAnywhere(part(missing), 10_000)) yield piece;
  }
  for (const [name, onMissing] of Object.entries<NonNullable<ContentReadStreamOptions['onMissing']>>({
    'an iterable': (missing) => chunks(missing),
    'a promise of an iterable': async (missing) => chunks(missing),
    'a promise of bytes': async (missing) => part(missing),
    'a promise of a Readable': async (missing) => Readable.from(chunks(missing)),
  })) {
    await using pd = await open();
    const { bytes, error } = await read(await described(pd), { onMissing });
    test.ok(error === undefined && bytes.equals(BODY), name);
  }
});

await t.test('bytes that are brought at once are asked for once', async (test) => {
  // Larger than the look-ahead: nobody has asked yet for most of the blocks when they arrive.
  await using pd = await open();
  const handle = await described(pd);
  let brought = 0;
  const { bytes } = await read(handle, {
    lookAheadBytes: 2 * BLOCK,
    onMissing: async (missing) => {
      brought += missing.length;
      return part(missing);
    },
  });
  test.ok(bytes.equals(BODY));
  test.equal(brought, BODY.byteLength, 'bytes asked of the origin');
});

await t.test('whatever the origin sends, no wrong byte comes out', async (test) => {
  const outcomes = { whole: 0, cut: 0 };
  for (const version of [1, 2] as const) {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(BODY.byteLength - 1), { maxLength: 2 }),
        fc.constantFrom(-70_000, -1, 0, 0, 0, 1, 70_000),
        fc.nat(BODY.byteLength - 1),
        fc.boolean(),
        async (flips, surplus, offset, cacheMissing) => {
          const pd = await open();
          const wrong = Uint8Array.from(BODY);
          for (const at of flips) wrong[at] = (wrong[at] as number) ^ 0x55;
          const origin = new ScriptedOrigin(wrong, { surplus });
          const handle = await described(pd, ENCODED[version]);
          const range = { offset, length: BODY.byteLength - offset };
          const onMissing: ContentReadStreamOptions['onMissing'] = (missing, context) => origin.fetch(missing, context);
          const { bytes, error } = await read(handle, { range, onMissing, cacheMissing });
          outcomes[error === undefined ? 'whole' : 'cut'] += 1;
          if (error !== undefined && !(error instanceof PeerDistMissingDataError)) return false;
          if (error === undefined && bytes.byteLength !== range.length) return false;
          if (!bytes.equals(BODY.subarray(offset, offset + bytes.byteLength))) return false;
          // Nor is anything wrong kept.
          for (const block of blocksIn(INFORMATION[version])) {
            const kept = handle.peek(block);
            if (kept !== undefined && !Buffer.concat(kept).equals(part(block))) return false;
          }
          return true;
        },
      ),
      { numRuns: 60, seed: 43 },
    );
  }
  test.ok(outcomes.whole > 10 && outcomes.cut > 10, `${outcomes.whole} whole, ${outcomes.cut} cut`);
});

await t.test('a hole that nobody fills', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  await handle.addData(0, BODY.subarray(0, 2 * BLOCK));
  const { bytes, error } = await read(handle);
  test.ok(error instanceof PeerDistMissingDataError);
  test.match(error, {
    code: 'ERR_PEERDIST_MISSING_DATA',
    win32Code: 4052,
    missing: { offset: 2 * BLOCK, length: BLOCK },
  });
  test.ok(bytes.byteLength <= 2 * BLOCK && bytes.equals(BODY.subarray(0, bytes.byteLength)));
  const tail = await read(handle, { range: { offset: BODY.byteLength - 1, length: 1 } });
  test.match(tail.error, { missing: { offset: 9 * BLOCK, length: 4_321 } });
});

await t.test('an origin that fails in the middle', async (test) => {
  await using pd = await open();
  const handle = await described(pd);
  let calls = 0;
  const { bytes, error } = await read(handle, {
    onMissing: async function* (missing) {
      calls += 1;
      yield part({ offset: missing.offset, length: Math.min(3 * BLOCK + 5, missing.length) });
      await turns(2);
      throw new PeerDistError('ERR_PEERDIST_ORIGIN_CHANGED', 'another ETag');
    },
  });
  test.match(error, { code: 'ERR_PEERDIST_MISSING_DATA', cause: { code: 'ERR_PEERDIST_ORIGIN_CHANGED' } });
  test.equal(calls, 1, 'a content that changed is not asked for again');
  test.ok(bytes.equals(BODY.subarray(0, bytes.byteLength)), 'a true beginning');
  test.ok(handle.peek({ offset: 0, length: 3 * BLOCK }) !== undefined, 'what was verified before is kept');
  test.equal(handle.peek({ offset: 3 * BLOCK, length: 1 }), undefined);
});

await t.test('a reader that goes away takes its transfer with it', async (test) => {
  for (const cacheMissing of [true, false]) {
    const clock = new ManualClock();
    const blockStore = new MemoryBlockStore({ maxBytes: 10_000_000 });
    await using pd = await open({ clock, blockStore });
    const handle = await described(pd);
    const origin = new ScriptedOrigin(BODY, { manual: true });
    const stream = handle.createReadStream({
      cacheMissing,
      onMissing: (missing, context) => origin.fetch(missing, context),
    });
    stream.on('error', () => {});
    stream.resume();
    await turns();
    origin.transfers[0]?.give(BLOCK + 100);
    await turns();
    stream.destroy();
    await turns();
    clock.advance(2_000);
    await turns();
    test.equal(origin.transfers.length, 1, `cacheMissing ${cacheMissing}`);
    test.ok(origin.transfers[0]?.signal.aborted && origin.transfers[0].closed, 'the transfer has ended');
    test.equal(clock.pending, 0, 'no timer is left');
    test.equal(blockStore.bytes > 0, cacheMissing);
  }
});

await t.test('what cannot be read', async (test) => {
  await using pd = await open();
  const handle = await described(pd, await sliceOf({ offset: 70_000, length: 60_000 }));
  test.same(handle.description, { version: 1, range: { offset: 70_000, length: 60_000 } });
  for (const range of [
    WHOLE,
    { offset: 69_999, length: 10 },
    { offset: 129_990, length: 11 },
    { offset: 500_000, length: 1 },
  ]) {
    test.throws(() => handle.createReadStream({ range }), { code: 'ERR_PEERDIST_NO_MORE' });
  }
  for (const range of [
    { offset: -1, length: 5 },
    { offset: 70_000, length: -1 },
    { offset: 70_000.5, length: 1 },
    { offset: Number.NaN, length: 1 },
  ]) {
    test.throws(() => handle.createReadStream({ range }), { code: 'ERR_PEERDIST_INVALID_PARAMETER' });
  }
  test.equal((await read(handle, { range: { offset: 70_000, length: 0 } })).bytes.byteLength, 0);
  const asked: ByteRange[] = [];
  const { bytes } = await read(handle, {
    onMissing: async (missing) => {
      asked.push(missing);
      return part(missing);
    },
  });
  test.ok(bytes.equals(part({ offset: 70_000, length: 60_000 })), 'exactly the range');
  test.same(asked, [{ offset: BLOCK, length: BLOCK }], 'the hole is widened to the edges of its block, to verify it');
});

function sliceOf(range: ByteRange): Promise<Uint8Array> {
  return Promise.resolve(encodeContentInformation(INFORMATION[1].slice(range)));
}

await t.test('other sources come between the own store and the origin', async (test) => {
  const asked: number[] = [];
  const peer = (correct: boolean): BlockSource => ({
    name: 'origin',
    trusted: false,
    deadlineMs: 1_000,
    retrieve: async ({ content, ordinal }) => {
      asked.push(ordinal);
      if (ordinal % 2 === 1) return undefined;
      return correct ? Uint8Array.from(part(content.block(ordinal))) : new Uint8Array(content.block(ordinal).length);
    },
  });
  for (const correct of [true, false]) {
    asked.length = 0;
    await using pd = await open({ sources: [peer(correct)] });
    const origin = new ScriptedOrigin(BODY);
    const { bytes, error } = await read(await described(pd), {
      onMissing: (missing, context) => origin.fetch(missing, context),
    });
    test.ok(error === undefined && bytes.equals(BODY), correct ? 'a peer that helps' : 'a peer that lies');
    test.same(
      asked.toSorted((a, b) => a - b),
      Array.from({ length: 10 }, (_, ordinal) => ordinal),
      'asked for every block, once',
    );
  }
  await using pd = await open({ sources: [peer(true)] });
  test.ok((await read(await described(pd))).error instanceof PeerDistMissingDataError);
});

await t.test('a store that fails does not reach the reader', async (test) => {
  const fail = (): never => {
    throw new Error('store');
  };
  const reject = (): Promise<never> => Promise.reject(new Error('store'));
  for (const [name, blockStore] of Object.entries<BlockStore>({
    'get throws': { ...NOTHING, get: fail },
    'get rejects': { ...NOTHING, get: reject },
    'set throws': { ...NOTHING, set: fail },
    'set rejects': { ...NOTHING, set: reject },
    'has throws': { ...NOTHING, has: fail },
    'has rejects': { ...NOTHING, has: reject },
  })) {
    await using pd = await open({ blockStore });
    const handle = await described(pd);
    const origin = new ScriptedOrigin(BODY);
    const { bytes, error } = await read(handle, { onMissing: (missing, context) => origin.fetch(missing, context) });
    test.ok(error === undefined && bytes.equals(BODY), name);
  }
});

await t.test('a store that fails is nothing to peek into', async (test) => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): unknown => unhandled.push(reason);
  process.on('unhandledRejection', note);
  for (const [name, get] of Object.entries<BlockStore['get']>({
    throws: () => {
      throw new Error('store');
    },
    rejects: () => Promise.reject(new Error('store')),
  })) {
    await using pd = await open({ blockStore: { ...NOTHING, get } });
    const handle = await described(pd);
    test.doesNotThrow(() => test.equal(handle.peek({ offset: 0, length: 10 }), undefined), `get ${name}`);
    await turns();
  }
  process.off('unhandledRejection', note);
  test.same(unhandled, [], 'and its answer, when it comes, is not unhandled: that would end the process');
});

await t.test('reading many blocks at once is nothing to be warned about', async (test) => {
  const warnings: string[] = [];
  const note = ({ name }: Error): unknown => warnings.push(name);
  process.on('warning', note);
  const body = seededBytes(8, 40 * BLOCK);
  await using pd = await open();
  const handle = await described(pd, encodeContentInformation(describe(1, body)));
  const origin = new ScriptedOrigin(body);
  const { bytes } = await read(handle, { onMissing: (missing, context) => origin.fetch(missing, context) });
  await turns();
  process.off('warning', note);
  test.ok(bytes.equals(body));
  test.same(warnings, []);
});

await t.test('close', async (test) => {
  const pd = await open();
  const tag = Uint8Array.from(TAG);
  const handle = await pd.client.openContent(tag);
  tag.fill(0);
  test.equal(toHex(handle.tag), toHex(TAG), 'the tag is copied');
  await handle.setContentInformation(ENCODED[1]);
  const origin = new ScriptedOrigin(BODY, { manual: true });
  const stream = handle.createReadStream({ onMissing: (missing, context) => origin.fetch(missing, context) });
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await turns();
  const broken = failureOf(new Promise((_, reject) => stream.once('error', reject)));
  await handle.close();
  await handle.close();
  test.equal(handle.phase, 'closed');
  test.match(
    await broken,
    { name: 'AbortError', code: 'ERR_PEERDIST_OPERATION_ABORTED', trigger: 'close' },
    'a stream still open ends with its handle',
  );
  test.equal(stream.destroyed, true);
  test.throws(() => handle.createReadStream(), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
  test.throws(() => handle.peek(WHOLE), { code: 'ERR_PEERDIST_INVALID_HANDLE' });
  test.equal(await codeOf(handle.addData(0, BODY)), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await codeOf(handle.addContentInformation(ENCODED[1])), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await codeOf(handle.completeContentInformation()), 'ERR_PEERDIST_INVALID_HANDLE');
  origin.transfers[0]?.give();
  await turns(100);
  test.equal(Buffer.concat(chunks).byteLength, 0, 'and not a byte follows');

  test.equal(pd.closed, false);
  await pd.close();
  await pd.close();
  test.equal(pd.closed, true);
  test.equal(await codeOf(pd.client.openContent(TAG)), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await codeOf(pd.server.publishThrough('a')), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await codeOf(pd.server.getContentInformation('a')), 'ERR_PEERDIST_INVALID_HANDLE');
  test.equal(await codeOf(pd.server.unpublish('a')), 'ERR_PEERDIST_INVALID_HANDLE');
});

await t.test('head office to branch, with nothing but content information in between', async (test) => {
  for (const versions of [undefined, { min: 1, max: 2 }] as const) {
    await using headOffice = await open();
    await using branch = await open({}, { serverSecret: ServerSecret.fromText('the branch has another secret') });
    await publish(headOffice, 'page', BODY);
    const encoded = await headOffice.server.getContentInformation('page', { versions });
    const handle = await described(branch, encoded);
    const origin = new ScriptedOrigin(BODY);
    const first = await read(handle, { onMissing: (missing, context) => origin.fetch(missing, context) });
    test.ok(first.bytes.equals(BODY));
    const ranged = await headOffice.server.getContentInformation('page', {
      versions,
      range: { offset: 100_000, length: 200_000 },
    });
    const second = await read(await described(branch, ranged));
    test.ok(
      second.error === undefined && second.bytes.equals(part({ offset: 100_000, length: 200_000 })),
      'a range, from the store alone',
    );
  }
});

// --- Secrets ---------------------------------------------------------------------------------------------------------------------

await t.test('secrets and content information do not show', async (test) => {
  const secretBytes = seededBytes(77, 32);
  const secret = new ServerSecret(secretBytes);
  const information = describe(1, BODY, { secret });
  const seen: Observation[] = [];
  const pd = await open({ observer: (observation) => seen.push(observation) }, { serverSecret: secret });
  const through = await pd.server.publishThrough('page');
  through.resume();
  through.end(BODY);
  await through.published;
  const handle = await described(pd, encodeContentInformation(information));
  await using failed = await pd.client.openContent(TAG);
  const malformed = await failureOf(
    failed.setContentInformation(encodeContentInformation(information).subarray(0, -1)),
  );
  const stream = handle.createReadStream();
  const missing = await new Promise((resolve) => stream.once('error', resolve).resume());
  const subjects: Record<string, unknown> = {
    secret,
    information,
    described: new DescribedContent(information, nativeHashProvider),
    pd,
    server: pd.server,
    client: pd.client,
    handle,
    through,
    reader: await pd.server.openContentInformation('page'),
    stream,
    hashing: new InlineHashing({ provider: nativeHashProvider, secret }),
    malformed,
    missing,
    observations: seen,
  };
  const kp = information.segmentSecret(0);
  const ks = secret.key(nativeHashProvider, information.algorithm);
  const [first] = blocksIn(information);
  const needles = [secretBytes, ks, kp, first?.hash as Uint8Array, information.hashOfData(0)].flatMap((bytes) => {
    const start = Buffer.from(bytes.subarray(0, 8));
    return [
      start.toString('hex'),
      start.toString('hex').toUpperCase(),
      start.toString('hex').replaceAll(/(..)(?!$)/g, '$1 '),
      start.toString('base64').slice(0, 10),
      [...start].join(', '),
      [...start].join(','),
      start.toString('latin1'),
    ];
  });
  const leaks = (subject: unknown): string[] => {
    const texts = [
      inspect(subject, { depth: 12, maxArrayLength: null }),
      inspect(subject, { depth: 12, showHidden: true, maxArrayLength: null }),
      String(subject),
      jsonOf(subject),
    ].map((text) => text.replaceAll(/\s+/g, ' '));
    return needles.filter((needle) => texts.some((text) => text.includes(needle)));
  };
  for (const leak of [
    { kp },
    { kp: Buffer.from(kp) },
    { kp: toHex(kp) },
    new Error(Buffer.from(kp).toString('base64')),
    [...kp],
  ]) {
    test.not(leaks(leak).length, 0, 'this test would notice');
  }
  for (const [name, subject] of Object.entries(subjects)) {
    test.same(leaks(subject), [], name);
  }
  test.equal(
    JSON.stringify({ secret, information }),
    '{"secret":"[server secret]","information":"[content information]"}',
  );
  test.equal(inspect([secret, information]), '[ [server secret], [content information] ]');
  await pd.close();
});

/** JSON as far as an object has any: streams have circles. */
function jsonOf(subject: unknown): string {
  const passed = new Set<unknown>();
  return (
    JSON.stringify(subject, (_key, value: unknown) => {
      if (typeof value !== 'object' || value === null) return typeof value === 'bigint' ? String(value) : value;
      if (passed.has(value)) return '[again]';
      passed.add(value);
      return value;
    }) ?? ''
  );
}
