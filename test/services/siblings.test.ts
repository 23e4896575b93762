/** What the branch proxies of a site tell each other, over real sockets: honest siblings, strangers, liars, and those who say nothing. */
import {
  createServer,
  type IncomingMessage,
  request as httpRequest,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Observation } from '../../lib/observer.ts';
import { encodeContentInformation, ServerSecret } from '../../lib/protocol/pccrc/index.ts';
import type { PeerAddress } from '../../lib/protocol/pccrd/index.ts';
import {
  createLanHttpServer,
  type Holder,
  MAX_SIBLINGS,
  type PeerFinder,
  siteBeacon,
  SiblingDirectory,
  type SiblingDirectoryOptions,
  type SiblingEntry,
  type SiblingLookup,
} from '../../lib/services/index.ts';
import {
  decodeAnswer,
  decodeQuestion,
  encodeAnswer,
  encodeQuestion,
  MAX_ANSWER_BYTES,
  MAX_QUESTION_BYTES,
  SIBLING_PATH,
} from '../../lib/services/siblings/messages.ts';
import { answerPlace, QUESTION_PLACE, siteSealer } from '../../lib/services/siblings/site.ts';
import { describe } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Gate, inTime, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

const SITE = ServerSecret.fromText('the secret of the site');
const OTHER = ServerSecret.fromText('the secret of another site');
const BODY = seededBytes(31, 200_000);
const ENTRY: SiblingEntry = {
  head: { etag: '"a"', 'content-type': 'text/plain', link: ['<a>', '<b>'] },
  length: BODY.byteLength,
  contentInformation: encodeContentInformation(describe(1, BODY)),
};
const QUESTION = { key: 'http://origin.example/file?v=1', headers: { 'accept-encoding': 'gzip, br' } };
const forever = new AbortController().signal;

interface Node {
  readonly directory: SiblingDirectory;
  readonly address: PeerAddress;
  readonly seen: Observation[];
  readonly clock: ManualClock;
  readonly results: (type: 'sibling_question' | 'sibling_answer') => string[];
}

async function listen(test: Test, server: Server): Promise<PeerAddress> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return { address: '127.0.0.1', port: (server.address() as AddressInfo).port };
}

/** A sibling that knows what `lookup` says. */
async function sibling(
  test: Test,
  { lookup, ...options }: Partial<SiblingDirectoryOptions> & { readonly lookup?: SiblingLookup } = {},
): Promise<Node> {
  const seen: Observation[] = [];
  const clock = new ManualClock();
  const directory = new SiblingDirectory({ secret: SITE, observer: (each) => seen.push(each), clock, ...options });
  if (lookup !== undefined) directory.answerWith(lookup);
  test.teardown(() => directory.close());
  const address = await listen(test, createLanHttpServer([directory]));
  const results: Node['results'] = (type) =>
    seen.flatMap((each) => (each.type === type ? [(each as { result: string }).result] : []));
  return { directory, address, seen, clock, results };
}

/** A server of a stranger, or of somebody worse. */
function fake(
  test: Test,
  answer: (body: Buffer, response: ServerResponse, request: IncomingMessage) => void,
): Promise<PeerAddress> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    answer(Buffer.concat(chunks), response, request);
  });
  return listen(test, server);
}

interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** What a server answers to a message; undefined when it breaks off. */
function send(to: PeerAddress, message: Uint8Array, path = SIBLING_PATH): Promise<Reply | undefined> {
  return new Promise((resolve) => {
    const request = httpRequest({ host: to.address, port: to.port, method: 'POST', path }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', () => resolve(undefined));
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    request.on('error', () => resolve(undefined));
    request.end(message);
  });
}

const ask = (node: Node, signal = forever): Promise<SiblingEntry | undefined> =>
  inTime(node.directory.find(QUESTION, signal), 'what siblings know');

// --- Among siblings ------------------------------------------------------------------------------------------------------------------

await t.test('who has the secret is told, and asked exactly that', async (test) => {
  const asked: unknown[] = [];
  const none = await sibling(test);
  const has = await sibling(test, {
    lookup: async (question) => {
      asked.push(question);
      return question.key === QUESTION.key ? ENTRY : undefined;
    },
  });
  const asks = await sibling(test, { siblings: [none.address, has.address] });
  for (const round of [1, 2]) {
    const entry = await ask(asks);
    test.same([entry?.head, entry?.length], [ENTRY.head, ENTRY.length], `question ${round}`);
    test.ok(Buffer.from(entry?.contentInformation ?? []).equals(ENTRY.contentInformation));
  }
  test.match(asked[0], QUESTION);
  test.same(has.results('sibling_answer'), ['found', 'found']);
  test.equal(await asks.directory.find({ key: 'http://origin.example/', headers: {} }, forever), undefined);
  test.same(asks.results('sibling_question').filter((result) => result === 'found').length, 2);
});

await t.test('without siblings nobody waits, and a question that is too long is none', async (test) => {
  const alone = await sibling(test);
  test.equal(await ask(alone), undefined);
  const { address } = alone;
  const asks = await sibling(test, { siblings: [address] });
  const long = { key: `http://origin.example/${'x'.repeat(MAX_QUESTION_BYTES)}`, headers: {} };
  test.equal(await asks.directory.find(long, forever), undefined);
  test.same(asks.results('sibling_question'), []);
});

await t.test('nothing of a question or an answer can be read on the way', async (test) => {
  const messages: Buffer[] = [];
  const has = await sibling(test, { lookup: async () => ENTRY });
  const between = await fake(test, async (body, response) => {
    const reply = await send(has.address, body);
    messages.push(body, reply?.body ?? Buffer.alloc(0));
    response.end(reply?.body);
  });
  const asks = await sibling(test, { siblings: [between] });
  test.match(await ask(asks), { head: ENTRY.head });
  for (const message of messages)
    for (const word of ['origin.example', 'gzip', 'etag', 'text/plain'])
      test.notOk(message.includes(word), `${word} in a message of ${message.byteLength} bytes`);
  test.notOk(messages[1]?.includes(Buffer.from(ENTRY.contentInformation).subarray(-32)));
});

// --- Strangers -----------------------------------------------------------------------------------------------------------------------

await t.test('another secret: a stranger learns what any path says, and is left alone', async (test) => {
  let lookups = 0;
  const has = await sibling(test, {
    lookup: async () => {
      lookups += 1;
      return ENTRY;
    },
  });
  const stranger = await sibling(test, { secret: OTHER, siblings: [has.address] });
  test.equal(await ask(stranger), undefined);
  test.same([has.results('sibling_answer'), stranger.results('sibling_question')], [['refused'], ['failed']]);
  const nonce = new Uint8Array(16).fill(7);
  const refused = [
    siteSealer(OTHER).seal(QUESTION_PLACE, encodeQuestion(QUESTION, nonce)),
    siteSealer(SITE).seal('another place', encodeQuestion(QUESTION, nonce)),
    siteSealer(SITE).seal(QUESTION_PLACE, Buffer.from('{}')),
    siteSealer(SITE).seal(QUESTION_PLACE, seededBytes(1, 99)),
    seededBytes(2, 500),
    new Uint8Array(0),
    new Uint8Array(MAX_QUESTION_BYTES + 1),
    new Uint8Array(1_000_000),
  ];
  const elsewhere = await send(has.address, new Uint8Array(0), '/anything/else');
  for (const message of refused) {
    const { status, body, headers } = (await inTime(send(has.address, message), 'an answer')) ?? {};
    test.same(
      [status, body, headers?.connection],
      [404, elsewhere?.body, elsewhere?.headers.connection],
      `${message.byteLength} bytes`,
    );
  }
  test.equal(lookups, 0);

  // Left alone for a while, and for longer each time.
  for (const [restMs, results] of [
    [29_999, 1],
    [1, 2],
    [59_999, 2],
    [1, 3],
  ] as const) {
    stranger.clock.advance(restMs);
    test.equal(await ask(stranger), undefined);
    test.equal(stranger.results('sibling_question').length, results, `${restMs} ms later`);
  }
});

await t.test('recorded: a question that comes again, an answer to another question', async (test) => {
  const has = await sibling(test, { lookup: async () => ENTRY });
  const recorded: { question?: Buffer; answer?: Buffer | undefined } = {};
  const between = await fake(test, async (body, response) => {
    recorded.question ??= body;
    recorded.answer ??= (await send(has.address, body))?.body;
    response.end(recorded.answer);
  });
  const asks = await sibling(test, { siblings: [between] });
  test.match(await ask(asks), { length: ENTRY.length }, 'passed on as it was');
  test.equal(await ask(asks), undefined, 'the answer of before');
  test.same(asks.results('sibling_question'), ['found', 'lied']);
  test.equal((await send(has.address, recorded.question as Buffer))?.status, 404);
  test.same(has.results('sibling_answer'), ['found', 'refused']);
});

await t.test('answers that are too long, garbage, of another status, or break off', async (test) => {
  const behaviours: readonly (readonly [string, string, (response: ServerResponse) => void])[] = [
    ['garbage', 'lied', (response) => response.end(seededBytes(5, 3_000))],
    ['nothing', 'lied', (response) => response.end()],
    [
      'announced too long',
      'lied',
      (response) => response.writeHead(200, { 'content-length': MAX_ANSWER_BYTES + 1 }).end(),
    ],
    [
      'without end',
      'lied',
      (response) => {
        const more = (): void => {
          while (!response.destroyed && response.write(Buffer.alloc(256 * 1024)));
          if (!response.destroyed) response.once('drain', more);
        };
        more();
      },
    ],
    ['an error', 'failed', (response) => response.writeHead(500).end()],
    ['a redirection', 'failed', (response) => response.writeHead(302, { location: '/' }).end()],
    [
      'broken off',
      'failed',
      (response) => {
        response.writeHead(200, { 'content-length': 500 });
        response.write('x');
        setImmediate(() => response.destroy());
      },
    ],
  ];
  for (const [what, result, behave] of behaviours) {
    const address = await fake(test, (_, response) => behave(response));
    const asks = await sibling(test, { siblings: [address] });
    test.equal(await ask(asks), undefined, what);
    test.same(asks.results('sibling_question'), [result], what);
  }
});

await t.test('a sibling that contradicts itself is not believed', async (test) => {
  const seal = siteSealer(SITE);
  const lies: readonly (readonly [string, unknown, Uint8Array])[] = [
    ['a weak tag', { head: { etag: 'W/"a"' }, length: ENTRY.length }, ENTRY.contentInformation],
    ['no tag', { head: {}, length: ENTRY.length }, ENTRY.contentInformation],
    ['another length', { head: ENTRY.head, length: ENTRY.length - 1 }, ENTRY.contentInformation],
    ['no length', { head: ENTRY.head, length: '9' }, ENTRY.contentInformation],
    ['content information cut short', { head: ENTRY.head, length: ENTRY.length }, ENTRY.contentInformation.subarray(1)],
    ['none', { head: ENTRY.head, length: ENTRY.length }, new Uint8Array(0)],
    [
      'a split response',
      { head: { ...ENTRY.head, a: 'b\r\nset-cookie: c' }, length: ENTRY.length },
      ENTRY.contentInformation,
    ],
    ['a name that is none', { head: { ...ENTRY.head, 'a b': 'c' }, length: ENTRY.length }, ENTRY.contentInformation],
    ['a number', { head: { ...ENTRY.head, a: 1 }, length: ENTRY.length }, ENTRY.contentInformation],
    ['no object', 7, ENTRY.contentInformation],
  ];
  for (const [what, head, information] of lies) {
    const address = await fake(test, (body, response) => {
      const { nonce } = decodeQuestion(seal.open(QUESTION_PLACE, body) as Uint8Array) as { nonce: Uint8Array };
      const text = Buffer.from(JSON.stringify(head));
      const size = Buffer.alloc(4);
      size.writeUInt32BE(text.byteLength);
      response.end(seal.seal(answerPlace(nonce), Buffer.concat([size, text, information])));
    });
    const asks = await sibling(test, { siblings: [address] });
    test.equal(await ask(asks), undefined, what);
    test.same(asks.results('sibling_question'), ['lied'], what);
  }
  const named = Buffer.from('{"head":{"etag":"\\"a\\"","__proto__":["x"]},"length":1}');
  test.equal(decodeAnswer(Buffer.concat([Buffer.of(0, 0, 0, named.byteLength), named])), 'nonsense');
});

t.test('whatever bytes come, decoding them ends in an answer', (test) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      decodeQuestion(bytes);
      decodeAnswer(bytes);
    }),
  );
  const whole = encodeAnswer(ENTRY);
  for (let end = 1; end < whole.byteLength; end += 1) test.equal(decodeAnswer(whole.subarray(0, end)), 'nonsense');
  test.equal(decodeAnswer(encodeAnswer(undefined)), undefined);
  test.end();
});

// --- Time and number -----------------------------------------------------------------------------------------------------------------

await t.test('who says nothing costs a quarter of a second, once', async (test) => {
  const asked = new Gate();
  const silent = await fake(test, () => asked.open());
  const asks = await sibling(test, { siblings: [silent] });
  const answer = ask(asks);
  await asked.passed;
  asks.clock.advance(249);
  test.same(asks.results('sibling_question'), []);
  asks.clock.advance(1);
  test.equal(await answer, undefined);
  test.same(asks.results('sibling_question'), ['timeout']);
  test.equal(await ask(asks), undefined, 'the next client does not wait at all');
});

await t.test('a client that leaves is nobody’s fault, and who is quicker ends the question', async (test) => {
  const asked = new Gate();
  const silent = await fake(test, () => asked.open());
  const asks = await sibling(test, { siblings: [silent] });
  const client = new AbortController();
  const left = ask(asks, client.signal);
  await asked.passed;
  client.abort();
  test.equal(await left, undefined);
  const has = await sibling(test, { lookup: async () => ENTRY });
  const both = await sibling(test, { siblings: [silent, has.address] });
  test.match(await ask(both), { length: ENTRY.length });
  await until(() => both.results('sibling_question').length === 2, 'both questions are over');
  test.same(both.results('sibling_question').toSorted(), ['cancelled', 'found']);
  test.equal(asks.clock.pending, 0, 'no timer is left');
});

await t.test('questions at a time are limited, of whoever asks and whoever is asked', async (test) => {
  const gate = new Gate();
  let lookups = 0;
  const has = await sibling(test, {
    lookup: async () => {
      lookups += 1;
      await gate.passed;
      return ENTRY;
    },
  });
  const askers = await Promise.all(Array.from({ length: 5 }, () => sibling(test, { siblings: [has.address] })));
  const answers = askers.flatMap((asks) => Array.from({ length: 10 }, () => ask(asks)));
  await until(() => lookups === 32 && has.results('sibling_answer').length === 8, '40 of 50 questions have come');
  test.same(new Set(has.results('sibling_answer')), new Set(['busy']));
  gate.open();
  const found = (await Promise.all(answers)).filter((entry) => entry !== undefined);
  test.equal(found.length, 32);
  test.match(await ask(askers[0] as Node), { length: ENTRY.length }, 'a busy sibling is asked again at once');
});

await t.test('a question that drips, and a lookup that fails or never ends, are over in time', async (test) => {
  let lookup: SiblingLookup = async () => {
    throw new Error('the disk is gone');
  };
  const has = await sibling(test, { lookup: (question) => lookup(question) });
  const asks = await sibling(test, { siblings: [has.address] });
  test.equal(await ask(asks), undefined);
  test.same([asks.results('sibling_question'), has.results('sibling_answer')], [['absent'], ['absent']]);

  const begun = new Gate();
  lookup = () => {
    begun.open();
    return new Promise(() => {});
  };
  const nonce = new Uint8Array(16).fill(9);
  const never = send(has.address, siteSealer(SITE).seal(QUESTION_PLACE, encodeQuestion(QUESTION, nonce)));
  await begun.passed;
  has.clock.advance(5_000);
  test.equal(await inTime(never, 'the end of it'), undefined);

  const request = httpRequest({
    host: has.address.address,
    port: has.address.port,
    method: 'POST',
    path: SIBLING_PATH,
  });
  const ended = new Promise((resolve) => request.on('error', resolve));
  request.write('x');
  await until(() => has.clock.pending > 0, 'the question has begun');
  has.clock.advance(5_000);
  await inTime(ended, 'the end of what drips');
});

await t.test('too much content information for an answer is none', async (test) => {
  const contentInformation = new Uint8Array(MAX_ANSWER_BYTES);
  const has = await sibling(test, { lookup: async () => ({ ...ENTRY, contentInformation }) });
  const asks = await sibling(test, { siblings: [has.address] });
  test.equal(await ask(asks), undefined);
  test.same(asks.results('sibling_question'), ['absent']);
});

// --- Found on the LAN ----------------------------------------------------------------------------------------------------------------

class Finder implements PeerFinder {
  readonly sought: string[] = [];
  found: Holder[] = [];

  holders(segmentId: string): readonly Holder[] {
    return segmentId === siteBeacon(SITE) ? this.found : [];
  }

  seek(segmentIds: readonly string[]): void {
    this.sought.push(...segmentIds);
  }

  awaited(): undefined {
    return undefined;
  }
}

const holder = (peer: PeerAddress): Holder => ({ peer, blocks: 'all' });

await t.test('siblings are looked for from time to time, asked, and forgotten', async (test) => {
  const finder = new Finder();
  const has = await sibling(test, { lookup: async () => ENTRY });
  const asks = await sibling(test, { finder });
  test.same(finder.sought, [siteBeacon(SITE)]);
  test.not(siteBeacon(SITE), siteBeacon(OTHER));
  test.equal(await ask(asks), undefined, 'nobody yet');
  finder.found = [holder(has.address)];
  asks.clock.advance(1_000);
  finder.found = [];
  test.match(await ask(asks), { length: ENTRY.length }, 'one was there a second after the look');
  asks.clock.advance(4 * 120_000 + 1);
  test.equal(finder.sought.length, 5);
  test.equal(await ask(asks), undefined, 'not heard of for 8 minutes');
  asks.directory.close();
  asks.clock.advance(600_000);
  test.equal(finder.sought.length, 5, 'closed');
});

await t.test('impostors on the LAN do not keep true siblings out', async (test) => {
  const finder = new Finder();
  const impostors = await Promise.all(
    Array.from({ length: MAX_SIBLINGS }, () => fake(test, (_, response) => response.end('I am one of you'))),
  );
  finder.found = impostors.map(holder);
  const has = await sibling(test, { lookup: async () => ENTRY });
  const asks = await sibling(test, { finder });
  test.equal(await ask(asks), undefined);
  test.equal(asks.results('sibling_question').length, MAX_SIBLINGS);
  finder.found = [...impostors.map(holder), holder(has.address)];
  test.match(await ask(asks), { length: ENTRY.length });
  test.same(asks.results('sibling_question').slice(MAX_SIBLINGS), ['found'], 'nobody else is asked');
});
