import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { isPeerDistError } from '../../lib/errors.ts';
import { addCacheCommand } from './cache-commands.ts';
import { runDemo } from './demo/demo.ts';
import { addHashCommand, addInspectCommand } from './file-commands.ts';
import { addExportCommand, addHostedCommand } from './hosted-commands.ts';
import { addLoadCommand } from './load-command.ts';
import { addGetCommand, addProbeCommand } from './peer-commands.ts';
import { addBranchCommand, addReverseCommand } from './role-commands.ts';
import { addSecretCommand } from './secret-commands.ts';
import type { Terminal } from './terminal.ts';

/**
 * Runs the `peerdist` command.
 *
 * @param args without the program's name
 * @returns exit code: 0 done, 1 the work failed, 2 the command line or its surroundings are wrong
 */
export async function runCommand(args: readonly string[], terminal: Terminal): Promise<number> {
  let exitCode = 0;
  const program = new Command('peerdist')
    .description('BranchCache (Peer Distribution) for HTTP proxies')
    .version(version())
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.print(text.trimEnd()),
      writeErr: (text) => terminal.warn(text.trimEnd()),
      // One line, also where Commander adds a suggestion on a second one.
      outputError: (text, write) =>
        write(
          `peerdist: ${text
            .replace(/^error: /, '')
            .trim()
            .replaceAll('\n', ' ')}`,
        ),
    });
  const exit = (code: number): void => {
    exitCode = code;
  };
  addReverseCommand(program, terminal, exit);
  addBranchCommand(program, terminal, exit);
  addHostedCommand(program, terminal, exit);
  addExportCommand(program, terminal, exit);
  addSecretCommand(program, terminal);
  addCacheCommand(program, terminal, exit);
  addHashCommand(program, terminal);
  addInspectCommand(program, terminal);
  addProbeCommand(program, terminal, exit);
  addGetCommand(program, terminal, exit);
  addLoadCommand(program, terminal, exit);
  program
    .command('demo')
    .description('the whole job on this machine: origin, head office, a slow WAN, two branch proxies, client')
    .action(async () => {
      exit((await runDemo(terminal)) ? 0 : 1);
    });
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!isPeerDistError(error)) throw error;
    terminal.warn(`peerdist: ${error.message}`);
    return 2;
  }
}

function version(): string {
  const file = new URL('../../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
