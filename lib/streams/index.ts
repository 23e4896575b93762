export { ContentHasher, type ContentHasherOptions } from './content-hasher.ts';
export { endTogether } from './end-together.ts';
export { type HashingEngine, type HashingOptions, InlineHashing } from './hashing.ts';
export { HashingPool } from './hashing-threads.ts';
export { type AssemblerPart, RangeAssembler, type RangeAssemblerOptions } from './range-assembler.ts';
export { type SegmentAccumulator, V1Accumulator, V2Accumulator } from './segment-accumulator.ts';
