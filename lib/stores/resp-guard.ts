/**
 * Looks at what a Redis sends (RESP2) before `@redis/client` does, which makes room for whatever a length announces and collects whatever has
 * no end: a few bytes of a hostile server could end the process.
 */

/** Bytes of the largest value, of one reply with all its values, and of a line. Policy, not protocol. */
export const MAX_VALUE_BYTES = 16 * 1024 * 1024;
const MAX_REPLY_BYTES = 2 * MAX_VALUE_BYTES;
const MAX_LINE_BYTES = 64 * 1024;
/** Members of arrays in one reply: a cluster may have its 16,384 slots in as many ranges. */
const MAX_REPLY_ITEMS = 262_144;
const MAX_DEPTH = 8;
/** A value that is sealed or has fields beside it is a little longer. */
const SLACK_BYTES = 1024;

const CARRIAGE_RETURN = 0x0d;
const LINE_FEED = 0x0a;
/** Of a line, as much as a type and a length have. */
const MAX_HEAD_LENGTH = 32;

export class RespGuard {
  /** Bytes of the value that are still to come, line end included. */
  #value = 0;
  #head = '';
  #lineBytes = 0;
  /** A line has come but for its last byte. */
  #isEnding = false;
  /** Members still to come of each array that has begun. */
  #open: number[] = [];
  #replyBytes = 0;
  #replyItems = 0;

  /** @throws {Error} when what comes is no reply, or one that is too large */
  check(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.byteLength) at += this.#value > 0 ? this.#skip(chunk, at) : this.#line(chunk, at);
  }

  /** @returns bytes looked at */
  #skip(chunk: Uint8Array, at: number): number {
    const length = Math.min(this.#value, chunk.byteLength - at);
    this.#value -= length;
    this.#count(length);
    if (this.#value === 0) this.#ended();
    return length;
  }

  /** A line ends with the first carriage return: whoever reads on from there must not find anything but a line feed. */
  #line(chunk: Uint8Array, at: number): number {
    if (this.#isEnding) {
      if (chunk[at] !== LINE_FEED) throw new Error('Redis sent what is no reply');
      const head = this.#head;
      this.#isEnding = false;
      this.#head = '';
      this.#lineBytes = 0;
      this.#count(1);
      this.#began(head);
      return 1;
    }
    const end = chunk.indexOf(CARRIAGE_RETURN, at);
    this.#isEnding = end >= 0;
    const length = (end < 0 ? chunk.byteLength : end + 1) - at;
    const text = chunk.subarray(at, at + Math.min(length, MAX_HEAD_LENGTH - this.#head.length));
    this.#head += Buffer.from(text).toString('latin1');
    this.#lineBytes += length;
    if (this.#lineBytes > MAX_LINE_BYTES) throw new Error('Redis sent a line that is too long');
    this.#count(length);
    return length;
  }

  #began(head: string): void {
    const type = head[0];
    if (type === '+' || type === '-' || type === ':') return this.#ended();
    const [, length] = /^[$*](-1|\d{1,10})\r$/.exec(head) ?? [];
    if (length === undefined) throw new Error('Redis sent what is no reply');
    if (length === '-1' || (type === '*' && length === '0')) return this.#ended();
    const size = Number(length);
    if (type === '$') {
      if (size > MAX_VALUE_BYTES + SLACK_BYTES) throw new Error('Redis sent a value that is too long');
      this.#value = size + 2;
      return undefined;
    }
    this.#replyItems += size;
    this.#open.push(size);
    if (this.#replyItems > MAX_REPLY_ITEMS || this.#open.length > MAX_DEPTH)
      throw new Error('Redis sent a reply that has too many members');
    return undefined;
  }

  /** One value is whole, and with it perhaps the arrays it is the last of. */
  #ended(): void {
    for (;;) {
      const left = this.#open.pop();
      if (left === undefined) break;
      if (left > 1) {
        this.#open.push(left - 1);
        return;
      }
    }
    this.#replyBytes = 0;
    this.#replyItems = 0;
  }

  #count(bytes: number): void {
    this.#replyBytes += bytes;
    if (this.#replyBytes > MAX_REPLY_BYTES) throw new Error('Redis sent a reply that is too long');
  }
}
