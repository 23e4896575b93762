/** Answers the questions of siblings; to everybody else there is nothing here. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { toHex } from '../../bytes/index.ts';
import type { Clock } from '../../clock.ts';
import type { Observer } from '../../observer.ts';
import type { Sealer } from '../../stores/index.ts';
import { readBody } from '../http-body.ts';
import type { LanRequestHandler } from '../lan-http.ts';
import {
  decodeQuestion,
  encodeAnswer,
  MAX_ANSWER_BYTES,
  MAX_QUESTION_BYTES,
  SIBLING_PATH,
  type SiblingEntry,
  type SiblingQuestion,
} from './messages.ts';
import { answerPlace, QUESTION_PLACE } from './site.ts';

/** What is known of the answer that a request selects. */
export type SiblingLookup = (question: SiblingQuestion) => Promise<SiblingEntry | undefined>;

export interface SiblingServerOptions {
  readonly sealer: Sealer;
  readonly observer: Observer;
  readonly clock: Clock;
}

/** Answers being made or sent; to further questions nothing is known. Policy. */
const MAX_ANSWERS = 32;
/** Milliseconds from the head of a question to the last byte of its answer: who asks has long gone on. Policy. */
const ANSWER_TIMEOUT_MS = 5_000;
/** Nonces remembered: a question that comes again is somebody else's recording. Policy. */
const MAX_NONCES = 4_096;
/** Bytes that sealing adds, at most. */
const SEALING_BYTES = 64;

export class SiblingServer implements LanRequestHandler {
  readonly #options: SiblingServerOptions;
  readonly #nonces = new Set<string>();
  #answers = 0;
  lookup: SiblingLookup = async () => undefined;

  constructor(options: SiblingServerOptions) {
    this.#options = options;
  }

  handle(request: IncomingMessage, response: ServerResponse): boolean {
    if (request.url !== SIBLING_PATH || request.method !== 'POST') return false;
    if (response.socket !== null) this.#serve(request, response);
    else {
      // Behind another answer, which may have left just now; nobody pipelines POST (RFC 9112 9.3.2).
      setImmediate(() => {
        if (response.socket !== null) this.#serve(request, response);
        else request.socket.destroy();
      });
    }
    return true;
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const cancel = this.#options.clock.after(ANSWER_TIMEOUT_MS, () => response.destroy());
    let isActive = false;
    response.once('close', () => {
      cancel();
      if (isActive) this.#answers -= 1;
    });
    const begin = (): boolean => {
      isActive = this.#answers < MAX_ANSWERS && !response.destroyed;
      if (isActive) this.#answers += 1;
      return isActive;
    };
    void this.#answer(request, response, begin).catch(() => response.destroy());
  }

  async #answer(request: IncomingMessage, response: ServerResponse, begin: () => boolean): Promise<void> {
    const { sealer, observer } = this.#options;
    const question = this.#open(await readBody(request, MAX_QUESTION_BYTES));
    if (question === undefined) {
      observer({ type: 'sibling_answer', result: 'refused' });
      request.resume();
      response.writeHead(404, { connection: 'close' }).end();
      return;
    }
    const mayLook = begin();
    const entry = mayLook ? await this.lookup(question).catch(() => undefined) : undefined;
    let answer = encodeAnswer(entry);
    if (answer.byteLength + SEALING_BYTES > MAX_ANSWER_BYTES) answer = encodeAnswer(undefined);
    if (response.destroyed) return;
    const sealed = sealer.seal(answerPlace(question.nonce), answer);
    response
      .writeHead(200, { 'content-length': sealed.byteLength, 'content-type': 'application/octet-stream' })
      .end(sealed);
    observer({ type: 'sibling_answer', result: !mayLook ? 'busy' : answer.byteLength === 0 ? 'absent' : 'found' });
  }

  /** Undefined for what no sibling has asked, or asks a second time. */
  #open(sealed: Uint8Array | undefined): ReturnType<typeof decodeQuestion> {
    const bytes = sealed && this.#options.sealer.open(QUESTION_PLACE, sealed);
    const question = bytes && decodeQuestion(bytes);
    if (question === undefined) return undefined;
    const nonce = toHex(question.nonce);
    if (this.#nonces.has(nonce)) return undefined;
    this.#nonces.add(nonce);
    if (this.#nonces.size > MAX_NONCES) this.#nonces.delete(this.#nonces.values().next().value as string);
    return question;
  }
}
