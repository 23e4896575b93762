/** How the time of an operation grows with the size of its input. */

/**
 * Fits `time = c * size^exponent` over the sizes (least squares on logarithms) and returns the median exponent of several fits.
 * Every measurement repeats the operation until it has run for a while, so a single pause weighs little.
 */
export function exponentOf(
  sizes: readonly number[],
  prepare: (size: number) => () => unknown,
  { fits = 5, minMs = 2 }: { readonly fits?: number; readonly minMs?: number } = {},
): number {
  const operations = sizes.map(prepare);
  for (const operation of operations) secondsOf(operation, minMs);
  const exponents = Array.from({ length: fits }, () =>
    slope(
      sizes.map(Math.log),
      operations.map((operation) => Math.log(secondsOf(operation, minMs))),
    ),
  );
  return exponents.toSorted((a, b) => a - b)[Math.floor(fits / 2)] as number;
}

function secondsOf(operation: () => unknown, minMs: number): number {
  let runs = 0;
  const start = performance.now();
  let now = start;
  do {
    operation();
    runs += 1;
    now = performance.now();
  } while (now - start < minMs);
  return (now - start) / runs / 1000;
}

function slope(xs: readonly number[], ys: readonly number[]): number {
  const meanX = xs.reduce((a, b) => a + b) / xs.length;
  const meanY = ys.reduce((a, b) => a + b) / ys.length;
  let numerator = 0;
  let denominator = 0;
  xs.forEach((x, index) => {
    numerator += (x - meanX) * ((ys[index] as number) - meanY);
    denominator += (x - meanX) ** 2;
  });
  return numerator / denominator;
}
