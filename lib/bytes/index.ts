export { GrowableBytes } from './growable.ts';
export {
  type ByteRange,
  assertByteRange,
  assertBytes,
  clip,
  covers,
  intersect,
  isByteRange,
  rangeEnd,
} from './range.ts';
export { fromHex, toHex } from './hex.ts';
export { ByteReader, type TruncationError } from './reader.ts';
export { ByteWriter } from './writer.ts';
