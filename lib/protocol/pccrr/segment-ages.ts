/** How long segments have been in a cache: version 1 of the extensible blob (MS-PCCRR 2.2.6.1), also used by MS-PCCRD 2.2.3.9. */
import { ByteWriter } from '../../bytes/index.ts';

export interface SegmentAge {
  /** Position among the segments of the message; 0 to 255. */
  readonly index: number;
  readonly ageMs: number;
}

/** Milliseconds of the units 1 to 4: seconds, tenths, hundredths, milliseconds. */
const UNITS_MS: readonly number[] = [1_000, 100, 10, 1];
/** Hundredths of a second, as 2.2.6.1 asks senders to use. Spec note: 2.2.1.5 calls the default "hundredths of milliseconds". */
const SENT_UNIT = 3;
const MAX_AGES = 255;
const MAX_AGE = 0xff_ffff;
const BLOB_VERSION = 1;
const BLOB_HEAD_BYTES = 4;

/** Encodes ages; those past the 255th and those of segments past the 256th do not fit and are left out. */
export function encodeSegmentAges(ages: readonly SegmentAge[]): Uint8Array {
  const fitting = ages.filter(({ index }) => index <= MAX_AGES).slice(0, MAX_AGES);
  const writer = new ByteWriter(BLOB_HEAD_BYTES + 4 * fitting.length, false)
    .u16(BLOB_VERSION)
    .u8(SENT_UNIT)
    .u8(fitting.length);
  for (const { index, ageMs } of fitting) {
    const age = Math.min(Math.max(0, Math.round(ageMs / (UNITS_MS[SENT_UNIT - 1] as number))), MAX_AGE);
    writer
      .u8(index)
      .u8(age & 0xff)
      .u8((age >>> 8) & 0xff)
      .u8(age >>> 16);
  }
  return writer.bytes;
}

/** Decodes ages. A blob of another version, or a malformed one, says nothing: it is to be discarded, not its message (2.2.6.1.1). */
export function decodeSegmentAges(blob: Uint8Array): SegmentAge[] | undefined {
  if (blob.byteLength < BLOB_HEAD_BYTES || blob[0] !== 0 || blob[1] !== BLOB_VERSION) return undefined;
  const unitMs = UNITS_MS[(blob[2] as number) - 1];
  const count = blob[3] as number;
  if (unitMs === undefined || blob.byteLength < BLOB_HEAD_BYTES + 4 * count) return undefined;
  return Array.from({ length: count }, (_, position) => {
    const [index, low, middle, high] = blob.subarray(BLOB_HEAD_BYTES + 4 * position) as unknown as [
      number,
      number,
      number,
      number,
    ];
    return { index, ageMs: unitMs * (low + 0x100 * middle + 0x1_0000 * high) };
  });
}
