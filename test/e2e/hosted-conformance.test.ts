/**
 * The rows H1 to H43 of Microsoft's test suite for hosted cache servers, played against the real command as Microsoft's client plays them:
 * the same messages, made here by hand, over bare sockets. Where a row contradicts the specification (it offers random hashes and wants them
 * believed, or INTERESTED once they are known), the outcome is that of the specification, and the row is played again with true hashes.
 */
import { spawnSync } from 'node:child_process';
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import t, { type Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { type CipherName, nativeHashProvider } from '../../lib/crypto/index.ts';
import { segmentId, SHA256, TRUNCATED_SHA512 } from '../../lib/protocol/pccrc/index.ts';
import {
  type BlockListMessage,
  type BlockMessage,
  decodeRequest,
  decodeResponse,
  namedBlocks,
  type RequestMessage,
  type ResponseMessage,
  type SegmentList,
} from '../../lib/protocol/pccrr/index.ts';
import { u32 as anyU32 } from '../support/content-information.ts';
import { blockOf, peerContent, type PeerContent } from '../support/peers.ts';
import { inTime, listen, Role, run, same, until } from '../support/proxies.ts';
import { seededBytes } from '../support/random.ts';

type Owner = Pick<Test, 'teardown'>;

const V1_OFFERS = '/C574AC30-5794-4AEE-B1BB-6651C5315029/';
const V2_OFFERS = '/0131501b-d67f-491b-9a40-c4bf27bcb4d4/';
const RETRIEVAL = '/116B50EB-ECE2-41ac-8429-9F9E963361B7/';
const BLOCK_BYTES = 65_536;
/** Milliseconds after which a test gives up waiting. */
const PATIENCE_MS = 8_000;

/** Asks again until the answer is yes. */
async function eventually(condition: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
}

// --- What is offered -----------------------------------------------------------------------------------------------------------------

/** A segment with its blocks. */
interface Segment {
  readonly version: 1 | 2;
  /** HoHoDk. */
  readonly id: Buffer;
  /** HoD. */
  readonly hashOfData: Buffer;
  /** Kp. */
  readonly secret: Buffer;
  readonly blocks: readonly Buffer[];
  /** Of the blocks, one after the other. */
  readonly hashes: Buffer;
}

/** One random block. Microsoft's rows leave it at random hashes; true ones hash the block, and the list of them to HoD. */
function randomSegment(version: 1 | 2, hashes: 'random' | 'true' = 'random'): Segment {
  const block = randomBytes(BLOCK_BYTES);
  const list = hashes === 'true' ? sha256(block) : randomBytes(32);
  const hashOfData = hashes === 'true' ? sha256(list) : randomBytes(32);
  const secret = randomBytes(32);
  const algorithm = version === 1 ? SHA256 : TRUNCATED_SHA512;
  const id = Buffer.from(segmentId(nativeHashProvider, algorithm, secret, hashOfData));
  return { version, id, hashOfData, secret, blocks: [block], hashes: list };
}

/** The segments of a content that a content server has described. */
function segmentsOf(content: PeerContent): Segment[] {
  const { information } = content.content;
  return Array.from({ length: information.segmentCount }, (_, segment) => {
    const { first, last } = content.content.ordinals(information.segmentRange(segment));
    return {
      version: information.version,
      id: Buffer.from(content.content.segmentId(segment), 'hex'),
      hashOfData: Buffer.from(information.hashOfData(segment)),
      secret: Buffer.from(information.segmentSecret(segment)),
      blocks: Array.from({ length: last - first + 1 }, (_, index) => Buffer.from(blockOf(content, first + index))),
      hashes: Buffer.from(information.blockLists[segment]?.hashes ?? []),
    };
  });
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function bytesOf({ blocks }: Segment): number {
  return blocks.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

// --- Messages, as Microsoft's stack lays them out ----------------------------------------------------------------------------------------

const u16 = (value: number): Buffer => Buffer.from([value >>> 8, value & 0xff]);
const u32 = (...values: readonly number[]): Buffer => Buffer.concat(values.map((value) => anyU32(value, false)));
const littleU32 = (...values: readonly number[]): Buffer => Buffer.concat(values.map((value) => anyU32(value, true)));

const INITIAL_OFFER = 1;
const SEGMENT_INFO = 2;
const BATCHED_OFFER = 3;

/** Header and connection information. What the padding is made of is nobody's business. */
function offerHead(type: number, port: number, version: readonly [minor: number, major: number]): Buffer {
  return Buffer.concat([Buffer.from(version), u16(type), randomBytes(4), u16(port), randomBytes(6)]);
}

function initialOffer({ id }: Segment, port: number): Buffer {
  return Buffer.concat([offerHead(INITIAL_OFFER, port, [0, 1]), id]);
}

interface InformationChanges {
  readonly version?: number;
  readonly algorithm?: number;
  readonly segmentCount?: number;
  readonly descriptions?: number;
}

/** Microsoft's client leaves both fields of the range 0. */
function segmentInfo(segment: Segment, port: number, changes: InformationChanges = {}): Buffer {
  const { version = 0x0100, algorithm = 0x800c, segmentCount = 1, descriptions = 1 } = changes;
  const { hashOfData, secret, hashes } = segment;
  const description = Buffer.concat([littleU32(0, 0, bytesOf(segment), BLOCK_BYTES), hashOfData, secret]);
  return Buffer.concat([
    offerHead(SEGMENT_INFO, port, [0, 1]),
    randomBytes(16), // ContentTag
    Buffer.from([version & 0xff, version >>> 8]),
    littleU32(algorithm, 0, 0, segmentCount),
    ...Array.from({ length: descriptions }, () => description),
    littleU32(hashes.byteLength / 32),
    hashes,
  ]);
}

/** SHA-256 and truncated SHA-512, as a batched offer names them. */
const OFFER_HASHES = { 1: 0x01, 2: 0x04 } as const;

function batchedOffer(
  segments: readonly Segment[],
  port: number,
  changes: { readonly tag?: Buffer; readonly algorithm?: number } = {},
): Buffer {
  const { tag = randomBytes(16) } = changes;
  return Buffer.concat([
    offerHead(BATCHED_OFFER, port, [0, 2]),
    ...segments.flatMap((segment) => {
      const size = bytesOf(segment);
      const algorithm = changes.algorithm ?? OFFER_HASHES[segment.version];
      const blockSize = segment.version === 1 ? BLOCK_BYTES : size;
      return [u32(blockSize, size), u16(tag.byteLength), tag, Buffer.from([algorithm]), segment.id];
    }),
  ]);
}

type Version = readonly [major: number, minor: number];

/** A version that nobody speaks. */
const ODD: Version = [0xfefe, 0xfefe];
const CIPHERS: readonly CipherName[] = ['none', 'aes-128', 'aes-192', 'aes-256'];
const KEY_BYTES = { none: 0, 'aes-128': 16, 'aes-192': 24, 'aes-256': 32 } as const;

function message(type: number, body: Buffer, [major, minor]: Version = [1, 0], cipher = 1): Buffer {
  return Buffer.concat([u16(minor), u16(major), u32(type, 16 + body.byteLength, cipher), body]);
}

function sized(bytes: Uint8Array, size = bytes.byteLength): Buffer {
  return Buffer.concat([u32(size), bytes, Buffer.alloc((4 - (bytes.byteLength % 4)) % 4)]);
}

type Range = readonly [index: number, count: number];

/** `count` is what is announced, whatever there is. */
function ranges(list: readonly Range[], count = list.length): Buffer {
  return Buffer.concat([u32(count), ...list.map((range) => u32(...range))]);
}

const negotiation = (min: Version, max: Version): Buffer =>
  message(0, Buffer.concat([min, max].flatMap(([major, minor]) => [u16(minor), u16(major)])));
const getBlockList = (id: Uint8Array, list: readonly Range[], count?: number): Buffer =>
  message(2, Buffer.concat([sized(id), ranges(list, count)]));
/** SizeOfDataForVrfBlock is 0. */
const getBlocks = (id: Uint8Array, list: readonly Range[], count?: number): Buffer =>
  message(3, Buffer.concat([sized(id), ranges(list, count), u32(0)]));
const getSegmentList = (ids: readonly Uint8Array[], count = ids.length, blob: Uint8Array = Buffer.alloc(0)): Buffer =>
  message(6, Buffer.concat([randomBytes(16), u32(count), ...ids.map((id) => sized(id)), sized(blob)]), [2, 0]);

/** The initialization vector of Microsoft's test peer, sent whatever the cipher is. */
const VECTOR = Buffer.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

interface BlockChanges {
  readonly cipher?: CipherName;
  /** Bytes of Kp that are the key. Microsoft's test peer takes all 32, whatever cipher it names. @default 32 */
  readonly keyBytes?: number;
  readonly type?: number;
  readonly version?: Version;
  readonly data?: Buffer;
  readonly sizeOfBlock?: number;
  readonly sizeOfVector?: number;
}

/** MSG_BLK with its length in front. */
function blockMessage({ id, secret, blocks }: Segment, index: number, changes: BlockChanges = {}): Buffer {
  const { cipher = 'aes-128', keyBytes = 32, type = 5, version } = changes;
  const { data = encrypted(blocks[index] as Buffer, secret, cipher === 'none' ? 0 : keyBytes) } = changes;
  const body = [
    sized(id),
    u32(index, 0),
    sized(data, changes.sizeOfBlock),
    u32(0), // SizeOfVrfBlock
    sized(VECTOR, changes.sizeOfVector),
  ];
  const whole = message(type, Buffer.concat(body), version, CIPHERS.indexOf(cipher));
  return Buffer.concat([u32(whole.byteLength), whole]);
}

function encrypted(bytes: Buffer, secret: Buffer, keyBytes: number): Buffer {
  if (keyBytes === 0) return bytes;
  const cipher = createCipheriv(`aes-${8 * keyBytes}-cbc`, secret.subarray(0, keyBytes), VECTOR);
  return Buffer.concat([cipher.update(bytes), cipher.final()]);
}

function decrypted({ data, iv, cipher }: BlockMessage, secret: Buffer, keyBytes: number = KEY_BYTES[cipher]): Buffer {
  if (cipher === 'none') return Buffer.from(data);
  const decipher = createDecipheriv(`aes-${8 * keyBytes}-cbc`, secret.subarray(0, keyBytes), iv);
  return Buffer.concat([decipher.update(data), decipher.final()]);
}

// --- Microsoft's client --------------------------------------------------------------------------------------------------------------

interface Reply {
  /** 0 when the connection ended without an answer. */
  readonly status: number;
  readonly head: string;
  readonly body: Buffer;
}

const NO_REPLY: Reply = { status: 0, head: '', body: Buffer.alloc(0) };

/** Posts messages over one connection, as long as the server keeps it. */
class Client {
  /** Connections there have been. */
  connections = 0;
  readonly #port: number;
  readonly #tls: ConnectionOptions | undefined;
  #socket: Socket | undefined;
  #chunks: AsyncIterator<Buffer> | undefined;
  #rest: Buffer = Buffer.alloc(0);

  constructor(owner: Owner, port: number, tls?: ConnectionOptions) {
    this.#port = port;
    this.#tls = tls;
    owner.teardown(() => this.#socket?.destroy());
  }

  /** An offer: HTTP/1.0, kept alive, and nothing is said about its type. */
  offer(path: string, body: Uint8Array, fields: readonly string[] = []): Promise<Reply> {
    return this.#exchange(async (socket) => {
      const head = this.#head(path, '1.0', [`Content-Length: ${body.byteLength}`, 'Connection: keep-alive', ...fields]);
      socket.write(Buffer.concat([head, body]));
      return this.#reply();
    }, path);
  }

  /** A retrieval message: HTTP/1.1, and its body waits until the server wants it. */
  ask(body: Uint8Array): Promise<Reply> {
    return this.#exchange(async (socket) => {
      socket.write(this.#head(RETRIEVAL, '1.1', [`Content-Length: ${body.byteLength}`, 'Expect: 100-continue']));
      const interim = await this.#reply();
      if (interim.status !== 100) throw new Error(`${interim.status} where 100 was expected`);
      socket.write(body);
      return this.#reply();
    }, RETRIEVAL);
  }

  async #exchange(act: (socket: Socket) => Promise<Reply>, what: string): Promise<Reply> {
    const exchange = async (): Promise<Reply> => {
      const socket = await this.#open();
      if (socket === undefined) return NO_REPLY;
      const reply = await act(socket);
      if (reply.status === 0 || /^connection: close$/im.test(reply.head)) socket.destroy();
      return reply;
    };
    return inTime(exchange(), what, PATIENCE_MS);
  }

  async #open(): Promise<Socket | undefined> {
    if (this.#socket !== undefined && !this.#socket.destroyed) return this.#socket;
    const options = { port: this.#port, host: '127.0.0.1' };
    const socket = this.#tls === undefined ? connect(options) : connectTls({ ...options, ...this.#tls });
    socket.on('error', () => {}).setNoDelay();
    this.connections += 1;
    [this.#socket, this.#rest] = [socket, Buffer.alloc(0)];
    try {
      await once(socket, this.#tls === undefined ? 'connect' : 'secureConnect');
    } catch {
      return undefined;
    }
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    return socket;
  }

  #head(path: string, version: string, fields: readonly string[]): Buffer {
    const lines = [`POST ${path} HTTP/${version}`, `Host: 127.0.0.1:${this.#port}`, ...fields];
    return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
  }

  async #reply(): Promise<Reply> {
    while (!this.#rest.includes('\r\n\r\n')) if (!(await this.#read())) return NO_REPLY;
    const start = this.#rest.indexOf('\r\n\r\n') + 4;
    const head = this.#rest.toString('latin1', 0, start).replaceAll('\r', '');
    const end = start + Number(/^content-length: (\d+)$/im.exec(head)?.[1] ?? 0);
    while (this.#rest.byteLength < end) if (!(await this.#read())) return NO_REPLY;
    const body = this.#rest.subarray(start, end);
    this.#rest = this.#rest.subarray(end);
    return { status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1] ?? 0), head, body };
  }

  async #read(): Promise<boolean> {
    try {
      const next = await this.#chunks?.next();
      if (next === undefined || next.done === true) return false;
      this.#rest = Buffer.concat([this.#rest, next.value]);
      return true;
    } catch {
      return false;
    }
  }
}

/** What an answer to an offer says; all of its bytes count. */
function verdictOf({ status, body }: Reply): string {
  if (status !== 200) return `HTTP ${status}`;
  return { '0000000100': 'OK', '0000000101': 'INTERESTED' }[toHex(body)] ?? `${body.byteLength} other bytes`;
}

function isRefused({ status }: Reply): boolean {
  return status >= 400 && status < 500;
}

/** A running hosted cache and the connections of one client to it. */
class Hosted {
  readonly role: Role;
  readonly #v1: Client;
  readonly #v2: Client;
  readonly #retrieval: Client;

  constructor(owner: Owner, role: Role) {
    this.role = role;
    this.#v1 = new Client(owner, role.offerPort as number, { rejectUnauthorized: false });
    this.#v2 = new Client(owner, role.port);
    this.#retrieval = new Client(owner, role.port);
  }

  static async start(owner: Owner, stateDirectory: string, ...more: readonly string[]): Promise<Hosted> {
    const listeners = ['--listen', '127.0.0.1:0', '--offer-listen', '127.0.0.1:0'];
    const rest = ['--state-dir', stateDirectory, '--store', 'memory', '--allow-local-offers', ...more];
    return new Hosted(owner, await Role.start(owner, ['hosted', ...listeners, ...rest]));
  }

  offerV1(body: Uint8Array, fields?: readonly string[]): Promise<Reply> {
    return this.#v1.offer(V1_OFFERS, body, fields);
  }

  offerV2(body: Uint8Array): Promise<Reply> {
    return this.#v2.offer(V2_OFFERS, body);
  }

  /** Connections that version 1 offers have taken. */
  get connections(): number {
    return this.#v1.connections;
  }

  ask(body: Uint8Array): Promise<Reply> {
    return this.#retrieval.ask(body);
  }

  async negotiate(min: Version, max: Version): Promise<ResponseMessage> {
    return this.#answer(negotiation(min, max), 'negotiation-response');
  }

  /** Indexes of the blocks it says that it has of a segment. */
  async blockList({ id, blocks }: Segment): Promise<number[]> {
    const { ranges: held } = await this.#answer(getBlockList(id, [[0, blocks.length]]), 'block-list');
    return flagged(namedBlocks(held));
  }

  /** Positions of the segments it says that it has some of. */
  async segmentList(segments: readonly Segment[]): Promise<number[]> {
    const { ranges: held } = await this.#answer(getSegmentList(segments.map(({ id }) => id)), 'segment-list');
    return flagged(namedBlocks(held));
  }

  async block({ id }: Segment, index = 0): Promise<BlockMessage> {
    const block = await this.#answer(getBlocks(id, [[index, 1]]), 'block');
    if (!same(block.segmentId, id) || block.blockIndex !== index) throw new Error('another block than was asked for');
    return block;
  }

  /** Waits until it holds all blocks of a segment. */
  async stored(segment: Segment): Promise<void> {
    const isStored = async (): Promise<boolean> => (await this.blockList(segment)).length === segment.blocks.length;
    return eventually(isStored, 'the cache holds the segment');
  }

  /** True when no question of any kind brings to light anything of a segment. */
  async isEmpty(segment: Segment): Promise<boolean> {
    const [segments, blocks] = [await this.segmentList([segment]), await this.blockList(segment)];
    return segments.length + blocks.length + (await this.block(segment)).data.byteLength === 0;
  }

  async metric(series: string): Promise<number> {
    return (await this.role.metric(series)) ?? NaN;
  }

  /** Questions to clients so far that brought no honest answer. */
  async failures(): Promise<number> {
    let failures = 0;
    for (const result of ['lied', 'failed', 'timeout'])
      failures += await this.metric(`peerdist_ingest_requests_total{result="${result}"}`);
    return failures;
  }

  async #answer<Type extends ResponseMessage['type']>(
    body: Uint8Array,
    type: Type,
  ): Promise<Extract<ResponseMessage, { readonly type: Type }>> {
    const { status, body: bytes } = await this.ask(body);
    if (status !== 200) throw new Error(`HTTP ${status} in place of ${type}`);
    const response = decodeResponse(bytes);
    if (response.type !== type) throw new Error(`${response.type} in place of ${type}`);
    return response as Extract<ResponseMessage, { readonly type: Type }>;
  }
}

function flagged(flags: readonly boolean[]): number[] {
  return [...flags.keys()].filter((index) => flags[index] === true);
}

// --- The offering client's own retrieval server --------------------------------------------------------------------------------------

type AboutSegment = Extract<RequestMessage, { readonly segmentId: Uint8Array }>;

interface Given {
  readonly segment: Segment;
  readonly answer: (index: number) => Buffer;
}

/** Writes down what it is asked. It tells truly which blocks it has; what it says when one is asked for is up to the test. */
class TestPeer {
  port = 0;
  /** Requests that no hosted cache should send. */
  readonly errors: string[] = [];
  readonly #messages: RequestMessage[] = [];
  readonly #given = new Map<string, Given>();
  readonly #server = createServer({ noDelay: true }, (request, response) => void this.#receive(request, response));

  static async start(owner: Owner): Promise<TestPeer> {
    const peer = new TestPeer();
    peer.port = await listen(owner, peer.#server);
    return peer;
  }

  /** Has a segment from now on. */
  give(segment: Segment, changes: BlockChanges = {}): this {
    this.#given.set(toHex(segment.id), { segment, answer: (index) => blockMessage(segment, index, changes) });
    return this;
  }

  /** Types of the messages about a segment. */
  asked({ id }: Segment): string[] {
    return this.#about(id).map(({ type }) => type);
  }

  /** Indexes of the blocks of a segment that were asked for, in order. */
  blocks({ id }: Segment): number[] {
    return this.#about(id).flatMap((request) =>
      request.type === 'get-blocks' ? request.ranges.map(({ index }) => index) : [],
    );
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #about(id: Buffer): AboutSegment[] {
    return this.#messages.filter(
      (request): request is AboutSegment => 'segmentId' in request && same(request.segmentId, id),
    );
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
      if (request.method !== 'POST' || request.url !== RETRIEVAL) throw new Error(`${request.method} ${request.url}`);
      const asked = decodeRequest(Buffer.concat(chunks));
      if (asked.type === 'unknown-version') throw new Error(asked.type);
      this.#messages.push(asked);
      const answer = this.#answer(asked);
      response.writeHead(200, { 'content-length': answer.byteLength }).end(answer);
    } catch (error) {
      this.errors.push(String(error));
      response.destroy();
    }
  }

  #answer(asked: RequestMessage): Buffer {
    if (asked.type !== 'get-blocks' && asked.type !== 'get-block-list') throw new Error(`${asked.type} of a client`);
    const { segmentId: id, ranges: wanted } = asked;
    const given = this.#given.get(toHex(id));
    if (given === undefined) throw new Error('a segment that was never offered');
    const [first] = wanted;
    if (asked.type === 'get-blocks') {
      if (wanted.length !== 1 || first?.count !== 1) throw new Error('one block at a time');
      return given.answer(first.index);
    }
    const list = message(4, Buffer.concat([sized(id), ranges([[0, given.segment.blocks.length]]), u32(0)]));
    return Buffer.concat([u32(list.byteLength), list]);
  }
}

// --- One cache for all rows ----------------------------------------------------------------------------------------------------------

const directory = t.testdir({ state: {}, users: 'pc1:a pass:word\npc2:other\n' });
const path = (name: string): string => join(directory, name);
const hosted = await Hosted.start(t, path('state'));

/**
 * The suite resets a hosted cache before and after every row: it posts ten random bytes as an offer and never looks at the answer. The
 * connection stays open until the garbage collector comes, here until the test ends.
 */
async function reset(owner: Owner): Promise<void> {
  const malformed = (): Promise<number> => hosted.metric('peerdist_offers_total{result="malformed"}');
  const before = await malformed();
  const socket = connectTls({ port: hosted.role.offerPort, host: '127.0.0.1', rejectUnauthorized: false });
  owner.teardown(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  const head = `POST ${V1_OFFERS} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\nConnection: keep-alive\r\n\r\n`;
  socket.write(Buffer.concat([Buffer.from(head), randomBytes(10)]));
  await eventually(async () => (await malformed()) > before, 'the ten bytes have been looked at');
}

t.beforeEach(reset);

/** Offers one segment as its version wants it: version 1 with its hashes. */
async function offer(segment: Segment, { port }: TestPeer): Promise<string> {
  return segment.version === 1
    ? verdictOf(await hosted.offerV1(segmentInfo(segment, port)))
    : verdictOf(await hosted.offerV2(batchedOffer([segment], port)));
}

/** A later honest offer of the same client is fetched: all that was offered before has had its turn. */
async function laterOffer(peer: TestPeer): Promise<void> {
  const later = randomSegment(2);
  peer.give(later);
  if ((await offer(later, peer)) !== 'OK') throw new Error('an honest offer was not taken');
  await hosted.stored(later);
}

/** Nothing of the segments is ever asked for, and nothing of them can be had. */
async function assertUnwanted(test: Test, peer: TestPeer, ...segments: readonly Segment[]): Promise<void> {
  await laterOffer(peer);
  for (const segment of segments) {
    test.same(peer.asked(segment), [], 'no retrieval');
    test.ok(await hosted.isEmpty(segment), 'nothing is served');
  }
  test.same(peer.errors, []);
}

// --- 3.1 End to end ------------------------------------------------------------------------------------------------------------------

await t.test('H1 version 1: offered block by block, fetched once, given away when the client is gone', async (test) => {
  const peer = await TestPeer.start(test);
  // The first has a short block at its end; a list is asked for of a segment of that many.
  const contents = [
    peerContent(1, seededBytes(101, 20 * BLOCK_BYTES - 1_000)),
    peerContent(1, seededBytes(102, 10_240)),
  ];
  for (const content of contents) {
    for (const segment of segmentsOf(content)) {
      test.same(await hosted.blockList(segment), [], 'nothing before');
      peer.give(segment);
      const { connections } = hosted;
      test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, peer.port))), 'INTERESTED');
      test.equal(verdictOf(await hosted.offerV1(segmentInfo(segment, peer.port))), 'OK');
      test.ok(hosted.connections - connections <= 1, 'over one connection');
      await until(() => peer.blocks(segment).length === segment.blocks.length, 'every block has been asked for');
      await hosted.stored(segment);
      await laterOffer(peer);
      const asked = peer.blocks(segment).toSorted((a, b) => a - b);
      test.same(asked, [...segment.blocks.keys()], 'each block exactly once');
    }
  }
  await peer.stop();
  test.match(await hosted.negotiate([1, 0], [1, 0xffff]), { min: { major: 1, minor: 0 }, max: { major: 2, minor: 0 } });
  for (const content of contents) {
    const pieces: Buffer[] = [];
    for (const segment of segmentsOf(content)) {
      for (const index of await hosted.blockList(segment)) {
        const block = await hosted.block(segment, index);
        // The peer took all of Kp for AES-128; the cache gives what every other client takes for it.
        test.equal(block.cipher, 'aes-128');
        pieces.push(decrypted(block, segment.secret));
      }
    }
    test.ok(same(Buffer.concat(pieces), content.bytes), 'the content');
  }
  test.same(peer.errors, []);
});

await t.test(
  'H2 version 2: one batch, one question for each segment, and the same bytes for everybody',
  async (test) => {
    const peer = await TestPeer.start(test);
    const content = peerContent(2, seededBytes(103, 1_500_000));
    const segments = segmentsOf(content);
    test.ok(segments.length > 5, `${segments.length} segments`);
    for (const segment of segments) {
      test.same(await hosted.segmentList([segment]), [], 'nothing before');
      peer.give(segment, { cipher: 'aes-192', keyBytes: 24 });
    }
    test.equal(verdictOf(await hosted.offerV2(batchedOffer(segments, peer.port))), 'OK');
    for (const segment of segments) await hosted.stored(segment);
    await laterOffer(peer);
    for (const segment of segments) test.same(peer.asked(segment), ['get-blocks'], 'one question for each');
    await peer.stop();
    test.match(await hosted.negotiate([1, 0], [1, 0]), { min: { major: 1 } });
    test.same(await hosted.segmentList(segments), [...segments.keys()]);
    const pieces: Buffer[] = [];
    for (const segment of segments) {
      const block = await hosted.block(segment);
      // Without Kp a cache cannot do anything but hand out what it got.
      test.equal(block.cipher, 'aes-192');
      test.same(Buffer.from(block.iv), VECTOR);
      test.ok(same(block.data, encrypted(segment.blocks[0] as Buffer, segment.secret, 24)));
      pieces.push(decrypted(block, segment.secret));
    }
    test.ok(same(Buffer.concat(pieces), content.bytes), 'the content');
    test.same(peer.errors, []);
  },
);

// --- 3.2 Offers ----------------------------------------------------------------------------------------------------------------------

await t.test('H3 H4 an offer of no known version or type is refused', async (test) => {
  const peer = await TestPeer.start(test);
  test.ok(isRefused(await hosted.offerV1(offerHead(INITIAL_OFFER, peer.port, [0xfe, 0xfe]))), 'H3');
  const { id } = randomSegment(1);
  test.ok(isRefused(await hosted.offerV1(Buffer.concat([offerHead(0xfefe, peer.port, [0, 1]), id]))), 'H4');
});

await t.test('H5 hashes that are not those of their segment are as good as none: still INTERESTED', async (test) => {
  const peer = await TestPeer.start(test);
  const segment = randomSegment(1);
  peer.give(segment);
  test.equal(await offer(segment, peer), 'OK');
  await assertUnwanted(test, peer, segment);
  test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, peer.port))), 'INTERESTED');
  await assertUnwanted(test, peer, segment);
});

await t.test('H5 with true hashes: fetched, then OK, and nothing is fetched again', async (test) => {
  const peer = await TestPeer.start(test);
  const segment = randomSegment(1, 'true');
  peer.give(segment);
  test.equal(await offer(segment, peer), 'OK');
  await hosted.stored(segment);
  test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, peer.port))), 'OK');
  await laterOffer(peer);
  test.same(peer.blocks(segment), [0]);
  test.ok(same(decrypted(await hosted.block(segment), segment.secret), segment.blocks[0] as Buffer));
});

await t.test('H6 a client that nobody reaches has told the hashes all the same, if they are true', async (test) => {
  const [gone, peer] = [await TestPeer.start(test), await TestPeer.start(test)];
  await gone.stop();
  const untrue = randomSegment(1);
  peer.give(untrue);
  const before = await hosted.failures();
  test.equal(verdictOf(await hosted.offerV1(initialOffer(untrue, gone.port))), 'INTERESTED');
  test.equal(await offer(untrue, gone), 'OK');
  test.equal(verdictOf(await hosted.offerV1(initialOffer(untrue, gone.port))), 'INTERESTED');
  await assertUnwanted(test, peer, untrue);
  test.equal(await hosted.failures(), before, 'nobody was to be reached');

  const segment = randomSegment(1, 'true');
  peer.give(segment);
  test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, gone.port))), 'INTERESTED');
  test.equal(await offer(segment, gone), 'OK');
  await eventually(async () => (await hosted.failures()) === before + 1, 'it was tried');
  test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, gone.port))), 'OK', 'all block hashes are known');
  await eventually(
    async () => (await hosted.failures()) === before + 2,
    'it was tried again, for it was offered again',
  );
  test.ok(await hosted.isEmpty(segment));
  test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, peer.port))), 'OK');
  await hosted.stored(segment);
  test.ok(same(decrypted(await hosted.block(segment), segment.secret), segment.blocks[0] as Buffer));
});

for (const [row, changes] of [
  ['H7 an unknown version', { version: 0xfefe }],
  ['H8 an unknown hash algorithm', { algorithm: 0xfefe }],
  ['H9 no segment where one is announced', { descriptions: 0 }],
  ['H10 two segments with the blocks of one', { segmentCount: 2, descriptions: 2 }],
] as const) {
  await t.test(`${row} in segment information: OK, and nothing happens`, async (test) => {
    const peer = await TestPeer.start(test);
    // Nothing else is wrong with it.
    const segment = randomSegment(1, 'true');
    peer.give(segment);
    test.equal(verdictOf(await hosted.offerV1(segmentInfo(segment, peer.port, changes))), 'OK');
    await assertUnwanted(test, peer, segment);
    test.equal(verdictOf(await hosted.offerV1(initialOffer(segment, peer.port))), 'INTERESTED');
  });
}

await t.test('H11 H12 H13 a batch of none, of 129 or without tags is refused, one of 128 is not', async (test) => {
  const peer = await TestPeer.start(test);
  const segments = Array.from({ length: 129 }, () => randomSegment(2));
  for (const segment of segments) peer.give(segment);
  const refused: readonly (readonly [row: string, batch: Buffer])[] = [
    ['H11', batchedOffer([], peer.port)],
    ['H12', batchedOffer(segments, peer.port)],
    ['H13', batchedOffer(segments.slice(0, 1), peer.port, { tag: Buffer.alloc(0) })],
  ];
  for (const [row, batch] of refused) test.ok(isRefused(await hosted.offerV2(batch)), row);
  await laterOffer(peer);
  for (const segment of segments) if (peer.asked(segment).length > 0) test.fail('no retrieval');
  test.same(await hosted.segmentList(segments), []);
  test.equal(verdictOf(await hosted.offerV2(batchedOffer(segments.slice(1), peer.port))), 'OK');
  for (const segment of segments.slice(1)) await hosted.stored(segment);
  test.same(await hosted.segmentList(segments), [...segments.keys()].slice(1));
  test.same(peer.errors, []);
});

await t.test('H14 a batch with an unknown hash algorithm: OK, and nothing happens', async (test) => {
  const peer = await TestPeer.start(test);
  const segment = randomSegment(2);
  peer.give(segment);
  test.equal(verdictOf(await hosted.offerV2(batchedOffer([segment], peer.port, { algorithm: 0xfe }))), 'OK');
  await assertUnwanted(test, peer, segment);
});

await t.test('H15 the same batch again: OK, and nothing is fetched twice', async (test) => {
  const peer = await TestPeer.start(test);
  const segment = randomSegment(2);
  peer.give(segment);
  const batch = batchedOffer([segment], peer.port);
  test.equal(verdictOf(await hosted.offerV2(batch)), 'OK');
  await hosted.stored(segment);
  test.equal(verdictOf(await hosted.offerV2(batch)), 'OK');
  await laterOffer(peer);
  test.same(peer.blocks(segment), [0]);
});

await t.test('the reset between rows: ten random bytes by HTTPS, the answer unread, leave no trace', async (test) => {
  const segment = randomSegment(2);
  const peer = await TestPeer.start(test);
  peer.give(segment);
  await offer(segment, peer);
  await hosted.stored(segment);
  const state = (): Promise<number[]> =>
    Promise.all(
      ['peerdist_store_bytes{store="block"}', 'peerdist_offers_total{result="accepted"}'].map((series) =>
        hosted.metric(series),
      ),
    );
  const before = await state();
  // More of them than one address may have connections: those that were answered do not count.
  for (let round = 0; round < 70; round += 1) await reset(test);
  test.same(await state(), before);
  await laterOffer(peer);
  test.ok(same((await hosted.block(segment)).data, encrypted(segment.blocks[0] as Buffer, segment.secret, 32)));
});

// --- 3.3 Retrieval server ------------------------------------------------------------------------------------------------------------

await t.test('H16 H17 H18 what was meant: odd types and ciphers are refused, odd versions negotiated', async (test) => {
  const { id } = randomSegment(2);
  const body = Buffer.concat([sized(id), ranges([[0, 1]]), u32(0)]);
  test.ok(isRefused(await hosted.ask(message(0xfefe, body))), 'H16');
  const { status, body: answer } = await hosted.ask(message(3, body, ODD));
  test.equal(status, 200, 'H17');
  test.match(decodeResponse(answer), { type: 'negotiation-response', min: { major: 1 }, max: { major: 2 } });
  test.ok(isRefused(await hosted.ask(message(3, body, [1, 0], 0xfefe))), 'H18');
});

for (const [cipher, rows] of [
  ['aes-128', ''],
  ['aes-192', 'H19 H20 H34 H35 '],
  ['aes-256', 'H21 H22 H36 H37 '],
  ['none', 'H23 H24 H38 H39 '],
] as const) {
  await t.test(`${rows}a block under ${cipher}: as it came, or anew where its hash is known`, async (test) => {
    const peer = await TestPeer.start(test);
    // Microsoft's form of version 1, with hashes that hash to nothing.
    const untrue = randomSegment(1);
    peer.give(untrue, { cipher });
    test.equal(await offer(untrue, peer), 'OK');
    await assertUnwanted(test, peer, untrue);
    // With all of Kp for a key, as Microsoft's test peer encrypts, and with as much of it as the cipher takes, as everybody else does.
    for (const keyBytes of new Set([32, KEY_BYTES[cipher]])) {
      for (const version of [1, 2] as const) {
        const segment = randomSegment(version, version === 1 ? 'true' : 'random');
        peer.give(segment, { cipher, keyBytes });
        test.equal(await offer(segment, peer), 'OK');
        await hosted.stored(segment);
        test.same(await hosted.segmentList([untrue, segment]), [1]);
        test.same(peer.blocks(segment), [0]);
        const block = await hosted.block(segment);
        const [plain] = segment.blocks as [Buffer];
        if (version === 1) {
          test.equal(block.cipher, 'aes-128');
          test.ok(same(decrypted(block, segment.secret), plain), `version 1, ${keyBytes}`);
        } else {
          test.equal(block.cipher, cipher);
          test.same(Buffer.from(block.iv), VECTOR, 'also where the cipher needs none');
          test.ok(same(block.data, encrypted(plain, segment.secret, cipher === 'none' ? 0 : keyBytes)));
          test.ok(same(decrypted(block, segment.secret, keyBytes), plain), `version 2, ${keyBytes}`);
        }
      }
    }
    test.same(peer.errors, []);
  });
}

await t.test('H25 to H31 counts that do not fit are refused, questions about nothing are answered', async (test) => {
  const peer = await TestPeer.start(test);
  const [held, unknown] = [randomSegment(2), randomSegment(2)];
  peer.give(held);
  await offer(held, peer);
  await hosted.stored(held);
  const one: readonly Range[] = [[0, 1]];
  for (const { id } of [held, unknown]) {
    const refused: readonly (readonly [row: string, question: Buffer])[] = [
      ['H25', getBlockList(id, one, 10)],
      ['H27', getBlocks(id, one, 10)],
      ['H29', getSegmentList([id], 2)],
      ['H30', getSegmentList([])],
    ];
    for (const [row, question] of refused) test.ok(isRefused(await hosted.ask(question)), row);
    const list = await hosted.ask(getBlockList(id, []));
    test.equal(list.status, 200, 'H26');
    const { ranges: listed } = decodeResponse(list.body) as BlockListMessage;
    test.same(listed, [], 'H26');
    const none = await hosted.ask(getBlocks(id, [[0, 0]]));
    test.equal(none.status, 200, 'H28');
    const { type, data } = decodeResponse(none.body) as BlockMessage;
    test.same([type, data.byteLength], ['block', 0], 'H28');
    // Version 1, hundredths of a second, one age: segment 0 is one unit old.
    const blob = Buffer.from([0, 1, 3, 1, 0, 1, 0, 0]);
    const { status, body } = await hosted.ask(getSegmentList([id], 1, blob));
    test.equal(status, 200, 'H31');
    const segments = decodeResponse(body) as SegmentList;
    test.same(segments.ranges, id === held.id ? [{ index: 0, count: 1 }] : [], 'H31');
  }
});

// --- 3.4 The retrieval client inside -------------------------------------------------------------------------------------------------

for (const [row, version, changes] of [
  ['H32 SizeOfBlock 0 in front of a block (V1)', 1, { sizeOfBlock: 0 }],
  ['H32 SizeOfBlock 0 in front of a block (V2)', 2, { sizeOfBlock: 0 }],
  ['H33 SizeOfIVBlock 0 in front of a vector (V1)', 1, { sizeOfVector: 0 }],
  ['H33 SizeOfIVBlock 0 in front of a vector (V2)', 2, { sizeOfVector: 0 }],
  ['H40 an unknown message type (V1)', 1, { type: 0xfefe }],
  ['H41 an unknown message type (V2)', 2, { type: 0xfefe }],
  ['H42 an unknown version and no block (V1)', 1, { version: ODD, data: Buffer.alloc(0) }],
  ['H43 an unknown version and message type (V2)', 2, { version: ODD, type: 0xfefe }],
] as const) {
  await t.test(`${row}: not kept, and not asked for again until it is offered again`, async (test) => {
    const peer = await TestPeer.start(test);
    const segment = randomSegment(version, version === 1 ? 'true' : 'random');
    peer.give(segment, changes);
    const before = await hosted.failures();
    test.equal(await offer(segment, peer), 'OK');
    await eventually(async () => (await hosted.failures()) > before, 'the answer has been looked at');
    await laterOffer(peer);
    test.same(peer.asked(segment), ['get-blocks']);
    test.ok(await hosted.isEmpty(segment));
    peer.give(segment);
    test.equal(await offer(segment, peer), 'OK');
    await hosted.stored(segment);
    test.same(peer.asked(segment), ['get-blocks', 'get-blocks']);
    const key = version === 1 ? undefined : 32;
    test.ok(same(decrypted(await hosted.block(segment), segment.secret, key), segment.blocks[0] as Buffer));
    test.same(peer.errors, []);
  });
}

// --- Who may offer over HTTPS --------------------------------------------------------------------------------------------------------

await t.test(
  'HTTP Basic: a challenge first, then the same offer with credentials on the same connection',
  async (test) => {
    const guarded = await Hosted.start(test, path('state'), '--offer-users', path('users'));
    const peer = await TestPeer.start(test);
    const segment = randomSegment(1, 'true');
    peer.give(segment);
    const basic = (credentials: string): readonly string[] => [
      `Authorization: Basic ${Buffer.from(credentials).toString('base64')}`,
    ];
    const information = segmentInfo(segment, peer.port);
    for (const fields of [[], basic('pc1:wrong'), basic('nobody:a pass:word'), ['Authorization: Negotiate YIIA']]) {
      const { status, head } = await guarded.offerV1(information, fields);
      test.equal(status, 401, fields.join());
      test.match(head, /^www-authenticate: basic realm=/im);
    }
    test.same(peer.asked(segment), []);
    test.equal(verdictOf(await guarded.offerV1(information, basic('pc1:a pass:word'))), 'OK');
    await guarded.stored(segment);
    test.equal(verdictOf(await guarded.offerV1(initialOffer(segment, peer.port), basic('pc2:other'))), 'OK');
    test.equal(guarded.connections, 1);
    // Offers of version 2 have no way to say who makes them.
    const unguarded = randomSegment(2);
    peer.give(unguarded);
    test.equal(verdictOf(await guarded.offerV2(batchedOffer([unguarded], peer.port))), 'OK');
    await guarded.stored(unguarded);
  },
);

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed';

await t.test('mutual TLS: only who has a certificate of the authority may offer', { skip: noOpenssl }, async (test) => {
  const identities: ConnectionOptions[] = [];
  for (const name of ['member', 'stranger']) {
    const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2';
    const files = ['-keyout', path(`${name}.key`), '-out', path(`${name}.pem`)];
    const made = await run(test, 'openssl', [...request.split(' '), '-subj', `/CN=${name}`, ...files]);
    test.equal(made.code, 0, made.stderr);
    identities.push({ cert: readFileSync(path(`${name}.pem`)), key: readFileSync(path(`${name}.key`)) });
  }
  const [member = {}, stranger = {}] = identities;
  writeFileSync(path('ca.pem'), member.cert as Buffer);
  const guarded = await Hosted.start(test, path('state'), '--client-ca', path('ca.pem'));
  const peer = await TestPeer.start(test);
  const segment = randomSegment(1, 'true');
  peer.give(segment);
  const offerAs = (identity: ConnectionOptions): Promise<Reply> =>
    new Client(test, guarded.role.offerPort as number, { ...identity, rejectUnauthorized: false }).offer(
      V1_OFFERS,
      segmentInfo(segment, peer.port),
    );
  test.equal((await offerAs({})).status, 0, 'no certificate, no answer');
  test.equal((await offerAs(stranger)).status, 0, 'somebody else’s is not better');
  test.same(peer.asked(segment), []);
  test.equal(verdictOf(await offerAs(member)), 'OK');
  await guarded.stored(segment);
});
