import { createReadStream, statSync } from 'node:fs';
import { addAbortSignal, pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import { createParser, detectFormat, type FormatName } from './log-formats.ts';
import type { LineParser, LogRecord } from './log-record.ts';

export interface LogFileOptions {
  /** @default by the first lines */
  readonly format?: FormatName | undefined;
  /** Called with the bytes of the file, as they are on the disk, that have been read since the last call. */
  readonly onRead?: ((bytes: number) => void) | undefined;
  /** Reading then ends, also while nothing comes. */
  readonly signal?: AbortSignal | undefined;
}

/** Longer lines are skipped. Policy: servers refuse URLs long before. */
export const MAX_LINE_BYTES = 64 * 1024;
/** Lines looked at to find out the format. */
const LINES_TO_DETECT = 100;
/** Numbers of bad lines that are told. */
const MAX_TOLD = 5;

/** A log that cannot be replayed: nothing is wrong with the command line. */
export class LogError extends Error {}

/** One log: its records in batches, and the tally of its lines. */
export class LogFile {
  readonly name: string;
  readonly #options: LogFileOptions;
  format: FormatName | undefined;
  lines = 0;
  /** Lines in no such format, and those that are too long. */
  badLines = 0;
  /** Numbers of the first of them. */
  readonly firstBad: number[] = [];

  /** @param name path, or `-` for standard input; what ends in `.gz` is unpacked */
  constructor(name: string, options: LogFileOptions = {}) {
    this.name = name;
    this.#options = options;
    this.format = options.format;
  }

  /**
   * Reads the log from its beginning.
   *
   * @throws {@link LogError} for a format that is not known, a file that is damaged, and one that has more bad lines than good ones;
   *   {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION` for one that cannot be read, or lacks a field
   */
  async *records(): AsyncGenerator<LogRecord[]> {
    this.lines = 0;
    this.badLines = 0;
    this.firstBad.length = 0;
    let parse: LineParser | undefined;
    for await (const lines of this.#lines()) {
      if (parse === undefined && lines.some(isText)) parse = createParser(this.#detect(lines));
      const batch: LogRecord[] = [];
      for (const line of lines) {
        this.lines += 1;
        const record = line === undefined ? undefined : this.#parse(line, parse as LineParser);
        if (record === undefined) this.#tellBad();
        else if (typeof record === 'object') batch.push(record);
      }
      if (batch.length > 0) yield batch;
    }
    if (this.badLines > this.lines / 2) throw new LogError(`${this.name}: ${this.badSentence}`);
  }

  /** False for what can be read once only: standard input, a pipe. */
  get isFile(): boolean {
    if (this.name === '-') return false;
    // What is not there fails when it is read.
    return statSync(this.name, { throwIfNoEntry: false })?.isFile() ?? true;
  }

  get badSentence(): string {
    const numbers = `${this.firstBad.join(', ')}${this.badLines > this.firstBad.length ? ', …' : ''}`;
    const format = this.format === undefined ? 'a format that is known' : `the format ${this.format}`;
    return `${this.badLines} of ${this.lines} lines are not in ${format} (lines ${numbers})`;
  }

  #parse(line: string, parse: LineParser): ReturnType<LineParser> {
    try {
      return line === '' ? 'comment' : parse(line);
    } catch (error) {
      if (!isPeerDistError(error)) throw error;
      throw new PeerDistError(error.code, `${this.name}, line ${this.lines}: ${error.message}`);
    }
  }

  #tellBad(): void {
    this.badLines += 1;
    if (this.firstBad.length < MAX_TOLD) this.firstBad.push(this.lines);
  }

  #detect(lines: readonly (string | undefined)[]): FormatName {
    this.format ??= detectFormat(lines.slice(0, LINES_TO_DETECT).filter(isText));
    if (this.format !== undefined) return this.format;
    throw new LogError(`${this.name}: its first lines are in none of the formats known; --format names one`);
  }

  /** Lines as they come, latin1 so that every byte is a character; undefined for one that is too long. */
  async *#lines(): AsyncGenerator<(string | undefined)[]> {
    let rest = '';
    let isTooLong = false;
    for await (const chunk of this.#bytes()) {
      const text = rest + chunk.toString('latin1');
      const lines: (string | undefined)[] = [];
      let start = 0;
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
        if (isTooLong || end - start > MAX_LINE_BYTES) lines.push(undefined);
        else lines.push(text.slice(start, text[end - 1] === '\r' ? end - 1 : end));
        isTooLong = false;
        start = end + 1;
      }
      isTooLong ||= text.length - start > MAX_LINE_BYTES;
      rest = isTooLong ? '' : text.slice(start);
      yield lines;
    }
    if (isTooLong) yield [undefined];
    else if (rest !== '') yield [rest];
  }

  async *#bytes(): AsyncGenerator<Buffer> {
    const { onRead, signal } = this.#options;
    const file = this.name === '-' ? process.stdin : createReadStream(this.name);
    // What fails is thrown where the last of them is read.
    const source: Readable = this.name.endsWith('.gz') ? pipeline(file, createGunzip(), () => {}) : file;
    if (signal !== undefined) addAbortSignal(signal, source);
    let told = 0;
    const tell = (): void => {
      const read = 'bytesRead' in file ? file.bytesRead : 0;
      onRead?.(read - told);
      told = read;
    };
    try {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        tell();
        yield chunk;
      }
      tell();
    } catch (error) {
      if (signal?.aborted !== true) throw failureOf(this.name, error);
    } finally {
      file.destroy();
    }
  }
}

function isText(line: string | undefined): line is string {
  return line !== undefined && line !== '';
}

function failureOf(name: string, error: unknown): Error {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (code.startsWith('Z_')) return new LogError(`${name}: damaged, or cut off: ${message}`);
  return new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `cannot read ${name}: ${code === '' ? message : code}`);
}
