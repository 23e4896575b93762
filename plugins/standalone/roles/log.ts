/** What a role says while it runs: a line of JSON for each thing, or lines for people on a terminal. */
import { type DestinationStream, type Logger, pino } from 'pino';
import type { LogValues } from '../options/log-options.ts';
import type { LogSink, Terminal } from '../terminal.ts';
import { formatBytes } from '../options/units.ts';

/** One request as it is logged: numbers and plain words, no query and no content information. */
export interface RequestLine {
  readonly client: string;
  readonly method: string;
  /** Printable ASCII, without its query. */
  readonly url: string;
  readonly status: number;
  /** Sent to the client, heads included. */
  readonly bytes: number;
  readonly seconds: number;
  readonly outcome: string;
  /** Code of what went wrong. */
  readonly error?: string | undefined;
  readonly lookup?: string | undefined;
  /** Body bytes by where they came from, those that are not 0. */
  readonly from?: Readonly<Record<string, number>> | undefined;
  /** Body bytes over the WAN for its sake. */
  readonly wan?: number | undefined;
}

export class Log {
  readonly #logger: Logger;
  readonly #sink: LogSink;
  /** Whether requests get a line each. */
  isAccessLogged: boolean;

  private constructor(logger: Logger, sink: LogSink, isAccessLogged: boolean) {
    this.#logger = logger;
    this.#sink = sink;
    this.isAccessLogged = isAccessLogged;
  }

  static async open({ logLevel, logFormat, accessLog }: LogValues, terminal: Terminal, site?: string): Promise<Log> {
    const sink = terminal.openLog();
    const isPretty = logFormat === 'pretty' || (logFormat === 'auto' && sink.isTerminal);
    const options = {
      level: logLevel,
      base: site === undefined ? null : { site },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (level: string) => ({ level }) },
    };
    const stream = isPretty ? await prettyStream(sink) : sink.stream;
    return new Log(pino(options, stream), sink, accessLog);
  }

  info(message: string): void {
    this.#logger.info(message);
  }

  warn(message: string): void {
    this.#logger.warn(message);
  }

  error(message: string): void {
    this.#logger.error(message);
  }

  request(line: RequestLine): void {
    this.#logger.info(line, 'request');
  }

  setLevel(level: LogValues['logLevel']): void {
    this.#logger.level = level;
  }

  /** Writes what waits, at the end. Never rejects. */
  flush(): Promise<void> {
    return this.#sink.flush();
  }
}

/** Only loaded where somebody looks. */
async function prettyStream({ stream, isTerminal }: LogSink): Promise<DestinationStream> {
  const { prettyFactory } = await import('pino-pretty');
  const pretty = prettyFactory({
    colorize: isTerminal,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'site,client,method,url,status,bytes,seconds,outcome,error,lookup,from,wan',
    messageFormat: (log, messageKey) =>
      log['method'] === undefined ? String(log[messageKey]) : requestText(log as unknown as RequestLine),
  });
  return { write: (line) => stream.write(pretty(line)) };
}

function requestText(line: RequestLine): string {
  const { client, method, url, status, bytes, seconds, outcome, error, lookup, from = {} } = line;
  const sources = Object.entries(from).map(([source, count]) => `${source} ${formatBytes(count)}`);
  const notes = [outcome === 'complete' ? undefined : outcome, error, lookup].filter((note) => note !== undefined);
  const noted = notes.length === 0 ? '' : ` (${notes.join(', ')})`;
  const sourced = sources.length === 0 ? '' : `: ${sources.join(', ')}`;
  return `${client} ${method} ${url} ${status}, ${formatBytes(bytes)} in ${seconds.toFixed(3)} s${noted}${sourced}`;
}
