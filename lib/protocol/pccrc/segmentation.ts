/**
 * Where version 2 segments end. MS-PCCRC leaves this to the publisher; the cut points here follow the data, so that an insertion
 * in the middle of a file moves only the cuts around it and every other segment keeps its hash.
 *
 * A gear hash: each byte shifts the 32-bit state left and adds a random word for that byte, so the state depends on the last
 * 32 bytes alone. A segment ends where the top 15 bits are zero. All numbers are policy, not protocol, but changing one makes every
 * content look new to every branch.
 */
import { V2_MAX_SEGMENT_BYTES } from './constants.ts';

/** No segment but the last of a content is shorter. */
export const MIN_SEGMENT_BYTES = 32 * 1024;
/** No segment is longer. */
export const MAX_SEGMENT_BYTES = V2_MAX_SEGMENT_BYTES;

const WINDOW_BYTES = 32;
/** 15 bits: on average 32 KiB behind the minimum, so about 64 KiB a segment. */
const CUT_MASK = 0xfffe0000 | 0;
const GEAR = gearTable(0x70656572);

/** Where a scan for the end of one segment stands. Opaque to callers. */
export interface CutScan {
  /** Bytes of the segment seen so far. */
  length: number;
  state: number;
}

/** A scan at the beginning of a segment. */
export function startCutScan(): CutScan {
  return { length: 0, state: 0 };
}

/**
 * Looks for the end of the segment in its next bytes.
 *
 * @param bytes the segment's bytes that follow those the scan has seen, and whatever comes behind them
 * @param scan moves on; when the segment has ended, the next one needs a new scan
 * @returns how many of `bytes` belong to the segment when it ends among them, else 0: all of them belong to it, and it goes on
 */
export function findCut(bytes: Uint8Array, scan: CutScan): number {
  const table = GEAR;
  const before = scan.length;
  const end = Math.min(bytes.byteLength, MAX_SEGMENT_BYTES - before);
  let { state } = scan;
  let index = Math.max(0, MIN_SEGMENT_BYTES - WINDOW_BYTES - before);
  // The last bytes before the minimum only fill the window; no cut can lie there.
  for (const stop = Math.min(end, MIN_SEGMENT_BYTES - 1 - before); index < stop; index += 1) {
    state = ((state << 1) + (table[bytes[index] as number] as number)) | 0;
  }
  // Eight bytes a turn: half as fast again as one.
  for (const stop = end - 7; index < stop; index += 8) {
    state = ((state << 1) + (table[bytes[index] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 1;
    state = ((state << 1) + (table[bytes[index + 1] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 2;
    state = ((state << 1) + (table[bytes[index + 2] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 3;
    state = ((state << 1) + (table[bytes[index + 3] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 4;
    state = ((state << 1) + (table[bytes[index + 4] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 5;
    state = ((state << 1) + (table[bytes[index + 5] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 6;
    state = ((state << 1) + (table[bytes[index + 6] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 7;
    state = ((state << 1) + (table[bytes[index + 7] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 8;
  }
  for (; index < end; index += 1) {
    state = ((state << 1) + (table[bytes[index] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return index + 1;
  }
  if (before + end === MAX_SEGMENT_BYTES) return end;
  scan.length = before + end;
  scan.state = state;
  return 0;
}

/** 256 well-mixed words from a seed (the output function of SplitMix32): the same on every machine, with no table to mistype. */
function gearTable(seed: number): Int32Array {
  const table = new Int32Array(256);
  for (let index = 0; index < table.length; index += 1) {
    let word = (seed + Math.imul(index + 1, 0x9e3779b9)) | 0;
    word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    table[index] = word ^ (word >>> 15);
  }
  return table;
}
