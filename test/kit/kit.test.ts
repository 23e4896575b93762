/** The plug-in contract: what a plug-in may count on, and what the client may count on whatever a plug-in does. */
import { EventEmitter, once } from 'node:events';
import { PassThrough, Readable, Transform } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import t from 'tap';
import {
  definePlugin,
  Kit,
  type Next,
  type Plugin,
  ProxyRequest,
  type ProxyRequestParts,
  ProxyResponse,
} from '../../lib/kit/index.ts';
import type { Observation } from '../../lib/observer.ts';
import type { HttpProxyHostOptions } from '../../plugins/http-proxy/index.ts';
import {
  RecordingOrigin,
  type RecordingOriginOptions,
  type Scope,
  type SeenRequest,
  startHost,
  type TestHost,
  values,
  within,
} from '../support/net.ts';
import { failureOf } from '../support/turns.ts';

const GET = 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n';
const POST = 'POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello';

function requestOf(parts: Partial<ProxyRequestParts> = {}): ProxyRequest {
  return new ProxyRequest({
    method: 'GET',
    scheme: 'http',
    authority: 'a.test',
    target: '/x',
    headers: {},
    body: null,
    client: { address: '127.0.0.1', httpVersion: '1.1' },
    signal: new AbortController().signal,
    ...parts,
  });
}

function names(plugins: readonly Plugin[]): string {
  return new Kit({ plugins }).plugins.map(({ name }) => name).join(' ');
}

/** A plug-in that leaves its name in a field of the request and one of the response, so that skipping it would show. */
function stamp(name: string): Plugin {
  return {
    name,
    async handle(request, next) {
      const response = await next(request.with({ headers: { ...request.headers, [`x-${name}`]: '1' } }));
      return response.with({ headers: { ...response.headers, [`x-${name}`]: '1' } });
    },
  };
}

function failuresIn(observations: readonly Observation[]): string[] {
  return observations.flatMap((observation) =>
    observation.type === 'plugin_failure' ? [`${observation.plugin}: ${String(observation.error)}`] : [],
  );
}

interface Chain {
  readonly origin: RecordingOrigin;
  readonly proxy: TestHost;
  /** `plug-in: error`, as they were observed. */
  readonly failures: () => string[];
}

/** A real host with plug-ins before a recording origin. */
async function start(
  scope: Scope,
  plugins: readonly Plugin[],
  origin: RecordingOriginOptions = {},
  options: Partial<HttpProxyHostOptions> = {},
): Promise<Chain> {
  const observations: Observation[] = [];
  const kit = new Kit({ plugins, observer: (observation) => observations.push(observation) });
  const recording = await RecordingOrigin.listen(scope, origin);
  const proxy = await startHost(scope, { origin: recording.url, kit, ...options });
  return { origin: recording, proxy, failures: () => failuresIn(observations) };
}

function closed(stream: { readonly destroyed: boolean }): Promise<unknown> {
  return stream.destroyed ? Promise.resolve() : within(once(stream as Readable, 'close'), 'the end of a stream');
}

await t.test('order', async (test) => {
  test.equal(names([{ name: 'a' }, { name: 'b' }, { name: 'c' }]), 'a b c', 'as given');
  test.equal(names([{ name: 'a' }, { name: 'b', before: ['a'] }]), 'b a');
  test.equal(names([{ name: 'a', after: ['b'] }, { name: 'b' }]), 'b a');
  test.equal(
    names([{ name: 'a', after: ['c'] }, { name: 'b' }, { name: 'c', after: ['b'] }]),
    'b c a',
    'through others',
  );
  test.equal(names([{ name: 'a' }, { name: 'b' }, { name: 'c', before: ['a', 'b'] }]), 'c a b');
  test.equal(
    names([
      { name: 'a', before: ['b'], after: ['gone'] },
      { name: 'b', before: ['gone'] },
    ]),
    'a b',
    'absent ones',
  );
  test.equal(names([]), '');
  test.equal(
    names([{ name: 'a', requires: ['b'] }, { name: 'b' }]),
    'a b',
    'a requirement says nothing about the order',
  );

  const misfit = { code: 'ERR_PEERDIST_PLUGIN' };
  const circles: readonly (readonly Plugin[])[] = [
    [
      { name: 'a', before: ['b'] },
      { name: 'b', before: ['a'] },
    ],
    [{ name: 'a', before: ['b'], after: ['b'] }, { name: 'b' }],
    [
      { name: 'a', before: ['b'] },
      { name: 'b', before: ['c'] },
      { name: 'c', before: ['a'] },
    ],
    [{ name: 'a', after: ['a'] }],
  ];
  for (const plugins of circles) test.throws(() => new Kit({ plugins }), misfit, 'a circle');
  test.throws(() => new Kit({ plugins: [{ name: 'a', requires: ['b'] }] }), { ...misfit, message: /a requires b/ });
  test.throws(() => new Kit({ plugins: [{ name: 'a' }, { name: 'a' }] }), { ...misfit, message: /same name/ });

  const plugin = { name: 'throttle-2' };
  test.equal(definePlugin(plugin), plugin);
  for (const name of ['', 'Throttle', '2x', 'a b', 'a_b', '-a', 'ä'])
    test.throws(() => definePlugin({ name }), misfit, JSON.stringify(name));
});

await t.test('requests and responses', async (test) => {
  await test.test('a request is copied, never changed', async (inner) => {
    let made = 0;
    const controller = new AbortController();
    const request = requestOf({
      target: '/a//b?c=%zz',
      signal: () => {
        made += 1;
        return controller.signal;
      },
    });
    inner.equal(request.key, 'http://a.test/a//b?c=%zz');
    inner.equal(made, 0, 'no signal before somebody looks');
    const copy = request.with({ method: 'HEAD', headers: { a: 'b' } });
    inner.match(copy, { method: 'HEAD', headers: { a: 'b' }, target: '/a//b?c=%zz', client: request.client });
    inner.match(request, { method: 'GET', headers: {} });
    inner.equal(request.signal, controller.signal);
    inner.equal(request.signal, controller.signal);
    inner.equal(made, 1);
    inner.equal(request.with({}).signal, controller.signal);
    inner.equal(copy.signal, controller.signal);
  });

  await test.test('a response is copied, never changed', async (inner) => {
    const response = ProxyResponse.text(404, 'not here', { 'x-a': '1' });
    inner.match(response, { status: 404, headers: { 'content-length': '9', 'x-a': '1' }, transforms: [] });
    inner.match(response.with({ status: 410 }), { status: 410, headers: { 'x-a': '1' } });
    const transform = new PassThrough();
    const longer = response.through(transform);
    inner.strictSame([response.transforms.length, longer.transforms.length], [0, 1]);
    inner.equal((await buffer(longer.stream())).toString(), 'not here\n');
    inner.equal((await buffer(response.stream())).toString(), 'not here\n');
    const none = new PassThrough();
    const empty = new ProxyResponse({ status: 204, headers: {}, body: null });
    inner.equal(empty.through(none), empty);
    inner.ok(none.destroyed, 'there is nothing to transform');
    inner.equal((await buffer(empty.stream())).byteLength, 0);
  });

  await test.test('discarding gives everything up', async (inner) => {
    const body = new PassThrough();
    const transform = new PassThrough();
    const response = new ProxyResponse({ status: 200, headers: {}, body }).through(transform);
    inner.ok(response.isUntouched);
    response.discard();
    inner.ok(body.destroyed && transform.destroyed);
    inner.notOk(response.isUntouched);
    const read = new ProxyResponse({ status: 200, headers: {}, body: Readable.from([Buffer.from('a')]) });
    await buffer(read.stream());
    inner.notOk(read.isUntouched);
    inner.ok(ProxyResponse.text(200, 'a').isUntouched);
  });

  await test.test('an error in the middle of transforms reaches who reads them', async (inner) => {
    const failing = new Transform({ transform: (_chunk, _encoding, callback) => callback(new Error('in the middle')) });
    const body = new PassThrough();
    const response = new ProxyResponse({ status: 200, headers: {}, body })
      .through(new PassThrough())
      .through(failing)
      .through(new PassThrough());
    body.write('a');
    inner.match(await failureOf(buffer(response.stream())), { message: 'in the middle' });
    inner.ok(body.destroyed && response.transforms.every((transform) => transform.destroyed));
  });
});

await t.test('what a plug-in may do', async (test) => {
  await test.test('see the request, then the head before any body byte', async (inner) => {
    const events: string[] = [];
    const seen = new EventEmitter();
    const { proxy } = await start(
      inner,
      [
        {
          name: 'watcher',
          async handle(request, next) {
            events.push(`request ${request.method} ${request.target} ${String(request.headers['x-a'])}`);
            const response = await next(request);
            events.push(
              `head ${response.status} ${String(response.headers['x-b'])}, untouched: ${response.isUntouched}`,
            );
            seen.emit('head');
            return response;
          },
        },
      ],
      {
        answer: (_request, socket) => {
          socket.write('HTTP/1.1 201 Made\r\nX-B: 2\r\nContent-Length: 4\r\n\r\n');
          seen.once('head', () => {
            events.push('body');
            socket.write('body');
          });
        },
      },
    );
    const client = await proxy.client();
    client.send('GET /a//b?c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n');
    inner.match(await client.response(), { status: 201, reason: 'Made', body: 'body', complete: true });
    inner.strictSame(events, ['request GET /a//b?c 1', 'head 201 2, untouched: true', 'body']);
  });

  await test.test('answer by itself', async (inner) => {
    const { origin, proxy, failures } = await start(inner, [
      stamp('outer'),
      {
        name: 'answerer',
        handle: ({ target }) =>
          target === '/pieces'
            ? new ProxyResponse({ status: 203, headers: {}, body: [Buffer.from('pie'), Buffer.from('ces')] })
            : target === '/stream'
              ? new ProxyResponse({ status: 200, headers: {}, body: Readable.from([Buffer.from('stream')]) })
              : ProxyResponse.text(418, 'no coffee'),
      },
      stamp('inner'),
    ]);
    const client = await proxy.client();
    const text = await client.send(GET).response();
    inner.match(text, { status: 418, body: 'no coffee\n', complete: true });
    inner.strictSame([values(text.fields, 'x-outer'), values(text.fields, 'x-inner')], [['1'], []]);
    client.send('GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n');
    const pieces = await client.response();
    inner.match(pieces, { status: 203, body: 'pieces', complete: true });
    inner.strictSame(values(pieces.fields, 'content-length'), ['6']);
    client.send('GET /stream HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await client.response(), { status: 200, body: 'stream', complete: true });
    client.send('HEAD /pieces HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await client.response('HEAD'), { status: 203, complete: true });
    // The body of a request nobody read is not the next request.
    client.send(POST + GET);
    inner.match(await client.response(), { status: 418 });
    inner.match(await client.response(), { status: 418 });
    inner.equal(origin.requests.length, 0);
    inner.strictSame(failures(), []);
  });

  await test.test('change the request and the head', async (inner) => {
    const { origin, proxy } = await start(inner, [
      {
        name: 'changer',
        async handle(request, next) {
          const changed = request.with({ target: '/other', headers: { ...request.headers, 'x-more': '1' } });
          const response = await next(changed);
          return response.with({ status: 202, statusText: 'Changed', headers: { ...response.headers, 'x-new': '2' } });
        },
      },
      stamp('inner'),
    ]);
    const client = await proxy.client();
    const response = await client.send(POST).response();
    inner.match(response, { status: 202, reason: 'Changed', body: 'ok', complete: true });
    inner.strictSame([values(response.fields, 'x-new'), values(response.fields, 'x-inner')], [['2'], ['1']]);
    const seen = await origin.whole(1);
    inner.match(seen, { target: '/other', body: 'hello' });
    inner.strictSame([values(seen.fields, 'x-more'), values(seen.fields, 'x-inner')], [['1'], ['1']]);
  });

  await test.test('add Transforms, the nearest to the origin first', async (inner) => {
    const suffix = (name: string): Plugin => ({
      name,
      async handle(request, next) {
        const response = await next(request);
        const headers = { ...response.headers };
        delete headers['content-length'];
        return response.with({ headers }).through(
          new Transform({
            transform: (chunk, _encoding, callback) => callback(null, chunk),
            flush(callback) {
              callback(null, name);
            },
          }),
        );
      },
    });
    const pieces: Plugin = {
      name: 'pieces',
      handle: (request, next) =>
        request.target === '/pieces'
          ? new ProxyResponse({ status: 200, headers: {}, body: [Buffer.from('p1'), Buffer.from('p2')] })
          : next(request),
    };
    const { proxy } = await start(inner, [suffix('a'), suffix('b'), suffix('c'), pieces]);
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { body: 'okcba', complete: true });
    client.send('GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await client.response(), { body: 'p1p2cba', complete: true }, 'behind bytes in memory too');
    client.send('HEAD /pieces HTTP/1.1\r\nHost: a\r\n\r\n');
    inner.match(await client.response('HEAD'), { status: 200, complete: true });
  });

  await test.test('ask several times, or after a failure', async (inner) => {
    const { origin, proxy, failures } = await start(
      inner,
      [
        {
          name: 'asker',
          async handle(request, next) {
            const first = await next(request.with({ target: '/first' }));
            first.discard();
            try {
              await next(request.with({ target: '/broken' }));
            } catch {
              return next(request.with({ target: '/last' }));
            }
            return first;
          },
        },
      ],
      {
        answer: (request, socket) =>
          request.target === '/broken' ? socket.end() : socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
      },
    );
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, body: 'ok' });
    inner.strictSame([...new Set(origin.requests.map(({ target }) => target))], ['/first', '/broken', '/last']);
    inner.strictSame(failures(), []);
  });

  await test.test('do nothing', async (inner) => {
    const { proxy } = await start(inner, [
      { name: 'idle' },
      { name: 'passer', handle: (request, next) => next(request) },
    ]);
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, body: 'ok' });
  });
});

await t.test('a plug-in that throws is observed and skipped', async (test) => {
  const cases: readonly (readonly [string, NonNullable<Plugin['handle']>])[] = [
    [
      'at once',
      () => {
        throw new Error('broken');
      },
    ],
    ['in a promise', () => Promise.reject(new Error('broken'))],
    [
      'after the head',
      async (request, next) => {
        await next(request);
        throw new Error('broken');
      },
    ],
    [
      'after adding a Transform and a field',
      async (request, next) => {
        const response = await next(request);
        response.through(new PassThrough()).with({ headers: { 'x-broken': '1' } });
        throw new Error('broken');
      },
    ],
    [
      'after asking twice',
      async (request, next) => {
        await next(request);
        await next(request.with({ body: null, headers: {} }));
        throw new Error('broken');
      },
    ],
  ];
  for (const [name, handle] of cases) {
    for (const message of [GET, POST]) {
      await test.test(`${name}, ${message.slice(0, 4)}`, async (inner) => {
        const { origin, proxy, failures } = await start(inner, [
          stamp('outer'),
          { name: 'bad', handle },
          stamp('inner'),
        ]);
        const client = await proxy.client();
        const response = await client.send(message).response();
        inner.match(response, { status: 200, body: 'ok', complete: true });
        inner.strictSame(
          ['x-outer', 'x-inner', 'x-broken'].map((field) => values(response.fields, field)),
          [['1'], ['1'], []],
          'the others did their work',
        );
        inner.strictSame(failures(), ['bad: Error: broken']);
        const seen = await origin.whole(1);
        inner.equal(seen.body, message === POST ? 'hello' : '');
        inner.strictSame([values(seen.fields, 'x-outer'), values(seen.fields, 'x-inner')], [['1'], ['1']]);
        inner.match(await client.send(GET).response(), { status: 200 }, 'and the connection goes on');
      });
    }
  }

  await test.test('every time, and several of them', async (inner) => {
    const bad = (name: string): Plugin => ({
      name,
      handle() {
        throw new Error('broken');
      },
    });
    const { proxy, failures } = await start(inner, [bad('first'), stamp('good'), bad('second')]);
    const client = await proxy.client();
    for (const _ of [1, 2]) inner.match(await client.send(GET).response(), { status: 200, body: 'ok' });
    inner.strictSame(
      failures(),
      ['first', 'second', 'first', 'second'].map((name) => `${name}: Error: broken`),
    );
  });

  await test.test('one that forgets to return an answer', async (inner) => {
    const forgetful = { name: 'forgetful', handle: async () => undefined } as unknown as Plugin;
    const { proxy, failures } = await start(inner, [forgetful]);
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, body: 'ok' });
    inner.equal(failures().length, 1);
  });

  const wasteful: readonly (readonly [string, NonNullable<Plugin['handle']>])[] = [
    [
      'that came after the first',
      async (request, next) => {
        await next(request);
        await next(request.with({ target: '/second' }));
        throw new Error('broken');
      },
    ],
    [
      'that were not waited for',
      async (request, next) => {
        void next(request.with({ target: '/second' })).catch(() => {});
        throw new Error('broken');
      },
    ],
  ];
  for (const [name, handle] of wasteful) {
    await test.test(`answers nobody is going to read are given up: those ${name}`, async (inner) => {
      const { origin, proxy, failures } = await start(inner, [{ name: 'bad', handle }], {
        // Too much for any buffer on the way.
        answer: ({ target }, socket) => {
          const bytes = target === '/second' ? 64 * 1024 * 1024 : 2;
          socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`);
          socket.write(Buffer.alloc(bytes, 'a'));
        },
      });
      const client = await proxy.client();
      inner.match(await client.send(GET).response(), { status: 200, body: 'aa', complete: true });
      inner.equal(failures().length, 1);
      await origin.request(2);
      await closed((origin.requests.find(({ target }) => target === '/second') as SeenRequest).socket);
    });
  }
});

await t.test('errors of next are nobody’s failure', async (test) => {
  const { proxy, failures } = await start(
    test,
    [stamp('a'), { name: 'passer', handle: (request, next) => next(request) }, stamp('b')],
    { answer: (_request, socket) => socket.end() },
  );
  const client = await proxy.client();
  test.match(await client.send(GET).response(), { status: 502, complete: true });
  test.strictSame(failures(), []);

  const failing: Next = () => Promise.reject(new Error('of the origin'));
  const observations: Observation[] = [];
  const kit = new Kit({
    plugins: [stamp('a'), stamp('b')],
    observer: (observation) => observations.push(observation),
  });
  test.match(await failureOf(kit.through(failing)(requestOf())), { message: 'of the origin' });
  test.strictSame(observations, []);

  const controller = new AbortController();
  const late: Plugin = {
    name: 'late',
    handle(_request) {
      controller.abort();
      throw new Error('because the client left');
    },
  };
  const leaving = new Kit({ plugins: [late], observer: (observation) => observations.push(observation) });
  const failure = await failureOf(leaving.through(failing)(requestOf({ signal: controller.signal })));
  test.match(failure, { message: /client left/ });
  test.strictSame(observations, [], 'nor is what follows from the client’s leaving');
});

await t.test('a plug-in that was answering breaks the connection', async (test) => {
  const half = (error: Error): Readable => {
    let pieces = 0;
    return new Readable({
      read() {
        pieces += 1;
        if (pieces === 1) this.push('half');
        else this.destroy(error);
      },
    });
  };

  await test.test('with its own body', async (inner) => {
    const { proxy } = await start(inner, [
      { name: 'own', handle: () => new ProxyResponse({ status: 200, headers: {}, body: half(new Error('broken')) }) },
    ]);
    const client = await proxy.client();
    const response = await client.send(GET).response();
    inner.notOk(response.complete, 'the client sees it');
    await within(client.closed, 'the end of the client connection');
    const after = await proxy.client();
    inner.notOk((await after.send(GET).response()).complete, 'the process lives');
  });

  await test.test('with a Transform', async (inner) => {
    const { origin, proxy } = await start(
      inner,
      [
        {
          name: 'transformer',
          async handle(request, next) {
            let chunks = 0;
            return (await next(request)).through(
              new Transform({
                transform(chunk, _encoding, callback) {
                  chunks += 1;
                  callback(chunks === 1 ? null : new Error('broken'), chunk);
                },
              }),
            );
          },
        },
        stamp('inner'),
      ],
      {
        answer: (_request, socket) => {
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n');
          const drip = setInterval(() => socket.write('drip'), 5);
          socket.once('close', () => clearInterval(drip));
        },
      },
    );
    const client = await proxy.client();
    inner.match(await client.send(GET).response(), { status: 200, complete: false });
    await closed((await origin.request(1)).socket);
  });

  await test.test('after it had begun to read the origin’s body', async (inner) => {
    const { origin, proxy, failures } = await start(
      inner,
      [
        {
          name: 'reader',
          async handle(request, next) {
            const { body } = await next(request);
            await once(body as Readable, 'readable');
            (body as Readable).read(10);
            throw new Error('broken');
          },
        },
      ],
      {
        answer: (_request, socket) => {
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n');
          socket.write(Buffer.alloc(64 * 1024 * 1024));
        },
      },
    );
    const client = await proxy.client();
    const response = await client.send(GET).response();
    inner.ok(response.status === 502 || !response.complete, 'half a body is no answer');
    inner.equal(failures().length, 1);
    await closed((await origin.request(1)).socket);
  });

  await test.test('after it had begun to read the client’s body', async (inner) => {
    const { origin, proxy, failures } = await start(inner, [
      {
        name: 'reader',
        async handle(request) {
          await once(request.body as Readable, 'readable');
          request.body?.read();
          throw new Error('broken');
        },
      },
    ]);
    const client = await proxy.client();
    const response = await client.send(POST).response();
    inner.ok(response.status === 502 || !response.complete);
    inner.equal(failures().length, 1);
    inner.equal(origin.requests.length, 0, 'half a request goes nowhere');
  });
});

await t.test('a kit’s life', async (test) => {
  const log: string[] = [];
  const living = (name: string, parts: Partial<Plugin> = {}): Plugin => ({
    name,
    start(signal) {
      log.push(`start ${name}`);
      signal.addEventListener('abort', () => log.push(`signal ${name}`));
    },
    async stop() {
      await Promise.resolve();
      log.push(`stop ${name}`);
    },
    ...parts,
  });
  const observations: Observation[] = [];
  const observer = (observation: Observation): void => void observations.push(observation);

  const kit = new Kit({ plugins: [living('a'), { name: 'none' }, living('b'), living('c')], observer });
  await kit.start();
  test.strictSame(log.splice(0), ['start c', 'start b', 'start a'], 'from the origin outwards');
  await kit.stop();
  test.strictSame(
    log.splice(0),
    ['signal c', 'signal b', 'signal a', 'stop a', 'stop b', 'stop c'],
    'the signal first, then the opposite order',
  );
  await kit.stop();
  test.strictSame(log.splice(0), [], 'once');

  const failing = living('b', {
    start() {
      throw new Error('no port');
    },
  });
  const broken = new Kit({ plugins: [living('a'), failing, living('c')], observer });
  test.match(await failureOf(broken.start()), { message: 'no port' });
  test.strictSame(log.splice(0), ['start c', 'signal c', 'stop c'], 'only what ran is stopped');
  await broken.stop();
  test.strictSame(log.splice(0), []);

  const slow = living('b', { start: () => Promise.reject(new Error('later')) });
  test.match(await failureOf(new Kit({ plugins: [slow], observer }).start()), { message: 'later' });
  test.strictSame(observations, [], 'the caller knows');

  const stubborn = living('b', {
    stop() {
      throw new Error('stuck');
    },
  });
  const stuck = new Kit({ plugins: [living('a'), stubborn, living('c')], observer });
  await stuck.start();
  log.splice(0);
  await stuck.stop();
  test.strictSame(
    log.filter((line) => line.startsWith('stop')),
    ['stop a', 'stop c'],
    'one that cannot stop keeps nobody else from it',
  );
  test.strictSame(failuresIn(observations), ['b: Error: stuck']);

  log.splice(0);
  const twice = new Kit({ plugins: [living('a'), living('b')] });
  await twice.start();
  log.splice(0);
  await Promise.all([twice.stop(), twice.stop()]);
  test.strictSame(
    log.filter((line) => line.startsWith('stop')),
    ['stop a', 'stop b'],
    'stopped twice at once: still once',
  );
});

await t.test('pressure and abort reach through ten Transforms', async (test) => {
  const tenOf = (make: () => Transform): { plugins: Plugin[]; made: Transform[] } => {
    const made: Transform[] = [];
    const plugins = Array.from({ length: 10 }, (_, index): Plugin => ({
      name: `pass-${index}`,
      async handle(request, next) {
        const response = await next(request);
        const transform = make();
        made.push(transform);
        return response.through(transform);
      },
    }));
    return { plugins, made };
  };
  const passing = (): Transform => new Transform({ transform: (chunk, _encoding, callback) => callback(null, chunk) });

  await test.test('a client that leaves mid-body', async (inner) => {
    const { plugins, made } = tenOf(passing);
    const { origin, proxy } = await start(inner, plugins, {
      answer: (_request, socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst'),
    });
    const client = await proxy.client();
    client.send(GET);
    await client.until('first');
    client.socket.destroy();
    await closed((await origin.request(1)).socket);
    await Promise.all(made.map((transform) => closed(transform)));
    inner.equal(made.length, 10);
  });

  await test.test('a client that leaves before the head', async (inner) => {
    const { plugins, made } = tenOf(passing);
    const { origin, proxy, failures } = await start(inner, plugins, { answer: () => {} });
    const client = await proxy.client();
    client.send(GET);
    const seen = await origin.whole(1);
    client.socket.destroy();
    await closed(seen.socket);
    inner.equal(made.length, 0);
    inner.strictSame(failures(), []);
  });

  await test.test('an origin that breaks off mid-body', async (inner) => {
    const { plugins, made } = tenOf(passing);
    const { proxy, failures } = await start(inner, plugins, {
      answer: (_request, socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'),
    });
    const client = await proxy.client();
    inner.notOk((await client.send(GET).response()).complete, 'the client sees it');
    await Promise.all(made.map((transform) => closed(transform)));
    inner.strictSame(failures(), []);
  });

  await test.test('a slow client', async (inner) => {
    const piece = Buffer.alloc(64 * 1024);
    const total = 1024 * piece.byteLength;
    const { plugins } = tenOf(passing);
    let read = 0;
    const counter: Plugin = {
      name: 'counter',
      async handle(request, next) {
        const response = await next(request);
        if (request.target !== '/x') return response;
        return response.through(
          new Transform({
            transform(chunk: Buffer, _encoding, callback) {
              read += chunk.byteLength;
              callback(null, chunk);
            },
          }),
        );
      },
    };
    const { proxy } = await start(inner, [...plugins, counter], {
      answer: ({ target }, socket) => {
        const bytes = target === '/x' ? total : 8 * 1024 * 1024;
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${bytes}\r\n\r\n`);
        let left = bytes;
        const more = (): void => {
          while (left > 0) {
            left -= piece.byteLength;
            if (!socket.write(piece)) break;
          }
          if (left > 0) socket.once('drain', more);
        };
        more();
      },
    });
    const slow = await proxy.client();
    slow.socket.removeAllListeners('data');
    slow.socket.pause();
    slow.send(GET);
    // Another client's downloads are the clock: whatever could move in the meantime has moved.
    const brisk = await proxy.client();
    brisk.socket.removeAllListeners('data');
    let received = 0;
    const download = async (): Promise<void> => {
      received = 0;
      const done = new Promise<void>((resolve) => {
        brisk.socket.on('data', (chunk: Buffer) => {
          received += chunk.byteLength;
          if (received >= 8 * 1024 * 1024) resolve();
        });
      });
      brisk.send('GET /clock HTTP/1.1\r\nHost: a\r\n\r\n');
      await within(done, 'the download of the other client');
      brisk.socket.removeAllListeners('data');
    };
    await download();
    await download();
    const paused = read;
    await download();
    inner.ok(paused > 0, 'it has begun');
    inner.equal(read, paused, 'nothing more is read');
    // Socket buffers on the way to the client may take some megabytes.
    inner.ok(paused < total / 2, `${paused} of ${total} bytes read`);
    let arrived = 0;
    const all = new Promise<void>((resolve) => {
      slow.socket.on('data', (chunk: Buffer) => {
        arrived += chunk.byteLength;
        if (arrived >= total) resolve();
      });
    });
    slow.socket.resume();
    await within(all, 'the rest', 10_000);
    inner.equal(read, total, 'then everything comes');
  });
});
