/**
 * The retrieval server over real HTTP: what each message gets (the numbers are those of Microsoft's tests), what strangers may do to it, and a
 * download the way iPXE does it.
 */
import { createDecipheriv } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { platform } from 'node:os';
import * as fc from 'fast-check';
import t from 'tap';
import { fromHex, rangeEnd, toHex } from '../../lib/bytes/index.ts';
import { type CipherName, decryptBlock, nativeHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import type { Observation } from '../../lib/observer.ts';
import { type ContentBlock, ServerSecret, type V1AlgorithmName } from '../../lib/protocol/pccrc/index.ts';
import {
  type BlockListMessage,
  type BlockMessage,
  type BlockRange,
  decodeResponse,
  decodeSegmentAges,
  encodeRequest,
  MAX_REQUEST_BYTES,
  RETRIEVAL_PATH,
  type SegmentList,
} from '../../lib/protocol/pccrr/index.ts';
import {
  createLanHttpServer,
  DescribedContent,
  openHoldings,
  type LanHttpOptions,
  RetrievalServer,
  type RetrievalServerOptions,
} from '../../lib/services/index.ts';
import { blockKey, type BlockStore, MemoryBlockStore } from '../../lib/stores/index.ts';
import { describe, u32 } from '../support/content-information.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { listen, RawClient, type RawResponse, RecordingOrigin, type Scope, values, within } from '../support/net.ts';
import { seededBytes } from '../support/random.ts';
import { turns } from '../support/turns.ts';
import { ipxePost, ipxeRangeRequest, ipxeRetrievals, microsoftStack, vectorContent } from '../support/vectors.ts';

const CIPHERS: readonly CipherName[] = ['none', 'aes-128', 'aes-192', 'aes-256'];
const UPLOAD_TIMEOUT_MS = 15_000;
const REQUEST_ID = seededBytes(5, 16);

const stack = microsoftStack();
const secret = ServerSecret.fromText(stack.serverSecretKey.ascii);

interface Piece {
  readonly content: DescribedContent;
  readonly body: Uint8Array;
}

function piece(
  length: number,
  { version = 1, algorithm = 'sha256' }: { version?: 1 | 2; algorithm?: V1AlgorithmName } = {},
): Piece {
  const body = vectorContent(length);
  return { content: new DescribedContent(describe(version, body, { secret, algorithm }), nativeHashProvider), body };
}

/** The content that Microsoft's messages are about: four blocks. */
const four = piece(stack.messageFixture.contentLength);
const ID = fromHex(stack.messageFixture.SegmentID_HoHoDk);
const KP = fromHex(stack.messageFixture.Kp);
const UNKNOWN = seededBytes(99, 32);

function blockBytes({ content, body }: Piece, ordinal: number): Uint8Array {
  const block = content.block(ordinal);
  return body.subarray(block.offset, rangeEnd(block));
}

/** Puts blocks where the server finds them. */
function fill(store: MemoryBlockStore, whole: Piece, ordinals: Iterable<number>): MemoryBlockStore {
  for (const ordinal of ordinals) {
    const block = whole.content.block(ordinal);
    const facts = whole.content.segmentFacts(block.segment);
    store.set(whole.content.key(block), blockBytes(whole, ordinal), 'test', facts);
  }
  return store;
}

function ordinalsOf({ content }: Piece): number[] {
  return Array.from({ length: content.information.blockCount }, (_, ordinal) => ordinal);
}

/** Blocks 0, 1 and 3 of four: a gap. */
function holed(clock?: ManualClock): MemoryBlockStore {
  return fill(new MemoryBlockStore({ maxBytes: 10_000_000, clock }), four, [3, 0, 1]);
}

interface Rig {
  readonly port: number;
  readonly server: Server;
  readonly clock: ManualClock;
  /** Sockets at the server's end. */
  readonly sockets: Socket[];
  /** What became of each question, in order. */
  readonly uploads: { readonly result: string; readonly bytes: number }[];
  client(): Promise<RawClient>;
  /** Posts a message on a connection of its own; undefined = no message came back. */
  ask(message: Uint8Array): Promise<Reply>;
}

interface Reply extends RawResponse {
  readonly message: ReturnType<typeof decodeResponse> | undefined;
}

async function serve(
  scope: Scope,
  {
    http,
    store = holed(),
    cipher,
    ...options
  }: Partial<Omit<RetrievalServerOptions, 'holdings'>> & {
    readonly http?: LanHttpOptions;
    readonly store?: BlockStore;
    readonly cipher?: CipherName;
  } = {},
): Promise<Rig> {
  const clock = new ManualClock();
  const uploads: { result: string; bytes: number }[] = [];
  const retrieval = new RetrievalServer({
    holdings: openHoldings(store, cipher),
    clock,
    observer: (observation: Observation) => {
      if (observation.type === 'upload') uploads.push({ result: observation.result, bytes: observation.bytes });
    },
    ...options,
  });
  const server = createLanHttpServer([retrieval], http);
  const sockets: Socket[] = [];
  server.on('connection', (socket: Socket) => sockets.push(socket));
  const port = await listen(scope, server);
  const client = (): Promise<RawClient> => RawClient.connect(scope, port);
  return {
    port,
    server,
    clock,
    sockets,
    uploads,
    client,
    async ask(message) {
      const connection = await client();
      const reply = await exchange(connection, message);
      connection.socket.destroy();
      return reply;
    },
  };
}

/** A request as most clients write it. */
function post(message: Uint8Array, fields = '', path = RETRIEVAL_PATH): Buffer {
  const head = `POST ${path} HTTP/1.1\r\nHost: peer\r\n${fields}Content-Length: ${message.byteLength}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head), message]);
}

async function exchange(client: RawClient, message: Uint8Array): Promise<Reply> {
  client.send(post(message));
  const response = await client.response('POST');
  const body = Buffer.from(response.body, 'latin1');
  return { ...response, message: response.status === 200 ? decodeResponse(body) : undefined };
}

/** Microsoft's tests want a malformed message answered by an exception of their HTTP client: an error, or the end of the connection. */
function isRefused({ status, complete }: RawResponse): boolean {
  return status >= 400 || !complete;
}

const at = (...pairs: readonly (readonly [index: number, count: number])[]): BlockRange[] =>
  pairs.map(([index, count]) => ({ index, count }));

const getBlockList = (ranges: readonly BlockRange[], segmentId: Uint8Array = ID): Uint8Array =>
  encodeRequest({ type: 'get-block-list', cipher: 'aes-128', segmentId, ranges });

const getBlocks = (ranges: readonly BlockRange[], segmentId: Uint8Array = ID): Uint8Array =>
  encodeRequest({ type: 'get-blocks', cipher: 'aes-128', segmentId, ranges });

const getBlock = (index: number, segmentId: Uint8Array = ID): Uint8Array => getBlocks(at([index, 1]), segmentId);

const getSegments = (...segmentIds: readonly Uint8Array[]): Uint8Array =>
  encodeRequest({
    type: 'get-segment-list',
    cipher: 'aes-128',
    requestId: REQUEST_ID,
    segmentIds,
    blob: new Uint8Array(0),
  });

const negotiate = encodeRequest({
  type: 'negotiation-request',
  cipher: 'aes-128',
  min: { major: 1, minor: 0 },
  max: { major: 1, minor: 65_535 },
});

/** A message with other words in it; a length of its own stays true. */
function edited(message: Uint8Array, ...words: readonly (readonly [offset: number, value: number])[]): Uint8Array {
  const changed = Buffer.from(message);
  for (const [offset, value] of words) changed.writeUInt32BE(value, offset);
  return changed;
}

function sized(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = Buffer.concat(parts);
  return edited(whole, [8, whole.byteLength]);
}

/** A store whose answers the test gives itself. */
class HeldStore implements BlockStore {
  readonly bytes = 0;
  readonly waiting: { readonly release: () => void; readonly fail: () => void }[] = [];
  readonly #inner: BlockStore;

  constructor(inner: BlockStore) {
    this.#inner = inner;
  }

  get(key: string): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      this.waiting.push({
        release: () => void Promise.resolve(this.#inner.get(key)).then(resolve),
        fail: () => reject(new Error('the disk is gone')),
      });
    });
  }

  has(): boolean {
    return true;
  }

  segment(segmentId: string): ReturnType<BlockStore['segment']> {
    return this.#inner.segment(segmentId);
  }

  set(): void {}
  label(): void {}
  delete(): void {}
  flush(): void {}
}

/** Waits until so many calls wait in the store, or the like. */
async function until(isSo: () => boolean, what: string): Promise<void> {
  const wait = async (): Promise<void> => {
    while (!isSo()) await turns(1);
  };
  await within(wait(), what);
}

// --- what each message gets ------------------------------------------------------------------------------------------------------

await t.test('the content is the one that Microsoft’s messages are about', async (test) => {
  test.equal(four.content.segmentId(0), stack.messageFixture.SegmentID_HoHoDk);
  test.equal(toHex(four.content.segmentFacts(0).secret), stack.messageFixture.Kp);
  test.same([four.content.segmentFacts(0).blockCount, four.content.information.blockCount], [4, 4]);
});

await t.test('a negotiation, asked for or due (H1, H17), gets the versions spoken', async (test) => {
  const rig = await serve(test);
  const versions = { type: 'negotiation-response', min: { major: 1, minor: 0 }, max: { major: 2, minor: 0 } };
  test.match((await rig.ask(negotiate)).message, versions);
  for (const [protVer, message] of [
    [0xfefe_fefe, getBlock(0)],
    [0x0000_0003, getBlockList(at([0, 1]))],
    [0x0000_0000, getSegments(ID)],
    [0x0000_0100, sized(getBlock(0).subarray(0, 16))],
    [0xffff_ffff, Buffer.alloc(500, 0xff)],
    [0x0000_0044, post(getBlock(0))],
  ] as const) {
    const reply = await rig.ask(edited(message, [0, protVer]));
    test.same([reply.status, reply.message?.type], [200, 'negotiation-response'], `version ${protVer.toString(16)}`);
    test.match(reply.message, versions);
  }
  test.match(
    (await rig.ask(edited(getBlock(0), [0, 0x0005_0001]))).message,
    { type: 'block' },
    'minor versions do not matter',
  );
  test.same(
    rig.uploads.map(({ result }) => result),
    ['list', 'list', 'list', 'list', 'list', 'list', 'list', 'block'],
  );
});

await t.test('an answer is one message with its length in front and in the head', async (test) => {
  const rig = await serve(test);
  for (const message of [negotiate, getBlock(0), getBlock(2), getBlockList(at([0, 4])), getSegments(ID)]) {
    const { status, body, fields } = await rig.ask(message);
    const bytes = Buffer.from(body, 'latin1');
    test.equal(status, 200);
    test.same(values(fields, 'content-length'), [String(bytes.byteLength)]);
    test.same(
      values(fields, 'transfer-encoding'),
      [],
      'iPXE would read chunks, old .NET clients as well; nobody has to',
    );
    test.same([bytes.readUInt32BE(0), bytes.readUInt32BE(12)], [bytes.byteLength - 4, bytes.byteLength - 4]);
  }
});

await t.test('a block under each cipher decrypts to the block and verifies (H1, H2, H19 to H24)', async (test) => {
  const contents = [
    four,
    piece(200_000, { algorithm: 'sha384' }),
    piece(200_000, { algorithm: 'sha512' }),
    piece(200_000, { version: 2 }),
    piece(1),
  ];
  const ivs = new Set<string>();
  let blocks = 0;
  for (const cipher of CIPHERS) {
    const store = new MemoryBlockStore({ maxBytes: 10_000_000 });
    for (const each of contents) fill(store, each, ordinalsOf(each));
    const rig = await serve(test, { store, cipher });
    for (const each of contents) {
      for (const ordinal of ordinalsOf(each)) {
        const block = each.content.block(ordinal);
        const id = fromHex(each.content.segmentId(block.segment));
        const reply = (await rig.ask(getBlock(block.blockIndex, id))).message as BlockMessage;
        test.match(
          { ...reply, segmentId: toHex(reply.segmentId), data: reply.data.byteLength > 0 },
          { type: 'block', cipher, segmentId: toHex(id), blockIndex: block.blockIndex, data: true },
        );
        const plain = decryptBlock(cipher, each.content.segmentFacts(block.segment).secret, reply, block.length);
        test.ok(plain !== undefined && each.content.verify(block, plain), `${cipher}, block ${ordinal}`);
        const isPlain = Buffer.from(reply.data).includes(Buffer.from(blockBytes(each, ordinal)));
        // One byte is in anything.
        if (block.length > 16) test.equal(isPlain, cipher === 'none');
        test.equal(reply.iv.byteLength, cipher === 'none' ? 0 : 16);
        if (cipher !== 'none') ivs.add(toHex(reply.iv));
        blocks += 1;
      }
    }
    test.ok(
      rig.uploads.every(({ result, bytes }) => result === 'block' && bytes > 0),
      'observed as blocks, with their bytes',
    );
  }
  test.equal(ivs.size, (blocks / 4) * 3, 'no two blocks under the same vector');
});

await t.test('the cipher a client asks for is not heeded', async (test) => {
  const rig = await serve(test);
  for (const id of [0, 1, 2, 3]) {
    const reply = (await rig.ask(edited(getBlock(0), [12, id]))).message as BlockMessage;
    test.equal(reply.cipher, 'aes-128');
  }
});

await t.test('NextBlockIndex is the next block held behind what was sent, over gaps; 0 = none', async (test) => {
  const rig = await serve(test);
  const cases: readonly (readonly [index: number, isHeld: boolean, next: number])[] = [
    [0, true, 1],
    [1, true, 3],
    [2, false, 3],
    [3, true, 0],
    [4, false, 0],
    [511, false, 0],
    [512, false, 0],
    [0xffff_ffff, false, 0],
  ];
  for (const [index, isHeld, next] of cases) {
    const reply = (await rig.ask(getBlock(index))).message as BlockMessage;
    test.same(
      [reply.type, reply.blockIndex, reply.nextBlockIndex, reply.data.byteLength > 0, toHex(reply.segmentId)],
      ['block', index, next, isHeld, toHex(ID)],
      `block ${index}`,
    );
    if (!isHeld) test.equal(reply.iv.byteLength, 0);
  }
  test.same(
    rig.uploads.map(({ result, bytes }) => [result, bytes]),
    cases.map(([index, isHeld]) => (isHeld ? ['block', index === 3 ? 3_408 : 65_552] : ['absent', 0])),
  );
});

await t.test('of more blocks than one the smallest is sent, whether it is held or not', async (test) => {
  const rig = await serve(test);
  const cases: readonly (readonly [BlockRange[], index: number, isHeld: boolean])[] = [
    [at([0, 4]), 0, true],
    [at([3, 1], [1, 1]), 1, true],
    [at([3, 1], [2, 1]), 2, false],
    [at([0, 0], [3, 1]), 3, true],
    [at([1, 0xffff_ffff]), 1, true],
  ];
  for (const [ranges, index, isHeld] of cases) {
    const reply = (await rig.ask(getBlocks(ranges))).message as BlockMessage;
    test.same([reply.blockIndex, reply.data.byteLength > 0], [index, isHeld], JSON.stringify(ranges));
  }
});

await t.test('a block list is what is held of what was asked for', async (test) => {
  const rig = await serve(test);
  const cases: readonly (readonly [asked: BlockRange[], held: BlockRange[], next: number])[] = [
    [at([0, 1]), at([0, 1]), 1],
    [at([0, 2]), at([0, 2]), 3],
    [at([0, 3]), at([0, 2]), 3],
    [at([0, 512]), at([0, 2], [3, 1]), 0],
    [at([2, 1]), [], 0],
    [at([3, 1]), at([3, 1]), 0],
    [at([4, 508]), [], 0],
    // In any form when received; sorted, merged and without overlap when sent.
    [at([3, 1], [0, 2], [1, 1], [0, 1]), at([0, 2], [3, 1]), 0],
    [at([1, 1], [0, 1]), at([0, 2]), 3],
    [at([0, 0], [1, 1], [3, 0]), at([1, 1]), 3],
    [at([0, 0xffff_ffff], [0xffff_ffff, 0xffff_ffff]), at([0, 2], [3, 1]), 0],
  ];
  for (const [asked, held, next] of cases) {
    const reply = (await rig.ask(getBlockList(asked))).message as BlockListMessage;
    test.same(
      [reply.type, toHex(reply.segmentId), reply.ranges, reply.nextBlockIndex],
      ['block-list', toHex(ID), held, next],
      JSON.stringify(asked),
    );
  }
  test.ok(rig.uploads.every(({ result, bytes }) => result === 'list' && bytes === 0));
});

await t.test('no ranges and counts of zero get an empty answer (H26, H28)', async (test) => {
  const rig = await serve(test);
  for (const id of [ID, UNKNOWN]) {
    for (const ranges of [[], at([0, 0]), at([3, 0], [0xffff_ffff, 0])]) {
      const list = (await rig.ask(getBlockList(ranges, id))).message as BlockListMessage;
      test.same([list.type, list.ranges, list.nextBlockIndex], ['block-list', [], 0]);
      const block = (await rig.ask(getBlocks(ranges, id))).message as BlockMessage;
      test.same([block.type, block.blockIndex, block.nextBlockIndex, block.data.byteLength], ['block', 0, 0, 0]);
    }
  }
});

await t.test('a segment list names positions of the request, ages are relative to the first (H31)', async (test) => {
  const clock = new ManualClock();
  const store = holed(clock);
  const other = piece(70_000, { algorithm: 'sha512' });
  const otherId = fromHex(other.content.segmentId(0));
  clock.advance(61_230);
  fill(store, other, [1]);
  clock.advance(500);
  const rig = await serve(test, { store, clock });
  const cases: readonly (readonly [ids: Uint8Array[], ranges: BlockRange[], ages: object[]])[] = [
    [[UNKNOWN], [], []],
    [[ID], at([0, 1]), [{ index: 0, ageMs: 61_730 }]],
    [
      [UNKNOWN, ID, UNKNOWN, otherId, ID],
      at([1, 1], [3, 2]),
      [
        { index: 0, ageMs: 61_730 },
        { index: 2, ageMs: 500 },
        { index: 3, ageMs: 61_730 },
      ],
    ],
    [
      [otherId, ID],
      at([0, 2]),
      [
        { index: 0, ageMs: 500 },
        { index: 1, ageMs: 61_730 },
      ],
    ],
  ];
  for (const [ids, ranges, ages] of cases) {
    const reply = (await rig.ask(getSegments(...ids))).message as SegmentList;
    test.same([reply.type, toHex(reply.requestId), reply.ranges], ['segment-list', toHex(REQUEST_ID), ranges]);
    test.same(decodeSegmentAges(reply.blob), ages);
  }
  const blob = fromHex('0001030101020304');
  for (const each of [blob, blob.subarray(0, 3), new Uint8Array(1_000)]) {
    const message = encodeRequest({
      type: 'get-segment-list',
      cipher: 'aes-128',
      requestId: REQUEST_ID,
      segmentIds: [UNKNOWN],
      blob: each,
    });
    test.match((await rig.ask(message)).message, { type: 'segment-list', ranges: [] });
  }
  // As many as fit into a request: the last two are held, too far from each other for an age of the last.
  const many = Array.from({ length: 2_700 }, (_, index) => (index === 5 || index === 2_699 ? ID : UNKNOWN));
  const reply = (await rig.ask(getSegments(...many))).message as SegmentList;
  test.same(reply.ranges, at([5, 1], [2_699, 1]));
  test.same(decodeSegmentAges(reply.blob), [{ index: 0, ageMs: 61_730 }]);
});

await t.test('what is malformed gets an error or the end, and the next request its answer', async (test) => {
  const rig = await serve(test);
  const one = getBlock(0);
  // Offsets: 16 size of the ID, 20 the ID, 52 number of ranges, 56 the range, 64 size of DataForVrfBlock.
  const cases: Readonly<Record<string, Uint8Array>> = {
    'H16: a type there is not': edited(one, [4, 0xfefe]),
    'a response': edited(one, [4, 5]),
    'H18: a cipher there is not': edited(one, [12, 0xfefe]),
    'H25: ten ranges announced, one there': edited(getBlockList(at([0, 1])), [52, 10]),
    'H27: the same for get-blocks': edited(one, [52, 10]),
    'H29: two segment IDs announced, one there': edited(getSegments(ID), [32, 2]),
    'H30: no segment IDs': sized(getSegments(ID).subarray(0, 32), u32(0, false), u32(0, false)),
    'no body at all': new Uint8Array(0),
    'less than a header': one.subarray(0, 15),
    'a header that says it is alone': sized(one.subarray(0, 16)),
    'a byte too few': one.subarray(0, -1),
    'a byte too many': Buffer.concat([one, Buffer.alloc(1)]),
    'a size that is not true': edited(one, [8, 67]),
    'an ID of no bytes': edited(one, [16, 0]),
    'an ID of four billion bytes': edited(one, [16, 0xffff_ffff]),
    'four billion ranges': edited(one, [52, 0xffff_ffff]),
  };
  const names = Object.keys(cases);
  for (const [name, message] of Object.entries(cases)) {
    const reply = await rig.ask(message);
    test.ok(isRefused(reply), `${name}: ${reply.status}`);
    test.equal(reply.status, 400);
    test.equal(reply.body, '', 'and no explanation');
  }
  test.same(
    rig.uploads.map(({ result }) => result),
    names.map(() => 'rejected'),
  );
  test.match((await rig.ask(one)).message, { type: 'block', blockIndex: 0 });
});

await t.test('who does not know a segment ID learns nothing', async (test) => {
  const store = holed();
  store.set(blockKey(toHex(ID), 2), blockBytes(four, 2), 'the owner’s');
  store.set(blockKey(toHex(UNKNOWN), 0), blockBytes(four, 0), 'the owner’s');
  const rig = await serve(test, { store });
  const flipped = Buffer.from(ID);
  flipped[31] = (flipped[31] as number) ^ 1;
  const guesses = [
    UNKNOWN,
    flipped,
    ID.subarray(0, 31),
    Buffer.concat([ID, Buffer.alloc(1)]),
    Buffer.concat([ID, ID]),
    new Uint8Array(32),
    Buffer.from(toHex(ID)),
    Buffer.from('__proto__'),
    Buffer.from(':'),
    KP,
  ];
  for (const guess of guesses) {
    const list = (await rig.ask(getBlockList(at([0, 512]), guess))).message as BlockListMessage;
    test.same([toHex(list.segmentId), list.ranges, list.nextBlockIndex], [toHex(guess), [], 0]);
    const { message, body } = await rig.ask(getBlocks(at([0, 512]), guess));
    const block = message as BlockMessage;
    test.same(
      [toHex(block.segmentId), block.blockIndex, block.nextBlockIndex, block.data.byteLength, block.iv.byteLength],
      [toHex(guess), 0, 0, 0, 0],
    );
    if (guess !== KP) test.notOk(Buffer.from(body, 'latin1').includes(Buffer.from(KP)));
    const segments = (await rig.ask(getSegments(guess))).message as SegmentList;
    test.same([segments.ranges, toHex(segments.blob)], [[], '00010300']);
  }
  const own = (await rig.ask(getBlock(2))).message as BlockMessage;
  test.same([own.data.byteLength, own.nextBlockIndex], [0, 3], 'nor is anybody given what is here for the owner alone');
  const [block] = [(await rig.ask(getBlock(0))).body].map((body) => Buffer.from(body, 'latin1')) as [Buffer];
  test.notOk(block.includes(Buffer.from(KP.subarray(0, 16))), 'and the key goes with no answer');
});

// --- HTTP ------------------------------------------------------------------------------------------------------------------------

await t.test('the path is compared without regard to case, and is the only one', async (test) => {
  const rig = await serve(test);
  for (const path of [RETRIEVAL_PATH, RETRIEVAL_PATH.toLowerCase(), RETRIEVAL_PATH.toUpperCase()]) {
    const client = await rig.client();
    test.equal((await client.send(post(getBlock(0), '', path)).response('POST')).status, 200, path);
  }
  const others = ['/', RETRIEVAL_PATH.slice(0, -1), `${RETRIEVAL_PATH}x`, `${RETRIEVAL_PATH}?x`, `/.${RETRIEVAL_PATH}`];
  for (const path of others) {
    const client = await rig.client();
    const { status, body } = await client.send(post(getBlock(0), '', path)).response('POST');
    test.same([status, body], [404, ''], path);
    test.equal(await within(client.closed, 'the end'), 'ended');
  }
  test.equal(rig.uploads.length, 3, 'they are nobody’s uploads');
  for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
    const client = await rig.client();
    const request = post(getBlock(0)).toString('latin1').replace('POST', method);
    test.equal((await client.send(request).response(method)).status, 405, method);
    await within(client.closed, 'the end');
  }
  test.equal(rig.clock.pending, 0);
});

await t.test('more than 96 KiB are refused: announced at once, in chunks when they have come', async (test) => {
  const rig = await serve(test);
  const head = (field: string): string => `POST ${RETRIEVAL_PATH} HTTP/1.1\r\nHost: peer\r\n${field}\r\n\r\n`;
  for (const length of ['98305', '4294967296', '9007199254740993', '1'.repeat(18)]) {
    const client = await rig.client();
    const { status } = await client.send(head(`Content-Length: ${length}`)).response('POST');
    test.equal(status, 413, `${length}, of which nothing was sent`);
    await within(client.closed, 'the end');
  }
  const whole = sized(
    getBlock(0).subarray(0, 64),
    u32(MAX_REQUEST_BYTES - 68, false),
    Buffer.alloc(MAX_REQUEST_BYTES - 68),
  );
  test.equal(whole.byteLength, 98_304);
  test.match((await rig.ask(whole)).message, { type: 'block' }, 'exactly 96 KiB are read');
  const chunked = async (bytes: Uint8Array, end: string): Promise<RawResponse> => {
    const client = await rig.client();
    client
      .send(head('Transfer-Encoding: chunked'))
      .send(`${bytes.byteLength.toString(16)}\r\n`)
      .send(bytes)
      .send(end);
    return client.response('POST');
  };
  test.equal((await chunked(whole, '\r\n0\r\n\r\n')).status, 200, 'in chunks too');
  test.equal((await chunked(Buffer.concat([whole, Buffer.alloc(1)]), '\r\n')).status, 413, 'before the last has come');
  test.equal(rig.clock.pending, 0);
});

await t.test('connections are kept, Expect: 100-continue and HTTP/1.0 work', async (test) => {
  const rig = await serve(test);
  const client = await rig.client();
  for (let round = 0; round < 5; round += 1)
    test.match((await exchange(client, getBlock(round))).message, { blockIndex: round });
  test.equal(rig.sockets.length, 1);

  const message = getBlock(1);
  const dotNet = post(message, 'Expect: 100-continue\r\n');
  client.send(dotNet.subarray(0, -message.byteLength));
  await client.until('HTTP/1.1 100 Continue\r\n\r\n');
  client.send(message);
  test.equal((await client.response('POST')).status, 200);

  const old = await rig.client();
  old.send(post(message).toString('latin1').replace('HTTP/1.1', 'HTTP/1.0'));
  const { status, complete, body } = await old.response('POST');
  test.same([status, complete, decodeResponse(Buffer.from(body, 'latin1')).type], [200, true, 'block']);
  test.equal(await within(old.closed, 'the end'), 'ended');
  test.equal(rig.clock.pending, 0, 'and no timer stays behind');
});

await t.test('a body may come in any pieces', async (test) => {
  const rig = await serve(test);
  const client = await rig.client();
  for (const byte of post(getBlock(1))) {
    client.send(Buffer.of(byte));
    await turns(1);
  }
  const { status, body } = await client.response('POST');
  test.equal(status, 200);
  test.match(decodeResponse(Buffer.from(body, 'latin1')), { blockIndex: 1 });
});

// --- limits ----------------------------------------------------------------------------------------------------------------------

await t.test('past the upload limit answers are empty, and it recovers', async (test) => {
  const store = new HeldStore(holed());
  const rig = await serve(test, { store, maxUploads: 2 });
  const first = [rig.ask(getBlock(0)), rig.ask(getBlock(1))];
  await until(() => store.waiting.length === 2, 'two uploads');

  const block = (await rig.ask(getBlock(0))).message as BlockMessage;
  test.same([block.type, block.blockIndex, block.data.byteLength, block.nextBlockIndex], ['block', 0, 0, 0]);
  const list = (await rig.ask(getBlockList(at([0, 512])))).message as BlockListMessage;
  test.same([list.type, list.ranges, list.nextBlockIndex], ['block-list', [], 0]);
  const segments = (await rig.ask(getSegments(ID))).message as SegmentList;
  test.same([segments.type, segments.ranges], ['segment-list', []]);
  test.match((await rig.ask(negotiate)).message, { type: 'negotiation-response' });
  test.ok(isRefused(await rig.ask(edited(negotiate, [4, 9]))), 'and what is malformed is still malformed');
  test.same(
    rig.uploads.map(({ result }) => result),
    ['busy', 'busy', 'busy', 'list', 'rejected'],
  );
  test.equal(store.waiting.length, 2, 'the store was not asked');

  store.waiting.shift()?.release();
  await Promise.race(first);
  const third = rig.ask(getBlock(3));
  await until(() => store.waiting.length === 2, 'a third upload in the place of the first');
  for (const { release } of store.waiting) release();
  const answers = (await Promise.all([...first, third])).map(({ message }) => message as BlockMessage);
  test.same(
    answers.map(({ blockIndex, data }) => [blockIndex, data.byteLength > 0]),
    [
      [0, true],
      [1, true],
      [3, true],
    ],
  );
});

await t.test('every way an upload can end gives its place back', async (test) => {
  const store = new HeldStore(holed());
  const rig = await serve(test, { store, maxUploads: 1 });
  const ways: Readonly<Record<string, (client: RawClient) => void>> = {
    answered: () => store.waiting[0]?.release(),
    'the store fails': () => store.waiting[0]?.fail(),
    'the peer leaves': (client) => client.socket.destroy(),
    'the peer is reset': (client) => client.socket.resetAndDestroy(),
    'time is up': () => rig.clock.advance(UPLOAD_TIMEOUT_MS),
  };
  for (const [name, end] of Object.entries(ways)) {
    store.waiting.length = 0;
    const client = await rig.client();
    client.send(post(getBlock(0)));
    await until(() => store.waiting.length === 1, `the upload: ${name}`);
    const socket = rig.sockets.at(-1) as Socket;
    end(client);
    if (name === 'answered' || name === 'the store fails') await client.response('POST');
    else await until(() => socket.destroyed && rig.clock.pending === 0, `the end: ${name}`);
    await turns();
    const list = (await rig.ask(getBlockList(at([0, 1])))).message as BlockListMessage;
    test.equal(list.ranges.length, 1, name);
  }
  test.equal(rig.clock.pending, 0);
});

await t.test(
  'a request behind an unanswered one ends the connection, and both give their places back',
  async (test) => {
    const store = new HeldStore(holed());
    const rig = await serve(test, { store, maxUploads: 2 });
    const client = await rig.client();
    const many = Buffer.concat(Array.from({ length: 50 }, () => post(getBlock(0))));
    client.send(many);
    await within(client.closed, 'the end of the connection');
    for (const { release } of store.waiting) release();
    await until(() => rig.clock.pending === 0, 'the end of all timers');
    await turns();
    store.waiting.length = 0;
    const both = [rig.ask(getBlock(0)), rig.ask(getBlock(1))];
    await until(() => store.waiting.length === 2, 'two uploads again');
    for (const { release } of store.waiting) release();
    for (const { message } of await Promise.all(both)) test.ok((message as BlockMessage).data.byteLength > 0);
    test.equal(rig.uploads.filter(({ result }) => result === 'block').length, 2);
  },
);

await t.test('the upload timer ends a request that stalls, at any byte', async (test) => {
  const whole = post(getBlock(0));
  const headEnd = whole.indexOf('\r\n\r\n') + 4;
  for (const sent of [headEnd, headEnd + 1, whole.byteLength - 1]) {
    const rig = await serve(test);
    const client = await rig.client();
    client.send(whole.subarray(0, sent));
    await until(() => rig.clock.pending === 1, 'the timer');
    rig.clock.advance(UPLOAD_TIMEOUT_MS - 1);
    await turns();
    test.equal(rig.sockets[0]?.destroyed, false, 'not before its time');
    rig.clock.advance(1);
    await within(client.closed, 'the end');
    test.equal(client.received, '', `${sent} bytes: no answer`);
    await until(() => rig.uploads.length === 1, 'the observation');
    test.same(rig.uploads, [{ result: 'aborted', bytes: 0 }]);
    test.equal(rig.clock.pending, 0);
  }
});

await t.test('the upload timer ends a store that never answers', async (test) => {
  const store = new HeldStore(holed());
  const rig = await serve(test, { store, uploadTimeoutMs: 100 });
  const client = await rig.client();
  client.send(post(getBlock(0)));
  await until(() => store.waiting.length === 1, 'the upload');
  rig.clock.advance(100);
  await within(client.closed, 'the end');
  store.waiting[0]?.release();
  await turns();
  test.same(
    [client.received, rig.uploads.map(({ result }) => result)],
    ['', ['aborted']],
    'what comes later is thrown away',
  );
});

await t.test('the upload timer ends a reader that stalls', async (test) => {
  const huge = new Uint8Array(48 * 1024 * 1024);
  const inner = holed();
  // More than the buffers of two sockets hold: no real block is so large.
  const store: BlockStore = {
    bytes: 0,
    get: () => huge,
    has: () => true,
    segment: (id) => inner.segment(id),
    set() {},
    label() {},
    delete() {},
    flush() {},
  };
  const rig = await serve(test, { store, cipher: 'none', maxUploads: 1 });
  const client = await rig.client();
  client.socket.pause();
  client.send(post(getBlock(0)));
  await until(() => rig.uploads.length === 1, 'the answer to be under way');
  test.same(rig.uploads, [{ result: 'block', bytes: huge.byteLength }]);
  await turns();
  test.equal(rig.clock.pending, 1, 'not all of it has gone');
  test.equal(
    ((await rig.ask(getBlockList(at([0, 1])))).message as BlockListMessage).ranges.length,
    0,
    'it counts as an upload',
  );
  rig.clock.advance(UPLOAD_TIMEOUT_MS);
  await until(() => rig.sockets[0]?.destroyed === true && rig.clock.pending === 0, 'the end');
  await until(() => rig.uploads.length === 3, 'the observation');
  test.equal(rig.uploads.at(-1)?.result, 'aborted');
  test.equal(((await rig.ask(getBlockList(at([0, 1])))).message as BlockListMessage).ranges.length, 1);
});

await t.test('a store that fails has nothing, and its next answer counts again', async (test) => {
  const inner = holed();
  const how: Readonly<Record<string, () => never | Promise<never>>> = {
    throws: () => {
      throw new Error('the disk is gone');
    },
    rejects: () => Promise.reject(new Error('the disk is gone')),
  };
  for (const [name, fail] of Object.entries(how)) {
    let failing: 'segment' | 'get' | undefined = 'segment';
    const store: BlockStore = {
      bytes: 0,
      get: (key) => (failing === 'get' ? fail() : inner.get(key)),
      has: () => true,
      segment: (id) => (failing === 'segment' ? fail() : inner.segment(id)),
      set() {},
      label() {},
      delete() {},
      flush() {},
    };
    const rig = await serve(test, { store });
    const list = (await rig.ask(getBlockList(at([0, 4])))).message as BlockListMessage;
    test.same([list.type, list.ranges], ['block-list', []], name);
    test.same(((await rig.ask(getSegments(ID, ID))).message as SegmentList).ranges, []);
    for (const part of ['segment', 'get'] as const) {
      failing = part;
      const { data } = (await rig.ask(getBlock(0))).message as BlockMessage;
      test.equal(data.byteLength, 0, `${part} ${name}`);
    }
    failing = undefined;
    test.ok(((await rig.ask(getBlock(0))).message as BlockMessage).data.byteLength > 0);
    test.same(
      rig.uploads.map(({ result }) => result),
      ['list', 'list', 'absent', 'absent', 'block'],
    );
  }
  const short = new MemoryBlockStore({ maxBytes: 100_000 });
  short.set(blockKey(toHex(ID), 0), seededBytes(1, 100), 'test', { secret: new Uint8Array(15), blockCount: 1 });
  const rig = await serve(test, { store: short });
  const { data } = (await rig.ask(getBlock(0))).message as BlockMessage;
  test.equal(data.byteLength, 0, 'what cannot be encrypted is not held');
});

await t.test('connections are limited, in all and by address', async (test) => {
  const rig = await serve(test, { http: { maxConnectionsPerAddress: 3, maxConnections: 5 } });
  const opened = async (count: number): Promise<RawClient[]> => {
    const clients: RawClient[] = [];
    for (let index = 0; index < count; index += 1) clients.push(await rig.client());
    await until(() => rig.sockets.length === count, 'the connections at the server');
    return clients;
  };
  const clients = await opened(3);
  const fourth = await rig.client();
  await within(fourth.closed, 'the end of the fourth');
  test.equal(fourth.received, '', 'without a word');
  for (const client of clients) test.equal((await exchange(client, getBlock(0))).status, 200, 'the others stay');

  if (platform() === 'linux') {
    const from = async (localAddress: string): Promise<Socket> => {
      const socket = connect({ port: rig.port, host: '127.0.0.1', localAddress });
      socket.on('error', () => {});
      test.teardown(() => socket.destroy());
      await once(socket, 'connect');
      return socket;
    };
    const second = [await from('127.0.0.2'), await from('127.0.0.2')];
    second[0]?.write(post(getBlock(0)));
    const [answer] = (await within(once(second[0] as Socket, 'data'), 'an answer')) as [Buffer];
    test.match(answer.toString('latin1'), /^HTTP\/1\.1 200 /, 'another address has places of its own');
    const sixth = await from('127.0.0.3');
    sixth.resume();
    await within(once(sixth, 'close'), 'the end of the sixth in all');
    for (const socket of second) socket.destroy();
  }

  const [gone] = clients as [RawClient];
  const end = once(rig.sockets[0] as Socket, 'close');
  gone.socket.destroy();
  await within(end, 'the end of the first');
  const later = await rig.client();
  test.equal((await exchange(later, getBlock(0))).status, 200, 'who leaves makes room');
  const tooMany = await rig.client();
  await within(tooMany.closed, 'the end of one too many');
  test.equal(tooMany.received, '', 'for one');
});

await t.test('who is not allowed does not get as far as HTTP', async (test) => {
  const asked: string[] = [];
  let isAllowed = false;
  const http: LanHttpOptions = {
    maxConnectionsPerAddress: 1,
    isAllowed: (address) => {
      asked.push(address);
      return isAllowed;
    },
  };
  const rig = await serve(test, { http });
  for (let round = 0; round < 3; round += 1) {
    const client = await rig.client();
    await within(client.closed, 'the end');
    test.equal(client.received, '');
  }
  isAllowed = true;
  test.equal((await rig.ask(getBlock(0))).status, 200, 'and takes nobody’s place');
  await until(() => rig.sockets.every((socket) => socket.destroyed), 'the end of that connection');
  await turns();
  test.equal((await rig.ask(getBlock(0))).status, 200, 'nor does who was and has left');
  test.same(
    asked,
    Array.from({ length: 5 }, () => '127.0.0.1'),
  );
});

// --- strangers -------------------------------------------------------------------------------------------------------------------

await t.test('no HTTP, odd HTTP and broken HTTP leave the server as it was', async (test) => {
  const rig = await serve(test);
  const head = (line: string, ...fields: readonly string[]): string =>
    [line, 'Host: peer', ...fields, '', ''].join('\r\n');
  const line = `POST ${RETRIEVAL_PATH} HTTP/1.1`;
  const cases: Readonly<Record<string, string | Uint8Array>> = {
    noise: seededBytes(1, 5_000),
    'a TLS hello': fromHex('160301020001000001fc0303'),
    'HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'HTTP/0.9': `POST ${RETRIEVAL_PATH}\r\n\r\n`,
    'a line without end': 'P'.repeat(20_000),
    'a head without end': head(line, `X: ${'x'.repeat(20_000)}`),
    'many fields': head(line, ...Array.from({ length: 2_000 }, (_, index) => `X${index}: 1`)),
    'two lengths': head(line, 'Content-Length: 68', 'Content-Length: 69'),
    'a length and chunks': head(line, 'Content-Length: 68', 'Transfer-Encoding: chunked'),
    'a length below zero': head(line, 'Content-Length: -1'),
    'a length that is none': head(line, 'Content-Length: x'),
    'a chunk that is none': `${head(line, 'Transfer-Encoding: chunked')}xyz\r\n`,
    'an expectation there is not': head(line, 'Expect: miracles', 'Content-Length: 0'),
    'a tunnel': head('CONNECT peer:80 HTTP/1.1'),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    const client = await rig.client();
    const response = await client.send(bytes).response('POST');
    test.ok(isRefused(response), `${name}: ${response.status}`);
    client.socket.destroy();
  }
  const upgrade = await rig.client();
  upgrade.send(post(getBlock(0), 'Connection: Upgrade\r\nUpgrade: websocket\r\n'));
  test.equal((await upgrade.response('POST')).status, 200, 'an upgrade nobody offers is not taken');
  test.match((await rig.ask(getBlock(1))).message, { type: 'block', blockIndex: 1 });
  await until(() => rig.clock.pending === 0, 'the end of all timers');
});

await t.test('a body that never ends is read as far as the limit and no farther', async (test) => {
  const rig = await serve(test);
  const client = await rig.client();
  client.send(`POST ${RETRIEVAL_PATH} HTTP/1.1\r\nHost: peer\r\nTransfer-Encoding: chunked\r\n\r\n`);
  const chunk = Buffer.concat([Buffer.from('4000\r\n'), Buffer.alloc(0x4000), Buffer.from('\r\n')]);
  let sent = 0;
  while (!client.socket.destroyed && sent < 100_000_000) {
    sent += chunk.byteLength;
    if (client.socket.write(chunk)) continue;
    await Promise.race([once(client.socket, 'drain').catch(() => {}), client.closed]);
  }
  await within(client.closed, 'the end');
  test.ok(sent < 50_000_000, `the end came after ${sent} bytes were sent`);
  test.ok((rig.sockets[0]?.bytesRead ?? Infinity) < 2_000_000, `${rig.sockets[0]?.bytesRead} bytes were read`);
  test.same(rig.uploads[0], { result: 'rejected', bytes: 0 });
  test.match((await rig.ask(getBlock(0))).message, { type: 'block' });
});

await t.test('a crowd that drips keeps nobody else waiting and leaves nothing behind', async (test) => {
  const rig = await serve(test, { maxUploads: 1 });
  const announced = `POST ${RETRIEVAL_PATH} HTTP/1.1\r\nHost: peer\r\nContent-Length: ${MAX_REQUEST_BYTES}\r\n\r\n`;
  const crowd = await Promise.all(
    Array.from({ length: 60 }, async (_, index) => {
      const client = await rig.client();
      return client.send(index % 2 === 0 ? announced.slice(0, 40 + index / 2) : announced + 'x'.repeat(1_000 * index));
    }),
  );
  await until(() => rig.clock.pending === 30, 'thirty requests that do not end');
  for (let round = 0; round < 3; round += 1) {
    for (const client of crowd) client.send('y');
    const { message } = await rig.ask(getBlock(0));
    test.ok((message as BlockMessage).data.byteLength > 0, 'who waits for a body is no upload');
  }
  rig.clock.advance(UPLOAD_TIMEOUT_MS);
  await until(() => rig.clock.pending === 0, 'the end of those with a head');
  const ended = crowd.filter((_, index) => index % 2 === 1);
  for (const client of ended) await within(client.closed, 'the end');
  for (const client of crowd) client.socket.destroy();
  await until(() => rig.sockets.every((socket) => socket.destroyed), 'the end of all connections');
  test.equal(rig.uploads.filter(({ result }) => result === 'aborted').length, 30);
});

await t.test('any message at all gets 200 or 400, on a connection that is otherwise in order', async (test) => {
  const rig = await serve(test);
  const bases = [negotiate, getBlock(0), getBlock(2), getBlockList(at([0, 4], [2, 9])), getSegments(ID, UNKNOWN)];
  const statuses: Record<number, number> = {};
  let client = await rig.client();
  const check = async (message: Uint8Array): Promise<void> => {
    const response = await client.send(post(message)).response('POST');
    statuses[response.status] = (statuses[response.status] ?? 0) + 1;
    if (response.status === 200) decodeResponse(Buffer.from(response.body, 'latin1'));
    else if (response.status === 400) {
      await within(client.closed, 'the end');
      client = await rig.client();
    } else throw new Error(`${response.status} for ${toHex(message)}`);
  };
  const edit = fc.tuple(fc.nat(200), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 255)));
  const mutant = fc
    .tuple(fc.constantFrom(...bases), fc.array(edit, { minLength: 1, maxLength: 3 }), fc.nat(3))
    .map(([base, edits, cut]) => {
      const changed = Uint8Array.from(base);
      for (const [index, value] of edits) changed[index % changed.byteLength] = value;
      return changed.subarray(0, changed.byteLength - (cut === 3 ? 1 : 0));
    });
  await fc.assert(fc.asyncProperty(mutant, check), { numRuns: 250, seed: 20_260_301 });
  await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 90 }), check), { numRuns: 50, seed: 20_260_302 });
  test.ok((statuses[200] ?? 0) > 30 && (statuses[400] ?? 0) > 30, JSON.stringify(statuses));
});

await t.test(
  'a question read before Node knows that the answer before it has left is no pipelined one',
  async (test) => {
    const retrieval = new RetrievalServer({ holdings: openHoldings(holed()), clock: new ManualClock() });
    let before: ServerResponse | undefined;
    const server = createServer((request, response) => {
      if (before === undefined) {
        before = response;
        return;
      }
      retrieval.handle(request, response);
      before.end();
    });
    const client = await RawClient.connect(test, await listen(test, server));
    client.send(Buffer.concat([Buffer.from('GET / HTTP/1.1\r\nHost: peer\r\n\r\n'), post(getBlock(1))]));
    test.equal((await client.response('GET')).status, 200);
    const { status, body } = await client.response('POST');
    test.equal(status, 200);
    test.match(decodeResponse(Buffer.from(body, 'latin1')), { type: 'block', blockIndex: 1 });
  },
);

await t.test('answer() can be asked without HTTP, and throws for what deserves no answer', async (test) => {
  const retrieval = new RetrievalServer({ holdings: openHoldings(holed()), clock: new ManualClock() });
  const answer = await retrieval.answer(getBlock(1));
  test.match(answer, { result: 'block', bytes: 65_552 });
  test.match(decodeResponse(Buffer.concat(answer.pieces)), { blockIndex: 1, nextBlockIndex: 3 });
  test.match(await retrieval.answer(getBlock(1), '', true), { result: 'busy', bytes: 0 });
  let code: unknown;
  try {
    await retrieval.answer(new Uint8Array(3));
  } catch (error) {
    code = isPeerDistError(error) && error.code;
  }
  test.equal(code, 'ERR_PEERDIST_MALFORMED_MESSAGE');
});

// --- iPXE ------------------------------------------------------------------------------------------------------------------------

/** Connections to peers that iPXE has open at a time, and to the origin. */
const IPXE_CONNECTIONS = 32;
const IPXE_ORIGIN_CONNECTIONS = 2;

/** Why iPXE would not take an answer, or the block. */
function readAsIpxe(answer: Buffer, { content }: Piece, block: ContentBlock): Uint8Array | string {
  const id = fromHex(content.segmentId(block.segment));
  const word = (offset: number): number => answer.readUInt32BE(offset);
  if (answer.byteLength < 20) return 'too short for a header';
  if (word(8) !== 5) return 'another type';
  const keyBytes = [0, 16, 24, 32][word(16)];
  if (keyBytes === undefined) return 'an unknown cipher';
  if (keyBytes > id.byteLength) return 'a secret too short';
  const dataStart = 20 + 4 + id.byteLength + 12;
  if (answer.byteLength < dataStart) return 'too short for a block';
  if (word(20) !== id.byteLength) return 'another digest';
  if (toHex(answer.subarray(24, 24 + id.byteLength)) !== toHex(id)) return 'another segment';
  if (word(24 + id.byteLength) !== block.blockIndex) return 'another block';
  const length = word(dataStart - 4);
  if (length === 0) return 'no block';
  if (length < block.length) return 'an underlength block';
  // It never hashes what it does not decrypt, so nothing matches.
  if (keyBytes === 0) return 'plaintext';
  // No padding is expected between these: encrypted data needs none.
  const vrfStart = dataStart + length + 4;
  if (answer.byteLength < vrfStart) return 'too short for verification data';
  const ivStart = vrfStart + word(vrfStart - 4) + 4;
  if (answer.byteLength < ivStart + 16) return 'too short for a vector';
  if (word(ivStart - 4) !== 16) return 'a vector of another length';
  if (length % 16 !== 0) return 'unaligned data';
  const key = content.segmentFacts(block.segment).secret.subarray(0, keyBytes);
  const iv = answer.subarray(ivStart, ivStart + 16);
  const plain = createDecipheriv(`aes-${8 * keyBytes}-cbc`, key, iv)
    .setAutoPadding(false)
    .update(answer.subarray(dataStart, dataStart + length))
    .subarray(0, block.length);
  return content.verify(block, plain) ? plain : 'another hash';
}

/** The request that iPXE sends for a block: what was recorded, with another segment and block in it. */
function ipxeRequest(id: Uint8Array, blockIndex: number): Buffer {
  const { head } = ipxePost();
  const template = [...ipxeRetrievals().values()].find((body) => body[19] === id.byteLength) as Uint8Array;
  const body = Buffer.from(template);
  body.set(id, 20);
  body.writeUInt32BE(blockIndex, 24 + id.byteLength);
  return Buffer.concat([Buffer.from(head.replace('Content-Length: 68', `Content-Length: ${body.byteLength}`)), body]);
}

interface Download {
  readonly bytes: Buffer;
  /** Why a block was asked of the origin, by its ordinal. */
  readonly refused: Map<number, string>;
}

/** Downloads like iPXE: all blocks at once in nearly reversed order, 32 at a time, each on a connection of its own. */
async function downloadAsIpxe(
  scope: Scope,
  whole: Piece,
  peerPort: number,
  originPort: number,
  /** Called when as many connections are open as there will be. */
  whenOpen = async (_connections: number): Promise<void> => {},
): Promise<Download> {
  const { content, body } = whole;
  const bytes = Buffer.alloc(body.byteLength);
  const refused = new Map<number, string>();
  // Reversed, but for neighbours that changed places.
  const order = ordinalsOf(whole)
    .toReversed()
    .map((_, index, all) => all[index ^ 1] ?? (all[index] as number));
  const raw: number[] = [];
  const inTurn = async (
    queue: number[],
    connections: number,
    fetchBlock: (ordinal: number) => Promise<void>,
  ): Promise<void> => {
    const worker = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) await fetchBlock(next);
    };
    await Promise.all(Array.from({ length: connections }, worker));
  };
  const connections = Math.min(IPXE_CONNECTIONS, order.length);
  const open = await Promise.all(Array.from({ length: connections }, () => RawClient.connect(scope, peerPort)));
  await whenOpen(connections);
  await inTurn(order, connections, async (ordinal) => {
    const block = content.block(ordinal);
    const client = open.pop() ?? (await RawClient.connect(scope, peerPort));
    client.send(ipxeRequest(fromHex(content.segmentId(block.segment)), block.blockIndex));
    const response = await client.response('POST');
    client.socket.destroy();
    const found =
      response.status === 200 ? readAsIpxe(Buffer.from(response.body, 'latin1'), whole, block) : `${response.status}`;
    if (typeof found === 'string') {
      refused.set(ordinal, found);
      raw.push(ordinal);
    } else bytes.set(found, block.offset);
  });
  await inTurn(raw, IPXE_ORIGIN_CONNECTIONS, async (ordinal) => {
    const block = content.block(ordinal);
    const client = await RawClient.connect(scope, originPort);
    const range = `bytes=${block.offset}-${rangeEnd(block) - 1}`;
    const response = await client.send(ipxeRangeRequest().replace('bytes=0-65535', range)).response();
    client.socket.destroy();
    bytes.set(Buffer.from(response.body, 'latin1'), block.offset);
  });
  return { bytes, refused };
}

/** An origin that has the content, and what ranges it was asked for. */
async function originOf(scope: Scope, { body }: Piece): Promise<RecordingOrigin> {
  return RecordingOrigin.listen(scope, {
    answer: ({ fields }, socket) => {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(values(fields, 'range')[0] ?? '') ?? [];
      const part = body.subarray(Number(first), Number(last) + 1);
      socket.write(
        `HTTP/1.1 206 Partial Content\r\nContent-Range: bytes ${first}-${last}/${body.byteLength}\r\n` +
          `Content-Length: ${part.byteLength}\r\n\r\n`,
      );
      socket.write(part);
    },
  });
}

await t.test('iPXE’s recorded request, byte for byte, gets the block it asks for', async (test) => {
  const { head, body } = ipxePost();
  const id = toHex(body.subarray(20, 52));
  const store = new MemoryBlockStore({ maxBytes: 1_000_000 });
  const block = seededBytes(1, 65_536);
  store.set(blockKey(id, 2), block, 'test', { secret: KP, blockCount: 4 });
  const rig = await serve(test, { store });
  const client = await rig.client();
  const { status, body: answer } = await client.send(head).send(body).response('POST');
  const message = decodeResponse(Buffer.from(answer, 'latin1')) as BlockMessage;
  test.same([status, message.type, message.blockIndex, message.cipher], [200, 'block', 2, 'aes-128']);
  test.equal(toHex(decryptBlock('aes-128', KP, message, 65_536) as Uint8Array), toHex(block));
  test.equal(Buffer.from(answer, 'latin1').byteLength, 4 + 16 + 4 + 32 + 12 + 65_552 + 4 + 4 + 16);
});

await t.test('iPXE gets everything from a peer that has everything, on 32 connections at once', async (test) => {
  const contents: Readonly<Record<string, Piece>> = {
    sha256: piece(75 * 65_536 + 7),
    sha384: piece(200_000, { algorithm: 'sha384' }),
    sha512: piece(200_000, { algorithm: 'sha512' }),
    'version 2': piece(3_000_000, { version: 2 }),
  };
  for (const [name, whole] of Object.entries(contents)) {
    const origin = await originOf(test, whole);
    for (const cipher of CIPHERS.slice(1)) {
      const store = fill(new MemoryBlockStore({ maxBytes: 20_000_000 }), whole, ordinalsOf(whole));
      const rig = await serve(test, { store, cipher });
      let most = 0;
      const { bytes, refused } = await downloadAsIpxe(test, whole, rig.port, origin.port, async (connections) => {
        await until(() => rig.sockets.length === connections, 'all connections');
        most = rig.sockets.filter((socket) => !socket.destroyed).length;
      });
      test.same([...refused], [], `${name}, ${cipher}: nothing was refused`);
      test.ok(bytes.equals(whole.body), 'and all of it is right');
      test.equal(origin.requests.length, 0, 'the origin was not asked');
      test.equal(most, Math.min(IPXE_CONNECTIONS, whole.content.information.blockCount), 'connections at once');
      test.equal(rig.uploads.filter(({ result }) => result === 'block').length, whole.content.information.blockCount);
    }
  }
});

await t.test('iPXE asks the origin for what a peer has not', async (test) => {
  const whole = piece(40 * 65_536 + 100);
  const held = ordinalsOf(whole).filter((ordinal) => ordinal % 3 !== 1);
  const missing = ordinalsOf(whole).filter((ordinal) => ordinal % 3 === 1);
  const rig = await serve(test, { store: fill(new MemoryBlockStore({ maxBytes: 20_000_000 }), whole, held) });
  const origin = await originOf(test, whole);
  const { bytes, refused } = await downloadAsIpxe(test, whole, rig.port, origin.port);
  test.same(
    [...refused].toSorted(([a], [b]) => a - b),
    missing.map((ordinal) => [ordinal, 'no block']),
  );
  test.ok(bytes.equals(whole.body));
  test.same(
    origin.requests
      .map(({ fields }) => values(fields, 'range')[0])
      .toSorted((a, b) => ((a ?? '') < (b ?? '') ? -1 : 1)),
    missing
      .map((ordinal) => whole.content.block(ordinal))
      .map((block) => `bytes=${block.offset}-${rangeEnd(block) - 1}`)
      .toSorted((a, b) => (a < b ? -1 : 1)),
    'each missing block once',
  );
  test.match(values(origin.requests[0]?.fields ?? [], 'x-p2p-peerdist'), ['Version=1.1, MissingDataRequest=true']);
});

await t.test('iPXE takes no block that is not encrypted, and none when the peer is busy or wrong', async (test) => {
  const whole = piece(5 * 65_536);
  const everything = ordinalsOf(whole);
  const origin = await originOf(test, whole);
  const lying = new MemoryBlockStore({ maxBytes: 20_000_000 });
  for (const ordinal of everything) {
    const block = whole.content.block(ordinal);
    const facts = whole.content.segmentFacts(block.segment);
    lying.set(whole.content.key(block), seededBytes(ordinal + 1, block.length), 'test', facts);
  }
  const full = fill(new MemoryBlockStore({ maxBytes: 20_000_000 }), whole, everything);
  const cases: Readonly<Record<string, Parameters<typeof serve>[1]>> = {
    plaintext: { store: full, cipher: 'none' },
    'no block': { store: full, maxUploads: 0 },
    'another hash': { store: lying },
  };
  for (const [why, options] of Object.entries(cases)) {
    const rig = await serve(test, options);
    const { bytes, refused } = await downloadAsIpxe(test, whole, rig.port, origin.port);
    test.same(
      [...refused.values()],
      everything.map(() => why),
    );
    test.ok(bytes.equals(whole.body), 'the origin has it all');
  }
  test.equal(origin.requests.length, 3 * everything.length);
});
