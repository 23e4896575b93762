/** Where version 2 segments end: policy, but one that must never change unknowingly, since then every branch holds the wrong segments. */
import t from 'tap';
import { toHex } from '../../lib/bytes/index.ts';
import {
  type ContentInformation,
  findCut,
  MAX_SEGMENT_BYTES,
  MIN_SEGMENT_BYTES,
  startCutScan,
  V2_MAX_SEGMENT_BYTES,
} from '../../lib/protocol/pccrc/index.ts';
import { describe } from '../support/content-information.ts';
import { cutAnywhere, seededBytes } from '../support/random.ts';
import { vectorContent } from '../support/vectors.ts';

const MIB = 1024 * 1024;

/** Lengths of the segments of bytes that are all at hand. */
function segmentLengths(bytes: Uint8Array): number[] {
  const lengths: number[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const length = findCut(bytes.subarray(at), startCutScan()) || bytes.byteLength - at;
    lengths.push(length);
    at += length;
  }
  return lengths;
}

function lengthsOf(information: ContentInformation): number[] {
  return Array.from({ length: information.segmentCount }, (_, segment) => information.segmentRange(segment).length);
}

function hashesOf(information: ContentInformation): string[] {
  return Array.from({ length: information.segmentCount }, (_, segment) => toHex(information.hashOfData(segment)));
}

await t.test('64 MiB of random bytes: bounds and average', async (test) => {
  test.equal(MIN_SEGMENT_BYTES, 32 * 1024);
  test.equal(MAX_SEGMENT_BYTES, 128 * 1024);
  test.equal(MAX_SEGMENT_BYTES, V2_MAX_SEGMENT_BYTES);
  const lengths = segmentLengths(seededBytes(42, 64 * MIB));
  const last = lengths.pop() as number;
  test.ok(last > 0 && last <= MAX_SEGMENT_BYTES, 'the last one only ends');
  test.same(
    lengths.filter((length) => length < MIN_SEGMENT_BYTES || length > MAX_SEGMENT_BYTES),
    [],
    'all within 32 to 128 KiB',
  );
  const average = lengths.reduce((sum, length) => sum + length, 0) / lengths.length / 1024;
  test.ok(average > 56 && average < 72, `on average ${average.toFixed(1)} KiB`);
  const longest = lengths.filter((length) => length === MAX_SEGMENT_BYTES).length / lengths.length;
  test.ok(longest < 0.1, `cut by force: ${(100 * longest).toFixed(1)} %, a cut there does not follow the data`);
});

await t.test('the same cuts and hashes however the bytes arrive', async (test) => {
  const bytes = seededBytes(7, 3 * MIB + 12_345);
  const whole = describe(2, bytes);
  const lengths = segmentLengths(bytes);
  test.same(lengthsOf(whole), lengths, 'the accumulator cuts where the scan says');
  test.ok(lengths.length > 40);
  for (const [maxBytes, seed] of [
    [100, 1],
    [1_500, 2],
    [70_000, 3],
    [400_000, 4],
  ] as const) {
    const pieces = cutAnywhere(bytes, maxBytes, seed);
    const information = describe(2, pieces);
    test.same(lengthsOf(information), lengths, `pieces of up to ${maxBytes}`);
    test.same(hashesOf(information), hashesOf(whole));
  }
  for (const size of [1, MIN_SEGMENT_BYTES - 32, MIN_SEGMENT_BYTES - 1, MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES]) {
    const part = bytes.subarray(0, 400_000);
    const pieces = Array.from({ length: Math.ceil(part.byteLength / size) }, (_, index) =>
      part.subarray(index * size, (index + 1) * size),
    );
    test.same(lengthsOf(describe(2, pieces)), segmentLengths(part), `pieces of ${size}`);
  }
});

await t.test('a scan goes on where it stopped', async (test) => {
  const bytes = seededBytes(9, MAX_SEGMENT_BYTES);
  const expected = findCut(bytes, startCutScan());
  test.ok(expected > 0);
  const scan = startCutScan();
  let found = 0;
  for (let end = 1; found === 0 && end <= bytes.byteLength; end += 1) {
    if (findCut(bytes.subarray(end - 1, end), scan) === 1) found = end;
  }
  test.equal(found, expected, 'byte by byte');
  test.equal(findCut(bytes.subarray(0, expected), startCutScan()), expected, 'with not a byte more than the segment');
  test.equal(findCut(bytes.subarray(0, expected - 1), startCutScan()), 0, 'and not with one less');
});

await t.test('the shortest segment', async (test) => {
  // The 32 bytes before any cut make one wherever they end, if the minimum allows.
  const bytes = seededBytes(9, MAX_SEGMENT_BYTES);
  const cut = findCut(bytes, startCutScan());
  const window = bytes.subarray(cut - 32, cut);
  const place = (end: number): Uint8Array => {
    const segment = new Uint8Array(MAX_SEGMENT_BYTES);
    segment.set(window, end - window.byteLength);
    return segment;
  };
  for (let end = MIN_SEGMENT_BYTES; end < MIN_SEGMENT_BYTES + 64; end += 1) {
    test.equal(findCut(place(end), startCutScan()), end);
    test.equal(findCut(place(end).subarray(0, end + 3), startCutScan()), end, 'near the end of a chunk');
  }
  test.equal(findCut(place(MIN_SEGMENT_BYTES - 1), startCutScan()), MAX_SEGMENT_BYTES, 'one byte too early is no cut');
  test.equal(findCut(place(MIN_SEGMENT_BYTES).subarray(0, MIN_SEGMENT_BYTES), startCutScan()), MIN_SEGMENT_BYTES);
});

await t.test('an insertion moves only the cuts around it', async (test) => {
  const before = seededBytes(11, 8 * MIB);
  for (const at of [0, 4 * MIB, 4 * MIB + 77_777, 8 * MIB]) {
    const after = Buffer.concat([before.subarray(0, at), seededBytes(at + 1, 100), before.subarray(at)]);
    const old = new Set(hashesOf(describe(2, before)));
    const fresh = hashesOf(describe(2, after)).filter((hash) => !old.has(hash));
    test.ok(
      fresh.length >= 1 && fresh.length <= 6,
      `100 bytes at ${at}: ${fresh.length} of ${old.size} segments differ`,
    );
  }
  const shorter = hashesOf(describe(2, before.subarray(0, 5 * MIB)));
  test.same(
    shorter.slice(0, -1),
    hashesOf(describe(2, before)).slice(0, shorter.length - 1),
    'the segments of a file that grew stay',
  );
});

await t.test('bytes without any pattern to follow', async (test) => {
  const lengths = new Set<number>();
  for (let value = 0; value < 256; value += 1) {
    const segments = segmentLengths(new Uint8Array(3 * MAX_SEGMENT_BYTES).fill(value));
    for (const length of segments) lengths.add(length);
  }
  test.same(
    [...lengths].filter((length) => length < MIN_SEGMENT_BYTES || length > MAX_SEGMENT_BYTES),
    [],
    'every constant byte',
  );
  const zeros = describe(2, new Uint8Array(40 * MIB));
  test.equal(new Set(hashesOf(zeros)).size, 1, '40 MiB of zeros: one segment over and over');
  test.equal(zeros.range.length, 40 * MIB);
  const period = new Uint8Array(2 * MIB).map((_, index) => index % 251);
  test.ok(
    segmentLengths(period).every((length, index, all) => length >= MIN_SEGMENT_BYTES || index === all.length - 1),
  );
  for (const length of [1, 31, 32, 33, MIN_SEGMENT_BYTES - 1]) {
    test.same(lengthsOf(describe(2, seededBytes(3, length))), [length], `${length} bytes are one segment`);
  }
  test.same(lengthsOf(describe(2, new Uint8Array(0))), []);
});

// A change here makes every content look new to every branch. Change the numbers only together with the policy, and say so.
await t.test('pinned cut points', async (test) => {
  // Prettier puts each number on a line of its own, which says less than the row.
  // prettier-ignore
  test.same(segmentLengths(seededBytes(1, MIB)), [68343,131072,33017,60006,43086,109885,46800,131072,46619,54759,55078,39371,37957,88254,58519,40476,4262]);
  test.same(segmentLengths(vectorContent(1_000_000)), [131072, 131072, 131072, 131072, 131072, 131072, 131072, 82496]);
  test.same(segmentLengths(new Uint8Array(300_000)), [131072, 131072, 37856]);
  const text = Buffer.from(Array.from({ length: 30_000 }, (_, line) => `line ${line} of a text\n`).join(''));
  test.same(segmentLengths(text), [49008, 89451, 67604, 39908, 88546, 59960, 41347, 42754, 34382, 105930]);
});
