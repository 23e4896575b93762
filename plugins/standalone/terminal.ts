import type { DestinationStream } from 'pino';

/** How a command talks to its surroundings. */
export interface Terminal {
  readonly print: (line: string) => void;
  readonly warn: (line: string) => void;
  /** Where a role that runs says what happens. */
  readonly openLog: () => LogSink;
  /** Resolves when the process is asked to end. */
  readonly stopRequested: Promise<void>;
  /** Calls back each time the process is asked to read its configuration anew. */
  readonly onReload: (reload: () => void) => void;
}

/** Where a log goes. */
export interface LogSink {
  readonly stream: DestinationStream;
  readonly isTerminal: boolean;
  /** Writes what waits; nothing is taken any more. Never rejects. */
  readonly flush: () => Promise<void>;
}
