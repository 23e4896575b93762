/** The two flows at the end of the specification, over real connections: back-pressure, and what goes away in the middle. */
import { once } from 'node:events';
import { createServer, get, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough, Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import t from 'tap';
import type { PeerDist } from '../../lib/peerdist/index.ts';
import { sha256Hex } from '../support/content-information.ts';
import { cutAnywhere, seededBytes } from '../support/random.ts';
import { BLOCK, BODY, codeOf, deferred, open, TAG, TestSource } from '../support/peerdist.ts';
import { failureOf, turns } from '../support/turns.ts';

type FromOrigin = (offset: number, length: number, signal: AbortSignal) => Promise<Uint8Array>;

const MiB = 1024 * 1024;

/** Origin side: publish a body while it is sent, then hand out content information. */
async function origin(pd: PeerDist, url: string, body: Readable, response: Writable): Promise<Uint8Array> {
  const tap = await pd.server.publishThrough(url);
  await pipeline(body, tap, response);
  await tap.published;
  return pd.server.getContentInformation(url, { versions: { min: 1, max: 2 } });
}

/** Branch side: rebuild the body from the neighbourhood, go to the origin for holes only. */
async function branch(
  pd: PeerDist,
  info: Uint8Array,
  out: Writable,
  fromOrigin: FromOrigin,
  signal?: AbortSignal,
): Promise<void> {
  await using content = await pd.client.openContent(TAG);
  await content.setContentInformation(info);
  const body = content.createReadStream({
    timeoutMs: 500,
    lookAheadBytes: MiB,
    onMissing: (hole, context) => fromOrigin(hole.offset, hole.length, context.signal),
  });
  await pipeline(body, out, { signal });
}

/** A sink that keeps what it gets. */
function collector(): Writable & { readonly chunks: Buffer[] } {
  const chunks: Buffer[] = [];
  const write = (chunk: Buffer, _: string, callback: () => void): void => {
    chunks.push(Buffer.from(chunk));
    callback();
  };
  return Object.assign(new Writable({ write }), { chunks });
}

async function listen(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ server: Server; url: string }> {
  const server = createServer(handler);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` };
}

async function request(url: string): Promise<IncomingMessage> {
  const [response] = (await once(get(url, { agent: false }), 'response')) as [IncomingMessage];
  return response;
}

await t.test('from the origin to the branch, over HTTP', async (test) => {
  await using headOffice = await open();
  const branchSource = new TestSource('absent');
  await using branchOffice = await open({ sources: [branchSource] });
  const bodies = [seededBytes(61, 3 * MiB + 123), new Uint8Array(0), seededBytes(62, 1)];
  for (const [index, body] of bodies.entries()) {
    const information = deferred<Uint8Array>();
    const { server: originServer, url: originUrl } = await listen((_, response) => {
      origin(headOffice, `page ${index}`, Readable.from(cutAnywhere(body, 100_000)), response).then(
        information.resolve,
        information.reject,
      );
    });
    const received: Buffer[] = [];
    for await (const chunk of await request(originUrl)) received.push(chunk as Buffer);
    test.equal(sha256Hex(Buffer.concat(received)), sha256Hex(body), `${body.byteLength} bytes: untouched`);
    const info = await information.promise;

    const holes: number[] = [];
    const failures: unknown[] = [];
    const { server, url } = await listen((_, response) => {
      branch(branchOffice, info, response, async (offset, length) => {
        holes.push(length);
        return body.subarray(offset, offset + length);
      }).catch((error: unknown) => failures.push(error));
    });
    for (const round of ['first', 'second']) {
      const got: Buffer[] = [];
      for await (const chunk of await request(url)) got.push(chunk as Buffer);
      test.equal(sha256Hex(Buffer.concat(got)), sha256Hex(body), `${round} reader`);
      const total = holes.reduce((sum, length) => sum + length, 0);
      test.equal(total, body.byteLength, 'every byte crosses the WAN once');
    }
    test.same(failures, []);
    server.close();
    originServer.close();
  }
  test.equal(
    await codeOf(origin(headOffice, 'page 0', Readable.from([BODY]), new PassThrough())),
    'ERR_PEERDIST_ALREADY_EXISTS',
    'a second publication is refused before any byte',
  );
});

await t.test('the origin side: back-pressure', async (test) => {
  await using pd = await open();
  const body = seededBytes(63, 16 * MiB);
  let taken = 0;
  const source = new Readable({
    read(size) {
      const piece = body.subarray(taken, taken + Math.min(size, 65_536));
      taken += piece.byteLength;
      this.push(piece.byteLength === 0 ? null : piece);
    },
  });
  const release = deferred();
  let delivered = 0;
  const slow = new Writable({
    write(chunk: Buffer, _, callback) {
      delivered += chunk.byteLength;
      void release.promise.then(() => callback());
    },
  });
  const done = origin(pd, 'page', source, slow);
  await turns(100);
  test.ok(taken < 2 * MiB, `a reader that takes nothing holds the origin: ${taken} bytes are under way`);
  release.resolve();
  const info = await done;
  test.equal(delivered, body.byteLength);
  await using content = await pd.client.openContent(TAG);
  test.match(await content.setContentInformation(info), { version: 2, range: { length: body.byteLength } });
});

await t.test('the origin side: what breaks off is not published', async (test) => {
  await using pd = await open();
  const half = async function* (): AsyncGenerator<Uint8Array> {
    yield BODY.subarray(0, 3 * BLOCK);
    throw new Error('the origin has gone');
  };
  test.match(await failureOf(origin(pd, 'page', Readable.from(half()), collector())), {
    message: 'the origin has gone',
  });
  const gone = new PassThrough();
  const endless = new Readable({
    read() {
      this.push(BODY);
    },
  });
  const leaving = failureOf(origin(pd, 'page', endless, gone));
  gone.once('data', () => gone.destroy());
  test.match(
    await leaving,
    { code: 'ERR_STREAM_PREMATURE_CLOSE' },
    'a client that goes away, and the next publication',
  );
  test.equal(endless.destroyed, true, 'takes the transfer with it');
  test.equal(await codeOf(pd.server.getContentInformation('page')), 'ERR_PEERDIST_NOT_FOUND');

  const { server, url } = await listen((_, response) => {
    const body = new Readable({
      read() {
        setImmediate(() => this.push(BODY));
      },
    });
    void failureOf(origin(pd, 'page', body, response)).then((error) => server.emit('outcome', error));
  });
  const outcome = once(server, 'outcome');
  const response = await request(url);
  await once(response, 'readable');
  response.destroy();
  test.ok((await outcome)[0] instanceof Error, 'and one on a real connection');
  server.close();
  test.equal(await codeOf(pd.server.getContentInformation('page')), 'ERR_PEERDIST_NOT_FOUND');
  await origin(pd, 'page', Readable.from([BODY]), collector());
  test.equal(await codeOf(pd.server.getContentInformation('page')), undefined, 'the identifier is free again');
});

await t.test('the branch side: back-pressure', async (test) => {
  await using pd = await open();
  const body = seededBytes(64, 16 * MiB);
  const info = await origin(pd, 'page', Readable.from([body]), collector());
  await using other = await open();
  let brought = 0;
  const release = deferred();
  let delivered = 0;
  const slow = new Writable({
    write(chunk: Buffer, _, callback) {
      delivered += chunk.byteLength;
      void release.promise.then(() => callback());
    },
  });
  async function* chunks(offset: number, length: number): AsyncGenerator<Uint8Array> {
    for (let at = offset; at < offset + length; at += 50_000) {
      const piece = body.subarray(at, Math.min(at + 50_000, offset + length));
      brought += piece.byteLength;
      yield piece;
    }
  }
  await using content = await other.client.openContent(TAG);
  await content.setContentInformation(info);
  const stream = content.createReadStream({
    timeoutMs: 500,
    lookAheadBytes: MiB,
    onMissing: (hole) => chunks(hole.offset, hole.length),
  });
  const done = pipeline(stream, slow);
  await turns(200);
  test.ok(brought > 0 && brought < 4 * MiB, `a reader that takes nothing holds the origin: ${brought} bytes`);
  test.ok(content.position <= 2 * MiB, `at ${content.position}`);
  release.resolve();
  await done;
  test.equal(delivered, body.byteLength);
  test.equal(brought, body.byteLength);
  test.equal(content.position, body.byteLength);
});

await t.test('the branch side: aborted', async (test) => {
  await using pd = await open();
  const info = await origin(pd, 'page', Readable.from([BODY]), collector());
  await using other = await open();
  let signals: AbortSignal[] = [];
  const started = deferred();
  const hanging: FromOrigin = (_, __, signal) => {
    signals.push(signal);
    started.resolve();
    return new Promise((___, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  };
  const controller = new AbortController();
  const out = collector();
  const aborted = failureOf(branch(other, info, out, hanging, controller.signal));
  await started.promise;
  controller.abort(new Error('no longer wanted'));
  test.match(await aborted, { name: 'AbortError' }, 'by the signal');
  await turns();
  test.ok(out.destroyed && signals.length > 0, 'the destination is destroyed');

  signals = [];
  const gone = collector();
  const leaving = failureOf(branch(other, info, gone, hanging));
  await turns();
  gone.destroy();
  test.ok((await leaving) instanceof Error, 'by a destination that goes away');

  const wrong: FromOrigin = async (offset, length) => BODY.subarray(offset, offset + length).map((byte) => byte ^ 1);
  const spoiled = collector();
  test.equal(await codeOf(branch(other, info, spoiled, wrong)), 'ERR_PEERDIST_MISSING_DATA', 'an origin that lies');
  test.equal(Buffer.concat(spoiled.chunks).byteLength, 0, 'reaches nobody');

  await using fresh = await open();
  const short: FromOrigin = async (offset, length) => BODY.subarray(offset, offset + length - 1);
  const got = collector();
  const error = (await failureOf(branch(fresh, info, got, short))) as { code?: string; cause?: { code?: string } };
  test.ok(
    [error.code, error.cause?.code].includes('ERR_PEERDIST_LENGTH_MISMATCH'),
    `fewer bytes than were asked for: ${error.code}, because of ${error.cause?.code}`,
  );
  const bytes = Buffer.concat(got.chunks);
  test.ok(bytes.equals(BODY.subarray(0, bytes.byteLength)), 'and no byte is wrong');
  const mended = collector();
  await branch(other, info, mended, async (offset, length) => BODY.subarray(offset, offset + length));
  test.ok(Buffer.concat(mended.chunks).equals(BODY), 'the next one gets everything');
});
