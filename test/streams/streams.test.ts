/** The thin shells around the pure parts: bytes in order and unchanged, stream pressure, and what an early end leaves behind. */
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import t from 'tap';
import { nativeHashProvider, nobleHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import type { Observation } from '../../lib/observer.ts';
import { type ContentInformation, encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import {
  type AssemblerPart,
  ContentHasher,
  type ContentHasherOptions,
  type HashingEngine,
  InlineHashing,
  RangeAssembler,
} from '../../lib/streams/index.ts';
import { describe, fieldsOf, SECRET, sha256Hex } from '../support/content-information.ts';
import { cutAnywhere, seededBytes, shuffled } from '../support/random.ts';
import { failureOf, stateOf, turns } from '../support/turns.ts';

const KIB = 1024;
const BODY = seededBytes(5, 700 * KIB + 123);

interface Flow {
  readonly hasher: ContentHasher;
  readonly outcomes: string[];
  readonly hashed: number[];
}

function createHasher(options: Partial<ContentHasherOptions> = {}): Flow {
  const outcomes: string[] = [];
  const hashed: number[] = [];
  const observer = (observation: Observation): void => {
    if (observation.type === 'publication') outcomes.push(observation.result);
    if (observation.type === 'hashed') hashed.push(observation.bytes);
  };
  return {
    hasher: new ContentHasher({ provider: nativeHashProvider, secret: SECRET, observer, ...options }),
    outcomes,
    hashed,
  };
}

/** Sends pieces through and returns what came out, as it came. */
async function send(
  hasher: ContentHasher,
  pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<Buffer[]> {
  const out: Buffer[] = [];
  const sink = new Writable({
    write(chunk: Buffer, _encoding, callback) {
      out.push(chunk);
      callback();
    },
  });
  await pipeline(Readable.from(pieces), hasher, sink);
  return out;
}

function encodings(information: readonly ContentInformation[] | undefined): string[] | undefined {
  return information?.map((each) => sha256Hex(encodeContentInformation(each)));
}

/** An engine whose every step the test decides about. */
function scriptedEngine(script: Partial<HashingEngine> = {}): HashingEngine & { readonly calls: string[] } {
  const inner = new InlineHashing({ provider: nativeHashProvider, secret: SECRET });
  const calls: string[] = [];
  return {
    calls,
    push(chunk) {
      calls.push('push');
      return script.push === undefined ? inner.push(chunk) : script.push(chunk);
    },
    finish() {
      calls.push('finish');
      return script.finish === undefined ? inner.finish() : script.finish();
    },
    abort() {
      calls.push('abort');
    },
  };
}

// --- ContentHasher ---------------------------------------------------------------------------------------------------------------

await t.test('bytes and chunks unchanged, results equal to the accumulators’', async (test) => {
  const expected = [describe(1, BODY), describe(2, BODY)];
  for (const provider of [nativeHashProvider, nobleHashProvider]) {
    for (const pieces of [[BODY], cutAnywhere(BODY, 1_500, 1), cutAnywhere(BODY, 200_000, 2)]) {
      const { hasher, outcomes, hashed } = createHasher({ provider });
      const out = await send(hasher, pieces);
      test.same(
        out.map(({ byteLength }) => byteLength),
        pieces.map(({ byteLength }) => byteLength),
        `${pieces.length} chunks, the same ones`,
      );
      test.equal(sha256Hex(Buffer.concat(out)), sha256Hex(BODY));
      const information = await hasher.contentInformation;
      test.same(information?.map(fieldsOf), expected.map(fieldsOf), provider.name);
      test.same([outcomes, hashed], [['completed'], [BODY.byteLength]]);
    }
  }
  for (const algorithm of ['sha256', 'sha384', 'sha512'] as const) {
    const { hasher } = createHasher({ versions: [1], algorithm });
    await send(hasher, cutAnywhere(BODY, 90_000, 3));
    test.same(encodings(await hasher.contentInformation), encodings([describe(1, BODY, { algorithm })]), algorithm);
  }
  const { hasher } = createHasher({ versions: [2] });
  await send(hasher, [BODY]);
  test.same(encodings(await hasher.contentInformation), encodings([describe(2, BODY)]), 'version 2 alone');
});

await t.test('the accumulators do not care how the bytes are cut, and keep none of them', async (test) => {
  // Byte by byte over the first block edge and the first segment edge.
  const small = BODY.subarray(0, 140 * KIB);
  for (const version of [1, 2] as const) {
    const bytes = Array.from({ length: small.byteLength }, (_, index) => small.subarray(index, index + 1));
    test.same(
      fieldsOf(describe(version, bytes)),
      fieldsOf(describe(version, small)),
      `version ${version}, byte by byte`,
    );
    for (const size of [64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB]) {
      const pieces = Array.from({ length: Math.ceil(BODY.byteLength / size) }, (_, index) =>
        BODY.subarray(index * size, (index + 1) * size),
      );
      test.same(
        fieldsOf(describe(version, pieces)),
        fieldsOf(describe(version, BODY)),
        `version ${version}, pieces of ${size}`,
      );
    }
    const reused = new Uint8Array(10_000);
    function* overwritten(): Generator<Uint8Array> {
      for (const piece of cutAnywhere(BODY, reused.byteLength, version)) {
        reused.set(piece);
        yield reused.subarray(0, piece.byteLength);
      }
    }
    const accumulator = new InlineHashing({ provider: nativeHashProvider, secret: SECRET, versions: [version] });
    for (const piece of overwritten()) accumulator.push(piece);
    test.same(accumulator.finish().map(fieldsOf), [fieldsOf(describe(version, BODY))], 'a buffer that is used again');
  }
});

await t.test('an empty body is described as empty', async (test) => {
  const { hasher, outcomes } = createHasher();
  test.same(await send(hasher, []), []);
  const information = await hasher.contentInformation;
  test.same(
    information?.map(({ version, range, segmentCount }) => [version, range.length, segmentCount]),
    [
      [1, 0, 0],
      [2, 0, 0],
    ],
  );
  test.same(outcomes, ['completed']);
});

await t.test('a body that ends early yields nothing', async (test) => {
  const cases: Record<string, (hasher: ContentHasher) => Promise<unknown>> = {
    'destroyed before the first byte': async (hasher) => hasher.destroy(),
    'destroyed in the middle': async (hasher) => {
      hasher.resume();
      hasher.write(BODY.subarray(0, 200_000));
      await turns(2);
      hasher.destroy();
    },
    'the source fails in the middle': async (hasher) => {
      async function* failing(): AsyncGenerator<Uint8Array> {
        yield BODY.subarray(0, 200_000);
        await nextTurn();
        throw new Error('cut');
      }
      await test.rejects(send(hasher, failing()), { message: 'cut' });
    },
    'the sink fails in the middle': async (hasher) => {
      const sink = new Writable({ write: (_chunk, _encoding, callback) => callback(new Error('gone')) });
      await test.rejects(pipeline(Readable.from(cutAnywhere(BODY, 50_000)), hasher, sink), { message: 'gone' });
    },
    'the client leaves': async (hasher) => {
      const controller = new AbortController();
      async function* endless(): AsyncGenerator<Uint8Array> {
        for (let sent = 0; ; sent += 1) {
          if (sent === 20) controller.abort();
          await nextTurn();
          yield BODY.subarray(0, 1_000);
        }
      }
      const sink = new Writable({ write: (_chunk, _encoding, callback) => callback() });
      await test.rejects(pipeline(Readable.from(endless()), hasher, sink, { signal: controller.signal }), {
        name: 'AbortError',
      });
    },
  };
  for (const [name, run] of Object.entries(cases)) {
    const engine = scriptedEngine();
    const { hasher, outcomes, hashed } = createHasher({ engine });
    await run(hasher);
    test.equal(await hasher.contentInformation, undefined, name);
    test.same([outcomes, hashed], [['aborted'], []], `${name}: reported once`);
    test.notOk(engine.calls.includes('finish'), `${name}: never finished`);
    test.ok(engine.calls.includes('abort'), `${name}: engine released`);
  }
});

await t.test('past the limit the bytes flow on and nothing else happens', async (test) => {
  for (const [maxBytes, outcome] of [
    [BODY.byteLength, 'completed'],
    [BODY.byteLength - 1, 'too_large'],
    [100_000, 'too_large'],
    [0, 'too_large'],
  ] as const) {
    const engine = scriptedEngine();
    const { hasher, outcomes } = createHasher({ engine, maxBytes });
    const out = await send(hasher, cutAnywhere(BODY, 30_000, 4));
    test.equal(sha256Hex(Buffer.concat(out)), sha256Hex(BODY), `${maxBytes} bytes at most`);
    test.same(outcomes, [outcome]);
    test.equal((await hasher.contentInformation)?.length, outcome === 'completed' ? 2 : undefined);
    if (outcome === 'too_large') {
      test.ok(
        engine.calls.filter((call) => call === 'push').length <= Math.ceil(maxBytes / 100),
        'not hashed past the limit',
      );
      test.equal(engine.calls.at(-1), 'abort', 'the engine is released, and not asked again');
    }
  }
});

await t.test('a body of another length than announced is not described', async (test) => {
  for (const [expectedBytes, outcome] of [
    [BODY.byteLength, 'completed'],
    [BODY.byteLength + 1, 'aborted'],
    [BODY.byteLength - 1, 'aborted'],
    [0, 'aborted'],
  ] as const) {
    const { hasher, outcomes } = createHasher({ expectedBytes });
    const out = await send(hasher, cutAnywhere(BODY, 100_000, 5));
    test.equal(sha256Hex(Buffer.concat(out)), sha256Hex(BODY), `announced ${expectedBytes}`);
    test.equal((await hasher.contentInformation)?.length, outcome === 'completed' ? 2 : undefined);
    test.same(outcomes, [outcome]);
  }
});

await t.test('a chunk has left before it is hashed', async (test) => {
  const engine = scriptedEngine();
  const { calls } = engine;
  const { hasher } = createHasher({ engine });
  // As an HTTP response does: what it is given goes to the socket in the next tick.
  hasher.on('data', () => process.nextTick(() => calls.push('left')));
  hasher.resume();
  await turns();
  hasher.write(BODY);
  await turns();
  test.same(calls, ['left', 'push']);
  hasher.write(BODY);
  hasher.stopHashing();
  await turns();
  test.same(calls, ['left', 'push', 'abort', 'left'], 'and not at all when hashing is given up in between');
  hasher.destroy();
});

await t.test('an engine that fails is nobody’s business', async (test) => {
  const broken = new Error('engine');
  const scripts: Record<string, Partial<HashingEngine>> = {
    'push throws': {
      push() {
        throw broken;
      },
    },
    'push rejects': { push: () => Promise.reject(broken) },
    'finish throws': {
      finish() {
        throw broken;
      },
    },
    'finish rejects': { finish: () => Promise.reject(broken) },
  };
  for (const [name, script] of Object.entries(scripts)) {
    const engine = scriptedEngine(script);
    const { hasher, outcomes } = createHasher({ engine });
    const out = await send(hasher, cutAnywhere(BODY, 100_000, 6));
    test.equal(sha256Hex(Buffer.concat(out)), sha256Hex(BODY), name);
    test.equal(await hasher.contentInformation, undefined);
    test.same(outcomes, ['failed'], `${name}: reported once`);
    test.ok(engine.calls.includes('abort'), `${name}: engine released`);
    if (name.startsWith('push'))
      test.equal(engine.calls.filter((call) => call === 'push').length, 1, 'not tried again');
  }
});

await t.test('a client that leaves while the engine works is one publication that was aborted', async (test) => {
  let fail: (error: Error) => void = () => {};
  const engine = scriptedEngine({ push: () => new Promise<void>((_, reject) => (fail = reject)) });
  const { hasher, outcomes } = createHasher({ engine });
  hasher.resume();
  hasher.write(BODY.subarray(0, 1_000));
  await turns();
  hasher.destroy();
  test.equal(await hasher.contentInformation, undefined);
  fail(new Error('the engine was aborted'));
  await turns();
  test.same(outcomes, ['aborted'], 'what the engine says afterwards is not a second outcome');
});

await t.test('the client waits for no hash: chunks go down first, the end too', async (test) => {
  const waits: (() => void)[] = [];
  const wait = (): Promise<void> => new Promise((resolve) => waits.push(resolve));
  const inner = new InlineHashing({ provider: nativeHashProvider, secret: SECRET });
  const engine = scriptedEngine({
    push(chunk) {
      inner.push(chunk);
      return wait();
    },
    finish: () => wait().then(() => inner.finish()),
  });
  const { hasher } = createHasher({ engine });
  const out: Buffer[] = [];
  let ended = false;
  let finished = false;
  hasher.on('data', (chunk: Buffer) => out.push(chunk));
  hasher.on('end', () => (ended = true));
  hasher.on('finish', () => (finished = true));
  hasher.write(BODY.subarray(0, 1_000));
  hasher.write(BODY.subarray(1_000, 2_000));
  hasher.end();
  await turns();
  test.same(
    [out.length, waits.length],
    [1, 1],
    'the first chunk is out though the engine has it still; the second waits',
  );
  waits.shift()?.();
  await turns();
  test.equal(out.length, 2);
  waits.shift()?.();
  await turns();
  test.same(
    [ended, finished, engine.calls.at(-1)],
    [true, false, 'finish'],
    'the client has its end before the last hash',
  );
  test.equal(await stateOf(hasher.contentInformation), 'pending');
  waits.shift()?.();
  const information = await hasher.contentInformation;
  await turns();
  test.ok(finished, 'and `finish` comes with the result');
  test.equal(information?.[0]?.range.length, 2_000);
});

await t.test('a slow sink: 32 MiB in bounded memory', async (test) => {
  const chunk = BODY.subarray(0, 64 * KIB);
  const count = 512;
  let produced = 0;
  let consumed = 0;
  let furthest = 0;
  function* source(): Generator<Uint8Array> {
    for (; produced < count; produced += 1) {
      furthest = Math.max(furthest, produced - consumed);
      yield chunk;
    }
  }
  const sink = new Writable({
    highWaterMark: 1,
    write(_chunk, _encoding, callback) {
      consumed += 1;
      setImmediate(callback);
    },
  });
  const { hasher } = createHasher();
  await pipeline(Readable.from(source(), { highWaterMark: 1 }), hasher, sink);
  test.equal(consumed, count);
  test.ok(furthest <= 16, `at most ${furthest} chunks of 64 KiB between origin and client`);
  test.equal((await hasher.contentInformation)?.[0]?.range.length, count * chunk.byteLength);

  const stuck = createHasher().hasher;
  let accepted = 0;
  while (accepted < 1_000 && stuck.write(chunk)) {
    accepted += 1;
    await nextTurn();
  }
  const held = stuck.readableLength + stuck.writableLength;
  test.ok(held <= 1_024 * KIB, `a sink that takes nothing stops the source; ${held} bytes wait`);
  stuck.destroy();
});

// --- RangeAssembler --------------------------------------------------------------------------------------------------------------

interface Gate {
  readonly open: (bytes?: Uint8Array) => void;
  readonly fail: (error: Error) => void;
  readonly signal: AbortSignal;
}

/** Parts of `bytes` that arrive when the test opens their gate. */
function gatedParts(bytes: Uint8Array, partBytes: number): { readonly parts: AssemblerPart[]; readonly gates: Gate[] } {
  const gates: Gate[] = [];
  const parts = Array.from({ length: Math.ceil(bytes.byteLength / partBytes) }, (_, index) => {
    const piece = bytes.subarray(index * partBytes, (index + 1) * partBytes);
    return {
      length: piece.byteLength,
      fetch: (signal: AbortSignal) =>
        new Promise<Uint8Array>((resolve, reject) => {
          gates[index] = { open: (other) => resolve(other ?? piece), fail: reject, signal };
        }),
    };
  });
  return { parts, gates };
}

function readAll(stream: Readable): { readonly done: Promise<Buffer>; readonly chunks: Buffer[] } {
  const chunks: Buffer[] = [];
  const done = (async () => {
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks);
  })();
  done.catch(() => {});
  return { done, chunks };
}

await t.test('parts in any order come out in theirs', async (test) => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { parts, gates } = gatedParts(BODY.subarray(0, 100_000), 5_000);
    const { done, chunks } = readAll(new RangeAssembler(parts));
    await turns(2);
    test.equal(gates.length, 20, 'all are under way');
    const order = shuffled(gates, seed);
    for (const [index, gate] of order.entries()) {
      gate.open();
      if (index % 5 === seed % 5) await turns(1);
      const whole = Buffer.concat(chunks);
      if (!whole.equals(BODY.subarray(0, whole.byteLength))) test.fail('out of order');
    }
    test.equal(sha256Hex(await done), sha256Hex(BODY.subarray(0, 100_000)), `order ${seed}`);
  }
});

await t.test('look-ahead is bounded, and at least one part', async (test) => {
  const bytes = seededBytes(8, 4_096 * KIB);
  const partBytes = 64 * KIB;
  for (const lookAheadBytes of [0, partBytes, 5 * partBytes, 5 * partBytes + 1]) {
    const { parts, gates } = gatedParts(bytes, partBytes);
    const stream = new RangeAssembler(parts, { lookAheadBytes });
    stream.read(0);
    await turns(2);
    const ahead = Math.max(1, Math.ceil(lookAheadBytes / partBytes));
    test.equal(gates.length, ahead, `${lookAheadBytes} bytes: ${ahead} parts are fetched`);
    // Everything that was fetched arrives, and nobody reads: the stream's own buffer fills, then no more is fetched.
    for (let opened = 0; opened < gates.length; opened += 1) {
      gates[opened]?.open();
      await turns(1);
    }
    const buffered = stream.readableLength;
    test.ok(buffered <= stream.readableHighWaterMark + partBytes, `${buffered} bytes buffered`);
    test.ok(
      gates.length * partBytes <= buffered + Math.max(lookAheadBytes, partBytes) + partBytes,
      `${gates.length} parts fetched`,
    );
    test.ok(gates.length < parts.length, 'a reader that does not read stops the fetching');
    const { done } = readAll(stream);
    let most = 0;
    for (let opened = 0; opened < parts.length; opened += 1) {
      while (gates[opened] === undefined) await nextTurn();
      most = Math.max(most, gates.length - opened);
      gates[opened]?.open();
    }
    test.equal(sha256Hex(await done), sha256Hex(bytes), 'and reading on gets the rest');
    test.ok(most <= ahead + 1 + stream.readableHighWaterMark / partBytes);
  }
});

await t.test('destroying the stream ends what is under way and starts nothing', async (test) => {
  for (const error of [undefined, new Error('gone')]) {
    const { parts, gates } = gatedParts(BODY, 50_000);
    const stream = new RangeAssembler(parts, { lookAheadBytes: 200_000 });
    stream.on('error', () => {});
    stream.resume();
    await turns(2);
    gates[0]?.open();
    await turns(2);
    const started = gates.length;
    stream.destroy(error);
    test.ok(gates.every(({ signal }) => signal.aborted));
    if (error !== undefined) test.equal(gates[1]?.signal.reason, error);
    for (const gate of gates) gate.open();
    await turns();
    test.equal(gates.length, started, 'nothing was started afterwards');
    test.ok(stream.destroyed);
  }
});

await t.test('a reader that leaves while it is handed a part', async (test) => {
  const { parts, gates } = gatedParts(BODY, 50_000);
  const stream = new RangeAssembler(parts, { lookAheadBytes: 150_000 });
  stream.on('data', () => stream.destroy());
  await turns(2);
  const started = gates.length;
  gates[0]?.open();
  await turns();
  test.ok(stream.destroyed);
  test.equal(gates.length, started, 'no part is asked for after that');
});

await t.test('a part that fails: a true beginning, then the error, and no later byte', async (test) => {
  for (const failing of [0, 3, 13]) {
    const { parts, gates } = gatedParts(BODY, 50_000);
    const { done, chunks } = readAll(new RangeAssembler(parts));
    await turns(2);
    for (const [index, gate] of gates.entries()) {
      if (index === failing) gate.fail(new Error('no such part'));
      else if (index < failing) gate.open();
      await turns(1);
    }
    const error = await failureOf(done);
    test.match(error, { message: 'no such part' }, `part ${failing}`);
    test.same(Buffer.concat(chunks).byteLength, failing * 50_000, 'what came before it is out');
    test.ok(
      gates.every(({ signal }) => signal.aborted),
      'the others are aborted',
    );
  }
  const { parts, gates } = gatedParts(BODY, 50_000);
  const { done, chunks } = readAll(new RangeAssembler(parts));
  await turns(2);
  gates[5]?.fail(new Error('later one first'));
  gates[0]?.open();
  test.match(await failureOf(done), { message: 'later one first' });
  const out = Buffer.concat(chunks);
  test.ok(out.equals(BODY.subarray(0, out.byteLength)), 'never a wrong byte');
});

await t.test('a part of the wrong length is not passed on', async (test) => {
  const good = BODY.subarray(0, 100);
  for (const wrong of [BODY.subarray(0, 99), BODY.subarray(0, 101), new Uint8Array(0)]) {
    for (const fetch of [() => wrong, () => Promise.resolve(wrong)]) {
      const { done, chunks } = readAll(
        new RangeAssembler([
          { length: 100, fetch: () => good },
          { length: 100, fetch },
        ]),
      );
      const error = await failureOf(done);
      test.ok(isPeerDistError(error, 'ERR_PEERDIST_LENGTH_MISMATCH'), `${wrong.byteLength} bytes for 100`);
      test.ok(Buffer.concat(chunks).byteLength <= 100);
    }
  }
});

await t.test('parts at hand, and mixtures', async (test) => {
  const many = Array.from({ length: 20_000 }, (_, index) => ({
    length: 1,
    fetch: () => BODY.subarray(index, index + 1),
  }));
  test.equal(
    sha256Hex(await readAll(new RangeAssembler(many)).done),
    sha256Hex(BODY.subarray(0, 20_000)),
    '20,000 at once',
  );
  const mixed = Array.from({ length: 700 }, (_, index) => {
    const piece = BODY.subarray(index * 1_000, (index + 1) * 1_000);
    return { length: 1_000, fetch: () => (index % 3 === 0 ? nextTurn(piece) : piece) };
  });
  test.equal(
    sha256Hex(await readAll(new RangeAssembler(mixed)).done),
    sha256Hex(BODY.subarray(0, 700_000)),
    'some late',
  );
  test.equal((await readAll(new RangeAssembler([])).done).byteLength, 0, 'no parts at all');
  const withEmpty = [0, 10, 0, 20, 0].map((length) => ({ length, fetch: () => BODY.subarray(0, length) }));
  test.equal((await readAll(new RangeAssembler(withEmpty)).done).byteLength, 30, 'empty parts');

  const throwing = {
    length: 1,
    fetch: (): Uint8Array => {
      throw new Error('at once');
    },
  };
  test.match(await failureOf(readAll(new RangeAssembler([throwing])).done), { message: 'at once' });
  function* failing(): Generator<AssemblerPart> {
    yield { length: 1, fetch: () => BODY.subarray(0, 1) };
    throw new Error('the list ends badly');
  }
  test.match(await failureOf(readAll(new RangeAssembler(failing())).done), { message: 'the list ends badly' });
  let fetched = 0;
  const lazy = new RangeAssembler([{ length: 1, fetch: () => BODY.subarray(fetched++, 1) }]);
  await turns(2);
  test.equal(fetched, 0, 'nothing is fetched before somebody reads');
  lazy.destroy();
});
