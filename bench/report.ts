import Table from 'cli-table3';

export interface Line {
  readonly what: string;
  readonly value: string;
  readonly yardstick?: string;
  readonly ratio?: number;
  /** Ratio the issue asks for. */
  readonly goal?: number;
  /** True when smaller is better. */
  readonly atMost?: boolean;
}

/** Prints one table; returns the lines that miss their goal. */
export function printReport(title: string, lines: readonly Line[]): readonly Line[] {
  const table = new Table({
    head: [title, 'measured', 'yardstick', 'ratio', 'goal', ''],
    style: { head: [], border: [], compact: true },
  });
  const missed: Line[] = [];
  for (const line of lines) {
    const { ratio, goal, atMost = false } = line;
    const met = ratio === undefined || goal === undefined || (atMost ? ratio <= goal : ratio >= goal);
    if (!met) missed.push(line);
    table.push([
      line.what,
      line.value,
      line.yardstick ?? '',
      ratio === undefined ? '' : ratio.toFixed(2),
      goal === undefined ? '' : `${atMost ? '≤' : '≥'} ${goal}`,
      goal === undefined ? '' : met ? 'ok' : 'MISSED',
    ]);
  }
  console.log(table.toString());
  return missed;
}

export function gigabytes(bytesPerSecond: number): string {
  return `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;
}

export function perSecond(value: number): string {
  return `${Math.round(value).toLocaleString('en')}/s`;
}
