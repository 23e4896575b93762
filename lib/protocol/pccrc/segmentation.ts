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
  position: number;
  state: number;
}

export function startCutScan(): CutScan {
  return { position: MIN_SEGMENT_BYTES - WINDOW_BYTES, state: 0 };
}

/**
 * Looks for the end of the segment that begins at `bytes[0]`, going on from where `scan` stopped.
 *
 * @param bytes the segment's bytes so far, at most {@link MAX_SEGMENT_BYTES} are looked at
 * @returns length of the segment, or 0 when more bytes are needed
 */
export function findCut(bytes: Uint8Array, scan: CutScan): number {
  const end = Math.min(bytes.byteLength, MAX_SEGMENT_BYTES);
  const table = GEAR;
  let { state, position } = scan;
  // The first bytes only fill the window; no cut can lie before the minimum.
  for (const stop = Math.min(end, MIN_SEGMENT_BYTES - 1); position < stop; position += 1) {
    state = ((state << 1) + (table[bytes[position] as number] as number)) | 0;
  }
  for (; position < end; position += 1) {
    state = ((state << 1) + (table[bytes[position] as number] as number)) | 0;
    if ((state & CUT_MASK) === 0) return position + 1;
  }
  if (position === MAX_SEGMENT_BYTES) return MAX_SEGMENT_BYTES;
  scan.position = position;
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
