import { Command, CommanderError } from 'commander';
import { isPeerDistError } from '../../lib/errors.ts';
import { addCaCommand } from './commands/ca-commands.ts';
import { addCacheCommand } from './commands/cache-commands.ts';
import { addCompletionCommand } from './commands/completion-command.ts';
import { addCheckConfigCommand } from './commands/check-config-command.ts';
import { configurable, configure } from './config/apply.ts';
import type { ConfigSection } from './config/config-file.ts';
import { runDemo } from './demo/demo.ts';
import { addDoctorCommand } from './commands/doctor-command.ts';
import { addEstimateCommand } from './commands/estimate-command.ts';
import { addHashCommand, addInspectCommand } from './commands/file-commands.ts';
import { addExportCommand, addFillCommands } from './commands/fill-commands.ts';
import { headRole } from './commands/head-command.ts';
import { hostedRole } from './commands/hosted-command.ts';
import { addLoadCommand } from './commands/load-command.ts';
import { addExamples } from './commands/examples.ts';
import { addGetCommand, addProbeCommand } from './commands/peer-commands.ts';
import { addPreheatCommand } from './commands/preheat-command.ts';
import { addPublishCommand } from './commands/publish-command.ts';
import { addRole, type CommandContext, type RoleDefinition } from './commands/role-command.ts';
import { branchRole } from './commands/branch-command.ts';
import { reverseRole } from './commands/reverse-command.ts';
import { addSecretCommand } from './commands/secret-commands.ts';
import { addStatsCommand } from './commands/stats-command.ts';
import type { Terminal } from './terminal.ts';
import { addVerifyCommand } from './commands/verify-command.ts';
import { ownVersion } from './version.ts';

/** Those that a configuration file can have a section for, with more to check than the form of their options. */
const ROLES: readonly RoleDefinition<never>[] = [reverseRole, branchRole, hostedRole, headRole];

/**
 * Runs the `peerdist` command.
 *
 * @param args without the program's name
 * @returns exit code: 0 done, 1 the work failed, 2 the command line or its surroundings are wrong
 */
export async function runCommand(
  args: readonly string[],
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<number> {
  let exitCode = 0;
  const program = createProgram(terminal);
  const exit = (code: number): void => {
    exitCode = code;
  };
  const sections = new WeakMap<Command, ConfigSection>();
  const context: CommandContext = {
    terminal,
    exit,
    args,
    environment,
    configurable: () => configurable(program),
    sectionOf: (command) => sections.get(command),
  };
  program.hook('preAction', async (_program, command) => {
    const section = await configure(command, environment, configurable(program));
    if (section !== undefined) sections.set(command, section);
  });
  addRole(program, reverseRole, context);
  addRole(program, branchRole, context);
  addFillCommands(addRole(program, hostedRole, context), terminal, exit);
  addRole(program, headRole, context);
  addPublishCommand(program, terminal, exit);
  addExportCommand(program, terminal, exit);
  addSecretCommand(program, terminal);
  addCaCommand(program, terminal);
  addCacheCommand(program, terminal, exit);
  addHashCommand(program, terminal);
  addInspectCommand(program, terminal);
  addProbeCommand(program, terminal, exit);
  addGetCommand(program, terminal, exit);
  addVerifyCommand(program, terminal, exit);
  addPreheatCommand(program, terminal, exit);
  addLoadCommand(program, terminal, exit);
  addEstimateCommand(program, terminal, exit);
  addStatsCommand(program, terminal, exit);
  addDoctorCommand(program, ROLES, context);
  addCheckConfigCommand(program, terminal, ROLES, environment);
  addCompletionCommand(program, terminal);
  program
    .command('demo')
    .description('the whole job on this machine: origin, head office, a slow WAN, two branch proxies, client')
    .option('--keep', 'leave everything running afterwards, for a look')
    .action(async ({ keep }: { readonly keep?: true }) => {
      exit((await runDemo(terminal, { keep: keep === true })) ? 0 : 1);
    });
  addExamples(program);
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

function createProgram(terminal: Terminal): Command {
  return new Command('peerdist')
    .description('BranchCache (Peer Distribution) for HTTP proxies')
    .version(ownVersion())
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
}
