/**
 * MS-PCHC against the outside: vectors of Microsoft's own stack in both directions, then everything a stranger may offer instead.
 */
import * as fc from 'fast-check';
import t from 'tap';
import { fromHex, toHex } from '../../lib/bytes/index.ts';
import { nativeHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  type ContentHashAlgorithm,
  type ContentInformation,
  encodeContentInformation,
  segmentId,
  SHA256,
  V1_ALGORITHMS,
  V1_BLOCK_BYTES,
  V1_SEGMENT_BYTES,
} from '../../lib/protocol/pccrc/index.ts';
import {
  type BatchedOffer,
  decodeOffer,
  decodeOfferResponse,
  encodeOffer,
  encodeOfferResponse,
  MAX_DESCRIPTORS,
  MAX_OFFER_BYTES,
  OFFER_HASHES,
  type OfferMessage,
  type OfferResponse,
  readSegmentInformation,
  type SegmentDescriptor,
  type SegmentInfo,
} from '../../lib/protocol/pchc/index.ts';
import { MAX_SEGMENT_BLOCKS } from '../../lib/protocol/pccrr/index.ts';
import { describe, fieldsOf, inventV1, inventV2, sha256Hex, u32 } from '../support/content-information.ts';
import { seededBytes } from '../support/random.ts';
import { type EncodedVector, microsoftStack, type MicrosoftStack } from '../support/vectors.ts';

type Field = string | number | boolean | readonly Readonly<Record<string, string | number>>[];

interface OfferVector extends EncodedVector {
  readonly name: string;
  /** By Microsoft's names; what is left out is as usual. */
  readonly fields: Readonly<Record<string, Field>>;
  readonly hex: string;
}

const MALFORMED = 'ERR_PEERDIST_MALFORMED_MESSAGE';
const HEADER_BYTES = 16;
const TAG_BYTES = 16;
const DESCRIPTOR_BYTES = 59;
/** Where the header has padding. */
const PADDING = [4, 5, 6, 7, 10, 11, 12, 13, 14, 15];

const stack = microsoftStack() as MicrosoftStack & { readonly pchc: readonly OfferVector[] };
const { pchc: vectors, messageFixture: fixture } = stack;
const offers = vectors.filter(({ name }) => !name.startsWith('RESPONSE'));
const described = stack.contentInformationV1.find(({ name }) => name === 'v1-sha-256-200000');

function bytesOf(name: string): Buffer {
  return Buffer.from(vectors.find((vector) => vector.name === name)?.hex as string, 'hex');
}

const INITIAL = bytesOf('INITIAL_OFFER_MESSAGE');
const SEGMENT_INFO = bytesOf('SEGMENT_INFO_MESSAGE-segment0');
const QUIRK = bytesOf('testSuiteQuirk-SEGMENT_INFO_MESSAGE-segment0');
const BATCHED = bytesOf('BATCHED_OFFER_MESSAGE');
/** Content information of one segment of four blocks: a header of 18 bytes, a description of 80, then the hashes. */
const INFORMATION = SEGMENT_INFO.subarray(HEADER_BYTES + TAG_BYTES);
const BLOCK_LIST_AT = 18 + 80;

/** A value that `t.same` compares well and prints shortly. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)]));
}

function isSame(a: unknown, b: unknown): boolean {
  // All messages are made with their fields in one order.
  return JSON.stringify(plain(a)) === JSON.stringify(plain(b));
}

/** Runs a decoder on what must not be accepted; returns the code, or what went wrong instead. */
function codeOf(decode: () => OfferMessage | OfferResponse): string {
  try {
    const accepted = decode();
    return `accepted as ${typeof accepted === 'string' ? accepted : accepted.type}`;
  } catch (error) {
    return isPeerDistError(error) ? error.code : `threw ${String(error)}`;
  }
}

const offerCode = (bytes: Uint8Array): string => codeOf(() => decodeOffer(bytes));
const responseCode = (bytes: Uint8Array): string => codeOf(() => decodeOfferResponse(bytes));

/** The same bytes with some changed from an index on. */
function changed(bytes: Uint8Array, at: number, ...values: readonly number[]): Buffer {
  const copy = Buffer.from(bytes);
  copy.set(values, at);
  return copy;
}

/** What is left when some bytes are taken out. */
function without(bytes: Uint8Array, start: number, count: number): Buffer {
  return Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + count)]);
}

function descriptor(seed: number): SegmentDescriptor {
  return {
    blockSize: 2 ** 16 + seed,
    segmentSize: 2 ** 17 + seed,
    contentTag: seededBytes(seed + 1, TAG_BYTES),
    hashAlgorithm: OFFER_HASHES['truncated-sha512'],
    segmentId: seededBytes(seed + 2, 32),
  };
}

function batchOf(count: number): BatchedOffer {
  return { type: 'batched-offer', port: 8080, segments: Array.from({ length: count }, (_, at) => descriptor(at)) };
}

/** Everything a hosted cache takes from content information of one segment. */
function segmentOf(bytes: Uint8Array): object | undefined {
  const information = readSegmentInformation(bytes);
  if (information === undefined) return undefined;
  return {
    id: toHex(idOf(information)),
    HoD: toHex(information.hashOfData(0)),
    Kp: toHex(information.segmentSecret(0)),
    range: information.segmentRange(0),
    hashes: hashesOf(information),
  };
}

function idOf(information: ContentInformation): Uint8Array {
  return segmentId(nativeHashProvider, information.algorithm, information.segmentSecret(0), information.hashOfData(0));
}

function hashesOf(information: ContentInformation): string[] {
  return Array.from({ length: information.blockCount }, (_, ordinal) => toHex(information.block(ordinal).hash));
}

// --- vectors ---------------------------------------------------------------------------------------------------------------------

/** The message a vector is about, from its fields alone; the segment information comes from the vector of its content. */
function messageOf({ name, fields }: OfferVector): OfferMessage {
  const isQuirk = name.startsWith('testSuiteQuirk');
  const { Type, Port, ContentTag } = { ...(isQuirk ? segmentInfoFields() : {}), ...fields };
  const port = Number(Port);
  switch (Type) {
    case 1:
      return { type: 'initial-offer', port, segmentId: fromHex(fields.Hash as string) };
    case 2: {
      const information = isQuirk
        ? described?.encoding_dwReadBytesInLastSegment0
        : described?.encoding_dwReadBytesInLastSegmentExplicit;
      const segmentInformation = fromHex(information?.hex as string);
      return { type: 'segment-info', port, contentTag: fromHex(ContentTag as string), segmentInformation };
    }
    case 3:
      return {
        type: 'batched-offer',
        port,
        segments: (fields.SegmentDescriptors as readonly Readonly<Record<string, string | number>>[]).map(
          (segment) => ({
            blockSize: Number(segment.BlockSize),
            segmentSize: Number(segment.SegmentSize),
            contentTag: fromHex(String(segment.ContentTag)),
            hashAlgorithm: Number(segment.HashAlgorithm),
            segmentId: fromHex(String(segment.SegmentHoHoDk)),
          }),
        ),
      };
    default:
      throw new Error(`no offer is called ${name}`);
  }
}

/** What the quirk does not say again. */
function segmentInfoFields(): OfferVector['fields'] {
  return vectors.find(({ name }) => name === 'SEGMENT_INFO_MESSAGE-segment0')?.fields ?? {};
}

/** One vector's bytes, and what our decoder makes of them. */
interface Seen {
  readonly bytes: Buffer;
  readonly decoded: OfferMessage;
}

function informationIn({ decoded }: Seen): ContentInformation {
  return readSegmentInformation((decoded as SegmentInfo).segmentInformation) as ContentInformation;
}

/** For every field of the offers: what the bytes, or our decoder, say it is. */
const READ: Readonly<Record<string, (seen: Seen) => unknown>> = {
  MinorVersion: ({ bytes }) => bytes.readUInt8(0),
  MajorVersion: ({ bytes }) => bytes.readUInt8(1),
  Type: ({ bytes }) => bytes.readUInt16BE(2),
  Port: ({ decoded }) => decoded.port,
  Hash: ({ decoded }) => (decoded.type === 'initial-offer' ? toHex(decoded.segmentId) : 'none'),
  ContentTag: ({ decoded }) => (decoded.type === 'segment-info' ? toHex(decoded.contentTag) : 'none'),
  cSegments: (seen) => informationIn(seen).segmentCount,
  dwOffsetInFirstSegment: ({ bytes }) => bytes.readUInt32LE(HEADER_BYTES + TAG_BYTES + 6),
  dwReadBytesInLastSegment: ({ bytes }) => bytes.readUInt32LE(HEADER_BYTES + TAG_BYTES + 10),
  HoD: (seen) => toHex(informationIn(seen).hashOfData(0)),
  Kp: (seen) => toHex(informationIn(seen).segmentSecret(0)),
  HoHoDk: (seen) => toHex(idOf(informationIn(seen))),
  cBlocks: (seen) => informationIn(seen).blockCount,
  differsFromRepaired: ({ bytes }) => !bytes.equals(SEGMENT_INFO),
  SegmentDescriptors: ({ decoded }) =>
    'segments' in decoded
      ? decoded.segments.map((segment) => ({
          BlockSize: segment.blockSize,
          SegmentSize: segment.segmentSize,
          SizeOfContentTag: segment.contentTag.byteLength,
          ContentTag: toHex(segment.contentTag),
          HashAlgorithm: segment.hashAlgorithm,
          SegmentHoHoDk: toHex(segment.segmentId),
        }))
      : 'none',
};

await t.test('vectors: the fields give the bytes and the bytes give the fields', async (group) => {
  const types: string[] = [];
  let fieldsRead = 0;
  for (const vector of offers) {
    await group.test(vector.name, async (test) => {
      const message = messageOf(vector);
      const encoded = encodeOffer(message);
      test.same(
        { length: encoded.byteLength, sha256: sha256Hex(encoded), hex: toHex(encoded) },
        { length: vector.length, sha256: vector.sha256, hex: vector.hex },
        'encoded',
      );
      const bytes = Buffer.from(vector.hex, 'hex');
      const decoded = decodeOffer(bytes);
      test.same(plain(decoded), plain(message), 'decoded');
      for (const [name, value] of Object.entries(vector.fields)) {
        test.strictSame(READ[name]?.({ bytes, decoded }), value, name);
        fieldsRead += 1;
      }
      test.equal(responseCode(bytes), MALFORMED, 'is no answer');
      types.push(decoded.type);
    });
  }
  for (const { name, fields, hex, length } of vectors.filter((vector) => !offers.includes(vector))) {
    const response = name === 'RESPONSE-OK' ? 'ok' : 'interested';
    const bytes = Buffer.from(hex, 'hex');
    group.equal(toHex(encodeOfferResponse(response)), hex, name);
    group.equal(decodeOfferResponse(bytes), response, name);
    group.same([bytes.readUInt32BE(0), bytes.readUInt8(4), length], [fields.Size, fields.ResponseCode, 5], name);
    group.equal(offerCode(bytes), MALFORMED, 'is no offer');
    types.push(response);
  }
  group.same(
    types,
    ['initial-offer', 'segment-info', 'segment-info', 'batched-offer', 'ok', 'interested'],
    'none was skipped',
  );
  group.same([vectors.length, fieldsRead], [6, 5 + 10 + 1 + 5]);
});

await t.test('the quirk of Microsoft’s client: its segment is the one of the repaired message', async (test) => {
  const [repaired, quirk] = [SEGMENT_INFO, QUIRK].map((bytes) => decodeOffer(bytes) as SegmentInfo) as [
    SegmentInfo,
    SegmentInfo,
  ];
  test.same(
    [...QUIRK.keys()].filter((at) => QUIRK[at] !== SEGMENT_INFO[at]),
    [42, 43, 44],
    'they differ in dwReadBytesInLastSegment alone',
  );
  test.equal(toHex(quirk.contentTag), toHex(repaired.contentTag));
  const segment = described?.segments[0];
  const expected = {
    id: fixture.SegmentID_HoHoDk,
    HoD: segment?.HoD,
    Kp: fixture.Kp,
    range: { offset: 0, length: 200_000 },
    hashes: segment?.blockHashes,
  };
  test.equal(segment?.blockHashes?.length, 4);
  test.same(segmentOf(repaired.segmentInformation), expected);
  test.same(segmentOf(quirk.segmentInformation), expected);
  for (const { segmentInformation } of [repaired, quirk])
    readSegmentInformation(segmentInformation)?.checkBlockLists(nativeHashProvider);
});

// --- layout ----------------------------------------------------------------------------------------------------------------------

await t.test('fields are views on the input, and segment information is read from a copy', async (test) => {
  const initial = decodeOffer(INITIAL);
  const info = decodeOffer(SEGMENT_INFO) as SegmentInfo;
  const batched = decodeOffer(BATCHED) as BatchedOffer;
  const views = [
    [INITIAL, initial.type === 'initial-offer' && initial.segmentId],
    [SEGMENT_INFO, info.contentTag],
    [SEGMENT_INFO, info.segmentInformation],
    ...batched.segments.flatMap(({ contentTag, segmentId: id }) => [[BATCHED, contentTag] as const, [BATCHED, id]]),
  ] as readonly (readonly [Buffer, Uint8Array])[];
  for (const [input, view] of views) test.equal(view.buffer, input.buffer);
  test.equal(views.length, 3 + 2 * 3);

  const bytes = Buffer.from(INFORMATION);
  const before = toHex(bytes);
  const information = readSegmentInformation(bytes) as ContentInformation;
  test.equal(toHex(bytes), before, 'which is left as it was');
  const fields = fieldsOf(information);
  bytes.fill(0xff);
  test.same(fieldsOf(information), fields, 'and may change afterwards');
});

await t.test('padding is not looked at, and written as zeros', async (test) => {
  for (const bytes of [INITIAL, SEGMENT_INFO, QUIRK, BATCHED]) {
    const expected = plain(decodeOffer(bytes));
    for (const at of PADDING) {
      test.equal(encodeOffer(decodeOffer(bytes))[at], 0);
      for (const value of [1, 0x20, 0x80, 0xfe, 0xff])
        test.same(plain(decodeOffer(changed(bytes, at, value))), expected, `byte ${at} is ${value}`);
    }
    let all: Buffer = bytes;
    for (const at of PADDING) all = changed(all, at, 0xaa);
    test.same(plain(decodeOffer(all)), expected, 'all of it');
  }
});

await t.test('ports: all but 0', async (test) => {
  for (const bytes of [INITIAL, SEGMENT_INFO, BATCHED]) {
    for (const [high, low, port] of [
      [0, 1, 1],
      [0, 80, 80],
      [1, 0, 256],
      [0xff, 0xff, 65_535],
    ] as const)
      test.equal(decodeOffer(changed(bytes, 8, high, low)).port, port);
    test.equal(offerCode(changed(bytes, 8, 0, 0)), MALFORMED, 'port 0');
    test.equal(offerCode(changed(bytes, 8, 0, 0, 0x20, 0x5a)), MALFORMED, 'port 0, something in the padding');
  }
});

await t.test('the segment ID of an initial offer has 32, 48 or 64 bytes', async (test) => {
  const accepted: number[] = [];
  for (let length = 0; length <= 130; length += 1) {
    const id = seededBytes(length + 1, length);
    const bytes = Buffer.concat([INITIAL.subarray(0, HEADER_BYTES), id]);
    const code = offerCode(bytes);
    if (code === MALFORMED) continue;
    accepted.push(length);
    test.same(plain(decodeOffer(bytes)), { type: 'initial-offer', port: 8282, segmentId: toHex(id) });
    test.equal(toHex(encodeOffer({ type: 'initial-offer', port: 8282, segmentId: id })), toHex(bytes));
  }
  test.same(accepted, [32, 48, 64]);
});

await t.test('a batched offer names 1 to 128 segments', async (test) => {
  test.equal(MAX_DESCRIPTORS, 128);
  for (const count of [1, 2, 127, 128]) {
    const batch = batchOf(count);
    const bytes = encodeOffer(batch);
    test.equal(bytes.byteLength, HEADER_BYTES + count * DESCRIPTOR_BYTES);
    test.same(plain(decodeOffer(bytes)), plain(batch), `${count} segments`);
  }
  for (const count of [0, 129, 130, 256, 1_000])
    test.equal(offerCode(encodeOffer(batchOf(count))), MALFORMED, `${count} segments`);
  const twice = { ...batchOf(0), segments: [descriptor(1), descriptor(1)] };
  test.same(plain(decodeOffer(encodeOffer(twice))), plain(twice), 'the same one twice');
});

await t.test('a content tag has 16 bytes', async (test) => {
  for (let segment = 0; segment < 3; segment += 1) {
    const at = HEADER_BYTES + segment * DESCRIPTOR_BYTES + 8;
    test.equal(BATCHED.readUInt16BE(at), 16);
    for (const size of [0, 1, 15, 17, 32, 0x1000, 0xffff]) {
      const lying = changed(BATCHED, at, size >> 8, size & 0xff);
      test.equal(offerCode(lying), MALFORMED, `segment ${segment}: ${size}`);
      // Nor when the tag is as long as that.
      const honest = Buffer.concat([
        lying.subarray(0, at + 2),
        seededBytes(1, size),
        BATCHED.subarray(at + 2 + TAG_BYTES),
      ]);
      test.equal(offerCode(honest), MALFORMED, `segment ${segment}: ${size}, and that many are there`);
    }
  }
});

await t.test('sizes and hash algorithms are passed on as they are: they are the server’s business', async (test) => {
  const at = HEADER_BYTES + DESCRIPTOR_BYTES;
  for (const hashAlgorithm of [0, 1, 2, 3, 4, 5, 0xfe, 0xff]) {
    const { segments } = decodeOffer(changed(BATCHED, at + 26, hashAlgorithm)) as BatchedOffer;
    test.same(
      segments.map((segment) => segment.hashAlgorithm),
      [4, hashAlgorithm, 4],
    );
  }
  test.same(OFFER_HASHES, { sha256: 1, 'truncated-sha512': 4 });
  for (const size of [0, 1, 0x7fff_ffff, 0xffff_ffff]) {
    const word = [...u32(size, false)];
    test.match((decodeOffer(changed(BATCHED, at, ...word)) as BatchedOffer).segments[1], { blockSize: size });
    test.match((decodeOffer(changed(BATCHED, at + 4, ...word)) as BatchedOffer).segments[1], { segmentSize: size });
  }
});

await t.test('the longest offers there are stay below what a server reads', async (test) => {
  const information = encodeContentInformation(inventV1(V1_SEGMENT_BYTES, V1_ALGORITHMS.sha512, 3));
  test.equal(readSegmentInformation(information)?.blockCount, MAX_SEGMENT_BLOCKS);
  const info = {
    type: 'segment-info',
    port: 1,
    contentTag: seededBytes(1, 16),
    segmentInformation: information,
  } as const;
  for (const offer of [info, batchOf(MAX_DESCRIPTORS)]) test.ok(encodeOffer(offer).byteLength <= MAX_OFFER_BYTES);
});

// --- what is not a message -------------------------------------------------------------------------------------------------------

await t.test('an offer cut anywhere is malformed, or says nothing, or names fewer segments', async (test) => {
  const outcomes: Record<string, number> = {};
  for (const { name, hex } of offers) {
    const whole = fromHex(hex);
    const wrong: string[] = [];
    const { type } = decodeOffer(whole);
    for (let length = 0; length < whole.byteLength; length += 1) {
      const cut = whole.subarray(0, length);
      const body = length - HEADER_BYTES;
      const isAccepted =
        (type === 'segment-info' && body >= TAG_BYTES) ||
        (type === 'batched-offer' && body > 0 && body % DESCRIPTOR_BYTES === 0);
      const code = offerCode(cut);
      outcomes[code] = (outcomes[code] ?? 0) + 1;
      if (code !== (isAccepted ? `accepted as ${type}` : MALFORMED)) wrong.push(`${length} bytes: ${code}`);
      if (!isAccepted) continue;
      const decoded = decodeOffer(cut);
      if (!isSame(encodeOffer(decoded), cut)) wrong.push(`${length} bytes: not all of it was read`);
      if (decoded.type === 'segment-info' && readSegmentInformation(decoded.segmentInformation) !== undefined)
        wrong.push(`${length} bytes: a segment`);
      if (decoded.type === 'batched-offer' && decoded.segments.length !== body / DESCRIPTOR_BYTES)
        wrong.push(`${length} bytes: ${decoded.segments.length} segments`);
    }
    test.same(wrong, [], name);
  }
  test.same(outcomes, {
    [MALFORMED]: 48 + 2 * 32 + (193 - 2),
    'accepted as segment-info': 2 * (262 - 32),
    'accepted as batched-offer': 2,
  });
});

await t.test('bytes behind the end', async (test) => {
  for (const more of [1, 3, 4, 15, 58]) {
    const tail = Buffer.alloc(more);
    test.equal(offerCode(Buffer.concat([INITIAL, tail])), MALFORMED, `an initial offer and ${more} bytes`);
    test.equal(offerCode(Buffer.concat([BATCHED, tail])), MALFORMED, `a batched offer and ${more} bytes`);
    const info = decodeOffer(Buffer.concat([SEGMENT_INFO, tail])) as SegmentInfo;
    test.equal(info.segmentInformation.byteLength, INFORMATION.byteLength + more);
    test.equal(segmentOf(info.segmentInformation), undefined, `segment information and ${more} bytes`);
  }
});

await t.test('a version that is not that of the message is malformed', async (test) => {
  for (const [bytes, own] of [
    [INITIAL, 1],
    [SEGMENT_INFO, 1],
    [BATCHED, 2],
  ] as const) {
    for (let major = 0; major <= 255; major += 1) {
      const code = offerCode(changed(bytes, 0, 0, major));
      if (code.startsWith('accepted') !== (major === own) || (major !== own && code !== MALFORMED))
        test.fail(`${major}.0 on ${decodeOffer(bytes).type}: ${code}`);
    }
    for (const [minor, major] of [
      [0xfe, 0xfe],
      [0, 0],
      [own, 0],
      [1, own],
      [0xff, own],
    ] as const)
      test.equal(offerCode(changed(bytes, 0, minor, major)), MALFORMED, `${major}.${minor}`);
    test.equal(offerCode(changed(bytes, 0, 0, 3 - own)), MALFORMED, 'the version of the other transport');
  }
});

await t.test('a type that is none is malformed, and so is a body of another type', async (test) => {
  for (const bytes of [INITIAL, SEGMENT_INFO, BATCHED])
    for (const type of [0, 4, 0x0100, 0x0200, 0x0300, 0xfefe, 0xffff])
      test.equal(offerCode(changed(bytes, 2, type >> 8, type & 0xff)), MALFORMED, `type ${type}`);
  test.equal(offerCode(changed(SEGMENT_INFO, 3, 1)), MALFORMED, 'segment information as a segment ID');
  test.equal(offerCode(changed(INITIAL, 0, 0, 2, 0, 3)), MALFORMED, 'a segment ID as descriptors');
  const info = decodeOffer(changed(INITIAL, 3, 2)) as SegmentInfo;
  test.equal(readSegmentInformation(info.segmentInformation), undefined, 'a segment ID as segment information');
});

await t.test('answers: 0 and 1 with their size in front, and nothing else', async (test) => {
  const answer = (size: number, ...rest: readonly number[]): Buffer =>
    Buffer.concat([u32(size, false), Uint8Array.from(rest)]);
  test.equal(decodeOfferResponse(answer(1, 0)), 'ok');
  test.equal(decodeOfferResponse(answer(1, 1)), 'interested');
  for (const code of [2, 3, 0x7f, 0xfe, 0xff]) test.equal(responseCode(answer(1, code)), MALFORMED, `code ${code}`);
  for (const code of [0, 1]) {
    for (const size of [0, 2, 5, 0x0100_0000, 0xffff_ffff])
      test.equal(responseCode(answer(size, code)), MALFORMED, `size ${size}`);
    test.equal(responseCode(answer(2, code, 0)), MALFORMED, 'size 2, and they are there');
    for (const more of [1, 2, 100])
      test.equal(responseCode(answer(1, code, ...new Uint8Array(more))), MALFORMED, `${more} bytes too many`);
    for (let length = 0; length < 5; length += 1)
      test.equal(responseCode(answer(1, code).subarray(0, length)), MALFORMED, `${length} bytes`);
  }
});

// --- segment information ---------------------------------------------------------------------------------------------------------

await t.test('whatever the two fields of the range say, the segment is whole', async (test) => {
  const expected = fieldsOf(readSegmentInformation(INFORMATION) as ContentInformation);
  test.match(expected, { range: { offset: 0, length: 200_000 }, boundaries: [0, 200_000] });
  const values = [0, 1, 65_535, 65_536, 199_999, 200_000, 200_001, 0x0200_0000, 0x7fff_ffff, 0xffff_ffff];
  for (const offset of values)
    for (const readBytes of values) {
      const information = readSegmentInformation(
        changed(INFORMATION, 6, ...u32(offset, true), ...u32(readBytes, true)),
      );
      test.same(information && fieldsOf(information), expected, `from ${offset}, ${readBytes} bytes`);
    }
});

await t.test('every content of Microsoft’s stack that has one segment', async (test) => {
  let segments = 0;
  for (const { name, segments: all, ...vector } of stack.contentInformationV1) {
    const [segment] = all;
    for (const { hex } of [
      vector.encoding_dwReadBytesInLastSegment0,
      vector.encoding_dwReadBytesInLastSegmentExplicit,
    ]) {
      if (hex === undefined || segment === undefined) continue;
      const { HoHoDk: id, HoD, Kp, blockHashes: hashes } = segment;
      const expected = { id, HoD, Kp, range: { offset: 0, length: vector.contentLength }, hashes };
      test.same(segmentOf(fromHex(hex)), expected, name);
      segments += 1;
    }
  }
  test.equal(segments, 2 * 12);
});

await t.test('a later segment of a content, and a range that begins inside one', async (test) => {
  const length = 5 * V1_BLOCK_BYTES + 7;
  for (const algorithm of Object.values(V1_ALGORITHMS) as readonly ContentHashAlgorithm[]) {
    const whole = inventV1(V1_SEGMENT_BYTES + length, algorithm, 5);
    const range = { offset: V1_SEGMENT_BYTES, length };
    const later = whole.slice(range);
    for (const style of ['implicit', 'explicit'] as const)
      test.same(
        fieldsOf(readSegmentInformation(encodeContentInformation(later, style)) as ContentInformation),
        fieldsOf(later),
        `${algorithm.name}, ${style}`,
      );
    for (const style of ['implicit', 'explicit'] as const) {
      const inside = later.slice({ offset: V1_SEGMENT_BYTES + 70_000, length });
      const information = readSegmentInformation(encodeContentInformation(inside, style));
      test.same(information && fieldsOf(information), fieldsOf(later), 'all block hashes are there, so all blocks are');
    }
    const beginning = later.slice({ offset: V1_SEGMENT_BYTES, length: 70_000 });
    test.equal(segmentOf(encodeContentInformation(beginning)), undefined, 'two of six block hashes');
    test.equal(segmentOf(encodeContentInformation(whole)), undefined, 'both segments');
  }
});

await t.test('segment information that cannot be used is no error, but says nothing', async (test) => {
  const blocks = (count: number): number[] => [...u32(count, true)];
  const one = encodeContentInformation(inventV1(V1_SEGMENT_BYTES, SHA256, 1));
  const trimmed = (from: number): Buffer =>
    without(changed(INFORMATION, BLOCK_LIST_AT, ...blocks(3)), BLOCK_LIST_AT + 4 + 32 * from, 32);
  const useless: Readonly<Record<string, Uint8Array>> = {
    nothing: new Uint8Array(0),
    'the two fields of the range and no more': INFORMATION.subarray(0, 14),
    'version 0xFEFE': changed(INFORMATION, 0, 0xfe, 0xfe),
    'version 1.1': changed(INFORMATION, 0, 1, 1),
    'version 1.0, the bytes the other way round': changed(INFORMATION, 0, 1, 0),
    'version 2.0, the rest as it was': changed(INFORMATION, 0, 0, 2),
    'hash algorithm 0xFEFE': changed(INFORMATION, 2, 0xfe, 0xfe, 0, 0),
    'hash algorithm 0xFEFEFEFE': changed(INFORMATION, 2, 0xfe, 0xfe, 0xfe, 0xfe),
    'big-endian hash algorithm': changed(INFORMATION, 2, 0, 0, 0x80, 0x0c),
    'hash algorithm of longer hashes': changed(INFORMATION, 2, 0x0d, 0x80),
    'two segments': encodeContentInformation(inventV1(V1_SEGMENT_BYTES + 1, SHA256, 1)),
    'two segments announced, one there': changed(INFORMATION, 14, ...blocks(2)),
    'no segment': changed(INFORMATION.subarray(0, 18), 14, ...blocks(0)),
    'no segment announced, one there': changed(INFORMATION, 14, ...blocks(0)),
    'as many segments as can be announced': changed(INFORMATION, 14, ...blocks(0xffff_ffff)),
    'the description left out': without(INFORMATION, 18, 80),
    'the block hashes left out': INFORMATION.subarray(0, BLOCK_LIST_AT),
    'no block hash announced': changed(INFORMATION.subarray(0, BLOCK_LIST_AT + 4), BLOCK_LIST_AT, ...blocks(0)),
    'the first block hash trimmed': trimmed(0),
    'the last block hash trimmed': trimmed(3),
    'a block hash trimmed but announced': without(INFORMATION, BLOCK_LIST_AT + 4, 32),
    'a block hash too many': Buffer.concat([
      changed(INFORMATION, BLOCK_LIST_AT, ...blocks(5)),
      INFORMATION.subarray(BLOCK_LIST_AT + 4, BLOCK_LIST_AT + 36),
    ]),
    'as many block hashes as can be announced': changed(INFORMATION, BLOCK_LIST_AT, ...blocks(0xffff_ffff)),
    '513 blocks': Buffer.concat([changed(one, BLOCK_LIST_AT, ...blocks(513)), seededBytes(1, 32)]),
    'a segment of nothing': changed(INFORMATION, 26, ...blocks(0)),
    'a segment of more than 32 MiB': changed(one, 26, ...blocks(V1_SEGMENT_BYTES + 1)),
    'another block size': changed(INFORMATION, 30, ...blocks(4_096)),
    'a segment that begins where none does': changed(INFORMATION, 18, 1),
    'a segment at the end of the world': changed(INFORMATION, 18, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff),
    'content information version 2': encodeContentInformation(inventV2([100_000], 1)),
    'content information version 2 of data': encodeContentInformation(describe(2, seededBytes(1, 200_000))),
  };
  test.ok(segmentOf(INFORMATION));
  test.ok(segmentOf(one));
  for (const [name, bytes] of Object.entries(useless)) {
    const offer = encodeOffer({
      type: 'segment-info',
      port: 1,
      contentTag: seededBytes(1, 16),
      segmentInformation: bytes,
    });
    const { segmentInformation } = decodeOffer(offer) as SegmentInfo;
    test.equal(toHex(segmentInformation), toHex(bytes), `decodes all the same: ${name}`);
    test.equal(segmentOf(segmentInformation), undefined, name);
  }
  for (const { name, encoding } of stack.contentInformationV2)
    if (encoding?.hex !== undefined) test.equal(segmentOf(fromHex(encoding.hex)), undefined, name);
});

await t.test('hashes are not checked against their segment yet', async (test) => {
  const forged = readSegmentInformation(changed(INFORMATION, BLOCK_LIST_AT + 4, 0)) as ContentInformation;
  test.equal(forged.blockCount, 4);
  test.throws(() => forged.checkBlockLists(nativeHashProvider), { code: 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO' });
});

// --- every message there is ------------------------------------------------------------------------------------------------------

const bytes = (minLength: number, maxLength = minLength): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength, maxLength });
const anyPort = fc.integer({ min: 1, max: 65_535 });
const word = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 0xffff_ffff));
const typed = <T extends string>(type: T): fc.Arbitrary<T> => fc.constant(type);

const MESSAGES: Readonly<Record<OfferMessage['type'], fc.Arbitrary<OfferMessage>>> = {
  'initial-offer': fc.record({
    type: typed('initial-offer'),
    port: anyPort,
    segmentId: fc.oneof(bytes(32), bytes(48), bytes(64)),
  }),
  'segment-info': fc.record({
    type: typed('segment-info'),
    port: anyPort,
    contentTag: bytes(TAG_BYTES),
    segmentInformation: bytes(0, 300),
  }),
  'batched-offer': fc.record({
    type: typed('batched-offer'),
    port: anyPort,
    segments: fc.array(
      fc.record({
        blockSize: word,
        segmentSize: word,
        contentTag: bytes(TAG_BYTES),
        hashAlgorithm: fc.nat(255),
        segmentId: bytes(32),
      }),
      { minLength: 1, maxLength: MAX_DESCRIPTORS },
    ),
  }),
};

await t.test('decode(encode(x)) = x for all three offers and both answers', async (test) => {
  for (const [type, arbitrary] of Object.entries(MESSAGES)) {
    fc.assert(
      fc.property(arbitrary, (message) => isSame(decodeOffer(encodeOffer(message)), message)),
      { numRuns: 300, seed: 20_260_111 },
    );
    test.pass(type);
  }
  for (const response of ['ok', 'interested'] as const)
    test.equal(decodeOfferResponse(encodeOfferResponse(response)), response);
});

await t.test(
  'whatever comes is an offer or a PeerDistError, and what is accepted has a true encoding',
  async (test) => {
    const outcomes: Record<string, number> = {};
    const check = (input: Uint8Array): void => {
      let outcome: string;
      try {
        const offer = decodeOffer(input);
        outcome = offer.type;
        const unpadded = Buffer.from(input);
        for (const at of PADDING) unpadded[at] = 0;
        if (!isSame(encodeOffer(offer), unpadded)) throw new Error(`${toHex(input)} is not what it was decoded to`);
        if (offer.type === 'segment-info' && readSegmentInformation(offer.segmentInformation)?.segmentCount === 1)
          outcome = 'a segment';
      } catch (error) {
        if (!isPeerDistError(error, MALFORMED)) throw error;
        outcome = 'refused';
      }
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      const code = responseCode(input);
      if (code !== MALFORMED) throw new Error(`${toHex(input)} as an answer: ${code}`);
    };
    const edits = fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 255))), {
      minLength: 1,
      maxLength: 4,
    });
    const mutant = fc
      .tuple(fc.constantFrom(...offers), edits, fc.oneof(fc.constant(0), fc.integer({ min: -20, max: 8 })))
      .map(([{ hex }, changes, growth]) => {
        const original = fromHex(hex);
        const mutated = new Uint8Array(original.byteLength + growth);
        mutated.set(original.subarray(0, mutated.byteLength));
        for (const [at, value] of changes) mutated[at % mutated.byteLength] = value;
        return mutated;
      });
    fc.assert(fc.property(mutant, check), { numRuns: 6_000, seed: 20_260_112 });
    // Noise behind a true header, so that it gets past it.
    const noise = fc
      .tuple(fc.constantFrom(INITIAL, SEGMENT_INFO, BATCHED), fc.oneof(bytes(0, 200), bytes(32), bytes(48)))
      .map(([whole, body]) => Buffer.concat([whole.subarray(0, HEADER_BYTES), body]));
    fc.assert(fc.property(noise, check), { numRuns: 2_000, seed: 20_260_113 });
    // Five bytes may be an answer.
    fc.assert(fc.property(bytes(6, 200), check), { numRuns: 2_000, seed: 20_260_114 });
    fc.assert(
      fc.property(bytes(0, 8), (input) => {
        const code = responseCode(input);
        return code === MALFORMED || code.startsWith('accepted');
      }),
      { numRuns: 1_000, seed: 20_260_115 },
    );
    fc.assert(
      fc.property(bytes(0, 200), (input) => segmentOf(input) === undefined),
      { numRuns: 1_000, seed: 20_260_116 },
    );
    for (const outcome of [...Object.keys(MESSAGES), 'a segment', 'refused'])
      test.ok((outcomes[outcome] ?? 0) > 10, `${outcome}: ${outcomes[outcome]}`);
  },
);
