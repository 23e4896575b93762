/** `peerdist verify`: whether a content server's hashes and its bodies agree. */
import Table from 'cli-table3';
import type { Command } from 'commander';
import { isPeerDistError } from '../../../lib/errors.ts';
import { type Agreement, type Progress, verifyUrl } from '../../hosted-cache/index.ts';
import { WEB_URL } from '../options/settings.ts';
import { ProgressBar } from '../progress.ts';
import type { Terminal } from '../terminal.ts';
import { formatBytes } from '../options/units.ts';

export function addVerifyCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  program
    .command('verify')
    .description('download a content and its hashes from any BranchCache server, and compare them')
    .argument('<url>')
    .option('--json', 'print JSON')
    .action(async (url: string, values: { readonly json?: true }) => {
      WEB_URL.parse(url);
      const stopped = new AbortController();
      void terminal.stopRequested.then(() => stopped.abort(new Error('stopped')));
      const bar = new ProgressBar('{step} {bar} {percentage}%  {eta_formatted} left');
      const onProgress: Progress = (step, done, total = done) => bar.show(step, done, total);
      try {
        const result = await verifyUrl(url, { onProgress, signal: stopped.signal });
        bar.stop();
        const isRight = agrees(result.bytes, result.agreements);
        if (values.json === true) terminal.print(JSON.stringify({ url, ...result, isRight }, undefined, 2));
        else terminal.print(`${table(result.agreements)}\n${verdict(result.bytes, result.agreements, isRight)}`);
        exit(isRight ? 0 : 1);
      } catch (error) {
        bar.stop();
        if (!isPeerDistError(error) && !stopped.signal.aborted) throw error;
        terminal.warn(`peerdist: ${url}: ${(error as Error).message}`);
        exit(1);
      }
    });
}

function agrees(bytes: number, agreements: readonly Agreement[]): boolean {
  const offered = agreements.filter(({ isOffered }) => isOffered);
  return (
    offered.length > 0 &&
    offered.every(({ wrongBlocks, describedBytes }) => wrongBlocks === 0 && describedBytes === bytes)
  );
}

function table(agreements: readonly Agreement[]): string {
  const output = new Table({
    head: ['hashes', 'size', 'segments', 'blocks', 'wrong blocks', 'describe'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const { version, isOffered, informationBytes, segments, blocks, wrongBlocks, describedBytes } of agreements) {
    if (isOffered)
      output.push([
        `version ${version}`,
        formatBytes(informationBytes),
        segments,
        blocks,
        wrongBlocks,
        formatBytes(describedBytes),
      ]);
    else output.push([`version ${version}`, 'not sent', '', '', '', '']);
  }
  return output.toString();
}

function verdict(bytes: number, agreements: readonly Agreement[], isRight: boolean): string {
  if (isRight) return `The hashes describe the ${formatBytes(bytes)} that were downloaded: all right.`;
  if (agreements.every(({ isOffered }) => !isOffered))
    return 'The server sends no hashes for it: is it a BranchCache content server, and the file at least 64 KiB?';
  return `The hashes do NOT describe the ${formatBytes(bytes)} that were downloaded.`;
}
