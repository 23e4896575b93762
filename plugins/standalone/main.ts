#!/usr/bin/env node
import cluster from 'node:cluster';
import { pino } from 'pino';
import { runCommand } from './cli.ts';
import { grantHeapSlack } from './heap.ts';
import type { LogSink } from './terminal.ts';

/** Bytes of one write: what a pipe takes as a whole, so that lines of several processes do not mix (POSIX PIPE_BUF). */
const WHOLE_WRITE_BYTES = 4096;
/** Bytes of lines that wait for a reader who stands still; more are lost. Policy. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;
/** Milliseconds for the last lines. Policy. */
const FLUSH_MS = 3_000;

grantHeapSlack();
leaveOut('DEP0060');
const stopRequested = new Promise<void>((resolve) => {
  process.once('SIGINT', () => resolve());
  process.once('SIGTERM', () => resolve());
});

process.exitCode = await runCommand(process.argv.slice(2), {
  print: (line) => console.log(line),
  warn: (line) => console.error(line),
  openLog,
  stopRequested,
  onReload: (reload) => void process.on('SIGHUP', reload),
});

// A worker that cannot even begin must not look as if it worked.
if (process.connected) process.disconnect();

function openLog(): LogSink {
  const whole = cluster.isWorker ? { maxWrite: WHOLE_WRITE_BYTES } : {};
  const stream = pino.destination({ dest: 1, sync: false, maxLength: MAX_WAITING_BYTES, ...whole });
  // Whoever reads the log may go away; the service does not.
  let isBroken = false;
  stream.on('error', () => {
    isBroken = true;
  });
  return {
    stream,
    isTerminal: process.stdout.isTTY,
    flush: () =>
      new Promise((resolve) => {
        // What nobody reads is not waited for.
        if (isBroken) return resolve();
        // A reader that stands still holds a write that nothing else can end: it must not hold the process.
        const deadline = setTimeout(() => process.kill(process.pid, 'SIGKILL'), FLUSH_MS);
        const done = (): void => {
          clearTimeout(deadline);
          resolve();
        };
        // It closes when the last line is written, and fails when nobody is there to read it.
        stream.once('close', done);
        stream.once('error', done);
        return stream.end();
      }),
  };
}

/** `http-proxy` calls what Node 22 deprecates: those who run this can do nothing about it. @param code of the warning that is not printed */
function leaveOut(code: string): void {
  const emit = process.emitWarning.bind(process) as (...args: unknown[]) => void;
  process.emitWarning = (...args: unknown[]) => {
    if (!args.includes(code)) emit(...args);
  };
}
