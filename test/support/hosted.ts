/** A hosted cache as it stands in a branch, and the clients that offer to it and ask it, each from an address of its own. */
import { once } from 'node:events';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { TlsOptions } from 'node:tls';
import type { Test } from 'tap';
import { fromHex } from '../../lib/bytes/index.ts';
import { decryptBlock } from '../../lib/crypto/index.ts';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import {
  decodeOfferResponse,
  encodeOffer,
  OFFER_HASHES,
  type OfferMessage,
  type OfferResponse,
  type SegmentDescriptor,
  V1_OFFER_PATH,
  V2_OFFER_PATH,
} from '../../lib/protocol/pchc/index.ts';
import { type BlockMessage, decodeResponse, encodeRequest, RETRIEVAL_PATH } from '../../lib/protocol/pccrr/index.ts';
import {
  createLanHttpServer,
  HostedCache,
  type HostedCacheOptions,
  OfferServer,
  type OfferServerOptions,
  RetrievalServer,
  SealedBlocks,
} from '../../lib/services/index.ts';
import { type BlockStore, MemoryBlockStore, type SegmentFacts } from '../../lib/stores/index.ts';
import { ManualClock } from './manual-clock.ts';
import { listen } from './net.ts';
import { blockOf, type PeerContent, type ScriptedPeer } from './peers.ts';
import { inTime, Observations, until } from './proxies.ts';

export const BLOCK_BYTES = 65_536;
const TAG = Buffer.from('a tag of 16 byte');

export interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export interface PostOptions {
  /** Address of this machine that it comes from. */
  readonly from?: string | undefined;
  readonly tls?: boolean;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One request on a connection of its own. */
export async function post(
  port: number,
  path: string,
  message: Uint8Array,
  { from = '127.0.0.1', tls = false, method = 'POST', headers = {} }: PostOptions = {},
): Promise<Reply> {
  const options = { host: '127.0.0.1', port, path, method, headers, localAddress: from, agent: false as const };
  const request = tls ? httpsRequest({ ...options, rejectUnauthorized: false }) : httpRequest(options);
  // A server that refuses a large body need not take all of it.
  request.on('error', () => {});
  request.end(message);
  const [response] = (await inTime(once(request, 'response'), `an answer to ${method} ${path}`)) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) };
}

/** What a batched offer says of a segment. */
export function descriptorOf({ content }: PeerContent, segment = 0): SegmentDescriptor {
  const { information } = content;
  const segmentSize = information.segmentRange(segment).length;
  return {
    blockSize: information.version === 2 ? segmentSize : BLOCK_BYTES,
    segmentSize,
    contentTag: TAG,
    hashAlgorithm: information.version === 2 ? OFFER_HASHES['truncated-sha512'] : OFFER_HASHES.sha256,
    segmentId: fromHex(content.segmentId(segment)),
  };
}

/** Of many segments, by default all. */
export function descriptorsOf(of: PeerContent, segments?: readonly number[]): SegmentDescriptor[] {
  const all = segments ?? Array.from({ length: of.content.information.segmentCount }, (_, segment) => segment);
  return all.map((segment) => descriptorOf(of, segment));
}

export function batched(port: number, segments: readonly SegmentDescriptor[]): Uint8Array {
  return encodeOffer({ type: 'batched-offer', port, segments });
}

export function initialOffer(port: number, { content }: PeerContent): OfferMessage {
  return { type: 'initial-offer', port, segmentId: fromHex(content.segmentId(0)) };
}

/** The first segment of a version 1 content with its hashes. */
export function segmentInfo(port: number, { content }: PeerContent): OfferMessage {
  const { information } = content;
  const segmentInformation = encodeContentInformation(information.slice(information.segmentRange(0)));
  return { type: 'segment-info', port, contentTag: TAG, segmentInformation };
}

/** A store that remembers every byte that was ever put into it. */
export class RecordingStore extends MemoryBlockStore {
  readonly written: { readonly key: string; readonly block: Uint8Array; readonly facts: SegmentFacts | undefined }[] =
    [];

  override set(key: string, block: Uint8Array, label: string, facts?: SegmentFacts): void {
    this.written.push({ key, block: Uint8Array.from(block), facts });
    super.set(key, block, label, facts);
  }
}

/** Whether eight bytes in a row of a text, from any multiple of eight, are anywhere in the others. */
export function isFoundIn(text: Uint8Array, others: readonly Uint8Array[]): boolean {
  const words = new Set<bigint>();
  const view = Buffer.from(text.buffer, text.byteOffset, text.byteLength);
  for (let at = 0; at + 8 <= view.byteLength; at += 8) words.add(view.readBigUInt64LE(at));
  return others.some((bytes) => {
    const other = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at + 8 <= other.byteLength; at += 1) if (words.has(other.readBigUInt64LE(at))) return true;
    return false;
  });
}

export type Got = 'block' | 'nothing' | 'WRONG';

export interface HostedRigOptions extends Partial<Omit<HostedCacheOptions, 'observer' | 'clock' | 'blocks'>> {
  readonly store?: BlockStore;
  readonly maxBytes?: number;
  readonly tls?: TlsOptions;
  readonly authenticate?: OfferServerOptions['authenticate'];
  /** Where it listens. @default '127.0.0.1' */
  readonly host?: string;
}

/** A hosted cache behind its HTTP servers; unlike in life it takes offers of this machine. */
export class HostedRig {
  readonly clock = new ManualClock();
  readonly observations = new Observations();
  readonly written: RecordingStore['written'];
  readonly store: BlockStore;
  readonly blocks: SealedBlocks;
  readonly cache: HostedCache;
  port = 0;
  tlsPort = 0;

  private constructor({ store, maxBytes = 64 * 1024 * 1024, ...options }: HostedRigOptions) {
    const recording = new RecordingStore({ maxBytes, clock: this.clock });
    this.written = recording.written;
    this.store = store ?? recording;
    this.blocks = new SealedBlocks(this.store, this.clock);
    const { observer } = this.observations;
    this.cache = new HostedCache({
      allowLocalOffers: true,
      ...options,
      blocks: this.blocks,
      observer,
      clock: this.clock,
    });
  }

  static async start(t: Pick<Test, 'teardown'>, options: HostedRigOptions = {}): Promise<HostedRig> {
    const { tls, authenticate, host, ...others } = options;
    const rig = new HostedRig(others);
    const { observer } = rig.observations;
    const offers = new OfferServer({ cache: rig.cache, authenticate, observer });
    const retrieval = new RetrievalServer({ holdings: rig.blocks, observer, clock: rig.clock });
    const limits = { maxConnectionsPerAddress: 1_024 };
    rig.port = await listen(t, createLanHttpServer([retrieval, offers], limits), host);
    if (tls !== undefined) rig.tlsPort = await listen(t, createLanHttpServer([offers], { ...limits, tls }), host);
    t.teardown(() => rig.cache.close());
    return rig;
  }

  get address(): { readonly address: string; readonly port: number } {
    return { address: '127.0.0.1', port: this.port };
  }

  /** Sends an offer the way it has to go; a status where it is no answer. */
  async offer(from: string, offer: OfferMessage): Promise<OfferResponse | number> {
    const isBatched = offer.type === 'batched-offer';
    const path = isBatched ? V2_OFFER_PATH : V1_OFFER_PATH;
    const reply = await post(isBatched ? this.port : this.tlsPort, path, encodeOffer(offer), { from, tls: !isBatched });
    return reply.status === 200 ? decodeOfferResponse(reply.body) : reply.status;
  }

  /** The peer offers segments, by default all it could have. */
  async offerOf(peer: ScriptedPeer, of: PeerContent, segments?: readonly number[]): Promise<OfferResponse | number> {
    const { address, port } = peer.address;
    return this.offer(address, { type: 'batched-offer', port, segments: descriptorsOf(of, segments) });
  }

  /** The same, and waits until it has been fetched. */
  async take(peer: ScriptedPeer, of: PeerContent, segments?: readonly number[]): Promise<OfferResponse | number> {
    const answer = await this.offerOf(peer, of, segments);
    await this.idle();
    return answer;
  }

  /** Until nothing is being fetched any more. */
  async idle(): Promise<void> {
    await until(() => this.cache.pending === 0, 'everything is fetched that is going to be');
  }

  /** A block as the cache gives it to an address. */
  async message(from: string, { content }: PeerContent, ordinal: number): Promise<BlockMessage> {
    const { segment, blockIndex } = content.block(ordinal);
    const segmentId = fromHex(content.segmentId(segment));
    const ranges = [{ index: blockIndex, count: 1 }];
    const question = encodeRequest({ type: 'get-blocks', cipher: 'aes-128', segmentId, ranges });
    const { body } = await post(this.port, RETRIEVAL_PATH, question, { from });
    return decodeResponse(body) as BlockMessage;
  }

  /** What a client makes of it that knows the hashes. */
  async get(from: string, of: PeerContent, ordinal: number): Promise<Got> {
    return read(of, ordinal, await this.message(from, of, ordinal));
  }

  async getAll(from: string, of: PeerContent): Promise<Got[]> {
    const got: Got[] = [];
    for (let ordinal = 0; ordinal < of.content.information.blockCount; ordinal += 1)
      got.push(await this.get(from, of, ordinal));
    return got;
  }

  /** How segments or offers ended. */
  offers(result: string): number {
    return this.observations.count('offer', { result });
  }

  /** How questions to clients ended. */
  ingests(result: string): number {
    return this.observations.count('ingest', { result });
  }
}

export function read(of: PeerContent, ordinal: number, { cipher, data, iv }: BlockMessage): Got {
  if (data.byteLength === 0) return 'nothing';
  const block = of.content.block(ordinal);
  const secret = of.content.information.segmentSecret(block.segment);
  const bytes = decryptBlock(cipher, secret, { data, iv }, block.length);
  return bytes !== undefined && Buffer.compare(bytes, blockOf(of, ordinal)) === 0 ? 'block' : 'WRONG';
}
