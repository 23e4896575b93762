/**
 * MS-PCCRR against the outside: vectors of Microsoft's own stack in both directions and what iPXE sent, then everything a stranger may send
 * instead.
 */
import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import t from 'tap';
import { fromHex, toHex } from '../../lib/bytes/index.ts';
import { type CipherName, decryptBlock, encryptBlock } from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  type BlockMessage,
  type BlockRange,
  commonMajorVersion,
  decodeRequest,
  decodeResponse,
  decodeSegmentAges,
  encodeBlock,
  encodeRequest,
  encodeResponse,
  encodeSegmentAges,
  type GetBlockList,
  MAX_REQUEST_BYTES,
  MAX_RESPONSE_BYTES,
  MAX_SEGMENT_BLOCKS,
  MAX_VERSION,
  MIN_VERSION,
  namedBlocks,
  type ProtocolVersion,
  rangesOf,
  type RequestMessage,
  type ResponseMessage,
  type VersionRange,
} from '../../lib/protocol/pccrr/index.ts';
import { exponentOf } from '../support/complexity.ts';
import { sha256Hex, u32 } from '../support/content-information.ts';
import { seededBytes } from '../support/random.ts';
import { ipxeRetrievals, microsoftStack, type RetrievalVector, vectorContent } from '../support/vectors.ts';

type Message = RequestMessage | ResponseMessage;

const MALFORMED = 'ERR_PEERDIST_MALFORMED_MESSAGE';
const TRANSPORT_BYTES = 4;
const CIPHERS: readonly CipherName[] = ['none', 'aes-128', 'aes-192', 'aes-256'];
const KEY_BYTES = [0, 16, 24, 32];

const { pccrr: vectors, messageFixture: fixture } = microsoftStack();
const SECRET = fromHex(fixture.Kp);

function isAsking(type: Message['type']): boolean {
  return type === 'negotiation-request' || type.startsWith('get-');
}

function isRequest(vector: RetrievalVector): boolean {
  return vector.direction.startsWith('request');
}

function decode(bytes: Uint8Array, request: boolean): ReturnType<typeof decodeRequest | typeof decodeResponse> {
  return request ? decodeRequest(bytes) : decodeResponse(bytes);
}

function version({ major, minor }: ProtocolVersion): string {
  return `${major}.${minor}`;
}

/** Any of the eight. */
function encode(message: Message): Uint8Array {
  switch (message.type) {
    case 'negotiation-request':
    case 'get-block-list':
    case 'get-blocks':
    case 'get-segment-list':
      return encodeRequest(message);
    case 'block':
      return Buffer.concat(encodeBlock(message, [message.data]));
    default:
      return encodeResponse(message);
  }
}

/** A message that `t.same` compares well and prints shortly. */
function plain(message: object): object {
  const entries = Object.entries(message) as [string, unknown][];
  return Object.fromEntries(
    entries.map(([name, value]) => {
      if (value instanceof Uint8Array) return [name, toHex(value)];
      if (name === 'min' || name === 'max') return [name, version(value as ProtocolVersion)];
      if (name === 'segmentIds') return [name, (value as Uint8Array[]).map(toHex)];
      return [name, value];
    }),
  );
}

function isSame(a: object, b: object): boolean {
  return isDeepStrictEqual(plain(a), plain(b));
}

/** Runs a decoder on what must not be accepted; returns the code, or what went wrong instead. */
function codeOf(bytes: Uint8Array, request: boolean): string {
  try {
    return `accepted as ${decode(bytes, request).type}`;
  } catch (error) {
    return isPeerDistError(error) ? error.code : `threw ${String(error)}`;
  }
}

/** The same bytes with the lengths in the header made true, so that the decoder looks at the rest. */
function withTrueSizes(bytes: Uint8Array, request: boolean): Uint8Array {
  const fixed = Buffer.from(bytes);
  const start = request ? 0 : TRANSPORT_BYTES;
  if (!request && fixed.byteLength >= start) fixed.writeUInt32BE(fixed.byteLength - start, 0);
  if (fixed.byteLength >= start + 12) fixed.writeUInt32BE(fixed.byteLength - start, start + 8);
  return fixed;
}

/** A message put together by hand from its words and byte strings, sizes and all. */
function byHand(type: number, cipherId: number, major: number, ...parts: readonly (number | Uint8Array)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'number' ? u32(part, false) : part)));
  const header = [major, type, 16 + body.byteLength, cipherId].map((word) => u32(word, false));
  return Buffer.concat([...header, body]);
}

const padded = (bytes: Uint8Array, fill = 0): Buffer =>
  Buffer.concat([u32(bytes.byteLength, false), bytes, Buffer.alloc((4 - (bytes.byteLength % 4)) % 4, fill)]);

/** A response is preceded by its length. */
const framed = (message: Uint8Array): Buffer => Buffer.concat([u32(message.byteLength, false), message]);

// --- vectors ---------------------------------------------------------------------------------------------------------------------

/** What some vectors do not say. */
const SILENT: Readonly<Record<string, RetrievalVector['fields']>> = { 'MSG_BLK-empty': { CryptoAlgoId: 0 } };

function fieldsOf({ name, fields }: RetrievalVector): RetrievalVector['fields'] {
  return { CryptoAlgoId: 1, BlockIndex: 0, NextBlockIndex: 0, IVBlock: '', plaintext: '', ...SILENT[name], ...fields };
}

/** The plaintext, which large vectors describe in words. */
function plaintextOf(vector: RetrievalVector): Uint8Array {
  const { plaintext, plaintextLength, SizeOfBlock } = fieldsOf(vector);
  const [, first] = /^first (\d+) bytes of the content$/.exec(String(plaintext)) ?? [];
  if (first !== undefined) return vectorContent(Number(first));
  if (plaintext === 'byte i = (7 + 0 + i) & 0xff')
    return Uint8Array.from({ length: Number(plaintextLength ?? SizeOfBlock) }, (_, i) => (7 + 0 + i) & 0xff);
  return fromHex(String(plaintext));
}

/** `System.Guid` on the wire: the first three groups are little-endian. */
function guidBytes(text: string): Uint8Array {
  const groups = text.split('-').map((group) => Buffer.from(group, 'hex'));
  return Buffer.concat(groups.map((group, index) => (index < 3 ? group.toReversed() : group)));
}

function parseVersion(text: unknown): ProtocolVersion {
  const [major, minor] = String(text).split('.').map(Number) as [number, number];
  return { major, minor };
}

function parseRanges(text: unknown): BlockRange[] {
  return (JSON.parse(String(text)) as [number, number][]).map(([index, count]) => ({ index, count }));
}

/** The message a vector is about, from its fields alone. */
function messageOf(vector: RetrievalVector): Message {
  const fields = fieldsOf(vector);
  const cipher = CIPHERS[Number(fields.CryptoAlgoId)] as CipherName;
  const segmentId = fromHex(String(fields.SegmentID ?? fields.SegmentId ?? fixture.SegmentID_HoHoDk));
  const blob = fromHex(String(fields.ExtensibleBlob ?? ''));
  const min = parseVersion(fields.MinSupportedProtocolVersion);
  const max = parseVersion(fields.MaxSupportedProtocolVersion);
  const [, kind] = /(MSG_[A-Z]+(?:_RE[A-Z]+)?)/.exec(vector.name) ?? [];
  switch (kind) {
    case 'MSG_NEGO_REQ':
      return { type: 'negotiation-request', cipher, min, max };
    case 'MSG_NEGO_RESP':
      return { type: 'negotiation-response', cipher, min, max };
    case 'MSG_GETBLKLIST':
      return { type: 'get-block-list', cipher, segmentId, ranges: parseRanges(fields.NeededBlockRanges) };
    case 'MSG_GETBLKS':
      return { type: 'get-blocks', cipher, segmentId, ranges: parseRanges(fields.ReqBlockRanges) };
    case 'MSG_BLKLIST': {
      const ranges = parseRanges(fields.BlockRanges);
      return { type: 'block-list', cipher, segmentId, ranges, nextBlockIndex: Number(fields.NextBlockIndex) };
    }
    case 'MSG_GETSEGLIST': {
      const segmentIds = String(fields.SegmentIDs).split(',').map(fromHex);
      return { type: 'get-segment-list', cipher, requestId: guidBytes(String(fields.RequestID)), segmentIds, blob };
    }
    case 'MSG_SEGLIST': {
      const ranges = parseRanges(fields.SegmentRanges);
      return { type: 'segment-list', cipher, requestId: guidBytes(String(fields.RequestID)), ranges, blob };
    }
    case 'MSG_BLK': {
      // Microsoft's test suite encrypts with all of Kp whatever the header says.
      const actual = 'keyUsed' in fields ? 'aes-256' : cipher;
      const plaintext = plaintextOf(vector);
      const encrypted = encryptBlock(actual, SECRET, plaintext, fromHex(String(fields.IVBlock)));
      return {
        type: 'block',
        cipher,
        segmentId,
        blockIndex: Number(fields.BlockIndex),
        nextBlockIndex: Number(fields.NextBlockIndex),
        data: plaintext.byteLength === 0 ? plaintext : Buffer.concat(encrypted.pieces),
        iv: plaintext.byteLength === 0 ? plaintext : encrypted.iv,
      };
    }
    default:
      throw new Error(`no message is called ${vector.name}`);
  }
}

/** One vector's bytes, and what our decoder makes of them. */
interface Seen {
  /** As on the wire. */
  readonly bytes: Buffer;
  /** From MESSAGE_HEADER on. */
  readonly message: Buffer;
  readonly decoded: Message;
  readonly vector: RetrievalVector;
}

function rangesIn({ decoded }: Seen): string {
  return 'ranges' in decoded ? JSON.stringify(decoded.ranges.map(({ index, count }) => [index, count])) : 'none';
}

function decrypted({ decoded, vector }: Seen): Uint8Array {
  const { data, iv, cipher } = decoded as BlockMessage;
  const actual = 'keyUsed' in vector.fields ? 'aes-256' : cipher;
  return decryptBlock(actual, SECRET, { data, iv }, plaintextOf(vector).byteLength) as Uint8Array;
}

/** For every field of the vectors: what the bytes, or our decoder, say it is. */
const READ: Readonly<Record<string, (seen: Seen) => unknown>> = {
  TransportSize: ({ bytes }) => bytes.readUInt32BE(0),
  ProtVer: ({ message }) => `${message.readUInt16BE(2)}.${message.readUInt16BE(0)}`,
  MsgType: ({ message }) => message.readUInt32BE(4),
  MsgSize: ({ message }) => message.readUInt32BE(8),
  MsgSizeInHeader: ({ message }) => message.readUInt32BE(8),
  MsgSizeEqualsTotal: ({ message }) => message.readUInt32BE(8) === message.byteLength,
  CryptoAlgoId: ({ decoded }) => CIPHERS.indexOf(decoded.cipher),
  MinSupportedProtocolVersion: ({ decoded }) => version((decoded as VersionRange).min),
  MaxSupportedProtocolVersion: ({ decoded }) => version((decoded as VersionRange).max),
  SegmentID: ({ decoded }) => toHex((decoded as BlockMessage).segmentId),
  SegmentId: ({ decoded }) => toHex((decoded as BlockMessage).segmentId),
  SegmentIDs: ({ decoded }) => ('segmentIds' in decoded ? decoded.segmentIds.map(toHex).join(',') : 'none'),
  NeededBlockRanges: rangesIn,
  ReqBlockRanges: rangesIn,
  BlockRanges: rangesIn,
  SegmentRanges: rangesIn,
  RequestID: ({ decoded, vector }) =>
    'requestId' in decoded && toHex(decoded.requestId) === toHex(guidBytes(String(vector.fields.RequestID)))
      ? vector.fields.RequestID
      : 'another',
  RequestIDBytes: ({ decoded }) => ('requestId' in decoded ? toHex(decoded.requestId) : 'none'),
  ExtensibleBlob: ({ decoded }) => ('blob' in decoded ? toHex(decoded.blob) : 'none'),
  SizeOfExtensibleBlob: ({ decoded }) => ('blob' in decoded ? decoded.blob.byteLength : 'none'),
  SizeOfDataForVrfBlock: ({ message }) => message.readUInt32BE(message.byteLength - 4),
  BlockIndex: ({ decoded }) => (decoded as BlockMessage).blockIndex,
  NextBlockIndex: ({ decoded }) => (decoded as BlockMessage).nextBlockIndex,
  SizeOfBlock: ({ decoded }) => (decoded as BlockMessage).data.byteLength,
  SizeOfVrfBlock: ({ message, decoded }) =>
    message.readUInt32BE(message.byteLength - (decoded as BlockMessage).iv.byteLength - 8),
  SizeOfIVBlock: ({ decoded }) => (decoded as BlockMessage).iv.byteLength,
  IVBlock: ({ decoded }) => toHex((decoded as BlockMessage).iv),
  key: ({ decoded }) => toHex(SECRET.subarray(0, KEY_BYTES[CIPHERS.indexOf(decoded.cipher)])),
  keyUsed: () => toHex(SECRET),
  plaintext: (seen) =>
    toHex(decrypted(seen)) === toHex(plaintextOf(seen.vector)) ? seen.vector.fields.plaintext : 'another',
  plaintextLength: (seen) => decrypted(seen).byteLength,
  plaintextSha256: (seen) => sha256Hex(decrypted(seen)),
  ciphertext: ({ decoded }) => toHex((decoded as BlockMessage).data),
  ciphertextSha256: ({ decoded }) => sha256Hex((decoded as BlockMessage).data),
  sameAsAes256WithFullKp: (seen) => toHex(decrypted(seen)) === toHex(plaintextOf(seen.vector)),
};

await t.test('vectors: the fields give the bytes and the bytes give the fields', async (group) => {
  const types: Record<string, number> = {};
  let withoutBytes = 0;
  let fieldsRead = 0;
  for (const vector of vectors) {
    await group.test(vector.name, async (test) => {
      const message = messageOf(vector);
      const encoded = encode(message);
      test.same(
        { length: encoded.byteLength, sha256: sha256Hex(encoded) },
        { length: vector.length, sha256: vector.sha256 },
        'encoded',
      );
      if (vector.hex === undefined) withoutBytes += 1;
      else test.equal(toHex(encoded), vector.hex, 'byte for byte');

      const bytes = vector.hex === undefined ? Buffer.from(encoded) : Buffer.from(vector.hex, 'hex');
      const decoded = decode(bytes, isRequest(vector)) as Message;
      test.same(plain(decoded), plain(message), 'decoded');
      const seen = { bytes, message: bytes.subarray(isRequest(vector) ? 0 : TRANSPORT_BYTES), decoded, vector };
      for (const [name, value] of Object.entries(vector.fields)) {
        test.equal(READ[name]?.(seen), value, name);
        fieldsRead += 1;
      }
      const turned = isRequest(vector) ? framed(bytes) : seen.message;
      test.equal(codeOf(turned, !isRequest(vector)), MALFORMED, 'is nothing in the other direction');
      types[message.type] = (types[message.type] ?? 0) + 1;
    });
  }
  group.same(
    types,
    {
      'negotiation-request': 2,
      'negotiation-response': 1,
      'get-block-list': 6,
      'get-blocks': 2,
      'block-list': 2,
      block: 33,
      'get-segment-list': 3,
      'segment-list': 3,
    },
    'none was skipped',
  );
  group.same([vectors.length, withoutBytes, fieldsRead > 300], [52, 4, true]);
});

await t.test('the quirk of Microsoft’s tests: all of Kp is the key, whatever the header says', async (test) => {
  const quirks = vectors.filter(({ name }) => name.endsWith('wholeKpAsKey'));
  test.equal(quirks.length, 3);
  for (const vector of quirks) {
    const block = decodeResponse(fromHex(vector.hex as string)) as BlockMessage;
    const plaintext = plaintextOf(vector);
    const asAnnounced = decryptBlock(block.cipher, SECRET, block, plaintext.byteLength);
    const withAll = decryptBlock('aes-256', SECRET, block, plaintext.byteLength);
    test.equal(toHex(withAll as Uint8Array), toHex(plaintext), block.cipher);
    test.equal(
      toHex(asAnnounced as Uint8Array) === toHex(plaintext),
      block.cipher === 'aes-256',
      'what the header says decrypts to something else, which the hash finds out',
    );
  }
});

await t.test('iPXE’s requests, as recorded', async (test) => {
  const recorded = [...ipxeRetrievals()].map(([title, body]) => {
    const message = decodeRequest(body);
    test.equal(toHex(encode(message as Message)), toHex(body), `${title}: encodes to the same bytes`);
    return plain(message);
  });
  const head = { type: 'get-blocks', cipher: 'aes-128' };
  test.match(recorded, [
    {
      ...head,
      segmentId: '9c766733797f9d7d62a587b53208b941632fc4c1833440ba40d882d647b44629',
      ranges: [{ index: 2, count: 1 }],
    },
    { ...head, segmentId: /^f6a85500[0-9a-f]{88}$/, ranges: [{ index: 2, count: 1 }] },
    { ...head, segmentId: /^c9b9fed1[0-9a-f]{120}$/, ranges: [{ index: 2, count: 1 }] },
    { ...head, segmentId: /^00cf8a52[0-9a-f]{56}$/, ranges: [{ index: 0, count: 1 }] },
  ]);
  test.equal(recorded.length, 4);
});

// --- layout ----------------------------------------------------------------------------------------------------------------------

const RANGES: readonly BlockRange[] = [
  { index: 0, count: 2 },
  { index: 5, count: 1 },
];
const RANGE_WORDS = [2, 0, 2, 5, 1];
const REQUEST_ID = seededBytes(5, 16);

await t.test('every length of a variable field is padded to four bytes, and padding is not looked at', async (test) => {
  let cases = 0;
  const check = (message: Message, expected: (fill: number) => Uint8Array, name: string): void => {
    test.equal(toHex(encode(message)), toHex(expected(0)), name);
    for (const fill of [0, 0xff])
      test.same(plain(decode(expected(fill), isAsking(message.type))), plain(message), `${name}, filled with ${fill}`);
    cases += 1;
  };
  for (let length = 1; length <= 64; length += 1) {
    const segmentId = seededBytes(length, length);
    const id = (fill: number): Buffer => padded(segmentId, fill);
    const name = `segment ID of ${length} bytes`;
    const cipher = 'aes-256';
    check(
      { type: 'get-block-list', cipher, segmentId, ranges: RANGES },
      (fill) => byHand(2, 3, 1, id(fill), ...RANGE_WORDS),
      `get-block-list, ${name}`,
    );
    check(
      { type: 'get-blocks', cipher, segmentId, ranges: RANGES },
      (fill) => byHand(3, 3, 1, id(fill), ...RANGE_WORDS, 0),
      `get-blocks, ${name}`,
    );
    check(
      { type: 'block-list', cipher, segmentId, ranges: RANGES, nextBlockIndex: 9 },
      (fill) => framed(byHand(4, 3, 1, id(fill), ...RANGE_WORDS, 9)),
      `block-list, ${name}`,
    );
    check(
      {
        type: 'get-segment-list',
        cipher,
        requestId: REQUEST_ID,
        segmentIds: [segmentId, REQUEST_ID, segmentId],
        blob: segmentId,
      },
      // The blob is the end of the message: there is nothing to align behind it.
      (fill) => byHand(6, 3, 2, REQUEST_ID, 3, id(fill), padded(REQUEST_ID), id(fill), length, segmentId),
      `get-segment-list, ${name}`,
    );
    check(
      { type: 'segment-list', cipher, requestId: REQUEST_ID, ranges: RANGES, blob: segmentId },
      () => framed(byHand(7, 3, 2, REQUEST_ID, ...RANGE_WORDS, length, segmentId)),
      `segment-list, blob of ${length} bytes`,
    );
  }
  for (let length = 0; length <= 20; length += 1) {
    const data = seededBytes(length + 1, length);
    for (const idBytes of [31, 32]) {
      const segmentId = seededBytes(9, idBytes);
      check(
        { type: 'block', cipher: 'none', segmentId, blockIndex: 3, nextBlockIndex: 4, data, iv: REQUEST_ID },
        (fill) => framed(byHand(5, 0, 1, padded(segmentId, fill), 3, 4, padded(data, fill), 0, 16, REQUEST_ID)),
        `block of ${length} bytes, ID of ${idBytes}`,
      );
    }
  }
  test.equal(cases, 64 * 5 + 21 * 2);
});

await t.test('a block is not copied, and its pieces may be cut anywhere', async (test) => {
  const data = seededBytes(1, 1_001);
  const head = {
    type: 'block',
    cipher: 'aes-128',
    segmentId: seededBytes(2, 32),
    blockIndex: 1,
    nextBlockIndex: 2,
    iv: REQUEST_ID,
  } as const;
  const [, sent] = encodeBlock(head, [data]);
  test.equal(sent, data, 'the very array');
  const whole = Buffer.concat(encodeBlock(head, [data]));
  for (const at of [0, 1, 500, 1_001])
    test.equal(
      toHex(Buffer.concat(encodeBlock(head, [data.subarray(0, at), data.subarray(at)]))),
      toHex(whole),
      `cut at ${at}`,
    );
  test.same((decodeResponse(whole) as BlockMessage).data, Buffer.from(data));
  for (const none of [[], [new Uint8Array(0)]])
    test.equal((decodeResponse(Buffer.concat(encodeBlock(head, none))) as BlockMessage).data.byteLength, 0);
});

await t.test('fields that are not used may be there: DataForVrfBlock and VrfBlock', async (test) => {
  const id = padded(seededBytes(1, 32));
  for (let length = 0; length <= 9; length += 1) {
    const unused = seededBytes(length, length);
    test.match(decodeRequest(byHand(3, 1, 1, id, ...RANGE_WORDS, length, unused)), { type: 'get-blocks' });
    const block = framed(byHand(5, 1, 1, id, 3, 4, padded(REQUEST_ID), padded(unused, 0xaa), 16, REQUEST_ID));
    test.match(plain(decodeResponse(block)), { blockIndex: 3, data: toHex(REQUEST_ID), iv: toHex(REQUEST_ID) });
  }
});

await t.test('fields are views on the input', async (test) => {
  const bytes = fromHex(vectors.find(({ name }) => name === 'MSG_BLK-AES_128-100')?.hex as string);
  const { segmentId, data, iv } = decodeResponse(bytes) as BlockMessage;
  for (const view of [segmentId, data, iv]) test.equal(view.buffer, bytes.buffer);
});

// --- what is not a message -------------------------------------------------------------------------------------------------------

await t.test(
  'a message cut anywhere is malformed, whatever its sizes say, and so is one byte too many',
  async (test) => {
    let cuts = 0;
    for (const vector of vectors) {
      if (vector.hex === undefined) continue;
      const whole = fromHex(vector.hex);
      const request = isRequest(vector);
      const wrong: string[] = [];
      const refuse = (bytes: Uint8Array, how: string): void => {
        const code = codeOf(bytes, request);
        if (code !== MALFORMED) wrong.push(`${how}: ${code}`);
        cuts += 1;
      };
      for (let length = 0; length < whole.byteLength; length += 1) {
        refuse(whole.subarray(0, length), `${length} bytes`);
        refuse(withTrueSizes(whole.subarray(0, length), request), `${length} bytes, true sizes`);
      }
      for (const more of [1, 3, 4, 16]) {
        const longer = Buffer.concat([whole, Buffer.alloc(more)]);
        refuse(longer, `${more} bytes too many`);
        refuse(withTrueSizes(longer, request), `${more} bytes too many, true sizes`);
      }
      test.same(wrong, [], vector.name);
      test.equal(codeOf(withTrueSizes(whole, request), request).startsWith('accepted'), true, 'and whole it is none');
    }
    test.ok(cuts > 30_000, `${cuts} cuts`);
  },
);

await t.test('sizes, types and ciphers that are none are malformed', async (test) => {
  const id = padded(seededBytes(1, 32));
  const refuse = (input: Uint8Array, request: boolean, name: string): void => {
    test.equal(codeOf(input, request), MALFORMED, name);
  };

  const [good, answer] = [byHand(0, 1, 1, 1, 2), framed(byHand(1, 1, 1, 1, 2))];
  test.match([decodeRequest(good), decodeResponse(answer)], [{ cipher: 'aes-128' }, { cipher: 'aes-128' }]);
  for (const size of [0, 16, 23, 25, 0xffff_ffff]) {
    const [lying, framing, inner] = [Buffer.from(good), Buffer.from(answer), Buffer.from(answer)];
    lying.writeUInt32BE(size, 8);
    framing.writeUInt32BE(size, 0);
    inner.writeUInt32BE(size, 12);
    refuse(lying, true, `a request that says it has ${size} bytes`);
    refuse(framing, false, `a response preceded by ${size}`);
    refuse(inner, false, `a response that says it has ${size} bytes`);
  }
  for (const type of [8, 0xfefe, 0xffff_ffff]) {
    refuse(byHand(type, 1, 1, 1, 2), true, `request of type ${type}`);
    refuse(framed(byHand(type, 1, 1, 1, 2)), false, `response of type ${type}`);
  }
  for (const cipher of [4, 0xfefe, 0xffff_ffff]) {
    refuse(byHand(0, cipher, 1, 1, 2), true, `request with cipher ${cipher}`);
    refuse(framed(byHand(1, cipher, 1, 1, 2)), false, `response with cipher ${cipher}`);
  }

  for (const length of [0, 65, 0xffff, 0x7fff_ffff, 0xffff_ffff]) {
    const long = Buffer.concat([u32(length, false), Buffer.alloc(Math.min(length, 70))]);
    refuse(byHand(2, 1, 1, long, 1, 0, 1), true, `segment ID of ${length}`);
    refuse(framed(byHand(4, 1, 1, long, 1, 0, 1, 0)), false, `segment ID of ${length} in an answer`);
  }
  for (const count of [2, 10, 0x2000_0000, 0xffff_ffff]) {
    refuse(byHand(2, 1, 1, id, count, 0, 1), true, `get-block-list: one range, ${count} announced`);
    refuse(byHand(3, 1, 1, id, count, 0, 1, 0), true, `get-blocks: one range, ${count} announced`);
    refuse(framed(byHand(4, 1, 1, id, count, 0, 1, 0)), false, `block-list: one range, ${count} announced`);
    refuse(framed(byHand(7, 1, 2, REQUEST_ID, count, 0, 1, 0)), false, `segment-list: one range, ${count} announced`);
    refuse(byHand(6, 1, 2, REQUEST_ID, count, id, 0), true, `get-segment-list: one ID, ${count} announced`);
  }
  // A count is refused for what it is: nobody makes room for it first.
  for (const count of [2, 0x01ff_ffff, 0xffff_ffff])
    for (const lying of [byHand(2, 1, 1, id, count, 0, 1), byHand(6, 1, 2, REQUEST_ID, count, u32(0, false))])
      test.throws(() => decodeRequest(lying), { code: MALFORMED, actual: count });
  refuse(byHand(6, 1, 2, REQUEST_ID, 0, 0), true, 'get-segment-list without an ID');
  for (const size of [1, 17, 0xffff_ffff]) {
    refuse(byHand(6, 1, 2, REQUEST_ID, 1, id, size), true, `blob of ${size} that is not there`);
    refuse(byHand(3, 1, 1, id, 1, 0, 1, size), true, `DataForVrfBlock of ${size} that is not there`);
    refuse(framed(byHand(5, 1, 1, id, 0, 0, size, 0, 0)), false, `block of ${size} that is not there`);
    refuse(framed(byHand(5, 1, 1, id, 0, 0, 0, size, 0)), false, `VrfBlock of ${size} that is not there`);
    refuse(framed(byHand(5, 1, 1, id, 0, 0, 0, 0, size)), false, `vector of ${size} that is not there`);
  }
});

await t.test('a request may have 96 KiB, a response 384 KiB, and not a byte more', async (test) => {
  const id = padded(seededBytes(1, 32));
  const request = (bytes: number): Buffer =>
    byHand(3, 1, 1, id, 0, bytes - 16 - 36 - 8, Buffer.alloc(bytes - 16 - 36 - 8));
  const response = (bytes: number): Buffer =>
    framed(byHand(7, 1, 2, REQUEST_ID, 0, bytes - 16 - 24, Buffer.alloc(bytes - 16 - 24)));
  test.same([MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES], [98_304, 393_216]);
  test.match(decodeRequest(request(98_304)), { type: 'get-blocks' });
  test.equal(codeOf(request(98_305), true), MALFORMED);
  test.match(decodeResponse(response(393_216)), { type: 'segment-list' });
  test.equal(codeOf(response(393_217), false), MALFORMED);
});

// --- versions --------------------------------------------------------------------------------------------------------------------

await t.test('versions: the highest major version in both ranges, minor ones do not matter', async (test) => {
  const range = (min: string, max: string): VersionRange => ({ min: parseVersion(min), max: parseVersion(max) });
  const cases: readonly (readonly [VersionRange, VersionRange, number | undefined])[] = [
    // The two examples of 3.1.5.1.
    [range('3.2', '5.0'), range('2.0', '4.3'), 4],
    [range('1.0', '2.1'), range('2.5', '2.9'), 2],
    [range('1.0', '2.0'), range('1.0', '1.65535'), 1],
    [range('1.0', '2.0'), range('1.9', '1.9'), 1],
    [range('1.0', '2.0'), range('3.0', '9.0'), undefined],
    [range('1.0', '2.0'), range('0.0', '0.65535'), undefined],
    [range('1.0', '2.0'), range('0.0', '65535.65535'), 2],
    [range('1.0', '2.0'), range('2.0', '1.0'), undefined],
  ];
  for (const [a, b, expected] of cases) {
    test.equal(commonMajorVersion(a, b), expected);
    test.equal(commonMajorVersion(b, a), expected, 'either way round');
  }
  test.same([MIN_VERSION, MAX_VERSION].map(version), ['1.0', '2.0']);
});

await t.test('a major version that is not spoken is no error, and nothing after it is looked at', async (test) => {
  const header = (minor: number, major: number, rest: Uint8Array): Buffer =>
    Buffer.concat([Buffer.from([minor >> 8, minor & 0xff, major >> 8, major & 0xff]), rest]);
  let unknown = 0;
  for (const [minor, major] of [
    [0, 0],
    [0xfefe, 0xfefe],
    [0, 3],
    [1, 0x0100],
    [0xffff, 0xffff],
  ] as const) {
    for (const rest of [Buffer.alloc(12), Buffer.alloc(12, 0xff), seededBytes(major + 1, 500)]) {
      const message = header(minor, major, rest);
      const expected = { type: 'unknown-version', version: { major, minor } };
      test.same(decodeRequest(message), expected);
      test.same(decodeResponse(framed(message)), expected);
      unknown += 1;
    }
    test.equal(codeOf(header(minor, major, Buffer.alloc(11)), true), MALFORMED, 'but a header there must be');
    test.equal(codeOf(framed(header(minor, major, Buffer.alloc(11))), false), MALFORMED);
  }
  test.equal(unknown, 15);
  for (const minor of [0, 1, 0xffff])
    for (const major of [1, 2]) {
      const message = header(minor, major, byHand(0, 0, 1, 1, 2).subarray(4));
      test.match(decodeRequest(message), { type: 'negotiation-request' }, `${major}.${minor} is spoken`);
    }
});

// --- ranges ----------------------------------------------------------------------------------------------------------------------

const index32 = fc.oneof(fc.nat(600), fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 511, 512, 0xffff_ffff));
const anyRange: fc.Arbitrary<BlockRange> = fc.record({ index: index32, count: index32 }, { noNullPrototype: true });
const anyRanges = fc.array(anyRange, { maxLength: 20 });

function names(ranges: readonly BlockRange[]): number[] {
  return namedBlocks(ranges).flatMap((isNamed, index) => (isNamed ? [index] : []));
}

await t.test(
  'named blocks: ranges may be unsorted, overlap, count nothing or count to the end of the world',
  async (test) => {
    const block = (index: number, count: number): BlockRange => ({ index, count });
    test.same(names([]), []);
    test.same(names([block(42, 7)]), [42, 43, 44, 45, 46, 47, 48], 'the example of 2.2.1.1');
    test.same(names([block(5, 2), block(0, 1), block(4, 2), block(5, 1)]), [0, 4, 5, 6]);
    test.same(names([block(3, 0), block(0xffff_ffff, 0)]), [], 'a count of zero names nothing');
    test.same(names([block(510, 0xffff_ffff)]), [510, 511]);
    test.same(names([block(511, 1)]), [511]);
    test.same(names([block(512, 1), block(0xffff_ffff, 0xffff_ffff)]), [], 'no segment has a 513th block');
    test.equal(names([block(0, 0xffff_ffff), block(0, 512)]).length, MAX_SEGMENT_BLOCKS);
    test.equal(namedBlocks([]).length, MAX_SEGMENT_BLOCKS);
    fc.assert(
      fc.property(anyRanges, (ranges) => {
        const expected = Array.from({ length: MAX_SEGMENT_BLOCKS }, (_, block_) =>
          ranges.some(({ index, count }) => index <= block_ && block_ < index + count),
        );
        return JSON.stringify(namedBlocks(ranges)) === JSON.stringify(expected);
      }),
      { numRuns: 500, seed: 20_260_101 },
    );
  },
);

await t.test('ranges of blocks: as few as can be, sorted, never touching', async (test) => {
  test.same(rangesOf([]), []);
  test.same(rangesOf([0, 1, 5]), RANGES);
  test.same(rangesOf([511]), [{ index: 511, count: 1 }]);
  test.same(rangesOf(new Set([7, 8, 9]).values()), [{ index: 7, count: 3 }]);
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(511), { maxLength: 512 }), (indexes) => {
      const held = indexes.toSorted((a, b) => a - b);
      const ranges = rangesOf(held);
      const isApart = ranges.every(
        ({ index }, at) => at === 0 || index > (ranges[at - 1]?.index ?? 0) + (ranges[at - 1]?.count ?? 0),
      );
      return isApart && JSON.stringify(names(ranges)) === JSON.stringify(held);
    }),
    { numRuns: 300, seed: 20_260_102 },
  );
});

await t.test('work grows with the bytes of a request and no faster, however many blocks it names', async (test) => {
  const request = (count: number): Uint8Array =>
    encodeRequest({
      type: 'get-block-list',
      cipher: 'aes-128',
      segmentId: seededBytes(1, 32),
      ranges: Array.from({ length: count }, () => ({ index: 0, count: 0xffff_ffff })),
    });
  // As many as fit.
  const sizes = [1_500, 3_000, 6_000, 12_000];
  test.match(decodeRequest(request(12_281)), { type: 'get-block-list' });
  test.equal(codeOf(request(12_282), true), MALFORMED);
  const exponent = exponentOf(sizes, (size) => {
    const input = request(size);
    return () => namedBlocks((decodeRequest(input) as GetBlockList).ranges);
  });
  test.ok(exponent < 1.4, `exponent ${exponent.toFixed(2)}`);
});

// --- the extensible blob ---------------------------------------------------------------------------------------------------------

await t.test('segment ages: all four units are read, hundredths of a second are written', async (test) => {
  const blob = (unit: number): Uint8Array => Uint8Array.of(0, 1, unit, 2, 0, 0x60, 0xea, 0, 7, 1, 2, 3);
  // 0x00ea60 and 0x030201: the low part comes first.
  for (const [unit, ms] of [
    [1, 1_000],
    [2, 100],
    [3, 10],
    [4, 1],
  ] as const)
    test.same(decodeSegmentAges(blob(unit)), [
      { index: 0, ageMs: 60_000 * ms },
      { index: 7, ageMs: 197_121 * ms },
    ]);
  const ages = decodeSegmentAges(blob(3)) ?? [];
  test.same(Buffer.from(encodeSegmentAges(ages)), Buffer.from(blob(3)));
  test.equal(toHex(encodeSegmentAges([])), '00010300');
  test.same(decodeSegmentAges(fromHex('00010300')), []);

  const written = (ageMs: number): number | undefined =>
    decodeSegmentAges(encodeSegmentAges([{ index: 0, ageMs }]))?.[0]?.ageMs;
  test.same([0, 4, 5, 14, 15].map(written), [0, 0, 10, 10, 20], 'rounded');
  test.equal(written(-1_000), 0, 'a clock that was set back');
  test.equal(written(167_772_150), 167_772_150, 'the greatest there is, 46 hours');
  test.equal(written(Number.MAX_SAFE_INTEGER), 167_772_150, 'and as much as can be said of what is older');

  const many = Array.from({ length: 300 }, (_, index) => ({ index, ageMs: 10 * index }));
  test.same(decodeSegmentAges(encodeSegmentAges(many)), many.slice(0, 255), 'a count is a byte');
  test.same(decodeSegmentAges(encodeSegmentAges(many.slice(250))), many.slice(250, 256), 'and so is an index');
});

await t.test('segment ages: a blob of another version, or one that lies, says nothing', async (test) => {
  const good = Uint8Array.of(0, 1, 3, 1, 0, 1, 2, 3);
  test.ok(decodeSegmentAges(good));
  for (let length = 0; length < good.byteLength; length += 1)
    test.equal(decodeSegmentAges(good.subarray(0, length)), undefined, `${length} bytes`);
  test.same(decodeSegmentAges(Buffer.concat([good, Buffer.alloc(9)])), decodeSegmentAges(good), 'it may be longer');
  const changed = (at: number, value: number): Uint8Array => good.with(at, value);
  for (const [at, value, why] of [
    [0, 1, 'version 257'],
    [1, 0, 'version 0'],
    [1, 2, 'version 2'],
    [2, 0, 'no unit'],
    [2, 5, 'a fifth unit'],
    [3, 2, 'one age, two announced'],
    [3, 255, 'one age, 255 announced'],
  ] as const)
    test.equal(decodeSegmentAges(changed(at, value)), undefined, why);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => {
      const found = decodeSegmentAges(noise);
      return found === undefined || found.length === noise[3];
    }),
    { numRuns: 2_000, seed: 20_260_103 },
  );
});

// --- every message there is ------------------------------------------------------------------------------------------------------

const bytes = (minLength: number, maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength, maxLength });
const word = fc.nat(0xffff_ffff);
const cipherName = fc.constantFrom(...CIPHERS);
const anyId = bytes(1, 64);
const anyVersion = fc.record({ major: fc.nat(0xffff), minor: fc.nat(0xffff) });
const typed = <T extends string>(type: T): fc.Arbitrary<T> => fc.constant(type);

const MESSAGES: Readonly<Record<Message['type'], fc.Arbitrary<Message>>> = {
  'negotiation-request': fc.record({
    type: typed('negotiation-request'),
    cipher: cipherName,
    min: anyVersion,
    max: anyVersion,
  }),
  'negotiation-response': fc.record({
    type: typed('negotiation-response'),
    cipher: cipherName,
    min: anyVersion,
    max: anyVersion,
  }),
  'get-block-list': fc.record({
    type: typed('get-block-list'),
    cipher: cipherName,
    segmentId: anyId,
    ranges: anyRanges,
  }),
  'get-blocks': fc.record({ type: typed('get-blocks'), cipher: cipherName, segmentId: anyId, ranges: anyRanges }),
  'get-segment-list': fc.record({
    type: typed('get-segment-list'),
    cipher: cipherName,
    requestId: bytes(16, 16),
    segmentIds: fc.array(anyId, { minLength: 1, maxLength: 10 }),
    blob: bytes(0, 40),
  }),
  'block-list': fc.record({
    type: typed('block-list'),
    cipher: cipherName,
    segmentId: anyId,
    ranges: anyRanges,
    nextBlockIndex: word,
  }),
  block: fc.record({
    type: typed('block'),
    cipher: cipherName,
    segmentId: anyId,
    blockIndex: word,
    nextBlockIndex: word,
    data: bytes(0, 200),
    iv: bytes(0, 20),
  }),
  'segment-list': fc.record({
    type: typed('segment-list'),
    cipher: cipherName,
    requestId: bytes(16, 16),
    ranges: anyRanges,
    blob: bytes(0, 40),
  }),
};

await t.test('decode(encode(x)) = x for all eight messages', async (test) => {
  test.equal(Object.keys(MESSAGES).length, 8);
  for (const [type, arbitrary] of Object.entries(MESSAGES) as [Message['type'], fc.Arbitrary<Message>][]) {
    fc.assert(
      fc.property(arbitrary, (message) => isSame(decode(encode(message), isAsking(type)), message)),
      { numRuns: 300, seed: 20_260_104 },
    );
    test.pass(type);
  }
});

await t.test(
  'whatever comes is a message or a PeerDistError, and what is accepted has a true encoding',
  async (test) => {
    const bases = vectors.filter(({ hex = '' }) => hex !== '' && hex.length < 1_000);
    test.equal(bases.length, 44);
    const outcomes: Record<string, number> = {};
    const check = (input: Uint8Array): void => {
      for (const request of [true, false]) {
        let message: ReturnType<typeof decode>;
        try {
          message = decode(input, request);
        } catch (error) {
          if (!isPeerDistError(error, MALFORMED)) throw error;
          outcomes.refused = (outcomes.refused ?? 0) + 1;
          continue;
        }
        outcomes[message.type] = (outcomes[message.type] ?? 0) + 1;
        if (message.type !== 'unknown-version' && !isSame(decode(encode(message), request), message))
          throw new Error(`${toHex(input)} is not what it was decoded to`);
      }
    };
    const edits = fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 255))), {
      minLength: 1,
      maxLength: 4,
    });
    const mutant = fc
      .tuple(fc.constantFrom(...bases), edits, fc.integer({ min: -20, max: 20 }), fc.boolean())
      .map(([vector, changes, growth, isTrue]) => {
        const original = fromHex(vector.hex as string);
        const changed = new Uint8Array(Math.max(0, original.byteLength + Math.min(growth, 8) * (isTrue ? 1 : 0)));
        changed.set(original.subarray(0, changed.byteLength));
        for (const [at, value] of changes) if (changed.byteLength > 0) changed[at % changed.byteLength] = value;
        return isTrue ? withTrueSizes(changed, isRequest(vector)) : changed;
      });
    fc.assert(fc.property(mutant, check), { numRuns: 6_000, seed: 20_260_105 });
    // Noise behind a true header, so that it gets past it.
    const noise = fc
      .tuple(fc.nat(8), fc.nat(3), fc.constantFrom(1, 2), fc.uint8Array({ maxLength: 120 }))
      .map(([type, cipher, major, body]) => byHand(type, cipher, major, body));
    fc.assert(fc.property(noise, check), { numRuns: 2_000, seed: 20_260_106 });
    fc.assert(fc.property(noise.map(framed), check), { numRuns: 2_000, seed: 20_260_107 });
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), check), { numRuns: 1_000, seed: 20_260_108 });
    for (const type of [...Object.keys(MESSAGES), 'unknown-version', 'refused'])
      test.ok((outcomes[type] ?? 0) > 10, `${type}: ${outcomes[type]}`);
  },
);
