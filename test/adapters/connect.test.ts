/** `peerdist/connect` in Express 5 and in a bare server: files, answers of all kinds, and clients and handlers that break off. */
import { createReadStream, utimesSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import express, { type NextFunction, type Request, type Response } from 'express';
import t, { type Test } from 'tap';
import { PeerDist } from '../../lib/peerdist/index.ts';
import { ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import { MemoryContentInformationStore } from '../../lib/stores/index.ts';
import { connect, type PublishingMiddleware, type PublishingOptions } from '../../plugins/adapters/connect.ts';
import { AdapterObservations, askCoded, describes, folder, serve } from '../support/adapters.ts';
import {
  ask,
  begin,
  Connection,
  Gate,
  inTime,
  readAtLeast,
  requestText,
  same,
  startBranch,
  until,
  V2_REQUEST,
} from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const FILE = seededBytes(1, 300_000);
const LARGE = seededBytes(2, 24 * 1024 * 1024);

interface Mounted {
  readonly port: number;
  readonly seen: AdapterObservations;
  readonly middleware: PublishingMiddleware;
}

/** An Express application with the middleware before what `mount` puts into it. */
async function mounted(
  t: Test,
  mount: (app: express.Express) => void,
  { before, ...options }: PublishingOptions & { readonly before?: express.Handler } = {},
): Promise<Mounted> {
  const seen = new AdapterObservations();
  const middleware = connect({ observer: seen.observer, ...options });
  t.teardown(() => middleware.close());
  const app = express();
  if (before !== undefined) app.use(before);
  app.use(middleware);
  mount(app);
  return { port: await serve(t, app), seen, middleware };
}

/** A bare server: `handler` behind the middleware. */
async function bare(
  t: Test,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
  options: PublishingOptions = {},
): Promise<Mounted> {
  const seen = new AdapterObservations();
  const middleware = connect({ observer: seen.observer, ...options });
  t.teardown(() => middleware.close());
  const port = await serve(t, (request, response) => middleware(request, response, () => handler(request, response)));
  return { port, seen, middleware };
}

t.test('express.static: the body and the promise, then hashes, and new ones for a new file', async (t) => {
  const root = folder(t, { 'file.bin': FILE });
  const { port, seen } = await mounted(t, (app) => void app.use(express.static(root)));
  const plain = await ask(port, '/file.bin');
  t.ok(same(plain.body, FILE));
  t.match(plain.headers['etag'], /^W\//, 'a plain client sees the tag that Express makes');
  t.notOk('x-p2p-peerdist' in plain.headers);

  const first = await askCoded(port, '/file.bin');
  t.equal(first.status, 200);
  t.ok(same(first.body, FILE));
  t.equal(first.headers['x-p2p-peerdistex'], 'MakeHashRequest=true');
  await seen.published();
  const second = await askCoded(port, '/file.bin');
  t.equal(second.headers['content-encoding'], 'peerdist');
  t.equal(second.headers['x-p2p-peerdist'], `Version=1.1, ContentLength=${FILE.byteLength}`);
  t.match(second.headers['etag'], /^"[0-9a-f]+-[0-9a-f]+"$/);
  t.equal(second.headers['content-type'], 'application/octet-stream');
  t.equal(second.headers['x-powered-by'], 'Express');
  t.ok(await describes(second.body, FILE));

  const part = await askCoded(port, '/file.bin', { range: 'bytes=65536-131071' });
  t.equal(part.status, 206);
  t.equal(part.headers['content-range'], `bytes 65536-131071/${FILE.byteLength}`);
  t.equal(part.headers['content-encoding'], 'peerdist');

  // The same length within the same second: only the milliseconds of the tag tell.
  const next = seededBytes(3, FILE.byteLength);
  writeFileSync(join(root, 'file.bin'), next);
  utimesSync(join(root, 'file.bin'), new Date(), new Date(Date.parse(plain.headers['last-modified'] ?? '') + 999));
  const changed = await askCoded(port, '/file.bin');
  t.ok(same(changed.body, next), 'a file that has changed comes as it is now');
  await seen.published(2);
  t.ok(await describes((await askCoded(port, '/file.bin')).body, next));
  t.ok(same((await ask(port, '/file.bin')).body, next));
  t.strictSame(seen.failures, []);
});

t.test('a branch before it: the second download costs no body, and a hole is filled by a range', async (t) => {
  const root = folder(t, { 'file.bin': FILE });
  const bodies: number[] = [];
  const count: express.Handler = (_request, response, next) => {
    response.on('finish', () => bodies.push(Number(response.getHeader('content-length') ?? 0)));
    next();
  };
  const { port } = await mounted(t, (app) => void app.use(express.static(root, { maxAge: 60_000 })), { before: count });
  const branch = await startBranch(t, { origin: { url: `http://127.0.0.1:${port}` } });
  t.ok(same((await ask(branch.port, '/file.bin')).body, FILE));
  await branch.remembered();
  const before = branch.observations.wanBodyBytes;
  t.ok(same((await ask(branch.port, '/file.bin')).body, FILE));
  t.ok(
    same((await ask(branch.port, '/file.bin', { fields: { range: 'bytes=7-70006' } })).body, FILE.subarray(7, 70_007)),
  );
  t.equal(branch.observations.wanBodyBytes, before);

  // Another branch knows the hashes and has no block: what is missing comes by ranges under If-Range.
  const other = await startBranch(t, { origin: { url: `http://127.0.0.1:${port}` } });
  const ranged = await ask(other.port, '/file.bin');
  t.ok(same(ranged.body, FILE));
  t.equal(other.observations.bytes('wan', { kind: 'missing_data' }), FILE.byteLength);
  t.equal(other.observations.bytes('wan', { kind: 'plain' }), 0);
});

t.test('sendFile, a mount path, an error handler, a 404 and a route that throws', async (t) => {
  const root = folder(t, { 'file.bin': FILE });
  const { port, seen } = await mounted(t, (app) => {
    const router = express.Router();
    router.get('/file', (_request, response) => response.sendFile(join(root, 'file.bin')));
    app.use('/mounted', router);
    app.get('/throws', () => {
      throw new Error('on purpose');
    });
    app.get('/rejects', async (_request, response) => {
      response.setHeader('etag', '"gone"');
      await Promise.reject(new Error('on purpose'));
    });
    app.use((error: Error, _request: Request, response: Response, _next: NextFunction) => {
      response.status(503).type('text').send(`handled: ${error.message}`);
    });
  });
  t.ok(same((await askCoded(port, '/mounted/file')).body, FILE));
  await seen.published();
  t.ok(await describes((await askCoded(port, '/mounted/file')).body, FILE));
  for (const target of ['/throws', '/rejects']) {
    const failed = await askCoded(port, target);
    t.equal(failed.status, 503);
    t.equal(failed.body.toString(), 'handled: on purpose');
  }
  t.equal((await askCoded(port, '/nothing')).status, 404);
});

/** Answers in every form that Node knows. Each is asked with and without the middleware, and must be the same on the wire. */
const FORMS: Readonly<Record<string, (request: IncomingMessage, response: ServerResponse) => void>> = {
  'end alone': (_, response) => void response.end('hello'),
  'end with nothing': (_, response) => void response.end(),
  'end with an encoding and a callback': (_, response) => void response.end('6869', 'hex', () => {}),
  'a head, then the end': (_, response) => void response.writeHead(201, 'Made', { 'X-One': '1' }).end('x'),
  'fields set, and replaced by the head': (_, response) => {
    response.setHeader('X-Two', '2');
    response.setHeader('x-three', ['3', '4']);
    response.writeHead(200, { 'X-TWO': 'two', 'Content-Length': 2 });
    response.end('ab');
  },
  'a list of fields': (_, response) => void response.writeHead(200, ['A', '1', 'A', '3', 'B', '2']).end(),
  chunks: (_, response) => {
    response.setHeader('Content-Type', 'text/plain');
    response.write('one');
    response.write(Buffer.from('two'), () => response.end('three'));
  },
  'a flushed head': (_, response) => {
    response.flushHeaders();
    setImmediate(() => response.end('late'));
  },
  'no content': (_, response) => void response.writeHead(204).end(),
  'not modified': (_, response) => void response.writeHead(304, { ETag: 'W/"x"' }).end(),
  'an odd status message': (_, response) => {
    response.statusCode = 404;
    response.statusMessage = 'Nothing Here';
    response.end('no');
  },
  'early hints': (_, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    response.end('then this');
  },
  trailers: (request, response) => {
    // Node refuses them where there is no chunked body.
    const fits = request.method !== 'HEAD' && request.httpVersion === '1.1';
    response.writeHead(200, fits ? { Trailer: 'X-Sum' } : {});
    response.write('body');
    if (fits) response.addTrailers({ 'X-Sum': '4' });
    response.end();
  },
  'several cookies': (_, response) => void response.writeHead(200, { 'Set-Cookie': ['a=1', 'b=2'] }).end('c'),
  'a closing connection': (_, response) => void response.writeHead(200, { Connection: 'close' }).end('bye'),
  'a piped stream': (_, response) => void Readable.from(['a', 'b', 'c']).pipe(response),
  'a pipeline': (_, response) => void pipeline(Readable.from([Buffer.alloc(200_000, 'x')]), response),
};

t.test('what is not published is on the wire as without the middleware', async (t) => {
  const target = (request: IncomingMessage): string => decodeURIComponent((request.url ?? '').slice(1));
  const handle = (request: IncomingMessage, response: ServerResponse): void =>
    FORMS[target(request)]?.(request, response);
  const without = await serve(t, handle);
  const { port, seen } = await bare(t, handle);
  const clients = [
    { method: 'GET', version: '1.1', fields: {} },
    { method: 'GET', version: '1.1', fields: V2_REQUEST },
    { method: 'GET', version: '1.0', fields: V2_REQUEST },
    { method: 'HEAD', version: '1.1', fields: V2_REQUEST },
    { method: 'POST', version: '1.1', fields: {}, body: 'a body' },
  ] as const;
  for (const name of Object.keys(FORMS)) {
    for (const { fields, ...client } of clients) {
      const wire = async (at: number): Promise<string> => {
        const options = { ...client, fields: { connection: 'close', ...fields } };
        const connection = await begin(at, `/${encodeURIComponent(name)}`, options);
        const bytes = await inTime(connection.remainder(), name);
        return bytes.toString('latin1').replace(/Date: .*\r\n/, '');
      };
      t.equal(await wire(port), await wire(without), `${name}, ${JSON.stringify({ ...client, ...fields })}`);
    }
  }
  t.strictSame(seen.failures, []);
});

t.test('keep-alive, and requests sent before their turn', async (t) => {
  const root = folder(t, { 'file.bin': FILE });
  const { port, seen } = await mounted(t, (app) => void app.use(express.static(root)));
  const fields = { 'accept-encoding': 'peerdist', 'x-p2p-peerdist': 'Version=1.0' };
  const connection = await Connection.open(port);
  t.teardown(() => connection.close());
  for (let n = 0; n < 3; n += 1) connection.send(requestText(port, '/file.bin', { fields }));
  for (let n = 0; n < 3; n += 1) {
    const { body, headers } = await connection.answer();
    t.ok(headers['content-encoding'] === 'peerdist' ? await describes(body, FILE) : same(body, FILE));
  }
  await seen.published();
  connection.send(requestText(port, '/file.bin', { fields }));
  t.ok(await describes((await connection.answer()).body, FILE));
  connection.send(requestText(port, '/file.bin', { method: 'HEAD', fields }));
  const head = await connection.answer('HEAD');
  t.equal(head.headers['content-length'], String(FILE.byteLength));
  t.notOk('content-encoding' in head.headers, 'HEAD speaks of the body itself');
});

t.test("the client's own conditions and ranges are answered by the application", async (t) => {
  const root = folder(t, { 'file.bin': FILE });
  const { port, seen } = await mounted(t, (app) => void app.use(express.static(root)));
  const { headers } = await askCoded(port, '/file.bin');
  await seen.published();
  const etag = headers['etag'] ?? '';
  t.equal((await askCoded(port, '/file.bin', { 'if-none-match': etag })).status, 304);
  t.equal((await ask(port, '/file.bin', { fields: { 'if-none-match': etag } })).status, 304);
  t.equal((await ask(port, '/file.bin', { fields: { 'if-match': '"other"' } })).status, 412);
  const range = await ask(port, '/file.bin', { fields: { range: 'bytes=10-19' } });
  t.strictSame([range.status, range.headers['content-range']], [206, `bytes 10-19/${FILE.byteLength}`]);
  t.ok(same(range.body, FILE.subarray(10, 20)));
  t.equal((await ask(port, '/file.bin', { fields: { range: `bytes=${FILE.byteLength}-` } })).status, 416);
  // An old tag does not hold, the application begins to send the file, and hashes go out in its place.
  const renewed = await askCoded(port, '/file.bin', { 'if-none-match': '"old"' });
  t.equal(renewed.headers['content-encoding'], 'peerdist');
  t.ok(await describes(renewed.body, FILE));
  const missing = { 'x-p2p-peerdist': 'Version=1.1, MissingDataRequest=true', range: 'bytes=10-19' };
  t.equal((await ask(port, '/file.bin', { fields: { ...missing, 'if-range': etag } })).status, 206);
  const time = Number.parseInt(etag.split('-')[1] ?? '', 16);
  for (const [later, status] of [
    [0, 206],
    [-2_000, 200],
  ] as const) {
    const other = `"1-${(time + later).toString(16)}"`;
    const part = await ask(port, '/file.bin', { fields: { ...missing, 'if-range': other } });
    t.equal(part.status, status);
    t.equal(part.headers['etag'], etag, 'which says what it is a part of');
  }
});

t.test('the application sees our condition while it is ours, and nothing of the coding', async (t) => {
  const runs: { readonly headers: IncomingMessage['headers']; readonly raw: readonly string[] }[] = [];
  const finished: unknown[] = [];
  const { port, seen } = await mounted(t, (app) => {
    app.get('/file', (request, response) => {
      runs.push({ headers: request.headers, raw: request.rawHeaders });
      response.on('finish', () => finished.push(request.headers['if-none-match']));
      response.setHeader('etag', '"one"');
      if (request.fresh) response.status(304).end();
      else response.end(FILE);
    });
  });
  await askCoded(port, '/file', { 'accept-encoding': 'gzip, peerdist' });
  await seen.published();
  t.ok(await describes((await askCoded(port, '/file')).body, FILE));
  t.equal(runs.length, 2);
  t.equal(runs[0]?.headers['accept-encoding'], 'gzip');
  t.notOk('if-none-match' in (runs[0]?.headers ?? {}));
  t.equal(runs[1]?.headers['if-none-match'], '"one"');
  t.ok(runs[1]?.raw.join('\n').includes('if-none-match\n"one"'));
  t.notMatch(runs.flatMap(({ raw }) => raw).join('\n'), /peerdist/i);
  await until(() => finished.length === 2, 'both answers are finished');
  t.strictSame(finished, [undefined, undefined], 'afterwards it sees what the client has sent');
});

t.test('a 304 that is of no use: the application says it all once more', async (t) => {
  let runs = 0;
  const store = new MemoryContentInformationStore({ maxBytes: 64 * 1024 * 1024 });
  const peerdist = await PeerDist.open({ components: { contentInformationStore: store } });
  t.teardown(() => peerdist.close());
  const { port, seen } = await mounted(
    t,
    (app) => {
      app.get('/file', (request, response) => {
        runs += 1;
        response.setHeader('etag', '"one"').setHeader('x-run', String(runs));
        // Told in the 304 alone: what was published may not be given any more.
        if (request.headers['if-none-match'] === '"one"')
          response.status(304).setHeader('cache-control', 'no-transform').end();
        else response.end(FILE);
      });
    },
    { peerdist },
  );
  await askCoded(port, '/file');
  await until(() => store.bytes > 0, 'the body is published');
  const again = await askCoded(port, '/file');
  t.equal(again.status, 200);
  t.ok(same(again.body, FILE));
  t.equal(again.headers['x-run'], '3');
  t.notOk('cache-control' in again.headers, 'nothing is left of the run before');
  t.equal(runs, 3);
  t.strictSame(seen.failures, []);
});

t.test('without a server there is no second run, and so no condition of ours', async (t) => {
  const conditions: unknown[] = [];
  const seen = new AdapterObservations();
  const middleware = connect({ observer: seen.observer });
  t.teardown(() => middleware.close());
  const port = await serve(t, (request, response) => {
    // As for requests that a test injects.
    Object.assign(request.socket, { server: undefined });
    middleware(request, response, () => {
      conditions.push(request.headers['if-none-match']);
      response.setHeader('etag', '"one"').end(FILE);
    });
  });
  t.ok(same((await askCoded(port, '/')).body, FILE));
  await seen.published();
  t.ok(await describes((await askCoded(port, '/')).body, FILE));
  t.strictSame(conditions, [undefined, undefined]);
});

t.test('only GET and HEAD without a body are ours', async (t) => {
  const { port, seen } = await mounted(t, (app) => {
    app.use(express.text({ type: () => true }));
    app.all('/echo', (request, response) => {
      response.setHeader('etag', '"one"').send(`${request.method} ${String(request.body)}`);
    });
  });
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'GET']) {
    const { body, headers } = await ask(port, '/echo', {
      method,
      body: 'a body',
      fields: { 'x-p2p-peerdist': 'Version=1.1' },
    });
    t.equal(body.toString(), `${method} a body`);
    t.notOk('vary' in headers, method);
  }
  t.equal(seen.count('exchange'), 0);
});

t.test('compression before and behind: coded bodies are not published, and hashes are not compressed', async (t) => {
  /** As the well-known middleware does it: it replaces `write` and `end`, and makes the head by itself. */
  const compression: express.Handler = (request, response, next) => {
    const native = { write: response.write.bind(response), end: response.end.bind(response) } as {
      write(c: unknown): boolean;
      end(): void;
    };
    let gzip: ReturnType<typeof createGzip> | undefined;
    const begin = (): void => {
      if (response.headersSent) return;
      if (/\bgzip\b/.test(request.headers['accept-encoding'] ?? '') && !response.hasHeader('content-encoding')) {
        response.setHeader('content-encoding', 'gzip').removeHeader('content-length');
        gzip = createGzip();
        gzip.on('data', (chunk) => void native.write(chunk)).on('end', () => native.end());
        gzip.on('drain', () => void response.emit('drain'));
      }
      response.writeHead(response.statusCode);
    };
    response.write = ((chunk: unknown): boolean => {
      begin();
      return gzip === undefined ? native.write(chunk) : gzip.write(chunk);
    }) as Response['write'];
    response.end = ((chunk?: unknown): Response => {
      begin();
      if (chunk !== undefined && typeof chunk !== 'function') (gzip ?? native).write(chunk);
      (gzip ?? native).end();
      return response;
    }) as Response['end'];
    next();
  };
  const root = folder(t, { 'file.bin': FILE });
  const behind = await mounted(t, (app) => void app.use(compression).use(express.static(root)));
  const coded = await askCoded(behind.port, '/file.bin', { 'accept-encoding': 'gzip, peerdist' });
  t.equal(coded.headers['content-encoding'], 'gzip');
  t.equal(behind.seen.count('publication'), 0);
  await askCoded(behind.port, '/file.bin');
  await behind.seen.published();
  t.ok(await describes((await askCoded(behind.port, '/file.bin')).body, FILE));

  const before = await mounted(t, (app) => void app.use(express.static(root)), { before: compression });
  await askCoded(before.port, '/file.bin', { 'accept-encoding': 'gzip, peerdist' });
  await before.seen.published();
  const hashes = await askCoded(before.port, '/file.bin', { 'accept-encoding': 'gzip, peerdist' });
  t.equal(hashes.headers['content-encoding'], 'peerdist');
  t.ok(await describes(hashes.body, FILE));
});

t.test('two first requests at once: both get the body, and it is hashed once', async (t) => {
  const root = folder(t, { 'file.bin': LARGE });
  const { port, seen } = await mounted(t, (app) => void app.use(express.static(root)));
  const answers = await Promise.all([1, 2, 3].map(() => askCoded(port, '/file.bin')));
  for (const { body, complete } of answers) t.ok(complete && same(body, LARGE));
  await seen.published();
  t.ok(await describes((await askCoded(port, '/file.bin')).body, LARGE));
  t.equal(seen.count('publication', { result: 'completed' }), 1);
});

t.test('a client that leaves: the handler hears of it, and nothing is published', async (t) => {
  const left: string[] = [];
  const gate = new Gate();
  const { port, seen } = await mounted(t, (app) => {
    app.get('/never', (_request, response) => {
      response.on('close', () => left.push('before the head'));
      gate.open();
    });
    app.get('/body', (_request, response) => {
      response.setHeader('etag', '"one"').setHeader('content-length', LARGE.byteLength);
      const source = Readable.from([...Array(384).keys()].map((n) => LARGE.subarray(n * 65_536, (n + 1) * 65_536)));
      source.once('close', () => left.push('the source'));
      pipeline(source, response).catch((error: NodeJS.ErrnoException) => left.push(error.code ?? ''));
    });
  });
  const before = await begin(port, '/never', { fields: V2_REQUEST });
  await gate.passed;
  before.leave();
  await until(() => left.length === 1, 'the handler hears of a client that left before the head');
  const during = await begin(port, '/body', { fields: V2_REQUEST });
  await readAtLeast(during.body(await during.head()), 100_000);
  during.leave();
  await until(() => left.length === 3, 'the handler hears of a client that left in mid-body');
  t.strictSame(left.toSorted(), ['ERR_STREAM_PREMATURE_CLOSE', 'before the head', 'the source']);
  await until(() => seen.count('publication') > 0, 'the publication has come to an end');
  t.equal(seen.count('publication', { result: 'completed' }), 0);
  t.ok(same((await askCoded(port, '/body')).body, LARGE), 'the next one gets the body');
});

t.test('a handler that breaks off: the client sees it, and nothing is published', async (t) => {
  let arrived = new Gate();
  const { port, seen } = await bare(t, (request, response) => {
    response.setHeader('etag', '"one"');
    if (request.url === '/length') response.setHeader('content-length', FILE.byteLength);
    response.write(FILE.subarray(0, 200_000));
    void arrived.passed.then(() => response.destroy(new Error('on purpose')));
  });
  for (const target of ['/length', '/chunked']) {
    for (const fields of [V2_REQUEST, {}]) {
      arrived = new Gate();
      const connection = await begin(port, target, { fields });
      const body = connection.body(await connection.head());
      const got = await readAtLeast(body, 200_000);
      t.ok(same(got, FILE.subarray(0, 200_000)));
      arrived.open();
      t.ok((await inTime(body.next(), 'the end')).done);
      t.notOk(connection.complete, target);
    }
  }
  t.equal(seen.count('publication', { result: 'completed' }), 0);
  const none = await bare(t, (_request, response) => void response.destroy());
  await t.rejects(askCoded(none.port, '/'), 'no answer at all');
});

t.test('a client that does not read holds the handler back', async (t) => {
  let written = 0;
  let drained = 0;
  const { port, seen } = await bare(t, (_request, response) => {
    response.setHeader('etag', '"one"').setHeader('content-length', LARGE.byteLength);
    const write = (): void => {
      while (written < LARGE.byteLength) {
        const piece = LARGE.subarray(written, written + 65_536);
        written += piece.byteLength;
        if (!response.write(piece)) return;
      }
      response.end();
    };
    response.on('drain', () => {
      drained += 1;
      write();
    });
    write();
  });
  const slow = await begin(port, '/', { fields: V2_REQUEST });
  t.teardown(() => slow.close());
  const head = await slow.head();
  const body = slow.body(head);
  const pieces: Buffer[] = [];
  let read = 0;
  let ahead = 0;
  for await (const piece of body) {
    pieces.push(piece);
    read += piece.byteLength;
    ahead = Math.max(ahead, written - read);
  }
  t.ok(same(Buffer.concat(pieces), LARGE));
  // What the kernel takes at both ends is some megabytes.
  t.ok(ahead < LARGE.byteLength / 2, `${ahead} bytes are written that have not been read`);
  t.ok(drained > 0);
  await seen.published();
});

t.test('a client that leaves with the last byte, before the handler has come to its end', async (t) => {
  const { port, seen } = await bare(t, (_request, response) => {
    response.setHeader('etag', '"one"').setHeader('content-length', FILE.byteLength).write(FILE);
    response.on('close', () => response.end());
  });
  t.ok(same((await askCoded(port, '/')).body, FILE));
  await seen.published();
  const hashes = await begin(port, '/', { fields: V2_REQUEST });
  t.ok(await describes((await inTime(hashes.answer(), 'hashes')).body, FILE));
  hashes.close();
});

t.test('a handler finds its response as it left it', async (t) => {
  const seen: unknown[] = [];
  const { port } = await bare(t, (_request, response) => {
    t.notOk(response.headersSent);
    response.setHeader('etag', '"one"').writeHead(200);
    seen.push(response.headersSent, response.writableEnded, response.hasHeader('etag'));
    t.throws(() => response.setHeader('x', 'y'), { code: 'ERR_HTTP_HEADERS_SENT' });
    t.throws(() => response.writeHead(200), { code: 'ERR_HTTP_HEADERS_SENT' });
    t.throws(() => response.write({}), { code: 'ERR_INVALID_ARG_TYPE' });
    seen.push(response.write('small'), response.writableNeedDrain);
    seen.push(response.write(FILE), response.writableNeedDrain);
    response.once('drain', () => {
      response.end(() => seen.push(response.writableFinished));
      seen.push(
        response.writableEnded,
        response.write('late', () => {}),
      );
      response.on('error', () => {});
    });
  });
  for (const fields of [{}, V2_REQUEST]) {
    seen.length = 0;
    const { body } = await ask(port, '/', { fields });
    t.equal(body.byteLength, FILE.byteLength + 5);
    await until(() => seen.length === 10, 'the end has been told');
    t.strictSame(seen.slice(0, 8), [true, false, true, true, false, false, true, true]);
    t.strictSame(new Set(seen.slice(8)), new Set([false, true]));
  }
});

t.test('a handler that uses one buffer again and again', async (t) => {
  const { port, seen } = await bare(t, (_request, response) => {
    response.setHeader('etag', '"one"');
    const buffer = Buffer.alloc(10_000);
    const write = (at: number): void => {
      if (at === FILE.byteLength) return void response.end();
      buffer.set(FILE.subarray(at, at + buffer.byteLength));
      return void response.write(buffer, () => write(at + buffer.byteLength));
    };
    write(0);
  });
  t.ok(same((await askCoded(port, '/')).body, FILE));
  await seen.published();
  t.ok(await describes((await askCoded(port, '/')).body, FILE));
  t.ok(same((await ask(port, '/')).body, FILE));
});

t.test('replaced answers: what fed them is closed', async (t) => {
  const root = folder(t, { 'file.bin': LARGE });
  let open = 0;
  const { port, seen } = await bare(t, (_request, response) => {
    // A handler without conditions: it always sends everything.
    response.setHeader('etag', '"one"').setHeader('content-length', LARGE.byteLength);
    const source = createReadStream(join(root, 'file.bin'));
    open += 1;
    source.once('close', () => (open -= 1));
    source.pipe(response);
  });
  t.ok(same((await askCoded(port, '/')).body, LARGE));
  await seen.published();
  t.ok(await describes((await askCoded(port, '/')).body, LARGE));
  await until(() => open === 0, 'the file is closed');
});

t.test('stores that fail cost nobody an answer', async (t) => {
  const broken = (): never => {
    throw new Error('the store is gone');
  };
  const rejecting = (): Promise<never> => Promise.reject(new Error('the store is gone'));
  const root = folder(t, { 'file.bin': FILE });
  const stores: PublishingOptions[] = [
    { contentInformationStore: { get: rejecting, set: rejecting, delete: rejecting, bytes: 0 } },
    { records: { get: rejecting, set: rejecting, delete: rejecting, bytes: 0 } },
    { records: { get: broken, set: broken, delete: broken, bytes: 0 } },
  ];
  for (const options of stores) {
    const { port } = await mounted(t, (app) => void app.use(express.static(root)), options);
    for (let n = 0; n < 3; n += 1) {
      const { body, headers } = await askCoded(port, '/file.bin');
      t.ok(headers['content-encoding'] === 'peerdist' ? await describes(body, FILE) : same(body, FILE));
    }
  }
});

t.test('options: closed, and one instance for all', async (t) => {
  t.throws(() => connect({ minByte: 1 } as PublishingOptions), {
    code: 'ERR_PEERDIST_INVALID_OPTION',
    message: /no option minByte; did you mean minBytes\?/,
  });
  t.throws(() => connect({ maxBytes: -1 }), { code: 'ERR_PEERDIST_INVALID_OPTION' });
  await using peerdist = await PeerDist.open();
  const serverSecret = ServerSecret.fromText('secret');
  t.throws(() => connect({ peerdist, serverSecret }), { message: /either peerdist or serverSecret/ });

  const root = folder(t, { 'file.bin': FILE, 'small.txt': 'small' });
  const inner = connect({ minBytes: 1 });
  t.teardown(() => inner.close());
  const outer = await mounted(t, (app) => void app.use(inner).use(express.static(root)), {
    minBytes: 1,
    maxBytes: 1000,
  });
  await askCoded(outer.port, '/file.bin');
  await askCoded(outer.port, '/small.txt');
  await outer.seen.published();
  const { body } = await askCoded(outer.port, '/small.txt');
  t.ok(await describes(body, Buffer.from('small')));
  t.ok(same((await askCoded(outer.port, '/file.bin')).body, FILE), 'too large, and the inner one leaves it alone');
  await outer.middleware.close();
  await outer.middleware.close();
  t.equal((await askCoded(outer.port, '/small.txt')).body.toString(), 'small', 'closed, it only passes');
});
