/** Configuration of a command that is about to run: environment and file beneath its flags. */
import cluster from 'node:cluster';
import type { Command } from 'commander';
import { isPeerDistError } from '../../../lib/errors.ts';
import type { ConfigSection } from './config-file.ts';
import { fillIn } from './layers.ts';

/** Commands that can be configured by a file. */
export function configurable(program: Command): readonly Command[] {
  return program.commands.filter(({ options }) => options.some(({ long }) => long === '--config'));
}

/**
 * Gives a command, and those it belongs to, what no flag has set.
 *
 * @param commands that may have a section in the file
 * @returns the section of the file that was read, if one was
 * @throws {@link PeerDistError} `ERR_PEERDIST_INVALID_OPTION`
 */
export async function configure(
  command: Command,
  environment: NodeJS.ProcessEnv,
  commands: readonly Command[],
): Promise<ConfigSection | undefined> {
  let own: ConfigSection | undefined;
  for (let each: Command | null = command; each !== null; each = each.parent) {
    const section = await sectionFor(each, environment, commands);
    fillIn(each, environment, section);
    own ??= section;
  }
  return own;
}

async function sectionFor(
  command: Command,
  environment: NodeJS.ProcessEnv,
  commands: readonly Command[],
): Promise<ConfigSection | undefined> {
  // A worker is told by its leader.
  if (cluster.isWorker || !commands.some((each) => each.name() === command.name())) return undefined;
  const file = (command.getOptionValue('config') as string | undefined) ?? environment['PEERDIST_CONFIG'];
  if (file === undefined || file === '') return undefined;
  // Loaded when it is needed: its parser and validator take a tenth of a second.
  const { readConfigFile } = await import('./config-file.ts');
  return readConfigFile(file, commands).section(command.name());
}

/** Runs a check; where it fails because of something in the file, the error says where that stands. */
export async function located(section: ConfigSection | undefined, check: () => void | Promise<void>): Promise<void> {
  try {
    await check();
  } catch (error) {
    if (section === undefined || !isPeerDistError(error, 'ERR_PEERDIST_INVALID_OPTION')) throw error;
    // Messages name options as one types them.
    for (const [, flag = ''] of error.message.matchAll(/--(?:no-)?([a-z][a-z-]*)/g))
      if (section.values.has(flag)) throw section.error(flag, error.message);
    throw error;
  }
}
