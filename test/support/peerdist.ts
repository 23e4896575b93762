/** What the tests of the Peer Distribution API share: a content, instances on a clock that the test turns, sources that misbehave. */
import { type ByteRange, rangeEnd } from '../../lib/bytes/index.ts';
import { isPeerDistError, type PeerDistErrorCode } from '../../lib/errors.ts';
import type { BlockOrigin } from '../../lib/observer.ts';
import {
  type ContentHandle,
  type ContentId,
  PeerDist,
  type PeerDistComponents,
  type PeerDistOptions,
  type PublicationStream,
  type PublishOptions,
  type ReadResult,
} from '../../lib/peerdist/index.ts';
import { encodeContentInformation } from '../../lib/protocol/pccrc/index.ts';
import type { BlockRequest, BlockSource } from '../../lib/services/index.ts';
import { type HashingEngine, type HashingOptions, InlineHashing } from '../../lib/streams/index.ts';
import { describe, SECRET } from './content-information.ts';
import { ManualClock } from './manual-clock.ts';
import { seededBytes } from './random.ts';
import { failureOf } from './turns.ts';

export const BLOCK = 65_536;
export const BODY = seededBytes(31, 9 * BLOCK + 4_321);
export const WHOLE: ByteRange = { offset: 0, length: BODY.byteLength };
export const TAG = seededBytes(1, 16);
export const OTHER_TAG = seededBytes(2, 16);
export const INFORMATION = { 1: describe(1, BODY), 2: describe(2, BODY) } as const;
export const ENCODED = {
  1: encodeContentInformation(INFORMATION[1]),
  2: encodeContentInformation(INFORMATION[2]),
} as const;

export function open(components: PeerDistComponents = {}, options: PeerDistOptions = {}): Promise<PeerDist> {
  return PeerDist.open({
    identity: 'tester',
    serverSecret: SECRET,
    ...options,
    components: { clock: new ManualClock(), ...components },
  });
}

/** A handle that knows its content information; by default the whole of version 1. */
export async function described(
  pd: PeerDist,
  encoded: Uint8Array = ENCODED[1],
  tag: Uint8Array = TAG,
): Promise<ContentHandle> {
  const handle = await pd.client.openContent(tag);
  await handle.setContentInformation(encoded);
  return handle;
}

/** Version 1 content information of a part. */
export function encodedPart(range: ByteRange): Uint8Array {
  return encodeContentInformation(INFORMATION[1].slice(range));
}

/** Publishes bytes by the promise members; the handle stays open. */
export async function publish(
  pd: PeerDist,
  id: ContentId,
  bytes: Uint8Array = BODY,
  options: PublishOptions = {},
): Promise<PublicationStream> {
  const publication = await pd.server.publish(id, options);
  await publication.addData(bytes);
  await publication.complete();
  return publication;
}

export function part(range: ByteRange, body: Uint8Array = BODY): Uint8Array {
  return body.subarray(range.offset, rangeEnd(range));
}

/** Whole blocks of the content. */
export function blocks(first: number, count = 1): Uint8Array {
  return BODY.subarray(first * BLOCK, (first + count) * BLOCK);
}

/** A result of a read in one line; `WRONG` when it is not what the content has there. */
export function tell(result: ReadResult): string {
  if (result.kind === 'end') return `end ${result.offset}`;
  if (result.kind === 'missing') return `${result.reason} ${result.missing.offset}+${result.missing.length}`;
  const range = { offset: result.offset, length: result.data.byteLength };
  return `${Buffer.from(part(range)).equals(result.data) ? 'data' : 'WRONG'} ${range.offset}+${range.length}`;
}

/** Code of what a promise was rejected with; undefined when it was not. */
export async function codeOf(promise: Promise<unknown>): Promise<PeerDistErrorCode | undefined> {
  const error = await failureOf(promise);
  if (error !== undefined && !isPeerDistError(error)) throw error as Error;
  return error?.code;
}

export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

type Behaviour = 'gives' | 'absent' | 'slow' | 'lies' | 'fails';

/** A place for blocks that does as it is told; `slow` answers at {@link release}. It does not heed its signal, as bad sources do not. */
export class TestSource implements BlockSource {
  readonly name = 'peer' as BlockOrigin;
  readonly trusted = false;
  readonly deadlineMs = 1_000_000;
  /** Ordinals asked for. */
  readonly asked: number[] = [];
  readonly signals: AbortSignal[] = [];
  behaviour: Behaviour;
  readonly #waiting: (() => void)[] = [];

  constructor(behaviour: Behaviour = 'gives') {
    this.behaviour = behaviour;
  }

  async retrieve(
    { content, ordinal }: BlockRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Uint8Array | undefined> {
    this.asked.push(ordinal);
    this.signals.push(signal);
    const block = content.block(ordinal);
    if (this.behaviour === 'absent') return undefined;
    if (this.behaviour === 'lies') return new Uint8Array(block.length);
    if (this.behaviour === 'fails') throw new Error('the peer has hung up');
    if (this.behaviour === 'slow') await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return Uint8Array.from(part(block));
  }

  /** What is waiting is answered. */
  release(): void {
    for (const go of this.#waiting.splice(0)) go();
  }
}

/** Hashing that waits for the test: `push` and `finish` settle when their gate opens. */
export class GatedHashing implements HashingEngine {
  readonly pushed: number[] = [];
  finishing = false;
  readonly #inner: InlineHashing;
  readonly #gates: { readonly push?: Promise<void>; readonly finish?: Promise<void> };

  constructor(options: HashingOptions, gates: { readonly push?: Promise<void>; readonly finish?: Promise<void> }) {
    this.#inner = new InlineHashing(options);
    this.#gates = gates;
  }

  push(bytes: Uint8Array): Promise<void> | undefined {
    this.pushed.push(bytes.byteLength);
    this.#inner.push(bytes);
    return this.#gates.push;
  }

  async finish(): Promise<ReturnType<InlineHashing['finish']>> {
    this.finishing = true;
    await this.#gates.finish;
    return this.#inner.finish();
  }

  abort(): void {}
}
