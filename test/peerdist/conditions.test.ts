/** Every error code of the specification that can happen, provoked; and hostile content information and data, from which nothing comes. */
import * as fc from 'fast-check';
import t from 'tap';
import { ERROR_CODES, isPeerDistError, type PeerDistErrorCode, PeerDistMissingDataError } from '../../lib/errors.ts';
import type { PeerDist, PeerDistComponents } from '../../lib/peerdist/index.ts';
import { MemoryBlockStore } from '../../lib/stores/index.ts';
import { u32 } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  BLOCK,
  blocks,
  BODY,
  codeOf,
  described,
  ENCODED,
  encodedPart,
  open,
  publish,
  TAG,
  tell,
  TestSource,
  WHOLE,
} from '../support/peerdist.ts';
import { failureOf, turns } from '../support/turns.ts';

const PARSE = 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO';
const VERSION = 'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED';

interface Condition {
  readonly name: string;
  readonly code: PeerDistErrorCode;
  readonly win32: number | undefined;
  readonly components?: PeerDistComponents;
  /** Resolves or rejects with the error. */
  readonly provoke: (pd: PeerDist) => Promise<unknown>;
}

/** What a stream is destroyed with. */
async function destroyedWith(pd: PeerDist): Promise<unknown> {
  const stream = (await described(pd)).createReadStream();
  return new Promise((resolve) => stream.resume().once('error', resolve));
}

const clock = new ManualClock();

const CONDITIONS: readonly Condition[] = [
  {
    name: 'an unacceptable argument',
    code: 'ERR_PEERDIST_INVALID_PARAMETER',
    win32: 87,
    provoke: (pd) => pd.client.openContent(new Uint8Array(15)),
  },
  {
    name: 'a handle that is closed',
    code: 'ERR_PEERDIST_INVALID_HANDLE',
    win32: 6,
    provoke: async (pd) => {
      const handle = await described(pd);
      await handle.close();
      return handle.read();
    },
  },
  {
    name: 'an instance that is closed',
    code: 'ERR_PEERDIST_INVALID_HANDLE',
    win32: 6,
    provoke: async (pd) => {
      await pd.close();
      return pd.client.openContent(TAG);
    },
  },
  {
    name: 'the service is switched off',
    code: 'ERR_PEERDIST_DISABLED_BY_POLICY',
    win32: 1260,
    provoke: (pd) => {
      pd.setStatus('disabled');
      return pd.client.openContent(TAG);
    },
  },
  {
    name: 'the service is not there',
    code: 'ERR_PEERDIST_SERVICE_UNAVAILABLE',
    win32: 4065,
    provoke: (pd) => {
      pd.setStatus('unavailable');
      return pd.server.publish('page');
    },
  },
  {
    name: 'a newer interface than there is',
    code: 'ERR_PEERDIST_VERSION_UNSUPPORTED',
    win32: 4062,
    provoke: () => open({}, { minimumVersion: { major: 2, minor: 1 } }),
  },
  {
    name: 'published twice',
    code: 'ERR_PEERDIST_ALREADY_EXISTS',
    win32: 4058,
    provoke: async (pd) => {
      await publish(pd, 'page');
      return pd.server.publish('page');
    },
  },
  {
    name: 'not published',
    code: 'ERR_PEERDIST_NOT_FOUND',
    win32: 1168,
    provoke: (pd) => pd.server.openContentInformation('page'),
  },
  {
    name: 'cancelled',
    code: 'ERR_PEERDIST_OPERATION_ABORTED',
    win32: 995,
    components: { sources: [new TestSource('slow')] },
    provoke: async (pd) => {
      const handle = await described(pd);
      const reading = handle.read();
      reading.catch(() => {});
      await turns();
      await handle.cancelAll();
      return reading;
    },
  },
  {
    name: 'the service was lost meanwhile',
    code: 'ERR_PEERDIST_INVALIDATED',
    win32: 4057,
    provoke: async (pd) => {
      const handle = await described(pd);
      pd.setStatus('unavailable');
      return handle.read();
    },
  },
  { name: 'a stream meets a hole', code: 'ERR_PEERDIST_MISSING_DATA', win32: 4052, provoke: destroyedWith },
  {
    name: 'a stream meets a hole too late',
    code: 'ERR_PEERDIST_TIMEOUT',
    win32: 1460,
    components: { clock, sources: [new TestSource('slow')] },
    provoke: async (pd) => {
      const error = destroyedWith(pd);
      await turns();
      clock.advance(5_000);
      return error;
    },
  },
  {
    name: 'a query outside the range',
    code: 'ERR_PEERDIST_NO_MORE',
    win32: 4053,
    provoke: async (pd) => (await described(pd)).availableAt(BODY.byteLength),
  },
  {
    name: 'a stream outside the range',
    code: 'ERR_PEERDIST_NO_MORE',
    win32: 4053,
    provoke: async (pd) =>
      (await described(pd, encodedPart({ offset: 5, length: 5 }))).createReadStream({ range: WHOLE }),
  },
  {
    name: 'data past the end of the content',
    code: 'ERR_PEERDIST_OUT_OF_BOUNDS',
    win32: 4061,
    provoke: async (pd) => (await described(pd)).addData(BODY.byteLength + 1, blocks(0)),
  },
  {
    name: 'a range past the end of the content',
    code: 'ERR_PEERDIST_OUT_OF_BOUNDS',
    win32: 4061,
    provoke: async (pd) => {
      await publish(pd, 'page');
      return pd.server.openContentInformation('page', { range: { offset: BODY.byteLength, length: 1 } });
    },
  },
  {
    name: 'content information of the future',
    code: VERSION,
    win32: 4050,
    provoke: async (pd) => (await pd.client.openContent(TAG)).setContentInformation(Uint8Array.of(0, 3, 1, 2)),
  },
  {
    name: 'content information that is none',
    code: PARSE,
    win32: 4051,
    provoke: async (pd) => (await pd.client.openContent(TAG)).setContentInformation(Uint8Array.of(0, 1, 1, 2)),
  },
  {
    name: 'read too early',
    code: 'ERR_PEERDIST_NOT_INITIALIZED',
    win32: 4054,
    provoke: async (pd) => (await pd.client.openContent(TAG)).read(),
  },
  {
    name: 'called while the instance closes',
    code: 'ERR_PEERDIST_SHUTDOWN_IN_PROGRESS',
    win32: 4056,
    components: { sources: [new TestSource('slow')] },
    provoke: async (pd) => {
      void (await described(pd)).read().catch(() => {});
      await turns();
      const leave = new AbortController();
      const closing = pd.close({ drain: true, signal: leave.signal }).catch(() => {});
      const error = await failureOf(pd.client.openContent(TAG));
      leave.abort();
      await closing;
      return error;
    },
  },
  {
    name: 'added to what is complete',
    code: 'ERR_PEERDIST_ALREADY_COMPLETED',
    win32: 4060,
    provoke: async (pd) => (await publish(pd, 'page')).addData(BODY),
  },
  {
    name: 'another length than declared',
    code: 'ERR_PEERDIST_LENGTH_MISMATCH',
    win32: undefined,
    provoke: (pd) => publish(pd, 'page', BODY, { length: 7 }),
  },
];

/** Section 6: reserved, or never raised here. */
const NEVER: readonly PeerDistErrorCode[] = [
  'ERR_PEERDIST_OPERATION_NOT_FOUND',
  'ERR_PEERDIST_ALREADY_INITIALIZED',
  'ERR_PEERDIST_INVALID_CONFIGURATION',
  'ERR_PEERDIST_NOT_LICENSED',
  'ERR_PEERDIST_TRUST_FAILURE',
];

await t.test('every code', async (test) => {
  for (const { name, code, win32, components, provoke } of CONDITIONS) {
    const pd = await open(components);
    const error = await provoke(pd).catch((reason: unknown) => reason);
    if (!isPeerDistError(error)) test.fail(`${name}: no error of this package`, { error });
    else test.same([error.code, error.win32Code], [code, win32], name);
    if (error instanceof PeerDistMissingDataError) test.same(error.missing, { offset: 0, length: BLOCK });
    await turns();
    await pd.close().catch(() => {});
  }
  const codes = Object.keys(ERROR_CODES);
  const section6 = codes.slice(0, codes.indexOf('ERR_PEERDIST_LENGTH_MISMATCH') + 1);
  test.same(new Set([...CONDITIONS.map(({ code }) => code), ...NEVER]), new Set(section6), 'none is left out');
});

await t.test('holes and ends are results, not errors', async (test) => {
  await using pd = await open({ sources: [new TestSource('absent')] });
  const handle = await described(pd);
  test.equal(tell(await handle.read()), `missing 0+${BODY.byteLength}`);
  test.equal(tell(await handle.read()), `end ${BODY.byteLength}`);
  test.equal(await pd.server.cancelPending('nothing'), 0);
  test.equal(await handle.cancelAll(), 0);
  await publish(pd, 'page');
  await using reader = await pd.server.openContentInformation('page');
  await reader.readAll();
  test.equal(await reader.read(), null);
});

await t.test('content information cut at every byte', async (test) => {
  await using pd = await open();
  for (const version of [1, 2] as const) {
    const encoded = ENCODED[version];
    const codes = new Map<string | undefined, number>();
    for (let length = 0; length < encoded.byteLength; length += 1) {
      const handle = await pd.client.openContent(TAG);
      const code = await codeOf(handle.setContentInformation(encoded.subarray(0, length)));
      codes.set(code, (codes.get(code) ?? 0) + 1);
      if (handle.phase !== 'failed' && code !== undefined) test.fail(`${length} bytes: ${handle.phase}`);
      await handle.close();
    }
    // The header of version 2 alone describes an empty content; no other beginning describes anything.
    test.equal(codes.get(undefined) ?? 0, version === 1 ? 0 : 1, `version ${version}`);
    test.equal((codes.get(PARSE) ?? 0) + (codes.get(undefined) ?? 0), encoded.byteLength);
    await using bytewise = await pd.client.openContent(TAG);
    for (let at = 0; at < encoded.byteLength; at += 1)
      await bytewise.addContentInformation(encoded.subarray(at, at + 1));
    test.same(await bytewise.completeContentInformation(), { version, range: WHOLE }, 'byte by byte it is whole');
  }
});

await t.test('content information that promises more than it has', async (test) => {
  await using pd = await open();
  const header = (segments: number): Buffer =>
    Buffer.concat([Buffer.from([0, 1]), u32(0x800c, true), u32(0, true), u32(0, true), u32(segments, true)]);
  const v2 = (bytes: number): Buffer =>
    Buffer.concat([Buffer.from([0, 2, 4]), Buffer.alloc(28), Buffer.from([0]), u32(bytes, false)]);
  const forged = Uint8Array.from(ENCODED[1]);
  forged.set(u32(0xffff_ffff, true), forged.byteLength - 10 * 32 - 4);
  const cases: readonly (readonly [string, Uint8Array, PeerDistErrorCode])[] = [
    ['4,294,967,295 segments', header(0xffff_ffff), PARSE],
    ['50,000,000 segments', Buffer.concat([header(50_000_000), ENCODED[1]]), PARSE],
    ['4,294,967,295 blocks', forged, PARSE],
    ['a chunk of 4,294,967,295 bytes', v2(0xffff_ffff), PARSE],
    ['a chunk of 4,294,967,292 bytes', v2(0xffff_fffc), PARSE],
    ['version 0', Uint8Array.of(0, 0, 0, 0), VERSION],
    ['version 1.1', Uint8Array.of(1, 1, 0, 0), VERSION],
    ['version 255', Uint8Array.of(0, 255, 0, 0), VERSION],
    ['an unknown hash', Uint8Array.from(ENCODED[1]).fill(0xff, 2, 6), PARSE],
  ];
  for (const [name, encoded, code] of cases) {
    const before = process.memoryUsage();
    await using handle = await pd.client.openContent(TAG);
    test.equal(await codeOf(handle.setContentInformation(encoded)), code, name);
    const after = process.memoryUsage();
    test.ok(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers < 50e6, `${name}: memory`);
    test.equal(handle.phase, 'failed');
    test.equal(await codeOf(handle.addContentInformation(ENCODED[1])), code, 'the error is repeated');
  }
});

await t.test('any bytes as content information', async (test) => {
  await using pd = await open();
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc
      .tuple(fc.constantFrom<1 | 2>(1, 2), fc.nat(2_000), fc.integer({ min: 1, max: 255 }))
      .map(([version, at, change]) => {
        const wrong = Uint8Array.from(ENCODED[version]);
        wrong[at % wrong.byteLength] = (wrong[at % wrong.byteLength] as number) ^ change;
        return wrong;
      }),
  );
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(bytes, async (encoded) => {
      const handle = await pd.client.openContent(TAG);
      const code = await codeOf(handle.setContentInformation(encoded));
      if (code === undefined) {
        taken += 1;
        // Wherever it claims that they lie: true bytes come out, or none.
        await handle.addData(0, BODY).catch(() => {});
        const { range } = handle.description as { range: { offset: number } };
        const result = await handle.readAt(range.offset, { timeoutMs: 0 });
        if (result.kind === 'data' && !Buffer.from(BODY).includes(Buffer.from(result.data))) return false;
      }
      await handle.close();
      return code === undefined || code === PARSE || code === VERSION;
    }),
    { numRuns: 400, seed: 53 },
  );
  test.pass(`${taken} were taken`);
});

await t.test('data that does not match is rejected, never cached, never served', async (test) => {
  for (const version of [1, 2] as const) {
    const blockStore = new MemoryBlockStore({ maxBytes: 10_000_000 });
    await using pd = await open({ blockStore });
    const handle = await described(pd, ENCODED[version]);
    const wrong = Uint8Array.from(BODY, (byte) => byte ^ 0x55);
    test.same(await handle.addData(0, wrong), { verified: 0, pending: 0, rejected: BODY.byteLength });
    test.equal(blockStore.bytes, 0);
    await using early = await pd.client.openContent(TAG);
    test.match(await early.addData(0, wrong), { verified: 0, pending: BODY.byteLength });
    await early.setContentInformation(ENCODED[version]);
    test.equal(blockStore.bytes, 0, 'nor by way of the quarantine');
    const shifted = await handle.addData(1, BODY.subarray(0, -1));
    test.equal(shifted.verified, 0, 'true bytes at a wrong place');
    test.equal(tell(await handle.readAt(0)), `missing 0+${BODY.byteLength}`);
    test.equal(await handle.availableAt(0), 0);
    test.same(
      await handle.addData(0, BODY),
      { verified: BODY.byteLength, pending: 0, rejected: 0 },
      'the truth may come',
    );
    test.equal(await handle.availableAt(0), BODY.byteLength);
  }
});
