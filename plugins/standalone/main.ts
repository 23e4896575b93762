#!/usr/bin/env node
import { runCommand } from './cli.ts';
import { grantHeapSlack } from './heap.ts';

grantHeapSlack();
const stopRequested = new Promise<void>((resolve) => {
  process.once('SIGINT', () => resolve());
  process.once('SIGTERM', () => resolve());
});

process.exitCode = await runCommand(process.argv.slice(2), {
  print: (line) => console.log(line),
  warn: (line) => console.error(line),
  stopRequested,
});
