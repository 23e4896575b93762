/** How every figure is taken: a thing and its yardstick in turns, in one run, the median of several rounds. */

export interface Paired {
  /** Medians, in whatever unit the two functions return (higher is better). */
  readonly value: number;
  readonly yardstick: number;
  /** Median of the rounds' ratios: noise that hits both cancels out. */
  readonly ratio: number;
}

export const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);

/** Runs `yardstick` and `subject` in turns; each round is held against the mean of the yardstick before and after it, so that drift cancels out too. */
export async function paired(
  subject: () => number | Promise<number>,
  yardstick: () => number | Promise<number>,
  rounds = ROUNDS,
): Promise<Paired> {
  const values: number[] = [];
  const yardsticks = [await yardstick()];
  const ratios: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const value = await subject();
    const [before, after] = [yardsticks[round] as number, await yardstick()];
    yardsticks.push(after);
    values.push(value);
    ratios.push((2 * value) / (before + after));
  }
  return { value: median(values), yardstick: median(yardsticks), ratio: median(ratios) };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

/** Bytes a second of work that handles `bytes` bytes. */
export async function rate(bytes: number, work: () => unknown): Promise<number> {
  const started = performance.now();
  await work();
  return bytes / ((performance.now() - started) / 1000);
}

/** Reproducible bytes that do not compress. */
export function seededBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  const words = new Uint32Array(bytes.buffer, 0, Math.floor(length / 4));
  let state = seed >>> 0 || 1;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return bytes;
}

export const GB = 1e9;
export const MiB = 1024 * 1024;
