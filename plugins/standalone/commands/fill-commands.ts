/** What fills hosted caches: `peerdist hosted preload` and `import` into one that runs, `--preload` and `--import` at its start, `peerdist export`. */
import { createReadStream, renameSync, rmSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { isPeerDistError, PeerDistError } from '../../../lib/errors.ts';
import type { ContentInformationVersion } from '../../../lib/protocol/pccrc/index.ts';
import { type Progress, writePackage } from '../../hosted-cache/index.ts';
import { readToken } from '../kept/state-directory.ts';
import { numberFrom, type Setting, setting, WEB_URL } from '../options/settings.ts';
import { formatBytes, type ListenAddress } from '../options/units.ts';
import { ProgressBar } from '../progress.ts';
import { type Filling, fillRunning } from '../roles/hosted-fill.ts';
import type { HostedService } from '../roles/hosted-role.ts';
import type { Terminal } from '../terminal.ts';

interface FillValues {
  readonly admin: ListenAddress | false;
  readonly stateDir: string;
  readonly contentInfo: ContentInformationVersion;
}

interface StartValues {
  readonly contentInfo: ContentInformationVersion;
  readonly preload?: string[];
  readonly import?: string[];
}

/** What fills a hosted cache that runs. */
export function addFillCommands(hosted: Command, terminal: Terminal, exit: (code: number) => void): void {
  const add = (name: 'preload' | 'import', argument: string, description: string): void => {
    hosted
      .command(name)
      .description(description)
      .argument(argument)
      .action(async (items: string[], _values: object, command: Command) => {
        const { admin, stateDir, contentInfo } = command.optsWithGlobals<FillValues>();
        if (admin === false)
          throw new PeerDistError('ERR_PEERDIST_INVALID_OPTION', `${name} goes through the admin listener`);
        const token = readToken(stateDir);
        for (const item of items) {
          const filling: Filling = name === 'import' ? { file: item } : { url: item, version: contentInfo };
          const ok = await report(terminal, speaker(terminal), item, (options) =>
            fillRunning(admin, token, filling, options),
          );
          if (!ok) exit(1);
        }
      });
  };
  add('preload', '<url...>', 'download content and its hashes into a running hosted cache');
  add('import', '<file...>', 'put packages of `peerdist export` into a running hosted cache');
}

export function addExportCommand(program: Command, terminal: Terminal, exit: (code: number) => void): void {
  program
    .command('export')
    .description('download a content and its hashes into a package for hosted caches')
    .argument('<url>')
    .requiredOption('-o, --output <file>', 'where to write it')
    .addOption(versionOption())
    .action(
      async (url: string, { output, contentInfo }: { output: string; contentInfo: ContentInformationVersion }) => {
        WEB_URL.parse(url);
        const part = `${output}.part`;
        try {
          const ok = await report(terminal, speaker(terminal), url, async (options) => {
            await writePackage(url, part, { ...options, version: contentInfo });
            renameSync(part, output);
            return statSync(output).size;
          });
          if (!ok) exit(1);
        } finally {
          rmSync(part, { force: true });
        }
      },
    );
}

/** Puts in what the command line says, one after the other. Never rejects for what cannot be had. */
export async function fillAtStart(
  { cache }: HostedService,
  values: StartValues,
  terminal: Terminal,
  say: Speaker,
): Promise<void> {
  for (const url of values.preload ?? [])
    await report(terminal, say, url, (options) => cache.preload(url, { ...options, version: values.contentInfo }));
  for (const file of values.import ?? [])
    await report(terminal, say, file, (options) =>
      cache.import(createReadStream(file) as AsyncIterable<Uint8Array>, options),
    );
}

/** Says how things went: a command to whoever typed it, a service in its log. */
interface Speaker {
  info(line: string): void;
  warn(line: string): void;
}

function speaker({ print, warn }: Terminal): Speaker {
  return { info: print, warn: (line) => warn(`peerdist: ${line}`) };
}

/** Does one thing with a progress bar, on a terminal, until the process is asked to end, and says how it ended. @returns whether it went well; never rejects for what can fail */
async function report(
  { stopRequested }: Terminal,
  say: Speaker,
  what: string,
  act: (options: { readonly onProgress: Progress; readonly signal: AbortSignal }) => Promise<number>,
): Promise<boolean> {
  const stopped = new AbortController();
  void stopRequested.then(() => stopped.abort(new Error('stopped')));
  const bar = new ProgressBar('{step} {bar} {percentage}%  {amount}  {eta_formatted} left');
  try {
    const onProgress: Progress = (step, done, total = done) =>
      bar.show(step, done, total, { amount: formatBytes(done) });
    const bytes = await act({ onProgress, signal: stopped.signal });
    bar.stop();
    say.info(`${what}: ${formatBytes(bytes)}`);
    return true;
  } catch (error) {
    bar.stop();
    if (isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) throw error;
    say.warn(`${what}: ${(error as Error).message}`);
    return false;
  }
}

export function versionOption(): Setting {
  return setting(
    '--content-info <version>',
    'content information to preload: 1 for Windows 7, 2 for all later',
    numberFrom('--content-info', 1, 2),
    '2',
  );
}
