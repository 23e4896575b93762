import { LogError, LogFile } from './log-file.ts';
import type { LogRecord } from './log-record.ts';

/** Files whose times overlap, and which are open at the same time. Policy. */
const MAX_OPEN_FILES = 200;
/** Records handed on together. */
const BATCH = 1024;

interface Opened {
  readonly batches: AsyncGenerator<LogRecord[]>;
  batch: LogRecord[];
  at: number;
}

/**
 * The records of several logs by time, if each of them is sorted; what is out of order in a log stays so. A log is opened when its time has come: a year of
 * daily logs takes one open file.
 *
 * @throws as {@link LogFile.records}; {@link LogError} when too many logs overlap
 */
export async function* mergeLogs(files: readonly LogFile[]): AsyncGenerator<LogRecord[]> {
  const [only] = files;
  if (only !== undefined && files.length === 1) {
    yield* only.records();
    return;
  }
  const waiting = await inOrder(files);
  const open: Opened[] = [];
  let merged: LogRecord[] = [];
  try {
    for (;;) {
      const current = earliest(open);
      const next = waiting[0];
      if (next !== undefined && next.timeMs <= timeOf(current)) {
        waiting.shift();
        if (open.length === MAX_OPEN_FILES) throw new LogError(`more than ${MAX_OPEN_FILES} logs are of the same time`);
        const opened = await begin(next.file);
        if (opened !== undefined) open.push(opened);
        continue;
      }
      if (current === undefined) break;
      // Up to where another log goes on.
      const until = Math.min(timeOf(earliest(open, current)), next?.timeMs ?? Infinity);
      do {
        merged.push(current.batch[current.at] as LogRecord);
        current.at += 1;
      } while (current.at < current.batch.length && timeOf(current) <= until);
      if (current.at === current.batch.length && !(await refill(current))) open.splice(open.indexOf(current), 1);
      if (merged.length < BATCH) continue;
      yield merged;
      merged = [];
    }
    if (merged.length > 0) yield merged;
  } finally {
    for (const { batches } of open) await batches.return(undefined);
  }
}

/** The logs by the time of their first record. What cannot be read twice is opened first. */
async function inOrder(files: readonly LogFile[]): Promise<{ readonly file: LogFile; readonly timeMs: number }[]> {
  const timed: { readonly file: LogFile; readonly timeMs: number }[] = [];
  for (const file of files) timed.push({ file, timeMs: file.isFile ? await firstTime(file) : -1 });
  return timed.toSorted((a, b) => a.timeMs - b.timeMs);
}

/** A log without records comes first too: what is wrong with it is found at once. */
async function firstTime({ name, format }: LogFile): Promise<number> {
  for await (const [first] of new LogFile(name, { format }).records()) return first?.timeMs ?? 0;
  return 0;
}

async function begin(file: LogFile): Promise<Opened | undefined> {
  const opened: Opened = { batches: file.records(), batch: [], at: 0 };
  return (await refill(opened)) ? opened : undefined;
}

/** False when there is no further record. */
async function refill(opened: Opened): Promise<boolean> {
  const { done, value } = await opened.batches.next();
  if (done === true) return false;
  opened.batch = value;
  opened.at = 0;
  return true;
}

function earliest(open: readonly Opened[], but?: Opened): Opened | undefined {
  let first: Opened | undefined;
  for (const each of open) if (each !== but && timeOf(each) < timeOf(first)) first = each;
  return first;
}

function timeOf(opened: Opened | undefined): number {
  return opened === undefined ? Infinity : (opened.batch[opened.at] as LogRecord).timeMs;
}
