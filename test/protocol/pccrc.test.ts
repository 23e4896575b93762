/**
 * MS-PCCRC against the outside: vectors of Microsoft's own stacks and of a Windows Server in both directions, on both hash providers,
 * then everything a stranger may send instead.
 */
import * as fc from 'fast-check';
import t, { type Test } from 'tap';
import { fromHex, rangeEnd, toHex } from '../../lib/bytes/index.ts';
import { type HashProvider, nativeHashProvider, nobleHashProvider } from '../../lib/crypto/index.ts';
import { isPeerDistError } from '../../lib/errors.ts';
import {
  contentHash,
  type ContentHashAlgorithm,
  type ContentInformation,
  decodeContentInformation,
  describeContentInformation,
  encodeContentInformation,
  equalHashes,
  formatDescription,
  segmentId,
  segmentSecret,
  ServerSecret,
  SHA256,
  SHA384,
  SHA512,
  TRUNCATED_SHA512,
  V1_ALGORITHMS,
  V1_BLOCK_BYTES,
  V1_SEGMENT_BYTES,
  type V1AlgorithmName,
  V2_MAX_SEGMENT_BYTES,
} from '../../lib/protocol/pccrc/index.ts';
import { exponentOf } from '../support/complexity.ts';
import {
  blocksIn,
  describe,
  fieldsOf,
  fromVectorV2,
  inventV1,
  inventV2,
  sha256Hex,
  u32,
} from '../support/content-information.ts';
import { cutAnywhere } from '../support/random.ts';
import {
  type EncodedVector,
  microsoftStack,
  type VectorV1,
  type VectorV2,
  vectorContent,
  windowsServer,
} from '../support/vectors.ts';

const PROVIDERS: readonly HashProvider[] = [nativeHashProvider, nobleHashProvider];
/** Contents that the slow provider hashes too. */
const NOBLE_MAX_BYTES = 5_000_000;
/** The one large content that it hashes all the same. */
const NOBLE_LARGE_VECTOR = 'v1-sha-256-40000003';

const CANNOT_PARSE = 'ERR_PEERDIST_CANNOT_PARSE_CONTENTINFO';
const VERSION_UNSUPPORTED = 'ERR_PEERDIST_CONTENTINFO_VERSION_UNSUPPORTED';

const vectors = microsoftStack();
const windows = windowsServer();
const secret = ServerSecret.fromText(vectors.serverSecretKey.ascii);
const content = vectorContent(Math.max(...vectors.contentInformationV1.map(({ contentLength }) => contentLength)));

const v1ByName = new Map(vectors.contentInformationV1.map((vector) => [vector.name, describeVector(vector)]));

function describeVector({ contentLength, dwHashAlgo }: VectorV1, provider = nativeHashProvider): ContentInformation {
  // Pieces cut anywhere, so that the vectors also cover blocks that arrive in parts.
  const pieces = cutAnywhere(content.subarray(0, contentLength), 300_000, contentLength);
  return describe(1, pieces, { secret, provider, algorithm: algorithmOf(dwHashAlgo) });
}

function algorithmOf(wireId: number): V1AlgorithmName {
  return Object.keys(V1_ALGORITHMS).find(
    (name) => V1_ALGORITHMS[name as V1AlgorithmName].wireId === wireId,
  ) as V1AlgorithmName;
}

function v1Info(name: string): ContentInformation {
  return v1ByName.get(name) as ContentInformation;
}

function hex(vector: EncodedVector | undefined): Uint8Array {
  return fromHex(vector?.hex as string);
}

function hashesOf({ blockLists }: ContentInformation, segment: number): Uint8Array {
  return blockLists[segment]?.hashes ?? new Uint8Array(0);
}

/** Length and SHA-256 always; the bytes where the vector has them. */
function sameEncoding(test: Test, encoded: Uint8Array, vector: EncodedVector, message: string): void {
  test.same(
    { length: encoded.byteLength, sha256: sha256Hex(encoded) },
    { length: vector.length, sha256: vector.sha256 },
    message,
  );
  if (vector.hex !== undefined) test.equal(toHex(encoded), vector.hex, `${message}, byte for byte`);
}

/** Runs a decoder on what must not be accepted; returns the code, or what went wrong instead. */
function codeOf(bytes: Uint8Array): string {
  try {
    decodeContentInformation(bytes);
    return 'accepted';
  } catch (error) {
    return isPeerDistError(error) ? error.code : `threw ${String(error)}`;
  }
}

function tally<T>(values: Iterable<T>): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const value of values) counts[String(value)] = (counts[String(value)] ?? 0) + 1;
  return counts;
}

for (const provider of PROVIDERS) {
  await t.test(`vectors, ${provider.name}`, async (group) => {
    await group.test('server secret Ks', async (test) => {
      const key = vectors.serverSecretKey;
      test.same(secret, new ServerSecret(fromHex(key.bytes)));
      test.equal(toHex(secret.key(provider, SHA256)), key.Ks_sha256);
      test.equal(toHex(secret.key(provider, SHA384)), key.Ks_sha384);
      test.equal(toHex(secret.key(provider, SHA512)), key.Ks_sha512);
      test.equal(toHex(secret.key(provider, TRUNCATED_SHA512)), key.Ks_v2_first32OfSha512);
      const netsh = ServerSecret.fromUtf16('server secret').key(provider, SHA256);
      const bytes = new ServerSecret(
        Buffer.from('73006500720076006500720020007300650063007200650074 00'.replace(' ', ''), 'hex'),
      );
      test.ok(equalHashes(netsh, bytes.key(provider, SHA256)), 'a pass phrase is UTF-16LE without terminator');
    });

    for (const vector of vectors.contentInformationV1) {
      await group.test(vector.name, async (test) => {
        const small = vector.contentLength <= NOBLE_MAX_BYTES;
        const hashable = provider.name === 'native' || small || vector.name === NOBLE_LARGE_VECTOR;
        const information =
          hashable && provider.name !== 'native' ? describeVector(vector, provider) : v1Info(vector.name);
        if (provider.name === 'native') {
          test.equal(
            sha256Hex(content.subarray(0, vector.contentLength)),
            vector.contentSha256,
            'the content is the vector’s',
          );
        }
        checkV1(test, vector, information, provider);
        for (const [style, encoding] of [
          ['implicit', vector.encoding_dwReadBytesInLastSegment0],
          ['explicit', vector.encoding_dwReadBytesInLastSegmentExplicit],
        ] as const) {
          const encoded = encodeContentInformation(information, style);
          sameEncoding(test, encoded, encoding, style);
          const decoded = decodeContentInformation(encoding.hex === undefined ? encoded : hex(encoding));
          test.same(fieldsOf(decoded), fieldsOf(information), `${style} decodes to the same`);
          checkV1(test, vector, decoded, provider);
          decoded.checkBlockLists(provider);
          sameEncoding(test, encodeContentInformation(decoded, style), encoding, `${style}, decoded and encoded again`);
        }
        sameEncoding(
          test,
          encodeContentInformation(information),
          vector.encoding_dwReadBytesInLastSegment0,
          'whole content, as Windows writes it',
        );
      });
    }

    for (const vector of vectors.contentInformationV1Ranges) {
      await group.test(vector.name, async (test) => {
        const whole = v1Info(`v1-sha-256-${vector.contentLength}`);
        const range = { offset: vector.rangeStart, length: vector.rangeLength };
        const part = whole.slice(range);
        test.same(part.range, range);
        test.equal(part.firstSegmentIndex, vector.firstSegment);
        test.equal(part.segmentCount, vector.cSegments);
        test.equal(part.range.offset - part.segmentRange(0).offset, vector.dwOffsetInFirstSegment);
        test.equal((part.blockLists[0]?.hashes.byteLength ?? 0) / 32, vector.cBlocksFirstSegment);
        test.equal((part.blockLists.at(-1)?.hashes.byteLength ?? 0) / 32, vector.cBlocksLastSegment);
        vector.segments.forEach((keys, segment) => checkKeys(test, part, segment, keys, provider));
        sameEncoding(
          test,
          encodeContentInformation(part),
          vector.encoding_exampleStyle_explicitReadBytes,
          'a range is explicit',
        );

        const implicit = vector.encoding_exampleStyle_readBytes0_becauseRangeEndsWithSegment;
        sameEncoding(
          test,
          encodeContentInformation(part, 'implicit'),
          implicit ?? vector.encoding_exampleStyle_explicitReadBytes,
          'implicit only where the range ends with its segment',
        );
        for (const encoding of [vector.encoding_exampleStyle_explicitReadBytes, implicit]) {
          if (encoding?.hex === undefined) continue;
          const decoded = decodeContentInformation(hex(encoding));
          test.same(fieldsOf(decoded), fieldsOf(part), 'decodes to the slice');
        }
        const reading = decodeContentInformation(encodeContentInformation(part, 'explicit'));
        test.same(blocksIn(reading).map(place), blocksIn(whole, range).map(place), 'describes the blocks of the range');

        const literal = vector.encoding_literalReading_leadingBlocksOmitted;
        if (literal?.hex === undefined) return;
        const trimmed = decodeContentInformation(hex(literal));
        test.same(trimmed.range, range, 'literal reading of 2.3.1.2: the same range');
        test.equal(trimmed.blockLists[0]?.firstBlock, Math.floor(vector.dwOffsetInFirstSegment / V1_BLOCK_BYTES));
        test.same(blocksIn(trimmed).map(place), blocksIn(whole, range).map(place), 'literal reading: the same blocks');
        sameEncoding(test, encodeContentInformation(trimmed, 'explicit'), literal, 'literal reading, encoded again');
        trimmed.checkBlockLists(provider);
        test.throws(
          () => trimmed.block(trimmed.ordinalAt(vector.rangeStart) - 1),
          { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' },
          'a block whose hash was left out is not invented',
        );
      });
    }

    for (const listed of vectors.contentInformationV2) {
      await group.test(listed.name, async (test) => {
        const vector = withAllSegments(listed, provider);
        const information = fromVectorV2(vector);
        const segments = vector.chunks.flatMap((chunk) => chunk.segments);
        const known = content.subarray(0, vector.contentLength);
        const serverKey = secret.key(provider, TRUNCATED_SHA512);
        if (provider.name === 'native') test.equal(sha256Hex(known), vector.contentSha256);
        segments.forEach((keys, segment) => {
          checkKeys(test, information, segment, keys, provider);
          const { offset, length } = information.segmentRange(segment);
          const hashOfData = contentHash(provider, TRUNCATED_SHA512, known.subarray(offset, offset + length));
          test.same(
            [toHex(hashOfData), toHex(segmentSecret(provider, TRUNCATED_SHA512, serverKey, hashOfData))],
            [keys.HoD, keys.Kp],
            `segment ${segment} from its bytes`,
          );
        });
        const styles = [
          ['explicit', vector.encoding ?? vector.encoding_ullLengthOfRangeExplicit],
          ['implicit', vector.encoding_ullLengthOfRange0],
        ] as const;
        for (const [style, encoding] of styles) {
          if (encoding === undefined) continue;
          if (vector.chunks.length === 1)
            sameEncoding(test, encodeContentInformation(information, style), encoding, style);
          if (encoding.hex === undefined) continue;
          const decoded = decodeContentInformation(hex(encoding));
          test.same(fieldsOf(decoded), fieldsOf(information), `${style} decodes to the vector’s fields`);
        }
        if (vector.rangeStart !== undefined && vector.rangeLength !== undefined) {
          const whole = fromVectorV2(vectors.contentInformationV2[0] as (typeof vectors.contentInformationV2)[0]);
          const part = whole.slice({ offset: vector.rangeStart, length: vector.rangeLength });
          test.same(fieldsOf(part), fieldsOf(information), 'the slice of the whole is the vector');
          sameEncoding(test, encodeContentInformation(part), vector.encoding as EncodedVector, 'sliced');
        }
      });
    }

    await group.test('several chunks mean the same as one', async (test) => {
      const [one, , , two] = vectors.contentInformationV2;
      const decoded = decodeContentInformation(hex(two?.encoding_ullLengthOfRange0));
      test.equal(two?.chunks.length, 2);
      test.equal(toHex(encodeContentInformation(decoded)), one?.encoding_ullLengthOfRange0?.hex);
    });

    await group.test('a real Windows Server', async (test) => {
      const windowsSecret = new ServerSecret(fromHex(windows.serverSecretKey));
      for (const version of [1, 2] as const) {
        const encoded = version === 1 ? windows.contentInformationV1 : windows.contentInformationV2;
        const information = decodeContentInformation(fromHex(encoded));
        const { algorithm } = information;
        test.same(information.range, { offset: 0, length: windows.contentLength });
        test.ok(information.isWhole);
        information.checkBlockLists(provider);
        for (let segment = 0; segment < information.segmentCount; segment += 1) {
          const name = `v${version}_s${segment}`;
          checkKeys(test, information, segment, windows.segments[name] as never, provider);
          const hashOfData = information.hashOfData(segment);
          if (version === 1) {
            const list = hashesOf(information, segment);
            test.equal(toHex(contentHash(provider, algorithm, list)), toHex(hashOfData), 'HoD = H(block hashes)');
          }
          const kp = segmentSecret(provider, algorithm, windowsSecret.key(provider, algorithm), hashOfData);
          test.equal(toHex(kp), windows.segments[name]?.Kp, 'Kp from the secret key');
          const { offset, length } = information.segmentRange(segment);
          test.same([offset, offset + length], windows.ranges[name]);
        }
        for (const block of blocksIn(information)) {
          const name = `v${version}_s${block.segment}_b${block.blockIndex}`;
          test.equal(toHex(block.hash), windows.blocks[name], name);
          const range = windows.ranges[name] ?? windows.ranges[`v${version}_s${block.segment}`];
          test.same([block.offset, rangeEnd(block)], range);
        }
        test.equal(toHex(encodeContentInformation(information)), encoded, 'encoded again as Windows sent it');
      }
    });
  });
}

/** The vector of 62 segments lists the first twelve; the others are as long and follow from the content. */
function withAllSegments(vector: VectorV2, provider: HashProvider): VectorV2 {
  const [chunk] = vector.chunks;
  const segments = [...(chunk?.segments ?? [])];
  const segmentBytes = segments[0]?.cbSegment as number;
  if (chunk === undefined || segments.length === chunk.segmentCount) return vector;
  while (segments.length < chunk.segmentCount) {
    const offset = segments.length * segmentBytes;
    const bytes = content.subarray(offset, Math.min(offset + segmentBytes, vector.contentLength));
    const hashOfData = contentHash(provider, TRUNCATED_SHA512, bytes);
    const kp = segmentSecret(provider, TRUNCATED_SHA512, secret.key(provider, TRUNCATED_SHA512), hashOfData);
    segments.push({
      cbSegment: bytes.byteLength,
      HoD: toHex(hashOfData),
      Kp: toHex(kp),
      HoHoDk: toHex(segmentId(provider, TRUNCATED_SHA512, kp, hashOfData)),
    });
  }
  return { ...vector, chunks: [{ ...chunk, segments }] };
}

function place({ offset, length, blockIndex, hash }: ReturnType<typeof blocksIn>[number]): string {
  return `${offset}+${length} #${blockIndex} ${toHex(hash)}`;
}

function checkKeys(
  test: Test,
  information: ContentInformation,
  segment: number,
  keys: { HoD: string; Kp: string; HoHoDk: string },
  provider: HashProvider,
): void {
  const { algorithm } = information;
  const hashOfData = information.hashOfData(segment);
  const kp = information.segmentSecret(segment);
  test.same(
    { HoD: toHex(hashOfData), Kp: toHex(kp), HoHoDk: toHex(segmentId(provider, algorithm, kp, hashOfData)) },
    { HoD: keys.HoD, Kp: keys.Kp, HoHoDk: keys.HoHoDk },
    `keys of segment ${segment}`,
  );
}

function checkV1(test: Test, vector: VectorV1, information: ContentInformation, provider: HashProvider): void {
  const { algorithm } = information;
  const serverKey = secret.key(provider, algorithm);
  test.equal(algorithm.wireId, vector.dwHashAlgo);
  test.same(information.range, { offset: 0, length: vector.contentLength });
  test.equal(information.segmentCount, vector.segments.length);
  test.equal(information.blockCount, Math.ceil(vector.contentLength / V1_BLOCK_BYTES));
  vector.segments.forEach((expected, segment) => {
    const list = hashesOf(information, segment);
    const hashes = Array.from({ length: list.byteLength / algorithm.hashBytes }, (_, block) =>
      toHex(list.subarray(block * algorithm.hashBytes, (block + 1) * algorithm.hashBytes)),
    );
    test.same(information.segmentRange(segment), { offset: expected.ullOffsetInContent, length: expected.cbSegment });
    test.equal(hashes.length, expected.cBlocks);
    if (expected.blockHashes === undefined) {
      test.equal(hashes[0], expected.blockHashFirst);
      test.equal(hashes.at(-1), expected.blockHashLast);
      test.equal(sha256Hex(list), expected.blockHashListSha256);
    } else test.same(hashes, expected.blockHashes);
    checkKeys(test, information, segment, expected, provider);
    const hashOfData = contentHash(provider, algorithm, list);
    test.equal(toHex(hashOfData), expected.HoD, 'HoD from the block hashes');
    test.equal(toHex(segmentSecret(provider, algorithm, serverKey, hashOfData)), expected.Kp, 'Kp from HoD and Ks');
  });
}

// --- What may arrive instead -----------------------------------------------------------------------------------------------------

const wholeV1 = v1Info('v1-sha-256-200000');
const wholeV2 = fromVectorV2(vectors.contentInformationV2[0] as (typeof vectors.contentInformationV2)[0]);
const literalV1 = hex(vectors.contentInformationV1Ranges[2]?.encoding_literalReading_leadingBlocksOmitted);
const rangeV2 = wholeV2.slice({ offset: 60_000, length: 100_000 });

await t.test('truncation at every byte', async (test) => {
  const structures: Record<string, Uint8Array> = {
    'v1 implicit': encodeContentInformation(wholeV1, 'implicit'),
    'v1 explicit': encodeContentInformation(wholeV1, 'explicit'),
    'v1 literal reading': literalV1,
    'v1 two segments, SHA-512': encodeContentInformation(
      inventV1(V1_SEGMENT_BYTES + 1, SHA512, 3).slice({ offset: 33_554_431, length: 2 }),
    ),
    'v2 explicit': encodeContentInformation(wholeV2, 'explicit'),
    'v2 range': encodeContentInformation(rangeV2),
    'windows v1': fromHex(windows.contentInformationV1),
  };
  for (const [name, bytes] of Object.entries(structures)) {
    test.equal(codeOf(bytes), 'accepted', name);
    const step = bytes.byteLength > 2_000 ? 37 : 1;
    const lengths = Array.from({ length: Math.ceil(bytes.byteLength / step) }, (_, index) => index * step);
    test.same(
      tally(lengths.map((length) => codeOf(bytes.subarray(0, length)))),
      { [CANNOT_PARSE]: lengths.length },
      `${name}, ${lengths.length} lengths`,
    );
  }
  // An implicit length says nothing about how many segments follow: what is left after whole chunks is content information too.
  const implicit = encodeContentInformation(wholeV2, 'implicit');
  const accepted = Array.from({ length: implicit.byteLength }, (_, length) => length).filter(
    (length) => codeOf(implicit.subarray(0, length)) !== CANNOT_PARSE,
  );
  test.same(accepted, [31], 'v2 implicit: only the bare header, which describes nothing');
  test.equal(decodeContentInformation(implicit.subarray(0, 31)).range.length, 0);
});

await t.test('bytes after the end', async (test) => {
  for (const information of [wholeV1, wholeV2, rangeV2]) {
    const bytes = encodeContentInformation(information, 'explicit');
    for (const tail of ['00', 'ff', '0000000000', '000000004400', '00'.repeat(68), 'ff'.repeat(200)]) {
      test.equal(
        codeOf(Buffer.concat([bytes, fromHex(tail)])),
        CANNOT_PARSE,
        `version ${information.version}, ${tail.length / 2} bytes`,
      );
    }
  }
});

await t.test('another version', async (test) => {
  const bytes = encodeContentInformation(wholeV1);
  const codes: string[] = [];
  for (let minor = 0; minor < 256; minor += 1) {
    for (let major = 0; major < 256; major += 1) {
      if (minor === 0 && (major === 1 || major === 2)) continue;
      codes.push(codeOf(Buffer.concat([Uint8Array.of(minor, major), bytes.subarray(2)])));
    }
  }
  test.same(tally(codes), { [VERSION_UNSUPPORTED]: 65_534 });
  test.equal(
    codeOf(Buffer.concat([Uint8Array.of(0, 2), bytes.subarray(2)])),
    CANNOT_PARSE,
    'version 1 under the name of version 2',
  );
});

await t.test('fields that contradict each other', async (test) => {
  const v1 = encodeContentInformation(wholeV1);
  const v2 = encodeContentInformation(wholeV2);
  const patched = (bytes: Uint8Array, at: number, patch: string): Uint8Array => {
    const copy = Uint8Array.from(bytes);
    copy.set(fromHex(patch), at);
    return copy;
  };
  const cases: readonly (readonly [string, Uint8Array])[] = [
    ['dwHashAlgo 0x800b', patched(v1, 2, '0b800000')],
    ['dwHashAlgo 4', patched(v1, 2, '04000000')],
    ['dwOffsetInFirstSegment past the segment', patched(v1, 6, '400d0300')],
    ['dwReadBytesInLastSegment past the segment', patched(v1, 10, '410d0300')],
    ['no segment, but block lists', patched(v1, 14, '00000000')],
    ['two segments announced', patched(v1, 14, '02000000')],
    ['ullOffsetInContent off the grid', patched(v1, 18, '0100000000000000')],
    ['ullOffsetInContent past 2^53', patched(v1, 18, '00000000000000ff')],
    ['cbSegment 0', patched(v1, 26, '00000000')],
    ['cbSegment over 32 MiB', patched(v1, 26, '01000002')],
    ['cbBlockSize 0', patched(v1, 30, '00000000')],
    ['cbBlockSize 128 KiB', patched(v1, 30, '00000200')],
    ['cBlocks too small', patched(v1, 98, '03000000')],
    ['cBlocks too large', patched(v1, 98, '05000000')],
    ['bHashAlgo 1 (example 3.7)', patched(v2, 2, '01')],
    ['ullStartInContent past 2^53', patched(v2, 3, 'ff00000000000000')],
    ['ullIndexOfFirstSegment past 2^53', patched(v2, 11, 'ff00000000000000')],
    ['dwOffsetInFirstSegment past the segment (v2)', patched(v2, 19, '0000f000')],
    ['ullLengthOfRange past the segments', patched(v2, 23, '000000000002f401')],
    ['bChunkType 1', patched(v2, 31, '01')],
    ['dwChunkDataLength 0', patched(v2, 32, '00000000')],
    ['dwChunkDataLength not whole segments', patched(v2, 32, '000000cb')],
    ['a chunk of a segment and a half', Buffer.concat([v2.subarray(0, 32), u32(102, false), v2.subarray(36, 138)])],
    [
      'two chunks of half a segment each',
      Buffer.concat([
        v2.subarray(0, 32),
        u32(34, false),
        v2.subarray(36, 70),
        Uint8Array.of(0),
        u32(34, false),
        v2.subarray(70, 104),
      ]),
    ],
    ['cbSegment 0 (v2)', patched(v2, 36, '00000000')],
    ['cbSegment over 128 KiB', patched(v2, 36, '00020001')],
  ];
  for (const [name, bytes] of cases) test.equal(codeOf(bytes), CANNOT_PARSE, name);
  // The middle segment of a version 1 content has 32 MiB, no less.
  const three = encodeContentInformation(inventV1(2 * V1_SEGMENT_BYTES + 5, SHA256, 5));
  test.equal(codeOf(patched(three, 18 + 80 + 8, 'ffffff01')), CANNOT_PARSE, 'a short segment in the middle');
  test.equal(codeOf(patched(three, 18 + 80, '0000000400000000')), CANNOT_PARSE, 'a gap between segments');

  for (const vector of vectors.contentInformationV1) {
    const defective = vector.defectiveMicrosoftGeneratorOutput_onlyLastBlockHashPerSegment;
    if (defective !== undefined)
      test.equal(codeOf(hex(defective)), CANNOT_PARSE, `${vector.name}: one hash for all blocks`);
  }
});

await t.test('block hashes that do not belong to their segment', async (test) => {
  const bytes = encodeContentInformation(wholeV1);
  const forged = Uint8Array.from(bytes);
  forged[bytes.byteLength - 1] = (bytes.at(-1) as number) ^ 1;
  for (const provider of PROVIDERS) {
    test.throws(() => decodeContentInformation(forged).checkBlockLists(provider), { code: CANNOT_PARSE });
    decodeContentInformation(bytes).checkBlockLists(provider);
  }
});

await t.test('huge counts cost nothing', async (test) => {
  const attacks: Record<string, Uint8Array> = {
    'cSegments, all of 32 bits': fromHex('00010c8000000000000000000000ffffffff'),
    'cSegments, 16 Mi': Buffer.concat([fromHex('00010c800000000000000000000000000001'), new Uint8Array(200)]),
    'cBlocks, all of 32 bits': Buffer.concat([encodeContentInformation(wholeV1).subarray(0, 98), fromHex('ffffffff')]),
    'dwChunkDataLength, 4 GiB': Buffer.concat([
      encodeContentInformation(wholeV2).subarray(0, 32),
      u32(63_161_283 * 68, false),
    ]),
    'dwChunkDataLength, 68 MiB': Buffer.concat([
      encodeContentInformation(wholeV2).subarray(0, 32),
      u32(68 << 20, false),
    ]),
  };
  for (const [name, bytes] of Object.entries(attacks)) {
    const before = process.memoryUsage().arrayBuffers;
    const start = performance.now();
    const codes = Array.from({ length: 50 }, () => codeOf(bytes));
    test.same(tally(codes), { [CANNOT_PARSE]: 50 }, name);
    test.ok(process.memoryUsage().arrayBuffers - before < 1_000_000, `${name}: no memory`);
    test.ok(performance.now() - start < 1_000, `${name}: no time`);
  }
});

/** A structure that the decoder accepted must be usable to the last call; returns what is wrong with it, if anything. */
function defectOf(information: ContentInformation): string | undefined {
  const { range } = information;
  const blocks = blocksIn(information);
  const first = blocks[0];
  const last = blocks.at(-1);
  if (range.length > 0 && (first === undefined || last === undefined)) return 'no blocks';
  if (first !== undefined && last !== undefined) {
    if (first.offset > range.offset || rangeEnd(last) < rangeEnd(range)) return 'blocks do not cover the range';
    if (blocks.some((block, index) => index > 0 && block.offset !== rangeEnd(blocks[index - 1] as typeof block)))
      return 'blocks are not contiguous';
    if (blocks.some((block) => block.hash.byteLength !== information.algorithm.hashBytes)) return 'a hash is short';
  }
  const again = decodeContentInformation(encodeContentInformation(information));
  return JSON.stringify(fieldsOf(again)) === JSON.stringify(fieldsOf(information))
    ? undefined
    : 'encodes to something else';
}

await t.test('whatever arrives: content information or a PeerDistError', async (test) => {
  const bases = [
    encodeContentInformation(wholeV1, 'explicit'),
    encodeContentInformation(wholeV2, 'explicit'),
    encodeContentInformation(rangeV2),
    hex(vectors.contentInformationV2[3]?.encoding_ullLengthOfRange0),
    literalV1,
    fromHex(windows.contentInformationV1),
  ];
  const outcomes: string[] = [];
  const check = (bytes: Uint8Array): void => {
    let information: ContentInformation;
    try {
      information = decodeContentInformation(bytes);
    } catch (error) {
      if (!isPeerDistError(error, CANNOT_PARSE) && !isPeerDistError(error, VERSION_UNSUPPORTED)) throw error;
      outcomes.push(error.code);
      return;
    }
    outcomes.push('accepted');
    const defect = defectOf(information);
    if (defect !== undefined) throw new Error(defect);
  };
  // Every byte of every structure set to extremes: reaches each field, at each of its bytes, alone and in fours.
  for (const base of bases) {
    for (let at = 0; at < base.byteLength; at += 1) {
      for (const value of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
        const one = Uint8Array.from(base);
        one[at] = value;
        check(one);
        const four = Uint8Array.from(base);
        four.fill(value, at, at + 4);
        check(four);
      }
    }
  }
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 });
  const mutant = fc
    .tuple(fc.constantFrom(...bases), edits, fc.integer({ min: -40, max: 40 }))
    .map(([base, changes, growth]) => {
      const bytes = new Uint8Array(Math.max(0, base.byteLength + growth));
      bytes.set(base.subarray(0, bytes.byteLength));
      // Mostly the header, where a change means something.
      for (const [at, value] of changes) bytes[at % Math.min(bytes.byteLength, at % 2 === 0 ? 40 : 1_000)] = value;
      return bytes;
    });
  fc.assert(fc.property(mutant, check), { numRuns: 3_000, seed: 20_240_501 });
  const noise = fc
    .tuple(fc.constantFrom(1, 2), fc.uint8Array({ maxLength: 300 }))
    .map(([version, rest]) => Buffer.concat([Uint8Array.of(0, version), rest]));
  fc.assert(fc.property(noise, check), { numRuns: 2_000, seed: 20_240_502 });
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), check), { numRuns: 1_000, seed: 20_240_503 });
  const counts = tally(outcomes);
  test.ok((counts['accepted'] ?? 0) > 1_000, `accepted ${counts['accepted']}`);
  test.ok((counts[CANNOT_PARSE] ?? 0) > 3_000, `malformed ${counts[CANNOT_PARSE]}`);
  test.ok((counts[VERSION_UNSUPPORTED] ?? 0) > 100, `other versions ${counts[VERSION_UNSUPPORTED]}`);
});

// --- Properties ------------------------------------------------------------------------------------------------------------------

const algorithms: readonly ContentHashAlgorithm[] = [SHA256, SHA384, SHA512];
const inventedV1 = fc
  .tuple(
    fc.oneof(fc.integer({ min: 1, max: 300_000 }), fc.integer({ min: 1, max: 3 * V1_SEGMENT_BYTES })),
    fc.constantFrom(...algorithms),
    fc.integer({ min: 1, max: 1_000 }),
  )
  .map(([length, algorithm, seed]) => inventV1(length, algorithm, seed));
const inventedV2 = fc
  .tuple(
    fc.array(fc.integer({ min: 1, max: V2_MAX_SEGMENT_BYTES }), { minLength: 1, maxLength: 40 }),
    fc.integer({ min: 1, max: 1_000 }),
  )
  .map(([lengths, seed]) => inventV2(lengths, seed));
/** A range by two fractions of the content, so that short and long ones, and both edges, occur. */
const fraction = fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true }));
const contentAndRanges = fc
  .tuple(fc.oneof(inventedV1, inventedV2), fc.array(fc.tuple(fraction, fraction), { minLength: 1, maxLength: 3 }))
  .map(([whole, fractions]) => ({
    whole,
    ranges: fractions.map(([a, b]) => {
      const [from, to] = [a, b].map((x) => Math.min(whole.range.length - 1, Math.floor(x * whole.range.length)));
      const offset = Math.min(from as number, to as number);
      return { offset, length: Math.max(from as number, to as number) - offset + 1 };
    }),
  }));

await t.test('decode(encode(x)) = x, slices too', async (test) => {
  fc.assert(
    fc.property(contentAndRanges, fc.constantFrom('implicit', 'explicit', undefined), ({ whole, ranges }, style) => {
      for (const information of [whole, ...ranges.map((range) => whole.slice(range))]) {
        const decoded = decodeContentInformation(encodeContentInformation(information, style));
        if (JSON.stringify(fieldsOf(decoded)) !== JSON.stringify(fieldsOf(information))) return false;
      }
      return true;
    }),
    { numRuns: 200, seed: 7 },
  );
  for (const version of [1, 2] as const) {
    const empty = describe(version, new Uint8Array(0));
    for (const style of ['implicit', 'explicit'] as const) {
      test.same(
        fieldsOf(decodeContentInformation(encodeContentInformation(empty, style))),
        fieldsOf(empty),
        `empty, ${version}`,
      );
    }
    test.equal(empty.blockCount, 0);
    test.throws(() => empty.slice({ offset: 0, length: 1 }), { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' });
  }
});

await t.test('a slice describes the range and nothing but what the whole said', async () => {
  fc.assert(
    fc.property(contentAndRanges, ({ whole, ranges: [range = whole.range] }) => {
      const part = whole.slice(range);
      const blocks = blocksIn(part);
      const [first, last] = [blocks[0], blocks.at(-1)];
      return (
        defectOf(part) === undefined &&
        part.range.offset === range.offset &&
        part.range.length === range.length &&
        first !== undefined &&
        last !== undefined &&
        // no whole block more than needed
        rangeEnd(first) > range.offset &&
        last.offset < rangeEnd(range) &&
        // segments whole, and the first described one meets the range
        rangeEnd(part.segmentRange(0)) > range.offset &&
        part.segmentRange(part.segmentCount - 1).offset < rangeEnd(range) &&
        blocks.map(place).join() === blocksIn(whole, range).map(place).join() &&
        blocks.every((block) => {
          const origin = whole.block(whole.ordinalAt(block.offset));
          return (
            equalHashes(part.hashOfData(block.segment), whole.hashOfData(origin.segment)) &&
            equalHashes(part.segmentSecret(block.segment), whole.segmentSecret(origin.segment)) &&
            part.firstSegmentIndex + block.segment === origin.segment
          );
        }) &&
        encodeContentInformation(part).byteLength <= encodeContentInformation(whole).byteLength
      );
    }),
    { numRuns: 300, seed: 11 },
  );
});

await t.test('slices of slices, clamping, and what lies outside', async (test) => {
  fc.assert(
    fc.property(contentAndRanges, ({ whole, ranges: [a = whole.range, b = a] }) => {
      const offset = Math.max(a.offset, b.offset);
      const length = Math.min(rangeEnd(a), rangeEnd(b)) - offset;
      if (length <= 0) {
        try {
          whole.slice(a).slice(b);
          return false;
        } catch (error) {
          return isPeerDistError(error, 'ERR_PEERDIST_OUT_OF_BOUNDS');
        }
      }
      const twice = fieldsOf(whole.slice(a).slice(b));
      return JSON.stringify(twice) === JSON.stringify(fieldsOf(whole.slice({ offset, length })));
    }),
    { numRuns: 200, seed: 13 },
  );
  test.same(
    wholeV1.slice({ offset: 199_000, length: 1e12 }).range,
    { offset: 199_000, length: 1_000 },
    'an overrun is clamped',
  );
  test.throws(() => wholeV1.slice({ offset: 200_000, length: 1 }), { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' });
  test.throws(() => wholeV1.block(wholeV1.blockCount), { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' });
  test.throws(() => wholeV1.slice({ offset: 5, length: 0 }), { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' });
  for (const whole of [wholeV1, wholeV2]) {
    test.throws(() => whole.ordinalAt(-1), { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' });
    test.throws(() => whole.ordinalAt(whole.range.length), { code: 'ERR_PEERDIST_OUT_OF_BOUNDS' });
  }
});

await t.test('a slice of content information that left blocks out can be sent on', async (test) => {
  // 200,000 bytes, range 70,000+130,000 in the literal reading: blocks 1 to 3. Sliced to 140,000 on it needs blocks 2 and 3.
  const trimmed = decodeContentInformation(
    Buffer.concat([
      encodeContentInformation(wholeV1.slice({ offset: 70_000, length: 130_000 }), 'explicit').subarray(0, 98),
      u32(3, true),
      hashesOf(wholeV1, 0).subarray(32),
    ]),
  );
  test.equal(trimmed.blockLists[0]?.firstBlock, 1);
  for (const offset of [70_000, 130_000, 140_000]) {
    const part = trimmed.slice({ offset, length: 200_000 - offset });
    test.same(blocksIn(part).map(place), blocksIn(wholeV1, part.range).map(place), `from ${offset}`);
    test.equal(codeOf(encodeContentInformation(part)), 'accepted', `from ${offset}, encoded`);
  }
});

await t.test('keys of the wrong length', async (test) => {
  for (const provider of PROVIDERS) {
    for (const length of [0, 31, 33, 64]) {
      const wrong = new Uint8Array(length);
      const right = new Uint8Array(32);
      test.throws(() => segmentSecret(provider, SHA256, wrong, right), { code: 'ERR_PEERDIST_INVALID_PARAMETER' });
      test.throws(() => segmentSecret(provider, SHA256, right, wrong), { code: 'ERR_PEERDIST_INVALID_PARAMETER' });
      test.throws(() => segmentId(provider, TRUNCATED_SHA512, wrong, right), {
        code: 'ERR_PEERDIST_INVALID_PARAMETER',
      });
      test.throws(() => segmentId(provider, TRUNCATED_SHA512, right, wrong), {
        code: 'ERR_PEERDIST_INVALID_PARAMETER',
      });
    }
  }
  test.throws(() => new ServerSecret(new Uint8Array(0)), { code: 'ERR_PEERDIST_INVALID_PARAMETER' });
  const bytes = Uint8Array.of(1, 2, 3);
  const kept = new ServerSecret(bytes);
  const before = toHex(kept.key(nativeHashProvider, SHA256));
  bytes.fill(0);
  test.equal(toHex(kept.key(nativeHashProvider, SHA256)), before, 'the secret key is copied');
});

await t.test('a description for people names the segments and no secret', async (test) => {
  for (const vector of vectors.contentInformationV1.slice(0, 6)) {
    const description = describeContentInformation(v1Info(vector.name), nativeHashProvider);
    test.equal(description.contentLength, vector.contentLength);
    test.equal(description.size, vector.encoding_dwReadBytesInLastSegment0.length);
    test.same(
      description.segments.map(({ hashOfData, segmentId: id, blockCount }) => [hashOfData, id, blockCount]),
      vector.segments.map(({ HoD, HoHoDk, cBlocks }) => [HoD, HoHoDk, cBlocks]),
    );
    const text = formatDescription(description) + JSON.stringify(description);
    for (const { Kp, HoHoDk } of vector.segments) {
      test.notOk(text.includes(Kp), 'no segment secret');
      test.ok(text.includes(HoHoDk));
    }
  }
  const part = describeContentInformation(rangeV2, nativeHashProvider);
  test.match(part, { version: '2.0', whole: false, contentOffset: 60_000, contentLength: 100_000 });
  test.match(formatDescription(part), /bytes 60000-159999 in 3 segments/);
});

await t.test('work grows no faster than the input', async (test) => {
  const v1 = (segments: number): ContentInformation =>
    inventV1((segments - 1) * V1_SEGMENT_BYTES + 9, SHA256, segments);
  const v2 = (segments: number): ContentInformation =>
    inventV2(
      Array.from({ length: segments }, () => 65_536),
      segments,
    );
  const oneChunkEach = (segments: number): Uint8Array => {
    const { descriptors } = v2(segments);
    const header = encodeContentInformation(v2(1), 'implicit').subarray(0, 31);
    const chunks = Array.from({ length: segments }, (_, segment) =>
      Buffer.concat([Uint8Array.of(0), u32(68, false), descriptors.subarray(68 * segment, 68 * segment + 68)]),
    );
    return Buffer.concat([header, ...chunks]);
  };
  const inner = ({ range }: ContentInformation): { offset: number; length: number } => ({
    offset: 1,
    length: range.length - 2,
  });
  const measured = {
    'decode v1': exponentOf([16, 64, 256, 1024], (size) => {
      const bytes = encodeContentInformation(v1(size));
      return () => decodeContentInformation(bytes);
    }),
    'decode v2': exponentOf([512, 2048, 8192, 32_768], (size) => {
      const bytes = encodeContentInformation(v2(size));
      return () => decodeContentInformation(bytes);
    }),
    'decode v2, a chunk for each segment': exponentOf([512, 2048, 8192, 32_768], (size) => {
      const bytes = oneChunkEach(size);
      return () => decodeContentInformation(bytes);
    }),
    'slice v1': exponentOf([16, 64, 256, 1024], (size) => {
      const whole = v1(size);
      return () => whole.slice(inner(whole));
    }),
    'slice v2': exponentOf([512, 2048, 8192, 32_768], (size) => {
      const whole = v2(size);
      return () => whole.slice(inner(whole));
    }),
    'look up every block, v2': exponentOf([512, 2048, 8192, 32_768], (size) => {
      const whole = v2(size);
      return () => {
        for (let offset = 0; offset < whole.range.length; offset += 65_536) whole.block(whole.ordinalAt(offset));
      };
    }),
  };
  for (const [name, exponent] of Object.entries(measured)) test.ok(exponent < 1.6, `${name}: n^${exponent.toFixed(2)}`);
});
