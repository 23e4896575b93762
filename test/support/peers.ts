/**
 * Neighbours that do as they are told. A scripted peer is a real HTTP server that speaks MS-PCCRR; what it holds is one content, and its
 * behaviour says what becomes of each question. Written apart from `lib/services`, which is under test.
 */
import { createCipheriv, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Test } from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import { type CipherName, encryptBlock, nativeHashProvider } from '../../lib/crypto/index.ts';
import {
  contentHash,
  ContentInformation,
  segmentSecret,
  type ServerSecret,
  TRUNCATED_SHA512,
} from '../../lib/protocol/pccrc/index.ts';
import type { PeerAddress } from '../../lib/protocol/pccrd/index.ts';
import {
  type BlockMessage,
  decodeRequest,
  encodeBlock,
  encodeResponse,
  rangesOf,
  RETRIEVAL_PATH,
} from '../../lib/protocol/pccrr/index.ts';
import { DescribedContent } from '../../lib/services/index.ts';
import { describe, SECRET, u32 } from './content-information.ts';

type Owner = Pick<Test, 'teardown'>;

/** A content and its description. */
export interface PeerContent {
  readonly bytes: Uint8Array;
  readonly content: DescribedContent;
}

export function peerContent(version: 1 | 2, bytes: Uint8Array, secret: ServerSecret = SECRET): PeerContent {
  return { bytes, content: new DescribedContent(describe(version, bytes, { secret }), nativeHashProvider) };
}

/** Version 2 content of many small segments, as a publisher may cut it: a test gets many questions out of few bytes. */
export function smallSegments(bytes: Uint8Array, segmentBytes: number): PeerContent {
  const serverKey = SECRET.key(nativeHashProvider, TRUNCATED_SHA512);
  const count = Math.ceil(bytes.byteLength / segmentBytes);
  const descriptors = Array.from({ length: count }, (_, index) => {
    const segment = bytes.subarray(index * segmentBytes, (index + 1) * segmentBytes);
    const hashOfData = contentHash(nativeHashProvider, TRUNCATED_SHA512, segment);
    const secret = segmentSecret(nativeHashProvider, TRUNCATED_SHA512, serverKey, hashOfData);
    return Buffer.concat([u32(segment.byteLength, false), hashOfData, secret]);
  });
  const information = new ContentInformation({
    version: 2,
    algorithm: TRUNCATED_SHA512,
    range: { offset: 0, length: bytes.byteLength },
    firstSegmentIndex: 0,
    boundaries: Float64Array.from({ length: count + 1 }, (_, index) =>
      Math.min(index * segmentBytes, bytes.byteLength),
    ),
    descriptors: Buffer.concat(descriptors),
    blockLists: [],
  });
  return { bytes, content: new DescribedContent(information, nativeHashProvider) };
}

export function blockOf({ bytes, content }: PeerContent, ordinal: number): Uint8Array {
  const { offset, length } = content.block(ordinal);
  return bytes.subarray(offset, offset + length);
}

// --- Behaviours ----------------------------------------------------------------------------------------------------------------------

/** One block that was asked for: what an honest answer is made of. */
interface Wanted {
  readonly place: Omit<BlockMessage, 'data' | 'iv' | 'cipher'>;
  readonly data: Uint8Array;
  readonly secret: Uint8Array;
  readonly cipher: CipherName;
}

/** The answer to a question for a block, as it goes over the wire. */
type BlockAnswer = (wanted: Wanted) => Uint8Array;

function honest({ place, data, secret, cipher }: Wanted, changes: Partial<BlockMessage> = {}): Uint8Array {
  const { pieces, iv } = encryptBlock(cipher, secret, data);
  return Buffer.concat(
    encodeBlock({ ...place, cipher, iv, ...changes }, changes.data === undefined ? pieces : [changes.data]),
  );
}

function flipped(bytes: Uint8Array, at = Math.floor(bytes.byteLength / 2)): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] as number) ^ 1;
  return copy;
}

/** What may be sent in place of a block; lists of blocks are told truly, or nobody would ask. */
const ABOUT_BLOCKS = {
  // Unusual, but nothing is wrong with it.
  plaintext: (wanted) => honest({ ...wanted, cipher: 'none' }),
  'whole key': (wanted) =>
    honest({ ...wanted, cipher: 'aes-256' }, { cipher: wanted.cipher === 'aes-192' ? 'aes-192' : 'aes-128' }),
  'odd padding': ({ place, data, secret }) => {
    const iv = randomBytes(16);
    const cipher = createCipheriv('aes-128-cbc', secret.subarray(0, 16), iv).setAutoPadding(false);
    const padded = Buffer.concat([data, randomBytes(16 - (data.byteLength % 16))]);
    return Buffer.concat(encodeBlock({ ...place, cipher: 'aes-128', iv }, [cipher.update(padded)]));
  },
  // Lies.
  'wrong index': (wanted) => honest(wanted, { blockIndex: wanted.place.blockIndex + 1 }),
  'wrong hash': (wanted) => honest({ ...wanted, data: flipped(wanted.data) }),
  'wrong segment': (wanted) => honest(wanted, { segmentId: flipped(wanted.place.segmentId) }),
  short: (wanted) => honest({ ...wanted, data: wanted.data.subarray(0, wanted.data.byteLength / 2) }),
  long: (wanted) => honest({ ...wanted, data: Buffer.concat([wanted.data, new Uint8Array(16)]) }),
  'bad IV': (wanted) => honest(wanted, { iv: randomBytes(8) }),
  'another IV': (wanted) => honest(wanted, { iv: randomBytes(16) }),
  'wrong plaintext': (wanted) => honest({ ...wanted, cipher: 'none', data: flipped(wanted.data) }),
  'a list': ({ place: { segmentId } }) =>
    Buffer.from(encodeResponse({ type: 'block-list', cipher: 'none', segmentId, ranges: [], nextBlockIndex: 0 })),
  'unknown cipher': (wanted) => {
    const message = Buffer.from(honest(wanted));
    message.writeUInt32BE(9, 16);
    return message;
  },
  /** SizeOfBlock says that there is no block, and behind it comes one. */
  'size 0 and bytes': (wanted) => {
    const message = Buffer.from(honest(wanted));
    message.writeUInt32BE(0, 20 + 4 + wanted.place.segmentId.byteLength + 8);
    return message;
  },
  'bytes left over': (wanted) => {
    const message = Buffer.concat([honest(wanted), Buffer.alloc(8)]);
    message.writeUInt32BE(message.byteLength - 4, 0);
    message.writeUInt32BE(message.byteLength - 4, 12);
    return message;
  },
  // Nothing to give.
  empty: ({ place }) => Buffer.concat(encodeBlock({ ...place, cipher: 'aes-128', iv: new Uint8Array(0) })),
} satisfies Record<string, BlockAnswer>;

/** What may become of any question. `message` is the honest answer. */
const ABOUT_ANYTHING = {
  /** Never answers. */
  hang: () => {},
  /** Answers when the test says so. */
  hold: (peer, answer) => void peer.held.push(answer),
  /** Half an answer, and no more of it. */
  stall: (_peer, { response, message }) => {
    response.writeHead(200, { 'content-length': message.byteLength });
    response.write(message.subarray(0, message.byteLength / 2));
  },
  drip: (_peer, { response, message }) => {
    response.writeHead(200, { 'content-length': message.byteLength });
    let at = 0;
    const timer = setInterval(() => response.write(message.subarray(at, (at += 1))), 5).unref();
    response.once('close', () => clearInterval(timer));
  },
  endless: (peer, { response }) => {
    response.writeHead(200).flushHeaders();
    peer.pour(response.socket as Socket, chunkOf(65_536));
  },
  'endless head': (peer, { response }) => {
    const socket = response.socket as Socket;
    socket.write('HTTP/1.1 200 OK\r\n');
    peer.pour(socket, Buffer.from(`X-Field: ${'a'.repeat(1_000)}\r\n`));
  },
  'endless interim answers': (peer, { response }) =>
    peer.pour(response.socket as Socket, Buffer.from('HTTP/1.1 102 Processing\r\n\r\n'.repeat(100))),
  'endless blank lines': (peer, { response }) =>
    peer.pour(response.socket as Socket, Buffer.from('\r\n'.repeat(32_768))),
  'announces too much': (_peer, { response, message }) => {
    response.writeHead(200, { 'content-length': 1e12 }).write(message);
  },
  disconnect: (_peer, { response, message }) => {
    response.writeHead(200, { 'content-length': message.byteLength });
    response.write(message.subarray(0, message.byteLength / 2), () => response.destroy());
  },
  reset: (_peer, { response }) => void response.socket?.resetAndDestroy(),
  '500': (_peer, { response }) => void response.writeHead(500, { 'content-length': 5 }).end('alas\n'),
  redirect: (peer, { response }) =>
    void response.writeHead(302, { location: `http://127.0.0.1:${peer.port}/elsewhere`, 'content-length': 0 }).end(),
  garbage: (_peer, { response }) => void response.socket?.end(Buffer.from('\0\x01garbage\r\n\r\n'.repeat(50))),
  'garbage in a body': (_peer, { response }) => void response.end(randomBytes(1_000)),
  'an empty body': (_peer, { response }) => void response.writeHead(200, { 'content-length': 0 }).end(),
  'switches protocols': (_peer, { response }) =>
    void response.socket?.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'),
  negotiates: (_peer, { response }) => {
    const version = { major: 3, minor: 0 };
    response.end(encodeResponse({ type: 'negotiation-response', cipher: 'none', min: version, max: version }));
  },
} satisfies Record<string, (peer: ScriptedPeer, answer: PeerAnswer) => void>;

export type Behaviour =
  'honest' | 'one answer a connection' | 'refuse' | keyof typeof ABOUT_BLOCKS | keyof typeof ABOUT_ANYTHING;

/** A question, and what an honest peer would say to it. */
export interface PeerAnswer {
  readonly isList: boolean;
  /** Of the block asked for; of the segment's first block where a list was asked for. */
  readonly ordinal: number;
  readonly response: ServerResponse;
  readonly message: Uint8Array;
}

function chunkOf(bytes: number): Buffer {
  return Buffer.from(`${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`);
}

export interface PeerOptions {
  readonly cipher?: CipherName;
  /** Blocks it has, by ordinal. @default all */
  readonly holds?: (ordinal: number) => boolean;
  /** @default '127.0.0.1' */
  readonly host?: string;
}

// --- The peer ------------------------------------------------------------------------------------------------------------------------

export class ScriptedPeer {
  behaviour: Behaviour | ((answer: PeerAnswer) => Behaviour);
  /** Ordinals of blocks asked for, in order. */
  readonly blocks: number[] = [];
  /** First ordinals of segments a list was asked for of. */
  readonly lists: number[] = [];
  /** Answers that wait for {@link release}. */
  readonly held: PeerAnswer[] = [];
  readonly sockets = new Set<Socket>();
  /** Questions that were never understood. */
  readonly errors: unknown[] = [];
  /** Of connections there have been. */
  connections = 0;
  inFlight = 0;
  maxInFlight = 0;
  /** Bytes that endless answers have written. */
  poured = 0;
  readonly #server: Server;
  readonly #content: PeerContent;
  readonly #options: PeerOptions;
  readonly #segments = new Map<string, number[]>();
  readonly #answered = new WeakSet<Socket>();
  #port = 0;

  constructor(content: PeerContent, behaviour: ScriptedPeer['behaviour'], options: PeerOptions) {
    this.#content = content;
    this.#options = options;
    this.behaviour = behaviour;
    for (let ordinal = 0; ordinal < content.content.information.blockCount; ordinal += 1) {
      const id = content.content.segmentId(content.content.block(ordinal).segment);
      this.#segments.set(id, [...(this.#segments.get(id) ?? []), ordinal]);
    }
    this.#server = createServer({ noDelay: true }, (request, response) => {
      this.#receive(request, response).catch((error: unknown) => {
        this.errors.push(error);
        response.destroy();
      });
    });
    this.#server.on('connection', (socket: Socket) => {
      this.connections += 1;
      this.sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => this.sockets.delete(socket));
    });
  }

  get port(): number {
    return this.#port;
  }

  get address(): PeerAddress {
    return { address: this.#options.host ?? '127.0.0.1', port: this.#port };
  }

  get asked(): number {
    return this.blocks.length + this.lists.length;
  }

  async listen(port = 0): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, this.#options.host ?? '127.0.0.1', resolve);
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Goes away in the middle of everything; who connects from now on is refused. */
  async kill(): Promise<void> {
    for (const socket of this.sockets) {
      // Node loses a socket that is reset while its end is being sent, and the process would never exit.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    if (!this.#server.listening) return;
    await new Promise((resolve) => {
      this.#server.close(resolve);
      // One that has just come and asked nothing yet is not idle to Node.
      this.#server.closeAllConnections();
    });
  }

  /** Answers so many of the questions that wait. */
  release(count = Infinity): void {
    for (const answer of this.held.splice(0, count)) this.#send(answer, 'honest');
  }

  /** Writes the same for ever, as fast as it is taken. */
  pour(socket: Socket, bytes: Uint8Array): void {
    const go = (): void => {
      while (!socket.destroyed) {
        this.poured += bytes.byteLength;
        if (!socket.write(bytes)) return;
      }
    };
    socket.on('drain', go);
    go();
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.inFlight += 1;
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight);
    response.once('close', () => (this.inFlight -= 1));
    response.on('error', () => {});
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return;
    }
    if (request.url !== RETRIEVAL_PATH || request.method !== 'POST')
      throw new Error(`${request.method} ${request.url}`);
    const answer = this.#answer(Buffer.concat(chunks), response);
    (answer.isList ? this.lists : this.blocks).push(answer.ordinal);
    this.#send(answer, typeof this.behaviour === 'function' ? this.behaviour(answer) : this.behaviour);
  }

  #send(answer: PeerAnswer, behaviour: Behaviour): void {
    const { response, message, isList, ordinal } = answer;
    if (behaviour in ABOUT_ANYTHING) {
      ABOUT_ANYTHING[behaviour as keyof typeof ABOUT_ANYTHING](this, answer);
      return;
    }
    if (behaviour === 'one answer a connection') {
      const socket = response.socket as Socket;
      if (this.#answered.has(socket)) {
        socket.destroy();
        return;
      }
      this.#answered.add(socket);
    }
    const isLie = behaviour in ABOUT_BLOCKS && !isList;
    const body = isLie ? ABOUT_BLOCKS[behaviour as keyof typeof ABOUT_BLOCKS](this.#wanted(ordinal)) : message;
    response.writeHead(200, { 'content-length': body.byteLength }).end(body);
  }

  #wanted(ordinal: number): Wanted {
    const { content } = this.#content;
    const { segment, blockIndex } = content.block(ordinal);
    const segmentId = Buffer.from(content.segmentId(segment), 'hex');
    return {
      place: { type: 'block', segmentId, blockIndex, nextBlockIndex: 0 },
      data: blockOf(this.#content, ordinal),
      secret: content.information.segmentSecret(segment),
      cipher: this.#options.cipher ?? 'aes-128',
    };
  }

  #answer(bytes: Uint8Array, response: ServerResponse): PeerAnswer {
    const request = decodeRequest(bytes);
    if (request.type !== 'get-blocks' && request.type !== 'get-block-list') throw new Error(request.type);
    const { segmentId, ranges } = request;
    const ordinals = this.#segments.get(toHex(segmentId)) ?? [];
    const { holds = () => true } = this.#options;
    if (request.type === 'get-block-list') {
      const held = [...ordinals.keys()].filter((index) => holds(ordinals[index] as number));
      const message = encodeResponse({
        type: 'block-list',
        cipher: 'none',
        segmentId,
        ranges: rangesOf(held),
        nextBlockIndex: 0,
      });
      return { isList: true, ordinal: ordinals[0] ?? -1, response, message };
    }
    const [range] = ranges;
    if (ranges.length !== 1 || range?.count !== 1) throw new Error('one block at a time');
    const ordinal = ordinals[range.index] ?? -1;
    const place = { type: 'block', segmentId, blockIndex: range.index, nextBlockIndex: 0 } as const;
    const message =
      ordinal >= 0 && holds(ordinal) ? honest(this.#wanted(ordinal)) : ABOUT_BLOCKS.empty({ place } as Wanted);
    return { isList: false, ordinal, response, message };
  }
}

/** A peer that listens until the end of the test; with `refuse` at a port where nobody listens any more. */
export async function startPeer(
  t: Owner,
  content: PeerContent,
  behaviour: ScriptedPeer['behaviour'] = 'honest',
  { port, ...options }: PeerOptions & { readonly port?: number } = {},
): Promise<ScriptedPeer> {
  const peer = new ScriptedPeer(content, behaviour, options);
  await peer.listen(port);
  t.teardown(() => peer.kill());
  if (behaviour === 'refuse') await peer.kill();
  return peer;
}
